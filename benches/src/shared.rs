//! A page that processes share, and the futex in it.

use std::{
    fs::File,
    num::NonZeroUsize,
    os::fd::AsFd,
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap},
};

/// What the futex's producer tells its consumers.
#[repr(C, align(64))]
pub struct Page {
    /// Counts the frames, modulo 2^32; what is slept on.
    pub word: AtomicU32,
    /// How many frames there were before this one.
    pub number: AtomicU64,
    pub sent_ns: AtomicU64,
    pub first: AtomicU64,
    pub end: AtomicU64,
}

/// A [`Page`] that is mapped until the process ends.
pub fn map(path: &Path) -> std::io::Result<&'static Page> {
    let length = NonZeroUsize::MIN.saturating_add(size_of::<Page>() - 1);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_len(length.get() as u64)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: A new mapping, nowhere in particular, replaces none.
    let page: NonNull<Page> = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file.as_fd(), 0) }?.cast();
    // SAFETY: It is never unmapped, begins at a page, is as long as a Page, and holds atomics alone, for which all bytes are valid.
    // The file is this run's own and keeps its length.
    Ok(unsafe { page.as_ref() })
}

/// Sleeps while the word is `value`.
pub fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: The word is mapped as long as it is borrowed; no timeout, no second word.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            std::ptr::null::<libc::timespec>(),
        );
    }
}

/// Wakes all who sleep on the word.
pub fn wake(word: &AtomicU32) {
    // SAFETY: The word is mapped as long as it is borrowed.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
