// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events that readers send upstream (keyframe requests and navigation), and the readers' QoS messages about skipped
//! frames.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::{EventType, event, prelude::*};
use gst_video::{NavigationEvent, UpstreamForceKeyUnitEvent};
use rsshm_testkit::{
    Channel, eventually,
    gst::{
        CAPS, Pipeline, SinkHarness, SourceRecorder, live_writer,
        newer::{BUTTON_1, SHIFT, with_modifiers},
    },
};

/// The events that rsshmsink sends upstream.
struct UpstreamEvents(Arc<Mutex<Vec<gst::Event>>>);

impl UpstreamEvents {
    fn of(writer: &Pipeline) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let in_probe = Arc::clone(&events);
        let pad = writer.pad("rsshmsink", "sink").peer().unwrap();
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            in_probe.lock().unwrap().push(info.event().unwrap().clone());
            gst::PadProbeReturn::Ok
        });
        Self(events)
    }

    fn all(&self) -> Vec<gst::Event> {
        self.0.lock().unwrap().clone()
    }

    fn keyframe_requests(&self) -> usize {
        self.all().iter().filter(|event| is_keyframe_request(event)).count()
    }

    fn navigation(&self) -> Vec<gst::Structure> {
        let events = self.all().into_iter();
        events
            .filter(|event| NavigationEvent::parse(event).is_ok())
            .map(|event| event.structure().unwrap().to_owned())
            .collect()
    }
}

fn is_keyframe_request(event: &gst::EventRef) -> bool {
    event.type_() == EventType::CustomUpstream && UpstreamForceKeyUnitEvent::parse(event).is_ok()
}

fn keyframe_request() -> gst::Event {
    UpstreamForceKeyUnitEvent::builder().all_headers(true).build()
}

/// Sends an event upstream from the end of a reader's pipeline, as a sink does. Returns whether an element handled it.
fn send(reader: &Pipeline, event: gst::Event) -> bool {
    reader.pad("fakesink", "sink").push_event(event)
}

/// A writer, and a reader that has received the writer's first frame.
fn pair(channel: &Channel, options: &str) -> (SinkHarness, SourceRecorder) {
    let writer = SinkHarness::live(channel, options);
    let reader = SourceRecorder::of(channel);
    writer.push_frame_until_seen(0, &reader);
    (writer, reader)
}

#[test]
fn reader_events_do_not_disturb_upstream_of_writer() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "navigation=true");
    let sent = UpstreamEvents::of(&writer.pipeline);
    let custom = gst::Structure::builder("app").field("number", 1u64).build();
    for event in [
        event::Reconfigure::new(),
        event::Qos::new(gst::QOSType::Underflow, 2.0, 1000, gst::ClockTime::SECOND),
        event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::ZERO,
            gst::SeekType::None,
            gst::ClockTime::NONE,
        ),
        event::Latency::new(gst::ClockTime::SECOND),
        event::Step::new(gst::format::Buffers::ONE, 1.0, true, false),
        event::CustomUpstream::new(custom.clone()),
        event::CustomBoth::new(custom.clone()),
        event::CustomBothOob::new(custom),
    ] {
        send(&reader.pipeline, event.clone());
        // An application sends events to the source element.
        let source = reader.pipeline.by_factory("rsshmsrc");
        if event.is_upstream() && event.type_() != EventType::Latency {
            source.send_event(event);
        }
    }
    // A message reaches the writer in less than this time.
    std::thread::sleep(Duration::from_millis(400));
    assert!(sent.all().is_empty(), "{:?}", sent.all());
    // The stream continues without a flush.
    writer.push_frame_until_seen(1, &reader);
    assert!(reader.events(EventType::FlushStart).is_empty());
}

#[test]
fn keyframe_requests_are_merged_to_one_a_second() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "");
    let others = [SourceRecorder::of(&channel), SourceRecorder::of(&channel)];
    for other in &others {
        eventually("a frame arrives", || !other.offsets().is_empty());
    }
    let sent = UpstreamEvents::of(&writer.pipeline);
    let started = Instant::now();
    let seconds = |seconds: f32| started.elapsed() < Duration::from_secs_f32(seconds);
    let mut at_first = 0;
    while seconds(2.6) {
        for reader in [&reader, &others[0], &others[1]] {
            assert!(send(&reader.pipeline, keyframe_request()));
        }
        std::thread::sleep(Duration::from_millis(20));
        let count = sent.keyframe_requests();
        if seconds(0.8) {
            at_first = count;
        }
    }
    assert_eq!(at_first, 1, "the first requests are not merged into one");
    let count = sent.keyframe_requests();
    let most = started.elapsed().as_secs() as usize + 1;
    assert!((2..=most).contains(&count), "{count} of {most}");
    for event in sent.all() {
        let event = UpstreamForceKeyUnitEvent::parse(&event).unwrap();
        assert!(event.all_headers && event.running_time.is_none());
    }
}

#[test]
fn read_only_reader_sends_no_event() {
    let channel = Channel::new();
    let (writer, _reader) = pair(&channel, "navigation=true");
    let observer = SourceRecorder::with_options(&channel, "read-only=true");
    eventually("a frame arrives", || !observer.offsets().is_empty());
    let sent = UpstreamEvents::of(&writer.pipeline);
    assert!(!send(&observer.pipeline, keyframe_request()));
    assert!(!send(&observer.pipeline, event::Navigation::new(press())));
    // A message reaches the writer in less than this time.
    std::thread::sleep(Duration::from_millis(400));
    assert!(sent.all().is_empty(), "{:?}", sent.all());
}

#[test]
fn events_without_writer_are_not_handled() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    assert!(!send(&reader.pipeline, keyframe_request()));
    assert!(!send(&reader.pipeline, event::Navigation::new(press())));
}

/// The event of a mouse button that is pressed while Shift and another button are held.
fn press() -> gst::Structure {
    let event = NavigationEvent::new_mouse_button_press(3, 10.5, 1.0 / 3.0);
    with_modifiers(event.structure(), SHIFT | BUTTON_1)
}

#[test]
fn navigation_reaches_writer_that_accepts_it() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "navigation=true");
    let sent = UpstreamEvents::of(&writer.pipeline);
    let key = with_modifiers(NavigationEvent::new_key_press("adiaeresis").structure(), 0);
    let scroll = NavigationEvent::new_mouse_scroll(1.0, 2.0, 0.0, -15.0).structure();
    let mut expected = Vec::new();
    for event in [press(), key, scroll] {
        assert!(send(&reader.pipeline, event::Navigation::new(event.clone())));
        expected.push(event);
        eventually("the event arrives without a frame", || {
            sent.navigation().len() == expected.len()
        });
    }
    assert_eq!(sent.navigation(), expected);
    // The next writer receives events, too.
    drop(writer);
    let writer = SinkHarness::live(&channel, "navigation=true");
    writer.push_frame_until_seen(1, &reader);
    let sent = UpstreamEvents::of(&writer.pipeline);
    assert!(send(&reader.pipeline, event::Navigation::new(press())));
    eventually("the event arrives", || sent.navigation() == [press()]);
}

#[test]
fn navigation_stays_in_reader_by_default() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "");
    assert!(!writer.pipeline.by_factory("rsshmsink").property::<bool>("navigation"));
    let sent = UpstreamEvents::of(&writer.pipeline);
    assert!(!send(&reader.pipeline, event::Navigation::new(press())));
    // A message reaches the writer in less than this time.
    std::thread::sleep(Duration::from_millis(400));
    assert!(sent.all().is_empty(), "{:?}", sent.all());
}

#[test]
fn writer_restarts_while_readers_send_events() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel} navigation=true"
    ));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed, here and at the store below, because no other data depends on the flag.
            while !stop.load(Ordering::Relaxed) {
                send(&reader.pipeline, keyframe_request());
                send(&reader.pipeline, event::Navigation::new(press()));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..30 {
            writer.play();
            std::thread::sleep(Duration::from_millis(10 + 2 * round % 40));
            writer.set_state(gst::State::Null).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    channel.assert_removed();
}

/// The QoS messages that a source has posted about skipped frames.
fn qos_messages(reader: &Pipeline) -> Vec<gst::Message> {
    let messages = reader.take_messages(gst::MessageType::Qos).into_iter();
    messages
        .filter(|message| message.src() == Some(reader.by_factory("rsshmsrc").upcast_ref()))
        .collect()
}

/// The contents of a QoS message.
#[derive(Debug)]
struct Qos {
    running_time: gst::ClockTime,
    jitter: i64,
    /// The number of frames received so far.
    processed: u64,
    /// The number of frames skipped so far.
    dropped: u64,
}

fn qos(message: &gst::Message) -> Qos {
    let gst::MessageView::Qos(qos) = message.view() else {
        panic!("{message:?}");
    };
    let (live, running, stream, timestamp, _) = qos.get();
    assert!(live && running == stream && running == timestamp);
    let count = |count: gst::GenericFormattedValue| match count {
        gst::GenericFormattedValue::Buffers(Some(count)) => *count,
        other => panic!("{other:?}"),
    };
    let (processed, dropped) = qos.stats();
    Qos {
        running_time: running.unwrap(),
        jitter: qos.values().0,
        processed: count(processed),
        dropped: count(dropped),
    }
}

#[test]
fn slow_reader_posts_qos_for_skipped_frames() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    let reader = SourceRecorder::new(&format!(
        "rsshmsrc channel={channel} max-buffers=1 ! identity sleep-time=120000 ! fakesink sync=false"
    ));
    reader.pipeline.play();
    eventually("eight frames arrive", || reader.offsets().len() >= 8);
    writer.interrupt();
    // After this time, the reader has taken the remaining frames.
    std::thread::sleep(Duration::from_millis(300));
    let messages: Vec<_> = qos_messages(&reader.pipeline).iter().map(qos).collect();
    let stat = |field| reader.stat(field);
    // Each gap in the frames causes one message.
    assert!(messages.len() >= 6, "{messages:?}");
    assert_eq!(
        messages.last().map(|qos| qos.dropped),
        Some(stat("frames-missed")),
        "{messages:?}"
    );
    assert!(messages.last().unwrap().processed <= stat("frames-received"));
    assert!(
        messages.is_sorted_by(|one, next| one.processed < next.processed && one.dropped < next.dropped),
        "{messages:?}"
    );
    let times: Vec<_> = reader.frames().iter().map(|frame| frame.pts.unwrap()).collect();
    for qos in &messages {
        assert_eq!(
            times.get(qos.processed as usize - 1),
            Some(&qos.running_time),
            "not the time of the frame after the gap"
        );
        assert!((0..1_000_000_000).contains(&qos.jitter), "{qos:?}");
    }
    let numbers = reader.offsets();
    let gaps = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
    assert_eq!(gaps, stat("frames-missed"), "{numbers:?}");
}

#[test]
fn do_timestamp_reader_posts_qos_for_skipped_frames() {
    let channel = Channel::new();
    let (writer, first) = pair(&channel, "");
    let reader = SourceRecorder::playing(&format!(
        "rsshmsrc channel={channel} max-buffers=1 do-timestamp=true ! identity sleep-time=200000 ! fakesink sync=false"
    ));
    let mut number = 1;
    eventually("a QoS message comes", || {
        writer.push_frame_until_seen(number, &first);
        number += 1;
        let now = reader.pipeline.current_running_time();
        qos_messages(&reader.pipeline).first().map(qos).is_some_and(|qos| {
            assert!(Some(qos.running_time) <= now.map(|now| now + gst::ClockTime::SECOND));
            qos.jitter == 0 && qos.dropped > 0
        })
    });
}

#[test]
fn reader_without_skipped_frames_posts_no_qos() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "lossless=true");
    for number in 1..=20 {
        writer.push_frame(number);
    }
    eventually("all frames arrive", || reader.offsets().last() == Some(&20));
    assert!(qos_messages(&reader.pipeline).is_empty());
}
