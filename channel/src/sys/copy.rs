//! The one copy of a frame that was not drawn in shared memory.

/// From so many bytes on a frame is copied past the caches: an ordinary store reads the line first that it is going to write,
/// and between two frames of a camera lines of such frames have left the caches anyway. Smaller ones have not always.
/// Measured with copies into five slots and another core that reads them, at 60 frames a second and as fast as can be:
/// docs/PERFORMANCE.md, The one copy.
const PAST_THE_CACHES: usize = 2 << 20;

/// Copies as much of the first as fits into the second.
pub type CopyFn = fn(&[u8], &mut [u8]);

/// How the parts of a frame of `size` bytes are best copied into a [`Slot`](crate::Slot). What is copied so is in order with
/// [`Writer::publish`](crate::Writer::publish), and with nothing else that another thread looks at.
pub fn copy_to_slot(size: usize) -> CopyFn {
    if size < PAST_THE_CACHES { plain } else { stream }
}

fn plain(from: &[u8], to: &mut [u8]) {
    let size = from.len().min(to.len());
    to[..size].copy_from_slice(&from[..size]);
}

#[cfg(target_arch = "x86_64")]
fn stream(from: &[u8], to: &mut [u8]) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    /// What the processor writes to memory at once.
    const LINE: usize = 64;

    let size = from.len().min(to.len());
    let (from, to) = (&from[..size], &mut to[..size]);
    let begin = to.as_ptr().align_offset(LINE).min(size);
    let lines = (size - begin) / LINE;
    let end = begin + lines * LINE;
    plain(&from[..begin], &mut to[..begin]);
    let source = from[begin..end].as_ptr().cast::<__m128i>();
    let target = to[begin..end].as_mut_ptr().cast::<__m128i>();
    for part in 0..lines * LINE / size_of::<__m128i>() {
        // SAFETY: both ranges have so many parts, from `begin` to `end`. The source need not be aligned, the target is, to a
        // whole line. SSE2 is there on every x86-64.
        unsafe { _mm_stream_si128(target.add(part), _mm_loadu_si128(source.add(part))) };
    }
    plain(&from[end..], &mut to[end..]);
}

#[cfg(not(target_arch = "x86_64"))]
use plain as stream;

/// Everything copied so far comes before everything stored after this, for whoever looks.
pub(crate) fn finish() {
    // Streaming stores keep no order, not even with a release store.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a fence touches nothing. SSE is there on every x86-64.
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
        fn both_ways_copy_the_same(from in prop::collection::vec(any::<u8>(), 0..1000), before in 0..70_usize, room in 0..1000_usize) {
            for copy in [plain, stream] {
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
