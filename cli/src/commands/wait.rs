// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm wait`: waits for something to happen to a channel.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rsshm_channel::{ChannelName, ObservedReader, Observer, has_writer, layout::reader_state};

use crate::{
    failure::{Code, Failure},
    follow::{Begin, Follower},
    names,
    output::Output,
    units,
};

/// How often the command looks, except for frames, which wake it.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often in a row the writer has to be absent. While a writer changes its format, the channel has no current segment
/// for a moment.
const ABSENCES: u32 = 5;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// A living writer has published a frame.
    Frame,
    /// A reader is attached; observers do not count.
    Reader,
    /// A living writer has published its format.
    Caps,
    /// There is no living writer.
    Gone,
}

/// Waits for a frame, a reader, a format, or the end of a channel.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm wait cam0 --timeout 10s || echo 'no camera'
  rsshm wait cam0 --for reader && echo 'somebody looks'
  rsshm wait cam0 --for gone --timeout 5s

The exit code is 0 if it happened, also if it was so at once, and 3 if the time ran out.")]
pub(crate) struct Wait {
    /// A name or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// What to wait for.
    #[arg(long = "for", value_enum, default_value = "frame", value_name = "WHAT")]
    goal: Goal,
    /// How long to wait; for ever if it is not given.
    #[arg(long, short, value_parser = units::parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

impl Wait {
    pub(crate) fn run(&self, _output: &mut Output) -> Result<(), Failure> {
        let started = Instant::now();
        let left = || {
            self.timeout
                .map_or(Duration::MAX, |timeout| timeout.saturating_sub(started.elapsed()))
        };
        let mut follower = Follower::new(self.channel.clone(), Begin::Newest);
        let mut absences = 0;
        loop {
            // The look comes before the check of the time, so that even a time of 0 looks once.
            let time_is_up = left().is_zero();
            let has_happened = match self.goal {
                Goal::Frame => follower.next(left().min(POLL_INTERVAL))?.is_some(),
                Goal::Caps => self.observer()?.is_some(),
                Goal::Reader => self
                    .observer()?
                    .is_some_and(|observer| observer.readers().iter().any(is_attached)),
                Goal::Gone => {
                    let is_absent = self.observer()?.is_none() && has_writer(&self.channel) != Some(true);
                    absences = if is_absent { absences + 1 } else { 0 };
                    absences >= ABSENCES
                }
            };
            if has_happened {
                return Ok(());
            }
            if time_is_up && absences == 0 {
                return Err(self.time_out());
            }
            if self.goal != Goal::Frame {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    fn observer(&self) -> Result<Option<Observer>, Failure> {
        Observer::open(&self.channel).map_err(|error| Failure::of_channel(&self.channel, &error))
    }

    fn time_out(&self) -> Failure {
        let what = match self.goal {
            Goal::Frame => "no frame",
            Goal::Reader => "no reader",
            Goal::Caps => "no format",
            Goal::Gone => "its writer is still there",
        };
        let timeout = self.timeout.map(units::nanoseconds).map(units::duration);
        let text = format!("channel {}: {what} after {}", self.channel, timeout.unwrap_or_default());
        Failure::new(Code::TimedOut, text)
    }
}

fn is_attached(reader: &ObservedReader) -> bool {
    reader.is_present() && reader.state == reader_state::ATTACHED
}
