// SPDX-License-Identifier: MIT OR Apache-2.0

//! Converts the fields of a buffer to a frame descriptor, and a frame descriptor to the fields of a buffer.

use gst_video::{VideoBufferFlags, prelude::*};
use rsshm_channel::{FrameDescriptor, TIME_NONE};

use crate::time::{self, Times};

/// Buffer flags that describe the buffer object and not the frame.
const OBJECT_FLAGS: gst::BufferFlags = gst::BufferFlags::TAG_MEMORY;

/// The flag bits that every GstMiniObject uses for its locks. They do not belong to the buffer.
const MINI_OBJECT_FLAGS: u32 = 0xf;

/// Describes the times, counts and flags of `buffer`. The size and the layout are set when the frame is published.
///
/// `origin` is the CLOCK_MONOTONIC time of running time 0, in nanoseconds. If it is `None`, the pipeline has no clock,
/// and its timestamps mean nothing to other programs. The frame then gets the current time.
pub(crate) fn describe(buffer: &gst::BufferRef, times: Times, origin: Option<i64>) -> FrameDescriptor {
    let (pts, dts) = match origin {
        Some(origin) => (
            time::to_absolute(times.pts, origin),
            time::to_absolute(times.dts, origin),
        ),
        None => (rsshm_channel::monotonic_ns(), TIME_NONE),
    };
    // `buffer.flags()` leaves out the flags of fields and views, so those of `video_flags()` are added.
    let flags = (buffer.flags() - OBJECT_FLAGS).bits() | buffer.video_flags().bits();
    let mut descriptor = FrameDescriptor::new(0)
        .with_pts(pts)
        .with_dts(dts)
        .with_duration(times.duration.unwrap_or(TIME_NONE))
        .with_offset(buffer.offset())
        .with_flags(flags);
    descriptor.offset_end = buffer.offset_end();
    descriptor
}

/// Gives `buffer` the counts, flags and duration of a frame. The caller sets the timestamps of the buffer.
pub(crate) fn apply(buffer: &mut gst::BufferRef, descriptor: &FrameDescriptor) {
    if descriptor.duration != TIME_NONE {
        buffer.set_duration(gst::ClockTime::from_nseconds(descriptor.duration));
    }
    buffer.set_offset(descriptor.offset);
    buffer.set_offset_end(descriptor.offset_end);
    let flags = gst::BufferFlags::from_bits_truncate(descriptor.flags & !MINI_OBJECT_FLAGS) - OBJECT_FLAGS;
    buffer.set_flags(flags);
    buffer.set_video_flags(VideoBufferFlags::from_bits_truncate(descriptor.flags));
}
