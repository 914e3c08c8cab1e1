//! Making segments: the first, and each that takes another's name. Growth, another format, another writer's death and
//! lost names are all this one thing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    Caps, CurrentSegment, KeyframeRequests, ReaderRecord, RequestCounts, RetiredSegment, SERVICE_LOOK, SERVICE_WAKES,
    SlotTable, State, StickyEvents, Writer, WriterOptions, WriterSegment, WriterStats,
};
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{Header, MAX_CAPS_SIZE, MAX_READERS, MAX_SLOTS, WRITER_BYTE, flags, state},
    },
    segment::{
        self, Access, CreateError, Segment,
        faults::{SemaphoreFault, SemaphoreFaults},
        lock_file::{LockAttempt, LockFile},
        staging::{self, StagingFile},
        wait::{FutexWord, RateLimiter, Waiter},
    },
    sys::{
        clock,
        files::{self, FileId},
        fork::ForkGuard,
        lock::OfdLock,
        sync,
    },
};

/// How long a second start retries: a process that was killed needs a moment to die.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// Slots that a segment starts with, or is not made.
const FIRST_SLOTS: u32 = 3;
/// From so many slots on, frames are kept for [`KEEP_MANY`] more publishes, else for [`KEEP_FEW`].
const MANY_SLOTS: u32 = 12;
const KEEP_MANY: u32 = 4;
const KEEP_FEW: u32 = 2;
/// Frames whose size varies are kept for more publishes, as far as so many bytes reach: who joins a compressed stream, or
/// has missed a frame, goes on at a frame that can be decoded alone.
const KEEP_VARIABLE_BYTES: u64 = 4 << 20;
/// But for no more than this, so that readers have slots to hold.
const KEEP_VARIABLE: u32 = 32;
/// The most address space that slots take by themselves.
const MAX_ADDRESS_SPACE: u64 = if usize::BITS == 64 { 1 << 30 } else { 1 << 28 };
/// The least slot of frames whose size varies.
const MIN_VARIABLE_SLOT: u64 = 64 * 1024;

impl Writer {
    /// Becomes the channel's writer, and takes over what a dead one of the same user left.
    ///
    /// # Errors
    /// [`Error::Busy`] when another writer lives after two seconds, [`Error::Foreign`] when the name is somebody else's,
    /// [`Error::Option`] for options that do not work, and others.
    pub fn open(name: ChannelName, options: WriterOptions) -> Result<Self, Error> {
        check_options(&name, options)?;
        staging::sweep_staging_files();
        let started = Instant::now();
        loop {
            match take_channel(&name, options) {
                Err(Error::Busy { .. }) if started.elapsed() < BUSY_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
                Ok((taken, replaced_damaged)) => {
                    return Ok(Self {
                        name,
                        options,
                        fork_guard: ForkGuard::new(),
                        replaced_damaged,
                        waiter: Waiter::default(),
                        service_waiter: Waiter::default(),
                        replacing: Mutex::default(),
                        state: Mutex::new(taken),
                    });
                }
            }
        }
    }

    /// Sees to it that there is a segment of the present format with slots for `size` bytes.
    pub(super) fn ensure_segment(&self, size: usize) -> Result<(), Error> {
        if self.lock().fits(size as u64) {
            return Ok(());
        }
        let _one_at_a_time = sync::lock(&self.replacing);
        if self.lock().fits(size as u64) {
            return Ok(());
        }
        self.replace(size as u64)
    }

    /// Makes a segment and puts it under the name.
    fn replace(&self, size: u64) -> Result<(), Error> {
        let state = self.lock();
        let lock_file = Arc::clone(&state.lock_file);
        if state.writer_lock.is_none() {
            return Err(Error::Closed {
                channel: self.name.to_string(),
            });
        }
        let Some(format) = state.format.clone() else {
            return Err(Error::Option {
                channel: self.name.to_string(),
                reason: "no format was set before the first frame".to_owned(),
            });
        };
        let slot_size = state.slot_size(&format, size);
        let former = state.owned_name;
        let former_bytes = state.current.as_ref().map_or(0, |current| {
            u64::from(current.slots.committed) * current.segment.segment.header.slot_size
        });
        drop(state);

        let space = files::space(lock_file.file());
        let slots = self.slot_count(slot_size, space.0.saturating_add(former_bytes));
        let layout = Header::new(format.caps.len(), slots, slot_size, self.options.accept_messages);
        let mut header = layout.ok_or_else(|| Error::TooLarge {
            channel: self.name.to_string(),
            what: format!(
                "frames of {slot_size} bytes with a format of {} bytes cannot be had; a format may have {MAX_CAPS_SIZE}",
                format.caps.len()
            ),
        })?;
        header.created_ns = clock::monotonic_ns();
        header.lock_device = lock_file.file_id().device;
        header.lock_inode = lock_file.file_id().inode;
        header.history = history(slots, slot_size, format.variable);
        header.writer_pid = std::process::id();
        header.flags = if self.options.lossless { flags::LOSSLESS } else { 0 };

        let mut made = Segment::create(header, &format.caps, FIRST_SLOTS, self.options.perms);
        if matches!(made, Err(CreateError::NoMemory)) {
            // What nobody holds of the old segments is given back, and that is often enough.
            let mut state = self.lock();
            state.retire();
            for retired in &mut state.retired {
                retired.release(self.options.lossless);
            }
            state.forget_retired();
            drop(state);
            made = Segment::create(header, &format.caps, FIRST_SLOTS, self.options.perms);
        }
        let (segment, staging, alive) = made.map_err(|why| match why {
            CreateError::NoMemory => Error::no_space(
                self.name.as_str(),
                header.slots_offset + u64::from(FIRST_SLOTS) * header.slot_size,
                FIRST_SLOTS,
                header.slot_size,
                space,
            ),
            CreateError::Failed(what, errno) => Error::system(self.name.as_str(), what, errno),
        })?;
        self.install(segment, staging, alive, former, &lock_file)
    }

    /// Gives the new segment the name, and tells the readers of the old one.
    fn install(
        &self,
        mut segment: Segment,
        mut staging: StagingFile,
        alive: OfdLock,
        former: Option<FileId>,
        lock_file: &Arc<LockFile>,
    ) -> Result<(), Error> {
        failpoint(Failpoint::SegmentMade);
        let path = self.name.segment_path();
        let held = lock_file.acquire();
        failpoint(Failpoint::ReplaceHolding);
        let mut state = self.lock();
        segment.begin(state.head + 1, state.events.head, state.latency_ns);
        state.events.write_to(&segment);
        failpoint(Failpoint::SegmentWritten);
        // The name of the own former segment is taken over in one step; any other file stands in the way.
        let replaces_own = former.is_some() && files::file_id_of(&path) == former;
        staging.persist(&path, replaces_own).map_err(|errno| match errno {
            Errno::EEXIST => Error::Foreign {
                channel: self.name.to_string(),
                path,
                what: "was put there by another program".to_owned(),
            },
            errno => Error::system(self.name.as_str(), format!("rename to {path}"), errno),
        })?;
        failpoint(Failpoint::SegmentNamed);
        state.retire();
        state.owned_name = Some(segment.file_id);
        state.served = 0;
        state.current = Some(CurrentSegment {
            segment: Arc::new(WriterSegment::new(segment, Arc::clone(lock_file))),
            slots: SlotTable::new(FIRST_SLOTS, 0),
            seen_requests: [RequestCounts::default(); MAX_READERS],
            _alive: alive,
        });
        state.stats.segments += 1;
        failpoint(Failpoint::SegmentCurrent);
        drop(state);
        drop(held);
        self.service_waiter.wake();
        Ok(())
    }

    fn slot_count(&self, slot_size: u64, free: u64) -> u32 {
        if self.options.max_slots != 0 {
            return self.options.max_slots;
        }
        let slots = (free / 2).min(MAX_ADDRESS_SPACE) / slot_size;
        slots.clamp(FIRST_SLOTS.into(), MAX_SLOTS as u64) as u32
    }

    /// What is to be said of a segment under the name that is not this writer's.
    fn taken_by_others(&self) -> Error {
        let path = self.name.segment_path();
        let checked = match files::open(&path, false) {
            Ok(Some(file)) => files::require_own(self.name.as_str(), &path, &file).map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(files::open_error(self.name.as_str(), &path, "read", &error)),
        };
        checked.err().unwrap_or_else(|| busy(&self.name))
    }

    /// Makes the channel's files again if somebody removed them.
    pub(super) fn restore_names(&self) -> Result<bool, Error> {
        let _one_at_a_time = sync::lock(&self.replacing);
        let state = self.lock();
        if state.writer_lock.is_none() {
            return Ok(false);
        }
        let lock_file = Arc::clone(&state.lock_file);
        let owner = state.current.as_ref().map(|current| Arc::clone(&current.segment));
        drop(state);
        let segment = owner.as_ref().map(|owner| &owner.segment);
        let busy = || busy(&self.name);
        // A second writer that starts when the control file is lost makes one, finds this writer alive, and removes it.
        let foreign = |state: &mut State| {
            let since = *state.names_foreign_since.get_or_insert_with(Instant::now);
            if since.elapsed() > BUSY_PATIENCE {
                Err(busy())
            } else {
                Ok(false)
            }
        };
        let lock_file_found = files::file_id_of(lock_file.path());
        let lock_file_lost = lock_file_found != Some(lock_file.file_id());
        let segment_lost = match (segment, files::file_id_of(&self.name.segment_path())) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(segment), Some(file_id)) if file_id == segment.file_id => false,
            (Some(_), Some(_)) => return Err(self.taken_by_others()),
        };
        // As it is when the control file was made again and the segment could not be.
        let locks_differ = owner
            .as_ref()
            .is_some_and(|owner| owner.lock_file.file_id() != lock_file.file_id());
        if !lock_file_lost && !segment_lost && !locks_differ {
            return Ok(false);
        }
        if lock_file_lost {
            // A new one, or what another program has put there and no writer holds.
            let (lock_file, lock) = match open_lock_file(&self.name, self.options) {
                Ok((lock_file, lock, _)) => (lock_file, lock),
                Err(Error::Busy { .. }) => return foreign(&mut self.lock()),
                Err(error) => return Err(error),
            };
            let mut state = self.lock();
            let timeouts = state.lock_file.timeouts();
            state.stats.semaphore_timeouts += timeouts;
            if lock_file_found.is_some() {
                lock_file.faults.add(SemaphoreFault::Replaced);
            }
            state.lock_file = Arc::new(lock_file);
            state.writer_lock = Some(lock);
        }
        self.lock().names_foreign_since = None;
        match segment {
            Some(segment) => self.replace(segment.header.slot_size).map(|()| true),
            None => Ok(true),
        }
    }
}

impl Writer {
    /// Makes another segment where somebody has written into what never changes in one, or has marked it as over: readers
    /// could not come any more, or would go. Yields whether that was so. What never changes is looked at only when `thoroughly`.
    pub(super) fn replace_corrupted(&self, thoroughly: bool) -> Result<bool, Error> {
        let current = |state: &State| Some(Arc::clone(&state.current.as_ref()?.segment.segment));
        let Some(segment) = current(&self.lock()) else {
            return Ok(false);
        };
        // Relaxed: this process alone writes it in an honest channel.
        let over = segment.tables.status().state.load(Ordering::Relaxed) != 0;
        let spoilt = over || (thoroughly && segment.is_corrupted());
        if !spoilt {
            return Ok(false);
        }
        let _one_at_a_time = sync::lock(&self.replacing);
        if !current(&self.lock()).is_some_and(|now| Arc::ptr_eq(&now, &segment)) {
            return Ok(false);
        }
        self.replace(segment.header.slot_size).map(|()| true)
    }
}

impl State {
    /// Writes the numbers of the newest again where somebody else has: newcomers look at them.
    pub(super) fn repair_heads(&self) {
        let Some(current) = &self.current else {
            return;
        };
        let status = current.segment.segment.tables.status();
        for (word, value) in [
            (&status.head, self.head),
            (&status.event_head, self.events.head),
            (&status.latency_ns, self.latency_ns),
        ] {
            // Relaxed: written by this process alone, under the lock that is held here.
            if word.load(Ordering::Relaxed) != value {
                word.store(value, Ordering::Release);
            }
        }
    }

    fn fits(&self, size: u64) -> bool {
        let (Some(current), Some(format)) = (&self.current, &self.format) else {
            return false;
        };
        current.segment.segment.caps == format.caps
            && size.max(self.wanted_size).max(format.frame_size) <= current.segment.segment.header.slot_size
    }

    fn slot_size(&self, format: &Caps, size: u64) -> u64 {
        let least = size.max(self.wanted_size).max(format.frame_size).max(1);
        if !format.variable {
            return least;
        }
        let former = self
            .current
            .as_ref()
            .filter(|current| current.segment.segment.caps == format.caps)
            .map_or(MIN_VARIABLE_SLOT, |current| current.segment.segment.header.slot_size);
        if least > former {
            least.max(former).saturating_mul(2)
        } else {
            former
        }
    }

    /// Marks the current segment as superseded.
    fn retire(&mut self) {
        if let Some(current) = self.current.take() {
            let segment = Arc::clone(&current.segment.segment);
            self.retired.push(RetiredSegment {
                segment: current.segment,
                slots: current.slots,
                since: Instant::now(),
            });
            supersede(&segment);
        }
    }
}

/// For how many more publishes a frame is kept, where there are `slots` slots at most.
fn history(slots: u32, slot_size: u64, variable: bool) -> u32 {
    let least = if slots >= MANY_SLOTS { KEEP_MANY } else { KEEP_FEW };
    if !variable {
        return least;
    }
    let room = u32::try_from(KEEP_VARIABLE_BYTES / slot_size).unwrap_or(KEEP_VARIABLE);
    room.min(KEEP_VARIABLE).min(slots / 2).max(least)
}

fn supersede(segment: &Segment) {
    // Release: the head that a reader finds after this is the last one.
    segment
        .tables
        .status()
        .state
        .fetch_or(state::SUPERSEDED, Ordering::Release);
    // Pairs with the fence of a reader that has sat down and looks at the state then.
    fence(Ordering::SeqCst);
    failpoint(Failpoint::Superseded);
    segment.notify(FutexWord::Published);
    // The writer's own monitor sleeps on this one, and has another to sleep on now.
    segment.notify(FutexWord::Writer);
}

fn check_options(name: &ChannelName, options: WriterOptions) -> Result<(), Error> {
    let reason = if options.max_slots != 0 && !(FIRST_SLOTS..=MAX_SLOTS as u32).contains(&options.max_slots) {
        format!(
            "max-slots is {}, it may be 0 (automatic) or {FIRST_SLOTS} to {MAX_SLOTS}",
            options.max_slots
        )
    } else if options.perms > 0o777 || options.perms & 0o600 != 0o600 {
        format!(
            "perms is {:04o}, it may be 0600 to 0777 and must let the owner read and write",
            options.perms
        )
    } else {
        return Ok(());
    };
    Err(Error::Option {
        channel: name.to_string(),
        reason,
    })
}

fn pid_in_segment(name: &ChannelName) -> Option<u32> {
    let (file, stat) = segment::open_file(name, false).ok().flatten()?;
    let segment = Segment::open(name, file, &stat, Access::Observe).ok()?;
    // A superseded one is what was taken over from a writer that is dead.
    let state = segment.tables.status().state.load(Ordering::Acquire);
    (state & state::SUPERSEDED == 0).then_some(segment.header.writer_pid)
}

fn busy(name: &ChannelName) -> Error {
    Error::Busy {
        channel: name.to_string(),
        pid: pid_in_segment(name),
    }
}

/// Gets the writer's lock, and takes over what a dead writer left. Leaves nothing behind when it fails.
fn take_channel(name: &ChannelName, options: WriterOptions) -> Result<(State, Option<String>), Error> {
    let (lock_file, lock, made_here) = open_lock_file(name, options)?;
    let lock_file = Arc::new(lock_file);
    failpoint(Failpoint::ChannelLocked);
    match take_over(name, &lock_file, made_here) {
        Ok(Left {
            head,
            event_head,
            owned_name,
            retired,
            damaged,
        }) => {
            let state = State {
                lock_file,
                writer_lock: Some(lock),
                format: None,
                wanted_size: 0,
                current: None,
                owned_name,
                took_over: owned_name.map(|_| Instant::now()),
                retired: retired.into_iter().collect(),
                head,
                dropped: 0,
                events: StickyEvents::after(event_head),
                keyframes: KeyframeRequests::default(),
                latency_ns: 0,
                readers: [ReaderRecord::default(); MAX_READERS],
                names_checked: Instant::now(),
                names_foreign_since: None,
                served: 0,
                limiter: RateLimiter::new(SERVICE_WAKES, SERVICE_LOOK),
                faults: SemaphoreFaults::default(),
                stats: WriterStats::default(),
            };
            Ok((state, damaged))
        }
        Err(error) => {
            if made_here {
                files::remove_if(lock_file.path(), lock_file.file_id());
            }
            Err(error)
        }
    }
}

/// Gets the control file with the writer's lock. The last value says whether the file was made here.
fn open_lock_file(name: &ChannelName, options: WriterOptions) -> Result<(LockFile, OfdLock, bool), Error> {
    let path = name.lock_file_path();
    match files::open(&path, true) {
        Ok(None) => {
            return match LockFile::create(name, options.perms)? {
                Some((lock_file, lock)) => Ok((lock_file, lock, true)),
                None => Err(busy(name)),
            };
        }
        Ok(Some(file)) => {
            files::require_own(name.as_str(), &path, &file)?;
        }
        Err(error) => return Err(files::open_error(name.as_str(), &path, "write", &error)),
    }
    let repaired = LockFile::repair(name)?;
    let lock_file = LockFile::open(name)?.ok_or_else(|| busy(name))?;
    let LockAttempt::Locked(_, lock) = lock_file.take_first([WRITER_BYTE])? else {
        return Err(busy(name));
    };
    // Between opening and locking, the former writer may have removed the name.
    if files::file_id_of(&path) != Some(lock_file.file_id()) {
        return Err(busy(name));
    }
    if repaired {
        lock_file.initialise()?;
    }
    lock_file.set_perms(options.perms)?;
    Ok((lock_file, lock, false))
}

/// What a dead writer left.
#[derive(Default)]
struct Left {
    /// Number of its newest frame.
    head: u64,
    /// Number of its newest event.
    event_head: u64,
    /// Its segment still has the name. It keeps that until this writer's first one takes it, so that who starts if this one
    /// dies before finds the numbers.
    owned_name: Option<FileId>,
    /// The same, as readers may still be in it.
    retired: Option<RetiredSegment>,
    /// What was wrong with it, where it was of no use.
    damaged: Option<String>,
}

/// Takes over what lies under the channel's name: the segment of a dead writer of this user. Its readers are told to look
/// for the next one.
fn take_over(name: &ChannelName, lock_file: &Arc<LockFile>, lock_file_is_new: bool) -> Result<Left, Error> {
    let path = name.segment_path();
    let opened =
        segment::open_file(name, true).map_err(|error| files::open_error(name.as_str(), &path, "write", &error))?;
    let Some((file, stat)) = opened else {
        return Ok(Left::default());
    };
    files::require_own(name.as_str(), &path, &file)?;
    let file_id = FileId::from(&stat);
    let segment = match Segment::open(name, file, &stat, Access::Write) {
        Ok(segment) => segment,
        // A damaged segment of ours is replaced if it was one: a control file was beside it.
        Err(Error::Damaged { what, .. }) if !lock_file_is_new => {
            files::remove_if(&path, file_id);
            return Ok(Left {
                damaged: Some(what),
                ..Left::default()
            });
        }
        Err(Error::Damaged { what, .. }) => {
            return Err(Error::Damaged {
                channel: name.to_string(),
                what: format!("{path} is in the way: {what}; remove it, or choose another name"),
            });
        }
        Err(error) => return Err(error),
    };
    if segment.has_writer() {
        // Dying, or alive and about to make its lost control file again.
        return Err(busy(name));
    }
    let held = lock_file.acquire();
    failpoint(Failpoint::FormerOpened);
    // A damaged head must not bring the numbers near their end.
    let sane = |seq: u64| if seq < 1 << 48 { seq } else { 0 };
    let head = sane(segment.tables.status().head.load(Ordering::Acquire));
    let event_head = sane(segment.tables.status().event_head.load(Ordering::Acquire));
    supersede(&segment);
    failpoint(Failpoint::FormerSuperseded);
    drop(held);
    let same_locks = segment.lock_file_id() == lock_file.file_id();
    let retired = same_locks.then(|| RetiredSegment::of_dead_writer(segment, lock_file));
    Ok(Left {
        head,
        event_head,
        owned_name: Some(file_id),
        retired,
        damaged: None,
    })
}

impl RetiredSegment {
    fn of_dead_writer(segment: Segment, lock_file: &Arc<LockFile>) -> Self {
        let slots = segment.header.slot_count as usize;
        let committed = (0..slots).take_while(|slot| segment.is_committed(*slot)).count();
        // Whom the writer before had granted slots nobody knows.
        let mut table = SlotTable::new(committed as u32, u64::MAX);
        for (slot, seq) in table.numbers.iter_mut().enumerate().take(slots) {
            *seq = segment.slot_record(slot).seq.load(Ordering::Acquire);
        }
        Self {
            segment: Arc::new(WriterSegment::new(segment, Arc::clone(lock_file))),
            slots: table,
            since: Instant::now(),
        }
    }
}
