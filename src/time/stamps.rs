// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds out whether a timestamp was taken before or after a step of the clock.

use super::filter::Step;

/// Finds the timestamps that were taken before a step of the clock, but arrive after it.
///
/// A timestamp gives one monotonic time with the old offset, and another one with the new offset:
///
/// - If the time with the old offset is later than the measurement that showed the step, the timestamp was taken after
///   the step.
/// - If the time with the new offset is in the future, the timestamp was taken before the step. The same holds if this
///   time is earlier than the last measurement before the step.
/// - Otherwise, the regular distance of frames gives an expected time. The offset whose time is nearer to it is used.
#[derive(Debug, Default)]
pub(super) struct StepTracker {
    /// The last step; `None` once a timestamp from after the step has arrived.
    step: Option<Step>,
    /// The last timestamp, as the clock gave it.
    last_stamp: Option<i64>,
    /// The monotonic time of the last timestamp.
    last: Option<i64>,
    /// The distance between the last two timestamps.
    interval: i64,
}

impl StepTracker {
    pub(super) fn record_step(&mut self, step: Step) {
        // A clock that stands still shows a step with each measurement. These steps become one, from the first to the
        // last.
        let earlier = self.step.unwrap_or(step);
        self.step = Some(Step {
            seen: step.seen,
            ..earlier
        });
    }

    /// The offset that turns the timestamp `stamp` into monotonic time. `offset` is the current offset.
    pub(super) fn offset(&mut self, stamp: i64, offset: i64, now: i64) -> i64 {
        let is_next = self.last_stamp.replace(stamp) != Some(stamp);
        let Some(step) = self.step else {
            let time = stamp.saturating_add(offset);
            // If a frame could not be sent at once, its timestamp comes again, which must not change the interval.
            if is_next {
                self.interval = self.last.map_or(0, |last| time.saturating_sub(last));
            }
            self.last = Some(time);
            return offset;
        };
        let expected = self.last.map(|last| last.saturating_add(self.interval));
        self.last = expected;
        if is_before(&step, stamp, offset, now, expected) {
            return step.offset_before;
        }
        // This timestamp is from after the step, so all later timestamps are from after the step too.
        self.step = None;
        self.last = Some(stamp.saturating_add(offset));
        offset
    }
}

/// Whether the timestamp `stamp` is from before the step. `expected` is its likely monotonic time.
fn is_before(step: &Step, stamp: i64, offset: i64, now: i64, expected: Option<i64>) -> bool {
    let (before, after) = (stamp.saturating_add(step.offset_before), stamp.saturating_add(offset));
    if before > step.seen {
        return false;
    }
    if after < step.after || after > now {
        return true;
    }
    expected.is_some_and(|expected| before.abs_diff(expected) < after.abs_diff(expected))
}
