# SPDX-License-Identifier: MIT OR Apache-2.0
"""The memory limits of control groups."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Tuple

import pytest
from helpers import Channel, Process

MIB = 1 << 20


def mounts_of_memory_groups() -> Iterator[Tuple[bool, Path]]:
    """Where the control groups for memory are mounted, and whether they are those of version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield kind == "cgroup2", Path(before.split(" ")[4])


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group."""
    mounts = list(mounts_of_memory_groups())
    version_1 = [directory for is_v2, directory in mounts if not is_v2]
    version_2 = [directory for is_v2, directory in mounts if is_v2]
    root = (version_1 or version_2 or [Path("/nowhere")])[0]
    made = root / f"rsshm-pytest-{os.getpid()}"
    try:
        if not version_1:
            (root / "cgroup.subtree_control").write_text("+memory")
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    yield made
    until = time.monotonic() + 5
    while made.exists() and time.monotonic() < until:
        try:
            made.rmdir()
        except OSError:
            time.sleep(0.02)


@pytest.mark.parametrize("mib, output", [(40, "NoSpace"), (224, "lives")])
def test_memory_limit_is_an_error_or_limits_the_slots(
    mib: int, output: str, group: Path, channel: Channel, start: Callable[..., Process]
) -> None:
    """A channel needs memory for three frames of 8 MiB. Its readers hold as many frames as they may, and copy the others.

    The writer leaves an eighth of the limit free. The copies of three readers, 24 MiB, must fit into this part.
    """
    path = str(Path(__file__).resolve().parents[1])
    name = channel.name
    writing = (
        f"import sys; sys.path.insert(0, {path!r}); import rsshm, numpy, time\n"
        "picture = numpy.zeros((2048, 4096), 'u1')\n"
        "try:\n"
        f"    with rsshm.Writer({name!r}, format='GRAY8', max_slots=64) as writer:\n"
        f"        readers = [rsshm.Reader({name!r}, timeout=5) for _ in range(3)]\n"
        "        frames = []\n"
        "        for _ in range(100):\n"
        "            if writer.write(picture):\n"
        "                frames += [frame for frame in (reader.read() for reader in readers) if frame.in_place]\n"
        "            time.sleep(0.01)\n"
        "        assert writer.published > 80, writer.published\n"
        "        print('lives')\n"
        "except rsshm.NoSpace as error:\n"
        f"    assert {str(group)!r} in str(error) and 'raise the limit' in str(error), error\n"
        "    print('NoSpace')\n"
    )
    limit = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    (group / limit).write_text(str(mib * MIB))
    entering = f'echo $$ >{group}/cgroup.procs && exec "$0" -c "$1"'
    out = start(["sh", "-c", entering, sys.executable, writing]).wait_ok().decode()
    assert out.splitlines() == [output], out
