// SPDX-License-Identifier: MIT OR Apache-2.0

//! Classes of system errors, so that all callers classify an error in the same way.

use std::io;

use nix::errno::Errno;

/// Whether the error means that permissions forbid the call. EROFS counts too, because a container may mount /dev/shm
/// read-only.
pub(crate) fn is_denied(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}

/// Whether the error means that the shared memory file system, or the memory behind it, is full.
pub(crate) fn is_out_of_memory(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::ENOMEM)
}

/// The system error in `error`; EIO if `error` has none.
pub(crate) fn of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
