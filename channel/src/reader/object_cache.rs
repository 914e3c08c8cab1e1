// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects that a reader keeps, so that it needs each descriptor once.

use std::sync::{Arc, Mutex, OnceLock};

use super::{
    object_fetch::{self, FetchError, ObjectFault},
    received_object::{FramePart, ReceivedObject},
};
use crate::{
    ChannelName,
    protocol::layout::{MAX_REFERENCES, ReferenceTable},
    segment::{Segment, wait::Waiter},
    sys::sync,
};

/// The most objects that a reader keeps in one segment. A frame that the program holds keeps its objects too.
const MAX_OBJECTS: usize = 64;
/// When another object comes, the reader forgets the objects that were not used in so many last frames, because their
/// memory may be gone for the writer. A pool of buffers has fewer objects.
const UNUSED_FRAMES: u64 = 256;

/// The objects of one segment.
#[derive(Debug)]
pub(super) struct ObjectCache {
    name: ChannelName,
    kept: Mutex<Kept>,
    /// The waits of the reader, which another thread can end.
    waiter: OnceLock<Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The objects, and in which look-up each was used last.
    objects: Vec<(ReceivedObject, u64)>,
    /// How many frames were looked up.
    frames: u64,
}

impl ObjectCache {
    pub(super) fn new(name: &ChannelName) -> Self {
        Self {
            name: name.clone(),
            kept: Mutex::default(),
            waiter: OnceLock::new(),
        }
    }

    pub(super) fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Lets an interruption of the reader end a fetch too.
    pub(super) fn set_waiter(&self, waiter: &Arc<Waiter>) {
        // A second call would set the same value.
        let _ = self.waiter.set(Arc::clone(waiter));
    }

    /// The parts of a frame of `frame_size` bytes. The objects that the reader does not have yet are fetched from the
    /// writer. An error if the table is invalid, or if an object cannot be got.
    pub(super) fn find(
        &self,
        segment: &Segment,
        table: &ReferenceTable,
        frame_size: u64,
    ) -> Result<Vec<FramePart>, FetchError> {
        let references = table
            .parts(frame_size)
            .ok_or(ObjectFault::Invalid("the references of the frame are invalid"))?;
        let mut parts = Vec::with_capacity(MAX_REFERENCES);
        let frame = self.begin_frame();
        for reference in references {
            let known = self.known(reference.object, frame);
            let object = match known {
                Some(object) => object,
                None => {
                    let object = object_fetch::fetch(&self.name, segment, reference, &|| self.is_interrupted())?;
                    self.keep(object, frame)
                }
            };
            let has_kind = object.kind() as u32 == reference.kind;
            let part = FramePart::new(object, reference.offset, reference.size).filter(|_| has_kind);
            parts.push(part.ok_or(ObjectFault::Invalid("a part of the frame is not inside its memory"))?);
        }
        Ok(parts)
    }

    fn is_interrupted(&self) -> bool {
        self.waiter.get().is_some_and(|waiter| waiter.is_interrupted())
    }

    fn begin_frame(&self) -> u64 {
        let mut kept = sync::lock(&self.kept);
        kept.frames += 1;
        kept.frames
    }

    fn known(&self, id: u64, frame: u64) -> Option<ReceivedObject> {
        let mut kept = sync::lock(&self.kept);
        let (object, last_used) = kept.objects.iter_mut().find(|(object, _)| object.id() == id)?;
        *last_used = frame;
        Some(object.clone())
    }

    /// Keeps an object, and forgets those that have not been used for the longest time.
    pub(super) fn keep(&self, object: ReceivedObject, frame: u64) -> ReceivedObject {
        let mut kept = sync::lock(&self.kept);
        let oldest_kept = frame.saturating_sub(UNUSED_FRAMES);
        let (used, mut forgotten): (Vec<_>, Vec<_>) = kept
            .objects
            .drain(..)
            .partition(|(_, last_used)| *last_used >= oldest_kept);
        kept.objects = used;
        if kept.objects.len() >= MAX_OBJECTS {
            let oldest = kept
                .objects
                .iter()
                .enumerate()
                .min_by_key(|(_, (_, last_used))| *last_used);
            if let Some(oldest) = oldest.map(|(index, _)| index) {
                forgotten.push(kept.objects.swap_remove(oldest));
            }
        }
        kept.objects.push((object.clone(), frame));
        drop(kept);
        // The files are closed here, without the lock.
        drop(forgotten);
        object
    }
}
