// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera that fails, disappears, loses frames or delivers corrupted frames.

use std::{fs::File, path::Path};

use gst::prelude::*;
use rsshm_testkit::{Channel, Process, eventually, gst::SourceRecorder};

use crate::device::{CAMERA, Capture, SMALL, control, launch};

fn writer(channel: &Channel) -> Process {
    launch(&format!(
        "v4l2src device={CAMERA} ! video/x-raw,format=YUY2,{SMALL} ! rsshmsink name={channel}"
    ))
}

fn reader(channel: &Channel) -> SourceRecorder {
    SourceRecorder::of(channel)
}

/// Makes the camera fail while a writer captures. The writer must end with an error. The reader must continue with the
/// next writer when the camera has been repaired.
#[track_caller]
fn assert_reader_survives(fail: impl FnOnce(), repair: impl FnOnce()) {
    let channel = Channel::new();
    let reader = reader(&channel);
    let mut first = writer(&channel);
    reader.wait_for_frames(3);
    fail();
    let output = first.wait_error();
    assert!(
        output.contains("ERROR: from element") && output.contains("GstV4l2Src"),
        "{output}"
    );
    channel.assert_removed();
    eventually("the reader is disconnected", || !reader.is_connected());
    let before = reader.frame_count();
    repair();
    let mut second = writer(&channel);
    reader.wait_for_frames(3);
    assert!(reader.frames()[before].is_discont());
    let errors = reader.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
    assert!(errors.is_none(), "{errors:?}");
    second.interrupt();
}

fn driver(action: &str) {
    std::fs::write(format!("/sys/bus/platform/drivers/vivid/{action}"), "vivid.0").unwrap();
}

#[test]
#[ignore = "make test-camera"]
fn reader_survives_failing_device() {
    assert_reader_survives(|| control(CAMERA, "inject_fatal_streaming_error=1"), || ());
}

#[test]
#[ignore = "make test-camera"]
fn reader_survives_disconnected_device() {
    // The driver connects the device again when the last user of the device closes it. This file is the last user,
    // because it is closed after the writer's file.
    let user = File::open(CAMERA).unwrap();
    assert_reader_survives(|| control(CAMERA, "disconnect=1"), || drop(user));
}

#[test]
#[ignore = "make test-camera"]
fn reader_survives_unplugged_device() {
    assert_reader_survives(
        || {
            driver("unbind");
            eventually("the device is gone", || !Path::new(CAMERA).exists());
        },
        || {
            driver("bind");
            eventually("the device is back", || Path::new(CAMERA).exists());
        },
    );
}

#[test]
#[ignore = "make test-camera"]
fn device_that_cannot_start_leaves_no_file() {
    let channel = Channel::new();
    control(CAMERA, "inject_vidioc_streamon_error=1");
    let output = writer(&channel).wait_error();
    assert!(output.contains("GstV4l2Src"), "{output}");
    channel.assert_removed();
}

#[test]
#[ignore = "make test-camera"]
fn reader_sees_lost_and_corrupted_frames() {
    let channel = Channel::new();
    let reader = reader(&channel);
    let writer = Capture::playing(
        &format!("device={CAMERA}"),
        &format!("video/x-raw,format=YUY2,{SMALL} ! rsshmsink channel={channel}"),
    );
    reader.wait_for_frames(3);
    // The emulated machine may have missed frames while the elements started.
    let missed_before = reader.stat("frames-missed");
    reader.clear();
    control(CAMERA, "percentage_of_dropped_buffers=40");
    reader.wait_for_frames(15);
    control(CAMERA, "percentage_of_dropped_buffers=0");
    control(CAMERA, "inject_v4l2_buf_flag_error=1");
    let is_corrupted = |flags: gst::BufferFlags| flags.contains(gst::BufferFlags::CORRUPTED);
    eventually("a frame is marked as corrupted", || {
        reader.frames().iter().any(|frame| is_corrupted(frame.flags))
    });
    reader.wait_for_frames(3);
    let seen: Vec<(u64, bool)> = reader
        .frames()
        .iter()
        .map(|frame| (frame.offset, is_corrupted(frame.flags)))
        .collect();
    let sent: Vec<(u64, bool)> = writer
        .all()
        .iter()
        .map(|frame| (frame.sequence, frame.corrupted))
        .collect();
    // The recording of the reader begins later, and may not have the newest frame yet.
    let first = sent.iter().position(|frame| *frame == seen[0]).unwrap();
    let stats = reader
        .pipeline
        .by_factory("rsshmsrc")
        .property::<gst::Structure>("channel-stats");
    assert_eq!(sent[first..first + seen.len()], seen, "{stats:?}");
    assert_eq!(seen.iter().filter(|(_, corrupted)| *corrupted).count(), 1);
    let gaps = seen.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1).count();
    assert!(gaps > 2, "{seen:?}");
    // The channel itself has lost no frame.
    assert_eq!(reader.stat("frames-missed"), missed_before);
}
