//! For a program whose frames are drawn by somebody else: a video pipeline that is given slots to draw into.

use std::sync::{Arc, atomic::Ordering};

use super::{Slot, Writer, WriterSegment};
use crate::{Error, FrameDescriptor, protocol::layout::MAX_SLOTS};

/// What a program needs whose frames are drawn by somebody else, into slots that were handed out beforehand.
///
/// Such a program gets memory from [`claim`](Self::claim), passes it upstream, and later finds out by its address whether a
/// frame lies in a slot. See [`Writer::upstream`].
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a>(&'a Writer);

impl Writer {
    /// The operations for frames that upstream draws into slots.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream(self)
    }
}

impl Upstream<'_> {
    /// Sets the least size of a slot, for upstream's padding. It applies from the next segment on, until the caps change.
    pub fn set_min_slot_size(self, size: usize) {
        let mut state = self.0.lock();
        state.wanted_size = state.wanted_size.max(size as u64);
    }

    /// Claims a slot for a frame of `size` bytes, for memory that upstream draws into. Never waits: `Ok(None)` when no
    /// slot is free, or upstream has half of the slots already.
    ///
    /// # Errors
    /// As [`Writer::claim`].
    pub fn claim(self, size: usize) -> Result<Option<Slot>, Error> {
        self.0.ensure_segment(size)?;
        Ok(self.0.take_slot(size, true))
    }

    /// Publishes the frame that lies at `bytes`, in the memory of a claimed slot, with `metadata` as [`Writer::publish`]
    /// does.
    ///
    /// # Errors
    /// [`Error::NotPublishable`] when it lies elsewhere, in a superseded segment or one of other caps, or in a slot that was
    /// published already. [`Error::TooLarge`] when `metadata` is too large.
    pub fn publish(self, bytes: &[u8], mut descriptor: FrameDescriptor, metadata: &[u8]) -> Result<(), Error> {
        let (owner, index, offset) = self.locate(bytes).ok_or_else(|| self.0.not_publishable())?;
        descriptor.data_offset = offset;
        descriptor.size = bytes.len() as u64;
        self.0.publish_index(&owner, index, descriptor, metadata)
    }

    /// Whether `bytes` lie in a slot of the current segment, published or not.
    pub fn owns(self, bytes: &[u8]) -> bool {
        self.locate(bytes).is_some()
    }

    /// In lossless mode, waits until the readers of the former segment have taken all of its frames and follow; `false` when
    /// interrupted. To be called before a publish.
    pub fn wait_for_followers(self) -> bool {
        self.0.followers_arrived()
    }

    /// In lossless mode, waits until the next frame can have a slot; `false` when interrupted. Called after a publish, so
    /// that upstream gets memory to draw the next frame in place.
    pub fn wait_for_slot(self) -> bool {
        self.0.slot_available()
    }

    fn locate(self, bytes: &[u8]) -> Option<(Arc<WriterSegment>, usize, u64)> {
        let state = self.0.lock();
        let owner = &state.current.as_ref()?.segment;
        let offset = owner.segment.slots()?.offset_of(bytes.as_ptr())?;
        let slot_size = owner.segment.header.slot_size;
        let index = (offset / slot_size) as usize;
        let in_slot = offset % slot_size;
        // Acquire: as in `SlotTable`.
        let claimed = index < MAX_SLOTS && owner.claimed_slots[index].load(Ordering::Acquire);
        (claimed && in_slot + bytes.len() as u64 <= slot_size).then(|| (Arc::clone(owner), index, in_slot))
    }
}
