# SPDX-License-Identifier: MIT OR Apache-2.0
"""A peer of test_matrix.py with the package's public interface. It does what capi/tests/c/peer.c does."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy  # noqa: E402

import rsshm  # noqa: E402


def record(data: bytes, mark: int = 0) -> None:
    sys.stdout.buffer.write(struct.pack("=I", mark | len(data)) + data)


def read(name: str) -> None:
    caps = ""
    with rsshm.Reader(name, timeout=20) as reader:
        for frame in reader:
            if str(frame.caps) != caps:
                caps = str(frame.caps)
                record(caps.encode(), 1 << 31)
            record(frame.data.tobytes())
            sys.stdout.buffer.flush()


def write(name: str, format: str, width: str, height: str) -> None:
    with rsshm.Writer(name, (int(height), int(width)), format=format, fps=30) as writer:
        while True:
            size = sys.stdin.buffer.read(4)
            if not size:
                break
            data = sys.stdin.buffer.read(struct.unpack("=I", size)[0])
            # NV12 is one array in OpenCV's layout.
            shape = (int(height) * 3 // 2, int(width)) if format == "NV12" else (int(height), int(width), 4)
            writer.write(numpy.frombuffer(data, numpy.uint8).reshape(shape))


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
