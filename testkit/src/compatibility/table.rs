// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table in docs/COMPATIBILITY.md.

use std::{collections::BTreeMap, fmt::Write};

use super::case::{Case, Outcome, Verdict};

/// The line after which the program writes the table.
pub const BEGINNING: &str = "<!-- The lines below are written by `make compatibility`. -->";

/// The first line of each table.
const HEADING: &str = "| element | input | in the reader | result | late reader |";

/// The cells of one row that have a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub main: String,
    pub late: String,
}

/// The rows of a table, by group and element.
pub type Rows = BTreeMap<(String, String), Row>;

/// The text of the results.
pub fn render(results: &[(Case, Outcome)]) -> String {
    let mut text = String::new();
    let mut group = "";
    for (case, outcome) in results {
        if group != case.group {
            group = case.group;
            let _ = write!(text, "\n## {group}\n\n{HEADING}\n|---|---|---|---|---|\n");
        }
        let cells = [
            &case.element,
            &case.input,
            &case.consumer,
            &outcome.main.to_string(),
            &outcome.late.to_string(),
        ];
        let cells: Vec<_> = cells.iter().map(|cell| escape(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn escape(cell: &str) -> String {
    cell.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// The rows of a text that [`render`] wrote.
pub fn parse(text: &str) -> Rows {
    let mut rows = Rows::new();
    let mut group = "";
    for line in text.lines().filter(|line| *line != HEADING) {
        if let Some(heading) = line.strip_prefix("## ") {
            group = heading;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            continue;
        };
        if let [element, _, _, main, late] = cells.split(" | ").collect::<Vec<_>>()[..] {
            let row = Row {
                main: main.to_owned(),
                late: late.to_owned(),
            };
            rows.insert((group.to_owned(), element.to_owned()), row);
        }
    }
    rows
}

/// The cells that are worse than those of the recorded table. A row without a recorded row is worse if something in it
/// is bad.
pub fn worse(case: &Case, outcome: &Outcome, recorded: &Rows) -> Vec<String> {
    let row = recorded.get(&(case.group.to_owned(), escape(&case.element)));
    let cells = [
        ("", &outcome.main, row.map(|row| &row.main)),
        ("late reader: ", &outcome.late, row.map(|row| &row.late)),
    ];
    let worse = cells.into_iter().filter(|(_, verdict, recorded)| {
        let was_good = recorded.is_none_or(|text| is_good(text));
        matches!(verdict, Verdict::Bad(_)) && was_good
    });
    worse
        .map(|(name, verdict, _)| format!("{}, {}: {name}{verdict}", case.group, case.element))
        .collect()
}

/// Whether a cell records that nothing differs.
fn is_good(cell: &str) -> bool {
    !cell.starts_with("**differs**")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compatibility::case::Steps;

    fn case(element: &str) -> Case {
        Case {
            group: "Muxers",
            element: element.to_owned(),
            input: "x264enc".to_owned(),
            consumer: String::new(),
            steps: Steps::None(String::new()),
        }
    }

    fn outcome(main: Verdict) -> Outcome {
        Outcome {
            main,
            late: Verdict::Empty,
        }
    }

    #[test]
    fn worse_rows_are_found() {
        let good = outcome(Verdict::Good("same"));
        let bad = outcome(Verdict::Bad("1 of 2 buffers are lost | more".to_owned()));
        let results = [(case("one"), good.clone()), (case("two"), bad.clone())];
        let recorded = parse(&render(&results));
        assert_eq!(recorded.len(), 2);
        assert!(worse(&case("one"), &good, &recorded).is_empty());
        assert!(worse(&case("two"), &bad, &recorded).is_empty());
        assert!(worse(&case("two"), &good, &recorded).is_empty());
        assert_eq!(
            worse(&case("one"), &bad, &recorded),
            ["Muxers, one: **differs**: 1 of 2 buffers are lost | more"]
        );
        assert_eq!(worse(&case("new"), &bad, &recorded).len(), 1);
    }
}
