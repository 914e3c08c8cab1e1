//! Which slot the next frame gets.

use std::sync::{Arc, atomic::Ordering};

use super::{CurrentSegment, RetiredSegment, Slot, State, Writer, WriterSegment, overcommit::Overcommit};
use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    layout::{MAX_READERS, MAX_SLOTS, reader_state},
    pins::take_for_writing,
};

/// How many times slots are tried again that readers refused in the last moment.
const REFUSED_ROUNDS: u32 = 4;

/// What the writer knows of its slots.
#[derive(Debug)]
pub(super) struct SlotTable {
    /// Number of the frame in each; 0 = free, or being drawn.
    pub(super) numbers: [u64; MAX_SLOTS],
    /// Slots with memory behind them.
    pub(super) committed: u32,
    /// Bits of slots whose memory went back to the system.
    pub(super) given_back: u64,
    /// The system had no memory for one more.
    pub(super) full: bool,
    /// One more is being backed, outside the state's lock.
    pub(super) growing: bool,
    /// How many readers there are for these slots.
    pub(super) overcommit: Overcommit,
    /// Bits of seats that were ever granted slots. The pins of others do not count, and are not looked at.
    pub(super) granted: u64,
    /// For each seat the ticket of an owner whose pins do not count: it is dead, or was evicted.
    pub(super) ignored: [Option<u32>; MAX_READERS],
}

impl SlotTable {
    pub(super) fn new(committed: u32, granted: u64) -> Self {
        Self {
            numbers: [0; MAX_SLOTS],
            committed,
            given_back: 0,
            full: false,
            growing: false,
            overcommit: Overcommit::None,
            granted,
            ignored: [None; MAX_READERS],
        }
    }

    /// The slots that somebody's pin counts for.
    pub(super) fn pinned(&self, owner: &WriterSegment) -> u64 {
        let readers = owner.segment.tables.readers();
        let (mut all, mut granted) = (0, self.granted);
        // With each frame, so only the seats that matter.
        while granted != 0 {
            let entry = granted.trailing_zeros() as usize;
            granted &= granted - 1;
            // Acquire: pairs with the reader's release stores. A cleared bit means that its reader has done with the
            // slot; a set one, that the ticket read next is not older than its.
            let bits = readers[entry].pins.load(Ordering::Acquire);
            if bits != 0 && self.ignored[entry] != Some(readers[entry].generation.load(Ordering::Acquire)) {
                all |= bits;
            }
        }
        all
    }

    /// Takes `slot`, which nobody was seen to hold, for writing unless it is pinned by now. Its frame is gone either way.
    pub(super) fn take(&mut self, owner: &WriterSegment, slot: usize) -> bool {
        self.numbers[slot] = 0;
        take_for_writing(&owner.segment.slot_record(slot).seq, || {
            self.pinned(owner) >> slot & 1 == 1
        })
    }

    /// The oldest slot of `allowed` that a frame of number `newest_to_take` or less is in; free ones first.
    pub(super) fn oldest(&self, owner: &WriterSegment, allowed: u64, newest_to_take: u64) -> Option<usize> {
        (0..self.committed as usize)
            .filter(|slot| {
                allowed >> slot & 1 == 1 && self.numbers[*slot] <= newest_to_take && !owner.is_claimed(*slot)
            })
            .min_by_key(|slot| self.numbers[*slot])
    }

    /// Looks which of the seats that stand in the way belong to nobody any more. The lock is asked after the pins were
    /// read: a later owner's pins came after that, found the number 0, and are not valid.
    pub(super) fn ignore_the_dead(&mut self, owner: &WriterSegment) -> bool {
        let mut found = false;
        for entry in 0..MAX_READERS {
            let shared = owner.segment.tables.entry(entry);
            let stands_in_the_way = shared.pins.load(Ordering::Acquire) != 0
                || reader_state::is_present(shared.state.load(Ordering::Acquire));
            let generation = shared.generation.load(Ordering::Acquire);
            if stands_in_the_way && self.ignored[entry] != Some(generation) && !owner.is_alive(entry) {
                self.ignored[entry] = Some(generation);
                found = true;
            }
        }
        found
    }

    /// The number up to which every reader that counts has taken all frames.
    fn taken_by_all(&self, owner: &WriterSegment) -> u64 {
        let mut taken = u64::MAX;
        // All seats: who sits down is waited for before the writer has granted it anything.
        for (shared, ignored) in owner.segment.tables.readers().iter().zip(&self.ignored) {
            // Acquire: pairs with the reader's release store; its position is at least the one it began with.
            if reader_state::is_present(shared.state.load(Ordering::Acquire))
                && *ignored != Some(shared.generation.load(Ordering::Acquire))
            {
                taken = taken.min(shared.cursor.load(Ordering::Acquire));
            }
        }
        taken
    }
}

impl CurrentSegment {
    /// The youngest frame that may give its slot up: older than the `history` that are kept for latecomers and, in lossless
    /// mode, taken by all. Never the newest.
    fn newest_to_take(&self, head: u64, lossless: bool, history: u32) -> u64 {
        let kept = head.saturating_sub(u64::from(history.max(1)));
        if lossless {
            kept.min(self.slots.taken_by_all(&self.segment))
        } else {
            kept
        }
    }

    pub(super) fn history(&self) -> u32 {
        self.segment.segment.header.history
    }

    pub(super) fn can_grow(&self) -> bool {
        !self.slots.full && self.slots.committed < self.segment.segment.header.slot_count
    }

    /// Slots there are or may be.
    pub(super) fn capacity(&self) -> u32 {
        if self.can_grow() {
            self.segment.segment.header.slot_count
        } else {
            self.slots.committed
        }
    }

    /// Slots that memory of this process refers to: drawn into, or published and kept by upstream.
    pub(super) fn claimed_slots(&self) -> u32 {
        (0..self.slots.committed as usize)
            .filter(|slot| self.segment.is_claimed(*slot))
            .count() as u32
    }
}

/// What a look for a slot found.
enum Found {
    Slot(Slot),
    /// None, but this one can be backed: it is the caller's, who does that without the state's lock.
    ToGrow(Arc<WriterSegment>, usize),
    Nothing,
}

impl Writer {
    /// Finds a slot for a frame of `size` bytes and takes it; never waits for a reader.
    pub(super) fn take_slot(&self, size: usize, for_upstream: bool) -> Option<Slot> {
        let size = size as u64;
        let lossless = self.options.lossless;
        let found = self.lock().find_slot(lossless, size, for_upstream);
        let (owner, index) = match found {
            Found::Slot(slot) => return Some(slot),
            Found::Nothing => return None,
            Found::ToGrow(owner, index) => (owner, index),
        };
        let committed = self.commit_reserved(&owner, index);
        let mut state = self.lock();
        let head = state.head;
        let current = state
            .current
            .as_mut()
            .filter(|current| Arc::ptr_eq(&current.segment, &owner))?;
        // Another thread may have had the new one since it was there.
        let is_free = committed && current.slots.numbers[index] == 0 && !owner.is_claimed(index);
        let index = if is_free && current.slots.take(&owner, index) {
            index
        } else {
            // What there is has to do.
            current.take_scarce(head, lossless)?
        };
        let slot = current.hand_out(index, size, for_upstream);
        drop(state);
        // Once it is there for all: who needs a slot meanwhile takes one that has its frame still.
        owner.segment.prefault(slot.index, 1);
        Some(slot)
    }

    /// Sees to it that the current segment has memory for `count` slots, as far as there is any.
    pub(super) fn commit_slots(&self, count: u32) {
        loop {
            let reserved = self.lock().current.as_mut().and_then(|current| {
                (current.slots.committed < count && !current.slots.growing)
                    .then(|| current.reserve_growth())
                    .flatten()
            });
            let Some((owner, index)) = reserved else {
                return;
            };
            if self.commit_reserved(&owner, index) {
                owner.segment.prefault(index, 1);
            }
        }
    }

    /// Backs a slot that was reserved for the caller, without a lock held: that takes milliseconds for a large frame, as
    /// the system clears the memory.
    fn commit_reserved(&self, owner: &Arc<WriterSegment>, index: usize) -> bool {
        failpoint(Failpoint::GrowthDue);
        let committed = owner.segment.commit_slot(index).is_ok();
        failpoint(Failpoint::Grown);
        let mut state = self.lock();
        if let Some(current) = state
            .current
            .as_mut()
            .filter(|current| Arc::ptr_eq(&current.segment, owner))
        {
            current.slots.growing = false;
            if committed {
                current.slots.committed += 1;
            } else {
                // The end of growth, until the service tries again.
                current.slots.full = true;
            }
        }
        committed
    }
}

impl State {
    fn find_slot(&mut self, lossless: bool, size: u64, for_upstream: bool) -> Found {
        let head = self.head;
        let Some(current) = self
            .current
            .as_mut()
            .filter(|current| size <= current.segment.segment.header.slot_size)
        else {
            return Found::Nothing;
        };
        if for_upstream {
            // At most half, so that there is one for a copy too. Also what upstream keeps after it was published, as a
            // decoder does, is not to be had.
            let out = current.claimed_slots();
            if out > 0 && (out + 1) * 2 > current.capacity() {
                return Found::Nothing;
            }
        }
        let history = current.history();
        let index = current.take_oldest(head, lossless, history).or_else(|| {
            let found = current.slots.ignore_the_dead(&current.segment);
            found.then(|| current.take_oldest(head, lossless, history)).flatten()
        });
        if let Some(index) = index {
            return Found::Slot(current.hand_out(index, size, for_upstream));
        }
        if !current.slots.growing
            && let Some((owner, index)) = current.reserve_growth()
        {
            return Found::ToGrow(owner, index);
        }
        if current.is_scarce(for_upstream)
            && let Some(index) = current.take_scarce(head, lossless)
        {
            return Found::Slot(current.hand_out(index, size, for_upstream));
        }
        // Not for upstream, which may keep it.
        if !for_upstream && let Some(index) = current.take_reserve() {
            return Found::Slot(current.hand_out(index, size, for_upstream));
        }
        Found::Nothing
    }

    /// Whether [`Writer::take_slot`] in lossless mode would find a slot: one that there is, or one more that is needed, or
    /// `wanted` anyway.
    pub(super) fn has_claimable(&mut self, wanted: bool) -> bool {
        let head = self.head;
        let Some(current) = self.current.as_mut() else {
            return true;
        };
        let finds = |current: &CurrentSegment| {
            let free = !current.slots.pinned(&current.segment);
            let history = if current.is_scarce(false) { 1 } else { current.history() };
            let newest = current.newest_to_take(head, true, history);
            current.slots.oldest(&current.segment, free, newest).is_some()
        };
        if finds(current) || (current.slots.ignore_the_dead(&current.segment) && finds(current)) {
            return true;
        }
        let (committed, history) = (current.slots.committed, current.history());
        let grows = current.can_grow() && !current.slots.growing;
        grows && (wanted || committed < self.slots_for_readers() + history)
    }
}

impl CurrentSegment {
    fn take_oldest(&mut self, head: u64, lossless: bool, history: u32) -> Option<usize> {
        let newest = self.newest_to_take(head, lossless, history);
        // Readers that lag as far as can be try for the very slots that are taken here, and each try refuses a slot for an
        // instant. The numbers are 0 by then, so that it is over in the next round.
        for _ in 0..REFUSED_ROUNDS {
            let pinned = self.slots.pinned(&self.segment);
            let mut allowed = !(pinned | self.reserve(pinned));
            let mut refused = false;
            while let Some(slot) = self.slots.oldest(&self.segment, allowed, newest) {
                if self.slots.take(&self.segment, slot) {
                    return Some(slot);
                }
                refused = true;
                allowed &= !(1 << slot);
            }
            if !refused {
                break;
            }
            core::hint::spin_loop();
        }
        None
    }

    /// The next slot to be backed, if there is one; nobody else backs one before the caller has.
    fn reserve_growth(&mut self) -> Option<(Arc<WriterSegment>, usize)> {
        self.can_grow().then(|| {
            self.slots.growing = true;
            (Arc::clone(&self.segment), self.slots.committed as usize)
        })
    }

    /// Whether fewer frames may be kept for latecomers: there can be no more slots now. Where that is not for want of memory,
    /// only for one frame at a time, and one that is copied: upstream may wait for its publish before it gives its own slots
    /// back, and the service takes its time to back those for readers.
    fn is_scarce(&self, for_upstream: bool) -> bool {
        let copies = || (0..self.slots.committed as usize).any(|slot| self.segment.is_copied_into(slot));
        let grows = self.can_grow() && !self.slots.growing;
        self.slots.full || !for_upstream && !grows && !copies()
    }

    /// As [`take_oldest`](Self::take_oldest), where slots are scarce: fewer frames are kept for latecomers rather than none
    /// published, at the worst the newest alone.
    fn take_scarce(&mut self, head: u64, lossless: bool) -> Option<usize> {
        self.take_oldest(head, lossless, 1)
    }

    /// Makes a taken slot the caller's.
    fn hand_out(&mut self, index: usize, size: u64, for_upstream: bool) -> Slot {
        // Relaxed: looked at under the state's lock when slots are taken.
        self.segment.copied_into[index].store(!for_upstream, Ordering::Relaxed);
        self.segment.claimed_slots[index].store(true, Ordering::Relaxed);
        failpoint(Failpoint::SlotClaimed);
        Slot {
            owner: Arc::clone(&self.segment),
            index,
            size,
        }
    }
}

impl RetiredSegment {
    /// Gives the memory of all slots back that nobody holds. In lossless mode, of frames that all have taken.
    pub(super) fn release(&mut self, lossless: bool) {
        self.slots.ignore_the_dead(&self.segment);
        let newest = if lossless {
            self.slots.taken_by_all(&self.segment)
        } else {
            u64::MAX
        };
        let mut allowed = !self.slots.pinned(&self.segment);
        while let Some(slot) = self
            .slots
            .oldest(&self.segment, allowed & !self.slots.given_back, newest)
        {
            if self.slots.take(&self.segment, slot) {
                failpoint(Failpoint::ReleaseDue);
                self.segment.segment.release_slot(slot);
                self.slots.given_back |= 1 << slot;
            }
            allowed &= !(1 << slot);
        }
    }

    /// Whether no slot has memory any more.
    pub(super) fn is_empty(&self) -> bool {
        (0..self.slots.committed).all(|slot| self.slots.given_back >> slot & 1 == 1)
    }
}
