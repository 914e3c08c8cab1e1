// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helpers that the test modules share. They open writers and readers, publish and check frames, and measure resources.

pub mod futex;
pub mod mapping;
pub mod raw;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use rsshm_channel::{
    Caps, ChannelName, Error, Frame, FrameData, FrameDescriptor, NewEvent, Next, ReadLimits, Reader, ReaderOptions,
    ServiceReport, ServiceThread, Writer, WriterOptions, layout::DELTA_UNIT,
};
use rsshm_testkit::{Channel, frames::is_filled};

/// The size of a frame in bytes.
pub const SIZE: usize = 64 * 256;

/// The caps of a channel whose frames have [`SIZE`] bytes.
pub const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=256,framerate=30/1";

/// The size in bytes of most frames of a compressed stream. It is small, because compressed frames are usually small.
pub const COMPRESSED_SIZE: usize = 20_000;

/// One second.
pub const SECOND: Duration = Duration::from_secs(1);

/// The writer and the readers of a test's channel.
pub trait ChannelExt {
    /// A reader that takes a reader entry when it attaches.
    fn reader(&self) -> Reader;
    /// A reader without a reader entry.
    fn observer(&self) -> Reader;
    /// A writer with [`CAPS`].
    fn writer(&self, options: WriterOptions) -> Arc<Writer>;
}

impl ChannelExt for Channel {
    fn reader(&self) -> Reader {
        Reader::new(self.0.clone(), ReaderOptions::default())
    }

    fn observer(&self) -> Reader {
        Reader::new(self.0.clone(), ReaderOptions::default().read_only(true))
    }

    fn writer(&self, options: WriterOptions) -> Arc<Writer> {
        let writer = Writer::open(self.0.clone(), options).unwrap();
        writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
        Arc::new(writer)
    }
}

/// Opens a writer of the channel `name` with [`CAPS`], in the process of a role.
pub fn open_writer(name: &str, options: WriterOptions) -> Arc<Writer> {
    let writer = try_open_writer(name, options).unwrap();
    writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
    Arc::new(writer)
}

/// Tries to open a writer of the channel `name`, in the process of a role.
pub fn try_open_writer(name: &str, options: WriterOptions) -> Result<Writer, Error> {
    Writer::open(ChannelName::new(name).unwrap(), options)
}

/// Opens a reader of the channel `name`, in the process of a role.
pub fn open_reader(name: &str, options: ReaderOptions) -> Reader {
    Reader::new(ChannelName::new(name).unwrap(), options)
}

/// Options with at most `max_slots` slots.
pub fn slots(max_slots: u32) -> WriterOptions {
    WriterOptions::default().max_slots(max_slots)
}

/// Options of a lossless writer with at most `max_slots` slots.
pub fn lossless(max_slots: u32) -> WriterOptions {
    slots(max_slots).lossless(true)
}

/// Limits for a reader that is at most `max_behind` frames behind.
pub fn behind(max_behind: u32) -> ReadLimits {
    ReadLimits::default().max_behind(max_behind)
}

/// The descriptor of a frame with `size` bytes. Its field `offset`, which identifies the frame, is `value`.
pub fn descriptor(size: usize, value: u64) -> FrameDescriptor {
    FrameDescriptor::new(size as u64).with_offset(value)
}

/// Publishes a frame of [`SIZE`] bytes. Each byte is the lowest byte of `value`, and the descriptor's field `offset` is
/// `value`. Returns `false` if there was no slot.
#[track_caller]
pub fn publish(writer: &Writer, value: u64) -> bool {
    publish_sized(writer, value, SIZE)
}

/// Publishes a frame as [`publish`] does, but with `size` bytes.
#[track_caller]
pub fn publish_sized(writer: &Writer, value: u64, size: usize) -> bool {
    publish_frame(writer, descriptor(size, value))
}

/// Publishes a frame of a compressed stream, in a slot of its own: a delta if `is_delta`, otherwise a keyframe. Returns
/// `false` if there was no slot.
#[track_caller]
pub fn publish_compressed(writer: &Writer, value: u64, is_delta: bool) -> bool {
    let flags = if is_delta { DELTA_UNIT } else { 0 };
    let descriptor = descriptor(COMPRESSED_SIZE, value).with_flags(flags);
    loop {
        // A claim for upstream never appends to a run.
        let Some(mut slot) = writer.upstream().claim(COMPRESSED_SIZE).unwrap() else {
            return false;
        };
        slot.as_mut().fill(value as u8);
        match writer.publish(&slot, descriptor, &[]) {
            Ok(_) => return true,
            // The service created another segment between `claim` and `publish`.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes a frame with this descriptor. Each byte of the frame is the lowest byte of the field `offset`. Returns
/// `false` if there was no slot.
#[track_caller]
pub fn publish_frame(writer: &Writer, descriptor: FrameDescriptor) -> bool {
    loop {
        let Some(mut slot) = writer.claim(descriptor.size as usize).unwrap() else {
            return false;
        };
        slot.as_mut().fill(descriptor.offset as u8);
        match writer.publish(&slot, descriptor, &[]) {
            Ok(_) => return true,
            // The service created another segment between `claim` and `publish`.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes an event that contains `text`. If `sticky` is given, the event is sticky, and `sticky` is its place among
/// the sticky events.
#[track_caller]
pub fn publish_event(writer: &Writer, text: &str, sticky: Option<usize>) {
    writer.publish_event(NewEvent::new(7, text.as_bytes()), sticky).unwrap();
}

/// All items that the reader gets without waiting. A frame is listed as its offset, an event as its text, and an end of
/// the stream as "end".
#[track_caller]
pub fn drain(reader: &mut Reader, limits: ReadLimits) -> Vec<String> {
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

/// The next frame, which must come within five seconds.
#[track_caller]
pub fn next(reader: &mut Reader, copy: &mut Vec<u8>) -> Frame {
    next_within(reader, copy, ReadLimits::default())
}

/// The next frame under these limits, which must come within five seconds.
#[track_caller]
pub fn next_within(reader: &mut Reader, copy: &mut Vec<u8>, limits: ReadLimits) -> Frame {
    match reader.next(copy, limits, Some(5 * SECOND)).unwrap() {
        Next::Frame(frame) => frame,
        other => panic!("{other:?} instead of a frame"),
    }
}

/// Publishes frames until the reader gets one in place. The reader gets frames in place when the writer has noticed it
/// and has raised its quota.
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
    panic!("the reader gets no quota");
}

/// The next item. The reader waits for at most a millisecond.
pub fn poll(reader: &mut Reader, copy: &mut Vec<u8>) -> Next {
    reader
        .next(copy, ReadLimits::default(), Some(Duration::from_millis(1)))
        .unwrap()
}

/// The bytes of a frame. `copy` is the buffer that the test passed to the reader.
///
/// The tests do not use `Frame::bytes`, which would hide that a copy is larger than the frame.
pub fn bytes<'a>(frame: &'a Frame, copy: &'a [u8]) -> &'a [u8] {
    match &frame.data {
        FrameData::InPlace(pinned) => pinned.as_ref(),
        _ => copy,
    }
}

pub fn is_in_place(frame: &Frame) -> bool {
    matches!(frame.data, FrameData::InPlace(_))
}

/// Checks that a frame is whole and was published with `value`.
#[track_caller]
pub fn check(frame: &Frame, copy: &[u8], value: u64) {
    assert_eq!(frame.descriptor.offset, value);
    check_bytes(frame, copy);
}

/// Checks that a frame is whole: its size and each of its bytes must agree with its descriptor.
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

/// The processor time that this process has used.
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// The system resources that a process holds. They grow if the process leaks a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    pub files: usize,
    pub mappings: usize,
    pub memory_kib: u64,
}

impl Resources {
    /// The resources that this process holds now.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        Self {
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Checks that the number of open files has not grown. A few more mappings and some more memory are allowed,
    /// because the allocator may have taken them.
    #[track_caller]
    pub fn assert_not_grown_since(&self, before: &Self) {
        assert!(
            self.files <= before.files
                && self.mappings <= before.mappings + 8
                && self.memory_kib <= before.memory_kib + 4096,
            "{before:?} have become {self:?}"
        );
    }
}

/// Limits a resource of this process.
pub fn limit(resource: Resource, most: u64) {
    let (_, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, most.min(hard), hard).unwrap();
}

/// The number of repetitions of a slow step: `long` if `RSSHM_TEST_SECONDS` is set, otherwise `short`.
pub fn repetitions(short: u32, long: u32) -> u32 {
    if std::env::var_os("RSSHM_TEST_SECONDS").is_some() {
        long
    } else {
        short
    }
}

/// The duration of a test that can run for any length of time: `RSSHM_TEST_SECONDS` if this variable is set, otherwise
/// `short` seconds.
pub fn test_duration(short: f64) -> Duration {
    seconds_from("RSSHM_TEST_SECONDS", short)
}

/// The seconds in an environment variable, or `default`.
pub fn seconds_from(variable: &str, default: f64) -> Duration {
    let asked = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(asked.unwrap_or(default))
}

/// When this value is dropped, the threads of a scope stop. The value is dropped even if the test fails; otherwise the
/// scope would wait for its threads for ever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // Relaxed: the flag carries no other data.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `test` while a thread publishes frames with the values from 2 on, as fast as it can.
pub fn beside_full_speed(writer: &Writer, test: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1;
            // Relaxed: the flag carries no other data.
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                assert!(publish(writer, value));
            }
        });
        let _stopping = StopOnDrop(&stop);
        test();
    });
}

/// A thread that runs a writer's service, as rsshmsink does.
pub struct Service {
    thread: Option<ServiceThread>,
    seen: Arc<Mutex<ServiceReport>>,
}

impl Service {
    /// Starts the thread.
    pub fn of(writer: &Arc<Writer>) -> Self {
        let seen = Arc::<Mutex<ServiceReport>>::default();
        let thread = ServiceThread::spawn(Arc::clone(writer), Duration::from_millis(250), {
            let seen = Arc::clone(&seen);
            move |_, report| {
                let report = report.unwrap();
                let mut seen = seen.lock().unwrap();
                seen.reader_count = report.reader_count;
                seen.connected.extend(report.connected);
                seen.disconnected.extend(report.disconnected);
                seen.evicted.extend(report.evicted);
                seen.names_restored |= report.names_restored;
                seen.repaired |= report.repaired;
                seen.semaphore_faults.extend(report.semaphore_faults);
                seen.keyframe_wanted |= report.keyframe_wanted;
                seen.messages.extend(report.messages);
            }
        });
        Self {
            thread: Some(thread.unwrap()),
            seen,
        }
    }

    /// The merged reports of all passes since the start, with the current number of readers.
    pub fn seen(&self) -> ServiceReport {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let result = self.thread.take().map(ServiceThread::stop);
        if !std::thread::panicking() {
            assert!(matches!(result, Some(Ok(()))), "the service failed");
        }
    }
}
