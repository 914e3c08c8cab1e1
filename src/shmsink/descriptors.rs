// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames by descriptor: if a buffer's memory is a dmabuf or a memfd, readers get its descriptor, and nothing is copied.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use gst::prelude::*;
use gst_allocators::FdMemory;
use gst_video::VideoInfo;
use rsshm_channel::{Caps, Error, Object, Writer, WriterOptions, layout::MAX_REFERENCES};

use super::Descriptors as Policy;
use crate::{
    dmabuf,
    memory::{self, Kind},
    planes::Planes,
    sync::lock,
};

/// After a frame that could not go by descriptor, so many frames in a row must be able to. Then the channel goes on with
/// descriptors. A source that copies its buffers when it has few of them would otherwise cause two segments each time.
const RETURN_FRAMES: u32 = 30;
/// How many buffers upstream can spare if it has no pool, as a source that gets its memory from another program.
const SPARE_WITHOUT_POOL: u32 = 4;
/// How many buffers a source with a limited pool needs for itself: it fills one, has one ready, and passes one on.
const SOURCE_BUFFERS: u32 = 3;
/// How many buffers a source can spare that makes as many as it needs.
const SPARE_OF_UNLIMITED_POOL: u32 = 16;

/// A part of a frame: `size` bytes at `offset` of an object.
pub(super) struct Part {
    pub(super) object: Object,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Whether frames go by descriptor, and the caps for both ways.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    state: Mutex<State>,
    /// Whether a frame without a descriptor matters. If not, most frames cost no lock here.
    is_active: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    policy: Policy,
    /// The caps of frames in slots, and of frames by descriptor; `None` before the first caps.
    caps: Option<(Option<Caps>, Caps)>,
    /// The format of frames that only devices can read, and that therefore cannot be in slots.
    opaque_format: Option<String>,
    uses_objects: bool,
    /// How many more frames must be able to go by descriptor before they do.
    frames_until_return: u32,
    /// The pool whose buffers were last counted, and how many of them upstream can spare.
    spare: Option<(usize, u32)>,
}

impl Descriptors {
    /// Records the caps of the next frames. `slots` are the caps of these frames in slots; `None` if they cannot be in slots.
    pub(super) fn set_caps(&self, slots: Option<Caps>, caps: &gst::Caps) -> Caps {
        let mut state = lock(&self.state);
        let objects = Caps::objects(caps.to_string());
        // The first frame shows whether dmabufs are copied. Most are not, and each change costs a segment.
        let is_first = state.caps.is_none();
        if slots.is_none() || is_first && dmabuf::has_feature(caps) && state.policy != Policy::Never {
            state.uses_objects = true;
        }
        let current = match &slots {
            Some(slots) if !state.uses_objects => slots.clone(),
            _ => objects.clone(),
        };
        state.caps = Some((slots, objects));
        state.opaque_format = dmabuf::opaque_format(caps);
        self.note_activity(&state);
        current
    }

    /// Forgets everything, because another channel begins. From here on, frames go by descriptor as `policy` says.
    pub(super) fn reset(&self, policy: Policy) {
        *lock(&self.state) = State::default();
        self.set_policy(policy);
    }

    /// Sets which frames go by descriptor.
    pub(super) fn set_policy(&self, policy: Policy) {
        let mut state = lock(&self.state);
        state.policy = policy;
        self.note_activity(&state);
    }

    fn note_activity(&self, state: &State) {
        let is_active = state.policy == Policy::Always || state.uses_objects || state.frames_until_return > 0;
        // Relaxed: the lock of the state orders the stores. A frame that meets a change of the policy may follow the
        // former one.
        self.is_active.store(is_active, Ordering::Relaxed);
    }

    /// Whether a buffer whose first memory is of this kind has nothing to do with descriptors.
    pub(super) fn are_irrelevant_for(&self, kind: Kind) -> bool {
        // Relaxed: as in `note_activity`.
        !self.is_active.load(Ordering::Relaxed) && kind != Kind::WithDescriptor
    }

    /// The parts of a frame that goes by descriptor; `None` if the frame is copied or is in a slot. The writer gets the
    /// caps that the frame needs.
    pub(super) fn prepare(
        &self,
        writer: &Writer,
        options: WriterOptions,
        buffer: &gst::BufferRef,
        info: Option<&VideoInfo>,
    ) -> Result<Option<Vec<Part>>, Error> {
        let policy = lock(&self.state).policy;
        let parts = match policy {
            Policy::Never => None,
            Policy::Auto if has_observers(options) => None,
            Policy::Auto => parts(writer, buffer, info)?,
            Policy::Always => Some(parts(writer, buffer, info)?.ok_or_else(|| Error::Object {
                channel: writer.name().to_string(),
                what: "a buffer is not in a dmabuf or a memfd, and descriptors=always was set; let upstream use such memory \
                       (v4l2src io-mode=dmabuf), or set descriptors=auto"
                    .to_owned(),
            })?),
        };
        if parts.is_none()
            && let Some(format) = lock(&self.state).opaque_format.clone()
        {
            return Err(Error::Object {
                channel: writer.name().to_string(),
                what: format!(
                    "the frames have the format {format}, whose modifier only devices can read, so they cannot be copied, and \
                     a buffer cannot go by descriptor; leave descriptors=auto and perms=0600, or put \"video/x-raw\" as a caps \
                     filter before this element"
                ),
            });
        }
        let change = {
            let mut state = lock(&self.state);
            let change = state.note_frame(parts.is_some());
            self.note_activity(&state);
            change
        };
        if let Some(caps) = change {
            writer.set_caps(caps)?;
        }
        let Some(parts) = parts.filter(|_| lock(&self.state).uses_objects) else {
            return Ok(None);
        };
        self.update_spare(writer, buffer);
        Ok(Some(parts))
    }

    /// Says the writer how many buffers upstream can spare, if the buffers come from another pool than before.
    fn update_spare(&self, writer: &Writer, buffer: &gst::BufferRef) {
        let pool = memory::pool_of(buffer);
        let address = pool.as_ref().map_or(0, |pool| ObjectType::as_ptr(pool).addr());
        if lock(&self.state).spare.is_some_and(|(known, _)| known == address) {
            return;
        }
        let largest_size = |pool: &gst::BufferPool| pool.config().params().map_or(0, |(_, _, _, largest)| largest);
        let spare = match pool.as_ref().map(largest_size) {
            None => SPARE_WITHOUT_POOL,
            Some(0) => SPARE_OF_UNLIMITED_POOL,
            Some(size) => size.saturating_sub(SOURCE_BUFFERS).max(2),
        };
        lock(&self.state).spare = Some((address, spare));
        writer.objects().set_spare(spare);
    }
}

impl State {
    /// Decides whether the next frame goes by descriptor. Returns other caps if this changes.
    fn note_frame(&mut self, has_descriptors: bool) -> Option<Caps> {
        if has_descriptors {
            self.frames_until_return = self.frames_until_return.saturating_sub(1);
        } else if self.uses_objects || self.frames_until_return > 0 {
            self.frames_until_return = RETURN_FRAMES;
        }
        let uses_objects = has_descriptors && self.frames_until_return == 0;
        if uses_objects == self.uses_objects {
            return None;
        }
        self.uses_objects = uses_objects;
        let (slots, objects) = self.caps.as_ref()?;
        if uses_objects {
            Some(objects.clone())
        } else {
            slots.clone()
        }
    }
}

/// Whether users may observe the channel who may not attach. They could not read frames by descriptor.
fn has_observers(options: WriterOptions) -> bool {
    [0o060, 0o006]
        .into_iter()
        .any(|class| options.perms & class & 0o044 != 0 && options.perms & class != class)
}

/// The parts of a buffer whose memories all have descriptors; `None` if the buffer has another memory, or if its planes are
/// not inside it.
fn parts(writer: &Writer, buffer: &gst::BufferRef, info: Option<&VideoInfo>) -> Result<Option<Vec<Part>>, Error> {
    if !(1..=MAX_REFERENCES).contains(&buffer.n_memory()) {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(buffer.n_memory());
    for index in 0..buffer.n_memory() {
        let memory = buffer.peek_memory(index);
        let Some(object) = object_of(writer, memory)? else {
            return Ok(None);
        };
        let (offset, size) = (memory.offset() as u64, memory.size() as u64);
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > object.size()) {
            return Ok(None);
        }
        parts.push(Part { object, offset, size });
    }
    if let Some(info) = info {
        let size = buffer.size();
        let planes = Planes::of_buffer(buffer, size, info);
        if !planes.fit_as(planes.is_default(info), info, size) {
            return Ok(None);
        }
    }
    Ok(Some(parts))
}

/// The object of a memory with a descriptor. It is registered once and kept with the memory, so a buffer of a pool needs no
/// system call when it comes again.
fn object_of(writer: &Writer, memory: &gst::MemoryRef) -> Result<Option<Object>, Error> {
    let Some(with_descriptor) = memory.downcast_memory_ref::<FdMemory>() else {
        return Ok(None);
    };
    if let Some(object) = memory::object_of(memory).filter(|object| writer.objects().owns(object)) {
        return Ok(Some(object));
    }
    let Some(descriptor) = memory::descriptor_of(with_descriptor) else {
        return Ok(None);
    };
    match writer.objects().register(descriptor) {
        Ok(object) => {
            memory::keep_object(memory, object.clone());
            Ok(Some(object))
        }
        // The memory is of another kind, or this process has too many open files. The frame is copied.
        Err(Error::Object { .. } | Error::System { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
