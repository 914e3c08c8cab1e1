// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files that a dead writer has left, and their removal.

use super::{Writer, options::WriterOptions};
use crate::{
    ChannelName, Error,
    protocol::layout::{MAGIC, MAX_READERS, WRITER_BYTE},
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
        if let Err(error) = files::open(&path, false)
            && errno::is_denied(errno::of(&error))
        {
            return Err(denied(&path, &error));
        }
        let Some(locks) = LockQuery::open(name) else {
            return Ok(Self::Removable);
        };
        if locks.has_writer() != Some(false) {
            return Ok(Self::HasWriter);
        }
        match (0..MAX_READERS)
            .filter(|entry| locks.has_owner(*entry) != Some(false))
            .count()
        {
            0 => Ok(Self::Removable),
            readers => Ok(Self::HasReaders(readers)),
        }
    }

    /// Removes the files of a channel that no living process has; the result [`Removable`](Self::Removable) says that
    /// they were removed.
    ///
    /// Only a channel's writer may remove its files. Therefore this function becomes the writer, and closes the channel.
    /// If a new writer starts at this moment, one of the two waits for the other.
    ///
    /// # Errors
    /// Those of [`of`](Self::of) and of [`Writer::open`], except [`Error::Busy`].
    pub fn remove(name: &ChannelName) -> Result<Self, Error> {
        let found = Self::of(name)?;
        if found != Self::Removable {
            return Ok(found);
        }
        match Writer::open(name.clone(), WriterOptions::default()) {
            Ok(writer) => {
                writer.close();
                Ok(Self::Removable)
            }
            Err(Error::Busy { .. }) => Ok(Self::HasWriter),
            Err(error) => Err(error),
        }
    }
}
