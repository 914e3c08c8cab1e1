# SPDX-License-Identifier: MIT OR Apache-2.0
"""Groups frames of several channels by their times. It knows neither channels nor clocks, so that tests can try any order."""

from __future__ import annotations

from collections import deque
from typing import Deque, Generic, List, Optional, Sequence, Tuple, TypeVar

Item = TypeVar("Item")

INTERVALS = 30
"""The next frame of a channel is not expected earlier than the shortest of this many last intervals."""
JUMP = 10**9
"""A frame that is older than the one before it by more than this begins anew, as a restarted writer does. Otherwise one frame
with a wrong time in the future would be the newest forever."""


class FrameQueue(Generic[Item]):
    """The frames of one channel that wait for partners, oldest first. Their times increase."""

    def __init__(self) -> None:
        self.frames: Deque[Tuple[int, Item]] = deque()
        self.last: Optional[int] = None
        """The time of the newest frame that came."""
        self.intervals: Deque[int] = deque(maxlen=INTERVALS)
        self.ended = False
        """Whether no more frames will come."""
        self.unmatched = 0
        """Number of frames that were skipped, because they have no partners."""

    def drop(self) -> None:
        self.frames.popleft()
        self.unmatched += 1

    def earliest(self) -> int:
        """The earliest time that the next frame is expected to have."""
        assert self.last is not None
        return self.last + (min(self.intervals) if self.intervals else 1)


class Matcher(Generic[Item]):
    """Groups frames as the docstring of :func:`rsshm.sync` says. Times are integers."""

    def __init__(self, channels: int, tolerance: int, limit: int) -> None:
        self.queues: List[FrameQueue[Item]] = [FrameQueue() for _ in range(channels)]
        self._tolerance = tolerance
        self._limit = limit
        self.candidate: Optional[int] = None
        """The time of the pivot of a set that :meth:`match` would return if ``final`` was true."""

    def push(self, channel: int, time: Optional[int], item: Item, restarted: bool = False) -> None:
        """Adds the next frame of a channel. ``restarted``: it is the first of another stream, whose times may be earlier."""
        queue = self.queues[channel]
        if time is not None and queue.last is not None and (time <= queue.last if restarted else time < queue.last - JUMP):
            while queue.frames:
                queue.drop()
            queue.last = None
            queue.intervals.clear()
        if time is None or (queue.last is not None and time <= queue.last):
            queue.unmatched += 1
            return
        if queue.last is not None and not restarted:
            queue.intervals.append(time - queue.last)
        queue.last = time
        queue.frames.append((time, item))
        if len(queue.frames) > self._limit:
            queue.drop()

    def end(self, channel: int) -> None:
        """No more frames of this channel will come."""
        self.queues[channel].ended = True

    @property
    def ended(self) -> bool:
        """Whether no more sets are possible."""
        return any(queue.ended and not queue.frames for queue in self.queues)

    def clear(self) -> None:
        """Skips all frames that wait."""
        for queue in self.queues:
            while queue.frames:
                queue.drop()

    def match(self, final: bool = False) -> Optional[Tuple[Item, ...]]:
        """The next set, or None. ``final``: do not wait for frames that could be nearer than those that have come."""
        self.candidate = None
        heads = self._heads()
        if heads is None:
            return None
        pivot = max(heads)
        of_pivot = heads.index(pivot)
        after: List[Optional[int]] = []
        expected: List[Optional[int]] = []
        for index, queue in enumerate(self.queues):
            # Of the frames up to the pivot, the last one is the best for each set to come.
            while len(queue.frames) > 1 and queue.frames[1][0] <= pivot:
                queue.drop()
            if index == of_pivot:
                later, can_come = None, False
            else:
                later = queue.frames[1][0] if len(queue.frames) > 1 else None
                can_come = later is None and not queue.ended
            after.append(later)
            expected.append(max(pivot, queue.earliest()) if can_come else later)
        before = [queue.frames[0][0] for queue in self.queues]
        spread, newest = _smallest_spread(pivot, before, after)
        # A full queue would skip a frame of the set while it waits.
        final = final or any(len(queue.frames) >= self._limit for queue in self.queues)
        if not final and _smallest_spread(pivot, before, expected)[0] < spread:
            self.candidate = pivot
            return None
        for queue in self.queues:
            # Of two frames that fit equally well, the earlier one leaves the other to the next set.
            if queue.frames[0][0] < newest - spread:
                queue.drop()
        return tuple(queue.frames.popleft()[1] for queue in self.queues)

    def _heads(self) -> Optional[List[int]]:
        """The time of the oldest frame of each channel, after frames without partners are skipped. None if one is missing."""
        while True:
            heads = [queue.frames[0][0] for queue in self.queues if queue.frames]
            # The times of each channel increase. So each later set has a frame that is at least as new as the newest head.
            oldest = max(heads, default=0) - self._tolerance
            late = [queue for queue in self.queues if queue.frames and queue.frames[0][0] < oldest]
            if not late:
                return heads if len(heads) == len(self.queues) else None
            for queue in late:
                queue.drop()


def _smallest_spread(pivot: int, before: Sequence[int], after: Sequence[Optional[int]]) -> Tuple[int, int]:
    """The smallest spread of a set that contains the pivot, and the time of the newest frame of this set.

    Each channel contributes its frame before or at the pivot, or its frame after it, if there is one.
    """
    best: Optional[Tuple[int, int]] = None
    for newest in sorted({pivot, *(time for time in after if time is not None)}):
        # The pivot itself is among the frames, so the oldest one is not newer than the pivot.
        oldest = min(earlier if later is None or later > newest else later for earlier, later in zip(before, after))
        spread = newest - oldest
        if best is None or spread < best[0]:
            best = spread, newest
    assert best is not None
    return best
