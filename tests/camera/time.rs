//! The driver's clock.

use gst::prelude::*;

use crate::{
    common::{Channel, Process, Tap, command, eventually},
    device::{CAMERA, SMALL, control},
};

/// `0:00:12.345678901` as nanoseconds.
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
fn time_stamps_are_the_driver_s_in_the_reader_s_pipeline_too() {
    // The beginning of a frame. vivid delivers frames before their end, which v4l2src takes for a broken clock.
    control(CAMERA, "timestamp_source=1");
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut writer = command("gst-launch-1.0");
    writer
        .args(["-q", "v4l2src", &format!("device={CAMERA}"), "!"])
        .arg(format!("video/x-raw,format=YUY2,{SMALL}"))
        .args(["!", "rsshmsink", &format!("name={channel}")])
        // It says when each frame was captured.
        .env("GST_DEBUG", "v4l2src:5")
        .env("GST_DEBUG_NO_COLOR", "1");
    let writer = Process::start(writer);
    reader.wait_for_more(40);
    let seen = reader.all();
    let driver_times = || -> Vec<i64> {
        let output = writer.output();
        let times = output.lines().filter_map(|line| line.split_once("> ts: "));
        times
            .filter_map(|(_, text)| nanoseconds(text.split_whitespace().next()?))
            .collect()
    };
    eventually("the driver's times are written", || driver_times().len() >= seen.len());
    let driver_times = driver_times();
    let base_time = reader.pipeline.0.base_time().unwrap();
    let mut off: Vec<i64> = seen
        .iter()
        .map(|frame| (base_time + frame.pts.unwrap()).nseconds() as i64)
        .map(|time| driver_times.iter().map(|driver| (time - driver).abs()).min().unwrap())
        .collect();
    off.sort_unstable();
    // v4l2src looks at two clocks, one after the other, and may be interrupted in between.
    assert!(
        off[off.len() / 2] < 1_000_000,
        "half of them are off by more than that: {off:?} ns"
    );
    assert!(off[off.len() * 9 / 10] < 15_000_000, "{off:?} ns");
}
