// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of a segment's slots: which slots have memory, and how long each has not been used.

use crate::protocol::layout::MAX_SLOTS;

/// A slot that was not used for this many calls of [`SlotMemory::begin_period`] has been idle for too long.
const IDLE_PERIODS: usize = 3;

/// Which slots of a segment have memory. One bit stands for each slot.
#[derive(Debug)]
pub(super) struct SlotMemory {
    slot_count: u32,
    with_memory: u64,
    /// The slots that threads are committing, without the lock of the writer's state. Upstream, which does not wait,
    /// may commit one while the service commits another.
    growing: u64,
    /// The slots whose memory a thread is releasing, without that lock.
    releasing: u64,
    /// Whether the last attempt to commit another slot failed for lack of memory.
    is_out_of_memory: bool,
    /// Whether the publishing thread wants the service to commit another slot.
    is_growth_wanted: bool,
    /// The number of claims so far.
    claims: u64,
    /// The value of `claims` when each slot was claimed last.
    claimed_at: [u64; MAX_SLOTS],
    /// The values of `claims` at the beginnings of the last periods, newest first.
    periods: [u64; IDLE_PERIODS],
}

impl SlotMemory {
    /// The memory of a segment that can have `slot_count` slots, of which the first `committed` have memory.
    pub(super) fn new(slot_count: u32, committed: u32) -> Self {
        Self {
            slot_count,
            with_memory: (0..committed).fold(0, |slots, slot| slots | 1 << slot),
            growing: 0,
            releasing: 0,
            is_out_of_memory: false,
            is_growth_wanted: false,
            claims: 0,
            claimed_at: [0; MAX_SLOTS],
            periods: [0; IDLE_PERIODS],
        }
    }

    /// The slots that have memory.
    pub(super) fn slots(&self) -> u64 {
        self.with_memory
    }

    /// The number of slots that have memory.
    pub(super) fn count(&self) -> u32 {
        self.with_memory.count_ones()
    }

    /// How many slots the segment can have with the memory that there is now, as far as this is known.
    pub(super) fn attainable(&self) -> u32 {
        if self.is_out_of_memory {
            self.count()
        } else {
            self.slot_count
        }
    }

    pub(super) fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }

    /// Whether the segment may have more slots.
    pub(super) fn can_grow(&self) -> bool {
        !self.is_out_of_memory && self.count() < self.slot_count
    }

    /// Whether the segment may have more slots and no thread is committing one.
    pub(super) fn may_begin_growth(&self) -> bool {
        self.growing == 0 && self.has_free_slot()
    }

    /// Whether [`begin_growth`](Self::begin_growth) would find a slot.
    pub(super) fn has_free_slot(&self) -> bool {
        self.free_slot().is_some()
    }

    fn free_slot(&self) -> Option<usize> {
        if !self.can_grow() {
            return None;
        }
        let slot = (!(self.with_memory | self.growing | self.releasing)).trailing_zeros();
        (slot < self.slot_count).then_some(slot as usize)
    }

    /// Reserves a slot without memory for the caller, which commits memory for it while no lock is held. The commit
    /// takes milliseconds for a large frame, because the system clears the memory. `None` if the segment may not have
    /// more slots. Other threads may be committing slots.
    pub(super) fn begin_growth(&mut self) -> Option<usize> {
        let slot = self.free_slot()?;
        self.growing |= 1 << slot;
        Some(slot)
    }

    /// Records whether `slot`, which [`begin_growth`](Self::begin_growth) reserved, got memory. If it got none, the
    /// segment does not grow until [`retry_growth`](Self::retry_growth) is called.
    pub(super) fn finish_growth(&mut self, slot: usize, got_memory: bool) {
        self.growing &= !(1 << slot);
        self.is_growth_wanted = false;
        if got_memory {
            self.with_memory |= 1 << slot;
            self.claimed_at[slot] = self.claims;
        } else {
            self.is_out_of_memory = true;
        }
    }

    /// Lets the segment grow again, because the system may have memory by now.
    pub(super) fn retry_growth(&mut self) {
        self.is_out_of_memory = false;
    }

    /// Asks the service to commit another slot. Returns `false` if the segment cannot grow.
    pub(super) fn want_growth(&mut self) -> bool {
        self.is_growth_wanted = self.can_grow();
        self.is_growth_wanted
    }

    pub(super) fn is_growth_wanted(&self) -> bool {
        self.is_growth_wanted
    }

    /// Like [`begin_growth`](Self::begin_growth), if the service is to commit another slot.
    pub(super) fn begin_wanted_growth(&mut self) -> Option<usize> {
        let may_begin = self.is_growth_wanted && self.may_begin_growth();
        may_begin.then(|| self.begin_growth()).flatten()
    }

    /// Records that `slot` is claimed.
    pub(super) fn note_claim(&mut self, slot: usize) {
        self.claims += 1;
        self.claimed_at[slot] = self.claims;
    }

    /// When `slot` was claimed last, as a count of claims. The caches of the processor most likely have the slot with
    /// the largest count.
    pub(super) fn claimed_at(&self, slot: usize) -> u64 {
        self.claimed_at[slot]
    }

    /// Begins another period of about a second. Returns the slots that have been idle for too long.
    pub(super) fn begin_period(&mut self) -> u64 {
        let before = self.periods[IDLE_PERIODS - 1];
        self.periods.rotate_right(1);
        self.periods[0] = self.claims;
        bits(self.with_memory)
            .filter(|slot| self.claimed_at[*slot] <= before)
            .fold(0, |idle, slot| idle | 1 << slot)
    }

    /// Takes the memory of `slots` from the writer. The caller releases it to the system while no lock is held, and
    /// then calls [`finish_release`](Self::finish_release).
    pub(super) fn begin_release(&mut self, slots: u64) {
        self.with_memory &= !slots;
        self.releasing |= slots;
    }

    pub(super) fn finish_release(&mut self, slots: u64) {
        self.releasing &= !slots;
    }
}

/// The numbers of the set bits, from the lowest on.
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_gets_a_slot_while_the_service_commits_one() {
        let mut memory = SlotMemory::new(6, 4);
        assert!(memory.want_growth());
        assert_eq!(memory.begin_wanted_growth(), Some(4));
        assert_eq!(
            memory.begin_wanted_growth(),
            None,
            "the service commits one slot at a time"
        );
        assert_eq!(memory.begin_growth(), Some(5), "upstream");
        assert_eq!(memory.begin_growth(), None, "no slot is left");
        memory.finish_growth(4, true);
        assert!(!memory.may_begin_growth(), "a slot is being committed");
        memory.finish_growth(5, true);
        assert_eq!(memory.count(), 6);
    }

    #[test]
    fn each_slot_is_committed_by_one_thread() {
        let mut memory = SlotMemory::new(8, 4);
        assert_eq!(memory.begin_growth(), Some(4));
        assert_eq!(memory.begin_growth(), Some(5));
        memory.finish_growth(4, false);
        assert!(memory.is_out_of_memory());
        assert_eq!(memory.begin_growth(), None);
        memory.finish_growth(5, true);
        assert_eq!(memory.slots(), 0b10_1111);
        memory.retry_growth();
        assert_eq!(memory.begin_growth(), Some(4));
    }
}
