//! What happens between frames, in the order in which it does.

use std::{collections::VecDeque, ops::RangeInclusive};

use crate::{
    protocol::layout::{EVENT_RING, EventDescriptor, STICKY_EVENTS},
    reader::attachment::Attachment,
};

/// Something that the writer told between two frames. What it means is between writer and readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: u32,
    /// When it happens, in CLOCK_MONOTONIC nanoseconds, or [`NONE`](crate::NONE).
    pub time: u64,
    /// How long it lasts in nanoseconds, or [`NONE`](crate::NONE).
    pub duration: u64,
    /// What else the writer said, which may be anything.
    pub bytes: Vec<u8>,
}

/// An event that is still to be given.
#[derive(Debug)]
struct Waiting {
    number: u64,
    descriptor: EventDescriptor,
    bytes: Vec<u8>,
}

/// The events of one reader.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// Number of the newest event that was given, or taken into the queue.
    position: u64,
    /// For a newcomer all that lasts, later the next event at the most.
    waiting: VecDeque<Waiting>,
}

impl EventQueue {
    /// The events for a reader that has just come: what lasts, and all that comes from now on.
    pub(super) fn of_newcomer(attachment: &Attachment) -> Self {
        let position = attachment.events_then;
        let mut waiting = lasting_among(attachment, 0..=position);
        for event in &mut waiting {
            // They were there before the first frame that it gets.
            event.descriptor.after = 0;
        }
        Self {
            position,
            waiting: waiting.into(),
        }
    }

    /// Goes on in the segment that follows; `false` when its events are others.
    pub(super) fn follow(&mut self, attachment: &Attachment) -> bool {
        // What was to come after a frame that never came.
        self.waiting.clear();
        attachment.events_then >= self.position
    }

    /// Takes the next event up to the number `head` into the queue. Yields how many are gone for good.
    pub(super) fn look(&mut self, attachment: &Attachment, head: u64) -> u64 {
        // A position beyond the head can only come of a damaged head: it is given up.
        self.position = self.position.min(head);
        if !self.waiting.is_empty() || self.position == head {
            return 0;
        }
        let mut missed = 0;
        let oldest = head.saturating_sub(EVENT_RING - 1).max(1);
        if self.position + 1 < oldest {
            // Of those that were written over there is what lasts.
            let lasting = lasting_among(attachment, self.position + 1..=oldest - 1);
            missed = oldest - 1 - self.position - lasting.len() as u64;
            self.position = oldest - 1;
            self.waiting.extend(lasting);
        }
        while self.waiting.is_empty() && self.position < head {
            self.position += 1;
            match at(attachment, self.position) {
                Some(event) => self.waiting.push_back(event),
                None => missed += 1,
            }
        }
        missed
    }

    /// Number of the frame after which the next event comes, if there is one, and the stream had ended `ends` times at the
    /// most when it was told.
    pub(super) fn next_after(&self, ends: u32) -> Option<u64> {
        // The count may pass its largest value.
        let is_before = |event: &&Waiting| ends.wrapping_sub(event.descriptor.eos_count) <= u32::MAX / 2;
        self.waiting
            .front()
            .filter(is_before)
            .map(|event| event.descriptor.after)
    }

    /// Gives the next event.
    pub(super) fn take(&mut self) -> Option<Event> {
        self.waiting.pop_front().map(|event| Event {
            kind: event.descriptor.kind,
            time: event.descriptor.time,
            duration: event.descriptor.duration,
            bytes: event.bytes,
        })
    }
}

/// The event `number`: where the newest are, or among those that last.
fn at(attachment: &Attachment, number: u64) -> Option<Waiting> {
    let record = attachment.segment.control.event(number).read();
    record
        .map(waiting)
        .filter(|event| event.number == number)
        .or_else(|| lasting(attachment).find(|event| event.number == number))
}

/// What lasts of the events with these numbers, in order.
fn lasting_among(attachment: &Attachment, numbers: RangeInclusive<u64>) -> Vec<Waiting> {
    let mut found: Vec<_> = lasting(attachment)
        .filter(|event| numbers.contains(&event.number))
        .collect();
    found.sort_unstable_by_key(|event| event.number);
    // Only damage gives two the same number.
    found.dedup_by_key(|event| event.number);
    found
}

fn lasting(attachment: &Attachment) -> impl Iterator<Item = Waiting> {
    (0..STICKY_EVENTS)
        .filter_map(|place| attachment.segment.control.sticky_event(place).read())
        .map(waiting)
}

fn waiting((number, descriptor, bytes): (u64, EventDescriptor, Vec<u8>)) -> Waiting {
    Waiting {
        number,
        descriptor,
        bytes,
    }
}
