// SPDX-License-Identifier: MIT OR Apache-2.0

//! Typed access to the tables of a segment.

use core::{ptr::NonNull, sync::atomic::AtomicU64};

use crate::{
    protocol::layout::{
        DESCRIPTOR_STRIDE, EVENT_RING_LENGTH, EventRecord, Header, MAX_METADATA_SIZE, MAX_READERS, MESSAGE_RING_LENGTH,
        MessageRecord, RING_LENGTH, ReaderEntry, STICKY_EVENT_COUNT, SlotRecord, Status, Table,
    },
    sys::mapping::{Mapping, Shared},
};

/// The metadata of a slot, which follows its [`SlotRecord`], as words.
pub(crate) type MetadataWords = [AtomicU64; MAX_METADATA_SIZE / 8];

/// The tables of a segment: everything before the slots, except the caps.
///
/// Offsets and sizes are checked once, in [`new`](Self::new), and the pointers stay valid because this value owns the
/// mapping. An index beyond the end of a table wraps around, so that no value from another process can lead outside the
/// table.
#[derive(Debug)]
pub(crate) struct SegmentTables {
    mapping: Mapping,
    status: NonNull<Status>,
    evictions: NonNull<AtomicU64>,
    readers: NonNull<ReaderEntry>,
    ring: NonNull<AtomicU64>,
    events: NonNull<EventRecord>,
    /// `None` if the writer accepts no messages.
    messages: Option<NonNull<MessageRecord>>,
    descriptors: NonNull<SlotRecord>,
    slot_count: usize,
}

// SAFETY: the pointers point into `mapping`, which is `Send` and moves with them. The address of the mapped bytes does
// not change.
unsafe impl Send for SegmentTables {}
// SAFETY: a shared reference gives access to atomics only, which threads may use at the same time.
unsafe impl Sync for SegmentTables {}

impl SegmentTables {
    /// The tables that `header` describes; `None` if one of them is outside the mapping or not aligned.
    pub(crate) fn new(mapping: Mapping, header: &Header) -> Option<Self> {
        let slot_count = header.slot_count as usize;
        let has_messages = header.message_count > 0;
        (slot_count > 0).then_some(())?;
        Some(Self {
            status: address_of(&mapping, header, &Table::STATUS)?,
            evictions: address_of(&mapping, header, &Table::EVICTIONS)?,
            readers: address_of(&mapping, header, &Table::READERS)?,
            ring: address_of(&mapping, header, &Table::RING)?,
            events: address_of(&mapping, header, &Table::EVENTS)?,
            messages: match has_messages {
                true => Some(address_of(&mapping, header, &Table::MESSAGES)?),
                false => None,
            },
            descriptors: address_of(&mapping, header, &Table::DESCRIPTORS)?,
            slot_count,
            mapping,
        })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn status(&self) -> &Status {
        // SAFETY: `address_of` checked bounds and alignment; the mapping lives as long as `self`, and `Status` is
        // `Shared`.
        unsafe { self.status.as_ref() }
    }

    /// The eviction word of `entry`.
    pub(crate) fn eviction(&self, entry: usize) -> &AtomicU64 {
        // SAFETY: `address_of` checked the whole table, which has `MAX_READERS` words, and the index is below this
        // number. The mapping lives as long as `self`.
        unsafe { self.evictions.add(entry % MAX_READERS).as_ref() }
    }

    pub(crate) fn entry(&self, entry: usize) -> &ReaderEntry {
        &self.readers()[entry % MAX_READERS]
    }

    /// The reader table.
    pub(crate) fn readers(&self) -> &[ReaderEntry; MAX_READERS] {
        // SAFETY: `address_of` checked the whole table, which has `MAX_READERS` entries. `ReaderEntry` is `Shared`, and
        // so is an array of such entries.
        unsafe { self.readers.cast::<[ReaderEntry; MAX_READERS]>().as_ref() }
    }

    /// The entry of the ring for the frame `seq`.
    pub(crate) fn ring(&self, seq: u64) -> &AtomicU64 {
        // SAFETY: `address_of` checked the whole table, which has `RING_LENGTH` words, and the index is below this
        // number. The mapping lives as long as `self`.
        unsafe { self.ring.add((seq % RING_LENGTH) as usize).as_ref() }
    }

    /// The record of a sticky event.
    pub(crate) fn sticky_event(&self, index: usize) -> &EventRecord {
        // SAFETY: `address_of` checked the whole table, which starts with `STICKY_EVENT_COUNT` records, and the index
        // is below this number. `EventRecord` is `Shared`.
        unsafe { self.events.add(index % STICKY_EVENT_COUNT).as_ref() }
    }

    /// The record of the event `seq` in the ring of events.
    pub(crate) fn event(&self, seq: u64) -> &EventRecord {
        let index = STICKY_EVENT_COUNT + (seq % EVENT_RING_LENGTH) as usize;
        // SAFETY: `address_of` checked the whole table, which has `STICKY_EVENT_COUNT + EVENT_RING_LENGTH` records, and
        // the index is below this number. `EventRecord` is `Shared`.
        unsafe { self.events.add(index).as_ref() }
    }

    /// The record of the message `seq` of a reader entry; `None` if the writer accepts no messages.
    pub(crate) fn messages(&self, entry: usize, seq: u64) -> Option<&MessageRecord> {
        let index = entry % MAX_READERS * MESSAGE_RING_LENGTH as usize + (seq % MESSAGE_RING_LENGTH) as usize;
        // SAFETY: `address_of` checked the whole table, which has `MESSAGE_RING_LENGTH` records for each of
        // `MAX_READERS` entries, and the index is below this number. `MessageRecord` is `Shared`.
        self.messages.map(|messages| unsafe { messages.add(index).as_ref() })
    }

    /// The record of a slot.
    pub(crate) fn slot(&self, slot: usize) -> &SlotRecord {
        // SAFETY: `slot_record` is inside the table and aligned, and `SlotRecord` is `Shared`.
        unsafe { self.slot_record(slot).as_ref() }
    }

    /// The metadata of the frame in a slot.
    pub(crate) fn metadata(&self, slot: usize) -> &MetadataWords {
        // SAFETY: the record and the metadata together have the size of one stride (see `MAX_METADATA_SIZE`), so the
        // metadata is inside the table. It is aligned, because the record's size is a multiple of a word's size. An
        // array of atomics is `Shared`.
        unsafe { self.slot_record(slot).add(1).cast::<MetadataWords>().as_ref() }
    }

    fn slot_record(&self, slot: usize) -> NonNull<SlotRecord> {
        // SAFETY: `address_of` checked the whole table, which is `slot_count` strides long, and the index is below
        // `slot_count`. The stride is a multiple of the record's alignment.
        unsafe { self.descriptors.byte_add(slot % self.slot_count * DESCRIPTOR_STRIDE) }
    }
}

/// The address of a table's first record; `None` if the table is not entirely inside the mapping, or not aligned.
fn address_of<T: Shared>(mapping: &Mapping, header: &Header, table: &Table) -> Option<NonNull<T>> {
    let (offset, size) = table.range(header)?;
    let start = mapping.range(offset, size)?.cast::<T>();
    start.is_aligned().then_some(start)
}
