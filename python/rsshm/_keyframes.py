# SPDX-License-Identifier: MIT OR Apache-2.0
"""Requests for keyframes: how a reader writes them into its reader entry, and how the writer merges those of all readers."""

from __future__ import annotations

import ctypes
import time
from typing import List, Optional, Tuple

from . import layout
from ._libc import acquire, release
from ._segment import Segment
from .layout import KeyframeRecord, ReaderEntry

KEY_FRAME_INTERVAL = 1.0
"""The least interval between two reported requests for a keyframe at once. It limits the bits that an encoder spends on
keyframes."""
SAME_FRAME_NS = 1_000_000
"""Two requests whose times are less far apart than this mean the same frame."""
MAX_REQUESTS_IN_PERIOD = 8
"""The most keyframes that one reader can get in a second by requests for a later time."""
RATE_PERIOD_NS = 1_000_000_000
MAX_PENDING = 16
"""The most requests for a later time that are kept for one reader."""
MAX_PENDING_OF_ALL = MAX_PENDING * layout.MAX_READERS
FORGET_AFTER_NS = 5_000_000_000
"""A request is forgotten this long after its time, whether a keyframe came or not."""

_RECORD_WORDS = ctypes.sizeof(KeyframeRecord) // 8


def _record(segment: Segment, seat: int, number: int) -> int:
    """The index in ``words`` of the record of the request ``number``."""
    first = segment.seat_word(seat, ReaderEntry.keyframes)
    return first + number % layout.KEYFRAME_RING_LENGTH * _RECORD_WORDS


def write_immediate(segment: Segment, seat: int) -> None:
    """Requests a keyframe as soon as possible, with all headers."""
    segment.words[segment.seat_word(seat, ReaderEntry.keyframe_details)] = layout.ALL_HEADERS
    release()
    index = segment.seat_half(seat, ReaderEntry.keyframe_requests)
    segment.halves[index] = (segment.halves[index] + 1) & 0xFFFF_FFFF


def write_timed(segment: Segment, seat: int, at_ns: int) -> None:
    """Requests the first frame of the time ``at_ns``, or a later time, as a keyframe with all headers."""
    words, head = segment.words, segment.seat_word(seat, ReaderEntry.keyframe_head)
    number = (words[head] + 1) & 0xFFFF_FFFF_FFFF_FFFF
    record = _record(segment, seat, number)
    words[record] = 0
    release()
    words[record + 1] = at_ns
    words[record + 2] = layout.ALL_HEADERS
    release()
    words[record] = number
    release()
    words[head] = number


def read_timed(segment: Segment, seat: int, seen: int) -> Tuple[int, List[int]]:
    """The number of the newest request, and the times of the requests after the request ``seen``."""
    words = segment.words
    newest: int = words[segment.seat_word(seat, ReaderEntry.keyframe_head)]
    acquire()
    times = []
    for number in range(max(seen + 1, newest - layout.KEYFRAME_RING_LENGTH + 1), newest + 1):
        record = _record(segment, seat, number)
        before = words[record]
        acquire()
        at_ns = words[record + 1]
        acquire()
        if before == number == words[record] and at_ns != layout.TIME_NONE:
            times.append(at_ns)
    return newest, times


class _Timed:
    """A request for a keyframe of a later time."""

    def __init__(self, at_ns: int, reader: Tuple[int, int]) -> None:
        self.at_ns = at_ns
        self.reader = reader
        """The reader entry and the generation of the reader that sent the request first."""
        self.is_answered = False
        self.is_told = False


class KeyframeRequests:
    """Which keyframes readers want."""

    def __init__(self) -> None:
        self._newest = 0
        self._newest_ns: Optional[int] = None
        self._head_ns: Optional[int] = None
        self._wanted_since: Optional[int] = None
        """The seq of the newest frame at the first request that no keyframe has answered yet."""
        self._told: Optional[float] = None
        self._timed: List[_Timed] = []

    def note_frame(self, number: int, pts: int, is_keyframe: bool) -> None:
        """Records a frame that was published."""
        self._head_ns = None if pts == layout.TIME_NONE else pts
        if not is_keyframe:
            return
        self._newest, self._newest_ns = number, self._head_ns
        for timed in self._timed:
            timed.is_answered = timed.is_answered or (self._head_ns is not None and self._head_ns >= timed.at_ns)

    def add_immediate(self, head: int) -> None:
        """Adds a request for a keyframe as soon as possible. ``head`` is the seq of the newest frame."""
        if self._wanted_since is None:
            self._wanted_since = head

    def add_timed(self, at_ns: int, reader: Tuple[int, int]) -> None:
        """Adds a request of a reader for a keyframe of a later time.

        The request is left out if another one has the same effect, or if the reader sends too many.
        """
        if self._newest_ns is not None and self._newest_ns >= at_ns:
            return
        # Requests for times in the past all mean the next frame.
        head = self._head_ns or 0
        for other in self._timed:
            if abs(other.at_ns - at_ns) < SAME_FRAME_NS or (max(other.at_ns, at_ns) <= head and not other.is_answered):
                return
        own = [other for other in self._timed if other.reader == reader]
        near = [other for other in own if abs(other.at_ns - max(at_ns, head)) < RATE_PERIOD_NS]
        if len(near) >= MAX_REQUESTS_IN_PERIOD or len(own) >= MAX_PENDING:
            return
        if len(self._timed) >= MAX_PENDING_OF_ALL:
            # Readers that are gone have left these requests. Those furthest in the future are the least likely to be meant.
            furthest = max(other.at_ns for other in self._timed)
            self._timed = [other for other in self._timed if other.at_ns != furthest]
        self._timed.append(_Timed(at_ns, reader))

    def take_due(self, now_ns: int) -> bool:
        """Whether to report now that a keyframe is wanted."""
        due = self._take_immediate()
        # Frames of a file may be ahead of the clock.
        reached = max(now_ns, self._head_ns or 0)
        for timed in self._timed:
            if timed.at_ns <= reached and not timed.is_answered and not timed.is_told:
                timed.is_told = due = True
        self._timed = [
            timed
            for timed in self._timed
            if reached - timed.at_ns < (RATE_PERIOD_NS if timed.is_answered else FORGET_AFTER_NS)
        ]
        return due

    def _take_immediate(self) -> bool:
        if self._wanted_since is None:
            return False
        if self._newest > self._wanted_since:
            self._wanted_since = None
            return False
        if self._told is not None and time.monotonic() - self._told < KEY_FRAME_INTERVAL:
            return False
        self._wanted_since = None
        self._told = time.monotonic()
        return True

    def seconds_until_due(self, now_ns: int) -> Optional[float]:
        """The time until the next request is due. None if no request waits for its time."""
        waiting = [timed.at_ns for timed in self._timed if not timed.is_answered and not timed.is_told]
        return max(min(waiting) - now_ns, 0) / 1e9 if waiting else None
