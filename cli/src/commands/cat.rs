// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm cat`: the frames on stdout, for programs that read a pipe.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use clap::{Args, ValueEnum};
use rsshm_channel::{ChannelName, Next, ReadLimits, Reader, ReaderOptions, video::VideoInfo};

use crate::{
    caps::Summary,
    failure::{Code, Failure},
    names,
    output::{self, Output},
    picture::{Frame, Kind},
    units, y4m,
};

/// How long one wait for a frame takes at most. The wait is then repeated.
const SLICE: Duration = Duration::from_secs(1);

/// The form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stream {
    /// The bytes of the frames; raw video has no padding behind its rows.
    Raw,
    /// YUV4MPEG2, which has the size and the rate in its first line.
    Y4m,
    /// Motion JPEG; raw video is encoded, JPEG stays as it is.
    Mjpeg,
}

/// Writes the frames to a pipe, for ffmpeg, mpv and every program without a plugin.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm cat cam0 --y4m | ffplay -
  rsshm cat cam0 --y4m | ffmpeg -i - -t 10 film.mp4
  rsshm cat cam0 --mjpeg | mpv --demuxer=lavf -
  rsshm cat cam0 | ffplay -f rawvideo -pixel_format nv12 -video_size 1920x1080 -

It ends with the stream, with its writer, or with the program that reads the pipe. It is an ordinary reader: if the pipe is
slow, it misses frames.")]
pub(crate) struct Cat {
    /// A name or a URI. The command waits for a channel that does not exist yet.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// The form of the stream.
    #[arg(long = "as", value_enum, default_value = "raw", value_name = "FORM")]
    stream: Stream,
    /// The same as --as y4m.
    #[arg(long, conflicts_with = "mjpeg")]
    y4m: bool,
    /// The same as --as mjpeg.
    #[arg(long)]
    mjpeg: bool,
    /// Ends after this many frames.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long to wait for the first frame; for ever if it is not given.
    #[arg(long, short, value_name = "DURATION", value_parser = units::parse_duration)]
    timeout: Option<Duration>,
    /// Only observes: the writer does not count this reader, and each frame is copied.
    #[arg(long)]
    observe: bool,
}

impl Cat {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        if stdout().is_terminal() {
            let text = format!(
                "a terminal cannot show frames; for example: rsshm cat {} --y4m | ffplay -",
                self.channel
            );
            return Err(Failure::new(Code::Usage, text));
        }
        let options = ReaderOptions::default().read_only(self.observe);
        let mut reader = Reader::new(self.channel.clone(), options);
        let mut copy = Vec::new();
        let (mut written, mut missed) = (0, 0);
        let mut format: Option<String> = None;
        while self.count.is_none_or(|count| written < count) {
            let limit = if written == 0 {
                self.timeout.unwrap_or(SLICE)
            } else {
                SLICE
            };
            let next = reader
                .next(&mut copy, ReadLimits::default(), Some(limit))
                .map_err(|error| Failure::of_channel(&self.channel, &error))?;
            let frame = match next {
                Next::Frame(frame) => frame,
                Next::TimedOut if written == 0 && self.timeout.is_some() => return Err(self.time_out()),
                Next::EndOfStream => break,
                // A writer that was there before the first frame may come back.
                Next::Lost if written > 0 => break,
                Next::Fault(fault) => {
                    output::warn(format!("channel {}: frames were missed: {fault}", self.channel));
                    continue;
                }
                _ => continue,
            };
            let bytes = frame.bytes(&copy);
            let picture = Frame {
                channel: self.channel.as_str(),
                caps: reader.caps(),
                descriptor: &frame.descriptor,
                bytes,
            };
            self.write(&picture, &mut format, output)?;
            missed += if written > 0 { frame.missed } else { 0 };
            written += 1;
        }
        if missed > 0 {
            output::warn(format!(
                "channel {}: {missed} frames missed, because the pipe was too slow",
                self.channel
            ));
        }
        Ok(())
    }

    fn stream(&self) -> Stream {
        match (self.y4m, self.mjpeg) {
            (true, _) => Stream::Y4m,
            (_, true) => Stream::Mjpeg,
            _ => self.stream,
        }
    }

    /// Writes one frame. `format` is what the frames before it had.
    fn write(&self, frame: &Frame<'_>, format: &mut Option<String>, output: &mut Output) -> Result<(), Failure> {
        let is_new = format.as_deref() != Some(frame.caps);
        if let Some(former) = format.as_ref().filter(|_| is_new && self.stream() != Stream::Mjpeg) {
            let text = format!(
                "its format changed from {former} to {}, and the stream cannot",
                frame.caps
            );
            return Err(frame.failure(&text));
        }
        if is_new {
            *format = Some(frame.caps.to_owned());
        }
        match self.stream() {
            Stream::Raw => {
                if is_new {
                    describe(frame);
                }
                output.bytes(&frame.packed()?)
            }
            Stream::Mjpeg => output.bytes(&frame.encode(Kind::Jpg)?),
            Stream::Y4m => output.bytes(&y4m::stream(frame, is_new)?),
        }
    }

    fn time_out(&self) -> Failure {
        let timeout = units::duration(units::nanoseconds(self.timeout.unwrap_or_default()));
        let text = format!("channel {}: no frame within {timeout}", self.channel);
        Failure::new(Code::TimedOut, text)
    }
}

/// Says on the terminal how ffmpeg reads the stream, because raw video does not say it itself.
fn describe(frame: &Frame<'_>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let summary = Summary::new(frame.caps);
    let options = VideoInfo::from_caps(frame.caps).ok().and_then(|info| {
        let format = ffmpeg_name(info.format().name())?;
        let rate = summary
            .framerate
            .clone()
            .map_or_else(String::new, |rate| format!(" -framerate {rate}"));
        let size = format!("{}x{}", info.width(), info.field_height());
        Some(format!(
            "ffplay -f rawvideo -pixel_format {format} -video_size {size}{rate} -"
        ))
    });
    match options {
        Some(options) => output::warn(format!("channel {}: for {options}", frame.channel)),
        None => output::warn(format!("channel {}: {}", frame.channel, frame.caps)),
    }
}

/// The name that ffmpeg has for a format of GStreamer.
fn ffmpeg_name(format: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 22] = [
        ("I420", "yuv420p"),
        ("NV12", "nv12"),
        ("NV21", "nv21"),
        ("Y42B", "yuv422p"),
        ("Y444", "yuv444p"),
        ("YUY2", "yuyv422"),
        ("UYVY", "uyvy422"),
        ("YVYU", "yvyu422"),
        ("RGB", "rgb24"),
        ("BGR", "bgr24"),
        ("RGBA", "rgba"),
        ("BGRA", "bgra"),
        ("ARGB", "argb"),
        ("ABGR", "abgr"),
        ("RGBx", "rgb0"),
        ("BGRx", "bgr0"),
        ("GRAY8", "gray"),
        ("GRAY16_LE", "gray16le"),
        ("GRAY16_BE", "gray16be"),
        ("I420_10LE", "yuv420p10le"),
        ("P010_10LE", "p010le"),
        ("RGB16", "rgb565le"),
    ];
    NAMES.iter().find(|(name, _)| *name == format).map(|(_, name)| *name)
}
