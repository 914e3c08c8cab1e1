// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer of a channel.
//!
//! A writer keeps its state in its own memory. Of the memory that other processes can write, it reads only the reader
//! table and the readers' messages. The state consists of parts. Each part is a type with private fields in a file of
//! its own, and gets the data of other parts as arguments. Steps order the parts; [`Writer`] orders the steps.
//!
//! ```text
//!  Writer (mod.rs)                       Upstream (upstream.rs)       the public methods
//!     |                                     |
//!     v                                     v
//!  takeover   claim   publish   waits   replace   restore   service_pass      steps: functions over Inner
//!     |          |       |        |        |         |           |
//!     v          v       v        v        v         v           v
//!  Inner (inner.rs): name, options, locks in their order, the two waiting threads
//!     |
//!     v
//!  State (state.rs)                                                   parts, under one lock
//!     |-- ChannelLock   channel_lock   the lock file and the writer's lock
//!     |-- SegmentChain  chain          the current and the superseded segments, and which readers are in them
//!     |      '-- SlotAllocator  slots           the frame in each slot, and the slot of the next frame
//!     |             |-- WriterSegment  segment       the mapped file, claims, readers' locks
//!     |             |-- CountedPins    counted_pins  the pins that count
//!     |             '-- Overcommit     overcommit    more quota than slots
//!     |-- SlotSizing    sizing         caps, slot sizes, history
//!     |-- Sequence      sequence       the seqs of frames
//!     |-- EventLog      events         the seqs of events, the sticky events
//!     |-- ReaderTable   readers        the readers that are attached
//!     |      '-- QuotaRecord    quota           how many slots each reader may pin
//!     |-- RequestLog    messages       keyframe requests, messages
//!     |-- ServiceState  service        the values that the service keeps; its report
//!     '-- WriterStats   stats          counters
//! ```
//!
//! The locks are always taken in this order: the replacement of segments, the semaphore, the state. None is held while
//! the writer waits for a reader. The state is not locked while the writer waits for the semaphore. [`Inner`] contains
//! the locks.

mod chain;
mod channel_lock;
mod claim;
mod counted_pins;
mod events;
mod inner;
mod messages;
mod options;
mod overcommit;
mod publish;
mod quota;
mod readers;
mod replace;
mod restore;
mod segment;
mod sequence;
mod service;
mod service_pass;
mod sizing;
mod slot;
mod slots;
mod state;
mod stats;
mod takeover;
mod upstream;
mod waits;

use std::time::Duration;

use crate::{
    ChannelName, Error, FrameDescriptor,
    protocol::failpoint::{Failpoint, failpoint},
    sys::files,
};
use inner::Inner;
use takeover::Takeover;

pub use events::NewEvent;
pub use options::{Caps, WriterOptions};
pub use service::ServiceReport;
pub use slot::Slot;
pub use stats::WriterStats;
pub use upstream::Upstream;

/// Writes a channel.
///
/// All methods may be called from any thread. But only two threads at a time may wait: one that publishes, and one that
/// runs the service. A writer needs its service: use a [`ServiceThread`](crate::ServiceThread), or call
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
/// writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1", size));
/// for brightness in 0..3 {
///     let Some(mut slot) = writer.claim(size)? else {
///         // Readers hold all slots: this frame is lost.
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
    /// [`Error::Busy`] when the channel still has another writer after two seconds. [`Error::Foreign`] when a file
    /// under the name belongs to another user. [`Error::Option`] for options that are not allowed. [`Error::Denied`],
    /// [`Error::Damaged`], [`Error::NoSpace`], [`Error::NoSharedMemory`] and [`Error::System`] when the lock file cannot
    /// be opened or made.
    pub fn open(name: ChannelName, options: WriterOptions) -> Result<Self, Error> {
        let Takeover {
            state,
            replaced_damaged,
        } = takeover::open(&name, options)?;
        Ok(Self {
            inner: Inner::new(name, options, state),
            replaced_damaged,
        })
    }

    /// The fault of the segment that had the name before, if it was damaged. The writer has replaced that segment.
    /// `None` if there was no segment, or it was not damaged.
    pub fn replaced_damaged(&self) -> Option<&str> {
        self.replaced_damaged.as_deref()
    }

    /// Whether the writer waits for its readers.
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
        if let Some(slots) = state.chain.current() {
            let header = slots.segment().header();
            stats.slots = slots.committed();
            stats.slots_in_use = slots.in_use();
            stats.bytes = header.slots_offset + u64::from(stats.slots) * header.slot_size;
        }
        stats
    }

    /// The operations for frames that upstream draws into slots.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream::new(&self.inner)
    }
}

/// Frames, and the events between them.
impl Writer {
    /// Sets the caps of the frames from now on. The segment for them is made when the first slot is claimed.
    pub fn set_caps(&self, caps: Caps) {
        self.inner.lock().sizing.set_caps(caps);
    }

    /// Claims a slot for a frame of `size` bytes.
    ///
    /// A lossless writer waits for its readers, and returns `Ok(None)` if the wait was interrupted. Otherwise
    /// `Ok(None)` means that readers hold every slot that could be taken. If the frame is lost for that reason, call
    /// [`record_drop`](Self::record_drop).
    ///
    /// # Errors
    /// [`Error::Option`] before [`set_caps`](Self::set_caps), [`Error::Closed`] after [`close`](Self::close). When a
    /// new segment is needed: [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Foreign`] and [`Error::System`].
    pub fn claim(&self, size: usize) -> Result<Option<Slot>, Error> {
        claim::claim_for_copy(&self.inner, size)
    }

    /// Publishes the frame in `slot`. Readers receive it with the bytes of `metadata`, at most
    /// [`MAX_METADATA_SIZE`](crate::MAX_METADATA_SIZE), which the channel does not interpret.
    ///
    /// # Errors
    /// [`Error::NotPublishable`] when the slot's segment was superseded meanwhile or has other caps, or when the slot
    /// was published already. [`Error::TooLarge`] when the frame does not fit into its slot, or `metadata` is too
    /// large.
    pub fn publish(&self, slot: &Slot, descriptor: FrameDescriptor, metadata: &[u8]) -> Result<(), Error> {
        publish::publish_frame(&self.inner, slot.segment(), slot.index(), descriptor, metadata)
    }

    /// Counts a frame that was lost because there was no slot for it. The next frame's seq is one higher, so that
    /// readers know that a frame is missing.
    pub fn record_drop(&self) {
        self.inner.lock().sequence.record_drop();
    }

    /// Publishes an event that happens after the last frame and before the next.
    ///
    /// `sticky` is the place of a sticky event, below [`STICKY_EVENT_COUNT`](crate::STICKY_EVENT_COUNT). Readers that
    /// join later receive it too, until another event has the same place. Before the first claim there is no segment,
    /// so no reader is attached. Then a sticky event is kept, and any other is dropped.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the event has more bytes than [`MAX_EVENT_SIZE`](crate::MAX_EVENT_SIZE), or there is no
    /// such place.
    pub fn publish_event(&self, event: NewEvent, sticky: Option<usize>) -> Result<(), Error> {
        publish::publish_event(&self.inner, event, sticky)
    }

    /// Forgets the sticky events, because another stream begins. Attached readers still receive those that were
    /// published.
    pub fn forget_events(&self) {
        publish::forget_events(&self.inner);
    }

    /// Marks the end of the stream after the last frame that was published. Another stream may follow.
    pub fn end_of_stream(&self) {
        publish::end_of_stream(&self.inner);
    }

    /// Sets the latency: how many nanoseconds after its timestamp a frame leaves the writer.
    pub fn set_latency_ns(&self, latency_ns: u64) {
        publish::set_latency_ns(&self.inner, latency_ns);
    }
}

/// Waits of the publishing thread.
impl Writer {
    /// Waits until a reader is attached, or until `is_wanted` returns `false`. Returns `false` if the wait was
    /// interrupted. It makes the segment that a reader can attach to, with slots for frames of `size` bytes.
    ///
    /// # Errors
    /// See [`claim`](Self::claim).
    pub fn wait_for_reader(&self, size: usize, is_wanted: impl Fn() -> bool) -> Result<bool, Error> {
        replace::ensure_segment(&self.inner, size)?;
        Ok(waits::wait_for_reader(&self.inner, is_wanted))
    }

    /// Makes the waits of the publishing thread return at once, until [`resume`](Self::resume).
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
    /// Runs one pass of the service: repairs the channel's files, looks for readers that came or went, and sets their
    /// quotas. Call it a few times a second, from any thread, and when [`wait_for_service`](Self::wait_for_service)
    /// returns.
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::Foreign`] when another program has taken the channel's names. [`Error::NoSpace`] and
    /// others when lost files cannot be made again.
    pub fn service(&self) -> Result<ServiceReport, Error> {
        service_pass::run(&self.inner)
    }

    /// Sleeps until a reader comes or goes, until `timeout` is over, or until [`stop_service`](Self::stop_service).
    pub fn wait_for_service(&self, timeout: Duration) {
        waits::wait_for_service(&self.inner, timeout);
    }

    /// Makes [`wait_for_service`](Self::wait_for_service) return at once, now and later, until another
    /// [`ServiceThread`](crate::ServiceThread) is started. It also ends a service thread, and may be called from that
    /// thread itself.
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
    /// Ends the channel: notifies readers, removes the names, and releases the locks. Memory of claimed slots stays
    /// valid. Nothing can be claimed or published afterwards.
    pub fn close(&self) {
        // A forked child has a copy of this value, but the channel is still its parent's.
        if self.inner.is_inherited() {
            return;
        }
        // From here on, no segment is being made.
        let _replacing = self.inner.begin_replacing();
        self.inner.with_semaphore(|state| {
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
            // The lock is released last, so that a writer that waits for it finds no files under the names.
            state.lock.release();
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}
