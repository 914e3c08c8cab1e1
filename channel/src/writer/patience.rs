// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long a lossless writer waits for readers to release what they hold, before it goes on without: it commits
//! another slot, or, if the buffers of upstream are what is short, publishes a frame that readers cannot pin.

use std::time::{Duration, Instant};

/// A reader that keeps up releases a frame within this time, and within [`READ_TIME`] for each KiB. Few slots stay in
/// the processor's caches, so they are faster than many.
const LEAST: Duration = Duration::from_millis(2);
/// The time in which a slow reader reads 1024 bytes.
const READ_TIME: Duration = Duration::from_nanos(1536);
/// The longest wait, and after which time readers count as stopped. A reader that holds frames must not stop the others
/// for long.
const MOST: Duration = Duration::from_millis(100);

/// What a lossless writer knows of the pace of its readers.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long the writer has waited since readers last ended a wait. Waits that nobody ended add up.
    unanswered: Duration,
    /// The longest of the recent waits that readers ended.
    longest: Duration,
}

impl Patience {
    /// How long to wait until readers release a frame of this size: twice as long as they took lately. More slots do
    /// not help readers that are slow, but steady. For readers that have stopped, this is over after [`MOST`].
    pub(super) fn limit(&self, frame_size: u64) -> Duration {
        let kibibytes = u32::try_from(frame_size >> 10).unwrap_or(u32::MAX);
        let usual = LEAST.saturating_add(READ_TIME.saturating_mul(kibibytes)).min(MOST);
        if self.unanswered < MOST {
            usual.max(2 * self.longest)
        } else {
            usual
        }
    }

    /// Records a wait that a reader ended.
    fn note_answer(&mut self, waited: Duration) {
        let waited = std::mem::take(&mut self.unanswered) + waited;
        self.longest = waited.min(MOST / 2).max(self.longest * 7 / 8);
    }

    /// Records a wait that no reader ended.
    fn note_unanswered(&mut self, waited: Duration) {
        self.unanswered += waited;
    }
}

/// One wait of a lossless writer for its readers. It begins at the first look that finds nothing released.
#[derive(Debug, Default)]
pub(super) struct ReaderWait {
    began: Option<Instant>,
}

impl ReaderWait {
    /// Whether the wait for a frame of this size has lasted as long as it may. The first call begins the wait.
    pub(super) fn is_over(&mut self, patience: &Patience, frame_size: u64) -> bool {
        self.began.get_or_insert_with(Instant::now).elapsed() >= patience.limit(frame_size)
    }

    /// Ends the wait, because readers have released enough. Without a wait, it does nothing.
    pub(super) fn end_answered(&mut self, patience: &mut Patience) {
        if let Some(began) = self.began.take() {
            patience.note_answer(began.elapsed());
        }
    }

    /// Ends the wait, because the writer goes on without an answer.
    pub(super) fn end_unanswered(&mut self, patience: &mut Patience) {
        if let Some(began) = self.began.take() {
            patience.note_unanswered(began.elapsed());
        }
    }

    /// Forgets the wait, because the writer waits for another reason now.
    pub(super) fn cancel(&mut self) {
        self.began = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = 4096;
    const SIZE_4K: u64 = 3840 * 2160 * 3 / 2;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn large_frames_get_more_time() {
        let patience = Patience::default();
        assert!((ms(2)..ms(3)).contains(&patience.limit(SMALL)));
        assert!((ms(20)..ms(25)).contains(&patience.limit(SIZE_4K)));
        assert_eq!(patience.limit(u64::MAX), ms(100));
    }

    #[test]
    fn slow_steady_reader_soon_gets_no_further_slot() {
        let mut patience = Patience::default();
        let (mut growths, mut left) = (0, ms(33));
        for _ in 0..100 {
            // The reader releases a slot every 33 ms.
            let limit = patience.limit(SMALL);
            if limit < left {
                patience.note_unanswered(limit);
                (growths, left) = (growths + 1, left - limit);
            } else {
                patience.note_answer(left);
                left = ms(33);
            }
        }
        assert!(growths < 20, "{growths}");
    }

    #[test]
    fn stopped_reader_stops_the_writer_once() {
        let mut patience = Patience::default();
        patience.note_answer(ms(10_000));
        assert_eq!(patience.limit(SMALL), ms(100));
        let mut total = ms(0);
        for _ in 0..60 {
            let limit = patience.limit(SMALL);
            patience.note_unanswered(limit);
            total += limit;
        }
        assert!(total < ms(300), "{total:?}");
        patience.note_answer(ms(0));
        assert_eq!(patience.limit(SMALL), ms(100));
        (0..40).for_each(|_| patience.note_answer(ms(0)));
        assert!(patience.limit(SMALL) < ms(3));
    }
}
