//! Every format that a camera may deliver.

use gst::prelude::*;
use gst_video::VideoInfo;

use crate::{
    common::{Channel, Pipeline, Tap, eventually},
    device::{CAMERA, Capture, MULTIPLANAR, SMALL},
};

/// Of these v4l2src drops every frame, whichever element comes after it: vivid says that they are a little larger than they
/// are.
const BROKEN: [(&str, &str); 2] = [(MULTIPLANAR, "NV16"), (MULTIPLANAR, "NV61")];

/// The caps that a camera has at one size.
fn caps_of(device: &str) -> gst::Caps {
    let pipeline = Pipeline::new(&format!("v4l2src name=camera device={device} ! fakesink"));
    pipeline.0.set_state(gst::State::Ready).unwrap();
    let caps = pipeline.element("camera").static_pad("src").unwrap().query_caps(None);
    caps.intersect(
        &format!("video/x-raw,{SMALL};video/x-bayer,{SMALL}")
            .parse::<gst::Caps>()
            .unwrap(),
    )
}

#[test]
#[ignore = "make test-camera"]
fn every_format_of_a_camera_arrives_byte_for_byte() {
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
            let channel = Channel::new();
            let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
            let writer = Capture::playing(
                &format!("device={device}"),
                &format!("{media},format=(string){format},{SMALL} ! rsshmsink channel={channel}"),
            );
            eventually("two frames", || {
                writer.assert_well();
                reader.count() >= 2
            });
            let frames = reader.all();
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
                    let size = VideoInfo::from_caps(&seen.caps).unwrap().size();
                    assert_eq!(seen.bytes.len(), size, "{device} {format}");
                }
            }
            formats.push(format);
        }
    }
    // Some of what webcams, capture cards and cameras on a ribbon cable have.
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
