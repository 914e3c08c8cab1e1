// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions for caps and formats that need no handle: `rsshm_caps_parts` and `rsshm_video_...`.

use std::ffi::{c_char, c_int};

use rsshm_channel::{
    caps_text::caps_parts,
    video::{VideoFormat, VideoInfo},
};

use crate::{
    arguments::{self, Sized32},
    status::{Failure, Status, enter},
    stream::MAX_PLANES,
};

/// `rsshm_caps_parts`.
///
/// # Safety
/// `caps` is NULL or a text that ends with NUL. `parts` is NULL, or points to `size` writable bytes. `needed` is NULL or
/// a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_caps_parts(
    caps: *const c_char,
    parts: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> c_int {
    enter("rsshm_caps_parts", || {
        // SAFETY: as the caller guarantees.
        let text = unsafe { arguments::text(caps, "the caps") }?;
        let found = caps_parts(text).map_err(|mistake| {
            Failure::new(
                Status::Caps,
                format!(
                    "caps must be fixed, as GStreamer writes them: {}; the text is {text:.200}",
                    mistake.describe(text)
                ),
            )
        })?;
        let features = found.features.join(", ");
        let fields = found
            .fields
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let texts = [found.media_type.as_str(), features.as_str()].into_iter().chain(fields);
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write_texts(texts, "parts of the caps", parts, size, needed) }
    })
}

/// `rsshm_video_formats`.
///
/// # Safety
/// `names` is NULL, or points to `size` writable bytes. `needed` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_video_formats(names: *mut c_char, size: usize, needed: *mut usize) -> c_int {
    enter("rsshm_video_formats", || {
        let list = VideoFormat::ALL.iter().map(|format| format.name());
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write_texts(list, "names", names, size, needed) }
    })
}

/// `rsshm_plane_layout`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CPlaneLayout {
    offset: u64,
    stride: i64,
    row_bytes: u32,
    rows: u32,
    pixel_bytes: u32,
    sample_bytes: u32,
}

/// `rsshm_layout`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CLayout {
    struct_size: u32,
    plane_count: u32,
    size: u64,
    bits: u32,
    big_endian: u32,
    planes: [CPlaneLayout; MAX_PLANES],
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CLayout {
    const NAME: &str = "rsshm_layout";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl CLayout {
    /// The layout of frames of this format whose rows begin at multiples of `align`.
    fn new(format: VideoFormat, width: u32, height: u32, align: u32) -> Result<Self, Failure> {
        let layout = VideoInfo::new(format, width, height, (0, 1))?.layout_aligned(align)?;
        let mut planes = [CPlaneLayout::default(); MAX_PLANES];
        for (index, (to, plane)) in planes.iter_mut().zip(layout.planes()).enumerate() {
            *to = CPlaneLayout {
                offset: plane.offset,
                stride: plane.stride.into(),
                row_bytes: plane.row_bytes,
                rows: plane.rows,
                pixel_bytes: format.pixel_bytes(index).unwrap_or(0),
                sample_bytes: format.sample_bytes(),
            };
        }
        Ok(Self {
            struct_size: 0,
            plane_count: layout.planes().len() as u32,
            size: layout.size(),
            bits: format.bits(),
            big_endian: format.is_big_endian().into(),
            planes,
        })
    }
}

/// A number of pixels.
pub(crate) fn pixels(value: i32, what: &str) -> Result<u32, Failure> {
    u32::try_from(value).map_err(|_| Failure::new(Status::Caps, format!("{what} is {value}, it must not be negative")))
}

/// `rsshm_video_layout`.
///
/// # Safety
/// `format` is NULL or a text that ends with NUL. `layout` is NULL, or points to a structure of the size in its first
/// field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_video_layout(
    format: *const c_char,
    width: i32,
    height: i32,
    align: u32,
    layout: *mut CLayout,
) -> c_int {
    enter("rsshm_video_layout", || {
        // SAFETY: as the caller guarantees.
        let format = unsafe { arguments::text(format, "the format") }?.parse()?;
        let align = if align == 0 { 4 } else { align };
        let value = CLayout::new(
            format,
            pixels(width, "the width")?,
            pixels(height, "the height")?,
            align,
        )?;
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(layout, value) }?;
        Ok(Status::Ok)
    })
}
