#!/usr/bin/env python3
"""A channel in a window, with the frames a second; without a display a picture a second as PNG.

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
    parser = argparse.ArgumentParser(description="A channel in a window, or as PNGs where there is no display.")
    parser.add_argument("--channel", default="cam0", help="the channel's name (cam0)")
    parser.add_argument("--pictures", metavar="FOLDER", help="PNGs into this folder, and no window")
    parser.add_argument("--every", type=float, default=1, metavar="SECONDS", help="between two PNGs (1)")
    parser.add_argument("--all", action="store_true", help="show each frame, not only the newest")
    parser.add_argument("--timeout", type=float, help="give up after so many seconds without a frame")
    parser.add_argument("--frames", type=int, help="end after so many")
    return parser.parse_args()


class Rate:
    """Frames a second, told once a second."""

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
    """In the window; False when the user has enough."""
    picture = picture.copy()
    cv2.putText(picture, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    cv2.imshow(options.channel, picture)
    return cv2.waitKey(1) not in (27, ord("q"))


def run(options: argparse.Namespace) -> int:
    try:
        import cv2
    except ImportError:
        sys.exit("read.py: OpenCV is missing: apt install python3-opencv, or pip install opencv-python")
    folder = options.pictures
    if folder is None and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        folder = "."
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
    rate, written = Rate(), 0.0
    with rsshm.Reader(options.channel, timeout=options.timeout, latest=not options.all) as reader:
        for frame in reader:
            rate.count(frame, reader)
            if folder is None:
                if not show(cv2, options, frame.to_bgr(), rate.text):
                    break
            elif time.monotonic() - written >= options.every:
                written = time.monotonic()
                path = os.path.join(folder, f"{options.channel}-{frame.seq:06}.png")
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
