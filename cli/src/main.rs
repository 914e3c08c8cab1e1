// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm`, the command line tool: shows the channels of this machine, measures them and waits for them.
//!
//! `args` declares the command line, and `commands` has one file for each command. `report` is what is known about one
//! channel; `follow` follows the frames of one. All of these only look: they hold no lock and write nothing.

mod args;
mod caps;
mod commands;
mod drawing;
mod failure;
mod follow;
mod interrupt;
mod names;
mod output;
mod picture;
mod process;
mod report;
mod source;
mod statistics;
mod terminal;
mod units;
mod y4m;

use std::process::ExitCode;

use clap::Parser;

use self::{args::Arguments, failure::Code, output::Output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` are errors of clap too. A closed pipe is no error of the user.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Code::Usage as u8 } else { 0 });
        }
    };
    interrupt::end_program_at_signals();
    let mut output = Output::new(&arguments.global);
    let outcome = commands::run(&arguments.command, &mut output).and_then(|()| output.flush());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = output.flush();
            failure.report()
        }
    }
}
