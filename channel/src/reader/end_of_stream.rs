// SPDX-License-Identifier: MIT OR Apache-2.0

//! The record of the ends of the stream that a reader has delivered.

use std::sync::atomic::Ordering;

use crate::protocol::layout::Status;

/// How many times the count is loaded again while it changes. The number is limited, because a damaged count may change
/// forever.
const MAX_ATTEMPTS: u32 = 8;

/// The ends of the stream that a reader has delivered, as the count in the [`Status`] of its segment.
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    pub(super) delivered: u32,
}

/// The count of ends of the stream, and the seq of the last frame before the newest end. If the count is `delivered`,
/// the reader has delivered that end, and the seq is `None`.
#[inline]
pub(super) fn load_newest_end(status: &Status, delivered: u32) -> (u32, Option<u64>) {
    // Acquire, all of them: each pairs with a release store in `Writer::end_of_stream`. The writer stores the seq
    // first, so a seq that is loaded after a count may belong to a later end. It belongs to the loaded count if the
    // count is still the same afterwards.
    let mut count = status.eos_count.load(Ordering::Acquire);
    let mut seq = None;
    for _ in 0..MAX_ATTEMPTS {
        if count == delivered {
            return (count, None);
        }
        seq = Some(status.eos_seq.load(Ordering::Acquire));
        let again = status.eos_count.load(Ordering::Acquire);
        if again == count {
            break;
        }
        count = again;
    }
    (count, seq)
}
