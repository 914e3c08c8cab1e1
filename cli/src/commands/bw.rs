// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm bw`: how many bytes a second.

use clap::Args;
use rsshm_channel::monotonic_ns;

use super::measure::{Measurement, Target};
use crate::{
    failure::Failure,
    follow::Sight,
    output::{Format, Output},
    statistics::Window,
};

/// Measures how many bytes a second are published, in the lines of `ros2 topic bw`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm bw cam0
  rsshm bw cam0 -n 1 --json

A writer that draws in shared memory and readers in place copy none of these bytes.")]
pub(crate) struct Bw {
    #[command(flatten)]
    target: Target,
    /// The number of frames that the measurement covers.
    #[arg(long, short, default_value_t = 100, value_name = "FRAMES", value_parser = super::window)]
    window: usize,
}

impl Bw {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut bandwidth = Bandwidth {
            channel: self.target.channel.to_string(),
            times: Window::new(self.window),
            sizes: Window::new(self.window),
            has_head: false,
        };
        self.target.run(&mut bandwidth, output)
    }
}

#[derive(Debug)]
struct Bandwidth {
    channel: String,
    times: Window,
    sizes: Window,
    has_head: bool,
}

impl Measurement for Bandwidth {
    fn add(&mut self, sight: &Sight) {
        self.times.push(sight.seen_ns as f64 / 1e9);
        self.sizes.push(sight.descriptor.size as f64);
    }

    fn print(&mut self, output: &mut Output) -> Result<bool, Failure> {
        let (Some(first), Some(found)) = (self.times.first(), self.sizes.statistics()) else {
            return Ok(false);
        };
        let seconds = monotonic_ns() as f64 / 1e9 - first;
        if found.count < 2 || seconds <= 0.0 {
            return Ok(false);
        }
        let rate = found.mean * found.count as f64 / seconds;
        match output.format {
            Format::Table => {
                let unit = unit(rate);
                output.line(format!("{}/s from {} messages", unit(rate), found.count))?;
                output.line_with_tab(format!(
                    "Message size mean: {} min: {} max: {}",
                    unit(found.mean),
                    unit(found.min),
                    unit(found.max)
                ))?;
            }
            Format::Json => output.json(&serde_json::json!({
                "channel": self.channel, "bytes_per_second": rate, "mean_bytes": found.mean,
                "min_bytes": found.min, "max_bytes": found.max, "window": found.count,
            }))?,
            Format::Csv => {
                let names = [
                    "channel",
                    "bytes_per_second",
                    "mean_bytes",
                    "min_bytes",
                    "max_bytes",
                    "window",
                ];
                let values = [
                    self.channel.clone(),
                    format!("{rate:.0}"),
                    format!("{:.0}", found.mean),
                    format!("{:.0}", found.min),
                    format!("{:.0}", found.max),
                    found.count.to_string(),
                ];
                output.csv_with_head(&mut self.has_head, &names, &values)?;
            }
        }
        Ok(true)
    }
}

/// How `ros2 topic bw` writes bytes if the rate is `rate`: all numbers of a measurement have the same unit.
fn unit(rate: f64) -> fn(f64) -> String {
    match rate {
        ..1e3 => |bytes| format!("{bytes:.0} B"),
        ..1e6 => |bytes| format!("{:.2} KB", bytes / 1e3),
        _ => |bytes| format!("{:.2} MB", bytes / 1e6),
    }
}
