# SPDX-License-Identifier: MIT OR Apache-2.0
"""Frames in memfds: their arrays and their descriptors."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import time
from typing import Callable, Iterator, List

import numpy
import pytest
from helpers import PATIENCE, Channel

import rsshm
from rsshm import _library

WIDTH, HEIGHT, OFFSET = 64, 48, 4096
SIZE = WIDTH * HEIGHT
CAPS = f"video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate=30/1"
BUFFERS, SPARE = 8, 6
FDS = 8  # RSSHM_FDS
RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Camera:
    """A writer of the C library whose frames stay in memfds."""

    def __init__(self, name: str) -> None:
        self.free = list(range(BUFFERS))
        self.fds = [os.memfd_create("rsshm-test") for _ in range(BUFFERS)]
        for fd in self.fds:
            os.ftruncate(fd, OFFSET + SIZE)
        self._release = RELEASE(lambda index: self.free.append(index or 0))
        self._library = ctypes.CDLL(_library._NAME)
        options = _library.WriterOptions(flags=FDS, spare_buffers=SPARE)
        self._writer = ctypes.c_void_p(_library.open_handle(_library.writer_open, name, options))
        _library.check(_library.writer_caps(self._writer, CAPS.encode(), 0))

    def write(self, value: int) -> None:
        """Publishes a frame each of whose bytes is ``value``."""
        wait_for(lambda: bool(self.free))
        index = self.free.pop(0)
        os.pwrite(self.fds[index], bytes([255 - value]) * SIZE, OFFSET)
        os.pwrite(self.fds[index], bytes([value]) * SIZE, OFFSET)
        plane = _library.FdRecord(fd=self.fds[index], offset=OFFSET, size=SIZE)
        publish = self._library.rsshm_writer_write_fds
        publish.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, RELEASE, ctypes.c_void_p]
        _library.check(publish(self._writer, ctypes.byref(plane), 1, None, self._release, index))

    def close(self) -> None:
        _library.writer_close(self._writer)
        for fd in self.fds:
            os.close(fd)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.assert_gone()


@pytest.fixture
def camera(channel: Channel) -> Iterator[Camera]:
    camera = Camera(channel.name)
    yield camera
    camera.close()


def in_place(camera: Camera, reader: rsshm.Reader) -> rsshm.Frame:
    """The next frame that is not a copy. The writer says only in its service how many buffers a reader may hold."""
    for value in range(1, 200):
        camera.write(value)
        frame = reader.read(PATIENCE)
        assert (frame.array == value).all() and frame.array.shape == (HEIGHT, WIDTH)
        if frame.in_place:
            return frame
        time.sleep(0.01)
    raise AssertionError("no frame came in place")


def test_frame_is_the_memory_of_the_writer(channel: Channel, camera: Camera) -> None:
    with rsshm.Reader(channel.name) as reader:
        frame = in_place(camera, reader)
        found = frame.descriptor()
        assert (found.offset, found.size, found.stride, found.object_size) == (OFFSET, SIZE, WIDTH, OFFSET + SIZE)
        assert not found.is_dmabuf and (found.drm_format, found.drm_modifier) == (0, 0)
        assert found.fd == frame.fileno() and found.fd not in camera.fds
        assert os.fstat(found.fd).st_ino in {os.fstat(fd).st_ino for fd in camera.fds}
        assert os.pread(found.fd, SIZE, OFFSET) == frame.array.tobytes() == frame.data.tobytes()
        assert not frame.array.flags.writeable
        with pytest.raises(ValueError):
            frame.array.flags.writeable = True
        for plane in (1, -1, 1 << 40):
            with pytest.raises(rsshm.BadOption):
                frame.fileno(plane)
        frame.release()
        with pytest.raises(rsshm.Released):
            frame.fileno()


def test_buffer_stays_out_while_an_array_lives(channel: Channel, camera: Camera) -> None:
    with rsshm.Reader(channel.name) as reader:
        frame = in_place(camera, reader)
        inode = os.fstat(frame.fileno()).st_ino
        held = [os.fstat(fd).st_ino for fd in camera.fds].index(inode)
        kept = frame.array[5:20]
        value = int(kept[0, 0])
        frame.release()
        del frame
        for _ in range(30):
            camera.write(200)
            assert (reader.read(PATIENCE).array == 200).all()
        gc.collect()
        assert held not in camera.free and (kept == value).all()
        del kept
        wait_for(lambda: held in camera.free)
    # The bytes are still there after the reader, until the last array is gone.
    with rsshm.Reader(channel.name) as reader:
        last = in_place(camera, reader).array
    value = int(last[0, 0])
    camera.write(201)
    camera.write(202)
    assert (last == value).all()


def test_copies_have_no_descriptor(channel: Channel, camera: Camera) -> None:
    camera.write(7)
    readers: List[rsshm.Reader] = [rsshm.Observer(channel.name), rsshm.Reader(channel.name, max_held=0)]
    for reader in readers:
        with reader:
            frame = reader.read(PATIENCE)
            assert not frame.in_place and (frame.array == 7).all()
            with pytest.raises(rsshm.NoDescriptor, match="a copy"):
                frame.fileno()


def test_frame_in_a_slot_has_no_descriptor(channel: Channel) -> None:
    with rsshm.Writer(channel.name) as writer, rsshm.Reader(channel.name) as reader:

        def next_frame() -> rsshm.Frame:
            writer.write(numpy.zeros((HEIGHT, WIDTH, 3), numpy.uint8))
            return reader.read(PATIENCE)

        # As above, only the service of the writer says that a reader may hold a slot.
        wait_for(lambda: next_frame().in_place)
        frame = next_frame()
        assert frame.in_place
        with pytest.raises(rsshm.NoDescriptor, match="slot") as caught:
            frame.fileno()
        assert isinstance(caught.value, io.UnsupportedOperation)
