// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs: the frames in one slot, one after another.
//!
//! The first frame of a run is described by the slot's record, like the only frame of other slots. The writer appends
//! further frames: a [`RunRecord`], the frame's bytes, and the metadata. Then it moves the run's tail to the new frame.
//! Nothing that lies before the tail changes, so a reader that has pinned the slot reads all frames up to the tail.
//!
//! The writer appends only to the run that it started last. It never takes the newest slot, so the pin rule
//! (`protocol/pins.rs`) stays as it is.

// The path begins with `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU64, Ordering},
    layout::{RUN_ALIGN, RunRecord},
};

/// The number of bits that the ordinal has in a [`RunPosition`] as a word.
const ORDINAL_BITS: u32 = 24;

/// The most frames of a run.
pub const MAX_RUN_LENGTH: u32 = (1 << ORDINAL_BITS) - 1;

/// The size of a [`RunRecord`] in bytes.
pub const RUN_RECORD_SIZE: u64 = size_of::<RunRecord>() as u64;

/// The position of a frame in its run. As a word, the ordinal is in the lower 24 bits and the offset in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPosition {
    /// Which frame of the run it is; the first frame has the ordinal 1.
    pub ordinal: u32,
    /// The offset of the [`RunRecord`] in the slot; 0 for the first frame, which has none.
    pub offset: u64,
}

impl RunPosition {
    /// The position of the first frame of a run.
    pub const FIRST: Self = Self { ordinal: 1, offset: 0 };

    /// The position as a word.
    pub fn to_word(self) -> u64 {
        self.offset << ORDINAL_BITS | u64::from(self.ordinal)
    }

    /// The position that a word contains; `None` if the word is 0 or the position is impossible.
    pub fn from_word(word: u64) -> Option<Self> {
        let position = Self {
            ordinal: word as u32 & MAX_RUN_LENGTH,
            offset: word >> ORDINAL_BITS,
        };
        let is_first = position.ordinal == 1;
        let is_possible = position.ordinal > 0 && is_first == (position.offset == 0);
        (is_possible && position.offset % RUN_ALIGN == 0).then_some(position)
    }

    /// Whether this is the first frame of its run.
    pub fn is_first(self) -> bool {
        self.ordinal == 1
    }

    /// The position of the next frame, whose record starts at `offset`.
    pub fn next(self, offset: u64) -> Self {
        Self {
            ordinal: self.ordinal + 1,
            offset,
        }
    }
}

/// Publishes the frame at `position`, which the writer has appended to a run.
pub fn publish_tail(tail: &AtomicU64, position: RunPosition) {
    // Release: pairs with the acquire load in `load_tail`. A reader that finds the position also finds the frame's
    // record, bytes and metadata.
    tail.store(position.to_word(), Ordering::Release);
}

/// The position of the newest frame of a run. The caller has loaded the slot's seq with acquire order before, and has
/// pinned the slot or loads the seq again.
pub fn load_tail(tail: &AtomicU64) -> Option<RunPosition> {
    // Acquire: pairs with the release store in `publish_tail`.
    RunPosition::from_word(tail.load(Ordering::Acquire))
}

/// The offset at which the record of the next frame starts, after a frame whose bytes end at `end` and whose metadata
/// in the slot has `metadata_size` bytes. `None` if no slot is that large.
pub fn next_offset(end: u64, metadata_size: u64) -> Option<u64> {
    let metadata_end = end.checked_next_multiple_of(RUN_ALIGN)?.checked_add(metadata_size)?;
    metadata_end.checked_next_multiple_of(RUN_ALIGN)
}

/// The size in bytes of the record, the bytes and the metadata of an appended frame; `None` if it has no such size.
pub fn appended_size(size: u64, metadata_size: u64) -> Option<u64> {
    next_offset(RUN_RECORD_SIZE.checked_add(size)?, metadata_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_as_words() {
        for position in [
            RunPosition::FIRST,
            RunPosition::FIRST.next(4096),
            RunPosition {
                ordinal: MAX_RUN_LENGTH,
                offset: (1 << 40) - 8,
            },
        ] {
            assert_eq!(RunPosition::from_word(position.to_word()), Some(position));
        }
        for impossible in [0, 2, 1 << 27 | 1, 12 << 24 | 2, u64::MAX] {
            assert_eq!(RunPosition::from_word(impossible), None, "{impossible:#x}");
        }
    }

    #[test]
    fn next_record_is_aligned() {
        assert_eq!(next_offset(188, 0), Some(192));
        assert_eq!(next_offset(192, 13), Some(208));
        assert_eq!(appended_size(188, 0), Some(256));
        assert_eq!(next_offset(u64::MAX - 3, 0), None);
        assert_eq!(appended_size(u64::MAX, 0), None);
    }
}
