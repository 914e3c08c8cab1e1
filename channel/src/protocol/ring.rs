// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ring: how the writer publishes a run, and how a reader gets from the number of the newest run to its slot.

// The paths begin with `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU64, Ordering, fence},
    failpoint::{Failpoint, failpoint},
};

/// The words that lead a reader to a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunWords<'a> {
    /// The number of the newest run.
    pub(crate) newest: &'a AtomicU64,
    /// The ring's entry of the run.
    pub(crate) entry: &'a AtomicU64,
    /// The seq in the record of the run's slot.
    pub(crate) slot_seq: &'a AtomicU64,
}

impl RunWords<'_> {
    /// Publishes the run `number`, which begins with the frame `seq` in `slot`. The caller has stored the frame, and
    /// the record of the slot except its seq.
    pub(crate) fn publish(self, number: u64, seq: u64, slot: usize) {
        // Release: pairs with the acquire loads in `PinCounts::pin` and in `has_run`. A reader that finds the seq also
        // finds the bytes and the descriptor.
        self.slot_seq.store(seq, Ordering::Release);
        failpoint(Failpoint::SeqStored);
        // Release: pairs with the acquire load of a reader that looks up a run. This reader then finds the seq in the
        // slot.
        self.entry.store(seq << 8 | slot as u64, Ordering::Release);
        failpoint(Failpoint::RingStored);
        // Release: pairs with the acquire load of a reader that looks for a frame. This reader then finds the ring's
        // entry, and the final tail of the former run.
        self.newest.store(number, Ordering::Release);
    }
}

/// The number of the newest run.
#[inline]
pub(crate) fn load_newest(newest: &AtomicU64) -> u64 {
    // Acquire: pairs with the release store of the number in `publish`, which follows the store of the ring's entry.
    newest.load(Ordering::Acquire)
}

/// The seq and the slot in an entry of the ring.
#[inline]
pub(crate) fn load_entry(entry: &AtomicU64) -> (u64, usize) {
    // Acquire: pairs with the release store of the ring's entry in `publish`, which follows the store of the slot's
    // seq.
    let entry = entry.load(Ordering::Acquire);
    (entry >> 8, (entry & 0xff) as usize)
}

/// Whether a slot has the run that begins with the frame `first`.
#[inline]
pub(crate) fn has_run(slot_seq: &AtomicU64, first: u64) -> bool {
    // Acquire: pairs with the release store of the slot's seq in `publish`, so that the descriptor can be read.
    slot_seq.load(Ordering::Acquire) == first
}

/// Whether a slot still has the run that begins with the frame `first`, after the caller has copied bytes of the slot
/// without a pin. If the result is `true`, the copy is whole.
#[inline]
pub(crate) fn still_has_run(slot_seq: &AtomicU64, first: u64) -> bool {
    // Pairs with the fence in `take_for_writing`: if the writer drew any copied byte after it had set the seq to 0, the
    // load below sees this 0 or a later seq. The load is relaxed, because the fence orders it after the copy.
    fence(Ordering::Acquire);
    slot_seq.load(Ordering::Relaxed) == first
}
