// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waits for a condition, with a limit and a message.

use std::time::{Duration, Instant};

use crate::emulation::on_this_machine;

/// The longest time that an expected change may take, even on a busy machine. Waits are longer on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The pause between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits at most [`PATIENCE`] until `condition` holds. Panics with `what` if it does not. Returns the time of the wait.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) -> Duration {
    wait_until(what, PATIENCE, condition)
}

/// Waits until `condition` holds. Panics with `what` if it does not hold within `limit`, which is longer on an emulated
/// machine. Returns the time of the wait.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let limit = on_this_machine(limit);
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
    started.elapsed()
}

/// Runs `action`. Returns the time that the action took, and the action's result.
pub fn timed<T>(action: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let value = action();
    (started.elapsed(), value)
}
