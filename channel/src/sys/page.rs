// SPDX-License-Identifier: MIT OR Apache-2.0

//! The size of a memory page: 4 KiB on most machines, but 16 or 64 KiB on some with ARM64.

use std::sync::LazyLock;

use nix::unistd::{SysconfVar, sysconf};

/// The page size that is assumed if the system does not tell its own. Every other page size is a multiple of it.
const SMALLEST: u64 = 4096;

static SIZE: LazyLock<u64> = LazyLock::new(|| {
    let told = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or_default();
    pretended().unwrap_or(told as u64).max(SMALLEST)
});

/// The size in bytes. It is a power of two.
pub(crate) fn size() -> u64 {
    *SIZE
}

/// `value`, rounded up to whole pages; `None` if there is no such number.
pub(crate) fn round_up(value: u64) -> Option<u64> {
    value.checked_next_multiple_of(size())
}

/// The page size of another machine. A test sets it to see how this program behaves there.
#[cfg(debug_assertions)]
fn pretended() -> Option<u64> {
    let value = std::env::var("RSSHM_TEST_PAGE_SIZE").ok()?.parse().ok()?;
    u64::is_power_of_two(value).then_some(value)
}

#[cfg(not(debug_assertions))]
fn pretended() -> Option<u64> {
    None
}
