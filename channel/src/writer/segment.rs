// SPDX-License-Identifier: MIT OR Apache-2.0

//! A segment with the data that only its writer has: the file that carries the readers' locks, and the claimed slots.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    protocol::layout::{FIRST_PRESENCE_BYTE, FIRST_READER_BYTE, Header, MAX_SLOTS, reader_state},
    segment::{Segment, lock_file::LockFile, tables::SegmentTables},
    sys::{clock, files::FileId},
};

/// The purpose of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimedFor {
    /// The publishing thread copies a frame into the slot.
    Copy,
    /// Upstream draws into the slot, and may keep it for a long time.
    Upstream,
}

/// A segment of this writer. Every [`Slot`](super::slot::Slot) of the segment refers to this value.
#[derive(Debug)]
pub(super) struct WriterSegment {
    mapped: Arc<Segment>,
    /// The file that carries the locks of this segment's readers. If this file loses its name, the channel gets a new
    /// lock file, but this segment keeps this one.
    lock_file: Arc<LockFile>,
    /// The claimed slots, one bit for each. This process is filling each of them, or has published it while upstream
    /// still keeps its memory.
    claimed: AtomicU64,
    /// Which of the claimed slots were claimed for a copy.
    for_copy: AtomicU64,
    /// Which of the claimed slots have been published. Bits of other slots have no meaning.
    published: AtomicU64,
    /// When a frame was last copied into each slot, in nanoseconds of CLOCK_MONOTONIC. 0 means never.
    copied_ns: [AtomicU64; MAX_SLOTS],
}

impl WriterSegment {
    pub(super) fn new(mapped: Segment, lock_file: Arc<LockFile>) -> Self {
        Self {
            mapped: Arc::new(mapped),
            lock_file,
            claimed: AtomicU64::new(0),
            for_copy: AtomicU64::new(0),
            published: AtomicU64::new(0),
            copied_ns: core::array::from_fn(|_| 0.into()),
        }
    }

    /// The mapped file.
    pub(super) fn mapped(&self) -> &Arc<Segment> {
        &self.mapped
    }

    pub(super) fn header(&self) -> &Header {
        &self.mapped.header
    }

    pub(super) fn tables(&self) -> &SegmentTables {
        &self.mapped.tables
    }

    /// The identity of the file that carries the locks of this segment's readers.
    pub(super) fn lock_file_id(&self) -> FileId {
        self.lock_file.file_id()
    }

    /// Whether a living process holds the lock of the reader entry `entry`.
    pub(super) fn is_alive(&self, entry: usize) -> bool {
        self.lock_file.is_locked(FIRST_READER_BYTE + entry as i64)
    }

    /// Whether a living reader with the entry `entry` takes frames, in any segment whose readers have their locks in
    /// the same file.
    pub(super) fn is_present(&self, entry: usize) -> bool {
        self.lock_file.is_locked(FIRST_PRESENCE_BYTE + entry as i64)
    }

    /// The state that the reader with the entry `entry` has stored.
    pub(super) fn reader_state(&self, entry: usize) -> u32 {
        // Acquire: pairs with the release store of a reader that attaches or leaves.
        self.tables().entry(entry).state.load(Ordering::Acquire)
    }

    /// Whether a living reader in `entry` takes frames in this segment, or is about to take them.
    pub(super) fn has_reader(&self, entry: usize) -> bool {
        reader_state::is_present(self.reader_state(entry)) && self.is_alive(entry)
    }

    /// The claimed slots, one bit for each.
    pub(super) fn claimed(&self) -> u64 {
        // Acquire: pairs with the release operation in `end_claim`.
        self.claimed.load(Ordering::Acquire)
    }

    pub(super) fn is_claimed(&self, slot: usize) -> bool {
        self.claimed() >> slot & 1 == 1
    }

    /// Whether a slot is claimed for a copy.
    pub(super) fn has_claim_for_copy(&self) -> bool {
        // Relaxed: `claim` and this function both run under the lock of the writer's state.
        self.claimed() & self.for_copy.load(Ordering::Relaxed) != 0
    }

    /// Marks a slot as claimed. The caller has already taken the slot for writing, and holds the lock of the writer's
    /// state.
    pub(super) fn claim(&self, slot: usize, claimed_for: ClaimedFor) {
        // All operations are relaxed, because the next search for a slot reads the values under the lock of the
        // writer's state. Only `claimed` has another writer, in `end_claim`.
        let for_copy = self.for_copy.load(Ordering::Relaxed) & !(1 << slot);
        let is_copy = u64::from(claimed_for == ClaimedFor::Copy);
        self.for_copy.store(for_copy | is_copy << slot, Ordering::Relaxed);
        let published = self.published.load(Ordering::Relaxed);
        self.published.store(published & !(1 << slot), Ordering::Relaxed);
        self.claimed.fetch_or(1 << slot, Ordering::Relaxed);
    }

    /// Ends a claim. The caller has made sure that this process no longer uses the slot's memory.
    pub(super) fn end_claim(&self, slot: usize) {
        // In a forked child, the claim belongs to the parent process.
        if self.mapped.is_inherited() {
            return;
        }
        // Release: pairs with the acquire load in `claimed`. All writes to the slot's bytes come before it.
        self.claimed.fetch_and(!(1 << slot), Ordering::Release);
        // The publishing thread of a lossless writer may be waiting for this slot.
        self.mapped.notify_waiting_writer();
    }

    pub(super) fn is_published(&self, slot: usize) -> bool {
        // Acquire: pairs with the release operation in `mark_published`.
        self.published.load(Ordering::Acquire) >> slot & 1 == 1
    }

    /// Marks the slot as published: from here on, this process must not write to the slot's bytes. The caller holds the
    /// lock of the writer's state.
    pub(super) fn mark_published(&self, slot: usize) {
        // Release: pairs with the acquire load in `is_published`. Relaxed: the lock of the state orders all stores.
        let published = self.published.load(Ordering::Relaxed);
        self.published.store(published | 1 << slot, Ordering::Release);
    }

    /// Notes that a frame is copied into the slot now. Returns the time since the last copy into it.
    pub(super) fn note_copy(&self, slot: usize) -> Option<Duration> {
        let now_ns = clock::monotonic_ns();
        // Relaxed: only the owner of the claim calls this, and the lock of the writer's state orders the claims.
        let before_ns = self.copied_ns[slot].swap(now_ns, Ordering::Relaxed);
        (before_ns != 0).then(|| Duration::from_nanos(now_ns.saturating_sub(before_ns)))
    }
}
