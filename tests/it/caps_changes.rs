// SPDX-License-Identifier: MIT OR Apache-2.0

//! Caps that change in mid-stream. A reader receives each frame with the caps of that frame.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, eventually, frames,
    gst::{LOSSLESS, Pipeline, RecordedFrame, SinkHarness, SourceRecorder, init, sequence},
};

/// The size of a frame with these caps.
fn size(caps: &gst::Caps) -> usize {
    let is_raw = caps.structure(0).unwrap().name() == "video/x-raw";
    let info = gst_video::VideoInfo::from_caps(caps).ok().filter(|_| is_raw);
    info.map_or(1000, |info| info.size())
}

/// Pushes the sequenced frame `number` with these caps.
#[track_caller]
fn push(writer: &SinkHarness, caps: &gst::Caps, number: u32) {
    let mut bytes = vec![0; size(caps)];
    frames::fill(&mut bytes, number);
    writer.push_sample(&gst::Buffer::from_mut_slice(bytes), caps, None);
}

fn raw(format: &str, width: u32, rate: u32, more: &str) -> gst::Caps {
    init();
    format!("video/x-raw,format={format},width={width},height=48,framerate={rate}/1{more}")
        .parse()
        .unwrap()
}

/// Checks a frame and returns its number.
#[track_caller]
fn number(seen: &RecordedFrame) -> u32 {
    assert_eq!(seen.bytes.len(), size(seen.caps()));
    frames::check(&seen.bytes).expect("a whole frame")
}

#[test]
fn new_caps_arrive_with_their_first_frame() {
    let hd = ",colorimetry=bt709,pixel-aspect-ratio=1/1";
    let changes: Vec<gst::Caps> = [
        raw("I420", 64, 30, hd),
        raw("I420", 64, 25, hd),
        raw("I420", 64, 25, ",colorimetry=bt2020,pixel-aspect-ratio=1/1"),
        raw("I420", 64, 25, ",colorimetry=bt2020,pixel-aspect-ratio=4/3"),
        raw("I420", 128, 25, ",colorimetry=bt2020,pixel-aspect-ratio=4/3"),
        raw("NV12", 128, 25, ",colorimetry=bt2020,pixel-aspect-ratio=4/3"),
        "image/jpeg,width=128,height=48,framerate=25/1".parse().unwrap(),
        raw("NV12", 128, 25, ",colorimetry=bt2020,pixel-aspect-ratio=4/3"),
        "video/x-h264,stream-format=byte-stream,alignment=au".parse().unwrap(),
        "video/x-h264,stream-format=byte-stream,alignment=nal".parse().unwrap(),
        raw("GRAY8", 64, 1, ",interlace-mode=interleaved"),
        "audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved"
            .parse()
            .unwrap(),
        raw("I420", 64, 30, hd),
    ]
    .into();
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    let sent: Vec<&gst::Caps> = changes.iter().flat_map(|caps| [caps; 3]).collect();
    for (caps, number) in sent.iter().zip(0..) {
        push(&writer, caps, number);
    }
    writer.end();
    writer.pipeline.wait_eos();
    reader.pipeline.wait_eos();
    drop(writer);
    channel.assert_removed();
    let seen = reader.frames();
    assert_eq!(
        seen.iter().map(number).collect::<Vec<_>>(),
        Vec::from_iter(0..sent.len() as u32)
    );
    assert_eq!(seen.iter().map(RecordedFrame::caps).collect::<Vec<_>>(), sent);
    let discont: Vec<usize> = (0..seen.len()).filter(|number| seen[*number].is_discont()).collect();
    assert_eq!(discont, Vec::from_iter((0..sent.len()).step_by(3)));
}

/// Runs an upstream that draws into shared memory and changes the caps after every second frame.
///
/// Returns the caps that the sink received with each frame, the frames that a reader received, and the writer.
fn run_changing_upstream(
    source: &str,
    options: &str,
    changes: u32,
) -> (HashMap<u32, gst::Caps>, Vec<RecordedFrame>, Pipeline) {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let frames = changes * 2;
    let writer = sequence::writer(
        &channel,
        &format!("num-buffers={frames} {source}"),
        "format=GRAY8,width=64,height=48,framerate=100/1",
        options,
    );
    let filter = writer.by_factory("capsfilter");
    let sent = Arc::new(Mutex::new(HashMap::new()));
    let in_probe = Arc::clone(&sent);
    let pad = writer.pad("rsshmsink", "sink");
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let number = frames::check(&info.buffer().unwrap().map_readable().unwrap()).unwrap();
        in_probe.lock().unwrap().insert(number, pad.current_caps().unwrap());
        if number % 2 == 1 {
            let (width, rate) = (64 + 8 * (number % 7), 100 + number % 3);
            filter.set_property("caps", raw(["GRAY8", "BGRx"][number as usize / 2 % 2], width, rate, ""));
        }
        gst::PadProbeReturn::Ok
    });
    writer.play();
    writer.wait_eos();
    reader.pipeline.wait_eos();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert_eq!(sent.len(), frames as usize);
    (sent, reader.frames(), writer)
}

#[test]
fn fifty_caps_changes_lose_no_frame() {
    let (sent, seen, writer) = run_changing_upstream("", LOSSLESS, 50);
    assert_eq!(seen.iter().map(number).collect::<Vec<_>>(), Vec::from_iter(0..100));
    for frame in &seen {
        assert_eq!(*frame.caps(), sent[&number(frame)]);
        assert!(!frame.is_discont() || number(frame).is_multiple_of(2));
    }
    // The first frame with new caps was drawn before the sink received these caps.
    assert!(writer.stat("rsshmsink", "frames-in-place") >= 45);
    let caps: Vec<_> = seen.iter().map(RecordedFrame::caps).collect();
    assert_eq!(caps.chunk_by(|a, b| a == b).count(), 50);
}

#[test]
fn reader_that_misses_frames_receives_right_caps() {
    let (sent, seen, _writer) = run_changing_upstream("is-live=true", "wait-for-connection=true", 50);
    assert!(seen.len() >= 2, "{}", seen.len());
    let numbers: Vec<u32> = seen.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let mut before: Option<&RecordedFrame> = None;
    for frame in &seen {
        assert_eq!(*frame.caps(), sent[&number(frame)]);
        let changed = before.is_none_or(|before| before.caps() != frame.caps());
        assert!(!changed || frame.is_discont());
        before = Some(frame);
    }
}

#[test]
fn source_reports_downstream_that_refuses_new_caps() {
    let channel = Channel::new();
    let reader = SourceRecorder::playing(&format!(
        "rsshmsrc channel={channel} convert=false ! video/x-raw,format=GRAY8 ! fakesink sync=false"
    ));
    let writer = SinkHarness::lossless(&channel);
    for number in 0..3 {
        push(&writer, &raw("GRAY8", 64, 30, ""), number);
    }
    push(&writer, &raw("GRAY8", 80, 30, ""), 3);
    eventually("the frames that it accepts arrive", || reader.frame_count() == 4);
    push(&writer, &raw("BGRx", 64, 30, ""), 4);
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    let text = error.message();
    assert!(
        text.contains(channel.as_str()) && text.contains("videoconvert"),
        "{text}"
    );
    assert_eq!(reader.frame_count(), 4);
}

#[test]
fn sink_refuses_unsupported_new_caps_with_advice() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    push(&writer, &raw("GRAY8", 64, 30, ""), 0);
    eventually("the supported frame arrives", || reader.frame_count() == 1);
    let caps = "video/x-raw(memory:GLMemory),format=RGBA,width=16,height=16,framerate=30/1";
    push(&writer, &caps.parse().unwrap(), 1);
    let error = writer.pipeline.wait_error();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    assert!(error.message().contains("gldownload"), "{error}");
    assert_eq!(reader.frame_count(), 1);
}
