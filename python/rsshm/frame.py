# SPDX-License-Identifier: MIT OR Apache-2.0
"""A frame of a channel: its bytes as arrays, and its properties."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy

from . import _library
from ._library import library
from .caps import Caps, Layout, Plane
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

    __slots__ = ("_handle", "_release", "address", "size", "writable")

    def __init__(self, handle: int, release: Any, address: Optional[int], size: int, writable: bool) -> None:
        self._handle = handle
        # A reference of its own: at the end of the program, the names of this module may be gone before this object.
        self._release = release
        self.address = address
        self.size = size
        self.writable = writable

    def __del__(self) -> None:
        # In a forked child, the library does nothing here, because the memory belongs to the parent.
        self._release(self._handle)

    def view(self, offset: int, shape: Tuple[int, ...], dtype: str, strides: Optional[Tuple[int, ...]] = None) -> Array:
        """An array of a part of the memory, which it keeps. If the memory is not writable, neither is the array."""
        return numpy.asarray(_View(self, offset, shape, dtype, strides))

    def plane(self, plane: Plane) -> Array:
        """The plane as an array."""
        return self.view(plane.offset, plane.shape, plane.dtype, plane.strides)

    def bytes(self) -> Array:
        """All bytes as an array."""
        if self.size == 0:
            return numpy.empty(0, numpy.uint8)
        return self.view(0, (self.size,), "|u1")


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
            "data": ((memory.address or 0) + offset, not memory.writable),
            "shape": shape,
            "typestr": dtype,
            "strides": strides,
        }
