// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts of the layout that the files need.

use super::atomic::{AtomicU32, AtomicU64};

pub(crate) const MAX_SLOTS: usize = 64;

pub(crate) mod state {
    pub(crate) const SUPERSEDED: u32 = 1;
    pub(crate) const CLOSED: u32 = 2;
}

pub(crate) mod reader_state {
    pub(crate) const NEW: u32 = 0;
    pub(crate) const ATTACHED: u32 = 1;
    pub(crate) const LEFT: u32 = 3;
    pub(crate) const JOINING: u32 = 4;

    pub(crate) fn is_present(state: u32) -> bool {
        matches!(state, ATTACHED | JOINING)
    }
}

pub(crate) struct Status {
    pub(crate) head: AtomicU64,
    pub(crate) eos_seqs: [AtomicU64; 2],
    pub(crate) latency_ns: AtomicU64,
    pub(crate) published: AtomicU32,
    pub(crate) state: AtomicU32,
    pub(crate) eos_count: AtomicU32,
    pub(crate) event_head: AtomicU64,
    pub(crate) writer_word: AtomicU32,
    pub(crate) writer_waits: AtomicU32,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            eos_seqs: [AtomicU64::new(0), AtomicU64::new(0)],
            latency_ns: AtomicU64::new(0),
            published: AtomicU32::new(0),
            state: AtomicU32::new(0),
            eos_count: AtomicU32::new(0),
            event_head: AtomicU64::new(0),
            writer_word: AtomicU32::new(0),
            writer_waits: AtomicU32::new(0),
        }
    }
}

pub(crate) struct ReaderEntry {
    pub(crate) pins: AtomicU64,
    pub(crate) cursor: AtomicU64,
    pub(crate) generation: AtomicU32,
    pub(crate) state: AtomicU32,
    pub(crate) keyframe_requests: AtomicU32,
    pub(crate) message_head: AtomicU64,
    pub(crate) keyframe_head: AtomicU64,
}

impl ReaderEntry {
    /// The entry of a reader of generation 1, which has attached and has sent seven messages.
    pub(crate) fn attached() -> Self {
        Self {
            pins: AtomicU64::new(0),
            cursor: AtomicU64::new(9),
            generation: AtomicU32::new(1),
            state: AtomicU32::new(super::reader_state::ATTACHED),
            keyframe_requests: AtomicU32::new(7),
            message_head: AtomicU64::new(7),
            keyframe_head: AtomicU64::new(7),
        }
    }
}
