// SPDX-License-Identifier: MIT OR Apache-2.0

//! The raw formats of the channel crate are those of GStreamer: their layouts, and the pictures that people look at.

use gst_video::{VideoChromaMode, VideoInterlaceMode};
use rsshm_channel::{
    FrameDescriptor,
    video::{RgbOrder, VideoFormat, VideoInfo, convert},
};
use rsshm_testkit::gst::{
    colour::{self, ROUNDING, converted, difference, noise},
    init,
};

/// The formats that both the installed GStreamer and the channel crate know.
fn common_formats() -> Vec<(gst_video::VideoFormat, VideoFormat)> {
    init();
    gst_video::VideoFormat::iter_raw()
        .filter_map(|format| Some((format, VideoFormat::from_name(format.to_str())?)))
        .collect()
}

fn gst_info(
    format: gst_video::VideoFormat,
    width: u32,
    height: u32,
    mode: VideoInterlaceMode,
) -> Result<gst_video::VideoInfo, gst::glib::BoolError> {
    gst_video::VideoInfo::builder(format, width, height)
        .interlace_mode(mode)
        .build()
}

fn read_caps(text: &str) -> gst_video::VideoInfo {
    let caps: gst::Caps = text.parse().unwrap();
    gst_video::VideoInfo::from_caps(&caps).unwrap()
}

fn ours(info: &gst_video::VideoInfo) -> VideoInfo {
    VideoInfo::from_caps(&info.to_caps().unwrap().to_string()).unwrap()
}

#[test]
fn every_format_of_gstreamer_is_known_or_left_out_with_reason() {
    init();
    let is_left_out = |name: &str| VideoFormat::LEFT_OUT.iter().any(|(left_out, _)| *left_out == name);
    for format in gst_video::VideoFormat::iter_raw() {
        let name = format.to_str();
        assert!(VideoFormat::from_name(name).is_some() != is_left_out(name), "{name}");
    }
    assert!(common_formats().len() > 90);
}

#[test]
fn properties_of_every_format_are_those_of_gstreamer() {
    for (theirs, format) in common_formats() {
        let info = gst_video::VideoFormatInfo::from_format(theirs);
        assert_eq!(format.plane_count(), info.n_planes() as usize, "{format}");
        assert_eq!(format.is_rgb(), info.is_rgb(), "{format}");
        assert_eq!(format.is_yuv(), info.is_yuv(), "{format}");
        assert_eq!(format.is_gray(), info.is_gray(), "{format}");
        assert_eq!(format.has_palette(), info.has_palette(), "{format}");
        let colours = &info.depth()[..info.n_components().min(3) as usize];
        if !format.has_palette() {
            assert_eq!(format.component_count(), info.n_components() as usize, "{format}");
            assert_eq!(Some(format.bits()), colours.iter().copied().max(), "{format}");
        }
        for plane in 0..info.n_planes() {
            let components = info.plane().iter().zip(info.pixel_stride());
            let strides = components
                .take(info.n_components() as usize)
                .filter(|(found, _)| **found == plane);
            // The luma of a packed format has a smaller stride than its chroma. Pixels that are no whole bytes have 0.
            let Some(stride) = strides.map(|(_, stride)| *stride).min() else {
                continue;
            };
            let ours = format.pixel_bytes(plane as usize).unwrap_or(0);
            assert_eq!(ours as i32, stride, "{format}, plane {plane}");
        }
    }
}

#[test]
fn layout_of_every_format_is_that_of_gstreamer() {
    const MODES: [VideoInterlaceMode; 5] = [
        VideoInterlaceMode::Progressive,
        VideoInterlaceMode::Interleaved,
        VideoInterlaceMode::Mixed,
        VideoInterlaceMode::Fields,
        VideoInterlaceMode::Alternate,
    ];
    let widths = (1..=9).chain([31, 47, 48, 49, 61, 96, 97, 640, 1919]);
    let sizes: Vec<_> = widths
        .flat_map(|width| (1..=5).chain([8, 9, 33, 480]).map(move |height| (width, height)))
        .chain([(1, 100_000), (100_000, 1), (16_383, 16_383)])
        .collect();
    let mut count = 0;
    for (theirs, format) in common_formats() {
        for mode in MODES {
            for (width, height) in sizes.iter().copied() {
                let Ok(theirs) = gst_info(theirs, width, height, mode) else {
                    // GStreamer refuses frames of about 4 GiB.
                    assert!(width > 16_000, "{format} {width}x{height}");
                    continue;
                };
                let ours = ours(&theirs);
                let layout = ours.layout().unwrap();
                let planes = layout.planes().iter();
                let is_same = layout.size() == theirs.size() as u64
                    && planes
                        .clone()
                        .map(|plane| plane.offset as usize)
                        .eq(theirs.offset().iter().copied())
                    && planes
                        .map(|plane| plane.stride as i32)
                        .eq(theirs.stride().iter().copied());
                // In older versions of GStreamer, a row of UYVP may be too short for the last pixel of an odd width.
                let is_too_short = format == VideoFormat::Uyvp
                    && width % 2 == 1
                    && theirs.stride()[0] < layout.planes()[0].row_bytes as i32;
                assert!(
                    is_same || is_too_short,
                    "{format} {width}x{height} {mode:?}: {layout:?} and {theirs:?}"
                );
                assert_eq!((ours.format(), ours.field_height()), (format, theirs.field_height()));
                count += 1;
            }
        }
    }
    assert!(count > 80_000, "{count}");
}

#[test]
fn gstreamer_reads_caps_as_they_were_meant() {
    for (theirs, format) in common_formats() {
        for mode in [VideoInterlaceMode::Progressive, VideoInterlaceMode::Alternate] {
            let theirs = gst_info(theirs, 62, 34, mode).unwrap();
            let theirs = read_caps(&theirs.to_caps().unwrap().to_string());
            assert_eq!(read_caps(&ours(&theirs).to_caps()), theirs, "{format}");
        }
        let new = VideoInfo::new(format, 62, 34, (30, 1)).unwrap();
        let read = read_caps(&new.to_caps());
        assert_eq!((read.format(), read.width(), read.height()), (theirs, 62, 34));
        assert_eq!(read.fps(), gst::Fraction::new(30, 1));
        assert_eq!(ours(&read).layout(), new.layout());
    }
}

/// The picture of a frame in the default layout, without padding.
fn our_picture(info: &VideoInfo, bytes: &[u8], order: RgbOrder) -> Vec<u8> {
    let layout = info.layout_of(&FrameDescriptor::new(bytes.len() as u64)).unwrap();
    let row = info.width() as usize * 3;
    let mut picture = vec![0; row * info.field_height() as usize];
    convert(info, &layout, bytes, order, &mut picture, row).unwrap();
    picture
}

/// The differences of a smooth picture that come from the sampling of chroma too.
const SAMPLING: (u8, f64) = (8, 3.0);

/// The pictures that differ from GStreamer's by more than the tolerance.
#[derive(Default)]
struct Comparison {
    wrong: Vec<String>,
    count: usize,
}

impl Comparison {
    fn compare(
        &mut self,
        (info, ours): (&gst_video::VideoInfo, &VideoInfo),
        bytes: &[u8],
        chroma: VideoChromaMode,
        order: RgbOrder,
        tolerance: (u8, f64),
    ) {
        let theirs = colour::picture(info, bytes, chroma, order == RgbOrder::Bgr);
        let (largest, mean) = difference(&our_picture(ours, bytes, order), &theirs);
        if largest > tolerance.0 || mean > tolerance.1 {
            let (name, width, height) = (info.name(), info.width(), info.height());
            let color = info.colorimetry();
            self.wrong.push(format!(
                "{name} {width}x{height} {color} {order:?}: {largest}, {mean:.2} on average"
            ));
        }
        self.count += 1;
    }

    #[track_caller]
    fn assert_equal(&self, count: usize) {
        assert!(
            self.wrong.is_empty(),
            "{} of {}: {:#?}",
            self.wrong.len(),
            self.count,
            self.wrong
        );
        assert!(self.count >= count, "{}", self.count);
    }
}

#[test]
fn picture_of_every_format_is_that_of_videoconvert() {
    let mut comparison = Comparison::default();
    for (theirs, _) in common_formats() {
        for (width, height) in [(62, 34), (61, 33), (1, 1), (16, 580)] {
            let info = gst_info(theirs, width, height, VideoInterlaceMode::Progressive).unwrap();
            // A row of UYVP may be too short in older versions of GStreamer.
            let bytes = noise(info.size() + 4);
            if theirs == gst_video::VideoFormat::Vyuy && width % 2 == 1 {
                continue; // GStreamer exchanges the components of chroma in the last pixel of an odd width.
            }
            for order in [RgbOrder::Rgb, RgbOrder::Bgr] {
                comparison.compare((&info, &ours(&info)), &bytes, VideoChromaMode::None, order, ROUNDING);
            }
        }
    }
    comparison.assert_equal(700);
}

#[test]
fn smooth_picture_is_that_of_videoconvert_with_its_defaults() {
    let mut comparison = Comparison::default();
    let (width, height) = (128, 96);
    init();
    let rgb = gst_info(
        gst_video::VideoFormat::Rgb,
        width,
        height,
        VideoInterlaceMode::Progressive,
    )
    .unwrap();
    let pixel = |x: u32, y: u32| {
        [
            255 * x / width,
            255 * y / height,
            255 - 128 * (x + y) / (width + height),
        ]
    };
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    let gradient: Vec<u8> = pixels.map(|value| value as u8).collect();
    for (format, _) in common_formats() {
        let info = gst_info(format, width, height, VideoInterlaceMode::Progressive).unwrap();
        let bytes = converted(&rgb, &gradient, &info, VideoChromaMode::Full);
        comparison.compare(
            (&info, &ours(&info)),
            &bytes,
            VideoChromaMode::Full,
            RgbOrder::Rgb,
            SAMPLING,
        );
    }
    comparison.assert_equal(90);
}

#[test]
fn picture_of_interleaved_fields_is_that_of_videoconvert() {
    let mut comparison = Comparison::default();
    for (format, _) in common_formats() {
        // If the height is no multiple of 8, GStreamer reads chroma from the padding.
        let info = gst_info(format, 62, 40, VideoInterlaceMode::Interleaved).unwrap();
        let bytes = noise(info.size());
        comparison.compare(
            (&info, &ours(&info)),
            &bytes,
            VideoChromaMode::None,
            RgbOrder::Rgb,
            ROUNDING,
        );
    }
    comparison.assert_equal(90);
}

#[test]
fn picture_has_the_colours_of_its_colorimetry() {
    init();
    let mut comparison = Comparison::default();
    for format in ["I420", "Y444_10LE", "AYUV64", "GRAY8", "GRAY16_LE", "v308"] {
        for height in [576, 577] {
            for colorimetry in [
                "bt601",
                "bt709",
                "smpte240m",
                "bt2020",
                "bt2020-10",
                "bt2100-pq",
                "bt2100-hlg",
                "1:4:0:0",
                "1:3:5:1",
                "2:2:0:0",
                "0:4:0:0",
                "sRGB",
                "nonsense",
            ] {
                let caps = format!(
                    "video/x-raw, format={format}, width=16, height={height}, colorimetry=(string){colorimetry}"
                );
                let info = read_caps(&caps);
                let bytes = noise(info.size());
                comparison.compare(
                    (&info, &VideoInfo::from_caps(&caps).unwrap()),
                    &bytes,
                    VideoChromaMode::None,
                    RgbOrder::Rgb,
                    ROUNDING,
                );
            }
        }
    }
    comparison.assert_equal(150);
}
