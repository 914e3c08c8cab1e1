// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands, one in each file.

pub(crate) mod info;
pub(crate) mod list;

use crate::{args::Command, failure::Failure, output::Output};

/// Runs a command.
pub(crate) fn run(command: &Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::List(list) => list.run(output),
        Command::Info(info) => info.run(output),
    }
}
