# SPDX-License-Identifier: MIT OR Apache-2.0
"""A frame of a channel: its bytes as arrays, and its properties."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Iterator, NamedTuple, Optional, Tuple, TypeVar

import numpy

from . import _exports, _library
from ._library import FrameInfo, Sized, time_or_none
from ._memory import Array, Memory
from ._stream import (
    BUFFER_FLAGS,
    CAPS,
    DATA,
    DTS,
    DURATION,
    FLAGS,
    FORMAT,
    KIND,
    LAYOUT,
    METADATA_SIZE,
    MISSED,
    OFFSET,
    PLANE_COUNT,
    PLANES,
    PTS,
    SEQ,
    SIZE,
    UNPACK,
    WHERE,
    WIDTH,
    Stream,
    Values,
)
from .caps import Caps, Layout
from .errors import BadOption, FormatError, MissingOpenCV, NoDescriptor, Released


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


class Descriptor(NamedTuple):
    """The memory in which a plane of a frame is, if that is a memfd or a dmabuf. docs/OBJECTS.md explains such frames."""

    fd: int
    """It belongs to the frame: use ``os.dup`` to keep it, and do not close it."""
    is_dmabuf: bool
    """Whether devices can import the memory. Otherwise it is a memfd, or another file in memory."""
    offset: int
    """Where the plane begins in the memory."""
    size: int
    """The bytes of the frame from there on. Other planes may follow in them."""
    stride: int
    """Bytes from one row to the next. 0 if the planes are not known."""
    object: int
    """The number of the memory, which has the same number in each frame until the writer changes."""
    object_size: int
    """The size of the memory."""
    drm_format: int
    """The code in the ``drm-format`` of the caps. 0 if the caps have the name of the format."""
    drm_modifier: int
    """How the pixels lie in the memory. 0 means in rows."""


S = TypeVar("S", bound=Sized)


class Frame:
    """A frame. Its arrays are read-only, and their bytes do not change while any of the arrays exists.

    If the frame is in place (in shared memory), no other frame gets its slot while any of these arrays exists.
    :meth:`release` (or the end of ``with``) drops the arrays that the frame itself holds.
    The slot is free when the program has dropped its own arrays too.
    """

    __slots__ = ("_expected", "_layout", "_memory", "_picture", "_raw", "_stored", "_stream", "_values", "__weakref__")

    def __init__(self, stream: Stream, last: Optional[bytes]) -> None:
        """Prepares the object before its frame comes. ``last`` is the frame before, of the same stream."""
        self._stream = stream
        self._stored = FrameInfo()
        self._memory: Optional[Memory] = Memory(_library.frame_release)
        self._raw = b""
        self._values: Optional[Values] = None
        self._layout: Optional[Layout] = None
        self._picture: Optional[Array] = None
        self._expected = None if last is None else stream.note(last)
        if self._expected is not None and stream.picture is not None:
            values = UNPACK.unpack(self._expected)
            if stream.has_layout(values) and not values[FLAGS] & _library.DISCONTINUITY:
                self._memory.address, self._memory.size = values[DATA], values[SIZE]
                self._picture = self._memory.plane(stream.picture)

    def _arrive(self, memory: Memory) -> None:
        """Takes over the frame that the library has stored."""
        raw, expected = bytes(self._stored), self._expected
        self._raw = raw
        if (
            self._picture is not None
            and expected is not None
            and raw[WHERE] == expected[WHERE]
            and raw[FORMAT] == expected[FORMAT]
            and raw[LAYOUT] == expected[LAYOUT]
            and raw[KIND] == expected[KIND]
        ):
            # The address, the caps, the planes and the flags are the expected ones, so the prepared array is right.
            return
        self._picture = None
        info, stream = self._info, self._stream
        # The pointer can be the same although the caps have changed, but then there is a discontinuity.
        if info[CAPS] != stream.pointer or info[FLAGS] & _library.DISCONTINUITY:
            text = ctypes.string_at(info[CAPS]).decode(errors="replace")
            if text != stream.caps.text:
                stream = self._stream = Stream(text)
            stream.pointer = info[CAPS]
        memory.address, memory.size = info[DATA], info[SIZE]

    @property
    def _info(self) -> Values:
        if self._values is None:
            self._values = UNPACK.unpack(self._raw)
        return self._values

    def __repr__(self) -> str:
        state = "released" if self._memory is None else "in place" if self.in_place else "a copy"
        return f"<rsshm.Frame {self.seq} of {self._info[SIZE]} bytes, {self.caps}, {state}>"

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
        return self._info[SEQ]

    @property
    def missed(self) -> int:
        """Number of frames that were lost or skipped since the reader returned the frame before this one."""
        return self._info[MISSED]

    @property
    def discontinuity(self) -> bool:
        """Whether this is the reader's first frame, or the first frame of a new writer or a new format, or frames before it
        are missing."""
        return bool(self._info[FLAGS] & _library.DISCONTINUITY)

    @property
    def in_place(self) -> bool:
        """Whether the bytes are in shared memory. Otherwise they are a copy."""
        return bool(self._info[FLAGS] & _library.IN_PLACE)

    @property
    def pts_ns(self) -> Optional[int]:
        """Time at which the picture was taken, in nanoseconds of CLOCK_MONOTONIC (``time.monotonic_ns()``)."""
        return time_or_none(self._info[PTS])

    @property
    def dts_ns(self) -> Optional[int]:
        """Time at which the frame has to be decoded, in nanoseconds."""
        return time_or_none(self._info[DTS])

    @property
    def duration_ns(self) -> Optional[int]:
        """Duration of the frame in nanoseconds."""
        return time_or_none(self._info[DURATION])

    @property
    def offset(self) -> Optional[int]:
        """The counter that the producer gave the frame (GST_BUFFER_OFFSET)."""
        return time_or_none(self._info[OFFSET])

    @property
    def flags(self) -> int:
        """The frame's flags, as GStreamer's GstBufferFlags."""
        return self._info[BUFFER_FLAGS]

    @property
    def is_key(self) -> bool:
        """Whether a reader can start with the frame. This is true for every frame of raw video and JPEG."""
        return bool(self._info[FLAGS] & _library.KEYFRAME)

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
        if self._info[METADATA_SIZE] == 0:
            return
        index = 0
        record = kind()
        while _library.check(function(memory.handle, index, ctypes.byref(record))) == _library.OK:
            yield record
            index += 1

    # Descriptors.

    def descriptor(self, plane: int = 0) -> Descriptor:
        """The memfd or dmabuf in which a plane of the frame is. It is valid as long as the frame or one of its arrays.

        Raises :class:`~rsshm.NoDescriptor` if the frame is in a slot of the channel or a copy.
        """
        if not isinstance(plane, int) or not 0 <= plane < 1 << 32:
            raise BadOption(f"plane is {plane!r}, not the number of a plane")
        found = _library.FdRecord()
        status = _library.check(_library.frame_fd(self._held().handle, plane, ctypes.byref(found)))
        if status == _library.OK:
            values = {name: getattr(found, name) for name in Descriptor._fields if name != "is_dmabuf"}
            return Descriptor(is_dmabuf=found.kind == _library.FD_DMABUF, **values)
        if self._info[FLAGS] & _library.FRAME_FD:
            raise BadOption(f"frame {self.seq} has no plane {plane}")
        where = "in a slot of the channel" if self.in_place else "a copy"
        raise NoDescriptor(f"frame {self.seq} has no descriptor, because it is {where}; use its arrays")

    def fileno(self, plane: int = 0) -> int:
        """The ``fd`` of :meth:`descriptor`, which also says at which offset the plane begins."""
        return self.descriptor(plane).fd

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
        if not stream.has_layout(info):
            stream.picture = None
            stream.layout, stream.size = self._new_layout(), info[SIZE]
        assert stream.layout is not None
        return stream.layout

    def _new_layout(self) -> Layout:
        info = self._info
        default = self.caps.layout
        if default is None:
            raise FormatError(f"these frames have no known raw format, so use frame.data: {self.caps}")
        self._check_planes(len(default.planes))
        places = PLANES[: len(default.planes)]
        offsets, strides = tuple(info[at] - info[DATA] for at in places), tuple(info[at + 1] for at in places)
        if (offsets, strides) == (default.offsets, default.strides):
            return default
        return default.with_planes(offsets, strides, info[SIZE])

    def _check_planes(self, least: int) -> None:
        # The library leaves planes out that are not inside the frame.
        if self._info[PLANE_COUNT] < least:
            size = self._info[SIZE]
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
        picture = layout.planes[0] if len(layout.planes) == 1 else layout.stacked()
        if picture is None:
            raise FormatError(f"the planes of this {layout.format} frame are not adjacent, so use frame.planes")
        if layout is self._stream.layout:
            self._stream.picture = picture
        return memory.plane(picture)

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
        if info[WIDTH] == 0:
            raise FormatError(f"these frames have no known raw format, so they cannot be converted: {self.caps}")
        self._check_planes(1)
        # The first plane has all rows of the picture. If a frame is a single field, these are fewer than the height.
        picture = numpy.empty((info[PLANES[0] + 3], info[WIDTH], 3), numpy.uint8)
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
