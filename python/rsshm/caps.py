# SPDX-License-Identifier: MIT OR Apache-2.0
"""The format of frames: GStreamer's caps as text, and the memory layout of the pictures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy

from . import _library
from .errors import FormatError


def _is_array_format(format: str) -> bool:
    info = _library.video_layout(format, 16, 16, 4)
    return all(info.planes[index].pixel_bytes for index in range(info.plane_count))


FORMATS = tuple(filter(_is_array_format, _library.video_formats()))
"""The raw formats whose frames are arrays of pixels, as GStreamer names them. Frames of other formats are arrays of bytes."""


@dataclass(frozen=True)
class Plane:
    """A plane of a frame: its offset and stride, and the shape and type of its array."""

    offset: int
    stride: int
    shape: Tuple[int, ...]
    dtype: str

    @cached_property
    def sample(self) -> numpy.dtype[Any]:
        """The type of a sample."""
        return numpy.dtype(self.dtype)

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row, without padding."""
        return math.prod(self.shape[1:]) * self.sample.itemsize

    @cached_property
    def strides(self) -> Tuple[int, ...]:
        """Distances between rows, pixels and samples, in bytes."""
        return (self.stride, self.row_bytes // self.shape[1], self.sample.itemsize)[: len(self.shape)]

    @property
    def end(self) -> int:
        """Offset of the end of the plane's last pixel."""
        return self.offset + self.stride * (self.shape[0] - 1) + self.row_bytes

    def array(self, buffer: Any) -> numpy.ndarray[Any, Any]:
        """The plane as an array that uses the bytes of the frame in ``buffer``, without a copy."""
        return numpy.ndarray(self.shape, self.sample, buffer, self.offset, self.strides)


@dataclass(frozen=True)
class Layout:
    """The memory layout of a raw picture."""

    format: str
    width: int
    height: int
    planes: Tuple[Plane, ...]
    size: int
    """Size of a frame in bytes."""

    @cached_property
    def least_size(self) -> int:
        """The minimum size of a frame. It includes no padding after the last row."""
        return max(plane.end for plane in self.planes)

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """The type of a sample."""
        return self.planes[0].sample

    @property
    def is_stackable(self) -> bool:
        """Whether OpenCV accepts the planes as one array of height * 3/2 rows. This is so if the chroma planes have half as
        many rows as the picture."""
        return _is_stackable(self.format)

    def stacked(self) -> Optional[Plane]:
        """All planes as one plane of height * 3/2 rows, as OpenCV expects. None if these planes do not fit OpenCV's layout."""
        return self._stacked

    @cached_property
    def _stacked(self) -> Optional[Plane]:
        first, *rest = self.planes
        if not self.is_stackable or self.width % 2 or self.height % 2:
            return None
        if len(rest) == 1:
            fits = rest[0].stride == first.stride
        else:
            # In OpenCV's layout, one row of the picture is as long as two chroma rows, without padding.
            fits = first.stride == self.width * self.dtype.itemsize and all(plane.stride * 2 == first.stride for plane in rest)
        at = first.offset
        for plane in self.planes:
            fits = fits and plane.offset == at
            at += plane.stride * plane.shape[0]
        rows = self.height * 3 // 2
        return Plane(first.offset, first.stride, (rows, self.width), first.dtype) if fits else None

    @cached_property
    def offsets(self) -> Tuple[int, ...]:
        """The offset of each plane."""
        return tuple(plane.offset for plane in self.planes)

    @cached_property
    def strides(self) -> Tuple[int, ...]:
        """The stride of each plane."""
        return tuple(plane.stride for plane in self.planes)

    @cached_property
    def _moved(self) -> Dict[Any, Layout]:
        return {}

    def with_planes(self, offsets: Sequence[int], strides: Sequence[int], size: int) -> Layout:
        """This layout with other offsets and strides, in a frame of ``size`` bytes."""
        key = (*offsets, *strides, size)
        found = self._moved.get(key)
        if found is None:
            planes = tuple(
                Plane(offset, stride, plane.shape, plane.dtype) for plane, offset, stride in zip(self.planes, offsets, strides)
            )
            found = Layout(self.format, self.width, self.height, planes, size)
            # Nearly all frames of a stream have the same layout. A writer that changes it with each frame fills no memory.
            self._moved.clear()
            self._moved[key] = found
        return found


@lru_cache(maxsize=256)
def layout_of(format: str, width: int, height: int, align: int = 4) -> Layout:
    """GStreamer's layout of a picture. Each stride is a multiple of ``align``; GStreamer's default is 4."""
    if format not in FORMATS:
        raise FormatError(f"the format {format} is not one of {', '.join(FORMATS)}")
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise FormatError(f"a picture of {width}x{height} is not possible")
    info = _library.video_layout(format, width, height, align)
    planes = []
    for index in range(info.plane_count):
        plane = info.planes[index]
        # A row of the first plane can end with a pixel that is not in the picture, because two pixels share their chroma.
        columns = plane.row_bytes // plane.pixel_bytes if index else width
        channels = plane.pixel_bytes // plane.sample_bytes
        shape = (plane.rows, columns) if channels == 1 else (plane.rows, columns, channels)
        order = "|" if plane.sample_bytes == 1 else ">" if info.big_endian else "<"
        planes.append(Plane(plane.offset, plane.stride, shape, f"{order}u{plane.sample_bytes}"))
    return Layout(format, width, height, tuple(planes), info.size)


def _is_stackable(format: str) -> bool:
    """Whether each plane but the first has half as many rows as the picture."""
    if format not in FORMATS:
        return False
    rest = layout_of(format, 16, 16).planes[1:]
    return bool(rest) and all(plane.shape[0] == 8 for plane in rest)


@dataclass(frozen=True)
class Caps:
    """The format of a channel: GStreamer's caps as text, and the fields that this package parsed from them."""

    text: str
    media: str
    """``video/x-raw``, ``image/jpeg``, ..."""
    fields: Mapping[str, str] = field(compare=False)
    layout: Optional[Layout] = field(compare=False)
    """The memory layout of the pictures. None if they are not raw, or if this package does not know their format."""

    def __str__(self) -> str:
        return self.text

    @property
    def format(self) -> Optional[str]:
        """GStreamer's name of the pixel format."""
        return self.fields.get("format")

    @property
    def width(self) -> Optional[int]:
        """Width in pixels."""
        return _int(self.fields.get("width"))

    @property
    def height(self) -> Optional[int]:
        """Height in pixels."""
        return _int(self.fields.get("height"))

    @property
    def fps(self) -> Optional[Fraction]:
        """Frames per second. None if the rate varies or is unknown."""
        try:
            rate = Fraction(self.fields.get("framerate", "0"))
        except (ValueError, ZeroDivisionError):
            return None
        return rate if rate > 0 else None


def _int(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None


def parse(text: str) -> Caps:
    """Parses the caps of a channel. If the text has a mistake, only its beginning counts."""
    try:
        media, features, *rest = _library.caps_parts(text)
    except FormatError:
        begin = re.match(r"\s*([A-Za-z][\w./+-]*)", text)
        return Caps(text, begin.group(1) if begin else "", {}, None)
    fields = dict(zip(rest[::2], rest[1::2]))
    return Caps(text, media, fields, _layout_of_caps(media, features.split(", "), fields))


def _layout_of_caps(media: str, features: Sequence[str], fields: Mapping[str, str]) -> Optional[Layout]:
    width, height = _int(fields.get("width")), _int(fields.get("height"))
    readable = all(feature in _READABLE or not feature.startswith("memory:") for feature in features)
    if media != "video/x-raw" or not readable or not width or not height:
        return None
    if fields.get("interlace-mode") == "alternate":
        if "format:Interlaced" not in features:
            return None
        # Each frame is a single field, which has half the rows of the picture.
        height = -(-height // 2)
    try:
        return layout_of(fields.get("format", ""), width, height)
    except FormatError:
        return None


_READABLE = ("memory:SystemMemory", "memory:DMABuf")
"""The caps features of memory whose bytes are the pixels."""


def check(text: str) -> None:
    """Raises FormatError if GStreamer would not take the text for fixed caps."""
    if "\0" in text:
        raise FormatError(f"the caps contain a NUL: {text!r:.200}")
    try:
        _library.caps_parts(text)
    except UnicodeEncodeError as error:
        raise FormatError(f"the caps are not text: {error}") from None


Rate = Union[int, float, str, Fraction, None]


def fraction_of(fps: Rate) -> Fraction:
    """The rate as a fraction, or 0 if the rate is unknown. 29.97 becomes 30000/1001."""
    try:
        rate = Fraction(0 if fps is None else fps)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise FormatError(f"fps is {fps!r}, not a number of frames per second") from None
    if not 0 <= rate < 1 << 20:
        raise FormatError(f"fps is {fps!r}, not from 0 to {1 << 20}")
    if isinstance(fps, float):
        ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
        rate = ntsc if rate.denominator != 1 and abs(ntsc - rate) < Fraction(1, 100) else rate.limit_denominator(1000)
    return rate


def raw_video(layout: Layout, fps: Rate) -> str:
    """The caps of raw video as text."""
    rate = fraction_of(fps)
    return (
        f"video/x-raw, format=(string){layout.format}, width=(int){layout.width}, height=(int){layout.height}, "
        f"framerate=(fraction){rate.numerator}/{rate.denominator}"
    )


def layout_for_array(format: str, shape: Sequence[int], dtype: Any, align: int = 4) -> Layout:
    """The layout of pictures whose arrays have this ``shape``: (height, width) or (height, width, channels)."""
    sample = layout_of(format, 16, 16).planes[0]
    wanted = sample.sample
    if dtype is not None and numpy.dtype(dtype) != wanted:
        raise FormatError(f"an array of {numpy.dtype(dtype)} is not {format}, which has {wanted}")
    shape = tuple(int(length) for length in shape)
    channels = sample.shape[2] if len(sample.shape) == 3 else 1
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != channels):
        wanted_shape = f"(height, width, {channels})" if channels > 1 else "(height, width)"
        raise FormatError(f"an array of shape {shape} is not {format}, which has {wanted_shape}")
    return layout_of(format, shape[1], shape[0], align)


def infer_layout(format: str, picture: Any, dtype: Any, align: int) -> Layout:
    """The layout for pictures like this one. If a picture with several planes is one array, the array has height * 3/2
    rows."""
    if isinstance(picture, (list, tuple)) and picture:
        picture = picture[0]
        shape = numpy.shape(picture)
    else:
        shape = numpy.shape(picture)
        if len(shape) == 2 and _is_stackable(format):
            if shape[0] % 3:
                raise FormatError(f"an array of {shape[0]} rows is not {format}, which has height * 3/2 rows")
            shape = (shape[0] * 2 // 3, shape[1])
    return layout_for_array(format, shape, numpy.asarray(picture).dtype if dtype is None else dtype, align)


def as_planes(layout: Layout, picture: Any) -> List[numpy.ndarray[Any, Any]]:
    """The planes of a picture, checked against the layout.

    The picture is one array or a sequence of planes. If a picture with several planes is one array, the array has
    height * 3/2 rows.
    """
    given: Sequence[Any]
    if isinstance(picture, (list, tuple)) and len(layout.planes) > 1:
        given = picture
    else:
        array = numpy.asarray(picture)
        given = [array] if len(layout.planes) == 1 else _unstack(layout, array)
    if len(given) != len(layout.planes):
        raise FormatError(f"{len(given)} planes are not {layout.format}, which has {len(layout.planes)}")
    arrays = [numpy.asarray(plane) for plane in given]
    for array, plane in zip(arrays, layout.planes):
        if array.shape != plane.shape or array.dtype != numpy.dtype(plane.dtype):
            what = "frames" if len(arrays) == 1 else "planes"
            raise FormatError(
                f"an array of shape {array.shape} and type {array.dtype} does not match the channel, whose {what} have shape "
                f"{plane.shape} and type {numpy.dtype(plane.dtype)} ({layout.format})"
            )
    return arrays


def _unstack(layout: Layout, array: numpy.ndarray[Any, Any]) -> List[numpy.ndarray[Any, Any]]:
    tight = layout_of(layout.format, layout.width, layout.height, 1)
    stacked = tight.stacked()
    if stacked is None:
        raise FormatError(f"{layout.format} of {layout.width}x{layout.height} must be written as a list of planes")
    if array.shape != stacked.shape or array.dtype != layout.dtype:
        raise FormatError(
            f"an array of shape {array.shape} and type {array.dtype} does not match the channel, whose frames have shape "
            f"{stacked.shape} and type {layout.dtype} ({layout.format}); a list of planes is accepted too"
        )
    flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return [plane.array(flat) for plane in tight.planes]
