// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers that display frames for ten seconds. No frame is late, whichever side started first. Frames that were
//! captured together are displayed together.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel,
    gst::{Pipeline, SourceRecorder, init, launch, run_to_end},
};

const I420_CAPS: &str = "video/x-raw,format=I420,width=64,height=48,framerate=30/1";
const FRAME_TIME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// How much earlier one side starts than the other.
const HEAD_START: Duration = Duration::from_secs(10);
/// How long frames are displayed while both sides run.
const DISPLAY_TIME: Duration = Duration::from_secs(10);
/// The number of frames that each display has to render, of the 300 frames in `DISPLAY_TIME`.
const MIN_FRAMES: u64 = 280;

const LIVE: &str = "videotestsrc is-live=true";
/// A delay that is longer than the time from a source to its sink in any of these pipelines.
const DELAY: &str = "queue min-threshold-time=200000000";

/// A thread that handles the messages of a pipeline as an application does, until the value is dropped.
struct MessageHandler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The QoS messages about frames that were dropped or skipped.
    skipped: Arc<Mutex<Vec<String>>>,
}

impl MessageHandler {
    fn with(pipeline: &Pipeline) -> Self {
        let (stop, skipped) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = std::thread::spawn({
            let pipeline = pipeline.deref().clone();
            let (stop, skipped) = (Arc::clone(&stop), Arc::clone(&skipped));
            move || {
                let bus = pipeline.bus().unwrap();
                // Relaxed, here and below, because no other data depends on the flag.
                while !stop.load(Ordering::Relaxed) {
                    let message = bus.timed_pop(gst::ClockTime::from_mseconds(50));
                    match message.as_ref().map(|message| message.view()) {
                        Some(gst::MessageView::Latency(_)) => pipeline.recalculate_latency().unwrap(),
                        Some(gst::MessageView::Qos(qos)) => skipped.lock().unwrap().push(format!("{qos:?}")),
                        Some(gst::MessageView::Error(error)) => panic!("{error:?}"),
                        _ => {}
                    }
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
            skipped,
        }
    }
}

impl Drop for MessageHandler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A reader whose display drops frames that are more than 20 ms late.
struct DisplayReader {
    name: String,
    handler: MessageHandler,
    reader: SourceRecorder,
}

impl DisplayReader {
    fn of(channel: &Channel, name: &str) -> Self {
        let reader = SourceRecorder::new(&format!(
            "rsshmsrc channel={channel} ! fakesink name=display sync=true qos=true max-lateness=20000000"
        ));
        let handler = MessageHandler::with(&reader.pipeline);
        reader.pipeline.play();
        Self {
            name: name.to_owned(),
            handler,
            reader,
        }
    }

    /// Returns the complaints. Up to `excused` late frames cause no complaint.
    fn complaints(self, excused: u64) -> Vec<String> {
        let Self { name, handler, reader } = self;
        let sink = reader.pipeline.element("display");
        let stats = sink.property::<gst::Structure>("stats");
        let stat = |field: &str| stats.get::<u64>(field).unwrap();
        let latency = Duration::from(reader.pipeline.source_latency("rsshmsrc").1);
        let skipped = handler.skipped.lock().unwrap().clone();
        let ages = ages(&reader);
        let summary = format!(
            "{name}: rendered {}, dropped {}, skipped {skipped:?}, latency {latency:?}, age {:?}, at most {:?}",
            stat("rendered"),
            stat("dropped"),
            ages[ages.len() / 2],
            ages[ages.len() - 1],
        );
        println!("{summary}");
        let is_fine = stat("dropped") <= excused
            && skipped.len() as u64 <= excused
            && stat("rendered") + excused >= MIN_FRAMES
            // The median is checked, because a busy machine delays single frames.
            && ages[ages.len() / 2] <= latency + Duration::from_millis(5);
        if is_fine { Vec::new() } else { vec![summary] }
    }
}

/// The ages of the frames when they left the source, sorted.
///
/// The first frame is not counted, because it may have been captured before the base time of the reader.
fn ages(reader: &SourceRecorder) -> Vec<Duration> {
    let mut ages: Vec<Duration> = reader.frames()[1..]
        .iter()
        .map(|frame| frame.at.saturating_sub(frame.pts.unwrap()).into())
        .collect();
    ages.sort_unstable();
    ages
}

/// A file with a film of 40 seconds. Dropping the value removes the file.
struct Film(PathBuf);

impl Film {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rsshm-test-film-{}.ogg", std::process::id()));
        run_to_end(&format!(
            "videotestsrc num-buffers=1200 ! {I420_CAPS} ! theoraenc ! oggmux ! filesink location={}",
            path.display()
        ));
        Self(path)
    }

    /// The elements that decode the film.
    fn decoded(&self) -> String {
        format!("filesrc location={} ! oggdemux ! theoradec", self.0.display())
    }
}

impl Drop for Film {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Measures how long the machine did not run this process. Frames that are late for this reason are excused.
struct StallMeter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl StallMeter {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut stalled = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    std::thread::sleep(Duration::from_millis(2));
                    let late = before.elapsed().saturating_sub(Duration::from_millis(2));
                    // Shorter stalls are not counted, because a display tolerates them.
                    if late > Duration::from_millis(30) {
                        stalled += late;
                    }
                }
                stalled
            }
        });
        Self { stop, thread }
    }

    /// The number of frames of one reader that are excused.
    fn excused(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let stalled = self.thread.join().unwrap();
        // Twice the stalled time is excused, because a reader needs time to catch up after a stall.
        (2 * stalled).as_nanos().div_ceil(FRAME_TIME.as_nanos()) as u64
    }
}

/// A buffer that arrived at a sink, or was displayed there.
#[derive(Clone, Copy, Debug)]
struct TimedBuffer {
    offset: u64,
    pts: gst::ClockTime,
    /// The running time at which it arrived or was displayed.
    at: gst::ClockTime,
}

type Recording = Arc<Mutex<Vec<TimedBuffer>>>;

/// Records the buffers that arrive at a sink.
fn record_arrivals(sink: &gst::Element) -> Recording {
    let recording = Recording::default();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let recording = Arc::clone(&recording);
        move |pad, info| {
            record(&recording, &pad.parent_element().unwrap(), info.buffer().unwrap());
            gst::PadProbeReturn::Ok
        }
    });
    recording
}

/// Records the buffers that a sink displays.
fn record_shown(sink: &gst::Element) -> Recording {
    let recording = Recording::default();
    sink.set_property("signal-handoffs", true);
    sink.connect("handoff", false, {
        let recording = Arc::clone(&recording);
        move |values| {
            let sink = values[0].get::<gst::Element>().unwrap();
            record(&recording, &sink, &values[1].get::<gst::Buffer>().unwrap());
            None
        }
    });
    recording
}

fn record(recording: &Recording, sink: &gst::Element, buffer: &gst::BufferRef) {
    recording.lock().unwrap().push(TimedBuffer {
        offset: buffer.offset(),
        pts: buffer.pts().unwrap(),
        at: sink.current_running_time().unwrap(),
    });
}

/// A writer and a reader. The writer sends the frames of a camera to two channels, one of them delayed, and the sound
/// of a microphone to a third channel. The reader plays all three channels.
struct JointDisplay {
    writer: Pipeline,
    reader: Pipeline,
    handler: MessageHandler,
    written: Vec<Recording>,
    shown: Vec<Recording>,
    _channels: [Channel; 3],
}

impl JointDisplay {
    fn start() -> Self {
        let channels = [Channel::new(), Channel::new(), Channel::new()];
        let [near, far, sound] = &channels;
        let writer = Pipeline::new(&format!(
            "{LIVE} ! {I420_CAPS} ! tee name=camera ! queue ! rsshmsink name={near} \
             camera. ! {DELAY} ! rsshmsink name={far} \
             audiotestsrc is-live=true ! audio/x-raw,format=S16LE,rate=48000,channels=1 ! rsshmsink name={sound}"
        ));
        let reader = Pipeline::new(&format!(
            "rsshmsrc channel={near} ! queue ! fakesink name={near}-display sync=true \
             rsshmsrc channel={far} ! queue ! fakesink name={far}-display sync=true \
             rsshmsrc channel={sound} ! queue ! fakesink name={sound}-display sync=true"
        ));
        let written = channels
            .iter()
            .map(|channel| record_arrivals(&writer.element(channel.as_str())));
        let written = written.collect();
        let display = |channel: &Channel| reader.element(&format!("{channel}-display"));
        let shown = channels.iter().map(|channel| record_shown(&display(channel))).collect();
        let handler = MessageHandler::with(&reader);
        writer.play();
        reader.play();
        Self {
            writer,
            reader,
            handler,
            written,
            shown,
            _channels: channels,
        }
    }

    /// Returns the complaints. Up to `excused` late frames of a channel cause no complaint.
    fn complaints(&self, excused: u64) -> Vec<String> {
        let base_time = |pipeline: &Pipeline| pipeline.base_time().unwrap();
        let mut complaints = Vec::new();
        let skipped = self.handler.skipped.lock().unwrap();
        if skipped.len() as u64 > 3 * excused {
            complaints.push(format!("together: skipped {skipped:?}"));
        }
        for (which, (written, shown)) in self.written.iter().zip(&self.shown).enumerate() {
            let (written, shown) = (written.lock().unwrap(), shown.lock().unwrap());
            if (shown.len() as u64) + excused < MIN_FRAMES {
                complaints.push(format!("together: only {} of channel {which} were shown", shown.len()));
            }
            // The first frame may have been captured before the base time of the reader.
            let is_wrong = |shown: &&TimedBuffer| {
                let captured = written.iter().find(|written| written.offset == shown.offset).unwrap();
                let captured = base_time(&self.writer) + captured.pts;
                captured.absdiff(base_time(&self.reader) + shown.pts) > gst::ClockTime::USECOND
            };
            if let Some(shown) = shown[1..].iter().find(is_wrong) {
                complaints.push(format!(
                    "together: channel {which}: {shown:?} does not have its time of capture"
                ));
            }
        }
        complaints.extend(self.pictures_apart());
        complaints
    }

    /// Checks pairs of pictures that were captured together. The displays must show the two pictures of a pair at most
    /// one frame time apart. Returns the complaint.
    fn pictures_apart(&self) -> Option<String> {
        let (near, far) = (self.shown[0].lock().unwrap(), self.shown[1].lock().unwrap());
        let pairs = near
            .iter()
            .filter_map(|near| far.iter().find(|far| far.offset == near.offset).map(|far| (near, far)));
        let mut apart: Vec<_> = pairs.map(|(near, far)| near.at.absdiff(far.at)).collect();
        apart.sort_unstable();
        println!(
            "together: {} pairs, apart {}, at most {}",
            apart.len(),
            apart[apart.len() / 2],
            apart[apart.len() - 1]
        );
        // One pair in twenty may be further apart, because the machine may be busy.
        let is_wrong = apart.len() < 200 || Duration::from(apart[apart.len() * 95 / 100]) > FRAME_TIME;
        is_wrong.then(|| format!("together: the pictures are apart: {apart:?}"))
    }
}

#[test]
fn displays_show_all_frames_on_time() {
    init();
    let film = Film::new();
    let live = format!("{LIVE} ! {I420_CAPS}");
    let sources = [
        ("live", live.clone()),
        // The frames are in memory of the upstream elements, so there is no channel before the first frame.
        (
            "live with latency",
            format!("{live} ! {DELAY} ! identity drop-allocation=true"),
        ),
        ("film", film.decoded()),
    ];
    let (mut displays, mut writers) = (Vec::new(), Vec::new());
    // Each source has one channel whose reader starts later, and one whose reader starts first.
    let early = sources.each_ref().map(|(what, source)| {
        let channel = Channel::new();
        writers.push(launch(&format!("{source} ! rsshmsink name={channel}")));
        (channel, format!("{what}, writer first"))
    });
    let late = sources.each_ref().map(|(what, source)| {
        let channel = Channel::new();
        displays.push(DisplayReader::of(&channel, &format!("{what}, reader first")));
        (channel, source)
    });
    // Each film is in one pipeline with a live source, and the latency of that source delays the film.
    let beside = ["sharing", "showing"].map(|sink| {
        let (film_channel, live_channel) = (Channel::new(), Channel::new());
        let live_sink = match sink {
            "sharing" => format!("rsshmsink name={live_channel}"),
            _ => "fakesink sync=true".to_owned(),
        };
        let film = film.decoded();
        writers.push(launch(&format!(
            "{film} ! rsshmsink name={film_channel} {live} ! {DELAY} ! {live_sink}"
        )));
        (film_channel, format!("film beside a live source, {sink}"), live_channel)
    });
    std::thread::sleep(HEAD_START);
    let stalls = StallMeter::start();
    displays.extend(early.iter().map(|(channel, what)| DisplayReader::of(channel, what)));
    displays.extend(beside.iter().map(|(channel, what, _)| DisplayReader::of(channel, what)));
    writers.extend(
        late.iter()
            .map(|(channel, source)| launch(&format!("{source} ! rsshmsink name={channel}"))),
    );
    let together = JointDisplay::start();
    std::thread::sleep(DISPLAY_TIME);

    let excused = stalls.excused();
    let mut complaints = together.complaints(excused);
    complaints.extend(displays.into_iter().flat_map(|display| display.complaints(excused)));
    assert!(
        complaints.is_empty(),
        "{excused} frames excused, but: {}",
        complaints.join("\n")
    );
    // The writers are dropped before the channels are removed, because a running writer would restore their files.
    drop(writers);
}
