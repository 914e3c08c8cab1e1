// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counters of a writer.

/// The counters of a writer, and the slots and bytes of its current segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterStats {
    /// Frames published.
    pub published: u64,
    /// Frames lost before they were published, as [`Writer::record_drop`](crate::Writer::record_drop) counts them.
    pub dropped: u64,
    /// The seq of the newest frame; 0 before the first.
    pub head: u64,
    /// Slots of the current segment that have memory.
    pub slots: u32,
    /// Slots that the current segment may have. With an automatic number, this is what memory allowed when the segment
    /// was made.
    pub max_slots: u32,
    /// Slots of the current segment that hold a frame or are claimed.
    pub slots_in_use: u32,
    /// The size of the segment's file in bytes.
    pub bytes: u64,
    /// How many times the writer continued without the semaphore, because another process held the semaphore for too
    /// long.
    pub semaphore_timeouts: u64,
    /// Readers evicted because they held more slots than their quota. Their pins no longer count.
    pub evicted: u64,
    /// Frames that were overwritten before an attached reader took them. A frame counts once for each such reader, also
    /// if the reader did not want the frame.
    pub missed_by_readers: u64,
    /// Segments made.
    pub segments: u64,
}
