// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects of a writer as its steps see them: the registry, and the thread that answers readers.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
};

use super::{
    registry::{Object, RegisterError, Registry},
    server::Server,
    socket_file::SocketFile,
};
use crate::{
    ChannelName, Error,
    sys::{errno, files::FileId, object_file::NotAnObject, sync},
};

/// The registry, and the thread that gives readers the descriptors. The thread runs from the first segment with objects
/// until the writer is closed.
#[derive(Debug, Default)]
pub(crate) struct ObjectService {
    registry: Arc<Registry>,
    running: Mutex<Option<Running>>,
}

/// The thread, and the file of its socket.
#[derive(Debug)]
struct Running {
    file: SocketFile,
    server: Server,
}

impl ObjectService {
    /// Creates the socket and starts the thread, unless they exist. `announce` gets the inode of the socket's file
    /// before the file has its name. The caller holds the lock of the replacement of segments.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another user's file has the name of the socket, and the errors of the system.
    pub(crate) fn start(&self, name: &ChannelName, perms: u32, announce: impl FnOnce(u64)) -> Result<(), Error> {
        if sync::lock(&self.running).is_some() {
            return Ok(());
        }
        let running = self.run(name, perms, announce)?;
        *sync::lock(&self.running) = Some(running);
        Ok(())
    }

    fn run(&self, name: &ChannelName, perms: u32, announce: impl FnOnce(u64)) -> Result<Running, Error> {
        let (file, listener) = SocketFile::create(name, perms, announce)?;
        let server = Server::spawn(listener, Arc::clone(&self.registry)).map_err(|error| {
            file.remove();
            Error::system(
                name.as_str(),
                "creating a thread for objects (see ulimit -u and ulimit -v)",
                errno::of(&error),
            )
        })?;
        Ok(Running { file, server })
    }

    /// Makes the socket again if another program has removed it. The caller holds the lock of the replacement of
    /// segments.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub(crate) fn restore(&self, name: &ChannelName, perms: u32, announce: impl FnOnce(u64)) -> Result<(), Error> {
        let is_lost = |running: &Running| !running.file.has_name();
        if !sync::lock(&self.running).as_ref().is_some_and(is_lost) {
            return Ok(());
        }
        let running = self.run(name, perms, announce)?;
        let former = sync::lock(&self.running).replace(running);
        // The thread of the former socket ends here, without the lock.
        drop(former);
        Ok(())
    }

    /// Removes the socket. The thread ends when the returned value is dropped.
    #[must_use = "the thread ends when this value is dropped"]
    pub(crate) fn stop(&self) -> Option<Server> {
        let Running { file, server } = sync::lock(&self.running).take()?;
        file.remove();
        Some(server)
    }

    /// Lets readers of this segment ask for objects.
    pub(crate) fn add_segment(&self, segment: FileId) {
        self.registry.add_segment(segment);
    }

    /// Forgets objects that have not been used for a while; with `at_once`, all that are not used now.
    pub(crate) fn forget_unused(&self, at_once: bool) {
        self.registry.forget_unused(at_once);
    }

    /// Whether the object belongs to this writer.
    pub(super) fn owns(&self, object: &Object) -> bool {
        object.belongs_to(&self.registry)
    }

    /// The number of objects.
    pub(super) fn count(&self) -> usize {
        self.registry.len()
    }

    /// The object of the memory that `file` is open on.
    pub(super) fn register(&self, name: &ChannelName, file: BorrowedFd<'_>) -> Result<Object, Error> {
        let what = match self.registry.register(file) {
            Ok(object) => return Ok(object),
            Err(RegisterError::NotAnObject(NotAnObject::Failed(errno))) => {
                return Err(Error::system(name.as_str(), "opening the memory of an object", errno));
            }
            Err(RegisterError::NotAnObject(NotAnObject::OtherKind)) => {
                "the file is neither a dmabuf nor a file in memory (memfd, tmpfs); copy the frame into a slot"
            }
            Err(RegisterError::NotAnObject(NotAnObject::Empty)) => "the memory of an object has no bytes",
            Err(RegisterError::TooMany) => {
                "the frames refer to too many objects at a time; publish the same buffers again"
            }
        };
        Err(Error::Object {
            channel: name.to_string(),
            what: what.to_owned(),
        })
    }
}
