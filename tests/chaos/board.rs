//! What the processes of a run tell each other, in memory that survives each of them.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

pub const CELLS: usize = 16;
/// Writers of a run whose deaths are remembered.
const INCARNATIONS: usize = 8192;
/// Times of recovery that are remembered.
const RECOVERIES: usize = 65536;

/// What the run wants.
pub mod request {
    pub const GO_ON: u32 = 0;
    /// Readers: end.
    pub const END: u32 = 1;
}

/// What the run wants of the writer.
pub mod writer_request {
    pub const GO_ON: u32 = 0;
    /// All readers are gone: say how many slots can be used.
    pub const COUNT_SLOTS: u32 = 1;
    /// Stop in good order.
    pub const CLOSE: u32 = 2;
}

/// What one place in the run counts, over all processes that have been in it.
#[repr(C)]
#[derive(Default)]
pub struct Cell {
    /// CLOCK_MONOTONIC nanoseconds of the last frame.
    pub last_at: AtomicU64,
    /// Frames that were checked when they came.
    pub frames: AtomicU64,
    /// Frames that were checked again when they were let go.
    pub again: AtomicU64,
    pub in_place: AtomicU64,
    pub copied: AtomicU64,
    pub missed: AtomicU64,
    pub events: AtomicU64,
    pub ends: AtomicU64,
    pub lost: AtomicU64,
    pub torn: AtomicU64,
    pub order: AtomicU64,
    pub others: AtomicU64,
    /// Writer: frames published, frames that there was no slot for, letters read.
    pub published: AtomicU64,
    pub no_slot: AtomicU64,
    pub messages: AtomicU64,
    pub segments: AtomicU64,
    pub semaphore_timeouts: AtomicU64,
    /// Writer: the longest claim and publish in nanoseconds.
    pub stall: AtomicU64,
}

#[repr(C)]
pub struct Board {
    pub request: AtomicU32,
    pub writer_request: AtomicU32,
    /// The answer to `COUNT_SLOTS`: slots with memory, plus 1, and those that could be used.
    pub slots: AtomicU64,
    pub slots_used: AtomicU64,
    killed_at: [AtomicU64; INCARNATIONS],
    recovery_count: AtomicU64,
    recoveries: [AtomicU64; RECOVERIES],
    pub cells: [Cell; CELLS],
}

impl Board {
    /// Opens the board in `folder`, or makes it.
    pub fn open(folder: &Path) -> &'static Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("board"))
            .unwrap();
        file.set_len(size_of::<Self>() as u64).unwrap();
        let length = NonZeroUsize::new(size_of::<Self>()).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice. It is never unmapped, the file is as long as it, and
        // the board is made of atomics only, of which any bytes are a value.
        unsafe {
            mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0)
                .unwrap()
                .cast::<Self>()
                .as_ref()
        }
    }

    /// The writer `incarnation` has died.
    pub fn note_death(&self, incarnation: u32, at: u64) {
        self.killed_at[incarnation as usize % INCARNATIONS].store(at, Relaxed);
    }

    /// The writer `incarnation` was stopped before its first frame, so that the time since the last death says nothing.
    pub fn forget_death_before(&self, incarnation: u32) {
        self.killed_at[(incarnation.wrapping_sub(1)) as usize % INCARNATIONS].store(0, Relaxed);
    }

    /// When the writer before `incarnation` died.
    pub fn death_before(&self, incarnation: u32) -> Option<u64> {
        let at = self.killed_at[(incarnation.wrapping_sub(1)) as usize % INCARNATIONS].load(Relaxed);
        (at != 0).then_some(at)
    }

    /// A reader has its first frame of a writer, so long after the death of the one before.
    pub fn note_recovery(&self, nanoseconds: u64) {
        let index = self.recovery_count.fetch_add(1, Relaxed) as usize;
        self.recoveries[index % RECOVERIES].store(nanoseconds, Relaxed);
    }

    pub fn recoveries(&self) -> Vec<u64> {
        let count = (self.recovery_count.load(Relaxed) as usize).min(RECOVERIES);
        let mut all: Vec<u64> = self.recoveries[..count].iter().map(|it| it.load(Relaxed)).collect();
        all.sort_unstable();
        all
    }
}

/// Where findings are written down: each is one write, which the end of its process does not undo.
#[derive(Clone)]
pub struct Findings(PathBuf);

impl Findings {
    pub fn new(folder: &Path) -> Self {
        Self(folder.join("findings"))
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
