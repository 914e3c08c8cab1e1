"""The writer of a channel: pictures as arrays, or bytes of any other format."""

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
    """A slot to draw a frame into. ``with writer.buffer() as slot:`` publishes it at the end, unless an error ends it.

    Once it is published readers have it, and nobody may draw into it any more: the arrays taken from it cannot be written
    to from then on. Arrays derived from those still could: do not keep them.
    """

    def __init__(self, writer: Writer, size: int, layout: Optional[Layout]) -> None:
        self._writer = writer
        self._layout = layout
        self._size = size
        self.pts_ns: Optional[int] = None
        """When the picture was taken, in nanoseconds of CLOCK_MONOTONIC; None: when it is published."""
        self.duration_ns: Optional[int] = None
        self.flags = 0
        """GstBufferFlags."""
        self.seq: Optional[int] = None
        """The frame's number once it is published; None too where readers held every slot, and it was dropped."""
        self._done = False
        # Before the frame is drawn, as all that comes after is its latency.
        self._descriptor = writer._describe(size, layout)
        self._duration: int = self._descriptor.duration
        self._owner: Optional[WriterSegment] = None
        self._index = 0
        claim = writer._channel.claim(size)
        if claim is None:
            # Somewhere to draw, so that the caller need not care; it is copied should there be a slot by then.
            self._exporter: Any = bytearray(size)
        else:
            self._index = claim.index
            self._owner, self._exporter = writer._channel.begin(claim, self._descriptor)
        self._arrays: Optional[Tuple[Array, ...]] = None
        self._data: Optional[Array] = None

    @property
    def planes(self) -> Tuple[Array, ...]:
        """Each plane, to be drawn into."""
        self._check_open()
        if self._layout is None:
            raise FormatError("these frames are no raw picture: write into data")
        if self._arrays is None:
            self._arrays = tuple(plane.array(self._exporter) for plane in self._layout.planes)
        return self._arrays

    @property
    def array(self) -> Array:
        """The picture, to be drawn into; of a format with several planes there are :attr:`planes`."""
        self._check_open()
        if self._layout is None:
            return self.data
        if len(self._layout.planes) > 1:
            raise FormatError(f"{self._layout.format} has several planes: draw into slot.planes")
        return self.planes[0]

    @property
    def data(self) -> Array:
        """The slot's bytes."""
        self._check_open()
        if self._data is None:
            self._data = numpy.frombuffer(self._exporter, numpy.uint8, self._size)
        return self._data

    def publish(self) -> Optional[int]:
        """Publishes the frame: its number, or None where readers held every slot, and it was dropped."""
        self._check_open()
        self._done = True
        try:
            self.seq = self._writer._publish(self)
        finally:
            # Not before: readers wait for the frame.
            for array in (*(self._arrays or ()), *(() if self._data is None else (self._data,))):
                array.setflags(write=False)
        self._let_go()
        return self.seq

    def discard(self) -> None:
        """Gives the slot up unpublished."""
        self._done = True
        self._let_go()

    def _let_go(self) -> None:
        # What the program still has of it keeps the slot, and this does not.
        self._exporter = self._owner = self._arrays = self._data = None

    def _check_open(self) -> None:
        if self._done:
            raise Released("the slot was published or given up: take another with writer.buffer()")

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

    ``shape``: (height, width), with the format's channels behind it or not; None: that of the first picture written.
    ``format``: GStreamer's name of a raw format (:data:`rsshm.FORMATS`). ``fps``: for those who read, 29.97 means 30000/1001.
    ``perms``: mode of the segment: 0o600, 0o644 lets others observe, 0o660 lets the group attach fully.
    ``lossless``: wait for the slowest attached reader rather than let it miss a frame.
    ``caps``: instead of shape and format, GStreamer's caps of anything else (``"image/jpeg,width=640,height=480"``); then
    frames are bytes, of ``frame_size`` each, or of any size.
    ``stride_align``: rows begin at multiples of so many bytes.

    ``with`` ends the stream for the readers when its body ends without an error; :meth:`close` alone does not, and readers
    wait for the next writer. Both remove the channel.
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
        # Before the channel is taken: what is wrong with the format is said first.
        self.set_format(shape, dtype, format, fps, caps=caps, frame_size=frame_size)
        self._channel = Channel(name, perms, max_slots, lossless)
        # At the program's end too, and before the monitor's thread is stopped in mid-air.
        self._finalizer = weakref.finalize(self, self._channel.close)
        self._apply_format()
        self.dropped = 0
        """Frames for which there was no slot, as readers held them all."""

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
        """Another format from the next frame on; readers follow. As the arguments of the class."""
        self._fps = _caps.fraction_of(fps)
        self._format = format
        self._dtype = dtype
        if caps is not None:
            if "\0" in caps or not caps.strip() or frame_size < 0:
                raise BadOption("caps are a text, and a frame has no less than 0 bytes")
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
        """The format; None while that waits for the first picture."""
        return None if self._caps is None else _caps.parse(self._caps)

    @property
    def readers(self) -> int:
        """Readers attached and alive; observers are not among them."""
        return self._channel.readers

    @property
    def published(self) -> int:
        """Frames published."""
        return self._channel.published

    @property
    def latency_ns(self) -> int:
        """How long after its ``pts_ns`` a frame leaves, at the most; GStreamer's displays wait for it. 0 for frames that
        are published at once."""
        return self._channel.latency_ns

    @latency_ns.setter
    def latency_ns(self, latency_ns: int) -> None:
        self._channel.latency_ns = latency_ns

    def key_frame_wanted(self) -> bool:
        """Whether readers have asked for a frame that can be decoded alone since the last look; for encoders."""
        wanted, self._channel.key_frame_wanted = self._channel.key_frame_wanted, False
        return wanted

    def wait_for_reader(self, timeout: Optional[float] = None) -> bool:
        """Waits until a reader is attached; False when the time is over."""
        self._require_format()
        return self._channel.wait_for_reader(self._frame_size, timeout)

    def buffer(self, size: Optional[int] = None) -> Slot:
        """A slot to draw the next frame into; ``size`` bytes of it where frames differ in size."""
        self._channel._check_open()
        self._require_format()
        if size is None:
            size = self._frame_size
        if size <= 0 or (self._frame_size and size != self._frame_size):
            raise FormatError(
                f"channel {self.name}: a frame of {size} bytes, the channel's have {self._frame_size or 'a size each'}"
            )
        return Slot(self, size, self._layout)

    def write(
        self, picture: Any, pts_ns: Optional[int] = None, duration_ns: Optional[int] = None, flags: int = 0
    ) -> Optional[int]:
        """Copies a picture into the channel: its number, or None where readers held every slot, and it was dropped.

        An array, of a format with several planes also a list of planes; where the channel has caps of another kind, bytes.
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
                raise FormatError(f"channel {self.name}: a frame is bytes here, and this is none: {error}") from None
            slot = self.buffer(data.size)
            slot.data[:] = data
        slot.pts_ns, slot.duration_ns, slot.flags = pts_ns, duration_ns, flags
        return slot.publish()

    def _require_format(self) -> None:
        if self._caps is None:
            raise FormatError(f"channel {self.name}: the shape is not known before the first write; give Writer a shape")

    def _describe(self, size: int, layout: Optional[Layout]) -> FrameDescriptor:
        """What goes with a frame, but for its times."""
        descriptor = FrameDescriptor(dts=TIME_NONE, duration=self._duration(), offset=TIME_NONE, offset_end=TIME_NONE, size=size)
        if layout is not None and self._stride_align != 4:
            descriptor.planes = len(layout.planes)
            for index, plane in enumerate(layout.planes):
                descriptor.plane_offset[index] = plane.offset
                descriptor.plane_stride[index] = plane.stride
        return descriptor

    def _publish(self, slot: Slot) -> Optional[int]:
        pts = monotonic_ns() if slot.pts_ns is None else slot.pts_ns
        duration = slot._duration if slot.duration_ns is None else slot.duration_ns
        number = None
        if slot._owner is not None:
            number = self._channel.publish(slot._owner, slot._index, pts, duration, slot.flags)
        if number is None and slot._layout == self._layout:
            number = self._publish_copy(slot, pts, duration)
        if number is None:
            self.dropped += 1
            # So that readers know that one is missing.
            self._channel.pass_over()
        return number

    def _publish_copy(self, slot: Slot, pts: int, duration: int) -> Optional[int]:
        """Publishes what was drawn outside a slot, or into one of a segment that was replaced meanwhile."""
        while True:
            claim = self._channel.claim(slot._size)
            if claim is None:
                return None
            owner, exporter = self._channel.begin(claim, slot._descriptor)
            memoryview(exporter).cast("B")[:] = memoryview(slot._exporter).cast("B")
            number = self._channel.publish(owner, claim.index, pts, duration, slot.flags)
            if number is not None or owner.segment.caps != self._caps:
                return number

    def _duration(self) -> int:
        return TIME_NONE if self._fps == 0 else round(10**9 / self._fps)

    def end_stream(self) -> None:
        """Ends the stream: readers end after the last frame. Another may follow."""
        self._channel.end_of_stream()

    def close(self) -> None:
        """Ends the channel, and removes its files."""
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
        raise BadOption(f"stride_align is {align!r}, it may be a power of 2 from 4 to 4096")
    return align
