// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sizes of a segment: how large a slot is, how many slots there are, and how many publishes a frame survives.

use super::{
    options::{Caps, MIN_SLOTS},
    runs::RUN_HISTORY_BYTES,
};
use crate::{
    protocol::layout::{Header, MAX_SLOTS, flags},
    segment::Segment,
    sys::page,
};

/// With at least this many slots, frames survive [`LONG_HISTORY`] later runs; with fewer slots, they survive
/// [`SHORT_HISTORY`].
const MIN_LONG_HISTORY_SLOTS: u32 = 12;
const LONG_HISTORY: u32 = 4;
const SHORT_HISTORY: u32 = 2;
/// How many later runs a frame of objects survives, if a reader that keeps up has not taken it and upstream can spare
/// the buffer.
const OBJECT_HISTORY: u32 = 2;
/// The longest history of frames of variable size, in slots. The limit leaves slots that readers can hold.
const MAX_VARIABLE_HISTORY: u32 = 32;
/// The frames of the history that all attached readers have taken have at most this size together.
const LEAST_HISTORY_BYTES: u64 = 4 << 20;
/// The most bytes of address space that a segment with an automatic number of slots takes.
const MAX_AUTOMATIC_BYTES: u64 = if usize::BITS == 64 { 1 << 30 } else { 1 << 28 };
/// The size of a slot for small frames of variable size: all slots together contain a burst of 16 MiB and the frames
/// before it. If little shared memory is free, slots are smaller.
const MAX_RUN_SLOT_BYTES: u64 = 512 * 1024;
const MIN_RUN_SLOT_BYTES: u64 = 64 * 1024;

/// The requirements for the slots of the next segment: the caps, and the slot size that upstream needs.
#[derive(Debug, Default)]
pub(super) struct SlotSizing {
    caps: Option<Caps>,
    /// The least size of a slot. It has an effect only if it exceeds the caps' frame size.
    min_slot_size: u64,
}

impl SlotSizing {
    pub(super) fn caps(&self) -> Option<&Caps> {
        self.caps.as_ref()
    }

    /// Sets the caps. Returns whether they differ from the former ones.
    pub(super) fn set_caps(&mut self, caps: Caps) -> bool {
        let is_change = self.caps.as_ref() != Some(&caps);
        if is_change {
            self.min_slot_size = 0;
            self.caps = Some(caps);
        }
        is_change
    }

    pub(super) fn raise_min_slot_size(&mut self, size: u64) {
        self.min_slot_size = self.min_slot_size.max(size);
    }

    /// Whether `segment` has the present caps and slots for frames of `size` bytes.
    pub(super) fn is_met_by(&self, segment: Option<&Segment>, size: u64) -> bool {
        let (Some(segment), Some(caps)) = (segment, &self.caps) else {
            return false;
        };
        segment.caps == caps.as_str()
            && segment.has_objects() == caps.has_objects()
            && self.least_slot_size(caps, size) <= segment.header.slot_size
    }

    /// Whether `segment` has other caps than the present ones.
    pub(super) fn has_other_caps(&self, segment: &Segment) -> bool {
        self.caps
            .as_ref()
            .is_some_and(|caps| caps.as_str() != segment.caps || caps.has_objects() != segment.has_objects())
    }

    /// The size of a slot of the next segment, for a frame of `size` bytes. `current` is the present segment, and
    /// `free` the free shared memory in bytes.
    ///
    /// A slot has whole pages, so that its memory can be committed, prefaulted and released without other slots.
    ///
    /// If slots for frames of variable size have to grow, they become twice as large as needed. Otherwise each frame
    /// that is a little larger than the last would need another segment.
    pub(super) fn slot_size(&self, caps: &Caps, size: u64, current: Option<&Segment>, free: u64) -> u64 {
        // No file is as large as a size that cannot be rounded, so the segment cannot be laid out.
        let round_up = |size| page::round_up(size).unwrap_or(u64::MAX);
        let least = round_up(self.least_slot_size(caps, size).max(1));
        if !caps.is_variable() {
            return least;
        }
        let former = current
            .filter(|segment| segment.caps == caps.as_str())
            .map_or_else(|| run_slot_size(free), |segment| segment.header.slot_size);
        if least > former {
            least.saturating_mul(2)
        } else {
            former
        }
    }

    fn least_slot_size(&self, caps: &Caps, size: u64) -> u64 {
        // The bytes of the frames are not in the slots.
        if caps.has_objects() {
            return caps.frame_size();
        }
        size.max(self.min_slot_size).max(caps.frame_size())
    }
}

/// The number of slots of a segment. `max_slots` is the option, and `free` is the free shared memory in bytes.
pub(super) fn slot_count(max_slots: u32, slot_size: u64, free: u64) -> u32 {
    if max_slots != 0 {
        return max_slots;
    }
    let slots = (free / 2).min(MAX_AUTOMATIC_BYTES) / slot_size;
    slots.clamp(MIN_SLOTS.into(), MAX_SLOTS as u64) as u32
}

/// The size of a slot for small frames of variable size. All slots fit into half of the `free` bytes.
fn run_slot_size(free: u64) -> u64 {
    let slot_size = free / 2 / MAX_SLOTS as u64;
    slot_size.clamp(MIN_RUN_SLOT_BYTES, MAX_RUN_SLOT_BYTES) / page::size() * page::size()
}

/// The number of later runs that a frame survives, in a segment of at most `slots` slots.
///
/// Frames of variable size have a longer history than others. A reader that joins a compressed stream, or has missed a
/// frame, continues at a keyframe in this history.
pub(super) fn history(slots: u32, slot_size: u64, caps: &Caps) -> u32 {
    let least = if slots >= MIN_LONG_HISTORY_SLOTS {
        LONG_HISTORY
    } else {
        SHORT_HISTORY
    };
    if caps.has_objects() {
        return OBJECT_HISTORY;
    }
    if !caps.is_variable() {
        return least;
    }
    let by_bytes = u32::try_from(RUN_HISTORY_BYTES / slot_size).unwrap_or(MAX_VARIABLE_HISTORY);
    by_bytes.min(MAX_VARIABLE_HISTORY).min(slots / 2).max(least)
}

/// The number of newest runs that a segment keeps although all attached readers have taken them. Peers that copy
/// without an entry need them. Runs of large frames are few, because each takes much memory.
pub(super) fn least_history(header: &Header) -> u32 {
    if header.flags & flags::RUNS != 0 {
        return header.history;
    }
    if header.flags & flags::OBJECTS != 0 {
        return 1;
    }
    let slots = u32::try_from(LEAST_HISTORY_BYTES / header.slot_size).unwrap_or(u32::MAX);
    slots.clamp(1, header.history.max(1))
}
