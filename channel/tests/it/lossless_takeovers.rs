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

use rsshm_channel::{Caps, Frame, Next, ReadLimits, Reader, ReaderOptions, Writer};
use rsshm_testkit::{
    Channel,
    process::Process,
    role::{self, Role, listen, say},
    wait_until,
};

use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, check, descriptor, lossless, next, open_reader, open_writer, poll,
};

pub const ROLES: &[(&str, Role)] = &[
    ("lossless takeovers/writer", |arguments| writer(arguments[0])),
    ("lossless takeovers/reader", |arguments| reader(arguments[0])),
];

/// The last frame of each test. There are more frames than slots, so a reader that the writer does not wait for misses
/// some.
const LAST: u64 = 30;

/// Makes a segment. Each line that it receives from the test is the number of frames to publish.
fn writer(channel: &str) {
    let writer = open_writer(channel, lossless(8));
    writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
    drop(writer.upstream().claim(SIZE).unwrap());
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

/// Publishes one frame. The claim waits for the readers of all former segments; `false` if it was interrupted.
fn publish_following(writer: &Writer, value: u64) -> bool {
    let Ok(Some(mut slot)) = writer.claim(SIZE) else {
        return false;
    };
    slot.as_mut().fill(value as u8);
    writer.publish(&slot, descriptor(SIZE, value), &[]).is_ok()
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
        let thread = std::thread::spawn(move || {
            for value in first..=LAST {
                if !publish_following(&own, value) {
                    return;
                }
                count.store(value, Ordering::Relaxed);
            }
        });
        Self {
            writer,
            published,
            thread: Some(thread),
        }
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
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(publisher.published(), 0, "the writer did not wait for the reader");
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
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(publisher.published(), 0, "the writer did not wait for the other reader");
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
        writer.set_caps(Caps::fixed_size(format!("caps-{caps}"), SIZE)).unwrap();
        drop(writer.upstream().claim(SIZE).unwrap());
    }
    writer.service().unwrap();
    let publisher = Publisher::start(writer, 3);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(publisher.published(), 0, "the writer did not wait for the reader");
    take_all(&mut reader, 2);
}
