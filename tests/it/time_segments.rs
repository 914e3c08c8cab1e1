// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time segments of the writer's stream. A reader receives correct running times, whatever the segment is.

use gst::prelude::*;
use rsshm_testkit::{
    Channel, eventually,
    gst::{LOSSLESS, Pipeline, SinkHarness, SourceRecorder, caps_at, init},
};

/// The number of nanoseconds in a millisecond.
const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;

/// The timestamp and the duration of a frame.
type Frame = (i64, i64);

fn segment(rate: f64, start: i64, stop: i64) -> gst::FormattedSegment<gst::ClockTime> {
    init();
    let mut segment = gst::FormattedSegment::new();
    segment.set_rate(rate);
    segment.set_start(time(start));
    segment.set_time(time(start));
    segment.set_stop(time(stop));
    segment
}

fn time(nanoseconds: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanoseconds as u64)
}

/// Sends two frames in a segment. Returns the start and the duration of each frame that the reader receives, in the
/// writer's running time.
fn read(segment: &gst::FormattedSegment<gst::ClockTime>, frames: [Frame; 2]) -> Vec<Frame> {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    // A frame from before the reader's base time would have no running time.
    eventually("the reader's running time is positive", || {
        let running = reader.pipeline.current_running_time();
        running.is_some_and(|running| running > 100 * gst::ClockTime::MSECOND)
    });
    // The source is live, because the sink's wait for the first reader does not delay the frames of a live source.
    let writer = SinkHarness::with_source(
        &channel,
        "is-live=true handle-segment-change=true",
        "wait-for-connection=true",
    );
    writer.pipeline.play();
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "GRAY8")
        .field("width", 64)
        .field("height", 48)
        .field("framerate", gst::Fraction::new(25, 1))
        .build();
    for (pts, duration) in frames {
        let mut buffer = gst::Buffer::with_size(64 * 48).unwrap();
        let target = buffer.get_mut().unwrap();
        target.set_pts(time(pts));
        target.set_duration(time(duration));
        writer.push_sample(&buffer, &caps, Some(segment));
    }
    eventually("both frames arrive", || reader.frame_count() == 2);
    let base_time = |pipeline: &Pipeline| pipeline.base_time().unwrap().nseconds() as i64;
    let origin = base_time(&writer.pipeline) - base_time(&reader.pipeline);
    let frames = reader.frames().into_iter();
    frames
        .map(|frame| {
            let (pts, duration) = (frame.pts.unwrap(), frame.duration.unwrap());
            (pts.nseconds() as i64 - origin, duration.nseconds() as i64)
        })
        .collect()
}

#[test]
fn segment_start_is_subtracted() {
    let segment = segment(1.0, 100 * SECOND, 200 * SECOND);
    let frames = read(&segment, [(100 * SECOND, 40 * MS), (101 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(0, 40 * MS), (SECOND, 40 * MS)]);
}

#[test]
fn segment_base_is_added() {
    let mut segment = segment(1.0, 5 * SECOND, 200 * SECOND);
    segment.set_base(time(3 * SECOND));
    let frames = read(&segment, [(5 * SECOND, 40 * MS), (6 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(3 * SECOND, 40 * MS), (4 * SECOND, 40 * MS)]);
}

#[test]
fn segment_offset_is_subtracted() {
    let mut segment = segment(1.0, 5 * SECOND, 200 * SECOND);
    segment.set_offset(time(2 * SECOND));
    let frames = read(&segment, [(7 * SECOND, 40 * MS), (8 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(0, 40 * MS), (SECOND, 40 * MS)]);
}

#[test]
fn frame_may_begin_before_segment() {
    let segment = segment(1.0, 100 * SECOND, 200 * SECOND);
    let frames = read(
        &segment,
        [(100 * SECOND - 30 * MS, 40 * MS), (101 * SECOND - 30 * MS, 40 * MS)],
    );
    assert_eq!(frames, [(-30 * MS, 40 * MS), (SECOND - 30 * MS, 40 * MS)]);
}

#[test]
fn double_rate_halves_times() {
    let segment = segment(2.0, 0, 200 * SECOND);
    let frames = read(&segment, [(SECOND, 40 * MS), (3 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(500 * MS, 20 * MS), (1500 * MS, 20 * MS)]);
}

#[test]
fn negative_rate_reverses_times() {
    let backwards = segment(-1.0, 0, 10 * SECOND);
    let frames = read(&backwards, [(8 * SECOND, 40 * MS), (7 * SECOND, 40 * MS)]);
    assert_eq!(
        frames,
        [(2 * SECOND - 40 * MS, 40 * MS), (3 * SECOND - 40 * MS, 40 * MS)]
    );

    let fast = segment(-2.0, 0, 10 * SECOND);
    let frames = read(&fast, [(8 * SECOND, 40 * MS), (6 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(SECOND - 20 * MS, 20 * MS), (2 * SECOND - 20 * MS, 20 * MS)]);
}

/// Sends frames with one timestamp each, and returns the timestamps of those that the reader receives and whether each
/// is only to be decoded. The offset of a frame is its timestamp in seconds.
fn read_after_seek(caps: &str, seconds: &[u64]) -> Vec<(u64, bool)> {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::with_source(&channel, "handle-segment-change=true", LOSSLESS);
    writer.pipeline.play();
    let segment = segment(1.0, 5 * SECOND, 8 * SECOND);
    for (number, second) in seconds.iter().enumerate() {
        let mut buffer = gst::Buffer::with_size(64 * 48).unwrap();
        let target = buffer.get_mut().unwrap();
        target.set_pts(gst::ClockTime::from_seconds(*second));
        target.set_duration(gst::ClockTime::MSECOND);
        target.set_offset(*second);
        if number > 0 {
            target.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        writer.push_sample(&buffer, &caps.parse().unwrap(), Some(&segment));
    }
    writer.end();
    reader.pipeline.wait_eos();
    let frames = reader.frames().into_iter();
    let is_hidden = |flags: gst::BufferFlags| flags.contains(gst::BufferFlags::DECODE_ONLY);
    frames.map(|frame| (frame.offset, is_hidden(frame.flags))).collect()
}

/// After an accurate seek, a stream begins with the keyframe before the place that was sought.
#[test]
fn encoded_frames_before_segment_are_decoded_only() {
    let h264 = "video/x-h264,stream-format=byte-stream,alignment=au";
    let frames = read_after_seek(h264, &[3, 4, 5, 6, 7, 9]);
    let shown = [(3, true), (4, true), (5, false), (6, false), (7, false)];
    assert_eq!(frames, shown);
}

#[test]
fn raw_frames_outside_segment_are_not_sent() {
    let frames = read_after_seek(&caps_at(25), &[3, 4, 5, 6, 7, 9]);
    assert_eq!(frames, [(5, false), (6, false), (7, false)]);
}
