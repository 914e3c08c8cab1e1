//! System calls that nix does not wrap, and those whose safety needs an argument.

use core::sync::atomic::{AtomicU32, Ordering};
use std::{
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap},
    time::{ClockId, clock_gettime},
};

/// CLOCK_MONOTONIC in nanoseconds: the time that all programs of a machine share.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// How many forks lie between this process and the one that first asked. What a child finds in its copy of the memory, a
/// seat or a channel, is still its parent's; values remember this count and do nothing when they find another.
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static WATCH: std::sync::Once = std::sync::Once::new();
    extern "C" fn in_child() {
        // Relaxed: a child begins with one thread.
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCH.call_once(|| {
        // SAFETY: the handler does one atomic addition, which is allowed after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Sleeps while `word` is `expected`, at most for `timeout`; returns early for no reason now and then. `true` when it slept
/// until then and nobody woke it.
///
/// The word may lie in a read-only mapping (futex(2)). The time is one that nobody sets.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `word` is a valid, aligned 32-bit word for the length of the call, `timeout` outlives it, and the kernel
    // writes neither. Any failure (EAGAIN, EINTR, ETIMEDOUT) means "look again", which every caller does.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
            core::ptr::null::<u32>(),
            0u32,
        )
    };
    result != 0 && Errno::last() == Errno::ETIMEDOUT
}

/// Wakes as many as `most` who sleep on `word`, in any process.
pub(crate) fn futex_wake(word: &AtomicU32, most: i32) {
    // SAFETY: `word` is a valid, aligned 32-bit word; FUTEX_WAKE only takes its address.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, most);
    }
}

/// The most sleepers that one ring wakes: all readers, and as many observers. Whoever may read a segment can put any number
/// of sleepers there, which the writer would have to wake at each frame. Who is not woken finds out by itself.
const WAKE_AT_MOST: i32 = 128;

/// Wakes those who sleep on `word`, in any process.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    futex_wake(word, WAKE_AT_MOST);
}

fn byte_lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0, // F_OFD_* want 0 here (fcntl(2))
    }
}

/// Tries to put a write lock of `file`'s open file description on `byte`; `false` when another description has one.
pub(crate) fn try_lock(file: &OwnedFd, byte: i64) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_WRLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether another open file description than `file`'s has a write lock on `byte`. Read locks, which anybody who may
/// read the file can take, do not answer.
pub(crate) fn is_locked(file: &OwnedFd, byte: i64) -> nix::Result<bool> {
    let mut lock = byte_lock(libc::F_RDLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type == libc::F_WRLCK as libc::c_short)
}

/// Keeps the locks of an open file description for as long as it lives, and no longer than this process.
///
/// The description is kept by a mapping that a forked child does not inherit, and by no file descriptor, so a child that
/// outlives its parent does not hold the parent's locks. (A child forked in the few microseconds between the opening of
/// the file and the end of [`keep`](Self::keep), and not executing anything else, still has the descriptor.)
#[derive(Debug)]
pub(crate) struct KeptLock {
    page: NonNull<libc::c_void>,
    length: usize,
    /// In which process of a chain of forks it was mapped.
    forks: u32,
}

// SAFETY: the page is never read or written, only unmapped once, by whichever thread drops the owner.
unsafe impl Send for KeptLock {}
// SAFETY: as above; nothing is done with the page through a shared reference.
unsafe impl Sync for KeptLock {}

impl KeptLock {
    /// Takes over the description of `file`, which carries the locks.
    pub(crate) fn keep(file: OwnedFd) -> nix::Result<Self> {
        let length = core::num::NonZeroUsize::MIN;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of this program.
        let page = unsafe { mmap(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_SHARED, &file, 0)? };
        let kept = Self {
            page,
            length: length.get(),
            forks: forks(),
        };
        // SAFETY: the page was mapped just now and belongs to `kept` alone.
        unsafe { madvise(kept.page, kept.length, MmapAdvise::MADV_DONTFORK)? };
        Ok(kept)
    }
}

impl Drop for KeptLock {
    fn drop(&mut self) {
        // A forked child has not got the mapping; whatever lies at its address there is somebody else's.
        if self.forks != forks() {
            return;
        }
        // SAFETY: mapped in `keep` by this process, unmapped only here, and nobody has its address.
        let _ = unsafe { munmap(self.page, self.length) };
    }
}

/// Reads `target.len()` bytes of `file` at `offset`; `false` when the file ends before.
pub(crate) fn read_exactly(file: impl AsFd, target: &mut [u8], offset: u64) -> nix::Result<bool> {
    let mut done = 0;
    while done < target.len() {
        match nix::sys::uio::pread(&file, &mut target[done..], (offset + done as u64) as i64) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Makes `file` reach from `offset` to `offset + length` with memory behind every byte, or fails and leaves it be.
pub(crate) fn back_with_memory(file: &OwnedFd, offset: u64, length: u64) -> nix::Result<()> {
    let (offset, length) = (
        i64::try_from(offset).map_err(|_| Errno::EFBIG)?,
        i64::try_from(length).map_err(|_| Errno::EFBIG)?,
    );
    loop {
        match nix::fcntl::posix_fallocate(file, offset, length) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Sends a signal to this very thread, before it goes on; SIGKILL and SIGSTOP take the process with it.
#[cfg(debug_assertions)]
pub(crate) fn raise(signal: libc::c_int) {
    // SAFETY: the call takes a number only.
    unsafe { libc::raise(signal) };
}

/// The calls on a semaphore in shared memory, whose `sem_t` is what `sem_open` of any program maps too.
#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
pub(crate) mod semaphore {
    use std::io;

    use super::{Duration, Errno, libc, monotonic_ns};

    unsafe extern "C" {
        /// glibc 2.30 and later; as `sem_timedwait`, by a clock that nobody sets back.
        fn sem_clockwait(
            semaphore: *mut libc::sem_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> libc::c_int;
    }

    /// A semaphore inside a mapping that lives as long as this does; the constructor's caller sees to that.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct RawSemaphore(*mut libc::sem_t);

    // SAFETY: the functions of a process-shared semaphore may be called from any thread (sem_overview(7)).
    unsafe impl Send for RawSemaphore {}
    // SAFETY: as above.
    unsafe impl Sync for RawSemaphore {}

    impl RawSemaphore {
        /// # Safety
        /// `at` is the address of a `sem_t`, aligned and mapped for reading and writing for as long as the value is used.
        pub(crate) unsafe fn new(at: *mut libc::sem_t) -> Self {
            Self(at)
        }

        /// Makes it a new semaphore, shared between processes. Only before anybody else can know it.
        pub(crate) fn initialise(self, value: u32) -> nix::Result<()> {
            // SAFETY: the address is valid (see `new`).
            Errno::result(unsafe { libc::sem_init(self.0, 1, value) }).map(drop)
        }

        pub(crate) fn try_wait(self) -> bool {
            // SAFETY: the address is valid (see `new`).
            unsafe { libc::sem_trywait(self.0) == 0 }
        }

        /// Waits at most for `timeout`.
        pub(crate) fn wait(self, timeout: Duration) -> bool {
            let until = monotonic_ns().saturating_add(timeout.as_nanos() as u64);
            let until = libc::timespec {
                tv_sec: (until / 1_000_000_000) as libc::time_t,
                tv_nsec: (until % 1_000_000_000) as libc::c_long,
            };
            loop {
                // SAFETY: the address is valid (see `new`) and `until` outlives the call.
                if unsafe { sem_clockwait(self.0, libc::CLOCK_MONOTONIC, &raw const until) } == 0 {
                    return true;
                }
                if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                    return false;
                }
            }
        }

        pub(crate) fn post(self) {
            // SAFETY: the address is valid (see `new`). EOVERFLOW needs no answer: the value is brought to 1 next.
            unsafe { libc::sem_post(self.0) };
        }

        pub(crate) fn value(self) -> i32 {
            let mut value = 0;
            // SAFETY: the address is valid (see `new`), and `value` is a local.
            unsafe { libc::sem_getvalue(self.0, &raw mut value) };
            value
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use nix::{
        sys::{
            mman::mmap_anonymous,
            wait::{WaitStatus, waitpid},
        },
        unistd::{ForkResult, fork},
    };

    use super::*;

    /// What a forked child has mapped where its parent's lock lies stays mapped when the child drops its copy of the lock.
    #[test]
    fn a_forked_child_unmaps_nothing_of_its_own() {
        let kept = KeptLock::keep(std::fs::File::open("/proc/self/exe").unwrap().into()).unwrap();
        // SAFETY: the child does system calls only.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let address = NonZeroUsize::new(kept.page.addr().get());
                let length = NonZeroUsize::MIN;
                let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
                let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
                // SAFETY: a new mapping where there is none, or a failure.
                let page = unsafe { mmap_anonymous(address, length, protection, flags) };
                let page = page.expect("the parent's mapping is not here");
                drop(kept);
                // SAFETY: the page was mapped just now, if it has not been unmapped by mistake.
                unsafe {
                    page.cast::<u8>().write_volatile(1);
                    libc::_exit(0)
                }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
        }
    }
}
