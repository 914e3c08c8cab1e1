# SPDX-License-Identifier: MIT OR Apache-2.0
"""``RSSHM_DIR``: channels in another directory than /dev/shm, and in containers that have only this directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from helpers import Channel, Process, classic, eventually

Start = Callable[..., Process]

PACKAGE = str(Path(__file__).resolve().parents[1])
READER = """
import sys; sys.path.insert(0, sys.argv[1])
import rsshm
with rsshm.Reader(sys.argv[2], timeout=10) as reader:
    for line in sys.stdin:
        frame = reader.read()
        print(frame.seq, frame.array.sum() == frame.array[0, 0] * frame.array.size, rsshm.channels(), flush=True)
"""
WRITER = """
import sys, time; sys.path.insert(0, sys.argv[1])
import numpy, rsshm
with rsshm.Writer(sys.argv[2], format='GRAY8') as writer:
    for value in range(10**9):
        writer.write(numpy.full((48, 64), value % 256, 'u1'))
        if value == 0:
            print('ready', flush=True)
        time.sleep(0.01)
"""
ERROR = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy, rsshm
for call in (
    lambda: rsshm.Writer('cam0', format='GRAY8').write(numpy.zeros((48, 64), 'u1')),
    lambda: rsshm.Reader('cam0', timeout=0.1).read(),
    lambda: rsshm.Observer('cam0', timeout=0.1).read(),
    rsshm.channels,
):
    try:
        call()
        print('no error')
    except rsshm.SystemCall as error:
        print(error)
"""

CONTAINER = 'mount --bind "$1" /mnt && mount -t tmpfs tmpfs /dev/shm && export RSSHM_DIR=/mnt && shift && exec "$@"'
NAMESPACES = ["unshare", "--mount", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of a tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="rsshm-pytest-directory-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def outside(directory: Path, program: str, channel: Channel) -> List[str]:
    return ["env", f"RSSHM_DIR={directory}", sys.executable, "-c", program, PACKAGE, channel.name]


def inside(directory: Path, program: str, channel: Channel) -> List[str]:
    command = [sys.executable, "-c", program, PACKAGE, channel.name]
    return [*NAMESPACES, "sh", "-c", CONTAINER, "sh", str(directory), *command]


@needs_root
@pytest.mark.parametrize("writes, reads", [(outside, inside), (inside, outside), (inside, inside)])
def test_container_with_only_the_directory_has_its_channels(
    writes: Any, reads: Any, directory: Path, channel: Channel, start: Start
) -> None:
    writer = start(writes(directory, WRITER, channel))
    writer.expect("ready")
    reader = start(reads(directory, READER, channel))
    former = 0
    for _ in range(10):
        reader.write_line("next")
        seq, is_whole, channels = reader.read_line().split(maxsplit=2)
        assert (is_whole, channels) == ("True", f"['{channel.name}']")
        assert int(seq) > former
        former = int(seq)
    assert sorted(path.name for path in directory.iterdir()) == sorted([channel.name, f"sem.{channel.name}"])
    channel.assert_gone()


def test_variable_set_by_the_program_counts(directory: Path, channel: Channel) -> None:
    """A program may set the variable itself, before it opens the first channel."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy, rsshm\n"
        "os.environ['RSSHM_DIR'] = sys.argv[3]\n"
        "with rsshm.Writer(sys.argv[2], format='GRAY8') as writer:\n"
        "    writer.write(numpy.zeros((48, 64), 'u1'))\n"
        "    print(sorted(os.listdir(sys.argv[3])))\n"
    )
    out = subprocess.check_output([sys.executable, "-c", program, PACKAGE, channel.name, str(directory)])
    assert out.decode().strip() == str(sorted([channel.name, f"sem.{channel.name}"]))
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    "value, words",
    [
        ("cams", "is not an absolute path"),
        ("/nowhere/cams", "does not exist"),
        ("/proc", "is not a tmpfs, but proc"),
    ],
)
def test_unsuitable_directory_is_an_error_that_says_what_to_do(value: str, words: str) -> None:
    environment: Dict[str, str] = {**os.environ, "RSSHM_DIR": value}
    out = subprocess.check_output([sys.executable, "-c", ERROR, PACKAGE], env=environment).decode().splitlines()
    assert len(out) == 4
    for line in out:
        assert f"RSSHM_DIR={value} {words}" in line, out


@pytest.mark.parametrize("name", ["read", "write"])
def test_classic_program_says_that_it_knows_only_dev_shm(name: str, directory: Path, channel: Channel, start: Start) -> None:
    process = start(classic(name, channel, "--count", 1), env={"RSSHM_DIR": str(directory)})
    eventually("it ends", lambda: process.process.poll() is not None)
    assert process.process.returncode == 1
    assert "know only /dev/shm, not RSSHM_DIR" in process.error_output()
    assert list(directory.iterdir()) == []
    channel.assert_gone()
