//! What happens between frames: told once to who is there, and what lasts also to who comes later.

use std::sync::{Arc, atomic::Ordering};

use bytemuck::Zeroable;

use super::Writer;
use crate::{
    Error,
    protocol::{
        failpoint::{At, point},
        layout::{EVENT_ROOM, EventDescriptor, NONE, STICKY_EVENTS},
    },
    segment::{Segment, wait::Word},
};

/// Something to tell between two frames. What it means is between writer and readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// What it is.
    pub kind: u32,
    /// When it happens, in CLOCK_MONOTONIC nanoseconds, or [`NONE`].
    pub time: u64,
    /// How long it lasts in nanoseconds, or [`NONE`].
    pub duration: u64,
    /// What else there is to say.
    pub bytes: &'a [u8],
}

impl Default for NewEvent<'_> {
    fn default() -> Self {
        Self {
            kind: 0,
            time: NONE,
            duration: NONE,
            bytes: &[],
        }
    }
}

/// The count of events, and those that last: each new segment begins with them.
#[derive(Debug, Default)]
pub(super) struct LastingEvents {
    /// Number of the newest event.
    pub(super) head: u64,
    places: [Option<Lasting>; STICKY_EVENTS],
}

#[derive(Debug)]
struct Lasting {
    number: u64,
    descriptor: EventDescriptor,
    bytes: Box<[u8]>,
}

impl LastingEvents {
    /// The numbers go on behind `head`.
    pub(super) fn after(head: u64) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// Writes what lasts into a segment that has no name yet.
    pub(super) fn write_to(&self, segment: &Segment) {
        for (place, lasting) in self.places.iter().enumerate() {
            if let Some(lasting) = lasting {
                // The count of ends begins at 0 in each segment.
                let descriptor = EventDescriptor {
                    eos_count: 0,
                    ..lasting.descriptor
                };
                let record = segment.control.sticky_event(place);
                record.write(lasting.number, descriptor, &lasting.bytes);
            }
        }
    }
}

impl Writer {
    /// Tells readers of something that happens after the last frame published and before the next. With a place in
    /// `lasts` (below [`STICKY_EVENTS`]) also those that come later, until another event takes the place.
    ///
    /// While there is no segment, as no frame has been claimed yet, nobody is there to be told: then it is kept if it lasts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when its bytes do not fit into [`EVENT_ROOM`], or there is no such place.
    pub fn publish_event(&self, event: NewEvent, lasts: Option<usize>) -> Result<(), Error> {
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
        if bytes.len() > EVENT_ROOM {
            let what = format!(
                "an event of {} bytes, for which there is room for {EVENT_ROOM}",
                bytes.len()
            );
            return Err(too_large(what));
        }
        if lasts.is_some_and(|place| place >= STICKY_EVENTS) {
            return Err(too_large(format!("more than {STICKY_EVENTS} events that last")));
        }
        let control = Arc::clone(&self.lock().control);
        let held = control.acquire();
        point(At::EventHolding);
        let mut state = self.lock();
        let segment = state
            .current
            .as_ref()
            .map(|current| Arc::clone(&current.segment.segment));
        if segment.is_none() && lasts.is_none() {
            return Ok(());
        }
        state.events.head += 1;
        let number = state.events.head;
        let descriptor = EventDescriptor {
            after: state.head,
            time,
            duration,
            kind,
            size: bytes.len() as u32,
            // Relaxed: this process alone writes it, under the lock that is held here.
            eos_count: segment
                .as_ref()
                .map_or(0, |segment| segment.control.live().eos_count.load(Ordering::Relaxed)),
            ..EventDescriptor::zeroed()
        };
        if let Some(place) = lasts {
            state.events.places[place] = Some(Lasting {
                number,
                descriptor,
                bytes: bytes.into(),
            });
        }
        let Some(segment) = segment else {
            return Ok(());
        };
        if let Some(place) = lasts {
            segment.control.sticky_event(place).write(number, descriptor, bytes);
        }
        segment.control.event(number).write(number, descriptor, bytes);
        point(At::EventWritten);
        // Release: who sees the head finds the event. A frame's head, stored later, is seen with it.
        segment.control.live().event_head.store(number, Ordering::Release);
        drop(state);
        drop(held);
        segment.ring_bell(Word::Published);
        Ok(())
    }

    /// Forgets what lasts: another stream begins. Readers that are there have been told.
    pub fn forget_events(&self) {
        let mut state = self.lock();
        state.events.places = Default::default();
        if let Some(current) = &state.current {
            for place in 0..STICKY_EVENTS {
                current.segment.segment.control.sticky_event(place).clear();
            }
        }
    }
}
