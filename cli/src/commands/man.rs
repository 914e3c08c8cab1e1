// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm man`: the manual pages.

use std::{fs, path::PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::{
    args::Arguments,
    failure::{Code, Failure},
    output::Output,
};

/// Prints the manual page, or writes the pages of all commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm man | man -l -
  rsshm man --out /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The directory for the pages of all commands: rsshm.1, rsshm-list.1 and so on.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut program = Arguments::command();
        program.build();
        let Some(directory) = &self.out else {
            return output.bytes(&page(program)?);
        };
        let failure = |error: std::io::Error| Failure::new(Code::No, format!("{}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(failure)?;
        let commands = program
            .get_subcommands()
            .filter(|command| command.get_name() != "help")
            .cloned();
        let pages: Vec<Command> = commands.collect();
        for command in std::iter::once(program).chain(pages) {
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            fs::write(directory.join(format!("{name}.1")), page(command)?).map_err(failure)?;
        }
        Ok(())
    }
}

/// The manual page of a command, in the language of troff.
fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    Page::new(command)
        .render(&mut text)
        .map_err(|error| Failure::new(Code::No, format!("the manual page: {error}")))?;
    Ok(text)
}
