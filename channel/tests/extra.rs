//! Bytes that go with a frame, of which the channel knows nothing.

mod common;

use common::{Channel, Service, is_in_place, next, slots};
use rsshm_channel::{EXTRA_ROOM, Error, FrameDescriptor, Writer, WriterOptions};

/// Publishes a frame with `extra`.
#[track_caller]
fn publish(writer: &Writer, extra: &[u8]) {
    let slot = writer.claim(common::SIZE).unwrap().unwrap();
    let descriptor = FrameDescriptor {
        size: common::SIZE as u64,
        extra_size: 77, // it is the bytes that count
        ..FrameDescriptor::default()
    };
    writer.publish(&slot, descriptor, extra).unwrap();
}

/// `size` bytes, no two neighbours the same.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 + size) as u8).collect()
}

#[test]
fn extra_bytes_arrive_with_their_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let _service = Service::of(&writer);
    publish(&writer, &bytes(5));
    let mut copy = Vec::new();
    let (mut pinning, mut observing) = (channel.reader(), channel.observer());
    for reader in [&mut pinning, &mut observing] {
        assert_eq!(next(reader, &mut copy).extra, bytes(5));
    }
    for size in [EXTRA_ROOM, 0, 1, 7, 8, 9, 4, EXTRA_ROOM - 1] {
        publish(&writer, &bytes(size));
        let pinned = next(&mut pinning, &mut copy);
        assert!(is_in_place(&pinned));
        let copied = next(&mut observing, &mut copy);
        assert!(!is_in_place(&copied));
        for frame in [pinned, copied] {
            assert!(frame.extra == bytes(size), "{size}");
            assert_eq!(frame.descriptor.extra_size as usize, size);
        }
    }
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut slot = writer.claim(16).unwrap().unwrap();
    let extra = vec![0; EXTRA_ROOM + 1];
    let refused = writer.publish(&slot, FrameDescriptor::default(), &extra);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let refused = writer.publish_in_place(slot.as_mut(), FrameDescriptor::default(), &extra);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert!(!slot.is_published());
    writer
        .publish(&slot, FrameDescriptor::default(), &extra[..EXTRA_ROOM])
        .unwrap();
}

/// While a writer goes as fast as it can, a reader without a pin has either all of a frame's bytes, or not the frame.
#[test]
fn extra_bytes_are_never_of_two_frames() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    publish(&writer, &[1; EXTRA_ROOM]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut observing = channel.observer();
    let mut copy = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1u8;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                value = value.wrapping_add(1);
                publish(&writer, &[value; EXTRA_ROOM]);
            }
        });
        for _ in 0..3000 {
            let frame = next(&mut observing, &mut copy);
            let torn = frame.extra.iter().any(|byte| *byte != frame.extra[0]);
            if torn || frame.extra.len() != EXTRA_ROOM {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("frame {}: {:?}", frame.number, frame.extra);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
