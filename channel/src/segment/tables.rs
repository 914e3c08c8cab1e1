//! The tables of a segment: everything but the caps and the frames.

use core::{ptr::NonNull, sync::atomic::AtomicU64};

use crate::{
    protocol::layout::{
        DESCRIPTOR_STRIDE, EVENT_RING, EVENT_STRIDE, EXTRA_ROOM, EventRecord, Fixed, Live, MAIL_RING, MailRecord, RING,
        SEATS, STICKY_EVENTS, Seat, SlotHead,
    },
    sys::mapping::Mapping,
};

/// The room behind a [`SlotHead`], as words.
pub(crate) type Extra = [AtomicU64; EXTRA_ROOM / 8];

/// The control area of a segment: everything but the format string and the frames.
///
/// All places are checked once, here; an index beyond its table is folded back into it.
#[derive(Debug)]
pub(crate) struct Control {
    mapping: Mapping,
    live: NonNull<Live>,
    grants: NonNull<AtomicU64>,
    seats: NonNull<Seat>,
    ring: NonNull<AtomicU64>,
    events: NonNull<EventRecord>,
    /// `None` where the writer takes no letters.
    mail: Option<NonNull<MailRecord>>,
    slots: NonNull<u8>,
    slot_count: usize,
}

// SAFETY: the pointers lead into `mapping`, which is `Send`, to atomics.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// `None` when `fixed` names a place outside the mapping.
    pub(crate) fn new(mapping: Mapping, fixed: &Fixed) -> Option<Self> {
        let slot_count = fixed.slot_count as usize;
        let live = NonNull::from(mapping.at::<Live>(fixed.live_offset)?);
        let grants = NonNull::from(mapping.at::<AtomicU64>(fixed.grants_offset)?);
        mapping.range(fixed.grants_offset, SEATS as u64 * 8)?;
        let seats = NonNull::from(mapping.at::<Seat>(fixed.seats_offset)?);
        mapping.range(fixed.seats_offset, (SEATS * size_of::<Seat>()) as u64)?;
        let ring = NonNull::from(mapping.at::<AtomicU64>(fixed.ring_offset)?);
        mapping.range(fixed.ring_offset, RING * 8)?;
        let events = NonNull::from(mapping.at::<EventRecord>(fixed.events_offset)?);
        mapping.range(
            fixed.events_offset,
            (STICKY_EVENTS as u64 + EVENT_RING) * EVENT_STRIDE as u64,
        )?;
        let mail = match fixed.mail_count {
            0 => None,
            _ => {
                mapping.range(fixed.mail_offset, fixed.mail_size())?;
                Some(NonNull::from(mapping.at::<MailRecord>(fixed.mail_offset)?))
            }
        };
        mapping.at::<SlotHead>(fixed.descriptors_offset)?;
        let slots = mapping.range(fixed.descriptors_offset, (slot_count * DESCRIPTOR_STRIDE) as u64)?;
        (slot_count > 0).then_some(Self {
            mapping,
            live,
            grants,
            seats,
            ring,
            events,
            mail: mail.filter(|_| u64::from(fixed.mail_count) == MAIL_RING),
            slots,
            slot_count,
        })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn live(&self) -> &Live {
        // SAFETY: checked in `new`; the mapping lives as long as `self`, and `Live` is `Shared`.
        unsafe { self.live.as_ref() }
    }

    pub(crate) fn grant(&self, seat: usize) -> &AtomicU64 {
        // SAFETY: the whole table was checked in `new`, the index is below its length.
        unsafe { self.grants.add(seat % SEATS).as_ref() }
    }

    pub(crate) fn seat(&self, seat: usize) -> &Seat {
        &self.seats()[seat % SEATS]
    }

    /// All seats.
    pub(crate) fn seats(&self) -> &[Seat; SEATS] {
        // SAFETY: as in `grant`; `Seat` is `Shared`, and so is an array of them.
        unsafe { self.seats.cast::<[Seat; SEATS]>().as_ref() }
    }

    pub(crate) fn ring(&self, number: u64) -> &AtomicU64 {
        // SAFETY: as in `grant`.
        unsafe { self.ring.add((number % RING) as usize).as_ref() }
    }

    /// The place of the newest event that lasts, of the kind that has this place.
    pub(crate) fn sticky_event(&self, place: usize) -> &EventRecord {
        // SAFETY: as in `grant`.
        unsafe { self.events.add(place % STICKY_EVENTS).as_ref() }
    }

    /// The place of an event in the ring.
    pub(crate) fn event(&self, number: u64) -> &EventRecord {
        // SAFETY: as in `grant`.
        unsafe { self.events.add(STICKY_EVENTS + (number % EVENT_RING) as usize).as_ref() }
    }

    /// The place of a letter in a seat's mailbox, where there are any.
    pub(crate) fn mail(&self, seat: usize, number: u64) -> Option<&MailRecord> {
        let place = seat % SEATS * MAIL_RING as usize + (number % MAIL_RING) as usize;
        // SAFETY: as in `grant`; there are `MAIL_RING` places a seat, or none.
        self.mail.map(|mail| unsafe { mail.add(place).as_ref() })
    }

    pub(crate) fn slot(&self, slot: usize) -> &SlotHead {
        // SAFETY: as in `grant`; the first one's alignment was checked, and the stride is a multiple of it.
        unsafe {
            self.slots
                .add(slot % self.slot_count * DESCRIPTOR_STRIDE)
                .cast::<SlotHead>()
                .as_ref()
        }
    }

    pub(crate) fn extra(&self, slot: usize) -> &Extra {
        // SAFETY: as in `slot`; head and room together are one stride (`EXTRA_ROOM`), and the head's size is a multiple
        // of a word's. `Extra` is `Shared`.
        unsafe {
            self.slots
                .add(slot % self.slot_count * DESCRIPTOR_STRIDE + size_of::<SlotHead>())
                .cast::<Extra>()
                .as_ref()
        }
    }
}
