// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kills and stops programs at any instruction, and checks every frame that the other programs receive.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use rsshm_testkit::chaos::{self, Plan};

rsshm_testkit::roles!(chaos::ROLES);

/// The longest time of a run, in seconds. The runs are short, so that a long test uses many seeds.
const RUN_SECONDS: u64 = 60;

/// Kill and stop programs at any instruction, and check every frame that the other programs receive.
///
/// The mode of the writer alternates from run to run. A run takes up to a minute.
#[derive(Debug, Parser)]
struct Options {
    /// How long to run, in seconds
    #[arg(long, default_value_t = RUN_SECONDS)]
    seconds: u64,
    /// The seed of the first run; the next runs have the seeds after it [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// The behaviour of the writer if a reader is slow
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
    /// Remove what dead writers leave, all the time, as `rsshm clean` does
    #[arg(long)]
    clean: bool,
    /// Publish most frames by descriptor, and let a process use the socket of the channel wrongly
    #[arg(long)]
    objects: bool,
    /// Directory for report.json, and for the output of the programs of failed runs
    #[arg(long, default_value = "target/chaos")]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Mode {
    /// The writer overwrites frames that the reader has not read
    Dropping,
    /// The writer waits for the reader
    Lossless,
    /// The runs alternate between both, dropping first
    Both,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let first_seed = options.seed.unwrap_or_else(chaos::new_seed);
    let plans: Vec<Plan> = (0..options.seconds.div_ceil(RUN_SECONDS))
        .map(|index| Plan {
            seed: first_seed + index,
            time: Duration::from_secs((options.seconds - index * RUN_SECONDS).min(RUN_SECONDS)),
            lossless: match options.mode {
                Mode::Dropping => false,
                Mode::Lossless => true,
                Mode::Both => index % 2 == 1,
            },
            clean: options.clean,
            objects: options.objects,
        })
        .collect();
    if let Err(error) = std::fs::create_dir_all(&options.directory) {
        eprintln!("{}: {error}", options.directory.display());
        return ExitCode::from(2);
    }
    match chaos::run(&plans, &options.directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(findings) => {
            eprintln!("{findings}");
            ExitCode::FAILURE
        }
    }
}
