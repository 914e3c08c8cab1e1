// SPDX-License-Identifier: MIT OR Apache-2.0

//! Futex waits and wakes on words that processes share.

use core::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::{errno::Errno, libc};

/// The most sleepers that one notification wakes. It is enough for all 64 readers and for 64 observers.
///
/// Any process with read permission can add sleepers to a word. Without the limit, the writer would have to wake all of
/// them at each frame. Waiters beyond the limit notice at their next time-out.
const MAX_WAKES: i32 = 128;

/// Sleeps while `word` is `expected`, at most for `timeout`. The function may also return early, without a reason. The
/// result is `true` if the function slept for the whole timeout and nobody woke it.
///
/// The word may be in a read-only mapping (futex(2)). The timeout uses CLOCK_MONOTONIC, so that changing the wall clock
/// does not affect it.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    let timeout = libc::timespec {
        // The kernel refuses a negative number, and lets no time-out be longer than its clock can count.
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `word` is a valid, aligned 32-bit word for the length of the call, `timeout` outlives it, and the kernel
    // writes neither. After any failure (EAGAIN, EINTR, ETIMEDOUT) the caller has to look at the shared memory again,
    // and every caller does.
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

/// Wakes at most `limit` sleepers of `word`, in any process.
pub(crate) fn futex_wake(word: &AtomicU32, limit: i32) {
    // SAFETY: `word` is a valid, aligned 32-bit word; FUTEX_WAKE uses its address only and does not write it.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, limit);
    }
}

/// Wakes the sleepers of `word`, in any process, up to [`MAX_WAKES`].
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    futex_wake(word, MAX_WAKES);
}
