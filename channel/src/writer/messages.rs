// SPDX-License-Identifier: MIT OR Apache-2.0

//! The requests of readers: requests for keyframes, and messages if the writer accepts them.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::service::ServiceReport;
use crate::{
    protocol::layout::{MAX_READERS, MESSAGE_RING_LENGTH, reader_state},
    segment::Segment,
};

/// The least time between two reports of a wanted keyframe. It limits the bits that an encoder spends on keyframes. One
/// keyframe serves all readers.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// The requests that readers have made so far.
#[derive(Debug)]
pub(super) struct RequestLog {
    keyframes: KeyframeRequests,
    /// The requests that were seen in each reader entry of the current segment.
    seen: [RequestCounts; MAX_READERS],
}

/// The requests that the owner of a reader entry has made in one segment.
#[derive(Clone, Copy, Debug, Default)]
struct RequestCounts {
    generation: u32,
    keyframe_requests: u32,
    messages: u64,
}

/// The newest keyframe of the stream, and whether readers want another one.
#[derive(Clone, Copy, Debug, Default)]
struct KeyframeRequests {
    /// The seq of the newest keyframe.
    newest: u64,
    /// The seq of the frame that was the newest at the first keyframe request that was not yet answered or reported.
    /// `None` if there is no such request.
    wanted_since: Option<u64>,
    reported_at: Option<Instant>,
}

impl KeyframeRequests {
    /// Whether to report in this pass that a keyframe is wanted.
    fn take_due(&mut self) -> bool {
        let Some(since) = self.wanted_since else {
            return false;
        };
        if self.newest > since {
            self.wanted_since = None;
            return false;
        }
        let is_due = self
            .reported_at
            .is_none_or(|reported_at| reported_at.elapsed() >= KEYFRAME_INTERVAL);
        if is_due {
            self.wanted_since = None;
            self.reported_at = Some(Instant::now());
        }
        is_due
    }
}

impl RequestLog {
    pub(super) fn new() -> Self {
        Self {
            keyframes: KeyframeRequests::default(),
            seen: [RequestCounts::default(); MAX_READERS],
        }
    }

    /// Records that the frame `seq` is a keyframe.
    pub(super) fn note_keyframe(&mut self, seq: u64) {
        self.keyframes.newest = seq;
    }

    /// Resets the counts, because another segment is current.
    pub(super) fn begin_segment(&mut self) {
        self.seen = [RequestCounts::default(); MAX_READERS];
    }

    /// Adds the requests that readers have made since the last call to `report`. `generation_of` returns the generation
    /// of the attached reader in an entry, and `head` is the seq of the newest frame.
    pub(super) fn poll(
        &mut self,
        segment: &Segment,
        generation_of: impl Fn(usize) -> Option<u32>,
        head: u64,
        report: &mut ServiceReport,
    ) {
        for entry in 0..MAX_READERS {
            if let Some(generation) = generation_of(entry) {
                self.poll_reader(segment, entry, generation, head, report);
            }
        }
        report.keyframe_wanted = self.keyframes.take_due();
    }

    fn poll_reader(&mut self, segment: &Segment, entry: usize, generation: u32, head: u64, report: &mut ServiceReport) {
        let shared = segment.tables.entry(entry);
        // Both are acquire loads, which pair with the release stores of a reader that attaches. The reader sets its
        // counts to 0 before these stores.
        if shared.state.load(Ordering::Acquire) != reader_state::ATTACHED
            || shared.generation.load(Ordering::Acquire) != generation
        {
            return;
        }
        let seen = &mut self.seen[entry];
        if seen.generation != generation {
            *seen = RequestCounts {
                generation,
                ..RequestCounts::default()
            };
        }
        // Relaxed: the count carries no other data.
        let keyframe_requests = shared.keyframe_requests.load(Ordering::Relaxed);
        if keyframe_requests != seen.keyframe_requests {
            seen.keyframe_requests = keyframe_requests;
            self.keyframes.wanted_since.get_or_insert(head);
        }
        if segment.header.message_count == 0 {
            return;
        }
        // Acquire: pairs with the release store of a reader that has written a message.
        let newest = shared.message_head.load(Ordering::Acquire);
        let first = (seen.messages.saturating_add(1)).max(newest.saturating_sub(MESSAGE_RING_LENGTH - 1));
        let messages = (first..=newest).filter_map(|seq| segment.tables.messages(entry, seq)?.read(seq));
        report.messages.extend(messages);
        seen.messages = newest;
    }
}
