// SPDX-License-Identifier: MIT OR Apache-2.0

//! Timestamps and latency. A frame keeps its time of capture in the reader's pipeline, and the latency is reported.

use std::time::{Duration, Instant};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{CAPS, Pipeline, RecordedFrame, SourceRecorder, command, init, launch, live_writer},
    need_program, shm, skip,
};

/// The time from a frame's timestamp to its arrival, in nanoseconds.
fn age(frame: &RecordedFrame) -> i64 {
    frame.at.nseconds() as i64 - frame.pts.expect("a timestamp").nseconds() as i64
}

/// The first quartile of the ages. A busy machine delays many frames, but a wrong time shifts all of them.
fn quartile_age(frames: &[RecordedFrame]) -> Duration {
    let mut ages: Vec<i64> = frames.iter().map(age).collect();
    ages.sort_unstable();
    Duration::from_nanos(u64::try_from(ages[ages.len() / 4]).expect("no frame is from the future"))
}

/// All frames after the first. The first frame was captured before the reader started, and has time 0.
#[track_caller]
fn frames_after_the_first(reader: &SourceRecorder) -> Vec<RecordedFrame> {
    reader.wait_for_frames(30);
    let frames = reader.frames()[1..].to_vec();
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    frames
}

#[test]
fn reader_in_another_time_namespace_warns_once() {
    need_program!("unshare");
    for (offset, text) in [
        ("--monotonic=-100", "100 seconds behind the writer's"),
        ("--monotonic=100", "100 seconds ahead of the writer's"),
    ] {
        let Some(wrapper) = shm::unshared(&["--time", offset, "--fork", "--kill-child"]) else {
            skip!("no time namespace");
        };
        let channel = Channel::new();
        let mut writer = launch(&format!(
            "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
        ));
        let mut reader = command(wrapper[0]);
        reader.args(&wrapper[1..]);
        reader.args([
            "gst-launch-1.0",
            "rsshmsrc",
            &format!("channel={channel}"),
            "num-buffers=20",
        ]);
        reader.args(["!", "fakesink", "sync=true", "ts-offset=-100000000000", "async=false"]);
        let output = Process::start(reader).wait_ok();
        assert_eq!(output.matches(text).count(), 2, "as text and as debug text: {output}");
        assert!(output.contains(channel.as_str()), "{output}");
        writer.interrupt();
    }
}

#[test]
fn reader_in_same_time_namespace_does_not_warn() {
    for options in ["", "ts-offset=20000000000", "ts-offset=-20000000000", "sync=false"] {
        let channel = Channel::new();
        let is_live = if options == "sync=false" { "false" } else { "true" };
        let writer = Pipeline::playing(&format!(
            "videotestsrc is-live={is_live} ! {CAPS} ! rsshmsink name={channel} async=false {options}"
        ));
        if options == "ts-offset=20000000000" {
            // With `sync`, the sink would hold its first frame for 20 s.
            writer.by_factory("rsshmsink").set_property("sync", false);
        }
        let reader = SourceRecorder::of(&channel);
        reader.wait_for_frames(20);
        let warnings = reader.pipeline.take_messages(gst::MessageType::Warning);
        assert!(warnings.is_empty(), "{options}: {warnings:?}");
    }
}

#[test]
fn later_reader_keeps_time_of_capture() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    eventually("the channel exists", || channel.exists());
    std::thread::sleep(Duration::from_millis(1500));
    let reader = SourceRecorder::of(&channel);
    let frames = frames_after_the_first(&reader);
    assert!(
        quartile_age(&frames) < Duration::from_millis(60),
        "{:?}",
        quartile_age(&frames)
    );
    // The newest frame at the reader's start is due at once. If a frame is captured just then, it is the first one, and has
    // a later time.
    let first_times: Vec<_> = (0..5)
        .map(|_| {
            let reader = SourceRecorder::of(&channel);
            reader.wait_for_frames(1);
            reader.frames()[0].pts
        })
        .collect();
    let at_once = first_times.iter().filter(|pts| **pts == Some(gst::ClockTime::ZERO));
    assert!(at_once.count() >= 3, "{first_times:?}");
    writer.interrupt();
}

#[test]
fn earlier_reader_keeps_time_of_capture() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    // The writer starts this much later than the reader.
    std::thread::sleep(Duration::from_millis(1500));
    let mut writer = live_writer(&channel);
    let frames = frames_after_the_first(&reader);
    assert!(
        quartile_age(&frames) < Duration::from_millis(60),
        "{:?}",
        quartile_age(&frames)
    );
    assert!(frames[0].pts.unwrap() > gst::ClockTime::SECOND);
    writer.interrupt();
}

/// The base time changes while the source waits for a frame. A seek in another part of the pipeline can cause this
/// change.
#[test]
fn source_uses_base_time_changed_while_waiting() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=48,framerate=4/1 ! rsshmsink name={channel}"
    ));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(3);
    let source = reader.pipeline.by_factory("rsshmsrc");
    source.set_base_time(source.base_time().unwrap() - gst::ClockTime::from_seconds(10));
    let before = reader.frame_count();
    reader.wait_for_frames(1);
    let age = age(&reader.frames()[before]);
    assert!((0..1_000_000_000).contains(&age), "{age}");
    writer.interrupt();
}

#[test]
fn realtime_clocks_keep_time_of_capture() {
    let channel = Channel::new();
    let realtime = || {
        init();
        gst::glib::Object::builder::<gst::SystemClock>()
            .property("clock-type", gst::ClockType::Realtime)
            .build()
    };
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    writer.use_clock(Some(&realtime()));
    writer.play();
    // The readers start later than the writer.
    std::thread::sleep(Duration::from_millis(500));
    for clock in [None, Some(realtime())] {
        let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
        if let Some(clock) = clock {
            reader.pipeline.use_clock(Some(&clock));
        }
        reader.pipeline.play();
        let frames = frames_after_the_first(&reader);
        assert!(
            quartile_age(&frames) < Duration::from_millis(60),
            "{:?}",
            quartile_age(&frames)
        );
    }
}

#[test]
fn pause_does_not_shift_time() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    for pause in [1000, 20, 300] {
        reader.pipeline.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let before = reader.frames();
        reader.pipeline.play();
        reader.wait_for_frames(20);
        let frames = reader.frames()[before.len()..].to_vec();
        assert!(
            quartile_age(&frames[1..]) < Duration::from_millis(60),
            "{:?}",
            quartile_age(&frames)
        );
        // The reader continues with the newest frame. One frame may have arrived before the pause took effect.
        let skipped = frames[1].offset - before.last().unwrap().offset;
        assert!(skipped >= pause * 30 / 1000, "{skipped}");
    }
    let times: Vec<_> = reader.frames().iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    writer.interrupt();
}

#[test]
fn source_reports_latency_of_live_writer() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel} processing-deadline=7000000"
    ));
    let reader = SourceRecorder::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    reader.wait_for_frames(3);
    let upstream = writer.source_latency("videotestsrc");
    let expected = upstream.1 + 7 * gst::ClockTime::MSECOND;
    eventually("the reader reports the latency", || {
        reader.pipeline.source_latency("rsshmsrc").1 == expected
    });
    let (live, min, max) = reader.pipeline.source_latency("rsshmsrc");
    assert!(live);
    assert!(max.unwrap() >= min + 60 * gst::ClockTime::MSECOND, "{max:?}");
    // The reader's own pipeline is configured with this latency.
    let sink = reader.pipeline.by_factory("fakesink");
    eventually("the reader's sink has the latency", || {
        let mut query = gst::query::Latency::new();
        sink.query(&mut query) && query.result().1 >= expected
    });
}

#[test]
fn source_reports_latency_of_paced_writer() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} ts-offset=30000000"
    ));
    writer.set_latency(200 * gst::ClockTime::MSECOND);
    writer.play();
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(3);
    let expected = 230 * gst::ClockTime::MSECOND;
    eventually("the reader reports the latency", || {
        reader.pipeline.source_latency("rsshmsrc").1 == expected
    });
    assert!(reader.pipeline.source_latency("rsshmsrc").0);
    // The measured age of the frames is about this latency.
    let frames = frames_after_the_first(&reader);
    let age = quartile_age(&frames[frames.len() - 20..]);
    assert!(
        age >= Duration::from_millis(228) && age < Duration::from_millis(290),
        "{age:?}"
    );
}

#[test]
fn source_posts_message_on_latency_change() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(3);
    reader.pipeline.take_messages(gst::MessageType::Latency);
    writer.set_latency(100 * gst::ClockTime::MSECOND);
    reader.pipeline.message(&[gst::MessageType::Latency]);
    assert_eq!(
        reader.pipeline.source_latency("rsshmsrc").1,
        100 * gst::ClockTime::MSECOND
    );
}

#[test]
fn do_timestamp_stamps_on_arrival() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} ts-offset=300000000"
    ));
    writer.play();
    let reader = SourceRecorder::with_options(&channel, "do-timestamp=true");
    // According to the writer's timestamps, the frames are 300 ms old.
    let frames = frames_after_the_first(&reader);
    assert!(
        quartile_age(&frames) < Duration::from_millis(20),
        "{:?}",
        quartile_age(&frames)
    );
    assert_eq!(reader.pipeline.source_latency("rsshmsrc").1, gst::ClockTime::ZERO);
}

#[test]
fn sink_paces_frames_of_file() {
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
    // With sync=false, the sink does not wait for the time of a frame.
    let started = Instant::now();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=301 ! {CAPS} ! rsshmsink channel={channel}-2 sync=false"
    ));
    writer.wait_eos();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn sink_publishes_live_frames_at_once() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    // If the sink waited, it would delay each frame by this time.
    writer.set_latency(400 * gst::ClockTime::MSECOND);
    writer.play();
    let reader = SourceRecorder::of(&channel);
    let frames = frames_after_the_first(&reader);
    assert!(
        quartile_age(&frames) < Duration::from_millis(100),
        "{:?}",
        quartile_age(&frames)
    );
}

#[test]
fn sink_keeps_sync_and_ts_offset() {
    for sync in [true, false] {
        for source in ["videotestsrc", "videotestsrc is-live=true"] {
            let channel = Channel::new();
            let writer = Pipeline::playing(&format!(
                "{source} ! {CAPS} ! rsshmsink channel={channel} sync={sync} ts-offset=5 wait-for-connection=true"
            ));
            let sink = writer.by_factory("rsshmsink");
            eventually("the channel exists", || channel.exists());
            // After this time, the sink is waiting for its reader.
            std::thread::sleep(Duration::from_millis(50));
            let reader = SourceRecorder::of(&channel);
            reader.wait_for_frames(3);
            assert_eq!(sink.property::<bool>("sync"), sync);
            assert_eq!(sink.property::<i64>("ts-offset"), 5);
            sink.set_property("sync", !sync);
            assert_eq!(sink.property::<bool>("sync"), !sync);
        }
    }
}

#[test]
fn file_waits_for_reader_and_plays_paced() {
    for sync in [true, false] {
        let channel = Channel::new();
        let mut writer = launch(&format!(
            "videotestsrc num-buffers=45 ! {CAPS} ! rsshmsink name={channel} wait-for-connection=true lossless=true \
             sync={sync}"
        ));
        eventually("the channel exists", || channel.exists());
        // The writer waits for its reader during this time.
        std::thread::sleep(Duration::from_millis(1000));
        let started = Instant::now();
        let reader = SourceRecorder::of(&channel);
        reader.pipeline.wait_eos();
        writer.wait_ok();
        let frames = reader.frames();
        assert_eq!(frames.len(), 45);
        let frame_time = gst::ClockTime::SECOND / 30;
        for pair in frames[1..].windows(2) {
            let step = pair[1].pts.unwrap() - pair[0].pts.unwrap();
            assert!(step.absdiff(frame_time) < gst::ClockTime::MSECOND, "{step}");
        }
        if sync {
            // The frames are paced: 45 of them take 1.5 s.
            assert!(
                started.elapsed() > Duration::from_millis(1300),
                "{:?}",
                started.elapsed()
            );
        }
    }
}

#[test]
fn reader_displays_writer_slower_than_frame_rate() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc ! video/x-raw,format=GRAY8,framerate=1000/1 ! identity sleep-time=20000 \
         ! rsshmsink name={channel} sync=false"
    ));
    eventually("the channel exists", || channel.exists());
    // After this time, the writer is half a second behind its frame rate.
    std::thread::sleep(Duration::from_millis(500));
    // The writer falls further behind, so all its frames are from before the reader's base time.
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(20);
    let frames = reader.frames();
    assert_eq!(frames[0].pts, Some(gst::ClockTime::ZERO));
    for pair in frames.windows(2) {
        let step = pair[1]
            .pts
            .unwrap()
            .checked_sub(pair[0].pts.unwrap())
            .expect("time does not decrease");
        let captured = (pair[1].offset - pair[0].offset) * gst::ClockTime::MSECOND;
        assert!(
            step.absdiff(captured) < gst::ClockTime::USECOND,
            "{step} for {captured}"
        );
    }
    writer.interrupt();
}

#[test]
fn restarted_writer_does_not_repeat_wait() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    eventually("the channel exists", || channel.exists());
    // The writer waits for its reader during this time.
    std::thread::sleep(Duration::from_secs(4));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(5);
    writer.set_state(gst::State::Ready).unwrap();
    let restarted = Instant::now();
    writer.play();
    reader.wait_for_frames(10);
    assert!(
        restarted.elapsed() < Duration::from_secs(3),
        "{:?}",
        restarted.elapsed()
    );
}

/// A pipeline without a clock has no running time. The frames that it sends are stamped when they are published. The
/// frames that it receives have no timestamp.
#[test]
fn pipelines_without_clock_share_frames() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=false num-buffers=60 ! video/x-raw,width=64,height=64 \
         ! identity sleep-time=10000 ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    writer.use_clock(None::<&gst::Clock>);
    let timed = SourceRecorder::of(&channel);
    let untimed = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    untimed.pipeline.use_clock(None::<&gst::Clock>);
    untimed.pipeline.play();
    writer.play();
    timed.pipeline.wait_eos();
    untimed.pipeline.wait_eos();
    let frames = timed.frames();
    assert!(frames.len() > 50, "{}", frames.len());
    for pair in frames.windows(2) {
        assert!(pair[0].pts.unwrap() < pair[1].pts.unwrap(), "time does not increase");
    }
    assert!(untimed.frame_count() > 50, "{}", untimed.frame_count());
    assert!(untimed.frames().iter().all(|frame| frame.pts.is_none()));
}

#[test]
fn live_writer_adds_five_milliseconds_of_latency() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(3);
    let added = reader.pipeline.source_latency("rsshmsrc").1 - writer.source_latency("videotestsrc").1;
    assert_eq!(added, 5 * gst::ClockTime::MSECOND);
}
