// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm delay`: how old frames are when a reader can see them.

use clap::Args;

use super::measure::{Measurement, Target};
use crate::{
    failure::Failure,
    follow::Sight,
    output::{self, Format, Output},
    statistics::Window,
};

/// Measures how old the frames are when readers get them, in the lines of `ros2 topic delay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm delay cam0
  rsshm delay cam0 -n 1 --json

The age of a frame is counted from its timestamp, which is the capture time of a camera. Frames without a timestamp are not
counted.")]
pub(crate) struct Delay {
    #[command(flatten)]
    target: Target,
    /// The number of frames that the measurement covers.
    #[arg(long, short, default_value_t = 10_000, value_name = "FRAMES", value_parser = super::window)]
    window: usize,
}

impl Delay {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut delays = Delays {
            channel: self.target.channel.to_string(),
            ages: Window::new(self.window),
            has_head: false,
        };
        self.target.run(&mut delays, output)
    }
}

#[derive(Debug)]
struct Delays {
    channel: String,
    ages: Window,
    has_head: bool,
}

impl Measurement for Delays {
    fn add(&mut self, sight: &Sight) {
        if let Some(age) = sight.age_ns() {
            self.ages.push(age as f64 / 1e9);
        }
    }

    fn print(&mut self, output: &mut Output) -> Result<bool, Failure> {
        let Some(found) = self.ages.statistics() else {
            output::warn(format!("channel {}: its frames have no timestamps", self.channel));
            return Ok(false);
        };
        match output.format {
            Format::Table => {
                output.line(format!("average delay: {:.3}", found.mean))?;
                output.line_with_tab(format!(
                    "min: {:.3}s max: {:.3}s std dev: {:.5}s window: {}",
                    found.min, found.max, found.std_dev, found.count
                ))?;
            }
            Format::Json => output.json(&serde_json::json!({
                "channel": self.channel, "mean_s": found.mean, "min_s": found.min, "max_s": found.max,
                "std_dev_s": found.std_dev, "window": found.count,
            }))?,
            Format::Csv => {
                let names = ["channel", "mean_s", "min_s", "max_s", "std_dev_s", "window"];
                let values = [
                    self.channel.clone(),
                    format!("{:.6}", found.mean),
                    format!("{:.6}", found.min),
                    format!("{:.6}", found.max),
                    format!("{:.6}", found.std_dev),
                    found.count.to_string(),
                ];
                output.csv_with_head(&mut self.has_head, &names, &values)?;
            }
        }
        Ok(true)
    }
}
