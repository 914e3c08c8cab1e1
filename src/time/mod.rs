// SPDX-License-Identifier: MIT OR Apache-2.0

//! Converts timestamps to CLOCK_MONOTONIC nanoseconds, which have one meaning in all pipelines of the machine.

mod conversion;
mod filter;
mod stamps;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use gst::prelude::*;
use rsshm_channel::{TIME_NONE, monotonic_ns};

pub(crate) use conversion::LastConversion;
use filter::OffsetFilter;
use stamps::StepTracker;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmtime",
        gst::DebugColorFlags::empty(),
        Some("Clocks of pipelines with a shared memory channel"),
    )
});

/// A measurement that takes longer than this many nanoseconds is repeated, because it was interrupted.
const MAX_READING_NS: i64 = 10_000;

/// The maximum number of attempts at one measurement.
const MAX_READINGS: usize = 3;

/// The offset between the clock of a pipeline and CLOCK_MONOTONIC.
///
/// Most pipelines run on CLOCK_MONOTONIC, so their offset is exactly 0. For other clocks, the offset is measured with
/// each frame, and filtered.
#[derive(Debug, Default)]
pub(crate) struct ClockOffset {
    clock: Option<ClockState>,
}

/// The state of one clock.
#[derive(Debug)]
struct ClockState {
    clock: gst::Clock,
    /// Whether the clock reads CLOCK_MONOTONIC. A clock that does so may still be slaved to another clock.
    reads_monotonic: bool,
    /// `None` while the time of the clock is CLOCK_MONOTONIC.
    measurements: Option<Measurements>,
}

/// The results of measuring a clock.
#[derive(Debug, Default)]
struct Measurements {
    filter: OffsetFilter,
    stamps: StepTracker,
}

impl ClockOffset {
    /// CLOCK_MONOTONIC minus the time of `clock`, in nanoseconds, measured now.
    fn monotonic_minus(&mut self, clock: &gst::Clock) -> i64 {
        self.measure(clock)
            .map_or(0, |measurements| measurements.filter.offset())
    }

    /// CLOCK_MONOTONIC minus the time of `clock`, in nanoseconds, when the clock showed `stamp`. The clock may have
    /// been stepped since then.
    fn monotonic_minus_at(&mut self, clock: &gst::Clock, stamp: i64) -> i64 {
        self.measure(clock).map_or(0, |measurements| {
            let offset = measurements.filter.offset();
            measurements.stamps.offset(stamp, offset, monotonic_ns() as i64)
        })
    }

    /// Whether `clock` is CLOCK_MONOTONIC.
    fn is_monotonic(&mut self, clock: &gst::Clock) -> bool {
        self.state(clock).reads_monotonic && !is_slaved(clock)
    }

    /// The state of `clock`; a new state if the clock differs from that of the last call.
    fn state(&mut self, clock: &gst::Clock) -> &mut ClockState {
        if self.clock.as_ref().is_none_or(|state| state.clock != *clock) {
            self.clock = None;
        }
        self.clock.get_or_insert_with(|| ClockState {
            clock: clock.clone(),
            reads_monotonic: reads_monotonic(clock),
            measurements: None,
        })
    }

    /// Measures the offset once more, and returns all results; `None` if the clock is CLOCK_MONOTONIC.
    fn measure(&mut self, clock: &gst::Clock) -> Option<&mut Measurements> {
        let is_monotonic = self.is_monotonic(clock);
        let state = self.state(clock);
        if is_monotonic {
            state.measurements = None;
            return None;
        }
        let measurements = state.measurements.get_or_insert_default();
        let (before, time, after) = read(clock);
        if let Some(step) = measurements.filter.add(
            before.saturating_add(after) / 2,
            before.saturating_sub(time),
            after.saturating_sub(time),
        ) {
            let by = step.offset_before.saturating_sub(measurements.filter.offset());
            gst::info!(CAT, obj = clock, "the clock was stepped by {by} ns");
            measurements.stamps.record_step(step);
        }
        gst::trace!(
            CAT,
            obj = clock,
            "CLOCK_MONOTONIC is {} ns later",
            measurements.filter.offset()
        );
        Some(measurements)
    }
}

/// Reads `clock` between two readings of CLOCK_MONOTONIC. If this takes too long, it tries again and returns the
/// fastest attempt.
fn read(clock: &gst::Clock) -> (i64, i64, i64) {
    let once = || {
        let before = monotonic_ns();
        let time = clock.time().nseconds();
        (before as i64, time as i64, monotonic_ns() as i64)
    };
    let width = |(before, _, after): &(i64, i64, i64)| after - before;
    let mut best = once();
    for _ in 1..MAX_READINGS {
        if width(&best) <= MAX_READING_NS {
            break;
        }
        best = std::cmp::min_by_key(best, once(), width);
    }
    best
}

/// Whether `clock` is the system's monotonic clock itself, and not a clock of a derived type.
fn reads_monotonic(clock: &gst::Clock) -> bool {
    clock.type_() == gst::SystemClock::static_type()
        && clock.property::<gst::ClockType>("clock-type") == gst::ClockType::Monotonic
}

/// Whether `clock` follows another clock.
fn is_slaved(clock: &gst::Clock) -> bool {
    let (internal, external, numerator, denominator) = clock.calibration();
    internal != external || numerator != denominator
}

/// The origin of an element, which is the CLOCK_MONOTONIC time of its running time 0, in nanoseconds. `None` if its
/// pipeline has no clock.
pub(crate) fn origin(element: &gst::Element, offset: &mut ClockOffset) -> Option<i64> {
    let clock = element.clock()?;
    Some(base_time(element).saturating_add(offset.monotonic_minus(&clock)))
}

/// Whether an element's pipeline runs on CLOCK_MONOTONIC. If it does, the element's origin is its [`base_time`], which
/// may change at any time.
pub(crate) fn is_on_monotonic(element: &gst::Element, offset: &mut ClockOffset) -> bool {
    element.clock().is_some_and(|clock| offset.is_monotonic(&clock))
}

/// The [`origin`] for a frame with the timestamp `stamp`, which is a running time. The timestamp may be older than the
/// clock's last step.
pub(crate) fn origin_at(element: &gst::Element, offset: &mut ClockOffset, stamp: Option<i64>) -> Option<i64> {
    let Some(stamp) = stamp else {
        return origin(element, offset);
    };
    let clock = element.clock()?;
    let base_time = base_time(element);
    let stamp = base_time.saturating_add(stamp);
    Some(base_time.saturating_add(offset.monotonic_minus_at(&clock, stamp)))
}

/// The time of an element's clock at its running time 0, in nanoseconds.
pub(crate) fn base_time(element: &gst::Element) -> i64 {
    element.base_time().map_or(0, |time| time.nseconds() as i64)
}

/// The times of a frame or event, in nanoseconds of running time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) pts: Option<i64>,
    pub(crate) dts: Option<i64>,
    pub(crate) duration: Option<u64>,
}

impl Times {
    /// The times of a buffer.
    pub(crate) fn of_buffer(buffer: &gst::BufferRef, segment: &gst::FormattedSegment<gst::ClockTime>) -> Self {
        let mut times = Self::of_span(buffer.pts().or(buffer.dts()), buffer.duration(), segment);
        // In reverse playback, timestamps do not say when a frame is to be decoded, so the frame has no DTS.
        if segment.rate() >= 0.0 {
            times.pts = running_time(buffer.pts(), segment);
            times.dts = running_time(buffer.dts(), segment);
        }
        times
    }

    /// The times of a frame or event at `time` in its stream.
    pub(crate) fn of_span(
        time: Option<gst::ClockTime>,
        duration: Option<gst::ClockTime>,
        segment: &gst::FormattedSegment<gst::ClockTime>,
    ) -> Self {
        let rate = segment.rate();
        // In reverse playback, the end of a frame is played first, so the frame begins there.
        let begin = match duration {
            Some(duration) if rate < 0.0 => time.map(|time| time.saturating_add(duration)),
            _ => time,
        };
        Self {
            pts: running_time(begin, segment),
            dts: None,
            duration: duration.map(|duration| playing_time(duration, rate)),
        }
    }
}

/// The nanoseconds that it takes to play `duration` of a stream at `rate`.
fn playing_time(duration: gst::ClockTime, rate: f64) -> u64 {
    match rate.abs() {
        1.0 => duration.nseconds(),
        rate => (duration.nseconds() as f64 / rate).round() as u64,
    }
}

/// A timestamp of a stream as running time, which is negative before the start of the segment.
fn running_time(time: Option<gst::ClockTime>, segment: &gst::FormattedSegment<gst::ClockTime>) -> Option<i64> {
    segment.to_running_time_full(time?).map(|time| match time {
        gst::Signed::Positive(time) => time.nseconds() as i64,
        gst::Signed::Negative(time) => -(time.nseconds() as i64),
    })
}

/// A running time as CLOCK_MONOTONIC nanoseconds, or [`TIME_NONE`].
pub(crate) fn to_absolute(running: Option<i64>, origin: i64) -> u64 {
    running.map_or(TIME_NONE, |running| origin.saturating_add(running).max(0) as u64)
}

/// A CLOCK_MONOTONIC time as running time, which is negative before the start of the pipeline; `None` for
/// [`TIME_NONE`].
pub(crate) fn to_running(absolute: u64, origin: i64) -> Option<i64> {
    (absolute != TIME_NONE).then(|| i64::try_from(absolute).unwrap_or(i64::MAX).saturating_sub(origin))
}
