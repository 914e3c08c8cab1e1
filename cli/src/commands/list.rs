// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm list`: all channels.

use clap::Args;

use crate::{
    failure::Failure,
    names,
    output::{Cell, Colour, Column, Format, Output},
    process::Processes,
    report::{Report, State},
    units,
};

/// The fields of CSV, which docs/CLI.md describes.
const FIELDS: [&str; 18] = [
    "channel",
    "state",
    "problem",
    "caps",
    "media",
    "format",
    "width",
    "height",
    "framerate",
    "measured_fps",
    "head",
    "newest_age_ns",
    "age_ns",
    "reader_count",
    "writer_pid",
    "writer_program",
    "memory_bytes",
    "owner",
];

/// Lists the channels, also those without a writer and those that cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm list
  rsshm list 'cam*' --json | jq -r '.[] | select(.state == \"alive\") | .channel'
  rsshm list -q --alive              names only, of channels with a living writer

The rate is that of the caps. After ~ it is measured with the frames that are still in memory.")]
pub(crate) struct List {
    /// Names, URIs or patterns; all channels if none is given.
    #[arg(value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Only channels with a living writer.
    #[arg(long)]
    alive: bool,
    /// Only the names, one on each line.
    #[arg(long, short)]
    quiet: bool,
}

impl List {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let names = names::select_or_all(&self.channels)?;
        let mut processes = Processes::default();
        let mut reports = Vec::new();
        for name in &names {
            match Report::new(name, &mut processes) {
                Ok(report) => reports.push(report),
                // Without names, a channel that has just disappeared is not listed.
                Err(_) if self.channels.is_empty() => {}
                Err(failure) => return Err(failure),
            }
        }
        if self.alive {
            reports.retain(|report| report.state.has_writer());
        }
        if self.quiet {
            return reports.iter().try_for_each(|report| output.line(&report.channel));
        }
        match output.format {
            Format::Json => output.json(&reports),
            Format::Csv => {
                output.csv(&FIELDS)?;
                reports.iter().try_for_each(|report| output.csv(&fields(report)))
            }
            Format::Table => table(output, &reports),
        }
    }
}

fn fields(report: &Report) -> [String; FIELDS.len()] {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let writer = report.writer.as_ref();
    let memory = report.memory.as_ref();
    [
        report.channel.clone(),
        report.state.name().to_owned(),
        text(report.problem.as_ref()),
        text(report.caps.as_ref()),
        text(report.media.as_ref()),
        text(report.format.as_ref()),
        text(report.width),
        text(report.height),
        text(report.framerate.as_ref()),
        text(report.measured_fps.map(|fps| format!("{fps:.3}"))),
        text(report.head),
        text(report.newest_age_ns),
        text(report.age_ns),
        text(report.reader_count),
        text(writer.map(|writer| writer.pid)),
        text(writer.and_then(|writer| writer.program.as_ref())),
        text(memory.map(|memory| memory.bytes)),
        text(memory.map(|memory| &memory.owner)),
    ]
}

fn table(output: &mut Output, reports: &[Report]) -> Result<(), Failure> {
    if reports.is_empty() {
        return output.line(
            "no channels; for example, start one with: gst-launch-1.0 videotestsrc is-live=true ! rsshmsink name=cam0",
        );
    }
    const COLUMNS: [Column; 9] = [
        Column::Left("CHANNEL"),
        Column::Left("FORMAT"),
        Column::Left("SIZE"),
        Column::Right("RATE"),
        Column::Right("READERS"),
        Column::Right("MEMORY"),
        Column::Left("STATE"),
        Column::Right("AGE"),
        Column::Left("WRITER"),
    ];
    let rows: Vec<Vec<Cell>> = reports.iter().map(row).collect();
    output.table("", &COLUMNS, &rows)?;
    let mut problems = reports
        .iter()
        .filter_map(|report| Some((&report.channel, report.problem.as_ref()?)))
        .peekable();
    if problems.peek().is_some() {
        output.line("")?;
    }
    for (channel, problem) in problems {
        // The errors of the channel crate begin with the channel.
        let problem = problem.strip_prefix(&format!("channel {channel}: ")).unwrap_or(problem);
        output.line(format!("{channel}: {problem}"))?;
    }
    Ok(())
}

fn row(report: &Report) -> Vec<Cell> {
    let rate = report.framerate.clone();
    let measured = || report.measured_fps.map(|fps| format!("~{fps:.1}"));
    let writer = report.writer.as_ref().filter(|writer| writer.alive);
    let is_stopped = writer.is_some_and(|writer| writer.stopped == Some(true));
    let (state, colour) = match report.state {
        State::Alive | State::Idle if is_stopped => ("stopped", Colour::Bad),
        State::Alive | State::Idle => (report.state.text(), Colour::Good),
        State::NoFormat => ("no format", Colour::Warning),
        state => (state.text(), Colour::Bad),
    };
    let kind = report.caps.as_ref().map(|_| report.summary.kind());
    vec![
        Cell::new(&*report.channel),
        Cell::optional(kind),
        Cell::optional(report.summary.size()),
        Cell::optional(rate.or_else(measured)),
        Cell::optional(report.reader_count),
        Cell::optional(report.memory.as_ref().map(|memory| units::bytes(memory.bytes))),
        Cell::coloured(state, colour),
        Cell::optional(report.age_ns.map(units::duration)),
        Cell::optional(writer.map(|writer| match &writer.program {
            Some(program) => format!("{} {program}", writer.pid),
            None => writer.pid.to_string(),
        })),
    ]
}
