// SPDX-License-Identifier: MIT OR Apache-2.0

//! The colours of `snapshot`, `watch` and `cat` for every raw format of the installed GStreamer, against its converter.

use std::io::Cursor;

use rsshm_channel::{
    Caps, FrameDescriptor, Writer, WriterOptions, monotonic_ns,
    video::{VideoFormat, VideoInfo},
};
use rsshm_testkit::{
    gst::colour::{self, ROUNDING, difference, noise},
    need_program,
};

use crate::{
    support::{Channel, rsshm, run},
    terminal::typescript,
};

/// The padding behind each row of a padded frame, and before each plane of it. Rows of words stay aligned.
const PADDING: usize = 64;

/// One writer that publishes frames in one format after the other.
struct Stream {
    channel: Channel,
    writer: Writer,
    /// The size of the picture.
    width: u32,
    height: u32,
    caps: String,
    bytes: Vec<u8>,
}

impl Stream {
    fn new() -> Self {
        let channel = Channel::new();
        let writer = Writer::open((*channel).clone(), WriterOptions::default()).unwrap();
        Self {
            channel,
            writer,
            width: 0,
            height: 0,
            caps: String::new(),
            bytes: Vec::new(),
        }
    }

    /// Publishes noise in this format, in GStreamer's default layout.
    fn publish(&mut self, format: &str, (width, height): (u32, u32), more: &str) {
        (self.width, self.height) = (width, height);
        self.caps = format!("video/x-raw,format={format},width={width},height={height},framerate=30/1{more}");
        // In older versions of GStreamer, a row of UYVP may be too short.
        self.bytes = noise(colour::frame_size(&self.caps) + 4);
        self.write(&self.bytes, &[]);
    }

    /// Publishes the same picture with padding before each plane and behind each row.
    fn publish_padded(&self) {
        let info = VideoInfo::from_caps(&self.caps).unwrap();
        let layout = info.layout_of(&FrameDescriptor::new(self.bytes.len() as u64)).unwrap();
        let (mut padded, mut planes) = (Vec::new(), Vec::new());
        for plane in layout.planes() {
            let stride = (plane.row_bytes as usize).next_multiple_of(16) + PADDING;
            padded.resize(padded.len() + PADDING, 0xee);
            planes.push((padded.len() as u64, stride as i32));
            for row in 0..plane.rows as usize {
                let start = plane.offset as usize + row * plane.stride as usize;
                padded.extend(&self.bytes[start..start + plane.row_bytes as usize]);
                padded.resize(padded.len() + stride - plane.row_bytes as usize, 0xee);
            }
        }
        self.write(&padded, &planes);
    }

    fn write(&self, bytes: &[u8], planes: &[(u64, i32)]) {
        self.writer
            .set_caps(Caps::fixed_size(&*self.caps, bytes.len()))
            .unwrap();
        let mut slot = self.writer.claim(bytes.len()).unwrap().expect("a slot");
        slot.as_mut().copy_from_slice(bytes);
        let descriptor = FrameDescriptor::new(bytes.len() as u64)
            .with_pts(monotonic_ns())
            .with_planes(planes);
        self.writer.publish(&slot, descriptor, &[]).unwrap();
    }

    fn expected(&self) -> Vec<u8> {
        colour::picture_of(&self.caps, &self.bytes)
    }

    /// The file that `rsshm snapshot` makes of the newest frame.
    #[track_caller]
    fn snapshot(&self, kind: &str) -> Vec<u8> {
        let output = rsshm(&format!("snapshot {} -o - --type {kind}", self.channel.0))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*errors), (Some(0), ""), "{}", self.caps);
        output.stdout
    }

    /// The pixels of a snapshot.
    #[track_caller]
    fn pixels(&self, kind: &str) -> Vec<u8> {
        let file = self.snapshot(kind);
        if kind == "npy" {
            let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
            let header = String::from_utf8_lossy(&file[10..10 + length]).into_owned();
            assert!(
                header.contains(&format!("'shape': ({}, {}, 3, )", self.height, self.width)),
                "{header}"
            );
            return file[10 + length..].to_vec();
        }
        let picture = image::ImageReader::new(Cursor::new(file))
            .with_guessed_format()
            .unwrap()
            .decode()
            .unwrap();
        assert_eq!(
            (picture.width(), picture.height()),
            (self.width, self.height),
            "{}",
            self.caps
        );
        picture.into_rgb8().into_raw()
    }

    #[track_caller]
    fn compare(&self, found: &[u8], what: &str) {
        let (largest, mean) = difference(found, &self.expected());
        assert!(
            largest <= ROUNDING.0 && mean <= ROUNDING.1,
            "{what} of {}: {largest}, {mean:.2} on average",
            self.caps
        );
    }
}

/// The formats with pictures. The others have an error, which [`formats_without_pictures_are_named`] checks.
fn formats() -> impl Iterator<Item = &'static str> {
    colour::formats()
        .into_iter()
        .filter(|name| VideoFormat::from_name(name).is_some())
}

#[test]
fn snapshots_of_every_format_are_those_of_videoconvert() {
    let mut stream = Stream::new();
    let mut count = 0;
    for format in formats() {
        // With a width of 33, GStreamer reads the last chroma of NV16_10LE32 from the next row.
        for size in [(31, 17), (1, 1), (2, 3)] {
            if format == "VYUY" && size.0 % 2 == 1 {
                continue; // GStreamer exchanges the components of chroma in the last pixel of an odd width.
            }
            stream.publish(format, size, "");
            stream.compare(&stream.pixels("png"), "PNG");
            let raw = (size.0 == 31).then(|| stream.snapshot("raw"));
            stream.publish_padded();
            let is_gray = format.starts_with("GRAY8") || format.starts_with("GRAY16");
            let kind = if is_gray { "png" } else { "npy" };
            stream.compare(&stream.pixels(kind), "padded picture");
            if let Some(raw) = raw {
                assert!(stream.snapshot("raw") == raw, "{format}: padding is in the raw bytes");
            }
            count += 1;
        }
    }
    assert!(count > 250, "{count}");
}

#[test]
fn snapshots_have_the_range_and_the_matrix_of_the_caps() {
    let mut stream = Stream::new();
    for format in ["NV12", "Y444_10LE", "AYUV", "GRAY8"] {
        // Limited ranges of three matrices, the full ranges of the same, and RGB's own.
        for colorimetry in ["bt601", "bt709", "bt2020", "1:4:0:0", "1:3:5:1", "1:6:13:7", "sRGB"] {
            stream.publish(format, (16, 9), &format!(",colorimetry=(string){colorimetry}"));
            stream.compare(&stream.pixels("png"), "PNG");
        }
    }
}

/// The text of the error names the format, and what helps.
#[test]
fn formats_without_pictures_are_named() {
    let channel = Channel::new();
    let writer = Writer::open((*channel).clone(), WriterOptions::default()).unwrap();
    let mut names = Vec::new();
    for name in colour::formats() {
        if VideoFormat::from_name(name).is_some() {
            continue;
        }
        names.push(name);
        let caps = format!("video/x-raw,format={name},width=64,height=64,framerate=30/1");
        let size = colour::frame_size(&caps);
        writer.set_caps(Caps::fixed_size(&*caps, size)).unwrap();
        let slot = writer.claim(size).unwrap().expect("a slot");
        writer.publish(&slot, FrameDescriptor::new(size as u64), &[]).unwrap();
        for command in ["snapshot -o -", "cat -n 1 --y4m", "cat -n 1 --mjpeg"] {
            let run = run(&format!("{command} {}", channel.0)).expect(1);
            let is_clear =
                run.stderr.contains(&format!("the format \"{name}\"")) && run.stderr.contains("videoconvert");
            assert!(is_clear && run.stdout.is_empty(), "{run:?}");
        }
        // Its bytes stay as they are.
        let output = rsshm(&format!("snapshot -o - --type raw {}", channel.0))
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), size), "{name}");
    }
    // GStreamer 1.22 has these. Later versions have more.
    for name in [
        "NV12_4L4",
        "NV12_64Z32",
        "NV12_32L32",
        "NV12_16L32S",
        "NV12_8L128",
        "NV12_10BE_8L128",
    ] {
        assert!(names.contains(&name), "{name} has a picture: {names:?}");
    }
    names.retain(|name| !VideoFormat::LEFT_OUT.iter().any(|(left_out, _)| left_out == name));
    assert!(names.is_empty(), "{names:?}");
}

/// The colours of a character: the pixel above, and the one below if there is one.
type HalfBlock = ([u8; 3], Option<[u8; 3]>);

/// The pixels of half blocks that a terminal received, row by row, and the number of columns.
fn half_blocks(text: &str) -> (Vec<[u8; 3]>, usize) {
    let (mut above, mut below) = ([0; 3], None);
    let mut lines: Vec<Vec<HalfBlock>> = vec![Vec::new()];
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '▀' => lines.last_mut().unwrap().push((above, below)),
            '\n' => lines.push(Vec::new()),
            '\x1b' => {
                let end = rest
                    .find(|character: char| character.is_ascii_alphabetic())
                    .unwrap_or(rest.len() - 1);
                let numbers: Vec<u8> = rest[1..end]
                    .split(';')
                    .filter_map(|number| number.parse().ok())
                    .collect();
                match (&rest[end..=end], &numbers[..]) {
                    ("m", [38, 2, colour @ ..]) => above = colour.try_into().unwrap(),
                    ("m", [48, 2, colour @ ..]) => below = Some(colour.try_into().unwrap()),
                    ("m", [49]) => below = None,
                    _ => {}
                }
                rest = &rest[end + 1..];
            }
            _ => {}
        }
    }
    lines.retain(|line| !line.is_empty());
    let columns = lines.first().map_or(0, Vec::len);
    let mut pixels = Vec::new();
    for line in lines {
        assert_eq!(line.len(), columns, "{text:?}");
        pixels.extend(line.iter().map(|(above, _)| *above));
        pixels.extend(line.iter().filter_map(|(_, below)| *below));
    }
    (pixels, columns)
}

#[test]
fn terminal_shows_the_colours_of_videoconvert() {
    need_program!("script");
    let formats: Vec<_> = formats().collect();
    // Nobody answers the queries of `watch` here, so each run waits for a second.
    std::thread::scope(|scope| {
        for formats in formats.chunks(formats.len().div_ceil(10)) {
            scope.spawn(move || {
                let mut stream = Stream::new();
                for &format in formats {
                    let width = if format == "VYUY" { 32 } else { 31 };
                    stream.publish(format, (width, 17), "");
                    stream.publish_padded();
                    let (code, text) = typescript(&format!("watch {} --as blocks -n 1", stream.channel.0));
                    let (pixels, columns) = half_blocks(&text);
                    assert_eq!((code, columns), (0, width as usize), "{format}: {text:?}");
                    stream.compare(&pixels.concat(), "half blocks");
                }
            });
        }
    });
}

#[test]
fn streams_of_y4m_say_their_range() {
    let mut stream = Stream::new();
    for (format, colorimetry, range) in [
        ("I420", "bt601", ""),
        ("I420", "1:4:0:0", " XCOLORRANGE=FULL"),
        // The conversion has the limited range.
        ("RGB", "sRGB", ""),
    ] {
        stream.publish(format, (16, 10), &format!(",colorimetry=(string){colorimetry}"));
        let output = rsshm(&format!("cat {} -n 1 --y4m --observe", stream.channel.0))
            .output()
            .unwrap()
            .stdout;
        let header = String::from_utf8_lossy(output.split(|byte| *byte == b'\n').next().unwrap()).into_owned();
        let space = if format == "RGB" { "444" } else { "420" };
        assert_eq!(header, format!("YUV4MPEG2 W16 H10 F30:1 Ip A1:1 C{space}{range}"));
    }
}
