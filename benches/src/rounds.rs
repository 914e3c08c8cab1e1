// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs all rounds. Each round measures each transport once in each case. The order of the transports differs from
//! round to round.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use serde::de::DeserializeOwned;

use crate::{
    bursts::{
        self, BurstCase, BurstJob, PlannedBurst,
        figures::{self as burst_figures, BurstRun},
    },
    calls,
    case::Case,
    cleanup::{self, RunDirectory},
    figures,
    job::{Job, RunJob},
    machine::Machine,
    options::BenchOptions,
    plan::{PlannedCase, plan},
    plots,
    report::{Failure, REPORT_VERSION, Report, Run, SkippedTransport},
    results::{ConsumerReport, ProducerReport},
    run::{INTERRUPTED, INTERRUPTION, Reports, run},
    table, tools,
    transport::{Endpoint, Transport},
};

/// What a round measures.
struct Plan {
    frames: Vec<PlannedCase>,
    bursts: Vec<PlannedBurst>,
}

impl Plan {
    /// The transports of all cases.
    fn transports(&mut self) -> impl Iterator<Item = &mut Vec<Transport>> {
        let of_frames = self.frames.iter_mut().map(|planned| &mut planned.transports);
        of_frames.chain(self.bursts.iter_mut().map(|planned| &mut planned.transports))
    }
}

/// Runs the benchmark, and writes the report, the pictures and the tables.
pub fn run_all(options: &BenchOptions) -> Result<(), String> {
    watch_for_signals()?;
    gst::init().map_err(|error| error.to_string())?;
    cleanup::remove_leftovers();
    let mut plan = Plan {
        frames: plan(options),
        bursts: bursts::plan(options),
    };
    let skipped = skip_missing(&mut plan)?;
    if plan.frames.iter().any(|planned| planned.case.tools) && tools::path().is_none() {
        return Err(
            "a case has the command line tools, but there is no rsshm beside this program: \
                    cargo build --release --package rsshm-cli"
                .into(),
        );
    }
    std::fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let mut report = Report {
        version: REPORT_VERSION,
        machine: Machine::current(),
        rounds: options.rounds,
        skipped,
        failures: Vec::new(),
        repeated: Vec::new(),
        results: Vec::new(),
        bursts: Vec::new(),
    };
    measure(options, &plan, &mut report)?;
    figures::calculate(&mut report);
    burst_figures::calculate(&mut report.bursts);
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
fn skip_missing(plan: &mut Plan) -> Result<Vec<SkippedTransport>, String> {
    let mut skipped: Vec<SkippedTransport> = Vec::new();
    for transports in plan.transports() {
        transports.retain(|transport| {
            let missing = transport
                .elements()
                .iter()
                .find(|element| gst::ElementFactory::find(element).is_none());
            if let Some(missing) = missing
                && !skipped.iter().any(|skipped| skipped.transport == *transport)
            {
                let remedy = transport
                    .remedy()
                    .map(|remedy| format!("; {remedy}"))
                    .unwrap_or_default();
                let reason = format!("this GStreamer has no element {missing}{remedy}");
                eprintln!("{transport} is skipped: {reason}");
                skipped.push(SkippedTransport {
                    transport: *transport,
                    reason,
                });
            }
            missing.is_none()
        });
    }
    plan.frames.retain(|planned| !planned.transports.is_empty());
    plan.bursts.retain(|planned| !planned.transports.is_empty());
    match skipped.iter().find(|skipped| skipped.transport.is_own()) {
        Some(own) => Err(format!(
            "{}: build the plugin and set GST_PLUGIN_PATH, as `make bench` does",
            own.reason
        )),
        None if plan.frames.is_empty() && plan.bursts.is_empty() => Err("no transport is left to measure".into()),
        None => Ok(skipped),
    }
}

/// Measures all rounds.
fn measure(options: &BenchOptions, plan: &Plan, report: &mut Report) -> Result<(), String> {
    let of_frames = plan.frames.iter().map(|planned| planned.transports.len());
    let of_bursts = plan.bursts.iter().map(|planned| planned.transports.len());
    let runs: usize = of_frames.chain(of_bursts).sum();
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
        for PlannedCase { case, transports } in &plan.frames {
            for transport in in_turn(transports, round) {
                let run = |runner: &mut Runner| runner.run_frames(transport, *case, round);
                if let Some(run) = runner.measure(transport, &case.to_string(), round, report, run)? {
                    report.add(transport, *case, run);
                }
            }
        }
        for PlannedBurst { case, transports } in &plan.bursts {
            for transport in in_turn(transports, round) {
                let run = |runner: &mut Runner| runner.run_bursts(transport, *case, round);
                if let Some(run) = runner.measure(transport, &case.to_string(), round, report, run)? {
                    burst_figures::add(&mut report.bursts, transport, *case, run);
                }
            }
        }
    }
    runner.bar.finish_and_clear();
    Ok(())
}

/// The transports in another order in each round.
fn in_turn(transports: &[Transport], round: u32) -> impl Iterator<Item = Transport> {
    let (before, from) = transports.split_at(round as usize % transports.len());
    from.iter().chain(before).copied()
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
    /// Runs a transport in a case. A failed run is repeated up to `Transport::tries`. Adds the failures to the report.
    /// Returns the result, or `None` if each run failed. Returns an error only if the user interrupts the run.
    fn measure<T>(
        &mut self,
        transport: Transport,
        case: &str,
        round: u32,
        report: &mut Report,
        run: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.bar.set_message(format!("{transport}: {case}"));
        let mut failures = Vec::new();
        let mut measured = None;
        while measured.is_none() && failures.len() < transport.tries() {
            match run(self) {
                Ok(run) => measured = Some(run),
                Err(error) if error == INTERRUPTION => return Err(error),
                Err(reason) => {
                    self.bar
                        .suspend(|| eprintln!("FAILED in round {}: {transport}, {case}\n  {reason}", round + 1));
                    failures.push(Failure {
                        transport,
                        case: case.to_owned(),
                        round,
                        reason,
                    });
                }
            }
        }
        if measured.is_some() {
            report.repeated.extend(failures);
        } else {
            report.failures.extend(failures);
        }
        self.bar.inc(1);
        Ok(measured)
    }

    fn run_frames(&mut self, transport: Transport, case: Case, round: u32) -> Result<Run, String> {
        let options = self.options;
        let frames = options.frames.unwrap_or(case.default_frames());
        let job = |traced| {
            move |endpoint| Job {
                transport,
                case,
                frames,
                warm: options.warm.unwrap_or(case.default_warm_up()),
                endpoint,
                sabotage: options.sabotage.filter(|_| transport.is_own()),
                traced,
                parent: std::process::id() as i32,
            }
        };
        let mut run = Run::new(round, frames, self.run(job(false))?);
        // The number of calls hardly varies, so one round counts them.
        if round == 0 && case.counts_calls() && calls::can_count() {
            let traced: Reports<ProducerReport, ConsumerReport> = self.run(job(true))?;
            run.calls = traced.calls;
        }
        Ok(run)
    }

    fn run_bursts(&mut self, transport: Transport, case: BurstCase, round: u32) -> Result<BurstRun, String> {
        let sabotage = self.options.sabotage.filter(|_| transport.is_own());
        let Reports {
            producer, consumers, ..
        } = self.run(|endpoint| BurstJob {
            transport,
            case,
            endpoint,
            sabotage,
            parent: std::process::id() as i32,
        })?;
        Ok(BurstRun::new(round, producer, consumers))
    }

    /// Executes one run. It has its own directory and its own channel, which `job` gets.
    fn run<J: RunJob, P: DeserializeOwned, C: DeserializeOwned>(
        &mut self,
        job: impl FnOnce(Endpoint) -> J,
    ) -> Result<Reports<P, C>, String> {
        self.run_count += 1;
        let dir = self.directory.0.join(self.run_count.to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let channel = cleanup::channel(Some(self.run_count));
        cleanup::configure_iceoryx2(&dir, &channel)?;
        let mut job = job(Endpoint {
            channel: channel.clone(),
            dir: dir.display().to_string(),
            port: 0,
        });
        let outcome = run(&mut job, Duration::from_secs(self.options.patience));
        cleanup::remove_iceoryx2_memory(&channel);
        let _ = std::fs::remove_dir_all(&dir);
        outcome
    }
}
