// SPDX-License-Identifier: MIT OR Apache-2.0

//! Detection of forks. A forked child has a copy of each value, but what the value owns still belongs to the parent.

use core::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

/// Remembers the process in which a value was made.
///
/// A forked child gets a copy of every value, but the reader entry, the pins and the files still belong to its parent.
/// A value that owns one of these has a guard, and does nothing if its guard was inherited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkGuard {
    forks: u32,
}

impl ForkGuard {
    /// A guard for the current process.
    pub(crate) fn new() -> Self {
        Self { forks: forks() }
    }

    /// Whether an ancestor of this process made the guard, and a fork copied it into this process.
    pub(crate) fn is_inherited(self) -> bool {
        self.forks != forks()
    }
}

/// The number of forks from the process that first called this function to this process.
fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static REGISTER: std::sync::Once = std::sync::Once::new();
    extern "C" fn in_child() {
        // Relaxed, here and below: a child starts with one thread, so no other thread reads the count during the
        // addition.
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    REGISTER.call_once(|| {
        // SAFETY: the handler has the signature that `pthread_atfork` expects and lives as long as the program. It does
        // one atomic addition, which is allowed in a child that was forked from a program with threads.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}
