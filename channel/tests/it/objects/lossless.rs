// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lossless writer of objects, whose readers hold frames until the next one comes, as a display does.

use std::{collections::VecDeque, sync::Arc};

use rsshm_testkit::Channel;

use super::{
    accepting, is_object, next_frame,
    pool::{Pool, object_writer},
};
use crate::support::{ChannelExt, Service, lossless};

/// How many frames each reader holds, and how many are published.
const HELD: usize = 2;
const FRAMES: u64 = 60;

/// The readers hold all frames that may be pinned, so the next ones are copied. The writer does not wait for the held
/// frames, because a reader releases one only when it has got another one.
#[test]
fn held_frames_do_not_stop_a_lossless_writer() {
    for spare in 2..=6 {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), lossless(0), spare);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, spare as usize + 1);
        assert!(pool.publish(&writer, 1));
        let mut readers: Vec<_> = (0..3).map(|_| (channel.reader(), VecDeque::new())).collect();
        for (reader, held) in &mut readers {
            held.push_back(next_frame(reader, accepting()));
        }
        // The thread is not joined if the test fails, because it could wait for ever.
        let publisher = std::thread::spawn({
            let writer = Arc::clone(&writer);
            move || (2..=FRAMES).all(|value| pool.publish(&writer, value))
        });
        for seq in 2..=FRAMES {
            for (reader, held) in &mut readers {
                let frame = next_frame(reader, accepting());
                assert_eq!((frame.seq, frame.missed), (seq, 0), "{spare} to spare");
                if is_object(&frame) {
                    held.push_back(frame);
                }
                if held.len() > HELD {
                    held.pop_front();
                }
            }
        }
        assert!(
            publisher.join().unwrap(),
            "the camera has no buffer, with {spare} to spare"
        );
        assert!(readers.iter().any(|(_, held)| !held.is_empty()) || spare < 3);
        drop(service);
    }
}
