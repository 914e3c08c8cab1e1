// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gaps, seeks and flushes of the writer.

use std::time::Duration;

use gst::{EventType, event, prelude::*};
use rsshm_testkit::{
    Channel, PATIENCE, eventually,
    gst::{
        CAPS, Pipeline, SinkHarness, SourceRecorder,
        newer::{MISSING_DATA, gap_flags, with_gap_flags},
    },
    on_this_machine, timed,
};

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
    eventually("the gap arrives", || !reader.events(EventType::Gap).is_empty());
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
        assert!(time < on_this_machine(PATIENCE), "{time:?}");
    }
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
    // A reader that is late misses frames.
    let first = frames.iter().position(|frame| frame.offset >= 3000).unwrap();
    assert!(frames[first].is_discont());
    for pair in frames.windows(2) {
        let is_next = pair[1].offset == pair[0].offset + 1;
        assert!(!is_next || !pair[1].is_discont(), "{}", pair[1].offset);
    }
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
    let writer = SinkHarness::live(&channel, "lossless=true");
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
