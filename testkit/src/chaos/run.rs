// SPDX-License-Identifier: MIT OR Apache-2.0

//! A run starts, kills, stops and restarts processes of all kinds on one channel, and watches the living processes.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering::{Acquire, Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        signal::{Signal, kill},
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rsshm_channel::{ChannelName, Directory, Writer, WriterOptions, monotonic_ns};

use super::{
    PROCESS, Plan,
    assignment::{Assignment, Kind},
    board::{Board, Findings, request, writer_request},
    dump::dump,
    report::{FailpointCounts, Report, Usage},
};
use crate::{Random, gst::role_command, on_this_machine};

/// The interval between two checks of the processes.
const TICK: Duration = Duration::from_millis(2);
/// A reader is starved if it receives no frame for longer than this time while frames are published. On an emulated
/// machine, this limit and those below are longer.
const STARVATION_TIME: Duration = Duration::from_secs(3);
/// The time after a start or a continuation in which a process need not publish or receive frames.
const SETTLING_TIME: Duration = Duration::from_millis(600);
/// The longest accepted time between two frames of a writer that no stop delays. It is shorter than a calm phase.
const MAX_PUBLISH_PAUSE: Duration = Duration::from_secs(2);
/// The same for a lossless writer, which waits until a slow reader has taken many small frames.
const MAX_LOSSLESS_PUBLISH_PAUSE: Duration = Duration::from_secs(4);
/// The longest time that a writer which is not lossless may take to claim a slot and publish. These calls are much
/// faster, even on a busy machine.
const MAX_STALL: Duration = Duration::from_secs(2);
/// The longest time that a process may take to end after the run has asked it to end.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// The interval between two measurements of a process's resources.
const USAGE_INTERVAL: Duration = Duration::from_millis(250);
/// A delay that is longer than any run. A start with this delay does not happen.
const NEVER: Duration = Duration::from_secs(3600);

/// One member of the run. It has at most one process at a time.
struct Member {
    kind: Kind,
    index: usize,
    /// Whether the run stops but never kills the member's processes, so that it can measure their resources.
    is_long_lived: bool,
    process: Option<MemberProcess>,
    start_at: Instant,
    output: PathBuf,
}

struct MemberProcess {
    pid: Pid,
    started: Instant,
    is_stopped: bool,
    continue_at: Option<Instant>,
    /// The time at which the process was last started or continued.
    awake_since: Instant,
    last_at: u64,
    /// The time in which the process has received no frame although frames were published.
    time_without_frames: Duration,
    /// Whether the process never kills itself at failpoints. The run kills an immune writer rarely, and
    /// an immune reader never.
    is_immune: bool,
    usage: Vec<(Duration, Usage)>,
}

struct Run {
    plan: Plan,
    random: Random,
    directory: PathBuf,
    channel: String,
    board: &'static Board,
    findings: Findings,
    /// The members of the run. The first is the writer.
    members: Vec<Member>,
    incarnation: u32,
    epoch: u32,
    /// Whether the writer was asked to close.
    is_closing: bool,
    /// Whether the run kills and stops no process at the moment.
    is_calm: bool,
    /// Whether the next writer must use the channel crate and must not be a pipeline.
    is_without_sink: bool,
    published: u64,
    /// The time since the last frame of a writer that no stop delays.
    publish_pause: Duration,
    /// The last time at which a stop delayed the writer: its own, or in a lossless run that of any process.
    delayed_at: Instant,
    report: Report,
}

/// Runs a plan and returns its report. If there are findings, the output of the processes stays below `parent`.
pub fn run(plan: &Plan, parent: &Path) -> Report {
    let directory = parent.join(format!("chaos-{}-{}", std::process::id(), plan.seed));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let mut run = Run::new(plan.clone(), directory.clone());
    run.disturb();
    run.end();
    let report = run.finish();
    if report.findings.is_empty() {
        let _ = std::fs::remove_dir_all(directory);
    }
    report
}

/// Chooses the kinds of the members of a run, and whether each member is long-lived. The first member is the writer. The
/// others are readers and, by the plan, a cleaner and a stranger.
fn choose_members(random: &mut Random, plan: &Plan) -> Vec<(Kind, bool)> {
    let mut kinds = vec![
        (Kind::Writer, false),
        (Kind::InPlace, true),
        (Kind::InPlace, false),
        (Kind::Copying, false),
        (Kind::Observer, true),
        (Kind::Slow, false),
        (Kind::Slow, false),
        (Kind::Newest, false),
        (Kind::Hoarder, false),
        (Kind::Guest, false),
        (Kind::Threaded, false),
        (Kind::Source, true),
    ];
    if random.permille(500) {
        kinds.push((Kind::SourceNewest, false));
    }
    while kinds.len() > 7 && random.permille(250) {
        let index = random.within(1..kinds.len() as u64) as usize;
        if !kinds[index].1 {
            kinds.remove(index);
        }
    }
    if plan.clean {
        kinds.push((Kind::Cleaner, false));
    }
    if plan.objects {
        kinds.push((Kind::Stranger, false));
    }
    kinds
}

impl Run {
    fn new(plan: Plan, directory: PathBuf) -> Self {
        let mut random = Random::new(plan.seed);
        let now = Instant::now();
        let members = choose_members(&mut random, &plan)
            .into_iter()
            .enumerate()
            .map(|(index, (kind, is_long_lived))| Member {
                kind,
                index,
                is_long_lived,
                process: None,
                start_at: match index {
                    0 => now,
                    _ => now + random.millis(0..400),
                },
                output: directory.join(format!("output-{index}")),
            })
            .collect();
        Self {
            board: Board::open(&directory),
            findings: Findings::new(&directory),
            report: Report::new(&plan, &directory),
            channel: format!("rsshm-chaos-{}-{}", std::process::id(), plan.seed),
            plan,
            random,
            directory,
            members,
            incarnation: 0,
            epoch: 0,
            is_closing: false,
            is_calm: false,
            is_without_sink: false,
            published: 0,
            publish_pause: Duration::ZERO,
            delayed_at: now,
        }
    }

    /// Kills and stops processes for the time of the plan. In the calm phases between, no process is killed or stopped,
    /// and each reader has to receive frames.
    fn disturb(&mut self) {
        let ends = Instant::now() + self.plan.time;
        let mut change = Instant::now() + self.random.millis(4000..7000);
        let mut last = Instant::now();
        while Instant::now() < ends {
            std::thread::sleep(TICK);
            let now = Instant::now();
            // `step` is limited, because if this process did not run for a while, the others may not have run either.
            let step = (now - last).min(Duration::from_millis(20));
            last = now;
            // At the end, the run asks the writer to count its slots. A pipeline cannot count slots.
            self.is_without_sink = ends - now < Duration::from_secs(5);
            if now > change {
                self.is_calm = !self.is_calm;
                let time = if self.is_calm { 3500..4000 } else { 4000..9000 };
                change = now + self.random.millis(time);
                self.pause_failpoints(self.is_calm);
            }
            self.tick(now, step);
            if !self.is_calm {
                self.send_signals(step);
            }
            if !self.findings.all().is_empty() {
                self.dump("found");
                // The run ends here, because further kills and stops would hide the cause of the finding.
                break;
            }
        }
    }

    fn failpoints_file(&self, kind: Kind) -> PathBuf {
        self.directory.join(format!("failpoints-{kind:?}"))
    }

    fn pause_failpoints(&self, is_paused: bool) {
        for kind in Kind::ALL {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.failpoints_file(kind));
            file.unwrap()
                .write_all_at(&u64::from(is_paused).to_ne_bytes(), 0)
                .unwrap();
        }
    }

    /// Starts a process of a member.
    fn start(&mut self, index: usize) {
        let mut is_immune = self.members[index].is_long_lived;
        if self.members[index].kind.is_writer() {
            is_immune = self.prepare_writer(index);
        }
        let kind = self.members[index].kind;
        let assignment = Assignment {
            directory: self.directory.clone(),
            kind,
            member: self.members[index].index,
            seed: self.random.number(),
            channel: self.channel.clone(),
            lossless: self.plan.lossless,
            clean: self.plan.clean,
            objects: self.plan.objects,
            incarnation: self.incarnation,
            epoch: self.epoch,
        };
        let failpoints = self.failpoints(kind, is_immune);
        let pid = spawn(&assignment, &failpoints, &self.members[index].output);
        let now = Instant::now();
        self.members[index].process = Some(MemberProcess {
            pid,
            started: now,
            is_stopped: false,
            continue_at: None,
            awake_since: now,
            last_at: 0,
            time_without_frames: Duration::ZERO,
            is_immune,
            usage: Vec::new(),
        });
        self.report.add_start(kind);
    }

    /// Chooses the kind of the next writer. Returns whether the writer is immune.
    fn prepare_writer(&mut self, index: usize) -> bool {
        self.incarnation += 1;
        if std::mem::take(&mut self.is_closing) {
            self.board.writer_request.store(writer_request::CONTINUE, Relaxed);
        }
        let is_sink = !self.is_without_sink && self.random.permille(250);
        self.members[index].kind = if is_sink { Kind::Sink } else { Kind::Writer };
        // In a long run, some writers live long enough for a measurement of their resources.
        self.plan.time >= Duration::from_secs(40) && self.random.permille(40)
    }

    /// The value of `RSSHM_FAILPOINTS`: the seed, the kills per million passes, the stops per million passes, and the
    /// file of counts.
    fn failpoints(&mut self, kind: Kind, is_immune: bool) -> String {
        let (kills, stops) = match (is_immune, kind.is_writer()) {
            (true, false) if self.plan.lossless => (0, 50),
            (false, false) if self.plan.lossless => (250, 50),
            (true, _) => (0, 400),
            (false, true) => (60, 400),
            (false, false) => (250, 300),
        };
        let file = self.failpoints_file(kind);
        format!("{},{kills},{stops},{}", self.random.number(), file.display())
    }

    /// Starts the processes that are due, and checks which processes have died, have stopped, or receive no frames.
    fn tick(&mut self, now: Instant, step: Duration) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            if member.process.is_none() && now >= member.start_at {
                self.start(index);
            }
            self.check_process(index, now);
        }
        self.watch_writer(now, step);
        self.watch_readers(now, step);
    }

    fn check_process(&mut self, index: usize, now: Instant) {
        let kind = self.members[index].kind;
        let Some(process) = &mut self.members[index].process else {
            return;
        };
        match waitpid(process.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)).unwrap() {
            WaitStatus::Stopped(..) => {
                process.is_stopped = true;
                // Short stops are more frequent than long ones.
                let pause = Duration::from_micros(self.random.size(10..19) as u64).min(Duration::from_millis(500));
                process.continue_at.get_or_insert(now + pause);
            }
            ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                self.record_end(index, ended, now);
                return;
            }
            _ => {}
        }
        if process.is_stopped {
            // A lossless writer waits for its readers. Another writer waits for no process.
            if kind.is_writer() || self.plan.lossless {
                self.delayed_at = now;
            }
            if kind.is_writer() {
                // No reader has received a frame that this stop delays, because the run has not ended the stop yet.
                self.board.forget_death_before(self.incarnation);
            }
            if process.continue_at.is_some_and(|at| now >= at) {
                let _ = kill(process.pid, Signal::SIGCONT);
                process.is_stopped = false;
                process.continue_at = None;
                process.awake_since = now;
            }
        }
        let age = now - process.started;
        let last_measured = process.usage.last().map_or(Duration::ZERO, |(age, _)| *age);
        // The resources of a writer that will be killed soon are not measured, nor those of a stranger, which holds
        // connections.
        let is_short_lived = kind.is_writer() && !process.is_immune || kind == Kind::Stranger;
        if age - last_measured > USAGE_INTERVAL
            && !is_short_lived
            && let Some(usage) = Usage::of(process.pid)
        {
            process.usage.push((age, usage));
        }
    }

    /// Records the end of a process. The end is a violation unless the process was killed or asked to end.
    fn record_end(&mut self, index: usize, ended: WaitStatus, now: Instant) {
        let member = &mut self.members[index];
        let Some(process) = member.process.take() else {
            return;
        };
        self.report.add_usage(member.kind, &process.usage);
        let is_expected = match ended {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            WaitStatus::Exited(_, 0) => self.is_closing && member.kind.is_writer(),
            _ => false,
        };
        if !is_expected {
            let output = std::fs::read_to_string(&member.output).unwrap_or_default();
            let lines: Vec<&str> = output.lines().collect();
            let last_lines = &lines[lines.len().saturating_sub(30)..];
            self.findings.add(&format!(
                "{} {} ended: {ended:?}: {}",
                member.kind.name(),
                process.pid,
                last_lines.join(" | ")
            ));
        }
        if member.kind.is_writer() {
            self.board.record_death(self.incarnation, monotonic_ns());
            member.start_at = now;
        } else {
            member.start_at = now + self.random.millis(0..300);
        }
    }

    /// Whether the writer is awake and has had time to publish.
    fn is_writer_settled(&self, now: Instant) -> bool {
        let writer = self.members[0].process.as_ref();
        writer.is_some_and(|it| !it.is_stopped && now - it.awake_since > SETTLING_TIME)
    }

    /// Checks that the writer publishes frames while no stop delays it.
    fn watch_writer(&mut self, now: Instant, step: Duration) {
        let published = self.board.counters[0].published.load(Relaxed);
        let is_excused = !self.is_writer_settled(now) || now - self.delayed_at < SETTLING_TIME;
        if published != self.published || is_excused {
            self.published = published;
            self.publish_pause = Duration::ZERO;
            return;
        }
        self.publish_pause += step;
        self.report.add_publish_pause(self.publish_pause);
        let limit = on_this_machine(if self.plan.lossless {
            MAX_LOSSLESS_PUBLISH_PAUSE
        } else {
            MAX_PUBLISH_PAUSE
        });
        if self.publish_pause > limit {
            self.publish_pause = Duration::ZERO;
            self.findings.add(&format!(
                "the writer publishes nothing for {limit:?}, and no stop delays it"
            ));
            self.dump("stuck");
        }
    }

    /// Checks that each reader that is awake receives frames while the writer publishes.
    fn watch_readers(&mut self, now: Instant, step: Duration) {
        let is_publishing = self.is_writer_settled(now) && self.published > 0 && {
            let last = self.board.counters[0].last_at.load(Relaxed);
            monotonic_ns().saturating_sub(last) < 200_000_000
        };
        for member in self.members.iter_mut().filter(|member| member.kind.is_reader()) {
            let Some(process) = &mut member.process else {
                continue;
            };
            let last_at = self.board.counters[member.index].last_at.load(Relaxed);
            if last_at != process.last_at {
                process.last_at = last_at;
                process.time_without_frames = Duration::ZERO;
            } else if is_publishing && !process.is_stopped && now - process.awake_since > SETTLING_TIME {
                process.time_without_frames += step;
                self.report.add_time_without_frames(process.time_without_frames);
                if process.time_without_frames > on_this_machine(STARVATION_TIME) {
                    process.time_without_frames = Duration::ZERO;
                    self.report.add_starved();
                    self.findings.add(&format!(
                        "{}, member {}, process {}, receives nothing for {STARVATION_TIME:?} while frames are published",
                        member.kind.name(),
                        member.index,
                        process.pid
                    ));
                }
            }
        }
    }

    /// Writes a description of the channel to a file.
    fn dump(&self, name: &str) {
        if let Some(writer) = &self.members[0].process {
            let text = dump(&self.channel, writer.pid);
            let _ = std::fs::write(self.directory.join(format!("{name}-{}", writer.pid)), text);
        }
    }

    /// Sends signals that kill and stop processes.
    fn send_signals(&mut self, step: Duration) {
        // Stops are rarer in a lossless run, because the writer waits while one of its readers is stopped.
        let stop_factor = if self.plan.lossless { 4 } else { 1 };
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let kind = member.kind;
            let Some(process) = &mut member.process else {
                continue;
            };
            let (mean_kill, mean_stop) = match (kind.is_writer(), process.is_immune) {
                (true, false) => (Duration::from_millis(2500), Duration::from_millis(2000)),
                // Kills are rare here, so that the process lives long enough for a measurement of its resources.
                (true, true) => (Duration::from_secs(10), Duration::from_millis(2000)),
                (false, false) => (Duration::from_secs(5), Duration::from_millis(2500)),
                (false, true) => (Duration::MAX, Duration::from_millis(2500)),
            };
            let signal = if self.random.happens(step, mean_kill) {
                if kind.is_writer() && self.random.permille(150) {
                    self.close_writer();
                    continue;
                }
                Signal::SIGKILL
            } else if self.random.happens(step, mean_stop * stop_factor) {
                Signal::SIGSTOP
            } else {
                continue;
            };
            let _ = kill(process.pid, signal);
            self.report.add_signal(kind, signal);
        }
    }

    /// Asks the writer to close the channel, instead of a kill.
    fn close_writer(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.epoch += 1;
            self.board.writer_request.store(writer_request::CLOSE, Relaxed);
        }
    }

    /// Waits until `is_done` holds. Kills and stops no process meanwhile. `false` if it does not hold within `time`.
    fn wait_calmly(&mut self, time: Duration, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        let began = Instant::now();
        while !is_done(self) {
            if began.elapsed() > time {
                return false;
            }
            std::thread::sleep(TICK);
            self.tick(Instant::now(), Duration::ZERO);
        }
        true
    }

    /// Ends all processes. Checks that no slots are lost and no files remain.
    fn end(&mut self) {
        self.is_without_sink = true;
        self.pause_failpoints(true);
        let is_awake = |member: &Member| member.process.as_ref().is_some_and(|process| !process.is_stopped);
        let has_writer = |run: &Self| run.members[0].kind == Kind::Writer && !run.is_closing;
        if !has_writer(self)
            && let Some(process) = &self.members[0].process
        {
            let _ = kill(process.pid, Signal::SIGKILL);
        }
        let all_continue = self.wait_calmly(on_this_machine(ENDING_TIME), |run| {
            let publishes = run.members[0]
                .process
                .as_ref()
                .is_some_and(|it| it.started.elapsed() > SETTLING_TIME);
            has_writer(run) && publishes && run.members.iter().all(is_awake)
        });
        if !all_continue {
            self.findings.add("not all processes continue in the end");
        }
        self.end_readers();
        self.count_slots();
        self.epoch += 1;
        self.is_closing = true;
        self.board.writer_request.store(writer_request::CLOSE, Relaxed);
        let has_ended = self.wait_calmly(on_this_machine(ENDING_TIME), |run| run.members[0].process.is_none());
        self.members[0].start_at = Instant::now() + NEVER;
        if !has_ended {
            self.findings.add("the writer does not end");
            self.kill(0);
        }
        self.check_leftovers();
    }

    /// Kills half of the readers and asks the others to end.
    fn end_readers(&mut self) {
        let never = Instant::now() + NEVER;
        for index in 1..self.members.len() {
            self.members[index].start_at = never;
            if self.random.permille(500) {
                self.kill(index);
            }
        }
        self.board.request.store(request::END, Relaxed);
        let began = Instant::now();
        for index in 1..self.members.len() {
            while let Some(process) = &self.members[index].process {
                match waitpid(process.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::StillAlive if began.elapsed() < on_this_machine(ENDING_TIME) => {
                        std::thread::sleep(TICK)
                    }
                    WaitStatus::StillAlive => {
                        let what = format!("{} does not end", self.members[index].kind.name());
                        self.findings.add(&what);
                        self.kill(index);
                    }
                    WaitStatus::Exited(_, 0) => {
                        let member = &mut self.members[index];
                        let usage = member.process.take().map(|process| process.usage).unwrap_or_default();
                        self.report.add_usage(member.kind, &usage);
                    }
                    status => self.record_end(index, status, never),
                }
                self.members[index].start_at = never;
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        if let Some(process) = member.process.take() {
            let _ = kill(process.pid, Signal::SIGKILL);
            let _ = waitpid(process.pid, None);
            self.report.add_usage(member.kind, &process.usage);
        }
    }

    /// Checks that all slots can be used after all readers have ended.
    fn count_slots(&mut self) {
        self.board.writer_request.store(writer_request::COUNT_SLOTS, Relaxed);
        let board = self.board;
        if !self.wait_calmly(on_this_machine(ENDING_TIME), |_| board.slots.load(Acquire) != 0) {
            self.findings.add("the writer does not report its slots");
            return;
        }
        let slots = board.slots.load(Relaxed) - 1;
        let lost = slots.saturating_sub(board.slots_used.load(Relaxed));
        self.report.set_slots(slots, lost);
        if lost > 0 {
            self.findings.add(&format!("{lost} of {slots} slots are lost"));
        }
    }

    /// Checks that the closed writer left no file, and that a new writer removes the staging files of dead processes.
    fn check_leftovers(&mut self) {
        let directory = Path::new(Directory::current().path());
        let mut leftovers = Vec::new();
        for prefix in ["", "sem.", "fds."] {
            let file = format!("{prefix}{}", self.channel);
            if directory.join(&file).exists() {
                leftovers.push(file);
            }
        }
        // A writer removes only staging files that are at least ten seconds old, so their times are set back here.
        for file in staging_files() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let old = TimeSpec::from_duration(now - Duration::from_secs(11));
            // A socket cannot be opened, so the times are set by its name.
            let _ = utimensat(AT_FDCWD, &file, &old, &old, UtimensatFlags::NoFollowSymlink);
        }
        let name = ChannelName::new(format!("{}-end", self.channel)).unwrap();
        drop(Writer::open(name, WriterOptions::default()).unwrap());
        leftovers.extend(staging_files().iter().map(|path| path.display().to_string()));
        for leftover in &leftovers {
            self.findings
                .add(&format!("{leftover} is left in {}", directory.display()));
            let _ = std::fs::remove_file(directory.join(leftover));
        }
        self.report.set_leftovers(leftovers);
    }

    fn finish(mut self) -> Report {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        for member in &self.members {
            let stall = Duration::from_nanos(self.board.counters[member.index].stall.load(Relaxed));
            if stall > on_this_machine(MAX_STALL) {
                self.findings.add(&format!("a claim and publish took {stall:?}"));
            }
        }
        for member in self.members.iter().filter(|member| member.kind == Kind::Cleaner) {
            let counters = &self.board.counters[member.index];
            let (removed, kept) = (counters.removed.load(Relaxed), counters.kept.load(Relaxed));
            println!("clean: {removed} times removed, {kept} times kept");
            if kept == 0 {
                self.findings.add("the cleaner has never looked");
            }
        }
        for kind in Kind::ALL {
            let counts = FailpointCounts::read(&self.failpoints_file(kind));
            self.report.set_failpoints(kind, counts);
        }
        for member in &self.members {
            self.report
                .add_counters(member.kind, &self.board.counters[member.index]);
        }
        self.report.set_recoveries(self.board.recoveries());
        self.report.check_usage(&self.findings);
        self.report.findings = self.findings.all();
        self.report
    }
}

/// Starts a process. Returns its process ID, because the run waits with `waitpid`. [`std::process::Child`] does not
/// report stops.
#[allow(clippy::zombie_processes)]
fn spawn(assignment: &Assignment, failpoints: &str, output: &Path) -> Pid {
    let output = File::options().append(true).create(true).open(output).unwrap();
    let assignment = serde_json::to_string(assignment).unwrap();
    let child = role_command(PROCESS, &[&assignment])
        .env("RSSHM_FAILPOINTS", failpoints)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    Pid::from_raw(child.id() as i32)
}

/// The staging files of processes that have ended.
fn staging_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Directory::current().path()).unwrap().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap_or_default();
            let pid = name.strip_prefix(".rsshm-").and_then(|rest| rest.split('-').next());
            // Living processes of other tests may have staging files too.
            pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
                && entry
                    .metadata()
                    .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw())
        })
        .map(|entry| entry.path())
        .collect()
}
