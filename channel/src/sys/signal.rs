//! Signals that a process sends to itself.

use nix::libc;

/// Sends a signal to this very thread, before it goes on; SIGKILL and SIGSTOP take the process with it.
pub(crate) fn raise(signal: libc::c_int) {
    // SAFETY: the call takes a number only.
    unsafe { libc::raise(signal) };
}
