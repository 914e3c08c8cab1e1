//! Clocks that are not CLOCK_MONOTONIC, on either side: drift and steps are followed, and time stamps stay what they are.

mod common;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use common::{Channel, Pipeline, Tap, eventually};
use gst::{glib, prelude::*, subclass::prelude::*};
use rsshm_channel::monotonic_ns;

const FRAMES: u64 = 200;
const FRAME_TIME: Duration = Duration::from_millis(10);
const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=100/1";

/// What a time stamp may be off.
const EXACT: i64 = 150_000;

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct DriftingClock {
        /// By so much it is later than its drift says.
        pub stepped: AtomicI64,
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
    /// A clock that is fast by 200 ppm, can be stepped, and has begun at another time.
    pub struct DriftingClock(ObjectSubclass<imp::DriftingClock>) @extends gst::SystemClock, gst::Clock, gst::Object;
}

impl DriftingClock {
    fn new() -> Self {
        common::init();
        glib::Object::new()
    }

    fn time_at(&self, monotonic: u64) -> u64 {
        let drift = monotonic / 5_000;
        let time = monotonic + drift + 1_000_000_000_000;
        time.saturating_add_signed(self.imp().stepped.load(Ordering::Relaxed))
    }

    fn step(&self, by_ms: i64) {
        self.imp().stepped.fetch_add(by_ms * 1_000_000, Ordering::Relaxed);
    }
}

/// A clock of one side, and what it says at a time of CLOCK_MONOTONIC.
struct Side {
    clock: gst::Clock,
    time_at: Box<dyn Fn(u64) -> u64>,
}

impl Side {
    fn monotonic() -> Self {
        common::init();
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

    /// The system's own clock, slaved to another that is slow.
    fn calibrated() -> Self {
        common::init();
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

/// Where something may happen to the clocks.
#[derive(Clone, Copy, PartialEq)]
enum When {
    BeforeCapture(u64),
    AfterCapture(u64),
}

/// Sends frames that are stamped with the time of their capture, and yields what the reader's time stamps are off, in
/// nanoseconds.
fn errors(writing: Side, reading: Side, mut happens: impl FnMut(When)) -> Vec<i64> {
    let channel = Channel::new();
    let reader = Tap::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.pipeline.0.use_clock(Some(&reading.clock));
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    let writer = Pipeline::new(&format!(
        "appsrc name=camera is-live=true format=time caps={CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    writer.0.use_clock(Some(&writing.clock));
    writer.0.set_state(gst::State::Playing).unwrap();
    let camera = writer.element("camera");
    let mut captured = Vec::new();
    for n in 0..FRAMES {
        happens(When::BeforeCapture(n));
        let now = monotonic_ns();
        let stamp = (writing.time_at)(now) - writer.0.base_time().unwrap().nseconds();
        happens(When::AfterCapture(n));
        let mut buffer = gst::Buffer::with_size(64 * 48).unwrap();
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_nseconds(stamp));
            buffer.set_offset(n);
        }
        // What the reader's clock says then.
        captured.push((reading.time_at)(now) - reader.pipeline.0.base_time().unwrap().nseconds());
        let flow: gst::FlowReturn = camera.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        eventually("the frame", || reader.last().is_some_and(|frame| frame.offset == n));
        std::thread::sleep(FRAME_TIME);
    }
    let frames = reader.all();
    assert_eq!(frames.len(), captured.len());
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let error = |(frame, captured): (&common::Seen, u64)| frame.pts.unwrap().nseconds() as i64 - captured as i64;
    frames.iter().zip(captured).map(error).collect()
}

#[track_caller]
fn assert_exact(errors: &[i64]) {
    let worst = errors.iter().map(|error| error.abs()).max().unwrap();
    assert!(worst < EXACT, "{worst} ns: {errors:?}");
}

#[test]
fn a_writers_clock_may_drift_and_step() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(side, Side::monotonic(), |when| match when {
        When::BeforeCapture(100) => clock.step(40),
        // Stamped before the step, sent after it.
        When::AfterCapture(130) => clock.step(30_000),
        _ => {}
    });
    assert_exact(&errors);
}

#[test]
fn a_readers_clock_may_drift_and_step() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(Side::monotonic(), side, |when| match when {
        When::BeforeCapture(100) => clock.step(40),
        When::BeforeCapture(130) => clock.step(30_000),
        _ => {}
    });
    assert_exact(&errors);
}

#[test]
fn both_clocks_may_be_slaved_to_others() {
    let errors = errors(Side::calibrated(), Side::calibrated(), |_| {});
    assert_exact(&errors);
}

#[test]
fn a_readers_clock_may_be_set_back() {
    let clock = DriftingClock::new();
    let side = Side::drifting(&clock);
    let errors = errors(Side::monotonic(), side, |when| {
        if when == When::BeforeCapture(100) {
            clock.step(-80);
        }
    });
    assert_exact(&errors[..100]);
    // It stands still for 80 ms.
    assert_exact(&errors[115..]);
}
