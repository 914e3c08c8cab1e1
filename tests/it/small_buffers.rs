// SPDX-License-Identifier: MIT OR Apache-2.0

//! Streams of many small buffers, such as MPEG-TS and RTP. A reader that keeps up on the whole misses nothing.

use std::{fmt::Display, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{Pipeline, SinkHarness, SourceRecorder, launch},
    role::{self, Role, listen, say},
};

pub const ROLES: &[(&str, Role)] = &[
    ("small_buffers/bursts", |arguments| {
        write_bursts(
            arguments[0],
            arguments[1].parse().unwrap(),
            arguments[2].parse().unwrap(),
        );
    }),
    ("small_buffers/independent bursts", |arguments| {
        write_independent_bursts(arguments[0], arguments[1].parse().unwrap());
    }),
    ("small_buffers/list", |arguments| write_list(arguments[0])),
];

const MPEG_TS: &str = "video/mpegts,systemstream=true,packetsize=188";

/// The bytes of buffer `number`, which has `size` bytes.
fn content(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_ne_bytes().to_vec();
    bytes.resize(size, number as u8);
    bytes
}

fn buffer(number: u64, size: usize, flags: gst::BufferFlags) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(content(number, size));
    let target = buffer.get_mut().unwrap();
    target.set_offset(number);
    target.set_flags(flags);
    buffer
}

/// Pushes ten bursts of `count` buffers of `size` bytes, each when the test sends a line. All buffers but the first are
/// delta units, so a reader that misses one gets no further buffer.
fn write_bursts(channel: &str, count: u64, size: usize) {
    let writer = SinkHarness::live_with_caps(channel, MPEG_TS, "");
    writer.push(&buffer(0, size, gst::BufferFlags::empty()));
    eventually("a reader", || writer.pipeline.num_clients() == 1);
    for burst in 0..10 {
        listen();
        for number in 1..=count {
            writer.push(&buffer(burst * count + number, size, gst::BufferFlags::DELTA_UNIT));
        }
    }
    listen();
    say(writer.pipeline.stat("rsshmsink", "missed-by-readers"));
    listen();
}

/// Pushes ten bursts of `count` independent buffers, the first one at once.
fn write_independent_bursts(channel: &str, count: u64) {
    let writer = SinkHarness::live_with_caps(channel, MPEG_TS, "");
    for burst in 0..10 {
        for number in 0..count {
            writer.push(&buffer(burst * count + number, 188, gst::BufferFlags::empty()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    listen();
}

/// Pushes a buffer list of 500 buffers with different flags, and then a single buffer.
fn write_list(channel: &str) {
    let writer = SinkHarness::live_with_caps(channel, MPEG_TS, "");
    writer.push(&buffer(0, 188, gst::BufferFlags::empty()));
    eventually("a reader", || writer.pipeline.num_clients() == 1);
    listen();
    let mut list = gst::BufferList::new_sized(500);
    for number in 1..=500 {
        list.get_mut().unwrap().add(buffer(number, 188, flags_of(number)));
    }
    let pushed: gst::FlowReturn = writer.source().emit_by_name("push-buffer-list", &[&list]);
    assert_eq!(pushed, gst::FlowReturn::Ok);
    eventually("the list is published", || {
        writer.pipeline.stat("rsshmsink", "frames-published") == 501
    });
    say("published");
    listen();
}

fn flags_of(number: u64) -> gst::BufferFlags {
    match number % 5 {
        0 => gst::BufferFlags::HEADER,
        1 => gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::MARKER,
        _ => gst::BufferFlags::DELTA_UNIT,
    }
}

fn start(role: &str, arguments: &[&dyn Display]) -> Process {
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    role::start(role, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn bursts_of_small_buffers_arrive_whole() {
    for (count, size) in [
        (16, 188),
        (32, 188),
        (64, 188),
        (256, 188),
        (10_000, 188),
        (10_000, 1400),
    ] {
        let channel = Channel::new();
        let mut writer = start("small_buffers/bursts", &[&channel, &count, &size]);
        let reader = SourceRecorder::of(&channel);
        eventually("the first buffer", || reader.frame_count() == 1);
        for burst in 1..=10 {
            writer.send("burst");
            let wanted = 1 + burst * count as usize;
            eventually("the burst", || reader.frame_count() == wanted);
        }
        writer.send("report");
        assert_eq!(
            writer.receive(),
            "0",
            "missed frames of {count} buffers of {size} bytes"
        );
        for (number, frame) in (0..).zip(reader.frames()) {
            assert_eq!(frame.offset, number);
            assert_eq!(frame.bytes, content(number, size));
        }
        assert_eq!(reader.stat("frames-missed"), 0);
        writer.send("end");
    }
}

/// A reader that waits for the channel gets the first burst whole, although the writer publishes it at once.
#[test]
fn waiting_reader_gets_first_burst_whole() {
    for count in [16, 32, 64, 256] {
        let channel = Channel::new();
        let reader = SourceRecorder::of(&channel);
        // After this time, the reader waits for the channel.
        std::thread::sleep(Duration::from_millis(300));
        let mut writer = start("small_buffers/independent bursts", &[&channel, &count]);
        eventually("all buffers", || reader.frame_count() == 10 * count);
        assert_eq!(reader.offsets(), (0..10 * count as u64).collect::<Vec<_>>());
        assert_eq!(reader.stat("frames-missed"), 0);
        writer.send("end");
    }
}

#[test]
fn buffer_list_costs_one_wake_and_keeps_order_and_flags() {
    let channel = Channel::new();
    let mut writer = start("small_buffers/list", &[&channel]);
    let reader = SourceRecorder::of(&channel);
    eventually("the first buffer", || reader.frame_count() == 1);
    // The readers' futex word, which counts the wakes, is 32 bytes behind the beginning of the status at 256.
    let segment = std::fs::File::open(channel.segment()).unwrap();
    let wakes = || {
        let mut word = [0; 4];
        segment.read_exact_at(&mut word, 256 + 32).unwrap();
        u32::from_ne_bytes(word)
    };
    let before = wakes();
    writer.send("go");
    writer.expect("published");
    assert_eq!(wakes(), before + 1);
    eventually("all buffers", || reader.frame_count() == 501);
    let kept = gst::BufferFlags::HEADER | gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::MARKER;
    for (number, frame) in (1..).zip(&reader.frames()[1..]) {
        assert_eq!((frame.offset, frame.flags & kept), (number, flags_of(number)));
    }
    writer.send("end");
}

/// A temporary file, which dropping the value removes.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(channel: &Channel, name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("{channel}-{name}")))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap_or_default()
    }
}

impl Display for TemporaryFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.0.display().fmt(formatter)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The reader gets every byte of a live MPEG-TS stream, even of keyframes that are published in one moment.
#[test]
fn live_mpeg_ts_arrives_byte_for_byte() {
    for source in [
        "video/x-raw,width=320,height=240,framerate=30/1 ! x264enc tune=zerolatency key-int-max=15 bitrate=2000 ! mpegtsmux",
        // Each frame is a burst of more than a thousand packets.
        "video/x-raw,width=640,height=480,framerate=10/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 \
         qp-max=12 ! mpegtsmux",
    ] {
        let channel = Channel::new();
        let [sent, received] = ["sent", "received"].map(|name| TemporaryFile::new(&channel, name));
        let mut reader = launch(&format!("rsshmsrc name={channel} ! filesink location={received}"));
        let mut writer = launch(&format!(
            "videotestsrc is-live=true num-buffers=60 pattern=snow ! {source} ! tee name=t ! queue ! \
             filesink location={sent} t. ! queue max-size-bytes=0 max-size-buffers=0 max-size-time=0 ! \
             rsshmsink name={channel} wait-for-connection=true"
        ));
        writer.wait_ok();
        reader.wait_ok();
        assert!(!sent.bytes().is_empty());
        assert!(sent.bytes() == received.bytes(), "{source}");
    }
}

/// A reader that joins a live MPEG-TS stream late starts with a keyframe, and decodes pictures from there on.
#[test]
fn late_reader_of_mpeg_ts_decodes() {
    let channel = Channel::new();
    let _writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! \
         x264enc tune=zerolatency key-int-max=600 ! mpegtsmux ! rsshmsink name={channel}"
    ));
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..2 {
        let reader = Pipeline::playing(&format!(
            "rsshmsrc channel={channel} ! tsdemux ! h264parse ! avdec_h264 ! fakesink name=pictures sync=false"
        ));
        let pictures = || {
            let stats = reader.element("pictures").property::<gst::Structure>("stats");
            stats.get::<u64>("rendered").unwrap()
        };
        eventually("twenty pictures", || pictures() >= 20);
    }
}

/// A reader that is stopped for so long that it misses buffers gets a keyframe when it goes on. The writer posts one
/// warning.
#[test]
fn stopped_reader_resumes_with_a_keyframe_and_writer_warns() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, MPEG_TS, "max-slots=4");
    let mut number = 0;
    let mut push = |flags| {
        writer.push(&buffer(number, 1400, flags));
        number += 1;
    };
    push(gst::BufferFlags::empty());
    let reader = launch(&format!("rsshmsrc name={channel} ! fakesink"));
    eventually("a reader", || writer.pipeline.num_clients() == 1);
    reader.stop();
    for _ in 0..20_000 {
        push(gst::BufferFlags::DELTA_UNIT);
    }
    eventually("missed frames", || {
        writer.pipeline.stat("rsshmsink", "missed-by-readers") > 0
    });
    let requested = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&requested);
    let probe = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| {
        let is_request = info
            .event()
            .and_then(|event| event.structure())
            .is_some_and(|it| it.name() == "GstForceKeyUnit");
        seen.fetch_or(is_request, std::sync::atomic::Ordering::SeqCst);
        gst::PadProbeReturn::Ok
    };
    let pad = writer.pipeline.pad("rsshmsink", "sink");
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, probe);
    reader.resume();
    eventually("a request for a keyframe", || {
        push(gst::BufferFlags::DELTA_UNIT);
        requested.load(std::sync::atomic::Ordering::SeqCst)
    });
    let warnings = writer.pipeline.take_messages(gst::MessageType::Warning);
    let text = |message: &gst::Message| match message.view() {
        gst::MessageView::Warning(warning) => warning.error().to_string(),
        other => panic!("{other:?}"),
    };
    let texts: Vec<_> = warnings.iter().map(text).collect();
    let slow = texts
        .iter()
        .filter(|text| text.contains("readers were too slow"))
        .count();
    assert_eq!(slow, 1, "{texts:?}");
}
