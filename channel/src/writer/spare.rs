// SPDX-License-Identifier: MIT OR Apache-2.0

//! The spare slots, which make sure that the writer always finds a slot, and the quota that depends on them.
//!
//! Readers of one stream mostly hold the same few frames. So the readers together may pin more slots than there are,
//! and slots get memory only when different frames are in use. Three rules protect the writer:
//!
//! - *Spare slots*: while the readers could pin all slots, two slots stay without a frame. Nobody can pin them.
//! - If a claim would take one of them, the segment needs another slot. The service commits it. Until then, or if there
//!   is no memory, the quota is withdrawn: no further slot is pinned, readers keep the slots that they hold, and copy
//!   further frames.
//! - A slot is *unpinnable* if no reader held it when it was last taken, and no frame was published in it since, or
//!   only frames for which there was no quota. The writer takes such a slot whatever the pin words say. So a reader
//!   that stops between its steps, or breaks the rules, costs the writer no slot.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    sync::atomic::Ordering,
};

use super::{
    quota::{self, SPARE_SLOTS, Usage},
    slots::SlotAllocator,
};
use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    pins::lower_quota,
};

impl SlotAllocator {
    /// How many spare slots the next claim has to leave.
    pub(super) fn spare_needed(&self) -> u32 {
        if self.quota.needs_spare(self.memory.count()) {
            SPARE_SLOTS
        } else {
            0
        }
    }

    /// Whether there are as many spare slots as needed.
    pub(super) fn has_spare(&self) -> bool {
        self.blank().count_ones() >= self.spare_needed()
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

    /// Makes sure that the publish of a frame in a claimed slot leaves the spare slots. If readers have attached since
    /// the claim, spare slots may be needed now. If they are missing, the quota is withdrawn.
    pub(super) fn prepare_publish(&mut self, slot: usize) {
        self.note_joins();
        if !self.has_spare() && !self.fill_spare(self.spare_needed()) {
            self.withdraw_quota();
        }
        if self.has_objects() {
            self.limit_objects();
        }
        if self.quota.current() > 0 {
            self.unpinnable &= !(1 << slot);
        }
    }

    /// Withdraws the quota. Every slot that has no counted pin afterwards is unpinnable.
    pub(super) fn withdraw_quota(&mut self) {
        self.quota.set(0);
        lower_quota(&self.segment.tables().status().quota, 0);
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

    /// Sets the quota that the slots allow. If they do not allow a larger one, the quota stays as it is, and the
    /// service is to commit another slot if the segment can grow. The caller then calls
    /// [`count_promised`](Self::count_promised).
    pub(super) fn update_quota(&mut self, usage: &Usage) {
        let wanted = self.wanted_quota(usage);
        let former = self.quota.set(wanted);
        self.count_promised(usage);
        match wanted.cmp(&former) {
            Equal => {}
            Less if wanted == 0 => self.withdraw_quota(),
            Less => lower_quota(&self.segment.tables().status().quota, wanted),
            Greater if !self.can_grant() => {
                self.quota.set(former);
                self.memory.want_growth();
            }
            Greater => {
                self.unpinnable &= !self.runs.with_frame();
                failpoint(Failpoint::QuotaDue);
                // Release: pairs with the acquire load in `PinCounts::pin`. A reader that sees the quota also sees the
                // seqs that were changed while it was withdrawn.
                self.segment.tables().status().quota.store(wanted, Ordering::Release);
            }
        }
    }

    /// Counts the slots that are promised with the present quota. If the quota was lowered, `usage` has been determined
    /// afterwards, because readers pin up to the former quota until then.
    pub(super) fn count_promised(&mut self, usage: &Usage) {
        self.quota.set_promised(quota::promised(usage, self.quota.current()));
    }

    /// Grants the quota in a new segment, so that readers get their first frames in place.
    pub(super) fn grant_first_quota(&mut self) {
        self.update_quota(&quota::NO_USAGE);
    }

    /// The quota that readers should have. As long as the segment can grow, it is the largest one. Otherwise readers
    /// get their share while many slots are pinned, because the share needs no spare slots.
    fn wanted_quota(&self, usage: &Usage) -> u32 {
        let by_slots = self.wanted_quota_by_slots(usage);
        self.object_quota()
            .map_or(by_slots, |by_objects| by_slots.min(by_objects))
    }

    /// The quota that readers should have as far as slots matter.
    fn wanted_quota_by_slots(&self, usage: &Usage) -> u32 {
        if self.memory.can_grow() {
            return self.quota.largest();
        }
        let needed = self.kept_runs() + 1 + self.claimed().max(1) + SPARE_SLOTS;
        let room = self.memory.count().saturating_sub(needed);
        let available = self.available_to_readers();
        let largest = self.quota.largest().min(available);
        // This look leaves new readers to `note_joins`, because `usage` does not have them.
        if self.pins().pinned(&self.segment).count_ones() <= room / 2 {
            largest
        } else {
            quota::share(usage, available).min(largest)
        }
    }

    /// Whether there are enough slots to grant the quota: the next claim must leave the spare slots.
    fn can_grant(&mut self) -> bool {
        self.note_joins();
        let needed = self.spare_needed();
        if needed == 0 {
            return true;
        }
        let kept = self.runs.newest_slots(self.kept_runs());
        let in_use = (self.pinned() | kept) & self.unclaimed();
        in_use.count_ones() + self.claimed().max(1) + needed <= self.memory.count() && self.fill_spare(needed)
    }
}
