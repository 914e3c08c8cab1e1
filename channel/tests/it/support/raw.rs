// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer that can violate the protocol. It has mapped the segment for writing, and can lock bytes of the lock file.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    sync::atomic::Ordering,
};

use bytemuck::Zeroable;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::mman::ProtFlags,
    unistd::{SysconfVar, sysconf},
};
use rsshm_channel::layout::{
    DESCRIPTOR_STRIDE, EVENT_STRIDE, FIRST_PRESENCE_BYTE, FIRST_READER_BYTE, Header, ReaderEntry, STICKY_EVENT_COUNT,
    SlotRecord, Status, reader_state,
};
use rsshm_testkit::Channel;

use super::mapping::{Atomics, SharedMapping};

/// A channel's two files, opened for writing.
pub struct RawPeer {
    pub header: Header,
    tables: SharedMapping,
    /// The file that carries the locks.
    lock_file: File,
}

impl RawPeer {
    pub fn open(channel: &Channel) -> Self {
        Self::try_open(channel).expect("a channel that is not damaged")
    }

    /// Opens the channel. Returns `None` if the channel does not exist or its header is damaged.
    pub fn try_open(channel: &Channel) -> Option<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path).ok();
        let file = open(channel.segment())?;
        let mut header = Header::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).ok()?;
        header.check(file.metadata().ok()?.len()).ok()?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Some(Self {
            header,
            tables: SharedMapping::of_file(&file, header.slots_offset as usize, protection).unwrap(),
            lock_file: open(channel.lock_file())?,
        })
    }

    /// The part of the tables at `offset`.
    #[track_caller]
    pub fn at<T: Atomics>(&self, offset: u64) -> &T {
        self.tables.at(offset as usize)
    }

    /// The status of the segment.
    pub fn status(&self) -> &Status {
        self.at(self.header.status_offset)
    }

    /// The reader entry with this index.
    pub fn entry(&self, entry: usize) -> &ReaderEntry {
        self.at(self.header.readers_offset + (entry * size_of::<ReaderEntry>()) as u64)
    }

    /// How many slots each reader may pin now.
    pub fn quota(&self) -> u32 {
        self.status().quota.load(Ordering::Acquire)
    }

    /// The record of the slot with this index.
    pub fn slot(&self, slot: usize) -> &SlotRecord {
        self.at(self.header.descriptors_offset + (slot * DESCRIPTOR_STRIDE) as u64)
    }

    /// The memory of the tables in bytes while `slots` slots have had memory, and no event was published.
    pub fn tables_memory(&self, slots: u32) -> u64 {
        let page = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64;
        let events_end = self.header.events_offset + (STICKY_EVENT_COUNT * EVENT_STRIDE) as u64;
        let records = u64::from(slots) * DESCRIPTOR_STRIDE as u64;
        events_end.next_multiple_of(page) + records.next_multiple_of(page)
    }

    /// The seqs of the frames that can be read now, in order.
    pub fn seqs(&self) -> Vec<u64> {
        let mut seqs: Vec<u64> = (0..self.header.slot_count as usize)
            .map(|slot| self.slot(slot).seq.load(Ordering::Acquire))
            .filter(|seq| *seq != 0)
            .collect();
        seqs.sort_unstable();
        seqs
    }

    /// Locks the first free reader entry and returns its index.
    pub fn lock_entry(&self) -> usize {
        (0..64)
            .find(|entry| lock(&self.lock_file, libc::F_WRLCK, FIRST_READER_BYTE + *entry as i64, 1))
            .expect("no reader entry is free")
    }

    /// Locks a reader entry and fills it in as an honest reader does. The test may then pin any slots in this entry.
    pub fn attach(&self) -> usize {
        let entry = self.lock_entry();
        let shared = self.entry(entry);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        shared.pins.store(0, Ordering::SeqCst);
        shared
            .cursor
            .store(self.status().head.load(Ordering::SeqCst), Ordering::SeqCst);
        assert!(lock(
            &self.lock_file,
            libc::F_WRLCK,
            FIRST_PRESENCE_BYTE + entry as i64,
            1
        ));
        shared.state.store(reader_state::ATTACHED, Ordering::SeqCst);
        self.status().joins.fetch_add(1, Ordering::SeqCst);
        entry
    }
}

/// Locks bytes for the open file description of `file`. Returns `false` if a lock of another open file description
/// conflicts.
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
