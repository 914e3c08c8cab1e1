# SPDX-License-Identifier: MIT OR Apache-2.0
"""Frames: arrays of their planes, in place. A frame keeps its slot as long as one of its arrays exists."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from typing import Any

import numpy
import pytest
from helpers import PATIENCE, Channel, Segment, constant, eventually, grey, pictures, tight

import rsshm
from rsshm.caps import layout_of

cv2 = pytest.importorskip("cv2")


def in_place(writer: rsshm.Writer, reader: rsshm.Reader, value: int = 7) -> rsshm.Frame:
    """Waits until the reader has a quota, and returns a frame in place."""
    for _ in range(1000):
        writer.write(grey(value))
        frame = reader.read(5)
        if frame.in_place:
            return frame
        time.sleep(0.002)
    raise AssertionError("the reader gets no quota")


@pytest.mark.parametrize("align", [4, 64])
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
@pytest.mark.parametrize("format", rsshm.FORMATS)
def test_planes_arrive_unchanged(format: str, size: Any, align: int, channel: Channel) -> None:
    layout = layout_of(format, size[1], size[0], align)
    (planes,) = pictures(layout, 1)
    with rsshm.Writer(channel.name, size, format=format, stride_align=align) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(planes if len(planes) > 1 else planes[0])
            frame = reader.read()
            assert frame.layout == layout
            assert [plane.shape for plane in frame.planes] == [plane.shape for plane in planes]
            assert tight(frame.planes) == tight(planes)


@pytest.mark.parametrize("format", ["NV12", "I420", "P010_10LE"])
def test_planar_array_has_the_layout_of_opencv(format: str, channel: Channel) -> None:
    layout = layout_of(format, 64, 48)
    stacked = numpy.random.default_rng(3).integers(0, 255, (72, 64)).astype(layout.dtype)
    with rsshm.Writer(channel.name, format=format) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(stacked)
        frame = reader.read()
        assert (frame.caps.width, frame.caps.height) == (64, 48)
        assert (frame.array == stacked).all()
        assert frame.array.base is not None


@pytest.mark.parametrize(
    "format",
    ["RGB", "BGRx", "RGBA", "ARGB", "xBGR", "GRAY8", "GRAY16_LE", "YUY2", "UYVY", "NV12", "NV21", "I420", "YV12", "P010_10LE"],
)
def test_every_format_converts_to_the_same_bgr(format: str, channel: Channel) -> None:
    """A picture of one colour in each of GStreamer's formats, converted by this package."""
    blue, green, red = 40, 120, 200
    luma, u, v = 132, 81, 169  # the same colour in BT.601, limited range
    pixel = {
        "RGB": (red, green, blue), "BGRx": (blue, green, red, 0), "RGBA": (red, green, blue, 255),
        "ARGB": (255, red, green, blue), "xBGR": (0, blue, green, red),
    }  # fmt: skip
    layout = layout_of(format, 64, 48, 32)
    planes = [numpy.zeros(plane.shape, plane.dtype) for plane in layout.planes]
    if format in pixel:
        planes[0][:] = pixel[format]
    elif format.startswith("GRAY"):
        planes[0][:] = luma if format == "GRAY8" else luma << 8
    elif format == "YUY2":
        planes[0][:, 0::2], planes[0][:, 1::2] = (luma, u), (luma, v)
    elif format == "UYVY":
        planes[0][:, 0::2], planes[0][:, 1::2] = (u, luma), (v, luma)
    else:
        shift = 8 if format == "P010_10LE" else 0
        planes[0][:] = luma << shift
        if len(planes) == 2:
            planes[1][:] = numpy.array((v, u) if format == "NV21" else (u, v)) << shift
        else:
            planes[1][:], planes[2][:] = (v, u) if format == "YV12" else (u, v)
    with rsshm.Writer(channel.name, (48, 64), format=format, stride_align=32) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(planes if len(planes) > 1 else planes[0])
            picture = reader.read().to_bgr()
    wanted = (luma,) * 3 if format.startswith("GRAY") else (blue, green, red)
    assert picture.shape == (48, 64, 3) and picture.dtype == numpy.uint8
    assert abs(picture.astype(int) - wanted).max() <= 4, picture[0, 0]


@pytest.mark.parametrize("format", ["RGB", "BGR", "NV12", "v210"])
def test_picture_is_converted_to_rgb_and_bgr(format: str, channel: Channel) -> None:
    caps = f"video/x-raw, format=(string){format}, width=(int)96, height=(int)48, framerate=(fraction)30/1"
    with rsshm.Writer(channel.name, caps=caps) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        # The bytes have any values. Each half of the picture has its own.
        with writer.buffer() as slot:
            slot.data[:] = numpy.arange(slot.data.size) * 256 // slot.data.size
        frame = reader.read()
        blue_first, red_first = frame.to_bgr(), frame.to_rgb()
        assert blue_first.shape == red_first.shape == (48, 96, 3) and blue_first.dtype == numpy.uint8
        assert (blue_first == red_first[..., ::-1]).all() and blue_first.std() > 10
        same = {"BGR": blue_first, "RGB": red_first}.get(format)
        assert same is None or same is frame.array
        if format == "v210":
            assert format not in rsshm.FORMATS
            for what in (lambda: frame.array, lambda: frame.planes):
                with pytest.raises(rsshm.FormatError, match="v210"):
                    what()


def test_conversion_needs_no_opencv(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with rsshm.Writer(channel.name, format="NV12") as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(grey(128, (72, 64)))
        assert abs(reader.read().to_bgr().astype(int) - 130).max() <= 1
        writer.set_format(caps="image/png")
        writer.write(b"png")
        with pytest.raises(rsshm.MissingOpenCV, match="python3-opencv"):
            reader.read().to_rgb()


def test_jpeg_is_decoded(channel: Channel) -> None:
    _, jpeg = cv2.imencode(".jpg", numpy.full((48, 64, 3), 99, numpy.uint8))
    caps = "image/jpeg,width=64,height=48,framerate=0/1"
    with rsshm.Writer(channel.name, caps=caps) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(jpeg.tobytes())
        frame = reader.read()
        assert frame.data.tobytes() == jpeg.tobytes() == frame.array.tobytes()
        assert abs(frame.to_bgr().astype(int) - 99).max() <= 2
        assert (frame.to_rgb() == frame.to_bgr()[..., ::-1]).all()
        with pytest.raises(rsshm.FormatError, match="no known raw format"):
            frame.planes
        writer.write(b"no jpeg")
        with pytest.raises(rsshm.FormatError, match="can decode"):
            reader.read().to_bgr()


def test_frame_is_unchanged_while_one_of_its_arrays_exists(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=12) as writer:
        reader = rsshm.Reader(channel.name, timeout=5)
        with in_place(writer, reader, 7) as frame:
            part = frame.array[::2, 3:9]
        # Only a part of one array remains. The frame and the reader are deleted.
        del frame
        reader.close()
        del reader
        gc.collect()
        for value in range(100):
            assert writer.write(grey(value)) is not None
        assert (part == 7).all()


def test_slot_is_free_after_its_last_array(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            array = in_place(writer, reader).array
            segment = Segment(channel)
            assert segment.held(os.getpid()) == 1
            del array
            assert segment.held(os.getpid()) == 0


def wait_without_a_frame(reader: rsshm.Reader) -> None:
    """Lets the reader wait for a frame that does not come."""
    with pytest.raises(rsshm.Timeout):
        reader.read(0)


def test_part_of_an_array_keeps_the_slot(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=6) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            in_place(writer, reader)
            segment = Segment(channel)
            for value in range(60):
                wait_without_a_frame(reader)
                writer.write(grey(value), pts_ns=value)
                frame = reader.read()
                assert frame.in_place and frame.pts_ns == value
                part = frame.array[::2]
                # ``part`` still pins the slot. Otherwise the writer would draw into it below.
                frame.release()
                for later in range(3):
                    wait_without_a_frame(reader)
                    writer.write(grey(200 + later))
                    reader.read().release()
                assert (part == value).all() and segment.held(os.getpid()) == 1
                with pytest.raises(ValueError):
                    part.setflags(write=True)
                del part, frame
                assert segment.held(os.getpid()) == 0


def test_frames_of_changing_size_arrive_unchanged(channel: Channel) -> None:
    sizes = [5000] * 30 + [7000, 5000, 5000, 3000] * 10
    with rsshm.Writer(channel.name, caps="application/x-thing", max_slots=6) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            for value, size in enumerate(sizes):
                writer.write(bytes([value]) * size)
                frame = reader.read()
                assert frame.data.tobytes() == bytes([value]) * size
                del frame
                wait_without_a_frame(reader)


def test_arrays_of_a_frame_are_read_only(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            array = in_place(writer, reader).array
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
            with pytest.raises(ValueError):
                array.setflags(write=True)


def test_released_frame_has_no_arrays(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(grey(1))
            with reader.read() as frame:
                pass
            for what in ("array", "planes", "data"):
                with pytest.raises(rsshm.Released, match="frame 1"):
                    getattr(frame, what)


def test_reader_that_keeps_many_frames_gets_copies(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=8) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            in_place(writer, reader)
            frames = []
            for value in range(30):
                assert writer.write(grey(value)) is not None
                frames.append(reader.read())
                time.sleep(0.003)
            assert not all(frame.in_place for frame in frames) and any(frame.in_place for frame in frames)
            assert [int(frame.array.max()) for frame in frames] == list(range(30))
            assert all(frame.array.min() == frame.array.max() for frame in frames)
            assert writer.evicted == 0


def test_published_slot_is_read_only(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with writer.buffer() as slot:
            array = slot.array
            array[:] = 5
        assert slot.seq == 1
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 6
        with pytest.raises(rsshm.Released):
            slot.array
        # The writer does not draw into the slot again while the array exists.
        for value in range(50):
            writer.write(grey(value))
        assert (array == 5).all()


def test_error_while_drawing_publishes_nothing(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with pytest.raises(ZeroDivisionError):
            with writer.buffer():
                1 / 0
        assert writer.published == 0
        assert writer.write(grey(1)) == 1


def test_latest_skips_the_frames_between(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5, latest=True) as reader:
            writer.write(grey(0))
            assert reader.read().seq == 1
            for value in range(1, 5):
                writer.write(grey(value))
            frame = reader.read()
            assert (frame.seq, frame.missed, int(frame.array[0, 0])) == (5, 3, 4)
            with pytest.raises(rsshm.Timeout):
                reader.read(0.01)


def test_end_of_stream_comes_after_the_last_frame(channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8", lossless=True)
    reader = rsshm.Reader(channel.name, timeout=5)
    with writer:
        writer.write(grey(0))
        assert reader.read().seq == 1
        for value in (1, 2):
            writer.write(grey(value))
    channel.assert_gone()
    assert [frame.seq for frame in reader] == [2, 3]
    # A new writer begins another stream.
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        writer.write(grey(9))
        frame = reader.read()
        assert frame.discontinuity and int(frame.array[0, 0]) == 9


def test_end_of_stream_comes_before_the_next_frame(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(grey(0))
            assert reader.read().seq == 1
            writer.write(grey(1))
            writer.end_stream()
            writer.write(grey(2))
            assert [frame.seq for frame in reader] == [2]
            assert reader.read().seq == 3


def test_closed_writer_is_noticed_at_once(channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
    with rsshm.Reader(channel.name, timeout=5) as reader:
        writer.write(grey(0))
        reader.read()
        writer.close()
        with pytest.raises(rsshm.Timeout, match="no writer"):
            reader.read(0)
        assert not reader.connected


def test_new_format_is_followed(channel: Channel) -> None:
    with rsshm.Writer(channel.name, format="GRAY8", fps=25, lossless=True) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            writer.write(grey(1, (40, 50)))
            assert reader.read().array.shape == (40, 50)
            writer.set_format((20, 30, 3), fps=50)
            done = threading.Thread(target=lambda: writer.write(numpy.full((20, 30, 3), 2, numpy.uint8)))
            # A lossless writer waits until its readers have attached to the new segment.
            done.start()
            frame = reader.read()
            done.join(5)
            assert (frame.array.shape, frame.caps.format, frame.caps.fps) == ((20, 30, 3), "BGR", 50)
            assert (frame.seq, frame.missed, frame.discontinuity) == (2, 0, True)


def test_reader_begins_at_headers_before_a_keyframe(channel: Channel) -> None:
    kinds = {"k": 0, "d": constant("DELTA_UNIT"), "h": constant("DELTA_UNIT") | constant("HEADER")}
    with rsshm.Writer(channel.name, caps="video/x-h264,stream-format=byte-stream,alignment=nal") as writer:
        for kind in "hkdhdhhkd":
            writer.write(b"unit", flags=kinds[kind])
        for peer_class in (rsshm.Reader, rsshm.Observer):
            with peer_class(channel.name, timeout=5) as reader:
                assert [reader.read().seq for _ in range(4)] == [6, 7, 8, 9]


def test_encoded_stream_begins_and_continues_at_keyframes(channel: Channel) -> None:
    delta = constant("DELTA_UNIT")
    with rsshm.Writer(channel.name, caps="video/x-h264,stream-format=byte-stream,alignment=au") as writer:
        for flags in (0, delta, 0, delta, delta):
            writer.write(b"frame", flags=flags)
        with rsshm.Reader(channel.name, timeout=5) as reader:
            frame = reader.read()
            assert frame.seq == 3 and frame.is_key
            assert [reader.read().seq for _ in range(2)] == [4, 5]
            # The channel keeps fewer frames than these, so the reader misses some and requests a keyframe.
            for _ in range(200):
                writer.write(bytes(300_000), flags=delta)
            with pytest.raises(rsshm.Timeout):
                reader.read(0.05)
            eventually("the request for a keyframe", writer.key_frame_wanted)
            writer.write(b"key")
            frame = reader.read()
            assert frame.is_key and frame.data.tobytes() == b"key"
            assert frame.missed == frame.seq - 6


def test_requested_keyframe_waits_for_its_time(channel: Channel) -> None:
    delta = constant("DELTA_UNIT")
    with rsshm.Writer(channel.name, caps="video/x-h264,stream-format=byte-stream,alignment=au") as writer:
        writer.write(b"key")
        with rsshm.Reader(channel.name, timeout=5) as reader, rsshm.Reader(channel.name, timeout=5) as other:
            reader.read()
            other.read()
            at_ns = time.monotonic_ns() + 200_000_000
            assert reader.request_key_frame(at_ns)
            eventually("the request for a keyframe of that time", writer.key_frame_wanted)
            assert at_ns <= time.monotonic_ns()
            writer.write(b"key")
            # From here on, the frames are ahead of the clock, and the time of the newest frame counts.
            at_ns = time.monotonic_ns() + 60_000_000_000
            # Both mean the same frame.
            assert reader.request_key_frame(at_ns) and other.request_key_frame(at_ns + 1000)
            # A request at once neither replaces the later one nor is replaced by it.
            assert reader.request_key_frame()
            eventually("the request for a keyframe at once", writer.key_frame_wanted)
            writer.write(b"key")
            writer.write(b"delta", pts_ns=at_ns - 2_000_000, flags=delta)
            time.sleep(0.3)
            assert not writer.key_frame_wanted()
            writer.write(b"delta", pts_ns=at_ns + 1000, flags=delta)
            eventually("the request for a keyframe of that time", writer.key_frame_wanted)
            at_ns += 1_000_000_000
            assert reader.request_key_frame(at_ns)
            # The keyframe comes in time, before anybody asks for it.
            writer.write(b"key", pts_ns=at_ns)
            time.sleep(0.3)
            assert not writer.key_frame_wanted()
            for wrong in (-1, 1 << 64):
                with pytest.raises(rsshm.BadOption):
                    reader.request_key_frame(wrong)


def test_greedy_reader_gets_few_keyframes(channel: Channel) -> None:
    with rsshm.Writer(channel.name, caps="video/x-h264,stream-format=byte-stream,alignment=au") as writer:
        writer.write(b"key")
        with rsshm.Reader(channel.name, timeout=5) as reader:
            reader.read()
            wanted, began, elapsed = 0, time.monotonic(), 0.0
            while elapsed < 1.5 or wanted < 5:
                assert elapsed < PATIENCE, f"only {wanted} keyframes"
                assert reader.request_key_frame(time.monotonic_ns() + 2_000_000)
                time.sleep(0.004)
                if writer.key_frame_wanted():
                    wanted += 1
                    writer.write(b"key")
                elapsed = time.monotonic() - began
            # One reader gets at most 8 in a second.
            assert wanted <= 8 * (elapsed + 2)


def test_frames_of_any_size_get_a_slot(channel: Channel) -> None:
    with rsshm.Writer(channel.name, caps="image/png", lossless=True) as writer:
        with rsshm.Reader(channel.name, timeout=5) as reader:
            for size in (10, 100_000, 1, 1_000_000, 50):
                done = threading.Thread(target=lambda: writer.write(bytes([size & 0xFF]) * size))
                done.start()
                data = reader.read().data
                done.join(5)
                assert data.size == size and (data == size & 0xFF).all()


def test_other_threads_run_while_a_reader_waits(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        reader = rsshm.Reader(channel.name)
        writer.write(grey(1))
        reader.read()
        waiting = threading.Thread(target=lambda: reader.read(PATIENCE), daemon=True)
        waiting.start()
        began = time.monotonic()
        rounds = 0
        # If the reader kept the interpreter's lock while it waits, this loop would stop until the reader's timeout.
        while time.monotonic() - began < 0.2 or rounds <= 10_000:
            rounds += 1
        assert waiting.is_alive()
        writer.write(grey(2))
        waiting.join(5)
        assert not waiting.is_alive()


def test_close_ends_the_wait_of_another_thread(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        reader = rsshm.Reader(channel.name)
        writer.write(grey(1))
        reader.read()
        ended = []

        def wait() -> None:
            try:
                reader.read()
            except rsshm.Closed as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually("the reader is counted", lambda: writer.readers == 1)
        time.sleep(0.05)
        reader.close()
        waiting.join(5)
        assert ended
        eventually("the reader has left", lambda: writer.readers == 0)
