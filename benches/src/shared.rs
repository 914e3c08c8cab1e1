// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shared memory that contains a futex and frames. Nothing protects a frame from being overwritten while it is read.

use std::{
    fs::File,
    num::NonZeroUsize,
    os::fd::AsFd,
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::{
    fcntl::posix_fallocate,
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::{case::Reading, frame};

/// Number of frames in the memory, which are used in turn. A GStreamer producer in the mode `foreign` has as many
/// buffers.
const FRAME_COUNT: usize = 8;
/// Offset at which the frames begin.
const FRAMES_OFFSET: usize = 4096;

/// The data by which the producer of the transport `futex` announces a frame to its consumers.
#[repr(C, align(64))]
pub struct Header {
    /// The futex word, which counts the frames modulo 2^32. Consumers sleep on it.
    pub word: AtomicU32,
    /// The seq of the newest frame.
    pub seq: AtomicU64,
    pub sent_ns: AtomicU64,
    pub first: AtomicU64,
    pub end: AtomicU64,
}

/// A mapped [`Header`] and the frames behind it. Dropping this value unmaps them.
pub struct SharedMemory {
    start: NonNull<u8>,
    length: NonZeroUsize,
    frame_size: usize,
}

impl SharedMemory {
    pub fn map(path: &Path, frame_size: usize) -> std::io::Result<Self> {
        let length = FRAMES_OFFSET + FRAME_COUNT * frame_size;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // This returns an error if there is too little memory. Without it, the first write would raise SIGBUS instead.
        posix_fallocate(&file, 0, length as i64)?;
        let length = NonZeroUsize::MIN.saturating_add(length - 1);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address of this new mapping, so it replaces no other.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file.as_fd(), 0) }?.cast();
        Ok(Self {
            start,
            length,
            frame_size,
        })
    }

    pub fn header(&self) -> &Header {
        // SAFETY: the mapping lives as long as `self`, begins at a page, and is longer than a header. A header holds
        // only atomics, for which all bytes are valid. The file belongs to this run and keeps its length.
        unsafe { self.start.cast::<Header>().as_ref() }
    }

    /// The words of all frames.
    fn words(&self) -> &[AtomicU64] {
        let count = FRAME_COUNT * self.frame_size / size_of::<AtomicU64>();
        // SAFETY: the mapping lives as long as `self`, and all bytes are valid for atomics. The frames begin at
        // FRAMES_OFFSET, which is a multiple of the alignment, and `map` made the mapping long enough for `count`
        // words.
        unsafe {
            let first = self.start.add(FRAMES_OFFSET).cast::<AtomicU64>();
            std::slice::from_raw_parts(first.as_ptr(), count)
        }
    }

    fn word(&self, seq: u64, offset: usize) -> Option<&AtomicU64> {
        let frame = seq as usize % FRAME_COUNT * self.frame_size;
        self.words().get((frame + offset) / size_of::<AtomicU64>())
    }

    /// Draws the frame `seq`.
    pub fn draw(&self, seq: u64) {
        frame::draw_words(self.frame_size, seq, |offset, value| {
            if let Some(word) = self.word(seq, offset) {
                // Relaxed: the release store of the futex word comes later and publishes the frame.
                word.store(value, Ordering::Relaxed);
            }
        });
    }

    /// Whether all words of a frame belong to the frame `seq`. If a consumer is slow, the producer may already have
    /// drawn a later frame there.
    fn is_intact(&self, seq: u64) -> bool {
        // Relaxed: the acquire load of the futex word came before.
        let load = |offset| self.word(seq, offset).map(|word| word.load(Ordering::Relaxed));
        frame::first_wrong_word(self.frame_size, seq, load).is_none()
    }

    /// Reads as much of the frame `seq` as the case wants. The result depends on all bytes that are read.
    pub fn read(&self, seq: u64, reading: Reading) -> u64 {
        // Relaxed: the acquire load of the futex word came before.
        let load = |offset| self.word(seq, offset).map_or(0, |word| word.load(Ordering::Relaxed));
        match reading {
            Reading::Few => 0,
            Reading::Words => self.is_intact(seq).into(),
            Reading::All => (0..self.frame_size)
                .step_by(size_of::<AtomicU64>())
                .map(load)
                .fold(0, u64::wrapping_add),
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made. All references to it borrow `self`, so none is left.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}

/// Sleeps while `word` has the value `value`. It may wake earlier.
pub fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: the word is mapped as long as it is borrowed. There is no timeout and no second word.
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

/// Wakes all processes that sleep on `word`.
pub fn wake(word: &AtomicU32) {
    // SAFETY: the word is mapped as long as it is borrowed.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
