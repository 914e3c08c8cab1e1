// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers that join a compressed stream: where they begin.

use std::time::Duration;

use rsshm_channel::{CopyTarget, FrameDescriptor, Next, ReadLimits, Writer, layout::DELTA_UNIT};
use rsshm_testkit::Channel;

use super::{compressed, expect, join, now, publish_all, publish_deltas, requests};
use crate::support::{
    COMPRESSED_SIZE, ChannelExt, Service, behind, drain, lossless, next, next_in_place, publish_sized, raw::RawPeer,
    slots,
};

#[test]
fn joining_reader_begins_at_newest_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2 k3 d4 d5");
    let mut readers = join(&channel, &["3", "4", "5"]);
    publish_all(&writer, "d6 k7 d8");
    for reader in &mut readers {
        assert_eq!(now(reader), ["6", "7", "8"]);
        assert_eq!(reader.stats().missed, 0);
    }
    assert_eq!(requests(&channel), 0);
}

#[test]
fn joining_reader_without_keyframe_requests_one() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=20);
    let mut readers = join(&channel, &[]);
    assert_eq!(requests(&channel), 1);
    assert!(writer.service().unwrap().keyframe_wanted);
    publish_all(&writer, "d21 d22");
    expect(&mut readers, &[]);
    publish_all(&writer, "k23 d24");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed, first.discontinuity), (23, 0, true));
        assert_eq!(now(reader), ["24"]);
        assert_eq!((reader.stats().missed, reader.stats().received), (0, 2));
    }
}

/// The keyframe is still readable, because another reader holds it, but the deltas after it are gone. A new reader does
/// not begin with this keyframe.
#[test]
fn keyframe_without_its_deltas_is_not_used() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(8));
    let service = Service::of(&writer);
    let mut holder = channel.reader();
    let held = next_in_place(&writer, &mut holder, &mut Vec::new());
    drop(service);
    publish_deltas(&writer, 2..=20);
    assert!(RawPeer::open(&channel).seqs().contains(&held.seq));
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), [""; 0]);
        publish_all(&writer, "k21 d22");
        assert_eq!(now(&mut reader), ["21", "22"]);
        assert_eq!(reader.stats().missed, 0);
        publish_deltas(&writer, 2..=20);
    }
}

#[test]
fn joining_reader_begins_within_max_behind() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(24));
    publish_all(&writer, "k1 d2 d3");
    for (max_behind, wanted) in [(1, &[][..]), (2, &[]), (3, &["1", "2", "3"]), (9, &["1", "2", "3"])] {
        for mut reader in [channel.reader(), channel.observer()] {
            assert_eq!(drain(&mut reader, behind(max_behind)), wanted, "{max_behind}");
        }
    }
}

/// Compressed frames are small, so the writer keeps more of them for new readers. A keyframe is then among the kept
/// frames.
#[test]
fn history_is_longer_for_small_compressed_frames() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(64));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=33);
    assert_eq!(RawPeer::open(&channel).header.history, 16);
    for mut reader in [channel.reader(), channel.observer()] {
        let wanted: Vec<_> = (1..=33).map(|value: u64| value.to_string()).collect();
        assert_eq!(now(&mut reader), wanted);
    }
    // This frame has 4 MiB. The new slots have twice this size, so the history is short again.
    assert!(publish_sized(&writer, 34, 4 << 20));
    assert_eq!(RawPeer::open(&channel).header.history, 4);
}

/// A copy target. While the reader copies a frame into it, it publishes frames until the writer finds no slot.
struct PublishingTarget<'a> {
    writer: &'a Writer,
    frames: u32,
    bytes: Vec<u8>,
}

impl CopyTarget for PublishingTarget<'_> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        for _ in 0..std::mem::take(&mut self.frames) {
            let Some(slot) = self.writer.upstream().claim(COMPRESSED_SIZE).unwrap() else {
                break;
            };
            let descriptor = FrameDescriptor::new(COMPRESSED_SIZE as u64).with_flags(DELTA_UNIT);
            self.writer.publish(&slot, descriptor, &[]).unwrap();
        }
        self.bytes.resize(size, 0);
        Some(&mut self.bytes)
    }
}

/// A reader joins, and begins with a keyframe that is older than the newest frame. The writer keeps all later frames
/// until this reader has taken them.
#[test]
fn reader_joining_lossless_compressed_stream_misses_nothing() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=8);
    publish_all(&writer, "k9 d10 d11");
    let mut reader = channel.reader();
    let mut target = PublishingTarget {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let first = reader.next(&mut target, ReadLimits::default(), Some(Duration::ZERO));
    assert!(matches!(&first, Ok(Next::Frame(frame)) if frame.seq == 9), "{first:?}");
    let mut seqs = 9..;
    seqs.next();
    while let Next::Frame(frame) = reader
        .next(&mut target, ReadLimits::default(), Some(Duration::ZERO))
        .unwrap()
    {
        assert_eq!(Some(frame.seq), seqs.next());
    }
    assert_eq!(reader.stats().missed, 0);
    assert!(reader.stats().received > 4, "some frames were published meanwhile");
}

/// The old keyframe is readable, but the writer need not keep old frames for a reader that has taken no frame yet. The
/// reader waits for the next keyframe.
#[test]
fn reader_joining_lossless_stream_skips_unprotected_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_deltas(&writer, 1..=8);
    publish_all(&writer, "k9 d10 d11 d12 d13");
    let peer = RawPeer::open(&channel);
    assert!(peer.header.history == 4 && peer.seqs().contains(&9));
    let mut target = PublishingTarget {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let mut reader = channel.reader();
    // All frames are copied, so that the target can publish further ones meanwhile.
    let limits = ReadLimits::default().max_held(0);
    let mut next = || reader.next(&mut target, limits, Some(Duration::ZERO)).unwrap();
    assert!(matches!(next(), Next::TimedOut));
    publish_all(&writer, "k14");
    let mut received = 0;
    while let Next::Frame(frame) = next() {
        assert_eq!((frame.seq, frame.missed), (14 + received, 0));
        received += 1;
    }
    assert!(received > 2, "some frames were published meanwhile");
}
