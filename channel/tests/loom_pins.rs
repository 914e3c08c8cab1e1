//! The pin rule under every interleaving and every memory order that the language allows.
//!
//! `cargo test --release --package rsshm-channel --test loom_pins`
//!
//! Next to each model stands one with a single step weakened, which must fail: a model that cannot fail proves nothing.
//! loom treats SeqCst accesses as AcqRel (and full fences as what they are), so nothing here leans on them.

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    thread,
};
use pins::{PinCounts, take_for_writing};

/// The product's own file, with the modules beside it replaced by those below.
#[path = "../src/protocol/pins.rs"]
mod pins;

/// loom's atomics in place of the processor's.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

/// A failpoint does nothing in the model.
mod failpoint {
    pub(crate) enum Failpoint {
        PinSet,
        Pinned,
        UnpinDue,
        PinsSeen,
        SeqCleared,
    }

    pub(crate) fn failpoint(_: Failpoint) {}
}

/// The one constant of the layout that the rule needs.
mod layout {
    pub(crate) const MAX_SLOTS: usize = 64;
}

/// A slot with the frame 1 in it, whose one pixel is 1, and one seat's pin word.
struct Slot {
    word: AtomicU64,
    seq: AtomicU64,
    /// loom reports every read of it that is not ordered with a write.
    pixel: UnsafeCell<u64>,
}

impl Slot {
    fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            seq: AtomicU64::new(1),
            pixel: UnsafeCell::new(1),
        }
    }

    fn is_pinned(&self) -> bool {
        self.word.load(Ordering::Acquire) & 1 == 1
    }

    /// What `Writer::publish` does with a slot that was taken.
    fn draw_and_publish(&self, seq: u64) {
        // SAFETY: what is to be proved: nobody else looks at the pixel now. loom fails the model if somebody does.
        self.pixel.with_mut(|pixel| unsafe { *pixel = seq });
        self.seq.store(seq, Ordering::Release);
    }

    /// Looks at the pixel, as the holder of a pin of frame `seq` may.
    fn look(&self, seq: u64) {
        // SAFETY: as in `draw_and_publish`.
        self.pixel.with(|pixel| assert_eq!(unsafe { *pixel }, seq));
    }

    /// Pins frame `seq` if it is there, looks at it twice, and lets it go.
    fn read(&self, counts: &mut PinCounts, seq: u64) {
        if counts.pin(&self.word, &self.seq, 0, seq) {
            self.look(seq);
            thread::yield_now();
            self.look(seq);
            counts.unpin(&self.word, 0);
        }
    }
}

/// `take_for_writing` as it must not be: without its fence.
fn take_without_fence(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    seq.store(0, Ordering::Relaxed);
    !pinned()
}

/// `take_for_writing` as it must not be: the pins are looked at only before the number goes.
fn take_without_second_look(seq: &AtomicU64, pinned: impl FnOnce() -> bool) -> bool {
    let free = !pinned();
    seq.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    free
}

/// (a) A writer redraws a slot while a reader pins it, for the frame that was there and for the one that comes.
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
fn a_pinned_frame_never_changes() {
    redraw_while_pinning(|seq, pinned| take_for_writing(seq, pinned));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_notices_a_missing_fence() {
    redraw_while_pinning(|seq, pinned| take_without_fence(seq, pinned));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_notices_a_missing_second_look() {
    redraw_while_pinning(|seq, pinned| take_without_second_look(seq, pinned));
}

/// A seat whose owner, of ticket 1, died with a pin set.
struct ReaderEntry {
    slot: Slot,
    generation: AtomicU32,
    /// The kernel's lock on the seat's byte. What the kernel does is ordered, as under a mutex.
    locked: Mutex<bool>,
}

/// The steps of `SlotTable`, as its one seat has them.
#[derive(Default)]
struct WriterSide {
    ignored: Option<u32>,
}

impl WriterSide {
    /// `SlotTable::pinned`.
    fn is_pinned(&self, entry: &ReaderEntry) -> bool {
        let bits = entry.slot.word.load(Ordering::Acquire);
        bits != 0 && self.ignored != Some(entry.generation.load(Ordering::Acquire)) && bits & 1 == 1
    }

    /// `SlotTable::ignore_the_dead`.
    fn ignore_the_dead(&mut self, entry: &ReaderEntry) {
        let in_the_way = entry.slot.word.load(Ordering::Acquire) != 0;
        let generation = entry.generation.load(Ordering::Acquire);
        if in_the_way && !*entry.locked.lock().unwrap() {
            self.ignored = Some(generation);
        }
    }

    /// As it must not be: the lock is asked first, so the answer is about somebody else than the ticket read after it.
    fn ignore_the_dead_too_early(&mut self, entry: &ReaderEntry) {
        let locked = *entry.locked.lock().unwrap();
        let in_the_way = entry.slot.word.load(Ordering::Acquire) != 0;
        let generation = entry.generation.load(Ordering::Acquire);
        if in_the_way && !locked {
            self.ignored = Some(generation);
        }
    }
}

/// (b) A seat changes hands while the writer gives the dead owner's pins up and redraws the slot.
///
/// `enter` is what the new owner does between taking the lock and its first pin.
fn seat_changes_hands(enter: fn(&ReaderEntry), ignore: fn(&mut WriterSide, &ReaderEntry)) {
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

/// `Attachment::enter`.
fn enter(entry: &ReaderEntry) {
    let former = entry.generation.load(Ordering::Relaxed);
    entry.generation.store(former + 1, Ordering::Release);
    entry.slot.word.store(0, Ordering::Release);
}

#[test]
fn a_new_owner_of_a_seat_is_not_taken_for_the_dead_one() {
    seat_changes_hands(enter, WriterSide::ignore_the_dead);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_notices_a_ticket_that_is_not_raised() {
    seat_changes_hands(
        |entry| entry.slot.word.store(0, Ordering::Release),
        WriterSide::ignore_the_dead,
    );
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_notices_a_lock_that_is_asked_too_early() {
    seat_changes_hands(enter, WriterSide::ignore_the_dead_too_early);
}

/// (c) One slot held twice, and a pin of it for another frame that fails: the slot stays as it is until the last valid
/// pin is given back.
#[test]
fn a_slot_is_held_until_its_last_pin_goes() {
    loom::model(|| {
        let slot = Arc::new(Slot::new());
        let mut counts = PinCounts::default();
        assert!(counts.pin(&slot.word, &slot.seq, 0, 1));
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                // The writer may have set the number to 0 by now, and left it there: then the second pin is refused.
                let twice = counts.pin(&slot.word, &slot.seq, 0, 1);
                slot.look(1);
                assert!(!counts.pin(&slot.word, &slot.seq, 0, 9));
                slot.look(1);
                assert_eq!(counts.held(), 1);
                counts.unpin(&slot.word, 0);
                if twice {
                    slot.look(1);
                    counts.unpin(&slot.word, 0);
                }
                assert_eq!(counts.held(), 0);
                // One too many is no harm.
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

/// (d) An observer copies without a pin: what it accepts is one whole frame. Its pixels are two words, which the kernel
/// copies for it, so they are atomics here.
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
fn an_observer_accepts_whole_frames_only() {
    observe(|| fence(Ordering::Acquire));
}

#[test]
#[should_panic(expected = "left == right")]
fn the_model_notices_an_observer_without_fence() {
    observe(|| {});
}
