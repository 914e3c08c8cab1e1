// SPDX-License-Identifier: MIT OR Apache-2.0

//! The operating system: system calls and pointers, without knowledge of the protocol.

pub(crate) mod clock;
pub(crate) mod copy;
pub(crate) mod directory;
pub(crate) mod errno;
pub(crate) mod files;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod memory_limit;
pub(crate) mod object_file;
pub(crate) mod page;
pub(crate) mod semaphore;
#[cfg(debug_assertions)]
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod space;
pub(crate) mod sync;
pub(crate) mod watch;
