// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report, which contains all measurements. It is saved as report.json.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    bursts::figures::BurstMeasurement,
    calls::Calls,
    case::Case,
    machine::Machine,
    memory::Memory,
    pace::Usage,
    results::{ConsumerReport, Counts, ProducerReport},
    run::{Reports, Start},
    statistics::{Spread, quantile, sorted},
    transport::Transport,
};

/// Version of the format of report.json.
pub const REPORT_VERSION: u32 = 3;

#[derive(Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    pub machine: Machine,
    pub rounds: u32,
    /// Transports that were not measured, because GStreamer lacks their elements.
    pub skipped: Vec<SkippedTransport>,
    /// Runs that failed at every attempt. No figure contains them.
    pub failures: Vec<Failure>,
    /// Failed runs of other projects' transports that succeeded at a later attempt.
    pub repeated: Vec<Failure>,
    pub results: Vec<Measurement>,
    pub bursts: Vec<BurstMeasurement>,
}

/// A transport that was not measured.
#[derive(Serialize, Deserialize)]
pub struct SkippedTransport {
    pub transport: Transport,
    pub reason: String,
}

/// A failed run.
#[derive(Serialize, Deserialize)]
pub struct Failure {
    pub transport: Transport,
    /// The case as text.
    pub case: String,
    pub round: u32,
    pub reason: String,
}

/// The runs and the figures of one transport in one case.
#[derive(Serialize, Deserialize)]
pub struct Measurement {
    pub transport: Transport,
    pub case: Case,
    pub figures: Figures,
    pub runs: Vec<Run>,
}

/// The figures by name. figures.rs defines the names, and bursts/figures.rs those of bursts.
pub type Figures = BTreeMap<String, Spread>;

/// The results of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub round: u32,
    pub frames: u64,
    /// The number of frames that did not reach a reader, summed over all readers.
    pub missed: u64,
    pub frames_per_second: Option<f64>,
    pub latency: Option<Latency>,
    /// The writer's usage per frame.
    pub writer: Usage,
    /// The readers' usage per frame: the mean over all readers.
    pub reader: Option<Usage>,
    /// For a limit: the CPU time per frame of its wake or its copy alone.
    pub core_us: Option<f64>,
    pub writer_counts: Counts,
    pub reader_counts: Vec<Counts>,
    /// The first frame of each reader.
    pub starts: Vec<Start>,
    pub memory: Option<Memory>,
    /// The system calls of the producer and then of each consumer, per frame. They are from a run of its own, because
    /// counting slows the processes down.
    #[serde(default)]
    pub calls: Vec<Calls>,
}

/// The distribution of the latencies, over the frames of all readers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// The quantiles at 0 %, 0.5 %, and so on up to 100 %.
    pub quantiles_us: Vec<f64>,
}

/// Number of steps from the quantile at 0 % to the quantile at 100 %.
const QUANTILE_STEPS: u32 = 200;

impl Latency {
    fn of(latencies_ns: impl IntoIterator<Item = u64>) -> Option<Self> {
        let sorted = sorted(latencies_ns.into_iter().map(|ns| ns as f64 / 1e3));
        let at = |share| quantile(&sorted, share);
        let quantiles = (0..=QUANTILE_STEPS).map(|step| at(f64::from(step) / f64::from(QUANTILE_STEPS)));
        Some(Self {
            p50_us: at(0.5)?,
            p90_us: at(0.9)?,
            p99_us: at(0.99)?,
            max_us: at(1.0)?,
            quantiles_us: quantiles.collect::<Option<_>>()?,
        })
    }
}

impl Run {
    pub fn new(round: u32, frames: u64, reports: Reports<ProducerReport, ConsumerReport>) -> Self {
        let Reports {
            producer,
            consumers,
            starts,
            memory,
            calls,
        } = reports;
        let count = consumers.len() as f64;
        let mean = |part: fn(&ConsumerReport) -> f64| consumers.iter().map(part).sum::<f64>() / count;
        let reader = Usage::mean(consumers.iter().map(|consumer| consumer.usage));
        let frames_per_second = (!consumers.is_empty()).then(|| {
            mean(|consumer| consumer.latencies_ns.len().saturating_sub(1) as f64 * 1e9 / consumer.span_ns.max(1) as f64)
        });
        Self {
            round,
            frames,
            missed: consumers.iter().map(|consumer| consumer.missed).sum(),
            frames_per_second,
            latency: Latency::of(
                consumers
                    .iter()
                    .flat_map(|consumer| consumer.latencies_ns.iter().copied()),
            ),
            writer: producer.usage,
            reader,
            core_us: producer.core_us,
            writer_counts: producer.counts,
            reader_counts: consumers.into_iter().map(|consumer| consumer.counts).collect(),
            starts,
            memory,
            calls,
        }
    }
}

impl Report {
    /// Adds a run to the measurement of its transport and case.
    pub fn add(&mut self, transport: Transport, case: Case, run: Run) {
        let known = self
            .results
            .iter_mut()
            .find(|measurement| measurement.transport == transport && measurement.case == case);
        match known {
            Some(measurement) => measurement.runs.push(run),
            None => self.results.push(Measurement {
                transport,
                case,
                figures: Figures::new(),
                runs: vec![run],
            }),
        }
    }

    /// The cases in the order in which they were measured. Each case occurs once.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for measurement in &self.results {
            if !cases.contains(&measurement.case) {
                cases.push(measurement.case);
            }
        }
        cases
    }

    pub fn load(path: &Path) -> Result<Self, String> {
        let with_path = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| with_path(&error))?;
        let report: Self = serde_json::from_str(&text).map_err(|error| with_path(&error))?;
        if report.version == REPORT_VERSION {
            Ok(report)
        } else {
            Err(with_path(&"the report has another version"))
        }
    }

    pub fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_has_the_mean_usage_and_all_latencies_of_its_readers() {
        let reader = |cpu_us, latencies_ns: Vec<u64>, missed| ConsumerReport {
            usage: Usage {
                cpu_us,
                ..Usage::default()
            },
            missed,
            span_ns: 1_000_000_000,
            latencies_ns,
            counts: Counts::new(),
        };
        let consumers = vec![
            reader(10.0, vec![1000, 3000, 2000], 0),
            reader(30.0, vec![5000, 4000], 1),
        ];
        let run = Run::new(
            0,
            3,
            Reports {
                producer: ProducerReport::default(),
                consumers,
                starts: Vec::new(),
                memory: None,
                calls: Vec::new(),
            },
        );
        let latency = run.latency.unwrap();
        assert_eq!(
            (latency.p50_us, latency.max_us, latency.quantiles_us.len()),
            (3.0, 5.0, 201)
        );
        assert_eq!((run.reader.unwrap().cpu_us, run.missed), (20.0, 1));
        assert_eq!(run.frames_per_second, Some(1.5));
    }
}
