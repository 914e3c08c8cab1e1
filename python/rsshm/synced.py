# SPDX-License-Identifier: MIT OR Apache-2.0
"""``sync``: the frames of several channels that are nearest in time, as tuples."""

from __future__ import annotations

import math
import select
import threading
import time
from types import TracebackType
from typing import Dict, List, Optional, Sequence, Tuple, Type

from ._matcher import Matcher
from .errors import BadOption, Closed, EndOfStream, Error, Timeout
from .frame import Frame
from .reader import Reader

CHECK = 0.25
"""The longest wait in seconds. After it, the iteration notices that another thread has closed the object."""


class Synchronizer:
    """An iterator over tuples of frames of several channels. :func:`sync` makes it.

    ``with`` closes it. A program that receives a :class:`~rsshm.Timeout` may continue the iteration.
    One thread at a time may iterate, but any thread may call :meth:`close`.
    """

    def __init__(
        self,
        channels: Sequence[str],
        tolerance: float = 0.005,
        timeout: Optional[float] = None,
        *,
        latest: bool = False,
        max_held: int = 4,
        read_only: bool = False,
    ) -> None:
        names = _checked_names(channels)
        if not (isinstance(tolerance, (int, float)) and 0 <= tolerance < math.inf):
            raise BadOption(f"tolerance is {tolerance!r}, not a number of seconds")
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise BadOption(f"timeout is {timeout!r}, not a number of seconds or None")
        if not isinstance(max_held, int) or max_held < 2:
            raise BadOption(f"max_held is {max_held!r}; it must be 2 or more: one frame waits, and the program has another")
        self.timeout = timeout
        self._tolerance = float(tolerance)
        # The program has one more frame of each channel.
        self._matcher: Matcher[Frame] = Matcher(len(names), round(tolerance * 1e9), max_held - 1)
        self._candidate: Tuple[Optional[int], float] = None, 0.0
        """The set that waits for nearer frames, and until when it waits."""
        self._closed = False
        self._iterating = threading.Lock()
        self._names = names
        self._readers: List[Reader] = []
        self._poll = select.poll()
        self._channels: Dict[int, int] = {}
        """The channel of each descriptor."""
        try:
            for index, name in enumerate(names):
                self._readers.append(Reader(name, latest=latest, max_held=max_held, read_only=read_only))
                descriptor = self._readers[-1].fileno()
                self._channels[descriptor] = index
                self._poll.register(descriptor, select.POLLIN)
        except BaseException:
            self.close()
            raise
        self._read_until = [0] * len(names)
        """Up to which time each channel was read."""

    @property
    def unmatched(self) -> Dict[str, int]:
        """Number of frames of each channel that were skipped, because they have no partners or no ``pts_ns``."""
        return {name: queue.unmatched for name, queue in zip(self._names, self._matcher.queues)}

    @property
    def readers(self) -> Tuple[Reader, ...]:
        """The readers of the channels, for their counters and their state. Only this object may read from them."""
        return tuple(self._readers)

    def __iter__(self) -> Synchronizer:
        return self

    def __next__(self) -> Tuple[Frame, ...]:
        """The next set. Raises :class:`~rsshm.Timeout` if none came within ``timeout``."""
        if not self._iterating.acquire(blocking=False):
            raise Error("another thread is iterating over this object")
        try:
            return self._next(None if self.timeout is None else time.monotonic() + self.timeout)
        finally:
            self._iterating.release()
            if self._closed:
                self._close_readers()

    def close(self) -> None:
        """Leaves the channels. Frames that the program still has stay valid."""
        self._closed = True
        if self._iterating.acquire(blocking=False):
            try:
                self._close_readers()
            finally:
                self._iterating.release()
        # Otherwise, the thread that iterates notices it, and closes the readers.

    def __enter__(self) -> Synchronizer:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rsshm.Synchronizer of {', '.join(self._names)}{', closed' if self._closed else ''}>"

    def _close_readers(self) -> None:
        self._matcher.clear()
        for reader in self._readers:
            reader.close()

    def _next(self, deadline: Optional[float]) -> Tuple[Frame, ...]:
        while True:
            if self._closed:
                raise Closed("this object is closed: call rsshm.sync again")
            now = time.monotonic()
            found = self._match(now)
            if found is not None:
                return found
            if self._matcher.ended:
                self._matcher.clear()
                raise StopIteration
            patience = CHECK
            if self._matcher.candidate is not None:
                patience = min(patience, self._candidate[1] - now)
            if deadline is not None:
                patience = min(patience, deadline - now)
            received = self._receive(patience)
            if deadline is not None and time.monotonic() >= deadline + (CHECK if received else 0):
                # Frames that are there already count, but frames that keep coming do not delay the time-out for long.
                found = self._matcher.match(final=True)
                if found is None:
                    raise Timeout(self._describe())
                return found

    def _match(self, now: float) -> Optional[Tuple[Frame, ...]]:
        """The next set that is known to be the nearest, or that has waited long enough for nearer frames."""
        found = self._matcher.match()
        pivot = self._matcher.candidate
        if pivot is None:
            return found
        if self._candidate[0] != pivot:
            # A nearer frame is less than one spread older or newer than the pivot. So it comes within two spreads of the
            # last frame of its channel, and a spread is at most the tolerance.
            self._candidate = pivot, now + 2 * self._tolerance
        return self._matcher.match(final=True) if now >= self._candidate[1] else None

    def _receive(self, patience: float) -> bool:
        """Waits for a frame of any channel, and reads one. False if none came in time."""
        ready = [self._channels[descriptor] for descriptor, _ in self._poll.poll(max(0, math.ceil(patience * 1000)))]
        if not ready:
            # This raises Closed in a forked child, whose readers belong to the parent.
            self._readers[0].fileno()
            return False
        # The channel that is most behind, so that no queue overflows while the others catch up.
        index = min(ready, key=self._read_until.__getitem__)
        reader = self._readers[index]
        try:
            frame = reader.read(0)
        except Timeout:
            return False
        except EndOfStream:
            self._matcher.end(index)
            self._poll.unregister(reader.fileno())
            return True
        pts = frame.pts_ns
        self._read_until[index] = time.monotonic_ns() if pts is None else pts
        self._matcher.push(index, pts, frame, frame.discontinuity)
        return True

    def _describe(self) -> str:
        """Why there is no set, for a message."""
        now = time.monotonic_ns()
        parts = []
        for name, queue, reader in zip(self._names, self._matcher.queues, self._readers):
            if queue.last is not None:
                parts.append(f"the newest frame of {name} is {(now - queue.last) / 1e6:.1f} ms old")
            elif queue.unmatched:
                parts.append(f"the frames of {name} have no time")
            else:
                parts.append(f"{name} has {'no frame yet' if reader.connected else 'no writer'}")
        return f"no frames within {self._tolerance * 1000:g} ms of each other came in time: {', '.join(parts)}"


def _checked_names(channels: Sequence[str]) -> List[str]:
    if isinstance(channels, str):
        raise BadOption(f'sync takes a list of channels, such as ["left", "right"], and not {channels!r}')
    names = list(channels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadOption(f"sync takes two or more different channels, and not {names!r}")
    return names


def sync(
    channels: Sequence[str],
    tolerance: float = 0.005,
    timeout: Optional[float] = None,
    *,
    latest: bool = False,
    max_held: int = 4,
    read_only: bool = False,
) -> Synchronizer:
    """Iterates over tuples of frames of several channels that are nearest in time.

    >>> for left, right in rsshm.sync(["left", "right"], tolerance=0.005, timeout=1):
    ...     print(left.pts_ns - right.pts_ns)

    ``channels``: their names. The frames of a tuple are in this order.
    ``tolerance``: the most seconds between the oldest and the newest ``pts_ns`` of a tuple.
    ``timeout``: seconds without a tuple after which the iteration raises :class:`~rsshm.Timeout`, which says what is missing.
    A program may continue the iteration after it. None waits forever.
    ``latest``: whenever a channel is read, take its newest frame and skip those before it, so that a slow program gets new
    tuples. By default, the iteration returns each tuple of the frames that the channels still have.
    ``max_held``: how many frames of each channel are held in place: all but one wait for partners, and the program has one.
    Where one channel is later than another, this must be more than the number of frames in the delay.
    ``read_only``: only observe, as a :class:`~rsshm.Reader` does.

    **Algorithm.** Each channel has a queue of frames that wait for partners.

    1. When each queue has a frame, the newest of the oldest frames of all queues is the *pivot*. Frames that are older than
       the pivot by more than the tolerance cannot have partners any more. They are skipped, and counted in ``unmatched``.
    2. Of all sets with the pivot and a frame of each other channel, the set with the smallest spread is returned. The spread
       is the time from the oldest to the newest frame. Of two frames of a channel that give this spread, the earlier one is
       taken. Frames that are older than those of the set are skipped.
    3. If the next frame of a channel could make the spread smaller, it is waited for, but at most twice the tolerance. The
       next frame is expected after the shortest of the last 30 intervals of its channel. So there is no wait if the frames of
       each channel are more than twice the tolerance apart.

    Each frame is in at most one set. The times of a channel grow from set to set, and no possible set is left out between two
    sets, unless a queue overflows.

    The channels may have different rates, and may start, stop and restart in any order. While one has no frames, the newest
    frames of the others wait. The end of the stream of one channel ends the iteration, after the frames that it still has.

    This is the algorithm of ``ApproximateTime`` in ROS's message_filters, with two differences: it learns the shortest
    interval (there ``setInterMessageLowerBound``), and its waits have a limit. GStreamer's mixers, such as compositor, differ:
    they take the frame of each input that covers the time of the output, so they repeat frames of slower inputs.
    """
    return Synchronizer(channels, tolerance, timeout, latest=latest, max_held=max_held, read_only=read_only)
