// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sequence numbers of frames.

/// Gives frames their seqs.
#[derive(Debug)]
pub(super) struct Sequence {
    head: u64,
    /// Frames since `head` that were lost before they were published.
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

    /// Counts a frame that was lost before it was published: the next seq is one higher.
    pub(super) fn record_drop(&mut self) {
        self.dropped += 1;
    }

    /// The seq of the next frame, which is the newest from here on.
    pub(super) fn advance(&mut self) -> u64 {
        self.head += 1 + std::mem::take(&mut self.dropped);
        self.head
    }
}
