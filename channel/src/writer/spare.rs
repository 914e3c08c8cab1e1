// SPDX-License-Identifier: MIT OR Apache-2.0

//! The spare slots, which make sure that the writer always finds a slot, and the quota that depends on them.
//!
//! Readers of one stream mostly hold the same few frames. So the readers together may pin more slots than there are, and
//! slots get memory only when different frames are in use. Three rules protect the writer:
//!
//! - *Spare slots*: while the readers could pin all slots, two slots stay without a frame. Nobody can pin them.
//! - If a claim would take one of them, the segment needs another slot. The service commits it. Until then, or if there
//!   is no memory, the quota is withdrawn: no further slot is pinned, readers keep the slots that they hold, and copy
//!   further frames.
//! - A slot is *unpinnable* if no reader held it when it was last taken, and no frame was published in it since, or only
//!   frames for which there was no quota. The writer takes such a slot whatever the pin words say. So a reader that
//!   stops between its steps, or breaks the rules, costs the writer no slot.

use std::sync::atomic::Ordering;

use super::{
    quota::{self, Usage},
    slots::SlotAllocator,
};
use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    layout::{Header, MAX_QUOTA},
    pins::withdraw,
};

/// The number of spare slots. After the quota was withdrawn, the writer may have only these slots. It then uses them in
/// turn, because it must not overwrite the newest frame.
pub(super) const SPARE_SLOTS: u32 = 2;
/// With so many slots beyond the promised ones, no spare slots are needed: two for the writer, and two for readers that
/// attach between two looks of the writer. Each of them first pins the newest frame of the last look, or the next.
const UNPROMISED_SLOTS: u32 = SPARE_SLOTS + 2;

/// The largest quota in a segment.
pub(super) fn largest_quota(header: &Header) -> u32 {
    header.slot_count.saturating_sub(header.history + 2).min(MAX_QUOTA)
}

/// The quota of one segment, and what follows from it.
#[derive(Debug)]
pub(super) struct Quota {
    /// The quota that readers find.
    current: u32,
    pub(super) largest: u32,
    promised: u32,
}

impl Quota {
    pub(super) fn new(largest: u32) -> Self {
        Self {
            current: 0,
            largest,
            promised: 0,
        }
    }

    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// Counts the quotas of readers that have attached.
    pub(super) fn note_joins(&mut self, readers: u32) {
        self.promised = self.promised.saturating_add(readers * self.current);
    }

    /// Whether readers could pin so many of `slots` slots that the writer lacks one.
    fn needs_spare(&self, slots: u32) -> bool {
        self.current > 0 && self.promised.saturating_add(UNPROMISED_SLOTS) > slots
    }
}

impl SlotAllocator {
    /// How many spare slots the next claim has to leave.
    pub(super) fn spare_needed(&self) -> u32 {
        if self.quota.needs_spare(self.memory.count()) {
            SPARE_SLOTS
        } else {
            0
        }
    }

    /// The slots without a frame that are not claimed, and that nobody can pin.
    pub(super) fn blank(&self) -> u64 {
        self.unclaimed() & self.unpinnable & !self.runs.with_frame()
    }

    /// Notes which of the slots without a frame have no pins any more. From then on, nobody can pin them.
    pub(super) fn note_unpinned(&mut self, pinned: u64) {
        self.unpinnable |= self.unclaimed() & !self.runs.with_frame() & !pinned;
    }

    /// Removes the frames of old slots until there are enough spare slots. Returns `false` if not enough frames can be
    /// removed.
    pub(super) fn fill_spare(&mut self, needed: u32) -> bool {
        // The loop ends, because each round removes one frame.
        loop {
            let pinned = self.pinned();
            self.note_unpinned(pinned);
            if self.blank().count_ones() >= needed {
                return true;
            }
            let Some((slot, missing)) = self.coldest(!pinned) else {
                return false;
            };
            self.take(slot, missing);
        }
    }

    /// Whether the publish of a frame in a claimed slot leaves the spare slots. If readers have attached since the claim,
    /// spare slots may be needed now. If they are missing, the quota is withdrawn.
    pub(super) fn prepare_publish(&mut self, slot: usize) {
        if self.note_joins() && !self.fill_spare(self.spare_needed()) {
            self.withdraw_quota();
        }
        if self.quota.current > 0 {
            self.unpinnable &= !(1 << slot);
        }
    }

    /// Withdraws the quota. Every slot that has no counted pin afterwards is unpinnable.
    pub(super) fn withdraw_quota(&mut self) {
        self.quota.current = 0;
        withdraw(&self.segment.tables().status().quota);
        let pinned = self.pinned();
        self.unpinnable |= self.unclaimed() & !pinned;
        self.is_service_due = true;
    }

    /// How many slots the readers may pin so that the writer keeps the frames of the history, the newest frame, and a
    /// slot to fill. If the system has no memory for more slots, the writer does without a history.
    pub(super) fn available_to_readers(&self) -> u32 {
        if self.memory.is_out_of_memory() {
            self.memory.count().saturating_sub(1 + self.claimed().max(1))
        } else {
            self.segment.header().slot_count.saturating_sub(self.history() + 2)
        }
    }

    /// Sets the quota that the slots allow. If they do not allow any, the quota stays withdrawn, and the service is to
    /// commit another slot if the segment can grow.
    pub(super) fn update_quota(&mut self, usage: &Usage) {
        let wanted = self.wanted_quota(usage);
        self.quota.promised = quota::promised(usage, wanted);
        let former = std::mem::replace(&mut self.quota.current, wanted);
        if former == wanted {
            return;
        }
        if wanted == 0 {
            return self.withdraw_quota();
        }
        if former == 0 && !self.can_grant() {
            self.quota.current = 0;
            self.memory.want_growth();
            return;
        }
        self.unpinnable &= !self.runs.with_frame();
        failpoint(Failpoint::QuotaDue);
        // Release: pairs with the acquire load in `PinCounts::pin`. A reader that sees the quota also sees the seqs that
        // were changed while it was withdrawn.
        self.segment.tables().status().quota.store(wanted, Ordering::Release);
    }

    /// Grants the quota in a new segment, so that readers get their first frames in place.
    pub(super) fn grant_first_quota(&mut self) {
        self.update_quota(&quota::NO_USAGE);
    }

    /// The quota that readers should have. As long as the segment can grow, it is the largest one. Otherwise readers get
    /// their share while many slots are pinned, because the share needs no spare slots.
    fn wanted_quota(&mut self, usage: &Usage) -> u32 {
        if self.memory.can_grow() {
            return self.quota.largest;
        }
        let needed = self.kept_runs() + 1 + self.claimed().max(1) + SPARE_SLOTS;
        let room = self.memory.count().saturating_sub(needed);
        let available = self.available_to_readers();
        let largest = self.quota.largest.min(available);
        if self.pinned().count_ones() <= room / 2 {
            largest
        } else {
            quota::share(usage, available).min(largest)
        }
    }

    /// Whether there are enough slots to grant the quota: the next claim must leave the spare slots.
    fn can_grant(&mut self) -> bool {
        let needed = self.spare_needed();
        if needed == 0 {
            return true;
        }
        let kept = self.runs.newest_slots(self.kept_runs());
        let in_use = (self.pinned() | kept) & self.unclaimed();
        in_use.count_ones() + self.claimed().max(1) + needed <= self.memory.count() && self.fill_spare(needed)
    }
}
