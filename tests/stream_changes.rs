//! Caps that change in mid-stream: the reader has the new ones before the first frame of theirs, and every frame with its
//! own.

mod common;
mod feed;
mod numbered;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use common::{Channel, Pipeline, Seen, Tap, eventually};
use feed::LOSSLESS;
use gst::prelude::*;

/// A writer that is given its frames, each with its caps, as samples.
fn writer(channel: &Channel) -> Pipeline {
    Pipeline::playing(&format!(
        "appsrc name=source format=time ! rsshmsink channel={channel} {LOSSLESS}"
    ))
}

/// Bytes of a frame of the caps.
fn size(caps: &gst::Caps) -> usize {
    let is_raw = caps.structure(0).unwrap().name() == "video/x-raw";
    let info = gst_video::VideoInfo::from_caps(caps).ok().filter(|_| is_raw);
    info.map_or(1000, |info| info.size())
}

#[track_caller]
fn push(writer: &Pipeline, caps: &gst::Caps, number: u32) {
    let mut bytes = vec![0; size(caps)];
    numbered::fill(&mut bytes, number);
    let buffer = gst::Buffer::from_mut_slice(bytes);
    let sample = gst::Sample::builder().buffer(&buffer).caps(caps).build();
    let pushed: gst::FlowReturn = writer.element("source").emit_by_name("push-sample", &[&sample]);
    assert_eq!(pushed, gst::FlowReturn::Ok);
}

fn end(writer: &Pipeline) {
    let _: gst::FlowReturn = writer.element("source").emit_by_name("end-of-stream", &[]);
    writer.wait_eos();
}

fn raw(format: &str, width: u32, rate: u32, more: &str) -> gst::Caps {
    common::init();
    format!("video/x-raw,format={format},width={width},height=48,framerate={rate}/1{more}")
        .parse()
        .unwrap()
}

#[track_caller]
fn number(seen: &Seen) -> u32 {
    assert_eq!(seen.bytes.len(), size(&seen.caps));
    numbered::check(&seen.bytes).expect("a whole frame")
}

#[test]
fn whatever_changes_is_there_with_its_first_frame() {
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
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = writer(&channel);
    let sent: Vec<&gst::Caps> = changes.iter().flat_map(|caps| [caps; 3]).collect();
    for (caps, number) in sent.iter().zip(0..) {
        push(&writer, caps, number);
    }
    end(&writer);
    reader.pipeline.wait_eos();
    drop(writer);
    channel.assert_gone();
    let seen = reader.all();
    assert_eq!(
        seen.iter().map(number).collect::<Vec<_>>(),
        Vec::from_iter(0..sent.len() as u32)
    );
    assert_eq!(seen.iter().map(|frame| &frame.caps).collect::<Vec<_>>(), sent);
    let discont: Vec<usize> = (0..seen.len()).filter(|number| seen[*number].is_discont()).collect();
    assert_eq!(discont, Vec::from_iter((0..sent.len()).step_by(3)));
}

/// An upstream that draws into shared memory and changes its caps after every second frame. Yields what its sink got as
/// caps of which frame, and what a reader got.
fn restless(source: &str, options: &str, changes: u32) -> (HashMap<u32, gst::Caps>, Vec<Seen>, Pipeline) {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let frames = changes * 2;
    let writer = numbered::writer(
        &channel,
        &format!("num-buffers={frames} {source}"),
        "format=GRAY8,width=64,height=48,framerate=100/1",
        options,
    );
    let filter = writer.by_factory("capsfilter");
    let sent = Arc::new(Mutex::new(HashMap::new()));
    let to = Arc::clone(&sent);
    let pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let number = numbered::check(&info.buffer().unwrap().map_readable().unwrap()).unwrap();
        to.lock().unwrap().insert(number, pad.current_caps().unwrap());
        if number % 2 == 1 {
            let (width, rate) = (64 + 8 * (number % 7), 100 + number % 3);
            filter.set_property("caps", raw(["GRAY8", "BGRx"][number as usize / 2 % 2], width, rate, ""));
        }
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    writer.wait_eos();
    reader.pipeline.wait_eos();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert_eq!(sent.len(), frames as usize);
    (sent, reader.all(), writer)
}

#[test]
fn fifty_changes_in_a_row_lose_nothing() {
    let (sent, seen, writer) = restless("", LOSSLESS, 50);
    assert_eq!(seen.iter().map(number).collect::<Vec<_>>(), Vec::from_iter(0..100));
    for frame in &seen {
        assert_eq!(frame.caps, sent[&number(frame)]);
        assert!(!frame.is_discont() || number(frame).is_multiple_of(2));
    }
    // The first of each was drawn before the sink knew its caps.
    assert!(writer.stat("rsshmsink", "frames-in-place") >= 45);
    let caps: Vec<_> = seen.iter().map(|frame| &frame.caps).collect();
    assert_eq!(caps.chunk_by(|a, b| a == b).count(), 50);
}

#[test]
fn a_reader_that_is_not_waited_for_has_no_frame_with_caps_of_another() {
    let (sent, seen, _writer) = restless("is-live=true", "", 50);
    assert!(seen.len() > 20, "{}", seen.len());
    let numbers: Vec<u32> = seen.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let mut before: Option<&Seen> = None;
    for frame in &seen {
        assert_eq!(frame.caps, sent[&number(frame)]);
        let changed = before.is_none_or(|before| before.caps != frame.caps);
        assert!(!changed || frame.is_discont());
        before = Some(frame);
    }
}

#[test]
fn a_downstream_that_does_not_take_the_new_caps_is_said_to() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} ! video/x-raw,format=GRAY8 ! fakesink sync=false"
    ));
    let writer = writer(&channel);
    for number in 0..3 {
        push(&writer, &raw("GRAY8", 64, 30, ""), number);
    }
    push(&writer, &raw("GRAY8", 80, 30, ""), 3);
    eventually("what it takes", || reader.count() == 4);
    push(&writer, &raw("BGRx", 64, 30, ""), 4);
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    let text = error.message();
    assert!(text.contains(&channel.0) && text.contains("videoconvert"), "{text}");
    assert_eq!(reader.count(), 4);
}

#[test]
fn new_caps_that_cannot_be_carried_are_refused_with_what_to_do() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = writer(&channel);
    push(&writer, &raw("GRAY8", 64, 30, ""), 0);
    eventually("what can be carried", || reader.count() == 1);
    let caps = "video/x-raw(memory:GLMemory),format=RGBA,width=16,height=16,framerate=30/1";
    push(&writer, &caps.parse().unwrap(), 1);
    let error = writer.wait_error();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    assert!(error.message().contains("gldownload"), "{error}");
    assert_eq!(reader.count(), 1);
}
