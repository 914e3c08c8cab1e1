// SPDX-License-Identifier: MIT OR Apache-2.0

//! Nothing is lost silently. A writer in another process sends one of everything. Each thing arrives, is counted by one of
//! the two elements, or stays in the writer as the documents say.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    sync::{Arc, Mutex},
    time::Duration,
};

use gst::{TagMergeMode, event, prelude::*, tags};
use gst_audio::AudioMeta;
use gst_video::{VideoMeta, prelude::*};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{LOSSLESS, Pipeline, custom_event, newer::custom_meta, role_command},
    role::{Role, listen, say},
};

use crate::{meta_table, metas};

const WRITER: &str = "one_of_everything/writer";

/// The role of the process that these tests start.
pub const ROLES: &[(&str, Role)] = &[(WRITER, |arguments| write(arguments[0], arguments[1]))];

const METAS: &str = include_str!("../../docs/METAS.md");
const EVENTS: &str = include_str!("../../docs/TIME.md");

const VIDEO: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";
const AUDIO: &str = "audio/x-raw,format=S16LE,channels=2,rate=48000,layout=interleaved,channel-mask=(bitmask)0x3";
const COMPRESSED: &str = "video/x-h264,stream-format=byte-stream,alignment=au";
const MPEG_TS: &str = "video/mpegts,systemstream=true,packetsize=188";

/// The size of a frame: that of a picture of [`VIDEO`], whole samples of [`AUDIO`], and any number of bytes of the rest.
const FRAME_SIZE: usize = 64 * 48;

/// A custom meta that only the writer has registered.
const UNKNOWN_META: &str = "RsShmWritersOwnMeta";

/// Metas that GStreamer cannot make, or cannot free again, without their content: the meta has a fence of a GPU.
const NOT_MADE: [&str; 2] = ["GstParentBufferMeta", "GstGLSyncMeta"];

/// The custom events that are sent in one burst.
const BURST: &str = "burst";
const BURST_LENGTH: u64 = 200;

/// The events that stay in the writer, apart from those that tell the channel about caps, times and ends.
const STAY: [&str; 10] = [
    "segment",
    "stream-collection",
    "stream-group-done",
    "segment-done",
    "sink-message",
    "buffersize",
    "instant-rate-change",
    "GstNtpOffset",
    "latency_probe.id",
    "decodebin3-custom-eos",
];

/// How often things of each name were sent or received.
type Counts = BTreeMap<String, u64>;

fn count(counts: &mut Counts, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}

/// A text that says all of a frame that has to arrive, apart from its metas and the values of its timestamps.
fn description(buffer: &gst::BufferRef) -> String {
    // The memories are mapped one by one, because mapping the buffer would merge them.
    let maps: Vec<_> = buffer
        .iter_memories()
        .map(|memory| memory.map_readable().unwrap())
        .collect();
    let memories: Vec<_> = maps.iter().map(|map| map.size()).filter(|size| *size > 0).collect();
    let bytes = maps.iter().flat_map(|map| map.iter());
    let sum = bytes.fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let flags = buffer.flags() - gst::BufferFlags::TAG_MEMORY;
    let video_flags = buffer.video_flags();
    format!(
        "{memories:?} {sum:x} {flags:?} {video_flags:?} {:?} {} {} {:?}",
        buffer.duration(),
        buffer.offset() as i64,
        buffer.offset_end() as i64,
        (buffer.pts().is_some(), buffer.dts().is_some())
    )
}

/// Counts the metas of a frame by their names.
fn count_metas(buffer: &gst::BufferRef, counts: &mut Counts) {
    for meta in buffer.iter_meta::<gst::Meta>() {
        count(counts, meta.type_().name());
    }
}

/// Counts an event by its name: that of a custom event or that of its type. Tags are counted one by one.
fn count_event(event: &gst::EventRef, counts: &mut Counts) {
    match event.view() {
        gst::EventView::Tag(tags) => {
            for (name, values) in tags.tag().iter_generic() {
                values.for_each(|_| count(counts, name));
            }
        }
        gst::EventView::CustomDownstream(_)
        | gst::EventView::CustomDownstreamOob(_)
        | gst::EventView::CustomDownstreamSticky(_)
        | gst::EventView::CustomBoth(_)
        | gst::EventView::CustomBothOob(_) => count(counts, event.structure().unwrap().name()),
        _ => count(counts, event.type_().name()),
    }
}

/// The writer: a pad that pushes to an rsshmsink, and what it has pushed.
struct Sender {
    pipeline: Pipeline,
    pad: gst::Pad,
    number: u8,
    metas: Counts,
    events: Counts,
}

impl Sender {
    fn new(channel: &str) -> Self {
        let sink = gst::parse::launch(&format!("rsshmsink channel={channel} async=false {LOSSLESS}")).unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add(&sink).unwrap();
        let pipeline = Pipeline::from(pipeline);
        pipeline.play();
        let pad = gst::Pad::builder(gst::PadDirection::Src).name("src").build();
        pad.set_active(true).unwrap();
        pad.link(&pipeline.pad("rsshmsink", "sink")).unwrap();
        Self {
            pipeline,
            pad,
            number: 0,
            metas: Counts::new(),
            events: Counts::new(),
        }
    }

    fn send(&mut self, event: gst::Event) {
        count_event(&event, &mut self.events);
        self.pad.push_event(event);
    }

    /// A frame of this size with a timestamp.
    fn buffer(&mut self, size: usize) -> gst::Buffer {
        self.number = self.number.wrapping_add(1);
        let mut buffer = gst::Buffer::from_slice(vec![self.number; size]);
        let target = buffer.get_mut().unwrap();
        target.set_pts(self.pipeline.current_running_time());
        target.set_dts(target.pts());
        target.set_duration(gst::ClockTime::MSECOND);
        buffer
    }

    fn note(&mut self, buffer: &gst::BufferRef) {
        count_metas(buffer, &mut self.metas);
        say(format!("frame {}", description(buffer)));
    }

    fn push(&mut self, buffer: gst::Buffer) {
        self.note(&buffer);
        self.pad.push(buffer).unwrap();
    }

    /// Pushes a frame that `change` has changed.
    fn push_with(&mut self, change: impl FnOnce(&mut gst::BufferRef)) {
        let mut buffer = self.buffer(FRAME_SIZE);
        change(buffer.get_mut().unwrap());
        self.push(buffer);
    }

    /// Pushes a frame that has `count` memories, or as many as a buffer can have.
    fn push_memories(&mut self, count: usize) {
        let mut whole = self.buffer(FRAME_SIZE);
        let target = whole.get_mut().unwrap();
        target.remove_all_memory();
        for number in 0..count {
            let size = FRAME_SIZE / 32
                + if number == 0 {
                    FRAME_SIZE - count * (FRAME_SIZE / 32)
                } else {
                    0
                };
            target.append_memory(gst::Memory::from_slice(vec![number as u8; size]));
        }
        self.push(whole);
    }
}

/// Sends one of everything in a stream with these caps, and then says what it has sent, and what the sink counted.
fn write(channel: &str, caps: &str) {
    // Some plugins print warnings when they are loaded, and `register` makes warnings fatal.
    let all_metas = meta_table::all_metas();
    metas::register();
    custom_meta::register(UNKNOWN_META);
    let caps: gst::Caps = caps.parse().unwrap();
    let mut sender = Sender::new(channel);
    sender.send(event::StreamStart::builder("everything/1").build());
    sender.pad.push_event(event::Caps::new(&caps));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    sender.send(event::Segment::new(&segment));
    // The push returns when a reader is attached, so all that follows must reach it.
    sender.push_with(|_| {});
    let is_video = caps.structure(0).unwrap().name() == "video/x-raw";
    send_frames(&mut sender, is_video);
    send_metas(&mut sender, &caps, &all_metas);
    send_events(&mut sender);
    // The burst must not overwrite events that the reader has not received yet.
    say("pause");
    listen();
    for number in 0..BURST_LENGTH {
        sender.send(custom_event(BURST, number));
    }
    sender.push_with(|_| {});
    sender.pad.push_event(event::Eos::new());

    let stats = sender.pipeline.stats("rsshmsink");
    for (kind, counts) in [("meta", &sender.metas), ("event", &sender.events)] {
        for (name, count) in counts {
            say(format!("sent {kind} {name} {count}"));
        }
        let left_out: gst::Structure = stats.get(format!("{kind}s-left-out-by-name")).unwrap();
        for (name, count) in left_out.iter() {
            say(format!("left-out {kind} {name} {}", count.get::<u64>().unwrap()));
        }
    }
    say(format!("dropped {}", stats.get::<u64>("frames-dropped").unwrap()));
    say("done");
    listen();
}

/// Sends frames with each flag, numbers of memories, no timestamps, offsets, no bytes, and in lists.
fn send_frames(sender: &mut Sender, is_video: bool) {
    for flag in gst::BufferFlags::all() - gst::BufferFlags::TAG_MEMORY {
        sender.push_with(|buffer| buffer.set_flags(flag));
    }
    for flag in gst_video::VideoBufferFlags::all() {
        sender.push_with(|buffer| buffer.set_video_flags(flag));
    }
    for count in [1, 2, 3, 16, 17] {
        sender.push_memories(count);
    }
    sender.push_with(|buffer| {
        buffer.set_pts(None);
        buffer.set_dts(None);
        buffer.set_duration(None);
    });
    sender.push_with(|buffer| buffer.set_dts(None));
    sender.push_with(|buffer| {
        buffer.set_offset(77);
        buffer.set_offset_end(78);
    });
    // A picture without bytes is an error.
    if !is_video {
        for size in [0, 4, 0, 100_000] {
            let buffer = sender.buffer(size);
            sender.push(buffer);
        }
        let empty = gst::Buffer::new();
        sender.push(empty);
    }
    for length in [0, 1, 300] {
        let mut list = gst::BufferList::new();
        for _ in 0..length {
            let buffer = sender.buffer(FRAME_SIZE);
            sender.note(&buffer);
            list.get_mut().unwrap().add(buffer);
        }
        sender.pad.push_list(list).unwrap();
    }
}

/// Sends each meta as GStreamer makes it without content, some with content, and some that are too large or too many.
fn send_metas(sender: &mut Sender, caps: &gst::Caps, all: &[&str]) {
    let is_video = caps.structure(0).unwrap().name() == "video/x-raw";
    for name in all.iter().filter(|name| !NOT_MADE.contains(name)) {
        // A meta without planes is no layout of a picture, and the frame would be refused.
        if !is_video || *name != "GstVideoMeta" {
            sender.push_with(|buffer| add_meta(buffer, name));
        }
    }
    sender.push_with(metas::add_metas);
    sender.push_with(|buffer| {
        gst::ParentBufferMeta::add(buffer, &gst::Buffer::new());
    });
    sender.push_with(|buffer| {
        custom_meta::add(buffer, UNKNOWN_META);
    });
    if let Ok(info) = gst_audio::AudioInfo::from_caps(caps) {
        sender.push_with(|buffer| {
            AudioMeta::add(buffer, &info, FRAME_SIZE / 4, &[]).unwrap();
        });
    }
    if is_video {
        sender.push_with(|buffer| {
            let flags = gst_video::VideoFrameFlags::empty();
            VideoMeta::add(buffer, flags, gst_video::VideoFormat::Gray8, 64, 48).unwrap();
        });
    }
    sender.push_with(|buffer| {
        for _ in 0..3 {
            custom_meta::add(buffer, UNKNOWN_META).set("text", "x".repeat(2000));
        }
    });
    sender.push_with(|buffer| {
        for _ in 0..200 {
            gst_video::VideoCropMeta::add(buffer, (0, 0, 1, 1));
        }
    });
}

/// Adds a meta of this name without content.
fn add_meta(buffer: &mut gst::BufferRef, name: &str) {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is valid and the buffer is writable. Every meta has a function that makes it without content.
    unsafe {
        let info = gst::ffi::gst_meta_get_info(name.as_ptr());
        gst::ffi::gst_buffer_add_meta(buffer.as_mut_ptr(), info, std::ptr::null_mut());
    }
}

/// Sends each kind of event that goes downstream, one or more of each, with a frame after each.
fn send_events(sender: &mut Sender) {
    let structure = |name: &str| gst::Structure::builder(name).field("number", 1_u64).build();
    let tag = |fill: &dyn Fn(&mut gst::TagListRef)| {
        let mut tags = gst::TagList::new();
        fill(tags.make_mut());
        event::Tag::new(tags)
    };
    let mode = TagMergeMode::Append;
    let image = gst::Sample::builder()
        .buffer(&gst::Buffer::from_slice([1_u8; 10]))
        .build();
    // A gap in the time of earlier frames says nothing, and is dropped.
    std::thread::sleep(Duration::from_millis(5));
    let now = sender.pipeline.current_running_time().unwrap();
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    let mut events = vec![
        event::Gap::new(now, gst::ClockTime::MSECOND),
        event::StreamStart::builder("everything/2").build(),
        event::Segment::new(&segment),
        tag(&|tags| {
            tags.add::<tags::Title>(&"title", mode);
            tags.add::<tags::Artist>(&"one", mode);
            tags.add::<tags::Artist>(&"two", mode);
            tags.add::<tags::Image>(&image, mode);
            tags.add::<tags::Image>(&image, mode);
        }),
        tag(&|tags| {
            tags.set_scope(gst::TagScope::Global);
            tags.add::<tags::Album>(&"album", mode);
            tags.add::<tags::Lyrics>(&"la ".repeat(2000).as_str(), mode);
        }),
        event::CustomDownstream::new(structure("custom")),
        event::CustomBoth::new(structure("custom-both")),
        event::CustomDownstreamOob::new(structure("custom-oob")),
        event::CustomBothOob::new(structure("custom-both-oob")),
        event::CustomDownstream::new(structure("latency_probe.id")),
        event::CustomDownstream::new(structure("decodebin3-custom-eos")),
        event::CustomDownstream::new(structure("GstNtpOffset")),
        event::CustomDownstream::new(structure("GstRTPPacketLost")),
        event::CustomBoth::new(structure("GstForceKeyUnit")),
        gst_video::DownstreamForceKeyUnitEvent::builder()
            .timestamp(now)
            .running_time(now)
            .build(),
        event::CustomDownstream::new(gst::Structure::builder("large").field("text", "x".repeat(5000)).build()),
        event::CustomDownstream::new(
            gst::Structure::builder("not-plain")
                .field("caps", gst::Caps::new_any())
                .build(),
        ),
        event::Toc::new(&gst::Toc::new(gst::TocScope::Global), false),
        event::StreamCollection::new(&gst::StreamCollection::builder(None).build()),
        event::StreamGroupDone::new(gst::GroupId::next()),
        event::SegmentDone::new(now),
        event::Protection::new("system", &gst::Buffer::from_slice([1_u8; 10])),
        event::SinkMessage::new("sink", &gst::message::Application::new(structure("application"))),
        event::Buffersize::new(gst::format::Bytes::ZERO, gst::format::Bytes::ZERO, true),
        event::InstantRateChange::new(1.0, gst::SegmentFlags::empty()),
    ];
    // There are more names than places for sticky custom events.
    events.extend((0..8).map(|number| event::CustomDownstreamSticky::new(structure(&format!("sticky-{number}")))));
    for event in events {
        sender.send(event);
        sender.push_with(|_| {});
    }
}

/// What a reader has received.
#[derive(Default)]
struct Received {
    frames: Vec<String>,
    metas: Counts,
    events: Counts,
}

/// Records what leaves the rsshmsrc of a pipeline.
fn record(pipeline: &Pipeline) -> Arc<Mutex<Received>> {
    let received = Arc::new(Mutex::new(Received::default()));
    let in_probe = Arc::clone(&received);
    let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pipeline.pad("rsshmsrc", "src").add_probe(types, move |_, info| {
        let mut received = in_probe.lock().unwrap();
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                received.frames.push(description(buffer));
                count_metas(buffer, &mut received.metas);
            }
            // The source begins a stream of its own before it is connected.
            Some(gst::PadProbeData::Event(event))
                if !matches!(event.view(), gst::EventView::StreamStart(start) if !start.stream_id().starts_with("everything")) =>
            {
                count_event(event, &mut received.events);
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    received
}

/// What the writer says at the end.
#[derive(Default)]
struct Sent {
    frames: Vec<String>,
    /// By the kind of thing: `meta` or `event`.
    sent: BTreeMap<String, Counts>,
    left_out: BTreeMap<String, Counts>,
    dropped: String,
}

/// Collects what the writer says until it has sent everything. Lets it continue once the frames so far have arrived.
#[track_caller]
fn listen_to(writer: &mut Process, received: &Mutex<Received>) -> Sent {
    let mut sent = Sent::default();
    loop {
        let line = writer.receive();
        let words: Vec<&str> = line.split(' ').collect();
        let counts = match words[..] {
            ["done"] => return sent,
            ["pause"] => {
                let count = sent.frames.len();
                eventually("all frames arrive", || received.lock().unwrap().frames.len() == count);
                writer.send("go on");
                continue;
            }
            ["frame", ..] => {
                sent.frames.push(line["frame ".len()..].to_owned());
                continue;
            }
            ["dropped", count] => {
                sent.dropped = count.to_owned();
                continue;
            }
            ["sent", ..] => &mut sent.sent,
            ["left-out", ..] => &mut sent.left_out,
            _ => panic!("{line}"),
        };
        let counts = counts.entry(words[1].to_owned()).or_default();
        counts.insert(words[2].to_owned(), words[3].parse().unwrap());
    }
}

/// What was sent, but neither arrived nor was counted by the sink, by name. Nothing may arrive that was not sent.
#[track_caller]
fn missing(kind: &str, sent: &Sent, received: &Counts) -> BTreeMap<String, u64> {
    let empty = Counts::new();
    let (all, left_out) = (&sent.sent[kind], sent.left_out.get(kind).unwrap_or(&empty));
    let names: BTreeSet<&String> = all.keys().chain(left_out.keys()).chain(received.keys()).collect();
    let mut missing = BTreeMap::new();
    for name in names {
        let of = |counts: &Counts| counts.get(name).copied().unwrap_or(0);
        let known = of(received) + of(left_out);
        assert!(
            known <= of(all),
            "{kind} {name}: sent {}, received {}, left out {}",
            of(all),
            of(received),
            of(left_out)
        );
        if known < of(all) {
            missing.insert(name.clone(), of(all) - known);
        }
    }
    missing
}

/// The metas of which the table says that nothing is lost without them.
fn metas_not_needed() -> BTreeSet<&'static str> {
    METAS
        .lines()
        .filter(|line| line.contains("| not needed |"))
        .filter_map(|line| line.split('`').nth(1))
        .collect()
}

/// Sends one of everything in a stream with these caps, and compares both ends.
#[track_caller]
fn check(caps: &str) {
    metas::register();
    let channel = Channel::new();
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let received = record(&reader);
    reader.play();
    let mut command = role_command(WRITER, &[channel.as_str(), caps]);
    command.env_remove("G_DEBUG");
    let mut writer = Process::converse(command);
    let sent = listen_to(&mut writer, &received);
    reader.wait_eos();
    let stat = |field| reader.stat("rsshmsrc", field);
    let received = std::mem::take(&mut *received.lock().unwrap());

    // The first frame of a reader is discontinuous.
    assert_eq!(received.frames[1..], sent.frames[1..]);
    assert_eq!(received.frames.len(), sent.frames.len());
    assert_eq!(
        (sent.dropped.as_str(), stat("frames-missed"), stat("frames-skipped")),
        ("0", 0, 0)
    );

    let mut missing_metas = missing("meta", &sent, &received.metas);
    missing_metas.retain(|name, _| !metas_not_needed().contains(name.as_str()));
    if caps == VIDEO {
        // The meta says how the planes lie in memory, and the default layout needs none.
        assert_eq!(missing_metas.remove("GstVideoMeta"), Some(1));
    }
    assert_eq!(missing_metas.get(UNKNOWN_META), Some(&2), "{missing_metas:?}");
    let counted = stat("metas-unknown") + stat("metas-refused");
    assert_eq!(missing_metas.values().sum::<u64>(), counted, "{missing_metas:?}");
    assert_eq!(stat("metas-refused"), 0, "{missing_metas:?}");

    let mut ways_of_their_own = received.events;
    ways_of_their_own.retain(|name, _| !["caps", "segment", "eos"].contains(&name.as_str()));
    let mut missing_events = missing("event", &sent, &ways_of_their_own);
    for name in STAY {
        assert!(EVENTS.contains(name), "docs/TIME.md does not say that {name} stays");
        assert!(missing_events.remove(name).is_some(), "{name} does not stay");
    }
    // The burst is longer than the ring of events, so it may overwrite itself and the events before it.
    let missed = missing_events.values().sum::<u64>();
    assert_eq!(
        (stat("events-missed"), stat("events-refused")),
        (missed, 0),
        "{missing_events:?}"
    );
    writer.send("end");
    eventually("the writer ends", || !writer.is_running());
}

#[test]
fn raw_video_loses_nothing_silently() {
    check(VIDEO);
}

#[test]
fn raw_audio_loses_nothing_silently() {
    check(AUDIO);
}

#[test]
fn compressed_video_loses_nothing_silently() {
    check(COMPRESSED);
}

#[test]
fn mpeg_ts_loses_nothing_silently() {
    check(MPEG_TS);
}
