// SPDX-License-Identifier: MIT OR Apache-2.0

//! Arguments at the ends of their types. The calls return errors or go on, and end no program.

use std::{sync::Arc, time::Duration};

use rsshm_channel::{
    Caps, Error, FrameDescriptor, KeyframeRequest, NewEvent, Next, ReadLimits, ServiceThread, Writer, WriterOptions,
    metadata::RegionOfInterest,
};
use rsshm_testkit::Channel;

use crate::support::{ChannelExt, SIZE, check, next, publish, slots};

#[track_caller]
fn assert_too_large<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
}

#[test]
fn impossible_options_are_errors() {
    let channel = Channel::new();
    for options in [slots(u32::MAX), WriterOptions::default().perms(u32::MAX)] {
        let error = Writer::open(channel.0.clone(), options).map(drop).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
    channel.assert_removed();
}

#[test]
fn impossible_sizes_are_errors() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    for size in [1 << 62, i64::MAX as usize - 4096, i64::MAX as usize, usize::MAX] {
        for caps in [Caps::fixed_size("a", size), Caps::variable_size("b")] {
            writer.set_caps(caps).unwrap();
            assert_too_large(writer.claim(size).map(drop));
            assert_too_large(writer.upstream().claim(size).map(drop));
            assert_too_large(writer.wait_for_reader(size, || false));
        }
    }
    assert_too_large(writer.set_caps(Caps::variable_size("x".repeat(1 << 20))));
    writer.set_caps(Caps::fixed_size("c", SIZE)).unwrap();
    assert!(publish(&writer, 1));
}

#[test]
fn impossible_frames_and_events_are_errors() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    let slot = writer.claim(SIZE).unwrap().expect("a slot");
    let mut far = FrameDescriptor::new(1);
    far.data_offset = u64::MAX;
    let mut many_planes = FrameDescriptor::new(1);
    many_planes.planes = u32::MAX;
    for descriptor in [
        FrameDescriptor::new(u64::MAX),
        FrameDescriptor::new(SIZE as u64 + 1),
        far,
        many_planes,
    ] {
        assert_too_large(writer.publish(&slot, descriptor, &[]));
    }
    let long = vec![0; 1 << 20];
    assert_too_large(writer.publish(&slot, FrameDescriptor::new(1), &long));
    assert_too_large(writer.publish_event(NewEvent::new(7, &long), None));
    assert_too_large(writer.publish_event(NewEvent::new(7, b"event"), Some(usize::MAX)));
    let kind = "k".repeat(1 << 20);
    let region = RegionOfInterest {
        x: u32::MAX,
        y: u32::MAX,
        width: u32::MAX,
        height: u32::MAX,
        id: i32::MIN,
        parent_id: i32::MIN,
        kind: &kind,
    };
    assert!(region.to_record().len() < 100, "a kind that is too long is left out");
    drop(slot);
    assert!(publish(&writer, 1));
}

#[test]
fn extreme_limits_and_times_end_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4).accept_messages(true));
    writer.set_latency_ns(u64::MAX);
    writer.objects().set_spare(u32::MAX);
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    let (limits, mut copy) = (
        ReadLimits::default().max_behind(u32::MAX).max_held(u32::MAX),
        Vec::new(),
    );
    let first = reader.next(&mut copy, limits, Some(Duration::MAX));
    assert!(matches!(&first, Ok(Next::Frame(frame)) if frame.seq == 1), "{first:?}");
    assert!(!reader.handle().send_message(&vec![0; 1 << 20]));
    assert!(
        reader
            .handle()
            .send_keyframe_request(KeyframeRequest::default().at(u64::MAX - 1))
    );
    let service = ServiceThread::spawn(Arc::clone(&writer), Duration::MAX, |_, report| drop(report.unwrap()));
    assert!(publish(&writer, 2));
    check(&next(&mut reader, &mut copy), &copy, 2);
    service.unwrap().stop().unwrap();
}
