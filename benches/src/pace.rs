//! When a producer's frames are due, which of them count, and what these cost.

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

use crate::{frame::NOT_YET, order::Order, talk::Told};

/// While nothing is counted.
const IDLE_PERIOD_NS: u64 = 20_000_000;

fn clock_ns(clock: ClockId) -> u64 {
    // Neither clock can fail on Linux.
    clock_gettime(clock).map_or(0, |time| time.num_nanoseconds() as u64)
}

/// CLOCK_MONOTONIC, the same in all processes.
pub fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// The processor time of this thread.
pub fn thread_ns() -> u64 {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

pub fn sleep_until(due_ns: u64) {
    let due = TimeSpec::nanoseconds(due_ns as i64);
    // Interrupted, it sleeps on.
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due) == Err(Errno::EINTR) {}
}

/// What a process has used so far, or between two moments.
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

    pub fn per(self, frames: u64) -> Self {
        let frames = frames.max(1) as f64;
        Self {
            cpu_us: self.cpu_us / frames,
            page_faults: self.page_faults / frames,
            context_switches: self.context_switches / frames,
        }
    }
}

/// The next frame's number, and which are counted.
#[derive(Clone, Copy)]
pub struct Step {
    pub number: u64,
    pub first: u64,
    pub end: u64,
}

impl Step {
    pub fn is_counted(self) -> bool {
        (self.first..self.end).contains(&self.number)
    }
}

/// Leads a producer from frame to frame: slowly until all consumers have one, then at the case's rate, first the frames
/// that warm up, then those that count, and slowly again until it is told to stop.
pub struct Pace {
    period_ns: u64,
    frames: u64,
    warm: u64,
    told: Arc<Told>,
    at_end: Box<dyn FnMut(Usage) + Send>,
    number: u64,
    first: u64,
    end: u64,
    due_ns: u64,
    began: Usage,
}

impl Pace {
    /// `at_end` is told what the counted frames have cost, each.
    pub fn new(order: &Order, told: Arc<Told>, at_end: impl FnMut(Usage) + Send + 'static) -> Self {
        Self {
            period_ns: 1_000_000_000_u64.checked_div(u64::from(order.case.rate)).unwrap_or(0),
            frames: order.frames,
            warm: order.warm,
            told,
            at_end: Box::new(at_end),
            number: 0,
            first: NOT_YET,
            end: NOT_YET,
            due_ns: 0,
            began: Usage::default(),
        }
    }

    /// Waits until the next frame is due; `None`: no more.
    pub fn step(&mut self) -> Option<Step> {
        if self.first == NOT_YET && self.told.go() {
            self.first = self.number + self.warm;
            self.end = self.first + self.frames;
        }
        if self.number == self.first {
            self.began = Usage::now();
        }
        if self.number == self.end {
            (self.at_end)(Usage::now().since(self.began).per(self.frames));
        }
        let is_idle = self.first == NOT_YET || self.number >= self.end;
        let period = if is_idle {
            self.period_ns.max(IDLE_PERIOD_NS)
        } else {
            self.period_ns
        };
        // Late, it does not hurry afterwards: neither does a camera.
        self.due_ns = (self.due_ns + period).max(now_ns());
        if period > 0 {
            sleep_until(self.due_ns);
        }
        if self.told.stop() {
            return None;
        }
        let step = Step {
            number: self.number,
            first: self.first,
            end: self.end,
        };
        self.number += 1;
        Some(step)
    }
}
