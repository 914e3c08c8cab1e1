# SPDX-License-Identifier: MIT OR Apache-2.0
"""The writer of a channel, for pictures as arrays, or for bytes of any other format."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, Optional, Sequence, Tuple, Type

import numpy

from . import caps as _caps
from ._channel import Channel, Format
from ._libc import monotonic_ns
from ._slots import WriterSegment
from .caps import Layout, Rate
from .errors import BadOption, FormatError, Released
from .frame import Array
from .layout import TIME_NONE, FrameDescriptor


class Slot:
    """A slot to draw a frame into. ``with writer.buffer() as slot:`` publishes it at the end, unless an error is raised.

    A published slot belongs to the readers, so the arrays of the slot are then read-only.
    Arrays that you derived from these arrays are still writable, so do not keep them.
    """

    def __init__(self, writer: Writer, size: int, layout: Optional[Layout]) -> None:
        self._writer = writer
        self._layout = layout
        self._size = size
        self.pts_ns: Optional[int] = None
        """Time at which the picture was taken, in nanoseconds of CLOCK_MONOTONIC. None means the time of publishing."""
        self.duration_ns: Optional[int] = None
        """Duration of the frame in nanoseconds. None means one period of ``fps``."""
        self.flags = 0
        """GstBufferFlags."""
        self.seq: Optional[int] = None
        """The seq of the frame. None before it is published, and if it was dropped because readers held every slot."""
        self._done = False
        # Do this before the frame is drawn, because work after drawing adds to the latency.
        self._descriptor = writer._describe(size, layout)
        self._duration: int = self._descriptor.duration
        self._owner: Optional[WriterSegment] = None
        self._index = 0
        claim = writer._channel.claim(size)
        if claim is None:
            # Without a slot, the program draws into this memory. If a slot is free when the frame is published, the
            # frame is copied into it.
            self._exporter: Any = bytearray(size)
        else:
            self._index = claim.index
            self._owner, self._exporter = writer._channel.begin(claim, self._descriptor)
        self._arrays: Optional[Tuple[Array, ...]] = None
        self._data: Optional[Array] = None

    @property
    def planes(self) -> Tuple[Array, ...]:
        """A writable array for each plane."""
        self._check_open()
        if self._layout is None:
            raise FormatError("these frames are not raw pictures: write to slot.data")
        if self._arrays is None:
            self._arrays = tuple(plane.array(self._exporter) for plane in self._layout.planes)
        return self._arrays

    @property
    def array(self) -> Array:
        """The picture as a writable array. A format with several planes has :attr:`planes` instead."""
        self._check_open()
        if self._layout is None:
            return self.data
        if len(self._layout.planes) > 1:
            raise FormatError(f"{self._layout.format} has several planes: draw into slot.planes")
        return self.planes[0]

    @property
    def data(self) -> Array:
        """The bytes of the slot, as a writable array."""
        self._check_open()
        if self._data is None:
            self._data = numpy.frombuffer(self._exporter, numpy.uint8, self._size)
        return self._data

    def publish(self) -> Optional[int]:
        """Publishes the frame. Returns its seq, or None if it was dropped because readers held every slot."""
        self._check_open()
        self._done = True
        try:
            self.seq = self._writer._publish(self)
        finally:
            # Do this after publishing, because readers wait for the frame.
            for array in (*(self._arrays or ()), *(() if self._data is None else (self._data,))):
                array.setflags(write=False)
        self._let_go()
        return self.seq

    def discard(self) -> None:
        """Discards the slot without publishing it."""
        self._done = True
        self._let_go()

    def _let_go(self) -> None:
        # Arrays that the program still has keep the slot; this object does not.
        self._exporter = self._owner = self._arrays = self._data = None

    def _check_open(self) -> None:
        if self._done:
            raise Released("the slot was published or discarded: get another with writer.buffer()")

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._done:
            return
        if kind is None:
            self.publish()
        else:
            self.discard()


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
        # Set the format before the channel is taken, so that an error in the format is reported first.
        self.set_format(shape, dtype, format, fps, caps=caps, frame_size=frame_size)
        self._channel = Channel(name, perms, max_slots, lossless)
        # This also closes the channel at the end of the program, before Python stops the service thread at an arbitrary point.
        self._finalizer = weakref.finalize(self, self._channel.close)
        self._apply_format()
        self.dropped = 0
        """Number of frames dropped because readers held every slot."""

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
        self._format = format
        self._dtype = dtype
        if caps is not None:
            if not isinstance(caps, str) or frame_size < 0:
                raise BadOption("caps must be a text, and frame_size must not be below 0")
            _caps.check(caps)
            self._caps, self._layout, self._frame_size = caps, None, frame_size
        elif shape is not None:
            self._set_layout(_caps.layout_for_array(format, shape, dtype, self._stride_align))
        else:
            _caps.layout_for_array(format, (1, 1), dtype)
            self._caps = self._layout = None
        if hasattr(self, "_channel"):
            self._apply_format()

    def _set_layout(self, layout: Layout) -> None:
        self._layout = layout
        self._frame_size = layout.size
        self._caps = _caps.raw_video(layout, self._fps)

    def _apply_format(self) -> None:
        if self._caps is not None:
            self._channel.set_format(Format(self._caps, self._frame_size))

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._channel.name.text

    @property
    def caps(self) -> Optional[_caps.Caps]:
        """The format. None until the first picture sets it."""
        return None if self._caps is None else _caps.parse(self._caps)

    @property
    def readers(self) -> int:
        """Number of attached readers that are alive. Observers are not counted."""
        return self._channel.readers

    @property
    def published(self) -> int:
        """Number of frames published."""
        return self._channel.published

    @property
    def latency_ns(self) -> int:
        """The maximum time from the ``pts_ns`` of a frame until it is published, in nanoseconds. 0 means at once.

        GStreamer's video sinks delay all frames by this time.
        """
        return self._channel.latency_ns

    @latency_ns.setter
    def latency_ns(self, latency_ns: int) -> None:
        self._channel.latency_ns = latency_ns

    def key_frame_wanted(self) -> bool:
        """Whether readers have requested a keyframe since the last call. Encoders need this."""
        wanted, self._channel.key_frame_wanted = self._channel.key_frame_wanted, False
        return wanted

    def wait_for_reader(self, timeout: Optional[float] = None) -> bool:
        """Waits until a reader is attached. False if none came in time."""
        self._require_format()
        return self._channel.wait_for_reader(self._frame_size, timeout)

    def buffer(self, size: Optional[int] = None) -> Slot:
        """A slot to draw the next frame into. ``size``: size of the frame, if frames differ in size."""
        self._channel._check_open()
        self._require_format()
        if size is None:
            size = self._frame_size
        if size <= 0 or (self._frame_size and size != self._frame_size):
            wanted = f"frames of this channel have {self._frame_size} bytes" if self._frame_size else "give its size"
            raise FormatError(f"channel {self.name}: a frame cannot have {size} bytes; {wanted}")
        return Slot(self, size, self._layout)

    def write(
        self, picture: Any, pts_ns: Optional[int] = None, duration_ns: Optional[int] = None, flags: int = 0
    ) -> Optional[int]:
        """Copies a picture into the channel. Returns its seq, or None if it was dropped because readers held every slot.

        The picture is an array or, for a format with several planes, also a list of planes.
        If the channel was created with ``caps``, the picture is an object of bytes.
        """
        self._channel._check_open()
        if self._caps is None:
            self._set_layout(_caps.infer_layout(self._format, picture, self._dtype, self._stride_align))
            self._apply_format()
        if self._layout is not None:
            planes = _caps.as_planes(self._layout, picture)
            slot = self.buffer()
            for target, plane in zip(slot.planes, planes):
                target[...] = plane
        else:
            try:
                data = numpy.frombuffer(picture, numpy.uint8)
            except (TypeError, ValueError, BufferError) as error:
                raise FormatError(f"channel {self.name}: a frame of this channel must be bytes: {error}") from None
            slot = self.buffer(data.size)
            slot.data[:] = data
        slot.pts_ns, slot.duration_ns, slot.flags = pts_ns, duration_ns, flags
        return slot.publish()

    def _require_format(self) -> None:
        if self._caps is None:
            raise FormatError(f"channel {self.name}: the shape is unknown before the first write; pass shape to Writer")

    def _describe(self, size: int, layout: Optional[Layout]) -> FrameDescriptor:
        """The descriptor of a frame without its times."""
        descriptor = FrameDescriptor(dts=TIME_NONE, duration=self._duration(), size=size)
        descriptor.offset = descriptor.offset_end = TIME_NONE
        if layout is not None and self._stride_align != 4:
            descriptor.planes = len(layout.planes)
            for index, plane in enumerate(layout.planes):
                descriptor.plane_offset[index] = plane.offset
                descriptor.plane_stride[index] = plane.stride
        return descriptor

    def _publish(self, slot: Slot) -> Optional[int]:
        pts = monotonic_ns() if slot.pts_ns is None else slot.pts_ns
        duration = slot._duration if slot.duration_ns is None else slot.duration_ns
        seq = None
        if slot._owner is not None:
            seq = self._channel.publish(slot._owner, slot._index, pts, duration, slot.flags)
        if seq is None and slot._layout == self._layout:
            seq = self._publish_copy(slot, pts, duration)
        if seq is None:
            self.dropped += 1
            # Skip a seq, so that readers notice that a frame is missing.
            self._channel.pass_over()
        return seq

    def _publish_copy(self, slot: Slot, pts: int, duration: int) -> Optional[int]:
        """Publishes a frame that was drawn outside a slot, or in a slot of a segment that has been replaced."""
        while True:
            claim = self._channel.claim(slot._size)
            if claim is None:
                return None
            owner, exporter = self._channel.begin(claim, slot._descriptor)
            memoryview(exporter).cast("B")[:] = memoryview(slot._exporter).cast("B")
            seq = self._channel.publish(owner, claim.index, pts, duration, slot.flags)
            if seq is not None or owner.segment.caps != self._caps:
                return seq

    def _duration(self) -> int:
        return TIME_NONE if self._fps == 0 else round(10**9 / self._fps)

    def end_stream(self) -> None:
        """Ends the stream: readers end after the last frame. Another stream may follow."""
        self._channel.end_of_stream()

    def close(self) -> None:
        """Closes the channel, and removes its files."""
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
