// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader's entry in the reader table: its lock, and its state in one segment.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    protocol::{
        layout::{EVICTED, FIRST_READER_BYTE},
        pins::PinCounts,
    },
    segment::Segment,
    sys::{clock, files::FileId, lock::OfdLock, sync},
};

/// The lock of a reader entry. The reader keeps it from one segment to the next. While frames of the reader are in use,
/// the lock also outlives the reader.
#[derive(Debug)]
pub(crate) struct EntryLock {
    pub(super) index: usize,
    /// The file that carries the lock.
    pub(super) lock_file: FileId,
    /// The generation that this owner used last.
    pub(super) generation: AtomicU32,
    _lock: OfdLock,
}

impl EntryLock {
    /// The lock of the reader entry for which `byte` stands in the lock file.
    pub(super) fn new(byte: i64, lock_file: FileId, lock: OfdLock) -> Self {
        Self {
            index: (byte - FIRST_READER_BYTE) as usize,
            lock_file,
            // The clock gives a generation that the entry's last owner is unlikely to have had. In a new segment, the
            // entry has no generation yet, so the writer can distinguish the owners only by this value.
            generation: AtomicU32::new((clock::monotonic_ns() >> 10) as u32 | 1),
            _lock: lock,
        }
    }
}

/// The locks of a reader entry that a reader needs in a segment.
#[derive(Clone, Debug)]
pub(super) struct EntryLocks {
    pub(super) entry: Arc<EntryLock>,
    /// The lock of the presence byte. It shows that the reader is in a segment, also to a writer that does not know the
    /// segment. The attachments of a reader share the lock, and it ends when the reader has left all of them.
    pub(super) presence: Arc<OfdLock>,
}

/// The reader entry that this reader owns in one segment.
#[derive(Debug)]
pub(super) struct OwnEntry {
    pub(super) lock: Arc<EntryLock>,
    /// `None` after the reader has left the segment.
    presence: Mutex<Option<Arc<OfdLock>>>,
    pub(super) generation: u32,
    pin_counts: Mutex<PinCounts>,
    /// The seq of the newest message from this reader.
    pub(super) message_seq: Mutex<u64>,
    /// The seq of the newest request of this reader for a keyframe of a later time.
    pub(super) keyframe_seq: Mutex<u64>,
}

impl OwnEntry {
    pub(super) fn new(locks: EntryLocks, generation: u32) -> Self {
        Self {
            lock: locks.entry,
            presence: Mutex::new(Some(locks.presence)),
            generation,
            pin_counts: Mutex::default(),
            message_seq: Mutex::default(),
            keyframe_seq: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn index(&self) -> usize {
        self.lock.index
    }

    /// The presence lock, unless the reader has left the segment.
    pub(super) fn presence(&self) -> Option<Arc<OfdLock>> {
        sync::lock(&self.presence).clone()
    }

    /// Releases the presence lock, unless another attachment of this reader has it too.
    pub(super) fn end_presence(&self) {
        let presence = sync::lock(&self.presence).take();
        drop(presence);
    }

    #[inline]
    pub(super) fn pin_counts(&self) -> MutexGuard<'_, PinCounts> {
        sync::lock(&self.pin_counts)
    }

    /// Whether the writer has evicted this owner.
    #[inline]
    pub(super) fn is_evicted(&self, segment: &Segment) -> bool {
        // Acquire: pairs with the release store of the eviction by the writer.
        segment.tables.eviction(self.index()).load(Ordering::Acquire) == EVICTED | u64::from(self.generation)
    }
}
