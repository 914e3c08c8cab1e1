// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts the ends of the stream that a reader has delivered.

use std::sync::atomic::Ordering;

use crate::protocol::layout::Status;

/// How many times the count is loaded again while it changes. The number is limited, because a damaged count may change
/// forever.
pub(super) const MAX_ATTEMPTS: u32 = 8;

/// How many ends of the stream a reader has delivered. The reader compares this number with the count in the segment's
/// [`Status`].
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    pub(super) delivered: u32,
}

/// Loads the count of ends of the stream, and the seq of the last frame before the newest end. If the count equals
/// `delivered`, the reader has delivered the newest end already, and the seq is `None`.
#[inline]
pub(super) fn load_newest_end(status: &Status, delivered: u32) -> (u32, Option<u64>) {
    // These are acquire loads; each pairs with a release store in `publish::end_of_stream`. The entry of an end is
    // overwritten only after the count has grown. So if the count is unchanged after the load of the seq, the seq
    // belongs to this count.
    let mut count = status.eos_count.load(Ordering::Acquire);
    let mut seq = None;
    for _ in 0..MAX_ATTEMPTS {
        if count == delivered {
            return (count, None);
        }
        seq = Some(status.eos_seqs[count as usize % 2].load(Ordering::Acquire));
        let again = status.eos_count.load(Ordering::Acquire);
        if again == count {
            break;
        }
        count = again;
    }
    (count, seq)
}
