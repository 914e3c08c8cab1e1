// SPDX-License-Identifier: MIT OR Apache-2.0

//! Emulated machines. `make test-arm64` runs the tests for ARM64 on a machine with another processor.

use std::{env, sync::LazyLock, time::Duration};

/// The environment variable that says how many times slower an emulated machine is. It is not set on a real machine.
pub const EMULATED: &str = "RSSHM_TEST_EMULATED";

/// The value of [`EMULATED`]; 1 on a real machine.
static SLOWDOWN: LazyLock<u32> = LazyLock::new(|| match env::var(EMULATED) {
    Err(_) => 1,
    Ok(value) => match value.parse() {
        Ok(slowdown @ 1..=1000) => slowdown,
        _ => panic!("{EMULATED} is {value:?}, not a number from 1 to 1000"),
    },
});

/// Whether the tests run in an emulator.
pub fn is_emulated() -> bool {
    env::var_os(EMULATED).is_some()
}

/// The limit of time on this machine for something that takes at most `limit` on a real machine.
pub fn on_this_machine(limit: Duration) -> Duration {
    limit.saturating_mul(*SLOWDOWN)
}

/// How many frames must arrive on this machine in a time in which `frames` arrive on a real machine.
pub fn frames_on_this_machine(frames: u32) -> u64 {
    u64::from(frames / *SLOWDOWN)
}

/// The part of a processor that a process may use on this machine, if it uses at most `part` on a real machine. An emulated
/// process uses more of it for the same work, but never all, as a process does that spins.
pub fn processor_on_this_machine(part: f64) -> f64 {
    1.0 - (1.0 - part) / f64::from(*SLOWDOWN)
}

/// Skips the test in an emulator, which lacks what the test needs.
#[macro_export]
macro_rules! need_real_machine {
    ($why:literal) => {
        if $crate::emulation::is_emulated() {
            $crate::skip!("emulated: {}", $why);
        }
    };
}
