// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shared slots: the readers together may pin more slots than there are. They share the frames in place, and the frames
//! that they hold never block the writer.

use rsshm_channel::{Frame, Reader, Writer};
use rsshm_testkit::{Channel, wait_until};

use crate::support::{
    ChannelExt, SECOND, SIZE, Service, check, check_bytes, descriptor, is_in_place, next, publish, raw::RawPeer, slots,
};

/// Publishes a frame, which each reader takes. Returns the number of readers that got the frame in place.
#[track_caller]
fn publish_to_all(writer: &Writer, readers: &mut [Reader], value: u64) -> usize {
    assert!(publish(writer, value), "frame {value} had no slot");
    let mut copy = Vec::new();
    let frames = readers.iter_mut().map(|reader| {
        let frame = next(reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!(frame.missed, 0);
        is_in_place(&frame)
    });
    frames.filter(|in_place| *in_place).count()
}

/// Attaches `count` readers, and publishes frames until all readers get a frame in place. Returns the readers and the
/// last published value.
#[track_caller]
fn attach_settled(channel: &Channel, writer: &Writer, count: usize) -> (Vec<Reader>, u64) {
    let mut readers: Vec<_> = (0..count).map(|_| channel.reader()).collect();
    for reader in &mut readers {
        next(reader, &mut Vec::new());
    }
    let mut value = 1;
    wait_until("all are in place", 10 * SECOND, || {
        value += 1;
        publish_to_all(writer, &mut readers, value) == count
    });
    (readers, value)
}

#[test]
fn sixty_readers_get_frames_in_place() {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut readers, last) = attach_settled(&channel, &writer, 60);
    for value in last + 1..last + 200 {
        assert_eq!(publish_to_all(&writer, &mut readers, value), readers.len());
    }
    assert_eq!(writer.stats().evicted, 0);
}

/// One reader after the other stops: it keeps the newest frame and takes no more frames. Each reader therefore holds a
/// different frame. The writer still has a slot for each new frame, the other readers get the frame, and held frames do
/// not change. When the readers continue, all get their frames in place again.
#[test]
fn readers_that_stop_never_block_writer() {
    for max_slots in [24, 64] {
        let channel = Channel::new();
        let writer = channel.writer(slots(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let (mut readers, mut value) = attach_settled(&channel, &writer, 60);
        // The service is stopped, because it would withdraw the quota early. Without the service, the publishing
        // thread has to withdraw the quota.
        drop(service);
        let mut stopped: Vec<(Reader, Frame)> = Vec::new();
        let mut copy = Vec::new();
        while let Some(mut reader) = readers.pop() {
            value += 1;
            publish_to_all(&writer, &mut readers, value);
            let frame = next(&mut reader, &mut copy);
            check(&frame, &copy, value);
            stopped.push((reader, frame));
        }
        for _ in 0..500 {
            value += 1;
            assert!(publish(&writer, value), "frame {value} had no slot");
        }
        let held: Vec<_> = stopped.iter().filter(|(_, frame)| is_in_place(frame)).collect();
        assert!(
            held.len() >= 6 && held.len() + 2 <= max_slots as usize,
            "{}",
            held.len()
        );
        held.iter().for_each(|(_, frame)| check_bytes(frame, &[]));
        let _service = Service::of(&writer);
        let mut readers: Vec<_> = stopped.into_iter().map(|(reader, _)| reader).collect();
        for reader in &mut readers {
            reader.seek_newest();
            next(reader, &mut copy);
        }
        wait_until("all are in place again", 10 * SECOND, || {
            value += 1;
            publish_to_all(&writer, &mut readers, value) == readers.len()
        });
        assert_eq!(writer.stats().evicted, 0);
    }
}

/// A reader attaches, and the writer notices it in a claim. Then upstream publishes a slot that it has claimed before. There
/// are too few spare slots for the new reader, so the quota is withdrawn before readers can pin the slot.
#[test]
fn publish_after_a_join_leaves_spare_slots() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let all: Vec<_> = (0..8).map(|_| writer.claim(SIZE).unwrap().expect("a slot")).collect();
    drop(all);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let mut frames = (1..=4).map(|value| {
        assert!(publish(&writer, value));
        next(&mut reader, &mut copy)
    });
    let held = [frames.next().unwrap(), frames.next().unwrap()];
    assert!(held.iter().all(is_in_place) && frames.count() == 2);
    let claimed: Vec<_> = (0..3)
        .map(|_| writer.upstream().claim(SIZE).unwrap().expect("a slot"))
        .collect();
    let peer = RawPeer::open(&channel);
    assert_eq!(peer.quota(), 4);
    let mut newcomer = channel.reader();
    next(&mut newcomer, &mut Vec::new());
    assert!(
        writer.upstream().claim(SIZE).unwrap().is_none(),
        "it would take a spare slot"
    );
    assert_eq!(peer.quota(), 4);
    writer.publish(&claimed[0], descriptor(SIZE, 0), &[]).unwrap();
    assert_eq!(peer.quota(), 0, "only one slot is spare");
}
