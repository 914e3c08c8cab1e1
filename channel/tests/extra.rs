//! Bytes that go with a frame, of which the channel knows nothing.

mod common;

use common::{Channel, Service, is_in_place, next, slots};
use rsshm_channel::{Error, FrameDescriptor, MAX_METADATA_SIZE, Writer, WriterOptions};

/// Publishes a frame with `metadata`.
#[track_caller]
fn publish(writer: &Writer, metadata: &[u8]) {
    let slot = writer.claim(common::SIZE).unwrap().unwrap();
    let descriptor = FrameDescriptor {
        size: common::SIZE as u64,
        metadata_size: 77, // it is the bytes that count
        ..FrameDescriptor::default()
    };
    writer.publish(&slot, descriptor, metadata).unwrap();
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
    let (mut pinning, mut observer_reason) = (channel.reader(), channel.observer());
    for reader in [&mut pinning, &mut observer_reason] {
        assert_eq!(next(reader, &mut copy).metadata, bytes(5));
    }
    for size in [MAX_METADATA_SIZE, 0, 1, 7, 8, 9, 4, MAX_METADATA_SIZE - 1] {
        publish(&writer, &bytes(size));
        let pinned = next(&mut pinning, &mut copy);
        assert!(is_in_place(&pinned));
        let copied = next(&mut observer_reason, &mut copy);
        assert!(!is_in_place(&copied));
        for frame in [pinned, copied] {
            assert!(frame.metadata == bytes(size), "{size}");
            assert_eq!(frame.descriptor.metadata_size as usize, size);
        }
    }
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut slot = writer.claim(16).unwrap().unwrap();
    let metadata = vec![0; MAX_METADATA_SIZE + 1];
    let refused = writer.publish(&slot, FrameDescriptor::default(), &metadata);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let refused = writer
        .upstream()
        .publish(slot.as_mut(), FrameDescriptor::default(), &metadata);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert!(!slot.is_published());
    writer
        .publish(&slot, FrameDescriptor::default(), &metadata[..MAX_METADATA_SIZE])
        .unwrap();
}

/// While a writer goes as fast as it can, a reader without a pin has either all of a frame's bytes, or not the frame.
#[test]
fn extra_bytes_are_never_of_two_frames() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    publish(&writer, &[1; MAX_METADATA_SIZE]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut observer_reason = channel.observer();
    let mut copy = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1u8;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                value = value.wrapping_add(1);
                publish(&writer, &[value; MAX_METADATA_SIZE]);
            }
        });
        for _ in 0..3000 {
            let frame = next(&mut observer_reason, &mut copy);
            let torn = frame.metadata.iter().any(|byte| *byte != frame.metadata[0]);
            if torn || frame.metadata.len() != MAX_METADATA_SIZE {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("frame {}: {:?}", frame.seq, frame.metadata);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
