// SPDX-License-Identifier: MIT OR Apache-2.0

//! The elements as GStreamer sees them: states, properties, signals, queries, and leaks.

use std::{
    path::Path,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{CAPS, LOSSLESS, Pipeline, SinkHarness, SourceRecorder, command, init, launch, live_writer},
    wait_until,
};

fn make(factory: &str) -> gst::Element {
    init();
    gst::ElementFactory::make(factory).build().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    command(program).args(arguments).output().unwrap()
}

/// Starts and stops an element a hundred times.
#[track_caller]
fn cycle(element: &gst::Element) {
    for _ in 0..100 {
        element.set_state(gst::State::Playing).unwrap();
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn unlinked_elements_start_and_stop_repeatedly() {
    for factory in ["rsshmsink", "rsshmsrc"] {
        // The channel has the name that GStreamer gives to the element.
        let element = make(factory);
        let name = element.name();
        assert!(name.starts_with(factory), "{name}");
        cycle(&element);
        assert!(!Path::new(&format!("/dev/shm/sem.{name}")).exists());
    }
}

#[test]
fn linked_elements_start_and_stop_repeatedly() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={channel}"));
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink"));
    for _ in 0..100 {
        writer.play();
        reader.play();
        writer.set_state(gst::State::Null).unwrap();
        reader.set_state(gst::State::Null).unwrap();
        channel.assert_removed();
    }
}

#[test]
fn sink_and_source_restart_in_any_order() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    for round in 0..6 {
        writer.play();
        reader.pipeline.play();
        reader.wait_for_frames(3);
        // The writer and the reader take turns in being the first to stop.
        let pipelines = [&writer, &reader.pipeline];
        pipelines[round % 2].set_state(gst::State::Null).unwrap();
        pipelines[(round + 1) % 2].set_state(gst::State::Null).unwrap();
        channel.assert_removed();
    }
}

#[test]
fn gst_inspect_prints_elements_without_warnings() {
    // The first run creates the registry, and other plugins may print warnings during that run.
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

/// The default of a property, in the form of the README's tables.
fn documented_default(property: &gst::glib::ParamSpec) -> String {
    let default = property.default_value();
    if !property.flags().contains(gst::glib::ParamFlags::WRITABLE) {
        String::new()
    } else if property.name() == "perms" {
        format!("{:04o}", default.get::<u32>().unwrap())
    } else if let Some((_, value)) = gst::glib::EnumValue::from_value(default) {
        value.nick().to_owned()
    } else if let Ok(text) = default.get::<Option<String>>() {
        text.unwrap_or_else(|| "unset".to_owned())
    } else {
        default
            .get::<bool>()
            .map(|flag| flag.to_string())
            .or_else(|_| default.get::<u32>().map(|number| number.to_string()))
            .unwrap()
    }
}

#[test]
fn readme_lists_properties_with_their_defaults() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let tables = readme.split("\n| property | default | meaning |\n").skip(1);
    let documented: Vec<Vec<(String, String)>> = tables
        .map(|table| {
            table
                .lines()
                .skip(1)
                .take_while(|line| line.starts_with('|'))
                .map(|line| {
                    let mut cells = line.trim_matches('|').split('|').map(str::trim);
                    let name = cells.next().unwrap().split('`').nth(1).unwrap();
                    (name.to_owned(), cells.next().unwrap().to_owned())
                })
                .collect()
        })
        .collect();
    assert_eq!(documented.len(), 2, "one table for each element");
    for (factory, documented) in ["rsshmsink", "rsshmsrc"].into_iter().zip(documented) {
        let element = make(factory);
        for (name, default) in &documented {
            let property = element.find_property(name);
            let property = property.unwrap_or_else(|| panic!("{factory} has no property {name}"));
            assert_eq!(*default, documented_default(&property), "{factory}: {name}");
        }
        // The properties of the base classes are not listed, unless the element gives them another meaning.
        for property in element.list_properties() {
            assert!(
                property.owner_type() != element.type_() || documented.iter().any(|(name, _)| name == property.name()),
                "{factory}: {} is not in the README",
                property.name()
            );
        }
    }
}

#[test]
fn elements_leak_no_objects() {
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
        let mut writer = run(format!("{producer} ! rsshmsink name={channel} {LOSSLESS}"));
        let mut reader = run(format!("rsshmsrc name={channel} ! queue ! fakesink sync=false"));
        // A leak ends the program, because the tracer warns of it. The exit status is not checked, because the list of
        // leaks in the output says more.
        writer.wait();
        reader.wait();
        for output in [writer.output(), reader.output()] {
            // The tracer prints this line even if there is no leak.
            assert!(output.contains("object-alive.class"), "the tracer does not run");
            let left: Vec<&str> = output
                .lines()
                .filter(|line| line.contains("object-alive, type-name=(string)Gst"))
                .collect();
            assert!(left.is_empty(), "{left:#?}");
        }
    }
}

/// Checks properties: the name, the default as text, and whether the property can be written.
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

#[track_caller]
fn assert_stats(element: &gst::Element, fields: &[&str]) {
    let stats = element.property::<gst::Structure>("channel-stats");
    for field in fields {
        assert!(stats.has_field(*field), "{field}");
    }
}

#[test]
fn sink_properties_have_defaults() {
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
    assert_stats(
        &sink,
        &[
            "frames-published",
            "frames-in-place",
            "frames-copied",
            "copied-foreign",
            "copied-repeated",
            "copied-no-slot",
            "frames-dropped",
            "missed-by-readers",
            "metas-left-out",
            "metas-left-out-by-name",
            "events-left-out",
            "events-left-out-by-name",
            "slots",
            "slots-in-use",
            "bytes",
            "semaphore-timeouts",
            "readers-evicted",
        ],
    );
    assert_eq!(sink.factory().unwrap().rank(), gst::Rank::NONE);
}

#[test]
fn source_properties_have_defaults() {
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
    assert_stats(
        &source,
        &[
            "frames-received",
            "frames-in-place",
            "frames-copied",
            "frames-skipped",
            "frames-missed",
            "events-missed",
            "events-refused",
            "writer-pid",
            "reconnects",
            "metas-refused",
            "metas-unknown",
        ],
    );
    assert_eq!(source.factory().unwrap().rank(), gst::Rank::NONE);
}

#[test]
fn sink_survives_extreme_time_properties() {
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
fn uri_creates_either_element() {
    init();
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

/// Records the signals of a sink about its readers.
#[derive(Default)]
struct ClientSignals {
    connected: Mutex<Vec<u32>>,
    disconnected: Mutex<Vec<u32>>,
    /// Notifications of `num-clients`.
    notified: AtomicU32,
}

impl ClientSignals {
    fn of(sink: &gst::Element) -> Arc<Self> {
        let signals = Arc::new(Self::default());
        for signal in ["client-connected", "client-disconnected"] {
            let signals = Arc::clone(&signals);
            sink.connect(signal, false, move |values| {
                let readers = if signal == "client-connected" {
                    &signals.connected
                } else {
                    &signals.disconnected
                };
                readers.lock().unwrap().push(values[1].get().unwrap());
                None
            });
        }
        let in_handler = Arc::clone(&signals);
        sink.connect_notify(Some("num-clients"), move |_, _| {
            // Relaxed, here and at the loads, because no other data depends on the count.
            in_handler.notified.fetch_add(1, Ordering::Relaxed);
        });
        signals
    }
}

/// The longest time until the sink notices a change of its readers.
const MAX_NOTICE_TIME: Duration = Duration::from_secs(1);

#[test]
fn sink_signals_readers_within_a_second() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let sink = writer.by_factory("rsshmsink");
    let signals = ClientSignals::of(&sink);
    writer.play();
    eventually("the channel exists", || channel.exists());
    for state in [gst::State::Playing, gst::State::Paused] {
        writer.set_state(state).unwrap();
        let clients = || sink.property::<u32>("num-clients");
        let counts = || {
            (
                signals.connected.lock().unwrap().len(),
                signals.disconnected.lock().unwrap().len(),
            )
        };
        let (connected, disconnected) = counts();
        let notified = signals.notified.load(Ordering::Relaxed);

        let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
        let source = reader.by_factory("rsshmsrc");
        eventually("the reader is connected", || source.property::<bool>("connected"));
        wait_until("the sink counts the reader", MAX_NOTICE_TIME, || {
            clients() == 1 && counts().0 == connected + 1
        });
        let mut process = launch(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
        eventually("the sink counts the second reader", || {
            clients() == 2 && counts().0 == connected + 2
        });

        process.kill();
        wait_until("the sink no longer counts the second reader", MAX_NOTICE_TIME, || {
            clients() == 1 && counts().1 == disconnected + 1
        });
        drop(reader);
        wait_until("the sink counts no reader", MAX_NOTICE_TIME, || {
            clients() == 0 && counts().1 == disconnected + 2
        });
        assert_eq!(counts(), (connected + 2, disconnected + 2));
        eventually("each change is notified", || {
            signals.notified.load(Ordering::Relaxed) >= notified + 4
        });
    }
    let (mut came, mut went) = (
        signals.connected.lock().unwrap().clone(),
        signals.disconnected.lock().unwrap().clone(),
    );
    came.sort_unstable();
    went.sort_unstable();
    assert_eq!(came, went);
}

#[test]
fn stopped_sink_counts_no_readers() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let sink = writer.by_factory("rsshmsink");
    let _reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    eventually("the reader is counted", || sink.property::<u32>("num-clients") == 1);
    writer.set_state(gst::State::Null).unwrap();
    assert_eq!(sink.property::<u32>("num-clients"), 0);
}

#[test]
fn source_notifies_connected_changes() {
    let channel = Channel::new();
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink"));
    let source = reader.by_factory("rsshmsrc");
    let changes = Arc::new(Mutex::new(Vec::new()));
    let in_handler = Arc::clone(&changes);
    source.connect_notify(Some("connected"), move |source, _| {
        in_handler.lock().unwrap().push(source.property::<bool>("connected"));
    });
    reader.play();
    // Without a writer, the properties do not change.
    std::thread::sleep(Duration::from_millis(100));
    assert!(changes.lock().unwrap().is_empty());
    for round in 1..=2 {
        let mut writer = live_writer(&channel);
        eventually("connected", || changes.lock().unwrap().len() == round * 2 - 1);
        writer.kill();
        eventually("not connected", || changes.lock().unwrap().len() == round * 2);
    }
    assert_eq!(*changes.lock().unwrap(), [true, false, true, false]);
}

#[test]
fn stopped_source_is_not_connected() {
    let channel = Channel::new();
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    let source = reader.by_factory("rsshmsrc");
    eventually("connected", || source.property::<bool>("connected"));
    reader.set_state(gst::State::Null).unwrap();
    assert!(!source.property::<bool>("connected"));
}

#[test]
fn do_timestamp_stamps_frames_of_slow_stream() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "do-timestamp=true");
    // The timestamps of the frames are 200 ms apart, but a frame comes every 20 ms.
    let mut writer = launch(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,framerate=5/1 ! identity sleep-time=20000 \
         ! rsshmsink name={channel} {LOSSLESS}"
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.frames();
    assert_eq!(frames.len(), 60);
    for frame in &frames {
        let age = frame.at.nseconds() as i64 - frame.pts.unwrap().nseconds() as i64;
        assert!((0..1_000_000_000).contains(&age), "{frame:?}");
    }
    assert!(frames[59].pts.unwrap() - frames[0].pts.unwrap() < 8 * gst::ClockTime::SECOND);
    assert!(frames.is_sorted_by_key(|frame| frame.pts));
}

/// The offsets of the frames that a reader receives if it is blocked during five publishes. `settings` sets the
/// properties of the reader.
fn offsets_after_block(settings: &str) -> Vec<u64> {
    let channel = Channel::new();
    let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} {settings} ! fakesink sync=false"));
    let pad = reader.pipeline.pad("rsshmsrc", "src");
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let in_probe = Arc::clone(&gate);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        drop(in_probe.lock().unwrap());
        gst::PadProbeReturn::Ok
    });
    reader.pipeline.play();
    let writer = SinkHarness::new(&channel, "sync=false wait-for-connection=true");
    writer.set_caps(CAPS);
    writer.pipeline.play();
    for number in 1..=6 {
        writer.push_frame(number);
        eventually("the frame is published", || writer.stat("frames-published") == number);
        if number == 1 {
            eventually("the reader has the frame", || reader.frame_count() == 1);
        }
    }
    drop(closed);
    eventually("the newest frame arrives", || {
        reader.last_frame().is_some_and(|frame| frame.offset == 6)
    });
    reader.offsets()
}

#[test]
fn max_buffers_limits_frames_behind_newest() {
    assert_eq!(offsets_after_block("max-buffers=1"), [1, 6]);
    assert_eq!(offsets_after_block("max-buffers=3"), [1, 4, 5, 6]);
    assert_eq!(offsets_after_block(""), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn source_refuses_seek_and_continues() {
    let channel = Channel::new();
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(3);
    let source = reader.pipeline.by_factory("rsshmsrc");
    assert!(
        source
            .seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::SECOND)
            .is_err()
    );
    let mut query = gst::query::Seeking::new(gst::Format::Time);
    assert!(source.query(&mut query));
    assert!(!query.result().0);
    // The refused seek does not disturb the stream.
    reader.wait_for_frames(3);
}

fn accepts(pad: &gst::Pad, caps: &str) -> bool {
    pad.query_accept_caps(&caps.parse::<gst::Caps>().unwrap())
}

#[test]
fn sink_caps_query_lists_supported_memory() {
    let channel = Channel::new();
    let sink = make("rsshmsink");
    sink.set_property("channel", channel.as_str());
    let pad = sink.static_pad("sink").unwrap();
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
            assert_eq!(
                Vec::from_iter(features),
                ["format:Interlaced", "memory:DMABuf", "memory:SystemMemory"]
            );
        }
        let filter: gst::Caps = "application/x-unheard-of".parse().unwrap();
        assert_eq!(pad.query_caps(Some(&filter)), filter);
        assert!(accepts(
            &pad,
            "video/x-raw,format=NV12,width=16,height=16,framerate=30/1"
        ));
        assert!(accepts(&pad, "application/x-unheard-of"));
        for memory in ["GLMemory", "CUDAMemory", "VAMemory"] {
            let caps = format!("video/x-raw(memory:{memory}),format=NV12,width=16,height=16,framerate=30/1");
            assert!(!accepts(&pad, &caps), "{memory}");
            assert!(pad.query_caps(Some(&caps.parse().unwrap())).is_empty(), "{memory}");
        }
    }
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn sink_refuses_gl_memory_by_name() {
    let channel = Channel::new();
    let writer = SinkHarness::new(&channel, "");
    writer.set_caps("video/x-raw(memory:GLMemory),format=RGBA,width=16,height=16,framerate=30/1");
    writer.pipeline.play();
    writer.push(&gst::Buffer::from_slice([0; 1024]));
    let message = writer
        .pipeline
        .message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let text = match message.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        _ => unreachable!(),
    };
    assert!(
        text.contains("memory:GLMemory") && text.contains("gldownload"),
        "{text}"
    );
    writer.pipeline.wait_error();
}
