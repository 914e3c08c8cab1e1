//! What came of a run: a table for people, JSON for programs.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    board::{Board, Findings},
    role::Role,
    run::{Plan, Usage},
};

/// A process has to have lived so long for its growth to say something.
const OLD_ENOUGH: Duration = Duration::from_secs(10);
/// What a process may take more in the end than early in its life: what the C library keeps, segments that readers still
/// hold frames of.
const GROWTH: Usage = Usage {
    descriptors: 4,
    mappings: 12,
    kilobytes: 24 * 1024,
};

/// How often an instant was passed, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hits {
    pub passes: u64,
    pub kills: u64,
    pub stops: u64,
}

impl Hits {
    fn add(&mut self, other: Self) {
        self.passes += other.passes;
        self.kills += other.kills;
        self.stops += other.stops;
    }
}

/// The instants of one kind of process.
#[derive(Clone, Debug, Default)]
pub struct Points(pub Vec<(String, Hits)>);

impl Points {
    /// Reads a file of counts.
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

    fn sum(&self, of: impl Fn(&Hits) -> u64) -> u64 {
        self.0.iter().map(|(_, hits)| of(hits)).sum()
    }
}

/// Figures of one kind of process.
#[derive(Clone, Debug, Default)]
struct Figures {
    frames: u64,
    again: u64,
    in_place: u64,
    copied: u64,
    missed: u64,
    lost: u64,
    events: u64,
}

impl Figures {
    fn all(&mut self) -> [&mut u64; 7] {
        [
            &mut self.frames,
            &mut self.again,
            &mut self.in_place,
            &mut self.copied,
            &mut self.missed,
            &mut self.lost,
            &mut self.events,
        ]
    }
}

#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub lossless: bool,
    pub time: Duration,
    pub started: BTreeMap<Role, u64>,
    pub external: BTreeMap<(Role, Signal), u64>,
    pub points: BTreeMap<Role, Points>,
    figures: BTreeMap<Role, Figures>,
    pub torn: u64,
    pub order: u64,
    pub others: u64,
    pub starved: u64,
    pub longest_without: Duration,
    published: u64,
    no_slot: u64,
    messages: u64,
    stall: Duration,
    recoveries: Vec<u64>,
    pub slots: u64,
    pub slots_lost: u64,
    pub leftovers: Vec<String>,
    usage: BTreeMap<Role, (u64, Usage)>,
    pub findings: Vec<String>,
    pub folder: PathBuf,
}

impl Report {
    pub fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            lossless: plan.lossless,
            time: plan.time,
            started: BTreeMap::new(),
            external: BTreeMap::new(),
            points: BTreeMap::new(),
            figures: BTreeMap::new(),
            torn: 0,
            order: 0,
            others: 0,
            starved: 0,
            longest_without: Duration::ZERO,
            published: 0,
            no_slot: 0,
            messages: 0,
            stall: Duration::ZERO,
            recoveries: Vec::new(),
            slots: 0,
            slots_lost: 0,
            leftovers: Vec::new(),
            usage: BTreeMap::new(),
            findings: Vec::new(),
            folder: PathBuf::new(),
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.time += other.time;
        for (role, started) in other.started {
            *self.started.entry(role).or_default() += started;
        }
        for (which, count) in other.external {
            *self.external.entry(which).or_default() += count;
        }
        for (role, points) in other.points {
            let sum = self.points.entry(role).or_default();
            if sum.0.is_empty() {
                *sum = points;
            } else {
                for ((_, sum), (_, hits)) in sum.0.iter_mut().zip(points.0) {
                    sum.add(hits);
                }
            }
        }
        for (role, figures) in other.figures {
            let sum = self.figures.entry(role).or_default();
            for (sum, other) in sum.all().into_iter().zip(figures.clone().all()) {
                *sum += *other;
            }
        }
        self.published += other.published;
        self.no_slot += other.no_slot;
        self.messages += other.messages;
        self.longest_without = self.longest_without.max(other.longest_without);
        self.stall = self.stall.max(other.stall);
        self.recoveries.extend(other.recoveries);
        self.recoveries.sort_unstable();
        self.slots += other.slots;
        for (role, (count, grown)) in other.usage {
            let (sum, most) = self.usage.entry(role).or_default();
            *sum += count;
            *most = most.most(grown);
        }
    }

    pub fn take_board(&mut self, board: &Board, roles: &[(Role, usize)]) {
        for (role, cell) in roles {
            let cell = &board.cells[*cell];
            let figures = self.figures.entry(*role).or_default();
            figures.frames += cell.frames.load(Relaxed);
            figures.again += cell.again.load(Relaxed);
            figures.in_place += cell.in_place.load(Relaxed);
            figures.copied += cell.copied.load(Relaxed);
            figures.missed += cell.missed.load(Relaxed);
            figures.lost += cell.lost.load(Relaxed);
            figures.events += cell.events.load(Relaxed);
            self.torn += cell.torn.load(Relaxed);
            self.order += cell.order.load(Relaxed);
            self.others += cell.others.load(Relaxed);
            self.published += cell.published.load(Relaxed);
            self.no_slot += cell.no_slot.load(Relaxed);
            self.messages += cell.messages.load(Relaxed);
            self.stall = self.stall.max(Duration::from_nanos(cell.stall.load(Relaxed)));
        }
        self.recoveries = board.recoveries();
    }

    /// Takes note of what a process took while it lived: the least of the second quarter of its life, and of the last.
    pub fn note_usage(&mut self, role: Role, usage: &[(Duration, Usage)]) {
        let Some((age, _)) = usage.last().filter(|(age, _)| *age >= OLD_ENOUGH) else {
            return;
        };
        let least = |from: u32, to: u32| {
            let within = usage
                .iter()
                .filter(|(at, _)| *at >= *age * from / 4 && *at <= *age * to / 4);
            within.map(|(_, usage)| *usage).reduce(Usage::least)
        };
        if let (Some(early), Some(late)) = (least(1, 2), least(3, 4)) {
            let (count, most) = self.usage.entry(role).or_default();
            *count += 1;
            *most = most.most(Usage {
                descriptors: late.descriptors.saturating_sub(early.descriptors),
                mappings: late.mappings.saturating_sub(early.mappings),
                kilobytes: late.kilobytes.saturating_sub(early.kilobytes),
            });
        }
    }

    pub fn check_usage(&self, findings: &Findings) {
        for (role, (_, grown)) in &self.usage {
            if grown.descriptors > GROWTH.descriptors
                || grown.mappings > GROWTH.mappings
                || grown.kilobytes > GROWTH.kilobytes
            {
                findings.add(&format!("{} grows: {grown:?}", role.name()));
            }
        }
    }

    fn by_instant(&self) -> BTreeMap<&str, Hits> {
        let mut all = BTreeMap::<&str, Hits>::new();
        for points in self.points.values() {
            for (name, hits) in &points.0 {
                all.entry(name).or_default().add(*hits);
            }
        }
        all
    }

    fn recovery(&self) -> (Duration, Duration) {
        let at = |index: usize| Duration::from_nanos(self.recoveries.get(index).copied().unwrap_or(0));
        (
            at(self.recoveries.len() / 2),
            at(self.recoveries.len().saturating_sub(1)),
        )
    }

    fn external(&self, role: Role, signal: Signal) -> u64 {
        self.external.get(&(role, signal)).copied().unwrap_or(0)
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments| writeln!(text, "{what}").unwrap();
        let mode = if self.lossless { "lossless" } else { "dropping" };
        line(format_args!("seed {} {mode} {:?}", self.seed, self.time));
        line(format_args!(
            "{:18} {:>7} {:>6} {:>6} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}",
            "",
            "started",
            "killed",
            "itself",
            "stopped",
            "itself",
            "frames",
            "again",
            "in place",
            "copied",
            "missed",
            "lost"
        ));
        for role in Role::ALL {
            let started = self.started.get(&role).copied().unwrap_or(0);
            if started == 0 {
                continue;
            }
            let points = &self.points[&role];
            let figures = self.figures.get(&role).cloned().unwrap_or_default();
            line(format_args!(
                "{:18} {started:>7} {:>6} {:>6} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}",
                role.name(),
                self.external(role, Signal::SIGKILL),
                points.sum(|hits| hits.kills),
                self.external(role, Signal::SIGSTOP),
                points.sum(|hits| hits.stops),
                figures.frames,
                figures.again,
                figures.in_place,
                figures.copied,
                figures.missed,
                figures.lost,
            ));
        }
        line(format_args!(
            "{:18} {:>10} {:>6} {:>6}",
            "instant", "passes", "kills", "stops"
        ));
        for (name, hits) in self.by_instant() {
            let Hits { passes, kills, stops } = hits;
            line(format_args!("{name:18} {passes:>10} {kills:>6} {stops:>6}"));
        }
        let (median, most) = self.recovery();
        let events: u64 = self.figures.values().map(|figures| figures.events).sum();
        line(format_args!(
            "published {}, events read {events}, letters read {}, frames without a slot {}",
            self.published, self.messages, self.no_slot
        ));
        line(format_args!(
            "torn {}, wrong order or repeated {}, stopped receiving {} (longest {:.0?}), slots lost {} of {}, left in /dev/shm {}",
            self.torn,
            self.order,
            self.starved,
            self.longest_without,
            self.slots_lost,
            self.slots,
            self.leftovers.len()
        ));
        line(format_args!(
            "longest claim and publish {:.1?}; from a writer's death to the next frame: median {median:.1?}, longest {most:.1?}, {} times",
            self.stall,
            self.recoveries.len()
        ));
        for (role, (count, grown)) in &self.usage {
            line(format_args!(
                "grown at most, of {count} long-lived, {}: {} descriptors, {} mappings, {} kB",
                role.name(),
                grown.descriptors,
                grown.mappings,
                grown.kilobytes
            ));
        }
        for finding in &self.findings {
            line(format_args!("FOUND {finding}"));
        }
        text
    }

    pub fn json(&self) -> String {
        let hits = |hits: &Hits| {
            format!(
                "{{\"passes\":{},\"kills\":{},\"stops\":{}}}",
                hits.passes, hits.kills, hits.stops
            )
        };
        let instants: Vec<String> = self
            .by_instant()
            .iter()
            .map(|(name, it)| format!("\"{name}\":{}", hits(it)))
            .collect();
        let kinds: Vec<String> = self
            .started
            .iter()
            .map(|(role, started)| {
                let points = &self.points[role];
                let figures = self.figures.get(role).cloned().unwrap_or_default();
                let of_kind: Vec<String> = points
                    .0
                    .iter()
                    .filter(|(_, it)| it.passes > 0)
                    .map(|(name, it)| format!("\"{name}\":{}", hits(it)))
                    .collect();
                format!(
                    "\"{}\":{{\"started\":{started},\"killed\":{},\"stopped\":{},\"frames\":{},\"again\":{},\"in_place\":{},\
                     \"copied\":{},\"missed\":{},\"lost\":{},\"instants\":{{{}}}}}",
                    role.name(),
                    self.external(*role, Signal::SIGKILL),
                    self.external(*role, Signal::SIGSTOP),
                    figures.frames,
                    figures.again,
                    figures.in_place,
                    figures.copied,
                    figures.missed,
                    figures.lost,
                    of_kind.join(",")
                )
            })
            .collect();
        let usage: Vec<String> = self
            .usage
            .iter()
            .map(|(role, (count, grown))| {
                format!(
                    "\"{}\":{{\"processes\":{count},\"descriptors\":{},\"mappings\":{},\"kilobytes\":{}}}",
                    role.name(),
                    grown.descriptors,
                    grown.mappings,
                    grown.kilobytes
                )
            })
            .collect();
        let findings: Vec<String> = self.findings.iter().map(|it| format!("{it:?}")).collect();
        let (median, most) = self.recovery();
        format!(
            "{{\"seed\":{},\"lossless\":{},\"seconds\":{},\"published\":{},\"torn\":{},\"wrong_order\":{},\"stopped_receiving\":{},\
             \"longest_without_ms\":{},\"no_slot\":{},\"longest_claim_and_publish_us\":{},\
             \"recovery_median_us\":{},\"recovery_longest_us\":{},\"recoveries\":{},\"slots\":{},\"slots_lost\":{},\
             \"left_in_dev_shm\":{},\"kinds\":{{{}}},\"instants\":{{{}}},\"grown\":{{{}}},\"findings\":[{}]}}",
            self.seed,
            self.lossless,
            self.time.as_secs(),
            self.published,
            self.torn,
            self.order,
            self.starved,
            self.longest_without.as_millis(),
            self.no_slot,
            self.stall.as_micros(),
            median.as_micros(),
            most.as_micros(),
            self.recoveries.len(),
            self.slots,
            self.slots_lost,
            self.leftovers.len(),
            kinds.join(","),
            instants.join(","),
            usage.join(","),
            findings.join(",")
        )
    }
}
