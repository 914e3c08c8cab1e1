# SPDX-License-Identifier: MIT OR Apache-2.0
"""The writer of a channel, for pictures as arrays, or for bytes of any other format."""

from __future__ import annotations

import ctypes
import time
import weakref
from types import TracebackType
from typing import Any, Callable, Optional, Sequence, Type

import numpy

from . import _library, _signals
from . import caps as _caps
from ._library import PlaneData, SlotInfo, WriterOptions, WriterStats
from ._memory import Array, Memory
from .caps import Layout, Rate
from .errors import BadOption, Closed, FormatError
from .frame import Metadata
from .slot import FrameDescription, Slot


class _Channel:
    """A channel that this process writes. It can be closed when its Writer is gone, and by a signal."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        _signals.add(self)

    def close(self) -> None:
        # In a forked child, the library does nothing here, because the channel belongs to the parent.
        _library.writer_close(self.handle)
        _signals.discard(self)


class Writer:
    """Writes a channel.

    >>> with rsshm.Writer("cam0", shape=(480, 640, 3), format="BGR", fps=30) as writer:
    ...     writer.write(picture)                    # copies once
    ...     with writer.buffer() as slot:            # draws in place
    ...         slot.array[:] = 128

    ``shape``: (height, width), with or without the channels of the format. None means the shape of the first picture.
    ``dtype``: type of the arrays. It is only checked against the format.
    ``format``: GStreamer's name of a raw format (:data:`rsshm.FORMATS`).
    ``fps``: frames per second, as information for the readers. 29.97 means 30000/1001.
    ``perms``: mode of the segment. 0o600 is for this user, 0o644 lets others observe, 0o660 lets the group attach fully.
    ``lossless``: wait for the slowest attached reader, so that it misses no frame.
    ``caps``: GStreamer's caps of any other format (``"image/jpeg,width=640,height=480"``), instead of shape and format.
    Frames are then bytes.
    ``frame_size``: size of these frames; 0 if they differ in size.
    ``max_slots``: the most slots of the channel, 3 to 64. 0 chooses the number by the free memory.
    ``stride_align``: rows begin at multiples of this number of bytes.

    ``with`` ends the stream for the readers if its body raises no error. After :meth:`close` alone, readers wait for the
    next writer. Both remove the files of the channel.
    """

    def __init__(
        self,
        name: str,
        shape: Optional[Sequence[int]] = None,
        dtype: Any = None,
        format: str = "BGR",
        fps: Rate = None,
        perms: int = 0o600,
        lossless: bool = False,
        *,
        caps: Optional[str] = None,
        frame_size: int = 0,
        max_slots: int = 0,
        stride_align: int = 4,
    ) -> None:
        self._stride_align = _check_align(stride_align)
        self._layout: Optional[Layout] = None
        self._caps: Optional[str] = None
        self._frame_size = 0
        self._channel: Optional[_Channel] = None
        # Set the format before the channel is taken, so that an error in the format is reported first.
        self.set_format(shape, dtype, format, fps, caps=caps, frame_size=frame_size)
        if not 0o600 <= perms <= 0o777 or perms & 0o600 != 0o600:
            raise BadOption(
                f"channel {name}: perms is {perms:#o}, not 0o600 to 0o777 with read and write permission for the owner"
            )
        if max_slots != 0 and not 3 <= max_slots <= 64:
            raise BadOption(f"channel {name}: max_slots is {max_slots}, not 0 (automatic) or 3 to 64")
        self._name = name
        self._latency_ns = 0
        self._last = WriterStats()
        """The counts at the close."""
        options = WriterOptions(
            flags=_library.SPARE | _library.LOSSLESS * bool(lossless),
            perms=perms,
            max_slots=max_slots,
            stride_align=stride_align,
            max_wait_ns=_library.wait_ns(None),
        )
        self._handle = _library.open_handle(_library.writer_open, name, options)
        self._channel = _Channel(self._handle)
        # This also closes the channel at the end of the program.
        self._finalizer = weakref.finalize(self, self._channel.close)
        self._apply_format()

    def set_format(
        self,
        shape: Optional[Sequence[int]] = None,
        dtype: Any = None,
        format: str = "BGR",
        fps: Rate = None,
        *,
        caps: Optional[str] = None,
        frame_size: int = 0,
    ) -> None:
        """Changes the format from the next frame on; readers follow. The arguments are those of the class."""
        self._fps = _caps.fraction_of(fps)
        self._period = _library.TIME_NONE if self._fps == 0 else round(10**9 / self._fps)
        self._format = format
        self._dtype = dtype
        if caps is not None:
            if not isinstance(caps, str) or frame_size < 0:
                raise BadOption("caps must be a text, and frame_size must not be below 0")
            _caps.check(caps)
            layout = _caps.parse(caps).layout
            if layout is not None and frame_size == 0:
                frame_size = _caps.layout_of(layout.format, layout.width, layout.height, self._stride_align).size
            self._caps, self._layout, self._frame_size = caps, None, frame_size
        elif shape is not None:
            self._set_layout(_caps.layout_for_array(format, shape, dtype, self._stride_align))
        else:
            _caps.layout_for_array(format, (1, 1), dtype)
            self._caps = self._layout = None
        if self._channel is not None:
            self._apply_format()

    def _set_layout(self, layout: Layout) -> None:
        self._layout = layout
        self._frame_size = layout.size
        info = _library.video_layout(layout.format, layout.width, layout.height, self._stride_align)
        self._has_exact_rows = all(
            info.planes[index].row_bytes == plane.row_bytes for index, plane in enumerate(layout.planes)
        )
        """Whether a row in the channel is as long as a row of the array. If two pixels share their chroma, a row in the
        channel has an even number of pixels."""
        self._caps = _caps.raw_video(layout, self._fps)

    def _apply_format(self) -> None:
        if self._caps is not None:
            self._check(_library.writer_caps(self._handle, self._caps.encode(), self._frame_size))

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def caps(self) -> Optional[_caps.Caps]:
        """The format. None until the first picture sets it."""
        return None if self._caps is None else _caps.parse(self._caps)

    @property
    def readers(self) -> int:
        """Number of attached readers that are alive. Observers are not counted."""
        return self._check(_library.writer_readers(self._handle)) if self._finalizer.alive else 0

    @property
    def published(self) -> int:
        """Number of frames published."""
        return int(self._stats().published)

    @property
    def dropped(self) -> int:
        """Number of frames dropped because readers held every slot."""
        return int(self._stats().dropped)

    @property
    def evicted(self) -> int:
        """Number of readers evicted because they held more slots than their quota."""
        return int(self._stats().evicted)

    @property
    def latency_ns(self) -> int:
        """The maximum time from the ``pts_ns`` of a frame until it is published, in nanoseconds. 0 means at once.

        GStreamer's video sinks delay all frames by this time.
        """
        return self._latency_ns

    @latency_ns.setter
    def latency_ns(self, latency_ns: int) -> None:
        if not 0 <= latency_ns < _library.TIME_NONE:
            raise BadOption(f"channel {self.name}: latency_ns is {latency_ns}, not a time in nanoseconds")
        self._check(_library.writer_set_latency(self._handle, latency_ns))
        self._latency_ns = latency_ns

    def key_frame_wanted(self) -> bool:
        """Whether readers have requested a keyframe since the last call. Encoders need this."""
        return self._check(_library.writer_keyframe_wanted(self._handle)) == 1

    def wait_for_reader(self, timeout: Optional[float] = None) -> bool:
        """Waits until a reader is attached. False if none came in time."""
        self._require_format()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._check(_library.writer_wait_for_reader(self._handle, _library.wait_ns(deadline))) == _library.OK:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def buffer(self, size: Optional[int] = None) -> Slot:
        """A slot to draw the next frame into. ``size``: size of the frame, if frames differ in size."""
        self._check_open()
        self._require_format()
        # 0 means the size that the caps have. If frames of these caps differ in size, the library refuses it.
        return Slot(self, self._frame_size if size is None else self._checked_size(size), self._layout)

    def write(
        self,
        picture: Any,
        pts_ns: Optional[int] = None,
        duration_ns: Optional[int] = None,
        flags: int = 0,
        metadata: Sequence[Metadata] = (),
    ) -> Optional[int]:
        """Copies a picture into the channel. Returns its seq, or None if it was dropped because readers held every slot.

        The picture is an array or, for a format with several planes, also a list of planes.
        If the channel was created with ``caps``, the picture is an object of bytes.
        ``metadata``: records that go with the picture, such as those in :attr:`Frame.metadata <rsshm.Frame.metadata>`.
        """
        self._check_open()
        info = FrameDescription(self)
        info.describe(self, pts_ns, duration_ns, flags, metadata)
        if self._caps is None:
            self._set_layout(_caps.infer_layout(self._format, picture, self._dtype, self._stride_align))
            self._apply_format()
        if self._layout is None:
            try:
                data = numpy.frombuffer(picture, numpy.uint8)
            except (TypeError, ValueError, BufferError) as error:
                raise FormatError(f"channel {self.name}: a frame of this channel must be bytes: {error}") from None
            size = self._checked_size(data.size)
            return self._send(_library.writer_write_bytes, _address(data), size, info)
        if not self._has_exact_rows:
            with self.buffer() as slot:
                slot.pts_ns, slot.duration_ns, slot.flags, slot.metadata = pts_ns, duration_ns, flags, metadata
                for target, array in zip(slot.planes, _caps.as_planes(self._layout, picture)):
                    target[...] = array
            return slot.seq
        arrays = [_as_rows(array, plane) for array, plane in zip(_caps.as_planes(self._layout, picture), self._layout.planes)]
        planes = (PlaneData * len(arrays))(*(PlaneData(_address(array), array.strides[0]) for array in arrays))
        return self._send(_library.writer_write, planes, len(arrays), info)

    def _send(self, function: Callable[..., int], data: Any, count: int, info: FrameDescription) -> Optional[int]:
        """Calls a function of the library that publishes a frame, until the frame is published or dropped."""
        while True:
            status = self._check(function(self._handle, data, count, info.pointer))
            # The other results mean that a lossless writer goes on waiting.
            if status == _library.OK or status == _library.DROPPED:
                return info.seq.value or None

    def _claim(self, size: int) -> Memory:
        """The memory of a claimed slot or, if readers hold all slots, memory from which the publish copies the frame."""
        memory, info = Memory(_library.slot_release, writable=True), SlotInfo()
        while True:
            status = _library.writer_claim(self._handle, size, ctypes.byref(memory.handle), ctypes.byref(info))
            if self._check(status) == _library.OK:
                memory.address, memory.size = info.data, info.size
                return memory

    def _checked_size(self, size: int) -> int:
        if size <= 0 or (self._frame_size and size != self._frame_size):
            wanted = f"frames of this channel have {self._frame_size} bytes" if self._frame_size else "give its size"
            raise FormatError(f"channel {self.name}: a frame cannot have {size} bytes; {wanted}")
        return size

    def _require_format(self) -> None:
        if self._caps is None:
            raise FormatError(f"channel {self.name}: the shape is unknown before the first write; pass shape to Writer")

    def _check(self, status: int) -> int:
        if status < 0:
            self._check_open()
        return _library.check(status, self._name)

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise Closed(f"channel {self.name}: this writer is closed")

    def _stats(self) -> WriterStats:
        stats = WriterStats()
        if not self._finalizer.alive or _library.writer_get_stats(self._handle, ctypes.byref(stats)) < 0:
            return self._last
        return stats

    def end_stream(self) -> None:
        """Ends the stream: readers end after the last frame. Another stream may follow."""
        self._check(_library.writer_end_of_stream(self._handle))

    def close(self) -> None:
        """Closes the channel, and removes its files."""
        if self._finalizer.alive:
            self._last = self._stats()
            self._finalizer()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if kind is None and self._finalizer.alive:
                self.end_stream()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else ", closed"
        return f"<rsshm.Writer of {self.name}, {self._caps or 'no format yet'}{state}>"


def _check_align(align: int) -> int:
    if align not in (1 << bits for bits in range(2, 13)):
        raise BadOption(f"stride_align is {align!r}, not a power of 2 from 4 to 4096")
    return align


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _as_rows(array: Array, plane: _caps.Plane) -> Array:
    """The array, or a copy of it if its rows are not contiguous or share memory."""
    if array.strides[1:] == plane.strides[1:] and abs(array.strides[0]) >= plane.row_bytes:
        return array
    return numpy.ascontiguousarray(array)
