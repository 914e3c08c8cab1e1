// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counted pins: the pins of readers that live, have a quota, and were not evicted.

use std::sync::atomic::Ordering;

use super::segment::WriterSegment;
use crate::protocol::layout::{MAX_READERS, reader_state};

/// The readers whose pins count in one segment.
#[derive(Debug)]
pub(super) struct CountedPins {
    /// One bit for each reader entry that has had a quota in this segment. The pins of other entries do not count, so
    /// the writer does not load them.
    with_quota: u64,
    /// For each reader entry, the generation whose pins do not count, because its owner is dead or was evicted.
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

    /// The counted pins of a dead writer's segment. The new writer does not know which readers had a quota, so it
    /// counts all pins.
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
        // This loop runs for every frame, so it visits only entries that have had a quota.
        while entries != 0 {
            let entry = entries.trailing_zeros() as usize;
            entries &= entries - 1;
            // Acquire: pairs with the release stores of `PinCounts`. A clear bit means that the reader no longer uses
            // the slot. The generation is loaded afterwards, so it is not older than a set bit.
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
    /// The entry's lock is queried last. If it is free, the owner whose generation was loaded is dead. A later owner
    /// stores another generation before its first pin, so the pins of the later owner count.
    pub(super) fn ignore_dead(&mut self, segment: &WriterSegment) -> bool {
        let mut found = false;
        for entry in 0..MAX_READERS {
            let shared = segment.tables().entry(entry);
            // All three are acquire loads, which pair with the release stores of the entry's owner. The generation is
            // loaded last, so it is not older than the pins and the state.
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

    /// How many of the frames from `first` to `last` the attached readers have not taken, summed over the readers.
    /// Ignored readers are left out.
    pub(super) fn count_missed(&self, segment: &WriterSegment, first: u64, last: u64) -> u64 {
        let readers = segment.tables().readers();
        let (mut missed, mut entries) = (0, self.with_quota);
        while entries != 0 {
            let entry = entries.trailing_zeros() as usize;
            entries &= entries - 1;
            let shared = &readers[entry];
            // All three are acquire loads, as in `slowest_cursor`.
            let cursor = shared.cursor.load(Ordering::Acquire);
            if cursor < last
                && shared.state.load(Ordering::Acquire) == reader_state::ATTACHED
                && !self.is_ignored(entry, shared.generation.load(Ordering::Acquire))
            {
                missed += last - cursor.max(first - 1);
            }
        }
        missed
    }

    /// The seq up to which every present reader has taken all frames. Ignored readers are left out.
    pub(super) fn slowest_cursor(&self, segment: &WriterSegment) -> u64 {
        let mut slowest = u64::MAX;
        // All entries are checked, because the writer also waits for a reader that has just joined and has no quota
        // yet.
        for (shared, ignored) in segment.tables().readers().iter().zip(&self.ignored) {
            if let Some(cursor) = shared.wanted_cursor(*ignored) {
                slowest = slowest.min(cursor);
            }
        }
        slowest
    }
}
