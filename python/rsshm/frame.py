"""A frame of the channel: its bytes as arrays, and what goes with it."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import numpy

from . import layout
from .caps import Caps, Layout
from .errors import FormatError, MissingOpenCV, Released
from .layout import FrameDescriptor

Array = numpy.ndarray[Any, Any]


def _time(value: int) -> Optional[int]:
    return None if value == layout.TIME_NONE else value


def _read_only(memory: Any) -> Array:
    """The bytes, which nobody can write to through the array."""
    # By `frombuffer`, which keeps the view that cannot be written to: `numpy.ndarray` looks behind it, and would let a
    # program make its array writable.
    view = memoryview(memory).toreadonly()
    return numpy.frombuffer(view, numpy.uint8) if len(view) else numpy.empty(0, numpy.uint8)


class Frame:
    """A frame. Its arrays cannot be written to, and stay as they are for as long as any of them is there.

    Where the frame is in place, in shared memory, it keeps its slot for so long; :meth:`release` (or the end of ``with``)
    lets go of the arrays that the frame itself holds, and the slot is free when the program has let go of its own.
    """

    __slots__ = (
        "caps", "seq", "missed", "discontinuity", "in_place",
        "_described", "_descriptor_read", "_exporter", "_layout", "_picture", "__weakref__",
    )  # fmt: skip

    def __init__(self, caps: Caps, exporter: Any, in_place: bool) -> None:
        """Of these bytes, which may be made before they are those of a frame; :meth:`arrive` says which."""
        self.caps: Caps = caps
        """The format."""
        self.seq: int = 0
        """The frame's number in the channel, growing by one."""
        self.missed: int = 0
        """Frames between the last one and this that were not to be had, or were skipped."""
        self.discontinuity: bool = False
        """The first frame, or the first of another writer or format."""
        self.in_place: bool = in_place
        """Whether the bytes lie in shared memory; else they are a copy."""
        self._described = b""
        """A ``FrameDescriptor``, as it was copied."""
        self._descriptor_read: Optional[FrameDescriptor] = None
        self._exporter: Optional[Array] = _read_only(exporter)
        self._layout: Optional[Layout] = None
        self._picture: Optional[Array] = None

    def arrive(self, number: int, descriptor: bytes) -> None:
        """Makes it a frame. What was prepared goes by another descriptor of the same shape."""
        self.seq = number
        self._described = descriptor

    def prepare(self, descriptor: bytes) -> None:
        """Makes the array now that will be asked for, where it can be made."""
        self._described = descriptor
        try:
            _ = self.array
        except FormatError:
            pass
        # It goes by the time of another frame.
        self._descriptor_read = None

    def copy_out(self) -> None:
        """Copies the bytes, and keeps those in shared memory no longer."""
        self._exporter = _read_only(self._buffer().copy())
        self._picture = None
        self.in_place = False

    def __repr__(self) -> str:
        state = "released" if self._exporter is None else "in place" if self.in_place else "a copy"
        return f"<rsshm.Frame {self.seq} of {self._descriptor.size} bytes, {self.caps}, {state}>"

    def __enter__(self) -> Frame:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets go of the frame. An array that was taken from it stays good; the frame itself has none any more."""
        self._exporter = self._picture = None

    @property
    def _descriptor(self) -> FrameDescriptor:
        if self._descriptor_read is None:
            self._descriptor_read = FrameDescriptor.from_buffer_copy(self._described)
        return self._descriptor_read

    @property
    def pts_ns(self) -> Optional[int]:
        """When the picture was taken, in nanoseconds of CLOCK_MONOTONIC (``time.monotonic_ns()``)."""
        return _time(self._descriptor.pts)

    @property
    def dts_ns(self) -> Optional[int]:
        """When it is to be decoded."""
        return _time(self._descriptor.dts)

    @property
    def duration_ns(self) -> Optional[int]:
        """How long it lasts."""
        return _time(self._descriptor.duration)

    @property
    def offset(self) -> Optional[int]:
        """The producer's own count."""
        return _time(self._descriptor.offset)

    @property
    def flags(self) -> int:
        """GstBufferFlags."""
        return int(self._descriptor.flags)

    @property
    def is_key(self) -> bool:
        """Whether it can be decoded without those before it, as all frames of raw video and JPEG can."""
        return self.flags & layout.DELTA_UNIT == 0

    def _buffer(self) -> Array:
        if self._exporter is None:
            raise Released(f"frame {self.seq} was given back")
        return self._exporter

    @property
    def data(self) -> Array:
        """The frame's bytes, whatever the format is."""
        return self._buffer().view()

    @property
    def layout(self) -> Layout:
        """How the picture lies in the frame's bytes."""
        if self._layout is not None:
            return self._layout
        default = self.caps.layout
        if default is None:
            raise FormatError(f"these frames are no picture of a known raw format, there is only their data: {self.caps}")
        descriptor = self._descriptor
        count: int = descriptor.planes
        if count != 0:
            default = default.with_planes(descriptor.plane_offset[:count], descriptor.plane_stride[:count], descriptor.size)
        elif descriptor.size < default.least_size:
            raise FormatError(f"frame {self.seq} of {descriptor.size} bytes is no picture of {default.size}: {self.caps}")
        self._layout = default
        return default

    @property
    def planes(self) -> Tuple[Array, ...]:
        """Each plane: of NV12 the luma (height, width) and the chroma (height/2, width/2, 2), of I420 three planes, of BGR
        the picture."""
        buffer = self._buffer()
        return tuple(plane.array(buffer) for plane in self.layout.planes)

    @property
    def array(self) -> Array:
        """The picture: (height, width, channels), or (height, width) where there is one. NV12, I420, P010 and the like are
        one array of height * 3/2 rows, as OpenCV takes them. What is no picture is its bytes."""
        if self._picture is None:
            self._picture = self._make_array()
        return self._picture

    def _make_array(self) -> Array:
        if self.caps.layout is None and self.caps.media != "video/x-raw":
            return self.data
        layout = self.layout
        if len(layout.planes) == 1:
            return layout.planes[0].array(self._buffer())
        stacked = layout.stacked()
        if stacked is None:
            raise FormatError(f"the planes of this {layout.format} do not lie behind each other: take frame.planes")
        return stacked.array(self._buffer())

    def to_bgr(self) -> Array:
        """The picture as (height, width, 3), blue first: the array itself where the frames are BGR, else a new one. Needs
        OpenCV (cv2) for what is not BGR; decodes JPEG and PNG too."""
        if self.caps.format == "BGR" and self.caps.layout is not None:
            return self.array
        if self.caps.media not in _ENCODED:
            # What it is not is said before what is missing.
            _ = self.layout
        return _to_bgr(self)


_ENCODED = ("image/jpeg", "image/png")

# The names of OpenCV's conversions to BGR.
_CONVERSIONS: Dict[str, str] = {
    "RGB": "RGB2BGR", "BGRx": "BGRA2BGR", "BGRA": "BGRA2BGR", "RGBx": "RGBA2BGR", "RGBA": "RGBA2BGR",
    "GRAY8": "GRAY2BGR", "YUY2": "YUV2BGR_YUY2", "UYVY": "YUV2BGR_UYVY", "YVYU": "YUV2BGR_YVYU", "NV12": "YUV2BGR_NV12",
    "NV21": "YUV2BGR_NV21", "I420": "YUV2BGR_I420", "YV12": "YUV2BGR_YV12",
}  # fmt: skip


def _to_bgr(frame: Frame) -> Array:
    try:
        import cv2
    except ImportError:
        raise MissingOpenCV(
            f"OpenCV turns {frame.caps.format or frame.caps.media} into BGR, and the module cv2 is not there: "
            "apt install python3-opencv, or pip install opencv-python"
        ) from None
    if frame.caps.media in _ENCODED:
        picture = cv2.imdecode(frame.data, cv2.IMREAD_COLOR)
        if picture is None:
            raise FormatError(f"frame {frame.seq} is no picture that OpenCV can decode")
        return numpy.asarray(picture)
    format = frame.layout.format
    planes = frame.planes
    if format in ("xRGB", "ARGB"):
        return numpy.ascontiguousarray(planes[0][..., :0:-1])
    if format in ("xBGR", "ABGR"):
        return numpy.ascontiguousarray(planes[0][..., 1:])
    if planes[0].dtype.itemsize == 2:
        # What is beyond eight bits is not shown.
        planes = tuple((plane >> 8).astype(numpy.uint8) for plane in planes)
        format = {"P010_10LE": "NV12"}.get(format, "GRAY8")
    conversion = _CONVERSIONS.get(format)
    if conversion is None:
        raise FormatError(f"OpenCV has no conversion from {format} to BGR")
    picture = planes[0] if len(planes) == 1 else _stack(planes)
    return numpy.asarray(cv2.cvtColor(picture, getattr(cv2, f"COLOR_{conversion}")))


def _stack(planes: Tuple[Array, ...]) -> Array:
    """The planes in one array of height * 3/2 rows, which OpenCV wants without gaps, of even sizes."""
    height, width = (length // 2 * 2 for length in planes[0].shape)
    stacked = numpy.empty((height * 3 // 2, width), planes[0].dtype)
    stacked[:height] = planes[0][:height, :width]
    colours = stacked[height:].reshape(-1)
    at = 0
    for plane in planes[1:]:
        part = plane[: height // 2, : width // 2]
        colours[at : at + part.size] = part.reshape(-1)
        at += part.size
    return stacked
