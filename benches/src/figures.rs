// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calculates figures from runs. Each figure is calculated for each round, and the result is the median over the
//! rounds.

use crate::{
    calls::Calls,
    case::Case,
    report::{Figures, Measurement, Report, Run},
    results::Counts,
    run::Start,
    statistics::{Spread, quantile, ratio, sorted},
    transport::Transport,
};

pub const LATENCY_P50: &str = "latency_p50_us";
pub const LATENCY_P99: &str = "latency_p99_us";
pub const RATE: &str = "frames_per_second";
pub const MISSED: &str = "missed";
pub const WRITER: &str = "writer_cpu_us";
pub const READER: &str = "reader_cpu_us";
/// CPU of the writer minus the CPU of a writer into fakesink. A limit has the CPU of its wake or its copy instead.
pub const WRITER_OVER: &str = "writer_cpu_over_fakesink_us";
/// [`WRITER_OVER`] plus the CPU of one reader.
pub const BOTH_OVER: &str = "both_cpu_over_fakesink_us";
pub const WRITER_FAULTS: &str = "writer_page_faults";
pub const READER_FAULTS: &str = "reader_page_faults";
pub const WRITER_SWITCHES: &str = "writer_context_switches";
pub const READER_SWITCHES: &str = "reader_context_switches";
/// Number of slots that rsshmsink has after the last frame that counts.
pub const SLOTS: &str = "slots";
/// Frames that rsshmsink has copied, divided by those that it has published.
pub const WRITER_COPIED: &str = "writer_copied_share";
/// Frames that the readers have copied, divided by those that they have received.
pub const READER_COPIED: &str = "reader_copied_share";
pub const LATENCY_TO_FUTEX: &str = "latency_to_futex";
pub const LATENCY_TO_SHM: &str = "latency_to_shm";
pub const BOTH_TO_SHM: &str = "both_cpu_over_fakesink_to_shm";
pub const RATE_TO_SHM: &str = "frames_per_second_to_shm";
/// CPU of the writer's whole process, divided by the CPU of the whole producer process of the transport `futex`.
pub const WRITER_TO_FUTEX: &str = "writer_cpu_to_futex";
/// [`WRITER_OVER`], divided by the CPU of the wake alone in the transport `futex`.
pub const OVER_TO_FUTEX: &str = "writer_cpu_over_fakesink_to_futex";
/// [`WRITER_OVER`], divided by the CPU of the copy alone in the transport `memcpy`.
pub const OVER_TO_MEMCPY: &str = "writer_cpu_over_fakesink_to_memcpy";

/// CPU of the writer over fakesink plus the CPU of one reader, divided by the same for `unixfd`.
pub const BOTH_TO_UNIXFD: &str = "both_cpu_over_fakesink_to_unixfd";
pub const LATENCY_TO_UNIXFD: &str = "latency_to_unixfd";
/// System calls per frame: of the writer, minus those of a writer into fakesink; and of a reader, as the mean of all.
pub const WRITER_CALLS_OVER: &str = "writer_calls_over_fakesink";
pub const READER_CALLS: &str = "reader_calls";

/// Median and greatest time in milliseconds from the start of a reader's process to its first frame.
pub const START: &str = "start_ms";
pub const START_MAX: &str = "start_max_ms";
/// Median and greatest time in milliseconds from the push of a reader's first frame to its arrival.
pub const FIRST: &str = "first_frame_ms";
pub const FIRST_MAX: &str = "first_frame_max_ms";
/// The memory of all processes, in MiB.
pub const SHARED: &str = "shared_mib";
pub const PSS: &str = "pss_mib";
/// CPU of the writer and of a reader, divided by their CPU in the same case without the command line tools.
pub const WRITER_TO_ALONE: &str = "writer_cpu_to_without_tools";
pub const READER_TO_ALONE: &str = "reader_cpu_to_without_tools";

/// Calculates the figures of all results.
pub fn calculate(report: &mut Report) {
    let figures: Vec<Figures> = report
        .results
        .iter()
        .map(|measurement| figures(report, measurement))
        .collect();
    for (measurement, figures) in report.results.iter_mut().zip(figures) {
        measurement.figures = figures;
    }
}

/// The figures of one transport in one case.
fn figures(report: &Report, measurement: &Measurement) -> Figures {
    let rounds: Vec<_> = measurement
        .runs
        .iter()
        .map(|run| round_figures(report, measurement, run))
        .collect();
    let mut figures = Figures::new();
    for name in rounds.iter().flatten().map(|(name, _)| *name) {
        let values = rounds
            .iter()
            .flatten()
            .filter(|(other, _)| *other == name)
            .map(|(_, value)| *value);
        if let Some(spread) = Spread::of(values) {
            figures.insert(name.to_owned(), spread);
        }
    }
    figures
}

/// Finds the other runs in the round of a run.
struct Round<'a> {
    report: &'a Report,
    number: u32,
    case: Case,
}

impl<'a> Round<'a> {
    fn find(&self, transport: Transport, is_case: impl Fn(Case) -> bool) -> Option<&'a Run> {
        let measurement = self
            .report
            .results
            .iter()
            .find(|other| other.transport == transport && is_case(other.case))?;
        measurement.runs.iter().find(|run| run.round == self.number)
    }

    /// The run of another transport in the same case.
    fn run_of(&self, transport: Transport) -> Option<&'a Run> {
        self.find(transport, |case| case == self.case)
    }

    /// The run of the transport `futex`. Its size and mode may differ from the case, because a wake carries no frame
    /// data.
    fn futex(&self) -> Option<&'a Run> {
        self.find(Transport::Futex, |case| {
            (case.rate, case.readers, case.reading) == (self.case.rate, self.case.readers, self.case.reading)
        })
    }

    /// The run of `transport` in the same case without the command line tools, if the case has them.
    fn without_tools(&self, transport: Transport) -> Option<&'a Run> {
        let alone = Case {
            tools: false,
            ..self.case
        };
        self.case
            .tools
            .then(|| self.find(transport, |case| case == alone))
            .flatten()
    }

    fn writer_over(&self, run: &Run) -> Option<f64> {
        let base = self.run_of(Transport::Fakesink)?;
        run.core_us.or(Some(run.writer.cpu_us - base.writer.cpu_us))
    }

    /// The system calls of the writer per frame, minus those of a writer into fakesink.
    fn writer_calls_over(&self, run: &Run) -> Option<f64> {
        let of_writer = |run: &Run| Some(total(run.calls.first()?));
        Some(of_writer(run)? - of_writer(self.run_of(Transport::Fakesink)?)?)
    }

    fn both_over(&self, run: &Run) -> Option<f64> {
        Some(self.writer_over(run)? + run.reader?.cpu_us)
    }
}

/// The number of all calls.
fn total(calls: &Calls) -> f64 {
    calls.values().sum()
}

/// The system calls of a reader per frame: the mean of all readers.
fn reader_calls(run: &Run) -> Option<f64> {
    let readers = run.calls.get(1..)?;
    ratio(readers.iter().map(total).sum(), readers.len() as f64)
}

/// The figures of one run. Figures whose reference is missing are left out.
fn round_figures(report: &Report, measurement: &Measurement, run: &Run) -> Vec<(&'static str, f64)> {
    let round = Round {
        report,
        number: run.round,
        case: measurement.case,
    };
    let mut figures = writer_figures(run);
    if measurement.transport != Transport::Fakesink {
        figures.extend(transport_figures(&round, run));
        if !measurement.transport.is_bare() {
            figures.extend(ratios(&round, measurement.transport, run));
        }
    }
    figures
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

type OptionalFigures = Vec<(&'static str, Option<f64>)>;

/// The ratio of two figures, if both exist.
fn ratio_of(value: Option<f64>, reference: Option<f64>) -> Option<f64> {
    ratio(value?, reference?)
}

fn median_latency(run: &Run) -> Option<f64> {
    run.latency.as_ref().map(|latency| latency.p50_us)
}

/// The usage of the writer's process, and the counts of the elements.
fn writer_figures(run: &Run) -> OptionalFigures {
    let sum = |counts: &[Counts], name: &str| -> Option<f64> {
        counts
            .iter()
            .map(|counts| counts.get(name).map(|count| *count as f64))
            .sum()
    };
    let copied_share = |counts: &[Counts], of: &str| ratio_of(sum(counts, "frames-copied"), sum(counts, of));
    let writer_counts = std::slice::from_ref(&run.writer_counts);
    vec![
        (WRITER, Some(run.writer.cpu_us)),
        (WRITER_FAULTS, Some(run.writer.page_faults)),
        (WRITER_SWITCHES, Some(run.writer.context_switches)),
        (SLOTS, sum(writer_counts, "slots")),
        (WRITER_COPIED, copied_share(writer_counts, "frames-published")),
        (READER_COPIED, copied_share(&run.reader_counts, "frames-received")),
    ]
}

/// The figures that every transport except fakesink has. fakesink is the base that `writer_over` subtracts.
fn transport_figures(round: &Round, run: &Run) -> OptionalFigures {
    vec![
        (WRITER_OVER, round.writer_over(run)),
        (BOTH_OVER, round.both_over(run)),
        (LATENCY_P50, median_latency(run)),
        (LATENCY_P99, run.latency.as_ref().map(|latency| latency.p99_us)),
        (RATE, run.frames_per_second),
        (READER, run.reader.map(|reader| reader.cpu_us)),
        (READER_FAULTS, run.reader.map(|reader| reader.page_faults)),
        (READER_SWITCHES, run.reader.map(|reader| reader.context_switches)),
        (WRITER_CALLS_OVER, round.writer_calls_over(run)),
        (READER_CALLS, reader_calls(run)),
        (MISSED, run.reader.map(|_| run.missed as f64)),
        (START, start(run, 0.5, |start| start.process_ms)),
        (START_MAX, start(run, 1.0, |start| start.process_ms)),
        (FIRST, start(run, 0.5, |start| start.frame_ms)),
        (FIRST_MAX, start(run, 1.0, |start| start.frame_ms)),
        (SHARED, run.memory.map(|memory| mebibytes(memory.shared_bytes))),
        (PSS, run.memory.map(|memory| mebibytes(memory.pss_bytes))),
    ]
}

/// The quantile at `share` of a time over all readers.
fn start(run: &Run, share: f64, time: fn(&Start) -> f64) -> Option<f64> {
    quantile(&sorted(run.starts.iter().map(time)), share)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The ratios of a run to the runs of shm and of the limits.
fn ratios(round: &Round, transport: Transport, run: &Run) -> OptionalFigures {
    let (shm, futex, memcpy) = (
        round.run_of(Transport::Shm),
        round.futex(),
        round.run_of(Transport::Memcpy),
    );
    let unixfd = round.run_of(Transport::Unixfd);
    let alone = round.without_tools(transport);
    let over = round.writer_over(run);
    vec![
        (
            WRITER_TO_ALONE,
            ratio_of(Some(run.writer.cpu_us), alone.map(|alone| alone.writer.cpu_us)),
        ),
        (
            READER_TO_ALONE,
            ratio_of(
                run.reader.map(|reader| reader.cpu_us),
                alone.and_then(|alone| alone.reader).map(|reader| reader.cpu_us),
            ),
        ),
        (
            LATENCY_TO_FUTEX,
            ratio_of(median_latency(run), futex.and_then(median_latency)),
        ),
        (
            LATENCY_TO_SHM,
            ratio_of(median_latency(run), shm.and_then(median_latency)),
        ),
        (
            BOTH_TO_SHM,
            ratio_of(round.both_over(run), shm.and_then(|shm| round.both_over(shm))),
        ),
        (
            LATENCY_TO_UNIXFD,
            ratio_of(median_latency(run), unixfd.and_then(median_latency)),
        ),
        (
            BOTH_TO_UNIXFD,
            ratio_of(round.both_over(run), unixfd.and_then(|unixfd| round.both_over(unixfd))),
        ),
        (
            RATE_TO_SHM,
            ratio_of(run.frames_per_second, shm.and_then(|shm| shm.frames_per_second)),
        ),
        (
            WRITER_TO_FUTEX,
            ratio_of(Some(run.writer.cpu_us), futex.map(|futex| futex.writer.cpu_us)),
        ),
        (OVER_TO_FUTEX, ratio_of(over, futex.and_then(|futex| futex.core_us))),
        (OVER_TO_MEMCPY, ratio_of(over, memcpy.and_then(|memcpy| memcpy.core_us))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Mode, machine::Machine, pace::Usage, report::REPORT_VERSION};

    fn run(round: u32, writer_us: f64, reader_us: Option<f64>, core_us: Option<f64>) -> Run {
        let usage = |cpu_us| Usage {
            cpu_us,
            ..Usage::default()
        };
        Run {
            round,
            writer: usage(writer_us),
            reader: reader_us.map(usage),
            core_us,
            ..Run::default()
        }
    }

    fn report(runs: impl IntoIterator<Item = (Transport, Case, Run)>) -> Report {
        let mut report = Report {
            version: REPORT_VERSION,
            machine: Machine::default(),
            rounds: 3,
            skipped: Vec::new(),
            failures: Vec::new(),
            repeated: Vec::new(),
            results: Vec::new(),
            bursts: Vec::new(),
        };
        for (transport, case, run) in runs {
            report.add(transport, case, run);
        }
        calculate(&mut report);
        report
    }

    fn figures_of(report: &Report, transport: Transport) -> &Figures {
        let measurement = report.results.iter().find(|other| other.transport == transport);
        &measurement.unwrap().figures
    }

    #[test]
    fn ratio_is_calculated_within_a_round_before_the_median() {
        let case = Case::USUAL;
        // In the second round the machine is half as fast, and in the third a quarter as fast.
        let report = report((0..3).flat_map(|round| {
            let slow = f64::from(1 << round);
            [
                (Transport::Fakesink, case, run(round, 10.0 * slow, None, None)),
                (Transport::Shm, case, run(round, 40.0 * slow, Some(10.0 * slow), None)),
                (Transport::Rsshm, case, run(round, 20.0 * slow, Some(10.0 * slow), None)),
            ]
        }));
        let rsshm = figures_of(&report, Transport::Rsshm);
        assert_eq!(rsshm[BOTH_OVER].median, 40.0);
        assert_eq!(rsshm[BOTH_TO_SHM], Spread::of([0.5]).unwrap());
    }

    #[test]
    fn cpu_over_fakesink_is_relative_to_the_wake_alone() {
        let many = Case {
            readers: 16,
            ..Case::USUAL
        };
        let report = report([
            (Transport::Fakesink, many, run(0, 10.0, None, None)),
            (Transport::Futex, many, run(0, 50.0, Some(5.0), Some(20.0))),
            (Transport::Rsshm, many, run(0, 40.0, Some(5.0), None)),
        ]);
        let rsshm = figures_of(&report, Transport::Rsshm);
        assert_eq!(rsshm[WRITER_OVER].median, 30.0);
        assert_eq!(rsshm[OVER_TO_FUTEX].median, 1.5);
        assert_eq!(rsshm[WRITER_TO_FUTEX].median, 0.8);
    }

    #[test]
    fn cost_of_the_tools_is_relative_to_the_same_round() {
        let with_tools = Case {
            tools: true,
            ..Case::USUAL
        };
        let report = report([
            (Transport::Rsshm, Case::USUAL, run(0, 40.0, Some(20.0), None)),
            (Transport::Rsshm, with_tools, run(0, 44.0, Some(25.0), None)),
        ]);
        assert!(!report.results[0].figures.contains_key(WRITER_TO_ALONE));
        let figures = &report.results[1].figures;
        assert_eq!(figures[WRITER_TO_ALONE].median, 1.1);
        assert_eq!(figures[READER_TO_ALONE].median, 1.25);
    }

    #[test]
    fn calls_of_fakesink_are_subtracted() {
        let with_calls = |counts: &[f64]| Run {
            calls: counts
                .iter()
                .map(|count| Calls::from([("futex".to_owned(), *count), ("poll".to_owned(), 1.0)]))
                .collect(),
            ..run(0, 40.0, Some(5.0), None)
        };
        let report = report([
            (Transport::Fakesink, Case::USUAL, with_calls(&[2.0])),
            (Transport::Unixfd, Case::USUAL, with_calls(&[7.0, 3.0, 5.0])),
        ]);
        let unixfd = figures_of(&report, Transport::Unixfd);
        assert_eq!(unixfd[WRITER_CALLS_OVER].median, 5.0);
        assert_eq!(unixfd[READER_CALLS].median, 5.0);
        assert!(!figures_of(&report, Transport::Fakesink).contains_key(READER_CALLS));
    }

    #[test]
    fn missing_reference_gives_no_figure() {
        let foreign = Case {
            mode: Mode::Foreign,
            ..Case::USUAL
        };
        let report = report([
            (Transport::Fakesink, Case::USUAL, run(0, 10.0, None, None)),
            (Transport::Rsshm, foreign, run(0, 40.0, Some(5.0), None)),
        ]);
        let rsshm = figures_of(&report, Transport::Rsshm);
        assert!(!rsshm.contains_key(WRITER_OVER) && !rsshm.contains_key(BOTH_TO_SHM));
        assert_eq!(rsshm[WRITER].median, 40.0);
    }
}
