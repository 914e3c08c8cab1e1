# SPDX-License-Identifier: MIT OR Apache-2.0
"""The C library librsshm: where it is, its structures, and its functions. capi/include/rsshm.h documents them."""

from __future__ import annotations

import ctypes
import os
import re
import time
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Callable, Dict, List, Optional, Type

from .errors import BadName, BadOption, Busy, Closed, Damaged, Denied, Error, Foreign, FormatError, NoSpace, SystemCall

SONAME = "librsshm.so.0"
ABI = 1
"""The least number of the C interface that this package needs."""

OK, TIMEOUT, EOS, NO_WRITER, WOKEN, DROPPED, EVICTED, NOTHING, EVENT = range(9)
E_STATE = -4
TIME_NONE = (1 << 64) - 1
TIME_NOW = TIME_NONE - 1
MAX_PLANES = 4

IN_PLACE, KEYFRAME, DISCONTINUITY = 1, 2, 4  # RSSHM_FRAME_...
FRAME_FD = 16
FD_DMABUF = 2
READ_ONLY, COPY, EVENTS = 1, 2, 4
LOSSLESS, SPARE = 1, 2
KEEP = 4

_ERRORS: Dict[int, Type[Error]] = {
    -1: BadOption,
    -2: Closed,
    -3: Closed,
    -5: Busy,
    -6: Denied,
    -7: NoSpace,
    -9: Damaged,
    -10: Closed,
    -11: SystemCall,
    -13: BadName,
    -14: FormatError,
    -15: Foreign,
}
_FUNCTION = re.compile(r"^rsshm_\w+: ")


class Sized(ctypes.Structure):
    """A structure that begins with its size, so that the library knows which fields it has."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


class PlaneData(ctypes.Structure):
    """rsshm_plane."""

    _fields_ = [("data", c_void_p), ("stride", c_int64), ("row_bytes", c_uint32), ("rows", c_uint32)]


class FrameInfo(Sized):
    """rsshm_frame_info."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("seq", c_uint64),
        ("missed", c_uint64),
        ("pts_ns", c_uint64),
        ("dts_ns", c_uint64),
        ("duration_ns", c_uint64),
        ("offset", c_uint64),
        ("offset_end", c_uint64),
        ("data", c_void_p),
        ("size", c_size_t),
        ("metadata", c_void_p),
        ("metadata_size", c_size_t),
        ("caps", c_char_p),
        ("format", c_char_p),
        ("width", c_int32),
        ("height", c_int32),
        ("fps_n", c_int32),
        ("fps_d", c_int32),
        ("buffer_flags", c_uint32),
        ("plane_count", c_uint32),
        ("planes", PlaneData * MAX_PLANES),
    ]


class FdRecord(Sized):
    """rsshm_fd."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("fd", c_int32),
        ("kind", c_uint32),
        ("drm_format", c_uint32),
        *((name, c_uint64) for name in ("drm_modifier", "object", "object_size", "offset", "size")),
        ("stride", c_int64),
    ]


class MetadataRecord(Sized):
    """rsshm_metadata."""

    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32), ("data", c_void_p), ("size", c_size_t)]


class RegionRecord(Sized):
    """rsshm_region."""

    _fields_ = [
        ("struct_size", c_uint32),
        *((name, c_uint32) for name in ("x", "y", "width", "height")),
        ("id", c_int32),
        ("parent_id", c_int32),
        ("name_size", c_uint32),
        ("name", c_void_p),
    ]


class TimeCodeRecord(Sized):
    """rsshm_time_code."""

    _fields_ = [
        (name, c_uint32)
        for name in ("struct_size", "flags", "fps_n", "fps_d", "hours", "minutes", "seconds", "frames", "field_count")
    ]


class EventRecord(Sized):
    """rsshm_event."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("time_ns", c_uint64),
        ("duration_ns", c_uint64),
        ("data", c_void_p),
        ("size", c_size_t),
        ("text", c_char_p),
    ]


class ReaderOptions(Sized):
    """rsshm_reader_options."""

    _fields_ = [(name, c_uint32) for name in ("struct_size", "flags", "max_behind", "max_held")]


class ReaderStats(Sized):
    """rsshm_reader_stats."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("connected", c_uint32),
        *((name, c_uint64) for name in ("received", "in_place", "copied", "missed", "reconnects")),
        ("writer_pid", c_uint32),
        ("observes", c_uint32),
        ("latency_ns", c_uint64),
    ]


class WriterOptions(Sized):
    """rsshm_writer_options."""

    _fields_ = [
        *((name, c_uint32) for name in ("struct_size", "flags", "perms", "max_slots", "stride_align", "spare_buffers")),
        ("max_wait_ns", c_int64),
    ]


class WriterStats(Sized):
    """rsshm_writer_stats."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("readers", c_uint32),
        *((name, c_uint64) for name in ("published", "dropped", "head", "missed_by_readers", "evicted", "segments")),
        ("semaphore_timeouts", c_uint64),
        ("bytes", c_uint64),
        *((name, c_uint32) for name in ("slots", "max_slots", "slots_in_use", "lossless")),
    ]


class SlotInfo(Sized):
    """rsshm_slot_info."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("plane_count", c_uint32),
        ("data", c_void_p),
        ("size", c_size_t),
        ("planes", PlaneData * MAX_PLANES),
    ]


class PublishInfo(Sized):
    """rsshm_publish_info."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        *((name, c_uint64) for name in ("pts_ns", "dts_ns", "duration_ns", "offset")),
        ("size", c_size_t),
        ("metadata", c_char_p),
        ("metadata_size", c_size_t),
        ("offset_end", c_uint64),
        ("seq", c_void_p),
        ("buffer_flags", c_uint32),
        ("reserved", c_uint32),
    ]


class PlaneLayout(ctypes.Structure):
    """rsshm_plane_layout."""

    _fields_ = [
        ("offset", c_uint64),
        ("stride", c_int64),
        *((name, c_uint32) for name in ("row_bytes", "rows", "pixel_bytes", "sample_bytes")),
    ]


class LayoutInfo(Sized):
    """rsshm_layout."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("plane_count", c_uint32),
        ("size", c_uint64),
        ("bits", c_uint32),
        ("big_endian", c_uint32),
        ("planes", PlaneLayout * MAX_PLANES),
    ]


_HOW = (
    "install the wheel of this package, which has the library, or the Debian package librsshm0, or run `make install-capi` "
    "(`make python` for the sources alone)"
)


def _load() -> str:
    """The name by which the system finds the library: the file beside this one, or else the system's library."""
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), SONAME)
    name = own if os.path.exists(own) else SONAME
    try:
        abi = ctypes.CDLL(name).rsshm_abi()
    except (OSError, AttributeError) as error:
        raise ImportError(f"the library {SONAME}, which this package needs, cannot be loaded ({error}): {_HOW}") from None
    if abi < ABI:
        raise ImportError(f"{name} has version {abi} of its interface, but this package needs {ABI} or later: {_HOW}")
    return name


_NAME = _load()
_WAITING = ctypes.CDLL(_NAME)
"""The library for calls that may wait or copy. Other threads of Python run meanwhile."""
_SHORT = ctypes.PyDLL(_NAME)
"""The library for calls that return at once. They keep the interpreter's lock, because to take it again can take longer."""


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name, None)
    if function is None:
        raise ImportError(f"{_NAME} has no function {name}, so it is older than this package: {_HOW}")
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


# Arguments that are structures are pointers: `ctypes.byref` of the structure.
_text = _function(_SHORT, "rsshm_error", c_char_p)
_status_name = _function(_SHORT, "rsshm_status_name", c_char_p, c_int32)

frame_release = _function(_SHORT, "rsshm_frame_release", c_int32, c_void_p)
frame_convert = _function(_WAITING, "rsshm_frame_convert", c_int32, c_void_p, c_char_p, c_void_p, c_int64)
frame_fd = _function(_SHORT, "rsshm_frame_fd", c_int32, c_void_p, c_uint32, c_void_p)
frame_metadata = _function(_SHORT, "rsshm_frame_metadata", c_int32, c_void_p, c_uint32, c_void_p)
frame_region = _function(_SHORT, "rsshm_frame_region", c_int32, c_void_p, c_uint32, c_void_p)
frame_time_code = _function(_SHORT, "rsshm_frame_time_code", c_int32, c_void_p, c_uint32, c_void_p)

reader_open = _function(_WAITING, "rsshm_reader_open", c_int32, c_char_p, c_void_p, POINTER(c_void_p))
reader_next = _function(_WAITING, "rsshm_reader_next_info", c_int32, c_void_p, c_int64, c_void_p, c_void_p)
reader_fd = _function(_WAITING, "rsshm_reader_fd", c_int, c_void_p)
reader_request_keyframe = _function(_WAITING, "rsshm_reader_request_keyframe", c_int32, c_void_p, c_uint64)
reader_get_event = _function(_SHORT, "rsshm_reader_get_event", c_int32, c_void_p, c_void_p)
reader_observing = _function(_SHORT, "rsshm_reader_observing", c_char_p, c_void_p)
reader_get_stats = _function(_SHORT, "rsshm_reader_get_stats", c_int32, c_void_p, c_void_p)
reader_close = _function(_WAITING, "rsshm_reader_close", c_int32, c_void_p)

writer_open = _function(_WAITING, "rsshm_writer_open", c_int32, c_char_p, c_void_p, POINTER(c_void_p))
writer_caps = _function(_WAITING, "rsshm_writer_caps", c_int32, c_void_p, c_char_p, c_size_t)
writer_claim = _function(_WAITING, "rsshm_writer_claim", c_int32, c_void_p, c_size_t, c_void_p, c_void_p)
slot_publish = _function(_WAITING, "rsshm_slot_publish", c_int32, c_void_p, c_void_p)
slot_release = _function(_SHORT, "rsshm_slot_release", c_int32, c_void_p)
writer_write = _function(_WAITING, "rsshm_writer_write", c_int32, c_void_p, c_void_p, c_uint32, c_void_p)
writer_write_bytes = _function(_WAITING, "rsshm_writer_write_bytes", c_int32, c_void_p, c_void_p, c_size_t, c_void_p)
writer_end_of_stream = _function(_WAITING, "rsshm_writer_end_of_stream", c_int32, c_void_p)
writer_wait_for_reader = _function(_WAITING, "rsshm_writer_wait_for_reader", c_int32, c_void_p, c_int64)
writer_keyframe_wanted = _function(_SHORT, "rsshm_writer_keyframe_wanted", c_int32, c_void_p)
writer_readers = _function(_WAITING, "rsshm_writer_readers", c_int, c_void_p)
writer_get_stats = _function(_WAITING, "rsshm_writer_get_stats", c_int32, c_void_p, c_void_p)
writer_set_latency = _function(_WAITING, "rsshm_writer_set_latency", c_int32, c_void_p, c_uint64)
writer_close = _function(_WAITING, "rsshm_writer_close", c_int32, c_void_p)

_channels = _function(_WAITING, "rsshm_channels", c_int32, c_void_p, c_size_t, c_void_p)
_caps_parts = _function(_SHORT, "rsshm_caps_parts", c_int32, c_char_p, c_void_p, c_size_t, c_void_p)
_video_formats = _function(_SHORT, "rsshm_video_formats", c_int32, c_void_p, c_size_t, c_void_p)
_video_layout = _function(_SHORT, "rsshm_video_layout", c_int32, c_char_p, c_int32, c_int32, c_uint32, c_void_p)


def error_text() -> str:
    """The text of this thread's last error, without the name of the C function."""
    return _FUNCTION.sub("", (_text() or b"").decode(errors="replace"))


def error(status: int, channel: str = "") -> Error:
    """The exception for the error that the library has just returned in this thread."""
    text = error_text()
    if channel and channel not in text:
        text = f"channel {channel}: {text}"
    return _ERRORS.get(status, Error)(text)


def check(status: int, channel: str = "") -> int:
    """The status, unless it is an error, which is raised."""
    if status < 0:
        raise error(status, channel)
    return status


def open_handle(function: Callable[..., int], name: str, options: Sized) -> int:
    """The handle of a new reader or writer."""
    encoded = os.fsencode(name)
    handle = c_void_p()
    status = -13 if b"\0" in encoded else function(encoded, ctypes.byref(options), ctypes.byref(handle))
    if _ERRORS.get(status) is BadName:
        reason = "it contains a NUL" if b"\0" in encoded else error_text().rpartition(": ")[2]
        raise BadName(f"{name!r} is not valid as the name of a channel: {reason}")
    check(status, name)
    return handle.value or 0


LONGEST_WAIT = 0.2
"""The longest wait in one call of the library, in seconds. Ctrl-C ends a wait only between two calls."""


def wait_ns(deadline: Optional[float]) -> int:
    """How long the next call may wait, in nanoseconds, before ``deadline`` (of ``time.monotonic()``) or without one."""
    if deadline is None:
        return int(LONGEST_WAIT * 1e9)
    return int(min(max(deadline - time.monotonic(), 0), LONGEST_WAIT) * 1e9)


def time_or_none(value: int) -> Optional[int]:
    """The time, or None for RSSHM_TIME_NONE."""
    return None if value == TIME_NONE else value


def _texts(function: Callable[..., int], *arguments: Any) -> List[bytes]:
    """The texts of a function that stores a list of them, each with a NUL, with an empty one at the end."""
    size, needed = 1024, c_size_t()
    while True:
        memory = ctypes.create_string_buffer(size)
        status = function(*arguments, memory, size, ctypes.byref(needed))
        if needed.value <= size:
            check(status)
            return memory.raw[: needed.value].split(b"\0")[:-2]
        # The list may grow meanwhile.
        size = needed.value + 1024


def channels() -> List[str]:
    """The names of all channels of this machine that this user can see."""
    return [os.fsdecode(name) for name in _texts(_channels)]


def video_formats() -> List[str]:
    """The names of all formats of raw video that the library knows."""
    return [name.decode() for name in _texts(_video_formats)]


def caps_parts(caps: str) -> List[str]:
    """The parts of fixed caps: the media type, the features, and then a name and a value for each field."""
    return [part.decode(errors="replace") for part in _texts(_caps_parts, caps.encode())]


def video_layout(format: str, width: int, height: int, align: int) -> LayoutInfo:
    """The layout of frames of a format. Each row begins at a multiple of ``align``."""
    info = LayoutInfo()
    check(_video_layout(format.encode(), width, height, align, ctypes.byref(info)))
    return info
