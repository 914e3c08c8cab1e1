//! Waiting for a word in shared memory, with a way out.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    segment::Segment,
    sys::{clock, futex, sync},
};

/// Which of a segment's futex words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FutexWord {
    /// Counts what readers wait for.
    Published,
    /// Counts what the writer waits for.
    Writer,
}

impl Segment {
    pub(crate) fn word(&self, word: FutexWord) -> &AtomicU32 {
        match word {
            FutexWord::Published => &self.tables.status().published,
            FutexWord::Writer => &self.tables.status().writer_word,
        }
    }

    /// Tells everybody who waits for the word that something happened.
    pub(crate) fn notify(&self, word: FutexWord) {
        // Release: pairs with the acquire load that a waiter does before it looks at what it waits for.
        self.word(word).fetch_add(1, Ordering::Release);
        futex::futex_wake_all(self.word(word));
    }

    /// Wakes the writer if it waits for something that the caller has just released.
    pub(crate) fn notify_waiting_writer(&self) {
        // Pairs with the fence of a writer that stores `writer_waits` and then looks for a slot (`Writer::wait_until`):
        // either the writer sees what was released, or the load below sees that it waits.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence, and it carries no data.
        if self.tables.status().writer_waits.load(Ordering::Relaxed) != 0 {
            self.notify(FutexWord::Writer);
        }
    }
}

/// For so long after a missing wake no sleep is longer than [`CAUTIOUS_TIMEOUT`]: whoever may read a segment can put its sleepers to
/// sleep on a word of his own (FUTEX_REQUEUE).
const CAUTIOUS_FOR: Duration = Duration::from_secs(60);
const CAUTIOUS_TIMEOUT: Duration = Duration::from_millis(4);

/// How fast a loop may turn that others can wake: so many turns at once, then one each so often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimiter {
    burst: u32,
    each: Duration,
    /// When the turns so far would be over, one each so often.
    until: Option<Instant>,
}

impl RateLimiter {
    pub(crate) const fn new(burst: u32, each: Duration) -> Self {
        Self {
            burst,
            each,
            until: None,
        }
    }

    /// Counts a turn. Yields how long to sleep first, where there have been too many lately: somebody wakes without news.
    pub(crate) fn turn(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let until = self.until.map_or(now, |until| until.max(now)) + self.each;
        self.until = Some(until);
        (until - now > self.each * self.burst).then_some(self.each)
    }

    /// There was news: the turns so far do not count.
    pub(crate) fn reset(&mut self) {
        self.until = None;
    }
}

/// One thread's waits, and how another thread ends them.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    interrupted: AtomicBool,
    /// What the thread sleeps on now, so that the interrupter can wake it there.
    sleeping_on: Mutex<Option<(Arc<Segment>, FutexWord)>>,
    /// What it sleeps on while there is no segment.
    alone: AtomicU32,
    /// When a wake was last found missing, in CLOCK_MONOTONIC nanoseconds.
    lost_wakeup_at: AtomicU64,
}

impl Waiter {
    pub(crate) fn is_interrupted(&self) -> bool {
        // Acquire: pairs with the release store in `interrupt` and `resume`.
        self.interrupted.load(Ordering::Acquire)
    }

    /// Sleeps until the word is no longer `seen`, somebody interrupts, or the time is over; or for less.
    pub(crate) fn wait(&self, segment: &Arc<Segment>, word: FutexWord, seen: u32, timeout: Duration) {
        *self.lock() = Some((Arc::clone(segment), word));
        // After the line above: an interrupter sets the flag first and looks for the sleeper then, under the same lock.
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

    /// Sleeps, and not for long where wakes have been stolen.
    fn sleep_cautiously(&self, word: &AtomicU32, seen: u32, timeout: Duration) {
        // Relaxed, here and below: a time of this thread's own.
        let lost_wakeup_at = self.lost_wakeup_at.load(Ordering::Relaxed);
        let is_cautious = lost_wakeup_at != 0
            && clock::monotonic_ns().saturating_sub(lost_wakeup_at) < CAUTIOUS_FOR.as_nanos() as u64;
        let timeout = if is_cautious {
            timeout.min(CAUTIOUS_TIMEOUT)
        } else {
            timeout
        };
        let nobody_woke = futex::futex_wait(word, seen, timeout);
        if nobody_woke && word.load(Ordering::Relaxed) != seen {
            self.lost_wakeup_at.store(clock::monotonic_ns(), Ordering::Relaxed);
        }
    }

    /// Sleeps until somebody interrupts or the time is over; or for less.
    pub(crate) fn sleep(&self, timeout: Duration) {
        // Acquire: the flag is looked at after the count, which the interrupter raises after the flag.
        let seen = self.alone.load(Ordering::Acquire);
        if !self.is_interrupted() {
            futex::futex_wait(&self.alone, seen, timeout);
        }
    }

    /// Makes every wait return at once until [`resume`](Self::resume), and returns when none sleeps any more.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.alone.fetch_add(1, Ordering::Release);
        futex::futex_wake_all(&self.alone);
        // A wake between the sleeper's look at the flag and its sleep is lost, so it is repeated until the sleeper has
        // gone. Every sleep is bounded, so this is too.
        loop {
            match &*self.lock() {
                None => return,
                Some((segment, word)) => futex::futex_wake_all(segment.word(*word)),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the present wait, if there is one.
    pub(crate) fn nudge(&self) {
        self.alone.fetch_add(1, Ordering::Release);
        futex::futex_wake_all(&self.alone);
        if let Some((segment, word)) = &*self.lock() {
            futex::futex_wake_all(segment.word(*word));
        }
    }

    pub(crate) fn resume(&self) {
        self.interrupted.store(false, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Segment>, FutexWord)>> {
        sync::lock(&self.sleeping_on)
    }
}
