// SPDX-License-Identifier: MIT OR Apache-2.0

//! The colours of raw video, as GStreamer converts them.

use gst_video::{
    VideoChromaMode, VideoConverter, VideoConverterConfig, VideoDitherMethod, VideoFormat, VideoFrame, VideoInfo,
};

use super::init;

/// The names of the raw formats that the installed GStreamer has.
pub fn formats() -> Vec<&'static str> {
    init();
    VideoFormat::iter_raw().map(|format| format.to_str().as_str()).collect()
}

/// The size of a frame of these caps in GStreamer's default layout.
pub fn frame_size(caps: &str) -> usize {
    info(caps).size()
}

/// The picture of a frame of these caps in GStreamer's default layout, as [`picture`] makes it, in the order red, green,
/// blue. All pixels of a group have the chroma of the group.
pub fn picture_of(caps: &str, bytes: &[u8]) -> Vec<u8> {
    picture(&info(caps), bytes, VideoChromaMode::None, false)
}

fn info(caps: &str) -> VideoInfo {
    init();
    let caps: gst::Caps = caps.parse().unwrap();
    VideoInfo::from_caps(&caps).unwrap()
}

/// The bytes of the frame of `out` that GStreamer makes of a frame of `info`.
pub fn converted(info: &VideoInfo, bytes: &[u8], out: &VideoInfo, chroma: VideoChromaMode) -> Vec<u8> {
    let mut config = VideoConverterConfig::new();
    config.set_chroma_mode(chroma);
    config.set_dither_method(VideoDitherMethod::None);
    let converter = VideoConverter::new(info, out, Some(config)).unwrap();
    let frame = VideoFrame::from_buffer_readable(gst::Buffer::from_slice(bytes.to_vec()), info).unwrap();
    let mut to = VideoFrame::from_buffer_writable(gst::Buffer::with_size(out.size()).unwrap(), out).unwrap();
    converter.frame(&frame, &mut to);
    let buffer = to.into_buffer();
    let map = buffer.map_readable().unwrap();
    map.to_vec()
}

/// The picture that GStreamer converts a frame to, without padding. It comes from a picture of 16 bits, because
/// GStreamer's arithmetic in eight bits is up to 6 off.
/// The order of the bytes is red, green, blue, or with `is_bgr` blue, green, red.
pub fn picture(info: &VideoInfo, bytes: &[u8], chroma: VideoChromaMode, is_bgr: bool) -> Vec<u8> {
    let (width, height) = (info.width(), info.height());
    let out = VideoInfo::builder("ARGB64_BE".parse().unwrap(), width, height);
    let out = out
        .interlace_mode(info.interlace_mode())
        .fps(info.fps())
        .build()
        .unwrap();
    let bytes = converted(info, bytes, &out, chroma);
    let order = if is_bgr { [6, 4, 2] } else { [2, 4, 6] };
    let pixels = bytes
        .chunks(8)
        .flat_map(|pixel| order.map(|at| u16::from_be_bytes([pixel[at], pixel[at + 1]])));
    pixels
        .map(|value| ((u32::from(value) * 255 + 32_767) / 65_535) as u8)
        .collect()
}

/// Bytes that look random, and are the same in each run.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// The largest and the mean difference of two pictures.
pub fn difference(one: &[u8], other: &[u8]) -> (u8, f64) {
    assert_eq!(one.len(), other.len());
    let differences = one.iter().zip(other).map(|(one, other)| one.abs_diff(*other));
    let sum: u64 = differences.clone().map(u64::from).sum();
    (differences.max().unwrap(), sum as f64 / one.len() as f64)
}

/// The largest difference of a byte, and the mean difference, that come from rounding.
pub const ROUNDING: (u8, f64) = (3, 1.2);
