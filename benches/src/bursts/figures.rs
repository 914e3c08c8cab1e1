// SPDX-License-Identifier: MIT OR Apache-2.0

//! The results of bursts, and the figures that are calculated from them. As for frames, a figure is calculated within
//! each round, and the result is the median over the rounds.

use serde::{Deserialize, Serialize};

use super::BurstCase;
use crate::{
    consume::ConsumerResult,
    pace::Usage,
    report::Figures,
    results::Counts,
    statistics::{Spread, quantile, ratio, sorted},
    transport::Transport,
};

/// Buffers that did not arrive, summed over all readers.
pub const LOST: &str = "lost";
/// CPU per buffer of the writer's process.
pub const WRITER: &str = "writer_cpu_us";
/// [`WRITER`] minus the CPU of a writer into fakesink.
pub const WRITER_OVER: &str = "writer_cpu_over_fakesink_us";
/// CPU per received buffer of a reader's process: the mean over all readers.
pub const READER: &str = "reader_cpu_us";
/// [`WRITER_OVER`] plus [`READER`].
pub const BOTH_OVER: &str = "both_cpu_over_fakesink_us";
pub const WRITER_OVER_TO_SHM: &str = "writer_cpu_over_fakesink_to_shm";
pub const BOTH_TO_SHM: &str = "both_cpu_over_fakesink_to_shm";
/// The time from the first push of a burst until its last buffer has reached the slowest reader: the median of the
/// bursts.
pub const BURST_TIME: &str = "burst_ms";
pub const WRITER_SWITCHES: &str = "writer_context_switches";
pub const READER_SWITCHES: &str = "reader_context_switches";

/// The report of a producer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WriterReport {
    /// The usage per buffer, from just before the first push of a burst to the end of the pause after it.
    pub usage: Usage,
    /// When the first buffer of each burst was pushed.
    pub starts_ns: Vec<u64>,
    pub counts: Counts,
}

/// The report of a consumer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ReaderReport {
    /// The usage per received buffer.
    pub usage: Usage,
    pub lost: u64,
    /// When the last buffer of each burst arrived.
    pub ends_ns: Vec<u64>,
    pub counts: Counts,
}

impl ConsumerResult for ReaderReport {
    fn set_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }
}

/// The runs and the figures of one transport in one case.
#[derive(Serialize, Deserialize)]
pub struct BurstMeasurement {
    pub transport: Transport,
    pub case: BurstCase,
    pub figures: Figures,
    pub runs: Vec<BurstRun>,
}

/// The results of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BurstRun {
    pub round: u32,
    /// Buffers that did not arrive, summed over all readers.
    pub lost: u64,
    /// For each burst, the time until its last buffer has reached the slowest reader. Empty without readers.
    pub burst_ms: Vec<f64>,
    /// The writer's usage per buffer.
    pub writer: Usage,
    /// The readers' usage per received buffer: the mean over all readers.
    pub reader: Option<Usage>,
    pub writer_counts: Counts,
    pub reader_counts: Vec<Counts>,
}

impl BurstRun {
    pub fn new(round: u32, writer: WriterReport, readers: Vec<ReaderReport>) -> Self {
        let burst_ms = |(burst, start_ns): (usize, &u64)| {
            let end_ns = readers.iter().filter_map(|reader| reader.ends_ns.get(burst)).max()?;
            // The end is 0 if nothing of the burst arrived.
            Some(end_ns.checked_sub(*start_ns)? as f64 / 1e6)
        };
        Self {
            round,
            lost: readers.iter().map(|reader| reader.lost).sum(),
            burst_ms: writer.starts_ns.iter().enumerate().filter_map(burst_ms).collect(),
            writer: writer.usage,
            reader: Usage::mean(readers.iter().map(|reader| reader.usage)),
            writer_counts: writer.counts,
            reader_counts: readers.into_iter().map(|reader| reader.counts).collect(),
        }
    }
}

/// Adds a run to the measurement of its transport and case.
pub fn add(measurements: &mut Vec<BurstMeasurement>, transport: Transport, case: BurstCase, run: BurstRun) {
    let known = measurements
        .iter_mut()
        .find(|measurement| measurement.transport == transport && measurement.case == case);
    match known {
        Some(measurement) => measurement.runs.push(run),
        None => measurements.push(BurstMeasurement {
            transport,
            case,
            figures: Figures::new(),
            runs: vec![run],
        }),
    }
}

/// Calculates the figures of all measurements.
pub fn calculate(measurements: &mut [BurstMeasurement]) {
    let figures: Vec<Figures> = measurements
        .iter()
        .map(|measurement| figures(measurements, measurement))
        .collect();
    for (measurement, figures) in measurements.iter_mut().zip(figures) {
        measurement.figures = figures;
    }
}

fn figures(all: &[BurstMeasurement], measurement: &BurstMeasurement) -> Figures {
    let rounds: Vec<_> = measurement
        .runs
        .iter()
        .map(|run| round_figures(all, measurement, run))
        .collect();
    let mut figures = Figures::new();
    for name in rounds.iter().flatten().map(|(name, _)| *name) {
        let of_name = rounds.iter().flatten().filter(|(other, _)| *other == name);
        if let Some(spread) = Spread::of(of_name.filter_map(|(_, value)| *value)) {
            figures.insert(name.to_owned(), spread);
        }
    }
    figures
}

/// The figures of one run. `None` stands for a figure whose reference is missing.
fn round_figures(
    all: &[BurstMeasurement],
    measurement: &BurstMeasurement,
    run: &BurstRun,
) -> Vec<(&'static str, Option<f64>)> {
    let run_of = |transport| {
        let other = all
            .iter()
            .find(|other| other.transport == transport && other.case == measurement.case)?;
        other.runs.iter().find(|other| other.round == run.round)
    };
    let mut figures = vec![
        (WRITER, Some(run.writer.cpu_us)),
        (WRITER_SWITCHES, Some(run.writer.context_switches)),
    ];
    let Some(reader) = run.reader else {
        return figures;
    };
    let writer_over = |run: &BurstRun| Some(run.writer.cpu_us - run_of(Transport::Fakesink)?.writer.cpu_us);
    let both_over = |run: &BurstRun| Some(writer_over(run)? + run.reader?.cpu_us);
    let to_shm = |value: &dyn Fn(&BurstRun) -> Option<f64>| ratio(value(run)?, value(run_of(Transport::Shm)?)?);
    figures.extend([
        (LOST, Some(run.lost as f64)),
        (WRITER_OVER, writer_over(run)),
        (READER, Some(reader.cpu_us)),
        (BOTH_OVER, both_over(run)),
        (WRITER_OVER_TO_SHM, to_shm(&writer_over)),
        (BOTH_TO_SHM, to_shm(&both_over)),
        // The producer makes pauses within a burst for shmsink, so its time says nothing.
        (
            BURST_TIME,
            quantile(&sorted(run.burst_ms.iter().copied()), 0.5).filter(|_| measurement.transport != Transport::Shm),
        ),
        (READER_SWITCHES, Some(reader.context_switches)),
    ]);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bursts::Push;

    fn usage(cpu_us: f64) -> Usage {
        Usage {
            cpu_us,
            ..Usage::default()
        }
    }

    #[test]
    fn run_has_the_slowest_reader_of_each_burst_and_all_losses() {
        let writer = WriterReport {
            starts_ns: vec![1_000_000, 5_000_000],
            ..WriterReport::default()
        };
        let reader = |lost, ends_ns, cpu_us| ReaderReport {
            usage: usage(cpu_us),
            lost,
            ends_ns,
            ..ReaderReport::default()
        };
        let readers = vec![
            reader(1, vec![3_000_000, 6_000_000], 1.0),
            reader(2, vec![2_000_000, 0], 3.0),
        ];
        let run = BurstRun::new(0, writer, readers);
        assert_eq!(
            (run.lost, run.burst_ms, run.reader.unwrap().cpu_us),
            (3, vec![2.0, 1.0], 2.0)
        );
    }

    #[test]
    fn figures_are_relative_to_fakesink_and_shm_of_the_same_round() {
        let case = BurstCase {
            size: 188,
            push: Push::List,
            readers: 1,
            buffers: 2,
            bursts: 1,
            pause_ms: 0,
        };
        let mut measurements = Vec::new();
        for round in 0..3 {
            // In the second round the machine is half as fast, and in the third a quarter as fast.
            let slow = f64::from(1 << round);
            for (transport, writer, reader) in [
                (Transport::Fakesink, 1.0, None),
                (Transport::Shm, 5.0, Some(4.0)),
                (Transport::Rsshm, 2.0, Some(1.0)),
            ] {
                let run = BurstRun {
                    round,
                    writer: usage(writer * slow),
                    reader: reader.map(|reader| usage(reader * slow)),
                    ..BurstRun::default()
                };
                add(&mut measurements, transport, case, run);
            }
        }
        calculate(&mut measurements);
        let of = |transport| {
            &measurements
                .iter()
                .find(|other| other.transport == transport)
                .unwrap()
                .figures
        };
        let rsshm = of(Transport::Rsshm);
        assert_eq!((rsshm[WRITER_OVER].median, rsshm[BOTH_OVER].median), (2.0, 4.0));
        assert_eq!(rsshm[BOTH_TO_SHM], Spread::of([0.25]).unwrap());
        assert!(!of(Transport::Fakesink).contains_key(LOST));
    }
}
