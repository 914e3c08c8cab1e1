# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs outside this package: OpenCV's GStreamer reader, the classic reader, and the examples."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy
import pytest
from helpers import PATIENCE, Channel, Process, eventually, gst, gst_environment, packets, peer, records

import rsshm

cv2 = pytest.importorskip("cv2")

Start = Callable[..., Process]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OPENCV = """
import sys, cv2
pipeline = "rsshmsrc name=" + sys.argv[1] + " ! videoconvert ! video/x-raw,format=BGR ! appsink"
capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
assert capture.isOpened()
for _ in range(20):
    there, picture = capture.read()
    assert there
    print(*picture.shape, picture.min(), picture.max(), flush=True)
"""


def example(name: str, *arguments: object) -> List[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]


def library() -> dict:
    return {"PYTHONPATH": str(EXAMPLES.parent), "DISPLAY": "", "WAYLAND_DISPLAY": ""}


class Feed:
    """A thread that publishes pictures. All samples of a picture are equal."""

    def __init__(self, name: str, **options: Any) -> None:
        self.writer = rsshm.Writer(name, **options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        value = 0
        while not self._stop.is_set():
            value = (value + 1) & 0xFF
            with self.writer.buffer() as slot:
                for plane in slot.planes:
                    plane[...] = value
            time.sleep(0.02)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with self.writer:
            pass


opencv_with_gstreamer = pytest.mark.skipif(
    not re.search(r"GStreamer: +YES", cv2.getBuildInformation()), reason="this OpenCV is built without GStreamer"
)


@opencv_with_gstreamer
def test_opencv_reads_a_python_writer(channel: Channel, start: Start) -> None:
    with Feed(channel.name, shape=(48, 64, 3), fps=50):
        reading = start([sys.executable, "-c", OPENCV, channel.name], env=gst_environment())
        pictures = [tuple(map(int, reading.read_line().split())) for _ in range(20)]
        reading.wait_ok()
    assert all(picture[:3] == (48, 64, 3) and picture[3] == picture[4] for picture in pictures), pictures
    numbers = [picture[3] for picture in pictures]
    # The values begin again after 256 pictures.
    assert all(1 <= (later - earlier) % 256 <= 127 for earlier, later in zip(numbers, numbers[1:])), numbers
    channel.assert_gone()


@opencv_with_gstreamer
def test_opencv_reads_rsshmsink(channel: Channel, start: Start) -> None:
    writer = start(
        gst(
            "videotestsrc is-live=true pattern=white ! video/x-raw,format=NV12,width=64,height=48,framerate=50/1",
            f"! rsshmsink name={channel.name}",
        ),
        env=gst_environment(),
    )
    reading = start([sys.executable, "-c", OPENCV, channel.name], env=gst_environment())
    for line in reading.wait_ok().decode().splitlines():
        *shape, darkest, brightest = map(int, line.split())
        assert shape == [48, 64, 3] and darkest == brightest > 250
    writer.signal(signal.SIGINT)
    writer.wait_ok()


@pytest.mark.parametrize("kind", ["python", "rsshmsink"])
def test_classic_reader_sees_whole_frames(kind: str, channel: Channel, start: Start) -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from classic_read import newest
    finally:
        sys.path.pop(0)
    import posix_ipc

    if kind == "python":
        feed = Feed(channel.name, shape=(48, 64), format="GRAY8")
    else:
        start(
            gst(
                "videotestsrc is-live=true pattern=black ! video/x-raw,format=GRAY8,width=64,height=48,framerate=50/1",
                f"! rsshmsink name={channel.name}",
            ),
            env=gst_environment(),
        )
        feed = None
    if feed:
        feed.__enter__()
    try:
        found = []
        until = time.monotonic() + PATIENCE
        while len(found) < 30 and time.monotonic() < until:
            try:
                look = newest(channel.name)
            except (posix_ipc.ExistentialError, posix_ipc.BusyError):
                look = None
            if look and (not found or look[0] != found[-1][0]):
                found.append(look)
            time.sleep(0.005)
        assert len(found) == 30
        for _, caps, frame in found:
            assert "GRAY8" in caps and frame.size == 48 * 64 and frame.min() == frame.max()
        if feed:
            assert feed.writer.readers == 0
    finally:
        if feed:
            feed.__exit__()


def test_examples_work_together(channel: Channel, start: Start, tmp_path: Path) -> None:
    name = channel.name
    writer = start(example("write", "--test", "--size", "320x240", "--channel", name), env=library())
    writer.expect(f"{name}: video/x-raw, format=(string)BGR, width=(int)320, height=(int)240, framerate=(fraction)30/1")
    start(example("detect", "--channel", name, "--timeout", 10), env=library()).read_line()
    read = ("--channel", f"{name}-out", "--timeout", 10, "--frames", 20, "--every", 0.2, "--pictures", tmp_path)
    reader = start(example("read", *read), env=library())
    shown = start(
        gst(f"rsshmsrc name={name}-out num-buffers=10 ! videoconvert ! pngenc ! filesink location={tmp_path}/gst.png"),
        env=gst_environment(),
    )
    classic = start(example("classic_read", "--channel", name, "--every", 0.1), env=library())
    eventually("a frame of the classic reader", lambda: classic.read_line().startswith("frame "))
    classic.signal(signal.SIGTERM)
    classic.wait_ok()
    reader.wait_ok()
    shown.wait_ok()
    pictures = sorted(tmp_path.glob(f"{name}-out-*.png"))
    assert pictures and all(cv2.imread(str(picture)).shape == (240, 320, 3) for picture in pictures)
    writer.signal(signal.SIGINT)
    assert writer.process.wait(PATIENCE) == 130
    channel.assert_gone()
    for path in (f"/dev/shm/{name}-out", f"/dev/shm/sem.{name}-out"):
        Path(path).unlink(missing_ok=True)


def test_video_file_is_written_and_read(channel: Channel, start: Start, tmp_path: Path) -> None:
    film = str(tmp_path / "film.avi")
    recorder = cv2.VideoWriter(film, cv2.VideoWriter_fourcc(*"MJPG"), 60, (64, 48))
    for value in range(30):
        recorder.write(numpy.full((48, 64, 3), value * 8, numpy.uint8))
    recorder.release()
    with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
        command = example("write", "--file", film, "--loop", "--frames", 120, "--channel", channel.name)
        writing = start(command, env=library())
        frames = [(frame.seq, int(frame.array.mean())) for frame in reader]
        writing.wait_ok()
        assert reader.caps.fps == 60
    assert len(frames) > 20 and frames[-1][0] == 120
    assert all(abs(mean - (seq - 1) % 30 * 8) < 4 for seq, mean in frames), frames


@pytest.mark.parametrize("name", ["write", "read", "detect"])
def test_examples_report_missing_opencv(name: str, channel: Channel, start: Start, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('not here')")
    env = {**library(), "PYTHONPATH": f"{tmp_path}:{EXAMPLES.parent}"}
    process = start(example(name, "--channel", channel.name), env=env)
    with pytest.raises(AssertionError):
        process.wait_ok()
    errors = process.error_output()
    assert "OpenCV is missing" in errors and "python3-opencv" in errors and "Traceback" not in errors


def test_classic_readers_find_the_newest_frame_of_a_run(channel: Channel, start: Start) -> None:
    """Both classic readers: the example, and the one in docs/PROTOCOL.md."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from classic_read import newest
    finally:
        sys.path.pop(0)
    in_the_document: Dict[str, Any] = {"__name__": "document"}
    exec(classic_of_the_protocol(), in_the_document)
    sent = packets(2000)
    writer = start(peer("write", channel.name, "application/x-thing", "variable"))
    published = 0
    for count in (1, 2, 50, len(sent)):
        writer.write(records(sent[published:count]))
        published = count
        # While the writer creates the segment, the name may be missing.
        eventually("the channel", channel.exists)
        eventually("the newest frame", lambda: (newest(channel.name) or (0,))[0] == published)
        _, caps, frame = newest(channel.name)
        assert (caps, frame.tobytes()) == ("application/x-thing", sent[published - 1])
        caps, _, frame = in_the_document["newest"](channel.name)
        assert (caps, frame.tobytes()) == ("application/x-thing", sent[published - 1])
    writer.wait_ok()


def test_example_reports_a_missing_channel(channel: Channel, start: Start) -> None:
    process = start(example("read", "--channel", channel.name, "--timeout", "0.1"), env=library())
    with pytest.raises(AssertionError):
        process.wait_ok()
    assert f"read.py: channel {channel.name}: no writer came in time" in process.error_output()


def classic_of_the_protocol() -> str:
    """The example in docs/PROTOCOL.md."""
    protocol = (EXAMPLES.parents[1] / "docs" / "PROTOCOL.md").read_text().split("<!-- the example begins -->", 1)[1]
    return protocol.split("```python\n", 1)[1].split("```", 1)[0]


def test_readers_in_the_documents_work(channel: Channel, tmp_path: Path) -> None:
    """Runs the first example in the package's README.md, and the example in docs/PROTOCOL.md."""
    first = (EXAMPLES.parent / "README.md").read_text().split("```python\n", 1)[1].split("```", 1)[0]
    classic = classic_of_the_protocol()
    with Feed(channel.name, shape=(48, 64, 3), fps=50):
        code = first.replace('"cam0"', repr(channel.name))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, env={**library(), "PATH": ""}
        )
        assert done.returncode == 0 and done.stdout, done.stderr.decode()
        done = subprocess.run([sys.executable, "-c", classic, channel.name], capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0 and b"video/x-raw" in done.stdout, done.stderr.decode()
