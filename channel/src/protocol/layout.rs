// SPDX-License-Identifier: MIT OR Apache-2.0

//! The layout of a segment: the only declaration of each structure, offset and size. docs/PROTOCOL.md describes the
//! layout in words.
//!
//! ```text
//! 0        Header       written once, before the segment gets its name
//! 256      Status       the values that change for all peers, and the words that peers wait on
//! 4096     caps         the format of the frames, a string
//!          evictions    the evicted readers: one word for each reader entry, written by the writer
//!          readers      the reader table: one entry for each reader, written by the owner of the entry
//!          ring         the slots of the newest runs: one word for each run
//!          events       the events between frames: the sticky events, then a ring of the newest events
//!          messages     a few records for each reader entry, if the writer accepts messages
//!          descriptors  the descriptor of the first frame in each slot: 4096 bytes for each slot
//!          slots        the frames; each slot starts on a page
//! ```
//!
//! The frames in one slot are a run. Most runs have one frame. Where frames are small and differ in size, the writer
//! appends further frames to the run in the newest slot. Each of them is a [`RunRecord`] in the slot, then the frame's
//! bytes, then its metadata.
//!
//! All integers have the byte order of the machine. A segment with the other byte order fails the check of its version.

use core::sync::atomic::{AtomicU32, AtomicU64};

use bytemuck::{Pod, Zeroable};

use crate::sys::mapping::Shared;

/// The size of the field that a function returns.
const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! reserved_fields {
    ($type:ty: $($field:ident),*) => {
        impl $type {
            /// Name, offset and size of the private fields that are zero, for tests that check the whole layout.
            #[doc(hidden)]
            pub const RESERVED: &[(&str, usize, usize)] = &[$((
                stringify!($field),
                core::mem::offset_of!($type, $field),
                size_of_field(|value: &$type| &value.$field),
            )),*];
        }
    };
}

mod frame;
mod header;
mod object;

pub use frame::{DELTA_UNIT, DESCRIPTOR_WORDS, FrameDescriptor, HEADER};
pub(crate) use header::Table;
pub use object::{
    MAX_REFERENCES, OBJECT_MAGIC, ObjectReference, ObjectReply, ObjectRequest, ReferenceTable, object_kind,
    object_status,
};

/// The most slots that a segment can have, because a pin word has one bit for each slot.
pub const MAX_SLOTS: usize = 64;
/// The first bytes of a segment.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"rsshm\r\n\x1a");
/// The version of this layout. A peer uses only segments of its own version.
pub const VERSION: u32 = 3;
/// The number of entries of the reader table. Readers beyond this number become observers.
pub const MAX_READERS: usize = 64;
/// The number of entries of the ring. Readers can find only the frames of this many runs, which is more than the slots.
pub const RING_LENGTH: u64 = 128;
/// The largest size of the caps in bytes.
pub const MAX_CAPS_SIZE: usize = 64 * 1024;
/// The number of bytes from one descriptor to the next: the [`SlotRecord`], then the metadata.
pub const DESCRIPTOR_STRIDE: usize = 4096;
/// The largest size of a frame's metadata in bytes. Metadata is what a frame has besides its bytes and its
/// [`FrameDescriptor`].
pub const MAX_METADATA_SIZE: usize = DESCRIPTOR_STRIDE - size_of::<SlotRecord>();
/// The number of records for sticky events. A reader that joins later receives the event in each record.
pub const STICKY_EVENT_COUNT: usize = 8;
/// The number of records for the newest events. The writer uses these records in turn.
pub const EVENT_RING_LENGTH: u64 = 128;
/// The size of an event record in bytes.
pub const EVENT_STRIDE: usize = 4096;
/// The largest size of an event in bytes, without its [`EventDescriptor`].
pub const MAX_EVENT_SIZE: usize = EVENT_STRIDE - 8 - size_of::<EventDescriptor>();
/// The number of message records of each reader entry.
pub const MESSAGE_RING_LENGTH: u64 = 4;
/// The size of a message record in bytes.
pub const MESSAGE_STRIDE: usize = 512;
/// The largest size of a message in bytes.
pub const MAX_MESSAGE_SIZE: usize = MESSAGE_STRIDE - 16;
/// The number of keyframe records in each reader entry.
pub const KEYFRAME_RING_LENGTH: u64 = 8;
/// The slots start at a multiple of this number of bytes. It is the largest page size of the machines that Linux runs
/// on, so each slot starts on a page if the size of a slot is a multiple of the page size.
pub const SLOTS_ALIGN: u64 = 64 * 1024;
/// The size of a slot is a multiple of this number of bytes, the smallest page size. A [`Writer`](crate::Writer)
/// chooses a multiple of its system's page size.
pub const SLOT_ALIGN: u64 = 4096;
/// The value that means "no value" for a time or an offset in a descriptor.
pub const TIME_NONE: u64 = u64::MAX;
/// The alignment in bytes of a [`RunRecord`], and of the metadata of an appended frame.
pub const RUN_ALIGN: u64 = 8;
/// The most planes that a frame can have.
pub const MAX_PLANES: usize = 4;

/// The byte of the lock file, and of a segment, on which the living writer holds a write lock.
pub const WRITER_BYTE: i64 = 4096;
/// The byte of the lock file on which the owner of reader entry 0 holds a write lock. The bytes of the other entries
/// follow.
pub const FIRST_READER_BYTE: i64 = 4097;
/// The byte of the lock file on which the reader with entry 0 holds a write lock while it is in any segment. The bytes of
/// the other entries follow.
///
/// The reader takes the lock before it joins, and keeps it on the way from one segment to the next. A lossless writer
/// thereby learns of readers in segments that it does not know.
pub const FIRST_PRESENCE_BYTE: i64 = FIRST_READER_BYTE + MAX_READERS as i64;

/// Bits of [`Header::flags`].
pub mod flags {
    /// The writer waits for its slowest attached reader.
    pub const LOSSLESS: u32 = 1;
    /// Slots may have runs of several frames. Without this bit, each slot has a single frame.
    pub const RUNS: u32 = 2;
    /// The slots have tables of references to objects ([`ReferenceTable`](super::ReferenceTable)) instead of the bytes
    /// of frames.
    pub const OBJECTS: u32 = 4;
}

/// Bits of [`Status::state`].
pub mod state {
    /// A newer segment has the channel's name, or is about to get it. A reader takes the remaining frames of this
    /// segment, and then opens the channel's name again.
    pub const SUPERSEDED: u32 = 1;
    /// The writer has closed the channel. No further frame follows in this segment.
    pub const CLOSED: u32 = 2;
}

/// Values of [`ReaderEntry::state`].
pub mod reader_state {
    /// No reader has used the entry in this segment.
    pub const NEW: u32 = 0;
    /// The reader takes frames in this segment.
    pub const ATTACHED: u32 = 1;
    /// The reader took all the frames that it wanted in this segment, and went on to a newer segment.
    pub const MOVED: u32 = 2;
    /// The reader is gone. Frames that it passed on may still be in use.
    pub const LEFT: u32 = 3;
    /// The reader is about to attach. A lossless writer keeps the frames that this reader is going to take. But a
    /// writer that waits for a reader keeps waiting, because this reader may still have to open another segment.
    pub const JOINING: u32 = 4;

    /// Whether a reader with this state takes frames, or is about to take them.
    pub fn is_present(state: u32) -> bool {
        matches!(state, ATTACHED | JOINING)
    }
}

/// The header: the values that never change once the segment has its name. Peers copy it when they open the segment,
/// and check the copy. Afterwards they use only the copy; the writer also compares the original with its copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// The size of this structure in bytes.
    pub header_size: u32,
    /// When the segment was made, in CLOCK_MONOTONIC nanoseconds.
    pub created_ns: u64,
    /// The seq of the first frame that is published in this segment.
    pub first_seq: u64,
    /// The device number of the lock file.
    pub lock_device: u64,
    /// The inode number of the lock file.
    pub lock_inode: u64,
    /// The offset of the caps.
    pub caps_offset: u64,
    /// The size of the caps in bytes.
    pub caps_size: u64,
    /// The offset of the [`Status`].
    pub status_offset: u64,
    /// The offset of the evictions. Each word is 0, or [`EVICTED`] plus the generation of the reader that the writer
    /// has evicted from the entry.
    pub evictions_offset: u64,
    /// The offset of the reader table.
    pub readers_offset: u64,
    /// The number of bytes from one [`ReaderEntry`] to the next.
    pub reader_stride: u32,
    /// The number of entries of the reader table.
    pub reader_count: u32,
    /// The offset of the ring. Each entry has 8 bytes: the seq of the run's first frame times 256, plus the slot.
    pub ring_offset: u64,
    /// The number of entries of the ring.
    pub ring_count: u32,
    /// The most slots that the segment can have.
    pub slot_count: u32,
    /// The offset of the descriptors.
    pub descriptors_offset: u64,
    /// The offset of the slots.
    pub slots_offset: u64,
    /// The size of a slot in bytes.
    pub slot_size: u64,
    /// The number of bytes from one descriptor to the next.
    pub descriptor_stride: u32,
    /// The least number of later runs that a frame survives.
    pub history: u32,
    /// The process id of the writer. It is only for people, for example in error texts, because it may come from
    /// another pid namespace.
    pub writer_pid: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// The offset of the event records: [`STICKY_EVENT_COUNT`] for sticky events, then [`EVENT_RING_LENGTH`] for the
    /// newest events.
    pub events_offset: u64,
    /// The size of an event record in bytes.
    pub event_stride: u32,
    /// The number of event records of both kinds.
    pub event_count: u32,
    /// The offset of the message records, if there are any.
    pub messages_offset: u64,
    /// The size of a message record in bytes.
    pub message_stride: u32,
    /// The number of message records of each reader entry; 0 if the writer accepts no messages.
    pub message_count: u32,
    /// Zero.
    reserved: [u64; 9],
}

/// The status: the values that change for all peers. Only the writer writes the status, except for `writer_word`, which
/// readers increment too, and `joins`, which only readers increment.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Status {
    /// The seq of the newest frame; 0 before the first frame of the channel.
    pub head: AtomicU64,
    /// The seq of the last frame before each of the two newest ends of the stream. End number `n` is in entry `n % 2`;
    /// `eos_count` counts these ends.
    pub eos_seqs: [AtomicU64; 2],
    /// The latency of the writer: the time in nanoseconds from a frame's timestamp until the frame leaves the writer.
    pub latency_ns: AtomicU64,
    /// Futex word of the readers: counts publishes and everything else that a reader waits for.
    pub published: AtomicU32,
    /// Bits of [`state`].
    pub state: AtomicU32,
    /// How many times the stream has ended in this segment.
    pub eos_count: AtomicU32,
    /// How many different slots each attached reader may pin now. While it is 0, readers take no new pin.
    pub quota: AtomicU32,
    /// The seq of the newest event; 0 before the first event of the channel.
    pub event_head: AtomicU64,
    /// The number of the newest run; 0 before the first run of this segment.
    pub run_head: AtomicU64,
    /// Futex word of the writer: readers increment it when they attach, leave, request something, or release something
    /// that the writer waits for.
    pub writer_word: AtomicU32,
    /// Not 0 while the writer waits for something that a reader releases.
    pub writer_waits: AtomicU32,
    /// How many readers have announced that they attach. A reader increments it when it is joining, so that the writer
    /// looks at the reader's cursor and pins from then on.
    pub joins: AtomicU32,
    /// Not 0 while the source of the writer is closed, until a reader attaches. The segment has no frames then.
    pub idle: AtomicU32,
    /// The inode of the socket at which readers get the descriptors of objects; 0 while the writer has none. Only this
    /// file is the writer's socket, whatever file has the name.
    pub socket: AtomicU64,
    pad: [u32; 10],
}

/// A reader's entry in one segment. Only the process that holds the lock of the entry writes the entry.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReaderEntry {
    /// The pin word: bit N is set while the reader uses slot N.
    pub pins: AtomicU64,
    /// The seq of the last frame that the reader has taken or does not want.
    pub cursor: AtomicU64,
    /// The number of the entry's current owner. Each new owner increases the number before its first pin.
    pub generation: AtomicU32,
    /// One of [`reader_state`].
    pub state: AtomicU32,
    /// The process id of the reader, for people who inspect the channel.
    pub pid: AtomicU32,
    /// How many times this owner has asked for a keyframe as soon as possible.
    pub keyframe_requests: AtomicU32,
    /// The seq of the newest message of this owner; 0 before the first.
    pub message_head: AtomicU64,
    /// The details of the newest request that `keyframe_requests` counts, as in a [`KeyframeRecord`].
    pub keyframe_details: AtomicU64,
    /// The seq of this owner's newest request for a keyframe of a later time; 0 before the first.
    pub keyframe_head: AtomicU64,
    /// How many frames the reader has missed since it was created, for people who inspect the channel. The bit
    /// [`ONLY_NEWEST`] is set if the reader wants only the newest frame, so that it misses frames on purpose.
    pub missed: AtomicU64,
    /// The newest requests for keyframes of a later time. The reader uses these records in turn.
    pub keyframes: [KeyframeRecord; KEYFRAME_RING_LENGTH as usize],
}

/// The record of a request for a keyframe of a later time. Only the process that holds the lock of the reader entry
/// writes the record.
#[repr(C)]
#[derive(Debug)]
pub struct KeyframeRecord {
    /// The seq of the request; 0 while the record cannot be read.
    pub seq: AtomicU64,
    /// The time of the keyframe, in CLOCK_MONOTONIC nanoseconds.
    pub time: AtomicU64,
    /// The reader's own count in the lower half; bit 32 is set if all headers are wanted.
    pub details: AtomicU64,
}

/// The bit of an eviction word that says that a reader was evicted. The lower half of the word is its generation. The
/// reader pinned more slots than the largest quota, so its pins no longer count.
pub const EVICTED: u64 = 1 << 32;
/// The bit of [`ReaderEntry::missed`] that is set if the reader wants only the newest frame.
pub const ONLY_NEWEST: u64 = 1 << 63;
/// The largest quota of a reader, in slots.
pub const MAX_QUOTA: u32 = 8;

/// The record of a slot in the segment: the values of its run, then the [`FrameDescriptor`] of the run's first frame as
/// words.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SlotRecord {
    /// The seq of the first frame of the run in the slot; 0 while the slot cannot be read.
    pub seq: AtomicU64,
    /// The position of the newest frame of the run. Its lower 24 bits say which frame of the run it is, counted from 1.
    /// Its upper 40 bits are the offset of the [`RunRecord`] in the slot, or 0 for the first frame. While the slot can
    /// be read, this position only moves forward.
    pub tail: AtomicU64,
    /// The position of the newest keyframe of the run; 0 if the run has no keyframe.
    pub keyframe: AtomicU64,
    /// The [`FrameDescriptor`].
    pub words: [AtomicU64; DESCRIPTOR_WORDS],
}

/// The description of a frame that was appended to a run. It comes before the frame's bytes in the slot. The metadata
/// comes after these bytes, at a multiple of [`RUN_ALIGN`]. The fields are those of [`FrameDescriptor`] with the same
/// names; an appended frame has no planes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RunRecord {
    /// The presentation time.
    pub pts: u64,
    /// The decoding time.
    pub dts: u64,
    /// The duration in nanoseconds.
    pub duration: u64,
    /// The producer's own count at this frame, or [`TIME_NONE`].
    pub offset: u64,
    /// The producer's own count after this frame, or [`TIME_NONE`].
    pub offset_end: u64,
    /// The size of the frame in bytes.
    pub size: u64,
    /// GstBufferFlags, such as [`DELTA_UNIT`].
    pub flags: u32,
    /// 1 if a reader can start with this frame, 0 otherwise.
    pub keyframe: u32,
    /// The size of the metadata in bytes.
    pub metadata_size: u32,
    /// Zero.
    reserved: u32,
}

impl RunRecord {
    /// The record of an appended frame. The planes and the offset of the bytes are not part of it.
    pub(crate) fn new(descriptor: &FrameDescriptor) -> Self {
        Self {
            pts: descriptor.pts,
            dts: descriptor.dts,
            duration: descriptor.duration,
            offset: descriptor.offset,
            offset_end: descriptor.offset_end,
            size: descriptor.size,
            flags: descriptor.flags,
            keyframe: descriptor.keyframe,
            metadata_size: descriptor.metadata_size,
            reserved: 0,
        }
    }

    /// The descriptor of the frame whose record is at `offset`.
    pub(crate) fn descriptor(&self, offset: u64) -> FrameDescriptor {
        let mut descriptor = FrameDescriptor::new(self.size)
            .with_pts(self.pts)
            .with_dts(self.dts)
            .with_duration(self.duration)
            .with_offset(self.offset)
            .with_flags(self.flags);
        descriptor.offset_end = self.offset_end;
        descriptor.data_offset = offset.saturating_add(size_of::<Self>() as u64);
        descriptor.keyframe = self.keyframe;
        descriptor.metadata_size = self.metadata_size;
        descriptor
    }
}

/// The description of an event, without the event's bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EventDescriptor {
    /// The seq of the frame that the event comes after.
    pub after: u64,
    /// When the event happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
    pub time: u64,
    /// The duration in nanoseconds, or [`TIME_NONE`].
    pub duration: u64,
    /// The kind of the event. The channel does not interpret it.
    pub kind: u32,
    /// The size of the event in bytes.
    pub size: u32,
    /// How many times the stream had ended in this segment when the event was published.
    pub eos_count: u32,
    /// Zero.
    pub(crate) reserved0: u32,
    /// Zero.
    pub(crate) reserved: [u64; 2],
}

/// The record of an event in the segment.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct EventRecord {
    /// The seq of the event; 0 while the record cannot be read.
    pub seq: AtomicU64,
    /// The [`EventDescriptor`], then the event's bytes.
    pub words: [AtomicU64; EVENT_STRIDE / 8 - 1],
}

/// The record of a message in the segment. Only the process that holds the lock of the reader entry writes the record.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MessageRecord {
    /// The seq of the message; 0 while the record cannot be read.
    pub seq: AtomicU64,
    /// The size of the message in bytes, then its bytes.
    pub words: [AtomicU64; MESSAGE_STRIDE / 8 - 1],
}

const _: () = {
    assert!(size_of::<EventRecord>() == EVENT_STRIDE && size_of::<MessageRecord>() == MESSAGE_STRIDE);
    assert!(size_of::<EventDescriptor>() == 56);
    assert!(size_of::<Header>() == 256 && size_of::<Status>() == 128);
    assert!(size_of::<ReaderEntry>() == 256 && size_of::<SlotRecord>() == 256 && size_of::<RunRecord>() == 64);
    assert!(MAX_METADATA_SIZE % 8 == 0);
};

// SAFETY: the type is `repr(C)`, has no `Drop`, and consists of atomics and of private padding integers that no code
// reads.
unsafe impl Shared for Status {}
// SAFETY: the type is `repr(C)`, has no `Drop`, and consists of atomics and of private padding integers that no code
// reads.
unsafe impl Shared for ReaderEntry {}
// SAFETY: the type is `repr(C)`, has no `Drop`, and consists of atomics only.
unsafe impl Shared for SlotRecord {}
// SAFETY: the type is `repr(C)`, has no `Drop`, and consists of atomics only.
unsafe impl Shared for EventRecord {}
// SAFETY: the type is `repr(C)`, has no `Drop`, and consists of atomics only.
unsafe impl Shared for MessageRecord {}

reserved_fields!(Header: reserved);
reserved_fields!(RunRecord: reserved);
reserved_fields!(EventDescriptor: reserved0, reserved);
