// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm echo`: a line for each frame.

use std::time::Duration;

use clap::Args;
use rsshm_channel::{ChannelName, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, TIME_NONE, monotonic_ns};
use serde::Serialize;

use super::describe::{self, Detail};
use crate::{
    failure::Failure,
    follow::{Begin, Follower, Sight},
    names,
    output::{Format, Output},
};

/// How long one wait for a frame takes at most. The wait is then repeated.
const SLICE: Duration = Duration::from_secs(1);

/// The fields of CSV.
const FIELDS: [&str; 9] = [
    "seq",
    "pts_ns",
    "dts_ns",
    "duration_ns",
    "age_ns",
    "size",
    "flags",
    "keyframe",
    "missed",
];

/// Prints a line for each frame: its seq, time, age, size, flags and planes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm echo cam0
  rsshm echo cam0 -n 1 -v            also the metadata of the frame, and the events before it
  rsshm echo cam0 --json | jq .age_ns

It begins with the newest frame, and waits for a channel that does not exist yet. A line with # has the format of the frames
after it. With -v the frames are copied, and a compressed stream begins with a keyframe.")]
pub(crate) struct Echo {
    /// A name or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// Ends after this many frames.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Prints the metadata of each frame, and the events between the frames.
    #[arg(long, short)]
    verbose: bool,
}

/// A frame as JSON, which docs/CLI.md describes.
#[derive(Debug, Serialize)]
struct Line {
    seq: u64,
    pts_ns: Option<u64>,
    dts_ns: Option<u64>,
    duration_ns: Option<u64>,
    age_ns: Option<i64>,
    size: u64,
    flags: Vec<String>,
    keyframe: bool,
    missed: u64,
    planes: Vec<Plane>,
    /// The caps, of the first frame after a change.
    caps: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<Detail>>,
}

#[derive(Debug, Serialize)]
struct Plane {
    offset: u64,
    stride: i32,
}

impl Echo {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        if output.format == Format::Csv {
            output.csv(&FIELDS)?;
        }
        if self.verbose {
            self.read(output)
        } else {
            self.follow(output)
        }
    }

    /// Prints frames without a look at their bytes.
    fn follow(&self, output: &mut Output) -> Result<(), Failure> {
        let mut follower = Follower::new(self.channel.clone(), Begin::Newest);
        let mut printed = 0;
        let mut caps = String::new();
        while self.count.is_none_or(|count| printed < count) {
            let Some(sight) = follower.next(SLICE)? else {
                continue;
            };
            let is_new = sight.is_first_of_segment && follower.caps() != caps;
            if is_new {
                caps = follower.caps().to_owned();
            }
            // The first frame has no frame before it that could be missed.
            let missed = if printed == 0 { 0 } else { sight.missed };
            print(
                output,
                &Line::new(&Sight { missed, ..sight }, is_new.then(|| caps.clone())),
            )?;
            printed += 1;
        }
        Ok(())
    }

    /// Prints frames with their metadata, and events.
    fn read(&self, output: &mut Output) -> Result<(), Failure> {
        let mut reader = Reader::new(self.channel.clone(), ReaderOptions::default().read_only(true));
        let mut copy = Vec::new();
        let mut printed = 0;
        let mut caps = String::new();
        while self.count.is_none_or(|count| printed < count) {
            let next = reader
                .next(&mut copy, ReadLimits::default(), Some(SLICE))
                .map_err(|error| Failure::of_channel(&self.channel, &error))?;
            match next {
                Next::Frame(frame) => {
                    let is_new = reader.caps() != caps;
                    if is_new {
                        caps = reader.caps().to_owned();
                    }
                    let sight = Sight {
                        seq: frame.seq,
                        descriptor: frame.descriptor,
                        missed: frame.missed,
                        seen_ns: monotonic_ns(),
                        is_first_of_segment: is_new,
                    };
                    let mut line = Line::new(&sight, is_new.then(|| caps.clone()));
                    line.metadata = Some(describe::metadata(&frame.metadata));
                    print(output, &line)?;
                    printed += 1;
                }
                Next::Event(event) => describe::print_event(output, &event)?,
                Next::EndOfStream => describe::print_note(output, "end of the stream")?,
                Next::Lost => describe::print_note(output, "the writer is gone")?,
                Next::Fault(fault) => describe::print_note(output, &format!("frames were missed: {fault}"))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Line {
    fn new(sight: &Sight, caps: Option<String>) -> Self {
        let FrameDescriptor {
            pts,
            dts,
            duration,
            size,
            flags,
            planes,
            keyframe,
            ..
        } = sight.descriptor;
        let time = |time: u64| (time != TIME_NONE).then_some(time);
        let planes = sight
            .descriptor
            .plane_offset
            .iter()
            .zip(sight.descriptor.plane_stride)
            .take(planes as usize);
        Self {
            seq: sight.seq,
            pts_ns: time(pts),
            dts_ns: time(dts),
            duration_ns: time(duration),
            age_ns: sight.age_ns(),
            size,
            flags: describe::flags(flags),
            keyframe: keyframe != 0,
            missed: sight.missed,
            planes: planes
                .map(|(offset, stride)| Plane {
                    offset: *offset,
                    stride,
                })
                .collect(),
            caps,
            metadata: None,
        }
    }
}

fn print(output: &mut Output, line: &Line) -> Result<(), Failure> {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    match output.format {
        Format::Json => output.json(line)?,
        Format::Csv => output.csv(&[
            line.seq.to_string(),
            text(line.pts_ns),
            text(line.dts_ns),
            text(line.duration_ns),
            text(line.age_ns),
            line.size.to_string(),
            line.flags.join(" "),
            line.keyframe.to_string(),
            line.missed.to_string(),
        ])?,
        Format::Table => {
            if let Some(caps) = &line.caps {
                output.line(format!("# {caps}"))?;
            }
            let seconds = |time: Option<u64>| {
                time.map_or_else(
                    || "none".to_owned(),
                    |time| format!("{}.{:06}", time / 1_000_000_000, time / 1000 % 1_000_000),
                )
            };
            let age = line
                .age_ns
                .map_or_else(|| "none".to_owned(), |age| format!("{:.1}ms", age as f64 / 1e6));
            let flags = if line.flags.is_empty() {
                "-".to_owned()
            } else {
                line.flags.join(",")
            };
            let mut words = vec![
                line.seq.to_string(),
                format!("pts={}", seconds(line.pts_ns)),
                format!("age={age}"),
                format!("size={}", line.size),
                format!("flags={flags}"),
            ];
            if !line.planes.is_empty() {
                let strides: Vec<String> = line.planes.iter().map(|plane| plane.stride.to_string()).collect();
                words.push(format!("planes={} strides={}", line.planes.len(), strides.join(",")));
            }
            if line.missed > 0 {
                words.push(format!("missed={}", line.missed));
            }
            output.line(words.join(" "))?;
            for detail in line.metadata.iter().flatten() {
                output.line(format!("    {}", detail.text()))?;
            }
        }
    }
    output.flush()
}
