// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events that a writer publishes between two frames. Sticky events also reach readers that join later.

use std::sync::atomic::Ordering;

use bytemuck::Zeroable;

use crate::{
    Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{EventDescriptor, MAX_EVENT_SIZE, STICKY_EVENT_COUNT, TIME_NONE},
    },
    segment::Segment,
};

/// An event between two frames. The channel does not interpret it.
///
/// # Examples
/// ```
/// use rsshm_channel::{NewEvent, TIME_NONE, monotonic_ns};
///
/// let event = NewEvent::new(7, b"the lamp is on").with_time(monotonic_ns());
/// assert_eq!((event.kind, event.duration), (7, TIME_NONE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent<'a> {
    /// The kind of the event. The writer and its readers agree on the meaning.
    pub kind: u32,
    /// When the event happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
    pub time: u64,
    /// How long the event lasts in nanoseconds, or [`TIME_NONE`].
    pub duration: u64,
    /// Further data of the event.
    pub bytes: &'a [u8],
}

impl Default for NewEvent<'_> {
    fn default() -> Self {
        Self {
            kind: 0,
            time: TIME_NONE,
            duration: TIME_NONE,
            bytes: &[],
        }
    }
}

impl<'a> NewEvent<'a> {
    /// An event with this kind and these bytes. It has no time and no duration.
    #[must_use]
    pub fn new(kind: u32, bytes: &'a [u8]) -> Self {
        Self {
            kind,
            bytes,
            ..Self::default()
        }
    }

    /// Sets when the event happens, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn with_time(mut self, time: u64) -> Self {
        self.time = time;
        self
    }

    /// Sets how long the event lasts, in nanoseconds.
    #[must_use]
    pub fn with_duration(mut self, duration: u64) -> Self {
        self.duration = duration;
        self
    }

    /// Checks that the event's size and its place among the sticky events are within the limits.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(super) fn check(&self, channel: &str, sticky: Option<usize>) -> Result<(), Error> {
        let what = if self.bytes.len() > MAX_EVENT_SIZE {
            format!("an event has {} bytes (limit {MAX_EVENT_SIZE})", self.bytes.len())
        } else if let Some(index) = sticky.filter(|index| *index >= STICKY_EVENT_COUNT) {
            format!("there is no place {index} for a sticky event (limit {STICKY_EVENT_COUNT})")
        } else {
            return Ok(());
        };
        Err(Error::TooLarge {
            channel: channel.to_owned(),
            what,
        })
    }
}

/// The seq of the newest event, and the sticky events. Each new segment begins with these values.
#[derive(Debug)]
pub(super) struct EventLog {
    head: u64,
    sticky: [Option<StickyEvent>; STICKY_EVENT_COUNT],
}

#[derive(Debug)]
struct StickyEvent {
    seq: u64,
    descriptor: EventDescriptor,
    bytes: Box<[u8]>,
}

impl EventLog {
    /// A log whose first event has the seq after `head`.
    pub(super) fn after(head: u64) -> Self {
        Self {
            head,
            sticky: Default::default(),
        }
    }

    /// The seq of the newest event.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Gives an event its seq, and keeps the event if it is sticky. In `segment`, the event comes after the frame
    /// `after`. [`NewEvent::check`] has accepted the event.
    pub(super) fn record(
        &mut self,
        event: &NewEvent,
        sticky: Option<usize>,
        after: u64,
        segment: Option<&Segment>,
    ) -> (u64, EventDescriptor) {
        self.head += 1;
        let descriptor = EventDescriptor {
            after,
            time: event.time,
            duration: event.duration,
            kind: event.kind,
            size: event.bytes.len() as u32,
            // Relaxed: only this writer stores the count, under the lock of its state, which is held here.
            eos_count: segment.map_or(0, |segment| segment.tables.status().eos_count.load(Ordering::Relaxed)),
            ..EventDescriptor::zeroed()
        };
        if let Some(index) = sticky {
            self.sticky[index] = Some(StickyEvent {
                seq: self.head,
                descriptor,
                bytes: event.bytes.into(),
            });
        }
        (self.head, descriptor)
    }

    /// Writes the sticky events into a segment that has no name yet.
    pub(super) fn write_sticky_to(&self, segment: &Segment) {
        for (index, sticky) in self.sticky.iter().enumerate() {
            if let Some(sticky) = sticky {
                // In each segment, the count of ends of the stream begins at 0.
                let descriptor = EventDescriptor {
                    eos_count: 0,
                    ..sticky.descriptor
                };
                segment
                    .tables
                    .sticky_event(index)
                    .write(sticky.seq, descriptor, &sticky.bytes);
            }
        }
    }

    /// Forgets the sticky events, here and in the current segment.
    pub(super) fn forget_sticky(&mut self, segment: Option<&Segment>) {
        self.sticky = Default::default();
        if let Some(segment) = segment {
            for index in 0..STICKY_EVENT_COUNT {
                segment.tables.sticky_event(index).clear();
            }
        }
    }
}

/// Writes an event into a segment, and then stores its seq as the head of events.
pub(super) fn store(segment: &Segment, seq: u64, descriptor: EventDescriptor, bytes: &[u8], sticky: Option<usize>) {
    if let Some(index) = sticky {
        segment.tables.sticky_event(index).write(seq, descriptor, bytes);
    }
    // Without memory for its record, readers lose the event, unless it is sticky.
    if let Some(record) = segment.commit_event(seq) {
        record.write(seq, descriptor, bytes);
    }
    failpoint(Failpoint::EventWritten);
    segment.tables.status().publish_event_head(seq);
}
