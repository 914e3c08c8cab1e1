//! The figures on the terminal.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::{
    figures,
    report::{Figures, Measured, Report},
};

/// What is told of a way, and ratios to another one.
type Columns = [(&'static str, fn(&Figures) -> String)];

const FIGURES: &Columns = &[
    ("latency µs\nmedian", |f| with_spread(f, figures::LATENCY_P50)),
    ("\n99 %", |f| plain(f, figures::LATENCY_P99)),
    ("CPU µs a frame\nwriter", |f| with_spread(f, figures::WRITER)),
    ("\nover fakesink", |f| with_spread(f, figures::WRITER_OVER)),
    ("\nreader", |f| with_spread(f, figures::READER)),
    ("frames\na second", |f| plain(f, figures::RATE)),
    ("missed", |f| plain(f, figures::MISSED)),
    ("page faults\nwriter/reader", |f| {
        both(f, figures::WRITER_FAULTS, figures::READER_FAULTS)
    }),
    ("switches\nwriter/reader", |f| {
        both(f, figures::WRITER_SWITCHES, figures::READER_SWITCHES)
    }),
    ("slots", |f| plain(f, figures::SLOTS)),
    ("copied\nwriter/reader", |f| {
        both(f, figures::WRITER_COPIED, figures::READER_COPIED)
    }),
];

const RATIOS: &Columns = &[
    ("latency\nto futex", |f| plain(f, figures::LATENCY_TO_FUTEX)),
    ("\nto shm", |f| plain(f, figures::LATENCY_TO_SHM)),
    ("CPU over fakesink, writer\nand a reader, to shm", |f| {
        with_spread(f, figures::BOTH_TO_SHM)
    }),
    ("frames a\nsecond to shm", |f| plain(f, figures::RATE_TO_SHM)),
    ("writer's CPU\nto futex", |f| plain(f, figures::WRITER_TO_FUTEX)),
    ("over fakesink\nto bare wake", |f| {
        with_spread(f, figures::OVER_TO_FUTEX)
    }),
    ("over fakesink\nto memcpy", |f| with_spread(f, figures::OVER_TO_MEMCPY)),
];

pub fn text(report: &Report) -> String {
    let mut parts = Vec::new();
    for case in report.cases() {
        let of_case = report.results.iter().filter(|measured| measured.case == case);
        parts.push(format!(
            "{case}\n{}",
            table(FIGURES, "", of_case, |measured| measured.transport.to_string())
        ));
    }
    let with_ratio = report
        .results
        .iter()
        .filter(|measured| RATIOS.iter().any(|(_, cell)| !cell(&measured.figures).is_empty()));
    parts.push(format!(
        "Ratios, each taken within a round\n{}",
        table(RATIOS, "", with_ratio, |measured| format!(
            "{}, {}",
            measured.transport,
            measured.case.slug()
        ))
    ));
    parts.join("\n\n")
}

fn table<'a>(
    columns: &Columns,
    title: &str,
    rows: impl Iterator<Item = &'a Measured>,
    name: impl Fn(&Measured) -> String,
) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(std::iter::once(title).chain(columns.iter().map(|(title, _)| *title)));
    for measured in rows {
        let cells = columns.iter().map(|(_, cell)| cell(&measured.figures));
        table.add_row(std::iter::once(name(measured)).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// With as many digits as say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn plain(figures: &Figures, name: &str) -> String {
    figures
        .get(name)
        .map(|spread| number(spread.median))
        .unwrap_or_default()
}

fn with_spread(figures: &Figures, name: &str) -> String {
    let text = |spread: &crate::statistics::Spread| {
        format!(
            "{} ({}..{})",
            number(spread.median),
            number(spread.min),
            number(spread.max)
        )
    };
    figures.get(name).map(text).unwrap_or_default()
}

fn both(figures: &Figures, writer: &str, reader: &str) -> String {
    match (plain(figures, writer), plain(figures, reader)) {
        (writer, reader) if reader.is_empty() => writer,
        (writer, reader) => format!("{writer} / {reader}"),
    }
}
