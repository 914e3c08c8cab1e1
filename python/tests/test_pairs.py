# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every writer works with every reader (GStreamer, Python, Rust): each frame is the same on both sides, in every format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Callable, List

import pytest
from helpers import (
    Channel,
    Process,
    frames_of,
    gst,
    gst_environment,
    padded,
    peer,
    pictures,
    python,
    records,
    tight,
    unpadded,
)

from rsshm.caps import Layout, layout_of, raw_video

FORMATS = ["BGR", "GRAY8", "YUY2", "NV12", "I420", "RGBA", "GRAY16_LE"]
WIDTH, HEIGHT = 38, 22
ALIGN = 64
FRAMES = 12

Start = Callable[..., Process]


class GstWriter:
    """rsshmsink copies foreign memory into GStreamer's layout."""

    def __init__(self, start: Start, name: str, layout: Layout, frames: List[Any], directory: Path) -> None:
        file = directory / "frames"
        file.write_bytes(b"".join(padded(layout, planes) for planes in frames))
        as_list = lambda values: "<" + ",".join(map(str, values)) + ">"  # noqa: E731
        self.process = start(
            gst(
                f"filesrc location={file} ! rawvideoparse framerate=30/1 width={WIDTH} height={HEIGHT}",
                f"format={layout.format.lower().replace('_', '-')} frame-size={layout.size}",
                f"plane-strides={as_list(plane.stride for plane in layout.planes)}",
                f"plane-offsets={as_list(plane.offset for plane in layout.planes)}",
                f"! rsshmsink name={name} lossless=true wait-for-connection=true sync=false",
            ),
            env=gst_environment(),
        )
        self.given = b""
        self.layout = layout_of(layout.format, WIDTH, HEIGHT)


class PythonWriter:
    def __init__(self, start: Start, name: str, layout: Layout, frames: List[Any], _: Path) -> None:
        self.process = start(python("write", name, layout.format, WIDTH, HEIGHT, ALIGN))
        self.given = records(map(tight, frames))
        self.layout = layout


class RustWriter:
    def __init__(self, start: Start, name: str, layout: Layout, frames: List[Any], _: Path) -> None:
        planes = ",".join(f"{plane.offset}:{plane.stride}" for plane in layout.planes)
        self.process = start(peer("write", name, raw_video(layout, 30), "lossless", f"planes={planes}"))
        self.given = records(padded(layout, planes) for planes in frames)
        self.layout = layout


class GstReader:
    """rsshmsrc converts frames to GStreamer's layout, because filesink does not know other layouts."""

    def __init__(self, start: Start, name: str, directory: Path) -> None:
        self.file = directory / "read"
        self.process = start(gst(f"rsshmsrc name={name} ! filesink location={self.file}"), env=gst_environment())

    def frames(self, layout: Layout) -> List[bytes]:
        self.process.wait_ok()
        layout = layout_of(layout.format, WIDTH, HEIGHT)
        data = self.file.read_bytes()
        assert len(data) % layout.size == 0
        return [unpadded(layout, data[at : at + layout.size]) for at in range(0, len(data), layout.size)]


class PythonReader:
    def __init__(self, start: Start, name: str, _: Path) -> None:
        self.process = start(python("read", name))

    def frames(self, _: Layout) -> List[bytes]:
        return frames_of(self.process.wait_ok())


class RustReader:
    def __init__(self, start: Start, name: str, _: Path) -> None:
        self.process = start(peer("read", name))

    def frames(self, layout: Layout) -> List[bytes]:
        return [unpadded(layout, frame) for frame in frames_of(self.process.wait_ok())]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("reader", [GstReader, PythonReader, RustReader])
@pytest.mark.parametrize("writer", [GstWriter, PythonWriter, RustWriter])
def test_every_frame_arrives_unchanged(
    writer: Any, reader: Any, format: str, channel: Channel, start: Start, tmp_path: Path
) -> None:
    layout = layout_of(format, WIDTH, HEIGHT, ALIGN)
    sent = pictures(layout, FRAMES)
    reading = reader(start, channel.name, tmp_path)
    writing = writer(start, channel.name, layout, sent, tmp_path)
    writing.process.wait_ok(writing.given)
    hashes = [hashlib.sha1(tight(planes)).hexdigest() for planes in sent]
    assert [hashlib.sha1(frame).hexdigest() for frame in reading.frames(writing.layout)] == hashes
    channel.assert_gone()
