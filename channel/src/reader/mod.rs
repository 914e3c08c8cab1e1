//! A reader: follows a channel through its writers and their segments, and yields frames in order.
//!
//! The files beside this one: `frames` finds and takes frames, `events` what happens between them.

pub(crate) mod attachment;
mod events;
mod frames;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

pub use self::{
    attachment::{Observer, PinnedFrame},
    events::Event,
};
use self::{
    events::EventQueue,
    frames::{KeyframeSync, Snapshot},
};
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{FrameDescriptor, RING_LENGTH, Status, reader_state, state},
    },
    reader::attachment::{Attachment, EntryLock, ObserverReason},
    segment::wait::{FutexWord, RateLimiter, Waiter},
    sys::{files::FileId, sync},
};

/// How often the name is looked at while there is no segment under it.
const LOOK: Duration = Duration::from_millis(20);
/// The longest sleep on a segment; after it the kernel is asked whether the writer lives.
const CHECK: Duration = Duration::from_millis(250);
/// How long a channel may be without a segment, between two generations of it, before it counts as gone.
const BETWEEN_SEGMENTS: Duration = Duration::from_secs(1);
/// How often a reader looks and finds no frame before it is no longer woken at will: once each [`LOOK_AGAIN`] then.
const FALSE_ALARMS: u32 = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Who is evicted twice within this time has done no wrong, and waits before it comes back.
const EVICTED_AGAIN: Duration = Duration::from_secs(1);

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Never write to the segment: needs read permission only, pins nothing, copies each frame.
    pub read_only: bool,
}

impl ReaderOptions {
    /// Sets [`read_only`](Self::read_only).
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}

/// What one call of [`Reader::next`] may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// How many frames may wait before older ones are skipped: 1 = always the newest, 0 = as many as the ring has.
    pub max_behind: u32,
    /// How many frames may be held in place at a time; past it they are copied.
    pub max_held: u32,
}

impl ReadLimits {
    /// How many frames back from the newest are wanted.
    fn reach(self) -> u64 {
        match self.max_behind {
            0 => RING_LENGTH,
            behind => RING_LENGTH.min(behind.into()),
        }
    }
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_behind: 0,
            max_held: 4,
        }
    }
}

impl ReadLimits {
    /// Sets [`max_behind`](Self::max_behind).
    #[must_use]
    pub fn max_behind(mut self, max_behind: u32) -> Self {
        self.max_behind = max_behind;
        self
    }

    /// Sets [`max_held`](Self::max_held).
    #[must_use]
    pub fn max_held(mut self, max_held: u32) -> Self {
        self.max_held = max_held;
        self
    }
}

/// Where frames go that have to be copied.
pub trait CopyTarget {
    /// Room for exactly `size` bytes, `None` when there is none.
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]>;
}

impl CopyTarget for Vec<u8> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        // A size that there is no memory for must not end the program.
        self.try_reserve(size.saturating_sub(self.len())).ok()?;
        self.resize(size, 0);
        Some(self)
    }
}

/// A frame's bytes.
#[derive(Debug)]
pub enum FrameData {
    /// They are in shared memory, and stay as they are until this is dropped.
    InPlace(PinnedFrame),
    /// They are in the [`CopyTarget`].
    Copied,
}

/// A frame of the channel.
#[derive(Debug)]
pub struct Frame {
    /// Its number in the channel, growing by one, and by more where the writer lost some.
    pub seq: u64,
    /// What goes with it.
    pub descriptor: FrameDescriptor,
    /// The bytes that the writer gave it beside that, which may be anything.
    pub metadata: Vec<u8>,
    /// Its bytes.
    pub data: FrameData,
    /// Frames between the last one and this that were not to be had, or were skipped.
    pub missed: u64,
    /// Whether something else than one missing number stands between the last frame and this: it is the first, or the
    /// first of another writer or format.
    pub discontinuity: bool,
}

/// What came of waiting for a frame.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly always a frame, and never kept: a box would be an allocation for each
pub enum Next {
    /// A frame. Its format is [`Reader::caps`].
    Frame(Frame),
    /// Something that happens between the last frame given and the next.
    Event(Event),
    /// The stream ended after the last frame given. Another may follow.
    EndOfStream,
    /// The writer is gone, without an end of the stream. Another may come.
    Lost,
    /// The writer no longer counts this reader's pins, as it held more than it was granted. Frames it holds may change.
    /// The reader attaches again by itself.
    Evicted,
    /// The time is over.
    TimedOut,
    /// [`ReaderHandle::interrupt`] was called.
    Interrupted,
}

/// What a reader has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Frames given.
    pub received: u64,
    /// Of these, in place.
    pub in_place: u64,
    /// Of these, copied.
    pub copied: u64,
    /// Frames not given.
    pub missed: u64,
    /// Events not given.
    pub events_missed: u64,
    /// Process of the writer, 0 before the first.
    pub writer_pid: u32,
    /// How many times another writer, or another segment of the same, was followed.
    pub reconnects: u64,
}

/// Reads a channel; see the crate's documentation for an example.
#[derive(Debug)]
pub struct Reader {
    name: ChannelName,
    options: ReaderOptions,
    shared: Arc<Shared>,
    connection: Connection,
    /// Kept over segments.
    entry: Option<Arc<EntryLock>>,
    caps: String,
    segment_id: Option<FileId>,
    observer_reason: Option<ObserverReason>,
    /// Number of the last frame given or skipped.
    cursor: u64,
    /// The next frame is the newest, whatever the position says.
    want_newest: bool,
    /// No frame of this stream has been given yet.
    newly_attached: bool,
    discontinuity: bool,
    sync: KeyframeSync,
    events: EventQueue,
    eos_seen: u32,
    latency_ns: u64,
    history: u32,
    /// When the kernel was last asked whether the writer lives.
    checked: Instant,
    /// Looks without a frame.
    limiter: RateLimiter,
    evicted: Option<Instant>,
    /// When a reader that is evicted again and again may come back.
    not_before: Option<Instant>,
    stats: ReaderStats,
}

/// Where a reader stands.
#[derive(Debug)]
enum Connection {
    /// Never attached, or told of the loss already.
    Disconnected,
    /// The segment is superseded, since then, and the next one is not there yet. The writer still finds the reader in
    /// the old one, so that a lossless writer waits.
    Moving(Instant, Arc<Attachment>),
    Attached(Arc<Attachment>),
}

/// What a reader's handles have of it.
#[derive(Debug, Default)]
struct Shared {
    waiter: Waiter,
    /// Where the reader is now.
    attachment: Mutex<Option<Arc<Attachment>>>,
}

impl Shared {
    fn attachment(&self) -> std::sync::MutexGuard<'_, Option<Arc<Attachment>>> {
        sync::lock(&self.attachment)
    }
}

/// What other threads may do with a reader: end its wait, and speak to the writer.
#[derive(Clone, Debug)]
pub struct ReaderHandle(Arc<Shared>);

impl ReaderHandle {
    /// Makes [`Reader::next`] return [`Next::Interrupted`], now and until [`resume`](Self::resume).
    pub fn interrupt(&self) {
        self.0.waiter.interrupt();
    }

    /// Lets the reader wait again.
    pub fn resume(&self) {
        self.0.waiter.resume();
    }

    /// Asks the writer for a frame that can be decoded without those before it. `false` when there is no writer, or this
    /// reader may only look, or has not come to the segment yet that frames go to now.
    pub fn request_keyframe(&self) -> bool {
        self.0.attachment().as_ref().is_some_and(|at| at.request_keyframe())
    }

    /// Sends the writer a letter, of [`MAX_MESSAGE_SIZE`](crate::MAIL_ROOM) bytes at most. `false` as for
    /// [`request_keyframe`](Self::request_key_unit), and when the writer takes no letters or this one is too large. Of letters
    /// sent faster than the writer reads them the newest get there, and none of a reader that has gone meanwhile.
    pub fn send_message(&self, message: &[u8]) -> bool {
        self.0.attachment().as_ref().is_some_and(|at| at.send_message(message))
    }
}

impl Reader {
    /// A reader of the channel, which need not be there yet.
    pub fn new(name: ChannelName, options: ReaderOptions) -> Self {
        Self {
            name,
            options,
            shared: Arc::default(),
            connection: Connection::Disconnected,
            entry: None,
            caps: String::new(),
            segment_id: None,
            observer_reason: None,
            cursor: 0,
            want_newest: false,
            newly_attached: true,
            discontinuity: true,
            sync: KeyframeSync::default(),
            events: EventQueue::default(),
            eos_seen: 0,
            latency_ns: 0,
            history: 0,
            checked: Instant::now(),
            limiter: RateLimiter::new(FALSE_ALARMS, LOOK_AGAIN),
            evicted: None,
            not_before: None,
            stats: ReaderStats::default(),
        }
    }

    /// A handle for other threads.
    pub fn handle(&self) -> ReaderHandle {
        ReaderHandle(Arc::clone(&self.shared))
    }

    /// The format of the frame given last.
    pub fn caps(&self) -> &str {
        &self.caps
    }

    /// Counts the segments this reader has been in: the format can only have changed when this has.
    pub fn segment_changes(&self) -> u64 {
        self.stats.reconnects
    }

    /// Whether the reader has a living writer's segment.
    pub fn is_connected(&self) -> bool {
        matches!(self.connection, Connection::Attached(_))
    }

    /// Whether the reader has no seat: it asked for none, the permissions allow none, or all are taken.
    pub fn is_observer(&self) -> bool {
        self.observer_reason.is_some()
    }

    /// Why a reader that asked for a seat has none, as a sentence.
    pub fn observer_reason(&self) -> Option<&'static str> {
        match self.observer_reason? {
            ObserverReason::FrameRange => None,
            ObserverReason::Permissions => {
                Some("the channel's permissions let this user read only, so each frame is copied")
            }
            ObserverReason::NoEntry => Some("all 64 seats of the channel are taken, so each frame is copied"),
        }
    }

    /// When frames leave the writer: nanoseconds after their time stamp.
    pub fn latency_ns(&self) -> u64 {
        self.latency_ns
    }

    /// For how many more publishes a frame can be had.
    pub fn history(&self) -> u32 {
        self.history
    }

    /// The counts so far.
    pub fn stats(&self) -> ReaderStats {
        self.stats
    }

    /// Gives the newest frame next, whatever lies between; of a compressed stream the newest that can be decoded alone.
    pub fn seek_newest(&mut self) {
        self.want_newest = true;
    }

    /// Waits for the next frame, at most for `timeout` (`None`: for ever). Frames to be copied go to `target`.
    ///
    /// # Errors
    /// [`Error::Denied`] when this user may not read the channel, [`Error::Damaged`] when its segment makes no sense.
    pub fn next(
        &mut self,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
        timeout: Option<Duration>,
    ) -> Result<Next, Error> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut woken = false;
        loop {
            if self.shared.waiter.is_interrupted() {
                return Ok(Next::Interrupted);
            }
            let attachment = match &self.connection {
                Connection::Attached(attachment) => Arc::clone(attachment),
                Connection::Disconnected | Connection::Moving(..) => {
                    if self.not_before.is_none_or(|at| at <= Instant::now()) {
                        match self.attach() {
                            Ok(true) => continue,
                            Ok(false) => {}
                            Err(error) => {
                                self.leave_former(reader_state::LEFT);
                                return Err(error);
                            }
                        }
                    }
                    if matches!(self.connection, Connection::Moving(since, _) if since.elapsed() > BETWEEN_SEGMENTS) {
                        self.leave_former(reader_state::LEFT);
                        return Ok(Next::Lost);
                    }
                    let Some(patience) = remaining(deadline, LOOK) else {
                        return Ok(Next::TimedOut);
                    };
                    self.shared.waiter.sleep(patience);
                    continue;
                }
            };
            let status = attachment.segment.tables.status();
            // Acquire, and in this order: what is published after the count was read changes the count, and a segment
            // whose state says that it is over has no frame after the head that is read next.
            let seen = status.published.load(Ordering::Acquire);
            let state = status.state.load(Ordering::Acquire);
            // An end of the stream that is not counted yet has no frame after it in this head.
            let (eos, end) = newest_end(status, self.eos_seen);
            let head = status.head.load(Ordering::Acquire);
            // After the head: an event from before a frame in it is in this count.
            let event_head = status.event_head.load(Ordering::Acquire);
            self.latency_ns = status.latency_ns.load(Ordering::Relaxed);
            if attachment.is_evicted() {
                self.go_away(&attachment, reader_state::LEFT);
                self.entry = None;
                let again = self.evicted.replace(Instant::now());
                self.not_before = again
                    .filter(|at| at.elapsed() < EVICTED_AGAIN)
                    .map(|at| at + EVICTED_AGAIN);
                return Ok(Next::Evicted);
            }
            // What comes after an end is not given before it.
            let look = Snapshot {
                newest: end.map_or(head, |end| end.min(head)),
                event_head,
                ends: end.is_some(),
                eos_count: eos,
            };
            if let Some(next) = self.take(&attachment, look, target, limits)? {
                match next {
                    Next::Frame(_) => self.limiter.reset(),
                    _ => self.slow_down(),
                }
                return Ok(next);
            }
            if end.is_some() {
                self.eos_seen = eos;
                self.sync.begins_anew();
                self.slow_down();
                return Ok(Next::EndOfStream);
            }
            if state & state::CLOSED != 0 {
                self.go_away(&attachment, reader_state::LEFT);
                return Ok(Next::Lost);
            }
            if state & state::SUPERSEDED != 0 {
                self.connection = Connection::Moving(Instant::now(), attachment);
                continue;
            }
            // By the time since the last look and not by the length of a sleep: the caller's patience may be short.
            if self.checked.elapsed() >= CHECK {
                self.checked = Instant::now();
                // Looked at after the lock: a segment that was superseded meanwhile is not lost.
                if !attachment.segment.has_writer()
                    && !status.is_over()
                    && status.head.load(Ordering::Acquire) == head
                    && status.event_head.load(Ordering::Acquire) == event_head
                    && status.eos_count.load(Ordering::Acquire) == eos
                {
                    self.go_away(&attachment, reader_state::LEFT);
                    return Ok(Next::Lost);
                }
            }
            // Here and not at once: a frame is not kept waiting by that.
            if std::mem::take(&mut woken) {
                self.slow_down();
            }
            let Some(patience) = remaining(deadline, CHECK) else {
                return Ok(Next::TimedOut);
            };
            self.shared
                .waiter
                .wait(&attachment.segment, FutexWord::Published, seen, patience);
            woken = true;
        }
    }

    /// Counts a look that found no frame, and waits where there were too many: whoever counts the word up, or wakes who
    /// sleeps on it, and publishes nothing, does not keep this reader busy.
    fn slow_down(&mut self) {
        if let Some(rest) = self.limiter.throttle() {
            self.shared.waiter.sleep(rest);
        }
    }

    /// Attaches to the segment that is under the name now, if there is one.
    fn attach(&mut self) -> Result<bool, Error> {
        let cursor = matches!(self.connection, Connection::Moving(..)).then_some(self.cursor);
        let opened = Attachment::open(&self.name, self.options.read_only, self.entry.as_ref(), cursor)?;
        let Some((attachment, observer_reason)) = opened else {
            return Ok(false);
        };
        attachment.wait_for_quota();
        let segment = &attachment.segment;
        let status = segment.tables.status();
        let follows = matches!(self.connection, Connection::Moving(..)) && segment.header.first_seq > self.cursor;
        if self.segment_id.is_some_and(|former| former != segment.file_id) {
            self.stats.reconnects += 1;
        }
        if !follows {
            // Another stream under the same name, or the first: the frame that was the newest on arrival comes first.
            let before_newest = attachment.head_at_attach.saturating_sub(1);
            self.cursor = before_newest.max(segment.header.first_seq.saturating_sub(1));
            self.want_newest = false;
            self.eos_seen = attachment.eos_count_at_attach;
            self.newly_attached = true;
        } else {
            // Only what ended in this segment is news; the count begins at 0 in each.
            self.eos_seen = 0;
            if self.caps != segment.caps || self.stats.writer_pid != segment.header.writer_pid {
                self.sync.begins_anew();
            }
        }
        self.sync.ask_at_once();
        if !follows || !self.events.follow(&attachment) {
            self.events = EventQueue::of_newcomer(&attachment);
        }
        self.discontinuity = true;
        self.segment_id = Some(segment.file_id);
        self.caps.clone_from(&segment.caps);
        self.history = segment.header.history;
        self.latency_ns = status.latency_ns.load(Ordering::Relaxed);
        self.observer_reason = observer_reason;
        self.entry = attachment.entry().cloned();
        self.stats.writer_pid = segment.header.writer_pid;
        self.checked = Instant::now();
        failpoint(Failpoint::MoveDue);
        // Only now: a lossless writer waits for that, and finds the reader in the new segment then.
        self.leave_former(reader_state::MOVED);
        let attachment = Arc::new(attachment);
        *self.shared.attachment() = Some(Arc::clone(&attachment));
        self.connection = Connection::Attached(attachment);
        Ok(true)
    }

    /// Says in the superseded segment, if there is one, that this reader takes no more frames there.
    fn leave_former(&mut self, how: u32) {
        self.shared.attachment().take();
        if let Connection::Moving(_, former) = std::mem::replace(&mut self.connection, Connection::Disconnected) {
            former.leave(how);
        }
    }

    fn go_away(&mut self, attachment: &Arc<Attachment>, how: u32) {
        self.shared.attachment().take();
        attachment.leave(how);
        self.connection = Connection::Disconnected;
    }
}

#[cfg(feature = "fuzzing")]
impl Reader {
    /// A reader that has come to a segment already.
    pub(crate) fn for_fuzzing(name: ChannelName, attachment: Attachment) -> Self {
        let mut reader = Self::new(name, ReaderOptions::default());
        reader.events = EventQueue::of_newcomer(&attachment);
        reader.cursor = attachment.head_at_attach.saturating_sub(1);
        reader.eos_seen = attachment.eos_count_at_attach;
        reader.connection = Connection::Attached(Arc::new(attachment));
        reader
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.attachment().take();
        if let Connection::Attached(attachment) | Connection::Moving(_, attachment) = &self.connection {
            attachment.leave(reader_state::LEFT);
        }
    }
}

/// How many times the stream has ended, and where there is an end that the reader has not `seen`, the number of the last
/// frame before the newest.
fn newest_end(status: &Status, seen: u32) -> (u32, Option<u64>) {
    let mut count = status.eos_count.load(Ordering::Acquire);
    let mut seq = None;
    // The number is stored before the count, so that it may be that of one more end. Bounded: it may be counted up for ever.
    for _ in 0..8 {
        if count == seen {
            return (count, None);
        }
        seq = Some(status.eos_seq.load(Ordering::Acquire));
        let again = status.eos_count.load(Ordering::Acquire);
        if again == count {
            break;
        }
        count = again;
    }
    (count, seq)
}

/// How long to wait now, `None` when the deadline has passed.
fn remaining(deadline: Option<Instant>, longest: Duration) -> Option<Duration> {
    match deadline {
        None => Some(longest),
        Some(deadline) => deadline
            .checked_duration_since(Instant::now())
            .map(|left| left.min(longest))
            .filter(|left| !left.is_zero()),
    }
}
