//! What happens between frames: told once to who is there, and what lasts also to who comes later.

use std::sync::{Arc, atomic::Ordering};

use bytemuck::Zeroable;

use super::Writer;
use crate::{
    Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{EventDescriptor, MAX_EVENT_SIZE, STICKY_EVENT_COUNT, TIME_NONE},
    },
    segment::{Segment, wait::FutexWord},
};

/// Something to tell between two frames. What it means is between writer and readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// What it is.
    pub kind: u32,
    /// When it happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
    pub time: u64,
    /// How long it lasts in nanoseconds, or [`TIME_NONE`].
    pub duration: u64,
    /// What else there is to say.
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

/// The count of events, and those that last: each new segment begins with them.
#[derive(Debug, Default)]
pub(super) struct StickyEvents {
    /// Number of the newest event.
    pub(super) head: u64,
    events: [Option<StickyEvent>; STICKY_EVENT_COUNT],
}

#[derive(Debug)]
struct StickyEvent {
    seq: u64,
    descriptor: EventDescriptor,
    bytes: Box<[u8]>,
}

impl StickyEvents {
    /// The numbers go on behind `head`.
    pub(super) fn after(head: u64) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// Writes what lasts into a segment that has no name yet.
    pub(super) fn write_to(&self, segment: &Segment) {
        for (index, sticky) in self.events.iter().enumerate() {
            if let Some(sticky) = sticky {
                // The count of ends begins at 0 in each segment.
                let descriptor = EventDescriptor {
                    eos_count: 0,
                    ..sticky.descriptor
                };
                let record = segment.tables.sticky_event(index);
                record.write(sticky.seq, descriptor, &sticky.bytes);
            }
        }
    }
}

impl Writer {
    /// Tells readers of something that happens after the last frame published and before the next. With a place in
    /// `sticky` (below [`STICKY_EVENT_COUNT`]) also those that come later, until another event takes the place.
    ///
    /// While there is no segment, as no frame has been claimed yet, nobody is there to be told: then it is kept if it lasts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when its bytes do not fit into [`MAX_EVENT_SIZE`], or there is no such place.
    pub fn publish_event(&self, event: NewEvent, sticky: Option<usize>) -> Result<(), Error> {
        let NewEvent {
            kind,
            time,
            duration,
            bytes,
        } = event;
        let too_large = |what: String| Error::TooLarge {
            channel: self.name.to_string(),
            what,
        };
        if bytes.len() > MAX_EVENT_SIZE {
            let what = format!(
                "an event of {} bytes, for which there is room for {MAX_EVENT_SIZE}",
                bytes.len()
            );
            return Err(too_large(what));
        }
        if sticky.is_some_and(|index| index >= STICKY_EVENT_COUNT) {
            return Err(too_large(format!("more than {STICKY_EVENT_COUNT} events that last")));
        }
        let lock_file = Arc::clone(&self.lock().lock_file);
        let held = lock_file.acquire();
        failpoint(Failpoint::EventHolding);
        let mut state = self.lock();
        let segment = state
            .current
            .as_ref()
            .map(|current| Arc::clone(&current.segment.segment));
        if segment.is_none() && sticky.is_none() {
            return Ok(());
        }
        state.events.head += 1;
        let seq = state.events.head;
        let descriptor = EventDescriptor {
            after: state.head,
            time,
            duration,
            kind,
            size: bytes.len() as u32,
            // Relaxed: this process alone writes it, under the lock that is held here.
            eos_count: segment
                .as_ref()
                .map_or(0, |segment| segment.tables.status().eos_count.load(Ordering::Relaxed)),
            ..EventDescriptor::zeroed()
        };
        if let Some(index) = sticky {
            state.events.events[index] = Some(StickyEvent {
                seq,
                descriptor,
                bytes: bytes.into(),
            });
        }
        let Some(segment) = segment else {
            return Ok(());
        };
        if let Some(index) = sticky {
            segment.tables.sticky_event(index).write(seq, descriptor, bytes);
        }
        segment.tables.event(seq).write(seq, descriptor, bytes);
        failpoint(Failpoint::EventWritten);
        // Release: who sees the head finds the event. A frame's head, stored later, is seen with it.
        segment.tables.status().event_head.store(seq, Ordering::Release);
        drop(state);
        drop(held);
        segment.notify(FutexWord::Published);
        Ok(())
    }

    /// Forgets what lasts: another stream begins. Readers that are there have been told.
    pub fn forget_events(&self) {
        let mut state = self.lock();
        state.events.events = Default::default();
        if let Some(current) = &state.current {
            for index in 0..STICKY_EVENT_COUNT {
                current.segment.segment.tables.sticky_event(index).clear();
            }
        }
    }
}
