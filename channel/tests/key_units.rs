//! Compressed streams: nobody gets a frame without those that it is decoded with, and who waits for one that can be decoded
//! alone asks for it.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, Service, UNIT, all, behind,
    child::{self, Child, listen, say},
    lossless, next, next_within,
    peer::Peer,
    publish, publish_described, publish_sized, publish_unit, slots, tell,
};
use rsshm_channel::{
    Caps, ChannelName, CopyTarget, FrameDescriptor, Next, ReadLimits, Reader, Writer, WriterOptions, layout::DELTA_UNIT,
};

#[test]
fn child() {
    child::play(&[("writes", writes)]);
}

/// A writer of a compressed stream that does as it is told, until it is killed.
fn writes(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(12)).unwrap();
    writer.set_caps(h264());
    loop {
        publish_all(&writer, &listen());
        say("done");
    }
}

fn h264() -> Caps {
    Caps::variable_size("video/x-h264")
}

fn compressed(channel: &Channel, options: WriterOptions) -> Arc<Writer> {
    let writer = channel.writer(options);
    writer.set_caps(h264());
    writer
}

/// `k3 d4`: publishes a frame 3 that can be decoded alone, and a delta 4.
#[track_caller]
fn publish_all(writer: &Writer, frames: &str) {
    for frame in frames.split(' ') {
        let (kind, value) = frame.split_at(1);
        assert!(publish_unit(writer, value.parse().unwrap(), kind == "d"));
    }
}

/// Deltas with these values.
#[track_caller]
fn publish_deltas(writer: &Writer, values: std::ops::RangeInclusive<u64>) {
    for value in values {
        assert!(publish_unit(writer, value, true));
    }
}

/// What comes now, with no limits.
#[track_caller]
fn now(reader: &mut Reader) -> Vec<String> {
    all(reader, ReadLimits::default())
}

/// What both get now.
#[track_caller]
fn expect(readers: &mut [Reader; 2], wanted: &[&str]) {
    for reader in readers {
        assert_eq!(now(reader), wanted);
    }
}

/// A reader and an observer, and what they get at first.
#[track_caller]
fn join(channel: &Channel, wanted: &[&str]) -> [Reader; 2] {
    let mut readers = [channel.reader(), channel.observer()];
    expect(&mut readers, wanted);
    readers
}

/// How many times the reader in the first seat has asked.
fn asked(channel: &Channel) -> u32 {
    Peer::open(channel).entry(0).keyframe_requests.load(Ordering::SeqCst)
}

/// Takes a frame away.
fn lose(channel: &Channel, seq: u64) {
    let peer = Peer::open(channel);
    let slot = (0..peer.header.slot_count as usize)
        .map(|slot| &peer.slot(slot).seq)
        .find(|slot| slot.load(Ordering::SeqCst) == seq);
    slot.expect("it is there").store(0, Ordering::SeqCst);
}

#[test]
fn who_joins_begins_at_the_newest_key_frame_and_gets_all_behind_it() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2 k3 d4 d5");
    let mut readers = join(&channel, &["3", "4", "5"]);
    publish_all(&writer, "d6 k7 d8");
    for reader in &mut readers {
        assert_eq!(now(reader), ["6", "7", "8"]);
        assert_eq!(reader.stats().missed, 0);
    }
    assert_eq!(asked(&channel), 0);
}

#[test]
fn who_joins_where_no_key_frame_is_left_asks_and_begins_at_the_next() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=20);
    let mut readers = join(&channel, &[]);
    assert_eq!(asked(&channel), 1);
    assert!(writer.service().unwrap().keyframe_wanted);
    publish_all(&writer, "d21 d22");
    expect(&mut readers, &[]);
    publish_all(&writer, "k23 d24");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed, first.discontinuity), (23, 0, true));
        assert_eq!(now(reader), ["24"]);
        assert_eq!((reader.stats().missed, reader.stats().received), (0, 2));
    }
}

#[test]
fn who_missed_a_frame_goes_on_at_the_newest_key_frame_that_is_there() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    publish_deltas(&writer, 2..=20);
    publish_all(&writer, "k21 d22 k23 d24 d25");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (23, 21));
        assert_eq!(now(reader), ["24", "25"]);
        assert_eq!(reader.stats().missed, 21);
    }
    assert_eq!(asked(&channel), 0);
}

#[test]
fn who_missed_a_frame_and_finds_no_key_frame_asks_and_goes_on_at_the_next() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    // One is enough.
    publish_all(&writer, "d3 d4");
    lose(&channel, 3);
    expect(&mut readers, &[]);
    assert_eq!(asked(&channel), 1);
    publish_all(&writer, "d5 k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed, first.discontinuity), (6, 3, true));
        assert_eq!(now(reader), ["7"]);
        assert_eq!(reader.stats().missed, 3);
    }
    assert_eq!(asked(&channel), 1);
}

/// It may be there only because somebody holds it.
#[test]
fn a_key_frame_whose_deltas_are_gone_is_not_begun_with() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(8));
    let service = Service::of(&writer);
    let mut holder = channel.reader();
    let held = common::next_in_place(&writer, &mut holder, &mut Vec::new());
    drop(service);
    publish_deltas(&writer, 2..=20);
    assert!(Peer::open(&channel).numbers().contains(&held.seq));
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), [""; 0]);
        publish_all(&writer, "k21 d22");
        assert_eq!(now(&mut reader), ["21", "22"]);
        assert_eq!(reader.stats().missed, 0);
        publish_deltas(&writer, 2..=20);
    }
}

#[test]
fn raw_streams_go_on_at_the_oldest_frame_there_is() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let mut readers = join(&channel, &["1"]);
    for value in 2..=20 {
        assert!(publish(&writer, value));
    }
    let there = Peer::open(&channel).numbers();
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (there[0], there[0] - 2));
        let rest: Vec<_> = there[1..].iter().map(u64::to_string).collect();
        assert_eq!(now(reader), rest);
    }
    // Who comes begins with the newest.
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), ["20"]);
    }
    assert!(!writer.service().unwrap().keyframe_wanted);
}

#[test]
fn limits_skip_to_a_key_frame_within_them_or_wait_for_one() {
    for (max_behind, published, wanted) in [
        (1, "d2", &["2"][..]),
        (1, "d2 d3", &[]),
        (1, "d2 k3", &["3"]),
        (1, "d2 k3 d4", &[]),
        (3, "d2 d3 d4", &["2", "3", "4"]),
        (3, "d2 d3 d4 d5", &[]),
        (3, "d2 k3 d4 d5", &["3", "4", "5"]),
        (3, "d2 k3 d4 d5 d6", &[]),
        (3, "d2 d3 k4 d5 k6", &["4", "5", "6"]),
        (4, "d2 d3 d4 k5 d6", &["5", "6"]),
    ] {
        let channel = Channel::new();
        let writer = compressed(&channel, slots(24));
        publish_all(&writer, "k1");
        let mut readers = [channel.reader(), channel.observer()];
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published);
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), wanted, "{max_behind} of {published}");
        }
        assert_eq!(
            asked(&channel),
            u32::from(wanted.is_empty()),
            "{max_behind} of {published}"
        );
        publish_all(&writer, "k10");
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), ["10"]);
        }
        publish_all(&writer, "d11");
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), ["11"]);
            assert_eq!(
                reader.stats().missed + reader.stats().received,
                1 + published.split(' ').count() as u64 + 2
            );
        }
    }
}

/// A new reader has the same limits.
#[test]
fn who_joins_begins_within_its_limits() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(24));
    publish_all(&writer, "k1 d2 d3");
    for (max_behind, wanted) in [(1, &[][..]), (2, &[]), (3, &["1", "2", "3"]), (9, &["1", "2", "3"])] {
        for mut reader in [channel.reader(), channel.observer()] {
            assert_eq!(all(&mut reader, behind(max_behind)), wanted, "{max_behind}");
        }
    }
}

/// What happened between skipped frames changes nothing about which frames are skipped, and a key frame behind it is seen
/// before one is asked for.
#[test]
fn events_do_not_stand_in_the_way() {
    for (max_behind, lost, published, wanted, asks) in [
        (3, None, ["d2 k3 d4", "d5 d6"], &["event"][..], 1),
        (3, None, ["d2 k3", "d4 d5"], &["3", "event", "4", "5"], 0),
        (0, Some(2), ["d2 d3", "k4 d5"], &["event", "4", "5"], 0),
        (0, Some(2), ["d2 d3", "d4 d5"], &["event"], 1),
        (0, Some(2), ["d2 k3", "k4 d5"], &["3", "event", "4", "5"], 0),
    ] {
        let channel = Channel::new();
        let writer = compressed(&channel, slots(24));
        publish_all(&writer, "k1");
        let mut readers = [channel.reader(), channel.observer()];
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published[0]);
        tell(&writer, "event", None);
        publish_all(&writer, published[1]);
        if let Some(seq) = lost {
            lose(&channel, seq);
        }
        for reader in &mut readers {
            assert_eq!(all(reader, behind(max_behind)), wanted, "{published:?}");
        }
        assert_eq!(asked(&channel), asks, "{published:?}");
    }
}

#[test]
fn a_reader_that_looks_at_the_newest_begins_at_the_newest_key_frame() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    publish_all(&writer, "d2 k3 d4 k5 d6");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(now(reader), ["5", "6"]);
    }
    // Not with one that it has had.
    publish_all(&writer, "d7");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(now(reader), [""; 0]);
    }
    publish_all(&writer, "d8 k9");
    for reader in &mut readers {
        assert_eq!(now(reader), ["9"]);
        assert_eq!(reader.stats().missed, 0);
    }
}

/// The same stream in larger slots goes on; another format is another stream, and so is another writer's.
#[test]
fn another_stream_is_not_decoded_with_the_frames_of_the_former() {
    let channel = Channel::new();
    let mut first = Child::start("writes", channel.as_str());
    let order = |child: &mut Child, frames: &str| {
        child.tell(frames);
        child.expect("done");
    };
    order(&mut first, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    first.kill();
    let mut second = Child::start("writes", channel.as_str());
    order(&mut second, "d3 d4");
    expect(&mut readers, &[]);
    order(&mut second, "k5 d6");
    for reader in &mut readers {
        assert_eq!(now(reader), ["5", "6"]);
        assert_eq!(reader.stats().missed, 2);
    }
}

#[test]
fn a_stream_that_outgrows_its_slots_goes_on() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    let larger = FrameDescriptor {
        size: 100_000,
        offset: 2,
        flags: DELTA_UNIT,
        ..FrameDescriptor::default()
    };
    assert!(publish_described(&writer, larger));
    publish_all(&writer, "d3");
    for reader in &mut readers {
        assert_eq!(now(reader), ["2", "3"]);
        assert_eq!(reader.segment_changes(), 1);
    }
    writer.set_caps(Caps::variable_size("video/x-h265"));
    publish_all(&writer, "d4 d5");
    for reader in &mut readers {
        assert_eq!(now(reader), [""; 0], "nothing of another format");
    }
    publish_all(&writer, "k6");
    expect(&mut readers, &["6"]);
}

#[test]
fn no_delta_is_decoded_with_frames_from_before_an_end() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.end_of_stream();
    publish_all(&writer, "d3 k4 d5");
    expect(&mut readers, &["end", "4", "5"]);
}

/// The writer had no slot for a frame: what is decoded with that is not given, though all that was published is there.
#[test]
fn a_frame_that_the_writer_lost_is_missing() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.record_drop();
    tell(&writer, "event", None);
    for reader in &mut readers {
        assert_eq!(now(reader), ["event"], "it needs no frame to come");
    }
    publish_all(&writer, "d4 d5");
    expect(&mut readers, &[]);
    publish_all(&writer, "k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (6, 3));
        assert_eq!(now(reader), ["7"]);
    }
    // In another segment too.
    writer.record_drop();
    writer.record_drop();
    writer.set_caps(Caps::fixed_size("raw", 100));
    assert!(publish_sized(&writer, 10, 100));
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (10, 2));
    }
}

/// What was asked for in a segment that went away was perhaps never heard.
#[test]
fn who_still_waits_in_another_segment_asks_there_too() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_deltas(&writer, 1..=3);
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), [""; 0]);
    assert_eq!(asked(&channel), 1);
    writer.set_caps(Caps::variable_size("video/x-h265"));
    publish_deltas(&writer, 4..=5);
    assert_eq!(now(&mut reader), [""; 0]);
    assert_eq!(asked(&channel), 1);
    assert!(writer.service().unwrap().keyframe_wanted);
}

#[test]
fn who_gets_none_asks_again_after_a_second() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_deltas(&writer, 1..=3);
    let mut reader = channel.reader();
    let end = Instant::now() + Duration::from_millis(1300);
    let mut value = 4;
    while Instant::now() < end {
        publish_deltas(&writer, value..=value);
        value += 1;
        assert_eq!(now(&mut reader), [""; 0]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(asked(&channel), 2);
}

/// All readers have the same key frame.
#[test]
fn wishes_are_told_once_a_second_for_all_readers_together() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = [channel.reader(), channel.reader()];
    expect(&mut readers, &["1", "2"]);
    let ask = || {
        for reader in &readers {
            assert!(reader.handle().request_keyframe());
        }
    };
    let is_wanted = || writer.service().unwrap().keyframe_wanted;
    assert!(!is_wanted());
    ask();
    let reported = Instant::now();
    assert!(is_wanted());
    assert!(!is_wanted());
    // Too soon, but not forgotten.
    ask();
    assert!(!is_wanted());
    publish_all(&writer, "d3");
    common::wait_until("told", Duration::from_secs(5), is_wanted);
    assert!(reported.elapsed() >= Duration::from_secs(1));
    ask();
    assert!(!is_wanted());
}

#[test]
fn no_wish_is_told_when_a_key_frame_came_meanwhile() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut reader = channel.reader();
    now(&mut reader);
    let is_wanted = || writer.service().unwrap().keyframe_wanted;
    let reported = Instant::now();
    assert!(reader.handle().request_keyframe());
    assert!(is_wanted());
    assert!(reader.handle().request_keyframe());
    assert!(!is_wanted(), "too soon");
    publish_all(&writer, "k3 d4");
    while reported.elapsed() < Duration::from_millis(1050) {
        assert!(!is_wanted());
        std::thread::sleep(Duration::from_millis(50));
    }
    // A wish from after it counts.
    assert!(reader.handle().request_keyframe());
    assert!(is_wanted());
}

#[test]
fn a_wish_wakes_the_writer() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut reader = channel.reader();
    now(&mut reader);
    writer.service().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            writer.wait_for_service(Duration::from_secs(10));
            (began.elapsed(), writer.service().unwrap().keyframe_wanted)
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(reader.handle().request_keyframe());
        let (took, wanted) = waiting.join().unwrap();
        assert!(took < Duration::from_secs(5) && wanted, "{took:?}");
    });
}

#[test]
fn who_may_only_look_or_has_no_writer_asks_nobody() {
    let channel = Channel::new();
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &readers {
        assert!(!reader.handle().request_keyframe());
    }
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    expect(&mut readers, &["1"]);
    let [own_entry, observer] = readers.map(|reader| (reader.handle(), reader));
    assert!(own_entry.0.request_keyframe());
    assert!(!observer.0.request_keyframe());
    assert!(writer.service().unwrap().keyframe_wanted);
    // Where frames no longer come, nobody listens.
    writer.set_caps(Caps::variable_size("video/x-h265"));
    publish_all(&writer, "k2");
    assert!(!own_entry.0.request_keyframe());
    drop(own_entry.1);
    assert!(!own_entry.0.request_keyframe());
}

/// A compressed stream's frames are small: more of them are kept, so that there is a key frame.
#[test]
fn small_frames_whose_size_varies_are_kept_for_longer() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(64));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=33);
    assert_eq!(Peer::open(&channel).header.history, 32);
    for mut reader in [channel.reader(), channel.observer()] {
        let wanted: Vec<_> = (1..=33).map(|value: u64| value.to_string()).collect();
        assert_eq!(now(&mut reader), wanted);
    }
    // Half a megabyte in slots of twice that.
    assert!(publish_sized(&writer, 34, 1 << 19));
    assert_eq!(Peer::open(&channel).header.history, 4);
}

/// Publishes while a frame is copied, as far as the writer finds slots.
struct Interfering<'a> {
    writer: &'a Writer,
    frames: u32,
    bytes: Vec<u8>,
}

impl CopyTarget for Interfering<'_> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        for _ in 0..std::mem::take(&mut self.frames) {
            let Some(slot) = self.writer.upstream().claim(UNIT).unwrap() else {
                break;
            };
            let descriptor = FrameDescriptor {
                size: UNIT as u64,
                flags: DELTA_UNIT,
                ..FrameDescriptor::default()
            };
            self.writer.publish(&slot, descriptor, &[]).unwrap();
        }
        self.bytes.resize(size, 0);
        Some(&mut self.bytes)
    }
}

/// It begins with a frame that is older than the newest, and the writer keeps those behind it from the first moment.
#[test]
fn who_joins_a_lossless_compressed_stream_misses_nothing_either() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=8);
    publish_all(&writer, "k9 d10 d11");
    let mut reader = channel.reader();
    let mut target = Interfering {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let first = reader.next(&mut target, ReadLimits::default(), Some(Duration::ZERO));
    assert!(matches!(&first, Ok(Next::Frame(frame)) if frame.seq == 9), "{first:?}");
    let mut numbers = 9..;
    numbers.next();
    while let Next::Frame(frame) = reader
        .next(&mut target, ReadLimits::default(), Some(Duration::ZERO))
        .unwrap()
    {
        assert_eq!(Some(frame.seq), numbers.next());
    }
    assert_eq!(reader.stats().missed, 0);
    assert!(reader.stats().received > 4, "some were published meanwhile");
}

/// What the writer need not keep for somebody who has not begun is not begun with, though it is there.
#[test]
fn who_joins_a_lossless_compressed_stream_begins_with_nothing_that_may_go_away() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_deltas(&writer, 1..=8);
    publish_all(&writer, "k9 d10 d11 d12 d13");
    let peer = Peer::open(&channel);
    assert!(peer.header.history == 4 && peer.numbers().contains(&9));
    let mut target = Interfering {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let mut reader = channel.reader();
    let mut next = || {
        reader
            .next(&mut target, ReadLimits::default(), Some(Duration::ZERO))
            .unwrap()
    };
    assert!(matches!(next(), Next::TimedOut));
    publish_all(&writer, "k14");
    let mut received = 0;
    while let Next::Frame(frame) = next() {
        assert_eq!((frame.seq, frame.missed), (14 + received, 0));
        received += 1;
    }
    assert!(received > 2, "some were published meanwhile");
}

/// A new owner of a seat has not asked for what the last wanted.
#[test]
fn a_wish_ends_with_who_had_it() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut first = channel.reader();
    now(&mut first);
    assert!(first.handle().request_keyframe());
    drop(first);
    let mut second = channel.reader();
    assert_eq!(now(&mut second), ["1", "2"]);
    assert_eq!(asked(&channel), 0);
    assert!(!writer.service().unwrap().keyframe_wanted);
}

/// Frames with keys at all distances to readers of all speeds: whatever is given can be decoded with what was given before.
#[test]
fn nothing_undecodable_is_given_under_load() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(10));
    publish_all(&writer, "k1");
    let service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = common::StopAtEnd(&stop);
        // Whether it observes, its limit, its pause after each frame in µs, and after how many frames it joins anew.
        let readers = [
            (false, 0, 0, 70),
            (false, 0, 900, 40),
            (true, 0, 300, 9),
            (false, 3, 50, 90),
        ];
        let readers = readers.map(|(observes, max_behind, pause, stay)| {
            let (channel, stop) = (&channel, &stop);
            scope.spawn(move || {
                let (mut received, mut missed, mut copy) = (0, 0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let mut reader = if observes { channel.observer() } else { channel.reader() };
                    let (mut last, mut held) = (None, None);
                    for _ in 0..stay {
                        let frame = next_within(&mut reader, &mut copy, behind(max_behind));
                        common::check_bytes(&frame, &copy);
                        assert_eq!(frame.seq, frame.descriptor.offset);
                        let since = last.map(|last| frame.seq - last - 1);
                        assert_eq!(frame.missed, since.unwrap_or(0));
                        assert!(
                            !frame.descriptor.is_delta() || since == Some(0),
                            "delta {} after {last:?}",
                            frame.seq
                        );
                        last = Some(frame.seq);
                        std::thread::sleep(Duration::from_micros(pause));
                        // One is held while the next is waited for, as a decoder does.
                        held = Some(frame);
                    }
                    drop(held);
                    received += reader.stats().received;
                    missed += reader.stats().missed;
                }
                (received, missed)
            })
        });
        let end = Instant::now() + Duration::from_millis(800);
        let (mut value, mut random, mut until_key) = (1, 1u32, 0);
        let mut publish = || {
            value += 1;
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let is_key = until_key == 0;
            until_key = if is_key { random >> 16 & 31 } else { until_key - 1 };
            assert!(publish_unit(&writer, value, !is_key));
            // In bursts, which no reader can follow.
            if random >> 24 < 30 {
                std::thread::sleep(Duration::from_micros(random as u64 >> 16 & 0x7ff));
            }
        };
        while Instant::now() < end {
            publish();
        }
        drop(stopping);
        while readers.iter().any(|reader| !reader.is_finished()) {
            publish();
        }
        let counts = readers.map(|reader| reader.join().unwrap());
        assert!(counts.iter().all(|(received, _)| *received > 20), "{counts:?}");
        assert!(
            counts.iter().map(|(_, missed)| missed).sum::<u64>() > 0,
            "some are missed: {counts:?}"
        );
    });
    drop(service);
}
