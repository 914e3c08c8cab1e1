// SPDX-License-Identifier: MIT OR Apache-2.0

//! Signals that a process sends to itself.

use nix::libc;

/// Sends a signal to the calling thread and returns after its delivery. SIGKILL ends the whole process, and SIGSTOP
/// stops it.
pub(crate) fn raise(signal: libc::c_int) {
    // SAFETY: the call takes a number and touches no memory of this program.
    unsafe { libc::raise(signal) };
}
