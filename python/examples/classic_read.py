#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A classic reader with posix_ipc, struct and NumPy: it takes the semaphore, copies a frame, and releases the semaphore.

It prints one frame per second of the channel cam0. It does not use the package rsshm, but follows docs/PROTOCOL.md.
It takes no reader entry.
"""

import argparse
import os
import signal
import struct
import sys
import zlib

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
if __name__ == "__main__":
    # No signal ends the program while it holds the semaphore. NumPy starts threads, which inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
try:
    import numpy
    import posix_ipc
except ImportError as error:
    sys.exit(f"classic_read.py: {error.name} is missing: pip install posix_ipc numpy")


def newest(name):
    """The seq, the caps and a copy of the newest frame. None if there is none, or if the writer was faster."""
    semaphore = posix_ipc.Semaphore("/" + name)
    segment = None
    try:
        segment = posix_ipc.SharedMemory("/" + name, read_only=True).fd
        semaphore.acquire(1)  # raises BusyError after a second, rather than wait forever
        try:
            return copy_newest(name, segment)
        finally:
            semaphore.release()
    finally:
        semaphore.close()
        if segment is not None:
            os.close(segment)


def copy_newest(name, segment):
    get = lambda at, form: struct.unpack("=" + form, os.pread(segment, struct.calcsize("=" + form), at))
    if get(0, "8sI") != (b"rsshm\r\n\x1a", 3):
        raise ValueError(name + " is not a segment of version 3")
    (caps_at, caps_size, status), (ring, ring_count, slot_count) = get(48, "3Q"), get(96, "QII")
    records, slots, slot_size, record_stride = get(112, "3QI")
    (run,) = get(status + 56, "Q")
    first, slot = divmod(*get(ring + run % ring_count * 8, "Q"), 256)
    if run == 0 or slot >= slot_count:
        return None
    record, start = records + slot * record_stride, slots + slot * slot_size
    seq, tail = get(record, "2Q")
    # The tail says which frame of the slot is the newest. The first frame has its record outside of the slot.
    behind, ordinal = divmod(tail, 1 << 24)
    offset, size = (behind + 64, *get(start + behind + 40, "Q")) if behind else get(record + 64, "2Q")
    if seq != first or offset + size > slot_size:
        return None
    caps, frame = os.pread(segment, caps_size, caps_at).decode(), numpy.empty(size, numpy.uint8)
    # A writer waits only briefly for the semaphore, and may have overwritten the frame meanwhile.
    is_whole = os.preadv(segment, [frame], start + offset) == size and get(record, "Q") == (first,)
    return (first + ordinal - 1, caps, frame) if is_whole else None


def main():
    parser = argparse.ArgumentParser(description="Reads a channel with only posix_ipc, struct and NumPy.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--count", type=int, default=0, help="number of looks at the channel (0: no limit)")
    parser.add_argument("--every", type=float, default=1, metavar="SECONDS", help="interval (1)")
    options = parser.parse_args()
    if (os.environ.get("RSSHM_DIR") or "/dev/shm").rstrip("/") != "/dev/shm":
        sys.exit("classic_read.py: shm_open and sem_open know only /dev/shm, not RSSHM_DIR; unset it, or use rsshm")
    looks = 0
    while options.count == 0 or looks < options.count:
        looks += 1
        try:
            seq, caps, frame = newest(options.channel) or (0, "no frame", b"")
            print(f"frame {seq}, {len(frame)} bytes, CRC {zlib.crc32(frame):08x}, {caps}" if seq else caps, flush=True)
        except posix_ipc.ExistentialError:
            print(f"there is no channel {options.channel}", flush=True)
        except posix_ipc.BusyError:
            print("another process holds the semaphore", flush=True)
        except (OSError, ValueError, struct.error, posix_ipc.Error) as error:
            sys.exit(f"classic_read.py: channel {options.channel}: {error}")
        if signal.sigtimedwait(STOP, options.every):
            break


if __name__ == "__main__":
    main()
