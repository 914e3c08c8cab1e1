// SPDX-License-Identifier: MIT OR Apache-2.0

//! A segment: the checked header, the mappings and the file.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
};

use bytemuck::Zeroable;
use nix::{
    errno::Errno,
    sys::stat::{FileStat, fstat},
};

mod create;
pub(crate) mod discovery;
pub(crate) mod faults;
pub(crate) mod lock_file;
pub(crate) mod lock_query;
pub(crate) mod staging;
pub(crate) mod tables;
pub(crate) mod wait;

pub(crate) use self::create::CreateError;
use crate::{
    ChannelName, Error,
    protocol::{
        layout::{
            self, DESCRIPTOR_STRIDE, EVENT_STRIDE, EventRecord, FrameDescriptor, Header, ReferenceTable, RunRecord,
            SlotRecord, flags,
        },
        record,
        run::RUN_RECORD_SIZE,
    },
    segment::tables::SegmentTables,
    sys::{
        files::{self, FileId},
        fork::ForkGuard,
        lock,
        mapping::Mapping,
        space::{self, CommitError},
    },
};

/// The access that a peer needs to a segment. It decides which parts the peer maps, and which of them are writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read the tables, and read frames from the file.
    Observe,
    /// Write pins, and read frames in place.
    Attach,
    /// Write everything.
    Write,
}

/// The largest address space that a process can have, in bytes. A header that describes a segment of this size or more
/// is damaged. If a smaller segment cannot be mapped, the reason is a limit of the process.
const ADDRESS_SPACE_SIZE: u64 = 1 << 47;

/// The text of the error for a segment that cannot be mapped. It names the limit that may be the reason.
fn mapping_text(header: &Header, path: &str) -> String {
    format!(
        "mapping {} slots of {} bytes of {path} into this program's address space (see ulimit -v)",
        header.slot_count, header.slot_size
    )
}

/// One segment of a channel. Its caps and sizes never change.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) caps: String,
    pub(crate) file_id: FileId,
    pub(crate) file: OwnedFd,
    pub(crate) tables: SegmentTables,
    slots: Option<Mapping>,
    /// The number of slots for which the file is known to have memory. The number only grows.
    committed: AtomicU32,
    fork_guard: ForkGuard,
}

/// Opens the file that has the channel's name, and queries its status; `None` if there is no such file.
pub(crate) fn open_file(name: &ChannelName, writable: bool) -> std::io::Result<Option<(OwnedFd, FileStat)>> {
    let Some(file) = files::open(&name.segment_path(), writable)? else {
        return Ok(None);
    };
    let stat = fstat(&file)?;
    Ok(Some((file, stat)))
}

impl Segment {
    /// Checks and maps the segment in `file`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the field that is wrong.
    pub(crate) fn open(name: &ChannelName, file: OwnedFd, stat: &FileStat, access: Access) -> Result<Self, Error> {
        let damaged = |what: String| Error::Damaged {
            channel: name.to_string(),
            what,
        };
        let failed = |call: &str, errno| Error::system(name.as_str(), format!("{call} {}", name.segment_path()), errno);
        let file_size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = Header::zeroed();
        // The header is read with pread, which does not raise SIGBUS if another process truncates the file during the
        // read.
        if !files::read_exactly(&file, bytemuck::bytes_of_mut(&mut header), 0).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        header.check(file_size).map_err(damaged)?;
        let mut caps = vec![0; header.caps_size as usize];
        if !files::read_exactly(&file, &mut caps, header.caps_offset).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        let caps = String::from_utf8(caps).map_err(|_| damaged("its caps are not UTF-8 text".to_owned()))?;
        let file_id = FileId::from(stat);
        Self::map(header, caps, file_id, file, access)
            .map_err(|errno| match errno {
                Errno::ENOMEM if header.total_size().is_some_and(|size| size < ADDRESS_SPACE_SIZE) => {
                    Error::system(name.as_str(), mapping_text(&header, &name.segment_path()), errno)
                }
                Errno::ENOMEM | Errno::EOVERFLOW | Errno::EINVAL => damaged(format!(
                    "its {} slots of {} bytes cannot be mapped: {errno}",
                    header.slot_count, header.slot_size
                )),
                errno => failed("mmap", errno),
            })?
            .ok_or_else(|| damaged("its tables are not inside it".to_owned()))
    }

    /// Maps the file; `None` if the tables that the header describes are not inside it.
    fn map(header: Header, caps: String, file_id: FileId, file: OwnedFd, access: Access) -> nix::Result<Option<Self>> {
        let tables = Mapping::new(&file, 0, header.slots_offset, access != Access::Observe)?;
        let slots = match access {
            Access::Observe => None,
            Access::Attach | Access::Write => {
                let length = u64::from(header.slot_count) * header.slot_size;
                let slots = Mapping::new(&file, header.slots_offset, length, access == Access::Write)?;
                slots.exclude_from_dumps();
                Some(slots)
            }
        };
        Ok(SegmentTables::new(tables, &header).map(|tables| Self {
            header,
            caps,
            file_id,
            file,
            tables,
            slots,
            committed: AtomicU32::new(0),
            fork_guard: ForkGuard::new(),
        }))
    }

    /// Whether another process has changed the header or the caps, which never change in a correct channel.
    pub(crate) fn is_corrupted(&self) -> bool {
        let mut header = Header::zeroed();
        let mut caps = vec![0; self.caps.len()];
        // A file that cannot be read, or is too short, does not count as corrupted here. Every reader that opens such a
        // file returns an error.
        files::read_exactly(&self.file, bytemuck::bytes_of_mut(&mut header), 0) == Ok(true)
            && files::read_exactly(&self.file, &mut caps, self.header.caps_offset) == Ok(true)
            && (header != self.header || caps != self.caps.as_bytes())
    }

    /// The identity of the lock file in which this segment's readers lock their bytes.
    pub(crate) fn lock_file_id(&self) -> FileId {
        FileId {
            device: self.header.lock_device,
            inode: self.header.lock_inode,
        }
    }

    /// Whether the file has memory for the whole of `slot`.
    ///
    /// Touching a slot without memory is fatal (SIGBUS), and a slot's index in shared memory may be wrong. Therefore
    /// the size of the file decides. The size is queried only for a slot that is not yet known to have memory.
    pub(crate) fn is_committed(&self, slot: usize) -> bool {
        if slot >= self.header.slot_count as usize {
            return false;
        }
        // Relaxed, here and below: the count is a hint that only grows; the file itself decides.
        if slot < self.committed.load(Ordering::Relaxed) as usize {
            return true;
        }
        let size = fstat(&self.file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let committed = size.saturating_sub(self.header.slots_offset) / self.header.slot_size;
        self.committed.fetch_max(
            committed.min(u64::from(self.header.slot_count)) as u32,
            Ordering::Relaxed,
        );
        (slot as u64) < committed
    }

    /// The number of slots for which the file is known to have memory.
    pub(crate) fn committed_slots(&self) -> u32 {
        // Relaxed: as in `is_committed`.
        self.committed.load(Ordering::Relaxed)
    }

    /// Commits memory for `slot`. Only the writer calls it.
    pub(crate) fn commit_slot(&self, slot: usize) -> Result<(), CommitError> {
        // The slot's record gets its memory first, because the size of the file says that the slot has memory.
        let record = self.header.descriptors_offset + (slot * DESCRIPTOR_STRIDE) as u64;
        space::allocate(&self.file, record, DESCRIPTOR_STRIDE as u64).map_err(CommitError::new)?;
        let offset = self.header.slots_offset + slot as u64 * self.header.slot_size;
        space::commit_memory(&self.file, offset, self.header.slot_size)?;
        // Relaxed: as in `is_committed`.
        self.committed.fetch_max(slot as u32 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Commits memory for the record of the event `seq` in the ring of events, and returns the record. `None` if there
    /// is no memory. Only the writer calls it.
    pub(crate) fn commit_event(&self, seq: u64) -> Option<&EventRecord> {
        let offset = self.header.event_offset(seq);
        space::allocate(&self.file, offset, EVENT_STRIDE as u64).ok()?;
        Some(self.tables.event(seq))
    }

    /// The record of the event `seq` in the ring of events; `None` if the record has another event. A record that was
    /// never used has no memory, so its seq is read from the file. An access through the mapping would allocate memory,
    /// or would raise SIGBUS.
    pub(crate) fn event(&self, seq: u64) -> Option<&EventRecord> {
        let mut found = [0; 8];
        let is_read = files::read_exactly(&self.file, &mut found, self.header.event_offset(seq)) == Ok(true);
        (is_read && u64::from_ne_bytes(found) == seq).then(|| self.tables.event(seq))
    }

    /// Enters the pages of `slots` slots, from `first` on, into the page table. The first frame in each of these slots
    /// is then written as fast as later frames.
    pub(crate) fn prefault(&self, first: usize, slots: u32) {
        if let Some(mapping) = &self.slots {
            mapping.prefault(self.slot_offset(first), u64::from(slots) * self.header.slot_size);
        }
    }

    /// Releases the memory of a slot to the system. Only the writer calls it, after it has taken the slot for writing.
    pub(crate) fn release_slot(&self, slot: usize) {
        let offset = self.header.slots_offset + slot as u64 * self.header.slot_size;
        space::release_memory(&self.file, offset, self.header.slot_size);
    }

    /// Whether this value is a forked child's copy. If it is, the reader entry, the pins and the name belong to the
    /// parent, and this process must not release them.
    pub(crate) fn is_inherited(&self) -> bool {
        self.fork_guard.is_inherited()
    }

    /// Whether the writer that created the segment lives and has not closed it. The result is also `true` if the kernel
    /// cannot tell.
    pub(crate) fn has_writer(&self) -> bool {
        lock::is_locked(&self.file, layout::WRITER_BYTE).unwrap_or(true)
    }

    /// Whether the writer can still publish frames in this segment: it is neither superseded nor closed, and its writer
    /// lives.
    pub(crate) fn is_current(&self) -> bool {
        !self.tables.status().is_over() && self.has_writer()
    }

    /// Whether slots may have runs of several frames.
    pub(crate) fn has_runs(&self) -> bool {
        self.header.flags & flags::RUNS != 0
    }

    /// Whether the slots have references to objects instead of the bytes of frames.
    #[inline]
    pub(crate) fn has_objects(&self) -> bool {
        self.header.flags & flags::OBJECTS != 0
    }

    /// Whether everything that `descriptor` describes is within bounds.
    #[inline]
    pub(crate) fn fits(&self, descriptor: &FrameDescriptor) -> bool {
        if self.has_objects() {
            descriptor.fits_as_references(self.header.slot_size)
        } else {
            descriptor.fits(self.header.slot_size)
        }
    }

    /// How many bytes the frame of `descriptor` has in its slot.
    #[inline]
    pub(crate) fn size_in_slot(&self, descriptor: &FrameDescriptor) -> u64 {
        if self.has_objects() {
            size_of::<ReferenceTable>() as u64
        } else {
            descriptor.size
        }
    }

    /// Copies the table of references from the file, without a pin. `None` if it is not inside the slot, or the file
    /// has no memory for the slot. The copy is valid under the condition that
    /// [`read_descriptor`](Self::read_descriptor) names.
    pub(crate) fn read_references(&self, slot: usize, descriptor: &FrameDescriptor) -> Option<ReferenceTable> {
        if !self.fits(descriptor) || !self.is_committed(slot) {
            return None;
        }
        let mut table = ReferenceTable::zeroed();
        let offset = self.header.slots_offset + self.slot_offset(slot) + descriptor.data_offset;
        let is_read = files::read_exactly(&self.file, bytemuck::bytes_of_mut(&mut table), offset) == Ok(true);
        is_read.then_some(table)
    }

    pub(crate) fn slot_record(&self, slot: usize) -> &SlotRecord {
        self.tables.slot(slot)
    }

    /// The mapping of the slots; `None` for an observer.
    pub(crate) fn slots(&self) -> Option<&Mapping> {
        self.slots.as_ref()
    }

    /// The offset of a slot in [`slots`](Self::slots).
    pub(crate) fn slot_offset(&self, slot: usize) -> u64 {
        slot as u64 * self.header.slot_size
    }

    /// Copies the descriptor of the first frame in `slot`. The copy is valid only if the slot is pinned, or if the seq
    /// of the slot is the same before and after the copy.
    pub(crate) fn read_descriptor(&self, slot: usize) -> FrameDescriptor {
        // Relaxed: the caller's acquire load of the seq before the copy orders these loads. Without a pin, the caller
        // also has an acquire fence after the copy.
        let words = &self.slot_record(slot).words;
        let words: [u64; layout::DESCRIPTOR_WORDS] = core::array::from_fn(|word| words[word].load(Ordering::Relaxed));
        bytemuck::must_cast(words)
    }

    /// Copies the description of an appended frame from the file, without a pin. `None` if the record is not inside the
    /// slot, or the file has no memory for the slot. The copy is valid under the condition that
    /// [`read_descriptor`](Self::read_descriptor) names.
    pub(crate) fn read_appended(&self, slot: usize, offset: u64) -> Option<FrameDescriptor> {
        let mut record = RunRecord::zeroed();
        let is_inside = offset
            .checked_add(RUN_RECORD_SIZE)
            .is_some_and(|end| end <= self.header.slot_size);
        if !is_inside || !self.is_committed(slot) {
            return None;
        }
        let in_file = self.header.slots_offset + self.slot_offset(slot) + offset;
        let is_read = files::read_exactly(&self.file, bytemuck::bytes_of_mut(&mut record), in_file) == Ok(true);
        is_read.then(|| record.descriptor(offset))
    }

    /// Writes the record and the metadata of the frame that the writer appends at `offset` in `slot`, which it has
    /// claimed. The caller has checked that all of it is inside the slot.
    pub(crate) fn write_appended(&self, slot: usize, offset: u64, descriptor: &FrameDescriptor, metadata: &[u8]) {
        let (Some(slots), Some(metadata_offset)) = (&self.slots, descriptor.metadata_offset()) else {
            return;
        };
        let start = self.slot_offset(slot);
        slots.write(start + offset, bytemuck::bytes_of(&RunRecord::new(descriptor)));
        slots.write(start + metadata_offset, metadata);
    }

    /// Copies the first `size` bytes of the metadata of the first frame in `slot`, at most `MAX_METADATA_SIZE`. The
    /// copy is valid under the condition that [`read_descriptor`](Self::read_descriptor) names.
    pub(crate) fn read_metadata(&self, slot: usize, size: u32) -> Vec<u8> {
        record::load_bytes(self.tables.metadata(slot), size as usize)
    }

    /// Writes the metadata of the first frame in `slot`, which the caller has claimed. The caller has checked the size.
    pub(crate) fn write_metadata(&self, slot: usize, bytes: &[u8]) {
        record::store_bytes(self.tables.metadata(slot), bytes);
    }

    /// Writes the descriptor of the first frame in `slot`, which the caller has claimed.
    pub(crate) fn write_descriptor(&self, slot: usize, descriptor: &FrameDescriptor) {
        let words: [u64; layout::DESCRIPTOR_WORDS] = bytemuck::must_cast(*descriptor);
        for (to, from) in self.slot_record(slot).words.iter().zip(words) {
            // Relaxed: the release store of the seq publishes the words.
            to.store(from, Ordering::Relaxed);
        }
    }
}
