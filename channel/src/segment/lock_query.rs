// SPDX-License-Identifier: MIT OR Apache-2.0

//! Queries of a channel's locks by programs that only look. They open the lock file only for reading, so they hold no
//! lock, and no peer notices them.

use std::os::fd::OwnedFd;

use crate::{
    ChannelName,
    protocol::layout::{FIRST_READER_BYTE, WRITER_BYTE},
    sys::{
        files::{self, FileId},
        lock,
    },
};

/// A lock file that is open only for queries.
#[derive(Debug)]
pub(crate) struct LockQuery {
    file: OwnedFd,
    pub(crate) file_id: FileId,
}

impl LockQuery {
    /// Opens the lock file of `name`; `None` if there is none, or if this user may not read it.
    pub(crate) fn open(name: &ChannelName) -> Option<Self> {
        let file = files::open(&name.lock_file_path(), false).ok().flatten()?;
        let file_id = files::file_id(&file).ok()?;
        Some(Self { file, file_id })
    }

    /// Whether the channel has a living writer; `None` if the kernel cannot tell.
    pub(crate) fn has_writer(&self) -> Option<bool> {
        lock::is_locked(&self.file, WRITER_BYTE).ok()
    }

    /// Whether the reader entry has a living owner; `None` if the kernel cannot tell.
    pub(crate) fn has_owner(&self, entry: usize) -> Option<bool> {
        lock::is_locked(&self.file, FIRST_READER_BYTE + entry as i64).ok()
    }
}

/// Whether a living process is the writer of the channel. `None` if there is no lock file, or if this user may not read
/// it.
///
/// The answer comes from the locks of the lock file, so it is right even if the writer has no segment yet. A stopped
/// writer counts as alive.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{ChannelName, has_writer};
///
/// assert_eq!(has_writer(&ChannelName::new("no-such-channel")?), None);
/// # Ok::<(), rsshm_channel::Error>(())
/// ```
pub fn has_writer(name: &ChannelName) -> Option<bool> {
    LockQuery::open(name)?.has_writer()
}
