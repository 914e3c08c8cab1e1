# SPDX-License-Identifier: MIT OR Apache-2.0
"""Frames for other packages: NumPy's array protocol, DLPack, and pictures for notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import numpy
import pytest
from helpers import ROOT, Channel

import rsshm

cv2 = pytest.importorskip("cv2")

NOISE = numpy.random.default_rng(11).integers(0, 256, (35, 51, 3)).astype(numpy.uint8)


@pytest.fixture
def frame(channel: Channel) -> Iterator[rsshm.Frame]:
    """A BGR frame of noise."""
    with rsshm.Writer(channel.name) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(NOISE)
        yield reader.read()


def test_numpy_takes_a_frame_without_a_copy(frame: rsshm.Frame) -> None:
    array = numpy.asarray(frame)
    assert numpy.shares_memory(array, frame.array) and (array == NOISE).all() and not array.flags.writeable
    assert numpy.asarray(frame, numpy.float32).dtype == numpy.float32
    own = numpy.array(frame)
    assert own.flags.writeable and not numpy.shares_memory(own, frame.array) and (own == NOISE).all()
    assert numpy.mean(frame) == NOISE.mean()
    with pytest.raises(ValueError, match="needs a copy"):
        frame.__array__(numpy.float32, copy=False)
    frame.release()
    with pytest.raises(rsshm.Released):
        numpy.asarray(frame)


def new_numpy() -> Path:
    """A directory with a NumPy that exports read-only arrays. pip fills it once for each version of Python."""
    directory = ROOT / "target" / f"python-numpy-{sys.version_info[0]}.{sys.version_info[1]}"
    if not directory.exists():
        made = directory.with_suffix(f".{os.getpid()}")
        install = ["install", "--quiet", "--disable-pip-version-check", "--target", str(made), "numpy>=2.1"]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=100)
        made.rename(directory)
    return directory


def test_dlpack_of_old_numpy_says_what_to_do(frame: rsshm.Frame) -> None:
    if numpy.lib.NumpyVersion(numpy.__version__) >= "2.1.0":
        pytest.skip("this NumPy exports read-only arrays; the next test shows that")
    assert frame.__dlpack_device__() == (1, 0)
    for options in ({}, {"max_version": (1, 0)}):
        with pytest.raises(BufferError, match=r"NumPy 2.1 or later.*frame.array.copy\(\)") as error:
            frame.__dlpack__(**options)
        assert isinstance(error.value, rsshm.Error)


WITH_NEW_NUMPY = """
import gc, sys, time
import numpy, rsshm
from numpy.lib import NumpyVersion

assert NumpyVersion(numpy.__version__) >= "2.1.0"
with rsshm.Writer(sys.argv[1], (48, 64), format="GRAY8", max_slots=8) as writer:
    with rsshm.Reader(sys.argv[1], timeout=5) as reader:
        # A reader may have to copy its first frames.
        for _ in range(1000):
            writer.write(numpy.full((48, 64), 7, numpy.uint8))
            frame = reader.read()
            if frame.in_place:
                break
            del frame
            time.sleep(0.002)
        array = numpy.from_dlpack(frame)
        assert numpy.shares_memory(array, frame.array) and not array.flags.writeable
        assert numpy.from_dlpack(frame, copy=True).flags.writeable
        # Only the imported array keeps the slot now.
        frame.release()
        del frame
        gc.collect()
        for value in range(60):
            writer.write(numpy.full((48, 64), 100 + value, numpy.uint8))
            reader.read().release()
        assert (array == 7).all()
        frame = reader.read() if writer.write(numpy.zeros((48, 64), numpy.uint8)) else None
        try:
            frame.__dlpack__()
        except rsshm.ReadOnly as error:
            assert "DLPack 1.0" in str(error)
        else:
            raise AssertionError("a consumer without read-only arrays got one")
print("passed", numpy.__version__)
"""


@pytest.mark.skipif(sys.version_info < (3, 10), reason="NumPy 2.1 needs Python 3.10")
def test_dlpack_of_new_numpy_shares_the_memory(channel: Channel) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_NEW_NUMPY, channel.name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(new_numpy()), str(ROOT / "python")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    assert done.stdout.decode().startswith("passed "), done.stdout.decode()


@pytest.mark.parametrize("format", ["BGR", "RGB", "GRAY8", "NV12"])
def test_notebook_shows_the_picture(format: str, channel: Channel) -> None:
    picture = {"GRAY8": NOISE[..., 0], "NV12": cv2.resize(NOISE[..., 0], (64, 72))}.get(format, NOISE)
    with rsshm.Writer(channel.name, format=format) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(picture)
        frame = reader.read()
        png: Any = frame._repr_png_()
        assert png is not None and frame._repr_jpeg_() is None
        assert (cv2.imdecode(numpy.frombuffer(png, numpy.uint8), cv2.IMREAD_UNCHANGED) == frame.to_bgr()).all()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_notebook_gets_encoded_frames_as_they_are(kind: str, channel: Channel) -> None:
    data = cv2.imencode(f".{kind}", NOISE)[1].tobytes()
    with rsshm.Writer(channel.name, caps=f"image/{kind},width=51,height=35") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(data)
            frame = reader.read()
            assert (frame._repr_jpeg_(), frame._repr_png_()) == ((data, None) if kind == "jpeg" else (None, data))
            frame.release()
            assert frame._repr_jpeg_() is None and frame._repr_png_() is None and "released" in repr(frame)


def test_notebook_shows_text_for_other_frames(channel: Channel) -> None:
    with rsshm.Writer(channel.name, caps="application/x-thing") as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(b"something")
        frame = reader.read()
        assert frame._repr_png_() is None and frame._repr_jpeg_() is None
