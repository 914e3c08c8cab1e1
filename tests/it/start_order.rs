// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer and the reader start in any order, and each survives the end of the other. Writers come, die and come
//! back while one reader continues.

use std::{collections::HashSet, time::Duration};

use gst::prelude::*;
use nix::sys::signal::Signal;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{LOSSLESS, Pipeline, RecordedFrame, SinkHarness, SourceRecorder, launch},
    timed,
};

/// A live writer whose frames have one colour. The tests recognise its frames by that colour.
fn writer(channel: &Channel, color: u8, caps: &str) -> Process {
    launch(&format!(
        "videotestsrc is-live=true pattern=solid-color foreground-color=0xff{color:02x}{color:02x}{color:02x} \
         ! video/x-raw,{caps} ! rsshmsink name={channel}"
    ))
}

const GRAY: &str = "format=GRAY8,width=64,height=48,framerate=30/1";
const LARGE_GRAY: &str = "format=GRAY8,width=128,height=96,framerate=25/1";
const BGRX: &str = "format=BGRx,width=80,height=60,framerate=30/1";

/// Checks that each pixel of the frame has nearly this brightness.
#[track_caller]
fn assert_color(frame: &RecordedFrame, color: u8) {
    let step = if frame.format() == "BGRx" { 4 } else { 1 };
    assert_eq!(frame.bytes.len() as i32, frame.width() * frame.height() * step);
    let near = |byte: &u8| (i32::from(*byte) - i32::from(color)).abs() < 24;
    assert!(
        frame.bytes.iter().step_by(step as usize).all(near),
        "{:?}",
        &frame.bytes[..16]
    );
}

/// Waits for the first frame of the next stream, and returns this frame. The frame must be marked as discontinuous.
#[track_caller]
fn wait_for_stream(reader: &SourceRecorder, from: usize, width: i32) -> RecordedFrame {
    eventually("frames of the next stream arrive", || {
        reader.frames()[from..].iter().any(|frame| frame.width() == width)
    });
    let frames = reader.frames();
    let first = frames[from..].iter().find(|frame| frame.width() == width).unwrap();
    assert!(first.is_discont());
    first.clone()
}

#[test]
fn reader_may_start_first() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    // The reader waits for a writer.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(reader.frame_count(), 0);
    let mut writer = writer(&channel, 0x40, GRAY);
    reader.wait_for_frames(10);
    assert!(reader.frames()[0].is_discont());
    assert_color(&reader.last_frame().unwrap(), 0x40);
    writer.interrupt();
    channel.assert_removed();
}

#[test]
fn reader_continues_with_restarted_writer() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut first = writer(&channel, 0x20, GRAY);
    reader.wait_for_frames(5);
    let pid = reader.stat("writer-pid");
    assert_eq!(pid, first.pid().as_raw() as u64);
    first.kill();
    // The next writer takes over the files of the dead one.
    assert!(channel.exists());
    let mut second = writer(&channel, 0xc0, GRAY);
    eventually("frames of the second writer arrive", || {
        reader.last_frame().is_some_and(|frame| frame.bytes[0] > 0x80)
    });
    reader.wait_for_frames(5);
    let frames = reader.frames();
    let change = frames.iter().position(|frame| frame.bytes[0] > 0x80).unwrap();
    assert!(frames[change].is_discont());
    frames[..change].iter().for_each(|frame| assert_color(frame, 0x20));
    frames[change..].iter().for_each(|frame| assert_color(frame, 0xc0));
    assert_eq!(reader.stat("writer-pid"), second.pid().as_raw() as u64);
    second.interrupt();
    channel.assert_removed();
}

#[test]
fn reader_follows_writers_with_other_caps() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "forward-eos=false");
    let mut from = 0;
    for (color, caps, width, format, clean) in [
        (0x20, GRAY, 64, "GRAY8", false),
        (0x60, LARGE_GRAY, 128, "GRAY8", true),
        (0xa0, BGRX, 80, "BGRx", false),
        (0xe0, GRAY, 64, "GRAY8", true),
    ] {
        let mut writer = writer(&channel, color, caps);
        let first = wait_for_stream(&reader, from, width);
        assert_eq!(first.format(), format);
        reader.wait_for_frames(3);
        if clean {
            writer.interrupt();
        } else {
            writer.kill();
        }
        // Frames of this writer may still arrive.
        std::thread::sleep(Duration::from_millis(100));
        let frames = reader.frames();
        let begin = frames[from..].iter().position(|frame| frame.width() == width).unwrap() + from;
        frames[begin..].iter().for_each(|frame| assert_color(frame, color));
        from = frames.len();
    }
    channel.assert_removed();
}

#[test]
fn reader_process_survives_killed_writers() {
    let channel = Channel::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} ! checksumsink sync=false"));
    let lines = |reader: &Process| reader.output().lines().count();
    for caps in [GRAY, LARGE_GRAY, BGRX] {
        let before = lines(&reader);
        let mut writer = writer(&channel, 0x80, caps);
        eventually("frames of this writer arrive", || lines(&reader) > before + 5);
        writer.kill();
    }
    assert!(reader.is_running());
    assert_eq!(
        reader
            .output()
            .lines()
            .map(|line| line.split_whitespace().nth(1))
            .collect::<HashSet<_>>()
            .len(),
        3
    );
    reader.interrupt();
}

#[test]
fn late_reader_receives_newest_frame_at_once() {
    let channel = Channel::new();
    let mut writer = writer(&channel, 0x80, "format=GRAY8,width=64,height=48,framerate=1/5");
    eventually("the channel exists", || channel.exists());
    // The writer sends a frame every five seconds. A reader that waited for the next frame would usually exceed the
    // limit of a second.
    std::thread::sleep(Duration::from_millis(2500));
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
            let (time, _) = timed(|| {
                reader.pipeline.play();
                eventually("a frame arrives", || reader.frame_count() > 0);
            });
            assert_color(&reader.last_frame().unwrap(), 0x80);
            time
        })
        .collect();
    times.sort();
    // The check uses the median, because a busy machine delays single frames.
    assert!(times[2] < Duration::from_secs(1), "{times:?}");
    writer.interrupt();
}

/// Checks a reader that displays frames at their time. The reader must not drop frames because they are late.
#[track_caller]
fn assert_frames_are_in_time(writer_description: &str, writer_first: bool) {
    let channel = Channel::new();
    let description = format!("{writer_description} ! video/x-raw,{GRAY} ! rsshmsink name={channel}");
    let mut process = None;
    if writer_first {
        process = Some(launch(&description));
        eventually("the channel exists", || channel.exists());
        // The reader starts this much later than the writer.
        std::thread::sleep(Duration::from_millis(700));
    }
    let reader = Pipeline::playing(&format!(
        "rsshmsrc channel={channel} ! fakesink name=sink sync=true max-lateness=400000000"
    ));
    if !writer_first {
        // The writer starts this much later than the reader.
        std::thread::sleep(Duration::from_millis(700));
        process = Some(launch(&description));
    }
    let stat = |field: &str| {
        let stats = reader.element("sink").property::<gst::Structure>("stats");
        stats.get::<u64>(field).unwrap()
    };
    eventually("frames are displayed", || stat("rendered") > 30);
    // Single frames may be late on a busy machine.
    assert!(stat("dropped") <= 3, "{} dropped", stat("dropped"));
    process.unwrap().interrupt();
}

#[test]
fn frames_of_live_writer_are_in_time() {
    assert_frames_are_in_time("videotestsrc is-live=true", true);
    assert_frames_are_in_time("videotestsrc is-live=true", false);
}

#[test]
fn frames_of_paced_writer_are_in_time() {
    assert_frames_are_in_time("videotestsrc", true);
    assert_frames_are_in_time("videotestsrc", false);
}

#[test]
fn lossless_reader_follows_caps_within_one_stream() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut writer = launch(&format!(
        "concat name=c ! rsshmsink name={channel} {LOSSLESS} \
         videotestsrc num-buffers=40 ! video/x-raw,{GRAY} ! c. \
         videotestsrc num-buffers=40 ! video/x-raw,{BGRX} ! c. \
         videotestsrc num-buffers=40 ! video/x-raw,{LARGE_GRAY} ! c."
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.frames();
    assert_eq!(frames.len(), 120);
    for (frames, width) in frames.chunks(40).zip([64, 80, 128]) {
        assert!(frames.iter().all(|frame| frame.width() == width));
        assert!(frames[0].is_discont());
        assert!(frames[1..].iter().all(|frame| !frame.is_discont()));
    }
    channel.assert_removed();
}

#[test]
fn reader_follows_caps_of_running_writer() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! capsfilter name=filter caps=video/x-raw,{GRAY} ! rsshmsink channel={channel}"
    ));
    reader.wait_for_frames(5);
    for (caps, width) in [(BGRX, 80), (LARGE_GRAY, 128), (GRAY, 64)] {
        let from = reader.frame_count();
        let caps: gst::Caps = format!("video/x-raw,{caps}").parse().unwrap();
        writer.element("filter").set_property("caps", caps);
        wait_for_stream(&reader, from, width);
        reader.wait_for_frames(3);
        assert_eq!(reader.last_frame().unwrap().width(), width);
    }
    drop(writer);
    channel.assert_removed();
}

#[test]
fn source_stays_connected_to_stopped_writer() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "on-disconnect=error");
    let mut writer = writer(&channel, 0x80, GRAY);
    reader.wait_for_frames(5);
    writer.signal(Signal::SIGSTOP);
    // The source notices a dead writer in less than this time.
    std::thread::sleep(Duration::from_millis(1500));
    let before = reader.frame_count();
    writer.signal(Signal::SIGCONT);
    reader.wait_for_frames(5);
    assert!(
        !reader.frames()[before..]
            .iter()
            .any(|frame| frame.caps() != reader.frames()[0].caps())
    );
    assert_eq!(reader.stat("reconnects"), 0);
    writer.interrupt();
}

#[test]
fn frame_drawn_before_new_caps_has_new_caps() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let caps = |rate: i32| -> gst::Caps {
        format!("video/x-raw,format=GRAY8,width=64,height=48,framerate={rate}/1")
            .parse()
            .unwrap()
    };
    let writer = SinkHarness::lossless(&channel);
    writer.push_sample(&gst::Buffer::from_slice(vec![1_u8; 64 * 48]), &caps(30), None);
    eventually("the first frame arrives", || reader.frame_count() == 1);
    let query = writer.allocation(&caps(30), true);
    let (pool, ..) = query.allocation_pools().next().unwrap();
    let pool = pool.clone().unwrap();
    pool.set_active(true).unwrap();
    let mut drawn = pool.acquire_buffer(None).unwrap();
    drawn.get_mut().unwrap().map_writable().unwrap().fill(2);
    writer.push_sample(&drawn, &caps(15), None);
    eventually("the second frame arrives", || reader.frame_count() == 2);
    let seen = reader.frames();
    assert_eq!((seen[0].caps(), seen[1].caps()), (&caps(30), &caps(15)));
    assert!(seen[1].bytes.iter().all(|byte| *byte == 2));
}

#[test]
fn discont_of_writer_reaches_reader() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let caps: gst::Caps = format!("video/x-raw,{GRAY}").parse().unwrap();
    let size = gst_video::VideoInfo::from_caps(&caps).unwrap().size();
    let writer = SinkHarness::lossless(&channel);
    for number in 0..4 {
        let mut buffer = gst::Buffer::from_slice(vec![0_u8; size]);
        if number == 2 {
            buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        writer.push_sample(&buffer, &caps, None);
        eventually("the frame arrives", || reader.frame_count() == number + 1);
    }
    let discont: Vec<bool> = reader.frames().iter().map(RecordedFrame::is_discont).collect();
    assert_eq!(discont, [true, false, true, false]);
}
