// SPDX-License-Identifier: MIT OR Apache-2.0

//! The honest peers of a channel. Each peer is a process of its own, and reports its frames, errors and processor time.

use std::{
    collections::{BTreeMap, VecDeque},
    hint::black_box,
    sync::mpsc,
    time::{Duration, Instant},
};

use rsshm_channel::{Error, NewEvent, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{
    Channel, Process,
    emulation::{frames_on_this_machine, processor_on_this_machine},
    eventually,
    role::{self, Role, say},
};

use crate::support::{
    SECOND, SIZE, Service, bytes, cpu_time, descriptor, is_in_place, open_reader, open_writer, publish,
};

pub const ROLES: &[(&str, Role)] = &[
    ("hostile/writer", |arguments| writer(arguments[0])),
    ("hostile/in-place reader", |arguments| reader(arguments[0], false, 3)),
    ("hostile/copying reader", |arguments| reader(arguments[0], false, 0)),
    ("hostile/observer", |arguments| reader(arguments[0], true, 0)),
];

/// The roles of the readers.
const READERS: [&str; 3] = ["hostile/in-place reader", "hostile/copying reader", "hostile/observer"];

/// How many frames the writer publishes in a second.
pub const RATE: u32 = 200;

/// The time between two frames.
const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);

/// What a peer reports about itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub frames: u64,
    pub missed: u64,
    /// The processor time of the process.
    pub cpu: Duration,
    /// For a writer, the longest duration of a publish since the last report. For a reader, the highest age of a frame
    /// since the last report.
    pub longest: Duration,
    /// How often each kind of error or event occurred.
    pub occurrences: String,
}

impl Report {
    fn say(&self) {
        say(format!(
            "{} {} {} {} {}",
            self.frames,
            self.missed,
            self.cpu.as_micros(),
            self.longest.as_micros(),
            self.occurrences
        ));
    }

    fn parse(line: &str) -> Self {
        let mut parts = line.splitn(5, ' ');
        let mut number = || parts.next().unwrap().parse().unwrap();
        Self {
            frames: number(),
            missed: number(),
            cpu: Duration::from_micros(number()),
            longest: Duration::from_micros(number()),
            occurrences: parts.next().unwrap_or_default().to_owned(),
        }
    }
}

/// The counts of a peer, and the lines from the test. It reports the counts when a line asks for them.
struct Reporter {
    lines: mpsc::Receiver<String>,
    report: Report,
    occurrences: BTreeMap<String, u32>,
}

impl Reporter {
    fn new() -> Self {
        Self {
            lines: role::lines(),
            report: Report::default(),
            occurrences: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.occurrences.entry(what.into()).or_default() += 1;
    }

    /// Reports if the test asks for a report. Returns `false` if the peer must stop.
    fn obey(&mut self) -> bool {
        match self.lines.try_recv().as_deref() {
            Ok("report") => {
                self.report.cpu = cpu_time();
                self.report.occurrences = format!("{:?}", self.occurrences);
                self.report.say();
                self.report.longest = Duration::ZERO;
                true
            }
            Ok("stop") => false,
            _ => true,
        }
    }
}

/// The kind of an error, without its values.
fn kind(error: &Error) -> String {
    format!("{error:?}").split(' ').next().unwrap().to_owned()
}

/// Publishes a frame with the current time as its pts. Returns `false` if there was no slot.
fn publish_now(writer: &Writer) -> Result<bool, Error> {
    let Some(mut slot) = writer.claim(SIZE)? else {
        return Ok(false);
    };
    slot.as_mut().fill(1);
    let descriptor = descriptor(SIZE, 0).with_pts(monotonic_ns());
    writer.publish(&slot, descriptor, &[]).map(|_| true)
}

/// Publishes [`RATE`] frames a second, and an event with every sixteenth frame.
fn writer(channel: &str) {
    let options = WriterOptions::default()
        .perms(0o644)
        .max_slots(16)
        .accept_messages(true);
    let writer = open_writer(channel, options);
    let mut reporter = Reporter::new();
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    say("writes");
    let began = Instant::now();
    for turn in 1.. {
        std::thread::sleep((PERIOD * turn).saturating_sub(began.elapsed()));
        let late = began.elapsed().saturating_sub(PERIOD * turn).as_millis() as u32;
        let latest = reporter.occurrences.entry("late by ms".to_owned()).or_default();
        *latest = late.max(*latest);
        let before = Instant::now();
        match publish_now(&writer) {
            Ok(true) => reporter.report.frames += 1,
            Ok(false) => reporter.count("no slot"),
            Err(error) => reporter.count(kind(&error)),
        }
        reporter.report.longest = reporter.report.longest.max(before.elapsed());
        if turn % 16 == 0 {
            let event = NewEvent::new(4, &[7; 100]);
            writer.publish_event(event, Some(turn as usize / 16 % 8)).unwrap();
        }
        if !reporter.obey() {
            break;
        }
    }
    drop(service);
    drop(writer);
    say("stopped");
}

/// Reads every 64th byte of a frame. If the frame's memory were no longer mapped, these reads would crash the process.
fn touch(bytes: &[u8]) {
    black_box(bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>());
}

/// Reads all frames, and holds the last two frames that are in place. After an error, the process opens a new reader,
/// as a program does when it restarts.
fn reader(channel: &str, read_only: bool, max_held: u32) {
    let new = || -> Reader { open_reader(channel, ReaderOptions::default().read_only(read_only)) };
    let limits = ReadLimits::default().max_held(max_held);
    let mut reader = new();
    let (mut copy, mut held) = (Vec::new(), VecDeque::new());
    let mut reporter = Reporter::new();
    say("reads");
    while reporter.obey() {
        match reader.next(&mut copy, limits, Some(Duration::from_millis(50))) {
            Ok(Next::Frame(frame)) => {
                let report = &mut reporter.report;
                report.frames += 1;
                report.missed = report.missed.saturating_add(frame.missed);
                let bytes = bytes(&frame, &copy);
                assert!(bytes.len() as u64 == frame.descriptor.size && bytes.len() <= SIZE);
                touch(bytes);
                let age = Duration::from_nanos(monotonic_ns().saturating_sub(frame.descriptor.pts));
                report.longest = report.longest.max(age.min(60 * SECOND));
                if is_in_place(&frame) {
                    held.push_back(frame);
                }
                release(&mut held, &copy);
            }
            Ok(Next::TimedOut) => {}
            Ok(Next::Event(_)) => reporter.count("event"),
            Ok(other) => reporter.count(format!("{other:?}")),
            Err(error) => {
                reporter.count(kind(&error));
                held.clear();
                reader = new();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    drop(reader);
    say("stopped");
}

/// Releases all held frames except the last two. Before it releases a frame, it reads the frame once more.
fn release(held: &mut VecDeque<rsshm_channel::Frame>, copy: &[u8]) {
    while held.len() > 2
        && let Some(frame) = held.pop_front()
    {
        touch(bytes(&frame, copy));
    }
}

/// Whether each peer has published or received more than `frames` frames, or fewer on an emulated machine.
pub fn all_have(reports: &[(&'static str, Report)], frames: u32) -> bool {
    let frames = frames_on_this_machine(frames);
    reports.iter().all(|(_, report)| report.frames > frames)
}

/// A writer and readers of all kinds.
pub struct Honest {
    pub channel: Channel,
    writer: Process,
    readers: Vec<(&'static str, Process)>,
}

impl Honest {
    pub fn new() -> Self {
        let channel = Channel::new();
        let mut writer = role::start("hostile/writer", &[channel.as_str()]);
        writer.expect("writes");
        let readers = READERS.map(|role| {
            let mut reader = role::start(role, &[channel.as_str()]);
            reader.expect("reads");
            (role, reader)
        });
        let mut honest = Self {
            channel,
            writer,
            readers: readers.into(),
        };
        honest.wait_for_frames();
        honest
    }

    /// The reports of all peers, that of the writer first.
    #[track_caller]
    fn reports(&mut self) -> Vec<(&'static str, Report)> {
        let peers = std::iter::once(("hostile/writer", &mut self.writer))
            .chain(self.readers.iter_mut().map(|(role, peer)| (*role, peer)));
        peers
            .map(|(role, peer)| {
                peer.send("report");
                (role, Report::parse(&peer.receive()))
            })
            .collect()
    }

    /// Waits until each peer has published or received more frames than before this call.
    #[track_caller]
    fn wait_for_frames(&mut self) {
        let before = self.reports();
        eventually("all peers get frames", || {
            let mut pairs = before.iter().zip(self.reports());
            pairs.all(|((_, before), (_, now))| now.frames > before.frames)
        });
    }

    /// Runs `attack`, and returns what each peer reports about the time of the attack. Checks that no peer spins.
    #[track_caller]
    pub fn during(&mut self, what: &str, attack: impl FnOnce(&Channel)) -> Vec<(&'static str, Report)> {
        let before = self.reports();
        let began = Instant::now();
        attack(&self.channel);
        let took = began.elapsed();
        let after = self.reports();
        let reports: Vec<_> = before
            .into_iter()
            .zip(after)
            .map(|((role, before), (_, after))| {
                let report = Report {
                    frames: after.frames - before.frames,
                    missed: after.missed.saturating_sub(before.missed),
                    cpu: after.cpu - before.cpu,
                    ..after
                };
                println!(
                    "{what}, {took:.1?}: {role}: {} frames, {} missed, {:.1} % of a processor, longest {:.2?}, {}",
                    report.frames,
                    report.missed,
                    report.cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
                    report.longest,
                    report.occurrences
                );
                (role, report)
            })
            .collect();
        for (role, report) in &reports {
            // The limit is high, because a debug build on a busy machine uses much processor time. A peer that spins
            // exceeds it.
            assert!(
                report.cpu < took.mul_f64(processor_on_this_machine(0.4)),
                "{what}: {role} spins: {report:?} in {took:?}"
            );
        }
        reports
    }

    /// Checks that there is a second in which the writer publishes frames and all readers get them.
    #[track_caller]
    pub fn assert_well(&mut self, what: &str) {
        eventually(what, || {
            let reports = self.during(what, |_| std::thread::sleep(SECOND));
            all_have(&reports, RATE / 2)
        });
    }

    /// Checks that the writer ends and leaves no files, and that the readers then follow another writer.
    #[track_caller]
    pub fn assert_restart_is_clean(mut self) {
        self.writer.send("stop");
        self.writer.expect("stopped");
        self.channel.assert_removed();
        self.writer = role::start("hostile/writer", &[self.channel.as_str()]);
        self.writer.expect("writes");
        self.wait_for_frames();
        self.assert_well("after a restart");
        for (_, reader) in &mut self.readers {
            reader.send("stop");
            reader.expect("stopped");
        }
        self.writer.send("stop");
        self.writer.expect("stopped");
        self.channel.assert_removed();
    }
}
