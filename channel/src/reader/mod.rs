// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reader of a channel. It follows the channel from one writer or segment to the next, and delivers frames and
//! events in order.
//!
//! The module `next` implements [`Reader::next`]. `attach` opens a segment and joins its reader table, and `attachment`
//! is the attachment of a reader to one segment. `frames`, `keyframes`, `events` and `end_of_stream` decide what the
//! reader delivers next.

mod attach;
pub(crate) mod attachment;
mod connection;
mod copy_target;
mod end_of_stream;
mod entry;
mod events;
mod frame;
mod frames;
mod handle;
mod keyframes;
mod next;
mod object_cache;
pub(crate) mod object_fetch;
mod object_frame;
mod object_take;
mod observed;
mod observer;
mod options;
mod pinned;
mod received_object;
mod runs;
mod stats;

use std::time::Duration;

use self::{
    attach::ObserverReason, connection::Connection, end_of_stream::EndOfStream, events::EventQueue, frames::FrameCursor,
};
pub use self::{
    copy_target::CopyTarget,
    events::Event,
    frame::{Frame, FrameData, Next},
    handle::ReaderHandle,
    object_fetch::ObjectFault,
    object_frame::ObjectFrame,
    observed::{ObservedReader, ObservedStatus, SegmentFile},
    observer::Observer,
    options::{ReadLimits, ReaderOptions},
    pinned::PinnedFrame,
    received_object::{FramePart, ReceivedObject},
    stats::ReaderStats,
};
use crate::{
    ChannelName,
    segment::{Segment, wait::RateLimiter},
    sys::{
        clock,
        files::{self, FileId},
    },
};

/// The most passes without a frame that a reader makes without a pause. After these passes, it makes one in each
/// [`IDLE_PASS_INTERVAL`].
const MAX_IDLE_PASSES: u32 = 16;
const IDLE_PASS_INTERVAL: Duration = Duration::from_millis(1);

/// Reads a channel.
///
/// The channel need not exist yet. When its writer ends, the reader attaches to the next writer, whose caps may differ.
/// The caps can have changed only if the count [`segment_changes`](Self::segment_changes) has changed.
///
/// # Examples
///
/// ```no_run
/// use rsshm_channel::{ChannelName, Next, ReadLimits, Reader, ReaderOptions};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// let mut reader = Reader::new(ChannelName::new("cam0")?, ReaderOptions::default());
/// let mut copy = Vec::new();
/// loop {
///     match reader.next(&mut copy, ReadLimits::default(), None)? {
///         Next::Frame(frame) => println!("{}: {} bytes", reader.caps(), frame.bytes(&copy).len()),
///         Next::EndOfStream => return Ok(()),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    name: ChannelName,
    options: ReaderOptions,
    connection: Connection,
    info: SegmentInfo,
    frames: FrameCursor,
    events: EventQueue,
    end_of_stream: EndOfStream,
    /// Since when the reader waits for a segment, in CLOCK_MONOTONIC nanoseconds.
    waiting_since: Option<u64>,
    /// Limits the rate of passes without a frame.
    limiter: RateLimiter,
    stats: ReaderStats,
}

/// Values of the segment to which the reader was attached last.
#[derive(Debug, Default)]
struct SegmentInfo {
    segment_id: Option<FileId>,
    caps: String,
    history: u32,
    latency_ns: u64,
    observer_reason: Option<ObserverReason>,
    clock_lead_ns: Option<i64>,
}

impl SegmentInfo {
    fn new(segment: &Segment, observer_reason: Option<ObserverReason>) -> Self {
        Self {
            segment_id: Some(segment.file_id),
            caps: segment.caps.clone(),
            history: segment.header.history,
            // Relaxed: no other value depends on the latency.
            latency_ns: segment
                .tables
                .status()
                .latency_ns
                .load(std::sync::atomic::Ordering::Relaxed),
            observer_reason,
            clock_lead_ns: clock_lead_ns(segment),
        }
    }
}

/// How far CLOCK_MONOTONIC of this process is ahead of the writer's. The header has the segment's creation time on the
/// writer's CLOCK_MONOTONIC, and the file system has it on CLOCK_REALTIME. So the segment's age is measured on both
/// clocks, and the ages are compared.
fn clock_lead_ns(segment: &Segment) -> Option<i64> {
    let difference = |now: u64, created: u64| i64::try_from(now).ok()?.checked_sub_unsigned(created);
    let age = difference(clock::realtime_ns(), files::created_at_ns(&segment.file)?)?;
    let age_here = difference(clock::monotonic_ns(), segment.header.created_ns)?;
    age_here.checked_sub(age)
}

impl Reader {
    /// A reader of the channel `name`. The channel need not exist yet.
    pub fn new(name: ChannelName, options: ReaderOptions) -> Self {
        Self {
            name,
            options,
            connection: Connection::new(),
            info: SegmentInfo::default(),
            frames: FrameCursor::new(),
            events: EventQueue::default(),
            end_of_stream: EndOfStream::default(),
            waiting_since: None,
            limiter: RateLimiter::new(MAX_IDLE_PASSES, IDLE_PASS_INTERVAL),
            stats: ReaderStats::default(),
        }
    }

    /// The name of the channel.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// A handle with which other threads control this reader.
    pub fn handle(&self) -> ReaderHandle {
        self.connection.handle()
    }

    /// The caps of the last frame.
    pub fn caps(&self) -> &str {
        &self.info.caps
    }

    /// How many times the reader went on to another segment. The caps can have changed only if this count has changed.
    pub fn segment_changes(&self) -> u64 {
        self.stats.reconnects
    }

    /// Whether the reader is attached to the segment of a living writer.
    pub fn is_connected(&self) -> bool {
        self.connection.is_attached()
    }

    /// Whether the reader is an observer. It observes if its options request this, if the permissions allow only
    /// reading, or if all reader entries are taken.
    pub fn is_observer(&self) -> bool {
        self.info.observer_reason.is_some()
    }

    /// The reason, in words, why the reader observes although its options do not request this.
    pub fn observer_reason(&self) -> Option<&'static str> {
        match self.info.observer_reason? {
            ObserverReason::Requested => None,
            ObserverReason::Permissions => {
                Some("the permissions of the channel let this user only read, so each frame is copied")
            }
            ObserverReason::NoEntry => Some("all 64 reader entries of the channel are taken, so each frame is copied"),
        }
    }

    /// The writer's latency in nanoseconds: the time from a frame's timestamp until the frame leaves the writer.
    pub fn latency_ns(&self) -> u64 {
        self.info.latency_ns
    }

    /// How far CLOCK_MONOTONIC of this process seems to be ahead of the writer's, in nanoseconds. `None` if the file
    /// system does not record when files were created.
    ///
    /// The value is near 0 in general, and large if this process and the writer are in different time namespaces. It is
    /// also large if the machine slept or CLOCK_REALTIME was set after the segment was created. So a large value alone
    /// does not prove that the time namespaces differ.
    pub fn clock_lead_ns(&self) -> Option<i64> {
        self.info.clock_lead_ns
    }

    /// How many later publishes a frame survives.
    pub fn history(&self) -> u32 {
        self.info.history
    }

    /// The counts of this reader so far.
    pub fn stats(&self) -> ReaderStats {
        self.stats
    }

    /// Skips to the newest frame: the next frame is the newest one, or the newest keyframe in a compressed stream.
    pub fn seek_newest(&mut self) {
        self.frames.seek_newest();
    }
}

#[cfg(feature = "fuzzing")]
impl Reader {
    /// A reader that is attached already.
    pub(crate) fn for_fuzzing(name: ChannelName, attachment: attachment::Attachment) -> Self {
        let mut reader = Self::new(name, ReaderOptions::default());
        reader.events = EventQueue::of_newcomer(&attachment);
        reader.frames.begin_after(attachment.initial.head.saturating_sub(1));
        reader.end_of_stream.delivered = attachment.initial.eos_count;
        reader.connection.complete_attach(attachment);
        reader
    }
}
