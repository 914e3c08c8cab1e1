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
        layout::{self, Fixed, FrameDescriptor, SlotHead},
        record,
    },
    segment::{staging::Aside, tables::Control},
    sys::{
        files::{self, Identity},
        fork,
        lock::{self, KeptLock},
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
pub(crate) enum NotMade {
    /// The file system has no memory for it.
    NoMemory,
    /// A call failed, which is said with what it was for.
    Failed(String, Errno),
}

/// More bytes than a process can have addresses for: a segment that says so is damaged, and no limit is in the way.
const MORE_THAN_ADDRESSES: u64 = 1 << 47;

/// What a failed mapping of a whole segment is called, as a limit of the process may be the reason.
fn mapping_of(fixed: &Fixed, path: &str) -> String {
    format!(
        "mapping {} slots of {} bytes of {path} into this program's address space (see ulimit -v)",
        fixed.slot_count, fixed.slot_size
    )
}

/// One generation of a channel: its format and sizes never change.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) fixed: Fixed,
    pub(crate) caps: String,
    pub(crate) identity: Identity,
    pub(crate) file: OwnedFd,
    pub(crate) control: Control,
    slots: Option<Mapping>,
    /// Slots that the file was seen to reach to; it only grows.
    backed: AtomicU32,
    /// In which process of a chain of forks it was opened.
    forks: u32,
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
        let mut fixed = Fixed::zeroed();
        // By pread, which a file that shrinks meanwhile cannot turn into a signal.
        if !files::read_exactly(&file, bytemuck::bytes_of_mut(&mut fixed), 0).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        fixed.check(file_size).map_err(damaged)?;
        let mut caps = vec![0; fixed.caps_size as usize];
        if !files::read_exactly(&file, &mut caps, fixed.caps_offset).map_err(|errno| failed("read", errno))? {
            return Err(damaged(format!("it has only {file_size} bytes")));
        }
        let caps = String::from_utf8(caps).map_err(|_| damaged("its format is not UTF-8 text".to_owned()))?;
        let identity = Identity::from(stat);
        Self::map(fixed, caps, identity, file, access)
            .map_err(|errno| match errno {
                Errno::ENOMEM if fixed.total_size().is_some_and(|size| size < MORE_THAN_ADDRESSES) => {
                    Error::system(name.as_str(), mapping_of(&fixed, &name.segment_path()), errno)
                }
                Errno::ENOMEM | Errno::EOVERFLOW | Errno::EINVAL => damaged(format!(
                    "its {} slots of {} bytes cannot be mapped: {errno}",
                    fixed.slot_count, fixed.slot_size
                )),
                errno => failed("mmap", errno),
            })?
            .ok_or_else(|| damaged("its parts are not where it says".to_owned()))
    }

    fn map(fixed: Fixed, caps: String, identity: Identity, file: OwnedFd, access: Access) -> nix::Result<Option<Self>> {
        let control = Mapping::new(&file, 0, fixed.slots_offset, access != Access::Observe)?;
        let slots = match access {
            Access::Observe => None,
            Access::Attach | Access::Write => {
                let length = u64::from(fixed.slot_count) * fixed.slot_size;
                let slots = Mapping::new(&file, fixed.slots_offset, length, access == Access::Write)?;
                slots.leave_out_of_dumps();
                Some(slots)
            }
        };
        Ok(Control::new(control, &fixed).map(|control| Self {
            fixed,
            caps,
            identity,
            file,
            control,
            slots,
            backed: AtomicU32::new(0),
            forks: fork::forks(),
        }))
    }

    /// Makes a segment aside with `slots` of its slots backed by memory. It has no name yet, its fixed part is
    /// written by [`begin`](Self::begin), and it has a writer already: the
    /// lock on its writer's byte is what observers ask, who cannot open the control file.
    ///
    /// # Errors
    /// [`NotMade`]; nothing is left behind.
    pub(crate) fn create(fixed: Fixed, caps: &str, slots: u32, perms: u32) -> Result<(Self, Aside, KeptLock), NotMade> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno| NotMade::Failed(what, errno)
        };
        let opening = |error: std::io::Error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC) => NotMade::NoMemory,
            errno => NotMade::Failed("making a file in /dev/shm".to_owned(), errno.unwrap_or(Errno::EIO)),
        };
        let aside = Aside::create().map_err(opening)?;
        let lock = aside.open_again().map_err(opening)?;
        lock::try_lock(&lock, layout::WRITER_BYTE).map_err(failed("locking a new segment"))?;
        let alive = KeptLock::keep(lock).map_err(failed("mapping a new segment"))?;
        let size = fixed.slots_offset + u64::from(slots) * fixed.slot_size;
        files::back_with_memory(&aside.file, 0, size).map_err(|errno| match errno {
            Errno::ENOSPC | Errno::ENOMEM => NotMade::NoMemory,
            errno => NotMade::Failed("making room for a segment".to_owned(), errno),
        })?;
        aside.set_mode(perms).map_err(failed("setting a new segment's mode"))?;
        let file = aside.open_again().map_err(opening)?;
        let identity = files::identity(&file).map_err(failed("fstat of a new segment"))?;
        let segment = Self::map(fixed, caps.to_owned(), identity, file, Access::Write)
            .and_then(|segment| segment.ok_or(Errno::EINVAL))
            .map_err(|errno| NotMade::Failed(mapping_of(&fixed, "a new segment"), errno))?;
        let mapping = segment.control.mapping();
        // Nobody can find the file yet, so plain bytes are right.
        if !mapping.write(fixed.caps_offset, caps.as_bytes()) {
            return Err(failed("writing the format")(Errno::EINVAL));
        }
        // Relaxed: only this process writes the count, and only hints at it.
        segment.backed.store(slots, Ordering::Relaxed);
        // The others when they are drawn into: the first frame is not to wait for them.
        segment.populate(0, 1);
        Ok((segment, aside, alive))
    }

    /// Says with which number a segment that has no name yet begins. The last thing written to what never changes.
    pub(crate) fn begin(&mut self, first_number: u64, event_head: u64, latency_ns: u64) {
        self.fixed.first_number = first_number;
        self.control.mapping().write(0, bytemuck::bytes_of(&self.fixed));
        let live = self.control.live();
        // Relaxed: the rename that gives the segment its name comes after, and whoever opens it by that name sees all.
        live.head.store(first_number - 1, Ordering::Relaxed);
        live.event_head.store(event_head, Ordering::Relaxed);
        live.latency_ns.store(latency_ns, Ordering::Relaxed);
    }

    /// Whether what never changes is no longer what it was when this peer looked.
    pub(crate) fn is_spoilt(&self) -> bool {
        let mut fixed = Fixed::zeroed();
        let mut caps = vec![0; self.caps.len()];
        // A file that cannot be read, or is shorter, says so to whoever comes.
        files::read_exactly(&self.file, bytemuck::bytes_of_mut(&mut fixed), 0) == Ok(true)
            && files::read_exactly(&self.file, &mut caps, self.fixed.caps_offset) == Ok(true)
            && (fixed != self.fixed || caps != self.caps.as_bytes())
    }

    /// The file that carries the locks of this segment's channel.
    pub(crate) fn lock_identity(&self) -> Identity {
        Identity {
            device: self.fixed.lock_device,
            inode: self.fixed.lock_inode,
        }
    }

    /// Whether the file reaches to the end of `slot`. Shared memory is not asked, as a slot that is named but not backed
    /// kills who touches it; the file is, once for each slot not seen before.
    pub(crate) fn is_backed(&self, slot: usize) -> bool {
        if slot >= self.fixed.slot_count as usize {
            return false;
        }
        // Relaxed: a hint that only grows; the file itself decides.
        if slot < self.backed.load(Ordering::Relaxed) as usize {
            return true;
        }
        let size = fstat(&self.file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let backed = size.saturating_sub(self.fixed.slots_offset) / self.fixed.slot_size;
        self.backed
            .fetch_max(backed.min(u64::from(self.fixed.slot_count)) as u32, Ordering::Relaxed);
        (slot as u64) < backed
    }

    /// Puts memory behind one more slot. The writer's alone.
    pub(crate) fn back_slot(&self, slot: usize) -> nix::Result<()> {
        let offset = self.fixed.slots_offset + slot as u64 * self.fixed.slot_size;
        files::back_with_memory(&self.file, offset, self.fixed.slot_size)?;
        // Relaxed: as in `is_backed`.
        self.backed.fetch_max(slot as u32 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the first drawing into new slots as fast as the later ones.
    pub(crate) fn populate(&self, first: usize, slots: u32) {
        if let Some(mapping) = &self.slots {
            mapping.populate(self.slot_offset(first), u64::from(slots) * self.fixed.slot_size);
        }
    }

    /// Gives the memory of a slot back to the system. The writer's alone, after it has taken the slot for writing: the
    /// slot is not used again.
    pub(crate) fn punch_slot(&self, slot: usize) {
        let offset = self.fixed.slots_offset + slot as u64 * self.fixed.slot_size;
        let keep = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE | nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        let _ = nix::fcntl::fallocate(&self.file, keep, offset as i64, self.fixed.slot_size as i64);
    }

    /// Whether this is a forked child's copy: the seat, the pins and the name are its parent's, and nothing of them may be
    /// given back here.
    pub(crate) fn is_of_parent(&self) -> bool {
        self.forks != fork::forks()
    }

    /// Whether the writer that made the segment still lives and still means it.
    pub(crate) fn has_writer(&self) -> bool {
        lock::is_locked(&self.file, layout::WRITER_BYTE).unwrap_or(true)
    }

    pub(crate) fn slot_head(&self, slot: usize) -> &SlotHead {
        self.control.slot(slot)
    }

    /// The frames' mapping, where this peer has one.
    pub(crate) fn slots(&self) -> Option<&Mapping> {
        self.slots.as_ref()
    }

    /// Where a slot begins in [`slots`](Self::slots).
    pub(crate) fn slot_offset(&self, slot: usize) -> u64 {
        slot as u64 * self.fixed.slot_size
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
    pub(crate) fn read_extra(&self, slot: usize, size: u32) -> Vec<u8> {
        record::load_bytes(self.control.extra(slot), size as usize)
    }

    /// Writes what else goes with the frame in `slot`, which the caller has claimed. There is room for all of it.
    pub(crate) fn write_extra(&self, slot: usize, bytes: &[u8]) {
        record::store_bytes(self.control.extra(slot), bytes);
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
