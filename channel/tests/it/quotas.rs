// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of quotas. A reader that keeps to its quota is never evicted. A reader that pins more slots than its quota
//! allows is evicted, and notices that it was evicted.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rsshm_channel::{Next, ReadLimits, layout::reader_state};
use rsshm_testkit::{Channel, emulation::is_emulated, eventually, on_this_machine};

use crate::support::{
    ChannelExt, SECOND, Service, check, check_bytes, is_in_place, next, next_in_place, next_within, poll, publish,
    raw::RawPeer, slots,
};

/// A reader that holds frames within its quota, leaves and attaches again. It checks each frame before it releases the
/// frame.
fn honest_reader(channel: &Channel, number: u64, stop: &AtomicBool, in_place: &AtomicU64) {
    let limits = ReadLimits::default().max_held(8);
    let mut held = VecDeque::new();
    // The readers attach at different times.
    std::thread::sleep(Duration::from_millis(40 * (number % 8)));
    for max_held in [64, 2, 64] {
        let mut reader = channel.reader();
        let mut copy = Vec::new();
        for _ in 0..60 {
            match reader.next(&mut copy, limits, Some(Duration::from_millis(50))).unwrap() {
                Next::Frame(frame) => {
                    check_bytes(&frame, &copy);
                    if is_in_place(&frame) {
                        in_place.fetch_add(1, Ordering::Relaxed);
                        held.push_back(frame);
                    }
                }
                Next::TimedOut if stop.load(Ordering::Relaxed) => break,
                Next::TimedOut => {}
                other => panic!("{other:?}"),
            }
            while held.len() > max_held {
                check_bytes(&held.pop_front().unwrap(), &[]);
            }
        }
        // The held frames stay in use for a while after the reader that took them is gone.
    }
    for frame in held {
        check_bytes(&frame, &[]);
    }
}

/// The readers hold as many frames as their quotas allow, leave, and attach again.
#[test]
fn readers_within_quota_are_never_evicted() {
    for max_slots in [64, 24] {
        let channel = Channel::new();
        let writer = channel.writer(slots(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let (stop, in_place) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (channel, stop, in_place) = (&channel, &stop, &in_place);
                scope.spawn(move || honest_reader(channel, number, stop, in_place));
            }
            let began = Instant::now();
            for value in 2..600 {
                assert!(publish(&writer, value), "no slot for {value}");
                std::thread::sleep(Duration::from_millis(2));
                if began.elapsed() > on_this_machine(4 * SECOND) {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(writer.stats().evicted, 0);
        assert!(service.seen().evicted.is_empty());
        if max_slots == 64 {
            let least = if is_emulated() { 10 } else { 100 };
            assert!(in_place.load(Ordering::Relaxed) > least, "{in_place:?}");
        }
    }
}

/// The reader pins all slots. It is evicted within a second, notices the eviction, and attaches again.
#[test]
fn reader_pinning_everything_is_evicted_and_reattaches() {
    // Other programs can delay the service too, so the test repeats this.
    eventually("a reader is evicted within a second", || {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let _held = next(&mut reader, &mut copy);
        // Write into the reader's entry, as if the reader had pinned all slots.
        let peer = RawPeer::open(&channel);
        peer.entry(0).pins.store(u64::MAX, Ordering::SeqCst);
        let took = eventually("evicted", || service.seen().evicted == [0]);
        let evicted = reader.next(&mut copy, ReadLimits::default(), Some(SECOND)).unwrap();
        assert!(matches!(evicted, Next::Evicted), "{evicted:?}");
        for value in 2..100 {
            assert!(publish(&writer, value), "the pins of the evicted reader still count");
        }
        let frame = next(&mut reader, &mut copy);
        check_bytes(&frame, &copy);
        assert_eq!(frame.seq, 99);
        assert_eq!(peer.entry(1).state.load(Ordering::SeqCst), reader_state::ATTACHED);
        eventually("it gets frames in place again", || {
            assert!(publish(&writer, 100));
            is_in_place(&next(&mut reader, &mut copy))
        });
        // A reader needs no pass of the service for its frames.
        eventually("the service counts it", || service.seen().reader_count == 1);
        assert_eq!(writer.stats().evicted, 1);
        took < on_this_machine(SECOND)
    });
}

/// The reader pins all eight slots. The largest quota is 4, and the segment cannot grow beyond the pinned slots, so the
/// writer has only its spare slots until it evicts the reader.
#[test]
fn reader_pinning_all_of_few_slots_is_evicted() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next_in_place(&writer, &mut reader, &mut copy);
    let peer = RawPeer::open(&channel);
    peer.entry(0).pins.store(0xff, Ordering::SeqCst);
    eventually("evicted", || service.seen().evicted == [0]);
    for value in 2..100 {
        assert!(publish(&writer, value), "the pins of the evicted reader still count");
    }
}

/// A process writes garbage into its reader entry. Whatever state this entry has, another reader still gets frames in
/// place.
#[test]
fn rogue_reader_entry_costs_other_readers_nothing() {
    for state in [reader_state::ATTACHED, reader_state::LEFT, reader_state::NEW, 77] {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let rogue = RawPeer::open(&channel);
        let entry = rogue.attach();
        rogue.entry(entry).state.store(state, Ordering::SeqCst);
        rogue.entry(entry).pins.store(u64::MAX, Ordering::SeqCst);
        eventually("evicted", || service.seen().evicted == [0]);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        // The first frames may be copies while the service commits slots.
        next_in_place(&writer, &mut reader, &mut copy);
        let mut in_place = 0;
        for value in 2..40 {
            assert!(publish(&writer, value), "the rogue of state {state} holds all slots");
            let frame = next(&mut reader, &mut copy);
            check_bytes(&frame, &copy);
            in_place += u32::from(is_in_place(&frame));
        }
        assert!(
            in_place >= 30,
            "{in_place} of 38 in place beside a rogue of state {state}"
        );
        assert_eq!(writer.stats().evicted, 1);
    }
}

/// The channel has three slots. No reader can pin a slot, because the writer needs all three.
#[test]
fn frames_are_copied_where_quota_leaves_no_slot() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    for value in 2..50 {
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value - 1);
        assert!(!is_in_place(&frame));
        assert!(publish(&writer, value));
    }
}

/// `max_held` bounds the number of frames held in place. The reader copies the other frames and misses no frame.
#[test]
fn frames_beyond_max_held_are_copied() {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    // A frame may be a copy while the service commits slots.
    next_in_place(&writer, &mut reader, &mut copy);
    assert!(publish(&writer, 1));
    let mut held = Vec::new();
    for value in 2..30 {
        let frame = next_within(&mut reader, &mut copy, ReadLimits::default().max_held(3));
        assert!(held.len() < 3 || !is_in_place(&frame), "with {} held", held.len());
        check(&frame, &copy, value - 1);
        if is_in_place(&frame) {
            held.push(frame);
        }
        assert!(publish(&writer, value));
    }
    assert_eq!(held.len(), 3);
    for frame in &held {
        check_bytes(frame, &copy);
    }
    held.remove(1);
    let frame = next(&mut reader, &mut copy);
    assert!(is_in_place(&frame), "it may hold another one");
}

/// If a reader reads a frame again while it holds that frame, it holds the frame twice.
#[test]
fn frame_held_twice_stays_until_both_are_released() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let first = next_in_place(&writer, &mut reader, &mut copy);
    let newest = first.seq;
    // If the head decreases and then gets its old value again, the reader forgets its cursor and reads the newest frame
    // again.
    let peer = RawPeer::open(&channel);
    peer.status().head.store(newest - 1, Ordering::SeqCst);
    let _ = poll(&mut reader, &mut copy);
    peer.status().head.store(newest, Ordering::SeqCst);
    let again = next(&mut reader, &mut copy);
    assert!(again.seq == newest && is_in_place(&again));
    assert_eq!(peer.entry(0).pins.load(Ordering::SeqCst).count_ones(), 1);
    drop(first);
    for value in 4..100 {
        assert!(publish(&writer, value));
    }
    check_bytes(&again, &copy);
    drop(again);
    assert_eq!(peer.entry(0).pins.load(Ordering::SeqCst), 0);
}
