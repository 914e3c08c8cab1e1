//! More readers than slots: they share the frames in place, and whatever they hold on to does not stop the writer.

mod common;

use std::time::Duration;

use common::{Channel, Service, check, check_bytes, is_in_place, next, publish, slots, wait_until};
use rsshm_channel::{Frame, Reader, Writer};

/// Publishes a frame that each reader takes, and says of how many it was in place.
#[track_caller]
fn round(writer: &Writer, readers: &mut [Reader], value: u64) -> usize {
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

/// So many readers, once all get their frames in place; and the value to go on with.
#[track_caller]
fn settled(channel: &Channel, writer: &Writer, count: usize) -> (Vec<Reader>, u64) {
    let mut readers: Vec<_> = (0..count).map(|_| channel.reader()).collect();
    for reader in &mut readers {
        next(reader, &mut Vec::new());
    }
    let mut value = 1;
    wait_until("all are in place", Duration::from_secs(10), || {
        value += 1;
        round(writer, &mut readers, value) == count
    });
    (readers, value)
}

#[test]
fn sixty_readers_get_their_frames_in_place() {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let (mut readers, settled) = settled(&channel, &writer, 60);
    for value in settled + 1..settled + 200 {
        assert_eq!(round(&writer, &mut readers, value), readers.len());
    }
    assert_eq!(writer.stats().evicted, 0);
}

/// One by one they hold the frame that is there then, and take no other: each another. The writer has a slot for each frame,
/// the rest get it, what is held does not change; and when all is over, frames are in place again.
#[test]
fn a_crowd_that_stops_one_by_one_does_not_stop_the_writer() {
    for max_slots in [24, 64] {
        let channel = Channel::new();
        let writer = channel.writer(slots(max_slots));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        let (mut readers, mut value) = settled(&channel, &writer, 60);
        // It would end the grants before it is the last moment.
        drop(service);
        let mut stopped: Vec<(Reader, Frame)> = Vec::new();
        let mut copy = Vec::new();
        while let Some(mut reader) = readers.pop() {
            value += 1;
            round(&writer, &mut readers, value);
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
        wait_until("all are in place again", Duration::from_secs(10), || {
            value += 1;
            round(&writer, &mut readers, value) == readers.len()
        });
        assert_eq!(writer.stats().evicted, 0);
    }
}
