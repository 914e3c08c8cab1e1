// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of runs: small frames of variable size that share a slot.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rsshm_channel::{
    Caps, ChannelName, Error, FrameData, FrameDescriptor, Next, Observer, ReadLimits, Reader, ReaderOptions, Writer,
    WriterOptions, layout::DELTA_UNIT,
};
use rsshm_testkit::{
    Channel, Random, need_real_machine,
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, SECOND, Service, behind, check_bytes, drain, lossless, open_reader, raw::RawPeer, slots,
};

pub const ROLES: &[(&str, Role)] = &[("runs/reader", |arguments| {
    read_until_told(arguments[0], arguments[1] == "observer");
})];

/// The longest time that the reader of a burst sleeps.
const NAP: Duration = Duration::from_millis(20);

/// The number of frames of a burst.
const BURST: u64 = 10_000;

/// Reads and checks all frames, and sleeps now and then. Says the value of the first frame and of the last frame of each
/// burst. Ends when a frame of one byte comes, and says how many frames it got and missed.
fn read_until_told(channel: &str, observes: bool) {
    let mut reader = open_reader(channel, ReaderOptions::default().read_only(observes));
    let (mut copy, mut random, mut last) = (Vec::new(), Random::new(7), 0);
    loop {
        match reader.next(&mut copy, ReadLimits::default(), Some(SECOND)).unwrap() {
            Next::Frame(frame) => {
                check_frame(&frame, &copy);
                if frame.descriptor.offset % BURST == 1 {
                    say(frame.descriptor.offset);
                }
                assert!(frame.seq > last);
                last = frame.seq;
                if frame.descriptor.size == 1 {
                    break;
                }
            }
            Next::TimedOut => {}
            other => panic!("{other:?}"),
        }
        if random.permille(1) {
            std::thread::sleep(NAP);
        }
    }
    let stats = reader.stats();
    say(format!("{} {}", stats.received, stats.missed));
    listen();
}

/// Checks the bytes and the metadata of a frame of [`publish_small`].
#[track_caller]
fn check_frame(frame: &rsshm_channel::Frame, copy: &[u8]) {
    check_bytes(frame, copy);
    let value = frame.descriptor.offset;
    assert_eq!(frame.metadata, metadata_of(value), "the metadata of {value}");
    assert_eq!(frame.descriptor.pts, value * 1000);
}

/// The metadata of every seventh frame is its value.
fn metadata_of(value: u64) -> Vec<u8> {
    if value.is_multiple_of(7) {
        value.to_ne_bytes().to_vec()
    } else {
        Vec::new()
    }
}

/// Publishes a frame of `size` bytes, each of which is the lowest byte of `value`.
#[track_caller]
fn publish_small(writer: &Writer, value: u64, size: usize, is_delta: bool) {
    let descriptor = FrameDescriptor::new(size as u64)
        .with_offset(value)
        .with_pts(value * 1000)
        .with_flags(if is_delta { DELTA_UNIT } else { 0 });
    loop {
        let mut slot = writer.claim(size).unwrap().expect("a slot");
        slot.as_mut().fill(value as u8);
        match writer.publish(&slot, descriptor, &metadata_of(value)) {
            Ok(_) => return,
            // The service created another segment between `claim` and `publish`.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A writer of small frames.
fn small(channel: &Channel, options: WriterOptions) -> Arc<Writer> {
    let writer = channel.writer(options);
    writer
        .set_caps(Caps::variable_size("video/mpegts,systemstream=true,packetsize=188"))
        .unwrap();
    writer
}

/// Publishes the keyframe 1, then deltas up to `last`, with `size` bytes each.
fn publish_up_to(writer: &Writer, last: u64, size: usize) {
    for value in 1..=last {
        publish_small(writer, value, size, value > 1);
    }
}

/// Ten bursts of 10,000 frames arrive whole at a reader and an observer in other processes, which sleep now and then.
#[test]
fn bursts_of_small_frames_arrive_whole() {
    need_real_machine!("too slow for bursts of 10000 frames");
    for size in [188, 1400] {
        let channel = Channel::new();
        let writer = small(&channel, WriterOptions::default());
        let _service = Service::of(&writer);
        publish_small(&writer, 1, size, false);
        let mut readers = ["reader", "observer"].map(|kind| {
            let mut reader = role::start("runs/reader", &[channel.as_str(), kind]);
            reader.expect("1");
            reader
        });
        let mut value = 1;
        for _ in 0..10 {
            for _ in 0..BURST {
                value += 1;
                publish_small(&writer, value, size, !value.is_multiple_of(1000));
            }
            readers.iter_mut().for_each(|reader| reader.expect(&value.to_string()));
        }
        publish_small(&writer, value + 1, 1, true);
        for reader in &mut readers {
            assert_eq!(reader.receive(), format!("{} 0", value + 1), "{size}");
            reader.send("end");
        }
        assert_eq!(writer.stats().missed_by_readers, 0);
    }
}

/// A keyframe of 8 MiB in 6000 parts is published before its reader wakes up. The reader gets all of it.
#[test]
fn keyframe_of_6000_parts_arrives_whole() {
    let channel = Channel::new();
    let writer = small(&channel, WriterOptions::default());
    let service = Service::of(&writer);
    publish_small(&writer, 1, 100, true);
    publish_small(&writer, 2, 1400, false);
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(drain(reader, ReadLimits::default()), ["2"]);
    }
    for value in 3..=6000 {
        publish_small(&writer, value, 1400, false);
    }
    let wanted: Vec<_> = (3..=6000).map(|value: u64| value.to_string()).collect();
    for reader in &mut readers {
        assert_eq!(drain(reader, ReadLimits::default()), wanted);
    }
    // A newcomer starts with the first part of the keyframe, not with another part.
    for mut newcomer in [channel.reader(), channel.observer()] {
        assert_eq!(drain(&mut newcomer, ReadLimits::default())[..2], ["2", "3"]);
        assert_eq!(newcomer.stats().received, 5999);
    }
    drop(service);
    assert_eq!(writer.stats().missed_by_readers, 0);
}

/// Frames of all sizes and with metadata share slots with small ones.
#[test]
fn frames_of_mixed_sizes_arrive_in_order() {
    let channel = Channel::new();
    let writer = small(&channel, WriterOptions::default());
    let _service = Service::of(&writer);
    let mut random = Random::new(3);
    publish_small(&writer, 1, 1, false);
    let mut readers = [channel.reader(), channel.observer()];
    let mut copy = Vec::new();
    for value in 2..400 {
        let size = match random.below(4) {
            0 => 0,
            1 => random.below(300),
            2 => random.below(10_000),
            _ => random.below(700_000),
        };
        publish_small(&writer, value, size as usize, false);
        if random.permille(100) || value == 399 {
            for reader in &mut readers {
                while let Next::Frame(frame) = reader
                    .next(&mut copy, ReadLimits::default(), Some(Duration::ZERO))
                    .unwrap()
                {
                    check_frame(&frame, &copy);
                }
            }
        }
    }
    for reader in &readers {
        assert_eq!(reader.stats().missed, 0);
    }
}

#[test]
fn batch_costs_one_wake() {
    let channel = Channel::new();
    let writer = small(&channel, slots(12));
    publish_small(&writer, 1, 188, false);
    let peer = RawPeer::open(&channel);
    let wakes = || peer.status().published.load(Ordering::SeqCst);
    let before = wakes();
    let batch = writer.batch();
    for value in 2..=100 {
        publish_small(&writer, value, 188, true);
    }
    assert_eq!(wakes(), before);
    drop(batch);
    assert_eq!(wakes(), before + 1);
    publish_small(&writer, 101, 188, true);
    assert_eq!(wakes(), before + 2);
    // An empty batch wakes nobody.
    drop(writer.batch());
    assert_eq!(wakes(), before + 2);
    let mut reader = channel.reader();
    assert_eq!(drain(&mut reader, ReadLimits::default()).len(), 101);
}

/// A lossless writer that has to wait for a reader within a batch wakes the reader before.
#[test]
fn batch_of_lossless_writer_wakes_the_readers_it_waits_for() {
    let channel = Channel::new();
    let writer = small(&channel, lossless(3));
    let _service = Service::of(&writer);
    publish_small(&writer, 1, 188, false);
    let mut reader = role::start("runs/reader", &[channel.as_str(), "reader"]);
    reader.expect("1");
    assert!(writer.wait_for_reader(188, || true).unwrap());
    let batch = writer.batch();
    for value in 2..=4000 {
        publish_small(&writer, value, 1400, true);
    }
    publish_small(&writer, 4001, 1, true);
    drop(batch);
    assert_eq!(reader.receive(), "4001 0");
    reader.send("end");
}

/// A newcomer starts with a keyframe in the middle of a run. Limits and jumps lead to the middle of a run too.
#[test]
fn readers_start_in_the_middle_of_a_run() {
    let channel = Channel::new();
    let writer = small(&channel, slots(12));
    for value in 1..=50 {
        publish_small(&writer, value, 188, ![1, 20, 40].contains(&value));
    }
    assert_eq!(RawPeer::open(&channel).seqs(), [1], "all frames share a slot");
    for mut reader in [channel.reader(), channel.observer()] {
        let from = |first: u64| (first..=50).map(|value| value.to_string()).collect::<Vec<_>>();
        assert_eq!(drain(&mut reader, ReadLimits::default()), from(40));
        reader.seek_newest();
        assert_eq!(drain(&mut reader, ReadLimits::default()), [""; 0]);
    }
    for (max_behind, wanted) in [(10, 0), (11, 11), (30, 11)] {
        for mut reader in [channel.reader(), channel.observer()] {
            assert_eq!(drain(&mut reader, behind(max_behind)).len(), wanted, "{max_behind}");
        }
    }
    let observer = Observer::open(&ChannelName::new(channel.as_str()).unwrap())
        .unwrap()
        .unwrap();
    let (seq, descriptor) = observer.newest(&mut Vec::new()).unwrap();
    assert_eq!((seq, descriptor.offset, descriptor.size), (50, 50, 188));
}

/// A stream without delta units has independent frames, so a reader starts with the newest and resumes anywhere.
#[test]
fn readers_of_independent_small_frames_start_with_the_newest() {
    let channel = Channel::new();
    let writer = small(&channel, slots(12));
    for value in 1..=50 {
        publish_small(&writer, value, 40, false);
    }
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(drain(&mut reader, ReadLimits::default()), ["50"]);
    }
    let mut reader = channel.reader();
    assert_eq!(drain(&mut reader, ReadLimits::default()), ["50"]);
    for value in 51..=90 {
        publish_small(&writer, value, 40, false);
    }
    let wanted: Vec<_> = (86..=90).map(|value: u64| value.to_string()).collect();
    assert_eq!(drain(&mut reader, behind(5)), wanted);
}

/// A reader that is overrun continues with a keyframe, and the writer counts what the reader missed.
#[test]
fn overrun_reader_resumes_at_keyframe_and_writer_counts_missed_frames() {
    let channel = Channel::new();
    let writer = small(&channel, slots(4));
    let service = Service::of(&writer);
    publish_up_to(&writer, 10, 1400);
    let mut reader = channel.reader();
    assert_eq!(drain(&mut reader, ReadLimits::default()).len(), 10);
    for value in 11..=8000 {
        publish_small(&writer, value, 1400, value != 7900);
    }
    let wanted: Vec<_> = (7900..=8000).map(|value: u64| value.to_string()).collect();
    assert_eq!(drain(&mut reader, ReadLimits::default()), wanted);
    assert_eq!(reader.stats().missed, 7900 - 11);
    drop(service);
    let missed = writer.stats().missed_by_readers;
    assert!((1..=7900 - 11).contains(&missed), "{missed}");
}

/// An empty frame at the beginning of a run leaves no place for the record of a second frame.
#[test]
fn frames_after_an_empty_frame_arrive() {
    let channel = Channel::new();
    let writer = small(&channel, WriterOptions::default());
    publish_small(&writer, 1, 0, false);
    let mut reader = channel.reader();
    assert_eq!(drain(&mut reader, ReadLimits::default()), ["1"]);
    for (value, size) in [(2, 0), (3, 9), (4, 0), (5, 0), (6, 1)] {
        publish_small(&writer, value, size, true);
    }
    assert_eq!(drain(&mut reader, ReadLimits::default()), ["2", "3", "4", "5", "6"]);
    assert_eq!(RawPeer::open(&channel).seqs(), [1, 2, 3]);
}

/// A dropped frame ends the run, because the seqs of a run have no gap.
#[test]
fn dropped_frame_ends_the_run() {
    let channel = Channel::new();
    let writer = small(&channel, slots(12));
    publish_up_to(&writer, 3, 188);
    let mut reader = channel.reader();
    assert_eq!(drain(&mut reader, ReadLimits::default()).len(), 3);
    writer.record_drop();
    publish_small(&writer, 5, 188, true);
    publish_small(&writer, 6, 188, false);
    assert_eq!(RawPeer::open(&channel).seqs(), [1, 5]);
    assert_eq!(drain(&mut reader, ReadLimits::default()), ["6"]);
    assert_eq!(reader.stats().missed, 2);
}

/// A claim that another publish has overtaken cannot be published. The frame is claimed again.
#[test]
fn overtaken_claim_is_refused() {
    let channel = Channel::new();
    let writer = small(&channel, slots(12));
    publish_small(&writer, 1, 188, false);
    let overtaken = writer.claim(188).unwrap().unwrap();
    publish_small(&writer, 2, 188, false);
    let refused = writer.publish(&overtaken, FrameDescriptor::new(188), &[]);
    assert!(matches!(refused, Err(Error::NotPublishable { .. })), "{refused:?}");
    drop(overtaken);
    let too_long = writer.claim(100).unwrap().unwrap();
    let refused = writer.publish(&too_long, FrameDescriptor::new(101), &[]);
    assert!(
        matches!(refused, Err(Error::NotPublishable { .. } | Error::TooLarge { .. })),
        "{refused:?}"
    );
    drop(too_long);
    publish_small(&writer, 3, 188, false);
    assert_eq!(writer.stats().published, 3);
}

/// Small frames are copied, so a reader that keeps many of them pins no slot.
#[test]
fn small_frames_pin_nothing_and_large_ones_are_in_place() {
    let channel = Channel::new();
    let writer = small(&channel, WriterOptions::default());
    let _service = Service::of(&writer);
    publish_small(&writer, 1, 188, false);
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    let mut next = |reader: &mut Reader| match reader.next(&mut copy, ReadLimits::default(), Some(SECOND)).unwrap() {
        Next::Frame(frame) => frame,
        other => panic!("{other:?}"),
    };
    assert!(matches!(next(&mut reader).data, FrameData::Copied));
    publish_small(&writer, 2, 100_000, false);
    publish_small(&writer, 3, 100_000, false);
    let held = [next(&mut reader), next(&mut reader)];
    assert!(held.iter().all(|frame| matches!(frame.data, FrameData::InPlace(_))));
    let pins = RawPeer::open(&channel).entry(0).pins.load(Ordering::SeqCst);
    assert_eq!(pins.count_ones(), 1, "both frames are in one run");
    for frame in &held {
        check_frame(frame, &[]);
    }
}

/// A reader that waits before the writer starts gets the first burst whole, and the end of the stream after it. A reader
/// that comes later starts with the newest frame.
#[test]
fn waiting_reader_gets_first_burst_whole() {
    for observes in [false, true] {
        let channel = Channel::new();
        let mut waiting = if observes { channel.observer() } else { channel.reader() };
        let mut copy = Vec::new();
        let mut next =
            |reader: &mut Reader, timeout| reader.next(&mut copy, ReadLimits::default(), Some(timeout)).unwrap();
        assert!(matches!(next(&mut waiting, Duration::from_millis(30)), Next::TimedOut));
        let writer = small(&channel, WriterOptions::default());
        for value in 1..=64 {
            publish_small(&writer, value, 188, false);
        }
        writer.end_of_stream();
        publish_small(&writer, 65, 188, false);
        for value in 1..=64 {
            match next(&mut waiting, SECOND) {
                Next::Frame(frame) => assert_eq!((frame.seq, frame.missed), (value, 0)),
                other => panic!("{other:?} instead of {value}"),
            }
        }
        assert!(matches!(next(&mut waiting, SECOND), Next::EndOfStream));
        assert!(matches!(next(&mut waiting, SECOND), Next::Frame(frame) if frame.seq == 65));
        assert_eq!(drain(&mut channel.reader(), ReadLimits::default()), ["65"]);
        // A reader that wants only the newest frames skips the others.
        let mut newest = channel.reader();
        drop(writer);
        assert_eq!(drain(&mut newest, behind(1)), [""; 0]);
        let writer = small(&channel, WriterOptions::default());
        for value in 1..=64 {
            publish_small(&writer, value, 188, false);
        }
        match newest.next(&mut copy, behind(1), Some(SECOND)).unwrap() {
            Next::Frame(frame) => assert_eq!(frame.descriptor.offset, 64),
            other => panic!("{other:?}"),
        }
    }
}
