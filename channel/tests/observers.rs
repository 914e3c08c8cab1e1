//! Observers: read permission is all they have, and all they need.

mod common;

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{Channel, Service, check, next, peer, publish, slots, wait_until};
use nix::libc;
use rsshm_channel::{Next, Observer, ReadLimits};

/// Locks that a read-only descriptor can take, on every byte: nobody is kept out by them, or taken for alive. (The file
/// of the semaphore is not theirs to open: `perms` shows that.)
#[test]
fn read_locks_change_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let file = File::open(channel.segment()).unwrap();
    assert!(peer::lock(&file, libc::F_RDLCK, 0, 4096));
    assert!(!peer::lock(&file, libc::F_RDLCK, 4096, 1), "the writer's byte");
    assert!(peer::lock(&file, libc::F_RDLCK, 4097, 0));

    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    assert!(!reader.is_observer());
    wait_until("seen", Duration::from_secs(1), || service.seen().reader_count == 1);
    drop(reader);
    wait_until("gone", Duration::from_secs(1), || service.seen().reader_count == 0);
    let mut reader = channel.reader();
    next(&mut reader, &mut copy);
    drop(service);
    // The bytes of a dead writer's segment are free for them too.
    drop(writer);
    assert!(peer::lock(&file, libc::F_RDLCK, 0, 0));
    let lost = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(2)));
    assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 2));
    next(&mut reader, &mut copy);
}

/// An observer sleeps and is woken as everybody is.
#[test]
fn observers_are_woken() {
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

/// What an observer accepts is one whole frame, though the writer redraws its slots as fast as it can.
#[test]
fn observers_see_whole_frames_only() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                assert!(publish(&writer, value));
            }
        });
        let stopping = common::StopAtEnd(&stop);
        let end = Instant::now() + Duration::from_millis(700);
        let (mut frames, mut last) = (0, 0);
        let mut observer = channel.observer();
        let mut copy = Vec::new();
        while Instant::now() < end {
            let frame = next(&mut observer, &mut copy);
            common::check_bytes(&frame, &copy);
            assert_eq!(frame.seq, frame.descriptor.offset);
            assert!(frame.seq > last);
            last = frame.seq;
            frames += 1;
        }
        let once = Observer::open(&channel).unwrap().unwrap();
        for _ in 0..200 {
            if let Some((seq, descriptor)) = once.newest(&mut copy) {
                assert_eq!(seq, descriptor.offset);
                assert!(common::is_filled(&copy, seq as u8));
            }
        }
        drop(stopping);
        assert!(frames > 20, "{frames}");
    });
}

/// Readers of both kinds at full speed with the writer: whole frames, in order.
#[test]
fn attached_readers_see_whole_frames_only() {
    let channel = Channel::new();
    let writer = channel.writer(slots(7));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [0; 3].map(|_| {
            scope.spawn(|| {
                let (mut reader, mut copy, mut last) = (channel.reader(), Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let frame = next(&mut reader, &mut copy);
                    assert!(frame.seq > last);
                    last = frame.seq;
                    common::check_bytes(&frame, &copy);
                    std::thread::yield_now();
                    common::check_bytes(&frame, &copy);
                }
                reader.stats().received
            })
        });
        let stopping = common::StopAtEnd(&stop);
        let end = Instant::now() + Duration::from_millis(700);
        let mut value = 1;
        while Instant::now() < end {
            value += 1;
            assert!(publish(&writer, value));
        }
        drop(stopping);
        // Whoever has looked for the stop and waits now.
        while readers.iter().any(|reader| !reader.is_finished()) {
            value += 1;
            assert!(publish(&writer, value));
            std::thread::sleep(Duration::from_millis(1));
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 20);
        }
    });
}

#[test]
fn an_observer_that_looks_once_says_what_is_there() {
    let channel = Channel::new();
    assert!(Observer::open(&channel).unwrap().is_none());
    let writer = channel.writer(slots(5));
    assert!(Observer::open(&channel).unwrap().is_none());
    drop(writer.claim(common::SIZE).unwrap());
    let observer = Observer::open(&channel).unwrap().unwrap();
    assert!(observer.newest(&mut Vec::new()).is_none());
    assert_eq!((observer.head(), observer.caps()), (0, common::CAPS));
    assert_eq!(
        (observer.header().slot_count, observer.header().slot_size),
        (5, common::SIZE as u64)
    );
    assert!(publish(&writer, 1));
    assert!(observer.newest(&mut Vec::new()).is_some() && observer.is_current());
    drop(writer);
    assert!(!observer.is_current());
    assert!(
        observer.newest(&mut Vec::new()).is_some(),
        "what was there can still be seen"
    );
}
