// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attaching to a channel: the reader opens the channel's segment and joins the reader table.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use nix::sys::stat::FileStat;

use super::{
    attachment::Attachment,
    entry::{EntryLock, EntryLocks, OwnEntry},
};
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{FIRST_PRESENCE_BYTE, FIRST_READER_BYTE, flags, reader_state},
    },
    segment::{
        self, Access, Segment,
        lock_file::{LockAttempt, LockFile},
        wait::FutexWord,
    },
    sys::{errno, files, lock::OfdLock},
};

/// Why a reader has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObserverReason {
    /// The reader's options request an observer.
    Requested,
    /// The permissions of the files allow only reading, or the reader does not trust their owner.
    Permissions,
    /// Other readers have all entries.
    NoEntry,
}

/// The locks that a reader has from a former segment.
#[derive(Debug, Default)]
pub(crate) struct FormerLocks<'a> {
    pub(super) entry: Option<&'a Arc<EntryLock>>,
    /// `Some` while the reader is in a former segment.
    pub(super) presence: Option<Arc<OfdLock>>,
}

/// The result of [`take_entry`].
enum EntryAttempt {
    Locked(EntryLocks),
    /// Other readers have all entries.
    NoEntry,
    /// The name of the lock file now belongs to another file, or to no file.
    NameChanged,
}

impl Attachment {
    /// Attaches to the segment that has the channel's name now, or observes this segment for the returned reason.
    /// `None` if there is no segment with a living writer.
    ///
    /// `former` are the locks that this reader has from a former segment. `followed_to` is the cursor of a reader that
    /// comes from a superseded segment; for a newcomer it is `None`.
    pub(crate) fn open(
        name: &ChannelName,
        read_only: bool,
        former: FormerLocks<'_>,
        followed_to: Option<u64>,
    ) -> Result<Option<(Self, Option<ObserverReason>)>, Error> {
        let Some((file, stat, observer_reason)) = open_file(name, read_only)? else {
            return Ok(None);
        };
        if let Some(reason) = observer_reason {
            return Self::open_as_observer(name, file, &stat, reason);
        }
        let lock_file = match LockFile::open(name) {
            Err(Error::Denied { .. }) => {
                return Self::open_as_observer(name, file, &stat, ObserverReason::Permissions);
            }
            lock_file => lock_file?,
        };
        let Some(lock_file) = lock_file else {
            return Ok(None);
        };
        let segment = Segment::open(name, file, &stat, Access::Attach)?;
        if !segment.is_current() || lock_file.file_id() != segment.lock_file_id() {
            return Ok(None);
        }
        Ok(match take_entry(&lock_file, former)? {
            EntryAttempt::Locked(locks) => {
                Self::join(name, segment, locks, followed_to).map(|attachment| (attachment, None))
            }
            EntryAttempt::NoEntry => Some((Self::observe(name, segment), Some(ObserverReason::NoEntry))),
            EntryAttempt::NameChanged => None,
        })
    }

    fn open_as_observer(
        name: &ChannelName,
        file: OwnedFd,
        stat: &FileStat,
        reason: ObserverReason,
    ) -> Result<Option<(Self, Option<ObserverReason>)>, Error> {
        let segment = Segment::open(name, file, stat, Access::Observe)?;
        Ok(segment
            .is_current()
            .then(|| (Self::observe(name, segment), Some(reason))))
    }

    fn observe(name: &ChannelName, segment: Segment) -> Self {
        Self::new(name, segment, None)
    }

    /// Observes the segment that has the channel's name now, also if no frame can follow in it. `None` if there is no
    /// segment.
    pub(super) fn inspect(name: &ChannelName) -> Result<Option<Self>, Error> {
        let Some((file, stat, _)) = open_file(name, true)? else {
            return Ok(None);
        };
        Segment::open(name, file, &stat, Access::Observe).map(|segment| Some(Self::observe(name, segment)))
    }

    /// Joins the reader table. From here on the writer counts this reader and its pins. A newcomer gets `None` if the
    /// segment was superseded meanwhile. A reader that comes from a former segment joins even then, because it takes
    /// the frames of this segment before it goes on.
    ///
    /// The state of the entry in this segment:
    ///
    /// ```text
    ///        prepare             announce                confirm
    ///  any -----------> NEW ---------------> JOINING ----------------> ATTACHED
    ///   ^                                       |                       |    |
    ///   |                       superseded      |     leaves or is gone |    | goes on to the next segment
    ///   |                       meanwhile       v                       v    v
    ///   +---- the next owner of the entry ---- LEFT <-------------------+  MOVED
    /// ```
    ///
    /// - `prepare` removes the values of the last owner from the entry, and stores a new generation and the cursor.
    /// - From JOINING on, a lossless writer keeps the frames after the cursor. A writer that waits for a reader does
    ///   not continue yet, because this reader may still find that the segment is superseded.
    /// - From ATTACHED on, a writer that waits for a reader continues, and this reader receives everything that the
    ///   writer publishes.
    fn join(name: &ChannelName, segment: Segment, locks: EntryLocks, followed_to: Option<u64>) -> Option<Self> {
        let before_first = segment.header.first_seq.saturating_sub(1);
        let is_following = followed_to.is_some_and(|cursor| cursor <= before_first);
        let generation = prepare(&segment, &locks.entry, is_following.then_some(before_first));
        segment
            .tables
            .entry(locks.entry.index)
            .announce(&segment.tables.status().joins);
        let mut attachment = Self::new(name, segment, Some(OwnEntry::new(locks, generation)));
        if !is_following && !attachment.confirm_newcomer() {
            attachment.leave(reader_state::LEFT);
            return None;
        }
        attachment.store_attached();
        Some(attachment)
    }

    /// Checks once more that a newcomer's segment is current, and moves the cursor to where a newcomer starts. The
    /// second check is needed because a lossless writer sees the reader only after `announce`. The result is `false` if
    /// the segment is superseded, because the writer may not have waited for this reader.
    fn confirm_newcomer(&mut self) -> bool {
        if !self.segment.is_current() {
            return false;
        }
        // The cursor that `prepare` stored may be too old: the frame that was the newest then may still exist, because
        // another reader holds it, while the frames after it are gone.
        let cursor = newcomer_cursor(&self.segment, self.initial.head);
        if let Some(own_entry) = &self.own_entry {
            self.segment.tables.entry(own_entry.index()).set_cursor(cursor);
        }
        if is_lossless(&self.segment) {
            self.protected_after = cursor;
        }
        true
    }

    fn store_attached(&self) {
        if let Some(own_entry) = &self.own_entry {
            let entry = self.segment.tables.entry(own_entry.index());
            entry.set_state(reader_state::ATTACHED);
        }
        failpoint(Failpoint::Joined);
        self.segment.notify(FutexWord::Writer);
    }
}

#[cfg(feature = "fuzzing")]
impl Attachment {
    /// A reader in a segment without a name. If `has_entry` is `true`, the reader has the first reader entry; otherwise
    /// it observes.
    pub(crate) fn for_fuzzing(segment: Segment, has_entry: bool) -> Option<Self> {
        let name = ChannelName::new("fuzzing").ok()?;
        if !has_entry {
            return Some(Self::observe(&name, segment));
        }
        let lock = || OfdLock::keep(segment.file.try_clone().ok()?).ok();
        let locks = EntryLocks {
            entry: Arc::new(EntryLock::new(FIRST_READER_BYTE, segment.file_id, lock()?)),
            presence: Arc::new(lock()?),
        };
        // The reader joins as if it came from a former segment, because a newcomer needs a living writer.
        Self::join(&name, segment, locks, Some(0))
    }

    /// Keeps a file as the object `id`, as if the writer had sent it. `None` if it cannot be an object.
    pub(crate) fn keep_for_fuzzing(&self, id: u64, file: OwnedFd) -> Option<()> {
        let file = crate::sys::object_file::ObjectFile::new(file).ok()?;
        self.objects
            .as_ref()?
            .keep(super::received_object::ReceivedObject::new(id, file), 0);
        Some(())
    }
}

/// Takes the locks of the entry that the reader has had, or of the first entry that is free. The presence lock is taken
/// before the reader joins a segment: from then on, a writer that does not know this segment can see the reader.
fn take_entry(lock_file: &LockFile, former: FormerLocks<'_>) -> Result<EntryAttempt, Error> {
    if let Some(entry) = former.entry.filter(|lock| lock.lock_file == lock_file.file_id()) {
        let presence = match former.presence {
            Some(presence) => Some(presence),
            None => match lock_file.take_first([presence_byte(entry.index)])? {
                LockAttempt::Locked(_, presence) => Some(Arc::new(presence)),
                LockAttempt::NameChanged => return Ok(EntryAttempt::NameChanged),
                // Another program holds a lock of this reader's entry. The reader uses another entry.
                LockAttempt::AllTaken => None,
            },
        };
        if let Some(presence) = presence {
            let entry = Arc::clone(entry);
            return Ok(EntryAttempt::Locked(EntryLocks { entry, presence }));
        }
    }
    failpoint(Failpoint::SegmentOpened);
    let mut bytes = FIRST_READER_BYTE..FIRST_PRESENCE_BYTE;
    loop {
        let entry = match lock_file.take_first(&mut bytes)? {
            LockAttempt::Locked(byte, lock) => EntryLock::new(byte, lock_file.file_id(), lock),
            LockAttempt::AllTaken => return Ok(EntryAttempt::NoEntry),
            LockAttempt::NameChanged => return Ok(EntryAttempt::NameChanged),
        };
        failpoint(Failpoint::EntryLocked);
        match lock_file.take_first([presence_byte(entry.index)])? {
            LockAttempt::Locked(_, presence) => {
                let (entry, presence) = (Arc::new(entry), Arc::new(presence));
                return Ok(EntryAttempt::Locked(EntryLocks { entry, presence }));
            }
            // Perhaps the last owner is dying: the kernel has released one of its locks, and soon releases the other.
            LockAttempt::AllTaken => {}
            LockAttempt::NameChanged => return Ok(EntryAttempt::NameChanged),
        }
    }
}

/// The byte of the lock file for the presence of the reader with the entry `index`.
fn presence_byte(index: usize) -> i64 {
    FIRST_PRESENCE_BYTE + index as i64
}

/// Opens the segment's file, for writing if the options and the permissions allow it. The last value of the result says
/// why the reader has to observe: the file is open only for reading, or its owner is not trusted. The result is `None`
/// if there is no file.
fn open_file(
    name: &ChannelName,
    read_only: bool,
) -> Result<Option<(OwnedFd, FileStat, Option<ObserverReason>)>, Error> {
    let error = |error: io::Error| files::open_error(name.as_str(), &name.segment_path(), "read", &error);
    if !read_only {
        match segment::open_file(name, true) {
            Err(failed) if errno::is_denied(errno::of(&failed)) => {}
            opened => {
                return Ok(opened.map_err(error)?.map(|(file, stat)| {
                    let reason = (!files::is_trusted(&stat)).then_some(ObserverReason::Permissions);
                    (file, stat, reason)
                }));
            }
        }
    }
    let reason = if read_only {
        ObserverReason::Requested
    } else {
        ObserverReason::Permissions
    };
    let opened = segment::open_file(name, false).map_err(error)?;
    Ok(opened.map(|(file, stat)| (file, stat, Some(reason))))
}

fn is_lossless(segment: &Segment) -> bool {
    segment.header.flags & flags::LOSSLESS != 0
}

/// The cursor of a newcomer. A newcomer starts with the newest frame, or with an older keyframe if the stream is
/// compressed. A lossless writer keeps all frames after the cursor. In lossless mode, the cursor is therefore just
/// before the oldest frame that the history guarantees, because older frames may be gone.
fn newcomer_cursor(segment: &Segment, head: u64) -> u64 {
    let history = if is_lossless(segment) {
        segment.header.history.max(1)
    } else {
        1
    };
    head.saturating_sub(history.into())
}

/// Removes the values of the last owner from the entry, and stores the new generation and the cursor. The cursor is
/// `following_cursor`; if this is `None`, it is the cursor of a newcomer. Returns the generation.
fn prepare(segment: &Segment, lock: &EntryLock, following_cursor: Option<u64>) -> u32 {
    let entry = segment.tables.entry(lock.index);
    let generation = entry.begin(&lock.generation);
    let cursor = following_cursor.unwrap_or_else(|| {
        // Acquire: pairs with the release store of the head in a publish.
        newcomer_cursor(segment, segment.tables.status().head.load(Ordering::Acquire))
    });
    entry.set_cursor(cursor);
    // Relaxed: the release store of the state orders this store before the writer's acquire load.
    entry.pid.store(std::process::id(), Ordering::Relaxed);
    failpoint(Failpoint::CursorStored);
    entry.forget_requests();
    entry.missed.store(0, Ordering::Relaxed);
    generation
}
