// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cameras of the virtual machine, and a pipeline that captures frames from one of them.

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use rsshm_testkit::{
    Process,
    gst::{Pipeline, command},
};

/// A camera of the driver vivid.
pub const CAMERA: &str = "/dev/video0";
/// A camera of vivid that puts each plane of a frame into its own buffer.
pub const MULTIPLANAR: &str = "/dev/video1";
/// An output device of vivid, which takes frames and can import dmabufs.
pub const OUTPUT: &str = "/dev/video20";
/// A device of v4l2loopback, which delivers the frames that are written to it.
pub const LOOPBACK: &str = "/dev/video10";

/// The size and the frame rate of most tests.
pub const SMALL: &str = "width=320,height=180,framerate=30/1";

/// Runs v4l2-ctl on a device.
#[track_caller]
pub fn v4l2_ctl(device: &str, arguments: &[&str]) -> String {
    let output = Command::new("v4l2-ctl")
        .arg("-d")
        .arg(device)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "v4l2-ctl {arguments:?}: {text}");
    text
}

/// Sets a control of vivid.
#[track_caller]
pub fn control(device: &str, setting: &str) {
    v4l2_ctl(device, &["-c", setting]);
}

/// Starts `gst-launch-1.0 PIPELINE`, in which warnings are not fatal.
#[track_caller]
pub fn launch(pipeline: &str) -> Process {
    let mut command = command("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    // These tests do not check the warnings of GStreamer's elements about faults.
    command.env_remove("G_DEBUG");
    Process::start(command)
}

/// A frame as it left the camera's element.
#[derive(Clone, Debug)]
pub struct CapturedFrame {
    /// The driver's sequence number.
    pub sequence: u64,
    pub corrupted: bool,
    pub bytes: Vec<u8>,
}

/// A pipeline in this process that captures. It records the frames that its camera delivers.
pub struct Capture {
    pub pipeline: Pipeline,
    captured: Arc<Mutex<Vec<CapturedFrame>>>,
}

impl Capture {
    /// Plays `v4l2src SETTINGS ! CAPS ! rsshmsink ...`.
    #[track_caller]
    pub fn playing(source: &str, sink: &str) -> Self {
        let pipeline = Pipeline::new(&format!("v4l2src name=camera {source} ! {sink}"));
        let captured = Arc::new(Mutex::new(Vec::new()));
        let in_probe = Arc::clone(&captured);
        let pad = pipeline.pad("v4l2src", "src");
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().unwrap();
            in_probe.lock().unwrap().push(CapturedFrame {
                sequence: buffer.offset(),
                corrupted: buffer.flags().contains(gst::BufferFlags::CORRUPTED),
                bytes: buffer.map_readable().unwrap().to_vec(),
            });
            gst::PadProbeReturn::Ok
        });
        pipeline.play();
        Self { pipeline, captured }
    }

    /// Checks that the pipeline has posted no error.
    #[track_caller]
    pub fn assert_no_error(&self) {
        let message = self.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
            panic!("{} ({:?})", error.error(), error.debug());
        }
    }

    pub fn all(&self) -> Vec<CapturedFrame> {
        self.captured.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.captured.lock().unwrap().len()
    }
}

/// The eight bars of vivid's picture. The first seven are those of videotestsrc's pattern `smpte75`.
pub const BARS: [[u8; 3]; 8] = [
    [191, 191, 191],
    [191, 191, 0],
    [0, 191, 191],
    [0, 191, 0],
    [191, 0, 191],
    [191, 0, 0],
    [0, 0, 191],
    [0, 0, 0],
];

/// Checks that a row of an RGB picture consists of the first `count` bars.
#[track_caller]
pub fn assert_bars(picture: &[u8], width: usize, row: usize, count: usize) {
    for (bar, expected) in BARS[..count].iter().enumerate() {
        let at = (row * width + (2 * bar + 1) * width / (2 * count)) * 3;
        let seen = &picture[at..at + 3];
        assert!(
            seen.iter()
                .zip(expected)
                .all(|(seen, expected)| seen.abs_diff(*expected) < 24),
            "bar {bar} is {seen:?}, not {expected:?}"
        );
    }
}
