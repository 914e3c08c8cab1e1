// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parts: the processes of a case. A part runs one pipeline and reports what passed its pads.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    join, made,
    record::{PadRecord, Recorder},
    registry, settings,
    stream::Length,
};
use crate::{
    Process,
    gst::role_command,
    role::{self, say},
};

/// The role of a part.
pub const ROLE: &str = "compatibility/part";

/// The line that a part prints when its pipeline plays.
const PLAYING: &str = "PLAYING";
/// The line that a part prints when its first buffer passes.
const FIRST_BUFFER: &str = "FIRST BUFFER";
/// The beginning of the line with the report.
const REPORT: &str = "REPORT ";

/// The error of a process that does not report in time.
pub const HANGS: &str = "the process hangs";

/// How long the last buffers take to arrive after the writer has ended.
const LAST_BUFFERS_TIME: Duration = Duration::from_secs(10);

/// The name of the element whose pad is the place of the channel.
pub const TAP: &str = "tap";
/// The name of the element whose source pads are recorded.
pub const LAST: &str = "last";

/// The assignment of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The pipeline, with the elements [`TAP`] and (optionally) [`LAST`].
    pub pipeline: String,
    /// The length of the made streams in the pipeline.
    pub length: Length,
    /// Whether the pads after [`LAST`] are decoded before they are recorded.
    pub decodes: bool,
    /// Without a channel: the second at which the elements after [`TAP`] join the stream.
    pub joins_at: Option<f64>,
    /// The part ends after this time, in seconds, if its stream has not ended.
    pub limit: f64,
}

/// What a part has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub tap: PadRecord,
    pub pads: Vec<PadRecord>,
    /// Whether the stream ended.
    pub ended: bool,
    /// The first error, with the element that posted it.
    pub error: Option<String>,
    /// The first message that a library logged as critical.
    pub critical: Option<String>,
}

impl Report {
    /// What went wrong in the part, if anything did.
    pub fn failure(&self) -> Option<String> {
        let unfinished = (!self.ended).then(|| "the stream does not end".to_owned());
        self.error.clone().or(unfinished)
    }

    /// The number of pads that carried buffers.
    pub fn active_pads(&self) -> usize {
        self.pads.iter().filter(|pad| !pad.buffers.is_empty()).count()
    }
}

/// A process that plays a role of this module.
pub struct Running {
    process: Process,
    /// When the process is asked to report what it has.
    ends_at: Instant,
    is_asked: bool,
    /// When the process is killed.
    deadline: Instant,
}

impl Running {
    pub fn start(part: &Part) -> Self {
        Self::start_role(ROLE, &serde_json::to_string(part).unwrap_or_default(), part.limit)
    }

    /// Starts a role. The process is killed some seconds after `limit`.
    pub fn start_role(role: &str, argument: &str, limit: f64) -> Self {
        let mut command = role_command(role, &[argument]);
        // Elements of other projects log criticals and warnings. The report names them; they do not end the process.
        command.env_remove("G_DEBUG").stderr(Stdio::null());
        // Some muxers write files to the current directory.
        let directory = std::env::temp_dir().join("rsshm-compatibility");
        if std::fs::create_dir_all(&directory).is_ok() {
            command.current_dir(directory);
        }
        Self {
            process: Process::converse(command),
            is_asked: false,
            ends_at: Instant::now() + Duration::from_secs_f64(limit + 5.0),
            deadline: Instant::now() + Duration::from_secs_f64(limit + 10.0),
        }
    }

    pub fn wait_playing(&mut self) -> Result<(), String> {
        self.wait_line(PLAYING).map(|_| ())
    }

    pub fn wait_first_buffer(&mut self) -> Result<(), String> {
        self.wait_line(FIRST_BUFFER).map(|_| ())
    }

    /// Waits for the report of a process whose stream should have ended by now.
    pub fn report_soon(mut self) -> Result<Report, String> {
        self.ends_at = Instant::now() + LAST_BUFFERS_TIME;
        self.report()
    }

    /// Waits for the report.
    pub fn report<T: DeserializeOwned>(mut self) -> Result<T, String> {
        let line = self.wait_line(REPORT)?;
        serde_json::from_str(&line).map_err(|error| error.to_string())
    }

    /// Waits for a line with this beginning, and returns the rest of the line.
    fn wait_line(&mut self, beginning: &str) -> Result<String, String> {
        loop {
            let is_running = self.process.is_running();
            while let Some(line) = self.process.try_receive() {
                if let Some(rest) = line.strip_prefix(beginning) {
                    return Ok(rest.to_owned());
                }
            }
            if !is_running {
                return Err(format!("the process ends: {}", self.process.wait()));
            }
            if Instant::now() > self.ends_at && !std::mem::replace(&mut self.is_asked, true) {
                self.process.send("END");
            }
            if Instant::now() > self.deadline {
                return Err(HANGS.to_owned());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs a part in another process.
pub fn run(part: &Part) -> Result<Report, String> {
    Running::start(part).report()
}

/// Prints a report.
pub fn say_report<T: Serialize>(report: &T) {
    say(format!("{REPORT}{}", serde_json::to_string(report).unwrap_or_default()));
}

/// Plays the role.
pub fn play(arguments: &[&str]) {
    let part: Part = serde_json::from_str(arguments[0]).expect("a part");
    init();
    // The report comes before the pipeline stops, because some elements do not stop.
    play_here(&part, true, say_report);
}

/// Initialises GStreamer in a part. In contrast to other tests, warnings of GLib do not end the process.
pub fn init() {
    gst::init().expect("GStreamer");
    gstrsshm::plugin_register_static().expect("the plugin");
}

/// Runs a part in this process. With `ends_on_request`, it also ends when this process receives a line. Calls `done` before the pipeline stops.
pub fn play_here(part: &Part, ends_on_request: bool, done: impl FnOnce(&Report)) -> Report {
    let critical = collect_criticals();
    let mut report = Report::default();
    let pipeline = match parse(&part.pipeline) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            report.error = Some(error.message().to_owned());
            done(&report);
            return report;
        }
    };
    settings::apply(&pipeline);
    let tap = pipeline.by_name(TAP).expect("an element of this name");
    let recorded = tap.static_pad("src").or_else(|| tap.static_pad("sink")).expect("a pad");
    if let Some(second) = part.joins_at {
        join::join_at(&recorded, second);
    }
    recorded.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, |_, _| {
        say(FIRST_BUFFER);
        gst::PadProbeReturn::Remove
    });
    let ends = Ends::new(&pipeline, part.decodes);
    match pipeline.by_name(LAST) {
        Some(last) => ends.attach_all(&last),
        None if tap.static_pad("src").is_some() => ends.attach(&recorded),
        None => {}
    }
    // What the next element gets counts.
    let tap_recorder = Recorder::attach(&recorded.peer().unwrap_or(recorded));
    let feeders = made::feeders(&pipeline, part.length);
    let played = pipeline.set_state(gst::State::Playing);
    say(PLAYING);
    for feed in feeders {
        thread::spawn(feed);
    }
    let limit = gst::ClockTime::from_mseconds((part.limit * 1000.0) as u64);
    let types = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Application,
    ];
    if ends_on_request {
        end_on_request(&pipeline);
    }
    let message = pipeline.bus().and_then(|bus| bus.timed_pop_filtered(limit, &types));
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => report.ended = true,
        Some(gst::MessageView::Error(error)) => {
            let factory = error
                .src()
                .and_then(|source| source.downcast_ref::<gst::Element>()?.factory());
            let name = factory.map_or_else(String::new, |factory| factory.name().to_string());
            let debug = error.debug().unwrap_or_default();
            let text = match debug.contains("not-negotiated") {
                true => "no common format".to_owned(),
                false => format!("{name}: {}", error.error().message()),
            };
            report.error = Some(text);
        }
        _ if played.is_err() => report.error = Some("the pipeline does not start".to_owned()),
        _ => {}
    }
    report.tap = tap_recorder.take();
    report.pads = ends.take();
    report.critical = critical.lock().unwrap_or_else(PoisonError::into_inner).take();
    done(&report);
    let _ = pipeline.set_state(gst::State::Null);
    report
}

/// Ends the part when this process receives a line.
fn end_on_request(pipeline: &gst::Pipeline) {
    let Some(bus) = pipeline.bus() else {
        return;
    };
    thread::spawn(move || {
        let _ = role::listen();
        let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("end")));
    });
}

/// The pipeline of a description. A description of one element is only this element.
fn parse(description: &str) -> Result<gst::Pipeline, gst::glib::Error> {
    let parsed = gst::parse::launch(description)?;
    Ok(parsed.downcast().unwrap_or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).expect("the element has no parent");
        pipeline
    }))
}

/// Returns the place for the first critical message.
fn collect_criticals() -> Arc<Mutex<Option<String>>> {
    let first = Arc::new(Mutex::new(None));
    let place = Arc::clone(&first);
    gst::glib::log_set_default_handler(move |domain, level, message| {
        if matches!(level, gst::glib::LogLevel::Critical | gst::glib::LogLevel::Error) {
            let mut first = place.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| format!("{}: {message}", domain.unwrap_or_default()));
        }
    });
    first
}

/// The recorded pads at the end of a pipeline.
#[derive(Clone)]
struct Ends {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    decodes: bool,
    recorders: Arc<Mutex<Vec<Recorder>>>,
}

impl Ends {
    fn new(pipeline: &gst::Pipeline, decodes: bool) -> Self {
        Self {
            pipeline: pipeline.downgrade(),
            decodes,
            recorders: Arc::default(),
        }
    }

    /// Records all source pads of the element, also those that it adds later.
    fn attach_all(&self, element: &gst::Element) {
        let ends = self.clone();
        element.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src && !pad.is_linked() {
                ends.attach(pad);
            }
        });
        for pad in element.src_pads().iter().filter(|pad| !pad.is_linked()) {
            self.attach(pad);
        }
    }

    fn attach(&self, pad: &gst::Pad) {
        if self.decodes && registry::is_decodable(&pad.query_caps(None)) {
            let ends = Self {
                decodes: false,
                ..self.clone()
            };
            self.link(pad, "decodebin", |decoder| ends.attach_all(decoder));
        } else {
            let recorder = Recorder::attach(pad);
            self.recorders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(recorder);
            self.link(pad, "fakesink", |sink| {
                sink.set_property("sync", false);
                // The sinks of a demuxer share a thread, so none may wait for its first buffer.
                sink.set_property("async", false);
            });
        }
    }

    /// Links a new element to the pad. `configure` is called before the element starts.
    fn link(&self, pad: &gst::Pad, factory: &str, configure: impl FnOnce(&gst::Element)) -> Option<()> {
        let pipeline = self.pipeline.upgrade()?;
        let element = gst::ElementFactory::make(factory).build().ok()?;
        configure(&element);
        pipeline.add(&element).ok()?;
        pad.link(&element.static_pad("sink")?).ok()?;
        element.sync_state_with_parent().ok()
    }

    fn take(&self) -> Vec<PadRecord> {
        let recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.iter().map(Recorder::take).collect()
    }
}
