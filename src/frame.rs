//! A buffer as a frame of the channel, and back.

use rsshm_channel::{FrameDescriptor, NONE};

use crate::time;

/// Flags that say something of the buffer object, not of the frame.
const NOT_OF_THE_FRAME: gst::BufferFlags = gst::BufferFlags::TAG_MEMORY;

/// Times, counts and flags of `buffer`. Where its bytes lie is not among them. Without an `origin` it is from now: in a
/// pipeline without a clock its time stamp says nothing to others.
pub(crate) fn describe(
    buffer: &gst::BufferRef,
    segment: &gst::FormattedSegment<gst::ClockTime>,
    origin: Option<i64>,
) -> FrameDescriptor {
    let (pts, dts) = match origin {
        Some(origin) => (
            time::to_absolute(buffer.pts(), segment, origin),
            time::to_absolute(buffer.dts(), segment, origin),
        ),
        None => (rsshm_channel::monotonic_ns(), NONE),
    };
    FrameDescriptor {
        pts,
        dts,
        duration: buffer.duration().map_or(NONE, |duration| duration.nseconds()),
        offset: buffer.offset(),
        offset_end: buffer.offset_end(),
        flags: (buffer.flags() - NOT_OF_THE_FRAME).bits(),
        ..Default::default()
    }
}

/// Gives `buffer` the counts, flags and duration of a frame; times are the caller's.
pub(crate) fn apply(buffer: &mut gst::BufferRef, descriptor: &FrameDescriptor) {
    if descriptor.duration != NONE {
        buffer.set_duration(gst::ClockTime::from_nseconds(descriptor.duration));
    }
    buffer.set_offset(descriptor.offset);
    buffer.set_offset_end(descriptor.offset_end);
    // The lowest four bits are those of every mini object (locks), not of a buffer.
    let flags = gst::BufferFlags::from_bits_truncate(descriptor.flags & !0xf) - NOT_OF_THE_FRAME;
    buffer.set_flags(flags);
}

/// Where the planes of a video frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) count: usize,
    pub(crate) offset: [usize; gst_video::VIDEO_MAX_PLANES],
    pub(crate) stride: [i32; gst_video::VIDEO_MAX_PLANES],
}

impl Planes {
    /// The layout that the format has when nothing else is said.
    pub(crate) fn default_of(info: &gst_video::VideoInfo) -> Self {
        Self::new(info.offset(), info.stride())
    }

    /// The layout that a buffer says it has, or the default one.
    pub(crate) fn of_buffer(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Self {
        buffer.meta::<gst_video::VideoMeta>().map_or_else(
            || Self::default_of(info),
            |meta| Self::new(meta.offset(), meta.stride()),
        )
    }

    /// The layout that a frame of the channel says it has.
    pub(crate) fn of_descriptor(descriptor: &FrameDescriptor, info: &gst_video::VideoInfo) -> Self {
        if descriptor.planes == 0 {
            return Self::default_of(info);
        }
        let count = (descriptor.planes as usize).min(gst_video::VIDEO_MAX_PLANES);
        let offset = descriptor
            .plane_offset
            .map(|offset| usize::try_from(offset).unwrap_or(usize::MAX));
        Self::new(&offset[..count], &descriptor.plane_stride[..count])
    }

    fn new(offset: &[usize], stride: &[i32]) -> Self {
        let mut planes = Self {
            count: offset.len().min(stride.len()).min(gst_video::VIDEO_MAX_PLANES),
            offset: [0; gst_video::VIDEO_MAX_PLANES],
            stride: [0; gst_video::VIDEO_MAX_PLANES],
        };
        planes.offset[..planes.count].copy_from_slice(&offset[..planes.count]);
        planes.stride[..planes.count].copy_from_slice(&stride[..planes.count]);
        planes
    }

    pub(crate) fn write_to(&self, descriptor: &mut FrameDescriptor) {
        descriptor.planes = self.count as u32;
        descriptor.plane_offset = self.offset.map(|offset| offset as u64);
        descriptor.plane_stride = self.stride;
    }

    /// Whether every row of every plane lies inside `size` bytes. GStreamer checks nothing of what a VideoMeta says.
    pub(crate) fn fit(&self, info: &gst_video::VideoInfo, size: usize) -> bool {
        if self.count != info.n_planes() as usize {
            return false;
        }
        if *self == Self::default_of(info) {
            return size >= info.size();
        }
        // In tiled formats a stride is not one: only the default layout is taken there.
        if info.format_info().is_tiled() {
            return false;
        }
        let default = Self::default_of(info);
        (0..self.count).all(|plane| {
            let Some(rows) = rows_of_plane(info, plane) else {
                return false;
            };
            let Ok(stride) = usize::try_from(self.stride[plane]) else {
                return false;
            };
            // What a row of the default layout has, but for its padding, is what a row needs.
            let Some(row) = row_bytes(info, plane) else {
                return false;
            };
            stride >= row
                && default.stride[plane] > 0
                && stride
                    .checked_mul(rows.saturating_sub(1))
                    .and_then(|bytes| bytes.checked_add(row))
                    .and_then(|bytes| bytes.checked_add(self.offset[plane]))
                    .is_some_and(|end| end <= size)
        })
    }

    /// Gives `buffer` a VideoMeta that says so.
    pub(crate) fn add_meta(
        &self,
        buffer: &mut gst::BufferRef,
        info: &gst_video::VideoInfo,
    ) -> Result<(), gst::glib::BoolError> {
        gst_video::VideoMeta::add_full(
            buffer,
            gst_video::VideoFrameFlags::empty(),
            info.format(),
            info.width(),
            info.height(),
            &self.offset[..self.count],
            &self.stride[..self.count],
        )
        .map(drop)
    }
}

/// The first component that lies in `plane`.
fn component_of_plane(info: &gst_video::VideoInfo, plane: usize) -> Option<u8> {
    (0..info.n_components() as u8).find(|component| info.comp_plane(*component) as usize == plane)
}

fn rows_of_plane(info: &gst_video::VideoInfo, plane: usize) -> Option<usize> {
    // A palette is a plane without a component.
    if info.format_info().has_palette() && plane == 1 {
        return Some(1);
    }
    component_of_plane(info, plane).map(|component| info.comp_height(component) as usize)
}

/// Bytes of a row that hold pixels, at least.
fn row_bytes(info: &gst_video::VideoInfo, plane: usize) -> Option<usize> {
    if info.format_info().has_palette() && plane == 1 {
        return Some(256 * 4);
    }
    let component = component_of_plane(info, plane)?;
    // Formats whose pixels are packed in groups have a pixel stride of 0: there only the default stride is known to do.
    let pixel = info.comp_pstride(component);
    match usize::try_from(pixel) {
        Ok(0) | Err(_) => usize::try_from(info.stride()[plane]).ok(),
        Ok(pixel) => Some(pixel * info.comp_width(component) as usize),
    }
}
