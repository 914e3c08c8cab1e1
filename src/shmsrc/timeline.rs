// SPDX-License-Identifier: MIT OR Apache-2.0

//! Maps the times of frames to the running time of the reader's pipeline.

/// During this period after the start, in nanoseconds, frames from before the start are skipped. The period is extended
/// by the writer's latency. If frames from before the start still arrive after it, their writer is late. It may be too
/// slow for its frame rate. These frames are shown late.
const EARLY_FRAMES_PERIOD_NS: i64 = 1_000_000_000;

/// A frame that is more than this many nanoseconds ahead of now does not hold up the frames after it. Its writer did not
/// keep to the clock.
pub(super) const FAR_FUTURE_NS: i64 = 1_000_000_000;

/// The smallest distance between the running times of two frames, in nanoseconds.
const MIN_STEP_NS: i64 = 1_000;

/// A frame that has arrived. All times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The frame's time of capture or of decoding, on CLOCK_MONOTONIC.
    pub(super) time: i64,
    /// The value of `time`, converted to running time.
    pub(super) running: i64,
    /// The current running time.
    pub(super) now: i64,
    /// Whether this is the first frame since the pipeline went to PLAYING, or the first picture of a new writer.
    pub(super) is_first: bool,
    /// The delay between a frame's own time and the moment at which the frame leaves the writer.
    pub(super) latency: i64,
    /// Whether frames arrive in the order of their `time`. Encoded frames that have only a PTS may arrive in another
    /// order.
    pub(super) is_in_order: bool,
    /// Whether frames are shown in another order than that in which they arrive. All of them then need the same shift.
    pub(super) is_reordered: bool,
    /// Whether this frame can be skipped, because no other frame needs it.
    pub(super) may_be_skipped: bool,
    /// Whether the frame is decoded, but not shown (`GST_BUFFER_FLAG_DECODE_ONLY`).
    pub(super) is_hidden: bool,
    /// Whether this frame may be from before the last one, because it continues a stream that is not raw video. A muxer
    /// sends the frames of several streams, whose times alternate.
    pub(super) may_go_back: bool,
}

/// A timeline, which places frames in the running time of the reader's pipeline.
///
/// In general, a frame keeps its own time. Only a frame from before the pipeline's time, or from before the last frame
/// passed on, is skipped or shifted. So the timestamps of raw video always rise, and the distance between two timestamps
/// is the time between the two captures.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Frames from before this running time are skipped or shifted.
    earliest: i64,
    last: Option<LastFrame>,
    /// How much later than its own time the last frame was placed.
    shift: i64,
    /// Whether the writer is late: its frames are from before `earliest`, and its next frames are expected to be so
    /// too.
    is_late: bool,
}

/// The last frame passed on.
#[derive(Clone, Copy, Debug)]
struct LastFrame {
    /// The frame's own time, on CLOCK_MONOTONIC.
    time: i64,
    /// The running time at which the frame was placed.
    placed_at: i64,
}

impl Timeline {
    /// Resumes after the pipeline went to PLAYING at the running time `now`. Of the frames that were captured before
    /// `now`, the pipeline gets only the newest.
    pub(super) fn resume(&mut self, now: i64) {
        // The pipeline's time begins at 0. At the first call, `now` is only the time since the state change.
        self.earliest = match self.last {
            None => 0,
            Some(_) => self
                .last_near(now)
                .map_or(now, |last| now.max(last.placed_at + MIN_STEP_NS)),
        };
    }

    /// Lets no frame be placed before the running time `earliest`, because the time before it has been declared empty.
    pub(super) fn begin_at(&mut self, earliest: i64) {
        self.earliest = self.earliest.max(earliest);
    }

    /// Places a frame. Returns how much later than its own time the frame is placed; `None` if the frame is skipped.
    pub(super) fn place(&mut self, arrival: &Arrival) -> Option<i64> {
        let &Arrival { time, running, now, .. } = arrival;
        let last = self.last_near(now).filter(|_| arrival.is_in_order || arrival.is_first);
        let least = last.map_or(self.earliest, |last| self.earliest.max(last.placed_at + MIN_STEP_NS));
        let keeps_order_of_writer = arrival.may_go_back && self.shift == 0 && running >= self.earliest;
        let placed_at = if running >= least || keeps_order_of_writer {
            self.is_late = false;
            running
        } else if arrival.is_first {
            least
        } else if let Some(same) = last.filter(|last| last.time == time) {
            // A frame may come in several buffers, which all have the frame's time.
            same.placed_at
        } else if self.is_starting(arrival) && arrival.may_be_skipped && running < self.earliest {
            return None;
        } else if arrival.is_hidden || (self.is_starting(arrival) && !arrival.may_be_skipped && !arrival.is_reordered) {
            // The frame keeps no distance from the last frame. Otherwise the frames of a writer with a latency would
            // never get back to their own times.
            least
        } else {
            self.is_late = running < self.earliest;
            // The frame keeps its distance from the last frame, but is placed no later than `now`, unless `least` is
            // later.
            running.saturating_add(self.shift).min(now).max(least)
        };
        self.shift = placed_at.saturating_sub(running);
        self.last = Some(LastFrame { time, placed_at });
        Some(self.shift)
    }

    /// How much later than its own time the last frame was placed.
    pub(super) fn shift(&self) -> i64 {
        self.shift
    }

    /// Shifts `running`, the running time of an event between two frames, as the last frame was shifted. Returns `None`
    /// if the last frame was placed after this time, or if the time is before `earliest`.
    pub(super) fn place_gap(&self, running: i64) -> Option<i64> {
        let place = running.saturating_add(self.shift);
        let least = self
            .last
            .map_or(self.earliest, |last| self.earliest.max(last.placed_at));
        (place >= least).then_some(place)
    }

    /// The last frame, unless it is from the far future.
    fn last_near(&self, now: i64) -> Option<LastFrame> {
        self.last
            .filter(|last| last.placed_at <= now.saturating_add(FAR_FUTURE_NS))
    }

    /// Whether the pipeline has just started, and the writer can be expected to reach the pipeline's time soon.
    fn is_starting(&self, arrival: &Arrival) -> bool {
        let since = arrival.now.saturating_sub(self.earliest);
        !self.is_late && since < EARLY_FRAMES_PERIOD_NS.saturating_add(arrival.latency)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Timeline};

    const MS: i64 = 1_000_000;
    const FRAME: i64 = 33 * MS;
    /// CLOCK_MONOTONIC at the start of the pipeline.
    const ORIGIN: i64 = 5_000_000 * MS;

    /// A raw frame with the running time `running` that arrives at `now`.
    fn raw(running: i64, now: i64) -> Arrival {
        Arrival {
            time: ORIGIN + running,
            running,
            now,
            is_first: false,
            latency: 0,
            is_in_order: true,
            is_reordered: false,
            may_be_skipped: true,
            is_hidden: false,
            may_go_back: false,
        }
    }

    fn first(arrival: Arrival) -> Arrival {
        Arrival {
            is_first: true,
            ..arrival
        }
    }

    /// The running time at which the frame is placed.
    fn place(timeline: &mut Timeline, arrival: Arrival) -> Option<i64> {
        timeline.place(&arrival).map(|shift| arrival.running + shift)
    }

    #[test]
    fn only_newest_frame_before_start_is_shown() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(-100 * MS, MS))), Some(0));
        assert_eq!(place(&mut timeline, raw(-67 * MS, 33 * MS)), None);
        assert_eq!(place(&mut timeline, raw(-34 * MS, 66 * MS)), None);
        assert_eq!(place(&mut timeline, raw(-MS, 99 * MS)), None);
        assert_eq!(place(&mut timeline, raw(32 * MS, 132 * MS)), Some(32 * MS));
    }

    /// The times of a muxed stream alternate between its streams. A new writer's frames still come after those of the last.
    #[test]
    fn times_of_muxed_stream_stay_as_they_are() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        let muxed = |running: i64, now| Arrival {
            may_go_back: true,
            may_be_skipped: false,
            ..raw(running * MS, now * MS)
        };
        assert_eq!(place(&mut timeline, first(raw(100 * MS, 100 * MS))), Some(100 * MS));
        for running in [133, 120, 140, 139, 166, 160] {
            assert_eq!(place(&mut timeline, muxed(running, 170)), Some(running * MS));
        }
        let of_new_writer = Arrival {
            may_go_back: false,
            ..muxed(150, 180)
        };
        assert_eq!(place(&mut timeline, of_new_writer), Some(160 * MS + 1_000));
    }

    #[test]
    fn late_writer_keeps_spacing_until_it_catches_up() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        // A frame arrives every 20 ms, but its timestamp is only 1 ms after that of the last frame.
        let own_time = |n: i64| (n - 200) * MS;
        let mut put = |n, running| {
            let arrival = raw(running, n * 20 * MS);
            place(&mut timeline, if n == 0 { first(arrival) } else { arrival })
        };
        assert_eq!(put(0, own_time(0)), Some(0));
        // During the first second, such frames may also come from a writer that is on time.
        assert!((1..50).all(|n| put(n, own_time(n)).is_none()));
        for n in 50..150 {
            assert_eq!(
                put(n, own_time(n)),
                Some(n * MS),
                "as far from the first frame as it was captured"
            );
        }
        // The writer is less late now, but this frame's own time is still before the time at which the last frame was
        // shown.
        assert_eq!(put(150, 100 * MS), Some(300 * MS));
        assert_eq!(put(151, 2900 * MS), Some(2900 * MS));
        assert_eq!(put(152, 2920 * MS), Some(2920 * MS));
    }

    #[test]
    fn frames_before_start_are_skipped_during_writer_latency() {
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
    fn frames_that_need_each_other_are_not_skipped() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        let mut last = -1;
        // A keyframe from before the start and the frames after it arrive all at once. Later frames arrive when they
        // are captured.
        for n in 0..60 {
            let running = n * FRAME - 1000 * MS;
            let now = running.max(n * MS / 10 + MS);
            let arrival = Arrival {
                is_first: n == 0,
                may_be_skipped: false,
                ..raw(running, now)
            };
            let place = place(&mut timeline, arrival).unwrap();
            assert!(place > last && place <= now);
            assert!(
                running < 0 || place - running < FRAME,
                "the shift ends with the first frame after the start"
            );
            last = place;
        }
    }

    #[test]
    fn hidden_frames_before_sought_place_delay_nothing() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(5000 * MS, 5000 * MS))), Some(5000 * MS));
        // The stream was sought. The frames from the keyframe to the place that was sought come at once.
        for n in 1..100 {
            let hidden = Arrival {
                may_be_skipped: false,
                is_hidden: true,
                is_reordered: n % 2 == 0,
                ..raw(5033 * MS - (100 - n) * FRAME, 5010 * MS + n * MS / 10)
            };
            let place = place(&mut timeline, hidden).unwrap();
            assert!((5000 * MS..5001 * MS).contains(&place), "{n}: {place}");
        }
        assert_eq!(place(&mut timeline, raw(5033 * MS, 5034 * MS)), Some(5033 * MS));
    }

    #[test]
    fn frames_of_writer_with_latency_get_back_to_their_times() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        let mut last = -1;
        // The first frames arrive at once, and the others 900 ms after their time.
        for n in 0..200 {
            let running = n * FRAME - 2000 * MS;
            let arrival = Arrival {
                is_first: n == 0,
                may_be_skipped: false,
                latency: 900 * MS,
                ..raw(running, (running + 900 * MS).max(n * MS / 10 + MS))
            };
            let place = place(&mut timeline, arrival).unwrap();
            assert!(place > last);
            assert!(if running < 0 { place < MS } else { place == running }, "{n}: {place}");
            last = place;
        }
    }

    #[test]
    fn frames_stay_apart_while_clock_stands_still() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(100 * MS, 101 * MS))), Some(100 * MS));
        let mut last = 100 * MS;
        // The pipeline's clock was set back, and stands still until it reaches its former time again.
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
    fn buffers_of_one_frame_keep_one_time() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(-10 * MS, MS))), Some(0));
        assert_eq!(place(&mut timeline, raw(-10 * MS, MS)), Some(0));
        assert_eq!(place(&mut timeline, raw(23 * MS, 24 * MS)), Some(23 * MS));
        // Between the two buffers of this frame, the offset of the pipeline's clock was measured again.
        let again = Arrival {
            time: ORIGIN + 23 * MS,
            ..raw(23 * MS - 40, 24 * MS)
        };
        assert_eq!(place(&mut timeline, again), Some(23 * MS));
    }

    #[test]
    fn reordered_frames_keep_their_times() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        for n in [0, 3, 1, 2, 6, 4, 5] {
            let arrival = Arrival {
                is_first: n == 0,
                is_in_order: false,
                may_be_skipped: false,
                ..raw(n * FRAME, 10 * FRAME)
            };
            assert_eq!(place(&mut timeline, arrival), Some(n * FRAME));
        }
    }

    #[test]
    fn frame_from_far_future_does_not_hold_up_others() {
        let mut timeline = Timeline::default();
        timeline.resume(0);
        assert_eq!(place(&mut timeline, first(raw(60_000 * MS, MS))), Some(60_000 * MS));
        // The writer of that frame is gone, and another writer is running.
        assert_eq!(place(&mut timeline, raw(30 * MS, 31 * MS)), Some(30 * MS));
        timeline.resume(50 * MS);
        assert_eq!(place(&mut timeline, first(raw(30 * MS, 51 * MS))), Some(50 * MS));
    }

    #[test]
    fn frames_are_placed_after_absence_of_writer() {
        for may_be_skipped in [true, false] {
            let mut timeline = Timeline::default();
            timeline.resume(0);
            assert_eq!(place(&mut timeline, first(raw(0, MS))), Some(0));
            timeline.begin_at(5000 * MS);
            // The next writer is slower than the last: its frames arrive half a second after their time.
            let mut last = 5000 * MS - 1;
            for n in 0..60 {
                let running = 4800 * MS + n * FRAME;
                let arrival = Arrival {
                    latency: 500 * MS,
                    may_be_skipped,
                    ..raw(running, running + 500 * MS)
                };
                let place = place(&mut timeline, arrival);
                assert_eq!(place.is_none(), may_be_skipped && running < 5000 * MS);
                let Some(place) = place else { continue };
                assert!(place > last, "{place} is after {last}");
                assert!(!may_be_skipped || place == running);
                assert!(place - running <= 200 * MS, "frames keep their distance");
                last = place;
            }
        }
    }

    #[test]
    fn pause_never_turns_time_back() {
        let mut timeline = Timeline::default();
        let mut last = -1;
        let mut running = 0;
        for round in 0..4 {
            timeline.resume(running);
            // The newest frame was captured either shortly before the end of the pause or long before it.
            for n in 0..10 {
                let captured = running - [0, 3, 50, 1000][round] * MS * i64::from(n == 0);
                let arrival = Arrival {
                    is_first: n == 0,
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
