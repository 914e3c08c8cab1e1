// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames: the functions `rsshm_frame_...`.

use std::{
    ffi::{c_char, c_int},
    ptr,
    sync::Arc,
};

use rsshm_channel::{FrameDescriptor, ObjectFrame, PinnedFrame, layout::HEADER, metadata, video::VideoInfo};

use crate::{
    arguments::{self, Sized32},
    delivery::PooledCopy,
    handles::{self, Handle},
    status::{Failure, Status, enter},
    stream::{MAX_PLANES, PlanePlace, Planes, Stream},
};

/// A frame that a program got from a reader or an observer. It does not need them any more.
pub(crate) struct FrameObject {
    pub(crate) seq: u64,
    pub(crate) missed: u64,
    pub(crate) discontinuity: bool,
    pub(crate) descriptor: FrameDescriptor,
    pub(crate) metadata: Vec<u8>,
    pub(crate) bytes: FrameBytes,
    pub(crate) stream: Arc<Stream>,
}

/// The bytes of a frame.
pub(crate) enum FrameBytes {
    /// They are in a slot.
    InPlace(PinnedFrame),
    /// They are in memfds or dmabufs, which are mapped when somebody looks at the bytes.
    Objects(ObjectFrame),
    /// The same, and only a conversion looks at the bytes.
    Unmapped(ObjectFrame),
    /// They are in the process's own memory.
    Copied(PooledCopy),
}

impl FrameObject {
    /// The bytes of the frame, mapped if they are in objects.
    pub(crate) fn bytes(&self) -> Result<&[u8], Failure> {
        match &self.bytes {
            FrameBytes::InPlace(pinned) => Ok(pinned.as_ref()),
            FrameBytes::Objects(objects) | FrameBytes::Unmapped(objects) => objects.bytes()?.ok_or_else(|| {
                Failure::state(
                    "the frame is in several pieces of memory; map each with rsshm_frame_fd, or open the reader without \
                     RSSHM_UNMAPPED",
                )
            }),
            FrameBytes::Copied(copy) => Ok(copy.as_ref()),
        }
    }

    /// The frame in its objects; `None` if it is in a slot or a copy.
    pub(crate) fn objects(&self) -> Option<&ObjectFrame> {
        match &self.bytes {
            FrameBytes::Objects(objects) | FrameBytes::Unmapped(objects) => Some(objects),
            FrameBytes::InPlace(_) | FrameBytes::Copied(_) => None,
        }
    }
}

/// `rsshm_plane`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CPlane {
    pub(crate) data: *const u8,
    pub(crate) stride: i64,
    pub(crate) row_bytes: u32,
    pub(crate) rows: u32,
}

impl CPlane {
    pub(crate) const NONE: Self = Self {
        data: ptr::null(),
        stride: 0,
        row_bytes: 0,
        rows: 0,
    };

    /// A plane of the frame whose first byte is at `data`.
    pub(crate) fn new(data: *const u8, place: &PlanePlace) -> Self {
        Self {
            data: data.wrapping_add(place.offset),
            stride: place.stride as i64,
            row_bytes: place.row_bytes as u32,
            rows: place.rows as u32,
        }
    }
}

/// The planes of the frame whose first byte is at `data`.
pub(crate) fn c_planes(data: *const u8, places: &[PlanePlace]) -> [CPlane; MAX_PLANES] {
    let mut planes = [CPlane::NONE; MAX_PLANES];
    for (plane, place) in planes.iter_mut().zip(places) {
        *plane = CPlane::new(data, place);
    }
    planes
}

/// `rsshm_frame_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CFrameInfo {
    struct_size: u32,
    flags: u32,
    seq: u64,
    missed: u64,
    pts_ns: u64,
    dts_ns: u64,
    duration_ns: u64,
    offset: u64,
    offset_end: u64,
    pub(crate) data: *const u8,
    pub(crate) size: usize,
    pub(crate) metadata: *const u8,
    pub(crate) metadata_size: usize,
    pub(crate) caps: *const c_char,
    pub(crate) format: *const c_char,
    pub(crate) width: i32,
    height: i32,
    fps_n: i32,
    fps_d: i32,
    buffer_flags: u32,
    pub(crate) plane_count: u32,
    pub(crate) planes: [CPlane; MAX_PLANES],
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CFrameInfo {
    const NAME: &str = "rsshm_frame_info";
    const FIRST_SIZE: usize = size_of::<Self>();
}

const IN_PLACE: u32 = 1;
const KEYFRAME: u32 = 1 << 1;
const DISCONTINUITY: u32 = 1 << 2;
const STREAM_HEADER: u32 = 1 << 3;
const BY_DESCRIPTOR: u32 = 1 << 4;

impl FrameObject {
    /// What the caps say about the picture.
    pub(crate) fn video(&self) -> Result<&VideoInfo, Failure> {
        Ok(self.stream.video()?)
    }

    pub(crate) fn info(&self) -> Result<CFrameInfo, Failure> {
        let descriptor = &self.descriptor;
        let values = self.stream.values();
        let (data, size, (places, count)) = match &self.bytes {
            FrameBytes::Unmapped(_) => (ptr::null(), descriptor.size as usize, Planes::default()),
            _ => {
                let bytes = self.bytes()?;
                (bytes.as_ptr(), bytes.len(), self.stream.planes(descriptor))
            }
        };
        let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
        Ok(CFrameInfo {
            struct_size: 0,
            flags: flag(!matches!(self.bytes, FrameBytes::Copied(_)), IN_PLACE)
                | flag(self.objects().is_some(), BY_DESCRIPTOR)
                | flag(descriptor.keyframe != 0, KEYFRAME)
                | flag(self.discontinuity, DISCONTINUITY)
                | flag(descriptor.flags & HEADER != 0, STREAM_HEADER),
            seq: self.seq,
            missed: self.missed,
            pts_ns: descriptor.pts,
            dts_ns: descriptor.dts,
            duration_ns: descriptor.duration,
            offset: descriptor.offset,
            offset_end: descriptor.offset_end,
            data,
            size,
            metadata: self.metadata.as_ptr(),
            metadata_size: self.metadata.len(),
            caps: values.caps,
            format: values.format,
            width: values.width,
            height: values.height,
            fps_n: values.fps_n,
            fps_d: values.fps_d,
            buffer_flags: descriptor.flags,
            plane_count: count as u32,
            planes: c_planes(data, &places[..count]),
        })
    }
}

/// `rsshm_frame_get`.
///
/// # Safety
/// `info` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_get(frame: Handle<FrameObject>, info: *mut CFrameInfo) -> c_int {
    enter("rsshm_frame_get", || {
        let frame = handles::get(frame)?;
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(info, frame.info()?) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_frame_ref`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_frame_ref(frame: Handle<FrameObject>) -> Handle<FrameObject> {
    let status = enter("rsshm_frame_ref", || handles::add_reference(frame).map(|()| Status::Ok));
    if status == Status::Ok as c_int {
        frame
    } else {
        Handle::NULL
    }
}

/// `rsshm_frame_release`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_frame_release(frame: Handle<FrameObject>) -> c_int {
    // The frame is dropped after the table was unlocked, because the drop may wake the writer.
    enter("rsshm_frame_release", || handles::release(frame).map(|_| Status::Ok))
}

/// `rsshm_metadata`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CMetadata {
    struct_size: u32,
    kind: u32,
    data: *const u8,
    size: usize,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and a raw pointer.
unsafe impl Sized32 for CMetadata {
    const NAME: &str = "rsshm_metadata";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// `rsshm_region`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CRegion {
    struct_size: u32,
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    id: i32,
    parent_id: i32,
    name_size: u32,
    name: *const c_char,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and a raw pointer.
unsafe impl Sized32 for CRegion {
    const NAME: &str = "rsshm_region";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// `rsshm_time_code`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CTimeCode {
    struct_size: u32,
    flags: u32,
    fps_n: u32,
    fps_d: u32,
    hours: u32,
    minutes: u32,
    seconds: u32,
    frames: u32,
    field_count: u32,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CTimeCode {
    const NAME: &str = "rsshm_time_code";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Stores item `index` of `items` at `out`. The status is `Nothing` if there are not that many.
///
/// # Safety
/// `out` is NULL, or points to a structure of the size in its first field.
unsafe fn write_item<T: Sized32>(
    mut items: impl Iterator<Item = T>,
    index: u32,
    out: *mut T,
) -> Result<Status, Failure> {
    match items.nth(index as usize) {
        Some(item) => {
            // SAFETY: as the caller guarantees.
            unsafe { arguments::write(out, item) }?;
            Ok(Status::Ok)
        }
        None => {
            // SAFETY: as the caller guarantees.
            unsafe { arguments::check(out.cast_const()) }?;
            Ok(Status::Nothing)
        }
    }
}

/// `rsshm_frame_metadata`.
///
/// # Safety
/// `out` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_metadata(frame: Handle<FrameObject>, index: u32, out: *mut CMetadata) -> c_int {
    enter("rsshm_frame_metadata", || {
        let frame = handles::get(frame)?;
        let items = metadata::records(&frame.metadata).map(|record| CMetadata {
            struct_size: 0,
            kind: record.kind.into(),
            data: record.bytes.as_ptr(),
            size: record.bytes.len(),
        });
        // SAFETY: as the caller guarantees.
        unsafe { write_item(items, index, out) }
    })
}

/// `rsshm_frame_region`.
///
/// # Safety
/// `out` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_region(frame: Handle<FrameObject>, index: u32, out: *mut CRegion) -> c_int {
    enter("rsshm_frame_region", || {
        let frame = handles::get(frame)?;
        let regions = metadata::records(&frame.metadata).filter_map(metadata::RegionOfInterest::from_record);
        let items = regions.map(|region| CRegion {
            struct_size: 0,
            x: region.x,
            y: region.y,
            width: region.width,
            height: region.height,
            id: region.id,
            parent_id: region.parent_id,
            name_size: region.kind.len() as u32,
            name: region.kind.as_ptr().cast(),
        });
        // SAFETY: as the caller guarantees.
        unsafe { write_item(items, index, out) }
    })
}

/// `rsshm_frame_time_code`.
///
/// # Safety
/// `out` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_time_code(frame: Handle<FrameObject>, index: u32, out: *mut CTimeCode) -> c_int {
    enter("rsshm_frame_time_code", || {
        let frame = handles::get(frame)?;
        let codes = metadata::records(&frame.metadata).filter_map(metadata::TimeCode::from_record);
        let items = codes.map(|code| CTimeCode {
            struct_size: 0,
            flags: code.flags,
            fps_n: code.framerate.0,
            fps_d: code.framerate.1,
            hours: code.hours,
            minutes: code.minutes,
            seconds: code.seconds,
            frames: code.frames,
            field_count: code.field_count,
        });
        // SAFETY: as the caller guarantees.
        unsafe { write_item(items, index, out) }
    })
}
