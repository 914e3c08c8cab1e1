//! What was measured, as it is kept in report.json.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    case::Case,
    consume::Consumed,
    machine::Machine,
    pace::Usage,
    produce::{Counts, Produced},
    statistics::{Spread, quantile, sorted},
    transport::Transport,
};

pub const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
pub struct Report {
    /// Of the report's form.
    pub version: u32,
    pub machine: Machine,
    pub rounds: u32,
    /// Ways that there were no elements for.
    pub skipped: Vec<Skipped>,
    /// Runs that do not count.
    pub failures: Vec<Failure>,
    /// Runs of peers that failed, and went well when they were tried again.
    pub repeated: Vec<Failure>,
    pub results: Vec<Measured>,
}

#[derive(Serialize, Deserialize)]
pub struct Skipped {
    pub transport: Transport,
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
pub struct Failure {
    pub transport: Transport,
    pub case: Case,
    pub round: u32,
    pub reason: String,
}

/// One way in one case.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    pub transport: Transport,
    pub case: Case,
    pub figures: Figures,
    pub runs: Vec<Run>,
}

/// By name; figures.rs has the names.
pub type Figures = BTreeMap<String, Spread>;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub round: u32,
    pub frames: u64,
    /// Frames that a reader has not got, of all readers.
    pub missed: u64,
    pub frames_per_second: Option<f64>,
    pub latency: Option<Latency>,
    /// Of one frame.
    pub writer: Usage,
    /// Of one frame in one reader, the mean of all.
    pub reader: Option<Usage>,
    /// The processor time of the wake or the copy alone, of one frame.
    pub core_us: Option<f64>,
    pub writer_counts: Counts,
    pub reader_counts: Vec<Counts>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// At 0, 0.5 and so on to 100 %.
    pub quantiles_us: Vec<f64>,
}

const QUANTILES: u32 = 200;

impl Latency {
    fn of(latencies_ns: impl IntoIterator<Item = u64>) -> Option<Self> {
        let sorted = sorted(latencies_ns.into_iter().map(|ns| ns as f64 / 1e3));
        let at = |share| quantile(&sorted, share);
        let quantiles = (0..=QUANTILES).map(|step| at(f64::from(step) / f64::from(QUANTILES)));
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
    pub fn new(round: u32, frames: u64, produced: Produced, consumed: Vec<Consumed>) -> Self {
        let count = consumed.len() as f64;
        let mean = |part: fn(&Consumed) -> f64| consumed.iter().map(part).sum::<f64>() / count;
        let reader = (!consumed.is_empty()).then(|| Usage {
            cpu_us: mean(|consumed| consumed.usage.cpu_us),
            page_faults: mean(|consumed| consumed.usage.page_faults),
            context_switches: mean(|consumed| consumed.usage.context_switches),
        });
        let frames_per_second = (!consumed.is_empty()).then(|| {
            mean(|consumed| consumed.latencies_ns.len().saturating_sub(1) as f64 * 1e9 / consumed.span_ns.max(1) as f64)
        });
        Self {
            round,
            frames,
            missed: consumed.iter().map(|consumed| consumed.missed).sum(),
            frames_per_second,
            latency: Latency::of(
                consumed
                    .iter()
                    .flat_map(|consumed| consumed.latencies_ns.iter().copied()),
            ),
            writer: produced.usage,
            reader,
            core_us: produced.core_us,
            writer_counts: produced.counts,
            reader_counts: consumed.into_iter().map(|consumed| consumed.counts).collect(),
        }
    }
}

impl Report {
    /// Adds a run to its way and case.
    pub fn add(&mut self, transport: Transport, case: Case, run: Run) {
        let known = self
            .results
            .iter_mut()
            .find(|measured| measured.transport == transport && measured.case == case);
        match known {
            Some(measured) => measured.runs.push(run),
            None => self.results.push(Measured {
                transport,
                case,
                figures: Figures::new(),
                runs: vec![run],
            }),
        }
    }

    /// The cases, each once, in the order in which they were measured.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for measured in &self.results {
            if !cases.contains(&measured.case) {
                cases.push(measured.case);
            }
        }
        cases
    }

    pub fn load(path: &Path) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let report: Self = serde_json::from_str(&text).map_err(|error| named(&error))?;
        if report.version == VERSION {
            Ok(report)
        } else {
            Err(named(&"a report of another version"))
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
    fn a_run_is_the_mean_of_its_readers_and_the_latency_of_all() {
        let reader = |cpu_us, latencies_ns: Vec<u64>, missed| Consumed {
            usage: Usage {
                cpu_us,
                ..Usage::default()
            },
            missed,
            span_ns: 1_000_000_000,
            latencies_ns,
            counts: Counts::new(),
        };
        let consumed = vec![
            reader(10.0, vec![1000, 3000, 2000], 0),
            reader(30.0, vec![5000, 4000], 1),
        ];
        let run = Run::new(0, 3, Produced::default(), consumed);
        let latency = run.latency.unwrap();
        assert_eq!(
            (latency.p50_us, latency.max_us, latency.quantiles_us.len()),
            (3.0, 5.0, 201)
        );
        assert_eq!((run.reader.unwrap().cpu_us, run.missed), (20.0, 1));
        assert_eq!(run.frames_per_second, Some(1.5));
    }
}
