//! A buffer as a frame of the channel, and back.

use gst_video::{VideoBufferFlags, prelude::*};
use rsshm_channel::{FrameDescriptor, TIME_NONE};

use crate::time::{self, Times};

/// Flags that say something of the buffer object, not of the frame.
const NOT_OF_THE_FRAME: gst::BufferFlags = gst::BufferFlags::TAG_MEMORY;

/// Times, counts and flags of `buffer`. Where its bytes lie is not among them. Without an `origin` it is from now: in a
/// pipeline without a clock its time stamp says nothing to others.
pub(crate) fn describe(buffer: &gst::BufferRef, times: Times, origin: Option<i64>) -> FrameDescriptor {
    let (pts, dts) = match origin {
        Some(origin) => (
            time::to_absolute(times.pts, origin),
            time::to_absolute(times.dts, origin),
        ),
        None => (rsshm_channel::monotonic_ns(), TIME_NONE),
    };
    FrameDescriptor {
        pts,
        dts,
        duration: times.duration.unwrap_or(TIME_NONE),
        offset: buffer.offset(),
        offset_end: buffer.offset_end(),
        // Fields and views have flags of their own, which the first set leaves out.
        flags: (buffer.flags() - NOT_OF_THE_FRAME).bits() | buffer.video_flags().bits(),
        ..Default::default()
    }
}

/// Gives `buffer` the counts, flags and duration of a frame; times are the caller's.
pub(crate) fn apply(buffer: &mut gst::BufferRef, descriptor: &FrameDescriptor) {
    if descriptor.duration != TIME_NONE {
        buffer.set_duration(gst::ClockTime::from_nseconds(descriptor.duration));
    }
    buffer.set_offset(descriptor.offset);
    buffer.set_offset_end(descriptor.offset_end);
    // The lowest four bits are those of every mini object (locks), not of a buffer.
    let flags = gst::BufferFlags::from_bits_truncate(descriptor.flags & !0xf) - NOT_OF_THE_FRAME;
    buffer.set_flags(flags);
    buffer.set_video_flags(VideoBufferFlags::from_bits_truncate(descriptor.flags));
}
