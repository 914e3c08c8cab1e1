// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory that the processes of a run share. Its contents remain when a process is killed.
//!
//! All accesses except those to [`Board::slots`] are relaxed, because the atomics are counters and flags, and no other
//! data depends on them.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

pub const MAX_MEMBERS: usize = 16;
/// The maximum number of writers whose time of death is recorded.
const MAX_DEATHS: usize = 8192;
/// The maximum number of recovery times that are recorded.
const MAX_RECOVERIES: usize = 65536;

/// The requests of the run to the readers.
pub mod request {
    pub const CONTINUE: u32 = 0;
    pub const END: u32 = 1;
}

/// The requests of the run to the writer.
pub mod writer_request {
    pub const CONTINUE: u32 = 0;
    /// Asks the writer to count the slots that can be used. The run sends this request after all readers have ended.
    pub const COUNT_SLOTS: u32 = 1;
    /// Asks the writer to close the channel and to end.
    pub const CLOSE: u32 = 2;
}

/// The counters of one member of the run. Each counter is the sum over all processes of the member.
#[repr(C)]
#[derive(Default)]
pub struct Counters {
    /// The CLOCK_MONOTONIC time of the last frame, in nanoseconds.
    pub last_at: AtomicU64,
    /// The number of frames that were checked when they arrived.
    pub frames: AtomicU64,
    /// The number of frames that were checked again when they were released.
    pub again: AtomicU64,
    pub in_place: AtomicU64,
    pub copied: AtomicU64,
    /// The number of frames by descriptor: those that a reader got in place, or that a writer published.
    pub by_descriptor: AtomicU64,
    /// The number of frames that a reader missed because it could not get their memory, for a permitted reason.
    pub faults: AtomicU64,
    pub missed: AtomicU64,
    pub events: AtomicU64,
    pub ends: AtomicU64,
    pub lost: AtomicU64,
    pub torn: AtomicU64,
    pub order: AtomicU64,
    pub others: AtomicU64,
    /// The number of frames that a writer published.
    pub published: AtomicU64,
    /// The number of frames for which a writer had no slot.
    pub no_slot: AtomicU64,
    /// The number of messages that a writer received.
    pub messages: AtomicU64,
    /// How often a cleaner removed the channel's files.
    pub removed: AtomicU64,
    /// How often a cleaner left them alone.
    pub kept: AtomicU64,
    /// The longest time that a writer took to claim a slot and publish, in nanoseconds.
    pub stall: AtomicU64,
}

#[repr(C)]
pub struct Board {
    pub request: AtomicU32,
    pub writer_request: AtomicU32,
    /// The writer's answer to `COUNT_SLOTS`: the number of committed slots plus 1. The writer's release store pairs
    /// with the run's acquire load, so that the run then also reads this answer's [`slots_used`](Self::slots_used).
    pub slots: AtomicU64,
    /// The second part of the answer to `COUNT_SLOTS`: the number of slots that could be used.
    pub slots_used: AtomicU64,
    killed_at: [AtomicU64; MAX_DEATHS],
    recovery_count: AtomicU64,
    recoveries: [AtomicU64; MAX_RECOVERIES],
    pub counters: [Counters; MAX_MEMBERS],
}

impl Board {
    /// Opens the board in `directory`, or creates it.
    pub fn open(directory: &Path) -> &'static Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("board"))
            .unwrap();
        file.set_len(size_of::<Self>() as u64).unwrap();
        let length = NonZeroUsize::new(size_of::<Self>()).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: this is a new mapping at an address that the kernel chooses. It is never unmapped, the file is as
        // long as the board, and the board consists of atomics, for which all bytes are valid.
        unsafe {
            mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0)
                .unwrap()
                .cast::<Self>()
                .as_ref()
        }
    }

    /// Records the death of the writer `incarnation`.
    pub fn record_death(&self, incarnation: u32, at: u64) {
        self.killed_at[incarnation as usize % MAX_DEATHS].store(at, Relaxed);
    }

    /// Forgets the death of the writer before `incarnation`. The run calls this while this writer is stopped,
    /// because the stop would make the recovery time too long.
    pub fn forget_death_before(&self, incarnation: u32) {
        self.killed_at[incarnation.wrapping_sub(1) as usize % MAX_DEATHS].store(0, Relaxed);
    }

    /// The time at which the writer before `incarnation` died.
    pub fn death_before(&self, incarnation: u32) -> Option<u64> {
        let at = self.killed_at[incarnation.wrapping_sub(1) as usize % MAX_DEATHS].load(Relaxed);
        (at != 0).then_some(at)
    }

    /// Records the time from the death of a writer to the first frame that a reader receives from the next writer.
    pub fn record_recovery(&self, nanoseconds: u64) {
        let index = self.recovery_count.fetch_add(1, Relaxed) as usize;
        self.recoveries[index % MAX_RECOVERIES].store(nanoseconds, Relaxed);
    }

    /// All recovery times, sorted.
    pub fn recoveries(&self) -> Vec<u64> {
        let count = (self.recovery_count.load(Relaxed) as usize).min(MAX_RECOVERIES);
        let mut all: Vec<u64> = self.recoveries[..count].iter().map(|it| it.load(Relaxed)).collect();
        all.sort_unstable();
        all
    }
}

/// The file in which violations are recorded. A process writes each violation with one call, so the file has every
/// violation even if the process is killed later.
#[derive(Clone)]
pub struct Findings(PathBuf);

impl Findings {
    pub fn new(directory: &Path) -> Self {
        Self(directory.join("findings"))
    }

    pub fn add(&self, what: &str) {
        let line = format!("{:.3} {what}\n", rsshm_channel::monotonic_ns() as f64 / 1e9);
        let mut file = File::options().append(true).create(true).open(&self.0).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    pub fn all(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
