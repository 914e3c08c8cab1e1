// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects that a reader has received, and the parts of a frame in them.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use crate::sys::object_file::{ObjectFile, ObjectKind};

/// The memory of frames: a memfd or a dmabuf whose descriptor the writer has sent. Clones are the same object.
///
/// The reader keeps an object for later frames. The memory stays valid as long as this value lives, but its bytes
/// belong to a frame only as long as the frame is held.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsRawFd;
/// use rsshm_channel::ReceivedObject;
///
/// fn describe(object: &ReceivedObject) -> String {
///     format!("{} {} of {} bytes: descriptor {}", object.kind(), object.id(), object.size(), object.as_raw_fd())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ReceivedObject(Arc<Received>);

#[derive(Debug)]
struct Received {
    id: u64,
    file: ObjectFile,
}

impl ReceivedObject {
    pub(super) fn new(id: u64, file: ObjectFile) -> Self {
        Self(Arc::new(Received { id, file }))
    }

    /// The number of the object, which no other object of its writer has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The kind of the memory.
    pub fn kind(&self) -> ObjectKind {
        self.0.file.kind()
    }

    /// The size of the memory in bytes.
    pub fn size(&self) -> u64 {
        self.0.file.size()
    }

    pub(super) fn file(&self) -> &ObjectFile {
        &self.0.file
    }

    /// Begins access by the processor, which the returned value ends.
    pub(super) fn hold_access(&self) -> HeldAccess {
        self.file().begin_access();
        HeldAccess(self.clone())
    }
}

/// An access by the processor, until this value is dropped.
#[derive(Debug)]
pub(super) struct HeldAccess(ReceivedObject);

impl HeldAccess {
    pub(super) fn object(&self) -> &ReceivedObject {
        &self.0
    }
}

impl Drop for HeldAccess {
    fn drop(&mut self) {
        self.0.file().end_access();
    }
}

impl AsFd for ReceivedObject {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl std::os::fd::AsRawFd for ReceivedObject {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Two values are equal if they are the same object of the same segment.
impl PartialEq for ReceivedObject {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ReceivedObject {}

/// A part of a frame: some bytes of an object. The parts of a frame come one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePart {
    object: ReceivedObject,
    offset: u64,
    size: u64,
}

impl FramePart {
    /// The part; `None` if it is not inside the object.
    pub(super) fn new(object: ReceivedObject, offset: u64, size: u64) -> Option<Self> {
        let end = offset.checked_add(size)?;
        (end <= object.size()).then_some(Self { object, offset, size })
    }

    /// The object.
    pub fn object(&self) -> &ReceivedObject {
        &self.object
    }

    /// The offset of the part in the object, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The size of the part in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Whether the parts follow one another in one object.
pub(super) fn is_one_range(parts: &[FramePart]) -> bool {
    // A part ends inside its object, so the sum cannot overflow.
    let continues = |pair: &[FramePart]| match pair {
        [one, next] => one.object == next.object && one.offset + one.size == next.offset,
        _ => true,
    };
    parts.windows(2).all(continues)
}

/// Copies the parts into `target`, which has their size. An error means that the copy is not the frame.
pub(super) fn copy_parts(parts: &[FramePart], mut target: &mut [u8]) -> nix::Result<()> {
    for part in parts {
        let (now, rest) = target
            .split_at_mut_checked(part.size as usize)
            .ok_or(nix::errno::Errno::EINVAL)?;
        part.object.file().copy(part.offset, now)?;
        target = rest;
    }
    Ok(())
}
