// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of compressed streams. A reader gets a frame only if it has already got all frames that are needed to decode
//! this frame. A reader that waits for a keyframe requests a keyframe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, CopyTarget, FrameDescriptor, Next, ReadLimits, Reader, Writer, WriterOptions, layout::DELTA_UNIT,
};
use rsshm_testkit::{
    Channel, Process, Random,
    role::{self, Role, listen, say},
    wait_until,
};

use crate::support::{
    COMPRESSED_SIZE, ChannelExt, SECOND, Service, StopOnDrop, behind, check_bytes, descriptor, drain, lossless, next,
    next_in_place, next_within, open_writer, publish, publish_compressed, publish_event, publish_frame, publish_sized,
    raw::RawPeer, slots,
};

pub const ROLES: &[(&str, Role)] = &[("keyframes/writer", |arguments| compressing_writer(arguments[0]))];

/// A writer of a compressed stream that publishes the frames that each line from the test lists.
fn compressing_writer(channel: &str) {
    let writer = open_writer(channel, slots(12));
    writer.set_caps(h264()).unwrap();
    loop {
        publish_all(&writer, &listen());
        say("done");
    }
}

fn h264() -> Caps {
    Caps::variable_size("video/x-h264")
}

/// A writer of a compressed stream.
fn compressed(channel: &Channel, options: WriterOptions) -> Arc<Writer> {
    let writer = channel.writer(options);
    writer.set_caps(h264()).unwrap();
    writer
}

/// Publishes a list of frames: `k3 d4` is the keyframe 3 and the delta 4.
#[track_caller]
fn publish_all(writer: &Writer, frames: &str) {
    for frame in frames.split(' ') {
        let (kind, value) = frame.split_at(1);
        assert!(publish_compressed(writer, value.parse().unwrap(), kind == "d"));
    }
}

/// Publishes one delta for each value in `values`.
#[track_caller]
fn publish_deltas(writer: &Writer, values: std::ops::RangeInclusive<u64>) {
    for value in values {
        assert!(publish_compressed(writer, value, true));
    }
}

/// All items that the reader gets without waiting, under the default limits.
#[track_caller]
fn now(reader: &mut Reader) -> Vec<String> {
    drain(reader, ReadLimits::default())
}

/// Checks that each of the two readers gets the items `wanted` without waiting.
#[track_caller]
fn expect(readers: &mut [Reader; 2], wanted: &[&str]) {
    for reader in readers {
        assert_eq!(now(reader), wanted);
    }
}

/// A reader and an observer. Checks that each of them gets the frames `wanted` first.
#[track_caller]
fn join(channel: &Channel, wanted: &[&str]) -> [Reader; 2] {
    let mut readers = [channel.reader(), channel.observer()];
    expect(&mut readers, wanted);
    readers
}

/// How many keyframes the reader in the first reader entry has requested.
fn requests(channel: &Channel) -> u32 {
    RawPeer::open(channel).entry(0).keyframe_requests.load(Ordering::SeqCst)
}

/// Makes the frame `seq` unreadable.
fn lose(channel: &Channel, seq: u64) {
    let peer = RawPeer::open(channel);
    let slot = (0..peer.header.slot_count as usize)
        .map(|slot| &peer.slot(slot).seq)
        .find(|slot| slot.load(Ordering::SeqCst) == seq);
    slot.expect("a slot with this frame").store(0, Ordering::SeqCst);
}

#[test]
fn joining_reader_begins_at_newest_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2 k3 d4 d5");
    let mut readers = join(&channel, &["3", "4", "5"]);
    publish_all(&writer, "d6 k7 d8");
    for reader in &mut readers {
        assert_eq!(now(reader), ["6", "7", "8"]);
        assert_eq!(reader.stats().missed, 0);
    }
    assert_eq!(requests(&channel), 0);
}

#[test]
fn joining_reader_without_keyframe_requests_one() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=20);
    let mut readers = join(&channel, &[]);
    assert_eq!(requests(&channel), 1);
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
fn reader_that_missed_frames_resumes_at_newest_keyframe() {
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
    assert_eq!(requests(&channel), 0);
}

#[test]
fn reader_that_missed_one_frame_requests_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    // When one frame is missing, the reader requests a keyframe.
    publish_all(&writer, "d3 d4");
    lose(&channel, 3);
    expect(&mut readers, &[]);
    assert_eq!(requests(&channel), 1);
    publish_all(&writer, "d5 k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed, first.discontinuity), (6, 3, true));
        assert_eq!(now(reader), ["7"]);
        assert_eq!(reader.stats().missed, 3);
    }
    assert_eq!(requests(&channel), 1);
}

/// The keyframe is still readable, because another reader holds it, but the deltas after it are gone. A new reader does
/// not begin with this keyframe.
#[test]
fn keyframe_without_its_deltas_is_not_used() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(8));
    let service = Service::of(&writer);
    let mut holder = channel.reader();
    let held = next_in_place(&writer, &mut holder, &mut Vec::new());
    drop(service);
    publish_deltas(&writer, 2..=20);
    assert!(RawPeer::open(&channel).seqs().contains(&held.seq));
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), [""; 0]);
        publish_all(&writer, "k21 d22");
        assert_eq!(now(&mut reader), ["21", "22"]);
        assert_eq!(reader.stats().missed, 0);
        publish_deltas(&writer, 2..=20);
    }
}

#[test]
fn reader_of_raw_stream_resumes_at_oldest_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let mut readers = join(&channel, &["1"]);
    for value in 2..=20 {
        assert!(publish(&writer, value));
    }
    let present = RawPeer::open(&channel).seqs();
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (present[0], present[0] - 2));
        let rest: Vec<_> = present[1..].iter().map(u64::to_string).collect();
        assert_eq!(now(reader), rest);
    }
    // A new reader begins with the newest frame.
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), ["20"]);
    }
    assert!(!writer.service().unwrap().keyframe_wanted);
}

#[test]
fn max_behind_skips_to_keyframe_or_waits() {
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
            assert_eq!(drain(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published);
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), wanted, "{max_behind} of {published}");
        }
        assert_eq!(
            requests(&channel),
            u32::from(wanted.is_empty()),
            "{max_behind} of {published}"
        );
        publish_all(&writer, "k10");
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["10"]);
        }
        publish_all(&writer, "d11");
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), ["11"]);
            assert_eq!(
                reader.stats().missed + reader.stats().received,
                1 + published.split(' ').count() as u64 + 2
            );
        }
    }
}

#[test]
fn joining_reader_begins_within_max_behind() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(24));
    publish_all(&writer, "k1 d2 d3");
    for (max_behind, wanted) in [(1, &[][..]), (2, &[]), (3, &["1", "2", "3"]), (9, &["1", "2", "3"])] {
        for mut reader in [channel.reader(), channel.observer()] {
            assert_eq!(drain(&mut reader, behind(max_behind)), wanted, "{max_behind}");
        }
    }
}

/// Events between frames do not change which frames the reader skips. If a keyframe follows an event, the reader finds
/// this keyframe and does not request another.
#[test]
fn events_do_not_change_which_frames_are_skipped() {
    for (max_behind, lost, published, wanted, requested) in [
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
            assert_eq!(drain(reader, behind(max_behind)), ["1"]);
        }
        publish_all(&writer, published[0]);
        publish_event(&writer, "event", None);
        publish_all(&writer, published[1]);
        if let Some(seq) = lost {
            lose(&channel, seq);
        }
        for reader in &mut readers {
            assert_eq!(drain(reader, behind(max_behind)), wanted, "{published:?}");
        }
        assert_eq!(requests(&channel), requested, "{published:?}");
    }
}

#[test]
fn seek_newest_goes_to_newest_unread_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    publish_all(&writer, "d2 k3 d4 k5 d6");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(now(reader), ["5", "6"]);
    }
    // The reader does not go back to a keyframe that it has already taken.
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

/// Each writer begins a new stream, so the deltas of a restarted writer are not delivered before this writer's first
/// keyframe.
#[test]
fn restarted_writers_deltas_wait_for_its_keyframe() {
    let channel = Channel::new();
    let mut first = role::start("keyframes/writer", &[channel.as_str()]);
    let publish = |writer: &mut Process, frames: &str| {
        writer.send(frames);
        writer.expect("done");
    };
    publish(&mut first, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    first.kill();
    let mut second = role::start("keyframes/writer", &[channel.as_str()]);
    publish(&mut second, "d3 d4");
    expect(&mut readers, &[]);
    publish(&mut second, "k5 d6");
    for reader in &mut readers {
        assert_eq!(now(reader), ["5", "6"]);
        assert_eq!(reader.stats().missed, 2);
    }
}

/// The stream continues in a new segment if only the slots become larger. If the caps change, another stream begins.
#[test]
fn deltas_continue_in_segment_of_larger_slots() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    assert!(publish_frame(&writer, descriptor(600_000, 2).with_flags(DELTA_UNIT)));
    publish_all(&writer, "d3");
    for reader in &mut readers {
        assert_eq!(now(reader), ["2", "3"]);
        assert_eq!(reader.segment_changes(), 1);
    }
    writer.set_caps(Caps::variable_size("video/x-h265")).unwrap();
    publish_all(&writer, "d4 d5");
    for reader in &mut readers {
        assert_eq!(now(reader), [""; 0], "no delta of other caps");
    }
    publish_all(&writer, "k6");
    expect(&mut readers, &["6"]);
}

#[test]
fn no_delta_is_decoded_across_end_of_stream() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.end_of_stream();
    publish_all(&writer, "d3 k4 d5");
    expect(&mut readers, &["end", "4", "5"]);
}

/// The writer had no slot for a frame. The reader does not get the deltas that depend on this frame, although it could
/// read all published frames.
#[test]
fn deltas_of_dropped_frame_wait_for_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.record_drop();
    publish_event(&writer, "event", None);
    for reader in &mut readers {
        assert_eq!(now(reader), ["event"], "an event needs no frame");
    }
    publish_all(&writer, "d4 d5");
    expect(&mut readers, &[]);
    publish_all(&writer, "k6 d7");
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (6, 3));
        assert_eq!(now(reader), ["7"]);
    }
    // Frames that were dropped before a change of segment also count as missed.
    writer.record_drop();
    writer.record_drop();
    writer.set_caps(Caps::fixed_size("raw", 100)).unwrap();
    assert!(publish_sized(&writer, 10, 100));
    for reader in &mut readers {
        let first = next(reader, &mut Vec::new());
        assert_eq!((first.seq, first.missed), (10, 2));
    }
}

/// The reader repeats its request in the next segment, because the writer may not have seen the request in the
/// superseded segment.
#[test]
fn keyframe_request_is_repeated_in_next_segment() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(5));
    publish_deltas(&writer, 1..=3);
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), [""; 0]);
    assert_eq!(requests(&channel), 1);
    writer.set_caps(Caps::variable_size("video/x-h265")).unwrap();
    publish_deltas(&writer, 4..=5);
    assert_eq!(now(&mut reader), [""; 0]);
    assert_eq!(requests(&channel), 1);
    assert!(writer.service().unwrap().keyframe_wanted);
}

#[test]
fn keyframe_request_is_repeated_after_a_second() {
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
    assert_eq!(requests(&channel), 2);
}

/// The writer merges the requests of all readers, because one keyframe is enough for all of them.
#[test]
fn keyframe_requests_are_merged_once_a_second() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = [channel.reader(), channel.reader()];
    expect(&mut readers, &["1", "2"]);
    let request = || {
        for reader in &readers {
            assert!(reader.handle().request_keyframe());
        }
    };
    let is_wanted = || writer.service().unwrap().keyframe_wanted;
    assert!(!is_wanted());
    request();
    let reported = Instant::now();
    assert!(is_wanted());
    assert!(!is_wanted());
    // This request comes within a second after the reported request, so the writer keeps the new request and reports it
    // later.
    request();
    assert!(!is_wanted());
    publish_all(&writer, "d3");
    wait_until("the request is reported", 5 * SECOND, is_wanted);
    assert!(reported.elapsed() >= SECOND);
    request();
    assert!(!is_wanted());
}

/// If the writer publishes a keyframe after a request, it does not report this request.
#[test]
fn keyframe_answers_earlier_requests() {
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
    // The writer reports a request that comes after the keyframe.
    assert!(reader.handle().request_keyframe());
    assert!(is_wanted());
}

#[test]
fn keyframe_request_wakes_the_writer() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut reader = channel.reader();
    now(&mut reader);
    writer.service().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            writer.wait_for_service(10 * SECOND);
            (began.elapsed(), writer.service().unwrap().keyframe_wanted)
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(reader.handle().request_keyframe());
        let (took, wanted) = waiting.join().unwrap();
        assert!(took < 5 * SECOND && wanted, "{took:?}");
    });
}

#[test]
fn observers_and_unconnected_readers_request_no_keyframe() {
    let channel = Channel::new();
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &readers {
        assert!(!reader.handle().request_keyframe());
    }
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    expect(&mut readers, &["1"]);
    let [attached, observer] = readers.map(|reader| (reader.handle(), reader));
    assert!(attached.0.request_keyframe());
    assert!(!observer.0.request_keyframe());
    assert!(writer.service().unwrap().keyframe_wanted);
    // The writer does not read requests of a superseded segment.
    writer.set_caps(Caps::variable_size("video/x-h265")).unwrap();
    publish_all(&writer, "k2");
    assert!(!attached.0.request_keyframe());
    drop(attached.1);
    assert!(!attached.0.request_keyframe());
}

/// Compressed frames are small, so the writer keeps more of them for new readers. A keyframe is then among the kept
/// frames.
#[test]
fn history_is_longer_for_small_compressed_frames() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(64));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=33);
    assert_eq!(RawPeer::open(&channel).header.history, 16);
    for mut reader in [channel.reader(), channel.observer()] {
        let wanted: Vec<_> = (1..=33).map(|value: u64| value.to_string()).collect();
        assert_eq!(now(&mut reader), wanted);
    }
    // This frame has 4 MiB. The new slots have twice this size, so the history is short again.
    assert!(publish_sized(&writer, 34, 4 << 20));
    assert_eq!(RawPeer::open(&channel).header.history, 4);
}

/// A copy target. While the reader copies a frame into it, it publishes frames until the writer finds no slot.
struct PublishingTarget<'a> {
    writer: &'a Writer,
    frames: u32,
    bytes: Vec<u8>,
}

impl CopyTarget for PublishingTarget<'_> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        for _ in 0..std::mem::take(&mut self.frames) {
            let Some(slot) = self.writer.upstream().claim(COMPRESSED_SIZE).unwrap() else {
                break;
            };
            let descriptor = FrameDescriptor::new(COMPRESSED_SIZE as u64).with_flags(DELTA_UNIT);
            self.writer.publish(&slot, descriptor, &[]).unwrap();
        }
        self.bytes.resize(size, 0);
        Some(&mut self.bytes)
    }
}

/// A reader joins, and begins with a keyframe that is older than the newest frame. The writer keeps all later frames
/// until this reader has taken them.
#[test]
fn reader_joining_lossless_compressed_stream_misses_nothing() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_all(&writer, "k1");
    publish_deltas(&writer, 2..=8);
    publish_all(&writer, "k9 d10 d11");
    let mut reader = channel.reader();
    let mut target = PublishingTarget {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let first = reader.next(&mut target, ReadLimits::default(), Some(Duration::ZERO));
    assert!(matches!(&first, Ok(Next::Frame(frame)) if frame.seq == 9), "{first:?}");
    let mut seqs = 9..;
    seqs.next();
    while let Next::Frame(frame) = reader
        .next(&mut target, ReadLimits::default(), Some(Duration::ZERO))
        .unwrap()
    {
        assert_eq!(Some(frame.seq), seqs.next());
    }
    assert_eq!(reader.stats().missed, 0);
    assert!(reader.stats().received > 4, "some frames were published meanwhile");
}

/// The old keyframe is readable, but the writer need not keep old frames for a reader that has taken no frame yet. The
/// reader waits for the next keyframe.
#[test]
fn reader_joining_lossless_stream_skips_unprotected_keyframe() {
    let channel = Channel::new();
    let writer = compressed(&channel, lossless(8));
    publish_deltas(&writer, 1..=8);
    publish_all(&writer, "k9 d10 d11 d12 d13");
    let peer = RawPeer::open(&channel);
    assert!(peer.header.history == 4 && peer.seqs().contains(&9));
    let mut target = PublishingTarget {
        writer: &writer,
        frames: 8,
        bytes: Vec::new(),
    };
    let mut reader = channel.reader();
    // All frames are copied, so that the target can publish further ones meanwhile.
    let limits = ReadLimits::default().max_held(0);
    let mut next = || reader.next(&mut target, limits, Some(Duration::ZERO)).unwrap();
    assert!(matches!(next(), Next::TimedOut));
    publish_all(&writer, "k14");
    let mut received = 0;
    while let Next::Frame(frame) = next() {
        assert_eq!((frame.seq, frame.missed), (14 + received, 0));
        received += 1;
    }
    assert!(received > 2, "some frames were published meanwhile");
}

/// If a reader requests a keyframe and leaves, the next owner of its entry does not inherit the request.
#[test]
fn keyframe_request_ends_with_its_reader() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut first = channel.reader();
    now(&mut first);
    assert!(first.handle().request_keyframe());
    drop(first);
    let mut second = channel.reader();
    assert_eq!(now(&mut second), ["1", "2"]);
    assert_eq!(requests(&channel), 0);
    assert!(!writer.service().unwrap().keyframe_wanted);
}

/// The behaviour of a reader under load.
#[derive(Clone, Copy)]
struct Habits {
    observes: bool,
    max_behind: u32,
    /// The pause after each frame.
    pause: Duration,
    /// The number of frames after which the reader leaves and attaches again.
    stay: u32,
}

impl Habits {
    const fn new(observes: bool, max_behind: u32, pause_us: u64, stay: u32) -> Self {
        Self {
            observes,
            max_behind,
            pause: Duration::from_micros(pause_us),
            stay,
        }
    }

    /// Reads until `stop` is set, and checks that each frame can be decoded with the frames before it. Returns how many
    /// frames it received and how many it missed.
    fn read(self, channel: &Channel, stop: &AtomicBool) -> (u64, u64) {
        let (mut received, mut missed, mut copy) = (0, 0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let mut reader = if self.observes {
                channel.observer()
            } else {
                channel.reader()
            };
            let (mut last, mut held) = (None, None);
            for _ in 0..self.stay {
                let frame = next_within(&mut reader, &mut copy, behind(self.max_behind));
                check_bytes(&frame, &copy);
                assert_eq!(frame.seq, frame.descriptor.offset);
                let since = last.map(|last| frame.seq - last - 1);
                assert_eq!(frame.missed, since.unwrap_or(0));
                assert!(
                    !frame.descriptor.is_delta() || since == Some(0),
                    "delta {} after {last:?}",
                    frame.seq
                );
                last = Some(frame.seq);
                std::thread::sleep(self.pause);
                // The reader holds a frame while it waits for the next frame, as decoders do.
                held = Some(frame);
            }
            drop(held);
            received += reader.stats().received;
            missed += reader.stats().missed;
        }
        (received, missed)
    }
}

/// Publishes deltas, and keyframes at random intervals, until all readers have ended. It publishes the frames in bursts
/// that no reader can follow.
fn publish_under_load(writer: &Writer, stopping: StopOnDrop, readers: &[ScopedJoinHandle<(u64, u64)>]) {
    let (mut value, mut until_keyframe, mut random) = (1, 0, Random::new(1));
    let mut publish = || {
        value += 1;
        let is_keyframe = until_keyframe == 0;
        until_keyframe = if is_keyframe {
            random.below(32)
        } else {
            until_keyframe - 1
        };
        let flags = if is_keyframe { 0 } else { DELTA_UNIT };
        assert!(publish_frame(
            writer,
            descriptor(COMPRESSED_SIZE, value).with_flags(flags)
        ));
        if random.permille(117) {
            std::thread::sleep(Duration::from_micros(random.below(0x800)));
        }
    };
    let end = Instant::now() + Duration::from_millis(800);
    while Instant::now() < end {
        publish();
    }
    drop(stopping);
    while readers.iter().any(|reader| !reader.is_finished()) {
        publish();
    }
}

/// Readers of all speeds get only frames that can be decoded with the frames that they got before.
#[test]
fn every_delivered_frame_is_decodable_under_load() {
    const READERS: [Habits; 4] = [
        Habits::new(false, 0, 0, 70),
        Habits::new(false, 0, 900, 40),
        Habits::new(true, 0, 300, 9),
        Habits::new(false, 3, 50, 90),
    ];
    let channel = Channel::new();
    let writer = compressed(&channel, slots(10));
    publish_all(&writer, "k1");
    let _service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let (channel, stop) = (&channel, &stop);
        let readers = READERS.map(|habits| scope.spawn(move || habits.read(channel, stop)));
        publish_under_load(&writer, stopping, &readers);
        let counts = readers.map(|reader| reader.join().unwrap());
        assert!(counts.iter().all(|(received, _)| *received > 20), "{counts:?}");
        assert!(
            counts.iter().map(|(_, missed)| missed).sum::<u64>() > 0,
            "some are missed: {counts:?}"
        );
    });
}
