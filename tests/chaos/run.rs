//! A run: processes of all kinds on one channel, killed, stopped and started again, and a watch on those that live.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rsshm_channel::{ChannelName, Writer, WriterOptions, monotonic_ns};

use crate::{
    board::{Board, Findings, request, writer_request},
    dump::dump,
    numbered::entry_command,
    random::Random,
    report::{Points, Report},
    role::{Orders, Role},
};

const TICK: Duration = Duration::from_millis(2);
/// Who gets nothing for so long while frames are published has stopped receiving.
const STARVED: Duration = Duration::from_secs(3);
/// After its start or its continuation a process need not have frames for so long.
const SETTLING: Duration = Duration::from_millis(600);
/// A writer that lives, with nobody stopped, publishes something within so long.
const STUCK: Duration = Duration::from_secs(4);
/// The longest that one claim and publish may take of a writer that waits for nobody: far above what a busy machine does.
const STALL: Duration = Duration::from_secs(2);
/// How long a process that is asked to end may take.
const ENDING: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub time: Duration,
    pub lossless: bool,
}

/// One place in the run, and who is in it.
struct Place {
    role: Role,
    cell: usize,
    /// It is stopped but never killed, so that what it takes can be watched.
    long_lived: bool,
    process: Option<Process>,
    start_at: Instant,
    output: PathBuf,
}

struct Process {
    pid: Pid,
    started: Instant,
    is_stopped: bool,
    continue_at: Option<Instant>,
    /// When it was last started or continued.
    awake_since: Instant,
    last_at: u64,
    /// For how long frames were published that it should have had.
    without: Duration,
    is_immune: bool,
    usage: Vec<(Duration, Usage)>,
}

/// What a process takes of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub descriptors: u64,
    pub mappings: u64,
    pub kilobytes: u64,
}

struct Run {
    plan: Plan,
    random: Random,
    folder: PathBuf,
    channel: String,
    board: &'static Board,
    findings: Findings,
    places: Vec<Place>,
    incarnation: u32,
    epoch: u32,
    /// The writer was asked to stop in good order.
    closing: bool,
    calm: bool,
    only_writers: bool,
    external: BTreeMap<(Role, Signal), u64>,
    published: u64,
    published_at: Instant,
    anybody_stopped_at: Instant,
    report: Report,
}

/// Runs a plan, and yields what came of it.
pub fn run(plan: Plan) -> Report {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}-{}", std::process::id(), plan.seed));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut run = Run::new(plan, folder);
    run.storms();
    run.end();
    let folder = run.folder.clone();
    let report = run.finish();
    if report.findings.is_empty() {
        let _ = std::fs::remove_dir_all(folder);
    }
    report
}

impl Run {
    fn new(plan: Plan, folder: PathBuf) -> Self {
        let mut random = Random::new(plan.seed);
        let channel = format!("rsshm-chaos-{}-{}", std::process::id(), plan.seed);
        let mut roles = vec![
            (Role::Writer, false),
            (Role::InPlace, true),
            (Role::InPlace, false),
            (Role::Copying, false),
            (Role::Observer, true),
            (Role::Slow, false),
            (Role::Slow, false),
            (Role::Newest, false),
            (Role::Hoarder, false),
            (Role::Guest, false),
            (Role::Threaded, false),
            (Role::Source, true),
        ];
        if random.permille(500) {
            roles.push((Role::SourceNewest, false));
        }
        // Six to ten readers.
        while roles.len() > 7 && random.permille(250) {
            let index = random.within(1..roles.len() as u64) as usize;
            if !roles[index].1 {
                roles.remove(index);
            }
        }
        let now = Instant::now();
        let places = roles.into_iter().enumerate().map(|(cell, (role, long_lived))| Place {
            role,
            cell,
            long_lived,
            process: None,
            start_at: now
                + if cell == 0 {
                    Duration::ZERO
                } else {
                    random.millis(0..400)
                },
            output: folder.join(format!("output-{cell}")),
        });
        let places = places.collect();
        Self {
            board: Board::open(&folder),
            findings: Findings::new(&folder),
            report: Report::new(&plan),
            plan,
            random,
            folder,
            channel,
            places,
            incarnation: 0,
            epoch: 0,
            closing: false,
            calm: false,
            only_writers: false,
            external: BTreeMap::new(),
            published: 0,
            published_at: now,
            anybody_stopped_at: now,
        }
    }

    /// The time of the run: storms, and calms between them in which everybody has to get frames.
    fn storms(&mut self) {
        let ends = Instant::now() + self.plan.time;
        let mut change = Instant::now() + self.random.millis(4000..7000);
        let mut last = Instant::now();
        while Instant::now() < ends {
            std::thread::sleep(TICK);
            let now = Instant::now();
            // If this process itself did not run for a while, the others may not have either.
            let step = (now - last).min(Duration::from_millis(20));
            last = now;
            // Slots are counted in the end, which only a writer of the one kind can.
            self.only_writers = ends - now < Duration::from_secs(5);
            if now > change {
                self.calm = !self.calm;
                let time = if self.calm { 3500..4000 } else { 4000..9000 };
                change = now + self.random.millis(time);
                self.pause_points(self.calm);
            }
            self.tick(now, step);
            if !self.calm {
                self.strike(step);
            }
            if !self.findings.all().is_empty() {
                self.dump("found");
                // What happened then is seen best with what led to it.
                break;
            }
        }
    }

    fn points_file(&self, role: Role) -> PathBuf {
        self.folder.join(format!("points-{role:?}"))
    }

    fn pause_points(&self, paused: bool) {
        for role in Role::ALL {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.points_file(role));
            file.unwrap().write_all_at(&u64::from(paused).to_ne_bytes(), 0).unwrap();
        }
    }

    fn start(&mut self, index: usize) {
        let (is_writer, long_lived, cell) = {
            let place = &self.places[index];
            (place.role.is_writer(), place.long_lived, place.cell)
        };
        let mut is_immune = long_lived;
        if is_writer {
            self.incarnation += 1;
            if std::mem::take(&mut self.closing) {
                self.board.writer_request.store(writer_request::GO_ON, Relaxed);
            }
            let as_pipeline = !self.only_writers && self.random.permille(250);
            self.places[index].role = if as_pipeline { Role::Sink } else { Role::Writer };
            // In a long run some live long enough to be looked at.
            is_immune = self.plan.time >= Duration::from_secs(40) && self.random.permille(40);
        }
        let role = self.places[index].role;
        let orders = Orders {
            folder: self.folder.clone(),
            role,
            cell,
            seed: self.random.number(),
            channel: self.channel.clone(),
            lossless: self.plan.lossless,
            incarnation: self.incarnation,
            epoch: self.epoch,
        };
        let (kills, stops) = match (is_immune, is_writer) {
            (true, false) if self.plan.lossless => (0, 50),
            (false, false) if self.plan.lossless => (250, 50),
            (true, _) => (0, 400),
            (false, true) => (60, 400),
            (false, false) => (250, 300),
        };
        let points = format!(
            "{},{kills},{stops},{}",
            self.random.number(),
            self.points_file(role).display()
        );
        let place = &mut self.places[index];
        let output = File::options().append(true).create(true).open(&place.output).unwrap();
        let (variable, value) = orders.variable();
        // Waited for by its number, as `Child` knows nothing of stops.
        #[allow(clippy::zombie_processes)]
        let child = entry_command("child")
            .env(variable, value)
            .env("RSSHM_FAILPOINTS", points)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let now = Instant::now();
        place.process = Some(Process {
            pid: Pid::from_raw(child.id() as i32),
            started: now,
            is_stopped: false,
            continue_at: None,
            awake_since: now,
            last_at: 0,
            without: Duration::ZERO,
            is_immune,
            usage: Vec::new(),
        });
        *self.report.started.entry(role).or_default() += 1;
    }

    /// Looks who has died or stopped, and who gets nothing.
    fn tick(&mut self, now: Instant, step: Duration) {
        for index in 0..self.places.len() {
            let place = &self.places[index];
            if place.process.is_none() && now >= place.start_at {
                self.start(index);
            }
            self.reap(index, now);
        }
        self.watch(now, step);
    }

    fn reap(&mut self, index: usize, now: Instant) {
        let role = self.places[index].role;
        let Some(process) = &mut self.places[index].process else {
            return;
        };
        match waitpid(process.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)).unwrap() {
            WaitStatus::Stopped(..) => {
                process.is_stopped = true;
                // More often short than long.
                let pause = Duration::from_micros(self.random.size(10..19) as u64).min(Duration::from_millis(500));
                process.continue_at.get_or_insert(now + pause);
            }
            ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                self.bury(index, ended, now);
                return;
            }
            _ => {}
        }
        if process.is_stopped {
            self.anybody_stopped_at = now;
            if process.continue_at.is_some_and(|at| now >= at) {
                let _ = kill(process.pid, Signal::SIGCONT);
                process.is_stopped = false;
                process.continue_at = None;
                process.awake_since = now;
            }
        }
        let age = now - process.started;
        let sampled = process.usage.last().map_or(Duration::ZERO, |(age, _)| *age);
        if age - sampled > Duration::from_millis(250)
            && !role.is_writer_of_short_life(process.is_immune)
            && let Some(usage) = Usage::of(process.pid)
        {
            process.usage.push((age, usage));
        }
    }

    fn bury(&mut self, index: usize, ended: WaitStatus, now: Instant) {
        let place = &mut self.places[index];
        let Some(process) = place.process.take() else {
            return;
        };
        self.report.note_usage(place.role, &process.usage);
        let expected = match ended {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            WaitStatus::Exited(_, 0) => self.closing && place.role.is_writer(),
            _ => false,
        };
        if !expected {
            let output = std::fs::read_to_string(&place.output).unwrap_or_default();
            let tail: Vec<&str> = output.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let what = format!(
                "{} {} ended: {ended:?}: {}",
                place.role.name(),
                process.pid,
                tail.join(" | ")
            );
            self.findings.add(&what);
        }
        if place.role.is_writer() {
            self.board.note_death(self.incarnation, monotonic_ns());
            place.start_at = now;
        } else {
            place.start_at = now + self.random.millis(0..300);
        }
    }

    /// Who is awake and gets nothing, while a writer that is awake publishes.
    fn watch(&mut self, now: Instant, step: Duration) {
        let published = self.board.cells[0].published.load(Relaxed);
        let writer = self.places[0].process.as_ref();
        let writer_is_settled = writer.is_some_and(|it| !it.is_stopped && now - it.awake_since > SETTLING);
        if published != self.published || !writer_is_settled || now - self.anybody_stopped_at < SETTLING {
            if published != self.published {
                self.published = published;
            }
            self.published_at = now;
        } else if now - self.published_at > STUCK {
            self.published_at = now;
            self.findings.add("the writer publishes nothing, and nobody is stopped");
            self.dump("stuck");
        }
        let is_publishing = writer_is_settled && published > 0 && {
            let last = self.board.cells[0].last_at.load(Relaxed);
            monotonic_ns().saturating_sub(last) < 200_000_000
        };
        for place in &mut self.places[1..] {
            let Some(process) = &mut place.process else {
                continue;
            };
            let last_at = self.board.cells[place.cell].last_at.load(Relaxed);
            if last_at != process.last_at {
                process.last_at = last_at;
                process.without = Duration::ZERO;
            } else if is_publishing && !process.is_stopped && now - process.awake_since > SETTLING {
                process.without += step;
                self.report.longest_without = self.report.longest_without.max(process.without);
                if process.without > STARVED {
                    process.without = Duration::ZERO;
                    self.report.starved += 1;
                    let what = format!(
                        "{} in place {}, process {}, gets nothing for {STARVED:?} while frames are published",
                        place.role.name(),
                        place.cell,
                        process.pid
                    );
                    self.findings.add(&what);
                }
            }
        }
    }

    /// Writes down what the channel looks like.
    fn dump(&self, name: &str) {
        if let Some(writer) = &self.places[0].process {
            let text = dump(&self.channel, writer.pid);
            let _ = std::fs::write(self.folder.join(format!("{name}-{}", writer.pid)), text);
        }
    }

    /// Kills and stops from outside.
    fn strike(&mut self, step: Duration) {
        // A lossless writer stands still while one of its readers is stopped.
        let seldom = if self.plan.lossless { 4 } else { 1 };
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            let role = place.role;
            let Some(process) = &mut place.process else {
                continue;
            };
            let (mean_kill, mean_stop) = match (role.is_writer(), process.is_immune) {
                (true, false) => (Duration::from_millis(2500), Duration::from_millis(2000)),
                // It has lived long enough to be looked at.
                (true, true) => (Duration::from_secs(10), Duration::from_millis(2000)),
                (false, false) => (Duration::from_secs(5), Duration::from_millis(2500)),
                (false, true) => (Duration::MAX, Duration::from_millis(2500)),
            };
            let signal = if self.random.happens(step, mean_kill) {
                if role.is_writer() && self.random.permille(150) {
                    // In good order, for once.
                    if !self.closing {
                        self.closing = true;
                        self.epoch += 1;
                        self.board.writer_request.store(writer_request::CLOSE, Relaxed);
                    }
                    continue;
                }
                Signal::SIGKILL
            } else if self.random.happens(step, mean_stop * seldom) {
                Signal::SIGSTOP
            } else {
                continue;
            };
            let _ = kill(process.pid, signal);
            *self.external.entry((role, signal)).or_default() += 1;
        }
    }

    /// Lets everybody go on until `done`; `false` when it is not within the time.
    fn calm_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let began = Instant::now();
        while !done(self) {
            if began.elapsed() > time {
                return false;
            }
            std::thread::sleep(TICK);
            self.tick(Instant::now(), Duration::ZERO);
        }
        true
    }

    /// What has to be true when all is over.
    fn end(&mut self) {
        self.only_writers = true;
        self.pause_points(true);
        let is_awake = |place: &Place| place.process.as_ref().is_some_and(|process| !process.is_stopped);
        let channel_writer = |run: &Self| run.places[0].role == Role::Writer && !run.closing;
        if !channel_writer(self)
            && let Some(process) = &self.places[0].process
        {
            let _ = kill(process.pid, Signal::SIGKILL);
        }
        let went_on = self.calm_until(ENDING, |run| {
            let publishes = run.places[0]
                .process
                .as_ref()
                .is_some_and(|it| it.started.elapsed() > SETTLING);
            channel_writer(run) && publishes && run.places.iter().all(is_awake)
        });
        if !went_on {
            self.findings.add("not all go on in the end");
        }
        self.end_readers();
        self.count_slots();
        self.epoch += 1;
        self.closing = true;
        self.board.writer_request.store(writer_request::CLOSE, Relaxed);
        let soon = Instant::now() + Duration::from_secs(3600);
        let ended = self.calm_until(ENDING, |run| run.places[0].process.is_none());
        self.places[0].start_at = soon;
        if !ended {
            self.findings.add("the writer does not end");
            self.kill(0);
        }
        self.look_for_leftovers();
    }

    /// Half of the readers are killed, the others end by themselves.
    fn end_readers(&mut self) {
        let never = Instant::now() + Duration::from_secs(3600);
        for index in 1..self.places.len() {
            self.places[index].start_at = never;
            if self.random.permille(500) {
                self.kill(index);
            }
        }
        self.board.request.store(request::END, Relaxed);
        let began = Instant::now();
        for index in 1..self.places.len() {
            while let Some(process) = &self.places[index].process {
                match waitpid(process.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::StillAlive if began.elapsed() < ENDING => std::thread::sleep(TICK),
                    WaitStatus::StillAlive => {
                        let what = format!("{} does not end", self.places[index].role.name());
                        self.findings.add(&what);
                        self.kill(index);
                    }
                    status @ WaitStatus::Exited(_, 0) => {
                        let _ = status;
                        let place = &mut self.places[index];
                        let usage = place.process.take().map(|process| process.usage).unwrap_or_default();
                        self.report.note_usage(place.role, &usage);
                    }
                    status => self.bury(index, status, never),
                }
                self.places[index].start_at = never;
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let place = &mut self.places[index];
        if let Some(process) = place.process.take() {
            let _ = kill(process.pid, Signal::SIGKILL);
            let _ = waitpid(process.pid, None);
            self.report.note_usage(place.role, &process.usage);
        }
    }

    fn count_slots(&mut self) {
        self.board.writer_request.store(writer_request::COUNT_SLOTS, Relaxed);
        let board = self.board;
        if !self.calm_until(ENDING, |_| board.slots.load(Relaxed) != 0) {
            self.findings.add("the writer does not say how many slots it has");
            return;
        }
        let slots = board.slots.load(Relaxed) - 1;
        self.report.slots = slots;
        self.report.slots_lost = slots.saturating_sub(board.slots_used.load(Relaxed));
        if self.report.slots_lost > 0 {
            let what = format!("{} of {slots} slots are lost", self.report.slots_lost);
            self.findings.add(&what);
        }
    }

    /// A clean stop leaves nothing, and the next start takes what died while it was being made.
    fn look_for_leftovers(&mut self) {
        for file in [self.channel.clone(), format!("sem.{}", self.channel)] {
            if Path::new("/dev/shm").join(&file).exists() {
                self.report.leftovers.push(file);
            }
        }
        // As if ten seconds had passed.
        for file in self.staging_files() {
            let old = std::fs::FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(11));
            if let Ok(file) = File::options().write(true).open(file) {
                let _ = file.set_times(old);
            }
        }
        let name = ChannelName::new(format!("{}-end", self.channel)).unwrap();
        drop(Writer::open(name, WriterOptions::default()).unwrap());
        let left = self.staging_files();
        self.report
            .leftovers
            .extend(left.iter().map(|path| path.display().to_string()));
        for left in self.report.leftovers.clone() {
            self.findings.add(&format!("{left} is left in /dev/shm"));
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(left));
        }
    }

    /// Files in the making of processes of this run, all of which are gone.
    fn staging_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir("/dev/shm").unwrap().flatten();
        entries
            .filter(|entry| {
                let name = entry.file_name().into_string().unwrap_or_default();
                let pid = name.strip_prefix(".rsshm-").and_then(|rest| rest.split('-').next());
                // Other tests have such files too, while they live.
                pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
                    && entry
                        .metadata()
                        .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw())
            })
            .map(|entry| entry.path())
            .collect()
    }

    fn finish(mut self) -> Report {
        for index in 0..self.places.len() {
            self.kill(index);
        }
        for place in &self.places {
            let stall = Duration::from_nanos(self.board.cells[place.cell].stall.load(Relaxed));
            if stall > STALL {
                self.findings.add(&format!("a claim and publish took {stall:?}"));
            }
        }
        for role in Role::ALL {
            self.report.points.insert(role, Points::read(&self.points_file(role)));
        }
        self.report.external = std::mem::take(&mut self.external);
        let roles = self
            .places
            .iter()
            .map(|place| (place.role, place.cell))
            .collect::<Vec<_>>();
        self.report.take_board(self.board, &roles);
        self.report.check_usage(&self.findings);
        self.report.findings = self.findings.all();
        self.report.folder = self.folder;
        self.report
    }
}

impl Role {
    /// A writer that is killed in a moment need not be looked at.
    fn is_writer_of_short_life(self, is_immune: bool) -> bool {
        self.is_writer() && !is_immune
    }
}

impl Usage {
    fn with(self, other: Self, choose: fn(u64, u64) -> u64) -> Self {
        Self {
            descriptors: choose(self.descriptors, other.descriptors),
            mappings: choose(self.mappings, other.mappings),
            kilobytes: choose(self.kilobytes, other.kilobytes),
        }
    }

    pub fn least(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    pub fn most(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    fn of(pid: Pid) -> Option<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(Self {
            descriptors: std::fs::read_dir(folder.join("fd")).ok()?.count() as u64,
            mappings: std::fs::read_to_string(folder.join("maps")).ok()?.lines().count() as u64,
            kilobytes: anonymous.trim().split(' ').next()?.parse().ok()?,
        })
    }
}
