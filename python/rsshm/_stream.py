# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the frames of a stream share: their format, their layout, and what the reader prepares for the next frame.

After a wait of 16 ms, the code of Python and NumPy is not in the processor's caches any more, so that an array takes 60 us
instead of 2 us. The reader makes the array before the wait: the slots of a channel are used in turns, so the address of
the next frame is known in most cases.
"""

from __future__ import annotations

import struct
from typing import Dict, Optional, Tuple

from . import _library
from .caps import Layout, Plane, parse

Values = Tuple[int, ...]
"""The fields of rsshm_frame_info."""
UNPACK = struct.Struct("@II7QPNPNPPiiiiII" + "PqII" * _library.MAX_PLANES)
"""One call reads all fields, which is faster than a call of ctypes for each."""
FLAGS, SEQ, MISSED, PTS, DTS, DURATION, OFFSET = range(1, 8)
DATA, SIZE, METADATA_SIZE, CAPS, WIDTH, BUFFER_FLAGS, PLANE_COUNT = 9, 10, 12, 13, 15, 19, 20
PLANES = tuple(range(21, 21 + 4 * _library.MAX_PLANES, 4))
"""Where the four fields of each plane begin: its address, stride, row_bytes and rows."""

_OFFSET = {name: getattr(_library.FrameInfo, name).offset for name, *_ in _library.FrameInfo._fields_}
# Parts of the structure's bytes. To compare them is faster than to read the fields.
KIND = slice(_OFFSET["flags"], _OFFSET["seq"])
WHERE = slice(_OFFSET["data"], _OFFSET["metadata"])
FORMAT = slice(_OFFSET["caps"], _OFFSET["buffer_flags"])
LAYOUT = slice(_OFFSET["plane_count"], None)

MAX_ADDRESSES = 64


class Stream:
    """What the frames of a stream share."""

    __slots__ = ("_known", "_last", "caps", "layout", "picture", "pointer", "size")

    def __init__(self, text: str = "") -> None:
        self.caps = parse(text)
        self.pointer = 0
        """Where the library has the caps."""
        self.layout: Optional[Layout] = None
        """The layout of the last frame that was looked at, and its size."""
        self.size = 0
        self.picture: Optional[Plane] = None
        """How the array of a frame of this layout is made, if the program has used the last array."""
        self._known: Dict[bytes, bytes] = {}
        """The frame that followed the frame at an address."""
        self._last = b""

    def has_layout(self, values: Values) -> bool:
        """Whether the frame has the layout of the last frame."""
        layout = self.layout
        if layout is None or values[PLANE_COUNT] != len(layout.planes) or values[SIZE] != self.size:
            return False
        data = values[DATA]
        for at, plane in zip(PLANES, layout.planes):
            if values[at] - data != plane.offset or values[at + 1] != plane.stride:
                return False
        return True

    def note(self, raw: bytes) -> Optional[bytes]:
        """Notes a frame. Returns the frame whose memory the next frame will probably have."""
        # If no frame came in time, this is called again with the same frame.
        if raw is not self._last:
            if len(self._known) > MAX_ADDRESSES:
                self._known.clear()
            self._known[self._last[WHERE]] = raw
            self._last = raw
        return self._known.get(raw[WHERE])
