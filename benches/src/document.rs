// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes the tables of a report into a document. Each table replaces the lines between `<!-- MARKER: NAME -->` and
//! `<!-- end -->`.

use std::path::Path;

use crate::{
    bursts::figures as bursts,
    case::{Case, Mode, Reading},
    figures,
    report::{Figures, Report},
    table::{Columns, MEMORY_AND_START, plain, with_spread},
    transport::Transport,
};

const END: &str = "<!-- end -->";

/// A table with the measurements of some cases.
struct Block {
    name: &'static str,
    /// Whether the table has this case.
    is_in: fn(Case) -> bool,
    columns: &'static Columns,
}

const BLOCKS: &[Block] = &[
    Block {
        name: "latency",
        is_in: |case| is_plain(case) && case.mode == Mode::InPlace && case.is_paced() && case.readers == 1,
        columns: &[
            LATENCY,
            LATENCY_P99,
            ("to shmsink", |f| plain(f, figures::LATENCY_TO_SHM)),
            ("to the futex", |f| plain(f, figures::LATENCY_TO_FUTEX)),
            WRITER,
            READER,
        ],
    },
    Block {
        name: "frames by descriptor",
        is_in: |case| case.mode == Mode::Descriptor,
        columns: &[
            RATE,
            LATENCY,
            ("to unixfdsink", |f| plain(f, figures::LATENCY_TO_UNIXFD)),
            OVER,
            READER,
            ("both, to unixfdsink", |f| with_spread(f, figures::BOTH_TO_UNIXFD)),
            ("system calls a frame: writer over fakesink", |f| {
                plain(f, figures::WRITER_CALLS_OVER)
            }),
            ("reader", |f| plain(f, figures::READER_CALLS)),
            MISSED,
        ],
    },
    Block {
        name: "full speed",
        is_in: |case| is_plain(case) && case.mode == Mode::InPlace && !case.is_paced(),
        columns: FULL_SPEED,
    },
    Block {
        name: "one copy",
        is_in: |case| is_plain(case) && case.mode == Mode::Foreign,
        columns: ONE_COPY,
    },
    Block {
        name: "every byte",
        is_in: |case| case.reading == Reading::All,
        columns: ONE_COPY,
    },
    Block {
        name: "few bytes",
        is_in: |case| case.reading == Reading::Few && case.mode != Mode::Descriptor,
        columns: FULL_SPEED,
    },
    Block {
        name: "many readers",
        is_in: |case| is_plain(case) && case.readers > 2 && case.mode != Mode::Descriptor,
        columns: &[
            LATENCY,
            LATENCY_P99,
            ("to shmsink", |f| plain(f, figures::LATENCY_TO_SHM)),
            WRITER,
            ("to the futex", |f| plain(f, figures::WRITER_TO_FUTEX)),
            READER,
            MISSED,
        ],
    },
    Block {
        name: "memory and start",
        is_in: |case| is_plain(case) && is_usual(case) && case.readers != 2,
        columns: MEMORY_AND_START,
    },
    Block {
        name: "tools",
        is_in: |case| case.reading == Reading::Words && is_usual(case) && case.readers == 2,
        columns: &[
            LATENCY,
            LATENCY_P99,
            WRITER,
            ("to without tools", |f| with_spread(f, figures::WRITER_TO_ALONE)),
            READER,
            ("to without tools", |f| with_spread(f, figures::READER_TO_ALONE)),
            MISSED,
        ],
    },
];

type Column = (&'static str, fn(&Figures) -> String);

const LATENCY: Column = ("latency µs, median (rounds)", |f| with_spread(f, figures::LATENCY_P50));
const LATENCY_P99: Column = ("99 %", |f| plain(f, figures::LATENCY_P99));
const WRITER: Column = ("CPU µs a frame: writer", |f| with_spread(f, figures::WRITER));
const READER: Column = ("reader", |f| plain(f, figures::READER));
const MISSED: Column = ("missed", |f| plain(f, figures::MISSED));
const RATE: Column = ("frames a second", |f| plain(f, figures::RATE));
const RATE_TO_SHM: Column = ("to shmsink", |f| plain(f, figures::RATE_TO_SHM));
const OVER: Column = ("CPU µs a frame: writer over fakesink", |f| {
    with_spread(f, figures::WRITER_OVER)
});

const FULL_SPEED: &Columns = &[
    RATE,
    RATE_TO_SHM,
    LATENCY,
    OVER,
    READER,
    ("both, to shmsink", |f| with_spread(f, figures::BOTH_TO_SHM)),
];

const ONE_COPY: &Columns = &[
    RATE,
    RATE_TO_SHM,
    LATENCY,
    OVER,
    ("to memcpy", |f| with_spread(f, figures::OVER_TO_MEMCPY)),
    READER,
    ("both, to shmsink", |f| with_spread(f, figures::BOTH_TO_SHM)),
];

const BURSTS: &Columns = &[
    ("lost", |f| plain(f, bursts::LOST)),
    ("CPU µs a buffer: writer over fakesink", |f| {
        with_spread(f, bursts::WRITER_OVER)
    }),
    ("reader", |f| with_spread(f, bursts::READER)),
    ("both, to shmsink", |f| with_spread(f, bursts::BOTH_TO_SHM)),
    ("ms from the first push to the last buffer", |f| {
        with_spread(f, bursts::BURST_TIME)
    }),
];

/// Whether readers check a word of each page, and no tools run beside them.
fn is_plain(case: Case) -> bool {
    case.reading == Reading::Words && !case.tools
}

/// Whether the case differs from the usual one only in its readers and tools.
fn is_usual(case: Case) -> bool {
    let Case { readers, tools, .. } = case;
    case == Case {
        readers,
        tools,
        ..Case::USUAL
    }
}

/// Replaces the tables of the document whose lines name `marker`.
pub fn update(report: &Report, marker: &str, document: &Path) -> Result<(), String> {
    let with_path = |error: &dyn std::fmt::Display| format!("{}: {error}", document.display());
    let text = std::fs::read_to_string(document).map_err(|error| with_path(&error))?;
    let text = replace_blocks(&text, marker, |name| block(report, name)).map_err(|error| with_path(&error))?;
    std::fs::write(document, text).map_err(|error| with_path(&error))
}

/// Replaces what is between the lines `<!-- MARKER: NAME -->` and [`END`]. `content` makes the new lines of a name, or
/// returns `None` if the report has no figures for it; then the old lines stay.
fn replace_blocks(
    text: &str,
    marker: &str,
    content: impl Fn(&str) -> Result<Option<String>, String>,
) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    let begin = format!("<!-- {marker}: ");
    while let Some((before, after)) = rest.split_once(&begin) {
        let (name, after) = after.split_once(" -->\n").ok_or("a marker has no end of its line")?;
        let (old, after) = after.split_once(END).ok_or(format!("the table {name} has no {END}"))?;
        let new = content(name)?.map(|content| format!("\n{content}\n"));
        result += &format!("{before}{begin}{name} -->\n{}{END}", new.as_deref().unwrap_or(old));
        rest = after;
    }
    if result.is_empty() {
        return Err(format!("there is no line `{begin}NAME -->`"));
    }
    Ok(result + rest)
}

/// The lines of a block.
fn block(report: &Report, name: &str) -> Result<Option<String>, String> {
    if name == "machine" {
        return Ok(Some(machine(report)));
    }
    if name == "bursts" {
        let groups = report.bursts.chunk_by(|one, next| one.case == next.case).map(|group| {
            let rows = group.iter().map(|one| (one.transport, &one.figures));
            (group[0].case.to_string(), rows.collect())
        });
        return Ok(table(BURSTS, groups.collect()));
    }
    let block = BLOCKS.iter().find(|block| block.name == name);
    let block = block.ok_or_else(|| format!("there is no table {name}"))?;
    let cases = report.cases().into_iter().filter(|case| (block.is_in)(*case));
    let groups = cases.map(|case| {
        let of_case = report.results.iter().filter(|measurement| measurement.case == case);
        let rows = of_case.map(|measurement| (measurement.transport, &measurement.figures));
        (case.to_string(), rows.collect())
    });
    Ok(table(block.columns, groups.collect()))
}

/// The rows with the same case, and their title.
type Group<'a> = (String, Vec<(Transport, &'a Figures)>);

/// A table in Markdown. A row in bold comes before the rows of each group. Rows without a figure are left out.
fn table(columns: &Columns, groups: Vec<Group<'_>>) -> Option<String> {
    // The titles and the cells may be those of a table on the terminal.
    let titles: Vec<String> = columns
        .iter()
        .map(|(title, _)| title.trim().replace('\n', " "))
        .collect();
    let mut text = format!("| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(columns.len()));
    let mut is_empty = true;
    for (title, rows) in groups {
        text += &format!("| **{title}** |{}\n", " |".repeat(columns.len()));
        for (transport, figures) in rows {
            let cells: Vec<String> = columns
                .iter()
                .map(|(_, cell)| cell(figures).replace("..", " to "))
                .collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                text += &format!("| {} | {} |\n", title_of(transport), cells.join(" | "));
                is_empty = false;
            }
        }
    }
    (!is_empty).then_some(text)
}

/// The machine, and the transports without figures.
fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}, {} cores, Linux {}, {}, {}; rounds: {}; load before: {}.\n",
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.gstreamer,
        machine.date.split('T').next().unwrap_or_default(),
        report.rounds,
        machine.load
    );
    for skipped in &report.skipped {
        text += &format!(
            "\nNot measured: {}. Reason: {}.\n",
            title_of(skipped.transport),
            skipped.reason
        );
    }
    for failure in &report.failures {
        let reason = failure.reason.lines().next().unwrap_or_default();
        text += &format!(
            "\nFailed in round {}: {}, {}. Reason: {reason}.\n",
            failure.round + 1,
            title_of(failure.transport),
            failure.case
        );
    }
    text
}

fn title_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Rsshm => "rsshm",
        Transport::RsshmLossless => "rsshm, `lossless=true`",
        Transport::Shm => "shmsink, shmsrc",
        Transport::Unixfd => "unixfdsink, unixfdsrc",
        Transport::Iceoryx2 => "iceoryx2sink, iceoryx2src",
        Transport::Tcp => "gdppay over TCP",
        Transport::Udp => "udpsink, udpsrc",
        Transport::Fakesink => "fakesink alone",
        Transport::Futex => "limit: bare futex",
        Transport::Memcpy => "limit: memcpy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Spread;

    const DOCUMENT: &str = "a\n<!-- make bench: one -->\nold\n<!-- end -->\nb\n<!-- make other: one -->\nkeep\n<!-- end -->\n<!-- make bench: two -->\nstays\n<!-- end -->\nc\n";

    #[test]
    fn only_tables_of_this_command_are_replaced() {
        let content = |name: &str| Ok((name == "one").then(|| "new\n".to_owned()));
        let text = replace_blocks(DOCUMENT, "make bench", content).unwrap();
        assert_eq!(text, DOCUMENT.replace("old", "\nnew\n"));
        let again = replace_blocks(&text, "make bench", content).unwrap();
        assert_eq!(again, text);
    }

    #[test]
    fn document_without_marker_is_an_error() {
        let content = |_: &str| Ok(None);
        assert!(replace_blocks("text", "make bench", content).is_err());
        assert!(replace_blocks("<!-- make bench: one -->\nno end", "make bench", content).is_err());
    }

    #[test]
    fn table_has_rows_with_figures_only() {
        let figures = Figures::from([(
            figures::SHARED.to_owned(),
            Spread {
                median: 9.0,
                min: 8.0,
                max: 10.0,
            },
        )]);
        let columns: &Columns = &[("shared", |f| with_spread(f, figures::SHARED))];
        let none = Figures::new();
        let rows = vec![(Transport::Rsshm, &figures), (Transport::Fakesink, &none)];
        let text = table(columns, vec![("case".to_owned(), rows)]).unwrap();
        assert_eq!(
            text,
            "| | shared |\n|---|---|\n| **case** | |\n| rsshm | 9.00 (8.00 to 10.0) |\n"
        );
        assert_eq!(
            table(columns, vec![("case".to_owned(), vec![(Transport::Shm, &none)])]),
            None
        );
    }

    #[test]
    fn each_table_of_the_document_exists() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PERFORMANCE.md");
        let text = std::fs::read_to_string(document).unwrap();
        let tables: Vec<(&str, &str)> = text
            .split("<!-- make bench")
            .skip(1)
            .filter_map(|rest| {
                let (marker, rest) = rest.split_once(" -->")?;
                Some((marker.split_once(": ")?.1, rest.split_once(END)?.0))
            })
            .collect();
        assert!(tables.len() > 5, "{tables:?}");
        for (name, table) in tables {
            let is_known = ["machine", "bursts"].contains(&name) || BLOCKS.iter().any(|block| block.name == name);
            assert!(is_known, "{name}");
            assert!(!table.trim().is_empty(), "{name} is empty");
        }
    }
}
