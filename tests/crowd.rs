//! Readers cannot hurt the writer or each other: stopped, killed, greedy, or many.

mod common;
mod numbered;

use std::time::{Duration, Instant};

use common::{Channel, Pipeline, Process, eventually, launch, within};
use gst::prelude::*;
use nix::sys::signal::Signal;
use numbered::{assert_complete, assert_nothing_dropped, has_frames, reader, reader_with, summary, writer};

/// So slow that readers keep up on a machine that is busy with other things: a frame stays for four more publishes.
const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=10/1";

fn num_clients(writer: &Pipeline) -> u32 {
    writer.by_factory("rsshmsink").property("num-clients")
}

#[test]
fn a_stopped_and_a_killed_reader_hurt_nobody() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true num-buffers=80", CAPS, "");
    let mut readers: Vec<Process> = (0..8).map(|_| reader(&channel, "", 3)).collect();
    let started = Instant::now();
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("all are there", || {
        num_clients(&writer) == 8 && readers.iter().all(has_frames)
    });
    readers[0].signal(Signal::SIGSTOP);
    readers[1].kill();
    within(Duration::from_secs(2), "seven are counted", || {
        num_clients(&writer) == 7
    });
    writer.wait_eos();
    // At 10 frames a second these are 8 seconds.
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_nothing_dropped(&writer, 80);
    for reader in &mut readers[2..] {
        assert_complete(&summary(reader), 79);
    }
}

#[test]
fn the_count_of_readers_is_right_while_no_frames_flow() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "");
    writer.0.set_state(gst::State::Playing).unwrap();
    let mut readers: Vec<Process> = (0..3).map(|_| reader(&channel, "", 2)).collect();
    eventually("all are there", || num_clients(&writer) == 3);
    writer.0.set_state(gst::State::Paused).unwrap();
    readers[0].kill();
    within(Duration::from_secs(2), "one was killed", || num_clients(&writer) == 2);
    readers[1].signal(Signal::SIGSTOP);
    readers.push(reader(&channel, "", 2));
    eventually("one came, and got the newest frame", || {
        num_clients(&writer) == 3 && has_frames(&readers[3])
    });
    readers[1].kill();
    within(Duration::from_secs(2), "a stopped one was killed", || {
        num_clients(&writer) == 2
    });
}

/// What never lets go of a frame, and would take 200.
fn hoarder(channel: &Channel, options: &str) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} {options} ! queue max-size-buffers=200 max-size-bytes=0 max-size-time=0 \
         ! fakesink sync=true ts-offset=3600000000000"
    ))
}

#[test]
fn a_queue_that_never_drains_does_not_starve_the_writer() {
    let channel = Channel::new();
    // Few slots: fewer than the queue would like to have.
    let writer = writer(&channel, "is-live=true num-buffers=70", CAPS, "max-slots=12");
    // It would like to hold all in place, but is not granted so much.
    let _hoarder = hoarder(&channel, "max-held-buffers=64");
    let mut others = [reader(&channel, "", 1), reader(&channel, "", 1)];
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("all are there", || num_clients(&writer) == 3);
    writer.wait_eos();
    assert_nothing_dropped(&writer, 70);
    for reader in &mut others {
        assert_complete(&summary(reader), 69);
    }
}

#[test]
fn a_full_queue_does_not_stop_the_writer() {
    let channel = Channel::new();
    // Far more than the queue has room for: its reader stands still in the end.
    let caps = CAPS.replace("10/1", "150/1");
    let writer = writer(&channel, "is-live=true num-buffers=900", &caps, "max-slots=10");
    let mut hoarder = hoarder(&channel, "");
    let mut other = reader(&channel, "", 1);
    let started = Instant::now();
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("both are there", || num_clients(&writer) == 2);
    writer.wait_eos();
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_nothing_dropped(&writer, 900);
    let found = summary(&mut other);
    found.assert_exact();
    assert_eq!(found.last, 899, "{found:?}");
    assert!(hoarder.is_running() && num_clients(&writer) >= 1);
}

#[test]
fn sixteen_honest_readers() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true num-buffers=100", CAPS, "");
    let mut readers: Vec<Process> = (0..16)
        .map(|index| {
            // Some hold frames, all have a queue, and what looks at the frames sits behind it.
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
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("all are there", || num_clients(&writer) == 16);
    writer.wait_eos();
    assert_nothing_dropped(&writer, 100);
    for reader in &mut readers {
        let found = summary(reader);
        found.assert_exact();
        assert_eq!(found.last, 99, "{found:?}");
    }
}
