// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events keep their order among the frames, up to the end of the stream.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gst::{EventType, prelude::*};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{CAPS, SinkHarness, SourceRecorder, command, custom_event, init},
    skip,
};

use super::{only, sticky, title, titles};

#[test]
fn custom_events_keep_order_among_frames() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.settle(&reader);
    let mut expected = Vec::new();
    for number in 1..=60 {
        writer.push_frame(number);
        expected.push(format!("frame {number}"));
        for part in 0..5 {
            writer.send(custom_event("app", 10 * number + part));
            expected.push(format!("app {}", 10 * number + part));
        }
        eventually("the last event arrives", || reader.words().last() == expected.last());
    }
    assert_eq!(reader.words(), expected);
    assert_eq!(reader.stat("events-missed"), 0);
    assert_eq!(writer.stat("events-left-out"), 0);
}

/// `wait-for-connection` holds the stream until a reader is attached, and so the events before the first frame.
#[test]
fn awaited_reader_receives_events_before_first_frame() {
    let channel = Channel::new();
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps(CAPS);
    for number in 0..3 {
        writer.send(custom_event("app", number));
    }
    writer.send(sticky("app/state", 3));
    writer.push_frame(4);
    eventually("the channel exists", || channel.exists());
    // The frame and the events wait for the reader.
    std::thread::sleep(Duration::from_millis(100));
    let reader = SourceRecorder::of(&channel);
    writer.end();
    reader.pipeline.wait_eos();
    let mut words = only(&reader.words(), &["app", "frame"]);
    assert_eq!(words.pop().as_deref(), Some("frame 4"));
    // Sticky events reach each reader, and come first or last before the frame.
    words.retain(|word| word != "app/state 3");
    assert_eq!(words, ["app 0", "app 1", "app 2"]);
    assert_eq!(reader.stat("events-missed") + writer.stat("events-left-out"), 0);
}

#[test]
fn event_without_next_frame_arrives_at_once() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.send(title("now"));
    writer.send(sticky("app/state", 7));
    writer.send(custom_event("app", 1));
    eventually("the events arrive", || {
        reader.words().last().is_some_and(|word| word == "app 1")
    });
    assert_eq!(titles(&reader), ["now"]);
    assert!(reader.words().contains(&"app/state 7".to_owned()));
}

#[test]
fn events_of_tracer_stay_in_writer() {
    init();
    if matches!(gst::version(), (1, 26, ..)) {
        skip!("with this tracer, each pipeline of GStreamer 1.26 stands still");
    }
    let channel = Channel::new();
    let mut writer = command("gst-launch-1.0");
    writer.env("GST_TRACERS", "latency(flags=pipeline+element)");
    writer.args(["-q", "videotestsrc", "is-live=true", "!"]);
    writer.args([CAPS, "!", "identity", "!", "rsshmsink", &format!("name={channel}")]);
    let mut writer = Process::start(writer);
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(20);
    let custom = reader.events(EventType::CustomDownstream);
    assert!(custom.is_empty(), "{} arrived, {:?}", custom.len(), custom[0]);
    assert_eq!(reader.stat("events-missed"), 0);
    writer.interrupt();
}

#[test]
fn late_reader_receives_sticky_custom_events() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let first = SourceRecorder::of(&channel);
    writer.send(sticky("app/a", 1));
    writer.push_frame_until_seen(0, &first);
    writer.send(sticky("app/b", 2));
    writer.send(sticky("app/a", 3));
    writer.send(custom_event("app", 4));
    writer.push_frame(1);
    eventually("the frame after the events arrives", || first.offsets().contains(&1));
    let words = only(&first.words(), &["app"]);
    assert_eq!(words, ["app/a 1", "app/b 2", "app/a 3", "app 4"]);
    let late = SourceRecorder::of(&channel);
    eventually("a frame arrives", || !late.offsets().is_empty());
    let mut words = only(&late.words(), &["app", "frame", "segment"]);
    assert_eq!(words.pop().as_deref(), Some("frame 1"));
    assert_eq!(words.remove(0), "segment");
    words.sort();
    assert_eq!(words, ["app/a 3", "app/b 2"]);
}

#[test]
fn paused_reader_receives_events_when_playing_again() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    reader.pipeline.set_state(gst::State::Paused).unwrap();
    // After this time, any frame that left the sink before the pause has arrived.
    std::thread::sleep(Duration::from_millis(50));
    reader.clear();
    writer.send(title("sent during the pause"));
    for number in 1..=5 {
        writer.send(custom_event("app", number));
        writer.push_frame(number);
    }
    // The source does not receive the events and frames while it is paused.
    std::thread::sleep(Duration::from_millis(100));
    reader.pipeline.play();
    writer.push_frame_until_seen(6, &reader);
    let words = reader.words();
    assert_eq!(
        only(&words, &["app"]),
        ["app 1", "app 2", "app 3", "app 4", "app 5"],
        "{words:?}"
    );
    assert_eq!(titles(&reader), ["sent during the pause"]);
}

#[test]
fn eos_follows_all_frames_and_events() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "lossless=true");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.settle(&reader);
    let mut expected = Vec::new();
    for number in 1..=20 {
        writer.push_frame(number);
        writer.send(custom_event("app", number));
        expected.extend([format!("frame {number}"), format!("app {number}")]);
    }
    writer.end();
    reader.pipeline.wait_eos();
    expected.push("eos".to_owned());
    assert_eq!(reader.words(), expected);
}

#[test]
fn blocked_reader_counts_missed_events() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    // The reader must block at frame 1, not at another copy of frame 0.
    writer.settle(&reader);
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let pad = reader.pipeline.pad("fakesink", "sink");
    let in_probe = Arc::clone(&gate);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        drop(in_probe.lock());
        gst::PadProbeReturn::Ok
    });
    writer.push_frame(1);
    eventually("the reader is blocked", || reader.offsets().contains(&1));
    writer.send(sticky("app/state", 1000));
    // The channel keeps all sticky events, and a ring of the other events.
    for number in 1..=300 {
        writer.send(custom_event("app", number));
    }
    let other = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(2, &other);
    drop(closed);
    eventually("the reader continues", || reader.offsets().contains(&2));
    let words = only(&reader.words(), &["app"]);
    assert_eq!(words[0], "app/state 1000");
    let missed = reader.stat("events-missed");
    assert!(
        missed > 150 && words.len() as u64 + missed == 301,
        "{missed}, {words:?}"
    );
}
