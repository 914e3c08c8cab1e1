//! Memory that processes share with nothing to guard it, and the futex in it.

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
    sys::mman::{MapFlags, ProtFlags, mmap},
};

use crate::frame;

/// As many frames in turn as a producer with GStreamer has of its own.
const FRAMES: usize = 8;
/// Where the frames begin.
const HEAD: usize = 4096;

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

/// A [`Page`] and the frames behind it, mapped until the process ends.
pub struct Memory {
    pub page: &'static Page,
    words: &'static [AtomicU64],
    frame_bytes: usize,
}

impl Memory {
    pub fn map(path: &Path, frame_bytes: usize) -> std::io::Result<Self> {
        let length = HEAD + FRAMES * frame_bytes;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // Memory that is not there is an error here, and not a signal later.
        posix_fallocate(&file, 0, length as i64)?;
        let length = NonZeroUsize::MIN.saturating_add(length - 1);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, nowhere in particular, replaces none.
        let start: NonNull<u8> =
            unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file.as_fd(), 0) }?.cast();
        // SAFETY: it is never unmapped, begins at a page, is as long as HEAD and the frames, and holds atomics alone, for which
        // all bytes are valid. The file is this run's own and keeps its length.
        let (page, words) = unsafe {
            let words = start.add(HEAD).cast::<AtomicU64>().as_ptr();
            let count = FRAMES * frame_bytes / size_of::<AtomicU64>();
            (start.cast::<Page>().as_ref(), std::slice::from_raw_parts(words, count))
        };
        Ok(Self {
            page,
            words,
            frame_bytes,
        })
    }

    fn word(&self, number: u64, place: usize) -> Option<&'static AtomicU64> {
        let frame = number as usize % FRAMES * self.frame_bytes;
        self.words.get((frame + place) / size_of::<AtomicU64>())
    }

    /// Draws a frame.
    pub fn draw(&self, number: u64) {
        frame::draw_words(self.frame_bytes, number, |place, value| {
            if let Some(word) = self.word(number, place) {
                // Relaxed: the futex's word is stored afterwards.
                word.store(value, Ordering::Relaxed);
            }
        });
    }

    /// Whether it is whole: nobody keeps the producer from the frame of a slow consumer.
    pub fn is_whole(&self, number: u64) -> bool {
        // Relaxed: the futex's word was loaded before.
        let get = |place| self.word(number, place).map(|word| word.load(Ordering::Relaxed));
        frame::wrong_word(self.frame_bytes, number, get).is_none()
    }
}

/// Sleeps while the word is `value`.
pub fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: the word is mapped as long as it is borrowed; no timeout, no second word.
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
    // SAFETY: the word is mapped as long as it is borrowed.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
