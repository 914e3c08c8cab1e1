//! A camera that fails, goes away, loses frames and spoils some.

use std::{fs::File, path::Path};

use gst::prelude::*;

use crate::{
    common::{Channel, Process, Tap, eventually},
    device::{CAMERA, Capture, SMALL, capture, control},
};

fn writer(channel: &Channel) -> Process {
    capture(&format!(
        "v4l2src device={CAMERA} ! video/x-raw,format=YUY2,{SMALL} ! rsshmsink name={channel}"
    ))
}

fn reader(channel: &Channel) -> Tap {
    Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"))
}

/// Breaks the camera while it is captured, and puts it right again.
#[track_caller]
fn writer_fails_and_reader_goes_on(break_it: impl FnOnce(), put_right: impl FnOnce()) {
    let channel = Channel::new();
    let reader = reader(&channel);
    let mut first = writer(&channel);
    reader.wait_for_more(3);
    break_it();
    let said = first.wait_error();
    assert!(
        said.contains("ERROR: from element") && said.contains("GstV4l2Src"),
        "{said}"
    );
    channel.assert_gone();
    let source = reader.pipeline.by_factory("rsshmsrc");
    eventually("the reader waits", || !source.property::<bool>("connected"));
    let before = reader.count();
    put_right();
    let mut second = writer(&channel);
    reader.wait_for_more(3);
    assert!(reader.all()[before].is_discont());
    let errors = reader
        .pipeline
        .0
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Error]);
    assert!(errors.is_none(), "{errors:?}");
    second.interrupt();
}

fn driver(action: &str) {
    std::fs::write(format!("/sys/bus/platform/drivers/vivid/{action}"), "vivid.0").unwrap();
}

#[test]
#[ignore = "make test-camera"]
fn a_device_that_fails_ends_the_writer_and_readers_go_on_with_the_next() {
    writer_fails_and_reader_goes_on(|| control(CAMERA, "inject_fatal_streaming_error=1"), || ());
}

#[test]
#[ignore = "make test-camera"]
fn a_device_that_is_disconnected_ends_the_writer_and_readers_go_on_with_the_next() {
    // It comes back when its last user leaves. Of two that leave at the same time neither is: this is the one.
    let user = File::open(CAMERA).unwrap();
    writer_fails_and_reader_goes_on(|| control(CAMERA, "disconnect=1"), || drop(user));
}

#[test]
#[ignore = "make test-camera"]
fn a_device_that_is_unplugged_ends_the_writer_and_readers_go_on_with_the_next() {
    writer_fails_and_reader_goes_on(
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
fn a_device_that_cannot_start_leaves_nothing_behind() {
    let channel = Channel::new();
    control(CAMERA, "inject_vidioc_streamon_error=1");
    let said = writer(&channel).wait_error();
    assert!(said.contains("GstV4l2Src"), "{said}");
    channel.assert_gone();
}

#[test]
#[ignore = "make test-camera"]
fn frames_that_the_driver_lost_or_spoilt_are_known_to_readers() {
    let channel = Channel::new();
    let reader = reader(&channel);
    let writer = Capture::playing(
        &format!("device={CAMERA}"),
        &format!("video/x-raw,format=YUY2,{SMALL} ! rsshmsink channel={channel}"),
    );
    reader.wait_for_more(3);
    control(CAMERA, "percentage_of_dropped_buffers=40");
    reader.wait_for_more(15);
    control(CAMERA, "percentage_of_dropped_buffers=0");
    control(CAMERA, "inject_v4l2_buf_flag_error=1");
    let is_corrupted = |flags: gst::BufferFlags| flags.contains(gst::BufferFlags::CORRUPTED);
    eventually("a frame is marked as corrupted", || {
        reader.all().iter().any(|frame| is_corrupted(frame.flags))
    });
    reader.wait_for_more(3);
    let seen: Vec<(u64, bool)> = reader
        .all()
        .iter()
        .map(|frame| (frame.offset, is_corrupted(frame.flags)))
        .collect();
    let sent: Vec<(u64, bool)> = writer
        .all()
        .iter()
        .map(|frame| (frame.sequence, frame.corrupted))
        .collect();
    // The reader may have come after the first frame, and has not got the newest perhaps.
    let first = sent.iter().position(|frame| *frame == seen[0]).unwrap();
    let stats = reader
        .pipeline
        .by_factory("rsshmsrc")
        .property::<gst::Structure>("channel-stats");
    assert_eq!(sent[first..first + seen.len()], seen, "{stats:?}");
    assert_eq!(seen.iter().filter(|(_, corrupted)| *corrupted).count(), 1);
    let gaps = seen.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1).count();
    assert!(gaps > 2, "{seen:?}");
    // None of them is the channel's.
    assert_eq!(reader.pipeline.stat("rsshmsrc", "frames-missed"), 0);
}
