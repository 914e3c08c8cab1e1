// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm_publish_info`: what a program says about a frame that it publishes.

use std::ptr;

use rsshm_channel::{FrameDescriptor, MAX_METADATA_SIZE, TIME_NONE, layout, monotonic_ns};

use crate::{
    arguments::{self, Sized32},
    status::{Failure, Status},
};

/// `RSSHM_TIME_NOW`: the time of the publish.
const TIME_NOW: u64 = u64::MAX - 1;

/// `RSSHM_DELTA`: the frame is not a keyframe.
const DELTA: u32 = 1;
/// `RSSHM_HEADER`: the frame is a header of the stream.
const HEADER: u32 = 1 << 1;
/// `RSSHM_KEEP`: the slot does not end with the publish.
const KEEP: u32 = 1 << 2;

/// `rsshm_publish_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CPublishInfo {
    struct_size: u32,
    flags: u32,
    pts_ns: u64,
    dts_ns: u64,
    duration_ns: u64,
    offset: u64,
    size: usize,
    metadata: *const u8,
    metadata_size: usize,
    offset_end: u64,
    seq: *mut u64,
    buffer_flags: u32,
    reserved: u32,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CPublishInfo {
    const NAME: &str = "rsshm_publish_info";
    const FIRST_SIZE: usize = 64;
}

impl CPublishInfo {
    const DEFAULT: Self = Self {
        struct_size: 0,
        flags: 0,
        pts_ns: TIME_NOW,
        dts_ns: TIME_NONE,
        duration_ns: TIME_NONE,
        offset: TIME_NONE,
        size: 0,
        metadata: ptr::null(),
        metadata_size: 0,
        offset_end: TIME_NONE,
        seq: ptr::null_mut(),
        buffer_flags: 0,
        reserved: 0,
    };

    /// How many bytes of a claim of `claimed` bytes the frame has.
    pub(crate) fn size_in(&self, claimed: usize) -> Result<usize, Failure> {
        match self.size {
            0 => Ok(claimed),
            size if size > claimed => Err(Failure::new(
                Status::Caps,
                format!("the frame has {size} bytes, more than the {claimed} of its claim"),
            )),
            size => Ok(size),
        }
    }

    /// Whether the slot does not end with the publish.
    pub(crate) fn keeps_slot(&self) -> bool {
        self.flags & KEEP != 0
    }

    /// The structure at `info`; the default if `info` is NULL. `flags` are those that the call knows.
    ///
    /// # Safety
    /// `info` is NULL, or points to a structure of the size in its first field, whose `seq` is NULL or a variable.
    unsafe fn read_with(info: *const Self, flags: u32) -> Result<Self, Failure> {
        if info.is_null() {
            return Ok(Self::DEFAULT);
        }
        // SAFETY: as the caller guarantees.
        let info = unsafe { arguments::read(info, Self::DEFAULT) }?;
        // SAFETY: as the caller guarantees.
        unsafe { info.store_seq(0) };
        if info.flags & !flags != 0 {
            return Err(Failure::argument(format!(
                "the flags of rsshm_publish_info are {:#x}, it may have RSSHM_DELTA, RSSHM_HEADER and, for a slot, RSSHM_KEEP",
                info.flags
            )));
        }
        if info.reserved != 0 {
            return Err(Failure::argument("the field reserved of rsshm_publish_info is not 0"));
        }
        Ok(info)
    }

    /// The structure at `info`, for a frame that is copied.
    ///
    /// # Safety
    /// As for [`read_with`](Self::read_with).
    pub(crate) unsafe fn read(info: *const Self) -> Result<Self, Failure> {
        // SAFETY: as the caller guarantees.
        unsafe { Self::read_with(info, DELTA | HEADER) }
    }

    /// The structure at `info`, for a frame in a slot.
    ///
    /// # Safety
    /// As for [`read_with`](Self::read_with).
    pub(crate) unsafe fn read_for_slot(info: *const Self) -> Result<Self, Failure> {
        // SAFETY: as the caller guarantees.
        unsafe { Self::read_with(info, DELTA | HEADER | KEEP) }
    }

    /// Stores the seq of the frame where the program wants it.
    ///
    /// # Safety
    /// `seq` is NULL or a variable.
    unsafe fn store_seq(&self, seq: u64) {
        if !self.seq.is_null() {
            // SAFETY: `seq` is not NULL, so the caller guarantees a variable.
            unsafe { self.seq.write_unaligned(seq) };
        }
    }

    /// Stores the seq of a frame that was published. Otherwise the status says why it was not.
    ///
    /// # Safety
    /// `seq` is NULL or a variable.
    pub(crate) unsafe fn finish(&self, published: Result<u64, Status>) -> Status {
        match published {
            Ok(seq) => {
                // SAFETY: as the caller guarantees.
                unsafe { self.store_seq(seq) };
                Status::Ok
            }
            Err(status) => status,
        }
    }

    /// The descriptor of a frame of `size` bytes.
    pub(crate) fn descriptor(&self, size: usize) -> FrameDescriptor {
        let time = |time: u64| if time == TIME_NOW { monotonic_ns() } else { time };
        let flag = |flag: u32, bit: u32| if self.flags & flag != 0 { bit } else { 0 };
        FrameDescriptor::new(size as u64)
            .with_pts(time(self.pts_ns))
            .with_dts(time(self.dts_ns))
            .with_duration(self.duration_ns)
            .with_offset(self.offset)
            .with_offset_end(self.offset_end)
            .with_flags(self.buffer_flags | flag(DELTA, layout::DELTA_UNIT) | flag(HEADER, layout::HEADER))
    }

    /// The metadata.
    ///
    /// # Safety
    /// The metadata is NULL, or can be read during `'a`.
    pub(crate) unsafe fn metadata<'a>(&self) -> Result<&'a [u8], Failure> {
        if self.metadata_size > MAX_METADATA_SIZE {
            return Err(Failure::argument(format!(
                "the metadata has {} bytes, a frame may have {MAX_METADATA_SIZE}",
                self.metadata_size
            )));
        }
        // SAFETY: as the caller guarantees.
        unsafe { arguments::bytes(self.metadata, self.metadata_size, "the metadata") }
    }
}
