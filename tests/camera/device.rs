//! The cameras of the machine, and a pipeline that captures from one.

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use gst::prelude::*;

use crate::common::{Pipeline, Process, command};

/// A camera of vivid's.
pub const CAMERA: &str = "/dev/video0";
/// One whose frames lie in several pieces of memory, where the format has several planes.
pub const MULTIPLANAR: &str = "/dev/video1";
/// Plays what is written to it.
pub const LOOPBACK: &str = "/dev/video10";

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

/// Sets one of vivid's controls.
#[track_caller]
pub fn control(device: &str, setting: &str) {
    v4l2_ctl(device, &["-c", setting]);
}

/// Starts a program that captures with `gst-launch-1.0 PIPELINE`; the words are those that a user types.
#[track_caller]
pub fn capture(pipeline: &str) -> Process {
    let mut command = command("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    // An element of GStreamer's that warns at a fault is not what is tested.
    command.env_remove("G_DEBUG");
    Process::start(command)
}

/// A frame as it left the camera's element.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The driver's count.
    pub sequence: u64,
    pub corrupted: bool,
    pub bytes: Vec<u8>,
}

/// A pipeline in this process that captures, and notes what its camera delivers.
pub struct Capture {
    pub pipeline: Pipeline,
    captured: Arc<Mutex<Vec<Captured>>>,
}

impl Capture {
    /// Plays `v4l2src SETTINGS ! CAPS ! rsshmsink ...`
    #[track_caller]
    pub fn playing(source: &str, sink: &str) -> Self {
        let pipeline = Pipeline::new(&format!("v4l2src name=camera {source} ! {sink}"));
        let captured = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&captured);
        let pad = pipeline.element("camera").static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().unwrap();
            to.lock().unwrap().push(Captured {
                sequence: buffer.offset(),
                corrupted: buffer.flags().contains(gst::BufferFlags::CORRUPTED),
                bytes: buffer.map_readable().unwrap().to_vec(),
            });
            gst::PadProbeReturn::Ok
        });
        pipeline.0.set_state(gst::State::Playing).unwrap();
        Self { pipeline, captured }
    }

    /// Panics with the pipeline's error, if it has one.
    #[track_caller]
    pub fn assert_well(&self) {
        let message = self.pipeline.0.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
            panic!("{} ({:?})", error.error(), error.debug());
        }
    }

    pub fn all(&self) -> Vec<Captured> {
        self.captured.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.captured.lock().unwrap().len()
    }
}

/// The eight bars of vivid's picture, as R, G and B; the first seven of them are those of videotestsrc's `smpte75`.
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

/// Whether an RGB picture shows the first `count` bars in `row`, and nothing else.
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
