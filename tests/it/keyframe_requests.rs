// SPDX-License-Identifier: MIT OR Apache-2.0

//! force-key-unit events. A reader's request for the keyframe of a later time is answered at that time, whatever other
//! readers request. In the other direction, the events arrive with the reader's times.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use gst::{BufferFlags, ClockTime, EventType, event, prelude::*};
use gst_video::{DownstreamForceKeyUnitEvent, UpstreamForceKeyUnitEvent};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{Pipeline, RecordedFrame, SinkHarness, SourceRecorder, launch},
    wait_until,
};

const MS: ClockTime = ClockTime::MSECOND;
const RAW: &str = "video/x-raw,format=I420,width=160,height=120,framerate=30/1";
/// An encoder with a keyframe every ten seconds, unless one is requested.
const ENCODER: &str = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=300";
const H264_CAPS: &str = "video/x-h264,stream-format=byte-stream,alignment=au,width=64,height=48,framerate=30/1";

/// A pipeline in this process that encodes a live stream.
fn encoding_writer(channel: &Channel) -> Pipeline {
    Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {RAW} ! {ENCODER} ! rsshmsink channel={channel}"
    ))
}

/// The requests that go upstream through a pad.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<UpstreamForceKeyUnitEvent>>>);

impl Requests {
    /// Those that an element of this factory gets.
    fn at(pipeline: &Pipeline, factory: &str) -> Self {
        let requests = Self::default();
        let in_probe = requests.clone();
        pipeline
            .pad(factory, "src")
            .add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
                let parsed = UpstreamForceKeyUnitEvent::parse(info.event().unwrap());
                in_probe.0.lock().unwrap().extend(parsed.ok());
                gst::PadProbeReturn::Ok
            });
        requests
    }

    fn all(&self) -> Vec<UpstreamForceKeyUnitEvent> {
        self.0.lock().unwrap().clone()
    }

    /// The running times of all requests for a later time.
    fn times(&self) -> Vec<ClockTime> {
        self.all().iter().filter_map(|request| request.running_time).collect()
    }
}

/// Requests a keyframe from the end of a reader's pipeline. Returns the number of the event.
#[track_caller]
fn request(reader: &SourceRecorder, time: ClockTime, count: u32) -> gst::Seqnum {
    let event = UpstreamForceKeyUnitEvent::builder()
        .running_time(time)
        .all_headers(true)
        .count(count)
        .build();
    let seqnum = event.seqnum();
    assert!(reader.pipeline.pad("fakesink", "sink").push_event(event));
    seqnum
}

fn is_keyframe(frame: &RecordedFrame) -> bool {
    !frame.flags.contains(BufferFlags::DELTA_UNIT)
}

/// The times of a reader's keyframes.
fn keyframe_times(reader: &SourceRecorder) -> Vec<ClockTime> {
    let frames = reader.frames();
    frames
        .iter()
        .filter(|frame| is_keyframe(frame))
        .filter_map(|frame| frame.pts)
        .collect()
}

/// The time of a reader's first frame at `time` or later.
#[track_caller]
fn first_at(reader: &SourceRecorder, time: ClockTime) -> ClockTime {
    let mut found = None;
    eventually("a frame of that time arrives", || {
        found = reader
            .frames()
            .iter()
            .filter_map(|frame| frame.pts)
            .find(|pts| *pts >= time);
        found.is_some()
    });
    found.unwrap()
}

fn now(reader: &SourceRecorder) -> ClockTime {
    reader.pipeline.current_running_time().unwrap()
}

/// A running time of one pipeline as running time of another.
fn converted(time: ClockTime, from: &Pipeline, to: &Pipeline) -> ClockTime {
    time + from.base_time().unwrap() - to.base_time().unwrap()
}

#[test]
fn request_reaches_encoder_with_its_values() {
    let channel = Channel::new();
    let writer = encoding_writer(&channel);
    let requests = Requests::at(&writer, "x264enc");
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(5);
    let time = now(&reader) + 30 * ClockTime::SECOND;
    let event = UpstreamForceKeyUnitEvent::builder()
        .running_time(time)
        .all_headers(false)
        .count(9)
        .build();
    assert!(reader.pipeline.pad("fakesink", "sink").push_event(event));
    let expected = converted(time, &reader.pipeline, &writer);
    // The encoder gets the request long before its time.
    eventually("the request arrives", || requests.times() == [expected]);
    let found = requests.all().pop().unwrap();
    assert_eq!((found.all_headers, found.count), (false, 9));
}

#[test]
fn each_requested_time_begins_with_keyframe() {
    let channel = Channel::new();
    let writer = encoding_writer(&channel);
    let requests = Requests::at(&writer, "x264enc");
    let readers = [SourceRecorder::of(&channel), SourceRecorder::of(&channel)];
    for reader in &readers {
        reader.wait_for_frames(5);
    }
    let start = now(&readers[0]) + 2000 * MS;
    let [first, second] = &readers;
    let other = |time| converted(time, &first.pipeline, &second.pipeline);
    // The two readers request different times, near times and the same time, and a keyframe at once in between.
    let wanted = [0, 500, 517, 1000, 1700].map(|ms| start + ms * MS);
    for (count, time) in wanted.iter().enumerate() {
        request(first, *time, count as u32);
    }
    request(second, other(wanted[3]), 70);
    request(second, other(start + 800 * MS), 71);
    let at_once = UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
    assert!(second.pipeline.pad("fakesink", "sink").push_event(at_once));
    let mut expected: Vec<_> = wanted.iter().map(|time| first_at(first, *time)).collect();
    expected.push(first_at(first, start + 800 * MS));
    expected.sort_unstable();
    expected.dedup();
    let found: Vec<_> = keyframe_times(first)
        .into_iter()
        .filter(|time| *time >= start)
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        requests.times().len(),
        6,
        "the readers' requests for one time are merged"
    );
}

/// Neither the segment nor the rate of the writer's stream changes the time at which the keyframe comes. The reader's
/// pipeline has another clock.
#[test]
fn times_are_converted_through_segments_and_clocks() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "appsrc name=source format=time is-live=true handle-segment-change=true ! {ENCODER} ! rsshmsink channel={channel}"
    ));
    let requests = Requests::at(&writer, "x264enc");
    writer.play();
    let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let clock = gst::glib::Object::builder::<gst::SystemClock>()
        .property("clock-type", gst::ClockType::Realtime)
        .build();
    reader.pipeline.use_clock(Some(&clock));
    reader.pipeline.play();
    // At double speed, a frame of 1/15 s is shown for 1/30 s.
    let mut segment = gst::FormattedSegment::<ClockTime>::new();
    segment.set_rate(2.0);
    segment.set_start(100 * ClockTime::SECOND);
    segment.set_time(100 * ClockTime::SECOND);
    let caps: gst::Caps = RAW.parse().unwrap();
    let push = |running: ClockTime| {
        let mut buffer = gst::Buffer::from_slice(vec![100u8; 160 * 120 * 3 / 2]);
        let target = buffer.get_mut().unwrap();
        target.set_pts(100 * ClockTime::SECOND + 2 * running);
        target.set_duration(66 * MS);
        let sample = gst::Sample::builder()
            .buffer(&buffer)
            .caps(&caps)
            .segment(&segment)
            .build();
        let pushed: gst::FlowReturn = writer.element("source").emit_by_name("push-sample", &[&sample]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
        std::thread::sleep(Duration::from_millis(20));
    };
    let running = |pipeline: &Pipeline| pipeline.current_running_time().unwrap();
    while reader.frame_count() < 10 {
        push(running(&writer));
    }
    let time = now(&reader) + 2000 * MS;
    request(&reader, time, 0);
    while reader.frames().iter().all(|frame| frame.pts.unwrap() < time + 200 * MS) {
        push(running(&writer));
    }
    let found = keyframe_times(&reader);
    assert_eq!(found.last(), Some(&first_at(&reader, time)), "{time}: {found:?}");
    // The clocks are compared by reading one between two readings of the other.
    let mut offset = None;
    eventually("the clocks are read at one time", || {
        let (before, between, after) = (running(&writer), now(&reader), running(&writer));
        offset = (after - before < MS).then(|| before.nseconds() as i64 - between.nseconds() as i64);
        offset.is_some()
    });
    let offset = offset.unwrap();
    let requested = requests.times()[0].nseconds() as i64;
    let error = requested - (time.nseconds() as i64 + offset);
    assert!(error.abs() < 2_000_000, "{error}");
}

#[test]
fn encoder_in_bin_is_asked_early() {
    let channel = Channel::new();
    // The links into the bin and out of it go through ghost pads.
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {RAW} ! encoder. \
         bin.( {ENCODER} name=encoder ! h264parse ! queue name=last ) \
         last. ! rsshmsink channel={channel}"
    ));
    let requests = Requests::at(&writer, "x264enc");
    writer.play();
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(5);
    request(&reader, now(&reader) + 30 * ClockTime::SECOND, 0);
    eventually("the request arrives", || requests.times().len() == 1);
}

/// A relay passes the request on, because the encoder may be in the program behind it.
#[test]
fn relay_passes_request_on() {
    let (channel, second) = (Channel::new(), Channel::new());
    let writer = encoding_writer(&channel);
    let requests = Requests::at(&writer, "x264enc");
    let _relay = Pipeline::playing(&format!(
        "rsshmsrc channel={channel} ! h264parse ! rsshmsink channel={second} async=false"
    ));
    let reader = SourceRecorder::of(&second);
    reader.wait_for_frames(5);
    let time = now(&reader) + 2000 * MS;
    request(&reader, time, 0);
    let expected = converted(time, &reader.pipeline, &writer);
    wait_until("the request arrives early", Duration::from_millis(1800), || {
        requests.times() == [expected]
    });
    let keyframe = first_at(&reader, time);
    assert!(keyframe_times(&reader).contains(&keyframe));
}

/// A source that is no encoder makes a keyframe as soon as it is asked.
#[test]
fn encoded_source_is_asked_when_time_has_come() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, H264_CAPS, "");
    let requests = Requests::at(&writer.pipeline, "appsrc");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    let start = now(&reader);
    let times = [2000, 2400].map(|ms| start + ms * MS);
    request(&reader, times[1], 2);
    request(&reader, times[0], 1);
    let mut asked_at = Vec::new();
    while asked_at.len() < 2 {
        writer.push_frame_with(1, BufferFlags::DELTA_UNIT);
        std::thread::sleep(Duration::from_millis(5));
        if requests.all().len() > asked_at.len() {
            asked_at.push(now(&reader));
        }
        assert!(now(&reader) < times[1] + 5 * ClockTime::SECOND);
    }
    for (asked_at, time) in asked_at.iter().zip(times) {
        assert!(
            (time..time + ClockTime::SECOND).contains(asked_at),
            "{time}: {asked_at}"
        );
    }
    let expected = times.map(|time| converted(time, &reader.pipeline, &writer.pipeline));
    assert_eq!(requests.times(), expected);
    // A keyframe that comes in time makes a request unnecessary.
    let time = now(&reader) + 2000 * MS;
    request(&reader, time, 3);
    writer.push_frame_at(
        2,
        BufferFlags::empty(),
        Some(converted(time, &reader.pipeline, &writer.pipeline)),
    );
    while now(&reader) < time + 200 * MS {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(requests.times().len(), 2);
}

/// Each reader announces the keyframes that it has requested, with its own count and the number of its event.
#[test]
fn reader_announces_requested_keyframes() {
    let channel = Channel::new();
    let _writer = encoding_writer(&channel);
    let readers = [SourceRecorder::of(&channel), SourceRecorder::of(&channel)];
    for reader in &readers {
        reader.wait_for_frames(5);
    }
    let time = now(&readers[0]) + 2000 * MS;
    let other_time = converted(time, &readers[0].pipeline, &readers[1].pipeline);
    let seqnums = [request(&readers[0], time, 5), request(&readers[1], other_time, 1)];
    for (((reader, time), count), seqnum) in readers.iter().zip([time, other_time]).zip([5, 1]).zip(seqnums) {
        let keyframe = first_at(reader, time);
        let events = reader.events(EventType::CustomDownstream);
        let [event] = &events[..] else {
            panic!("{events:?}");
        };
        let found = DownstreamForceKeyUnitEvent::parse(event).unwrap();
        let times = [found.timestamp, found.stream_time, found.running_time];
        assert_eq!(times, [Some(keyframe); 3]);
        assert_eq!((found.all_headers, found.count, event.seqnum()), (true, count, seqnum));
        // The event comes just before the keyframe.
        let items = reader.items();
        let position = items
            .iter()
            .position(|item| item.event().is_some_and(|event| event.seqnum() == seqnum))
            .unwrap();
        let next = items[position + 1].frame().and_then(|frame| frame.pts);
        assert_eq!(next, Some(keyframe));
    }
}

/// Events of the writer's own pipeline arrive with times of the reader's pipeline.
#[test]
fn times_in_events_are_converted() {
    let channel = Channel::new();
    let writer = SinkHarness::live(&channel, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.settle(&reader);
    let time = writer.pipeline.current_running_time().unwrap();
    let expected = converted(time, &writer.pipeline, &reader.pipeline);
    writer.send(
        DownstreamForceKeyUnitEvent::builder()
            .timestamp(time)
            .stream_time(5 * ClockTime::SECOND)
            .running_time(time)
            .all_headers(true)
            .count(42)
            .build(),
    );
    let lost = gst::Structure::builder("GstRTPPacketLost")
        .field("seqnum", 7u32)
        .field("timestamp", time)
        .field("duration", 20 * MS)
        .field("might-have-been-fec", false)
        .build();
    writer.send(event::CustomDownstream::new(lost));
    writer.send(DownstreamForceKeyUnitEvent::builder().count(43).build());
    eventually("the events arrive", || {
        reader.events(EventType::CustomDownstream).len() == 3
    });
    let events = reader.events(EventType::CustomDownstream);
    let found = DownstreamForceKeyUnitEvent::parse(&events[0]).unwrap();
    let times = [found.timestamp, found.stream_time, found.running_time];
    assert_eq!(times, [Some(expected); 3]);
    assert_eq!((found.all_headers, found.count), (true, 42));
    let lost = events[1].structure().unwrap();
    assert_eq!(lost.get::<ClockTime>("timestamp"), Ok(expected));
    assert_eq!(lost.get::<ClockTime>("duration"), Ok(20 * MS));
    assert_eq!(
        (lost.get("seqnum"), lost.get("might-have-been-fec")),
        (Ok(7u32), Ok(false))
    );
    let found = DownstreamForceKeyUnitEvent::parse(&events[2]).unwrap();
    assert_eq!((found.running_time, found.timestamp, found.count), (None, None, 43));
    assert_eq!(writer.stat("events-left-out"), 0);
}

/// The reader sends a request again if the writer's caps change before the time has come.
#[test]
fn request_survives_change_of_caps() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, H264_CAPS, "");
    let requests = Requests::at(&writer.pipeline, "appsrc");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    let time = now(&reader) + 500 * MS;
    // The writer makes another segment before it reads the request.
    writer.set_caps("video/x-h265,stream-format=byte-stream,alignment=au");
    request(&reader, time, 3);
    writer.push_frame_until_seen(1, &reader);
    eventually("the request arrives", || {
        writer.push_frame_with(2, BufferFlags::DELTA_UNIT);
        std::thread::sleep(Duration::from_millis(10));
        requests.times() == [converted(time, &reader.pipeline, &writer.pipeline)]
    });
    assert!(now(&reader) >= time);
}

#[test]
fn observer_and_reader_without_writer_refuse_requests() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let send = |reader: &SourceRecorder| {
        let event = UpstreamForceKeyUnitEvent::builder()
            .running_time(ClockTime::SECOND)
            .build();
        reader.pipeline.pad("fakesink", "sink").push_event(event)
    };
    assert!(!send(&reader));
    let writer = SinkHarness::live(&channel, "");
    writer.push_frame_until_seen(0, &reader);
    let observer = SourceRecorder::with_options(&channel, "read-only=true");
    writer.push_frame_until_seen(1, &observer);
    assert!(!send(&observer));
    assert!(send(&reader));
}

/// A directory for the recordings of one test.
struct Recordings(PathBuf);

impl Recordings {
    fn new(channel: &Channel) -> Self {
        let directory = std::env::temp_dir().join(channel.to_string());
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The durations of the files `START0`, `START1`, ..., in milliseconds. The first and the last file are left out,
    /// because a recorder begins at any time between two frames, and ends at any time.
    fn lengths(&self, start: &str, end: &str) -> Vec<u64> {
        let paths = (0..).map(|piece| self.path(&format!("{start}{piece}{end}")));
        let mut lengths: Vec<_> = paths
            .take_while(|path| path.exists())
            .map(|path| length(&path))
            .collect();
        lengths.pop();
        lengths.drain(..lengths.len().min(1));
        lengths
    }
}

impl Drop for Recordings {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The duration of a recording at 30 frames a second, in milliseconds. The recording must begin with a keyframe.
#[track_caller]
fn length(file: &Path) -> u64 {
    let player = Pipeline::new(&format!(
        "filesrc location={} ! parsebin ! fakesink name=sink sync=false",
        file.display()
    ));
    let frames = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&frames);
    let pad = player.element("sink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        to.lock()
            .unwrap()
            .extend(buffer.pts().map(|time| (buffer.flags(), time)));
        gst::PadProbeReturn::Ok
    });
    player.play();
    player.wait_eos();
    let frames = frames.lock().unwrap();
    let (flags, first) = frames[0];
    assert!(!flags.contains(BufferFlags::DELTA_UNIT), "{}", file.display());
    let last = frames.last().map_or(first, |(_, time)| *time);
    (last - first).mseconds() + 33
}

#[track_caller]
fn assert_lengths(found: &[u64], count: usize, expected: u64) {
    assert!(
        found.len() >= count && found.iter().all(|length| length.abs_diff(expected) <= 17),
        "{found:?} instead of {expected}"
    );
}

/// Programs that record the channel in pieces, each beside the others, for a few seconds.
fn record(channel: &Channel, recorders: &[String]) {
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {RAW} ! {ENCODER} ! rsshmsink name={channel}"
    ));
    eventually("the channel exists", || channel.exists());
    let mut running: Vec<Process> = Vec::new();
    for recorder in recorders {
        running.push(launch(&format!(
            "-e rsshmsrc name={channel} num-buffers=220 ! {recorder}"
        )));
        // The pieces of the recorders begin at different times.
        std::thread::sleep(Duration::from_millis(470));
    }
    for recorder in &mut running {
        recorder.wait_ok();
    }
    writer.interrupt();
}

/// splitmuxsink requests the keyframe of the next piece when it begins a piece.
#[test]
fn splitmuxsink_cuts_pieces_of_its_length() {
    let channel = Channel::new();
    let recordings = Recordings::new(&channel);
    let location = recordings.path("part%d.mp4");
    record(
        &channel,
        &[format!(
            "h264parse ! splitmuxsink max-size-time=2000000000 send-keyframe-requests=true location={}",
            location.display()
        )],
    );
    assert_lengths(&recordings.lengths("part", ".mp4"), 2, 2000);
}

#[test]
fn hlssink2_cuts_pieces_of_its_length() {
    let channel = Channel::new();
    let recordings = Recordings::new(&channel);
    let path = |name: &str| recordings.path(name).display().to_string();
    record(
        &channel,
        &[format!(
            "h264parse ! hlssink2 target-duration=2 max-files=20 location={} playlist-location={}",
            path("part%d.ts"),
            path("list.m3u8")
        )],
    );
    assert_lengths(&recordings.lengths("part", ".ts"), 2, 2000);
}

/// hlssink begins a file at the event that answers its own request, whatever keyframes other readers request. Its
/// multifilesink recognises the event by its count.
#[test]
fn recorders_cut_pieces_of_their_own_lengths() {
    let channel = Channel::new();
    let recordings = Recordings::new(&channel);
    let recorder = |name: &str, seconds: u32| {
        let path = |end: &str| recordings.path(&format!("{name}{end}")).display().to_string();
        format!(
            "h264parse ! mpegtsmux ! hlssink target-duration={seconds} max-files=20 location={} playlist-location={}",
            path("%d.ts"),
            path(".m3u8")
        )
    };
    record(
        &channel,
        &[recorder("long", 2), recorder("short", 1), recorder("late", 1)],
    );
    assert_lengths(&recordings.lengths("long", ".ts"), 1, 2000);
    assert_lengths(&recordings.lengths("short", ".ts"), 3, 1000);
    assert_lengths(&recordings.lengths("late", ".ts"), 3, 1000);
}
