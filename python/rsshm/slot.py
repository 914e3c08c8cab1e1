# SPDX-License-Identifier: MIT OR Apache-2.0
"""A slot that a program draws into, and what a writer says about a frame."""

from __future__ import annotations

import ctypes
import struct
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Sequence, Tuple, Type

from . import _library
from ._library import PublishInfo
from ._memory import Array, Memory
from .caps import Layout
from .errors import BadOption, FormatError, Released
from .frame import Metadata

if TYPE_CHECKING:
    from .writer import Writer


class FrameDescription:
    """What goes with the bytes of a frame, and the seq that the frame gets."""

    __slots__ = ("_metadata", "info", "pointer", "seq")

    def __init__(self, writer: Writer, flags: int = 0) -> None:
        self.seq = ctypes.c_uint64()
        self.info = PublishInfo(
            flags=flags,
            pts_ns=_library.TIME_NOW,
            dts_ns=_library.TIME_NONE,
            duration_ns=writer._period,
            offset=_library.TIME_NONE,
            offset_end=_library.TIME_NONE,
            seq=ctypes.addressof(self.seq),
        )
        self.pointer = ctypes.byref(self.info)

    def describe(
        self, writer: Writer, pts: Optional[int], duration: Optional[int], flags: int, metadata: Sequence[Metadata]
    ) -> None:
        info = self.info
        if pts is not None:
            info.pts_ns = pts
        if duration is not None:
            info.duration_ns = duration
        info.buffer_flags = flags
        try:
            # The structure refers to these bytes.
            self._metadata = b"".join(struct.pack("=HH", kind, len(data)) + data for kind, data in metadata)
        except (struct.error, TypeError, ValueError) as error:
            raise BadOption(
                f"channel {writer.name}: metadata must be records with a kind and bytes, each below 65536: {error}"
            ) from None
        info.metadata, info.metadata_size = self._metadata, len(self._metadata)


class Slot:
    """A slot to draw a frame into. ``with writer.buffer() as slot:`` publishes it at the end, unless an error is raised.

    A published slot belongs to the readers, so the arrays of the slot are then read-only.
    Arrays that you derived from these arrays are still writable, so do not keep them.
    """

    def __init__(self, writer: Writer, size: int, layout: Optional[Layout]) -> None:
        self._writer = writer
        self._layout = layout
        # Made before the frame is drawn, because work after drawing adds to the latency.
        self._info = FrameDescription(writer, flags=_library.KEEP)
        self.pts_ns: Optional[int] = None
        """Time at which the picture was taken, in nanoseconds of CLOCK_MONOTONIC. None means the time of publishing."""
        self.duration_ns: Optional[int] = None
        """Duration of the frame in nanoseconds. None means one period of ``fps``."""
        self.flags = 0
        """GstBufferFlags."""
        self.metadata: Sequence[Metadata] = ()
        """Records that go with the picture."""
        self.seq: Optional[int] = None
        """The seq of the frame. None before it is published, and if it was dropped because readers held every slot."""
        self._done = False
        self._memory: Optional[Memory] = writer._claim(size)
        self._arrays: Optional[Tuple[Array, ...]] = None
        self._data: Optional[Array] = None

    @property
    def planes(self) -> Tuple[Array, ...]:
        """A writable array for each plane."""
        memory = self._held()
        if self._layout is None:
            raise FormatError("these frames are not raw pictures: write to slot.data")
        if self._arrays is None:
            self._arrays = tuple(map(memory.plane, self._layout.planes))
        return self._arrays

    @property
    def array(self) -> Array:
        """The picture as a writable array. A format with several planes has :attr:`planes` instead."""
        if self._layout is None:
            return self.data
        if len(self._layout.planes) > 1:
            raise FormatError(f"{self._layout.format} has several planes: draw into slot.planes")
        return self.planes[0]

    @property
    def data(self) -> Array:
        """The bytes of the slot, as a writable array."""
        memory = self._held()
        if self._data is None:
            self._data = memory.bytes()
        return self._data

    def publish(self) -> Optional[int]:
        """Publishes the frame. Returns its seq, or None if it was dropped because readers held every slot."""
        memory = self._held()
        self._done = True
        try:
            self.seq = self._publish(memory)
        finally:
            # Do this after publishing, because readers wait for the frame.
            for array in (*(self._arrays or ()), *(() if self._data is None else (self._data,))):
                array.setflags(write=False)
            self._let_go()
        return self.seq

    def _publish(self, memory: Memory) -> Optional[int]:
        info = self._info
        if self.pts_ns is not None or self.duration_ns is not None or self.flags or self.metadata:
            info.describe(self._writer, self.pts_ns, self.duration_ns, self.flags, self.metadata)
        status = _library.slot_publish(memory.handle, info.pointer)
        # If the format has changed since the claim, readers do not want the frame any more.
        if status < 0 and status != _library.E_STATE:
            self._writer._check(status)
        return info.seq.value or None

    def discard(self) -> None:
        """Discards the slot without publishing it."""
        self._done = True
        self._let_go()

    def _let_go(self) -> None:
        # Arrays that the program still has keep the slot; this object does not.
        self._memory = self._arrays = self._data = None

    def _held(self) -> Memory:
        if self._done or self._memory is None:
            raise Released("the slot was published or discarded: get another with writer.buffer()")
        return self._memory

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._done:
            return
        if kind is None:
            self.publish()
        else:
            self.discard()
