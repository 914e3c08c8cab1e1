// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory layout of raw video frames: where planes and rows begin.

use gst_video::{VideoFormat, VideoInfo};
use rsshm_channel::{Copier, FrameDescriptor};

use crate::dmabuf::OpaquePicture;

/// The offsets and strides of the planes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) count: usize,
    pub(crate) offset: [usize; gst_video::VIDEO_MAX_PLANES],
    pub(crate) stride: [i32; gst_video::VIDEO_MAX_PLANES],
}

impl Planes {
    /// The default layout of the format.
    pub(crate) fn default_of(info: &VideoInfo) -> Self {
        Self::new(info.offset(), info.stride())
    }

    /// The layout of a buffer of `size` bytes. If the buffer has a GstVideoMeta, the meta gives the layout.
    ///
    /// Without a GstVideoMeta, the layout is the default one, except that a buffer of exactly the unpadded size has the
    /// unpadded layout. Programs that do not know GStreamer's padding (OpenCV, NumPy behind an appsrc) send rows
    /// without padding.
    pub(crate) fn of_buffer(buffer: &gst::BufferRef, size: usize, info: &VideoInfo) -> Self {
        if let Some(meta) = buffer.meta::<gst_video::VideoMeta>() {
            return Self::new(meta.offset(), meta.stride());
        }
        if size < info.size()
            && let Some(unpadded) = Self::unpadded_of(info).filter(|unpadded| unpadded.size_of(info) == Some(size))
        {
            return unpadded;
        }
        Self::default_of(info)
    }

    /// Whether this is the unpadded layout, and `size` is the size of an unpadded frame.
    ///
    /// In a few formats, the default layout differs from the unpadded one only by padding behind the last row. For
    /// these formats, [`Self::fit`] expects the padding, so it refuses an unpadded frame.
    pub(crate) fn is_unpadded(&self, info: &VideoInfo, size: usize) -> bool {
        Self::unpadded_of(info) == Some(*self) && self.size_of(info) == Some(size)
    }

    /// The layout without padding between rows and planes; `None` for tiled formats.
    #[cold]
    fn unpadded_of(info: &VideoInfo) -> Option<Self> {
        let default = Self::default_of(info);
        let rows = default.rows(info)?;
        let mut unpadded = default;
        let mut end = 0;
        for (plane, rows) in rows.of_plane.iter().enumerate().take(default.count) {
            unpadded.offset[plane] = end;
            // A palette is a single row, and its default stride is less than the bytes of this row.
            unpadded.stride[plane] = i32::try_from(rows.bytes.min(rows.stride)).ok()?;
            end += rows.bytes * rows.count;
        }
        Some(unpadded)
    }

    /// The message that says why a buffer of `size` bytes does not have this layout, and what to do about it.
    #[cold]
    pub(crate) fn misfit(&self, buffer: &gst::BufferRef, size: usize, info: &VideoInfo) -> String {
        if buffer.meta::<gst_video::VideoMeta>().is_some() {
            return format!(
                "its {size} bytes are too few for the layout in its GstVideoMeta: offsets {:?}, strides {:?}",
                &self.offset[..self.count],
                &self.stride[..self.count]
            );
        }
        let unpadded = Self::unpadded_of(info)
            .and_then(|planes| planes.size_of(info))
            .map_or_else(String::new, |bytes| format!(" or {bytes} without padding"));
        format!(
            "it has {size} bytes, but {} of {}x{} has {} in GStreamer's default layout{unpadded}: add a GstVideoMeta with \
             its offsets and strides, or put rawvideoparse with these before this element",
            info.format(),
            info.width(),
            info.field_height(),
            info.size()
        )
    }

    /// The layout that the descriptor of a frame describes; the default layout if the descriptor has no planes.
    pub(crate) fn of_descriptor(descriptor: &FrameDescriptor, info: &VideoInfo) -> Self {
        Self::described(descriptor).unwrap_or_else(|| Self::default_of(info))
    }

    /// The layout that the descriptor of a frame describes; `None` if the descriptor has no planes.
    fn described(descriptor: &FrameDescriptor) -> Option<Self> {
        let count = (descriptor.planes as usize).min(gst_video::VIDEO_MAX_PLANES);
        let offset = descriptor
            .plane_offset
            .map(|offset| usize::try_from(offset).unwrap_or(usize::MAX));
        (count > 0).then(|| Self::new(&offset[..count], &descriptor.plane_stride[..count]))
    }

    /// The layout that a descriptor describes for a frame of `size` bytes that only devices can read. Only a device knows
    /// how many bytes such a plane has.
    pub(crate) fn of_opaque_descriptor(descriptor: &FrameDescriptor, size: usize) -> Option<Self> {
        Self::described(descriptor).filter(|planes| planes.begin_within(size))
    }

    /// The layout in the GstVideoMeta of a buffer that only devices can read; `None` without a usable meta.
    pub(crate) fn of_opaque_buffer(buffer: &gst::BufferRef) -> Option<Self> {
        let meta = buffer.meta::<gst_video::VideoMeta>()?;
        let planes = Self::new(meta.offset(), meta.stride());
        (planes.count > 0 && planes.begin_within(buffer.size())).then_some(planes)
    }

    /// Whether each plane begins inside `size` bytes.
    fn begin_within(&self, size: usize) -> bool {
        self.offset[..self.count].iter().all(|offset| *offset < size)
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

    /// Adds this layout to the descriptor of a frame.
    pub(crate) fn describe(&self, descriptor: FrameDescriptor) -> FrameDescriptor {
        let planes: [(u64, i32); gst_video::VIDEO_MAX_PLANES] =
            std::array::from_fn(|plane| (self.offset[plane] as u64, self.stride[plane]));
        descriptor.with_planes(&planes[..self.count])
    }

    /// Whether every row of every plane lies inside `size` bytes. GStreamer does not check this for a GstVideoMeta.
    pub(crate) fn fit(&self, info: &VideoInfo, size: usize) -> bool {
        self.fit_as(self.is_default(info), info, size)
    }

    /// The result of [`Self::fit`], for a caller that already knows whether this is the default layout.
    pub(crate) fn fit_as(&self, is_default: bool, info: &VideoInfo, size: usize) -> bool {
        if is_default {
            return size >= info.size();
        }
        self.rows(info).is_some_and(|rows| rows.end() <= size)
    }

    /// Whether this is the default layout of the format.
    pub(crate) fn is_default(&self, info: &VideoInfo) -> bool {
        *self == Self::default_of(info)
    }

    /// Whether `size` bytes also hold the padding after the last row of every plane. GStreamer's elements need this
    /// padding, because they copy planes in whole strides.
    pub(crate) fn fit_whole_strides(&self, info: &VideoInfo, size: usize) -> bool {
        self.size_of(info).is_some_and(|bytes| bytes <= size)
    }

    /// The size of a frame of this layout, with its padding; `None` if frames of `info` cannot have this layout.
    pub(crate) fn size_of(&self, info: &VideoInfo) -> Option<usize> {
        self.rows(info).map(|rows| rows.end_of_strides())
    }

    fn rows(&self, info: &VideoInfo) -> Option<Rows> {
        // The stride of a tiled format is not a number of bytes, so only the default layout is supported.
        if self.count != info.n_planes() as usize || info.format_info().is_tiled() {
            return None;
        }
        let mut rows = Rows::default();
        for plane in 0..self.count {
            rows.of_plane[plane] = PlaneRows::new(info, plane, self.offset[plane], self.stride[plane])?;
        }
        Some(rows)
    }

    /// Copies the rows of `from`, which has this layout, into `to`, which has the default layout.
    pub(crate) fn copy_packed(
        &self,
        from: &gst::BufferRef,
        info: &VideoInfo,
        to: &mut [u8],
        copier: Copier,
    ) -> Result<(), String> {
        let no_layout = || format!("its layout {self:?} is impossible for {}", info.format());
        let rows = self.rows(info).ok_or_else(no_layout)?;
        let packed = Self::default_of(info).rows(info).ok_or_else(no_layout)?;
        for (rows, packed) in rows.of_plane.iter().zip(&packed.of_plane).take(self.count) {
            // Maps only the memories that the plane lies in, so that the other memories are not merged.
            let (memories, skip) = from
                .find_memory(rows.offset..rows.end())
                .ok_or_else(|| format!("its {} bytes are too few for its layout {self:?}", from.size()))?;
            let map = from
                .map_range_readable(memories)
                .map_err(|_| "it cannot be mapped for reading")?;
            let to = to
                .get_mut(packed.offset..packed.end())
                .ok_or("the target is too small for it")?;
            let from = map.get(skip..).ok_or("it cannot be mapped as a whole")?;
            rows.copy(from, packed, to, copier);
        }
        Ok(())
    }

    /// Adds a GstVideoMeta with this layout to `buffer`.
    pub(crate) fn add_meta(&self, buffer: &mut gst::BufferRef, info: &VideoInfo) -> Result<(), gst::glib::BoolError> {
        self.add_meta_of(buffer, info.format(), info.width(), info.height())
    }

    /// Adds a GstVideoMeta with this layout to a buffer that only devices can read.
    pub(crate) fn add_opaque_meta(
        &self,
        buffer: &mut gst::BufferRef,
        picture: OpaquePicture,
    ) -> Result<(), gst::glib::BoolError> {
        self.add_meta_of(buffer, picture.format, picture.width, picture.height)
    }

    fn add_meta_of(
        &self,
        buffer: &mut gst::BufferRef,
        format: VideoFormat,
        width: u32,
        height: u32,
    ) -> Result<(), gst::glib::BoolError> {
        gst_video::VideoMeta::add_full(
            buffer,
            gst_video::VideoFrameFlags::empty(),
            format,
            width,
            height,
            &self.offset[..self.count],
            &self.stride[..self.count],
        )
        .map(drop)
    }
}

/// The rows of each plane.
#[derive(Default)]
struct Rows {
    of_plane: [PlaneRows; gst_video::VIDEO_MAX_PLANES],
}

impl Rows {
    fn end(&self) -> usize {
        self.of_plane.iter().map(PlaneRows::end).max().unwrap_or(0)
    }

    fn end_of_strides(&self) -> usize {
        self.of_plane.iter().map(PlaneRows::end_of_strides).max().unwrap_or(0)
    }
}

/// The rows of one plane. `new` ensures that computing where they end does not overflow.
#[derive(Clone, Copy, Default)]
struct PlaneRows {
    offset: usize,
    stride: usize,
    count: usize,
    /// The bytes of a row that hold pixels.
    bytes: usize,
}

impl PlaneRows {
    /// `None` if the rows overlap, or if computing their end would overflow.
    fn new(info: &VideoInfo, plane: usize, offset: usize, stride: i32) -> Option<Self> {
        let has_palette = info.format_info().has_palette() && plane == 1;
        let rows = Self {
            offset,
            stride: usize::try_from(stride).ok()?,
            count: if has_palette { 1 } else { row_count(info, plane)? },
            bytes: if has_palette { 256 * 4 } else { row_bytes(info, plane)? },
        };
        rows.stride
            .max(rows.bytes)
            .checked_mul(rows.count)
            .and_then(|bytes| bytes.checked_add(offset))?;
        (rows.count <= 1 || rows.stride >= rows.bytes).then_some(rows)
    }

    fn end(&self) -> usize {
        self.offset + self.stride * self.count.saturating_sub(1) + self.bytes
    }

    fn end_of_strides(&self) -> usize {
        self.offset + self.stride.max(self.bytes) * self.count
    }

    /// Copies these rows to the rows `packed`. The first of these rows begins with the first byte of `from`, and the
    /// first of `packed` with the first byte of `to`.
    fn copy(&self, from: &[u8], packed: &Self, to: &mut [u8], copier: Copier) {
        if self.stride == packed.stride {
            // The padding between the rows is copied too, because one large copy is faster than many small ones.
            let bytes = from.len().min(to.len());
            copier.copy(&from[..bytes], &mut to[..bytes]);
            return;
        }
        // A single row may have a stride of 0.
        let rows = from.chunks(self.stride.max(self.bytes).max(1));
        let packed_rows = to.chunks_mut(packed.stride.max(self.bytes).max(1));
        for (from, to) in rows.zip(packed_rows).take(self.count) {
            let bytes = self.bytes.min(from.len()).min(to.len());
            copier.copy(&from[..bytes], &mut to[..bytes]);
        }
    }
}

/// The components in `plane`.
fn components_of_plane(info: &VideoInfo, plane: usize) -> impl Iterator<Item = u8> + '_ {
    (0..info.n_components() as u8).filter(move |component| info.comp_plane(*component) as usize == plane)
}

fn row_count(info: &VideoInfo, plane: usize) -> Option<usize> {
    let component = components_of_plane(info, plane).next()?;
    // This uses `field_height`, because `comp_height` ignores that a buffer may hold a single field.
    Some(info.format_info().scale_height(component, info.field_height()) as usize)
}

/// The bytes of a row that hold pixels.
fn row_bytes(info: &VideoInfo, plane: usize) -> Option<usize> {
    let first = components_of_plane(info, plane).next()?;
    let default_stride = usize::try_from(info.stride()[plane]).ok()?;
    // Formats that pack pixels in groups have a pixel stride of 0. For these formats, only the default stride is known
    // to be enough.
    let Ok(pixel @ 1..) = usize::try_from(info.comp_pstride(first)) else {
        return Some(default_stride);
    };
    // The last pixel of a row may belong to a group of pixels that is needed as a whole (YUY2 with an odd width).
    let end_of_last = |component: u8| {
        let format = info.format_info();
        let bits = format.shift()[component as usize] + format.depth()[component as usize];
        let pixels_before = info.comp_width(component).saturating_sub(1) as usize;
        info.comp_poffset(component) as usize
            + pixels_before * info.comp_pstride(component).max(0) as usize
            + bits.div_ceil(8) as usize
    };
    let whole_pixels = pixel * info.comp_width(first) as usize;
    let bytes = components_of_plane(info, plane).map(end_of_last).max()?;
    Some(bytes.max(whole_pixels).min(default_stride))
}

#[cfg(test)]
mod tests {
    use gst_video::{VideoFormat, VideoInterlaceMode};
    use proptest::prelude::*;

    use super::*;

    fn info(format: VideoFormat, width: u32, height: u32, mode: VideoInterlaceMode) -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(format, width, height)
            .interlace_mode(mode)
            .build()
            .unwrap()
    }

    /// The position of each byte of each pixel in a layout.
    fn pixel_bytes(info: &VideoInfo, planes: &Planes) -> Vec<usize> {
        let format = info.format_info();
        let mut bytes = Vec::new();
        for component in 0..info.n_components() as u8 {
            let plane = info.comp_plane(component) as usize;
            if format.has_palette() && plane == 1 {
                bytes.extend(planes.offset[1]..planes.offset[1] + 1024);
                continue;
            }
            let size = (format.depth()[component as usize] + format.shift()[component as usize]).div_ceil(8) as usize;
            let rows = format.scale_height(component, info.field_height()) as usize;
            // Formats without a pixel stride are compared by whole rows.
            let (step, columns, size) = match info.comp_pstride(component) {
                1.. => (
                    info.comp_pstride(component) as usize,
                    info.comp_width(component) as usize,
                    size,
                ),
                _ => (
                    0,
                    1,
                    info.stride()[plane] as usize - info.comp_poffset(component) as usize,
                ),
            };
            for row in 0..rows {
                let start = planes.offset[plane] + row * planes.stride[plane] as usize;
                let first = start + info.comp_poffset(component) as usize;
                bytes.extend((0..columns).flat_map(|column| first + column * step..first + column * step + size));
            }
        }
        bytes
    }

    /// A layout with `padding` bytes after each row and with gaps between the planes, and a buffer of noise that has
    /// this layout. The buffer ends with the last byte of the last row.
    fn spread(info: &VideoInfo, padding: i32) -> (Planes, gst::Buffer) {
        let mut planes = Planes::default_of(info);
        for plane in 0..planes.count {
            planes.offset[plane] = planes.offset[plane] * 3 + 777;
            planes.stride[plane] += padding;
        }
        let size = planes.rows(info).unwrap().end();
        let noise = |position: usize| ((position * 2_654_435_761) >> 13) as u8;
        (
            planes,
            gst::Buffer::from_slice((0..size).map(noise).collect::<Vec<u8>>()),
        )
    }

    #[test]
    fn copy_works_for_every_format_and_layout() {
        gst::init().unwrap();
        let mut count = 0;
        for format in VideoFormat::iter_raw() {
            for (width, height) in [(62, 34), (61, 33), (1, 1)] {
                for mode in [VideoInterlaceMode::Progressive, VideoInterlaceMode::Alternate] {
                    let info = info(format, width, height, mode);
                    if info.format_info().is_tiled() {
                        continue;
                    }
                    for padding in [0, 13] {
                        let (planes, from) = spread(&info, padding);
                        assert!(planes.fit(&info, from.size()) && !planes.fit(&info, from.size() - 1));
                        let bytes = from.map_readable().unwrap();
                        for copier in [Copier::Ordinary, Copier::Streaming] {
                            let mut to = vec![0; info.size()];
                            planes.copy_packed(&from, &info, &mut to, copier).unwrap();
                            let source = pixel_bytes(&info, &planes).into_iter();
                            let target = pixel_bytes(&info, &Planes::default_of(&info)).into_iter();
                            assert!(
                                source.zip(target).all(|(source, target)| bytes[source] == to[target]),
                                "{info:?}"
                            );
                        }
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn unpadded_frame_of_every_format_is_recognised_by_its_size() {
        gst::init().unwrap();
        let mut count = 0;
        for format in VideoFormat::iter_raw() {
            for (width, height) in [(642, 480), (62, 34), (61, 33), (3, 1), (1, 3), (1, 1)] {
                for mode in [VideoInterlaceMode::Progressive, VideoInterlaceMode::Alternate] {
                    let info = info(format, width, height, mode);
                    let default = Planes::default_of(&info);
                    let Some(unpadded) = Planes::unpadded_of(&info) else {
                        assert!(info.format_info().is_tiled(), "{info:?}");
                        continue;
                    };
                    let size = unpadded.size_of(&info).unwrap();
                    let buffer = gst::Buffer::from_slice((0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
                    let planes = Planes::of_buffer(&buffer, size, &info);
                    assert!(
                        size == info.size() || planes.is_unpadded(&info, size) && planes.fit_whole_strides(&info, size),
                        "{info:?}"
                    );
                    assert!(planes == default || planes.fit(&info, size), "{info:?}");
                    assert_eq!(planes, if size == info.size() { default } else { unpadded }, "{info:?}");
                    for other in [size - 1, size + 1, info.size() - 1, info.size()] {
                        if other != size {
                            let planes = Planes::of_buffer(&buffer, other, &info);
                            assert_eq!(planes, default, "{info:?}");
                            assert!(other >= info.size() || !planes.fit(&info, other), "{info:?}");
                        }
                    }
                    if planes == default {
                        continue;
                    }
                    let mut to = vec![0; info.size()];
                    planes.copy_packed(&buffer, &info, &mut to, Copier::Ordinary).unwrap();
                    let bytes = buffer.map_readable().unwrap();
                    let from = pixel_bytes(&info, &planes);
                    // There is no gap between rows or planes. At most a part of the last pixel is unused, as in BGRx.
                    assert!(
                        from.iter().max().is_some_and(|last| *last < size && last + 8 >= size),
                        "{info:?}"
                    );
                    let same = |(here, there): (usize, usize)| bytes[here] == to[there];
                    assert!(from.into_iter().zip(pixel_bytes(&info, &default)).all(same), "{info:?}");
                    count += 1;
                }
            }
        }
        assert!(count > 300, "{count}");
    }

    #[test]
    fn layout_ending_with_last_row_has_no_whole_strides() {
        let info = info(VideoFormat::I420, 61, 33, VideoInterlaceMode::Progressive);
        let (planes, buffer) = spread(&info, 0);
        assert!(planes.fit(&info, buffer.size()) && !planes.fit_whole_strides(&info, buffer.size()));
        assert!(planes.fit_whole_strides(&info, planes.size_of(&info).unwrap()));
    }

    fn any_planes() -> impl Strategy<Value = Planes> {
        let number = prop_oneof![0_usize..5000, any::<usize>()];
        let stride = prop_oneof![0..200, any::<i32>()];
        (
            0..=4_usize,
            prop::array::uniform4(number),
            prop::array::uniform4(stride),
        )
            .prop_map(|(count, offset, stride)| Planes::new(&offset[..count], &stride[..count]))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn copy_succeeds_for_every_layout_that_fits(
            planes in any_planes(), size in 0_usize..12_000,
            format in prop::sample::select(vec![VideoFormat::Gray8, VideoFormat::I420, VideoFormat::Rgb8p, VideoFormat::V210]),
        ) {
            let info = info(format, 31, 17, VideoInterlaceMode::Progressive);
            let buffer = gst::Buffer::from_slice(vec![7_u8; size]);
            let mut to = vec![0; info.size()];
            let copied = planes.copy_packed(&buffer, &info, &mut to, Copier::Ordinary).is_ok();
            prop_assert!(!planes.fit(&info, size) || copied || planes == Planes::default_of(&info));
            prop_assert!(copied || !planes.fit_whole_strides(&info, size));
        }
    }
}
