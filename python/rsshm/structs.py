# SPDX-License-Identifier: MIT OR Apache-2.0
"""Shares ctypes structures by name. One process writes a value, and any number of processes read it as a whole."""

from __future__ import annotations

import ctypes
import re
from types import TracebackType
from typing import Generic, Optional, Type, TypeVar

from .errors import BadOption, FormatError, Timeout
from .frame import Frame
from .reader import Reader
from .writer import Writer

MEDIA = "application/x-rsshm-struct"
_SLOTS = 8

S = TypeVar("S", bound=ctypes.Structure)


class StructChannel(Generic[S]):
    """A channel whose frames are values of one ctypes structure. :func:`struct_channel` creates it.

    The first :meth:`write` makes this process the writer of the channel. A channel has only one writer.
    """

    def __init__(self, name: str, structure: Type[S], perms: int = 0o600) -> None:
        if not (isinstance(structure, type) and issubclass(structure, (ctypes.Structure, ctypes.Union))):
            raise BadOption(f"channel {name}: {structure!r} is not a ctypes structure")
        self.structure = structure
        self._size = ctypes.sizeof(structure)
        if self._size == 0:
            raise BadOption(f"channel {name}: {structure.__name__} has no fields")
        self._perms = perms
        self._writer: Optional[Writer] = None
        self._reader = Reader(name, latest=True)
        self._last: Optional[S] = None

    def write(self, value: S) -> None:
        """Publishes the value as the newest one, under the channel's semaphore. Readers see the whole old or new value."""
        if not isinstance(value, self.structure):
            raise FormatError(f"channel {self.name}: the value has type {type(value).__name__}, not {self.structure.__name__}")
        if self._writer is None:
            text = f"{MEDIA}, name=(string){_quoted(self.structure.__name__)}, size=(int){self._size}"
            self._writer = Writer(self.name, caps=text, frame_size=self._size, perms=self._perms, max_slots=_SLOTS)
        self._writer.write(bytes(value))

    def read(self, timeout: Optional[float] = None) -> S:
        """A copy of the newest value. Waits for the first value if there is none yet."""
        try:
            # The reader skips all frames but the newest.
            self._last = self._value(self._reader.read(0))
        except Timeout:
            pass
        if self._last is None:
            return self.wait(timeout)
        return self.structure.from_buffer_copy(self._last)

    def wait(self, timeout: Optional[float] = None) -> S:
        """A copy of the newest value that this object has not returned yet. Waits until there is one."""
        self._last = self._value(self._reader.read(timeout))
        return self.structure.from_buffer_copy(self._last)

    def _value(self, frame: Frame) -> S:
        with frame:
            if frame.caps.media != MEDIA or frame.data.size != self._size:
                raise FormatError(
                    f"channel {self.name} has frames of {frame.data.size} bytes ({frame.caps}), "
                    f"{self.structure.__name__} has {self._size}"
                )
            return self.structure.from_buffer_copy(frame.data.tobytes())

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._reader.name

    def close(self) -> None:
        """Leaves the channel. If this object is the channel's writer, it also closes the channel."""
        self._reader.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __enter__(self) -> StructChannel[S]:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def _quoted(name: str) -> str:
    """The name as a text in caps. Bytes outside ASCII are octal numbers there."""
    escaped = re.sub(r'["\\]', r"\\\g<0>", name).encode()
    return '"' + "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in escaped) + '"'


def struct_channel(name: str, structure: Type[S], perms: int = 0o600) -> StructChannel[S]:
    """Shares a ctypes structure by name. ``perms`` is the mode of the segment, as in :class:`Writer`.

    >>> class Pose(ctypes.Structure):
    ...     _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]
    >>> rsshm.struct_channel("pose", Pose).write(Pose(1, 2))     # in one process
    >>> rsshm.struct_channel("pose", Pose).read().x              # in another
    1.0
    """
    return StructChannel(name, structure, perms)
