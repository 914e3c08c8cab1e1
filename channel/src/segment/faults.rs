// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of the channel's semaphore that other programs caused.

use std::sync::atomic::{AtomicU32, Ordering};

/// A fault of the channel's semaphore that another program caused. The exchange of frames continues, and the writer
/// repairs the semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SemaphoreFault {
    /// A program held the semaphore for longer than the writer waits.
    Held,
    /// A program posted the semaphore, but had not taken it before.
    Posted,
    /// The bytes of the semaphore were not valid.
    Damaged,
    /// A program gave the name of the semaphore to another semaphore.
    Replaced,
}

impl SemaphoreFault {
    const ALL: [Self; 4] = [Self::Held, Self::Posted, Self::Damaged, Self::Replaced];

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl std::fmt::Display for SemaphoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Held => {
                "a program held its semaphore for more than 2 ms; frames continue without it, and the writer resets it \
                 after a second"
            }
            Self::Posted => "a program posted its semaphore without having waited for it; the writer reset it",
            Self::Damaged => "a program damaged its semaphore; the writer repaired it",
            Self::Replaced => "a program put another semaphore under its name; the writer uses that one from now on",
        })
    }
}

/// A set of faults.
#[derive(Debug, Default)]
pub(crate) struct SemaphoreFaults(AtomicU32);

impl SemaphoreFaults {
    pub(crate) fn add(&self, fault: SemaphoreFault) {
        // Relaxed, here and below: the bits order nothing else.
        if self.0.load(Ordering::Relaxed) & fault.bit() == 0 {
            self.0.fetch_or(fault.bit(), Ordering::Relaxed);
        }
    }

    /// Adds the faults of `others` to this set, and returns the faults that this set did not contain before.
    pub(crate) fn merge(&self, others: &Self) -> Vec<SemaphoreFault> {
        let others = others.0.load(Ordering::Relaxed);
        let added = others & !self.0.fetch_or(others, Ordering::Relaxed);
        let mut faults = SemaphoreFault::ALL.to_vec();
        faults.retain(|fault| added & fault.bit() != 0);
        faults
    }
}
