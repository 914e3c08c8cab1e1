# SPDX-License-Identifier: MIT OR Apache-2.0
"""Functions of the C library that Python's own modules do not offer: a full fence, futexes, semaphores, mappings, locks.

Calls that may sleep go through ``CDLL``, which lets other threads run meanwhile. Calls that return at once go through
``PyDLL``, which keeps the interpreter's lock, because getting that lock back can take far longer than the call itself.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
import time
from ctypes import c_int, c_long, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Callable

if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
    raise ImportError("rsshm needs a 64-bit Linux")

libc = ctypes.CDLL(None, use_errno=True)
# The library is loaded without use_errno, because saving errno makes each call slower.
_quick = ctypes.PyDLL(None)


class timespec(ctypes.Structure):
    """``struct timespec`` of time.h."""

    _fields_ = [("tv_sec", c_long), ("tv_nsec", c_long)]


def function(library: Any, name: str, *arguments: Any, result: Any = c_int) -> Any:
    """A function of the library, with its argument types and its result type."""
    found = library[name]
    found.argtypes = arguments
    found.restype = result
    return found


monotonic_ns = time.monotonic_ns

# -- forks ---------------------------------------------------------------------------------------------------------------

_forks = 0


def forks() -> int:
    """How many forks lie between this process and the one that imported the package.

    Objects in a child's copy of the memory, such as a reader entry or a channel, still belong to the parent. So objects store
    this count, and do nothing if it has changed.
    """
    return _forks


def _in_child() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_in_child)

# -- order of loads and stores -------------------------------------------------------------------------------------------

_sem_init = function(_quick, "sem_init", c_void_p, c_int, ctypes.c_uint)
_sem_post = function(_quick, "sem_post", c_void_p)
_sem_trywait = function(_quick, "sem_trywait", c_void_p)
_sem_getvalue = function(_quick, "sem_getvalue", c_void_p, ctypes.POINTER(c_int))

_fence_word = (c_uint64 * 8)()
_sem_init(ctypes.addressof(_fence_word), 0, 0)
# Argument types are not set, because checking them makes each call slower. The argument needs no conversion.
_fence_argument = ctypes.byref(_fence_word)
_fence_post = _quick["sem_post"]
_fence_trywait = _quick["sem_trywait"]


def full_fence() -> None:
    """A full fence: two atomic read-modify-write operations on a word of this process (docs/PROTOCOL.md, the pin rule)."""
    _fence_post(_fence_argument)
    _fence_trywait(_fence_argument)


def _nothing() -> None:
    pass


# x86-64 does not reorder loads with loads, or stores with stores. Elsewhere a fence is needed after the load that finds
# something ("acquire") and before the store that announces something ("release").
acquire: Callable[[], None] = _nothing if platform.machine() == "x86_64" else full_fence
release: Callable[[], None] = acquire

# -- futexes -------------------------------------------------------------------------------------------------------------

_SYS_FUTEX = {
    "x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221, "ppc64": 221, "s390x": 238,
}.get(platform.machine())  # fmt: skip
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1

_futex_wait = libc["syscall"]
_futex_wait.argtypes = [c_long, c_void_p, c_int, c_uint32, ctypes.POINTER(timespec), c_void_p, c_uint32]
_futex_wait.restype = c_long
# Argument types are not set here either, because checking them makes each call slower.
_futex_wake = _quick["syscall"]


WAKE_AT_MOST = 128
"""The most sleepers that one notify wakes: all readers, and as many observers. A process that may read a segment can let any
number of threads sleep there, and the writer would have to wake them at each frame. Other waiters notice the change at their
next time-out."""


def futex_wait(address: int, expected: int, seconds: float) -> bool:
    """Sleeps while the word is ``expected``, for at most ``seconds``. May return early. True if the sleep timed out."""
    if _SYS_FUTEX is None:
        time.sleep(min(seconds, 0.001))
        return False
    whole = int(seconds)
    timeout = timespec(whole, int((seconds - whole) * 1e9))
    result = _futex_wait(_SYS_FUTEX, address, _FUTEX_WAIT, expected, timeout, None, 0)
    return bool(result != 0 and ctypes.get_errno() == errno.ETIMEDOUT)


def futex_at(address: int) -> Any:
    """The word at the address, for :func:`futex_wake_all`."""
    return ctypes.byref(c_uint32.from_address(address))


def futex_wake_all(word: Any) -> None:
    """Wakes up to ``WAKE_AT_MOST`` sleepers of the word, in any process."""
    if _SYS_FUTEX is not None:
        _futex_wake(_SYS_FUTEX, word, _FUTEX_WAKE, WAKE_AT_MOST)


# -- semaphores ----------------------------------------------------------------------------------------------------------

SEM_SIZE = 32
"""Bytes of a ``sem_t`` on 64-bit Linux, of glibc and musl."""
_SEM_POLL = 0.0001
"""Interval at which a wait tries to take the semaphore."""
try:
    _IS_GLIBC = bool(os.confstr("CS_GNU_LIBC_VERSION"))
except (ValueError, OSError):
    _IS_GLIBC = False
# The lower half of the first 64-bit word is the value. The upper half is the number of sleepers.
_SEM_VALUE, _SEM_KIND = 0, 2
_SEM_SHARED = 128
_VALUE_IS_KNOWN = _IS_GLIBC and sys.byteorder == "little"


class Semaphore:
    """A semaphore in shared memory. Other processes can overwrite its bytes."""

    def __init__(self, mapping: Mapping) -> None:
        self._address = mapping.address
        self._halves = memoryview(mapping.exporter(0, SEM_SIZE)).cast("B").cast("I")

    def init(self, value: int) -> None:
        """Initialises the semaphore as shared. Only for a semaphore that no process can find yet, or that is damaged."""
        _sem_init(self._address, 1, value)

    def mend_kind(self) -> None:
        """Corrects the futex kind, because glibc's functions end the process if the kind is not valid."""
        if _IS_GLIBC and self._halves[_SEM_KIND] != _SEM_SHARED:
            self._halves[_SEM_KIND] = _SEM_SHARED

    def take(self) -> bool:
        """Takes the semaphore if it is free. Returns whether it did."""
        return bool(_sem_trywait(self._address) == 0)

    def take_within(self, seconds: float) -> bool:
        """Takes the semaphore if it becomes free in time. It polls, because a sleeper in the semaphore
        would depend on bytes that other processes write."""
        until = time.monotonic() + seconds
        while not self.take():
            if time.monotonic() > until:
                return False
            time.sleep(_SEM_POLL)
        return True

    def give_back(self) -> None:
        """Releases the semaphore, and sets its value to 1 even if it was damaged."""
        self.mend_kind()
        _sem_post(self._address)
        if not _VALUE_IS_KNOWN or self._halves[_SEM_VALUE] != 1:
            self._bring_to_one()

    def _bring_to_one(self) -> None:
        value = c_int()
        # A process that posts without having waited lets two processes in at once, so the value may be above 1. The loop is
        # bounded, because another process may change the value all the time.
        for _ in range(64):
            _sem_getvalue(self._address, value)
            if value.value == 1 or (value.value > 1 and not self.take()):
                return
            if value.value < 1:
                break
        if value.value != 1 and _VALUE_IS_KNOWN:
            self._halves[_SEM_VALUE] = 1


# -- mappings ------------------------------------------------------------------------------------------------------------

PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
_MAP_SHARED = 1
_MADV_DONTFORK, _MADV_DONTDUMP = 10, 16
_MAP_FAILED = c_void_p(-1).value

_mmap = function(libc, "mmap", c_void_p, c_size_t, c_int, c_int, c_int, ctypes.c_int64, result=c_void_p)
_munmap = function(libc, "munmap", c_void_p, c_size_t)
_madvise = function(libc, "madvise", c_void_p, c_size_t, c_int)


def _map(fd: int, offset: int, length: int, protection: int) -> int:
    address = _mmap(None, length, protection, _MAP_SHARED, fd, offset)
    if address is None or address == _MAP_FAILED:
        errno = ctypes.get_errno()
        raise OSError(errno, f"mmap: {os.strerror(errno)}")
    return int(address)


class Mapping:
    """A mapping of a file's bytes, shared with all processes that map the file.

    The module ``mmap`` is not used: it refuses to map beyond the end of a file that will grow, and keeps a duplicate of the
    file descriptor. Every array made from :meth:`exporter` keeps the mapping, so no array can outlive its memory.
    """

    def __init__(self, fd: int, offset: int, length: int, writable: bool) -> None:
        self.length = length
        self.address = _map(fd, offset, length, PROT_READ | (PROT_WRITE if writable else 0))

    def exporter(self, offset: int, length: int) -> Any:
        """The bytes from ``offset`` on, as a ctypes array. Attributes that are set on the array live as long as the array."""
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError("outside the mapping")
        array: Any = (ctypes.c_uint8 * length).from_address(self.address + offset)
        array.mapping = self
        return array

    def leave_out_of_dumps(self) -> None:
        """Leaves the bytes out of core dumps, because pictures are large and say little about a crash."""
        _madvise(self.address, self.length, _MADV_DONTDUMP)

    def __del__(self, munmap: Any = _munmap) -> None:
        address = getattr(self, "address", None)
        if address is not None:
            munmap(address, self.length)


# -- locks ---------------------------------------------------------------------------------------------------------------

_FLOCK = struct.Struct("hhqqi4x")
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37


def try_lock(fd: int, byte: int) -> bool:
    """Locks the byte for writing, by the open file description. False if another description has locked it."""
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        return True
    except (BlockingIOError, PermissionError):
        return False


def is_locked(fd: int, byte: int) -> bool:
    """Whether another description has a write lock on the byte. Also True if the query fails, because the owner could be
    alive. Read locks do not count: every process that may read the file can take them."""
    try:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    except OSError:
        return True
    return bool(_FLOCK.unpack(answer)[0] == fcntl.F_WRLCK)


class KeptLock:
    """Keeps the locks of an open file description while this object exists. If the process ends, they are released.

    Only a mapping keeps the description. A forked child does not inherit this mapping, but would inherit a file descriptor.
    """

    def __init__(self, fd: int) -> None:
        """Takes over the file descriptor, whose description carries the locks."""
        self._forks = forks()
        try:
            self._page = _map(fd, 0, 1, PROT_NONE)
            if _madvise(self._page, 1, _MADV_DONTFORK) != 0:
                raise OSError(ctypes.get_errno(), "madvise: a child would keep the lock")
        finally:
            os.close(fd)

    def drop(self) -> None:
        """Releases the locks now."""
        page, self._page = self._page, 0
        # A forked child does not have the mapping, and may have other memory at its address.
        if page and self._forks == forks():
            _munmap(page, 1)

    def __del__(self, munmap: Any = _munmap, forks: Callable[[], int] = forks) -> None:
        page = getattr(self, "_page", 0)
        if page and self._forks == forks():
            munmap(page, 1)


# -- files ---------------------------------------------------------------------------------------------------------------

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_fallocate = function(libc, "fallocate", c_int, c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Releases the memory of a part of the file."""
    _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length)


def read_exactly(fd: int, target: Any, offset: int) -> bool:
    """Fills ``target`` from the file. False if the file is too short. Unlike a read from a mapping, this cannot raise
    SIGBUS."""
    view = memoryview(target).cast("B")
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            return False
        done += count
    return True
