// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm watch`: the picture of a channel in the terminal.

use std::{
    io::{IsTerminal, stdin, stdout},
    time::Duration,
};

use clap::Args;
use rsshm_channel::ChannelName;

use crate::{
    failure::{Code, Failure},
    names,
    output::Output,
    terminal::{Screen, Style},
    viewer::{Viewer, terminal_failure},
};

/// Shows the picture of a channel in the terminal, also by ssh.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm watch cam0
  ssh -t host rsshm watch cam0
  rsshm watch cam0 --as blocks

The terminal says which protocol for pictures it has: kitty's, iTerm2's or sixels. Others show half blocks in the picture's
colours. On a slow line, pictures are skipped. Key: q quit. The command observes, so it takes no frame from any reader.")]
pub(crate) struct Watch {
    /// A name or a URI. The command waits for a channel that does not exist yet.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// How the picture is drawn; without it, what the terminal can show.
    #[arg(long = "as", value_enum, value_name = "STYLE")]
    style: Option<Style>,
    /// The most pictures a second.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Ends after this many pictures.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    pub(crate) fn run(&self, _output: &mut Output) -> Result<(), Failure> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            let text = format!(
                "this is no terminal; for a file: rsshm snapshot {} -o a.png",
                self.channel
            );
            return Err(Failure::new(Code::Usage, text));
        }
        let viewer = Viewer {
            channel: self.channel.clone(),
            style: self.style,
            interval: Duration::from_secs(1) / self.fps,
            count: self.count,
            advice: "q quits",
        };
        let mut screen = Screen::new().map_err(|error| terminal_failure(&error))?;
        viewer.run(&mut screen)
    }
}
