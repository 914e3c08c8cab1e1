#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A classic reader with posix_ipc, ctypes and NumPy: it takes the semaphore, copies a frame, and releases the semaphore.

It prints one frame per second of the channel cam0. It does not use the package rsshm, but follows docs/PROTOCOL.md.
It takes no reader entry.
"""

import argparse
import ctypes
import mmap
import sys
import time

import numpy
import posix_ipc

u32, u64 = ctypes.c_uint32, ctypes.c_uint64


class Header(ctypes.Structure):
    """The first bytes of a segment, as far as this program needs them."""

    _fields_ = [
        ("magic", ctypes.c_char * 8), ("version", u32), ("header_size", u32), ("times_and_locks", u64 * 4),
        ("caps", u64), ("caps_size", u64), ("status", u64), ("quotas", u64), ("readers", u64), ("reader_sizes", u32 * 2),
        ("ring", u64), ("ring_count", u32), ("slot_count", u32), ("descriptors", u64), ("slots", u64), ("slot_size", u64),
        ("descriptor_stride", u32),
    ]  # fmt: skip


class SlotRecord(ctypes.Structure):
    """The record of a slot, as far as this program needs it. The last fields describe the first frame in the slot."""

    _fields_ = [("seq", u64), ("tail", u64), ("keyframe", u64), ("times", u64 * 5), ("data_offset", u64), ("size", u64)]


class RunRecord(ctypes.Structure):
    """The record of a further frame in a slot. The bytes of the frame follow it."""

    _fields_ = [("times", u64 * 5), ("size", u64), ("flags", u32), ("keyframe", u32), ("metadata_size", u32 * 2)]


def newest(name):
    """The seq, the caps and a copy of the newest frame. None if there is none."""
    semaphore = posix_ipc.Semaphore("/" + name)
    memory = posix_ipc.SharedMemory("/" + name, read_only=True)
    segment = mmap.mmap(memory.fd, 0, prot=mmap.PROT_READ)
    memory.close_fd()
    semaphore.acquire(1)  # raises BusyError after a second, rather than wait forever
    try:
        header = Header.from_buffer_copy(segment)
        if (header.magic, header.version) != (b"rsshm\r\n\x1a", 2):
            raise ValueError(name + " is not a segment of a known version")
        word = lambda at: int.from_bytes(segment[at : at + 8], sys.byteorder)
        run = word(header.status + 56)
        first, slot = divmod(word(header.ring + run % header.ring_count * 8), 256)
        at = header.descriptors + slot * header.descriptor_stride
        if run == 0 or slot >= header.slot_count or word(at) != first:
            return None
        record = SlotRecord.from_buffer_copy(segment, at)
        # Which frame of the slot is the newest, and where its record is. The first frame has no record in the slot.
        behind, ordinal = divmod(record.tail, 1 << 24)
        start, offset, size = header.slots + slot * header.slot_size, record.data_offset, record.size
        if ordinal > 1 and behind + ctypes.sizeof(RunRecord) <= header.slot_size:
            offset, size = behind + ctypes.sizeof(RunRecord), RunRecord.from_buffer_copy(segment, start + behind).size
        if offset + size > header.slot_size:
            return None
        frame = numpy.frombuffer(segment, numpy.uint8, size, start + offset).copy()
        # A writer waits only briefly for the semaphore, and may have overwritten the frame without holding the semaphore.
        same = word(at) == first
        caps = segment[header.caps : header.caps + header.caps_size].decode()
        return (first + ordinal - 1, caps, frame) if same else None
    finally:
        semaphore.release()
        semaphore.close()
        segment.close()


def main():
    parser = argparse.ArgumentParser(description="Reads a channel with only posix_ipc, ctypes and NumPy.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--count", type=int, default=0, help="number of frames to print (0: no limit)")
    parser.add_argument("--every", type=float, default=1, metavar="SECONDS", help="interval (1)")
    options = parser.parse_args()
    looks = 0
    while options.count == 0 or looks < options.count:
        looks += 1
        try:
            found = newest(options.channel)
            if found is None:
                print("no frame", flush=True)
            else:
                seq, caps, frame = found
                print(f"frame {seq}, {frame.size} bytes, first {frame[0]}, {caps}", flush=True)
        except posix_ipc.ExistentialError:
            print(f"there is no channel {options.channel}", flush=True)
        except posix_ipc.BusyError:
            print("another process holds the semaphore", flush=True)
        time.sleep(options.every)


if __name__ == "__main__":
    main()
