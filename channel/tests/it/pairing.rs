// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with a writer and its readers in one process. They check what the protocol guarantees in ordinary use.

use std::time::Instant;

use rsshm_channel::{Error, Next, ReadLimits, Writer, WriterOptions};
use rsshm_testkit::{Channel, eventually};

use crate::support::{
    ChannelExt, SECOND, Service, behind, check, is_in_place, next, next_within, poll, publish, slots,
};

#[test]
fn reader_gets_frames_in_order_and_no_file_remains() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    publish(&writer, 1);
    check(&next(&mut reader, &mut copy), &copy, 1);
    for value in 2..=200 {
        assert!(publish(&writer, value));
        writer.service().unwrap();
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!((frame.seq, frame.missed), (value, 0));
    }
    assert!(reader.stats().in_place >= 199, "{:?}", reader.stats());
    writer.end_of_stream();
    assert!(matches!(
        reader.next(&mut copy, ReadLimits::default(), None).unwrap(),
        Next::EndOfStream
    ));
    drop(writer);
    assert!(matches!(
        reader.next(&mut copy, ReadLimits::default(), None).unwrap(),
        Next::Lost
    ));
    channel.assert_removed();
}

#[test]
fn second_writer_is_refused_with_owners_pid() {
    let channel = Channel::new();
    let first = channel.writer(WriterOptions::default());
    publish(&first, 1);
    let began = Instant::now();
    let second = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(
        matches!(second, Err(Error::Busy { pid: Some(pid), .. }) if pid == std::process::id()),
        "{second:?}"
    );
    assert!(
        began.elapsed() >= 2 * SECOND,
        "it retries, as a killed process needs a moment to die"
    );
    assert!(publish(&first, 2), "the first continues");
}

#[test]
fn observer_copies_and_takes_no_reader_entry() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    publish(&writer, 7);
    let mut reader = channel.observer();
    let mut copy = Vec::new();
    let frame = next(&mut reader, &mut copy);
    check(&frame, &copy, 7);
    assert!(!is_in_place(&frame));
    assert!(reader.is_observer() && reader.observer_reason().is_none());
    assert_eq!(writer.service().unwrap().reader_count, 0);
}

#[test]
fn writer_reports_readers_that_attach_and_leave() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    publish(&writer, 1);
    let service = Service::of(&writer);
    let mut copy = Vec::new();
    let (mut one, mut two) = (channel.reader(), channel.reader());
    next(&mut one, &mut copy);
    next(&mut two, &mut copy);
    eventually("both are there", || service.seen().reader_count == 2);
    let frame = {
        publish(&writer, 2);
        next(&mut one, &mut copy)
    };
    drop(one);
    eventually("one is gone", || service.seen().reader_count == 1);
    assert_eq!(service.seen().connected, [0, 1]);
    assert_eq!(service.seen().disconnected, [0]);
    check(&frame, &copy, 2);
    for value in 3..200 {
        assert!(publish(&writer, value));
    }
    check(&frame, &copy, 2); // the frame stays held after its reader is gone
}

#[test]
fn late_reader_gets_newest_frame_and_max_behind_skips() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let mut copy = Vec::new();
    for value in 1..=5 {
        publish(&writer, value);
    }
    let mut reader = channel.reader();
    let frame = next(&mut reader, &mut copy);
    assert_eq!((frame.seq, frame.missed, frame.discontinuity), (5, 0, true));
    for value in 6..=9 {
        publish(&writer, value);
    }
    let frame = next_within(&mut reader, &mut copy, behind(1));
    assert_eq!((frame.seq, frame.missed, frame.discontinuity), (9, 3, false));
    for value in 10..=12 {
        publish(&writer, value);
    }
    let frame = next_within(&mut reader, &mut copy, behind(2));
    assert_eq!((frame.seq, frame.missed), (11, 1));
    reader.seek_newest();
    let frame = next(&mut reader, &mut copy);
    assert_eq!((frame.seq, frame.missed, frame.discontinuity), (12, 0, true));
    reader.seek_newest(); // no frame is newer, so the reader waits for the next one
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
}

/// Each attached reader gets the end of a stream after its last frame, even if it is behind. A reader that attaches
/// after the end does not get that end.
#[test]
fn reader_gets_end_of_stream_after_its_last_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let mut copy = Vec::new();
    let mut slow = channel.reader();
    publish(&writer, 1);
    check(&next(&mut slow, &mut copy), &copy, 1);
    publish(&writer, 2);
    publish(&writer, 3);
    writer.end_of_stream();
    let mut late = channel.reader();
    check(&next(&mut late, &mut copy), &copy, 3);
    assert!(
        matches!(poll(&mut late, &mut copy), Next::TimedOut),
        "it attached after the end and waits"
    );
    check(&next(&mut slow, &mut copy), &copy, 2);
    check(&next(&mut slow, &mut copy), &copy, 3);
    assert!(matches!(poll(&mut slow, &mut copy), Next::EndOfStream));
    assert!(matches!(poll(&mut slow, &mut copy), Next::TimedOut));
    publish(&writer, 4); // another stream follows
    check(&next(&mut slow, &mut copy), &copy, 4);
    check(&next(&mut late, &mut copy), &copy, 4);
    writer.end_of_stream();
    assert!(matches!(poll(&mut late, &mut copy), Next::EndOfStream));
    // A reader that is behind gets the end before the frames that follow the end.
    assert!(publish(&writer, 5));
    check(&next(&mut late, &mut copy), &copy, 5);
    assert!(matches!(poll(&mut slow, &mut copy), Next::EndOfStream));
    check(&next(&mut slow, &mut copy), &copy, 5);
}

#[test]
fn writers_latency_reaches_waiting_reader() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut copy = Vec::new();
    writer.set_latency_ns(5);
    publish(&writer, 1);
    let mut reader = channel.reader();
    next(&mut reader, &mut copy);
    assert_eq!(reader.latency_ns(), 5);
    writer.set_latency_ns(7);
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    assert_eq!(reader.latency_ns(), 7);
}
