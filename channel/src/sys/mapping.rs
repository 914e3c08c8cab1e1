//! A mapping of shared memory.
//!
//! Other processes change these bytes at any time, so the module hands out atomics and raw pointers, and references to
//! plain bytes never.

use core::{
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};
use std::os::fd::AsFd;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// A type made of atomics only: any bytes are a value of it, and others may change it while it is looked at.
///
/// # Safety
/// The type is `repr(C)`, has atomics and padding integers only, no `Drop`, and is valid for all byte patterns.
pub(crate) unsafe trait Shared {}

// SAFETY: atomic integers accept every byte pattern.
unsafe impl Shared for AtomicU64 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as the atomics it is made of.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Bytes of a file, shared with everybody who maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is only reached through atomics and raw pointers, whose users argue for themselves.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `file` from `offset` on. Parts beyond the end of the file may be mapped, but touching
    /// them before the file has grown is fatal (SIGBUS): callers ask the file's size first.
    pub(crate) fn new(file: impl AsFd, offset: u64, length: u64, writable: bool) -> nix::Result<Self> {
        let (Ok(offset), Some(length)) = (
            i64::try_from(offset),
            usize::try_from(length).ok().and_then(NonZeroUsize::new),
        ) else {
            return Err(nix::errno::Errno::EINVAL);
        };
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of this program.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, offset)? };
        Ok(Self {
            start: start.cast(),
            length: length.get(),
        })
    }

    /// Leaves the bytes out of core dumps: pictures are large and tell little.
    pub(crate) fn leave_out_of_dumps(&self) {
        // SAFETY: the range is this mapping; the advice changes no byte of it. It is only advice: failure is harmless.
        let _ = unsafe { madvise(self.start.cast(), self.length, MmapAdvise::MADV_DONTDUMP) };
    }

    /// Enters the pages of a range into the page table now, for writing, where else each would be a fault when it is first
    /// touched. It is only advice: older systems than Linux 5.14 do not know it.
    pub(crate) fn prefault(&self, offset: u64, length: u64) {
        if let Some(start) = self.range(offset, length) {
            // SAFETY: the range is inside this mapping; no byte of it changes. Where the file does not reach so far that is an
            // error, not a signal.
            let _ = unsafe { madvise(start.cast(), length as usize, MmapAdvise::MADV_POPULATE_WRITE) };
        }
    }

    /// The value of type `T` at `offset`, `None` when it is not aligned or not all inside.
    pub(crate) fn at<T: Shared>(&self, offset: u64) -> Option<&T> {
        let pointer = self.range(offset, size_of::<T>() as u64)?.cast::<T>();
        if !pointer.is_aligned() {
            return None;
        }
        // SAFETY: inside the mapping (checked by `range`), which lives as long as `self`; aligned (checked above); the
        // trait promises that any bytes are a `T` and that others may change them.
        Some(unsafe { pointer.as_ref() })
    }

    /// Where `length` bytes from `offset` on lie, `None` when they are not all inside.
    pub(crate) fn range(&self, offset: u64, length: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        // SAFETY: `offset` is at most the mapping's length, so the pointer stays inside it or one past its end.
        (end <= self.length as u64).then(|| unsafe { self.start.add(offset as usize) })
    }

    /// The offset of an address in this mapping.
    pub(crate) fn offset_of(&self, pointer: *const u8) -> Option<u64> {
        let offset = pointer.addr().checked_sub(self.start.addr().get())?;
        (offset < self.length).then_some(offset as u64)
    }

    /// Copies bytes in. `false` when they do not fit at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(target) = self.range(offset, bytes.len() as u64) else {
            return false;
        };
        // SAFETY: the target is inside the mapping (checked by `range`) and no Rust reference to plain bytes of a
        // mapping exists, so `bytes` cannot overlap it. Called only for parts that nobody may look at yet.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }

    /// The bytes from `offset` on as a slice, for the moment of one call into code that wants a slice.
    ///
    /// # Safety
    /// The file reaches to their end, and nobody changes the bytes while the slice is used: the slot is pinned.
    pub(crate) unsafe fn slice(&self, offset: u64, length: u64) -> &[u8] {
        match self.range(offset, length) {
            // SAFETY: inside the mapping; the caller promises the rest.
            Some(start) => unsafe { core::slice::from_raw_parts(start.as_ptr(), length as usize) },
            None => &[],
        }
    }

    /// As [`slice`](Self::slice), for writing.
    ///
    /// # Safety
    /// The file reaches to their end, and nobody else in this process uses the bytes: the slot is claimed by the caller.
    #[allow(clippy::mut_from_ref)] // the claim of the slot is what makes it unique
    pub(crate) unsafe fn slice_mut(&self, offset: u64, length: u64) -> &mut [u8] {
        match self.range(offset, length) {
            // SAFETY: inside the mapping; the caller promises the rest.
            Some(start) => unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), length as usize) },
            None => &mut [],
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped only here; every reference handed out borrowed from `self`.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}
