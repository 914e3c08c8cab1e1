// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer pool whose buffers are memfds, as those of a camera are dmabufs.

use std::{fs::File, os::fd::IntoRawFd};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_allocators::{FdAllocator, FdMemoryFlags, prelude::*};
use nix::sys::memfd::{MFdFlags, memfd_create};

glib::wrapper! {
    pub struct MemfdPool(ObjectSubclass<imp::MemfdPool>) @extends gst::BufferPool, gst::Object;
}

impl Default for MemfdPool {
    fn default() -> Self {
        glib::Object::new()
    }
}

/// A buffer in a new memfd of `size` bytes.
fn buffer_in_memfd(size: usize) -> Result<gst::Buffer, String> {
    let file = File::from(memfd_create("rsshm-bench", MFdFlags::MFD_CLOEXEC).map_err(|error| error.to_string())?);
    file.set_len(size as u64).map_err(|error| error.to_string())?;
    // The memory stays mapped in this process, so that the figures do not contain a mapping that a camera does not need.
    // SAFETY: the allocator owns the descriptor, and the file has this size.
    let memory = unsafe { FdAllocator::new().alloc_fd(file.into_raw_fd(), size, FdMemoryFlags::KEEP_MAPPED) }
        .map_err(|error| error.to_string())?;
    let mut buffer = gst::Buffer::new();
    buffer
        .get_mut()
        .ok_or("a new buffer is not writable")?
        .append_memory(memory);
    Ok(buffer)
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct MemfdPool;

    #[glib::object_subclass]
    impl ObjectSubclass for MemfdPool {
        const NAME: &'static str = "RsShmBenchMemfdPool";
        type Type = super::MemfdPool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for MemfdPool {}

    impl GstObjectImpl for MemfdPool {}

    impl BufferPoolImpl for MemfdPool {
        fn alloc_buffer(&self, _params: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
            let (_, size, ..) = self.obj().config().params().ok_or(gst::FlowError::Error)?;
            buffer_in_memfd(size as usize).map_err(|reason| {
                gst::error!(gst::CAT_RUST, imp = self, "a buffer cannot be made: {reason}");
                gst::FlowError::Error
            })
        }
    }
}
