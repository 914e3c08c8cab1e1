// SPDX-License-Identifier: MIT OR Apache-2.0

//! Becoming the writer of a channel, and taking over the channel of a dead writer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    chain::{self, SegmentChain},
    channel_lock::{self, ChannelLock},
    objects::socket_file,
    options::WriterOptions,
    segment::WriterSegment,
    slots::SlotAllocator,
    state::State,
};
use crate::{
    ChannelName, Error,
    protocol::failpoint::{Failpoint, failpoint},
    segment::{self, Access, Segment, lock_file::LockFile, staging},
    sys::files::{self, FileId},
};

/// How long a new writer retries while the channel still has a writer. A killed process needs a moment to exit.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// A head of at least this value counts as damaged. If the writer continued from it, the seqs could reach their limit.
const MAX_PLAUSIBLE_SEQ: u64 = 1 << 48;

/// The result of [`open`].
pub(super) struct Takeover {
    pub(super) state: State,
    /// The fault of the damaged segment that was removed, if there was one. The segment belonged to this user.
    pub(super) replaced_damaged: Option<String>,
}

/// The state that a dead writer left in the channel.
#[derive(Default)]
struct Legacy {
    /// The seq of the dead writer's newest frame.
    head: u64,
    /// The seq of the dead writer's newest event.
    event_head: u64,
    /// The segment's file, which still has the channel's name. The file keeps the name until the new writer's first
    /// segment gets it. If the new writer dies earlier, the next writer finds the seqs in this file.
    owned_name: Option<FileId>,
    /// The slots of the dead writer's segment. They are kept because readers may still be in this segment.
    former: Option<SlotAllocator>,
    /// The fault of the dead writer's segment, if the segment was damaged.
    damaged: Option<String>,
}

/// Gets the writer's lock of the channel, and takes over the channel of a dead writer. While the channel has a writer,
/// the attempt is repeated for [`BUSY_TIMEOUT`].
pub(super) fn open(name: &ChannelName, options: WriterOptions) -> Result<Takeover, Error> {
    options.check(name)?;
    staging::sweep_staging_files();
    let started = Instant::now();
    loop {
        match try_open(name, options) {
            Err(Error::Busy { .. }) if started.elapsed() < BUSY_TIMEOUT => std::thread::sleep(BUSY_RETRY_INTERVAL),
            result => return result,
        }
    }
}

/// Makes one attempt.
fn try_open(name: &ChannelName, options: WriterOptions) -> Result<Takeover, Error> {
    let lock = ChannelLock::take(name, options)?;
    lock.lock_file().set_perms(options.perms)?;
    failpoint(Failpoint::ChannelLocked);
    take_over(name, lock)
}

/// Takes over the channel of a dead writer with the writer's lock. If this fails, it leaves no files behind.
pub(super) fn take_over(name: &ChannelName, lock: ChannelLock) -> Result<Takeover, Error> {
    socket_file::remove_leftover(name);
    match former_segment(name, &lock) {
        Ok(legacy) => {
            let chain = SegmentChain::new(legacy.owned_name, legacy.former);
            Ok(Takeover {
                state: State::new(lock, chain, legacy.head, legacy.event_head),
                replaced_damaged: legacy.damaged,
            })
        }
        Err(error) => {
            if lock.is_new() {
                lock.remove_file();
            }
            Err(error)
        }
    }
}

/// Takes over the segment under the channel's name, if there is one. The segment must belong to a dead writer of this
/// user.
fn former_segment(name: &ChannelName, lock: &ChannelLock) -> Result<Legacy, Error> {
    let path = name.segment_path();
    let opened =
        segment::open_file(name, true).map_err(|error| files::open_error(name.as_str(), &path, "write", &error))?;
    let Some((file, stat)) = opened else {
        return Ok(Legacy::default());
    };
    files::require_own(name.as_str(), &path, &file)?;
    let file_id = FileId::from(&stat);
    let segment = match Segment::open(name, file, &stat, Access::Write) {
        Ok(segment) => segment,
        Err(Error::Damaged { what, .. }) => return remove_damaged(name, lock, file_id, what),
        Err(error) => return Err(error),
    };
    if segment.has_writer() {
        // The segment's writer is dying. Or it lives, has lost its lock file, and is about to create the file again.
        return Err(channel_lock::busy(name));
    }
    Ok(supersede_former(segment, file_id, lock.lock_file()))
}

/// Removes a damaged segment. If the channel had no lock file, the file may never have been a segment, so the function
/// keeps the file and returns an error.
fn remove_damaged(name: &ChannelName, lock: &ChannelLock, file_id: FileId, what: String) -> Result<Legacy, Error> {
    let path = name.segment_path();
    if lock.is_new() {
        return Err(Error::Damaged {
            channel: name.to_string(),
            what: format!("{path} is in the way: {what}; remove it, or choose another name"),
        });
    }
    files::remove_if(&path, file_id);
    Ok(Legacy {
        damaged: Some(what),
        ..Legacy::default()
    })
}

/// Marks the segment of a dead writer as superseded, so that its readers look for the next one.
fn supersede_former(segment: Segment, file_id: FileId, lock_file: &Arc<LockFile>) -> Legacy {
    let semaphore = lock_file.acquire();
    failpoint(Failpoint::FormerOpened);
    let plausible = |seq: u64| if seq < MAX_PLAUSIBLE_SEQ { seq } else { 0 };
    let status = segment.tables.status();
    // Both are acquire loads, which pair with the release stores of the dead writer in `publish`.
    let head = plausible(status.head.load(Ordering::Acquire));
    let event_head = plausible(status.event_head.load(Ordering::Acquire));
    chain::supersede(&segment);
    failpoint(Failpoint::FormerSuperseded);
    drop(semaphore);
    // If the segment names another lock file, the locks in this lock file do not show which of the segment's readers
    // live.
    let has_same_locks = segment.lock_file_id() == lock_file.file_id();
    Legacy {
        head,
        event_head,
        owned_name: Some(file_id),
        former: has_same_locks
            .then(|| SlotAllocator::of_dead_writer(WriterSegment::new(segment, Arc::clone(lock_file)))),
        damaged: None,
    }
}
