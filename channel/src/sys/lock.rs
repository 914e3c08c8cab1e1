//! Open-file-description locks on single bytes of a file.

use std::{os::fd::OwnedFd, ptr::NonNull};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap},
};

use super::fork::forks;

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
pub(crate) struct OfdLock {
    page: NonNull<libc::c_void>,
    length: usize,
    /// In which process of a chain of forks it was mapped.
    forks: u32,
}

// SAFETY: the page is never read or written, only unmapped once, by whichever thread drops the owner.
unsafe impl Send for OfdLock {}
// SAFETY: as above; nothing is done with the page through a shared reference.
unsafe impl Sync for OfdLock {}

impl OfdLock {
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

impl Drop for OfdLock {
    fn drop(&mut self) {
        // A forked child has not got the mapping; whatever lies at its address there is somebody else's.
        if self.forks != forks() {
            return;
        }
        // SAFETY: mapped in `keep` by this process, unmapped only here, and nobody has its address.
        let _ = unsafe { munmap(self.page, self.length) };
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
        let kept = OfdLock::keep(std::fs::File::open("/proc/self/exe").unwrap().into()).unwrap();
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
