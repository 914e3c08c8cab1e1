// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with many readers, many starts and long runs. They check that no resources leak.
//!
//! The tests are short by default. If `RSSHM_TEST_SECONDS` is set, the tests repeat their steps more often.
//! `RSSHM_SOAK_SECONDS` is the duration of the 4K stream.
//!
//! A test that counts the resources of a process runs in a role, because the test's own process runs other tests too.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, Frame, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
    monotonic_ns,
};
use rsshm_testkit::{
    Channel, PATIENCE, Process, eventually, need_real_machine,
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, Resources, SECOND, Service, StopOnDrop, check, check_bytes, cpu_time, next, open_reader, open_writer,
    publish, repetitions, seconds_from, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("many/4K reader", |arguments| reader_of_4k(arguments[0])),
    ("many/4K stream", |_| stream_of_4k()),
    ("many/writer", |arguments| writer(arguments[0])),
    ("many/attaching readers", |_| attaching_readers()),
    ("many/restarting writers", |_| restarting_writers()),
];

/// Runs a role to its end and prints its output. There is no time limit, because the environment variables decide how
/// long the role runs.
fn run(role: &str) {
    let mut process = role::start(role, &[]);
    while process.is_running() {
        std::thread::sleep(Duration::from_millis(20));
    }
    print!("{}", process.wait_ok());
}

/// The data that the 65 readers share: the flag that stops them, and their counts.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    attached: AtomicU32,
    observers: AtomicU32,
    complete: AtomicU32,
    missed: AtomicU32,
}

impl Progress {
    /// Runs one of the readers, which attaches and reads until it gets the frame `last`.
    fn read(&self, channel: &Channel, number: u32, last: u64) {
        // The 65th reader waits until all reader entries are taken.
        eventually("its turn", || number < 64 || self.attached.load(Ordering::SeqCst) == 64);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let mut newest = next(&mut reader, &mut copy).descriptor.offset;
        self.observers
            .fetch_add(u32::from(reader.is_observer()), Ordering::SeqCst);
        self.attached.fetch_add(1, Ordering::SeqCst);
        while newest < last && !self.stop.load(Ordering::Relaxed) {
            let timeout = Some(Duration::from_millis(100));
            if let Ok(Next::Frame(frame)) = reader.next(&mut copy, ReadLimits::default(), timeout) {
                check_bytes(&frame, &copy);
                assert!(frame.descriptor.offset > newest);
                newest = frame.descriptor.offset;
                self.missed.fetch_add(frame.missed as u32, Ordering::SeqCst);
            }
        }
        self.complete.fetch_add(u32::from(newest == last), Ordering::SeqCst);
    }
}

/// 64 readers, each with an entry, and one observer get the last frame of the stream.
#[test]
fn sixty_five_readers_get_the_whole_stream() {
    const FRAMES: u64 = 60;
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    let progress = Progress::default();
    let longest = std::thread::scope(|scope| {
        let stopping = StopOnDrop(&progress.stop);
        for number in 0..65 {
            let (channel, progress) = (&channel, &progress);
            scope.spawn(move || progress.read(channel, number, FRAMES));
        }
        eventually("all are attached", || progress.attached.load(Ordering::SeqCst) == 65);
        let mut longest = Duration::ZERO;
        for value in 1..=FRAMES {
            let began = Instant::now();
            assert!(publish(&writer, value));
            longest = longest.max(began.elapsed());
            std::thread::sleep(Duration::from_millis(25));
        }
        eventually("all have the last frame", || {
            progress.complete.load(Ordering::SeqCst) == 65
        });
        drop(stopping);
        longest
    });
    println!(
        "65 readers, {FRAMES} frames each, {:?} missed by all together, longest publish {longest:.2?}",
        progress.missed
    );
    assert_eq!(progress.observers.load(Ordering::SeqCst), 1);
    assert_eq!(service.seen().connected.len(), 64);
}

#[test]
fn attaching_readers_leak_nothing() {
    run("many/attaching readers");
}

/// Readers attach and leave, one after the other.
fn attaching_readers() {
    let cycles = repetitions(500, 10_000);
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut copy = Vec::new();
    let cycle = |copy: &mut Vec<u8>| {
        let mut reader = channel.reader();
        let frame = next(&mut reader, copy);
        check(&frame, copy, 1);
    };
    (0..50).for_each(|_| cycle(&mut copy));
    let before = Resources::now();
    let began = Instant::now();
    (0..cycles).for_each(|_| cycle(&mut copy));
    let took = began.elapsed();
    eventually("all are gone", || service.seen().reader_count == 0);
    let after = Resources::now();
    say(format!(
        "{cycles} times attached and detached in {took:.1?}: {before:?}, {after:?}"
    ));
    after.assert_not_grown_since(&before);
    assert_eq!(writer.stats().evicted, 0);
    assert!(publish(&writer, 2));
}

/// Publishes a frame and waits to be killed.
fn writer(channel: &str) {
    let writer = open_writer(channel, slots(8));
    let _service = Service::of(&writer);
    assert!(publish(&writer, 7));
    say("published");
    listen();
}

#[test]
fn restarting_writers_leak_nothing() {
    run("many/restarting writers");
}

/// Writers start and end, and every tenth writer is killed. The readers stay the same and follow each writer.
fn restarting_writers() {
    let restarts = repetitions(40, 1000);
    let channel = Channel::new();
    let mut readers = [channel.reader(), channel.reader(), channel.observer()];
    let mut copy = Vec::new();
    let mut before = None;
    let began = Instant::now();
    for restart in 0..restarts {
        let (mut killed, mut closed) = (None, None);
        if restart % 10 == 9 {
            let mut writer = role::start("many/writer", &[channel.as_str()]);
            writer.expect("published");
            killed = Some(writer);
        } else {
            let writer = channel.writer(slots(8));
            assert!(publish(&writer, 7));
            closed = Some(writer);
        }
        for reader in &mut readers {
            read_after_restart(reader, &mut copy, restart);
        }
        drop((killed, closed));
        if restart == 20 {
            before = Some(Resources::now());
        }
    }
    for reader in &mut readers {
        assert!(
            reader.stats().reconnects + 1 >= u64::from(restarts),
            "{:?}",
            reader.stats()
        );
        eventually("the reader notices the end", || {
            let timeout = Some(Duration::from_millis(10));
            let next = reader.next(&mut copy, ReadLimits::default(), timeout);
            matches!(next.unwrap(), Next::Lost)
        });
    }
    let (before, after) = (before.unwrap(), Resources::now());
    say(format!(
        "{restarts} restarts in {:.1?}: {before:?}, {after:?}",
        began.elapsed()
    ));
    after.assert_not_grown_since(&before);
}

/// Reads until a frame of the new writer comes.
fn read_after_restart(reader: &mut Reader, copy: &mut Vec<u8>, restart: u32) {
    let began = Instant::now();
    loop {
        match reader.next(copy, ReadLimits::default(), Some(SECOND)).unwrap() {
            Next::Frame(frame) => return check(&frame, copy, 7),
            _ => assert!(began.elapsed() < 5 * SECOND, "no frame after restart {restart}"),
        }
    }
}

/// The size of a 4K frame in NV12.
const SIZE_4K: usize = 3840 * 2160 * 3 / 2;

/// What a reader of the 4K stream measures.
#[derive(Default)]
struct Measurements {
    /// The age of each frame at its arrival, in nanoseconds.
    ages: Vec<u64>,
    in_place: u64,
    /// The resources that the process held after the first 30 frames.
    warm: Option<Resources>,
}

impl Measurements {
    fn add(&mut self, frame: &Frame) {
        self.ages.push(monotonic_ns().saturating_sub(frame.descriptor.pts));
        if let FrameData::InPlace(pinned) = &frame.data {
            let value = frame.descriptor.offset as u8;
            assert!(
                pinned.as_ref().iter().step_by(4096).all(|byte| *byte == value),
                "a torn frame"
            );
            self.in_place += 1;
        }
        if self.ages.len() == 30 {
            // Reserve the memory for `ages` now, because a later allocation would count as growth.
            self.ages.reserve(1 << 17);
            self.warm = Some(Resources::now());
        }
    }

    /// Prints the measurements, and checks that the resources have not grown.
    fn report(mut self, reader: &Reader) {
        let now = Resources::now();
        self.ages.sort_unstable();
        let count = self.ages.len();
        assert!(count > 0, "no frame has come");
        let at = |part: f64| Duration::from_nanos(self.ages[((count - 1) as f64 * part) as usize]);
        say(format!(
            "{count} frames, {} in place, {} missed, age {:.2?} median, {:.2?} of 99 %, {:.2?} at most, \
             {:.1} % of a processor, {:?} then, {now:?} now",
            self.in_place,
            reader.stats().missed,
            at(0.5),
            at(0.99),
            at(1.0),
            cpu_time().as_secs_f64() * 100.0 / (count as f64 / 60.0),
            self.warm,
        ));
        if let Some(warm) = self.warm {
            // `ages` has grown by 8 bytes for each frame, which is no leak.
            let warm = Resources {
                memory_kib: warm.memory_kib + count as u64 * 8 / 1024,
                ..warm
            };
            now.assert_not_grown_since(&warm);
        }
        say("done");
    }
}

/// Takes frames of the 4K stream and holds two of them. When the test sends a line, the reader prints its measurements
/// and ends.
fn reader_of_4k(channel: &str) {
    let lines = role::lines();
    let mut reader = open_reader(channel, ReaderOptions::default());
    let (mut copy, mut held) = (Vec::new(), Vec::new());
    let mut measurements = Measurements::default();
    say("reads");
    loop {
        let timeout = Some(Duration::from_millis(20));
        match reader.next(&mut copy, ReadLimits::default(), timeout).unwrap() {
            Next::Frame(frame) => {
                measurements.add(&frame);
                held.push(frame);
                if held.len() > 2 {
                    held.remove(0);
                }
            }
            Next::TimedOut => {}
            other => panic!("{other:?}"),
        }
        if lines.try_recv().is_ok() {
            return measurements.report(&reader);
        }
    }
}

/// Draws and publishes a frame of the 4K stream. Returns `false` if there was no slot.
fn draw(writer: &Writer, value: u64) -> bool {
    let Some(mut slot) = writer.claim(SIZE_4K).unwrap() else {
        return false;
    };
    slot.as_mut().fill(value as u8);
    let descriptor = FrameDescriptor::new(SIZE_4K as u64)
        .with_offset(value)
        .with_pts(monotonic_ns());
    writer.publish(&slot, descriptor, &[]).is_ok()
}

#[test]
fn stream_of_4k_to_four_readers_leaks_nothing() {
    need_real_machine!("too slow for 4K at 60 frames a second");
    run("many/4K stream");
}

/// Draws and publishes 4K frames at a rate of 60 a second. Each of the four readers holds two frames.
fn stream_of_4k() {
    let time = seconds_from("RSSHM_SOAK_SECONDS", 3.0);
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer
        .set_caps(Caps::fixed_size(
            "video/x-raw,format=NV12,width=3840,height=2160,framerate=60/1",
            SIZE_4K,
        ))
        .unwrap();
    assert!(draw(&writer, 0));
    let service = Service::of(&writer);
    let mut readers: Vec<Process> = (0..4)
        .map(|_| role::start("many/4K reader", &[channel.as_str()]))
        .collect();
    readers.iter_mut().for_each(|reader| reader.expect("reads"));
    eventually("all are attached", || service.seen().reader_count == 4);
    let began = Instant::now();
    let (mut value, mut dropped, mut warm) = (0u64, 0u64, None);
    let frames = (time.as_secs_f64() * 60.0) as u64;
    while value < frames {
        assert!(began.elapsed() < 2 * time + PATIENCE, "{value} frames of {frames}");
        value += 1;
        let due = Duration::from_nanos(value * 1_000_000_000 / 60);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        dropped += u64::from(!draw(&writer, value));
        if value == 60 {
            warm = Some(Resources::now());
        }
    }
    let stats = writer.stats();
    say(format!(
        "{value} frames in {:.1?}, {dropped} dropped, {stats:?}",
        began.elapsed()
    ));
    for reader in &mut readers {
        reader.send("report");
        say(reader.receive());
        reader.expect("done");
    }
    let now = Resources::now();
    say(format!("the writer: {warm:?} then, {now:?} now"));
    if let Some(warm) = warm {
        now.assert_not_grown_since(&warm);
    }
    assert_eq!(dropped, 0);
    assert_eq!((stats.evicted, stats.semaphore_timeouts), (0, 0));
}
