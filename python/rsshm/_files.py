# SPDX-License-Identifier: MIT OR Apache-2.0
"""The two files of a channel in /dev/shm, and the staging files that become them."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from typing import List, Optional, Tuple

from . import _libc, layout
from ._memory import Limit, tightest
from .errors import BadName, Denied, Error, Foreign, NoSpace, SystemCall

SHM_DIR = "/dev/shm"
ASIDE_PREFIX = ".rsshm-"
"""The prefix of staging files. No channel name begins with it."""

Identity = Tuple[int, int]
"""Device and inode. They identify a file even if its name changes."""


class Name:
    """A valid name of a channel."""

    def __init__(self, name: str) -> None:
        encoded = os.fsencode(name)
        reason = None
        if not encoded:
            reason = "it is empty"
        elif len(encoded) > 250:
            reason = "it is longer than 250 bytes"
        elif b"/" in encoded:
            reason = "it contains a slash"
        elif b"\0" in encoded:
            reason = "it contains a NUL"
        elif encoded.startswith(b"sem."):
            reason = 'the prefix "sem." is reserved for the files of semaphores'
        elif name.startswith(ASIDE_PREFIX):
            reason = f'the prefix "{ASIDE_PREFIX}" is reserved for staging files'
        elif name in (".", ".."):
            reason = "it is the name of a directory"
        if reason:
            raise BadName(f"{name!r} is not valid as the name of a channel: {reason}")
        self.text = name
        self.segment_path = f"{SHM_DIR}/{name}"
        self.control_path = f"{SHM_DIR}/sem.{name}"

    def __str__(self) -> str:
        return self.text


def identity(fd: int) -> Identity:
    """The identity of an open file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def identity_of(path: str) -> Optional[Identity]:
    """The identity of the file that has the name now. None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_existing(path: str, writable: bool) -> Optional[int]:
    """Opens a file. None if it does not exist. Does not create it, follow a link, or block on a pipe."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return None


def is_denied(error: OSError) -> bool:
    """Whether the call failed because of the permissions."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def open_error(channel: str, path: str, action: str, error: OSError) -> Error:
    """The error of a failed open. Its message says what the user can do."""
    try:
        found = os.lstat(path)
    except OSError:
        found = None
    if found is not None and error.errno in (errno.EACCES, errno.EPERM):
        return Denied(
            f"channel {channel}: no permission to {action} {path} (mode {found.st_mode & 0o7777:04o}, owner: user "
            f"{found.st_uid}); perms of the writer sets the mode: 0644 lets others read, 0660 lets the group attach fully"
        )
    if found is not None and not stat.S_ISREG(found.st_mode):
        return Foreign(f"channel {channel}: {path} {_describe(found.st_mode)}; choose another name, or remove the file")
    return create_error(channel, path, error, "opening")


def create_error(channel: str, path: str, error: OSError, call: str = "creating") -> Error:
    """The error of a file that could not be created or opened. Its message says what the user can do. It names the channel's
    file, because the name of a staging file means nothing to a user."""
    what = _directory_fault(error.errno or 0)
    if what is None:
        return system(channel, f"{call} {path}", error)
    kind = Denied if is_denied(error) else SystemCall
    return kind(error.errno, f"channel {channel}: {call} {path} failed: {os.strerror(error.errno or 0)}; {what}")


def _directory_fault(number: int) -> Optional[str]:
    """What is wrong with the shared memory directory, and what to do. None if the directory does not explain the error."""
    mount = f"mount -t tmpfs -o mode=1777 tmpfs {SHM_DIR}"
    containers = "in a container, docker run --shm-size=... or --ipc=..."
    try:
        found = os.stat(SHM_DIR)
    except OSError:
        return f"there is no {SHM_DIR}: create it and mount it ({mount}; {containers})"
    if not stat.S_ISDIR(found.st_mode):
        return f"{SHM_DIR} is not a directory: replace it ({mount}; {containers})"
    if number == errno.EROFS:
        return f"{SHM_DIR} is mounted read-only: mount -o remount,rw {SHM_DIR}"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"this user may not create or open files in {SHM_DIR} (its mode is {found.st_mode & 0o7777:04o}, its owner user "
            f"{found.st_uid}): chmod 1777 {SHM_DIR}, or {mount}; {containers}; in a snap, a plug of the interface "
            "shared-memory with private: true"
        )
    return None


def system(channel: str, call: str, error: OSError) -> SystemCall:
    """The error of a failed call that has no class of its own."""
    return SystemCall(error.errno, f"channel {channel}: {call} failed: {os.strerror(error.errno or 0)}")


def _describe(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "is a pipe or a socket"
    return "is not a regular file"


def require_own(channel: str, path: str, fd: int) -> None:
    """Raises an error if a writer must not touch the file, because it belongs to another user or is not a regular file."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        what = "is not a regular file"
    elif found.st_uid != os.geteuid():
        what = f"belongs to user {found.st_uid}, not to user {os.geteuid()}"
    else:
        return
    raise Foreign(f"channel {channel}: {path} {what}; choose another name, or ask the owner to remove the file")


def is_trusted(found: os.stat_result) -> bool:
    """Whether a reader may attach to a file: its owner is this user or root, or a group of this user may write it."""
    return stat.S_ISREG(found.st_mode) and (
        found.st_uid in (os.geteuid(), 0)
        or bool(found.st_mode & 0o020 and (found.st_gid == os.getegid() or found.st_gid in os.getgroups()))
    )


def space(fd: int) -> Limit:
    """What the tightest limit leaves to this user: the size of the file's file system, or a memory limit."""
    found = os.fstatvfs(fd)
    shm = Limit(SHM_DIR, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    memory = tightest()
    return shm if memory is None or shm.free <= memory.free else memory


def no_space(channel: str, wanted: int, frames: str, fd: int) -> NoSpace:
    """The error of a full /dev/shm, or of a memory limit."""
    limit = space(fd)
    if limit.file == SHM_DIR:
        remedy = "enlarge it (mount -o remount,size=... /dev/shm, or docker run --shm-size=...)"
    else:
        remedy = (
            "raise the limit (docker run --memory=..., MemoryHigh= and MemoryMax= of a systemd unit, "
            "resources.limits.memory of a Kubernetes container)"
        )
    return NoSpace(
        errno.ENOSPC,
        f"channel {channel}: {limit.file} is too small: {wanted} bytes are needed{frames}, {limit.free} of {limit.total} "
        f"bytes are free; use smaller frames, or {remedy}",
    )


class Aside:
    """A staging file. It has a private name until :meth:`place` gives it its real name. Without a real name, it is removed."""

    def __init__(self) -> None:
        # One try is enough in practice, because no process can guess the name.
        for _ in range(10):
            self.path = f"{SHM_DIR}/{ASIDE_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            try:
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                return
            except FileExistsError:
                pass
        raise FileExistsError(errno.EEXIST, "no free name for a new file")

    def open_again(self) -> int:
        """Another open file description of the same file."""
        return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def place(self, path: str, replace: bool) -> None:
        """Gives the file the name ``path``. Without ``replace``, raises FileExistsError if another file has the name."""
        if replace:
            os.rename(self.path, path)
            self.path = ""
        else:
            # A link fails if the name is taken. renameat2 with RENAME_NOREPLACE would fail too, but Python does not have it.
            os.link(self.path, path)
        self.close()

    def close(self) -> None:
        """Closes the file, and removes it if it has no real name."""
        if self.path:
            os.unlink(self.path)
            self.path = ""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep_asides() -> None:
    """Removes staging files that killed writers of this user left. Keeps files that are locked or under ten seconds old."""
    try:
        names = os.listdir(SHM_DIR)
    except OSError:
        return
    for path in (f"{SHM_DIR}/{name}" for name in names if name.startswith(ASIDE_PREFIX)):
        try:
            fd = open_existing(path, True)
        except OSError:
            continue
        if fd is None:
            continue
        found = os.fstat(fd)
        ours = found.st_uid == os.geteuid() and time.time() - found.st_mtime > 10
        # A file that already has its real name keeps that name. Only the private name is removed.
        if ours and not _libc.is_locked(fd, layout.WRITER_BYTE):
            remove_if(path, (found.st_dev, found.st_ino))
        os.close(fd)


def channels() -> List[str]:
    """The names of all channels: files in /dev/shm that begin like a segment and that this user may read."""
    try:
        names = os.listdir(SHM_DIR)
    except OSError:
        return []
    return sorted(name for name in names if _begins_as_segment(name))


def _begins_as_segment(name: str) -> bool:
    try:
        fd = open_existing(Name(name).segment_path, False)
    except (Error, OSError):
        return False
    if fd is None:
        return False
    try:
        return os.pread(fd, 8, 0) == bytes(layout.Header(magic=layout.MAGIC))[:8]
    except OSError:
        return False
    finally:
        os.close(fd)


def remove_if(path: str, wanted: Identity) -> None:
    """Removes the name if it still belongs to the file. Only the holder of the writer's byte calls this for a channel, so no
    other peer changes the name between the check and the removal."""
    if identity_of(path) == wanted:
        try:
            os.unlink(path)
        except OSError:
            pass
