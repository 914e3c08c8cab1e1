//! What happens between the frames: streams, tags, gaps and events of applications, in the order in which the writer has
//! them.

mod common;
mod told;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{Channel, Pipeline, eventually, launch, timed, within};
use gst::{EventType, TagMergeMode, event, prelude::*, tags};
use told::{CAPS, Item, Log, Producer, custom};

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

/// The titles that a reader was told, in order.
fn titles(reader: &Log) -> Vec<String> {
    let title = |event: &gst::Event| match event.view() {
        gst::EventView::Tag(tag) => Some(tag.tag().get::<tags::Title>()?.get().to_owned()),
        _ => None,
    };
    reader.events(EventType::Tag).iter().filter_map(title).collect()
}

/// Id and group of the stream that a reader was told last.
fn stream(reader: &Log) -> (String, Option<gst::GroupId>) {
    let event = reader.events(EventType::StreamStart).pop().unwrap();
    let gst::EventView::StreamStart(start) = event.view() else {
        panic!("{event:?}");
    };
    (start.stream_id().to_owned(), start.group_id())
}

/// What is in `words` of those in `of`, in its order.
fn only(words: &[String], of: &[&str]) -> Vec<String> {
    let is_one = |word: &&String| of.iter().any(|start| word.starts_with(start));
    words.iter().filter(is_one).cloned().collect()
}

#[test]
fn many_events_of_an_application_come_in_order_between_the_frames() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.forget();
    let mut expected = Vec::new();
    for number in 1..=60 {
        writer.push(number);
        expected.push(format!("frame {number}"));
        for part in 0..5 {
            writer.send(custom("app", 10 * number + part));
            expected.push(format!("app {}", 10 * number + part));
        }
        eventually("the last of them", || reader.words().last() == expected.last());
    }
    assert_eq!(reader.words(), expected);
    assert_eq!(reader.pipeline.stat("rsshmsrc", "events-missed"), 0);
    assert_eq!(writer.pipeline.stat("rsshmsink", "events-left-out"), 0);
}

#[test]
fn an_event_that_no_frame_follows_comes_at_once() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    writer.send(title("now"));
    writer.send(sticky("app/state", 7));
    writer.send(custom("app", 1));
    within(Duration::from_secs(1), "the event", || {
        reader.words().last().is_some_and(|word| word == "app 1")
    });
    assert_eq!(titles(&reader), ["now"]);
    assert!(reader.words().contains(&"app/state 7".to_owned()));
}

#[test]
fn who_comes_late_is_told_the_streams_tags_before_its_first_frame() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! taginject tags=title=\"film\",artist=\"somebody\",track-number=(uint)7 \
         ! rsshmsink name={channel}"
    ));
    eventually("the channel", || channel.exists());
    std::thread::sleep(Duration::from_millis(500));
    let reader = Log::of(&channel);
    eventually("a frame", || !reader.frames().is_empty());
    let words: Vec<_> = reader
        .words()
        .iter()
        .map(|word| word.split(' ').next().unwrap().to_owned())
        .collect();
    // The first stream is that of a source which knows of no writer yet.
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
fn tags_that_change_come_between_the_right_frames() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "lossless=true");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.forget();
    for number in 1..=20 {
        writer.send(title(&number.to_string()));
        writer.push(number);
    }
    eventually("the last frame", || reader.frames().last() == Some(&20));
    let expected: Vec<_> = (1..=20)
        .flat_map(|number| ["tag".to_owned(), format!("frame {number}")])
        .collect();
    assert_eq!(reader.words(), expected);
    assert_eq!(
        titles(&reader),
        (1..=20).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    // Who comes now has the last.
    let late = Log::of(&channel);
    eventually("a frame", || !late.frames().is_empty());
    assert_eq!(titles(&late), ["20"]);
}

#[test]
fn what_is_left_out_is_counted_and_said_once() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
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
    writer.push(1);
    eventually("the frame behind them", || reader.frames().contains(&1));
    assert_eq!(titles(&reader), ["film", "film", "film"]);
    assert_eq!(writer.pipeline.stat("rsshmsink", "events-left-out"), 5);
    assert_eq!(writer.pipeline.stat("rsshmsink", "metas-left-out"), 0);
    let bus = writer.pipeline.0.bus().unwrap();
    let warnings = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning])).count();
    assert_eq!(warnings, 1);
}

#[test]
fn channels_of_one_stream_are_one_stream_in_the_reader() {
    let channels = [Channel::new(), Channel::new()];
    let other = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! tee name=t ! queue ! rsshmsink name={} t. ! queue ! rsshmsink name={}",
        channels[0], channels[1]
    ));
    let mut stranger = launch(&format!("videotestsrc is-live=true ! {CAPS} ! rsshmsink name={other}"));
    let readers = [&channels[0], &channels[1], &other].map(Log::of);
    for reader in &readers {
        eventually("a frame", || !reader.frames().is_empty());
    }
    let streams = readers.each_ref().map(stream);
    assert!(streams.iter().all(|(id, group)| !id.is_empty() && group.is_some()));
    assert_eq!(streams[0], streams[1]);
    assert_ne!(streams[0].0, streams[2].0);
    assert_ne!(streams[0].1, streams[2].1);
    writer.interrupt();
    stranger.interrupt();
}

#[test]
fn a_stream_is_told_with_its_id_and_flags() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    let flags = gst::StreamFlags::SPARSE;
    writer.send(event::StreamStart::builder("my/stream").flags(flags).build());
    writer.push_until_seen(0, &reader);
    assert_eq!(stream(&reader).0, "my/stream");
    let event = reader.events(EventType::StreamStart).pop().unwrap();
    assert!(matches!(event.view(), gst::EventView::StreamStart(start) if start.stream_flags() == flags));
}

#[test]
fn another_stream_in_between_has_a_segment_and_tags_of_its_own() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.send(title("first"));
    writer.push_until_seen(0, &reader);
    reader.forget();
    let start = stream_start("second");
    writer.send(start.copy());
    // Before there is a frame of it there is no time for a gap.
    writer.send(event::Gap::new(writer.pipeline.0.current_running_time().unwrap(), None));
    writer.send(title("second"));
    writer.send(custom("app", 1));
    writer.push(1);
    eventually("its frame", || reader.frames() == [1]);
    assert_eq!(reader.words(), ["stream-start", "segment", "tag", "app 1", "frame 1"]);
    assert_eq!(
        (stream(&reader).0.as_str(), titles(&reader)),
        ("second", vec!["second".to_owned()])
    );
    let pts = |item: &Item| match item {
        Item::Frame { pts, .. } => *pts,
        Item::Event(_) => None,
    };
    // Time goes on.
    let now = reader.pipeline.0.current_running_time().unwrap();
    let pts = reader.items().iter().find_map(pts).unwrap();
    assert!(now.absdiff(pts) < gst::ClockTime::SECOND, "{pts} at {now}");
    // Said again it is no other.
    reader.forget();
    writer.send(start);
    writer.send(custom("app", 2));
    eventually("what comes behind it", || reader.words() == ["app 2"]);
    // Nothing of the first one lasts.
    writer.send(stream_start("third"));
    writer.push(2);
    let late = Log::of(&channel);
    eventually("a frame", || late.frames().contains(&2));
    assert_eq!((stream(&late).0.as_str(), titles(&late)), ("third", vec![]));
}

/// An element that plays one group of streams after the other takes the second's times to count from the first's end.
#[test]
fn another_stream_does_not_shift_time_in_elements_that_play_one_group_after_the_other() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::playing(&format!(
        "rsshmsrc channel={channel} ! streamsynchronizer ! fakesink name=sink sync=false"
    ));
    writer.push_until_seen(0, &reader);
    std::thread::sleep(Duration::from_millis(500));
    writer.push_until_seen(1, &reader);
    writer.send(stream_start("second"));
    writer.push_until_seen(2, &reader);
    assert_eq!(stream(&reader).0, "second");
    let pad = reader.pipeline.element("sink").static_pad("sink").unwrap();
    let segment = pad.sticky_event::<event::Segment>(0).unwrap();
    let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
    assert_eq!(segment.base(), Some(gst::ClockTime::ZERO));
}

#[test]
fn what_lasts_of_an_application_is_told_to_who_comes_late() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let first = Log::of(&channel);
    writer.send(sticky("app/a", 1));
    writer.push_until_seen(0, &first);
    writer.send(sticky("app/b", 2));
    writer.send(sticky("app/a", 3));
    writer.send(custom("app", 4));
    writer.push(1);
    eventually("the frame behind them", || first.frames().contains(&1));
    let words = only(&first.words(), &["app"]);
    assert_eq!(words, ["app/a 1", "app/b 2", "app/a 3", "app 4"]);
    let late = Log::of(&channel);
    eventually("a frame", || !late.frames().is_empty());
    let mut words = only(&late.words(), &["app", "frame", "segment"]);
    assert_eq!(words.pop().as_deref(), Some("frame 1"));
    assert_eq!(words.remove(0), "segment");
    words.sort();
    assert_eq!(words, ["app/a 3", "app/b 2"]);
}

#[test]
fn a_gap_has_its_time_in_a_reader_that_started_later() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    std::thread::sleep(Duration::from_millis(700));
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    let start = writer.pipeline.0.current_running_time().unwrap();
    let gap = event::Gap::builder(start)
        .duration(40 * gst::ClockTime::MSECOND)
        .gap_flags(gst::GapFlags::DATA)
        .build();
    writer.send(gap);
    within(Duration::from_secs(1), "the gap", || {
        !reader.events(EventType::Gap).is_empty()
    });
    let gap = reader.events(EventType::Gap).remove(0);
    let gst::EventView::Gap(gap) = gap.view() else {
        panic!("{gap:?}");
    };
    let absolute = |pipeline: &Pipeline, running| pipeline.0.base_time().unwrap() + running;
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
    assert_eq!(gap.gap_flags(), gst::GapFlags::DATA);
}

#[test]
fn a_reader_that_waits_for_a_gap_stops_promptly() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    for state in [gst::State::Paused, gst::State::Null] {
        let reader = Log::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=true"));
        writer.push_until_seen(0, &reader);
        // Its sink waits for a minute from now on.
        let start = writer.pipeline.0.current_running_time().unwrap() + 60 * gst::ClockTime::SECOND;
        writer.send(event::Gap::new(start, None));
        eventually("the gap", || !reader.events(EventType::Gap).is_empty());
        std::thread::sleep(Duration::from_millis(50));
        let (time, result) = timed(|| {
            reader.pipeline.0.set_state(state)?;
            reader.pipeline.0.set_state(gst::State::Null)
        });
        result.unwrap();
        assert!(time < Duration::from_secs(1), "{time:?}");
    }
}

#[test]
fn events_of_a_paused_reader_are_there_when_it_plays_again() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.pipeline.0.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    reader.forget();
    writer.send(title("while it paused"));
    for number in 1..=5 {
        writer.send(custom("app", number));
        writer.push(number);
    }
    std::thread::sleep(Duration::from_millis(100));
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    writer.push_until_seen(6, &reader);
    let words = reader.words();
    assert_eq!(
        only(&words, &["app"]),
        ["app 1", "app 2", "app 3", "app 4", "app 5"],
        "{words:?}"
    );
    assert_eq!(titles(&reader), ["while it paused"]);
}

#[test]
fn a_seek_in_the_writer_is_a_discont_in_the_reader_and_no_flush() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = Log::of(&channel);
    eventually("ten frames", || reader.frames().len() >= 10);
    reader.forget();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    writer.0.seek_simple(flags, 100 * gst::ClockTime::SECOND).unwrap();
    eventually("frames from there", || {
        reader.frames().iter().filter(|number| **number >= 3000).count() > 10
    });
    let items = reader.items();
    assert!(
        !items.iter().any(|item| matches!(item, Item::Event(_))),
        "{:?}",
        reader.words()
    );
    let frames: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::Frame { number, pts, flags } => {
                Some((*number, pts.unwrap(), flags.contains(gst::BufferFlags::DISCONT)))
            }
            Item::Event(_) => None,
        })
        .collect();
    assert!(frames.is_sorted_by_key(|(_, pts, _)| *pts), "{frames:?}");
    let disconts: Vec<_> = frames
        .iter()
        .filter(|(.., discont)| *discont)
        .map(|(number, ..)| *number)
        .collect();
    assert_eq!(disconts, [3000], "{frames:?}");
    let age = reader.pipeline.0.current_running_time().unwrap() - frames.last().unwrap().1;
    assert!(age < gst::ClockTime::SECOND, "{age}");
}

#[test]
fn a_frame_after_a_flush_does_not_continue_those_before() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.forget();
    let source = writer.pipeline.element("source");
    source.send_event(event::FlushStart::new());
    source.send_event(event::FlushStop::new(false));
    for number in 1..=3 {
        writer.push_until_seen(number, &reader);
    }
    let disconts: Vec<_> = reader
        .items()
        .iter()
        .filter_map(|item| match item {
            Item::Frame { number, flags, .. } => flags.contains(gst::BufferFlags::DISCONT).then_some(*number),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(disconts, [1]);
}

#[test]
fn nothing_is_lost_or_told_twice_when_the_writer_is_another() {
    let channel = Channel::new();
    let reader = Log::of(&channel);
    let mut expected = Vec::new();
    for round in 1..=3 {
        let writer = Producer::playing(&channel, "");
        let (first, second) = (10 * round, 10 * round + 1);
        writer.send(stream_start(&format!("stream {round}")));
        writer.send(title(&format!("title {round}")));
        writer.send(sticky("app/state", first));
        writer.push_until_seen(first, &reader);
        writer.send(custom("app", first));
        writer.push(second);
        writer.send(custom("app", second));
        eventually("the last event", || {
            reader.words().last() == Some(&format!("app {second}"))
        });
        expected.push(format!("app/state {first}"));
        expected.push(format!("app {first}"));
        expected.push(format!("app {second}"));
        // A killed one leaves the same behind, see below.
        drop(writer);
    }
    assert_eq!(only(&reader.words(), &["app"]), expected);
    assert_eq!(titles(&reader), ["title 1", "title 2", "title 3"]);
    // Its own first.
    assert_eq!(reader.events(EventType::StreamStart).len(), 4);
}

#[test]
fn a_killed_writers_successor_is_another_stream_with_its_own_tags() {
    let channel = Channel::new();
    let reader = Log::of(&channel);
    for round in 1..=2 {
        let mut writer = launch(&format!(
            "videotestsrc is-live=true ! {CAPS} ! taginject tags=title=\"film{round}\" ! rsshmsink name={channel}"
        ));
        let before = reader.frames().len();
        eventually("its frames", || reader.frames().len() > before + 5);
        writer.kill();
    }
    assert_eq!(titles(&reader), ["film1", "film2"]);
    let starts = reader.events(EventType::StreamStart);
    assert_eq!((starts.len(), reader.events(EventType::Segment).len()), (3, 2));
}

#[test]
fn nothing_is_lost_or_told_twice_when_the_caps_change() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.send(title("one"));
    writer.send(sticky("app/state", 1));
    writer.push_until_seen(0, &reader);
    let (mut expected, mut number) = (vec!["app/state 1".to_owned()], 0);
    for width in [128, 64, 1280, 32] {
        writer.send(custom("app", 2 * width));
        writer.set_caps(&CAPS.replace("64", &width.to_string()));
        writer.send(custom("app", 2 * width + 1));
        expected.extend([format!("app {}", 2 * width), format!("app {}", 2 * width + 1)]);
        number += 1;
        writer.push(number);
        expected.push(format!("frame {number}"));
        eventually("the frame behind it", || reader.frames().last() == Some(&number));
    }
    let words: Vec<_> = only(&reader.words(), &["app", "frame"]);
    let words: Vec<_> = words.into_iter().filter(|word| word != "frame 0").collect();
    assert_eq!(words, expected);
    assert_eq!(titles(&reader), ["one"]);
    assert_eq!(reader.events(EventType::Segment).len(), 1);
    assert_eq!(reader.pipeline.stat("rsshmsrc", "events-missed"), 0);
    // It lasts in the newest segment, too.
    let late = Log::of(&channel);
    eventually("a frame", || !late.frames().is_empty());
    assert_eq!(
        (titles(&late), only(&late.words(), &["app"])),
        (vec!["one".to_owned()], vec!["app/state 1".to_owned()])
    );
}

#[test]
fn the_end_comes_after_all_frames_and_events_before_it() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "lossless=true");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.forget();
    let mut expected = Vec::new();
    for number in 1..=20 {
        writer.push(number);
        writer.send(custom("app", number));
        expected.extend([format!("frame {number}"), format!("app {number}")]);
    }
    writer.end();
    reader.pipeline.wait_eos();
    expected.push("eos".to_owned());
    assert_eq!(reader.words(), expected);
}

#[test]
fn a_reader_that_stands_still_for_too_long_counts_the_events_it_has_missed() {
    let channel = Channel::new();
    let writer = Producer::playing(&channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let pad = reader.pipeline.by_factory("fakesink").static_pad("sink").unwrap();
    let in_probe = Arc::clone(&gate);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        drop(in_probe.lock());
        gst::PadProbeReturn::Ok
    });
    writer.push(1);
    eventually("it stands still", || reader.frames().contains(&1));
    writer.send(sticky("app/state", 1000));
    // A ring of them is kept, and what lasts.
    for number in 1..=100 {
        writer.send(custom("app", number));
    }
    let other = Log::of(&channel);
    writer.push_until_seen(2, &other);
    drop(closed);
    eventually("it goes on", || reader.frames().contains(&2));
    let words = only(&reader.words(), &["app"]);
    assert_eq!(words[0], "app/state 1000");
    let missed = reader.pipeline.stat("rsshmsrc", "events-missed");
    assert!(missed > 50 && words.len() as u64 + missed == 101, "{missed}, {words:?}");
}

fn live_writer(channel: &Channel) -> common::Process {
    launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ))
}

#[test]
fn players_show_another_writers_frames_at_once() {
    for factory in ["playbin", "playbin3"] {
        let channel = Channel::new();
        let mut writer = live_writer(&channel);
        common::init();
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", true)
            .property("signal-handoffs", true)
            .build()
            .unwrap();
        let (send, shown) = std::sync::mpsc::channel();
        sink.connect("handoff", false, move |_| {
            let _ = send.send(Instant::now());
            None
        });
        let player = gst::ElementFactory::make(factory)
            .property("uri", format!("rsshm://{channel}"))
            .property("video-sink", sink)
            .build()
            .unwrap();
        let player = Pipeline(player.downcast().unwrap());
        player.0.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(2000));
        writer.kill();
        let mut writer = live_writer(&channel);
        std::thread::sleep(Duration::from_millis(2000));
        drop(player);
        writer.interrupt();
        let shown: Vec<_> = shown.try_iter().collect();
        let pauses = shown.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(shown.len() > 60, "{factory}: {}", shown.len());
        assert!(
            pauses.clone().max() < Some(Duration::from_millis(1500)),
            "{factory}: {:?}",
            pauses.max()
        );
    }
}

/// Frames in a recording, and how long it is.
fn recorded(file: &std::path::Path) -> (usize, gst::ClockTime) {
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
    player.0.set_state(gst::State::Playing).unwrap();
    player.wait_eos();
    let times = times.lock().unwrap();
    (times.len(), *times.last().unwrap())
}

#[test]
fn recordings_go_on_when_the_writer_is_another() {
    let channel = Channel::new();
    let folder = std::env::temp_dir().join(channel.to_string());
    std::fs::create_dir(&folder).unwrap();
    let encoder = "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse";
    let at = |name: &str| folder.join(name);
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
        std::thread::sleep(Duration::from_millis(2000));
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
    let parts: usize = (0..3).map(|part| recorded(&at(&format!("part{part}.mp4"))).0).sum();
    assert!(parts > 60, "{parts}");
    std::fs::remove_dir_all(&folder).unwrap();
}
