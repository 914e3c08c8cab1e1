// SPDX-License-Identifier: MIT OR Apache-2.0

//! The streams that a reader gets: their ids, their groups and their segments.

use std::time::Duration;

use gst::{EventType, event, prelude::*};
use rsshm_testkit::{
    Channel, eventually,
    gst::{CAPS, SinkHarness, SourceRecorder, custom_event, launch},
};

use super::{stream_start, title, titles};

/// The id and the group of the last stream that a reader received.
fn stream(reader: &SourceRecorder) -> (String, Option<gst::GroupId>) {
    let event = reader.events(EventType::StreamStart).pop().unwrap();
    let gst::EventView::StreamStart(start) = event.view() else {
        panic!("{event:?}");
    };
    (start.stream_id().to_owned(), start.group_id())
}

#[test]
fn channels_of_one_stream_share_stream_id() {
    let channels = [Channel::new(), Channel::new()];
    let other = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! tee name=t ! queue ! rsshmsink name={} t. ! queue ! rsshmsink name={}",
        channels[0], channels[1]
    ));
    let mut unrelated = launch(&format!("videotestsrc is-live=true ! {CAPS} ! rsshmsink name={other}"));
    let readers = [&channels[0], &channels[1], &other].map(SourceRecorder::of);
    for reader in &readers {
        eventually("a frame arrives", || !reader.offsets().is_empty());
    }
    let streams = readers.each_ref().map(stream);
    assert!(streams.iter().all(|(id, group)| !id.is_empty() && group.is_some()));
    assert_eq!(streams[0], streams[1]);
    assert_ne!(streams[0].0, streams[2].0);
    assert_ne!(streams[0].1, streams[2].1);
    writer.interrupt();
    unrelated.interrupt();
}

#[test]
fn stream_start_keeps_id_and_flags() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    let flags = gst::StreamFlags::SPARSE;
    writer.send(event::StreamStart::builder("my/stream").flags(flags).build());
    writer.push_frame_until_seen(0, &reader);
    assert_eq!(stream(&reader).0, "my/stream");
    let event = reader.events(EventType::StreamStart).pop().unwrap();
    assert!(matches!(event.view(), gst::EventView::StreamStart(start) if start.stream_flags() == flags));
}

#[test]
fn new_stream_begins_new_segment_and_tags() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.send(title("first"));
    writer.push_frame_until_seen(0, &reader);
    let first = stream(&reader);
    writer.settle(&reader);
    let start = stream_start("second");
    writer.send(start.copy());
    // A gap before the stream's first frame is left out, because the stream has no segment yet.
    writer.send(event::Gap::new(writer.pipeline.current_running_time().unwrap(), None));
    writer.send(title("second"));
    writer.send(custom_event("app", 1));
    writer.push_frame(1);
    eventually("the frame arrives", || reader.offsets() == [1]);
    assert_eq!(reader.words(), ["stream-start", "segment", "tag", "app 1", "frame 1"]);
    // A player takes another id for a stream that it does not know.
    assert_eq!((stream(&reader), titles(&reader)), (first, vec!["second".to_owned()]));
    // Running time continues in the second stream.
    let now = reader.pipeline.current_running_time().unwrap();
    let pts = reader.frames()[0].pts.unwrap();
    assert!(now.absdiff(pts) < gst::ClockTime::SECOND, "{pts} at {now}");
    // A repeated stream-start event does not begin another stream.
    reader.clear();
    writer.send(start);
    writer.send(custom_event("app", 2));
    eventually("only the event after it arrives", || reader.words() == ["app 2"]);
    // The third stream does not keep the tags of earlier streams.
    writer.send(stream_start("third"));
    writer.push_frame(2);
    // The next reader joins only after the frame is published. Otherwise it would skip the frame, because the frame
    // would be older than the reader's base time.
    eventually("the frame is published", || reader.offsets().contains(&2));
    let late = SourceRecorder::of(&channel);
    eventually("a frame arrives", || late.offsets().contains(&2));
    assert_eq!((stream(&late).0.as_str(), titles(&late)), ("third", vec![]));
}

/// streamsynchronizer can add the end of the first group of streams to the times of the second group. Here the base
/// of the segment stays zero, so nothing is added.
#[test]
fn new_stream_does_not_shift_time_in_streamsynchronizer() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::playing(&format!(
        "rsshmsrc channel={channel} ! streamsynchronizer ! fakesink name=sink sync=false"
    ));
    writer.push_frame_until_seen(0, &reader);
    // The first stream lasts for a while.
    std::thread::sleep(Duration::from_millis(500));
    writer.push_frame_until_seen(1, &reader);
    let begun = reader.events(EventType::StreamStart).len();
    writer.send(stream_start("second"));
    writer.push_frame_until_seen(2, &reader);
    assert_eq!(reader.events(EventType::StreamStart).len(), begun + 1);
    let pad = reader.pipeline.element("sink").static_pad("sink").unwrap();
    let segment = pad.sticky_event::<event::Segment>(0).unwrap();
    let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
    assert_eq!(segment.base(), Some(gst::ClockTime::ZERO));
}
