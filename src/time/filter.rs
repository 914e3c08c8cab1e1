//! The offset between two clocks, out of single measurements of it.

/// A step is at least so large; what is less is followed as if it were drift, in nanoseconds.
const SMALLEST_STEP: f64 = 1e6;

/// A step is so many times what measurements deviate anyway.
const STEP_DEVIATIONS: f64 = 6.0;

/// How much measurements deviate, in nanoseconds, before that is known, and at least.
const DEVIATION_AT_FIRST: f64 = 1e6;
const LEAST_DEVIATION: f64 = 1e3;

/// For so long, in seconds, deviations are remembered.
const DEVIATION_MEMORY: f64 = 1.0;
const LARGEST_SHARE: f64 = 1.0 / 8.0;

/// By how much the rates of two clocks differ before that is known, in nanoseconds a second (1000 are 1 ppm).
const RATE_AT_FIRST: f64 = 300e3;

/// By how much that changes from one second to the next.
const RATE_WANDER: f64 = 1e3;

/// Steps to and fro within so many seconds are no steps.
const UNREST: f64 = 5.0;
const UNREST_TURNS: u32 = 2;

/// A clock was stepped, somewhere between two measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The offset until then.
    pub(super) offset_before: i64,
    /// When it was last measured so, and when the step was seen: monotonic nanoseconds.
    pub(super) after: i64,
    pub(super) seen: i64,
}

/// Follows offset and rate of a clock: a Kalman filter of the second order.
///
/// What it believes of a measurement depends on what is known until then: at first nearly everything, later the less the
/// more measurements deviate. So neither the frame rate nor the kind of the clock needs settings. A step is none of that: it
/// is far beyond all deviations, and the offset begins anew there.
#[derive(Debug, Default)]
pub(super) struct OffsetFilter {
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    /// Of the last measurement, in monotonic nanoseconds.
    at: i64,
    /// What `offset` is relative to: the time since 1970 in nanoseconds is too much for a float.
    reference: i64,
    /// Nanoseconds, and nanoseconds a second.
    offset: f64,
    rate: f64,
    /// How uncertain these two are: their covariance.
    offset_variance: f64,
    covariance: f64,
    rate_variance: f64,
    /// What measurements deviate, squared, and the last one's error.
    deviation: f64,
    last_error: f64,
    measurements: u32,
    unrest: Unrest,
}

/// Steps in turn up and down are a clock that deviates more than was known.
#[derive(Debug, Default)]
struct Unrest {
    last: Option<(i64, bool)>,
    turns: u32,
}

impl OffsetFilter {
    /// Takes a measurement: at the monotonic time `at` the offset was from `low` to `high`. Yields the step that it shows.
    pub(super) fn measured(&mut self, at: i64, low: i64, high: i64) -> Option<Step> {
        match &mut self.state {
            Some(state) => state.measured(at, low, high),
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
            offset_variance: DEVIATION_AT_FIRST.powi(2),
            covariance: 0.0,
            rate_variance: RATE_AT_FIRST.powi(2),
            deviation: DEVIATION_AT_FIRST.powi(2),
            last_error: 0.0,
            measurements: 1,
            unrest: Unrest::default(),
        }
    }

    fn offset(&self) -> i64 {
        self.reference.saturating_add(self.offset.round() as i64)
    }

    fn measured(&mut self, at: i64, low: i64, high: i64) -> Option<Step> {
        let step = Step {
            offset_before: self.offset(),
            after: self.at,
            seen: at,
        };
        let elapsed = at.saturating_sub(self.at).max(0) as f64 / 1e9;
        self.at = at;
        self.predict(elapsed);
        // Inside the bracket every offset is as likely: that is no error.
        let expected = self.offset();
        let error = expected.clamp(low.min(high), high.max(low)).saturating_sub(expected) as f64;
        let variance = self.offset_variance + self.deviation;
        let limit = SMALLEST_STEP.max(STEP_DEVIATIONS * variance.sqrt());
        if error.abs() > limit {
            self.begin_anew(at, middle(low, high), error);
            return Some(step);
        }
        self.correct(error, variance);
        self.learn_deviation(error, elapsed);
        None
    }

    fn predict(&mut self, elapsed: f64) {
        self.offset += self.rate * elapsed;
        let wander = RATE_WANDER.powi(2) * elapsed;
        self.offset_variance +=
            elapsed * (2.0 * self.covariance + elapsed * self.rate_variance) + wander * elapsed.powi(2) / 3.0;
        self.covariance += elapsed * self.rate_variance + wander * elapsed / 2.0;
        self.rate_variance += wander;
    }

    fn correct(&mut self, error: f64, variance: f64) {
        let (offset_gain, rate_gain) = (self.offset_variance / variance, self.covariance / variance);
        self.offset += offset_gain * error;
        self.rate += rate_gain * error;
        self.rate_variance -= rate_gain * self.covariance;
        self.covariance *= 1.0 - offset_gain;
        self.offset_variance *= 1.0 - offset_gain;
    }

    /// Deviations differ from one measurement to the next. What does not is lag behind a clock that now runs at another rate.
    fn learn_deviation(&mut self, error: f64, elapsed: f64) {
        self.measurements = self.measurements.saturating_add(1);
        let share = (elapsed / DEVIATION_MEMORY)
            .min(LARGEST_SHARE)
            .max(1.0 / f64::from(self.measurements));
        let deviation = (error - self.last_error).powi(2) / 2.0;
        self.last_error = error;
        self.deviation += share * (deviation - self.deviation);
        self.deviation = self.deviation.max(LEAST_DEVIATION.powi(2));
    }

    /// A step does not change the clock's rate.
    fn begin_anew(&mut self, at: i64, offset: i64, error: f64) {
        if self.unrest.is_noise(at, error > 0.0) {
            self.deviation = self.deviation.max((error / 2.0).powi(2));
        }
        self.reference = offset;
        self.offset = 0.0;
        self.offset_variance = self.deviation;
        self.covariance = 0.0;
        self.last_error = 0.0;
    }
}

impl Unrest {
    /// Takes note of a step; whether it is one too many.
    fn is_noise(&mut self, at: i64, up: bool) -> bool {
        match self.last.replace((at, up)) {
            Some((last, was_up)) if at.saturating_sub(last) as f64 / 1e9 < UNREST => {
                self.turns += u32::from(was_up != up);
            }
            _ => self.turns = 0,
        }
        self.turns >= UNREST_TURNS
    }
}

fn middle(low: i64, high: i64) -> i64 {
    low.saturating_add(high.saturating_sub(low) / 2)
}
