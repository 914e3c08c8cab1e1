# SPDX-License-Identifier: MIT OR Apache-2.0
"""What goes with a frame beside its bytes, and events between frames."""

from __future__ import annotations

import struct
from typing import Any, Callable, List

import pytest
from helpers import Channel, Process, grey, gst, gst_environment

import rsshm

Start = Callable[..., Process]
REGION, TIME_CODE, CUSTOM = 2, 4, 5
TAGS = 2


def text(value: str) -> bytes:
    return struct.pack("=H", len(value.encode())) + value.encode()


def region(*numbers: int, name: str) -> rsshm.Metadata:
    return rsshm.Metadata(REGION, struct.pack("=4I2i", *numbers) + text(name))


def test_frame_has_its_metadata(channel: Channel) -> None:
    records = (
        region(1, 2, 30, 40, 7, -1, name="face"),
        rsshm.Metadata(CUSTOM, text("any") + b"any;"),
        region(5, 6, 10, 12, -1, 7, name="öye"),
        rsshm.Metadata(TIME_CODE, struct.pack("=8I", 30000, 1001, 1, 10, 20, 30, 4, 0) + text("")),
        rsshm.Metadata(999, b"unknown"),
    )
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(grey(1), metadata=records)
        frame = reader.read()
        with writer.buffer() as slot:
            slot.metadata = records[:1]
        writer.write(grey(3))
        drawn, plain = reader.read(), reader.read()
        assert frame.metadata == records
        assert frame.rois == (
            rsshm.Region(1, 2, 30, 40, 7, -1, "face"),
            rsshm.Region(5, 6, 10, 12, -1, 7, "öye"),
        )
        assert frame.rois[0].width == 30 and frame.rois[1].parent_id == 7
        assert frame.time_code == rsshm.TimeCode(10, 20, 30, 4, 0, 30000, 1001, 1)
        assert str(frame.time_code) == "10:20:30;04"
        assert drawn.metadata == records[:1] and drawn.time_code is None
        assert (plain.metadata, plain.rois, plain.time_code) == ((), (), None)
        # A detector passes on what a frame had.
        writer.write(grey(4), metadata=frame.metadata)
        assert reader.read().metadata == records
        frame.release()
        for what in ("metadata", "rois", "time_code"):
            with pytest.raises(rsshm.Released):
                getattr(frame, what)


def test_damaged_metadata_is_left_out(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        for records in ([rsshm.Metadata(REGION, b"short")], [region(1, 2, 3, 4, 5, 6, name="x" * 1000)]):
            writer.write(grey(1), metadata=records)
            frame = reader.read()
            assert frame.metadata == tuple(records)
            assert len(frame.rois) == (len(records[0].data) > 1000)
        with pytest.raises(rsshm.Error, match="metadata has 4004 bytes"):
            writer.write(grey(1), metadata=[rsshm.Metadata(CUSTOM, bytes(4000))])
        with pytest.raises(rsshm.BadOption, match="metadata"):
            writer.write(grey(1), metadata=[rsshm.Metadata(1 << 16, b"")])


def test_time_codes_of_gstreamer_arrive(channel: Channel, start: Start) -> None:
    command = gst(
        "videotestsrc num-buffers=3 ! video/x-raw,format=GRAY8,width=64,height=48,framerate=25/1 ! timecodestamper set=always",
        f"! rsshmsink name={channel.name} lossless=true wait-for-connection=true sync=false",
    )
    with rsshm.Reader(channel.name, timeout=20) as reader:
        writer = start(command, env=gst_environment())
        codes = [frame.time_code for frame in reader]
        writer.wait_ok()
    assert [code and (code.hours, code.seconds, code.frames, code.fps_n) for code in codes] == [
        (0, 0, count, 25) for count in range(3)
    ]


def test_events_are_reported_between_frames(channel: Channel, start: Start) -> None:
    order: List[Any] = []
    command = gst(
        'videotestsrc num-buffers=5 ! taginject tags=title="film" ! video/x-raw,format=GRAY8,width=64,height=48',
        f"! rsshmsink name={channel.name} lossless=true wait-for-connection=true sync=false",
    )
    with rsshm.Reader(channel.name, timeout=20, on_event=order.append) as reader:
        start(command, env=gst_environment())
        order += reader
    tags = [event for event in order if isinstance(event, rsshm.Event) and event.kind == TAGS]
    assert any("film" in event.text and event.data for event in tags), order
    frames = [item for item in order if isinstance(item, rsshm.Frame)]
    assert len(frames) == 5 and order.index(tags[0]) < order.index(frames[0])


def test_error_of_an_event_function_reaches_the_caller(channel: Channel, start: Start) -> None:
    command = gst(
        'videotestsrc num-buffers=5 ! taginject tags=title="film" ! video/x-raw,format=GRAY8,width=64,height=48',
        f"! rsshmsink name={channel.name} lossless=true wait-for-connection=true sync=false",
    )

    def fail(event: rsshm.Event) -> None:
        raise ZeroDivisionError(event.kind)

    with rsshm.Reader(channel.name, timeout=20, on_event=fail) as reader:
        start(command, env=gst_environment())
        with pytest.raises(ZeroDivisionError):
            reader.read()
        reader.on_event = None
        assert len(list(reader)) == 5
