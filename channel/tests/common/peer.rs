//! A peer that keeps to no rule: it has the segment mapped for writing, and the lock of a seat.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

use std::{
    fs::{File, OpenOptions},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use bytemuck::Zeroable;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use rsshm_channel::layout::{
    DESCRIPTOR_STRIDE, FIRST_READER_BYTE, Header, ReaderEntry, SlotRecord, Status, reader_state,
};

use super::Channel;

pub struct Peer {
    pub header: Header,
    start: NonNull<u8>,
    length: NonZeroUsize,
    /// Carries the locks.
    control: File,
}

// The mapping is only looked at through atomics.
unsafe impl Send for Peer {}
unsafe impl Sync for Peer {}

impl Peer {
    pub fn open(channel: &Channel) -> Self {
        Self::try_open(channel).expect("there is a channel, whole")
    }

    /// `None` when the channel is not there, or its header is damaged.
    pub fn try_open(channel: &Channel) -> Option<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path).ok();
        let file = open(channel.segment())?;
        let mut header = Header::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).ok()?;
        header.check(file.metadata().ok()?.len()).ok()?;
        let length = NonZeroUsize::new(header.slots_offset as usize).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) }.unwrap();
        Some(Self {
            header,
            start: start.cast(),
            length,
            control: open(channel.semaphore())?,
        })
    }

    /// Any part of the control area; the caller sees to it that it lies inside.
    pub fn at<T>(&self, offset: u64) -> &T {
        unsafe { self.start.add(offset as usize).cast().as_ref() }
    }

    pub fn status(&self) -> &Status {
        self.at(self.header.status_offset)
    }

    pub fn entry(&self, entry: usize) -> &ReaderEntry {
        self.at(self.header.readers_offset + (entry * size_of::<ReaderEntry>()) as u64)
    }

    pub fn quota(&self, entry: usize) -> u64 {
        let quota = self.at::<AtomicU64>(self.header.quotas_offset + entry as u64 * 8);
        quota.load(Ordering::Acquire)
    }

    pub fn slot(&self, slot: usize) -> &SlotRecord {
        self.at(self.header.descriptors_offset + (slot * DESCRIPTOR_STRIDE) as u64)
    }

    /// The numbers of the frames that can be read now.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..self.header.slot_count as usize)
            .map(|slot| self.slot(slot).seq.load(Ordering::Acquire))
            .filter(|seq| *seq != 0)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Takes the lock of the first free seat.
    pub fn take_seat(&self) -> usize {
        (0..64)
            .find(|entry| lock(&self.control, libc::F_WRLCK, FIRST_READER_BYTE + *entry as i64, 1))
            .expect("no seat is free")
    }

    /// Takes a seat as [`take_seat`](Self::take_seat) and says in it what an honest reader says.
    pub fn sit_down(&self) -> usize {
        let entry = self.take_seat();
        let shared = self.entry(entry);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        shared.pins.store(0, Ordering::SeqCst);
        shared
            .cursor
            .store(self.status().head.load(Ordering::SeqCst), Ordering::SeqCst);
        shared.state.store(reader_state::ATTACHED, Ordering::SeqCst);
        entry
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}

/// Wakes all who sleep on a word.
pub fn wake(word: &AtomicU32) {
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Puts a lock of `file`'s description on bytes; `false` when somebody else's is in the way.
pub fn lock(file: &File, kind: i32, byte: i64, length: i64) -> bool {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: length,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).is_ok()
}
