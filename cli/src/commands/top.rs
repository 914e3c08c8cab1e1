// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm top`: all channels and their readers, renewed each second.

use std::{
    io::{IsTerminal, stdin, stdout},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;

use super::{
    top_sample::Sampler,
    top_screen::TopScreen,
    top_table::{COLUMNS, FIELDS, Order, csv, head, rows},
};
use crate::{
    failure::Failure,
    output::{Format, Output},
    units,
};

/// Shows all channels with their readers below them, renewed each second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm top
  rsshm top 'cam*' --sort behind
  rsshm top -b -n 5 >> log           for logs: five tables
  rsshm top -b --json | jq -c '.channels[] | {channel, fps}'

Keys: up and down select a row, Enter shows the picture of its channel, Esc returns, s changes the order, n f w r b m c choose
name, fps, bw, readers, behind, missed or cpu, space renews now, q quits. FPS of a reader is the number of frames that it
takes. MISSED/s is the number of those that it does not get; a reader in the state latest skips them on purpose. HELD are
slots of those with memory, or of its quota.")]
pub(crate) struct Top {
    /// Names, URIs or patterns; all channels if none is given.
    #[arg(value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Prints one table after the other, as it does without a terminal.
    #[arg(long, short)]
    batch: bool,
    /// Ends after this many tables.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The time from one table to the next.
    #[arg(long, short = 'd', value_name = "DURATION", value_parser = units::parse_duration, default_value = "1s")]
    interval: Duration,
    /// The order of the channels, and of the readers of each.
    #[arg(long, short, value_enum, default_value = "name", value_name = "ORDER")]
    sort: Order,
}

impl Top {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let interval = self.interval.max(Duration::from_millis(50));
        let is_interactive = stdin().is_terminal() && stdout().is_terminal() && output.format == Format::Table;
        if self.batch || !is_interactive {
            return self.print(interval, output);
        }
        TopScreen::new(&self.channels, interval, self.sort, self.count).run(output)
    }

    /// Prints one table after the other. Rates need two looks, so the first table comes after one interval.
    fn print(&self, interval: Duration, output: &mut Output) -> Result<(), Failure> {
        let mut sampler = Sampler::default();
        sampler.look(&self.channels)?;
        if output.format == Format::Csv {
            output.csv(&FIELDS)?;
        }
        let mut printed = 0;
        while self.count.is_none_or(|count| printed < count) {
            std::thread::sleep(interval);
            let mut samples = sampler.look(&self.channels)?;
            self.sort.sort(&mut samples);
            let time = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64();
            match output.format {
                Format::Json => output.json(&serde_json::json!({ "time": time, "channels": samples }))?,
                Format::Csv => samples.iter().try_for_each(|sample| csv(output, time, sample))?,
                Format::Table => {
                    if printed > 0 {
                        output.line("")?;
                    }
                    output.line(format!("time {time:.3}, {}", head(&samples, self.sort)))?;
                    output.table("", &COLUMNS, &rows(&samples))?;
                }
            }
            output.flush()?;
            printed += 1;
        }
        Ok(())
    }
}
