//! How slots are shared out: the honest are never evicted, who takes more than was granted is, and is told.

mod common;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Channel, Service, check_bytes, is_in_place, next, next_in_place, peer::Peer, publish, slots, wait_until};
use rsshm_channel::{Next, ReadLimits, layout::reader_state};

const SECOND: Duration = Duration::from_secs(1);

/// Readers that hold all they may, come and go meanwhile, and check each frame when they give it back.
#[test]
fn honest_readers_hold_all_they_may_and_nobody_is_evicted() {
    for max_slots in [64, 24] {
        let channel = Arc::new(Channel::new());
        let writer = channel.writer(slots(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let stop = AtomicBool::new(false);
        let in_place = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for seq in 0..16 {
                let (channel, stop, in_place) = (&channel, &stop, &in_place);
                scope.spawn(move || {
                    let limits = ReadLimits {
                        max_behind: 0,
                        max_held: 8,
                    };
                    let mut held = VecDeque::new();
                    // Half of them come late, and all leave and come back with another appetite.
                    std::thread::sleep(Duration::from_millis(40 * (seq % 8)));
                    for appetite in [64, 2, 64] {
                        let mut reader = channel.reader();
                        let mut copy = Vec::new();
                        for _ in 0..60 {
                            match reader
                                .next(&mut copy, limits, Some(50 * Duration::from_millis(1)))
                                .unwrap()
                            {
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
                            while held.len() > appetite {
                                check_bytes(&held.pop_front().unwrap(), &[]);
                            }
                        }
                        // They stay in use for a while after their reader is gone.
                    }
                    for frame in held {
                        check_bytes(&frame, &[]);
                    }
                });
            }
            let began = Instant::now();
            for value in 2..600 {
                assert!(publish(&writer, value), "no slot for {value}");
                std::thread::sleep(Duration::from_millis(2));
                if began.elapsed() > 4 * SECOND {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(writer.stats().evicted, 0);
        assert_eq!(service.seen().evicted, []);
        if max_slots == 64 {
            assert!(in_place.load(Ordering::Relaxed) > 100, "{in_place:?}");
        }
    }
}

/// A reader that pins everything: gone within a second, told so, and back.
#[test]
fn who_pins_everything_is_evicted_and_told_and_comes_back() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let _held = next(&mut reader, &mut copy);
    // The reader's own seat, so that it looks as if it had taken all.
    let peer = Peer::open(&channel);
    peer.entry(0).pins.store(u64::MAX, Ordering::SeqCst);
    let took = wait_until("evicted", SECOND, || service.seen().evicted == [0]);
    assert!(took < SECOND);
    let reported = reader.next(&mut copy, ReadLimits::default(), Some(SECOND)).unwrap();
    assert!(matches!(reported, Next::Evicted), "{reported:?}");
    for value in 2..100 {
        assert!(publish(&writer, value), "its pins still count");
    }
    let frame = next(&mut reader, &mut copy);
    check_bytes(&frame, &copy);
    assert_eq!(frame.seq, 99);
    assert_eq!(peer.entry(1).state.load(Ordering::SeqCst), reader_state::ATTACHED);
    wait_until("it is a reader like any other again", SECOND, || {
        assert!(publish(&writer, 100));
        is_in_place(&next(&mut reader, &mut copy))
    });
    assert_eq!((writer.stats().evicted, service.seen().reader_count), (1, 1));
}

/// No more than anybody may ever be granted, but all there is: that its grant falls for it is no excuse.
#[test]
fn who_pins_all_of_a_few_slots_is_evicted() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next_in_place(&writer, &mut reader, &mut copy);
    let peer = Peer::open(&channel);
    peer.entry(0).pins.store(0xff, Ordering::SeqCst);
    wait_until("evicted", 2 * SECOND, || service.seen().evicted == [0]);
    for value in 2..100 {
        assert!(publish(&writer, value), "its pins still count");
    }
}

/// A process that writes what it likes into its seat takes nothing away from its siblings, whatever state it claims.
#[test]
fn a_rogue_seat_costs_its_siblings_nothing() {
    for state in [reader_state::ATTACHED, reader_state::LEFT, reader_state::NEW, 77] {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let rogue = Peer::open(&channel);
        let entry = rogue.sit_down();
        rogue.entry(entry).state.store(state, Ordering::SeqCst);
        rogue.entry(entry).pins.store(u64::MAX, Ordering::SeqCst);
        wait_until("evicted", SECOND, || service.seen().evicted == [0]);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let mut in_place = 0;
        for value in 2..40 {
            assert!(publish(&writer, value), "the rogue of state {state} holds all slots");
            let frame = next(&mut reader, &mut copy);
            check_bytes(&frame, &copy);
            in_place += u32::from(is_in_place(&frame));
        }
        // The first may be copied, before the writer has seen the newcomer.
        assert!(
            in_place >= 30,
            "{in_place} of 38 in place beside a rogue of state {state}"
        );
        assert_eq!(writer.stats().evicted, 1);
    }
}

/// What is not granted yet is copied, and slots that leave no room are not granted at all.
#[test]
fn without_room_frames_are_copied() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    for value in 2..50 {
        let frame = next(&mut reader, &mut copy);
        common::check(&frame, &copy, value - 1);
        assert!(!is_in_place(&frame));
        assert!(publish(&writer, value));
    }
}

/// `max_held` bounds what is held in place; the rest is copied, and nothing is missed.
#[test]
fn past_what_may_be_held_frames_are_copied() {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    wait_until("it is granted slots", SECOND, || {
        (Peer::open(&channel).quota(0) as u32) > 1
    });
    assert!(publish(&writer, 1));
    let mut held = Vec::new();
    for value in 2..30 {
        let limits = ReadLimits {
            max_behind: 0,
            max_held: 3,
        };
        let frame = common::next_within(&mut reader, &mut copy, limits);
        assert!(held.len() < 3 || !is_in_place(&frame), "with {} held", held.len());
        if held.len() < 3 && !is_in_place(&frame) {
            // What it is granted follows what it holds, as soon as the writer has looked.
            std::thread::sleep(Duration::from_millis(20));
        }
        common::check(&frame, &copy, value - 1);
        if is_in_place(&frame) {
            held.push(frame);
        }
        assert!(publish(&writer, value));
    }
    assert_eq!(held.len(), 3);
    for frame in &held {
        common::check_bytes(frame, &copy);
    }
    held.remove(1);
    let frame = next(&mut reader, &mut copy);
    assert!(is_in_place(&frame), "there is room again");
}

/// A frame that is asked for again is held twice, and stays until both are given back.
#[test]
fn a_frame_held_twice_stays_until_both_are_given_back() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let first = common::next_in_place(&writer, &mut reader, &mut copy);
    let newest = first.seq;
    // A head that goes back and comes again makes the reader give its place up and take the newest once more.
    let peer = Peer::open(&channel);
    peer.status().head.store(newest - 1, Ordering::SeqCst);
    let _ = common::poll(&mut reader, &mut copy);
    peer.status().head.store(newest, Ordering::SeqCst);
    let again = next(&mut reader, &mut copy);
    assert!(again.seq == newest && is_in_place(&again));
    assert_eq!(peer.entry(0).pins.load(Ordering::SeqCst).count_ones(), 1);
    drop(first);
    for value in 4..100 {
        assert!(publish(&writer, value));
    }
    common::check_bytes(&again, &copy);
    drop(again);
    assert_eq!(peer.entry(0).pins.load(Ordering::SeqCst), 0);
}
