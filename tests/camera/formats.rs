// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks every format of the cameras.

use gst::prelude::*;
use gst_video::VideoInfo;
use rsshm_testkit::{
    Channel, eventually,
    gst::{Pipeline, SourceRecorder},
};

use crate::device::{CAMERA, Capture, MULTIPLANAR, SMALL};

/// Formats that do not work. v4l2src drops each of their frames, whatever element follows it, because vivid reports a
/// size that is a little too large.
const BROKEN: [(&str, &str); 2] = [(MULTIPLANAR, "NV16"), (MULTIPLANAR, "NV61")];

/// The caps of a camera at one size.
fn caps_of(device: &str) -> gst::Caps {
    let pipeline = Pipeline::new(&format!("v4l2src name=camera device={device} ! fakesink"));
    pipeline.set_state(gst::State::Ready).unwrap();
    let caps = pipeline.element("camera").static_pad("src").unwrap().query_caps(None);
    caps.intersect(
        &format!("video/x-raw,{SMALL};video/x-bayer,{SMALL}")
            .parse::<gst::Caps>()
            .unwrap(),
    )
}

/// Captures two frames of a format and checks that their bytes arrive unchanged.
#[track_caller]
fn assert_arrives_unchanged(device: &str, media: &str, format: &str) {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Capture::playing(
        &format!("device={device}"),
        &format!("{media},format=(string){format},{SMALL} ! rsshmsink channel={channel}"),
    );
    eventually("two frames arrive", || {
        writer.assert_no_error();
        reader.frame_count() >= 2
    });
    let frames = reader.frames();
    let captured = writer.all();
    for seen in frames {
        let sent = captured.iter().find(|frame| frame.sequence == seen.offset);
        let sent = sent.unwrap_or_else(|| panic!("{device} {format}: frame {} was not sent", seen.offset));
        assert!(
            sent.bytes == seen.bytes,
            "{device} {format}: frame {} differs",
            seen.offset
        );
        assert_eq!(seen.format(), format);
        if media == "video/x-raw" {
            let size = VideoInfo::from_caps(seen.caps()).unwrap().size();
            assert_eq!(seen.bytes.len(), size, "{device} {format}");
        }
    }
}

#[test]
#[ignore = "make test-camera"]
fn every_format_arrives_unchanged() {
    let mut formats = Vec::new();
    for device in [CAMERA, MULTIPLANAR] {
        for structure in caps_of(device).iter() {
            let media = structure.name();
            let format: String = match structure.value("format").unwrap().get() {
                Ok(format) => format,
                Err(_) => panic!("more than one format: {structure}"),
            };
            println!("{device} {format}");
            if BROKEN.contains(&(device, format.as_str())) {
                continue;
            }
            assert_arrives_unchanged(device, media, &format);
            formats.push(format);
        }
    }
    // These are the formats of webcams, capture cards and ribbon cable cameras.
    for format in [
        "YUY2",
        "UYVY",
        "NV12",
        "I420",
        "BGRx",
        "RGB",
        "GRAY8",
        "GRAY16_LE",
        "bggr",
    ] {
        assert!(
            formats.iter().any(|it| it == format),
            "{format} is not among {formats:?}"
        );
    }
    println!("{} formats: {formats:?}", formats.len());
}
