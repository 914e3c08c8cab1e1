// SPDX-License-Identifier: MIT OR Apache-2.0

//! The requests of readers: requests for keyframes, and messages if the writer accepts them.

use std::{ops::RangeInclusive, sync::atomic::Ordering, time::Duration};

use super::{
    keyframes::{KeyframeRequests, ReaderId},
    service::ServiceReport,
};
use crate::{
    FrameDescriptor,
    protocol::{
        keyframe::KeyframeRequest,
        layout::{KEYFRAME_RING_LENGTH, MAX_READERS, MESSAGE_RING_LENGTH, TIME_NONE, reader_state},
    },
    segment::Segment,
    sys::clock,
};

/// The requests that readers have made so far.
#[derive(Debug)]
pub(super) struct RequestLog {
    keyframes: KeyframeRequests,
    /// The requests that the writer has seen so far in each reader entry of the current segment.
    seen: [RequestCounts; MAX_READERS],
}

/// The requests that the owner of a reader entry has made in one segment.
#[derive(Clone, Copy, Debug, Default)]
struct RequestCounts {
    generation: u32,
    keyframe_requests: u32,
    timed_keyframe_requests: u64,
    messages: u64,
}

impl RequestLog {
    pub(super) fn new() -> Self {
        Self {
            keyframes: KeyframeRequests::default(),
            seen: [RequestCounts::default(); MAX_READERS],
        }
    }

    /// Records the frame `seq`, which is about to be published.
    pub(super) fn note_frame(&mut self, seq: u64, descriptor: &FrameDescriptor) {
        self.keyframes.note_frame(seq, descriptor);
    }

    /// How long the service may sleep until the next request is due; `None` if no request waits for its time.
    pub(super) fn time_until_due(&self) -> Option<Duration> {
        self.keyframes.time_until_due(clock::monotonic_ns())
    }

    /// Resets the counts, because another segment is current.
    pub(super) fn begin_segment(&mut self) {
        self.seen = [RequestCounts::default(); MAX_READERS];
    }

    /// Adds to `report` the requests that readers have made since the last call. `generation_of` returns the generation
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
        self.keyframes.report_due(clock::monotonic_ns(), report);
    }

    fn poll_reader(&mut self, segment: &Segment, entry: usize, generation: u32, head: u64, report: &mut ServiceReport) {
        let shared = segment.tables.entry(entry);
        // The reader sets its counts to 0 before it stores this state.
        if shared.owner() != (reader_state::ATTACHED, generation) {
            return;
        }
        let seen = &mut self.seen[entry];
        if seen.generation != generation {
            *seen = RequestCounts {
                generation,
                ..RequestCounts::default()
            };
        }
        // Acquire: pairs with the release increment of a reader that has stored the details of its request.
        let keyframe_requests = shared.keyframe_requests.load(Ordering::Acquire);
        if keyframe_requests != seen.keyframe_requests {
            seen.keyframe_requests = keyframe_requests;
            // Relaxed: the load above orders this load. The details may be those of a still newer request.
            let details = shared.keyframe_details.load(Ordering::Relaxed);
            self.keyframes
                .add_immediate(KeyframeRequest::from_words(TIME_NONE, details), head);
        }
        // Acquire: pairs with the release store of a reader that has written a request.
        let newest = shared.keyframe_head.load(Ordering::Acquire);
        for seq in new_records(seen.timed_keyframe_requests, newest, KEYFRAME_RING_LENGTH) {
            // A request without a time is not an honest reader's, which counts such a request instead.
            let request = shared.keyframe_record(seq).read(seq);
            if let Some(request) = request.filter(|request| !request.is_immediate()) {
                self.keyframes
                    .add_timed(request, ReaderId { entry, generation }, report);
            }
        }
        seen.timed_keyframe_requests = newest;
        if segment.header.message_count == 0 {
            return;
        }
        // Acquire: pairs with the release store of a reader that has written a message.
        let newest = shared.message_head.load(Ordering::Acquire);
        let new = new_records(seen.messages, newest, MESSAGE_RING_LENGTH);
        let messages = new.filter_map(|seq| segment.tables.messages(entry, seq)?.read(seq));
        report.messages.extend(messages);
        seen.messages = newest;
    }
}

/// The seqs of the records after the record `seen` and up to the record `newest`, in a ring of `length` records.
/// Another process may have written `newest`.
fn new_records(seen: u64, newest: u64, length: u64) -> RangeInclusive<u64> {
    seen.saturating_add(1).max(newest.saturating_sub(length - 1))..=newest
}
