// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calls of futex(2), as any process with read permission can make them.

use std::{ptr, sync::atomic::AtomicU32};

use nix::libc;

/// Calls futex(2). `limit` is the number of sleepers that may be moved to `other`, or 0.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32, limit: libc::c_long, other: *const u32) {
    // SAFETY: both words are valid for the length of the call, and the kernel writes to neither of them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::c_long::from(operation),
            libc::c_long::from(value),
            limit,
            other,
        )
    };
}

/// Wakes every thread that sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, i32::MAX as u32, 0, ptr::null());
}

/// Sleeps on `word` while its value is `seen`, without a time limit.
pub fn sleep(word: &AtomicU32, seen: u32) {
    futex(word, libc::FUTEX_WAIT, seen, 0, ptr::null());
}

/// Moves all threads that sleep on `from` to another word.
pub fn move_sleepers(from: &AtomicU32, to: &AtomicU32) {
    futex(from, libc::FUTEX_REQUEUE, 0, i32::MAX.into(), to.as_ptr());
}
