// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks the timestamps of the driver.

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{SourceRecorder, command},
};

use crate::device::{CAMERA, SMALL, control};

/// Parses `0:00:12.345678901` to nanoseconds.
fn nanoseconds(text: &str) -> Option<i64> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, rest) = rest.split_once(':')?;
    let (seconds, fraction) = rest.split_once('.')?;
    let number = |text: &str| text.parse::<i64>().ok();
    let seconds = number(hours)? * 3600 + number(minutes)? * 60 + number(seconds)?;
    Some(seconds * 1_000_000_000 + number(fraction)?)
}

#[test]
#[ignore = "make test-camera"]
fn reader_keeps_timestamps_of_driver() {
    // With this setting, a timestamp is the time at which its frame starts. If a timestamp were the time of the frame's
    // end, v4l2src would distrust the clock, because vivid delivers a frame before its end.
    control(CAMERA, "timestamp_source=1");
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut writer = command("gst-launch-1.0");
    writer
        .args(["-q", "v4l2src", &format!("device={CAMERA}"), "!"])
        .arg(format!("video/x-raw,format=YUY2,{SMALL}"))
        .args(["!", "rsshmsink", &format!("name={channel}")])
        // v4l2src prints when each frame was captured.
        .env("GST_DEBUG", "v4l2src:5")
        .env("GST_DEBUG_NO_COLOR", "1");
    let writer = Process::start(writer);
    reader.wait_for_frames(40);
    let seen = reader.frames();
    let driver_times = || -> Vec<i64> {
        let output = writer.output();
        let times = output.lines().filter_map(|line| line.split_once("> ts: "));
        times
            .filter_map(|(_, text)| nanoseconds(text.split_whitespace().next()?))
            .collect()
    };
    eventually("the times of the driver are printed", || {
        driver_times().len() >= seen.len()
    });
    let driver_times = driver_times();
    let base_time = reader.pipeline.base_time().unwrap();
    let mut errors: Vec<i64> = seen
        .iter()
        .map(|frame| (base_time + frame.pts.unwrap()).nseconds() as i64)
        .map(|time| driver_times.iter().map(|driver| (time - driver).abs()).min().unwrap())
        .collect();
    errors.sort_unstable();
    // v4l2src reads two clocks, one after the other, and may be interrupted in between.
    assert!(
        errors[errors.len() / 2] < 1_000_000,
        "the median error is too large: {errors:?} ns"
    );
    assert!(errors[errors.len() * 9 / 10] < 15_000_000, "{errors:?} ns");
}
