// SPDX-License-Identifier: MIT OR Apache-2.0

//! Converts timestamps to CLOCK_MONOTONIC nanoseconds, which have one meaning in all pipelines of the machine.

mod conversion;
mod filter;
mod stamps;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use gst::{glib::translate::from_glib_none, prelude::*};
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
    /// Finds out which clock `element` has, so that the other methods are about this clock. Returns the base time of the
    /// element; `None` if its pipeline has no clock.
    fn look_at(&mut self, element: &gst::Element) -> Option<i64> {
        let (clock, base_time) = {
            let _guard = element.object_lock();
            // SAFETY: the element is alive, and its lock, which guards this field, is held.
            let clock = unsafe { (*element.as_ptr()).clock };
            let is_known = self.clock.as_ref().is_some_and(|state| state.clock.as_ptr() == clock);
            // The known clock needs no other reference, because its state has one.
            let other: Option<gst::Clock> = if is_known {
                None
            } else {
                // SAFETY: the pointer is null or valid, because the element holds a reference as long as the lock is held.
                unsafe { from_glib_none(clock) }
            };
            if !is_known && other.is_none() {
                return None;
            }
            (other, locked_base_time(element))
        };
        if let Some(clock) = clock {
            self.clock = Some(ClockState {
                reads_monotonic: reads_monotonic(&clock),
                clock,
                measurements: None,
            });
        }
        Some(base_time)
    }

    /// CLOCK_MONOTONIC minus the time of the clock, in nanoseconds, measured now.
    fn monotonic_minus(&mut self) -> i64 {
        self.measure().map_or(0, |measurements| measurements.filter.offset())
    }

    /// CLOCK_MONOTONIC minus the time of the clock, in nanoseconds, when the clock showed `stamp`. The clock may have
    /// been stepped since then.
    fn monotonic_minus_at(&mut self, stamp: i64) -> i64 {
        self.measure().map_or(0, |measurements| {
            let offset = measurements.filter.offset();
            measurements.stamps.offset(stamp, offset, monotonic_ns() as i64)
        })
    }

    /// Measures the offset once more, and returns all results; `None` if the clock is CLOCK_MONOTONIC.
    fn measure(&mut self) -> Option<&mut Measurements> {
        let state = self.clock.as_mut()?;
        if state.is_monotonic() {
            state.measurements = None;
            return None;
        }
        let clock = &state.clock;
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

impl ClockState {
    /// Whether the clock is CLOCK_MONOTONIC.
    fn is_monotonic(&self) -> bool {
        self.reads_monotonic && !is_slaved(&self.clock)
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
    origin_at(element, offset, None).map(|origin| origin.time)
}

/// The origin of an element, as a frame needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The CLOCK_MONOTONIC time of running time 0, in nanoseconds.
    pub(crate) time: i64,
    /// The base time of the element at the same moment.
    pub(crate) base_time: i64,
}

/// Whether an element's pipeline runs on CLOCK_MONOTONIC. If it does, the element's origin is its [`base_time`], which
/// may change at any time.
pub(crate) fn is_on_monotonic(element: &gst::Element, offset: &mut ClockOffset) -> bool {
    offset.look_at(element).is_some() && offset.clock.as_ref().is_some_and(ClockState::is_monotonic)
}

/// The [`origin`] for a frame with the timestamp `stamp`, which is a running time. The timestamp may be older than the
/// clock's last step.
pub(crate) fn origin_at(element: &gst::Element, offset: &mut ClockOffset, stamp: Option<i64>) -> Option<Origin> {
    let base_time = offset.look_at(element)?;
    let clock_offset = match stamp {
        Some(stamp) => offset.monotonic_minus_at(base_time.saturating_add(stamp)),
        None => offset.monotonic_minus(),
    };
    Some(Origin {
        time: base_time.saturating_add(clock_offset),
        base_time,
    })
}

/// The time of an element's clock at its running time 0, in nanoseconds.
pub(crate) fn base_time(element: &gst::Element) -> i64 {
    let _guard = element.object_lock();
    locked_base_time(element)
}

/// The base time of an element whose object lock the caller holds. GStreamer's own function checks the type of the element
/// first, which takes as long as all that the sink does for a small buffer's time.
fn locked_base_time(element: &gst::Element) -> i64 {
    // SAFETY: the element is alive, and the caller holds the lock that guards this field.
    let base_time = unsafe { (*element.as_ptr()).base_time };
    // An element without a base time has -1, which is GST_CLOCK_TIME_NONE.
    base_time.max(0)
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
