//! From runs to figures: each is taken within a round, and then the median of the rounds.

use crate::{
    case::Case,
    produce::Counts,
    report::{Figures, Measured, Report, Run},
    statistics::{Spread, ratio},
    transport::Transport,
};

pub const LATENCY_P50: &str = "latency_p50_us";
pub const LATENCY_P99: &str = "latency_p99_us";
pub const RATE: &str = "frames_per_second";
pub const MISSED: &str = "missed";
pub const WRITER: &str = "writer_cpu_us";
pub const READER: &str = "reader_cpu_us";
/// The writer's above that of a writer into fakesink; of a limit, the wake or the copy alone.
pub const WRITER_OVER: &str = "writer_cpu_over_fakesink_us";
/// That and one reader's.
pub const BOTH_OVER: &str = "both_cpu_over_fakesink_us";
pub const WRITER_FAULTS: &str = "writer_page_faults";
pub const READER_FAULTS: &str = "reader_page_faults";
pub const WRITER_SWITCHES: &str = "writer_context_switches";
pub const READER_SWITCHES: &str = "reader_context_switches";
/// That rsshmsink has in the end.
pub const SLOTS: &str = "slots";
/// Of all frames that rsshmsink has published, and of those that readers have received.
pub const WRITER_COPIED: &str = "writer_copied_share";
pub const READER_COPIED: &str = "reader_copied_share";
pub const LATENCY_TO_FUTEX: &str = "latency_to_futex";
pub const LATENCY_TO_SHM: &str = "latency_to_shm";
pub const BOTH_TO_SHM: &str = "both_cpu_over_fakesink_to_shm";
pub const RATE_TO_SHM: &str = "frames_per_second_to_shm";
/// All of the writer's process to all of the futex's.
pub const WRITER_TO_FUTEX: &str = "writer_cpu_to_futex";
/// What the writer takes above fakesink to the wake alone.
pub const OVER_TO_FUTEX: &str = "writer_cpu_over_fakesink_to_futex";
/// The same to the copy alone.
pub const OVER_TO_MEMCPY: &str = "writer_cpu_over_fakesink_to_memcpy";

/// Works out the figures of all results.
pub fn fill_in(report: &mut Report) {
    let figures: Vec<Figures> = report
        .results
        .iter()
        .map(|measured| figures(report, measured))
        .collect();
    for (measured, figures) in report.results.iter_mut().zip(figures) {
        measured.figures = figures;
    }
}

fn figures(report: &Report, measured: &Measured) -> Figures {
    let rounds: Vec<_> = measured
        .runs
        .iter()
        .map(|run| of_round(report, measured, run))
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

/// What was measured of another way in the same round.
struct Beside<'a> {
    report: &'a Report,
    round: u32,
    case: Case,
}

impl<'a> Beside<'a> {
    fn run(&self, transport: Transport, is_case: impl Fn(Case) -> bool) -> Option<&'a Run> {
        let measured = self
            .report
            .results
            .iter()
            .find(|other| other.transport == transport && is_case(other.case))?;
        measured.runs.iter().find(|run| run.round == self.round)
    }

    fn same(&self, transport: Transport) -> Option<&'a Run> {
        self.run(transport, |case| case == self.case)
    }

    /// The futex carries no frames: their size and memory are nothing to it.
    fn futex(&self) -> Option<&'a Run> {
        self.run(Transport::Futex, |case| {
            (case.rate, case.readers) == (self.case.rate, self.case.readers)
        })
    }

    fn writer_over(&self, run: &Run) -> Option<f64> {
        let base = self.same(Transport::Fakesink)?;
        run.core_us.or(Some(run.writer.cpu_us - base.writer.cpu_us))
    }

    fn both_over(&self, run: &Run) -> Option<f64> {
        Some(self.writer_over(run)? + run.reader?.cpu_us)
    }
}

fn of_round(report: &Report, measured: &Measured, run: &Run) -> Vec<(&'static str, f64)> {
    let beside = Beside {
        report,
        round: run.round,
        case: measured.case,
    };
    let (shm, futex, memcpy) = (
        beside.same(Transport::Shm),
        beside.futex(),
        beside.same(Transport::Memcpy),
    );
    let p50 = |run: &Run| run.latency.as_ref().map(|latency| latency.p50_us);
    let to = |value: Option<f64>, reference: Option<f64>| ratio(value?, reference?);
    let mut figures: Vec<(&'static str, Option<f64>)> = vec![
        (WRITER, Some(run.writer.cpu_us)),
        (WRITER_FAULTS, Some(run.writer.page_faults)),
        (WRITER_SWITCHES, Some(run.writer.context_switches)),
    ];
    let sum = |counts: &[Counts], name: &str| -> Option<f64> {
        counts
            .iter()
            .map(|counts| counts.get(name).map(|count| *count as f64))
            .sum()
    };
    let share = |counts: &[Counts], of: &str| to(sum(counts, "frames-copied"), sum(counts, of));
    let writer_counts = std::slice::from_ref(&run.writer_counts);
    figures.extend([
        (SLOTS, sum(writer_counts, "slots")),
        (WRITER_COPIED, share(writer_counts, "frames-published")),
        (READER_COPIED, share(&run.reader_counts, "frames-received")),
    ]);
    if measured.transport != Transport::Fakesink {
        let over = beside.writer_over(run);
        figures.extend([
            (WRITER_OVER, over),
            (BOTH_OVER, beside.both_over(run)),
            (LATENCY_P50, p50(run)),
            (LATENCY_P99, run.latency.as_ref().map(|latency| latency.p99_us)),
            (RATE, run.frames_per_second),
            (READER, run.reader.map(|reader| reader.cpu_us)),
            (READER_FAULTS, run.reader.map(|reader| reader.page_faults)),
            (READER_SWITCHES, run.reader.map(|reader| reader.context_switches)),
            (MISSED, run.reader.map(|_| run.missed as f64)),
        ]);
        if !measured.transport.is_bare() {
            figures.extend([
                (LATENCY_TO_FUTEX, to(p50(run), futex.and_then(p50))),
                (LATENCY_TO_SHM, to(p50(run), shm.and_then(p50))),
                (
                    BOTH_TO_SHM,
                    to(beside.both_over(run), shm.and_then(|shm| beside.both_over(shm))),
                ),
                (
                    RATE_TO_SHM,
                    to(run.frames_per_second, shm.and_then(|shm| shm.frames_per_second)),
                ),
                (
                    WRITER_TO_FUTEX,
                    to(Some(run.writer.cpu_us), futex.map(|futex| futex.writer.cpu_us)),
                ),
                (OVER_TO_FUTEX, to(over, futex.and_then(|futex| futex.core_us))),
                (OVER_TO_MEMCPY, to(over, memcpy.and_then(|memcpy| memcpy.core_us))),
            ]);
        }
    }
    figures
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Mode, machine::Machine, pace::Usage, report::VERSION};

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
            version: VERSION,
            machine: Machine::default(),
            rounds: 3,
            skipped: Vec::new(),
            failures: Vec::new(),
            repeated: Vec::new(),
            results: Vec::new(),
        };
        for (transport, case, run) in runs {
            report.add(transport, case, run);
        }
        fill_in(&mut report);
        report
    }

    fn figures_of(report: &Report, transport: Transport) -> &Figures {
        let measured = report.results.iter().find(|measured| measured.transport == transport);
        &measured.unwrap().figures
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_and_then_the_median() {
        let case = Case::USUAL;
        // Twice as slow a machine in the second round, and four times in the third.
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
    fn the_wake_alone_is_compared_with_what_is_over_fakesink() {
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
    fn what_was_not_measured_beside_it_gives_no_figure() {
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
