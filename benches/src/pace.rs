// SPDX-License-Identifier: MIT OR Apache-2.0

//! Paces a producer: determines when each frame is due and which frames count. Measures the resources that the process
//! uses for the frames that count.

use std::sync::Arc;

use nix::{
    errno::Errno,
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeSpec, TimeValLike},
    },
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
};
use serde::{Deserialize, Serialize};

use crate::{frame::SEQ_UNKNOWN, ipc::Commands, job::Job};

/// Shortest period of the frames before the warm-up and after the frames that count. A case with a longer period keeps
/// its own.
const IDLE_PERIOD_NS: u64 = 20_000_000;

fn clock_ns(clock: ClockId) -> u64 {
    // The clocks used here cannot fail on Linux.
    clock_gettime(clock).map_or(0, |time| time.num_nanoseconds() as u64)
}

/// The time of CLOCK_MONOTONIC. All processes see the same value.
pub fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// The CPU time of this thread.
pub fn thread_ns() -> u64 {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps until CLOCK_MONOTONIC reaches `due_ns`.
pub fn sleep_until(due_ns: u64) {
    let due = TimeSpec::nanoseconds(due_ns as i64);
    // If a signal interrupts the sleep, it continues.
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due) == Err(Errno::EINTR) {}
}

/// The resources that a process has used, either since its start or between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_us: f64,
    pub page_faults: f64,
    pub context_switches: f64,
}

impl Usage {
    pub fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return Self::default();
        };
        let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let faults = usage.minor_page_faults() + usage.major_page_faults();
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Self {
            cpu_us: cpu as f64,
            page_faults: faults as f64,
            context_switches: switches as f64,
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us - before.cpu_us,
            page_faults: self.page_faults - before.page_faults,
            context_switches: self.context_switches - before.context_switches,
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us + other.cpu_us,
            page_faults: self.page_faults + other.page_faults,
            context_switches: self.context_switches + other.context_switches,
        }
    }

    /// The mean of several processes. `None` if there are none.
    pub fn mean(usages: impl ExactSizeIterator<Item = Self>) -> Option<Self> {
        let count = usages.len() as u64;
        (count > 0).then(|| usages.fold(Self::default(), Self::plus).per_frame(count))
    }

    /// The share of each of so many frames, or buffers.
    pub fn per_frame(self, frames: u64) -> Self {
        let frames = frames.max(1) as f64;
        Self {
            cpu_us: self.cpu_us / frames,
            page_faults: self.page_faults / frames,
            context_switches: self.context_switches / frames,
        }
    }
}

/// The seq of the next frame, and the range of frames that count.
#[derive(Clone, Copy)]
pub struct Step {
    pub seq: u64,
    /// Seq of the first frame that counts.
    pub first: u64,
    /// Seq of the first frame after those that count.
    pub end: u64,
}

impl Step {
    pub fn is_counted(self) -> bool {
        (self.first..self.end).contains(&self.seq)
    }
}

/// Paces a producer from frame to frame.
///
/// The rate is low until all consumers have received a frame. Then it is the rate of the case, first for the warm-up
/// frames and then for the frames that count. Afterwards it is low until the parent process requests the end.
pub struct Pacer {
    period_ns: u64,
    frames: u64,
    warm: u64,
    commands: Arc<Commands>,
    on_end: Box<dyn FnMut(Usage) + Send>,
    /// The seq of the next frame.
    seq: u64,
    first: u64,
    end: u64,
    due_ns: u64,
    /// Usage of the process before the first frame that counts.
    usage_before: Usage,
}

impl Pacer {
    /// A pacer that calls `on_end` after the last frame that counts. The argument of `on_end` is the usage per frame.
    pub fn new(job: &Job, commands: Arc<Commands>, on_end: impl FnMut(Usage) + Send + 'static) -> Self {
        Self {
            period_ns: 1_000_000_000_u64.checked_div(u64::from(job.case.rate)).unwrap_or(0),
            frames: job.frames,
            warm: job.warm,
            commands,
            on_end: Box::new(on_end),
            seq: 0,
            first: SEQ_UNKNOWN,
            end: SEQ_UNKNOWN,
            due_ns: 0,
            usage_before: Usage::default(),
        }
    }

    /// Waits until the next frame is due. Returns `None` if the parent process requests the end.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.first == SEQ_UNKNOWN && self.commands.has_go() {
            self.first = self.seq + self.warm;
            self.end = self.first + self.frames;
        }
        if self.seq == self.first {
            self.usage_before = Usage::now();
        }
        if self.seq == self.end {
            (self.on_end)(Usage::now().since(self.usage_before).per_frame(self.frames));
        }
        let is_idle = self.first == SEQ_UNKNOWN || self.seq >= self.end;
        let period = if is_idle {
            self.period_ns.max(IDLE_PERIOD_NS)
        } else {
            self.period_ns
        };
        // A producer that is late does not send faster afterwards, as a camera does not.
        self.due_ns = (self.due_ns + period).max(now_ns());
        if period > 0 {
            sleep_until(self.due_ns);
        }
        if self.commands.has_stop() {
            return None;
        }
        let step = Step {
            seq: self.seq,
            first: self.first,
            end: self.end,
        };
        self.seq += 1;
        Some(step)
    }
}
