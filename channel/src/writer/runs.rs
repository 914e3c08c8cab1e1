// SPDX-License-Identifier: MIT OR Apache-2.0

//! The runs of one segment: which frames are in each slot, and how long they are kept.

use super::memory::bits;
use crate::{
    protocol::{
        layout::{MAX_METADATA_SIZE, MAX_SLOTS},
        run::{self, MAX_RUN_LENGTH, RUN_RECORD_SIZE, RunPosition},
    },
    sys::clock,
};

/// Where slots may have runs of several frames, a frame survives at least this many bytes of later frames, as long as
/// the segment can get more slots.
pub(super) const RUN_HISTORY_BYTES: u64 = 8 << 20;
/// Where slots may have runs of several frames, a frame survives at least this long, as long as the segment can get
/// more slots.
const RUN_HISTORY_NS: u64 = 2_000_000_000;

/// The frames in one slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// The seq of the first frame; 0 when the slot is free or being filled.
    pub(super) first: u64,
    /// The seq of the last frame.
    pub(super) last: u64,
    /// The number of the run in its segment. Runs of a dead writer have the number 0.
    number: u64,
    /// When the last frame was published.
    published_ns: u64,
    /// The size of all frames of the segment up to the last frame of this run.
    bytes_up_to: u64,
}

/// The run to which the next frame may be appended. It is the newest run.
#[derive(Clone, Copy, Debug)]
struct OpenRun {
    slot: usize,
    tail: RunPosition,
    /// The offset in the slot at which the record of the next frame starts.
    end: u64,
}

/// The place of a frame: a slot of its own, or the end of the newest run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: usize,
    /// The offset of the frame's record in the slot; 0 for the first frame of a run, which has none.
    pub(super) record: u64,
}

/// The frames of a segment that the writer may overwrite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overwritable {
    run: u64,
    seq: u64,
    published_ns: u64,
    bytes_up_to: u64,
}

impl Overwritable {
    /// All frames up to the frame `seq`.
    pub(super) fn up_to(seq: u64) -> Self {
        Self {
            run: u64::MAX,
            seq,
            published_ns: u64::MAX,
            bytes_up_to: u64::MAX,
        }
    }

    /// These frames, but none after the frame `seq`.
    pub(super) fn at_most(self, seq: u64) -> Self {
        Self {
            seq: self.seq.min(seq),
            ..self
        }
    }

    /// Whether all frames of `run` may be overwritten.
    pub(super) fn includes(&self, run: &Run) -> bool {
        run.first == 0
            || run.number <= self.run
                && run.last <= self.seq
                && run.published_ns <= self.published_ns
                && run.bytes_up_to <= self.bytes_up_to
    }
}

/// The runs of one segment.
#[derive(Debug)]
pub(super) struct Runs {
    in_slot: [Run; MAX_SLOTS],
    /// One bit for each slot that has frames.
    with_frame: u64,
    /// The number of the newest run; 0 before the first.
    newest: u64,
    /// The size of all frames that were published in the segment.
    bytes: u64,
    /// Whether frames may be appended.
    can_append: bool,
    open: Option<OpenRun>,
}

impl Runs {
    /// The runs of a new segment.
    pub(super) fn new(can_append: bool) -> Self {
        Self {
            in_slot: [Run::default(); MAX_SLOTS],
            with_frame: 0,
            newest: 0,
            bytes: 0,
            can_append,
            open: None,
        }
    }

    /// Records a run that a dead writer left in `slot`.
    pub(super) fn add_former(&mut self, slot: usize, first: u64, frames: u32) {
        self.in_slot[slot] = Run {
            first,
            last: first.saturating_add(u64::from(frames.saturating_sub(1))),
            ..Run::default()
        };
        self.with_frame |= u64::from(first != 0) << slot;
    }

    /// Whether slots may have runs of several frames.
    pub(super) fn can_append(&self) -> bool {
        self.can_append
    }

    /// The frames in `slot`.
    pub(super) fn in_slot(&self, slot: usize) -> &Run {
        &self.in_slot[slot]
    }

    pub(super) fn has_frame(&self, slot: usize) -> bool {
        self.with_frame >> slot & 1 == 1
    }

    /// The slots that have frames.
    pub(super) fn with_frame(&self) -> u64 {
        self.with_frame
    }

    /// The slots of the newest `runs` runs.
    pub(super) fn newest_slots(&self, runs: u32) -> u64 {
        let kept = self.beyond_runs(runs);
        bits(self.with_frame)
            .filter(|slot| !kept.includes(&self.in_slot[*slot]))
            .fold(0, |slots, slot| slots | 1 << slot)
    }

    /// The number of the newest run; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Records that `slot` lost its frames.
    pub(super) fn clear(&mut self, slot: usize) {
        self.in_slot[slot].first = 0;
        self.with_frame &= !(1 << slot);
    }

    /// The seq of the newest frame in a slot; 0 if no slot has a frame.
    pub(super) fn newest_seq(&self) -> u64 {
        bits(self.with_frame)
            .map(|slot| self.in_slot[slot].last)
            .max()
            .unwrap_or(0)
    }

    /// The place for a frame of `size` bytes at the end of the newest run, in slots of `slot_size` bytes. `None` if the
    /// frame needs a slot of its own.
    pub(super) fn append_place(&self, size: u64, slot_size: u64) -> Option<Place> {
        // The record of an appended frame cannot be at 0, where an empty first frame ends.
        let open = self.open.filter(|open| open.end > 0)?;
        let needed = run::appended_size(size, MAX_METADATA_SIZE as u64)?;
        let has_room = open.tail.ordinal < MAX_RUN_LENGTH && open.end.checked_add(needed)? <= slot_size;
        has_room.then_some(Place {
            slot: open.slot,
            record: open.end,
        })
    }

    /// Records that the frame `seq` is published at `place`; its bytes and its metadata in the slot end at `end`.
    /// Returns its position in its run. `None` if the frame cannot be published there, because another frame was
    /// published meanwhile.
    pub(super) fn publish(&mut self, place: Place, seq: u64, size: u64, end: u64) -> Option<RunPosition> {
        let position = if place.record == 0 {
            self.newest += 1;
            RunPosition::FIRST
        } else {
            let open = self
                .open
                .filter(|open| (open.slot, open.end) == (place.slot, place.record))?;
            open.tail.next(place.record)
        };
        self.bytes += size;
        let former = self.in_slot[place.slot];
        self.in_slot[place.slot] = Run {
            first: if position.is_first() { seq } else { former.first },
            last: seq,
            number: self.newest,
            published_ns: if self.can_append { clock::monotonic_ns() } else { 0 },
            bytes_up_to: self.bytes,
        };
        self.with_frame |= 1 << place.slot;
        self.open = self.can_append.then_some(OpenRun {
            slot: place.slot,
            tail: position,
            end,
        });
        Some(position)
    }

    /// Whether the frame with the next seq would continue the newest run at `place`.
    pub(super) fn is_open_at(&self, place: Place) -> bool {
        self.open
            .is_some_and(|open| (open.slot, open.end) == (place.slot, place.record))
    }

    /// The frames beyond a history of `runs` runs, [`RUN_HISTORY_BYTES`] and [`RUN_HISTORY_NS`].
    pub(super) fn beyond_history(&self, runs: u32) -> Overwritable {
        let mut overwritable = self.beyond_runs(runs);
        if self.can_append {
            overwritable.bytes_up_to = self.bytes.saturating_sub(RUN_HISTORY_BYTES);
            overwritable.published_ns = clock::monotonic_ns().saturating_sub(RUN_HISTORY_NS);
        }
        overwritable
    }

    /// The frames beyond the newest `runs` runs. The newest run is never among them.
    pub(super) fn beyond_runs(&self, runs: u32) -> Overwritable {
        Overwritable {
            run: self.newest.saturating_sub(u64::from(runs.max(1))),
            ..Overwritable::up_to(u64::MAX)
        }
    }

    /// All frames except those of the newest run.
    pub(super) fn beyond_newest(&self) -> Overwritable {
        self.beyond_runs(1)
    }
}

/// The offset in its slot at which a frame's bytes and metadata end, and at which the next record starts. `None` if no
/// slot is that large.
pub(super) fn end_of_frame(record: u64, data_end: u64, metadata_size: u64) -> Option<u64> {
    // The metadata of the first frame of a run is outside the slot.
    let metadata_in_slot = if record == 0 { 0 } else { metadata_size };
    run::next_offset(data_end, metadata_in_slot)
}

/// The offset of a frame's bytes in its slot, for a frame whose record is at `record`.
pub(super) fn data_offset(record: u64) -> u64 {
    if record == 0 { 0 } else { record + RUN_RECORD_SIZE }
}
