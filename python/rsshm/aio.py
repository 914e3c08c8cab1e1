# SPDX-License-Identifier: MIT OR Apache-2.0
"""Readers for asyncio. A task that waits for a frame costs no thread of Python, and the loop runs other tasks meanwhile."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Optional, Tuple, Type, Union

from . import reader as _reader
from .errors import BadOption, EndOfStream, Error, Timeout
from .frame import Frame

_DEFAULT = object()


class Reader:
    """Reads a channel in an asyncio program. The options are those of :class:`rsshm.Reader`.

    >>> async def main():
    ...     async with rsshm.aio.Reader("cam0") as reader:
    ...         async for frame in reader:
    ...             print(frame.seq, frame.array.mean())

    Any number of these readers may be in one loop, but only one task at a time may read from each. All methods belong to the
    thread of the loop.

    A cancelled :meth:`read` loses no frame: the next one returns it.
    """

    def __init__(
        self,
        name: str,
        timeout: Optional[float] = None,
        latest: bool = False,
        max_held: int = 4,
        read_only: bool = False,
    ) -> None:
        self.blocking = _reader.Reader(name, timeout, latest, max_held, read_only)
        """The blocking reader behind this one, for its counters and its state: ``reader.blocking.missed``."""
        self._is_reading = False
        self._waiter: Optional[asyncio.Future[None]] = None
        """What the task that reads waits for."""
        self._watched: Optional[Tuple[asyncio.AbstractEventLoop, int]] = None
        """The loop that watches the descriptor of the reader."""

    async def read(self, timeout: Union[float, None, object] = _DEFAULT) -> Frame:
        """Waits for the next frame, and returns it. It raises the same errors as :meth:`rsshm.Reader.read`."""
        patience = self.blocking.timeout if timeout is _DEFAULT else timeout
        if patience is not None and not (isinstance(patience, (int, float)) and patience >= 0):
            raise BadOption(f"channel {self.blocking.name}: timeout is {patience!r}, not a number of seconds or None")
        if self._is_reading:
            raise Error(f"channel {self.blocking.name}: another task is reading with this reader; use one reader per task")
        loop = asyncio.get_running_loop()
        deadline = None if patience is None else loop.time() + patience
        self._is_reading = True
        try:
            # Let other tasks run, even if the channel has more frames than this task can take. This is before the frame is
            # taken, because a task may be cancelled whenever others run.
            await asyncio.sleep(0)
            while True:
                try:
                    return self.blocking.read(0)
                except Timeout:
                    if deadline is not None and loop.time() >= deadline:
                        raise
                await self._readable(loop, deadline)
        finally:
            self._is_reading = False

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Frame:
        """The next frame. The end of the stream ends the iteration."""
        try:
            return await self.read()
        except EndOfStream:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Leaves the channel. A task that reads gets :class:`~rsshm.Closed`. Frames that the program has stay valid."""
        # The loop must not watch a descriptor that is closed, because another file could get its number.
        self._stop_watching()
        self.blocking.close()
        if self._waiter is not None:
            _wake(self._waiter)

    async def __aenter__(self) -> Reader:
        self.blocking.__enter__()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rsshm.aio.Reader of {self.blocking.name}>"

    async def _readable(self, loop: asyncio.AbstractEventLoop, deadline: Optional[float]) -> None:
        """Waits until the descriptor is readable, or the time has passed, or the reader is closed."""
        waiter = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _wake, waiter)
        self._waiter = waiter
        try:
            # The descriptor is watched only during a wait, because it is readable as long as a frame waits. Otherwise, the
            # loop would call the callback all the time while the program does something else.
            descriptor = self.blocking.fileno()
            loop.add_reader(descriptor, _wake, waiter)
            self._watched = loop, descriptor
            await waiter
        finally:
            self._waiter = None
            self._stop_watching()
            if timer is not None:
                timer.cancel()

    def _stop_watching(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            loop, descriptor = watched
            loop.remove_reader(descriptor)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
