// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events between frames, in order.

use std::{collections::VecDeque, ops::RangeInclusive};

use super::attachment::Attachment;
use crate::protocol::layout::{EVENT_RING_LENGTH, EventDescriptor, EventRecord, STICKY_EVENT_COUNT, TIME_NONE};

/// An event that the writer published between two frames. The channel does not interpret it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The kind of the event.
    pub kind: u32,
    /// When the event happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`](crate::TIME_NONE).
    pub time: u64,
    /// How long the event lasts in nanoseconds, or [`TIME_NONE`](crate::TIME_NONE).
    pub duration: u64,
    /// The bytes that the writer added.
    pub bytes: Vec<u8>,
}

impl Event {
    /// An event without a time and a duration, for tests of code that handles events.
    #[must_use]
    pub fn new(kind: u32, bytes: Vec<u8>) -> Self {
        Self {
            kind,
            time: TIME_NONE,
            duration: TIME_NONE,
            bytes,
        }
    }
}

/// An event that was loaded but not delivered yet.
#[derive(Debug)]
struct PendingEvent {
    seq: u64,
    descriptor: EventDescriptor,
    bytes: Vec<u8>,
}

/// The events that one reader has not received yet.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// The seq of the newest event that was delivered or is pending.
    cursor: u64,
    /// The loaded events. For a newcomer, these are the sticky events; later, the next event, or sticky events that
    /// were overwritten in the ring.
    pending: VecDeque<PendingEvent>,
}

impl EventQueue {
    /// The events for a newcomer: the sticky events, and all events that the writer publishes from now on.
    pub(super) fn of_newcomer(attachment: &Attachment) -> Self {
        let cursor = attachment.initial.event_head;
        let mut pending = sticky_among(attachment, 0..=cursor);
        for event in &mut pending {
            // A newcomer receives the sticky events before its first frame.
            event.descriptor.after = 0;
        }
        Self {
            cursor,
            pending: pending.into(),
        }
    }

    /// Continues in the next segment. Returns `false` if the events of that segment do not continue those of the former
    /// segment.
    pub(super) fn follow(&mut self, attachment: &Attachment) -> bool {
        // A pending event belongs after a frame that was never published, so it is dropped.
        self.pending.clear();
        attachment.initial.event_head >= self.cursor
    }

    /// Loads the next event whose seq is at most `head`. Returns how many events were overwritten.
    #[inline]
    pub(super) fn load_next(&mut self, attachment: &Attachment, head: u64) -> u64 {
        // The cursor is beyond the head only if a damaged head has moved it there.
        self.cursor = self.cursor.min(head);
        if !self.pending.is_empty() || self.cursor == head {
            return 0;
        }
        let mut missed = 0;
        let oldest = head.saturating_sub(EVENT_RING_LENGTH - 1).max(1);
        if self.cursor + 1 < oldest {
            // Each sticky event also has a record outside the ring. An overwritten event that is sticky is read from
            // that record.
            let sticky = sticky_among(attachment, self.cursor + 1..=oldest - 1);
            missed = oldest - 1 - self.cursor - sticky.len() as u64;
            self.cursor = oldest - 1;
            self.pending.extend(sticky);
        }
        while self.pending.is_empty() && self.cursor < head {
            self.cursor += 1;
            match find(attachment, self.cursor) {
                Some(event) => self.pending.push_back(event),
                None => missed += 1,
            }
        }
        missed
    }

    /// The seq of the frame after which the next event comes. `None` if there is no event, or if the stream had ended
    /// more than `eos_count` times when the event was published.
    #[inline]
    pub(super) fn next_after(&self, eos_count: u32) -> Option<u64> {
        // The count may wrap around.
        let is_before = |event: &&PendingEvent| eos_count.wrapping_sub(event.descriptor.eos_count) <= u32::MAX / 2;
        self.pending
            .front()
            .filter(is_before)
            .map(|event| event.descriptor.after)
    }

    /// Delivers the next event.
    pub(super) fn take(&mut self) -> Option<Event> {
        self.pending.pop_front().map(|event| Event {
            kind: event.descriptor.kind,
            time: event.descriptor.time,
            duration: event.descriptor.duration,
            bytes: event.bytes,
        })
    }
}

/// The event `seq`, in the ring or among the sticky events.
fn find(attachment: &Attachment, seq: u64) -> Option<PendingEvent> {
    let record = attachment.segment.event(seq);
    record
        .and_then(EventRecord::read)
        .map(pending)
        .filter(|event| event.seq == seq)
        .or_else(|| sticky(attachment).find(|event| event.seq == seq))
}

/// The sticky events whose seqs are in `seqs`, in the order of their seqs.
fn sticky_among(attachment: &Attachment, seqs: RangeInclusive<u64>) -> Vec<PendingEvent> {
    let mut found: Vec<_> = sticky(attachment).filter(|event| seqs.contains(&event.seq)).collect();
    found.sort_unstable_by_key(|event| event.seq);
    // Two sticky records have equal seqs only if they are damaged.
    found.dedup_by_key(|event| event.seq);
    found
}

fn sticky(attachment: &Attachment) -> impl Iterator<Item = PendingEvent> {
    (0..STICKY_EVENT_COUNT)
        .filter_map(|index| attachment.segment.tables.sticky_event(index).read())
        .map(pending)
}

fn pending((seq, descriptor, bytes): (u64, EventDescriptor, Vec<u8>)) -> PendingEvent {
    PendingEvent { seq, descriptor, bytes }
}
