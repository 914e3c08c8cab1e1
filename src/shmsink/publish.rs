// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes a buffer in the channel: in place if the buffer's memory is a slot, otherwise with one copy.

use gst_video::VideoInfo;
use rsshm_channel::{Copier, Error, FrameDescriptor, ObjectPart, Writer};

use super::{
    descriptors::Part,
    stats::{Counter, Counters},
};
use crate::{
    memory::{self, Kind},
    metas,
    planes::Planes,
};

/// A frame to publish.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) buffer: &'a gst::Buffer,
    /// What the first memory of the buffer can be.
    pub(super) kind: Kind,
    pub(super) descriptor: FrameDescriptor,
    /// The encoded metas.
    pub(super) metadata: &'a [u8],
    /// `None` if the frame is not raw video.
    pub(super) info: Option<&'a VideoInfo>,
    /// Whether only devices can read the frame.
    pub(super) is_opaque: bool,
    /// The parts of the frame if it goes by descriptor.
    pub(super) parts: Option<&'a [Part]>,
}

/// The result of publishing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Published,
    /// No slot was free, and the writer does not wait for readers.
    Dropped,
    /// The wait for a reader or a slot was interrupted.
    Interrupted,
}

/// The reason why a frame cannot be published.
#[derive(Debug)]
pub(super) enum PublishError {
    /// The channel failed.
    Channel(Error),
    /// The buffer cannot be copied. The text gives the reason.
    Copy(String),
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        Self::Channel(error)
    }
}

/// Publishes one frame, and counts it as in place, copied or dropped.
pub(super) fn publish(writer: &Writer, counters: &Counters, frame: Frame) -> Result<Outcome, PublishError> {
    if !writer.upstream().wait_for_followers() {
        return Ok(Outcome::Interrupted);
    }
    if let Some(parts) = frame.parts {
        match publish_objects(writer, counters, frame, parts)? {
            Outcome::Published => counters.by_descriptor.add(1),
            other => return Ok(other),
        }
        return Ok(Outcome::Published);
    }
    if publish_in_place(writer, frame)? {
        counters.in_place.add(1);
    } else {
        match publish_copy(writer, counters, frame)? {
            Outcome::Published => {}
            other => return Ok(other),
        }
    }
    // A lossless writer waits now, so that upstream can draw the next frame into a slot. If this wait is interrupted,
    // no frame is lost, because this frame has been published.
    writer.upstream().wait_for_slot();
    Ok(Outcome::Published)
}

/// Publishes a buffer by descriptor. The channel keeps the buffer until nobody reads the frame any more.
fn publish_objects(
    writer: &Writer,
    counters: &Counters,
    frame: Frame,
    parts: &[Part],
) -> Result<Outcome, PublishError> {
    let mut descriptor = frame.descriptor;
    if let Some(info) = frame.info {
        let planes = Planes::of_buffer(frame.buffer, frame.buffer.size(), info);
        if !planes.is_default(info) {
            descriptor = planes.describe(descriptor);
        }
    } else if frame.is_opaque
        && let Some(planes) = Planes::of_opaque_buffer(frame.buffer)
    {
        descriptor = planes.describe(descriptor);
    }
    let parts: Vec<ObjectPart> = parts
        .iter()
        .map(|part| ObjectPart::new(&part.object, part.offset, part.size))
        .collect();
    loop {
        let owner = Box::new(frame.buffer.clone());
        match writer.objects().publish(&parts, descriptor, frame.metadata, owner) {
            Ok(Some(_)) => return Ok(Outcome::Published),
            Ok(None) if writer.is_lossless() => return Ok(Outcome::Interrupted),
            Ok(None) => {
                writer.record_drop();
                counters.dropped.add(1);
                return Ok(Outcome::Dropped);
            }
            // The channel's files were lost and created again meanwhile.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Publishes a buffer in place. Returns `false` if the buffer must be copied instead, for example because its memory is
/// not a slot or was published before.
fn publish_in_place(writer: &Writer, frame: Frame) -> Result<bool, PublishError> {
    if frame.kind != Kind::Wrapped || frame.buffer.n_memory() != 1 {
        return Ok(false);
    }
    let memory = frame.buffer.peek_memory(0);
    let Ok(map) = memory.map_readable() else {
        return Ok(false);
    };
    if !writer.upstream().owns(map.as_slice()) {
        return Ok(false);
    }
    let mut descriptor = frame.descriptor;
    if let Some(info) = frame.info {
        let planes = Planes::of_buffer(frame.buffer, map.size(), info);
        let is_default = planes.is_default(info);
        if !planes.fit_as(is_default, info, map.size()) {
            return Ok(false);
        }
        if !is_default {
            descriptor = planes.describe(descriptor);
        }
    }
    // The memory becomes read-only before the publish, because nobody in this process may draw into a published frame.
    memory::mark_read_only(memory);
    match writer.upstream().publish(map.as_slice(), descriptor, frame.metadata) {
        Ok(_) => Ok(true),
        Err(Error::NotPublishable { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies a buffer into a slot, and publishes the slot.
fn publish_copy(writer: &Writer, counters: &Counters, frame: Frame) -> Result<Outcome, PublishError> {
    let Frame { buffer, info, .. } = frame;
    let size = info.map_or_else(|| buffer.size(), VideoInfo::size);
    let mut descriptor = frame.descriptor;
    descriptor.size = size as u64;
    loop {
        let Some(mut slot) = writer.claim(size)? else {
            if writer.is_lossless() {
                return Ok(Outcome::Interrupted);
            }
            writer.record_drop();
            counters.dropped.add(1);
            return Ok(Outcome::Dropped);
        };
        let copier = slot.copier();
        copy_frame(buffer, slot.as_mut(), info, copier).map_err(PublishError::Copy)?;
        match writer.publish(&slot, descriptor, frame.metadata) {
            Ok(_) => break,
            // The channel's files were lost and created again between claim and publish, so the frame needs another
            // slot.
            Err(Error::NotPublishable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    copy_counter(writer, counters, frame).add(1);
    Ok(Outcome::Published)
}

/// The counter for the reason why `frame` was copied.
fn copy_counter<'a>(writer: &Writer, counters: &'a Counters, frame: Frame) -> &'a Counter {
    if metas::no_slot::is_on(frame.buffer) {
        &counters.copied_no_slot
    } else if frame.kind == Kind::Wrapped && is_published_slot(writer, frame.buffer) {
        &counters.copied_repeated
    } else {
        &counters.copied_foreign
    }
}

/// Whether the first memory of `buffer`, which has one, is a slot of the channel. If a buffer in a slot is copied, it has
/// been published before.
fn is_published_slot(writer: &Writer, buffer: &gst::BufferRef) -> bool {
    buffer
        .peek_memory(0)
        .map_readable()
        .is_ok_and(|map| writer.upstream().owns(map.as_slice()))
}

/// Copies a buffer into a slot: row by row if the buffer's layout is not the default layout, otherwise one whole memory
/// at a time.
fn copy_frame(from: &gst::BufferRef, to: &mut [u8], info: Option<&VideoInfo>, copier: Copier) -> Result<(), String> {
    if let Some(info) = info {
        let size = from.size();
        let planes = Planes::of_buffer(from, size, info);
        let is_default = planes.is_default(info);
        if !planes.fit_as(is_default, info, size) && !planes.is_unpadded(info, size) {
            return Err(planes.misfit(from, size, info));
        }
        if !is_default {
            return planes.copy_packed(from, info, to, copier);
        }
    }
    // The memories are copied one by one, so that GStreamer does not merge them first. They are mapped here, because
    // gst_buffer_extract does not check whether the mapping succeeds.
    let mut rest = to;
    for memory in from.iter_memories() {
        let from = memory.map_readable().map_err(|_| "it cannot be mapped for reading")?;
        let (part, after) = rest.split_at_mut(from.size().min(rest.len()));
        copier.copy(&from, part);
        rest = after;
    }
    Ok(())
}
