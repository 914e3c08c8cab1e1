// SPDX-License-Identifier: MIT OR Apache-2.0

//! The copy of a frame into its slot, for frames that were not drawn in shared memory.

use std::time::Duration;

/// Smaller frames are always copied with ordinary stores.
#[cfg(target_arch = "x86_64")]
const STREAMING_COPY_SIZE: u64 = 2 << 20;

/// Frames of this size and more are always copied past the caches. A writer at full speed uses at least two slots and
/// two buffers of upstream in turn, and four such frames are more than the share of a processor's L3 cache.
///
/// An AMD EPYC with 32 MiB of L3 cache, which other machines share, copied and read 4K frames at full speed in these
/// times (in µs, as in the table of [`CACHED_TIME`]):
///
/// | slots | age, ms | ordinary | streaming |
/// |---|---|---|---|
/// | 3 | 6 | 1474 + 539 | 1070 + 566 |
/// | 8 | 18 | 1472 + 526 | 1105 + 602 |
///
/// The writer is the slower one of the two, so its time decides how many frames pass.
#[cfg(target_arch = "x86_64")]
const UNCACHED_SIZE: u64 = 8 << 20;

/// How long the caches keep the bytes of a slot after a copy into it. After this time, a frame is copied past the
/// caches.
///
/// An ordinary store first reads the cache line that it changes. If the line is still in a cache, the store is fast,
/// and so is the reader that finds the frame there. If the line is only in memory, a streaming store saves this read.
/// So the age of the slot decides. It is the number of slots in use, divided by the rate. Therefore it includes the
/// rate and the working set, and it needs no size of a cache, which a virtual machine shares with others.
///
/// The table is in µs: the copy, plus the time in which another core reads every byte of the frame. It is for NV12, on
/// an Intel Xeon of 2023 (2 MiB of L2 cache a core, a shared L3 cache). An AMD EPYC with 32 MiB of L3 cache chooses the
/// same way for five slots: it read 3881 frames a second of 1080p with ordinary stores and 2043 with streaming ones.
///
/// The streaming copies of the table had no prefetch; now they are faster ([`PREFETCH_DISTANCE`]), and
/// [`UNCACHED_SIZE`] decides for 4K.
///
/// | frames | slots | age, ms | ordinary | streaming | faster |
/// |---|---|---|---|---|---|
/// | 1080p, at once | 3 | 2 | 232 + 181 | 252 + 420 | ordinary |
/// | 1080p, at once | 5 | 3 | 227 + 185 | 218 + 416 | ordinary |
/// | 1080p, 480 fps | 3 | 6 | 325 + 222 | 396 + 483 | ordinary |
/// | 4K, at once | 3 | 9 | 1382 + 886 | 1520 + 1775 | ordinary |
/// | 1080p, at once | 16 | 10 | 269 + 279 | 201 + 414 | ordinary |
/// | 1080p, 240 fps | 3 | 13 | 353 + 275 | 363 + 458 | ordinary |
/// | 1080p, 240 fps | 5 | 21 | 512 + 483 | 418 + 541 | streaming |
/// | 1080p, at once | 26 | 24 | 376 + 373 | 208 + 426 | streaming |
/// | 1080p, 120 fps | 3 | 25 | 569 + 527 | 430 + 538 | streaming |
/// | 4K, at once | 8 | 37 | 1911 + 1798 | 1380 + 1710 | streaming |
/// | 1080p, 60 fps | 3 | 50 | 512 + 433 | 424 + 517 | equal |
/// | 4K, 60 fps | 3 | 50 | 2262 + 2030 | 1603 + 1878 | streaming |
/// | 1080p, 60 fps | 5 | 83 | 553 + 490 | 430 + 548 | streaming |
/// | 720p, 60 fps | 5 | 83 | 239 + 173 | 186 + 234 | equal |
///
/// If both are equal, the streaming copy still makes the frame arrive earlier. But the frames of 720p and less, below
/// [`STREAMING_COPY_SIZE`], stay near the caches, where several readers read them faster.
#[cfg(target_arch = "x86_64")]
const CACHED_TIME: Duration = Duration::from_millis(20);

/// How a frame is copied into a [`Slot`](crate::Slot). [`Slot::copier`](crate::Slot::copier) chooses the fastest way.
///
/// # Examples
///
/// ```
/// use rsshm_channel::Copier;
///
/// let (picture, mut slot) = ([7; 64 * 64], [0; 64 * 64]);
/// // A picture with padding is copied row by row.
/// for (from, to) in picture.chunks(64).zip(slot.chunks_mut(64)) {
///     Copier::Ordinary.copy(from, to);
/// }
/// assert_eq!(picture, slot);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copier {
    /// The copy of the compiler or of the C library.
    Ordinary,
    /// A copy past the caches, if the processor is an x86-64. On other processors it is the ordinary copy.
    Streaming,
}

impl Copier {
    /// The fastest way to copy a frame of `size` bytes into a slot. `age` is the time since the last copy into this
    /// slot, or `None` if there was none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn fastest(size: u64, age: impl FnOnce() -> Option<Duration>) -> Self {
        // The age of a small frame is not asked for, because a look at the clock would be a part of its cost.
        let is_cached = || size < UNCACHED_SIZE && age().is_some_and(|age| age < CACHED_TIME);
        if size < STREAMING_COPY_SIZE || is_cached() {
            Self::Ordinary
        } else {
            Self::Streaming
        }
    }

    /// The fastest way to copy a frame. No other processor than an x86-64 has a second one here.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn fastest(_size: u64, _age: impl FnOnce() -> Option<Duration>) -> Self {
        Self::Ordinary
    }

    /// Copies as much of `from` as fits into `to`.
    ///
    /// The copied bytes are ordered before the stores of [`Writer::publish`](crate::Writer::publish), but not before
    /// any other store. A thread that waits for another store may not see the copied bytes.
    pub fn copy(self, from: &[u8], to: &mut [u8]) {
        match self {
            Self::Ordinary => ordinary(from, to),
            Self::Streaming => streaming(from, to),
        }
    }
}

fn ordinary(from: &[u8], to: &mut [u8]) {
    let size = from.len().min(to.len());
    to[..size].copy_from_slice(&from[..size]);
}

#[cfg(target_arch = "x86_64")]
fn streaming(from: &[u8], to: &mut [u8]) {
    let size = from.len().min(to.len());
    let (from, to) = (&from[..size], &mut to[..size]);
    let begin = to.as_ptr().align_offset(LINE_SIZE).min(size);
    ordinary(&from[..begin], &mut to[..begin]);
    let (from, to) = (&from[begin..], &mut to[begin..]);
    let end = from.len() / LINE_SIZE * LINE_SIZE;
    for line in (0..end).step_by(LINE_SIZE) {
        prefetch_once(from.as_ptr().wrapping_add(line + PREFETCH_DISTANCE));
        stream_line(&from[line..], &mut to[line..]);
    }
    ordinary(&from[end..], &mut to[end..]);
}

/// The size in bytes of a cache line, which the processor writes to memory as a whole.
#[cfg(target_arch = "x86_64")]
const LINE_SIZE: usize = 64;

/// How many bytes ahead a streaming copy prefetches its source.
///
/// The processor itself reads ahead only up to the end of a page. The prefetch is for one use, so the source does not
/// push other lines out of the caches. The AMD EPYC of [`UNCACHED_SIZE`] copied frames at full speed in these times (in
/// µs, medians of five runs, with three slots and a reader of a word in each page):
///
/// | frames | no prefetch | no prefetch, four pages in turn | prefetch |
/// |---|---|---|---|
/// | 1080p | 219 | 275 | 164 |
/// | 4K | 1256 | 1254 | 938 |
///
/// Distances of 1024 to 8192 bytes gave similar times, longer ones worse. At 60 frames a second, all three were equal.
#[cfg(target_arch = "x86_64")]
const PREFETCH_DISTANCE: usize = 4096;

/// Starts to read the cache line at `source`, for one use. The address need not be valid.
#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_once(source: *const u8) {
    use core::arch::x86_64::{_MM_HINT_NTA, _mm_prefetch};

    // SAFETY: a prefetch of an invalid address has no effect. Every x86-64 processor has SSE.
    unsafe { _mm_prefetch::<_MM_HINT_NTA>(source.cast()) };
}

/// Copies the first line. `to` is aligned to a line.
#[cfg(target_arch = "x86_64")]
#[inline]
fn stream_line(from: &[u8], to: &mut [u8]) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    let (from, to) = (&from[..LINE_SIZE], &mut to[..LINE_SIZE]);
    let (source, target) = (from.as_ptr().cast::<__m128i>(), to.as_mut_ptr().cast::<__m128i>());
    debug_assert!(target.is_aligned());
    for part in 0..LINE_SIZE / size_of::<__m128i>() {
        // SAFETY: both slices have a whole line, so `part` is inside both. The target is aligned to a line, because all
        // callers' offsets from an aligned place are whole lines; the source need not be aligned. Every x86-64
        // processor has SSE2.
        unsafe { _mm_stream_si128(target.add(part), _mm_loadu_si128(source.add(part))) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
use ordinary as streaming;

/// Orders every copy that this thread made earlier before every store that it makes after this call. The order holds
/// for all threads and processes.
pub(crate) fn finish() {
    // A release store alone does not order earlier streaming stores.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a fence touches no memory. Every x86-64 processor has SSE.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ordinary_and_streaming_copies_are_equal(
            size in 0..40_000_usize,
            before in 0..70_usize,
            room in 0..40_000_usize,
        ) {
            // No two bytes at a distance of whole lines or pages are equal, up to 251 of them.
            let from: Vec<u8> = (0..size).map(|at| ((at + at / 64 + at / 4096) % 251) as u8).collect();
            for copier in [Copier::Ordinary, Copier::Streaming] {
                let mut to = vec![1; before + room + 70];
                copier.copy(&from, &mut to[before..before + room]);
                finish();
                let size = from.len().min(room);
                prop_assert!(to[before..before + size] == from[..size]);
                prop_assert!(to[..before].iter().chain(&to[before + size..]).all(|byte| *byte == 1));
            }
        }
    }

    #[test]
    fn copies_are_right_at_every_alignment() {
        let source: Vec<u8> = (0..1024_usize).map(|at| (at * 7 % 251) as u8).collect();
        for (from_offset, to_offset) in (0..65).flat_map(|from| (0..65).map(move |to| (from, to))) {
            for (copier, size) in [Copier::Ordinary, Copier::Streaming]
                .into_iter()
                .flat_map(|copier| [0, 1, 63, 64, 65, 200, 640].map(|size| (copier, size)))
            {
                let from = &source[from_offset..from_offset + size];
                let mut to = [0xff; 1024];
                copier.copy(from, &mut to[to_offset..to_offset + size]);
                finish();
                assert!(
                    to[to_offset..to_offset + size] == *from,
                    "{copier:?} {from_offset} {to_offset} {size}"
                );
                let around = to[..to_offset].iter().chain(&to[to_offset + size..]);
                assert!(
                    around.into_iter().all(|byte| *byte == 0xff),
                    "{copier:?} {from_offset} {to_offset} {size}"
                );
            }
        }
    }

    /// The bytes of a frame of NV12.
    const HD: u64 = 1280 * 720 * 3 / 2;
    const FULL_HD: u64 = 1920 * 1080 * 3 / 2;
    const ULTRA_HD: u64 = 3840 * 2160 * 3 / 2;

    /// The choice for a writer of `rate` frames a second that uses so many slots in turn.
    fn choice(size: u64, slots: u32, rate: f64) -> Copier {
        Copier::fastest(size, || Some(Duration::from_secs_f64(f64::from(slots) / rate)))
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn age_of_the_slot_chooses_the_copy() {
        for size in [FULL_HD, ULTRA_HD] {
            for slots in [2, 3, 5, 8, 26] {
                assert_eq!(choice(size, slots, 60.0), Copier::Streaming, "{size} {slots}");
            }
            assert_eq!(choice(size, 8, 240.0), Copier::Streaming, "{size}");
            assert_eq!(Copier::fastest(size, || None), Copier::Streaming);
        }
        assert_eq!(choice(FULL_HD, 3, 240.0), Copier::Ordinary);
        // At full speed, the rates of the measured table.
        assert_eq!(choice(FULL_HD, 5, 2136.0), Copier::Ordinary);
        assert_eq!(choice(FULL_HD, 26, 1086.0), Copier::Streaming);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn frame_that_fills_the_caches_is_copied_past_them() {
        assert_eq!(choice(ULTRA_HD, 2, 1000.0), Copier::Streaming);
        assert_eq!(choice(UNCACHED_SIZE - 1, 2, 1000.0), Copier::Ordinary);
    }

    #[test]
    fn small_frame_needs_no_age() {
        let copier = Copier::fastest(HD, || panic!("the age is not needed"));
        assert_eq!(copier, Copier::Ordinary);
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[test]
    fn other_processors_have_one_copy() {
        for size in [HD, FULL_HD, ULTRA_HD] {
            assert_eq!(choice(size, 5, 60.0), Copier::Ordinary);
        }
    }
}
