//! Which slot the next frame gets.

use std::sync::{Arc, atomic::Ordering};

use super::{Current, Retired, Slot, State, WriterSegment};
use crate::{
    layout::{MAX_SLOTS, SEATS, seat_state},
    pins::take_for_writing,
};

/// What the writer knows of its slots.
#[derive(Debug)]
pub(super) struct SlotTable {
    /// Number of the frame in each; 0 = free, or being drawn.
    pub(super) numbers: [u64; MAX_SLOTS],
    /// Slots with memory behind them.
    pub(super) backed: u32,
    /// Bits of slots whose memory went back to the system.
    pub(super) given_back: u64,
    /// The system had no memory for one more.
    pub(super) full: bool,
    /// For each seat the ticket of an owner whose pins do not count: it is dead, or was evicted.
    pub(super) ignored: [Option<u32>; SEATS],
}

impl SlotTable {
    pub(super) fn new(backed: u32) -> Self {
        Self {
            numbers: [0; MAX_SLOTS],
            backed,
            given_back: 0,
            full: false,
            ignored: [None; SEATS],
        }
    }

    /// The slots that somebody's pin counts for.
    fn pinned(&self, owner: &WriterSegment) -> u64 {
        (0..SEATS).fold(0, |all, seat| {
            let shared = owner.segment.control.seat(seat);
            // Acquire: pairs with the reader's release stores. A cleared bit means that its reader has done with the
            // slot; a set one, that the ticket read next is not older than its.
            let bits = shared.pins.load(Ordering::Acquire);
            if bits == 0 || self.ignored[seat] == Some(shared.ticket.load(Ordering::Acquire)) {
                all
            } else {
                all | bits
            }
        })
    }

    /// Takes `slot` for writing unless it is pinned.
    fn take(&mut self, owner: &WriterSegment, slot: usize) -> bool {
        let number = &owner.segment.slot_head(slot).number;
        self.numbers[slot] = 0;
        take_for_writing(number, || self.pinned(owner) >> slot & 1 == 1)
    }

    /// The oldest slot of `allowed` that a frame of number `newest_to_take` or less is in; free ones first.
    fn oldest(&self, owner: &WriterSegment, allowed: u64, newest_to_take: u64) -> Option<usize> {
        (0..self.backed as usize)
            .filter(|slot| {
                allowed >> slot & 1 == 1 && self.numbers[*slot] <= newest_to_take && !owner.is_in_hand(*slot)
            })
            .min_by_key(|slot| self.numbers[*slot])
    }

    /// Looks which of the seats that stand in the way belong to nobody any more. The lock is asked after the pins were
    /// read: a later owner's pins came after that, found the number 0, and are not valid.
    pub(super) fn ignore_the_dead(&mut self, owner: &WriterSegment) -> bool {
        let mut found = false;
        for seat in 0..SEATS {
            let shared = owner.segment.control.seat(seat);
            let stands_in_the_way = shared.pins.load(Ordering::Acquire) != 0
                || shared.state.load(Ordering::Acquire) == seat_state::ATTACHED;
            let ticket = shared.ticket.load(Ordering::Acquire);
            if stands_in_the_way && self.ignored[seat] != Some(ticket) && !owner.is_alive(seat) {
                self.ignored[seat] = Some(ticket);
                found = true;
            }
        }
        found
    }

    /// The number up to which every reader that counts has taken all frames.
    fn taken_by_all(&self, owner: &WriterSegment) -> u64 {
        (0..SEATS)
            .filter_map(|seat| {
                let shared = owner.segment.control.seat(seat);
                // Acquire: pairs with the reader's release store; its position is at least the one it began with.
                let attached = shared.state.load(Ordering::Acquire) == seat_state::ATTACHED;
                let counts = attached && self.ignored[seat] != Some(shared.ticket.load(Ordering::Acquire));
                counts.then(|| shared.position.load(Ordering::Acquire))
            })
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Current {
    /// The youngest frame that may give its slot up: older than what is kept for latecomers and, in lossless mode, taken
    /// by all. Never the newest.
    fn newest_to_take(&self, head: u64, lossless: bool) -> u64 {
        // Where the system has no memory for more slots, fewer frames are kept rather than none published.
        let retain = self.segment.segment.fixed.retain.min(self.capacity() - 1).max(1);
        let kept = head.saturating_sub(retain.into());
        if lossless {
            kept.min(self.slots.taken_by_all(&self.segment))
        } else {
            kept
        }
    }

    fn can_grow(&self) -> bool {
        !self.slots.full && self.slots.backed < self.segment.segment.fixed.slot_count
    }

    /// Slots there are or may be.
    pub(super) fn capacity(&self) -> u32 {
        if self.can_grow() {
            self.segment.segment.fixed.slot_count
        } else {
            self.slots.backed
        }
    }
}

impl State {
    /// Finds a slot for a frame of `size` bytes and takes it.
    pub(super) fn claim(&mut self, lossless: bool, size: usize, for_upstream: bool) -> Option<Slot> {
        let head = self.head;
        let current = self.current.as_mut()?;
        let size = size as u64;
        if size > current.segment.segment.fixed.slot_size {
            return None;
        }
        if for_upstream {
            let out = (0..current.slots.backed as usize)
                .filter(|slot| current.slots.numbers[*slot] == 0 && current.segment.is_in_hand(*slot))
                .count();
            if out * 2 >= current.capacity() as usize {
                return None;
            }
        }
        let index = current
            .take_oldest(head, lossless)
            .or_else(|| {
                current
                    .slots
                    .ignore_the_dead(&current.segment)
                    .then(|| current.take_oldest(head, lossless))
                    .flatten()
            })
            .or_else(|| current.grow())
            .or_else(|| {
                current
                    .slots
                    .full
                    .then(|| current.take_oldest(head, lossless))
                    .flatten()
            })?;
        // Relaxed: only this process looks at it, under the state's lock when it takes slots.
        current.segment.in_hand[index].store(true, Ordering::Relaxed);
        Some(Slot {
            owner: Arc::clone(&current.segment),
            index,
            size,
        })
    }

    /// Whether [`claim`](Self::claim) in lossless mode would find a slot.
    pub(super) fn has_claimable(&mut self) -> bool {
        let head = self.head;
        let Some(current) = self.current.as_mut() else {
            return true;
        };
        let finds = |current: &Current| {
            let free = !current.slots.pinned(&current.segment);
            let newest = current.newest_to_take(head, true);
            current.can_grow() || current.slots.oldest(&current.segment, free, newest).is_some()
        };
        finds(current) || (current.slots.ignore_the_dead(&current.segment) && finds(current))
    }
}

impl Current {
    fn take_oldest(&mut self, head: u64, lossless: bool) -> Option<usize> {
        let newest = self.newest_to_take(head, lossless);
        let mut allowed = !self.slots.pinned(&self.segment);
        while let Some(slot) = self.slots.oldest(&self.segment, allowed, newest) {
            if self.slots.take(&self.segment, slot) {
                return Some(slot);
            }
            allowed &= !(1 << slot);
        }
        None
    }

    /// Backs one more slot.
    fn grow(&mut self) -> Option<usize> {
        if !self.can_grow() {
            return None;
        }
        let slot = self.slots.backed as usize;
        if self.segment.segment.back_slot(slot).is_err() {
            // The end of growth, until the service has tried again.
            self.slots.full = true;
            return None;
        }
        self.slots.backed += 1;
        self.slots.take(&self.segment, slot).then_some(slot)
    }

    /// Tries whether the system has memory again, by backing a slot. What readers are granted must not grow before.
    pub(super) fn retry_growth(&mut self) {
        let slot = self.slots.backed;
        if self.slots.full
            && slot < self.segment.segment.fixed.slot_count
            && self.segment.segment.back_slot(slot as usize).is_ok()
        {
            self.slots.backed += 1;
            self.slots.full = false;
        }
    }
}

impl Retired {
    /// Gives the memory of all slots back that nobody holds. In lossless mode, of frames that all have taken.
    pub(super) fn give_back(&mut self, lossless: bool) {
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
                self.segment.segment.punch_slot(slot);
                self.slots.given_back |= 1 << slot;
            }
            allowed &= !(1 << slot);
        }
    }

    /// Whether no slot has memory any more.
    pub(super) fn is_empty(&self) -> bool {
        (0..self.slots.backed).all(|slot| self.slots.given_back >> slot & 1 == 1)
    }
}
