// SPDX-License-Identifier: MIT OR Apache-2.0

//! Recognises memory that may be a slot, marks memory as read-only, and keeps values with memory. The bindings have no
//! functions for this.

use std::{
    os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use gst::{
    ffi,
    glib::{
        self,
        translate::{IntoGlib, from_glib_none},
    },
};
use gst_allocators::{DmaBufAllocator, DmaBufMemory, FdAllocator, FdMemoryFlags, FdMemoryRef, prelude::*};
use rsshm_channel::{Object, ObjectKind, ReceivedObject};

use crate::sync::lock;

/// The memory type of all memories that `gst::Memory::from_slice` and `from_mut_slice` make. Slots have this type.
const WRAPPED: &gst::glib::GStr = gst::glib::gstr!("RustGlobalAllocatorMemory");

/// What the memory of an allocator can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A slot or a part of one.
    Wrapped,
    /// Memory with a descriptor.
    WithDescriptor,
    Other,
}

/// The type of the allocator whose memory was last found to be of [`Kind::Other`]. GLib never uses the number of a type
/// again.
///
/// Relaxed: the number stands alone.
static OTHER: AtomicUsize = AtomicUsize::new(0);

/// What `memory` can be. Asking GStreamer takes about a hundred instructions, so this function remembers the usual answer.
pub(crate) fn kind(memory: &gst::MemoryRef) -> Kind {
    let Some(allocator) = memory.allocator() else {
        return Kind::Other;
    };
    let allocator = allocator.type_();
    if OTHER.load(Ordering::Relaxed) == allocator.into_glib() {
        return Kind::Other;
    }
    if memory.is_type(WRAPPED) {
        return Kind::Wrapped;
    }
    if allocator.is_a(FdAllocator::static_type()) {
        return Kind::WithDescriptor;
    }
    OTHER.store(allocator.into_glib(), Ordering::Relaxed);
    Kind::Other
}

/// What the first memory of `buffer` can be.
pub(crate) fn kind_of_first(buffer: &gst::BufferRef) -> Kind {
    if buffer.n_memory() == 0 {
        return Kind::Other;
    }
    kind(buffer.peek_memory(0))
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

/// The name under which a memory keeps its object.
static OBJECT: LazyLock<glib::Quark> = LazyLock::new(|| glib::Quark::from_str("rsshm-object"));
/// The name under which a memory keeps the frame that it belongs to.
static FRAME: LazyLock<glib::Quark> = LazyLock::new(|| glib::Quark::from_str("rsshm-frame"));

/// The allocators of the memory of objects.
static DMABUFS: LazyLock<DmaBufAllocator> = LazyLock::new(DmaBufAllocator::new);
static MEMFDS: LazyLock<FdAllocator> = LazyLock::new(FdAllocator::new);

/// Held while the object of a memory is looked up or replaced, because two sinks may share a memory.
static OBJECT_LOCK: Mutex<()> = Mutex::new(());

/// The object that was kept with `memory`.
pub(crate) fn object_of(memory: &gst::MemoryRef) -> Option<Object> {
    let _guard = lock(&OBJECT_LOCK);
    // SAFETY: the memory is alive. If there is a value under this name, `keep_object` has put it there. It is a pointer
    // from `Box<Object>`, and is freed only when it is replaced, under the lock, or with the memory.
    unsafe {
        let pointer = memory.as_ptr().cast_mut().cast();
        ffi::gst_mini_object_get_qdata(pointer, OBJECT.into_glib())
            .cast::<Object>()
            .as_ref()
            .cloned()
    }
}

/// Keeps an object with `memory`, until another one replaces it or the memory is freed.
pub(crate) fn keep_object(memory: &gst::MemoryRef, object: Object) {
    let _guard = lock(&OBJECT_LOCK);
    keep(memory, &OBJECT, object);
}

/// Keeps a frame as long as `memory` lives.
pub(crate) fn keep_frame<T: Send + 'static>(memory: &gst::MemoryRef, frame: T) {
    keep(memory, &FRAME, frame);
}

fn keep<T: Send + 'static>(memory: &gst::MemoryRef, name: &glib::Quark, value: T) {
    unsafe extern "C" fn free<T>(value: glib::ffi::gpointer) {
        // SAFETY: the value is the pointer below, and GStreamer calls this function once.
        drop(unsafe { Box::from_raw(value.cast::<T>()) });
    }
    let value = Box::into_raw(Box::new(value)).cast();
    // SAFETY: the memory is alive, and GStreamer guards its values with a lock. The value may be freed in any thread,
    // because it is `Send`.
    unsafe {
        ffi::gst_mini_object_set_qdata(
            memory.as_ptr().cast_mut().cast(),
            name.into_glib(),
            value,
            Some(free::<T>),
        );
    }
}

/// Whether all memories of a buffer are GstDmaBufMemory.
pub(crate) fn is_dmabuf(buffer: &gst::BufferRef) -> bool {
    let mut memories = buffer.iter_memories();
    buffer.n_memory() > 0 && memories.all(|memory| memory.downcast_memory_ref::<DmaBufMemory>().is_some())
}

/// The descriptor of a memory that has one.
pub(crate) fn descriptor_of(memory: &FdMemoryRef) -> Option<BorrowedFd<'_>> {
    let descriptor = memory.fd();
    // SAFETY: the memory owns the descriptor, and lives longer than this borrow.
    (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// A memory of `size` bytes in an object, which devices and the processor can use. It is mapped once. It owns its
/// descriptor, which is another one than that of `object`. With `is_dmabuf`, it is a GstDmaBufMemory in any case.
pub(crate) fn of_object(object: &ReceivedObject, is_dmabuf: bool) -> Option<gst::Memory> {
    let size = usize::try_from(object.size()).ok()?;
    let descriptor = object.as_fd().try_clone_to_owned().ok()?.into_raw_fd();
    let flags = FdMemoryFlags::KEEP_MAPPED;
    // SAFETY: the allocator owns the descriptor from here on, which is open and has this size. If the call fails, the
    // descriptor is closed below.
    let memory = unsafe {
        match object.kind() {
            _ if is_dmabuf => DMABUFS.alloc_dmabuf_with_flags(descriptor, size, flags),
            ObjectKind::Dmabuf => DMABUFS.alloc_dmabuf_with_flags(descriptor, size, flags),
            _ => MEMFDS.alloc_fd(descriptor, size, flags),
        }
    };
    if memory.is_err() {
        // SAFETY: the call has failed, so this function still owns the descriptor.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    memory.ok()
}

/// The pool that a buffer came from.
pub(crate) fn pool_of(buffer: &gst::BufferRef) -> Option<gst::BufferPool> {
    // SAFETY: a buffer that is in use keeps its pool alive, and the field does not change meanwhile.
    unsafe { from_glib_none((*buffer.as_ptr()).pool) }
}
