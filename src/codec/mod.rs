// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes and decodes the building blocks of metas and events in the channel, which are numbers, texts and structures.
//!
//! Decoding must survive any bytes, because any program with write permission may have written them.

#[cfg(test)]
pub(crate) mod samples;

use std::collections::HashSet;

use gst::{glib::SendValue, prelude::*};
pub(crate) use rsshm_channel::caps_text::MAX_NAME_SIZE;
use rsshm_channel::caps_text::{canonical_structure, canonical_structure_with_buffers};

/// The maximum number of names that a peer may introduce. GStreamer keeps each name until the program ends.
pub(crate) const MAX_NAMES: usize = 4096;

/// Appends the length of a text and the text. The length takes two bytes, so the result is `None` for a text of 64 KiB
/// or more.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) -> Option<()> {
    let size = u16::try_from(text.len()).ok()?;
    to.extend(size.to_ne_bytes());
    to.extend(text.as_bytes());
    Some(())
}

/// Appends a structure as text; `None` if it has values that readers do not accept.
pub(crate) fn put_structure(to: &mut Vec<u8>, structure: &gst::StructureRef) -> Option<()> {
    // The check of the text below would be enough. The types are checked first, because making the text of a large
    // buffer would be slow.
    if !structure.iter().all(|(_, value)| is_plain_type(value.type_())) {
        return None;
    }
    let text = structure.to_string();
    canonical_structure(&text, |_| true).ok()?;
    put_text(to, &text)
}

/// The maximum size of a buffer in a structure. As text, it has twice this size.
const MAX_BUFFER_SIZE: usize = 2048;

/// Appends a structure whose values may be small buffers too, as those of a GstProtectionMeta are.
pub(crate) fn put_structure_with_buffers(to: &mut Vec<u8>, structure: &gst::StructureRef) -> Option<()> {
    let is_small_buffer = |value: &SendValue| {
        let buffer = value.get::<gst::Buffer>();
        buffer.is_ok_and(|buffer| buffer.size() <= MAX_BUFFER_SIZE)
    };
    let is_supported = |value: &SendValue| is_plain_type(value.type_()) || is_small_buffer(value);
    if !structure.iter().all(|(_, value)| is_supported(value)) {
        return None;
    }
    let text = structure.to_string();
    canonical_structure_with_buffers(&text, |_| true).ok()?;
    put_text(to, &text)
}

/// Whether values of this type are plain, that is, numbers, booleans, strings, fractions, bit masks, lists or arrays.
pub(crate) fn is_plain_type(value_type: gst::glib::Type) -> bool {
    [
        bool::static_type(),
        i32::static_type(),
        u32::static_type(),
        i64::static_type(),
        u64::static_type(),
        f32::static_type(),
        f64::static_type(),
        u8::static_type(),
        String::static_type(),
        gst::Fraction::static_type(),
        gst::Bitmask::static_type(),
        gst::Array::static_type(),
        gst::List::static_type(),
    ]
    .contains(&value_type)
}

/// The names that a peer has introduced so far.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Box<str>>);

impl Names {
    /// Admits a name, which GStreamer then keeps; `false` if the peer has introduced too many names.
    pub(crate) fn admit(&mut self, name: &str) -> bool {
        self.0.contains(name) || (self.0.len() < MAX_NAMES && self.0.insert(name.into()))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Parses a structure; `None` if it has values that are not plain, or too many new names.
    pub(crate) fn structure(&mut self, text: &str) -> Option<gst::Structure> {
        // GStreamer's own parser trusts its input, so it gets only texts that were written here.
        canonical_structure(text, |name| self.admit(name)).ok()?.parse().ok()
    }

    /// As [`Self::structure`], but the values may be buffers too.
    pub(crate) fn structure_with_buffers(&mut self, text: &str) -> Option<gst::Structure> {
        canonical_structure_with_buffers(text, |name| self.admit(name))
            .ok()?
            .parse()
            .ok()
    }
}

/// The bytes that have not been read yet. All methods return `None` if too few bytes are left.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(crate) fn numbers<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.u32()?;
        }
        Some(numbers)
    }

    pub(crate) fn rect(&mut self) -> Option<(u32, u32, u32, u32)> {
        self.numbers().map(|[x, y, width, height]| (x, y, width, height))
    }

    /// Reads a size of two bytes, and as many bytes as the size says.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let size = self.u16()?;
        let (bytes, rest) = self.0.split_at_checked(size.into())?;
        self.0 = rest;
        Some(bytes)
    }

    /// Reads a text with its size; `None` if the text is not UTF-8 or has a NUL, which would end the text in C code.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        self.sized()
            .filter(|bytes| !bytes.contains(&0))
            .and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// Reads a record. Returns its kind and its content.
    pub(crate) fn record(&mut self) -> Option<(u16, Bytes<'a>)> {
        Some((self.u16()?, Bytes(self.sized()?)))
    }
}
