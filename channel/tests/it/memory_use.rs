// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of a segment follows the frames that are in use. docs/MEMORY.md explains the rules.
//!
//! The readers are processes. The tests look at the blocks of the segment's file, which are its memory.

use std::{
    collections::VecDeque,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use rsshm_channel::{Caps, FrameDescriptor, Next, ReadLimits, ReaderOptions, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{
    Channel, PATIENCE, Process, need_real_machine, on_this_machine,
    role::{self, Role, lines, say},
    shm::{OWN_MOUNTS, mount, unshared},
    skip,
};

use crate::support::{ChannelExt, SECOND, Service, check, cpu_time, is_in_place, next, open_reader, publish_sized};

const MIB: u64 = 1 << 20;
const SIZE_1080P: usize = 1920 * 1080 * 3 / 2;
const SIZE_4K: usize = 3840 * 2160 * 3 / 2;
/// The time between two frames.
const INTERVAL: Duration = Duration::from_micros(16_667);
/// The newest frames of a reader, which it got within the last two seconds.
const RECENT: usize = 90;

pub const ROLES: &[(&str, Role)] = &[
    ("memory_use/reader", reader),
    ("memory_use/newcomer", |arguments| newcomer(arguments[0])),
    ("memory_use/stopped third", |arguments| stopped_third(arguments[0])),
];

/// Takes all frames, and keeps the last `queue` of those whose seq has the remainder `remainder` by `modulus`. When the
/// test sends a line, the reader says what it has counted.
fn reader(arguments: &[&str]) {
    let &[channel, queue, modulus, remainder] = arguments else {
        panic!("{arguments:?}");
    };
    let queue: usize = queue.parse().unwrap();
    let (modulus, remainder): (u64, u64) = (modulus.parse().unwrap(), remainder.parse().unwrap());
    let lines = lines();
    let mut reader = open_reader(channel, ReaderOptions::default());
    let (mut copy, mut held) = (Vec::new(), VecDeque::new());
    let limits = ReadLimits::default().max_held(queue as u32 + 1);
    let (mut unexcused, mut taken_at, mut was_new) = (0, Instant::now(), false);
    // Whether each of the newest frames was in place.
    let mut recent = VecDeque::new();
    say("reads");
    while lines.try_recv().is_err() {
        let Next::Frame(frame) = reader.next(&mut copy, limits, Some(SECOND / 20)).unwrap() else {
            continue;
        };
        // A reader that got no processor for the time of two frames may miss frames whatever the writer does, as may a
        // reader that took the frame before late.
        if was_new && taken_at.elapsed() < 3 * INTERVAL {
            unexcused += frame.missed;
        }
        taken_at = Instant::now();
        was_new = Duration::from_nanos(monotonic_ns().saturating_sub(frame.descriptor.pts)) < INTERVAL;
        recent.push_back(is_in_place(&frame));
        if recent.len() > RECENT {
            recent.pop_front();
        }
        if frame.seq % modulus == remainder {
            held.push_back(frame);
        }
        if held.len() > queue {
            held.pop_front();
        }
    }
    let in_place = recent.iter().filter(|is_in_place| **is_in_place).count();
    say(format!("{} {in_place} {unexcused}", recent.len()));
}

/// What a reader has counted.
#[derive(Debug)]
struct Counts {
    /// How many frames it took, but at most [`RECENT`].
    recent: u64,
    /// How many of these frames it got in place.
    in_place: u64,
    /// Frames that it missed although it got enough processor time.
    unexcused: u64,
}

fn start_reader(channel: &Channel, queue: usize, modulus: usize, remainder: usize) -> Process {
    let numbers = [queue, modulus, remainder].map(|number| number.to_string());
    let mut process = role::start(
        "memory_use/reader",
        &[channel.as_str(), &numbers[0], &numbers[1], &numbers[2]],
    );
    process.expect("reads");
    process
}

#[track_caller]
fn stop_reader(mut reader: Process) -> Counts {
    reader.send("stop");
    let line = reader.receive();
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    Counts {
        recent: numbers[0],
        in_place: numbers[1],
        unexcused: numbers[2],
    }
}

/// A writer of frames of one size. It writes a few bytes of each.
fn writer(channel: &Channel, size: usize) -> std::sync::Arc<Writer> {
    let writer = channel.writer(WriterOptions::default());
    writer
        .set_caps(Caps::fixed_size(format!("frames,size={size}"), size))
        .unwrap();
    writer
}

/// Publishes frames until `is_done` returns `true`. Every frame has a slot.
#[track_caller]
fn stream(writer: &Writer, size: usize, longest: Duration, mut is_done: impl FnMut(Duration) -> bool) {
    let began = Instant::now();
    for number in 0.. {
        // A delayed frame does not make the next one come earlier.
        std::thread::sleep(INTERVAL);
        let mut slot = writer.claim(size).unwrap().expect("a slot");
        slot.as_mut()[..8].fill(number as u8);
        let descriptor = FrameDescriptor::new(size as u64).with_pts(monotonic_ns());
        writer.publish(&slot, descriptor, &[]).unwrap();
        if number % 16 == 15 && is_done(began.elapsed()) {
            return;
        }
        assert!(began.elapsed() < on_this_machine(longest), "{:?}", writer.stats());
    }
}

/// The memory of the channel's segment in bytes.
fn memory(channel: &Channel) -> u64 {
    std::fs::metadata(channel.segment()).unwrap().blocks() * 512
}

/// Readers that keep up need few slots, and get their frames in place.
#[track_caller]
fn honest_readers_fit(size: usize, readers: usize, limit: u64) {
    let channel = Channel::new();
    let writer = writer(&channel, size);
    let service = Service::of(&writer);
    let mut processes = Vec::new();
    // The sizes of the last two seconds, and their times.
    let mut recent = VecDeque::new();
    let mut most = 0;
    stream(&writer, size, 60 * SECOND, |time| {
        if processes.len() < readers {
            processes.push(start_reader(&channel, 1, 1, 0));
        }
        if service.seen().reader_count < readers as u32 || time < 4 * SECOND {
            return false;
        }
        recent.push_back((time, memory(&channel)));
        while recent.front().is_some_and(|(at, _)| *at + 2 * SECOND < time) {
            recent.pop_front();
        }
        most = recent.iter().map(|(_, size)| *size).max().unwrap_or(0);
        let is_long = recent.front().is_some_and(|(at, _)| *at + 3 * SECOND / 2 < time);
        is_long && most <= limit
    });
    println!(
        "{readers} readers of {size} bytes: {most} bytes at most, {:?}",
        writer.stats()
    );
    for counts in processes.into_iter().map(stop_reader) {
        assert!(
            counts.recent > 0 && counts.in_place * 10 >= counts.recent * 7,
            "{counts:?}"
        );
    }
    assert_eq!((writer.stats().evicted, writer.stats().dropped), (0, 0));
}

#[test]
fn one_reader_of_1080p_fits_12_mib() {
    honest_readers_fit(SIZE_1080P, 1, 12 * MIB);
}

#[test]
fn eight_readers_of_1080p_fit_20_mib() {
    honest_readers_fit(SIZE_1080P, 8, 20 * MIB);
}

#[test]
fn sixty_four_readers_of_1080p_fit_32_mib() {
    need_real_machine!("64 readers are too slow to keep up at this rate");
    honest_readers_fit(SIZE_1080P, 64, 32 * MIB);
}

#[test]
fn eight_readers_of_4k_fit_80_mib() {
    honest_readers_fit(SIZE_4K, 8, 80 * MIB);
}

/// Eight readers each keep frames of their own. They get slots, up to the number of slots that the segment can have. When
/// they are killed, the memory goes. A reader that keeps up misses nothing.
#[test]
fn memory_grows_for_greedy_readers_and_shrinks_when_they_are_gone() {
    const SIZE: usize = 1 << 20;
    let channel = Channel::new();
    let writer = writer(&channel, SIZE);
    let _service = Service::of(&writer);
    let modest = start_reader(&channel, 1, 1, 0);
    stream(&writer, SIZE, 20 * SECOND, |time| time > SECOND);
    let before = memory(&channel);
    let greedy: Vec<_> = (0..8).map(|number| start_reader(&channel, 7, 8, number)).collect();
    stream(&writer, SIZE, 30 * SECOND, |_| writer.stats().slots > 50);
    let peak = memory(&channel);
    for mut reader in greedy {
        reader.kill();
    }
    stream(&writer, SIZE, 30 * SECOND, |_| memory(&channel) <= before + 2 * MIB);
    println!("{before} bytes before, {peak} at most, {} after", memory(&channel));
    let counts = stop_reader(modest);
    assert_eq!(counts.unexcused, 0, "{counts:?}");
    assert_eq!((writer.stats().evicted, writer.stats().dropped), (0, 0));
}

/// Takes one frame, and says how long it took from the publish of the frame, or from the call if that was later.
fn newcomer(channel: &str) {
    let mut copy = Vec::new();
    let mut reader = open_reader(channel, ReaderOptions::default());
    for _ in lines() {
        let called = monotonic_ns();
        let Next::Frame(frame) = reader.next(&mut copy, ReadLimits::default(), Some(SECOND)).unwrap() else {
            panic!("no frame");
        };
        let delay = monotonic_ns() - called.max(frame.descriptor.pts);
        say(format!("{delay} {}", u8::from(is_in_place(&frame))));
        drop(frame);
        reader = open_reader(channel, ReaderOptions::default());
    }
}

/// Eight readers attach at once, many times. Each gets its first frame in place, and waits for nobody.
#[test]
fn eight_newcomers_get_their_first_frame_at_once() {
    let channel = Channel::new();
    let writer = writer(&channel, SIZE_1080P);
    let _service = Service::of(&writer);
    let mut newcomers: Vec<_> = (0..8)
        .map(|_| role::start("memory_use/newcomer", &[channel.as_str()]))
        .collect();
    let (mut delays, mut copied) = (Vec::new(), 0);
    stream(&writer, SIZE_1080P, 60 * SECOND, |time| {
        if delays.is_empty() && time < SECOND / 2 {
            return false;
        }
        newcomers.iter_mut().for_each(|newcomer| newcomer.send("next"));
        for newcomer in &mut newcomers {
            let line = newcomer.receive();
            let (delay, in_place) = line.split_once(' ').unwrap();
            delays.push(delay.parse::<u64>().unwrap());
            copied += u32::from(in_place == "0");
        }
        if delays.len() < 240 {
            return false;
        }
        delays.sort_unstable();
        let at = |percent: usize| Duration::from_nanos(delays[(delays.len() - 1) * percent / 100]);
        println!(
            "{} first frames: {:.2?} median, {:.2?} of 99 %, {:.2?} at most, {copied} copied",
            delays.len(),
            at(50),
            at(99),
            at(100)
        );
        // While the writer commits a slot, newcomers copy.
        let is_at_once = at(50) < on_this_machine(Duration::from_millis(2)) && copied < 24;
        // Other programs may delay these newcomers, so the next 240 may be faster.
        assert!(is_at_once || time < PATIENCE, "{:?}, {copied} copied", at(50));
        (delays, copied) = (Vec::new(), 0);
        is_at_once
    });
}

#[test]
fn stopped_readers_with_queues_cost_the_others_nothing() {
    need_real_machine!("eleven readers are too slow to miss nothing at this rate");
    let Some(wrapper) = unshared(&OWN_MOUNTS) else {
        skip!("no mount namespace");
    };
    for mib in [32, 64] {
        let mut process = role::start_within(&wrapper, "memory_use/stopped third", &[&mib.to_string()]);
        print!("{}", process.wait_ok());
    }
}

/// Sixteen readers have queues of 200 frames, and five of them are stopped. The writer keeps its rate, and the others miss
/// no frame.
fn stopped_third(mib: &str) {
    const SIZE: usize = 1 << 20;
    mount(&format!("{mib}m"));
    let channel = Channel::new();
    let writer = writer(&channel, SIZE);
    let _service = Service::of(&writer);
    let mut readers = Vec::new();
    stream(&writer, SIZE, 60 * SECOND, |_| {
        if readers.len() < 16 {
            readers.push(start_reader(&channel, 200, 1, 0));
        }
        readers.len() == 16
    });
    let (stopped, reading) = readers.split_at_mut(5);
    // The frames per second, which also depend on what else the machine does.
    let rate_of = |duration| {
        let (before, began) = (writer.stats().published, Instant::now());
        stream(&writer, SIZE, 60 * SECOND, |time| time > duration);
        (writer.stats().published - before) as f64 / began.elapsed().as_secs_f64()
    };
    let rate_before = rate_of(SECOND);
    for (index, reader) in stopped.iter().enumerate() {
        reader.stop();
        stream(&writer, SIZE, 60 * SECOND, |time| time > SECOND / 10 * index as u32);
    }
    let mut rate = rate_of(4 * SECOND);
    let began = Instant::now();
    // Other programs may delay the writer for a while.
    while rate <= rate_before / 2.0 && began.elapsed() < PATIENCE {
        rate = rate_of(SECOND);
    }
    let after = writer.stats();
    stopped.iter().for_each(Process::resume);
    let reading: Vec<_> = reading
        .iter_mut()
        .map(|reader| {
            reader.send("stop");
            reader.receive()
        })
        .collect();
    say(format!("{mib} MiB: {after:?}, {reading:?}"));
    assert!(rate > rate_before / 2.0, "{rate_before} frames per second, then {rate}");
    assert_eq!((after.dropped, after.evicted), (0, 0));
    for line in reading {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

/// A writer that publishes 4K frames as fast as it can uses few slots, although its reader cannot follow.
#[test]
fn fast_writer_needs_few_slots() {
    const FRAMES: u32 = 2000;
    let channel = Channel::new();
    let writer = writer(&channel, SIZE_4K);
    let _service = Service::of(&writer);
    stream(&writer, SIZE_4K, 10 * SECOND, |_| true);
    let reader = start_reader(&channel, 1, 1, 0);
    stream(&writer, SIZE_4K, 10 * SECOND, |_| true);
    let (before, began, slots_before) = (cpu_time(), Instant::now(), writer.stats().slots);
    for number in 0..FRAMES {
        let slot = writer.claim(SIZE_4K).unwrap().expect("a slot");
        writer.publish(&slot, FrameDescriptor::new(8), &[]).unwrap();
        if number % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let (cpu, elapsed) = (cpu_time() - before, began.elapsed());
    let stats = writer.stats();
    println!(
        "{slots_before} slots before, {:?} of a processor for each frame, {stats:?}",
        cpu / FRAMES
    );
    stop_reader(reader);
    if elapsed > FRAMES * Duration::from_millis(1) / 2 {
        skip!("the writer needed {elapsed:?} for {FRAMES} frames, and a slow stream gets more slots");
    }
    // A reader that starts slowly may have needed more slots before.
    assert!(
        stats.slots <= slots_before.max(6),
        "{slots_before} slots before, {stats:?}"
    );
}

/// A reader that is up to four frames late misses nothing, although a segment of large frames keeps fewer frames for readers
/// that keep up.
#[test]
fn late_reader_misses_nothing() {
    const SIZE: usize = 3 << 20;
    let channel = Channel::new();
    let writer = writer(&channel, SIZE);
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    assert!(publish_sized(&writer, 0, SIZE));
    let mut wanted = 0;
    for round in 0..40 {
        for _ in 0..1 + round % 5 {
            check(&next(&mut reader, &mut copy), &copy, wanted);
            wanted = (wanted + 1) % 100;
        }
        assert_eq!(reader.stats().missed, 0, "in round {round}");
        for late in 0..1 + (round + 1) % 5 {
            std::thread::sleep(Duration::from_millis(5));
            assert!(publish_sized(&writer, (wanted + late) % 100, SIZE));
        }
    }
}

/// A newcomer waits for nobody: it takes its first frame in place although no service runs.
#[test]
fn first_frame_needs_no_service() {
    let channel = Channel::new();
    let writer = writer(&channel, SIZE_1080P);
    assert!(publish_sized(&writer, 1, SIZE_1080P));
    let (mut copy, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let mut reader = channel.reader();
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 1);
        assert!(is_in_place(&frame));
        readers.push((reader, frame));
    }
    for value in 2..20 {
        assert!(publish_sized(&writer, value, SIZE_1080P));
    }
    readers.iter().for_each(|(_, frame)| check(frame, &[], 1));
}
