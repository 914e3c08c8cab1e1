//! A lossless writer: its slowest living reader misses nothing.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, Service, check,
    child::{self, Child, listen, say},
    lossless, next, publish,
};
use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer};

const FRAMES: u64 = 500;

#[test]
fn child() {
    child::play(&[("reads for a while", reads_for_a_while), ("takes one", takes_one)]);
}

fn reads_for_a_while(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let mut next = || next(&mut reader, &mut Vec::new());
    let first = next();
    say("is there");
    let held = [first, next(), next()];
    say("reads");
    listen();
    drop(held);
}

/// As rsshmsink does it: first all readers are in the segment that the frame goes to, then it has a slot.
fn publish_lossless(writer: &Writer, value: u64, size: usize) {
    let mut slot = writer.claim(size).unwrap().expect("it waits for one");
    assert!(writer.upstream().wait_for_followers());
    slot.as_mut().fill(value as u8);
    let descriptor = FrameDescriptor {
        size: size as u64,
        offset: value,
        ..FrameDescriptor::default()
    };
    writer.publish(&slot, descriptor, &[]).unwrap();
}

/// 500 frames, three formats, a slow reader, a fast one, and one that is killed: none is missed.
#[test]
fn nothing_is_missed() {
    for max_slots in [3, 6, 24] {
        let channel = Arc::new(Channel::new());
        let writer = channel.writer(lossless(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let mut victim = Some(Child::start("reads for a while", channel.as_str()));
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers = [Duration::from_micros(700), Duration::ZERO].map(|pause| {
                let mut reader = channel.reader();
                let mut copy = Vec::new();
                let first = next(&mut reader, &mut copy);
                check(&first, &copy, 1);
                assert!(writer.wait_for_reader(common::SIZE, || true).unwrap());
                let started = &started;
                scope.spawn(move || {
                    while !started.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    for value in 2..=FRAMES {
                        let frame = next(&mut reader, &mut copy);
                        check(&frame, &copy, value);
                        assert_eq!((frame.seq, frame.missed), (value, 0));
                        std::thread::sleep(pause);
                    }
                    assert_eq!(reader.stats().missed, 0);
                    reader.stats().reconnects
                })
            });
            common::wait_until("all are there", Duration::from_secs(5), || {
                service.seen().reader_count == 3
            });
            // It is counted from when it sits, and has its first frame a little later.
            victim.as_ref().unwrap().expect("is there");
            started.store(true, Ordering::Relaxed);
            for value in 2..=FRAMES {
                let (caps, size) = match value {
                    ..200 => (common::CAPS, common::SIZE),
                    200..350 => ("larger", 3 * common::SIZE),
                    350.. => ("smaller", 100),
                };
                writer.set_caps(Caps::fixed_size(caps, size));
                if value == 5
                    && let Some(mut victim) = victim.take()
                {
                    // It takes three and no more: without its death the writer would wait for ever.
                    victim.expect("reads");
                    scope.spawn(move || {
                        std::thread::sleep(Duration::from_millis(100));
                        victim.kill();
                    });
                }
                publish_lossless(&writer, value, size);
            }
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 2);
            }
        });
        assert_eq!(writer.stats().published, FRAMES);
    }
}

/// A reader that is slower than the writer, and gives each frame back within half a millisecond, is waited for: slots that it
/// does not need would only cost memory and cold caches. One that takes nothing is given slots first, for as long as there are any.
#[test]
fn slots_are_made_for_readers_that_are_held_up_not_for_those_that_are_slow() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(64));
    let publish = |value| {
        publish_lossless(&writer, value, common::SIZE);
        assert!(writer.upstream().wait_for_slot());
    };
    publish(1);
    let _service = Service::of(&writer);
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    next(&mut reader, &mut copy);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 2..=FRAMES {
                next(&mut reader, &mut copy);
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        (2..=FRAMES).for_each(publish);
    });
    let slots = writer.stats().slots;
    assert!(slots < 24, "{slots} for a reader that is merely slow");
    let began = Instant::now();
    (FRAMES + 1..FRAMES + 50).for_each(publish);
    assert!(writer.stats().slots > 48);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Nothing is published past a reader that takes nothing; its death, or its leaving, ends the wait at once.
#[test]
fn the_writer_waits_for_the_living_only() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let mut reader = channel.reader();
    next(&mut reader, &mut Vec::new());
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            for value in 2..100 {
                assert!(publish(&writer, value));
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let published = writer.stats().published;
        drop(reader);
        let left = Instant::now();
        publishing.join().unwrap();
        assert!(left.elapsed() < Duration::from_secs(2));
        published
    });
    assert!((3..=5).contains(&published), "{published} of 4 slots");
}

/// Whoever waits is woken, and does not find out by looking now and then (each 10 ms).
#[test]
fn a_waiting_writer_is_woken_by_its_reader() {
    const FRAMES: u64 = 300;
    let round = || {
        let channel = Channel::new();
        let writer = channel.writer(lossless(3));
        assert!(publish(&writer, 1));
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        next(&mut reader, &mut copy);
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=FRAMES).for_each(|value| assert!(publish(&writer, value))));
            for value in 2..=FRAMES {
                check(&next(&mut reader, &mut copy), &copy, value);
                // Slower than the writer, which so has to wait for one frame in three at least.
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        began.elapsed()
    };
    // The fastest of a few, as other programs run too.
    let fastest = (0..8).map(|_| round()).find(|took| *took < Duration::from_millis(600));
    assert!(fastest.is_some(), "as if nobody was woken");
}

/// Also one that is interrupted: it goes on when it is let.
#[test]
fn a_wait_ends_when_it_is_interrupted() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(3));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    next(&mut reader, &mut copy);
    let mut value = 1;
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let interrupter = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(15));
                let called = Instant::now();
                writer.interrupt();
                called
            });
            while publish(&writer, value + 1) {
                value += 1;
            }
            let called = interrupter.join().unwrap();
            assert!(called.elapsed() < Duration::from_secs(1), "{:?}", called.elapsed());
            assert!(!writer.upstream().wait_for_slot());
        });
        writer.resume();
        while let Next::Frame(frame) = common::poll(&mut reader, &mut copy) {
            check(&frame, &copy, frame.seq);
            assert_eq!(frame.missed, 0);
        }
    }
    assert!(value > 20, "{value}");
}

/// The first reader ends the wait for a connection, as an interruption does.
#[test]
fn the_wait_for_a_reader_ends_with_the_first() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let connected = writer.wait_for_reader(common::SIZE, || true).unwrap();
            (connected, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        let mut reader = channel.reader();
        let came = Instant::now();
        let timeout = Some(Duration::from_millis(100));
        let nothing = reader.next(&mut Vec::new(), ReadLimits::default(), timeout).unwrap();
        assert!(matches!(nothing, Next::TimedOut), "{nothing:?}");
        let (connected, at) = waiting.join().unwrap();
        assert!(connected && at.duration_since(came) < Duration::from_secs(1));
    });
    // The reader is gone again.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| writer.wait_for_reader(common::SIZE, || true).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        writer.interrupt();
        assert!(!waiting.join().unwrap());
    });
}

/// The seat of a reader that died in a superseded segment may be another's by now, who is in the new one: nobody waits
/// for it in the old.
#[test]
fn a_new_owner_of_a_dead_followers_seat_is_not_waited_for() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(12));
    let service = Service::of(&writer);
    assert!(publish(&writer, 1));
    let mut follower = channel.reader();
    let mut copy = Vec::new();
    check(&next(&mut follower, &mut copy), &copy, 1);
    // In the first segment, and stays there: its process stops.
    let mut victim = Child::start("takes one", channel.as_str());
    victim.expect("took one");
    victim.signal(nix::sys::signal::Signal::SIGSTOP);
    writer.set_caps(Caps::fixed_size("another", common::SIZE));
    let mut slot = writer.upstream().claim(common::SIZE).unwrap().unwrap();
    slot.as_mut().fill(2);
    victim.kill();
    drop(follower);
    // Two newcomers: one of them sits where the dead one sat.
    let mut newcomers = [channel.reader(), channel.reader()];
    for newcomer in &mut newcomers {
        let limits = ReadLimits::default();
        let nothing = newcomer.next(&mut copy, limits, Some(Duration::from_millis(50)));
        assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
    }
    common::wait_until("both are counted", Duration::from_secs(1), || {
        service.seen().reader_count == 2
    });
    let watch = Arc::clone(&writer);
    let watchdog = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        watch.interrupt();
    });
    assert!(writer.upstream().wait_for_followers(), "it waits for who is gone");
    writer
        .publish(
            &slot,
            FrameDescriptor {
                size: common::SIZE as u64,
                ..Default::default()
            },
            &[],
        )
        .unwrap();
    for newcomer in &mut newcomers {
        assert_eq!(next(newcomer, &mut copy).seq, 2);
    }
    drop(watchdog);
}

fn takes_one(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let _frame = next(&mut reader, &mut Vec::new());
    say("took one");
    listen();
}
