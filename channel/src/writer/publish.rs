// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishing: frames, events, ends of the stream, and the latency.

use std::sync::{Arc, atomic::Ordering};

use super::{
    events::{self, NewEvent},
    inner::Inner,
    segment::WriterSegment,
    state::State,
};
use crate::{
    Error, FrameDescriptor,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::MAX_METADATA_SIZE,
    },
    segment::{Segment, wait::FutexWord},
    sys::copy,
};

/// Publishes the frame in a claimed slot. It validates the frame, gives it a seq, and stores it.
pub(super) fn publish_frame(
    inner: &Inner,
    segment: &Arc<WriterSegment>,
    slot: usize,
    mut descriptor: FrameDescriptor,
    metadata: &[u8],
) -> Result<(), Error> {
    descriptor.metadata_size = metadata.len() as u32;
    validate(inner, segment, &descriptor, metadata)?;
    inner.with_semaphore(|state| {
        failpoint(Failpoint::PublishHolding);
        let seq = assign_seq(state, segment, slot, &descriptor).ok_or_else(|| inner.not_publishable())?;
        segment.mark_published(slot);
        store_frame(segment.mapped(), slot, seq, &descriptor, metadata);
        Ok(())
    })?;
    failpoint(Failpoint::NotifyDue);
    segment.mapped().notify(FutexWord::Published);
    Ok(())
}

/// Checks that the frame fits into its slot, and that the metadata is not too large.
fn validate(
    inner: &Inner,
    segment: &WriterSegment,
    descriptor: &FrameDescriptor,
    metadata: &[u8],
) -> Result<(), Error> {
    if metadata.len() > MAX_METADATA_SIZE {
        return Err(inner.too_large(format!(
            "a frame has {} bytes of metadata (limit {MAX_METADATA_SIZE})",
            metadata.len()
        )));
    }
    let slot_size = segment.header().slot_size;
    if !descriptor.fits(slot_size) {
        return Err(inner.too_large(format!(
            "a frame of {} bytes at {} does not fit into its slot of {slot_size} bytes",
            descriptor.size, descriptor.data_offset
        )));
    }
    Ok(())
}

/// Gives the frame in `slot` its seq. `None` if the slot was already published, or if its segment was superseded or has
/// outdated caps.
fn assign_seq(
    state: &mut State,
    segment: &Arc<WriterSegment>,
    slot: usize,
    descriptor: &FrameDescriptor,
) -> Option<u64> {
    let slots = state.chain.current_if(segment)?;
    if state.sizing.has_other_caps(segment.mapped()) || slots.has_frame(slot) {
        return None;
    }
    let seq = state.sequence.advance();
    slots.set_frame(slot, seq);
    state.requests.note_frame(seq, descriptor);
    state.stats.published += 1;
    Some(seq)
}

/// Writes the frame's values into the segment's tables. The values that lead a reader to the frame are stored last.
fn store_frame(segment: &Segment, slot: usize, seq: u64, descriptor: &FrameDescriptor, metadata: &[u8]) {
    segment.write_descriptor(slot, descriptor);
    segment.write_metadata(slot, metadata);
    failpoint(Failpoint::DescriptorWritten);
    // The frame may have been copied with non-temporal stores, which a release store does not order.
    copy::finish();
    // Release: pairs with the acquire loads in `PinCounts::pin` and in `Attachment::copy_unpinned`. A reader that finds
    // the seq also finds the bytes and the descriptor.
    segment.slot_record(slot).seq.store(seq, Ordering::Release);
    failpoint(Failpoint::SeqStored);
    // Release: pairs with the acquire load of a reader that looks up a frame. This reader then finds the seq in the
    // slot.
    segment
        .tables
        .ring(seq)
        .store(seq << 8 | slot as u64, Ordering::Release);
    failpoint(Failpoint::RingStored);
    // Release: pairs with the acquire load of a reader that takes a snapshot. This reader then finds the ring's entry.
    segment.tables.status().head.store(seq, Ordering::Release);
    failpoint(Failpoint::HeadStored);
}

/// Publishes an event. Without a segment, no reader can be attached, so only a sticky event is kept then.
pub(super) fn publish_event(inner: &Inner, event: NewEvent, sticky: Option<usize>) -> Result<(), Error> {
    event.check(inner.name().as_str(), sticky)?;
    let segment = inner.with_semaphore(|state| {
        failpoint(Failpoint::EventHolding);
        let segment = state.chain.current_mapped().map(Arc::clone);
        if segment.is_none() && sticky.is_none() {
            return None;
        }
        let after = state.sequence.head();
        let (seq, descriptor) = state.events.record(&event, sticky, after, segment.as_deref());
        if let Some(segment) = &segment {
            events::store(segment, seq, descriptor, event.bytes, sticky);
        }
        segment
    });
    if let Some(segment) = segment {
        segment.notify(FutexWord::Published);
    }
    Ok(())
}

/// Forgets the sticky events.
pub(super) fn forget_events(inner: &Inner) {
    let mut state = inner.lock();
    let State { events, chain, .. } = &mut *state;
    events.forget_sticky(chain.current_mapped().map(Arc::as_ref));
}

/// Marks the end of the stream after the newest frame.
pub(super) fn end_of_stream(inner: &Inner) {
    let segment = inner.with_semaphore(|state| {
        let segment = Arc::clone(state.chain.current_mapped()?);
        let status = segment.tables.status();
        // Release: pairs with the acquire load in `load_newest_end`, where a reader loads the count first and then this
        // seq.
        status.eos_seq.store(state.sequence.head(), Ordering::Release);
        failpoint(Failpoint::EndHalf);
        // Release: pairs with the acquire load of a reader that takes a snapshot. This reader then finds the seq of
        // this end.
        status.eos_count.fetch_add(1, Ordering::Release);
        Some(segment)
    });
    if let Some(segment) = segment {
        segment.notify(FutexWord::Published);
    }
}

/// Sets the latency: the time in nanoseconds from a frame's timestamp until the frame leaves the writer.
pub(super) fn set_latency_ns(inner: &Inner, latency_ns: u64) {
    let mut state = inner.lock();
    if state.latency_ns == latency_ns {
        return;
    }
    state.latency_ns = latency_ns;
    if let Some(segment) = state.chain.current_mapped() {
        // Relaxed: no other value depends on the latency. The notification makes readers load it.
        segment.tables.status().latency_ns.store(latency_ns, Ordering::Relaxed);
        segment.notify(FutexWord::Published);
    }
}
