// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists of the segment's structures, with their fields, and of the constants. Other tests compare documents and other
//! implementations of the protocol with these lists.

use core::mem::offset_of;
use std::collections::BTreeMap;

use rsshm_channel::{FrameDescriptor, layout::*};

/// Offset and size of each field, by name.
pub type Fields = BTreeMap<&'static str, (usize, usize)>;

/// The size of the field to which the given function returns a reference.
fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! structure {
    ($type:ty: $($field:ident)*) => {
        (stringify!($type), size_of::<$type>(), Fields::from([$((stringify!($field), (
            offset_of!($type, $field),
            size_of_field(|value: &$type| &value.$field),
        ))),*]))
    };
    // This arm adds the private fields, which the type lists in `RESERVED`.
    ($type:ty: $($field:ident)* ; reserved) => {{
        let (name, size, mut fields) = structure!($type: $($field)*);
        fields.extend(<$type>::RESERVED.iter().map(|(field, offset, size)| (*field, (*offset, *size))));
        (name, size, fields)
    }};
}

/// Name, size and fields of each structure.
pub fn structures() -> [(&'static str, usize, Fields); 14] {
    [
        structure!(Header: magic version header_size created_ns first_seq lock_device lock_inode caps_offset caps_size
            status_offset evictions_offset readers_offset reader_stride reader_count ring_offset ring_count slot_count
            descriptors_offset slots_offset slot_size descriptor_stride history writer_pid flags events_offset
            event_stride event_count messages_offset message_stride message_count; reserved),
        structure!(Status: head eos_seqs latency_ns published state eos_count quota event_head run_head
            writer_word writer_waits joins idle socket),
        structure!(ReaderEntry: pins cursor generation state pid keyframe_requests message_head keyframe_details
            keyframe_head missed keyframes),
        structure!(KeyframeRecord: seq time details),
        structure!(EventRecord: seq words),
        structure!(EventDescriptor: after time duration kind size eos_count; reserved),
        structure!(MessageRecord: seq words),
        structure!(SlotRecord: seq tail keyframe words),
        structure!(RunRecord: pts dts duration offset offset_end size flags keyframe metadata_size; reserved),
        structure!(FrameDescriptor: pts dts duration offset offset_end data_offset size flags planes plane_offset
            plane_stride metadata_size keyframe; reserved),
        structure!(ReferenceTable: count references; reserved),
        structure!(ObjectReference: object offset size kind; reserved),
        structure!(ObjectRequest: magic device inode object),
        structure!(ObjectReply: magic object size kind status),
    ]
}

macro_rules! constants {
    ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), $name as u64)),*]) };
}

/// Name and value of each constant.
pub fn constants() -> BTreeMap<&'static str, u64> {
    constants!(VERSION MAX_READERS RING_LENGTH MAX_SLOTS MAX_CAPS_SIZE RUN_ALIGN MAX_PLANES MAX_REFERENCES MAX_QUOTA EVICTED ONLY_NEWEST DESCRIPTOR_STRIDE
        MAX_METADATA_SIZE STICKY_EVENT_COUNT EVENT_RING_LENGTH EVENT_STRIDE MAX_EVENT_SIZE MESSAGE_RING_LENGTH
        MESSAGE_STRIDE MAX_MESSAGE_SIZE KEYFRAME_RING_LENGTH HEADER DELTA_UNIT SLOT_ALIGN SLOTS_ALIGN WRITER_BYTE FIRST_READER_BYTE
        FIRST_PRESENCE_BYTE)
}
