// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames in memfds and dmabufs: `rsshm_frame_fd` and `rsshm_writer_write_fds`.

use std::{
    ffi::{c_int, c_void},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
};

use rsshm_channel::{FrameDescriptor, FramePart, Object, ObjectKind, ObjectPart};

use crate::{
    arguments::{self, Sized32},
    frame::FrameObject,
    handles::{self, Handle},
    publish_info::CPublishInfo,
    status::{Failure, Status, enter},
    stream::MAX_PLANES,
    writing::WriterObject,
};

/// `rsshm_fd`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CFd {
    struct_size: u32,
    fd: c_int,
    kind: u32,
    drm_format: u32,
    drm_modifier: u64,
    object: u64,
    object_size: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    stride: i64,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CFd {
    const NAME: &str = "rsshm_fd";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// No descriptor.
const NONE: CFd = CFd {
    struct_size: 0,
    fd: -1,
    kind: 0,
    drm_format: 0,
    drm_modifier: 0,
    object: 0,
    object_size: 0,
    offset: 0,
    size: 0,
    stride: 0,
};

/// `RSSHM_FD_MEMFD`.
const MEMFD: u32 = 1;
/// `RSSHM_FD_DMABUF`.
const DMABUF: u32 = 2;

/// A plane whose bytes are looked for in the parts of a frame.
struct WantedPlane {
    /// Where the first row begins in the frame.
    offset: u64,
    /// The bytes of all rows. A plane with negative strides begins with its last row.
    rows: Range<u64>,
    stride: i64,
}

impl FrameObject {
    /// The plane `index`, if the frame has a description of its planes.
    fn wanted_plane(&self, index: usize) -> Option<Option<WantedPlane>> {
        let (places, count) = self.stream.planes(&self.descriptor);
        if count > 0 {
            return Some(places[..count].get(index).map(|place| {
                let last = place
                    .offset
                    .saturating_add_signed(place.rows.saturating_sub(1) as isize * place.stride);
                let (low, high) = (place.offset.min(last), place.offset.max(last));
                WantedPlane {
                    offset: place.offset as u64,
                    rows: low as u64..(high + place.row_bytes) as u64,
                    stride: place.stride as i64,
                }
            }));
        }
        // A format that the library does not know, for example one with a modifier, has no rows.
        let count = (self.descriptor.planes as usize).min(MAX_PLANES);
        (count > 0).then(|| {
            (index < count).then(|| WantedPlane {
                offset: self.descriptor.plane_offset[index],
                rows: self.descriptor.plane_offset[index]..self.descriptor.plane_offset[index].saturating_add(1),
                stride: self.descriptor.plane_stride[index].into(),
            })
        })
    }

    /// The descriptor of the plane `index`; `None` if the frame is not in descriptors, or has no such plane.
    fn descriptor_of(&self, index: usize) -> Result<Option<CFd>, Failure> {
        let Some(objects) = self.objects() else {
            return Ok(None);
        };
        let parts = objects.parts();
        let wanted = match self.wanted_plane(index) {
            Some(Some(wanted)) => wanted,
            Some(None) => return Ok(None),
            None => return Ok(parts.get(index).map(|part| self.describe(part, 0, 0))),
        };
        let mut begin = 0;
        for part in parts {
            let end = begin + part.size();
            if (begin..end).contains(&wanted.offset) {
                if wanted.rows.start < begin || wanted.rows.end > end {
                    break;
                }
                return Ok(Some(self.describe(part, wanted.offset - begin, wanted.stride)));
            }
            begin = end;
        }
        Err(Failure::state(format!(
            "plane {index} is not inside one descriptor; use the bytes of the frame"
        )))
    }

    /// The bytes of `part` from `offset` on.
    fn describe(&self, part: &FramePart, offset: u64, stride: i64) -> CFd {
        let object = part.object();
        let drm = self.stream.drm();
        CFd {
            fd: object.as_raw_fd(),
            kind: match object.kind() {
                ObjectKind::Memfd => MEMFD,
                ObjectKind::Dmabuf => DMABUF,
                // A kind that this version does not know.
                _ => 0,
            },
            drm_format: drm.fourcc,
            drm_modifier: drm.modifier,
            object: object.id(),
            object_size: object.size(),
            offset: part.offset() + offset,
            size: part.size() - offset,
            stride,
            ..NONE
        }
    }
}

/// `rsshm_frame_fd`.
///
/// # Safety
/// `out` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_fd(frame: Handle<FrameObject>, plane: u32, out: *mut CFd) -> c_int {
    enter("rsshm_frame_fd", || {
        let frame = handles::get(frame)?;
        // The structure never keeps the descriptor of another frame.
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(out, NONE) }?;
        let Some(found) = frame.descriptor_of(plane as usize)? else {
            return Ok(Status::Nothing);
        };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(out, found) }?;
        Ok(Status::Ok)
    })
}

/// What a program does when its memory is free again. Dropping the value calls the function.
struct Release {
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    user: *mut c_void,
}

// SAFETY: the header says that any thread may call the function with its argument.
unsafe impl Send for Release {}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(function) = self.function {
            // SAFETY: the program has promised that the function can be called once with this argument.
            unsafe { function(self.user) };
        }
    }
}

/// The planes of a frame that a program publishes: a copy of its structures, which may be of an older or newer version.
///
/// # Safety
/// `planes` is NULL, or points to `count` structures of the size in the first field of the first one.
unsafe fn read_planes(planes: *const CFd, count: usize) -> Result<Vec<CFd>, Failure> {
    if !(1..=MAX_PLANES).contains(&count) {
        return Err(Failure::argument(format!(
            "there are {count} planes, a frame has 1 to {MAX_PLANES}"
        )));
    }
    // SAFETY: as the caller guarantees.
    unsafe { arguments::check(planes) }?;
    // SAFETY: `planes` is not NULL now, so it points to its size.
    let size = unsafe { planes.cast::<u32>().read_unaligned() } as usize;
    (0..count)
        .map(|index| {
            // SAFETY: the caller guarantees `count` structures of this size.
            unsafe { arguments::read(planes.byte_add(index * size), NONE) }
        })
        .collect()
}

/// The descriptor of a frame that consists of `planes`, one after another.
fn describe_planes(writer: &WriterObject, planes: &[CFd], info: &CPublishInfo) -> Result<FrameDescriptor, Failure> {
    let wrong = |text: String| Err(Failure::new(Status::Caps, text));
    let format = writer.format()?;
    let mut size = 0u64;
    let mut described = Vec::new();
    for (index, plane) in planes.iter().enumerate() {
        let Ok(stride) = i32::try_from(plane.stride) else {
            return wrong(format!("the stride of plane {index} is {}", plane.stride));
        };
        described.push((size, stride));
        size = size.saturating_add(plane.size);
    }
    if size < format.frame_size() as u64 {
        return wrong(format!(
            "the planes have {size} bytes together, but a frame of these caps has {}",
            format.frame_size()
        ));
    }
    let size = usize::try_from(size).map_err(|_| Failure::new(Status::Caps, "the frame is too large"))?;
    let descriptor = info.descriptor(size);
    if planes.iter().all(|plane| plane.stride == 0) {
        return Ok(format.describe(descriptor));
    }
    let descriptor = descriptor.with_planes(&described);
    if !format.places().is_empty() && !format.has_planes(&descriptor) {
        return wrong(format!(
            "a frame of these caps has {} planes, and they are not inside these {} planes of {size} bytes",
            format.places().len(),
            planes.len()
        ));
    }
    Ok(descriptor)
}

/// Publishes a frame that stays in the memory of the program.
///
/// # Safety
/// The descriptors of `planes` are open during the call. The metadata of `info` is NULL, or can be read. Its `seq` is NULL
/// or a variable.
unsafe fn write_fds(
    writer: &WriterObject,
    planes: &[CFd],
    info: &CPublishInfo,
    release: Release,
) -> Result<Status, Failure> {
    writer.check_failure()?;
    if !writer.publishes_objects() {
        return Err(Failure::state("the writer was opened without RSSHM_FDS"));
    }
    let descriptor = describe_planes(writer, planes, info)?;
    let objects = writer.channel().objects();
    let register = |(index, plane): (usize, &CFd)| {
        if plane.fd < 0 {
            return Err(Failure::argument(format!(
                "the descriptor of plane {index} is {}",
                plane.fd
            )));
        }
        // SAFETY: the caller guarantees that the descriptor is open during the call.
        let file = unsafe { BorrowedFd::borrow_raw(plane.fd) };
        Ok(objects.register(file)?)
    };
    let registered: Vec<Object> = planes.iter().enumerate().map(register).collect::<Result<_, _>>()?;
    let parts: Vec<ObjectPart<'_>> = registered
        .iter()
        .zip(planes)
        .map(|(object, plane)| ObjectPart::new(object, plane.offset, plane.size))
        .collect();
    // SAFETY: as the caller guarantees.
    let metadata = unsafe { info.metadata() }?;
    let published = objects.publish(&parts, descriptor, metadata, Box::new(release))?;
    if published.is_none() {
        writer.channel().record_drop();
    }
    // SAFETY: as the caller guarantees.
    Ok(unsafe { info.finish(published.ok_or(Status::Dropped)) })
}

/// `rsshm_writer_write_fds`.
///
/// # Safety
/// `planes` is NULL, or points to `count` structures of the size in the first field of the first one, whose descriptors are
/// open. `info` is NULL, or points to a structure of the size in its first field, whose metadata can be read. `release` is
/// NULL, or a function that any thread may call once with `user`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_write_fds(
    writer: Handle<WriterObject>,
    planes: *const CFd,
    count: u32,
    info: *const CPublishInfo,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
    user: *mut c_void,
) -> c_int {
    // Each error drops the value too, so that the program always gets its memory back.
    let release = Release {
        function: release,
        user,
    };
    enter("rsshm_writer_write_fds", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let planes = unsafe { read_planes(planes, count as usize) }?;
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) }?;
        // SAFETY: as the caller guarantees for the descriptors and for the metadata.
        unsafe { write_fds(&writer, &planes, &info, release) }
    })
}
