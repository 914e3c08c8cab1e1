// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers that miss frames, or skip them, go on with a keyframe.

use rsshm_channel::Caps;
use rsshm_testkit::Channel;

use super::{compressed, expect, join, lose, now, publish_all, publish_deltas, requests};
use crate::support::{ChannelExt, behind, drain, next, publish, publish_event, publish_sized, raw::RawPeer, slots};

#[test]
fn reader_that_missed_frames_resumes_at_newest_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    publish_deltas(&writer, 2..=20);
    publish_all(&writer, "k21 d22 k23 d24 d25");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (23, 21));
        assert_eq!(now(reader), ["24", "25"]);
        assert_eq!(reader.stats().missed, 21);
    }
    assert_eq!(requests(&channel), 0);
}

#[test]
fn reader_that_missed_one_frame_requests_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    // When one frame is missing, the reader requests a keyframe.
    publish_all(&writer, "d3 d4");
    lose(&channel, 3);
    expect(&mut readers, &[]);
    assert_eq!(requests(&channel), 1);
    publish_all(&writer, "d5 k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed, first.discontinuity), (6, 3, true));
        assert_eq!(now(reader), ["7"]);
        assert_eq!(reader.stats().missed, 3);
    }
    assert_eq!(requests(&channel), 1);
}

#[test]
fn reader_of_raw_stream_resumes_at_oldest_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let mut readers = join(&channel, &["1"]);
    for value in 2..=20 {
        assert!(publish(&writer, value));
    }
    let present = RawPeer::open(&channel).seqs();
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (present[0], present[0] - 2));
        let rest: Vec<_> = present[1..].iter().map(u64::to_string).collect();
        assert_eq!(now(reader), rest);
    }
    // A new reader begins with the newest frame.
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), ["20"]);
    }
    assert!(!writer.service().unwrap().keyframe_wanted);
}

#[test]
fn max_behind_skips_to_keyframe_or_waits() {
    for (max_behind, published, wanted) in [
        (1, "d2", &["2"][..]),
        (1, "d2 d3", &[]),
        (1, "d2 k3", &["3"]),
        (1, "d2 k3 d4", &[]),
        (3, "d2 d3 d4", &["2", "3", "4"]),
        (3, "d2 d3 d4 d5", &[]),
        (3, "d2 k3 d4 d5", &["3", "4", "5"]),
        (3, "d2 k3 d4 d5 d6", &[]),
        (3, "d2 d3 k4 d5 k6", &["4", "5", "6"]),
        (4, "d2 d3 d4 k5 d6", &["5", "6"]),
    ] {
        let channel = Channel::new();
        let writer = compressed(&channel, slots(24));
        publish_all(&writer, "k1");
        let mut readers = [channel.reader(), channel.observer()];
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published);
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), wanted, "{max_behind} of {published}");
        }
        assert_eq!(
            requests(&channel),
            u32::from(wanted.is_empty()),
            "{max_behind} of {published}"
        );
        publish_all(&writer, "k10");
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["10"]);
        }
        publish_all(&writer, "d11");
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["11"]);
            assert_eq!(
                reader.stats().missed + reader.stats().received,
                1 + published.split(' ').count() as u64 + 2
            );
        }
    }
}

/// Events between frames do not change which frames the reader skips. If a keyframe follows an event, the reader finds
/// this keyframe and does not request another.
#[test]
fn events_do_not_change_which_frames_are_skipped() {
    for (max_behind, lost, published, wanted, requested) in [
        (3, None, ["d2 k3 d4", "d5 d6"], &["event"][..], 1),
        (3, None, ["d2 k3", "d4 d5"], &["3", "event", "4", "5"], 0),
        (0, Some(2), ["d2 d3", "k4 d5"], &["event", "4", "5"], 0),
        (0, Some(2), ["d2 d3", "d4 d5"], &["event"], 1),
        (0, Some(2), ["d2 k3", "k4 d5"], &["3", "event", "4", "5"], 0),
    ] {
        let channel = Channel::new();
        let writer = compressed(&channel, slots(24));
        publish_all(&writer, "k1");
        let mut readers = [channel.reader(), channel.observer()];
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published[0]);
        publish_event(&writer, "event", None);
        publish_all(&writer, published[1]);
        if let Some(seq) = lost {
            lose(&channel, seq);
        }
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), wanted, "{published:?}");
        }
        assert_eq!(requests(&channel), requested, "{published:?}");
    }
}

#[test]
fn seek_newest_goes_to_newest_unread_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    publish_all(&writer, "d2 k3 d4 k5 d6");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(now(reader), ["5", "6"]);
    }
    // The reader does not go back to a keyframe that it has already taken.
    publish_all(&writer, "d7");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(now(reader), [""; 0]);
    }
    publish_all(&writer, "d8 k9");
    for reader in &mut readers {
        assert_eq!(now(reader), ["9"]);
        assert_eq!(reader.stats().missed, 0);
    }
}

/// The writer had no slot for a frame. The reader does not get the deltas that depend on this frame, although it could
/// read all published frames.
#[test]
fn deltas_of_dropped_frame_wait_for_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.record_drop();
    publish_event(&writer, "event", None);
    for reader in &mut readers {
        assert_eq!(now(reader), ["event"], "an event needs no frame");
    }
    publish_all(&writer, "d4 d5");
    expect(&mut readers, &[]);
    publish_all(&writer, "k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (6, 3));
        assert_eq!(now(reader), ["7"]);
    }
    // Frames that were dropped before a change of segment also count as missed.
    writer.record_drop();
    writer.record_drop();
    writer.set_caps(Caps::fixed_size("raw", 100)).unwrap();
    assert!(publish_sized(&writer, 10, 100));
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (10, 2));
    }
}
