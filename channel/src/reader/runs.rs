// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds frames: in which run a frame is, and where in the run. The slots are not pinned during a search, so what it
//! finds may be overwritten at any time.

use std::sync::atomic::Ordering;

use crate::{
    protocol::{
        layout::{FrameDescriptor, HEADER, MAX_SLOTS, RING_LENGTH},
        ring,
        run::{self, RunPosition},
    },
    segment::Segment,
};

/// How many headers before a keyframe a reader looks at.
const MAX_HEADERS: u32 = 16;

/// How often a search is repeated if the writer has used all slots meanwhile.
const MAX_SEARCHES: u32 = 3;

/// A run that is in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    number: u64,
    pub(super) slot: usize,
    /// The seq of the first frame.
    pub(super) first: u64,
    tail: RunPosition,
}

impl Run {
    /// The seq of the newest frame.
    fn last(&self) -> u64 {
        self.first.saturating_add(u64::from(self.tail.ordinal - 1))
    }

    fn at(&self, position: RunPosition) -> FrameLocation {
        FrameLocation { run: *self, position }
    }
}

/// The place of a frame: its run, and its position in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLocation {
    pub(super) run: Run,
    pub(super) position: RunPosition,
}

impl FrameLocation {
    /// The seq of the frame.
    pub(super) fn seq(&self) -> u64 {
        self.run.first.saturating_add(u64::from(self.position.ordinal - 1))
    }

    /// The seq of the newest frame of the run.
    pub(super) fn last_of_run(&self) -> u64 {
        self.run.last()
    }
}

/// A frame that was delivered, and the offset in the slot at which the next frame of its run starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    pub(super) location: FrameLocation,
    pub(super) end: u64,
}

/// The runs of a segment, as a reader sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs<'a> {
    pub(super) segment: &'a Segment,
}

impl Runs<'_> {
    /// The first frame at or after the frame `seq`. `former` is the frame that was delivered last in this segment.
    #[inline]
    pub(super) fn find(self, seq: u64, former: Option<&Delivered>) -> Option<FrameLocation> {
        let former = former.filter(|former| former.location.seq() + 1 == seq);
        if let Some(location) = former.and_then(|former| self.find_next(former)) {
            return Some(location);
        }
        for _ in 0..MAX_SEARCHES {
            let newest = self.newest_run();
            let found = self.search(seq, newest);
            // If the writer used all slots meanwhile, the search may have missed older frames.
            if self.newest_run() < newest.saturating_add(MAX_SLOTS as u64) {
                return found;
            }
        }
        None
    }

    /// The frame after `former`, if no frame was dropped between them.
    fn find_next(self, former: &Delivered) -> Option<FrameLocation> {
        let Delivered { location, end } = *former;
        // The number of the newest run is loaded first, so that the tail of an older run is final.
        let newest = self.newest_run();
        if self.segment.has_runs() {
            let run = self.reload(location.run);
            if let Some(run) = run.filter(|run| run.tail.ordinal > location.position.ordinal) {
                return Some(run.at(location.position.next(end)));
            }
        }
        if location.run.number >= newest {
            return None;
        }
        let next = self.run(location.run.number + 1)?;
        (next.first == location.seq() + 1).then(|| next.at(RunPosition::FIRST))
    }

    /// The first frame at or after the frame `seq`, among the runs up to the run `newest`.
    fn search(self, seq: u64, newest: u64) -> Option<FrameLocation> {
        (self.run_before(seq, newest)..=newest).find_map(|number| {
            let run = self.run(number).filter(|run| run.last() >= seq)?;
            self.locate(&run, seq.max(run.first))
        })
    }

    /// The number of the newest run that starts at or before the frame `seq`. If no run does, it is the oldest run.
    fn run_before(self, seq: u64, newest: u64) -> u64 {
        let oldest = oldest_in_ring(newest);
        // The first seqs of the runs grow, so the run is found by bisection.
        let (mut low, mut high) = (oldest, newest.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ring_entry(middle).0 <= seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1).max(oldest)
    }

    /// The run `number`; `None` if its slot has another run.
    fn run(self, number: u64) -> Option<Run> {
        let (first, slot) = self.ring_entry(number);
        let run = Run {
            number,
            slot,
            first,
            tail: RunPosition::FIRST,
        };
        // The record of a slot without memory may have none either.
        (first != 0 && self.segment.is_committed(slot))
            .then(|| self.reload(run))
            .flatten()
    }

    /// The run with its present tail; `None` if it is no longer in its slot.
    fn reload(self, run: Run) -> Option<Run> {
        let record = self.segment.slot_record(run.slot);
        if !ring::has_run(&record.seq, run.first) {
            return None;
        }
        let tail = if self.segment.has_runs() {
            run::load_tail(&record.tail)?
        } else {
            RunPosition::FIRST
        };
        Some(Run { tail, ..run })
    }

    /// The seq and the slot in the ring's entry for the run `number`.
    #[inline]
    fn ring_entry(self, number: u64) -> (u64, usize) {
        ring::load_entry(self.segment.tables.ring(number))
    }

    fn newest_run(self) -> u64 {
        ring::load_newest(&self.segment.tables.status().run_head)
    }

    /// The location of the frame `seq` in `run`, which contains it.
    fn locate(self, run: &Run, seq: u64) -> Option<FrameLocation> {
        let ordinal = u32::try_from(seq - run.first).ok()?.checked_add(1)?;
        if ordinal == 1 {
            return Some(run.at(RunPosition::FIRST));
        }
        if ordinal == run.tail.ordinal {
            return Some(run.at(run.tail));
        }
        if let Some(keyframe) = self
            .keyframe_position(run)
            .filter(|keyframe| keyframe.ordinal == ordinal)
        {
            return Some(run.at(keyframe));
        }
        let is_wanted = |location: &FrameLocation| location.position.ordinal == ordinal;
        self.walk(run).map(|(location, _)| location).find(is_wanted)
    }

    /// The frames of a run from the first on, with their descriptors. It ends early if the run is overwritten.
    fn walk(self, run: &Run) -> impl Iterator<Item = (FrameLocation, FrameDescriptor)> {
        let mut next = Some(RunPosition::FIRST);
        std::iter::from_fn(move || {
            let location = run.at(next.filter(|position| position.ordinal <= run.tail.ordinal)?);
            let descriptor = self.describe_unpinned(location)?;
            next = end_of(location.position, &descriptor).map(|end| location.position.next(end));
            Some((location, descriptor))
        })
    }

    /// The descriptor of a frame whose slot is not pinned; `None` if the frame is overwritten.
    pub(super) fn describe_unpinned(self, location: FrameLocation) -> Option<FrameDescriptor> {
        let FrameLocation { run, position } = location;
        let descriptor = if position.is_first() {
            self.segment.read_descriptor(run.slot)
        } else {
            self.segment.read_appended(run.slot, position.offset)?
        };
        let has_run = ring::still_has_run(&self.segment.slot_record(run.slot).seq, run.first);
        (has_run && self.segment.fits(&descriptor)).then_some(descriptor)
    }

    /// Whether a reader can start with the frame at `location`. The answer may be outdated at once.
    pub(super) fn is_keyframe(self, location: FrameLocation) -> bool {
        self.describe_unpinned(location)
            .is_some_and(|descriptor| descriptor.keyframe != 0)
    }

    /// The seq of the frame with which a reader starts: the newest keyframe, or the first of the headers directly
    /// before it. A parser may send the headers of a picture as frames of their own. The arguments and `None` are those
    /// of [`newest_keyframe`](Self::newest_keyframe).
    pub(super) fn newest_start(self, after: u64, last: u64) -> Option<u64> {
        let mut start = self.newest_keyframe(after, last)?;
        for _ in 0..MAX_HEADERS {
            let before = start - 1;
            let is_header = |location| {
                self.describe_unpinned(location)
                    .is_some_and(|descriptor| descriptor.flags & HEADER != 0)
            };
            let location = self.find(before, None).filter(|location| location.seq() == before);
            if before <= after || !location.is_some_and(is_header) {
                break;
            }
            start = before;
        }
        Some(start)
    }

    /// The seq of the newest keyframe after the frame `after` and up to the frame `last`. `None` if there is no
    /// keyframe in this range, or if a frame from the keyframe up to `last` is missing.
    fn newest_keyframe(self, after: u64, last: u64) -> Option<u64> {
        let newest = self.newest_run();
        let mut run = self.run(self.run_before(last, newest))?;
        let mut wanted_last = last;
        (run.first <= last && last <= run.last()).then_some(())?;
        loop {
            if let Some(seq) = self.keyframe_in(&run, wanted_last) {
                return (seq > after).then_some(seq);
            }
            if run.first <= after.saturating_add(1) {
                return None;
            }
            let former = self.run(run.number.checked_sub(1)?)?;
            if former.last().saturating_add(1) != run.first {
                return None;
            }
            wanted_last = former.last();
            run = former;
        }
    }

    /// The seq of the newest keyframe of `run` up to the frame `last`.
    fn keyframe_in(self, run: &Run, last: u64) -> Option<u64> {
        let newest = run.at(self.keyframe_position(run)?);
        if newest.seq() <= last {
            return Some(newest.seq());
        }
        self.walk(run)
            .take_while(|(location, _)| location.seq() <= last)
            .filter(|(_, descriptor)| descriptor.keyframe != 0)
            .map(|(location, _)| location.seq())
            .last()
    }

    /// The position of the newest keyframe of `run`.
    fn keyframe_position(self, run: &Run) -> Option<RunPosition> {
        // Relaxed: the caller's acquire load of the tail orders this load. The keyframe may be newer than this tail.
        RunPosition::from_word(self.segment.slot_record(run.slot).keyframe.load(Ordering::Relaxed))
    }
}

/// The number of the oldest run whose entry the ring can have.
fn oldest_in_ring(newest: u64) -> u64 {
    newest.saturating_sub(RING_LENGTH - 1).max(1)
}

/// The offset in its slot at which the frame at `position` ends.
pub(super) fn end_of(position: RunPosition, descriptor: &FrameDescriptor) -> Option<u64> {
    let data_end = descriptor.data_offset.checked_add(descriptor.size)?;
    // The metadata of the first frame is outside the slot.
    let metadata_in_slot = if position.is_first() {
        0
    } else {
        descriptor.metadata_size.into()
    };
    run::next_offset(data_end, metadata_in_slot)
}
