// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm doctor`: what is wrong on this machine, and what mends it.

use clap::Args;
use serde::Serialize;

use super::{doctor_cameras, doctor_channels, doctor_installed, doctor_system};
use crate::{
    failure::{Code, Failure},
    output::{Cell, Colour, Column, Format, Output},
};

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    level: Level,
    check: &'static str,
    text: String,
    /// The command or the change that mends it.
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            check,
            text: text.into(),
            remedy: None,
        }
    }

    pub(super) fn warn(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            check,
            text: text.into(),
            remedy: Some(remedy.into()),
        }
    }

    pub(super) fn fail(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, text, remedy)
        }
    }
}

/// Checks this machine: shared memory, limits, namespaces, cameras, installed parts and channels; each line has its remedy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm doctor
  rsshm doctor --json | jq -r '.[] | select(.level != \"ok\") | .remedy'
  docker run --rm IMAGE rsshm doctor     what a container sees

The exit code is 1 if a check fails.")]
pub(crate) struct Doctor {
    /// Leaves out the checks that start other programs: GStreamer and Python.
    #[arg(long)]
    quick: bool,
}

impl Doctor {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut findings = doctor_system::findings();
        findings.extend(doctor_cameras::findings());
        findings.extend(doctor_channels::findings());
        if !self.quick {
            findings.extend(doctor_installed::findings());
        }
        match output.format {
            Format::Json => output.json(&findings)?,
            Format::Csv => {
                output.csv(&["level", "check", "text", "remedy"])?;
                for finding in &findings {
                    let (level, _) = words(finding.level);
                    output.csv(&[
                        level,
                        finding.check,
                        &finding.text,
                        finding.remedy.as_deref().unwrap_or_default(),
                    ])?;
                }
            }
            Format::Table => {
                let rows: Vec<Vec<Cell>> = findings.iter().map(row).collect();
                output.table(
                    "",
                    &[Column::Left("LEVEL"), Column::Left("CHECK"), Column::Left("FOUND")],
                    &rows,
                )?;
            }
        }
        if findings.iter().any(|finding| finding.level == Level::Fail) {
            return Err(Failure::silent(Code::No));
        }
        Ok(())
    }
}

fn words(level: Level) -> (&'static str, Colour) {
    match level {
        Level::Ok => ("ok", Colour::Good),
        Level::Warn => ("warn", Colour::Warning),
        Level::Fail => ("fail", Colour::Bad),
    }
}

fn row(finding: &Finding) -> Vec<Cell> {
    let (level, colour) = words(finding.level);
    let remedy = finding
        .remedy
        .as_ref()
        .map_or_else(String::new, |remedy| format!("  ->  {remedy}"));
    vec![
        Cell::coloured(level, colour),
        Cell::new(finding.check),
        Cell::new(format!("{}{remedy}", finding.text)),
    ]
}
