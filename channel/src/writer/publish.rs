// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishing: frames, events, ends of the stream, and the latency.

use std::sync::{Arc, atomic::Ordering};

use super::{
    claim,
    events::{self, NewEvent},
    inner::Inner,
    options::Caps,
    runs::{self, Place},
    segment::WriterSegment,
    slot::Slot,
    slots::SlotAllocator,
    state::State,
};
use crate::{
    Error, FrameDescriptor,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::MAX_METADATA_SIZE,
        ring::RunWords,
        run::{self, RunPosition},
    },
    segment::{Segment, wait::FutexWord},
    sys::copy,
};

/// A frame that is about to be published: its place, and what readers get with its bytes.
struct NewFrame<'a> {
    place: Place,
    descriptor: FrameDescriptor,
    metadata: &'a [u8],
    /// The offset in the slot at which the frame ends (see [`runs::end_of_frame`]).
    end: u64,
}

/// Publishes the frame in a claimed slot, or at a claimed place in a run. Returns its seq.
pub(super) fn publish_claimed(
    inner: &Inner,
    slot: &Slot,
    mut descriptor: FrameDescriptor,
    metadata: &[u8],
) -> Result<u64, Error> {
    let place = slot.place();
    if place.record != 0 {
        let end = descriptor.data_offset.checked_add(descriptor.size);
        // An appended frame has no planes, and must stay within its claim, because the next record comes after it.
        if end.is_none_or(|end| end > slot.size()) || descriptor.data_offset != 0 || descriptor.planes != 0 {
            return Err(inner.not_publishable());
        }
        descriptor.data_offset = runs::data_offset(place.record);
    }
    publish_frame(inner, slot.segment(), place, descriptor, metadata)
}

/// Publishes the frame at `place`. It validates the frame, gives it a seq, stores it, and returns the seq.
pub(super) fn publish_frame(
    inner: &Inner,
    segment: &Arc<WriterSegment>,
    place: Place,
    mut descriptor: FrameDescriptor,
    metadata: &[u8],
) -> Result<u64, Error> {
    descriptor.metadata_size = metadata.len() as u32;
    let end = validate(inner, segment, place, &descriptor, metadata)?;
    let mut frame = NewFrame {
        place,
        descriptor,
        metadata,
        end,
    };
    let (seq, is_service_due) = inner.with_semaphore(|state| {
        failpoint(Failpoint::PublishHolding);
        let assigned = assign_seq(state, segment, &mut frame).ok_or_else(|| inner.not_publishable())?;
        segment.mark_published(place.slot);
        store_frame(segment.mapped(), &frame, assigned);
        let is_service_due = state.chain.current_mut().is_some_and(SlotAllocator::take_service_due);
        Ok((assigned.seq, is_service_due))
    })?;
    failpoint(Failpoint::NotifyDue);
    inner.notify_readers(segment.mapped());
    if is_service_due {
        claim::notify_service(segment);
    }
    Ok(seq)
}

/// Checks that the frame fits into its slot, and that the metadata is not too large. Returns the offset in the slot at
/// which the frame ends.
fn validate(
    inner: &Inner,
    segment: &WriterSegment,
    place: Place,
    descriptor: &FrameDescriptor,
    metadata: &[u8],
) -> Result<u64, Error> {
    if metadata.len() > MAX_METADATA_SIZE {
        return Err(inner.too_large(format!(
            "a frame has {} bytes of metadata (limit {MAX_METADATA_SIZE})",
            metadata.len()
        )));
    }
    let slot_size = segment.header().slot_size;
    let size_in_slot = segment.mapped().size_in_slot(descriptor);
    let data_end = descriptor.data_offset.checked_add(size_in_slot);
    let end = data_end.and_then(|end| runs::end_of_frame(place.record, end, metadata.len() as u64));
    match end {
        Some(end) if segment.mapped().fits(descriptor) && (place.record == 0 || end <= slot_size) => Ok(end),
        _ => Err(inner.too_large(format!(
            "a frame of {} bytes at {} does not fit into its slot of {slot_size} bytes",
            descriptor.size, descriptor.data_offset
        ))),
    }
}

/// The seq and the run of a frame.
#[derive(Clone, Copy)]
struct Assigned {
    seq: u64,
    /// The number of the run in the segment.
    run: u64,
    position: RunPosition,
}

/// Gives the frame its seq and its position in its run. `None` if the slot was already published, if its segment was
/// superseded or has outdated caps, or if the run is no longer the newest one.
fn assign_seq(state: &mut State, segment: &Arc<WriterSegment>, frame: &mut NewFrame) -> Option<Assigned> {
    let slots = state.chain.current_if(segment)?;
    let place = frame.place;
    let is_possible = if place.record == 0 {
        !slots.has_frame(place.slot)
    } else {
        !state.sequence.has_gap() && slots.runs().is_open_at(place)
    };
    if state.sizing.has_other_caps(segment.mapped()) || !is_possible {
        return None;
    }
    if place.record == 0 {
        slots.prepare_publish(place.slot);
    }
    let seq = state.sequence.advance();
    let position = slots.runs_mut().publish(place, seq, frame.descriptor.size, frame.end)?;
    let run = slots.runs().newest();
    state.stats.missed_by_readers += slots.take_missed();
    let is_keyframe = state.sequence.note_frame(frame.descriptor.is_delta());
    frame.descriptor.keyframe = is_keyframe.into();
    state.requests.note_frame(seq, &frame.descriptor);
    state.stats.published += 1;
    Some(Assigned { seq, run, position })
}

/// Writes the frame's values into the segment. The values that lead a reader to the frame are stored last.
fn store_frame(segment: &Segment, frame: &NewFrame, assigned: Assigned) {
    if assigned.position.is_first() {
        start_run(segment, frame, assigned);
    } else {
        append(segment, frame, assigned.position);
    }
    segment.tables.status().publish_head(assigned.seq);
    failpoint(Failpoint::HeadStored);
}

/// Stores the first frame of a run, and the run.
fn start_run(segment: &Segment, frame: &NewFrame, assigned: Assigned) {
    let Assigned { seq, run, .. } = assigned;
    let slot = frame.place.slot;
    let record = segment.slot_record(slot);
    segment.write_descriptor(slot, &frame.descriptor);
    segment.write_metadata(slot, frame.metadata);
    failpoint(Failpoint::DescriptorWritten);
    // The frame may have been copied with non-temporal stores, which a release store does not order.
    copy::finish();
    let keyframe = if frame.descriptor.keyframe != 0 {
        RunPosition::FIRST.to_word()
    } else {
        0
    };
    // Relaxed, here and for the tail: the release store of the seq below orders both stores.
    record.keyframe.store(keyframe, Ordering::Relaxed);
    record.tail.store(RunPosition::FIRST.to_word(), Ordering::Relaxed);
    RunWords {
        newest: &segment.tables.status().run_head,
        entry: segment.tables.ring(run),
        slot_seq: &record.seq,
    }
    .publish(run, seq, slot);
}

/// Stores a frame that is appended to the newest run.
fn append(segment: &Segment, frame: &NewFrame, position: RunPosition) {
    let record = segment.slot_record(frame.place.slot);
    segment.write_appended(frame.place.slot, frame.place.record, &frame.descriptor, frame.metadata);
    failpoint(Failpoint::AppendWritten);
    // As in `start_run`.
    copy::finish();
    if frame.descriptor.keyframe != 0 {
        // Relaxed: the release store of the tail orders this store.
        record.keyframe.store(position.to_word(), Ordering::Relaxed);
    }
    run::publish_tail(&record.tail, position);
    failpoint(Failpoint::TailStored);
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
        inner.notify_readers(&segment);
    }
    Ok(())
}

/// Sets the caps of all further frames.
pub(super) fn set_caps(inner: &Inner, caps: Caps) {
    let mut state = inner.lock();
    if state.sizing.set_caps(caps) {
        state.sequence.begin_stream();
    }
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
        segment.tables.status().publish_end(state.sequence.head());
        state.sequence.begin_stream();
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
