# SPDX-License-Identifier: MIT OR Apache-2.0
"""The grouping of frames by time, held against a search of all sets, for streams and orders that hypothesis invents."""

from __future__ import annotations

import itertools
from typing import List, Optional, Sequence, Tuple

import hypothesis
from hypothesis import strategies as st

from rsshm._matcher import JUMP, Matcher

Streams = List[List[int]]
Set = Tuple[int, ...]

NO_LIMIT = 10_000
# The tests share two cores with others, so a slow example is no failure.
settings = hypothesis.settings(max_examples=300, deadline=None)


def streams_of(intervals: st.SearchStrategy[List[int]]) -> st.SearchStrategy[Streams]:
    """Two or three channels, each with the times of its frames."""
    stream = st.tuples(st.integers(0, 40), intervals).map(lambda parts: list(itertools.accumulate([parts[0], *parts[1]])))
    return st.lists(stream, min_size=2, max_size=3)


any_streams = streams_of(st.lists(st.integers(1, 25), max_size=9))
# The shortest interval of a channel is its first one, so that the expectation of its next frame is never wrong.
steady_streams = streams_of(st.lists(st.integers(1, 25), max_size=9).map(lambda found: sorted(found)[:1] + found[:8]))
tolerances = st.integers(0, 30)


def spread(found: Sequence[int]) -> int:
    return max(found) - min(found)


def smallest_spread(streams: Streams, tolerance: int) -> Optional[int]:
    """The spread of the first set of whole streams, found by trying all sets with the pivot. None if there is no set."""
    rest = [list(stream) for stream in streams]
    while all(rest):
        pivot = max(stream[0] for stream in rest)
        late = [stream for stream in rest if stream[0] < pivot - tolerance]
        if not late:
            of_pivot = next(index for index, stream in enumerate(rest) if stream[0] == pivot)
            choices = [stream[:1] if index == of_pivot else stream for index, stream in enumerate(rest)]
            return min(map(spread, itertools.product(*choices)))
        late[0].pop(0)
    return None


def run(streams: Streams, order: List[int], tolerance: int, finals: Sequence[bool] = (), limit: int = NO_LIMIT) -> List[Set]:
    """The sets that a matcher returns if frames of the channels come in this order. Checks what holds for any order."""
    matcher: Matcher[int] = Matcher(len(streams), tolerance, limit)
    rest = [iter(stream) for stream in streams]
    come = [0] * len(streams)
    ended = set()
    sets: List[Set] = []
    # After the given order, the rest of the channels in turn.
    for step, index in enumerate([*order, *list(range(len(streams))) * (1 + max(map(len, streams)))]):
        index %= len(streams)
        time = next(rest[index], None)
        if time is not None:
            come[index] += 1
            matcher.push(index, time, time)
        elif index not in ended:
            ended.add(index)
            matcher.end(index)
        while True:
            found = matcher.match(final=step < len(finals) and finals[step])
            if found is None:
                break
            sets.append(found)
        for queue in matcher.queues:
            assert len(queue.frames) <= limit
    assert matcher.ended and matcher.match(final=True) is None
    for channel, queue in enumerate(matcher.queues):
        taken = [found[channel] for found in sets]
        assert taken == sorted(set(taken)), "a frame was returned twice, or frames in a wrong order"
        assert come[channel] == len(taken) + queue.unmatched + len(queue.frames), "a frame was lost, or counted twice"
    assert all(spread(found) <= tolerance for found in sets)
    return sets


def assert_no_set_left_out(streams: Streams, sets: List[Set], tolerance: int) -> None:
    before: Set = (-1,) * len(streams)
    for found in [*sets, (1 << 62,) * len(streams)]:
        between = [[time for time in stream if begin < time < end] for stream, begin, end in zip(streams, before, found)]
        missed = [each for each in itertools.product(*between) if spread(each) <= tolerance]
        assert not missed, f"{missed[0]} was left out between {before} and {found}"
        before = found


orders = st.lists(st.integers(0, 5), max_size=30)


@settings
@hypothesis.given(steady_streams, orders, tolerances)
def test_sets_are_the_best_in_any_order_of_arrival(streams: Streams, order: List[int], tolerance: int) -> None:
    rest = streams
    for found in run(streams, order, tolerance):
        assert spread(found) == smallest_spread(rest, tolerance)
        rest = [[time for time in stream if time > taken] for stream, taken in zip(rest, found)]
    assert smallest_spread(rest, tolerance) is None


@settings
@hypothesis.example([[13, 24, 30], [30, 31], [13, 24, 31]], [], 6, [])
@hypothesis.given(any_streams, orders, tolerances, st.lists(st.booleans(), max_size=60))
def test_no_possible_set_is_left_out(streams: Streams, order: List[int], tolerance: int, finals: List[bool]) -> None:
    assert_no_set_left_out(streams, run(streams, order, tolerance, finals), tolerance)


@settings
@hypothesis.given(any_streams, orders, tolerances, st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_queues_never_exceed_their_limit(
    streams: Streams, order: List[int], tolerance: int, finals: List[bool], limit: int
) -> None:
    run(streams, order, tolerance, finals, limit)


def match(streams: Streams, tolerance: int, final: bool = False, **intervals: int) -> Tuple[Optional[Set], Matcher[int]]:
    """What the matcher returns after the frames have come."""
    matcher: Matcher[int] = Matcher(len(streams), tolerance, NO_LIMIT)
    for index, stream in enumerate(streams):
        for time in stream:
            matcher.push(index, time, time)
    return matcher.match(final), matcher


def test_set_is_returned_at_once_if_intervals_are_long() -> None:
    # The intervals are known after the first set.
    _, matcher = match([[0, 100], [3, 103]], 5)
    assert matcher.match() == (100, 103) and matcher.candidate is None


def test_nearer_frame_is_waited_for() -> None:
    _, matcher = match([[0, 6], [10]], 20)
    assert matcher.match() is None and matcher.candidate == 10
    matcher.push(0, 11, 11)
    assert matcher.match() == (11, 10)
    assert [queue.unmatched for queue in matcher.queues] == [2, 0]


def test_earlier_of_two_equally_near_frames_is_taken() -> None:
    assert match([[30], [30, 31], [24, 31]], 6, final=True)[0] == (30, 30, 31)


def test_full_queue_does_not_wait_for_nearer_frames() -> None:
    matcher: Matcher[int] = Matcher(2, 20, 2)
    for channel, time in ((0, 0), (1, 10), (1, 20)):
        matcher.push(channel, time, time)
    assert matcher.match() == (0, 10)


def test_frames_without_time_or_out_of_order_are_counted() -> None:
    matcher: Matcher[str] = Matcher(2, 5, NO_LIMIT)
    for time in (10, 9, 10, None):
        matcher.push(0, time, f"left {time}")
    matcher.push(1, 10, "right")
    assert matcher.match() == ("left 10", "right")
    assert [queue.unmatched for queue in matcher.queues] == [3, 0]


def test_restarted_channel_may_begin_earlier() -> None:
    matcher: Matcher[str] = Matcher(2, 5, NO_LIMIT)
    matcher.push(0, 10**6, "before")
    matcher.push(0, 10, "left", restarted=True)
    matcher.push(1, 11, "right")
    assert matcher.match(final=True) == ("left", "right")
    assert [queue.unmatched for queue in matcher.queues] == [1, 0]


def test_one_wrong_time_does_not_stop_the_sets() -> None:
    matcher: Matcher[int] = Matcher(2, 5, NO_LIMIT)
    for time in (10, 50 * JUMP, 20, 30):
        matcher.push(0, time, time)
    for time in (20, 30):
        matcher.push(1, time, time)
    assert matcher.match(final=True) == (20, 20)
    assert matcher.match(final=True) == (30, 30)
