// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm snapshot`: saves frames as pictures.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use rsshm_channel::ChannelName;

use crate::{
    caps::Summary,
    failure::{Code, Failure},
    follow::{Begin, Follower, Sight},
    names,
    output::{Format, Output},
    picture::{Frame, Kind},
    units,
};

/// The fields of CSV, which docs/CLI.md describes.
const FIELDS: [&str; 6] = ["file", "seq", "width", "height", "age_ns", "caps"];

/// Saves the newest frame, or several frames, as pictures.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm snapshot cam0 -o a.png
  rsshm snapshot cam0 -o - --type jpg | ssh host 'cat > a.jpg'
  rsshm snapshot cam0 -o frame-%03d.jpg --count 10 --every 1s
  rsshm snapshot cam0 -o a.npy       then in Python: numpy.load(\"a.npy\")

Raw video is converted to red, green and blue, and JPEG and PNG are saved as they are. The command observes, so it takes no
frame from any reader.")]
pub(crate) struct Snapshot {
    /// A name or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// The file: .png, .jpg, .webp, .npy or .raw; - is stdout. %d, or %03d, is the number of the picture.
    #[arg(long, short, value_name = "FILE")]
    output: String,
    /// The form of the picture, if the name of the file does not say it.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
    /// The number of pictures.
    #[arg(long, short = 'n', default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The time from one picture to the next; without it, every frame is saved.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    every: Option<Duration>,
    /// How long to wait for a frame.
    #[arg(long, short, default_value = "10s", value_name = "DURATION", value_parser = units::parse_duration)]
    timeout: Duration,
}

impl Snapshot {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let kind = self.kind()?;
        if output.format == Format::Csv && self.output != "-" {
            output.csv(&FIELDS)?;
        }
        let mut follower = Follower::new(self.channel.clone(), Begin::Newest);
        let mut bytes = Vec::new();
        let started = Instant::now();
        for index in 0..self.count {
            if let Some(every) = self.every
                && index > 0
            {
                // The times do not drift, however long a picture takes.
                let due = every.saturating_mul(index);
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            let sight = self.take(&mut follower, &mut bytes)?;
            let frame = Frame {
                channel: self.channel.as_str(),
                caps: follower.caps(),
                descriptor: &sight.descriptor,
                bytes: bytes.get(..sight.descriptor.size as usize).unwrap_or(&bytes),
            };
            let file = frame.encode(kind)?;
            if self.output == "-" {
                output.bytes(&file)?;
                continue;
            }
            let path = numbered(&self.output, index + 1);
            save(&path, &file)?;
            report(output, &path, &sight, follower.caps())?;
        }
        Ok(())
    }

    /// The form of the pictures.
    fn kind(&self) -> Result<Kind, Failure> {
        let usage = |text: String| Failure::new(Code::Usage, text);
        let is_numbered = numbered(&self.output, 1) != numbered(&self.output, 2);
        if self.count > 1 && self.output != "-" && !is_numbered {
            let text = format!(
                "{} pictures need a file name with %d, such as frame-%03d.png",
                self.count
            );
            return Err(usage(text));
        }
        match (self.kind, Kind::of_file(&self.output)) {
            (Some(kind), _) | (None, Some(kind)) => Ok(kind),
            (None, None) if self.output == "-" => Ok(Kind::Png),
            (None, None) => Err(usage(format!(
                "{} does not say its form; give --type png, jpg, webp, npy or raw",
                self.output
            ))),
        }
    }

    /// Copies a frame that was not copied before.
    fn take(&self, follower: &mut Follower, bytes: &mut Vec<u8>) -> Result<Sight, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut left = self.timeout;
        while follower.next(left)?.is_some() {
            if let Some(sight) = follower.copy_newest(bytes) {
                return Ok(sight);
            }
            left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.time_out("its frames are overwritten too fast, so none could be copied"));
            }
        }
        Err(self.time_out(if follower.is_connected() {
            "no frame"
        } else {
            "no writer"
        }))
    }

    fn time_out(&self, what: &str) -> Failure {
        let timeout = units::duration(units::nanoseconds(self.timeout));
        let text = format!("channel {}: {what} within {timeout}", self.channel);
        Failure::new(Code::TimedOut, text)
    }
}

/// The name of picture `number`: `%d` is its number, `%03d` its number with three digits.
fn numbered(name: &str, number: u32) -> String {
    let mut parts = name.match_indices('%').filter_map(|(start, _)| {
        let rest = &name[start + 1..];
        let digits = rest
            .find('d')
            .filter(|end| rest[..*end].bytes().all(|byte| byte.is_ascii_digit()))?;
        let width = if digits == 0 {
            0
        } else {
            rest[..digits].parse::<usize>().ok()?
        };
        Some((start, start + 1 + digits + 1, width.min(20)))
    });
    match parts.next() {
        Some((start, end, width)) => format!("{}{number:0width$}{}", &name[..start], &name[end..]),
        None => name.to_owned(),
    }
}

/// Writes a file. A regular file gets its name only when it is whole.
fn save(path: &str, bytes: &[u8]) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::new(Code::No, format!("{path}: {error}"));
    let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return fs::write(path, bytes).map_err(failure);
    }
    let directory = Path::new(path)
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    let staging = directory
        .unwrap_or(Path::new("."))
        .join(format!(".rsshm-{}.part", std::process::id()));
    let written = fs::File::create(&staging)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&staging, path));
    if written.is_err() {
        let _ = fs::remove_file(&staging);
    }
    written.map_err(failure)
}

fn report(output: &mut Output, path: &str, sight: &Sight, caps: &str) -> Result<(), Failure> {
    let summary = Summary::new(caps);
    let size = summary
        .size()
        .unwrap_or_else(|| format!("{} bytes", sight.descriptor.size));
    match output.format {
        Format::Table => {
            let age = sight
                .age_ns()
                .and_then(|age| u64::try_from(age).ok())
                .map(units::duration);
            let age = age.map_or_else(String::new, |age| format!(", {age} old"));
            output.line(format!(
                "{path}: {size} from {}, frame {}{age}",
                summary.kind(),
                sight.seq
            ))?;
        }
        Format::Json => output.json(&serde_json::json!({
            "file": path, "seq": sight.seq, "width": summary.width, "height": summary.height,
            "age_ns": sight.age_ns(), "caps": caps,
        }))?,
        Format::Csv => {
            fn text(value: Option<impl ToString>) -> String {
                value.map(|value| value.to_string()).unwrap_or_default()
            }
            output.csv(&[
                path.to_owned(),
                sight.seq.to_string(),
                text(summary.width),
                text(summary.height),
                text(sight.age_ns()),
                caps.to_owned(),
            ])?;
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers() {
        for (name, expected) in [
            ("a.png", "a.png"),
            ("a-%d.png", "a-7.png"),
            ("a-%03d.png", "a-007.png"),
            ("100%-%d.png", "100%-7.png"),
            ("%d-%d", "7-%d"),
            ("100%x", "100%x"),
        ] {
            assert_eq!(numbered(name, 7), expected);
        }
    }
}
