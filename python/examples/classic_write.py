#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A classic writer with posix_ipc, ctypes and NumPy: it draws a frame, takes the semaphore, publishes, and releases it.

It is "The smallest writer" of docs/PROTOCOL.md, and does not use the package rsshm. It writes a moving picture to cam0.
It has 16 slots, grants no quota (readers copy), serves no requests, and does not create files again that others remove.
In frame n, the four bytes of the pixel in column x and row y are x + n, y + n, n and n, each modulo 256.
"""

import argparse
import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
import zlib

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
if __name__ == "__main__":
    # A signal ends the program between two frames, never within one. NumPy starts threads, which inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
try:
    import numpy
    import posix_ipc
except ImportError as error:
    sys.exit(f"classic_write.py: {error.name} is missing: pip install posix_ipc numpy")

MAGIC, SUPERSEDED, CLOSED, SLOTS, NONE = b"rsshm\r\n\x1a", 1, 2, 16, 2**64 - 1
# Where the tables are in the segment, and where the fields of the status are in their table.
STATUS, CAPS, EVICTIONS, READERS, RING, EVENTS, RECORDS, FRAMES = 256, 4096, 8192, 8704, 25088, 26112, 583168, 655360
HEAD, EOS_SEQ_1, PUBLISHED, STATE, EOS_COUNT, RUN_HEAD, HEADS = 0, 16, 32, 36, 40, 56, "=Q40xQ"
FUTEX = {"x86_64": 202, "ppc64le": 221, "s390x": 238}.get(os.uname().machine, 98)  # the number of the system call
u32, u64, libc, private = ctypes.c_uint32, ctypes.c_uint64, ctypes.CDLL(None), (ctypes.c_uint64 * 4)()
fence = lambda: (libc.sem_post(private), libc.sem_trywait(private))  # a full fence


def store(memory, at, value, word=u64):
    """Stores a word: after all former stores, and before all later ones."""
    fence()
    word.from_buffer(memory, at).value = value
    fence()


def notify(memory, status, state):
    """Stores the state, and wakes the readers."""
    store(memory, status + STATE, state, u32)
    word = u32.from_buffer(memory, status + PUBLISHED)
    store(memory, status + PUBLISHED, word.value + 1, u32)
    libc.syscall(ctypes.c_long(FUTEX), ctypes.byref(word), 1, 128, None, None, 0)


def is_named(file, path):
    return os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path))


def take(path, lock=True):
    """Opens a file of this user, and locks the writer's byte; or only checks that no living writer has locked it."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    command, kind = (fcntl.F_OFD_SETLK, fcntl.F_WRLCK) if lock else (fcntl.F_OFD_GETLK, fcntl.F_RDLCK)
    found = fcntl.fcntl(file, command, struct.pack("hhqqi4x", kind, 0, 4096, 1, 0))
    if not lock and struct.unpack_from("h", found)[0] == fcntl.F_WRLCK:
        raise BlockingIOError
    if os.fstat(file).st_uid != os.geteuid() or not is_named(file, path):
        raise OSError(f"{path} belongs to another user, or was just replaced; choose another channel, or start again")
    return file


class Writer:
    def __init__(self):
        self.files, self.memory, self.run, self.late = {}, None, 0, 0

    def open(self, name, caps, size, fps):
        path, lock_path = f"/dev/shm/{name}", f"/dev/shm/sem.{name}"
        staging = f"/dev/shm/.rsshm-{zlib.crc32(name.encode()):08x}"
        posix_ipc.Semaphore("/" + name, posix_ipc.O_CREAT, 0o600, 1).close()
        self.files[lock_path] = take(lock_path)  # From here on, no other program writes the channel.
        self.semaphore, locks = posix_ipc.Semaphore("/" + name), os.fstat(self.files[lock_path])

        # The seqs continue after those of a writer that was killed.
        former, status, self.seq, event = None, 0, 0, 0
        if os.path.lexists(path):
            former_file = take(path, lock=False)  # With a lock, readers would take the killed writer for alive.
            former = mmap.mmap(former_file, 0)
            magic, version, status = struct.unpack_from("=8sI52xQ", former)
            if (magic, version) != (MAGIC, 3):
                raise OSError(f"{path} is not a segment; remove it, or choose another channel")
            self.seq, event = struct.unpack_from(HEADS, former, status)

        # The segment is complete before it gets its name. Of a slot record, only the seq and the pts change later.
        self.fps, self.slot_size = fps, -(-size // 4096) * 4096
        if os.path.exists(staging):  # A writer of this channel was killed at this point.
            os.unlink(staging)
        posix_ipc.SharedMemory(staging[8:], posix_ipc.O_CREX, 0o600).close_fd()
        self.files[staging] = self.files[path] = file = take(staging)
        os.posix_fallocate(file, 0, FRAMES + SLOTS * self.slot_size)
        self.memory = mmap.mmap(file, 0)
        struct.pack_into(
            "=8s2I 9Q 2I Q 2I 3Q 4I Q 2I Q 2I", self.memory, 0, MAGIC, 3, 256, time.monotonic_ns(), self.seq + 1,
            locks.st_dev, locks.st_ino, CAPS, len(caps), STATUS, EVICTIONS, READERS, 256, 64, RING, 128, SLOTS, RECORDS,
            FRAMES, self.slot_size, 4096, SLOTS - 2, os.getpid(), 0, EVENTS, 4096, 136, 0, 512, 0,
        )  # fmt: skip
        self.memory[CAPS : CAPS + len(caps)] = caps
        struct.pack_into(HEADS, self.memory, STATUS, self.seq, event)
        for record in range(RECORDS, RECORDS + SLOTS * 4096, 4096):
            struct.pack_into("=10Q56x2I", self.memory, record, 0, 1, 1, NONE, NONE, 10**9 // fps, NONE, NONE, 0, size, 0, 1)
        os.rename(staging, path)
        if former:
            notify(former, status, SUPERSEDED)
            os.close(former_file)

    def write(self, pattern):
        """Draws the pattern plus the seq into the oldest slot, and publishes the frame."""
        memory, self.run, self.seq = self.memory, self.run + 1, self.seq + 1
        slot = self.run % SLOTS
        record = RECORDS + slot * 4096
        store(memory, record, 0)  # Readers see the 0 before they see new pixels.
        picture = numpy.ndarray(pattern.shape, numpy.uint8, memory, FRAMES + slot * self.slot_size)
        numpy.add(pattern, numpy.uint8(self.seq % 256), out=picture)
        try:
            self.semaphore.acquire(0 if self.late else 0.002)
            self.late = 0
        except posix_ipc.BusyError:
            self.late += 1  # The writer continues without the semaphore.
        store(memory, record + 24, time.monotonic_ns())
        store(memory, record, self.seq)
        store(memory, RING + self.run % 128 * 8, self.seq << 8 | slot)
        store(memory, STATUS + RUN_HEAD, self.run)
        store(memory, STATUS + HEAD, self.seq)
        if self.late % (self.fps + 1) == 0:  # If the semaphore was taken for a second, its holder was killed.
            self.semaphore.release()
        notify(memory, STATUS, 0)

    def close(self):
        """Ends the stream, and removes the files."""
        if self.run:
            store(self.memory, STATUS + EOS_SEQ_1, self.seq)
            store(self.memory, STATUS + EOS_COUNT, 1, u32)
            notify(self.memory, STATUS, CLOSED)
        for path, file in reversed(self.files.items()):
            if is_named(file, path):
                os.unlink(path)


def main():
    parser = argparse.ArgumentParser(description="Writes a moving picture with only posix_ipc, ctypes and NumPy.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    for name, default in (("width", 640), ("height", 480), ("fps", 30), ("count", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"({default})")
    options = parser.parse_args()
    if (os.environ.get("RSSHM_DIR") or "/dev/shm").rstrip("/") != "/dev/shm":
        sys.exit("classic_write.py: shm_open and sem_open know only /dev/shm, not RSSHM_DIR; unset it, or use rsshm")
    numbers = (options.width, options.height, options.fps)
    if not all(1 <= number <= 4096 for number in numbers) or options.channel.startswith(("sem.", ".rsshm-")):
        parser.error("--width, --height and --fps are 1 to 4096, and --channel does not begin with sem. or .rsshm-")
    caps = f"video/x-raw, format=RGBx, width={options.width}, height={options.height}, framerate={options.fps}/1".encode()
    pattern = numpy.zeros((options.height, options.width, 4), numpy.uint8)
    pattern[..., 1], pattern[..., 0] = numpy.indices((options.height, options.width)) % 256
    writer = Writer()
    try:
        writer.open(options.channel, caps, pattern.size, options.fps)
        while not signal.sigtimedwait(STOP, 1 / options.fps) and writer.run != (options.count or NONE):
            writer.write(pattern)
    except BlockingIOError:
        sys.exit(f"classic_write.py: channel {options.channel} has another writer; stop it, or choose another channel")
    except (OSError, ValueError, struct.error, posix_ipc.Error) as error:
        sys.exit(f"classic_write.py: channel {options.channel}: {error}")
    finally:
        writer.close()


if __name__ == "__main__":
    main()
