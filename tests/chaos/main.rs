//! One bad program never takes the others down: a writer and readers of all kinds, each of which is killed or stopped at
//! any instant, from outside and by itself at the named instants of the protocol (`channel/src/points.rs`), and started
//! again. Every frame is checked, all of it, when it comes and again when it is let go.
//!
//! `make chaos SECONDS=600 SEED=1` is a long run. A run's seed does not bring back the very same run, as the machine has a
//! part in it, but the same mix.

mod board;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod content;
mod dump;
#[path = "../numbered/mod.rs"]
mod numbered;
mod pipeline;
mod random;
mod reader;
mod report;
mod role;
mod run;
mod writer;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use report::Report;
use role::{Orders, Role};
use run::{Plan, run};

/// Runs one plan after the other, and fails with what was found first.
fn expect_nothing(plans: impl IntoIterator<Item = Plan>) {
    let mut json = Vec::new();
    let mut all: Option<Report> = None;
    for plan in plans {
        let Plan { seed, lossless, .. } = plan;
        println!("chaos: SEED={seed} lossless={lossless}");
        let report = run(plan);
        println!("{}", report.table());
        json.push(report.json());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos.json");
        std::fs::write(file, format!("[{}]\n", json.join(",\n"))).unwrap();
        assert!(
            report.findings.is_empty(),
            "SEED={seed} lossless={lossless}; what the processes said is in {}\n{}",
            report.folder.display(),
            report.findings.join("\n")
        );
        match &mut all {
            None => all = Some(report),
            Some(all) => all.add(report),
        }
    }
    if json.len() > 2 {
        println!(
            "all {} runs:\n{}",
            json.len(),
            all.map_or_else(String::new, |all| all.table())
        );
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    number("RSSHM_CHAOS_SEED").unwrap_or(now.as_millis() as u64 % 1_000_000_000)
}

#[test]
fn programs_that_die_and_stop_at_any_instant_take_no_other_down() {
    let seed = seed();
    let plan = |seconds, lossless| Plan {
        seed,
        time: Duration::from_secs(seconds),
        lossless,
    };
    expect_nothing([plan(18, false), plan(14, true)]);
}

/// `make chaos`: one mode after the other, in runs of at most a minute.
#[test]
#[ignore = "takes as long as RSSHM_CHAOS_SECONDS says"]
fn a_long_run() {
    let (first, seconds) = (seed(), number("RSSHM_CHAOS_SECONDS").unwrap_or(60));
    expect_nothing((0..seconds.div_ceil(60)).map(|index| Plan {
        seed: first + index,
        time: Duration::from_secs((seconds - index * 60).min(60)),
        lossless: index % 2 == 1,
    }));
}

/// The processes of a run.
#[test]
#[ignore = "a process that other tests start"]
fn child() {
    let Some(orders) = Orders::received() else {
        return;
    };
    match orders.role {
        Role::Writer => writer::play(orders),
        Role::Sink => pipeline::write(orders),
        Role::Source | Role::SourceNewest => pipeline::read(orders),
        _ => reader::play(orders),
    }
}
