// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waits on the futex words of a segment. Another thread can end a wait.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    protocol::layout::Status,
    segment::Segment,
    sys::{clock, futex, sync},
};

/// One of the two futex words of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FutexWord {
    /// The word that readers wait on. It counts publishes and all other changes that readers have to notice.
    Published,
    /// The word that the writer waits on. It counts those actions of readers that the writer has to notice.
    Writer,
}

impl Segment {
    pub(crate) fn word(&self, word: FutexWord) -> &AtomicU32 {
        match word {
            FutexWord::Published => &self.tables.status().published,
            FutexWord::Writer => &self.tables.status().writer_word,
        }
    }

    /// Increments the word and wakes its sleepers, in all processes.
    pub(crate) fn notify(&self, word: FutexWord) {
        Status::count_notification(self.word(word));
        futex::futex_wake_all(self.word(word));
    }

    /// Wakes the writer if it waits for something that the caller has just released.
    pub(crate) fn notify_waiting_writer(&self) {
        if self.tables.status().is_writer_waiting() {
            self.notify(FutexWord::Writer);
        }
    }
}

/// For this long after a lost wakeup, each sleep is limited to [`CAUTIOUS_TIMEOUT`].
///
/// A process with read permission can move the sleepers of a segment to another futex word (FUTEX_REQUEUE). The wakes
/// of the writer then do not reach these sleepers.
const CAUTIOUS_PERIOD: Duration = Duration::from_secs(60);
const CAUTIOUS_TIMEOUT: Duration = Duration::from_millis(4);

/// Limits how often a loop runs if other processes can wake it. It allows a burst of iterations, then one in each
/// interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimiter {
    burst: u32,
    interval: Duration,
    /// The time at which the iterations so far would end if each took one interval.
    spent_until: Option<Instant>,
}

impl RateLimiter {
    pub(crate) const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            spent_until: None,
        }
    }

    /// Counts an iteration. Too many iterations in a short time mean that some process wakes this one without a reason.
    /// The result then says how long to sleep before the next iteration.
    pub(crate) fn throttle(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let spent_until = self.spent_until.map_or(now, |until| until.max(now)) + self.interval;
        self.spent_until = Some(spent_until);
        (spent_until - now > self.interval * self.burst).then_some(self.interval)
    }

    /// Forgets the iterations so far, because the last one had a reason.
    pub(crate) fn reset(&mut self) {
        self.spent_until = None;
    }
}

/// The waits of one thread, which another thread can end.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    interrupted: AtomicBool,
    /// The word that the thread sleeps on, so that another thread can wake it there.
    sleeping_on: Mutex<Option<(Arc<Segment>, FutexWord)>>,
    /// A futex word that only this process uses. The thread sleeps on it in [`sleep`](Self::sleep), and each wake
    /// increments it.
    wakes: AtomicU32,
    /// When the last lost wakeup was found, in CLOCK_MONOTONIC nanoseconds; 0 if there was none.
    lost_wakeup_at: AtomicU64,
}

impl Waiter {
    pub(crate) fn is_interrupted(&self) -> bool {
        // Acquire: pairs with the release stores in `interrupt` and `resume`.
        self.interrupted.load(Ordering::Acquire)
    }

    /// Sleeps while the word has the value `seen` and no other thread interrupts the wait, at most for `timeout`. The
    /// call may return early.
    pub(crate) fn wait(&self, segment: &Arc<Segment>, word: FutexWord, seen: u32, timeout: Duration) {
        *self.lock() = Some((Arc::clone(segment), word));
        // The flag is loaded only after the line above has stored the sleeper. `interrupt` does the reverse: it sets
        // the flag, and then looks for a sleeper under the same lock.
        if !self.is_interrupted() {
            match word {
                FutexWord::Published => self.sleep_cautiously(segment.word(word), seen, timeout),
                FutexWord::Writer => {
                    futex::futex_wait(segment.word(word), seen, timeout);
                }
            }
        }
        self.lock().take();
    }

    /// Sleeps on the word. If a wakeup was lost recently, the sleep is short.
    fn sleep_cautiously(&self, word: &AtomicU32, seen: u32, timeout: Duration) {
        // Relaxed, here and below: only this thread uses the time.
        let lost_wakeup_at = self.lost_wakeup_at.load(Ordering::Relaxed);
        let is_cautious = lost_wakeup_at != 0
            && clock::monotonic_ns().saturating_sub(lost_wakeup_at) < CAUTIOUS_PERIOD.as_nanos() as u64;
        let timeout = if is_cautious {
            timeout.min(CAUTIOUS_TIMEOUT)
        } else {
            timeout
        };
        let timed_out = futex::futex_wait(word, seen, timeout);
        // Relaxed: only a change of the word matters. The caller loads the word again with acquire order.
        if timed_out && word.load(Ordering::Relaxed) != seen {
            self.lost_wakeup_at.store(clock::monotonic_ns(), Ordering::Relaxed);
        }
    }

    /// Sleeps until another thread interrupts or wakes this one, at most for `timeout`. The call may return early.
    pub(crate) fn sleep(&self, timeout: Duration) {
        // Acquire: pairs with the release increment in `interrupt`, which follows the store of the flag. Therefore the
        // flag that is loaded next is at least as new as this count.
        let seen = self.wakes.load(Ordering::Acquire);
        if !self.is_interrupted() {
            futex::futex_wait(&self.wakes, seen, timeout);
        }
    }

    /// Makes every wait return at once until [`resume`](Self::resume). The call returns only after the thread has
    /// stopped sleeping.
    pub(crate) fn interrupt(&self) {
        // Release: pairs with the acquire load in `is_interrupted`. The increment below pairs with the load in `sleep`.
        self.interrupted.store(true, Ordering::Release);
        self.wakes.fetch_add(1, Ordering::Release);
        futex::futex_wake_all(&self.wakes);
        // A wake between the sleeper's load of the flag and its sleep is lost. Therefore the wake is repeated until the
        // sleeper is gone. This loop ends, because every sleep has a timeout.
        loop {
            match &*self.lock() {
                None => return,
                Some((segment, word)) => futex::futex_wake_all(segment.word(*word)),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the current wait, if there is one.
    pub(crate) fn wake(&self) {
        // Release: pairs with the acquire load in `sleep`.
        self.wakes.fetch_add(1, Ordering::Release);
        futex::futex_wake_all(&self.wakes);
        if let Some((segment, word)) = &*self.lock() {
            futex::futex_wake_all(segment.word(*word));
        }
    }

    /// Allows waits again.
    pub(crate) fn resume(&self) {
        // Release: pairs with the acquire load in `is_interrupted`.
        self.interrupted.store(false, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Segment>, FutexWord)>> {
        sync::lock(&self.sleeping_on)
    }
}
