//! The processes of a run: what they are told, and what they are.

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

use crate::board::{Board, Cell, Findings};

const VARIABLE: &str = "RSSHM_CHAOS";

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A writer on the channel's interface.
    Writer,
    /// A pipeline that ends in rsshmsink.
    Sink,
    /// Readers on the channel's interface. Holds a few frames in place.
    InPlace,
    /// Copies each frame.
    Copying,
    /// Reads only.
    Observer,
    /// Takes its time with each frame.
    Slow,
    /// Wants the newest frame only.
    Newest,
    /// Holds more frames than it can be granted.
    Hoarder,
    /// Comes and goes all the time, and keeps frames when it has gone.
    Guest,
    /// Another thread lets its frames go.
    Threaded,
    /// Pipelines that begin with rsshmsrc.
    Source,
    SourceNewest,
}

impl Role {
    pub const ALL: [Self; 12] = [
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
        }
    }

    pub fn is_writer(self) -> bool {
        matches!(self, Self::Writer | Self::Sink)
    }

    /// Whether a lossless writer waits for it, and it wants all.
    pub fn misses_nothing(self) -> bool {
        !self.is_writer() && !matches!(self, Self::Observer | Self::Newest | Self::SourceNewest)
    }
}

/// What a process is told.
#[derive(Clone, Debug)]
pub struct Orders {
    pub folder: PathBuf,
    pub role: Role,
    pub cell: usize,
    pub seed: u64,
    pub channel: String,
    pub lossless: bool,
    /// Of a writer.
    pub incarnation: u32,
    pub epoch: u32,
}

impl Orders {
    /// As the value of an environment variable.
    pub fn variable(&self) -> (&'static str, String) {
        let role = Role::ALL.iter().position(|role| *role == self.role).unwrap();
        let value = format!(
            "{}|{role}|{}|{}|{}|{}|{}|{}",
            self.folder.display(),
            self.cell,
            self.seed,
            self.channel,
            u32::from(self.lossless),
            self.incarnation,
            self.epoch
        );
        (VARIABLE, value)
    }

    /// In the process: what it was told, `None` where it is none of a run's.
    pub fn received() -> Option<Self> {
        let value = std::env::var(VARIABLE).ok()?;
        let fields: Vec<&str> = value.split('|').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        Some(Self {
            folder: fields[0].into(),
            role: Role::ALL[number(1) as usize],
            cell: number(2) as usize,
            seed: number(3),
            channel: fields[4].to_owned(),
            lossless: number(5) != 0,
            incarnation: number(6) as u32,
            epoch: number(7) as u32,
        })
    }
}

/// What a process has to work with.
pub struct Context {
    pub orders: Orders,
    pub board: &'static Board,
    pub cell: &'static Cell,
    pub findings: Findings,
}

impl Context {
    pub fn new(orders: Orders) -> Self {
        // Nobody stays behind when the run is killed.
        prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
        watch_stops();
        let board = Board::open(&orders.folder);
        Self {
            board,
            cell: &board.cells[orders.cell],
            findings: Findings::new(&orders.folder),
            orders,
        }
    }

    /// In a writer, before it publishes the frame `serial`.
    pub fn publishes(&self, serial: u64) {
        if serial == 1 && was_stopped_since(0) {
            self.board.forget_death_before(self.orders.incarnation);
        }
    }

    /// Notes something that must not be.
    pub fn found(&self, what: &AtomicU64, text: &str) {
        what.fetch_add(1, Relaxed);
        let Orders { role, cell, .. } = &self.orders;
        self.findings.add(&format!(
            "{} in place {cell}, process {}: {text}",
            role.name(),
            std::process::id()
        ));
    }
}

static CONTINUED_AT: AtomicU64 = AtomicU64::new(0);

/// Notes when this process goes on after it was stopped.
fn watch_stops() {
    extern "C" fn note(_: nix::libc::c_int) {
        CONTINUED_AT.store(monotonic_ns(), Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler calls clock_gettime and stores an atomic, which a signal handler may.
    unsafe { sigaction(Signal::SIGCONT, &action) }.unwrap();
}

/// How long it took from `began` to `ended`, in nanoseconds, without what came before this process was last stopped.
pub fn awake_between(began: u64, ended: u64) -> u64 {
    if ended - began > 10_000_000 {
        // Another thread notes that this process goes on, and may not have come to it yet.
        std::thread::sleep(Duration::from_millis(20));
    }
    ended.saturating_sub(began.max(CONTINUED_AT.load(Relaxed)))
}

/// Whether this process was stopped since then.
pub fn was_stopped_since(began: u64) -> bool {
    CONTINUED_AT.load(Relaxed) > began
}
