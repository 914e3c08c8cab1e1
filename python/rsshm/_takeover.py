# SPDX-License-Identifier: MIT OR Apache-2.0
"""How a writer gets a channel: the writer's lock, and the takeover from a dead writer."""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Optional, Tuple

from . import _control, _files, layout
from ._control import ControlFile
from ._files import Identity, Name
from ._libc import KeptLock
from ._segment import Access, Segment, open_file
from ._slots import WriterSegment
from .errors import Busy, Damaged, Error

BUSY_PATIENCE = 2.0
"""How long the start of a writer retries while another has the channel. A killed process needs a moment to exit."""


class Taken(NamedTuple):
    """A channel that belongs to this writer."""

    control: ControlFile
    lock: KeptLock
    head: int
    """The seq of the newest frame so far."""
    event_head: int
    placed: Optional[Identity]
    """The dead writer's segment. It still has the name until this writer's first segment gets it. If this writer dies before
    that, the next one finds the seq there."""
    retired: Optional[WriterSegment]
    """The same segment as an object, because readers may still be in it."""


def busy(name: Name) -> Busy:
    """The error of a channel that another writer has."""
    who = "its process is unknown"
    try:
        opened = open_file(name, False)
        if opened is not None:
            segment = Segment.open(name, *opened, Access.OBSERVE)
            # If the segment is superseded, another writer has taken it over, and the pid is that of a dead writer.
            if not segment.halves[segment.state] & layout.SUPERSEDED:
                who = f"process {segment.header.writer_pid}"
    except (Error, OSError):
        pass
    return Busy(f"channel {name} already has a writer ({who}); stop it, or choose another name")


def take_channel(name: Name, perms: int) -> Taken:
    """Makes this process the writer of the channel. Leaves no files if it fails."""
    _files.sweep_asides()
    started = time.monotonic()
    while True:
        try:
            return _take(name, perms)
        except Busy:
            if time.monotonic() - started > BUSY_PATIENCE:
                raise
        time.sleep(0.02)


def _take(name: Name, perms: int) -> Taken:
    control, lock, made_here = open_control(name, perms)
    try:
        head, event_head, placed, retired = _take_over(name, control, made_here)
    except BaseException:
        if made_here:
            _files.remove_if(control.path, control.identity)
        lock.drop()
        raise
    return Taken(control, lock, head, event_head, placed, retired)


def open_control(name: Name, perms: int) -> Tuple[ControlFile, KeptLock, bool]:
    """Opens or creates the lock file, and takes the writer's lock. The last value says whether the file was created."""
    path = name.control_path
    try:
        fd = _files.open_existing(path, True)
    except OSError as error:
        raise _files.open_error(name.text, path, "write", error) from error
    if fd is None:
        made = ControlFile.create(name, perms)
        if made is None:
            raise busy(name)
        return made[0], made[1], True
    try:
        _files.require_own(name.text, path, fd)
    finally:
        os.close(fd)
    repaired = _control.repair(name)
    control = ControlFile.open(name)
    if control is None:
        raise busy(name)
    _, lock, _ = control.take_first([layout.WRITER_BYTE])
    # Between opening and locking, the former writer may have removed the name.
    if lock is None or _files.identity_of(path) != control.identity:
        raise busy(name)
    if repaired:
        control.initialise()
    os.fchmod(control.fd, _control.control_mode(perms))
    return control, lock, False


def _take_over(
    name: Name, control: ControlFile, control_is_new: bool
) -> Tuple[int, int, Optional[Identity], Optional[WriterSegment]]:
    """Takes over the segment of a dead writer of this user, and notifies its readers to look for the next segment."""
    path = name.segment_path
    try:
        opened = open_file(name, True)
    except OSError as error:
        raise _files.open_error(name.text, path, "write", error) from error
    if opened is None:
        return 0, 0, None, None
    fd, found = opened
    try:
        _files.require_own(name.text, path, fd)
    except BaseException:
        os.close(fd)
        raise
    try:
        segment = Segment.open(name, fd, found, Access.WRITE)
    except Damaged as error:
        # A damaged file of this user is replaced if there was a lock file, which shows that the file was a segment.
        if control_is_new:
            raise Damaged(f"{error}; remove {path}, or choose another name") from None
        _files.remove_if(path, (found.st_dev, found.st_ino))
        return 0, 0, None, None
    if segment.has_writer():
        # The writer is exiting, or alive and about to create its lost lock file again.
        raise busy(name)
    backed = next((slot for slot in range(segment.slot_count) if not segment.is_backed(slot)), segment.slot_count)
    retired = WriterSegment(segment, control, backed, False, None)
    for slot in range(segment.slot_count):
        retired.numbers[slot] = segment.numbers[slot]
    taken = control.acquire()
    try:
        head, event_head = (_sane(segment.words[at]) for at in (segment.head, segment.event_head))
        retired.supersede()
    finally:
        control.give_back(taken)
    same_locks = segment.lock_identity == control.identity
    return head, event_head, segment.identity, retired if same_locks else None


def _sane(number: int) -> int:
    """The seq, or 0 if it is implausible, because a damaged head must not bring the seq near its maximum."""
    return number if number < 1 << 48 else 0
