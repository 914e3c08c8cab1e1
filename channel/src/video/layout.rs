// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the planes and rows of a frame are.

use super::{
    error::VideoError,
    info::{InterlaceMode, VideoInfo},
    shape::DEFAULT_ALIGN,
};
use crate::protocol::layout::{FrameDescriptor, MAX_PLANES};

/// The largest stride, because a [`FrameDescriptor`] has it as an integer with a sign.
const MAX_STRIDE: u32 = i32::MAX as u32;

/// The largest alignment of rows.
const MAX_ALIGN: u32 = 4096;

/// Where the rows of one plane are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// The offset of the first row from the first byte of the frame.
    pub offset: u64,
    /// The number of bytes from one row to the next.
    pub stride: u32,
    /// The bytes of a row that hold pixels. The stride is at least as large, unless the plane has a single row.
    pub row_bytes: u32,
    /// The number of rows.
    pub rows: u32,
}

impl Plane {
    /// The offset of the byte after the last row; `None` if it has more than 64 bits.
    fn end(&self) -> Option<u64> {
        // Neither the product nor the sum with the last row overflows, because the numbers have 32 bits.
        let last = u64::from(self.rows.saturating_sub(1)) * u64::from(self.stride);
        self.offset.checked_add(last + u64::from(self.row_bytes))
    }
}

/// Where the planes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLayout {
    planes: [Plane; MAX_PLANES],
    count: usize,
    size: u64,
}

impl PlaneLayout {
    /// The planes.
    pub fn planes(&self) -> &[Plane] {
        &self.planes[..self.count]
    }

    /// How many bytes a frame has. In the default layout, this includes the padding after the last row. If the
    /// descriptor of a frame gave the layout, the frame ends with the last row.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The layout of frames of `info` in which the planes have these offsets and strides, and are inside `size` bytes.
    fn placed(
        info: &VideoInfo,
        planes: impl ExactSizeIterator<Item = (u64, i64)>,
        size: u64,
    ) -> Result<Self, VideoError> {
        let wrong = |what: String| info.frame_error(format!("{what}; check the caps and the planes of the writer"));
        let shapes = info.format().shape().planes();
        if planes.len() != shapes.len() {
            return Err(wrong(format!(
                "it has {} planes instead of {}",
                planes.len(),
                shapes.len()
            )));
        }
        let mut layout = Self {
            planes: [Plane::default(); MAX_PLANES],
            count: shapes.len(),
            size: 0,
        };
        for (index, ((shape, (offset, stride)), placed)) in
            shapes.iter().zip(planes).zip(&mut layout.planes).enumerate()
        {
            let row_bytes = info.row_bytes(shape.row_bytes(info.width()))?;
            let rows = shape.row_count(info.field_height());
            let stride = match u32::try_from(stride) {
                Ok(stride) if rows <= 1 || stride >= row_bytes => stride,
                _ => {
                    return Err(wrong(format!(
                        "plane {index} has a stride of {stride} bytes, but a row has {row_bytes}"
                    )));
                }
            };
            *placed = Plane {
                offset,
                stride,
                row_bytes,
                rows,
            };
            match placed.end() {
                Some(end) if end <= size => layout.size = layout.size.max(end),
                _ => {
                    return Err(wrong(format!(
                        "plane {index}, with the offset {offset} and {rows} rows {stride} bytes apart, is not inside the \
                     {size} bytes of the frame"
                    )));
                }
            }
        }
        Ok(layout)
    }

    /// The same layout, checked against `info` and `size` bytes. It may be the layout of frames with other caps.
    pub(super) fn checked(&self, info: &VideoInfo, size: usize) -> Result<Self, VideoError> {
        let planes = self.planes().iter().map(|plane| (plane.offset, plane.stride.into()));
        Self::placed(info, planes, size as u64)
    }
}

impl VideoInfo {
    /// The default layout of a frame, which is that of GStreamer's GstVideoInfo.
    ///
    /// # Errors
    /// [`VideoError::TooLarge`] if a frame would be too large.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::video::{VideoFormat, VideoInfo};
    ///
    /// let layout = VideoInfo::new(VideoFormat::Rgb, 641, 2, (30, 1))?.layout()?;
    /// let plane = layout.planes()[0];
    /// assert_eq!((plane.row_bytes, plane.stride, layout.size()), (1923, 1924, 3848));
    /// # Ok::<(), rsshm_channel::video::VideoError>(())
    /// ```
    pub fn layout(&self) -> Result<PlaneLayout, VideoError> {
        self.layout_aligned(DEFAULT_ALIGN.into())
    }

    /// The layout of a frame whose rows begin at multiples of `align` bytes, which takes the place of GStreamer's 4.
    /// Rows of a few formats, such as `v210`, are aligned to more bytes. The writer has to describe the planes of such
    /// a frame ([`FrameDescriptor::with_planes`]), unless `align` is 4.
    ///
    /// # Errors
    /// [`VideoError::Align`] if `align` is not a power of 2 from 1 to 4096, [`VideoError::TooLarge`] if a frame would
    /// be too large.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::video::{VideoFormat, VideoInfo};
    ///
    /// let layout = VideoInfo::new(VideoFormat::Nv12, 62, 4, (30, 1))?.layout_aligned(32)?;
    /// assert_eq!(layout.planes().iter().map(|plane| plane.stride).collect::<Vec<_>>(), [64, 64]);
    /// # Ok::<(), rsshm_channel::video::VideoError>(())
    /// ```
    pub fn layout_aligned(&self, align: u32) -> Result<PlaneLayout, VideoError> {
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(VideoError::Align { align });
        }
        let shapes = self.format().shape().planes();
        let mut layout = PlaneLayout {
            planes: [Plane::default(); MAX_PLANES],
            count: shapes.len(),
            size: 0,
        };
        let (width, height) = (self.width(), self.field_height());
        let is_interlaced = self.interlace_mode() != InterlaceMode::Progressive;
        for (shape, plane) in shapes.iter().zip(&mut layout.planes) {
            *plane = Plane {
                offset: layout.size,
                stride: self.row_bytes(shape.stride(width, align))?,
                row_bytes: self.row_bytes(shape.row_bytes(width))?,
                rows: shape.row_count(height),
            };
            layout.size = shape
                .size(width, height, align, is_interlaced)
                .and_then(|size| layout.size.checked_add(size))
                .ok_or_else(|| self.too_large())?;
        }
        Ok(layout)
    }

    /// The layout of the frame with this descriptor: the planes in the descriptor, or the default layout if it has
    /// none.
    ///
    /// All rows are inside the `size` bytes of the descriptor. The planes of a damaged descriptor may overlap.
    ///
    /// # Errors
    /// [`VideoError::Frame`] if the frame is too small, or if the planes do not fit the format.
    pub fn layout_of(&self, descriptor: &FrameDescriptor) -> Result<PlaneLayout, VideoError> {
        let size = descriptor.size;
        if descriptor.planes == 0 {
            let layout = self.layout()?;
            if layout.size > size {
                return Err(self.frame_error(format!(
                    "it has {size} bytes, but {} in the default layout; if its rows are not padded, the writer must \
                     describe its planes",
                    layout.size
                )));
            }
            return Ok(layout);
        }
        let count = descriptor.planes as usize;
        let planes = descriptor.plane_offset.iter().zip(descriptor.plane_stride);
        let planes: Vec<(u64, i64)> = planes
            .map(|(offset, stride)| (*offset, stride.into()))
            .take(count)
            .collect();
        if planes.len() != count {
            return Err(self.frame_error(format!(
                "its descriptor is damaged: it has {count} planes of at most {MAX_PLANES}"
            )));
        }
        PlaneLayout::placed(self, planes.into_iter(), size)
    }

    fn row_bytes(&self, bytes: u64) -> Result<u32, VideoError> {
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_STRIDE);
        bytes.ok_or_else(|| self.too_large())
    }

    fn too_large(&self) -> VideoError {
        VideoError::TooLarge {
            format: self.format().name(),
            width: self.width(),
            height: self.height(),
        }
    }

    fn frame_error(&self, what: String) -> VideoError {
        VideoError::Frame {
            format: self.format().name(),
            width: self.width(),
            height: self.field_height(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::video::format::VideoFormat;

    fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
        VideoInfo::new(format, width, height, (30, 1)).unwrap()
    }

    /// Offsets, strides, row bytes and rows of the planes, and the size.
    fn numbers(layout: &PlaneLayout) -> (Vec<[u64; 4]>, u64) {
        let plane = |plane: &Plane| {
            [
                plane.offset,
                plane.stride.into(),
                plane.row_bytes.into(),
                plane.rows.into(),
            ]
        };
        (layout.planes().iter().map(plane).collect(), layout.size())
    }

    #[test]
    fn default_layout_pads_rows_and_planes() {
        use VideoFormat::{A444, Gray10Le32, I420, Nv12_10Le40, Nv16_10Le40, Rgb8p, V210, Y216Le};
        // The tests of the plugin compare all formats of the installed GStreamer; some of these formats are newer.
        for (format, planes, size) in [
            (
                I420,
                vec![[0, 64, 61, 33], [2176, 32, 31, 17], [2720, 32, 31, 17]],
                3264,
            ),
            (Nv12_10Le40, vec![[0, 80, 80, 33], [2720, 80, 80, 17]], 4080),
            (Nv16_10Le40, vec![[0, 80, 80, 33], [2720, 80, 80, 33]], 5440),
            (V210, vec![[0, 256, 176, 33]], 8448),
            (Gray10Le32, vec![[0, 84, 84, 33]], 2856),
            (Rgb8p, vec![[0, 64, 61, 33], [2112, 4, 1024, 1]], 3136),
            (
                A444,
                vec![
                    [0, 64, 61, 33],
                    [2176, 64, 61, 33],
                    [4352, 64, 61, 33],
                    [6528, 64, 61, 33],
                ],
                8704,
            ),
            (Y216Le, vec![[0, 248, 248, 33]], 8184),
        ] {
            assert_eq!(
                numbers(&info(format, 61, 33).layout().unwrap()),
                (planes, size),
                "{format}"
            );
        }
    }

    #[test]
    fn rows_begin_at_multiples_of_the_alignment() {
        for format in VideoFormat::ALL {
            let info = info(*format, 61, 33);
            assert_eq!(info.layout_aligned(4), info.layout(), "{format}");
            let tight = info.layout_aligned(1).unwrap();
            for align in [1, 2, 8, 64, 4096] {
                let layout = info.layout_aligned(align).unwrap();
                for (plane, tight) in layout.planes().iter().zip(tight.planes()) {
                    if format.has_palette() && plane.rows == 1 {
                        continue;
                    }
                    assert!(
                        plane.stride % align == 0 && plane.offset % u64::from(align) == 0,
                        "{format}"
                    );
                    assert!(plane.stride - tight.stride < align.max(128), "{format}");
                    assert_eq!((plane.row_bytes, plane.rows), (tight.row_bytes, tight.rows), "{format}");
                }
            }
        }
        for align in [0, 3, 8192, u32::MAX] {
            let error = info(VideoFormat::Rgb, 4, 4).layout_aligned(align).unwrap_err();
            assert!(error.to_string().contains(&align.to_string()), "{error}");
        }
    }

    #[test]
    fn interlaced_chroma_has_whole_fields() {
        let caps = "video/x-raw, format=I420, width=8, height=6, interlace-mode=interleaved";
        let layout = VideoInfo::from_caps(caps).unwrap().layout().unwrap();
        assert_eq!(numbers(&layout), (vec![[0, 8, 8, 6], [48, 4, 4, 3], [64, 4, 4, 3]], 80));
    }

    #[test]
    fn huge_frames_are_refused() {
        for format in VideoFormat::ALL {
            let is_ok = |width, height| info(*format, width, height).layout().is_ok();
            assert!(is_ok(1, i32::MAX as u32), "{format}");
            let huge = info(*format, i32::MAX as u32, i32::MAX as u32);
            match huge.layout() {
                Ok(layout) => assert!(layout.size() >= u64::from(i32::MAX as u32).pow(2), "{format}"),
                Err(error) => assert!(error.to_string().contains("too large"), "{format}: {error}"),
            }
        }
    }

    #[test]
    fn planes_of_the_descriptor_are_used() {
        let info = info(VideoFormat::Nv12, 4, 4);
        let descriptor = FrameDescriptor::new(200).with_planes(&[(100, 16), (0, 8)]);
        let layout = info.layout_of(&descriptor).unwrap();
        assert_eq!(numbers(&layout), (vec![[100, 16, 4, 4], [0, 8, 4, 2]], 152));
    }

    #[test]
    fn wrong_planes_get_an_error_that_names_them() {
        let info = info(VideoFormat::Nv12, 4, 4);
        let wrong = |size, planes: &[(u64, i32)]| {
            let descriptor = FrameDescriptor::new(size).with_planes(planes);
            info.layout_of(&descriptor).unwrap_err().to_string()
        };
        for (size, planes, words) in [
            (23, &[][..], "has 23 bytes, but 24"),
            (24, &[(0, 4)], "1 planes instead of 2"),
            (
                24,
                &[(0, 4), (16, 3)],
                "plane 1 has a stride of 3 bytes, but a row has 4",
            ),
            (24, &[(0, -4), (16, 4)], "plane 0 has a stride of -4 bytes"),
            (24, &[(0, 4), (17, 4)], "plane 1, with the offset 17"),
            (
                24,
                &[(u64::MAX, 4), (16, 4)],
                "plane 0, with the offset 18446744073709551615",
            ),
            (24, &[(0, i32::MAX), (16, 4)], "plane 0"),
        ] {
            let error = wrong(size, planes);
            assert!(error.contains(words) && error.contains("NV12 of 4x4"), "{error}");
        }
        let mut descriptor = FrameDescriptor::new(1000);
        descriptor.planes = 5;
        let error = info.layout_of(&descriptor).unwrap_err().to_string();
        assert!(error.contains("5 planes"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn layout_of_any_descriptor_is_inside_the_frame(
            format in prop::sample::select(VideoFormat::ALL),
            width in prop_oneof![1_u32..100, 1_u32..=i32::MAX as u32],
            height in prop_oneof![1_u32..100, 1_u32..=i32::MAX as u32],
            size in prop_oneof![0_u64..100_000, any::<u64>()],
            planes in prop_oneof![0_u32..5, any::<u32>()],
            offset in prop::array::uniform4(prop_oneof![0_u64..100_000, any::<u64>()]),
            stride in prop::array::uniform4(prop_oneof![0_i32..1000, any::<i32>()]),
        ) {
            let mut descriptor = FrameDescriptor::new(size);
            descriptor.planes = planes;
            descriptor.plane_offset = offset;
            descriptor.plane_stride = stride;
            if let Ok(layout) = info(format, width, height).layout_of(&descriptor) {
                prop_assert!(layout.size() <= size);
                for plane in layout.planes() {
                    let last = u64::from(plane.rows - 1) * u64::from(plane.stride);
                    prop_assert!(plane.offset + last + u64::from(plane.row_bytes) <= size);
                    prop_assert!(plane.rows == 1 || plane.stride >= plane.row_bytes);
                }
            }
        }
    }
}
