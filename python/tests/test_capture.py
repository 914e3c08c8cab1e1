# SPDX-License-Identifier: MIT OR Apache-2.0
"""VideoCapture: programs for OpenCV read a channel as they read a camera or a file."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy
import pytest
from helpers import PATIENCE, ROOT, Channel, Process, eventually, grey, python, records

import rsshm
from rsshm import capture

cv2 = pytest.importorskip("cv2")

Start = Callable[..., Process]

PROGRAM = """
import sys
import cv2

cap = cv2.VideoCapture(sys.argv[1])
if not cap.isOpened():
    print("Cannot open camera")
    sys.exit(1)
width = int(cap.get(cv2.CAP_PROP_FRAME_WIDTH))
height = int(cap.get(cv2.CAP_PROP_FRAME_HEIGHT))
print(f"{width}x{height}")
count = 0
while cap.isOpened():
    ret, frame = cap.read()
    if not ret:
        print("Can't receive frame (stream end?). Exiting ...")
        break
    count += 1
    cv2.rectangle(frame, (4, 4), (20, 20), (0, 255, 0), 2)
    frame[0] = 255
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    print(count, frame.shape, frame.dtype, int(frame.sum()), int(gray.sum()), cap.get(cv2.CAP_PROP_POS_FRAMES))
cap.release()
print(cap.isOpened(), cap.read(), cap.set(cv2.CAP_PROP_FRAME_WIDTH, 64))
"""

# Runs a program in which cv2.VideoCapture is this package's.
REPLACED = """
import runpy, sys
import cv2
import rsshm

cv2.VideoCapture = rsshm.VideoCapture
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

PICTURES = [
    numpy.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(numpy.uint8) for seed in range(12)
]  # noise, so that a wrong order of the channels or a wrong stride changes it


def opened(name: object, **properties: float) -> rsshm.VideoCapture:
    """A capture that does not wait forever. The keywords are cv2's properties, without CAP_PROP_."""
    settings: Dict[str, float] = {"OPEN_TIMEOUT_MSEC": PATIENCE * 1000, "READ_TIMEOUT_MSEC": PATIENCE * 1000, **properties}
    params: List[float] = []
    for prop, value in settings.items():
        params += [getattr(cv2, f"CAP_PROP_{prop}"), value]
    return rsshm.VideoCapture(name, cv2.CAP_ANY, params)  # type: ignore[arg-type]


def test_program_for_opencv_runs_unchanged(channel: Channel, start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for index, picture in enumerate(PICTURES):
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), picture)
    with_opencv = subprocess.run(
        [sys.executable, program, tmp_path / "%02d.png"], stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    )
    writer = start(python("write", channel.name, "BGR", 64, 48, 4))
    reader = start(
        [sys.executable, "-W", "error", "-c", REPLACED, str(program), channel.name], env={"PYTHONPATH": str(ROOT / "python")}
    )
    writer.wait_ok(records(picture.tobytes() for picture in PICTURES))
    assert reader.wait_ok().decode() == with_opencv.stdout.decode()
    assert with_opencv.stdout.decode().count("(48, 64, 3) uint8") == len(PICTURES)


def test_properties_have_the_numbers_of_opencv() -> None:
    names = [name for name in vars(capture) if name.startswith("CAP_PROP_")]
    assert len(names) == 11
    for name in names:
        assert getattr(capture, name) == getattr(cv2, name), name


def test_capture_has_each_method_of_opencv() -> None:
    theirs = {name for name in dir(cv2.VideoCapture) if not name.startswith("_")}
    # It waits for any of several cameras, and only for V4L2.
    assert theirs - {"waitAny"} <= set(dir(rsshm.VideoCapture))


def test_capture_reports_properties_of_channel(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="YUY2", fps=29.97) as writer:
        writer.write(numpy.zeros((48, 64, 2), numpy.uint8), pts_ns=1_500_000)
        cap = opened(channel.name)
        assert cap.isOpened() and cap.getBackendName() == "RSSHM"
        assert (cap.get(cv2.CAP_PROP_FRAME_WIDTH), cap.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64, 48)
        assert abs(cap.get(cv2.CAP_PROP_FPS) - 29.97) < 0.001
        assert int(cap.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter_fourcc(*"YUYV")
        assert cap.get(cv2.CAP_PROP_FRAME_COUNT) == -1
        assert cap.get(cv2.CAP_PROP_POS_FRAMES) == 0 and cap.grab()
        assert (cap.get(cv2.CAP_PROP_POS_MSEC), cap.get(cv2.CAP_PROP_POS_FRAMES)) == (1.5, 1)
        assert cap.set(cv2.CAP_PROP_FRAME_WIDTH, 64) and not cap.set(cv2.CAP_PROP_FRAME_WIDTH, 1920)
        assert cap.set(cv2.CAP_PROP_FPS, 29.97) and not cap.set(cv2.CAP_PROP_FPS, 60)
        assert cap.get(cv2.CAP_PROP_GAIN) == 0 and not cap.set(cv2.CAP_PROP_GAIN, 1)
        assert cap.get(cv2.CAP_PROP_CONVERT_RGB) == 1 and cap.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        assert cap.get(cv2.CAP_PROP_CONVERT_RGB) == 0
        cap.release()
        assert not cap.isOpened() and cap.get(cv2.CAP_PROP_FRAME_WIDTH) == 0


def test_channel_without_frames_is_opened(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), fps=25) as writer:
        # A waiting reader makes the writer create the segment.
        waiting = threading.Thread(target=writer.wait_for_reader, args=(PATIENCE,), daemon=True)
        waiting.start()
        eventually("the segment", channel.exists)
        cap = opened(channel.name, OPEN_TIMEOUT_MSEC=300)
        assert cap.isOpened() and cap.get(cv2.CAP_PROP_FRAME_HEIGHT) == 0
        writer.write(PICTURES[0])
        assert (cap.read()[1] == PICTURES[0]).all() and cap.get(cv2.CAP_PROP_FRAME_HEIGHT) == 48
        cap.release()
        waiting.join()


def test_picture_belongs_to_the_program(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), max_slots=3) as writer:
        writer.write(numpy.full((48, 64, 3), 0, numpy.uint8))
        cap = opened(channel.name)
        pictures = []
        for value in range(20):
            if value:
                writer.write(numpy.full((48, 64, 3), value, numpy.uint8))
            ok, picture = cap.read()
            assert ok and picture is not None and picture.flags.writeable and picture.flags.c_contiguous
            pictures.append(picture)
        assert [int(picture.max()) for picture in pictures] == list(range(20))
        target = numpy.zeros((48, 64, 3), numpy.uint8)
        writer.write(PICTURES[1])
        assert cap.read(target)[1] is target and (target == PICTURES[1]).all()
        # As in OpenCV, an array of another shape is not used.
        assert cap.retrieve(numpy.zeros((4, 4, 3), numpy.uint8))[1].shape == (48, 64, 3)  # type: ignore[union-attr]


def test_grabbed_frame_can_be_retrieved_repeatedly(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(PICTURES[0])
        cap = opened(channel.name)
        assert cap.retrieve() == (False, None)
        assert cap.grab()
        writer.write(PICTURES[1])
        for _ in range(2):
            ok, picture = cap.retrieve()
            assert ok and (picture == PICTURES[0]).all()
        assert cap.grab() and (cap.retrieve()[1] == PICTURES[1]).all()


def test_capture_without_conversion_returns_frames_as_they_are(channel: Channel) -> None:
    noise = numpy.random.default_rng(5).integers(16, 236, (72, 64)).astype(numpy.uint8)
    with rsshm.Writer(channel.name, format="NV12") as writer:
        writer.write(noise)
        cap = opened(channel.name, CONVERT_RGB=0)
        ok, picture = cap.read()
        assert ok and picture is not None and (picture == noise).all() and picture.flags.writeable
        cap.set(cv2.CAP_PROP_CONVERT_RGB, 1)
        ok, picture = cap.retrieve()
        wanted = cv2.cvtColor(noise, cv2.COLOR_YUV2BGR_NV12).astype(int)
        assert ok and picture is not None and abs(picture - wanted).max() <= 4


@pytest.mark.parametrize("when", ["before open", "after open"])
def test_buffer_size_of_one_reads_the_newest_frame(when: str, channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(numpy.full((48, 64, 3), 100, numpy.uint8))
        cap = opened(channel.name, **({"BUFFERSIZE": 1} if when == "before open" else {}))
        assert cap.isOpened()
        if when == "after open":
            assert cap.get(cv2.CAP_PROP_BUFFERSIZE) > 1 and cap.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        assert cap.get(cv2.CAP_PROP_BUFFERSIZE) == 1 and not cap.set(cv2.CAP_PROP_BUFFERSIZE, 0)
        for value in range(4):
            writer.write(numpy.full((48, 64, 3), value, numpy.uint8))
        assert cap.read()[1].max() == 3  # type: ignore[union-attr]
        assert cap.set(cv2.CAP_PROP_BUFFERSIZE, 4)
        for value in range(4):
            writer.write(numpy.full((48, 64, 3), value, numpy.uint8))
        assert [cap.read()[1].max() for _ in range(4)] == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_frame_of_open_is_the_first_frame_even_if_newest_is_wanted(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(PICTURES[0])
        cap = opened(channel.name, BUFFERSIZE=1)
        assert (cap.read()[1] == PICTURES[0]).all()


def test_open_waits_for_writer(channel: Channel, start: Start) -> None:
    caps: List[Any] = []
    opening = threading.Thread(
        target=lambda: caps.append(opened(channel.name, OPEN_TIMEOUT_MSEC=PATIENCE * 1000)), daemon=True
    )
    opening.start()
    time.sleep(0.1)
    assert opening.is_alive()
    start(python("steady", channel.name)).expect("ready")
    opening.join(PATIENCE)
    assert caps and caps[0].isOpened() and caps[0].read()[0]


def test_open_without_writer_warns_and_returns_false(channel: Channel) -> None:
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match=f"channel {channel.name}: no writer came in time") as warned:
        cap = opened(channel.name, OPEN_TIMEOUT_MSEC=100)
    assert 0.1 <= time.monotonic() - began < 10
    assert warned[0].filename == __file__
    assert not cap.isOpened() and cap.read() == (False, None) and not cap.grab() and cap.get(cv2.CAP_PROP_FPS) == 0
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(PICTURES[0])
        assert cap.open(f"rsshm://{channel.name}") and cap.read()[0]


def test_number_of_camera_is_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    monkeypatch.setattr(
        capture, "Reader", lambda name, **options: names.append(name) or rsshm.Reader(f"no-{name}-{id(names)}")
    )
    with pytest.warns(RuntimeWarning, match="no writer"):
        opened(0, OPEN_TIMEOUT_MSEC=1), opened(numpy.int64(12), OPEN_TIMEOUT_MSEC=1)
    assert names == ["cam0", "cam12"]


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(rsshm.BadOption, match="3.5 is neither"):
        rsshm.VideoCapture(3.5)  # type: ignore[arg-type]
    with pytest.raises(rsshm.BadOption, match="no value"):
        rsshm.VideoCapture("cam0", 0, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC])
    with pytest.warns(RuntimeWarning, match="a/b"):
        assert not rsshm.VideoCapture("a/b").isOpened()


def test_loop_ends_at_end_of_stream(channel: Channel, start: Start) -> None:
    writer = start(python("write", channel.name, "BGR", 64, 48, 4))
    writer.write(records(picture.tobytes() for picture in PICTURES[:3]))
    assert writer.process.stdin is not None
    writer.process.stdin.close()
    cap = opened(channel.name)
    received = []
    # This loop ignores failures. In OpenCV it would not end.
    while cap.isOpened():
        ok, picture = cap.read()
        if ok:
            received.append(picture)
    assert [(a == b).all() for a, b in zip(received, PICTURES)] == [True] * 3
    assert cap.get(cv2.CAP_PROP_FRAME_WIDTH) == 64
    # A program that reads on gets the next stream.
    with rsshm.Writer(channel.name, (48, 64)) as again:
        again.write(PICTURES[4])
        assert (cap.read()[1] == PICTURES[4]).all() and cap.isOpened()


def test_end_of_stream_follows_the_newest_frame(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(PICTURES[0])
        cap = opened(channel.name, BUFFERSIZE=1)
        for picture in PICTURES[1:4]:
            writer.write(picture)
    assert (cap.read()[1] == PICTURES[3]).all() and cap.isOpened()
    assert cap.read() == (False, None) and not cap.isOpened()


def test_capture_survives_kill_of_writer(channel: Channel, start: Start) -> None:
    writer = start(python("steady", channel.name))
    cap = opened(channel.name, READ_TIMEOUT_MSEC=50)
    assert cap.read()[0]
    writer.kill()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        eventually("a read without a frame", lambda: not cap.read()[0])
        began = time.monotonic()
        assert cap.read() == (False, None) and time.monotonic() - began >= 0.05, "read did not wait"
    assert any("in time" in str(warning.message) for warning in warned)
    assert cap.isOpened(), "the channel may come back"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start(python("steady", channel.name)).expect("ready")
        eventually("frames of the next writer", lambda: cap.read()[0])


def test_release_ends_read_of_other_thread(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(PICTURES[0])
        cap = opened(channel.name, READ_TIMEOUT_MSEC=0)
        assert cap.read()[0]
        results: List[Any] = []
        reading = threading.Thread(target=lambda: results.append(cap.read()), daemon=True)
        reading.start()
        time.sleep(0.1)
        assert reading.is_alive(), "a time-out of 0 has no limit"
        cap.release()
        reading.join(PATIENCE)
        assert results == [(False, None)]


def test_exception_mode_raises_errors_of_both_packages(channel: Channel) -> None:
    cap = rsshm.VideoCapture()
    assert cap.set(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10) and cap.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10)
    cap.setExceptionMode(True)
    assert cap.getExceptionMode()
    for action in (lambda: cap.open(channel.name), cap.grab, cap.read, cap.retrieve, lambda: cap.set(cv2.CAP_PROP_GAIN, 1)):
        with pytest.raises(rsshm.Error) as raised:
            action()
        assert isinstance(raised.value, cv2.error)
    with rsshm.Writer(channel.name, (48, 64)) as writer:
        writer.write(grey(1, (48, 64, 3)))
        assert cap.open(channel.name) and cap.read()[0]
        with pytest.raises(rsshm.Timeout, match="no frame") as timeout:
            cap.read()
        assert isinstance(timeout.value, cv2.error) and isinstance(timeout.value, TimeoutError)
    with pytest.raises(cv2.error) as end:
        cap.read()
    assert isinstance(end.value, rsshm.EndOfStream)


@pytest.mark.parametrize("format", ["BGR", "RGB", "JPEG"])
def test_only_encoded_pictures_need_opencv(format: str, channel: Channel, start: Start, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('no OpenCV here')")
    code = (
        "import sys, rsshm; cap = rsshm.VideoCapture(sys.argv[1]); ok, picture = cap.read(); "
        "print(ok, picture.sum() if ok else None, cap.isOpened())"
    )
    caps = {"caps": "image/jpeg,width=64,height=48"} if format == "JPEG" else {"format": format}
    with rsshm.Writer(channel.name, **caps) as writer:  # type: ignore[arg-type]
        writer.write(cv2.imencode(".jpg", PICTURES[0])[1].tobytes() if format == "JPEG" else PICTURES[0])
        path = f"{tmp_path}:{ROOT / 'python'}"
        reader = start([sys.executable, "-c", code, channel.name], env={"PYTHONPATH": path})
        printed = reader.wait_ok().decode().split()
    if format == "JPEG":
        assert printed == ["False", "None", "True"]
        assert "RuntimeWarning: decoding image/jpeg needs OpenCV" in reader.error_output()
    else:
        assert printed == ["True", str(PICTURES[0].sum()), "True"]
