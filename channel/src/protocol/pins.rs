//! The pin rule: how a reader holds a slot, and how the writer takes one, with no lock between them.
//!
//! The reader sets its bit, then looks at the slot's number; the writer sets the number to 0, then looks at the bits. A
//! full fence between the two steps on both sides means that at least one of them sees the other, whatever the timing.

// By `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU64, Ordering, fence},
    failpoint::{Failpoint, failpoint},
    layout::MAX_SLOTS,
};

/// What one reader holds: the pin word in shared memory is the shadow of these counts.
///
/// A reader may hold a slot more than once (the frame that is shown again after a pause), so a bit is set when a count
/// leaves 0 and cleared when it returns to 0. The owner keeps this behind one small lock.
#[derive(Debug)]
pub struct PinCounts {
    counts: [u32; MAX_SLOTS],
    bits: u64,
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
    /// How many different slots are held.
    pub fn held(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Pins `slot` if it still holds the frame `wanted`, which must not be 0. On `true` the frame's bytes stay as they
    /// are until [`unpin`](Self::unpin).
    ///
    /// `word` is the pin word of this reader's own seat, `seq` the slot's number. `slot` is below 64.
    pub fn pin(&mut self, word: &AtomicU64, seq: &AtomicU64, slot: usize, wanted: u64) -> bool {
        let held_already = self.counts[slot] > 0;
        if !held_already {
            self.bits |= 1 << slot;
            // Release: pairs with the writer's acquire load of this word in `take_for_writing`, so that the ticket
            // stored before it is seen with it.
            word.store(self.bits, Ordering::Release);
        }
        failpoint(Failpoint::PinSet);
        // Pairs with the fence in `take_for_writing`: either the writer's second look sees the bit, or the load below
        // sees the 0.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the release store of the number in `publish`, so that the pixels are there.
        if seq.load(Ordering::Acquire) == wanted {
            self.counts[slot] += 1;
            failpoint(Failpoint::Pinned);
            return true;
        }
        if !held_already {
            self.bits &= !(1 << slot);
            word.store(self.bits, Ordering::Release);
        }
        false
    }

    /// Gives one pin of `slot` back.
    pub fn unpin(&mut self, word: &AtomicU64, slot: usize) {
        if self.counts[slot] == 0 {
            return;
        }
        self.counts[slot] -= 1;
        if self.counts[slot] == 0 {
            self.bits &= !(1 << slot);
            failpoint(Failpoint::UnpinDue);
            // Release: pairs with the acquire load of the writer that finds the bit clear and then draws, so that this
            // reader's last look at the pixels is over by then.
            word.store(self.bits, Ordering::Release);
        }
    }
}

/// Takes a slot for writing unless somebody holds it. `pinned` says whether a pin of the slot counts; it loads the pin
/// words with acquire order. To be called for slots that nobody was seen to hold just now.
///
/// On `false` the number is left at 0: nothing is put back, as the slot is the oldest one anyway and is used when it is free.
pub fn take_for_writing(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    failpoint(Failpoint::PinsSeen);
    // Relaxed: ordered before everything that follows by the fence. An observer that copies without a pin sees the 0,
    // or else none of the pixels drawn after it (its acquire fence stands between its copy and its second look).
    seq.store(0, Ordering::Relaxed);
    failpoint(Failpoint::SeqCleared);
    // Pairs with the fence in `PinCounts::pin`.
    fence(Ordering::SeqCst);
    !pinned()
}
