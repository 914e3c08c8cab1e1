# SPDX-License-Identifier: MIT OR Apache-2.0
"""The memory limits of this process's control groups (cgroups(7)).

The pages of a file in /dev/shm count as memory of the control group whose process touches them first. If a group is at its
limit, the kernel kills a process of the group. Therefore a writer asks what the limits leave before it commits memory.
A group's limit counts for all groups below it, so the tightest of all ancestors decides. Limits that this process cannot see
do not count. Swap does not count as free, because a frame in swap is too slow to be of use.
"""

from __future__ import annotations

import errno
import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

RESERVED_PART, MAX_RESERVED = 8, 64 << 20
"""A limit leaves this part of itself to other memory of the group, but not more than this number of bytes."""
UNLIMITED = 1 << 62
"""A limit of version 1 that is at least this large means that there is no limit."""
STEP = 4 << 20
"""The most bytes that are committed between two looks at the limits. Several writers of one group may commit at once."""

Read = Callable[[str], Optional[str]]


class Limit(NamedTuple):
    """A memory limit, and what it leaves."""

    file: str
    """The file that contains the limit."""
    total: int
    """The limit in bytes."""
    free: int
    """How many bytes a writer may still commit."""


def commit(fd: int, offset: int, size: int) -> None:
    """Extends the file to ``offset + size``, and commits memory for every byte from ``offset`` on. Raises OSError with ENOMEM
    if a limit leaves too little memory. The size of the file is then the same as before."""
    former, end = os.fstat(fd).st_size, offset + size
    for start in range(offset, end, STEP):
        try:
            limit = tightest()
            if limit is not None and limit.free < end - start:
                raise OSError(errno.ENOMEM, f"{limit.file} leaves too little memory")
            os.posix_fallocate(fd, start, min(STEP, end - start))
        except OSError:
            # The bytes after the former end had no memory before, and lose it.
            os.ftruncate(fd, former)
            raise


def tightest(read: Optional[Read] = None) -> Optional[Limit]:
    """The limit that leaves the least memory to this process. None if no limit can be read. Limits change, so everything is
    read again at each call."""
    read = _read if read is None else read
    cgroup, mountinfo = read("/proc/self/cgroup"), read("/proc/self/mountinfo")
    if cgroup is None or mountinfo is None:
        return None
    limits = [limit for is_v2, directory in groups(cgroup, mountinfo) for limit in _limits(is_v2, directory, read)]
    return min(limits, key=lambda limit: limit.free, default=None)


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def _number(text: Optional[str]) -> Optional[int]:
    """The number in a file. None if the file does not exist, or contains the word "max"."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _limits(is_v2: bool, directory: str, read: Read) -> Iterator[Limit]:
    """The limits of a group that are set."""
    if is_v2:
        # Beyond memory.high, the kernel does not kill, but it slows the group's processes down until they hardly run.
        names, prefix = (("memory.max", "memory.current"), ("memory.high", "memory.current")), ""
    else:
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
        )
        prefix = "total_"
    for limit, usage in names:
        total, used = _number(read(f"{directory}/{limit}")), _number(read(f"{directory}/{usage}"))
        if total is not None and total < UNLIMITED and used is not None:
            reclaimable = _reclaimable(read(f"{directory}/memory.stat") or "", prefix)
            reserved = min(total // RESERVED_PART, MAX_RESERVED)
            yield Limit(f"{directory}/{limit}", total, max(total - max(used - reclaimable, 0) - reserved, 0))


def _reclaimable(stat: str, prefix: str) -> int:
    """How many bytes the kernel can take back: pages of files on disks that need not be written first. Of the pages in use,
    half count. ``stat`` is the text of memory.stat."""
    values: Dict[str, int] = {}
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith(prefix):
            values[name[len(prefix) :]] = _number(value) or 0
    unwritten = sum(values.get(name, 0) for name in ("dirty", "file_dirty", "writeback", "file_writeback"))
    return max(values.get("inactive_file", 0) + values.get("active_file", 0) // 2 - unwritten, 0)


def groups(cgroup: str, mountinfo: str) -> List[Tuple[bool, str]]:
    """The directories of this process's control groups and of all groups above them, as far as the mounts show them. True is
    version 2. The arguments are the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    paths: Dict[bool, str] = {}
    for line in cgroup.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and (not fields[1] or "memory" in fields[1].split(",")):
            path = fields[2][: -len(" (deleted)")] if fields[2].endswith(" (deleted)") else fields[2]
            paths.setdefault(not fields[1], path)
    found = []
    for line in mountinfo.splitlines():
        mount, _, system = line.partition(" - ")
        fields, kinds = mount.split(" "), system.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        is_v2 = kinds[0] == "cgroup2"
        if not is_v2 and not (kinds[0] == "cgroup" and "memory" in kinds[2].split(",")):
            continue
        names = _names_below(paths.get(is_v2), _unescape(fields[3]))
        if names is not None:
            directory = _unescape(fields[4])
            found.append((is_v2, directory))
            for name in names:
                directory = f"{directory.rstrip('/')}/{name}"
                found.append((is_v2, directory))
    return found


def _unescape(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _names_below(path: Optional[str], root: str) -> Optional[List[str]]:
    """The names of the groups from ``root`` down to ``path``. None if ``path`` is not below ``root``.

    If ``root`` is above the process's cgroup namespace (``/..``), the names on the way down may be unknown. Then only ``root``
    itself counts.
    """
    if path is None:
        return None
    names, above = [[name for name in text.split("/") if name] for text in (path, root)]
    if names[: len(above)] == above:
        below = names[len(above) :]
        return None if ".." in below else below
    ups = next((index for index, name in enumerate(names) if name != ".."), len(names))
    return [] if all(name == ".." for name in above) and ups < len(above) else None
