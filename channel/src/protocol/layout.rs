//! The segment, field by field: the one place where offsets and sizes stand (docs/PROTOCOL.md describes them in words).
//!
//! ```text
//! 0        Fixed      written once, before the segment has its name
//! 256      Live       what the writer tells everybody, and the word that wakes it
//! 4096     caps       the format, a string
//!          grants     one word a seat, written by the writer: how many slots the seat may pin
//!          seats      one block a seat, written by who holds the seat
//!          ring       one word an entry: which slot a frame's number is in
//!          events     what happens between frames: the events that last, then a ring of the newest
//!          mail       a few records a seat, where the writer takes any: what readers tell it
//!          slots'     descriptors, 4096 bytes each
//!          slots      the frames, each beginning on a page
//! ```
//!
//! All numbers are in the machine's own byte order; a version of the other order is not one that this program knows.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::{Pod, Zeroable};

use crate::sys::mapping::Shared;

/// The most slots a segment can have: one bit of a pin word each.
pub const MAX_SLOTS: usize = 64;
/// The first bytes of a segment.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"rsshm\r\n\x1a");
/// The version of this layout. A reader follows only its own.
pub const VERSION: u32 = 1;
/// Seats for attached readers; one more reader observes.
pub const MAX_READERS: usize = 64;
/// Entries of the ring: how many numbers back from the newest a frame can be found.
pub const RING_LENGTH: u64 = 128;
/// The longest format string, in bytes.
pub const MAX_CAPS_SIZE: usize = 64 * 1024;
/// Bytes from one descriptor to the next: the fixed part, then room for what goes with a frame.
pub const DESCRIPTOR_STRIDE: usize = 4096;
/// Bytes that can go with a frame beside its [`FrameDescriptor`].
pub const MAX_METADATA_SIZE: usize = DESCRIPTOR_STRIDE - size_of::<SlotRecord>();
/// Places for events that last: a reader that comes later is told of the newest in each.
pub const STICKY_EVENT_COUNT: usize = 8;
/// Places for the newest events, used in turn.
pub const EVENT_RING_LENGTH: u64 = 32;
/// Bytes of an event's place.
pub const EVENT_STRIDE: usize = 4096;
/// Bytes that can go with an event beside its [`EventDescriptor`].
pub const MAX_EVENT_SIZE: usize = EVENT_STRIDE - 8 - size_of::<EventDescriptor>();
/// Letters that a seat's mailbox holds.
pub const MESSAGE_RING_LENGTH: u64 = 4;
/// Bytes of a letter's place.
pub const MESSAGE_STRIDE: usize = 512;
/// Bytes of a letter.
pub const MAX_MESSAGE_SIZE: usize = MESSAGE_STRIDE - 16;
/// Slots begin at a multiple of this, the largest page size of the machines Linux runs on.
pub const SLOTS_ALIGN: u64 = 64 * 1024;
/// A slot's size is a multiple of this.
pub const SLOT_ALIGN: u64 = 4096;
/// "No value" in times and offsets of a descriptor.
pub const TIME_NONE: u64 = u64::MAX;
/// The most planes a frame has.
pub const MAX_PLANES: usize = 4;

/// Byte of the semaphore's file, and of a segment's, that the living writer holds a write lock on.
pub const WRITER_BYTE: i64 = 4096;
/// Byte of the semaphore's file that the reader in seat 0 holds a write lock on; the other seats follow.
pub const FIRST_READER_BYTE: i64 = 4097;

/// Bits of [`Header::flags`].
pub mod flags {
    /// The writer waits for its slowest attached reader.
    pub const LOSSLESS: u32 = 1;
}

/// Bits of [`Status::state`].
pub mod state {
    /// A newer segment has taken the name, or is about to: take what is left, then look again.
    pub const SUPERSEDED: u32 = 1;
    /// The writer stopped in good order; no frame follows here.
    pub const CLOSED: u32 = 2;
}

/// Values of [`ReaderEntry::state`].
pub mod reader_state {
    /// Nobody has used the seat in this segment.
    pub const NEW: u32 = 0;
    /// A reader takes frames here.
    pub const ATTACHED: u32 = 1;
    /// The reader took all it wanted here and went on to a newer segment.
    pub const MOVED: u32 = 2;
    /// The reader is gone; frames that it passed on may still be in use.
    pub const LEFT: u32 = 3;
    /// A reader sits down: what it is going to take is kept, but nobody goes on because of it, as it may have to look
    /// elsewhere yet.
    pub const JOINING: u32 = 4;

    /// Whether somebody takes frames here, or is about to.
    pub fn is_present(state: u32) -> bool {
        matches!(state, ATTACHED | JOINING)
    }
}

/// What never changes once the segment has its name. Readers copy it when they attach, check the copy, and never look
/// at the original again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Size of this structure in bytes.
    pub header_size: u32,
    /// CLOCK_MONOTONIC nanoseconds at which the segment was made.
    pub created_ns: u64,
    /// Number of the first frame published here.
    pub first_seq: u64,
    /// Device number of the file that carries the locks (the semaphore's).
    pub lock_device: u64,
    /// Inode number of that file.
    pub lock_inode: u64,
    /// Where the format string begins.
    pub caps_offset: u64,
    /// Its length in bytes.
    pub caps_size: u64,
    /// Where [`Status`] is.
    pub status_offset: u64,
    /// Where the grants begin, 8 bytes each: the ticket in the upper, the number of slots in the lower half.
    pub quotas_offset: u64,
    /// Where the seats begin.
    pub readers_offset: u64,
    /// Bytes from one [`ReaderEntry`] to the next.
    pub reader_stride: u32,
    /// Seats.
    pub reader_count: u32,
    /// Where the ring begins, 8 bytes an entry: the number times 256, plus the slot.
    pub ring_offset: u64,
    /// Entries of the ring.
    pub ring_count: u32,
    /// Slots there can be.
    pub slot_count: u32,
    /// Where the descriptors begin.
    pub descriptors_offset: u64,
    /// Where the slots begin.
    pub slots_offset: u64,
    /// Bytes of a slot.
    pub slot_size: u64,
    /// Bytes from one descriptor to the next.
    pub descriptor_stride: u32,
    /// A frame stays for at least so many more publishes.
    pub history: u32,
    /// Process of the writer, for messages only.
    pub writer_pid: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Where the events begin: [`STICKY_EVENT_COUNT`] places, then [`EVENT_RING_LENGTH`].
    pub events_offset: u64,
    /// Bytes of an event's place.
    pub event_stride: u32,
    /// Places of both kinds.
    pub event_count: u32,
    /// Where the mailboxes begin, if there are any.
    pub messages_offset: u64,
    /// Bytes of a letter's place.
    pub message_stride: u32,
    /// Places of each seat; 0 where the writer takes no letters.
    pub message_count: u32,
    /// Zero.
    pub reserved: [u64; 9],
}

/// What changes for everybody. Written by the writer alone, but for the words at its end.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Status {
    /// Number of the newest frame; 0 before the first of the channel.
    pub head: AtomicU64,
    /// Number of the last frame before the end of the stream that `eos_count` counts.
    pub eos_seq: AtomicU64,
    /// When frames leave the writer, in nanoseconds after their time stamp.
    pub latency_ns: AtomicU64,
    /// Futex word: counts publishes and everything else that a reader waits for.
    pub published: AtomicU32,
    /// Bits of [`state`].
    pub state: AtomicU32,
    /// How many times the stream ended.
    pub eos_count: AtomicU32,
    pad: u32,
    /// Number of the newest event; 0 before the first of the channel.
    pub event_head: AtomicU64,
    pad1: [u32; 4],
    /// Futex word of the writer: readers count it up when they come, go, or free something that it waits for.
    pub writer_word: AtomicU32,
    /// Not 0 while the writer waits for a slot.
    pub writer_waits: AtomicU32,
    pad2: [u32; 14],
}

impl Status {
    /// Whether the segment is superseded or closed, so that no frame follows the ones that it has.
    pub fn is_over(&self) -> bool {
        // Acquire: pairs with the release `fetch_or` of a writer that supersedes or closes the segment. The head that is
        // loaded after this is the last one.
        self.state.load(Ordering::Acquire) & (state::SUPERSEDED | state::CLOSED) != 0
    }
}

/// A reader's seat in one segment. Written only by who holds the lock of the seat.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReaderEntry {
    /// The pin word: bit N is set while the reader holds slot N.
    pub pins: AtomicU64,
    /// Number of the last frame that the reader has taken or does not want.
    pub cursor: AtomicU64,
    /// Which owner of the seat this is: each counts it up before anything else.
    pub generation: AtomicU32,
    /// One of [`reader_state`].
    pub state: AtomicU32,
    /// Process of the reader, for people who look.
    pub pid: AtomicU32,
    /// How many times this owner asked for a frame that can be decoded without those before it.
    pub keyframe_requests: AtomicU32,
    /// Number of the owner's newest letter in the mailbox, beginning at 1.
    pub message_head: AtomicU64,
    pad: [u32; 6],
}

/// The lower half of a grant when the seat's pins no longer count, since it holds more than it may.
pub const EVICTED: u32 = u32::MAX;
/// The most slots that a seat is ever granted.
pub const MAX_QUOTA: u32 = 8;

/// Where the fixed part of a frame's meaning lies, next to its number: [`FrameDescriptor`], as words.
pub const DESCRIPTOR_WORDS: usize = size_of::<FrameDescriptor>() / 8;

/// What goes with a frame. Times are CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FrameDescriptor {
    /// When the frame is due: its presentation time.
    pub pts: u64,
    /// When it is to be decoded.
    pub dts: u64,
    /// How long it lasts.
    pub duration: u64,
    /// The stream's own count, as the producer gives it, or [`TIME_NONE`].
    pub offset: u64,
    /// The count after it, or [`TIME_NONE`].
    pub offset_end: u64,
    /// Where the frame's bytes begin in its slot.
    pub data_offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// GstBufferFlags.
    pub flags: u32,
    /// Planes described below; 0 where the format's default layout holds, or there is none.
    pub planes: u32,
    /// Where each plane begins, counted from the frame's first byte.
    pub plane_offset: [u64; MAX_PLANES],
    /// Bytes from one row of each plane to the next.
    pub plane_stride: [i32; MAX_PLANES],
    /// Bytes used of the area behind this structure.
    pub metadata_size: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 16],
}

/// The bit of [`FrameDescriptor::flags`] that says that a frame cannot be decoded without those before it
/// (GST_BUFFER_FLAG_DELTA_UNIT).
pub const DELTA_UNIT: u32 = 1 << 13;

impl Default for FrameDescriptor {
    fn default() -> Self {
        Self {
            pts: TIME_NONE,
            dts: TIME_NONE,
            duration: TIME_NONE,
            offset: TIME_NONE,
            offset_end: TIME_NONE,
            ..Self::zeroed()
        }
    }
}

impl FrameDescriptor {
    /// The descriptor of a frame of `size` bytes, with no times, no flags, and the caps' default layout.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Sets the presentation time, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn with_pts(mut self, pts: u64) -> Self {
        self.pts = pts;
        self
    }

    /// Sets the decoding time, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn with_dts(mut self, dts: u64) -> Self {
        self.dts = dts;
        self
    }

    /// Sets the duration, in nanoseconds.
    #[must_use]
    pub fn with_duration(mut self, duration: u64) -> Self {
        self.duration = duration;
        self
    }

    /// Sets the producer's own count.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the flags: GstBufferFlags, such as [`DELTA_UNIT`].
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Sets where each plane begins, counted from the frame's first byte, and its bytes from one row to the next. Planes
    /// beyond [`MAX_PLANES`] are left out.
    #[must_use]
    pub fn with_planes(mut self, planes: &[(u64, i32)]) -> Self {
        self.planes = planes.len().min(MAX_PLANES) as u32;
        for (index, (offset, stride)) in planes.iter().take(MAX_PLANES).enumerate() {
            self.plane_offset[index] = *offset;
            self.plane_stride[index] = *stride;
        }
        self
    }

    /// Whether it cannot be decoded without those before it.
    pub fn is_delta(&self) -> bool {
        self.flags & DELTA_UNIT != 0
    }

    /// Whether every place that it names lies inside a slot of `slot_size` bytes.
    pub fn fits(&self, slot_size: u64) -> bool {
        self.data_offset
            .checked_add(self.size)
            .is_some_and(|end| end <= slot_size)
            && self.planes as usize <= MAX_PLANES
            && self.plane_offset[..self.planes as usize]
                .iter()
                .all(|offset| *offset <= self.size)
            && self.metadata_size as usize <= MAX_METADATA_SIZE
    }
}

/// A slot's descriptor as it lies in the segment: the number, then a [`FrameDescriptor`] as words.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SlotRecord {
    /// Number of the frame in the slot; 0 while it cannot be read.
    pub seq: AtomicU64,
    /// The [`FrameDescriptor`].
    pub words: [AtomicU64; DESCRIPTOR_WORDS],
}

/// What an event is, beside its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EventDescriptor {
    /// Number of the frame that it comes after.
    pub after: u64,
    /// When it happens, in CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
    pub time: u64,
    /// How long it lasts, or [`TIME_NONE`].
    pub duration: u64,
    /// What it is; the channel does not know.
    pub kind: u32,
    /// Bytes that go with it.
    pub size: u32,
    /// How many times the stream had ended in this segment by then.
    pub eos_count: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 2],
}

/// An event as it lies in the segment.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct EventRecord {
    /// Number of the event, 0 while there is none to be read.
    pub seq: AtomicU64,
    /// The [`EventDescriptor`], then the bytes.
    pub words: [AtomicU64; EVENT_STRIDE / 8 - 1],
}

/// A letter as it lies in a seat's mailbox. Written by who holds the seat.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MessageRecord {
    /// Number of the letter, 0 while there is none to be read.
    pub seq: AtomicU64,
    /// Its size in bytes, then the bytes.
    pub words: [AtomicU64; MESSAGE_STRIDE / 8 - 1],
}

const _: () = {
    assert!(size_of::<EventRecord>() == EVENT_STRIDE && size_of::<MessageRecord>() == MESSAGE_STRIDE);
    assert!(size_of::<EventDescriptor>() == 56);
    assert!(size_of::<Header>() == 256 && size_of::<Status>() == 128);
    assert!(size_of::<ReaderEntry>() == 64 && size_of::<SlotRecord>() == 256);
    assert!(size_of::<FrameDescriptor>().is_multiple_of(8));
    assert!(MAX_METADATA_SIZE.is_multiple_of(8));
};

// SAFETY: `repr(C)`, atomics and private padding words that no code reads.
unsafe impl Shared for Status {}
// SAFETY: as above.
unsafe impl Shared for ReaderEntry {}
// SAFETY: as above.
unsafe impl Shared for SlotRecord {}
// SAFETY: as above.
unsafe impl Shared for EventRecord {}
// SAFETY: as above.
unsafe impl Shared for MessageRecord {}

const STATUS_OFFSET: u64 = 256;
const CAPS_OFFSET: u64 = 4096;

fn align_up(value: u64, to: u64) -> Option<u64> {
    value.checked_add(to - 1).map(|value| value / to * to)
}

impl Header {
    /// The layout of a segment for a format of `caps_size` bytes and `slot_count` slots of at least `frame_size` bytes,
    /// with mailboxes where the writer `accept_messages`. `None` where the numbers are out of bounds.
    pub fn new(caps_size: usize, slot_count: u32, frame_size: u64, accept_messages: bool) -> Option<Self> {
        if caps_size > MAX_CAPS_SIZE || !(1..=MAX_SLOTS as u32).contains(&slot_count) {
            return None;
        }
        let quotas_offset = align_up(CAPS_OFFSET + caps_size as u64, 64)?;
        let readers_offset = quotas_offset + MAX_READERS as u64 * 8;
        let ring_offset = readers_offset + (MAX_READERS * size_of::<ReaderEntry>()) as u64;
        let events_offset = align_up(ring_offset + RING_LENGTH * 8, SLOT_ALIGN)?;
        let events = STICKY_EVENT_COUNT as u64 + EVENT_RING_LENGTH;
        let messages_offset = events_offset + events * EVENT_STRIDE as u64;
        let message_count = if accept_messages { MESSAGE_RING_LENGTH as u32 } else { 0 };
        let messages_size = (MAX_READERS * MESSAGE_STRIDE) as u64 * u64::from(message_count);
        let descriptors_offset = align_up(messages_offset + messages_size, SLOT_ALIGN)?;
        let header = Self {
            magic: MAGIC,
            version: VERSION,
            header_size: size_of::<Self>() as u32,
            caps_offset: CAPS_OFFSET,
            caps_size: caps_size as u64,
            status_offset: STATUS_OFFSET,
            quotas_offset,
            readers_offset,
            reader_stride: size_of::<ReaderEntry>() as u32,
            reader_count: MAX_READERS as u32,
            ring_offset,
            ring_count: RING_LENGTH as u32,
            events_offset,
            event_stride: EVENT_STRIDE as u32,
            event_count: events as u32,
            messages_offset,
            message_stride: MESSAGE_STRIDE as u32,
            message_count,
            slot_count,
            descriptors_offset,
            descriptor_stride: DESCRIPTOR_STRIDE as u32,
            slots_offset: align_up(
                descriptors_offset + u64::from(slot_count) * DESCRIPTOR_STRIDE as u64,
                SLOTS_ALIGN,
            )?,
            slot_size: align_up(frame_size.max(1), SLOT_ALIGN)?,
            ..Self::zeroed()
        };
        header.total_size().is_some().then_some(header)
    }

    /// Bytes of all mailboxes.
    pub(crate) fn messages_size(&self) -> u64 {
        MAX_READERS as u64 * u64::from(self.message_count) * MESSAGE_STRIDE as u64
    }

    /// Bytes of the file with all its slots, `None` when that is no size a file or a mapping can have.
    pub fn total_size(&self) -> Option<u64> {
        u64::from(self.slot_count)
            .checked_mul(self.slot_size)?
            .checked_add(self.slots_offset)
            .filter(|total| *total <= isize::MAX as u64)
    }

    /// Checks numbers that somebody else wrote: nothing they name lies outside the control area, which must lie in the
    /// file's `file_size` bytes, and all is aligned.
    ///
    /// # Errors
    /// A text that names the field and its value.
    pub fn check(&self, file_size: u64) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err(format!(
                "it begins with {:#018x}, which is not a segment of rsshm",
                self.magic
            ));
        }
        if self.version != VERSION {
            return Err(format!(
                "its version is {}, this program knows version {VERSION}",
                self.version
            ));
        }
        let exactly = [
            ("header_size", u64::from(self.header_size), size_of::<Self>() as u64),
            (
                "reader_stride",
                u64::from(self.reader_stride),
                size_of::<ReaderEntry>() as u64,
            ),
            ("reader_count", u64::from(self.reader_count), MAX_READERS as u64),
            ("ring_count", u64::from(self.ring_count), RING_LENGTH),
            ("event_stride", u64::from(self.event_stride), EVENT_STRIDE as u64),
            (
                "event_count",
                u64::from(self.event_count),
                STICKY_EVENT_COUNT as u64 + EVENT_RING_LENGTH,
            ),
            ("message_stride", u64::from(self.message_stride), MESSAGE_STRIDE as u64),
            (
                "descriptor_stride",
                u64::from(self.descriptor_stride),
                DESCRIPTOR_STRIDE as u64,
            ),
        ];
        for (field, value, wanted) in exactly {
            if value != wanted {
                return Err(format!("its {field} is {value}, version {VERSION} has {wanted}"));
            }
        }
        if ![0, MESSAGE_RING_LENGTH].contains(&u64::from(self.message_count)) {
            return Err(format!(
                "its mail_count is {}, not 0 or {MESSAGE_RING_LENGTH}",
                self.message_count
            ));
        }
        if !(1..=MAX_SLOTS as u32).contains(&self.slot_count) {
            return Err(format!("its slot_count is {}, not 1 to {MAX_SLOTS}", self.slot_count));
        }
        if self.slot_size == 0 || !self.slot_size.is_multiple_of(SLOT_ALIGN) || self.total_size().is_none() {
            return Err(format!("its slot_size is {}", self.slot_size));
        }
        if self.caps_size > MAX_CAPS_SIZE as u64 {
            return Err(format!(
                "its caps_size is {}, at most {MAX_CAPS_SIZE} is allowed",
                self.caps_size
            ));
        }
        if !self.slots_offset.is_multiple_of(SLOTS_ALIGN) || self.slots_offset > file_size {
            return Err(format!(
                "its slots_offset is {} in a file of {file_size} bytes",
                self.slots_offset
            ));
        }
        let inside = [
            ("status_offset", self.status_offset, size_of::<Status>() as u64, 64),
            ("caps_offset", self.caps_offset, self.caps_size, 1),
            ("quotas_offset", self.quotas_offset, MAX_READERS as u64 * 8, 8),
            (
                "readers_offset",
                self.readers_offset,
                (MAX_READERS * size_of::<ReaderEntry>()) as u64,
                64,
            ),
            ("ring_offset", self.ring_offset, RING_LENGTH * 8, 8),
            (
                "events_offset",
                self.events_offset,
                u64::from(self.event_count) * EVENT_STRIDE as u64,
                64,
            ),
            (
                "descriptors_offset",
                self.descriptors_offset,
                u64::from(self.slot_count) * DESCRIPTOR_STRIDE as u64,
                64,
            ),
        ];
        let messages =
            (self.message_count > 0).then(|| ("messages_offset", self.messages_offset, self.messages_size(), 64));
        for (field, offset, size, align) in inside.into_iter().chain(messages) {
            let ends_inside = offset.checked_add(size).is_some_and(|end| end <= self.slots_offset);
            if !ends_inside || offset % align != 0 || offset < size_of::<Self>() as u64 {
                return Err(format!("its {field} is {offset}"));
            }
        }
        Ok(())
    }
}
