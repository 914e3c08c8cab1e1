//! A peer that may write the segment writes nonsense into all of it, or rings without end; one that may only read it tries
//! what that is enough for. Nobody else crashes, hangs, or is kept busy.
//!
//! `RSSHM_TEST_SECONDS` makes the attacks longer.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, NOBODY, Service, become_user,
    child::{self, Child, listen, say},
    cpu_time, is_in_place, is_root,
    peer::{self, Peer},
    publish, seconds, wait_until,
};
use nix::libc;
use rsshm_channel::{
    Caps, ChannelName, Error, FrameDescriptor, NewEvent, Next, ReadLimits, Reader, ReaderOptions, Writer,
    WriterOptions,
    layout::{Header, MAX_READERS, reader_state},
};

#[test]
fn child() {
    child::play(&[
        ("writes", writes),
        ("reads in place", |channel| reads(channel, false, 3)),
        ("reads copies", |channel| reads(channel, false, 0)),
        ("observes", |channel| reads(channel, true, 0)),
        ("meddles with read permission", meddles),
    ]);
}

/// Frames a second that the writer publishes.
const RATE: u32 = 200;

/// What a peer says of itself when it is asked.
#[derive(Clone, Debug, Default)]
struct Report {
    frames: u64,
    missed: u64,
    cpu: Duration,
    longest: Duration,
    reported: String,
}

impl Report {
    fn say(&self) {
        say(format!(
            "{} {} {} {} {}",
            self.frames,
            self.missed,
            self.cpu.as_micros(),
            self.longest.as_micros(),
            self.reported
        ));
    }

    fn parse(line: &str) -> Self {
        let mut parts = line.splitn(5, ' ');
        let mut seq = || parts.next().unwrap().parse().unwrap();
        Self {
            frames: seq(),
            missed: seq(),
            cpu: Duration::from_micros(seq()),
            longest: Duration::from_micros(seq()),
            reported: parts.next().unwrap_or_default().to_owned(),
        }
    }
}

/// Listens to the test beside what else the process does.
struct Orders {
    asked: std::sync::mpsc::Receiver<String>,
}

impl Orders {
    fn new() -> Self {
        Self { asked: child::lines() }
    }

    /// `false` when it is time to stop.
    fn obey(&self, report: &mut Report, reported: &BTreeMap<String, u32>) -> bool {
        match self.asked.try_recv().as_deref() {
            Ok("report") => {
                report.cpu = cpu_time();
                report.reported = format!("{reported:?}");
                report.say();
                report.longest = Duration::ZERO;
                true
            }
            Ok("stop") => false,
            _ => true,
        }
    }
}

/// What an error is, without its numbers.
fn kind(error: &Error) -> String {
    format!("{error:?}").split(' ').next().unwrap().to_owned()
}

/// Publishes a frame that says when it was.
fn publish_now(writer: &Writer) -> Result<bool, Error> {
    let Some(mut slot) = writer.claim(common::SIZE)? else {
        return Ok(false);
    };
    slot.as_mut().fill(1);
    let descriptor = FrameDescriptor {
        size: common::SIZE as u64,
        pts: rsshm_channel::monotonic_ns(),
        ..FrameDescriptor::default()
    };
    writer.publish(&slot, descriptor, &[]).map(|()| true)
}

fn writes(channel: &str) {
    let orders = Orders::new();
    let options = WriterOptions {
        perms: 0o644,
        max_slots: 16,
        accept_messages: true,
        ..WriterOptions::default()
    };
    let writer = Arc::new(Writer::open(ChannelName::new(channel).unwrap(), options).unwrap());
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    say("writes");
    let (mut report, mut reported) = (Report::default(), BTreeMap::new());
    let began = Instant::now();
    for turn in 1.. {
        std::thread::sleep((Duration::from_secs(1) / RATE * turn).saturating_sub(began.elapsed()));
        let late = began
            .elapsed()
            .saturating_sub(Duration::from_secs(1) / RATE * turn)
            .as_millis() as u32;
        let latest = reported.entry("late by ms".to_owned()).or_default();
        *latest = late.max(*latest);
        let before = Instant::now();
        match publish_now(&writer) {
            Ok(true) => report.frames += 1,
            Ok(false) => *reported.entry("no slot".to_owned()).or_default() += 1,
            Err(error) => *reported.entry(kind(&error)).or_default() += 1,
        }
        report.longest = report.longest.max(before.elapsed());
        if turn % 16 == 0 {
            let event = NewEvent {
                kind: 4,
                bytes: &[7; 100],
                ..NewEvent::default()
            };
            writer.publish_event(event, Some(turn as usize / 16 % 8)).unwrap();
        }
        if !orders.obey(&mut report, &reported) {
            break;
        }
    }
    drop(service);
    drop(writer);
    say("stopped");
}

fn reads(channel: &str, read_only: bool, max_held: u32) {
    let orders = Orders::new();
    let name = ChannelName::new(channel).unwrap();
    let new = || Reader::new(name.clone(), ReaderOptions { read_only });
    let limits = ReadLimits {
        max_held,
        ..ReadLimits::default()
    };
    let mut reader = new();
    let (mut copy, mut held, mut sum) = (Vec::new(), VecDeque::new(), 0u64);
    let (mut report, mut reported) = (Report::default(), BTreeMap::<String, u32>::new());
    say("reads");
    while orders.obey(&mut report, &reported) {
        match reader.next(&mut copy, limits, Some(Duration::from_millis(50))) {
            Ok(Next::Frame(frame)) => {
                report.frames += 1;
                report.missed = report.missed.saturating_add(frame.missed);
                let bytes = common::bytes(&frame, &copy);
                assert!(bytes.len() as u64 == frame.descriptor.size && bytes.len() <= common::SIZE);
                // All of it can be read, now and later.
                sum += bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>();
                let age = Duration::from_nanos(rsshm_channel::monotonic_ns().saturating_sub(frame.descriptor.pts));
                report.longest = report.longest.max(age.min(Duration::from_secs(60)));
                if is_in_place(&frame) {
                    held.push_back(frame);
                }
                while held.len() > 2
                    && let Some(frame) = held.pop_front()
                {
                    sum += common::bytes(&frame, &copy)
                        .iter()
                        .step_by(64)
                        .map(|byte| u64::from(*byte))
                        .sum::<u64>();
                }
            }
            Ok(Next::TimedOut) => {}
            Ok(Next::Event(_)) => *reported.entry("event".to_owned()).or_default() += 1,
            Ok(other) => *reported.entry(format!("{other:?}")).or_default() += 1,
            Err(error) => {
                // A program that ends with this, and is started again.
                *reported.entry(kind(&error)).or_default() += 1;
                held.clear();
                reader = new();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    drop(reader);
    say(format!("stopped {}", sum % 2));
}

/// A channel's honest peers, each a process of its own.
struct Honest {
    channel: Channel,
    writer: Child,
    readers: Vec<(&'static str, Child)>,
}

impl Honest {
    fn new() -> Self {
        let channel = Channel::new();
        let writer = Child::start("writes", channel.as_str());
        writer.expect("writes");
        let readers = ["reads in place", "reads copies", "observes"].map(|role| {
            let reader = Child::start(role, channel.as_str());
            reader.expect("reads");
            (role, reader)
        });
        let mut honest = Self {
            channel,
            writer,
            readers: readers.into(),
        };
        std::thread::sleep(Duration::from_millis(300));
        honest.reports();
        honest
    }

    /// What all say: the writer first.
    #[track_caller]
    fn reports(&mut self) -> Vec<(&'static str, Report)> {
        let peers = std::iter::once(("writes", &mut self.writer))
            .chain(self.readers.iter_mut().map(|(role, peer)| (*role, peer)));
        peers
            .map(|(role, peer)| {
                peer.tell("report");
                (role, Report::parse(&peer.receive()))
            })
            .collect()
    }

    /// Does `attack` and says what it did to each: frames, processor time, and the longest publish or the oldest frame.
    #[track_caller]
    fn during(&mut self, what: &str, attack: impl FnOnce(&Channel)) -> Vec<(&'static str, Report)> {
        let before = self.reports();
        let began = Instant::now();
        attack(&self.channel);
        let took = began.elapsed();
        let after = self.reports();
        let found: Vec<_> = before
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
                    report.reported
                );
                (role, report)
            })
            .collect();
        for (role, report) in &found {
            // A debug build on a machine that is busy with other things; who spins takes all that it gets.
            assert!(
                report.cpu < took.mul_f64(0.4),
                "{what}: {role} spins: {report:?} in {took:?}"
            );
        }
        found
    }

    /// All have frames, and the writer publishes at full rate.
    #[track_caller]
    fn assert_well(&mut self, what: &str) {
        let found = self.during(what, |_| std::thread::sleep(Duration::from_secs(1)));
        for (role, report) in &found {
            assert!(report.frames > u64::from(RATE) / 2, "{what}: {role}: {report:?}");
        }
    }

    /// The writer ends, and leaves nothing; the next one has the readers.
    #[track_caller]
    fn assert_restart_is_clean(mut self) {
        self.writer.tell("stop");
        self.writer.expect("stopped");
        self.channel.assert_nothing_left();
        self.writer = Child::start("writes", self.channel.as_str());
        self.writer.expect("writes");
        std::thread::sleep(Duration::from_millis(300));
        self.assert_well("after a restart");
        for (_, reader) in &mut self.readers {
            reader.tell("stop");
            assert!(reader.receive().starts_with("stopped"));
        }
        self.writer.tell("stop");
        self.writer.expect("stopped");
        self.channel.assert_nothing_left();
    }
}

/// Random enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// The parts of a control area, each with its size.
fn parts(header: &Header) -> [(u64, u64); 9] {
    [
        (0, 256),
        (header.status_offset, 128),
        (header.caps_offset, header.caps_size & !7),
        (header.quotas_offset, MAX_READERS as u64 * 8),
        (header.readers_offset, MAX_READERS as u64 * 64),
        (header.ring_offset, u64::from(header.ring_count) * 8),
        (
            header.events_offset,
            u64::from(header.event_count * header.event_stride),
        ),
        (
            header.messages_offset,
            64 * u64::from(header.message_count * header.message_stride),
        ),
        (
            header.descriptors_offset,
            u64::from(header.slot_count) * u64::from(header.descriptor_stride),
        ),
    ]
}

/// Writes into all parts of the segment for a time, and into the semaphore; `sparing` leaves out what makes everybody look
/// for another segment, so that the rest is hit more.
fn scribble(channel: &Channel, time: Duration, sparing: bool, seed: u64) -> u64 {
    let mut random = Random(seed);
    // It has a seat, so what it pins there counts until it is evicted.
    let own = Peer::open(channel);
    own.sit_down();
    let until = Instant::now() + time;
    let mut writes = 0;
    while Instant::now() < until {
        // Another segment may have the name by now. This one may be damaged: the places are where a good one has them.
        let Some(peer) = Peer::try_open(channel) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        if !sparing
            && random.below(4) == 0
            && let Ok(file) = OpenOptions::new().write(true).open(channel.semaphore())
        {
            let _ = file.write_all_at(&random.next().to_ne_bytes(), random.below(4) * 8);
        }
        let parts = parts(&peer.header);
        for _ in 0..2000 {
            let which = random.below(parts.len() as u64) as usize;
            if sparing && (which == 0 || which == 2) {
                continue;
            }
            let (at, size) = parts[which];
            let at = at + random.below(size / 8) * 8;
            if sparing && at == peer.header.status_offset + 24 {
                continue;
            }
            let word: &AtomicU64 = peer.at(at);
            let now = word.load(Ordering::Relaxed);
            word.store(
                match random.below(8) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => random.below(256),
                    3 => now.wrapping_add(random.below(9)).wrapping_sub(4),
                    4 => now ^ 1 << random.below(64),
                    5 => random.below(4) << 32 | random.below(4),
                    6 => random.below(u64::from(peer.header.slots_offset as u32)) / 64 * 64,
                    _ => random.next(),
                },
                Ordering::Relaxed,
            );
            writes += 1;
            if random.below(64) == 0 {
                peer::wake(&peer.status().published);
                peer::wake(&peer.status().writer_word);
            }
            if random.below(50) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(200)));
            }
        }
    }
    writes
}

#[test]
fn nonsense_in_all_of_the_segment_ends_nobody() {
    let mut honest = Honest::new();
    for (round, sparing) in [false, true].into_iter().enumerate() {
        let what = if sparing {
            "nonsense but in the header"
        } else {
            "nonsense everywhere"
        };
        honest.during(what, |channel| {
            let writes = scribble(channel, seconds(2.0), sparing, 0x9e37_79b9_7f4a_7c15 + round as u64);
            println!("{writes} words written");
        });
        // What never changes is looked at once a second.
        std::thread::sleep(Duration::from_millis(2500));
        honest.assert_well("after it");
    }
    honest.assert_restart_is_clean();
}

/// The segment says that it is over, or something else in its header: all go on in a new one.
#[test]
fn a_segment_that_was_written_into_is_replaced() {
    type Spoil = fn(&Peer);
    let cases: [(&str, Spoil); 4] = [
        ("superseded", |peer| peer.status().state.store(1, Ordering::SeqCst)),
        ("closed", |peer| peer.status().state.store(2, Ordering::SeqCst)),
        ("lock inode", |peer| peer.at::<AtomicU64>(40).store(1, Ordering::SeqCst)),
        ("format", |peer| {
            peer.at::<AtomicU64>(peer.header.caps_offset).store(0, Ordering::SeqCst)
        }),
    ];
    for (what, spoil) in cases {
        let channel = Channel::new();
        let writer = channel.writer(common::slots(8));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        spoil(&Peer::open(&channel));
        wait_until(what, Duration::from_secs(3), || service.seen().repaired);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        assert!(publish(&writer, 2));
        common::check(&common::next(&mut reader, &mut copy), &copy, 2);
        assert_eq!(reader.caps(), common::CAPS);
        assert_eq!(writer.stats().segments, 2);
    }
}

/// Rings a word of the channel as fast as it can, for a time.
fn ring(channel: &Channel, time: Duration, word: impl Fn(&Peer) -> &AtomicU32) {
    let peer = Peer::open(channel);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..1000 {
            word(&peer).fetch_add(1, Ordering::Relaxed);
            peer::wake(word(&peer));
        }
    }
}

#[test]
fn who_only_rings_keeps_nobody_busy() {
    let mut honest = Honest::new();
    for (what, published) in [("writer_word rung", false), ("published rung", true)] {
        let found = honest.during(what, |channel| {
            ring(channel, seconds(1.5), |peer| match published {
                true => &peer.status().published,
                false => &peer.status().writer_word,
            });
        });
        for (role, report) in &found {
            assert!(report.frames > u64::from(RATE), "{what}: {role}: {report:?}");
        }
    }
    honest.assert_restart_is_clean();
}

/// A lossless writer that waits for a reader is not kept busy either.
#[test]
fn a_waiting_lossless_writer_is_not_kept_busy() {
    let channel = Channel::new();
    let writer = channel.writer(common::lossless(4));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let peer = Peer::open(&channel);
    // A reader that never takes a frame.
    peer.sit_down();
    let waits = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || while publish(&writer, 2) {}
    });
    wait_until("it waits", Duration::from_secs(5), || {
        peer.status().writer_waits.load(Ordering::SeqCst) != 0
    });
    let before = cpu_time();
    let began = Instant::now();
    // One ring in 20 microseconds: the rest of this processor time is the writer's.
    let mut rings = 0;
    while began.elapsed() < Duration::from_secs(1) {
        peer.status().writer_word.fetch_add(1, Ordering::Relaxed);
        peer::wake(&peer.status().writer_word);
        rings += 1;
        std::thread::sleep(Duration::from_micros(20));
    }
    let cpu = cpu_time() - before;
    println!("{rings} rings, {cpu:?} of processor time for who rings and who is rung");
    writer.interrupt();
    waits.join().unwrap();
    assert!(cpu < Duration::from_millis(600), "{cpu:?} in a second");
}

/// The grant says "evicted" each time the reader looks.
#[test]
fn a_reader_that_is_evicted_again_and_again_does_not_spin() {
    let channel = Channel::new();
    let writer = channel.writer(common::slots(12));
    assert!(publish(&writer, 1));
    let peer = Peer::open(&channel);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let began = Instant::now();
    let mut evictions = 0;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (peer, stop) = (&peer, &stop);
        let stopping = common::StopAtEnd(stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for entry in 0..4 {
                    let generation = u64::from(peer.entry(entry).generation.load(Ordering::Relaxed));
                    let quota: &AtomicU64 = peer.at(peer.header.quotas_offset + entry as u64 * 8);
                    quota.store(generation << 32 | u64::from(u32::MAX), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        while began.elapsed() < Duration::from_millis(1500) {
            let next = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(20)));
            evictions += u32::from(matches!(next, Ok(Next::Evicted)));
        }
        drop(stopping);
    });
    println!("evicted {evictions} times in {:?}", began.elapsed());
    assert!((1..=4).contains(&evictions), "{evictions}");
    // And it comes back.
    wait_until("a frame", Duration::from_secs(3), || {
        assert!(publish(&writer, 3));
        matches!(
            reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(20))),
            Ok(Next::Frame(_))
        )
    });
}

/// Sleeps of other programs on the words at `from` are moved to a word of one's own, where nobody wakes them.
fn steal_sleepers(from: &AtomicU32, own: &AtomicU32) -> i64 {
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            from.as_ptr(),
            libc::FUTEX_REQUEUE,
            0,
            libc::c_long::from(i32::MAX),
            own.as_ptr(),
        )
    }
}

fn refused(result: i32) -> bool {
    result == -1
}

/// Does, as another user, what read permission is enough for. The argument: the channel and what to do.
fn meddles(argument: &str) {
    let (channel, what) = argument.split_once(' ').unwrap();
    become_user(NOBODY, NOBODY);
    let path = format!("/dev/shm/{channel}");
    let file = File::open(&path).unwrap();
    let size = file.metadata().unwrap().len() as usize;
    let fd = file.as_raw_fd();
    let map = |protection| unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
    let mapped = map(libc::PROT_READ);
    assert!(mapped != libc::MAP_FAILED);
    let word = |at: u64| unsafe { &*mapped.cast::<u8>().add(at as usize).cast::<AtomicU32>() };
    let (published, writer_word) = (word(256 + 24), word(256 + 64));
    // Shared, as only sleeps of one kind can be moved.
    let own = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    let own = unsafe { &*own.cast::<AtomicU32>() };
    match what {
        "tries" => {
            let opens = |path: &str| OpenOptions::new().write(true).open(path).is_ok();
            let own_fd = format!("/proc/self/fd/{fd}");
            let cpath = std::ffi::CString::new(path.clone()).unwrap();
            let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let pwrite = unsafe { libc::pwrite(fd, [0u8; 8].as_ptr().cast(), 8, 256) };
            let done = [
                ("open", opens(&path)),
                ("open again", opens(&own_fd)),
                (
                    "open the semaphore",
                    File::open(format!("/dev/shm/sem.{channel}")).is_ok(),
                ),
                ("write", pwrite >= 0),
                ("truncate", !refused(unsafe { libc::ftruncate(fd, 0) })),
                (
                    "truncate by name",
                    !refused(unsafe { libc::truncate(cpath.as_ptr(), 0) }),
                ),
                ("fallocate", !refused(unsafe { libc::fallocate(fd, 0, 0, 1 << 30) })),
                ("punch", !refused(unsafe { libc::fallocate(fd, hole, 0, 4096) })),
                (
                    "map for writing",
                    map(libc::PROT_READ | libc::PROT_WRITE) != libc::MAP_FAILED,
                ),
                (
                    "mprotect",
                    !refused(unsafe { libc::mprotect(mapped, 4096, libc::PROT_READ | libc::PROT_WRITE) }),
                ),
                ("remove", !refused(unsafe { libc::unlink(cpath.as_ptr()) })),
                ("rename", std::fs::rename(&path, format!("{path}-stolen")).is_ok()),
                ("replace", std::fs::File::create_new(&path).is_ok()),
                ("chmod", !refused(unsafe { libc::fchmod(fd, 0o666) })),
                (
                    "lease",
                    !refused(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) }),
                ),
                ("write lock", peer::lock(&file, libc::F_WRLCK, 0, 0)),
            ];
            let done: Vec<_> = done
                .into_iter()
                .filter(|(_, done)| *done)
                .map(|(what, _)| what)
                .collect();
            // What is to be had: read locks of all bytes, and flock's of both kinds, on descriptions that are kept.
            let kept: Vec<_> = [(0, 4096), (4097, 0), (4096, 1)]
                .map(|(byte, length)| {
                    let file = File::open(&path).unwrap();
                    peer::lock(&file, libc::F_RDLCK, byte, length);
                    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
                    file
                })
                .into();
            // Every byte that there is, by the mapping: that brings no memory into the file.
            let bytes = unsafe { std::slice::from_raw_parts(mapped.cast::<u8>(), size) };
            let sum: u64 = bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
            say(format!("did {done:?} {}", u64::from(sum > u64::MAX / 2)));
            listen();
            drop(kept);
        }
        "wakes" => {
            say("goes on");
            loop {
                peer::wake(published);
                peer::wake(writer_word);
            }
        }
        "steals" => {
            say("goes on");
            loop {
                steal_sleepers(published, own);
                steal_sleepers(writer_word, own);
            }
        }
        "sleeps" => {
            // As many sleepers as a user has threads for; here a thousand.
            let address = mapped.addr();
            for _ in 0..1000 {
                std::thread::Builder::new()
                    .stack_size(64 << 10)
                    .spawn(move || {
                        let published = std::ptr::without_provenance::<AtomicU32>(address + 256 + 24);
                        loop {
                            unsafe {
                                let seen = std::ptr::read_volatile(published.cast::<u32>());
                                libc::syscall(libc::SYS_futex, published, libc::FUTEX_WAIT, seen, 0);
                            }
                        }
                    })
                    .unwrap();
            }
            say("goes on");
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        _ => panic!("{what}"),
    }
}

/// Blocks that /dev/shm has in use.
fn fill() -> u64 {
    let vfs = nix::sys::statvfs::statvfs("/dev/shm").unwrap();
    vfs.blocks() - vfs.blocks_free()
}

#[test]
fn who_may_only_read_changes_nothing() {
    if !is_root() {
        return;
    }
    let mut honest = Honest::new();
    let quiet = honest.during("quiet", |_| std::thread::sleep(seconds(1.5)));
    let file_id = |channel: &Channel| {
        let file = std::fs::metadata(channel.segment()).unwrap();
        (file.ino(), file.mode())
    };
    let before = file_id(&honest.channel);
    let fill_before = fill();
    for what in ["tries", "wakes", "steals", "sleeps"] {
        let found = honest.during(what, |channel| {
            let meddler = Child::start("meddles with read permission", &format!("{} {what}", channel.as_str()));
            let said = meddler.receive();
            assert!(said == "goes on" || said == "did [] 0", "{said}");
            std::thread::sleep(seconds(1.5));
        });
        for (role, report) in &found {
            assert!(report.frames > u64::from(RATE), "{what}: {role}: {report:?}");
            assert!(!report.reported.contains("Evicted"), "{report:?}");
        }
        assert!(
            found[0].1.longest < quiet[0].1.longest + Duration::from_millis(100),
            "{found:?}"
        );
    }
    assert_eq!(file_id(&honest.channel), before);
    // Memory behind every byte, and no more.
    let file = std::fs::metadata(honest.channel.segment()).unwrap();
    assert_eq!(file.blocks() * 512, file.size());
    println!("/dev/shm had {fill_before} blocks in use, and has {}", fill());
    honest.assert_restart_is_clean();
}

/// A seat that nobody holds says that somebody sits there, and pins all: it does not count.
#[test]
fn a_faked_seat_counts_for_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(common::slots(6));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let peer = Peer::open(&channel);
    for entry in 0..MAX_READERS {
        peer.entry(entry).generation.store(5, Ordering::SeqCst);
        peer.entry(entry).state.store(reader_state::ATTACHED, Ordering::SeqCst);
        peer.entry(entry).pins.store(u64::MAX, Ordering::SeqCst);
    }
    for value in 2..200 {
        assert!(publish(&writer, value), "no slot for {value}");
    }
    assert_eq!(service.seen().reader_count, 0);
}
