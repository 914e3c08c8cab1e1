// SPDX-License-Identifier: MIT OR Apache-2.0

//! The quota: how many different slots each reader may pin.
//!
//! | quantity | meaning |
//! |---|---|
//! | held | the slots that a reader's counted pins mark now |
//! | quota | how many slots each reader may pin now; 0 while it is withdrawn |
//! | largest quota | the quota that a segment has as long as its slots suffice; a reader that holds more is evicted |
//! | promised | the slots that are pinned if each reader pins its whole quota, and no two pin the same slot |
//! | share | the largest quota with which the promised slots leave the writer all that it needs |
//!
//! docs/MEMORY.md explains the rules. `spare` carries them out.

use super::options::MIN_SLOTS;
use crate::protocol::layout::{Header, MAX_QUOTA, MAX_READERS};

/// The number of spare slots. After the quota was withdrawn, the writer may have only these slots. It then uses them in
/// turn, because it must not overwrite the newest frame.
pub(super) const SPARE_SLOTS: u32 = 2;
/// With so many slots beyond the promised ones, no spare slots are needed: two for the writer, and two for readers that
/// attach between two looks of the writer. Each of them first pins the newest frame of the last look, or the next.
const UNPROMISED_SLOTS: u32 = SPARE_SLOTS + 2;

/// The largest quota in a segment. The header may be one that another process has damaged.
pub(super) fn largest_quota(header: &Header) -> u32 {
    header
        .slot_count
        .saturating_sub(header.history.saturating_add(2))
        .min(MAX_QUOTA)
}

/// The quota of one segment, and what follows from it.
#[derive(Debug)]
pub(super) struct Quota {
    /// The quota that readers find.
    current: u32,
    largest: u32,
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

    pub(super) fn largest(&self) -> u32 {
        self.largest
    }

    /// Sets the quota, and returns the former one.
    pub(super) fn set(&mut self, quota: u32) -> u32 {
        std::mem::replace(&mut self.current, quota)
    }

    /// The most spare slots that the segment may need.
    pub(super) fn most_spare(&self) -> u32 {
        if self.largest > 0 { SPARE_SLOTS } else { 0 }
    }

    pub(super) fn set_promised(&mut self, slots: u32) {
        self.promised = slots;
    }

    /// Counts the quotas of readers that have attached.
    pub(super) fn note_joins(&mut self, readers: u32) {
        self.promised = self.promised.saturating_add(readers * self.current);
    }

    /// Whether readers could pin so many of `slots` slots that the writer lacks one.
    pub(super) fn needs_spare(&self, slots: u32) -> bool {
        self.current > 0 && self.promised.saturating_add(UNPROMISED_SLOTS) > slots
    }
}

/// The slots that the owner of a reader entry holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryUsage {
    /// The generation that the entry has now.
    pub(super) owner: u32,
    /// The number of slots that the owner's counted pins mark.
    pub(super) held: u32,
    /// The generation of the attached reader; `None` if the entry's reader has left or was evicted.
    pub(super) reader: Option<u32>,
}

/// The usage of all reader entries.
pub(super) type Usage = [EntryUsage; MAX_READERS];

/// The usage of a segment without readers.
pub(super) const NO_USAGE: Usage = [EntryUsage {
    owner: 0,
    held: 0,
    reader: None,
}; MAX_READERS];

/// The slots that are promised with this quota. A reader that holds more slots counts with the slots that it holds.
pub(super) fn promised(usage: &Usage, quota: u32) -> u32 {
    usage
        .iter()
        .map(|usage| match usage.reader {
            Some(_) => usage.held.max(quota),
            None => usage.held,
        })
        .sum()
}

/// The largest quota with which at most `slots` slots are promised.
pub(super) fn share(usage: &Usage, slots: u32) -> u32 {
    (1..=MAX_QUOTA)
        .rev()
        .find(|quota| promised(usage, *quota) <= slots)
        .unwrap_or(0)
}

/// How many slots a new segment gets: the newest frame, one to fill, and the spare slots. Without a quota, no slots are
/// spare.
pub(super) fn initial_slots(largest_quota: u32) -> u32 {
    if largest_quota > 0 { 2 + SPARE_SLOTS } else { MIN_SLOTS }
}
