//! Whatever segment a writer's stream has, readers get its running time.

mod common;

use common::{Channel, Pipeline, Tap, eventually};
use gst::prelude::*;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;

/// A frame: PTS and duration in its stream.
type Frame = (i64, i64);

fn segment(rate: f64, start: i64, stop: i64) -> gst::FormattedSegment<gst::ClockTime> {
    common::init();
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

/// Begin and length of two frames of such a segment, in the writer's running time, as a reader has them.
fn read(segment: &gst::FormattedSegment<gst::ClockTime>, frames: [Frame; 2]) -> Vec<Frame> {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    // Frames from before the reader's time would have none.
    eventually("the reader's time", || {
        let running = reader.pipeline.0.current_running_time();
        running.is_some_and(|running| running > 100 * gst::ClockTime::MSECOND)
    });
    // Live: what waits for its first reader must not become later by that.
    let writer = Pipeline::playing(&format!(
        "appsrc name=film is-live=true format=time handle-segment-change=true ! rsshmsink channel={channel} \
         wait-for-connection=true"
    ));
    let film = writer.element("film");
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "GRAY8")
        .field("width", 64)
        .field("height", 48)
        .field("framerate", gst::Fraction::new(25, 1))
        .build();
    for (pts, duration) in frames {
        let mut buffer = gst::Buffer::with_size(64 * 48).unwrap();
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(time(pts));
            buffer.set_duration(time(duration));
        }
        let sample = gst::Sample::builder()
            .buffer(&buffer)
            .caps(&caps)
            .segment(segment)
            .build();
        let flow: gst::FlowReturn = film.emit_by_name("push-sample", &[&sample]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    }
    eventually("both frames", || reader.count() == 2);
    let base_time = |pipeline: &Pipeline| pipeline.0.base_time().unwrap().nseconds() as i64;
    let origin = base_time(&writer) - base_time(&reader.pipeline);
    let frames = reader.all().into_iter();
    frames
        .map(|frame| {
            let (pts, duration) = (frame.pts.unwrap(), frame.duration.unwrap());
            (pts.nseconds() as i64 - origin, duration.nseconds() as i64)
        })
        .collect()
}

#[test]
fn a_segment_may_start_anywhere() {
    let segment = segment(1.0, 100 * SECOND, 200 * SECOND);
    let frames = read(&segment, [(100 * SECOND, 40 * MS), (101 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(0, 40 * MS), (SECOND, 40 * MS)]);
}

#[test]
fn a_segment_may_have_a_base() {
    let mut segment = segment(1.0, 5 * SECOND, 200 * SECOND);
    segment.set_base(time(3 * SECOND));
    let frames = read(&segment, [(5 * SECOND, 40 * MS), (6 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(3 * SECOND, 40 * MS), (4 * SECOND, 40 * MS)]);
}

#[test]
fn a_segment_may_have_an_offset() {
    let mut segment = segment(1.0, 5 * SECOND, 200 * SECOND);
    segment.set_offset(time(2 * SECOND));
    let frames = read(&segment, [(7 * SECOND, 40 * MS), (8 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(0, 40 * MS), (SECOND, 40 * MS)]);
}

#[test]
fn a_frame_may_begin_before_its_segment() {
    let segment = segment(1.0, 100 * SECOND, 200 * SECOND);
    let frames = read(
        &segment,
        [(100 * SECOND - 30 * MS, 40 * MS), (101 * SECOND - 30 * MS, 40 * MS)],
    );
    assert_eq!(frames, [(-30 * MS, 40 * MS), (SECOND - 30 * MS, 40 * MS)]);
}

#[test]
fn what_is_played_at_twice_its_speed_takes_half_the_time() {
    let segment = segment(2.0, 0, 200 * SECOND);
    let frames = read(&segment, [(SECOND, 40 * MS), (3 * SECOND, 40 * MS)]);
    assert_eq!(frames, [(500 * MS, 20 * MS), (1500 * MS, 20 * MS)]);
}

#[test]
fn what_is_played_backwards_begins_with_its_end() {
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
