//! The writer of a channel.
//!
//! It keeps its state in its own memory; of what others can write it reads the seats only. The files beside this one:
//! `slots` finds a slot for the next frame, `overcommit` when there are more readers than slots, `events` tells what happens between frames, `clients` looks after the readers'
//! seats, `requests` hears what they ask for, `replace` makes segments, `waits` is
//! all that a writer waits for.
//!
//! Locks, always taken in this order: `replacing`, the semaphore's turn, `state`. None is held during a wait for a
//! reader; `state` is never held while the semaphore is waited for.

mod events;
mod messages;
mod overcommit;
mod readers;
mod replace;
mod slots;
mod upstream;
mod waits;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    ChannelName, Error, FrameDescriptor,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{FIRST_READER_BYTE, MAX_METADATA_SIZE, MAX_READERS, MAX_SLOTS, reader_state, state},
    },
    segment::{
        Segment,
        faults::SemaphoreFaults,
        lock_file::LockFile,
        wait::{FutexWord, RateLimiter, Waiter},
    },
    sys::{
        copy,
        files::{self, FileId},
        fork::ForkGuard,
        lock::OfdLock,
        sync,
    },
};
pub use events::NewEvent;
use events::StickyEvents;
use messages::{KeyframeRequests, RequestCounts};
use readers::ReaderRecord;
pub use readers::ServiceReport;
use slots::SlotTable;
pub use upstream::Upstream;

/// How often a service looks at once when it is woken and woken again; then once in so long.
const SERVICE_WAKES: u32 = 16;
const SERVICE_LOOK: Duration = Duration::from_millis(5);

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Permission bits of the segment; the owner's read and write bits are among them.
    pub perms: u32,
    /// Slots at most: 3 to 64, or 0 for as many as half of the free shared memory holds.
    pub max_slots: u32,
    /// Wait for the slowest attached reader rather than let it miss a frame.
    pub lossless: bool,
    /// Let readers send letters, which [`ServiceReport::messages`] has.
    pub accept_messages: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            perms: 0o600,
            max_slots: 0,
            lossless: false,
            accept_messages: false,
        }
    }
}

impl WriterOptions {
    /// Sets [`perms`](Self::perms).
    #[must_use]
    pub fn perms(mut self, perms: u32) -> Self {
        self.perms = perms;
        self
    }

    /// Sets [`max_slots`](Self::max_slots).
    #[must_use]
    pub fn max_slots(mut self, max_slots: u32) -> Self {
        self.max_slots = max_slots;
        self
    }

    /// Sets [`lossless`](Self::lossless).
    #[must_use]
    pub fn lossless(mut self, lossless: bool) -> Self {
        self.lossless = lossless;
        self
    }

    /// Sets [`accept_messages`](Self::accept_messages).
    #[must_use]
    pub fn accept_messages(mut self, accept_messages: bool) -> Self {
        self.accept_messages = accept_messages;
        self
    }
}

/// What the frames are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    caps: String,
    frame_size: u64,
    variable: bool,
}

impl Caps {
    /// Frames of `frame_size` bytes each. `caps` is what readers are told; the channel does not look into it.
    pub fn fixed_size(caps: impl Into<String>, frame_size: usize) -> Self {
        Self {
            caps: caps.into(),
            frame_size: frame_size as u64,
            variable: false,
        }
    }

    /// Frames whose sizes differ, as those of a compressed stream do: slots are made with room to spare.
    pub fn variable_size(caps: impl Into<String>) -> Self {
        Self {
            caps: caps.into(),
            frame_size: 0,
            variable: true,
        }
    }
}

/// What a writer has counted, and has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Frames published.
    pub published: u64,
    /// Slots backed by memory.
    pub slots: u32,
    /// Of these, with a frame, or out for drawing.
    pub slots_in_use: u32,
    /// Bytes of the segment's file.
    pub bytes: u64,
    /// How often a publish went around the semaphore, as its holder took too long.
    pub semaphore_timeouts: u64,
    /// Readers whose pins no longer count, as they held more than they were granted.
    pub evicted: u64,
    /// Segments made.
    pub segments: u64,
}

/// Writes a channel; see the crate's documentation for an example. All methods may be called from any thread, but one
/// thread at a time waits: the one that publishes, and beside it the one that calls [`service`](Writer::service).
#[derive(Debug)]
pub struct Writer {
    name: ChannelName,
    options: WriterOptions,
    fork_guard: ForkGuard,
    /// What a damaged segment was found to have that this writer has replaced.
    replaced_damaged: Option<String>,
    /// The thread that publishes.
    waiter: Waiter,
    /// The thread that calls [`service`](Writer::service).
    service_waiter: Waiter,
    replacing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lock_file: Arc<LockFile>,
    /// `None` once the writer is closed.
    writer_lock: Option<OfdLock>,
    format: Option<Caps>,
    /// What upstream wants of a slot, beyond the format's frame size.
    wanted_size: u64,
    current: Option<CurrentSegment>,
    /// The file that has the channel's name by this writer's doing, or was taken over from a dead one. Also while no segment
    /// is current, as the next could not be made.
    owned_name: Option<FileId>,
    retired: Vec<RetiredSegment>,
    /// A dead writer's channel was taken over then, and readers that it had not brought over to its last segment yet may be on
    /// their way from older ones.
    took_over: Option<Instant>,
    head: u64,
    /// Frames since then that were lost before they were published.
    dropped: u64,
    events: StickyEvents,
    keyframes: KeyframeRequests,
    latency_ns: u64,
    readers: [ReaderRecord; MAX_READERS],
    names_checked: Instant,
    /// Since when one of the names is another's.
    names_foreign_since: Option<Instant>,
    /// The count of the current segment's writer's word that the service has last seen to.
    served: u32,
    /// Services, which others ask for.
    limiter: RateLimiter,
    /// What the service has told of the semaphore.
    faults: SemaphoreFaults,
    stats: WriterStats,
}

#[derive(Debug)]
struct CurrentSegment {
    segment: Arc<WriterSegment>,
    slots: SlotTable,
    /// What each seat has asked for so far.
    seen_requests: [RequestCounts; MAX_READERS],
    /// Observers ask this lock, which goes with the segment's turn.
    _alive: OfdLock,
}

/// A superseded segment, of which readers may still take or hold frames.
#[derive(Debug)]
struct RetiredSegment {
    segment: Arc<WriterSegment>,
    slots: SlotTable,
    since: Instant,
}

/// A segment as its writer has it.
#[derive(Debug)]
struct WriterSegment {
    segment: Arc<Segment>,
    /// The file that carries the locks of this segment's seats. Another than the channel's once that was lost.
    lock_file: Arc<LockFile>,
    /// Slots that memory of this process still refers to: being drawn, or published and still in upstream's hands.
    claimed_slots: [AtomicBool; MAX_SLOTS],
    /// Of these, those that were not claimed for upstream to draw into.
    copied_into: [AtomicBool; MAX_SLOTS],
    /// Of these, those that have been published.
    published: [AtomicBool; MAX_SLOTS],
}

/// A slot to draw into, claimed for the caller alone. Publishing does not use it up: its memory is the writer's for as
/// long as this value lives, and the slot is not taken for another frame before.
#[derive(Debug)]
pub struct Slot {
    owner: Arc<WriterSegment>,
    index: usize,
    size: u64,
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        match self.owner.segment.slots() {
            // SAFETY: the slot is backed since before it was claimed, and claimed by this value alone: `claimed_slots` stays
            // set until it is dropped. It is not published. Readers of other processes find the number 0 and do not use what they see.
            Some(slots) if !self.is_published() => unsafe {
                slots.slice_mut(self.owner.segment.slot_offset(self.index), self.size)
            },
            _ => &mut [],
        }
    }
}

impl Slot {
    /// Whether readers may have the frame: then nobody draws into it any more, and [`as_mut`](Self::as_mut) is empty.
    pub fn is_published(&self) -> bool {
        self.owner.published[self.index].load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.owner.segment.is_inherited() {
            return;
        }
        self.owner.published[self.index].store(false, Ordering::Relaxed);
        // Release: pairs with the acquire load in `SlotTable`; whatever was drawn here is drawn.
        self.owner.claimed_slots[self.index].store(false, Ordering::Release);
        self.owner.segment.notify_waiting_writer();
    }
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// What was wrong with a segment of this user that lay under the name and has been replaced; `None` where there was
    /// nothing, or nothing wrong.
    pub fn replaced_damaged(&self) -> Option<&str> {
        self.replaced_damaged.as_deref()
    }

    /// Whether the writer waits for its readers.
    pub fn is_lossless(&self) -> bool {
        self.options.lossless
    }

    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Says what the frames are from now on. The segment for it is made when the first slot is claimed.
    pub fn set_caps(&self, format: Caps) {
        let mut state = self.lock();
        if state.format.as_ref() != Some(&format) {
            state.wanted_size = 0;
            state.format = Some(format);
        }
    }

    /// Claims a slot for a frame of `size` bytes. A lossless writer waits for its readers; `Ok(None)` when it was
    /// interrupted. Else `Ok(None)` when the readers hold every slot that could be taken: a frame that is lost by that is to be
    /// recorded by [`record_drop`](Self::record_drop).
    ///
    /// # Errors
    /// Those of making a segment, where this needs a new one: [`Error::NoSpace`], [`Error::Busy`], [`Error::TooLarge`].
    pub fn claim(&self, size: usize) -> Result<Option<Slot>, Error> {
        loop {
            self.ensure_segment(size)?;
            if !self.followers_arrived() {
                return Ok(None);
            }
            let slot = self.take_slot(size, false);
            // Whatever was free when the wait ended, a reader or another thread may have been faster.
            if slot.is_some() || !self.options.lossless || !self.slot_available() {
                return Ok(slot);
            }
        }
    }

    /// Publishes the frame in `slot`. The bytes `metadata`, of which the channel knows nothing, go with it; there is room
    /// for [`MAX_METADATA_SIZE`] of them.
    ///
    /// # Errors
    /// [`Error::NotPublishable`] when the slot is of a segment that was superseded meanwhile, or of another format, or
    /// published already. [`Error::TooLarge`] when the frame does not fit into its slot, or `metadata` into its room.
    pub fn publish(&self, slot: &Slot, descriptor: FrameDescriptor, metadata: &[u8]) -> Result<(), Error> {
        self.publish_index(&slot.owner, slot.index, descriptor, metadata)
    }

    fn not_publishable(&self) -> Error {
        Error::NotPublishable {
            channel: self.name.to_string(),
        }
    }

    fn publish_index(
        &self,
        owner: &Arc<WriterSegment>,
        index: usize,
        mut descriptor: FrameDescriptor,
        metadata: &[u8],
    ) -> Result<(), Error> {
        if metadata.len() > MAX_METADATA_SIZE {
            return Err(Error::TooLarge {
                channel: self.name.to_string(),
                what: format!(
                    "{} bytes that go with a frame, for which there is room for {MAX_METADATA_SIZE}",
                    metadata.len()
                ),
            });
        }
        descriptor.metadata_size = metadata.len() as u32;
        if !descriptor.fits(owner.segment.header.slot_size) {
            return Err(Error::TooLarge {
                channel: self.name.to_string(),
                what: format!(
                    "a frame of {} bytes at {} does not fit into its slot of {} bytes",
                    descriptor.size, descriptor.data_offset, owner.segment.header.slot_size
                ),
            });
        }
        let lock_file = Arc::clone(&self.lock().lock_file);
        let held = lock_file.acquire();
        failpoint(Failpoint::PublishHolding);
        let mut state = self.lock();
        let State {
            current: Some(current),
            format,
            head,
            dropped,
            keyframes,
            stats,
            ..
        } = &mut *state
        else {
            return Err(self.not_publishable());
        };
        // Drawn for the format before, and given under the present one: its segment says the wrong thing of it.
        let is_outdated = format
            .as_ref()
            .is_some_and(|format| format.caps != current.segment.segment.caps);
        if is_outdated || !Arc::ptr_eq(&current.segment, owner) || current.slots.numbers[index] != 0 {
            return Err(self.not_publishable());
        }
        *head += 1 + std::mem::take(dropped);
        if !descriptor.is_delta() {
            keyframes.newest = *head;
        }
        stats.published += 1;
        current.slots.numbers[index] = *head;
        owner.published[index].store(true, Ordering::Release);
        let segment = &owner.segment;
        segment.write_descriptor(index, &descriptor);
        segment.write_metadata(index, metadata);
        failpoint(Failpoint::DescriptorWritten);
        // The frame may have been copied in with stores that keep no order.
        copy::finish();
        // Release: pairs with the acquire load of whoever finds the number; pixels and descriptor are there with it.
        segment.slot_record(index).seq.store(*head, Ordering::Release);
        failpoint(Failpoint::SeqStored);
        // Release: who finds the entry finds the number.
        segment
            .tables
            .ring(*head)
            .store(*head << 8 | index as u64, Ordering::Release);
        failpoint(Failpoint::RingStored);
        // Release: who sees the head finds the entry.
        segment.tables.status().head.store(*head, Ordering::Release);
        failpoint(Failpoint::HeadStored);
        drop(state);
        drop(held);
        failpoint(Failpoint::NotifyDue);
        segment.notify(FutexWord::Published);
        Ok(())
    }

    /// Says that a frame was lost, as there was no slot for it: the next one published has a number more, so that readers know
    /// that one is missing between.
    pub fn record_drop(&self) {
        self.lock().dropped += 1;
    }

    /// Says that the stream ended after the last frame published. Another may follow.
    pub fn end_of_stream(&self) {
        let lock_file = Arc::clone(&self.lock().lock_file);
        let held = lock_file.acquire();
        let state = self.lock();
        let Some(current) = &state.current else {
            return;
        };
        let segment = Arc::clone(&current.segment.segment);
        let status = segment.tables.status();
        status.eos_seq.store(state.head, Ordering::Release);
        failpoint(Failpoint::EndHalf);
        // Release: who sees the count sees the number that belongs to it.
        status.eos_count.fetch_add(1, Ordering::Release);
        drop(state);
        drop(held);
        segment.notify(FutexWord::Published);
    }

    /// Says when frames leave: nanoseconds after their time stamp.
    pub fn set_latency_ns(&self, latency_ns: u64) {
        let mut state = self.lock();
        if state.latency_ns == latency_ns {
            return;
        }
        state.latency_ns = latency_ns;
        if let Some(current) = &state.current {
            // Relaxed: a value of its own; the bell below makes readers look.
            current
                .segment
                .segment
                .tables
                .status()
                .latency_ns
                .store(latency_ns, Ordering::Relaxed);
            current.segment.segment.notify(FutexWord::Published);
        }
    }

    /// The counts so far, and what the segment takes now.
    pub fn stats(&self) -> WriterStats {
        let state = self.lock();
        let mut stats = state.stats;
        stats.semaphore_timeouts += state.lock_file.timeouts();
        if let Some(current) = &state.current {
            let header = &current.segment.segment.header;
            stats.slots = current.slots.committed;
            stats.slots_in_use = (0..current.slots.committed as usize)
                .filter(|slot| current.slots.numbers[*slot] != 0 || current.segment.is_claimed(*slot))
                .count() as u32;
            stats.bytes = header.slots_offset + u64::from(stats.slots) * header.slot_size;
        }
        stats
    }
}

impl WriterSegment {
    fn new(segment: Segment, lock_file: Arc<LockFile>) -> Self {
        Self {
            segment: Arc::new(segment),
            lock_file,
            claimed_slots: core::array::from_fn(|_| false.into()),
            copied_into: core::array::from_fn(|_| false.into()),
            published: core::array::from_fn(|_| false.into()),
        }
    }

    /// Whether somebody alive holds the lock of `entry`.
    fn is_alive(&self, entry: usize) -> bool {
        self.lock_file.is_locked(FIRST_READER_BYTE + entry as i64)
    }

    /// Whether a living reader takes frames here, or is about to.
    fn has_reader_in(&self, entry: usize) -> bool {
        reader_state::is_present(self.state_of(entry)) && self.is_alive(entry)
    }

    /// What the owner of a seat says of itself.
    fn state_of(&self, entry: usize) -> u32 {
        // Acquire: pairs with the release store of who sits down, or leaves.
        self.segment.tables.entry(entry).state.load(Ordering::Acquire)
    }

    fn is_claimed(&self, slot: usize) -> bool {
        // Acquire: pairs with the release store in `Slot::drop`.
        self.claimed_slots[slot].load(Ordering::Acquire)
    }

    /// Whether that is for a copy.
    fn is_copied_into(&self, slot: usize) -> bool {
        // Relaxed: written and read under the state's lock.
        self.is_claimed(slot) && self.copied_into[slot].load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Ends the channel: readers are told, the names are removed and the locks given back. Memory that was claimed
    /// stays valid. Nothing can be claimed or published after it.
    pub fn close(&self) {
        // A forked child has a copy of this value, and the channel is still its parent's.
        if self.fork_guard.is_inherited() {
            return;
        }
        // No segment is in the making from here on.
        let _one_at_a_time = sync::lock(&self.replacing);
        let lock_file = Arc::clone(&self.lock().lock_file);
        let held = lock_file.acquire();
        let mut state = self.lock();
        if let Some(owned_name) = state.owned_name.take() {
            files::remove_if(&self.name.segment_path(), owned_name);
        }
        failpoint(Failpoint::CloseUnnamed);
        if let Some(current) = state.current.take() {
            let segment = &current.segment.segment;
            // Release: what was published before is all there is.
            segment.tables.status().state.fetch_or(state::CLOSED, Ordering::Release);
            segment.notify(FutexWord::Published);
        }
        failpoint(Failpoint::CloseStored);
        if state.writer_lock.is_some() {
            files::remove_if(lock_file.path(), lock_file.file_id());
        }
        state.retired.clear();
        // After the names: who waits for the lock finds them free.
        state.writer_lock = None;
        drop(state);
        drop(held);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}
