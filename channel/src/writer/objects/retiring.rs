// SPDX-License-Identifier: MIT OR Apache-2.0

//! Retiring: the frames of objects that nobody needs lose their slots at once, so that upstream gets its buffers back.
//!
//! A slot of an ordinary segment keeps its frame until another frame needs the slot. A frame of objects keeps a buffer
//! of upstream, and a camera has few of them. So after each publish and in each service pass, the frames beyond the
//! history are taken like slots for the next frame: by the pin rule, and no frame that a reader has pinned. The owner
//! value of a slot is dropped when the slot has no frame and nobody can pin it.
//!
//! If readers hold so many frames that upstream would lack buffers, the quota is withdrawn. A frame that is published
//! then cannot be pinned, and is retired after the next one is published. Readers copy such frames, or miss them.

use super::{
    super::{memory::bits, runs::Overwritable, slots::SlotAllocator},
    owners::{Owner, SlotOwners},
};

impl SlotAllocator {
    /// The owner values of the slots; `None` in a segment whose slots have the bytes of the frames.
    fn owners(&mut self) -> Option<&mut SlotOwners> {
        self.owners.as_deref_mut()
    }

    /// Makes this a segment whose slots have references to objects. It has no frames yet.
    pub(crate) fn keep_owners(&mut self, owners: SlotOwners) {
        self.owners = Some(Box::new(owners));
    }

    /// Sets how many frames may be out. It has no effect in a segment without objects.
    pub(crate) fn set_spare_objects(&mut self, spare: u32) {
        if let Some(owners) = self.owners() {
            owners.set_limit(spare);
        }
    }

    /// Whether the next publish leaves at most as many frames out as upstream can spare. If more are out already,
    /// because upstream spares fewer buffers than before, the next publish must add none.
    pub(crate) fn has_spare_object(&self) -> bool {
        let Some(owners) = &self.owners else {
            return true;
        };
        owners.has_spare() || self.newest_goes_back()
    }

    /// Whether the next publish would withdraw the quota although readers could have it if they released frames. With
    /// too few buffers for any quota, the answer is no.
    pub(crate) fn would_limit_objects(&self) -> bool {
        self.owners
            .as_ref()
            .is_some_and(|owners| owners.allows_quota() && owners.is_at_limit(self.uncounted()))
    }

    /// Whether the buffer of the newest frame goes back after the next publish, whatever readers do: nobody can pin the
    /// frame, and in lossless mode all readers have taken it. Without this rule, readers that hold all other frames
    /// until they get the next one would stop a lossless writer for ever.
    fn newest_goes_back(&self) -> bool {
        let newest = self.runs.newest_slots(1);
        let taken = self.taken_by_readers(Overwritable::up_to(u64::MAX));
        bits(newest & self.unpinnable).any(|slot| taken.includes(self.runs.in_slot(slot)))
    }

    /// Gives a claimed slot its owner value, before its frame is published. Returns what the slot kept before.
    pub(super) fn set_owner(&mut self, slot: usize, owner: Owner) -> Option<Owner> {
        match self.owners() {
            Some(owners) => owners.set(slot, owner),
            None => Some(owner),
        }
    }

    /// Takes the frames beyond the history that nobody has pinned, and returns the owner values of all slots that
    /// nobody can read any more. The caller drops them while it holds no lock.
    pub(crate) fn retire(&mut self) -> Vec<Owner> {
        if self.owners.is_none() {
            return Vec::new();
        }
        let pinned = self.pinned();
        self.note_unpinned(pinned);
        for slot in bits(self.candidates(!pinned)) {
            if self.beyond_history().includes(self.runs.in_slot(slot)) {
                if let Some(missing) = self.unless_wanted(slot) {
                    self.take(slot, missing);
                }
            }
        }
        // The camera comes before a reader that still wants an older frame.
        let uncounted = self.uncounted();
        let is_over_limit = |owners: &SlotOwners| owners.is_over_limit(uncounted);
        if self.owners.as_deref().is_some_and(is_over_limit) {
            self.retire_wanted();
        }
        self.take_owners()
    }

    /// Retires all frames that may be overwritten, although a reader that keeps up still wants them.
    fn retire_wanted(&mut self) {
        let pinned = self.pinned();
        self.note_unpinned(pinned);
        let overwritable = self.beyond_newest();
        for slot in bits(self.candidates(!pinned)) {
            let run = *self.runs.in_slot(slot);
            if overwritable.includes(&run) {
                let missing = self.missing(&run);
                self.take(slot, missing);
            }
        }
    }

    /// The slots that have no frame, and that nobody can pin. Their memory may have been released.
    fn given_back(&self) -> u64 {
        self.unpinnable & !self.runs.with_frame() & !self.segment.claimed()
    }

    /// The slots whose buffers do not count against the limit: a slot without a frame that nobody can pin gives its
    /// buffer back, and a claimed slot may have the buffer of the frame that is about to be published.
    fn uncounted(&self) -> u64 {
        (self.unpinnable | self.segment.claimed()) & !self.runs.with_frame()
    }

    /// Takes the owner values of the slots that have no frame, and that nobody can pin.
    pub(crate) fn take_owners(&mut self) -> Vec<Owner> {
        let blank = self.given_back();
        self.owners().map(|owners| owners.take(blank)).unwrap_or_default()
    }

    /// Takes all owner values, because the segment is given up.
    pub(crate) fn take_all_owners(&mut self) -> Vec<Owner> {
        self.owners().map(|owners| owners.take(u64::MAX)).unwrap_or_default()
    }

    /// Decides whether readers may pin the frame that is published next, in a claimed slot. If too many buffers are
    /// out, the quota is withdrawn; if there are enough again, the service is to grant it.
    pub(crate) fn limit_objects(&mut self) {
        let is_at_limit = |slots: &Self| {
            let uncounted = slots.uncounted();
            slots
                .owners
                .as_ref()
                .is_some_and(|owners| owners.is_at_limit(uncounted))
        };
        let is_limited = is_at_limit(self) && {
            self.ignore_dead_readers();
            self.retire_wanted();
            is_at_limit(self)
        };
        let was_limited = self.owners().is_some_and(|owners| owners.set_limited(is_limited));
        if is_limited && self.quota.current() > 0 {
            self.withdraw_quota();
        } else if was_limited && !is_limited {
            self.is_service_due = true;
        }
    }

    /// The largest quota that the buffers of upstream allow now; `None` if they do not matter.
    ///
    /// If the last publish did not reach the limit, readers may pin all frames that are out: the next publish withdraws
    /// the quota in time.
    pub(crate) fn object_quota(&self) -> Option<u32> {
        let owners = self.owners.as_ref()?;
        let is_withdrawn = !owners.allows_quota() || owners.is_limited() && owners.is_at_limit(self.uncounted());
        Some(if is_withdrawn { 0 } else { owners.largest_quota() })
    }
}
