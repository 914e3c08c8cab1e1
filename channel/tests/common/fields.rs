//! Every structure of the segment with its fields, and every constant, for who holds something else to them.

use core::mem::offset_of;
use std::collections::BTreeMap;

use rsshm_channel::{FrameDescriptor, layout::*};

/// A field's name, its offset and its size.
pub type Fields = BTreeMap<&'static str, (usize, usize)>;

fn size_behind<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! structure {
    ($type:ty: $($field:ident)*) => {
        (stringify!($type), size_of::<$type>(), Fields::from([$((stringify!($field), (
            offset_of!($type, $field),
            size_behind(|value: &$type| &value.$field),
        ))),*]))
    };
}

/// Name, size and fields of each structure.
pub fn structures() -> [(&'static str, usize, Fields); 8] {
    [
        structure!(Fixed: magic version fixed_size created_ns first_number lock_device lock_inode caps_offset caps_size
            live_offset grants_offset seats_offset seat_stride seat_count ring_offset ring_count slot_count
            descriptors_offset slots_offset slot_size descriptor_stride retain writer_pid flags events_offset event_stride
            event_count mail_offset mail_stride mail_count reserved),
        structure!(Live: head eos_number latency_ns published state eos_count event_head writer_word writer_waits),
        structure!(Seat: pins position ticket state pid key_requests mail_head),
        structure!(EventRecord: number words),
        structure!(EventDescriptor: after time duration kind size eos_count reserved0 reserved),
        structure!(MailRecord: number words),
        structure!(SlotHead: number words),
        structure!(FrameDescriptor: pts dts duration offset offset_end data_offset size flags planes plane_offset
            plane_stride extra_size reserved0 reserved),
    ]
}

macro_rules! constants {
    ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), $name as u64)),*]) };
}

/// Name and value of each constant.
pub fn constants() -> BTreeMap<&'static str, u64> {
    constants!(VERSION SEATS RING MAX_SLOTS MAX_CAPS MAX_PLANES MAX_GRANT EVICTED DESCRIPTOR_STRIDE
        EXTRA_ROOM STICKY_EVENTS EVENT_RING EVENT_STRIDE EVENT_ROOM MAIL_RING MAIL_STRIDE MAIL_ROOM DELTA_UNIT
        SLOT_ALIGN SLOTS_ALIGN WRITER_BYTE FIRST_SEAT_BYTE)
}
