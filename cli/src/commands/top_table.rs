// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of `rsshm top`: its order, and its rows of text and of CSV.

use clap::ValueEnum;

use super::top_sample::{ReaderSample, Sample};
use crate::{
    failure::Failure,
    output::{Cell, Colour, Column, Output},
    units,
};

pub(super) const COLUMNS: [Column; 10] = [
    Column::Left("CHANNEL / reader"),
    Column::Right("FPS"),
    Column::Right("AGE"),
    Column::Right("JITTER"),
    Column::Right("MB/s"),
    Column::Right("MISSED/s"),
    Column::Right("BEHIND"),
    Column::Right("HELD"),
    Column::Right("CPU%"),
    Column::Left("STATE"),
];

/// The fields of CSV: a line for each channel, and one for each reader.
pub(super) const FIELDS: [&str; 12] = [
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
    "missed_per_second",
];

/// The order of the channels, and of the readers of each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// By name, and readers by their entry.
    Name,
    /// The most frames a second first.
    Fps,
    /// The most bytes a second first.
    Bw,
    /// The most readers first.
    Readers,
    /// What is farthest behind first.
    Behind,
    /// What misses the most frames a second first.
    Missed,
    /// The most computing time first.
    Cpu,
}

impl Order {
    /// The order after this one.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let index = all.iter().position(|known| *known == self).unwrap_or(0);
        all[(index + 1) % all.len()]
    }

    /// The order that a key chooses.
    pub(super) fn of_key(key: char) -> Option<Self> {
        Some(match key {
            'n' => Self::Name,
            'f' => Self::Fps,
            'w' => Self::Bw,
            'r' => Self::Readers,
            'b' => Self::Behind,
            'm' => Self::Missed,
            'c' => Self::Cpu,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Fps => "fps",
            Self::Bw => "bw",
            Self::Readers => "readers",
            Self::Behind => "behind",
            Self::Missed => "missed",
            Self::Cpu => "cpu",
        }
    }

    fn of_reader(self, reader: &ReaderSample) -> f64 {
        match self {
            Self::Name | Self::Readers => None,
            Self::Fps => reader.fps,
            Self::Bw => reader.bytes_per_second,
            Self::Behind => reader.behind.map(|behind| behind as f64),
            Self::Missed => reader.missed_per_second,
            Self::Cpu => reader.cpu_percent,
        }
        .unwrap_or(-1.0)
    }

    fn of_channel(self, sample: &Sample) -> f64 {
        let largest = |order: Self| {
            let values = sample.readers.iter().map(|reader| order.of_reader(reader));
            values.max_by(f64::total_cmp)
        };
        match self {
            Self::Name => None,
            Self::Fps => sample.fps,
            Self::Bw => sample.bytes_per_second,
            Self::Readers => Some(sample.readers.len() as f64),
            Self::Behind | Self::Missed => largest(self),
            Self::Cpu => sample.cpu_percent,
        }
        .unwrap_or(-1.0)
    }

    /// Sorts the channels, and the readers of each.
    pub(super) fn sort(self, samples: &mut [Sample]) {
        for sample in samples.iter_mut() {
            let value = |reader: &ReaderSample| self.of_reader(reader);
            sample.readers.sort_by(|one, other| {
                value(other)
                    .total_cmp(&value(one))
                    .then_with(|| one.entry.cmp(&other.entry))
            });
        }
        samples.sort_by(|one, other| {
            self.of_channel(other)
                .total_cmp(&self.of_channel(one))
                .then_with(|| one.channel.cmp(&other.channel))
        });
    }
}

/// The line above the table.
pub(super) fn head(samples: &[Sample], order: Order) -> String {
    let readers: usize = samples.iter().map(|sample| sample.readers.len()).sum();
    let alive = samples.iter().filter(|sample| sample.pid.is_some()).count();
    // The sum of no numbers would be -0.0.
    let bandwidths = samples.iter().filter_map(|sample| sample.bytes_per_second);
    let bandwidth = bandwidths.fold(0.0, |sum, bandwidth| sum + bandwidth);
    format!(
        "{} channels, {alive} with a writer, {readers} readers, {:.1} MB/s; order: {}",
        samples.len(),
        bandwidth / 1e6,
        order.name()
    )
}

/// The rows of all channels and readers.
pub(super) fn rows(samples: &[Sample]) -> Vec<Vec<Cell>> {
    samples
        .iter()
        .flat_map(|sample| std::iter::once(row(sample)).chain(sample.readers.iter().map(reader_row)))
        .collect()
}

fn number(value: Option<f64>) -> Cell {
    Cell::optional(value.map(|value| format!("{value:.1}")))
}

/// The colour of a channel's state, as in `rsshm list`.
fn channel_colour(state: &str) -> Colour {
    match state {
        "alive" | "idle" => Colour::Good,
        "no-format" => Colour::Warning,
        _ => Colour::Bad,
    }
}

fn row(sample: &Sample) -> Vec<Cell> {
    let megabytes = sample.bytes_per_second.map(|bytes| bytes / 1e6);
    let held = sample
        .slots_held
        .zip(sample.slots)
        .map(|(held, slots)| format!("{held}/{slots}"));
    vec![
        Cell::new(&*sample.channel),
        number(sample.fps),
        Cell::optional(sample.age_ns.map(units::duration)),
        Cell::optional(sample.jitter_ns.map(units::duration)),
        number(megabytes),
        Cell::new("-"),
        Cell::new("-"),
        Cell::optional(held),
        number(sample.cpu_percent),
        Cell::coloured(sample.state, channel_colour(sample.state)),
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
    let colour = match reader.state {
        "reading" | "latest" => Colour::Good,
        "new" | "joining" => Colour::Warning,
        _ => Colour::Bad,
    };
    let is_losing = reader.state != "latest" && reader.missed_per_second.is_some_and(|rate| rate > 0.0);
    let mut missed = number(reader.missed_per_second);
    if is_losing {
        missed = missed.in_colour(Colour::Bad);
    }
    vec![
        Cell::new(name),
        number(reader.fps),
        Cell::new("-"),
        Cell::new("-"),
        number(reader.bytes_per_second.map(|bytes| bytes / 1e6)),
        missed,
        Cell::optional(reader.behind),
        Cell::new(held),
        number(reader.cpu_percent),
        Cell::coloured(reader.state, colour),
    ]
}

/// Prints the lines of CSV of a channel and its readers.
pub(super) fn csv(output: &mut Output, time: f64, sample: &Sample) -> Result<(), Failure> {
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
        String::new(),
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
            rate(reader.missed_per_second),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::State;

    #[test]
    fn orders_have_keys_and_names() {
        let chosen: Vec<_> = "nfwrbmc".chars().filter_map(Order::of_key).collect();
        assert_eq!(chosen, Order::value_variants());
        for key in ['q', 's', 'j', 'k', ' '] {
            assert_eq!(Order::of_key(key), None, "{key} has another meaning");
        }
        for order in Order::value_variants() {
            assert_eq!(order.to_possible_value().unwrap().get_name(), order.name());
        }
    }

    #[test]
    fn closed_camera_is_no_fault() {
        assert_eq!(channel_colour(State::Alive.name()), Colour::Good);
        assert_eq!(channel_colour(State::Idle.name()), Colour::Good);
        assert_eq!(channel_colour(State::NoFormat.name()), Colour::Warning);
        assert_eq!(channel_colour(State::Damaged.name()), Colour::Bad);
    }
}
