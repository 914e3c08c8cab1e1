// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata of a frame, as the GStreamer elements write it: a sequence of records. docs/PROTOCOL.md has their
//! kinds.
//!
//! The channel itself does not interpret metadata. This module is for programs without GStreamer.
//!
//! # Examples
//!
//! ```
//! use rsshm_channel::metadata::{RegionOfInterest, records};
//!
//! let bytes = RegionOfInterest { x: 1, y: 2, width: 30, height: 40, id: 5, parent_id: -1, kind: "face" }.to_record();
//! let regions: Vec<_> = records(&bytes).filter_map(RegionOfInterest::from_record).collect();
//! assert_eq!(regions[0].kind, "face");
//! ```

/// The largest number of records of a frame.
const MAX_RECORDS: usize = 128;
/// The kind of a [`RegionOfInterest`].
const REGION: u16 = 2;
/// The kind of a [`TimeCode`].
const TIME_CODE: u16 = 4;

/// One record of a frame's metadata. The bytes may have any content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the record has, for example 2 for a region of interest.
    pub kind: u16,
    /// The content, in the format of the kind.
    pub bytes: &'a [u8],
}

/// The records of a frame's metadata, at most 128. The sequence ends at a record that is not whole.
pub fn records(metadata: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = Fields(metadata);
    std::iter::from_fn(move || {
        let kind = rest.u16()?;
        let size = rest.u16()?;
        let bytes = rest.take(size.into())?;
        Some(Record { kind, bytes })
    })
    .take(MAX_RECORDS)
}

/// A part of the picture, for example a face that a detector found. It need not be inside the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionOfInterest<'a> {
    /// The left edge in pixels.
    pub x: u32,
    /// The upper edge in pixels.
    pub y: u32,
    /// The width in pixels.
    pub width: u32,
    /// The height in pixels.
    pub height: u32,
    /// The identity of the region; -1 if it has none.
    pub id: i32,
    /// The identity of the region that contains this one; -1 if there is none.
    pub parent_id: i32,
    /// What is in the region, in the writer's words.
    pub kind: &'a str,
}

impl<'a> RegionOfInterest<'a> {
    /// The region in `record`; `None` if the record is of another kind or not valid.
    pub fn from_record(record: Record<'a>) -> Option<Self> {
        let mut fields = Fields(record.bytes);
        (record.kind == REGION).then_some(())?;
        Some(Self {
            x: fields.u32()?,
            y: fields.u32()?,
            width: fields.u32()?,
            height: fields.u32()?,
            id: fields.u32()? as i32,
            parent_id: fields.u32()? as i32,
            kind: fields.text()?,
        })
    }

    /// The whole record of this region, for the metadata of a frame. A `kind` with a NUL, or of more than 65000 bytes,
    /// is left out.
    pub fn to_record(&self) -> Vec<u8> {
        let kind = if self.kind.contains('\0') || self.kind.len() > 65000 {
            ""
        } else {
            self.kind
        };
        let mut bytes = Vec::new();
        bytes.extend(REGION.to_ne_bytes());
        bytes.extend((26 + kind.len() as u16).to_ne_bytes());
        for number in [
            self.x,
            self.y,
            self.width,
            self.height,
            self.id as u32,
            self.parent_id as u32,
        ] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend((kind.len() as u16).to_ne_bytes());
        bytes.extend(kind.as_bytes());
        bytes
    }
}

/// The time code of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeCode {
    /// The frame rate, as a fraction whose denominator is not 0.
    pub framerate: (u32, u32),
    /// GstVideoTimeCodeFlags: 1 drop frame, 2 interlaced.
    pub flags: u32,
    /// Hours, from 0 to 23.
    pub hours: u32,
    /// Minutes, from 0 to 59.
    pub minutes: u32,
    /// Seconds, from 0 to 59.
    pub seconds: u32,
    /// Frames of the second.
    pub frames: u32,
    /// The field of an interlaced frame; 0 otherwise.
    pub field_count: u32,
}

impl TimeCode {
    /// The time code in `record`; `None` if the record is of another kind or not valid.
    pub fn from_record(record: Record<'_>) -> Option<Self> {
        let mut fields = Fields(record.bytes);
        (record.kind == TIME_CODE).then_some(())?;
        let code = Self {
            framerate: (fields.u32()?, fields.u32()?),
            flags: fields.u32()?,
            hours: fields.u32()?,
            minutes: fields.u32()?,
            seconds: fields.u32()?,
            frames: fields.u32()?,
            field_count: fields.u32()?,
        };
        let is_valid = code.framerate.1 != 0 && code.hours < 24 && code.minutes < 60 && code.seconds < 60;
        is_valid.then_some(code)
    }
}

/// The fields of a record that were not read yet.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A text: its length, then UTF-8 without a NUL.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        let text = std::str::from_utf8(self.take(length.into())?).ok()?;
        (!text.contains('\0')).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION_OF_TEST: RegionOfInterest = RegionOfInterest {
        x: 1,
        y: 2,
        width: 3,
        height: 4,
        id: 5,
        parent_id: -1,
        kind: "face",
    };

    #[test]
    fn region_survives_a_round_trip() {
        let mut bytes = REGION_OF_TEST.to_record();
        bytes.extend(
            RegionOfInterest {
                kind: "",
                id: 6,
                ..REGION_OF_TEST
            }
            .to_record(),
        );
        let found: Vec<_> = records(&bytes).map(RegionOfInterest::from_record).collect();
        assert_eq!(found[0], Some(REGION_OF_TEST));
        assert_eq!(found[1].map(|region| (region.id, region.kind)), Some((6, "")));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn truncated_records_are_left_out() {
        let bytes = REGION_OF_TEST.to_record();
        for size in 0..bytes.len() {
            assert_eq!(records(&bytes[..size]).count(), 0);
            let record = Record {
                kind: REGION,
                bytes: &bytes[4..size.max(4)],
            };
            assert_eq!(RegionOfInterest::from_record(record), None);
        }
        assert_eq!(records(&[0; 4000]).count(), 128);
    }

    #[test]
    fn time_code_is_checked() {
        let code = |hours: u32, denominator: u32| {
            let numbers = [25, denominator, 0, hours, 2, 3, 4, 0];
            let bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).chain([0, 0]).collect();
            TimeCode::from_record(Record {
                kind: TIME_CODE,
                bytes: &bytes,
            })
        };
        assert_eq!(code(23, 1).map(|code| (code.hours, code.frames)), Some((23, 4)));
        assert_eq!(code(24, 1), None);
        assert_eq!(code(1, 0), None);
    }
}
