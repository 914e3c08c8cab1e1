// SPDX-License-Identifier: MIT OR Apache-2.0

//! The conversion of frames to pictures that people can look at.

use super::{
    error::VideoError,
    info::{InterlaceMode, VideoInfo},
    layout::{Plane, PlaneLayout},
    shape::{Component, Shape, Word},
};

/// The bytes of a pixel of the picture.
const PIXEL: usize = 3;

/// The order of the three bytes of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RgbOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as in OpenCV.
    Bgr,
}

/// Converts a frame to a picture with eight bits for each of red, green and blue.
///
/// `data` are the bytes of a frame of `info` with this `layout`. The picture has [`VideoInfo::field_height`] rows,
/// which are `out_stride` bytes apart in `out`.
///
/// The range and the matrix are those of the caps, or GStreamer's defaults. The conversion is for previews, so it is
/// fast and simple: each pixel has the chroma of its group, alpha is ignored, and the primaries and the transfer
/// function stay as they are.
///
/// # Errors
/// [`VideoError::Frame`] if the layout does not fit the caps and the data, [`VideoError::Output`] if the picture does
/// not fit `out`.
pub fn convert(
    info: &VideoInfo,
    layout: &PlaneLayout,
    data: &[u8],
    order: RgbOrder,
    out: &mut [u8],
    out_stride: usize,
) -> Result<(), VideoError> {
    let layout = layout.checked(info, data.len())?;
    let (width, height) = (info.width() as usize, info.field_height() as usize);
    let row_size = check_output(width, height, out.len(), out_stride)?;
    let shape = info.format().shape();
    let matrix = match order {
        RgbOrder::Rgb => info.colorimetry().to_rgb(shape),
        RgbOrder::Bgr => info.colorimetry().to_rgb(shape).swapped(),
    };
    let palette = shape
        .has_palette()
        .then(|| Palette::new(row(data, &layout.planes()[1], 0), order));
    let has_field_chroma = info.interlace_mode() == InterlaceMode::Interleaved;
    let mut rows = Rows::new(width);
    // A stride of 0 is possible if there is a single row.
    for (y, out) in out.chunks_mut(out_stride.max(row_size)).take(height).enumerate() {
        let out = &mut out[..row_size];
        rows.read(shape, &layout, data, y, has_field_chroma);
        match &palette {
            Some(palette) => palette.convert(&rows.values[0], out),
            None => matrix.convert(&rows.values, out),
        }
    }
    Ok(())
}

/// The size of a row of the picture. An error if the picture does not fit `size` bytes.
fn check_output(width: usize, height: usize, size: usize, stride: usize) -> Result<usize, VideoError> {
    let wrong = |what| Err(VideoError::Output { what });
    let Some(row_size) = width.checked_mul(PIXEL) else {
        return wrong(format!("a row of {width} pixels is too large for this machine"));
    };
    if height > 1 && stride < row_size {
        return wrong(format!(
            "its rows are {stride} bytes apart, but a row of {width} pixels has {row_size} bytes"
        ));
    }
    match stride
        .checked_mul(height - 1)
        .and_then(|bytes| bytes.checked_add(row_size))
    {
        Some(needed) if needed <= size => Ok(row_size),
        Some(needed) => wrong(format!("it has {size} bytes, but the picture needs {needed}")),
        None => wrong(format!(
            "{height} rows that are {stride} bytes apart do not fit any memory"
        )),
    }
}

/// A row of a plane. The layout has been checked against the data.
fn row<'a>(data: &'a [u8], plane: &Plane, index: usize) -> &'a [u8] {
    let start = plane.offset as usize + plane.stride as usize * index;
    &data[start..start + plane.row_bytes as usize]
}

/// The row of a component that belongs to row `y` of the frame. If rows are from two fields in turn, each field has
/// rows of chroma of its own.
fn component_row(y: usize, shift: u8, has_field_chroma: bool) -> usize {
    if has_field_chroma && shift > 0 {
        (y >> (shift + 1) << 1) + (y & 1)
    } else {
        y >> shift
    }
}

/// One row of a frame: the values of up to three components for each pixel.
struct Rows {
    values: [Vec<u16>; 3],
    /// Which row of its plane each component has. Several rows of pixels share a row of chroma.
    found: [Option<usize>; 3],
}

impl Rows {
    fn new(width: usize) -> Self {
        Self {
            values: std::array::from_fn(|_| vec![0; width]),
            found: [None; 3],
        }
    }

    fn read(&mut self, shape: &Shape, layout: &PlaneLayout, data: &[u8], y: usize, has_field_chroma: bool) {
        for (index, component) in shape.components().iter().take(3).enumerate() {
            let plane = &layout.planes()[usize::from(component.plane)];
            let row_index = component_row(y, component.y_shift, has_field_chroma).min(plane.rows as usize - 1);
            if self.found[index].replace(row_index) != Some(row_index) {
                read_component(
                    row(data, plane, row_index),
                    component,
                    shape.word,
                    &mut self.values[index],
                );
            }
        }
    }
}

/// Reads the values of a component in a row, one for each pixel.
fn read_component(row: &[u8], component: &Component, word: Word, out: &mut [u16]) {
    match word {
        Word::Byte => read_words(row, component, out, |[byte]: [u8; 1]| byte.into()),
        Word::Le16 => read_words(row, component, out, |bytes| u16::from_le_bytes(bytes).into()),
        Word::Be16 => read_words(row, component, out, |bytes| u16::from_be_bytes(bytes).into()),
        Word::Le32 => read_words(row, component, out, u32::from_le_bytes),
        Word::Be32 => read_words(row, component, out, u32::from_be_bytes),
    }
}

fn read_words<const SIZE: usize>(row: &[u8], component: &Component, out: &mut [u16], read: impl Fn([u8; SIZE]) -> u32) {
    let pixels = 1 << component.x_shift;
    let mask = (1_u32 << component.depth) - 1;
    let words = row.get(component.offset.into()..).unwrap_or_default();
    // The value stays if the row ends before the word.
    let mut value = 0;
    let mut read_at = |words: &[u8], shift: u8| {
        if let Some(word) = words.first_chunk() {
            value = (read(*word) >> (component.shift + shift) & mask) as u16;
        }
        value
    };
    if pixels == 1 && component.positions.len() == 1 {
        // The general case without its inner loops, which is several times as fast.
        for (words, out) in words.chunks(component.period.into()).zip(out) {
            *out = read_at(words, 0);
        }
        return;
    }
    for (words, out) in words
        .chunks(component.period.into())
        .zip(out.chunks_mut(component.positions.len() * pixels))
    {
        for ((byte, shift), out) in component.positions.iter().zip(out.chunks_mut(pixels)) {
            out.fill(read_at(words.get(usize::from(*byte)..).unwrap_or_default(), *shift));
        }
    }
}

/// The colours of a palette, in the order of the picture.
struct Palette([[u8; PIXEL]; 256]);

impl Palette {
    fn new(bytes: &[u8], order: RgbOrder) -> Self {
        let mut colours = [[0; PIXEL]; 256];
        let entries = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
        for (colour, bytes) in colours.iter_mut().zip(entries) {
            let [_, red, green, blue] = u32::from_ne_bytes(*bytes).to_be_bytes();
            *colour = match order {
                RgbOrder::Rgb => [red, green, blue],
                RgbOrder::Bgr => [blue, green, red],
            };
        }
        Self(colours)
    }

    fn convert(&self, indices: &[u16], out: &mut [u8]) {
        for (index, out) in indices.iter().zip(out.chunks_exact_mut(PIXEL)) {
            out.copy_from_slice(&self.0[usize::from(*index) % self.0.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{protocol::layout::FrameDescriptor, video::format::VideoFormat};

    fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
        VideoInfo::new(format, width, height, (30, 1)).unwrap()
    }

    /// The picture of a frame in the default layout, which may lack its last padding.
    fn picture(info: &VideoInfo, bytes: &[u8]) -> Vec<u8> {
        let layout = info.layout().unwrap();
        let mut data = bytes.to_vec();
        data.resize(layout.size() as usize, 0);
        let row = info.width() as usize * 3;
        let mut out = vec![0; row * info.field_height() as usize];
        convert(info, &layout, &data, RgbOrder::Rgb, &mut out, row).unwrap();
        out
    }

    #[test]
    fn bytes_of_a_pixel_become_its_colour() {
        use VideoFormat::{
            A422_16Be, A444, A444_12Le, Bgr10x2Le, Gbr16Be, Gray10Le16, Nv16_10Le40, Rbga, Rgb8p, Rgb10x2Le, Rgb16,
            Y216Be, Y416Le,
        };
        // The tests of the plugin compare all formats of the installed GStreamer; most of these formats are newer.
        let red_565 = (31_u16 << 11).to_ne_bytes();
        let palette = [&[1, 0, 0, 0, 9, 9, 9, 9][..], &0xff_0a_14_1e_u32.to_ne_bytes()].concat();
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let words_be = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let ten_bits = |first: u32, second: u32| (first | second << 10).to_le_bytes()[..3].to_vec();
        for (format, bytes, colour) in [
            (Rbga, vec![10, 30, 20, 0], [10, 20, 30]),
            (Rgb16, red_565.to_vec(), [255, 0, 0]),
            (Rgb8p, palette, [10, 20, 30]),
            (Gbr16Be, words_be(&[20 << 8, 0, 30 << 8, 0, 10 << 8, 0]), [10, 20, 30]),
            (Gray10Le16, words(&[512]), [128, 128, 128]),
            (
                Bgr10x2Le,
                (30_u32 << 2 | 20 << 12 | 10 << 22).to_le_bytes().to_vec(),
                [10, 20, 30],
            ),
            (
                Rgb10x2Le,
                (10_u32 << 2 | 20 << 12 | 30 << 22).to_le_bytes().to_vec(),
                [10, 20, 30],
            ),
            // Red in BT.601: 81, 90, 240.
            (
                A444,
                vec![81, 0, 0, 0, 0, 0, 0, 0, 90, 0, 0, 0, 0, 0, 0, 0, 240],
                [254, 0, 0],
            ),
            (A444_12Le, words(&[81 << 4, 0, 90 << 4, 0, 240 << 4, 0]), [254, 0, 0]),
            (
                A422_16Be,
                words_be(&[81 << 8, 0, 0, 0, 90 << 8, 0, 0, 0, 240 << 8]),
                [254, 0, 0],
            ),
            (Y216Be, words_be(&[81 << 8, 90 << 8, 0, 240 << 8]), [254, 0, 0]),
            (Y416Le, words(&[90 << 8, 81 << 8, 240 << 8, 0]), [254, 0, 0]),
            (
                Nv16_10Le40,
                [ten_bits(81 << 2, 0), vec![0; 7], ten_bits(90 << 2, 240 << 2)].concat(),
                [254, 0, 0],
            ),
        ] {
            assert_eq!(picture(&info(format, 1, 1), &bytes), colour, "{format}");
        }
    }

    #[test]
    fn last_chroma_without_a_word_repeats_the_one_before() {
        // Three pixels have two pairs of chroma, but the row of chroma has a single word with three values.
        let word = |values: [u32; 3]| (values[0] | values[1] << 10 | values[2] << 20).to_le_bytes();
        let luma = word([81 << 2; 3]);
        let bytes = [luma, luma, word([90 << 2, 240 << 2, 90 << 2])].concat();
        assert_eq!(
            picture(&info(VideoFormat::Nv12_10Le32, 3, 1), &bytes),
            [254, 0, 0].repeat(3)
        );
    }

    #[test]
    fn interleaved_rows_have_the_chroma_of_their_field() {
        let rows = |has_field_chroma| {
            (0..8)
                .map(|y| component_row(y, 1, has_field_chroma))
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(false), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(rows(true), [0, 1, 0, 1, 2, 3, 2, 3]);
        assert_eq!(component_row(5, 0, true), 5);
    }

    #[test]
    fn padding_of_the_picture_is_left_alone() {
        let info = info(VideoFormat::Gray8, 2, 2);
        let layout = info.layout().unwrap();
        let mut out = [7; 17];
        convert(&info, &layout, &[1, 2, 0, 0, 3, 4, 0, 0], RgbOrder::Bgr, &mut out, 10).unwrap();
        assert_eq!(out, [1, 1, 1, 2, 2, 2, 7, 7, 7, 7, 3, 3, 3, 4, 4, 4, 7]);
    }

    #[test]
    fn what_does_not_fit_gets_an_error_that_names_it() {
        let rgb = info(VideoFormat::Rgb, 4, 2);
        let layout = rgb.layout().unwrap();
        let error = |info: &VideoInfo, layout: &PlaneLayout, size: usize, out: usize, stride: usize| {
            let result = convert(info, layout, &vec![0; size], RgbOrder::Rgb, &mut vec![0; out], stride);
            result.unwrap_err().to_string()
        };
        for (result, words) in [
            (error(&rgb, &layout, 23, 24, 12), "plane 0"),
            (error(&rgb, &layout, 24, 23, 12), "23 bytes, but the picture needs 24"),
            (error(&rgb, &layout, 24, 24, 11), "11 bytes apart"),
            (error(&rgb, &layout, 24, 24, usize::MAX), "do not fit any memory"),
            (
                error(&info(VideoFormat::Nv12, 4, 2), &layout, 24, 24, 12),
                "1 planes instead of 2",
            ),
            (
                error(&info(VideoFormat::Rgb, 5, 2), &layout, 24, 30, 15),
                "a stride of 12",
            ),
            (error(&info(VideoFormat::Rgb, 4, 3), &layout, 24, 36, 12), "3 rows"),
        ] {
            assert!(result.contains(words), "{result}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_frame_is_converted_or_refused(
            format in prop::sample::select(VideoFormat::ALL),
            mode in prop::sample::select(vec!["progressive", "interleaved", "alternate"]),
            (width, height) in (1_u32..40, 1_u32..20),
            planes in prop::collection::vec((0_u64..600, 0_i32..200), 0..5),
            data in prop::collection::vec(any::<u8>(), 0..6000),
            (out_size, out_stride) in (0_usize..5000, 0_usize..200),
        ) {
            let info = VideoInfo::from_caps(&format!(
                "video/x-raw(format:Interlaced), format={format}, width={width}, height={height}, interlace-mode={mode}"
            )).unwrap();
            let descriptor = FrameDescriptor::new(data.len() as u64).with_planes(&planes);
            let layout = match info.layout_of(&descriptor) {
                Ok(layout) => layout,
                Err(_) => info.layout().unwrap(),
            };
            let mut out = vec![0; out_size];
            let needed = out_stride * (info.field_height() as usize - 1) + 3 * width as usize;
            let is_large_enough = out_size >= needed && (info.field_height() == 1 || out_stride >= 3 * width as usize);
            let is_whole = layout.checked(&info, data.len()).is_ok();
            let result = convert(&info, &layout, &data, RgbOrder::Rgb, &mut out, out_stride);
            prop_assert_eq!(result.is_ok(), is_large_enough && is_whole);
        }
    }
}
