// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm info`: everything about one channel.

use clap::Args;
use nix::sys::statvfs::statvfs;

use crate::{
    failure::Failure,
    names,
    output::{Cell, Colour, Column, Format, Output},
    process::Processes,
    report::{Reader, Report, State},
    units,
};

/// The fields of CSV, one line for each reader, which docs/CLI.md describes.
const FIELDS: [&str; 13] = [
    "channel", "entry", "pid", "program", "behind", "holds", "quota", "state", "stopped", "alive", "cursor", "missed",
    "latest",
];

/// Shows a channel: its format, writer, memory, options and each reader.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm info cam0
  rsshm info cam0 --json | jq '.readers[] | select(.behind > 10)'
  rsshm info 'cam*' --format csv     a line for each reader

A reader is BEHIND by the frames that it has not taken yet, and has MISSED those that it never gets. It HOLDS the slots that it still uses, of its QUOTA; further
frames are copied for it.")]
pub(crate) struct Info {
    /// Names, URIs or patterns.
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
}

impl Info {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut processes = Processes::default();
        if output.format == Format::Csv {
            output.csv(&FIELDS)?;
        }
        let mut outcome = Ok(());
        for (index, name) in names::select(&self.channels)?.iter().enumerate() {
            let report = Report::new(name, &mut processes)?;
            match output.format {
                Format::Json => output.json(&report)?,
                Format::Csv => report
                    .readers
                    .iter()
                    .try_for_each(|reader| output.csv(&fields(&report.channel, reader)))?,
                Format::Table => {
                    if index > 0 {
                        output.line("")?;
                    }
                    text(output, &report)?;
                }
            }
            if let Some(failure) = report.failure() {
                outcome = Err(failure);
            }
        }
        outcome
    }
}

fn fields(channel: &str, reader: &Reader) -> [String; FIELDS.len()] {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    [
        channel.to_owned(),
        reader.entry.to_string(),
        text(reader.pid),
        text(reader.program.as_ref()),
        text(reader.behind),
        reader.holds.to_string(),
        text(reader.quota),
        reader.state.to_owned(),
        text(reader.stopped),
        text(reader.alive),
        text(reader.cursor),
        text(reader.missed),
        text(reader.latest),
    ]
}

fn text(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let summary = &report.summary;
    let format = [
        report.media.clone(),
        summary.format.clone(),
        summary.size(),
        summary.framerate.clone(),
        summary.rate.map(|rate| format!("{rate} Hz")),
        summary.audio_channels.map(|channels| format!("{channels} channels")),
        summary.colorimetry.clone(),
        summary.interlace_mode.clone(),
    ];
    let format: Vec<String> = format.into_iter().flatten().collect();
    let name = &report.channel;
    output.line(if format.is_empty() {
        format!("{name}: {}", report.state.text())
    } else {
        format!("{name}: {}", format.join(" "))
    })?;
    if let Some(problem) = &report.problem {
        let problem = problem.strip_prefix(&format!("channel {name}: ")).unwrap_or(problem);
        output.line(format!("  problem    {problem}"))?;
    }
    if report.caps.is_none() {
        return Ok(());
    }
    writer(output, report)?;
    frames(output, report)?;
    memory(output, report)?;
    objects(output, report)?;
    if let Some(options) = &report.options {
        let mut words = vec![
            if options.lossless {
                "lossless: the writer waits for its readers"
            } else {
                "not lossless"
            }
            .to_owned(),
            format!("history {}", options.history),
        ];
        words.extend(options.messages.then(|| "takes messages".to_owned()));
        words.extend(options.runs.then(|| "small frames share slots".to_owned()));
        words.extend(options.objects.then(|| "frames are passed on by descriptor".to_owned()));
        output.line(format!("  options    {}", words.join(", ")))?;
    }
    readers(output, report)?;
    output.line(format!(
        "  to watch   gst-launch-1.0 rsshmsrc channel={} ! {}",
        names::shell_word(name),
        summary.sink()
    ))?;
    output.line(format!("  in Python  for frame in rsshm.Reader({}): ...", quoted(name)))?;
    output.line(format!(
        "  in C       rsshm_reader_open({}, NULL, &reader);",
        quoted(name)
    ))
}

fn writer(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let Some(writer) = &report.writer else {
        return Ok(());
    };
    let mut words = vec![writer.pid.to_string()];
    words.extend(writer.program.clone());
    if let Some(memory) = &report.memory {
        words.push(format!("({})", memory.owner));
    }
    let age = report.age_ns.map(units::duration).unwrap_or_default();
    let state = match (report.state, writer.stopped) {
        (State::Alive | State::Idle, Some(true)) => "stopped (T)",
        (State::Idle, _) => "idle until somebody reads",
        (State::Alive, _) => "alive",
        (State::NoWriter, _) => "dead",
        (state, _) => state.text(),
    };
    output.line(format!(
        "  writer     {}, {state}, this format since {age}",
        words.join(" ")
    ))
}

fn frames(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let head = report.head.unwrap_or(0);
    if head == 0 {
        return output.line("  frames     none yet");
    }
    let mut words = vec![format!("newest is {head}")];
    words.extend(report.newest_age_ns.map(|age| format!("{} old", units::duration(age))));
    words.extend(
        report
            .latency_ns
            .map(|latency| format!("stated latency {}", units::duration(latency))),
    );
    words.extend(report.measured_fps.map(|fps| format!("about {fps:.2} a second")));
    output.line(format!("  frames     {}", words.join(", ")))
}

fn memory(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let Some(memory) = &report.memory else {
        return Ok(());
    };
    let directory = std::path::Path::new(&memory.path).parent();
    let free = directory.and_then(|directory| {
        let space = statvfs(directory).ok()?;
        let free = units::bytes(space.blocks_available() as u64 * space.fragment_size() as u64);
        Some(format!("; {} has {free} free", directory.display()))
    });
    output.line(format!(
        "  memory     {} {}, {} slots of {} ({} with memory, {} held), mode {} {}:{}{}",
        memory.path,
        units::bytes(memory.bytes),
        memory.slots,
        units::bytes(memory.slot_bytes),
        memory.slots_with_memory,
        memory.slots_held,
        memory.mode,
        memory.owner,
        memory.group,
        free.unwrap_or_default(),
    ))
}

fn objects(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let Some(newest) = report.objects.first() else {
        return Ok(());
    };
    let count = |kind: &str| report.objects.iter().filter(|object| object.kind == kind).count();
    let kinds = ["dmabuf", "memfd"].map(|kind| (count(kind), kind));
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    output.line(format!(
        "  objects    {} with the frames that are still there; the newest is in {} {}",
        kinds.join(" and "),
        newest.kind,
        newest.id
    ))
}

fn readers(output: &mut Output, report: &Report) -> Result<(), Failure> {
    if report.readers.is_empty() {
        return output.line("  readers    none (observers are not listed)");
    }
    output.line(format!("  readers    {}", report.readers.len()))?;
    const COLUMNS: [Column; 8] = [
        Column::Right("ENTRY"),
        Column::Right("PID"),
        Column::Left("PROGRAM"),
        Column::Right("BEHIND"),
        Column::Right("MISSED"),
        Column::Right("HOLDS"),
        Column::Right("QUOTA"),
        Column::Left("STATE"),
    ];
    let row = |reader: &Reader| {
        let (state, colour) = match (reader.stopped, reader.state) {
            (Some(true), _) => ("stopped (T)", Colour::Bad),
            (_, "attached") if reader.latest == Some(true) => ("reading the newest", Colour::Good),
            (_, "attached") => ("reading", Colour::Good),
            (_, "new") => ("still in the former format", Colour::Warning),
            (_, "left") => ("gone, holds frames", Colour::Warning),
            (_, state) => (state, Colour::Warning),
        };
        vec![
            Cell::new(reader.entry.to_string()),
            Cell::optional(reader.pid),
            Cell::optional(reader.program.as_ref()),
            Cell::optional(reader.behind),
            Cell::optional(reader.missed),
            Cell::new(reader.holds.to_string()),
            Cell::optional(reader.quota),
            Cell::coloured(state, colour),
        ]
    };
    let rows: Vec<_> = report.readers.iter().map(row).collect();
    output.table("             ", &COLUMNS, &rows)
}

/// The name as a string of Python and C.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
