//! A reader's hold on one segment: with a seat, which lets it pin frames, or as an observer, which only looks.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::Duration,
};

use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{
            self, EVICTED, FIRST_READER_BYTE, FrameDescriptor, MAX_MESSAGE_SIZE, MAX_READERS, flags, reader_state,
        },
        pins::PinCounts,
    },
    segment::{
        self, Access, Segment,
        lock_file::{LockAttempt, LockFile},
        wait::FutexWord,
    },
    sys::{
        clock, errno,
        files::{self, FileId},
        lock::OfdLock,
        sync,
    },
};

/// How long a newcomer waits for the writer to grant it pins before it begins with copies.
const QUOTA_PATIENCE: Duration = Duration::from_millis(20);

/// A seat of the channel: the lock on its byte. It outlives segments, and the reader, while frames are in use.
#[derive(Debug)]
pub(crate) struct EntryLock {
    index: usize,
    lock_file: FileId,
    generation: AtomicU32,
    _lock: OfdLock,
}

/// A reader in one segment.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) segment: Arc<Segment>,
    /// Number of the newest frame when it was opened.
    pub(crate) head_at_attach: u64,
    /// How many times the stream had ended by then.
    pub(crate) eos_count_at_attach: u32,
    /// Number of the newest event, looked at after the head.
    pub(crate) event_head_at_attach: u64,
    /// No frame behind this one goes away before this reader has taken any, as far as that is promised: 0 where it is not.
    pub(crate) kept_after: u64,
    /// `None`: an observer.
    own_entry: Option<OwnEntry>,
}

#[derive(Debug)]
struct OwnEntry {
    entry: Arc<EntryLock>,
    generation: u32,
    counts: Mutex<PinCounts>,
    /// The grant at which the writer was last asked for more.
    asked_at: AtomicU32,
    /// Number of the newest letter sent.
    messages: Mutex<u64>,
}

/// Why a reader that wanted a seat has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObserverReason {
    /// It asked for it.
    FrameRange,
    /// The files' permissions allow no more, or their owner is not trusted.
    Permissions,
    /// All seats are taken.
    NoEntry,
}

/// The number of a frame, and the slot that the ring names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLocation {
    pub(crate) seq: u64,
    pub(crate) slot: usize,
}

/// What goes with a frame, copied.
#[derive(Debug)]
pub(crate) struct FrameInfo {
    pub(crate) descriptor: FrameDescriptor,
    pub(crate) metadata: Vec<u8>,
}

impl Attachment {
    /// Attaches to the segment that has the channel's name now. `None` while there is none with a living writer. `follows`:
    /// up to which number this reader has taken the frames of a former segment.
    pub(crate) fn open(
        name: &ChannelName,
        read_only: bool,
        former_lock: Option<&Arc<EntryLock>>,
        follows: Option<u64>,
    ) -> Result<Option<(Self, Option<ObserverReason>)>, Error> {
        let path = name.segment_path();
        let denied = |error: &io::Error| files::open_error(name.as_str(), &path, "read", error);
        let mut observer_reason = read_only.then_some(ObserverReason::FrameRange);
        let mut opened = segment::open_file(name, !read_only);
        if opened.as_ref().is_err_and(is_denied) {
            observer_reason = Some(ObserverReason::Permissions);
            opened = segment::open_file(name, false);
        }
        let Some((file, stat)) = opened.map_err(|error| denied(&error))? else {
            return Ok(None);
        };
        if observer_reason.is_none() && !files::is_trusted(&stat) {
            observer_reason = Some(ObserverReason::Permissions);
        }
        if observer_reason.is_none() {
            let lock_file = match LockFile::open(name) {
                Err(Error::Denied { .. }) => {
                    observer_reason = Some(ObserverReason::Permissions);
                    None
                }
                lock_file => lock_file?,
            };
            if observer_reason.is_none() {
                let Some(lock_file) = lock_file else {
                    return Ok(None);
                };
                let segment = Segment::open(name, file, &stat, Access::Attach)?;
                if !is_current(&segment) || lock_file.file_id() != segment.lock_file_id() {
                    return Ok(None);
                }
                if let Some(entry) = former_lock.filter(|entry| entry.lock_file == lock_file.file_id()) {
                    return Ok(Self::enter(segment, Arc::clone(entry), follows).map(|it| (it, None)));
                }
                failpoint(Failpoint::SegmentOpened);
                let readers = (0..MAX_READERS as i64).map(|entry| FIRST_READER_BYTE + entry);
                return Ok(match lock_file.take_first(readers)? {
                    LockAttempt::Locked(byte, lock) => {
                        failpoint(Failpoint::EntryLocked);
                        let entry = EntryLock::new(byte, lock_file.file_id(), lock);
                        Self::enter(segment, Arc::new(entry), follows).map(|it| (it, None))
                    }
                    LockAttempt::AllTaken => Some((Self::observe(segment), Some(ObserverReason::NoEntry))),
                    LockAttempt::NameChanged => None,
                });
            }
        }
        let segment = Segment::open(name, file, &stat, Access::Observe)?;
        Ok(is_current(&segment).then(|| (Self::observe(segment), observer_reason)))
    }

    fn observe(segment: Segment) -> Self {
        Self::found(segment, None)
    }

    /// What there is on arrival.
    fn found(segment: Segment, own_entry: Option<OwnEntry>) -> Self {
        let status = segment.tables.status();
        // In this order: an end that is not in the count has no frame after it in the head.
        let eos_count_at_attach = status.eos_count.load(Ordering::Acquire);
        let head_at_attach = status.head.load(Ordering::Acquire);
        Self {
            head_at_attach,
            eos_count_at_attach,
            event_head_at_attach: status.event_head.load(Ordering::Acquire),
            kept_after: 0,
            segment: Arc::new(segment),
            own_entry,
        }
    }

    /// Sits down: from here on the writer counts this reader, and its pins. `None` when the segment was superseded
    /// meanwhile, unless this reader follows, and takes what is here before it goes on.
    fn enter(segment: Segment, entry: Arc<EntryLock>, follows: Option<u64>) -> Option<Self> {
        let before_first = segment.header.first_seq.saturating_sub(1);
        let follows = follows.filter(|cursor| *cursor <= before_first);
        let shared = segment.tables.entry(entry.index);
        // The ticket is another than that of any former owner in this segment, so that what the writer knows of those is
        // not believed of this one. It is stored before the first pin, with which the writer sees it (release).
        let former = shared.generation.load(Ordering::Relaxed);
        // Before the ticket, with which the writer sees it: what else a dead owner left is not this one's.
        shared.state.store(reader_state::NEW, Ordering::Relaxed);
        failpoint(Failpoint::EntryCleared);
        let generation = match entry.generation.load(Ordering::Relaxed) {
            own if own > former => own,
            _ => former.wrapping_add(1),
        };
        entry.generation.store(generation, Ordering::Relaxed);
        shared.generation.store(generation, Ordering::Release);
        failpoint(Failpoint::GenerationStored);
        shared.pins.store(0, Ordering::Release);
        // A newcomer's first frame is the newest, or of a compressed stream one before it. It looks once more when it sits;
        // until then a lossless writer keeps what comes after this one. More than it retains may be gone already.
        let is_lossless = segment.header.flags & flags::LOSSLESS != 0;
        let history = if is_lossless { segment.header.history.max(1) } else { 1 };
        let before_newest = |head: u64| head.saturating_sub(history.into());
        let head = segment.tables.status().head.load(Ordering::Acquire);
        let cursor = follows.map_or(before_newest(head), |_| before_first);
        shared.cursor.store(cursor, Ordering::Release);
        shared.pid.store(std::process::id(), Ordering::Relaxed);
        failpoint(Failpoint::CursorStored);
        // This owner has asked for nothing yet.
        shared.keyframe_requests.store(0, Ordering::Relaxed);
        shared.message_head.store(0, Ordering::Relaxed);
        // Release: who sees the state sees the position and the counts too.
        shared.state.store(reader_state::JOINING, Ordering::Release);
        failpoint(Failpoint::Joining);
        // Pairs with the fence in `supersede`: either a lossless writer sees that somebody is here, and waits before it
        // publishes into the next segment, or it is seen below that there is one.
        fence(Ordering::SeqCst);
        let index = entry.index;
        let mut entered = Self::found(
            segment,
            Some(OwnEntry {
                entry,
                generation,
                counts: Mutex::default(),
                asked_at: AtomicU32::new(u32::MAX),
                messages: Mutex::default(),
            }),
        );
        if follows.is_none() {
            if !is_current(&entered.segment) {
                entered.leave(reader_state::LEFT);
                return None;
            }
            // The frame that was the newest before it sat may be held by another reader, and those behind it gone.
            let kept_after = before_newest(entered.head_at_attach);
            let shared = entered.segment.tables.entry(index);
            shared.cursor.store(kept_after, Ordering::Release);
            if is_lossless {
                entered.kept_after = kept_after;
            }
        }
        // Only now a writer that waits for a reader goes on: with what comes from here on, which this one takes. Release: who
        // sees the state sees the position too.
        let state = &entered.segment.tables.entry(index).state;
        state.store(reader_state::ATTACHED, Ordering::Release);
        failpoint(Failpoint::Joined);
        entered.segment.notify(FutexWord::Writer);
        Some(entered)
    }

    /// The seat, to be taken along into the next segment.
    pub(crate) fn entry(&self) -> Option<&Arc<EntryLock>> {
        self.own_entry.as_ref().map(|own_entry| &own_entry.entry)
    }

    /// Waits a moment until the writer has answered a newcomer, so that its first frame need not be copied.
    pub(crate) fn wait_for_quota(&self) {
        let until = clock::monotonic_ns() + QUOTA_PATIENCE.as_nanos() as u64;
        while self
            .own_entry
            .as_ref()
            .is_some_and(|own_entry| own_entry.quota(&self.segment).is_none())
            && clock::monotonic_ns() < until
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether the writer found this seat holding more than it was granted; its pins no longer count.
    pub(crate) fn is_evicted(&self) -> bool {
        self.own_entry
            .as_ref()
            .is_some_and(|own_entry| own_entry.quota(&self.segment) == Some(EVICTED))
    }

    /// How many slots this seat may pin now.
    pub(crate) fn quota(&self) -> u32 {
        match self
            .own_entry
            .as_ref()
            .and_then(|own_entry| own_entry.quota(&self.segment))
        {
            None | Some(EVICTED) => 0,
            Some(quota) => quota.min(layout::MAX_QUOTA),
        }
    }

    /// Makes the writer look how many slots this seat holds, and so grant more, once for each grant that was too small.
    pub(crate) fn ask_for_more(&self, quota: u32) {
        if let Some(own_entry) = &self.own_entry
            // Relaxed: one thread takes frames; twice would do no harm either.
            && own_entry.asked_at.swap(quota, Ordering::Relaxed) != quota
        {
            self.segment.notify(FutexWord::Writer);
        }
    }

    /// How many slots this seat pins now.
    pub(crate) fn held(&self) -> u32 {
        self.own_entry.as_ref().map_or(0, |own_entry| own_entry.counts().held())
    }

    /// Where the frame `seq` is, as far as the ring and the slot say.
    pub(crate) fn find(&self, seq: u64) -> Option<FrameLocation> {
        // Acquire: pairs with the writer's release store, after which the slot's number is there.
        let entry = self.segment.tables.ring(seq).load(Ordering::Acquire);
        let slot = (entry & 0xff) as usize;
        let named = entry >> 8 == seq & (u64::MAX >> 8) && slot < self.segment.header.slot_count as usize;
        (named && self.segment.slot_record(slot).seq.load(Ordering::Acquire) == seq)
            .then_some(FrameLocation { seq, slot })
    }

    /// Whether the frame that is at `place` cannot be decoded without those before it. A hint: it is not held.
    pub(crate) fn is_delta(&self, location: FrameLocation) -> bool {
        let descriptor = self.segment.read_descriptor(location.slot);
        // As in `copy_unpinned`.
        fence(Ordering::Acquire);
        let seq = self.segment.slot_record(location.slot).seq.load(Ordering::Relaxed);
        seq == location.seq && descriptor.is_delta()
    }

    /// Asks the writer for a frame that can be decoded without those before it; `false` where it does not hear that.
    pub(crate) fn request_keyframe(&self) -> bool {
        let Some(own_entry) = self.reachable_entry() else {
            return false;
        };
        // Relaxed: a count of its own; the bell makes the writer look.
        let requests = &self.segment.tables.entry(own_entry.entry.index).keyframe_requests;
        requests.fetch_add(1, Ordering::Relaxed);
        self.segment.notify(FutexWord::Writer);
        true
    }

    /// Puts a letter into the mailbox; `false` where there is none, or no room for it, or nobody reads it any more.
    pub(crate) fn send_message(&self, message: &[u8]) -> bool {
        let Some(own_entry) = self.reachable_entry().filter(|_| message.len() <= MAX_MESSAGE_SIZE) else {
            return false;
        };
        let index = own_entry.entry.index;
        let mut messages = sync::lock(&own_entry.messages);
        let Some(location) = self.segment.tables.messages(index, *messages + 1) else {
            return false;
        };
        *messages += 1;
        location.write(*messages, message);
        // Release: pairs with the acquire load of the writer, which finds the letter then.
        let head = &self.segment.tables.entry(index).message_head;
        head.store(*messages, Ordering::Release);
        drop(messages);
        self.segment.notify(FutexWord::Writer);
        true
    }

    /// The seat, while the writer hears what its owner asks for: not in a segment that is over.
    fn reachable_entry(&self) -> Option<&OwnEntry> {
        self.own_entry_of_this_process()
            .filter(|_| !self.segment.tables.status().is_over())
    }

    /// The seat, unless it is that of the process that this one was forked from.
    fn own_entry_of_this_process(&self) -> Option<&OwnEntry> {
        self.own_entry.as_ref().filter(|_| !self.segment.is_inherited())
    }

    /// Pins a frame. `None` when the writer was faster, or when it is not what a frame may be.
    pub(crate) fn pin(self: &Arc<Self>, location: FrameLocation) -> Option<(PinnedFrame, FrameInfo)> {
        let own_entry = self.own_entry.as_ref()?;
        if !self.segment.is_committed(location.slot) {
            return None;
        }
        let shared = self.segment.tables.entry(own_entry.entry.index);
        let seq = &self.segment.slot_record(location.slot).seq;
        if !own_entry.counts().pin(&shared.pins, seq, location.slot, location.seq) {
            self.segment.notify_waiting_writer();
            return None;
        }
        let descriptor = self.segment.read_descriptor(location.slot);
        // Owns the pin from here on, also where the descriptor turns out to be nonsense.
        let mut frame = PinnedFrame {
            attachment: Arc::clone(self),
            slot: location.slot,
            offset: 0,
            size: 0,
        };
        if !descriptor.fits(self.segment.header.slot_size) {
            return None;
        }
        frame.offset = self.segment.slot_offset(location.slot) + descriptor.data_offset;
        frame.size = descriptor.size;
        let metadata = self.segment.read_metadata(location.slot, descriptor.metadata_size);
        Some((frame, FrameInfo { descriptor, metadata }))
    }

    /// Copies a frame without a pin, by pread. `None` when the writer was faster, it is not what a frame may be, or
    /// `target` has no room.
    pub(crate) fn copy_unpinned(
        &self,
        location: FrameLocation,
        target: &mut dyn crate::CopyTarget,
    ) -> Option<FrameInfo> {
        let seq = &self.segment.slot_record(location.slot).seq;
        // Acquire: pairs with the writer's release store of the number; the frame is there.
        if seq.load(Ordering::Acquire) != location.seq {
            return None;
        }
        let descriptor = self.segment.read_descriptor(location.slot);
        // Also that the slot is there at all, before room is made for what it is said to hold.
        if !descriptor.fits(self.segment.header.slot_size) || !self.segment.is_committed(location.slot) {
            return None;
        }
        let offset =
            self.segment.header.slots_offset + self.segment.slot_offset(location.slot) + descriptor.data_offset;
        let bytes = target.prepare(descriptor.size as usize)?;
        failpoint(Failpoint::CopyUnpinned);
        if bytes.len() != descriptor.size as usize || files::read_exactly(&self.segment.file, bytes, offset) != Ok(true)
        {
            return None;
        }
        let metadata = self.segment.read_metadata(location.slot, descriptor.metadata_size);
        failpoint(Failpoint::CopyUnchecked);
        // Pairs with the fence in `take_for_writing`: had any copied byte been drawn after the number became 0, the load
        // below would see that 0, or a later number.
        fence(Ordering::Acquire);
        (seq.load(Ordering::Relaxed) == location.seq).then_some(FrameInfo { descriptor, metadata })
    }

    /// Says that all frames up to `seq` are taken or not wanted.
    pub(crate) fn set_cursor(&self, seq: u64) {
        if let Some(own_entry) = &self.own_entry {
            // Release: pairs with the acquire load of a lossless writer that takes older slots then.
            self.segment
                .tables
                .entry(own_entry.entry.index)
                .cursor
                .store(seq, Ordering::Release);
            self.segment.notify_waiting_writer();
        }
    }

    /// Says that this reader takes no more frames here: `reader_state::MOVED` or `reader_state::LEFT`. Pins stay.
    pub(crate) fn leave(&self, how: u32) {
        if let Some(own_entry) = self.own_entry_of_this_process() {
            failpoint(Failpoint::LeaveDue);
            // Release: what was taken here before is over.
            self.segment
                .tables
                .entry(own_entry.entry.index)
                .state
                .store(how, Ordering::Release);
            self.segment.notify(FutexWord::Writer);
        }
    }
}

impl OwnEntry {
    fn counts(&self) -> std::sync::MutexGuard<'_, PinCounts> {
        sync::lock(&self.counts)
    }

    /// What the writer grants this owner of the seat; `None` when it has not answered yet.
    fn quota(&self, segment: &Segment) -> Option<u32> {
        // Acquire: pairs with the writer's release store.
        let quota = segment.tables.quota(self.entry.index).load(Ordering::Acquire);
        ((quota >> 32) as u32 == self.generation).then_some(quota as u32)
    }
}

impl EntryLock {
    fn new(byte: i64, lock_file: FileId, lock: OfdLock) -> Self {
        Self {
            index: (byte - FIRST_READER_BYTE) as usize,
            lock_file,
            // Some number that the owner before is unlikely to have had: in a new segment the writer tells them apart by
            // it alone.
            generation: AtomicU32::new((clock::monotonic_ns() >> 10) as u32 | 1),
            _lock: lock,
        }
    }
}

#[cfg(feature = "fuzzing")]
impl Attachment {
    /// A reader in a segment without a name, in the first seat of a control file without one, or observing.
    pub(crate) fn for_fuzzing(segment: Segment, own_entry: bool) -> Option<Self> {
        if !own_entry {
            return Some(Self::observe(segment));
        }
        let lock = OfdLock::keep(segment.file.try_clone().ok()?).ok()?;
        let entry = EntryLock::new(FIRST_READER_BYTE, segment.file_id, lock);
        // It follows from before the first frame: nobody who writes it need be there.
        Self::enter(segment, Arc::new(entry), Some(0))
    }

    pub(crate) fn generation_for_fuzzing(&self) -> u32 {
        self.own_entry.as_ref().map_or(0, |own_entry| own_entry.generation)
    }
}

fn is_denied(error: &io::Error) -> bool {
    errno::is_denied(errno::of(error))
}

/// Whether frames can still come here.
fn is_current(segment: &Segment) -> bool {
    !segment.tables.status().is_over() && segment.has_writer()
}

/// A frame in place, in shared memory; its bytes stay as they are until it is dropped.
#[derive(Debug)]
pub struct PinnedFrame {
    attachment: Arc<Attachment>,
    slot: usize,
    offset: u64,
    size: u64,
}

impl AsRef<[u8]> for PinnedFrame {
    fn as_ref(&self) -> &[u8] {
        match self.attachment.segment.slots() {
            // SAFETY: the slot is backed (`pin` asked the file), the range is inside it (`fits`), and it is pinned for as
            // long as `self` lives, so that no writer that keeps to the protocol changes it.
            Some(slots) => unsafe { slots.slice(self.offset, self.size) },
            None => &[],
        }
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        if let Some(own_entry) = self.attachment.own_entry_of_this_process() {
            let shared = self.attachment.segment.tables.entry(own_entry.entry.index);
            own_entry.counts().unpin(&shared.pins, self.slot);
            failpoint(Failpoint::Unpinned);
            self.attachment.segment.notify_waiting_writer();
        }
    }
}

/// A look at a channel that leaves no trace: it takes no seat, writes nothing, and needs read permission only.
#[derive(Debug)]
pub struct Observer {
    attachment: Attachment,
}

impl Observer {
    /// Looks at the channel as it is now; `None` when it has no living writer, or that has no frame yet.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Damaged`], [`Error::System`].
    pub fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        Ok(Attachment::open(name, true, None, None)?.map(|(attachment, _)| Self { attachment }))
    }

    /// The format of the frames.
    pub fn caps(&self) -> &str {
        &self.attachment.segment.caps
    }

    /// What never changes in the segment.
    pub fn header(&self) -> &layout::Header {
        &self.attachment.segment.header
    }

    /// Number of the newest frame, 0 before the first.
    pub fn head(&self) -> u64 {
        self.attachment.segment.tables.status().head.load(Ordering::Acquire)
    }

    /// Whether this is still the channel's segment, and its writer alive.
    pub fn is_current(&self) -> bool {
        is_current(&self.attachment.segment)
    }

    /// Copies the newest frame; `None` when there is none, or the writer was faster.
    pub fn newest(&self, target: &mut dyn crate::CopyTarget) -> Option<(u64, FrameDescriptor)> {
        let seq = self.head();
        let location = self.attachment.find(seq).filter(|_| seq != 0)?;
        self.attachment
            .copy_unpinned(location, target)
            .map(|described| (seq, described.descriptor))
    }
}
