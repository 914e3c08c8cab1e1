//! Random numbers that a seed brings back (splitmix64).

use std::{ops::Range, time::Duration};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }

    /// True so many times of a thousand.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.within(0..1000) < permille
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Between two powers of two, each size as often as its double.
    pub fn size(&mut self, bits: Range<u64>) -> usize {
        let low = 1 << self.within(bits);
        self.within(low..2 * low) as usize
    }

    /// True about once in `mean`, when asked every `step`.
    pub fn happens(&mut self, step: Duration, mean: Duration) -> bool {
        self.within(0..1 << 32) < ((step.as_secs_f64() / mean.as_secs_f64()) * (1u64 << 32) as f64) as u64
    }
}

pub fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
