// SPDX-License-Identifier: MIT OR Apache-2.0

//! Computes the timestamps of buffers. The times of a frame in the channel are converted to running times of the
//! reader's pipeline.

use gst::prelude::*;
use gst_base::prelude::*;
use rsshm_channel::{FrameDescriptor, Reader, TIME_NONE};

use super::{
    CAT,
    shared::Context,
    timeline::{Arrival, FAR_FUTURE_NS, Timeline},
};
use crate::time::{self, ClockOffset, Origin};

/// The greatest latency that a writer may announce. It is limited, because a greater value comes from a faulty program,
/// and sinks would wait for all of that time.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// The latency that the writer announces, that is, the delay between a frame's own time and the moment at which the
/// frame leaves the writer.
pub(super) fn latency_ns(reader: &Reader) -> u64 {
    reader.latency_ns().min(MAX_LATENCY_NS)
}

/// The smallest difference between the clocks of reader and writer that is reported, in nanoseconds.
const MIN_CLOCK_LEAD_NS: i64 = 10_000_000_000;

/// The greatest difference between the two measurements of a clock's lead, in nanoseconds, at which the lead counts as
/// certain.
const MAX_LEAD_ERROR_NS: i64 = 2_000_000_000;

/// How far this program's CLOCK_MONOTONIC is ahead of the writer's, in nanoseconds; `None` if this is not certain.
///
/// `segment_lead` is [`Reader::clock_lead_ns`]. `frame_lead` is how much later than expected a frame arrived. Each of
/// these two values can also be large for other reasons. `segment_lead` is large if the system's time was set or the
/// machine slept. `frame_lead` is large if the writer has a `ts-offset`, keeps to no clock or has stopped. Only a
/// shifted clock makes the two values large and about equal.
fn certain_lead(segment_lead: i64, frame_lead: i64) -> Option<i64> {
    let is_certain = segment_lead.saturating_abs() >= MIN_CLOCK_LEAD_NS
        && segment_lead.abs_diff(frame_lead) <= MAX_LEAD_ERROR_NS as u64;
    is_certain.then_some(segment_lead)
}

/// The PTS and the DTS of a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamps {
    pub(super) pts: Option<gst::ClockTime>,
    pub(super) dts: Option<gst::ClockTime>,
}

/// The delay between the capture of frames and their timestamps in this pipeline, as far as it lasts.
///
/// A request for a keyframe of a later time is converted with it. If the delay were overestimated, the keyframe would
/// come before its time. So the delay is the least one of the last second or two, and 0 in the first second.
#[derive(Debug, Default)]
struct LastingDelay {
    /// When the current period began; `None` before the first frame.
    since: Option<i64>,
    /// The least delay in the current period, in nanoseconds.
    least: i64,
    /// The least delay in the period before.
    least_before: i64,
}

impl LastingDelay {
    const PERIOD_NS: i64 = 1_000_000_000;

    /// Adds the delay of a frame that arrived at the time `now`. Returns the delay that lasts.
    fn add(&mut self, now: i64, delay: i64) -> i64 {
        match self.since {
            Some(since) if now.saturating_sub(since) < Self::PERIOD_NS => self.least = self.least.min(delay),
            since => {
                self.least_before = since.map_or(0, |_| self.least);
                (self.since, self.least) = (Some(now), delay);
            }
        }
        self.least.min(self.least_before).max(0)
    }
}

/// Gives frames their timestamps.
#[derive(Default)]
pub(super) struct Timing {
    clock_offset: ClockOffset,
    timeline: Timeline,
    /// Whether the base class sets the timestamps (`do-timestamp`).
    does_timestamp: bool,
    /// Whether the pipeline runs on CLOCK_MONOTONIC.
    is_on_monotonic: bool,
    /// Whether the stream has frames that can be decoded only together with other frames.
    has_deltas: bool,
    /// Whether the stream has frames whose DTS is not their PTS.
    is_reordered: bool,
    delay: LastingDelay,
    /// Whether the format has changed since the last frame, so that the next frames may need this one.
    is_format_new: bool,
    is_clock_lead_reported: bool,
    /// The running time at which the last frame or the last gap ends; `None` before the first frame.
    end: Option<i64>,
    /// Whether the time before the next frame has been filled, because there was no writer.
    was_absent: bool,
}

impl Timing {
    /// Prepares for the next frame. Call this before the wait for the frame, so that little is left to do when the
    /// frame arrives.
    pub(super) fn prepare(&mut self, element: &gst_base::BaseSrc) {
        self.does_timestamp = element.does_timestamp();
        self.is_on_monotonic = time::is_on_monotonic(element.upcast_ref(), &mut self.clock_offset);
    }

    /// Resumes after the pipeline went to PLAYING.
    pub(super) fn resume(&mut self, element: &gst_base::BaseSrc) {
        let origin = time::origin(element.upcast_ref(), &mut self.clock_offset);
        let now = origin.and_then(|origin| time::to_running(rsshm_channel::monotonic_ns(), origin));
        self.timeline.resume(now.unwrap_or(0));
        self.delay = LastingDelay::default();
    }

    /// How far this program's CLOCK_MONOTONIC is ahead of the writer's, in nanoseconds. It is returned only once, at
    /// the first frame that makes it certain.
    pub(super) fn find_clock_lead(&mut self, reader: &Reader, descriptor: &FrameDescriptor) -> Option<i64> {
        // With do-timestamp, a difference between the clocks does no harm.
        if self.is_clock_lead_reported || self.does_timestamp || descriptor.pts == TIME_NONE {
            return None;
        }
        let segment_lead = reader
            .clock_lead_ns()
            .filter(|lead| lead.saturating_abs() >= MIN_CLOCK_LEAD_NS)?;
        let expected = descriptor.pts.saturating_add(latency_ns(reader));
        let frame_lead = i64::try_from(rsshm_channel::monotonic_ns())
            .ok()?
            .checked_sub_unsigned(expected)?;
        let lead = certain_lead(segment_lead, frame_lead)?;
        self.is_clock_lead_reported = true;
        Some(lead)
    }

    /// Forgets the former format, because the caps of the stream have changed.
    pub(super) fn reset_format(&mut self) {
        self.has_deltas = false;
        self.is_reordered = false;
        self.is_format_new = true;
    }

    /// The PTS and DTS of a frame in this pipeline; `None` if the frame is skipped. `continues` says whether the frame is
    /// the next one of the same writer.
    pub(super) fn stamps(
        &mut self,
        context: Context,
        reader: &Reader,
        descriptor: &FrameDescriptor,
        is_raw_video: bool,
        is_first: bool,
        continues: bool,
    ) -> Option<Stamps> {
        let element = context.element.upcast_ref();
        let origin = if self.is_on_monotonic && !context.shared.has_resumed() {
            Some(time::base_time(element))
        } else {
            time::origin(element, &mut self.clock_offset)
        };
        // A writer of pictures may publish only one, so the first of a new writer is not skipped. Sound would overlap.
        let is_first = is_first || (std::mem::take(&mut self.was_absent) && is_raw_video);
        // Without a clock there is no running time, so buffers get no timestamps.
        let Some(origin) = origin else {
            return Some(Stamps::default());
        };
        let conversion = &context.shared.keyframes.conversion;
        if self.does_timestamp {
            let now = i64::try_from(rsshm_channel::monotonic_ns()).unwrap_or(i64::MAX);
            self.end_at(Some(now.saturating_sub(origin)), descriptor);
            if descriptor.pts != TIME_NONE {
                let delay = self.delay.add(now, now.saturating_sub_unsigned(descriptor.pts));
                conversion.record(Origin {
                    time: origin.saturating_sub(delay),
                    base_time: time::base_time(element),
                });
            }
            return Some(Stamps::default());
        }
        self.has_deltas = !is_raw_video && (self.has_deltas || descriptor.is_delta());
        let may_begin_deltas = std::mem::take(&mut self.is_format_new) && !is_raw_video;
        let running = |absolute| time::to_running(absolute, origin);
        let (pts, dts) = (running(descriptor.pts), running(descriptor.dts));
        self.is_reordered |= pts.is_some() && dts.is_some() && pts != dts;
        let in_order = if self.has_deltas { dts } else { pts };
        let shift_before = self.timeline.shift();
        let now = (rsshm_channel::monotonic_ns() as i64).saturating_sub(origin);
        let shift = match in_order.or(pts).or(dts) {
            None => 0,
            Some(running) => self.timeline.place(&Arrival {
                time: origin.saturating_add(running),
                running,
                now,
                is_first,
                latency: latency_ns(reader) as i64,
                is_in_order: in_order.is_some(),
                is_reordered: self.is_reordered,
                may_be_skipped: !self.has_deltas && !may_begin_deltas,
                is_hidden: descriptor.flags & gst::BufferFlags::DECODE_ONLY.bits() != 0,
                may_go_back: !is_raw_video && continues,
            })?,
        };
        if shift != shift_before {
            gst::debug!(
                CAT,
                obj = context.element,
                "from here on frames are {shift} ns later than their time"
            );
        }
        let delay = self.delay.add(now, shift);
        conversion.record(Origin {
            time: origin.saturating_sub(delay),
            base_time: time::base_time(element),
        });
        self.end_at(pts.or(dts).map(|running| running.saturating_add(shift)), descriptor);
        let stamp = |running: Option<i64>| {
            running.map(|running| gst::ClockTime::from_nseconds(running.saturating_add(shift).max(0) as u64))
        };
        Some(Stamps {
            pts: stamp(pts),
            dts: stamp(dts),
        })
    }

    /// Converts `absolute`, the CLOCK_MONOTONIC time of an event between two frames, to running time. Returns `None` if
    /// the time is before the start of the pipeline's time or before the last frame that was passed on.
    pub(super) fn place_gap(
        &mut self,
        element: &gst_base::BaseSrc,
        absolute: u64,
        duration: Option<gst::ClockTime>,
    ) -> Option<i64> {
        let origin = time::origin(element.upcast_ref(), &mut self.clock_offset)?;
        let start = self.timeline.place_gap(time::to_running(absolute, origin)?)?;
        self.end = self.end.max(Some(start.saturating_add(nanoseconds(duration))));
        Some(start)
    }

    /// Converts `absolute`, the CLOCK_MONOTONIC time of an event that announces a frame, to running time, with the delay
    /// of the last frame. Returns `None` without a clock.
    pub(super) fn place_event(&mut self, element: &gst_base::BaseSrc, absolute: u64) -> Option<gst::ClockTime> {
        let origin = time::origin(element.upcast_ref(), &mut self.clock_offset)?;
        let running = time::to_running(absolute, origin)?.saturating_add(self.timeline.shift());
        Some(gst::ClockTime::from_nseconds(running.max(0) as u64))
    }

    /// Whether there has been a frame with a time.
    pub(super) fn has_begun(&self) -> bool {
        self.end.is_some()
    }

    /// Records that a frame begins at this running time.
    fn end_at(&mut self, start: Option<i64>, descriptor: &FrameDescriptor) {
        let duration = Some(descriptor.duration).filter(|duration| *duration != TIME_NONE);
        let end = start.map(|start| start.saturating_add(nanoseconds(duration.map(gst::ClockTime::from_nseconds))));
        // Encoded frames may arrive in another order than that of their times. A frame from the far future does not
        // count.
        let is_later = |last: i64| end.is_some_and(|end| end > last || end.saturating_add(FAR_FUTURE_NS) < last);
        if self.end.is_none_or(is_later) {
            self.end = end;
        }
    }

    /// The running time now; `None` if the pipeline has no clock.
    fn arrival_time(&mut self, element: &gst::Element) -> Option<i64> {
        let origin = time::origin(element, &mut self.clock_offset)?;
        Some((rsshm_channel::monotonic_ns() as i64).saturating_sub(origin))
    }

    /// The time, as start and duration, for which no frame has come, because there is no writer. It ends with the time
    /// of a frame that would arrive now. `usable` is how much of this time is filled. Frames of the next writer are
    /// placed after the filled time.
    pub(super) fn take_absence(
        &mut self,
        element: &gst_base::BaseSrc,
        latency_ns: u64,
        usable: impl FnOnce(gst::ClockTime) -> gst::ClockTime,
    ) -> Option<(gst::ClockTime, gst::ClockTime)> {
        // With do-timestamp, a frame has the time of its arrival.
        let latency = if element.does_timestamp() { 0 } else { latency_ns };
        let end = self
            .arrival_time(element.upcast_ref())?
            .saturating_sub_unsigned(latency);
        let start = gst::ClockTime::from_nseconds(u64::try_from(self.end?).ok()?);
        let end = gst::ClockTime::from_nseconds(u64::try_from(end).ok()?);
        let duration = usable(end.checked_sub(start)?);
        if duration.is_zero() {
            return None;
        }
        let filled = nanoseconds(Some(start.saturating_add(duration)));
        self.end = Some(filled);
        self.timeline.begin_at(filled);
        self.was_absent = true;
        Some((start, duration))
    }
}

/// A duration in nanoseconds; 0 if it is unknown.
fn nanoseconds(duration: Option<gst::ClockTime>) -> i64 {
    duration.map_or(0, |duration| i64::try_from(duration.nseconds()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{LastingDelay, certain_lead};

    const S: i64 = 1_000_000_000;

    #[test]
    fn only_lasting_delay_counts() {
        const MS: i64 = 1_000_000;
        let mut delay = LastingDelay::default();
        // The first frames are from before the start, and were shifted.
        assert!((0..30).all(|n| delay.add(n * 33 * MS, (30 - n) * 33 * MS) == 0));
        assert!((30..60).all(|n| delay.add(n * 33 * MS, 0) == 0));
        // The writer becomes late for good.
        let last = (60..180).map(|n| delay.add(n * 33 * MS, 2 * S + n)).last();
        assert!(
            last.is_some_and(|delay| (2 * S..2 * S + 180).contains(&delay)),
            "{last:?}"
        );
        assert_eq!(delay.add(180 * 33 * MS, 5), 5);
    }

    #[test]
    fn lead_of_shifted_clock_is_certain() {
        assert_eq!(certain_lead(100 * S, 101 * S), Some(100 * S));
        assert_eq!(certain_lead(-100 * S, -99 * S), Some(-100 * S));
    }

    #[test]
    fn other_causes_are_no_lead() {
        // Frames are late or early because of a `ts-offset`, a file with `sync=false`, or a stopped writer.
        for frame_lead in [3600 * S, -3600 * S, 11 * S, i64::MAX, i64::MIN] {
            assert_eq!(certain_lead(0, frame_lead), None);
        }
        // The machine slept, or the system's time was set.
        for segment_lead in [3600 * S, -3600 * S, 11 * S, i64::MAX, i64::MIN] {
            assert_eq!(certain_lead(segment_lead, 0), None);
        }
        // The writer stopped before the machine slept.
        assert_eq!(certain_lead(-3600 * S, 3600 * S), None);
        assert_eq!(certain_lead(5 * S, 5 * S), None);
    }
}
