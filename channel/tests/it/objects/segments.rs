// SPDX-License-Identifier: MIT OR Apache-2.0

//! Other caps: frames of objects in several segments.

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::Arc,
};

use rsshm_channel::{Caps, Error, Next, ObjectPart, ReadLimits};
use rsshm_testkit::{Channel, eventually};

use super::{
    OTHER_CAPS, accepting, next_frame,
    pool::{Pool, memfd, object_writer},
};
use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, bytes, check_bytes, descriptor, lossless, next_within, publish, slots,
};

#[test]
fn caps_change_between_slots_and_objects() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    let mut reader = channel.reader();
    let mut value = 0;
    for round in 0..4 {
        writer.set_caps(Caps::objects(CAPS)).unwrap();
        let error = writer.claim(SIZE).unwrap_err();
        assert!(
            matches!(&error, Error::Option { .. }) && error.to_string().contains("objects"),
            "{error}"
        );
        let error = writer.upstream().claim(SIZE).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        for _ in 0..3 {
            value += 1;
            assert!(pool.publish(&writer, value));
            let frame = next_frame(&mut reader, accepting());
            assert_eq!((frame.descriptor.offset, reader.caps()), (value, CAPS));
        }
        assert_eq!(pool.free(), 3, "round {round}");
        writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
        let error = pool.try_publish(&writer, 1).unwrap_err();
        assert!(
            matches!(&error, Error::Option { .. }) && error.to_string().contains("Caps::objects"),
            "{error}"
        );
        for _ in 0..3 {
            value += 1;
            assert!(publish(&writer, value));
            let mut copy = Vec::new();
            let frame = next_within(&mut reader, &mut copy, accepting());
            assert_eq!(frame.descriptor.offset, value);
            check_bytes(&frame, bytes(&frame, &copy));
        }
        // The buffers of the superseded segment are back although no service runs.
        assert_eq!(pool.free(), 4, "round {round}");
    }
}

/// A lossless writer has made the next segment, while a reader still needs memory of a frame in the last one.
#[test]
fn reader_of_superseded_segment_gets_memory() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), lossless(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 4);
    let mut reader = channel.reader();
    assert!(pool.publish(&writer, 1));
    drop(next_frame(&mut reader, accepting()));
    // The second frame is in another buffer, whose memory the reader does not have yet.
    assert!(pool.publish(&writer, 2));
    let segment = || std::fs::metadata(channel.segment()).unwrap().ino();
    let former = segment();
    let publisher = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || {
            writer.set_caps(Caps::objects(OTHER_CAPS)).unwrap();
            pool.publish(&writer, 3)
        }
    });
    eventually("the next segment", || segment() != former);
    for (value, caps) in [(2, CAPS), (3, OTHER_CAPS)] {
        let frame = next_frame(&mut reader, accepting());
        assert_eq!((frame.descriptor.offset, frame.missed, reader.caps()), (value, 0, caps));
    }
    assert!(publisher.join().unwrap());
    drop(service);
}

/// A fault of the last frame before a change of the caps comes before the frames of the next segment.
#[test]
fn fault_before_a_change_of_the_caps_is_reported() {
    let channel = Channel::new();
    // A lossless writer keeps the last frame for the reader.
    let writer = object_writer(channel.as_str(), lossless(0), 6);
    let file = memfd(SIZE);
    let object = writer.objects().register(file.as_fd()).unwrap();
    let mut reader = channel.reader();
    let publish_object = || {
        let part = ObjectPart::new(&object, 0, SIZE as u64);
        let published = writer
            .objects()
            .publish(&[part], descriptor(SIZE, 0), &[], Box::new(()));
        assert!(published.unwrap().is_some());
    };
    publish_object();
    next_frame(&mut reader, ReadLimits::default());
    file.set_len(100).unwrap();
    publish_object();
    // The writer waits until the reader has moved. The thread is not joined if the test fails, because it could wait for
    // ever.
    let publisher = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || {
            writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
            publish(&writer, 1)
        }
    });
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(10 * SECOND));
    assert!(matches!(&next, Ok(Next::Fault(_))), "{next:?}");
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(10 * SECOND));
    assert!(matches!(&next, Ok(Next::Frame(frame)) if frame.missed == 1), "{next:?}");
    assert!(publisher.join().unwrap());
    assert_eq!((reader.stats().missed, reader.stats().reconnects), (1, 1));
}
