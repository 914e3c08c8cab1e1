#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Measures the latency and the cost of 1080p BGR pictures between two Python processes, with rsshm and with other transports.

    bench.py [--frames 600] [--fps 60] [--only rsshm]

Latency is the time from when the writer has the picture until the reader has it as an array, at a steady rate.
CPU is the CPU time of the reader's process per frame.
At full speed, both sides run as fast as they can, and the reader takes each picture that it gets.
The figures are valid only for this machine at this time, so compare only figures of the same run.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy  # noqa: E402

import rsshm  # noqa: E402

SHAPE = (1080, 1920, 3)
SIZE = 1080 * 1920 * 3
NAME = f"rsshm-bench-{os.getpid()}"
Pictures = Iterator[Tuple[int, int, Any]]
"""The time when the writer had the picture, the time when the reader had it, and the picture."""


class Shared:
    """What the two processes of a transport share. It is created before they start."""

    def __init__(self, context: Any) -> None:
        self.name = NAME
        self.lock = context.Lock()
        self.published = context.Semaphore(0)
        self.queue = context.Queue(4)
        self.ended = context.Event()
        self.ready = context.Event()
        self.attached = context.Semaphore(0)


def paced(count: int, fps: float) -> Iterator[int]:
    """Counts from 0 at this rate, or without a delay if the rate is 0."""
    due = time.monotonic()
    for index in range(count):
        if fps:
            due += 1 / fps
            time.sleep(max(0, due - time.monotonic()))
        yield index


def stamp_of(picture: Any) -> int:
    """The timestamp in the first bytes of a picture."""
    return int(picture.reshape(-1)[:8].view(numpy.uint64)[0])


# Each transport has a writer, and a reader that yields pictures. The first eight bytes of a picture are its timestamp.


def in_place_writer(shared: Shared, count: int, fps: float) -> None:
    # At full speed the writer is lossless: it waits for the reader, and every picture arrives.
    with rsshm.Writer(shared.name, SHAPE, fps=fps or None, lossless=fps == 0) as writer:
        writer.wait_for_reader(20)
        for _ in paced(count, fps):
            # The picture is already in the slot, because drawing it is not part of the measurement.
            with writer.buffer() as slot:
                stamp = slot.data[:8].view(numpy.uint64)
                stamp[0] = time.monotonic_ns()


def copy_writer(shared: Shared, count: int, fps: float) -> None:
    picture = numpy.zeros(SHAPE, numpy.uint8)
    stamp = picture.reshape(-1)[:8].view(numpy.uint64)
    # At full speed the writer is lossless: it waits for the reader, and every picture arrives.
    with rsshm.Writer(shared.name, SHAPE, fps=fps or None, lossless=fps == 0) as writer:
        writer.wait_for_reader(20)
        for _ in paced(count, fps):
            stamp[0] = time.monotonic_ns()
            writer.write(picture)


def rsshm_reader(shared: Shared) -> Pictures:
    with rsshm.Reader(shared.name, timeout=20) as reader:
        shared.ready.set()
        for frame in reader:
            array = frame.array
            arrived = time.monotonic_ns()
            yield stamp_of(array), arrived, array


class Futex:
    """A word in shared memory on which a process sleeps until another process wakes it, and a picture beside the word."""

    CALL = {"x86_64": 202, "aarch64": 98}[platform.machine()]
    WAIT, WAKE = 0, 1

    def __init__(self, name: str, create: bool) -> None:
        self.memory = shared_memory.SharedMemory(name, create=create, size=4096 + SIZE)
        self.word = ctypes.c_uint32.from_buffer(self.memory.buf)
        self.picture = numpy.ndarray(SHAPE, numpy.uint8, self.memory.buf, 4096)
        self._syscall = ctypes.CDLL(None).syscall
        self._at = ctypes.c_void_p(ctypes.addressof(self.word))

    def wait(self, value: int) -> None:
        """Waits while the word has this value."""
        while self.word.value == value:
            self._syscall(self.CALL, self._at, self.WAIT, value, None)

    def wake(self) -> None:
        self.word.value += 1
        self._syscall(self.CALL, self._at, self.WAKE, 1)

    def close(self) -> None:
        del self.word, self.picture
        self.memory.close()


def wake_writer(shared: Shared, count: int, fps: float) -> None:
    futex = Futex(shared.name, True)
    stamp = futex.picture.reshape(-1)[:8].view(numpy.uint64)
    shared.ready.set()
    shared.attached.acquire()
    for _ in paced(count, fps):
        stamp[0] = time.monotonic_ns()
        futex.wake()
    shared.ended.set()
    futex.wake()
    shared.attached.acquire()
    del stamp
    futex.close()
    futex.memory.unlink()


def wake_reader(shared: Shared) -> Pictures:
    shared.ready.wait()
    futex = Futex(shared.name, False)
    shared.attached.release()
    seen = 0
    while True:
        futex.wait(seen)
        arrived = time.monotonic_ns()
        seen = futex.word.value
        if shared.ended.is_set():
            break
        yield stamp_of(futex.picture), arrived, futex.picture
    futex.close()
    shared.attached.release()


def lock_writer(shared: Shared, count: int, fps: float) -> None:
    memory = shared_memory.SharedMemory(shared.name, create=True, size=SIZE)
    target = numpy.ndarray(SHAPE, numpy.uint8, memory.buf)
    picture = numpy.zeros(SHAPE, numpy.uint8)
    stamp = picture.reshape(-1)[:8].view(numpy.uint64)
    shared.ready.set()
    shared.attached.acquire()
    for _ in paced(count, fps):
        stamp[0] = time.monotonic_ns()
        with shared.lock:
            target[...] = picture
        shared.published.release()
    shared.ended.set()
    shared.attached.acquire()
    del target
    memory.close()
    memory.unlink()


def lock_reader(shared: Shared) -> Pictures:
    shared.ready.wait()
    memory = shared_memory.SharedMemory(shared.name)
    source = numpy.ndarray(SHAPE, numpy.uint8, memory.buf)
    shared.attached.release()
    last = 0
    while not shared.ended.is_set():
        if not shared.published.acquire(timeout=0.2):
            continue
        with shared.lock:
            picture = source.copy()
        arrived = time.monotonic_ns()
        stamp = stamp_of(picture)
        if stamp != last:
            last = stamp
            yield stamp, arrived, picture
    del source
    memory.close()
    shared.attached.release()


def original_writer(shared: Shared, count: int, fps: float) -> None:
    import mmap

    import posix_ipc

    semaphore = posix_ipc.Semaphore("/" + shared.name, posix_ipc.O_CREX, initial_value=1)
    memory = posix_ipc.SharedMemory("/" + shared.name, posix_ipc.O_CREX, size=SIZE)
    target = numpy.frombuffer(mmap.mmap(memory.fd, SIZE), numpy.uint8).reshape(SHAPE)
    picture = numpy.zeros(SHAPE, numpy.uint8)
    stamp = picture.reshape(-1)[:8].view(numpy.uint64)
    shared.ready.set()
    shared.attached.acquire()
    for _ in paced(count, fps):
        stamp[0] = time.monotonic_ns()
        semaphore.acquire()
        target[...] = picture
        semaphore.release()
    shared.ended.set()
    semaphore.unlink()
    memory.unlink()


def original_reader(shared: Shared) -> Pictures:
    import mmap

    import posix_ipc

    shared.ready.wait()
    semaphore = posix_ipc.Semaphore("/" + shared.name)
    memory = posix_ipc.SharedMemory("/" + shared.name)
    source = numpy.frombuffer(mmap.mmap(memory.fd, SIZE), numpy.uint8).reshape(SHAPE)
    shared.attached.release()
    last = 0
    while not shared.ended.is_set():
        # There is no notification, so the reader polls every millisecond.
        semaphore.acquire()
        stamp = stamp_of(source)
        picture = source.copy() if stamp != last else None
        arrived = time.monotonic_ns()
        semaphore.release()
        if picture is None:
            time.sleep(0.001)
            continue
        last = stamp
        yield stamp, arrived, picture


def queue_writer(shared: Shared, count: int, fps: float) -> None:
    picture = numpy.zeros(SHAPE, numpy.uint8)
    shared.attached.acquire()
    for _ in paced(count, fps):
        shared.queue.put((time.monotonic_ns(), picture))
    shared.queue.put(None)


def queue_reader(shared: Shared) -> Pictures:
    shared.attached.release()
    while True:
        item = shared.queue.get()
        if item is None:
            return
        arrived = time.monotonic_ns()
        yield item[0], arrived, item[1]


TRANSPORTS: Dict[str, Tuple[str, Callable[..., None], Callable[..., Pictures]]] = {
    "rsshm": ("rsshm, in place on both sides", in_place_writer, rsshm_reader),
    "write": ("rsshm, write() copies once", copy_writer, rsshm_reader),
    "wake": ("a bare futex wake, for comparison: no protection", wake_writer, wake_reader),
    "lock": ("multiprocessing.shared_memory, Lock, copy on each side", lock_writer, lock_reader),
    "original": ("one buffer, posix_ipc semaphore, copy on each side", original_writer, original_reader),
    "queue": ("multiprocessing.Queue (pickle)", queue_writer, queue_reader),
}


def cpu_seconds() -> float:
    """CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def read(transport: str, shared: Shared, results: Any) -> None:
    latencies: List[int] = []
    began, used, first = 0.0, 0.0, True
    for stamp, arrived, picture in TRANSPORTS[transport][2](shared):
        latencies.append(arrived - stamp)
        assert picture.shape == SHAPE
        if first:
            began, used, first = time.monotonic(), cpu_seconds(), False
        last, spent = time.monotonic(), cpu_seconds()
    count = max(len(latencies) - 1, 1)
    # Leave out the first tenth, which has cold caches and new memory.
    results.put((latencies[len(latencies) // 10 :], count / (last - began), (spent - used) / count, len(latencies)))


def run(transport: str, count: int, fps: float) -> Tuple[List[int], float, float, int]:
    context = multiprocessing.get_context("spawn")
    shared, results = Shared(context), context.Queue()
    reader = context.Process(target=read, args=(transport, shared, results))
    reader.start()
    writer = context.Process(target=TRANSPORTS[transport][1], args=(shared, count, fps))
    writer.start()
    found: Tuple[List[int], float, float, int] = results.get(timeout=300)
    for process in (writer, reader):
        process.join(20)
        process.kill()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures 1080p BGR pictures between two Python processes.")
    parser.add_argument("--frames", type=int, default=600, help="pictures at the steady rate (600)")
    parser.add_argument("--fast", type=int, default=2000, help="pictures at full speed (2000)")
    parser.add_argument("--fps", type=float, default=60, help="the steady rate, in frames per second (60)")
    parser.add_argument(
        "--only", choices=TRANSPORTS, nargs="+", default=list(TRANSPORTS), help="measure only these transports"
    )
    options = parser.parse_args()
    print(f"1080p BGR, {SIZE / 1e6:.1f} MB per frame; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':54}{f'latency at {options.fps:g} fps':>22}{'CPU per frame':>14}{'full speed':>14}")
    print(f"{'':54}{'median':>11}{'99 %':>11}{'reader':>14}{'reader gets':>14}")
    for transport in options.only:
        latencies, _, used, _ = run(transport, options.frames, options.fps)
        latencies.sort()
        # A bare wake does not wait for the reader, so that it has no full speed.
        fast = {"queue": options.fast // 10, "wake": 0}.get(transport, options.fast)
        rate = f"{run(transport, fast, 0)[1]:10.0f} fps" if fast else ""
        median = statistics.median(latencies) / 1e3
        slow = latencies[int(len(latencies) * 0.99)] / 1e3
        print(f"{TRANSPORTS[transport][0]:54}{median:8.0f} us{slow:8.0f} us{used * 1e6:11.0f} us{rate}", flush=True)


if __name__ == "__main__":
    main()
