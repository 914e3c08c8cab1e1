// SPDX-License-Identifier: MIT OR Apache-2.0

//! A frame of objects in place: its slot is pinned, so its bytes do not change.

use std::ops::Deref;

use super::{
    pinned::PinnedFrame,
    received_object::{FramePart, copy_parts},
};
use crate::{Error, sys::object_file::Access};

/// A frame in the memory of objects. The bytes do not change until this value is dropped, unless the writer evicts the
/// reader or closes the channel.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{Error, Frame, FrameData};
///
/// /// The sum of all bytes of a frame, which stays where the camera has written it.
/// fn sum(frame: &Frame, copy: &[u8]) -> Result<u64, Error> {
///     let mut sum = 0;
///     match &frame.data {
///         FrameData::Objects(objects) => {
///             for index in 0..objects.parts().len() {
///                 sum += objects.map(index)?.iter().map(|byte| u64::from(*byte)).sum::<u64>();
///             }
///         }
///         _ => sum += frame.bytes(copy).iter().map(|byte| u64::from(*byte)).sum::<u64>(),
///     }
///     Ok(sum)
/// }
/// ```
#[derive(Debug)]
pub struct ObjectFrame {
    parts: Vec<FramePart>,
    pinned: PinnedFrame,
}

impl ObjectFrame {
    /// The frame in a pinned slot.
    pub(super) fn new(pinned: PinnedFrame, parts: Vec<FramePart>) -> Self {
        Self { parts, pinned }
    }

    /// The parts of the frame, one after another. The planes of the frame's descriptor are counted from the first byte of
    /// the first part.
    pub fn parts(&self) -> &[FramePart] {
        &self.parts
    }

    /// The bytes of the part `index` for the processor. The memory is mapped once. While the returned value lives, a
    /// dmabuf is ready for access by the processor; devices need no such call.
    ///
    /// # Errors
    /// [`Error::Object`] if there is no such part, or if its memory cannot be mapped.
    pub fn map(&self, index: usize) -> Result<MappedPart<'_>, Error> {
        let error = |what: String| Error::Object {
            channel: self.pinned.channel().to_owned(),
            what,
        };
        let part = self
            .parts
            .get(index)
            .ok_or_else(|| error(format!("the frame has {} parts, not {}", self.parts.len(), index + 1)))?;
        let file = part.object().file();
        let access = file.begin_access();
        // SAFETY: the slot is pinned as long as `self` lives, so a writer that obeys the protocol neither shortens the
        // memory nor changes the bytes. Only a reader with an entry has this value, and such a reader trusts the writer.
        let bytes = unsafe { file.bytes(part.offset(), part.size()) };
        let bytes = bytes.map_err(|errno| error(format!("the memory of a frame cannot be mapped: {errno}")))?;
        Ok(MappedPart { bytes, _access: access })
    }

    /// Copies the frame. `target` has the size of the frame.
    ///
    /// # Errors
    /// [`Error::Object`] if the size is another, or if the memory cannot be read.
    pub fn copy(&self, target: &mut [u8]) -> Result<(), Error> {
        copy_parts(&self.parts, target).map_err(|errno| Error::Object {
            channel: self.pinned.channel().to_owned(),
            what: format!("the memory of a frame cannot be read: {errno}"),
        })
    }
}

/// The bytes of a part of a frame, as the processor sees them. [`ObjectFrame::map`] returns it.
#[derive(Debug)]
pub struct MappedPart<'a> {
    bytes: &'a [u8],
    _access: Access<'a>,
}

impl Deref for MappedPart<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}
