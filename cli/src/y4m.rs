// SPDX-License-Identifier: MIT OR Apache-2.0

//! YUV4MPEG2, the stream of raw video that ffmpeg, mpv and x264 read from a pipe.

use rsshm_channel::video::{VideoFormat, VideoInfo};

use crate::{caps::Summary, failure::Failure, picture::Frame};

/// How a format becomes one of YUV4MPEG2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The planes are in the right order.
    Planar,
    /// Planes of Y, V and U.
    Swapped,
    /// A plane of Y, then pairs of U and V.
    Pairs,
    /// A plane of Y, then pairs of V and U.
    SwappedPairs,
    /// Y, U, Y, V in one plane; the number is the place of the first Y.
    Packed(usize),
    /// Any other format becomes red, green and blue first, and then 4:4:4.
    Converted,
}

/// The name of the colour space in the stream, and how a frame becomes it.
fn space(format: VideoFormat) -> (&'static str, Order) {
    match format {
        VideoFormat::I420 => ("420", Order::Planar),
        VideoFormat::Yv12 => ("420", Order::Swapped),
        VideoFormat::Nv12 => ("420", Order::Pairs),
        VideoFormat::Nv21 => ("420", Order::SwappedPairs),
        VideoFormat::Y42b => ("422", Order::Planar),
        VideoFormat::Yuy2 => ("422", Order::Packed(0)),
        VideoFormat::Uyvy => ("422", Order::Packed(1)),
        VideoFormat::Y444 => ("444", Order::Planar),
        VideoFormat::Gray8 => ("mono", Order::Planar),
        _ => ("444", Order::Converted),
    }
}

/// The bytes of a frame in the stream, after the first line of the stream if this is the first frame.
pub(crate) fn stream(frame: &Frame<'_>, is_first: bool) -> Result<Vec<u8>, Failure> {
    let summary = Summary::new(frame.caps);
    let (info, bytes) = if frame.is_still() {
        let picture = frame.picture()?;
        let size = (picture.width, picture.height);
        if summary.width.zip(summary.height).is_some_and(|stated| stated != size) {
            let text = format!("a picture has the size {}x{}, and its caps say another", size.0, size.1);
            return Err(frame.failure(&text));
        }
        let info = VideoInfo::new(VideoFormat::Rgb, size.0, size.1, rate(&summary));
        let info = info.map_err(|error| frame.failure(&error.to_string()))?;
        (info, [b"FRAME\n", &*to_yuv(&picture.rgb)].concat())
    } else {
        let info = frame.info()?;
        let bytes = self::frame(frame, &info)?;
        (info, bytes)
    };
    let mut stream = if is_first {
        header(&info, &summary).into_bytes()
    } else {
        Vec::new()
    };
    stream.extend(bytes);
    Ok(stream)
}

/// The frame rate that caps state; 0/1 if there is none.
fn rate(summary: &Summary) -> (i32, i32) {
    let parts = summary.framerate.as_deref().and_then(|rate| rate.split_once('/'));
    parts
        .and_then(|(numerator, denominator)| Some((numerator.parse().ok()?, denominator.parse().ok()?)))
        .unwrap_or((0, 1))
}

/// The first line of the stream.
fn header(info: &VideoInfo, summary: &Summary) -> String {
    let (numerator, denominator) = match info.framerate() {
        // The stream needs a rate. 25 is what ffmpeg assumes too.
        (numerator, denominator) if numerator <= 0 || denominator <= 0 => (25, 1),
        rate => rate,
    };
    let (space, order) = space(info.format());
    // The names of colorimetries have the limited range; the numbers of GStreamer begin with 1 if the range is full.
    let is_full = summary
        .colorimetry
        .as_ref()
        .is_some_and(|colorimetry| colorimetry.starts_with("1:"));
    let range = if is_full && order != Order::Converted {
        " XCOLORRANGE=FULL"
    } else {
        ""
    };
    format!(
        "YUV4MPEG2 W{} H{} F{numerator}:{denominator} Ip A1:1 C{space}{range}\n",
        info.width(),
        info.field_height()
    )
}

/// A frame of raw video in the stream.
fn frame(frame: &Frame<'_>, info: &VideoInfo) -> Result<Vec<u8>, Failure> {
    let mut stream = b"FRAME\n".to_vec();
    let (_, order) = space(info.format());
    if order == Order::Converted {
        stream.extend(to_yuv(&frame.picture()?.rgb));
        return Ok(stream);
    }
    let packed = frame.packed()?;
    let (width, height) = (info.width() as usize, info.field_height() as usize);
    let luma = width * height;
    let half = (packed.len() - luma.min(packed.len())) / 2;
    match order {
        Order::Planar | Order::Converted => stream.extend(&packed),
        Order::Swapped => {
            stream.extend(&packed[..luma]);
            stream.extend(&packed[luma + half..]);
            stream.extend(&packed[luma..luma + half]);
        }
        Order::Pairs | Order::SwappedPairs => {
            stream.extend(&packed[..luma]);
            let first = usize::from(order == Order::SwappedPairs);
            stream.extend(packed[luma..].iter().skip(first).step_by(2));
            stream.extend(packed[luma..].iter().skip(1 - first).step_by(2));
        }
        Order::Packed(y) => unpack(&packed, width, height, y, &mut stream),
    }
    Ok(stream)
}

/// Divides rows of two pixels in four bytes into three planes.
fn unpack(packed: &[u8], width: usize, height: usize, first: usize, stream: &mut Vec<u8>) {
    let rows = || packed.chunks(packed.len() / height.max(1));
    for row in rows() {
        stream.extend(row.iter().skip(first).step_by(2).take(width));
    }
    for offset in [1 - first, 3 - first] {
        for row in rows() {
            stream.extend(row.iter().skip(offset).step_by(4).take(width.div_ceil(2)));
        }
    }
}

/// Planes of Y, U and V with the matrix of BT.601 and the limited range, which programs assume for YUV4MPEG2.
fn to_yuv(rgb: &[u8]) -> Vec<u8> {
    // Factors times 65536.
    const MATRIX: [([i32; 3], i32); 3] = [
        ([16829, 33039, 6416], 16),
        ([-9714, -19071, 28784], 128),
        ([28784, -24103, -4681], 128),
    ];
    let mut planes = Vec::with_capacity(rgb.len());
    for (factors, offset) in MATRIX {
        planes.extend(rgb.chunks_exact(3).map(|pixel| {
            let products = pixel
                .iter()
                .zip(factors)
                .map(|(value, factor)| i32::from(*value) * factor);
            (((products.sum::<i32>() + 32768) >> 16) + offset).clamp(0, 255) as u8
        }));
    }
    planes
}

#[cfg(test)]
mod tests {
    use rsshm_channel::FrameDescriptor;

    use super::*;

    /// The stream of a frame of 4 x 2 pixels, without `FRAME`.
    fn planes(format: &str, bytes: &[u8]) -> Vec<u8> {
        let caps = format!("video/x-raw,format={format},width=4,height=2,framerate=30/1");
        let info = VideoInfo::from_caps(&caps).unwrap();
        let descriptor = FrameDescriptor::new(bytes.len() as u64);
        let frame = Frame {
            channel: "cam0",
            caps: &caps,
            descriptor: &descriptor,
            bytes,
        };
        super::frame(&frame, &info).unwrap()[6..].to_vec()
    }

    #[test]
    fn planes_are_those_of_the_format() {
        let luma = [1, 2, 3, 4, 5, 6, 7, 8];
        let of = |chroma: &[u8]| [&luma[..], chroma].concat();
        // U is 10 and 11, V is 20 and 21. I420 has padding behind its two bytes of chroma.
        assert_eq!(planes("NV12", &of(&[10, 20, 11, 21])), of(&[10, 11, 20, 21]));
        assert_eq!(planes("NV21", &of(&[20, 10, 21, 11])), of(&[10, 11, 20, 21]));
        assert_eq!(
            planes("I420", &of(&[10, 11, 0, 0, 20, 21, 0, 0])),
            of(&[10, 11, 20, 21])
        );
        assert_eq!(
            planes("YV12", &of(&[20, 21, 0, 0, 10, 11, 0, 0])),
            of(&[10, 11, 20, 21])
        );
        let chroma = [10, 11, 12, 13, 20, 21, 22, 23];
        let yuy2 = [1, 10, 2, 20, 3, 11, 4, 21, 5, 12, 6, 22, 7, 13, 8, 23];
        assert_eq!(planes("YUY2", &yuy2), of(&chroma));
        let uyvy = [10, 1, 20, 2, 11, 3, 21, 4, 12, 5, 22, 6, 13, 7, 23, 8];
        assert_eq!(planes("UYVY", &uyvy), of(&chroma));
        assert_eq!(planes("GRAY8", &luma), luma);
    }

    #[test]
    fn colours_are_those_of_bt601() {
        let found = planes(
            "RGB",
            &[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]
                .concat()
                .repeat(2),
        );
        assert_eq!(found.len(), 24);
        assert_eq!(found[..4], [235, 16, 81, 41]);
        assert_eq!(found[8..12], [128, 128, 90, 240]);
        assert_eq!(found[16..20], [128, 128, 240, 110]);
    }

    #[test]
    fn header_has_size_and_rate() {
        let header = |caps| header(&VideoInfo::from_caps(caps).unwrap(), &Summary::new(caps));
        assert_eq!(
            header("video/x-raw,format=NV12,width=640,height=480,framerate=30000/1001"),
            "YUV4MPEG2 W640 H480 F30000:1001 Ip A1:1 C420\n"
        );
        assert_eq!(
            header("video/x-raw,format=BGR,width=3,height=5,framerate=0/1"),
            "YUV4MPEG2 W3 H5 F25:1 Ip A1:1 C444\n"
        );
    }
}
