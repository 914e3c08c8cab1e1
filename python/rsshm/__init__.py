# SPDX-License-Identifier: MIT OR Apache-2.0
"""rsshm in Python: the frames of a camera in POSIX shared memory, as NumPy arrays, without a copy.

A channel has one :class:`Writer` and any number of :class:`Reader`, in unrelated programs.
The writer or a reader may also be one of the GStreamer elements rsshmsink and rsshmsrc, or a program in Rust.
See README.md beside this package, and docs/PROTOCOL.md.
"""

from ._library import channels
from .caps import FORMATS, Caps, Layout, Plane
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
    NoSpace,
    Released,
    SystemCall,
    Timeout,
)
from .frame import Frame, Metadata, Region, TimeCode
from .reader import Event, Observer, Reader
from .slot import Slot
from .structs import StructChannel, struct_channel
from .writer import Writer

__version__ = "0.1.0"

__all__ = [
    "BadName",
    "BadOption",
    "Busy",
    "Caps",
    "Closed",
    "Damaged",
    "Denied",
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
    "NoSpace",
    "Observer",
    "Plane",
    "Reader",
    "Region",
    "Released",
    "Slot",
    "StructChannel",
    "SystemCall",
    "TimeCode",
    "Timeout",
    "Writer",
    "channels",
    "struct_channel",
]
