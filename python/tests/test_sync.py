# SPDX-License-Identifier: MIT OR Apache-2.0
"""sync: frames of several channels that belong together, from real writers that start, stop and run at their own rates."""

from __future__ import annotations

import itertools
import os
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

import pytest
from helpers import PATIENCE, Channel, Process, eventually, grey, python

import rsshm

Start = Callable[..., Process]
MS = 1_000_000
PERIOD = 33 * MS


@pytest.fixture
def channels() -> Iterator[Tuple[Channel, Channel]]:
    pair = Channel(), Channel()
    yield pair
    for channel in pair:
        channel.remove()


def names(channels: Tuple[Channel, Channel]) -> List[str]:
    return [channel.name for channel in channels]


def writers(start: Start, *each: Sequence[Any]) -> List[Process]:
    """Starts writers with these arguments of ``timed``. Their times count from the same moment, when all have a reader."""
    started = [start(python("timed", *arguments)) for arguments in each]
    for process in started:
        process.expect("ready")
    first = time.monotonic_ns() + 100 * MS
    for process in started:
        process.write_line(str(first))
    return started


def end(started: Iterable[Process]) -> None:
    """Waits until the writers have ended, so that the next ones may have their names."""
    for process in started:
        process.wait_ok()


def value(frame: rsshm.Frame) -> int:
    assert frame.array.min() == frame.array.max(), "a torn frame"
    return int(frame.array[0, 0])


def write(writer: rsshm.Writer, index: int, pts_ns: int) -> None:
    writer.write(grey(index), pts_ns=pts_ns)


def test_frames_of_the_same_time_come_together(channels: Any, start: Start) -> None:
    left, right = names(channels)

    def read_streams() -> bool:
        ages = []
        with rsshm.sync([left, right], timeout=PATIENCE) as sets:
            # The right camera takes its pictures 1 ms later, and delivers them 40 ms late, which is more than one period.
            started = writers(start, (left, 0, PERIOD, 40), (right, MS, PERIOD, 40, 40 * MS))
            for one, other in sets:
                ages.append((time.monotonic_ns() - other.pts_ns) / 1e6)  # type: ignore[operator]
                assert value(one) == value(other)
                assert other.pts_ns - one.pts_ns == MS  # type: ignore[operator]
            unmatched = sets.unmatched
        end(started)
        assert set(unmatched) == {left, right} and sum(unmatched.values()) <= 2 * (40 - len(ages))
        # A set is complete when the right frame arrives, and no wait is added.
        return len(ages) >= 30 and min(ages) < 48

    # On a busy machine, the readers miss frames, or all frames are late.
    eventually("30 sets without an added wait", read_streams)


def test_faster_channel_gives_its_nearest_frames(channels: Any, start: Start) -> None:
    slow, fast = names(channels)

    def read_streams() -> bool:
        with rsshm.sync([slow, fast], timeout=PATIENCE) as sets:
            # The fast channel has a frame 1 ms after each slow frame and others 4 ms before. The tolerance allows for both.
            started = writers(start, (slow, 0, 40 * MS, 20), (fast, -4 * MS, 5 * MS, 165))
            distances = [other.pts_ns - one.pts_ns for one, other in sets]  # type: ignore[operator]
            unmatched = sets.unmatched
        end(started)
        assert set(distances) <= {MS, -4 * MS} and unmatched[slow] <= 20 - len(distances)
        nearest = distances.count(MS)
        return len(distances) >= 8 and nearest >= len(distances) // 2 and unmatched[fast] >= len(distances)

    # On a busy machine, the readers miss frames, or the nearest frame is late by more than twice the tolerance.
    eventually("8 sets, half of them with the nearest frame", read_streams)


def test_three_channels_and_end_of_one(start: Start) -> None:
    three = [Channel() for _ in range(3)]

    def read_streams() -> bool:
        with rsshm.sync([channel.name for channel in three], timeout=PATIENCE) as sets:
            started = writers(start, *((channel.name, 0, PERIOD, count) for channel, count in zip(three, (30, 12, 30))))
            found = [tuple(map(value, frames)) for frames in sets]
            # The iteration has ended for good.
            assert next(sets, None) is None
        end(started)
        assert all(min(each) == max(each) for each in found) and len(found) <= 12
        return len(found) >= 6

    try:
        # On a busy machine, the readers miss frames.
        eventually("6 sets", read_streams)
    finally:
        for channel in three:
            channel.remove()


def test_channel_may_start_late_and_restart(channels: Any, start: Start) -> None:
    left, right = names(channels)
    with rsshm.sync([left, right], tolerance=0.02) as sets:

        def expect_pairs() -> None:
            sets.timeout = PATIENCE
            for _ in range(10):
                one, other = next(sets)
                assert abs(one.pts_ns - other.pts_ns) <= 20 * MS  # type: ignore[operator]
                del one, other

        def wait_for_frames_without_partners() -> None:
            sets.timeout = 0.1
            wanted = sets.readers[0].received + 10

            def has_received() -> bool:
                try:
                    next(sets)
                except rsshm.Timeout:
                    pass
                return sets.readers[0].received >= wanted

            eventually("ten frames of the left channel", has_received)

        writers(start, (left, 0, PERIOD, 10_000))
        wait_for_frames_without_partners()
        (late,) = writers(start, (right, 0, PERIOD, 10_000))
        expect_pairs()
        skipped = sets.unmatched[left]
        assert skipped > 5, "the left channel was alone for ten frames"
        late.kill()
        sets.timeout = 0.3
        with pytest.raises(rsshm.Timeout, match=f"the newest frame of {right} is [0-9.]+ ms old"):
            for _ in range(100):
                next(sets)
        wait_for_frames_without_partners()
        writers(start, (right, 0, PERIOD, 10_000))
        expect_pairs()
        assert sets.unmatched[left] > skipped + 5


def message_of_timeout(sets: rsshm.Synchronizer) -> str:
    with pytest.raises(rsshm.Timeout) as timeout:
        next(sets)
    return str(timeout.value)


def test_timeout_names_the_channel_without_writer(channels: Any) -> None:
    left, right = names(channels)
    with rsshm.Writer(left, (48, 64), format="GRAY8") as writer, rsshm.sync([left, right], timeout=0.2) as sets:
        stop = threading.Event()

        def flood() -> None:
            # Frames that never match do not prolong the time-out.
            while not stop.is_set():
                writer.write(grey(1))
                time.sleep(0.0005)

        flooding = threading.Thread(target=flood, daemon=True)
        flooding.start()
        try:
            # The first frame may come later than the time-out.
            eventually("a frame", lambda: f"newest frame of {left} is" in message_of_timeout(sets))
            for _ in range(2):
                began = time.monotonic()
                message = message_of_timeout(sets)
                assert 0.2 <= time.monotonic() - began < 10
                assert f"{right} has no writer" in message and f"newest frame of {left} is" in message
        finally:
            stop.set()
            flooding.join()


def test_zero_timeout_returns_what_is_there(channels: Any) -> None:
    left, right = names(channels)
    with rsshm.Writer(left, (48, 64), format="GRAY8") as one, rsshm.Writer(right, (48, 64), format="GRAY8") as other:
        with rsshm.sync([left, right], timeout=PATIENCE) as sets:
            write(one, 1, 1000 * MS)
            write(other, 1, 1001 * MS)
            next(sets)
            sets.timeout = 0
            write(one, 2, 1100 * MS)
            write(other, 2, 1101 * MS)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    assert [value(frame) for frame in next(sets)] == [2, 2]
                    break
                except rsshm.Timeout:
                    # The descriptor may become readable a moment after the frame is published.
                    assert time.monotonic() < deadline
            with pytest.raises(rsshm.Timeout):
                next(sets)


def test_no_more_frames_are_held_than_max_held(channels: Any) -> None:
    left, right = names(channels)
    with rsshm.Writer(left, (48, 64), format="GRAY8", max_slots=16) as one:
        with rsshm.Writer(right, (48, 64), format="GRAY8") as other:
            with rsshm.sync([left, right], timeout=0.05, max_held=3) as sets:
                held = []
                for index in range(40):
                    write(one, index, index * PERIOD)
                    with pytest.raises(rsshm.Timeout):
                        next(sets)
                    held.append(sets.readers[0].received - sets.unmatched[left])
                assert max(held) == 2, "max_held, less the frame that the program may have"
                assert one.dropped == 0
                write(other, 39, 39 * PERIOD)
                sets.timeout = PATIENCE
                frames = next(sets)
                assert [value(frame) for frame in frames] == [39, 39] and frames[0].in_place


class Scripted:
    """A reader whose frames are all there at once. Behind a real one is a thread that fetches them one by one."""

    times: Dict[str, Iterable[int]] = {}

    def __init__(self, name: str, **_: Any) -> None:
        self.connected = True
        self._times = iter(self.times[name])
        self._pipe = os.pipe()
        if name != "nothing":
            os.write(self._pipe[1], b"x")

    def fileno(self) -> int:
        return self._pipe[0]

    def read(self, _: float) -> Any:
        pts_ns = next(self._times, None)
        if pts_ns is None:
            raise rsshm.EndOfStream
        return SimpleNamespace(pts_ns=pts_ns, discontinuity=False)

    def close(self) -> None:
        for descriptor in self._pipe:
            os.close(descriptor)


@pytest.mark.parametrize("names", [["fast", "slow"], ["slow", "fast"]])
def test_backlog_of_channels_with_different_rates_is_matched(names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue overflows while the frames of the other channel are read."""
    monkeypatch.setattr(Scripted, "times", {"fast": range(5, 1001, 5), "slow": range(40, 1001, 40)})
    monkeypatch.setattr(rsshm.synced, "Reader", Scripted)
    with rsshm.sync(names, tolerance=0, timeout=PATIENCE) as sets:
        assert [frames[0].pts_ns for frames in sets] == list(range(40, 1001, 40))
        assert sets.unmatched == {"fast": 175, "slow": 0}


def test_timeout_comes_although_frames_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "times", {"flood": itertools.count(MS, MS), "nothing": ()})
    monkeypatch.setattr(rsshm.synced, "Reader", Scripted)
    with rsshm.sync(["flood", "nothing"], timeout=0.2) as sets:
        began = time.monotonic()
        with pytest.raises(rsshm.Timeout, match="nothing has no frame yet"):
            next(sets)
        assert 0.2 <= time.monotonic() - began < 10


def test_latest_skips_to_the_newest_set(channels: Any) -> None:
    left, right = names(channels)
    with rsshm.Writer(left, (48, 64), format="GRAY8", max_slots=16) as one:
        with rsshm.Writer(right, (48, 64), format="GRAY8", max_slots=16) as other:
            for latest in (False, True):
                write(one, 0, 0)
                write(other, 0, 0)
                with rsshm.sync([left, right], timeout=PATIENCE, latest=latest) as sets:
                    next(sets)
                    for index in range(1, 4):
                        write(one, index, index * PERIOD)
                        write(other, index, index * PERIOD)
                    time.sleep(0.2)  # the program is slow
                    if latest:
                        assert [(value(frame), frame.missed) for frame in next(sets)] == [(3, 2), (3, 2)]
                    else:
                        assert [[value(frame) for frame in next(sets)] for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]
                    assert not any(sets.unmatched.values())


def test_close_ends_the_wait_of_another_thread(channels: Any) -> None:
    sets = rsshm.sync(names(channels))
    errors: List[BaseException] = []

    def iterate() -> None:
        try:
            next(sets)
        except rsshm.Closed as error:
            errors.append(error)

    waiting = threading.Thread(target=iterate, daemon=True)
    waiting.start()
    eventually("the thread iterates", sets._iterating.locked)
    with pytest.raises(rsshm.Error, match="another thread"):
        next(sets)
    sets.close()
    waiting.join(PATIENCE)
    assert len(errors) == 1
    with pytest.raises(rsshm.Closed):
        sets.readers[0].read(0)
    with pytest.raises(rsshm.Closed):
        next(sets)


def test_forked_child_gets_an_error(channels: Any) -> None:
    with rsshm.sync(names(channels), timeout=0.1) as sets:
        with pytest.raises(rsshm.Timeout):
            next(sets)
        child = os.fork()
        if child == 0:
            try:
                sets.timeout = None
                next(sets)
            except rsshm.Closed:
                os._exit(3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
        assert os.WEXITSTATUS(status) == 3
        with pytest.raises(rsshm.Timeout):
            next(sets)


@pytest.mark.parametrize(
    "channels, options, message",
    [
        ("left", {}, "takes a list"),
        (["left"], {}, "two or more"),
        (["left", "left"], {}, "different"),
        (["left", "a/b"], {}, "a/b"),
        (["left", "right"], {"tolerance": -1}, "tolerance"),
        (["left", "right"], {"tolerance": float("nan")}, "tolerance"),
        (["left", "right"], {"timeout": -1}, "timeout"),
        (["left", "right"], {"max_held": 1}, "max_held"),
    ],
)
def test_bad_arguments_are_errors(channels: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rsshm.sync(channels, **options)
