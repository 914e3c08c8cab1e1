// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shares the conversion of the last frame's time with other threads.

use std::sync::atomic::{AtomicI64, Ordering};

use gst::prelude::*;
use rsshm_channel::TIME_NONE;

use super::{ClockOffset, Origin, base_time, origin, to_absolute, to_running};

/// The value that means that no frame was converted yet.
const UNKNOWN: i64 = i64::MIN;

/// The conversion between running time and CLOCK_MONOTONIC that the last frame had. Other threads convert the times of
/// events with it. So an event for the time of a frame gets exactly the time of that frame.
///
/// All accesses are Relaxed, because no other data depends on the value.
#[derive(Debug)]
pub(crate) struct LastConversion(AtomicI64);

impl Default for LastConversion {
    fn default() -> Self {
        Self(AtomicI64::new(UNKNOWN))
    }
}

impl LastConversion {
    /// Records that a frame with the running time 0 would have the time of `origin`.
    pub(crate) fn record(&self, origin: Origin) {
        // The base time is left out, because it changes at once when the pipeline is paused and resumed.
        let offset = origin.time.saturating_sub(origin.base_time);
        self.0.store(offset.max(UNKNOWN + 1), Ordering::Relaxed);
    }

    /// Forgets the last frame.
    pub(crate) fn reset(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }

    /// A running time as CLOCK_MONOTONIC nanoseconds; `None` if the pipeline has no clock.
    pub(crate) fn to_absolute(&self, element: &gst::Element, running: gst::ClockTime) -> Option<u64> {
        let running = i64::try_from(running.nseconds()).unwrap_or(i64::MAX);
        Some(to_absolute(Some(running), self.origin(element)?).min(TIME_NONE - 1))
    }

    /// A CLOCK_MONOTONIC time as running time; `None` if the pipeline has no clock, or if the time is before its start.
    pub(crate) fn to_running(&self, element: &gst::Element, absolute: u64) -> Option<gst::ClockTime> {
        let running = to_running(absolute, self.origin(element)?)?;
        u64::try_from(running).ok().map(gst::ClockTime::from_nseconds)
    }

    fn origin(&self, element: &gst::Element) -> Option<i64> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => origin(element, &mut ClockOffset::default()),
            offset => element.clock().map(|_| base_time(element).saturating_add(offset)),
        }
    }
}
