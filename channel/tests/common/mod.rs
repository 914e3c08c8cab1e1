//! What the tests of the channel share.
#![allow(dead_code)] // each test binary uses a part of it

pub mod child;
pub mod peer;

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rsshm_channel::{
    Caps, ChannelName, Error, Frame, FrameData, FrameDescriptor, NewEvent, Next, ReadLimits, Reader, ReaderOptions,
    ServiceReport, Writer, WriterOptions, layout::DELTA_UNIT,
};

/// Bytes of a frame.
pub const SIZE: usize = 64 * 256;
pub const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=256,framerate=30/1";

/// A name of a test's own, whose files are removed at its end, also where it fails.
#[derive(Debug)]
pub struct Channel(pub ChannelName);

impl Channel {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(ChannelName::new(format!("rsshm-test-{}-{count}", std::process::id())).unwrap())
    }

    pub fn segment(&self) -> PathBuf {
        format!("/dev/shm/{}", self.0).into()
    }

    pub fn semaphore(&self) -> PathBuf {
        format!("/dev/shm/sem.{}", self.0).into()
    }

    pub fn remove_files(&self) {
        let _ = std::fs::remove_file(self.segment());
        let _ = std::fs::remove_file(self.semaphore());
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for file in [self.segment(), self.semaphore()] {
            assert!(!file.exists(), "{} is left", file.display());
        }
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.0.clone(), ReaderOptions::default())
    }

    pub fn observer(&self) -> Reader {
        Reader::new(self.0.clone(), ReaderOptions { read_only: true })
    }

    pub fn writer(&self, options: WriterOptions) -> Arc<Writer> {
        let writer = Writer::open(self.0.clone(), options).unwrap();
        writer.set_caps(Caps::fixed_size(CAPS, SIZE));
        Arc::new(writer)
    }
}

impl Deref for Channel {
    type Target = ChannelName;

    fn deref(&self) -> &ChannelName {
        &self.0
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.remove_files();
    }
}

pub fn slots(max_slots: u32) -> WriterOptions {
    WriterOptions {
        max_slots,
        ..WriterOptions::default()
    }
}

pub fn lossless(max_slots: u32) -> WriterOptions {
    WriterOptions {
        max_slots,
        lossless: true,
        ..WriterOptions::default()
    }
}

/// Publishes a frame whose bytes are all `value`'s lowest and whose offset is `value`; `false` when there was no slot.
#[track_caller]
pub fn publish(writer: &Writer, value: u64) -> bool {
    publish_sized(writer, value, SIZE)
}

#[track_caller]
pub fn publish_sized(writer: &Writer, value: u64, size: usize) -> bool {
    publish_described(
        writer,
        FrameDescriptor {
            size: size as u64,
            offset: value,
            ..FrameDescriptor::default()
        },
    )
}

/// Bytes of a frame of a compressed stream: most are small.
pub const UNIT: usize = 256;

/// Publishes a frame of a compressed stream: one that can be decoded alone, or a delta to those before it.
#[track_caller]
pub fn publish_unit(writer: &Writer, value: u64, is_delta: bool) -> bool {
    publish_described(
        writer,
        FrameDescriptor {
            size: UNIT as u64,
            offset: value,
            flags: if is_delta { DELTA_UNIT } else { 0 },
            ..FrameDescriptor::default()
        },
    )
}

/// Publishes a frame whose bytes are all the lowest of its offset.
#[track_caller]
pub fn publish_described(writer: &Writer, descriptor: FrameDescriptor) -> bool {
    loop {
        let Some(mut slot) = writer.claim(descriptor.size as usize).unwrap() else {
            return false;
        };
        slot.as_mut().fill(descriptor.offset as u8);
        match writer.publish(&slot, descriptor, &[]) {
            Ok(()) => return true,
            // The service made another segment between the two.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Tells readers of an event with a text, which lasts in the place given.
#[track_caller]
pub fn tell(writer: &Writer, text: &str, sticky: Option<usize>) {
    let event = NewEvent {
        kind: 7,
        bytes: text.as_bytes(),
        ..NewEvent::default()
    };
    writer.publish_event(event, sticky).unwrap();
}

/// All that comes without waiting: frames by their offsets, events by their texts.
#[track_caller]
pub fn all(reader: &mut Reader, limits: ReadLimits) -> Vec<String> {
    let mut copy = Vec::new();
    let mut all = Vec::new();
    loop {
        all.push(match reader.next(&mut copy, limits, Some(Duration::ZERO)).unwrap() {
            Next::Frame(frame) => {
                check_bytes(&frame, &copy);
                frame.descriptor.offset.to_string()
            }
            Next::Event(event) => String::from_utf8(event.bytes).unwrap(),
            Next::EndOfStream => "end".to_owned(),
            Next::TimedOut => return all,
            other => panic!("{other:?}"),
        });
    }
}

/// Limits under which at most so many frames wait.
pub fn behind(max_behind: u32) -> ReadLimits {
    ReadLimits {
        max_behind,
        ..ReadLimits::default()
    }
}

/// A user that has nothing, "nobody".
pub const NOBODY: u32 = 65534;

/// Makes this process another user's.
pub fn become_user(user: u32, group: u32) {
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(group)).unwrap();
    setuid(Uid::from_raw(user)).unwrap();
}

pub fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: it takes root to become another user");
    }
    root
}

/// Processor time that this process has had.
pub fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .unwrap()
        .into()
}

/// What a process has of the system: it grows where something is never given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub files: usize,
    pub mappings: usize,
    pub memory_kib: u64,
}

impl Holdings {
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        Self {
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// No file is open that was not before. A few mappings and some memory are the allocator's.
    #[track_caller]
    pub fn assert_not_above(&self, before: &Self) {
        assert!(
            self.files <= before.files
                && self.mappings <= before.mappings + 8
                && self.memory_kib <= before.memory_kib + 4096,
            "{before:?} have become {self:?}"
        );
    }
}

/// How often a test does what takes long: more often where `RSSHM_TEST_SECONDS` is set.
pub fn times(short: u32, long: u32) -> u32 {
    if std::env::var_os("RSSHM_TEST_SECONDS").is_some() {
        long
    } else {
        short
    }
}

/// For how long a test does what can be done for any time: `RSSHM_TEST_SECONDS`, or the time that is short.
pub fn seconds(short: f64) -> Duration {
    let asked = std::env::var("RSSHM_TEST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs_f64(asked.unwrap_or(short))
}

/// The next frame, which must come within five seconds.
#[track_caller]
pub fn next(reader: &mut Reader, copy: &mut Vec<u8>) -> Frame {
    next_within(reader, copy, ReadLimits::default())
}

#[track_caller]
pub fn next_within(reader: &mut Reader, copy: &mut Vec<u8>, limits: ReadLimits) -> Frame {
    match reader.next(copy, limits, Some(Duration::from_secs(5))).unwrap() {
        Next::Frame(frame) => frame,
        other => panic!("{other:?} and no frame"),
    }
}

/// Publishes frames until the reader gets one in place: until the writer has seen it and granted it slots.
#[track_caller]
pub fn next_in_place(writer: &Writer, reader: &mut Reader, copy: &mut Vec<u8>) -> Frame {
    for _ in 0..1000 {
        assert!(publish(writer, 201));
        let frame = next(reader, copy);
        if is_in_place(&frame) {
            return frame;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nothing is granted");
}

/// What a poll says, with no patience.
pub fn poll(reader: &mut Reader, copy: &mut Vec<u8>) -> Next {
    reader
        .next(copy, ReadLimits::default(), Some(Duration::from_millis(1)))
        .unwrap()
}

pub fn bytes<'a>(frame: &'a Frame, copy: &'a [u8]) -> &'a [u8] {
    match &frame.data {
        FrameData::InPlace(pinned) => pinned.as_ref(),
        FrameData::Copied => copy,
    }
}

pub fn is_in_place(frame: &Frame) -> bool {
    matches!(frame.data, FrameData::InPlace(_))
}

/// Checks that a frame is the one published with `value`, all of it.
#[track_caller]
pub fn check(frame: &Frame, copy: &[u8], value: u64) {
    assert_eq!(frame.descriptor.offset, value);
    check_bytes(frame, copy);
}

/// Checks that a frame's bytes are those of its descriptor.
#[track_caller]
pub fn check_bytes(frame: &Frame, copy: &[u8]) {
    let bytes = bytes(frame, copy);
    assert_eq!(bytes.len() as u64, frame.descriptor.size);
    let value = frame.descriptor.offset as u8;
    assert!(
        is_filled(bytes, value),
        "frame {} is torn: {value} and {:?}",
        frame.seq,
        bytes.iter().find(|byte| **byte != value)
    );
}

pub fn is_filled(bytes: &[u8], value: u8) -> bool {
    // A comparison of memory is far faster than a loop in a build without optimisation.
    bytes == vec![value; bytes.len()]
}

/// Waits until `ready`, and fails when it is not within `limit`. Yields how long it took.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

/// Tells the threads of a scope to stop, also where the test fails: it would wait for them for ever.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A thread that looks after a writer as rsshmsink's monitor does.
pub struct Service {
    writer: Arc<Writer>,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<ServiceReport>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn of(writer: &Arc<Writer>) -> Self {
        let (writer, stop) = (Arc::clone(writer), Arc::new(AtomicBool::new(false)));
        let seen = Arc::<Mutex<ServiceReport>>::default();
        let thread = std::thread::spawn({
            let (writer, stop, seen) = (Arc::clone(&writer), Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    writer.wait_for_service(Duration::from_millis(250));
                    let clients = writer.service().unwrap();
                    let mut seen = seen.lock().unwrap();
                    seen.reader_count = clients.reader_count;
                    seen.connected.extend(clients.connected);
                    seen.disconnected.extend(clients.disconnected);
                    seen.evicted.extend(clients.evicted);
                    seen.names_restored |= clients.names_restored;
                    seen.repaired |= clients.repaired;
                    seen.semaphore_faults.extend(clients.semaphore_faults);
                    seen.keyframe_wanted |= clients.keyframe_wanted;
                    seen.messages.extend(clients.messages);
                }
            }
        });
        Self {
            writer,
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// All that happened since the start, and how many readers there are now.
    pub fn seen(&self) -> ServiceReport {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.stop_service();
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(result, Some(Ok(()))), "the service failed");
        }
    }
}
