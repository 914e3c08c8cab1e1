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
        control(device, "osd_text_mode=2");
        let expected = reference(device, fourcc);
        let channel = Channel::new();
        let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
        let writer = Capture::playing(
            &format!("device={device} io-mode=userptr"),
            &format!("video/x-raw,format={format},{SMALL} ! rsshmsink channel={channel}"),
        );
        reader.wait_for_more(30);
        let stat = |field| writer.pipeline.stat("rsshmsink", field);
        eventually("all are counted", || {
            stat("frames-in-place") + stat("frames-copied") == stat("frames-published")
        });
        assert_eq!(stat("frames-copied"), 0, "{format}");
        for seen in reader.all() {
            assert!(
                seen.bytes == expected,
                "{device} {format}: frame {} differs",
                seen.offset
            );
        }
        control(device, "osd_text_mode=0");
    }
}
