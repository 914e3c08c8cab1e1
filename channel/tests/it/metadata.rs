// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of metadata, which are bytes that belong to a frame. The channel does not interpret them.

use std::sync::atomic::{AtomicBool, Ordering};

use rsshm_channel::{Error, FrameDescriptor, MAX_METADATA_SIZE, Writer, WriterOptions};
use rsshm_testkit::Channel;

use crate::support::{ChannelExt, SIZE, Service, StopOnDrop, descriptor, is_in_place, next, slots};

/// Publishes a frame with `metadata`.
#[track_caller]
fn publish(writer: &Writer, metadata: &[u8]) {
    let slot = writer.claim(SIZE).unwrap().unwrap();
    let mut descriptor = descriptor(SIZE, 0);
    descriptor.metadata_size = 77; // the writer replaces this value by the size of `metadata`
    writer.publish(&slot, descriptor, metadata).unwrap();
}

/// Returns `size` bytes. Adjacent bytes always differ.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 + size) as u8).collect()
}

#[test]
fn metadata_arrives_with_its_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let _service = Service::of(&writer);
    publish(&writer, &bytes(5));
    let mut copy = Vec::new();
    let (mut pinning, mut observer) = (channel.reader(), channel.observer());
    for reader in [&mut pinning, &mut observer] {
        assert_eq!(next(reader, &mut copy).metadata, bytes(5));
    }
    for size in [MAX_METADATA_SIZE, 0, 1, 7, 8, 9, 4, MAX_METADATA_SIZE - 1] {
        publish(&writer, &bytes(size));
        let pinned = next(&mut pinning, &mut copy);
        assert!(is_in_place(&pinned));
        let copied = next(&mut observer, &mut copy);
        assert!(!is_in_place(&copied));
        for frame in [pinned, copied] {
            assert!(frame.metadata == bytes(size), "{size}");
            assert_eq!(frame.descriptor.metadata_size as usize, size);
        }
    }
}

#[test]
fn too_much_metadata_is_refused() {
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

/// The writer publishes as fast as it can. An observer gets each frame with all of the frame's metadata, or does not
/// get the frame.
#[test]
fn metadata_never_mixes_two_frames() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    publish(&writer, &[1; MAX_METADATA_SIZE]);
    let stop = AtomicBool::new(false);
    let mut observer = channel.observer();
    let mut copy = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1u8;
            while !stop.load(Ordering::Relaxed) {
                value = value.wrapping_add(1);
                publish(&writer, &[value; MAX_METADATA_SIZE]);
            }
        });
        let _stopping = StopOnDrop(&stop);
        for _ in 0..3000 {
            let frame = next(&mut observer, &mut copy);
            let torn = frame.metadata.iter().any(|byte| *byte != frame.metadata[0]);
            assert!(
                !torn && frame.metadata.len() == MAX_METADATA_SIZE,
                "frame {}: {:?}",
                frame.seq,
                frame.metadata
            );
        }
    });
}
