# SPDX-License-Identifier: MIT OR Apache-2.0
"""The reader: it follows a channel from writer to writer, and returns the frames in order."""

from __future__ import annotations

import ctypes
import time
import warnings
from types import TracebackType
from typing import Any, Callable, Iterator, NamedTuple, Optional, Type, Union

from . import _library, caps
from ._library import ReaderOptions, ReaderStats
from ._stream import Stream
from .errors import BadOption, Closed, EndOfStream, Timeout
from .frame import Frame

_DEFAULT = object()


class Event(NamedTuple):
    """Something that happens between two frames, such as the tags of a stream."""

    kind: int
    """1: a stream begins. 2: tags. 3: a gap. 4 and 5: any other event of GStreamer. docs/PROTOCOL.md has more kinds."""
    time_ns: Optional[int]
    """When the event happens, in nanoseconds of CLOCK_MONOTONIC."""
    duration_ns: Optional[int]
    """How long it lasts."""
    data: bytes
    """The bytes of the event."""
    text: str
    """The text in the bytes, as GStreamer writes it. It is empty if the kind has none."""


class Reader:
    """Reads a channel.

    >>> with rsshm.Reader("cam0") as reader:
    ...     for frame in reader:
    ...         print(frame.seq, frame.array.mean())

    The channel need not exist yet. The reader follows the channel if its writer dies, restarts, or changes the format.
    Each frame is in place, without a copy, unless the program keeps too many frames at a time. Small frames that share a slot
    are copied too.

    ``timeout``: seconds that :meth:`read` waits before it raises :class:`~rsshm.Timeout`. None waits forever.
    ``latest``: always read the newest frame, and skip older frames. By default, read every frame that the channel still has.
    ``max_held``: how many frames the program may keep in place. More frames are copied.
    ``read_only``: only observe. The reader then writes nothing to the channel, but each frame is copied.
    A reader also only observes if the permissions forbid more, or if 64 readers are attached. :attr:`observing` says why.
    ``on_event``: a function that :meth:`read` calls with each :class:`~rsshm.Event` between two frames.

    Only one thread at a time may read, but any thread may call :meth:`close`.
    """

    def __init__(
        self,
        name: str,
        timeout: Optional[float] = None,
        latest: bool = False,
        max_held: int = 4,
        read_only: bool = False,
        *,
        on_event: Optional[Callable[[Event], Any]] = None,
    ) -> None:
        self._handle = 0
        self._name = name
        self._check_timeout(timeout)
        if not isinstance(max_held, int) or not 0 <= max_held < 1 << 31:
            raise BadOption(f"channel {name}: max_held is {max_held!r}, not a number of frames")
        self.timeout = timeout
        self._latest = latest
        self.on_event = on_event
        self._closed = False
        self._stream = Stream()
        self._last: Optional[bytes] = None
        """What the library stored about the last frame."""
        self._last_stats = ReaderStats()
        """The counts at the close."""
        kinds = ((_library.READ_ONLY, read_only), (_library.COPY, max_held == 0), (_library.EVENTS, on_event is not None))
        flags = sum(flag for flag, is_set in kinds if is_set)
        options = ReaderOptions(flags=flags, max_behind=1 if latest else 0, max_held=max_held)
        self._handle = _library.open_handle(_library.reader_open, name, options)

    # The public interface.

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def latest(self) -> bool:
        """Whether the reader always reads the newest frame."""
        return self._latest

    @property
    def caps(self) -> caps.Caps:
        """The format of the last frame returned."""
        return self._stream.caps

    @property
    def connected(self) -> bool:
        """Whether the reader is attached to the segment of a writer."""
        return bool(self._stats().connected)

    @property
    def received(self) -> int:
        """Number of frames returned."""
        return int(self._stats().received)

    @property
    def copied(self) -> int:
        """Number of returned frames that are copies."""
        return int(self._stats().copied)

    @property
    def missed(self) -> int:
        """Number of frames that were lost or skipped."""
        return int(self._stats().missed)

    @property
    def reconnects(self) -> int:
        """How often the reader followed the channel to another writer or segment."""
        return int(self._stats().reconnects)

    @property
    def latency_ns(self) -> int:
        """The writer's latency: the time from the ``pts_ns`` of a frame until it is published, in nanoseconds."""
        return int(self._stats().latency_ns)

    @property
    def observing(self) -> Optional[str]:
        """The reason why this reader has no reader entry and copies each frame. None if it has a reader entry."""
        text = _library.reader_observing(self._handle)
        return text.decode() if text else None

    def read(self, timeout: Union[float, None, object] = _DEFAULT) -> Frame:
        """Waits for the next frame, and returns it.

        Raises :class:`~rsshm.Timeout` if no frame came in time, and :class:`~rsshm.EndOfStream` if the writer ended the
        stream. Raises :class:`~rsshm.Denied` if this user may not read the channel, and :class:`~rsshm.Damaged` if the
        channel's segment is not valid.
        """
        patience: Any = self.timeout if timeout is _DEFAULT else timeout
        self._check_timeout(patience)
        deadline = None if patience is None else time.monotonic() + patience
        # Made before the wait, so that it does not delay the frame.
        frame = Frame(self._stream, self._last)
        memory = frame._held()
        handle, info = ctypes.byref(memory.handle), ctypes.byref(frame._stored)
        while True:
            status = _library.reader_next(self._handle, _library.wait_ns(deadline), handle, info)
            if status == _library.OK:
                frame._arrive(memory)
                self._stream, self._last = frame._stream, frame._raw
                return frame
            self._between(status, deadline is not None and time.monotonic() >= deadline)

    def _between(self, status: int, is_late: bool) -> None:
        """Handles what the library returned in place of a frame."""
        if status < 0:
            self._check_open()
            _library.check(status, self._name)
        if status == _library.EOS:
            raise EndOfStream(f"channel {self._name}: the stream ended")
        if status == _library.EVENT:
            self._report_event()
        elif status == _library.EVICTED:
            warnings.warn(
                f"channel {self._name}: the writer evicted this reader, which held more slots than its quota; frames that "
                "it still has may change. The reader attaches again",
                RuntimeWarning,
                stacklevel=3,
            )
        elif status == _library.TIMEOUT and is_late:
            if self.connected:
                raise Timeout(f"channel {self._name}: no frame came in time")
            others = ", ".join(name for name in _library.channels() if name != self._name) or "none"
            raise Timeout(f"channel {self._name}: no writer came in time (other channels: {others})")

    def _report_event(self) -> None:
        event = _library.EventRecord()
        if _library.check(_library.reader_get_event(self._handle, ctypes.byref(event))) == _library.OK and self.on_event:
            self.on_event(
                Event(
                    event.kind,
                    _library.time_or_none(event.time_ns),
                    _library.time_or_none(event.duration_ns),
                    ctypes.string_at(event.data, event.size) if event.size else b"",
                    (event.text or b"").decode(errors="replace"),
                )
            )

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames up to the end of the stream."""
        while True:
            try:
                frame = self.read()
            except EndOfStream:
                return
            yield frame
            # Drop this reference. Otherwise the frame would stay in use while the reader waits for the next frame.
            del frame

    def fileno(self) -> int:
        """A descriptor for select, poll, epoll and asyncio. While it is readable, :meth:`read` with timeout 0 returns at once.

        Do not read, write or close it: it ends with the reader. The first call starts a thread of the library.
        """
        self._check_open()
        return _library.check(_library.reader_fd(self._handle), self._name)

    def request_key_frame(self, at_ns: Optional[int] = None) -> bool:
        """Requests a keyframe of a compressed stream. False if there is no writer, or if this reader only observes.

        ``at_ns``: the keyframe is the first frame with this ``pts_ns`` or a later one. Without it, the keyframe comes as
        soon as possible.
        """
        if at_ns is not None and not 0 <= at_ns < _library.TIME_NONE:
            raise BadOption(f"at_ns is {at_ns}, not a time in nanoseconds")
        if self._closed:
            return False
        when = _library.TIME_NONE if at_ns is None else at_ns
        return _library.check(_library.reader_request_keyframe(self._handle, when), self._name) == _library.OK

    def close(self) -> None:
        """Leaves the channel. Frames that the program still has stay valid."""
        if not self._closed:
            self._last_stats = self._stats()
            self._last_stats.connected = 0
            self._closed = True
            # This also ends the wait of another thread. In a forked child, the library does nothing here.
            _library.reader_close(self._handle)

    def __enter__(self) -> Reader:
        self._check_open()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "waiting for a writer"
        return f"<rsshm.{type(self).__name__} of {self._name}, {state}>"

    def _stats(self) -> ReaderStats:
        stats = ReaderStats()
        # Another thread may close the reader meanwhile.
        if self._closed or _library.reader_get_stats(self._handle, ctypes.byref(stats)) < 0:
            return self._last_stats
        return stats

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"channel {self._name}: this reader is closed")

    def _check_timeout(self, timeout: object) -> None:
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise BadOption(f"channel {self._name}: timeout is {timeout!r}, not a number of seconds or None")


class Observer(Reader):
    """A reader that only observes: it needs read permission, writes nothing, is not counted, and copies each frame."""

    def __init__(self, name: str, timeout: Optional[float] = None, latest: bool = False) -> None:
        super().__init__(name, timeout, latest, read_only=True)
