// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipelines with clocks other than CLOCK_MONOTONIC. Timestamps stay correct while a clock drifts and steps.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use rsshm_channel::monotonic_ns;
use rsshm_testkit::{
    Channel, eventually,
    gst::{RecordedFrame, SinkHarness, SourceRecorder, caps_at, init},
};

const FRAMES: u64 = 200;
const FRAME_TIME: Duration = Duration::from_millis(10);

/// The largest error of a timestamp, in nanoseconds.
const MAX_ERROR_NS: i64 = 150_000;

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct DriftingClock {
        /// The sum of all steps, in nanoseconds.
        pub steps: AtomicI64,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for DriftingClock {
        const NAME: &'static str = "RsShmTestDriftingClock";
        type Type = super::DriftingClock;
        type ParentType = gst::SystemClock;
    }

    impl ObjectImpl for DriftingClock {}
    impl GstObjectImpl for DriftingClock {}
    impl ClockImpl for DriftingClock {
        fn internal_time(&self) -> gst::ClockTime {
            gst::ClockTime::from_nseconds(self.obj().time_at(monotonic_ns()))
        }
    }
    impl SystemClockImpl for DriftingClock {}
}

glib::wrapper! {
    /// A clock that is fast by 200 ppm, starts 1000 s ahead, and can be stepped.
    pub struct DriftingClock(ObjectSubclass<imp::DriftingClock>) @extends gst::SystemClock, gst::Clock, gst::Object;
}

impl DriftingClock {
    fn new() -> Self {
        init();
        glib::Object::new()
    }

    fn time_at(&self, monotonic: u64) -> u64 {
        // Relaxed, because the test orders steps and timestamps itself.
        let steps = self.imp().steps.load(Ordering::Relaxed);
        let drift = monotonic / 5_000;
        let time = monotonic + drift + 1_000_000_000_000;
        time.saturating_add_signed(steps)
    }

    fn step(&self, by_ms: i64) {
        // Relaxed, because the test orders steps and timestamps itself.
        self.imp().steps.fetch_add(by_ms * 1_000_000, Ordering::Relaxed);
    }
}

/// The clock of the writer's or of the reader's pipeline.
struct Side {
    clock: gst::Clock,
    /// Converts a time of CLOCK_MONOTONIC to the time of the clock.
    time_at: Box<dyn Fn(u64) -> u64>,
}

impl Side {
    fn monotonic() -> Self {
        init();
        Self {
            clock: gst::SystemClock::obtain(),
            time_at: Box::new(|time| time),
        }
    }

    fn drifting(clock: &DriftingClock) -> Self {
        let drifting = clock.clone();
        Self {
            clock: clock.clone().upcast(),
            time_at: Box::new(move |time| drifting.time_at(time)),
        }
    }

    /// A system clock that is slaved to another, slower clock.
    fn calibrated() -> Self {
        init();
        let clock: gst::Clock = glib::Object::builder::<gst::SystemClock>()
            .property("clock-type", gst::ClockType::Monotonic)
            .build()
            .upcast();
        let (internal, external) = (monotonic_ns(), monotonic_ns() + 7_000_000_000);
        let time = gst::ClockTime::from_nseconds;
        clock.set_calibration(time(internal), time(external), 4_999, 5_000);
        Self {
            clock,
            time_at: Box::new(move |time| external + ((time - internal) as f64 * 4_999.0 / 5_000.0) as u64),
        }
    }
}

/// A moment at which a test may step a clock.
#[derive(Clone, Copy, PartialEq)]
enum CaptureMoment {
    BeforeCapture(u64),
    AfterCapture(u64),
}

/// Sends frames that are stamped at their capture. Returns the errors of the reader's timestamps, in nanoseconds.
///
/// `at` is called before and after each capture.
fn errors(writing: Side, reading: Side, mut at: impl FnMut(CaptureMoment)) -> Vec<i64> {
    let channel = Channel::new();
    let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.pipeline.use_clock(Some(&reading.clock));
    reader.pipeline.play();
    let writer = SinkHarness::with_source(&channel, "is-live=true", "wait-for-connection=true");
    writer.set_caps(&caps_at(100));
    writer.pipeline.use_clock(Some(&writing.clock));
    writer.pipeline.play();
    let mut captured = Vec::new();
    for n in 0..FRAMES {
        at(CaptureMoment::BeforeCapture(n));
        let now = monotonic_ns();
        let stamp = (writing.time_at)(now) - writer.pipeline.base_time().unwrap().nseconds();
        at(CaptureMoment::AfterCapture(n));
        let mut buffer = gst::Buffer::with_size(64 * 48).unwrap();
        let target = buffer.get_mut().unwrap();
        target.set_pts(gst::ClockTime::from_nseconds(stamp));
        target.set_offset(n);
        // The time of capture on the reader's clock.
        captured.push((reading.time_at)(now) - reader.pipeline.base_time().unwrap().nseconds());
        writer.push(&buffer);
        eventually("the frame arrives", || {
            reader.last_frame().is_some_and(|frame| frame.offset == n)
        });
        std::thread::sleep(FRAME_TIME);
    }
    let frames = reader.frames();
    assert_eq!(frames.len(), captured.len());
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let error = |(frame, captured): (&RecordedFrame, u64)| frame.pts.unwrap().nseconds() as i64 - captured as i64;
    frames.iter().zip(captured).map(error).collect()
}

#[track_caller]
fn assert_exact(errors: &[i64]) {
    let worst = errors.iter().map(|error| error.abs()).max().unwrap();
    assert!(worst < MAX_ERROR_NS, "{worst} ns: {errors:?}");
}

#[test]
fn timestamps_survive_writer_clock_steps() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(side, Side::monotonic(), |when| match when {
        CaptureMoment::BeforeCapture(100) => clock.step(40),
        // This frame is stamped before the step and sent after it.
        CaptureMoment::AfterCapture(130) => clock.step(30_000),
        _ => {}
    });
    assert_exact(&errors);
}

#[test]
fn timestamps_survive_reader_clock_steps() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(Side::monotonic(), side, |when| match when {
        CaptureMoment::BeforeCapture(100) => clock.step(40),
        CaptureMoment::BeforeCapture(130) => clock.step(30_000),
        _ => {}
    });
    assert_exact(&errors);
}

#[test]
fn timestamps_survive_slaved_clocks() {
    let errors = errors(Side::calibrated(), Side::calibrated(), |_| {});
    assert_exact(&errors);
}

#[test]
fn timestamps_survive_reader_clock_set_back() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(Side::monotonic(), side, |when| {
        if when == CaptureMoment::BeforeCapture(100) {
            clock.step(-80);
        }
    });
    assert_exact(&errors[..100]);
    // The reader's time does not advance for 80 ms.
    assert_exact(&errors[115..]);
}
