// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an observer sees of a channel beside its frames: the status, the readers, and the file.

use std::sync::atomic::Ordering;

use crate::{
    protocol::layout::{EVICTED, MAX_QUOTA, ONLY_NEWEST, reader_state, state},
    segment::{Segment, lock_query::LockQuery},
};

/// The status of a channel's segment at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedStatus {
    /// The seq of the newest frame; 0 before the first frame of the channel.
    pub head: u64,
    /// The seq of the newest event; 0 before the first event of the channel.
    pub event_head: u64,
    /// How many times the stream has ended in this segment.
    pub eos_count: u32,
    /// The time in nanoseconds from a frame's timestamp until the frame leaves the writer, as the writer states it.
    pub latency_ns: u64,
    /// Whether a newer segment replaces this one.
    pub is_superseded: bool,
    /// Whether the writer has closed the channel.
    pub is_closed: bool,
    /// Whether the source of the frames is closed until a reader attaches. The segment has no frames then.
    pub is_idle: bool,
}

impl ObservedStatus {
    pub(super) fn load(segment: &Segment) -> Self {
        let status = segment.tables.status();
        // Acquire, here and below: these loads pair with the release stores of the writer. The state is loaded first,
        // so that the head of a segment that is over is the last one.
        let bits = status.state.load(Ordering::Acquire);
        Self {
            head: status.head.load(Ordering::Acquire),
            event_head: status.event_head.load(Ordering::Acquire),
            eos_count: status.eos_count.load(Ordering::Acquire),
            // Relaxed: no other value depends on the latency.
            latency_ns: status.latency_ns.load(Ordering::Relaxed),
            is_superseded: bits & state::SUPERSEDED != 0,
            is_closed: bits & state::CLOSED != 0,
            // Relaxed: the value is only shown.
            is_idle: status.idle.load(Ordering::Relaxed) != 0,
        }
    }
}

/// A reader, as its entry in the reader table shows it at one moment.
///
/// The reader itself writes most of these values, so they may be wrong if the reader's program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedReader {
    /// The index of the reader entry, from 0 to 63.
    pub entry: usize,
    /// The process of the reader, in its own pid namespace; 0 if it has not attached to this segment yet.
    pub pid: u32,
    /// One of [`layout::reader_state`](crate::layout::reader_state).
    pub state: u32,
    /// The seq of the last frame that the reader has taken or does not want.
    pub cursor: u64,
    /// How many published frames the reader has not taken yet.
    pub behind: u64,
    /// How many frames the reader has missed since it was created, as it counts them. A stopped reader counts nothing.
    pub missed: u64,
    /// Whether the reader wants only the newest frame, so that it misses frames on purpose.
    pub wants_only_newest: bool,
    /// The pin word: bit N is set while the reader uses slot N.
    pub pins: u64,
    /// How many slots the reader may pin now; `None` if it is not attached, or was evicted.
    pub quota: Option<u32>,
    /// Whether the writer has evicted the reader for holding more slots than its quota.
    pub is_evicted: bool,
    /// Whether the lock of the entry has a living owner. `None` if this user may not read the lock file, or if the
    /// segment belongs to another lock file than the channel.
    pub is_alive: Option<bool>,
}

impl ObservedReader {
    /// How many slots the reader uses.
    pub fn held(&self) -> u32 {
        self.pins.count_ones()
    }

    /// Whether the entry belongs to a reader that takes frames, is about to take them, or still uses some. If the locks
    /// are unknown, the state decides.
    pub fn is_present(&self) -> bool {
        let is_listed = reader_state::is_present(self.state) || self.pins != 0;
        match self.is_alive {
            // A reader that has not moved to this segment yet has the lock, but the entry is still new.
            Some(true) => is_listed || self.state == reader_state::NEW,
            Some(false) => false,
            None => is_listed,
        }
    }
}

/// The entries of the reader table that somebody has used in this segment, or uses now.
pub(super) fn load_readers(segment: &Segment, locks: Option<&LockQuery>, head: u64) -> Vec<ObservedReader> {
    let locks = locks.filter(|locks| locks.file_id == segment.lock_file_id());
    let load = |entry: usize| {
        let reader = &segment.tables.readers()[entry];
        // Acquire: pairs with the release store of the state by the reader, so that the values below belong to it.
        let state = reader.state.load(Ordering::Acquire);
        // Relaxed, here and below: each value is only shown.
        let generation = reader.generation.load(Ordering::Relaxed);
        let cursor = reader.cursor.load(Ordering::Relaxed);
        let missed = reader.missed.load(Ordering::Relaxed);
        let pins = reader.pins.load(Ordering::Relaxed);
        let quota = segment.tables.status().quota.load(Ordering::Relaxed).min(MAX_QUOTA);
        let eviction = segment.tables.eviction(entry).load(Ordering::Relaxed);
        let is_evicted = eviction == EVICTED | u64::from(generation);
        ObservedReader {
            entry,
            pid: reader.pid.load(Ordering::Relaxed),
            state,
            cursor,
            behind: head.saturating_sub(cursor),
            missed: missed & !ONLY_NEWEST,
            wants_only_newest: missed & ONLY_NEWEST != 0,
            pins,
            quota: (state == reader_state::ATTACHED && !is_evicted).then_some(quota),
            is_evicted,
            // The lock is queried after the pins, because the pins of a dead owner do not count.
            is_alive: locks.and_then(|locks| locks.has_owner(entry)),
        }
    };
    let is_used = |reader: &ObservedReader| {
        reader.is_alive == Some(true) || reader.state != reader_state::NEW || reader.pins != 0
    };
    (0..segment.tables.readers().len()).map(load).filter(is_used).collect()
}

/// The file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentFile {
    /// The size in bytes: the tables, and the slots that have memory.
    pub size: u64,
    /// The memory in bytes that the file occupies.
    pub memory: u64,
    /// How many slots have memory.
    pub committed_slots: u32,
    /// The permission bits.
    pub mode: u32,
    /// The user that owns the file.
    pub owner: u32,
    /// The group that owns the file.
    pub group: u32,
    /// The inode number of the file. A process is a peer of this segment only if it maps this file, so a program can
    /// check a process id with `/proc/PID/maps`.
    pub inode: u64,
}
