// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::{commands, output::Format};

/// Shows, measures and awaits the channels of this machine.
///
/// A channel is named by its name, by a URI (rsshm://NAME), or, where several make sense, by a pattern in quotes
/// ('cam*'). Durations are 250ms, 3s, 2m or 1h.
#[derive(Debug, Parser)]
#[command(
    name = "rsshm",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  rsshm list                         what is there
  rsshm info cam0                    who reads cam0, and how far behind
  rsshm hz cam0                      frames a second
  rsshm wait cam0 --timeout 10s && gst-launch-1.0 rsshmsrc name=cam0 ! autovideosink

Environment:
  RSSHM_DIR    a tmpfs that has the channels, instead of the system's shared memory
  NO_COLOR     no colours

Exit codes:
  0 yes, 1 no, 2 wrong usage, 3 time-out, 4 no permission, 5 damaged or another version, 130 Ctrl-C"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The form of the output.
    #[arg(long, global = true, value_enum, default_value = "table", help_heading = "Output")]
    format: Format,
    /// The same as --format json.
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// No colours. The environment variable NO_COLOR does the same.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) no_color: bool,
}

impl Global {
    /// The form of the output.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "ls")]
    List(commands::list::List),
    Info(commands::info::Info),
    Top(commands::top::Top),
    Hz(commands::hz::Hz),
    Bw(commands::bw::Bw),
    Delay(commands::delay::Delay),
    Echo(commands::echo::Echo),
    Wait(commands::wait::Wait),
    Check(commands::check::Check),
    Snapshot(commands::snapshot::Snapshot),
    Cat(commands::cat::Cat),
    Watch(commands::watch::Watch),
    Publish(commands::publish::Publish),
    Camera(commands::camera::Camera),
    Metrics(commands::metrics::Metrics),
    Doctor(commands::doctor::Doctor),
    Clean(commands::clean::Clean),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}
