# SPDX-License-Identifier: MIT OR Apache-2.0
"""The lock file of a channel: its named semaphore, and the bytes that carry the locks.

Some peers hold the semaphore while they read the channel. A POSIX semaphore records no owner, and stays taken if its
holder dies. So every wait for the semaphore is short, and the writer repairs an invalid value. Only the locks show
which process owns the channel or a reader entry.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Iterable, Optional, Tuple

from . import _files, _libc, layout
from ._files import Aside, Identity, Name
from ._libc import KeptLock, Mapping, Semaphore
from .errors import Damaged

PATIENCE = 0.002
"""How long a publish waits for a semaphore that another process holds."""
STUCK = 1.0
"""How long a semaphore may stay taken before the writer sets it to 1."""

BY_OTHERS = "by others"
NAME_CHANGED = "name changed"


def control_mode(perms: int) -> int:
    """The mode of the lock file. It gives access to each class of users that may both read and write the segment."""
    return sum(bits for bits in (0o600, 0o060, 0o006) if perms & bits == bits)


class ControlFile:
    """The open file ``/dev/shm/sem.NAME``."""

    def __init__(self, name: Name, fd: int) -> None:
        """Takes over the file descriptor."""
        self.fd = fd
        self.channel = name.text
        self.path = name.control_path
        self.timeouts = 0
        """How often a wait for the semaphore ended after ``PATIENCE``, because another process still held it."""
        self._taken_since: Optional[float] = None
        size = os.fstat(fd).st_size
        if size < _libc.SEM_SIZE:
            raise Damaged(f"channel {name}: {self.path} has {size} bytes, but a semaphore has {_libc.SEM_SIZE}")
        self.identity: Identity = _files.identity(fd)
        self._semaphore = Semaphore(Mapping(fd, 0, _libc.SEM_SIZE, True))

    @classmethod
    def open(cls, name: Name) -> Optional[ControlFile]:
        """Opens the lock file. None if it does not exist."""
        try:
            fd = _files.open_existing(name.control_path, True)
        except OSError as error:
            raise _files.open_error(name.text, name.control_path, "use", error) from error
        return None if fd is None else cls(name, fd)

    @classmethod
    def create(cls, name: Name, perms: int) -> Optional[Tuple[ControlFile, KeptLock]]:
        """Creates a lock file whose semaphore has the value 1. None if another process has just created the file.

        The writer's byte is locked before another process can find the file.
        """
        try:
            with Aside() as aside:
                os.posix_fallocate(aside.fd, 0, _libc.SEM_SIZE)
                locked = aside.open_again()
                _libc.try_lock(locked, layout.WRITER_BYTE)
                lock = KeptLock(locked)
                control = cls(name, aside.open_again())
                control.initialise()
                os.fchmod(aside.fd, control_mode(perms))
                aside.place(control.path, False)
                return control, lock
        except FileExistsError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise _no_space(name) from error
            raise _files.create_error(name.text, name.control_path, error) from error

    def initialise(self) -> None:
        """Overwrites the bytes with a semaphore of value 1."""
        self._semaphore.init(1)

    def take_first(self, bytes_: Iterable[int]) -> Tuple[Optional[int], Optional[KeptLock], str]:
        """Locks the first free byte of ``bytes_``. Returns the byte and its lock, or why no byte was locked."""
        try:
            fd = _files.open_existing(self.path, True)
        except OSError as error:
            raise _files.open_error(self.channel, self.path, "use", error) from error
        if fd is None:
            return None, None, NAME_CHANGED
        try:
            if _files.identity(fd) != self.identity:
                return None, None, NAME_CHANGED
            for byte in bytes_:
                if _libc.try_lock(fd, byte):
                    kept, fd = KeptLock(fd), -1
                    return byte, kept, ""
            return None, None, BY_OTHERS
        finally:
            if fd >= 0:
                os.close(fd)

    def is_locked(self, byte: int) -> bool:
        """Whether another process has locked the byte."""
        return _libc.is_locked(self.fd, byte)

    def acquire(self) -> bool:
        """Takes the semaphore if it becomes free soon. If it returns False, the caller continues without the semaphore.

        Before this call, the caller takes a lock of its own. It keeps that lock until :meth:`give_back` has returned.
        """
        semaphore = self._semaphore
        semaphore.mend_kind()
        taken = semaphore.take()
        if not taken:
            if self._taken_since is None:
                taken = semaphore.take_within(PATIENCE)
                if not taken:
                    self.timeouts += 1
                    self._taken_since = time.monotonic()
            elif time.monotonic() - self._taken_since > STUCK:
                # Several processes may have held it since, each for a moment. So wait once more before setting it to 1.
                taken = semaphore.take_within(PATIENCE)
                if not taken:
                    semaphore.give_back()
                    taken = semaphore.take()
        if taken:
            self._taken_since = None
        return taken

    def give_back(self, taken: bool) -> None:
        """Releases the semaphore if :meth:`acquire` took it. The semaphore's value is then 1."""
        if taken:
            self._semaphore.give_back()

    def mend(self) -> None:
        """Repairs the semaphore if it has been taken for too long, or is damaged. Each publish repairs it too."""
        self._semaphore.mend_kind()
        if self._taken_since is not None and time.monotonic() - self._taken_since > STUCK:
            self.give_back(self.acquire())

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            os.close(self.fd)


def _no_space(name: Name) -> Exception:
    fd = os.open(_files.SHM_DIR, os.O_RDONLY)
    try:
        return _files.no_space(name.text, _libc.SEM_SIZE, "", fd)
    finally:
        os.close(fd)


def repair(name: Name) -> bool:
    """Enlarges a lock file of this user that is too short for a semaphore. Returns whether it was too short."""
    try:
        fd = _files.open_existing(name.control_path, True)
    except OSError:
        return False
    if fd is None:
        return False
    try:
        _files.require_own(name.text, name.control_path, fd)
        damaged = os.fstat(fd).st_size < _libc.SEM_SIZE
        if damaged:
            os.posix_fallocate(fd, 0, _libc.SEM_SIZE)
        return damaged
    finally:
        os.close(fd)
