//! What happens between frames, in the order in which it does.

use std::{collections::VecDeque, ops::RangeInclusive};

use crate::{
    protocol::layout::{EVENT_RING_LENGTH, EventDescriptor, STICKY_EVENT_COUNT},
    reader::attachment::Attachment,
};

/// Something that the writer told between two frames. What it means is between writer and readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: u32,
    /// When it happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`](crate::NONE).
    pub time: u64,
    /// How long it lasts in nanoseconds, or [`TIME_NONE`](crate::NONE).
    pub duration: u64,
    /// What else the writer said, which may be anything.
    pub bytes: Vec<u8>,
}

/// An event that is still to be given.
#[derive(Debug)]
struct PendingEvent {
    seq: u64,
    descriptor: EventDescriptor,
    bytes: Vec<u8>,
}

/// The events of one reader.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// Number of the newest event that was given, or taken into the queue.
    cursor: u64,
    /// For a newcomer all that lasts, later the next event at the most.
    pending: VecDeque<PendingEvent>,
}

impl EventQueue {
    /// The events for a reader that has just come: what lasts, and all that comes from now on.
    pub(super) fn of_newcomer(attachment: &Attachment) -> Self {
        let cursor = attachment.event_head_at_attach;
        let mut pending = sticky_among(attachment, 0..=cursor);
        for event in &mut pending {
            // They were there before the first frame that it gets.
            event.descriptor.after = 0;
        }
        Self {
            cursor,
            pending: pending.into(),
        }
    }

    /// Goes on in the segment that follows; `false` when its events are others.
    pub(super) fn follow(&mut self, attachment: &Attachment) -> bool {
        // What was to come after a frame that never came.
        self.pending.clear();
        attachment.event_head_at_attach >= self.cursor
    }

    /// Takes the next event up to the number `head` into the queue. Yields how many are gone for good.
    pub(super) fn look(&mut self, attachment: &Attachment, head: u64) -> u64 {
        // A position beyond the head can only come of a damaged head: it is given up.
        self.cursor = self.cursor.min(head);
        if !self.pending.is_empty() || self.cursor == head {
            return 0;
        }
        let mut missed = 0;
        let oldest = head.saturating_sub(EVENT_RING_LENGTH - 1).max(1);
        if self.cursor + 1 < oldest {
            // Of those that were written over there is what lasts.
            let sticky = sticky_among(attachment, self.cursor + 1..=oldest - 1);
            missed = oldest - 1 - self.cursor - sticky.len() as u64;
            self.cursor = oldest - 1;
            self.pending.extend(sticky);
        }
        while self.pending.is_empty() && self.cursor < head {
            self.cursor += 1;
            match at(attachment, self.cursor) {
                Some(event) => self.pending.push_back(event),
                None => missed += 1,
            }
        }
        missed
    }

    /// Number of the frame after which the next event comes, if there is one, and the stream had ended `ends` times at the
    /// most when it was told.
    pub(super) fn next_after(&self, ends: u32) -> Option<u64> {
        // The count may pass its largest value.
        let is_before = |event: &&PendingEvent| ends.wrapping_sub(event.descriptor.eos_count) <= u32::MAX / 2;
        self.pending
            .front()
            .filter(is_before)
            .map(|event| event.descriptor.after)
    }

    /// Gives the next event.
    pub(super) fn take(&mut self) -> Option<Event> {
        self.pending.pop_front().map(|event| Event {
            kind: event.descriptor.kind,
            time: event.descriptor.time,
            duration: event.descriptor.duration,
            bytes: event.bytes,
        })
    }
}

/// The event `seq`: where the newest are, or among those that last.
fn at(attachment: &Attachment, seq: u64) -> Option<PendingEvent> {
    let record = attachment.segment.tables.event(seq).read();
    record
        .map(pending)
        .filter(|event| event.seq == seq)
        .or_else(|| sticky(attachment).find(|event| event.seq == seq))
}

/// What lasts of the events with these numbers, in order.
fn sticky_among(attachment: &Attachment, numbers: RangeInclusive<u64>) -> Vec<PendingEvent> {
    let mut found: Vec<_> = sticky(attachment)
        .filter(|event| numbers.contains(&event.seq))
        .collect();
    found.sort_unstable_by_key(|event| event.seq);
    // Only damage gives two the same number.
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
