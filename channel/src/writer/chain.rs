// SPDX-License-Identifier: MIT OR Apache-2.0

//! The segments of a channel: the current one, and the superseded ones that readers may still use.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{objects::owners::Owner, segment::WriterSegment, slots::SlotAllocator};
use crate::{
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{MAX_READERS, reader_state, state},
    },
    segment::{Segment, wait::FutexWord},
    sys::{files::FileId, lock::OfdLock},
};

/// How long a superseded segment keeps frames that no reader holds, so that readers can still take them.
const RETIRED_RELEASE_DELAY: Duration = Duration::from_secs(1);
/// The most superseded segments that the writer keeps, even if readers still use more of them.
const MAX_RETIRED: usize = 8;

/// The current segment and the superseded ones.
#[derive(Debug)]
pub(super) struct SegmentChain {
    current: Option<CurrentSegment>,
    retired: Vec<RetiredSegment>,
    /// The file that has the channel's name. This writer gave it the name, or took it over from a dead writer. The
    /// value stays set even if no segment is current because the next one could not be made.
    owned_name: Option<FileId>,
    /// Whether readers may be in segments that this writer does not know: it has forgotten them, or they are older than
    /// the dead writer's last segment. A reader that stalls while it follows can still join a segment that was forgotten.
    may_have_strangers: bool,
    /// The owner values of segments that were forgotten. The next caller that can drop them takes them.
    given_up: Vec<Owner>,
}

#[derive(Debug)]
struct CurrentSegment {
    slots: SlotAllocator,
    /// Observers query this lock to find out whether the writer lives.
    _writer_lock: OfdLock,
}

/// A superseded segment. Readers may still take or hold its frames.
#[derive(Debug)]
struct RetiredSegment {
    slots: SlotAllocator,
    since: Instant,
}

impl RetiredSegment {
    fn new(slots: SlotAllocator) -> Self {
        Self {
            slots,
            since: Instant::now(),
        }
    }

    /// Releases the memory of all unused slots. `current` is the current segment.
    fn release_unused(&mut self, current: Option<&WriterSegment>, lossless: bool) {
        if let Some(current) = current {
            self.slots.ignore_replaced_readers(current);
        }
        self.slots.release_unused(lossless);
    }
}

impl SegmentChain {
    /// The chain of a writer that has made no segment. `former` is the segment of a dead writer, and `owned_name` is
    /// its file.
    pub(super) fn new(owned_name: Option<FileId>, former: Option<SlotAllocator>) -> Self {
        Self {
            current: None,
            retired: former.map(RetiredSegment::new).into_iter().collect(),
            owned_name,
            may_have_strangers: owned_name.is_some(),
            given_up: Vec::new(),
        }
    }

    /// The slots of the current segment.
    pub(super) fn current(&self) -> Option<&SlotAllocator> {
        self.current.as_ref().map(|current| &current.slots)
    }

    /// The slots of the current segment, mutably.
    pub(super) fn current_mut(&mut self) -> Option<&mut SlotAllocator> {
        self.current.as_mut().map(|current| &mut current.slots)
    }

    /// The slots of `segment`, if it is the current one.
    pub(super) fn current_if(&mut self, segment: &Arc<WriterSegment>) -> Option<&mut SlotAllocator> {
        self.current_mut().filter(|slots| Arc::ptr_eq(slots.segment(), segment))
    }

    /// The mapped file of the current segment.
    pub(super) fn current_mapped(&self) -> Option<&Arc<Segment>> {
        self.current().map(|slots| slots.segment().mapped())
    }

    pub(super) fn owned_name(&self) -> Option<FileId> {
        self.owned_name
    }

    /// Makes `slots` the slots of the current segment, after its file got the channel's name.
    pub(super) fn install(&mut self, slots: SlotAllocator, writer_lock: OfdLock) {
        // These segments were superseded before the new one had the name, for example in a takeover. Their readers
        // wait.
        for retired in &self.retired {
            retired.slots.segment().mapped().notify(FutexWord::Published);
        }
        self.retire();
        self.owned_name = Some(slots.segment().mapped().file_id);
        self.current = Some(CurrentSegment {
            slots,
            _writer_lock: writer_lock,
        });
    }

    /// Stores the inode of the socket's file in all segments.
    pub(super) fn set_socket(&self, inode: u64) {
        let retired = self.retired.iter().map(|retired| &retired.slots);
        for slots in self.current().into_iter().chain(retired) {
            // Release: pairs with the acquire load of a reader that has opened the socket's file.
            slots.segment().tables().status().socket.store(inode, Ordering::Release);
        }
    }

    /// Marks the current segment as superseded.
    pub(super) fn retire(&mut self) {
        if let Some(current) = self.current.take() {
            let mapped = Arc::clone(current.slots.segment().mapped());
            self.retired.push(RetiredSegment::new(current.slots));
            supersede(&mapped);
        }
    }

    /// Forgets which file has the channel's name, and returns this file. The caller removes it.
    pub(super) fn take_owned_name(&mut self) -> Option<FileId> {
        self.owned_name.take()
    }

    /// Marks the current segment as closed and forgets it.
    pub(super) fn close_current(&mut self) {
        if let Some(mut current) = self.current.take() {
            self.given_up.append(&mut current.slots.take_all_owners());
            let mapped = current.slots.segment().mapped();
            mapped.tables.status().mark(state::CLOSED);
            mapped.notify(FutexWord::Published);
        }
    }

    /// Forgets all superseded segments.
    pub(super) fn clear_retired(&mut self) {
        for mut retired in self.retired.drain(..) {
            self.given_up.append(&mut retired.slots.take_all_owners());
        }
    }
}

/// The release of superseded segments' memory.
impl SegmentChain {
    /// Releases all memory of superseded segments that nobody uses. Returns whether it has forgotten a segment, whose
    /// memory is free as soon as no thread of this process waits in it any more.
    pub(super) fn release_retired(&mut self, lossless: bool) -> bool {
        let Self { current, retired, .. } = self;
        for retired in retired {
            retired.release_unused(segment_of(current.as_ref()), lossless);
        }
        let before = self.retired.len();
        self.forget_deserted();
        self.retired.len() < before
    }

    /// Like [`release_retired`](Self::release_retired), but only for segments that were superseded at least
    /// [`RETIRED_RELEASE_DELAY`] ago.
    pub(super) fn release_old(&mut self, lossless: bool) {
        let Self { current, retired, .. } = self;
        for retired in retired {
            if retired.since.elapsed() > RETIRED_RELEASE_DELAY && !retired.slots.is_released() {
                retired.release_unused(segment_of(current.as_ref()), lossless);
            }
        }
        self.forget_deserted();
    }

    /// Forgets superseded segments that have neither memory nor readers. If more than [`MAX_RETIRED`] are left, it
    /// forgets the oldest of them.
    fn forget_deserted(&mut self) {
        let mut retired = std::mem::take(&mut self.retired);
        retired.retain_mut(|retired| {
            let is_forgotten = retired.slots.is_released() && self.is_deserted(retired);
            if is_forgotten {
                self.may_have_strangers = true;
                self.given_up.append(&mut retired.slots.take_all_owners());
            }
            !is_forgotten
        });
        let too_many = retired.len().saturating_sub(MAX_RETIRED);
        self.may_have_strangers |= too_many > 0;
        for mut forgotten in retired.drain(..too_many) {
            self.given_up.append(&mut forgotten.slots.take_all_owners());
        }
        self.retired = retired;
    }

    /// Takes the frames of objects that nobody needs, in all segments. Returns their owner values, which the caller
    /// drops while it holds no lock. Upstream needs the buffers of a superseded segment at once, because it may have to
    /// free them before it can make others.
    pub(super) fn retire_objects(&mut self, lossless: bool) -> Vec<Owner> {
        let Self {
            current,
            retired,
            given_up,
            ..
        } = self;
        let mut owners = match current {
            Some(current) => current.slots.retire(),
            None => Vec::new(),
        };
        owners.append(given_up);
        // Nothing is left to give back where all slots are released, so most publishes skip all superseded segments.
        let with_frames = |retired: &&mut RetiredSegment| retired.slots.has_objects() && !retired.slots.is_released();
        for retired in retired.iter_mut().filter(with_frames) {
            retired.release_unused(segment_of(current.as_ref()), lossless);
            owners.append(&mut retired.slots.take_owners());
        }
        owners
    }
}

/// The readers, and the segments in which they are.
impl SegmentChain {
    /// The generation of the living reader in `entry`, if the reader takes frames in the current segment or is on its
    /// way there. `known` is the result of the last call for this entry.
    pub(super) fn reader_in(&self, entry: usize, known: Option<u32>) -> Option<u32> {
        let current = self.current()?.segment();
        let shared = current.tables().entry(entry);
        let (state, generation) = shared.owner();
        match state {
            reader_state::ATTACHED => current.is_alive(entry).then_some(generation),
            // The reader is not attached to this segment yet. It may be on its way from a former segment.
            reader_state::NEW | reader_state::JOINING => {
                let former = self.retired.iter().rev().find_map(|retired| {
                    let former = retired.slots.segment();
                    (former.lock_file_id() == current.lock_file_id() && former.has_reader(entry))
                        .then(|| former.tables().entry(entry).owner().1)
                });
                // The former segment may be forgotten before the reader is attached. The reader still counts,
                // so the writer keeps the record.
                former.or_else(|| known.filter(|known| *known == generation && current.is_alive(entry)))
            }
            _ => None,
        }
    }

    /// Whether a living reader takes frames in the current segment.
    pub(super) fn has_reader(&self) -> bool {
        self.current().is_some_and(|slots| {
            let segment = slots.segment();
            (0..MAX_READERS)
                .any(|entry| segment.reader_state(entry) == reader_state::ATTACHED && segment.is_alive(entry))
        })
    }

    /// Whether all readers of the former segments have come to the current one, have left, or are dead.
    pub(super) fn has_all_followers(&mut self) -> bool {
        if self.may_have_strangers {
            self.may_have_strangers = self.has_strangers();
        }
        !self.may_have_strangers && self.retired.iter().all(|retired| self.is_deserted(retired))
    }

    /// Whether the superseded segment has no living reader that takes frames there.
    ///
    /// If the entry is in use in the current segment, its reader has followed, or has died and the entry has another
    /// owner.
    fn is_deserted(&self, retired: &RetiredSegment) -> bool {
        !(0..MAX_READERS).any(|entry| {
            let former = retired.slots.segment();
            let has_followed = self.current().is_some_and(|slots| {
                let current = slots.segment();
                current.lock_file_id() == former.lock_file_id() && current.reader_state(entry) != reader_state::NEW
            });
            !has_followed && former.has_reader(entry)
        })
    }

    /// Whether a reader takes frames in a segment that this writer does not know. Its locks are set, but it is in none
    /// of the segments that the writer knows and whose readers have their locks in the same file.
    fn has_strangers(&self) -> bool {
        let Some(current) = self.current() else {
            return self.may_have_strangers;
        };
        let known = || {
            let slots = std::iter::once(current).chain(self.retired.iter().map(|retired| &retired.slots));
            slots.map(|slots| slots.segment())
        };
        known().any(|asked| {
            let is_known = |entry| {
                known()
                    .filter(|segment| segment.lock_file_id() == asked.lock_file_id())
                    .any(|segment| reader_state::is_present(segment.reader_state(entry)))
            };
            (0..MAX_READERS).any(|entry| !is_known(entry) && asked.is_present(entry) && asked.is_alive(entry))
        })
    }
}

fn segment_of(current: Option<&CurrentSegment>) -> Option<&WriterSegment> {
    current.map(|current| current.slots.segment().as_ref())
}

/// Marks a segment as superseded and wakes its readers, so that they look for the next segment.
pub(super) fn supersede(segment: &Segment) {
    segment.tables.status().mark(state::SUPERSEDED);
    failpoint(Failpoint::Superseded);
    segment.notify(FutexWord::Published);
    // The writer's own service sleeps on this futex word. The service must wake up, so that it can sleep on the word of
    // the next segment.
    segment.notify(FutexWord::Writer);
}
