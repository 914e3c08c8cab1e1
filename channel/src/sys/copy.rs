// SPDX-License-Identifier: MIT OR Apache-2.0

//! The copy of a frame into its slot, for frames that were not drawn in shared memory.

/// Frames of at least this many bytes are copied past the caches.
///
/// An ordinary store first reads the cache line that it is going to write; a streaming store does not read it. A frame
/// of this size is no longer in the caches when the camera's next frame comes; a smaller frame often still is. The
/// threshold was measured at 60 frames a second and at full speed, with copies into five slots that another core reads.
/// See docs/PERFORMANCE.md, "The one copy".
const STREAMING_COPY_SIZE: usize = 2 << 20;

/// Copies as much of the first slice as fits into the second.
pub type CopyFn = fn(&[u8], &mut [u8]);

/// The fastest function to copy the parts of a frame of `size` bytes into a [`Slot`](crate::Slot).
///
/// The copied bytes are ordered before the stores of [`Writer::publish`](crate::Writer::publish), but not before any
/// other store. A thread that waits for another store may not see the copied bytes.
///
/// # Examples
///
/// ```
/// let (picture, mut slot) = ([7; 64 * 64], [0; 64 * 64]);
/// let copy = rsshm_channel::copy_to_slot(picture.len());
/// // A picture with padding is copied row by row.
/// for (from, to) in picture.chunks(64).zip(slot.chunks_mut(64)) {
///     copy(from, to);
/// }
/// assert_eq!(picture, slot);
/// ```
pub fn copy_to_slot(size: usize) -> CopyFn {
    if size < STREAMING_COPY_SIZE { plain } else { streaming }
}

fn plain(from: &[u8], to: &mut [u8]) {
    let size = from.len().min(to.len());
    to[..size].copy_from_slice(&from[..size]);
}

#[cfg(target_arch = "x86_64")]
fn streaming(from: &[u8], to: &mut [u8]) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    /// The size in bytes of a cache line, which the processor writes to memory as a whole.
    const LINE_SIZE: usize = 64;

    let size = from.len().min(to.len());
    let (from, to) = (&from[..size], &mut to[..size]);
    let begin = to.as_ptr().align_offset(LINE_SIZE).min(size);
    let lines = (size - begin) / LINE_SIZE;
    let end = begin + lines * LINE_SIZE;
    plain(&from[..begin], &mut to[..begin]);
    let source = from[begin..end].as_ptr().cast::<__m128i>();
    let target = to[begin..end].as_mut_ptr().cast::<__m128i>();
    for part in 0..lines * LINE_SIZE / size_of::<__m128i>() {
        // SAFETY: `source` and `target` point to `lines * LINE_SIZE` bytes each, so `part` is inside both. The target
        // is aligned to a line (`align_offset`); the source need not be aligned. Every x86-64 processor has SSE2.
        unsafe { _mm_stream_si128(target.add(part), _mm_loadu_si128(source.add(part))) };
    }
    plain(&from[end..], &mut to[end..]);
}

#[cfg(not(target_arch = "x86_64"))]
use plain as streaming;

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
        fn plain_and_streaming_copies_are_equal(
            from in prop::collection::vec(any::<u8>(), 0..1000),
            before in 0..70_usize,
            room in 0..1000_usize,
        ) {
            for copy in [plain, streaming] {
                let mut to = vec![1; before + room + 70];
                copy(&from, &mut to[before..before + room]);
                finish();
                let size = from.len().min(room);
                prop_assert!(to[before..before + size] == from[..size]);
                prop_assert!(to[..before].iter().chain(&to[before + size..]).all(|byte| *byte == 1));
            }
        }
    }
}
