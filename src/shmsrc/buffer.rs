// SPDX-License-Identifier: MIT OR Apache-2.0

//! Turns the channel's frames into buffers.

use std::sync::Arc;

use gst_audio::AudioInfo;
use gst_video::VideoInfo;
use rsshm_channel::{Copier, CopyTarget, Frame, FrameData, ObjectFrame, ReceivedObject};

use super::{CAT, shared::Context, timing::Stamps};
use crate::{
    frame, memory,
    metas::{self, Skipped},
    planes::Planes,
};

/// A buffer that a frame is copied into.
#[derive(Default)]
pub(super) struct CopyBuffer(Option<gst::buffer::MappedBuffer<gst::buffer::Writable>>);

impl CopyTarget for CopyBuffer {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        if self.0.as_ref().is_none_or(|buffer| buffer.size() != size) {
            self.0 = gst::Buffer::with_size(size)
                .ok()
                .and_then(|buffer| buffer.into_mapped_buffer_writable().ok());
        }
        self.0.as_mut().map(|buffer| buffer.as_mut_slice())
    }
}

/// Turns frames into buffers.
#[derive(Default)]
pub(super) struct BufferMaker {
    metas: metas::Decoder,
    /// A buffer without memory. It gets the memory of the next frame that is passed on in place.
    spare: Option<gst::Buffer>,
    /// The memory of each object, with the object. It is mapped once, and importers know it again.
    objects: Vec<(ReceivedObject, gst::Memory)>,
    /// Whether the memory of objects is given as GstDmaBufMemory, because the caps say so.
    gives_dmabufs: bool,
}

/// The most objects whose memory is kept. The oldest is forgotten first.
const MAX_OBJECTS: usize = 64;

impl BufferMaker {
    /// Prepares for the next frame. Call this before the wait for the frame, so that little is left to do when the
    /// frame arrives.
    pub(super) fn prepare(&mut self) {
        self.spare.get_or_insert_default();
    }

    /// Forgets the memory of all objects. It closes their descriptors as soon as downstream has released it.
    pub(super) fn forget_objects(&mut self) {
        self.objects.clear();
    }

    /// Turns a frame into a buffer; `None` if the frame does not match its caps. If the frame was copied, `copy` has
    /// its bytes.
    pub(super) fn make(
        &mut self,
        context: Context,
        frame: Frame,
        copy: CopyBuffer,
        format: metas::Format,
        stamps: Stamps,
    ) -> Result<Option<gst::Buffer>, gst::FlowError> {
        let descriptor = &frame.descriptor;
        let gives_dmabufs = context.shared.gives_dmabufs();
        if self.gives_dmabufs != gives_dmabufs {
            self.gives_dmabufs = gives_dmabufs;
            self.forget_objects();
        }
        let mut buffer = self.with_memory(frame.data, copy)?;
        if gives_dmabufs && !memory::is_dmabuf(&buffer) {
            gst::debug!(
                CAT,
                obj = context.element,
                "frame {} was copied, and downstream takes only dmabufs",
                frame.seq
            );
            return Ok(None);
        }
        if let Some(info) = format.video {
            let planes = Planes::of_descriptor(descriptor, info);
            if !planes.fit(info, buffer.size()) {
                gst::warning!(
                    CAT,
                    obj = context.element,
                    "frame {} is smaller than its caps say: {descriptor:?}",
                    frame.seq
                );
                return Ok(None);
            }
            if planes != Planes::default_of(info) {
                buffer = with_layout(context, buffer, &planes, info)?;
            }
        } else if let Some(picture) = format.opaque
            && let Some(planes) = Planes::of_opaque_descriptor(descriptor, buffer.size())
        {
            planes
                .add_opaque_meta(buffer.make_mut(), picture)
                .map_err(|_| gst::FlowError::Error)?;
        }
        let target = buffer.make_mut();
        frame::apply(target, descriptor);
        let skipped = self.metas.decode(&frame.metadata, format, target);
        if skipped != Skipped::default() {
            let (seq, Skipped { refused, unknown }) = (frame.seq, skipped);
            gst::debug!(
                CAT,
                obj = context.element,
                "frame {seq}: {refused} of its metas are not valid, {unknown} are unknown to this program"
            );
            context.shared.count_skipped_metas(skipped);
        }
        if let Some(info) = format.audio
            && !metas::complete_audio_layout(target, info)
        {
            warn_of_audio_layout(context, frame.seq, target, info);
            return Ok(None);
        }
        target.set_pts(stamps.pts);
        target.set_dts(stamps.dts);
        Ok(Some(buffer))
    }

    /// A buffer with the bytes of a frame.
    fn with_memory(&mut self, data: FrameData, copy: CopyBuffer) -> Result<gst::Buffer, gst::FlowError> {
        if let FrameData::Objects(objects) = data {
            return self.with_objects(objects);
        }
        // The memory of the last objects is not kept while the channel has other frames.
        self.forget_objects();
        let FrameData::InPlace(pinned) = data else {
            return copy
                .0
                .map(gst::buffer::MappedBuffer::into_buffer)
                .ok_or(gst::FlowError::Error);
        };
        // From here on, the memory owns the pin, and releases it even if the frame turns out not to match its caps.
        let mut buffer = self.spare.take().unwrap_or_default();
        if let Some(buffer) = buffer.get_mut() {
            buffer.append_memory(gst::Memory::from_slice(pinned));
        }
        Ok(buffer)
    }
}

impl BufferMaker {
    /// A buffer with the memories of a frame by descriptor. Each of them keeps the frame.
    fn with_objects(&mut self, objects: ObjectFrame) -> Result<gst::Buffer, gst::FlowError> {
        let mut buffer = self.spare.take().unwrap_or_default();
        let objects = Arc::new(objects);
        for part in objects.parts() {
            let (Ok(offset), Ok(size)) = (usize::try_from(part.offset()), usize::try_from(part.size())) else {
                return Err(gst::FlowError::Error);
            };
            let Some(whole) = self.memory_of(part.object()) else {
                return copy_of(&objects);
            };
            // The part is another memory on the same descriptor, so the frame ends with it and the whole stays.
            let part = whole.share(offset..offset + size);
            memory::mark_read_only(&part);
            memory::keep_frame(&part, Arc::clone(&objects));
            if let Some(buffer) = buffer.get_mut() {
                buffer.append_memory(part);
            }
        }
        Ok(buffer)
    }

    /// The memory of an object. `None` if this process has too many open files.
    fn memory_of(&mut self, object: &ReceivedObject) -> Option<gst::Memory> {
        if let Some((_, memory)) = self.objects.iter().find(|(known, _)| known == object) {
            return Some(memory.clone());
        }
        let memory = memory::of_object(object, self.gives_dmabufs)?;
        if self.objects.len() >= MAX_OBJECTS {
            self.objects.remove(0);
        }
        self.objects.push((object.clone(), memory.clone()));
        Some(memory)
    }
}

/// A buffer with a copy of a frame by descriptor.
#[cold]
fn copy_of(objects: &ObjectFrame) -> Result<gst::Buffer, gst::FlowError> {
    let size = objects.parts().iter().map(|part| part.size() as usize).sum();
    let mut copy = CopyBuffer::default();
    let memory = copy.prepare(size).ok_or(gst::FlowError::Error)?;
    objects.copy(memory).map_err(|_| gst::FlowError::Error)?;
    copy.0
        .map(gst::buffer::MappedBuffer::into_buffer)
        .ok_or(gst::FlowError::Error)
}

#[cold]
fn warn_of_audio_layout(context: Context, seq: u64, buffer: &gst::BufferRef, info: &AudioInfo) {
    gst::warning!(
        CAT,
        obj = context.element,
        "frame {seq} has {} bytes, which are no whole samples of {} planes of {}",
        buffer.size(),
        info.channels(),
        info.format()
    );
}

/// Adapts a buffer whose layout is not the default layout of its format. If downstream understands GstVideoMeta, the
/// buffer gets one that describes its layout. Otherwise the frame is copied into the default layout.
fn with_layout(
    context: Context,
    mut buffer: gst::Buffer,
    planes: &Planes,
    info: &VideoInfo,
) -> Result<gst::Buffer, gst::FlowError> {
    let needs_meta = context.shared.gives_dmabufs();
    if needs_meta || context.shared.downstream_takes_video_meta() && planes.fit_whole_strides(info, buffer.size()) {
        planes
            .add_meta(buffer.make_mut(), info)
            .map_err(|_| gst::FlowError::Error)?;
        return Ok(buffer);
    }
    copy_to_default_layout(&buffer, planes, info).map_err(|reason| {
        gst::element_error!(
            context.element,
            gst::ResourceError::Read,
            ("a frame could not be copied: {reason}")
        );
        gst::FlowError::Error
    })
}

fn copy_to_default_layout(from: &gst::BufferRef, planes: &Planes, info: &VideoInfo) -> Result<gst::Buffer, String> {
    let mut copy = gst::Buffer::with_size(info.size()).map_err(|error| error.to_string())?;
    let mut map = copy.make_mut().map_writable().map_err(|error| error.to_string())?;
    planes.copy_packed(from, info, &mut map, Copier::Ordinary)?;
    drop(map);
    Ok(copy)
}
