// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares the transport from rsshmsink to rsshmsrc with other transports between programs, and with the limits of the
//! machine.
//!
//! The process that a user starts does not measure. For each run it starts this program again, once as the producer and
//! once for each consumer. It lets these processes warm up, and combines their reports. README.md describes the
//! measurements.

mod bursts;
mod calls;
mod case;
mod check;
mod child;
mod cleanup;
mod consume;
mod document;
mod figures;
mod frame;
mod ipc;
mod job;
mod limits;
mod machine;
mod memfd_pool;
mod memory;
mod options;
mod pace;
mod pipeline;
mod plan;
mod plots;
mod produce;
mod report;
mod results;
mod rounds;
mod run;
mod shared;
mod source;
mod statistics;
mod table;
mod tools;
mod transport;

use std::process::ExitCode;

use clap::Parser;
use options::{BenchCommand, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        Some(BenchCommand::Produce { job }) => job::execute(job, produce::run, limits::produce),
        Some(BenchCommand::Consume { job }) => job::execute(job, consume::run, limits::consume),
        Some(BenchCommand::ProduceBursts { job }) => bursts::execute(job, bursts::produce::run),
        Some(BenchCommand::ConsumeBursts { job }) => bursts::execute(job, bursts::consume::run),
        Some(BenchCommand::Plot { file, out }) => {
            report::Report::load(file).and_then(|report| plots::draw(&report, out))
        }
        Some(BenchCommand::Document { file, document, marker }) => {
            report::Report::load(file).and_then(|report| document::update(&report, marker, document))
        }
        None => rounds::run_all(&options.bench),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
