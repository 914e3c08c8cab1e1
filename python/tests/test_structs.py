# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ctypes structures shared by name, between two Python programs, and between Python and Rust."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Callable

import pytest
from helpers import PATIENCE, Channel, Pose, Process, eventually, frames_of, is_whole, peer, pose, python, records

import rsshm

Start = Callable[..., Process]


def test_newest_value_can_be_read_repeatedly(channel: Channel) -> None:
    with rsshm.struct_channel(channel.name, Pose) as writer, rsshm.struct_channel(channel.name, Pose) as reader:
        with pytest.raises(rsshm.Timeout):
            reader.read(0.01)
        for value in (1, 2, 3):
            writer.write(pose(value))
        assert [reader.read(5).count for _ in range(3)] == [3, 3, 3]
        with pytest.raises(rsshm.Timeout):
            reader.wait(0.01)
        writer.write(pose(4))
        assert reader.wait(5).count == 4 and reader.read().count == 4
        # The value that was read is a copy.
        reader.read().count = 9
        assert reader.read().count == 4
    channel.assert_gone()


def read_50_values(reader: rsshm.StructChannel[Pose]) -> None:
    """Checks that each value is whole, until 50 different values have come."""
    seen = set()
    for _ in range(5000):
        value = reader.wait(PATIENCE)
        assert is_whole(value)
        seen.add(value.count)
        if len(seen) >= 50:
            return
    raise AssertionError(f"only {len(seen)} different values come")


def test_reader_never_sees_half_of_a_change_by_a_thread(channel: Channel) -> None:
    """Three threads of one interpreter alternate every few milliseconds: the reader, the writer, and the service thread."""
    stop = threading.Event()
    with rsshm.struct_channel(channel.name, Pose) as writer, rsshm.struct_channel(channel.name, Pose) as reader:
        values = [pose(value) for value in range(64)]

        def write() -> None:
            while not stop.is_set():
                for value in values:
                    writer.write(value)

        writing = threading.Thread(target=write)
        writing.start()
        try:
            read_50_values(reader)
        finally:
            stop.set()
            writing.join()


def test_reader_never_sees_half_of_a_change_by_a_process(channel: Channel, start: Start) -> None:
    """The writer and the reader run at the same time, so the reader could see a write that is half done."""
    start(python("poses", channel.name))
    with rsshm.struct_channel(channel.name, Pose) as reader:
        for _ in range(4):
            read_50_values(reader)


def test_rust_reads_a_structure_of_python(channel: Channel, start: Start) -> None:
    reader = start(peer("read", channel.name))
    with rsshm.struct_channel(channel.name, Pose) as poses:
        poses.write(pose(1))
        assert poses._writer is not None
        eventually("a reader", lambda: poses._writer and poses._writer.readers)
        poses.write(pose(2))
        poses._writer.end_stream()
        assert frames_of(reader.wait_ok())[-1] == bytes(pose(2))


def test_python_reads_a_structure_of_rust(channel: Channel, start: Start) -> None:
    writer = start(peer("write", channel.name, "application/x-rsshm-struct", "lossless"))
    with rsshm.struct_channel(channel.name, Pose) as poses:
        given = records(bytes(pose(value)) for value in range(5))
        feeding = threading.Thread(target=lambda: writer.wait_ok(given))
        feeding.start()
        value = poses.read(20)
        while value.count < 4:
            value = poses.wait(20)
        assert is_whole(value)
        feeding.join()


def test_other_structure_is_refused(channel: Channel) -> None:
    class Other(ctypes.Structure):
        _fields_ = [("x", ctypes.c_double)]

    with rsshm.struct_channel(channel.name, Pose) as writer:
        writer.write(pose(1))
        with rsshm.struct_channel(channel.name, Other) as reader:
            with pytest.raises(rsshm.FormatError, match=f"Other has {struct.calcsize('d')}"):
                reader.read(5)
        with pytest.raises(rsshm.FormatError, match="not Pose"):
            writer.write(Other(1))
    with pytest.raises(rsshm.BadOption, match="not a ctypes structure"):
        rsshm.struct_channel(channel.name, int)  # type: ignore[type-var]
