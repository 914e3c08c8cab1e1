// SPDX-License-Identifier: MIT OR Apache-2.0

//! The creation of segments. A segment is written to a staging file, which gets the channel's name only when the
//! segment is complete.

use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::{
    protocol::layout::{self, Header},
    segment::{Access, Segment, mapping_text, staging::StagingFile},
    sys::{
        errno, files,
        lock::{self, OfdLock},
        space::{self, CommitError, Space},
    },
};

/// Why a segment cannot be created.
#[derive(Debug)]
pub(crate) enum CreateError {
    /// A limit leaves too little memory for the segment.
    NoMemory(Space),
    /// A call failed; the text names its purpose.
    Failed(String, Errno),
}

impl CreateError {
    fn failed(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Failed(what.to_owned(), errno)
    }

    fn opening(errno: Errno) -> Self {
        if errno::is_out_of_memory(errno) {
            Self::NoMemory(Space::in_file_system())
        } else {
            Self::Failed("opening a new file".to_owned(), errno)
        }
    }
}

impl Segment {
    /// Creates a segment in a staging file and commits memory for its first `slots` slots.
    ///
    /// The segment has no name yet, and [`write_header`](Self::write_header) completes it. The writer's byte in the
    /// segment's file is already locked. Observers query this lock, because they cannot open the lock file.
    ///
    /// # Errors
    /// [`CreateError`]. After an error, the staging file is removed.
    pub(crate) fn create(
        header: Header,
        caps: &str,
        slots: u32,
        perms: u32,
    ) -> Result<(Self, StagingFile, OfdLock), CreateError> {
        let opening = |error| CreateError::opening(errno::of(&error));
        let staging = StagingFile::create().map_err(opening)?;
        let locked = staging.open_again().map_err(opening)?;
        lock::try_lock(&locked, layout::WRITER_BYTE).map_err(CreateError::failed("locking a new segment"))?;
        let writer_lock = OfdLock::keep(locked).map_err(CreateError::failed(
            "mapping a page of a new segment into this program's address space (see ulimit -v)",
        ))?;
        let not_committed = |error| match error {
            CommitError::NoMemory(space) => CreateError::NoMemory(space),
            CommitError::Failed(errno) => CreateError::failed("committing memory for a segment")(errno),
        };
        // The slots are first, so that an error names the memory that was free before. The memory limits are read only
        // for the slots, because the tables are small.
        let slots_size = u64::from(slots) * header.slot_size;
        space::commit_memory(&staging.file, header.slots_offset, slots_size).map_err(not_committed)?;
        for (offset, size) in header.initial_tables(slots) {
            space::allocate(&staging.file, offset, size).map_err(|errno| not_committed(CommitError::new(errno)))?;
        }
        staging
            .set_mode(perms)
            .map_err(CreateError::failed("setting a new segment's mode"))?;
        let file = staging.open_again().map_err(opening)?;
        let file_id = files::file_id(&file).map_err(CreateError::failed("fstat of a new segment"))?;
        let segment = Self::map(header, caps.to_owned(), file_id, file, Access::Write)
            .and_then(|segment| segment.ok_or(Errno::EINVAL))
            .map_err(|errno| CreateError::Failed(mapping_text(&header, "a new segment"), errno))?;
        // No other process can find the file yet, so a plain copy is safe.
        if !segment.tables.mapping().write(header.caps_offset, caps.as_bytes()) {
            return Err(CreateError::failed("writing the caps")(Errno::EINVAL));
        }
        // Relaxed: the count is only a hint for this process (see `is_committed`).
        segment.committed.store(slots, Ordering::Relaxed);
        // Only the first slot is prefaulted, so that the first frame does not wait until all slots are prefaulted.
        segment.prefault(0, 1);
        Ok((segment, staging, writer_lock))
    }

    /// Writes the header and the first values of the status. This is the last step before the segment gets its name.
    pub(crate) fn write_header(&mut self, first_seq: u64, event_head: u64, latency_ns: u64) {
        self.header.first_seq = first_seq;
        self.tables.mapping().write(0, bytemuck::bytes_of(&self.header));
        let status = self.tables.status();
        // Relaxed: the rename that gives the segment its name comes later. A process that opens the segment by this
        // name sees all stores before the rename.
        status.head.store(first_seq - 1, Ordering::Relaxed);
        status.event_head.store(event_head, Ordering::Relaxed);
        status.latency_ns.store(latency_ns, Ordering::Relaxed);
    }
}
