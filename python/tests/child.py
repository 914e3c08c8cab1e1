# SPDX-License-Identifier: MIT OR Apache-2.0
"""Processes that the tests start: ``child.py ROLE ARGUMENT...``."""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy  # noqa: E402
from helpers import Pose, pose  # noqa: E402

import rsshm  # noqa: E402
from rsshm.caps import layout_of  # noqa: E402


def say(line: object) -> None:
    print(line, flush=True)


def listen() -> None:
    """Waits for a line from the test. If the test has ended, this process ends too."""
    if not sys.stdin.readline():
        sys.exit(0)


def write(name: str, format: str, width: str, height: str, align: str) -> None:
    """Waits for a reader, and writes the frames from the standard input: for each, its size and its unpadded bytes."""
    tight = layout_of(format, int(width), int(height), 1)
    with rsshm.Writer(
        name, (int(height), int(width)), format=format, fps=30, lossless=True, stride_align=int(align)
    ) as writer:
        assert writer.wait_for_reader(20)
        while True:
            size = sys.stdin.buffer.read(4)
            if not size:
                break
            data = sys.stdin.buffer.read(struct.unpack("=I", size)[0])
            with writer.buffer() as slot:
                for target, plane in zip(slot.planes, tight.planes):
                    target[...] = plane.array(data)


def read(name: str) -> None:
    """Prints the frames up to the end of the stream: for each, its size and its unpadded bytes."""
    with rsshm.Reader(name, timeout=20) as reader:
        for frame in reader:
            data = b"".join(numpy.ascontiguousarray(plane).tobytes() for plane in frame.planes)
            sys.stdout.buffer.write(struct.pack("=I", len(data)) + data)
    sys.stdout.buffer.flush()


def read_data(name: str) -> None:
    """Prints the frames up to the end of the stream: for each, its size and its bytes."""
    with rsshm.Reader(name, timeout=20) as reader:
        for frame in reader:
            data = frame.data.tobytes()
            sys.stdout.buffer.write(struct.pack("=I", len(data)) + data)
    sys.stdout.buffer.flush()


def flood(name: str, size: str, seconds: str) -> None:
    """Draws frames in place at full speed. All bytes of a frame are equal."""
    until = time.monotonic() + float(seconds)
    count = 0
    with rsshm.Writer(name, (1, int(size)), format="GRAY8") as writer:
        while time.monotonic() < until:
            with writer.buffer() as slot:
                count += 1
                slot.array.fill(count & 0xFF)
    say(f"published={writer.published}")


def steady(name: str, fps: str = "100") -> None:
    """Writes ``fps`` frames a second, until the test ends this process."""
    with rsshm.Writer(name, (48, 64), format="GRAY8", fps=float(fps)) as writer:
        say("ready")
        count = 0
        while True:
            count += 1
            with writer.buffer() as slot:
                slot.array.fill(count & 0xFF)
            time.sleep(1 / float(fps))


def timed(name: str, offset: str, period: str, count: str, delay: str = "0") -> None:
    """Waits for a reader, prints "ready", and takes a time from the test. Then writes frames and ends the stream.

    The ``pts_ns`` of the frames are this time, plus ``offset`` and multiples of ``period``. Each frame is written when its
    ``pts_ns`` plus ``delay`` has come. All values of a frame are its index.
    """
    with rsshm.Writer(name, (48, 64), format="GRAY8") as writer:
        assert writer.wait_for_reader(20)
        say("ready")
        first = int(sys.stdin.readline()) + int(offset)
        for index in range(int(count)):
            pts = first + index * int(period)
            time.sleep(max(0, pts + int(delay) - time.monotonic_ns()) / 1e9)
            writer.write(numpy.full((48, 64), index, numpy.uint8), pts_ns=pts)


def stopped(name: str, other: str, disposition: str) -> None:
    """Writes two channels and waits for a signal. ``disposition`` says what the program itself does about SIGTERM."""

    def leave(*_: object) -> None:
        # The signal may arrive while ``say`` writes, so this line does not go through the same buffer.
        os.write(1, b"own handler\n")
        sys.exit(3)

    if disposition == "own":
        signal.signal(signal.SIGTERM, leave)
    if disposition == "ignored":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    writers = [rsshm.Writer(each, (48, 64), format="GRAY8") for each in (name, other)]
    for writer in writers:
        writer.write(numpy.zeros((48, 64), numpy.uint8))
    if disposition == "forked":
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, b"x")
            time.sleep(60)
            os._exit(0)
        # Python forgets signals that arrive in a child before the child runs.
        os.read(ours, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        say(f"child {os.WTERMSIG(status)}")
    if disposition == "closed":
        for writer in writers:
            writer.close()
        say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    say("ready")
    if disposition == "waiting":
        writers[0].wait_for_reader()
    # Python calls a handler between two of its own instructions. A signal just before a call that blocks is therefore
    # handled only after this call, so no call lasts long.
    for _ in range(60 * 50):
        time.sleep(0.02)


def poses(name: str) -> None:
    """Writes structures at full speed, until the test ends this process."""
    values = [pose(value) for value in range(64)]
    with rsshm.struct_channel(name, Pose) as channel:
        while True:
            for value in values:
                channel.write(value)


def hold(name: str, count: str) -> None:
    """Holds frames, and prints "holds". After a line from the test, checks them, and reads up to the end of the stream."""
    reader = rsshm.Reader(name, timeout=20)
    held: Any = []
    while len(held) < int(count):
        frame = reader.read()
        if frame.in_place:
            held.append(frame.array)
    say("holds")
    listen()
    say("torn" if any(array.min() != array.max() for array in held) else "whole")
    held.clear()
    for frame in reader:
        if frame.array.min() != frame.array.max():
            say("torn")
            return
    say("ended")


def count(name: str) -> None:
    """Prints the seq of each frame, its value, and the number of missed frames."""
    for frame in rsshm.Reader(name, timeout=20):
        say(f"{frame.seq} {frame.array[0, 0]} {frame.missed}")


def semaphore(name: str) -> None:
    """Takes the semaphore of the channel as the classic reader does, and holds it until the test sends a line."""
    import posix_ipc

    posix_ipc.Semaphore("/" + name).acquire(5)
    say("holds")
    listen()
    posix_ipc.Semaphore("/" + name).release()
    say("released")
    listen()


def interrupted(name: str, wait: str) -> None:
    """Waits for something that does not come, until Ctrl-C ends the wait."""
    writer = None if wait == "writer" else rsshm.Writer(name, (48, 64), format="GRAY8", lossless=True, max_slots=3)
    reader = rsshm.Reader(name)
    picture = numpy.zeros((48, 64), numpy.uint8)
    if writer is not None and wait != "reader":
        writer.write(picture)
        frame = reader.read()
    try:
        say("waits")
        if wait == "reader":
            assert writer is not None
            writer.wait_for_reader()
        elif writer is not None and wait != "frame":
            # The reader takes no more frames.
            while True:
                if wait == "write":
                    writer.write(picture)
                else:
                    writer.buffer().publish()
        else:
            frame = reader.read()
            say(frame)
    except KeyboardInterrupt:
        say("interrupted")
    if writer is not None:
        writer.close()


def fork(name: str) -> None:
    """Attaches a reader, and forks a child that lives longer than the reader."""
    reader = rsshm.Reader(name, timeout=20)
    frame = reader.read()
    while not frame.in_place:
        frame = reader.read()
    child = os.fork()
    if child == 0:
        del frame
        try:
            reader.read()
        except rsshm.Closed:
            reader.close()
            say(f"child {os.getpid()}")
        time.sleep(60)
        os._exit(0)
    listen()


if __name__ == "__main__":
    roles = {
        role.__name__: role
        for role in (write, read, read_data, flood, steady, timed, stopped, poses, hold, count, semaphore, interrupted, fork)
    }
    roles[sys.argv[1]](*sys.argv[2:])
