#!/usr/bin/env python3
"""Shows a channel in a window, with the frame rate. Without a display, writes one PNG per second.

read.py                  the channel cam0
read.py --channel cam0-out --pictures .
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

import rsshm


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shows a channel in a window, or writes PNGs if there is no display.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--pictures", metavar="DIRECTORY", help="write PNGs to this directory instead of a window")
    parser.add_argument("--every", type=float, default=1, metavar="SECONDS", help="interval between PNGs (1)")
    parser.add_argument("--all", action="store_true", help="show each frame, not only the newest")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this time without a frame")
    parser.add_argument("--frames", type=int, help="number of frames to read (no limit)")
    return parser.parse_args()


class Rate:
    """Counts frames, and prints the frame rate once per second."""

    def __init__(self) -> None:
        self.text = ""
        self._since = time.monotonic()
        self._count = 0

    def count(self, frame: rsshm.Frame, reader: rsshm.Reader) -> None:
        self._count += 1
        passed = time.monotonic() - self._since
        if passed >= 1:
            age = "" if frame.pts_ns is None else f", {(time.monotonic_ns() - frame.pts_ns) / 1e6:.1f} ms old"
            self.text = f"{self._count / passed:.1f} fps"
            print(f"frame {frame.seq}, {self.text}{age}, {reader.missed} missed", flush=True)
            self._count, self._since = 0, time.monotonic()


def show(cv2: Any, options: argparse.Namespace, picture: Any, text: str) -> bool:
    """Shows the picture in the window. False if the user quits with q or Escape."""
    picture = picture.copy()
    cv2.putText(picture, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    cv2.imshow(options.channel, picture)
    return cv2.waitKey(1) not in (27, ord("q"))


def run(options: argparse.Namespace) -> int:
    try:
        import cv2
    except ImportError:
        sys.exit("read.py: OpenCV is missing: apt install python3-opencv, or pip install opencv-python")
    directory = options.pictures
    if directory is None and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        directory = "."
    if directory is not None:
        os.makedirs(directory, exist_ok=True)
    rate, written = Rate(), 0.0
    with rsshm.Reader(options.channel, timeout=options.timeout, latest=not options.all) as reader:
        for frame in reader:
            rate.count(frame, reader)
            if directory is None:
                if not show(cv2, options, frame.to_bgr(), rate.text):
                    break
            elif time.monotonic() - written >= options.every:
                written = time.monotonic()
                path = os.path.join(directory, f"{options.channel}-{frame.seq:06}.png")
                cv2.imwrite(path, frame.to_bgr())
                print(path, flush=True)
            if options.frames and reader.received >= options.frames:
                break
    return 0


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options)
    except rsshm.Error as error:
        sys.exit(f"read.py: {error}")
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
