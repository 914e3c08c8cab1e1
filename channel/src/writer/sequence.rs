// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sequence numbers of frames, and which frames are keyframes.

/// Assigns the seqs of frames, and finds the frames with which a reader can start.
#[derive(Debug)]
pub(super) struct Sequence {
    head: u64,
    /// The number of frames after `head` that were lost before they were published.
    dropped: u64,
    /// Whether the stream has had a frame that is marked as a delta unit.
    has_deltas: bool,
    /// Whether the last frame was marked as a delta unit, or the stream has just begun.
    is_after_delta: bool,
}

impl Sequence {
    /// A sequence whose first frame has the seq after `head`.
    pub(super) fn after(head: u64) -> Self {
        Self {
            head,
            dropped: 0,
            has_deltas: false,
            is_after_delta: true,
        }
    }

    /// The seq of the newest frame.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Counts a frame that was lost before it was published. This makes the next seq one higher.
    pub(super) fn record_drop(&mut self) {
        self.dropped += 1;
    }

    /// Whether frames after the newest one were lost, so that the next seq is not the next number.
    pub(super) fn has_gap(&self) -> bool {
        self.dropped > 0
    }

    /// Returns the seq of the next frame. This frame is the newest from here on.
    pub(super) fn advance(&mut self) -> u64 {
        self.head += 1 + std::mem::take(&mut self.dropped);
        self.head
    }

    /// Records that another stream begins.
    pub(super) fn begin_stream(&mut self) {
        self.has_deltas = false;
        self.is_after_delta = true;
    }

    /// Whether a reader can start with the next frame, which is marked as a delta unit or not.
    ///
    /// A muxer or a payloader divides a keyframe into many frames, and marks none of them as a delta unit. A reader can
    /// start only with the first of them. So in a stream with delta units, only a frame after a delta unit counts.
    pub(super) fn note_frame(&mut self, is_delta: bool) -> bool {
        self.has_deltas |= is_delta;
        let is_start = !is_delta && (self.is_after_delta || !self.has_deltas);
        self.is_after_delta = is_delta;
        is_start
    }
}

#[cfg(test)]
mod tests {
    use super::Sequence;

    fn starts(deltas: &str) -> String {
        let mut sequence = Sequence::after(0);
        let is_start = |kind| sequence.note_frame(kind == 'd');
        deltas
            .chars()
            .map(is_start)
            .map(|is_start| if is_start { 'S' } else { '.' })
            .collect()
    }

    #[test]
    fn reader_starts_with_first_part_of_keyframe() {
        // Until the first delta unit, each frame may be independent, as in a stream of JPEG pictures.
        assert_eq!(starts("kkkk"), "SSSS");
        assert_eq!(starts("kdddkddk"), "S...S..S");
        assert_eq!(starts("kkdkkkddkkk"), "SS.S....S..");
        assert_eq!(starts("dddkkd"), "...S..");
    }
}
