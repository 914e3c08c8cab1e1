// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slots that a program draws into: the functions `rsshm_slot_...`, and the copies into slots.

use std::{
    ffi::c_int,
    ptr,
    sync::{Arc, Mutex, PoisonError},
};

use rsshm_channel::{Error, FrameDescriptor, MAX_METADATA_SIZE, Slot, TIME_NONE, copy_to_slot, layout, monotonic_ns};

use crate::{
    arguments::{self, Sized32},
    frame::{CPlane, c_planes},
    handles::{self, Handle},
    status::{Failure, Status, enter},
    stream::{MAX_PLANES, PlanePlace},
    writer::{WriterFormat, WriterObject},
};

/// `RSSHM_TIME_NOW`: the time of the publish.
const TIME_NOW: u64 = u64::MAX - 1;

/// `RSSHM_DELTA`: the frame is not a keyframe.
const DELTA: u32 = 1;
/// `RSSHM_HEADER`: the frame is a header of the stream.
const HEADER: u32 = 1 << 1;

/// `rsshm_slot_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CSlotInfo {
    struct_size: u32,
    plane_count: u32,
    data: *mut u8,
    size: usize,
    planes: [CPlane; MAX_PLANES],
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CSlotInfo {
    const NAME: &str = "rsshm_slot_info";
    const FIRST_SIZE: usize = size_of::<Self>();
}

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
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CPublishInfo {
    const NAME: &str = "rsshm_publish_info";
    const FIRST_SIZE: usize = size_of::<Self>();
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
    };

    /// The structure at `info`; the default if `info` is NULL.
    ///
    /// # Safety
    /// `info` is NULL, or points to a structure of the size in its first field.
    pub(crate) unsafe fn read(info: *const Self) -> Result<Self, Failure> {
        if info.is_null() {
            return Ok(Self::DEFAULT);
        }
        // SAFETY: as the caller guarantees.
        let info = unsafe { arguments::read(info, Self::DEFAULT) }?;
        if info.flags & !(DELTA | HEADER) != 0 {
            return Err(Failure::argument(format!(
                "the flags of rsshm_publish_info are {:#x}, it may have RSSHM_DELTA and RSSHM_HEADER",
                info.flags
            )));
        }
        Ok(info)
    }

    /// The descriptor of a frame of `size` bytes.
    fn descriptor(&self, size: usize) -> FrameDescriptor {
        let time = |time: u64| if time == TIME_NOW { monotonic_ns() } else { time };
        let flag = |flag: u32, bit: u32| if self.flags & flag != 0 { bit } else { 0 };
        FrameDescriptor::new(size as u64)
            .with_pts(time(self.pts_ns))
            .with_dts(time(self.dts_ns))
            .with_duration(self.duration_ns)
            .with_offset(self.offset)
            .with_flags(flag(DELTA, layout::DELTA_UNIT) | flag(HEADER, layout::HEADER))
    }

    /// The metadata.
    ///
    /// # Safety
    /// The metadata is NULL, or can be read during `'a`.
    unsafe fn metadata<'a>(&self) -> Result<&'a [u8], Failure> {
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

/// A claimed slot.
pub(crate) struct SlotObject {
    writer: Arc<WriterObject>,
    format: Arc<WriterFormat>,
    slot: Mutex<Slot>,
    /// The first byte that the program may write.
    data: *mut u8,
    size: usize,
}

// SAFETY: `data` points into the slot, which belongs to the value and may be used from any thread.
unsafe impl Send for SlotObject {}
// SAFETY: as above. The value itself never uses the bytes except in a publish.
unsafe impl Sync for SlotObject {}

impl SlotObject {
    /// Claims a slot for a frame of `size` bytes; 0 means the size of the caps. Otherwise the status says why there is
    /// none.
    pub(crate) fn claim(writer: &Arc<WriterObject>, size: usize) -> Result<Result<Self, Status>, Failure> {
        let format = writer.format()?;
        let size = frame_size(&format, size)?;
        let mut slot = match writer.claim(size)? {
            Ok(slot) => slot,
            Err(status) => return Ok(Err(status)),
        };
        let data = slot.as_mut().as_mut_ptr();
        Ok(Ok(Self {
            writer: Arc::clone(writer),
            format,
            slot: Mutex::new(slot),
            data,
            size,
        }))
    }

    pub(crate) fn info(&self) -> CSlotInfo {
        let places = if self.size >= self.format.frame_size() {
            self.format.places()
        } else {
            &[]
        };
        CSlotInfo {
            struct_size: 0,
            plane_count: places.len() as u32,
            data: self.data,
            size: self.size,
            planes: c_planes(self.data, places),
        }
    }

    /// Publishes the frame that the program has drawn.
    ///
    /// # Safety
    /// The metadata of `info` is NULL, or can be read.
    unsafe fn publish(&self, info: &CPublishInfo) -> Result<Status, Failure> {
        let size = if info.size == 0 { self.size } else { info.size };
        if size > self.size {
            return Err(Failure::argument(format!(
                "the frame has {size} bytes, more than the {} of its claim",
                self.size
            )));
        }
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        let descriptor = info.descriptor(size);
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match self.writer.channel().publish(&slot, descriptor, metadata) {
            Err(Error::NotPublishable { .. }) if !slot.is_published() && self.is_current() => {
                // The writer has made another segment since the claim, for example because another program had removed
                // the channel's files. The frame is copied there.
                let bytes = slot.as_mut().get(..size).unwrap_or_default();
                copy_and_publish(&self.writer, size, descriptor, metadata, |to| {
                    copy_to_slot(size)(bytes, to);
                })
            }
            result => Ok(result.map(|()| Status::Ok)?),
        }
    }

    /// Whether the caps are still those of the claim.
    fn is_current(&self) -> bool {
        self.writer
            .format()
            .is_ok_and(|format| Arc::ptr_eq(&format, &self.format))
    }

    /// Copies a frame into a slot and publishes it.
    ///
    /// # Safety
    /// The rows of all planes can be read, and so can the metadata of `info`.
    pub(crate) unsafe fn write_planes(
        writer: &WriterObject,
        planes: &[CPlane],
        info: &CPublishInfo,
    ) -> Result<Status, Failure> {
        let format = writer.format()?;
        let places = format.places();
        if places.is_empty() {
            return Err(Failure::state(
                "the caps are not raw video, so the frame has no planes; call rsshm_writer_write_bytes",
            ));
        }
        if places.len() != planes.len() {
            return Err(Failure::argument(format!(
                "there are {} planes, a frame of these caps has {}",
                planes.len(),
                places.len()
            )));
        }
        for (index, (plane, place)) in planes.iter().zip(places).enumerate() {
            check_plane(index, plane, place)?;
        }
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        let size = format.frame_size();
        let copy = copy_to_slot(size);
        copy_and_publish(writer, size, info.descriptor(size), metadata, |to| {
            for (plane, place) in planes.iter().zip(places) {
                // SAFETY: as the caller guarantees; `check_plane` has checked the number and the size of the rows.
                unsafe { copy_plane(plane, place, to, copy) };
            }
        })
    }

    /// Copies the bytes of a frame into a slot and publishes the frame.
    ///
    /// # Safety
    /// The metadata of `info` is NULL, or can be read.
    pub(crate) unsafe fn write_bytes(
        writer: &WriterObject,
        bytes: &[u8],
        info: &CPublishInfo,
    ) -> Result<Status, Failure> {
        let format = writer.format()?;
        let size = frame_size(&format, bytes.len())?;
        if size != bytes.len() {
            return Err(Failure::argument("the frame has no bytes"));
        }
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        copy_and_publish(writer, size, info.descriptor(size), metadata, |to| {
            copy_to_slot(size)(bytes, to);
        })
    }
}

/// The size of a frame, of which the program says `size`.
fn frame_size(format: &WriterFormat, size: usize) -> Result<usize, Failure> {
    match (size, format.frame_size()) {
        (0, 0) => Err(Failure::argument(
            "the size is 0, but the frames of these caps differ in size; pass the size of this frame",
        )),
        (0, fixed) => Ok(fixed),
        (size, fixed) if fixed != 0 && size != fixed => Err(Failure::argument(format!(
            "the size is {size}, but each frame of these caps has {fixed} bytes"
        ))),
        (size, _) => Ok(size),
    }
}

/// Claims a slot, lets `draw` fill it, and publishes it. If the segment changes in between, this is done once more.
fn copy_and_publish(
    writer: &WriterObject,
    size: usize,
    descriptor: FrameDescriptor,
    metadata: &[u8],
    draw: impl Fn(&mut [u8]),
) -> Result<Status, Failure> {
    let mut is_repeated = false;
    loop {
        let mut slot = match writer.claim(size)? {
            Ok(slot) => slot,
            Err(status) => return Ok(status),
        };
        draw(slot.as_mut());
        match writer.channel().publish(&slot, descriptor, metadata) {
            Err(Error::NotPublishable { .. }) if !is_repeated => is_repeated = true,
            result => return Ok(result.map(|()| Status::Ok)?),
        }
    }
}

/// Checks that the program's plane has the rows of the frame's plane. Sizes of 0 mean those of the caps.
fn check_plane(index: usize, plane: &CPlane, place: &PlanePlace) -> Result<(), Failure> {
    if plane.data.is_null() {
        return Err(Failure::argument(format!("the data of plane {index} is NULL")));
    }
    for (what, found, wanted) in [
        ("row_bytes", plane.row_bytes as usize, place.row_bytes),
        ("rows", plane.rows as usize, place.rows),
    ] {
        if found != 0 && found != wanted {
            return Err(Failure::argument(format!(
                "{what} of plane {index} is {found}, the caps need {wanted}; pass 0 or {wanted}"
            )));
        }
    }
    if plane.stride.unsigned_abs() < place.row_bytes as u64 && place.rows > 1 {
        return Err(Failure::argument(format!(
            "the stride of plane {index} is {}, but a row has {} bytes",
            plane.stride, place.row_bytes
        )));
    }
    Ok(())
}

/// Copies the rows of a plane to their places in a slot.
///
/// # Safety
/// All rows of the plane can be read.
unsafe fn copy_plane(plane: &CPlane, place: &PlanePlace, to: &mut [u8], copy: rsshm_channel::CopyFn) {
    if plane.stride == place.stride as i64 && place.stride > 0 && place.rows > 0 {
        let size = (place.rows - 1) * place.stride as usize + place.row_bytes;
        // SAFETY: the rows and the bytes between them are one piece of the program's memory.
        let from = unsafe { std::slice::from_raw_parts(plane.data, size) };
        if let Some(to) = to.get_mut(place.offset..place.offset + size) {
            copy(from, to);
        }
        return;
    }
    for row in 0..place.rows {
        // SAFETY: the caller guarantees this row.
        let from = unsafe {
            let data = plane.data.wrapping_offset(row as isize * plane.stride as isize);
            std::slice::from_raw_parts(data, place.row_bytes)
        };
        let start = place.offset.wrapping_add_signed(row as isize * place.stride);
        if let Some(to) = to.get_mut(start..start.saturating_add(place.row_bytes)) {
            copy(from, to);
        }
    }
}

/// `rsshm_slot_publish`.
///
/// # Safety
/// `info` is NULL, or points to a structure of the size in its first field, whose metadata can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_slot_publish(slot: Handle<SlotObject>, info: *const CPublishInfo) -> c_int {
    enter("rsshm_slot_publish", || {
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) };
        // The claim ends in each case, so that a program that ignores an error does not keep the slot.
        match handles::release(slot)? {
            // SAFETY: as the caller guarantees.
            Some(slot) => unsafe { slot.publish(&info?) },
            None => Ok(Status::Ok),
        }
    })
}

/// `rsshm_slot_release`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_slot_release(slot: Handle<SlotObject>) -> c_int {
    enter("rsshm_slot_release", || handles::release(slot).map(|_| Status::Ok))
}
