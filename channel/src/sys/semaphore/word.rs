// SPDX-License-Identifier: MIT OR Apache-2.0

//! The word of a semaphore. Its lower half is the value, and its upper half is the number of sleepers, as in glibc.
//!
//! One word has both, so a process that gives the semaphore back finds every sleeper that has found the value 0.

// The path begins with `super`, so that the loom model can include this file with its own atomics.
use super::atomic::{AtomicU64, Ordering};

/// The limit of attempts to change the word. If all of them fail, another program tampers with the word, because
/// correct processes do not change it so often.
const MAX_ATTEMPTS: u32 = 1000;
/// What one sleeper adds to the word.
const SLEEPER: u64 = 1 << 32;

/// Replaces the word by `change(word)`, and returns the former word. `None` if `change` returns `None`, or if other
/// processes kept changing the word.
fn update(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    // Relaxed: the exchange below compares the word again.
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_ATTEMPTS {
        // Acquire and release, as in the C library: each holder of the semaphore sees what earlier holders wrote.
        // Relaxed on failure: the next attempt compares the word again.
        match word.compare_exchange_weak(seen, change(seen)?, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(before) => return Some(before),
            Err(now) => seen = now,
        }
    }
    None
}

/// Turns the word, whatever it was, into that of a semaphore with the value 1.
pub(crate) fn initialise(word: &AtomicU64) {
    // Release: pairs with the acquire of `update` in any process that takes the semaphore.
    word.store(1, Ordering::Release);
}

/// Takes the semaphore, if its value is not 0.
pub(crate) fn try_take(word: &AtomicU64) -> bool {
    update(word, |word| (word as u32 > 0).then(|| word - 1)).is_some()
}

/// Counts the caller as a sleeper. The caller then looks once more before it sleeps.
pub(crate) fn add_sleeper(word: &AtomicU64) {
    update(word, |word| Some(word.wrapping_add(SLEEPER)));
}

/// Ends what [`add_sleeper`] began. If another process initialised the semaphore meanwhile, the count is 0 and stays 0.
pub(crate) fn remove_sleeper(word: &AtomicU64) {
    update(word, |word| word.checked_sub(SLEEPER));
}

/// Sets the value to 1. Returns the former value, and whether there are sleepers, of which the caller then wakes one.
pub(crate) fn give_back(word: &AtomicU64) -> (u32, bool) {
    let sleepers = |word: u64| word / SLEEPER * SLEEPER;
    let before = update(word, |word| Some(sleepers(word) | 1)).unwrap_or_default();
    (before as u32, sleepers(before) > 0)
}
