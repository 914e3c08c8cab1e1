// SPDX-License-Identifier: MIT OR Apache-2.0

//! Streams for which GStreamer has no test source: text, captions, metadata and tensors.

use std::{sync::LazyLock, time::Duration};

use gst::prelude::*;

use super::stream::Length;

/// The beginning of the names of the elements that [`feed`] feeds. The index in [`kinds`] follows.
pub const NAME: &str = "made-";

/// A kind of stream. Buffer `n` of a stream is the same in each run.
pub struct Kind {
    pub caps: String,
    /// The time between two buffers, in milliseconds.
    interval: u64,
    memories: fn(usize) -> Vec<Vec<u8>>,
}

/// The header of SubStation Alpha subtitles, as Matroska stores it.
const SSA_HEADER: &str = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n\
    Style: Default,Sans,20\n\n[Events]\n\
    Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n";

fn one(bytes: impl Into<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![bytes.into()]
}

/// All kinds.
pub fn kinds() -> &'static [Kind] {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        let kind = |caps: &str, interval, memories| Kind {
            caps: caps.to_owned(),
            interval,
            memories,
        };
        let header: String = SSA_HEADER.bytes().map(|byte| format!("{byte:02x}")).collect();
        let tensors = "framerate=(fraction)25/1";
        vec![
            kind("text/x-raw, format=(string)utf8", 200, |n| {
                one(format!("line {n}: ä, €, 字"))
            }),
            kind("text/x-raw, format=(string)pango-markup", 200, |n| {
                one(format!("<b>line</b> <i>{n}</i>"))
            }),
            kind("application/x-subtitle", 200, |n| {
                one(format!("{}\n00:00:0{n},000 --> 00:00:0{n},500\nline {n}\n\n", n + 1))
            }),
            kind("application/x-subtitle-vtt", 200, |n| {
                let header = if n == 0 { "WEBVTT\n\n" } else { "" };
                one(format!("{header}00:00:0{n}.000 --> 00:00:0{n}.500\nline {n}\n\n"))
            }),
            kind(&format!("application/x-ssa, codec_data=(buffer){header}"), 200, |n| {
                one(format!("{n},0,Default,,0,0,0,,line {{\\b1}}{n}{{\\b0}}"))
            }),
            kind(&format!("application/x-ass, codec_data=(buffer){header}"), 200, |n| {
                one(format!("{n},0,Default,,0,0,0,,line {{\\i1}}{n}{{\\i0}}"))
            }),
            kind("application/ttml+xml", 200, |n| {
                one(format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><tt xml:lang=\"en\" xmlns=\"http://www.w3.org/ns/ttml\">\
                     <body><div><p begin=\"0.{n}s\" end=\"0.{}s\">line {n}</p></div></body></tt>",
                    n + 1
                ))
            }),
            kind(
                "closedcaption/x-cea-608, format=(string)raw, framerate=(fraction)25/1",
                40,
                |n| one([0x94, if n % 2 == 0 { 0x20 } else { 0x2c }]),
            ),
            kind(
                "closedcaption/x-cea-608, format=(string)s334-1a, framerate=(fraction)25/1",
                40,
                |n| one([0x80, 0x94, if n % 2 == 0 { 0x20 } else { 0x2c }]),
            ),
            kind(
                "closedcaption/x-cea-708, format=(string)cc_data, framerate=(fraction)25/1",
                40,
                |n| one([0xfc, 0x94, 0x20, 0xfe, 0x41 + (n % 26) as u8, 0x42]),
            ),
            kind(
                "closedcaption/x-cea-708, format=(string)cdp, framerate=(fraction)25/1",
                40,
                cdp,
            ),
            kind("meta/x-klv, parsed=(boolean)true", 40, |n| {
                let key = [
                    0x06, 0x0e, 0x2b, 0x34, 0x02, 0x0b, 0x01, 0x01, 0x0e, 0x01, 0x03, 0x01, 0x01, 0, 0, 0,
                ];
                let value = format!("position {n}");
                one([&key[..], &[value.len() as u8], value.as_bytes()].concat())
            }),
            kind("meta/x-id3", 200, |n| {
                let text = format!("\0\0title {n}");
                let frame = [b"TXXX\0\0\0", &[text.len() as u8][..], b"\0\0", text.as_bytes()].concat();
                one([b"ID3\x04\0\0\0\0\0", &[frame.len() as u8][..], &frame].concat())
            }),
            kind("application/x-onvif-metadata, parsed=(boolean)true", 200, |n| {
                one(format!("<tt:MetadataStream><n>{n}</n></tt:MetadataStream>"))
            }),
            kind("application/octet-stream", 40, |n| one(vec![n as u8; 1000])),
            // One buffer has as many memories as the frame has tensors.
            kind(
                &format!(
                    "other/tensors, format=(string)static, num_tensors=(int)2, \
                     dimensions=(string)\"3:1:1:1,5:1:1:1\", types=(string)\"float32,int32\", {tensors}"
                ),
                40,
                |n| vec![vec![n as u8; 12], vec![!n as u8; 20]],
            ),
            kind(&format!("other/tensors, format=(string)flexible, {tensors}"), 40, |n| {
                (0..1 + n % 4).map(|index| vec![index as u8; 64 + 10 * n]).collect()
            }),
            kind(
                &format!("other/tensor, dimension=(string)3:64:48:1, type=(string)uint8, {tensors}"),
                40,
                |n| one(vec![n as u8; 3 * 64 * 48]),
            ),
        ]
    });
    &KINDS
}

/// A caption distribution packet with one pair of CEA-608 bytes.
fn cdp(n: usize) -> Vec<Vec<u8>> {
    let counter = (n as u16).to_be_bytes();
    let mut packet = vec![
        0x96, 0x69, 0, 0x3f, 0x43, counter[0], counter[1], 0x72, 0xe1, 0xfc, 0x94, 0x20, 0x74,
    ];
    packet.extend([counter[0], counter[1], 0]);
    packet[2] = packet.len() as u8;
    let sum: u8 = packet.iter().fold(0, |sum, byte| sum.wrapping_add(*byte));
    *packet.last_mut().expect("a packet is not empty") = 0_u8.wrapping_sub(sum);
    one(packet)
}

/// Sets up the appsrc elements of a pipeline whose names begin with [`NAME`]. Returns functions that feed them, each of
/// which needs a thread of its own.
pub fn feeders(pipeline: &gst::Pipeline, length: Length) -> Vec<impl FnOnce() + Send + 'static> {
    let elements = pipeline.iterate_recurse().into_iter().flatten();
    let named = elements.filter_map(|element| {
        let index: usize = element.name().strip_prefix(NAME)?.parse().ok()?;
        Some((element, kinds().get(index)?))
    });
    named
        .map(|(source, kind)| {
            source.set_property("caps", kind.caps.parse::<gst::Caps>().expect("valid caps"));
            source.set_property("format", gst::Format::Time);
            source.set_property("is-live", length.is_live);
            move || feed(&source, kind, length)
        })
        .collect()
}

fn feed(source: &gst::Element, kind: &Kind, length: Length) {
    let started = std::time::Instant::now();
    let count = (length.seconds * 1000.0) as u64 / kind.interval;
    for n in 0..count {
        let time = Duration::from_millis(n * kind.interval);
        if length.is_live {
            std::thread::sleep(time.saturating_sub(started.elapsed()));
        }
        let mut buffer = gst::Buffer::new();
        let target = buffer.make_mut();
        for bytes in (kind.memories)(n as usize) {
            target.append_memory(gst::Memory::from_slice(bytes));
        }
        target.set_pts(gst::ClockTime::from_nseconds(time.as_nanos() as u64));
        target.set_duration(gst::ClockTime::from_mseconds(kind.interval));
        if source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]) != gst::FlowReturn::Ok {
            return;
        }
    }
    let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
}
