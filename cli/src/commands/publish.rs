// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm publish`: files and pipes as a channel.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use rsshm_channel::{Caps, ChannelName, Error, FrameDescriptor, ServiceThread, Writer, WriterOptions, monotonic_ns};

use crate::{
    failure::{Code, Failure},
    interrupt, names,
    output::{self, Output},
    source::{Description, Item, Source},
};

/// The interval of the writer's service.
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);
/// If a frame is later than this, the times of the next frames are counted from it.
const MAX_LATENESS: Duration = Duration::from_secs(1);

/// Publishes pictures, films and pipes as a channel, at their rate.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm publish cam0 picture.png --loop
  rsshm publish cam0 a.jpg b.jpg c.jpg --fps 1 --loop
  ffmpeg -v error -i film.mp4 -f yuv4mpegpipe - | rsshm publish cam0 -
  ffmpeg -f v4l2 -input_format mjpeg -i /dev/video0 -c copy -f mjpeg - | rsshm publish cam0 - --fps 30
  my-camera | rsshm publish cam0 - --caps video/x-raw,format=BGR,width=640,height=480,framerate=30/1

Pictures and YUV4MPEG2 describe themselves, and Motion JPEG has its rate from --fps. Raw frames need --caps; their rows have no
padding, as programs write them. Ctrl-C ends the stream and removes the channel.")]
pub(crate) struct Publish {
    /// A name or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// Pictures (.png, .jpg, .webp), YUV4MPEG2, Motion JPEG or raw frames; - is stdin.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// The format of raw frames, as caps of GStreamer.
    #[arg(long, value_name = "CAPS")]
    caps: Option<String>,
    /// The size of the frames in bytes, if --caps is no raw video.
    #[arg(long, value_name = "BYTES", requires = "caps")]
    frame_size: Option<usize>,
    /// The frames a second: a number or a fraction. Without it, the rate of the source counts, or 30.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    fps: Option<(i32, i32)>,
    /// Begins again after the last file.
    #[arg(long = "loop")]
    repeat: bool,
    /// Publishes as fast as possible, and not at a rate.
    #[arg(long, conflicts_with = "repeat")]
    fast: bool,
    /// Ends after this many frames.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The permissions of the channel: 0644 lets others observe, 0660 lets the group attach.
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600")]
    perms: u32,
    /// Waits for the slowest reader, so that no reader misses a frame.
    #[arg(long)]
    lossless: bool,
    /// Waits for a reader before the first frame.
    #[arg(long)]
    wait: bool,
}

/// When frames leave.
struct Pace {
    began: Option<(Instant, u64)>,
    frames: u32,
    interval: Option<Duration>,
}

impl Publish {
    pub(crate) fn run(&self, _output: &mut Output) -> Result<(), Failure> {
        if self.repeat && self.files.iter().any(|file| file == "-") {
            return Err(Failure::new(Code::Usage, "stdin cannot be repeated; leave out --loop"));
        }
        let failure = |error: Error| Failure::of_channel(&self.channel, &error);
        let options = WriterOptions::default().perms(self.perms).lossless(self.lossless);
        let writer = Arc::new(Writer::open(self.channel.clone(), options).map_err(failure)?);
        // The signals come to another thread, which removes the channel before the program ends.
        interrupt::before_end({
            let writer = Arc::clone(&writer);
            move || {
                writer.end_of_stream();
                writer.close();
            }
        });
        let mut former = None;
        let report = move |_: &Writer, report: Result<rsshm_channel::ServiceReport, Error>| {
            // Each pass of the service may find the same error.
            if let Err(error) = report
                && former.as_ref() != Some(&error)
            {
                output::warn(error.to_string());
                former = Some(error);
            }
        };
        let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, report);
        let _service =
            service.map_err(|error| Failure::new(Code::No, format!("a thread cannot be started: {error}")))?;
        let outcome = self.publish_all(&writer);
        // The other thread has the writer too, so it is not closed by being dropped.
        writer.end_of_stream();
        writer.close();
        outcome
    }

    /// Publishes all frames of all files.
    fn publish_all(&self, writer: &Writer) -> Result<(), Failure> {
        let mut caps = None;
        let mut pace = Pace {
            began: None,
            frames: 0,
            interval: None,
        };
        let mut published = 0;
        // Publishes a frame; `true` after the last one.
        let mut publish = |item: &Item| {
            let outcome = self.publish(writer, item, &mut caps, &mut pace);
            outcome.map_err(|error| Failure::of_channel(&self.channel, &error))?;
            published += 1;
            Ok(self.count.is_some_and(|count| published >= count))
        };
        let mut is_empty = true;
        loop {
            for file in &self.files {
                let mut source = Source::open(file, self.description())?;
                while let Some(item) = source.next()? {
                    is_empty = false;
                    if publish(&item)? {
                        return Ok(());
                    }
                    // A single picture is decoded once, however often it is published.
                    while self.repeat && self.files.len() == 1 && source.is_picture() {
                        if publish(&item)? {
                            return Ok(());
                        }
                    }
                }
            }
            if is_empty {
                let text = format!("channel {}: there was no frame to publish", self.channel);
                return Err(Failure::new(Code::No, text));
            }
            if !self.repeat {
                return Ok(());
            }
        }
    }

    fn description(&self) -> Description<'_> {
        Description {
            caps: self.caps.as_deref(),
            frame_size: self.frame_size,
            rate: self.fps.unwrap_or((30, 1)),
        }
    }

    /// Publishes a frame when its time has come. `caps` are those of the frames before.
    fn publish(&self, writer: &Writer, item: &Item, caps: &mut Option<String>, pace: &mut Pace) -> Result<(), Error> {
        if caps.as_deref() != Some(&*item.caps) {
            writer.set_caps(if item.has_fixed_size {
                Caps::fixed_size(&*item.caps, item.bytes.len())
            } else {
                Caps::variable_size(&*item.caps)
            })?;
            if self.wait && caps.is_none() {
                writer.wait_for_reader(item.bytes.len(), || true)?;
            }
            *caps = Some(item.caps.clone());
            let rate = self.fps.or_else(|| framerate(&item.caps)).unwrap_or((30, 1));
            pace.restart((!self.fast).then(|| Duration::from_secs_f64(f64::from(rate.1) / f64::from(rate.0))));
        }
        let pts = pace.wait();
        loop {
            let Some(mut slot) = writer.claim(item.bytes.len())? else {
                writer.record_drop();
                return Ok(());
            };
            slot.as_mut().copy_from_slice(&item.bytes);
            let mut descriptor = FrameDescriptor::new(item.bytes.len() as u64)
                .with_pts(pts)
                .with_planes(&item.planes);
            if let Some(interval) = pace.interval {
                descriptor = descriptor.with_duration(interval.as_nanos() as u64);
            }
            match writer.publish(&slot, descriptor, &[]) {
                // The service made another segment after the claim.
                Err(Error::NotPublishable { .. }) => {}
                outcome => return outcome.map(drop),
            }
        }
    }
}

impl Pace {
    /// Begins to count from the next frame.
    fn restart(&mut self, interval: Option<Duration>) {
        self.began = None;
        self.interval = interval;
    }

    /// Waits until the next frame is due, and returns its timestamp.
    fn wait(&mut self) -> u64 {
        let Some(interval) = self.interval else {
            return monotonic_ns();
        };
        let now = Instant::now();
        let is_late = |began: Instant, frames: u32| now > began + interval.saturating_mul(frames) + MAX_LATENESS;
        let (began, began_ns) = match self.began {
            Some((began, began_ns)) if !is_late(began, self.frames) => (began, began_ns),
            _ => {
                self.frames = 0;
                (now, monotonic_ns())
            }
        };
        self.began = Some((began, began_ns));
        let offset = interval.saturating_mul(self.frames);
        self.frames += 1;
        std::thread::sleep((began + offset).saturating_duration_since(now));
        began_ns.saturating_add(offset.as_nanos() as u64)
    }
}

/// The frame rate in caps, if it is not variable.
fn framerate(caps: &str) -> Option<(i32, i32)> {
    crate::caps::Summary::new(caps)
        .framerate
        .and_then(|text| rate(&text).ok())
}

/// Parses a frame rate, for clap.
fn rate(text: &str) -> Result<(i32, i32), String> {
    let failure = || format!("{text:?} is not a frame rate, such as 30, 29.97 or 30000/1001");
    let (numerator, denominator) = match text.split_once('/') {
        Some((numerator, denominator)) => (
            numerator.parse().map_err(|_| failure())?,
            denominator.parse().map_err(|_| failure())?,
        ),
        None => {
            let rate: f64 = text.parse().map_err(|_| failure())?;
            // 29.97 is 30000/1001, and 23.976 is 24000/1001.
            let whole = (rate * 1.001).round();
            if rate.fract() == 0.0 {
                (rate as i32, 1)
            } else if (whole / 1.001 - rate).abs() < 0.005 {
                ((whole * 1000.0) as i32, 1001)
            } else {
                ((rate * 1000.0).round() as i32, 1000)
            }
        }
    };
    if !(1..=1_000_000_000).contains(&numerator) || !(1..=1_000_000).contains(&denominator) {
        return Err(failure());
    }
    Ok((numerator, denominator))
}

/// Parses permissions in octal digits, for clap.
fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{text:?} is not a mode, such as 0644"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_fractions() {
        for (text, expected) in [
            ("30", (30, 1)),
            ("29.97", (30000, 1001)),
            ("23.976", (24000, 1001)),
            ("12.5", (12500, 1000)),
            ("30000/1001", (30000, 1001)),
        ] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "-1", "1/0", "x", "1e30", "nan", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
