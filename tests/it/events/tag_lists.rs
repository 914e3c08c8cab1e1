// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tags, and events that a channel does not carry.

use std::time::Duration;

use gst::{EventType, TagMergeMode, event, tags};
use rsshm_testkit::{
    Channel, eventually,
    gst::{CAPS, SinkHarness, SourceRecorder, launch},
};

use super::{title, titles};

#[test]
fn late_reader_receives_tags_before_first_frame() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! taginject tags=title=\"film\",artist=\"somebody\",track-number=(uint)7 \
         ! rsshmsink name={channel}"
    ));
    eventually("the channel exists", || channel.exists());
    // When the reader joins, the tags and the first frames are already in the past.
    std::thread::sleep(Duration::from_millis(500));
    let reader = SourceRecorder::of(&channel);
    eventually("a frame arrives", || !reader.offsets().is_empty());
    let words: Vec<_> = reader
        .words()
        .iter()
        .map(|word| word.split(' ').next().unwrap().to_owned())
        .collect();
    // The source begins its own stream before it is connected.
    assert_eq!(
        words[..6],
        ["stream-start", "stream-start", "caps", "segment", "tag", "frame"],
        "{words:?}"
    );
    assert_eq!(titles(&reader), ["film"]);
    let tag = reader.events(EventType::Tag).remove(0);
    assert!(matches!(tag.view(), gst::EventView::Tag(tag) if tag.tag().get::<tags::TrackNumber>().unwrap().get() == 7));
    writer.interrupt();
}

#[test]
fn changed_tags_arrive_between_right_frames() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "lossless=true");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.settle(&reader);
    for number in 1..=20 {
        writer.send(title(&number.to_string()));
        writer.push_frame(number);
    }
    eventually("the last frame arrives", || reader.offsets().last() == Some(&20));
    let expected: Vec<_> = (1..=20)
        .flat_map(|number| ["tag".to_owned(), format!("frame {number}")])
        .collect();
    assert_eq!(reader.words(), expected);
    assert_eq!(
        titles(&reader),
        (1..=20).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    // A reader that joins now receives the last tags.
    let late = SourceRecorder::of(&channel);
    eventually("a frame arrives", || !late.offsets().is_empty());
    assert_eq!(titles(&late), ["20"]);
}

#[test]
fn unsupported_events_are_counted_and_named_once() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    for _ in 0..3 {
        let mut tags = gst::TagList::new();
        let list = tags.make_mut();
        let image = gst::Sample::builder()
            .buffer(&gst::Buffer::from_slice([1u8; 10]))
            .build();
        list.add::<tags::Image>(&image, TagMergeMode::Append);
        list.add::<tags::Title>(&"film", TagMergeMode::Append);
        writer.send(event::Tag::new(tags));
    }
    let inner = gst::Structure::new_empty("inner");
    let large = gst::Structure::builder("app").field("text", "x".repeat(5000)).build();
    writer.send(event::CustomDownstream::new(large));
    writer.send(event::CustomDownstream::new(
        gst::Structure::builder("app").field("inner", inner).build(),
    ));
    writer.push_frame(1);
    eventually("the frame after the events arrives", || reader.offsets().contains(&1));
    assert_eq!(titles(&reader), ["film", "film", "film"]);
    assert_eq!(writer.stat("events-left-out"), 5);
    assert_eq!(writer.stat("metas-left-out"), 0);
    let by_name = writer
        .pipeline
        .stats("rsshmsink")
        .get::<gst::Structure>("events-left-out-by-name");
    assert_eq!(
        by_name.unwrap().to_string(),
        "events, app=(guint64)2, image=(guint64)3;"
    );
    assert_eq!(writer.pipeline.take_messages(gst::MessageType::Warning).len(), 2);
}
