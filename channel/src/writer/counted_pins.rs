// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counted pins: the pins of readers that have attached, live, and were not evicted.

use std::sync::atomic::Ordering;

use super::{memory::bits, segment::WriterSegment};
use crate::protocol::layout::{MAX_READERS, reader_state};

/// The readers whose pins count in one segment.
#[derive(Debug)]
pub(super) struct CountedPins {
    /// One bit for each reader entry that a reader has attached to, or is about to attach to. The pins of other entries
    /// do not count, so the writer does not load them.
    attached: u64,
    /// How many readers had announced themselves when `attached` was determined.
    seen_joins: u32,
    /// For each reader entry, the generation whose pins do not count, because its owner is dead or was evicted.
    ignored: [Option<u32>; MAX_READERS],
    /// One bit for each entry whose reader has missed a frame in this period or the last one.
    slow: [u64; 2],
}

impl CountedPins {
    /// The counted pins of a new segment, to which no reader has attached.
    pub(super) fn none() -> Self {
        Self {
            attached: 0,
            seen_joins: 0,
            ignored: [None; MAX_READERS],
            slow: [0; 2],
        }
    }

    /// The counted pins of a dead writer's segment. The new writer does not know which readers attached, so it counts
    /// all pins.
    pub(super) fn all() -> Self {
        Self {
            attached: u64::MAX,
            ..Self::none()
        }
    }

    /// Whether readers have attached since the last call. If so, their pins count from here on. The result is how many
    /// they are.
    pub(super) fn note_joins(&mut self, segment: &WriterSegment) -> u32 {
        // Acquire: pairs with the release increment of a reader that attaches, whose state is then visible.
        let joins = segment.tables().status().joins.load(Ordering::Acquire);
        let new = joins.wrapping_sub(self.seen_joins);
        if new != 0 {
            self.seen_joins = joins;
            self.find_attached(segment);
        }
        new.min(MAX_READERS as u32)
    }

    /// Counts the pins of all readers that have attached.
    pub(super) fn find_attached(&mut self, segment: &WriterSegment) {
        for (entry, shared) in segment.tables().readers().iter().enumerate() {
            // Acquire: pairs with the release store of a reader that attaches.
            if shared.state.load(Ordering::Acquire) != reader_state::NEW {
                self.attached |= 1 << entry;
            }
        }
    }

    /// Ignores the pins that the owner `generation` of `entry` has set or will set.
    pub(super) fn ignore(&mut self, entry: usize, generation: u32) {
        self.ignored[entry] = Some(generation);
    }

    pub(super) fn is_ignored(&self, entry: usize, generation: u32) -> bool {
        self.ignored[entry] == Some(generation)
    }

    /// The slots that at least one counted pin marks. The caller has called [`note_joins`](Self::note_joins) before,
    /// and after its fence.
    pub(super) fn pinned(&self, segment: &WriterSegment) -> u64 {
        let readers = segment.tables().readers();
        let mut pinned = 0;
        // This loop runs for every frame, so it visits only entries that a reader has attached to.
        for entry in bits(self.attached) {
            // Acquire: pairs with the release stores of `PinCounts`. A clear bit means that the reader no longer uses
            // the slot. The generation is loaded afterwards, so it is not older than a set bit.
            let pins = readers[entry].pins.load(Ordering::Acquire);
            // Acquire: pairs with the release store of the generation by a reader that attaches.
            if pins != 0 && !self.is_ignored(entry, readers[entry].generation.load(Ordering::Acquire)) {
                pinned |= pins;
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

    /// Ignores the pins in a superseded segment whose reader has died, although its entry is locked again: in the
    /// segment `current`, the entry belongs to another process. A reader stores the same process in each segment.
    pub(super) fn ignore_replaced(&mut self, superseded: &WriterSegment, current: &WriterSegment) {
        if superseded.lock_file_id() != current.lock_file_id() {
            return;
        }
        for entry in 0..MAX_READERS {
            let (former, present) = (superseded.tables().entry(entry), current.tables().entry(entry));
            // Acquire: pairs with the release stores of `PinCounts`, so that the generation is not older than the pins.
            if former.pins.load(Ordering::Acquire) == 0 {
                continue;
            }
            let (_, generation) = former.owner();
            let (state, present_generation) = present.owner();
            // Relaxed, for both: the loads of the states, which are acquire loads, order them after the stores.
            let pids = (former.pid.load(Ordering::Relaxed), present.pid.load(Ordering::Relaxed));
            let is_known = state != reader_state::NEW && pids.0 != 0 && pids.1 != 0;
            if is_known && pids.0 != pids.1 && generation != present_generation {
                self.ignore(entry, generation);
            }
        }
    }

    /// The readers that have not taken all frames up to `last`, and how many of the frames from `first` on they have
    /// not taken. Ignored readers are left out.
    pub(super) fn missing(&self, segment: &WriterSegment, first: u64, last: u64) -> Missing {
        let readers = segment.tables().readers();
        let mut missing = Missing::default();
        for entry in bits(self.attached) {
            let cursor = readers[entry].attached_cursor(self.ignored[entry]);
            if let Some(cursor) = cursor.filter(|cursor| *cursor < last) {
                missing.readers |= 1 << entry;
                missing.frames += last - cursor.max(first - 1);
            }
        }
        missing
    }

    /// Whether one of these readers keeps up with the stream: it has missed no frame for a while.
    pub(super) fn keep_up(&self, missing: Missing) -> bool {
        missing.readers & !(self.slow[0] | self.slow[1]) != 0
    }

    /// Records that these readers miss their frames.
    pub(super) fn note_missed(&mut self, missing: Missing) {
        self.slow[0] |= missing.readers;
    }

    /// Begins another period of about a second.
    pub(super) fn begin_period(&mut self) {
        self.slow = [0, self.slow[0]];
    }

    /// The seq up to which every present reader has taken all frames. Ignored readers are left out. The caller has
    /// called [`note_joins`](Self::note_joins) before.
    pub(super) fn slowest_cursor(&self, segment: &WriterSegment) -> u64 {
        let readers = segment.tables().readers();
        let mut slowest = u64::MAX;
        for entry in bits(self.attached) {
            if let Some(cursor) = readers[entry].wanted_cursor(self.ignored[entry]) {
                slowest = slowest.min(cursor);
            }
        }
        slowest
    }
}

/// The readers that miss frames if a slot is overwritten, as [`CountedPins::missing`] finds them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missing {
    /// One bit for each reader entry.
    readers: u64,
    /// The number of frames, summed over the readers.
    pub(super) frames: u64,
}
