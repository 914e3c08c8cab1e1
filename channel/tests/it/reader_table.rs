// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the reader entries of processes that are killed, are stopped, or fork.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rsshm_channel::{Caps, Frame, Reader, ReaderOptions, Writer};
use rsshm_testkit::{
    Channel, Process, eventually, need_real_machine, on_this_machine,
    process::fork_sleeper,
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, SECOND, SIZE, Service, check, check_bytes, is_in_place, next, open_reader, publish, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("reader_table/holder", |arguments| holder(arguments[0])),
    ("reader_table/forking reader", |arguments| forking_reader(arguments[0])),
    ("reader_table/rejoining reader", |arguments| {
        rejoining_reader(arguments[0])
    }),
];

/// Holds three frames in place, and checks these frames when the test sends a line.
fn holder(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    let mut held: Vec<Frame> = Vec::new();
    while held.len() < 3 {
        let frame = next(&mut reader, &mut copy);
        if is_in_place(&frame) {
            held.push(frame);
        }
        say("has one");
    }
    say("holds three");
    loop {
        listen();
        for frame in &held {
            check_bytes(frame, &[]);
        }
        say("unchanged");
    }
}

/// Forks a child process that does nothing, and holds a frame for ever.
fn forking_reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let frame = next(&mut reader, &mut Vec::new());
    say(fork_sleeper());
    listen();
    drop(frame);
}

/// Attaches, takes two frames and leaves, and repeats this for ever.
fn rejoining_reader(channel: &str) {
    loop {
        let mut reader = open_reader(channel, ReaderOptions::default());
        let held = next(&mut reader, &mut Vec::new());
        let held = (held, next(&mut reader, &mut Vec::new()));
        // Only a frame in place can be checked here. A new reader without a quota gets a copy, whose buffer no longer
        // exists.
        if is_in_place(&held.0) {
            check_bytes(&held.0, &[]);
        }
    }
}

/// Starts a holder, and publishes frames until the holder has three frames in place.
fn start_holder(channel: &Channel, writer: &Writer) -> Process {
    let mut holder = role::start("reader_table/holder", &[channel.as_str()]);
    let mut value = 1;
    while holder.receive() != "holds three" {
        value += 1;
        assert!(publish(writer, value));
    }
    holder
}

#[test]
fn killed_readers_slots_are_free_within_a_second() {
    // Other programs can delay the service too, so the test repeats this.
    eventually("a killed reader is gone within a second", || {
        let channel = Channel::new();
        let writer = channel.writer(slots(8));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let mut holder = start_holder(&channel, &writer);
        eventually("the reader is reported", || service.seen().connected == [0]);
        for value in 10..50 {
            assert!(publish(&writer, value));
        }
        holder.send("check");
        holder.expect("unchanged");
        holder.signal(Signal::SIGKILL);
        let took = eventually("gone", || service.seen().disconnected == [0]);
        assert_eq!(service.seen().reader_count, 0);
        // The writer can claim six of the eight slots. The other two contain the newest frames, which stay for readers.
        let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(SIZE).unwrap()).collect();
        assert_eq!(claimed.len(), 6);
        assert_eq!(writer.stats().evicted, 0);
        took < on_this_machine(SECOND)
    });
}

#[test]
fn claim_finds_killed_reader_without_service() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let mut holder = {
        let _service = Service::of(&writer);
        start_holder(&channel, &writer)
    };
    holder.kill();
    let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(SIZE).unwrap()).collect();
    assert_eq!(claimed.len(), 6);
}

#[test]
fn stopped_reader_keeps_frames_and_blocks_no_writer() {
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
    holder.send("check");
    holder.expect("unchanged");
}

#[test]
fn forked_child_does_not_hold_dead_readers_entry() {
    need_real_machine!("a forked child keeps MADV_DONTFORK pages");
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut reader = role::start("reader_table/forking reader", &[channel.as_str()]);
    let grandchild = Pid::from_raw(reader.receive().parse().unwrap());
    eventually("attached", || service.seen().reader_count == 1);
    reader.kill();
    let is_alive = kill(grandchild, None).is_ok();
    eventually("gone", || service.seen().reader_count == 0);
    kill(grandchild, Signal::SIGKILL).unwrap();
    assert!(is_alive);
}

/// The writer publishes as fast as it can while readers attach. Each reader is killed at a random moment.
#[test]
fn reader_entries_change_owners_at_full_speed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut value = 1;
    for round in 0..12 {
        let mut readers = [
            role::start("reader_table/rejoining reader", &[channel.as_str()]),
            role::start("reader_table/rejoining reader", &[channel.as_str()]),
        ];
        let until = Instant::now() + Duration::from_millis(60 + 7 * round);
        while Instant::now() < until {
            value += 1;
            assert!(publish(&writer, value));
        }
        readers.iter_mut().for_each(Process::kill);
    }
    eventually("all are gone", || service.seen().reader_count == 0);
    let seen = service.seen();
    assert_eq!(seen.connected.len(), seen.disconnected.len());
    assert!(seen.evicted.is_empty());
}

/// One reader is killed, and another reader takes its entry in a new segment before the service runs. The service
/// reports that the first reader left and that the second attached.
#[test]
fn writer_notices_new_entry_owner_in_new_segment() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let mut first = {
        let _service = Service::of(&writer);
        start_holder(&channel, &writer)
    };
    assert_eq!(writer.service().unwrap().reader_count, 1);
    first.kill();
    writer.set_caps(Caps::fixed_size("new", SIZE)).unwrap();
    assert!(publish(&writer, 2));
    let mut second = channel.reader();
    next(&mut second, &mut Vec::new());
    let seen = writer.service().unwrap();
    assert_eq!(
        (seen.connected, seen.disconnected, seen.reader_count),
        (vec![0], vec![0], 1)
    );
}

/// All 64 entries are taken, so the next reader is an observer.
#[test]
fn sixty_fifth_reader_observes() {
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
    check(&frame, &copy, 1);
    assert!(last.is_observer() && last.observer_reason().unwrap().contains("64 reader entries"));
    eventually("64 are counted", || service.seen().reader_count == 64);
    assert!(publish(&writer, 2));
    check(&next(&mut last, &mut copy), &copy, 2);
}
