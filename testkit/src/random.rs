// SPDX-License-Identifier: MIT OR Apache-2.0

//! A random number generator (splitmix64) that gives the same sequence for the same seed.

use std::{ops::Range, time::Duration};

/// A sequence of random numbers that is determined by its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `limit`. It is 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// A number in `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }

    /// `true` in `permille` of a thousand calls on average.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.within(0..1000) < permille
    }

    /// A time in whole milliseconds, whose number is in `range`.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// A size from 2^n to 2^(n+1) - 1 for a random `n` in `bits`, so that small and large sizes are equally frequent.
    pub fn size(&mut self, bits: Range<u64>) -> usize {
        let low = 1 << self.within(bits);
        self.within(low..2 * low) as usize
    }

    /// Whether an event happens in this step. If the caller asks once per `step`, the average is one event per `mean`.
    pub fn happens(&mut self, step: Duration, mean: Duration) -> bool {
        self.within(0..1 << 32) < ((step.as_secs_f64() / mean.as_secs_f64()) * (1u64 << 32) as f64) as u64
    }
}

/// Mixes the bits of a number, so that each bit of the result depends on all its bits.
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
