//! Time stamps that mean the same in every pipeline of the machine: CLOCK_MONOTONIC nanoseconds.

use gst::prelude::*;
use rsshm_channel::{NONE, monotonic_ns};

/// Turns a pipeline's clock into CLOCK_MONOTONIC.
///
/// Most pipelines run on that clock already, and the offset is exactly 0. For others it is measured with each frame and
/// smoothed, as two clocks cannot be read at the same instant.
#[derive(Debug, Default)]
pub(crate) struct ClockOffset {
    known: Option<KnownClock>,
}

#[derive(Debug)]
struct KnownClock {
    clock: gst::Clock,
    /// It reads CLOCK_MONOTONIC, unless it is slaved to another clock.
    reads_monotonic: bool,
    smoothed: Option<f64>,
}

/// How much of a new measurement is believed.
const SMOOTHING: f64 = 1.0 / 64.0;

impl ClockOffset {
    /// CLOCK_MONOTONIC minus the time of `clock`, in nanoseconds.
    pub(crate) fn monotonic_minus(&mut self, clock: &gst::Clock) -> i64 {
        let known = match self.known.take().filter(|known| known.clock == *clock) {
            Some(known) => self.known.insert(known),
            None => self.known.insert(KnownClock {
                clock: clock.clone(),
                reads_monotonic: reads_monotonic(clock),
                smoothed: None,
            }),
        };
        if known.reads_monotonic && !is_slaved(clock) {
            return 0;
        }
        let before = monotonic_ns();
        let time = clock.time().nseconds();
        let after = monotonic_ns();
        let measured = ((before + after) / 2) as f64 - time as f64;
        let smoothed = known
            .smoothed
            .map_or(measured, |smoothed| smoothed + (measured - smoothed) * SMOOTHING);
        known.smoothed = Some(smoothed);
        smoothed as i64
    }
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
    let base_time = element.base_time().map_or(0, |time| time.nseconds() as i64);
    Some(base_time.saturating_add(offset.monotonic_minus(&clock)))
}

/// A time stamp of a stream as CLOCK_MONOTONIC, or [`NONE`].
pub(crate) fn to_absolute(
    time: Option<gst::ClockTime>,
    segment: &gst::FormattedSegment<gst::ClockTime>,
    origin: i64,
) -> u64 {
    let running = match time.and_then(|time| segment.to_running_time_full(time)) {
        None => return NONE,
        Some(gst::Signed::Positive(time)) => time.nseconds() as i64,
        Some(gst::Signed::Negative(time)) => -(time.nseconds() as i64),
    };
    origin.saturating_add(running).max(0) as u64
}

/// A CLOCK_MONOTONIC time as running time, which is negative for what was before the pipeline began.
pub(crate) fn to_running(absolute: u64, origin: i64) -> Option<i64> {
    (absolute != NONE).then(|| i64::try_from(absolute).unwrap_or(i64::MAX).saturating_sub(origin))
}
