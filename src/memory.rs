//! The one thing about a GstMemory that the bindings cannot do.

use gst::ffi;

/// The memory type of everything that `gst::Memory::from_slice` and `from_mut_slice` make, slots among it.
const WRAPPED: &gst::glib::GStr = gst::glib::gstr!("RustGlobalAllocatorMemory");

/// Whether `memory` can be a slot, or a part of one.
pub(crate) fn may_be_slot(memory: &gst::MemoryRef) -> bool {
    memory.is_type(WRAPPED)
}

/// Marks `memory`, and what it is a part of, as read-only: whoever maps a buffer with it for writing gets a copy then.
pub(crate) fn mark_read_only(memory: &gst::MemoryRef) {
    let mut pointer = memory.as_ptr().cast_mut();
    while !pointer.is_null() {
        // SAFETY: `memory` is alive, and a memory keeps its parent alive. The flags are a plain integer that GStreamer
        // itself changes without a lock; the atomic access keeps two publishers of one memory apart.
        unsafe {
            let flags = &raw mut (*pointer).mini_object.flags;
            core::sync::atomic::AtomicU32::from_ptr(flags)
                .fetch_or(ffi::GST_MEMORY_FLAG_READONLY, core::sync::atomic::Ordering::Relaxed);
            pointer = (*pointer).parent;
        }
    }
}
