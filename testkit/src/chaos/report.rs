// SPDX-License-Identifier: MIT OR Apache-2.0

//! The result of a run, as a table for people and as JSON for programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use nix::{sys::signal::Signal, unistd::Pid};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Plan,
    assignment::Kind,
    board::{Counters, Findings},
};
use crate::emulation::is_emulated;

/// The minimum age of a process whose growth is checked.
const MIN_AGE: Duration = Duration::from_secs(10);
/// The largest accepted growth of a process's resources (see [`Report::add_usage`]). Some growth is normal: the C
/// library keeps freed memory, and a reader keeps a segment mapped while it holds frames in it.
const MAX_GROWTH: Usage = Usage {
    descriptors: 4,
    mappings: 12,
    kilobytes: 24 * 1024,
};
/// The same with frames of objects: a reader also keeps the objects of the segments that it has mapped. At the end of a
/// process, the number of its files and mappings is checked exactly.
const MAX_GROWTH_WITH_OBJECTS: Usage = Usage {
    descriptors: MAX_GROWTH.descriptors + 20,
    mappings: MAX_GROWTH.mappings + 20,
    ..MAX_GROWTH
};

/// The resources of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub descriptors: u64,
    pub mappings: u64,
    pub kilobytes: u64,
}

impl Usage {
    /// Measures a process. `None` if the process has ended.
    pub fn of(pid: Pid) -> Option<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(directory.join("status")).ok()?;
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(Self {
            descriptors: std::fs::read_dir(directory.join("fd")).ok()?.count() as u64,
            mappings: std::fs::read_to_string(directory.join("maps")).ok()?.lines().count() as u64,
            kilobytes: anonymous.trim().split(' ').next()?.parse().ok()?,
        })
    }

    fn combine(self, other: Self, choose: fn(u64, u64) -> u64) -> Self {
        Self {
            descriptors: choose(self.descriptors, other.descriptors),
            mappings: choose(self.mappings, other.mappings),
            kilobytes: choose(self.kilobytes, other.kilobytes),
        }
    }

    fn min(self, other: Self) -> Self {
        self.combine(other, u64::min)
    }

    fn max(self, other: Self) -> Self {
        self.combine(other, u64::max)
    }
}

/// The number of processes of one kind that lived long enough, and the largest growth of each resource.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Growth {
    processes: u64,
    #[serde(flatten)]
    most: Usage,
}

/// The counts of one failpoint: how often processes passed it, were killed at it, and were stopped at it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Hits {
    passes: u64,
    kills: u64,
    stops: u64,
}

impl Hits {
    fn add(&mut self, other: Self) {
        self.passes += other.passes;
        self.kills += other.kills;
        self.stops += other.stops;
    }
}

/// The counts of the failpoints in the processes of one kind.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct FailpointCounts(BTreeMap<String, Hits>);

impl FailpointCounts {
    /// Reads the file of counts that the processes share. `channel/src/protocol/failpoint.rs` describes this file.
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_default();
        let records = bytes.chunks_exact(64).skip(1).filter(|record| record[0] != 0);
        let read = |record: &[u8]| {
            let name = record[..32].split(|byte| *byte == 0).next().unwrap_or_default();
            let word = |index: usize| u64::from_ne_bytes(record[32 + 8 * index..][..8].try_into().unwrap());
            let hits = Hits {
                passes: word(0),
                kills: word(1),
                stops: word(2),
            };
            (String::from_utf8_lossy(name).into_owned(), hits)
        };
        Self(records.map(read).collect())
    }

    fn add(&mut self, other: &Self) {
        for (name, hits) in &other.0 {
            self.0.entry(name.clone()).or_default().add(*hits);
        }
    }

    fn sum(&self) -> Hits {
        let mut sum = Hits::default();
        self.0.values().for_each(|hits| sum.add(*hits));
        sum
    }

    fn passed(&self) -> BTreeMap<&str, Hits> {
        let passed = self.0.iter().filter(|(_, hits)| hits.passes > 0);
        passed.map(|(name, hits)| (name.as_str(), *hits)).collect()
    }
}

/// The figures of the processes of one kind.
#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    started: u64,
    /// The number of processes that the run killed from outside.
    killed: u64,
    /// The number of times that the run stopped a process from outside.
    stopped: u64,
    frames: u64,
    again: u64,
    in_place: u64,
    copied: u64,
    by_descriptor: u64,
    faults: u64,
    missed: u64,
    lost: u64,
    events: u64,
}

impl Figures {
    fn all(&mut self) -> [&mut u64; 12] {
        [
            &mut self.started,
            &mut self.killed,
            &mut self.stopped,
            &mut self.frames,
            &mut self.again,
            &mut self.in_place,
            &mut self.copied,
            &mut self.by_descriptor,
            &mut self.faults,
            &mut self.missed,
            &mut self.lost,
            &mut self.events,
        ]
    }

    fn add(&mut self, mut other: Self) {
        for (sum, other) in self.all().into_iter().zip(other.all()) {
            *sum += *other;
        }
    }
}

/// The result of a run, or the sum of the results of several runs.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    lossless: bool,
    objects: bool,
    time: Duration,
    figures: BTreeMap<Kind, Figures>,
    failpoints: BTreeMap<Kind, FailpointCounts>,
    torn: u64,
    order: u64,
    others: u64,
    starved: u64,
    longest_without_frames: Duration,
    published: u64,
    /// The longest time between two frames of a writer that no stop delayed.
    longest_publish_pause: Duration,
    no_slot: u64,
    messages: u64,
    /// The longest time that a writer took to claim a slot and publish.
    stall: Duration,
    recoveries: Vec<u64>,
    slots: u64,
    slots_lost: u64,
    leftovers: Vec<String>,
    growth: BTreeMap<Kind, Growth>,
    /// The violations that were found.
    pub findings: Vec<String>,
    /// The directory that contains the output of the processes.
    pub directory: PathBuf,
}

impl Report {
    pub fn new(plan: &Plan, directory: &Path) -> Self {
        Self {
            seed: plan.seed,
            lossless: plan.lossless,
            objects: plan.objects,
            time: plan.time,
            figures: BTreeMap::new(),
            failpoints: BTreeMap::new(),
            torn: 0,
            order: 0,
            others: 0,
            starved: 0,
            longest_without_frames: Duration::ZERO,
            published: 0,
            longest_publish_pause: Duration::ZERO,
            no_slot: 0,
            messages: 0,
            stall: Duration::ZERO,
            recoveries: Vec::new(),
            slots: 0,
            slots_lost: 0,
            leftovers: Vec::new(),
            growth: BTreeMap::new(),
            findings: Vec::new(),
            directory: directory.to_owned(),
        }
    }

    fn figures(&mut self, kind: Kind) -> &mut Figures {
        self.figures.entry(kind).or_default()
    }

    pub fn add_start(&mut self, kind: Kind) {
        self.figures(kind).started += 1;
    }

    /// Counts a signal that was sent to a process.
    pub fn add_signal(&mut self, kind: Kind, signal: Signal) {
        match signal {
            Signal::SIGKILL => self.figures(kind).killed += 1,
            _ => self.figures(kind).stopped += 1,
        }
    }

    /// Records a time in which a reader received no frame although frames were published.
    pub fn add_time_without_frames(&mut self, time: Duration) {
        self.longest_without_frames = self.longest_without_frames.max(time);
    }

    /// Records a time in which a writer published no frame although no stop delayed it.
    pub fn add_publish_pause(&mut self, time: Duration) {
        self.longest_publish_pause = self.longest_publish_pause.max(time);
    }

    pub fn add_starved(&mut self) {
        self.starved += 1;
    }

    pub fn set_slots(&mut self, slots: u64, lost: u64) {
        self.slots = slots;
        self.slots_lost = lost;
    }

    pub fn set_leftovers(&mut self, leftovers: Vec<String>) {
        self.leftovers = leftovers;
    }

    pub fn set_failpoints(&mut self, kind: Kind, counts: FailpointCounts) {
        self.failpoints.insert(kind, counts);
    }

    /// Sets the recovery times. They are sorted, and in nanoseconds.
    pub fn set_recoveries(&mut self, recoveries: Vec<u64>) {
        self.recoveries = recoveries;
    }

    /// Adds the counters of a member.
    pub fn add_counters(&mut self, kind: Kind, counters: &Counters) {
        self.figures(kind).add(Figures {
            frames: counters.frames.load(Relaxed),
            again: counters.again.load(Relaxed),
            in_place: counters.in_place.load(Relaxed),
            copied: counters.copied.load(Relaxed),
            by_descriptor: counters.by_descriptor.load(Relaxed),
            faults: counters.faults.load(Relaxed),
            missed: counters.missed.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            events: counters.events.load(Relaxed),
            ..Figures::default()
        });
        self.torn += counters.torn.load(Relaxed);
        self.order += counters.order.load(Relaxed);
        self.others += counters.others.load(Relaxed);
        self.published += counters.published.load(Relaxed);
        self.no_slot += counters.no_slot.load(Relaxed);
        self.messages += counters.messages.load(Relaxed);
        self.stall = self.stall.max(Duration::from_nanos(counters.stall.load(Relaxed)));
    }

    /// Adds the growth of a process's resources. The growth is the least usage in the last quarter of the process's
    /// life, minus the least usage in the second quarter.
    pub fn add_usage(&mut self, kind: Kind, usage: &[(Duration, Usage)]) {
        // An emulator keeps the code that it has translated, so its memory grows for a long time.
        if is_emulated() {
            return;
        }
        let Some((age, _)) = usage.last().filter(|(age, _)| *age >= MIN_AGE) else {
            return;
        };
        let least = |from: u32, to: u32| {
            let within = usage
                .iter()
                .filter(|(at, _)| *at >= *age * from / 4 && *at <= *age * to / 4);
            within.map(|(_, usage)| *usage).reduce(Usage::min)
        };
        if let (Some(early), Some(late)) = (least(1, 2), least(3, 4)) {
            let growth = self.growth.entry(kind).or_default();
            growth.processes += 1;
            growth.most = growth.most.max(late.combine(early, u64::saturating_sub));
        }
    }

    pub fn check_usage(&self, findings: &Findings) {
        let limit = if self.objects {
            MAX_GROWTH_WITH_OBJECTS
        } else {
            MAX_GROWTH
        };
        for (kind, growth) in &self.growth {
            if growth.most.max(limit) != limit {
                findings.add(&format!("{} grows: {:?}", kind.name(), growth.most));
            }
        }
    }

    /// Adds the result of another run.
    pub fn add(&mut self, other: Self) {
        self.time += other.time;
        for (kind, figures) in other.figures {
            self.figures(kind).add(figures);
        }
        for (kind, counts) in &other.failpoints {
            self.failpoints.entry(*kind).or_default().add(counts);
        }
        self.published += other.published;
        self.no_slot += other.no_slot;
        self.messages += other.messages;
        self.longest_without_frames = self.longest_without_frames.max(other.longest_without_frames);
        self.longest_publish_pause = self.longest_publish_pause.max(other.longest_publish_pause);
        self.stall = self.stall.max(other.stall);
        self.recoveries.extend(other.recoveries);
        self.recoveries.sort_unstable();
        self.slots += other.slots;
        for (kind, growth) in other.growth {
            let sum = self.growth.entry(kind).or_default();
            sum.processes += growth.processes;
            sum.most = sum.most.max(growth.most);
        }
    }

    /// The counts of the failpoints, added up over all kinds of processes.
    fn all_failpoints(&self) -> FailpointCounts {
        let mut all = FailpointCounts::default();
        self.failpoints.values().for_each(|counts| all.add(counts));
        all
    }

    fn failpoints_of(&self, kind: Kind) -> FailpointCounts {
        self.failpoints.get(&kind).cloned().unwrap_or_default()
    }

    /// The median and the longest recovery time.
    fn recovery(&self) -> (Duration, Duration) {
        let at = |index: usize| Duration::from_nanos(self.recoveries.get(index).copied().unwrap_or(0));
        let count = self.recoveries.len();
        (at(count / 2), at(count.saturating_sub(1)))
    }

    pub fn table(&self) -> String {
        let mode = if self.lossless { "lossless" } else { "dropping" };
        let mut text = format!(
            "seed {} {mode} {:?}\n{}\n{}\n{}",
            self.seed,
            self.time,
            self.kinds_table(),
            self.failpoints_table(),
            self.summary()
        );
        for (kind, growth) in &self.growth {
            text += &format!(
                "largest growth of {} long-lived processes, {}: {} descriptors, {} mappings, {} kB\n",
                growth.processes,
                kind.name(),
                growth.most.descriptors,
                growth.most.mappings,
                growth.most.kilobytes
            );
        }
        for finding in &self.findings {
            text += &format!("FOUND {finding}\n");
        }
        text
    }

    fn kinds_table(&self) -> Table {
        let mut table = new_table(&[
            "", "started", "killed", "itself", "stopped", "itself", "frames", "again", "in place", "copied", "by fd",
            "faults", "missed", "lost",
        ]);
        for (kind, figures) in self.figures.iter().filter(|(_, figures)| figures.started > 0) {
            let hits = self.failpoints_of(*kind).sum();
            let numbers = [
                figures.started,
                figures.killed,
                hits.kills,
                figures.stopped,
                hits.stops,
                figures.frames,
                figures.again,
                figures.in_place,
                figures.copied,
                figures.by_descriptor,
                figures.faults,
                figures.missed,
                figures.lost,
            ];
            let cells = numbers.map(|number| number.to_string()).into_iter();
            table.add_row([kind.name().to_owned()].into_iter().chain(cells));
        }
        table
    }

    fn failpoints_table(&self) -> Table {
        let mut table = new_table(&["failpoint", "passes", "kills", "stops"]);
        for (name, Hits { passes, kills, stops }) in self.all_failpoints().0 {
            table.add_row([name, passes.to_string(), kills.to_string(), stops.to_string()]);
        }
        table
    }

    fn summary(&self) -> String {
        let (median, longest) = self.recovery();
        let events: u64 = self.figures.values().map(|figures| figures.events).sum();
        format!(
            "published {}, events received {events}, messages received {}, frames without a slot {}\n\
             torn {}, wrong order or repeated {}, other violations {}, starved {} (longest {:.0?}), slots lost {} of {}, \
             left in /dev/shm {}\n\
             longest claim and publish {:.1?}, longest pause of a writer {:.1?}; from a writer's death to the next frame: \
             median {median:.1?}, longest {longest:.1?}, {} times\n",
            self.published,
            self.messages,
            self.no_slot,
            self.torn,
            self.order,
            self.others,
            self.starved,
            self.longest_without_frames,
            self.slots_lost,
            self.slots,
            self.leftovers.len(),
            self.stall,
            self.longest_publish_pause,
            self.recoveries.len()
        )
    }

    pub fn json(&self) -> Value {
        let (median, longest) = self.recovery();
        let kind = |kind: &Kind, figures: &Figures| {
            let mut value = json!(figures);
            value["failpoints"] = json!(self.failpoints_of(*kind).passed());
            (kind.name(), value)
        };
        let started = self.figures.iter().filter(|(_, figures)| figures.started > 0);
        let kinds: BTreeMap<_, _> = started.map(|(name, figures)| kind(name, figures)).collect();
        let growth: BTreeMap<_, _> = self.growth.iter().map(|(kind, it)| (kind.name(), it)).collect();
        json!({
            "seed": self.seed,
            "lossless": self.lossless,
            "objects": self.objects,
            "seconds": self.time.as_secs(),
            "published": self.published,
            "torn": self.torn,
            "wrong_order": self.order,
            "other_violations": self.others,
            "starved": self.starved,
            "longest_without_frames_ms": self.longest_without_frames.as_millis() as u64,
            "no_slot": self.no_slot,
            "longest_claim_and_publish_us": self.stall.as_micros() as u64,
            "longest_publish_pause_ms": self.longest_publish_pause.as_millis() as u64,
            "recovery_median_us": median.as_micros() as u64,
            "recovery_longest_us": longest.as_micros() as u64,
            "recoveries": self.recoveries.len(),
            "slots": self.slots,
            "slots_lost": self.slots_lost,
            "left_in_dev_shm": self.leftovers.len(),
            "kinds": kinds,
            "failpoints": self.all_failpoints(),
            "growth": growth,
            "findings": self.findings,
        })
    }
}

/// A table without borders. All columns but the first contain numbers.
fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
