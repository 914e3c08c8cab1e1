// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    case::{Mode, Reading, Size},
    job::Sabotage,
    transport::Transport,
};

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Frames of raw video
    Frames,
    /// Bursts of small buffers
    Bursts,
}

#[derive(Parser)]
#[command(about, version, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    #[command(flatten)]
    pub bench: BenchOptions,
}

/// The options of a benchmark. If none of --sizes, --modes, --rates and --readers is given, the usual cases and the bursts
/// run for about six minutes.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Measure only these transports
    #[arg(long, value_delimiter = ',', value_enum)]
    pub transports: Vec<Transport>,
    /// Frame sizes (NV12) [default if --modes, --rates or --readers is given: 1080p]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub sizes: Vec<Size>,
    /// Memory that the frames are drawn in [default if --sizes, --rates or --readers is given: in-place]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub modes: Vec<Mode>,
    /// Frames per second; 0: as fast as both sides can [default if --sizes, --modes or --readers is given: 60]
    #[arg(long, value_delimiter = ',')]
    pub rates: Vec<u32>,
    /// Number of reading programs [default if --sizes, --modes or --rates is given: 1]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    pub readers: Vec<u32>,
    /// What a reader reads of each frame [default: words]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub reading: Vec<Reading>,
    /// Also measure each case beside `rsshm top`, `rsshm hz` and `rsshm echo`
    #[arg(long)]
    pub tools: bool,
    /// Measure all sizes, modes, rates and numbers of readers (half an hour)
    #[arg(long, conflicts_with_all = ["sizes", "modes", "rates", "readers", "reading", "tools"])]
    pub full: bool,
    /// Measure only frames of raw video, or only bursts of small buffers [default: both, or frames if --sizes, --modes,
    /// --rates or --readers is given]
    #[arg(long, value_enum, conflicts_with_all = ["sizes", "modes", "rates", "reading", "tools"])]
    pub only: Option<Part>,
    /// Number of rounds; each round measures every transport in every case once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Frames that count in each run [default: two seconds of frames, or 600 at rate 0]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    pub frames: Option<u64>,
    /// Frames before those that count [default: 30, plus 4 for each reader]
    #[arg(long)]
    pub warm: Option<u64>,
    /// Bursts in each run [default: 3, or 10 with --full]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub bursts: Option<u64>,
    /// Small buffers in each burst
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub burst_buffers: u64,
    /// Seconds to wait for a late program before it is killed
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    /// Directory for report.json and the pictures
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// Break a frame of rsshm, to test that the benchmark notices it
    #[arg(long, hide = true, value_enum)]
    pub sabotage: Option<Sabotage>,
}

impl BenchOptions {
    /// Whether the options choose cases of frames.
    pub fn chooses_frames(&self) -> bool {
        let is_default = self.sizes.is_empty()
            && self.modes.is_empty()
            && self.rates.is_empty()
            && self.readers.is_empty()
            && self.reading.is_empty();
        !is_default || self.tools
    }

    /// Whether the transport is to be measured.
    pub fn wants(&self, transport: Transport) -> bool {
        self.transports.is_empty() || self.transports.contains(&transport)
    }
}

#[derive(Subcommand)]
pub enum BenchCommand {
    /// Draw the pictures of a report again
    Plot {
        /// A report.json
        file: PathBuf,
        /// Directory for the pictures
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
    },
    /// Write the tables of a report into a document, between the lines `<!-- MARKER: NAME -->` and `<!-- end -->`
    Document {
        /// A report.json
        file: PathBuf,
        /// A document in Markdown
        #[arg(long, default_value = "docs/PERFORMANCE.md")]
        document: PathBuf,
        /// The command that the lines before the tables name
        #[arg(long, default_value = "make bench")]
        marker: String,
    },
    #[command(hide = true)]
    Produce { job: String },
    #[command(hide = true)]
    Consume { job: String },
    #[command(hide = true)]
    ProduceBursts { job: String },
    #[command(hide = true)]
    ConsumeBursts { job: String },
}
