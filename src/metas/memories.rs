// SPDX-License-Identifier: MIT OR Apache-2.0

//! The boundaries of the memories of a buffer.

use gst_video::VideoMeta;

use super::{Format, kind, record::Input};

/// The maximum number of memories of a buffer. GStreamer merges memories beyond this limit, and has no constant for it.
const MAX_MEMORIES: usize = 16;

/// Whether the frame will consist of the bytes of the memories of `buffer`, one after the other.
///
/// For raw video, this may be false: the frame has the default layout, and the buffer may have another one.
#[cold]
pub(super) fn are_kept(buffer: &gst::BufferRef, format: Format) -> bool {
    format
        .video
        .is_none_or(|info| buffer.size() == info.size() && buffer.meta::<VideoMeta>().is_none())
}

/// Appends the record with the sizes of the memories of `buffer`.
#[cold]
pub(super) fn encode(buffer: &gst::BufferRef, to: &mut Vec<u8>) {
    to.extend(kind::MEMORIES.to_ne_bytes());
    // The size is at most MAX_MEMORIES times 8, so it fits 16 bits.
    to.extend((buffer.n_memory() as u16 * 8).to_ne_bytes());
    for memory in buffer.iter_memories() {
        to.extend((memory.size() as u64).to_ne_bytes());
    }
}

/// Divides the single memory of the buffer into several memories, without a copy.
#[cold]
pub(super) fn decode(input: &mut Input) -> Option<()> {
    let buffer = &mut *input.buffer;
    let mut sizes = [0; MAX_MEMORIES];
    let (mut count, mut end) = (0, 0_usize);
    while !input.record.0.is_empty() {
        let size = usize::try_from(input.record.u64()?).ok()?;
        *sizes.get_mut(count)? = size;
        count += 1;
        end = end.checked_add(size)?;
    }
    // A frame by descriptor has its memories already.
    if count >= 2
        && buffer.n_memory() == count
        && buffer
            .iter_memories()
            .map(gst::MemoryRef::size)
            .eq(sizes[..count].iter().copied())
    {
        return Some(());
    }
    // A second record of memories is refused, because the first one has already divided the memory.
    if count < 2 || end != buffer.size() || buffer.n_memory() != 1 {
        return None;
    }
    let whole = buffer.peek_memory(0).to_owned();
    buffer.remove_all_memory();
    let mut offset = 0;
    for size in &sizes[..count] {
        buffer.append_memory(match size {
            // An empty part gets a new memory, because the bindings do not share an empty part behind the last byte.
            0 => gst::Memory::from_slice([]),
            _ => whole.share(offset..offset + size),
        });
        offset += size;
    }
    Some(())
}
