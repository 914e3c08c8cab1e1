# SPDX-License-Identifier: MIT OR Apache-2.0
"""A frame of a channel: its bytes as arrays, and its properties."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional, Tuple, TypeVar

import numpy

from . import _exports, _library
from ._library import FrameInfo, Sized, time_or_none
from .caps import Caps, Layout, Plane, parse
from .errors import FormatError, MissingOpenCV, Released

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]
else:
    # NumPy before 1.22 has no `ndarray[...]` when a program runs.
    Array = numpy.ndarray


class Region(NamedTuple):
    """A region of interest: a part of the picture, such as a face that a detector found."""

    x: int
    y: int
    width: int
    height: int
    id: int
    """-1 if it has none."""
    parent_id: int
    """The id of the region around this one. -1 if there is none."""
    name: str
    """What is in the region, in the writer's words."""


class TimeCode(NamedTuple):
    """A time code."""

    hours: int
    minutes: int
    seconds: int
    frames: int
    field_count: int
    fps_n: int
    fps_d: int
    flags: int
    """Bit 0 means drop frame, and bit 1 means interlaced."""

    def __str__(self) -> str:
        separator = ";" if self.flags & 1 else ":"
        return f"{self.hours:02}:{self.minutes:02}:{self.seconds:02}{separator}{self.frames:02}"


class Metadata(NamedTuple):
    """A record of a frame's metadata. docs/PROTOCOL.md has the kinds and their bytes."""

    kind: int
    data: bytes


class Memory:
    """Memory that the library lends out, until nothing refers to this object any more."""

    __slots__ = ("_release", "address", "handle", "size", "writable")

    def __init__(self, release: Callable[[Any], int], writable: bool = False) -> None:
        self.handle = ctypes.c_void_p()
        """The library stores the handle of the memory here. So no handle is lost if Ctrl-C comes right after the call."""
        # A reference of its own: at the end of the program, the names of this module may be gone before this object.
        self._release = release
        self.writable = writable
        self.address = self.size = 0

    def __del__(self) -> None:
        # In a forked child, the library does nothing here, because the memory belongs to the parent.
        if self.handle:
            self._release(self.handle)

    def plane(self, plane: Plane) -> Array:
        """The plane as an array, which keeps the memory. If the memory is not writable, neither is the array."""
        return numpy.asarray(_View(self, plane.offset, plane.shape, plane.dtype, plane.strides))

    def bytes(self) -> Array:
        """All bytes as an array."""
        if self.size == 0:
            return numpy.empty(0, numpy.uint8)
        return numpy.asarray(_View(self, 0, (self.size,), "|u1", None))


class _View:
    """What NumPy makes an array of. The array refers to this object, and so it keeps the memory.

    NumPy cannot make the array writable later, because this object has no buffer that is writable.
    """

    __slots__ = ("__array_interface__", "_memory")

    def __init__(
        self, memory: Memory, offset: int, shape: Tuple[int, ...], dtype: str, strides: Optional[Tuple[int, ...]]
    ) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "data": (memory.address + offset, not memory.writable),
            "shape": shape,
            "typestr": dtype,
            "strides": strides,
        }


S = TypeVar("S", bound=Sized)


_UNPACK = struct.Struct("@II7QPNPNPPiiiiII" + "PqII" * _library.MAX_PLANES)
"""The fields of rsshm_frame_info. One call reads all, which is faster than a call of ctypes for each."""
_FLAGS, _SEQ, _MISSED, _PTS, _DTS, _DURATION, _OFFSET = range(1, 8)
_DATA, _SIZE, _METADATA_SIZE, _CAPS, _WIDTH, _BUFFER_FLAGS, _PLANE_COUNT = 9, 10, 12, 13, 15, 19, 20
_PLANES = tuple(range(21, 21 + 4 * _library.MAX_PLANES, 4))
"""Where the four fields of each plane begin: its address, stride, row_bytes and rows."""


class Stream:
    """What the frames of a stream share: the format, and the layout of the last frame."""

    __slots__ = ("caps", "layout", "pointer", "size")

    def __init__(self, text: str = "") -> None:
        self.caps = parse(text)
        self.pointer = 0
        """Where the library has the caps."""
        self.layout: Optional[Layout] = None
        self.size = 0


def received(info: FrameInfo, memory: Memory, stream: Stream) -> Frame:
    """The frame that the library has just stored in ``info`` and ``memory``, in ``stream`` or in a new stream."""
    values = _UNPACK.unpack(info)
    memory.address, memory.size = values[_DATA], values[_SIZE]
    # The pointer can be the same although the caps have changed, but then there is a discontinuity.
    if values[_CAPS] != stream.pointer or values[_FLAGS] & _library.DISCONTINUITY:
        text = ctypes.string_at(values[_CAPS]).decode(errors="replace")
        if text != stream.caps.text:
            stream = Stream(text)
        stream.pointer = values[_CAPS]
    return Frame(stream, values, memory)


class Frame:
    """A frame. Its arrays are read-only, and their bytes do not change while any of the arrays exists.

    If the frame is in place (in shared memory), no other frame gets its slot while any of these arrays exists.
    :meth:`release` (or the end of ``with``) drops the arrays that the frame itself holds.
    The slot is free when the program has dropped its own arrays too.
    """

    __slots__ = ("_info", "_layout", "_memory", "_picture", "_stream", "__weakref__")

    def __init__(self, stream: Stream, info: Tuple[int, ...], memory: Memory) -> None:
        self._stream = stream
        self._info = info
        self._memory: Optional[Memory] = memory
        self._layout: Optional[Layout] = None
        self._picture: Optional[Array] = None

    def __repr__(self) -> str:
        state = "released" if self._memory is None else "in place" if self.in_place else "a copy"
        return f"<rsshm.Frame {self.seq} of {self._info[_SIZE]} bytes, {self.caps}, {state}>"

    def __enter__(self) -> Frame:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the frame, which then has no arrays. Arrays that the program took from it before stay valid."""
        self._memory = self._picture = None

    @property
    def caps(self) -> Caps:
        """The format."""
        return self._stream.caps

    @property
    def seq(self) -> int:
        """The sequence number of the frame. Consecutive frames of a channel have consecutive numbers."""
        return self._info[_SEQ]

    @property
    def missed(self) -> int:
        """Number of frames that were lost or skipped since the reader returned the frame before this one."""
        return self._info[_MISSED]

    @property
    def discontinuity(self) -> bool:
        """Whether this is the reader's first frame, or the first frame of a new writer or a new format, or frames before it
        are missing."""
        return bool(self._info[_FLAGS] & _library.DISCONTINUITY)

    @property
    def in_place(self) -> bool:
        """Whether the bytes are in shared memory. Otherwise they are a copy."""
        return bool(self._info[_FLAGS] & _library.IN_PLACE)

    @property
    def pts_ns(self) -> Optional[int]:
        """Time at which the picture was taken, in nanoseconds of CLOCK_MONOTONIC (``time.monotonic_ns()``)."""
        return time_or_none(self._info[_PTS])

    @property
    def dts_ns(self) -> Optional[int]:
        """Time at which the frame has to be decoded, in nanoseconds."""
        return time_or_none(self._info[_DTS])

    @property
    def duration_ns(self) -> Optional[int]:
        """Duration of the frame in nanoseconds."""
        return time_or_none(self._info[_DURATION])

    @property
    def offset(self) -> Optional[int]:
        """The counter that the producer gave the frame (GST_BUFFER_OFFSET)."""
        return time_or_none(self._info[_OFFSET])

    @property
    def flags(self) -> int:
        """The frame's flags, as GStreamer's GstBufferFlags."""
        return self._info[_BUFFER_FLAGS]

    @property
    def is_key(self) -> bool:
        """Whether a reader can start with the frame. This is true for every frame of raw video and JPEG."""
        return bool(self._info[_FLAGS] & _library.KEYFRAME)

    # Metadata.

    @property
    def rois(self) -> Tuple[Region, ...]:
        """The regions of interest, such as the faces that a detector found."""
        regions = []
        for found in self._records(_library.frame_region, _library.RegionRecord):
            name = ctypes.string_at(found.name, found.name_size).decode(errors="replace")
            regions.append(Region(found.x, found.y, found.width, found.height, found.id, found.parent_id, name))
        return tuple(regions)

    @property
    def time_code(self) -> Optional[TimeCode]:
        """The first time code of the frame, or None."""
        for found in self._records(_library.frame_time_code, _library.TimeCodeRecord):
            return TimeCode(*(getattr(found, name) for name in TimeCode._fields))
        return None

    @property
    def metadata(self) -> Tuple[Metadata, ...]:
        """All records of metadata, also those of which :attr:`rois` and :attr:`time_code` are made."""
        return tuple(
            Metadata(found.kind, ctypes.string_at(found.data, found.size))
            for found in self._records(_library.frame_metadata, _library.MetadataRecord)
        )

    def _records(self, function: Callable[..., int], kind: Callable[[], S]) -> Iterator[S]:
        memory = self._held()
        if self._info[_METADATA_SIZE] == 0:
            return
        index = 0
        record = kind()
        while _library.check(function(memory.handle, index, ctypes.byref(record))) == _library.OK:
            yield record
            index += 1

    # Arrays.

    def _held(self) -> Memory:
        if self._memory is None:
            raise Released(f"frame {self.seq} was released")
        return self._memory

    @property
    def data(self) -> Array:
        """The bytes of the frame, whatever its format is."""
        return self._held().bytes()

    @property
    def layout(self) -> Layout:
        """Where the planes of the picture are in the bytes of the frame."""
        if self._layout is None:
            self._layout = self._find_layout()
        return self._layout

    def _find_layout(self) -> Layout:
        stream, info = self._stream, self._info
        # Nearly all frames of a stream have the same layout.
        layout = stream.layout
        if layout is not None and info[_PLANE_COUNT] == len(layout.planes) and info[_SIZE] == stream.size:
            data = info[_DATA]
            for at, plane in zip(_PLANES, layout.planes):
                if info[at] - data != plane.offset or info[at + 1] != plane.stride:
                    break
            else:
                return layout
        stream.layout, stream.size = self._new_layout(), info[_SIZE]
        return stream.layout

    def _new_layout(self) -> Layout:
        info = self._info
        default = self.caps.layout
        if default is None:
            raise FormatError(f"these frames have no known raw format, so use frame.data: {self.caps}")
        self._check_planes(len(default.planes))
        places = _PLANES[: len(default.planes)]
        offsets, strides = tuple(info[at] - info[_DATA] for at in places), tuple(info[at + 1] for at in places)
        if (offsets, strides) == (default.offsets, default.strides):
            return default
        return default.with_planes(offsets, strides, info[_SIZE])

    def _check_planes(self, least: int) -> None:
        # The library leaves planes out that are not inside the frame.
        if self._info[_PLANE_COUNT] < least:
            size = self._info[_SIZE]
            raise FormatError(f"frame {self.seq} of {size} bytes has no picture of this format inside: {self.caps}")

    @property
    def planes(self) -> Tuple[Array, ...]:
        """An array for each plane.

        NV12 has luma (height, width) and chroma (height/2, width/2, 2), I420 has three planes, and BGR has one.
        """
        memory = self._held()
        return tuple(memory.plane(plane) for plane in self.layout.planes)

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
        memory = self._held()
        if self.caps.layout is None and self.caps.media != "video/x-raw":
            return memory.bytes()
        layout = self.layout
        if len(layout.planes) == 1:
            return memory.plane(layout.planes[0])
        stacked = layout.stacked()
        if stacked is None:
            raise FormatError(f"the planes of this {layout.format} frame are not adjacent, so use frame.planes")
        return memory.plane(stacked)

    def to_bgr(self) -> Array:
        """The picture as an array (height, width, 3) with the channels blue, green and red.

        For BGR frames, it is :attr:`array` itself. Other frames are converted, also those of raw formats that are not in
        :data:`rsshm.FORMATS`. JPEG and PNG are decoded by OpenCV (cv2).
        """
        return self._convert("BGR")

    def to_rgb(self) -> Array:
        """The same as :meth:`to_bgr`, with the channels red, green and blue."""
        return self._convert("RGB")

    # Other packages.

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Array:
        """:attr:`array`, for ``numpy.asarray(frame)``."""
        return _exports.as_array(self, dtype, copy)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        """:attr:`array` for other packages that know DLPack 1.0. Needs NumPy 2.1 or later."""
        return _exports.dlpack(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> Tuple[int, int]:
        """The device of :attr:`array`, which is the processor."""
        return _exports.DEVICE

    def _repr_png_(self) -> Optional[bytes]:
        """The picture, for notebooks."""
        return _exports.png(self)

    def _repr_jpeg_(self) -> Optional[bytes]:
        """The picture of a JPEG frame, for notebooks."""
        return _exports.jpeg(self)

    def _convert(self, order: str) -> Array:
        memory = self._held()
        if self.caps.media in ("image/jpeg", "image/png"):
            return _decode(self, order)
        if self.caps.format == order and self.caps.layout is not None:
            return self.array
        info = self._info
        if info[_WIDTH] == 0:
            raise FormatError(f"these frames have no known raw format, so they cannot be converted: {self.caps}")
        self._check_planes(1)
        # The first plane has all rows of the picture. If a frame is a single field, these are fewer than the height.
        picture = numpy.empty((info[_PLANES[0] + 3], info[_WIDTH], 3), numpy.uint8)
        _library.check(_library.frame_convert(memory.handle, order.encode(), picture.ctypes.data, 0))
        return picture


def _decode(frame: Frame, order: str) -> Array:
    try:
        import cv2
    except ImportError:
        raise MissingOpenCV(
            f"decoding {frame.caps.media} needs OpenCV, and the module cv2 is not installed: "
            "apt install python3-opencv, or pip install opencv-python"
        ) from None
    picture = cv2.imdecode(frame.data, cv2.IMREAD_COLOR)
    if picture is None:
        raise FormatError(f"frame {frame.seq} is not a picture that OpenCV can decode")
    return numpy.ascontiguousarray(picture[..., ::-1]) if order == "RGB" else numpy.asarray(picture)
