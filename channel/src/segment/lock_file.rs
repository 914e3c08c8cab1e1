// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lock file of a channel: its named semaphore, and the locks on single bytes of the same file.
//!
//! The locks show which peers are alive, because the kernel releases the locks of a process that dies. The semaphore is
//! for programs that hold it while they inspect the channel; no peer depends on it. A POSIX semaphore has no owner, and
//! stays taken when its holder dies. Therefore the writer waits at most [`ACQUIRE_TIMEOUT`] for it, and repairs an
//! invalid value.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::WRITER_BYTE,
    },
    segment::{
        faults::{SemaphoreFault, SemaphoreFaults},
        staging::StagingFile,
    },
    sys::{
        errno,
        files::{self, FileId},
        lock::{self, OfdLock},
        mapping::Mapping,
        semaphore::{SEMAPHORE_SIZE, Semaphore, SemaphoreState},
        space::{self, CommitError},
        sync,
    },
};

/// How long a publish waits for a semaphore that another program holds.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(2);
/// How long the semaphore may stay taken before the writer resets it to 1.
const STUCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The file `/dev/shm/sem.NAME`: the semaphore, and the bytes that are locked.
#[derive(Debug)]
pub(crate) struct LockFile {
    channel: String,
    path: String,
    file: OwnedFd,
    file_id: FileId,
    semaphore: Semaphore,
    /// When a wait for the semaphore first timed out; `None` if this writer has acquired the semaphore since. The mutex
    /// also lets only one thread of this process at a time hold the semaphore.
    missed_since: Mutex<Option<Instant>>,
    /// How many waits have timed out. The count is outside the mutex, because the threads that read the count must not
    /// wait for the thread that holds the semaphore.
    timeouts: AtomicU64,
    /// Like `timeouts`, the faults are outside the mutex, so that a thread can read them without waiting.
    pub(crate) faults: SemaphoreFaults,
}

/// The result of [`LockFile::take_first`].
#[derive(Debug)]
pub(crate) enum LockAttempt {
    /// The byte that was locked, and its lock.
    Locked(i64, OfdLock),
    /// Other processes hold all bytes.
    AllTaken,
    /// The name of the lock file now belongs to another file, or to no file.
    NameChanged,
}

/// The mode of the lock file of a channel with the mode `perms`: each class (owner, group, others) has both read and
/// write permission, or neither.
///
/// A process that can open the file can lock its bytes. Therefore a class that may only read the segment must not be
/// able to open the lock file.
pub(crate) fn lock_file_mode(perms: u32) -> u32 {
    [0o600, 0o060, 0o006]
        .into_iter()
        .filter(|class| perms & class == *class)
        .sum()
}

impl LockFile {
    /// Opens the existing lock file; `None` if there is none.
    pub(crate) fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        let path = name.lock_file_path();
        match files::open(&path, true) {
            Ok(None) => Ok(None),
            Ok(Some(file)) => Self::new(name, path, file).map(Some),
            Err(error) => Err(files::open_error(name.as_str(), &path, "use", &error)),
        }
    }

    /// Creates a lock file whose semaphore has the value 1; `None` if another process created it first. The writer's
    /// byte is locked before another process can find the file.
    pub(crate) fn create(name: &ChannelName, perms: u32) -> Result<Option<(Self, OfdLock)>, Error> {
        let channel = name.as_str();
        let path = name.lock_file_path();
        let failed = |errno| files::create_error(channel, format!("creating {path}"), errno);
        let failed_io = |error: std::io::Error| failed(errno::of(&error));
        let mut staging = StagingFile::create().map_err(failed_io)?;
        // A few bytes do not bring a control group to its limit, so the memory limits do not matter here.
        space::allocate(&staging.file, 0, SEMAPHORE_SIZE).map_err(|errno| match CommitError::new(errno) {
            CommitError::NoMemory(space) => Error::no_space(channel, SEMAPHORE_SIZE, 0, 0, space),
            CommitError::Failed(errno) => failed(errno),
        })?;
        let locked = staging.open_again().map_err(failed_io)?;
        lock::try_lock(&locked, WRITER_BYTE).map_err(failed)?;
        let lock = OfdLock::keep(locked).map_err(failed)?;
        let lock_file = Self::new(name, path.clone(), staging.open_again().map_err(failed_io)?)?;
        lock_file.initialise()?;
        staging.set_mode(lock_file_mode(perms)).map_err(failed)?;
        failpoint(Failpoint::LockFileMade);
        match staging.persist(&path, false) {
            Ok(()) => {
                failpoint(Failpoint::LockFileNamed);
                Ok(Some((lock_file, lock)))
            }
            Err(nix::errno::Errno::EEXIST) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Extends a truncated lock file to the size of a semaphore; `true` if the file was too short. If so, the writer
    /// calls [`initialise`](Self::initialise) after it has locked its byte.
    pub(crate) fn repair(name: &ChannelName) -> Result<bool, Error> {
        let path = name.lock_file_path();
        let Ok(Some(file)) = files::open(&path, true) else {
            return Ok(false);
        };
        let stat = files::require_own(name.as_str(), &path, &file)?;
        let is_short = (stat.st_size as u64) < SEMAPHORE_SIZE;
        if is_short {
            space::allocate(&file, 0, SEMAPHORE_SIZE)
                .map_err(|errno| Error::system(name.as_str(), format!("repair {path}"), errno))?;
        }
        Ok(is_short)
    }

    /// Turns the bytes, whatever they were, into a semaphore with the value 1.
    pub(crate) fn initialise(&self) -> Result<(), Error> {
        self.semaphore
            .initialise()
            .map_err(|errno| Error::system(&self.channel, format!("sem_init {}", self.path), errno))
    }

    fn new(name: &ChannelName, path: String, file: OwnedFd) -> Result<Self, Error> {
        let failed = |call: &str, errno| Error::system(name.as_str(), format!("{call} {path}"), errno);
        let stat = nix::sys::stat::fstat(&file).map_err(|errno| failed("fstat", errno))?;
        if (stat.st_size as u64) < SEMAPHORE_SIZE {
            return Err(Error::Damaged {
                channel: name.to_string(),
                what: format!("{path} has {} bytes, a semaphore has {SEMAPHORE_SIZE}", stat.st_size),
            });
        }
        let mapping = Mapping::new(&file, 0, SEMAPHORE_SIZE, true).map_err(|errno| failed("mmap", errno))?;
        let semaphore = Semaphore::new(mapping).ok_or_else(|| failed("mmap", nix::errno::Errno::EINVAL))?;
        Ok(Self {
            channel: name.to_string(),
            file_id: FileId::from(&stat),
            path,
            file,
            semaphore,
            missed_since: Mutex::default(),
            timeouts: AtomicU64::new(0),
            faults: SemaphoreFaults::default(),
        })
    }

    pub(crate) fn file_id(&self) -> FileId {
        self.file_id
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Gives the lock file the mode that `perms` requires, because a former writer of this user may have had other
    /// permissions.
    pub(crate) fn set_perms(&self, perms: u32) -> Result<(), Error> {
        nix::sys::stat::fchmod(
            &self.file,
            nix::sys::stat::Mode::from_bits_truncate(lock_file_mode(perms)),
        )
        .map_err(|errno| Error::system(&self.channel, format!("chmod {}", self.path), errno))
    }

    /// Locks the first of `bytes` that is free.
    pub(crate) fn take_first(&self, bytes: impl IntoIterator<Item = i64>) -> Result<LockAttempt, Error> {
        let failed = |errno| Error::system(&self.channel, format!("lock {}", self.path), errno);
        let reopened = files::open(&self.path, true)
            .map_err(|error| files::open_error(&self.channel, &self.path, "use", &error))?;
        let Some(reopened) = reopened else {
            return Ok(LockAttempt::NameChanged);
        };
        if files::file_id(&reopened).map_err(failed)? != self.file_id {
            return Ok(LockAttempt::NameChanged);
        }
        for byte in bytes {
            if lock::try_lock(&reopened, byte).map_err(failed)? {
                return OfdLock::keep(reopened)
                    .map(|lock| LockAttempt::Locked(byte, lock))
                    .map_err(failed);
            }
        }
        Ok(LockAttempt::AllTaken)
    }

    /// Whether a process holds the lock of `byte`. The result is also `true` if the kernel cannot tell, so that nothing
    /// is taken from a living process.
    pub(crate) fn is_locked(&self, byte: i64) -> bool {
        lock::is_locked(&self.file, byte).unwrap_or(true)
    }

    /// Tries to take the semaphore for at most [`ACQUIRE_TIMEOUT`], and continues without it if the attempt fails.
    pub(crate) fn acquire(&self) -> SemaphoreGuard<'_> {
        let mut missed_since = sync::lock(&self.missed_since);
        self.repair_kind();
        let acquired = self.semaphore.try_wait() || self.wait(&mut missed_since);
        if acquired {
            *missed_since = None;
        }
        SemaphoreGuard {
            lock_file: self,
            _missed_since: missed_since,
            acquired,
        }
    }

    /// Handles a taken semaphore: waits for it once, and resets it after [`STUCK_TIMEOUT`]. `false` if the semaphore
    /// stays taken.
    fn wait(&self, missed_since: &mut Option<Instant>) -> bool {
        match *missed_since {
            None => {
                let acquired = self.semaphore.wait(ACQUIRE_TIMEOUT);
                if !acquired {
                    // Relaxed: the count orders nothing else.
                    self.timeouts.fetch_add(1, Ordering::Relaxed);
                    self.faults.add(SemaphoreFault::Held);
                    *missed_since = Some(Instant::now());
                }
                acquired
            }
            // Perhaps another program has just taken the semaphore for a moment, so wait once more before the reset.
            Some(since) if since.elapsed() > STUCK_TIMEOUT => {
                self.semaphore.wait(ACQUIRE_TIMEOUT) || {
                    self.release();
                    self.semaphore.try_wait()
                }
            }
            // An earlier call has already waited. This call does not wait again, because each further wait would delay
            // a frame.
            Some(_) => false,
        }
    }

    fn repair_kind(&self) {
        if self.semaphore.repair_kind() {
            self.faults.add(SemaphoreFault::Damaged);
        }
    }

    /// Sets the semaphore to exactly 1.
    fn release(&self) {
        match self.semaphore.release() {
            SemaphoreState::Held => {}
            SemaphoreState::Posted => self.faults.add(SemaphoreFault::Posted),
            SemaphoreState::Invalid => self.faults.add(SemaphoreFault::Damaged),
        }
    }

    /// Repairs a damaged semaphore and resets a stuck one. The service calls this method, because the next publish may
    /// come much later.
    pub(crate) fn repair_semaphore(&self) {
        self.repair_kind();
        let missed_since = *sync::lock(&self.missed_since);
        if missed_since.is_some_and(|since| since.elapsed() > STUCK_TIMEOUT) {
            drop(self.acquire());
        }
    }

    /// How many times another program held the semaphore for longer than [`ACQUIRE_TIMEOUT`].
    pub(crate) fn timeouts(&self) -> u64 {
        // Relaxed: as in `wait`.
        self.timeouts.load(Ordering::Relaxed)
    }
}

/// One attempt to hold the semaphore. After a successful attempt, dropping the guard resets the semaphore to 1. After a
/// failed attempt, another program holds the semaphore, and the guard only excludes the other threads of this process.
pub(crate) struct SemaphoreGuard<'a> {
    lock_file: &'a LockFile,
    _missed_since: MutexGuard<'a, Option<Instant>>,
    acquired: bool,
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        if self.acquired {
            self.lock_file.release();
        }
    }
}
