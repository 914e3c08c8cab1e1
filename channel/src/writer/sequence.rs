// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sequence numbers of frames.

/// Assigns the seqs of frames.
#[derive(Debug)]
pub(super) struct Sequence {
    head: u64,
    /// The number of frames after `head` that were lost before they were published.
    dropped: u64,
}

impl Sequence {
    /// A sequence whose first frame has the seq after `head`.
    pub(super) fn after(head: u64) -> Self {
        Self { head, dropped: 0 }
    }

    /// The seq of the newest frame.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Counts a frame that was lost before it was published. This makes the next seq one higher.
    pub(super) fn record_drop(&mut self) {
        self.dropped += 1;
    }

    /// Returns the seq of the next frame. This frame is the newest from here on.
    pub(super) fn advance(&mut self) -> u64 {
        self.head += 1 + std::mem::take(&mut self.dropped);
        self.head
    }
}
