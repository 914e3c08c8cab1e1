// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables of a segment: where a new header places them, and the check of a header that another process wrote.

use core::mem::size_of;

use bytemuck::Zeroable;

use super::{
    DESCRIPTOR_STRIDE, EVENT_RING_LENGTH, EVENT_STRIDE, Header, MAGIC, MAX_CAPS_SIZE, MAX_READERS, MAX_SLOTS,
    MESSAGE_RING_LENGTH, MESSAGE_STRIDE, RING_LENGTH, ReaderEntry, SLOT_ALIGN, SLOTS_ALIGN, STICKY_EVENT_COUNT, Status,
    VERSION,
};

fn align_up(value: u64, to: u64) -> Option<u64> {
    value.checked_add(to - 1).map(|value| value / to * to)
}

/// A table of a segment: its size, its alignment, and the header's field for its offset.
pub(crate) struct Table {
    /// The name of the header's field.
    field: &'static str,
    offset: fn(&Header) -> u64,
    set_offset: fn(&mut Header, u64),
    /// The size in bytes of the table that the header describes; `None` if the segment does not have this table.
    size: fn(&Header) -> Option<u64>,
    /// The required alignment. If the offset is not a multiple of this number, the segment is damaged.
    alignment: u64,
    /// The alignment of the table in a new segment.
    placement: u64,
}

macro_rules! table {
    ($field:ident, $alignment:expr, $placement:expr, $size:expr) => {
        Table {
            field: stringify!($field),
            offset: |header| header.$field,
            set_offset: |header, offset| header.$field = offset,
            size: $size,
            alignment: $alignment,
            placement: $placement,
        }
    };
}

impl Table {
    pub(crate) const STATUS: Self = table!(status_offset, 64, 64, |_| Some(size_of::<Status>() as u64));
    const CAPS: Self = table!(caps_offset, 1, 4096, |header| Some(header.caps_size));
    pub(crate) const EVICTIONS: Self = table!(evictions_offset, 8, 64, |_| Some((MAX_READERS * 8) as u64));
    pub(crate) const READERS: Self = table!(readers_offset, 64, 64, |_| Some(
        (MAX_READERS * size_of::<ReaderEntry>()) as u64
    ));
    pub(crate) const RING: Self = table!(ring_offset, 8, 64, |_| Some(RING_LENGTH * 8));
    pub(crate) const EVENTS: Self = table!(events_offset, 64, 4096, |_| Some(EVENT_COUNT * EVENT_STRIDE as u64));
    pub(crate) const MESSAGES: Self = table!(messages_offset, 64, 64, |header| (header.message_count > 0)
        .then_some(MAX_READERS as u64 * MESSAGE_RING_LENGTH * MESSAGE_STRIDE as u64));
    pub(crate) const DESCRIPTORS: Self = table!(descriptors_offset, 64, 4096, |header| Some(
        u64::from(header.slot_count) * DESCRIPTOR_STRIDE as u64
    ));

    /// The offset and the size of the table that `header` describes; `None` if the segment does not have this table.
    pub(crate) fn range(&self, header: &Header) -> Option<(u64, u64)> {
        (self.size)(header).map(|size| ((self.offset)(header), size))
    }
}

/// The number of event records of both kinds.
const EVENT_COUNT: u64 = STICKY_EVENT_COUNT as u64 + EVENT_RING_LENGTH;

impl Header {
    /// The tables before the slots, in the order in which a new segment has them.
    const TABLES: [Table; 8] = [
        Table::STATUS,
        Table::CAPS,
        Table::EVICTIONS,
        Table::READERS,
        Table::RING,
        Table::EVENTS,
        Table::MESSAGES,
        Table::DESCRIPTORS,
    ];

    /// The header of a segment for caps of `caps_size` bytes and `slot_count` slots of at least `frame_size` bytes,
    /// with message records if `accept_messages` is set. `None` if a number is out of bounds.
    pub fn new(caps_size: usize, slot_count: u32, frame_size: u64, accept_messages: bool) -> Option<Self> {
        if caps_size > MAX_CAPS_SIZE || !(1..=MAX_SLOTS as u32).contains(&slot_count) {
            return None;
        }
        let mut header = Self {
            magic: MAGIC,
            version: VERSION,
            header_size: size_of::<Self>() as u32,
            caps_size: caps_size as u64,
            reader_stride: size_of::<ReaderEntry>() as u32,
            reader_count: MAX_READERS as u32,
            ring_count: RING_LENGTH as u32,
            event_stride: EVENT_STRIDE as u32,
            event_count: EVENT_COUNT as u32,
            message_stride: MESSAGE_STRIDE as u32,
            message_count: if accept_messages { MESSAGE_RING_LENGTH as u32 } else { 0 },
            slot_count,
            descriptor_stride: DESCRIPTOR_STRIDE as u32,
            slot_size: align_up(frame_size.max(1), SLOT_ALIGN)?,
            ..Self::zeroed()
        };
        let mut end = size_of::<Self>() as u64;
        for table in Self::TABLES {
            let offset = align_up(end, table.placement)?;
            (table.set_offset)(&mut header, offset);
            end = offset + (table.size)(&header).unwrap_or(0);
        }
        header.slots_offset = align_up(end, SLOTS_ALIGN)?;
        header.total_size().is_some().then_some(header)
    }

    /// The size in bytes of the file with all its slots; `None` if no file or mapping can have that size.
    pub fn total_size(&self) -> Option<u64> {
        u64::from(self.slot_count)
            .checked_mul(self.slot_size)?
            .checked_add(self.slots_offset)
            .filter(|total| *total <= isize::MAX as u64)
    }

    /// The parts of a new segment's tables that have memory, as offsets and sizes: everything except the ring of
    /// events, and the descriptors after those of the first `slots` slots.
    pub(crate) fn initial_tables(&self, slots: u32) -> impl Iterator<Item = (u64, u64)> {
        let ring_of_events = self.events_offset + (STICKY_EVENT_COUNT * EVENT_STRIDE) as u64;
        let descriptors = (self.descriptors_offset, u64::from(slots) * DESCRIPTOR_STRIDE as u64);
        [(0, ring_of_events), descriptors]
            .into_iter()
            .chain(Table::MESSAGES.range(self))
    }

    /// The offset in the file of the record of the event `seq` in the ring of events.
    pub(crate) fn event_offset(&self, seq: u64) -> u64 {
        self.events_offset + (STICKY_EVENT_COUNT as u64 + seq % EVENT_RING_LENGTH) * EVENT_STRIDE as u64
    }

    /// Checks a header that another process wrote, in a file of `file_size` bytes. If the check succeeds, every table
    /// is aligned, inside the file, and before the slots.
    ///
    /// # Errors
    /// A text that names the field and its value.
    pub fn check(&self, file_size: u64) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err(format!(
                "it begins with {:#018x}, which is not a segment of rsshm",
                self.magic
            ));
        }
        if self.version != VERSION {
            return Err(format!(
                "its version is {}, but this program supports version {VERSION}",
                self.version
            ));
        }
        self.check_constants()?;
        self.check_sizes(file_size)?;
        self.check_tables()
    }

    /// Checks the fields that can have only one value in this version.
    fn check_constants(&self) -> Result<(), String> {
        let constants = [
            ("header_size", self.header_size, size_of::<Self>()),
            ("reader_stride", self.reader_stride, size_of::<ReaderEntry>()),
            ("reader_count", self.reader_count, MAX_READERS),
            ("ring_count", self.ring_count, RING_LENGTH as usize),
            ("event_stride", self.event_stride, EVENT_STRIDE),
            ("event_count", self.event_count, EVENT_COUNT as usize),
            ("message_stride", self.message_stride, MESSAGE_STRIDE),
            ("descriptor_stride", self.descriptor_stride, DESCRIPTOR_STRIDE),
        ];
        for (field, value, expected) in constants {
            if value as usize != expected {
                return Err(format!("its {field} is {value}, version {VERSION} has {expected}"));
            }
        }
        Ok(())
    }

    /// Checks the fields whose values must be in a range.
    fn check_sizes(&self, file_size: u64) -> Result<(), String> {
        if ![0, MESSAGE_RING_LENGTH].contains(&u64::from(self.message_count)) {
            return Err(format!(
                "its message_count is {}, not 0 or {MESSAGE_RING_LENGTH}",
                self.message_count
            ));
        }
        if !(1..=MAX_SLOTS as u32).contains(&self.slot_count) {
            return Err(format!("its slot_count is {}, not 1 to {MAX_SLOTS}", self.slot_count));
        }
        if self.slot_size == 0 || self.slot_size % SLOT_ALIGN != 0 || self.total_size().is_none() {
            return Err(format!("its slot_size is {}", self.slot_size));
        }
        if self.caps_size > MAX_CAPS_SIZE as u64 {
            return Err(format!(
                "its caps_size is {}, at most {MAX_CAPS_SIZE} is allowed",
                self.caps_size
            ));
        }
        if self.slots_offset % SLOTS_ALIGN != 0 || self.slots_offset > file_size {
            return Err(format!(
                "its slots_offset is {} in a file of {file_size} bytes",
                self.slots_offset
            ));
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), String> {
        for table in &Self::TABLES {
            let Some((offset, size)) = table.range(self) else {
                continue;
            };
            let is_inside = offset.checked_add(size).is_some_and(|end| end <= self.slots_offset);
            if !is_inside || offset % table.alignment != 0 || offset < size_of::<Self>() as u64 {
                return Err(format!("its {} is {offset}", table.field));
            }
        }
        Ok(())
    }
}
