// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames as pictures and as bytes without padding, and the files that pictures are saved in.

use std::io::Cursor;

use clap::ValueEnum;
use image::{
    DynamicImage, ExtendedColorType, ImageEncoder, ImageError, ImageFormat,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use rsshm_channel::{
    FrameDescriptor,
    video::{RgbOrder, VideoFormat, VideoInfo, convert},
};

use crate::{
    caps::Summary,
    failure::{Code, Failure},
    names,
};

/// The quality of JPEG pictures, from 1 to 100.
const JPEG_QUALITY: u8 = 90;
/// The largest picture that is decoded, in bytes of its pixels. A small file can claim to be a huge picture.
const MAX_DECODED_SIZE: u64 = 1 << 30;

/// The form in which a picture is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// PNG, without loss.
    Png,
    /// JPEG.
    Jpg,
    /// WebP, without loss.
    Webp,
    /// An array of NumPy: rows, columns, and red, green and blue. Gray formats have no third dimension.
    Npy,
    /// The bytes of the frame, without padding behind the rows.
    Raw,
}

impl Kind {
    /// The kind that the name of a file says.
    pub(crate) fn of_file(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        Some(match extension.to_ascii_lowercase().as_str() {
            "png" => Self::Png,
            "jpg" | "jpeg" => Self::Jpg,
            "webp" => Self::Webp,
            "npy" => Self::Npy,
            "raw" | "yuv" | "rgb" | "bin" => Self::Raw,
            _ => return None,
        })
    }
}

/// A frame, and the caps that describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) channel: &'a str,
    pub(crate) caps: &'a str,
    pub(crate) descriptor: &'a FrameDescriptor,
    pub(crate) bytes: &'a [u8],
}

/// A picture with eight bits for each of red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

impl Frame<'_> {
    /// The frame as a picture.
    pub(crate) fn picture(&self) -> Result<Picture, Failure> {
        match self.still_format() {
            Some(format) => decode(self.bytes, format).map_err(|error| self.failure(&error.to_string())),
            None => self.convert(),
        }
    }

    /// The frame as a file of this kind.
    pub(crate) fn encode(&self, kind: Kind) -> Result<Vec<u8>, Failure> {
        match kind {
            Kind::Raw => self.packed(),
            // A picture that has this form already stays as it is.
            Kind::Jpg if self.still_format() == Some(ImageFormat::Jpeg) => Ok(self.bytes.to_vec()),
            Kind::Png if self.still_format() == Some(ImageFormat::Png) => Ok(self.bytes.to_vec()),
            Kind::Png | Kind::Jpg | Kind::Webp => {
                let picture = self.picture()?;
                picture.encode(kind).map_err(|error| self.failure(&error.to_string()))
            }
            Kind::Npy => self.array(),
        }
    }

    /// The bytes of the frame. The rows of raw video follow each other without padding, as most programs expect. Formats
    /// that are not rows of pixels, such as tiled ones, stay as they are.
    pub(crate) fn packed(&self) -> Result<Vec<u8>, Failure> {
        let Ok(info) = VideoInfo::from_caps(self.caps) else {
            return Ok(self.bytes.to_vec());
        };
        let layout = info
            .layout_of(self.descriptor)
            .map_err(|error| self.failure(&error.to_string()))?;
        let mut packed = Vec::new();
        for plane in layout.planes() {
            for row in 0..u64::from(plane.rows) {
                let start = plane.offset + row * u64::from(plane.stride);
                let end = start + u64::from(plane.row_bytes);
                let row = self.bytes.get(start as usize..end as usize);
                packed.extend(row.ok_or_else(|| self.failure("its planes are not inside the frame"))?);
            }
        }
        Ok(packed)
    }

    /// What the caps of raw video say.
    pub(crate) fn info(&self) -> Result<VideoInfo, Failure> {
        let summary = Summary::new(self.caps);
        if summary.media != "video/x-raw" {
            return Err(self.not_shown(&summary));
        }
        VideoInfo::from_caps(self.caps).map_err(|error| self.failure(&error.to_string()))
    }

    /// The failure of a frame that is no picture, or that is encoded.
    fn not_shown(&self, summary: &Summary) -> Failure {
        let (media, channel) = (&summary.media, names::shell_word(self.channel));
        let pipeline = |end: &str| format!("gst-launch-1.0 rsshmsrc channel={channel} ! {end}");
        if summary.is_visual() {
            let failure = self.failure(&format!("rsshm does not decode {media}, but GStreamer does:"));
            let file = "decodebin ! videoconvert ! pngenc snapshot=true ! filesink location=a.png";
            return failure.with_line(pipeline(summary.sink())).with_line(pipeline(file));
        }
        let failure = self.failure(&format!(
            "{media} is no picture; `rsshm cat {channel}` writes its bytes"
        ));
        if media.starts_with("audio/") {
            return failure.with_line(pipeline(summary.sink()));
        }
        failure
    }

    pub(crate) fn failure(&self, what: &str) -> Failure {
        Failure::new(Code::No, format!("channel {}: {what}", self.channel))
    }

    /// Whether the frames are encoded pictures that can be decoded.
    pub(crate) fn is_still(&self) -> bool {
        self.still_format().is_some()
    }

    /// The format of a channel whose frames are encoded pictures.
    fn still_format(&self) -> Option<ImageFormat> {
        match Summary::new(self.caps).media.as_str() {
            "image/jpeg" => Some(ImageFormat::Jpeg),
            "image/png" => Some(ImageFormat::Png),
            "image/webp" => Some(ImageFormat::WebP),
            _ => None,
        }
    }

    fn convert(&self) -> Result<Picture, Failure> {
        let info = self.info()?;
        let failure = |error: rsshm_channel::video::VideoError| self.failure(&error.to_string());
        let layout = info.layout_of(self.descriptor).map_err(failure)?;
        let (width, height) = (info.width(), info.field_height());
        let stride = width as usize * 3;
        let size = stride.checked_mul(height as usize);
        let mut rgb = Vec::new();
        size.and_then(|size| rgb.try_reserve_exact(size).ok().map(|()| rgb.resize(size, 0)))
            .ok_or_else(|| self.failure(&format!("there is no memory for a picture of {width}x{height}")))?;
        convert(&info, &layout, self.bytes, RgbOrder::Rgb, &mut rgb, stride).map_err(failure)?;
        Ok(Picture { width, height, rgb })
    }

    /// The frame as a file of NumPy.
    fn array(&self) -> Result<Vec<u8>, Failure> {
        let summary = Summary::new(self.caps);
        let is_picture = summary.media == "video/x-raw" || self.still_format().is_some();
        if !is_picture {
            return Ok(npy("|u1", &[self.bytes.len()], self.bytes));
        }
        if summary.media == "video/x-raw" {
            let info = self.info()?;
            let shape = [info.field_height() as usize, info.width() as usize];
            let number = match info.format() {
                VideoFormat::Gray8 => Some("|u1"),
                VideoFormat::Gray16Le => Some("<u2"),
                VideoFormat::Gray16Be => Some(">u2"),
                _ => None,
            };
            if let Some(number) = number {
                return Ok(npy(number, &shape, &self.packed()?));
            }
        }
        let picture = self.picture()?;
        Ok(npy(
            "|u1",
            &[picture.height as usize, picture.width as usize, 3],
            &picture.rgb,
        ))
    }
}

impl Picture {
    /// The picture as a file.
    pub(crate) fn encode(&self, kind: Kind) -> Result<Vec<u8>, ImageError> {
        let mut file = Vec::new();
        let (width, height, colour) = (self.width, self.height, ExtendedColorType::Rgb8);
        match kind {
            Kind::Jpg => {
                JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY).write_image(&self.rgb, width, height, colour)?;
            }
            Kind::Webp => WebPEncoder::new_lossless(&mut file).write_image(&self.rgb, width, height, colour)?,
            _ => PngEncoder::new(&mut file).write_image(&self.rgb, width, height, colour)?,
        }
        Ok(file)
    }
}

/// The format of a picture in a file, by the name and the first bytes of the file. JPEG counts only with its name,
/// because Motion JPEG begins with the same bytes.
pub(crate) fn format_of(name: &str, first: &[u8]) -> Option<ImageFormat> {
    match (Kind::of_file(name), image::guess_format(first).ok()?) {
        (_, format @ (ImageFormat::Png | ImageFormat::WebP)) => Some(format),
        (Some(Kind::Jpg), ImageFormat::Jpeg) => Some(ImageFormat::Jpeg),
        _ => None,
    }
}

/// Decodes a picture that another program made.
pub(crate) fn decode(bytes: &[u8], format: ImageFormat) -> Result<Picture, ImageError> {
    let mut reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED_SIZE);
    reader.limits(limits);
    let picture = DynamicImage::into_rgb8(reader.decode()?);
    Ok(Picture {
        width: picture.width(),
        height: picture.height(),
        rgb: picture.into_raw(),
    })
}

/// A file of NumPy, version 1.0, with an array in the order of C. `number` is NumPy's name of the type, as `<u2`.
fn npy(number: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    const PREFIX: usize = 10;
    let shape: Vec<String> = shape.iter().map(|length| format!("{length}, ")).collect();
    let mut header = format!(
        "{{'descr': '{number}', 'fortran_order': False, 'shape': ({}), }}",
        shape.concat()
    );
    // The values begin at a multiple of 64 bytes, and the header ends with a newline.
    while !(PREFIX + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(values);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of GRAY8 with a stride of 4 for 3 pixels.
    const PADDED: [u8; 8] = [1, 2, 3, 99, 4, 5, 6, 99];

    fn padded(descriptor: &FrameDescriptor) -> Frame<'_> {
        Frame {
            channel: "cam0",
            caps: "video/x-raw,format=GRAY8,width=3,height=2,framerate=0/1",
            descriptor,
            bytes: &PADDED,
        }
    }

    #[test]
    fn padding_is_left_out() {
        let descriptor = FrameDescriptor::new(8);
        assert_eq!(padded(&descriptor).packed(), Ok(vec![1, 2, 3, 4, 5, 6]));
        let array = padded(&descriptor).encode(Kind::Npy).unwrap();
        assert!(
            array.ends_with(&[1, 2, 3, 4, 5, 6]) && array.len() == 128 + 6,
            "{array:?}"
        );
        assert!(String::from_utf8_lossy(&array).contains("'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, ),"));
    }

    #[test]
    fn pictures_without_loss_survive() {
        let descriptor = FrameDescriptor::new(8);
        for (kind, format) in [(Kind::Png, ImageFormat::Png), (Kind::Webp, ImageFormat::WebP)] {
            let file = padded(&descriptor).encode(kind).unwrap();
            let picture = decode(&file, format).unwrap();
            assert_eq!((picture.width, picture.height), (3, 2));
            assert!(
                picture
                    .rgb
                    .chunks(3)
                    .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
            );
        }
    }

    #[test]
    fn frame_that_is_too_short_is_refused() {
        let descriptor = FrameDescriptor::new(5);
        let frame = Frame {
            bytes: &PADDED[..5],
            ..padded(&descriptor)
        };
        assert!(frame.packed().is_err() && frame.picture().is_err());
        let jpeg = Frame {
            caps: "image/jpeg,width=3,height=2",
            ..frame
        };
        assert!(jpeg.picture().is_err());
        let other = Frame {
            caps: "video/x-h264,width=3,height=2",
            ..frame
        };
        assert!(
            other
                .picture()
                .is_err_and(|failure| failure.text().contains("rsshm does not decode video/x-h264"))
        );
    }
}
