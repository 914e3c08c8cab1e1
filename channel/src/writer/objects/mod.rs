// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames of objects: their bytes stay in memory that belongs to upstream, and readers get its descriptors.
//!
//! `registry` has the objects, `server` gives readers their descriptors, and `socket_file` is where readers find it;
//! `service` holds these together. `owners` keeps what belongs to a published frame, and `retiring` gives it back.

pub(super) mod owners;
mod registry;
mod retiring;
mod server;
pub(super) mod service;
pub(super) mod socket_file;

use std::{any::Any, os::fd::BorrowedFd};

use super::{
    claim::{self, Content},
    inner::Inner,
    publish, waits,
};
use crate::{
    Error, FrameDescriptor,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{MAX_REFERENCES, ObjectReference, ReferenceTable},
    },
};
use owners::Owner;
pub use registry::Object;

/// A part of a frame: `size` bytes at `offset` of an object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectPart<'a> {
    /// The object.
    pub object: &'a Object,
    /// The offset of the part in the object, in bytes.
    pub offset: u64,
    /// The size of the part in bytes.
    pub size: u64,
}

impl<'a> ObjectPart<'a> {
    /// The part of `size` bytes at `offset`.
    pub fn new(object: &'a Object, offset: u64, size: u64) -> Self {
        Self { object, offset, size }
    }
}

/// The operations for frames of objects. [`Writer::objects`](crate::Writer::objects) returns this value.
///
/// The bytes of such a frame stay where upstream has written them, for example in the buffers of a camera. Readers get
/// a descriptor of each object once, and then only the number of the object in each frame.
///
/// # Examples
/// ```
/// use std::{fs::File, os::fd::AsFd};
/// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, ObjectPart, Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("rsshm-doc-objects-{}", std::process::id());
/// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
/// writer.set_caps(Caps::objects("video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1"))?;
/// // A camera with 8 buffers, which needs 3 of them itself.
/// writer.objects().set_spare(5);
/// # let path = format!("/dev/shm/.rsshm-doc-objects-{}", std::process::id());
/// # let memory = File::options().create_new(true).read(true).write(true).open(&path)?;
/// # std::fs::remove_file(path)?;
/// # memory.set_len(64 * 64)?;
/// // `memory` is a memfd or a dmabuf, and `buffer` is upstream's buffer in it.
/// let object = writer.objects().register(memory.as_fd())?;
/// # let buffer = ();
/// let part = ObjectPart::new(&object, 0, 64 * 64);
/// writer.objects().publish(&[part], FrameDescriptor::default(), &[], Box::new(buffer))?;
/// // The channel has the newest frame, and so the buffer.
/// assert_eq!(writer.objects().frames_out(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a>(&'a Inner);

impl<'a> Objects<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self(inner)
    }

    /// Sets how many buffers upstream can spare: how many frames may be out when [`publish`](Self::publish) returns.
    /// One more may be out for a moment, while the service gives it back. At least the newest frame is always out. If
    /// readers hold so many frames that the limit is near, they copy the next frames, or miss them.
    ///
    /// If `frames` is smaller than the number of frames that are out, the next publish adds at most one. Nobody can pin
    /// it, and no further frame is added until the number is below `frames`.
    ///
    /// With less than 3, readers copy each frame. The default is 4.
    pub fn set_spare(self, frames: u32) {
        let mut state = self.0.lock();
        state.spare_objects = frames;
        if let Some(slots) = state.chain.current_mut() {
            slots.set_spare_objects(frames);
        }
    }

    /// How many frames are out: published in any segment, and not yet given back.
    pub fn frames_out(self) -> u32 {
        self.0.lock().frames_out.count()
    }

    /// How many objects readers can ask for now.
    pub fn count(self) -> usize {
        self.0.objects().count()
    }

    /// The object of the memory that `file` is open on. For the same memory, it is the same object.
    ///
    /// # Errors
    /// [`Error::Object`] if the file is neither a dmabuf nor a file in memory, if it is empty, or if more than 256
    /// objects are in use. [`Error::System`], for example if this process has too many open files.
    pub fn register(self, file: BorrowedFd<'_>) -> Result<Object, Error> {
        self.0.objects().register(self.0.name(), file)
    }

    /// Whether the object belongs to this writer. A program that keeps objects with its buffers asks this, because the
    /// object may be one of another writer.
    pub fn owns(self, object: &Object) -> bool {
        self.0.objects().owns(object)
    }

    /// Publishes a frame that consists of `parts`, one after another, and returns its seq. `None` if there is no slot:
    /// the frame is lost, as after a [`claim`](crate::Writer::claim) without a result.
    ///
    /// `owner` is dropped when nobody can read the frame any more, on the thread that publishes, or on that of the
    /// service. From then on, upstream may write into the memory. If the call fails, `owner` is dropped at once. The
    /// size of the frame is that of all parts together; the planes of `descriptor` are counted from its first byte.
    ///
    /// # Errors
    /// [`Error::Object`] if there are no parts, or more than 4, or one is not inside its object, or the object belongs
    /// to another writer. [`Error::Option`] if the
    /// caps are not those of objects. [`Error::NotPublishable`] if the caps have changed meanwhile. The errors of
    /// [`Writer::claim`](crate::Writer::claim) and of [`Writer::publish`](crate::Writer::publish).
    pub fn publish(
        self,
        parts: &[ObjectPart<'_>],
        mut descriptor: FrameDescriptor,
        metadata: &[u8],
        owner: Box<dyn Any + Send>,
    ) -> Result<Option<u64>, Error> {
        let table = self.table(parts)?;
        descriptor.size = parts.iter().map(|part| part.size).sum();
        descriptor.data_offset = 0;
        let owner = Owner::new(parts.iter().map(|part| part.object.clone()).collect(), owner);
        // A frame that readers have released since the last publish makes room for this one.
        self.retire();
        if !waits::wait_for_objects(self.0, descriptor.size) {
            return Ok(None);
        }
        let size = size_of::<ReferenceTable>();
        let Some(mut slot) = claim::claim_for_copy(self.0, size, Content::References, &|| true)? else {
            return Ok(None);
        };
        slot.as_mut().copy_from_slice(bytemuck::bytes_of(&table));
        let former = match self.0.lock().chain.current_if(slot.segment()) {
            Some(slots) => slots.set_owner(slot.index(), owner),
            None => return Err(self.0.not_publishable()),
        };
        drop(former);
        failpoint(Failpoint::OwnerStored);
        let published = publish::publish_claimed(self.0, &slot, descriptor, metadata);
        // If the frame was not published, its slot has no frame, so that its owner value is dropped below.
        drop(slot);
        failpoint(Failpoint::RetireDue);
        self.retire();
        published.map(Some)
    }

    /// Gives back the buffers of frames that nobody can read any more, in all segments.
    fn retire(self) {
        let owners = self.0.lock().chain.retire_objects(self.0.options().lossless);
        failpoint(Failpoint::OwnersDue);
        drop(owners);
    }

    fn table(self, parts: &[ObjectPart<'_>]) -> Result<ReferenceTable, Error> {
        let error = |what: String| Error::Object {
            channel: self.0.name().to_string(),
            what,
        };
        let mut references = [ObjectReference::default(); MAX_REFERENCES];
        let Some(used) = references.get_mut(..parts.len()).filter(|used| !used.is_empty()) else {
            return Err(error(format!(
                "a frame has {} parts, not 1 to {MAX_REFERENCES}",
                parts.len()
            )));
        };
        if parts.iter().any(|part| !self.owns(part.object)) {
            return Err(error(
                "an object belongs to another writer; register its memory again".to_owned(),
            ));
        }
        for (reference, part) in used.iter_mut().zip(parts) {
            *reference = part.object.part(part.offset, part.size).ok_or_else(|| {
                error(format!(
                    "a part of {} bytes at {} is not inside its object of {} bytes",
                    part.size,
                    part.offset,
                    part.object.size()
                ))
            })?;
        }
        ReferenceTable::new(used).ok_or_else(|| error("a frame has no parts".to_owned()))
    }
}
