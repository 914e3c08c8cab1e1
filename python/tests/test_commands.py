# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every command of rsshm with a channel of every kind of writer, and with a channel of structures."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Callable, Dict, List

import pytest
from helpers import TARGET, Channel, Process, eventually, python
from test_matrix import SHAPES, WRITERS, ClassicWriter, PluginWriter, Writer

Start = Callable[..., Process]
SHAPE = SHAPES[0]
PROGRAMS: Dict[str, str] = {
    "plugin": "gst-launch-1.0",
    "rust": "rsshm-peer",
    "c": "peer.c",
    "c++": "peer.cpp",
    "python": "matrix_peer.py",
    "classic": "classic_write.py",
}


def rsshm(*arguments: object, code: int = 0) -> Any:
    """The standard output of the program, which must have this exit code."""
    program = TARGET / "rsshm"
    assert program.exists(), f"{program} is missing: cargo build --package rsshm-cli"
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{arguments}: {done}"
    return done.stdout


def lines(*arguments: object) -> List[Any]:
    return [json.loads(line) for line in rsshm(*arguments, "--json").splitlines()]


@pytest.mark.parametrize("kind", ["plugin", *WRITERS])
def test_every_command_answers_for_every_kind_of_writer(kind: str, channel: Channel, start: Start) -> None:
    writer = (PluginWriter if kind == "plugin" else Writer)(start, kind, channel, SHAPE)
    measuring = [start([str(TARGET / "rsshm"), each, channel.name, "-n", "1", "--json"]) for each in ("hz", "bw", "delay")]
    seq = 0

    def publish() -> None:
        nonlocal seq
        seq += 1
        writer.publish(writer.picture(seq, SHAPE))

    def publish_until_measured() -> bool:
        publish()
        return all(each.process.poll() is not None for each in measuring)

    eventually("the measurements end", publish_until_measured)
    for each, field in zip(measuring, ("rate", "bytes_per_second", "mean_s")):
        # Frames of a pipeline that does not wait for their time have timestamps in the future.
        assert json.loads(each.wait_ok())[field] > (-60 if field == "mean_s" else 0)
    eventually("all frames are published", lambda: lines("info", channel.name)[0]["head"] == seq)

    report = lines("info", channel.name)[0]
    assert (report["state"], report["format"], report["width"]) == ("alive", SHAPE.format, SHAPE.width)
    program = report["writer"]["program"]
    assert PROGRAMS[kind] in program, program
    assert json.loads(rsshm("list", channel.name, "--json"))[0]["head"] == seq
    assert lines("top", "-b", "-n", 1, "-d", "50ms", channel.name)[0]["channels"][0]["program"] == program
    frame = lines("echo", channel.name, "-n", 1)[0]
    assert frame["size"] == SHAPE.size and frame["seq"] in (seq - 1, seq)
    newest = bytes(writer.picture(seq, SHAPE))
    assert rsshm("snapshot", channel.name, "-o", "-", "--type", "raw") == newest
    assert rsshm("snapshot", channel.name, "-o", "-").startswith(b"\x89PNG")
    assert rsshm("cat", channel.name, "-n", 1, "--observe") == newest
    assert rsshm("cat", channel.name, "-n", 1, "--y4m", "--observe").startswith(b"YUV4MPEG2 W64 H48 F30:1 ")
    rsshm("wait", channel.name)
    rsshm("wait", channel.name, "--for", "reader", "--timeout", "50ms", code=3)
    rsshm("check", channel.name, "--max-age", "1h")
    rsshm("clean", channel.name, code=1)
    assert f'rsshm_frames_total{{channel="{channel.name}"}} {seq}'.encode() in rsshm("metrics", channel.name)
    # Nothing of this was noticed by the writer.
    publish()
    eventually("another frame", lambda: lines("info", channel.name)[0]["head"] == seq)
    writer.process.kill()
    assert lines("info", channel.name)[0]["state"] == "no-writer"
    rsshm("clean", channel.name)
    channel.assert_gone()


def test_structures_are_bytes_with_a_name(channel: Channel, start: Start) -> None:
    start(python("poses", channel.name))
    rsshm("wait", channel.name, "--for", "frame", "--timeout", "20s")
    report = lines("info", channel.name)[0]
    assert report["media"] == "application/x-rsshm-struct" and 'name=(string)"Pose"' in report["caps"]
    size = report["newest_bytes"]
    assert f"size=(int){size}" in report["caps"]
    assert len(rsshm("cat", channel.name, "-n", 1, "--observe")) == size
    assert len(rsshm("snapshot", channel.name, "-o", "-", "--type", "npy")) > size
    rsshm("snapshot", channel.name, "-o", "-", code=1)
    rsshm("cat", channel.name, "-n", 1, "--y4m", "--observe", code=1)
    rsshm("clean", channel.name, code=1)


def test_classic_writer_has_a_semaphore_and_a_picture(channel: Channel, start: Start) -> None:
    writer = ClassicWriter(start, "classic", channel, SHAPE)
    rsshm("wait", channel.name, "--for", "frame", "--timeout", "20s")
    report = lines("info", channel.name)[0]
    assert report["state"] == "alive" and "python" in report["writer"]["program"], report
    assert rsshm("snapshot", channel.name, "-o", "-").startswith(b"\x89PNG")
    assert writer.process.pid == report["writer"]["pid"]
