// SPDX-License-Identifier: MIT OR Apache-2.0

//! The copy of a frame into a slot: the writer chooses it by the time since the last copy into this slot.

use std::{thread, time::Duration};

use rsshm_channel::{Caps, Copier, FrameDescriptor};
use rsshm_testkit::Channel;

use crate::support::{ChannelExt, next, slots};

/// The bytes of a frame of 1080p in NV12.
const SIZE: usize = 1920 * 1080 * 3 / 2;

/// With three slots and no pause, each slot is still in the caches when it is used again. The pauses are far from the
/// limit of 20 ms on both sides.
#[test]
fn pause_makes_copy_go_past_the_caches() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    writer.set_caps(Caps::fixed_size("large", SIZE)).unwrap();
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    // A part of a frame, because the copy of a whole one takes too long without optimisation.
    let part: Vec<u8> = (0..10_000_usize).map(|at| (at % 251) as u8).collect();
    let mut publish = || {
        let mut slot = writer.claim(SIZE).unwrap().unwrap();
        let copier = slot.copier();
        copier.copy(&part, slot.as_mut());
        writer.publish(&slot, FrameDescriptor::new(SIZE as u64), &[]).unwrap();
        let frame = next(&mut reader, &mut copy);
        assert!(frame.bytes(&copy)[..part.len()] == part, "{copier:?}");
        copier
    };
    let (fast, slow) = match cfg!(target_arch = "x86_64") {
        true => (Copier::Ordinary, Copier::Streaming),
        false => (Copier::Ordinary, Copier::Ordinary),
    };
    assert_eq!(publish(), slow, "the first copy into a slot");
    // Another program may delay this one, so one fast copy is enough.
    assert!((0..60).any(|_| publish() == fast));
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(60));
        assert_eq!(publish(), slow);
    }
}
