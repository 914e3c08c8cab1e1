//! Time: a frame's time stamp in the reader is when it was captured, and latency is answered.

mod common;

use std::time::{Duration, Instant};

use common::{Channel, Pipeline, Seen, Tap, eventually, launch};
use gst::prelude::*;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

/// Nanoseconds from a frame's time stamp to its arrival.
fn age(frame: &Seen) -> i64 {
    frame.at.nseconds() as i64 - frame.pts.expect("a time stamp").nseconds() as i64
}

/// The age in the middle: this machine may be busy with something else now and then.
fn typical_age(frames: &[Seen]) -> Duration {
    let mut ages: Vec<i64> = frames.iter().map(age).collect();
    ages.sort_unstable();
    Duration::from_nanos(u64::try_from(ages[ages.len() / 2]).expect("no frame is from the future"))
}

/// The frames after the first: that one was captured before the reader began, and has its time 0.
#[track_caller]
fn frames_after_the_first(reader: &Tap) -> Vec<Seen> {
    reader.wait_for_more(30);
    let frames = reader.all()[1..].to_vec();
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    frames
}

#[test]
fn a_time_stamp_is_the_time_of_capture_in_a_pipeline_that_started_later() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ));
    eventually("the channel", || channel.exists());
    std::thread::sleep(Duration::from_millis(1500));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let frames = frames_after_the_first(&reader);
    assert!(
        typical_age(&frames) < Duration::from_millis(60),
        "{:?}",
        typical_age(&frames)
    );
    // The newest one on arrival is shown at once.
    assert_eq!(reader.all()[0].pts, Some(gst::ClockTime::ZERO));
    writer.interrupt();
}

#[test]
fn a_time_stamp_is_the_time_of_capture_in_a_pipeline_that_started_before() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    std::thread::sleep(Duration::from_millis(1500));
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ));
    let frames = frames_after_the_first(&reader);
    assert!(
        typical_age(&frames) < Duration::from_millis(60),
        "{:?}",
        typical_age(&frames)
    );
    assert!(frames[0].pts.unwrap() > gst::ClockTime::SECOND);
    writer.interrupt();
}

/// As when a seek elsewhere in the pipeline begins its time anew: the source is playing, and waits.
#[test]
fn a_base_time_that_changes_while_a_frame_is_waited_for_counts_for_that_frame() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=48,framerate=4/1 ! rsshmsink name={channel}"
    ));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(3);
    let source = reader.pipeline.by_factory("rsshmsrc");
    source.set_base_time(source.base_time().unwrap() - gst::ClockTime::from_seconds(10));
    let before = reader.count();
    reader.wait_for_more(1);
    let age = age(&reader.all()[before]);
    assert!((0..1_000_000_000).contains(&age), "{age}");
    writer.interrupt();
}

#[test]
fn a_time_stamp_survives_another_clock() {
    let channel = Channel::new();
    let realtime = || {
        common::init();
        gst::glib::Object::builder::<gst::SystemClock>()
            .property("clock-type", gst::ClockType::Realtime)
            .build()
    };
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    writer.0.use_clock(Some(&realtime()));
    writer.0.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    for clock in [None, Some(realtime())] {
        let reader = Tap::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
        if let Some(clock) = clock {
            reader.pipeline.0.use_clock(Some(&clock));
        }
        reader.pipeline.0.set_state(gst::State::Playing).unwrap();
        let frames = frames_after_the_first(&reader);
        assert!(
            typical_age(&frames) < Duration::from_millis(60),
            "{:?}",
            typical_age(&frames)
        );
    }
}

#[test]
fn a_pause_does_not_shift_time() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(10);
    for pause in [1000, 20, 300] {
        reader.pipeline.0.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let before = reader.all();
        reader.pipeline.0.set_state(gst::State::Playing).unwrap();
        reader.wait_for_more(20);
        let frames = reader.all()[before.len()..].to_vec();
        assert!(
            typical_age(&frames[1..]) < Duration::from_millis(60),
            "{:?}",
            typical_age(&frames)
        );
        // It goes on with the newest frame, not with those that it slept through. One may have come while it paused.
        let skipped = frames[1].offset - before.last().unwrap().offset;
        assert!(skipped >= pause * 30 / 1000, "{skipped}");
    }
    let times: Vec<_> = reader.all().iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    writer.interrupt();
}

#[test]
fn a_live_writers_latency_is_answered() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel} processing-deadline=7000000"
    ));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    reader.wait_for_more(3);
    let upstream = writer.latency("videotestsrc");
    let expected = upstream.1 + 7 * gst::ClockTime::MSECOND;
    eventually("the reader's latency", || {
        reader.pipeline.latency("rsshmsrc").1 == expected
    });
    let (live, min, max) = reader.pipeline.latency("rsshmsrc");
    assert!(live);
    assert!(max.unwrap() >= min + 60 * gst::ClockTime::MSECOND, "{max:?}");
    // The reader's own pipeline is configured with it.
    let sink = reader.pipeline.by_factory("fakesink");
    eventually("the reader's sink knows", || {
        let mut query = gst::query::Latency::new();
        sink.query(&mut query) && query.result().1 >= expected
    });
}

#[test]
fn a_paced_writers_latency_is_answered() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} ts-offset=30000000"
    ));
    writer.0.set_latency(200 * gst::ClockTime::MSECOND);
    writer.0.set_state(gst::State::Playing).unwrap();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(3);
    let expected = 230 * gst::ClockTime::MSECOND;
    eventually("the reader's latency", || {
        reader.pipeline.latency("rsshmsrc").1 == expected
    });
    assert!(reader.pipeline.latency("rsshmsrc").0);
    // And it is true.
    let frames = frames_after_the_first(&reader);
    let age = typical_age(&frames[frames.len() - 20..]);
    assert!(
        age >= Duration::from_millis(228) && age < Duration::from_millis(290),
        "{age:?}"
    );
}

#[test]
fn a_change_of_latency_is_told() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(3);
    while reader
        .pipeline
        .0
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Latency])
        .is_some()
    {}
    writer.0.set_latency(100 * gst::ClockTime::MSECOND);
    reader.pipeline.message(&[gst::MessageType::Latency]);
    assert_eq!(reader.pipeline.latency("rsshmsrc").1, 100 * gst::ClockTime::MSECOND);
}

#[test]
fn do_timestamp_stamps_on_arrival() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} ts-offset=300000000"
    ));
    writer.0.set_state(gst::State::Playing).unwrap();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} do-timestamp=true ! fakesink sync=false"
    ));
    // Frames that are 300 ms old.
    let frames = frames_after_the_first(&reader);
    assert!(
        typical_age(&frames) < Duration::from_millis(20),
        "{:?}",
        typical_age(&frames)
    );
    assert_eq!(reader.pipeline.latency("rsshmsrc").1, gst::ClockTime::ZERO);
}

#[test]
fn frames_of_a_file_are_paced() {
    let channel = Channel::new();
    let started = Instant::now();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=31 ! {CAPS} ! rsshmsink channel={channel}"
    ));
    writer.wait_eos();
    let time = started.elapsed();
    assert!(
        time > Duration::from_millis(950) && time < Duration::from_secs(4),
        "{time:?}"
    );
    // Unless they are not to be.
    let started = Instant::now();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=301 ! {CAPS} ! rsshmsink channel={channel}-2 sync=false"
    ));
    writer.wait_eos();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn frames_of_a_live_writer_leave_at_once() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    // A sink that waited would keep each frame for so long.
    writer.0.set_latency(400 * gst::ClockTime::MSECOND);
    writer.0.set_state(gst::State::Playing).unwrap();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let frames = frames_after_the_first(&reader);
    assert!(
        typical_age(&frames) < Duration::from_millis(100),
        "{:?}",
        typical_age(&frames)
    );
}

#[test]
fn sync_and_ts_offset_stay_what_the_user_set() {
    for sync in [true, false] {
        for source in ["videotestsrc", "videotestsrc is-live=true"] {
            let channel = Channel::new();
            let writer = Pipeline::playing(&format!(
                "{source} ! {CAPS} ! rsshmsink channel={channel} sync={sync} ts-offset=5 wait-for-connection=true"
            ));
            let sink = writer.by_factory("rsshmsink");
            eventually("the channel", || channel.exists());
            std::thread::sleep(Duration::from_millis(50));
            let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
            reader.wait_for_more(3);
            assert_eq!(sink.property::<bool>("sync"), sync);
            assert_eq!(sink.property::<i64>("ts-offset"), 5);
            sink.set_property("sync", !sync);
            assert_eq!(sink.property::<bool>("sync"), !sync);
        }
    }
}

#[test]
fn a_file_that_waited_for_its_reader_plays_from_there() {
    for sync in [true, false] {
        let channel = Channel::new();
        let mut writer = launch(&format!(
            "videotestsrc num-buffers=45 ! {CAPS} ! rsshmsink name={channel} wait-for-connection=true lossless=true \
             sync={sync}"
        ));
        eventually("the channel", || channel.exists());
        std::thread::sleep(Duration::from_millis(1000));
        let started = Instant::now();
        let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
        reader.pipeline.wait_eos();
        writer.wait_ok();
        let frames = reader.all();
        assert_eq!(frames.len(), 45);
        let frame_time = gst::ClockTime::SECOND / 30;
        for pair in frames[1..].windows(2) {
            let step = pair[1].pts.unwrap() - pair[0].pts.unwrap();
            assert!(step.absdiff(frame_time) < gst::ClockTime::MSECOND, "{step}");
        }
        if sync {
            // Not in a hurry either.
            assert!(
                started.elapsed() > Duration::from_millis(1300),
                "{:?}",
                started.elapsed()
            );
        }
    }
}

#[test]
fn a_writer_that_is_slower_than_its_frame_rate_is_shown() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc ! video/x-raw,format=GRAY8,framerate=1000/1 ! identity sleep-time=20000 \
         ! rsshmsink name={channel} sync=false"
    ));
    eventually("the channel", || channel.exists());
    std::thread::sleep(Duration::from_millis(500));
    // All its frames are, and stay, from before the reader's time.
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(20);
    let frames = reader.all();
    assert_eq!(frames[0].pts, Some(gst::ClockTime::ZERO));
    for pair in frames.windows(2) {
        let step = pair[1]
            .pts
            .unwrap()
            .checked_sub(pair[0].pts.unwrap())
            .expect("time goes on");
        let captured = (pair[1].offset - pair[0].offset) * gst::ClockTime::MSECOND;
        assert!(
            step.absdiff(captured) < gst::ClockTime::USECOND,
            "{step} for {captured}"
        );
    }
    writer.interrupt();
}

#[test]
fn a_writer_that_waited_for_its_first_reader_does_not_wait_so_long_again() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    eventually("the channel", || channel.exists());
    std::thread::sleep(Duration::from_secs(4));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(5);
    writer.0.set_state(gst::State::Ready).unwrap();
    let restarted = Instant::now();
    writer.0.set_state(gst::State::Playing).unwrap();
    reader.wait_for_more(10);
    assert!(
        restarted.elapsed() < Duration::from_secs(3),
        "{:?}",
        restarted.elapsed()
    );
}

/// Pipelines without a clock have no running time: frames of one are from when they were sent, and go to the other without
/// a time stamp.
#[test]
fn pipelines_without_a_clock_share_frames_all_the_same() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=false num-buffers=60 ! video/x-raw,width=64,height=64 \
         ! identity sleep-time=10000 ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    writer.0.use_clock(None::<&gst::Clock>);
    let timed = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let untimed = Tap::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    untimed.pipeline.0.use_clock(None::<&gst::Clock>);
    untimed.pipeline.0.set_state(gst::State::Playing).unwrap();
    writer.0.set_state(gst::State::Playing).unwrap();
    timed.pipeline.wait_eos();
    untimed.pipeline.wait_eos();
    let frames = timed.all();
    assert!(frames.len() > 50, "{}", frames.len());
    for pair in frames.windows(2) {
        assert!(pair[0].pts.unwrap() < pair[1].pts.unwrap(), "time goes on");
    }
    assert!(untimed.count() > 50, "{}", untimed.count());
    assert!(untimed.all().iter().all(|frame| frame.pts.is_none()));
}
