# SPDX-License-Identifier: MIT OR Apache-2.0
"""A reader in one segment. Either it has a reader entry and can pin frames, or it is an observer and only reads."""

from __future__ import annotations

import os
import time
from typing import Dict, NamedTuple, Optional, Tuple

import numpy

from . import _control, _files, _keyframes, _libc, caps, layout
from ._control import ControlFile
from ._files import Identity, Name
from ._libc import KeptLock, acquire, full_fence, monotonic_ns, release
from ._pins import Pins
from ._runs import MAX_COPIED, Place, Runs, span_of
from ._segment import Access, Segment, open_file
from .errors import Denied
from .frame import Frame
from .layout import FrameDescriptor, ReaderEntry

GRANT_PATIENCE = 0.02
"""How long a new reader waits for a quota, in seconds. After this time, it starts without one and copies frames."""

WANTED = "read_only was requested, so each frame is copied"
PERMISSIONS = "the permissions of the channel let this user only read, so each frame is copied"
NO_SEAT = "all 64 reader entries of the channel are taken, so each frame is copied"


class HeldSeat:
    """The lock of a reader entry. The reader keeps it across segments. Frames in use keep it even after the reader is gone."""

    def __init__(self, byte: int, locks: Identity, lock: KeptLock) -> None:
        self.index = byte - layout.FIRST_READER_BYTE
        self.locks = locks
        # The clock gives a value that the previous owner is unlikely to have had. In a new segment, the writer
        # distinguishes owners by the generation alone.
        self.generation = (monotonic_ns() >> 10) & 0xFFFF_FFFF | 1
        self._lock = lock


class Pin:
    """A pin of a slot. The pin exists from when ``attachment`` is set until nothing refers to this object any more."""

    __slots__ = ("attachment", "_slot")

    def __init__(self, slot: int) -> None:
        self.attachment: Optional[Attachment] = None
        self._slot = slot

    def __del__(self) -> None:
        if self.attachment is not None:
            self.attachment.unpin(self._slot)


class Prepared(NamedTuple):
    """Objects for the next frame in a slot. They are made while the reader is idle, and can be used if the next frame has
    the layout of the last one."""

    shape: bytes
    """The layout of the last frame: those bytes of its checked descriptor that ``_SHAPE`` selects."""
    pin: Pin
    frame: Frame


_SHAPE = slice(FrameDescriptor.data_offset.offset, FrameDescriptor.keyframe.offset)
"""The bytes of a descriptor that describe the layout of a frame in its slot. They include the flags."""


class Attachment:
    """A reader in one segment."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.runs = Runs(segment)
        self.caps = caps.parse("")
        """The parsed caps of the frames."""
        self.seat: Optional[HeldSeat] = None
        self._ticket = 0
        self._prepared: Dict[int, Prepared] = {}
        self._to_prepare: Optional[Tuple[int, bytes]] = None
        self._usual_shape = b""
        self.kept_behind = 0
        """A lossless writer does not overwrite the frames after this seq until this reader has taken them."""
        self._asked_at = -1
        """The quota that the reader had when it last requested a larger one."""
        self._look()

    def _look(self) -> None:
        """Loads ``eos_count``, then ``head``. In this order, the head includes all frames before a counted end of stream."""
        self.eos_then: int = self.segment.halves[self.segment.eos_count]
        acquire()
        self.head_then: int = self.segment.words[self.segment.head]
        acquire()

    def _enter(self, seat: HeldSeat, follows: Optional[int]) -> bool:
        """Joins the segment, so that the writer counts this reader and its pins. False if it was superseded meanwhile.

        A reader that comes from a former segment joins a superseded segment too. It takes the frames of that segment
        before it moves on.
        """
        segment = self.segment
        halves, words = segment.halves, segment.words
        self.seat = seat
        before_first = max(segment.header.first_seq - 1, 0)
        if follows is not None and follows > before_first:
            follows = None
        index = seat.index
        ticket = segment.seat_half(index, ReaderEntry.generation)
        state = segment.seat_half(index, ReaderEntry.state)
        self._position = segment.seat_word(index, ReaderEntry.cursor)
        # Store the state first, then the generation. The writer notices this reader by the generation, and the state tells
        # it that the other values are still those of a dead owner.
        halves[state] = layout.READER_NEW
        former: int = halves[ticket]
        if seat.generation <= former:
            seat.generation = (former + 1) & 0xFFFF_FFFF
        self._ticket = seat.generation
        # Clear the pins of a dead owner before the generation is stored, so that they never count as this reader's pins. Store
        # the generation before the first pin. Otherwise the writer would treat this reader's pins as pins of a former owner.
        words[segment.seat_word(index, ReaderEntry.pins)] = 0
        release()
        halves[ticket] = seat.generation
        release()
        halves[segment.seat_half(index, ReaderEntry.keyframe_requests)] = 0
        words[segment.seat_word(index, ReaderEntry.message_head)] = 0
        words[segment.seat_word(index, ReaderEntry.keyframe_head)] = 0
        # A new reader begins with the newest frame, or in a compressed stream with an older one. As soon as the reader has
        # joined, a lossless writer keeps the frames after the reader's cursor. Before the reader has joined, the writer may
        # overwrite frames that are older than the history.
        is_lossless = bool(segment.header.flags & layout.LOSSLESS)
        retain = max(segment.header.history, 1) if is_lossless else 1
        self._look()
        words[self._position] = max(self.head_then - retain, 0) if follows is None else before_first
        halves[segment.seat_half(index, ReaderEntry.pid)] = os.getpid()
        release()
        halves[state] = layout.READER_JOINING
        self._pins = Pins(segment, segment.seat_word(index, ReaderEntry.pins))
        # Because of this fence, one of two things happens. A lossless writer sees this reader, and waits for it before it
        # publishes into the next segment. Or this reader sees below that the segment is superseded.
        full_fence()
        self._look()
        if follows is None:
            if halves[segment.state]:
                self.leave(layout.READER_LEFT)
                return False
            # The cursor was set before the reader joined. The frames after it may have been overwritten meanwhile, even if
            # another reader holds the newest frame of that time. So set the cursor again.
            kept_behind = max(self.head_then - retain, 0)
            words[self._position] = kept_behind
            if is_lossless:
                self.kept_behind = kept_behind
        # A writer in `wait_for_reader` continues only when it sees this state. So this reader receives all frames that the
        # writer publishes after the wait.
        release()
        halves[state] = layout.READER_ATTACHED
        segment.ring_bell(segment.writer_word)
        return True

    @classmethod
    def open(
        cls, name: Name, read_only: bool, former_seat: Optional[HeldSeat], follows: Optional[int]
    ) -> Optional[Tuple[Attachment, Optional[str]]]:
        """Attaches to the segment that has the channel's name now. None if no segment with a living writer has the name.

        Also returns the reason if the reader gets no reader entry. ``follows`` is the last seq that this reader has taken
        from a former segment.
        """
        observing = WANTED if read_only else None
        try:
            opened = open_file(name, not read_only)
        except OSError as error:
            if read_only or not _files.is_denied(error):
                raise _files.open_error(name.text, name.segment_path, "read", error) from error
            observing = PERMISSIONS
            try:
                opened = open_file(name, False)
            except OSError as second:
                raise _files.open_error(name.text, name.segment_path, "read", second) from second
        if opened is None:
            return None
        fd, found = opened
        control = None
        if observing is None and not _files.is_trusted(found):
            observing = PERMISSIONS
        if observing is None:
            try:
                control = ControlFile.open(name)
            except Denied:
                observing = PERMISSIONS
            except BaseException:
                os.close(fd)
                raise
            if observing is None and control is None:
                os.close(fd)
                return None
        if control is None:
            segment = Segment.open(name, fd, found, Access.OBSERVE)
            return (cls(segment), observing) if segment.is_current() else None
        segment = Segment.open(name, fd, found, Access.ATTACH)
        if not segment.is_current() or control.identity != segment.lock_identity:
            return None
        at = cls(segment)
        if former_seat is not None and former_seat.locks == control.identity:
            return (at, None) if at._enter(former_seat, follows) else None
        seats = range(layout.FIRST_READER_BYTE, layout.FIRST_READER_BYTE + layout.MAX_READERS)
        byte, lock, why = control.take_first(seats)
        if byte is not None and lock is not None:
            return (at, None) if at._enter(HeldSeat(byte, control.identity, lock), follows) else None
        return None if why == _control.NAME_CHANGED else (at, NO_SEAT)

    def _grant(self) -> Optional[int]:
        """The quota of this reader. None if it has no reader entry, or if the writer has not set the quota yet."""
        if self.seat is None:
            return None
        grant: int = self.segment.grants[self.seat.index]
        return grant & 0xFFFF_FFFF if grant >> 32 == self._ticket else None

    def wait_for_grant(self) -> None:
        """Waits briefly for the writer to set the quota of a new reader. With a quota, the first frame need not be copied."""
        until = time.monotonic() + GRANT_PATIENCE
        while self.seat is not None and self._grant() is None and time.monotonic() < until:
            time.sleep(0.0001)

    def is_evicted(self) -> bool:
        """Whether the writer has evicted this reader, because it held more slots than its quota. Its pins no longer count."""
        return self._grant() == layout.EVICTED

    def allowance(self) -> int:
        """How many slots this reader may pin now."""
        grant = self._grant()
        # If the quota is in range, no further comparison is needed.
        if grant is not None and grant > layout.MAX_QUOTA:
            return 0 if grant == layout.EVICTED else layout.MAX_QUOTA
        return grant or 0

    def held(self) -> int:
        """How many slots this reader pins now."""
        return 0 if self.seat is None else self._pins.held

    def ask_for_more(self, allowance: int) -> None:
        """Notifies the writer that this reader needs a larger quota. It does so once for each quota."""
        if self.seat is not None and self._asked_at != allowance:
            self._asked_at = allowance
            self.segment.ring_bell(self.segment.writer_word)

    def request_key_unit(self, at_ns: Optional[int] = None) -> bool:
        """Requests a keyframe. False if the reader has no reader entry, or if the segment is superseded or closed."""
        if self.seat is None or self.segment.is_of_parent() or self.segment.halves[self.segment.state] != 0:
            return False
        if at_ns is None:
            _keyframes.write_immediate(self.segment, self.seat.index)
        else:
            _keyframes.write_timed(self.segment, self.seat.index, at_ns)
        self.segment.ring_bell(self.segment.writer_word)
        return True

    def get(self, place: Place, number: int, allowance: int, max_held: int) -> Optional[Frame]:
        """Gets the frame with the seq ``number``. It is in place if the quota and ``max_held`` both permit one more slot.
        Otherwise it is a copy.

        If the quota permits a pin, the reader pins the slot while it copies. Otherwise it copies without a pin. A small frame
        whose slot may have others is copied without a pin too.
        """
        descriptor = None
        if self.runs.may_be_long:
            descriptor = self.runs.describe(place)
            if descriptor is None:
                return None
            if span_of(descriptor)[1] <= MAX_COPIED:
                return self._copy_unpinned(place, number, descriptor)
        held = self.held()
        if held < max_held and held + 1 >= allowance:
            self.ask_for_more(allowance)
        # The last pin of the quota is held only while a frame is copied.
        if held < allowance:
            frame = self._pin(place, number, descriptor)
            # If the quota was lowered meanwhile, the new pin exceeds it. Then the pin is removed below.
            if self.held() <= self.allowance():
                if frame is not None and held >= min(max_held, allowance - 1):
                    frame.copy_out()
                return frame
            del frame
        descriptor = descriptor or self.runs.describe(place)
        return None if descriptor is None else self._copy_unpinned(place, number, descriptor)

    def _pin(self, place: Place, number: int, descriptor: Optional[bytes]) -> Optional[Frame]:
        """Pins a frame. Its bytes keep the pin. None if the writer overwrote it first, or if its descriptor is not valid.

        ``descriptor`` is its checked descriptor, or None for a frame that is first in its slot and whose descriptor was not
        read.
        """
        segment, slot = self.segment, place.slot
        if not segment.is_backed(slot):
            return None
        prepared = self._prepared.pop(slot, None)
        pin = Pin(slot) if prepared is None else prepared.pin
        if not self._pins.pin(slot, place.first):
            self._tell_writer()
            return None
        # From here on, `pin` removes the pin when it is dropped, even if the descriptor is not valid.
        pin.attachment = self
        is_checked = descriptor is not None
        if descriptor is None:
            descriptor = segment.read_descriptor(slot)
        shape = descriptor[_SHAPE]
        if prepared is not None and prepared.shape == shape:
            frame = prepared.frame
        elif is_checked or FrameDescriptor.from_buffer_copy(descriptor).fits(segment.slot_size):
            frame = self._frame_in(slot, descriptor, pin)
        else:
            return None
        frame.arrive(number, descriptor)
        self._to_prepare = slot, descriptor
        return frame

    def _frame_in(self, slot: int, descriptor: bytes, pin: Pin) -> Frame:
        """A frame in the slot. It has the layout of ``descriptor``, which the caller has checked."""
        slots = self.segment.slots
        assert slots is not None
        place = FrameDescriptor.from_buffer_copy(descriptor)
        exporter = slots.exporter(self.segment.slot_offset(slot) + place.data_offset, place.size)
        exporter.pin = pin
        return Frame(self.caps, exporter, True)

    def prepare(self) -> None:
        """Prepares the objects of the next frame in the last frame's slot, if the last two frames had one layout. The reader
        calls this while it is idle."""
        if self._to_prepare is None:
            return
        (slot, descriptor), self._to_prepare = self._to_prepare, None
        shape = descriptor[_SHAPE]
        if shape == self._usual_shape:
            pin = Pin(slot)
            frame = self._frame_in(slot, descriptor, pin)
            frame.prepare(descriptor)
            self._prepared[slot] = Prepared(shape, pin, frame)
        self._usual_shape = shape

    def unpin(self, slot: int) -> None:
        """Removes a pin."""
        if not self.segment.is_of_parent():
            self._pins.give_back(slot)
            self._tell_writer()

    def _copy_unpinned(self, place: Place, number: int, descriptor: bytes) -> Optional[Frame]:
        """Copies a frame by pread, without a pin. None if the writer overwrote it. :meth:`Runs.describe` has checked the
        descriptor."""
        segment = self.segment
        # Check that the slot is committed before the memory for the copy is allocated.
        if not segment.is_backed(place.slot):
            return None
        data_offset, size = span_of(descriptor)
        copy = numpy.empty(size, numpy.uint8)
        at = segment.slots_offset + segment.slot_offset(place.slot) + data_offset
        if size and not _libc.read_exactly(segment.fd, copy, at):
            return None
        # If the writer has overwritten a copied byte, it had set the seq to 0 before. The load below then sees the 0, or a
        # later seq.
        acquire()
        if segment.numbers[place.slot] != place.first:
            return None
        frame = Frame(self.caps, copy, False)
        frame.arrive(number, descriptor)
        return frame

    def set_position(self, number: int) -> None:
        """Sets the cursor to ``number``. The reader has taken all frames up to this seq, or does not want them."""
        if self.seat is not None:
            release()
            self.segment.words[self._position] = number
            self._tell_writer()

    def leave(self, how: int) -> None:
        """Sets the state to *moved* or *left*. This reader then takes no more frames in this segment, but its pins stay."""
        if self.seat is not None and not self.segment.is_of_parent():
            release()
            self.segment.halves[self.segment.seat_half(self.seat.index, ReaderEntry.state)] = how
            self.segment.ring_bell(self.segment.writer_word)

    def _tell_writer(self) -> None:
        # Pairs with the fence of a writer that sets `writer_waits` and then checks its condition. Either the writer sees the
        # change that this reader made, or this reader sees `writer_waits`.
        full_fence()
        if self.segment.halves[self.segment.writer_waits] != 0:
            self.segment.ring_bell(self.segment.writer_word)
