# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs: small frames that share a slot. The writers are in Rust, because this package's writer has runs of one frame."""

from __future__ import annotations

import mmap
import random
import threading
import time
from typing import Any, Callable, List

import pytest
from helpers import PATIENCE, Channel, Process, eventually, gst, gst_environment, packets, peer, records

import rsshm
from rsshm import layout
from rsshm._channel import KeyframeRule
from rsshm._runs import position

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
        segment = reader._at.segment
        # The writer publishes the burst only when it has read all of it.
        feeding = threading.Thread(target=writer.wait_ok, args=(records(sent[1:]),))
        feeding.start()
        received += rest_of(reader)
        feeding.join()
        assert received == sent
        assert 2 < segment.words[segment.run_head] < BURST / 100, "the frames share no slots"
    channel.assert_gone()


@peers
def test_burst_of_rsshmsink_arrives_whole(peer_class: Any, channel: Channel, start: Start) -> None:
    def reading(reader: rsshm.Reader) -> None:
        received.append(rest_of(reader))

    received: List[List[bytes]] = []
    # The sink waits for an attached reader before the first buffer, but not for an observer.
    with rsshm.Reader(channel.name, timeout=PATIENCE) as attached, peer_class(channel.name, timeout=PATIENCE) as reader:
        writer = start(
            gst(
                f"fakesrc num-buffers={BURST} sizetype=random sizemin=188 sizemax=1400 filltype=pattern-span",
                "! video/mpegts,systemstream=true,packetsize=188",
                f"! rsshmsink name={channel.name} sync=false wait-for-connection=true",
            ),
            env=gst_environment(),
        )
        threads = [threading.Thread(target=reading, args=(reader,)) for reader in (attached, reader)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
    writer.wait_ok()
    assert len(received) == 2
    for frames in received:
        # An observer may attach after some of the frames.
        data = b"".join(frames)
        assert all(188 <= len(frame) <= 1400 for frame in frames)
        pattern = bytes(range(256))
        assert data == (pattern * (len(data) // 256 + 2))[data[0] :][: len(data)]
    assert max(len(frames) for frames in received) == BURST


def stream(channel: Channel, start: Start, count: int, *options: str) -> List[bytes]:
    """Starts a writer that has published these frames, and that waits for further ones."""
    sent = packets(count)
    writer = start(peer("write", channel.name, CAPS, "variable", *options))
    writer.write(records(sent))
    eventually("the channel", channel.exists)
    with rsshm.Observer(channel.name, timeout=PATIENCE) as observer:
        observer.read()
        segment = observer._at.segment
        eventually("the last frame", lambda: segment.words[segment.head] == count)
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
def test_each_frame_and_keyframe_is_found(peer_class: Any, channel: Channel, start: Start) -> None:
    """A search finds any frame of any run, and the newest keyframe of any range."""
    count = 3000
    stream(channel, start, count, f"keyframes={KEYFRAMES}", "metadata")
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        reader.read()
        runs = reader._at.runs
        segment = reader._at.segment
        assert segment.words[segment.run_head] > 3
        numbers = random.Random(7)
        for seq in [1, 2, count, *(numbers.randrange(1, count + 1) for _ in range(60))]:
            # The search does not depend on the frame that was taken last.
            runs._former = None
            place = runs.find(seq)
            assert place is not None and place.seq == seq
            assert runs.is_keyframe(place) == (seq % KEYFRAMES == 1)
            after, last = sorted((seq, numbers.randrange(count + 1)))
            newest = (last - 1) // KEYFRAMES * KEYFRAMES + 1
            assert runs.newest_keyframe(after, last) == (newest if newest > after else None)
        assert runs.find(count + 1) is None


@peers
def test_large_frames_of_a_run_arrive(peer_class: Any, channel: Channel, start: Start) -> None:
    sent = [bytes([value]) * size for value, size in enumerate([100_000, 9_000, 40_000, 188, 300_000, 20_000, 500] * 5)]
    writer = start(peer("write", channel.name, CAPS, "variable", "lossless" if peer_class is rsshm.Reader else "burst"))
    writer.write(records(sent[:1]))
    with peer_class(channel.name, timeout=PATIENCE) as reader:
        frames = [reader.read()]
        if peer_class is rsshm.Reader:
            eventually("the quota", lambda: reader._at.allowance() > 1)
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
    delta = layout.DELTA_UNIT
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


@pytest.mark.parametrize(
    "frames, keyframes", [("kkkk", "SSSS"), ("kdddkddk", "S...S..S"), ("kkdkkkddkkk", "SS.S....S.."), ("dddkkd", "...S..")]
)
def test_keyframe_rule_is_that_of_the_crate(frames: str, keyframes: str) -> None:
    rule = KeyframeRule()
    assert "".join("S" if rule.is_keyframe(frame == "d") else "." for frame in frames) == keyframes


def test_stream_after_an_end_has_new_keyframes(channel: Channel) -> None:
    delta = layout.DELTA_UNIT
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


def test_each_frame_is_a_run_of_its_own(channel: Channel) -> None:
    """Other readers use the positions in the record of a slot, even if the writer appends no frames."""
    delta = layout.DELTA_UNIT
    flags = [0, delta, 0, 0, delta]
    with rsshm.Writer(channel.name, caps=CAPS) as writer:
        for flag in flags:
            writer.write(b"x", flags=flag)
        segment = writer._channel._current.segment
        assert segment.words[segment.run_head] == len(flags) and not segment.header.flags & layout.RUNS
        for run, is_key in enumerate([1, 0, 1, 0, 0], 1):
            slot = segment.ring[run] & 0xFF
            assert (segment.numbers[slot], segment.tails[slot], segment.keyframes[slot]) == (run, 1, is_key)


def test_history_counts_published_frames(channel: Channel) -> None:
    """A dropped frame takes a seq, but no run, so it does not shorten the history."""
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8", max_slots=12) as writer:
        picture = rsshm.caps.layout_of("GRAY8", 64, 48).planes[0].array(bytes(48 * 64))
        assert writer.write(picture) == 1
        for _ in range(20):
            writer._channel.pass_over()
        segment = writer._channel._current.segment
        for later in range(segment.header.history):
            assert writer.write(picture) == 22 + later
            assert 1 in segment.numbers.tolist()
        assert segment.words[segment.run_head] == 1 + segment.header.history


@pytest.mark.parametrize("word", [0, 2, 1 << 27 | 1, 12 << 24 | 2, (1 << 64) - 1])
def test_impossible_position_is_refused(word: int) -> None:
    assert position(word) is None


def damage(memory: Any, header: rsshm.Header, numbers: random.Random) -> None:
    """Overwrites a word that leads a reader to a frame of a run."""
    slot = numbers.randrange((len(memory) - header.slots_offset) // header.slot_size)
    record = header.descriptors_offset + slot * layout.DESCRIPTOR_STRIDE
    behind = header.slots_offset + slot * header.slot_size + numbers.randrange(0, 65536, 8)
    descriptor = record + layout.SlotRecord.words.offset
    at = numbers.choice(
        [
            header.status_offset + layout.Status.head.offset,
            header.status_offset + layout.Status.run_head.offset,
            header.ring_offset + 8 * numbers.randrange(8),
            record + layout.SlotRecord.seq.offset,
            *[record + layout.SlotRecord.tail.offset, record + layout.SlotRecord.keyframe.offset] * 3,
            descriptor + layout.FrameDescriptor.data_offset.offset,
            descriptor + layout.FrameDescriptor.size.offset,
            descriptor + layout.FrameDescriptor.metadata_size.offset,
            # A part of a RunRecord, or of the bytes of a frame.
            behind,
        ]
    )
    number = numbers.choice([0, 1, 2, 3, 100, 600, 5000, (1 << 24) - 1])
    size = header.slot_size
    offset = numbers.choice([0, 8, 12, numbers.randrange(0, size, 8), size - 64, size - 8, size, (1 << 40) - 8])
    value = numbers.choice([number, offset << 24 | number, offset, 1 << 63, (1 << 64) - 1, numbers.getrandbits(64)])
    memory[at : at + 8] = value.to_bytes(8, "little")


def test_damaged_runs_crash_no_reader(channel: Channel, start: Start) -> None:
    """Another process may write any value into the tail, the positions and the records of a run at any time."""
    stream(channel, start, 3000, f"keyframes={KEYFRAMES}", "metadata")
    numbers = random.Random(5)
    with channel.segment.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        header = rsshm.Header.from_buffer_copy(memory)
        whole = memory[header.status_offset :]
        frames, began, longest = 0, time.monotonic(), 0.0
        while time.monotonic() - began < 3 or frames <= 100:
            assert time.monotonic() - began < PATIENCE, f"only {frames} frames arrive"
            peer_class = numbers.choice([rsshm.Reader, rsshm.Observer])
            with peer_class(channel.name, timeout=0.005, latest=numbers.random() < 0.3) as reader:
                for _ in range(numbers.randrange(100)):
                    if numbers.random() < 0.1:
                        damage(memory, header, numbers)
                    before = time.monotonic()
                    try:
                        frame = reader.read()
                        frames += 1
                        assert frame.data.size <= header.slot_size
                        frame.data.sum()
                    except rsshm.Error:
                        pass
                    longest = max(longest, time.monotonic() - before)
            # The next readers find frames again.
            memory[header.status_offset :] = whole
        assert longest < 5
