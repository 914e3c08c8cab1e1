# SPDX-License-Identifier: MIT OR Apache-2.0
"""rsshm in Python: the frames of a camera in POSIX shared memory, as NumPy arrays, without a copy.

A channel has one :class:`Writer` and any number of :class:`Reader`, in unrelated programs.
The writer or a reader may also be one of the GStreamer elements rsshmsink and rsshmsrc, or a program in Rust.
See README.md beside this package, and docs/PROTOCOL.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._library import channels
from .caps import FORMATS, Caps, Layout, Plane
from .capture import VideoCapture
from .errors import (
    BadName,
    BadOption,
    Busy,
    Closed,
    Damaged,
    Denied,
    EndOfStream,
    Error,
    Foreign,
    FormatError,
    MissingOpenCV,
    NoDescriptor,
    NoSpace,
    ReadOnly,
    Released,
    SystemCall,
    Timeout,
)
from .frame import Descriptor, Frame, Metadata, Region, TimeCode
from .reader import Event, Observer, Reader
from .slot import Slot
from .structs import StructChannel, struct_channel
from .synced import Synchronizer, sync
from .writer import Writer

if TYPE_CHECKING:
    from . import aio

__version__ = "0.1.0"

__all__ = [
    "BadName",
    "BadOption",
    "Busy",
    "Caps",
    "Closed",
    "Damaged",
    "Denied",
    "Descriptor",
    "EndOfStream",
    "Error",
    "Event",
    "FORMATS",
    "Foreign",
    "FormatError",
    "Frame",
    "Layout",
    "Metadata",
    "MissingOpenCV",
    "NoDescriptor",
    "NoSpace",
    "Observer",
    "Plane",
    "ReadOnly",
    "Reader",
    "Region",
    "Released",
    "Slot",
    "StructChannel",
    "Synchronizer",
    "SystemCall",
    "TimeCode",
    "Timeout",
    "VideoCapture",
    "Writer",
    "aio",
    "channels",
    "struct_channel",
    "sync",
]


def __getattr__(name: str) -> Any:
    """Imports ``rsshm.aio`` when it is used, because the import of asyncio takes 40 ms."""
    if name == "aio":
        from importlib import import_module

        return import_module("rsshm.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
