//! One buffer's way into the channel: in place where its memory is a slot, with one copy where it is not.

use std::sync::atomic::{AtomicU64, Ordering};

use gst::subclass::prelude::*;
use gst_video::VideoInfo;
use rsshm_channel::{Error, FrameDescriptor, Writer, WriterStats, copy_to_slot};

use super::imp::{CAT, RsShmSink};
use crate::{memory, metas, planes::Planes};

/// Where the frames came from.
#[derive(Default)]
pub(super) struct Counts {
    in_place: AtomicU64,
    foreign: AtomicU64,
    repeated: AtomicU64,
    no_slot: AtomicU64,
    dropped: AtomicU64,
    pub(super) metas_left_out: AtomicU64,
    pub(super) events_left_out: AtomicU64,
}

impl Counts {
    pub(super) fn reset(&self) {
        for count in [
            &self.in_place,
            &self.foreign,
            &self.repeated,
            &self.no_slot,
            &self.dropped,
            &self.metas_left_out,
            &self.events_left_out,
        ] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// The `channel-stats`: these counts and the writer's.
    pub(super) fn with(&self, stats: &WriterStats) -> gst::Structure {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (foreign, repeated, no_slot) = (count(&self.foreign), count(&self.repeated), count(&self.no_slot));
        gst::Structure::builder("rsshm-sink-stats")
            .field("frames-published", stats.published)
            .field("frames-in-place", count(&self.in_place))
            .field("frames-copied", foreign + repeated + no_slot)
            .field("copied-foreign", foreign)
            .field("copied-repeated", repeated)
            .field("copied-no-slot", no_slot)
            .field("frames-dropped", count(&self.dropped))
            .field("metas-left-out", count(&self.metas_left_out))
            .field("events-left-out", count(&self.events_left_out))
            .field("slots", stats.slots)
            .field("slots-in-use", stats.slots_in_use)
            .field("bytes", stats.bytes)
            .field("semaphore-timeouts", stats.semaphore_timeouts)
            .field("readers-evicted", stats.evicted)
            .build()
    }
}

/// What is to be published.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) buffer: &'a gst::Buffer,
    pub(super) descriptor: FrameDescriptor,
    /// Its metas.
    pub(super) metadata: &'a [u8],
    pub(super) info: Option<&'a VideoInfo>,
}

/// How a frame gets into its slot.
pub(super) enum Outcome {
    Published,
    /// No slot, and waiting is not wanted.
    Dropped,
    /// The wait for a reader or a slot was ended from outside.
    Interrupted,
}

impl RsShmSink {
    /// Brings one buffer into the channel, or says why that has to wait.
    pub(super) fn publish(&self, writer: &Writer, frame: Frame) -> Result<Outcome, gst::FlowError> {
        if !writer.upstream().wait_for_followers() {
            return Ok(Outcome::Interrupted);
        }
        if self.publish_in_place(writer, frame)? {
            self.counts.in_place.fetch_add(1, Ordering::Relaxed);
        } else {
            match self.publish_copy(writer, frame)? {
                Outcome::Published => {}
                other => return Ok(other),
            }
        }
        // Lossless: the next frame is drawn into a slot if there is one by then. An interrupted wait loses nothing.
        writer.upstream().wait_for_slot();
        Ok(Outcome::Published)
    }

    /// Publishes a buffer whose memory is a slot already; `false` when it is not, or was published before.
    fn publish_in_place(&self, writer: &Writer, frame: Frame) -> Result<bool, gst::FlowError> {
        let Frame {
            buffer,
            mut descriptor,
            metadata,
            info,
        } = frame;
        if buffer.n_memory() != 1 {
            return Ok(false);
        }
        let memory = buffer.peek_memory(0);
        if !memory::may_be_slot(memory) {
            return Ok(false);
        }
        let Ok(map) = memory.map_readable() else {
            return Ok(false);
        };
        if !writer.upstream().owns(map.as_slice()) {
            return Ok(false);
        }
        if let Some(info) = info {
            let planes = Planes::of_buffer(buffer, info);
            if !planes.fit(info, map.size()) {
                return Ok(false);
            }
            if planes != Planes::default_of(info) {
                planes.write_to(&mut descriptor);
            }
        }
        // Before it is published: from then on nobody in this process may draw into it.
        memory::mark_read_only(memory);
        match writer.upstream().publish(map.as_slice(), descriptor, metadata) {
            Ok(()) => Ok(true),
            Err(Error::NotPublishable { .. }) => Ok(false),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Copies a buffer into a slot and publishes that.
    fn publish_copy(&self, writer: &Writer, frame: Frame) -> Result<Outcome, gst::FlowError> {
        let Frame {
            buffer,
            mut descriptor,
            metadata,
            info,
        } = frame;
        let size = info.map_or_else(|| buffer.size(), VideoInfo::size);
        let Some(mut slot) = writer.claim(size).map_err(|error| self.fail(&error))? else {
            if writer.is_lossless() {
                return Ok(Outcome::Interrupted);
            }
            writer.record_drop();
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            gst::debug!(CAT, imp = self, "readers hold all slots: frame dropped");
            return Ok(Outcome::Dropped);
        };
        copy_frame(buffer, slot.as_mut(), info).map_err(|what| {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Write,
                ("channel {}: a frame could not be copied: {what}", writer.name()),
                ["{buffer:?}"]
            );
            gst::FlowError::Error
        })?;
        descriptor.size = size as u64;
        match writer.publish(&slot, descriptor, metadata) {
            Ok(()) => {}
            // The channel's files were lost and made again between claim and publish.
            Err(Error::NotPublishable { .. }) => {
                drop(slot);
                return self.publish_copy(writer, frame);
            }
            Err(error) => return Err(self.fail(&error)),
        }
        let count = if metas::had_no_slot(buffer) {
            &self.counts.no_slot
        } else if is_published_memory(writer, buffer) {
            &self.counts.repeated
        } else {
            &self.counts.foreign
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Published)
    }
}

/// Whether a buffer's memory is a slot of the channel, which then was published before.
fn is_published_memory(writer: &Writer, buffer: &gst::BufferRef) -> bool {
    buffer.n_memory() > 0
        && memory::may_be_slot(buffer.peek_memory(0))
        && buffer
            .peek_memory(0)
            .map_readable()
            .is_ok_and(|map| writer.upstream().owns(map.as_slice()))
}

/// The one copy: rows where the layouts differ, everything at once where they do not.
fn copy_frame(from: &gst::BufferRef, to: &mut [u8], info: Option<&VideoInfo>) -> Result<(), String> {
    let copy = copy_to_slot(to.len());
    if let Some(info) = info {
        let planes = Planes::of_buffer(from, info);
        if !planes.fit(info, from.size()) {
            return Err(format!(
                "its {} bytes are too few for its layout {:?} {:?}",
                from.size(),
                &planes.offset[..planes.count],
                &planes.stride[..planes.count]
            ));
        }
        if planes != Planes::default_of(info) {
            return planes.copy_packed(from, info, to, copy);
        }
    }
    // Memory by memory: a buffer of several is not merged first. And each mapped here: gst_buffer_extract does not check.
    let mut rest = to;
    for memory in from.iter_memories() {
        let from = memory.map_readable().map_err(|_| "it cannot be mapped for reading")?;
        let (part, behind) = rest.split_at_mut(from.size().min(rest.len()));
        copy(&from, part);
        rest = behind;
    }
    Ok(())
}
