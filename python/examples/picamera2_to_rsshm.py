#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Publishes a camera of a Raspberry Pi on a channel, by Picamera2 (apt install python3-picamera2).

picamera2_to_rsshm.py                                  1280x720 at 30 fps on the channel cam0
picamera2_to_rsshm.py --format YUV420                  less memory, for encoders
picamera2_to_rsshm.py --lores 640x360                  also a small picture of the same moment, on cam0-lores

Each frame is copied once, from the camera's buffer into the slot, because libcamera draws only into its own buffers.
Its pts_ns is the camera's own time stamp.

This example was tested with a stand-in for Picamera2, which has its interface, and not on a Raspberry Pi.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any, Dict, List, Tuple

import rsshm

FORMATS = {
    # The names of Picamera2 have the order in a register, and those of GStreamer the order in memory.
    "RGB888": "BGR",
    "BGR888": "RGB",
    "XRGB8888": "BGRx",
    "XBGR8888": "RGBx",
    "YUV420": "I420",
    "YVU420": "YV12",
}
CHANNELS = {"BGR": 3, "RGB": 3, "BGRx": 4, "RGBx": 4}


def size(text: str) -> Tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publishes a camera of a Raspberry Pi on a channel.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--camera", type=int, default=0, metavar="N", help="the number of the camera (0)")
    parser.add_argument("--size", type=size, default=(1280, 720), metavar="WxH", help="size of the picture (1280x720)")
    parser.add_argument("--format", choices=FORMATS, default="RGB888", help="Picamera2's name of the format (RGB888)")
    parser.add_argument("--lores", type=size, metavar="WxH", help="publish a second picture of this size on CHANNEL-lores")
    parser.add_argument("--fps", type=float, default=30, help="frames per second (30)")
    parser.add_argument("--perms", type=lambda text: int(text, 8), default=0o600, help="mode of the segment (0600)")
    parser.add_argument("--frames", type=int, help="number of frames to publish (no limit)")
    return parser.parse_args()


def monotonic_of(boottime_ns: int) -> int:
    """A time of CLOCK_BOOTTIME as a time of CLOCK_MONOTONIC. They differ by the time that the machine was suspended."""
    tries = []
    for _ in range(3):
        before = time.monotonic_ns()
        boottime_now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.monotonic_ns()
        tries.append((after - before, boottime_now - (before + after) // 2))
    # The kernel may run another program between two of these calls, so that the shortest try is the best.
    return boottime_ns - min(tries)[1]


def planes_of(buffer: Any, format: str, width: int, height: int, stride: int) -> List[Any]:
    """The planes of a picture in the camera's buffer, without the padding of its rows."""
    if format in CHANNELS:
        channels = CHANNELS[format]
        rows = buffer[: height * stride].reshape(height, stride)
        return [rows[:, : width * channels].reshape(height, width, channels)]
    planes = []
    at = 0
    for down in (1, 2, 2):
        end = at + (height // down) * (stride // down)
        planes.append(buffer[at:end].reshape(height // down, stride // down)[:, : width // down])
        at = end
    return planes


class Stream:
    """A stream of the camera and its channel."""

    def __init__(self, name: str, channel: str, configuration: Dict[str, Any], options: argparse.Namespace) -> None:
        self.name = name
        self.format = FORMATS[configuration["format"]]
        # Picamera2 may have changed the size to one that the camera can deliver.
        self.width, self.height = configuration["size"]
        self.stride = configuration["stride"]
        self.writer = rsshm.Writer(
            channel, (self.height, self.width), format=self.format, fps=options.fps, perms=options.perms
        )
        print(f"{channel}: {self.writer.caps}", flush=True)

    def publish(self, mapped: Any, pts_ns: int) -> None:
        planes = planes_of(mapped, self.format, self.width, self.height, self.stride)
        with self.writer.buffer() as slot:
            for target, plane in zip(slot.planes, planes):
                target[...] = plane
            slot.pts_ns = pts_ns
        delay = time.monotonic_ns() - pts_ns
        if delay > self.writer.latency_ns:
            # The camera delivers a picture some time after it was taken. Readers that show it take this into account.
            self.writer.latency_ns = delay + 5_000_000


def run(options: argparse.Namespace) -> None:
    try:
        from picamera2 import MappedArray, Picamera2
    except ImportError:
        sys.exit("picamera2_to_rsshm.py: Picamera2 is missing: apt install python3-picamera2 (on Raspberry Pi OS)")
    streams: List[Stream] = []
    with Picamera2(options.camera) as camera:
        wanted: Dict[str, Any] = {"main": {"size": options.size, "format": options.format}}
        if options.lores is not None:
            wanted["lores"] = {"size": options.lores, "format": "YUV420"}
        # One more buffer than usual, because this program has one while it copies.
        camera.configure(camera.create_video_configuration(**wanted, buffer_count=7, controls={"FrameRate": options.fps}))
        found = camera.camera_configuration()
        try:
            for name in wanted:
                channel = options.channel if name == "main" else f"{options.channel}-{name}"
                streams.append(Stream(name, channel, found[name], options))
            camera.start()
            published = 0
            while not options.frames or published < options.frames:
                request = camera.capture_request()
                try:
                    pts_ns = monotonic_of(request.get_metadata()["SensorTimestamp"])
                    for stream in streams:
                        with MappedArray(request, stream.name, reshape=False) as mapped:
                            stream.publish(mapped.array, pts_ns)
                finally:
                    request.release()
                published += 1
            for stream in streams:
                stream.writer.end_stream()
        finally:
            for stream in streams:
                stream.writer.close()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(options)
        return 0
    except rsshm.Error as error:
        sys.exit(f"picamera2_to_rsshm.py: {error}")
    except KeyboardInterrupt:
        # Ctrl-C does not end the stream: readers wait for the next writer.
        return 130


if __name__ == "__main__":
    sys.exit(main())
