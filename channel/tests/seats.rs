//! Readers that are processes of their own: killed, stopped, forked.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::time::Duration;

use common::{
    Channel, Service,
    child::{self, Child, listen, say},
    is_in_place, next, publish, slots, wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{ForkResult, Pid, fork},
};
use rsshm_channel::{ChannelName, Frame, Reader, ReaderOptions};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn child() {
    child::play(&[
        ("holds", holds),
        ("forks", forks),
        ("sits down again and again", sits_down),
    ]);
}

fn attach(channel: &str) -> Reader {
    Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default())
}

/// Takes frames and keeps them; checks them each time it is told to.
fn holds(channel: &str) {
    let mut reader = attach(channel);
    let mut copy = Vec::new();
    let mut held: Vec<Frame> = Vec::new();
    while held.len() < 3 {
        let frame = next(&mut reader, &mut copy);
        if is_in_place(&frame) {
            held.push(frame);
        }
        say("has one");
    }
    say("holds");
    loop {
        listen();
        for frame in &held {
            common::check_bytes(frame, &[]);
        }
        say("unchanged");
    }
}

/// Holds a frame, and has a child of its own that does nothing, for ever.
fn forks(channel: &str) {
    let mut reader = attach(channel);
    let frame = next(&mut reader, &mut Vec::new());
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        ForkResult::Parent { child } => say(child),
    }
    listen();
    drop(frame);
}

fn sits_down(channel: &str) {
    loop {
        let mut reader = attach(channel);
        let held = next(&mut reader, &mut Vec::new());
        let held = (held, next(&mut reader, &mut Vec::new()));
        // A newcomer that is not granted pins yet has a copy, which is gone.
        if common::is_in_place(&held.0) {
            common::check_bytes(&held.0, &[]);
        }
    }
}

/// Starts a reader and gives it frames until it holds three in place.
fn start_holder(channel: &Channel, writer: &rsshm_channel::Writer) -> Child {
    let holder = Child::start("holds", channel.as_str());
    let mut value = 1;
    while holder.receive() != "holds" {
        value += 1;
        assert!(publish(writer, value));
    }
    holder
}

#[test]
fn a_killed_reader_is_gone_within_a_second_and_its_slots_are_free() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut holder = start_holder(&channel, &writer);
    assert_eq!(service.seen().connected, [0]);
    for value in 10..50 {
        assert!(publish(&writer, value));
    }
    holder.tell("check");
    holder.expect("unchanged");
    holder.signal(Signal::SIGKILL);
    let took = wait_until("gone", SECOND, || service.seen().disconnected == [0]);
    assert!(took < SECOND);
    assert_eq!(service.seen().reader_count, 0);
    // All slots but the two that are kept for readers can be had.
    let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(common::SIZE).unwrap()).collect();
    assert_eq!(claimed.len(), 6);
    assert_eq!(writer.stats().evicted, 0);
}

#[test]
fn a_killed_reader_is_found_without_the_service() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let mut holder = {
        let _service = Service::of(&writer);
        start_holder(&channel, &writer)
    };
    holder.kill();
    let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(common::SIZE).unwrap()).collect();
    assert_eq!(claimed.len(), 6);
}

#[test]
fn a_stopped_reader_neither_stops_the_writer_nor_loses_its_frames() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut holder = start_holder(&channel, &writer);
    holder.signal(Signal::SIGSTOP);
    for value in 0..250 {
        assert!(publish(&writer, value), "no slot for {value}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(service.seen().reader_count, 1);
    assert_eq!((service.seen().disconnected, service.seen().evicted), (vec![], vec![]));
    holder.signal(Signal::SIGCONT);
    holder.tell("check");
    holder.expect("unchanged");
}

#[test]
fn a_forked_child_does_not_keep_a_dead_readers_seat() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut reader = Child::start("forks", channel.as_str());
    let grandchild = Pid::from_raw(reader.receive().parse().unwrap());
    wait_until("attached", SECOND, || service.seen().reader_count == 1);
    reader.kill();
    let lives = kill(grandchild, None).is_ok();
    wait_until("gone", SECOND, || service.seen().reader_count == 0);
    kill(grandchild, Signal::SIGKILL).unwrap();
    assert!(lives);
}

/// Seats change hands while the writer runs as fast as it can; each reader is killed at a random moment.
#[test]
fn seats_change_hands_at_full_speed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut value = 1;
    for round in 0..12 {
        let mut readers = [
            Child::start("sits down again and again", channel.as_str()),
            Child::start("sits down again and again", channel.as_str()),
        ];
        let until = std::time::Instant::now() + Duration::from_millis(60 + 7 * round);
        while std::time::Instant::now() < until {
            value += 1;
            assert!(publish(&writer, value));
        }
        readers.iter_mut().for_each(Child::kill);
    }
    wait_until("all are gone", SECOND, || service.seen().reader_count == 0);
    let seen = service.seen();
    assert_eq!(seen.connected.len(), seen.disconnected.len());
    assert_eq!(seen.evicted, []);
}

/// One reader dies and another sits down in its seat, in a new segment, before the writer has looked: it is told of both.
#[test]
fn a_seat_that_changes_hands_with_the_segment_is_noticed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let mut first = {
        let _service = Service::of(&writer);
        start_holder(&channel, &writer)
    };
    assert_eq!(writer.service().unwrap().reader_count, 1);
    first.kill();
    writer.set_caps(rsshm_channel::Caps::fixed_size("new", common::SIZE));
    assert!(publish(&writer, 2));
    let mut second = channel.reader();
    next(&mut second, &mut Vec::new());
    let seen = writer.service().unwrap();
    assert_eq!(
        (seen.connected, seen.disconnected, seen.reader_count),
        (vec![0], vec![0], 1)
    );
}

/// All 64 seats are taken: the next reader observes, and gets a seat of its own when it asks again.
#[test]
fn the_sixty_fifth_reader_observes() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut copy = Vec::new();
    let mut readers: Vec<Reader> = (0..64).map(|_| channel.reader()).collect();
    for reader in &mut readers {
        next(reader, &mut copy);
        assert!(!reader.is_observer());
    }
    let mut last = channel.reader();
    let frame = next(&mut last, &mut copy);
    common::check(&frame, &copy, 1);
    assert!(last.is_observer() && last.observer_reason().unwrap().contains("64"));
    wait_until("64 are counted", SECOND, || service.seen().reader_count == 64);
    assert!(publish(&writer, 2));
    common::check(&next(&mut last, &mut copy), &copy, 2);
}
