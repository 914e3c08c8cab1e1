// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of caps and structures as text. GStreamer's parser decides what a text means; this parser agrees with
//! it.
//!
//! A writer checks its caps, so that a mistake is found where it was made. A reader rewrites the texts of other
//! programs before they reach GStreamer's own parser, which trusts its input. GStreamer's parser creates values of any
//! registered type, recurses once for each level of nesting, and prints warnings for mistakes. `docs/PROTOCOL.md` has
//! the grammar.

mod mistake;
mod parser;
mod parts;
mod strings;
mod value;

pub use mistake::Mistake;
pub use parser::MAX_NAME_SIZE;
pub(crate) use parts::CanonicalParts;
pub use parts::{CapsParts, caps_parts};

/// The caps that `text` describes, in a form that all versions of GStreamer since 1.22 read alike: each value has its
/// type, and all characters are ASCII.
///
/// # Errors
/// [`Mistake`] if the text does not describe fixed caps, or if it has values that are not safe for other programs.
///
/// # Examples
/// ```
/// use rsshm_channel::caps_text::canonical_caps;
///
/// let canonical = canonical_caps("video/x-raw,format=\"NV12\",width=(i)64,framerate=30/1").unwrap();
/// assert_eq!(canonical, "video/x-raw, format=(string)NV12, width=(int)64, framerate=(fraction)30/1");
/// let mistake = canonical_caps("video/x-raw,width=[1,5]").unwrap_err();
/// assert_eq!((mistake.position, mistake.expected), (18, "a single value, because a range is not fixed,"));
/// ```
pub fn canonical_caps(text: &str) -> Result<String, Mistake> {
    parser::parse(text, parser::Subject::Caps, &mut |_| true)
}

/// The structure that `text` describes, in the same form as [`canonical_caps`]. The values are numbers, booleans,
/// strings, fractions, bit masks, and arrays and lists of these. For each name, `admit` says whether it is allowed.
///
/// # Errors
/// [`Mistake`] if the text does not describe such a structure.
pub fn canonical_structure(text: &str, mut admit: impl FnMut(&str) -> bool) -> Result<String, Mistake> {
    parser::parse(text, parser::Subject::PlainStructure(false), &mut admit)
}

/// As [`canonical_structure`], but the values may be buffers too.
///
/// # Errors
/// [`Mistake`] if the text does not describe such a structure.
pub fn canonical_structure_with_buffers(text: &str, mut admit: impl FnMut(&str) -> bool) -> Result<String, Mistake> {
    parser::parse(text, parser::Subject::PlainStructure(true), &mut admit)
}
