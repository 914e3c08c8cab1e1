//! The README's own commands, with a camera.

use std::path::PathBuf;

use gst::prelude::*;
use nix::sys::signal::Signal;

use crate::{
    common::{Channel, Process, Tap, eventually},
    device::{CAMERA, Capture, LOOPBACK, SMALL, assert_bars, capture, v4l2_ctl},
};

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

#[test]
#[ignore = "make test-camera"]
fn the_readme_s_commands_show_the_camera_to_several_programs() {
    let mut writer = capture("v4l2src device=/dev/video0 ! video/x-raw,width=640,height=480 ! rsshmsink name=cam0");
    let readers: Vec<(PathBuf, Process)> = ["first", "second", "third"]
        .map(|name| {
            let file = file(name);
            let reader = capture(&format!(
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
            // Above, vivid writes its text.
            assert_bars(picture, 640, 400, 8);
        }
    }
    assert!(writer.is_running());
    writer.interrupt();
    Channel("cam0".to_owned()).assert_gone();
}

#[test]
#[ignore = "make test-camera"]
fn a_reader_that_takes_nothing_starves_neither_the_camera_nor_others() {
    let channel = Channel::new();
    for mode in ["auto", "mmap", "userptr"] {
        let writer = Capture::playing(
            &format!("device={CAMERA} io-mode={mode}"),
            &format!("video/x-raw,format=YUY2,{SMALL} ! rsshmsink channel={channel}"),
        );
        // One that keeps what it has for ever, as a long queue before a stuck program does, and one that is stopped.
        let holder = Tap::playing(&format!(
            "rsshmsrc channel={channel} max-held-buffers=64 ! queue max-size-buffers=200 max-size-time=0 max-size-bytes=0 \
             ! identity sleep-time=300000 ! fakesink sync=false"
        ));
        let stopped = capture(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
        eventually("both are there", || {
            writer.pipeline.by_factory("rsshmsink").property::<u32>("num-clients") == 2
        });
        stopped.signal(Signal::SIGSTOP);
        let well = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
        well.wait_for_more(1);
        let before = writer.count();
        well.wait_for_more(60);
        assert!(holder.count() > 30, "{mode}");
        // The machine may be busy, and lose a frame or two: starved, the camera would lose all.
        let sequences: Vec<u64> = writer.all()[before..].iter().map(|frame| frame.sequence).collect();
        let lost = sequences.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(lost < 12, "{mode}: the camera had no buffer: {sequences:?}");
        let missed = well.pipeline.stat("rsshmsrc", "frames-missed");
        assert!(missed < 12, "{mode}: {missed} frames missed");
        stopped.signal(Signal::SIGCONT);
    }
}

#[test]
#[ignore = "make test-camera"]
fn jpeg_of_a_camera_arrives_as_it_is() {
    // Not parsed again by v4l2sink's caps: a camera says no more than this.
    let mut player = capture(&format!(
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
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(10);
    let pictures = file("jpeg");
    capture(&format!(
        "rsshmsrc name={channel} num-buffers=2 ! jpegdec ! videoconvert ! video/x-raw,format=RGB ! filesink location={}",
        pictures.display()
    ))
    .wait_ok();
    assert_bars(&std::fs::read(pictures).unwrap(), 320, 60, 7);
    let frames = reader.all();
    let captured = writer.all();
    for seen in frames {
        let sent = captured.iter().find(|frame| frame.sequence == seen.offset).unwrap();
        assert!(sent.bytes == seen.bytes, "frame {} differs", seen.offset);
        assert_eq!(seen.caps.structure(0).unwrap().name(), "image/jpeg");
    }
    assert!(player.is_running());
}
