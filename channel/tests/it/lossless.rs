// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lossless writer waits for its readers, so that even the slowest living reader misses no frame.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rsshm_channel::{Caps, Error, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions};
use rsshm_testkit::{
    Channel, eventually,
    role::{self, Role, listen, say},
};

use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, check, descriptor, is_in_place, lossless, next, next_within, open_reader,
    poll, publish,
};

pub const ROLES: &[(&str, Role)] = &[
    ("lossless/holding reader", |arguments| holding_reader(arguments[0])),
    ("lossless/reader of one", |arguments| reader_of_one(arguments[0])),
];

/// The number of frames that the writer of a test publishes.
const FRAMES: u64 = 500;

/// Takes three frames, says "holds three", and keeps the frames.
fn holding_reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut next = || next(&mut reader, &mut Vec::new());
    let first = next();
    say("attached");
    let held = [first, next(), next()];
    say("holds three");
    listen();
    drop(held);
}

/// Takes one frame, says "took one", and keeps the frame.
fn reader_of_one(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let _frame = next(&mut reader, &mut Vec::new());
    say("took one");
    listen();
}

/// Publishes as rsshmsink does: claims a slot, waits until all readers have followed to the slot's segment, and
/// publishes.
fn publish_lossless(writer: &Writer, value: u64, size: usize) {
    let mut slot = writer.claim(size).unwrap().expect("a lossless writer waits for a slot");
    assert!(writer.upstream().wait_for_followers());
    slot.as_mut().fill(value as u8);
    writer.publish(&slot, descriptor(size, value), &[]).unwrap();
}

/// The writer publishes 500 frames, with three different caps, to three readers: a slow one, a fast one, and one that
/// is killed.
#[test]
fn no_reader_misses_a_frame_of_lossless_writer() {
    for max_slots in [3, 6, 24] {
        let channel = Channel::new();
        let writer = channel.writer(lossless(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let mut victim = Some(role::start("lossless/holding reader", &[channel.as_str()]));
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers = [Duration::from_micros(700), Duration::ZERO].map(|pause| {
                let mut reader = channel.reader();
                let mut copy = Vec::new();
                let first = next(&mut reader, &mut copy);
                check(&first, &copy, 1);
                assert!(writer.wait_for_reader(SIZE, || true).unwrap());
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
            eventually("all are attached", || service.seen().reader_count == 3);
            // The service counts the victim as soon as it attaches, but the victim takes its first frame a little
            // later.
            victim.as_mut().unwrap().expect("attached");
            started.store(true, Ordering::Relaxed);
            for value in 2..=FRAMES {
                let (caps, size) = match value {
                    ..200 => (CAPS, SIZE),
                    200..350 => ("larger", 3 * SIZE),
                    350.. => ("smaller", 100),
                };
                writer.set_caps(Caps::fixed_size(caps, size)).unwrap();
                if value == 5
                    && let Some(mut victim) = victim.take()
                {
                    // The victim takes only three frames, so the writer waits for the victim until it is killed.
                    victim.expect("holds three");
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

/// Publishes the frames from `first` to `last`.
fn publish_up_to(writer: &Writer, first: u64, last: u64) {
    for value in first..=last {
        publish_lossless(writer, value, SIZE);
        assert!(writer.upstream().wait_for_slot());
    }
}

/// A stream of a lossless writer, after its slow reader has taken all frames. The fields are dropped in this order.
struct SlowStream {
    _service: Service,
    _reader: Reader,
    writer: Arc<Writer>,
    _channel: Channel,
}

/// Publishes the frames up to `last` for a reader that pauses after each of them. The reader takes no further frame.
fn publish_for_slow_reader(pause: Duration, last: u64) -> SlowStream {
    let channel = Channel::new();
    let writer = channel.writer(lossless(64));
    publish_up_to(&writer, 1, 1);
    let service = Service::of(&writer);
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    next(&mut reader, &mut copy);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 2..=last {
                next(&mut reader, &mut copy);
                std::thread::sleep(pause);
            }
        });
        publish_up_to(&writer, 2, last);
    });
    SlowStream {
        _service: service,
        _reader: reader,
        writer,
        _channel: channel,
    }
}

/// Repeats [`publish_for_slow_reader`] until the writer waits for the reader, and adds few slots. A reader that gets no
/// processor for a while looks like a reader that has stopped.
#[track_caller]
fn publish_with_few_slots(pause: Duration, last: u64) -> SlowStream {
    let mut found = None;
    eventually("few slots for a reader that is only slow", || {
        let stream = publish_for_slow_reader(pause, last);
        let slots = stream.writer.stats().slots;
        println!("{slots} slots");
        found = Some(stream);
        slots < 24
    });
    found.unwrap()
}

/// The writer waits for a slow reader that releases each frame within half a millisecond, because more slots would only
/// cost memory and cache misses. For a reader that has stopped taking frames, the writer adds slots, almost up to its
/// maximum.
#[test]
fn lossless_writer_adds_slots_for_stalled_readers_only() {
    let stream = publish_with_few_slots(Duration::from_micros(300), FRAMES);
    publish_up_to(&stream.writer, FRAMES + 1, FRAMES + 49);
    assert!(stream.writer.stats().slots > 48);
}

/// A reader takes a frame every 8 ms, which is longer than the writer's first waits. The writer learns this, because more
/// slots would not make the reader faster.
#[test]
fn lossless_writer_follows_pace_of_slow_reader() {
    publish_with_few_slots(Duration::from_millis(8), 120);
}

/// The writer waits for a reader that takes no frame. When the reader leaves, the wait ends at once.
#[test]
fn lossless_writer_waits_for_living_readers_only() {
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
        eventually("all slots are used", || writer.stats().published >= 3);
        std::thread::sleep(Duration::from_millis(300));
        let published = writer.stats().published;
        drop(reader);
        let left = Instant::now();
        publishing.join().unwrap();
        assert!(left.elapsed() < 2 * SECOND);
        published
    });
    assert!(published <= 5, "{published} of 4 slots");
}

/// The reader wakes the waiting writer. Without wakeups by the reader, the writer would look for a free slot only every
/// 10 ms.
#[test]
fn waiting_lossless_writer_is_woken_by_reader() {
    const FRAMES: u64 = 30;
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
                // The reader is slower than the writer, so the writer waits for a slot at least at every third frame.
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        began.elapsed()
    };
    // The test passes if one round is fast, because other programs may slow down some rounds. Without wakeups, each round
    // would need about 100 ms.
    eventually("a round with wakeups by the reader", || {
        let took = round();
        println!("{took:.1?}");
        took < Duration::from_millis(60)
    });
}

/// An interrupt ends the writer's wait. After `resume`, the writer publishes again.
#[test]
fn interrupt_ends_wait_of_lossless_writer() {
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
            assert!(called.elapsed() < 5 * SECOND, "{:?}", called.elapsed());
            assert!(!writer.upstream().wait_for_slot());
        });
        writer.resume();
        while let Next::Frame(frame) = poll(&mut reader, &mut copy) {
            check(&frame, &copy, frame.seq);
            assert_eq!(frame.missed, 0);
        }
    }
    assert!(value > 20, "{value}");
}

/// One reader pins three of eight slots and has a frame to take, upstream has two slots, and another reader attaches. The
/// writer needs two spare slots, and can have only one. It sleeps until the first reader has taken the frame, and both ways
/// to end its wait work.
#[test]
fn lossless_writer_sleeps_while_spare_slots_are_missing() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(8));
    let all: Vec<_> = (0..8).map(|_| writer.claim(SIZE).unwrap().expect("a slot")).collect();
    drop(all);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut held: Vec<_> = (1..=4)
        .map(|value| {
            assert!(publish(&writer, value));
            next_within(&mut reader, &mut copy, ReadLimits::default().max_held(8))
        })
        .collect();
    held.pop();
    assert!(held.iter().all(is_in_place));
    assert!(publish(&writer, 5));
    let _drawn = [(); 2].map(|()| writer.upstream().claim(SIZE).unwrap().expect("a slot"));
    let mut newcomer = channel.reader();
    next(&mut newcomer, &mut copy);
    // The thread is not joined, because it might never end.
    let claim = |longest: Duration| {
        let (sender, ended) = mpsc::channel();
        let writer = Arc::clone(&writer);
        std::thread::spawn(move || {
            let (began, questions) = (Instant::now(), Cell::new(0));
            let slot = writer.claim_while(SIZE, || {
                questions.set(questions.get() + 1);
                began.elapsed() < longest
            });
            let _ = sender.send((slot.unwrap().is_some(), questions.get()));
        });
        ended
    };
    let (found, questions) = claim(SECOND / 5).recv_timeout(5 * SECOND).expect("a bounded claim");
    assert!(!found && questions < 1000, "{found}, asked {questions} times");
    let interrupted = claim(3600 * SECOND);
    std::thread::sleep(Duration::from_millis(50));
    writer.interrupt();
    let (found, questions) = interrupted.recv_timeout(5 * SECOND).expect("an interrupted claim");
    assert!(!found && questions < 1000, "{found}, asked {questions} times");
    writer.resume();
    let waiting = claim(3600 * SECOND);
    check(&next(&mut reader, &mut copy), &copy, 5);
    let (found, _) = waiting.recv_timeout(5 * SECOND).expect("a claim after the reader");
    assert!(found);
}

/// The writer waits until a reader attaches. An interrupt also ends this wait.
#[test]
fn first_reader_ends_wait_for_reader() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let connected = writer.wait_for_reader(SIZE, || true).unwrap();
            (connected, Instant::now())
        });
        // A reader that comes before the segment might not attach within its time-out.
        eventually("there is a segment", || channel.exists());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        let mut reader = channel.reader();
        let came = Instant::now();
        let timeout = Some(Duration::from_millis(100));
        let nothing = reader.next(&mut Vec::new(), ReadLimits::default(), timeout).unwrap();
        assert!(matches!(nothing, Next::TimedOut), "{nothing:?}");
        let (connected, at) = waiting.join().unwrap();
        assert!(connected && at.duration_since(came) < 5 * SECOND);
    });
    // The only reader has left, so `wait_for_reader` waits again.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| writer.wait_for_reader(SIZE, || true).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        writer.interrupt();
        assert!(!waiting.join().unwrap());
    });
}

/// Another thread closes the writer during the wait. This is no reader.
#[test]
fn closed_writer_ends_wait_for_reader_with_an_error() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| writer.wait_for_reader(SIZE, || true));
        eventually("there is a segment", || channel.exists());
        writer.close();
        let result = waiting.join().unwrap();
        assert!(matches!(result, Err(Error::Closed { .. })), "{result:?}");
    });
}

/// A reader died in a superseded segment, and a reader of the new segment has taken the dead reader's entry. The writer
/// does not wait for the dead reader to follow.
#[test]
fn lossless_writer_ignores_new_owner_of_dead_followers_entry() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(12));
    let service = Service::of(&writer);
    assert!(publish(&writer, 1));
    let mut follower = channel.reader();
    let mut copy = Vec::new();
    check(&next(&mut follower, &mut copy), &copy, 1);
    // The victim stays in the first segment, because its process is stopped.
    let mut victim = role::start("lossless/reader of one", &[channel.as_str()]);
    victim.expect("took one");
    victim.stop();
    writer.set_caps(Caps::fixed_size("another", SIZE)).unwrap();
    let mut slot = writer.upstream().claim(SIZE).unwrap().unwrap();
    slot.as_mut().fill(2);
    victim.kill();
    drop(follower);
    // One of the two new readers gets the entry of the dead reader.
    let mut newcomers = [channel.reader(), channel.reader()];
    for newcomer in &mut newcomers {
        let limits = ReadLimits::default();
        let nothing = newcomer.next(&mut copy, limits, Some(Duration::from_millis(50)));
        assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
    }
    eventually("both are counted", || service.seen().reader_count == 2);
    let watch = Arc::clone(&writer);
    let watchdog = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        watch.interrupt();
    });
    assert!(
        writer.upstream().wait_for_followers(),
        "it waits for a reader that is gone"
    );
    writer.publish(&slot, descriptor(SIZE, 2), &[]).unwrap();
    for newcomer in &mut newcomers {
        assert_eq!(next(newcomer, &mut copy).seq, 2);
    }
    drop(watchdog);
}

#[test]
fn bounded_claim_ends_and_loses_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default().lossless(true).max_slots(3));
    publish(&writer, 1);
    let mut reader = channel.reader();
    let held = next(&mut reader, &mut Vec::new());
    while let Some(slot) = writer.claim_while(SIZE, || false).unwrap() {
        assert_eq!(
            writer.publish(&slot, descriptor(SIZE, 0), &[]).unwrap(),
            writer.stats().head
        );
    }
    let began = Instant::now();
    let late = || began.elapsed() < Duration::from_millis(50);
    assert!(writer.claim_while(SIZE, late).unwrap().is_none());
    assert!((50..5000).contains(&began.elapsed().as_millis()));
    assert_eq!(writer.stats().dropped, 0);
    drop((held, reader));
    assert!(writer.claim(SIZE).unwrap().is_some());
}
