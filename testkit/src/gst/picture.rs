// SPDX-License-Identifier: MIT OR Apache-2.0

//! Test pictures in any layout. The value of every byte depends on its frame, plane, row and column.

use gst::prelude::*;
use gst_video::VideoInfo;

use super::{RecordedFrame, layout};

/// The byte at one position in a picture.
fn value(frame: u8, plane: usize, row: usize, column: usize) -> u8 {
    (plane * 83 + row * 7 + column) as u8 ^ frame
}

/// The number of bytes in a row of a plane, and the number of rows of the plane.
pub fn plane_size(info: &VideoInfo, plane: usize) -> (usize, usize) {
    let component = plane as u8;
    let columns = info.comp_width(component) as usize * info.comp_pstride(component) as usize;
    let rows = info.format_info().scale_height(component, info.field_height());
    (columns, rows as usize)
}

/// Draws the picture of frame `frame` into `bytes`, in the layout that `offset` and `stride` give.
pub fn draw(bytes: &mut [u8], info: &VideoInfo, offset: &[usize], stride: &[i32], frame: u8) {
    for plane in 0..info.n_planes() as usize {
        let (columns, rows) = plane_size(info, plane);
        for row in 0..rows {
            let start = offset[plane] + row * stride[plane] as usize;
            for (column, byte) in bytes[start..start + columns].iter_mut().enumerate() {
                *byte = value(frame, plane, row, column);
            }
        }
    }
}

/// Checks every byte of the picture of frame `frame`, in the layout that `offset` and `stride` give.
#[track_caller]
pub fn assert_drawn(bytes: &[u8], info: &VideoInfo, offset: &[usize], stride: &[i32], frame: u8) {
    for plane in 0..info.n_planes() as usize {
        let (columns, rows) = plane_size(info, plane);
        for row in 0..rows {
            let start = offset[plane] + row * stride[plane] as usize;
            for (column, byte) in bytes[start..start + columns].iter().enumerate() {
                assert_eq!(
                    *byte,
                    value(frame, plane, row, column),
                    "frame {frame} plane {plane} row {row} column {column}"
                );
            }
        }
    }
}

/// Checks a picture in the layout of its VideoMeta, or in the layout of its caps if it has no VideoMeta.
#[track_caller]
pub fn assert_picture(seen: &RecordedFrame, info: &VideoInfo, frame: u8) {
    match &seen.layout {
        Some((offset, stride)) => assert_drawn(&seen.bytes, info, offset, stride, frame),
        None => assert_packed(seen, info, frame),
    }
}

/// Checks a picture that has no VideoMeta and no padding.
#[track_caller]
pub fn assert_packed(seen: &RecordedFrame, info: &VideoInfo, frame: u8) {
    assert_eq!((seen.bytes.len(), &seen.layout), (info.size(), &None));
    assert_drawn(&seen.bytes, info, info.offset(), info.stride(), frame);
}

/// The bytes of a picture in the layout of its caps.
pub fn packed(info: &VideoInfo, frame: u8) -> Vec<u8> {
    let mut bytes = vec![0xee; info.size()];
    draw(&mut bytes, info, info.offset(), info.stride(), frame);
    bytes
}

/// A picture in memory that the test allocated. It has gaps between the rows, between the planes and before the first
/// plane.
pub fn padded(info: &VideoInfo, frame: u8) -> gst::Buffer {
    let stride: Vec<i32> = info.stride().iter().map(|stride| stride + 52).collect();
    let offset: Vec<usize> = info.offset().iter().map(|offset| offset * 4 + 40 + 128 * 34).collect();
    let mut bytes = vec![0xee; info.size() * 6 + 128 * 34];
    draw(&mut bytes, info, &offset, &stride, frame);
    let mut buffer = gst::Buffer::from_slice(bytes);
    add_video_meta(buffer.get_mut().unwrap(), info, &offset, &stride);
    buffer
}

/// Adds a VideoMeta with the layout that `offset` and `stride` give.
pub fn add_video_meta(buffer: &mut gst::BufferRef, info: &VideoInfo, offset: &[usize], stride: &[i32]) {
    let flags = gst_video::VideoFrameFlags::empty();
    let (format, width, height) = (info.format(), info.width(), info.height());
    gst_video::VideoMeta::add_full(buffer, flags, format, width, height, offset, stride).unwrap();
}

/// A picture in a buffer of `pool`. The layout is that of the buffer's VideoMeta, or of the caps if it has none.
pub fn drawn(pool: &gst::BufferPool, info: &VideoInfo, frame: u8) -> gst::Buffer {
    let mut buffer = pool.acquire_buffer(None).unwrap();
    let (offset, stride) = layout(&buffer).unwrap_or((info.offset().to_vec(), info.stride().to_vec()));
    let target = buffer.get_mut().unwrap();
    let mut map = target.map_writable().unwrap();
    draw(map.as_mut_slice(), info, &offset, &stride, frame);
    drop(map);
    buffer
}

/// The padding of a picture with padding on all four sides.
pub fn padding() -> gst_video::VideoAlignment {
    gst_video::VideoAlignment::new(8, 6, 16, 4, &[31; 4])
}
