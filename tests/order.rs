//! Any start order, and each side survives the other: writers are processes that come, die and come back, while one
//! reader goes on.

mod common;

use std::time::Duration;

use common::{Channel, Pipeline, Process, Seen, Tap, eventually, launch, timed};
use gst::prelude::*;
use nix::sys::signal::Signal;

/// A live writer of one colour, which says by its pixels which one it is.
fn writer(channel: &Channel, color: u8, caps: &str) -> Process {
    launch(&format!(
        "videotestsrc is-live=true pattern=solid-color foreground-color=0xff{color:02x}{color:02x}{color:02x} \
         ! video/x-raw,{caps} ! rsshmsink name={channel}"
    ))
}

const GRAY: &str = "format=GRAY8,width=64,height=48,framerate=30/1";
const LARGE_GRAY: &str = "format=GRAY8,width=128,height=96,framerate=25/1";
const BGRX: &str = "format=BGRx,width=80,height=60,framerate=30/1";

/// Whether all of the frame is of one brightness, near `color`.
#[track_caller]
fn assert_color(frame: &Seen, color: u8) {
    let step = if frame.format() == "BGRx" { 4 } else { 1 };
    let size: i32 = frame.caps.structure(0).unwrap().get("height").unwrap();
    assert_eq!(frame.bytes.len() as i32, frame.width() * size * step);
    let near = |byte: &u8| (i32::from(*byte) - i32::from(color)).abs() < 24;
    assert!(
        frame.bytes.iter().step_by(step as usize).all(near),
        "{:?}",
        &frame.bytes[..16]
    );
}

/// Waits for the first frame of the next writer, which must be marked, and yields it.
#[track_caller]
fn next_stream(reader: &Tap, from: usize, width: i32) -> Seen {
    eventually("frames of the next writer", || {
        reader.all()[from..].iter().any(|frame| frame.width() == width)
    });
    let frames = reader.all();
    let first = frames[from..].iter().find(|frame| frame.width() == width).unwrap();
    assert!(first.is_discont());
    first.clone()
}

#[test]
fn a_reader_may_start_first() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(reader.count(), 0);
    let mut writer = writer(&channel, 0x40, GRAY);
    reader.wait_for_more(10);
    assert!(reader.all()[0].is_discont());
    assert_color(&reader.last().unwrap(), 0x40);
    writer.interrupt();
    channel.assert_gone();
}

#[test]
fn a_reader_goes_on_when_the_writer_is_killed_and_started_again() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut first = writer(&channel, 0x20, GRAY);
    reader.wait_for_more(5);
    let pid = reader.pipeline.stat("rsshmsrc", "writer-pid");
    assert_eq!(pid, first.pid().as_raw() as u64);
    first.kill();
    // The next one takes over what the dead one left.
    assert!(channel.exists());
    let mut second = writer(&channel, 0xc0, GRAY);
    eventually("the second writer's frames", || {
        reader.last().is_some_and(|frame| frame.bytes[0] > 0x80)
    });
    reader.wait_for_more(5);
    let frames = reader.all();
    let change = frames.iter().position(|frame| frame.bytes[0] > 0x80).unwrap();
    assert!(frames[change].is_discont());
    frames[..change].iter().for_each(|frame| assert_color(frame, 0x20));
    frames[change..].iter().for_each(|frame| assert_color(frame, 0xc0));
    assert_eq!(
        reader.pipeline.stat("rsshmsrc", "writer-pid"),
        second.pid().as_raw() as u64
    );
    second.interrupt();
    channel.assert_gone();
}

#[test]
fn a_reader_follows_to_other_caps() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} forward-eos=false ! fakesink sync=false"
    ));
    let mut from = 0;
    for (color, caps, width, format, clean) in [
        (0x20, GRAY, 64, "GRAY8", false),
        (0x60, LARGE_GRAY, 128, "GRAY8", true),
        (0xa0, BGRX, 80, "BGRx", false),
        (0xe0, GRAY, 64, "GRAY8", true),
    ] {
        let mut writer = writer(&channel, color, caps);
        let first = next_stream(&reader, from, width);
        assert_eq!(first.format(), format);
        reader.wait_for_more(3);
        if clean {
            writer.interrupt();
        } else {
            writer.kill();
        }
        // What it left may still come.
        std::thread::sleep(Duration::from_millis(100));
        let frames = reader.all();
        let begin = frames[from..].iter().position(|frame| frame.width() == width).unwrap() + from;
        frames[begin..].iter().for_each(|frame| assert_color(frame, color));
        from = frames.len();
    }
    channel.assert_gone();
}

#[test]
fn a_reader_process_goes_on_too() {
    let channel = Channel::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} ! checksumsink sync=false"));
    let lines = |reader: &Process| reader.output().lines().count();
    for caps in [GRAY, LARGE_GRAY, BGRX] {
        let before = lines(&reader);
        let mut writer = writer(&channel, 0x80, caps);
        eventually("frames of this writer", || lines(&reader) > before + 5);
        writer.kill();
    }
    assert!(reader.is_running());
    assert_eq!(
        reader
            .output()
            .lines()
            .map(|line| line.split_whitespace().nth(1))
            .collect::<std::collections::HashSet<_>>()
            .len(),
        3
    );
    reader.interrupt();
}

#[test]
fn a_late_joiner_has_the_newest_frame_at_once() {
    let channel = Channel::new();
    let mut writer = writer(&channel, 0x80, "format=GRAY8,width=64,height=48,framerate=1/1");
    eventually("the channel", || channel.exists());
    // The second frame is a second away from the first.
    std::thread::sleep(Duration::from_millis(2500));
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let reader = Tap::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
            let (time, ()) = timed(|| {
                reader.pipeline.0.set_state(gst::State::Playing).unwrap();
                while reader.count() == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert_color(&reader.last().unwrap(), 0x80);
            time
        })
        .collect();
    times.sort();
    // The one in the middle, as this machine may be busy with something else for a moment.
    assert!(times[2] < Duration::from_millis(100), "{times:?}");
    writer.interrupt();
}

/// A reader that shows frames at their time drops none as too late.
#[track_caller]
fn shows_frames_in_time(writer_description: &str, writer_first: bool) {
    let channel = Channel::new();
    let description = format!("{writer_description} ! video/x-raw,{GRAY} ! rsshmsink name={channel}");
    let mut process = None;
    if writer_first {
        process = Some(launch(&description));
        eventually("the channel", || channel.exists());
        std::thread::sleep(Duration::from_millis(700));
    }
    let reader = Pipeline::playing(&format!(
        "rsshmsrc channel={channel} ! fakesink name=sink sync=true max-lateness=400000000"
    ));
    if !writer_first {
        std::thread::sleep(Duration::from_millis(700));
        process = Some(launch(&description));
    }
    let stat = |field: &str| {
        let stats = reader.element("sink").property::<gst::Structure>("stats");
        stats.get::<u64>(field).unwrap()
    };
    eventually("frames are shown", || stat("rendered") > 30);
    // A frame or two, if this machine stood still.
    assert!(stat("dropped") <= 3, "{} dropped", stat("dropped"));
    process.unwrap().interrupt();
}

#[test]
fn frames_of_a_live_writer_are_shown_in_time() {
    shows_frames_in_time("videotestsrc is-live=true", true);
    shows_frames_in_time("videotestsrc is-live=true", false);
}

#[test]
fn frames_of_a_paced_writer_are_shown_in_time() {
    shows_frames_in_time("videotestsrc", true);
    shows_frames_in_time("videotestsrc", false);
}

#[test]
fn caps_may_change_within_one_writer() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut writer = launch(&format!(
        "concat name=c ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false \
         videotestsrc num-buffers=40 ! video/x-raw,{GRAY} ! c. \
         videotestsrc num-buffers=40 ! video/x-raw,{BGRX} ! c. \
         videotestsrc num-buffers=40 ! video/x-raw,{LARGE_GRAY} ! c."
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.all();
    assert_eq!(frames.len(), 120);
    for (frames, width) in frames.chunks(40).zip([64, 80, 128]) {
        assert!(frames.iter().all(|frame| frame.width() == width));
        assert!(frames[0].is_discont());
        assert!(frames[1..].iter().all(|frame| !frame.is_discont()));
    }
    channel.assert_gone();
}

#[test]
fn caps_may_change_in_a_running_writer() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! capsfilter name=filter caps=video/x-raw,{GRAY} ! rsshmsink channel={channel}"
    ));
    reader.wait_for_more(5);
    for (caps, width) in [(BGRX, 80), (LARGE_GRAY, 128), (GRAY, 64)] {
        let from = reader.count();
        let caps: gst::Caps = format!("video/x-raw,{caps}").parse().unwrap();
        writer.element("filter").set_property("caps", caps);
        next_stream(&reader, from, width);
        reader.wait_for_more(3);
        assert_eq!(reader.last().unwrap().width(), width);
    }
    drop(writer);
    channel.assert_gone();
}

#[test]
fn a_writer_that_stood_still_is_the_same_writer() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} on-disconnect=error ! fakesink sync=false"
    ));
    let mut writer = writer(&channel, 0x80, GRAY);
    reader.wait_for_more(5);
    writer.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1500));
    let stood = reader.count();
    writer.signal(Signal::SIGCONT);
    reader.wait_for_more(5);
    assert!(
        !reader.all()[stood..]
            .iter()
            .any(|frame| frame.caps != reader.all()[0].caps)
    );
    assert_eq!(reader.pipeline.stat("rsshmsrc", "reconnects"), 0);
    writer.interrupt();
}

/// A writer that is given its frames by the test.
fn fed_writer(channel: &Channel, caps: &gst::Caps) -> Pipeline {
    Pipeline::playing(&format!(
        "appsrc name=source format=time caps=\"{caps}\" ! rsshmsink channel={channel} sync=false lossless=true \
         wait-for-connection=true"
    ))
}

#[track_caller]
fn push(writer: &Pipeline, buffer: &gst::Buffer, caps: &gst::Caps) {
    let sample = gst::Sample::builder().buffer(buffer).caps(caps).build();
    let result: gst::FlowReturn = writer.element("source").emit_by_name("push-sample", &[&sample]);
    assert_eq!(result, gst::FlowReturn::Ok);
}

#[test]
fn a_frame_that_was_drawn_before_its_caps_came_is_given_with_them() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let caps = |rate: i32| -> gst::Caps {
        format!("video/x-raw,format=GRAY8,width=64,height=48,framerate={rate}/1")
            .parse()
            .unwrap()
    };
    let writer = fed_writer(&channel, &caps(30));
    push(&writer, &gst::Buffer::from_slice(vec![1_u8; 64 * 48]), &caps(30));
    eventually("the first", || reader.count() == 1);
    let mut query = gst::query::Allocation::new(Some(&caps(30)), true);
    let pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    assert!(pad.query(query.query_mut()));
    let (pool, ..) = query.allocation_pools().next().unwrap();
    let pool = pool.unwrap();
    pool.set_active(true).unwrap();
    let mut drawn = pool.acquire_buffer(None).unwrap();
    drawn.get_mut().unwrap().map_writable().unwrap().fill(2);
    push(&writer, &drawn, &caps(15));
    eventually("the second", || reader.count() == 2);
    let seen = reader.all();
    assert_eq!((&seen[0].caps, &seen[1].caps), (&caps(30), &caps(15)));
    assert!(seen[1].bytes.iter().all(|byte| *byte == 2));
}

#[test]
fn a_gap_in_the_writers_stream_is_one_in_the_readers() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let caps: gst::Caps = format!("video/x-raw,{GRAY}").parse().unwrap();
    let size = gst_video::VideoInfo::from_caps(&caps).unwrap().size();
    let writer = fed_writer(&channel, &caps);
    for number in 0..4 {
        let mut buffer = gst::Buffer::from_slice(vec![0_u8; size]);
        if number == 2 {
            buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        push(&writer, &buffer, &caps);
        eventually("it is there", || reader.count() == number + 1);
    }
    let discont: Vec<bool> = reader.all().iter().map(Seen::is_discont).collect();
    assert_eq!(discont, [true, false, true, false]);
}
