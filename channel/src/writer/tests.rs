// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the steps of a claim that no other process can time: a reader comes between two of them.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{Writer, options::Caps, quota, slots::SlotAllocator};
use crate::{ChannelName, FrameDescriptor, WriterOptions, protocol::layout::reader_state};

const SIZE: usize = 4096;

/// A writer whose segment has memory for all of its eight slots.
fn writer() -> Writer {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: the numbers only have to differ.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = ChannelName::new(format!("rsshm-unit-{}-{number}", std::process::id())).unwrap();
    let writer = Writer::open(name, WriterOptions::default().max_slots(8)).unwrap();
    writer.set_caps(Caps::fixed_size("frames", SIZE)).unwrap();
    let all: Vec<_> = (0..8).map(|_| writer.claim(SIZE).unwrap().unwrap()).collect();
    drop(all);
    writer
}

fn with_slots<T>(writer: &Writer, change: impl FnOnce(&mut SlotAllocator) -> T) -> T {
    change(writer.inner.lock().chain.current_mut().unwrap())
}

/// Fills in reader entries as readers do that attach.
fn attach(slots: &SlotAllocator, entries: usize) {
    let segment = Arc::clone(slots.segment());
    for entry in 0..entries {
        let shared = segment.tables().entry(entry);
        shared.begin(&AtomicU32::new(0));
        shared.announce(&segment.tables().status().joins);
        shared.set_state(reader_state::ATTACHED);
    }
}

#[test]
fn readers_that_come_while_the_quota_is_set_are_promised_slots() {
    let writer = writer();
    with_slots(&writer, |slots| {
        assert_eq!((slots.quota(), slots.spare_needed()), (4, 0));
        attach(slots, 2);
        slots.update_quota(&quota::NO_USAGE);
        slots.pinned();
        assert_eq!(slots.spare_needed(), 2, "two readers may pin all slots");
    });
}

#[test]
fn evicted_reader_does_not_hide_next_owner_of_its_entry() {
    let writer = writer();
    let mut state = writer.inner.lock();
    let state = &mut *state;
    let slots = state.chain.current_mut().unwrap();
    attach(slots, 1);
    let generation = slots.segment().tables().entry(0).owner().1;
    state.readers.update(
        |entry, _| (entry == 0).then_some(generation),
        &mut crate::ServiceReport::default(),
    );
    slots.evict(0, generation);
    state.readers.update_quota(slots);
    slots.pinned();
    attach(slots, 1);
    assert_ne!(slots.segment().tables().entry(0).owner().1, generation);
    let usage = state.readers.usage(slots);
    assert_eq!(quota::promised(&usage, 4), 4, "the new owner may pin four slots");
}

#[test]
fn pace_is_the_same_at_each_question() {
    let writer = writer();
    // Other programs may slow down some rounds.
    let is_fast = (0..100).any(|_| {
        for _ in 0..50 {
            let slot = writer.claim(SIZE).unwrap().unwrap();
            writer.publish(&slot, FrameDescriptor::new(1), &[]).unwrap();
        }
        with_slots(&writer, |slots| {
            let is_slow = slots.is_slow_stream();
            assert_eq!(slots.is_slow_stream(), is_slow);
            !is_slow
        })
    });
    assert!(is_fast);
}
