# SPDX-License-Identifier: MIT OR Apache-2.0
"""The layout of a segment as ctypes structures. docs/PROTOCOL.md describes it in words.

A test compares every offset and size here with those of the crate rsshm-channel. The structures are public, for programs
that read a segment themselves: ``Header.from_buffer_copy(os.pread(fd, 256, 0))`` is the header of an open segment.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_int32, c_uint32, c_uint64
from typing import Optional

MAGIC = int.from_bytes(b"rsshm\r\n\x1a", sys.byteorder)
VERSION = 2
MAX_READERS = 64
RING_LENGTH = 128
MAX_SLOTS = 64
MAX_CAPS_SIZE = 65536
RUN_ALIGN = 8
MAX_PLANES = 4
MAX_QUOTA = 8
EVICTED = 0xFFFF_FFFF
DESCRIPTOR_STRIDE = 4096
STICKY_EVENT_COUNT = 8
EVENT_RING_LENGTH = 128
EVENT_STRIDE = 4096
MESSAGE_RING_LENGTH = 4
MESSAGE_STRIDE = 512
KEYFRAME_RING_LENGTH = 8
HEADER = 1024
DELTA_UNIT = 8192
SLOT_ALIGN = 4096
SLOTS_ALIGN = 65536
WRITER_BYTE = 4096
FIRST_READER_BYTE = 4097

TIME_NONE = 0xFFFF_FFFF_FFFF_FFFF
"""The value of a time or count that is absent."""

SUPERSEDED = 1
"""A bit of ``Status.state``: a newer segment has the name, or is about to get it."""
CLOSED = 2
"""A bit of ``Status.state``: the writer has closed the channel."""
LOSSLESS = 1
"""A bit of ``Header.flags``: the writer waits for its slowest attached reader."""
RUNS = 2
"""A bit of ``Header.flags``: slots may have runs of several frames."""

ALL_HEADERS = 1 << 32
"""A bit of ``KeyframeRecord.details``: the keyframe must come with all headers of the stream."""

READER_NEW, READER_ATTACHED, READER_MOVED, READER_LEFT, READER_JOINING = range(5)
"""Values of ``ReaderEntry.state``."""
READER_IS_PRESENT = (READER_ATTACHED, READER_JOINING)
"""The states of a reader that takes frames, or is about to take frames."""

STATUS_OFFSET = 256
CAPS_OFFSET = 4096


class Header(ctypes.Structure):
    """The header: values that never change once the segment has its name."""

    _fields_ = [
        ("magic", c_uint64),
        ("version", c_uint32),
        ("header_size", c_uint32),
        ("created_ns", c_uint64),
        ("first_seq", c_uint64),
        ("lock_device", c_uint64),
        ("lock_inode", c_uint64),
        ("caps_offset", c_uint64),
        ("caps_size", c_uint64),
        ("status_offset", c_uint64),
        ("quotas_offset", c_uint64),
        ("readers_offset", c_uint64),
        ("reader_stride", c_uint32),
        ("reader_count", c_uint32),
        ("ring_offset", c_uint64),
        ("ring_count", c_uint32),
        ("slot_count", c_uint32),
        ("descriptors_offset", c_uint64),
        ("slots_offset", c_uint64),
        ("slot_size", c_uint64),
        ("descriptor_stride", c_uint32),
        ("history", c_uint32),
        ("writer_pid", c_uint32),
        ("flags", c_uint32),
        ("events_offset", c_uint64),
        ("event_stride", c_uint32),
        ("event_count", c_uint32),
        ("messages_offset", c_uint64),
        ("message_stride", c_uint32),
        ("message_count", c_uint32),
        ("reserved", c_uint64 * 9),
    ]

    def total_size(self) -> int:
        """Size of the file with all slots, in bytes."""
        return int(self.slots_offset + self.slot_count * self.slot_size)

    def problem(self, file_size: int) -> Optional[str]:
        """The fault of this header, in a file of ``file_size`` bytes. None if it is valid. Another process wrote the
        header."""
        if self.magic != MAGIC:
            return f"it begins with {self.magic:#018x}, so it is not a segment of rsshm"
        if self.version != VERSION:
            return f"its version is {self.version}, but this package supports version {VERSION}"
        required = {
            "header_size": ctypes.sizeof(Header),
            "reader_stride": ctypes.sizeof(ReaderEntry),
            "reader_count": MAX_READERS,
            "ring_count": RING_LENGTH,
            "event_stride": EVENT_STRIDE,
            "event_count": STICKY_EVENT_COUNT + EVENT_RING_LENGTH,
            "message_stride": MESSAGE_STRIDE,
            "descriptor_stride": DESCRIPTOR_STRIDE,
        }
        for field, wanted in required.items():
            if getattr(self, field) != wanted:
                return f"its {field} is {getattr(self, field)}, but version {VERSION} has {wanted}"
        if self.message_count not in (0, MESSAGE_RING_LENGTH):
            return f"its message_count is {self.message_count}, not 0 or {MESSAGE_RING_LENGTH}"
        if not 1 <= self.slot_count <= MAX_SLOTS:
            return f"its slot_count is {self.slot_count}, not 1 to {MAX_SLOTS}"
        # A mapping has at most half of the address space.
        if self.slot_size == 0 or self.slot_size % SLOT_ALIGN or self.total_size() > (1 << 63) - 1:
            return f"its slot_size is {self.slot_size}"
        if self.caps_size > MAX_CAPS_SIZE:
            return f"its caps_size is {self.caps_size}, not at most {MAX_CAPS_SIZE}"
        if self.slots_offset % SLOTS_ALIGN or self.slots_offset > file_size:
            return f"its slots_offset is {self.slots_offset} in a file of {file_size} bytes"
        tables = {
            "status_offset": (ctypes.sizeof(Status), 64),
            "caps_offset": (self.caps_size, 1),
            "quotas_offset": (MAX_READERS * 8, 8),
            "readers_offset": (MAX_READERS * ctypes.sizeof(ReaderEntry), 64),
            "ring_offset": (RING_LENGTH * 8, 8),
            "events_offset": (self.event_count * EVENT_STRIDE, 64),
            "descriptors_offset": (self.slot_count * DESCRIPTOR_STRIDE, 64),
        }
        if self.message_count:
            tables["messages_offset"] = (MAX_READERS * self.message_count * MESSAGE_STRIDE, 64)
        for field, (size, align) in tables.items():
            offset = getattr(self, field)
            if offset < ctypes.sizeof(Header) or offset % align or offset + size > self.slots_offset:
                return f"its {field} is {offset}"
        return None


class Status(ctypes.Structure):
    """The status: the values that the writer announces to all readers, and the futex word that wakes the writer."""

    _fields_ = [
        ("head", c_uint64),
        ("eos_seqs", c_uint64 * 2),
        ("latency_ns", c_uint64),
        ("published", c_uint32),
        ("state", c_uint32),
        ("eos_count", c_uint32),
        ("_pad0", c_uint32),
        ("event_head", c_uint64),
        ("run_head", c_uint64),
        ("writer_word", c_uint32),
        ("writer_waits", c_uint32),
        ("_pad1", c_uint32 * 14),
    ]


class KeyframeRecord(ctypes.Structure):
    """The record of a reader's request for a keyframe of a later time."""

    _fields_ = [("seq", c_uint64), ("time", c_uint64), ("details", c_uint64)]


class ReaderEntry(ctypes.Structure):
    """A reader entry of one segment. Only the process that holds the lock of the entry writes it."""

    _fields_ = [
        ("pins", c_uint64),
        ("cursor", c_uint64),
        ("generation", c_uint32),
        ("state", c_uint32),
        ("pid", c_uint32),
        ("keyframe_requests", c_uint32),
        ("message_head", c_uint64),
        ("keyframe_details", c_uint64),
        ("keyframe_head", c_uint64),
        ("_pad0", c_uint32 * 2),
        ("keyframes", KeyframeRecord * KEYFRAME_RING_LENGTH),
    ]


class FrameDescriptor(ctypes.Structure):
    """The descriptor of a frame: times, flags, and where its bytes are in the slot."""

    _fields_ = [
        ("pts", c_uint64),
        ("dts", c_uint64),
        ("duration", c_uint64),
        ("offset", c_uint64),
        ("offset_end", c_uint64),
        ("data_offset", c_uint64),
        ("size", c_uint64),
        ("flags", c_uint32),
        ("planes", c_uint32),
        ("plane_offset", c_uint64 * MAX_PLANES),
        ("plane_stride", c_int32 * MAX_PLANES),
        ("metadata_size", c_uint32),
        ("keyframe", c_uint32),
        ("reserved", c_uint64 * 14),
    ]

    def fits(self, slot_size: int) -> bool:
        """Whether all its offsets and sizes are inside a slot of ``slot_size`` bytes."""
        size: int = self.size
        planes: int = self.planes
        return (
            self.data_offset + size <= slot_size
            and planes <= MAX_PLANES
            and (planes == 0 or all(offset <= size for offset in self.plane_offset[:planes]))
            and self.metadata_size <= MAX_METADATA_SIZE
        )


class SlotRecord(ctypes.Structure):
    """The record of a slot: the seq of the first frame of its run, the positions of the run's newest frame and newest
    keyframe, then the words of the first frame's ``FrameDescriptor``."""

    _fields_ = [
        ("seq", c_uint64),
        ("tail", c_uint64),
        ("keyframe", c_uint64),
        ("words", c_uint64 * (ctypes.sizeof(FrameDescriptor) // 8)),
    ]


class RunRecord(ctypes.Structure):
    """The record of a frame that was appended to a run. It is in the slot, and the bytes of the frame follow it."""

    _fields_ = [
        ("pts", c_uint64),
        ("dts", c_uint64),
        ("duration", c_uint64),
        ("offset", c_uint64),
        ("offset_end", c_uint64),
        ("size", c_uint64),
        ("flags", c_uint32),
        ("keyframe", c_uint32),
        ("metadata_size", c_uint32),
        ("reserved", c_uint32),
    ]


class EventDescriptor(ctypes.Structure):
    """The descriptor of an event. The bytes of the event follow it."""

    _fields_ = [
        ("after", c_uint64),
        ("time", c_uint64),
        ("duration", c_uint64),
        ("kind", c_uint32),
        ("size", c_uint32),
        ("eos_count", c_uint32),
        ("reserved0", c_uint32),
        ("reserved", c_uint64 * 2),
    ]


class EventRecord(ctypes.Structure):
    """The record of an event: its seq, then the words of an ``EventDescriptor`` and the event's bytes."""

    _fields_ = [("seq", c_uint64), ("words", c_uint64 * (EVENT_STRIDE // 8 - 1))]


class MessageRecord(ctypes.Structure):
    """The record of a message: its seq, then its size and its bytes as words."""

    _fields_ = [("seq", c_uint64), ("words", c_uint64 * (MESSAGE_STRIDE // 8 - 1))]


MAX_METADATA_SIZE = DESCRIPTOR_STRIDE - ctypes.sizeof(SlotRecord)
MAX_EVENT_SIZE = EVENT_STRIDE - 8 - ctypes.sizeof(EventDescriptor)
MAX_MESSAGE_SIZE = MESSAGE_STRIDE - 16


def _align_up(value: int, to: int) -> int:
    return (value + to - 1) // to * to


def new_header(caps_size: int, slot_count: int, frame_size: int) -> Optional[Header]:
    """The header of a new segment without message rings. None if a value is out of bounds."""
    if caps_size > MAX_CAPS_SIZE or not 1 <= slot_count <= MAX_SLOTS:
        return None
    quotas = _align_up(CAPS_OFFSET + caps_size, 64)
    readers = quotas + MAX_READERS * 8
    ring = readers + MAX_READERS * ctypes.sizeof(ReaderEntry)
    events = _align_up(ring + RING_LENGTH * 8, SLOT_ALIGN)
    messages = events + (STICKY_EVENT_COUNT + EVENT_RING_LENGTH) * EVENT_STRIDE
    descriptors = _align_up(messages, SLOT_ALIGN)
    slots = _align_up(descriptors + slot_count * DESCRIPTOR_STRIDE, SLOTS_ALIGN)
    slot_size = _align_up(max(frame_size, 1), SLOT_ALIGN)
    if slots + slot_count * slot_size > (1 << 63) - 1:
        return None
    return Header(
        magic=MAGIC,
        version=VERSION,
        header_size=ctypes.sizeof(Header),
        caps_offset=CAPS_OFFSET,
        caps_size=caps_size,
        status_offset=STATUS_OFFSET,
        quotas_offset=quotas,
        readers_offset=readers,
        reader_stride=ctypes.sizeof(ReaderEntry),
        reader_count=MAX_READERS,
        ring_offset=ring,
        ring_count=RING_LENGTH,
        events_offset=events,
        event_stride=EVENT_STRIDE,
        event_count=STICKY_EVENT_COUNT + EVENT_RING_LENGTH,
        messages_offset=messages,
        message_stride=MESSAGE_STRIDE,
        message_count=0,
        slot_count=slot_count,
        descriptors_offset=descriptors,
        descriptor_stride=DESCRIPTOR_STRIDE,
        slots_offset=slots,
        slot_size=slot_size,
    )
