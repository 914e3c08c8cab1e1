// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds out in another process with which input and which consumer an element works.
//!
//! These runs have no channel and are not live, so they are short.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{
    part::{self, HANGS, LAST, Part, Report, Running, TAP, say_report},
    registry,
    stream::{Length, expand},
};
/// The role of a discovery.
pub const ROLE: &str = "compatibility/discovery";

/// The length of the streams, in seconds.
const SECONDS: f64 = 1.0;
/// The longest time for one stream, and the time after which no further candidate is tried, in seconds.
const LIMIT: f64 = 8.0;
const TOTAL_LIMIT: f64 = 20.0;

/// The inputs to try, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Streams that end with the element, and the number of inputs of each.
    pub candidates: Vec<(String, usize)>,
    /// The classes of the elements that may take the output.
    pub consumers: Vec<String>,
    /// Whether all candidates are tried, or only until one works.
    pub wants_all: bool,
}

/// A candidate that works.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The index of the candidate.
    pub candidate: usize,
    /// The caps of its output.
    pub caps: String,
    /// The element that takes its output.
    pub consumer: Option<String>,
    /// The first element that should take its output, but makes nothing of it.
    pub refusing: Option<String>,
    /// The time that the stream took, in seconds.
    pub seconds: f64,
}

/// All answers, and the reason of the first candidate that failed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answers {
    pub answers: Vec<Answer>,
    pub failure: Option<String>,
}

/// Asks in another process, because some elements crash.
pub fn ask(question: &Question) -> Answers {
    let text = serde_json::to_string(question).unwrap_or_default();
    let error = match Running::start_role(ROLE, &text, TOTAL_LIMIT).report() {
        Ok(answers) => return answers,
        Err(error) => error,
    };
    let mut all = Answers {
        failure: Some(error),
        ..Answers::default()
    };
    // The candidate that ended the process is unknown, so each is tried in a process of its own.
    if question.candidates.len() > 1 && all.failure.as_deref() != Some(HANGS) {
        for (index, candidate) in question.candidates.iter().enumerate() {
            let alone = ask(&Question {
                candidates: vec![candidate.clone()],
                ..question.clone()
            });
            let answers = alone.answers.into_iter();
            all.answers.extend(answers.map(|answer| Answer {
                candidate: index,
                ..answer
            }));
            if !all.answers.is_empty() && !question.wants_all {
                break;
            }
        }
    }
    all
}

/// Plays the role.
pub fn play(arguments: &[&str]) {
    let question: Question = serde_json::from_str(arguments[0]).expect("a question");
    part::init();
    let mut answers = Answers::default();
    let started = Instant::now();
    for (index, (candidate, inputs)) in question.candidates.iter().enumerate() {
        match try_candidate(candidate, *inputs, &question.consumers) {
            Ok(answer) => answers.answers.push(Answer {
                candidate: index,
                ..answer
            }),
            Err(error) => {
                answers.failure.get_or_insert(error);
            }
        }
        let is_late = started.elapsed().as_secs_f64() > TOTAL_LIMIT && !question.wants_all;
        if is_late || (!answers.answers.is_empty() && !question.wants_all) {
            break;
        }
    }
    say_report(&answers);
}

fn try_candidate(candidate: &str, inputs: usize, classes: &[String]) -> Result<Answer, String> {
    let started = Instant::now();
    let report = run(&format!("{candidate} ! capsfilter name={TAP}"));
    if let Some(failure) = report.failure() {
        return Err(failure);
    }
    let Some(caps) = report.tap.caps.last().filter(|_| !report.tap.buffers.is_empty()) else {
        return Err("it makes no buffer".to_owned());
    };
    let seconds = started.elapsed().as_secs_f64();
    let classes: Vec<_> = classes.iter().map(String::as_str).collect();
    let parsed = caps.parse::<gst::Caps>().map_err(|error| error.to_string())?;
    let consumers = registry::consumers(&classes, &parsed);
    let mut best = None;
    let first = consumers
        .first()
        .map(|consumer| gst::prelude::GstObjectExt::name(consumer).to_string());
    for consumer in consumers {
        let name = gst::prelude::GstObjectExt::name(&consumer).to_string();
        let report = run(&format!("{candidate} ! capsfilter name={TAP} ! {name} name={LAST}"));
        let pads = if report.failure().is_none() {
            report.active_pads()
        } else {
            0
        };
        if pads > best.as_ref().map_or(0, |(most, _)| *most) {
            best = Some((pads, name));
        }
        if pads >= inputs {
            break;
        }
    }
    Ok(Answer {
        candidate: 0,
        caps: caps.clone(),
        refusing: first.filter(|_| best.is_none()),
        consumer: best.map(|(_, name)| name),
        seconds,
    })
}

fn run(pipeline: &str) -> Report {
    let length = Length {
        seconds: SECONDS,
        is_live: false,
    };
    let part = Part {
        pipeline: expand(pipeline, length),
        length,
        decodes: false,
        joins_at: None,
        limit: LIMIT,
    };
    part::play_here(&part, false, |_| ())
}
