// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ends of the stream: which of them a reader has delivered.

use std::sync::atomic::Ordering;

use crate::protocol::layout::Status;

/// How many times the count is loaded again while it changes. Bounded, because a damaged count may change forever.
const MAX_ATTEMPTS: u32 = 8;

/// The ends of the stream that a reader has delivered, as the count in the [`Status`] of its segment.
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    pub(super) delivered: u32,
}

/// The count of ends of the stream, and the seq of the last frame before the newest end. The seq is `None` if the
/// reader has delivered that end: its count is `delivered`.
#[inline]
pub(super) fn load_newest_end(status: &Status, delivered: u32) -> (u32, Option<u64>) {
    // Acquire, all of them: each pairs with a release store in `Writer::end_of_stream`. The writer stores the seq
    // first, so a seq that is loaded after a count may belong to a later end. It belongs to this one if the count is
    // the same again.
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
