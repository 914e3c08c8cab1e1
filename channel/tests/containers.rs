//! Two containers that share /dev/shm and nothing else: mount and pid namespaces of their own, in which every program is
//! process 1. Who lives is not asked of numbers.

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    Channel, Service, check_bytes,
    child::{self, Child, say, unshared},
    is_in_place, publish, slots, wait_until,
};
use rsshm_channel::{Caps, ChannelName, Error, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions};

const CONTAINER: [&str; 6] = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"];

#[test]
fn child() {
    child::play(&[("writes", writes), ("reads", reads), ("is refused", is_refused)]);
}

/// Publishes a hundred frames a second; says how many readers there are when it is asked.
fn writes(channel: &str) {
    let lines = child::lines();
    let writer = Arc::new(Writer::open(ChannelName::new(channel).unwrap(), slots(12)).unwrap());
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    let service = Service::of(&writer);
    say(std::process::id());
    for value in 1.. {
        assert!(publish(&writer, value));
        match lines.recv_timeout(Duration::from_millis(10)).as_deref() {
            Ok("stop") => break,
            Ok(_) => say(service.seen().reader_count),
            Err(_) => {}
        }
    }
    drop(service);
    drop(writer);
    say("stopped");
}

/// Says the number of the newest frame, how many were in place, and how often the writer was lost, when it is asked.
fn reads(channel: &str) {
    let lines = child::lines();
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let (mut copy, mut held) = (Vec::new(), None);
    let (mut seq, mut in_place, mut lost) = (0, 0, 0);
    say(std::process::id());
    loop {
        match reader
            .next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(10)))
            .unwrap()
        {
            Next::Frame(frame) => {
                check_bytes(&frame, &copy);
                seq = frame.seq;
                in_place += u32::from(is_in_place(&frame));
                held = Some(frame);
            }
            Next::Lost => lost += 1,
            _ => {}
        }
        if lines.try_recv().is_ok() {
            say(format!("{seq} {in_place} {lost} {}", u8::from(held.is_some())));
        }
    }
}

fn is_refused(channel: &str) {
    let refused = Writer::open(ChannelName::new(channel).unwrap(), WriterOptions::default());
    say(match refused {
        Err(error @ Error::Busy { .. }) => format!("busy: {error}"),
        other => format!("{other:?}"),
    });
}

#[track_caller]
fn ask(child: &mut Child) -> Vec<u64> {
    child.tell("report");
    child.receive().split(' ').map(|seq| seq.parse().unwrap()).collect()
}

#[test]
fn writer_and_readers_in_different_containers() {
    let Some(container) = unshared(&CONTAINER) else {
        return;
    };
    let channel = Channel::new();
    let start = |role: &str| {
        let child = Child::start_with(role, channel.as_str(), &container);
        child.expect("1");
        child
    };
    let second = Duration::from_secs(1);
    // A reader first, then its writer; two of each kind of number 1.
    let (mut one, mut other) = (start("reads"), start("reads"));
    let mut writer = start("writes");
    wait_until("both are there", 5 * second, || ask(&mut writer) == [2]);
    wait_until("frames in place", 5 * second, || {
        ask(&mut one)[1] > 5 && ask(&mut other)[1] > 5
    });

    // A second writer is refused.
    let refused = Child::start_with("is refused", channel.as_str(), &container);
    assert!(refused.receive().starts_with("busy"));

    // A reader is killed: gone within a second, and another one comes.
    other.kill();
    let took = wait_until("one is gone", 2 * second, || ask(&mut writer) == [1]);
    let mut other = start("reads");
    wait_until("two again", 5 * second, || ask(&mut writer) == [2]);

    // The writer is killed, and started again in another container: numbers run on.
    for round in 1..=3 {
        let before = ask(&mut one)[0];
        writer.kill();
        wait_until("it is missed", 3 * second, || ask(&mut one)[2] == round);
        writer = start("writes");
        wait_until("both follow", 5 * second, || ask(&mut writer) == [2]);
        wait_until("numbers run on", 5 * second, || {
            ask(&mut one)[0] > before + 5 && ask(&mut other)[0] > before + 5
        });
    }
    println!("a killed reader was gone after {took:?}");
    writer.tell("stop");
    wait_until("it has stopped", 5 * second, || writer.receive() == "stopped");
    channel.assert_nothing_left();
}
