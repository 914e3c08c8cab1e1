// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables on the terminal.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::{
    bursts::figures as bursts,
    figures,
    report::{Figures, Report},
    statistics::Spread,
};

/// The columns of a table. Each column has a title and a function that returns the text of its cell in a row.
pub type Columns = [(&'static str, fn(&Figures) -> String)];

const FIGURES: &Columns = &[
    ("latency µs\nmedian", |f| with_spread(f, figures::LATENCY_P50)),
    ("\n99 %", |f| plain(f, figures::LATENCY_P99)),
    ("CPU µs per frame\nwriter", |f| with_spread(f, figures::WRITER)),
    ("\nover fakesink", |f| with_spread(f, figures::WRITER_OVER)),
    ("\nreader", |f| with_spread(f, figures::READER)),
    ("frames\nper second", |f| plain(f, figures::RATE)),
    ("missed", |f| plain(f, figures::MISSED)),
    ("page faults\nwriter/reader", |f| {
        both(f, figures::WRITER_FAULTS, figures::READER_FAULTS)
    }),
    ("switches\nwriter/reader", |f| {
        both(f, figures::WRITER_SWITCHES, figures::READER_SWITCHES)
    }),
    ("system calls\nwriter over fakesink/reader", |f| {
        both(f, figures::WRITER_CALLS_OVER, figures::READER_CALLS)
    }),
    ("slots", |f| plain(f, figures::SLOTS)),
    ("copied\nwriter/reader", |f| {
        both(f, figures::WRITER_COPIED, figures::READER_COPIED)
    }),
];

/// Memory, and the start of the readers.
pub const MEMORY_AND_START: &Columns = &[
    ("shared\nMiB", |f| plain(f, figures::SHARED)),
    ("PSS of all\nprocesses, MiB", |f| plain(f, figures::PSS)),
    ("process start to first\nframe ms, median", |f| {
        with_spread(f, figures::START)
    }),
    ("\nslowest", |f| plain(f, figures::START_MAX)),
    ("push of the first frame to\narrival ms, median", |f| {
        with_spread(f, figures::FIRST)
    }),
    ("\nslowest", |f| plain(f, figures::FIRST_MAX)),
];

const RATIOS: &Columns = &[
    ("latency\nto futex", |f| plain(f, figures::LATENCY_TO_FUTEX)),
    ("\nto shm", |f| plain(f, figures::LATENCY_TO_SHM)),
    ("CPU over fakesink, writer\nand one reader, to shm", |f| {
        with_spread(f, figures::BOTH_TO_SHM)
    }),
    ("to unixfd: latency", |f| plain(f, figures::LATENCY_TO_UNIXFD)),
    ("\nCPU of both", |f| with_spread(f, figures::BOTH_TO_UNIXFD)),
    ("frames per\nsecond to shm", |f| plain(f, figures::RATE_TO_SHM)),
    ("writer's CPU\nto futex", |f| plain(f, figures::WRITER_TO_FUTEX)),
    ("over fakesink\nto bare wake", |f| {
        with_spread(f, figures::OVER_TO_FUTEX)
    }),
    ("over fakesink\nto memcpy", |f| with_spread(f, figures::OVER_TO_MEMCPY)),
    ("CPU to without tools\nwriter", |f| {
        with_spread(f, figures::WRITER_TO_ALONE)
    }),
    ("\nreader", |f| with_spread(f, figures::READER_TO_ALONE)),
];

const BURSTS: &Columns = &[
    ("lost", |f| plain(f, bursts::LOST)),
    ("CPU µs per buffer\nwriter", |f| with_spread(f, bursts::WRITER)),
    ("\nover fakesink", |f| with_spread(f, bursts::WRITER_OVER)),
    ("\nreader", |f| with_spread(f, bursts::READER)),
    ("CPU over fakesink, to shm\nwriter", |f| {
        with_spread(f, bursts::WRITER_OVER_TO_SHM)
    }),
    ("\nwriter and one reader", |f| with_spread(f, bursts::BOTH_TO_SHM)),
    ("ms for\na burst", |f| with_spread(f, bursts::BURST_TIME)),
    ("switches\nwriter/reader", |f| {
        both(f, bursts::WRITER_SWITCHES, bursts::READER_SWITCHES)
    }),
];

/// All tables of the report.
pub fn text(report: &Report) -> String {
    let mut parts = Vec::new();
    for case in report.cases() {
        let of_case = report.results.iter().filter(|measurement| measurement.case == case);
        parts.push(format!(
            "{case}\n{}",
            table(
                FIGURES,
                of_case.map(|measurement| (measurement.transport.to_string(), &measurement.figures))
            )
        ));
    }
    for (title, columns) in [
        ("Memory, and the start of the readers", MEMORY_AND_START),
        ("Ratios, each calculated within a round", RATIOS),
    ] {
        let has_figure = |figures: &Figures| columns.iter().any(|(_, cell)| !cell(figures).is_empty());
        let rows: Vec<_> = report
            .results
            .iter()
            .filter(|measurement| has_figure(&measurement.figures))
            .map(|measurement| {
                (
                    format!("{}, {}", measurement.transport, measurement.case.slug()),
                    &measurement.figures,
                )
            })
            .collect();
        if !rows.is_empty() {
            parts.push(format!("{title}\n{}", table(columns, rows.into_iter())));
        }
    }
    for of_case in report.bursts.chunk_by(|one, next| one.case == next.case) {
        parts.push(format!(
            "{}\n{}",
            of_case[0].case,
            table(
                BURSTS,
                of_case
                    .iter()
                    .map(|measurement| (measurement.transport.to_string(), &measurement.figures))
            )
        ));
    }
    parts.join("\n\n")
}

/// A table with a row for each name and its figures.
fn table<'a>(columns: &Columns, rows: impl Iterator<Item = (String, &'a Figures)>) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(std::iter::once("").chain(columns.iter().map(|(title, _)| *title)));
    for (name, figures) in rows {
        let cells = columns.iter().map(|(_, cell)| cell(figures));
        table.add_row(std::iter::once(name).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The value with three significant digits. Values from 100 on have all their digits but no fraction.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The median of a figure. Empty if the figure is missing.
pub fn plain(figures: &Figures, name: &str) -> String {
    figures
        .get(name)
        .map(|spread| significant(spread.median))
        .unwrap_or_default()
}

/// The median of a figure, followed by the lowest and the highest value. Empty if the figure is missing.
pub fn with_spread(figures: &Figures, name: &str) -> String {
    let text = |spread: &Spread| {
        format!(
            "{} ({}..{})",
            significant(spread.median),
            significant(spread.min),
            significant(spread.max)
        )
    };
    figures.get(name).map(text).unwrap_or_default()
}

/// The medians of two figures: one of the writer, and one of the reader. Without the reader's figure, only the
/// writer's.
fn both(figures: &Figures, writer: &str, reader: &str) -> String {
    match (plain(figures, writer), plain(figures, reader)) {
        (writer, reader) if reader.is_empty() => writer,
        (writer, reader) => format!("{writer} / {reader}"),
    }
}
