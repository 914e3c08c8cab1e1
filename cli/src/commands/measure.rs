// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `hz`, `bw` and `delay` share: they follow a channel, and print a measurement each second.

use std::time::{Duration, Instant};

use clap::Args;
use rsshm_channel::ChannelName;

use crate::{
    failure::Failure,
    follow::{Begin, Follower, Sight},
    names,
    output::{self, Output},
};

/// How often a measurement is printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The arguments of these commands.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// A name or a URI. The command waits for a channel that does not exist yet.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    pub(crate) channel: ChannelName,
    /// Ends after this many measurements.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// A measurement that goes on.
pub(crate) trait Measurement {
    /// Takes a frame into account.
    fn add(&mut self, sight: &Sight);
    /// Prints the measurement; `false` if there is nothing to print yet.
    fn print(&mut self, output: &mut Output) -> Result<bool, Failure>;
}

impl Target {
    /// Follows the channel and prints the measurement each second.
    pub(crate) fn run(&self, measurement: &mut dyn Measurement, output: &mut Output) -> Result<(), Failure> {
        let mut follower = Follower::new(self.channel.clone(), Begin::Next);
        let mut due = Instant::now() + REPORT_INTERVAL;
        let mut printed = 0;
        let (mut has_frames, mut has_notice) = (false, false);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if let Some(sight) = follower.next(left)? {
                measurement.add(&sight);
                has_frames = true;
            }
            if Instant::now() < due {
                continue;
            }
            due = Instant::now() + REPORT_INTERVAL;
            if has_frames {
                if measurement.print(output)? {
                    printed += 1;
                    output.flush()?;
                }
                (has_frames, has_notice) = (false, false);
            } else if !has_notice {
                // On stderr, so that programs that read the measurements do not see it.
                let reason = if follower.is_connected() {
                    "no new frames"
                } else {
                    "waiting for a writer"
                };
                output::warn(format!("channel {}: {reason}", self.channel));
                has_notice = true;
            }
            if self.count.is_some_and(|count| printed >= count) {
                return Ok(());
            }
        }
    }
}
