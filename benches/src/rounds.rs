// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs all rounds. Each round measures each transport once in each case. The order of the transports differs from
//! round to round.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    case::Case,
    cleanup::{self, RunDirectory},
    figures,
    job::Job,
    machine::Machine,
    options::BenchOptions,
    plan::{PlannedCase, plan},
    plots,
    report::{Failure, REPORT_VERSION, Report, Run, SkippedTransport},
    run::{INTERRUPTED, INTERRUPTION, run},
    table,
    transport::{Endpoint, Transport},
};

/// Runs the benchmark, and writes the report, the pictures and the tables.
pub fn run_all(options: &BenchOptions) -> Result<(), String> {
    watch_for_signals()?;
    gst::init().map_err(|error| error.to_string())?;
    cleanup::remove_leftovers();
    let mut planned = plan(options);
    let skipped = skip_missing(&mut planned)?;
    std::fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let mut report = Report {
        version: REPORT_VERSION,
        machine: Machine::current(),
        rounds: options.rounds,
        skipped,
        failures: Vec::new(),
        repeated: Vec::new(),
        results: Vec::new(),
    };
    measure(options, &planned, &mut report)?;
    figures::calculate(&mut report);
    report.save(&options.out.join("report.json"))?;
    plots::draw(&report, &options.out)?;
    println!("{}", table::text(&report));
    println!("report.json and pictures are in {}", options.out.display());
    if !report.repeated.is_empty() {
        println!(
            "{} runs of foreign transports failed, and then succeeded",
            report.repeated.len()
        );
    }
    let (foreign, own): (Vec<_>, Vec<_>) = report
        .failures
        .iter()
        .partition(|failure| failure.transport.is_foreign());
    if !foreign.is_empty() {
        println!(
            "{} runs of foreign transports failed each time and do not count",
            foreign.len()
        );
    }
    match own.len() {
        0 => Ok(()),
        count => Err(format!("{count} runs failed and do not count; see above")),
    }
}

/// Makes Ctrl-C end the current run and the processes of that run.
fn watch_for_signals() -> Result<(), String> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // The signals are blocked before other threads start, so that all threads inherit the mask and only the thread
    // below receives them. Children start with no blocked signals.
    signals.thread_block().map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            // Partner: the load in Processes::collect.
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Removes the transports whose elements are missing, and prints their names. Fails if an element of this project is
/// missing.
fn skip_missing(planned: &mut Vec<PlannedCase>) -> Result<Vec<SkippedTransport>, String> {
    let mut skipped: Vec<SkippedTransport> = Vec::new();
    for PlannedCase { transports, .. } in planned.iter_mut() {
        transports.retain(|transport| {
            let missing = transport
                .elements()
                .iter()
                .find(|element| gst::ElementFactory::find(element).is_none());
            if let Some(missing) = missing
                && !skipped.iter().any(|skipped| skipped.transport == *transport)
            {
                let reason = format!("this GStreamer has no element {missing}");
                eprintln!("{transport} is skipped: {reason}");
                skipped.push(SkippedTransport {
                    transport: *transport,
                    reason,
                });
            }
            missing.is_none()
        });
    }
    planned.retain(|planned| !planned.transports.is_empty());
    match skipped.iter().find(|skipped| skipped.transport.is_own()) {
        Some(own) => Err(format!(
            "{}: build the plugin and set GST_PLUGIN_PATH, as `make bench` does",
            own.reason
        )),
        None if planned.is_empty() => Err("no transport is left to measure".into()),
        None => Ok(skipped),
    }
}

/// Measures all rounds.
fn measure(options: &BenchOptions, planned: &[PlannedCase], report: &mut Report) -> Result<(), String> {
    let runs: usize = planned.iter().map(|planned| planned.transports.len()).sum();
    let bar = ProgressBar::new((runs * options.rounds as usize) as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos:>3}/{len} {wide_bar} {eta:>4} left  {msg}") {
        bar.set_style(style);
    }
    let mut runner = Runner {
        options,
        directory: RunDirectory::new()?,
        bar,
        run_count: 0,
    };
    for round in 0..options.rounds {
        for PlannedCase { case, transports } in planned {
            let mut transports = transports.clone();
            let first = round as usize % transports.len();
            transports.rotate_left(first);
            for transport in transports {
                runner.measure(transport, *case, round, report)?;
            }
        }
    }
    runner.bar.finish_and_clear();
    Ok(())
}

/// Runs jobs one after another. Each job has its own directory.
struct Runner<'a> {
    options: &'a BenchOptions,
    directory: RunDirectory,
    bar: ProgressBar,
    /// Number of runs so far, including those that failed.
    run_count: u32,
}

impl Runner<'_> {
    /// Runs a transport in a case. A failed run is repeated up to `Transport::tries`. Adds the result and the failures
    /// to the report. Returns an error only if the user interrupts the run.
    fn measure(&mut self, transport: Transport, case: Case, round: u32, report: &mut Report) -> Result<(), String> {
        self.bar.set_message(format!("{transport}: {case}"));
        let mut failures = Vec::new();
        let mut is_measured = false;
        while !is_measured && failures.len() < transport.tries() {
            match self.run(transport, case, round) {
                Ok(run) => {
                    report.add(transport, case, run);
                    is_measured = true;
                }
                Err(error) if error == INTERRUPTION => return Err(error),
                Err(reason) => {
                    self.bar
                        .suspend(|| eprintln!("FAILED in round {}: {transport}, {case}\n  {reason}", round + 1));
                    failures.push(Failure {
                        transport,
                        case,
                        round,
                        reason,
                    });
                }
            }
        }
        if is_measured {
            report.repeated.extend(failures);
        } else {
            report.failures.extend(failures);
        }
        self.bar.inc(1);
        Ok(())
    }

    /// Executes one run. It has its own directory and its own channel.
    fn run(&mut self, transport: Transport, case: Case, round: u32) -> Result<Run, String> {
        self.run_count += 1;
        let dir = self.directory.0.join(self.run_count.to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut job = Job {
            transport,
            case,
            frames: self.options.frames.unwrap_or(case.default_frames()),
            warm: self.options.warm.unwrap_or(case.default_warm_up()),
            endpoint: Endpoint {
                channel: cleanup::channel(Some(self.run_count)),
                dir: dir.display().to_string(),
                port: 0,
            },
            sabotage: self.options.sabotage.filter(|_| transport.is_own()),
            parent: std::process::id() as i32,
        };
        let outcome = run(&mut job, round, Duration::from_secs(self.options.patience));
        let _ = std::fs::remove_dir_all(&dir);
        outcome
    }
}
