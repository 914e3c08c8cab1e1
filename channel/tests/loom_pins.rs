// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks the pin rule and the runs under every interleaving of the threads, and under every order of memory accesses that
//! the language allows.
//!
//! All models except (c) also have variants in which a single step is weakened. These variants must fail, because a model
//! that cannot fail proves nothing. loom treats SeqCst accesses as AcqRel accesses, but models full fences
//! exactly. No model therefore depends on the stronger order of SeqCst accesses.

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    thread,
};
use pins::{PinCounts, PinResult, lower_quota, take_for_writing, take_unpinnable};
use run::{RunPosition, load_tail, publish_tail};

/// The crate's own file. It uses the modules `atomic`, `failpoint` and `layout`, which are replaced below.
#[path = "../src/protocol/pins.rs"]
mod pins;
/// The crate's own file. It uses the modules `atomic` and `layout`, which are replaced below.
#[allow(dead_code)] // the models use only the tail
#[path = "../src/protocol/run.rs"]
mod run;

/// The atomics of loom, which replace those of the standard library.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

/// Failpoints, which do nothing in a model.
mod failpoint {
    pub(crate) enum Failpoint {
        PinSet,
        Pinned,
        UnpinDue,
        PinsSeen,
        SeqCleared,
        QuotaLowered,
    }

    pub(crate) fn failpoint(_: Failpoint) {}
}

/// The parts of the layout that the pin rule and the runs need.
mod layout {
    pub(crate) const MAX_SLOTS: usize = 64;
    pub(crate) const RUN_ALIGN: u64 = 8;

    /// Only the size of this structure matters.
    pub(crate) struct RunRecord {
        _bytes: [u8; 64],
    }
}

/// A slot, and the pin word of one reader entry. At first, the slot contains frame 1, which has one pixel of value 1.
struct Slot {
    word: AtomicU64,
    quota: AtomicU32,
    seq: AtomicU64,
    /// loom reports every read of the pixel that can race with a write.
    pixel: UnsafeCell<u64>,
}

impl Slot {
    fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            quota: AtomicU32::new(1),
            seq: AtomicU64::new(1),
            pixel: UnsafeCell::new(1),
        }
    }

    fn is_pinned(&self) -> bool {
        self.word.load(Ordering::Acquire) & 1 == 1
    }

    /// Redraws and publishes a slot that the writer has taken, in the same steps as `Writer::publish`.
    fn draw_and_publish(&self, seq: u64) {
        // SAFETY: no other thread accesses the pixel now. The model proves this: if another thread did, loom would make
        // the model fail.
        self.pixel.with_mut(|pixel| unsafe { *pixel = seq });
        self.seq.store(seq, Ordering::Release);
    }

    /// Checks the pixel of frame `seq`. The caller must hold a pin of this frame.
    fn check(&self, seq: u64) {
        // SAFETY: as in `draw_and_publish`.
        self.pixel.with(|pixel| assert_eq!(unsafe { *pixel }, seq));
    }

    fn pin(&self, counts: &mut PinCounts, seq: u64) -> bool {
        counts.pin(&self.word, &self.quota, &self.seq, 0, seq) == PinResult::Pinned
    }

    /// If frame `seq` is in the slot, pins the frame, reads it twice, and unpins it.
    fn read(&self, counts: &mut PinCounts, seq: u64) {
        if self.pin(counts, seq) {
            self.check(seq);
            thread::yield_now();
            self.check(seq);
            counts.unpin(&self.word, 0);
        }
    }
}

/// A wrong variant of `take_for_writing`: it has no fence.
fn take_without_fence(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    seq.store(0, Ordering::Relaxed);
    !pinned()
}

/// A wrong variant of `take_for_writing`: it checks the pins before it clears the seq, instead of afterwards.
fn take_without_second_look(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    let free = !pinned();
    seq.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    free
}

/// Model (a): a writer redraws a slot while a reader pins the slot. The reader pins the slot first for the frame that
/// the slot contains at first, and then for the next frame.
fn redraw_while_pinning(take: fn(&AtomicU64, &dyn Fn() -> bool) -> bool) {
    loom::model(move || {
        let slot = Arc::new(Slot::new());
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let mut counts = PinCounts::default();
                slot.read(&mut counts, 1);
                slot.read(&mut counts, 2);
                assert_eq!(counts.held(), 0);
            }
        });
        for seq in 2..=3 {
            if take(&slot.seq, &|| slot.is_pinned()) {
                slot.draw_and_publish(seq);
            }
        }
        reader.join().unwrap();
        assert!(!slot.is_pinned());
    });
}

#[test]
fn pinned_frame_never_changes() {
    redraw_while_pinning(|seq, pinned| take_for_writing(seq, pinned));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_missing_fence() {
    redraw_while_pinning(|seq, pinned| take_without_fence(seq, pinned));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_missing_second_look() {
    redraw_while_pinning(|seq, pinned| take_without_second_look(seq, pinned));
}

/// A reader entry whose owner, of generation 1, died with a pin set.
struct ReaderEntry {
    slot: Slot,
    generation: AtomicU32,
    /// Whether the entry's byte is locked. The mutex orders accesses to the lock, as the kernel does.
    locked: Mutex<bool>,
}

/// The writer's state in model (b), which has one reader entry.
#[derive(Default)]
struct WriterSide {
    ignored: Option<u32>,
}

impl WriterSide {
    /// Whether a living reader pins the slot.
    fn is_pinned(&self, entry: &ReaderEntry) -> bool {
        let bits = entry.slot.word.load(Ordering::Acquire);
        bits != 0 && self.ignored != Some(entry.generation.load(Ordering::Acquire)) && bits & 1 == 1
    }

    /// Ignores the pins of the entry if they are set and no process has locked the entry.
    fn ignore_dead_owner(&mut self, entry: &ReaderEntry) {
        let has_pins = entry.slot.word.load(Ordering::Acquire) != 0;
        let generation = entry.generation.load(Ordering::Acquire);
        if has_pins && !*entry.locked.lock().unwrap() {
            self.ignored = Some(generation);
        }
    }

    /// A wrong variant: it tests the lock before it reads the generation, so that the two values may belong to
    /// different owners.
    fn ignore_dead_owner_too_early(&mut self, entry: &ReaderEntry) {
        let locked = *entry.locked.lock().unwrap();
        let has_pins = entry.slot.word.load(Ordering::Acquire) != 0;
        let generation = entry.generation.load(Ordering::Acquire);
        if has_pins && !locked {
            self.ignored = Some(generation);
        }
    }
}

/// Model (b): a reader entry gets a new owner while the writer ignores the dead owner's pins and redraws the slot.
///
/// `enter` does what the new owner does after it has taken the lock and before it sets its first pin.
fn entry_changes_owner(enter: fn(&ReaderEntry), ignore: fn(&mut WriterSide, &ReaderEntry)) {
    loom::model(move || {
        let entry = Arc::new(ReaderEntry {
            slot: Slot::new(),
            generation: AtomicU32::new(1),
            locked: Mutex::new(false),
        });
        entry.slot.word.store(1, Ordering::Relaxed);
        let reader = thread::spawn({
            let entry = Arc::clone(&entry);
            move || {
                *entry.locked.lock().unwrap() = true;
                enter(&entry);
                entry.slot.read(&mut PinCounts::default(), 1);
            }
        });
        let mut writer = WriterSide::default();
        ignore(&mut writer, &entry);
        if take_for_writing(&entry.slot.seq, || writer.is_pinned(&entry)) {
            entry.slot.draw_and_publish(2);
        }
        reader.join().unwrap();
    });
}

/// Takes over the entry, in the same steps as `Attachment`.
fn enter(entry: &ReaderEntry) {
    let former = entry.generation.load(Ordering::Relaxed);
    entry.slot.word.store(0, Ordering::Relaxed);
    entry.generation.store(former + 1, Ordering::Release);
}

#[test]
fn new_owner_of_entry_is_not_mistaken_for_dead_one() {
    entry_changes_owner(enter, WriterSide::ignore_dead_owner);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_generation_that_is_not_raised() {
    entry_changes_owner(
        |entry| entry.slot.word.store(0, Ordering::Release),
        WriterSide::ignore_dead_owner,
    );
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_lock_tested_too_early() {
    entry_changes_owner(enter, WriterSide::ignore_dead_owner_too_early);
}

/// Model (c): a reader holds one slot twice, and fails to pin the slot for another frame. The slot does not change
/// until the reader has cleared its last valid pin.
#[test]
fn slot_is_held_until_its_last_pin_is_cleared() {
    loom::model(|| {
        let slot = Arc::new(Slot::new());
        let mut counts = PinCounts::default();
        assert!(slot.pin(&mut counts, 1));
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                // The second pin fails if the writer has set the seq to 0, found the first pin, and left the seq at 0.
                let twice = slot.pin(&mut counts, 1);
                slot.check(1);
                assert!(!slot.pin(&mut counts, 9));
                slot.check(1);
                assert_eq!(counts.held(), 1);
                counts.unpin(&slot.word, 0);
                if twice {
                    slot.check(1);
                    counts.unpin(&slot.word, 0);
                }
                assert_eq!(counts.held(), 0);
                // An additional unpin does no harm.
                counts.unpin(&slot.word, 0);
            }
        });
        if take_for_writing(&slot.seq, || slot.is_pinned()) {
            slot.draw_and_publish(2);
        }
        reader.join().unwrap();
        assert!(!slot.is_pinned());
        assert!(take_for_writing(&slot.seq, || slot.is_pinned()));
    });
}

/// Model (d): an observer copies a frame without a pin, and accepts the copy only if it is whole. The frame has two
/// pixels. The pixels are atomics in this model, because in the real program the kernel copies them.
fn observe(fence_of_observer: fn()) {
    loom::model(move || {
        let seq = Arc::new(AtomicU64::new(1));
        let pixels = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
        let observer = thread::spawn({
            let (seq, pixels) = (Arc::clone(&seq), Arc::clone(&pixels));
            move || {
                let before = seq.load(Ordering::Acquire);
                let copy = [0, 1].map(|at: usize| pixels[at].load(Ordering::Relaxed));
                fence_of_observer();
                if before != 0 && seq.load(Ordering::Relaxed) == before {
                    assert_eq!(copy, [before; 2]);
                }
            }
        });
        assert!(take_for_writing(&seq, || false));
        for pixel in pixels.iter() {
            pixel.store(2, Ordering::Relaxed);
        }
        seq.store(2, Ordering::Release);
        observer.join().unwrap();
    });
}

#[test]
fn observer_accepts_whole_frames_only() {
    observe(|| fence(Ordering::Acquire));
}

#[test]
#[should_panic(expected = "left == right")]
fn model_detects_observer_without_fence() {
    observe(|| {});
}

/// A slot with a run. At first, the run has the frame 1.
struct RunSlot {
    first: Slot,
    tail: AtomicU64,
    /// The pixel of the second frame. loom reports every read of it that can race with a write.
    second: UnsafeCell<u64>,
}

impl RunSlot {
    fn new() -> Self {
        Self {
            first: Slot::new(),
            tail: AtomicU64::new(RunPosition::FIRST.to_word()),
            second: UnsafeCell::new(0),
        }
    }

    /// Writes a second frame with the pixel `value` and appends it.
    fn append(&self, value: u64, publish: fn(&AtomicU64, RunPosition)) {
        // SAFETY: as in `Slot::draw_and_publish`.
        self.second.with_mut(|second| unsafe { *second = value });
        publish(&self.tail, RunPosition::FIRST.next(64));
    }

    /// If the run that begins with frame `seq` is in the slot, pins the slot and checks all frames up to the tail.
    fn read(&self, counts: &mut PinCounts, seq: u64) {
        if self.first.pin(counts, seq) {
            self.first.check(seq);
            if load_tail(&self.tail) == Some(RunPosition::FIRST.next(64)) {
                // SAFETY: as in `Slot::draw_and_publish`.
                self.second.with(|second| assert_eq!(unsafe { *second }, seq * 10));
            }
            counts.unpin(&self.first.word, 0);
        }
    }
}

/// Model (e): a writer appends a frame to a run, and then takes the slot for another run, to which it appends a frame too.
/// A reader pins the slot and reads all frames of the run.
fn append_while_pinning(publish: fn(&AtomicU64, RunPosition)) {
    loom::model(move || {
        let slot = Arc::new(RunSlot::new());
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let mut counts = PinCounts::default();
                slot.read(&mut counts, 1);
                slot.read(&mut counts, 2);
            }
        });
        slot.append(10, publish);
        // Another slot has the newest run now, so this slot may be taken.
        if take_for_writing(&slot.first.seq, || slot.first.is_pinned()) {
            slot.tail.store(RunPosition::FIRST.to_word(), Ordering::Relaxed);
            slot.first.draw_and_publish(2);
            slot.append(20, publish);
        }
        reader.join().unwrap();
    });
}

#[test]
fn pinned_run_never_changes_up_to_its_tail() {
    append_while_pinning(publish_tail);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_tail_without_release() {
    append_while_pinning(|tail, position| tail.store(position.to_word(), Ordering::Relaxed));
}

/// Model (f): a writer appends frame 2 to the run of frame 1, and then starts a run with frame 3. A reader that has
/// taken frame 1 finds frame 2, and does not go on to the next run without it.
///
/// `load` loads the number of the newest run and the tail of the first run.
fn next_frame_is_found(load: fn(&AtomicU64, &AtomicU64) -> (u64, Option<RunPosition>)) {
    loom::model(move || {
        let tail = Arc::new(AtomicU64::new(RunPosition::FIRST.to_word()));
        let newest_run = Arc::new(AtomicU64::new(1));
        let reader = thread::spawn({
            let (tail, newest_run) = (Arc::clone(&tail), Arc::clone(&newest_run));
            move || {
                let (newest, tail) = load(&newest_run, &tail);
                if newest == 2 {
                    assert_ne!(tail, Some(RunPosition::FIRST), "frame 2 is skipped");
                }
            }
        });
        publish_tail(&tail, RunPosition::FIRST.next(64));
        newest_run.store(2, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn reader_skips_no_frame_at_the_end_of_a_run() {
    next_frame_is_found(|newest_run, tail| {
        let newest = newest_run.load(Ordering::Acquire);
        (newest, load_tail(tail))
    });
}

#[test]
#[should_panic(expected = "frame 2 is skipped")]
fn model_detects_tail_loaded_too_early() {
    next_frame_is_found(|newest_run, tail| {
        let tail = load_tail(tail);
        (newest_run.load(Ordering::Acquire), tail)
    });
}

/// A wrong variant of `lower_quota`: it has no fence.
fn lower_without_fence(quota: &AtomicU32, value: u32) {
    quota.store(value, Ordering::Release);
}

/// A wrong variant of `PinCounts::pin`: it loads the seq before the quota.
fn pin_with_quota_loaded_last(slot: &Slot, seq: u64) -> bool {
    slot.word.store(1, Ordering::Release);
    fence(Ordering::SeqCst);
    let is_there = slot.seq.load(Ordering::Acquire) == seq;
    let is_pinned = is_there && slot.quota.load(Ordering::Acquire) > 0;
    if !is_pinned {
        slot.word.store(0, Ordering::Release);
    }
    is_pinned
}

/// Model (g): a writer withdraws the quota and looks at the pins once. If the slot has no pin, the writer takes it as often
/// as it likes, and does not look again. Then the writer grants the quota again, and must look again. A reader tries to pin
/// the slot for each frame.
fn quota_is_withdrawn(lower: fn(&AtomicU32, u32), pin: fn(&Slot, u64) -> bool, looks_again: bool) {
    loom::model(move || {
        let slot = Arc::new(Slot::new());
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                for seq in 1..=2 {
                    if pin(&slot, seq) {
                        slot.check(seq);
                        slot.word.store(0, Ordering::Release);
                    }
                }
            }
        });
        lower(&slot.quota, 0);
        if !slot.is_pinned() {
            take_unpinnable(&slot.seq);
            slot.draw_and_publish(2);
            slot.quota.store(1, Ordering::Release);
            if take_for_writing(&slot.seq, || looks_again && slot.is_pinned()) {
                slot.draw_and_publish(3);
            }
        }
        reader.join().unwrap();
    });
}

/// Pins the slot for one frame, as a reader does that holds no other slot.
fn pin_once(slot: &Slot, seq: u64) -> bool {
    slot.pin(&mut PinCounts::default(), seq)
}

#[test]
fn withdrawn_quota_pins_nothing() {
    quota_is_withdrawn(lower_quota, pin_once, true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_withdrawal_without_fence() {
    quota_is_withdrawn(lower_without_fence, pin_once, true);
}

#[test]
#[should_panic(expected = "left == right")]
fn model_detects_quota_loaded_last() {
    quota_is_withdrawn(lower_quota, pin_with_quota_loaded_last, true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn model_detects_grant_without_another_look() {
    quota_is_withdrawn(lower_quota, pin_once, false);
}

/// Model (h): a writer lowers the quota from two slots to a share of one, and counts the pins afterwards, or wrongly before.
/// A reader that holds one slot tries to pin another one. It has no more slots in the end than the writer has counted.
fn quota_is_lowered(lower: fn(&AtomicU32, u32), counts_before: bool) {
    const SHARE: u32 = 1;
    loom::model(move || {
        let shared = Arc::new((
            AtomicU64::new(0),
            AtomicU32::new(2),
            [AtomicU64::new(1), AtomicU64::new(2)],
        ));
        let mut counts = PinCounts::default();
        let (word, quota, seqs) = &*shared;
        assert_eq!(counts.pin(word, quota, &seqs[0], 0, 1), PinResult::Pinned);
        let reader = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (word, quota, seqs) = &*shared;
                counts.pin(word, quota, &seqs[1], 1, 2);
                counts.held()
            }
        });
        let count = || word.load(Ordering::Acquire).count_ones();
        let early = count();
        lower(quota, SHARE);
        let counted = if counts_before { early } else { count() };
        let held = reader.join().unwrap();
        assert!(held <= counted.max(SHARE), "a pin is not counted");
    });
}

#[test]
fn lowered_quota_pins_nothing_beyond_it() {
    quota_is_lowered(lower_quota, false);
}

#[test]
#[should_panic(expected = "a pin is not counted")]
fn model_detects_lowered_quota_without_fence() {
    quota_is_lowered(lower_without_fence, false);
}

#[test]
#[should_panic(expected = "a pin is not counted")]
fn model_detects_pins_counted_before_quota_is_lowered() {
    quota_is_lowered(lower_quota, true);
}
