// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm top`: all channels and their readers, renewed each second.

use std::{
    io::{IsTerminal, stdin, stdout},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};

use super::top_sample::{ReaderSample, Sample, Sampler};
use crate::{
    failure::{Code, Failure},
    output::{Cell, Colour, Column, Format, Output},
    terminal::Screen,
    units,
};

const COLUMNS: [Column; 9] = [
    Column::Left("CHANNEL / reader"),
    Column::Right("FPS"),
    Column::Right("AGE"),
    Column::Right("JITTER"),
    Column::Right("MB/s"),
    Column::Right("BEHIND"),
    Column::Right("HELD"),
    Column::Right("CPU%"),
    Column::Left("STATE"),
];

/// The fields of CSV: a line for each channel, and one for each reader.
const FIELDS: [&str; 11] = [
    "time",
    "channel",
    "entry",
    "pid",
    "program",
    "state",
    "fps",
    "bytes_per_second",
    "behind",
    "holds",
    "cpu_percent",
];

/// The order of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By name.
    Name,
    /// The most frames a second first.
    Fps,
    /// The most bytes a second first.
    Bw,
    /// The most readers first.
    Readers,
    /// The reader that is farthest behind first.
    Behind,
    /// The writer with the most computing time first.
    Cpu,
}

/// Shows all channels with their readers below them, renewed each second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm top
  rsshm top 'cam*' --sort behind
  rsshm top -b -n 5 >> log           for logs: five tables
  rsshm top -b --json | jq -c '.channels[] | {channel, fps}'

Keys: s the next order, space renew now, up and down scroll, q quit. FPS of a reader is how many frames its cursor advances,
so a reader that skips to the newest frame has the rate of its channel. HELD are slots of those with memory, or of its quota.")]
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
    /// The order of the channels.
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
        let failure = |error: std::io::Error| Failure::new(Code::No, format!("the terminal: {error}"));
        let screen = Screen::new().map_err(failure)?;
        let mut sampler = Sampler::default();
        let mut order = self.sort;
        let (mut shown, mut first_line) = (0, 0_usize);
        let mut samples = sampler.look(&self.channels)?;
        let mut due = Instant::now() + interval;
        loop {
            sort(&mut samples, order);
            let mut lines = vec![head(&samples, order)];
            let mut table = output.table_lines(&COLUMNS, &rows(&samples));
            let last_line = table.len().saturating_sub(2);
            first_line = first_line.min(last_line);
            lines.push(table.remove(0));
            lines.extend(table.into_iter().skip(first_line));
            screen.show(&lines).map_err(failure)?;
            match screen.key(due.saturating_duration_since(Instant::now())) {
                Some(b'q') => return Ok(()),
                Some(b's') => order = next(order),
                Some(b' ') => due = Instant::now(),
                // The last byte of the sequences of the cursor keys, and the keys of vi.
                Some(b'B' | b'j') => first_line += 1,
                Some(b'A' | b'k') => first_line = first_line.saturating_sub(1),
                _ => {}
            }
            if Instant::now() >= due {
                samples = sampler.look(&self.channels)?;
                due = Instant::now() + interval;
                shown += 1;
                if self.count.is_some_and(|count| shown >= count) {
                    return Ok(());
                }
            }
        }
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
            sort(&mut samples, self.sort);
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

/// The line above the table.
fn head(samples: &[Sample], order: Order) -> String {
    let readers: usize = samples.iter().map(|sample| sample.readers.len()).sum();
    let alive = samples.iter().filter(|sample| sample.pid.is_some()).count();
    let bandwidth: f64 = samples.iter().filter_map(|sample| sample.bytes_per_second).sum();
    let order = order
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    format!(
        "{} channels, {alive} with a writer, {readers} readers, {:.1} MB/s; order: {order}",
        samples.len(),
        bandwidth / 1e6
    )
}

fn next(order: Order) -> Order {
    let all = Order::value_variants();
    let index = all.iter().position(|known| *known == order).unwrap_or(0);
    all[(index + 1) % all.len()]
}

fn sort(samples: &mut [Sample], order: Order) {
    let value = |sample: &Sample| match order {
        Order::Name => 0.0,
        Order::Fps => sample.fps.unwrap_or(-1.0),
        Order::Bw => sample.bytes_per_second.unwrap_or(-1.0),
        Order::Readers => sample.readers.len() as f64,
        Order::Behind => sample
            .readers
            .iter()
            .filter_map(|reader| reader.behind)
            .max()
            .map_or(-1.0, |behind| behind as f64),
        Order::Cpu => sample.cpu_percent.unwrap_or(-1.0),
    };
    samples.sort_by(|one, other| {
        value(other)
            .total_cmp(&value(one))
            .then_with(|| one.channel.cmp(&other.channel))
    });
}

fn rows(samples: &[Sample]) -> Vec<Vec<Cell>> {
    samples
        .iter()
        .flat_map(|sample| std::iter::once(row(sample)).chain(sample.readers.iter().map(reader_row)))
        .collect()
}

fn number(value: Option<f64>) -> Cell {
    Cell::optional(value.map(|value| format!("{value:.1}")))
}

fn row(sample: &Sample) -> Vec<Cell> {
    let megabytes = sample.bytes_per_second.map(|bytes| bytes / 1e6);
    let held = sample
        .slots_held
        .zip(sample.slots)
        .map(|(held, slots)| format!("{held}/{slots}"));
    let colour = match sample.state {
        "alive" => Colour::Good,
        "no-format" => Colour::Warning,
        _ => Colour::Bad,
    };
    vec![
        Cell::new(&*sample.channel),
        number(sample.fps),
        Cell::optional(sample.age_ns.map(units::duration)),
        Cell::optional(sample.jitter_ns.map(units::duration)),
        number(megabytes),
        Cell::new("-"),
        Cell::optional(held),
        number(sample.cpu_percent),
        Cell::coloured(sample.state, colour),
    ]
}

fn reader_row(reader: &ReaderSample) -> Vec<Cell> {
    let name = match (reader.pid, &reader.program) {
        (Some(pid), Some(program)) => format!(" + {pid} {program}"),
        (Some(pid), None) => format!(" + {pid}"),
        (None, _) => format!(" + entry {}", reader.entry),
    };
    let held = match reader.quota {
        Some(quota) => format!("{}/{quota}", reader.holds),
        None => reader.holds.to_string(),
    };
    let colour = if reader.state == "reading" {
        Colour::Good
    } else {
        Colour::Bad
    };
    vec![
        Cell::new(name),
        number(reader.fps),
        Cell::new("-"),
        Cell::new("-"),
        number(reader.bytes_per_second.map(|bytes| bytes / 1e6)),
        Cell::optional(reader.behind),
        Cell::new(held),
        number(reader.cpu_percent),
        Cell::coloured(reader.state, colour),
    ]
}

fn csv(output: &mut Output, time: f64, sample: &Sample) -> Result<(), Failure> {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    fn rate(value: Option<f64>) -> String {
        value.map(|value| format!("{value:.3}")).unwrap_or_default()
    }
    let time = format!("{time:.3}");
    output.csv(&[
        time.clone(),
        sample.channel.clone(),
        String::new(),
        text(sample.pid),
        text(sample.program.as_ref()),
        sample.state.to_owned(),
        rate(sample.fps),
        rate(sample.bytes_per_second),
        String::new(),
        text(sample.slots_held),
        rate(sample.cpu_percent),
    ])?;
    sample.readers.iter().try_for_each(|reader| {
        output.csv(&[
            time.clone(),
            sample.channel.clone(),
            reader.entry.to_string(),
            text(reader.pid),
            text(reader.program.as_ref()),
            reader.state.to_owned(),
            rate(reader.fps),
            rate(reader.bytes_per_second),
            text(reader.behind),
            reader.holds.to_string(),
            rate(reader.cpu_percent),
        ])
    })
}
