// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm_frame_fd`: the memfds and dmabufs in which a frame is.

use std::{ffi::c_int, ops::Range, os::fd::AsRawFd};

use rsshm_channel::{FramePart, ObjectKind};

use crate::{
    arguments::{self, Sized32},
    frame::FrameObject,
    handles::{self, Handle},
    status::{Failure, Status, enter},
    stream::MAX_PLANES,
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
                let last = place.offset.saturating_add_signed(place.rows.saturating_sub(1) as isize * place.stride);
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
