"""A reader's hold on one segment: with a seat, which lets it pin frames, or as an observer, which only looks."""

from __future__ import annotations

import os
import time
from typing import Dict, NamedTuple, Optional, Tuple

import numpy

from . import _control, _files, _libc, caps, layout
from ._control import ControlFile
from ._files import Identity, Name
from ._libc import KeptLock, acquire, full_fence, monotonic_ns, release
from ._pins import Pins
from ._segment import Access, Segment, open_file
from .errors import Denied
from .frame import Frame
from .layout import FrameDescriptor, ReaderEntry

GRANT_PATIENCE = 0.02
"""How long a newcomer waits for the writer to grant it pins before it begins with copies."""

WANTED = "read_only was requested, so each frame is copied"
PERMISSIONS = "the permissions of the channel let this user only read, so each frame is copied"
NO_SEAT = "all 64 reader entries of the channel are taken, so each frame is copied"


class HeldSeat:
    """A seat of the channel: the lock on its byte. It outlives segments, and the reader, while frames are in use."""

    def __init__(self, byte: int, locks: Identity, lock: KeptLock) -> None:
        self.index = byte - layout.FIRST_READER_BYTE
        self.locks = locks
        # Some number that the owner before is unlikely to have had: in a new segment the writer tells them apart by it
        # alone.
        self.generation = (monotonic_ns() >> 10) & 0xFFFF_FFFF | 1
        self._lock = lock


class Pin:
    """One pin of a slot; given back when nothing refers to it any more. There is none before an attachment was set."""

    __slots__ = ("attachment", "_slot")

    def __init__(self, slot: int) -> None:
        self.attachment: Optional[Attachment] = None
        self._slot = slot

    def __del__(self) -> None:
        if self.attachment is not None:
            self.attachment.unpin(self._slot)


class Prepared(NamedTuple):
    """What the next frame in a slot needs if it lies there as the last one did: all that can be made beforehand, while
    nobody waits for it."""

    shape: bytes
    """How that lay: a part of its descriptor, which was checked."""
    pin: Pin
    frame: Frame


_SHAPE = slice(FrameDescriptor.data_offset.offset, FrameDescriptor.reserved0.offset)
"""The part of a descriptor that says how a frame lies in its slot; its flags lie between."""


class Attachment:
    """A reader in one segment."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.caps = caps.parse("")
        """The format of the frames, which the reader knows."""
        self.seat: Optional[HeldSeat] = None
        self._ticket = 0
        self._prepared: Dict[int, Prepared] = {}
        self._to_prepare: Optional[Tuple[int, bytes]] = None
        self._usual_shape = b""
        self.kept_behind = 0
        """No frame behind this one goes away before this reader has taken any, as far as that is promised."""
        self._asked_at = -1
        """The grant at which the writer was last asked for more."""
        self._look()

    def _look(self) -> None:
        """What there is on arrival. In this order: an end that is not in the count has no frame after it in the head."""
        self.eos_then: int = self.segment.halves[self.segment.eos_count]
        acquire()
        self.head_then: int = self.segment.words[self.segment.head]
        acquire()

    def _enter(self, seat: HeldSeat, follows: Optional[int]) -> bool:
        """Sits down: from here on the writer counts this reader, and its pins. False when the segment was superseded
        meanwhile, unless this reader follows, and takes what is here before it goes on."""
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
        # Before the ticket, with which the writer sees it: what else a dead owner left is not this one's.
        halves[state] = layout.READER_NEW
        former: int = halves[ticket]
        if seat.generation <= former:
            seat.generation = (former + 1) & 0xFFFF_FFFF
        self._ticket = seat.generation
        # Before the first pin: what the writer knows of the pins of former owners is not believed of this one.
        release()
        halves[ticket] = seat.generation
        release()
        words[segment.seat_word(index, ReaderEntry.pins)] = 0
        halves[segment.seat_half(index, ReaderEntry.keyframe_requests)] = 0
        words[segment.seat_word(index, ReaderEntry.message_head)] = 0
        # A newcomer's first frame is the newest, or of a compressed stream one before it. A lossless writer keeps what comes
        # after this one as soon as somebody sits here; until then more than it retains may go away.
        is_lossless = bool(segment.header.flags & layout.LOSSLESS)
        retain = max(segment.header.history, 1) if is_lossless else 1
        self._look()
        words[self._position] = max(self.head_then - retain, 0) if follows is None else before_first
        halves[segment.seat_half(index, ReaderEntry.pid)] = os.getpid()
        release()
        halves[state] = layout.READER_JOINING
        self._pins = Pins(segment, segment.seat_word(index, ReaderEntry.pins))
        # Either a lossless writer sees that somebody is here, and waits before it publishes into the next segment, or it is
        # seen below that there is one.
        full_fence()
        self._look()
        if follows is None:
            if halves[segment.state]:
                self.leave(layout.READER_LEFT)
                return False
            # The frame that was the newest before it sat may be held by another reader, and those behind it gone.
            kept_behind = max(self.head_then - retain, 0)
            words[self._position] = kept_behind
            if is_lossless:
                self.kept_behind = kept_behind
        # Only now a writer that waits for a reader goes on: with what comes from here on, which this one takes.
        release()
        halves[state] = layout.READER_ATTACHED
        segment.ring_bell(segment.writer_word)
        return True

    @classmethod
    def open(
        cls, name: Name, read_only: bool, former_seat: Optional[HeldSeat], follows: Optional[int]
    ) -> Optional[Tuple[Attachment, Optional[str]]]:
        """Attaches to the segment that has the channel's name now, and says why without a seat where it has none. None
        while there is no segment with a living writer. ``follows``: up to which number this reader has taken the frames of a
        former segment."""
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
        """What the writer grants this owner of the seat; None when it has not answered yet."""
        if self.seat is None:
            return None
        grant: int = self.segment.grants[self.seat.index]
        return grant & 0xFFFF_FFFF if grant >> 32 == self._ticket else None

    def wait_for_grant(self) -> None:
        """Waits a moment until the writer has answered a newcomer, so that its first frame need not be copied."""
        until = time.monotonic() + GRANT_PATIENCE
        while self.seat is not None and self._grant() is None and time.monotonic() < until:
            time.sleep(0.0001)

    def is_evicted(self) -> bool:
        """Whether the writer found this seat holding more than it was granted; its pins no longer count."""
        return self._grant() == layout.EVICTED

    def allowance(self) -> int:
        """How many slots this seat may pin now."""
        grant = self._grant()
        # The plain case is told apart without a look elsewhere.
        if grant is not None and grant > layout.MAX_QUOTA:
            return 0 if grant == layout.EVICTED else layout.MAX_QUOTA
        return grant or 0

    def held(self) -> int:
        """How many slots this seat pins now."""
        return 0 if self.seat is None else self._pins.held

    def ask_for_more(self, allowance: int) -> None:
        """Makes the writer look how many slots this seat holds, and so grant more, once for each grant too small."""
        if self.seat is not None and self._asked_at != allowance:
            self._asked_at = allowance
            self.segment.ring_bell(self.segment.writer_word)

    def find(self, number: int) -> Optional[int]:
        """The slot of the frame, as far as the ring and the slot say."""
        segment = self.segment
        entry: int = segment.ring[number % layout.RING_LENGTH]
        acquire()
        slot = entry & 0xFF
        if entry >> 8 != number & ((1 << 56) - 1) or slot >= segment.slot_count:
            return None
        return slot if segment.numbers[slot] == number else None

    def is_delta(self, slot: int, number: int) -> bool:
        """Whether the frame cannot be decoded without those before it. A hint: it is not held."""
        descriptor = FrameDescriptor.from_buffer_copy(self.segment.read_descriptor(slot))
        acquire()
        return bool(self.segment.numbers[slot] == number and descriptor.flags & layout.DELTA_UNIT)

    def request_key_unit(self) -> bool:
        """Asks the writer for a frame that can be decoded without those before it; False where it does not hear that: without
        a seat, or in a segment that is over."""
        if self.seat is None or self.segment.is_of_parent() or self.segment.halves[self.segment.state] != 0:
            return False
        index = self.segment.seat_half(self.seat.index, ReaderEntry.keyframe_requests)
        self.segment.halves[index] = (self.segment.halves[index] + 1) & 0xFFFF_FFFF
        self.segment.ring_bell(self.segment.writer_word)
        return True

    def get(self, slot: int, number: int, allowance: int, max_held: int) -> Optional[Frame]:
        """Gets one frame: in place where this reader may hold one more, and wants to, under a pin and copied where it may not,
        and without a pin where it may have none."""
        held = self.held()
        if held < max_held and held + 1 >= allowance:
            self.ask_for_more(allowance)
        # The last pin of the allowance is for copying.
        if held < allowance:
            frame = self._pin(slot, number)
            # Lowered meanwhile: then the pin was not this reader's to take, and is given back.
            if self.held() <= self.allowance():
                if frame is not None and held >= min(max_held, allowance - 1):
                    frame.copy_out()
                return frame
            del frame
        return self._copy_unpinned(slot, number)

    def _pin(self, slot: int, number: int) -> Optional[Frame]:
        """Pins a frame, whose bytes keep the pin. None when the writer was faster, or when it is not what a frame may be."""
        segment = self.segment
        if not segment.is_backed(slot):
            return None
        prepared = self._prepared.pop(slot, None)
        pin = Pin(slot) if prepared is None else prepared.pin
        if not self._pins.pin(slot, number):
            self._tell_writer()
            return None
        # Owns the pin from here on, also where the descriptor turns out to be nonsense.
        pin.attachment = self
        descriptor = segment.read_descriptor(slot)
        shape = descriptor[_SHAPE]
        if prepared is not None and prepared.shape == shape:
            frame = prepared.frame
        elif FrameDescriptor.from_buffer_copy(descriptor).fits(segment.slot_size):
            frame = self._frame_in(slot, descriptor, pin)
        else:
            return None
        frame.arrive(number, descriptor)
        self._to_prepare = slot, descriptor
        return frame

    def _frame_in(self, slot: int, descriptor: bytes, pin: Pin) -> Frame:
        """A frame that lies in the slot as the descriptor says, which fits."""
        slots = self.segment.slots
        assert slots is not None
        place = FrameDescriptor.from_buffer_copy(descriptor)
        exporter = slots.exporter(self.segment.slot_offset(slot) + place.data_offset, place.size)
        exporter.pin = pin
        return Frame(self.caps, exporter, True)

    def prepare(self) -> None:
        """Makes what the next frame in the slot of the last one will need, where frames lie alike. For when there is time."""
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
        """Gives a pin back."""
        if not self.segment.is_of_parent():
            self._pins.give_back(slot)
            self._tell_writer()

    def _copy_unpinned(self, slot: int, number: int) -> Optional[Frame]:
        """Copies a frame without a pin, by pread. None when the writer was faster, or it is not what a frame may be."""
        segment = self.segment
        if segment.numbers[slot] != number:
            return None
        acquire()
        copied = segment.read_descriptor(slot)
        descriptor = FrameDescriptor.from_buffer_copy(copied)
        # Also that the slot is there at all, before room is made for what it is said to hold.
        if not descriptor.fits(segment.slot_size) or not segment.is_backed(slot):
            return None
        copy = numpy.empty(descriptor.size, numpy.uint8)
        at = segment.slots_offset + segment.slot_offset(slot) + descriptor.data_offset
        if descriptor.size and not _libc.read_exactly(segment.fd, copy, at):
            return None
        # Had any copied byte been drawn after the number became 0, the load below would see that 0, or a later number.
        acquire()
        if segment.numbers[slot] != number:
            return None
        frame = Frame(self.caps, copy, False)
        frame.arrive(number, copied)
        return frame

    def set_position(self, number: int) -> None:
        """Says that all frames up to the number are taken or not wanted."""
        if self.seat is not None:
            release()
            self.segment.words[self._position] = number
            self._tell_writer()

    def leave(self, how: int) -> None:
        """Says that this reader takes no more frames here: moved or left. Pins stay."""
        if self.seat is not None and not self.segment.is_of_parent():
            release()
            self.segment.halves[self.segment.seat_half(self.seat.index, ReaderEntry.state)] = how
            self.segment.ring_bell(self.segment.writer_word)

    def _tell_writer(self) -> None:
        # Pairs with the fence of a writer that says it waits and then looks: one of the two sees the other.
        full_fence()
        if self.segment.halves[self.segment.writer_waits] != 0:
            self.segment.ring_bell(self.segment.writer_word)
