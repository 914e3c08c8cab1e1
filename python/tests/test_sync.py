# SPDX-License-Identifier: MIT OR Apache-2.0
"""sync: frames of several channels that belong together, from real writers that start, stop and run at their own rates."""

from __future__ import annotations

import itertools
import os
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy
import pytest
from helpers import PATIENCE, Channel, Process, grey, python

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
    """Starts writers with these arguments of ``timed``. Their times count from the same moment, when all are ready."""
    started = [start(python("timed", *arguments)) for arguments in each]
    for process in started:
        process.expect("ready")
    first = time.monotonic_ns() + 100 * MS
    for process in started:
        process.write_line(str(first))
    return started


def value(frame: rsshm.Frame) -> int:
    assert frame.array.min() == frame.array.max(), "a torn frame"
    return int(frame.array[0, 0])


def write(writer: rsshm.Writer, index: int, pts_ns: int) -> None:
    writer.write(grey(index), pts_ns=pts_ns)


def test_frames_of_the_same_time_come_together(channels: Any, start: Start) -> None:
    left, right = names(channels)
    ages = []
    with rsshm.sync([left, right], timeout=PATIENCE) as sets:
        # The right camera takes its pictures 1 ms later, and delivers them 40 ms late, which is more than one period.
        writers(start, (left, 0, PERIOD, 40), (right, MS, PERIOD, 40, 40 * MS))
        pairs = []
        for one, other in sets:
            ages.append((time.monotonic_ns() - other.pts_ns) / 1e6)  # type: ignore[operator]
            pairs.append((value(one), value(other)))
            assert other.pts_ns - one.pts_ns == MS  # type: ignore[operator]
        unmatched = sets.unmatched
    assert all(one == other for one, other in pairs) and len(pairs) >= 30
    assert set(unmatched) == {left, right} and sum(unmatched.values()) <= 2 * (40 - len(pairs))
    # A set is complete when the right frame arrives, and no wait is added.
    assert numpy.median(ages) < 48, ages


def test_faster_channel_gives_its_nearest_frames(channels: Any, start: Start) -> None:
    slow, fast = names(channels)
    with rsshm.sync([slow, fast], timeout=PATIENCE) as sets:
        # The fast channel has a frame 1 ms after each slow frame and others 4 ms before. The tolerance allows for both.
        writers(start, (slow, 0, 40 * MS, 20), (fast, -4 * MS, 5 * MS, 165))
        pairs = [(value(one), other.pts_ns - one.pts_ns) for one, other in sets]  # type: ignore[operator]
        unmatched = sets.unmatched
    assert len(pairs) >= 8
    # A loaded machine may delay the nearest frame for longer than twice the tolerance.
    assert [distance for _, distance in pairs].count(MS) >= len(pairs) // 2, pairs
    assert unmatched[slow] <= 20 - len(pairs) and unmatched[fast] >= len(pairs)


def test_three_channels_and_end_of_one(start: Start) -> None:
    three = [Channel() for _ in range(3)]
    try:
        with rsshm.sync([channel.name for channel in three], timeout=PATIENCE) as sets:
            writers(start, *((channel.name, 0, PERIOD, count) for channel, count in zip(three, (30, 12, 30))))
            found = [tuple(map(value, frames)) for frames in sets]
            # The iteration has ended for good.
            assert next(sets, None) is None
        assert all(min(each) == max(each) for each in found) and 6 <= len(found) <= 12
    finally:
        for channel in three:
            channel.remove()


def test_channel_may_start_late_and_restart(channels: Any, start: Start) -> None:
    left, right = names(channels)
    with rsshm.sync([left, right], tolerance=0.02, timeout=PATIENCE) as sets:

        def expect_pairs() -> None:
            for _ in range(10):
                one, other = next(sets)
                assert abs(one.pts_ns - other.pts_ns) <= 20 * MS  # type: ignore[operator]
                del one, other

        _, late = writers(start, (left, 0, PERIOD, 10_000), (right, 500 * MS, PERIOD, 10_000))
        expect_pairs()
        skipped = sets.unmatched[left]
        assert skipped > 5, "the left channel was alone for half a second"
        late.kill()
        sets.timeout = 0.3
        with pytest.raises(rsshm.Timeout, match=f"the newest frame of {right} is [0-9.]+ ms old"):
            for _ in range(100):
                next(sets)
        sets.timeout = PATIENCE
        writers(start, (right, 0, PERIOD, 10_000))
        expect_pairs()
        assert sets.unmatched[left] > skipped + 5


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
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(rsshm.Timeout, match=f"{right} has no writer") as timeout:
                    next(sets)
                assert 0.2 <= time.monotonic() - began < 2
                assert f"newest frame of {left} is" in str(timeout.value)
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
        assert 0.2 <= time.monotonic() - began < 2


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
    time.sleep(0.05)
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
