// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers of all speeds beside a writer under load.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use rsshm_channel::{Writer, layout::DELTA_UNIT};
use rsshm_testkit::{Channel, Random};

use super::{compressed, publish_all};
use crate::support::{
    COMPRESSED_SIZE, ChannelExt, Service, StopOnDrop, behind, check_bytes, descriptor, next_within, publish_frame,
    slots,
};

/// The behaviour of a reader under load.
#[derive(Clone, Copy)]
struct Habits {
    observes: bool,
    max_behind: u32,
    /// The pause after each frame.
    pause: Duration,
    /// The number of frames after which the reader leaves and attaches again.
    stay: u32,
}

impl Habits {
    const fn new(observes: bool, max_behind: u32, pause_us: u64, stay: u32) -> Self {
        Self {
            observes,
            max_behind,
            pause: Duration::from_micros(pause_us),
            stay,
        }
    }

    /// Reads until `stop` is set, and checks that each frame can be decoded with the frames before it. Returns how many
    /// frames it received and how many it missed.
    fn read(self, channel: &Channel, stop: &AtomicBool) -> (u64, u64) {
        let (mut received, mut missed, mut copy) = (0, 0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let mut reader = if self.observes {
                channel.observer()
            } else {
                channel.reader()
            };
            let (mut last, mut held) = (None, None);
            for _ in 0..self.stay {
                let frame = next_within(&mut reader, &mut copy, behind(self.max_behind));
                check_bytes(&frame, &copy);
                assert_eq!(frame.seq, frame.descriptor.offset);
                let since = last.map(|last| frame.seq - last - 1);
                assert_eq!(frame.missed, since.unwrap_or(0));
                assert!(
                    !frame.descriptor.is_delta() || since == Some(0),
                    "delta {} after {last:?}",
                    frame.seq
                );
                last = Some(frame.seq);
                std::thread::sleep(self.pause);
                // The reader holds a frame while it waits for the next frame, as decoders do.
                held = Some(frame);
            }
            drop(held);
            received += reader.stats().received;
            missed += reader.stats().missed;
        }
        (received, missed)
    }
}

/// Publishes deltas, and keyframes at random intervals, until all readers have ended. It publishes the frames in bursts
/// that no reader can follow.
fn publish_under_load(writer: &Writer, stopping: StopOnDrop, readers: &[ScopedJoinHandle<(u64, u64)>]) {
    let (mut value, mut until_keyframe, mut random) = (1, 0, Random::new(1));
    let mut publish = || {
        value += 1;
        let is_keyframe = until_keyframe == 0;
        until_keyframe = if is_keyframe {
            random.below(32)
        } else {
            until_keyframe - 1
        };
        let flags = if is_keyframe { 0 } else { DELTA_UNIT };
        assert!(publish_frame(
            writer,
            descriptor(COMPRESSED_SIZE, value).with_flags(flags)
        ));
        if random.permille(117) {
            std::thread::sleep(Duration::from_micros(random.below(0x800)));
        }
    };
    let end = Instant::now() + Duration::from_millis(800);
    while Instant::now() < end {
        publish();
    }
    drop(stopping);
    while readers.iter().any(|reader| !reader.is_finished()) {
        publish();
    }
}

/// Readers of all speeds get only frames that can be decoded with the frames that they got before.
#[test]
fn every_delivered_frame_is_decodable_under_load() {
    const READERS: [Habits; 4] = [
        Habits::new(false, 0, 0, 70),
        Habits::new(false, 0, 900, 40),
        Habits::new(true, 0, 300, 9),
        Habits::new(false, 3, 50, 90),
    ];
    let channel = Channel::new();
    let writer = compressed(&channel, slots(10));
    publish_all(&writer, "k1");
    let _service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let (channel, stop) = (&channel, &stop);
        let readers = READERS.map(|habits| scope.spawn(move || habits.read(channel, stop)));
        publish_under_load(&writer, stopping, &readers);
        let counts = readers.map(|reader| reader.join().unwrap());
        assert!(counts.iter().all(|(received, _)| *received > 20), "{counts:?}");
        assert!(
            counts.iter().map(|(_, missed)| missed).sum::<u64>() > 0,
            "some are missed: {counts:?}"
        );
    });
}
