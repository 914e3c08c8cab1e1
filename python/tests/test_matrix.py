# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every kind of writer with every kind of reader: the writer is killed, and the same reader reads the next one.

The next writer has other caps. Each frame is checked, and is published when the reader has the one before it.
"""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy
import pytest
from helpers import ROOT, SLOWDOWN, TARGET, Channel, Process, classic, gst, gst_environment, moving, peer

Start = Callable[..., Process]
Read = Callable[[int], bytes]
FRAMES = 8
"""The frames that a reader receives from each of the two writers."""
PICTURES = 256
"""The pictures of the classic writer repeat after this many frames."""
CAPS_RECORD = 1 << 31
CAPI = ROOT / "capi"
FLAGS = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-pthread"]


class Shape(NamedTuple):
    """What the caps of a channel say. The rows of these formats and widths have no padding."""

    format: str
    width: int
    height: int

    @property
    def size(self) -> int:
        return self.width * self.height * (4 if self.format == "RGBx" else 3) // (1 if self.format == "RGBx" else 2)


SHAPES = [Shape("RGBx", 64, 48), Shape("NV12", 32, 24)]
CLASSIC_SHAPES = [Shape("RGBx", 64, 48), Shape("RGBx", 32, 24)]


class Frame(NamedTuple):
    shape: Shape
    checksum: int
    seq: Optional[int] = None
    """None if the reader does not print it."""


def shape_of(caps: str) -> Shape:
    """The shape in the caps. The types of the fields may be in the text or not."""
    value = lambda field: re.search(rf"\b{field}=(?:\(\w+\))?(\w+)", caps)[1]  # type: ignore[index]
    assert caps.startswith("video/x-raw,") and re.search(r"framerate=(\(fraction\))?30/1", caps), caps
    return Shape(value("format"), int(value("width")), int(value("height")))


def noise(seq: int, shape: Shape) -> bytes:
    return numpy.random.default_rng(seq).bytes(shape.size)


@functools.cache
def library() -> tempfile.TemporaryDirectory[str]:
    """The directory of the C library, linked as `make install-capi` links it. It is removed when the tests end."""
    directory = tempfile.TemporaryDirectory(prefix="python-peers-", dir=ROOT / "target")
    archive = TARGET / "librsshm.a"
    assert archive.exists(), f"{archive} is missing: cargo build --package rsshm-capi"
    subprocess.run([str(CAPI / "link"), str(archive), directory.name], check=True)
    return directory


@functools.cache
def compiled(source: str) -> str:
    """A program of the tests of the C library."""
    directory = library().name
    program = f"{directory}/{Path(source).name}"
    compiler = ["cc", "-std=c99"] if source.endswith(".c") else ["c++", "-std=c++17"]
    where = [f"-I{CAPI / 'include'}", f"-L{directory}", f"-Wl,-rpath,{directory}"]
    files = [str(CAPI / "tests" / source), "-o", program, "-lrsshm"]
    subprocess.run([*compiler, *FLAGS, *where, *files], check=True)
    return program


def python_peer(*arguments: object) -> List[str]:
    return [sys.executable, str(Path(__file__).with_name("matrix_peer.py")), *map(str, arguments)]


WRITERS: Dict[str, Callable[[str, Shape], List[str]]] = {
    "rust": lambda name, shape: peer(
        "write",
        name,
        f"video/x-raw,format={shape.format},width={shape.width},height={shape.height},framerate=30/1",
    ),
    "c": lambda name, shape: [compiled("c/peer.c"), "write", name, *map(str, shape)],
    "c++": lambda name, shape: [compiled("cpp/peer.cpp"), "write", name, *map(str, shape)],
    "python": lambda name, shape: python_peer("write", name, *shape),
}
READERS: Dict[str, Callable[[str], List[str]]] = {
    "rust": lambda name: peer("read", name, "caps"),
    "observer": lambda name: peer("read", name, "caps", "observe"),
    "c": lambda name: [compiled("c/peer.c"), "read", name],
    "c observer": lambda name: [compiled("c/peer.c"), "read", name, "observe"],
    "c++": lambda name: [compiled("cpp/peer.cpp"), "read", name],
    "python": lambda name: python_peer("read", name),
}


class Writer:
    """A writer that gets its frames from the test, each after its size."""

    paces_itself = False
    picture = staticmethod(noise)

    def __init__(self, start: Start, kind: str, channel: Channel, shape: Shape) -> None:
        self.process = start(WRITERS[kind](channel.name, shape))

    def publish(self, frame: bytes) -> None:
        self.process.write(struct.pack("=I", len(frame)) + frame)

    def end(self) -> None:
        self.process.wait_ok()


class PluginWriter(Writer):
    """rsshmsink."""

    def __init__(self, start: Start, _: str, channel: Channel, shape: Shape) -> None:
        pipeline = gst(
            f"fdsrc blocksize={shape.size} ! rawvideoparse width={shape.width} height={shape.height} framerate=30/1",
            f"format={shape.format.lower()} ! rsshmsink name={channel.name} sync=false",
        )
        self.process = start(pipeline, env=gst_environment())

    def publish(self, frame: bytes) -> None:
        self.process.write(frame)


class ClassicWriter(Writer):
    """classic_write.py, which draws 30 frames a second."""

    paces_itself = True

    def __init__(self, start: Start, _: str, channel: Channel, shape: Shape) -> None:
        self.process = start(classic("write", channel, "--width", shape.width, "--height", shape.height))

    @staticmethod
    def picture(seq: int, shape: Shape) -> bytes:
        return bytes(moving(seq, shape.width, shape.height).tobytes())

    def publish(self, frame: bytes) -> None:
        pass

    def end(self) -> None:
        self.process.signal(signal.SIGTERM)
        super().end()


class Reader:
    """A reader that prints every frame."""

    misses = False

    def __init__(self, start: Start, kind: str, channel: Channel) -> None:
        self.process = start(READERS[kind](channel.name))
        self.shape: Any = None

    def next(self) -> Frame:
        """The next frame."""
        return self.parse(self.process.read)

    def parse(self, read: Read) -> Frame:
        """The next frame of the reader's output."""
        while True:
            (size,) = struct.unpack("=I", read(4))
            data = read(size & ~CAPS_RECORD)
            if not size & CAPS_RECORD:
                return Frame(self.shape, zlib.crc32(data))
            self.shape = shape_of(data.decode())

    def rest(self) -> List[Frame]:
        """The further frames up to the end of the reader, which ends by itself."""
        data = self.process.read_rest()
        self.process.wait_ok()
        output = io.BytesIO(data)
        frames = []
        while output.tell() < len(data):
            try:
                frames.append(self.parse(output.read))
            except struct.error:
                # The rest is no frame. If a frame was cut off, its checksum would be wrong.
                assert output.tell() == len(data)
        return frames


class PluginReader(Reader):
    """rsshmsrc. gdppay writes a header before all caps and frames: the kind in 2 bytes at 4, the size in 4 bytes at 6."""

    def __init__(self, start: Start, _: str, channel: Channel) -> None:
        self.process = start(gst(f"rsshmsrc name={channel.name} ! gdppay ! fdsink fd=1"), env=gst_environment())
        self.shape = None

    def parse(self, read: Read) -> Frame:
        while True:
            kind, size = struct.unpack_from(">4xHI", read(62))
            data = read(size)
            if kind == 1:
                return Frame(self.shape, zlib.crc32(data))
            if kind == 2:
                self.shape = shape_of(data.rstrip(b"\0").decode())


class ClassicReader(Reader):
    """classic_read.py, which prints what is the newest frame at the moment."""

    misses = True

    def __init__(self, start: Start, _: str, channel: Channel) -> None:
        self.process = start(classic("read", channel, "--every", 0.002))
        self.seq = 0

    def next(self) -> Frame:
        while True:
            line = self.process.read_line()
            found = re.fullmatch(r"frame (\d+), \d+ bytes, CRC (\w+), (.*)", line)
            if found and int(found[1]) > self.seq:
                self.seq = int(found[1])
                return Frame(shape_of(found[3]), int(found[2], 16), self.seq)
            # A writer may be killed while it holds the semaphore.
            others = ("no frame", f"there is no channel {self.process.command[3]}", "another process holds the semaphore")
            assert found or line in others, line

    def rest(self) -> List[Frame]:
        self.process.signal(signal.SIGTERM)
        self.process.wait_ok()
        return []


def head_of(channel: Channel) -> int:
    """The seq of the newest frame, which is the first word of the status."""
    with open(channel.segment, "rb") as segment:
        status = int.from_bytes(os.pread(segment.fileno(), 8, 64), sys.byteorder)
        return int.from_bytes(os.pread(segment.fileno(), 8, status), sys.byteorder)


def check(frame: Frame, seq: int, shape: Shape, writer: Writer) -> int:
    """Checks that the frame is the one with the seq. Returns its seq.

    A writer that paces itself may begin before the reader, and does not wait for a slow one. So its frame may be a later one.
    """
    assert frame.shape == shape
    candidates = [seq] if not writer.paces_itself else [frame.seq] if frame.seq else range(seq, seq + PICTURES)
    found = [each for each in candidates if zlib.crc32(writer.picture(each, shape)) == frame.checksum]
    is_right = len(found) == 1 and found[0] >= seq and frame.seq in (None, found[0])
    assert is_right, f"the frame is not frame {seq}, or its content is wrong: {frame}"
    return found[0]


@pytest.mark.parametrize("reader", ["plugin", *READERS, "classic"])
@pytest.mark.parametrize("writer", ["plugin", *WRITERS, "classic"])
def test_reader_reads_killed_writer_and_the_next(writer: str, reader: str, channel: Channel, start: Start) -> None:
    if SLOWDOWN > 1 and reader == "plugin":
        pytest.skip("emulated: a frame takes so long that rsshmsrc has declared its time empty, and skips it")
    if writer in WRITERS:
        # Compiles a peer in C or C++. Later, the reader would wait for it.
        WRITERS[writer](channel.name, SHAPES[0])
    reading = {"plugin": PluginReader, "classic": ClassicReader}.get(reader, Reader)(start, reader, channel)
    seq = 0
    for shape in CLASSIC_SHAPES if writer == "classic" else SHAPES:
        writing = {"plugin": PluginWriter, "classic": ClassicWriter}.get(writer, Writer)(start, writer, channel, shape)
        for _ in range(FRAMES):
            writing.publish(writing.picture(seq + 1, shape))
            try:
                seq = check(reading.next(), seq + 1, shape, writing)
            finally:
                print(writing.process.error_output())  # pytest shows it if the test fails.
        if shape in (SHAPES[0], CLASSIC_SHAPES[0]):
            writing.process.kill()
            last = head_of(channel)
            # Each reader but the classic one reads the last frame of a killed writer too.
            while not reading.misses and (last - seq) % PICTURES:
                assert writing.paces_itself
                seq = check(reading.next(), seq + 1, shape, writing)
            seq = last
            if isinstance(reading, ClassicReader):
                # It may have printed more frames of the killed writer than this test has read.
                reading.seq = seq
    writing.end()
    for frame in reading.rest():
        assert writing.paces_itself, "there is another frame"
        seq = check(frame, seq + 1, shape, writing)
    channel.assert_gone()
