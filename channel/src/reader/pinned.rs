// SPDX-License-Identifier: MIT OR Apache-2.0

//! A frame in place: it stays in shared memory, in a pinned slot.

use std::sync::Arc;

use bytemuck::Zeroable;

use super::{
    attachment::{Attachment, FrameInfo},
    options::ReadLimits,
    runs::FrameLocation,
};
use crate::protocol::{
    layout::{ReferenceTable, RunRecord},
    pins::PinResult,
    run::RUN_RECORD_SIZE,
};

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
    /// The offset of the frame's bytes in the slot.
    offset: u64,
    size: u64,
}

/// The quota does not allow another slot, so the frame has to be copied without a pin.
pub(super) struct Refused;

impl PinnedFrame {
    /// Pins a frame; `None` if the writer has overwritten it, or if its descriptor is invalid.
    #[inline]
    pub(super) fn pin(
        attachment: &Arc<Attachment>,
        location: FrameLocation,
    ) -> Result<Option<(Self, FrameInfo)>, Refused> {
        match attachment.pin(location) {
            PinResult::Pinned => Ok(Self::describe(attachment, location)),
            PinResult::Gone => Ok(None),
            PinResult::Refused => Err(Refused),
        }
    }

    /// Pins a frame if the quota has a pin left. Also returns whether the reader may hold the frame: the last pin of
    /// the quota is reserved for copies, so that a reader that holds frames can still read further ones.
    pub(super) fn pin_within_quota(
        attachment: &Arc<Attachment>,
        location: FrameLocation,
        limits: ReadLimits,
    ) -> (Result<Option<(Self, FrameInfo)>, Refused>, bool) {
        let quota = attachment.quota();
        let held = attachment.held();
        let pinned = if held < quota {
            Self::pin(attachment, location)
        } else {
            Err(Refused)
        };
        (pinned, held < limits.max_held.min(quota.saturating_sub(1)))
    }

    /// The frame whose slot is pinned; `None` if its descriptor is invalid.
    fn describe(attachment: &Arc<Attachment>, location: FrameLocation) -> Option<(Self, FrameInfo)> {
        // This value owns the pin from here on. If the descriptor is invalid, dropping the value releases the pin.
        let mut frame = Self {
            attachment: Arc::clone(attachment),
            slot: location.run.slot,
            offset: 0,
            size: 0,
        };
        let info = if location.position.is_first() {
            frame.first_info()
        } else {
            frame.appended_info(location.position.offset)
        }?;
        frame.offset = info.descriptor.data_offset;
        frame.size = attachment.segment.size_in_slot(&info.descriptor);
        Some((frame, info))
    }

    /// The descriptor and the metadata of the first frame in the slot.
    fn first_info(&self) -> Option<FrameInfo> {
        let segment = &self.attachment.segment;
        let descriptor = segment.read_descriptor(self.slot);
        segment.fits(&descriptor).then(|| FrameInfo {
            descriptor,
            metadata: segment.read_metadata(self.slot, descriptor.metadata_size),
        })
    }

    /// The descriptor and the metadata of the frame whose record is at `offset` in the slot.
    fn appended_info(&self, offset: u64) -> Option<FrameInfo> {
        let mut record = RunRecord::zeroed();
        bytemuck::bytes_of_mut(&mut record).copy_from_slice(self.bytes(offset, RUN_RECORD_SIZE)?);
        let descriptor = record.descriptor(offset);
        if !self.attachment.segment.fits(&descriptor) {
            return None;
        }
        let metadata = self.bytes(descriptor.metadata_offset()?, descriptor.metadata_size.into())?;
        Some(FrameInfo {
            descriptor,
            metadata: metadata.to_vec(),
        })
    }

    /// The references of a frame of objects, which the slot has instead of the frame's bytes.
    pub(super) fn references(&self) -> Option<ReferenceTable> {
        bytemuck::try_pod_read_unaligned(self.as_ref()).ok()
    }

    /// The name of the channel of a frame of objects.
    pub(super) fn channel(&self) -> &str {
        self.attachment
            .objects
            .as_ref()
            .map_or("", |objects| objects.name().as_str())
    }

    /// The `length` bytes at `offset` in the slot; `None` if they are not entirely inside it.
    fn bytes(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let segment = &self.attachment.segment;
        let is_inside = offset.checked_add(length)? <= segment.header.slot_size;
        let slots = segment.slots().filter(|_| is_inside)?;
        // SAFETY: `Attachment::pin` has checked that the file has memory for the slot (`is_committed`), and the range
        // is inside the slot (checked above). The slot is pinned as long as `self` lives, so a writer that obeys the
        // protocol does not change bytes before the run's tail. A peer with write permission that ignores the protocol
        // can change them.
        Some(unsafe { slots.slice(segment.slot_offset(self.slot) + offset, length) })
    }
}

impl AsRef<[u8]> for PinnedFrame {
    fn as_ref(&self) -> &[u8] {
        self.bytes(self.offset, self.size).unwrap_or_default()
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        self.attachment.unpin(self.slot);
    }
}
