// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counted pins: the pins of readers that live, have a quota, and were not evicted.

use std::sync::atomic::Ordering;

use super::segment::WriterSegment;
use crate::protocol::layout::{MAX_READERS, reader_state};

/// The readers whose pins count in one segment.
#[derive(Debug)]
pub(super) struct CountedPins {
    /// Bits of the reader entries that have had a quota in this segment. Pins of other entries do not count and are not
    /// checked.
    with_quota: u64,
    /// For each reader entry, the generation whose pins do not count: its owner is dead or was evicted.
    ignored: [Option<u32>; MAX_READERS],
}

impl CountedPins {
    /// The counted pins of a new segment, where no reader has a quota.
    pub(super) fn none() -> Self {
        Self {
            with_quota: 0,
            ignored: [None; MAX_READERS],
        }
    }

    /// The counted pins of a dead writer's segment. Nobody knows which readers had a quota, so all pins count.
    pub(super) fn all() -> Self {
        Self {
            with_quota: u64::MAX,
            ..Self::none()
        }
    }

    /// Counts the pins of `entry` from here on.
    pub(super) fn include(&mut self, entry: usize) {
        self.with_quota |= 1 << entry;
    }

    /// Ignores the pins that the owner `generation` of `entry` has set or will set.
    pub(super) fn ignore(&mut self, entry: usize, generation: u32) {
        self.ignored[entry] = Some(generation);
    }

    pub(super) fn is_ignored(&self, entry: usize, generation: u32) -> bool {
        self.ignored[entry] == Some(generation)
    }

    /// The slots that at least one counted pin marks.
    pub(super) fn pinned(&self, segment: &WriterSegment) -> u64 {
        let readers = segment.tables().readers();
        let (mut pinned, mut entries) = (0, self.with_quota);
        // This runs for every frame, so it visits only the entries that matter.
        while entries != 0 {
            let entry = entries.trailing_zeros() as usize;
            entries &= entries - 1;
            // Acquire: pairs with the release stores of `PinCounts`. A clear bit means that the reader no longer uses
            // the slot. For a set bit, the generation that is loaded next is not older than the bit.
            let bits = readers[entry].pins.load(Ordering::Acquire);
            // Acquire: pairs with the release store of the generation by a reader that attaches.
            if bits != 0 && !self.is_ignored(entry, readers[entry].generation.load(Ordering::Acquire)) {
                pinned |= bits;
            }
        }
        pinned
    }

    /// Finds entries of dead owners that have pins or the state of a present reader, and ignores their pins. Returns
    /// whether it found any.
    ///
    /// The lock is queried last. If it is free, the owner whose generation was read is dead. A later owner stores
    /// another generation before its first pin, so its pins count.
    pub(super) fn ignore_dead(&mut self, segment: &WriterSegment) -> bool {
        let mut found = false;
        for entry in 0..MAX_READERS {
            let shared = segment.tables().entry(entry);
            // Acquire, all three: they pair with the release stores of the entry's owner. The generation is loaded
            // last, so that it is not older than the other two values.
            let matters = shared.pins.load(Ordering::Acquire) != 0
                || reader_state::is_present(shared.state.load(Ordering::Acquire));
            let generation = shared.generation.load(Ordering::Acquire);
            if matters && !self.is_ignored(entry, generation) && !segment.is_alive(entry) {
                self.ignore(entry, generation);
                found = true;
            }
        }
        found
    }

    /// The seq up to which every counted reader has taken all frames.
    pub(super) fn slowest_cursor(&self, segment: &WriterSegment) -> u64 {
        let mut slowest = u64::MAX;
        // All entries are checked, because the writer also waits for a reader that has just joined and has no quota
        // yet.
        for (shared, ignored) in segment.tables().readers().iter().zip(&self.ignored) {
            // Acquire, all three: they pair with the release stores of the entry's owner. Once its state says that it
            // is present, its cursor is at least the one that it started with.
            if reader_state::is_present(shared.state.load(Ordering::Acquire))
                && *ignored != Some(shared.generation.load(Ordering::Acquire))
            {
                slowest = slowest.min(shared.cursor.load(Ordering::Acquire));
            }
        }
        slowest
    }
}
