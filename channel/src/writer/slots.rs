// SPDX-License-Identifier: MIT OR Apache-2.0

//! The slots of one segment: which frame is in each slot, and which slot the next frame gets.

use std::sync::{Arc, atomic::Ordering};

use super::{
    counted_pins::{CountedPins, Missing},
    memory::{SlotMemory, bits},
    objects::owners::SlotOwners,
    quota::{self, Quota, SPARE_SLOTS, initial_slots},
    runs::{Overwritable, Place, Run, Runs},
    segment::{ClaimedFor, WriterSegment},
    slot::Slot,
};
use crate::{
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{EVICTED, flags},
        pins::{take_for_writing, take_unpinnable},
        run::{self, RunPosition},
    },
    sys::clock,
};

/// The most rounds of one search for a slot. A round fails if readers pin the found slots at the last moment.
const MAX_SEARCH_ROUNDS: u32 = 4;
/// The publishing thread commits a slot of at most this size itself. The memory of a larger one takes too long, so the
/// service commits it.
const MAX_OWN_GROWTH: u64 = 1 << 20;
/// For a reader that keeps up, the frames that it has not taken are kept only if they come at least this far apart. No
/// history would be long enough for faster ones.
const MIN_KEPT_INTERVAL_NS: u64 = 1_000_000;

/// The result of a search for a slot.
pub(super) enum SlotSearch {
    /// The slot was taken for writing.
    Taken(usize),
    /// This slot can get memory. The caller commits memory for it while no lock is held, and then calls
    /// [`finish_growth`](SlotAllocator::finish_growth).
    Grow(usize),
    /// No slot can be taken now.
    Nothing,
}

/// The next step of a search for a slot.
enum Step {
    /// Take this slot for the frame. These readers miss the frames in it.
    Take(usize, Missing),
    /// Let the caller commit another slot.
    Grow,
    /// Withdraw the quota, so that the spare slots can be used.
    Withdraw,
}

/// How fast the runs come. It is measured at most once for each run.
#[derive(Debug)]
struct Pace {
    /// When the pace was measured, and the number of the newest run then.
    measured_ns: u64,
    run: u64,
    is_slow: bool,
}

/// The slots of one segment.
#[derive(Debug)]
pub(super) struct SlotAllocator {
    pub(super) segment: Arc<WriterSegment>,
    /// The history, copied from the segment's header like the lossless flag below, because each search for a slot needs
    /// them.
    history: u32,
    /// How many runs are kept although all readers have taken them, as long as the segment can grow.
    least_history: u32,
    is_lossless: bool,
    pins: CountedPins,
    pub(super) runs: Runs,
    pub(super) memory: SlotMemory,
    pub(super) quota: Quota,
    /// What the frames of objects keep; `None` in a segment whose slots have the bytes of the frames, and in one of a
    /// dead writer.
    pub(super) owners: Option<Box<SlotOwners>>,
    /// One bit for each slot that no reader can hold (see `spare`). A claimed slot is among them.
    pub(super) unpinnable: u64,
    /// Whether the service has to run soon, because the quota was withdrawn or a slot is wanted.
    pub(super) is_service_due: bool,
    /// How many frames readers missed because their slots were taken. A frame counts once for each reader.
    missed: u64,
    pace: Pace,
}

impl SlotAllocator {
    /// The slots of a new segment, of which `committed` have memory. `least_history` is the number of runs that are
    /// kept for everyone.
    pub(super) fn new(segment: Arc<WriterSegment>, committed: u32, least_history: u32) -> Self {
        let header = segment.header();
        Self {
            history: header.history,
            least_history,
            is_lossless: header.flags & flags::LOSSLESS != 0,
            pins: CountedPins::none(),
            runs: Runs::new(header.flags & flags::RUNS != 0),
            memory: SlotMemory::new(header.slot_count, committed),
            quota: Quota::new(quota::largest_quota(header)),
            owners: None,
            // A new segment has neither frames nor readers.
            unpinnable: u64::MAX,
            is_service_due: false,
            missed: 0,
            pace: Pace {
                measured_ns: clock::monotonic_ns(),
                run: 0,
                is_slow: true,
            },
            segment,
        }
    }

    /// The slots of a segment that a dead writer left.
    pub(super) fn of_dead_writer(segment: WriterSegment) -> Self {
        let mapped = segment.mapped();
        let header = segment.header();
        let slots = header.slot_count as usize;
        let committed = (0..slots).take_while(|slot| mapped.is_committed(*slot)).count();
        let mut runs = Runs::new(false);
        for slot in 0..committed {
            let record = mapped.slot_record(slot);
            // Acquire: pairs with the release store of the dead writer, in `publish`.
            let first = record.seq.load(Ordering::Acquire);
            let tail = run::load_tail(&record.tail).unwrap_or(RunPosition::FIRST);
            runs.add_former(slot, first, tail.ordinal);
        }
        let history = header.history;
        Self {
            pins: CountedPins::all(),
            runs,
            unpinnable: 0,
            // There are no owner values: the buffers went with their process.
            ..Self::new(Arc::new(segment), committed as u32, history)
        }
    }

    pub(super) fn segment(&self) -> &Arc<WriterSegment> {
        &self.segment
    }

    pub(super) fn pins(&self) -> &CountedPins {
        &self.pins
    }

    /// The memory of the slots.
    pub(super) fn memory(&mut self) -> &mut SlotMemory {
        &mut self.memory
    }

    /// How many slots have memory.
    pub(super) fn committed(&self) -> u32 {
        self.memory.count()
    }

    /// How many slots the segment can have with the memory that there is now, as far as this is known.
    pub(super) fn attainable(&self) -> u32 {
        self.memory.attainable()
    }

    /// Whether the segment may have more slots.
    pub(super) fn can_grow(&self) -> bool {
        self.memory.can_grow()
    }

    /// The number of later runs that a frame survives.
    pub(super) fn history(&self) -> u32 {
        self.history
    }

    /// Whether the slot holds a frame that was published.
    pub(super) fn has_frame(&self, slot: usize) -> bool {
        self.runs.has_frame(slot)
    }

    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The runs, to which a publish adds frames.
    pub(super) fn runs_mut(&mut self) -> &mut Runs {
        &mut self.runs
    }

    /// Returns how many frames readers have missed since the last call.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// The largest quota in this segment.
    pub(super) fn largest_quota(&self) -> u32 {
        self.quota.largest()
    }

    /// The quota that readers find now.
    pub(super) fn quota(&self) -> u32 {
        self.quota.current()
    }

    /// Whether the service has to run since the last call.
    pub(super) fn take_service_due(&mut self) -> bool {
        std::mem::take(&mut self.is_service_due)
    }

    /// Whether the slots have references to objects instead of the bytes of frames.
    pub(super) fn has_objects(&self) -> bool {
        self.owners.is_some()
    }

    /// How many slots hold a frame or are claimed.
    pub(super) fn in_use(&self) -> u32 {
        (self.memory.slots() & (self.runs.with_frame() | self.segment.claimed())).count_ones()
    }

    /// How many slots are claimed. A claimed slot is being filled, or is published and upstream still keeps it.
    pub(super) fn claimed(&self) -> u32 {
        (self.memory.slots() & self.segment.claimed()).count_ones()
    }

    /// The slots that have memory and are not claimed.
    pub(super) fn unclaimed(&self) -> u64 {
        self.memory.slots() & !self.segment.claimed()
    }

    /// The number of newest runs that stay although all readers have taken them.
    pub(super) fn kept_runs(&self) -> u32 {
        if self.memory.is_out_of_memory() {
            1
        } else if self.memory.can_grow() {
            self.least_history
        } else {
            self.history
        }
    }

    /// Looks for readers that have attached.
    pub(super) fn note_joins(&mut self) {
        let readers = self.pins.note_joins(&self.segment);
        self.quota.note_joins(readers);
    }

    /// The slots that at least one counted pin marks.
    pub(super) fn pinned(&mut self) -> u64 {
        self.note_joins();
        self.pins.pinned(&self.segment)
    }
}

/// Search for the slot of the next frame.
impl SlotAllocator {
    /// Finds a slot for the next frame and takes the slot for writing. A claim for upstream finds nothing if upstream
    /// has half of the slots already: upstream may keep published slots, as a decoder does, and copies need slots too.
    /// [`next_step`](Self::next_step) has the order of the steps. In lossless mode, `has_waited` says whether the
    /// writer has waited for its readers.
    pub(super) fn find(&mut self, claimed_for: ClaimedFor, has_waited: bool) -> SlotSearch {
        if claimed_for == ClaimedFor::Upstream && self.upstream_has_its_half() {
            return SlotSearch::Nothing;
        }
        let mut failed_rounds = 0;
        // This loop ends: each round that fails takes the frames out of a slot, and the quota is withdrawn once.
        while let Some(step) = self.next_step(claimed_for, has_waited, failed_rounds < MAX_SEARCH_ROUNDS) {
            match step {
                Step::Take(slot, missing) => {
                    if self.take(slot, missing) {
                        return SlotSearch::Taken(slot);
                    }
                    // The slowest readers try to pin the slots that the writer is about to take. Each attempt blocks a
                    // slot for a moment. Then the reader finds the seq 0 and unpins the slot.
                    failed_rounds += 1;
                    core::hint::spin_loop();
                }
                Step::Grow => return self.memory.begin_growth().map_or(SlotSearch::Nothing, SlotSearch::Grow),
                Step::Withdraw => {
                    self.memory.want_growth();
                    self.withdraw_quota();
                }
            }
        }
        SlotSearch::Nothing
    }

    /// The next step of a search for a slot. `None` if there is no slot now. The first of these steps that is possible:
    ///
    /// 1. Take the slot that was used last, of those whose frame is beyond the history. No counted pin may mark the
    ///    slot. In lossless mode, all readers must have taken the frame. Otherwise take a slot without a frame. Two
    ///    spare slots stay if readers could pin all others.
    /// 2. If entries of dead readers are found, ignore their pins from now on, and try step 1 again.
    /// 3. Let the caller commit one more slot, if the segment may have more and the service cannot help in time. In
    ///    lossless mode, the writer first waits for its readers, and then sets `has_waited`.
    /// 4. Withdraw the quota, so that the other steps need no spare slots. The service commits one more slot and grants
    ///    the quota again.
    /// 5. If the segment cannot grow now, take the oldest slot beyond the history, even if readers miss its frames.
    /// 6. If slots are scarce, take the oldest slot that does not have the newest run.
    ///
    /// If `may_fail` is not set, a slot is taken only if no reader can pin it meanwhile.
    fn next_step(&mut self, claimed_for: ClaimedFor, has_waited: bool, may_fail: bool) -> Option<Step> {
        let allowed = self.takeable(may_fail);
        if let Some(step) = self.usual_step(claimed_for, allowed) {
            return Some(step);
        }
        if self.ignore_dead_readers() {
            let allowed = self.takeable(may_fail);
            if let Some(step) = self.usual_step(claimed_for, allowed) {
                return Some(step);
            }
        }
        if self.may_grow_at_once(claimed_for, has_waited) {
            return Some(Step::Grow);
        }
        if self.may_withdraw(claimed_for) {
            return Some(Step::Withdraw);
        }
        if !self.has_spare() || !self.leaves_enough(claimed_for) {
            return None;
        }
        let allowed = self.takeable(may_fail);
        let mut oldest = None;
        if !self.memory.may_begin_growth() {
            oldest = self.oldest(allowed, self.beyond_history());
        }
        if oldest.is_none() && self.is_scarce(claimed_for) {
            oldest = self.oldest(allowed, self.beyond_newest());
        }
        oldest.map(|(slot, missing)| Step::Take(slot, missing))
    }

    /// The slots whose frames may be taken because no counted pin marks them. If `may_fail` is not set, there are none,
    /// so that only slots count that nobody can pin.
    fn takeable(&mut self, may_fail: bool) -> u64 {
        let pinned = self.pinned();
        self.note_unpinned(pinned);
        if may_fail { !pinned } else { 0 }
    }

    /// Step 1 of [`next_step`](Self::next_step).
    fn usual_step(&mut self, claimed_for: ClaimedFor, allowed: u64) -> Option<Step> {
        let needed = self.spare_needed();
        if !self.has_spare() && !self.fill_spare(needed) || !self.leaves_enough(claimed_for) {
            return None;
        }
        if let Some((slot, missing)) = self.usual(allowed) {
            return Some(Step::Take(slot, missing));
        }
        let blank = self.blank();
        let slot = bits(blank).max_by_key(|slot| self.memory.claimed_at(*slot))?;
        (blank.count_ones() > needed).then(|| Step::Take(slot, Missing::default()))
    }

    /// Marks a taken slot as claimed, and returns it for a frame of `size` bytes.
    pub(super) fn claim(&mut self, slot: usize, size: u64, claimed_for: ClaimedFor) -> Slot {
        self.memory.note_claim(slot);
        self.segment.claim(slot, claimed_for);
        failpoint(Failpoint::SlotClaimed);
        Slot::new(Arc::clone(&self.segment), slot, size)
    }

    /// Claims the place after the newest frame of the newest run, for a frame of `size` bytes. `None` if the frame
    /// needs a slot of its own.
    pub(super) fn claim_append(&self, size: u64) -> Option<Slot> {
        let place = self.append_place(size)?;
        self.segment.claim(place.slot, ClaimedFor::Copy);
        failpoint(Failpoint::SlotClaimed);
        Some(Slot::appended(Arc::clone(&self.segment), place, size))
    }

    /// Whether [`claim_append`](Self::claim_append) would find a place.
    pub(super) fn can_append(&self, size: u64) -> bool {
        self.append_place(size).is_some()
    }

    fn append_place(&self, size: u64) -> Option<Place> {
        self.runs
            .append_place(size, self.segment.header().slot_size)
            .filter(|place| !self.segment.is_claimed(place.slot))
    }

    /// Whether [`find`](Self::find) for a copy has a step to do. In lossless mode, `has_waited` has the same meaning
    /// there.
    pub(super) fn can_find(&mut self, has_waited: bool) -> bool {
        self.next_step(ClaimedFor::Copy, has_waited, true).is_some()
    }

    /// Ignores the pins of dead readers from now on. Returns whether it found a dead reader that was not ignored
    /// before.
    pub(super) fn ignore_dead_readers(&mut self) -> bool {
        self.pins.ignore_dead(&self.segment)
    }

    /// Ignores the pins of readers whose entries other processes have by now, as `current`, the writer's current
    /// segment, shows. A reader of a superseded segment can die and another one can take its entry before the writer
    /// looks. The next owner does not clear the pins, because it cannot attach to this segment.
    pub(super) fn ignore_replaced_readers(&mut self, current: &WriterSegment) {
        self.pins.ignore_replaced(&self.segment, current);
    }

    fn upstream_has_its_half(&self) -> bool {
        let claimed = self.claimed();
        claimed > 0 && (claimed + 1) * 2 > self.attainable()
    }

    /// Whether the caller may commit a slot now. Upstream does not wait, so the service cannot help it, and it may
    /// commit a slot while another thread commits one. A lossless writer rather waits for its readers if they have
    /// frames to take and the segment has a few slots: few slots stay in the processor's caches.
    fn may_grow_at_once(&self, claimed_for: ClaimedFor, has_waited: bool) -> bool {
        let is_small = self.segment.header().slot_size <= MAX_OWN_GROWTH;
        match claimed_for {
            ClaimedFor::Upstream => self.memory.has_free_slot(),
            ClaimedFor::Copy if !self.memory.may_begin_growth() => false,
            ClaimedFor::Copy if self.is_lossless => {
                has_waited || self.memory.count() < self.few_slots() || self.have_readers_all()
            }
            // Without spare slots, the service would come too late.
            ClaimedFor::Copy => is_small || self.spare_needed() == 0,
        }
    }

    /// How many slots a lossless writer has before it waits for its readers: those of a new segment, one for each frame
    /// that stays, and one for each further slot that upstream keeps.
    fn few_slots(&self) -> u32 {
        self.kept_runs() + initial_slots(self.quota.largest()) + self.claimed().saturating_sub(1)
    }

    /// Whether the readers have taken all frames, so that only their pins keep slots.
    pub(super) fn have_readers_all(&self) -> bool {
        self.slowest_cursor() >= self.runs.newest_seq()
    }

    /// Whether the quota is to be withdrawn, so that the spare slots can be used for a copy. Upstream gets no spare
    /// slot, because it may keep the slot for a long time. A lossless writer waits as long as a reader has frames to
    /// take.
    fn may_withdraw(&self, claimed_for: ClaimedFor) -> bool {
        claimed_for == ClaimedFor::Copy && self.spare_needed() > 0 && (!self.is_lossless || self.have_readers_all())
    }

    /// Whether a claim leaves slots for copies. While there is no quota, the writer needs two unpinnable slots, of
    /// which one may have the newest frame. Upstream must not take the last ones.
    fn leaves_enough(&self, claimed_for: ClaimedFor) -> bool {
        claimed_for == ClaimedFor::Copy
            || self.quota.current() > 0
            || self.quota.largest() == 0
            || (self.unclaimed() & self.unpinnable).count_ones() > SPARE_SLOTS
    }

    /// The slots with frames that may be taken if `allowed` contains them, or if nobody can pin them.
    pub(super) fn candidates(&self, allowed: u64) -> u64 {
        self.unclaimed() & self.runs.with_frame() & (allowed | self.unpinnable)
    }

    /// The frames beyond the history. If the segment cannot grow, the history consists of runs alone, without its bytes
    /// and its time. In lossless mode, all readers have taken the frames.
    pub(super) fn beyond_history(&self) -> Overwritable {
        self.taken_by_readers(if self.memory.can_grow() {
            self.runs.beyond_history(self.kept_runs())
        } else {
            self.runs.beyond_runs(self.kept_runs())
        })
    }

    /// All frames except those of the newest run. In lossless mode, all readers have taken them.
    pub(super) fn beyond_newest(&self) -> Overwritable {
        self.taken_by_readers(self.runs.beyond_newest())
    }

    pub(super) fn taken_by_readers(&self, overwritable: Overwritable) -> Overwritable {
        if self.is_lossless {
            overwritable.at_most(self.slowest_cursor())
        } else {
            overwritable
        }
    }

    fn slowest_cursor(&self) -> u64 {
        self.pins.slowest_cursor(&self.segment)
    }

    /// The slot with frames that a claim usually takes. A segment of runs that cannot grow keeps the newest frames,
    /// because its history has too few slots.
    fn usual(&mut self, allowed: u64) -> Option<(usize, Missing)> {
        if self.runs.can_append() && !self.memory.can_grow() {
            self.coldest(allowed)
        } else {
            self.warmest(allowed)
        }
    }

    /// The slot that was used last, of those whose frames are beyond the history and not wanted by a reader. The caches
    /// of the processor may still have it. Also returns which readers miss the frames.
    fn warmest(&mut self, allowed: u64) -> Option<(usize, Missing)> {
        let overwritable = self.beyond_history();
        let mut candidates = self.candidates(allowed);
        loop {
            let slot = bits(candidates)
                .filter(|slot| overwritable.includes(self.runs.in_slot(*slot)))
                .max_by_key(|slot| self.runs.in_slot(*slot).first)?;
            match self.unless_wanted(slot) {
                Some(missing) => return Some((slot, missing)),
                None => candidates &= !(1 << slot),
            }
        }
    }

    /// The slot with the oldest frames, of those whose frames are beyond the history and not wanted by a reader.
    pub(super) fn coldest(&mut self, allowed: u64) -> Option<(usize, Missing)> {
        let (slot, _) = self.oldest(allowed, self.beyond_history())?;
        self.unless_wanted(slot).map(|missing| (slot, missing))
    }

    /// The slot with the oldest frames, if all of them are `overwritable`.
    fn oldest(&self, allowed: u64, overwritable: Overwritable) -> Option<(usize, Missing)> {
        let slot = bits(self.candidates(allowed)).min_by_key(|slot| self.runs.in_slot(*slot).first)?;
        let run = self.runs.in_slot(slot);
        overwritable
            .includes(run)
            .then(|| (slot, self.pins.missing(&self.segment, run.first, run.last)))
    }

    /// The readers that miss the frames in `slot` if it is taken. `None` if one of these readers keeps up with the
    /// stream and the frames are within the history, so that the slot must not be taken.
    pub(super) fn unless_wanted(&mut self, slot: usize) -> Option<Missing> {
        // All readers have taken frames that a lossless writer may overwrite.
        if self.is_lossless {
            return Some(Missing::default());
        }
        let run = *self.runs.in_slot(slot);
        let missing = self.missing(&run);
        let is_wanted = missing.frames > 0
            && self.pins.keep_up(missing)
            && !self.runs.beyond_runs(self.history).includes(&run)
            && !self.memory.is_out_of_memory()
            && self.is_slow_stream();
        (!is_wanted).then_some(missing)
    }

    /// The readers that miss the frames of `run` if its slot is taken.
    pub(super) fn missing(&self, run: &Run) -> Missing {
        self.pins.missing(&self.segment, run.first, run.last)
    }

    /// Whether frames come slowly enough that a history helps a reader that is behind.
    pub(super) fn is_slow_stream(&mut self) -> bool {
        let newest = self.runs.newest();
        if newest != self.pace.run {
            let now = clock::monotonic_ns();
            self.pace = Pace {
                is_slow: now - self.pace.measured_ns >= (newest - self.pace.run) * MIN_KEPT_INTERVAL_NS,
                measured_ns: now,
                run: newest,
            };
        }
        self.pace.is_slow
    }

    /// Takes `slot` for writing. Returns `false` if a reader has pinned the slot by now. In both cases, the slot loses
    /// its frames, which these readers miss.
    pub(super) fn take(&mut self, slot: usize, missing: Missing) -> bool {
        self.missed += missing.frames;
        self.pins.note_missed(missing);
        self.runs.clear(slot);
        let segment = Arc::clone(&self.segment);
        let seq = &segment.mapped().slot_record(slot).seq;
        if self.unpinnable >> slot & 1 == 1 {
            take_unpinnable(seq);
            return true;
        }
        let is_taken = take_for_writing(seq, || self.pinned() >> slot & 1 == 1);
        self.unpinnable |= u64::from(is_taken) << slot;
        is_taken
    }

    /// Whether slots are scarce, because the segment cannot grow now. If they are, frames within the history are
    /// overwritten.
    ///
    /// If the system still has memory, slots count as scarce for only one copied frame at a time. This one frame should
    /// get a slot: upstream may release slots only after the frame is published, and the service needs time to commit
    /// slots for readers.
    fn is_scarce(&self, claimed_for: ClaimedFor) -> bool {
        self.memory.is_out_of_memory()
            || claimed_for == ClaimedFor::Copy && !self.memory.may_begin_growth() && !self.segment.has_claim_for_copy()
    }
}

/// Evictions, and the memory of the slots.
impl SlotAllocator {
    /// Evicts a reader: its pins no longer count, and its eviction word says that it was evicted.
    pub(super) fn evict(&mut self, entry: usize, generation: u32) {
        self.pins.ignore(entry, generation);
        // Release: pairs with the acquire load of a reader that checks whether it was evicted.
        let word = self.segment.tables().eviction(entry);
        word.store(EVICTED | u64::from(generation), Ordering::Release);
    }

    /// Counts the pins of every reader that is attached now.
    pub(super) fn find_attached(&mut self) {
        self.pins.find_attached(&self.segment);
    }

    /// Records whether a slot that the caller reserved with [`begin_growth`](SlotMemory::begin_growth) got memory.
    pub(super) fn finish_growth(&mut self, slot: usize, got_memory: bool) {
        self.memory.finish_growth(slot, got_memory);
        // No frame was published in the slot since nobody could pin it.
        self.unpinnable |= u64::from(got_memory) << slot;
    }

    /// Begins another period of about a second. Removes the frames of slots that have been idle for too long and that
    /// nobody needs, and returns those of the slots whose memory is to be released. The caller releases it while no
    /// lock is held, and then calls [`finish_release`](SlotMemory::finish_release).
    pub(super) fn take_idle(&mut self) -> u64 {
        self.pins.begin_period();
        let idle = self.memory.begin_period();
        let pinned = self.pinned();
        self.note_unpinned(pinned);
        for slot in bits(idle & self.candidates(!pinned)) {
            if self.beyond_history().includes(self.runs.in_slot(slot)) {
                if let Some(missing) = self.unless_wanted(slot) {
                    self.take(slot, missing);
                }
            }
        }
        let kept = initial_slots(self.quota.largest());
        let surplus = self.memory.count().saturating_sub(kept);
        let released = bits(idle & self.blank())
            .skip(self.quota.most_spare() as usize)
            .take(surplus as usize)
            .fold(0, |slots, slot| slots | 1 << slot);
        failpoint(Failpoint::ReleaseDue);
        self.memory.begin_release(released);
        released
    }

    /// Releases the memory of all unused slots of a superseded segment. In lossless mode, a slot counts as used until
    /// all readers have taken its frame.
    pub(super) fn release_unused(&mut self, lossless: bool) {
        self.ignore_dead_readers();
        self.note_joins();
        let overwritable = Overwritable::up_to(if lossless { self.slowest_cursor() } else { u64::MAX });
        let pinned = self.pinned();
        self.note_unpinned(pinned);
        for slot in bits(self.unclaimed()) {
            let run = *self.runs.in_slot(slot);
            let missing = match run.first {
                0 => Missing::default(),
                first => self.pins.missing(&self.segment, first, run.last),
            };
            let is_unused = overwritable.includes(&run) && pinned >> slot & 1 == 0;
            if is_unused && self.take(slot, missing) {
                failpoint(Failpoint::ReleaseDue);
                self.segment.mapped().release_slot(slot);
                self.memory.begin_release(1 << slot);
            }
        }
    }

    /// Whether the memory of all slots was released.
    pub(super) fn is_released(&self) -> bool {
        self.memory.slots() == 0
    }
}
