// SPDX-License-Identifier: MIT OR Apache-2.0

//! A case: one stream through a channel, and the same without a channel.

use std::{fmt, thread, time::Duration};

use super::{
    compare::{self, Exactness},
    part::{self, LAST, Part, Report, Running, TAP},
    stream::{Length, expand},
};
use crate::{Channel, gst::LOSSLESS};

/// The length of the stream of a case, in seconds.
const SECONDS: f64 = 1.6;
/// The length of the stream that a reader joins late, and when it joins.
const LATE_SECONDS: f64 = 6.0;
const JOINS_AT: f64 = 2.0;
/// A part ends this long after its stream should have ended. On a busy machine, a process takes long to start.
const GRACE: f64 = 15.0;

/// A row of the table before it has a result.
#[derive(Clone, Debug)]
pub struct Case {
    /// The heading that the row belongs to.
    pub group: &'static str,
    /// The element under test.
    pub element: String,
    /// The input of the element.
    pub input: String,
    /// The element in the reader.
    pub consumer: String,
    /// What the case does.
    pub steps: Steps,
}

/// What a case does.
#[derive(Clone, Debug)]
pub enum Steps {
    /// Nothing, for this reason.
    None(String),
    /// A writer and a reader.
    Run {
        /// The writer's pipeline without the sink, with its sources in braces.
        writer: String,
        /// The reader's pipeline after the source. Empty if the bytes of the channel are all.
        reader: String,
        /// Whether a reader also joins late.
        joins_late: bool,
        /// Whether the sources are live. If they are not, the writer waits for the reader.
        is_live: bool,
    },
}

/// A cell of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing to compare.
    Empty,
    /// Everything arrives.
    Good(&'static str),
    /// Something is different, with words for it.
    Bad(String),
    /// It does not work without a channel either, with the reason.
    Impossible(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Good(text) => f.write_str(text),
            Self::Bad(text) => write!(f, "**differs**: {text}"),
            Self::Impossible(text) => write!(f, "not possible: {text}"),
        }
    }
}

/// The results of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result of the reader that starts first.
    pub main: Verdict,
    /// The result of the reader that joins late.
    pub late: Verdict,
}

impl Case {
    /// A case with live sources and without a late reader.
    pub fn live(group: &'static str, element: &str, writer: &str, reader: &str) -> Self {
        Self {
            group,
            element: element.to_owned(),
            input: String::new(),
            consumer: reader.to_owned(),
            steps: Steps::Run {
                writer: writer.to_owned(),
                reader: reader.to_owned(),
                joins_late: false,
                is_live: true,
            },
        }
    }

    /// Runs the case.
    pub fn run(&self) -> Outcome {
        match &self.steps {
            Steps::None(reason) => Outcome {
                main: Verdict::Impossible(reason.clone()),
                late: Verdict::Empty,
            },
            Steps::Run { joins_late, .. } => {
                let main = self.compare();
                let late = match &main {
                    Verdict::Impossible(_) => Verdict::Empty,
                    _ if *joins_late => self.join_late(),
                    _ => Verdict::Empty,
                };
                Outcome { main, late }
            }
        }
    }

    fn part(&self, pipeline: &str, seconds: f64) -> Part {
        let is_live = matches!(self.steps, Steps::Run { is_live: true, .. });
        let length = Length { seconds, is_live };
        Part {
            pipeline: expand(pipeline, length),
            length,
            decodes: false,
            joins_at: None,
            limit: seconds + GRACE,
        }
    }

    fn texts(&self) -> (&str, &str) {
        match &self.steps {
            Steps::Run { writer, reader, .. } => (writer, reader),
            Steps::None(_) => ("", ""),
        }
    }

    /// The pipeline without a channel.
    fn control(&self, seconds: f64) -> Part {
        let (writer, reader) = self.texts();
        self.part(&joined(&format!("{writer} ! capsfilter name={TAP}"), reader), seconds)
    }

    fn reader(&self, channel: &Channel, seconds: f64) -> Part {
        let (_, reader) = self.texts();
        self.part(
            &joined(&format!("rsshmsrc name={TAP} channel={channel}"), reader),
            seconds,
        )
    }

    fn writer(&self, channel: &Channel, seconds: f64, options: &str) -> Part {
        let (writer, _) = self.texts();
        let sink = format!("rsshmsink name={TAP} channel={channel} {options}");
        self.part(&format!("{writer} ! {sink}"), seconds)
    }

    /// Compares both ends of the channel, and the output of the reader with that of a run without a channel.
    fn compare(&self) -> Verdict {
        let channel = Channel::new();
        let control = Running::start(&self.control(SECONDS));
        let mut reader = Running::start(&self.reader(&channel, SECONDS));
        let started = reader.wait_playing();
        let options = match &self.steps {
            Steps::Run { is_live: false, .. } => LOSSLESS,
            _ => "wait-for-connection=true",
        };
        let writer = Running::start(&self.writer(&channel, SECONDS, options));
        let sent = writer.report::<Report>();
        let received = started.and_then(|()| reader.report_soon());
        let control = match control.report::<Report>() {
            Ok(control) => control,
            Err(error) => return Verdict::Impossible(error),
        };
        if let Some(reason) = impossible(&control) {
            return Verdict::Impossible(reason);
        }
        let (sent, received) = match (sent, received) {
            (Ok(sent), Ok(received)) => (sent, received),
            (Err(error), _) => return Verdict::Bad(format!("writer: {error}")),
            (_, Err(error)) => return Verdict::Bad(format!("reader: {error}")),
        };
        let mut differences = Vec::new();
        differences.extend(sent.failure().map(|failure| format!("writer: {failure}")));
        differences.extend(compare::pad(&sent.tap, &received.tap, Exactness::Channel));
        differences.extend(received.failure().map(|failure| format!("reader: {failure}")));
        for (name, report) in [("writer", &sent), ("reader", &received)] {
            if let Some(critical) = report.critical.as_ref().filter(|_| control.critical.is_none()) {
                differences.push(format!("{name} logs {critical}"));
            }
        }
        if differences.is_empty() && !self.same_after_consumer(&control, &received, &mut differences) {
            // Some elements make something else in each run. Then only the two ends of the channel can be compared.
            let again = part::run(&self.control(SECONDS)).unwrap_or_default();
            if !compare::pads(&control.pads, &again.pads, Exactness::Runs).is_empty() {
                differences.clear();
            }
        }
        match differences.as_slice() {
            [] => Verdict::Good("same"),
            [..] => Verdict::Bad(differences.join("; ")),
        }
    }

    fn same_after_consumer(&self, control: &Report, received: &Report, differences: &mut Vec<String>) -> bool {
        if self.texts().1.is_empty() {
            return true;
        }
        let after = compare::pads(&control.pads, &received.pads, Exactness::Runs);
        let Self { consumer, .. } = self;
        differences.extend(after.iter().map(|difference| format!("after {consumer}: {difference}")));
        after.is_empty()
    }

    /// A reader joins late. It must get what any late joiner can decode.
    fn join_late(&self) -> Verdict {
        let late = |part: Part, joins_at| Part {
            decodes: true,
            joins_at,
            ..part
        };
        let channel = Channel::new();
        let control = Running::start(&late(self.control(LATE_SECONDS), Some(JOINS_AT)));
        let mut writer = Running::start(&self.writer(&channel, LATE_SECONDS, ""));
        if let Err(error) = writer.wait_first_buffer() {
            return Verdict::Bad(format!("writer: {error}"));
        }
        thread::sleep(Duration::from_secs_f64(JOINS_AT));
        let reader = Running::start(&late(self.reader(&channel, LATE_SECONDS), None));
        let _ = writer.report::<Report>();
        let received = reader.report_soon();
        let control = match control.report::<Report>() {
            Ok(control) if control.active_pads() > 0 => control,
            _ => return Verdict::Impossible("its streams cannot be joined".to_owned()),
        };
        match received {
            Err(error) => Verdict::Bad(format!("reader: {error}")),
            Ok(received) if received.active_pads() < control.active_pads() => {
                let failure = received
                    .failure()
                    .map_or_else(String::new, |failure| format!("; {failure}"));
                let streams = control.active_pads();
                Verdict::Bad(format!(
                    "{} of {streams} streams begin{failure}",
                    received.active_pads()
                ))
            }
            Ok(_) => Verdict::Good("begins"),
        }
    }
}

/// The reason why the stream does not pass without a channel either.
fn impossible(control: &Report) -> Option<String> {
    if control.tap.rewinds {
        return Some("at the end it goes back to the beginning of its output, so it needs a file".to_owned());
    }
    if control.tap.buffers.is_empty() {
        return Some(control.failure().unwrap_or_else(|| "it makes no buffer".to_owned()));
    }
    if control.active_pads() == 0 {
        return Some(
            control
                .failure()
                .unwrap_or_else(|| "nothing comes out of the other element".to_owned()),
        );
    }
    control.failure()
}

/// A pipeline, and the elements behind it. The last element gets the name [`LAST`].
fn joined(pipeline: &str, behind: &str) -> String {
    if behind.is_empty() {
        return pipeline.to_owned();
    }
    if behind.contains("name=") {
        return format!("{pipeline} ! {behind}");
    }
    format!("{pipeline} ! {behind} name={LAST}")
}
