# SPDX-License-Identifier: MIT OR Apache-2.0
"""The errors of this package. Each message says what the user can do."""

from __future__ import annotations

import errno
import io


class Error(Exception):
    """The base of all errors of this package."""


class BadName(Error, ValueError):
    """The name is not valid for a channel."""


class BadOption(Error, ValueError):
    """The value of an option is not valid."""


class FormatError(Error, ValueError):
    """The format, shape or type of an array differs from the channel's, or this package does not know it."""


class Timeout(Error, TimeoutError):
    """No writer or no frame came in time."""


class EndOfStream(Error, EOFError):
    """The writer ended the stream. The next read waits for another stream."""


class Closed(Error, ValueError):
    """The reader or writer is closed, or belongs to the parent process and this process is a forked child."""


class Released(Error, ValueError):
    """The frame was released, or the slot was published or discarded."""


class Busy(Error):
    """The channel has another writer, which is alive."""


class Foreign(Error):
    """A file under the channel's name belongs to another user, or is not a channel."""


class Denied(Error, PermissionError):
    """The permissions of the channel's files forbid what this user tried."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.errno = errno.EACCES


class NoSpace(Error, OSError):
    """The shared memory file system is full, or a memory limit leaves too little memory."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.errno = errno.ENOSPC


class Damaged(Error):
    """The segment has another version of the protocol, or contains garbage."""


class SystemCall(Error, OSError):
    """Another system call failed, or /dev/shm or the directory that ``RSSHM_DIR`` names cannot have channels."""


class ReadOnly(Error, BufferError):
    """Another package needs a writable array, but frames are read-only."""


class NoDescriptor(Error, io.UnsupportedOperation):
    """The frame has no descriptor of its own: it is in a slot of the channel, or a copy."""


class MissingOpenCV(Error, ImportError):
    """A conversion needs OpenCV, and the module cv2 is not installed."""
