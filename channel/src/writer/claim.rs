// SPDX-License-Identifier: MIT OR Apache-2.0

//! Claiming slots, and committing memory for further slots.

use std::sync::Arc;

use super::{
    inner::Inner,
    memory::bits,
    options::Caps,
    replace,
    segment::{ClaimedFor, WriterSegment},
    slot::Slot,
    slots::{SlotAllocator, SlotSearch},
    waits,
};
use crate::{
    Error,
    protocol::failpoint::{Failpoint, failpoint},
    segment::wait::FutexWord,
    sys::space::CommitError,
};

/// What a claimed slot gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The bytes of a frame.
    Bytes,
    /// The references to the objects of a frame.
    References,
}

impl Content {
    /// Refuses a frame that the caps do not allow.
    ///
    /// # Errors
    /// [`Error::Option`] says which caps the frame needs.
    fn require(self, inner: &Inner) -> Result<(), Error> {
        let has_objects = inner.lock().sizing.caps().map(Caps::has_objects);
        let reason = match (self, has_objects) {
            (Self::Bytes, Some(true)) => {
                "the caps are those of frames of objects, which have no slots for bytes; publish with Writer::objects, or set \
                 other caps"
            }
            (Self::References, Some(false)) => {
                "the caps are those of frames in slots; set caps with Caps::objects to publish objects"
            }
            _ => return Ok(()),
        };
        Err(Error::Option {
            channel: inner.name().to_string(),
            reason: reason.to_owned(),
        })
    }
}

/// Claims a slot for a copy. In lossless mode, this function waits for readers as long as `is_wanted` returns `true`.
pub(super) fn claim_for_copy(
    inner: &Inner,
    size: usize,
    content: Content,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Option<Slot>, Error> {
    let mut has_waited = false;
    loop {
        replace::ensure_segment(inner, size)?;
        if !waits::wait_for_followers(inner, is_wanted) {
            return Ok(None);
        }
        let slot = take_slot(inner, size, ClaimedFor::Copy, has_waited, content);
        if slot.is_some() {
            return Ok(slot);
        }
        content.require(inner)?;
        if !inner.options().lossless {
            return Ok(None);
        }
        // A slot was free when the wait ended, but a reader or another thread may have taken it since. If so, this loop
        // waits again. A wait that need not sleep does not ask whether it was interrupted.
        let is_given_up = has_waited && (inner.publisher().is_interrupted() || !is_wanted());
        if is_given_up || !waits::wait_for_slot(inner, size as u64, is_wanted) {
            return Ok(None);
        }
        has_waited = true;
    }
}

/// Claims a slot for upstream, without waiting for readers.
pub(super) fn claim_for_upstream(inner: &Inner, size: usize) -> Result<Option<Slot>, Error> {
    replace::ensure_segment(inner, size)?;
    let slot = take_slot(inner, size, ClaimedFor::Upstream, true, Content::Bytes);
    if slot.is_none() {
        Content::Bytes.require(inner)?;
    }
    Ok(slot)
}

/// Commits memory for the slots that the current segment wants, until the system has no more memory.
pub(super) fn commit_wanted(inner: &Inner) {
    loop {
        let reserved = inner.lock().chain.current_mut().and_then(|slots| {
            let slot = slots.memory().begin_wanted_growth()?;
            Some((Arc::clone(slots.segment()), slot))
        });
        let Some((segment, slot)) = reserved else {
            return;
        };
        commit_slot(inner, &segment, slot);
    }
}

/// Releases the memory of slots that have been idle for too long.
pub(super) fn release_idle(inner: &Inner) {
    let idle = inner.lock().chain.current_mut().map(|slots| {
        let idle = slots.take_idle();
        (Arc::clone(slots.segment()), idle)
    });
    let Some((segment, idle)) = idle.filter(|(_, idle)| *idle != 0) else {
        return;
    };
    for slot in bits(idle) {
        segment.mapped().release_slot(slot);
    }
    if let Some(slots) = inner.lock().chain.current_if(&segment) {
        slots.memory().finish_release(idle);
    }
}

/// Wakes the service if the current segment needs it soon. The caller holds no lock.
pub(super) fn notify_service(segment: &WriterSegment) {
    segment.mapped().notify(FutexWord::Writer);
}

/// Finds a slot for a frame of `size` bytes and claims the slot, without waiting for readers.
fn take_slot(inner: &Inner, size: usize, claimed_for: ClaimedFor, has_waited: bool, content: Content) -> Option<Slot> {
    let size = size as u64;
    // This loop ends, because the segment cannot grow without end.
    loop {
        let mut state = inner.lock();
        // A dropped frame leaves a gap in the seqs, which a run cannot have.
        let may_append = claimed_for == ClaimedFor::Copy && !state.sequence.has_gap();
        let slots = state
            .chain
            .current_mut()
            .filter(|slots| has_room(slots, size, content))?;
        if may_append {
            if let Some(slot) = slots.claim_append(size) {
                return Some(slot);
            }
        }
        let claimed = match slots.find(claimed_for, has_waited) {
            SlotSearch::Taken(slot) => Some(slots.claim(slot, size, claimed_for)),
            SlotSearch::Nothing => None,
            SlotSearch::Grow(slot) => {
                let segment = Arc::clone(slots.segment());
                drop(state);
                commit_slot(inner, &segment, slot);
                continue;
            }
        };
        if slots.take_service_due() {
            let segment = Arc::clone(slots.segment());
            drop(state);
            notify_service(&segment);
        }
        return claimed;
    }
}

fn has_room(slots: &SlotAllocator, size: u64, content: Content) -> bool {
    size <= slots.segment().header().slot_size && slots.has_objects() == (content == Content::References)
}

/// Commits memory for a slot that was reserved for the caller.
fn commit_slot(inner: &Inner, segment: &Arc<WriterSegment>, slot: usize) {
    failpoint(Failpoint::GrowthDue);
    let committed = segment.mapped().commit_slot(slot);
    if committed.is_ok() {
        // With this, the first frame in the slot is written as fast as later ones.
        segment.mapped().prefault(slot, 1);
    }
    failpoint(Failpoint::Grown);
    let mut state = inner.lock();
    if let Some(slots) = state.chain.current_if(segment) {
        slots.finish_growth(slot, committed.is_ok());
        if let Err(CommitError::NoMemory(space)) = committed {
            state.shortage.note_refusal(space);
        }
    }
}
