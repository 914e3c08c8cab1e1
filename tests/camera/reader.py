# SPDX-License-Identifier: MIT OR Apache-2.0
"""reader.py CHANNEL: prints a line for each frame, as reader.c does."""

import fcntl
import mmap
import struct
import sys

import numpy

import rsshm

# linux/dma-buf.h
DMA_BUF_IOCTL_SYNC = 0x40086200
DMA_BUF_SYNC_READ, DMA_BUF_SYNC_END = 1, 4

weights = numpy.zeros(0, numpy.uint64)
mapped = {}


def checksum(data):
    global weights
    words = data[: data.size // 8 * 8].view(numpy.uint64)
    if weights.size != words.size:
        weights = numpy.arange(words.size, dtype=numpy.uint64) * numpy.uint64(2) + numpy.uint64(1)
    return (int((words * weights).sum(dtype=numpy.uint64)) + data.size) % 2**64


def checksum_of_fd(frame):
    try:
        fd = frame.fileno()
    except rsshm.NoDescriptor:
        return 0
    plane = frame.descriptor()
    if not plane.is_dmabuf or plane.fd != fd:
        return 0
    if plane.object not in mapped:
        mapped[plane.object] = mmap.mmap(fd, plane.object_size, mmap.MAP_SHARED, mmap.PROT_READ)
    fcntl.ioctl(fd, DMA_BUF_IOCTL_SYNC, struct.pack("Q", DMA_BUF_SYNC_READ))
    data = numpy.frombuffer(mapped[plane.object], numpy.uint8, plane.size, plane.offset)
    found = checksum(data)
    fcntl.ioctl(fd, DMA_BUF_IOCTL_SYNC, struct.pack("Q", DMA_BUF_SYNC_READ | DMA_BUF_SYNC_END))
    return found


reader = rsshm.Reader(sys.argv[1])
print("ready", flush=True)
for frame in reader:
    in_place = int(frame.in_place)
    print("frame", frame.offset, checksum(frame.data), frame.seq, frame.missed, in_place, checksum_of_fd(frame), flush=True)
    frame.release()
