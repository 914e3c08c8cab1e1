// SPDX-License-Identifier: MIT OR Apache-2.0

//! The status of a segment: in which order the writer stores its values, and in which order peers load them.

// The paths begin with `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU32, Ordering, fence},
    failpoint::{Failpoint, failpoint},
    layout::{Status, state},
};

/// How many times the count of ends is loaded again while it changes. The number is limited, because a damaged count
/// may change forever.
const MAX_ATTEMPTS: u32 = 8;

/// The status of a segment at the moment of the snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// The readers' futex word.
    pub(crate) published: u32,
    state: u32,
    /// How many times the stream has ended in this segment.
    pub(crate) eos_count: u32,
    /// The seq of the last frame before an end of the stream that the reader has not delivered yet.
    end: Option<u64>,
    /// The seq of the newest frame.
    pub(crate) head: u64,
    /// The seq of the newest event.
    pub(crate) event_head: u64,
    /// The latency of the writer.
    pub(crate) latency_ns: u64,
}

impl Snapshot {
    /// The seq of the newest frame that may be delivered now. Frames of the next stream may be delivered only after an
    /// end of the stream was delivered.
    #[inline]
    pub(crate) fn newest(&self) -> u64 {
        self.end.map_or(self.head, |end| end.min(self.head))
    }

    /// Whether the stream ends after [`newest`](Self::newest).
    #[inline]
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state & state::CLOSED != 0
    }

    #[inline]
    pub(crate) fn is_superseded(&self) -> bool {
        self.state & state::SUPERSEDED != 0
    }
}

/// The writer's stores.
impl Status {
    /// Makes the frame `seq`, which the writer has stored, the newest one.
    pub(crate) fn publish_head(&self, seq: u64) {
        // Release: pairs with the acquire load of a reader that takes a snapshot. This reader then finds the ring's
        // entry, and the run's tail.
        self.head.store(seq, Ordering::Release);
    }

    /// Makes the event `seq`, whose record the writer has stored, the newest one.
    pub(crate) fn publish_event_head(&self, seq: u64) {
        // Release: pairs with the acquire load of a reader that looks for events, which then finds the event. A reader
        // that sees the head of a later frame also sees this head.
        self.event_head.store(seq, Ordering::Release);
    }

    /// Marks an end of the stream after the frame `head`.
    pub(crate) fn publish_end(&self, head: u64) {
        // Relaxed: only this writer changes the count, under the lock of its state.
        let next = self.eos_count.load(Ordering::Relaxed).wrapping_add(1);
        // Release: pairs with the acquire load in `load_newest_end`.
        self.eos_seqs[next as usize % 2].store(head, Ordering::Release);
        failpoint(Failpoint::EndHalf);
        // Release: pairs with the acquire load of a reader that takes a snapshot. This reader then finds the seq of
        // this end.
        self.eos_count.fetch_add(1, Ordering::Release);
    }

    /// Sets a bit of `state` that says that no frame follows.
    pub(crate) fn mark(&self, bit: u32) {
        // Release: pairs with the acquire load of a reader that finds the mark. The head that this reader loads
        // afterwards is final.
        self.state.fetch_or(bit, Ordering::Release);
        // Pairs with the fence in `ReaderEntry::announce`. After that fence, a reader that has joined loads the state.
        // Either the reader sees the mark, or a lossless writer sees the reader and waits for it.
        fence(Ordering::SeqCst);
    }
}

/// The loads of readers and observers.
impl Status {
    /// Whether the segment is superseded or closed, so that no further frame follows in it.
    pub fn is_over(&self) -> bool {
        // Acquire: pairs with the release in `mark`. A head that is loaded after this load is the final head.
        self.state.load(Ordering::Acquire) & (state::SUPERSEDED | state::CLOSED) != 0
    }

    /// Loads the count of ends of the stream, and the seq of the last frame before the newest end. If the count equals
    /// `delivered`, the reader has delivered the newest end already, and the seq is `None`.
    #[inline]
    fn load_newest_end(&self, delivered: u32) -> (u32, Option<u64>) {
        // These are acquire loads; each pairs with a release store in `publish_end`. The entry of an end is overwritten
        // only after the count has grown. So if the count is unchanged after the load of the seq, the seq belongs to
        // this count.
        let mut count = self.eos_count.load(Ordering::Acquire);
        let mut seq = None;
        for _ in 0..MAX_ATTEMPTS {
            if count == delivered {
                return (count, None);
            }
            seq = Some(self.eos_seqs[count as usize % 2].load(Ordering::Acquire));
            let again = self.eos_count.load(Ordering::Acquire);
            if again == count {
                break;
            }
            count = again;
        }
        (count, seq)
    }

    /// Takes a snapshot. `eos_delivered` says how many ends of the stream the reader has delivered.
    ///
    /// A read is correct only if the values are loaded in the order below. Each load is an acquire load, so no later
    /// load moves before it. The loads pair with the release stores of the writer.
    ///
    /// 1. `published`: each later publish changes this futex word, so a wait for a change of the loaded value returns.
    /// 2. `state`: if it says that the segment is over, the head that is loaded later is the last one.
    /// 3. `eos_count` and `eos_seqs`: the head that is loaded later includes every frame before a counted end of the
    ///    stream.
    /// 4. `head`: every frame up to the head can be found, or was overwritten. Then the count is loaded again. If it
    ///    has grown, the head may include frames after an end that is not counted yet, so steps 3 and 4 are repeated.
    /// 5. `event_head`: it includes every event before a frame up to the head.
    #[inline]
    pub(crate) fn snapshot(&self, eos_delivered: u32) -> Snapshot {
        let published = self.published.load(Ordering::Acquire);
        let state = self.state.load(Ordering::Acquire);
        let (mut eos_count, mut end) = self.load_newest_end(eos_delivered);
        failpoint(Failpoint::EndsLoaded);
        let mut head = self.head.load(Ordering::Acquire);
        for _ in 0..MAX_ATTEMPTS {
            // Relaxed: the acquire load of the head orders this load, and a count that has changed is loaded once more.
            if self.eos_count.load(Ordering::Relaxed) == eos_count {
                break;
            }
            (eos_count, end) = self.load_newest_end(eos_delivered);
            head = self.head.load(Ordering::Acquire);
        }
        Snapshot {
            published,
            state,
            eos_count,
            end,
            head,
            event_head: self.event_head.load(Ordering::Acquire),
            // Relaxed: no other value depends on the latency.
            latency_ns: self.latency_ns.load(Ordering::Relaxed),
        }
    }
}

/// The words that peers sleep on, without the calls of the kernel.
impl Status {
    /// Increments a futex word, before its sleepers are woken.
    pub(crate) fn count_notification(word: &AtomicU32) {
        // Release: pairs with the acquire load of the word by a waiter, which then looks for news.
        word.fetch_add(1, Ordering::Release);
    }

    /// Announces that the writer is going to wait for something that a reader releases, and returns the value of the
    /// writer's futex word. The writer then looks once more, and sleeps only while the word has this value.
    pub(crate) fn begin_writer_wait(&self) -> u32 {
        // Acquire: pairs with the release increment of a reader that notifies. Each later notification by a reader
        // changes the word.
        let seen = self.writer_word.load(Ordering::Acquire);
        // Relaxed: the fence below orders this store.
        self.writer_waits.store(1, Ordering::Relaxed);
        // Pairs with the fence in `is_writer_waiting`: either the writer sees what a reader has released, or the reader
        // sees that the writer waits.
        fence(Ordering::SeqCst);
        seen
    }

    /// Ends a wait of the writer.
    pub(crate) fn end_writer_wait(&self) {
        // Relaxed: a reader that does not see this store yet notifies once more, which does no harm.
        self.writer_waits.store(0, Ordering::Relaxed);
    }

    /// Whether the writer waits for something that the caller has just released.
    #[inline]
    pub(crate) fn is_writer_waiting(&self) -> bool {
        // Pairs with the fence in `begin_writer_wait`.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders this load, and the word carries no data.
        self.writer_waits.load(Ordering::Relaxed) != 0
    }
}
