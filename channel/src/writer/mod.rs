// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer of a channel.
//!
//! A writer keeps its state in its own memory. Of the memory that other processes can write, it reads only the reader
//! table and the readers' messages. The state consists of parts. Each part is a type with private fields in a separate
//! file, and gets the data of other parts as arguments. The methods of [`Writer`] call steps, and the steps call the
//! parts.
//!
//! ```text
//!  Writer (mod.rs)                       Upstream (upstream.rs)       the public methods
//!     |                                     |
//!     v                                     v
//!  takeover   claim   publish   waits   replace   idle   restore   service_pass      steps: functions over Inner
//!     |          |       |        |        |        |       |           |
//!     v          v       v        v        v        v       v           v
//!  Inner (inner.rs): name, options, locks in their order, the two waiting threads
//!     |
//!     v
//!  State (state.rs)                                                   parts, under one lock
//!     |-- ChannelLock   channel_lock   the lock file and the writer's lock
//!     |-- SegmentChain  chain          the current and the superseded segments, and which readers are in them
//!     |      '-- SlotAllocator  slots           the frame in each slot, and the slot of the next frame
//!     |             |-- WriterSegment  segment       the mapped file, claims, readers' locks
//!     |             |-- Runs           runs          the frames in each slot, and the history
//!     |             |-- CountedPins    counted_pins  the pins that count
//!     |             |-- SlotMemory     memory        which slots have memory
//!     |             '-- Quota          spare         the quota, and the spare slots that protect the writer
//!     |-- SlotSizing    sizing         caps, slot sizes, history
//!     |-- Sequence      sequence       the seqs of frames
//!     |-- EventLog      events         the seqs of events, the sticky events
//!     |-- ReaderTable   readers        the readers that are attached, and what they hold (quota)
//!     |-- Patience      patience       how long a lossless writer waits for its readers
//!     |-- RequestLog    messages       messages of readers
//!     |      '-- KeyframeRequests  keyframes  which keyframes readers want
//!     |-- ServiceState  service        the values that the service keeps; its report
//!     '-- WriterStats   stats          counters
//! ```
//!
//! The locks are always taken in this order: the replacement of segments, the semaphore, the state. The writer holds
//! none of them while it waits for a reader. The state is not locked while the writer waits for the semaphore.
//! [`Inner`] contains the locks.

mod chain;
mod channel_lock;
mod claim;
mod counted_pins;
mod events;
mod idle;
mod inner;
mod keyframes;
mod leftover;
mod memory;
mod messages;
mod objects;
mod options;
mod patience;
mod publish;
mod quota;
mod readers;
mod replace;
mod restore;
mod runs;
mod segment;
mod sequence;
mod service;
mod service_pass;
mod shortage;
mod sizing;
mod slot;
mod slots;
mod spare;
mod state;
mod stats;
mod takeover;
#[cfg(test)]
mod tests;
mod upstream;
mod waits;

use std::time::Duration;

use crate::{
    ChannelName, Error, FrameDescriptor,
    protocol::failpoint::{Failpoint, failpoint},
    sys::{files, space::Space},
};
use claim::Content;
use inner::Inner;
use takeover::Takeover;

pub use events::NewEvent;
pub use leftover::Leftover;
pub use objects::{Object, ObjectPart, Objects};
pub use options::{Caps, WriterOptions};
pub use service::ServiceReport;
pub use shortage::Shortage;
pub use slot::Slot;
pub use stats::WriterStats;
pub use upstream::Upstream;

/// Writes a channel.
///
/// All methods may be called from any thread. But only two threads at a time may wait: one that publishes frames, and
/// one that runs the service. The service must run regularly: use a [`ServiceThread`](crate::ServiceThread), or call
/// [`service`](Self::service) a few times a second. Dropping a writer closes the channel.
///
/// # Examples
/// ```
/// use std::{sync::Arc, time::Duration};
/// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, ServiceThread, Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("rsshm-doc-writer-{}", std::process::id());
/// let size = 640 * 360;
/// let writer = Arc::new(Writer::open(ChannelName::new(name)?, WriterOptions::default())?);
/// let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(250), |_, report| {
///     if let Err(error) = report {
///         eprintln!("{error}");
///     }
/// })?;
/// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1", size))?;
/// for brightness in 0..3 {
///     let Some(mut slot) = writer.claim(size)? else {
///         // Readers hold all slots, so this frame is lost.
///         writer.record_drop();
///         continue;
///     };
///     slot.as_mut().fill(brightness);
///     writer.publish(&slot, FrameDescriptor::new(size as u64).with_pts(rsshm_channel::monotonic_ns()), &[])?;
/// }
/// writer.end_of_stream();
/// assert_eq!(writer.stats().published, 3);
/// drop(service);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    inner: Inner,
    replaced_damaged: Option<String>,
}

impl Writer {
    /// Becomes the channel's writer, and takes over the channel of a dead writer of the same user.
    ///
    /// # Errors
    /// [`Error::Busy`] if the channel still has another writer after two seconds. [`Error::Foreign`] if a file under
    /// one of the channel's names belongs to another user. [`Error::Option`] if an option has a value that is not
    /// allowed. [`Error::Denied`], [`Error::Damaged`], [`Error::NoSpace`], [`Error::NoSharedMemory`] and
    /// [`Error::System`] if the channel's files cannot be opened or made.
    pub fn open(name: ChannelName, options: WriterOptions) -> Result<Self, Error> {
        let takeover = takeover::open(&name, options)?;
        Ok(Self::new(name, options, takeover))
    }

    fn new(name: ChannelName, options: WriterOptions, takeover: Takeover) -> Self {
        Self {
            inner: Inner::new(name, options, takeover.state),
            replaced_damaged: takeover.replaced_damaged,
        }
    }

    /// The fault of the damaged segment that the writer found under the channel's name and removed. `None` if there was
    /// no segment, or if the segment was not damaged.
    pub fn replaced_damaged(&self) -> Option<&str> {
        self.replaced_damaged.as_deref()
    }

    /// Whether the writer waits for its slowest reader.
    pub fn is_lossless(&self) -> bool {
        self.inner.options().lossless
    }

    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        self.inner.name()
    }

    /// The counters, and the slots and bytes of the current segment.
    pub fn stats(&self) -> WriterStats {
        let state = self.inner.lock();
        let mut stats = state.stats;
        stats.semaphore_timeouts += state.lock.lock_file().timeouts();
        stats.head = state.sequence.head();
        if let Some(slots) = state.chain.current() {
            let header = slots.segment().header();
            stats.slots = slots.committed();
            stats.max_slots = header.slot_count;
            stats.slots_in_use = slots.in_use();
            stats.bytes = header.slots_offset + u64::from(stats.slots) * header.slot_size;
        }
        stats
    }

    /// What the tightest limit of memory leaves for further slots. The value is up to a second old.
    pub fn space(&self) -> Space {
        self.inner.space()
    }

    /// The operations for frames whose bytes stay in the memory of objects.
    pub fn objects(&self) -> Objects<'_> {
        Objects::new(&self.inner)
    }

    /// The operations for frames that upstream draws into slots.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream::new(&self.inner)
    }
}

/// Frames, and the events between them.
impl Writer {
    /// Sets the caps of all further frames. The writer makes a segment for these frames when the first slot is claimed.
    ///
    /// # Errors
    /// [`Error::Caps`] if GStreamer would not take the text for fixed caps, [`Error::TooLarge`] if it has more than
    /// 65536 bytes. The former caps then stay.
    pub fn set_caps(&self, caps: Caps) -> Result<(), Error> {
        caps.validate(self.name())?;
        publish::set_caps(&self.inner, caps);
        Ok(())
    }

    /// Claims a slot for a frame of `size` bytes.
    ///
    /// A lossless writer waits for its readers, and returns `Ok(None)` if the wait was interrupted. For other writers,
    /// `Ok(None)` means that readers hold all slots that the writer could use. If the program then drops the frame, it
    /// calls [`record_drop`](Self::record_drop).
    ///
    /// # Errors
    /// [`Error::Option`] before [`set_caps`](Self::set_caps), [`Error::Closed`] after [`close`](Self::close). If a new
    /// segment is needed and cannot be made: [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Foreign`] or
    /// [`Error::System`].
    pub fn claim(&self, size: usize) -> Result<Option<Slot>, Error> {
        self.claim_while(size, || true)
    }

    /// Claims a slot for a frame of `size` bytes as [`claim`](Self::claim) does, but a lossless writer waits only as
    /// long as `is_wanted` returns `true`. It asks at least every 10 ms during a wait.
    ///
    /// # Errors
    /// See [`claim`](Self::claim).
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    /// use rsshm_channel::{Caps, ChannelName, Writer, WriterOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("rsshm-doc-claim-{}", std::process::id());
    /// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default().lossless(true))?;
    /// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1", 64 * 64))?;
    /// let deadline = Instant::now() + Duration::from_millis(100);
    /// let slot = writer.claim_while(64 * 64, || Instant::now() < deadline)?;
    /// assert!(slot.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn claim_while(&self, size: usize, is_wanted: impl Fn() -> bool) -> Result<Option<Slot>, Error> {
        claim::claim_for_copy(&self.inner, size, Content::Bytes, &is_wanted)
    }

    /// Publishes the frame in `slot`, and returns its seq. Readers receive the frame and the bytes of `metadata`, which
    /// the channel does not interpret. `metadata` may have at most [`MAX_METADATA_SIZE`](crate::MAX_METADATA_SIZE)
    /// bytes.
    ///
    /// # Errors
    /// [`Error::NotPublishable`] if the slot's segment was superseded after the claim, if the segment has other caps
    /// than the current ones, or if the slot was already published. For frames of variable size, also if another thread
    /// published a frame after the claim. The frame then needs another claim. [`Error::TooLarge`] if the frame does not
    /// fit into its slot, or if `metadata` is too large.
    pub fn publish(&self, slot: &Slot, descriptor: FrameDescriptor, metadata: &[u8]) -> Result<u64, Error> {
        publish::publish_claimed(&self.inner, slot, descriptor, metadata)
    }

    /// Delays the wakes of readers until the returned value is dropped, so that all frames that are published meanwhile
    /// cost one wake. If the writer has to wait for a reader, it wakes the readers before.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Writer, WriterOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("rsshm-doc-batch-{}", std::process::id());
    /// let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
    /// writer.set_caps(Caps::variable_size("video/mpegts,systemstream=true,packetsize=188"))?;
    /// let batch = writer.batch();
    /// for packet in [[0x47; 188]; 7] {
    ///     if let Some(mut slot) = writer.claim(packet.len())? {
    ///         slot.as_mut().copy_from_slice(&packet);
    ///         writer.publish(&slot, FrameDescriptor::new(188), &[])?;
    ///     }
    /// }
    /// drop(batch);
    /// assert_eq!(writer.stats().published, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch<'_> {
        self.inner.begin_batch();
        Batch(&self.inner)
    }

    /// Wakes the readers for what was published in a [`batch`](Self::batch) so far. Call it before a wait within a
    /// batch.
    pub fn notify_batch(&self) {
        self.inner.notify_delayed();
    }

    /// Counts a frame that was lost because there was no slot for it. The next frame's seq is one higher, so that
    /// readers know that a frame is missing.
    pub fn record_drop(&self) {
        let mut state = self.inner.lock();
        state.sequence.record_drop();
        state.stats.dropped += 1;
    }

    /// Publishes an event that happens after the last frame and before the next.
    ///
    /// `sticky` is the place of a sticky event, below [`STICKY_EVENT_COUNT`](crate::STICKY_EVENT_COUNT). Readers that
    /// join later receive a sticky event too, until another event replaces it at its place. Before the first claim
    /// there is no segment, so no reader is attached. An event that is published then is kept if it is sticky, and
    /// dropped otherwise.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the event has more bytes than [`MAX_EVENT_SIZE`](crate::MAX_EVENT_SIZE), or if the place
    /// `sticky` does not exist.
    pub fn publish_event(&self, event: NewEvent, sticky: Option<usize>) -> Result<(), Error> {
        publish::publish_event(&self.inner, event, sticky)
    }

    /// Forgets the sticky events; call it when another stream begins. Attached readers still receive the events that
    /// were published before.
    pub fn forget_events(&self) {
        publish::forget_events(&self.inner);
    }

    /// Marks the end of the stream after the last frame that was published. Another stream may follow.
    pub fn end_of_stream(&self) {
        publish::end_of_stream(&self.inner);
    }

    /// Sets the latency: the time in nanoseconds from a frame's timestamp until the frame leaves the writer.
    pub fn set_latency_ns(&self, latency_ns: u64) {
        publish::set_latency_ns(&self.inner, latency_ns);
    }
}

/// The time in which the source of the frames is closed, because nobody reads.
impl Writer {
    /// Tells observers that the source of the frames, for example a camera, is closed until a reader attaches. The
    /// channel forgets its frames, so that the next reader begins with a new one. Call it while no frame is published.
    ///
    /// # Errors
    /// [`Error::Option`] before [`set_caps`](Self::set_caps), and the errors of [`claim`](Self::claim) if a new segment
    /// cannot be made. The channel is not idle then, and keeps its frames.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::{Caps, ChannelName, Observer, Writer, WriterOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = ChannelName::new(format!("rsshm-doc-idle-{}", std::process::id()))?;
    /// let writer = Writer::open(name.clone(), WriterOptions::default())?;
    /// writer.set_caps(Caps::variable_size("image/jpeg"))?;
    /// writer.begin_idle()?;
    /// assert!(Observer::open(&name)?.is_some_and(|observer| observer.status().is_idle));
    /// // `service` reports a reader.
    /// writer.end_idle();
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_idle(&self) -> Result<(), Error> {
        idle::begin(&self.inner)
    }

    /// Ends the idle time. Call it before the source is opened.
    pub fn end_idle(&self) {
        idle::end(&self.inner);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.inner.lock().is_idle
    }
}

/// The waits of the thread that publishes.
impl Writer {
    /// Waits until a reader is attached, or until `is_wanted` returns `false`. Returns `false` if the wait was
    /// interrupted. Before the wait, the call makes a segment with slots for frames of `size` bytes, so that readers
    /// can attach.
    ///
    /// # Errors
    /// See [`claim`](Self::claim).
    pub fn wait_for_reader(&self, size: usize, is_wanted: impl Fn() -> bool) -> Result<bool, Error> {
        loop {
            // This fails if another thread has closed the writer.
            replace::ensure_segment(&self.inner, size)?;
            if let Some(is_over) = waits::wait_for_reader(&self.inner, &is_wanted) {
                return Ok(is_over);
            }
        }
    }

    /// Makes all waits of the publishing thread return at once, until [`resume`](Self::resume) is called.
    pub fn interrupt(&self) {
        self.inner.publisher().interrupt();
    }

    /// Lets the publishing thread wait again.
    pub fn resume(&self) {
        self.inner.publisher().resume();
    }
}

/// The service. A [`ServiceThread`](crate::ServiceThread) calls these methods.
impl Writer {
    /// Runs one pass of the service: repairs the channel's files, looks for readers that came or went, sets their
    /// quota, and commits and releases memory. Call this method a few times a second, from any thread, and whenever
    /// [`wait_for_service`](Self::wait_for_service) returns.
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::Foreign`] if another program has taken the channel's names. [`Error::NoSpace`] and
    /// other errors if lost files cannot be made again.
    pub fn service(&self) -> Result<ServiceReport, Error> {
        service_pass::run(&self.inner)
    }

    /// Sleeps until a reader comes or goes, until `timeout` has passed, or until [`stop_service`](Self::stop_service)
    /// is called.
    pub fn wait_for_service(&self, timeout: Duration) {
        waits::wait_for_service(&self.inner, timeout);
    }

    /// Makes [`wait_for_service`](Self::wait_for_service) return at once, now and in later calls, until another
    /// [`ServiceThread`](crate::ServiceThread) is started. A running service thread ends. The service thread itself may
    /// call this method too.
    pub fn stop_service(&self) {
        self.inner.service().interrupt();
    }

    pub(crate) fn is_service_stopped(&self) -> bool {
        self.inner.service().is_interrupted()
    }

    /// Undoes [`stop_service`](Self::stop_service).
    pub(crate) fn resume_service(&self) {
        self.inner.service().resume();
    }
}

/// The end of a channel.
impl Writer {
    /// Ends the channel: notifies readers, removes the channel's names, and releases the locks. The memory of claimed
    /// slots stays valid. Afterwards, no slot can be claimed and no frame can be published.
    pub fn close(&self) {
        // A forked child has a copy of this value, but the channel belongs to the parent process.
        if self.inner.is_inherited() {
            return;
        }
        // While this lock is held, no other thread makes a segment.
        let replacing = self.inner.begin_replacing();
        let server = self.inner.objects().stop();
        let owners = self.inner.with_semaphore(|state| {
            if let Some(owned_name) = state.chain.take_owned_name() {
                files::remove_if(&self.inner.name().segment_path(), owned_name);
            }
            failpoint(Failpoint::CloseUnnamed);
            state.chain.close_current();
            failpoint(Failpoint::CloseStored);
            if state.lock.is_held() {
                state.lock.remove_file();
            }
            state.chain.clear_retired();
            // The lock is released last, so that a writer that waits for the lock finds no files under the channel's
            // names.
            state.lock.release();
            state.chain.retire_objects(false)
        });
        drop(replacing);
        // The thread that answers requests ends, and upstream gets its buffers back, while no lock is held.
        drop((server, owners));
        self.inner.objects().forget_unused(true);
    }
}

/// Frames that are published while this value lives cost one wake of the readers. [`Writer::batch`] returns it.
#[derive(Debug)]
#[must_use = "the batch ends when this value is dropped"]
pub struct Batch<'a>(&'a Inner);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.0.end_batch();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}
