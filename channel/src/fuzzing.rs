// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bodies of the fuzz targets in `fuzz/`. Each body gets bytes that another process could have written. The bodies
//! are not part of the public API, and exist only with the feature `fuzzing`.

mod objects;

use std::{
    fs::{File, OpenOptions},
    mem::offset_of,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::{LazyLock, Mutex, atomic::Ordering},
    time::Duration,
};

use bytemuck::Zeroable;
use nix::{fcntl::OFlag, sys::stat::fstat};

use crate::{
    Caps, ChannelName, FrameData, FrameDescriptor, NewEvent, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
    protocol::{
        layout::{Header, MAX_READERS, RunRecord, Status, flags},
        run::RunPosition,
    },
    reader::attachment::Attachment,
    segment::{Access, Segment},
    sys::{directory::Directory, files, sync},
};

pub use self::objects::objects;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=64";
const FRAME_SIZE: usize = 64 * 64;
const SLOT_COUNT: u32 = 4;
/// The offset of the 64-bit word of `Status` that contains `published` and `state`.
const STATE_OFFSET: u64 = 32;

/// A file without a name in the directory of shared memory.
fn unnamed_file() -> Option<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(Directory::current().path())
        .ok()
}

fn name() -> Option<ChannelName> {
    ChannelName::new(format!("rsshm-fuzz-{}", std::process::id())).ok()
}

/// The changes that `data` encodes, six bytes for each change. Two bytes select a word between `from` and `to`. The
/// other four bytes encode the word's new value; their upper three bits select the encoding.
fn changes(data: &[u8], from: u64, to: u64) -> impl Iterator<Item = (u64, [u8; 8])> {
    let words = (to - from) / 8;
    data.chunks_exact(6).map(move |change| {
        let at = u64::from(u16::from_le_bytes([change[0], change[1]])) % words;
        let value = u32::from_le_bytes([change[2], change[3], change[4], change[5]]);
        let value = match value >> 29 {
            0 => u64::from(value),
            1 => u64::MAX - u64::from(value & 0xffff),
            2 => u64::from(value) << 32,
            3 => 1 << (value & 63),
            4 => u64::from(value & 0xff) << 32 | u64::from(value >> 8 & 0xff),
            5 => u64::from(value & 0xffff) << 8,
            6 => u64::from(value & 0xffff) * 4096,
            _ => u64::from(value) << 32 | u64::from(value),
        };
        (from + at * 8, value.to_ne_bytes())
    })
}

/// Opens a file as a segment, with each kind of access. The first byte of `data` selects whether the rest is the
/// content of the file, or a list of changes to a valid segment.
pub fn segment(data: &[u8]) {
    let (Some(name), Some(file), Some((kind, data))) = (name(), unnamed_file(), data.split_first()) else {
        return;
    };
    if kind % 2 == 0 {
        let _ = file.write_all_at(data, 0);
    } else {
        let Some(header) = Header::new(CAPS.len(), SLOT_COUNT, FRAME_SIZE as u64, true) else {
            return;
        };
        let _ = file.set_len(header.total_size().unwrap_or(0));
        let _ = file.write_all_at(bytemuck::bytes_of(&header), 0);
        let _ = file.write_all_at(CAPS.as_bytes(), header.caps_offset);
        for (at, value) in changes(data, 0, 256) {
            let _ = file.write_all_at(&value[..if kind % 4 == 1 { 8 } else { 4 }], at);
        }
    }
    for access in [Access::Observe, Access::Attach, Access::Write] {
        let (Ok(file), Ok(stat)) = (file.as_fd().try_clone_to_owned(), fstat(&file)) else {
            return;
        };
        let Ok(segment) = Segment::open(&name, file, &stat, access) else {
            continue;
        };
        // If the segment can be opened, all its tables can be read. Relaxed, here and below: nobody else uses the
        // segment.
        for index in [0, 1, MAX_READERS - 1] {
            segment.tables.entry(index).pins.load(Ordering::Relaxed);
            segment.tables.entry(index).keyframe_record(u64::MAX).read(1);
            segment.tables.eviction(index).load(Ordering::Relaxed);
            segment
                .tables
                .messages(index, u64::MAX)
                .map(|messages| messages.read(1));
        }
        for seq in [0, 1, 127, u64::MAX] {
            segment.tables.ring(seq).load(Ordering::Relaxed);
            segment.tables.event(seq).read();
        }
        for slot in [0, segment.header.slot_count as usize - 1] {
            segment.read_descriptor(slot);
            segment.read_metadata(slot, u32::MAX);
            let last = segment
                .slots()
                .and_then(|slots| slots.range(segment.slot_offset(slot) + segment.header.slot_size - 1, 1));
            if let Some(last) = last.filter(|_| segment.is_committed(slot)) {
                // SAFETY: the file has memory for the whole slot (`is_committed`), no other process has the file, and
                // the byte is inside the mapping (checked by `range`).
                unsafe { last.read_volatile() };
            }
        }
    }
}

/// A segment with four frames in three slots, in a file without a name.
fn valid_segment() -> Option<(OwnedFd, Header)> {
    let file = unnamed_file()?;
    let mut header = Header::new(CAPS.len(), SLOT_COUNT, FRAME_SIZE as u64, true)?;
    header.first_seq = 1;
    header.flags = flags::RUNS;
    file.set_len(header.total_size()?).ok()?;
    file.write_all_at(bytemuck::bytes_of(&header), 0).ok()?;
    file.write_all_at(CAPS.as_bytes(), header.caps_offset).ok()?;
    let stat = fstat(&file).ok()?;
    let segment = Segment::open(&name()?, file.as_fd().try_clone_to_owned().ok()?, &stat, Access::Write).ok()?;
    for slot in 0..3 {
        let seq = slot as u64 + 1;
        let mut descriptor = FrameDescriptor::new(FRAME_SIZE as u64);
        descriptor.metadata_size = 16;
        descriptor.keyframe = 1;
        segment.write_descriptor(slot, &descriptor);
        // Relaxed, here and below: nobody else uses the segment.
        let record = segment.slot_record(slot);
        record.tail.store(RunPosition::FIRST.to_word(), Ordering::Relaxed);
        record.keyframe.store(RunPosition::FIRST.to_word(), Ordering::Relaxed);
        record.seq.store(seq, Ordering::Relaxed);
        segment
            .tables
            .ring(seq)
            .store(seq << 8 | slot as u64, Ordering::Relaxed);
    }
    // The last run has a second frame.
    let record_offset = FRAME_SIZE as u64 / 2;
    segment.write_appended(2, record_offset, &RunRecord::zeroed().descriptor(record_offset), &[]);
    let tail = RunPosition::FIRST.next(record_offset).to_word();
    segment.slot_record(2).tail.store(tail, Ordering::Relaxed);
    segment.tables.status().run_head.store(3, Ordering::Relaxed);
    segment.tables.status().head.store(4, Ordering::Relaxed);
    Some((file.into(), header))
}

/// Takes frames and events from a segment in which everything except the header may change. The first byte of `data`
/// selects the reader's limits, and whether it has an entry or observes. The rest encodes the changes, which are made
/// before the first read and between the reads.
pub fn frames(data: &[u8]) {
    let (Some((file, header)), Some((kind, data))) = (valid_segment(), data.split_first()) else {
        return;
    };
    let (Some(name), Ok(stat)) = (name(), fstat(&file)) else {
        return;
    };
    let has_entry = kind % 2 == 1;
    let access = if has_entry { Access::Attach } else { Access::Observe };
    let Ok(segment) = file
        .try_clone()
        .map_err(drop)
        .and_then(|file| Segment::open(&name, file, &stat, access).map_err(drop))
    else {
        return;
    };
    let file = File::from(file);
    let Some(attachment) = Attachment::for_fuzzing(segment, has_entry) else {
        return;
    };
    let _ = file.write_all_at(
        &4u32.to_ne_bytes(),
        header.status_offset + offset_of!(Status, quota) as u64,
    );
    let mut reader = Reader::for_fuzzing(name, attachment);
    let limits = ReadLimits::default()
        .max_behind(u32::from(kind >> 1 & 3))
        .max_held(u32::from(kind >> 3 & 3));
    let (mut copy, mut held) = (Vec::new(), Vec::new());
    let mut parts = data.chunks(data.len().div_ceil(4).max(6));
    for _ in 0..8 {
        // The words up to the end of the slots change, because slots have the records of runs.
        let end = header.total_size().unwrap_or(header.slots_offset);
        for (at, value) in changes(parts.next().unwrap_or_default(), 256, end) {
            let _ = file.write_all_at(&value, at);
        }
        let next = reader.next(&mut copy, limits, Some(Duration::ZERO));
        if let Ok(crate::Next::Frame(frame)) = next {
            if let FrameData::InPlace(pinned) = &frame.data {
                assert!(pinned.as_ref().len() as u64 == frame.descriptor.size && pinned.as_ref().len() <= FRAME_SIZE);
                std::hint::black_box(pinned.as_ref().iter().fold(0, |all, byte| all ^ byte));
            }
            held.push(frame);
        }
    }
}

/// Publishes frames and runs the service of a writer while everything in its segment except the header changes. All
/// calls share one writer, because its state is in its own memory, where the changes cannot reach it.
pub fn readers(data: &[u8]) {
    static WRITER: LazyLock<Option<(Mutex<()>, Writer)>> = LazyLock::new(|| {
        let options = WriterOptions::default().max_slots(8).accept_messages(true);
        let writer = Writer::open(name()?, options).ok()?;
        writer.set_caps(Caps::fixed_size(CAPS, FRAME_SIZE)).ok()?;
        Some((Mutex::new(()), writer))
    });
    let Some((one_at_a_time, writer)) = &*WRITER else {
        return;
    };
    let _one = sync::lock(one_at_a_time);
    let publish = || {
        let slot = writer.claim(FRAME_SIZE).ok().flatten();
        let descriptor = FrameDescriptor::new(FRAME_SIZE as u64);
        slot.is_some_and(|slot| writer.publish(&slot, descriptor, &[]).is_ok())
    };
    if writer.stats().published == 0 {
        publish();
        // Attach a reader and keep it alive: the writer uses the values of an entry only if a living reader owns it.
        static READER: Mutex<Option<Reader>> = Mutex::new(None);
        let mut reader = sync::lock(&READER);
        let reader = reader.get_or_insert_with(|| Reader::new(writer.name().clone(), ReaderOptions::default()));
        let _ = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(50)));
    }
    let Ok(file) = OpenOptions::new()
        .read(true)
        .write(true)
        .open(writer.name().segment_path())
    else {
        return;
    };
    let mut header = <Header as bytemuck::Zeroable>::zeroed();
    if files::read_exactly(&file, bytemuck::bytes_of_mut(&mut header), 0) != Ok(true) {
        return;
    }
    for part in data.chunks(data.len().div_ceil(2).max(6)) {
        for (at, value) in changes(part, 256, header.slots_offset) {
            // The word that contains the state stays unchanged. If the state said that the segment is over, the writer
            // would replace the segment in each call.
            if at != header.status_offset + STATE_OFFSET {
                let _ = file.write_all_at(&value, at);
            }
        }
        let _ = writer.service();
        publish();
        let _ = writer.publish_event(NewEvent::default(), Some(data.len() % 8));
        writer.stats();
    }
}
