// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks the order of memory accesses in everything but the pin rule that crosses processes without a lock.
//!
//! The models run the crate's own files with other atomics. First each model runs as it is, under every interleaving and
//! every order of accesses that the language allows. Then each order in the crate's files is weakened in turn, and at
//! least one model must fail. The constants `SPARE` list the orders that no model needs, with the reason to keep them.
//!
//! loom treats SeqCst accesses as AcqRel accesses, so the checked files use SeqCst only for fences, which loom models
//! exactly.
//! docs/MEMORY-ORDER.md says what loom cannot model.

use std::panic::{AssertUnwindSafe, catch_unwind};

use atomic::{AtomicU32, AtomicU64, Ordering, Site, Weakening};
use layout::{ReaderEntry, Status, reader_state, state};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};

mod atomic;
mod layout;

#[allow(dead_code)]
#[path = "../../src/protocol/entry.rs"]
mod entry;
#[allow(dead_code)]
#[path = "../../src/protocol/pins.rs"]
mod pins;
#[path = "../../src/protocol/ring.rs"]
mod ring;
#[path = "../../src/protocol/seqlock.rs"]
mod seqlock;
#[allow(dead_code)]
#[path = "../../src/protocol/status.rs"]
mod status;
#[allow(dead_code)]
#[path = "../../src/sys/semaphore/word.rs"]
mod word;

/// Failpoints, which do nothing in a model.
mod failpoint {
    #[allow(dead_code)]
    pub(crate) enum Failpoint {
        EntryCleared,
        PinsCleared,
        GenerationStored,
        Joining,
        PinSet,
        Pinned,
        UnpinDue,
        PinsSeen,
        SeqCleared,
        SeqStored,
        RingStored,
        EndHalf,
        EndsLoaded,
        QuotaLowered,
    }

    pub(crate) fn failpoint(_: Failpoint) {}
}

/// An order that no model needs: a part of the line that states it, how it is weakened, and why it is kept.
type Spare = (&'static str, Weakening, &'static str);

fn text_of(site: Site) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(site.file.strip_prefix("channel/").unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().nth(site.line as usize - 1).unwrap().trim().to_owned()
}

/// Runs a model. A thread is interrupted at most twice, which is enough for every order below, and keeps the models short.
fn run(model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// Runs the models, then weakens each order in `file` that they pass, and checks that a model fails.
fn check(file: &str, models: &[fn()], spare: &[Spare]) {
    for model in models {
        run(*model);
    }
    let mut seen = atomic::seen();
    seen.retain(|(site, _)| site.file.ends_with(file));
    assert!(!seen.is_empty());
    let mut unused: Vec<_> = spare.iter().collect();
    for (site, weakening) in seen {
        atomic::weaken(Some((site, weakening)));
        let is_caught = models
            .iter()
            .any(|model| catch_unwind(AssertUnwindSafe(|| run(*model))).is_err());
        atomic::weaken(None);
        let text = text_of(site);
        let is_spare = |spare: &&Spare| text.contains(spare.0) && weakening == spare.1;
        let expected = spare.iter().find(is_spare);
        unused.retain(|spare| !is_spare(spare));
        println!(
            "{}:{}: {text} as {weakening:?}: {}",
            site.file,
            site.line,
            if is_caught { "fails" } else { "holds" }
        );
        assert_eq!(is_caught, expected.is_none(), "{site:?}: {text} as {weakening:?}");
    }
    assert!(unused.is_empty(), "{unused:?}");
}

/// Runs `other` in a second thread and `main` in this one, and returns the results.
fn both<T: 'static>(other: impl FnOnce() -> T + 'static, main: impl FnOnce()) -> T {
    let thread = thread::spawn(other);
    main();
    thread.join().unwrap()
}

/// A record of two words.
struct Record {
    seq: AtomicU64,
    words: [AtomicU64; 2],
}

impl Record {
    fn new() -> Self {
        Self {
            seq: AtomicU64::new(0),
            words: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    fn write(&self, seq: u64) {
        seqlock::write(&self.seq, seq, || {
            for word in &self.words {
                word.store(seq, Ordering::Relaxed);
            }
        });
    }

    fn read(&self) -> Option<u64> {
        let (seq, words) = seqlock::read(&self.seq, || {
            [0, 1].map(|at: usize| self.words[at].load(Ordering::Relaxed))
        })?;
        assert_eq!(words, [seq; 2], "the copy is torn");
        Some(seq)
    }
}

fn record_is_written_twice() {
    let record = Arc::new(Record::new());
    let reader = Arc::clone(&record);
    both(
        move || {
            reader.read();
        },
        || {
            record.write(1);
            record.write(2);
        },
    );
    assert_eq!(record.read(), Some(2));
}

#[test]
fn record_is_read_whole() {
    check("protocol/seqlock.rs", &[record_is_written_twice], &[]);
}

/// Two frames with an event between them, and then the segment is over.
fn frames_and_an_event() {
    struct Segment {
        status: Status,
        frames: [AtomicU64; 2],
        event: Record,
    }
    let segment = Arc::new(Segment {
        status: Status::new(),
        frames: [AtomicU64::new(0), AtomicU64::new(0)],
        event: Record::new(),
    });
    let reader = Arc::clone(&segment);
    both(
        move || {
            let snapshot = reader.status.snapshot(0);
            for frame in &reader.frames[..snapshot.head as usize] {
                assert_eq!(frame.load(Ordering::Relaxed), 1, "a frame up to the head is missing");
            }
            assert!(
                snapshot.event_head >= 1 || snapshot.head < 2,
                "the event before a frame is missing"
            );
            if snapshot.event_head == 1 {
                assert_eq!(reader.event.read(), Some(1), "the newest event is missing");
            }
            assert!(
                !snapshot.is_superseded() || snapshot.head == 2,
                "the head is not the last one"
            );
            assert!(
                snapshot.head >= snapshot.published.into(),
                "the wait would miss a frame"
            );
        },
        || {
            let publish = |seq: u64| {
                segment.frames[seq as usize - 1].store(1, Ordering::Relaxed);
                segment.status.publish_head(seq);
                Status::count_notification(&segment.status.published);
            };
            publish(1);
            segment.event.write(1);
            segment.status.publish_event_head(1);
            publish(2);
            segment.status.mark(state::SUPERSEDED);
        },
    );
}

/// The stream ends between two frames.
fn end_between_frames() {
    let shared = Arc::new((Status::new(), AtomicU64::new(0)));
    let reader = Arc::clone(&shared);
    both(
        move || {
            let snapshot = reader.0.snapshot(0);
            let ends = u64::from(snapshot.eos_count);
            assert!(snapshot.head >= ends, "the frame before the end is missing");
            assert!(snapshot.head <= ends + 1, "the end before a frame is missing");
            assert_eq!(snapshot.newest(), if snapshot.has_end() { 1 } else { snapshot.head });
            assert!(
                snapshot.head < 2 || reader.1.load(Ordering::Relaxed) == 1,
                "a frame up to the head is missing"
            );
        },
        || {
            let (status, second_frame) = &*shared;
            status.publish_head(1);
            status.publish_end(1);
            second_frame.store(1, Ordering::Relaxed);
            status.publish_head(2);
        },
    );
}

/// The stream ends three times, after the frames 1, 2 and 3. The third end overwrites the entry of the first.
fn three_ends() {
    let status = Arc::new(Status::new());
    status.head.store(3, Ordering::Relaxed);
    let reader = Arc::clone(&status);
    both(
        move || {
            let snapshot = reader.snapshot(0);
            if snapshot.has_end() {
                assert_eq!(snapshot.newest(), snapshot.eos_count.into(), "the end is another one");
            }
        },
        || {
            for seq in 1..=3 {
                status.publish_end(seq);
            }
        },
    );
}

/// A reader that finds that the segment is over loads its last head.
fn last_head() {
    let status = Arc::new(Status::new());
    let reader = Arc::clone(&status);
    both(
        move || {
            if reader.is_over() {
                assert_eq!(reader.head.load(Ordering::Acquire), 1, "the head is not the last one");
            }
        },
        || {
            status.publish_head(1);
            status.mark(state::CLOSED);
        },
    );
}

/// A reader attaches while the writer supersedes the segment.
fn attaches_while_superseded() {
    let shared = Arc::new((Status::new(), ReaderEntry::attached(), AtomicU32::new(0)));
    shared.1.state.store(reader_state::LEFT, Ordering::Relaxed);
    let reader = Arc::clone(&shared);
    let mut is_seen = false;
    let is_over = both(
        move || {
            let (status, entry, joins) = &*reader;
            entry.begin(&AtomicU32::new(0));
            entry.announce(joins);
            status.is_over()
        },
        || {
            shared.0.mark(state::SUPERSEDED);
            is_seen = shared.2.load(Ordering::Acquire) == 1 && reader_state::is_present(shared.1.owner().0);
        },
    );
    assert!(is_seen || is_over, "neither of the two sees the other");
}

/// A reader gives something back with `release`, which wakes the writer. The writer looks for it with `is_released`, and then
/// sleeps.
fn writer_waits(release: fn(&Status, &ReaderEntry), is_released: fn(&ReaderEntry) -> bool) {
    let shared = Arc::new((Status::new(), ReaderEntry::attached()));
    shared.1.pins.store(1, Ordering::Relaxed);
    let reader = Arc::clone(&shared);
    let (mut seen, mut is_ready) = (0, false);
    both(
        move || release(&reader.0, &reader.1),
        || {
            seen = shared.0.begin_writer_wait();
            is_ready = is_released(&shared.1);
        },
    );
    let would_sleep = shared.0.writer_word.load(Ordering::Acquire) == seen;
    assert!(is_ready || !would_sleep, "the wake is lost");
}

/// A reader releases its pin, and wakes a writer that waits.
fn release_while_writer_waits() {
    writer_waits(
        |status, entry| {
            entry.pins.store(0, Ordering::Release);
            if status.is_writer_waiting() {
                Status::count_notification(&status.writer_word);
            }
        },
        |entry| entry.pins.load(Ordering::Acquire) == 0,
    );
}

/// A reader leaves and always wakes the writer.
fn leave_while_writer_waits() {
    writer_waits(
        |status, entry| {
            entry.state.store(reader_state::LEFT, Ordering::Relaxed);
            Status::count_notification(&status.writer_word);
        },
        |entry| entry.state.load(Ordering::Relaxed) == reader_state::LEFT,
    );
}

#[test]
fn status_is_consistent_and_no_wake_is_lost() {
    check(
        "protocol/status.rs",
        &[
            release_while_writer_waits,
            leave_while_writer_waits,
            attaches_while_superseded,
            last_head,
            end_between_frames,
            frames_and_an_event,
            three_ends,
        ],
        &[(
            "let seen = self.writer_word.load(Ordering::Acquire)",
            Weakening::Nothing,
            "the full fence after it orders it too, but the service loads the word in the same way without a fence",
        )],
    );
}

/// The entry of a dead reader gets a new owner, which attaches. The new owner has the lock of the entry.
fn entry_gets_a_new_owner() {
    let shared = Arc::new((ReaderEntry::attached(), AtomicU32::new(0)));
    let new = Arc::clone(&shared);
    both(
        move || {
            let (owner, joins) = &*new;
            assert_eq!(owner.begin(&AtomicU32::new(0)), 2);
            owner.set_cursor(3);
            owner.forget_requests();
            owner.announce(joins);
            owner.set_state(reader_state::ATTACHED);
        },
        || {
            let (entry, joins) = &*shared;
            let has_joined = joins.load(Ordering::Acquire) == 1;
            // From the first look on, the writer knows the generation.
            let known = entry.owner().1;
            let (state, generation) = entry.owner();
            if has_joined {
                assert_eq!(generation, 2, "the writer would not look again");
            }
            if known == 2 && reader_state::is_present(state) {
                assert_eq!(generation, 2);
                assert_eq!(entry.message_head.load(Ordering::Relaxed), 0, "a former owner's count");
                assert_eq!(entry.wanted_cursor(Some(1)), Some(3), "a former owner's cursor");
            }
            if known == 2 {
                let cursor = entry.attached_cursor(Some(1));
                assert!(cursor.is_none_or(|cursor| cursor == 3), "a former owner's cursor");
            }
            if state == reader_state::JOINING {
                assert_eq!(generation, 2, "a former owner's generation");
            }
        },
    );
}

/// A reader of a lossless channel copies a frame and advances its cursor, and then leaves. The writer draws over the frame
/// when the cursor or the state allows it.
fn frame_is_drawn_after_it_was_copied(leave: bool) {
    let shared = Arc::new((ReaderEntry::attached(), UnsafeCell::new(1)));
    shared.0.cursor.store(0, Ordering::Relaxed);
    let reader = Arc::clone(&shared);
    both(
        move || {
            let (entry, pixel) = &*reader;
            // SAFETY: loom fails if the other thread writes at the same time.
            pixel.with(|pixel| assert_eq!(unsafe { *pixel }, 1));
            if leave {
                entry.set_state(reader_state::LEFT);
            } else {
                entry.set_cursor(1);
            }
        },
        || {
            if shared.0.wanted_cursor(None).is_none_or(|cursor| cursor >= 1) {
                // SAFETY: loom fails if the other thread reads at the same time.
                shared.1.with_mut(|pixel| unsafe { *pixel = 2 });
            }
        },
    );
}

#[test]
fn entry_has_one_owner() {
    check(
        "protocol/entry.rs",
        &[
            entry_gets_a_new_owner,
            || frame_is_drawn_after_it_was_copied(false),
            || frame_is_drawn_after_it_was_copied(true),
            attaches_while_superseded,
        ],
        &[],
    );
}

/// Two slots. At first, no run is published.
struct Ring {
    newest: AtomicU64,
    entries: [AtomicU64; 2],
    slots: [Record; 2],
}

impl Ring {
    fn new() -> Self {
        Self {
            newest: AtomicU64::new(0),
            entries: [AtomicU64::new(0), AtomicU64::new(0)],
            slots: [Record::new(), Record::new()],
        }
    }

    /// Publishes the run `number`, which begins with the frame `seq`, in `slot`.
    fn publish(&self, number: u64, seq: u64, slot: usize) {
        let record = &self.slots[slot];
        for word in &record.words {
            word.store(seq, Ordering::Relaxed);
        }
        ring::RunWords {
            newest: &self.newest,
            entry: &self.entries[number as usize % 2],
            slot_seq: &record.seq,
        }
        .publish(number, seq, slot);
    }

    /// Copies the run that begins with the frame `first` from a slot.
    fn copy(&self, slot: usize, first: u64) -> bool {
        let record = &self.slots[slot];
        ring::has_run(&record.seq, first) && {
            let words = [0, 1].map(|at: usize| record.words[at].load(Ordering::Relaxed));
            let is_whole = ring::still_has_run(&record.seq, first);
            assert!(!is_whole || words == [first; 2], "the copy is torn");
            is_whole
        }
    }
}

fn two_runs_are_published() {
    let ring = Arc::new(Ring::new());
    let reader = Arc::clone(&ring);
    both(
        move || {
            for number in 1..=ring::load_newest(&reader.newest) {
                let (first, slot) = ring::load_entry(&reader.entries[number as usize % 2]);
                assert_eq!(
                    (first, slot),
                    (number * 10, number as usize - 1),
                    "the ring has another run"
                );
                assert!(reader.copy(slot, first), "the run is not in its slot");
            }
        },
        || {
            ring.publish(1, 10, 0);
            ring.publish(2, 20, 1);
        },
    );
}

/// The writer takes a slot and publishes another run in it, while an observer copies.
fn slot_gets_another_run() {
    let ring = Arc::new(Ring::new());
    ring.publish(1, 10, 0);
    let reader = Arc::clone(&ring);
    both(
        move || {
            reader.copy(0, 10);
            reader.copy(0, 20);
        },
        || {
            assert!(pins::take_for_writing(&ring.slots[0].seq, || false));
            ring.publish(2, 20, 0);
        },
    );
}

#[test]
fn run_is_found_whole() {
    const REASON: &str = "run_head orders it too; a reader with an older run_head refuses the run";
    check(
        "protocol/ring.rs",
        &[two_runs_are_published, slot_gets_another_run],
        &[
            ("self.entry.store(", Weakening::Nothing, REASON),
            ("entry.load(Ordering::Acquire)", Weakening::Nothing, REASON),
        ],
    );
}

/// The kernel's queue of the sleepers of a futex.
struct Futex {
    queue: Mutex<()>,
    wake: Condvar,
}

/// A semaphore, and what it protects.
struct Protected {
    word: AtomicU64,
    futex: Futex,
    value: UnsafeCell<u32>,
}

impl Protected {
    /// Waits as `Semaphore::wait` does, but without a limit: loom reports a thread that sleeps forever.
    fn add_one(&self) {
        word::add_sleeper(&self.word);
        while !word::try_take(&self.word) {
            let queue = self.futex.queue.lock().unwrap();
            if self.word.load(Ordering::Relaxed) as u32 == 0 {
                drop(self.futex.wake.wait(queue).unwrap());
            }
        }
        word::remove_sleeper(&self.word);
        // SAFETY: the semaphore protects the value. If it did not, loom would fail.
        self.value.with_mut(|value| unsafe { *value += 1 });
        let (before, has_sleepers) = word::give_back(&self.word);
        assert_eq!(before, 0);
        if has_sleepers {
            let _queue = self.futex.queue.lock().unwrap();
            self.futex.wake.notify_one();
        }
    }
}

fn semaphore_is_taken_twice() {
    let protected = Arc::new(Protected {
        word: AtomicU64::new(0),
        futex: Futex {
            queue: Mutex::new(()),
            wake: Condvar::new(),
        },
        value: UnsafeCell::new(0),
    });
    word::initialise(&protected.word);
    let other = Arc::clone(&protected);
    both(move || other.add_one(), || protected.add_one());
    // SAFETY: the other thread has ended.
    protected.value.with(|value| assert_eq!(unsafe { *value }, 2));
}

/// A writer repairs a semaphore, after it has written what the semaphore protects.
fn semaphore_is_repaired() {
    let shared = Arc::new((AtomicU64::new(0), UnsafeCell::new(0)));
    let other = Arc::clone(&shared);
    both(
        move || {
            if word::try_take(&other.0) {
                // SAFETY: as in `Protected::add_one`.
                other.1.with(|value| assert_eq!(unsafe { *value }, 1));
            }
        },
        || {
            // SAFETY: as in `Protected::add_one`.
            shared.1.with_mut(|value| unsafe { *value = 1 });
            word::initialise(&shared.0);
        },
    );
}

#[test]
fn semaphore_has_one_holder() {
    check(
        "semaphore/word.rs",
        &[semaphore_is_taken_twice, semaphore_is_repaired],
        &[],
    );
}
