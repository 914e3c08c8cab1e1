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

use crate::protocol::layout::{MAX_QUOTA, MAX_READERS};

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
