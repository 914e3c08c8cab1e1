// SPDX-License-Identifier: MIT OR Apache-2.0

//! The slots of one segment: which frame is in each slot, and which slot the next frame gets.

use std::sync::{Arc, atomic::Ordering};

use super::{
    counted_pins::CountedPins,
    overcommit::{self, MIN_OVERCOMMIT_SLOTS, Overcommit, SPARE_SLOTS},
    quota::INITIAL_QUOTA,
    runs::{Overwritable, Place, Run, Runs},
    segment::{ClaimedFor, WriterSegment},
    slot::Slot,
};
use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    layout::{EVICTED, flags},
    pins::take_for_writing,
    run::{self, RunPosition},
};

/// The most rounds of one search for a slot. A round fails if readers pin the found slots at the last moment.
const MAX_SEARCH_ROUNDS: u32 = 4;

/// The result of a search for a slot.
pub(super) enum SlotSearch {
    /// The slot was taken for writing.
    Taken(usize),
    /// This slot can get memory. The caller commits memory for it while no lock is held, and then calls
    /// [`finish_growth`](SlotAllocator::finish_growth).
    Grow(usize),
    /// No slot can be taken now.
    Nothing,
}

/// The slots of one segment.
#[derive(Debug)]
pub(super) struct SlotAllocator {
    segment: Arc<WriterSegment>,
    /// The history, copied from the segment's header like the lossless flag below, because each search for a slot needs
    /// them.
    history: u32,
    is_lossless: bool,
    pins: CountedPins,
    runs: Runs,
    /// How many frames readers missed because their slots were taken. A frame counts once for each reader.
    missed: u64,
    /// How many slots have memory.
    committed: u32,
    /// One bit for each slot whose memory was released to the system.
    released: u64,
    /// Whether the last attempt to commit another slot failed for lack of memory.
    is_out_of_memory: bool,
    /// Whether a thread is committing one more slot, which needs no lock of the writer's state.
    is_growing: bool,
    /// `None` while there is no overcommit.
    overcommit: Option<Overcommit>,
}

impl SlotAllocator {
    /// The slots of a new segment, of which `committed` have memory.
    pub(super) fn new(segment: Arc<WriterSegment>, committed: u32) -> Self {
        let header = segment.header();
        Self {
            history: header.history,
            is_lossless: header.flags & flags::LOSSLESS != 0,
            pins: CountedPins::none(),
            runs: Runs::new(header.flags & flags::RUNS != 0),
            missed: 0,
            committed,
            released: 0,
            is_out_of_memory: false,
            is_growing: false,
            overcommit: None,
            segment,
        }
    }

    /// The slots of a segment that a dead writer left.
    pub(super) fn of_dead_writer(segment: WriterSegment) -> Self {
        let mapped = segment.mapped();
        let slots = segment.header().slot_count as usize;
        let committed = (0..slots).take_while(|slot| mapped.is_committed(*slot)).count();
        let mut runs = Runs::new(false);
        for slot in 0..slots {
            let record = mapped.slot_record(slot);
            // Acquire: pairs with the release store of the dead writer, in `publish`.
            let first = record.seq.load(Ordering::Acquire);
            let tail = run::load_tail(&record.tail).unwrap_or(RunPosition::FIRST);
            runs.add_former(slot, first, tail.ordinal);
        }
        Self {
            pins: CountedPins::all(),
            runs,
            ..Self::new(Arc::new(segment), committed as u32)
        }
    }

    pub(super) fn segment(&self) -> &Arc<WriterSegment> {
        &self.segment
    }

    pub(super) fn pins(&self) -> &CountedPins {
        &self.pins
    }

    pub(super) fn committed(&self) -> u32 {
        self.committed
    }

    /// How many slots the segment can have with the memory that there is now, as far as this is known.
    pub(super) fn attainable(&self) -> u32 {
        if self.is_out_of_memory {
            self.committed
        } else {
            self.segment.header().slot_count
        }
    }

    pub(super) fn overcommit(&self) -> Option<Overcommit> {
        self.overcommit
    }

    /// The number of later runs that a frame survives.
    pub(super) fn history(&self) -> u32 {
        self.history
    }

    /// Whether the slot holds a frame that was published.
    pub(super) fn has_frame(&self, slot: usize) -> bool {
        self.runs.has_frame(slot)
    }

    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The runs, to which a publish adds frames.
    pub(super) fn runs_mut(&mut self) -> &mut Runs {
        &mut self.runs
    }

    /// Returns how many frames readers have missed since the last call.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// How many slots hold a frame or are claimed.
    pub(super) fn in_use(&self) -> u32 {
        (0..self.committed as usize)
            .filter(|slot| self.has_frame(*slot) || self.segment.is_claimed(*slot))
            .count() as u32
    }

    /// How many slots are claimed. A claimed slot is being filled, or is published and upstream still keeps it.
    pub(super) fn claimed(&self) -> u32 {
        (0..self.committed as usize)
            .filter(|slot| self.segment.is_claimed(*slot))
            .count() as u32
    }

    /// The least number of slots that the writer needs: one for the newest frame, and the claimed slots, or one to fill
    /// if none is claimed.
    pub(super) fn needed_by_writer(&self) -> u32 {
        1 + self.claimed().max(1)
    }

    /// How many slots all readers together may pin once the segment has all its slots. The writer keeps the slots of
    /// the history and two more. If the system has no memory for more slots, the writer keeps only the slots that it
    /// needs, without a history.
    pub(super) fn available_to_readers(&self) -> u32 {
        if self.is_out_of_memory {
            self.committed.saturating_sub(self.needed_by_writer())
        } else {
            self.segment.header().slot_count.saturating_sub(self.history() + 2)
        }
    }
}

/// Search for the slot of the next frame.
impl SlotAllocator {
    /// Finds a slot for the next frame and takes the slot for writing. The search tries these steps in order:
    ///
    /// 1. A claim for upstream finds nothing if upstream has half of the slots already. Upstream may keep published
    ///    slots, as a decoder does, and copies need slots too.
    /// 2. Take a free slot, or else the oldest slot whose frame is beyond the history. No counted pin may mark the
    ///    slot. In lossless mode, all readers must have taken the frame. Spare slots are left out.
    /// 3. If entries of dead readers are found, ignore their pins from now on, and repeat step 2.
    /// 4. Let the caller commit one more slot, if the segment may have more.
    /// 5. Repeat step 2 with the history in runs alone, without its bytes and its time.
    /// 6. If slots are scarce, repeat step 2 with a history of only the newest run.
    /// 7. For a copy, take a spare slot. From then on, no reader may pin another slot. Upstream gets no spare slot,
    ///    because it may keep the slot for a long time.
    pub(super) fn find(&mut self, claimed_for: ClaimedFor) -> SlotSearch {
        let for_upstream = claimed_for == ClaimedFor::Upstream;
        if for_upstream && self.upstream_has_its_half() {
            return SlotSearch::Nothing;
        }
        if let Some(slot) = self.take_oldest(self.beyond_history()) {
            return SlotSearch::Taken(slot);
        }
        if self.ignore_dead_readers() {
            if let Some(slot) = self.take_oldest(self.beyond_history()) {
                return SlotSearch::Taken(slot);
            }
        }
        if let Some(slot) = self.begin_growth() {
            return SlotSearch::Grow(slot);
        }
        if let Some(slot) = self.take_oldest(self.beyond_runs()) {
            return SlotSearch::Taken(slot);
        }
        if self.is_scarce(claimed_for) {
            if let Some(slot) = self.take_without_history() {
                return SlotSearch::Taken(slot);
            }
        }
        if !for_upstream {
            if let Some(slot) = self.take_spare() {
                return SlotSearch::Taken(slot);
            }
        }
        SlotSearch::Nothing
    }

    /// Marks a taken slot as claimed, and returns it for a frame of `size` bytes.
    pub(super) fn claim(&mut self, slot: usize, size: u64, claimed_for: ClaimedFor) -> Slot {
        self.segment.claim(slot, claimed_for);
        failpoint(Failpoint::SlotClaimed);
        Slot::new(Arc::clone(&self.segment), slot, size)
    }

    /// Claims the place after the newest frame of the newest run, for a frame of `size` bytes. `None` if the frame needs
    /// a slot of its own.
    pub(super) fn claim_append(&self, size: u64) -> Option<Slot> {
        let place = self.append_place(size)?;
        self.segment.claim(place.slot, ClaimedFor::Copy);
        failpoint(Failpoint::SlotClaimed);
        Some(Slot::appended(Arc::clone(&self.segment), place, size))
    }

    /// Whether [`claim_append`](Self::claim_append) would find a place.
    pub(super) fn can_append(&self, size: u64) -> bool {
        self.append_place(size).is_some()
    }

    fn append_place(&self, size: u64) -> Option<Place> {
        self.runs
            .append_place(size, self.segment.header().slot_size)
            .filter(|place| !self.segment.is_claimed(place.slot))
    }

    /// Takes `slot` for writing if it is still free.
    pub(super) fn take_if_free(&mut self, slot: usize) -> bool {
        !self.has_frame(slot) && !self.segment.is_claimed(slot) && self.take(slot)
    }

    /// Takes the oldest slot even if its frames are within the history; only the newest run is protected. Callers use
    /// this when slots are scarce, because a shorter history is better than a dropped frame.
    pub(super) fn take_without_history(&mut self) -> Option<usize> {
        self.take_oldest(self.beyond_newest())
    }

    /// Whether [`find`](Self::find) for a copy would find a slot that has memory.
    pub(super) fn has_takeable(&mut self) -> bool {
        let finds = |slots: &Self| {
            let unpinned = !slots.pins.pinned(&slots.segment);
            let overwritable = if slots.is_scarce(ClaimedFor::Copy) {
                slots.beyond_newest()
            } else if slots.may_begin_growth() {
                slots.beyond_history()
            } else {
                slots.beyond_runs()
            };
            slots.oldest(unpinned, overwritable).is_some()
        };
        finds(self) || (self.ignore_dead_readers() && finds(self))
    }

    /// Ignores the pins of dead readers from now on. Returns whether it found a dead reader that was not ignored
    /// before.
    pub(super) fn ignore_dead_readers(&mut self) -> bool {
        self.pins.ignore_dead(&self.segment)
    }

    fn upstream_has_its_half(&self) -> bool {
        let claimed = self.claimed();
        claimed > 0 && (claimed + 1) * 2 > self.attainable()
    }

    /// Takes the oldest slot that no counted pin marks and whose frames are `overwritable`.
    fn take_oldest(&mut self, overwritable: Overwritable) -> Option<usize> {
        // The slowest readers try to pin the slots that the writer is about to take. Each attempt blocks a slot for a
        // moment. Then the reader finds the seq 0 and unpins the slot, so a later round succeeds.
        for _ in 0..MAX_SEARCH_ROUNDS {
            let pinned = self.pins.pinned(&self.segment);
            let mut allowed = !(pinned | self.spare(pinned));
            let mut was_refused = false;
            while let Some(slot) = self.oldest(allowed, overwritable) {
                if self.take(slot) {
                    return Some(slot);
                }
                was_refused = true;
                allowed &= !(1 << slot);
            }
            if !was_refused {
                break;
            }
            core::hint::spin_loop();
        }
        None
    }

    /// The frames beyond the history. In lossless mode, all readers have taken them.
    fn beyond_history(&self) -> Overwritable {
        self.taken_by_readers(self.runs.beyond_history(self.history))
    }

    /// The frames beyond the history in runs, which may be within its bytes or its time.
    fn beyond_runs(&self) -> Overwritable {
        self.taken_by_readers(self.runs.beyond_runs(self.history))
    }

    /// All frames except those of the newest run. In lossless mode, all readers have taken them.
    fn beyond_newest(&self) -> Overwritable {
        self.taken_by_readers(self.runs.beyond_newest())
    }

    fn taken_by_readers(&self, overwritable: Overwritable) -> Overwritable {
        if self.is_lossless {
            overwritable.at_most(self.pins.slowest_cursor(&self.segment))
        } else {
            overwritable
        }
    }

    /// A free slot, or else the slot with the oldest frames. Only slots count that are `allowed`, not claimed, and whose
    /// frames are all `overwritable`.
    fn oldest(&self, allowed: u64, overwritable: Overwritable) -> Option<usize> {
        (0..self.committed as usize)
            .filter(|slot| allowed >> slot & 1 == 1 && overwritable.includes(self.runs.in_slot(*slot)))
            .filter(|slot| !self.segment.is_claimed(*slot))
            .min_by_key(|slot| self.runs.in_slot(*slot).first)
    }

    /// Takes `slot`, which had no counted pin, for writing. Returns `false` if the slot is pinned by now. In both
    /// cases, the slot loses its frames.
    fn take(&mut self, slot: usize) -> bool {
        let Run { first, last, .. } = *self.runs.in_slot(slot);
        if first != 0 {
            self.missed += self.pins.count_missed(&self.segment, first, last);
        }
        self.runs.clear(slot);
        take_for_writing(&self.segment.mapped().slot_record(slot).seq, || {
            self.pins.pinned(&self.segment) >> slot & 1 == 1
        })
    }

    /// Whether slots are scarce, because the segment cannot grow now. If they are, frames within the history are
    /// overwritten.
    ///
    /// If the system still has memory, slots count as scarce for only one copied frame at a time. This one frame should
    /// get a slot: upstream may release slots only after the frame is published, and the service needs time to commit
    /// slots for readers.
    fn is_scarce(&self, claimed_for: ClaimedFor) -> bool {
        let is_copying = || (0..self.committed as usize).any(|slot| self.segment.is_claimed_for_copy(slot));
        self.is_out_of_memory || claimed_for == ClaimedFor::Copy && !self.may_begin_growth() && !is_copying()
    }
}

/// The growth of the segment.
impl SlotAllocator {
    /// Whether the segment may have more slots.
    pub(super) fn can_grow(&self) -> bool {
        !self.is_out_of_memory && self.committed < self.segment.header().slot_count
    }

    /// Whether the segment may have more slots and no thread is committing one.
    pub(super) fn may_begin_growth(&self) -> bool {
        self.can_grow() && !self.is_growing
    }

    /// Reserves the next slot for the caller, which commits memory for it while no lock is held. The commit takes
    /// milliseconds for a large frame, because the system clears the memory.
    pub(super) fn begin_growth(&mut self) -> Option<usize> {
        self.may_begin_growth().then(|| {
            self.is_growing = true;
            self.committed as usize
        })
    }

    /// Records whether the slot that [`begin_growth`](Self::begin_growth) reserved got memory. If it got none, the
    /// segment does not grow until [`retry_growth`](Self::retry_growth) is called.
    pub(super) fn finish_growth(&mut self, got_memory: bool) {
        self.is_growing = false;
        if got_memory {
            self.committed += 1;
        } else {
            self.is_out_of_memory = true;
        }
    }

    /// Lets the segment grow again, because the system may have memory by now.
    pub(super) fn retry_growth(&mut self) {
        self.is_out_of_memory = false;
    }
}

/// The quotas of readers, and overcommit.
impl SlotAllocator {
    /// Whether overcommit is needed if each reader can have `share` slots of its own. In lossless mode it is never
    /// needed, because the writer waits for the slowest reader.
    pub(super) fn needs_overcommit(&self, share: u32) -> bool {
        share < INITIAL_QUOTA
            && !self.is_lossless
            && self.room(self.segment.header().slot_count) >= MIN_OVERCOMMIT_SLOTS
    }

    /// Begins, stops or ends overcommit. Overcommit begins only after the segment has all its slots.
    pub(super) fn update_overcommit(&mut self, is_needed: bool) {
        let room = self.room(self.committed);
        let pinned = self.pins.pinned(&self.segment).count_ones();
        self.overcommit = if !is_needed || self.can_grow() || room < MIN_OVERCOMMIT_SLOTS {
            None
        } else if pinned <= Overcommit::max_pinned(self.overcommit, room) && self.fill_spare() {
            Some(Overcommit::Sharing)
        } else {
            Some(Overcommit::Stopped)
        };
    }

    /// Publishes the quota of a reader.
    pub(super) fn publish_quota(&mut self, entry: usize, generation: u32, quota: u32) {
        // The entry is included before the quota is stored, because the reader may pin as soon as it sees the quota.
        self.pins.include(entry);
        let quota = u64::from(generation) << 32 | u64::from(quota);
        let shared = self.segment.tables().quota(entry);
        // Relaxed: only the writer stores quotas, under the lock of its state.
        let before = shared.load(Ordering::Relaxed);
        if quota != before {
            let same_owner = quota >> 32 == before >> 32;
            failpoint(if same_owner && quota < before {
                Failpoint::QuotaLowered
            } else {
                Failpoint::QuotaDue
            });
        }
        // Release: pairs with the acquire load of a reader that looks at its quota.
        shared.store(quota, Ordering::Release);
    }

    /// Evicts a reader: its pins no longer count, and its quota says that it was evicted.
    pub(super) fn evict(&mut self, entry: usize, generation: u32) {
        self.pins.ignore(entry, generation);
        self.publish_quota(entry, generation, EVICTED);
    }

    /// How many of `slots` slots readers may pin so that the writer still has all the slots that it needs.
    fn room(&self, slots: u32) -> u32 {
        overcommit::room(slots, self.history(), self.claimed())
    }

    /// The spare slots, which are kept without a frame.
    fn spare(&self, pinned: u64) -> u64 {
        match self.overcommit {
            None => 0,
            Some(_) => overcommit::spare_slots(self.blank(pinned)),
        }
    }

    /// The slots without a frame that are neither claimed nor pinned.
    fn blank(&self, pinned: u64) -> u64 {
        (0..self.committed as usize)
            .filter(|slot| !self.has_frame(*slot) && !self.segment.is_claimed(*slot))
            .fold(0, |blank, slot| blank | 1 << slot)
            & !pinned
    }

    /// Removes the frames of the oldest slots until there are enough spare slots. Returns `false` if not enough frames
    /// can be removed.
    fn fill_spare(&mut self) -> bool {
        let overwritable = self.runs.beyond_history(self.history);
        // The loop ends, because each round removes one frame.
        loop {
            let pinned = self.pins.pinned(&self.segment);
            let blank = self.blank(pinned);
            if blank.count_ones() >= SPARE_SLOTS {
                return true;
            }
            let Some(slot) = self.oldest(!(pinned | blank), overwritable) else {
                return false;
            };
            self.take(slot);
        }
    }

    /// Takes a spare slot. Before that, it withdraws all quotas, so that no reader pins another slot.
    fn take_spare(&mut self) -> Option<usize> {
        match self.overcommit {
            None => return None,
            Some(Overcommit::Sharing) => {
                self.overcommit = Some(Overcommit::Stopped);
                overcommit::withdraw_quotas(self.segment.tables());
            }
            Some(Overcommit::Stopped) => {}
        }
        let spare = self.spare(self.pins.pinned(&self.segment));
        (0..self.committed as usize)
            .filter(|slot| spare >> slot & 1 == 1)
            .find(|slot| self.take(*slot))
    }
}

/// The release of a superseded segment's memory.
impl SlotAllocator {
    /// Releases the memory of all unused slots. In lossless mode, a slot counts as used until all readers have taken
    /// its frame.
    pub(super) fn release_unused(&mut self, lossless: bool) {
        self.ignore_dead_readers();
        let overwritable = Overwritable::up_to(if lossless {
            self.pins.slowest_cursor(&self.segment)
        } else {
            u64::MAX
        });
        let mut allowed = !self.pins.pinned(&self.segment);
        while let Some(slot) = self.oldest(allowed & !self.released, overwritable) {
            if self.take(slot) {
                failpoint(Failpoint::ReleaseDue);
                self.segment.mapped().release_slot(slot);
                self.released |= 1 << slot;
            }
            allowed &= !(1 << slot);
        }
    }

    /// Whether the memory of all slots was released.
    pub(super) fn is_released(&self) -> bool {
        (0..self.committed).all(|slot| self.released >> slot & 1 == 1)
    }
}
