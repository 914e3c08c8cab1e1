//! Readers that show frames as a display does, for ten seconds: none comes too late, whoever started first, and what was
//! captured together is shown together.

mod common;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use common::{Channel, Pipeline, Process, Tap, command, launch};
use gst::prelude::*;

const CAPS: &str = "video/x-raw,format=I420,width=64,height=48,framerate=30/1";
const FRAME_TIME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// By so much one side starts before the other.
const APART: Duration = Duration::from_secs(10);
const SHOWN: Duration = Duration::from_secs(10);

const LIVE: &str = "videotestsrc is-live=true";
/// Longer than a frame takes from a source to its sink in any of these pipelines.
const DELAY: &str = "queue min-threshold-time=200000000";

/// Does with the messages of a pipeline what all programs do, until it is dropped.
struct Program {
    stop: Arc<AtomicBool>,
    messages: Option<JoinHandle<()>>,
    /// What it was told of frames that were dropped or skipped.
    told: Arc<Mutex<Vec<String>>>,
}

impl Program {
    fn with(pipeline: &Pipeline) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let messages = std::thread::spawn({
            let (pipeline, stop, told) = (pipeline.0.clone(), Arc::clone(&stop), Arc::clone(&told));
            move || {
                let bus = pipeline.bus().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let message = bus.timed_pop(gst::ClockTime::from_mseconds(50));
                    match message.as_ref().map(|message| message.view()) {
                        Some(gst::MessageView::Latency(_)) => pipeline.recalculate_latency().unwrap(),
                        Some(gst::MessageView::Qos(qos)) => told.lock().unwrap().push(format!("{qos:?}")),
                        Some(gst::MessageView::Error(error)) => panic!("{error:?}"),
                        _ => {}
                    }
                }
            }
        });
        Self {
            stop,
            messages: Some(messages),
            told,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(messages) = self.messages.take() {
            let _ = messages.join();
        }
    }
}

/// A reader whose display drops what comes more than 20 ms too late.
struct Display {
    what: String,
    program: Program,
    reader: Tap,
}

impl Display {
    fn of(channel: &Channel, what: &str) -> Self {
        let reader = Tap::new(&format!(
            "rsshmsrc channel={channel} ! fakesink name=display sync=true qos=true max-lateness=20000000"
        ));
        let program = Program::with(&reader.pipeline);
        reader.pipeline.0.set_state(gst::State::Playing).unwrap();
        Self {
            what: what.to_owned(),
            program,
            reader,
        }
    }

    /// Stops, and says what is wrong, where up to `excused` frames may have been late.
    fn complaints(self, excused: u64) -> Vec<String> {
        let Self { what, program, reader } = self;
        let sink = reader.pipeline.element("display");
        let stats = sink.property::<gst::Structure>("stats");
        let stat = |field: &str| stats.get::<u64>(field).unwrap();
        let latency = Duration::from(reader.pipeline.latency("rsshmsrc").1);
        let told = program.told.lock().unwrap().clone();
        let ages = ages(&reader);
        let summary = format!(
            "{what}: rendered {}, dropped {}, told {told:?}, latency {latency:?}, age {:?}, at most {:?}",
            stat("rendered"),
            stat("dropped"),
            ages[ages.len() / 2],
            ages[ages.len() - 1],
        );
        println!("{summary}");
        let is_fine = stat("dropped") <= excused
            && told.len() as u64 <= excused
            && stat("rendered") + excused >= 280
            // The one in the middle, as this machine may be busy now and then. A display waits longer for some.
            && ages[ages.len() / 2] <= latency + Duration::from_millis(5);
        if is_fine { Vec::new() } else { vec![summary] }
    }
}

/// How old frames were when they came, from the youngest to the oldest, but for the first, which may be from before the
/// reader's time.
fn ages(reader: &Tap) -> Vec<Duration> {
    let mut ages: Vec<Duration> = reader.all()[1..]
        .iter()
        .map(|frame| frame.at.saturating_sub(frame.pts.unwrap()).into())
        .collect();
    ages.sort_unstable();
    ages
}

/// A film of 40 seconds.
struct Film(PathBuf);

impl Film {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rsshm-test-film-{}.ogg", std::process::id()));
        let pipeline = format!(
            "videotestsrc num-buffers=1200 ! {CAPS} ! theoraenc ! oggmux ! filesink location={}",
            path.display()
        );
        let mut encode = command("gst-launch-1.0");
        encode.arg("-q").args(pipeline.split_whitespace());
        Process::start(encode).wait_ok();
        Self(path)
    }

    fn decoded(&self) -> String {
        format!("filesrc location={} ! oggdemux ! theoradec", self.0.display())
    }
}

impl Drop for Film {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Notes for how long this machine stands still: frames that are late then are not the channel's fault.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut stood_still = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    std::thread::sleep(Duration::from_millis(2));
                    let late = before.elapsed().saturating_sub(Duration::from_millis(2));
                    // A display waits for longer than that.
                    if late > Duration::from_millis(30) {
                        stood_still += late;
                    }
                }
                stood_still
            }
        });
        Self { stop, thread }
    }

    /// How many frames of one reader that excuses.
    fn excused(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let stood_still = self.thread.join().unwrap();
        // And as long again to catch up.
        (2 * stood_still).as_nanos().div_ceil(FRAME_TIME.as_nanos()) as u64
    }
}

/// A frame or buffer that came to a sink, or is shown there.
#[derive(Clone, Copy, Debug)]
struct Shown {
    offset: u64,
    pts: gst::ClockTime,
    /// Running time when it did.
    at: gst::ClockTime,
}

type Notes = Arc<Mutex<Vec<Shown>>>;

/// Notes what comes to a sink.
fn note_arrivals(sink: &gst::Element) -> Notes {
    let notes = Notes::default();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let notes = Arc::clone(&notes);
        move |pad, info| {
            note(&notes, &pad.parent_element().unwrap(), info.buffer().unwrap());
            gst::PadProbeReturn::Ok
        }
    });
    notes
}

/// Notes what a sink shows, when it does.
fn note_shown(sink: &gst::Element) -> Notes {
    let notes = Notes::default();
    sink.set_property("signal-handoffs", true);
    sink.connect("handoff", false, {
        let notes = Arc::clone(&notes);
        move |values| {
            let sink = values[0].get::<gst::Element>().unwrap();
            note(&notes, &sink, &values[1].get::<gst::Buffer>().unwrap());
            None
        }
    });
    notes
}

fn note(notes: &Notes, sink: &gst::Element, buffer: &gst::BufferRef) {
    notes.lock().unwrap().push(Shown {
        offset: buffer.offset(),
        pts: buffer.pts().unwrap(),
        at: sink.current_running_time().unwrap(),
    });
}

/// One writer with two pictures of one camera, of which one takes long, and a microphone; one reader that plays all three.
struct Together {
    writer: Pipeline,
    reader: Pipeline,
    program: Program,
    written: Vec<Notes>,
    shown: Vec<Notes>,
    _channels: [Channel; 3],
}

impl Together {
    fn start() -> Self {
        let channels = [Channel::new(), Channel::new(), Channel::new()];
        let [near, far, sound] = &channels;
        let writer = Pipeline::new(&format!(
            "{LIVE} ! {CAPS} ! tee name=camera ! queue ! rsshmsink name={near} \
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
            .map(|channel| note_arrivals(&writer.element(&channel.0)));
        let written = written.collect();
        let display = |channel: &Channel| reader.element(&format!("{channel}-display"));
        let shown = channels.iter().map(|channel| note_shown(&display(channel))).collect();
        let program = Program::with(&reader);
        writer.0.set_state(gst::State::Playing).unwrap();
        reader.0.set_state(gst::State::Playing).unwrap();
        Self {
            writer,
            reader,
            program,
            written,
            shown,
            _channels: channels,
        }
    }

    /// What is wrong, where up to `excused` frames may have been missed.
    fn complaints(&self, excused: u64) -> Vec<String> {
        let base_time = |pipeline: &Pipeline| pipeline.0.base_time().unwrap();
        let mut complaints = Vec::new();
        let told = self.program.told.lock().unwrap();
        if told.len() as u64 > 3 * excused {
            complaints.push(format!("together: told {told:?}"));
        }
        for (which, (written, shown)) in self.written.iter().zip(&self.shown).enumerate() {
            let (written, shown) = (written.lock().unwrap(), shown.lock().unwrap());
            if (shown.len() as u64) + excused < 280 {
                complaints.push(format!("together: only {} of channel {which} were shown", shown.len()));
            }
            // The first may be from before the reader's time.
            let is_wrong = |shown: &&Shown| {
                let captured = written.iter().find(|written| written.offset == shown.offset).unwrap();
                let captured = base_time(&self.writer) + captured.pts;
                captured.absdiff(base_time(&self.reader) + shown.pts) > gst::ClockTime::USECOND
            };
            if let Some(shown) = shown[1..].iter().find(is_wrong) {
                complaints.push(format!(
                    "together: channel {which}: {shown:?} is not when it was captured"
                ));
            }
        }
        // The two pictures of one moment are on both displays within less than a frame, but for moments in which this machine is
        // busy.
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
        if apart.len() < 200 || Duration::from(apart[apart.len() * 95 / 100]) > FRAME_TIME {
            complaints.push(format!("together: the pictures are apart: {apart:?}"));
        }
        complaints
    }
}

#[test]
fn no_frame_comes_too_late() {
    common::init();
    let film = Film::new();
    let live = format!("{LIVE} ! {CAPS}");
    let sources = [
        ("live", live.clone()),
        // With memory of upstream's own: there is no channel before the first frame.
        (
            "live with latency",
            format!("{live} ! {DELAY} ! identity drop-allocation=true"),
        ),
        ("film", film.decoded()),
    ];
    let (mut displays, mut writers) = (Vec::new(), Vec::new());
    // Each with a reader that comes later, and with one that was there before.
    let early = sources.each_ref().map(|(what, source)| {
        let channel = Channel::new();
        writers.push(launch(&format!("{source} ! rsshmsink name={channel}")));
        (channel, format!("{what}, writer first"))
    });
    let late = sources.each_ref().map(|(what, source)| {
        let channel = Channel::new();
        displays.push(Display::of(&channel, &format!("{what}, reader first")));
        (channel, source)
    });
    // A film beside a live source with latency: its frames are as late as its pipeline makes them.
    let beside = ["sharing", "showing"].map(|what| {
        let (film_channel, live_channel) = (Channel::new(), Channel::new());
        let live_sink = match what {
            "sharing" => format!("rsshmsink name={live_channel}"),
            _ => "fakesink sync=true".to_owned(),
        };
        let film = film.decoded();
        writers.push(launch(&format!(
            "{film} ! rsshmsink name={film_channel} {live} ! {DELAY} ! {live_sink}"
        )));
        (film_channel, format!("film beside a live source, {what}"), live_channel)
    });
    std::thread::sleep(APART);
    let watch = Watch::start();
    displays.extend(early.iter().map(|(channel, what)| Display::of(channel, what)));
    displays.extend(beside.iter().map(|(channel, what, _)| Display::of(channel, what)));
    writers.extend(
        late.iter()
            .map(|(channel, source)| launch(&format!("{source} ! rsshmsink name={channel}"))),
    );
    let together = Together::start();
    std::thread::sleep(SHOWN);

    let excused = watch.excused();
    let mut complaints = together.complaints(excused);
    complaints.extend(displays.into_iter().flat_map(|display| display.complaints(excused)));
    assert!(
        complaints.is_empty(),
        "{excused} frames excused, but: {}",
        complaints.join("\n")
    );
    // Before the channels, which they would make anew.
    drop(writers);
}
