//! How a channel ends: ends of the stream in order, and a child of a fork that has no part in them.

mod common;

use std::time::Duration;

use common::{Channel, publish, slots};
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};
use rsshm_channel::{NewEvent, Next, ReadLimits, Reader};

fn next(reader: &mut Reader) -> Next {
    let patience = Some(Duration::from_millis(500));
    reader.next(&mut Vec::new(), ReadLimits::default(), patience).unwrap()
}

#[track_caller]
fn expect_frame(reader: &mut Reader, seq: u64) {
    match next(reader) {
        Next::Frame(frame) => assert_eq!(frame.seq, seq),
        other => panic!("{other:?} instead of frame {seq}"),
    }
}

#[test]
fn an_end_of_the_stream_comes_before_what_follows_it() {
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
fn who_joins_an_ended_stream_waits_for_the_next() {
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

/// A reader that was away while the stream ended twice gets one end, and events still come before the frames behind them.
#[test]
fn events_between_two_ends_come_in_order() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let mut reader = channel.reader();
    let tell = |kind| {
        let event = NewEvent {
            kind,
            ..NewEvent::default()
        };
        writer.publish_event(event, None).unwrap();
    };
    assert!(publish(&writer, 1));
    expect_frame(&mut reader, 1);
    writer.end_of_stream();
    tell(7);
    assert!(publish(&writer, 2));
    writer.end_of_stream();
    tell(8);
    let event = next(&mut reader);
    assert!(matches!(&event, Next::Event(event) if event.kind == 7), "{event:?}");
    expect_frame(&mut reader, 2);
    assert!(matches!(next(&mut reader), Next::EndOfStream));
    let event = next(&mut reader);
    assert!(matches!(&event, Next::Event(event) if event.kind == 8), "{event:?}");
}

/// A child has copies of everything; what its copies stand for is the parent's.
#[test]
fn a_forked_child_ends_nothing_of_its_parents() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    let mut reader = channel.reader();
    let service = common::Service::of(&writer);
    let mut copy = Vec::new();
    let held = common::next_in_place(&writer, &mut reader, &mut copy);
    // SAFETY: the child drops values, none of which takes a lock that another thread could hold, and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop((held, reader));
            writer.close();
            // SAFETY: leaves without running what belongs to the parent's end.
            unsafe { nix::libc::_exit(0) };
        }
        ForkResult::Parent { child } => {
            waitpid(child, None).unwrap();
        }
    }
    assert!(
        channel.segment().exists() && channel.semaphore().exists(),
        "the names are the parent's"
    );
    for value in 2..=30 {
        assert!(publish(&writer, value));
    }
    common::check_bytes(&held, &copy);
    assert_eq!(service.seen().reader_count, 1, "the parent's reader still has its seat");
    drop(held);
    assert!(matches!(next(&mut reader), Next::Frame(_)), "and takes frames");
}
