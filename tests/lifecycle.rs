//! The elements as GStreamer sees them: states, properties, signals, queries, and what they leave behind.

mod common;

use std::{
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use common::{Channel, Pipeline, Process, Tap, command, eventually, launch, within};
use gst::prelude::*;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

fn make(factory: &str) -> gst::Element {
    common::init();
    gst::ElementFactory::make(factory).build().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    command(program).args(arguments).output().unwrap()
}

#[track_caller]
fn cycle(element: &gst::Element) {
    for _ in 0..100 {
        element.set_state(gst::State::Playing).unwrap();
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn elements_alone_start_and_stop_a_hundred_times() {
    for factory in ["rsshmsink", "rsshmsrc"] {
        // With the name that it is given automatically.
        let element = make(factory);
        let name = element.name();
        assert!(name.starts_with(factory), "{name}");
        cycle(&element);
        assert!(!std::path::Path::new(&format!("/dev/shm/sem.{name}")).exists());
    }
}

#[test]
fn linked_elements_start_and_stop_a_hundred_times() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink"));
    for _ in 0..100 {
        writer.0.set_state(gst::State::Playing).unwrap();
        reader.0.set_state(gst::State::Playing).unwrap();
        writer.0.set_state(gst::State::Null).unwrap();
        reader.0.set_state(gst::State::Null).unwrap();
        channel.assert_gone();
    }
}

#[test]
fn a_pair_works_again_each_time() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = Tap::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    for round in 0..6 {
        writer.0.set_state(gst::State::Playing).unwrap();
        reader.pipeline.0.set_state(gst::State::Playing).unwrap();
        reader.wait_for_more(3);
        // Either may be the first to stop.
        let pipelines = [&writer.0, &reader.pipeline.0];
        pipelines[round % 2].set_state(gst::State::Null).unwrap();
        pipelines[(round + 1) % 2].set_state(gst::State::Null).unwrap();
        channel.assert_gone();
    }
}

#[test]
fn gst_inspect_prints_everything_without_a_complaint() {
    // The first run makes the registry, and other plugins may complain.
    let mut first = command("gst-inspect-1.0");
    first.env_remove("G_DEBUG").arg("rsshm").output().unwrap();
    for (argument, expected) in [
        ("rsshm", vec!["rsshmsink", "rsshmsrc", "MIT/X11"]),
        (
            "rsshmsink",
            vec![
                "Sink/Video",
                "none (0)",
                "num-clients",
                "channel-stats",
                "client-connected",
                "rsshm",
            ],
        ),
        (
            "rsshmsrc",
            vec!["Source/Video", "none (0)", "on-disconnect", "connected", "read-only"],
        ),
    ] {
        let output = run("gst-inspect-1.0", &[argument]);
        let (text, complaints) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() && complaints.is_empty(),
            "{argument}: {complaints}"
        );
        for expected in expected {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}

#[test]
fn nothing_leaks() {
    let run = |pipeline: String| {
        let mut command = command("gst-launch-1.0");
        command.env("GST_TRACERS", "leaks").env("GST_DEBUG", "GST_TRACER:7");
        command.arg("-q").args(pipeline.split_whitespace());
        Process::start(command)
    };
    for producer in [
        format!("videotestsrc num-buffers=60 ! {CAPS}"),
        format!("videotestsrc num-buffers=60 ! {CAPS} ! tee"),
        format!(
            "videotestsrc num-buffers=30 ! {CAPS} ! c. videotestsrc num-buffers=30 ! video/x-raw,format=NV12 ! c. concat name=c"
        ),
    ] {
        let channel = Channel::new();
        let mut writer = run(format!(
            "{producer} ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
        ));
        let mut reader = run(format!("rsshmsrc name={channel} ! queue ! fakesink sync=false"));
        // That there are leaks is a warning, too, and so the end of the program: the list tells more.
        writer.wait();
        reader.wait();
        for output in [writer.output(), reader.output()] {
            // The tracer announces the form of its records first.
            assert!(output.contains("object-alive.class"), "the tracer does not run");
            let left: Vec<&str> = output
                .lines()
                .filter(|line| line.contains("object-alive, type-name=(string)Gst"))
                .collect();
            assert!(left.is_empty(), "{left:#?}");
        }
    }
}

/// What is promised of a property: its default as text, and whether it can be written.
#[track_caller]
fn assert_properties(element: &gst::Element, expected: &[(&str, &str, bool)]) {
    for (name, default, writable) in expected {
        let property = element.find_property(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(
            property.flags().contains(gst::glib::ParamFlags::WRITABLE),
            *writable,
            "{name}"
        );
        assert!(property.flags().contains(gst::glib::ParamFlags::READABLE), "{name}");
        assert!(!property.blurb().unwrap().is_empty());
        let value = element.property_value(name);
        let text = value
            .transform::<Option<String>>()
            .unwrap()
            .get::<Option<String>>()
            .unwrap();
        assert_eq!(text.as_deref().unwrap_or("null"), *default, "{name}");
    }
}

#[test]
fn properties_have_their_defaults() {
    let sink = make("rsshmsink");
    assert_properties(
        &sink,
        &[
            ("channel", "null", true),
            ("perms", "384", true), // 0600
            ("max-slots", "0", true),
            ("lossless", "FALSE", true),
            ("navigation", "FALSE", true),
            ("wait-for-connection", "FALSE", true),
            ("sync", "TRUE", true),
            ("num-clients", "0", false),
        ],
    );
    let stats = sink.property::<gst::Structure>("channel-stats");
    for field in [
        "frames-published",
        "frames-in-place",
        "frames-copied",
        "copied-foreign",
        "copied-repeated",
        "copied-no-slot",
        "frames-dropped",
        "metas-left-out",
        "events-left-out",
        "slots",
        "slots-in-use",
        "bytes",
        "semaphore-timeouts",
        "readers-evicted",
    ] {
        assert!(stats.has_field(field), "{field}");
    }
    let source = make("rsshmsrc");
    assert_properties(
        &source,
        &[
            ("channel", "null", true),
            ("max-buffers", "0", true),
            ("max-held-buffers", "4", true),
            ("on-disconnect", "None: wait for the next writer", true),
            ("forward-eos", "TRUE", true),
            ("connection-timeout", "0", true),
            ("read-only", "FALSE", true),
            ("connected", "FALSE", false),
        ],
    );
    let stats = source.property::<gst::Structure>("channel-stats");
    for field in [
        "frames-received",
        "frames-in-place",
        "frames-copied",
        "frames-missed",
        "events-missed",
        "writer-pid",
        "reconnects",
    ] {
        assert!(stats.has_field(field), "{field}");
    }
    assert_eq!(make("rsshmsink").factory().unwrap().rank(), gst::Rank::NONE);
    assert_eq!(make("rsshmsrc").factory().unwrap().rank(), gst::Rank::NONE);
}

#[test]
fn bad_settings_are_errors_that_say_what_is_wrong() {
    let long = "x".repeat(251);
    for (settings, words) in [
        ("channel=a/b".to_owned(), "/"),
        ("channel=sem.x".to_owned(), "sem."),
        (format!("channel={long}"), "250"),
        ("max-slots=2".to_owned(), "max-slots"),
    ] {
        let description = format!("videotestsrc ! rsshmsink {settings}");
        let writer = Pipeline::new(&description);
        assert!(writer.0.set_state(gst::State::Playing).is_err(), "{settings}");
        let error = writer.wait_error();
        assert!(error.matches(gst::ResourceError::Settings), "{settings}: {error:?}");
        assert!(error.message().contains(words), "{settings}: {error}");
        if settings.starts_with("channel") {
            let reader = Pipeline::new(&format!("rsshmsrc {settings} ! fakesink"));
            assert!(reader.0.set_state(gst::State::Playing).is_err(), "{settings}");
            let error = reader.wait_error();
            assert!(error.matches(gst::ResourceError::Settings), "{settings}: {error:?}");
        }
    }
}

#[test]
fn times_that_make_no_sense_end_nobody() {
    for (live, settings) in [
        (true, "processing-deadline=18446744073709551615"),
        (false, "render-delay=18446744073709551614"),
        (false, "ts-offset=-9223372036854775808 render-delay=9223372036854775807"),
    ] {
        let channel = Channel::new();
        let writer = Pipeline::playing(&format!(
            "videotestsrc is-live={live} num-buffers=5 ! {CAPS} ! rsshmsink channel={channel} {settings}"
        ));
        writer.by_factory("rsshmsink").set_property("sync", false);
        writer.wait_eos();
    }
}

#[test]
fn a_second_writer_is_told_who_has_the_channel() {
    let channel = Channel::new();
    let mut first = launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ));
    eventually("the channel", || channel.exists());
    let second = Pipeline::new(&format!("videotestsrc ! rsshmsink channel={channel}"));
    assert!(second.0.set_state(gst::State::Playing).is_err());
    let error = second.wait_error();
    assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
    assert!(error.message().contains(&first.pid().to_string()), "{error}");
    first.interrupt();
    channel.assert_gone();
}

#[test]
fn a_uri_makes_either_element() {
    common::init();
    for (direction, factory) in [(gst::URIType::Src, "rsshmsrc"), (gst::URIType::Sink, "rsshmsink")] {
        let element = gst::Element::make_from_uri(direction, "rsshm://cam0", None).unwrap();
        assert_eq!(element.factory().unwrap().name(), factory);
        assert_eq!(element.property::<String>("channel"), "cam0");
        let handler = element.dynamic_cast::<gst::URIHandler>().unwrap();
        assert_eq!(handler.uri().unwrap(), "rsshm://cam0");
        assert!(handler.set_uri("rsshm://a%2Fb").is_err());
        assert!(handler.set_uri("rsshm://").is_err());
        handler.set_uri("rsshm://cam%201").unwrap();
        assert_eq!(handler.uri().unwrap(), "rsshm://cam%201");
    }
}

/// Counts what a sink says of its readers.
#[derive(Default)]
struct Told {
    connected: Mutex<Vec<u32>>,
    disconnected: Mutex<Vec<u32>>,
    notified: AtomicU32,
}

impl Told {
    fn by(sink: &gst::Element) -> Arc<Self> {
        let told = Arc::new(Self::default());
        for signal in ["client-connected", "client-disconnected"] {
            let told = Arc::clone(&told);
            sink.connect(signal, false, move |values| {
                let readers = if signal == "client-connected" {
                    &told.connected
                } else {
                    &told.disconnected
                };
                readers.lock().unwrap().push(values[1].get().unwrap());
                None
            });
        }
        let to = Arc::clone(&told);
        sink.connect_notify(Some("num-clients"), move |_, _| {
            to.notified.fetch_add(1, Ordering::Relaxed);
        });
        told
    }
}

const A_SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_sink_tells_of_its_readers() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let sink = writer.by_factory("rsshmsink");
    let told = Told::by(&sink);
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("the channel", || channel.exists());
    for state in [gst::State::Playing, gst::State::Paused] {
        writer.0.set_state(state).unwrap();
        let clients = || sink.property::<u32>("num-clients");
        let counts = || {
            (
                told.connected.lock().unwrap().len(),
                told.disconnected.lock().unwrap().len(),
            )
        };
        let (connected, disconnected) = counts();
        let notified = told.notified.load(Ordering::Relaxed);

        let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
        let source = reader.by_factory("rsshmsrc");
        eventually("the reader is there", || source.property::<bool>("connected"));
        within(A_SECOND, "the sink counts it", || {
            clients() == 1 && counts().0 == connected + 1
        });
        let mut process = launch(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
        eventually("the sink counts the other", || clients() == 2);

        process.kill();
        within(A_SECOND, "the sink misses it", || {
            clients() == 1 && counts().1 == disconnected + 1
        });
        drop(reader);
        within(A_SECOND, "the sink has none", || {
            clients() == 0 && counts().1 == disconnected + 2
        });
        assert_eq!(counts(), (connected + 2, disconnected + 2));
        assert!(told.notified.load(Ordering::Relaxed) >= notified + 4);
    }
    let (mut came, mut went) = (
        told.connected.lock().unwrap().clone(),
        told.disconnected.lock().unwrap().clone(),
    );
    came.sort_unstable();
    went.sort_unstable();
    assert_eq!(came, went);
}

#[test]
fn a_sink_that_stops_has_no_readers() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let sink = writer.by_factory("rsshmsink");
    let _reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    eventually("the reader is counted", || sink.property::<u32>("num-clients") == 1);
    writer.0.set_state(gst::State::Null).unwrap();
    assert_eq!(sink.property::<u32>("num-clients"), 0);
}

#[test]
fn the_source_tells_whether_it_is_connected() {
    let channel = Channel::new();
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink"));
    let source = reader.by_factory("rsshmsrc");
    let told = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&told);
    source.connect_notify(Some("connected"), move |source, _| {
        to.lock().unwrap().push(source.property::<bool>("connected"));
    });
    reader.0.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(told.lock().unwrap().is_empty());
    for round in 1..=2 {
        let mut writer = launch(&format!(
            "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
        ));
        eventually("connected", || told.lock().unwrap().len() == round * 2 - 1);
        writer.kill();
        eventually("not connected", || told.lock().unwrap().len() == round * 2);
    }
    assert_eq!(*told.lock().unwrap(), [true, false, true, false]);
}

#[test]
fn a_reader_that_stops_is_not_connected() {
    let channel = Channel::new();
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    let source = reader.by_factory("rsshmsrc");
    eventually("connected", || source.property::<bool>("connected"));
    reader.0.set_state(gst::State::Null).unwrap();
    assert!(!source.property::<bool>("connected"));
}

#[test]
fn frames_can_be_stamped_on_arrival() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} do-timestamp=true ! fakesink sync=false"
    ));
    // Their own stamps run ten times as fast as the clock.
    let mut writer = launch(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,framerate=5/1 ! identity sleep-time=20000 \
         ! rsshmsink name={channel} sync=false lossless=true wait-for-connection=true"
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.all();
    assert_eq!(frames.len(), 60);
    for frame in &frames {
        let age = frame.at.nseconds() as i64 - frame.pts.unwrap().nseconds() as i64;
        assert!((0..1_000_000_000).contains(&age), "{frame:?}");
    }
    assert!(frames[59].pts.unwrap() - frames[0].pts.unwrap() < 8 * gst::ClockTime::SECOND);
    assert!(frames.is_sorted_by_key(|frame| frame.pts));
}

fn push(writer: &Pipeline, buffer: &gst::Buffer) {
    let result: gst::FlowReturn = writer.element("source").emit_by_name("push-buffer", &[buffer]);
    assert_eq!(result, gst::FlowReturn::Ok);
}

/// What a reader gets that does not look for a while, in which five frames come.
fn after_a_nap(settings: &str) -> Vec<u64> {
    let channel = Channel::new();
    let reader = Tap::new(&format!("rsshmsrc channel={channel} {settings} ! fakesink sync=false"));
    let pad = reader.pipeline.by_factory("rsshmsrc").static_pad("src").unwrap();
    let gate = Arc::new(Mutex::new(()));
    let nap = gate.lock().unwrap();
    let at_gate = Arc::clone(&gate);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        drop(at_gate.lock().unwrap());
        gst::PadProbeReturn::Ok
    });
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    let writer = Pipeline::playing(&format!(
        "appsrc name=source format=time caps={CAPS} ! rsshmsink channel={channel} sync=false wait-for-connection=true"
    ));
    let sink = writer.by_factory("rsshmsink");
    let published = || writer.stat("rsshmsink", "frames-published");
    for number in 1..=6 {
        let mut buffer = gst::Buffer::from_slice(vec![0_u8; 64 * 48]);
        buffer.get_mut().unwrap().set_offset(number);
        push(&writer, &buffer);
        eventually("it is published", || published() == number);
        if number == 1 {
            eventually("the reader has it", || reader.count() == 1);
        }
    }
    drop(nap);
    eventually("the newest", || reader.last().is_some_and(|frame| frame.offset == 6));
    drop(sink);
    reader.all().iter().map(|frame| frame.offset).collect()
}

#[test]
fn a_reader_gets_as_many_frames_as_it_wants_to_be_behind() {
    assert_eq!(after_a_nap("max-buffers=1"), [1, 6]);
    assert_eq!(after_a_nap("max-buffers=3"), [1, 4, 5, 6]);
    assert_eq!(after_a_nap(""), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_source_cannot_seek() {
    let channel = Channel::new();
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(3);
    let source = reader.pipeline.by_factory("rsshmsrc");
    assert!(
        source
            .seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::SECOND)
            .is_err()
    );
    let mut query = gst::query::Seeking::new(gst::Format::Time);
    assert!(source.query(&mut query));
    assert!(!query.result().0);
    // And goes on.
    reader.wait_for_more(3);
}

fn accepts(pad: &gst::Pad, caps: &str) -> bool {
    pad.query_accept_caps(&caps.parse::<gst::Caps>().unwrap())
}

#[test]
fn the_sink_says_what_it_takes() {
    let channel = Channel::new();
    let sink = make("rsshmsink");
    sink.set_property("channel", &channel.0);
    let pad = sink.static_pad("sink").unwrap();
    // In NULL too, and while it is open.
    for state in [gst::State::Null, gst::State::Ready] {
        sink.set_state(state).unwrap();
        let any = gst::Caps::new_any();
        for filter in [None, Some(&any)] {
            let answer = pad.query_caps(filter);
            assert!(!answer.is_any() && !answer.is_empty());
            assert_eq!(answer.structure(0).unwrap().get::<&str>("format"), Ok("I420"));
            let features: std::collections::BTreeSet<String> = answer
                .iter_with_features()
                .map(|(_, features)| features.to_string())
                .collect();
            assert_eq!(Vec::from_iter(features), ["format:Interlaced", "memory:SystemMemory"]);
        }
        let filter: gst::Caps = "application/x-unheard-of".parse().unwrap();
        assert_eq!(pad.query_caps(Some(&filter)), filter);
        assert!(accepts(
            &pad,
            "video/x-raw,format=NV12,width=16,height=16,framerate=30/1"
        ));
        assert!(accepts(&pad, "application/x-unheard-of"));
        for memory in ["GLMemory", "DMABuf", "CUDAMemory", "VAMemory"] {
            let caps = format!("video/x-raw(memory:{memory}),format=NV12,width=16,height=16,framerate=30/1");
            assert!(!accepts(&pad, &caps), "{memory}");
            assert!(pad.query_caps(Some(&caps.parse().unwrap())).is_empty(), "{memory}");
        }
    }
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn memory_that_cannot_be_shared_is_refused_by_name() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!("appsrc name=source ! rsshmsink channel={channel}"));
    let caps: gst::Caps = "video/x-raw(memory:GLMemory),format=RGBA,width=16,height=16,framerate=30/1"
        .parse()
        .unwrap();
    writer.element("source").set_property("caps", caps);
    writer.0.set_state(gst::State::Playing).unwrap();
    push(&writer, &gst::Buffer::from_slice([0; 1024]));
    let message = writer.message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let text = match message.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        _ => unreachable!(),
    };
    assert!(
        text.contains("memory:GLMemory") && text.contains("gldownload"),
        "{text}"
    );
    writer.wait_error();
}
