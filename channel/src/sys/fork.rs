//! Detection of forks: what a child finds in its copy of the memory still belongs to its parent.

use core::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

/// How many forks lie between this process and the one that first asked. What a child finds in its copy of the memory, a
/// seat or a channel, is still its parent's; values remember this count and do nothing when they find another.
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static WATCH: std::sync::Once = std::sync::Once::new();
    extern "C" fn in_child() {
        // Relaxed: a child begins with one thread.
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCH.call_once(|| {
        // SAFETY: the handler does one atomic addition, which is allowed after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}
