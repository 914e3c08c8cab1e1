// SPDX-License-Identifier: MIT OR Apache-2.0

//! Seqlocks: records that one process writes many times, and that others copy without a lock.
//!
//! A reader loads the record's seq before and after the copy. The copy is consistent if both loads return the same seq
//! and this seq is not 0. The words of the record are atomics too, because they are written and copied at the same
//! time.

// The path begins with `super`, so that the loom model can include this file with its own atomics.
use super::atomic::{AtomicU64, Ordering, fence};

/// Writes a record. The caller is its only writer.
pub(crate) fn write(seq: &AtomicU64, value: u64, fill: impl FnOnce()) {
    // Relaxed: the fence orders this store before the stores of the words.
    seq.store(0, Ordering::Relaxed);
    // Pairs with the acquire fence in `read`: a process that has copied any of the words below sees the 0 above, or a
    // later seq.
    fence(Ordering::Release);
    fill();
    // Release: pairs with the acquire load in `read`. A process that sees the seq sees the words.
    seq.store(value, Ordering::Release);
}

/// Copies a record; `None` if its seq is 0 or changes during the copy.
pub(crate) fn read<T>(seq: &AtomicU64, copy: impl FnOnce() -> T) -> Option<(u64, T)> {
    // Acquire: pairs with the release store in `write`.
    let value = seq.load(Ordering::Acquire);
    if value == 0 {
        return None;
    }
    let copied = copy();
    // Pairs with the release fence in `write`. Relaxed below: the fence orders the load after the copy.
    fence(Ordering::Acquire);
    (seq.load(Ordering::Relaxed) == value).then_some((value, copied))
}
