//! The places of frames in the running time of the reader's pipeline.

/// For so long, in nanoseconds and over its latency, a writer's frames may be from before this pipeline's time. If they
/// still are, it is simply late (too slow for its frame rate, say), and is shown as such.
const LATE_AT_FIRST: i64 = 1_000_000_000;

/// What was further in the future than that, in nanoseconds, is not waited for: its writer did not keep to the clock.
const FAR: i64 = 1_000_000_000;

/// What is between two frames at least, in nanoseconds.
const LEAST_STEP: i64 = 1_000;

/// A frame that is to have its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// When it was captured, or is to be decoded: CLOCK_MONOTONIC, and as running time.
    pub(super) time: i64,
    pub(super) running: i64,
    pub(super) now: i64,
    /// It is the first since the pipeline went to PLAYING.
    pub(super) first: bool,
    /// So much later than their time frames leave their writer.
    pub(super) latency: i64,
    /// Frames have the order of these times. (Encoded ones that say only when they are shown need not.)
    pub(super) in_order: bool,
    /// Others can be shown without it.
    pub(super) may_be_skipped: bool,
}

/// A frame's place is its own time. Only what would be before the pipeline's time, or before the frame that was passed on
/// last, is skipped or shifted, so that time stamps rise, and are as far apart as the frames were.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Frames from before this running time have no place.
    earliest: i64,
    last: Option<Passed>,
    /// By how much the last frame was put later than its own time.
    shift: i64,
    /// This writer's frames are, and stay, from before `earliest`.
    is_late: bool,
}

/// A frame that was passed on.
#[derive(Clone, Copy, Debug)]
struct Passed {
    time: i64,
    place: i64,
}

impl Timeline {
    /// The pipeline went to PLAYING at the running time `now`. What was captured while it did not play is not for it, but
    /// for the newest frame.
    pub(super) fn resume(&mut self, now: i64) {
        // The first time, the clock and the base time are the same but for the way here.
        self.earliest = match self.last {
            None => 0,
            Some(_) => self.last_near(now).map_or(now, |last| now.max(last.place + LEAST_STEP)),
        };
    }

    /// By how much the frame is to be later than its own time; `None` when it has no place here.
    pub(super) fn place(&mut self, arrival: &Arrival) -> Option<i64> {
        let &Arrival { time, running, now, .. } = arrival;
        let last = self.last_near(now).filter(|_| arrival.in_order || arrival.first);
        let least = last.map_or(self.earliest, |last| self.earliest.max(last.place + LEAST_STEP));
        let place = if running >= least {
            self.is_late = false;
            running
        } else if arrival.first {
            least
        } else if let Some(same) = last.filter(|last| last.time == time) {
            // One frame in several buffers.
            same.place
        } else if self.may_be_early(arrival) {
            return None;
        } else {
            self.is_late = running < self.earliest;
            // As far from the one before as it was captured. But what is here already is not put off.
            running.saturating_add(self.shift).min(now).max(least)
        };
        self.shift = place.saturating_sub(running);
        self.last = Some(Passed { time, place });
        Some(self.shift)
    }

    /// By how much the last frame was put later than its own time.
    pub(super) fn shift(&self) -> i64 {
        self.shift
    }

    /// Where something between frames has its place, unless that is over.
    pub(super) fn place_of_gap(&self, running: i64) -> Option<i64> {
        let place = running.saturating_add(self.shift);
        let least = self.last.map_or(self.earliest, |last| self.earliest.max(last.place));
        (place >= least).then_some(place)
    }

    /// The last frame, unless it was from the far future.
    fn last_near(&self, now: i64) -> Option<Passed> {
        self.last.filter(|last| last.place <= now.saturating_add(FAR))
    }

    /// Whether better frames are to come than this one from before the pipeline's time.
    fn may_be_early(&self, arrival: &Arrival) -> bool {
        let since = arrival.now.saturating_sub(self.earliest);
        arrival.running < self.earliest
            && arrival.may_be_skipped
            && !self.is_late
            && since < LATE_AT_FIRST.saturating_add(arrival.latency)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Timeline};

    const MS: i64 = 1_000_000;
    const FRAME: i64 = 33 * MS;
    /// CLOCK_MONOTONIC when the pipeline began.
    const ORIGIN: i64 = 5_000_000 * MS;

    /// A raw frame with the time `running`, that comes at `now`.
    fn raw(running: i64, now: i64) -> Arrival {
        Arrival {
            time: ORIGIN + running,
            running,
            now,
            first: false,
            latency: 0,
            in_order: true,
            may_be_skipped: true,
        }
    }

    fn first(arrival: Arrival) -> Arrival {
        Arrival { first: true, ..arrival }
    }

    /// Where the frame is put.
    fn place(timeline: &mut Timeline, arrival: Arrival) -> Option<i64> {
        timeline.place(&arrival).map(|shift| arrival.running + shift)
    }

    #[test]
    fn of_the_frames_from_before_the_start_only_the_newest_is_shown() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(-100 * MS, MS))), Some(0));
        assert_eq!(place(&mut timeline, raw(-67 * MS, 33 * MS)), None);
        assert_eq!(place(&mut timeline, raw(-34 * MS, 66 * MS)), None);
        assert_eq!(place(&mut timeline, raw(-MS, 99 * MS)), None);
        assert_eq!(place(&mut timeline, raw(32 * MS, 132 * MS)), Some(32 * MS));
    }

    #[test]
    fn a_late_writers_frames_keep_their_spacing_until_it_has_caught_up() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        // A frame each 20 ms, of which it believes that it is 1 ms after the one before.
        let own_time = |n: i64| (n - 200) * MS;
        let mut put = |n, running| {
            let arrival = raw(running, n * 20 * MS);
            place(&mut timeline, if n == 0 { first(arrival) } else { arrival })
        };
        assert_eq!(put(0, own_time(0)), Some(0));
        // They might be early ones of a writer that is on time.
        assert!((1..50).all(|n| put(n, own_time(n)).is_none()));
        for n in 50..150 {
            assert_eq!(
                put(n, own_time(n)),
                Some(n * MS),
                "as far from the first as they were captured"
            );
        }
        // Behind by less, but still before what was shown last.
        assert_eq!(put(150, 100 * MS), Some(300 * MS));
        assert_eq!(put(151, 2900 * MS), Some(2900 * MS));
        assert_eq!(put(152, 2920 * MS), Some(2920 * MS));
    }

    #[test]
    fn a_writer_that_is_late_by_its_latency_is_waited_for() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        let frame = |n: i64| Arrival {
            latency: 2000 * MS,
            ..raw(n * FRAME - 2000 * MS, n * FRAME)
        };
        assert_eq!(place(&mut timeline, first(frame(0))), Some(0));
        for n in 1..200 {
            let frame = frame(n);
            assert_eq!(
                place(&mut timeline, frame),
                (frame.running >= MS).then_some(frame.running)
            );
        }
    }

    #[test]
    fn of_frames_that_need_each_other_none_is_skipped() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        let mut last = -1;
        // A key unit from before the start and what came after it, all at once, then as it is captured.
        for n in 0..60 {
            let running = n * FRAME - 1000 * MS;
            let now = running.max(n * MS / 10 + MS);
            let arrival = Arrival {
                first: n == 0,
                may_be_skipped: false,
                ..raw(running, now)
            };
            let place = place(&mut timeline, arrival).unwrap();
            assert!(place > last && place <= now);
            assert!(
                running < 0 || place - running < FRAME,
                "and time is caught up with at once"
            );
            last = place;
        }
    }

    #[test]
    fn time_that_stands_still_collapses_nothing() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(100 * MS, 101 * MS))), Some(100 * MS));
        let mut last = 100 * MS;
        // The pipeline's clock was set back, and stands still until its time has come again.
        for _ in 0..10 {
            let shown = place(
                &mut timeline,
                Arrival {
                    time: last,
                    ..raw(99 * MS, 101 * MS)
                },
            )
            .unwrap();
            assert!(shown > last && shown < 102 * MS);
            last = shown;
        }
        assert_eq!(place(&mut timeline, raw(133 * MS, 134 * MS)), Some(133 * MS));
    }

    #[test]
    fn buffers_of_one_frame_stay_together() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(-10 * MS, MS))), Some(0));
        assert_eq!(place(&mut timeline, raw(-10 * MS, MS)), Some(0));
        assert_eq!(place(&mut timeline, raw(23 * MS, 24 * MS)), Some(23 * MS));
        // The offset of the pipeline's clock was measured anew in between.
        let again = Arrival {
            time: ORIGIN + 23 * MS,
            ..raw(23 * MS - 40, 24 * MS)
        };
        assert_eq!(place(&mut timeline, again), Some(23 * MS));
    }

    #[test]
    fn frames_that_come_in_another_order_than_they_are_shown_keep_their_times() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        for n in [0, 3, 1, 2, 6, 4, 5] {
            let arrival = Arrival {
                first: n == 0,
                in_order: false,
                may_be_skipped: false,
                ..raw(n * FRAME, 10 * FRAME)
            };
            assert_eq!(place(&mut timeline, arrival), Some(n * FRAME));
        }
    }

    #[test]
    fn the_far_future_is_not_waited_for() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(60_000 * MS, MS))), Some(60_000 * MS));
        // Its writer is gone, and another is there.
        assert_eq!(place(&mut timeline, raw(30 * MS, 31 * MS)), Some(30 * MS));
        timeline.resume(50 * MS);
        assert_eq!(place(&mut timeline, first(raw(30 * MS, 51 * MS))), Some(50 * MS));
    }

    #[test]
    fn a_pause_never_turns_time_back() {
        let mut timeline = Timeline::default();
        let mut last = -1;
        let mut running = 0;
        for round in 0..4 {
            timeline.resume(running);
            // The newest frame was captured before the pause, during it, or not at all since then.
            for n in 0..10 {
                let captured = running - [0, 3, 50, 1000][round] * MS * i64::from(n == 0);
                let arrival = Arrival {
                    first: n == 0,
                    ..raw(captured, running + MS)
                };
                if let Some(place) = place(&mut timeline, arrival) {
                    assert!(place > last, "{place} is after {last}");
                    last = place;
                }
                running += FRAME;
            }
        }
    }
}
