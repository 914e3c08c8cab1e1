// SPDX-License-Identifier: MIT OR Apache-2.0

//! The errors of the module. Each text names the thing that is wrong, and says what to do.

use crate::protocol::caps_text::Mistake;

/// Why caps do not describe raw video, or why a frame cannot be read as raw video.
///
/// # Examples
/// ```
/// use rsshm_channel::video::{VideoError, VideoInfo};
///
/// let error = VideoInfo::from_caps("image/jpeg, width=640, height=480").unwrap_err();
/// assert!(matches!(error, VideoError::NotRaw { .. }));
/// assert!(error.to_string().contains("image/jpeg"));
/// ```
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoError {
    /// The text is not fixed caps.
    #[error("caps must be fixed, as GStreamer writes them: {}; the text is {text:.200}", mistake.describe(text))]
    Text {
        /// The text.
        text: String,
        /// Where the text has a mistake, and what it should have there.
        mistake: Mistake,
    },
    /// The caps are of another medium, or of compressed video.
    #[error("the caps are {name}, which has no planes: only video/x-raw has; decode the stream before the writer")]
    NotRaw {
        /// The media type.
        name: String,
    },
    /// The frames are in memory that is not in the channel.
    #[error("the caps have the feature {feature}, so the pixels are not in the frame: download them before the writer")]
    Memory {
        /// The caps feature.
        feature: String,
    },
    /// A field of the caps is missing or has an impossible value.
    #[error("the caps have {found}, but {field} must be {expected}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// What the caps have instead.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
    /// The format is unknown, or its frames are not rows of pixels.
    #[error(
        "the format {name:?} cannot be read: {reason}; convert it, for example with videoconvert, to another format"
    )]
    Format {
        /// The name of the format.
        name: String,
        /// Why the format cannot be read.
        reason: &'static str,
    },
    /// A row or a frame would be too large.
    #[error(
        "a frame of {width}x{height} in {format} is too large: a row has at most 2147483647 bytes; use a smaller size"
    )]
    TooLarge {
        /// The name of the format.
        format: &'static str,
        /// The width in pixels.
        width: u32,
        /// The height in pixels.
        height: u32,
    },
    /// Rows cannot have this alignment.
    #[error("rows cannot begin at multiples of {align} bytes: the alignment is a power of 2 from 1 to 4096")]
    Align {
        /// The alignment in bytes.
        align: u32,
    },
    /// The bytes or the planes of a frame do not fit its caps.
    #[error("the frame does not fit {format} of {width}x{height}: {what}")]
    Frame {
        /// The name of the format.
        format: &'static str,
        /// The width in pixels.
        width: u32,
        /// The height in pixels of the rows that a frame has.
        height: u32,
        /// What does not fit, and what to do.
        what: String,
    },
    /// The memory for a converted picture is too small.
    #[error("the memory for the picture is too small: {what}")]
    Output {
        /// What is too small, and how large it must be.
        what: String,
    },
}
