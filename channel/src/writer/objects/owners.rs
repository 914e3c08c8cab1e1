// SPDX-License-Identifier: MIT OR Apache-2.0

//! The owner values of frames whose memory belongs to upstream.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{super::memory::bits, registry::Object};
use crate::protocol::layout::MAX_SLOTS;

/// How many frames may be out if the program has not said how many buffers upstream can spare.
pub(crate) const DEFAULT_SPARE_OBJECTS: u32 = 4;
/// The least quota. A reader holds one frame less than its quota in place, because it uses the last pin for copies.
const LEAST_QUOTA: u32 = 2;

/// What a frame keeps as long as it can be read. It is dropped while no lock is held, because the drop gives upstream
/// its buffer back, which may run any code.
///
/// The fields are dropped in this order: the frame counts as out until upstream has its buffer back.
pub(crate) struct Owner {
    /// The value that the program has given.
    _value: Box<dyn Any + Send>,
    /// The memory, which readers may ask for.
    _objects: Vec<Object>,
    count: Option<CountedFrame>,
}

impl Owner {
    pub(super) fn new(objects: Vec<Object>, value: Box<dyn Any + Send>) -> Self {
        Self {
            _value: value,
            _objects: objects,
            count: None,
        }
    }
}

/// How many frames of a writer are out: in its current segment, and in superseded ones where readers hold frames. All
/// of them are in buffers of the same upstream. Clones have the same count. It includes the frames whose owner values
/// were taken and are being dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramesOut(Arc<AtomicU32>);

impl FramesOut {
    pub(super) fn count(&self) -> u32 {
        // Relaxed: the count is compared with a limit, and orders nothing. Only drops run without the lock of the
        // writer's state, so a load under this lock sees at least the frames that are out.
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) -> CountedFrame {
        // Relaxed: as in `count`.
        self.0.fetch_add(1, Ordering::Relaxed);
        CountedFrame(self.clone())
    }
}

/// One of the frames that are out.
#[derive(Debug)]
struct CountedFrame(FramesOut);

impl Drop for CountedFrame {
    fn drop(&mut self) {
        let FramesOut(count) = &self.0;
        // Relaxed: as in `FramesOut::count`.
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

/// The owner values of a segment's slots, and how many of them there may be.
#[derive(Debug)]
pub(crate) struct SlotOwners {
    owners: [Option<Owner>; MAX_SLOTS],
    /// One bit for each slot that has an owner value.
    owned: u64,
    /// How many frames are out, in all segments of the writer.
    out: FramesOut,
    /// How many frames may be out.
    limit: u32,
    /// Whether the last publish reached the limit, so that the quota was withdrawn.
    is_limited: bool,
}

impl SlotOwners {
    /// The owner values of a new segment, where no frame has one. `limit` is how many frames may be `out`.
    pub(crate) fn new(out: FramesOut, limit: u32) -> Self {
        Self {
            owners: [const { None }; MAX_SLOTS],
            owned: 0,
            out,
            limit,
            is_limited: false,
        }
    }

    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Gives a slot its owner value, and returns the former one.
    pub(super) fn set(&mut self, slot: usize, mut owner: Owner) -> Option<Owner> {
        self.owned |= 1 << slot;
        owner.count = Some(self.out.add());
        self.owners[slot].replace(owner)
    }

    /// Takes the owner values of `slots`.
    pub(super) fn take(&mut self, slots: u64) -> Vec<Owner> {
        let taken = slots & self.owned;
        self.owned &= !slots;
        bits(taken).filter_map(|slot| self.owners[slot].take()).collect()
    }

    /// How many frames are out, without those in the slots `except`.
    fn count_except(&self, except: u64) -> u32 {
        self.out.count().saturating_sub((self.owned & except).count_ones())
    }

    /// Whether so many buffers are out that readers must not hold the next frame too. The slots `except` do not count:
    /// the slot of that frame, and those whose buffers go back before the publish ends.
    ///
    /// If this frame can be pinned, it may stay out when the next one is published. So two buffers must be left: one
    /// for this frame, and one for the next.
    pub(super) fn is_at_limit(&self, except: u64) -> bool {
        !self.allows_quota() || self.count_except(except).saturating_add(2) > self.limit
    }

    /// Whether more frames are out than upstream can spare. The slots `except` do not count.
    pub(super) fn is_over_limit(&self, except: u64) -> bool {
        self.count_except(except) > self.limit
    }

    /// Whether another frame may be out. Two are always possible, because the newest frame stays until the next one is
    /// published.
    pub(super) fn has_spare(&self) -> bool {
        self.out.count() < self.limit.max(2)
    }

    /// The largest quota with which one reader holds at most half of the spare buffers.
    pub(super) fn largest_quota(&self) -> u32 {
        (self.limit / 2 + 1).max(LEAST_QUOTA)
    }

    /// Whether readers can have a quota at all: besides the newest frame, which is always out, one frame may stay out.
    pub(super) fn allows_quota(&self) -> bool {
        self.limit > 2
    }

    /// Whether the last publish reached the limit.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Records whether the limit is reached. Returns whether it was reached before.
    pub(super) fn set_limited(&mut self, is_limited: bool) -> bool {
        std::mem::replace(&mut self.is_limited, is_limited)
    }
}
