// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slots for frames that another component draws, such as an upstream element of a video pipeline.

use std::sync::Arc;

use super::{claim, inner::Inner, publish, runs::Place, segment::WriterSegment, slot::Slot, waits};
use crate::{Error, FrameDescriptor, protocol::layout::MAX_SLOTS};

/// The operations for frames that upstream draws into slots.
///
/// A program gets memory from [`claim`](Self::claim) and passes it upstream. When a frame arrives later, its address
/// shows whether the frame is in a slot. [`Writer::upstream`](crate::Writer::upstream) returns this value.
///
/// # Examples
/// ```
/// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("rsshm-doc-upstream-{}", std::process::id());
/// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
/// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1", 64 * 64))?;
/// let mut memory = writer.upstream().claim(64 * 64)?.expect("no reader holds a slot");
/// // Upstream draws, and passes the memory on. The program then knows only the memory's address.
/// let frame: &[u8] = memory.as_mut();
/// assert!(writer.upstream().owns(frame));
/// writer.upstream().publish(frame, FrameDescriptor::default(), &[])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a>(&'a Inner);

impl<'a> Upstream<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self(inner)
    }

    /// Sets the least size of a slot, because upstream may need padding. This size applies from the next segment on,
    /// until the caps change.
    pub fn set_min_slot_size(self, size: usize) {
        self.0.lock().sizing.raise_min_slot_size(size as u64);
    }

    /// Claims a slot for a frame of `size` bytes, for memory that upstream draws into.
    ///
    /// This method never waits. It returns `Ok(None)` if no slot is free, or if upstream already has half of the slots.
    ///
    /// # Errors
    /// See [`Writer::claim`](crate::Writer::claim).
    pub fn claim(self, size: usize) -> Result<Option<Slot>, Error> {
        claim::claim_for_upstream(self.0, size)
    }

    /// Publishes the frame that consists of `bytes`, which must be in a claimed slot. Returns its seq.
    /// [`Writer::publish`](crate::Writer::publish) describes `metadata`.
    ///
    /// # Errors
    /// [`Error::NotPublishable`] if the bytes are not in a slot, if the slot's segment was superseded or has other
    /// caps, or if the slot was published already. [`Error::TooLarge`] if `metadata` is too large.
    pub fn publish(self, bytes: &[u8], mut descriptor: FrameDescriptor, metadata: &[u8]) -> Result<u64, Error> {
        let (segment, slot, offset) = self.locate(bytes).ok_or_else(|| self.0.not_publishable())?;
        descriptor.data_offset = offset;
        descriptor.size = bytes.len() as u64;
        publish::publish_frame(self.0, &segment, Place { slot, record: 0 }, descriptor, metadata)
    }

    /// Whether `bytes` are in a claimed slot of the current segment. The slot may already be published.
    pub fn owns(self, bytes: &[u8]) -> bool {
        self.locate(bytes).is_some()
    }

    /// In lossless mode, waits until the readers of former segments have taken all frames there and have come to the
    /// current segment. Call this method before a publish. It returns `false` if the wait was interrupted.
    pub fn wait_for_followers(self) -> bool {
        waits::wait_for_followers(self.0, &|| true)
    }

    /// In lossless mode, waits until the next frame can have a slot. Call this method after a publish, so that upstream
    /// gets a slot for the next frame. It returns `false` if the wait was interrupted.
    pub fn wait_for_slot(self) -> bool {
        waits::wait_for_slot(self.0, 0, &|| true)
    }

    /// The segment and the slot that contain `bytes`, and the offset of `bytes` in the slot.
    fn locate(self, bytes: &[u8]) -> Option<(Arc<WriterSegment>, usize, u64)> {
        let state = self.0.lock();
        let segment = state.chain.current()?.segment();
        let offset = segment.mapped().slots()?.offset_of(bytes.as_ptr())?;
        let slot_size = segment.header().slot_size;
        let slot = (offset / slot_size) as usize;
        let in_slot = offset % slot_size;
        let is_claimed = slot < MAX_SLOTS && segment.is_claimed(slot);
        (is_claimed && in_slot + bytes.len() as u64 <= slot_size).then(|| (Arc::clone(segment), slot, in_slot))
    }
}
