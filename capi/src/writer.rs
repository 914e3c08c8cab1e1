// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writers: the functions `rsshm_writer_...`.

use std::{
    ffi::{c_char, c_int},
    sync::Arc,
    time::Duration,
};

use rsshm_channel::{WriterOptions, video::VideoInfo};

use crate::{
    arguments::{self, Sized32},
    formats::pixels,
    frame::CPlane,
    handles::{self, Handle},
    publish_info::CPublishInfo,
    reader,
    slot::{CSlotInfo, SlotObject},
    status::{Failure, Status, enter},
    stream::MAX_PLANES,
    writing::{WriterObject, WriterSettings},
};

/// `RSSHM_LOSSLESS`: the writer waits for its slowest reader.
const LOSSLESS: u32 = 1;
/// `RSSHM_SPARE`: a claim without a free slot gets other memory.
const SPARE: u32 = 1 << 1;
/// `RSSHM_MESSAGES`: readers may send messages.
const MESSAGES: u32 = 1 << 2;
/// `RSSHM_FDS`: frames stay in the program's memfds and dmabufs.
const FDS: u32 = 1 << 3;
const WRITER_FLAGS: u32 = LOSSLESS | SPARE | MESSAGES | FDS;

/// `rsshm_writer_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CWriterOptions {
    struct_size: u32,
    flags: u32,
    perms: u32,
    max_slots: u32,
    stride_align: u32,
    spare_buffers: u32,
    max_wait_ns: i64,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CWriterOptions {
    const NAME: &str = "rsshm_writer_options";
    const FIRST_SIZE: usize = 16;
}

impl CWriterOptions {
    const DEFAULT: Self = Self {
        struct_size: 0,
        flags: 0,
        perms: 0,
        max_slots: 0,
        stride_align: 0,
        spare_buffers: 0,
        max_wait_ns: 0,
    };

    /// The settings that the structure describes.
    fn settings(&self) -> Result<WriterSettings, Failure> {
        if self.flags & !WRITER_FLAGS != 0 {
            return Err(Failure::argument(format!(
                "the flags of rsshm_writer_options are {:#x}, it may have RSSHM_LOSSLESS, RSSHM_SPARE, \
                 RSSHM_MESSAGES and RSSHM_FDS",
                self.flags
            )));
        }
        let publishes_objects = self.flags & FDS != 0;
        if self.spare_buffers != 0 && !publishes_objects {
            return Err(Failure::argument("spare_buffers is only for a writer with RSSHM_FDS"));
        }
        if publishes_objects && self.flags & (LOSSLESS | SPARE) != 0 {
            return Err(Failure::argument(
                "a writer with RSSHM_FDS can have neither RSSHM_LOSSLESS nor RSSHM_SPARE, because its buffers are scarce",
            ));
        }
        if self.stride_align != 0 && !(self.stride_align.is_power_of_two() && (4..=4096).contains(&self.stride_align)) {
            return Err(Failure::argument(format!(
                "stride_align is {}, it may be 0 or a power of 2 from 4 to 4096",
                self.stride_align
            )));
        }
        let max_wait_ns = u64::try_from(self.max_wait_ns).map_err(|_| {
            Failure::argument(format!(
                "max_wait_ns is {}, it may be 0 (no limit) or more",
                self.max_wait_ns
            ))
        })?;
        let mut options = WriterOptions::default()
            .max_slots(self.max_slots)
            .lossless(self.flags & LOSSLESS != 0)
            .accept_messages(self.flags & MESSAGES != 0);
        if self.perms != 0 {
            options = options.perms(self.perms);
        }
        Ok(WriterSettings {
            options,
            stride_align: self.stride_align,
            has_spare_memory: self.flags & SPARE != 0,
            max_wait: (max_wait_ns != 0).then(|| Duration::from_nanos(max_wait_ns)),
            spare_buffers: publishes_objects.then_some(self.spare_buffers),
        })
    }
}

/// `rsshm_writer_open`.
///
/// # Safety
/// `name` is NULL or a text that ends with NUL. `options` is NULL or a structure of the size in its first field.
/// `writer` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_open(
    name: *const c_char,
    options: *const CWriterOptions,
    writer: *mut Handle<WriterObject>,
) -> c_int {
    enter("rsshm_writer_open", || {
        arguments::check_out(writer, "the result")?;
        // SAFETY: `writer` is not NULL, so the caller guarantees a variable.
        unsafe { writer.write(Handle::NULL) };
        // SAFETY: as the caller guarantees.
        let name = unsafe { arguments::text(name, "the name of the channel") }?;
        let mut values = CWriterOptions::DEFAULT;
        if !options.is_null() {
            // SAFETY: as the caller guarantees.
            values = unsafe { arguments::read(options, values) }?;
        }
        let object = Arc::new(WriterObject::open(name, values.settings()?)?);
        let handle = handles::insert(Arc::clone(&object)).inspect_err(|_| object.close())?;
        // SAFETY: as above.
        unsafe { writer.write(handle) };
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_video`.
///
/// # Safety
/// `format` is NULL or a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_video(
    writer: Handle<WriterObject>,
    format: *const c_char,
    width: i32,
    height: i32,
    fps_n: i32,
    fps_d: i32,
) -> c_int {
    enter("rsshm_writer_video", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let format = unsafe { arguments::text(format, "the format") }?;
        let info = VideoInfo::new(
            format.parse()?,
            pixels(width, "the width")?,
            pixels(height, "the height")?,
            (fps_n, fps_d),
        )?;
        writer.set_caps(&info.to_caps(), 0)?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_caps`.
///
/// # Safety
/// `caps` is NULL or a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_caps(
    writer: Handle<WriterObject>,
    caps: *const c_char,
    frame_size: usize,
) -> c_int {
    enter("rsshm_writer_caps", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let caps = unsafe { arguments::text(caps, "the caps") }?;
        writer.set_caps(caps, frame_size)?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_claim`.
///
/// # Safety
/// `slot` is NULL or a variable. `info` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_claim(
    writer: Handle<WriterObject>,
    size: usize,
    slot: *mut Handle<SlotObject>,
    info: *mut CSlotInfo,
) -> c_int {
    enter("rsshm_writer_claim", || {
        arguments::check_out(slot, "the result")?;
        // SAFETY: `slot` is not NULL, so the caller guarantees a variable.
        unsafe { slot.write(Handle::NULL) };
        let writer = handles::get(writer)?;
        // The result is checked before the claim, so that no claim is lost.
        // SAFETY: as the caller guarantees.
        unsafe { arguments::check(info.cast_const()) }?;
        let object = match SlotObject::claim(&writer, size)? {
            Ok(object) => Arc::new(object),
            Err(status) => return Ok(status),
        };
        let handle = handles::insert(Arc::clone(&object))?;
        // SAFETY: as above.
        unsafe { slot.write(handle) };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(info, object.info()) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_write`.
///
/// # Safety
/// `planes` is NULL, or points to `plane_count` planes whose rows can be read. `info` is NULL, or points to a structure
/// of the size in its first field, whose metadata can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_write(
    writer: Handle<WriterObject>,
    planes: *const CPlane,
    plane_count: u32,
    info: *const CPublishInfo,
) -> c_int {
    enter("rsshm_writer_write", || {
        let writer = handles::get(writer)?;
        if planes.is_null() || plane_count == 0 {
            return Err(Failure::argument("there are no planes; pass at least one"));
        }
        if plane_count as usize > MAX_PLANES {
            return Err(Failure::argument(format!(
                "there are {plane_count} planes, a frame has at most {MAX_PLANES}"
            )));
        }
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) }?;
        // SAFETY: `planes` is not NULL, so the caller guarantees `plane_count` planes.
        let planes = unsafe { std::slice::from_raw_parts(planes, plane_count as usize) };
        // SAFETY: as the caller guarantees for the rows and for the metadata.
        unsafe { SlotObject::write_planes(&writer, planes, &info) }
    })
}

/// `rsshm_writer_write_bytes`.
///
/// # Safety
/// `data` is NULL, or points to `size` readable bytes. `info` is NULL, or points to a structure of the size in its first
/// field, whose metadata can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_write_bytes(
    writer: Handle<WriterObject>,
    data: *const u8,
    size: usize,
    info: *const CPublishInfo,
) -> c_int {
    enter("rsshm_writer_write_bytes", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) }?;
        // SAFETY: as the caller guarantees.
        let bytes = unsafe { arguments::bytes(data, size, "the data") }?;
        // SAFETY: as the caller guarantees for the metadata.
        unsafe { SlotObject::write_bytes(&writer, bytes, &info) }
    })
}

/// `rsshm_writer_end_of_stream`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_end_of_stream(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_end_of_stream", || {
        handles::get(writer)?.channel().end_of_stream();
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_readers`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_readers(writer: Handle<WriterObject>) -> c_int {
    let mut count = 0;
    let status = enter("rsshm_writer_readers", || {
        let writer = handles::get(writer)?;
        // There are at most 64 readers.
        count = writer.count_readers()? as c_int;
        Ok(Status::Ok)
    });
    if status < 0 { status } else { count }
}

/// `rsshm_writer_wait_for_reader`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_wait_for_reader(writer: Handle<WriterObject>, timeout_ns: i64) -> c_int {
    enter("rsshm_writer_wait_for_reader", || {
        handles::get(writer)?.wait_for_reader(reader::timeout(timeout_ns))
    })
}

/// `rsshm_writer_keyframe_wanted`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_keyframe_wanted(writer: Handle<WriterObject>) -> c_int {
    let mut is_wanted = false;
    let status = enter("rsshm_writer_keyframe_wanted", || {
        is_wanted = handles::get(writer)?.take_keyframe_request();
        Ok(Status::Ok)
    });
    if status < 0 { status } else { is_wanted.into() }
}

/// `rsshm_writer_stats`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CWriterStats {
    struct_size: u32,
    readers: u32,
    published: u64,
    dropped: u64,
    head: u64,
    missed_by_readers: u64,
    evicted: u64,
    segments: u64,
    semaphore_timeouts: u64,
    bytes: u64,
    slots: u32,
    max_slots: u32,
    slots_in_use: u32,
    lossless: u32,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CWriterStats {
    const NAME: &str = "rsshm_writer_stats";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// `rsshm_writer_get_stats`.
///
/// # Safety
/// `stats` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_get_stats(writer: Handle<WriterObject>, stats: *mut CWriterStats) -> c_int {
    enter("rsshm_writer_get_stats", || {
        let writer = handles::get(writer)?;
        let counts = writer.channel().stats();
        let value = CWriterStats {
            struct_size: 0,
            readers: writer.reader_count(),
            published: counts.published,
            dropped: counts.dropped,
            head: counts.head,
            missed_by_readers: counts.missed_by_readers,
            evicted: counts.evicted,
            segments: counts.segments,
            semaphore_timeouts: counts.semaphore_timeouts,
            bytes: counts.bytes,
            slots: counts.slots,
            max_slots: counts.max_slots,
            slots_in_use: counts.slots_in_use,
            lossless: writer.channel().is_lossless().into(),
        };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(stats, value) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_set_latency`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_set_latency(writer: Handle<WriterObject>, latency_ns: u64) -> c_int {
    enter("rsshm_writer_set_latency", || {
        handles::get(writer)?.channel().set_latency_ns(latency_ns);
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_wake`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_wake(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_wake", || {
        handles::get(writer)?.channel().interrupt();
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_close`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_close(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_close", || {
        if let Some(writer) = handles::release(writer)? {
            writer.close();
        }
        Ok(Status::Ok)
    })
}
