//! A segment, opened or made: the checked layout, the mappings, and the file.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
};

use bytemuck::Zeroable;
use nix::{
    errno::Errno,
    sys::stat::{FileStat, fstat},
};

pub(crate) mod discovery;
pub(crate) mod lock_file;
pub(crate) mod staging;
pub(crate) mod tables;
pub(crate) mod wait;

use crate::{
    ChannelName, Error,
    protocol::{
        layout::{self, FrameDescriptor, Header, SlotRecord},
        record,
    },
    segment::{staging::StagingFile, tables::SegmentTables},
    sys::{
        errno,
        files::{self, FileId},
        fork::ForkGuard,
        lock::{self, OfdLock},
        mapping::Mapping,
    },
};

/// What a peer wants to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read the control area and ask the file for frames.
    Observe,
    /// Write pins, read frames in place.
    Attach,
    /// Write everything.
    Write,
}

/// Why a segment cannot be made.
#[derive(Debug)]
pub(crate) enum CreateError {
    /// The file system has no memory for it.
    NoMemory,
    /// A call failed, which is said with what it was for.
    Failed(String, Errno),
}

/// More bytes than a process can have addresses for: a segment that says so is damaged, and no limit is in the way.
const MORE_THAN_ADDRESSES: u64 = 1 << 47;

/// What a failed mapping of a whole segment is called, as a limit of the process may be the reason.
fn mapping_of(header: &Header, path: &str) -> String {
    format!(
        "mapping {} slots of {} bytes of {path} into this program's address space (see ulimit -v)",
        header.slot_count, header.slot_size
    )
}

/// One generation of a channel: its format and sizes never change.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) caps: String,
    pub(crate) file_id: FileId,
    pub(crate) file: OwnedFd,
    pub(crate) tables: SegmentTables,
    slots: Option<Mapping>,
    /// Slots that the file was seen to reach to; it only grows.
    committed: AtomicU32,
    fork_guard: ForkGuard,
}

/// Opens the file of the channel's segment and says what it is. `None` when there is none.
pub(crate) fn open_file(name: &ChannelName, writable: bool) -> std::io::Result<Option<(OwnedFd, FileStat)>> {
    let Some(file) = files::open(&name.segment_path(), writable)? else {
        return Ok(None);
    };
    let stat = fstat(&file)?;
    Ok(Some((file, stat)))
}

impl Segment {
    /// Maps and checks the segment in `file`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the field that makes no sense.
    pub(crate) fn open(name: &ChannelName, file: OwnedFd, stat: &FileStat, access: Access) -> Result<Self, Error> {
        let damaged = |what: String| Error::Damaged {
            channel: name.to_string(),
            what,
        };
        let failed = |call: &str, errno| Error::system(name.as_str(), format!("{call} {}", name.segment_path()), errno);
        let file_size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = Header::zeroed();
        // By pread, which a file that shrinks meanwhile cannot turn into a signal.
        if !files::read_exactly(&file, bytemuck::bytes_of_mut(&mut header), 0).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        header.check(file_size).map_err(damaged)?;
        let mut caps = vec![0; header.caps_size as usize];
        if !files::read_exactly(&file, &mut caps, header.caps_offset).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        let caps = String::from_utf8(caps).map_err(|_| damaged("its format is not UTF-8 text".to_owned()))?;
        let file_id = FileId::from(stat);
        Self::map(header, caps, file_id, file, access)
            .map_err(|errno| match errno {
                Errno::ENOMEM if header.total_size().is_some_and(|size| size < MORE_THAN_ADDRESSES) => {
                    Error::system(name.as_str(), mapping_of(&header, &name.segment_path()), errno)
                }
                Errno::ENOMEM | Errno::EOVERFLOW | Errno::EINVAL => damaged(format!(
                    "its {} slots of {} bytes cannot be mapped: {errno}",
                    header.slot_count, header.slot_size
                )),
                errno => failed("mmap", errno),
            })?
            .ok_or_else(|| damaged("its parts are not where it says".to_owned()))
    }

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

    /// Makes a segment aside with `slots` of its slots backed by memory. It has no name yet, its fixed part is
    /// written by [`begin`](Self::begin), and it has a writer already: the
    /// lock on its writer's byte is what observers ask, who cannot open the control file.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    pub(crate) fn create(
        header: Header,
        caps: &str,
        slots: u32,
        perms: u32,
    ) -> Result<(Self, StagingFile, OfdLock), CreateError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno| CreateError::Failed(what, errno)
        };
        let or_no_memory = |what: &'static str| {
            move |errno| {
                if errno::is_out_of_memory(errno) {
                    CreateError::NoMemory
                } else {
                    CreateError::Failed(what.to_owned(), errno)
                }
            }
        };
        let opening = |error: std::io::Error| or_no_memory("making a file in /dev/shm")(errno::of(&error));
        let staging = StagingFile::create().map_err(opening)?;
        let lock = staging.open_again().map_err(opening)?;
        lock::try_lock(&lock, layout::WRITER_BYTE).map_err(failed("locking a new segment"))?;
        let alive = OfdLock::keep(lock).map_err(failed("mapping a new segment"))?;
        let size = header.slots_offset + u64::from(slots) * header.slot_size;
        files::commit_memory(&staging.file, 0, size).map_err(or_no_memory("making room for a segment"))?;
        staging
            .set_mode(perms)
            .map_err(failed("setting a new segment's mode"))?;
        let file = staging.open_again().map_err(opening)?;
        let file_id = files::file_id(&file).map_err(failed("fstat of a new segment"))?;
        let segment = Self::map(header, caps.to_owned(), file_id, file, Access::Write)
            .and_then(|segment| segment.ok_or(Errno::EINVAL))
            .map_err(|errno| CreateError::Failed(mapping_of(&header, "a new segment"), errno))?;
        let mapping = segment.tables.mapping();
        // Nobody can find the file yet, so plain bytes are right.
        if !mapping.write(header.caps_offset, caps.as_bytes()) {
            return Err(failed("writing the format")(Errno::EINVAL));
        }
        // Relaxed: only this process writes the count, and only hints at it.
        segment.committed.store(slots, Ordering::Relaxed);
        // The others when they are drawn into: the first frame is not to wait for them.
        segment.prefault(0, 1);
        Ok((segment, staging, alive))
    }

    /// Says with which number a segment that has no name yet begins. The last thing written to what never changes.
    pub(crate) fn begin(&mut self, first_seq: u64, event_head: u64, latency_ns: u64) {
        self.header.first_seq = first_seq;
        self.tables.mapping().write(0, bytemuck::bytes_of(&self.header));
        let status = self.tables.status();
        // Relaxed: the rename that gives the segment its name comes after, and whoever opens it by that name sees all.
        status.head.store(first_seq - 1, Ordering::Relaxed);
        status.event_head.store(event_head, Ordering::Relaxed);
        status.latency_ns.store(latency_ns, Ordering::Relaxed);
    }

    /// Whether what never changes is no longer what it was when this peer looked.
    pub(crate) fn is_corrupted(&self) -> bool {
        let mut header = Header::zeroed();
        let mut caps = vec![0; self.caps.len()];
        // A file that cannot be read, or is shorter, says so to whoever comes.
        files::read_exactly(&self.file, bytemuck::bytes_of_mut(&mut header), 0) == Ok(true)
            && files::read_exactly(&self.file, &mut caps, self.header.caps_offset) == Ok(true)
            && (header != self.header || caps != self.caps.as_bytes())
    }

    /// The file that carries the locks of this segment's channel.
    pub(crate) fn lock_file_id(&self) -> FileId {
        FileId {
            device: self.header.lock_device,
            inode: self.header.lock_inode,
        }
    }

    /// Whether the file reaches to the end of `slot`. Shared memory is not asked, as a slot that is named but not backed
    /// kills who touches it; the file is, once for each slot not seen before.
    pub(crate) fn is_committed(&self, slot: usize) -> bool {
        if slot >= self.header.slot_count as usize {
            return false;
        }
        // Relaxed: a hint that only grows; the file itself decides.
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

    /// Puts memory behind one more slot. The writer's alone.
    pub(crate) fn commit_slot(&self, slot: usize) -> nix::Result<()> {
        let offset = self.header.slots_offset + slot as u64 * self.header.slot_size;
        files::commit_memory(&self.file, offset, self.header.slot_size)?;
        // Relaxed: as in `is_committed`.
        self.committed.fetch_max(slot as u32 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the first drawing into new slots as fast as the later ones.
    pub(crate) fn prefault(&self, first: usize, slots: u32) {
        if let Some(mapping) = &self.slots {
            mapping.prefault(self.slot_offset(first), u64::from(slots) * self.header.slot_size);
        }
    }

    /// Gives the memory of a slot back to the system. The writer's alone, after it has taken the slot for writing: the
    /// slot is not used again.
    pub(crate) fn release_slot(&self, slot: usize) {
        let offset = self.header.slots_offset + slot as u64 * self.header.slot_size;
        let keep = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE | nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        let _ = nix::fcntl::fallocate(&self.file, keep, offset as i64, self.header.slot_size as i64);
    }

    /// Whether this is a forked child's copy: the seat, the pins and the name are its parent's, and nothing of them may be
    /// given back here.
    pub(crate) fn is_inherited(&self) -> bool {
        self.fork_guard.is_inherited()
    }

    /// Whether the writer that made the segment still lives and still means it.
    pub(crate) fn has_writer(&self) -> bool {
        lock::is_locked(&self.file, layout::WRITER_BYTE).unwrap_or(true)
    }

    pub(crate) fn slot_head(&self, slot: usize) -> &SlotRecord {
        self.tables.slot(slot)
    }

    /// The frames' mapping, where this peer has one.
    pub(crate) fn slots(&self) -> Option<&Mapping> {
        self.slots.as_ref()
    }

    /// Where a slot begins in [`slots`](Self::slots).
    pub(crate) fn slot_offset(&self, slot: usize) -> u64 {
        slot as u64 * self.header.slot_size
    }

    /// Copies what goes with the frame in `slot`. Meaningful only while the slot is pinned, or if its number is the same
    /// before and after.
    pub(crate) fn read_descriptor(&self, slot: usize) -> FrameDescriptor {
        // Relaxed: the number, read with acquire order before (and after), is what orders these.
        let words = &self.slot_head(slot).words;
        let words: [u64; layout::DESCRIPTOR_WORDS] = core::array::from_fn(|word| words[word].load(Ordering::Relaxed));
        bytemuck::must_cast(words)
    }

    /// Copies the first `size` bytes of what else goes with the frame in `slot`, at most as many as there is room for.
    /// Meaningful as [`read_descriptor`](Self::read_descriptor).
    pub(crate) fn read_metadata(&self, slot: usize, size: u32) -> Vec<u8> {
        record::load_bytes(self.tables.metadata(slot), size as usize)
    }

    /// Writes what else goes with the frame in `slot`, which the caller has claimed. There is room for all of it.
    pub(crate) fn write_metadata(&self, slot: usize, bytes: &[u8]) {
        record::store_bytes(self.tables.metadata(slot), bytes);
    }

    /// Writes what goes with the frame in `slot`, which the caller has claimed.
    pub(crate) fn write_descriptor(&self, slot: usize, descriptor: &FrameDescriptor) {
        let words: [u64; layout::DESCRIPTOR_WORDS] = bytemuck::must_cast(*descriptor);
        for (to, from) in self.slot_head(slot).words.iter().zip(words) {
            // Relaxed: published by the release store of the number.
            to.store(from, Ordering::Relaxed);
        }
    }
}
