// SPDX-License-Identifier: MIT OR Apache-2.0

//! The texts in the events that the GStreamer elements write, for programs without GStreamer.
//!
//! The channel itself does not interpret events. docs/PROTOCOL.md has their kinds.
//!
//! # Examples
//! ```
//! use rsshm_channel::event_text::{CUSTOM, bytes_of, text_of};
//!
//! let bytes = bytes_of(CUSTOM, "lamp, on=(boolean)true;").unwrap();
//! assert_eq!(text_of(CUSTOM, &bytes), Some("lamp, on=(boolean)true;"));
//! ```

use super::metadata::Fields;

/// A stream begins; the text is the id of the stream.
pub const STREAM_START: u32 = 1;
/// Tags; the text is a tag list.
pub const TAGS: u32 = 2;
/// No frame comes for some time; there is no text.
pub const GAP: u32 = 3;
/// Another event; the text is its structure.
pub const CUSTOM: u32 = 4;
/// Another event that is sticky; the text is its structure.
pub const CUSTOM_STICKY: u32 = 5;

/// The bytes before the text of an event of this kind; `None` if such events have no text.
fn text_offset(kind: u32) -> Option<usize> {
    match kind {
        // The process, the group and the flags of the stream.
        STREAM_START => Some(16),
        // The scope of the tags.
        TAGS => Some(4),
        CUSTOM | CUSTOM_STICKY => Some(0),
        _ => None,
    }
}

/// The text in the bytes of an event. `None` if events of this kind have no text, or if the bytes are not valid.
pub fn text_of(kind: u32, bytes: &[u8]) -> Option<&str> {
    let mut fields = Fields(bytes);
    fields.take(text_offset(kind)?)?;
    fields.text()
}

/// The bytes of an event with this text. `None` if events of this kind have no text, or if the text has a NUL or more
/// than 65535 bytes.
pub fn bytes_of(kind: u32, text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text_offset(kind)?];
    let size = u16::try_from(text.len()).ok().filter(|_| !text.contains('\0'))?;
    bytes.extend(size.to_ne_bytes());
    bytes.extend(text.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip() {
        for kind in [STREAM_START, TAGS, CUSTOM, CUSTOM_STICKY] {
            let bytes = bytes_of(kind, "ä, b=(int)1;").unwrap();
            assert_eq!(text_of(kind, &bytes), Some("ä, b=(int)1;"));
            for size in 0..bytes.len() {
                assert_eq!(text_of(kind, &bytes[..size]), None);
            }
            assert_eq!(bytes_of(kind, "a\0b"), None);
            assert_eq!(bytes_of(kind, &"a".repeat(65536)), None);
        }
        assert_eq!(bytes_of(GAP, "a"), None);
        assert_eq!(text_of(GAP, &[1, 0, b'a']), None);
    }
}
