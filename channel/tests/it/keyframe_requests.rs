// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests of readers for the keyframe of a later time. The writer merges them by time, and limits how many a reader
//! can make.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, FrameDescriptor, KeyframeRequest, Reader, TIME_NONE, Writer,
    layout::{DELTA_UNIT, KEYFRAME_RING_LENGTH},
    monotonic_ns,
};
use rsshm_testkit::{Channel, Random, need_real_machine, on_this_machine};

use crate::support::{ChannelExt, SECOND, drain, futex, publish_frame, raw::RawPeer, slots};

const MS: u64 = 1_000_000;

/// A time in nanoseconds in which this machine does a few steps.
fn soon(milliseconds: u64) -> u64 {
    on_this_machine(Duration::from_millis(milliseconds)).as_nanos() as u64
}
/// The size of a frame in bytes.
const SIZE: u64 = 256;

/// A writer of a compressed stream, with a keyframe of the time `time`.
fn writer_at(channel: &Channel, time: u64) -> Arc<Writer> {
    let writer = channel.writer(slots(12));
    writer.set_caps(Caps::variable_size("video/x-h264")).unwrap();
    publish_at(&writer, time, true);
    writer
}

#[track_caller]
fn publish_at(writer: &Writer, time: u64, is_keyframe: bool) {
    let flags = if is_keyframe { 0 } else { DELTA_UNIT };
    assert!(publish_frame(
        writer,
        FrameDescriptor::new(SIZE).with_pts(time).with_flags(flags)
    ));
}

fn attach(channel: &Channel) -> Reader {
    let mut reader = channel.reader();
    assert!(!drain(&mut reader, Default::default()).is_empty());
    reader
}

fn at(time: u64) -> KeyframeRequest {
    KeyframeRequest::default().at(time)
}

#[track_caller]
fn request(reader: &Reader, request: KeyframeRequest) {
    assert!(reader.handle().send_keyframe_request(request));
}

/// The times of the new requests, and the times of those that are due.
fn service(writer: &Writer) -> (Vec<u64>, Vec<u64>) {
    let report = writer.service().unwrap();
    let times = |requests: &[KeyframeRequest]| requests.iter().map(|request| request.time).collect();
    assert_eq!(report.keyframe_wanted, !report.due_keyframe_requests.is_empty());
    (times(&report.keyframe_requests), times(&report.due_keyframe_requests))
}

#[test]
fn request_arrives_at_once_and_is_due_at_its_time() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let reader = attach(&channel);
    let wanted = at(now + soon(500)).all_headers(false).count(7);
    request(&reader, wanted);
    let report = writer.service().unwrap();
    assert_eq!(report.keyframe_requests, [wanted]);
    assert!(!report.keyframe_wanted);
    assert_eq!(service(&writer), (vec![], vec![]));
    // The service wakes up at that time, long before its own interval is over.
    writer.wait_for_service(10 * SECOND);
    let woken = monotonic_ns();
    assert!(
        (wanted.time..wanted.time + 5_000 * MS).contains(&woken),
        "{}",
        woken - now
    );
    assert_eq!(service(&writer), (vec![], vec![wanted.time]));
    assert_eq!(service(&writer), (vec![], vec![]));
}

#[test]
fn only_keyframe_of_that_time_answers() {
    let channel = Channel::new();
    let writer = writer_at(&channel, monotonic_ns());
    let reader = attach(&channel);
    // Only frames come to these times, and the clock does not.
    let now = monotonic_ns() + 60_000 * MS;
    let times = [now + 100 * MS, now + 200 * MS];
    for time in times {
        request(&reader, at(time));
    }
    assert_eq!(service(&writer).0, times);
    // A keyframe before both times answers none of them, and a delta at that time does not either.
    publish_at(&writer, times[0] - 1, true);
    publish_at(&writer, times[0], false);
    publish_at(&writer, times[0] + 1, true);
    publish_at(&writer, times[1], false);
    assert_eq!(service(&writer), (vec![], vec![times[1]]));
    // The keyframe is there already, so another request for that time is not reported.
    request(&reader, at(times[0]));
    assert_eq!(service(&writer), (vec![], vec![]));
}

#[test]
fn requests_of_several_readers_are_merged_by_time() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let readers = [attach(&channel), attach(&channel), attach(&channel)];
    let later = |ms: u64| now + 60_000 * MS + ms * MS;
    // The readers' clocks differ by some microseconds.
    for (reader, error) in readers.iter().zip([0, 3_000, 40_000]) {
        request(reader, at(later(0) + error));
    }
    request(&readers[0], at(later(2000)));
    request(&readers[1], at(later(1300)));
    request(&readers[2], at(later(34)));
    let (mut new, due) = service(&writer);
    new.sort_unstable();
    assert_eq!(new, [later(0), later(34), later(1300), later(2000)]);
    assert!(due.is_empty());
    // A request without headers does not stand for one with headers.
    request(&readers[0], at(later(5000)).all_headers(false));
    request(&readers[1], at(later(5000)));
    request(&readers[2], at(later(5000)).all_headers(false));
    assert_eq!(service(&writer).0, [later(5000); 2]);
}

#[test]
fn immediate_and_later_requests_are_independent() {
    let channel = Channel::new();
    let writer = writer_at(&channel, monotonic_ns());
    let readers = [attach(&channel), attach(&channel)];
    let now = monotonic_ns();
    // Only a frame comes to this time, and the clock does not.
    let time = now + 60_000 * MS;
    for _ in 0..100 {
        assert!(readers[0].handle().request_keyframe());
    }
    request(&readers[0], at(time));
    assert!(readers[1].handle().request_keyframe());
    assert_eq!(service(&writer), (vec![time], vec![TIME_NONE]));
    // The keyframe at once does not answer the later request, and a further request at once waits for a second.
    publish_at(&writer, now + 10 * MS, true);
    assert!(readers[1].handle().request_keyframe());
    publish_at(&writer, time, false);
    assert_eq!(service(&writer), (vec![], vec![time]));
    let began = Instant::now();
    while service(&writer) != (vec![], vec![TIME_NONE]) {
        assert!(began.elapsed() < 5 * SECOND, "the second request at once is lost");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn details_of_immediate_requests_are_merged() {
    let channel = Channel::new();
    let writer = writer_at(&channel, monotonic_ns());
    let reader = attach(&channel);
    let wanted = |all_headers| KeyframeRequest::default().all_headers(all_headers).count(5);
    request(&reader, wanted(false));
    assert_eq!(writer.service().unwrap().due_keyframe_requests, [wanted(false)]);
}

#[test]
fn greedy_reader_gets_few_keyframes() {
    need_real_machine!("the steps of the test take longer than its stream");
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let (greedy, modest) = (attach(&channel), attach(&channel));
    let mut reported = Vec::new();
    let later = |ms: u64| now + 10_000 * MS + ms * MS;
    for ms in (0..1000).step_by(5) {
        request(&greedy, at(later(ms)));
        reported.extend(service(&writer).0);
    }
    assert_eq!(reported, [0, 5, 10, 15, 20, 25, 30, 35].map(later));
    // One per frame, when the frames have come.
    let mut asked = 0;
    for frame in 0..300 {
        let time = now + frame * 33 * MS;
        publish_at(&writer, time, frame % 2 == 0);
        request(&greedy, at(time + 1));
        asked += service(&writer).0.len();
    }
    assert!((50..=100).contains(&asked), "{asked} keyframes in ten seconds");
    // Requests far in the future fill the reader's own list only.
    for second in 0..100 {
        request(&greedy, at(later(100_000 + second * 1000)));
        service(&writer);
    }
    request(&modest, at(later(3_000)));
    assert_eq!(service(&writer).0, [later(3_000)]);
}

#[test]
fn only_newest_requests_are_read() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let reader = attach(&channel);
    let times: Vec<u64> = (1..=20).map(|n| now + n * 1000 * MS).collect();
    for time in &times {
        request(&reader, at(*time));
    }
    assert_eq!(service(&writer).0, times[20 - KEYFRAME_RING_LENGTH as usize..]);
}

#[test]
fn requests_end_with_their_reader_entry() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let first = attach(&channel);
    request(&first, at(now + 1000 * MS));
    drop(first);
    // The next owner has the same entry, and the record of the last owner is still there.
    let second = attach(&channel);
    assert_eq!(service(&writer).0, [0; 0]);
    request(&second, at(now + 2000 * MS));
    assert_eq!(service(&writer).0, [now + 2000 * MS]);
}

#[test]
fn request_sent_again_in_next_segment_counts_once() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let mut reader = attach(&channel);
    let (seen, unseen) = (now + 60_000 * MS, now + 70_000 * MS);
    request(&reader, at(seen));
    assert_eq!(service(&writer).0, [seen]);
    request(&reader, at(unseen));
    writer.set_caps(Caps::variable_size("video/x-h265")).unwrap();
    publish_at(&writer, now + MS, true);
    assert!(
        !reader.handle().send_keyframe_request(at(unseen)),
        "the segment is over"
    );
    drain(&mut reader, Default::default());
    for time in [seen, unseen] {
        request(&reader, at(time));
    }
    assert_eq!(service(&writer).0, [unseen]);
}

/// A hostile peer writes any values into its reader entry.
#[test]
fn garbage_requests_do_no_harm() {
    let channel = Channel::new();
    let now = monotonic_ns();
    let writer = writer_at(&channel, now);
    let peer = RawPeer::open(&channel);
    let entry = peer.entry(peer.attach());
    writer.service().unwrap();
    let mut random = Random::new(1);
    let mut reported = 0;
    for round in 0..5000 {
        let special = [0, 1, now - 1, now + MS, TIME_NONE - 1, TIME_NONE, u64::MAX / 2];
        let mut value = || match random.below(2) {
            0 => special[random.below(special.len() as u64) as usize],
            _ => random.number(),
        };
        let head = match round % 4 {
            0 => value(),
            _ => entry.keyframe_head.load(Ordering::SeqCst).wrapping_add(1),
        };
        for record in &entry.keyframes {
            record.time.store(value(), Ordering::SeqCst);
            record.details.store(value(), Ordering::SeqCst);
        }
        for (n, record) in (0..KEYFRAME_RING_LENGTH).zip(entry.keyframes.iter().cycle().skip(head as usize % 8)) {
            record.seq.store(head.wrapping_sub(n), Ordering::SeqCst);
        }
        entry.keyframe_head.store(head, Ordering::SeqCst);
        entry.keyframe_requests.fetch_add(1, Ordering::SeqCst);
        futex::wake(&peer.status().writer_word);
        let report = writer.service().unwrap();
        reported += report.keyframe_requests.len();
        assert!(report.keyframe_requests.len() <= KEYFRAME_RING_LENGTH as usize);
        assert!(report.due_keyframe_requests.len() <= 17);
    }
    // Requests for times in the past are answered already, and 16 for future times fill the list.
    assert!(reported <= 40, "{reported}");
    // Another reader still gets its keyframe.
    let reader = attach(&channel);
    let time = monotonic_ns() + 100 * MS;
    request(&reader, at(time));
    assert!(service(&writer).0.contains(&time));
}

/// Frames without times answer no request for a time. The writer forgets such requests by the clock.
#[test]
fn frames_without_times_answer_nothing() {
    let channel = Channel::new();
    let writer = writer_at(&channel, TIME_NONE);
    let reader = attach(&channel);
    let time = monotonic_ns() - 4_500 * MS;
    request(&reader, at(time));
    assert_eq!(service(&writer), (vec![time], vec![time]));
    publish_at(&writer, TIME_NONE, true);
    let forgotten = time + 5_050 * MS;
    std::thread::sleep(Duration::from_nanos(forgotten.saturating_sub(monotonic_ns())));
    assert_eq!(service(&writer), (vec![], vec![]));
    request(&reader, at(time));
    assert_eq!(service(&writer).0, [time], "it was forgotten");
}
