// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chaos: a test that programs which die or stop do not disturb the other programs.
//!
//! A run has one writer and readers of all kinds on one channel. The run kills and stops processes at arbitrary
//! instructions. Each process also kills and stops itself at the failpoints of the protocol. Killed processes are
//! started again. Readers check every byte of every frame when the frame arrives, and again when they release the
//! frame.
//!
//! Two runs with the same seed make the same random choices. The order of events may still differ, because it also
//! depends on the machine's timing.

mod assignment;
mod board;
mod camera;
mod check;
mod cleaner;
mod content;
mod dump;
mod pipeline;
mod reader;
mod report;
mod run;
mod stranger;
mod writer;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use assignment::{Assignment, Kind};

use crate::role::Role;

const PROCESS: &str = "chaos/process";

/// The role of the processes of a run.
pub const ROLES: &[(&str, Role)] = &[(PROCESS, play)];

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all random numbers of the run.
    pub seed: u64,
    /// For how long the run kills and stops processes.
    pub time: Duration,
    /// Whether the writer waits for its readers.
    pub lossless: bool,
    /// Whether a process removes what dead writers have left, all the time.
    pub clean: bool,
    /// Whether most frames stay in memory of the writer's upstream, so that readers get descriptors, and a process uses
    /// the socket of the channel wrongly.
    pub objects: bool,
}

/// A new seed, which differs from call to call.
pub fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis() as u64 % 1_000_000_000
}

/// Runs the plans in order and prints a table for each. Fails with the findings of the first run that has findings.
///
/// Writes `report.json` to `directory`. If a run fails, the output of its processes is also there.
pub fn run(plans: &[Plan], directory: &Path) -> Result<(), String> {
    let mut reports = Vec::new();
    let mut sum: Option<report::Report> = None;
    for plan in plans {
        let Plan {
            seed,
            lossless,
            clean,
            objects,
            ..
        } = plan;
        println!("chaos: seed {seed}, lossless {lossless}, clean {clean}, objects {objects}");
        let report = run::run(plan, directory);
        println!("{}", report.table());
        reports.push(report.json());
        let json = serde_json::to_string_pretty(&reports).expect("a report as JSON");
        std::fs::write(directory.join("report.json"), json).expect("the report is written");
        if !report.findings.is_empty() {
            return Err(format!(
                "seed {seed}, lossless {lossless}, objects {objects}; the output of the processes is in {}\n{}",
                report.directory.display(),
                report.findings.join("\n")
            ));
        }
        match &mut sum {
            None => sum = Some(report),
            Some(sum) => sum.add(report),
        }
    }
    if let Some(sum) = sum.filter(|_| reports.len() > 2) {
        println!("all {} runs:\n{}", reports.len(), sum.table());
    }
    Ok(())
}

/// The role of a process of a run. The argument is the process's assignment.
fn play(arguments: &[&str]) {
    let assignment: Assignment = serde_json::from_str(arguments[0]).expect("an assignment");
    match assignment.kind {
        Kind::Writer => writer::play(assignment),
        Kind::Sink => pipeline::write(assignment),
        Kind::Cleaner => cleaner::play(assignment),
        Kind::Stranger => stranger::play(assignment),
        Kind::Source | Kind::SourceNewest => pipeline::read(assignment),
        _ => reader::play(assignment),
    }
}
