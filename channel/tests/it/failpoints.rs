// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regression tests for faults that were found when processes were killed or stopped at failpoints
//! (`channel/src/protocol/failpoint.rs`). Each test kills or stops a process at one failpoint.

use std::time::Duration;

use rsshm_channel::{Caps, Next, ReadLimits, ReaderOptions};
use rsshm_testkit::{
    Channel, PATIENCE, Process,
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, SIZE, Service, check, lossless, next, next_in_place, open_reader, open_writer, publish, publish_event,
    slots,
};

/// The fields KILLS and STOPS of `RSSHM_FAILPOINTS`: how many passes of a failpoint, out of a million, kill or stop the
/// process. `KILL` makes each pass kill the process, and `STOP` makes each pass stop it.
const KILL: &str = "1000000,0";
pub const STOP: &str = "0,1000000";

pub const ROLES: &[(&str, Role)] = &[
    ("failpoints/writer", |arguments| writer(arguments[0])),
    ("failpoints/writer of two caps", |arguments| {
        writer_of_two_caps(arguments[0])
    }),
    ("failpoints/writer of two ends", |arguments| {
        writer_of_two_ends(arguments[0])
    }),
    ("failpoints/reader of four", |arguments| reader_of_four(arguments[0])),
    ("failpoints/reader of all", |arguments| reader_of_all(arguments[0])),
];

/// A process that kills or stops itself when it passes a failpoint for the first time.
pub struct AtFailpoint {
    pub process: Process,
    counts: String,
}

impl AtFailpoint {
    fn start(role: &str, channel: &Channel, rates: &str, failpoint: &str) -> Self {
        Self::start_at_pass(role, channel, rates, failpoint, 1)
    }

    /// Starts a process as [`start`](Self::start) does. The process kills or stops itself when it passes the failpoint
    /// for the `pass`th time.
    pub fn start_at_pass(role: &str, channel: &Channel, rates: &str, failpoint: &str, pass: u64) -> Self {
        let counts = format!("{}/{}-{failpoint}", env!("CARGO_TARGET_TMPDIR"), channel.as_str());
        let mut command = role::command(role, &[channel.as_str()]);
        command.env("RSSHM_FAILPOINTS", format!("1,{rates},{counts},{failpoint},{pass}"));
        let process = Process::converse(command);
        Self { process, counts }
    }
}

impl Drop for AtFailpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.counts);
    }
}

/// Publishes five frames.
fn writer(channel: &str) {
    let writer = open_writer(channel, slots(6));
    for value in 1..=5 {
        assert!(publish(&writer, value));
    }
    say("published");
    listen();
}

/// A lossless writer that publishes three frames. When the test sends a line, the writer publishes a frame with other
/// caps.
fn writer_of_two_caps(channel: &str) {
    let writer = open_writer(channel, lossless(6));
    for value in 1..=3 {
        assert!(publish(&writer, value));
    }
    say("published");
    listen();
    writer
        .set_caps(Caps::fixed_size("video/x-raw,another=1", SIZE))
        .unwrap();
    publish(&writer, 4);
}

/// Publishes a frame. When the test sends a line, it publishes two more frames, and ends the stream after each of them.
fn writer_of_two_ends(channel: &str) {
    let writer = open_writer(channel, slots(12));
    assert!(publish(&writer, 1));
    say("published");
    listen();
    for value in 2..=3 {
        assert!(publish(&writer, value));
        writer.end_of_stream();
    }
    listen();
}

/// Takes four frames. For each frame, it says the seq and how many frames it missed before this frame.
fn reader_of_four(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    for _ in 0..4 {
        let frame = next(&mut reader, &mut Vec::new());
        say(format!("{} {}", frame.seq, frame.missed));
    }
}

/// Says what it gets (frames, events and ends of the stream), until the writer is gone.
fn reader_of_all(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    loop {
        say(
            match reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap() {
                Next::Frame(frame) => frame.seq.to_string(),
                Next::Event(event) => String::from_utf8(event.bytes).unwrap(),
                Next::EndOfStream => "end".to_owned(),
                Next::Lost => return say("lost"),
                other => panic!("{other:?}"),
            },
        );
    }
}

/// A writer takes over the channel, and dies before it publishes a frame. The next writer continues after the seq of
/// the last published frame.
#[test]
fn seqs_continue_after_writer_died_before_first_frame() {
    for failpoint in [
        "ChannelLocked",
        "FormerOpened",
        "FormerSuperseded",
        "SegmentMade",
        "SegmentWritten",
        "SegmentNamed",
    ] {
        let channel = Channel::new();
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let mut first = role::start("failpoints/writer", &[channel.as_str()]);
        first.expect("published");
        assert_eq!(next(&mut reader, &mut copy).seq, 5);
        first.kill();
        AtFailpoint::start("failpoints/writer", &channel, KILL, failpoint)
            .process
            .wait_killed();
        let writer = channel.writer(slots(6));
        assert!(publish(&writer, 77));
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 77);
        assert_eq!(frame.seq, 6, "{failpoint}");
    }
}

/// A reader is stopped while it joins. While it is stopped, the writer publishes 30 frames, and another reader holds
/// the frame that was the newest at the stop. When the stopped reader continues, it first gets the frame that is the
/// newest at that time, and misses no later frame.
#[test]
fn reader_stopped_while_joining_misses_no_lossless_frame() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(8));
    let _service = Service::of(&writer);
    let (mut other, mut copy) = (channel.reader(), Vec::new());
    let held = next_in_place(&writer, &mut other, &mut copy);
    let mut late = AtFailpoint::start("failpoints/reader of four", &channel, STOP, "CursorStored");
    late.process.wait_stopped();
    for _ in 0..30 {
        assert!(publish(&writer, 1));
        drop(next(&mut other, &mut copy));
    }
    // The other reader leaves, because otherwise the lossless writer would wait until that reader has taken the next
    // frames.
    drop(other);
    late.process.resume();
    late.process.expect(&format!("{} 0", held.seq + 30));
    for more in 31..34 {
        assert!(publish(&writer, 1));
        late.process.expect(&format!("{} 0", held.seq + more));
    }
}

/// A reader is stopped before it has joined, and the segment is superseded while the reader is stopped. The reader
/// begins in the next segment.
#[test]
fn reader_joining_superseded_segment_loses_no_lossless_frame() {
    for failpoint in ["SegmentOpened", "EntryLocked", "CursorStored"] {
        let channel = Channel::new();
        let writer = channel.writer(lossless(8));
        assert!(publish(&writer, 1));
        let mut late = AtFailpoint::start("failpoints/reader of four", &channel, STOP, failpoint);
        late.process.wait_stopped();
        writer
            .set_caps(Caps::fixed_size("video/x-raw,another=1", SIZE))
            .unwrap();
        for _ in 2..=30 {
            assert!(publish(&writer, 1));
        }
        late.process.resume();
        late.process.expect("30 0");
        for seq in 31..34 {
            assert!(publish(&writer, 1));
            late.process.expect(&format!("{seq} 0"));
        }
    }
}

/// A writer that waits for a reader keeps waiting while the reader is still joining, because a joining reader may have
/// to use another segment.
#[test]
fn joining_reader_is_not_counted_yet() {
    for options in [lossless(8), slots(8)] {
        let channel = Channel::new();
        let writer = channel.writer(options);
        drop(writer.claim(SIZE).unwrap());
        let mut late = AtFailpoint::start("failpoints/reader of all", &channel, STOP, "Joining");
        late.process.wait_stopped();
        assert_eq!(writer.service().unwrap().reader_count, 0);
        late.process.resume();
        assert!(writer.wait_for_reader(SIZE, || true).unwrap());
        assert_eq!(writer.service().unwrap().reader_count, 1);
        for seq in 1..4 {
            assert!(publish(&writer, seq));
        }
        for seq in ["1", "2", "3"] {
            late.process.expect(seq);
        }
    }
}

/// A writer that waits for a reader continues when a reader has joined. The reader gets all frames and events, even if
/// the writer closes before the reader takes its first frame.
#[test]
fn awaited_reader_gets_stream_from_its_beginning() {
    for closes in [false, true] {
        for options in [lossless(8), slots(8)] {
            let channel = Channel::new();
            let writer = channel.writer(options);
            drop(writer.claim(SIZE).unwrap());
            publish_event(&writer, "sticky", Some(0));
            publish_event(&writer, "passing", None);
            let mut late = AtFailpoint::start("failpoints/reader of all", &channel, STOP, "Joined");
            assert!(writer.wait_for_reader(SIZE, || true).unwrap());
            late.process.wait_stopped();
            publish_event(&writer, "begins", None);
            assert!(publish(&writer, 1));
            publish_event(&writer, "continues", None);
            assert!(publish(&writer, 2));
            assert!(publish(&writer, 3));
            writer.end_of_stream();
            if closes {
                writer.close();
            }
            late.process.resume();
            for line in ["sticky", "begins", "1", "continues", "2", "3", "end"] {
                late.process.expect(line);
            }
            if closes {
                late.process.expect("lost");
            }
        }
    }
}

/// A writer creates another segment and dies before its reader has entered that segment. The next writer does not know
/// the segment that the reader still uses, but it waits for the reader.
#[test]
fn reader_in_older_segment_misses_nothing_of_next_writer() {
    let channel = Channel::new();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut first = AtFailpoint::start_at_pass("failpoints/writer of two caps", &channel, KILL, "SegmentCurrent", 2);
    let seq = next(&mut reader, &mut copy).seq;
    first.process.expect("published");
    first.process.send("go on");
    first.process.wait_killed();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = channel.writer(lossless(6));
            for value in 10..40 {
                assert!(publish(&writer, value));
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        for seq in seq + 1..=33 {
            let frame = next(&mut reader, &mut copy);
            assert_eq!((frame.seq, frame.missed), (seq, 0));
        }
    });
}

/// A reader is stopped after it has loaded the count of ends, and before it loads the head. Meanwhile the stream ends and
/// another one begins. The reader still gets the end between the two streams.
#[test]
fn end_of_stream_between_two_loads_keeps_its_order() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let mut reader = AtFailpoint::start_at_pass("failpoints/reader of all", &channel, STOP, "EndsLoaded", 2);
    let reader = &mut reader.process;
    reader.expect("1");
    reader.wait_stopped();
    writer.end_of_stream();
    assert!(publish(&writer, 2));
    reader.resume();
    for wanted in ["end", "2"] {
        reader.expect(wanted);
    }
    writer.close();
    reader.expect("lost");
}

/// A writer is stopped after it has stored the seq of the second end, and before it counts this end. A reader that has not
/// delivered the first end yet still gets it in its place.
#[test]
fn seq_of_an_end_is_not_mistaken_for_the_seq_of_the_next() {
    let channel = Channel::new();
    let mut writer = AtFailpoint::start_at_pass("failpoints/writer of two ends", &channel, STOP, "EndHalf", 2);
    let writer = &mut writer.process;
    writer.expect("published");
    let mut reader = channel.reader();
    assert_eq!(next(&mut reader, &mut Vec::new()).seq, 1);
    writer.send("go");
    writer.wait_stopped();
    let item = |reader: &mut rsshm_channel::Reader, timeout| match reader
        .next(&mut Vec::new(), ReadLimits::default(), Some(timeout))
        .unwrap()
    {
        Next::Frame(frame) => frame.seq.to_string(),
        Next::EndOfStream => "end".to_owned(),
        other => format!("{other:?}"),
    };
    for wanted in ["2", "end", "3"] {
        assert_eq!(item(&mut reader, PATIENCE), wanted);
    }
    assert_eq!(item(&mut reader, Duration::from_millis(300)), "TimedOut");
    writer.resume();
    assert_eq!(item(&mut reader, PATIENCE), "end");
}
