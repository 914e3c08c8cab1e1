// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the commands of the README with a camera.

use std::path::PathBuf;

use rsshm_channel::ChannelName;
use rsshm_testkit::{Channel, Process, eventually, gst::SourceRecorder};

use crate::device::{CAMERA, Capture, LOOPBACK, SMALL, assert_bars, launch, v4l2_ctl};

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

#[test]
#[ignore = "make test-camera"]
fn several_programs_show_camera() {
    let mut writer = launch("v4l2src device=/dev/video0 ! video/x-raw,width=640,height=480 ! rsshmsink name=cam0");
    let readers: Vec<(PathBuf, Process)> = ["first", "second", "third"]
        .map(|name| {
            let file = file(name);
            let reader = launch(&format!(
                "rsshmsrc name=cam0 num-buffers=3 ! videoconvert ! video/x-raw,format=RGB ! filesink location={}",
                file.display()
            ));
            (file, reader)
        })
        .into();
    for (file, mut reader) in readers {
        reader.wait_ok();
        let pictures = std::fs::read(file).unwrap();
        assert_eq!(pictures.len(), 3 * 640 * 480 * 3);
        for picture in pictures.chunks_exact(640 * 480 * 3) {
            // vivid writes text into the rows above the checked row.
            assert_bars(picture, 640, 400, 8);
        }
    }
    assert!(writer.is_running());
    writer.interrupt();
    Channel(ChannelName::new("cam0").unwrap()).assert_removed();
}

#[test]
#[ignore = "make test-camera"]
fn blocked_readers_starve_neither_camera_nor_reader() {
    let channel = Channel::new();
    for mode in ["auto", "mmap", "userptr"] {
        let writer = Capture::playing(
            &format!("device={CAMERA} io-mode={mode}"),
            &format!("video/x-raw,format=YUY2,{SMALL} ! rsshmsink channel={channel}"),
        );
        // One reader holds its frames, like a long queue before a blocked program. Another reader is stopped.
        let holder = SourceRecorder::playing(&format!(
            "rsshmsrc channel={channel} max-held-buffers=64 ! queue max-size-buffers=200 max-size-time=0 max-size-bytes=0 \
             ! identity sleep-time=300000 ! fakesink sync=false"
        ));
        let stopped = launch(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
        eventually("both readers are connected", || writer.pipeline.num_clients() == 2);
        stopped.stop();
        let other = SourceRecorder::of(&channel);
        other.wait_for_frames(1);
        let before = writer.count();
        other.wait_for_frames(60);
        assert!(holder.frame_count() > 30, "{mode}");
        // A busy machine loses single frames. A camera without buffers would lose all frames.
        let sequences: Vec<u64> = writer.all()[before..].iter().map(|frame| frame.sequence).collect();
        let lost = sequences.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(lost < 12, "{mode}: the camera had no buffers: {sequences:?}");
        let missed = other.stat("frames-missed");
        assert!(missed < 12, "{mode}: {missed} frames missed");
        stopped.resume();
    }
}

#[test]
#[ignore = "make test-camera"]
fn jpeg_of_camera_arrives_unchanged() {
    // A camera has exactly these caps. v4l2sink would add more fields.
    let mut player = launch(&format!(
        "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,format=I420,{SMALL} ! jpegenc ! capssetter replace=true \
         caps=image/jpeg,{SMALL},parsed=true,interlace-mode=progressive,colorimetry=2:4:7:1 ! v4l2sink device={LOOPBACK}"
    ));
    eventually("the loopback device has a format", || {
        v4l2_ctl(LOOPBACK, &["--get-fmt-video-out"]).contains("JP")
    });
    let channel = Channel::new();
    let writer = Capture::playing(
        &format!("device={LOOPBACK}"),
        &format!("image/jpeg,width=320,height=180 ! rsshmsink channel={channel}"),
    );
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    let pictures = file("jpeg");
    launch(&format!(
        "rsshmsrc name={channel} num-buffers=2 ! jpegdec ! videoconvert ! video/x-raw,format=RGB ! filesink location={}",
        pictures.display()
    ))
    .wait_ok();
    assert_bars(&std::fs::read(pictures).unwrap(), 320, 60, 7);
    let frames = reader.frames();
    let captured = writer.all();
    for seen in frames {
        let sent = captured.iter().find(|frame| frame.sequence == seen.offset).unwrap();
        assert!(sent.bytes == seen.bytes, "frame {} differs", seen.offset);
        assert_eq!(seen.media_type(), "image/jpeg");
    }
    assert!(player.is_running());
}
