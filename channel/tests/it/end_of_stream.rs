// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers get the end of a stream in order, and a forked child does not end its parent's stream.

use std::time::Duration;

use rsshm_channel::{NewEvent, Next, ReadLimits, Reader};
use rsshm_testkit::{
    Channel,
    process::in_forked_child,
    role::{self, Role},
};

use crate::support::{ChannelExt, Service, check_bytes, next_in_place, publish, slots};

pub const ROLES: &[(&str, Role)] = &[("end_of_stream/fork", |_| ends_nothing_after_fork())];

fn next(reader: &mut Reader) -> Next {
    let timeout = Some(Duration::from_millis(500));
    reader.next(&mut Vec::new(), ReadLimits::default(), timeout).unwrap()
}

#[track_caller]
fn expect_frame(reader: &mut Reader, seq: u64) {
    match next(reader) {
        Next::Frame(frame) => assert_eq!(frame.seq, seq),
        other => panic!("{other:?} instead of frame {seq}"),
    }
}

#[test]
fn end_of_stream_comes_before_next_stream() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let mut reader = channel.reader();
    assert!(publish(&writer, 1));
    expect_frame(&mut reader, 1);
    assert!(publish(&writer, 2));
    writer.end_of_stream();
    assert!(publish(&writer, 3));
    expect_frame(&mut reader, 2);
    assert!(matches!(next(&mut reader), Next::EndOfStream));
    expect_frame(&mut reader, 3);
    assert!(matches!(next(&mut reader), Next::TimedOut));
}

#[test]
fn reader_joining_ended_stream_waits_for_next() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    writer.end_of_stream();
    let mut reader = channel.reader();
    expect_frame(&mut reader, 1);
    assert!(matches!(next(&mut reader), Next::TimedOut));
    assert!(publish(&writer, 2));
    expect_frame(&mut reader, 2);
    writer.end_of_stream();
    assert!(matches!(next(&mut reader), Next::EndOfStream));
}

/// The stream ends twice while a reader does not read. The reader gets one end, and each event still comes before the
/// frames that were published after it.
#[test]
fn events_between_two_ends_arrive_in_order() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let mut reader = channel.reader();
    let publish_event = |kind| writer.publish_event(NewEvent::new(kind, &[]), None).unwrap();
    assert!(publish(&writer, 1));
    expect_frame(&mut reader, 1);
    writer.end_of_stream();
    publish_event(7);
    assert!(publish(&writer, 2));
    writer.end_of_stream();
    publish_event(8);
    let event = next(&mut reader);
    assert!(matches!(&event, Next::Event(event) if event.kind == 7), "{event:?}");
    expect_frame(&mut reader, 2);
    assert!(matches!(next(&mut reader), Next::EndOfStream));
    let event = next(&mut reader);
    assert!(matches!(&event, Next::Event(event) if event.kind == 8), "{event:?}");
}

/// A forked child has copies of the reader, the writer and the frame. Dropping the copies has no effect on the parent's
/// channel.
#[test]
fn forked_child_ends_nothing_of_its_parent() {
    role::start("end_of_stream/fork", &[]).wait_ok();
}

fn ends_nothing_after_fork() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    let mut reader = channel.reader();
    let _service = Service::of(&writer);
    let mut copy = Vec::new();
    let held = next_in_place(&writer, &mut reader, &mut copy);
    let mut inherited = Some((held, reader));
    let in_child = || {
        drop(inherited.take());
        writer.close();
        0
    };
    // SAFETY: the child only drops values and closes the writer. Neither takes a lock that another thread could hold.
    assert_eq!(unsafe { in_forked_child(in_child) }, 0);
    let (held, mut reader) = inherited.expect("only the child has dropped them");
    assert!(
        channel.segment().exists() && channel.lock_file().exists(),
        "the parent keeps the names"
    );
    for value in 2..=30 {
        assert!(publish(&writer, value));
    }
    check_bytes(&held, &copy);
    let report = writer.service().unwrap();
    assert_eq!(report.reader_count, 1, "the parent's reader keeps its entry");
    drop(held);
    assert!(matches!(next(&mut reader), Next::Frame(_)), "and gets frames");
}
