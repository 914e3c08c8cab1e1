//! More readers than slots.
//!
//! Each reader is to be granted [`INITIAL_QUOTA`] slots, else its frames are copied, and of many readers each copy is one of
//! many. They cannot all have slots of their own; but readers of one stream mostly hold the same few frames. So they are
//! granted more than there is, and two things keep that from stopping the writer: a few slots without a frame, which nobody
//! can pin, and, when those cannot be kept, an end to all grants. Then no slot more is pinned until there are enough again;
//! readers keep what they hold, and copy meanwhile.

use std::sync::atomic::{Ordering, fence};

use super::{CurrentSegment, readers::INITIAL_QUOTA};
use crate::protocol::layout::{EVICTED, flags};

/// Slots without a frame: from the end of the grants on the writer draws into them in turn, as it may not take the newest.
const RESERVE: u32 = 2;
/// For fewer slots than this, beside all that the writer needs, it is not worth while.
const LEAST_ROOM: u32 = 4 * INITIAL_QUOTA;

/// How readers are granted slots that cannot each have enough of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overcommit {
    /// They can.
    #[default]
    None,
    /// They are granted more than there is.
    Sharing,
    /// They hold too many different frames: no grants.
    Stopped,
}

impl CurrentSegment {
    /// How many of so many slots may be pinned while the writer has all that it needs.
    fn room(&self, slots: u32) -> u32 {
        slots.saturating_sub(self.history() + 1 + self.claimed_slots().max(1) + RESERVE)
    }

    /// Whether readers that can each have `share` slots are to share theirs. Not of a lossless writer, whose slowest reader
    /// all wait for anyway.
    pub(super) fn needs_overcommit(&self, share: u32) -> bool {
        let header = &self.segment.segment.header;
        share < INITIAL_QUOTA && header.flags & flags::LOSSLESS == 0 && self.room(header.slot_count) >= LEAST_ROOM
    }

    /// Looks how a crowd of readers fares, after each has got slots of its own as far as they go.
    pub(super) fn update_overcommit(&mut self, needs_overcommit: bool, head: u64) {
        let room = self.room(self.slots.committed);
        let pinned = self.slots.pinned(&self.segment).count_ones();
        self.slots.overcommit = if !needs_overcommit || self.can_grow() || room < LEAST_ROOM {
            Overcommit::None
        } else {
            // Once stopped only when most of it is over; one reader that is held up is not much.
            let most = match self.slots.overcommit {
                Overcommit::Stopped => (room / 4).max(INITIAL_QUOTA),
                Overcommit::None | Overcommit::Sharing => room / 2,
            };
            if pinned <= most && self.fill_reserve(head) {
                Overcommit::Sharing
            } else {
                Overcommit::Stopped
            }
        };
    }

    /// Slots that are kept without a frame.
    pub(super) fn reserve(&self, pinned: u64) -> u64 {
        let mut blank = if self.slots.overcommit == Overcommit::None {
            0
        } else {
            self.blank(pinned)
        };
        let mut reserve = 0;
        for _ in 0..RESERVE {
            reserve |= blank & blank.wrapping_neg();
            blank &= blank.wrapping_sub(1);
        }
        reserve
    }

    /// Slots without a frame that nobody holds.
    fn blank(&self, pinned: u64) -> u64 {
        (0..self.slots.committed as usize)
            .filter(|slot| self.slots.numbers[*slot] == 0 && !self.segment.is_claimed(*slot))
            .fold(0, |blank, slot| blank | 1 << slot)
            & !pinned
    }

    /// Takes the frames out of the oldest slots until there are enough without one; `false` where that cannot be.
    fn fill_reserve(&mut self, head: u64) -> bool {
        let newest = head.saturating_sub(self.history().max(1).into());
        // At each turn one slot less has a frame.
        loop {
            let pinned = self.slots.pinned(&self.segment);
            let blank = self.blank(pinned);
            if blank.count_ones() >= RESERVE {
                return true;
            }
            let Some(slot) = self.slots.oldest(&self.segment, !(pinned | blank), newest) else {
                return false;
            };
            self.slots.take(&self.segment, slot);
        }
    }

    /// A slot of the reserve, when there is no other: from then on nobody pins one more.
    pub(super) fn take_reserve(&mut self) -> Option<usize> {
        if self.slots.overcommit == Overcommit::None {
            return None;
        }
        if self.slots.overcommit == Overcommit::Sharing {
            self.withdraw_quotas();
        }
        let reserve = self.reserve(self.slots.pinned(&self.segment));
        (0..self.slots.committed as usize)
            .filter(|slot| reserve >> slot & 1 == 1)
            .find(|slot| self.slots.take(&self.segment, *slot))
    }

    /// Lets nobody pin one more.
    fn withdraw_quotas(&mut self) {
        self.slots.overcommit = Overcommit::Stopped;
        for (entry, _) in self.segment.segment.tables.readers().iter().enumerate() {
            let shared = self.segment.segment.tables.quota(entry);
            // Relaxed: nobody else writes it.
            let quota = shared.load(Ordering::Relaxed);
            if quota as u32 != EVICTED {
                shared.store(quota >> 32 << 32, Ordering::Release);
            }
        }
        // Pairs with the fence in `PinCounts::pin`: who has set a bit that was not seen by the next look at the pins sees that
        // its grant is gone, and gives the pin back.
        fence(Ordering::SeqCst);
    }
}
