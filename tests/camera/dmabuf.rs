// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames by descriptor: a camera exports its buffers as dmabufs, and an output device imports the same buffers.

use rsshm_testkit::{Channel, eventually, gst::SourceRecorder};

use crate::device::{CAMERA, Capture, OUTPUT, SMALL, control, launch};

#[test]
#[ignore = "make test-camera"]
fn output_device_imports_buffers_of_camera() {
    // The output device takes only this colour space.
    control(CAMERA, "colorspace=1");
    let channel = Channel::new();
    let writer = Capture::playing(
        &format!("device={CAMERA} io-mode=dmabuf"),
        &format!("video/x-raw,format=YUY2,{SMALL} ! rsshmsink channel={channel} descriptors=always"),
    );
    let reader = SourceRecorder::of(&channel);
    launch(&format!(
        "rsshmsrc name={channel} num-buffers=60 ! v4l2sink device={OUTPUT} io-mode=dmabuf-import sync=false"
    ))
    .wait_ok();
    reader.wait_for_frames(30);
    let frames = reader.frames();
    // The writer has captured each frame before the reader gets it.
    let captured = writer.all();
    for seen in frames {
        let sent = captured.iter().find(|frame| frame.sequence == seen.offset);
        let sent = sent.unwrap_or_else(|| panic!("frame {} was not captured", seen.offset));
        assert!(sent.bytes == seen.bytes, "frame {} differs", seen.offset);
    }
    let stat = |field| writer.pipeline.stat("rsshmsink", field);
    eventually("all frames are counted", || {
        stat("frames-by-descriptor") == stat("frames-published")
    });
    assert_eq!((stat("frames-copied"), stat("frames-in-place")), (0, 0));
    writer.assert_no_error();
    control(CAMERA, "colorspace=2");
}
