#!/usr/bin/env python3
"""Publishes a camera, a video file or a test picture on a channel.

write.py                       the first camera, on the channel cam0
write.py --camera 2 --size 1280x720
write.py --file film.mp4       at the rate of the file; with --loop, repeatedly
write.py --test                a moving test picture; does not need OpenCV
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any, Iterator, Optional, Tuple

import numpy

import rsshm


def size(text: str) -> Tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publishes a camera, a video file or a test picture on a channel.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--camera", type=int, default=0, metavar="N", help="/dev/videoN (0)")
    source.add_argument("--file", help="a video file, at its own rate")
    source.add_argument("--test", action="store_true", help="a moving test picture")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument(
        "--size", type=size, default=(640, 480), metavar="WxH", help="size of the camera's or the test picture (640x480)"
    )
    parser.add_argument("--fps", type=float, help="frames per second (the rate of the camera or file, or 30)")
    parser.add_argument("--perms", type=lambda text: int(text, 8), default=0o600, help="mode of the segment (0600)")
    parser.add_argument("--loop", action="store_true", help="repeat the file")
    parser.add_argument("--frames", type=int, help="number of frames to publish (no limit)")
    return parser.parse_args()


def opencv() -> Any:
    try:
        import cv2
    except ImportError:
        sys.exit(
            "write.py: OpenCV is missing (apt install python3-opencv, or pip install opencv-python); --test works without it"
        )
    return cv2


def capture(options: argparse.Namespace) -> Iterator[Tuple[Any, Optional[float]]]:
    """The pictures of the camera or file, each with the rate."""
    cv2 = opencv()
    source = cv2.VideoCapture(options.file if options.file else options.camera)
    if not source.isOpened():
        sys.exit(f"write.py: {options.file or f'/dev/video{options.camera}'} is not accessible, or not a video")
    if not options.file:
        source.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
        source.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
        if options.fps:
            source.set(cv2.CAP_PROP_FPS, options.fps)
    rate = options.fps or source.get(cv2.CAP_PROP_FPS) or 30
    due = time.monotonic()
    while True:
        ok, picture = source.read()
        if not ok and options.file and options.loop:
            source.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, picture = source.read()
        if not ok:
            return
        if options.file:
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))
        yield picture, rate


def write_captured(options: argparse.Namespace) -> int:
    writer = None
    try:
        for picture, rate in capture(options):
            taken = time.monotonic_ns()
            if writer is None:
                writer = rsshm.Writer(options.channel, picture.shape, fps=rate, perms=options.perms)
                print(f"{options.channel}: {writer.caps}", flush=True)
            writer.write(picture, pts_ns=taken)
            if options.frames and writer.published >= options.frames:
                break
        if writer is not None:
            writer.end_stream()
    finally:
        if writer is not None:
            writer.close()
    return 0 if writer is not None else 1


def write_test(options: argparse.Namespace) -> int:
    width, height = options.size
    rate = options.fps or 30
    columns = numpy.arange(width, dtype=numpy.uint16)
    rows = numpy.arange(height, dtype=numpy.uint16)[:, None]
    with rsshm.Writer(options.channel, (height, width), fps=rate, perms=options.perms) as writer:
        print(f"{options.channel}: {writer.caps}", flush=True)
        due = time.monotonic()
        while not options.frames or writer.published < options.frames:
            step = writer.published * 4
            # Draws directly into shared memory.
            with writer.buffer() as slot:
                blue, green, red = (slot.array[..., channel] for channel in range(3))
                blue[:] = (columns + step) & 0xFF
                green[:] = (rows + step) & 0xFF
                red[:] = (columns + rows) & 0xFF
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))
    return 0


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return write_test(options) if options.test else write_captured(options)
    except rsshm.Error as error:
        sys.exit(f"write.py: {error}")
    except KeyboardInterrupt:
        # Ctrl-C does not end the stream: readers wait for the next writer.
        return 130


if __name__ == "__main__":
    sys.exit(main())
