// SPDX-License-Identifier: MIT OR Apache-2.0

//! A claimed slot. The program that uses the writer fills it with a frame.

use std::sync::Arc;

use super::{
    runs::{self, Place},
    segment::WriterSegment,
};
use crate::sys::copy::Copier;

/// A claimed slot that the caller fills with a frame. No other claim gets this slot while the value lives. For a small
/// frame of variable size, it may be the place after other frames in a slot.
///
/// Publishing does not consume the value. The slot stays claimed, and is not reused before the value is dropped.
///
/// # Examples
/// ```
/// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("rsshm-doc-slot-{}", std::process::id());
/// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
/// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1", 64 * 64))?;
/// let mut slot = writer.claim(64 * 64)?.expect("no reader holds a slot");
/// slot.as_mut().fill(128);
/// writer.publish(&slot, FrameDescriptor::new(64 * 64), &[])?;
/// // Readers may look at the frame now, so the bytes cannot be written any more.
/// assert!(slot.is_published() && slot.as_mut().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Slot {
    segment: Arc<WriterSegment>,
    place: Place,
    size: u64,
}

impl Slot {
    /// The value for a claimed slot, of which the caller uses `size` bytes.
    pub(super) fn new(segment: Arc<WriterSegment>, index: usize, size: u64) -> Self {
        let place = Place { slot: index, record: 0 };
        Self { segment, place, size }
    }

    /// The value for a claimed place at the end of a run.
    pub(super) fn appended(segment: Arc<WriterSegment>, place: Place, size: u64) -> Self {
        Self { segment, place, size }
    }

    pub(super) fn segment(&self) -> &Arc<WriterSegment> {
        &self.segment
    }

    pub(super) fn index(&self) -> usize {
        self.place.slot
    }

    /// The slot, or the place in a run, that this value claims.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// How many bytes the claim has for the frame.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the slot's frame was published. After that, [`as_mut`](Self::as_mut) is empty, because readers may use
    /// the bytes.
    pub fn is_published(&self) -> bool {
        self.segment.is_published(self.index())
    }

    /// The fastest way to copy a frame into this slot. It depends on the size of the claim, and on the time since the
    /// last copy into the slot, so call it once for each frame that you copy.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Writer, WriterOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("rsshm-doc-copier-{}", std::process::id());
    /// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
    /// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1", 64 * 64))?;
    /// let picture = [128; 64 * 64];
    /// let mut slot = writer.claim(picture.len())?.expect("no reader holds a slot");
    /// slot.copier().copy(&picture, slot.as_mut());
    /// writer.publish(&slot, FrameDescriptor::new(picture.len() as u64), &[])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn copier(&self) -> Copier {
        Copier::fastest(self.size, || self.segment.note_copy(self.index()))
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        let segment = self.segment.mapped();
        match segment.slots() {
            // SAFETY: the slot got its memory before it was claimed, and a writer's mapping is writable. No other claim
            // gets the slot until this value is dropped, so this is the only reference in this process. The slot is not
            // published, so readers find the seq 0 and do not use the bytes. If the claim is a place in a run, the
            // bytes are beyond the run's tail, and readers do not use them either. The frame cannot be published while
            // the slice is borrowed, because publishing needs a reference to this value or to the slice.
            Some(slots) if !self.is_published() => unsafe {
                slots.slice_mut(
                    segment.slot_offset(self.index()) + runs::data_offset(self.place.record),
                    self.size,
                )
            },
            _ => &mut [],
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.segment.end_claim(self.index());
    }
}
