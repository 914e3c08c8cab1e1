// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm hz`: how many frames a second.

use clap::Args;

use super::measure::{Measurement, Target};
use crate::{
    failure::Failure,
    follow::Sight,
    output::{Format, Output},
    statistics::Window,
};

/// Measures how many frames a second are published, in the lines of `ros2 topic hz`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm hz cam0
  rsshm hz cam0 -n 1 --json

The rate is the inverse of the mean time between the frames of the window. The times are those at which this program sees
the frames. For the rate by timestamps, see `rsshm info`.")]
pub(crate) struct Hz {
    #[command(flatten)]
    target: Target,
    /// The number of frames that the measurement covers.
    #[arg(long, short, default_value_t = 10_000, value_name = "FRAMES", value_parser = super::window)]
    window: usize,
}

impl Hz {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut rate = Rate {
            channel: self.target.channel.to_string(),
            last_ns: None,
            intervals: Window::new(self.window),
            missed: 0,
            has_head: false,
        };
        self.target.run(&mut rate, output)
    }
}

#[derive(Debug)]
struct Rate {
    channel: String,
    last_ns: Option<u64>,
    intervals: Window,
    missed: u64,
    has_head: bool,
}

impl Measurement for Rate {
    fn add(&mut self, sight: &Sight) {
        // Missed frames are counted, so that the rate is that of the writer.
        let frames = sight.missed + 1;
        if let Some(last) = self.last_ns.replace(sight.seen_ns) {
            let interval = sight.seen_ns.saturating_sub(last) as f64 / 1e9 / frames as f64;
            (0..frames.min(1_000_000)).for_each(|_| self.intervals.push(interval));
        }
        self.missed += sight.missed;
    }

    fn print(&mut self, output: &mut Output) -> Result<bool, Failure> {
        let Some(found) = self.intervals.statistics() else {
            return Ok(false);
        };
        let rate = if found.mean > 0.0 { 1.0 / found.mean } else { 0.0 };
        match output.format {
            Format::Table => {
                output.line(format!("average rate: {rate:.3}"))?;
                output.line_with_tab(format!(
                    "min: {:.3}s max: {:.3}s std dev: {:.5}s window: {}",
                    found.min, found.max, found.std_dev, found.count
                ))?;
            }
            Format::Json => output.json(&serde_json::json!({
                "channel": self.channel, "rate": rate, "min_s": found.min, "max_s": found.max,
                "std_dev_s": found.std_dev, "window": found.count, "missed": self.missed,
            }))?,
            Format::Csv => {
                let names = ["channel", "rate", "min_s", "max_s", "std_dev_s", "window", "missed"];
                let values = [
                    self.channel.clone(),
                    format!("{rate:.3}"),
                    format!("{:.6}", found.min),
                    format!("{:.6}", found.max),
                    format!("{:.6}", found.std_dev),
                    found.count.to_string(),
                    self.missed.to_string(),
                ];
                output.csv_with_head(&mut self.has_head, &names, &values)?;
            }
        }
        Ok(true)
    }
}
