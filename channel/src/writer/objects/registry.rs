// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects of a writer: which memory readers may ask for.

use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    protocol::layout::{self, ObjectReference, ObjectReply, ObjectRequest, object_status},
    sys::{
        files::FileId,
        object_file::{NotAnObject, ObjectFile, ObjectKind},
        sync,
    },
};

/// The most objects of a writer. A pool of buffers has fewer.
const MAX_OBJECTS: usize = 256;
/// How long an object is kept that no frame and no handle refers to. A source that opens the same memory again for each
/// frame keeps its objects in this way.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(3);
/// How many segments the writer remembers, so that readers of superseded segments get objects too.
const MAX_SEGMENTS: usize = 9;

/// The memory of frames: a memfd, or a dmabuf. Readers get a descriptor of it once.
///
/// A program registers the memory of each buffer once, and keeps this handle as long as the buffer may be published
/// again. [`Objects::register`](crate::Objects::register) returns the same object for the same memory, whatever
/// descriptor it gets.
#[derive(Clone, Debug)]
pub struct Object(Arc<Registered>);

#[derive(Debug)]
struct Registered {
    /// The number of the registry, because the ids of two writers may be equal.
    registry: u64,
    id: u64,
    /// The memory as the program has it. It is compared when the same memory comes again.
    source: FileId,
    file: ObjectFile,
}

impl Object {
    /// The number of the object, which no other object of this writer has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The kind of the memory.
    pub fn kind(&self) -> ObjectKind {
        self.0.file.kind()
    }

    /// The size of the memory in bytes.
    pub fn size(&self) -> u64 {
        self.0.file.size()
    }

    /// The reference to a part of the object; `None` if the part has no bytes, or is not inside the object.
    pub(super) fn part(&self, offset: u64, size: u64) -> Option<ObjectReference> {
        let end = offset.checked_add(size)?;
        (size > 0 && end <= self.size()).then(|| ObjectReference::new(self.id(), self.kind() as u32, offset, size))
    }

    /// The opened memory.
    pub(super) fn file(&self) -> &ObjectFile {
        &self.0.file
    }

    /// Whether the object belongs to this registry.
    pub(super) fn belongs_to(&self, registry: &Registry) -> bool {
        self.0.registry == registry.id
    }

    /// Whether only the registry has the object.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Why memory cannot be registered.
#[derive(Debug)]
pub(super) enum RegisterError {
    NotAnObject(NotAnObject),
    /// There are [`MAX_OBJECTS`] objects in use.
    TooMany,
}

/// The objects of a writer, and the segments whose readers may ask for them.
#[derive(Debug)]
pub(super) struct Registry {
    /// The number of the registry in this process.
    id: u64,
    state: Mutex<State>,
}

impl Default for Registry {
    fn default() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            // Relaxed: the numbers only have to differ.
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            state: Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    newest_id: u64,
    /// The objects, and when each was last used.
    objects: Vec<(Object, Instant)>,
    segments: VecDeque<FileId>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The object of the memory that `file` is open on.
    pub(super) fn register(&self, file: BorrowedFd<'_>) -> Result<Object, RegisterError> {
        let source = crate::sys::files::file_id(file).map_err(|errno| RegisterError::NotAnObject(errno.into()))?;
        if let Some(object) = self.lock().find_source(source) {
            return Ok(object);
        }
        // The file is opened without the lock. The registry keeps it open, so its identity belongs to no other file.
        let file = ObjectFile::open_again(file).map_err(RegisterError::NotAnObject)?;
        let mut state = self.lock();
        if let Some(object) = state.find_source(source) {
            return Ok(object);
        }
        let dropped = (state.objects.len() >= MAX_OBJECTS).then(|| state.take_unused(|_| true));
        if state.objects.len() >= MAX_OBJECTS {
            return Err(RegisterError::TooMany);
        }
        state.newest_id += 1;
        let object = Object(Arc::new(Registered {
            registry: self.id,
            id: state.newest_id,
            source,
            file,
        }));
        state.objects.push((object.clone(), Instant::now()));
        drop(state);
        drop(dropped);
        Ok(object)
    }

    /// Lets readers of this segment ask for objects.
    pub(super) fn add_segment(&self, segment: FileId) {
        let mut state = self.lock();
        state.segments.push_back(segment);
        let too_many = state.segments.len().saturating_sub(MAX_SEGMENTS);
        state.segments.drain(..too_many);
    }

    /// Forgets objects that have not been used for a while; with `at_once`, all that are not used now.
    pub(super) fn forget_unused(&self, at_once: bool) {
        let mut state = self.lock();
        let forgotten = state.take_unused(|last_used| at_once || last_used.elapsed() > UNUSED_TIMEOUT);
        drop(state);
        // The files are closed here, without the lock.
        drop(forgotten);
    }

    /// The number of objects.
    pub(super) fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// The answer to a request, and the object whose descriptor comes with it. `request` is what a peer has sent, which
    /// may be anything.
    pub(super) fn answer(&self, request: Option<ObjectRequest>) -> (ObjectReply, Option<Object>) {
        let request = request.filter(|request| request.magic == layout::OBJECT_MAGIC);
        let (status, object) = match request {
            None => (object_status::BAD_REQUEST, None),
            Some(request) => self.lock().find(&request),
        };
        let reply = ObjectReply {
            magic: layout::OBJECT_MAGIC,
            object: request.map_or(0, |request| request.object),
            size: object.as_ref().map_or(0, Object::size),
            kind: object.as_ref().map_or(0, |object| object.kind() as u32),
            status,
        };
        (reply, object)
    }
}

impl State {
    fn find_source(&mut self, source: FileId) -> Option<Object> {
        let (object, last_used) = self.objects.iter_mut().find(|(object, _)| object.0.source == source)?;
        *last_used = Instant::now();
        Some(object.clone())
    }

    fn find(&self, request: &ObjectRequest) -> (u32, Option<Object>) {
        let segment = FileId {
            device: request.device,
            inode: request.inode,
        };
        if !self.segments.contains(&segment) {
            return (object_status::UNKNOWN_SEGMENT, None);
        }
        match self.objects.iter().find(|(object, _)| object.id() == request.object) {
            Some((object, _)) => (object_status::OK, Some(object.clone())),
            None => (object_status::UNKNOWN_OBJECT, None),
        }
    }

    /// Removes the unused objects whose last use `is_due` accepts. An object that is in use counts as used now.
    fn take_unused(&mut self, is_due: impl Fn(Instant) -> bool) -> Vec<Object> {
        let mut forgotten = Vec::new();
        self.objects.retain_mut(|(object, last_used)| {
            if !object.is_unused() {
                *last_used = Instant::now();
                return true;
            }
            let is_kept = !is_due(*last_used);
            if !is_kept {
                forgotten.push(object.clone());
            }
            is_kept
        });
        forgotten
    }
}
