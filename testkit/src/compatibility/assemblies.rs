// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cases of several elements that belong together, such as error correction of RTP.

use super::case::{Case, Steps};

/// The name of a case, the elements of the writer, and those of the reader.
const ASSEMBLIES: [(&str, &str, &str); 13] = [
    ("rtpjitterbuffer", "H264 ! rtph264pay", "rtpjitterbuffer ! rtph264depay"),
    (
        "rtpulpfecenc",
        "H264 ! rtph264pay ! rtpulpfecenc percentage=100 pt=122",
        "rtpulpfecdec pt=122 ! rtph264depay",
    ),
    (
        "rtpredenc",
        "H264 ! rtph264pay ! rtpredenc pt=100 distance=1",
        "rtpreddec pt=100 ! rtph264depay",
    ),
    (
        "rtprtxsend",
        "H264 ! rtph264pay ! rtprtxsend payload-type-map=application/x-rtp-pt-map,96=(uint)97",
        "rtph264depay",
    ),
    (
        "rtpst2022-1-fecenc",
        "H264 ! rtph264pay ! rtpst2022-1-fecenc",
        "rtph264depay",
    ),
    (
        "rtpbin",
        "H264 ! rtph264pay ! b.send_rtp_sink_0 rtpbin name=b b.send_rtp_src_0",
        "rtph264depay",
    ),
    ("rtpmux", "H264 ! rtph264pay ! m. rtpmux name=m", "rtph264depay"),
    ("rtpdtmfsrc", "rtpdtmfsrc", "rtpdtmfdepay"),
    (
        "rtpvrawpay of large pictures",
        "{video:640x480@15/1} ! rtpvrawpay",
        "rtpvrawdepay",
    ),
    (
        "rtpjpegpay of large pictures",
        "{video:1280x720@15/1} ! jpegenc quality=95 ! rtpjpegpay",
        "rtpjpegdepay",
    ),
    ("mpegtsmux alignment=7", "H264 ! mpegtsmux alignment=7", "tsdemux"),
    (
        "tsparse alignment=7",
        "H264 ! mpegtsmux ! tsparse alignment=7",
        "tsdemux",
    ),
    (
        "gdppay of GDP in MPEG-TS packets",
        "H264 ! mpegtsmux ! gdppay",
        "gdpdepay ! tsdemux",
    ),
];

const H264: &str = "{video:320x240@15/1} ! x264enc";

pub fn cases() -> Vec<Case> {
    let cases = ASSEMBLIES.iter().map(|(name, writer, reader)| Case {
        group: "Elements together",
        element: (*name).to_owned(),
        input: writer
            .replace("{video:", "")
            .split(" ! ")
            .next()
            .unwrap_or_default()
            .replace('}', ""),
        consumer: (*reader).to_owned(),
        steps: Steps::Run {
            writer: writer.replace("H264", H264),
            reader: (*reader).to_owned(),
            joins_late: false,
            is_live: true,
        },
    });
    cases.collect()
}
