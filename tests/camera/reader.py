# SPDX-License-Identifier: MIT OR Apache-2.0
"""reader.py CHANNEL: prints a line for each frame, as reader.c does."""

import sys

import numpy

import rsshm

weights = numpy.zeros(0, numpy.uint64)
reader = rsshm.Reader(sys.argv[1])
print("ready", flush=True)
for frame in reader:
    words = frame.data[: frame.data.size // 8 * 8].view(numpy.uint64)
    if weights.size != words.size:
        weights = numpy.arange(words.size, dtype=numpy.uint64) * numpy.uint64(2) + numpy.uint64(1)
    checksum = (int((words * weights).sum(dtype=numpy.uint64)) + frame.data.size) % 2**64
    print("frame", frame.offset, checksum, frame.seq, frame.missed, int(frame.in_place), flush=True)
    frame.release()
