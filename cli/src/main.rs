// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm`, the command line tool: shows the channels of this machine, measures them, saves their pictures and waits for
//! them.
//!
//! `args` declares the command line, and `commands` has one file for each command. These parts serve several commands:
//!
//! ```text
//! report      everything about one channel, with names of programs from process and caps in short from caps
//! follow      the frames of a channel, from one writer to the next, without their bytes
//! picture     a frame as a picture or a file; y4m: as YUV4MPEG2; drawing: in a terminal
//! viewer      the picture of a channel on the whole screen
//! camera      a camera as a service: its settings and its process
//! source      frames from files and pipes
//! output      tables, JSON and CSV; terminal: the whole screen
//! failure     errors with their exit codes; interrupt: Ctrl-C
//! names, units, statistics
//! ```
//!
//! `report` and `follow` only look: they hold no lock and write nothing.

// print! and eprint! panic if nobody reads, which is no reason to end.
#![deny(clippy::print_stdout, clippy::print_stderr)]
// Nothing that a peer, a user or the system does may end the program (docs/STYLE.md).
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]

mod args;
mod camera;
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
mod viewer;
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
    interrupt::wait_for_end();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = output.flush();
            failure.report()
        }
    }
}
