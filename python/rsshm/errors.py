"""What can go wrong, said so that a user can act on it."""

from __future__ import annotations


class Error(Exception):
    """The base of all errors of this package."""


class BadName(Error, ValueError):
    """The name cannot be a channel's."""


class BadOption(Error, ValueError):
    """An option's value does not work."""


class FormatError(Error, ValueError):
    """The format, shape or type of an array is not what the channel has, or is one that this package does not know."""


class Timeout(Error, TimeoutError):
    """Nothing came in time: no writer, or no frame."""


class EndOfStream(Error, EOFError):
    """The writer ended the stream. Another may follow: reading again waits for it."""


class Closed(Error, ValueError):
    """The reader or writer was closed, or belongs to the process that this one was forked from."""


class Released(Error, ValueError):
    """The frame was given back, or the slot published."""


class Busy(Error):
    """Another writer that is alive has the channel."""


class Foreign(Error):
    """A file under the channel's name belongs to somebody else, or is something else."""


class Denied(Error, PermissionError):
    """The permissions of the channel's files do not let this user in."""


class NoSpace(Error, OSError):
    """The shared memory file system is full."""


class Damaged(Error):
    """The segment is of another version of the protocol, or makes no sense."""


class SystemCall(Error, OSError):
    """A system call failed in a way that has no better name here."""


class MissingOpenCV(Error, ImportError):
    """A conversion was asked for that OpenCV does, and the module cv2 is not there."""
