# SPDX-License-Identifier: MIT OR Apache-2.0
"""examples/picamera2_to_rsshm.py, with a stand-in for Picamera2, because no machine for tests has such a camera."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest
from helpers import PATIENCE, ROOT, Channel, Process, eventually

import rsshm

Start = Callable[..., Process]
EXAMPLE = ROOT / "python" / "examples" / "picamera2_to_rsshm.py"
STANDIN = Path(__file__).with_name("standin")
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(STANDIN), str(ROOT / "python")])}
BGR = (40, 120, 200)


def example(*arguments: object) -> List[str]:
    return [sys.executable, str(EXAMPLE), *map(str, arguments)]


@pytest.mark.parametrize(
    "theirs, ours", [("RGB888", "BGR"), ("BGR888", "RGB"), ("XRGB8888", "BGRx"), ("XBGR8888", "RGBx"), ("YUV420", "I420"),
                     ("YVU420", "YV12")]
)  # fmt: skip
def test_pictures_have_the_colours_of_the_camera(theirs: str, ours: str, channel: Channel, start: Start) -> None:
    process = start(
        example("--channel", channel.name, "--size", "100x50", "--format", theirs, "--frames", 200), env=ENVIRONMENT
    )
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        indices = []
        seqs = []
        for _ in range(10):
            frame = reader.read()
            assert (frame.caps.format, frame.caps.width, frame.caps.height, frame.caps.fps) == (ours, 100, 50, 30)
            picture = frame.to_bgr()
            # The pixel at the top left has the index of the frame.
            assert abs(picture[2:, 2:].astype(int) - BGR).max() <= 4, picture[2, 2]
            first: Any = frame.planes[0][0, 0]
            indices.append(int(first if first.ndim == 0 else first[ours.index("R")]))
            seqs.append(frame.seq)
            assert abs(frame.planes[0][:, -1] - frame.planes[0][:, -2].astype(int)).max() == 0, "padding in the picture"
    assert seqs == sorted(set(seqs))
    # The reader may miss frames. Each frame has its own picture.
    assert len({(index - seq) % 256 for index, seq in zip(indices, seqs)}) == 1, (indices, seqs)
    assert process.read_line() == f"{channel.name}: {frame.caps}"


def test_times_are_those_of_the_sensor(channel: Channel, start: Start) -> None:
    start(example("--channel", channel.name, "--size", "64x48", "--frames", 200), env=ENVIRONMENT)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        ages = []
        for _ in range(20):
            frame = reader.read()
            assert frame.pts_ns is not None
            ages.append((time.monotonic_ns() - frame.pts_ns) / 1e6)
        # The stand-in delivers a picture 20 ms after it was taken, and its clock is ahead by 1000 seconds.
        assert 20 <= min(ages) < 500, ages
        # The writer announces the delay.
        eventually("the latency", lambda: reader.latency_ns >= 20_000_000)
        assert reader.latency_ns < 100e9


def test_both_streams_have_the_same_times(channel: Channel, start: Start) -> None:
    lores = f"{channel.name}-lores"
    process = start(
        example("--channel", channel.name, "--size", "128x96", "--lores", "64x48", "--frames", 100), env=ENVIRONMENT
    )
    with rsshm.sync([channel.name, lores], tolerance=0, timeout=PATIENCE) as sets:
        found = [(large.caps.width, small.caps.width, small.planes[0][0, 0], large.array[0, 0, 2]) for large, small in sets]
    assert len(found) >= 20 and all(each[:2] == (128, 64) and each[2] == each[3] for each in found), found
    process.wait_ok()
    for name in (channel.name, lores):
        assert name not in rsshm.channels()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_remove_the_channel(number: int, channel: Channel, start: Start) -> None:
    process = start(example("--channel", channel.name, "--size", "64x48"), env=ENVIRONMENT)
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        reader.read().release()
        process.signal(number)
        assert process.process.wait(PATIENCE) == 130
        channel.assert_gone()
        # The stream has not ended: the reader waits for the next writer.
        with pytest.raises(rsshm.Timeout):
            while True:
                reader.read(0.2)
    assert "Traceback" not in process.error_output()


def test_missing_picamera2_is_one_line(channel: Channel, start: Start) -> None:
    process = start(example("--channel", channel.name), env={"PYTHONPATH": str(ROOT / "python")})
    with pytest.raises(AssertionError):
        process.wait_ok()
    assert process.error_output().strip() == (
        "picamera2_to_rsshm.py: Picamera2 is missing: apt install python3-picamera2 (on Raspberry Pi OS)"
    )
