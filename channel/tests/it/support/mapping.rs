// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shared memory that a test maps itself, as a peer that keeps to no rule does.

use std::{
    fs::File,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64},
};

use nix::{
    errno::Errno,
    libc::c_void,
    sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap},
};
use rsshm_channel::layout::{ReaderEntry, SlotRecord, Status};

/// A type whose values may be in memory that other processes change.
///
/// # Safety
/// The type consists of atomics, and any bytes are a valid value of it.
pub unsafe trait Atomics {}

// SAFETY: this is an atomic.
unsafe impl Atomics for AtomicU8 {}
// SAFETY: this is an atomic.
unsafe impl Atomics for AtomicU32 {}
// SAFETY: this is an atomic.
unsafe impl Atomics for AtomicU64 {}
// SAFETY: the fields are atomics, and padding that no code reads.
unsafe impl Atomics for Status {}
// SAFETY: the fields are atomics, or arrays and structures of them.
unsafe impl Atomics for ReaderEntry {}
// SAFETY: the fields are atomics, or arrays of them.
unsafe impl Atomics for SlotRecord {}

/// A mapping of shared memory.
pub struct SharedMapping {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: any thread may use or unmap the memory, which is accessed only through atomics.
unsafe impl Send for SharedMapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps the first `length` bytes of a file.
    pub fn of_file(file: &File, length: usize, protection: ProtFlags) -> nix::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start, length })
    }

    /// Maps `length` bytes of new memory.
    pub fn new_memory(length: usize) -> nix::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start, length })
    }

    /// Asks the kernel to let this process also write to the mapping.
    pub fn make_writable(&self) -> nix::Result<()> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the whole range is this mapping. More permissions make no reference into it invalid.
        unsafe { mprotect(self.start, self.length.get(), protection) }
    }

    /// The value at `offset`. A mapping without permission to write allows only loads.
    #[track_caller]
    pub fn at<T: Atomics>(&self, offset: usize) -> &T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.length.get()),
            "{offset} is not inside the {} bytes of the mapping",
            self.length
        );
        // SAFETY: the assertion checked that the offset is inside the mapping.
        let value = unsafe { self.start.byte_add(offset) }.cast::<T>();
        assert!(value.is_aligned(), "{offset} is not aligned");
        // SAFETY: the assertions checked bounds and alignment. The mapping lives as long as `self`, any bytes are a valid
        // value, and other processes may change atomics.
        unsafe { value.as_ref() }
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and all references into it have ended, because they borrow `self`.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}
