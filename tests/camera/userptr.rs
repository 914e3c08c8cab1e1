//! No copy at all: with `io-mode=userptr` the driver writes into shared memory.

use crate::{
    common::{Channel, Tap, eventually},
    device::{CAMERA, Capture, MULTIPLANAR, SMALL, control, v4l2_ctl},
};

/// What the driver writes when nothing of GStreamer's is there. The picture stands still, so any frame will do.
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

/// Captures thirty frames with `io-mode=userptr`, which must be what the driver writes; yields how many of all were in place
/// and copied.
#[track_caller]
fn capture(device: &str, format: &str, fourcc: &str, sink: &str) -> (u64, u64) {
    control(device, "osd_text_mode=2");
    let expected = reference(device, fourcc);
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = Capture::playing(
        &format!("device={device} io-mode=userptr"),
        &format!("video/x-raw,format={format},{SMALL} ! rsshmsink channel={channel} {sink}"),
    );
    reader.wait_for_more(30);
    let stat = |field| writer.pipeline.stat("rsshmsink", field);
    eventually("all are counted", || {
        stat("frames-in-place") + stat("frames-copied") == stat("frames-published")
    });
    for seen in reader.all() {
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
fn the_driver_fills_shared_memory_itself() {
    for (device, format, fourcc) in [
        (CAMERA, "YUY2", "YUYV"),
        (CAMERA, "NV12", "NV12"),
        (CAMERA, "I420", "YU12"),
        (CAMERA, "BGRx", "XR24"),
        (CAMERA, "RGB", "RGB3"),
        (MULTIPLANAR, "YUY2", "YUYV"),
    ] {
        let (in_place, copied) = capture(device, format, fourcc, "");
        assert!(in_place >= 30 && copied == 0, "{format}: {copied} copied");
    }
}

#[test]
#[ignore = "make test-camera"]
fn the_driver_gets_other_memory_where_there_are_too_few_slots() {
    let (_, copied) = capture(CAMERA, "YUY2", "YUYV", "max-slots=3");
    assert!(copied > 0, "three slots were enough");
}
