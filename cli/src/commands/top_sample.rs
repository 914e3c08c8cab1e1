// SPDX-License-Identifier: MIT OR Apache-2.0

//! The numbers of `rsshm top`: two looks at a channel, and what happened between them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    failure::Failure,
    names,
    process::{Processes, cpu_time},
    report::{Reader, Report, State},
};

/// A channel between two looks. Its fields are the JSON, which docs/CLI.md describes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) channel: String,
    pub(super) state: &'static str,
    pub(super) pid: Option<u32>,
    pub(super) program: Option<String>,
    pub(super) fps: Option<f64>,
    pub(super) age_ns: Option<u64>,
    pub(super) jitter_ns: Option<u64>,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) slots_held: Option<u32>,
    pub(super) slots: Option<u32>,
    pub(super) cpu_percent: Option<f64>,
    pub(super) readers: Vec<ReaderSample>,
}

/// A reader between two looks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReaderSample {
    pub(super) entry: usize,
    pub(super) pid: Option<u32>,
    pub(super) program: Option<String>,
    pub(super) state: &'static str,
    pub(super) fps: Option<f64>,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) behind: Option<u64>,
    /// The frames that it has missed, and how many more a second.
    pub(super) missed: Option<u64>,
    pub(super) missed_per_second: Option<f64>,
    pub(super) holds: u32,
    pub(super) quota: Option<u32>,
    pub(super) cpu_percent: Option<f64>,
}

/// The counts of a reader.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// The frames that it has taken since it was created, but for a constant.
    taken: u64,
    missed: u64,
}

impl Counts {
    fn of(reader: &Reader) -> Option<Self> {
        Some(Self {
            // The reader counts a frame that it missed when its cursor passes the frame.
            taken: reader.cursor?.saturating_sub(reader.missed_by_own_count),
            missed: reader.missed?,
        })
    }
}

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    looked_at: Option<Instant>,
    /// The heads by channel, and the counts of readers by channel, entry and process.
    heads: HashMap<String, u64>,
    counts: HashMap<(String, usize, u32), Counts>,
    cpu_times: HashMap<u32, u64>,
}

impl Sampler {
    /// Looks at the channels that `patterns` name, or at all.
    pub(super) fn look(&mut self, patterns: &[String]) -> Result<Vec<Sample>, Failure> {
        let names = names::select_or_all(patterns)?;
        let mut processes = Processes::default();
        // A channel that is named and does not exist yet is shown as soon as it exists.
        let reports: Vec<Report> = names
            .iter()
            .filter_map(|name| Report::new(name, &mut processes).ok())
            .collect();
        let now = Instant::now();
        let elapsed = self.looked_at.replace(now).map(|former| now - former);
        let former = std::mem::take(&mut self.heads);
        let former_counts = std::mem::take(&mut self.counts);
        let former_cpu = std::mem::take(&mut self.cpu_times);
        for pid in reports.iter().flat_map(pids) {
            if let Some(time) = cpu_time(pid) {
                self.cpu_times.insert(pid, time);
            }
        }
        let cpu = |pid: Option<u32>| {
            let pid = pid?;
            let spent = self.cpu_times.get(&pid)?.checked_sub(*former_cpu.get(&pid)?)?;
            rate(spent, elapsed)
        };
        let mut samples = Vec::new();
        for report in &reports {
            let name = &report.channel;
            let head = report.head.unwrap_or(0);
            let fps = former
                .get(name)
                .and_then(|former| rate(head.checked_sub(*former)?, elapsed));
            let bandwidth = |fps: Option<f64>| Some(fps? * report.newest_bytes? as f64);
            let readers = report.readers.iter().map(|reader| {
                let key = (name.clone(), reader.entry, reader.pid.unwrap_or(0));
                let counts = Counts::of(reader);
                let both = former_counts.get(&key).zip(counts);
                let growth = |count: fn(&Counts) -> u64| {
                    let (former, counts) = both?;
                    rate(count(&counts).saturating_sub(count(former)), elapsed)
                };
                let fps = growth(|counts| counts.taken);
                let missed_per_second = growth(|counts| counts.missed);
                if let Some(counts) = counts {
                    self.counts.insert(key, counts);
                }
                let has_program = reader.program.is_some();
                ReaderSample {
                    entry: reader.entry,
                    pid: reader.pid,
                    program: reader.program.clone(),
                    state: reader_state(reader),
                    fps,
                    bytes_per_second: bandwidth(fps),
                    behind: reader.behind,
                    missed: reader.missed,
                    missed_per_second,
                    holds: reader.holds,
                    quota: reader.quota,
                    cpu_percent: cpu(reader.pid.filter(|_| has_program)),
                }
            });
            let readers = readers.collect();
            let writer = report.writer.as_ref().filter(|writer| writer.alive);
            let is_visible = writer.is_some_and(|writer| writer.program.is_some());
            samples.push(Sample {
                channel: name.clone(),
                state: channel_state(report),
                pid: writer.map(|writer| writer.pid),
                program: writer.and_then(|writer| writer.program.clone()),
                fps,
                age_ns: report.newest_age_ns,
                jitter_ns: report.jitter_ns,
                bytes_per_second: bandwidth(fps),
                slots_held: report.memory.as_ref().map(|memory| memory.slots_held),
                slots: report.memory.as_ref().map(|memory| memory.slots_with_memory),
                cpu_percent: cpu(writer.map(|writer| writer.pid).filter(|_| is_visible)),
                readers,
            });
            self.heads.insert(name.clone(), head);
        }
        Ok(samples)
    }
}

/// The processes whose times matter.
fn pids(report: &Report) -> impl Iterator<Item = u32> {
    let writer = report
        .writer
        .as_ref()
        .filter(|writer| writer.alive && writer.program.is_some());
    let readers = report.readers.iter().filter(|reader| reader.program.is_some());
    writer
        .map(|writer| writer.pid)
        .into_iter()
        .chain(readers.filter_map(|reader| reader.pid))
}

fn rate(count: u64, elapsed: Option<Duration>) -> Option<f64> {
    elapsed
        .filter(|elapsed| !elapsed.is_zero())
        .map(|elapsed| count as f64 / elapsed.as_secs_f64())
}

fn channel_state(report: &Report) -> &'static str {
    match report.state {
        State::Alive | State::Idle
            if report
                .writer
                .as_ref()
                .is_some_and(|writer| writer.stopped == Some(true)) =>
        {
            "stopped"
        }
        state => state.name(),
    }
}

fn reader_state(reader: &Reader) -> &'static str {
    match (reader.stopped, reader.state) {
        (Some(true), _) => "stopped",
        (_, "attached") if reader.latest == Some(true) => "latest",
        (_, "attached") => "reading",
        (_, state) => state,
    }
}
