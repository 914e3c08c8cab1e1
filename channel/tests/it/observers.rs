// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of observers, which need only read permission.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::libc;
use rsshm_channel::{Next, Observer, ReadLimits};
use rsshm_testkit::{Channel, PATIENCE, eventually, frames::is_filled, on_this_machine};

use crate::support::{
    CAPS, ChannelExt, SIZE, Service, StopOnDrop, beside_full_speed, check, check_bytes, next, publish, raw, slots,
};

/// The number of frames that each reader of a fast writer takes at least.
const FRAMES: u32 = 21;

/// An observer's read-only descriptor can take read locks on bytes of the segment. These locks do not hinder other
/// peers, and do not make a dead peer look alive. (Observers cannot open the lock file, which `perms` tests.)
#[test]
fn read_locks_of_observer_change_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let file = File::open(channel.segment()).unwrap();
    assert!(raw::lock(&file, libc::F_RDLCK, 0, 4096));
    assert!(!raw::lock(&file, libc::F_RDLCK, 4096, 1), "the writer's byte");
    assert!(raw::lock(&file, libc::F_RDLCK, 4097, 0));

    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    assert!(!reader.is_observer());
    eventually("seen", || service.seen().reader_count == 1);
    drop(reader);
    eventually("gone", || service.seen().reader_count == 0);
    let mut reader = channel.reader();
    next(&mut reader, &mut copy);
    drop(service);
    // When the writer is gone, the descriptor can lock every byte of the segment.
    drop(writer);
    assert!(raw::lock(&file, libc::F_RDLCK, 0, 0));
    let lost = reader.next(&mut copy, ReadLimits::default(), Some(PATIENCE));
    assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 2));
    next(&mut reader, &mut copy);
}

#[test]
fn observer_is_woken_by_publish() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let mut observer = channel.observer();
    let mut copy = Vec::new();
    check(&next(&mut observer, &mut copy), &copy, 1);
    let mut fast = 0;
    for value in 2..=21 {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                check(&next(&mut observer, &mut copy), &copy, value);
                Instant::now()
            });
            std::thread::sleep(Duration::from_millis(10));
            let published = Instant::now();
            assert!(publish(&writer, value));
            let took = waiting.join().unwrap().saturating_duration_since(published);
            fast += u32::from(took < Duration::from_millis(100));
        });
    }
    assert!(fast >= 12, "{fast} of 20 at once");
}

/// The writer redraws its slots as fast as it can. The observer never gets a mixture of two frames.
#[test]
fn observer_gets_whole_frames_only() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    beside_full_speed(&writer, || {
        let (began, time) = (Instant::now(), on_this_machine(Duration::from_millis(700)));
        let (mut frames, mut last) = (0, 0);
        let mut observer = channel.observer();
        let mut copy = Vec::new();
        while began.elapsed() < time || frames < FRAMES {
            assert!(began.elapsed() < time + PATIENCE, "{frames} frames");
            let frame = next(&mut observer, &mut copy);
            check_bytes(&frame, &copy);
            assert_eq!(frame.seq, frame.descriptor.offset);
            assert!(frame.seq > last);
            last = frame.seq;
            frames += 1;
        }
        let once = Observer::open(&channel).unwrap().unwrap();
        for _ in 0..200 {
            if let Some((seq, descriptor)) = once.newest(&mut copy) {
                assert_eq!(seq, descriptor.offset);
                assert!(is_filled(&copy, seq as u8));
            }
        }
    });
}

/// The readers and the writer run at full speed. The readers get whole frames, in order.
#[test]
fn attached_readers_get_whole_frames_only() {
    let channel = Channel::new();
    let writer = channel.writer(slots(7));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    let counts = [0; 3].map(AtomicU32::new);
    std::thread::scope(|scope| {
        let readers = counts.each_ref().map(|count| {
            let (channel, stop) = (&channel, &stop);
            scope.spawn(move || {
                let (mut reader, mut copy, mut last) = (channel.reader(), Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let frame = next(&mut reader, &mut copy);
                    assert!(frame.seq > last);
                    last = frame.seq;
                    check_bytes(&frame, &copy);
                    std::thread::yield_now();
                    check_bytes(&frame, &copy);
                    // Relaxed: the count carries no other data.
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let stopping = StopOnDrop(&stop);
        let (began, time) = (Instant::now(), on_this_machine(Duration::from_millis(700)));
        let mut value = 1;
        let has_few = |count: &AtomicU32| count.load(Ordering::Relaxed) < FRAMES;
        while began.elapsed() < time || counts.iter().any(has_few) {
            assert!(began.elapsed() < time + PATIENCE, "{counts:?}");
            value += 1;
            assert!(publish(&writer, value));
        }
        drop(stopping);
        // A reader that loaded `stop` before this thread set it may still wait for another frame.
        while readers.iter().any(|reader| !reader.is_finished()) {
            value += 1;
            assert!(publish(&writer, value));
            std::thread::sleep(Duration::from_millis(1));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn observer_opened_once_shows_what_is_there() {
    let channel = Channel::new();
    assert!(Observer::open(&channel).unwrap().is_none());
    let writer = channel.writer(slots(5));
    assert!(Observer::open(&channel).unwrap().is_none());
    drop(writer.claim(SIZE).unwrap());
    let observer = Observer::open(&channel).unwrap().unwrap();
    assert!(observer.newest(&mut Vec::new()).is_none());
    assert_eq!((observer.head(), observer.caps()), (0, CAPS));
    assert_eq!(
        (observer.header().slot_count, observer.header().slot_size),
        (5, SIZE as u64)
    );
    assert!(publish(&writer, 1));
    assert!(observer.newest(&mut Vec::new()).is_some() && observer.is_current());
    drop(writer);
    assert!(!observer.is_current());
    assert!(
        observer.newest(&mut Vec::new()).is_some(),
        "the last frame can still be seen"
    );
}
