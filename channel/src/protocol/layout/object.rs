// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures of frames by descriptor: what is in a slot instead of the bytes of a frame, and what goes over the
//! socket of a channel.

use bytemuck::{Pod, Zeroable};

use super::size_of_field;

/// The most objects to which one frame can refer.
pub const MAX_REFERENCES: usize = 4;
/// The first bytes of an [`ObjectRequest`] and of an [`ObjectReply`].
pub const OBJECT_MAGIC: u64 = u64::from_ne_bytes(*b"rsshmobj");

/// Values of [`ObjectReference::kind`].
pub mod object_kind {
    use crate::sys::object_file::ObjectKind;

    /// A regular file in memory, such as one of memfd_create(2).
    pub const MEMFD: u32 = ObjectKind::Memfd as u32;
    /// A dmabuf, which a device can use too.
    pub const DMABUF: u32 = ObjectKind::Dmabuf as u32;
}

/// Values of [`ObjectReply::status`].
pub mod object_status {
    /// The descriptor of the object comes with the reply.
    pub const OK: u32 = 0;
    /// The request is not an [`ObjectRequest`](super::ObjectRequest).
    pub const BAD_REQUEST: u32 = 1;
    /// The segment is not one of this writer, or it is too old.
    pub const UNKNOWN_SEGMENT: u32 = 2;
    /// The writer does not have the object any more.
    pub const UNKNOWN_OBJECT: u32 = 3;
}

/// A part of a frame: some bytes of an object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ObjectReference {
    /// The id of the object, which is never 0. The ids of one writer are never used again.
    pub object: u64,
    /// The offset of the part in the object.
    pub offset: u64,
    /// The size of the part in bytes.
    pub size: u64,
    /// One of [`object_kind`].
    pub kind: u32,
    /// Zero.
    reserved: u32,
}

impl ObjectReference {
    /// The part of `size` bytes at `offset` of an object.
    pub(crate) fn new(object: u64, kind: u32, offset: u64, size: u64) -> Self {
        Self {
            object,
            offset,
            size,
            kind,
            reserved: 0,
        }
    }
}

/// The parts of a frame, one after another. In a segment with [`flags::OBJECTS`](super::flags::OBJECTS), a slot has
/// this table instead of the bytes of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReferenceTable {
    /// The number of parts, 1 to [`MAX_REFERENCES`].
    pub count: u32,
    /// Zero.
    reserved: u32,
    /// The parts. The entries behind the first `count` are not used.
    pub references: [ObjectReference; MAX_REFERENCES],
}

impl ReferenceTable {
    /// The table of these parts; `None` if there are none, or too many.
    pub(crate) fn new(parts: &[ObjectReference]) -> Option<Self> {
        let mut table = Self::zeroed();
        table.references.get_mut(..parts.len())?.copy_from_slice(parts);
        table.count = parts.len() as u32;
        (!parts.is_empty()).then_some(table)
    }

    /// The parts, if the table is valid for a frame of `frame_size` bytes: the parts have bytes, no part ends beyond
    /// the largest offset of a file, and together they have the size of the frame.
    pub fn parts(&self, frame_size: u64) -> Option<&[ObjectReference]> {
        let parts = self
            .references
            .get(..self.count as usize)
            .filter(|parts| !parts.is_empty())?;
        let mut total = 0u64;
        for part in parts {
            let end = part.offset.checked_add(part.size)?;
            let is_valid = part.object != 0
                && part.size > 0
                && end <= isize::MAX as u64
                && matches!(part.kind, object_kind::MEMFD | object_kind::DMABUF);
            if !is_valid {
                return None;
            }
            total = total.checked_add(part.size)?;
        }
        (total == frame_size).then_some(parts)
    }
}

/// What a reader sends over the socket of a channel to get the descriptor of an object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ObjectRequest {
    /// [`OBJECT_MAGIC`].
    pub magic: u64,
    /// The device number of the segment's file.
    pub device: u64,
    /// The inode number of the segment's file.
    pub inode: u64,
    /// The id of the object.
    pub object: u64,
}

/// The answer to an [`ObjectRequest`]. If the status is [`object_status::OK`], the descriptor comes with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ObjectReply {
    /// [`OBJECT_MAGIC`].
    pub magic: u64,
    /// The id of the object.
    pub object: u64,
    /// The size of the object in bytes.
    pub size: u64,
    /// One of [`object_kind`].
    pub kind: u32,
    /// One of [`object_status`].
    pub status: u32,
}

const _: () = {
    assert!(size_of::<ReferenceTable>() == 136 && size_of::<ObjectReference>() == 32);
    assert!(size_of::<ObjectRequest>() == 32 && size_of::<ObjectReply>() == 32);
};

reserved_fields!(ObjectReference: reserved);
reserved_fields!(ReferenceTable: reserved);
