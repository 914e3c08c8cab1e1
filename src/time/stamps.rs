// SPDX-License-Identifier: MIT OR Apache-2.0

//! Timestamps around a step of the clock that they were taken with.

use super::filter::Step;

/// Finds the timestamps that were taken before a step of the clock, but arrive after it.
///
/// A timestamp is from before the step if it would otherwise be from before the last measurement, or from the future.
/// In all other cases, it is compared with the time that the regular distance of frames makes likely.
#[derive(Debug, Default)]
pub(super) struct StepTracker {
    /// The last step, while timestamps from before it may still arrive.
    step: Option<Step>,
    /// The last timestamp, in the time of the clock.
    last_stamp: Option<i64>,
    /// The monotonic time of the last timestamp.
    last: Option<i64>,
    /// The distance between the last two timestamps.
    interval: i64,
}

impl StepTracker {
    pub(super) fn record_step(&mut self, step: Step) {
        // A clock that stands still shows a step with each measurement.
        let earlier = self.step.unwrap_or(step);
        self.step = Some(Step {
            seen: step.seen,
            ..earlier
        });
    }

    /// The offset that turns the timestamp `stamp` into monotonic time; `offset` is the current offset.
    pub(super) fn offset(&mut self, stamp: i64, offset: i64, now: i64) -> i64 {
        let is_next = self.last_stamp.replace(stamp) != Some(stamp);
        let Some(step) = self.step else {
            let time = stamp.saturating_add(offset);
            // The same timestamp comes again if a frame could not be sent at once.
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
        // All timestamps after this one are from after the step as well.
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
