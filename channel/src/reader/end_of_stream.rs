// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts the ends of the stream that a reader has delivered.

/// How many ends of the stream a reader has delivered. The reader compares this number with the count in the segment's
/// [`Status`].
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    pub(super) delivered: u32,
}
