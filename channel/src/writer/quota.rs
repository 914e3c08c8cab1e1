// SPDX-License-Identifier: MIT OR Apache-2.0

//! Quotas: how many slots each reader may pin.
//!
//! | quantity | meaning |
//! |---|---|
//! | held | the slots that a reader's counted pins mark now |
//! | share | the slots that each reader could pin if all readers pinned equally many |
//! | wanted | the quota that a reader should get: held + 2, at least [`INITIAL_QUOTA`] and its present quota, at most the share |
//! | quota | the quota that a reader gets: the wanted one, lowered until all quotas fit into the slots that have memory |
//! | ceiling | the most slots that a reader may hold: its quota, or those that it held when the quota was lowered |
//! | room | the slots that may be pinned while the writer has all the slots that it needs; for overcommit |
//!
//! A reader may use its whole quota at once, and for ever. Therefore the writer publishes a quota only after it has
//! committed memory for it and for its own slots. (Overcommit protects the writer by other means.) Readers that keep to
//! their quotas never take the writer's last slot. If other readers come later, a reader's quota may fall below the
//! slots that the reader holds. The reader keeps these slots and gets no more. So a reader can exceed its ceiling only
//! by pinning beyond its quota. The writer then evicts this reader, so that the reader's pins no longer count.

use std::time::{Duration, Instant};

use crate::protocol::layout::{MAX_QUOTA, MAX_READERS};

/// After a quota was lowered, a reader may pin up to the former quota for this long, because it may not have seen the
/// lower one.
const QUOTA_GRACE: Duration = Duration::from_secs(1);
/// The quota of a new reader: one frame to copy from, one frame on display, and the frame displayed before, which many
/// sinks keep.
pub(super) const INITIAL_QUOTA: u32 = 3;
/// The number of slots by which a reader's quota should exceed the slots that the reader holds.
const SPARE_QUOTA: u32 = 2;

/// The slots that the owner of a reader entry holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryUsage {
    /// The generation that the entry has now.
    pub(super) owner: u32,
    /// The number of slots that the owner's counted pins mark.
    pub(super) held: u32,
    /// The generation of the reader that gets a quota; `None` if the entry's reader has left or was evicted.
    pub(super) reader: Option<u32>,
}

/// The usage of all reader entries.
pub(super) type Usage = [EntryUsage; MAX_READERS];

/// The number of slots that are pinned if each reader pins its quota. A reader that holds more slots than its quota
/// counts with the slots that it holds.
pub(super) fn sum(usage: &Usage, quotas: &[u32; MAX_READERS]) -> u32 {
    usage
        .iter()
        .zip(quotas)
        .map(|(usage, quota)| match usage.reader {
            Some(_) => usage.held.max(*quota),
            None => usage.held,
        })
        .sum()
}

/// The largest quota that all readers can have at the same time if there are `slots` slots.
pub(super) fn share(usage: &Usage, slots: u32) -> u32 {
    (1..=MAX_QUOTA)
        .rev()
        .find(|share| sum(usage, &[*share; MAX_READERS]) <= slots)
        .unwrap_or(0)
}

/// The quota that a reader should get if it holds `held` slots and its quota is `current`. The result is less than
/// `current` only if `share` is less than `current`. So a reader whose queue grows again still gets its frames in
/// place.
pub(super) fn wanted(held: u32, current: u32, share: u32) -> u32 {
    (held + SPARE_QUOTA).max(INITIAL_QUOTA).max(current).min(share)
}

/// Lowers the largest quotas until `slots` slots are enough for all.
pub(super) fn lower_to_fit(usage: &Usage, mut quotas: [u32; MAX_READERS], slots: u32) -> [u32; MAX_READERS] {
    while sum(usage, &quotas) > slots {
        let Some(largest) = quotas.iter().copied().max().filter(|largest| *largest > 0) else {
            break;
        };
        quotas = quotas.map(|quota| quota.min(largest - 1));
    }
    quotas
}

/// The quota and the ceiling of one reader entry's owner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuotaRecord {
    quota: u32,
    /// The most slots that the owner may hold without being evicted.
    ceiling: u32,
    lowered_at: Option<Instant>,
    /// The generation of an owner that held too many slots at the last check.
    suspect: Option<u32>,
}

impl QuotaRecord {
    /// The record of a reader that has just attached.
    pub(super) fn of_new_reader() -> Self {
        Self::default()
    }

    /// The record after the reader has left. The reader may still hold the frames that it has passed downstream.
    pub(super) fn after_leaving(self) -> Self {
        Self {
            ceiling: self.ceiling,
            ..Self::default()
        }
    }

    pub(super) fn quota(&self) -> u32 {
        self.quota
    }

    /// Sets the quota of an attached reader that holds `held` slots. Returns whether the reader must be evicted.
    pub(super) fn update(&mut self, generation: u32, quota: u32, held: u32) -> bool {
        if quota < self.quota {
            self.lowered_at = Some(Instant::now());
        }
        self.quota = quota;
        match self.lowered_at {
            // The reader may not have seen the lower quota, and may pin up to the former one. The slots that the reader
            // holds now do not raise the ceiling, because a reader that pins too many slots can itself cause the lower
            // quota.
            Some(at) if at.elapsed() < QUOTA_GRACE => self.ceiling = quota.max(self.ceiling),
            // The grace period is over, so the ceiling falls to the slots that the reader still holds, or to the quota.
            // The reader keeps these slots, because they were within an earlier quota.
            _ => {
                self.ceiling = quota.max(self.ceiling.min(held));
                self.lowered_at = None;
            }
        }
        self.confirm(generation, held > self.ceiling)
    }

    /// Checks an owner that is not attached, which must not pin further slots. Returns whether the owner must be
    /// evicted.
    pub(super) fn update_unattached(&mut self, generation: u32, held: u32) -> bool {
        let holds_too_much = held > self.ceiling;
        self.ceiling = self.ceiling.min(held);
        self.confirm(generation, holds_too_much)
    }

    /// Records the result of a check. Returns whether this owner held too many slots at the last check too.
    ///
    /// One check may see pins of a dead owner, which the entry's next owner has just cleared. It may also see the pin
    /// of a reader that compares its pins with a lowered quota next, and then releases the pin.
    fn confirm(&mut self, generation: u32, holds_too_much: bool) -> bool {
        let was_suspect = self.suspect == Some(generation);
        self.suspect = holds_too_much.then_some(generation);
        holds_too_much && was_suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A single check may see pins that are not the reader's, so only the second check in a row evicts.
    #[test]
    fn owner_is_evicted_at_second_check_that_finds_too_many_pins() {
        let mut record = QuotaRecord::of_new_reader();
        assert!(!record.update(7, 0, 1));
        assert!(!record.update(7, 0, 0));
        assert!(!record.update(7, 0, 1));
        assert!(!record.update(8, 0, 1), "another owner");
        assert!(record.update(8, 0, 1));

        let mut unattached = QuotaRecord::of_new_reader().after_leaving();
        assert!(!unattached.update_unattached(7, 1));
        assert!(unattached.update_unattached(7, 1));
    }

    #[test]
    fn reader_keeps_slots_of_earlier_quota() {
        let mut record = QuotaRecord::of_new_reader();
        for (quota, held) in [(3, 3), (1, 3), (1, 3), (5, 5), (0, 5), (0, 5)] {
            assert!(!record.update(7, quota, held), "{quota} {held}");
        }
    }
}
