// SPDX-License-Identifier: MIT OR Apache-2.0

//! No reader delays the writer or another reader. This holds even if a reader is stopped, killed or greedy, or if there
//! are many readers.

use gst::prelude::*;
use nix::sys::signal::Signal;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{
        Pipeline, launch,
        sequence::{assert_complete, assert_nothing_dropped, has_frames, reader, reader_with, summary, writer},
    },
};

/// The caps of most tests. A frame survives only four more publishes. The frame rate is low, so that readers are in
/// time even on a busy machine.
const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=5/1";

/// Publishes this many more frames, and ends the stream. Returns the index of the last frame.
#[track_caller]
fn publish_and_end(writer: &Pipeline, more: u64) -> u64 {
    let published = || writer.stat("rsshmsink", "frames-published");
    let before = published();
    eventually("frames are published", || published() >= before + more);
    writer.end();
    assert_nothing_dropped(writer, published());
    published() - 1
}

#[test]
fn stopped_and_killed_readers_disturb_no_peer() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "");
    let mut readers: Vec<Process> = (0..8).map(|_| reader(&channel, "", 3)).collect();
    writer.play();
    eventually("all readers are connected", || {
        writer.num_clients() == 8 && readers.iter().all(has_frames)
    });
    readers[0].signal(Signal::SIGSTOP);
    readers[1].kill();
    eventually("seven readers are counted", || writer.num_clients() == 7);
    let last = publish_and_end(&writer, 20);
    for reader in &mut readers[2..] {
        assert_complete(&summary(reader), last);
    }
}

#[test]
fn num_clients_is_correct_without_frames() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "");
    writer.play();
    let mut readers: Vec<Process> = (0..3).map(|_| reader(&channel, "", 2)).collect();
    eventually("all readers are connected", || writer.num_clients() == 3);
    writer.set_state(gst::State::Paused).unwrap();
    readers[0].kill();
    eventually("the killed reader is not counted", || writer.num_clients() == 2);
    readers[1].signal(Signal::SIGSTOP);
    readers.push(reader(&channel, "", 2));
    eventually("a new reader has the newest frame", || {
        writer.num_clients() == 3 && has_frames(&readers[3])
    });
    readers[1].kill();
    eventually("the stopped and killed reader is not counted", || {
        writer.num_clients() == 2
    });
}

/// A reader that never releases a frame. Its queue holds 200 frames.
fn hoarder(channel: &Channel, options: &str) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} {options} ! queue max-size-buffers=200 max-size-bytes=0 max-size-time=0 \
         ! fakesink sync=true ts-offset=3600000000000"
    ))
}

#[test]
fn writer_survives_queue_that_never_drains() {
    let channel = Channel::new();
    // The channel has fewer slots than the queue can hold.
    let writer = writer(&channel, "is-live=true", CAPS, "max-slots=12");
    // This reader asks to hold more frames in place than its quota allows.
    let _hoarder = hoarder(&channel, "max-held-buffers=64");
    let mut others = [reader(&channel, "", 1), reader(&channel, "", 1)];
    writer.play();
    eventually("all readers are connected", || {
        writer.num_clients() == 3 && others.iter().all(has_frames)
    });
    let last = publish_and_end(&writer, 30);
    for reader in &mut others {
        assert_complete(&summary(reader), last);
    }
}

#[test]
fn writer_survives_full_queue() {
    let channel = Channel::new();
    // The stream has more frames than the queue can hold, so the reader with the queue blocks.
    let caps = CAPS.replace("5/1", "150/1");
    let writer = writer(&channel, "is-live=true", &caps, "max-slots=10");
    let mut hoarder = hoarder(&channel, "");
    let mut other = reader(&channel, "", 1);
    writer.play();
    eventually("both readers are connected", || {
        writer.num_clients() == 2 && has_frames(&other)
    });
    let last = publish_and_end(&writer, 600);
    let found = summary(&mut other);
    found.assert_exact();
    assert_eq!(found.last, last, "{found:?}");
    assert!(hoarder.is_running() && writer.num_clients() >= 1);
}

#[test]
fn sixteen_readers_receive_frames_in_order() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "");
    let mut readers: Vec<Process> = (0..16)
        .map(|index| {
            // All readers check frames after a queue, and some also hold frames.
            let delay_ms = 50 * (index % 4);
            reader_with(
                &format!(
                    "rsshmsrc name={channel} ! queue ! fakesink name=check sync=true ts-offset={}",
                    delay_ms * 1_000_000
                ),
                index % 6,
            )
        })
        .collect();
    writer.play();
    eventually("all readers are connected", || {
        writer.num_clients() == 16 && readers.iter().all(has_frames)
    });
    let last = publish_and_end(&writer, 40);
    for reader in &mut readers {
        let found = summary(reader);
        found.assert_exact();
        assert_eq!(found.last, last, "{found:?}");
    }
}
