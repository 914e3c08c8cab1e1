#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reads a channel, finds what moves, draws a box around it, and publishes the result on a second channel.

    detect.py --channel cam0 --output cam0-out
    gst-launch-1.0 rsshmsrc name=cam0-out ! autovideosink

It always takes the newest frame. If the detector is slower than the camera, frames are skipped.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any, List, Tuple

import rsshm

Box = Tuple[int, int, int, int]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draws boxes around what moves, and publishes the result on a second channel."
    )
    parser.add_argument("--channel", default="cam0", help="the channel to read (cam0)")
    parser.add_argument("--output", help="the channel to write (CHANNEL-out)")
    parser.add_argument("--area", type=int, default=200, help="least area of a box, in pixels (200)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this time without a frame")
    parser.add_argument("--frames", type=int, help="number of frames to publish (no limit)")
    return parser.parse_args()


class Detector:
    """Finds what differs from the background. Replace it by your own detector."""

    def __init__(self, cv2: Any, area: int) -> None:
        self._cv2 = cv2
        self._area = area
        self._background = cv2.createBackgroundSubtractorMOG2(detectShadows=False)

    def find(self, picture: Any) -> List[Box]:
        cv2 = self._cv2
        mask = cv2.medianBlur(self._background.apply(picture), 5)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return [cv2.boundingRect(contour) for contour in contours if cv2.contourArea(contour) >= self._area]


def run(options: argparse.Namespace) -> int:
    try:
        import cv2
    except ImportError:
        sys.exit("detect.py: OpenCV is missing: apt install python3-opencv, or pip install opencv-python")
    output = options.output or f"{options.channel}-out"
    detector = Detector(cv2, options.area)
    with rsshm.Reader(options.channel, timeout=options.timeout, latest=True) as reader, rsshm.Writer(output) as writer:
        for frame in reader:
            picture = frame.to_bgr()
            if frame.discontinuity:
                writer.set_format(picture.shape, fps=frame.caps.fps)
                print(f"{output}: {writer.caps}", flush=True)
            boxes = detector.find(picture)
            # This is the only copy, from the slot of the camera into the slot of the output, where the boxes are drawn.
            with writer.buffer() as slot:
                slot.array[:] = picture
                for x, y, width, height in boxes:
                    cv2.rectangle(slot.array, (x, y), (x + width, y + height), (0, 255, 0), 2)
                slot.pts_ns = frame.pts_ns
            frame.release()
            if frame.pts_ns is not None:
                # The latency of the slowest frame so far. Video sinks drop frames that come later than announced.
                writer.latency_ns = max(writer.latency_ns, reader.latency_ns, time.monotonic_ns() - frame.pts_ns)
            if options.frames and writer.published >= options.frames:
                break
    return 0


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options)
    except rsshm.Error as error:
        sys.exit(f"detect.py: {error}")
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
