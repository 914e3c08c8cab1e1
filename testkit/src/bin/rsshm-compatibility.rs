// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends the output of each installed muxer, payloader, encoder and parser through a channel.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use rsshm_testkit::compatibility::{self, Options};

rsshm_testkit::roles!(compatibility::ROLES);

/// Send the output of each installed muxer, payloader, encoder and parser through a channel, and compare what arrives
/// with the same without a channel.
///
/// Fails if a result is worse than the one in the table.
#[derive(Debug, Parser)]
struct Arguments {
    /// Replace the table with the new results
    #[arg(long)]
    write: bool,
    /// The document with the table
    #[arg(long, default_value = "docs/COMPATIBILITY.md")]
    document: PathBuf,
    /// Number of cases at the same time
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// Only rows whose group or element contains one of these texts
    only: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        document: arguments.document,
        writes: arguments.write,
        only: arguments.only,
        jobs: arguments.jobs,
    };
    match compatibility::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
