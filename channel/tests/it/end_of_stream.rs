// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers get the end of a stream in order, and a forked child does not end its parent's stream.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};
use rsshm_channel::{NewEvent, Next, ReadLimits, Reader};
use rsshm_testkit::{
    Channel,
    role::{self, Role},
};

use crate::support::{ChannelExt, Service, check_bytes, descriptor, next_in_place, publish, publish_frame, slots};

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
    let service = Service::of(&writer);
    let mut copy = Vec::new();
    let held = next_in_place(&writer, &mut reader, &mut copy);
    // SAFETY: the child only drops values and exits. No drop takes a lock that another thread could hold.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop((held, reader));
            writer.close();
            // SAFETY: `_exit` ends the child without running the destructors, because only the parent may run them.
            unsafe { nix::libc::_exit(0) };
        }
        ForkResult::Parent { child } => {
            waitpid(child, None).unwrap();
        }
    }
    assert!(
        channel.segment().exists() && channel.lock_file().exists(),
        "the parent keeps the names"
    );
    for value in 2..=30 {
        assert!(publish(&writer, value));
    }
    check_bytes(&held, &copy);
    assert_eq!(service.seen().reader_count, 1, "the parent's reader keeps its entry");
    drop(held);
    assert!(matches!(next(&mut reader), Next::Frame(_)), "and gets frames");
}

/// Ends of the stream keep their place between frames, although the writer publishes both as fast as it can. Each frame
/// says in its field `duration` how many ends came before it.
#[test]
fn order_of_ends_and_frames_holds_under_load() {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    let _service = Service::of(&writer);
    assert!(publish(&writer, 0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [channel.reader(), channel.observer()].map(|mut reader| {
            let stop = &stop;
            scope.spawn(move || {
                // How many ends came before the last frame, and whether an end was delivered after it.
                let (mut ends_before, mut has_end, mut ends, mut frames) = (0, false, 0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match next(&mut reader) {
                        Next::Frame(frame) => {
                            let now = frame.descriptor.duration.wrapping_add(1);
                            // The stream of a newcomer's first frame may have ended already. The newcomer gets no end
                            // then.
                            frames += 1;
                            if frames > 2 {
                                assert_eq!(now > ends_before, has_end, "{now} ends after {ends_before}");
                            }
                            (ends_before, has_end) = (now, false);
                        }
                        Next::EndOfStream => {
                            assert!(!has_end, "two ends without a frame between them");
                            (has_end, ends) = (true, ends + 1);
                        }
                        Next::TimedOut => {}
                        other => panic!("{other:?}"),
                    }
                }
                ends
            })
        });
        let end = Instant::now() + Duration::from_millis(1500);
        let mut ends = 0;
        while Instant::now() < end {
            writer.end_of_stream();
            ends += 1;
            assert!(publish_frame(&writer, descriptor(100, 1).with_duration(ends)));
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 10, "of {ends} ends");
        }
    });
}
