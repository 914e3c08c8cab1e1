// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm_frame_convert`: the picture of a frame, for people.

use std::{
    ffi::{c_char, c_int},
    slice,
};

use rsshm_channel::video::{RgbOrder, convert};

use crate::{
    arguments,
    frame::FrameObject,
    handles::{self, Handle},
    status::{Failure, Status, enter},
};

/// The bytes of a pixel of the picture.
const PIXEL: usize = 3;

/// The order with this name.
fn order(name: &str) -> Result<RgbOrder, Failure> {
    match name {
        "BGR" => Ok(RgbOrder::Bgr),
        "RGB" => Ok(RgbOrder::Rgb),
        _ => Err(Failure::argument(format!(
            "the order is {name:?}, it may be BGR or RGB"
        ))),
    }
}

/// The bytes from one row to the next, and the size of a picture whose program chose `stride`.
fn picture_size(stride: i64, width: u32, height: u32) -> Result<(usize, usize), Failure> {
    let row = width as usize * PIXEL;
    let stride = match usize::try_from(stride) {
        Ok(0) => row,
        Ok(stride) if stride >= row => stride,
        _ => {
            return Err(Failure::argument(format!(
                "the stride is {stride}, but a row of the picture has {row} bytes"
            )));
        }
    };
    let rows_before_last = (height as usize).saturating_sub(1);
    let size = rows_before_last
        .checked_mul(stride)
        .and_then(|size| size.checked_add(row));
    let size = size.filter(|size| isize::try_from(*size).is_ok());
    let size =
        size.ok_or_else(|| Failure::argument(format!("{height} rows of {stride} bytes do not fit any memory")))?;
    Ok((stride, size))
}

/// `rsshm_frame_convert`.
///
/// # Safety
/// `order` is NULL or a text that ends with NUL. `out` is NULL, or points to as many writable bytes as the picture needs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_frame_convert(
    frame: Handle<FrameObject>,
    order: *const c_char,
    out: *mut u8,
    stride: i64,
) -> c_int {
    enter("rsshm_frame_convert", || {
        let frame = handles::get(frame)?;
        // SAFETY: as the caller guarantees.
        let order = self::order(unsafe { arguments::text(order, "the order") }?)?;
        arguments::check_out(out, "the memory for the picture")?;
        let info = frame.video()?;
        let layout = info.layout_of(&frame.descriptor)?;
        let (stride, size) = picture_size(stride, info.width(), info.field_height())?;
        // SAFETY: `out` is not NULL, so the caller guarantees as many bytes as the picture needs.
        let out = unsafe { slice::from_raw_parts_mut(out, size) };
        convert(info, &layout, frame.bytes()?, order, out, stride)?;
        Ok(Status::Ok)
    })
}
