# SPDX-License-Identifier: MIT OR Apache-2.0
"""aio: readers in asyncio programs, with real writers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Coroutine, Dict, List

import pytest
from helpers import PATIENCE, ROOT, Channel, Process, grey, python, records

import rsshm
import rsshm.aio

Start = Callable[..., Process]


def run(main: Coroutine[Any, Any, Any], limit: float = PATIENCE) -> Any:
    """Runs the coroutine in a loop that reports errors of callbacks, and requires that nothing remains in the loop."""

    async def checked() -> Any:
        errors: List[Dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        watched = len(loop._selector.get_map())  # type: ignore[attr-defined]
        result = await asyncio.wait_for(main, limit)
        assert not errors
        assert len(loop._selector.get_map()) == watched, "the loop still watches a descriptor"  # type: ignore[attr-defined]
        return result

    return asyncio.run(checked())


def value(frame: rsshm.Frame) -> int:
    assert frame.array.min() == frame.array.max(), "a torn frame"
    return int(frame.array[0, 0])


def test_frames_come_until_end_of_stream(channel: Channel, start: Start) -> None:
    async def main() -> List[int]:
        async with rsshm.aio.Reader(channel.name) as reader:
            values = [value(frame) async for frame in reader]
            # As with the blocking reader, the next iteration gets the next stream.
            with pytest.raises(rsshm.Timeout):
                await reader.read(timeout=0.05)
            assert reader.blocking.received == len(values)
            return values

    # This writer waits for the reader, and loses no frame.
    writer = start(python("write", channel.name, "GRAY8", 64, 48, 4))
    feeding = threading.Thread(target=writer.wait_ok, args=(records(grey(index).tobytes() for index in range(50)),))
    feeding.start()
    assert run(main()) == list(range(50))
    feeding.join()


def test_loop_runs_while_reader_waits(channel: Channel) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.ensure_future(tick())
        async with rsshm.aio.Reader(channel.name, timeout=2 * PATIENCE) as reader:
            reading = asyncio.ensure_future(reader.read())
            while ticks <= 10:
                await asyncio.sleep(0.01)
            assert not reading.done()
            reading.cancel()
        began = time.monotonic()
        async with rsshm.aio.Reader(channel.name, timeout=0.5) as reader:
            with pytest.raises(rsshm.Timeout, match=f"channel {channel.name}: no writer came in time"):
                await reader.read()
        assert 0.5 <= time.monotonic() - began < 10
        ticking.cancel()

    run(main())


def test_wait_is_no_busy_loop(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:

        async def main() -> float:
            async with rsshm.aio.Reader(channel.name) as reader:
                writer.write(grey(1))
                await reader.read()
                began = time.process_time()
                with pytest.raises(rsshm.Timeout):
                    await reader.read(1)
                # A frame waits, and nobody reads it.
                writer.write(grey(2))
                await asyncio.sleep(1)
                used = time.process_time() - began
                assert value(await reader.read()) == 2
                return used

        assert run(main()) < 0.3


class Flood:
    """A blocking reader that always has a frame. The thread behind a real one is not that fast."""

    name, timeout = "flood", None

    def read(self, _: float) -> int:
        return 1

    def close(self) -> None:
        pass


def test_reader_lets_other_tasks_run_at_full_speed(channel: Channel) -> None:
    async def main() -> None:
        reader = rsshm.aio.Reader(channel.name)
        reader.blocking.close()
        reader.blocking = Flood()  # type: ignore[assignment]
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for received in range(1, 100):
            await reader.read()
            assert turns >= received - 1
        counting.cancel()

    run(main())


def test_many_readers_share_one_loop(start: Start) -> None:
    several = [Channel() for _ in range(8)]
    # No writer waits for a slot, because it has more slots than frames.
    writers = [rsshm.Writer(channel.name, (48, 64), format="GRAY8", lossless=True, max_slots=16) for channel in several]
    try:
        for writer in writers:
            # This creates the segment.
            assert not writer.wait_for_reader(0)

        async def read_all(name: str, index: int) -> List[int]:
            async with rsshm.aio.Reader(name, timeout=PATIENCE) as reader:
                return [value(frame) - index async for frame in reader]

        async def write_all() -> None:
            for step in range(10):
                for index, writer in enumerate(writers):
                    writer.write(grey(index + 10 * step))
                await asyncio.sleep(0.02)
            for writer in writers:
                writer.end_stream()

        async def main() -> List[List[int]]:
            # Two readers of each channel.
            tasks = [
                asyncio.ensure_future(read_all(channel.name, index)) for index, channel in enumerate(several) for _ in range(2)
            ]
            while any(writer.readers < 2 for writer in writers):
                await asyncio.sleep(0.01)
            await write_all()
            return await asyncio.gather(*tasks)

        results = run(main())
        assert len(results) == 16 and all(result == list(range(0, 100, 10)) for result in results), results
    finally:
        for writer in writers:
            writer.close()
        for channel in several:
            channel.remove()


def test_cancelled_read_loses_no_frame(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=16) as writer:

        async def main() -> List[int]:
            async with rsshm.aio.Reader(channel.name, timeout=PATIENCE) as reader:
                writer.write(grey(0))
                values = [value(await reader.read())]
                for index in range(1, 30):
                    reading = asyncio.ensure_future(reader.read())
                    await asyncio.sleep(0.001 * (index % 3))
                    if index % 2:
                        writer.write(grey(index))
                    # Cancelled before, while or after the frame arrives.
                    await asyncio.sleep(0.0005 * (index % 4))
                    reading.cancel()
                    try:
                        values.append(value(await reading))
                    except asyncio.CancelledError:
                        if index % 2:
                            values.append(value(await reader.read()))
                return values

        assert run(main()) == [0, *range(1, 30, 2)]


def test_close_ends_a_pending_read(channel: Channel) -> None:
    async def main() -> None:
        reader = rsshm.aio.Reader(channel.name)
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0.05)
        with pytest.raises(rsshm.Error, match="another task"):
            await reader.read()
        reader.close()
        with pytest.raises(rsshm.Closed):
            await reading
        with pytest.raises(rsshm.Closed):
            await reader.read()
        with pytest.raises(rsshm.Closed):
            async with reader:
                pass

    run(main())


def test_descriptor_of_closed_reader_is_not_watched(channel: Channel) -> None:
    """Another file that gets the number of the descriptor is not disturbed."""

    async def main() -> None:
        reader = rsshm.aio.Reader(channel.name)
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0.05)
        number = reader.blocking.fileno()
        reader.close()
        ours, theirs = os.pipe()
        if number not in (ours, theirs):
            os.dup2(ours, number)
        seen = asyncio.Event()
        assert number != theirs
        asyncio.get_running_loop().add_reader(number, seen.set)
        with pytest.raises(rsshm.Closed):
            await reading
        os.write(theirs, b"x")
        await asyncio.wait_for(seen.wait(), PATIENCE)
        asyncio.get_running_loop().remove_reader(number)
        for descriptor in {ours, theirs, number}:
            os.close(descriptor)

    run(main())


def test_latest_and_timeout_of_the_reader(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=8) as writer:

        async def main() -> None:
            async with rsshm.aio.Reader(channel.name, timeout=PATIENCE, latest=True, max_held=2) as reader:
                writer.write(grey(0))
                assert value(await reader.read()) == 0
                for index in range(1, 5):
                    writer.write(grey(index))
                await asyncio.sleep(0.05)
                assert value(await reader.read()) == 4
                with pytest.raises(rsshm.Timeout, match="no frame came in time"):
                    await reader.read(timeout=0)
                for bad in (-1, "1", float("nan")):
                    with pytest.raises(rsshm.BadOption, match="timeout"):
                        await reader.read(timeout=bad)
            with pytest.raises(rsshm.BadName):
                rsshm.aio.Reader("a/b")

        run(main())


def test_reader_follows_a_killed_writer(channel: Channel, start: Start) -> None:
    async def main() -> None:
        async with rsshm.aio.Reader(channel.name, timeout=PATIENCE) as reader:
            for _ in range(2):
                writer = start(python("steady", channel.name))
                for _ in range(20):
                    value(await reader.read())
                writer.kill()
            assert reader.blocking.reconnects >= 1

    run(main(), 60)


def test_import_of_package_does_not_import_asyncio() -> None:
    code = "import sys, rsshm; assert 'asyncio' not in sys.modules; print(rsshm.aio.Reader, rsshm.aio is rsshm.aio)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout.decode().split() == ["<class", "'rsshm.aio.Reader'>", "True"]
