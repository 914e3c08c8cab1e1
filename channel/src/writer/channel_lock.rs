// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer's lock on the channel, which is a lock on one byte of the lock file.

use std::sync::{Arc, atomic::Ordering};

use super::options::WriterOptions;
use crate::{
    ChannelName, Error,
    protocol::layout::{WRITER_BYTE, state},
    segment::{
        self, Access, Segment,
        lock_file::{LockAttempt, LockFile},
    },
    sys::{files, lock::OfdLock},
};

/// The lock file of a channel, and the lock that makes this writer the channel's writer.
#[derive(Debug)]
pub(super) struct ChannelLock {
    lock_file: Arc<LockFile>,
    /// `None` after the writer was closed.
    writer_lock: Option<OfdLock>,
    /// Whether [`take`](Self::take) has created the file.
    is_new: bool,
}

impl ChannelLock {
    /// Opens or creates the lock file and takes the writer's lock. A file that exists keeps its mode.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has this lock, [`Error::Foreign`] if the file belongs to another user, and
    /// the errors of the system.
    pub(super) fn take(name: &ChannelName, options: WriterOptions) -> Result<Self, Error> {
        let path = name.lock_file_path();
        match files::open(&path, true) {
            Ok(None) => {
                let (lock_file, lock) = LockFile::create(name, options.perms)?.ok_or_else(|| busy(name))?;
                return Ok(Self::new(lock_file, lock, true));
            }
            Ok(Some(file)) => {
                files::require_own(name.as_str(), &path, &file)?;
            }
            Err(error) => return Err(files::open_error(name.as_str(), &path, "write", &error)),
        }
        let was_repaired = LockFile::repair(name)?;
        let lock_file = LockFile::open(name)?.ok_or_else(|| busy(name))?;
        let LockAttempt::Locked(_, lock) = lock_file.take_first([WRITER_BYTE])? else {
            return Err(busy(name));
        };
        // The former writer may have removed the lock file's name after this writer opened the file and before it got
        // the lock.
        if files::file_id_of(&path) != Some(lock_file.file_id()) {
            return Err(busy(name));
        }
        if was_repaired {
            lock_file.initialise()?;
        }
        Ok(Self::new(lock_file, lock, false))
    }

    fn new(lock_file: LockFile, writer_lock: OfdLock, is_new: bool) -> Self {
        Self {
            lock_file: Arc::new(lock_file),
            writer_lock: Some(writer_lock),
            is_new,
        }
    }

    pub(super) fn lock_file(&self) -> &Arc<LockFile> {
        &self.lock_file
    }

    /// Whether [`take`](Self::take) has created the lock file.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this writer is still the channel's writer, that is, has not been closed.
    pub(super) fn is_held(&self) -> bool {
        self.writer_lock.is_some()
    }

    /// Removes the lock file's name, if this name still belongs to the file.
    pub(super) fn remove_file(&self) {
        files::remove_if(self.lock_file.path(), self.lock_file.file_id());
    }

    /// Releases the writer's lock.
    pub(super) fn release(&mut self) {
        self.writer_lock = None;
    }
}

/// The error for a channel that has a writer already.
pub(super) fn busy(name: &ChannelName) -> Error {
    Error::Busy {
        channel: name.to_string(),
        pid: writer_pid(name),
    }
}

/// The process ID of the writer, as the header of the channel's segment states it.
fn writer_pid(name: &ChannelName) -> Option<u32> {
    let (file, stat) = segment::open_file(name, false).ok().flatten()?;
    let segment = Segment::open(name, file, &stat, Access::Observe).ok()?;
    // Acquire: pairs with the release store in `supersede`. The writer of a superseded segment is dead, and another
    // writer has taken over its channel.
    let state = segment.tables.status().state.load(Ordering::Acquire);
    (state & state::SUPERSEDED == 0).then_some(segment.header.writer_pid)
}
