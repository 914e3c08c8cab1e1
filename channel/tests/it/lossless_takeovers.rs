// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lossless writers that die one after the other. A writer knows the segment of the writer before it, but none of the
//! segments before that, in which slow readers may still be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::libc;
use rsshm_channel::{Caps, Frame, Next, ReadLimits, Reader, ReaderOptions, Writer, layout::FIRST_PRESENCE_BYTE};
use rsshm_testkit::{
    Channel,
    process::Process,
    role::{self, Role, listen, say},
    wait_until,
};

use crate::{
    failpoints::{AtFailpoint, STOP},
    support::{
        CAPS, ChannelExt, SECOND, SIZE, check, descriptor, lossless, next, open_reader, open_writer, poll,
        publish_event, raw,
    },
};

pub const ROLES: &[(&str, Role)] = &[
    ("lossless takeovers/writer", |arguments| writer(arguments[0])),
    ("lossless takeovers/reader", |arguments| reader(arguments[0])),
    ("lossless takeovers/follower", |arguments| follower(arguments[0])),
];

/// The last frame of each test. There are more frames than slots, so a reader that the writer does not wait for misses
/// some.
const LAST: u64 = 30;

/// Makes a segment. Each line that it receives from the test is the number of frames to publish.
fn writer(channel: &str) {
    let writer = open_writer(channel, lossless(8));
    replace_segment(&writer, CAPS);
    say("ready");
    let mut value = 0;
    loop {
        for _ in 0..listen().parse().unwrap() {
            value += 1;
            assert!(publish_following(&writer, value));
        }
        say("published");
    }
}

/// Takes one frame, says "took one", and takes no other.
fn reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let _frame = next(&mut reader, &mut Vec::new());
    say("took one");
    listen();
}

/// Takes one frame and one event. When the test sends a line, it takes all other frames, and checks that none is
/// missing.
fn follower(channel: &str) {
    let (mut reader, mut copy) = (open_reader(channel, ReaderOptions::default()), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    say("took one");
    let event = reader.next(&mut copy, ReadLimits::default(), None);
    assert!(matches!(event, Ok(Next::Event(_))), "{event:?}");
    say("took the event");
    listen();
    take_all(&mut reader, 2);
    say("took all");
}

/// Publishes one frame. The claim waits for the readers of all former segments; `false` if it was interrupted.
fn publish_following(writer: &Writer, value: u64) -> bool {
    let Ok(Some(mut slot)) = writer.claim(SIZE) else {
        return false;
    };
    slot.as_mut().fill(value as u8);
    writer.publish(&slot, descriptor(SIZE, value), &[]).is_ok()
}

/// Makes a segment with other caps. It gets no frame.
fn replace_segment(writer: &Writer, caps: &str) {
    writer.set_caps(Caps::fixed_size(caps, SIZE)).unwrap();
    drop(writer.upstream().claim(SIZE).unwrap());
}

fn start_writer(channel: &Channel) -> Process {
    let mut writer = role::start("lossless takeovers/writer", &[channel.as_str()]);
    writer.expect("ready");
    writer
}

fn publish_by(writer: &mut Process, frames: u64) {
    writer.send(&frames.to_string());
    writer.expect("published");
}

/// Two writers that die: the first one publishes the frames 1 and 2, the second one only makes its segment. Each of
/// `readers` runs between the two frames.
fn let_two_writers_die(channel: &Channel, readers: &mut [&mut dyn FnMut()]) {
    let mut first = start_writer(channel);
    publish_by(&mut first, 1);
    for reader in readers {
        reader();
    }
    publish_by(&mut first, 1);
    first.kill();
    start_writer(channel).kill();
}

/// A thread that publishes frames, and the value of the last frame that it has published.
struct Publisher {
    writer: Arc<Writer>,
    published: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Publisher {
    /// Publishes the frames from `first` to [`LAST`].
    fn start(writer: Arc<Writer>, first: u64) -> Self {
        let published = Arc::new(AtomicU64::new(0));
        let (own, count) = (Arc::clone(&writer), Arc::clone(&published));
        let (begins, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            begins.send(()).unwrap();
            for value in first..=LAST {
                if !publish_following(&own, value) {
                    return;
                }
                count.store(value, Ordering::Relaxed);
            }
        });
        begun.recv().unwrap();
        Self {
            writer,
            published,
            thread: Some(thread),
        }
    }

    /// Checks that no frame is published within `time`.
    #[track_caller]
    fn assert_waits(&self, time: Duration) {
        std::thread::sleep(time);
        assert_eq!(self.published(), 0, "the writer did not wait for the reader");
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.writer.interrupt();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes the frames from `first` to [`LAST`], and checks that there is no gap.
fn take_all(reader: &mut Reader, first: u64) {
    let mut copy = Vec::new();
    for value in first..=LAST {
        let frame: Frame = next(reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!((frame.seq, frame.missed), (value, 0));
    }
}

/// A reader still has a frame to take in the segment of the first of three writers. The third one does not know this
/// segment, but waits for the reader as long as it takes.
#[test]
fn reader_two_segments_back_misses_nothing() {
    let channel = Channel::new();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let_two_writers_die(&channel, &mut [&mut || check(&next(&mut reader, &mut copy), &copy, 1)]);
    let publisher = Publisher::start(channel.writer(lossless(8)), 3);
    // Readers that are not slow find a new segment within about 20 ms.
    publisher.assert_waits(Duration::from_millis(1500));
    take_all(&mut reader, 2);
}

/// A reader two segments back leaves, and another one is killed there. The writer then waits no longer, although the
/// program of the first one still uses its frame.
#[test]
fn readers_two_segments_back_that_end_are_not_awaited() {
    let channel = Channel::new();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut held = None;
    let mut victim = None;
    let start_victim = || {
        let victim = victim.insert(role::start("lossless takeovers/reader", &[channel.as_str()]));
        victim.expect("took one");
    };
    let_two_writers_die(
        &channel,
        &mut [&mut || held = Some(next(&mut reader, &mut copy)), &mut { start_victim }],
    );
    let publisher = Publisher::start(channel.writer(lossless(8)), 3);
    drop(reader);
    publisher.assert_waits(Duration::from_millis(300));
    victim.unwrap().kill();
    wait_until("the writer has published all", 5 * SECOND, || {
        publisher.published() == LAST
    });
    drop(held);
}

/// A reader that found no writer is not awaited, although its next call may come much later and it still has its entry.
#[test]
fn reader_that_lost_its_writer_is_not_awaited() {
    let channel = Channel::new();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut first = start_writer(&channel);
    publish_by(&mut first, 1);
    let _held = next(&mut reader, &mut copy);
    first.kill();
    let lost = reader.next(&mut copy, ReadLimits::default(), Some(5 * SECOND));
    assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    start_writer(&channel).kill();
    let publisher = Publisher::start(channel.writer(lossless(8)), 2);
    wait_until("the writer has published all", 5 * SECOND, || {
        publisher.published() == LAST
    });
}

/// A reader still has a frame to take in the first of so many segments of one writer that the writer has forgotten it.
/// The writer waits for this reader too.
#[test]
fn reader_in_forgotten_segment_misses_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(8));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    assert!(publish_following(&writer, 1));
    check(&next(&mut reader, &mut copy), &copy, 1);
    assert!(publish_following(&writer, 2));
    for caps in 0..20 {
        replace_segment(&writer, &format!("caps-{caps}"));
    }
    writer.service().unwrap();
    let publisher = Publisher::start(writer, 3);
    publisher.assert_waits(Duration::from_millis(300));
    take_all(&mut reader, 2);
}

/// A reader stops while it follows to another segment. Meanwhile the writer makes a third one, and forgets the second
/// one, which has no frame. The reader goes on and joins the second one. The writer waits for it there.
#[test]
fn reader_that_joins_forgotten_segment_misses_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(8));
    assert!(publish_following(&writer, 1));
    // The reader stores its cursor in each segment that it joins. It stops in the second one.
    let mut reader = AtFailpoint::start_at_pass("lossless takeovers/follower", &channel, STOP, "CursorStored", 2);
    reader.process.expect("took one");
    replace_segment(&writer, "second");
    publish_event(&writer, "of-the-second-segment", None);
    reader.process.wait_stopped();
    replace_segment(&writer, "third");
    // The service releases segments a second after they were superseded.
    std::thread::sleep(Duration::from_millis(1100));
    writer.service().unwrap();
    reader.process.resume();
    reader.process.expect("took the event");
    let publisher = Publisher::start(writer, 2);
    publisher.assert_waits(Duration::from_millis(300));
    reader.process.send("go on");
    reader.process.expect("took all");
}

/// The locks of a reader entry that no reader has do not stop a writer that took over.
#[test]
fn presence_without_an_entry_is_no_reader() {
    let channel = Channel::new();
    let mut first = start_writer(&channel);
    publish_by(&mut first, 1);
    let lock_file = channel.lock_file();
    let file = std::fs::File::options().read(true).write(true).open(lock_file).unwrap();
    assert!(raw::lock(&file, libc::F_WRLCK, FIRST_PRESENCE_BYTE, 64));
    first.kill();
    let publisher = Publisher::start(channel.writer(lossless(8)), 2);
    wait_until("the writer has published all", 5 * SECOND, || {
        publisher.published() == LAST
    });
    // Readers cannot have an entry, so they observe.
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    assert_eq!(next(&mut reader, &mut copy).seq, LAST);
    assert!(reader.is_observer());
}
