// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests for keyframes: who sends them, how often, and what the writer reports.

use std::time::{Duration, Instant};

use rsshm_channel::Caps;
use rsshm_testkit::{Channel, PATIENCE, eventually};

use super::{compressed, expect, now, publish_all, publish_deltas, requests};
use crate::support::{ChannelExt, SECOND, slots};

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
    // Other programs can delay the reader too, so the test repeats this.
    eventually("the request is repeated soon after a second", || {
        let channel = Channel::new();
        let writer = compressed(&channel, slots(5));
        publish_deltas(&writer, 1..=3);
        let mut reader = channel.reader();
        let began = Instant::now();
        let mut value = 4;
        while value == 4 || requests(&channel) == 1 {
            assert!(began.elapsed() < PATIENCE);
            publish_deltas(&writer, value..=value);
            value += 1;
            assert_eq!(now(&mut reader), [""; 0]);
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = began.elapsed();
        assert_eq!(requests(&channel), 2);
        assert!(took >= SECOND, "{took:?}");
        took < Duration::from_millis(1300)
    });
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
    let mut reported = None::<Instant>;
    // There is at least a second between two reports.
    let mut is_wanted = || {
        let began = Instant::now();
        let is_wanted = writer.service().unwrap().keyframe_wanted;
        if is_wanted {
            assert!(reported.is_none_or(|reported| reported.elapsed() >= SECOND), "too soon");
            reported = Some(began);
        }
        is_wanted
    };
    assert!(!is_wanted());
    request();
    assert!(is_wanted());
    assert!(!is_wanted());
    // If this request comes within a second after the reported request, the writer keeps the new request and reports it
    // later.
    request();
    publish_all(&writer, "d3");
    eventually("the request is reported", &mut is_wanted);
    assert!(!is_wanted());
    request();
    is_wanted();
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
    let mut reported = Instant::now();
    assert!(reader.handle().request_keyframe());
    assert!(is_wanted());
    assert!(reader.handle().request_keyframe());
    if is_wanted() {
        assert!(reported.elapsed() >= SECOND, "too soon");
        reported = Instant::now();
    }
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
