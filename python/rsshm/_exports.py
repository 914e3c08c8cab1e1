# SPDX-License-Identifier: MIT OR Apache-2.0
"""Frames for other packages: DLPack, NumPy's array protocol, and pictures for notebooks. ``Frame`` calls this module."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy

from .errors import Error, ReadOnly

if TYPE_CHECKING:
    from ._memory import Array
    from .frame import Frame

DEVICE = (1, 0)
"""DLPack's name of the memory of the processor: kDLCPU, device 0."""


def dlpack(frame: Frame, stream: Any, max_version: Optional[Tuple[int, int]], dl_device: Any, copy: Optional[bool]) -> Any:
    """The array as a DLPack capsule, which NumPy makes. It keeps the slot, as the array does."""
    given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
    array: Any = frame.array
    try:
        return array.__dlpack__(**{name: value for name, value in given.items() if value is not None})
    except (AttributeError, BufferError, TypeError):
        # NumPy before 1.22 has no DLPack, and NumPy before 2.1 neither these arguments nor read-only arrays.
        if array.flags.writeable:
            raise
        raise ReadOnly(
            f"frame {frame.seq} is read-only, which only DLPack 1.0 can express. That needs NumPy 2.1 or later (this is "
            f"{numpy.__version__}) and a package that asks for DLPack 1.0. Otherwise, pass it frame.array.copy()"
        ) from None


def as_array(frame: Frame, dtype: Any, copy: Optional[bool]) -> Array:
    """The array for ``numpy.asarray(frame)``, which asks for no copy, and ``numpy.array(frame)``."""
    array = frame.array
    if dtype is not None and numpy.dtype(dtype) != array.dtype:
        if copy is False:
            raise ValueError(f"frame {frame.seq} has samples of {array.dtype}, so that {numpy.dtype(dtype)} needs a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


def png(frame: Frame) -> Optional[bytes]:
    """The picture as PNG. None if it cannot be converted, or if the frame was released: the notebook then shows a text."""
    try:
        if frame.caps.media == "image/png":
            return frame.data.tobytes()
        return None if frame.caps.media == "image/jpeg" else encode_png(frame.to_rgb())
    except Error:
        return None


def jpeg(frame: Frame) -> Optional[bytes]:
    """The bytes of a JPEG frame. None for other frames."""
    try:
        return frame.data.tobytes() if frame.caps.media == "image/jpeg" else None
    except Error:
        return None


def encode_png(picture: Array) -> bytes:
    """An RGB picture as PNG, with the fastest compression."""
    height, width, _ = picture.shape
    rows = picture.reshape(height, width * 3)
    # PNG's filter 2, the difference to the row above, makes pictures of cameras smaller. The first byte of a row names it.
    filtered = numpy.full((height, 1 + width * 3), 2, numpy.uint8)
    filtered[0, 1:] = rows[0]
    numpy.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
