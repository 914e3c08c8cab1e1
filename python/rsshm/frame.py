# SPDX-License-Identifier: MIT OR Apache-2.0
"""A frame of a channel: its bytes as arrays, and its properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

import numpy

from . import layout
from .caps import Caps, Layout
from .errors import FormatError, MissingOpenCV, Released
from .layout import FrameDescriptor

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]
else:
    # NumPy before 1.22 has no `ndarray[...]` when a program runs.
    Array = numpy.ndarray


def _time(value: int) -> Optional[int]:
    return None if value == layout.TIME_NONE else value


def _read_only(memory: Any) -> Array:
    """The bytes as an array that no program can make writable."""
    # `frombuffer` makes an array of the read-only view. `numpy.ndarray` would use the memory behind the view, so that a
    # program could make the array writable.
    view = memoryview(memory).toreadonly()
    return numpy.frombuffer(view, numpy.uint8) if len(view) else numpy.empty(0, numpy.uint8)


class Frame:
    """A frame. Its arrays are read-only, and their bytes do not change while any of the arrays exists.

    If the frame is in place (in shared memory), no other frame gets its slot while any of these arrays exists.
    :meth:`release` (or the end of ``with``) drops the arrays that the frame itself holds.
    The slot is free when the program has dropped its own arrays too.
    """

    __slots__ = (
        "caps", "seq", "missed", "discontinuity", "in_place",
        "_described", "_descriptor_read", "_exporter", "_layout", "_picture", "__weakref__",
    )  # fmt: skip

    def __init__(self, caps: Caps, exporter: Any, in_place: bool) -> None:
        """Creates the object, perhaps before its frame arrives in ``exporter``. :meth:`arrive` then sets the frame."""
        self.caps: Caps = caps
        """The format."""
        self.seq: int = 0
        """The sequence number of the frame. Consecutive frames of a channel have consecutive numbers."""
        self.missed: int = 0
        """Number of frames that were lost or skipped since the reader returned the frame before this one."""
        self.discontinuity: bool = False
        """Whether this is the reader's first frame, or the first frame of a new writer or a new format."""
        self.in_place: bool = in_place
        """Whether the bytes are in shared memory. Otherwise they are a copy."""
        self._described = b""
        """The bytes of a ``FrameDescriptor``."""
        self._descriptor_read: Optional[FrameDescriptor] = None
        self._exporter: Optional[Array] = _read_only(exporter)
        self._layout: Optional[Layout] = None
        self._picture: Optional[Array] = None

    def arrive(self, seq: int, descriptor: bytes) -> None:
        """Sets the frame's seq and descriptor. Arrays made before stay valid if their layout is that of the descriptor."""
        self.seq = seq
        self._described = descriptor

    def prepare(self, descriptor: bytes) -> None:
        """Makes the array before the frame arrives, unless the format has no array."""
        self._described = descriptor
        try:
            _ = self.array
        except FormatError:
            pass
        # The prepared descriptor has the times of another frame.
        self._descriptor_read = None

    def copy_out(self) -> None:
        """Copies the bytes out of shared memory. The frame then refers only to the copy."""
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
        """Releases the frame, which then has no arrays. Arrays that the program took from it before stay valid."""
        self._exporter = self._picture = None

    @property
    def _descriptor(self) -> FrameDescriptor:
        if self._descriptor_read is None:
            self._descriptor_read = FrameDescriptor.from_buffer_copy(self._described)
        return self._descriptor_read

    @property
    def pts_ns(self) -> Optional[int]:
        """Time at which the picture was taken, in nanoseconds of CLOCK_MONOTONIC (``time.monotonic_ns()``)."""
        return _time(self._descriptor.pts)

    @property
    def dts_ns(self) -> Optional[int]:
        """Time at which the frame has to be decoded, in nanoseconds."""
        return _time(self._descriptor.dts)

    @property
    def duration_ns(self) -> Optional[int]:
        """Duration of the frame in nanoseconds."""
        return _time(self._descriptor.duration)

    @property
    def offset(self) -> Optional[int]:
        """The counter that the producer gave the frame (GST_BUFFER_OFFSET)."""
        return _time(self._descriptor.offset)

    @property
    def flags(self) -> int:
        """The frame's flags, as GStreamer's GstBufferFlags."""
        return int(self._descriptor.flags)

    @property
    def is_key(self) -> bool:
        """Whether a reader can start with the frame. This is true for every frame of raw video and JPEG."""
        return bool(self._descriptor.keyframe)

    def _buffer(self) -> Array:
        if self._exporter is None:
            raise Released(f"frame {self.seq} was released")
        return self._exporter

    @property
    def data(self) -> Array:
        """The bytes of the frame, whatever its format is."""
        return self._buffer().view()

    @property
    def layout(self) -> Layout:
        """Where the planes of the picture are in the bytes of the frame."""
        if self._layout is not None:
            return self._layout
        default = self.caps.layout
        if default is None:
            raise FormatError(f"these frames have no known raw format, so use frame.data: {self.caps}")
        descriptor = self._descriptor
        count: int = descriptor.planes
        if count != 0:
            default = default.with_planes(descriptor.plane_offset[:count], descriptor.plane_stride[:count], descriptor.size)
        elif descriptor.size < default.least_size:
            raise FormatError(f"frame {self.seq} has {descriptor.size} bytes, but a picture needs {default.size}: {self.caps}")
        self._layout = default
        return default

    @property
    def planes(self) -> Tuple[Array, ...]:
        """An array for each plane.

        NV12 has luma (height, width) and chroma (height/2, width/2, 2), I420 has three planes, and BGR has one.
        """
        buffer = self._buffer()
        return tuple(plane.array(buffer) for plane in self.layout.planes)

    @property
    def array(self) -> Array:
        """The picture: (height, width, channels), or (height, width) for one channel.

        For NV12, I420, P010 and similar formats, it is one array of height * 3/2 rows, as OpenCV expects.
        If the frame is not raw video, it is an array of the bytes.
        """
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
            raise FormatError(f"the planes of this {layout.format} frame are not adjacent, so use frame.planes")
        return stacked.array(self._buffer())

    def to_bgr(self) -> Array:
        """The picture as an array (height, width, 3) with the channels blue, green and red. Also decodes JPEG and PNG.

        For BGR frames, it returns :attr:`array` itself. For other formats, it needs OpenCV (cv2) and makes a new array.
        """
        if self.caps.format == "BGR" and self.caps.layout is not None:
            return self.array
        if self.caps.media not in _ENCODED:
            # For an unknown format, this raises FormatError, even if OpenCV is missing.
            _ = self.layout
        return _to_bgr(self)


_ENCODED = ("image/jpeg", "image/png")

# OpenCV's conversions to BGR, by format.
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
            f"converting {frame.caps.format or frame.caps.media} to BGR needs OpenCV, and the module cv2 is not installed: "
            "apt install python3-opencv, or pip install opencv-python"
        ) from None
    if frame.caps.media in _ENCODED:
        picture = cv2.imdecode(frame.data, cv2.IMREAD_COLOR)
        if picture is None:
            raise FormatError(f"frame {frame.seq} is not a picture that OpenCV can decode")
        return numpy.asarray(picture)
    format = frame.layout.format
    planes = frame.planes
    if format in ("xRGB", "ARGB"):
        return numpy.ascontiguousarray(planes[0][..., :0:-1])
    if format in ("xBGR", "ABGR"):
        return numpy.ascontiguousarray(planes[0][..., 1:])
    if planes[0].dtype.itemsize == 2:
        # Keep only the upper eight bits of each sample.
        planes = tuple((plane >> 8).astype(numpy.uint8) for plane in planes)
        format = {"P010_10LE": "NV12"}.get(format, "GRAY8")
    conversion = _CONVERSIONS.get(format)
    if conversion is None:
        raise FormatError(f"OpenCV has no conversion from {format} to BGR")
    picture = planes[0] if len(planes) == 1 else _stack(planes)
    return numpy.asarray(cv2.cvtColor(picture, getattr(cv2, f"COLOR_{conversion}")))


def _stack(planes: Tuple[Array, ...]) -> Array:
    """The planes in one array of height * 3/2 rows. OpenCV needs even sizes and no padding."""
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
