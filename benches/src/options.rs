//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    case::{Mode, Size},
    order::Sabotage,
    transport::Transport,
};

#[derive(Parser)]
#[command(about, version, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub bench: BenchOptions,
}

/// Without any of the four that choose cases: the usual ones, about five minutes.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Only these ways
    #[arg(long, value_delimiter = ',', value_enum)]
    pub transports: Vec<Transport>,
    /// Sizes of a frame (NV12) [with another choice: 1080p]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub sizes: Vec<Size>,
    /// Whose memory the frames are drawn in [with another choice: in-place]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub modes: Vec<Mode>,
    /// Frames a second, 0: as fast as both sides can [with another choice: 60]
    #[arg(long, value_delimiter = ',')]
    pub rates: Vec<u32>,
    /// Programs that read [with another choice: 1]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    pub readers: Vec<u32>,
    /// Everything: all sizes, modes, rates and numbers of readers (half an hour)
    #[arg(long, conflicts_with_all = ["sizes", "modes", "rates", "readers"])]
    pub full: bool,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Frames that count in each run [default: two seconds of them, 600 as fast as can be]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    pub frames: Option<u64>,
    /// Frames before those [default: 30, and 4 more for each reader]
    #[arg(long)]
    pub warm: Option<u64>,
    /// How long a program may be late, in seconds, before it is killed
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    /// The folder for report.json and the pictures
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// Spoils what rsshm transports, to see that it is noticed
    #[arg(long, hide = true, value_enum)]
    pub sabotage: Option<Sabotage>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Draws the pictures of a report again
    Plot {
        /// A report.json
        file: PathBuf,
        /// The folder for the pictures
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
    },
    #[command(hide = true)]
    Produce { order: String },
    #[command(hide = true)]
    Consume { order: String },
}
