// SPDX-License-Identifier: MIT OR Apache-2.0

//! Overcommit: quotas whose sum exceeds the number of slots.
//!
//! Every reader should have a quota of [`INITIAL_QUOTA`] slots. A reader with a smaller quota copies its frames. With
//! many of these readers, each frame is copied many times. Many readers cannot all have slots of their own, but readers
//! of one stream mostly hold the same few frames. So the sum of the quotas may exceed the number of slots. Two rules
//! make sure that the writer always finds a slot:
//!
//! - *Spare slots*: a few slots stay without a frame, so that no reader can pin them.
//! - When the spare slots cannot be kept, all quotas are withdrawn. Then no further slot is pinned until enough slots
//!   are free again. Readers keep the slots that they hold, and copy further frames.

use std::sync::atomic::{Ordering, fence};

use super::quota::INITIAL_QUOTA;
use crate::{protocol::layout::EVICTED, segment::tables::SegmentTables};

/// The number of spare slots. After the quotas were withdrawn, the writer may have only the spare slots. One of them
/// then holds the newest frame, which must not be overwritten, so a second one is needed.
pub(super) const SPARE_SLOTS: u32 = 2;
/// Overcommit is worthwhile only with at least this many slots beyond those that the writer needs.
pub(super) const MIN_OVERCOMMIT_SLOTS: u32 = 4 * INITIAL_QUOTA;

/// The state of a segment whose quotas may exceed its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overcommit {
    /// Readers have quotas whose sum exceeds the slots.
    Sharing,
    /// Readers hold too many different frames: all quotas are withdrawn.
    Stopped,
}

impl Overcommit {
    /// The most slots that may be pinned while readers get quotas. After a stop, this limit is lower, so that readers
    /// get quotas again only when most of the pins are gone. The lower limit still allows for the pins of one delayed
    /// reader.
    pub(super) fn max_pinned(former: Option<Self>, room: u32) -> u32 {
        match former {
            Some(Self::Stopped) => (room / 4).max(INITIAL_QUOTA),
            Some(Self::Sharing) | None => room / 2,
        }
    }
}

/// How many of `slots` slots readers may pin so that the writer still has all the slots that it needs. The writer needs
/// slots for the history and for the newest frame, the claimed slots (at least one), and the spare slots.
pub(super) fn room(slots: u32, history: u32, claimed: u32) -> u32 {
    slots.saturating_sub(history + 1 + claimed.max(1) + SPARE_SLOTS)
}

/// Chooses the spare slots among the `blank` ones, which have no frame, no claim, and no pin.
pub(super) fn spare_slots(mut blank: u64) -> u64 {
    let mut spare = 0;
    for _ in 0..SPARE_SLOTS {
        spare |= blank & blank.wrapping_neg();
        blank &= blank.wrapping_sub(1);
    }
    spare
}

/// Sets all quotas to 0, so that no reader pins another slot. Evicted readers stay evicted.
pub(super) fn withdraw_quotas(tables: &SegmentTables) {
    for (entry, _) in tables.readers().iter().enumerate() {
        let shared = tables.quota(entry);
        // Relaxed: only the writer stores quotas, under the lock of its state.
        let quota = shared.load(Ordering::Relaxed);
        if quota as u32 != EVICTED {
            // Release: pairs with the acquire load of a reader that looks at its quota.
            shared.store(quota >> 32 << 32, Ordering::Release);
        }
    }
    // Pairs with the fence in `PinCounts::pin`. Either the writer's next load of the pins sees a reader's bit, or this
    // reader sees that its quota is gone and releases the pin.
    fence(Ordering::SeqCst);
}
