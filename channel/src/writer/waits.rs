//! What a writer waits for: a reader, those that are to follow, a slot, and what the service has to see to.

use std::{
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use super::{RetiredSegment, State, Writer, WriterSegment};
use crate::{
    Error,
    protocol::layout::{MAX_READERS, reader_state},
    segment::wait::{FutexWord, RateLimiter},
};

/// How long a blocked writer sleeps before it asks the kernel whether the reader it waits for still lives.
const BLOCKED_CHECK: Duration = Duration::from_millis(10);
/// How long a lossless writer waits for its readers before it makes one more slot than they need. Readers that keep up give one
/// back sooner, and a few slots that stay in the processor's caches are faster than many.
const GROWTH_PATIENCE: Duration = Duration::from_millis(2);
/// How often such a writer looks at once when it is woken and woken again; then once in so long.
const BLOCKED_WAKES: u32 = 256;
const BLOCKED_LOOK: Duration = Duration::from_millis(1);

/// How long a lossless writer that took over from a dead one waits for readers that are still in older segments. Those find
/// the new one within some 20 ms, but who is not in any has a seat too, while it uses frames of old ones.
const STRANGERS: Duration = Duration::from_secs(1);

impl Writer {
    /// Makes the publishing thread's waits return at once, until [`resume`](Self::resume).
    pub fn interrupt(&self) {
        self.waiter.interrupt();
    }

    /// Lets the publishing thread wait again.
    pub fn resume(&self) {
        self.waiter.resume();
    }

    /// Waits until a reader is attached, or that is no longer `wanted`; `false` when interrupted. Makes the segment that
    /// it can attach to.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn wait_for_reader(&self, size: usize, wanted: impl Fn() -> bool) -> Result<bool, Error> {
        self.ensure_segment(size)?;
        Ok(self.wait_until(BLOCKED_CHECK, |state| state.has_reader() || !wanted()))
    }

    /// In lossless mode, waits until the readers of the former segment have taken all of it and follow; `false` when
    /// interrupted. To be called before a publish.
    pub(super) fn followers_arrived(&self) -> bool {
        !self.options.lossless || self.wait_until(BLOCKED_CHECK, |state| state.followers_arrived())
    }

    /// In lossless mode, waits until the next frame can have a slot; `false` when interrupted. Called after a publish, it
    /// gives upstream memory to draw the next frame in place.
    pub(super) fn slot_available(&self) -> bool {
        let mut began = None;
        !self.options.lossless
            || self.wait_until(GROWTH_PATIENCE, |state| {
                state.has_claimable(false) || {
                    let began = *began.get_or_insert_with(Instant::now);
                    began.elapsed() >= GROWTH_PATIENCE && state.has_claimable(true)
                }
            })
    }

    /// Waits until `ready`, which is asked at least every [`BLOCKED_CHECK`], and every `growth` while there can be more slots;
    /// `false` when interrupted.
    fn wait_until(&self, growth: Duration, mut ready: impl FnMut(&mut State) -> bool) -> bool {
        let mut state = self.lock();
        if ready(&mut state) {
            return true;
        }
        let mut limiter = RateLimiter::new(BLOCKED_WAKES, BLOCKED_LOOK);
        loop {
            let Some(segment) = state
                .current
                .as_ref()
                .map(|current| Arc::clone(&current.segment.segment))
            else {
                return true;
            };
            let status = segment.tables.status();
            // Acquire: what is given back after the count was read changes it.
            let seen = status.writer_word.load(Ordering::Acquire);
            status.writer_waits.store(1, Ordering::Relaxed);
            // Pairs with the fence in `Attachment::tell_writer`.
            fence(Ordering::SeqCst);
            let is_ready = ready(&mut state);
            let check = match &state.current {
                Some(current) if current.can_grow() => growth,
                _ => BLOCKED_CHECK,
            };
            drop(state);
            if !is_ready && !self.waiter.is_interrupted() {
                self.waiter.wait(&segment, FutexWord::Writer, seen, check);
            }
            status.writer_waits.store(0, Ordering::Relaxed);
            if is_ready {
                return true;
            }
            if self.waiter.is_interrupted() {
                return false;
            }
            if let Some(rest) = limiter.throttle() {
                self.waiter.sleep(rest);
            }
            state = self.lock();
        }
    }

    /// Sleeps until a reader comes or goes, or the time is over, or somebody calls [`stop_service`](Self::wake_monitor).
    pub fn wait_for_service(&self, timeout: Duration) {
        let mut state = self.lock();
        let rest = state.limiter.throttle();
        let served = state.served;
        let segment = state
            .current
            .as_ref()
            .map(|current| Arc::clone(&current.segment.segment));
        drop(state);
        // A peer that only rings does not keep this thread busy.
        if let Some(rest) = rest {
            self.service_waiter.sleep(rest);
        }
        match segment {
            None => self.service_waiter.sleep(timeout),
            // Who came since the last service is not slept over; a segment that was superseded since counts too.
            Some(segment) => self.service_waiter.wait(&segment, FutexWord::Writer, served, timeout),
        }
    }

    /// Ends [`wait_for_service`](Self::wait_for_service), now and for good: until a [`ServiceThread`](crate::ServiceThread) is
    /// started. A service thread ends by it. May be called from the service thread itself.
    pub fn stop_service(&self) {
        self.service_waiter.interrupt();
    }

    pub(crate) fn is_service_stopped(&self) -> bool {
        self.service_waiter.is_interrupted()
    }

    /// Undoes [`stop_service`](Self::stop_service).
    pub(crate) fn resume_service(&self) {
        self.service_waiter.resume();
    }
}

impl State {
    /// Whether a living reader takes frames in the current segment.
    fn has_reader(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        (0..MAX_READERS)
            .any(|entry| current.segment.state_of(entry) == reader_state::ATTACHED && current.segment.is_alive(entry))
    }

    /// Whether nobody alive takes frames in a superseded segment any more. Who has been in its seat in the current one has
    /// either come from there, or is another who has the seat of a dead one now.
    pub(super) fn is_deserted(&self, retired: &RetiredSegment) -> bool {
        !(0..MAX_READERS).any(|entry| {
            let has_followed = self.current.as_ref().is_some_and(|current| {
                let shared = current.segment.segment.tables.entry(entry);
                shared.state.load(Ordering::Acquire) != reader_state::NEW
            });
            !has_followed && retired.segment.has_reader_in(entry)
        })
    }

    /// Whether the readers of the former segments have come to the current one, or are gone.
    fn followers_arrived(&mut self) -> bool {
        if self.took_over.is_some_and(|at| at.elapsed() < STRANGERS) && self.expects_strangers() {
            return false;
        }
        self.took_over = None;
        self.retired.iter().all(|retired| self.is_deserted(retired))
    }

    /// Whether somebody has a seat and has not been in it in any segment that this writer knows.
    fn expects_strangers(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let known = || std::iter::once(&current.segment).chain(self.retired.iter().map(|retired| &retired.segment));
        (0..MAX_READERS).any(|entry| {
            // Acquire: pairs with the release store of who sits down.
            let is_new = |owner: &Arc<WriterSegment>| {
                owner.segment.tables.entry(entry).state.load(Ordering::Acquire) == reader_state::NEW
            };
            known().all(is_new) && current.segment.is_alive(entry)
        })
    }
}
