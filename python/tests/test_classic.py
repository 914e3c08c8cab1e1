# SPDX-License-Identifier: MIT OR Apache-2.0
"""The classic examples by themselves. test_matrix.py runs them with every other peer."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Callable, List, Tuple

import posix_ipc
import pytest
from helpers import PATIENCE, ROOT, Channel, Process, classic, eventually, moving, python

import rsshm

sys.path.insert(0, str(ROOT / "python" / "examples"))
import classic_read  # noqa: E402

Start = Callable[..., Process]
WIDTH, HEIGHT = 64, 48


def writer_of(start: Start, channel: Channel, *arguments: object) -> Process:
    return start(classic("write", channel, "--width", WIDTH, "--height", HEIGHT, *arguments))


def staging_of(channel: Channel) -> Path:
    """The segment before it has its name."""
    return Path(f"/dev/shm/.rsshm-{zlib.crc32(channel.name.encode()):08x}")


def is_locked(file: int) -> bool:
    """Whether a process has locked the writer's byte."""
    query = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 4096, 1, 0)
    return bool(struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_OFD_GETLK, query))[0] != fcntl.F_UNLCK)


def open_files(pid: int) -> List[str]:
    """What the descriptors of a process refer to."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(descriptor))
        except FileNotFoundError:
            pass  # It was closed meanwhile.
    return found


def seen(line: str) -> Tuple[int, str]:
    """The seq and the checksum of a frame that the classic reader has printed."""
    words = line.replace(",", "").split()
    assert words[0] == "frame", line
    return int(words[1]), words[5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signalled_classic_writer_leaves_nothing(number: int, channel: Channel, start: Start) -> None:
    writer = writer_of(start, channel)
    eventually("the channel", channel.exists)
    reader = start(classic("read", channel, "--every", 0.01))
    eventually("a frame", lambda: reader.read_line().startswith("frame "))
    with rsshm.Reader(channel.name, timeout=PATIENCE) as attached:
        attached.read()
        writer.signal(number)
        writer.wait_ok()
        channel.assert_gone()
        assert not staging_of(channel).exists()
        for frame in attached:  # up to the end of the stream
            assert (frame.array == moving(frame.seq, WIDTH, HEIGHT)).all()
    reader.signal(number)
    reader.wait_ok()
    assert not reader.error_output()


def test_classic_writer_refuses_living_writer(channel: Channel, start: Start) -> None:
    first = writer_of(start, channel)
    eventually("the channel", channel.exists)
    second = writer_of(start, channel)
    with pytest.raises(rsshm.Busy, match=f"process {first.pid}"):
        rsshm.Writer(channel.name, (48, 64))
    assert second.process.wait(PATIENCE) == 1
    assert second.error_output() == (
        f"classic_write.py: channel {channel.name} has another writer; stop it, or choose another channel\n"
    )
    with rsshm.Writer(channel.name + "-other", (48, 64)) as other:
        other.write(moving(1, 64, 48)[..., :3])
        third = start([*classic("write", channel)[:-1], other.name])
        assert third.process.wait(PATIENCE) == 1 and "another writer" in third.error_output()
    first.signal(signal.SIGINT)
    first.wait_ok()
    channel.assert_gone()


def test_classic_writer_supersedes_segment_of_killed_writer(channel: Channel, start: Start) -> None:
    writer = writer_of(start, channel)
    eventually("the channel", channel.exists)
    with open(channel.segment, "rb") as former:
        status = int.from_bytes(os.pread(former.fileno(), 8, 64), sys.byteorder)
        state = lambda: int.from_bytes(os.pread(former.fileno(), 4, status + 36), sys.byteorder)
        writer.kill()
        assert state() == 0
        # The new segment is so large that it takes some time to allocate it.
        next_writer = start(classic("write", channel, "--width", 1024, "--height", 1024))

        def is_superseded() -> bool:
            assert not is_locked(former.fileno()), "readers take the killed writer for alive"
            return state() == 1

        eventually("the former segment is superseded", is_superseded)
        assert not os.path.samestat(os.fstat(former.fileno()), os.stat(channel.segment))
        removed = f"{channel.segment} (deleted)"
        eventually("the former segment is closed", lambda: removed not in open_files(next_writer.pid))
    next_writer.signal(signal.SIGTERM)
    next_writer.wait_ok()
    channel.assert_gone()


def test_classic_writer_replaces_segment_that_has_no_name_yet(channel: Channel, start: Start) -> None:
    def kill_in_time() -> bool:
        channel.remove()
        # A large segment takes some time to allocate.
        large = start(classic("write", channel, "--width", 2048, "--height", 2048))
        eventually("the segment is begun", lambda: staging_of(channel).exists() or channel.segment.exists())
        large.kill()
        return not channel.segment.exists()

    eventually("a segment without its name is left", kill_in_time)
    assert staging_of(channel).exists()
    writer = writer_of(start, channel)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        assert reader.read().array.shape == (HEIGHT, WIDTH, 4)
    assert not staging_of(channel).exists()
    writer.signal(signal.SIGTERM)
    writer.wait_ok()
    channel.assert_gone()


def test_classic_writer_leaves_other_files_alone(channel: Channel, start: Start) -> None:
    channel.segment.write_bytes(b"no segment" * 500)
    writer = writer_of(start, channel)
    assert writer.process.wait(PATIENCE) == 1
    assert f"{channel.segment} is not a segment" in writer.error_output() and writer.error_output().count("\n") == 1
    assert channel.segment.read_bytes() == b"no segment" * 500 and not channel.lock_file.exists()


def test_classic_writer_survives_killed_classic_reader(channel: Channel, start: Start) -> None:
    writer = writer_of(start, channel)
    eventually("the channel", channel.exists)
    semaphore = posix_ipc.Semaphore("/" + channel.name)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:

        def writer_continues() -> bool:
            eventually("the semaphore is free", lambda: semaphore.value == 1)
            holder = start(python("semaphore", channel.name))
            holder.expect("holds")
            holder.kill()
            killed_ns = time.monotonic_ns()
            while reader.read().pts_ns < killed_ns:  # type: ignore[operator]
                pass
            return semaphore.value == 0

        # The writer releases the semaphore after a second. On a busy machine, the test may see the frame still later.
        eventually("a frame before the semaphore is free", writer_continues)
    eventually("the semaphore is free again", lambda: semaphore.value == 1)
    semaphore.close()
    reading = start(classic("read", channel, "--every", 0.1))
    eventually("a frame", lambda: reading.read_line().startswith("frame "))
    writer.signal(signal.SIGTERM)
    writer.wait_ok()
    channel.assert_gone()


def test_frames_of_fast_classic_writer_are_whole(channel: Channel, start: Start) -> None:
    writer = start(classic("write", channel, "--width", 640, "--height", 480, "--fps", 4096))
    eventually("the channel", channel.exists)
    whole = {seq % 256: moving(seq, 640, 480) for seq in range(256)}
    counts: List[int] = []
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader, rsshm.Observer(channel.name, timeout=PATIENCE) as observer:
        began = time.monotonic()
        elapsed = 0.0
        # The writer is so fast that it overwrites slots while the readers copy.
        while elapsed < 2 or len(counts) <= 20 or reader.missed == 0:
            assert elapsed < PATIENCE, f"{len(counts)} frames of the classic reader, {reader.missed} missed"
            elapsed = time.monotonic() - began
            for frame in (reader.read(), observer.read()):
                assert (frame.array == whole[frame.seq % 256]).all(), f"frame {frame.seq} is torn"
            try:
                found = classic_read.newest(channel.name)
            except posix_ipc.BusyError:
                continue
            if found is not None:
                seq, caps, data = found
                assert caps.startswith("video/x-raw, format=RGBx, width=640, height=480")
                assert (data.reshape(480, 640, 4) == whole[seq % 256]).all(), f"frame {seq} is torn"
                counts.append(seq)
        assert counts == sorted(counts)
    writer.signal(signal.SIGTERM)
    writer.wait_ok()
    channel.assert_gone()


def test_classic_reader_prints_the_frame(channel: Channel, start: Start) -> None:
    writer = writer_of(start, channel)
    eventually("the channel", channel.exists)
    reader = start(classic("read", channel, "--every", 0.005))
    seqs: List[int] = []
    while len(set(seqs)) <= 20:
        line = reader.read_line()
        if line.startswith("frame "):
            seq, found = seen(line)
            assert found == f"{zlib.crc32(moving(seq, WIDTH, HEIGHT)):08x}"
            seqs.append(seq)
    assert seqs == sorted(seqs)
    for process in (reader, writer):
        process.signal(signal.SIGTERM)
        process.wait_ok()


@pytest.mark.parametrize("name", ["read", "write"])
def test_classic_example_reports_missing_posix_ipc(name: str, channel: Channel, start: Start, tmp_path: Path) -> None:
    (tmp_path / "posix_ipc.py").write_text("raise ModuleNotFoundError('not here', name='posix_ipc')")
    process = start(classic(name, channel), env={"PYTHONPATH": str(tmp_path)})
    assert process.process.wait(PATIENCE) == 1
    assert process.error_output() == f"classic_{name}.py: posix_ipc is missing: pip install posix_ipc numpy\n"
