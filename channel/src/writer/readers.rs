// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reader table as the writer sees it: attached readers, their quotas, and evictions.

use std::sync::atomic::Ordering;

use super::{
    overcommit::Overcommit,
    quota::{self, EntryUsage, INITIAL_QUOTA, QuotaRecord, Usage},
    service::ServiceReport,
    slots::SlotAllocator,
};
use crate::protocol::layout::MAX_READERS;

/// The writer's records of the owners of the reader entries.
#[derive(Debug)]
pub(super) struct ReaderTable {
    records: [ReaderRecord; MAX_READERS],
}

#[derive(Clone, Copy, Debug, Default)]
struct ReaderRecord {
    /// The generation of the reader that is attached.
    generation: Option<u32>,
    quota: QuotaRecord,
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
                *record = ReaderRecord {
                    generation: now,
                    quota: match now {
                        Some(_) => QuotaRecord::of_new_reader(),
                        None => record.quota.after_leaving(),
                    },
                };
            }
            report.reader_count += u32::from(now.is_some());
        }
    }

    /// How many slots must have memory so that all readers can get their wanted quotas.
    pub(super) fn needed_slots(&self, slots: &SlotAllocator) -> u32 {
        let usage = self.usage(slots);
        quota::sum(&usage, &self.wanted_quotas(slots, &usage)) + slots.needed_by_writer()
    }

    /// Publishes the quota of each reader, and evicts readers that hold more slots than they may. Returns whether
    /// readers share too few slots to get [`INITIAL_QUOTA`] each.
    pub(super) fn update_quotas(&mut self, slots: &mut SlotAllocator, report: &mut ServiceReport) -> bool {
        let usage = self.usage(slots);
        let share = share(slots, &usage);
        let needs_overcommit = slots.needs_overcommit(share);
        slots.update_overcommit(needs_overcommit);
        let quotas = self.quotas_that_fit(slots, &usage);
        for (entry, (usage, quota)) in usage.into_iter().zip(quotas).enumerate() {
            let record = &mut self.records[entry];
            let generation = record.generation.unwrap_or(usage.owner);
            if slots.pins().is_ignored(entry, generation) {
                continue;
            }
            let holds_too_much = match record.generation {
                // The entry may have another owner meanwhile, whose pins do not belong to this reader.
                Some(_) if usage.owner != generation => record.quota.update(generation, quota, 0),
                Some(_) => record.quota.update(generation, quota, usage.held),
                None => record.quota.update_unattached(generation, usage.held),
            };
            if holds_too_much {
                slots.evict(entry, generation);
                report.evicted.push(entry as u32);
            } else if record.generation.is_some() {
                slots.publish_quota(entry, generation, quota);
            }
        }
        report.reader_count > 0 && share < INITIAL_QUOTA
    }

    /// The usage of each entry's owner.
    fn usage(&self, slots: &SlotAllocator) -> Usage {
        core::array::from_fn(|entry| {
            let shared = slots.segment().tables().entry(entry);
            // Both are acquire loads, which pair with the release stores of the entry's owner. The pins are loaded
            // first, so the generation is not older than the pins.
            let bits = shared.pins.load(Ordering::Acquire);
            let owner = shared.generation.load(Ordering::Acquire);
            let is_ignored = |generation: u32| slots.pins().is_ignored(entry, generation);
            EntryUsage {
                owner,
                held: if is_ignored(owner) { 0 } else { bits.count_ones() },
                reader: self.generation(entry).filter(|generation| !is_ignored(*generation)),
            }
        })
    }

    /// The quota that each reader should get. With overcommit, this quota may exceed the share.
    fn wanted_quotas(&self, slots: &SlotAllocator, usage: &Usage) -> [u32; MAX_READERS] {
        let limit = match slots.overcommit() {
            Some(Overcommit::Stopped) => 0,
            None | Some(Overcommit::Sharing) => {
                let share = share(slots, usage);
                if slots.needs_overcommit(share) {
                    INITIAL_QUOTA
                } else {
                    share
                }
            }
        };
        core::array::from_fn(|entry| quota::wanted(usage[entry].held, self.records[entry].quota.quota(), limit))
    }

    /// The wanted quotas, lowered until the slots with memory are enough for them. While readers share slots by
    /// overcommit, the quotas are not lowered.
    fn quotas_that_fit(&self, slots: &SlotAllocator, usage: &Usage) -> [u32; MAX_READERS] {
        let available = match slots.overcommit() {
            Some(Overcommit::Sharing) => u32::MAX,
            None | Some(Overcommit::Stopped) => slots.committed().saturating_sub(slots.needed_by_writer()),
        };
        quota::lower_to_fit(usage, self.wanted_quotas(slots, usage), available)
    }
}

/// How many slots each reader can have if the readers share none.
fn share(slots: &SlotAllocator, usage: &Usage) -> u32 {
    quota::share(usage, slots.available_to_readers())
}
