# SPDX-License-Identifier: MIT OR Apache-2.0
"""Finds the frames of a segment: in which run a frame is, and where in the run.

The slots are not pinned during a search, so what it finds may be overwritten at any time.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Iterator, NamedTuple, Optional, Tuple

from . import layout
from ._libc import acquire
from ._segment import Segment
from .layout import FrameDescriptor, RunRecord

MAX_SEARCHES = 3
"""How often a search is repeated if the writer has used all slots meanwhile."""
MAX_COPIED = 8192
"""Where slots may have runs, frames of at most this size are copied although a pin is free, because a pin would keep the slot
with all its frames."""

_ORDINAL_BITS = 24
_MAX_ORDINAL = (1 << _ORDINAL_BITS) - 1
_RECORD_SIZE = ctypes.sizeof(RunRecord)
_TIMES = slice(0, RunRecord.size.offset)
"""The bytes of a ``RunRecord`` that are the same in a ``FrameDescriptor``."""
# The other fields: size, flags, keyframe and metadata_size of a `RunRecord`, and all fields of a `FrameDescriptor` from
# data_offset on. An appended frame has no planes.
_RECORD = struct.Struct("=QIII")
_DESCRIPTOR = struct.Struct("=QQII48xII112x")
# The fields data_offset and size, and the field metadata_size, of a `FrameDescriptor`.
_PLACED = struct.Struct("=QQ")
_METADATA_SIZE = struct.Struct("=I")
_MAX_HEADERS = 16
"""How many headers before a keyframe a reader looks at."""
_FLAGS = slice(FrameDescriptor.flags.offset, FrameDescriptor.flags.offset + 4)
_KEYFRAME = slice(FrameDescriptor.keyframe.offset, FrameDescriptor.keyframe.offset + 4)


class Place(NamedTuple):
    """The place of a frame. The place of its first frame also stands for a run."""

    run: int
    """The number of the run in its segment."""
    slot: int
    first: int
    """The seq of the first frame of the run."""
    tail: int
    """The position of the newest frame of the run when it was looked up, as a word."""
    ordinal: int
    """Which frame of its run this is. The first frame has the ordinal 1."""
    offset: int
    """The offset of the frame's ``RunRecord`` in the slot. 0 for the first frame, which has none."""

    @property
    def seq(self) -> int:
        """The seq of the frame."""
        return self.first + self.ordinal - 1

    @property
    def last_of_run(self) -> int:
        """The seq of the newest frame of the run."""
        return self.first + (self.tail & _MAX_ORDINAL) - 1

    def at(self, ordinal: int, offset: int) -> Place:
        """The place of another frame of the run."""
        return Place(self.run, self.slot, self.first, self.tail, ordinal, offset)


def position(word: int) -> Optional[Tuple[int, int]]:
    """The ordinal of a frame in its run, and the offset of its record, from a word. None if the word is not valid."""
    ordinal, offset = word & _MAX_ORDINAL, word >> _ORDINAL_BITS
    if ordinal == 0 or (ordinal == 1) != (offset == 0) or offset % layout.RUN_ALIGN:
        return None
    return ordinal, offset


def span_of(descriptor: bytes) -> Tuple[int, int]:
    """Where the frame begins in its slot, and its size."""
    data_offset, size = _PLACED.unpack_from(descriptor, FrameDescriptor.data_offset.offset)
    return data_offset, size


def _aligned(offset: int) -> int:
    return (offset + layout.RUN_ALIGN - 1) // layout.RUN_ALIGN * layout.RUN_ALIGN


def _end_of(place: Place, descriptor: bytes) -> int:
    """The offset in the slot at which the frame ends, and at which the next record starts."""
    end = _aligned(sum(span_of(descriptor)))
    if place.ordinal == 1:
        # The metadata of the first frame is outside the slot.
        return end
    return _aligned(end + _METADATA_SIZE.unpack_from(descriptor, FrameDescriptor.metadata_size.offset)[0])


class Runs:
    """Finds the frames of one segment for one reader."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.may_be_long = bool(segment.header.flags & layout.RUNS)
        """Whether runs may have several frames."""
        self._former: Optional[Place] = None
        """The frame that the reader took last. The next frame is found from it."""
        self._former_end = 0
        """The offset in the slot at which that frame ends. Only valid if runs may have several frames."""

    def took(self, place: Place, descriptor: bytes) -> None:
        """Records that the reader took this frame."""
        self._former = place
        if self.may_be_long:
            self._former_end = _end_of(place, descriptor)

    def find(self, seq: int) -> Optional[Place]:
        """The first frame at or after the frame ``seq``."""
        former = self._former
        if former is not None and former.first + former.ordinal == seq:
            place = self._next(former)
            if place is not None:
                return place
        segment = self._segment
        for _ in range(MAX_SEARCHES):
            newest: int = segment.words[segment.run_head]
            acquire()
            found = self._search(seq, newest)
            # If the writer used all slots meanwhile, the search may have missed older frames.
            if segment.words[segment.run_head] < newest + layout.MAX_SLOTS:
                return found
        return None

    def _next(self, former: Place) -> Optional[Place]:
        """The frame after ``former``, if no frame was dropped between them."""
        following = former.first + former.ordinal
        if self.may_be_long:
            # The number of the newest run is loaded first. So the tail of an older run is final.
            newest: int = self._segment.words[self._segment.run_head]
            acquire()
            if self._segment.numbers[former.slot] == former.first:
                acquire()
                tail = self._tail(former.slot)
                if tail & _MAX_ORDINAL > former.ordinal:
                    return Place(former.run, former.slot, former.first, tail, former.ordinal + 1, self._former_end)
            if former.run >= newest:
                return None
        place = self._run(former.run + 1)
        return place if place is not None and place.first == following else None

    def _search(self, seq: int, newest: int) -> Optional[Place]:
        """The first frame at or after the frame ``seq``, among the runs up to the run ``newest``."""
        run = self._run(newest)
        # A reader that skips to the newest frame finds it in the newest run.
        if run is not None and run.first <= seq <= run.last_of_run:
            return self._locate(run, seq)
        for number in range(self._run_before(seq, newest), newest + 1):
            run = self._run(number)
            if run is not None and run.last_of_run >= seq:
                place = self._locate(run, max(seq, run.first))
                if place is not None:
                    return place
        return None

    def _run_before(self, seq: int, newest: int) -> int:
        """The number of the newest run that starts at or before the frame ``seq``. If no run does, the oldest run."""
        ring = self._segment.ring
        oldest = max(newest - layout.RING_LENGTH + 1, 1)
        # The first seqs of the runs grow, so the run is found by bisection.
        low, high = oldest, newest + 1
        while low < high:
            middle = (low + high) // 2
            if ring[middle % layout.RING_LENGTH] >> 8 <= seq:
                low = middle + 1
            else:
                high = middle
        acquire()
        return max(low - 1, oldest)

    def _run(self, number: int) -> Optional[Place]:
        """The run with this number. None if its slot has another run."""
        segment = self._segment
        entry: int = segment.ring[number % layout.RING_LENGTH]
        acquire()
        slot, first = entry & 0xFF, entry >> 8
        if first == 0 or slot >= segment.slot_count or segment.numbers[slot] != first:
            return None
        acquire()
        tail = self._tail(slot) if self.may_be_long else 1
        return Place(number, slot, first, tail, 1, 0) if tail else None

    def _tail(self, slot: int) -> int:
        """The position of the newest frame of the run in the slot, as a word. 0 if it is not valid."""
        tail: int = self._segment.tails[slot]
        acquire()
        return tail if position(tail) is not None else 0

    def _locate(self, run: Place, seq: int) -> Optional[Place]:
        """The place of the frame ``seq`` in the run, which contains it."""
        ordinal = seq - run.first + 1
        if ordinal == 1:
            return run
        for word in (run.tail, self._segment.keyframes[run.slot]):
            known = position(word)
            if known is not None and known[0] == ordinal:
                return run.at(*known)
        # Begin behind the frame that was taken last, if it is in this run.
        former, begin = self._former, run
        if former is not None and (former.run, former.first) == (run.run, run.first) and former.ordinal < ordinal:
            begin = run.at(former.ordinal + 1, self._former_end)
        return next((place for place, _ in self._walk(begin) if place.ordinal == ordinal), None)

    def _walk(self, place: Place) -> Iterator[Tuple[Place, bytes]]:
        """The frames of a run from this one on, with their descriptors. It ends early if the run is overwritten."""
        while place.ordinal <= place.tail & _MAX_ORDINAL:
            descriptor = self.describe(place)
            if descriptor is None:
                return
            yield place, descriptor
            place = place.at(place.ordinal + 1, _end_of(place, descriptor))

    def describe(self, place: Place) -> Optional[bytes]:
        """The bytes of the frame's ``FrameDescriptor``, without a pin. None if the frame was overwritten, or if the
        descriptor is not valid."""
        segment = self._segment
        if place.ordinal == 1:
            descriptor = segment.read_descriptor(place.slot)
            fits = FrameDescriptor.from_buffer_copy(descriptor).fits(segment.slot_size)
        else:
            data_offset = place.offset + _RECORD_SIZE
            if data_offset > segment.slot_size or not segment.is_backed(place.slot):
                return None
            record = os.pread(segment.fd, _RECORD_SIZE, segment.slots_offset + segment.slot_offset(place.slot) + place.offset)
            if len(record) != _RECORD_SIZE:
                return None
            size, flags, keyframe, metadata_size = _RECORD.unpack_from(record, RunRecord.size.offset)
            descriptor = record[_TIMES] + _DESCRIPTOR.pack(data_offset, size, flags, 0, metadata_size, keyframe)
            # The metadata is behind the frame in the slot.
            fits = _end_of(place, descriptor) <= segment.slot_size and metadata_size <= layout.MAX_METADATA_SIZE
        # As in a copy without a pin, the load below sees a 0 or a later seq if the writer has overwritten any of these bytes.
        acquire()
        return descriptor if fits and segment.numbers[place.slot] == place.first else None

    def is_keyframe(self, place: Place) -> bool:
        """Whether a reader can start with the frame. The answer may be outdated at once, because the frame is not pinned."""
        if place.ordinal == 1:
            keyframe: int = self._segment.keyframe_fields[place.slot]
            acquire()
            return keyframe != 0 and bool(self._segment.numbers[place.slot] == place.first)
        descriptor = self.describe(place)
        return descriptor is not None and _is_keyframe(descriptor)

    def newest_start(self, after: int, last: int) -> Optional[int]:
        """The seq of the frame with which a reader starts: the newest keyframe, or the first header directly before it. The
        arguments and None are those of ``newest_keyframe``."""
        start = self.newest_keyframe(after, last)
        if start is None:
            return None
        for _ in range(_MAX_HEADERS):
            before = start - 1
            place = self.find(before) if before > after else None
            descriptor = self.describe(place) if place is not None and place.seq == before else None
            if descriptor is None or not _is_header(descriptor):
                break
            start = before
        return start

    def newest_keyframe(self, after: int, last: int) -> Optional[int]:
        """The seq of the newest keyframe after the frame ``after``, up to the frame ``last``. None if there is no keyframe in
        this range, or if a frame from the keyframe up to ``last`` is missing."""
        newest: int = self._segment.words[self._segment.run_head]
        acquire()
        run = self._run(self._run_before(last, newest))
        if run is None or not run.first <= last <= run.last_of_run:
            return None
        while True:
            seq = self._keyframe_in(run, last)
            if seq is not None:
                return seq if seq > after else None
            if run.first <= after + 1:
                return None
            former = self._run(run.run - 1)
            if former is None or former.last_of_run + 1 != run.first:
                return None
            last, run = former.last_of_run, former

    def _keyframe_in(self, run: Place, last: int) -> Optional[int]:
        """The seq of the newest keyframe of the run, up to the frame ``last``."""
        known = position(self._segment.keyframes[run.slot])
        if known is None:
            return None
        newest = run.first + known[0] - 1
        if newest <= last:
            return newest
        found = None
        for place, descriptor in self._walk(run):
            if place.seq > last:
                break
            if _is_keyframe(descriptor):
                found = place.seq
        return found


def _is_header(descriptor: bytes) -> bool:
    return bool(int.from_bytes(descriptor[_FLAGS], sys.byteorder) & layout.HEADER)


def _is_keyframe(descriptor: bytes) -> bool:
    return descriptor[_KEYFRAME] != bytes(4)
