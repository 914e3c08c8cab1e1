//! All rounds: each way once in each round, in another order in each.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    case::Case,
    figures,
    machine::Machine,
    options::BenchOptions,
    order::{Order, Place},
    plan::{Entry, plan},
    plots,
    report::{Failure, Report, Run, Skipped, VERSION},
    run::{INTERRUPTED, INTERRUPTION, run},
    table, traces,
    transport::Transport,
};

pub fn run_all(options: &BenchOptions) -> Result<(), String> {
    watch_for_signals()?;
    gst::init().map_err(|error| error.to_string())?;
    traces::remove_old();
    let mut entries = plan(options);
    let skipped = skip_missing(&mut entries)?;
    std::fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let mut report = Report {
        version: VERSION,
        machine: Machine::this(),
        rounds: options.rounds,
        skipped,
        failures: Vec::new(),
        repeated: Vec::new(),
        results: Vec::new(),
    };
    measure(options, &entries, &mut report)?;
    figures::fill_in(&mut report);
    report.save(&options.out.join("report.json"))?;
    plots::draw(&report, &options.out)?;
    println!("{}", table::text(&report));
    println!("report.json and pictures are in {}", options.out.display());
    if !report.repeated.is_empty() {
        println!("{} runs of peers failed and were repeated", report.repeated.len());
    }
    let (peers, own): (Vec<_>, Vec<_>) = report.failures.iter().partition(|failure| failure.transport.is_peer());
    if !peers.is_empty() {
        println!("{} runs of peers failed again and again and do not count", peers.len());
    }
    match own.len() {
        0 => Ok(()),
        count => Err(format!("{count} runs failed and do not count; see above")),
    }
}

/// Ctrl-C ends the run, and that its processes.
fn watch_for_signals() -> Result<(), String> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Before there is another thread, so that none gets them; children start with none blocked.
    signals.thread_block().map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            // Partner: the load in Running::collect.
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Takes out the ways whose elements are not there, and says so.
fn skip_missing(entries: &mut Vec<Entry>) -> Result<Vec<Skipped>, String> {
    let mut skipped: Vec<Skipped> = Vec::new();
    for entry in entries.iter_mut() {
        entry.transports.retain(|transport| {
            let missing = transport
                .elements()
                .iter()
                .find(|element| gst::ElementFactory::find(element).is_none());
            if let Some(missing) = missing
                && !skipped.iter().any(|skipped| skipped.transport == *transport)
            {
                let reason = format!("GStreamer here has no element {missing}");
                eprintln!("{transport} is skipped: {reason}");
                skipped.push(Skipped {
                    transport: *transport,
                    reason,
                });
            }
            missing.is_none()
        });
    }
    entries.retain(|entry| !entry.transports.is_empty());
    match skipped.iter().find(|skipped| skipped.transport.is_own()) {
        Some(own) => Err(format!(
            "{}: build the plugin and set GST_PLUGIN_PATH, as `make bench` does",
            own.reason
        )),
        None if entries.is_empty() => Err("nothing is left to measure".into()),
        None => Ok(skipped),
    }
}

fn measure(options: &BenchOptions, entries: &[Entry], report: &mut Report) -> Result<(), String> {
    let folder = traces::Folder::new()?;
    let runs: usize = entries.iter().map(|entry| entry.transports.len()).sum();
    let bar = ProgressBar::new((runs * options.rounds as usize) as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos:>3}/{len} {wide_bar} {eta:>4} left  {msg}") {
        bar.set_style(style);
    }
    let mut count = 0;
    for round in 0..options.rounds {
        for entry in entries {
            let mut transports = entry.transports.clone();
            let turn = round as usize % transports.len();
            transports.rotate_left(turn);
            for transport in transports {
                bar.set_message(format!("{transport}: {}", entry.case));
                let mut failures = Vec::new();
                let went_well = loop {
                    count += 1;
                    let mut order = order(options, transport, entry.case);
                    match run_in_folder(&mut order, &folder, count, round, options.patience) {
                        Ok(run) => {
                            report.add(transport, entry.case, run);
                            break true;
                        }
                        Err(error) if error == INTERRUPTION => return Err(error),
                        Err(reason) => {
                            bar.suspend(|| {
                                eprintln!("FAILED in round {}: {transport}, {}\n  {reason}", round + 1, entry.case)
                            });
                            failures.push(Failure {
                                transport,
                                case: entry.case,
                                round,
                                reason,
                            });
                        }
                    }
                    if failures.len() >= transport.tries() {
                        break false;
                    }
                };
                if went_well {
                    &mut report.repeated
                } else {
                    &mut report.failures
                }
                .extend(failures);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Runs what is ordered, with a folder and a channel of its own.
fn run_in_folder(
    order: &mut Order,
    folder: &traces::Folder,
    count: u32,
    round: u32,
    patience: u64,
) -> Result<Run, String> {
    let dir = folder.0.join(count.to_string());
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    order.place.channel = traces::channel(Some(count));
    order.place.dir = dir.display().to_string();
    let outcome = run(order, round, Duration::from_secs(patience));
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

fn order(options: &BenchOptions, transport: Transport, case: Case) -> Order {
    Order {
        transport,
        case,
        frames: options.frames.unwrap_or(case.usual_frames()),
        warm: options.warm.unwrap_or(case.usual_warm_up()),
        place: Place::default(),
        sabotage: options.sabotage.filter(|_| transport.is_own()),
        parent: std::process::id() as i32,
    }
}
