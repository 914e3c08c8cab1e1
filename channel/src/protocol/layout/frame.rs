// SPDX-License-Identifier: MIT OR Apache-2.0

//! The description of a frame.

use bytemuck::{Pod, Zeroable};

use super::{MAX_METADATA_SIZE, MAX_PLANES, RUN_ALIGN, ReferenceTable, TIME_NONE, size_of_field};

/// The size of a [`FrameDescriptor`] in words.
pub const DESCRIPTOR_WORDS: usize = size_of::<FrameDescriptor>() / 8;

/// The description of a frame: its times, its size and its planes. Times are CLOCK_MONOTONIC nanoseconds, or
/// [`TIME_NONE`].
///
/// # Examples
///
/// ```
/// use rsshm_channel::{FrameDescriptor, monotonic_ns};
///
/// // NV12 of 640 x 360: a plane of luma, then a plane of chroma.
/// let descriptor = FrameDescriptor::new(640 * 540)
///     .with_pts(monotonic_ns())
///     .with_planes(&[(0, 640), (640 * 360, 640)]);
/// assert_eq!(descriptor.planes, 2);
/// assert!(!descriptor.is_delta());
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[non_exhaustive]
pub struct FrameDescriptor {
    /// The presentation time.
    pub pts: u64,
    /// The decoding time.
    pub dts: u64,
    /// The duration in nanoseconds.
    pub duration: u64,
    /// The producer's own count at this frame (GST_BUFFER_OFFSET), or [`TIME_NONE`].
    pub offset: u64,
    /// The producer's own count after this frame (GST_BUFFER_OFFSET_END), or [`TIME_NONE`].
    pub offset_end: u64,
    /// The offset of the frame's bytes in its slot.
    pub data_offset: u64,
    /// The size of the frame in bytes.
    pub size: u64,
    /// GstBufferFlags, such as [`DELTA_UNIT`].
    pub flags: u32,
    /// How many planes are described below; 0 if the frame has the default layout of its caps, or no planes.
    pub planes: u32,
    /// The offset of each plane from the frame's first byte.
    pub plane_offset: [u64; MAX_PLANES],
    /// The number of bytes from one row to the next, for each plane.
    pub plane_stride: [i32; MAX_PLANES],
    /// The size of the metadata in bytes.
    pub metadata_size: u32,
    /// 1 if a reader can start with this frame, 0 otherwise. The writer sets it when it publishes the frame.
    pub keyframe: u32,
    /// Zero.
    reserved: [u64; 14],
}

/// The bit of [`FrameDescriptor::flags`] that is set if the frame is a header (GST_BUFFER_FLAG_HEADER).
pub const HEADER: u32 = 1 << 10;
/// The bit of [`FrameDescriptor::flags`] that is set if the frame is not a keyframe (GST_BUFFER_FLAG_DELTA_UNIT).
pub const DELTA_UNIT: u32 = 1 << 13;

impl Default for FrameDescriptor {
    fn default() -> Self {
        Self {
            pts: TIME_NONE,
            dts: TIME_NONE,
            duration: TIME_NONE,
            offset: TIME_NONE,
            offset_end: TIME_NONE,
            ..Self::zeroed()
        }
    }
}

impl FrameDescriptor {
    /// The descriptor of a frame of `size` bytes, with no times, no flags, and the default layout of its caps.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Sets the presentation time, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn with_pts(mut self, pts: u64) -> Self {
        self.pts = pts;
        self
    }

    /// Sets the decoding time, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn with_dts(mut self, dts: u64) -> Self {
        self.dts = dts;
        self
    }

    /// Sets the duration, in nanoseconds.
    #[must_use]
    pub fn with_duration(mut self, duration: u64) -> Self {
        self.duration = duration;
        self
    }

    /// Sets the producer's own count at this frame.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the producer's own count after this frame.
    #[must_use]
    pub fn with_offset_end(mut self, offset_end: u64) -> Self {
        self.offset_end = offset_end;
        self
    }

    /// Sets the flags: GstBufferFlags, such as [`DELTA_UNIT`].
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// For each plane, sets the offset from the frame's first byte and the number of bytes from one row to the next.
    /// Planes beyond [`MAX_PLANES`] are ignored.
    #[must_use]
    pub fn with_planes(mut self, planes: &[(u64, i32)]) -> Self {
        self.planes = planes.len().min(MAX_PLANES) as u32;
        for (index, (offset, stride)) in planes.iter().take(MAX_PLANES).enumerate() {
            self.plane_offset[index] = *offset;
            self.plane_stride[index] = *stride;
        }
        self
    }

    /// Whether the frame is not a keyframe, and therefore can be decoded only together with frames before it.
    pub fn is_delta(&self) -> bool {
        self.flags & DELTA_UNIT != 0
    }

    /// The offset of the metadata in the slot, if the frame is appended to a run. `None` if no slot is that large.
    pub(crate) fn metadata_offset(&self) -> Option<u64> {
        let end = self.data_offset.checked_add(self.size)?;
        end.checked_next_multiple_of(RUN_ALIGN)
    }

    /// Whether everything that the descriptor describes is within bounds, for a slot of `slot_size` bytes.
    pub fn fits(&self, slot_size: u64) -> bool {
        self.fits_with(self.size, slot_size)
    }

    /// Whether everything that the descriptor describes is within bounds, if the slot has a [`ReferenceTable`] instead
    /// of the bytes of the frame.
    pub(crate) fn fits_as_references(&self, slot_size: u64) -> bool {
        self.fits_with(size_of::<ReferenceTable>() as u64, slot_size)
    }

    fn fits_with(&self, size_in_slot: u64, slot_size: u64) -> bool {
        self.data_offset
            .checked_add(size_in_slot)
            .is_some_and(|end| end <= slot_size)
            && self.planes as usize <= MAX_PLANES
            && self.plane_offset[..self.planes as usize]
                .iter()
                .all(|offset| *offset <= self.size)
            && self.metadata_size as usize <= MAX_METADATA_SIZE
    }
}

const _: () = assert!(size_of::<FrameDescriptor>() % 8 == 0);

reserved_fields!(FrameDescriptor: reserved);
