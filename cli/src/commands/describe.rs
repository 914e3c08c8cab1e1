// SPDX-License-Identifier: MIT OR Apache-2.0

//! Flags, metadata and events in words, for `echo`. docs/PROTOCOL.md has their kinds.

use rsshm_channel::{
    Event, TIME_NONE,
    metadata::{Record, RegionOfInterest, TimeCode, records},
};
use serde::Serialize;

use crate::{
    failure::Failure,
    output::{Format, Output},
};

/// The flags of GstBufferFlags and GstVideoBufferFlags, by their bit.
const FLAGS: [(u32, &str); 14] = [
    (4, "live"),
    (5, "decode-only"),
    (6, "discont"),
    (7, "resync"),
    (8, "corrupted"),
    (9, "marker"),
    (10, "header"),
    (11, "gap"),
    (12, "droppable"),
    (13, "delta"),
    (14, "tag-memory"),
    (20, "interlaced"),
    (21, "top-field-first"),
    (22, "repeat-first-field"),
];

/// The kinds of metadata; the first is number 1.
const METADATA: [&str; 26] = [
    "crop",
    "region of interest",
    "reference timestamp",
    "time code",
    "custom meta",
    "closed caption",
    "active format",
    "bars",
    "memories",
    "layout of audio",
    "audio clipping",
    "audio level",
    "audio downmix",
    "layout of DSD",
    "affine transformation",
    "SEI user data",
    "ancillary packet",
    "dynamic HDR data",
    "protection",
    "network address",
    "RTP source",
    "SCTP parameters",
    "SCTP protocol",
    "header of MPEG-TS metadata",
    "analytics",
    "meta of another library",
];

/// The kinds of events; the first is number 1.
const EVENTS: [&str; 5] = ["stream", "tags", "gap", "custom event", "sticky custom event"];

/// A record of metadata.
#[derive(Debug, Serialize)]
pub(crate) struct Detail {
    kind: u16,
    name: &'static str,
    size: usize,
    /// The content in words, if this program knows the kind.
    text: Option<String>,
}

impl Detail {
    fn new(record: Record<'_>) -> Self {
        Self {
            kind: record.kind,
            name: name(&METADATA, record.kind.into()),
            size: record.bytes.len(),
            text: content(record),
        }
    }

    /// The record as a line.
    pub(crate) fn text(&self) -> String {
        match &self.text {
            Some(text) => format!("{}: {text}", self.name),
            None => format!("{} (kind {}): {} bytes", self.name, self.kind, self.size),
        }
    }
}

/// The names of the flags that are set. A bit without a name is given as its value.
pub(crate) fn flags(flags: u32) -> Vec<String> {
    (0..u32::BITS)
        .filter(|bit| flags >> bit & 1 == 1)
        .map(|bit| match FLAGS.iter().find(|(known, _)| *known == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("{:#x}", 1_u32 << bit),
        })
        .collect()
}

/// The records of a frame's metadata.
pub(crate) fn metadata(bytes: &[u8]) -> Vec<Detail> {
    records(bytes).map(Detail::new).collect()
}

/// Prints an event, except as CSV, which has only frames.
pub(crate) fn print_event(output: &mut Output, event: &Event) -> Result<(), Failure> {
    let time = |time: u64| (time != TIME_NONE).then_some(time);
    let name = name(&EVENTS, event.kind);
    match output.format {
        Format::Json => output.json(&serde_json::json!({
            "event": name, "kind": event.kind, "time_ns": time(event.time), "duration_ns": time(event.duration),
            "size": event.bytes.len(), "text": readable(&event.bytes),
        }))?,
        Format::Csv => {}
        Format::Table => {
            let text = readable(&event.bytes).unwrap_or_else(|| format!("{} bytes", event.bytes.len()));
            output.line(format!("  event {name}: {text}"))?;
        }
    }
    output.flush()
}

/// Prints that something happened to the stream.
pub(crate) fn print_note(output: &mut Output, note: &str) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(&serde_json::json!({ "event": note }))?,
        Format::Csv => {}
        Format::Table => output.line(format!("  {note}"))?,
    }
    output.flush()
}

fn name(names: &[&'static str], kind: u32) -> &'static str {
    let index = usize::try_from(kind).ok().and_then(|kind| kind.checked_sub(1));
    index.and_then(|index| names.get(index).copied()).unwrap_or("unknown")
}

fn content(record: Record<'_>) -> Option<String> {
    if let Some(region) = RegionOfInterest::from_record(record) {
        let RegionOfInterest {
            x,
            y,
            width,
            height,
            id,
            kind,
            ..
        } = region;
        return Some(format!("{kind} at {x},{y} of {width}x{height}, id {id}"));
    }
    if let Some(code) = TimeCode::from_record(record) {
        return Some(format!(
            "{:02}:{:02}:{:02}:{:02}",
            code.hours, code.minutes, code.seconds, code.frames
        ));
    }
    match record.kind {
        1 if record.bytes.len() == 16 => {
            let number =
                |index: usize| u32::from_ne_bytes(record.bytes[index * 4..][..4].try_into().unwrap_or_default());
            Some(format!("{}x{} at {},{}", number(2), number(3), number(0), number(1)))
        }
        3 | 5 => readable(record.bytes),
        _ => None,
    }
}

/// The longest text in the bytes, which structures and stream ids are. `None` if most of the bytes are not text.
fn readable(bytes: &[u8]) -> Option<String> {
    let texts = bytes.split(|byte| !(0x20..0x7f).contains(byte));
    let longest = texts.max_by_key(|text| text.len())?;
    let is_text = longest.len() >= 4 && longest.len() * 2 > bytes.len();
    is_text.then(|| String::from_utf8_lossy(longest).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names() {
        assert_eq!(flags(0), Vec::<String>::new());
        assert_eq!(flags(1 << 6 | 1 << 13), ["discont", "delta"]);
        assert_eq!(flags(1 << 31), ["0x80000000"]);
    }

    #[test]
    fn metadata_is_described_whatever_its_bytes_are() {
        let region = RegionOfInterest {
            x: 1,
            y: 2,
            width: 3,
            height: 4,
            id: 5,
            parent_id: -1,
            kind: "face",
        };
        let mut bytes = region.to_record();
        bytes.extend([1_u16, 16].map(u16::to_ne_bytes).concat());
        bytes.extend([10_u32, 20, 30, 40].map(u32::to_ne_bytes).concat());
        bytes.extend([99_u16, 2].map(u16::to_ne_bytes).concat());
        bytes.extend([0, 1]);
        let texts: Vec<_> = metadata(&bytes).iter().map(Detail::text).collect();
        assert_eq!(
            texts,
            [
                "region of interest: face at 1,2 of 3x4, id 5",
                "crop: 30x40 at 10,20",
                "unknown (kind 99): 2 bytes"
            ]
        );
    }

    #[test]
    fn text_is_found_among_bytes() {
        assert_eq!(
            readable(b"\x01\x00\x00\x00taglist, title=(string)a;").as_deref(),
            Some("taglist, title=(string)a;")
        );
        assert_eq!(readable(&[0; 20]), None);
        assert_eq!(readable(&[]), None);
    }
}
