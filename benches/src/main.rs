//! Compares rsshmsink and rsshmsrc with other ways between two programs, and with what the machine can do.
//!
//! The program that a user starts measures nothing itself: for each run it starts itself again as a producer and as
//! consumers, lets them warm up, and puts together what they say. README.md has what is measured, and how.

mod case;
mod child;
mod consume;
mod figures;
mod frame;
mod limits;
mod machine;
mod options;
mod order;
mod pace;
mod plan;
mod plots;
mod produce;
mod report;
mod rounds;
mod run;
mod shared;
mod source;
mod statistics;
mod table;
mod talk;
mod traces;
mod transport;

use std::process::ExitCode;

use clap::Parser;
use options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        Some(Command::Produce { order }) => order::play(order, produce::run, limits::produce),
        Some(Command::Consume { order }) => order::play(order, consume::run, limits::consume),
        Some(Command::Plot { file, out }) => report::Report::load(file).and_then(|report| plots::draw(&report, out)),
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
