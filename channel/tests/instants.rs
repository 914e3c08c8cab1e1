//! What was found by killing and stopping processes at named instants (`channel/src/points.rs`, `tests/chaos`), each with a
//! process that ends or stops exactly there.

mod common;

use std::time::Duration;

use common::{
    Channel, Service, check,
    child::{self, Child, listen, say},
    lossless, next, next_in_place, publish, slots, tell,
};
use nix::sys::signal::Signal;
use rsshm_channel::{Caps, ChannelName, Next, ReadLimits, Reader, ReaderOptions, Writer};

const KILL: &str = "1000000,0";
const STOP: &str = "0,1000000";

#[test]
fn child() {
    child::play(&[
        ("writes", writes),
        ("writes two formats", writes_two_formats),
        ("reads four", reads_four),
        ("reads all", reads_all),
    ]);
}

/// A process that kills or stops itself at an instant, when it first passes that.
struct AtInstant {
    child: Child,
    counts: String,
}

impl AtInstant {
    fn start(role: &str, channel: &Channel, rates: &str, instant: &str) -> Self {
        Self::start_at_pass(role, channel, rates, instant, 1)
    }

    fn start_at_pass(role: &str, channel: &Channel, rates: &str, instant: &str, pass: u64) -> Self {
        let counts = format!("{}/{}-{instant}", env!("CARGO_TARGET_TMPDIR"), channel.as_str());
        let points = format!("RSSHM_FAILPOINTS=1,{rates},{counts},{instant},{pass}");
        let child = Child::start_with(role, channel.as_str(), &["env", &points]);
        Self { child, counts }
    }
}

impl Drop for AtInstant {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.counts);
    }
}

fn writes(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(6)).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    for value in 1..=5 {
        assert!(publish(&writer, value));
    }
    say("published");
    listen();
}

fn writes_two_formats(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), lossless(6)).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    for value in 1..=3 {
        assert!(publish(&writer, value));
    }
    say("published");
    listen();
    writer.set_caps(Caps::fixed_size("video/x-raw,another=1", common::SIZE));
    publish(&writer, 4);
}

/// Says which frames it gets, and how many it has missed.
fn reads_four(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    for _ in 0..4 {
        let frame = next(&mut reader, &mut Vec::new());
        say(format!("{} {}", frame.seq, frame.missed));
    }
}

/// Says what it gets, until the writer is gone.
fn reads_all(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
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

/// A writer that dies when it has taken the channel over and has no frame yet: the next one finds the numbers all the same.
#[test]
fn numbers_go_on_where_a_writer_died_before_its_first_frame() {
    for instant in [
        "ChannelLocked",
        "FormerOpened",
        "FormerSuperseded",
        "SegmentMade",
        "SegmentWritten",
        "SegmentNamed",
    ] {
        let channel = Channel::new();
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let mut first = Child::start("writes", channel.as_str());
        first.expect("published");
        assert_eq!(next(&mut reader, &mut copy).seq, 5);
        first.kill();
        AtInstant::start("writes", &channel, KILL, instant).child.dies();
        let writer = channel.writer(slots(6));
        assert!(publish(&writer, 77));
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 77);
        assert_eq!(frame.seq, 6, "{instant}");
    }
}

/// A reader stops while it sits down, and goes on when the frame that was the newest is held by another, and those behind it
/// are gone. Its first frame is the newest then, and it misses none of those that follow.
#[test]
fn who_took_long_to_sit_down_misses_nothing_of_a_lossless_channel() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(8));
    let _service = Service::of(&writer);
    let (mut other, mut copy) = (channel.reader(), Vec::new());
    let held = next_in_place(&writer, &mut other, &mut copy);
    let late = AtInstant::start("reads four", &channel, STOP, "CursorStored");
    late.child.stops();
    for _ in 0..30 {
        assert!(publish(&writer, 1));
        drop(next(&mut other, &mut copy));
    }
    // The other one goes: it would have to take all that follows.
    drop(other);
    late.child.signal(Signal::SIGCONT);
    late.child.expect(&format!("{} 0", held.seq + 30));
    for more in 31..34 {
        assert!(publish(&writer, 1));
        late.child.expect(&format!("{} 0", held.seq + more));
    }
}

/// A reader stops before it sits down in a segment that is superseded meanwhile. It does not begin there.
#[test]
fn who_sits_down_in_a_superseded_segment_misses_nothing_of_a_lossless_channel() {
    for instant in ["SegmentOpened", "EntryLocked", "CursorStored"] {
        let channel = Channel::new();
        let writer = channel.writer(lossless(8));
        assert!(publish(&writer, 1));
        let late = AtInstant::start("reads four", &channel, STOP, instant);
        late.child.stops();
        writer.set_caps(Caps::fixed_size("video/x-raw,another=1", common::SIZE));
        for _ in 2..=30 {
            assert!(publish(&writer, 1));
        }
        late.child.signal(Signal::SIGCONT);
        late.child.expect("30 0");
        for seq in 31..34 {
            assert!(publish(&writer, 1));
            late.child.expect(&format!("{seq} 0"));
        }
    }
}

/// Who only sits down is nobody that a writer goes on for: it may have to look elsewhere yet.
#[test]
fn who_only_sits_down_is_no_reader_yet() {
    for options in [lossless(8), slots(8)] {
        let channel = Channel::new();
        let writer = channel.writer(options);
        drop(writer.claim(common::SIZE).unwrap());
        let late = AtInstant::start("reads all", &channel, STOP, "Joining");
        late.child.stops();
        assert_eq!(writer.service().unwrap().reader_count, 0);
        late.child.signal(Signal::SIGCONT);
        assert!(writer.wait_for_reader(common::SIZE, || true).unwrap());
        assert_eq!(writer.service().unwrap().reader_count, 1);
        for seq in 1..4 {
            assert!(publish(&writer, seq));
        }
        for seq in ["1", "2", "3"] {
            late.child.expect(seq);
        }
    }
}

/// A writer that waits for somebody to come goes on when a reader sits, and is over perhaps before that has looked at what
/// there is. The reader has all of it.
#[test]
fn who_was_waited_for_has_the_stream_from_the_beginning() {
    for closes in [false, true] {
        for options in [lossless(8), slots(8)] {
            let channel = Channel::new();
            let writer = channel.writer(options);
            drop(writer.claim(common::SIZE).unwrap());
            tell(&writer, "lasts", Some(0));
            tell(&writer, "passed", None);
            let late = AtInstant::start("reads all", &channel, STOP, "Joined");
            assert!(writer.wait_for_reader(common::SIZE, || true).unwrap());
            late.child.stops();
            tell(&writer, "begins", None);
            assert!(publish(&writer, 1));
            tell(&writer, "goes on", None);
            assert!(publish(&writer, 2));
            assert!(publish(&writer, 3));
            writer.end_of_stream();
            if closes {
                writer.close();
            }
            late.child.signal(Signal::SIGCONT);
            for said in ["lasts", "begins", "1", "goes on", "2", "3", "end"] {
                late.child.expect(said);
            }
            if closes {
                late.child.expect("lost");
            }
        }
    }
}

/// A writer has just made another segment and dies, when its reader has not come there. The next writer does not know of
/// the segment that the reader is in, and waits for it all the same.
#[test]
fn who_is_on_its_way_from_an_older_segment_misses_nothing_of_the_next_writer() {
    let channel = Channel::new();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut first = AtInstant::start_at_pass("writes two formats", &channel, KILL, "SegmentCurrent", 2);
    let seq = next(&mut reader, &mut copy).seq;
    first.child.expect("published");
    first.child.tell("go on");
    first.child.dies();
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
