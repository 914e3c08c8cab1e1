// SPDX-License-Identifier: MIT OR Apache-2.0

//! A run of all cases.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Case, Outcome, Verdict, parallel, part, plan,
    table::{self, BEGINNING, Rows},
};

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The document with the table.
    pub document: PathBuf,
    /// Whether the results replace the table in the document.
    pub writes: bool,
    /// Only the cases whose group and element contain one of these texts. All cases if there are none.
    pub only: Vec<String>,
    /// The number of cases at the same time.
    pub jobs: usize,
}

/// Runs the cases and prints their results. Fails with the results that are worse than the recorded ones.
pub fn run(options: &Options) -> Result<(), String> {
    let (introduction, recorded) = read(&options.document)?;
    if options.writes && !options.only.is_empty() {
        return Err("only a run of all rows can write the tables".to_owned());
    }
    let started = Instant::now();
    part::init();
    let mut cases = plan::plan(options.jobs);
    println!("{} cases after {:.0?}", cases.len(), started.elapsed());
    cases.retain(|case| {
        let name = format!("{}, {}", case.group, case.element);
        options.only.is_empty() || options.only.iter().any(|text| name.contains(text))
    });
    let outcomes = parallel(&cases, options.jobs, |case| {
        let outcome = case.run();
        print(case, &outcome);
        outcome
    });
    let mut results: Vec<_> = cases.into_iter().zip(outcomes).collect();
    repeat_bad(&mut results, &recorded, options.writes);
    println!(
        "{} cases in {:.0?}: {}",
        results.len(),
        started.elapsed(),
        summary(&results)
    );
    if options.writes {
        let text = format!("{introduction}{BEGINNING}\n{}", table::render(&results));
        return std::fs::write(&options.document, text).map_err(|error| error.to_string());
    }
    worse(&results, &recorded)
}

/// Runs the cases. Fails with the results that are worse than those in the document.
pub fn check(cases: &[Case], document: &Path, jobs: usize) -> Result<(), String> {
    let (_, recorded) = read(document)?;
    part::init();
    let outcomes = parallel(cases, jobs, Case::run);
    let mut results: Vec<_> = cases.iter().cloned().zip(outcomes).collect();
    repeat_bad(&mut results, &recorded, false);
    worse(&results, &recorded)
}

/// The text before the table, and the rows of the table.
fn read(document: &Path) -> Result<(String, Rows), String> {
    let text = std::fs::read_to_string(document).map_err(|error| format!("{}: {error}", document.display()))?;
    match text.split_once(BEGINNING) {
        Some((introduction, table)) => Ok((introduction.to_owned(), table::parse(table))),
        None => Err(format!("{} has no line {BEGINNING:?}", document.display())),
    }
}

fn worse(results: &[(Case, Outcome)], recorded: &Rows) -> Result<(), String> {
    let worse: Vec<_> = results
        .iter()
        .flat_map(|(case, outcome)| table::worse(case, outcome, recorded))
        .collect();
    if worse.is_empty() {
        Ok(())
    } else {
        Err(worse.join("\n"))
    }
}

/// The number of repeated cases at the same time.
const REPEATING_JOBS: usize = 2;

/// Repeats the cases with a bad result while little else runs, because a busy machine delays live sources. With `all`,
/// the cases whose result is not worse than the recorded one are repeated too.
fn repeat_bad(results: &mut [(Case, Outcome)], recorded: &Rows, all: bool) {
    let is_bad = |outcome: &Outcome| matches!(outcome.main, Verdict::Bad(_)) || matches!(outcome.late, Verdict::Bad(_));
    let repeated = results
        .iter_mut()
        .filter(|(case, outcome)| is_bad(outcome) && (all || !table::worse(case, outcome, recorded).is_empty()));
    let repeated: Vec<_> = repeated.collect();
    let outcomes = parallel(&repeated, REPEATING_JOBS, |(case, _)| {
        let outcome = case.run();
        print(case, &outcome);
        outcome
    });
    for ((_, result), outcome) in repeated.into_iter().zip(outcomes) {
        *result = outcome;
    }
}

fn print(case: &Case, outcome: &Outcome) {
    let Case {
        group,
        element,
        input,
        consumer,
        ..
    } = case;
    println!(
        "{group} | {element} | {input} | {consumer} | {} | {}",
        outcome.main, outcome.late
    );
}

fn summary(results: &[(Case, Outcome)]) -> String {
    let count = |wanted: fn(&Verdict) -> bool| results.iter().filter(|(_, outcome)| wanted(&outcome.main)).count();
    format!(
        "{} the same, {} differ, {} not possible",
        count(|verdict| matches!(verdict, Verdict::Good(_))),
        count(|verdict| matches!(verdict, Verdict::Bad(_))),
        count(|verdict| matches!(verdict, Verdict::Impossible(_)))
    )
}
