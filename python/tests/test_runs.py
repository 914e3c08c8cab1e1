# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs: small frames that share a slot."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, List

import pytest
from helpers import (
    PATIENCE,
    Channel,
    Process,
    Segment,
    constant,
    eventually,
    fields,
    gst,
    gst_environment,
    packets,
    peer,
    records,
)

import rsshm

Start = Callable[..., Process]
BURST = 10_000
CAPS = "application/x-thing"
KEYFRAMES = 700
"""Every 700th frame of a writer of :func:`stream` is a keyframe. A run has about 600 frames."""

peers = pytest.mark.parametrize("peer_class", [rsshm.Reader, rsshm.Observer])


def rest_of(reader: rsshm.Reader) -> List[bytes]:
    """The frames up to the end of the stream. The reader is slow at times, and misses none."""
    frames = []
    for frame in reader:
        frames.append(frame.data.tobytes())
        if frame.seq % 3000 == 100:
            time.sleep(0.3)
        elif frame.seq % 50 == 0:
            time.sleep(0.001)
    assert reader.missed == 0
    return frames


@peers
def test_burst_of_small_frames_arrives_whole(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = packets(BURST)
    writer = start(peer("write", channel.name, CAPS, "variable", "burst", "metadata"))
    writer.write(records(sent[:1]))
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        received = [reader.read().data.tobytes()]
        segment = Segment(channel)
        # The writer publishes the burst only when it has read all of it.
        feeding = threading.Thread(target=writer.wait_ok, args=(records(sent[1:]),))
        feeding.start()
        received += rest_of(reader)
        feeding.join()
        assert received == sent
        assert 2 < segment.status("run_head") < BURST / 100, "the frames share no slots"
    channel.assert_gone()


@peers
def test_burst_of_rsshmsink_arrives_whole(peer_class: Any, channel: Channel, start: Start) -> None:
    def reading(reader: rsshm.Reader) -> None:
        received.append(rest_of(reader))

    received: List[List[bytes]] = []
    with ExitStack() as stack:
        readers = [stack.enter_context(peer_class(channel.name, timeout=PATIENCE))]
        if peer_class is rsshm.Observer:
            # The sink waits for an attached reader before the first buffer, but not for an observer.
            readers.append(stack.enter_context(rsshm.Reader(channel.name, timeout=PATIENCE)))
        writer = start(
            gst(
                f"fakesrc num-buffers={BURST} sizetype=random sizemin=188 sizemax=1400 filltype=pattern-span",
                "! video/mpegts,systemstream=true,packetsize=188",
                f"! rsshmsink name={channel.name} sync=false wait-for-connection=true",
            ),
            env=gst_environment(),
        )
        threads = [threading.Thread(target=reading, args=(reader,)) for reader in readers]
        for reader, thread in zip(readers, threads):
            thread.start()
            eventually("the segment", lambda: reader.connected or not thread.is_alive())
        for thread in threads:
            thread.join(2 * PATIENCE)
    writer.wait_ok()
    assert len(received) == len(readers)
    for frames in received:
        data = b"".join(frames)
        assert all(188 <= len(frame) <= 1400 for frame in frames)
        pattern = bytes(range(256))
        assert data == (pattern * (len(data) // 256 + 2))[data[0] :][: len(data)]
        assert len(frames) == BURST


def stream(channel: Channel, start: Start, count: int, *options: str) -> List[bytes]:
    """Starts a writer that has published these frames, and that waits for further ones."""
    sent = packets(count)
    writer = start(peer("write", channel.name, CAPS, "variable", *options))
    writer.write(records(sent))
    eventually("the channel", channel.exists)
    with rsshm.Observer(channel.name, timeout=PATIENCE) as observer:
        observer.read()
        segment = Segment(channel)
        eventually("the last frame", lambda: segment.status("head") == count)
    return sent


@peers
def test_newcomer_begins_at_a_keyframe_within_a_run(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = stream(channel, start, 3000, f"keyframes={KEYFRAMES}", "metadata")
    newest_key = (len(sent) - 1) // KEYFRAMES * KEYFRAMES
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        frames = [reader.read() for _ in sent[newest_key:]]
        assert [frame.data.tobytes() for frame in frames] == sent[newest_key:]
        assert [frame.seq for frame in frames] == list(range(newest_key + 1, len(sent) + 1))
        assert [frame.is_key for frame in frames] == [True] + [False] * (len(frames) - 1)
        assert reader.missed == 0


@peers
def test_reader_of_the_newest_frame_finds_it_in_a_run(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = stream(channel, start, 100)
    with peer_class(channel.name, timeout=PATIENCE, latest=True) as reader:
        frame = reader.read()
        assert (frame.seq, frame.data.tobytes()) == (len(sent), sent[-1])


@peers
def test_large_frames_of_a_run_arrive(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = [bytes([value]) * size for value, size in enumerate([100_000, 9_000, 40_000, 188, 300_000, 20_000, 500] * 5)]
    writer = start(peer("write", channel.name, CAPS, "variable", "lossless" if peer_class is rsshm.Reader else "burst"))
    writer.write(records(sent[:1]))
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        frames = [reader.read()]
        if peer_class is rsshm.Reader:
            segment = Segment(channel)
            eventually("the quota", lambda: segment.quota() > 1)
        feeding = threading.Thread(target=writer.wait_ok, args=(records(sent[1:]),))
        feeding.start()
        frames += reader
        feeding.join()
        # The program keeps all frames. The reader gets as many in place as its quota allows, and copies of the others.
        assert [frame.data.tobytes() for frame in frames] == sent
        assert any(frame.in_place for frame in frames) == (peer_class is rsshm.Reader)


@peers
def test_empty_frames_arrive(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = [b"", b"a", b"", b"", b"bb", b""]
    writer = start(peer("write", channel.name, CAPS, "variable", "burst"))
    writer.write(records(sent[:1]))
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        received = [reader.read().data.tobytes()]
        writer.wait_ok(records(sent[1:]))
        assert received + rest_of(reader) == sent


def test_rust_reader_begins_at_the_first_part_of_a_keyframe(channel: Channel, start: Start) -> None:
    delta = constant("DELTA_UNIT")
    with rsshm.Writer(channel.name, caps=CAPS) as writer:
        flags = [0, delta, delta, 0, 0, 0, delta]
        for index, flag in enumerate(flags):
            writer.write(bytes([index]), flags=flag)
        reading = start(peer("read", channel.name))
        assert writer.wait_for_reader(PATIENCE)
        with rsshm.Reader(channel.name, timeout=PATIENCE) as reader:
            frames = [reader.read() for _ in range(4)]
            assert [(frame.data[0], frame.is_key) for frame in frames] == [(3, True), (4, False), (5, False), (6, False)]
    assert reading.wait_ok() == records(bytes([index]) for index in (3, 4, 5, 6))


def test_stream_after_an_end_has_new_keyframes(channel: Channel) -> None:
    delta = constant("DELTA_UNIT")
    with rsshm.Writer(channel.name, caps=CAPS) as writer, rsshm.Reader(channel.name, timeout=5) as reader:
        for flags in (0, delta, 0, 0):
            writer.write(b"x", flags=flags)
        assert [reader.read().is_key for _ in range(2)] == [True, False]
        writer.end_stream()
        for flags in (0, 0):
            writer.write(b"x", flags=flags)
        with pytest.raises(rsshm.EndOfStream):
            reader.read()
        # The new stream has had no delta frame, so each frame may be independent.
        assert [reader.read().is_key for _ in range(2)] == [True, True]


def damage(segment: Segment, numbers: random.Random) -> None:
    """Overwrites a word that leads a reader to a frame of a run."""
    begin, size = segment.header("slots_offset"), segment.header("slot_size")
    slot = numbers.randrange((len(segment.memory) - begin) // size)
    record = segment.record(slot)
    descriptor = record + fields("SlotRecord")["words"][0]
    at = numbers.choice(
        [
            segment.header("status_offset") + fields("Status")["head"][0],
            segment.header("status_offset") + fields("Status")["run_head"][0],
            segment.header("ring_offset") + 8 * numbers.randrange(8),
            record + fields("SlotRecord")["seq"][0],
            *[record + fields("SlotRecord")[field][0] for field in ("tail", "keyframe")] * 3,
            *(descriptor + fields("FrameDescriptor")[field][0] for field in ("data_offset", "size", "metadata_size")),
            # A part of a RunRecord, or of the bytes of a frame.
            begin + slot * size + numbers.randrange(0, 65536, 8),
        ]
    )
    number = numbers.choice([0, 1, 2, 3, 100, 600, 5000, (1 << 24) - 1])
    offset = numbers.choice([0, 8, 12, numbers.randrange(0, size, 8), size - 64, size - 8, size, (1 << 40) - 8])
    value = numbers.choice([number, offset << 24 | number, offset, 1 << 63, (1 << 64) - 1, numbers.getrandbits(64)])
    segment.store(at, value)


def test_damaged_runs_crash_no_reader(channel: Channel, start: Start) -> None:
    """Another process may write any value into the tail, the positions and the records of a run at any time."""
    stream(channel, start, 3000, f"keyframes={KEYFRAMES}", "metadata")
    numbers = random.Random(5)
    segment = Segment(channel)
    status = segment.header("status_offset")
    whole = segment.memory[status:]
    frames, began, longest = 0, time.monotonic(), 0.0
    while time.monotonic() - began < 3 or frames <= 100:
        assert time.monotonic() - began < PATIENCE, f"only {frames} frames arrive"
        peer_class = numbers.choice([rsshm.Reader, rsshm.Observer])
        with peer_class(channel.name, timeout=0.005, latest=numbers.random() < 0.3) as reader:
            for _ in range(numbers.randrange(100)):
                if numbers.random() < 0.1:
                    damage(segment, numbers)
                before = time.monotonic()
                try:
                    frame = reader.read()
                    frames += 1
                    assert frame.data.size <= segment.header("slot_size")
                    frame.data.sum()
                except rsshm.Error:
                    pass
                longest = max(longest, time.monotonic() - before)
        # The next readers find frames again.
        segment.memory[status:] = whole
    assert longest < 5
