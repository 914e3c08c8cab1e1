//! Time stamps around a step of the clock that they were taken with.

use super::filter::Step;

/// Tells which time stamps were taken before the clock was stepped, though they come after it.
///
/// That is known of those that would be from before the last measurement, or from the future. In between, frames come at
/// regular times.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    step: Option<Step>,
    last_stamp: Option<i64>,
    /// Its monotonic time, and by how much that is after the one before.
    last: Option<i64>,
    interval: i64,
}

impl Stamps {
    pub(super) fn stepped(&mut self, step: Step) {
        // One that stands still is stepped with each measurement.
        let earlier = self.step.unwrap_or(step);
        self.step = Some(Step {
            seen: step.seen,
            ..earlier
        });
    }

    /// The offset that makes the time `stamp` of the clock a monotonic one; `offset` is what it is now.
    pub(super) fn offset(&mut self, stamp: i64, offset: i64, now: i64) -> i64 {
        let is_next = self.last_stamp.replace(stamp) != Some(stamp);
        let Some(step) = self.step else {
            let time = stamp.saturating_add(offset);
            // A frame that could not be sent at once comes again.
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
        // What comes after this one was taken after it.
        self.step = None;
        self.last = Some(stamp.saturating_add(offset));
        offset
    }
}

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
