"""What the frames are: GStreamer's caps as text, and how a picture of each format lies in memory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy

from .errors import FormatError


@dataclass(frozen=True)
class _Part:
    """A plane of a format: how much smaller than the picture it is, and what a pixel of it is."""

    across: int
    down: int
    channels: int
    dtype: str = "|u1"


def _packed(channels: int, dtype: str = "|u1") -> Tuple[_Part, ...]:
    return (_Part(1, 1, channels, dtype),)


# As GStreamer names them; planes in the order in which they lie in memory (so YV12 has V before U).
_FORMATS: Dict[str, Tuple[_Part, ...]] = {
    **dict.fromkeys(("BGR", "RGB"), _packed(3)),
    **dict.fromkeys(("BGRx", "RGBx", "xRGB", "xBGR", "BGRA", "RGBA", "ARGB", "ABGR"), _packed(4)),
    **dict.fromkeys(("YUY2", "UYVY", "YVYU"), _packed(2)),
    "GRAY8": _packed(1),
    "GRAY16_LE": _packed(1, "<u2"),
    "GRAY16_BE": _packed(1, ">u2"),
    **dict.fromkeys(("NV12", "NV21"), (_Part(1, 1, 1), _Part(2, 2, 2))),
    **dict.fromkeys(("I420", "YV12"), (_Part(1, 1, 1), _Part(2, 2, 1), _Part(2, 2, 1))),
    "NV16": (_Part(1, 1, 1), _Part(2, 1, 2)),
    "Y42B": (_Part(1, 1, 1), _Part(2, 1, 1), _Part(2, 1, 1)),
    "Y444": (_Part(1, 1, 1), _Part(1, 1, 1), _Part(1, 1, 1)),
    "P010_10LE": (_Part(1, 1, 1, "<u2"), _Part(2, 2, 2, "<u2")),
}

FORMATS = tuple(_FORMATS)
"""The raw formats that frames are arrays in; of any other there are the bytes."""


@dataclass(frozen=True)
class Plane:
    """Where a plane lies in a frame, and the array that it is."""

    offset: int
    stride: int
    shape: Tuple[int, ...]
    dtype: str

    @cached_property
    def sample(self) -> numpy.dtype[Any]:
        """What a sample is."""
        return numpy.dtype(self.dtype)

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row that hold pixels."""
        return math.prod(self.shape[1:]) * self.sample.itemsize

    @cached_property
    def strides(self) -> Tuple[int, ...]:
        """Bytes from one row, pixel and sample to the next."""
        return (self.stride, self.row_bytes // self.shape[1], self.sample.itemsize)[: len(self.shape)]

    @property
    def end(self) -> int:
        """The first byte behind its last pixel."""
        return self.offset + self.stride * (self.shape[0] - 1) + self.row_bytes

    def array(self, buffer: Any) -> numpy.ndarray[Any, Any]:
        """The plane in a frame's bytes, without a copy."""
        return numpy.ndarray(self.shape, self.sample, buffer, self.offset, self.strides)


@dataclass(frozen=True)
class Layout:
    """How a raw picture lies in memory."""

    format: str
    width: int
    height: int
    planes: Tuple[Plane, ...]
    size: int
    """Bytes of a frame."""

    @cached_property
    def least_size(self) -> int:
        """Bytes of a frame whose last row lacks its padding."""
        return max(plane.end for plane in self.planes)

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """What a sample is."""
        return self.planes[0].sample

    @property
    def is_stackable(self) -> bool:
        """Whether the planes have half as many rows as the picture together, so that OpenCV takes them as one array of
        height * 3/2 rows."""
        parts = _FORMATS[self.format]
        return len(parts) > 1 and all(part.down == 2 for part in parts[1:])

    def stacked(self) -> Optional[Plane]:
        """All planes as OpenCV takes them, one array of height * 3/2 rows; None where they do not lie like that."""
        first, *rest = self.planes
        if not self.is_stackable or self.width % 2 or self.height % 2:
            return None
        if len(rest) == 1:
            fits = rest[0].stride == first.stride
        else:
            # Two rows of a colour plane side by side have to be one of the picture's.
            fits = first.stride == self.width * self.dtype.itemsize and all(plane.stride * 2 == first.stride for plane in rest)
        at = first.offset
        for plane in self.planes:
            fits = fits and plane.offset == at
            at += plane.stride * plane.shape[0]
        rows = self.height * 3 // 2
        return Plane(first.offset, first.stride, (rows, self.width), first.dtype) if fits else None

    def with_planes(self, offsets: Sequence[int], strides: Sequence[int], size: int) -> Layout:
        """The same picture with the planes elsewhere, in a frame of ``size`` bytes; what a peer said is checked."""
        if len(offsets) != len(self.planes):
            raise FormatError(f"a frame has {len(offsets)} planes, {self.format} has {len(self.planes)}")
        planes = []
        for plane, offset, stride in zip(self.planes, offsets, strides):
            moved = Plane(offset, stride, plane.shape, plane.dtype)
            if stride < plane.row_bytes or moved.end > size:
                raise FormatError(f"a frame of {size} bytes has a plane at {offset} with rows of {stride} bytes")
            planes.append(moved)
        return Layout(self.format, self.width, self.height, tuple(planes), size)


def layout_of(format: str, width: int, height: int, align: int = 4) -> Layout:
    """The layout that GStreamer gives a picture; with ``align`` above 4 rows begin at multiples of that."""
    parts = _FORMATS.get(format)
    if parts is None:
        raise FormatError(f"the format {format} is not one of {', '.join(FORMATS)}")
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise FormatError(f"a picture of {width}x{height}")
    down = max(part.down for part in parts)
    planes: List[Plane] = []
    at = 0
    for part in parts:
        columns, rows = -(-width // part.across), -(-height // part.down)
        shape = (rows, columns) if part.channels == 1 else (rows, columns, part.channels)
        row_bytes = columns * part.channels * numpy.dtype(part.dtype).itemsize
        stride = -(-row_bytes // align) * align
        planes.append(Plane(at, stride, shape, part.dtype))
        at += stride * (-(-height // down) * down // part.down)
    return Layout(format, width, height, tuple(planes), at)


@dataclass(frozen=True)
class Caps:
    """The format of a channel: GStreamer's caps, as far as this package has to understand them."""

    text: str
    media: str
    """``video/x-raw``, ``image/jpeg``, ..."""
    fields: Mapping[str, str] = field(compare=False)
    layout: Optional[Layout] = field(compare=False)
    """How pictures lie in memory; None where they are not raw, or of a format that is not known here."""

    def __str__(self) -> str:
        return self.text

    @property
    def format(self) -> Optional[str]:
        """GStreamer's name of the pixel format."""
        return self.fields.get("format")

    @property
    def width(self) -> Optional[int]:
        """Pixels."""
        return _int(self.fields.get("width"))

    @property
    def height(self) -> Optional[int]:
        """Pixels."""
        return _int(self.fields.get("height"))

    @property
    def fps(self) -> Optional[Fraction]:
        """Frames a second; None where it varies or is not said."""
        try:
            rate = Fraction(self.fields.get("framerate", "0"))
        except (ValueError, ZeroDivisionError):
            return None
        return rate if rate > 0 else None


def _int(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None


# A field, as GStreamer writes it: a name, the type in parentheses, a value that is quoted or plain.
_FIELD = re.compile(r'\s*,\s*([A-Za-z][\w./:-]*)\s*=\s*(?:\(\s*[\w./:-]+\s*\)\s*)?("(?:[^"\\]|\\.)*"|[^",;{}\[\]<>]+)')
_MEDIA = re.compile(r"\s*([A-Za-z][\w./+-]*)(\([^)]*\))?")


def parse(text: str) -> Caps:
    """Reads the text of a segment, which may be anything: what is not understood is left out."""
    begin = _MEDIA.match(text)
    media = begin.group(1) if begin else ""
    memory = begin.group(2) if begin else None
    fields: Dict[str, str] = {}
    at = begin.end() if begin else 0
    while True:
        found = _FIELD.match(text, at)
        if found is None:
            # Something else than a plain value, a list say: on to the next comma.
            at = text.find(",", at + 1)
            if at < 0:
                break
            continue
        value = found.group(2).strip()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        fields.setdefault(found.group(1), value)
        at = found.end()
    layout = None
    width, height = _int(fields.get("width")), _int(fields.get("height"))
    if media == "video/x-raw" and memory in (None, "(memory:SystemMemory)") and width and height:
        try:
            # Where frames are single fields, each has half the rows.
            rows = -(-height // 2) if fields.get("interlace-mode") == "alternate" else height
            layout = layout_of(fields.get("format", ""), width, rows)
        except FormatError:
            pass
    return Caps(text, media, fields, layout)


def quote(text: str) -> str:
    """A text as a value in caps."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


Rate = Union[int, float, str, Fraction, None]


def fraction_of(fps: Rate) -> Fraction:
    """Frames a second as a fraction, 0 where it is not known; 29.97 is 30000/1001."""
    try:
        rate = Fraction(0 if fps is None else fps)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise FormatError(f"fps is {fps!r}, not a number of frames a second") from None
    if not 0 <= rate < 1 << 20:
        raise FormatError(f"fps is {fps!r}")
    if isinstance(fps, float):
        ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
        rate = ntsc if rate.denominator != 1 and abs(ntsc - rate) < Fraction(1, 100) else rate.limit_denominator(1000)
    return rate


def raw_video(layout: Layout, fps: Rate) -> str:
    """The caps of raw video, as text."""
    rate = fraction_of(fps)
    return (
        f"video/x-raw, format=(string){layout.format}, width=(int){layout.width}, height=(int){layout.height}, "
        f"framerate=(fraction){rate.numerator}/{rate.denominator}"
    )


def layout_for_array(format: str, shape: Sequence[int], dtype: Any, align: int = 4) -> Layout:
    """The layout of pictures that come as arrays of ``shape``: (height, width), with the format's channels behind it or
    not; of a planar format also all planes as one, height * 3/2 rows."""
    parts = _FORMATS.get(format)
    if parts is None:
        raise FormatError(f"the format {format} is not one of {', '.join(FORMATS)}")
    wanted = numpy.dtype(parts[0].dtype)
    if dtype is not None and numpy.dtype(dtype) != wanted:
        raise FormatError(f"an array of {numpy.dtype(dtype)} is no {format}, which has {wanted}")
    shape = tuple(int(length) for length in shape)
    channels = parts[0].channels
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != channels):
        raise FormatError(
            f"an array of shape {shape} is no {format}, which has (height, width{', ' + str(channels) if channels > 1 else ''})"
        )
    return layout_of(format, shape[1], shape[0], align)


def infer_layout(format: str, picture: Any, dtype: Any, align: int) -> Layout:
    """The layout of pictures like this one."""
    if isinstance(picture, (list, tuple)) and picture:
        picture = picture[0]
        shape = numpy.shape(picture)
    else:
        shape = numpy.shape(picture)
        parts = _FORMATS.get(format, ())
        if len(shape) == 2 and len(parts) > 1 and all(part.down == 2 for part in parts[1:]):
            if shape[0] % 3:
                raise FormatError(f"an array of {shape[0]} rows is no {format}, which has height * 3/2")
            shape = (shape[0] * 2 // 3, shape[1])
    return layout_for_array(format, shape, numpy.asarray(picture).dtype if dtype is None else dtype, align)


def as_planes(layout: Layout, picture: Any) -> List[numpy.ndarray[Any, Any]]:
    """A picture that a caller has, as arrays of the shapes of the layout's planes: one array, of a planar format also one of
    height * 3/2 rows, or a sequence of planes."""
    given: Sequence[Any]
    if isinstance(picture, (list, tuple)) and len(layout.planes) > 1:
        given = picture
    else:
        array = numpy.asarray(picture)
        given = [array] if len(layout.planes) == 1 else _unstack(layout, array)
    if len(given) != len(layout.planes):
        raise FormatError(f"{len(given)} planes are no {layout.format}, which has {len(layout.planes)}")
    arrays = [numpy.asarray(plane) for plane in given]
    for array, plane in zip(arrays, layout.planes):
        if array.shape != plane.shape or array.dtype != numpy.dtype(plane.dtype):
            what = "frames" if len(arrays) == 1 else "planes"
            raise FormatError(
                f"an array of shape {array.shape} and type {array.dtype} does not match the channel, whose {what} are "
                f"{plane.shape} of {numpy.dtype(plane.dtype)} ({layout.format})"
            )
    return arrays


def _unstack(layout: Layout, array: numpy.ndarray[Any, Any]) -> List[numpy.ndarray[Any, Any]]:
    tight = layout_of(layout.format, layout.width, layout.height, 1)
    stacked = tight.stacked()
    if stacked is None:
        raise FormatError(f"{layout.format} of {layout.width}x{layout.height} is written as a list of planes")
    if array.shape != stacked.shape or array.dtype != layout.dtype:
        raise FormatError(
            f"an array of shape {array.shape} and type {array.dtype} does not match the channel, whose frames are "
            f"{stacked.shape} of {layout.dtype} ({layout.format}), or a list of planes"
        )
    flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return [plane.array(flat) for plane in tight.planes]
