// SPDX-License-Identifier: MIT OR Apache-2.0

//! The processes of a run: their kinds and their assignments.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use nix::sys::{
    prctl,
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use rsshm_channel::monotonic_ns;
use serde::{Deserialize, Serialize};

use super::{
    board::{Board, Counters, Findings},
    camera::open_files_and_mappings,
};

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A writer that uses the channel crate.
    Writer,
    /// A pipeline that ends in rsshmsink.
    Sink,
    /// A reader that holds a few frames in place. This kind and the kinds below are readers. They use the channel
    /// crate, unless they are pipelines.
    InPlace,
    /// Copies each frame.
    Copying,
    /// Has only read permission.
    Observer,
    /// Holds each frame for a long time.
    Slow,
    /// Reads only the newest frame.
    Newest,
    /// Asks to hold more frames than its quota allows.
    Hoarder,
    /// Attaches and detaches all the time, and keeps frames after it has detached.
    Guest,
    /// Releases frames in another thread.
    Threaded,
    /// A pipeline that begins with rsshmsrc.
    Source,
    /// A pipeline that begins with rsshmsrc and reads only the newest frame.
    SourceNewest,
    /// Removes what dead writers have left, as `rsshm clean` does, all the time.
    Cleaner,
    /// Uses the socket for descriptors wrongly.
    Stranger,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Writer,
        Self::Sink,
        Self::InPlace,
        Self::Copying,
        Self::Observer,
        Self::Slow,
        Self::Newest,
        Self::Hoarder,
        Self::Guest,
        Self::Threaded,
        Self::Source,
        Self::SourceNewest,
        Self::Cleaner,
        Self::Stranger,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Sink => "rsshmsink",
            Self::InPlace => "in place",
            Self::Copying => "copying",
            Self::Observer => "observer",
            Self::Slow => "slow",
            Self::Newest => "newest only",
            Self::Hoarder => "hoarder",
            Self::Guest => "comes and goes",
            Self::Threaded => "threaded",
            Self::Source => "rsshmsrc",
            Self::SourceNewest => "rsshmsrc, newest",
            Self::Cleaner => "clean",
            Self::Stranger => "stranger",
        }
    }

    pub fn is_reader(self) -> bool {
        !self.is_writer() && !matches!(self, Self::Cleaner | Self::Stranger)
    }

    pub fn is_writer(self) -> bool {
        matches!(self, Self::Writer | Self::Sink)
    }

    /// Whether a reader of this kind receives every frame of a lossless writer.
    pub fn misses_nothing(self) -> bool {
        self.is_reader() && !matches!(self, Self::Observer | Self::Newest | Self::SourceNewest)
    }

    /// Whether a reader of this kind has an entry all the time, so that nobody removes the files that a dead writer left.
    pub fn keeps_entry(self) -> bool {
        self.is_reader() && !matches!(self, Self::Observer | Self::Guest)
    }
}

/// The assignment that a process receives when it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub directory: PathBuf,
    pub kind: Kind,
    /// The index of the member of the run to which the process belongs.
    pub member: usize,
    pub seed: u64,
    pub channel: String,
    pub lossless: bool,
    /// Whether a process removes what dead writers have left.
    pub clean: bool,
    pub objects: bool,
    /// The number of writers that have been started so far.
    pub incarnation: u32,
    /// The number of writers that have been asked to close so far.
    pub epoch: u32,
}

/// The data of one process: its assignment, the shared board, its counters and the file of findings.
pub struct ProcessContext {
    pub assignment: Assignment,
    pub board: &'static Board,
    pub counters: &'static Counters,
    findings: Findings,
}

impl ProcessContext {
    pub fn new(assignment: Assignment) -> Self {
        // If the run is killed, all its processes are killed with it.
        prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
        record_continues();
        let board = Board::open(&assignment.directory);
        Self {
            board,
            counters: &board.counters[assignment.member],
            findings: Findings::new(&assignment.directory),
            assignment,
        }
    }

    /// Checks at the end of a process that it has as many files and mappings of objects as at its begin.
    pub fn check_open(&self, before: (usize, usize)) {
        let now = open_files_and_mappings();
        if now != before {
            self.found_other(&format!(
                "files and mappings were {before:?}, and are {now:?} at the end"
            ));
        }
    }

    /// Counts and records a violation.
    pub fn found(&self, counter: &AtomicU64, text: &str) {
        counter.fetch_add(1, Relaxed);
        let Assignment { kind, member, .. } = &self.assignment;
        self.findings.add(&format!(
            "{}, member {member}, process {}: {text}",
            kind.name(),
            std::process::id()
        ));
    }

    /// Counts and records a violation that has no counter of its own.
    pub fn found_other(&self, text: &str) {
        self.found(&self.counters.others, text);
    }
}

/// The time at which this process was last continued after a stop. All accesses are relaxed, because no other data
/// depends on this time.
static CONTINUED_AT: AtomicU64 = AtomicU64::new(0);

/// From this call on, each continuation of this process after a stop is recorded.
fn record_continues() {
    extern "C" fn record(_: nix::libc::c_int) {
        CONTINUED_AT.store(monotonic_ns(), Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(record), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only calls clock_gettime and stores an atomic, which are both async-signal-safe.
    unsafe { sigaction(Signal::SIGCONT, &action) }.unwrap();
}

/// The time from `began` to `ended` in nanoseconds. If this process was continued after `began`, the result is the time
/// from the last continuation to `ended`.
pub fn awake_between(began: u64, ended: u64) -> u64 {
    if ended - began > 10_000_000 {
        // If another thread runs the signal handler, it may not have stored `CONTINUED_AT` yet. So this thread waits.
        std::thread::sleep(Duration::from_millis(20));
    }
    ended.saturating_sub(began.max(CONTINUED_AT.load(Relaxed)))
}

/// Whether this process was continued after a stop since `began`.
pub fn was_stopped_since(began: u64) -> bool {
    CONTINUED_AT.load(Relaxed) > began
}
