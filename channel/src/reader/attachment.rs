// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attachment of a reader to one segment: its pins, copies, cursor and requests.

use std::sync::{Arc, atomic::Ordering};

use super::{
    copy_target::CopyTarget,
    entry::{EntryLock, OwnEntry},
    object_cache::ObjectCache,
    object_fetch::{FetchError, ObjectFault},
    received_object::copy_parts,
    runs::{FrameLocation, Run, Runs},
};
use crate::{
    ChannelName,
    protocol::{
        failpoint::{Failpoint, failpoint},
        keyframe::KeyframeRequest,
        layout::{FrameDescriptor, MAX_MESSAGE_SIZE, MAX_QUOTA, ONLY_NEWEST, ObjectReference, Status},
        pins::PinResult,
        ring,
        status::Snapshot,
    },
    segment::{Segment, wait::FutexWord},
    sys::{files, lock::OfdLock, sync},
};

/// A reader in one segment. It has an entry, with which it can pin frames, or it is an observer.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) segment: Arc<Segment>,
    /// The status of the segment when this reader opened it.
    pub(super) initial: InitialStatus,
    /// In lossless mode, the writer keeps all frames with a larger seq until this newcomer has taken its first frame.
    /// The value is 0 in other modes, and for a reader that comes from a former segment.
    pub(super) protected_after: u64,
    /// `None` for an observer.
    pub(super) own_entry: Option<OwnEntry>,
    /// The objects that this reader has received; `None` in a segment whose slots have the bytes of the frames.
    pub(super) objects: Option<ObjectCache>,
}

/// The status of a segment when a reader opened it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialStatus {
    pub(super) eos_count: u32,
    pub(super) head: u64,
    pub(super) event_head: u64,
}

impl InitialStatus {
    fn load(status: &Status) -> Self {
        // The order of these acquire loads matters. The head is loaded after the count, so it includes every frame
        // before a counted end of the stream. The head of events is loaded last, so it includes every event before a
        // frame up to the head. The loads pair with the release stores of a publish.
        Self {
            eos_count: status.eos_count.load(Ordering::Acquire),
            head: status.head.load(Ordering::Acquire),
            event_head: status.event_head.load(Ordering::Acquire),
        }
    }
}

/// Copies of a frame's descriptor and metadata.
#[derive(Debug)]
pub(crate) struct FrameInfo {
    pub(crate) descriptor: FrameDescriptor,
    pub(crate) metadata: Vec<u8>,
}

impl Attachment {
    pub(super) fn new(name: &ChannelName, segment: Segment, own_entry: Option<OwnEntry>) -> Self {
        Self {
            objects: segment.has_objects().then(|| ObjectCache::new(name)),
            initial: InitialStatus::load(segment.tables.status()),
            protected_after: 0,
            segment: Arc::new(segment),
            own_entry,
        }
    }

    /// Takes a snapshot of the status. `eos_delivered` says how many ends of the stream the reader has delivered.
    #[inline]
    pub(super) fn snapshot(&self, eos_delivered: u32) -> Snapshot {
        self.segment.tables.status().snapshot(eos_delivered)
    }

    /// Whether the writer died and published nothing since `snapshot`.
    pub(super) fn has_lost_writer(&self, snapshot: &Snapshot) -> bool {
        let status = self.segment.tables.status();
        // The lock is queried first, then the status with acquire loads. If the writer is dead, it publishes nothing
        // more, so the loaded values are final. If the segment was superseded or closed meanwhile, its writer does not
        // count as lost.
        !self.segment.has_writer()
            && !status.is_over()
            && status.head.load(Ordering::Acquire) == snapshot.head
            && status.event_head.load(Ordering::Acquire) == snapshot.event_head
            && status.eos_count.load(Ordering::Acquire) == snapshot.eos_count
    }

    /// The lock of the entry, which the reader keeps when it goes on to the next segment.
    pub(super) fn entry_lock(&self) -> Option<&Arc<EntryLock>> {
        self.own_entry.as_ref().map(|own_entry| &own_entry.lock)
    }

    /// The presence lock of a reader that has not left this segment. The reader keeps it on the way to the next
    /// segment.
    pub(super) fn presence(&self) -> Option<Arc<OfdLock>> {
        self.own_entry.as_ref().and_then(OwnEntry::presence)
    }

    /// Whether the writer has evicted this reader for pinning more slots than the largest quota. The pins of an evicted
    /// reader no longer count.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        self.own_entry
            .as_ref()
            .is_some_and(|own_entry| own_entry.is_evicted(&self.segment))
    }

    /// How many slots this reader may pin now.
    #[inline]
    pub(super) fn quota(&self) -> u32 {
        if self.own_entry.is_none() {
            return 0;
        }
        // Relaxed: this value saves useless pins; `PinCounts::pin` loads the quota that counts. Another process may
        // have stored any value.
        self.segment
            .tables
            .status()
            .quota
            .load(Ordering::Relaxed)
            .min(MAX_QUOTA)
    }

    /// How many slots this reader pins now.
    #[inline]
    pub(super) fn held(&self) -> u32 {
        self.own_entry
            .as_ref()
            .map_or(0, |own_entry| own_entry.pin_counts().held())
    }

    /// The runs of the segment, in which this reader finds frames.
    #[inline]
    pub(super) fn runs(&self) -> Runs<'_> {
        Runs { segment: &self.segment }
    }

    /// Requests a keyframe; `false` if the writer would not receive the request.
    pub(super) fn request_keyframe(&self, request: KeyframeRequest) -> bool {
        let Some(own_entry) = self.reachable_entry() else {
            return false;
        };
        let entry = self.segment.tables.entry(own_entry.index());
        if request.is_immediate() {
            // Relaxed: the release increment below publishes the details.
            entry.keyframe_details.store(request.details(), Ordering::Relaxed);
            // Release: pairs with the acquire load of the writer, which then finds these details or newer ones.
            entry.keyframe_requests.fetch_add(1, Ordering::Release);
        } else {
            let mut seq = sync::lock(&own_entry.keyframe_seq);
            *seq += 1;
            entry.keyframe_record(*seq).write(*seq, request);
            // Release: pairs with the acquire load of the writer, which then finds the request.
            entry.keyframe_head.store(*seq, Ordering::Release);
        }
        self.segment.notify(FutexWord::Writer);
        true
    }

    /// Sends a message; `false` if the writer accepts no messages or would not receive this one, or if the message is
    /// too large.
    pub(super) fn send_message(&self, message: &[u8]) -> bool {
        let Some(own_entry) = self.reachable_entry().filter(|_| message.len() <= MAX_MESSAGE_SIZE) else {
            return false;
        };
        let index = own_entry.index();
        let mut seq = sync::lock(&own_entry.message_seq);
        let Some(record) = self.segment.tables.messages(index, *seq + 1) else {
            return false;
        };
        *seq += 1;
        record.write(*seq, message);
        // Release: pairs with the acquire load of the writer, which then finds the message.
        let head = &self.segment.tables.entry(index).message_head;
        head.store(*seq, Ordering::Release);
        drop(seq);
        self.segment.notify(FutexWord::Writer);
        true
    }

    /// The entry, if the writer reads requests from it. `None` in a segment that is over, because the writer reads no
    /// requests there.
    fn reachable_entry(&self) -> Option<&OwnEntry> {
        self.own_entry_of_this_process()
            .filter(|_| !self.segment.tables.status().is_over())
    }

    /// The entry; `None` if it belongs to the process that forked this one.
    #[inline]
    fn own_entry_of_this_process(&self) -> Option<&OwnEntry> {
        self.own_entry.as_ref().filter(|_| !self.segment.is_inherited())
    }

    /// Pins the slot of a frame, unless the quota forbids it, the writer has overwritten the frame, or the slot has no
    /// memory.
    #[inline]
    pub(super) fn pin(&self, location: FrameLocation) -> PinResult {
        let Run { slot, first, .. } = location.run;
        let Some(own_entry) = self.own_entry.as_ref().filter(|_| self.segment.is_committed(slot)) else {
            return PinResult::Gone;
        };
        let entry = self.segment.tables.entry(own_entry.index());
        let quota = &self.segment.tables.status().quota;
        let seq = &self.segment.slot_record(slot).seq;
        let result = own_entry.pin_counts().pin(&entry.pins, quota, seq, slot, first);
        if result != PinResult::Pinned {
            self.segment.notify_waiting_writer();
        }
        result
    }

    /// Releases one pin of a slot. It does nothing in a forked child, where the pins belong to the parent.
    #[inline]
    pub(super) fn unpin(&self, slot: usize) {
        if let Some(own_entry) = self.own_entry_of_this_process() {
            let entry = self.segment.tables.entry(own_entry.index());
            own_entry.pin_counts().unpin(&entry.pins, slot);
            failpoint(Failpoint::Unpinned);
            self.segment.notify_waiting_writer();
        }
    }

    /// Copies a frame with pread, without pinning its slot. `None` if the writer overwrites the frame meanwhile, the
    /// descriptor is invalid, or `target` has no memory.
    pub(super) fn copy_unpinned(&self, location: FrameLocation, target: &mut dyn CopyTarget) -> Option<FrameInfo> {
        if let Some(objects) = &self.objects {
            return self.copy_objects_unpinned(objects, location, target).ok().flatten();
        }
        let FrameLocation { run, position } = location;
        let seq = &self.segment.slot_record(run.slot).seq;
        if !ring::has_run(seq, run.first) {
            return None;
        }
        // The descriptor and the slot are checked first, because the target allocates the size that the descriptor
        // states.
        let descriptor = self.runs().describe_unpinned(location)?;
        if !self.segment.is_committed(run.slot) {
            return None;
        }
        let in_slot = self.segment.header.slots_offset + self.segment.slot_offset(run.slot);
        let bytes = target.prepare(descriptor.size as usize)?;
        failpoint(Failpoint::CopyUnpinned);
        if bytes.len() != descriptor.size as usize
            || files::read_exactly(&self.segment.file, bytes, in_slot + descriptor.data_offset) != Ok(true)
        {
            return None;
        }
        let metadata = if position.is_first() {
            self.segment.read_metadata(run.slot, descriptor.metadata_size)
        } else {
            let mut metadata = vec![0; descriptor.metadata_size as usize];
            let offset = in_slot + descriptor.metadata_offset()?;
            (files::read_exactly(&self.segment.file, &mut metadata, offset) == Ok(true)).then_some(metadata)?
        };
        failpoint(Failpoint::CopyUnchecked);
        ring::still_has_run(seq, run.first).then_some(FrameInfo { descriptor, metadata })
    }

    /// Copies a frame of objects without pinning its slot. `None` if the writer overwrites the frame meanwhile, if its
    /// descriptor is invalid, or if `target` has no memory. An error if its memory cannot be got.
    pub(super) fn copy_objects_unpinned(
        &self,
        objects: &ObjectCache,
        location: FrameLocation,
        target: &mut dyn CopyTarget,
    ) -> Result<Option<FrameInfo>, FetchError> {
        let run = location.run;
        let seq = &self.segment.slot_record(run.slot).seq;
        let found = || {
            let descriptor = self.runs().describe_unpinned(location)?;
            let table = self.segment.read_references(run.slot, &descriptor)?;
            let metadata = self.segment.read_metadata(run.slot, descriptor.metadata_size);
            ring::still_has_run(seq, run.first).then_some((descriptor, table, metadata))
        };
        let Some((descriptor, table, metadata)) = found() else {
            return Ok(None);
        };
        // The objects are found before the target allocates the size that the descriptor states.
        let parts = objects.find(&self.segment, &table, descriptor.size)?;
        let Some(bytes) = target.prepare(descriptor.size as usize) else {
            return Ok(None);
        };
        failpoint(Failpoint::CopyUnpinned);
        copy_parts(&parts, bytes).map_err(ObjectFault::from)?;
        failpoint(Failpoint::CopyUnchecked);
        // Upstream gets the memory back only after the seq is 0, so an unchanged seq means that the copy is the frame.
        Ok(ring::still_has_run(seq, run.first).then_some(FrameInfo { descriptor, metadata }))
    }

    /// The parts of a frame of objects, without a pin. `None` if the frame was overwritten or is damaged.
    pub(super) fn references_unpinned(&self, location: FrameLocation) -> Option<Vec<ObjectReference>> {
        let run = location.run;
        let descriptor = self.runs().describe_unpinned(location)?;
        let table = self.segment.read_references(run.slot, &descriptor)?;
        let is_there = ring::still_has_run(&self.segment.slot_record(run.slot).seq, run.first);
        table.parts(descriptor.size).filter(|_| is_there).map(<[_]>::to_vec)
    }

    /// Stores `seq` as the cursor: this reader has taken all frames up to `seq`, or does not want them.
    #[inline]
    pub(super) fn set_cursor(&self, seq: u64) {
        if let Some(own_entry) = &self.own_entry {
            self.segment.tables.entry(own_entry.index()).set_cursor(seq);
            self.segment.notify_waiting_writer();
        }
    }

    /// Stores for observers how many frames this reader has missed, and whether it misses them on purpose.
    #[inline]
    pub(super) fn set_missed(&self, missed: u64, wants_only_newest: bool) {
        if let Some(own_entry) = &self.own_entry {
            let flag = if wants_only_newest { ONLY_NEWEST } else { 0 };
            // Relaxed: the value is only shown, and nothing depends on it.
            self.segment
                .tables
                .entry(own_entry.index())
                .missed
                .store(missed & !ONLY_NEWEST | flag, Ordering::Relaxed);
        }
    }

    /// Stores that this reader takes no more frames in this segment. `state` is `reader_state::MOVED` or
    /// `reader_state::LEFT`. The pins stay.
    pub(super) fn leave(&self, state: u32) {
        if let Some(own_entry) = self.own_entry_of_this_process() {
            failpoint(Failpoint::LeaveDue);
            self.segment.tables.entry(own_entry.index()).set_state(state);
            own_entry.end_presence();
            self.segment.notify(FutexWord::Writer);
        }
    }
}
