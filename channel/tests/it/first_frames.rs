// SPDX-License-Identifier: MIT OR Apache-2.0

//! How soon readers get the first frame of a new stream: after other caps, and after a takeover.
//!
//! Eight readers are processes. The time begins when the writer publishes the first frame, and ends when a reader has it.

use std::time::{Duration, Instant};

use rsshm_channel::{Caps, FrameDescriptor, Next, ReadLimits, ReaderOptions, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{
    Channel, Process, eventually,
    role::{self, Role, lines, say},
};

use crate::support::{ChannelExt, SECOND, Service, open_reader, open_writer};

const SIZE_1080P: usize = 1920 * 1080 * 3 / 2;
/// The time between two frames.
const INTERVAL: Duration = Duration::from_micros(16_667);
const READERS: usize = 8;

pub const ROLES: &[(&str, Role)] = &[
    ("first_frames/reader", |arguments| reader(arguments[0])),
    ("first_frames/writer", |arguments| {
        writer(arguments[0], arguments[1].parse().unwrap());
    }),
];

/// Takes all frames. Says the number of each stream, and how long after its publish the first frame came.
fn reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let (mut copy, mut newest) = (Vec::new(), 0);
    loop {
        if let Next::Frame(frame) = reader.next(&mut copy, ReadLimits::default(), None).unwrap() {
            let delay = monotonic_ns() - frame.descriptor.pts;
            let stream = frame.descriptor.offset;
            if stream > newest {
                newest = stream;
                say(format!("{stream} {delay}"));
            }
        }
    }
}

/// Publishes the stream `number`, until the process is killed.
fn writer(channel: &str, number: u64) {
    let writer = open_writer(channel, WriterOptions::default());
    let _service = Service::of(&writer);
    set_caps(&writer, 0);
    for _ in lines() {
        publish(&writer, number);
    }
}

fn set_caps(writer: &Writer, number: u64) {
    let caps = Caps::fixed_size(format!("frames,number={number}"), SIZE_1080P);
    writer.set_caps(caps).unwrap();
}

/// Publishes a frame of the stream `number`.
fn publish(writer: &Writer, number: u64) {
    let slot = writer.claim(SIZE_1080P).unwrap().expect("a slot");
    let descriptor = FrameDescriptor::new(SIZE_1080P as u64).with_offset(number);
    writer.publish(&slot, descriptor.with_pts(monotonic_ns()), &[]).unwrap();
}

fn start_readers(channel: &Channel) -> Vec<Process> {
    (0..READERS)
        .map(|_| role::start("first_frames/reader", &[channel.as_str()]))
        .collect()
}

/// Lets all readers say how late they got the first frame of the stream `number`, and adds this to `delays`.
#[track_caller]
fn receive_delays(readers: &mut [Process], number: u64, delays: &mut Vec<Duration>) {
    for reader in readers {
        let line = reader.receive();
        let (stream, delay) = line.split_once(' ').unwrap();
        assert_eq!(stream, number.to_string());
        delays.push(Duration::from_nanos(delay.parse().unwrap()));
    }
}

/// Whether the readers got the first frames at once.
fn is_at_once(what: &str, mut delays: Vec<Duration>) -> bool {
    delays.sort_unstable();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "{} first frames after {what}: {:.2?} median, {:.2?} of 99 %, {:.2?} at most",
        delays.len(),
        at(50),
        at(99),
        at(100)
    );
    // A reader that only looked for the segment every 20 ms would need 10 to 20 ms.
    at(50) < Duration::from_millis(8)
}

/// The readers go on to the segment with the other caps at once.
#[test]
fn first_frame_of_other_caps_comes_at_once() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let service = Service::of(&writer);
    let mut readers = start_readers(&channel);
    set_caps(&writer, 1);
    let began = Instant::now();
    while service.seen().reader_count < READERS as u32 {
        assert!(began.elapsed() < 20 * SECOND);
        publish(&writer, 1);
        std::thread::sleep(INTERVAL);
    }
    // The first frames say that the readers have begun.
    receive_delays(&mut readers, 1, &mut Vec::new());
    let mut number = 1;
    // The readers may need longer while other programs use the processors.
    eventually("the first frames come at once", || {
        let mut delays = Vec::new();
        for _ in 0..30 {
            number += 1;
            set_caps(&writer, number);
            for _ in 0..4 {
                publish(&writer, number);
                std::thread::sleep(INTERVAL);
            }
            receive_delays(&mut readers, number, &mut delays);
        }
        is_at_once("other caps", delays)
    });
}

/// The readers go on to the segment of the next writer at once, although the former writer was killed.
#[test]
fn first_frame_of_next_writer_comes_at_once() {
    let channel = Channel::new();
    let mut readers = start_readers(&channel);
    let mut number = 0;
    let mut take_over = || {
        number += 1;
        let argument = number.to_string();
        let mut writer = role::start("first_frames/writer", &[channel.as_str(), &argument]);
        for _ in 0..8 {
            writer.send("next");
            std::thread::sleep(INTERVAL);
        }
        let mut delays = Vec::new();
        receive_delays(&mut readers, number, &mut delays);
        writer.kill();
        delays
    };
    // The first writer may start before the readers.
    take_over();
    eventually("the first frames come at once", || {
        let delays = (0..11).flat_map(|_| take_over()).collect();
        is_at_once("a takeover", delays)
    });
}
