// SPDX-License-Identifier: MIT OR Apache-2.0

//! A frame in place: it stays in shared memory, in a pinned slot.

use std::sync::Arc;

use super::attachment::{Attachment, FrameInfo, FrameLocation};

/// A frame in shared memory. The bytes do not change until this value is dropped, unless the writer evicts the reader.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{FrameData, Frame};
///
/// /// Takes the pinned frame out of a [`Frame`], so that the program can keep it.
/// fn keep(frame: Frame) -> Option<impl AsRef<[u8]>> {
///     match frame.data {
///         FrameData::InPlace(pinned) => Some(pinned),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug)]
pub struct PinnedFrame {
    attachment: Arc<Attachment>,
    slot: usize,
    offset: u64,
    size: u64,
}

impl PinnedFrame {
    /// Pins a frame; `None` if the writer has overwritten it, or if its descriptor is invalid.
    #[inline]
    pub(super) fn pin(attachment: &Arc<Attachment>, location: FrameLocation) -> Option<(Self, FrameInfo)> {
        if !attachment.pin(location) {
            return None;
        }
        // This value owns the pin from here on. If the descriptor is invalid, dropping the value releases the pin.
        let mut frame = Self {
            attachment: Arc::clone(attachment),
            slot: location.slot,
            offset: 0,
            size: 0,
        };
        let segment = &attachment.segment;
        let descriptor = segment.read_descriptor(location.slot);
        if !descriptor.fits(segment.header.slot_size) {
            return None;
        }
        frame.offset = segment.slot_offset(location.slot) + descriptor.data_offset;
        frame.size = descriptor.size;
        let metadata = segment.read_metadata(location.slot, descriptor.metadata_size);
        Some((frame, FrameInfo { descriptor, metadata }))
    }
}

impl AsRef<[u8]> for PinnedFrame {
    fn as_ref(&self) -> &[u8] {
        match self.attachment.segment.slots() {
            // SAFETY: `Attachment::pin` has checked that the file has memory for the slot (`is_committed`). `pin` above
            // has checked that the range is inside the slot (`fits`; a range of size 0 is at the start of the mapping).
            // The slot is pinned as long as `self` lives, so a writer that obeys the protocol does not change its
            // bytes. A peer with write permission that ignores the protocol can change them.
            Some(slots) => unsafe { slots.slice(self.offset, self.size) },
            None => &[],
        }
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        self.attachment.unpin(self.slot);
    }
}
