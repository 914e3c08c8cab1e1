// SPDX-License-Identifier: MIT OR Apache-2.0

//! A sink on demand: its source is open only while somebody reads.
//!
//! The camera of most tests is an rsshmsrc, whose opening can be seen from outside: the channel `camera` then has a
//! reader.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use nix::sys::signal::Signal;
use rsshm_channel::{Next, Observer, ReadLimits, Reader, ReaderOptions, monotonic_ns};
use rsshm_testkit::{
    Channel, PATIENCE, Process, eventually,
    gst::{CAPS, LOSSLESS, Pipeline, SourceRecorder, command, launch, live_writer},
    process::stat_fields,
    wait_until,
};

/// The longest time from the attachment of a reader to its first frame.
const SECOND: Duration = Duration::from_secs(1);
/// The time in which nothing must happen.
const A_WHILE: Duration = Duration::from_millis(700);

/// Whether the channel's segment says that its source is closed.
fn is_idle(channel: &Channel) -> bool {
    Observer::open(channel)
        .unwrap()
        .is_some_and(|observer| observer.status().is_idle)
}

/// The number of readers of a channel.
fn readers(channel: &Channel) -> usize {
    let Some(observer) = Observer::open(channel).unwrap() else {
        return 0;
    };
    observer.readers().iter().filter(|reader| reader.is_present()).count()
}

/// Waits until the camera and the channel agree that the source is closed, or that it is open.
#[track_caller]
fn wait_closed(camera: &Channel, channel: &Channel, is_closed: bool) {
    eventually(&format!("closed: {is_closed}"), || {
        (readers(camera) == 0) == is_closed && is_idle(channel) == is_closed
    });
}

/// A process that publishes a camera as a channel, on demand. The processes end first, because a writer creates removed
/// files again.
struct Service {
    process: Process,
    _writer: Process,
    camera: Channel,
    channel: Channel,
}

impl Service {
    fn start(properties: &str) -> Self {
        let (camera, channel) = (Channel::new(), Channel::new());
        let writer = live_writer(&camera);
        let process = launch(&format!(
            "rsshmsrc channel={camera} ! queue ! rsshmsink channel={channel} on-demand=true {properties}"
        ));
        Self {
            camera,
            channel,
            process,
            _writer: writer,
        }
    }

    /// Starts a service, and waits until it has closed its camera.
    fn idle(properties: &str) -> Self {
        let service = Self::start(properties);
        service.wait_closed(true);
        service
    }

    #[track_caller]
    fn wait_closed(&self, is_closed: bool) {
        wait_closed(&self.camera, &self.channel, is_closed);
    }

    fn reader(&self) -> Reader {
        Reader::new((*self.channel).clone(), ReaderOptions::default())
    }

    /// Starts a program that reads the channel until it has `frames` frames.
    fn reading(&self, frames: u32) -> Process {
        launch(&format!(
            "rsshmsrc channel={} num-buffers={frames} ! fakesink sync=false",
            self.channel
        ))
    }
}

/// The timestamp of the reader's next frame. The limit is long, because other tests may use the processors.
#[track_caller]
fn next_pts(reader: &mut Reader) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match reader.next(&mut Vec::new(), ReadLimits::default(), Some(left)).unwrap() {
            Next::Frame(frame) => return frame.descriptor.pts,
            Next::TimedOut => panic!("no frame within {PATIENCE:?}"),
            _ => {}
        }
    }
}

/// Checks that a frame with this timestamp was captured after the time `begin`, and not later than now.
#[track_caller]
fn assert_captured_since(begin: u64, pts: u64) {
    // The latency of the pipeline may make the first frame a little older.
    let slack = Duration::from_millis(100).as_nanos() as u64;
    let now = monotonic_ns();
    assert!(
        (begin - slack..=now).contains(&pts),
        "{pts} is not from {begin} to {now}"
    );
}

/// Attaches the reader, and waits until nothing has come for a while. The stream must not end.
#[track_caller]
fn wait_in_vain(reader: &mut Reader) {
    loop {
        match reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(300))) {
            Ok(Next::TimedOut) => return,
            Ok(Next::EndOfStream) => panic!("the stream has ended"),
            Ok(Next::Frame(frame)) => panic!(
                "a frame has come: {}, {} ns old",
                frame.seq,
                monotonic_ns().abs_diff(frame.descriptor.pts)
            ),
            _ => {}
        }
    }
}

#[test]
fn source_is_open_only_while_somebody_reads() {
    let mut service = Service::idle("idle-timeout=1");
    for kill in [false, true] {
        let mut first = service.reading(100_000);
        service.wait_closed(false);
        let mut second = service.reading(100_000);
        eventually("two readers", || readers(&service.channel) == 2);
        first.kill();
        std::thread::sleep(SECOND + A_WHILE);
        assert_eq!(readers(&service.camera), 1, "the second reader is still there");
        let left = Instant::now();
        if kill {
            second.kill();
        } else {
            second.interrupt();
        }
        service.wait_closed(true);
        // A killed reader is noticed within a quarter of a second.
        assert!(
            left.elapsed() > SECOND - Duration::from_millis(100),
            "{:?}",
            left.elapsed()
        );
    }
    service.process.interrupt();
    service.channel.assert_removed();
}

#[test]
fn reader_gets_new_frames_within_a_second() {
    for properties in ["", "lossless=true", "wait-for-connection=true", "sync=false"] {
        let service = Service::idle(&format!("idle-timeout=0 {properties}"));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            // No frame of the time before the reader has attached is left. The camera itself keeps its newest frame.
            let camera = Observer::open(&service.camera).unwrap().unwrap();
            let (_, newest) = camera.describe_newest().expect("the camera has frames");
            let mut reader = service.reader();
            let pts = next_pts(&mut reader);
            let age = newest.pts.saturating_sub(pts);
            assert!(
                age < 1_000_000,
                "{properties}: {age} ns before the camera's newest frame"
            );
            let later = next_pts(&mut reader);
            assert!(later > pts, "{properties}");
            drop(reader);
            service.wait_closed(true);
        }
    }
}

#[test]
fn twenty_readers_in_a_row_get_frames() {
    let service = Service::idle("idle-timeout=0");
    for round in 0..20_u64 {
        let mut reader = service.reader();
        next_pts(&mut reader);
        drop(reader);
        // The next reader comes before, while and after the source is closed.
        std::thread::sleep(Duration::from_millis(round * 4));
    }
    service.wait_closed(true);
}

#[test]
fn killed_programs_in_a_row_get_frames() {
    let mut service = Service::idle("idle-timeout=0");
    for _ in 0..3 {
        service.reading(2).wait_ok();
        let mut killed = service.reading(100_000);
        service.wait_closed(false);
        killed.kill();
    }
    service.wait_closed(true);
    assert!(service.process.is_running());
}

#[test]
fn observers_do_not_open_the_source() {
    let service = Service::idle("idle-timeout=0");
    let observing = launch(&format!(
        "rsshmsrc channel={} read-only=true ! fakesink",
        service.channel
    ));
    std::thread::sleep(A_WHILE);
    assert!(is_idle(&service.channel) && readers(&service.camera) == 0);
    // An observer sees the frames that others read.
    let recorder = SourceRecorder::playing(&format!(
        "rsshmsrc channel={} read-only=true ! fakesink",
        service.channel
    ));
    let _reader = service.reading(100_000);
    recorder.wait_for_frames(2);
    drop(observing);
}

#[test]
fn removed_files_are_restored_while_the_source_is_closed() {
    let service = Service::idle("idle-timeout=0");
    service.channel.remove_files();
    eventually("the files are back", || service.channel.exists());
    eventually("the channel is still idle", || is_idle(&service.channel));
    next_pts(&mut service.reader());
}

/// Ctrl-C with `-e` sends EOS to the pipeline, and waits until it comes out at the sink.
#[test]
fn eos_ends_a_pipeline_whose_source_is_closed() {
    for is_closed in [true, false] {
        let (camera, channel) = (Channel::new(), Channel::new());
        let _writer = live_writer(&camera);
        let mut command: Command = command("gst-launch-1.0");
        let timeout = if is_closed { 0 } else { 1000 };
        let pipeline = format!(
            "-q -e rsshmsrc channel={camera} ! rsshmsink channel={channel} on-demand=true idle-timeout={timeout}"
        );
        command.args(pipeline.split_whitespace());
        let mut process = Process::start(command);
        if is_closed {
            wait_closed(&camera, &channel, true);
        } else {
            eventually("a frame", || readers(&camera) == 1 && channel.exists());
        }
        process.signal(Signal::SIGINT);
        process.wait_ok();
        channel.assert_removed();
    }
}

/// A pipeline in this process, whose camera is a test source.
struct Application {
    pipeline: Pipeline,
    channel: Channel,
}

impl Application {
    fn start(properties: &str) -> Self {
        let channel = Channel::new();
        let pipeline = Pipeline::playing(&format!(
            "videotestsrc name=camera is-live=true ! {CAPS} ! queue ! rsshmsink name=sink channel={channel} \
             on-demand=true idle-timeout=0 {properties}"
        ));
        Self { pipeline, channel }
    }

    fn camera(&self) -> gst::State {
        self.pipeline.element("camera").current_state()
    }

    #[track_caller]
    fn wait_camera(&self, state: gst::State) {
        eventually(&format!("the camera is in {state:?}"), || self.camera() == state);
    }

    #[track_caller]
    fn wait_closed(&self) {
        eventually("closed", || is_idle(&self.channel));
        assert_eq!(self.camera(), gst::State::Null);
    }

    fn reader(&self) -> Reader {
        Reader::new((*self.channel).clone(), ReaderOptions::default())
    }

    fn set(&self, state: gst::State) {
        self.pipeline.set_state(state).unwrap();
    }

    /// The next message about the source.
    #[track_caller]
    fn message(&self) -> bool {
        loop {
            let message = self.pipeline.message(&[gst::MessageType::Element]);
            let structure = message.structure().unwrap();
            if structure.name() == "rsshm-on-demand" {
                assert_eq!(structure.get::<&str>("channel"), Ok(self.channel.as_str()));
                return structure.get("active").unwrap();
            }
        }
    }
}

#[test]
fn application_receives_messages() {
    let application = Application::start("");
    assert!(!application.message());
    let mut reader = application.reader();
    next_pts(&mut reader);
    assert!(application.message());
    drop(reader);
    assert!(!application.message());
}

#[test]
fn running_time_goes_on_while_the_source_is_closed() {
    let application = Application::start("");
    application.wait_closed();
    std::thread::sleep(A_WHILE);
    let attached_at = monotonic_ns();
    let mut reader = application.reader();
    for _ in 0..3 {
        // If the source began again at running time 0, the frame would be as old as the pipeline.
        assert_captured_since(attached_at, next_pts(&mut reader));
    }
    // The frames of a live source still leave at once.
    let stats = Observer::open(&application.channel).unwrap().unwrap().status();
    assert!(
        stats.latency_ns >= Duration::from_millis(5).as_nanos() as u64,
        "{stats:?}"
    );
}

#[test]
fn pipeline_pauses_and_plays_with_a_closed_source() {
    let application = Application::start("");
    application.wait_closed();
    application.set(gst::State::Paused);
    let mut reader = application.reader();
    std::thread::sleep(A_WHILE);
    assert_eq!(
        application.camera(),
        gst::State::Null,
        "a paused pipeline opens nothing"
    );
    let played_at = monotonic_ns();
    application.set(gst::State::Playing);
    // Running time has not gone on in PAUSED, so the source needs the new base time.
    assert_captured_since(played_at, next_pts(&mut reader));
    // The source pauses with the pipeline while it is open.
    application.set(gst::State::Paused);
    application.wait_camera(gst::State::Paused);
    drop(reader);
    std::thread::sleep(A_WHILE);
    assert_eq!(
        application.camera(),
        gst::State::Paused,
        "a paused pipeline closes nothing"
    );
    application.set(gst::State::Playing);
    application.wait_closed();
}

#[test]
fn pipeline_stops_and_starts_with_a_closed_source() {
    for state in [gst::State::Ready, gst::State::Null] {
        let application = Application::start("");
        for _ in 0..3 {
            application.wait_closed();
            application.set(state);
            application.set(gst::State::Playing);
            let mut reader = application.reader();
            next_pts(&mut reader);
        }
        application.set(gst::State::Null);
        assert!(!application.pipeline.element("camera").is_locked_state());
        application.channel.assert_removed();
    }
}

#[test]
fn sink_that_stops_alone_leaves_an_open_source() {
    let application = Application::start("");
    application.wait_closed();
    application
        .pipeline
        .element("sink")
        .set_state(gst::State::Null)
        .unwrap();
    application.wait_camera(gst::State::Playing);
}

#[test]
fn eos_arrives_while_the_source_is_being_closed() {
    let application = Application::start("");
    let sent = Arc::new(AtomicBool::new(false));
    let (pipeline, in_probe) = (application.pipeline.downgrade(), Arc::clone(&sent));
    // The sink flushes the elements behind the source while it closes the source.
    let pad = application.pipeline.pad("queue", "sink");
    pad.add_probe(gst::PadProbeType::EVENT_FLUSH, move |_, info| {
        if info.event().unwrap().type_() == gst::EventType::FlushStart && !in_probe.swap(true, Ordering::Relaxed) {
            pipeline.upgrade().unwrap().send_event(gst::event::Eos::new());
        }
        gst::PadProbeReturn::Ok
    });
    application.pipeline.wait_eos();
    assert!(sent.load(Ordering::Relaxed));
}

/// State changes of the application at any moment of those of the sink end, and leave the source as the pipeline is.
#[test]
fn state_changes_at_any_moment_end() {
    let application = Application::start("");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut reader = application.reader();
                let _ = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(30)));
                drop(reader);
                std::thread::sleep(Duration::from_millis(7));
            }
        });
        let began = Instant::now();
        for round in 0_u64.. {
            for state in [
                gst::State::Paused,
                gst::State::Playing,
                gst::State::Ready,
                gst::State::Playing,
            ] {
                application.set(state);
                std::thread::sleep(Duration::from_millis(round * 7 % 23));
            }
            if began.elapsed() > 3 * SECOND {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let mut reader = application.reader();
    next_pts(&mut reader);
    application.wait_camera(gst::State::Playing);
    drop(reader);
    application.wait_closed();
    application.set(gst::State::Null);
}

#[test]
fn sources_that_cannot_be_closed_stay_open() {
    let channel = Channel::new();
    for (pipeline, reason) in [
        (
            format!("videotestsrc name=camera ! {CAPS} ! rsshmsink channel={channel} on-demand=true idle-timeout=0"),
            "the stream is not live",
        ),
        (
            format!(
                "videotestsrc name=camera is-live=true ! {CAPS} ! tee name=t ! queue ! rsshmsink channel={channel} \
                 on-demand=true idle-timeout=0 t. ! queue ! fakesink name=other async=false"
            ),
            "camera feeds other too",
        ),
    ] {
        let pipeline = Pipeline::playing(&pipeline);
        let warning = pipeline.message(&[gst::MessageType::Warning]);
        let gst::MessageView::Warning(warning) = warning.view() else {
            unreachable!()
        };
        let text = warning.error().to_string();
        assert!(
            text.contains(reason) && text.contains("on-demand has no effect"),
            "{text}"
        );
        assert_eq!(pipeline.element("camera").current_state(), gst::State::Playing);
        assert!(!is_idle(&channel));
    }
}

#[test]
fn source_that_fails_to_open_posts_its_error() {
    let (camera, channel) = (Channel::new(), Channel::new());
    let writer = live_writer(&camera);
    let pipeline = Pipeline::playing(&format!(
        "rsshmsrc name=source channel={camera} ! rsshmsink channel={channel} on-demand=true idle-timeout=0"
    ));
    wait_closed(&camera, &channel, true);
    // A name that no channel can have makes the start fail, as an unplugged device does.
    pipeline.element("source").set_property("channel", "a/b");
    let mut reader = Reader::new((*channel).clone(), ReaderOptions::default());
    wait_in_vain(&mut reader);
    let text = pipeline.wait_error().to_string();
    assert!(text.contains("a/b"), "{text}");
    eventually("idle again", || is_idle(&channel));
    // Another reader is a reason to try again.
    pipeline.element("source").set_property("channel", camera.as_str());
    drop(reader);
    let mut reader = Reader::new((*channel).clone(), ReaderOptions::default());
    next_pts(&mut reader);
    drop(writer);
}

/// The first buffer of a source can fail although its start has succeeded, as with a camera that another program uses.
#[test]
fn source_that_fails_before_its_first_frame_is_tried_again() {
    let application = Application::start("");
    assert!(!application.message());
    let fails = AtomicBool::new(true);
    let pad = application.pipeline.pad("videotestsrc", "src");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if fails.swap(false, Ordering::Relaxed) {
            info.flow_res = Err(gst::FlowError::Error);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    let mut first = application.reader();
    wait_in_vain(&mut first);
    let (mut errors, mut activity) = (0, Vec::new());
    while errors == 0 || activity.len() < 2 {
        let types = [gst::MessageType::Element, gst::MessageType::Error];
        let message = application.pipeline.message(&types);
        match message
            .structure()
            .and_then(|structure| structure.get::<bool>("active").ok())
        {
            Some(is_active) => activity.push(is_active),
            None => errors += 1,
        }
    }
    assert_eq!(activity, [true, false], "opened and closed again");
    eventually("idle again", || is_idle(&application.channel));
    // The stream has not ended for the reader.
    wait_in_vain(&mut first);
    // Another reader is a reason to try again. The source fails only once.
    let mut second = application.reader();
    next_pts(&mut second);
    next_pts(&mut first);
    assert!(application.message());
    drop((first, second));
    assert!(!application.message());
}

#[test]
fn source_without_a_first_frame_is_closed_again() {
    let application = Application::start("");
    application.wait_closed();
    // The source starts, and its first buffer waits.
    let pad = application.pipeline.pad("videotestsrc", "src");
    let block = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER;
    let probe = pad.add_probe(block, |_, _| gst::PadProbeReturn::Ok).unwrap();
    assert!(!application.message());
    let mut reader = application.reader();
    wait_in_vain(&mut reader);
    assert!(application.message());
    application.wait_camera(gst::State::Playing);
    drop(reader);
    application.wait_closed();
    pad.remove_probe(probe);
    next_pts(&mut application.reader());
}

/// EOS that waits behind the frames of a full queue is not lost when the source is closed and the queue is flushed.
#[test]
fn eos_in_a_full_queue_arrives() {
    let application = Application::start(LOSSLESS);
    application.wait_closed();
    let mut reader = application.reader();
    next_pts(&mut reader);
    let queue = application.pipeline.by_factory("queue");
    queue.set_property("max-size-buffers", 3_u32);
    eventually("the queue is full", || {
        queue.property::<u32>("current-level-buffers") >= 3
    });
    let pipeline = application.pipeline.clone();
    // The event waits until the source can push it.
    let sending = std::thread::spawn(move || pipeline.send_event(gst::event::Eos::new()));
    std::thread::sleep(Duration::from_millis(100));
    drop(reader);
    application.pipeline.wait_eos();
    assert!(sending.join().unwrap());
}

/// The context switches and the processor time of all threads of a process: voluntary switches, and clock ticks.
fn effort(process: &Process) -> (u64, u64) {
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let (mut switches, mut ticks) = (0, 0);
    for thread in std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap() {
        let path = thread.unwrap().path();
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += number(line.unwrap());
        let fields = stat_fields(&path).unwrap();
        ticks += number(&fields[11]) + number(&fields[12]);
    }
    (switches, ticks)
}

#[test]
fn idle_sink_uses_no_processor_time() {
    let seconds = std::env::var("RSSHM_TEST_SECONDS").map_or(4, |text| text.parse().unwrap());
    let service = Service::idle("idle-timeout=0");
    std::thread::sleep(SECOND);
    let before = effort(&service.process);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = effort(&service.process);
    let (switches, ticks) = (after.0 - before.0, after.1 - before.1);
    println!("{seconds} s without a reader: {switches} voluntary context switches, {ticks} ticks");
    assert!(
        switches <= 2 * seconds && ticks <= seconds.div_ceil(20),
        "{switches} {ticks}"
    );
}

#[test]
fn lossless_sink_closes_its_source_while_a_queue_is_full() {
    let service = Service::idle(&format!("idle-timeout=0 {LOSSLESS}"));
    let mut reader = service.reader();
    next_pts(&mut reader);
    // The reader takes no more frames, so the sink waits, and the queue fills.
    std::thread::sleep(A_WHILE);
    drop(reader);
    wait_until("closed", PATIENCE, || {
        is_idle(&service.channel) && readers(&service.camera) == 0
    });
}
