//! Time stamps that mean the same in every pipeline of the machine: CLOCK_MONOTONIC nanoseconds.

mod filter;
mod stamps;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use gst::prelude::*;
use rsshm_channel::{TIME_NONE, monotonic_ns};

use filter::OffsetFilter;
use stamps::Stamps;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmtime",
        gst::DebugColorFlags::empty(),
        Some("Clocks of pipelines with a shared memory channel"),
    )
});

/// A measurement that took longer, in nanoseconds, is tried again, so many times: something else ran in between.
const WIDE: i64 = 10_000;
const TRIES: usize = 3;

/// Turns a pipeline's clock into CLOCK_MONOTONIC.
///
/// Most pipelines run on that clock already, and the offset is exactly 0. For others it is measured with each frame, and
/// filtered.
#[derive(Debug, Default)]
pub(crate) struct ClockOffset {
    known: Option<KnownClock>,
}

#[derive(Debug)]
struct KnownClock {
    clock: gst::Clock,
    /// It reads CLOCK_MONOTONIC, unless it is slaved to another clock.
    reads_monotonic: bool,
    measured: Option<Measured>,
}

/// What is known of a clock that is not CLOCK_MONOTONIC.
#[derive(Debug, Default)]
struct Measured {
    filter: OffsetFilter,
    stamps: Stamps,
}

impl ClockOffset {
    /// CLOCK_MONOTONIC minus the time of `clock`, in nanoseconds.
    fn monotonic_minus(&mut self, clock: &gst::Clock) -> i64 {
        self.measure(clock).map_or(0, |measured| measured.filter.offset())
    }

    /// The same for a time stamp of that clock's, which may be from before it was last stepped.
    fn monotonic_minus_at(&mut self, clock: &gst::Clock, stamp: i64) -> i64 {
        self.measure(clock).map_or(0, |measured| {
            let offset = measured.filter.offset();
            measured.stamps.offset(stamp, offset, monotonic_ns() as i64)
        })
    }

    /// Whether `clock` is CLOCK_MONOTONIC.
    fn is_monotonic(&mut self, clock: &gst::Clock) -> bool {
        self.known(clock).reads_monotonic && !is_slaved(clock)
    }

    fn known(&mut self, clock: &gst::Clock) -> &mut KnownClock {
        if self.known.as_ref().is_none_or(|known| known.clock != *clock) {
            self.known = None;
        }
        self.known.get_or_insert_with(|| KnownClock {
            clock: clock.clone(),
            reads_monotonic: reads_monotonic(clock),
            measured: None,
        })
    }

    /// Measures the offset once more; `None` where there is nothing to measure.
    fn measure(&mut self, clock: &gst::Clock) -> Option<&mut Measured> {
        let is_monotonic = self.is_monotonic(clock);
        let known = self.known(clock);
        if is_monotonic {
            known.measured = None;
            return None;
        }
        let measured = known.measured.get_or_insert_default();
        let (before, time, after) = read(clock);
        if let Some(step) = measured.filter.measured(
            before.saturating_add(after) / 2,
            before.saturating_sub(time),
            after.saturating_sub(time),
        ) {
            let by = step.offset_before.saturating_sub(measured.filter.offset());
            gst::info!(CAT, obj = clock, "it was stepped by {by} ns");
            measured.stamps.stepped(step);
        }
        gst::trace!(
            CAT,
            obj = clock,
            "CLOCK_MONOTONIC is {} ns later",
            measured.filter.offset()
        );
        Some(measured)
    }
}

/// Reads `clock`, and CLOCK_MONOTONIC before and after.
fn read(clock: &gst::Clock) -> (i64, i64, i64) {
    let once = || {
        let before = monotonic_ns();
        let time = clock.time().nseconds();
        (before as i64, time as i64, monotonic_ns() as i64)
    };
    let width = |(before, _, after): &(i64, i64, i64)| after - before;
    let mut best = once();
    for _ in 1..TRIES {
        if width(&best) <= WIDE {
            break;
        }
        best = std::cmp::min_by_key(best, once(), width);
    }
    best
}

/// Whether `clock` is the system's monotonic clock itself, not one of a derived kind.
fn reads_monotonic(clock: &gst::Clock) -> bool {
    clock.type_() == gst::SystemClock::static_type()
        && clock.property::<gst::ClockType>("clock-type") == gst::ClockType::Monotonic
}

fn is_slaved(clock: &gst::Clock) -> bool {
    let (internal, external, numerator, denominator) = clock.calibration();
    internal != external || numerator != denominator
}

/// An element's place in time: where its running time 0 lies in CLOCK_MONOTONIC, in nanoseconds. `None` in a pipeline that
/// has no clock, and so no place in time.
pub(crate) fn origin(element: &gst::Element, offset: &mut ClockOffset) -> Option<i64> {
    let clock = element.clock()?;
    Some(base_time(element).saturating_add(offset.monotonic_minus(&clock)))
}

/// Whether an element's pipeline runs on CLOCK_MONOTONIC: then its origin is its [`base_time`], which may change at any time.
pub(crate) fn is_on_monotonic(element: &gst::Element, offset: &mut ClockOffset) -> bool {
    element.clock().is_some_and(|clock| offset.is_monotonic(&clock))
}

/// The same for a frame that was stamped with the running time `stamp`, maybe before the clock was stepped.
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

/// When a frame begins and is decoded, in running time, and how long it lasts there, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) pts: Option<i64>,
    pub(crate) dts: Option<i64>,
    pub(crate) duration: Option<u64>,
}

impl Times {
    pub(crate) fn of_buffer(buffer: &gst::BufferRef, segment: &gst::FormattedSegment<gst::ClockTime>) -> Self {
        let mut times = Self::of_span(buffer.pts().or(buffer.dts()), buffer.duration(), segment);
        // What is played backwards does not say when it is to be decoded.
        if segment.rate() >= 0.0 {
            times.pts = running_time(buffer.pts(), segment);
            times.dts = running_time(buffer.dts(), segment);
        }
        times
    }

    /// The times of something that is at `time` in its stream.
    pub(crate) fn of_span(
        time: Option<gst::ClockTime>,
        duration: Option<gst::ClockTime>,
        segment: &gst::FormattedSegment<gst::ClockTime>,
    ) -> Self {
        let rate = segment.rate();
        // What is played backwards begins with its end.
        let begin = match duration {
            Some(duration) if rate < 0.0 => time.map(|time| time.saturating_add(duration)),
            _ => time,
        };
        Self {
            pts: running_time(begin, segment),
            dts: None,
            duration: duration.map(|duration| sticky(duration, rate)),
        }
    }
}

/// How long `duration` of a stream lasts, in nanoseconds, when it is played at `rate`.
fn sticky(duration: gst::ClockTime, rate: f64) -> u64 {
    match rate.abs() {
        1.0 => duration.nseconds(),
        rate => (duration.nseconds() as f64 / rate).round() as u64,
    }
}

/// A time stamp of a stream as running time, which is negative for what is before the segment begins.
fn running_time(time: Option<gst::ClockTime>, segment: &gst::FormattedSegment<gst::ClockTime>) -> Option<i64> {
    segment.to_running_time_full(time?).map(|time| match time {
        gst::Signed::Positive(time) => time.nseconds() as i64,
        gst::Signed::Negative(time) => -(time.nseconds() as i64),
    })
}

/// A running time as CLOCK_MONOTONIC, or [`TIME_NONE`].
pub(crate) fn to_absolute(running: Option<i64>, origin: i64) -> u64 {
    running.map_or(TIME_NONE, |running| origin.saturating_add(running).max(0) as u64)
}

/// A CLOCK_MONOTONIC time as running time, which is negative for what was before the pipeline began.
pub(crate) fn to_running(absolute: u64, origin: i64) -> Option<i64> {
    (absolute != TIME_NONE).then(|| i64::try_from(absolute).unwrap_or(i64::MAX).saturating_sub(origin))
}
