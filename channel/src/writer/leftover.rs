// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files that a dead writer has left, and their removal.

use super::{Writer, channel_lock::ChannelLock, options::WriterOptions, takeover};
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{MAGIC, MAX_READERS, WRITER_BYTE},
    },
    segment::{self, lock_query::LockQuery},
    sys::{errno, files, lock},
};

/// Whether the files of a channel may be removed, because no living process has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// The channel has no segment.
    Nothing,
    /// The channel has a living writer; a stopped one counts as alive.
    HasWriter,
    /// The writer is dead, but this many readers are alive. They wait for the next writer, or still use frames.
    HasReaders(usize),
    /// No living process has the files.
    Removable,
}

impl Leftover {
    /// Asks the locks of the channel, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Denied`] if this user may not ask the locks, [`Error::Foreign`] if the file is not a segment.
    ///
    /// # Examples
    ///
    /// ```
    /// use rsshm_channel::{ChannelName, Leftover};
    ///
    /// assert_eq!(Leftover::of(&ChannelName::new("no-such-channel")?), Ok(Leftover::Nothing));
    /// # Ok::<(), rsshm_channel::Error>(())
    /// ```
    pub fn of(name: &ChannelName) -> Result<Self, Error> {
        let denied = |path: &str, error: &std::io::Error| files::open_error(name.as_str(), path, "read", error);
        let path = name.segment_path();
        let Some((file, _)) = segment::open_file(name, false).map_err(|error| denied(&path, &error))? else {
            return Ok(Self::Nothing);
        };
        let mut magic = [0; 8];
        if files::read_exactly(&file, &mut magic, 0) != Ok(true) || u64::from_ne_bytes(magic) != MAGIC {
            return Err(Error::Foreign {
                channel: name.to_string(),
                path,
                what: "is not a segment of a channel".to_owned(),
            });
        }
        // A lock whose state is unknown counts as held.
        if lock::is_locked(&file, WRITER_BYTE) != Ok(false) {
            return Ok(Self::HasWriter);
        }
        let path = name.lock_file_path();
        match files::open(&path, false) {
            Err(error) if errno::is_denied(errno::of(&error)) => return Err(denied(&path, &error)),
            _ => {}
        }
        let Some(locks) = LockQuery::open(name) else {
            return Ok(Self::Removable);
        };
        if locks.has_writer() != Some(false) {
            return Ok(Self::HasWriter);
        }
        Ok(Self::with_readers(&locks))
    }

    /// Whether the files of a channel without a writer may be removed. A lock whose state is unknown counts as held.
    fn with_readers(locks: &LockQuery) -> Self {
        let readers = (0..MAX_READERS).filter(|entry| locks.has_owner(*entry) != Some(false));
        match readers.count() {
            0 => Self::Removable,
            readers => Self::HasReaders(readers),
        }
    }

    /// Removes the files of a channel that no living process has; the result [`Removable`](Self::Removable) says that
    /// they were removed.
    ///
    /// Only a channel's writer may remove its files. Therefore this function becomes the writer, asks the readers'
    /// locks again, and closes the channel. If a new writer starts at this moment, it waits until the files are gone;
    /// if it was first, nothing is removed.
    ///
    /// # Errors
    /// Those of [`of`](Self::of) and of [`Writer::open`], except [`Error::Busy`].
    pub fn remove(name: &ChannelName) -> Result<Self, Error> {
        let found = Self::of(name)?;
        if found != Self::Removable {
            return Ok(found);
        }
        failpoint(Failpoint::LeftoverFound);
        let options = WriterOptions::default();
        let lock = match ChannelLock::take(name, options) {
            Ok(lock) => lock,
            Err(Error::Busy { .. }) => return Ok(Self::HasWriter),
            Err(error) => return Err(error),
        };
        failpoint(Failpoint::ChannelLocked);
        // Between the look and the lock, another writer may have come and died, and its readers may be alive. From here
        // on none can come, because readers attach only to a writer that publishes.
        match LockQuery::open(name).as_ref().map(Self::with_readers) {
            None | Some(Self::Removable) => {}
            Some(found) => return Ok(found),
        }
        if lock.is_new() && matches!(segment::open_file(name, false), Ok(None)) {
            // Another program was faster, and has removed the files.
            lock.remove_file();
            return Ok(Self::Nothing);
        }
        match takeover::take_over(name, lock) {
            Ok(takeover) => {
                Writer::new(name.clone(), options, takeover).close();
                Ok(Self::Removable)
            }
            Err(Error::Busy { .. }) => Ok(Self::HasWriter),
            Err(error) => Err(error),
        }
    }
}
