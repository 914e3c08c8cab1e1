// SPDX-License-Identifier: MIT OR Apache-2.0

//! Claiming slots, and committing memory for further slots.

use std::sync::Arc;

use super::{
    inner::Inner,
    replace,
    segment::{ClaimedFor, WriterSegment},
    slot::Slot,
    slots::{SlotAllocator, SlotSearch},
    waits,
};
use crate::{
    Error,
    protocol::failpoint::{Failpoint, failpoint},
    sys::space::CommitError,
};

/// Claims a slot for a copy. In lossless mode, this function waits for readers as long as `is_wanted` returns `true`.
pub(super) fn claim_for_copy(inner: &Inner, size: usize, is_wanted: &dyn Fn() -> bool) -> Result<Option<Slot>, Error> {
    loop {
        replace::ensure_segment(inner, size)?;
        if !waits::wait_for_followers(inner, is_wanted) {
            return Ok(None);
        }
        let slot = take_slot(inner, size, ClaimedFor::Copy);
        // A slot was free when the wait ended, but a reader or another thread may have taken it since. If so, this loop
        // waits again.
        if slot.is_some() || !inner.options().lossless || !waits::wait_for_slot(inner, size as u64, is_wanted) {
            return Ok(slot);
        }
    }
}

/// Claims a slot for upstream, without waiting for readers.
pub(super) fn claim_for_upstream(inner: &Inner, size: usize) -> Result<Option<Slot>, Error> {
    replace::ensure_segment(inner, size)?;
    Ok(take_slot(inner, size, ClaimedFor::Upstream))
}

/// Commits memory until the current segment has `count` slots with memory, or until the system has no more memory.
pub(super) fn commit_slots(inner: &Inner, count: u32) {
    loop {
        let reserved = inner.lock().chain.current_mut().and_then(|slots| {
            let slot = (slots.committed() < count).then(|| slots.begin_growth()).flatten()?;
            Some((Arc::clone(slots.segment()), slot))
        });
        let Some((segment, slot)) = reserved else {
            return;
        };
        if commit_slot(inner, &segment, slot) {
            segment.mapped().prefault(slot, 1);
        }
    }
}

/// Finds a slot for a frame of `size` bytes and claims the slot, without waiting for readers.
fn take_slot(inner: &Inner, size: usize, claimed_for: ClaimedFor) -> Option<Slot> {
    let size = size as u64;
    let (segment, slot) = {
        let mut state = inner.lock();
        // A dropped frame leaves a gap in the seqs, which a run cannot have.
        let may_append = claimed_for == ClaimedFor::Copy && !state.sequence.has_gap();
        let slots = state.chain.current_mut().filter(|slots| has_room(slots, size))?;
        if may_append {
            if let Some(slot) = slots.claim_append(size) {
                return Some(slot);
            }
        }
        match slots.find(claimed_for) {
            SlotSearch::Taken(slot) => return Some(slots.claim(slot, size, claimed_for)),
            SlotSearch::Nothing => return None,
            SlotSearch::Grow(slot) => (Arc::clone(slots.segment()), slot),
        }
    };
    let got_memory = commit_slot(inner, &segment, slot);
    let claimed = {
        let mut state = inner.lock();
        let slots = state.chain.current_if(&segment)?;
        // Another thread may have claimed the new slot since the slot got memory, or the system had no memory. In both
        // cases, another slot is taken.
        let slot = if got_memory && slots.take_if_free(slot) {
            slot
        } else {
            slots.take_without_history()?
        };
        slots.claim(slot, size, claimed_for)
    };
    // The prefault takes long, so it comes last. The growth is already finished, so other threads can get slots during
    // the prefault.
    segment.mapped().prefault(claimed.index(), 1);
    Some(claimed)
}

fn has_room(slots: &SlotAllocator, size: u64) -> bool {
    size <= slots.segment().header().slot_size
}

/// Commits memory for a slot that was reserved for the caller. Returns whether the system had memory.
fn commit_slot(inner: &Inner, segment: &Arc<WriterSegment>, slot: usize) -> bool {
    failpoint(Failpoint::GrowthDue);
    let committed = segment.mapped().commit_slot(slot);
    failpoint(Failpoint::Grown);
    let got_memory = committed.is_ok();
    let mut state = inner.lock();
    if let Some(slots) = state.chain.current_if(segment) {
        slots.finish_growth(got_memory);
        if let Err(CommitError::NoMemory(space)) = committed {
            state.shortage.note_refusal(space);
        }
    }
    got_memory
}
