// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames that are never copied. With `io-mode=userptr`, the driver writes into the segment.

use rsshm_testkit::{Channel, eventually, gst::SourceRecorder};

use crate::device::{CAMERA, Capture, MULTIPLANAR, SMALL, control, v4l2_ctl};

/// A frame that the driver delivers without GStreamer. All frames are equal, because the picture does not move.
fn reference(device: &str, fourcc: &str) -> Vec<u8> {
    let file = std::env::temp_dir().join("reference");
    let format = format!("--set-fmt-video=width=320,height=180,pixelformat={fourcc}");
    let stream = [
        "--stream-mmap",
        "--stream-count=1",
        &format!("--stream-to={}", file.display()),
    ];
    v4l2_ctl(device, &[&format]);
    v4l2_ctl(device, &stream);
    std::fs::read(file).unwrap()
}

/// Captures thirty frames with `io-mode=userptr` and compares them with a frame of the driver. Returns the number of
/// frames that were published in place, and the number of copied frames.
#[track_caller]
fn count_copies(device: &str, format: &str, fourcc: &str, sink: &str) -> (u64, u64) {
    control(device, "osd_text_mode=2");
    let expected = reference(device, fourcc);
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Capture::playing(
        &format!("device={device} io-mode=userptr"),
        &format!("video/x-raw,format={format},{SMALL} ! rsshmsink channel={channel} {sink}"),
    );
    reader.wait_for_frames(30);
    let stat = |field| writer.pipeline.stat("rsshmsink", field);
    eventually("all frames are counted", || {
        stat("frames-in-place") + stat("frames-copied") == stat("frames-published")
    });
    for seen in reader.frames() {
        assert!(
            seen.bytes == expected,
            "{device} {format}: frame {} differs",
            seen.offset
        );
    }
    control(device, "osd_text_mode=0");
    (stat("frames-in-place"), stat("frames-copied"))
}

#[test]
#[ignore = "make test-camera"]
fn driver_writes_into_segment() {
    for (device, format, fourcc) in [
        (CAMERA, "YUY2", "YUYV"),
        (CAMERA, "NV12", "NV12"),
        (CAMERA, "I420", "YU12"),
        (CAMERA, "BGRx", "XR24"),
        (CAMERA, "RGB", "RGB3"),
        (MULTIPLANAR, "YUY2", "YUYV"),
    ] {
        let (in_place, copied) = count_copies(device, format, fourcc, "");
        assert!(in_place >= 30 && copied == 0, "{format}: {copied} copied");
    }
}

#[test]
#[ignore = "make test-camera"]
fn driver_gets_other_memory_if_slots_are_few() {
    let (_, copied) = count_copies(CAMERA, "YUY2", "YUYV", "max-slots=3");
    assert!(copied > 0, "no frame was copied");
}
