// SPDX-License-Identifier: MIT OR Apache-2.0

//! A frame of objects in place: its slot is pinned, so its bytes do not change.

use std::sync::OnceLock;

use nix::errno::Errno;

use super::{
    pinned::PinnedFrame,
    received_object::{FramePart, HeldAccess, copy_parts, is_one_range},
};
use crate::Error;

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
    /// The access of the processor, from the first call that returns bytes until the frame is dropped. It comes before
    /// the pin, so that it ends first.
    access: OnceLock<Vec<HeldAccess>>,
    parts: Vec<FramePart>,
    pinned: PinnedFrame,
}

impl ObjectFrame {
    /// The frame in a pinned slot.
    pub(super) fn new(pinned: PinnedFrame, parts: Vec<FramePart>) -> Self {
        Self {
            access: OnceLock::new(),
            parts,
            pinned,
        }
    }

    /// The parts of the frame, one after another. The planes of the frame's descriptor are counted from the first byte
    /// of the first part.
    pub fn parts(&self) -> &[FramePart] {
        &self.parts
    }

    /// The bytes of the part `index` for the processor. The memory is mapped once. From the first call until this value
    /// is dropped, the dmabufs of the frame are ready for access by the processor; devices need no such call.
    ///
    /// # Errors
    /// [`Error::Object`] if there is no such part, or if its memory cannot be mapped.
    pub fn map(&self, index: usize) -> Result<&[u8], Error> {
        match self.parts.get(index) {
            Some(part) => self.bytes_of(part, part.size()),
            None => Err(self.error(format!("the frame has {} parts, not {}", self.parts.len(), index + 1))),
        }
    }

    /// The bytes of the whole frame for the processor, like [`map`](Self::map). `None` if the parts do not follow one
    /// another in one object.
    ///
    /// # Errors
    /// [`Error::Object`] if the memory cannot be mapped.
    pub fn bytes(&self) -> Result<Option<&[u8]>, Error> {
        let Some(first) = self.parts.first().filter(|_| is_one_range(&self.parts)) else {
            return Ok(None);
        };
        let size = self.parts.iter().map(FramePart::size).sum();
        self.bytes_of(first, size).map(Some)
    }

    /// `size` bytes from the beginning of a part on.
    fn bytes_of(&self, part: &FramePart, size: u64) -> Result<&[u8], Error> {
        let held = || self.parts.iter().map(|part| part.object().hold_access()).collect();
        let access = self.access.get_or_init(held);
        let is_held = |held: &&HeldAccess| held.object() == part.object();
        let Some(held) = access.iter().find(is_held) else {
            return Err(self.unmappable(part, Errno::EINVAL));
        };
        // SAFETY: the slot is pinned as long as `self` lives, so a writer that obeys the protocol neither shortens the
        // memory nor changes the bytes. Only a reader with an entry has this value, and such a reader trusts the
        // writer.
        let bytes = unsafe { held.object().file().bytes(part.offset(), size) };
        bytes.map_err(|errno| self.unmappable(part, errno))
    }

    fn unmappable(&self, part: &FramePart, errno: Errno) -> Error {
        self.error(match errno {
            Errno::ENOMEM => {
                format!(
                    "the memory of a frame cannot be mapped into this program's address space (see ulimit -v): {errno}"
                )
            }
            // For example, the driver that has exported a dmabuf does not let the processor access it.
            _ => format!(
                "the memory of a frame ({}) cannot be mapped: {errno}; import it with a device, or let the writer copy \
                 (descriptors=never)",
                part.object().kind()
            ),
        })
    }

    fn error(&self, what: String) -> Error {
        Error::Object {
            channel: self.pinned.channel().to_owned(),
            what,
        }
    }

    /// Copies the frame. `target` has the size of the frame.
    ///
    /// # Errors
    /// [`Error::Object`] if the size is another, or if the memory cannot be read.
    pub fn copy(&self, target: &mut [u8]) -> Result<(), Error> {
        copy_parts(&self.parts, target)
            .map_err(|errno| self.error(format!("the memory of a frame cannot be read: {errno}")))
    }
}
