# SPDX-License-Identifier: MIT OR Apache-2.0
"""Code that the tests share: channels, processes, and frames that can be checked for tears."""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import numpy

from rsshm.caps import Layout

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "debug"
SLOWDOWN = float(os.environ.get("RSSHM_TEST_EMULATED", "1"))
"""How many times slower this machine is, because it is emulated."""
PATIENCE = 20.0 * SLOWDOWN
"""Seconds to wait for something that must happen."""
WORDS = 100_000
"""Number of values in a :class:`Pose`. It is so large that a reader could see a write that is half done."""


class Channel:
    """The name and the files of a channel."""

    _count = itertools.count()

    def __init__(self) -> None:
        self.name = f"rsshm-pytest-{os.getpid()}-{next(self._count)}"
        directory = Path(os.environ.get("RSSHM_DIR") or "/dev/shm")
        self.segment = directory / self.name
        self.lock_file = directory / f"sem.{self.name}"

    def exists(self) -> bool:
        return self.segment.exists() and self.lock_file.exists()

    def assert_gone(self) -> None:
        for path in (self.segment, self.lock_file):
            assert not path.exists(), f"{path} still exists"

    def remove(self) -> None:
        for path in (self.segment, self.lock_file):
            path.unlink(missing_ok=True)


@functools.cache
def protocol() -> Any:
    """The structures and constants of the protocol, as an example of the Rust crate prints them."""
    program = TARGET / "examples" / "layout"
    assert program.exists(), f"{program} is missing: cargo build --package rsshm-channel --examples"
    return json.loads(subprocess.check_output([str(program)]))


def constant(name: str) -> int:
    return int(protocol()["constants"][name])


def fields(structure: str) -> Dict[str, List[int]]:
    """The offset and the size of each field of a structure of the protocol."""
    found: Dict[str, List[int]] = protocol()["structures"][structure]["fields"]
    return found


def field_of(data: Any, structure: str, field: str, begin: int = 0) -> int:
    """The value of a field of a structure that begins at ``begin`` in ``data``."""
    offset, size = fields(structure)[field]
    return int.from_bytes(data[begin + offset : begin + offset + size], sys.byteorder)


class Segment:
    """The segment of a channel, as another process sees it. The tests look into it, and damage it."""

    def __init__(self, channel: Channel) -> None:
        with channel.segment.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def header(self, field: str) -> int:
        return field_of(self.memory, "Header", field)

    def status(self, field: str) -> int:
        return field_of(self.memory, "Status", field, self.header("status_offset"))

    def entry(self, index: int) -> int:
        """Where a reader entry begins."""
        return self.header("readers_offset") + index * self.header("reader_stride")

    def entries(self, pid: int) -> List[int]:
        """Where the entries of the readers of a process begin."""
        entries = map(self.entry, range(self.header("reader_count")))
        return [entry for entry in entries if field_of(self.memory, "ReaderEntry", "pid", entry) == pid]

    def pinned(self, pid: int) -> List[int]:
        """The slots that the readers of a process hold."""
        words = [field_of(self.memory, "ReaderEntry", "pins", entry) for entry in self.entries(pid)]
        return [slot for slot in range(constant("MAX_SLOTS")) for pins in words if pins >> slot & 1]

    def held(self, pid: int) -> int:
        """How many slots the readers of a process hold."""
        return len(self.pinned(pid))

    def content(self, slot: int) -> int:
        """A number that changes with each new content of a slot."""
        return field_of(self.memory, "SlotRecord", "seq", self.record(slot))

    def record(self, slot: int) -> int:
        """Where the record of a slot begins."""
        return self.header("descriptors_offset") + slot * self.header("descriptor_stride")

    def quota(self) -> int:
        """How many slots each reader may pin."""
        at = self.header("status_offset") + fields("Status")["quota"][0]
        return int.from_bytes(self.memory[at : at + 4], sys.byteorder)

    def store(self, at: int, value: int, size: int = 8) -> None:
        self.memory[at : at + size] = value.to_bytes(size, sys.byteorder)


def eventually(what: str, ready: Callable[[], Any], limit: float = PATIENCE) -> float:
    """Waits until ``ready()`` is true. Returns how long it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < limit, f"not within {limit} s: {what}"
        time.sleep(0.002)
    return time.monotonic() - began


class Process:
    """Another program."""

    def __init__(self, command: Sequence[str], env: Optional[Dict[str, str]] = None) -> None:
        self.command = list(command)
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **(env or {})},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self, read: Callable[[], bytes]) -> bytes:
        # A process that hangs is killed, so that the test fails and shows the error output of the process.
        watchdog = threading.Timer(2 * PATIENCE, self.process.kill)
        watchdog.start()
        try:
            return read()
        finally:
            watchdog.cancel()

    def read_line(self) -> str:
        """The next line of the program's output."""
        assert self.process.stdout is not None
        line = self._read(self.process.stdout.readline).decode()
        assert line, f"{self.command} has closed its output:\n{self.error_output()}"
        return line.strip()

    def read(self, size: int) -> bytes:
        """The next bytes of the program's output."""
        stdout = self.process.stdout
        assert stdout is not None
        data = self._read(lambda: stdout.read(size))
        assert len(data) == size, f"{self.command} has closed its output:\n{self.error_output()}"
        return data

    def read_rest(self) -> bytes:
        """The output up to its end. :meth:`wait_ok` would leave out what was read ahead."""
        assert self.process.stdout is not None
        return self._read(self.process.stdout.read)

    def expect(self, line: str) -> None:
        received = self.read_line()
        assert received == line, f"{received!r}\n{self.error_output()}"

    def write_line(self, line: str) -> None:
        self.write(line.encode() + b"\n")

    def write(self, given: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(given)
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def error_output(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def wait_ok(self, given: bytes = b"") -> bytes:
        """Writes the whole input, waits until the program has ended, and returns its output. The program must succeed."""
        try:
            out, _ = self.process.communicate(given, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.command} does not end:\n{self.error_output()}") from None
        assert self.process.returncode == 0, f"{self.command}: {self.process.returncode}\n{self.error_output()}"
        return out

    def close(self) -> None:
        # SIGKILL also ends a stopped process.
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def python(role: str, *arguments: object) -> List[str]:
    """The command of a process that runs a role of child.py."""
    return [sys.executable, str(Path(__file__).with_name("child.py")), role, *map(str, arguments)]


def peer(*arguments: object) -> List[str]:
    """The command of the Rust peer, the program rsshm-peer of the test kit."""
    program = TARGET / "rsshm-peer"
    assert program.exists(), f"{program} is missing: cargo build --package rsshm-testkit --bin rsshm-peer"
    return [str(program), *map(str, arguments)]


def gst(*pipeline: object) -> List[str]:
    """The command that runs a pipeline."""
    return ["gst-launch-1.0", "-q", *(word for part in pipeline for word in str(part).split())]


def gst_environment() -> Dict[str, str]:
    """The environment in which GStreamer finds the new build of the plugin and warnings are fatal.

    The plugin has its own directory, because GStreamer loads every plugin in and below GST_PLUGIN_PATH.
    """
    directory = ROOT / "target" / "python-plugin"
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "libgstrsshm.so"
    plugin = TARGET / "libgstrsshm.so"
    assert plugin.exists(), f"{plugin} is missing: cargo build --lib"
    # A link from an earlier run may point to the plugin of another checkout.
    if not link.is_symlink() or os.readlink(link) != str(plugin):
        link.unlink(missing_ok=True)
        link.symlink_to(plugin)
    return {
        "GST_PLUGIN_PATH": str(directory),
        "GST_REGISTRY": str(directory / "registry.bin"),
        "G_DEBUG": "fatal_warnings",
    }


def pictures(layout: Layout, count: int, seed: int = 1) -> List[List[Any]]:
    """Pictures of noise, each as a list of planes."""
    random = numpy.random.default_rng(seed)
    return [
        [
            random.integers(0, 1 << 8 * numpy.dtype(plane.dtype).itemsize, plane.shape).astype(plane.dtype)
            for plane in layout.planes
        ]
        for _ in range(count)
    ]


def packets(count: int, seed: int = 1) -> List[bytes]:
    """Frames of 188 to 1400 bytes of noise. Each begins with its index."""
    random = numpy.random.default_rng(seed)
    noise = random.bytes(65536)
    sizes, begins = random.integers(184, 1397, count), random.integers(0, 60000, count)
    return [struct.pack("=I", index) + noise[begin : begin + size] for index, (size, begin) in enumerate(zip(sizes, begins))]


def tight(planes: Iterable[Any]) -> bytes:
    """The pixels of a picture, without padding."""
    return b"".join(numpy.ascontiguousarray(plane).tobytes() for plane in planes)


def moving(seq: int, width: int, height: int) -> Any:
    """The picture that classic_write.py draws as the frame with this seq."""
    rows, columns = numpy.indices((height, width))
    zeros = numpy.zeros((height, width), int)
    return (numpy.stack([columns, rows, zeros, zeros], axis=2) + seq).astype(numpy.uint8)


def classic(name: str, channel: Channel, *arguments: object) -> List[str]:
    """The command of classic_read.py or classic_write.py."""
    program = ROOT / "python" / "examples" / f"classic_{name}.py"
    return [sys.executable, str(program), "--channel", channel.name, *map(str, arguments)]


def padded(layout: Layout, planes: Iterable[Any]) -> bytes:
    """The bytes of a picture in the layout."""
    data = bytearray(layout.size)
    for target, plane in zip(layout.planes, planes):
        target.array(data)[...] = plane
    return bytes(data)


def unpadded(layout: Layout, data: bytes) -> bytes:
    """The pixels of a frame, without padding."""
    return tight(plane.array(data) for plane in layout.planes)


def records(frames: Iterable[bytes]) -> bytes:
    """Frames in the format that the peers read and write: the size of each frame precedes it."""
    return b"".join(struct.pack("=I", len(frame)) + frame for frame in frames)


def frames_of(data: bytes) -> List[bytes]:
    """The frames of :func:`records`."""
    frames = []
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("=I", data, at)
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return frames


def grey(value: int, shape: Sequence[int] = (48, 64)) -> Any:
    return numpy.full(shape, value & 0xFF, numpy.uint8)


def is_even(array: Any) -> bool:
    """Whether all samples are equal. In a torn frame they differ."""
    return bool(array.min() == array.max())


class Pose(ctypes.Structure):
    """A structure whose fields are all derived from one value."""

    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double), ("count", ctypes.c_uint32), ("words", ctypes.c_uint32 * WORDS)]


def pose(value: int) -> Pose:
    made = Pose(value, value, value)
    numpy.frombuffer(made.words, numpy.uint32)[:] = value
    return made


def is_whole(value: Pose) -> bool:
    """Whether all fields are derived from one value."""
    return value.x == value.y == value.count and bool((numpy.frombuffer(value.words, numpy.uint32) == value.count).all())
