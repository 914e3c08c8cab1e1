// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with simulated clocks.

use std::ops::RangeInclusive;

use super::{filter::OffsetFilter, stamps::StepTracker};

const US: i64 = 1_000;
const MS: i64 = 1_000 * US;
const SECOND: i64 = 1_000 * MS;

/// The frame rates of the tests, in frames a second: from 1 for a slide show to 5000 for a sensor.
const RATES: [i64; 4] = [1, 30, 240, 5000];

/// A simulated clock with drift, steps and reading noise.
struct Clock {
    /// The drift in parts per million.
    ppm: f64,
    /// The steps. Each has its monotonic time, and the nanoseconds that it adds to the time of the clock.
    steps: Vec<(i64, i64)>,
    /// The maximum deviation of a reading, in nanoseconds.
    noise: i64,
    random: Random,
    /// The latest time that was read. A GstClock never goes backwards. After a step back, it shows this time until the
    /// stepped time is later.
    latest: i64,
}

impl Clock {
    /// The offset of the clock. It is as large as that of the realtime clock, which a float cannot hold exactly.
    const OFFSET: i64 = 1_800_000_000 * SECOND;

    fn new(ppm: f64, noise: i64) -> Self {
        Self {
            ppm,
            steps: Vec::new(),
            noise,
            random: Random(42),
            latest: 0,
        }
    }

    fn stepped(mut self, from: i64, by: i64) -> Self {
        self.steps.push((from, by));
        self
    }

    fn time(&mut self, monotonic: i64) -> i64 {
        let drift = (monotonic as f64 * self.ppm / 1e6).round() as i64;
        let steps = self.steps.iter().filter(|(from, _)| *from <= monotonic);
        let steps: i64 = steps.map(|(_, by)| by).sum();
        self.latest = self.latest.max(Self::OFFSET + monotonic + drift + steps);
        self.latest
    }

    /// Measures the offset. A measurement takes 300 ns, because a measurement of a real clock takes time too.
    fn measure(&mut self, monotonic: i64) -> (i64, i64, i64) {
        let time = self.time(monotonic) + self.random.within(-self.noise..=self.noise);
        (monotonic, monotonic - 150 - time, monotonic + 150 - time)
    }
}

/// A generator of random numbers. The testkit's generator cannot be used here, because the testkit contains the plugin,
/// and two copies of the plugin's symbols cannot be linked.
struct Random(u64);

impl Random {
    fn within(&mut self, range: RangeInclusive<i64>) -> i64 {
        // These are the constants of Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let span = (range.end() - range.start() + 1) as u64;
        range.start() + ((self.0 >> 33) % span) as i64
    }
}

/// Measures the clock at each of the times. Returns the error of the filter's offset at each time, and the number of
/// steps that the filter saw.
fn follow(clock: &mut Clock, times: impl Iterator<Item = i64>) -> (Vec<i64>, usize) {
    let mut filter = OffsetFilter::default();
    let mut steps = 0;
    let errors = times
        .map(|now| {
            let (at, low, high) = clock.measure(now);
            steps += usize::from(filter.add(at, low, high).is_some());
            filter.offset() - (now - clock.time(now))
        })
        .collect();
    (errors, steps)
}

/// The times of `count` frames at `rate` frames a second.
fn frames(rate: i64, count: i64) -> impl Iterator<Item = i64> {
    (1..=count).map(move |n| n * SECOND / rate)
}

fn worst(errors: &[i64]) -> i64 {
    errors.iter().map(|error| error.abs()).max().unwrap()
}

/// The largest change of the error from one frame to the next.
fn jitter(errors: &[i64]) -> i64 {
    errors.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap()
}

#[test]
fn filter_follows_drift_without_lag_at_every_rate() {
    for rate in RATES {
        for ppm in [200.0, -200.0] {
            let (errors, steps) = follow(&mut Clock::new(ppm, 0), frames(rate, rate.max(10) * 10));
            assert_eq!(steps, 0, "{rate} a second");
            assert!(worst(&errors) < 150 * US, "{rate} a second: {}", worst(&errors));
            assert!(jitter(&errors) < 100 * US, "{rate} a second: {}", jitter(&errors));
            // After a few measurements, the filter knows the rate of the clock.
            let later = &errors[errors.len() / 2..];
            assert!(worst(later) < US, "{rate} a second: {}", worst(later));
        }
    }
}

#[test]
fn filter_adds_no_reading_noise() {
    for rate in [30, 240, 5000] {
        let (errors, steps) = follow(&mut Clock::new(50.0, 20 * US), frames(rate, 10_000));
        assert_eq!(steps, 0);
        assert!(jitter(&errors) < 20 * US, "{rate} a second: {}", jitter(&errors));
    }
}

#[test]
fn filter_smooths_jittery_clock() {
    for rate in RATES {
        let (errors, steps) = follow(&mut Clock::new(50.0, 3 * MS), frames(rate, rate.max(10) * 20));
        assert_eq!(steps, 0, "{rate} a second");
        // The next two limits hold from the first measurement on.
        assert!(worst(&errors) < 3 * MS, "{rate} a second: {}", worst(&errors));
        assert!(jitter(&errors) < 1500 * US, "{rate} a second: {}", jitter(&errors));
        let later = &errors[errors.len() / 2..];
        assert!(worst(later) < 1000 * US, "{rate} a second: {}", worst(later));
        assert!(jitter(later) < 250 * US, "{rate} a second: {}", jitter(later));
    }
}

#[test]
fn filter_follows_step_at_once() {
    for rate in RATES {
        for by in [2 * MS, -40 * MS, 40 * MS, -3600 * SECOND, 3600 * SECOND] {
            let times: Vec<_> = frames(rate, rate.max(10) * 12).collect();
            let at = times[times.len() * 3 / 4];
            let (errors, _) = follow(&mut Clock::new(200.0, 0).stepped(at, by), times.into_iter());
            // The steps are not counted, because a clock that was stepped back stands still for a while. Each frame
            // then shows a step.
            assert!(worst(&errors) < MS, "{rate} a second, {by}: {}", worst(&errors));
        }
    }
}

#[test]
fn filter_finds_step_of_jittery_clock() {
    let times: Vec<_> = frames(30, 1800).collect();
    let clock = Clock::new(50.0, 3 * MS).stepped(times[900], 100 * MS);
    let (errors, steps) = follow(&mut { clock }, times.into_iter());
    assert_eq!(steps, 1);
    assert!(worst(&errors) < 5 * MS, "{}", worst(&errors));
}

#[test]
fn filter_soon_smooths_clock_that_becomes_jittery() {
    let mut random = Random(3);
    let mut uniform = |_| random.within(-3 * MS..=3 * MS);
    let mut alternating = |n: usize| if n.is_multiple_of(2) { 4 * MS } else { -4 * MS };
    let jitters: [&mut dyn FnMut(usize) -> i64; 2] = [&mut uniform, &mut alternating];
    for jitter in jitters {
        let mut filter = OffsetFilter::default();
        let mut clock = Clock::new(50.0, 0);
        let mut steps = Vec::new();
        for (n, now) in frames(30, 1800).enumerate() {
            let (at, low, high) = clock.measure(now);
            let off = if n < 300 { 0 } else { jitter(n) };
            if filter.add(at, low + off, high + off).is_some() {
                steps.push(n);
            }
        }
        assert!(steps.len() < 12 && steps.iter().all(|n| *n < 330), "{steps:?}");
    }
}

#[test]
fn filter_tolerates_slow_measurements() {
    let mut clock = Clock::new(200.0, 0);
    let mut filter = OffsetFilter::default();
    for (n, now) in frames(30, 3000).enumerate() {
        // In some measurements, something else ran before or after the reading of the clock.
        let (mut before, mut after) = (now - 150, now + 150);
        match n % 20 {
            7 => before -= 20 * MS,
            13 => after += 20 * MS,
            _ => {}
        }
        let time = clock.time(now);
        let step = filter.add((before + after) / 2, before - time, after - time);
        assert_eq!(step, None);
        let error = filter.offset() - (now - time);
        assert!(n < 100 || error.abs() < 10 * US, "frame {n}: {error}");
    }
}

#[test]
fn filter_survives_pause() {
    let times = frames(30, 300).chain(frames(30, 300).map(|time| time + 3600 * SECOND));
    let (errors, _) = follow(&mut Clock::new(200.0, 0), times);
    assert!(worst(&errors) < MS, "{}", worst(&errors));
}

/// Returns the errors of the times that frames get. The clock stamps each frame at its capture. The frame is sent
/// `later()` nanoseconds after its capture.
fn stamp(clock: &mut Clock, captured: impl Iterator<Item = i64>, mut later: impl FnMut() -> i64) -> Vec<i64> {
    let mut filter = OffsetFilter::default();
    let mut stamps = StepTracker::default();
    // The events are sorted, because the simulated clock must be read in the order of time.
    let mut events: Vec<(i64, Option<i64>)> = captured
        .flat_map(|captured| [(captured, None), (captured + later(), Some(captured))])
        .collect();
    events.sort_unstable();
    let mut stamped = std::collections::VecDeque::new();
    let mut errors = Vec::new();
    for (now, captured) in events {
        let Some(captured) = captured else {
            stamped.push_back(clock.time(now));
            continue;
        };
        let (at, low, high) = clock.measure(now);
        if let Some(step) = filter.add(at, low, high) {
            stamps.record_step(step);
        }
        let stamp = stamped.pop_front().unwrap();
        errors.push(stamp + stamps.offset(stamp, filter.offset(), now) - captured);
    }
    errors
}

#[test]
fn frames_get_capture_time_despite_drift_and_steps() {
    // Each round puts the step at another millisecond between two frames.
    for part in 0..33 {
        for (latency, by) in [
            (5, 50),
            (20, 50),
            (20, -10),
            (20, 10),
            (200, 50),
            (200, -50),
            (200, 3_600_000),
        ] {
            let step = 20 * SECOND + part * MS;
            let mut clock = Clock::new(200.0, 0).stepped(step, by * MS);
            let mut random = Random(7);
            let later = || latency * MS - random.within(0..=4 * MS);
            let errors = stamp(&mut clock, frames(30, 1800), later);
            // While a clock stands still, its timestamps have no information, so they are not checked.
            let still = |n: i64| by < 0 && (step..step - by * MS).contains(&(n * SECOND / 30));
            let valid: Vec<_> = (1..)
                .zip(errors)
                .filter(|(n, _)| !still(*n))
                .map(|(_, error)| error)
                .collect();
            assert!(worst(&valid) < MS, "{latency} ms, {by} ms at {part}: {}", worst(&valid));
            assert!(
                jitter(&valid) < 100 * US,
                "{latency} ms, {by} ms at {part}: {}",
                jitter(&valid)
            );
        }
    }
}
