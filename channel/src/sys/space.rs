// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory for the bytes of the files of channels, and the limits of this memory.

use std::{fmt, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate, posix_fallocate},
    sys::{
        resource::{Resource, getrlimit},
        stat::fstat,
        statvfs::statvfs,
    },
    unistd::{Whence, ftruncate, lseek},
};

use super::{directory::Directory, errno, memory_limit};

/// The most bytes that are committed between two looks at the memory limits. Two writers of one control group may
/// commit at the same moment. Each of them then takes at most this much of memory that the other one counts on.
const STEP: u64 = 4 << 20;

/// What limits the shared memory of a writer.
///
/// # Examples
/// ```
/// use rsshm_channel::SpaceLimit;
///
/// let limit = SpaceLimit::ControlGroup("/sys/fs/cgroup/memory.max".to_owned());
/// assert!(limit.to_string().contains("memory.max"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceLimit {
    /// The size of the file system that has the [`Directory`].
    SharedMemory,
    /// The memory limit of a control group (cgroups(7)) of this process. The value is the path of the file with the
    /// limit.
    ControlGroup(String),
    /// The largest file that this process may make (RLIMIT_FSIZE).
    FileSize,
}

impl SpaceLimit {
    /// What a user can do about the limit.
    pub fn remedy(&self) -> String {
        match self {
            Self::SharedMemory => {
                let directory = Directory::current();
                let container = if directory.is_chosen() {
                    "the option size of the volume"
                } else {
                    "docker run --shm-size=..."
                };
                format!("make it larger (mount -o remount,size=... {directory}, or {container})")
            }
            Self::ControlGroup(_) => {
                "raise the limit (docker run --memory=..., MemoryHigh= and MemoryMax= of a systemd \
                                      unit, resources.limits.memory of a Kubernetes container)"
                    .to_owned()
            }
            Self::FileSize => "raise the limit (ulimit -f, or LimitFSIZE= of a systemd unit)".to_owned(),
        }
    }
}

impl fmt::Display for SpaceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedMemory => Directory::current().fmt(f),
            Self::ControlGroup(file) => write!(f, "the memory limit {file}"),
            Self::FileSize => write!(f, "the limit of the size of a file"),
        }
    }
}

/// How much memory the tightest limit leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The limit.
    pub limit: SpaceLimit,
    /// The limit in bytes.
    pub total: u64,
    /// The bytes that a writer may still commit. Of a memory limit, a part is reserved for other memory of the control
    /// group, so that the group never reaches its limit because of a writer.
    pub free: u64,
}

impl Space {
    /// What the tightest of all limits leaves now. The call reads several files, so it is too slow for each frame.
    ///
    /// # Examples
    ///
    /// ```
    /// let space = rsshm_channel::Space::now();
    /// println!("{} leaves {} of {} bytes", space.limit, space.free, space.total);
    /// ```
    pub fn now() -> Self {
        let shm = Self::in_file_system();
        match Self::in_memory() {
            Some(memory) if memory.free < shm.free => memory,
            _ => shm,
        }
    }

    /// What the file system of the [`Directory`] leaves to this user.
    pub(crate) fn in_file_system() -> Self {
        let (free, total) = statvfs(Directory::current().path()).map_or((0, 0), |vfs| {
            let block = vfs.fragment_size();
            (
                vfs.blocks_available().saturating_mul(block),
                vfs.blocks().saturating_mul(block),
            )
        });
        Self {
            limit: SpaceLimit::SharedMemory,
            total,
            free,
        }
    }

    /// What the memory limits leave; `None` if they are unknown.
    fn in_memory() -> Option<Self> {
        memory_limit::tightest().map(|memory| Self {
            limit: SpaceLimit::ControlGroup(memory.file),
            total: memory.total,
            free: memory.free,
        })
    }
}

/// Why memory was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// A limit leaves too little memory.
    NoMemory(Space),
    /// A call failed for another reason.
    Failed(Errno),
}

impl CommitError {
    /// The error of a failed [`allocate`].
    pub(crate) fn new(errno: Errno) -> Self {
        if errno == Errno::EFBIG {
            let total = max_file_size();
            Self::NoMemory(Space {
                limit: SpaceLimit::FileSize,
                total,
                free: total,
            })
        } else if errno::is_out_of_memory(errno) {
            Self::NoMemory(Space::in_file_system())
        } else {
            Self::Failed(errno)
        }
    }
}

/// Extends `file` to `offset + length` and commits memory for every byte from `offset` on, if the memory limits leave
/// enough. If the call fails, the file has the same size as before, and no memory from `offset` on.
pub(crate) fn commit_memory(file: &OwnedFd, offset: u64, length: u64) -> Result<(), CommitError> {
    let former_size = fstat(file).map_err(CommitError::Failed)?.st_size;
    let end = offset.saturating_add(length);
    let mut done = offset;
    while done < end {
        let step = match Space::in_memory() {
            Some(space) if space.free < end - done => Err(CommitError::NoMemory(space)),
            _ => allocate(file, done, STEP.min(end - done)).map_err(CommitError::new),
        };
        if let Err(error) = step {
            if done > offset {
                release_memory(file, offset, done - offset);
                let _ = ftruncate(file, former_size);
            }
            return Err(error);
        }
        done += STEP;
    }
    Ok(())
}

/// Extends `file` to `offset + length` and commits memory for every byte from `offset` on, without a look at the memory
/// limits. If the call fails, the file is unchanged.
pub(crate) fn allocate(file: &OwnedFd, offset: u64, length: u64) -> nix::Result<()> {
    // For a file beyond the limit, the kernel would send SIGXFSZ, which ends the process.
    if offset.saturating_add(length) > max_file_size() {
        return Err(Errno::EFBIG);
    }
    let (offset, length) = (
        i64::try_from(offset).map_err(|_| Errno::EFBIG)?,
        i64::try_from(length).map_err(|_| Errno::EFBIG)?,
    );
    loop {
        match posix_fallocate(file, offset, length) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Whether something was written into a range of `file`. Memory that was only committed does not count.
pub(crate) fn has_data(file: &OwnedFd, offset: u64, length: u64) -> bool {
    let Ok(start) = i64::try_from(offset) else {
        return false;
    };
    // No caller uses the position of the file, which this call changes.
    let next = lseek(file, start, Whence::SeekData).unwrap_or(i64::MAX);
    u64::try_from(next).is_ok_and(|next| next < offset.saturating_add(length))
}

/// Releases the memory of a range of `file`. The size of the file stays.
pub(crate) fn release_memory(file: &OwnedFd, offset: u64, length: u64) {
    let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE | FallocateFlags::FALLOC_FL_PUNCH_HOLE;
    // On failure, the file keeps the memory until it is removed.
    let _ = fallocate(file, flags, offset as i64, length as i64);
}

fn max_file_size() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _hard)| soft)
}
