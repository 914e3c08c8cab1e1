# SPDX-License-Identifier: MIT OR Apache-2.0
"""At full speed, no frame is torn. With the original demonstration, which this project replaces, frames are torn.

RSSHM_TORN_SECONDS=60 makes the tests run longer.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Callable, Dict

import numpy
import posix_ipc
import pytest
from helpers import PATIENCE, Channel, Process, peer, python

import rsshm

Start = Callable[..., Process]
SECONDS = float(os.environ.get("RSSHM_TORN_SECONDS", "1"))
SIZE = 640 * 480 * 3


def is_whole(array: Any) -> bool:
    """Whether all bytes are equal, in each of two checks."""
    first = array[0]
    return bool((array == first).all() and (array == first).all())


def counts(printed: str) -> Dict[str, int]:
    """The counts in a line of the form ``name=count ...``."""
    return {name: int(value) for name, _, value in (word.partition("=") for word in printed.split())}


def flood_once(writer: str, channel: Channel, start: Start) -> Counter[str]:
    """Writes at full speed for SECONDS while three readers check: Python, Rust, and an observer."""
    flood = (python if writer == "python" else peer)("flood", channel.name, SIZE, SECONDS)
    checking = start(peer("check", channel.name, SECONDS + 10))
    flooding = start(flood)
    found: Counter[str] = Counter()

    def observe() -> None:
        with suppress(rsshm.Timeout), rsshm.Observer(channel.name, timeout=10, latest=True) as observer:
            for frame in observer:
                found["observed"] += 1
                found["torn by the observer"] += not is_whole(frame.data)

    observing = threading.Thread(target=observe)
    observing.start()
    # On a busy machine, a reader may be so late that the writer has ended.
    with suppress(rsshm.Timeout), rsshm.Reader(channel.name, timeout=10) as reader:
        for frame in reader:
            found["read by Python"] += 1
            found["torn by Python"] += not is_whole(frame.data)
    observing.join()
    found["published"] = counts(flooding.wait_ok().decode())["published"]
    rust = counts(checking.wait_ok().decode())
    found["read by Rust"], found["torn by Rust"] = rust["received"], rust["torn"]
    return found


@pytest.mark.parametrize("writer", ["python", "rust"])
def test_no_frame_is_torn(writer: str, channel: Channel, start: Start) -> None:
    readers = ("read by Python", "read by Rust", "observed")
    found: Counter[str] = Counter()
    began = time.monotonic()
    # On a busy machine it takes several floods until each reader has checked enough frames.
    while min(found[reader] for reader in readers) <= 20 * SECONDS:
        assert time.monotonic() - began < PATIENCE + 10 * SECONDS, f"the readers get too few frames: {found}"
        found += flood_once(writer, channel, start)
    print(f"\n{writer}: {dict(found)}")
    assert not any(found[name] for name in found if name.startswith("torn")), found


def test_original_demonstration_tears_frames() -> None:
    """The demonstration protects one buffer with a semaphore, but uses a view of it after it has released the semaphore.

    Each test prints how many frames were torn. The test above must find none, and this test must find some. It shows
    that the check detects torn frames.
    """
    name = f"/rsshm-pytest-demonstration-{os.getpid()}"
    semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=1)
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=SIZE)
    began = time.monotonic()
    limit = began + SECONDS + PATIENCE
    child = os.fork()
    buffer = numpy.frombuffer(mmap.mmap(memory.fd, SIZE), numpy.uint8)
    if child == 0:
        # The parent kills this process. If the parent itself is killed, the limit ends this process.
        value = 0
        while time.monotonic() < limit:
            value = (value + 1) & 0xFF
            semaphore.acquire()
            buffer.fill(value)
            semaphore.release()
        os._exit(0)
    received = torn = 0
    try:
        # On a busy machine the two processes may rarely run at the same time.
        while time.monotonic() < began + SECONDS or (torn == 0 and time.monotonic() < limit):
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
    print(f"\nthe original demonstration: {received} read; torn {torn}")
    assert torn > 0
