// SPDX-License-Identifier: MIT OR Apache-2.0

//! Open-file-description locks on single bytes of a file.

use std::{num::NonZeroUsize, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::mman::ProtFlags,
};

use super::{fork::ForkGuard, mapping::Pages};

fn byte_lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0, // F_OFD_* require 0 here (fcntl(2))
    }
}

/// Tries to take a write lock on `byte` for the open file description of `file`; `false` if another description has a
/// lock on this byte.
pub(crate) fn try_lock(file: &OwnedFd, byte: i64) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_WRLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether an open file description other than that of `file` has a write lock on `byte`.
///
/// Read locks do not count, because every process with read permission can take them.
pub(crate) fn is_locked(file: &OwnedFd, byte: i64) -> nix::Result<bool> {
    let mut lock = byte_lock(libc::F_RDLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type == libc::F_WRLCK as libc::c_short)
}

/// The locks of an open file description, kept until this value is dropped or the process ends.
///
/// A mapping keeps the open file description alive; no file descriptor stays open. A forked child does not inherit the
/// mapping. Therefore a child that outlives its parent does not hold the parent's locks. There is one gap of a few
/// microseconds: a child that is forked between the opening of the file and the end of [`keep`](Self::keep) has the
/// file descriptor until it executes another program.
#[derive(Debug)]
pub(crate) struct OfdLock {
    /// `Some` until this value is dropped.
    page: Option<Pages>,
    fork_guard: ForkGuard,
}

impl OfdLock {
    /// Keeps the open file description of `file`, which has the locks, and closes the file descriptor.
    pub(crate) fn keep(file: OwnedFd) -> nix::Result<Self> {
        let page = Pages::map(&file, 0, NonZeroUsize::MIN, ProtFlags::PROT_NONE)?;
        page.exclude_from_forks()?;
        Ok(Self {
            page: Some(page),
            fork_guard: ForkGuard::new(),
        })
    }
}

impl Drop for OfdLock {
    fn drop(&mut self) {
        // A forked child does not have the mapping. In the child, the memory at this address belongs to something else
        // and must stay mapped.
        if self.fork_guard.is_inherited() {
            std::mem::forget(self.page.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::{
            mman::{MapFlags, mmap_anonymous},
            wait::{WaitStatus, waitpid},
        },
        unistd::{ForkResult, fork},
    };

    use super::*;

    /// A forked child maps memory at the address of its parent's lock, then drops its copy of the lock. The child's
    /// memory stays mapped.
    #[test]
    fn forked_child_keeps_its_own_mapping() {
        let kept = OfdLock::keep(std::fs::File::open("/proc/self/exe").unwrap().into()).unwrap();
        // SAFETY: the child makes system calls only, and ends with `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let address = kept.page.as_ref().map(|page| page.start().addr());
                let length = NonZeroUsize::MIN;
                let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
                let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
                // SAFETY: MAP_FIXED_NOREPLACE makes a new mapping where there is none, or fails.
                let page = unsafe { mmap_anonymous(address, length, protection, flags) };
                let page = page.expect("the child has not inherited the mapping");
                drop(kept);
                // SAFETY: the page was mapped just now. If the drop unmapped it by mistake, the child dies of SIGSEGV
                // and the test fails.
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
