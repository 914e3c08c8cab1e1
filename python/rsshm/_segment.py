# SPDX-License-Identifier: MIT OR Apache-2.0
"""A segment that was opened or created: the checked header, the mappings, and the file."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from typing import Any, Optional, Tuple

from . import _files, _libc, _memory, layout
from ._files import Aside, Identity, Name
from ._libc import KeptLock, Mapping, acquire, release
from .errors import Damaged
from .layout import FrameDescriptor, Header, ReaderEntry, SlotRecord, Status

READER_ENTRY_SIZE = ctypes.sizeof(ReaderEntry)
_DESCRIPTOR_SIZE = ctypes.sizeof(FrameDescriptor)
_DESCRIPTOR_AT = SlotRecord.words.offset
_PTS, _DURATION, _FLAGS = FrameDescriptor.pts.offset, FrameDescriptor.duration.offset, FrameDescriptor.flags.offset
ONLY_FRAME = 1
"""The position of the first frame of a run, as a word."""


class Access(enum.Enum):
    """What a peer wants to do with a segment."""

    OBSERVE = 1
    ATTACH = 2
    WRITE = 3


def open_file(name: Name, writable: bool) -> Optional[Tuple[int, os.stat_result]]:
    """Opens the file of the channel's segment. Returns the file descriptor and the file's status. None if there is no file."""
    fd = _files.open_existing(name.segment_path, writable)
    return None if fd is None else (fd, os.fstat(fd))


class Segment:
    """A segment of a channel: its format and sizes never change.

    ``words`` (64 bits) and ``halves`` (32 bits) are views of the tables. An item of these views is loaded or stored by one
    instruction. Attributes such as ``head`` are the indices of the fields of ``Status``.
    """

    def __init__(self, header: Header, caps: str, identity: Identity, fd: int, access: Access) -> None:
        """Takes over the file descriptor, unless it raises an error."""
        self.header = header
        self.caps = caps
        self.identity = identity
        self.lock_identity: Identity = (header.lock_device, header.lock_inode)
        self.slot_count: int = header.slot_count
        self.slot_size: int = header.slot_size
        self.slots_offset: int = header.slots_offset
        self._forks = _libc.forks()
        self._backed = 0
        """Number of slots that the file is known to include. This number only grows."""
        self._control = Mapping(fd, 0, self.slots_offset, access is not Access.OBSERVE)
        self.slots: Optional[Mapping] = None
        if access is not Access.OBSERVE:
            self.slots = Mapping(fd, self.slots_offset, self.slot_count * self.slot_size, access is Access.WRITE)
            self.slots.leave_out_of_dumps()
        self.bytes = memoryview(self._control.exporter(0, self.slots_offset)).cast("B")
        if access is Access.OBSERVE:
            self.bytes = self.bytes.toreadonly()
        self.words = self.bytes.cast("Q")
        self.halves = self.bytes.cast("I")
        status: int = header.status_offset
        self.head = (status + Status.head.offset) // 8
        self.eos_seqs = (status + Status.eos_seqs.offset) // 8
        self.latency_ns = (status + Status.latency_ns.offset) // 8
        self.event_head = (status + Status.event_head.offset) // 8
        self.run_head = (status + Status.run_head.offset) // 8
        self.published = (status + Status.published.offset) // 4
        self.state = (status + Status.state.offset) // 4
        self.eos_count = (status + Status.eos_count.offset) // 4
        self.writer_word = (status + Status.writer_word.offset) // 4
        self.writer_waits = (status + Status.writer_waits.offset) // 4
        self._bells = {
            index: _libc.futex_at(self._control.address + index * 4) for index in (self.published, self.writer_word)
        }
        self._seats: int = header.readers_offset
        self._descriptors: int = header.descriptors_offset
        self.grants = self._view(header.quotas_offset, layout.MAX_READERS, 8)
        """The quota of each reader entry."""
        self.ring = self._view(header.ring_offset, layout.RING_LENGTH, 8)
        """The ring entries. The index of a run's entry is the number of the run modulo :data:`~rsshm.layout.RING_LENGTH`."""
        self.numbers, self.tails, self.keyframes = (
            self._view(self._descriptors + field.offset, self.slot_count, layout.DESCRIPTOR_STRIDE)
            for field in (SlotRecord.seq, SlotRecord.tail, SlotRecord.keyframe)
        )
        """For each slot, the seq of the first frame of its run, and the positions of the newest frame and keyframe."""
        at = self._descriptors + _DESCRIPTOR_AT + FrameDescriptor.keyframe.offset
        stride = layout.DESCRIPTOR_STRIDE
        self.keyframe_fields = self.halves[at // 4 : (at + self.slot_count * stride) // 4 : stride // 4]
        """The field ``keyframe`` of the first frame in each slot."""
        self.pins = self._view(self._seats + ReaderEntry.pins.offset, layout.MAX_READERS, READER_ENTRY_SIZE)
        """The pin word of each reader entry."""
        self.fd = fd

    @classmethod
    def open(cls, name: Name, fd: int, found: os.stat_result, access: Access) -> Segment:
        """Maps and checks the segment in the file. Takes over the file descriptor."""
        try:
            header = Header()
            # Use pread, because it raises no signal if the file shrinks meanwhile.
            if not _libc.read_exactly(fd, header, 0):
                raise Damaged(f"channel {name}: its segment is not usable: the file has only {found.st_size} bytes")
            problem = header.problem(found.st_size)
            if problem:
                raise Damaged(f"channel {name}: its segment is not usable: {problem}")
            caps = bytearray(header.caps_size)
            if not _libc.read_exactly(fd, caps, header.caps_offset):
                raise Damaged(f"channel {name}: its segment is not usable: the file has only {found.st_size} bytes")
            try:
                text = caps.decode()
            except UnicodeDecodeError:
                raise Damaged(f"channel {name}: its segment is not usable: its caps are not UTF-8 text") from None
            try:
                return cls(header, text, (found.st_dev, found.st_ino), fd, access)
            except OSError as error:
                what = f"its {header.slot_count} slots of {header.slot_size} bytes cannot be mapped: {error}"
                raise Damaged(f"channel {name}: its segment is not usable: {what}") from error
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def create(cls, header: Header, caps: str, slots: int, perms: int) -> Tuple[Segment, Aside, KeptLock]:
        """Creates a segment in a staging file, with memory for some of its slots.

        The segment has no name yet, and :meth:`begin` writes its header. It already has the lock that shows observers that
        its writer is alive.
        """
        aside = Aside()
        try:
            locked = aside.open_again()
            _libc.try_lock(locked, layout.WRITER_BYTE)
            alive = KeptLock(locked)
            _memory.commit(aside.fd, 0, header.slots_offset + slots * header.slot_size)
            os.fchmod(aside.fd, perms)
            fd = aside.open_again()
            try:
                segment = cls(header, caps, _files.identity(fd), fd, Access.WRITE)
            except BaseException:
                os.close(fd)
                raise
            encoded = caps.encode()
            segment.bytes[header.caps_offset : header.caps_offset + len(encoded)] = encoded
            segment._backed = slots
            return segment, aside, alive
        except BaseException:
            aside.close()
            raise

    def begin(self, first_seq: int, event_head: int, latency_ns: int) -> None:
        """Writes the header of a segment that has no name yet, with its first seq. The header never changes afterwards."""
        self.header.first_seq = first_seq
        self.bytes[: ctypes.sizeof(Header)] = bytes(self.header)
        self.words[self.head] = first_seq - 1
        self.words[self.event_head] = event_head
        self.words[self.latency_ns] = latency_ns

    # Indices of words.

    def _view(self, offset: int, count: int, stride: int) -> memoryview:
        """``count`` words of 64 bits, at a distance of ``stride`` bytes."""
        return self.words[offset // 8 : (offset + count * stride) // 8 : stride // 8]

    def seat_word(self, seat: int, field: Any) -> int:
        """The index in ``words`` of a field of a reader entry."""
        return int(self._seats + seat * READER_ENTRY_SIZE + field.offset) // 8

    def seat_half(self, seat: int, field: Any) -> int:
        """The index in ``halves`` of a field of a reader entry."""
        return int(self._seats + seat * READER_ENTRY_SIZE + field.offset) // 4

    def slot_offset(self, slot: int) -> int:
        """Where a slot begins in ``slots``."""
        return slot * self.slot_size

    # Slots, state and waking.

    def is_backed(self, slot: int) -> bool:
        """Whether the slot is committed: the file extends to its end.

        An access to memory that is not committed would kill the process, so the size of the file is checked, once for each
        new slot.
        """
        if slot < self._backed:
            return True
        if slot >= self.slot_count:
            return False
        backed = (os.fstat(self.fd).st_size - self.slots_offset) // self.slot_size
        self._backed = max(self._backed, min(backed, self.slot_count))
        return slot < backed

    def back_slot(self, slot: int) -> bool:
        """Commits one more slot. False if there is no memory. Only the writer calls this."""
        try:
            _memory.commit(self.fd, self.slots_offset + self.slot_offset(slot), self.slot_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT):
                return False
            raise
        self._backed = max(self._backed, slot + 1)
        return True

    def punch_slot(self, slot: int) -> None:
        """Releases the memory of a slot that was taken for writing. Only the writer calls this."""
        _libc.punch_hole(self.fd, self.slots_offset + self.slot_offset(slot), self.slot_size)

    def is_of_parent(self) -> bool:
        """Whether this is a forked child's copy. The reader entry, the pins and the name belong to the parent."""
        return self._forks != _libc.forks()

    def has_writer(self) -> bool:
        """Whether the writer that created the segment is alive."""
        return _libc.is_locked(self.fd, layout.WRITER_BYTE)

    def is_current(self) -> bool:
        """Whether the writer still publishes frames in this segment."""
        state = self.halves[self.state]
        return state & (layout.SUPERSEDED | layout.CLOSED) == 0 and self.has_writer()

    def ring_bell(self, index: int) -> None:
        """Notifies the word, ``published`` or ``writer_word``: increments it and wakes its sleepers."""
        release()
        self.halves[index] = (self.halves[index] + 1) & 0xFFFF_FFFF
        _libc.futex_wake_all(self._bells[index])

    def wake(self, index: int) -> None:
        """Wakes the sleepers of the word without a change in the channel."""
        _libc.futex_wake_all(self._bells[index])

    def wait(self, index: int, seen: int, seconds: float) -> bool:
        """Sleeps until the value of the word is no longer ``seen``, or until the time is over. May return early.

        True if the wait ended by its time-out although the word has changed.
        """
        nobody_woke = _libc.futex_wait(self._control.address + index * 4, seen, seconds)
        acquire()
        return nobody_woke and self.halves[index] != seen

    def is_spoilt(self) -> bool:
        """Whether the header or the caps, which should never change, differ from those that the writer wrote."""
        header, caps = Header(), bytearray(self.header.caps_size)
        # If the file cannot be read or is too short, new readers report that themselves.
        try:
            there = _libc.read_exactly(self.fd, header, 0) and _libc.read_exactly(self.fd, caps, self.header.caps_offset)
        except OSError:
            return False
        return there and (bytes(header) != bytes(self.header) or caps != self.caps.encode())

    def read_descriptor(self, slot: int) -> bytes:
        """A copy of the ``FrameDescriptor`` of the first frame in the slot. It is valid only while the slot is pinned, or if
        the seq of the slot is the same before and after."""
        at = self._descriptors + slot * layout.DESCRIPTOR_STRIDE + _DESCRIPTOR_AT
        return self.bytes[at : at + _DESCRIPTOR_SIZE].tobytes()

    def write_descriptor(self, slot: int, descriptor: FrameDescriptor) -> None:
        """Writes the descriptor of the frame in the slot, which the caller has claimed."""
        at = self._descriptors + slot * layout.DESCRIPTOR_STRIDE + _DESCRIPTOR_AT
        self.bytes[at : at + _DESCRIPTOR_SIZE] = bytes(descriptor)

    def complete_record(self, slot: int, pts: int, duration: int, flags: int, is_keyframe: bool) -> None:
        """Writes fields into a descriptor that was written before. These fields may be known later than the others. The frame
        is the only one of its run."""
        at = self._descriptors + slot * layout.DESCRIPTOR_STRIDE + _DESCRIPTOR_AT
        self.words[(at + _PTS) // 8] = pts & layout.TIME_NONE
        self.words[(at + _DURATION) // 8] = duration & layout.TIME_NONE
        self.halves[(at + _FLAGS) // 4] = flags & 0xFFFF_FFFF
        self.keyframe_fields[slot] = is_keyframe
        self.keyframes[slot] = ONLY_FRAME if is_keyframe else 0
        self.tails[slot] = ONLY_FRAME

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            os.close(self.fd)
