// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events in the stream of the next writer, and of the same writer with other caps.

use gst::EventType;
use rsshm_testkit::{
    Channel, eventually,
    gst::{CAPS, SinkHarness, SourceRecorder, custom_event, launch},
};

use super::{only, sticky, stream_start, title, titles};

#[test]
fn new_writer_loses_and_repeats_no_event() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut expected = Vec::new();
    for round in 1..=3 {
        let writer = SinkHarness::live(&channel, "");
        let (first, second) = (10 * round, 10 * round + 1);
        writer.send(stream_start(&format!("stream {round}")));
        writer.send(title(&format!("title {round}")));
        writer.send(sticky("app/state", first));
        writer.push_frame_until_seen(first, &reader);
        writer.send(custom_event("app", first));
        writer.push_frame(second);
        writer.send(custom_event("app", second));
        eventually("the last event arrives", || {
            reader.words().last() == Some(&format!("app {second}"))
        });
        expected.push(format!("app/state {first}"));
        expected.push(format!("app {first}"));
        expected.push(format!("app {second}"));
        // The writer is closed here. The test below kills the writers instead.
        drop(writer);
    }
    assert_eq!(only(&reader.words(), &["app"]), expected);
    assert_eq!(titles(&reader), ["title 1", "title 2", "title 3"]);
    // The source itself began the first of the four streams.
    assert_eq!(reader.events(EventType::StreamStart).len(), 4);
}

#[test]
fn successor_of_killed_writer_begins_new_stream() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    for round in 1..=2 {
        let mut writer = launch(&format!(
            "videotestsrc is-live=true ! {CAPS} ! taginject tags=title=\"film{round}\" ! rsshmsink name={channel}"
        ));
        let before = reader.offsets().len();
        eventually("frames of this writer arrive", || reader.offsets().len() > before + 5);
        writer.kill();
    }
    assert_eq!(titles(&reader), ["film1", "film2"]);
    let starts = reader.events(EventType::StreamStart);
    assert_eq!((starts.len(), reader.events(EventType::Segment).len()), (3, 2));
}

#[test]
fn new_caps_lose_and_repeat_no_event() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.send(title("one"));
    writer.send(sticky("app/state", 1));
    writer.push_frame_until_seen(0, &reader);
    let (mut expected, mut number) = (vec!["app/state 1".to_owned()], 0);
    for width in [128, 64, 1280, 32] {
        writer.send(custom_event("app", 2 * width));
        writer.set_caps(&CAPS.replace("64", &width.to_string()));
        writer.send(custom_event("app", 2 * width + 1));
        expected.extend([format!("app {}", 2 * width), format!("app {}", 2 * width + 1)]);
        number += 1;
        writer.push_frame(number);
        expected.push(format!("frame {number}"));
        eventually("the frame after the events arrives", || {
            reader.offsets().last() == Some(&number)
        });
    }
    let words: Vec<_> = only(&reader.words(), &["app", "frame"]);
    let words: Vec<_> = words.into_iter().filter(|word| word != "frame 0").collect();
    assert_eq!(words, expected);
    assert_eq!(titles(&reader), ["one"]);
    assert_eq!(reader.events(EventType::Segment).len(), 1);
    assert_eq!(reader.stat("events-missed"), 0);
    // The newest segment has the sticky events, too.
    let late = SourceRecorder::of(&channel);
    eventually("a frame arrives", || !late.offsets().is_empty());
    assert_eq!(
        (titles(&late), only(&late.words(), &["app"])),
        (vec!["one".to_owned()], vec!["app/state 1".to_owned()])
    );
}
