// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two clocks that all programs of a machine share.

use nix::time::{ClockId, clock_gettime};

/// The time of CLOCK_MONOTONIC in nanoseconds. All programs of a machine share this clock.
pub fn monotonic_ns() -> u64 {
    time_ns(ClockId::CLOCK_MONOTONIC)
}

/// The time of CLOCK_REALTIME in nanoseconds. Time namespaces do not shift this clock.
pub(crate) fn realtime_ns() -> u64 {
    time_ns(ClockId::CLOCK_REALTIME)
}

fn time_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
