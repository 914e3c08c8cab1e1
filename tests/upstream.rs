//! What readers send back: wishes for key units, and what users do in their windows where the writer wants to know. And what
//! a reader says of frames that it had to skip.

mod common;
mod told;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{Channel, Pipeline, eventually, launch, within};
use gst::{EventType, event, prelude::*};
use gst_video::{NavigationEvent, NavigationModifierType, UpstreamForceKeyUnitEvent};
use told::{CAPS, Log, Producer};

/// What reached the pipeline behind rsshmsink.
struct Asked(Arc<Mutex<Vec<gst::Event>>>);

impl Asked {
    fn of(writer: &Pipeline) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&events);
        let pad = writer
            .by_factory("rsshmsink")
            .static_pad("sink")
            .unwrap()
            .peer()
            .unwrap();
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            to.lock().unwrap().push(info.event().unwrap().clone());
            gst::PadProbeReturn::Ok
        });
        Self(events)
    }

    fn all(&self) -> Vec<gst::Event> {
        self.0.lock().unwrap().clone()
    }

    fn keyframes(&self) -> usize {
        self.all().iter().filter(|event| is_key_unit(event)).count()
    }

    fn navigation(&self) -> Vec<NavigationEvent> {
        self.all()
            .iter()
            .filter_map(|event| NavigationEvent::parse(event).ok())
            .collect()
    }
}

fn is_key_unit(event: &gst::EventRef) -> bool {
    event.type_() == EventType::CustomUpstream && UpstreamForceKeyUnitEvent::parse(event).is_ok()
}

fn key_unit() -> gst::Event {
    UpstreamForceKeyUnitEvent::builder().all_headers(true).build()
}

/// Sends an event upstream from the end of a reader's pipeline, as a sink does.
fn send(reader: &Pipeline, event: gst::Event) -> bool {
    reader
        .by_factory("fakesink")
        .static_pad("sink")
        .unwrap()
        .push_event(event)
}

/// A writer and a reader of it that has its first frame.
fn pair(channel: &Channel, options: &str) -> (Producer, Log) {
    let writer = Producer::playing(channel, options);
    let reader = Log::of(channel);
    writer.push_until_seen(0, &reader);
    (writer, reader)
}

#[test]
fn a_reader_cannot_disturb_what_is_behind_the_writer() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "navigation=true");
    let asked = Asked::of(&writer.pipeline);
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
        // And as an application sends it, which is another way.
        let source = reader.pipeline.by_factory("rsshmsrc");
        if event.is_upstream() && event.type_() != EventType::Latency {
            source.send_event(event);
        }
    }
    std::thread::sleep(Duration::from_millis(400));
    assert!(asked.all().is_empty(), "{:?}", asked.all());
    // The stream goes on, and was never flushed.
    writer.push_until_seen(1, &reader);
    assert!(reader.events(EventType::FlushStart).is_empty());
}

#[test]
fn wishes_of_several_readers_for_a_key_unit_are_one_a_second() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "");
    let others = [Log::of(&channel), Log::of(&channel)];
    for other in &others {
        eventually("a frame", || !other.frames().is_empty());
    }
    let asked = Asked::of(&writer.pipeline);
    let started = Instant::now();
    let seconds = |seconds: f32| started.elapsed() < Duration::from_secs_f32(seconds);
    let mut at_first = 0;
    while seconds(2.6) {
        for reader in [&reader, &others[0], &others[1]] {
            assert!(send(&reader.pipeline, key_unit()));
        }
        std::thread::sleep(Duration::from_millis(20));
        if seconds(0.8) {
            at_first = asked.keyframes();
        }
    }
    assert_eq!(at_first, 1, "at once, and once for all");
    let count = asked.keyframes();
    assert!((2..=3).contains(&count), "{count}");
    for event in asked.all() {
        let event = UpstreamForceKeyUnitEvent::parse(&event).unwrap();
        assert!(event.all_headers && event.running_time.is_none());
    }
}

#[test]
fn who_may_only_look_asks_for_nothing() {
    let channel = Channel::new();
    let (writer, _reader) = pair(&channel, "navigation=true");
    let observer = Log::playing(&format!(
        "rsshmsrc channel={channel} read-only=true ! fakesink sync=false"
    ));
    eventually("a frame", || !observer.frames().is_empty());
    let asked = Asked::of(&writer.pipeline);
    assert!(!send(&observer.pipeline, key_unit()));
    assert!(!send(&observer.pipeline, event::Navigation::new(press().structure())));
    std::thread::sleep(Duration::from_millis(400));
    assert!(asked.all().is_empty(), "{:?}", asked.all());
}

#[test]
fn without_a_writer_there_is_nobody_to_ask() {
    let channel = Channel::new();
    let reader = Log::of(&channel);
    assert!(!send(&reader.pipeline, key_unit()));
    assert!(!send(&reader.pipeline, event::Navigation::new(press().structure())));
}

/// A mouse button that goes down with Shift and another button held.
fn press() -> NavigationEvent {
    NavigationEvent::MouseButtonPress {
        button: 3,
        x: 10.5,
        y: 1.0 / 3.0,
        modifier_state: NavigationModifierType::SHIFT_MASK | NavigationModifierType::BUTTON1_MASK,
    }
}

#[test]
fn what_users_do_in_a_readers_window_reaches_a_writer_that_wants_it() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "navigation=true");
    let asked = Asked::of(&writer.pipeline);
    let key = NavigationEvent::KeyPress {
        key: "adiaeresis".to_owned(),
        modifier_state: NavigationModifierType::empty(),
    };
    let mut expected = Vec::new();
    for event in [press(), key, NavigationEvent::new_mouse_scroll(1.0, 2.0, 0.0, -15.0)] {
        assert!(send(&reader.pipeline, event::Navigation::new(event.structure())));
        expected.push(event);
        within(Duration::from_secs(1), "it comes, without a frame", || {
            asked.navigation().len() == expected.len()
        });
    }
    assert_eq!(asked.navigation(), expected);
    // As the writer, so its successor.
    drop(writer);
    let writer = Producer::playing(&channel, "navigation=true");
    writer.push_until_seen(1, &reader);
    let asked = Asked::of(&writer.pipeline);
    assert!(send(&reader.pipeline, event::Navigation::new(press().structure())));
    eventually("it comes", || asked.navigation() == [press()]);
}

#[test]
fn what_users_do_stays_in_the_reader_unless_the_writer_wants_it() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "");
    assert!(!writer.pipeline.by_factory("rsshmsink").property::<bool>("navigation"));
    let asked = Asked::of(&writer.pipeline);
    assert!(!send(&reader.pipeline, event::Navigation::new(press().structure())));
    std::thread::sleep(Duration::from_millis(400));
    assert!(asked.all().is_empty(), "{:?}", asked.all());
}

#[test]
fn a_writer_starts_and_stops_while_readers_ask() {
    let channel = Channel::new();
    let reader = Log::of(&channel);
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel} navigation=true"
    ));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                send(&reader.pipeline, key_unit());
                send(&reader.pipeline, event::Navigation::new(press().structure()));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..30 {
            writer.0.set_state(gst::State::Playing).unwrap();
            std::thread::sleep(Duration::from_millis(10 + 2 * round % 40));
            writer.0.set_state(gst::State::Null).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    channel.assert_gone();
}

/// What a reader said of skipped frames, in its messages so far.
fn qos_messages(reader: &Pipeline) -> Vec<gst::Message> {
    let bus = reader.0.bus().unwrap();
    std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Qos]))
        .filter(|message| message.src() == Some(reader.by_factory("rsshmsrc").upcast_ref()))
        .collect()
}

/// Running time, jitter, and how many frames came and were missed until then.
fn qos(message: &gst::Message) -> (gst::ClockTime, i64, u64, u64) {
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
    (running.unwrap(), qos.values().0, count(processed), count(dropped))
}

#[test]
fn a_slow_reader_says_what_it_had_to_skip() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ));
    let reader = Log::new(&format!(
        "rsshmsrc channel={channel} max-buffers=1 ! identity sleep-time=120000 ! fakesink sync=false"
    ));
    let last = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&last);
    let pad = reader.pipeline.by_factory("rsshmsrc").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        to.lock().unwrap().push(info.buffer().unwrap().pts().unwrap());
        gst::PadProbeReturn::Ok
    });
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    eventually("some frames", || reader.frames().len() >= 8);
    writer.interrupt();
    std::thread::sleep(Duration::from_millis(300));
    let messages: Vec<_> = qos_messages(&reader.pipeline).iter().map(qos).collect();
    let stat = |field| reader.pipeline.stat("rsshmsrc", field);
    // One for each time that frames were skipped before one that came; the first is nothing's successor.
    assert!(messages.len() >= 6, "{messages:?}");
    assert_eq!(
        messages.last().map(|qos| qos.3),
        Some(stat("frames-missed")),
        "{messages:?}"
    );
    assert!(messages.last().unwrap().2 <= stat("frames-received"));
    assert!(
        messages.is_sorted_by(|one, next| one.2 < next.2 && one.3 < next.3),
        "{messages:?}"
    );
    let times = last.lock().unwrap().clone();
    for (running, jitter, processed, _) in &messages {
        assert_eq!(
            times.get(*processed as usize - 1),
            Some(running),
            "of the frame behind those skipped"
        );
        assert!((0..1_000_000_000).contains(jitter), "{jitter}");
    }
    let numbers = reader.frames();
    let gaps = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
    assert_eq!(gaps, stat("frames-missed"), "{numbers:?}");
}

#[test]
fn a_reader_that_stamps_frames_itself_says_what_it_had_to_skip_too() {
    let channel = Channel::new();
    let (writer, first) = pair(&channel, "");
    let reader = Log::playing(&format!(
        "rsshmsrc channel={channel} max-buffers=1 do-timestamp=true ! identity sleep-time=200000 ! fakesink sync=false"
    ));
    let mut number = 1;
    eventually("a message", || {
        writer.push_until_seen(number, &first);
        number += 1;
        let now = reader.pipeline.0.current_running_time();
        qos_messages(&reader.pipeline)
            .first()
            .map(qos)
            .is_some_and(|(running, jitter, _, dropped)| {
                assert!(Some(running) <= now.map(|now| now + gst::ClockTime::SECOND));
                jitter == 0 && dropped > 0
            })
    });
}

#[test]
fn a_reader_that_skips_nothing_says_nothing() {
    let channel = Channel::new();
    let (writer, reader) = pair(&channel, "lossless=true");
    for number in 1..=20 {
        writer.push(number);
    }
    eventually("all", || reader.frames().last() == Some(&20));
    assert!(qos_messages(&reader.pipeline).is_empty());
}
