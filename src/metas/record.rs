// SPDX-License-Identifier: MIT OR Apache-2.0

//! A record of the metadata: its head, and what the functions for single metas write and read.

use rsshm_channel::MAX_METADATA_SIZE;

use super::Format;
use crate::codec::{Bytes, Names, put_structure, put_structure_with_buffers, put_text};

/// The size of the head of a record: its kind and its size.
pub(super) const RECORD_HEAD_SIZE: usize = 4;

/// Sets the size in the head of a complete record, which is its size without the head.
pub(super) fn set_size(record: &mut [u8]) {
    // The size fits 16 bits, because MAX_METADATA_SIZE does.
    let size = (record.len() - RECORD_HEAD_SIZE) as u16;
    record[2..RECORD_HEAD_SIZE].copy_from_slice(&size.to_ne_bytes());
}

/// A record that is being written.
pub(super) struct Output<'a> {
    to: &'a mut Vec<u8>,
    /// The buffer that has the meta.
    pub(super) buffer: &'a gst::BufferRef,
    pub(super) format: Format<'a>,
    /// How many parts of the meta, such as the parameters of a region, were left out.
    pub(super) parts_left_out: u64,
}

impl<'a> Output<'a> {
    /// Appends the head of a record, with a size of zero.
    pub(super) fn begin(to: &'a mut Vec<u8>, kind: u16, buffer: &'a gst::BufferRef, format: Format<'a>) -> Self {
        to.extend(kind.to_ne_bytes());
        to.extend([0; RECORD_HEAD_SIZE - 2]);
        Self {
            to,
            buffer,
            format,
            parts_left_out: 0,
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.to.extend(bytes);
    }

    pub(super) fn numbers(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.to.extend(number.to_ne_bytes());
        }
    }

    pub(super) fn u16(&mut self, number: u16) {
        self.to.extend(number.to_ne_bytes());
    }

    pub(super) fn i32(&mut self, number: i32) {
        self.to.extend(number.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.to.extend(number.to_ne_bytes());
    }

    /// Appends finite numbers; `None` if one is infinite or not a number.
    pub(super) fn floats(&mut self, floats: &[f32]) -> Option<()> {
        for float in floats {
            self.to
                .extend(Some(float).filter(|float| float.is_finite())?.to_ne_bytes());
        }
        Some(())
    }

    pub(super) fn text(&mut self, text: &str) -> Option<()> {
        put_text(self.to, text)
    }

    pub(super) fn structure(&mut self, structure: &gst::StructureRef) -> Option<()> {
        put_structure(self.to, structure)
    }

    /// Appends a structure whose values may be buffers too.
    pub(super) fn structure_with_buffers(&mut self, structure: &gst::StructureRef) -> Option<()> {
        put_structure_with_buffers(self.to, structure)
    }

    /// Appends what `write` writes. If `write` returns `None`, or if the part does not fit, the part is left out and
    /// counted. The rest of the record is kept.
    pub(super) fn part(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) {
        let begin = self.to.len();
        if write(self).is_none() || self.to.len() > MAX_METADATA_SIZE {
            self.to.truncate(begin);
            self.parts_left_out += 1;
        }
    }
}

/// A record that is being read, and the buffer that gets its meta.
pub(super) struct Input<'a> {
    pub(super) record: Bytes<'a>,
    pub(super) format: Format<'a>,
    pub(super) buffer: &'a mut gst::BufferRef,
    pub(super) names: &'a mut Names,
    is_unknown: bool,
}

impl<'a> Input<'a> {
    pub(super) fn new(
        record: Bytes<'a>,
        format: Format<'a>,
        buffer: &'a mut gst::BufferRef,
        names: &'a mut Names,
    ) -> Self {
        Self {
            record,
            format,
            buffer,
            names,
            is_unknown: false,
        }
    }

    /// Skips a record because this program does not know its kind or its meta.
    pub(super) fn skip_unknown(&mut self) -> Option<()> {
        self.is_unknown = true;
        Some(())
    }

    /// Skips the record if `added` is `None`, which says that this GStreamer does not have the meta.
    pub(super) fn skip_unless(&mut self, added: Option<()>) -> Option<()> {
        added.or_else(|| self.skip_unknown())
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Reads finite numbers; `None` if one is infinite or not a number.
    pub(super) fn floats<const N: usize>(&mut self) -> Option<[f32; N]> {
        let mut floats = [0.0; N];
        for float in &mut floats {
            *float = self
                .record
                .array()
                .map(f32::from_ne_bytes)
                .filter(|float| float.is_finite())?;
        }
        Some(floats)
    }
}
