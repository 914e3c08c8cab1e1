// SPDX-License-Identifier: MIT OR Apache-2.0

//! When the terminal has drawn a picture, so that the next one would not wait behind it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// A query that each terminal answers with [`ANSWER`], after everything before it has been drawn.
const QUERY: &str = "\x1b[5n";
/// The answer, without the escape character before it.
pub(super) const ANSWER: &str = "[0n";
/// How long the terminal may take to answer the first query. Then it is one that answers nothing.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a terminal that answers may take to draw a picture.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Whether an answer of the terminal is on its way.
static IS_ANSWER_DUE: AtomicBool = AtomicBool::new(false);

/// Whether an answer of the terminal is on its way, which nobody waits for after the end of the screen.
pub(super) fn is_answer_due() -> bool {
    // Relaxed, here and below: this is a hint, and no other value depends on it.
    IS_ANSWER_DUE.load(Ordering::Relaxed)
}

/// Records that the answer was read, or is not awaited any more.
pub(super) fn forget_answer() {
    IS_ANSWER_DUE.store(false, Ordering::Relaxed);
}

/// Whether the terminal has drawn what was written. Only an answer of the terminal says so, because there may be buffers
/// of any size before it, for example those of ssh.
#[derive(Debug, Default)]
pub(super) struct Pace {
    asked_at: Option<Instant>,
    /// Whether the terminal answers; `None` before it is known.
    answers: Option<bool>,
}

impl Pace {
    pub(super) fn is_ready(&mut self) -> bool {
        let limit = match self.answers {
            Some(true) => ANSWER_TIMEOUT,
            _ => FIRST_ANSWER_TIMEOUT,
        };
        match self.asked_at {
            Some(asked_at) if asked_at.elapsed() < limit => false,
            Some(_) => {
                self.asked_at = None;
                self.answers = Some(false);
                true
            }
            None => true,
        }
    }

    /// What to write behind a picture.
    pub(super) fn query(&mut self) -> &'static str {
        if self.answers == Some(false) {
            return "";
        }
        self.asked_at = Some(Instant::now());
        IS_ANSWER_DUE.store(true, Ordering::Relaxed);
        QUERY
    }

    pub(super) fn record_answer(&mut self) {
        forget_answer();
        self.asked_at = None;
        self.answers = Some(true);
    }

    /// Waits for no answer, because it was read while the screen was given back.
    pub(super) fn reset(&mut self) {
        self.asked_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_that_answers_sets_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.query(), QUERY);
        assert!(!pace.is_ready());
        pace.record_answer();
        assert!(pace.is_ready());
        assert_eq!(pace.query(), QUERY);
        pace.asked_at = Instant::now().checked_sub(FIRST_ANSWER_TIMEOUT * 2);
        assert!(!pace.is_ready(), "a terminal that answers may be slow");
        pace.asked_at = Instant::now().checked_sub(ANSWER_TIMEOUT);
        assert!(pace.is_ready() && pace.query().is_empty());
        // A late answer counts.
        pace.record_answer();
        assert_eq!(pace.query(), QUERY);
    }
}
