// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reader table as the writer sees it: attached readers, what they hold, and evictions.

use std::sync::atomic::Ordering;

use super::{
    quota::{EntryUsage, Usage},
    service::ServiceReport,
    slots::SlotAllocator,
};
use crate::protocol::layout::{MAX_READERS, reader_state};

/// With a smaller quota, readers have to copy frames: one pin to copy from, one for a frame on display, and one for the
/// frame displayed before, which many sinks keep.
const SUFFICIENT_QUOTA: u32 = 3;

/// The writer's records of the owners of the reader entries.
#[derive(Debug)]
pub(super) struct ReaderTable {
    records: [ReaderRecord; MAX_READERS],
}

#[derive(Clone, Copy, Debug, Default)]
struct ReaderRecord {
    /// The generation of the reader that is attached.
    generation: Option<u32>,
    /// The generation of an owner that held too many slots at the last check.
    suspect: Option<u32>,
}

impl ReaderTable {
    pub(super) fn new() -> Self {
        Self {
            records: [ReaderRecord::default(); MAX_READERS],
        }
    }

    /// The generation of the attached reader in `entry`.
    pub(super) fn generation(&self, entry: usize) -> Option<u32> {
        self.records[entry].generation
    }

    /// Compares the readers that are attached now with the readers of the last call, and reports the differences.
    /// `reader_in` returns the generation of the reader in an entry, and gets that of the last call.
    pub(super) fn update(&mut self, reader_in: impl Fn(usize, Option<u32>) -> Option<u32>, report: &mut ServiceReport) {
        for (entry, record) in self.records.iter_mut().enumerate() {
            let now = reader_in(entry, record.generation);
            if now != record.generation {
                // A reader that goes on to another segment may have another generation there. In that case it counts as
                // a new reader.
                if record.generation.is_some() {
                    report.disconnected.push(entry as u32);
                }
                if now.is_some() {
                    report.connected.push(entry as u32);
                }
                record.generation = now;
            }
            report.reader_count += u32::from(now.is_some());
        }
    }

    /// Evicts readers that hold more slots than the largest quota.
    pub(super) fn evict_greedy(&mut self, slots: &mut SlotAllocator, report: &mut ServiceReport) {
        for (entry, usage) in self.usage(slots).into_iter().enumerate() {
            let record = &mut self.records[entry];
            let generation = record.generation.unwrap_or(usage.owner);
            // The entry may have another owner meanwhile, whose pins do not belong to this reader.
            let holds_too_much = usage.held > slots.largest_quota() && usage.owner == generation;
            if record.confirm(generation, holds_too_much) {
                slots.evict(entry, generation);
                report.evicted.push(entry as u32);
            }
        }
    }

    /// Grants the quota that the slots allow. Returns whether readers get less than [`SUFFICIENT_QUOTA`].
    pub(super) fn update_quota(&self, slots: &mut SlotAllocator) -> bool {
        slots.update_quota(&self.usage(slots));
        let usage = self.usage(slots);
        slots.count_promised(&usage);
        slots.quota() < SUFFICIENT_QUOTA && usage.iter().any(|usage| usage.reader.is_some())
    }

    /// The usage of each entry's owner.
    pub(super) fn usage(&self, slots: &SlotAllocator) -> Usage {
        core::array::from_fn(|entry| {
            let shared = slots.segment().tables().entry(entry);
            // All three are acquire loads, which pair with the release stores of the entry's owner. The pins are loaded
            // first, so the generation is not older than the pins.
            let bits = shared.pins.load(Ordering::Acquire);
            let owner = shared.generation.load(Ordering::Acquire);
            let is_ignored = |generation: u32| slots.pins().is_ignored(entry, generation);
            // A reader that has attached since the readers were recorded counts too.
            let is_present = reader_state::is_present(shared.state.load(Ordering::Acquire));
            // A recorded reader that was evicted, or that is dead, does not hide the next owner of its entry.
            let recorded = self.generation(entry).filter(|known| !is_ignored(*known));
            let present = (is_present && !is_ignored(owner)).then_some(owner);
            EntryUsage {
                owner,
                held: if is_ignored(owner) { 0 } else { bits.count_ones() },
                reader: recorded.or(present),
            }
        })
    }
}

impl ReaderRecord {
    /// Records the result of a check. Returns whether this owner held too many slots at the last check too.
    ///
    /// One check may see pins of a dead owner, which the entry's next owner has just cleared.
    fn confirm(&mut self, generation: u32, holds_too_much: bool) -> bool {
        let was_suspect = self.suspect == Some(generation);
        self.suspect = holds_too_much.then_some(generation);
        holds_too_much && was_suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A single check may see pins that are not the reader's, so only the second check in a row evicts.
    #[test]
    fn owner_is_evicted_at_second_check_that_finds_too_many_pins() {
        let mut record = ReaderRecord::default();
        assert!(!record.confirm(7, true));
        assert!(!record.confirm(7, false));
        assert!(!record.confirm(7, true));
        assert!(!record.confirm(8, true), "another owner");
        assert!(record.confirm(8, true));
    }
}
