// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames that readers hold in superseded segments. Their buffers belong to the same camera, so they count too.

use std::sync::Arc;

use rsshm_channel::{Caps, Frame};
use rsshm_testkit::{Channel, eventually, role};

use super::{
    OTHER_CAPS, accepting, check_objects, is_object, next_frame,
    pool::{Pool, object_writer},
};
use crate::support::{CAPS, ChannelExt, Service, lossless, slots};

/// The readers hold every frame that they get in place, over several changes of the caps.
#[test]
fn frames_held_over_caps_changes_count() {
    for spare in 3..=5 {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), spare);
        let buffers = 4 * spare as usize;
        let pool = Pool::new(&writer, buffers);
        let mut readers: Vec<_> = (0..3).map(|_| channel.reader()).collect();
        let mut held: Vec<Frame> = Vec::new();
        let mut value = 0;
        for caps in [CAPS, OTHER_CAPS, CAPS, OTHER_CAPS] {
            writer.set_caps(Caps::objects(caps)).unwrap();
            for _ in 0..8 {
                value += 1;
                assert!(pool.publish(&writer, value));
                let out = buffers - pool.free();
                assert!(out <= spare as usize, "{out} buffers are out, {spare} to spare");
                assert_eq!(writer.objects().frames_out() as usize, out);
                writer.service().unwrap();
                for reader in &mut readers {
                    let frame = next_frame(reader, accepting());
                    assert_eq!((frame.descriptor.offset, reader.caps()), (value, caps));
                    if is_object(&frame) {
                        held.push(frame);
                    }
                }
            }
            assert!(!held.is_empty(), "no frame was in place, with {spare} to spare");
        }
        held.iter().for_each(|frame| check_objects(frame, &[]));
        drop(held);
        eventually("frames in place", || {
            value += 1;
            assert!(pool.publish(&writer, value));
            writer.service().unwrap();
            is_object(&next_frame(&mut readers[0], accepting()))
        });
    }
}

/// How many frames a lossless writer publishes, and after how many it changes the caps.
const FRAMES: u64 = 60;
const CAPS_FRAMES: u64 = 10;

/// The frames that are held in superseded segments do not stop a lossless writer, and count all the same.
#[test]
fn frames_held_over_caps_changes_stop_no_lossless_writer() {
    for spare in [3, 4, 6] {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), lossless(0), spare);
        let service = Service::of(&writer);
        let buffers = 4 * spare as usize;
        let pool = Pool::new(&writer, buffers);
        assert!(pool.publish(&writer, 1));
        // The threads are not joined if the test fails, because they could wait for ever.
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = channel.reader();
                let mut held = vec![next_frame(&mut reader, accepting())];
                std::thread::spawn(move || {
                    for seq in 2..=FRAMES {
                        let frame = next_frame(&mut reader, accepting());
                        assert_eq!((frame.seq, frame.missed), (seq, 0));
                        if is_object(&frame) {
                            held.push(frame);
                        }
                    }
                    held.iter().for_each(|frame| check_objects(frame, &[]));
                })
            })
            .collect();
        let publisher = std::thread::spawn({
            let writer = Arc::clone(&writer);
            move || {
                for value in 2..=FRAMES {
                    let caps = if value / CAPS_FRAMES % 2 == 0 { CAPS } else { OTHER_CAPS };
                    writer.set_caps(Caps::objects(caps)).unwrap();
                    assert!(pool.publish(&writer, value), "no buffer, with {spare} to spare");
                    // One more may be out for a moment, while the service gives it back.
                    eventually("the camera has its buffers", || buffers - pool.free() <= spare as usize);
                }
            }
        });
        for reader in readers {
            reader.join().unwrap();
        }
        publisher.join().unwrap();
        drop(service);
    }
}

/// A reader is killed while it holds a frame of a superseded segment. Another reader may take its entry before the
/// writer looks for dead readers.
#[test]
fn dead_reader_in_superseded_segment_costs_no_buffer() {
    for is_entry_taken in [false, true] {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), 4);
        let pool = Pool::new(&writer, 5);
        assert!(pool.publish(&writer, 1));
        let mut holder = role::start("objects/holder of one", &[channel.as_str()]);
        holder.expect("holds one");
        writer.set_caps(Caps::objects(OTHER_CAPS)).unwrap();
        assert!(pool.publish(&writer, 2));
        assert_eq!(pool.free(), 3, "the held frame and the newest are out");
        holder.kill();
        let mut reader = channel.reader();
        if is_entry_taken {
            drop(next_frame(&mut reader, accepting()));
        }
        assert!(pool.publish(&writer, 3));
        assert_eq!(pool.free(), 4, "only the newest is out, entry taken: {is_entry_taken}");
    }
}
