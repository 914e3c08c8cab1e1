# SPDX-License-Identifier: MIT OR Apache-2.0
"""Who keeps memory: readers, writers, frames, slots and arrays end in any order, and at the end of the program."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from helpers import Channel, Process, Segment, eventually, grey

import rsshm

Start = Callable[..., Process]
PACKAGE = str(Path(rsshm.__file__).parents[1])


def frame_in_place(writer: rsshm.Writer, reader: rsshm.Reader, value: int) -> rsshm.Frame:
    frames = []
    eventually("a frame in place", lambda: writer.write(grey(value)) and (frames.append(reader.read()) or frames[-1].in_place))
    return frames[-1]


@pytest.mark.parametrize("order", list(itertools.permutations(["reader", "writer", "frame", "array"])))
def test_objects_end_in_any_order(order: Any, channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
    reader = rsshm.Reader(channel.name, timeout=5)
    frame = frame_in_place(writer, reader, 7)
    objects: Dict[str, Any] = {"reader": reader, "writer": writer, "frame": frame, "array": frame.array[1:, ::2]}
    del reader, writer, frame
    segment = Segment(channel)
    for name in order:
        del objects[name]
        gc.collect()
        if "array" in objects:
            assert (objects["array"] == 7).all()
        if "frame" in objects:
            assert (objects["frame"].data == 7).all()
        if "writer" in objects:
            held = int("array" in objects or "frame" in objects)
            assert segment.held(os.getpid()) == held
            assert all(objects["writer"].write(grey(value)) is not None for value in range(30))
    channel.assert_gone()


def test_slot_keeps_its_bytes_after_publish_and_close(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        kept = []
        for value in range(4):
            with writer.buffer() as slot:
                slot.array[:] = value
                kept.append(slot.array[::2])
        given_up = writer.buffer()
        given_up.array[:] = 9
        discarded = given_up.array
        given_up.discard()
        for value in range(100):
            assert writer.write(grey(value)) is not None
        assert [int(array.max()) for array in kept] == [int(array.min()) for array in kept] == [0, 1, 2, 3]
        assert (discarded == 9).all()
    del writer, slot
    gc.collect()
    assert [int(array.max()) for array in kept] == [0, 1, 2, 3]


def test_dropped_slot_is_free_again(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=3) as writer:
        for value in range(30):
            slot = writer.buffer()
            slot.array[:] = value
            slot.discard() if value % 2 else None
            del slot
        assert writer.write(grey(1)) == 1 and writer.dropped == 0


@pytest.mark.parametrize("alive", ["everything", "arrays", "a cycle", "a thread"])
def test_program_may_end_with_living_objects(alive: str, channel: Channel, start: Start) -> None:
    program = f"""
import sys, threading
sys.path.insert(0, {PACKAGE!r})
import rsshm, numpy
writer = rsshm.Writer({channel.name!r}, (48, 64), format="GRAY8")
reader = rsshm.Reader({channel.name!r}, timeout=5)
arrays = []
for _ in range(20):
    writer.write(numpy.zeros((48, 64), "u1"))
    frame = reader.read()
    arrays += [frame.array, frame.data[::2]]
slot = writer.buffer()
arrays.append(slot.array)
if {alive!r} == "arrays":
    reader.close()
    writer.close()
    del writer, reader, frame, slot
if {alive!r} == "a cycle":
    arrays.append(arrays)
    sys.modules["rsshm"].keep = arrays
if {alive!r} == "a thread":
    other = rsshm.Reader({channel.name + "-other"!r})
    threading.Thread(target=other.read, daemon=True).start()
"""
    process = start([sys.executable, "-c", program])
    assert process.wait_ok() == b"" and process.error_output() == ""
    channel.assert_gone()


def test_forked_child_may_drop_the_objects_of_its_parent(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        frame = frame_in_place(writer, reader, 3)
        array = frame.array
        slot = writer.buffer()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                frame.release()
                slot.discard()
                del array, frame, slot
                gc.collect()
                with rsshm.Reader(channel.name, timeout=5) as own:
                    code = 0 if (own.read().array == 3).all() else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert Segment(channel).held(os.getpid()) == 1
        for value in range(50):
            assert writer.write(grey(value)) is not None
        assert (array == 3).all()
        slot.array[:] = 4
        assert slot.publish() is not None
