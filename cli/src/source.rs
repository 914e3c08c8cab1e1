// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames from files and pipes, for `publish`: pictures, YUV4MPEG2, Motion JPEG, and raw frames.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, stdin},
};

use rsshm_channel::video::{VideoFormat, VideoInfo};

use crate::{
    failure::{Code, Failure},
    picture,
};

/// The largest frame of a stream, so that a damaged stream does not fill the memory.
const MAX_FRAME_SIZE: usize = 1 << 30;
/// The longest header of a stream.
const MAX_HEADER_SIZE: u64 = 4096;

/// A frame that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) caps: String,
    pub(crate) bytes: Vec<u8>,
    /// Where the planes are: the offset and the stride of each. Empty if the frame is no raw video.
    pub(crate) planes: Vec<(u64, i32)>,
    /// Whether all frames with these caps have the same size.
    pub(crate) has_fixed_size: bool,
}

/// The frames of one file or pipe.
pub(crate) struct Source {
    name: String,
    kind: Kind,
}

enum Kind {
    /// A picture; `None` after it was delivered.
    Picture(Option<Item>),
    Y4m(Input, Item),
    Mjpeg(Input, String),
    /// Frames of the same size.
    Raw(Input, Item),
}

type Input = BufReader<Box<dyn Read + Send>>;

/// What the user says about frames that do not describe themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description<'a> {
    pub(crate) caps: Option<&'a str>,
    pub(crate) frame_size: Option<usize>,
    /// The frame rate as a fraction, for sources that do not have one.
    pub(crate) rate: (i32, i32),
}

impl Source {
    /// Opens a file, or stdin if the name is `-`, and finds out what it has.
    pub(crate) fn open(name: &str, description: Description<'_>) -> Result<Self, Failure> {
        let failure = |what: String| Failure::new(Code::No, format!("{name}: {what}"));
        let stream: Box<dyn Read + Send> = match name {
            "-" => Box::new(stdin()),
            name => Box::new(File::open(name).map_err(|error| failure(error.to_string()))?),
        };
        let mut input = BufReader::with_capacity(256 * 1024, stream);
        if let Some(caps) = description.caps {
            let kind = Kind::Raw(input, raw(caps, description.frame_size).map_err(failure)?);
            return Ok(Self {
                name: name.to_owned(),
                kind,
            });
        }
        let first = input.fill_buf().map_err(|error| failure(error.to_string()))?;
        let rate = description.rate;
        let kind = if first.starts_with(b"YUV4MPEG2 ") {
            let header = line(&mut input).map_err(|error| failure(error.to_string()))?;
            Kind::Y4m(input, y4m(&header).map_err(failure)?)
        } else if let Some(format) = picture::format_of(name, first) {
            let mut bytes = Vec::new();
            input
                .read_to_end(&mut bytes)
                .map_err(|error| failure(error.to_string()))?;
            let picture = picture::decode(&bytes, format).map_err(|error| failure(error.to_string()))?;
            let caps = format!(
                "video/x-raw,format=RGB,width={},height={},framerate={}/{}",
                picture.width, picture.height, rate.0, rate.1
            );
            let mut item = raw(&caps, None).map_err(failure)?;
            item.bytes = picture.rgb;
            Kind::Picture(Some(item))
        } else if first.starts_with(&[0xff, 0xd8]) {
            Kind::Mjpeg(input, format!("framerate={}/{}", rate.0, rate.1))
        } else {
            return Err(Failure::new(
                Code::Usage,
                format!("{name} is no picture, YUV4MPEG2 or Motion JPEG; give the format of raw frames with --caps"),
            ));
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
        })
    }

    /// Whether the file has a single picture, which need not be read again.
    pub(crate) fn is_picture(&self) -> bool {
        matches!(self.kind, Kind::Picture(_))
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Failure> {
        let next = match &mut self.kind {
            Kind::Picture(item) => Ok(item.take()),
            Kind::Raw(input, item) => fill(input, item),
            Kind::Y4m(input, item) => match line(input) {
                Ok(header) if header.is_empty() => Ok(None),
                Ok(header) if header.starts_with("FRAME") => fill(input, item),
                Ok(_) => Err(io::Error::other("a frame does not begin with FRAME")),
                Err(error) => Err(error),
            },
            Kind::Mjpeg(input, rate) => jpeg(input, rate),
        };
        next.map_err(|error| Failure::new(Code::No, format!("{}: {error}", self.name)))
    }
}

/// Reads a frame of the size that `item` has.
fn fill(input: &mut Input, item: &Item) -> io::Result<Option<Item>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut item = item.clone();
    input.read_exact(&mut item.bytes)?;
    Ok(Some(item))
}

/// A frame without content, of raw video without padding, or of other media with `frame_size` bytes.
fn raw(caps: &str, frame_size: Option<usize>) -> Result<Item, String> {
    let (planes, size) = match (VideoInfo::from_caps(caps), frame_size) {
        (Ok(info), None) => packed(&info)?,
        (_, Some(size)) => (Vec::new(), size),
        (Err(error), None) => return Err(format!("{error}; frames of other formats need --frame-size")),
    };
    if !(1..=MAX_FRAME_SIZE).contains(&size) {
        return Err(format!("frames of {size} bytes are not possible"));
    }
    Ok(Item {
        caps: caps.to_owned(),
        bytes: vec![0; size],
        planes,
        has_fixed_size: true,
    })
}

/// The planes of frames whose rows have no padding, and their size.
fn packed(info: &VideoInfo) -> Result<(Vec<(u64, i32)>, usize), String> {
    let layout = info.layout().map_err(|error| error.to_string())?;
    let (mut planes, mut size) = (Vec::new(), 0);
    for plane in layout.planes() {
        planes.push((size, plane.row_bytes as i32));
        size += u64::from(plane.row_bytes) * u64::from(plane.rows);
    }
    Ok((planes, usize::try_from(size).unwrap_or(usize::MAX)))
}

/// The frames that the first line of YUV4MPEG2 describes.
fn y4m(header: &str) -> Result<Item, String> {
    let parameter = |name: char| header.split(' ').skip(1).find_map(|word| word.strip_prefix(name));
    let number = |name: char| parameter(name).and_then(|text| text.parse::<u32>().ok());
    let (Some(width), Some(height)) = (number('W'), number('H')) else {
        return Err("its first line has no width or height".to_owned());
    };
    let space = parameter('C').unwrap_or("420");
    let format = match space {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => VideoFormat::I420,
        "422" => VideoFormat::Y42b,
        "444" => VideoFormat::Y444,
        "mono" => VideoFormat::Gray8,
        other => {
            return Err(format!(
                "the colour space C{other} is not known; convert it with ffmpeg -pix_fmt yuv420p"
            ));
        }
    };
    let rate = parameter('F').and_then(|rate| rate.split_once(':'));
    let rate = rate.and_then(|(numerator, denominator)| Some((numerator.parse().ok()?, denominator.parse().ok()?)));
    let rate: (i32, i32) = rate
        .filter(|(numerator, denominator)| *numerator > 0 && *denominator > 0)
        .unwrap_or((25, 1));
    let info = VideoInfo::new(format, width, height, rate).map_err(|error| error.to_string())?;
    // ffmpeg says so about frames of Motion JPEG; without it, the range is limited.
    let range = if header.split(' ').any(|word| word == "XCOLORRANGE=FULL") {
        ", colorimetry=(string)1:4:0:0"
    } else {
        ""
    };
    raw(&(info.to_caps() + range), None)
}

/// Reads a line without its end; an empty line at the end of the input.
fn line(input: &mut Input) -> io::Result<String> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_HEADER_SIZE).read_until(b'\n', &mut line)?;
    if line.len() as u64 == MAX_HEADER_SIZE {
        return Err(io::Error::other("a header is too long"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Reads a JPEG picture: from the start marker to the end marker. Entropy-coded data have no such marker, and segments
/// before them are skipped by their length, because a thumbnail in them has markers of its own.
fn jpeg(input: &mut Input, rate: &str) -> io::Result<Option<Item>> {
    let mut bytes = Vec::new();
    let byte = |input: &mut Input, bytes: &mut Vec<u8>| -> io::Result<u8> {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if bytes.len() > MAX_FRAME_SIZE {
            return Err(io::Error::other("a picture is too large"));
        }
        Ok(byte[0])
    };
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    if (byte(input, &mut bytes)?, byte(input, &mut bytes)?) != (0xff, 0xd8) {
        return Err(io::Error::other("a picture does not begin with the marker of JPEG"));
    }
    let mut size = None;
    loop {
        while byte(input, &mut bytes)? != 0xff {}
        let mut marker = byte(input, &mut bytes)?;
        while marker == 0xff {
            marker = byte(input, &mut bytes)?;
        }
        match marker {
            0xd9 => break,
            // Stuffed bytes and restart markers belong to entropy-coded data.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = [byte(input, &mut bytes)?, byte(input, &mut bytes)?];
                let start = bytes.len();
                for _ in 2..u16::from_be_bytes(length) {
                    byte(input, &mut bytes)?;
                }
                let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
                if let Some(&[_, h1, h0, w1, w0]) = bytes.get(start..start + 5).filter(|_| is_frame) {
                    size = Some((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
                }
            }
        }
    }
    let Some((width, height)) = size else {
        return Err(io::Error::other("a picture has no size"));
    };
    Ok(Some(Item {
        caps: format!("image/jpeg,width={width},height={height},{rate}"),
        bytes,
        planes: Vec::new(),
        has_fixed_size: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: Vec<u8>) -> Input {
        BufReader::new(Box::new(io::Cursor::new(bytes)))
    }

    #[test]
    fn header_of_y4m_becomes_caps() {
        let item = y4m("YUV4MPEG2 W5 H3 F30000:1001 Ip A1:1 C420jpeg").unwrap();
        assert!(item.caps.contains("format=(string)I420") && item.caps.contains("framerate=(fraction)30000/1001"));
        assert_eq!((item.planes, item.bytes.len()), (vec![(0, 5), (15, 3), (21, 3)], 27));
        let full = y4m("YUV4MPEG2 W5 H3 F30:1 C420jpeg XCOLORRANGE=FULL").unwrap();
        assert!(full.caps.ends_with("colorimetry=(string)1:4:0:0"), "{}", full.caps);
        for header in [
            "YUV4MPEG2 W5",
            "YUV4MPEG2 W5 H3 C420p10",
            "YUV4MPEG2 W99999999 H99999999",
        ] {
            assert!(y4m(header).is_err(), "{header}");
        }
    }

    #[test]
    fn pictures_of_motion_jpeg_are_divided() {
        // A segment with markers of a thumbnail, the size, then data with a stuffed byte and a restart marker.
        let picture = [
            &[0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xd8][..],
            &[0xff, 0xc0, 0, 8, 8, 0, 48, 0, 64, 0],
            &[0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd9],
        ]
        .concat();
        let mut stream = input(picture.repeat(2));
        for _ in 0..2 {
            let item = jpeg(&mut stream, "framerate=30/1").unwrap().unwrap();
            assert_eq!(
                (item.bytes, &*item.caps),
                (picture.clone(), "image/jpeg,width=64,height=48,framerate=30/1")
            );
        }
        assert_eq!(jpeg(&mut stream, "").unwrap(), None);
        for size in 1..picture.len() {
            assert!(jpeg(&mut input(picture[..size].to_vec()), "").is_err(), "{size}");
        }
    }
}
