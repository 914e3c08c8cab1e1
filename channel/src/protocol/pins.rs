// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pin rule: how a reader keeps a slot and the writer takes a slot, without a lock between the two processes.
//!
//! The reader sets the slot's bit in its pin word and then loads the seq of the slot. The writer sets the seq to 0 and
//! then loads the bits. Each of them has a full fence between its two steps. Therefore, whatever the timing, at least
//! one of them sees the other's store.

// The paths begin with `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
    failpoint::{Failpoint, failpoint},
    layout::MAX_SLOTS,
};

/// How many times one reader holds each slot. The reader's pin word in shared memory follows from these counts.
///
/// A reader may hold a slot more than once, for example a frame that it shows again after a pause. Therefore the slot's
/// bit is set when its count leaves 0, and cleared when the count returns to 0. The owner keeps this value behind a
/// lock.
#[derive(Debug)]
pub struct PinCounts {
    counts: [u32; MAX_SLOTS],
    bits: u64,
}

/// The result of [`PinCounts::pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinResult {
    /// The slot is pinned.
    Pinned,
    /// The quota does not allow another slot.
    Refused,
    /// The slot does not have the frame any more.
    Gone,
}

impl Default for PinCounts {
    fn default() -> Self {
        Self {
            counts: [0; MAX_SLOTS],
            bits: 0,
        }
    }
}

impl PinCounts {
    /// The number of different slots that are held.
    pub fn held(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Pins `slot` if the quota allows it and the slot still has the frame with the seq `wanted`, which is not 0. If
    /// the result is [`PinResult::Pinned`], nobody changes the frame's bytes until [`unpin`](Self::unpin).
    ///
    /// `word` is the pin word of this reader's entry, `quota` is the quota of the segment, `seq` is the seq of the
    /// slot, and `slot` is below 64.
    pub fn pin(&mut self, word: &AtomicU64, quota: &AtomicU32, seq: &AtomicU64, slot: usize, wanted: u64) -> PinResult {
        let held_already = self.counts[slot] > 0;
        if !held_already {
            self.bits |= 1 << slot;
            // Release: pairs with the acquire loads of this word by the writer (`pinned` of `take_for_writing`). A
            // writer that sees the bit also sees the generation, which was stored before.
            word.store(self.bits, Ordering::Release);
        }
        failpoint(Failpoint::PinSet);
        // Pairs with the fences in `take_for_writing` and `lower_quota`: either the writer sees the bit after its
        // fence, or the loads below see the writer's 0.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the release store of a writer that sets the quota again after it withdrew it. This reader
        // then sees every seq that the writer changed meanwhile, so the order of the two loads matters.
        let is_allowed = self.held() <= quota.load(Ordering::Acquire);
        // Acquire: pairs with the release store of the seq in `publish`, so that this reader sees the bytes of the
        // frame.
        let is_there = seq.load(Ordering::Acquire) == wanted;
        if is_allowed && is_there {
            self.counts[slot] += 1;
            failpoint(Failpoint::Pinned);
            return PinResult::Pinned;
        }
        if !held_already {
            self.bits &= !(1 << slot);
            // Release: as in `unpin`.
            word.store(self.bits, Ordering::Release);
        }
        if is_there { PinResult::Refused } else { PinResult::Gone }
    }

    /// Releases one pin of `slot`.
    pub fn unpin(&mut self, word: &AtomicU64, slot: usize) {
        if self.counts[slot] == 0 {
            return;
        }
        self.counts[slot] -= 1;
        if self.counts[slot] == 0 {
            self.bits &= !(1 << slot);
            failpoint(Failpoint::UnpinDue);
            // Release: pairs with the acquire load of the writer that sees the bit clear and then draws. Therefore this
            // reader's last read of the frame comes before the writer draws.
            word.store(self.bits, Ordering::Release);
        }
    }
}

/// Takes a slot for writing unless a reader has pinned it. The caller has seen the slot without pins just before.
///
/// `pinned` loads the pin words with acquire order, and returns whether the slot has a pin that counts. If this
/// function returns `false`, the seq remains 0, because a reader may have seen the 0 already. The writer uses the slot
/// once no reader pins it.
pub fn take_for_writing(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    failpoint(Failpoint::PinsSeen);
    // Relaxed: the fence below orders this store before everything that follows. An observer copies without a pin, has
    // an acquire fence after its copy, and then loads the seq again. Either it sees the 0, or its copy has no byte that
    // was drawn after this store.
    seq.store(0, Ordering::Relaxed);
    failpoint(Failpoint::SeqCleared);
    // Pairs with the fence in `PinCounts::pin`.
    fence(Ordering::SeqCst);
    !pinned()
}

/// Lowers the quota to `value`, which is 0 if the quota is withdrawn: from here on, no reader pins a slot beyond it.
/// The pins that the caller loads after this call are all that count until the quota is raised.
pub fn lower_quota(quota: &AtomicU32, value: u32) {
    // Release: pairs with the acquire load in `PinCounts::pin`, as the store that raises the quota does.
    quota.store(value, Ordering::Release);
    failpoint(Failpoint::QuotaLowered);
    // Pairs with the fence in `PinCounts::pin`.
    fence(Ordering::SeqCst);
}

/// Takes a slot for writing that no reader can hold, whatever the pin words say. The fence is for readers that copy.
pub fn take_unpinnable(seq: &AtomicU64) {
    // Relaxed: as in `take_for_writing`.
    seq.store(0, Ordering::Relaxed);
    failpoint(Failpoint::SeqCleared);
    fence(Ordering::SeqCst);
}
