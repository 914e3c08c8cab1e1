// SPDX-License-Identifier: MIT OR Apache-2.0

//! The requests of all readers for keyframes: those for a keyframe as soon as possible, which become one, and those for
//! a keyframe of a later time, which are merged by time.

use std::time::{Duration, Instant};

use super::service::ServiceReport;
use crate::{
    FrameDescriptor,
    protocol::{
        keyframe::KeyframeRequest,
        layout::{MAX_READERS, TIME_NONE},
    },
};

/// The least time between two reports that a keyframe is wanted at once. It limits the bits that an encoder spends on
/// keyframes. All readers use the same keyframe.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// Two requests whose times are less than this many nanoseconds apart mean the same frame. Times of readers with
/// different clocks differ by microseconds.
const SAME_FRAME_NS: u64 = 1_000_000;
/// The most keyframes that one reader can get within [`RATE_PERIOD_NS`] by requests for a time.
const MAX_REQUESTS_IN_PERIOD: usize = 8;
const RATE_PERIOD_NS: u64 = 1_000_000_000;
/// The most requests for a later time that are kept for one reader, and for all readers.
const MAX_PENDING: usize = 16;
const MAX_PENDING_OF_ALL: usize = MAX_PENDING * MAX_READERS;
/// A request is forgotten this many nanoseconds after its time, whether a keyframe came or not.
const FORGET_AFTER_NS: u64 = 5_000_000_000;

/// The newest frames of the stream, and which keyframes readers want.
#[derive(Debug, Default)]
pub(super) struct KeyframeRequests {
    /// The seq of the newest keyframe.
    newest: u64,
    /// The time of the newest keyframe, if it has one.
    newest_time: Option<u64>,
    /// The time of the newest frame, if it has one.
    head_time: Option<u64>,
    wanted_now: Option<WantedNow>,
    reported_at: Option<Instant>,
    timed: Vec<TimedRequest>,
}

/// The merged requests for a keyframe as soon as possible.
#[derive(Clone, Copy, Debug)]
struct WantedNow {
    /// The seq of the newest frame at the first request that no keyframe has answered yet.
    since: u64,
    request: KeyframeRequest,
}

/// One owner of a reader entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderId {
    pub(super) entry: usize,
    pub(super) generation: u32,
}

/// A request for a keyframe of a later time. It stays when its reader goes, because it may stand for the requests of
/// other readers too.
#[derive(Clone, Copy, Debug)]
struct TimedRequest {
    request: KeyframeRequest,
    /// The reader that sent the request first.
    reader: ReaderId,
    /// Whether a keyframe of that time or later was published.
    is_answered: bool,
    is_reported_as_due: bool,
}

impl KeyframeRequests {
    /// Records a frame that was published.
    pub(super) fn note_frame(&mut self, seq: u64, descriptor: &FrameDescriptor) {
        let time = [descriptor.pts, descriptor.dts]
            .into_iter()
            .find(|time| *time != TIME_NONE);
        self.head_time = time;
        if descriptor.keyframe == 0 {
            return;
        }
        self.newest = seq;
        self.newest_time = time;
        for timed in &mut self.timed {
            timed.is_answered |= time.is_some_and(|time| time >= timed.request.time);
        }
    }

    /// Adds a request for a keyframe as soon as possible. `head` is the seq of the newest frame.
    pub(super) fn add_immediate(&mut self, request: KeyframeRequest, head: u64) {
        match &mut self.wanted_now {
            Some(wanted) => {
                wanted.request.all_headers |= request.all_headers;
                wanted.request.count = request.count;
            }
            None => self.wanted_now = Some(WantedNow { since: head, request }),
        }
    }

    /// Adds a request for a keyframe of a later time, which `reader` has sent. The
    /// request is reported, unless another one has the same effect or the reader sends too many.
    pub(super) fn add_timed(&mut self, request: KeyframeRequest, reader: ReaderId, report: &mut ServiceReport) {
        let time = request.time;
        if self.newest_time.is_some_and(|newest| newest >= time) {
            return;
        }
        // Requests for times in the past all mean the next frame.
        let head = self.head_time.unwrap_or(0);
        let is_same_frame = |other: &TimedRequest| {
            let is_near = other.request.time.abs_diff(time) < SAME_FRAME_NS;
            let are_past = other.request.time <= head && time <= head && !other.is_answered;
            is_near || are_past
        };
        let has_headers = |other: &TimedRequest| other.request.all_headers || !request.all_headers;
        if self
            .timed
            .iter()
            .any(|other| is_same_frame(other) && has_headers(other))
        {
            return;
        }
        if !self.make_room(time.max(head), reader) {
            return;
        }
        self.timed.push(TimedRequest {
            request,
            reader,
            is_answered: false,
            is_reported_as_due: false,
        });
        report.keyframe_requests.push(request);
    }

    /// Makes room for another request of `reader`, for a frame of the time `time`. Returns `false` if this reader wants
    /// too many keyframes.
    fn make_room(&mut self, time: u64, reader: ReaderId) -> bool {
        let own = || self.timed.iter().filter(|timed| timed.reader == reader);
        let near = own().filter(|timed| timed.request.time.abs_diff(time) < RATE_PERIOD_NS);
        if near.count() >= MAX_REQUESTS_IN_PERIOD || own().count() >= MAX_PENDING {
            return false;
        }
        if self.timed.len() >= MAX_PENDING_OF_ALL {
            // Readers that are gone have left these requests. Those furthest in the future are the least likely to be
            // meant.
            let furthest = self.timed.iter().map(|timed| timed.request.time).max();
            self.timed.retain(|timed| Some(timed.request.time) != furthest);
        }
        true
    }

    /// Adds to `report` the requests that want a keyframe now, and forgets old requests.
    pub(super) fn report_due(&mut self, now: u64, report: &mut ServiceReport) {
        report.due_keyframe_requests.extend(self.take_immediate());
        // Frames of a file may be ahead of the clock.
        let reached = self.head_time.map_or(now, |head| head.max(now));
        for timed in &mut self.timed {
            if timed.request.time <= reached && !timed.is_answered && !timed.is_reported_as_due {
                timed.is_reported_as_due = true;
                report.due_keyframe_requests.push(timed.request);
            }
        }
        report.keyframe_wanted = !report.due_keyframe_requests.is_empty();
        self.timed.retain(|timed| {
            let age = reached.saturating_sub(timed.request.time);
            age < if timed.is_answered {
                RATE_PERIOD_NS
            } else {
                FORGET_AFTER_NS
            }
        });
    }

    /// The request to report in this pass for a keyframe as soon as possible.
    fn take_immediate(&mut self) -> Option<KeyframeRequest> {
        let wanted = self.wanted_now?;
        if self.newest > wanted.since {
            self.wanted_now = None;
            return None;
        }
        let is_due = self
            .reported_at
            .is_none_or(|reported_at| reported_at.elapsed() >= KEYFRAME_INTERVAL);
        if !is_due {
            return None;
        }
        self.wanted_now = None;
        self.reported_at = Some(Instant::now());
        Some(wanted.request)
    }

    /// How long the service may sleep until the next request is due; `None` if no request waits for its time.
    pub(super) fn time_until_due(&self, now: u64) -> Option<Duration> {
        let waiting = self
            .timed
            .iter()
            .filter(|timed| !timed.is_answered && !timed.is_reported_as_due);
        let next = waiting.map(|timed| timed.request.time).min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }
}
