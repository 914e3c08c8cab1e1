#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""tests/releases/check.py

Checks the plugin in GST_PLUGIN_PATH with the GStreamer of this system.

Prints a line for each check: its name, and "ok", "FAILED" with the reason, or since when GStreamer has the feature if
this one is older. `tests/releases/run` runs the program in several releases of Debian.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstAllocators", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstAllocators, GstApp, GstVideo  # noqa: E402, F401

VERSION = tuple(Gst.version())[:2]
# Enough for a slow machine. A check that works takes less than two seconds.
PATIENCE = 20
CHANNEL = f"rsshm-releases-{os.getpid()}"
GRAY = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1"
MARK = "RsShmReleasesMeta"
NV12_SIZE = 64 * 48 * 3 // 2
FRAMES = 10

CHECKS: list[tuple[str, tuple[int, int], Callable[[], None]]] = []


def check(name: str, since: tuple[int, int] = (1, 18)) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Makes a function a check. GStreamer has what it needs from the version `since` on."""

    def add(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS.append((name, since, function))
        return function

    return add


def wait_until(what: str, is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE} s"
        time.sleep(0.01)


def launch(description: str) -> subprocess.Popen[bytes]:
    """Starts gst-launch-1.0, whose process ends with this one."""
    return subprocess.Popen(["gst-launch-1.0", "-q", *description.split()], stdout=subprocess.DEVNULL)


def succeed(process: subprocess.Popen[bytes]) -> None:
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"{process.args!r} did not end in {PATIENCE} s") from None
    assert status == 0, f"{process.args!r}: status {status}"


def transferred(writer: str, directory: Path) -> bytes:
    """The bytes that a reader in another process receives from a writer, of which it misses no frame."""
    received = directory / "received"
    reader = launch(f"rsshmsrc channel={CHANNEL} ! filesink location={received}")
    succeed(launch(f"{writer} rsshmsink channel={CHANNEL} lossless=true wait-for-connection=true sync=false"))
    succeed(reader)
    return received.read_bytes()


def compare(writer: str, reference: str) -> None:
    """Compares what a reader receives with what `reference` writes into a file without a channel."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        expected = directory / "expected"
        writer = writer.replace("EXPECTED", str(expected))
        if reference:
            succeed(launch(f"{reference} filesink location={expected}"))
        got = transferred(writer, directory)
        want = expected.read_bytes()
        assert want, "nothing was written"
        assert got == want, f"{len(got)} bytes arrived that are not the {len(want)} bytes that were sent"


class Pipeline:
    """A pipeline that plays. As a context manager, it stops at the end."""

    def __init__(self, description: str) -> None:
        self.bin = Gst.parse_launch(description)
        self.bin.set_state(Gst.State.PLAYING)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        message = self.bin.get_bus().pop_filtered(Gst.MessageType.ERROR)
        self.bin.set_state(Gst.State.NULL)
        assert message is None, message.parse_error()

    def element(self, name: str) -> Any:
        return self.bin.get_by_name(name)

    def stat(self, name: str, field: str) -> int:
        return int(self.element(name).get_property("channel-stats").get_value(field))

    def events(self, element: str, pad: str, direction: Gst.PadProbeType) -> list[Any]:
        """The list of the events that pass a pad from now on."""
        passed: list[Any] = []

        def remember(_: object, info: Any) -> Gst.PadProbeReturn:
            passed.append(info.get_event())
            return Gst.PadProbeReturn.OK

        self.element(element).get_static_pad(pad).add_probe(direction, remember)
        return passed


def pair(options: str = "") -> tuple[Pipeline, Pipeline]:
    """A writer that makes frames until it stops, and a reader that has received the first of them."""
    writer = Pipeline(f"videotestsrc is-live=true name=from ! {GRAY} ! rsshmsink name=sink channel={CHANNEL} {options}")
    reader = Pipeline(f"rsshmsrc name=src channel={CHANNEL} ! fakesink name=to sync=false")
    wait_until("the first frame", lambda: reader.stat("src", "frames-received"))
    return writer, reader


def first_sample(add: Callable[[Any], None]) -> Any:
    """What a reader receives of a buffer to which `add` adds metas."""
    sending = f"appsrc name=from format=time caps={GRAY} ! rsshmsink channel={CHANNEL} wait-for-connection=true"
    with Pipeline(sending) as writer, Pipeline(f"rsshmsrc channel={CHANNEL} ! appsink name=to sync=false") as reader:
        buffer = Gst.Buffer.new_wrapped(bytes(64 * 48))
        buffer.pts = 0
        add(buffer)
        writer.element("from").emit("push-buffer", buffer)
        sample = reader.element("to").try_pull_sample(PATIENCE * Gst.SECOND)
        assert sample, "no frame arrived"
        return sample


@check("the elements are found")
def elements_are_found() -> None:
    for element in ("rsshmsink", "rsshmsrc"):
        shown = subprocess.run(["gst-inspect-1.0", element], capture_output=True, text=True)
        assert shown.returncode == 0 and "channel-stats" in shown.stdout, shown.stderr
    blacklist = subprocess.run(["gst-inspect-1.0", "-b"], capture_output=True, text=True)
    assert "rsshm" not in blacklist.stdout, blacklist.stdout


@check("raw video, every byte")
def raw_video() -> None:
    for frame_format in ("NV12", "RGB", "I420_10LE"):
        source = f"videotestsrc num-buffers=50 pattern=ball ! video/x-raw,format={frame_format},width=320,height=240 !"
        compare(source, source)


@check("audio, every byte")
def audio() -> None:
    source = "audiotestsrc num-buffers=50 ! audio/x-raw,format=S16LE,rate=48000,channels=2 !"
    compare(source, source)


@check("a change of the caps")
def caps_change() -> None:
    one = "videotestsrc num-buffers=10 pattern=ball ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1"
    other = "videotestsrc num-buffers=10 pattern=ball ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1"
    source = f"concat name=c {one} ! c. {other} ! c. c. !"
    compare(source, source)


@check("H.264, every byte")
def h264() -> None:
    raw = "videotestsrc num-buffers=50 ! video/x-raw,width=320,height=240,framerate=30/1"
    compare(f"{raw} ! x264enc tune=zerolatency ! tee name=t ! queue ! filesink location=EXPECTED t. ! queue !", "")


@check("regions of interest")
def regions() -> None:
    def add(buffer: Any) -> None:
        region = GstVideo.buffer_add_video_region_of_interest_meta(buffer, "face", 1, 2, 3, 4)
        region.add_param(Gst.Structure.new_from_string("detection, confidence=(double)0.5"))

    sample = first_sample(add)
    region = GstVideo.buffer_get_video_region_of_interest_meta_id(sample.get_buffer(), 0)
    assert region is not None, "the meta did not arrive"
    assert (region.x, region.y, region.w, region.h) == (1, 2, 3, 4), (region.x, region.y, region.w, region.h)
    assert region.get_param("detection").get_double("confidence") == (True, 0.5)


@check("keyframe requests of readers")
def keyframe_requests() -> None:
    writer, reader = pair()
    with writer, reader:
        passed = writer.events("from", "src", Gst.PadProbeType.EVENT_UPSTREAM)
        request = GstVideo.video_event_new_upstream_force_key_unit(Gst.CLOCK_TIME_NONE, True, 1)
        assert reader.element("to").get_static_pad("sink").push_event(request), "rsshmsrc did not take it"
        wait_until("the request", lambda: any(GstVideo.video_event_is_force_key_unit(event) for event in passed))


def navigation(structure: Any) -> Any:
    """The navigation event that the writer's pipeline receives for one of a reader."""
    writer, reader = pair("navigation=true")
    with writer, reader:
        passed = writer.events("from", "src", Gst.PadProbeType.EVENT_UPSTREAM)
        event = Gst.Event.new_navigation(structure)
        assert reader.element("to").get_static_pad("sink").push_event(event), "rsshmsrc did not take it"
        wait_until("the event", lambda: any(event.type == Gst.EventType.NAVIGATION for event in passed))
        return next(event for event in passed if event.type == Gst.EventType.NAVIGATION)


@check("navigation")
def navigation_events() -> None:
    text = "application/x-gst-navigation, event=(string)mouse-button-press, button=(int)3, pointer_x=(double)1.5, "
    text += "pointer_y=(double)2.5"
    received = navigation(Gst.Structure.new_from_string(text)).get_structure()
    assert received.get_int("button") == (True, 3)
    assert received.get_double("pointer_y") == (True, 2.5)


@check("navigation with pressed keys", since=(1, 22))
def navigation_with_keys() -> None:
    held = GstVideo.NavigationModifierType.SHIFT_MASK | GstVideo.NavigationModifierType.BUTTON1_MASK
    event = GstVideo.navigation_event_new_mouse_button_press(3, 1.5, 2.5, held)
    received = navigation(event.get_structure().copy())
    assert received.get_structure().get_value("state") == held, received.get_structure().to_string()


def gap_of(make: Callable[[int], Any]) -> Any:
    """The gap that a reader receives when the writer sends the one that `make` makes for a running time."""
    writer, reader = pair()
    with writer, reader:
        passed = reader.events("to", "sink", Gst.PadProbeType.EVENT_DOWNSTREAM)
        now = writer.bin.get_clock().get_time() - writer.bin.get_base_time()
        assert writer.element("sink").get_static_pad("sink").send_event(make(now))
        wait_until("the gap", lambda: any(event.type == Gst.EventType.GAP for event in passed))
        return next(event for event in passed if event.type == Gst.EventType.GAP)


@check("gaps")
def gaps() -> None:
    received = gap_of(lambda now: Gst.Event.new_gap(now, 40 * Gst.MSECOND))
    assert received.parse_gap().duration == 40 * Gst.MSECOND


@check("flags of gaps", since=(1, 20))
def gap_flags() -> None:
    def make(now: int) -> Any:
        gap = Gst.Event.new_gap(now, 40 * Gst.MSECOND)
        gap.set_gap_flags(Gst.GapFlags.DATA)
        return gap

    received = gap_of(make).parse_gap_flags()
    assert received == Gst.GapFlags.DATA, received


@check("custom metas", since=(1, 20))
def custom_metas() -> None:
    if not Gst.meta_get_info(MARK):
        Gst.Meta.register_custom(MARK, [], None)
    sample = first_sample(lambda buffer: buffer.add_custom_meta(MARK))
    assert sample.get_buffer().get_custom_meta(MARK) is not None, "the meta did not arrive"


@check("frames without a slot")
def frames_without_slot() -> None:
    """imagefreeze asks for its only frame before the sink has caps, and then sends copies of it."""
    sending = f"videotestsrc num-buffers=1 ! {GRAY} ! imagefreeze num-buffers=5 ! rsshmsink name=sink channel={CHANNEL}"
    with Pipeline(sending) as writer:
        wait_until("the last frame", lambda: writer.stat("sink", "frames-published") == 5)
        copied = {field: writer.stat("sink", field) for field in ("copied-no-slot", "copied-foreign", "copied-repeated")}
        assert copied["copied-no-slot"] == 5, copied


@check("devices")
def devices() -> None:
    writer, reader = pair()
    monitor = Gst.DeviceMonitor()
    monitor.add_filter("Video/Source", None)
    with writer, reader:
        assert monitor.start()
        wait_until("the device", lambda: any(CHANNEL in device.get_display_name() for device in monitor.get_devices()))
        monitor.stop()


@check("another writer after a crash")
def crash() -> None:
    first = launch(f"videotestsrc is-live=true ! {GRAY} ! rsshmsink channel={CHANNEL}")
    with Pipeline(f"rsshmsrc name=src channel={CHANNEL} ! fakesink sync=false") as reader:
        wait_until("the first frame", lambda: reader.stat("src", "frames-received"))
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = reader.stat("src", "frames-received")
        next_writer = launch(f"videotestsrc is-live=true ! {GRAY} ! rsshmsink channel={CHANNEL}")
        wait_until("a frame of the next writer", lambda: reader.stat("src", "frames-received") > before + 5)
        assert reader.stat("src", "reconnects") == 1
    next_writer.send_signal(signal.SIGINT)
    next_writer.wait(PATIENCE)


def content(number: int, size: int) -> bytes:
    """The bytes of a frame. Each byte differs from that of the frames before and after it."""
    return (bytes((number * 7 + index) % 251 for index in range(251)) * (size // 251 + 1))[:size]


def in_memfd(number: int, size: int, is_dmabuf: bool) -> Any:
    """A buffer in a memfd of its own, as GstDmaBufMemory or as GstFdMemory."""
    descriptor = os.memfd_create("rsshm-releases")
    os.write(descriptor, content(number, size))
    # The memory closes the descriptor.
    if is_dmabuf:
        memory = GstAllocators.DmaBufAllocator.alloc(GstAllocators.DmaBufAllocator.new(), descriptor, size)
    else:
        flags = GstAllocators.FdMemoryFlags.NONE
        memory = GstAllocators.FdAllocator.alloc(GstAllocators.FdAllocator.new(), descriptor, size, flags)
    buffer = Gst.Buffer.new()
    buffer.append_memory(memory)
    buffer.pts = number * Gst.SECOND // 30
    return buffer


def kind_of(buffer: Any) -> str:
    memory = buffer.peek_memory(0)
    if GstAllocators.is_dmabuf_memory(memory):
        return "dmabuf"
    return "fd" if GstAllocators.is_fd_memory(memory) else "other"


def numbered(caps: str, sink: str) -> Pipeline:
    return Pipeline(f"appsrc name=from format=time caps={caps} ! {sink}")


def push(writer: Pipeline, buffer: Any) -> None:
    flow = writer.element("from").emit("push-buffer", buffer)
    assert flow == Gst.FlowReturn.OK, flow


def exchanged(writer: Pipeline, reader: Pipeline, size: int, layout: Any = None) -> Iterator[Any]:
    """Sends frames in dmabufs, and gives each as the reader receives it, with the right bytes if `size` is not 0.

    The next frame is sent when the one before has arrived, because a reader may hold only a few buffers of the writer.
    `layout` are the offsets and the strides of the two planes, which then are in a GstVideoMeta.
    """
    for number in range(FRAMES):
        buffer = in_memfd(number, size or NV12_SIZE, is_dmabuf=True)
        if layout:
            flags, nv12 = GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.NV12
            GstVideo.buffer_add_video_meta_full(buffer, flags, nv12, 64, 48, 2, *(part + [0, 0] for part in layout))
        push(writer, buffer)
        del buffer
        sample = reader.element("to").try_pull_sample(PATIENCE * Gst.SECOND)
        message = reader.bin.get_bus().pop_filtered(Gst.MessageType.ERROR)
        assert message is None, message.parse_error()
        assert sample, f"frame {number} did not arrive"
        got = sample.get_buffer().extract_dup(0, sample.get_buffer().get_size())
        assert not size or got == content(number, size), f"frame {number} has wrong bytes ({len(got)} of {size})"
        yield sample


def assert_counted(writer: Pipeline, field: str) -> None:
    """Checks that all frames of the writer are counted in this field of the sink's statistics."""

    def counts() -> dict[str, int]:
        ways = ("frames-by-descriptor", "frames-in-place", "frames-copied")
        return {name: writer.stat("sink", name) for name in ways}

    # A frame arrives before it is counted.
    wait_until("the counts", lambda: sum(counts().values()) == writer.stat("sink", "frames-published") >= FRAMES)
    assert counts()[field] == sum(counts().values()), counts()


WRITER = f"rsshmsink name=sink channel={CHANNEL} lossless=true wait-for-connection=true sync=false"
DMABUF = "video/x-raw(memory:DMABuf)"
TO = "appsink name=to sync=false enable-last-sample=false"
PLAIN = "width=64,height=48,framerate=30/1"
NV12 = f"video/x-raw,format=NV12,{PLAIN}"


# Rows of 128 bytes, and 64 rows.
PADDED = ([0, 128 * 64], [128, 128])
PADDED_SIZE = 128 * 64 * 3 // 2


def layout_of(buffer: Any) -> Any:
    """The offsets and the strides of the planes in the GstVideoMeta of a buffer."""
    meta = GstVideo.buffer_get_video_meta(buffer)
    assert meta is not None, "the buffer has no GstVideoMeta"
    return list(meta.offset)[: meta.n_planes], list(meta.stride)[: meta.n_planes]


def dmabufs(kernel: str, plain: str, size: int) -> None:
    """Sends frames with caps of both forms to all kinds of downstream, and checks what it gets."""
    drm = f"{DMABUF},format=DMA_DRM,drm-format={kernel},{PLAIN}"
    linear = f"{DMABUF},format={plain},{PLAIN}"
    downstream = {
        "": (drm, "dmabuf"),
        f"capsfilter caps={DMABUF},format=DMA_DRM !": (drm, "dmabuf"),
        f"capsfilter caps={DMABUF},format={plain} !": (linear, "dmabuf"),
        # Without the feature in the caps, the kernel says what the memory is.
        "capsfilter caps=video/x-raw !": (f"video/x-raw,format={plain},{PLAIN}", "fd"),
        "videoconvert ! video/x-raw,format=RGB !": (f"video/x-raw,format=RGB,{PLAIN}", "other"),
    }
    for sent in (drm, linear):
        for elements, (expected, kind) in downstream.items():
            is_converted = "convert" in elements
            reading = f"rsshmsrc name=src channel={CHANNEL} ! {elements} {TO}"
            with numbered(sent, WRITER) as writer, Pipeline(reading) as reader:
                for sample in exchanged(writer, reader, 0 if is_converted else size):
                    caps, want = sample.get_caps(), Gst.Caps.from_string(expected)
                    is_right = caps.is_subset(want) if is_converted else caps.is_equal(want)
                    assert is_right, f"{sent} -> {elements}: {caps.to_string()}"
                    assert kind_of(sample.get_buffer()) == kind, f"{elements}: {kind_of(sample.get_buffer())}"
                assert_counted(writer, "frames-by-descriptor")


@check("dmabufs with drm-format, both forms of the caps", since=(1, 24))
def dmabufs_with_drm_format() -> None:
    dmabufs("NV12", "NV12", NV12_SIZE)
    dmabufs('"R8\\ \\ "', "GRAY8", 64 * 48)


@check("dmabufs with drm-format and padded rows", since=(1, 24))
def padded_dmabufs() -> None:
    caps = f"{DMABUF},format=DMA_DRM,drm-format=NV12,{PLAIN}"
    reading = f"rsshmsrc channel={CHANNEL} ! {TO}"
    with numbered(caps, WRITER) as writer, Pipeline(reading) as reader:
        for sample in exchanged(writer, reader, PADDED_SIZE, PADDED):
            assert layout_of(sample.get_buffer()) == PADDED, layout_of(sample.get_buffer())


@check("dmabufs without drm-format")
def dmabufs_without_drm_format() -> None:
    caps = f"{DMABUF},format=NV12,{PLAIN}"
    for elements, kind in (("", "dmabuf"), ("capsfilter caps=video/x-raw !", "fd")):
        reading = f"rsshmsrc channel={CHANNEL} ! {elements} {TO}"
        with numbered(caps, WRITER) as writer, Pipeline(reading) as reader:
            kinds = {kind_of(sample.get_buffer()) for sample in exchanged(writer, reader, NV12_SIZE)}
            assert kinds == {kind}, kinds


@check("dmabufs with a modifier", since=(1, 24))
def dmabufs_with_modifier() -> None:
    caps = f"{DMABUF},format=DMA_DRM,drm-format=NV12:0x0100000000000002,{PLAIN}"
    reading = f"rsshmsrc channel={CHANNEL} ! {{}} {TO}"
    for elements in ("", f"capsfilter caps={DMABUF},format=DMA_DRM !"):
        with numbered(caps, WRITER) as writer, Pipeline(reading.format(elements)) as reader:
            for sample in exchanged(writer, reader, PADDED_SIZE, PADDED):
                assert sample.get_caps().is_equal(Gst.Caps.from_string(caps)), sample.get_caps().to_string()
                assert kind_of(sample.get_buffer()) == "dmabuf", kind_of(sample.get_buffer())
                assert layout_of(sample.get_buffer()) == PADDED, layout_of(sample.get_buffer())
    refused = Gst.parse_launch(reading.format("capsfilter caps=video/x-raw !"))
    refused.set_state(Gst.State.PLAYING)
    try:
        with numbered(caps, WRITER) as writer:
            push(writer, in_memfd(0, NV12_SIZE, is_dmabuf=True))
            message = refused.get_bus().timed_pop_filtered(PATIENCE * Gst.SECOND, Gst.MessageType.ERROR)
            assert message, "downstream that reads with the processor got no error"
            text = " ".join(map(str, message.parse_error()))
            assert "NV12:0x0100000000000002" in text, text
    finally:
        refused.set_state(Gst.State.NULL)


@contextmanager
def socket() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/socket"


@contextmanager
def running(description: str) -> Iterator[None]:
    """A pipeline in another process, which ends here."""
    process = launch(description)
    try:
        yield
        assert process.poll() is None, f"{process.args!r}: status {process.poll()}"
    finally:
        process.kill()
        process.wait()


def in_slot(number: int, size: int) -> Any:
    """A buffer in ordinary memory, which rsshmsink copies into a slot."""
    buffer = Gst.Buffer.new_wrapped(content(number, size))
    buffer.pts = number * Gst.SECOND // 30
    return buffer


def through_unixfd(writer: Pipeline, reader: Pipeline, make: Callable[[int, int], Any]) -> None:
    """Sends frames over a socket, and checks that the reader gets the bytes of each in memory with a descriptor.

    The first frame is sent until it arrives, because unixfdsink drops frames while nobody is connected.
    """

    def receive(timeout: int) -> Any:
        return reader.element("to").try_pull_sample(timeout)

    def first() -> Any:
        push(writer, make(0, NV12_SIZE))
        return receive(100 * Gst.MSECOND)

    arrived = [None]
    wait_until("the first frame", lambda: arrived.append(first()) or arrived[-1])
    sample, numbers = arrived.pop(), [0]
    frames = [content(number, NV12_SIZE) for number in range(FRAMES)]
    while True:
        assert sample, f"after the frames {numbers}, no frame arrived"
        buffer = sample.get_buffer()
        assert kind_of(buffer) == "fd", kind_of(buffer)
        got = buffer.extract_dup(0, buffer.get_size())
        assert got in frames[: numbers[-1] + 1], f"after the frames {numbers}, a frame has wrong bytes"
        # The first frame may arrive several times.
        if got == frames[numbers[-1]]:
            if numbers[-1] == FRAMES - 1:
                return
            numbers.append(numbers[-1] + 1)
            push(writer, make(numbers[-1], NV12_SIZE))
        else:
            assert got == frames[0], f"after the frames {numbers}, an older one arrived"
        sample = receive(PATIENCE * Gst.SECOND)


@check("unixfdsrc to rsshmsink, by descriptor", since=(1, 24))
def from_unixfd() -> None:
    with socket() as path, numbered(NV12, f"unixfdsink sync=false socket-path={path}") as writer:
        wait_until("the socket", lambda: Path(path).exists())
        with running(f"unixfdsrc socket-path={path} ! {WRITER}"):
            with Pipeline(f"rsshmsrc channel={CHANNEL} ! {TO}") as reader:
                through_unixfd(writer, reader, lambda number, size: in_memfd(number, size, is_dmabuf=False))


def to_unixfd(make: Callable[[int, int], Any], field: str) -> None:
    with socket() as path, running(f"rsshmsrc channel={CHANNEL} ! unixfdsink sync=false socket-path={path}"):
        wait_until("the socket", lambda: Path(path).exists())
        with Pipeline(f"unixfdsrc socket-path={path} ! {TO}") as reader:
            with numbered(NV12, WRITER) as writer:
                through_unixfd(writer, reader, make)
                assert_counted(writer, field)


@check("rsshmsrc to unixfdsink, by descriptor", since=(1, 24))
def frames_by_descriptor_to_unixfd() -> None:
    to_unixfd(lambda number, size: in_memfd(number, size, is_dmabuf=False), "frames-by-descriptor")


@check("rsshmsrc to unixfdsink, frames in slots", since=(1, 28))
def frames_in_slots_to_unixfd() -> None:
    to_unixfd(in_slot, "frames-copied")


def main() -> int:
    Gst.init(None)
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    print(f"{Gst.version_string()}, glibc {glibc}, Python {platform.python_version()}", flush=True)
    failed = 0
    for name, since, function in CHECKS:
        result = "ok"
        if VERSION < since:
            result = f"from {since[0]}.{since[1]}"
        else:
            try:
                function()
            except Exception as error:  # noqa: BLE001
                result, failed = f"FAILED: {error}", failed + 1
        print(f"{name}: {result}", flush=True)
    left = [file.name for file in Path("/dev/shm").iterdir() if CHANNEL in file.name]
    print(f"nothing is left in /dev/shm: {f'FAILED: {left}' if left else 'ok'}")
    return min(failed + len(left), 1)


sys.exit(main())
