// SPDX-License-Identifier: MIT OR Apache-2.0

//! Estimates the offset between two clocks from single measurements.

/// The smallest change of a clock, in nanoseconds, that counts as a step. The filter treats smaller changes as drift.
const MIN_STEP_NS: f64 = 1e6;

/// If the error of a measurement exceeds the expected deviation times this factor, the clock has made a step.
const STEP_DEVIATIONS: f64 = 6.0;

/// The deviation of measurements, in nanoseconds, that is assumed until the deviation is known.
const INITIAL_DEVIATION_NS: f64 = 1e6;

/// The smallest assumed deviation of measurements, in nanoseconds.
const MIN_DEVIATION_NS: f64 = 1e3;

/// The time, in seconds, over which the deviation is averaged.
const DEVIATION_MEMORY_S: f64 = 1.0;

/// The largest weight of one measurement in the average of the deviation, once there are enough measurements.
const MAX_DEVIATION_WEIGHT: f64 = 1.0 / 8.0;

/// The difference between the rates of two clocks that is assumed until it is known, in nanoseconds a second (1000 are
/// 1 ppm).
const INITIAL_RATE_NS_PER_S: f64 = 300e3;

/// The assumed change of the difference between the rates from one second to the next, in nanoseconds a second.
const RATE_WANDER_NS_PER_S: f64 = 1e3;

/// If two steps in opposite directions follow each other within this many seconds, they may be noise.
const NOISE_INTERVAL_S: f64 = 5.0;

/// The number of changes of direction after which steps count as noise.
const MIN_NOISE_TURNS: u32 = 2;

/// A step that a clock made at some time between two measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The offset before the step.
    pub(super) offset_before: i64,
    /// The monotonic time, in nanoseconds, of the last measurement before the step.
    pub(super) after: i64,
    /// The monotonic time, in nanoseconds, of the measurement that showed the step.
    pub(super) seen: i64,
}

/// A Kalman filter of the second order, which follows the offset and the rate of a clock.
///
/// The weight of a measurement depends on how certain the estimate is. The first measurements have a large weight.
/// Later, measurements that deviate more have a smaller weight. So the filter needs no settings for the frame rate or
/// the kind of the clock. A step is far larger than all deviations, so the filter estimates the offset anew after a
/// step.
#[derive(Debug, Default)]
pub(super) struct OffsetFilter {
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    /// The time of the last measurement, in monotonic nanoseconds.
    at: i64,
    /// The value that `offset` is relative to. A float cannot hold the nanoseconds since 1970 exactly, so `offset` must
    /// be small.
    reference: i64,
    /// The estimated offset, in nanoseconds, minus `reference`.
    offset: f64,
    /// The estimated rate in nanoseconds a second.
    rate: f64,
    /// The covariance matrix of offset and rate. It says how uncertain the two estimates are.
    offset_variance: f64,
    covariance: f64,
    rate_variance: f64,
    /// The squared deviation of measurements, as an average.
    deviation: f64,
    /// The error of the last measurement.
    last_error: f64,
    measurements: u32,
    step_noise: StepNoise,
}

/// Recognises alternating steps up and down. They come from a clock that deviates more than assumed.
#[derive(Debug, Default)]
struct StepNoise {
    /// The monotonic time of the last step, and whether the step was upwards.
    last: Option<(i64, bool)>,
    turns: u32,
}

impl OffsetFilter {
    /// Adds a measurement: at the monotonic time `at`, the offset was between `low` and `high`. Returns the step that
    /// the measurement shows, if it shows one.
    pub(super) fn add(&mut self, at: i64, low: i64, high: i64) -> Option<Step> {
        match &mut self.state {
            Some(state) => state.add(at, low, high),
            None => {
                self.state = Some(State::new(at, middle(low, high)));
                None
            }
        }
    }

    /// The offset at the last measurement.
    pub(super) fn offset(&self) -> i64 {
        self.state.as_ref().map_or(0, State::offset)
    }
}

impl State {
    fn new(at: i64, offset: i64) -> Self {
        Self {
            at,
            reference: offset,
            offset: 0.0,
            rate: 0.0,
            offset_variance: INITIAL_DEVIATION_NS.powi(2),
            covariance: 0.0,
            rate_variance: INITIAL_RATE_NS_PER_S.powi(2),
            deviation: INITIAL_DEVIATION_NS.powi(2),
            last_error: 0.0,
            measurements: 1,
            step_noise: StepNoise::default(),
        }
    }

    fn offset(&self) -> i64 {
        self.reference.saturating_add(self.offset.round() as i64)
    }

    fn add(&mut self, at: i64, low: i64, high: i64) -> Option<Step> {
        let step = Step {
            offset_before: self.offset(),
            after: self.at,
            seen: at,
        };
        let elapsed = at.saturating_sub(self.at).max(0) as f64 / 1e9;
        self.at = at;
        self.predict(elapsed);
        // All offsets from `low` to `high` are equally likely, so the error is 0 if the expected offset is one of them.
        let expected = self.offset();
        let error = expected.clamp(low.min(high), high.max(low)).saturating_sub(expected) as f64;
        let variance = self.offset_variance + self.deviation;
        let limit = MIN_STEP_NS.max(STEP_DEVIATIONS * variance.sqrt());
        if error.abs() > limit {
            self.begin_anew(at, middle(low, high), error);
            return Some(step);
        }
        self.correct(error, variance);
        self.learn_deviation(error, elapsed);
        None
    }

    /// Predicts the offset and the rate after the elapsed time.
    fn predict(&mut self, elapsed: f64) {
        self.offset += self.rate * elapsed;
        let wander = RATE_WANDER_NS_PER_S.powi(2) * elapsed;
        self.offset_variance +=
            elapsed * (2.0 * self.covariance + elapsed * self.rate_variance) + wander * elapsed.powi(2) / 3.0;
        self.covariance += elapsed * self.rate_variance + wander * elapsed / 2.0;
        self.rate_variance += wander;
    }

    /// Corrects the prediction with the error of a measurement.
    fn correct(&mut self, error: f64, variance: f64) {
        let (offset_gain, rate_gain) = (self.offset_variance / variance, self.covariance / variance);
        self.offset += offset_gain * error;
        self.rate += rate_gain * error;
        self.rate_variance -= rate_gain * self.covariance;
        self.covariance *= 1.0 - offset_gain;
        self.offset_variance *= 1.0 - offset_gain;
    }

    /// Updates the deviation. It uses the difference between successive errors, because a constant error is not a
    /// deviation. A constant error is the lag behind a clock whose rate has changed.
    fn learn_deviation(&mut self, error: f64, elapsed: f64) {
        self.measurements = self.measurements.saturating_add(1);
        let weight = (elapsed / DEVIATION_MEMORY_S)
            .min(MAX_DEVIATION_WEIGHT)
            .max(1.0 / f64::from(self.measurements));
        let deviation = (error - self.last_error).powi(2) / 2.0;
        self.last_error = error;
        self.deviation += weight * (deviation - self.deviation);
        self.deviation = self.deviation.max(MIN_DEVIATION_NS.powi(2));
    }

    /// Restarts the estimate with `offset`, which was measured after a step. The rate stays, because a step does not
    /// change it.
    fn begin_anew(&mut self, at: i64, offset: i64, error: f64) {
        if self.step_noise.is_noise(at, error > 0.0) {
            self.deviation = self.deviation.max((error / 2.0).powi(2));
        }
        self.reference = offset;
        self.offset = 0.0;
        self.offset_variance = self.deviation;
        self.covariance = 0.0;
        self.last_error = 0.0;
    }
}

impl StepNoise {
    /// Records a step. Returns whether the latest steps are noise.
    fn is_noise(&mut self, at: i64, up: bool) -> bool {
        match self.last.replace((at, up)) {
            Some((last, was_up)) if at.saturating_sub(last) as f64 / 1e9 < NOISE_INTERVAL_S => {
                self.turns += u32::from(was_up != up);
            }
            _ => self.turns = 0,
        }
        self.turns >= MIN_NOISE_TURNS
    }
}

fn middle(low: i64, high: i64) -> i64 {
    low.saturating_add(high.saturating_sub(low) / 2)
}
