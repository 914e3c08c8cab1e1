# SPDX-License-Identifier: MIT OR Apache-2.0
"""Invalid input raises an error of this package that gives the reason. It never crashes the interpreter."""

from __future__ import annotations

import os
import random
import time
from typing import Any, Dict

import numpy
import pytest
from helpers import PATIENCE, Channel, Segment, constant, fields, grey

import rsshm


@pytest.mark.parametrize("name", ["", "x" * 251, "a/b", "a\0b", "sem.cam0", ".", "..", ".rsshm-1-0"])
def test_invalid_name_is_refused(name: str) -> None:
    for make in (rsshm.Reader, rsshm.Observer, lambda name: rsshm.Writer(name, (4, 4))):
        with pytest.raises(rsshm.BadName, match="is not valid as the name of a channel"):
            make(name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"perms": 0o060}, "perms"),
        ({"perms": 0o1600}, "perms"),
        ({"max_slots": 2}, "max_slots"),
        ({"max_slots": 65}, "max_slots"),
        ({"stride_align": 3}, "stride_align"),
        ({"fps": "fast"}, "fps"),
        ({"fps": -1}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"format": "BGR9"}, "the format BGR9 is not one of"),
        ({"dtype": "float32"}, "float32"),
        ({"shape": (4,)}, "shape"),
        ({"shape": (4, 4, 4)}, "shape"),
        ({"shape": (0, 4)}, "picture of 4x0"),
        ({"shape": (4, 4), "format": "GRAY16_LE", "dtype": numpy.uint8}, "uint16"),
        ({"shape": None, "caps": ""}, "caps"),
        ({"shape": None, "caps": "a\0b"}, "caps"),
        ({"shape": None, "caps": "a/b", "frame_size": -1}, "frame_size"),
    ],
)
def test_invalid_option_is_refused(options: Dict[str, Any], message: str, channel: Channel) -> None:
    with pytest.raises((rsshm.BadOption, rsshm.FormatError), match=message):
        rsshm.Writer(channel.name, **{"shape": (4, 4), **options})
    channel.assert_gone()


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_invalid_timeout_is_refused(timeout: Any, channel: Channel) -> None:
    with pytest.raises(rsshm.BadOption, match="timeout"):
        rsshm.Reader(channel.name, timeout)
    with pytest.raises(rsshm.BadOption, match="timeout"):
        rsshm.Reader(channel.name).read(timeout)


def test_timeout_names_the_missing_channel(channel: Channel) -> None:
    began = time.monotonic()
    with pytest.raises(rsshm.Timeout, match=f"channel {channel.name}: no writer"):
        rsshm.Reader(channel.name, timeout=0.1).read()
    assert 0.1 <= time.monotonic() - began < 10
    with pytest.raises(TimeoutError):
        rsshm.Observer(channel.name).read(0)


@pytest.mark.parametrize(
    "picture",
    [
        numpy.zeros((48, 65, 3), numpy.uint8),
        numpy.zeros((48, 64), numpy.uint8),
        numpy.zeros((48, 64, 4), numpy.uint8),
        numpy.zeros((48, 64, 3), numpy.float32),
        [[1, 2], [3, 4]],
        None,
        b"bytes",
    ],
)
def test_mismatched_picture_is_refused(picture: Any, channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64, 3)) as writer:
        with pytest.raises(rsshm.FormatError, match="does not match the channel"):
            writer.write(picture)
        assert writer.published == 0
        assert writer.write(numpy.zeros((48, 64, 3), numpy.uint8)) == 1


def test_mismatched_planes_are_refused(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="NV12") as writer:
        luma, chroma = numpy.zeros((48, 64), numpy.uint8), numpy.zeros((24, 32, 2), numpy.uint8)
        for planes in ([luma], [luma, luma], [chroma, luma], luma):
            with pytest.raises(rsshm.FormatError, match="match the channel|planes are not NV12"):
                writer.write(planes)
        assert writer.write([luma, chroma]) == 1
        with writer.buffer() as slot:
            with pytest.raises(rsshm.FormatError, match="slot.planes"):
                slot.array
            slot.discard()
    with rsshm.Writer(channel.name, (35, 51), format="I420") as writer:
        with pytest.raises(rsshm.FormatError, match="a list of planes"):
            writer.write(luma)


def test_buffer_before_the_shape_is_refused(channel: Channel) -> None:
    with rsshm.Writer(channel.name) as writer:
        with pytest.raises(rsshm.FormatError, match="shape is unknown"):
            writer.buffer()
        with pytest.raises(rsshm.FormatError, match="shape is unknown"):
            writer.wait_for_reader(0)
        writer.write(numpy.zeros((8, 8, 3), numpy.uint8))
        writer.buffer().publish()


def test_bytes_of_wrong_size_are_refused(channel: Channel) -> None:
    with rsshm.Writer(channel.name, caps="a/b", frame_size=10) as writer:
        with pytest.raises(rsshm.FormatError, match="9 bytes"):
            writer.write(bytes(9))
        with pytest.raises(rsshm.FormatError):
            writer.write(b"")
        with pytest.raises(rsshm.FormatError):
            writer.write(object())
        assert writer.write(bytes(10)) == 1
        writer.set_format(caps="a/b")
        with pytest.raises(rsshm.FormatError, match="size"):
            writer.buffer()
        writer.buffer(3).publish()


def test_unknown_format_has_only_data(channel: Channel) -> None:
    caps = "video/x-raw, format=(string)NV12_4L4, width=(int)64, height=(int)48, framerate=(fraction)30/1"
    with rsshm.Writer(channel.name, caps=caps) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(bytes(100))
        frame = reader.read()
        assert frame.data.size == 100
        for what in (lambda: frame.array, lambda: frame.planes, frame.to_bgr, frame.to_rgb):
            with pytest.raises(rsshm.FormatError, match="NV12_4L4"):
                what()


def test_closed_reader_and_writer_refuse_calls(channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
    reader = rsshm.Reader(channel.name, timeout=5)
    writer.write(grey(1))
    slot = writer.buffer()
    frame = reader.read()
    for _ in range(2):
        reader.close()
        writer.close()
    for call in (reader.read, lambda: next(iter(reader)), reader.__enter__):
        with pytest.raises(rsshm.Closed, match="closed"):
            call()
    for call in (lambda: writer.write(grey(1)), writer.buffer, writer.end_stream, slot.publish):
        with pytest.raises(rsshm.Closed, match="closed"):
            call()
    assert (frame.array == 1).all() and repr(reader) and repr(writer) and repr(frame)
    channel.assert_gone()


def test_directory_or_link_is_refused(channel: Channel) -> None:
    channel.segment.symlink_to("/dev/null")
    with pytest.raises(rsshm.Error, match="is a symbolic link"):
        rsshm.Reader(channel.name).read(0)
    with pytest.raises(rsshm.Error, match="is a symbolic link"):
        rsshm.Writer(channel.name, (4, 4))
    channel.segment.unlink()
    channel.lock_file.mkdir()
    try:
        with pytest.raises(rsshm.Foreign, match="is a directory"):
            rsshm.Writer(channel.name, (4, 4))
    finally:
        channel.lock_file.rmdir()


def test_foreign_file_is_left_alone(channel: Channel) -> None:
    channel.segment.write_bytes(b"something else" * 1000)
    with pytest.raises(rsshm.Damaged, match="not a segment of rsshm"):
        rsshm.Observer(channel.name).read(1)
    # Without a lock file, a reader can take no reader entry.
    with pytest.raises(rsshm.Timeout):
        rsshm.Reader(channel.name).read(0.1)
    with pytest.raises(rsshm.Damaged, match="choose another name"):
        writer = rsshm.Writer(channel.name, (4, 4))
        writer.write(numpy.zeros((4, 4, 3), numpy.uint8))
    assert channel.segment.read_bytes().startswith(b"something else")
    assert not channel.lock_file.exists()


def dead_channel(channel: Channel) -> bytes:
    """The segment that a killed writer leaves."""
    child = os.fork()
    if child == 0:
        writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
        writer.write(grey(1))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    return channel.segment.read_bytes()


@pytest.mark.parametrize("field", [name for name in fields("Header") if name != "reserved"])
def test_invalid_header_is_refused_or_harmless(field: str, channel: Channel) -> None:
    data = dead_channel(channel)
    offset, size = fields("Header")[field]
    for value in (0, 1, 7, 255, 4096, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1):
        value &= (1 << 8 * size) - 1
        changed = bytearray(data)
        changed[offset : offset + size] = value.to_bytes(size, "little")
        with channel.segment.open("r+b") as file:
            file.write(changed)
        with pytest.raises((rsshm.Timeout, rsshm.Damaged)):
            rsshm.Observer(channel.name).read(0)
    # The next writer of this user replaces the segment in any case.
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        writer.write(grey(2))
        with rsshm.Reader(channel.name, timeout=5) as reader:
            assert (reader.read().array == 2).all()


@pytest.mark.filterwarnings("ignore:.*more slots than its quota")
def test_garbage_in_tables_crashes_no_reader_or_writer(channel: Channel) -> None:
    """Another process may write any value into the status, the tables and the descriptors at any time."""
    numbers = random.Random(11)
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=8) as writer:
        writer.write(grey(0))
        reader = rsshm.Reader(channel.name, timeout=0.01)
        observer = rsshm.Observer(channel.name, timeout=0.01)
        segment = Segment(channel)
        begins = {name: segment.header(f"{name}_offset") for name in ("status", "evictions", "readers", "ring", "descriptors")}
        offsets = [
            *range(begins["status"], begins["status"] + 64, 4),
            *range(begins["evictions"], begins["evictions"] + 512, 8),
            *range(begins["readers"], begins["readers"] + 128, 4),
            *range(begins["ring"], begins["ring"] + 64, 4),
            *(
                begins["descriptors"] + slot * constant("DESCRIPTOR_STRIDE") + offset
                for slot in range(8)
                for offset in range(0, 144, 4)
            ),
        ]
        values = [0, 1, 2, 3, 63, 64, 255, 8192, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
        frames = 0
        began = time.monotonic()
        # Continue for at least a second. On a busy machine, continue until enough frames have arrived.
        while time.monotonic() - began < 1 or frames <= 10:
            assert time.monotonic() - began < PATIENCE, f"only {frames} frames arrive"
            for _ in range(numbers.randrange(4)):
                segment.store(numbers.choice(offsets), numbers.choice(values), 4)
            try:
                writer.write(grey(frames))
                frame = (reader if numbers.random() < 0.7 else observer).read()
                frames += 1
                assert frame.data.sum() >= 0
                frame.array.sum()
            except rsshm.Error:
                pass
        reader.close()
        observer.close()


def test_shrinking_file_crashes_no_observer(channel: Channel) -> None:
    """An observer copies frames with pread, so a shorter file cannot crash it. (It maps the tables: see docs/PROTOCOL.md.)"""
    with rsshm.Writer(channel.name, (480, 640), format="GRAY8") as writer:
        writer.write(grey(1, (480, 640)))
        with rsshm.Observer(channel.name) as observer:
            os.truncate(channel.segment, Segment(channel).header("slots_offset"))
            with pytest.raises(rsshm.Timeout):
                observer.read(0.05)


def test_caps_may_be_any_text() -> None:
    numbers = random.Random(5)
    pieces = [
        "video/x-raw",
        ",",
        "format",
        "=",
        "(string)",
        "BGR",
        '"',
        "\\",
        "width=(int)3",
        "{",
        "}",
        "[1,2]",
        ";",
        " ",
        "\n",
        "(memory:GLMemory)",
        "é",
    ]
    for _ in range(3000):
        rsshm.caps.parse("".join(numbers.choice(pieces) for _ in range(numbers.randrange(20))))
    began = time.monotonic()
    for text in (" " * 65536, "," * 65536, "a=" * 32768, '"' * 65536, "a/b" + ", x=" * 16384, "\\" * 65536, "a" * 65536):
        rsshm.caps.parse(text)
    assert time.monotonic() - began < 5
    assert rsshm.caps.parse("video/x-raw(memory:GLMemory),format=BGR,width=4,height=4").layout is None
    assert rsshm.caps.parse("video/x-raw,format=BGR,width=4000000000,height=4").layout is None
