//! The tables of a segment: everything but the caps and the frames.

use core::{ptr::NonNull, sync::atomic::AtomicU64};

use crate::{
    protocol::layout::{
        DESCRIPTOR_STRIDE, EVENT_RING_LENGTH, EVENT_STRIDE, EventRecord, Header, MAX_METADATA_SIZE, MAX_READERS,
        MESSAGE_RING_LENGTH, MessageRecord, RING_LENGTH, ReaderEntry, STICKY_EVENT_COUNT, SlotRecord, Status,
    },
    sys::mapping::Mapping,
};

/// The room behind a [`SlotRecord`], as words.
pub(crate) type Extra = [AtomicU64; MAX_METADATA_SIZE / 8];

/// The control area of a segment: everything but the format string and the frames.
///
/// All places are checked once, here; an index beyond its table is folded back into it.
#[derive(Debug)]
pub(crate) struct SegmentTables {
    mapping: Mapping,
    status: NonNull<Status>,
    quotas: NonNull<AtomicU64>,
    readers: NonNull<ReaderEntry>,
    ring: NonNull<AtomicU64>,
    events: NonNull<EventRecord>,
    /// `None` where the writer takes no letters.
    messages: Option<NonNull<MessageRecord>>,
    slots: NonNull<u8>,
    slot_count: usize,
}

// SAFETY: the pointers lead into `mapping`, which is `Send`, to atomics.
unsafe impl Send for SegmentTables {}
// SAFETY: as above.
unsafe impl Sync for SegmentTables {}

impl SegmentTables {
    /// `None` when `header` names a place outside the mapping.
    pub(crate) fn new(mapping: Mapping, header: &Header) -> Option<Self> {
        let slot_count = header.slot_count as usize;
        let status = NonNull::from(mapping.at::<Status>(header.status_offset)?);
        let quotas = NonNull::from(mapping.at::<AtomicU64>(header.quotas_offset)?);
        mapping.range(header.quotas_offset, MAX_READERS as u64 * 8)?;
        let readers = NonNull::from(mapping.at::<ReaderEntry>(header.readers_offset)?);
        mapping.range(header.readers_offset, (MAX_READERS * size_of::<ReaderEntry>()) as u64)?;
        let ring = NonNull::from(mapping.at::<AtomicU64>(header.ring_offset)?);
        mapping.range(header.ring_offset, RING_LENGTH * 8)?;
        let events = NonNull::from(mapping.at::<EventRecord>(header.events_offset)?);
        mapping.range(
            header.events_offset,
            (STICKY_EVENT_COUNT as u64 + EVENT_RING_LENGTH) * EVENT_STRIDE as u64,
        )?;
        let messages = match header.message_count {
            0 => None,
            _ => {
                mapping.range(header.messages_offset, header.messages_size())?;
                Some(NonNull::from(mapping.at::<MessageRecord>(header.messages_offset)?))
            }
        };
        mapping.at::<SlotRecord>(header.descriptors_offset)?;
        let slots = mapping.range(header.descriptors_offset, (slot_count * DESCRIPTOR_STRIDE) as u64)?;
        (slot_count > 0).then_some(Self {
            mapping,
            status,
            quotas,
            readers,
            ring,
            events,
            messages: messages.filter(|_| u64::from(header.message_count) == MESSAGE_RING_LENGTH),
            slots,
            slot_count,
        })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn status(&self) -> &Status {
        // SAFETY: checked in `new`; the mapping lives as long as `self`, and `Status` is `Shared`.
        unsafe { self.status.as_ref() }
    }

    pub(crate) fn quota(&self, entry: usize) -> &AtomicU64 {
        // SAFETY: the whole table was checked in `new`, the index is below its length.
        unsafe { self.quotas.add(entry % MAX_READERS).as_ref() }
    }

    pub(crate) fn entry(&self, entry: usize) -> &ReaderEntry {
        &self.readers()[entry % MAX_READERS]
    }

    /// All seats.
    pub(crate) fn readers(&self) -> &[ReaderEntry; MAX_READERS] {
        // SAFETY: as in `quota`; `ReaderEntry` is `Shared`, and so is an array of them.
        unsafe { self.readers.cast::<[ReaderEntry; MAX_READERS]>().as_ref() }
    }

    pub(crate) fn ring(&self, seq: u64) -> &AtomicU64 {
        // SAFETY: as in `quota`.
        unsafe { self.ring.add((seq % RING_LENGTH) as usize).as_ref() }
    }

    /// The place of the newest event that lasts, of the kind that has this place.
    pub(crate) fn sticky_event(&self, index: usize) -> &EventRecord {
        // SAFETY: as in `quota`.
        unsafe { self.events.add(index % STICKY_EVENT_COUNT).as_ref() }
    }

    /// The place of an event in the ring.
    pub(crate) fn event(&self, seq: u64) -> &EventRecord {
        // SAFETY: as in `quota`.
        unsafe {
            self.events
                .add(STICKY_EVENT_COUNT + (seq % EVENT_RING_LENGTH) as usize)
                .as_ref()
        }
    }

    /// The place of a letter in a seat's mailbox, where there are any.
    pub(crate) fn messages(&self, entry: usize, seq: u64) -> Option<&MessageRecord> {
        let index = entry % MAX_READERS * MESSAGE_RING_LENGTH as usize + (seq % MESSAGE_RING_LENGTH) as usize;
        // SAFETY: as in `quota`; there are `MESSAGE_RING_LENGTH` places a seat, or none.
        self.messages.map(|messages| unsafe { messages.add(index).as_ref() })
    }

    pub(crate) fn slot(&self, slot: usize) -> &SlotRecord {
        // SAFETY: as in `quota`; the first one's alignment was checked, and the stride is a multiple of it.
        unsafe {
            self.slots
                .add(slot % self.slot_count * DESCRIPTOR_STRIDE)
                .cast::<SlotRecord>()
                .as_ref()
        }
    }

    pub(crate) fn metadata(&self, slot: usize) -> &Extra {
        // SAFETY: as in `slot`; head and room together are one stride (`MAX_METADATA_SIZE`), and the head's size is a multiple
        // of a word's. `Extra` is `Shared`.
        unsafe {
            self.slots
                .add(slot % self.slot_count * DESCRIPTOR_STRIDE + size_of::<SlotRecord>())
                .cast::<Extra>()
                .as_ref()
        }
    }
}
