# SPDX-License-Identifier: MIT OR Apache-2.0
"""The memory limits of control groups."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from helpers import Process

from rsshm import _memory

MIB = 1 << 20
V1 = "35 31 0:32 {} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "28 24 0:25 {} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    "cgroup, mountinfo, expected",
    [
        ("0::/a.slice/b.service\n", V2.format("/"), ["", "/a.slice", "/a.slice/b.service"]),
        ("0::/\n", V2.format("/"), [""]),
        ("9:name=systemd:/\n4:memory:/a/b\n0::/\n", V1.format("/"), ["/memory", "/memory/a", "/memory/a/b"]),
        ("11:hugetlb,memory:/docker/57c8/x\n", V1.format("/docker/57c8"), ["/memory", "/memory/x"]),
        ("11:memory:/docker/57c89\n", V1.format("/docker/57c8"), []),
        ("4:memory:/\n", V1.format("/../.."), ["/memory"]),
        ("4:memory:/../x\n", V1.format("/.."), ["/memory", "/memory/x"]),
        ("4:memory:/../x\n", V1.format("/"), []),
        ("0::/x:y (deleted)\n", V2.format("/"), ["", "/x:y"]),
        ("", V1.format("/"), []),
        ("0\n:\n", "1 2 - cgroup2\n - \n", []),
    ],
)
def test_groups_of_captured_texts(cgroup: str, mountinfo: str, expected: list[str]) -> None:
    directories = [directory for _, directory in _memory.groups(cgroup, mountinfo)]
    assert directories == [f"/sys/fs/cgroup{name}" for name in expected]


def test_tightest_limit_of_all_groups_counts() -> None:
    files = {
        "/proc/self/cgroup": "0::/a\n",
        "/proc/self/mountinfo": V2.format("/"),
        "/sys/fs/cgroup/a/memory.max": f"{80 * MIB}\n",
        "/sys/fs/cgroup/a/memory.high": "max\n",
        "/sys/fs/cgroup/a/memory.current": f"{10 * MIB}\n",
        "/sys/fs/cgroup/a/memory.stat": f"file_dirty {MIB}\ninactive_file {4 * MIB}\nactive_file {2 * MIB}\n",
    }
    own = _memory.Limit("/sys/fs/cgroup/a/memory.max", 80 * MIB, (80 - 10 + 4 - 10) * MIB)
    assert _memory.tightest(files.get) == own
    files.update({"/sys/fs/cgroup/memory.high": f"{40 * MIB}", "/sys/fs/cgroup/memory.current": f"{30 * MIB}"})
    assert _memory.tightest(files.get) == _memory.Limit("/sys/fs/cgroup/memory.high", 40 * MIB, 5 * MIB)
    assert _memory.tightest({}.get) is None


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group."""
    mounts = _memory.groups("4:memory:/\n0::/\n", Path("/proc/self/mountinfo").read_text())
    version_1 = [directory for is_v2, directory in mounts if not is_v2]
    version_2 = [directory for is_v2, directory in mounts if is_v2]
    root = Path((version_1 or version_2 or ["/nowhere"])[0])
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


@pytest.mark.parametrize("mib, output", [(48, "NoSpace"), (112, "lives")])
def test_memory_limit_is_an_error_or_limits_the_slots(
    mib: int, output: str, group: Path, start: Callable[..., Process]
) -> None:
    """A channel needs memory for three frames of 8 MiB. Its readers hold as many frames as they may."""
    path = str(Path(__file__).resolve().parents[1])
    name = f"rsshm-pytest-{os.getpid()}-limited"
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
