// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm check`: whether a channel is healthy, in one line, for health checks and watchdogs.

use std::time::{Duration, Instant};

use clap::Args;
use rsshm_channel::ChannelName;
use serde::Serialize;

use crate::{
    failure::{Code, Failure},
    follow::{Begin, Follower},
    names,
    output::{Format, Output},
    process::Processes,
    report::{Report, State},
    units,
};

/// Checks that a channel is healthy: one line, and an exit code.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm check cam0 --max-age 2s || systemctl restart rsshm-camera@cam0
  rsshm check cam0 --min-fps 25 --max-age 200ms --max-missed 0
  HEALTHCHECK CMD rsshm check cam0 --max-age 2s

Without an option, only the writer has to live. The frame rate and the missed frames are counted for the time of --during;
without these two options, the check takes no time. A camera on demand that nobody reads is healthy without frames. The line ends with performance data, as Nagios and Icinga read it.")]
pub(crate) struct Check {
    /// A name or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// The fewest frames a second.
    #[arg(long, value_name = "N", value_parser = positive)]
    min_fps: Option<f64>,
    /// The greatest age of the newest frame, counted from its timestamp, which may lie as far in the future.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    max_age: Option<Duration>,
    /// The most frames that the writer drops, because it has no memory, or overwrites at once.
    #[arg(long, value_name = "N")]
    max_missed: Option<u64>,
    /// The most frames that any reader may be behind.
    #[arg(long, value_name = "N")]
    max_behind: Option<u64>,
    /// The fewest readers; observers do not count.
    #[arg(long, value_name = "N")]
    min_readers: Option<usize>,
    /// How long to count frames.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, default_value = "2s")]
    during: Duration,
}

/// What the check found. Its fields are the JSON, which docs/CLI.md describes.
#[derive(Debug, Serialize)]
struct Finding {
    channel: String,
    ok: bool,
    problems: Vec<String>,
    /// Whether the source is closed until somebody reads, so that there need not be frames.
    idle: bool,
    fps: Option<f64>,
    age_ns: Option<u64>,
    missed: Option<u64>,
    behind: Option<u64>,
    readers: Option<usize>,
}

impl Check {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut finding = Finding {
            channel: self.channel.to_string(),
            ok: false,
            problems: Vec::new(),
            idle: false,
            fps: None,
            age_ns: None,
            missed: None,
            behind: None,
            readers: None,
        };
        let counted = if self.min_fps.is_some() || self.max_missed.is_some() {
            self.count()
        } else {
            Ok(None)
        };
        if let Ok(Some((fps, missed))) = counted {
            (finding.fps, finding.missed) = (Some(fps), Some(missed));
        }
        let code = match Report::new(&self.channel, &mut Processes::default()) {
            Ok(report) => {
                self.judge(&report, &mut finding);
                report
                    .failure()
                    .map_or(Code::No, |failure| failure.code().unwrap_or(Code::No))
            }
            Err(failure) => {
                finding.problems.push(failure.text().to_owned());
                failure.code().unwrap_or(Code::No)
            }
        };
        finding.ok = finding.problems.is_empty();
        match output.format {
            Format::Json => output.json(&finding)?,
            Format::Table => output.line(finding.line())?,
            Format::Csv => {
                output.csv(&[
                    "channel", "ok", "problems", "idle", "fps", "age_ns", "missed", "behind", "readers",
                ])?;
                output.csv(&finding.fields())?;
            }
        }
        if finding.ok { Ok(()) } else { Err(Failure::silent(code)) }
    }

    /// Counts frames for a while: frames a second, and missed frames. `None` if there is no writer.
    fn count(&self) -> Result<Option<(f64, u64)>, Failure> {
        let mut follower = Follower::new(self.channel.clone(), Begin::Next);
        // The follower opens the channel first, so that the time before that does not count.
        follower.next(Duration::ZERO)?;
        if !follower.is_connected() {
            return Ok(None);
        }
        let started = Instant::now();
        let (mut frames, mut missed) = (0_u64, 0);
        loop {
            let left = self.during.saturating_sub(started.elapsed());
            if left.is_zero() {
                // A writer may publish faster than this loop looks, so there would always be another frame.
                break;
            }
            if let Some(sight) = follower.next(left)? {
                frames += 1;
                missed += sight.missed;
            }
        }
        Ok(Some((frames as f64 / started.elapsed().as_secs_f64(), missed)))
    }

    /// Compares the channel with what is wanted.
    fn judge(&self, report: &Report, finding: &mut Finding) {
        finding.age_ns = report.newest_age_ns;
        finding.readers = report.reader_count;
        finding.behind = report.readers.iter().filter_map(|reader| reader.behind).max();
        let problems = &mut finding.problems;
        if !matches!(report.state, State::Alive | State::Idle) {
            problems.push(match (&report.problem, report.state) {
                (_, State::NoWriter) => "its writer is dead".to_owned(),
                (Some(problem), _) => problem.clone(),
                (None, state) => state.text().to_owned(),
            });
            return;
        }
        if report
            .writer
            .as_ref()
            .is_some_and(|writer| writer.stopped == Some(true))
        {
            problems.push("its writer is stopped".to_owned());
        }
        finding.idle = report.state == State::Idle;
        if let Some(limit) = self.min_fps.filter(|_| !finding.idle) {
            match finding.fps {
                Some(fps) if fps >= limit => {}
                Some(fps) => problems.push(format!("{fps:.1} frames a second (at least {limit})")),
                None => problems.push(format!("no frames (at least {limit} a second)")),
            }
        }
        if let Some(limit) = self.max_age.filter(|_| !finding.idle).map(units::nanoseconds) {
            let limit_text = units::duration(limit);
            match finding.age_ns {
                // A writer may stop after a frame whose time has not come, so the age 0 says nothing.
                Some(_) if report.newest_ahead_ns.is_some_and(|ahead| ahead > limit) => {
                    let ahead = units::duration(report.newest_ahead_ns.unwrap_or_default());
                    problems.push(format!(
                        "the time of the newest frame is {ahead} in the future (at most {limit_text})"
                    ));
                }
                Some(age) if age <= limit => {}
                Some(age) => problems.push(format!(
                    "newest frame is {} old (at most {limit_text})",
                    units::duration(age)
                )),
                None if report.head == Some(0) => problems.push("no frame yet".to_owned()),
                None => problems.push("the newest frame has no timestamp, so its age is unknown".to_owned()),
            }
        }
        if let (Some(limit), Some(missed)) = (self.max_missed, finding.missed)
            && missed > limit
        {
            problems.push(format!("{missed} frames dropped (at most {limit})"));
        }
        if let (Some(limit), Some(behind)) = (self.max_behind, finding.behind)
            && behind > limit
        {
            problems.push(format!("a reader is {behind} frames behind (at most {limit})"));
        }
        if let (Some(limit), Some(readers)) = (self.min_readers, finding.readers)
            && readers < limit
        {
            problems.push(format!("{readers} readers (at least {limit})"));
        }
    }
}

impl Finding {
    /// One line: the state, what was found, and performance data.
    fn line(&self) -> String {
        let mut parts = self.problems.clone();
        if self.idle {
            parts.push("idle until somebody reads".to_owned());
        }
        if self.ok {
            parts.extend(self.fps.map(|fps| format!("{fps:.1} frames a second")));
            parts.extend(
                self.age_ns
                    .map(|age| format!("newest frame {} old", units::duration(age))),
            );
            parts.extend(self.readers.map(|readers| format!("{readers} readers")));
        }
        let data = [
            self.fps.map(|fps| format!("fps={fps:.2}")),
            self.age_ns.map(|age| format!("age={:.6}s", age as f64 / 1e9)),
            self.missed.map(|missed| format!("missed={missed}")),
            self.behind.map(|behind| format!("behind={behind}")),
            self.readers.map(|readers| format!("readers={readers}")),
        ];
        let data: Vec<String> = data.into_iter().flatten().collect();
        let state = if self.ok { "OK" } else { "CRITICAL" };
        let data = if data.is_empty() {
            String::new()
        } else {
            format!(" | {}", data.join(" "))
        };
        format!("{} {state}: {}{data}", self.channel, parts.join(", "))
    }

    fn fields(&self) -> [String; 9] {
        fn text(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        [
            self.channel.clone(),
            self.ok.to_string(),
            self.problems.join("; "),
            self.idle.to_string(),
            text(self.fps.map(|fps| format!("{fps:.3}"))),
            text(self.age_ns),
            text(self.missed),
            text(self.behind),
            text(self.readers),
        ]
    }
}

/// Parses a positive number, for clap.
fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| format!("{text:?} is not a positive number"))
}
