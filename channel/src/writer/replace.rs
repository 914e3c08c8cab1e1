// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes segments: the first one, and each one that replaces another.
//!
//! A new segment is needed if a frame is too large for the slots or the caps change. It is also needed after a takeover
//! from a dead writer, and after the channel's names were lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    inner::Inner,
    objects::owners::{Owner, SlotOwners},
    options::{Caps, MIN_SLOTS},
    quota,
    segment::WriterSegment,
    sizing,
    slots::SlotAllocator,
};
use crate::{
    Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{Header, MAX_CAPS_SIZE, flags},
    },
    segment::{CreateError, Segment, lock_file::LockFile, staging::StagingFile},
    sys::{
        clock,
        files::{self, FileId},
        lock::OfdLock,
        space::Space,
    },
};

/// How long a new segment waits for the memory of a segment that was forgotten.
const FORGOTTEN_TIMEOUT: Duration = Duration::from_millis(20);
const FORGOTTEN_INTERVAL: Duration = Duration::from_millis(1);

/// The plan of a segment: its caps and header, and the values that its creation needs.
struct SegmentPlan {
    caps: Caps,
    header: Header,
    lock_file: Arc<LockFile>,
    /// The file of this writer that has the channel's name, if there is one.
    former: Option<FileId>,
    /// What limits the number of slots; `None` if it is not memory.
    bound: Option<Space>,
}

/// A segment that has no name yet.
struct NewSegment {
    segment: Segment,
    staging: StagingFile,
    writer_lock: OfdLock,
}

/// Makes a segment, unless the current one has the present caps and slots for frames of `size` bytes.
pub(super) fn ensure_segment(inner: &Inner, size: usize) -> Result<(), Error> {
    let size = size as u64;
    if is_current_sufficient(inner, size) {
        return Ok(());
    }
    let _replacing = inner.begin_replacing();
    // Another thread may have made the segment while this thread waited for the lock.
    if is_current_sufficient(inner, size) {
        return Ok(());
    }
    replace(inner, size)
}

/// Makes a segment with slots for frames of `size` bytes and gives it the channel's name. The caller holds the lock of
/// [`begin_replacing`](Inner::begin_replacing).
pub(super) fn replace(inner: &Inner, size: u64) -> Result<(), Error> {
    let plan = plan(inner, size)?;
    if plan.caps.has_objects() {
        let announce = |inode| inner.lock().set_socket(inode);
        inner.objects().start(inner.name(), inner.options().perms, announce)?;
    }
    let new = create(inner, &plan)?;
    let given_up = install(inner, new, &plan)?;
    // Buffers are given back while the state is unlocked.
    drop(given_up);
    // The service may still sleep on the futex word of the former segment, or may sleep because there was no segment.
    inner.service().wake();
    Ok(())
}

fn is_current_sufficient(inner: &Inner, size: u64) -> bool {
    let state = inner.lock();
    state
        .sizing
        .is_met_by(state.chain.current_mapped().map(Arc::as_ref), size)
}

/// Decides the sizes of the next segment.
fn plan(inner: &Inner, size: u64) -> Result<SegmentPlan, Error> {
    let channel = || inner.name().to_string();
    let space = Space::now();
    let state = inner.lock();
    if !state.lock.is_held() {
        return Err(Error::Closed { channel: channel() });
    }
    let Some(caps) = state.sizing.caps().cloned() else {
        return Err(Error::Option {
            channel: channel(),
            reason: "no caps were set before the first frame".to_owned(),
        });
    };
    let lock_file = Arc::clone(state.lock.lock_file());
    let current = state.chain.current();
    let current_mapped = current.map(|slots| slots.segment().mapped().as_ref());
    let slot_size = state.sizing.slot_size(&caps, size, current_mapped, space.free);
    // The current segment's slots become free soon, so their bytes count as free.
    let own_bytes = current.map_or(0, |slots| {
        u64::from(slots.committed()) * slots.segment().header().slot_size
    });
    let former = state.chain.owned_name();
    drop(state);

    let options = inner.options();
    let slots = sizing::slot_count(options.max_slots, slot_size, space.free.saturating_add(own_bytes));
    let is_bounded = slots < sizing::slot_count(options.max_slots, slot_size, u64::MAX);
    let caps_size = caps.as_str().len();
    let mut header = Header::new(caps_size, slots, slot_size, options.accept_messages).ok_or_else(|| {
        inner.too_large(format!(
            "cannot lay out a segment for frames of {slot_size} bytes with {caps_size} bytes of caps \
             (limit {MAX_CAPS_SIZE})"
        ))
    })?;
    header.created_ns = clock::monotonic_ns();
    header.lock_device = lock_file.file_id().device;
    header.lock_inode = lock_file.file_id().inode;
    header.history = sizing::history(slots, slot_size, &caps);
    header.writer_pid = std::process::id();
    header.flags = if options.lossless { flags::LOSSLESS } else { 0 };
    if caps.is_variable() {
        header.flags |= flags::RUNS;
    }
    if caps.has_objects() {
        header.flags |= flags::OBJECTS;
    }
    Ok(SegmentPlan {
        caps,
        header,
        lock_file,
        former,
        bound: is_bounded.then_some(space),
    })
}

/// Creates the planned segment, if possible with as many slots as a channel with a quota needs. If there is no memory,
/// it releases the unused memory of the old segments and tries once more.
fn create(inner: &Inner, plan: &SegmentPlan) -> Result<NewSegment, Error> {
    let header = plan.header;
    let try_create = |slots| Segment::create(header, plan.caps.as_str(), slots, inner.options().perms);
    let initial = quota::initial_slots(quota::largest_quota(&header));
    let mut created = try_create(initial).or_else(|error| match error {
        CreateError::NoMemory(_) if initial > MIN_SLOTS => try_create(MIN_SLOTS),
        error => Err(error),
    });
    if matches!(created, Err(CreateError::NoMemory(_))) {
        let mut state = inner.lock();
        state.chain.retire();
        let was_forgotten = state.chain.release_retired(inner.options().lossless);
        drop(state);
        created = try_create(MIN_SLOTS);
        let began = Instant::now();
        while was_forgotten && matches!(created, Err(CreateError::NoMemory(_))) && began.elapsed() < FORGOTTEN_TIMEOUT {
            // The service may still wait in the segment that was forgotten, which keeps its memory.
            inner.service().wake();
            std::thread::sleep(FORGOTTEN_INTERVAL);
            created = try_create(MIN_SLOTS);
        }
    }
    let channel = inner.name().as_str();
    let (segment, staging, writer_lock) = created.map_err(|error| match error {
        CreateError::NoMemory(space) => Error::no_space(
            channel,
            header.slots_offset + u64::from(MIN_SLOTS) * header.slot_size,
            MIN_SLOTS,
            header.slot_size,
            space,
        ),
        CreateError::Failed(what, errno) => {
            let path = inner.name().segment_path();
            files::create_error(channel, format!("creating {path}: {what}"), errno)
        }
    })?;
    failpoint(Failpoint::SegmentMade);
    Ok(NewSegment {
        segment,
        staging,
        writer_lock,
    })
}

/// Gives a new segment the channel's name, makes it the current one, and notifies the readers of the former segment.
/// Returns the owner values of frames that nobody needs any more.
fn install(inner: &Inner, new: NewSegment, plan: &SegmentPlan) -> Result<Vec<Owner>, Error> {
    let NewSegment {
        mut segment,
        mut staging,
        writer_lock,
    } = new;
    inner.with_semaphore(|state| {
        failpoint(Failpoint::ReplaceHolding);
        segment.write_header(state.sequence.head() + 1, state.events.head(), state.latency_ns);
        state.events.write_sticky_to(&segment);
        // Relaxed: the rename that gives the segment its name comes later.
        segment
            .tables
            .status()
            .idle
            .store(state.is_idle.into(), Ordering::Relaxed);
        segment.tables.status().socket.store(state.socket, Ordering::Relaxed);
        failpoint(Failpoint::SegmentWritten);
        persist(inner, &mut staging, plan.former)?;
        failpoint(Failpoint::SegmentNamed);
        let committed = segment.committed_slots();
        let segment = Arc::new(WriterSegment::new(segment, Arc::clone(&plan.lock_file)));
        let mut slots = SlotAllocator::new(segment, committed, sizing::least_history(&plan.header));
        if plan.caps.has_objects() {
            slots.keep_owners(SlotOwners::new(state.frames_out.clone(), state.spare_objects));
            inner.objects().add_segment(slots.segment().mapped().file_id);
        }
        slots.grant_first_quota();
        state.chain.install(slots, writer_lock);
        state.service.begin_segment();
        state.requests.begin_segment();
        state.shortage.begin_segment(plan.bound.clone());
        state.stats.segments += 1;
        failpoint(Failpoint::SegmentCurrent);
        Ok(state.chain.retire_objects(inner.options().lossless))
    })
}

/// Gives the staging file the channel's name. If the name belongs to this writer's former file, the new file replaces
/// that file atomically. Any other file under the name is an error.
fn persist(inner: &Inner, staging: &mut StagingFile, former: Option<FileId>) -> Result<(), Error> {
    let path = inner.name().segment_path();
    let replaces_own = former.is_some() && files::file_id_of(&path) == former;
    staging.persist(&path, replaces_own).map_err(|errno| match errno {
        Errno::EEXIST => Error::Foreign {
            channel: inner.name().to_string(),
            path,
            what: "was put there by another program".to_owned(),
        },
        errno => Error::system(inner.name().as_str(), format!("rename to {path}"), errno),
    })
}
