//! The channel's named semaphore, and the locks on bytes of its file.
//!
//! The semaphore is a courtesy for peers that look at the channel under it; POSIX semaphores have no owner and no
//! recovery, so nothing waits for it longer than [`PATIENCE`], and a value that makes no sense is mended. The locks are
//! what decides: the kernel takes them back from whoever dies.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::WRITER_BYTE,
    },
    segment::staging::StagingFile,
    sys::{
        errno,
        files::{self, FileId},
        lock::{self, OfdLock},
        mapping::Mapping,
        semaphore::{SIZE, Semaphore, SemaphoreState},
        sync,
    },
};

/// How long a publish waits for a semaphore that somebody else holds.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long a semaphore may stay taken before it is put back to 1.
const STUCK: Duration = Duration::from_secs(1);

/// What another program has done to the channel's semaphore. The exchange of frames goes on, and it is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SemaphoreFault {
    /// It was held for longer than the writer waits.
    Held,
    /// It was posted by who had not waited for it.
    Posted,
    /// Its bytes were no semaphore's.
    Damaged,
    /// A new one was put under its name.
    Replaced,
}

impl SemaphoreFault {
    const ALL: [Self; 4] = [Self::Held, Self::Posted, Self::Damaged, Self::Replaced];

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl std::fmt::Display for SemaphoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Held => {
                "a program held its semaphore for more than 2 ms; frames go on without it, and it is put right after a second"
            }
            Self::Posted => "a program posted its semaphore without having waited for it; it was put right",
            Self::Damaged => "a program damaged its semaphore; it was put right",
            Self::Replaced => "a program had put a semaphore of its own under the name; that one is used from here on",
        })
    }
}

/// Kinds of trouble, each once.
#[derive(Debug, Default)]
pub(crate) struct SemaphoreFaults(AtomicU32);

impl SemaphoreFaults {
    pub(crate) fn add(&self, fault: SemaphoreFault) {
        // Relaxed, here and below: only the bits matter.
        if self.0.load(Ordering::Relaxed) & fault.bit() == 0 {
            self.0.fetch_or(fault.bit(), Ordering::Relaxed);
        }
    }

    /// Takes over those of `others`; yields which are new here.
    pub(crate) fn news_of(&self, others: &Self) -> Vec<SemaphoreFault> {
        let others = others.0.load(Ordering::Relaxed);
        let news = others & !self.0.fetch_or(others, Ordering::Relaxed);
        let mut all = SemaphoreFault::ALL.to_vec();
        all.retain(|fault| news & fault.bit() != 0);
        all
    }
}

/// The file `/dev/shm/sem.NAME`: the semaphore, and the bytes that carry the locks.
#[derive(Debug)]
pub(crate) struct LockFile {
    channel: String,
    path: String,
    file: OwnedFd,
    file_id: FileId,
    semaphore: Semaphore,
    turn: Mutex<Turn>,
    /// Beside the turn, as it is asked for by threads that must not wait for whoever has that.
    timeouts: AtomicU64,
    /// As above.
    pub(crate) faults: SemaphoreFaults,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    /// The byte, and what keeps its lock.
    Lock(i64, OfdLock),
    /// Somebody has each of them.
    ByOthers,
    /// The name is another file's by now.
    NameChanged,
}

/// What is known of a semaphore that was not to be had.
#[derive(Debug, Default)]
struct Turn {
    taken_since: Option<Instant>,
}

/// Who may attach may lock: the mode of the control file is the channel's without the classes that may only read, as
/// whoever can open the file can hold a byte of it.
pub(crate) fn lock_file_mode(perms: u32) -> u32 {
    [0o600, 0o060, 0o006]
        .into_iter()
        .filter(|class| perms & class == *class)
        .sum()
}

impl LockFile {
    /// Opens what is there; `None` when there is nothing.
    pub(crate) fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        let path = name.semaphore_path();
        match files::open(&path, true) {
            Ok(None) => Ok(None),
            Ok(Some(file)) => Self::new(name, path, file).map(Some),
            Err(error) => Err(files::open_error(name.as_str(), &path, "use", &error)),
        }
    }

    /// Makes a new one with the value 1; `None` when another got there first. The writer's byte is locked before
    /// anybody can find the file.
    pub(crate) fn create(name: &ChannelName, perms: u32) -> Result<Option<(Self, OfdLock)>, Error> {
        let channel = name.as_str();
        let path = name.semaphore_path();
        let failed = |errno| Error::system(channel, format!("make {path}"), errno);
        let failed_io = |error: std::io::Error| files::open_error(channel, &path, "make", &error);
        let mut staging = StagingFile::create().map_err(failed_io)?;
        files::commit_memory(&staging.file, 0, SIZE).map_err(|errno| {
            if errno::is_out_of_memory(errno) {
                Error::no_space(channel, SIZE, 0, 0, files::space(&staging.file))
            } else {
                failed(errno)
            }
        })?;
        let locked = staging.open_again().map_err(failed_io)?;
        lock::try_lock(&locked, WRITER_BYTE).map_err(failed)?;
        let kept = OfdLock::keep(locked).map_err(failed)?;
        let lock_file = Self::new(name, path.clone(), staging.open_again().map_err(failed_io)?)?;
        lock_file.initialise()?;
        staging.set_mode(lock_file_mode(perms)).map_err(failed)?;
        failpoint(Failpoint::LockFileMade);
        match staging.persist(&path, false) {
            Ok(()) => {
                failpoint(Failpoint::LockFileNamed);
                Ok(Some((lock_file, kept)))
            }
            Err(nix::errno::Errno::EEXIST) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Makes the file as large as a semaphore again: of a file that its owner's writer finds cut short. `true` when it
    /// was; then [`initialise`](Self::initialise) has to follow, once the writer's byte is locked.
    pub(crate) fn repair(name: &ChannelName) -> Result<bool, Error> {
        let path = name.semaphore_path();
        let Ok(Some(file)) = files::open(&path, true) else {
            return Ok(false);
        };
        let stat = files::require_own(name.as_str(), &path, &file)?;
        let damaged = (stat.st_size as u64) < SIZE;
        if damaged {
            files::commit_memory(&file, 0, SIZE)
                .map_err(|errno| Error::system(name.as_str(), format!("repair {path}"), errno))?;
        }
        Ok(damaged)
    }

    /// Makes it a semaphore of the value 1, whatever its bytes are.
    pub(crate) fn initialise(&self) -> Result<(), Error> {
        self.semaphore
            .initialise()
            .map_err(|errno| Error::system(&self.channel, format!("sem_init {}", self.path), errno))
    }

    fn new(name: &ChannelName, path: String, file: OwnedFd) -> Result<Self, Error> {
        let failed = |call: &str, errno| Error::system(name.as_str(), format!("{call} {path}"), errno);
        let stat = nix::sys::stat::fstat(&file).map_err(|errno| failed("fstat", errno))?;
        if (stat.st_size as u64) < SIZE {
            return Err(Error::Damaged {
                channel: name.to_string(),
                what: format!("{path} has {} bytes, a semaphore has {SIZE}", stat.st_size),
            });
        }
        let mapping = Mapping::new(&file, 0, SIZE, true).map_err(|errno| failed("mmap", errno))?;
        let semaphore = Semaphore::new(mapping).ok_or_else(|| failed("mmap", nix::errno::Errno::EINVAL))?;
        Ok(Self {
            channel: name.to_string(),
            file_id: FileId::from(&stat),
            path,
            file,
            semaphore,
            turn: Mutex::default(),
            timeouts: AtomicU64::new(0),
            faults: SemaphoreFaults::default(),
        })
    }

    pub(crate) fn file_id(&self) -> FileId {
        self.file_id
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Sets the mode that goes with `perms`; another start of the same owner may have had others.
    pub(crate) fn set_perms(&self, perms: u32) -> Result<(), Error> {
        nix::sys::stat::fchmod(
            &self.file,
            nix::sys::stat::Mode::from_bits_truncate(lock_file_mode(perms)),
        )
        .map_err(|errno| Error::system(&self.channel, format!("chmod {}", self.path), errno))
    }

    /// Takes the lock of the first of `bytes` that is free.
    pub(crate) fn take_first(&self, bytes: impl IntoIterator<Item = i64>) -> Result<LockAttempt, Error> {
        let failed = |errno| Error::system(&self.channel, format!("lock {}", self.path), errno);
        let again = files::open(&self.path, true)
            .map_err(|error| files::open_error(&self.channel, &self.path, "use", &error))?;
        let Some(again) = again else {
            return Ok(LockAttempt::NameChanged);
        };
        if files::file_id(&again).map_err(failed)? != self.file_id {
            return Ok(LockAttempt::NameChanged);
        }
        for byte in bytes {
            if lock::try_lock(&again, byte).map_err(failed)? {
                return OfdLock::keep(again)
                    .map(|kept| LockAttempt::Lock(byte, kept))
                    .map_err(failed);
            }
        }
        Ok(LockAttempt::ByOthers)
    }

    /// Whether somebody holds `byte`. When the kernel does not say, somebody does: nothing is taken away on a guess.
    pub(crate) fn is_locked(&self, byte: i64) -> bool {
        lock::is_locked(&self.file, byte).unwrap_or(true)
    }

    /// Takes the semaphore if it is to be had within [`PATIENCE`], and goes on without it if not; see [`Held`].
    pub(crate) fn acquire(&self) -> Held<'_> {
        let mut turn = sync::lock(&self.turn);
        self.repair_kind();
        let taken = self.semaphore.try_wait()
            || match turn.taken_since {
                None => {
                    let got_it = self.semaphore.wait(PATIENCE);
                    if !got_it {
                        // Relaxed: only the count matters.
                        self.timeouts.fetch_add(1, Ordering::Relaxed);
                        self.faults.add(SemaphoreFault::Held);
                        turn.taken_since = Some(Instant::now());
                    }
                    got_it
                }
                // Another short holder may have it just now: it is waited for once more before it is put back.
                Some(since) if since.elapsed() > STUCK => {
                    self.semaphore.wait(PATIENCE) || {
                        self.release();
                        self.semaphore.try_wait()
                    }
                }
                Some(_) => false,
            };
        if taken {
            turn.taken_since = None;
        }
        Held {
            lock_file: self,
            _turn: turn,
            taken,
        }
    }

    fn repair_kind(&self) {
        if self.semaphore.repair_kind() {
            self.faults.add(SemaphoreFault::Damaged);
        }
    }

    /// Brings the semaphore to exactly 1.
    fn release(&self) {
        match self.semaphore.release() {
            SemaphoreState::Held => {}
            SemaphoreState::Posted => self.faults.add(SemaphoreFault::Posted),
            SemaphoreState::Invalid => self.faults.add(SemaphoreFault::Damaged),
        }
    }

    /// Puts a semaphore back that has been taken for too long, or damaged; for when nothing is published that would.
    pub(crate) fn mend(&self) {
        self.repair_kind();
        let since = sync::lock(&self.turn).taken_since;
        if since.is_some_and(|since| since.elapsed() > STUCK) {
            drop(self.acquire());
        }
    }

    /// How often a holder took longer than [`PATIENCE`].
    pub(crate) fn timeouts(&self) -> u64 {
        self.timeouts.load(Ordering::Relaxed)
    }
}

/// The semaphore, held or gone around; given back with the value 1 on drop.
pub(crate) struct Held<'a> {
    lock_file: &'a LockFile,
    _turn: MutexGuard<'a, Turn>,
    taken: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.lock_file.release();
        }
    }
}
