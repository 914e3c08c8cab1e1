// SPDX-License-Identifier: MIT OR Apache-2.0

//! Serialized events: streams, tags, gaps and events of applications keep their order among the frames.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::{EventType, TagMergeMode, event, prelude::*, tags};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{
        CAPS, Pipeline, SinkHarness, SourceRecorder, command, custom_event, init, launch, live_writer,
        newer::{MISSING_DATA, gap_flags, with_gap_flags},
    },
    on_this_machine, skip, timed, wait_until,
};

fn title(text: &str) -> gst::Event {
    let mut tags = gst::TagList::new();
    tags.make_mut().add::<tags::Title>(&text, TagMergeMode::Append);
    event::Tag::new(tags)
}

fn sticky(name: &str, number: u64) -> gst::Event {
    event::CustomDownstreamSticky::new(gst::Structure::builder(name).field("number", number).build())
}

fn stream_start(id: &str) -> gst::Event {
    event::StreamStart::builder(id).group_id(gst::GroupId::next()).build()
}

/// The titles in the tags that a reader received, in order.
fn titles(reader: &SourceRecorder) -> Vec<String> {
    let title = |event: &gst::Event| match event.view() {
        gst::EventView::Tag(tag) => Some(tag.tag().get::<tags::Title>()?.get().to_owned()),
        _ => None,
    };
    reader.events(EventType::Tag).iter().filter_map(title).collect()
}

/// The id and the group of the last stream that a reader received.
fn stream(reader: &SourceRecorder) -> (String, Option<gst::GroupId>) {
    let event = reader.events(EventType::StreamStart).pop().unwrap();
    let gst::EventView::StreamStart(start) = event.view() else {
        panic!("{event:?}");
    };
    (start.stream_id().to_owned(), start.group_id())
}

/// The words that begin with one of `starts`.
fn only(words: &[String], starts: &[&str]) -> Vec<String> {
    let is_wanted = |word: &&String| starts.iter().any(|start| word.starts_with(start));
    words.iter().filter(is_wanted).cloned().collect()
}

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
    wait_until("the events arrive", Duration::from_secs(1), || {
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
fn gap_keeps_time_in_later_reader() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    // The reader starts later, so its running time is less than the writer's.
    std::thread::sleep(Duration::from_millis(700));
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    let start = writer.pipeline.current_running_time().unwrap();
    let gap = event::Gap::builder(start)
        .duration(40 * gst::ClockTime::MSECOND)
        .build();
    writer.send(with_gap_flags(gap, MISSING_DATA));
    wait_until("the gap arrives", Duration::from_secs(1), || {
        !reader.events(EventType::Gap).is_empty()
    });
    let gap = reader.events(EventType::Gap).remove(0);
    let gst::EventView::Gap(gap) = gap.view() else {
        panic!("{gap:?}");
    };
    let absolute = |pipeline: &Pipeline, running: gst::ClockTime| pipeline.base_time().unwrap() + running;
    let (sent, received) = (
        absolute(&writer.pipeline, start),
        absolute(&reader.pipeline, gap.get().0),
    );
    assert!(sent.absdiff(received) < gst::ClockTime::MSECOND, "{sent} is {received}");
    assert!(
        gap.get().0 + 500 * gst::ClockTime::MSECOND < start,
        "the reader started later"
    );
    assert_eq!(gap.get().1, Some(40 * gst::ClockTime::MSECOND));
    assert_eq!(gap_flags(gap), MISSING_DATA);
}

#[test]
fn reader_waiting_for_gap_stops_promptly() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    for state in [gst::State::Paused, gst::State::Null] {
        let reader = SourceRecorder::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=true"));
        writer.push_frame_until_seen(0, &reader);
        // The gap starts a minute from now, so the reader's sink waits that long.
        let start = writer.pipeline.current_running_time().unwrap() + 60 * gst::ClockTime::SECOND;
        writer.send(event::Gap::new(start, None));
        eventually("the gap arrives", || !reader.events(EventType::Gap).is_empty());
        // After this time, the sink is waiting.
        std::thread::sleep(Duration::from_millis(50));
        let (time, result) = timed(|| {
            reader.pipeline.set_state(state)?;
            reader.pipeline.set_state(gst::State::Null)
        });
        result.unwrap();
        assert!(time < on_this_machine(Duration::from_secs(1)), "{time:?}");
    }
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
fn writer_seek_causes_discont_without_flush() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = SourceRecorder::of(&channel);
    eventually("ten frames arrive", || reader.offsets().len() >= 10);
    reader.clear();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    writer.seek_simple(flags, 100 * gst::ClockTime::SECOND).unwrap();
    eventually("frames from the new place arrive", || {
        reader.offsets().iter().filter(|number| **number >= 3000).count() > 10
    });
    let has_event = reader.items().iter().any(|item| item.event().is_some());
    assert!(!has_event, "{:?}", reader.words());
    let frames = reader.frames();
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(discont_offsets(&reader), [3000]);
    let age = reader.pipeline.current_running_time().unwrap() - *times.last().unwrap();
    assert!(age < gst::ClockTime::SECOND, "{age}");
}

/// The offsets of the frames that are marked as discontinuous.
fn discont_offsets(reader: &SourceRecorder) -> Vec<u64> {
    let frames = reader.frames().into_iter();
    frames
        .filter(|frame| frame.is_discont())
        .map(|frame| frame.offset)
        .collect()
}

#[test]
fn first_frame_after_flush_is_discont() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.settle(&reader);
    writer.source().send_event(event::FlushStart::new());
    writer.source().send_event(event::FlushStop::new(false));
    for number in 1..=3 {
        writer.push_frame_until_seen(number, &reader);
    }
    let has_event = reader.items().iter().any(|item| item.event().is_some());
    assert!(!has_event, "{:?}", reader.words());
    assert_eq!(discont_offsets(&reader), [1]);
}

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

/// A live stream: its source, and the property of a player for the sink that gets it.
type Source = (&'static str, &'static str);

const RAW_VIDEO: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1",
    "video-sink",
);
const LARGE_RAW_VIDEO: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1",
    "video-sink",
);
const RAW_AUDIO: Source = (
    "audiotestsrc is-live=true samplesperbuffer=1600 ! audio/x-raw,format=S16LE,rate=48000,channels=2",
    "audio-sink",
);
const H264: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 ! x264enc tune=zerolatency \
     key-int-max=15 ! h264parse",
    "video-sink",
);

/// A player plays the stream of a writer, and after that writer is killed, the stream of another one. The streams have
/// other ids.
#[track_caller]
fn assert_player_shows_new_writer(factory: &str, (source, sink_property): Source, (next_source, _): Source) {
    let channel = Channel::new();
    let start_writer = |source| launch(&format!("{source} ! rsshmsink name={channel}"));
    let mut writer = start_writer(source);
    init();
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", true)
        .property("signal-handoffs", true)
        .build()
        .unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&shown);
    sink.connect("handoff", false, move |_| {
        to.lock().unwrap().push(Instant::now());
        None
    });
    let player = gst::ElementFactory::make(factory)
        .property("uri", format!("rsshm://{channel}"))
        .property(sink_property, sink)
        .build()
        .unwrap();
    let player = Pipeline::from(player.downcast::<gst::Pipeline>().unwrap());
    player.play();
    // The frames of both writers are displayed for two seconds, and those of the first for longer than the limit below.
    let show = |frames| eventually("frames are displayed", || shown.lock().unwrap().len() >= frames);
    show(60);
    writer.kill();
    let before = shown.lock().unwrap().len();
    let mut writer = start_writer(next_source);
    show(before + 60);
    drop(player);
    writer.interrupt();
    let shown = shown.lock().unwrap();
    let pauses = shown.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        pauses.clone().max() < Some(on_this_machine(Duration::from_millis(1500))),
        "{factory}: {:?}",
        pauses.max()
    );
}

#[test]
fn playbin_shows_new_writer_without_pause() {
    assert_player_shows_new_writer("playbin", RAW_VIDEO, RAW_VIDEO);
}

#[test]
fn playbin3_shows_new_writer_without_pause() {
    assert_player_shows_new_writer("playbin3", RAW_VIDEO, RAW_VIDEO);
}

#[test]
fn playbin3_shows_new_writer_of_other_format() {
    assert_player_shows_new_writer("playbin3", RAW_VIDEO, LARGE_RAW_VIDEO);
}

#[test]
fn playbin3_plays_new_writer_of_audio() {
    assert_player_shows_new_writer("playbin3", RAW_AUDIO, RAW_AUDIO);
}

#[test]
fn playbin3_shows_new_writer_of_encoded_video() {
    assert_player_shows_new_writer("playbin3", H264, H264);
}

/// The number of frames in a recording, and the last timestamp.
fn recorded(file: &Path) -> (usize, gst::ClockTime) {
    let player = Pipeline::new(&format!(
        "filesrc location={} ! decodebin ! fakesink name=sink sync=false",
        file.display()
    ));
    let times = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&times);
    let pad = player.element("sink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        to.lock().unwrap().extend(info.buffer().unwrap().pts());
        gst::PadProbeReturn::Ok
    });
    player.play();
    player.wait_eos();
    let times = times.lock().unwrap();
    (times.len(), *times.last().unwrap())
}

#[test]
fn recordings_continue_with_new_writer() {
    let channel = Channel::new();
    let directory = std::env::temp_dir().join(channel.to_string());
    std::fs::create_dir(&directory).unwrap();
    let encoder =
        "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse";
    let at = |name: &str| -> PathBuf { directory.join(name) };
    let mut recorders = [
        format!("mp4mux ! filesink location={}", at("all.mp4").display()),
        format!(
            "splitmuxsink location={} max-size-time=1000000000 send-keyframe-requests=true",
            at("part%d.mp4").display()
        ),
    ]
    .map(|end| launch(&format!("-e rsshmsrc name={channel} ! {encoder} ! {end}")));
    for _ in 0..2 {
        let mut writer = live_writer(&channel);
        // The frames of both writers are recorded for two seconds.
        std::thread::sleep(on_this_machine(Duration::from_millis(2000)));
        writer.kill();
    }
    for recorder in &mut recorders {
        let output = recorder.interrupt();
        assert!(!output.contains("WARN") && !output.contains("ERROR"), "{output}");
    }
    let (frames, time) = recorded(&at("all.mp4"));
    assert!(
        frames > 60 && time > 3 * gst::ClockTime::SECOND,
        "{frames} frames up to {time}"
    );
    let parts: Vec<_> = (0..)
        .map(|part| at(&format!("part{part}.mp4")))
        .take_while(|file| file.exists())
        .map(|file| recorded(&file).0)
        .collect();
    assert!(parts.len() >= 3 && parts.iter().sum::<usize>() > 60, "{parts:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}
