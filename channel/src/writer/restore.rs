// SPDX-License-Identifier: MIT OR Apache-2.0

//! Repair of the channel's names after another program removed them, and of the current segment after another program
//! wrote into it.

use std::sync::{Arc, atomic::Ordering};

use super::{
    channel_lock::{self, ChannelLock},
    inner::Inner,
    replace,
    segment::WriterSegment,
    state::State,
};
use crate::{
    ChannelName, Error,
    segment::{faults::SemaphoreFault, lock_file::LockFile},
    sys::files,
};

/// The files of this writer, which should have the channel's names.
struct OwnFiles {
    lock_file: Arc<LockFile>,
    /// `None` before the first segment.
    segment: Option<Arc<WriterSegment>>,
}

/// Which of the writer's files has lost its name.
enum Loss {
    None,
    /// The lock file has lost its name, and perhaps the segment has too.
    LockFile {
        /// Whether another program has put a file under the lock file's name.
        was_replaced: bool,
    },
    /// The segment has lost its name. This value also means that the segment names a former lock file: the lock file
    /// was made again, but then making a new segment failed.
    Segment,
}

/// Makes the channel's files again if another program removed them. Returns whether it made any file.
pub(super) fn restore_names(inner: &Inner) -> Result<bool, Error> {
    let _replacing = inner.begin_replacing();
    let Some(files) = OwnFiles::of(&inner.lock()) else {
        return Ok(false);
    };
    let announce = |inode| inner.lock().set_socket(inode);
    inner.objects().restore(inner.name(), inner.options().perms, announce)?;
    match files.find_loss(inner.name())? {
        Loss::None => return Ok(false),
        Loss::LockFile { was_replaced } => {
            if !restore_lock_file(inner, was_replaced)? {
                return Ok(false);
            }
        }
        Loss::Segment => {}
    }
    inner.lock().service.note_own_names();
    // A segment names its lock file, so a new lock file needs a new segment too.
    if let Some(segment) = files.segment {
        replace::replace(inner, segment.header().slot_size)?;
    }
    Ok(true)
}

impl OwnFiles {
    /// The files of the writer, or `None` if the writer is closed.
    fn of(state: &State) -> Option<Self> {
        state.lock.is_held().then(|| Self {
            lock_file: Arc::clone(state.lock.lock_file()),
            segment: state.chain.current().map(|slots| Arc::clone(slots.segment())),
        })
    }

    /// Compares the files under the channel's names with this writer's files.
    ///
    /// # Errors
    /// Returns an error if the segment's name belongs to a file of another program.
    fn find_loss(&self, name: &ChannelName) -> Result<Loss, Error> {
        let lock_file_found = files::file_id_of(self.lock_file.path());
        let own_lock_file = self.lock_file.file_id();
        let is_segment_lost = match &self.segment {
            None => false,
            Some(segment) => match files::file_id_of(&name.segment_path()) {
                None => true,
                Some(found) if found == segment.mapped().file_id => segment.lock_file_id() != own_lock_file,
                Some(_) => return Err(foreign_segment(name)),
            },
        };
        Ok(if lock_file_found != Some(own_lock_file) {
            Loss::LockFile {
                was_replaced: lock_file_found.is_some(),
            }
        } else if is_segment_lost {
            Loss::Segment
        } else {
            Loss::None
        })
    }
}

/// Makes the lock file again. If another program has put a file under the lock file's name, and no writer has locked
/// it, this function takes it over. The result is `false` if a second writer has locked it. The second writer started
/// while the lock file was lost, and removes its file when it finds this writer alive.
fn restore_lock_file(inner: &Inner, was_replaced: bool) -> Result<bool, Error> {
    let lock = match ChannelLock::take(inner.name(), inner.options()) {
        Ok(lock) => lock,
        Err(Error::Busy { .. }) if inner.lock().service.note_foreign_name() => {
            return Err(channel_lock::busy(inner.name()));
        }
        Err(Error::Busy { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    lock.lock_file().set_perms(inner.options().perms)?;
    if was_replaced {
        lock.lock_file().faults.add(SemaphoreFault::Replaced);
    }
    let mut state = inner.lock();
    state.stats.semaphore_timeouts += state.lock.lock_file().timeouts();
    state.lock = lock;
    Ok(true)
}

/// The error for a file under the segment's name that does not belong to this writer.
fn foreign_segment(name: &ChannelName) -> Error {
    let path = name.segment_path();
    let checked = match files::open(&path, false) {
        Ok(Some(file)) => files::require_own(name.as_str(), &path, &file).map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(files::open_error(name.as_str(), &path, "read", &error)),
    };
    checked.err().unwrap_or_else(|| channel_lock::busy(name))
}

/// Makes a new segment if another program has written into the current segment's header or caps, or has marked the
/// segment as over. Returns whether it made a new segment.
///
/// Readers cannot attach to a segment with a changed header, and they leave a segment that is marked as over. Header
/// and caps are checked only if `check_header` is `true`.
pub(super) fn replace_corrupted(inner: &Inner, check_header: bool) -> Result<bool, Error> {
    let current = |state: &State| state.chain.current_mapped().map(Arc::clone);
    let Some(segment) = current(&inner.lock()) else {
        return Ok(false);
    };
    // Relaxed: only this process should store this word. Any set bit counts as damage, even a bit without a meaning.
    let is_marked = segment.tables.status().state.load(Ordering::Relaxed) != 0;
    let is_corrupted = is_marked || (check_header && segment.is_corrupted());
    if !is_corrupted {
        return Ok(false);
    }
    let _replacing = inner.begin_replacing();
    // Another thread may have replaced the segment meanwhile, and a replaced segment is marked as over.
    if !current(&inner.lock()).is_some_and(|now| Arc::ptr_eq(&now, &segment)) {
        return Ok(false);
    }
    replace::replace(inner, segment.header.slot_size).map(|()| true)
}

/// Restores the quota, the seqs of the newest frame and event, the number of the newest run, the latency, and the inode
/// of the socket, if another program has overwritten them. Readers that attach start with these values.
pub(super) fn repair_status(state: &State) {
    let Some(slots) = state.chain.current() else {
        return;
    };
    let status = slots.segment().tables().status();
    // Relaxed: as below.
    if status.quota.load(Ordering::Relaxed) != slots.quota() {
        status.quota.store(slots.quota(), Ordering::Release);
    }
    for (word, value) in [
        (&status.head, state.sequence.head()),
        (&status.run_head, slots.runs().newest()),
        (&status.event_head, state.events.head()),
        (&status.latency_ns, state.latency_ns),
        (&status.socket, state.socket),
    ] {
        // Relaxed: only this writer should store these words, and it does so under the lock of its state, which is held
        // here.
        if word.load(Ordering::Relaxed) != value {
            // Release: pairs with the acquire load of a reader, like the first store of the value.
            word.store(value, Ordering::Release);
        }
    }
}
