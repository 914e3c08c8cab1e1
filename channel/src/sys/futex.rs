//! Futex waits and wakes on words that processes share.

use core::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::{errno::Errno, libc};

/// Sleeps while `word` is `expected`, at most for `timeout`; returns early for no reason now and then. `true` when it slept
/// until then and nobody woke it.
///
/// The word may lie in a read-only mapping (futex(2)). The time is one that nobody sets.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `word` is a valid, aligned 32-bit word for the length of the call, `timeout` outlives it, and the kernel
    // writes neither. Any failure (EAGAIN, EINTR, ETIMEDOUT) means "look again", which every caller does.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
            core::ptr::null::<u32>(),
            0u32,
        )
    };
    result != 0 && Errno::last() == Errno::ETIMEDOUT
}

/// Wakes as many as `most` who sleep on `word`, in any process.
pub(crate) fn futex_wake(word: &AtomicU32, most: i32) {
    // SAFETY: `word` is a valid, aligned 32-bit word; FUTEX_WAKE only takes its address.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, most);
    }
}

/// The most sleepers that one ring wakes: all readers, and as many observers. Whoever may read a segment can put any number
/// of sleepers there, which the writer would have to wake at each frame. Who is not woken finds out by itself.
const WAKE_AT_MOST: i32 = 128;

/// Wakes those who sleep on `word`, in any process.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    futex_wake(word, WAKE_AT_MOST);
}
