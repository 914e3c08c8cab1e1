// SPDX-License-Identifier: MIT OR Apache-2.0

//! Recognises memory that may be a slot, and marks memory as read-only. The bindings have no function to mark memory.

use std::sync::atomic::{AtomicU32, Ordering};

use gst::ffi;

/// The memory type of all memories that `gst::Memory::from_slice` and `from_mut_slice` make. Slots have this type.
const WRAPPED: &gst::glib::GStr = gst::glib::gstr!("RustGlobalAllocatorMemory");

/// Whether `memory` can be a slot or a part of one.
pub(crate) fn may_be_slot(memory: &gst::MemoryRef) -> bool {
    memory.is_type(WRAPPED)
}

/// Marks `memory` and its parents as read-only, so that mapping a buffer with this memory for writing makes a copy.
pub(crate) fn mark_read_only(memory: &gst::MemoryRef) {
    let mut pointer = memory.as_ptr().cast_mut();
    while !pointer.is_null() {
        // SAFETY: `memory` is alive, and a memory keeps its parent alive. The flags are a plain integer, which
        // GStreamer changes without a lock.
        unsafe {
            let flags = &raw mut (*pointer).mini_object.flags;
            // Relaxed: the bit publishes no other data. The access is atomic only so that two publishers of one memory
            // do not lose each other's bits.
            AtomicU32::from_ptr(flags).fetch_or(ffi::GST_MEMORY_FLAG_READONLY, Ordering::Relaxed);
            pointer = (*pointer).parent;
        }
    }
}
