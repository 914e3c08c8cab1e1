# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that start, end, are killed, and are stopped, on either side."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Callable

import pytest
from helpers import (
    PATIENCE,
    Channel,
    Process,
    Segment,
    eventually,
    fields,
    grey,
    gst,
    gst_environment,
    peer,
    python,
    records,
)

import rsshm

Start = Callable[..., Process]
GREY = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1"
WRITERS = {
    "python": lambda name: (python("steady", name), None),
    "rsshmsink": lambda name: (
        gst(
            f"videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=48,framerate=100/1 ! rsshmsink name={name}"
        ),
        gst_environment(),
    ),
}


def read_until(reader: rsshm.Reader, what: str, ready: Callable[[rsshm.Frame], Any]) -> rsshm.Frame:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        frame = reader.read(PATIENCE)
        if ready(frame):
            return frame
    raise AssertionError(f"not in time: {what}")


def test_reader_may_start_first(channel: Channel, start: Start) -> None:
    with rsshm.Reader(channel.name) as reader:
        with pytest.raises(rsshm.Timeout, match=channel.name):
            reader.read(0.05)
        start(python("steady", channel.name))
        assert reader.read(PATIENCE).array.shape == (48, 64)


@pytest.mark.parametrize("kind", WRITERS)
def test_reader_follows_from_a_killed_writer_to_the_next(kind: str, channel: Channel, start: Start) -> None:
    command, env = WRITERS[kind](channel.name)
    writer = start(command, env=env)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        held = read_until(reader, "in place", lambda frame: frame.in_place).array
        before = held.copy()
        writer.kill()
        # The files of the channel remain. A writer of another kind takes them over, with another format.
        assert channel.exists()
        with rsshm.Writer(channel.name, (20, 30, 3)) as second:
            assert reader.reconnects == 0

            stop = threading.Event()

            def write() -> None:
                while not stop.is_set():
                    second.write(grey(3, (20, 30, 3)))
                    time.sleep(0.02)

            writing = threading.Thread(target=write)
            writing.start()
            try:
                frame = read_until(reader, "the new writer", lambda frame: frame.caps.format == "BGR")
            finally:
                stop.set()
                writing.join()
        assert (frame.array == 3).all() and frame.discontinuity and reader.reconnects == 1
        # The dead writer's frame stays unchanged too.
        assert (held == before).all()
    channel.assert_gone()


def test_reader_follows_from_a_dead_python_writer_to_rsshmsink(channel: Channel, start: Start) -> None:
    writer = start(python("steady", channel.name))
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        seq = reader.read().seq
        writer.kill()
        command, env = WRITERS["rsshmsink"](channel.name)
        second = start(command, env=env)
        frame = read_until(reader, "the new writer", lambda _: reader.reconnects == 1)
        # The new writer continues the seqs of the dead one.
        assert frame.seq > seq
        second.signal(signal.SIGINT)
        second.wait_ok()
    channel.assert_gone()


def test_error_of_a_second_writer_names_the_first(channel: Channel, start: Start) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        writer.write(grey(1))
        began = time.monotonic()
        with pytest.raises(rsshm.Busy, match=f"process {os.getpid()}"):
            rsshm.Writer(channel.name, (48, 64))
        assert 1.5 < time.monotonic() - began < 10
        assert writer.write(grey(2)) == 2


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_only_lossless_writer_waits_for_a_stopped_reader(
    how: signal.Signals, lossless: bool, channel: Channel, start: Start
) -> None:
    """A lossless writer waits for a stopped reader, because the reader may continue. No writer waits for a killed reader."""
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", lossless=lossless, max_slots=8) as writer:
        reader = start(python("hold", channel.name, 2))
        stop = threading.Event()

        def feed() -> None:
            while not stop.is_set():
                writer.write(grey(writer.published))
                time.sleep(0.005)

        feeding = threading.Thread(target=feed)
        feeding.start()
        try:
            reader.expect("holds")
            if how == signal.SIGKILL:
                reader.kill()
            else:
                reader.signal(how)
            before = writer.published
            if lossless and how == signal.SIGSTOP:

                def is_stalled() -> bool:
                    published = writer.published
                    time.sleep(0.5)
                    return writer.published == published

                eventually("the writer waits", is_stalled)
                assert writer.published < before + 8
            else:
                eventually("the writer continues", lambda: writer.published > before + 40)
            if how == signal.SIGKILL:
                eventually("no reader is left", lambda: writer.readers == 0)
            else:
                # The frames that the stopped reader held are unchanged.
                reader.signal(signal.SIGCONT)
                reader.write_line("go on")
                reader.expect("whole")
                eventually("the writer continues", lambda: writer.published > before + 40)
            assert writer.dropped == 0
        finally:
            stop.set()
            reader.kill()
            feeding.join()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("reader", ["python", "rust"])
@pytest.mark.parametrize("kind", WRITERS)
def test_killed_or_stopped_reader_does_not_delay_another(
    kind: str, reader: str, how: signal.Signals, channel: Channel, start: Start
) -> None:
    command, env = WRITERS[kind](channel.name)
    start(command, env=env)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as witness:
        witness.read()
        # The Rust reader soon waits on a full pipe while it holds a frame.
        victim = start(python("hold", channel.name, 1) if reader == "python" else peer("read", channel.name))
        segment = Segment(channel)
        read_until(witness, "the reader holds a frame", lambda _: segment.held(victim.pid) > 0)
        victim.signal(how)
        began = time.monotonic()
        frames = [witness.read().seq for _ in range(40)]
        assert time.monotonic() - began < 20
        assert frames == sorted(set(frames))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("kind", WRITERS)
def test_holder_of_the_semaphore_delays_no_reader(kind: str, how: signal.Signals, channel: Channel, start: Start) -> None:
    import posix_ipc

    command, env = WRITERS[kind](channel.name)
    start(command, env=env)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        reader.read()
        holder = start(python("semaphore", channel.name))
        holder.expect("holds")
        if how == signal.SIGKILL:
            holder.kill()
        else:
            holder.signal(how)
        began = time.monotonic()
        frames = [reader.read() for _ in range(25)]
        assert time.monotonic() - began < 20
        assert frames[-1].seq >= frames[0].seq + 24
        # The writer repairs the semaphore after a second.
        semaphore = posix_ipc.Semaphore("/" + channel.name)
        eventually("the semaphore is free again", lambda: semaphore.value == 1)
        if how == signal.SIGSTOP:
            # The holder posts a semaphore that it no longer holds. The writer brings the value back to 1.
            holder.signal(signal.SIGCONT)
            holder.write_line("go on")
            holder.expect("released")
            eventually("the value is 1 again", lambda: max(semaphore.value for _ in range(10_000)) == 1)
        semaphore.close()


def test_reader_waits_for_a_stopped_writer(channel: Channel, start: Start) -> None:
    writer = start(python("steady", channel.name))
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        reader.read()
        writer.signal(signal.SIGSTOP)
        with pytest.raises(rsshm.Timeout, match="no frame"):
            while True:
                reader.read(0.6)
        assert reader.connected
        writer.signal(signal.SIGCONT)
        reader.read()
        assert reader.reconnects == 0


def test_forked_child_owns_no_reader(channel: Channel, start: Start) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=8) as writer:
        reader = start(python("fork", channel.name))
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                writer.write(grey(1))
                time.sleep(0.005)

        writing = threading.Thread(target=write)
        writing.start()
        try:
            child = int(reader.read_line().removeprefix("child "))
            segment = Segment(channel)
            (slot,) = segment.pinned(reader.pid)
            held = segment.content(slot)
            # The child has closed its inherited reader. The parent is still attached and holds a frame.
            time.sleep(0.1)
            assert writer.readers == 1 and segment.content(slot) == held
            reader.kill()
            eventually("the dead parent holds no slot", lambda: writer.readers == 0 and segment.content(slot) != held)
            os.kill(child, signal.SIGKILL)
        finally:
            stop.set()
            writing.join()


def test_forked_child_owns_no_writer(channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
    writer.write(grey(1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            writer.write(grey(2))
        except rsshm.Closed:
            writer.close()
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert channel.exists() and writer.write(grey(3)) == 2
    writer.close()
    channel.assert_gone()


def test_end_of_a_reader_process_keeps_the_channel(channel: Channel, start: Start) -> None:
    """By contrast, the resource tracker of multiprocessing.shared_memory removes memory that a process has only opened."""
    shared = shared_memory.SharedMemory(create=True, size=4096)
    try:
        with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
            writer.write(grey(1))
            path = str(Path(__file__).resolve().parents[1])
            reading = f"import sys; sys.path.insert(0, {path!r}); import rsshm; rsshm.Reader({channel.name!r}).read(20)"
            start([sys.executable, "-c", reading]).wait_ok()
            attaching = f"from multiprocessing import shared_memory as s; s.SharedMemory({shared.name!r})"
            start([sys.executable, "-c", attaching]).wait_ok()
            if sys.version_info < (3, 13):
                tracked = Path("/dev/shm", shared.name)
                eventually("the resource tracker has removed it", lambda: not tracked.exists())
            assert channel.exists()
            assert writer.write(grey(2)) == 2
    finally:
        shared.close()
        try:
            shared.unlink()
        except FileNotFoundError:
            pass


@pytest.mark.parametrize("which", ["segment", "lock_file", "both"])
def test_removed_files_are_created_again(which: str, channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(grey(1))
            reader.read()
            for path in (channel.segment, channel.lock_file):
                if which in ("both", {channel.segment: "segment", channel.lock_file: "lock_file"}[path]):
                    path.unlink()
            eventually("the files exist again", channel.exists)
            eventually("the reader is in the new segment", lambda: writer.write(grey(2)) and follow(reader))
            assert reader.reconnects == 1
            # A new reader finds the channel too.
            with rsshm.Reader(channel.name, timeout=5) as second:
                writer.write(grey(3))
                assert second.read().array[0, 0] in (2, 3)
    channel.assert_gone()


def follow(reader: rsshm.Reader) -> bool:
    try:
        reader.read(0.02)
    except rsshm.Timeout:
        pass
    return reader.reconnects == 1


def test_program_that_ends_without_close_leaves_no_files(channel: Channel, start: Start) -> None:
    path = str(Path(__file__).resolve().parents[1])
    writing = (
        f"import sys; sys.path.insert(0, {path!r}); import rsshm, numpy\n"
        f"writer = rsshm.Writer({channel.name!r}); writer.write(numpy.zeros((48, 64, 3), 'u1'))\n"
        f"reader = rsshm.Reader({channel.name!r}); frame = reader.read(); array = frame.array"
    )
    start([sys.executable, "-c", writing]).wait_ok()
    channel.assert_gone()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_another_user_may_read_but_not_write(channel: Channel, start: Start) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", perms=0o644) as writer:
        writer.write(grey(1))
        nobody = 65534
        os.seteuid(nobody)
        try:
            with pytest.raises(rsshm.Denied, match="0644|0600"):
                rsshm.Writer(channel.name, (48, 64))
            with rsshm.Reader(channel.name, timeout=5) as reader:
                frame = reader.read()
                assert (frame.array == 1).all() and not frame.in_place
                assert reader.observing is not None and "permissions" in reader.observing
        finally:
            os.seteuid(0)
        assert writer.readers == 0
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        writer.write(grey(1))
        os.seteuid(nobody)
        try:
            with pytest.raises(rsshm.Denied, match="mode is 0600") as caught:
                rsshm.Reader(channel.name).read(1)
            assert caught.value.errno == errno.EACCES
        finally:
            os.seteuid(0)


def test_observer_writes_nothing_and_is_not_counted(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", lossless=True) as writer:
        writer.write(grey(1))
        with rsshm.Observer(channel.name, timeout=5) as observer:
            before = channel.segment.read_bytes()[: 1 << 16]
            frame = observer.read()
            assert channel.segment.read_bytes()[: 1 << 16] == before
            assert (frame.array == 1).all() and not frame.in_place and not frame.array.flags.writeable
            assert writer.readers == 0
            for value in range(50):
                writer.write(grey(value))
            assert observer.read().array.max() == observer.read().array.max() - 1


def test_reader_65_observes(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        writer.write(grey(1))
        readers = [rsshm.Reader(channel.name, timeout=5) for _ in range(65)]
        assert all((reader.read().array == 1).all() for reader in readers)
        assert writer.readers == 64
        assert readers[64].observing is not None and "64 reader entries" in readers[64].observing
        for reader in readers:
            reader.close()
        assert writer.readers == 0


def test_writer_evicts_a_reader_above_its_quota(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=8) as writer:
        with rsshm.Reader(channel.name, timeout=5) as greedy:
            writer.write(grey(0))
            greedy.read()
            segment = Segment(channel)
            (entry,) = segment.entries(os.getpid())
            segment.store(entry + fields("ReaderEntry")["pins"][0], 0xFF)
            eventually("the reader is evicted", lambda: writer.evicted == 1)
            for value in range(100):
                assert writer.write(grey(value)) is not None
            assert writer.evicted == 1
            # The reader attaches again by itself, with another entry or generation.
            with pytest.warns(RuntimeWarning, match="more slots than its quota"):
                frame = greedy.read()
            assert (frame.array == 99).all()


def test_events_between_frames_are_skipped(channel: Channel, start: Start) -> None:
    """rsshmsink sends stream-start and tag events. A reader that does not support events takes only the frames."""
    command = gst(
        "videotestsrc num-buffers=20 ! taginject tags=title=film ! video/x-raw,format=GRAY8,width=64,height=48",
        f"! rsshmsink name={channel.name} lossless=true wait-for-connection=true sync=false",
    )
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        start(command, env=gst_environment())
        assert len(list(reader)) == 20
        assert reader.missed == 0


def test_frames_of_any_kind_from_a_rust_writer_are_read(channel: Channel, start: Start) -> None:
    frames = [bytes([value]) * (value + 1) * 50_000 for value in range(8)]
    writer = start(peer("write", channel.name, "application/x-thing,version=(int)3", "lossless", "variable"))
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        feeding = threading.Thread(target=lambda: writer.wait_ok(records(frames)))
        feeding.start()
        assert [frame.data.tobytes() for frame in reader] == frames
        assert reader.caps.media == "application/x-thing" and reader.caps.fields["version"] == "3"
        feeding.join()


def test_new_formats_of_a_python_writer_reach_gstreamer(channel: Channel, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "read"
    reader = start(gst(f"rsshmsrc name={channel.name} ! filesink location={file}"), env=gst_environment())
    wanted = b""
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", lossless=True) as writer:
        assert writer.wait_for_reader(PATIENCE)
        for value, (shape, format) in enumerate([((48, 64), "GRAY8"), ((24, 32, 3), "BGR"), ((96, 128), "GRAY8")]):
            writer.set_format(shape, format=format)
            for _ in range(5):
                writer.write(grey(value, shape))
                wanted += grey(value, shape).tobytes()
    reader.wait_ok()
    assert file.read_bytes() == wanted


def test_timestamps_use_the_monotonic_clock(channel: Channel, start: Start) -> None:
    command, env = WRITERS["rsshmsink"](channel.name)
    start(command, env=env)
    with rsshm.Reader(channel.name, timeout=20, latest=True) as reader:
        ages = []
        for _ in range(20):
            frame = reader.read()
            assert frame.pts_ns is not None and frame.duration_ns == 10_000_000
            ages.append(time.monotonic_ns() - frame.pts_ns)
    assert -5e6 < min(ages) < 100e6


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount another /dev")
@pytest.mark.parametrize(
    "fault, words",
    [
        ("mount -t tmpfs tmpfs /dev", ["there is no /dev/shm", "mount -t tmpfs", "--ipc"]),
        ("mount -t tmpfs -o ro tmpfs /dev/shm", ["is mounted read-only", "mount -o remount,rw /dev/shm"]),
        ("mount -t tmpfs -o mode=755 tmpfs /dev/shm", ["its mode is 0755", "chmod 1777 /dev/shm", "snap"]),
    ],
)
def test_unusable_dev_shm_is_an_error_that_says_what_to_do(fault: str, words: list[str], start: Start) -> None:
    """The error message names the channel's file, not a staging file."""
    path = str(Path(__file__).resolve().parents[1])
    writing = (
        f"import sys; sys.path.insert(0, {path!r}); import rsshm, numpy, os\n"
        "if 'mode=755' in sys.argv[1]:\n"
        "    os.setuid(65534)\n"
        "try:\n"
        "    rsshm.Writer('cam0', format='GRAY8').write(numpy.zeros((48, 64), 'u1'))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    command = f'{fault} && exec "$0" -c "$1" "$2"'
    out = start(["unshare", "-m", "sh", "-c", command, sys.executable, writing, fault]).wait_ok().decode()
    for word in [*words, "/dev/shm/sem.cam0"]:
        assert word in out, out
    assert "/.rsshm-" not in out, out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small /dev/shm")
@pytest.mark.parametrize("size, output", [("64k", "NoSpace"), ("800k", "NoSpace"), ("3m", "lives")])
def test_small_dev_shm_is_an_error_or_limits_the_slots(size: str, output: str, channel: Channel, start: Start) -> None:
    """A channel needs memory for three frames of 300 KB. It uses more memory if /dev/shm has more."""
    path = str(Path(__file__).resolve().parents[1])
    writing = (
        f"import sys; sys.path.insert(0, {path!r}); import rsshm, numpy, os\n"
        "picture = numpy.zeros((480, 640), 'u1')\n"
        "try:\n"
        "    with rsshm.Writer('cam0', format='GRAY8', max_slots=64) as writer, rsshm.Reader('cam0', timeout=5) as reader:\n"
        "        frames = []\n"
        "        for _ in range(100):\n"
        "            if writer.write(picture):\n"
        "                frames.append(reader.read())\n"
        "        assert writer.dropped < 10, writer.dropped\n"
        "        print('lives')\n"
        "except rsshm.NoSpace as error:\n"
        "    assert 'bytes are needed' in str(error) and 'shm-size' in str(error) and error.errno == 28\n"
        "    print('NoSpace')\n"
        "print(os.listdir('/dev/shm'))"
    )
    mounted = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" -c "$1"'
    out = start(["unshare", "-m", "sh", "-c", mounted, sys.executable, writing]).wait_ok().decode()
    assert out.splitlines() == [output, "[]"], out


SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def other(channel: Channel) -> Any:
    second = Channel()
    yield second
    second.remove()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("disposition", ["default", "waiting", "closed"])
def test_signal_ends_writer_and_removes_files(
    number: int, disposition: str, channel: Channel, other: Channel, start: Start
) -> None:
    writer = start(python("stopped", channel.name, other.name, disposition))
    if disposition == "closed":
        writer.expect("True")
    writer.expect("ready")
    assert (channel.exists(), other.exists()) == (disposition != "closed",) * 2
    writer.signal(number)
    assert writer.process.wait(PATIENCE) == -number
    channel.assert_gone()
    other.assert_gone()


def test_own_handler_of_program_stays(channel: Channel, other: Channel, start: Start) -> None:
    writer = start(python("stopped", channel.name, other.name, "own"))
    writer.expect("ready")
    writer.signal(signal.SIGTERM)
    writer.expect("own handler")
    assert writer.process.wait(PATIENCE) == 3
    channel.assert_gone()
    other.assert_gone()


def test_ignored_signal_stays_ignored(channel: Channel, other: Channel, start: Start) -> None:
    writer = start(python("stopped", channel.name, other.name, "ignored"))
    writer.expect("ready")
    writer.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert writer.process.poll() is None
    assert channel.exists() and other.exists()


def test_signal_to_forked_child_leaves_files(channel: Channel, other: Channel, start: Start) -> None:
    writer = start(python("stopped", channel.name, other.name, "forked"))
    writer.expect(f"child {signal.SIGTERM.value}")
    writer.expect("ready")
    assert channel.exists() and other.exists()
    writer.signal(signal.SIGTERM)
    assert writer.process.wait(PATIENCE) == -signal.SIGTERM
    channel.assert_gone()
    other.assert_gone()


def test_reader_survives_signal_to_writer(channel: Channel, start: Start) -> None:
    writer = start(python("steady", channel.name))
    writer.expect("ready")
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        reader.read()
        writer.signal(signal.SIGTERM)
        assert writer.process.wait(PATIENCE) == -signal.SIGTERM
        channel.assert_gone()
        start(python("steady", channel.name))
        read_until(reader, "the next writer", lambda frame: reader.reconnects == 1)
