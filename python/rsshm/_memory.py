# SPDX-License-Identifier: MIT OR Apache-2.0
"""Arrays of memory that the library lends out: the bytes of a frame, or of a claimed slot."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

import numpy

from .caps import Plane

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]
else:
    # NumPy before 1.22 has no `ndarray[...]` when a program runs.
    Array = numpy.ndarray


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
