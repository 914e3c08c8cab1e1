// SPDX-License-Identifier: MIT OR Apache-2.0

//! Muxers, payloaders, encoders and parsers through a channel: a few rows of `make compatibility`.

use std::path::Path;

use gst::prelude::*;
use rsshm_testkit::{
    compatibility::{Case, check},
    gst::init,
};

/// Live H.264 of small pictures.
const H264: &str = "{video:320x240@15/1} ! videoconvert ! x264enc";

/// The heading and the element of a row, the writer, and the elements of the reader.
const ROWS: [(&str, &str, &str, &str); 14] = [
    (
        "Raw video",
        "NV12",
        "{video:65x49@15/1} ! videoconvert ! video/x-raw,format=NV12",
        "",
    ),
    (
        "Raw audio",
        "S16LE non-interleaved",
        "{audio} ! audioconvert ! audio/x-raw,format=S16LE,layout=non-interleaved",
        "",
    ),
    (
        "Text, captions, metadata and tensors",
        "other/tensors static",
        "{made:15}",
        "",
    ),
    ("Encoders", "x264enc", "H264", "h264parse"),
    ("Encoders", "adpcmenc", "{audio} ! audioconvert ! adpcmenc", ""),
    ("Muxers", "mpegtsmux", "H264 ! mpegtsmux", "tsdemux"),
    (
        "Muxers",
        "matroskamux",
        "H264 ! h264parse ! matroskamux",
        "matroskademux",
    ),
    (
        "Muxers",
        "mp4mux fragment-duration=200",
        "H264 ! h264parse ! mp4mux fragment-duration=200",
        "qtdemux",
    ),
    ("Muxers", "flvmux", "H264 ! h264parse ! flvmux", "flvdemux"),
    ("Muxers", "avmux_mpegts", "H264 ! avmux_mpegts", "tsdemux"),
    ("Payloaders", "rtph264pay", "H264 ! rtph264pay", "rtph264depay"),
    (
        "Payloaders",
        "rtpvrawpay",
        "{video:320x240@15/1} ! videoconvert ! rtpvrawpay",
        "rtpvrawdepay",
    ),
    (
        "Payloaders",
        "rtpL16pay",
        "{audio} ! audioconvert ! rtpL16pay",
        "rtpL16depay",
    ),
    ("Payloaders", "gdppay", "H264 ! gdppay", "gdpdepay"),
];

#[test]
fn rows_are_not_worse_than_in_table() {
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(group, element, writer, reader)| Case::live(group, element, &writer.replace("H264", H264), reader))
        .collect();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COMPATIBILITY.md");
    if let Err(worse) = check(&cases, &document, 4) {
        panic!("{worse}");
    }
}

#[test]
fn every_installed_element_links_to_sink() {
    init();
    let sink = gst::ElementFactory::make("rsshmsink").build().unwrap();
    let accepted = sink.static_pad("sink").unwrap().query_caps(None);
    let features = gst::Registry::get().features(gst::ElementFactory::static_type());
    for factory in features
        .iter()
        .filter_map(|feature| feature.downcast_ref::<gst::ElementFactory>())
    {
        for template in factory.static_pad_templates() {
            let caps = template.caps();
            let features = |caps: &gst::CapsRef| {
                caps.iter_with_features()
                    .all(|(_, features)| features.contains("memory:SystemMemory"))
            };
            if template.direction() == gst::PadDirection::Src && !caps.is_empty() && features(&caps) {
                assert!(accepted.can_intersect(&caps), "{}: {caps}", factory.name());
            }
        }
    }
}
