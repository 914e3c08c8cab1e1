// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caps of a stream as C needs them: texts that end with NUL, numbers, and where the planes of a frame are.

use std::ffi::{CString, c_char};

use rsshm_channel::{
    FrameDescriptor,
    caps_text::caps_parts,
    video::{PlaneLayout, VideoError, VideoInfo},
};

/// The most planes that a frame has, in `include/rsshm.h` too.
pub(crate) const MAX_PLANES: usize = 4;

/// What the caps of a stream say.
#[derive(Debug)]
pub(crate) struct Stream {
    caps: CString,
    /// The name of the raw format; empty for other caps.
    format: CString,
    /// The error says why the caps are not raw video that can be read.
    video: Result<VideoInfo, VideoError>,
    /// The planes of a frame whose descriptor has none, and the size that such a frame needs.
    default_planes: Option<(Planes, u64)>,
    drm: DrmFormat,
}

/// A format of the kernel, which caps for dmabufs name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DrmFormat {
    /// The code of the format; 0 if the caps have the name of GStreamer's format instead.
    pub(crate) fourcc: u32,
    /// How the pixels lie in the memory; 0 means in rows.
    pub(crate) modifier: u64,
}

impl DrmFormat {
    /// The caps have `format=DMA_DRM`, but no `drm-format` that can be read (`DRM_FORMAT_MOD_INVALID` of the kernel).
    const UNKNOWN: Self = Self {
        fourcc: 0,
        modifier: 0x00ff_ffff_ffff_ffff,
    };

    /// The format in the fields of caps.
    fn new(caps: &str) -> Self {
        let Ok(parts) = caps_parts(caps) else {
            return Self::default();
        };
        let field = |wanted: &str| {
            let mut fields = parts.fields.iter().filter(|(name, _)| name == wanted);
            fields.next_back().map(|(_, value)| value.as_str())
        };
        if parts.media_type != "video/x-raw" || field("format") != Some("DMA_DRM") {
            return Self::default();
        }
        field("drm-format").and_then(Self::parse).unwrap_or(Self::UNKNOWN)
    }

    /// The format of a text such as `NV12:0x0100000000000002`. Without a modifier, the pixels lie in rows.
    fn parse(text: &str) -> Option<Self> {
        let (name, modifier) = match text.split_once(':') {
            Some((name, modifier)) => (name, u64::from_str_radix(modifier.strip_prefix("0x")?, 16).ok()?),
            None => (text, 0),
        };
        let mut bytes = [b' '; 4];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.is_empty()).then(|| Self {
            fourcc: u32::from_le_bytes(bytes),
            modifier,
        })
    }
}

/// The values of the caps, as the structures of `include/rsshm.h` have them.
#[derive(Clone, Copy)]
pub(crate) struct StreamValues {
    pub(crate) caps: *const c_char,
    pub(crate) format: *const c_char,
    pub(crate) width: i32,
    pub(crate) height: i32,
    pub(crate) fps_n: i32,
    pub(crate) fps_d: i32,
}

/// Where a plane is in a frame. All its rows are inside the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanePlace {
    pub(crate) offset: usize,
    pub(crate) stride: isize,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
}

/// The places of planes, and their number.
pub(crate) type Planes = ([PlanePlace; MAX_PLANES], usize);

impl Stream {
    pub(crate) fn new(caps: &str) -> Self {
        let video = VideoInfo::from_caps(caps);
        let default_planes = video.as_ref().ok().and_then(|video| {
            let layout = video.layout().ok()?;
            Some((places(&layout, layout.size() as usize)?, layout.size()))
        });
        let format = video.as_ref().map_or("", |video| video.format().name());
        Self {
            // Caps with a NUL are not valid, so no writer of this project has them.
            caps: CString::new(caps).unwrap_or_default(),
            format: CString::new(format).unwrap_or_default(),
            video,
            default_planes,
            drm: DrmFormat::new(caps),
        }
    }

    /// The caps as text.
    pub(crate) fn caps(&self) -> &str {
        self.caps.to_str().unwrap_or_default()
    }

    /// What the caps say about raw video.
    pub(crate) fn video(&self) -> Result<&VideoInfo, VideoError> {
        self.video.as_ref().map_err(Clone::clone)
    }

    /// The format of the kernel, if the caps name one.
    pub(crate) fn drm(&self) -> DrmFormat {
        self.drm
    }

    /// The values for C. The texts live as long as `self`.
    pub(crate) fn values(&self) -> StreamValues {
        let number = |value: u32| i32::try_from(value).unwrap_or(0);
        let (fps_n, fps_d) = self.video.as_ref().map_or((0, 1), VideoInfo::framerate);
        StreamValues {
            caps: self.caps.as_ptr(),
            format: self.format.as_ptr(),
            width: self.video.as_ref().map_or(0, |video| number(video.width())),
            height: self.video.as_ref().map_or(0, |video| number(video.height())),
            fps_n,
            fps_d,
        }
    }

    /// The planes of a frame with this descriptor, and their number. There are none if the caps are not raw video, or if
    /// a plane is not inside the frame.
    pub(crate) fn planes(&self, descriptor: &FrameDescriptor) -> Planes {
        if descriptor.planes == 0 {
            let planes = self.default_planes.filter(|(_, size)| *size <= descriptor.size);
            return planes.map(|(planes, _)| planes).unwrap_or_default();
        }
        let layout = self
            .video
            .as_ref()
            .ok()
            .and_then(|video| video.layout_of(descriptor).ok());
        layout
            .and_then(|layout| places(&layout, descriptor.size as usize))
            .unwrap_or_default()
    }
}

/// The planes of `layout`; `None` if one of them is not inside the `size` bytes of the frame.
pub(crate) fn places(layout: &PlaneLayout, size: usize) -> Option<Planes> {
    let planes = layout.planes();
    let mut places = [PlanePlace::default(); MAX_PLANES];
    for (place, plane) in places.iter_mut().zip(planes) {
        *place = PlanePlace {
            offset: usize::try_from(plane.offset).ok()?,
            stride: plane.stride as isize,
            row_bytes: plane.row_bytes as usize,
            rows: plane.rows as usize,
        };
        if !place.is_inside(size) {
            return None;
        }
    }
    (planes.len() <= MAX_PLANES).then_some((places, planes.len()))
}

impl PlanePlace {
    /// Whether all rows are inside a frame of `size` bytes.
    fn is_inside(&self, size: usize) -> bool {
        let last_row = |rows: usize| isize::try_from(rows).ok()?.checked_mul(self.stride);
        let row_end = |start: isize| {
            let start = self.offset.checked_add_signed(start)?;
            start.checked_add(self.row_bytes)
        };
        let Some(last) = self.rows.checked_sub(1) else {
            return true;
        };
        [Some(0), last_row(last)]
            .into_iter()
            .all(|start| start.and_then(row_end).is_some_and(|end| end <= size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_outside_the_frame_are_left_out() {
        let stream = Stream::new("video/x-raw,format=GRAY8,width=4,height=3,framerate=30/1");
        let count = |offset, stride, size| {
            let descriptor = FrameDescriptor::new(size).with_planes(&[(offset, stride)]);
            stream.planes(&descriptor).1
        };
        assert_eq!(stream.planes(&FrameDescriptor::new(12)).1, 1);
        assert_eq!(count(0, 4, 12), 1);
        assert_eq!(count(4, 8, 24), 1);
        assert_eq!(count(5, 8, 24), 0);
        assert_eq!(count(0, i32::MAX, 12), 0);
        assert_eq!(count(u64::MAX, 4, 12), 0);
        assert_eq!(count(0, i32::MIN, 12), 0);
    }

    #[test]
    fn caps_name_a_format_of_the_kernel() {
        let drm = |fields: &str| Stream::new(&format!("video/x-raw(memory:DMABuf){fields},width=4,height=4")).drm();
        let (fourcc, modifier) = (u32::from_le_bytes(*b"NV12"), 0x0100_0000_0000_0002);
        let found = drm(",format=DMA_DRM,drm-format=NV12:0x0100000000000002");
        assert_eq!(found, DrmFormat { fourcc, modifier });
        assert_eq!(drm(",format=DMA_DRM,drm-format=NV12").modifier, 0);
        assert_eq!(
            drm(",format=DMA_DRM,drm-format=R8").fourcc,
            u32::from_le_bytes(*b"R8  ")
        );
        for unknown in ["", ",drm-format=NV12:2", ",drm-format=ABCDE", ",drm-format=\"\""] {
            assert_eq!(
                drm(&format!(",format=DMA_DRM{unknown}")),
                DrmFormat::UNKNOWN,
                "{unknown}"
            );
        }
        assert_eq!(drm(",format=NV12"), DrmFormat::default());
    }

    #[test]
    fn other_caps_have_no_planes() {
        let stream = Stream::new("application/x-klv,parsed=true");
        assert_eq!(stream.planes(&FrameDescriptor::new(12)).1, 0);
        assert_eq!(stream.values().width, 0);
    }
}
