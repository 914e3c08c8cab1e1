// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mappings of shared memory.
//!
//! Other processes can change the bytes of a mapping at any time. Therefore a [`Mapping`] hands out atomics and raw
//! pointers. Only two functions return references to plain bytes, [`Mapping::slice`] and [`Mapping::slice_mut`]. Each
//! has one caller: a reader borrows the bytes of a slot that it has pinned, and a writer borrows the bytes of a slot
//! that it has claimed. Both callers rely on the pin rule (`protocol/pins.rs`), which every correct peer obeys. A peer
//! with write permission that ignores the rule can still change the bytes, so peers with write permission are trusted.

use core::{
    ffi::c_void,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};
use std::os::fd::AsFd;

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap},
};

/// A type that consists of atomics. Every byte pattern is a valid value, and other processes may change the value at
/// any time.
///
/// # Safety
/// The type is `repr(C)`, has only atomics and padding integers that no code reads, has no `Drop`, and is valid for all
/// byte patterns.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer accepts every byte pattern.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an atomic integer accepts every byte pattern.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an array has no bytes beside its elements, which are `Shared`.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Pages of a file in this process's address space, unmapped on drop. The type gives no access to their bytes.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: `Pages` owns an address range, which is the same in all threads, and munmap may be called from any of them.
unsafe impl Send for Pages {}
// SAFETY: a shared reference gives the address and the length only, and both never change.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `length` bytes of `file` from `offset` on.
    pub(super) fn map(file: impl AsFd, offset: i64, length: NonZeroUsize, protection: ProtFlags) -> nix::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses replaces no memory of this program.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, offset)? };
        Ok(Self { start, length })
    }

    /// The address of the first byte.
    pub(super) fn start(&self) -> NonNull<c_void> {
        self.start
    }

    /// Excludes the pages from forked children.
    pub(super) fn exclude_from_forks(&self) -> nix::Result<()> {
        // SAFETY: the range is exactly these pages. In this process the advice changes nothing. In a child the
        // addresses are unmapped, but no code touches them: only `OfdLock` gives this advice, and it never touches its
        // pages.
        unsafe { madvise(self.start, self.length.get(), MmapAdvise::MADV_DONTFORK) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages were mapped in `map` and are unmapped only here. References into the pages borrow from
        // their owner, so none is left.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// Bytes of a file, shared with every other process that maps it.
///
/// A mapping is `Send` and `Sync`, because [`Pages`] is, and because the safe methods of a mapping give out only
/// atomics and raw pointers. The two unsafe methods return slices, and their callers promise that nobody else changes
/// the bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    pages: Pages,
}

impl Mapping {
    /// Maps `length` bytes of `file` from `offset` on.
    ///
    /// A mapping may be longer than the file, but touching a page beyond the file's end is fatal (SIGBUS). Callers
    /// check the file's size first.
    pub(crate) fn new(file: impl AsFd, offset: u64, length: u64, writable: bool) -> nix::Result<Self> {
        let (Ok(offset), Some(length)) = (
            i64::try_from(offset),
            usize::try_from(length).ok().and_then(NonZeroUsize::new),
        ) else {
            return Err(Errno::EINVAL);
        };
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, writable);
        let pages = Pages::map(file, offset, length, protection)?;
        Ok(Self { pages })
    }

    fn start(&self) -> NonNull<u8> {
        self.pages.start().cast()
    }

    fn length(&self) -> usize {
        self.pages.length.get()
    }

    /// Excludes the bytes from core dumps, because frames are large and rarely help to explain a crash.
    pub(crate) fn exclude_from_dumps(&self) {
        // SAFETY: the range is this mapping, and the advice changes no byte of it. A failure is harmless, because the
        // call is only advice.
        let _ = unsafe { madvise(self.pages.start(), self.length(), MmapAdvise::MADV_DONTDUMP) };
    }

    /// Enters the pages of a range into the page table now, for writing. Otherwise the first write to each page causes
    /// a page fault. A failure is harmless; Linux before 5.14 always fails, because it does not know this advice.
    pub(crate) fn prefault(&self, offset: u64, length: u64) {
        if let Some(start) = self.range(offset, length) {
            // SAFETY: the range is inside this mapping; no byte of it changes. Beyond the end of the file, the call
            // returns an error and does not raise a signal.
            let _ = unsafe { madvise(start.cast(), length as usize, MmapAdvise::MADV_POPULATE_WRITE) };
        }
    }

    /// The value of type `T` at `offset`; `None` if it is not aligned, or not entirely inside the mapping.
    pub(crate) fn at<T: Shared>(&self, offset: u64) -> Option<&T> {
        let pointer = self.range(offset, size_of::<T>() as u64)?.cast::<T>();
        if !pointer.is_aligned() {
            return None;
        }
        // SAFETY: the value is inside the mapping (checked by `range`), which lives as long as `self`. It is aligned
        // (checked above). `Shared` promises that any bytes are a valid `T`, and that other processes may change them.
        Some(unsafe { pointer.as_ref() })
    }

    /// The address of the `length` bytes at `offset`; `None` if they are not entirely inside the mapping.
    pub(crate) fn range(&self, offset: u64, length: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        // SAFETY: `offset` is at most the mapping's length, so the pointer stays inside it or one past its end.
        (end <= self.length() as u64).then(|| unsafe { self.start().add(offset as usize) })
    }

    /// The offset of an address in this mapping; `None` if the address is outside the mapping.
    pub(crate) fn offset_of(&self, pointer: *const u8) -> Option<u64> {
        let offset = pointer.addr().checked_sub(self.start().addr().get())?;
        (offset < self.length()).then_some(offset as u64)
    }

    /// Copies bytes to `offset`; `false` if they do not fit into the mapping.
    ///
    /// Callers write only to parts that no other process can find yet: a segment before it has its name, or a frame's
    /// record and metadata before the run's tail moves. The file of the failpoints is an exception: several processes
    /// may write the failpoints' names to it at the same time. All of them write equal bytes, and this crate never
    /// reads the names.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(target) = self.range(offset, bytes.len() as u64) else {
            return false;
        };
        // SAFETY: the target is inside the mapping (checked by `range`). `bytes` cannot overlap it: the only slices of
        // a mapping are the bytes of frames, and callers write only outside of them.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }

    /// The `length` bytes at `offset`; an empty slice if they are not entirely inside the mapping.
    ///
    /// # Safety
    /// The file must reach to the end of the bytes, and nobody may change them while the slice is used. The caller has
    /// pinned the slot that contains the bytes.
    pub(crate) unsafe fn slice(&self, offset: u64, length: u64) -> &[u8] {
        match self.range(offset, length) {
            // SAFETY: the range is inside the mapping (checked by `range`), and any bytes are `u8`s. The caller
            // promises that the file has these bytes, and that nobody changes them.
            Some(start) => unsafe { core::slice::from_raw_parts(start.as_ptr(), length as usize) },
            None => &[],
        }
    }

    /// Like [`slice`](Self::slice), but for writing.
    ///
    /// # Safety
    /// The file must reach to the end of the bytes, the mapping must be writable, and nobody else in this process may
    /// use the bytes. The caller has claimed the slot that contains the bytes.
    #[allow(clippy::mut_from_ref)] // the claim of the slot makes the reference unique
    pub(crate) unsafe fn slice_mut(&self, offset: u64, length: u64) -> &mut [u8] {
        match self.range(offset, length) {
            // SAFETY: the range is inside the mapping (checked by `range`), and any bytes are `u8`s. The caller
            // promises that the file has these bytes, and that nobody else in this process uses them.
            Some(start) => unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), length as usize) },
            None => &mut [],
        }
    }
}
