// SPDX-License-Identifier: MIT OR Apache-2.0

//! An observer, which shows a channel to a program that may only read it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nix::sys::stat::fstat;

use super::{
    attach::FormerLocks,
    attachment::Attachment,
    connection::LIVENESS_INTERVAL,
    copy_target::CopyTarget,
    observed::{ObservedReader, ObservedStatus, SegmentFile, load_readers},
};
use crate::{
    ChannelName, Error,
    protocol::layout::{EVENT_RING_LENGTH, EVENT_STRIDE, FrameDescriptor, Header, ObjectReference, flags},
    segment::{
        lock_query::LockQuery,
        wait::{FutexWord, RateLimiter, Waiter},
    },
    sys::space,
};

/// How often other processes may wake an observer without a new frame, and the pause after that.
const WAKES: RateLimiter = RateLimiter::new(16, Duration::from_millis(1));

/// How often a look at a frame is repeated if the writer overwrites the frame meanwhile. A writer at full speed overwrites
/// a small frame within microseconds.
const MAX_LOOKS: u32 = 100;

/// Shows a channel: its caps, its frames, its readers and its memory. An observer has no reader entry, writes nothing,
/// and needs read permission only.
///
/// # Examples
///
/// The newest frame:
/// ```no_run
/// use rsshm_channel::{ChannelName, Observer};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// if let Some(observer) = Observer::open(&ChannelName::new("cam0")?)? {
///     let mut bytes = Vec::new();
///     if let Some((seq, descriptor)) = observer.newest(&mut bytes) {
///         println!("{}: frame {seq} has {} bytes", observer.caps(), descriptor.size);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// The readers, also of a channel whose writer is dead:
/// ```no_run
/// use rsshm_channel::{ChannelName, Observer};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// if let Some(observer) = Observer::inspect(&ChannelName::new("cam0")?)? {
///     for reader in observer.readers().iter().filter(|reader| reader.is_present()) {
///         println!("process {} is {} frames behind, and holds {}", reader.pid, reader.behind, reader.held());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Observer {
    name: ChannelName,
    attachment: Attachment,
    waiter: Waiter,
}

impl Observer {
    /// Opens the channel; `None` if it has no living writer, or the writer has no segment yet.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Damaged`], [`Error::System`].
    pub fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        Ok(Attachment::open(name, true, FormerLocks::default(), None)?
            .map(|(attachment, _)| Self::new(name, attachment)))
    }

    /// Opens the segment that has the channel's name, also if its writer is dead or has closed it; `None` if there is
    /// no segment.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Damaged`], [`Error::System`].
    pub fn inspect(name: &ChannelName) -> Result<Option<Self>, Error> {
        Ok(Attachment::inspect(name)?.map(|attachment| Self::new(name, attachment)))
    }

    fn new(name: &ChannelName, attachment: Attachment) -> Self {
        Self {
            name: name.clone(),
            attachment,
            waiter: Waiter::default(),
        }
    }

    /// The caps of the frames.
    pub fn caps(&self) -> &str {
        &self.attachment.segment.caps
    }

    /// The header of the segment, which never changes.
    pub fn header(&self) -> &Header {
        &self.attachment.segment.header
    }

    /// The seq of the newest frame; 0 before the first frame.
    pub fn head(&self) -> u64 {
        // Acquire: pairs with the release store of the head in a publish, so that the frame can be found.
        self.attachment.segment.tables.status().head.load(Ordering::Acquire)
    }

    /// The status of the segment.
    pub fn status(&self) -> ObservedStatus {
        ObservedStatus::load(&self.attachment.segment)
    }

    /// Whether the writer can still publish frames in this segment: the writer lives, and the segment is neither
    /// superseded nor closed.
    pub fn is_current(&self) -> bool {
        self.attachment.segment.is_current()
    }

    /// Whether the writer that created the segment lives and has not closed it. A stopped writer counts as alive.
    pub fn has_writer(&self) -> bool {
        self.attachment.segment.has_writer()
    }

    /// The entries of the reader table that a reader has used in this segment, or uses now. The locks, if this user may
    /// read them, say whose owners are alive.
    pub fn readers(&self) -> Vec<ObservedReader> {
        let locks = LockQuery::open(&self.name);
        load_readers(&self.attachment.segment, locks.as_ref(), self.head())
    }

    /// The file of the segment.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn file(&self) -> Result<SegmentFile, Error> {
        let segment = &self.attachment.segment;
        let stat = fstat(&segment.file)
            .map_err(|errno| Error::system(self.name.as_str(), format!("fstat {}", self.name.segment_path()), errno))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let header = &segment.header;
        let slots = (size.saturating_sub(header.slots_offset) / header.slot_size).min(header.slot_count.into());
        let memory = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        // The writer releases the memory of slots that it does not need, wherever they are in the file. What is left
        // without the tables is the memory of the others.
        let tables: u64 = header.initial_tables(slots as u32).map(|(_, size)| size).sum();
        let events = (0..EVENT_RING_LENGTH)
            .filter(|seq| space::has_data(&segment.file, header.event_offset(*seq), EVENT_STRIDE as u64))
            .count() as u64;
        let in_slots = memory.saturating_sub(tables + events * EVENT_STRIDE as u64);
        Ok(SegmentFile {
            size,
            memory,
            committed_slots: (in_slots / header.slot_size).min(slots) as u32,
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            group: stat.st_gid,
            inode: stat.st_ino,
        })
    }

    /// Copies the newest frame; `None` if there is no frame, or if the writer overwrote it during the copy.
    pub fn newest(&self, target: &mut dyn CopyTarget) -> Option<(u64, FrameDescriptor)> {
        let seq = self.head();
        let location = self.attachment.runs().find(seq, None).filter(|_| seq != 0)?;
        let seq = location.seq();
        self.attachment
            .copy_unpinned(location, target)
            .map(|info| (seq, info.descriptor))
    }

    /// The seq and the descriptor of the first frame at or after the frame `seq` that is still there, without its
    /// bytes. `None` if there is none. A frame that the writer overwrites meanwhile is not there, so the next one is
    /// described.
    pub fn describe(&self, seq: u64) -> Option<(u64, FrameDescriptor)> {
        (0..MAX_LOOKS)
            .take_while(|_| self.head() >= seq)
            .find_map(|_| self.look(seq))
    }

    /// The seq and the descriptor of the newest frame, without its bytes. `None` if there is no frame.
    pub fn describe_newest(&self) -> Option<(u64, FrameDescriptor)> {
        // A fast writer has overwritten the frame of a former look, so each look loads the head again.
        (0..MAX_LOOKS)
            .map(|_| self.head())
            .take_while(|head| *head != 0)
            .find_map(|head| self.look(head))
    }

    /// Describes the first frame at or after the frame `seq`; `None` if there is none, or if the writer overwrites it.
    fn look(&self, seq: u64) -> Option<(u64, FrameDescriptor)> {
        let runs = self.attachment.runs();
        let location = runs.find(seq, None)?;
        Some((location.seq(), runs.describe_unpinned(location)?))
    }

    /// The parts of the frame `seq` in the memory of objects. There are none if the frame is not there any more, or if
    /// the channel has no objects.
    pub fn references(&self, seq: u64) -> Vec<ObjectReference> {
        let has_objects = self.header().flags & flags::OBJECTS != 0;
        let location = self.attachment.runs().find(seq, None);
        let location = location.filter(|location| has_objects && location.seq() == seq);
        let found = location.and_then(|location| self.attachment.references_unpinned(location));
        found.unwrap_or_default()
    }

    /// Waits until there is a frame after the frame `seq`, at most for `timeout`; `false` if there is none. The wait
    /// also ends if no frame can follow in this segment, because its writer is gone or has another segment:
    /// [`is_current`](Self::is_current) is then `false`. A signal does not end the wait.
    pub fn wait(&self, seq: u64, timeout: Duration) -> bool {
        let segment = &self.attachment.segment;
        let started = Instant::now();
        let mut limiter = WAKES;
        loop {
            // Acquire: pairs with the release increment in a publish. Each later publish changes this word, so the
            // sleep below returns.
            let published = segment.tables.status().published.load(Ordering::Acquire);
            if self.head() > seq {
                return true;
            }
            if !segment.is_current() {
                // The head of a segment that is over is final, so this load is the last one that is needed.
                return self.head() > seq;
            }
            let Some(left) = timeout.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else {
                return false;
            };
            let sleep = left.min(LIVENESS_INTERVAL);
            self.waiter.wait(segment, FutexWord::Published, published, sleep);
            if let Some(pause) = limiter.throttle() {
                std::thread::sleep(pause);
            }
        }
    }
}
