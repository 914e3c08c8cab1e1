// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of compressed streams. A reader gets a frame only if it has already got all frames that are needed to decode
//! this frame. A reader that waits for a keyframe requests a keyframe.

mod joining;
mod load;
mod requests;
mod skipping;
pub mod streams;

use std::sync::{Arc, atomic::Ordering};

use rsshm_channel::{Caps, ReadLimits, Reader, Writer, WriterOptions};
use rsshm_testkit::Channel;

use crate::support::{ChannelExt, drain, publish_compressed, raw::RawPeer};

fn h264() -> Caps {
    Caps::variable_size("video/x-h264")
}

/// A writer of a compressed stream.
fn compressed(channel: &Channel, options: WriterOptions) -> Arc<Writer> {
    let writer = channel.writer(options);
    writer.set_caps(h264()).unwrap();
    writer
}

/// Publishes a list of frames: `k3 d4` is the keyframe 3 and the delta 4.
#[track_caller]
fn publish_all(writer: &Writer, frames: &str) {
    for frame in frames.split(' ') {
        let (kind, value) = frame.split_at(1);
        assert!(publish_compressed(writer, value.parse().unwrap(), kind == "d"));
    }
}

/// Publishes one delta for each value in `values`.
#[track_caller]
fn publish_deltas(writer: &Writer, values: std::ops::RangeInclusive<u64>) {
    for value in values {
        assert!(publish_compressed(writer, value, true));
    }
}

/// All items that the reader gets without waiting, under the default limits.
#[track_caller]
fn now(reader: &mut Reader) -> Vec<String> {
    drain(reader, ReadLimits::default())
}

/// Checks that each of the two readers gets the items `wanted` without waiting.
#[track_caller]
fn expect(readers: &mut [Reader; 2], wanted: &[&str]) {
    for reader in readers {
        assert_eq!(now(reader), wanted);
    }
}

/// A reader and an observer. Checks that each of them gets the frames `wanted` first.
#[track_caller]
fn join(channel: &Channel, wanted: &[&str]) -> [Reader; 2] {
    let mut readers = [channel.reader(), channel.observer()];
    expect(&mut readers, wanted);
    readers
}

/// How many keyframes the reader in the first reader entry has requested.
fn requests(channel: &Channel) -> u32 {
    RawPeer::open(channel).entry(0).keyframe_requests.load(Ordering::SeqCst)
}

/// Makes the frame `seq` unreadable.
fn lose(channel: &Channel, seq: u64) {
    let peer = RawPeer::open(channel);
    let slot = (0..peer.header.slot_count as usize)
        .map(|slot| &peer.slot(slot).seq)
        .find(|slot| slot.load(Ordering::SeqCst) == seq);
    slot.expect("a slot with this frame").store(0, Ordering::SeqCst);
}
