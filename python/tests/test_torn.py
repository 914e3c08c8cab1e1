"""Frames at full speed, none of them torn; and the same as the demonstration did it that this project comes from, whose frames
are. RSSHM_TORN_SECONDS=60 makes it a longer look."""

from __future__ import annotations

import mmap
import os
import threading
import time
from typing import Any, Callable, Dict

import numpy
import posix_ipc
import pytest
from helpers import Channel, Process, peer, python

import rsshm

Start = Callable[..., Process]
SECONDS = float(os.environ.get("RSSHM_TORN_SECONDS", "1"))
SIZE = 640 * 480 * 3


def is_whole(array: Any) -> bool:
    """Whether all bytes are the first one, and still are at a second look."""
    first = array[0]
    return bool((array == first).all() and (array == first).all())


def counts(printed: str) -> Dict[str, int]:
    return {name: int(value) for name, _, value in (word.partition("=") for word in printed.split())}


@pytest.mark.parametrize("writer", ["python", "rust"])
def test_no_frame_is_torn(writer: str, channel: Channel, start: Start) -> None:
    """Two readers at once, one of each kind, and a third that only looks."""
    flood = (python if writer == "python" else peer)("flood", channel.name, SIZE, SECONDS)
    checking = start(peer("check", channel.name, SECONDS + 20))
    flooding = start(flood)
    received, torn, looked = 0, 0, 0

    def look() -> None:
        nonlocal looked, torn
        with rsshm.Observer(channel.name, timeout=20, latest=True) as observer:
            for frame in observer:
                looked += 1
                torn += not is_whole(frame.data)

    looking = threading.Thread(target=look)
    looking.start()
    with rsshm.Reader(channel.name, timeout=20) as reader:
        for frame in reader:
            received += 1
            torn += not is_whole(frame.data)
    looking.join()
    published = counts(flooding.wait_ok().decode())["published"]
    other = counts(checking.wait_ok().decode())
    print(
        f"\n{writer}: {published} published; {received} and {other['received']} read, {looked} observed; torn {torn}, {other['torn']}"
    )
    assert (torn, other["torn"]) == (0, 0)
    assert min(received, other["received"], looked) > 20 * SECONDS


def test_the_original_demonstration_tears_frames() -> None:
    """One buffer under a semaphore, and a view of it that is used when the semaphore is free again: what the numbers above
    are to be held against. (Were none torn here, the check above would not see any.)"""
    name = f"/rsshm-pytest-demonstration-{os.getpid()}"
    semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=1)
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=SIZE)
    stop = time.monotonic() + SECONDS
    child = os.fork()
    buffer = numpy.frombuffer(mmap.mmap(memory.fd, SIZE), numpy.uint8)
    if child == 0:
        # Until the reader has seen its share, and at the most for as long again.
        value = 0
        while time.monotonic() < stop + SECONDS:
            value = (value + 1) & 0xFF
            semaphore.acquire()
            buffer.fill(value)
            semaphore.release()
        os._exit(0)
    received = torn = 0
    try:
        while time.monotonic() < stop:
            semaphore.acquire()
            view = buffer[:]
            semaphore.release()
            received += 1
            torn += not is_whole(view)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        memory.unlink()
        semaphore.unlink()
    print(f"\nthe original way: {received} read; torn {torn}")
    assert torn > 0
