#!/usr/bin/env python3
"""A reader of the old kind: posix_ipc, ctypes, NumPy. Take the semaphore, look, copy, give it back.

It uses nothing of the package rsshm, takes no seat, and needs no more than docs/PROTOCOL.md. One frame a second of cam0.
"""

import argparse
import ctypes
import mmap
import time

import numpy
import posix_ipc


u32, u64 = ctypes.c_uint32, ctypes.c_uint64


class Header(ctypes.Structure):
    """The first bytes of a segment, as far as this program needs them."""

    _fields_ = [
        ("magic", ctypes.c_char * 8), ("version", u32), ("header_size", u32), ("times_and_locks", u64 * 4),
        ("caps", u64), ("caps_size", u64), ("status", u64), ("quotas", u64), ("readers", u64), ("reader_sizes", u32 * 2),
        ("ring", u64), ("ring_count", u32), ("slot_count", u32), ("heads", u64), ("slots", u64), ("slot_size", u64),
        ("stride", u32),
    ]  # fmt: skip


def newest(name):
    """The number, the format and a copy of the newest frame; None if there is none."""
    semaphore = posix_ipc.Semaphore("/" + name)
    memory = posix_ipc.SharedMemory("/" + name, read_only=True)
    control = mmap.mmap(memory.fd, 0, prot=mmap.PROT_READ)
    memory.close_fd()
    semaphore.acquire(1)  # raises BusyError after a second: nobody is waited for for ever
    try:
        header = Header.from_buffer_copy(control)
        if (header.magic, header.version) != (b"rsshm\r\n\x1a", 1):
            raise ValueError(name + " is no segment that this program knows")
        word = lambda at: int.from_bytes(control[at : at + 8], "little")
        head = word(header.status)
        slot = word(header.ring + head % header.ring_count * 8) % 256
        place = header.heads + slot * header.stride
        offset, size = word(place + 48), word(place + 56)
        if head == 0 or word(place) != head or slot >= header.slot_count or offset + size > header.slot_size:
            return None
        frame = numpy.frombuffer(control, numpy.uint8, size, header.slots + slot * header.slot_size + offset).copy()
        # A writer does not wait for long: it may have gone on without the semaphore.
        same = word(place) == head
        return (head, control[header.caps : header.caps + header.caps_size].decode(), frame) if same else None
    finally:
        semaphore.release()
        semaphore.close()
        control.close()


def main():
    parser = argparse.ArgumentParser(description="Reads a channel with posix_ipc, ctypes and NumPy alone.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--count", type=int, default=0, help="end after so many looks (0: never)")
    parser.add_argument("--every", type=float, default=1, metavar="SECONDS", help="between two looks (1)")
    options = parser.parse_args()
    looks = 0
    while options.count == 0 or looks < options.count:
        looks += 1
        try:
            found = newest(options.channel)
            if found is None:
                print("no frame", flush=True)
            else:
                number, caps, frame = found
                print(f"frame {number}, {frame.size} bytes, first {frame[0]}, {caps}", flush=True)
        except posix_ipc.ExistentialError:
            print(f"there is no channel {options.channel}", flush=True)
        except posix_ipc.BusyError:
            print("somebody holds the semaphore", flush=True)
        time.sleep(options.every)


if __name__ == "__main__":
    main()
