//! What the tests of the elements share: real `gst-launch-1.0` processes with the plugin just built, channels of their
//! own, and pipelines inside the test.
#![allow(dead_code)] // each test program uses a part of it

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use nix::{sys::signal::Signal, unistd::Pid};

/// How long anything may take that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Initialises GStreamer with the plugin, inside the test.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gst::glib::log_set_always_fatal(gst::glib::LogLevels::LEVEL_CRITICAL | gst::glib::LogLevels::LEVEL_WARNING);
        gstrsshm::plugin_register_static().unwrap();
    });
}

/// A channel of the test's own; its files are removed at the end, and must be gone before where the test says so.
pub struct Channel(pub String);

impl Channel {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("rsshm-test-{}-{count}", std::process::id()))
    }

    /// The channel's files in /dev/shm.
    pub fn files(&self) -> [PathBuf; 2] {
        [
            format!("/dev/shm/{}", self.0).into(),
            format!("/dev/shm/sem.{}", self.0).into(),
        ]
    }

    #[track_caller]
    pub fn assert_gone(&self) {
        for file in self.files() {
            assert!(!file.exists(), "{} is left", file.display());
        }
    }

    pub fn exists(&self) -> bool {
        self.files().iter().all(|file| file.exists())
    }
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        for file in self.files() {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The plugin that was built with this test (`cargo test` refreshes the one beside the test programs, not the one in
/// target/debug).
pub fn plugin() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let plugin = folder.join("libgstrsshm.so");
    assert!(plugin.exists(), "{} is not there", plugin.display());
    plugin
}

/// A program that knows the plugin and nothing else out of the ordinary; its warnings are fatal.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("GST_REGISTRY", plugin_folder().join("registry.bin"))
        .env("GST_REGISTRY_FORK", "no")
        .env("GST_PLUGIN_PATH", plugin_folder())
        .env("G_DEBUG", "fatal_warnings");
    command
}

/// A folder with the plugin alone: GStreamer searches GST_PLUGIN_PATH deeply, and beside the tests there are others.
fn plugin_folder() -> PathBuf {
    static ONCE: Once = Once::new();
    // Beside the plugin and not in /tmp: another checkout's tests may run at the same time.
    let folder = plugin().parent().unwrap().with_file_name("rsshm-test-plugin");
    ONCE.call_once(|| {
        std::fs::create_dir_all(&folder).unwrap();
        let link = folder.join("libgstrsshm.so");
        if std::fs::read_link(&link).ok() != Some(plugin()) {
            // Aside and renamed, as other tests may look for it just now.
            let staging = folder.join(format!(".{}", std::process::id()));
            let _ = std::fs::remove_file(&staging);
            std::os::unix::fs::symlink(plugin(), &staging).unwrap();
            std::fs::rename(&staging, &link).unwrap();
        }
    });
    folder
}

/// A running program; killed when the test ends.
pub struct Process {
    child: Child,
    output: File,
    what: String,
}

/// Starts `gst-launch-1.0 PIPELINE`.
#[track_caller]
pub fn launch(pipeline: &str) -> Process {
    let mut command = command("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    Process::start(command)
}

impl Process {
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let output = unnamed_file();
        let what = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output.try_clone().unwrap());
        Self {
            child: command.spawn().unwrap_or_else(|error| panic!("{what}: {error}")),
            output,
            what,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        let mut file = self.output.try_clone().unwrap();
        // The position is shared with the writing process: it is put back to the end.
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut text).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{} does not end:\n{}",
                self.what,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself, and well.
    #[track_caller]
    pub fn wait_ok(&mut self) -> String {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.what, self.output());
        self.output()
    }

    /// Waits until it fails by itself, and yields what it said.
    #[track_caller]
    pub fn wait_error(&mut self) -> String {
        let status = self.wait();
        assert!(
            !status.success() && status.signal().is_none(),
            "{}: {status}\n{}",
            self.what,
            self.output()
        );
        self.output()
    }

    /// Ends it as Ctrl-C does, and waits.
    #[track_caller]
    pub fn interrupt(&mut self) -> String {
        self.signal(Signal::SIGINT);
        self.wait();
        self.output()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.what, self.output());
        }
        self.kill();
    }
}

/// A file without a name: pipes would stop a chatty program.
fn unnamed_file() -> File {
    let path = std::env::temp_dir().join(format!("rsshm-test-output-{}-{:?}", std::process::id(), Instant::now()));
    let file = File::options()
        .read(true)
        .append(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(PATIENCE, what, &mut condition);
}

/// Waits until `condition` holds, which must be within `time`.
#[track_caller]
pub fn within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < time, "not within {time:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A pipeline inside the test; set to NULL when the test ends.
pub struct Pipeline(pub gst::Pipeline);

impl Pipeline {
    #[track_caller]
    pub fn new(description: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(description).unwrap_or_else(|error| panic!("{description}: {error}"));
        Self(pipeline.downcast().unwrap())
    }

    #[track_caller]
    pub fn playing(description: &str) -> Self {
        let pipeline = Self::new(description);
        pipeline.0.set_state(gst::State::Playing).unwrap();
        pipeline
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.0.by_name(name).unwrap()
    }

    /// The element whose factory is `factory`.
    pub fn by_factory(&self, factory: &str) -> gst::Element {
        self.0
            .iterate_recurse()
            .into_iter()
            .flatten()
            .find(|element| element.factory().is_some_and(|it| it.name() == factory))
            .unwrap()
    }

    /// One number of an element's `channel-stats`.
    pub fn stat(&self, factory: &str, field: &str) -> u64 {
        let stats = self.by_factory(factory).property::<gst::Structure>("channel-stats");
        stats
            .get::<u64>(field)
            .or_else(|_| stats.get::<u32>(field).map(u64::from))
            .unwrap_or_else(|error| panic!("{field}: {error} in {stats}"))
    }

    /// Live, minimum and maximum as a source answers them.
    pub fn latency(&self, factory: &str) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
        let mut query = gst::query::Latency::new();
        assert!(self.by_factory(factory).static_pad("src").unwrap().query(&mut query));
        query.result()
    }

    /// Waits for EOS; an error is the test's end.
    #[track_caller]
    pub fn wait_eos(&self) {
        let message = self.message(&[gst::MessageType::Eos, gst::MessageType::Error]);
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{} ({:?})", error.error(), error.debug());
        }
    }

    /// Waits for an error.
    #[track_caller]
    pub fn wait_error(&self) -> gst::glib::Error {
        match self.message(&[gst::MessageType::Eos, gst::MessageType::Error]).view() {
            gst::MessageView::Error(error) => error.error(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a message of one of the types.
    #[track_caller]
    pub fn message(&self, types: &[gst::MessageType]) -> gst::Message {
        let timeout = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        self.0
            .bus()
            .unwrap()
            .timed_pop_filtered(timeout, types)
            .unwrap_or_else(|| panic!("none of {types:?} came"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Where planes begin, and from row to row.
pub type Layout = (Vec<usize>, Vec<i32>);

/// What a buffer's VideoMeta says, if there is one.
pub fn layout(buffer: &gst::BufferRef) -> Option<Layout> {
    let meta = buffer.meta::<gst_video::VideoMeta>()?;
    assert_eq!(
        (meta.offset().len(), meta.stride().len()),
        (meta.n_planes() as usize, meta.n_planes() as usize)
    );
    Some((meta.offset().to_vec(), meta.stride().to_vec()))
}

/// One buffer that came out of an element.
#[derive(Clone, Debug)]
pub struct Seen {
    pub caps: gst::Caps,
    pub pts: Option<gst::ClockTime>,
    pub duration: Option<gst::ClockTime>,
    /// Running time of the pipeline when it came.
    pub at: gst::ClockTime,
    pub flags: gst::BufferFlags,
    /// What it is a field or a view of.
    pub video_flags: gst_video::VideoBufferFlags,
    pub layout: Option<Layout>,
    /// Its place in the stream, as the producer counts.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn is_discont(&self) -> bool {
        self.flags.contains(gst::BufferFlags::DISCONT)
    }

    pub fn width(&self) -> i32 {
        self.caps.structure(0).unwrap().get("width").unwrap()
    }

    pub fn format(&self) -> String {
        self.caps.structure(0).unwrap().get("format").unwrap()
    }
}

/// A pipeline inside the test that notes what leaves its rsshmsrc.
pub struct Tap {
    pub pipeline: Pipeline,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Tap {
    /// Begins to play at once.
    #[track_caller]
    pub fn playing(description: &str) -> Self {
        let tap = Self::new(description);
        tap.pipeline.0.set_state(gst::State::Playing).unwrap();
        tap
    }

    #[track_caller]
    pub fn new(description: &str) -> Self {
        let pipeline = Pipeline::new(description);
        let source = pipeline.by_factory("rsshmsrc");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let pad = source.static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let buffer = info.buffer().unwrap();
            let element = pad.parent_element().unwrap();
            to.lock().unwrap().push(Seen {
                caps: pad.current_caps().unwrap(),
                pts: buffer.pts(),
                duration: buffer.duration(),
                // None without a clock.
                at: element.current_running_time().unwrap_or(gst::ClockTime::ZERO),
                flags: buffer.flags(),
                video_flags: buffer.video_flags(),
                layout: layout(buffer),
                offset: buffer.offset(),
                bytes: buffer.map_readable().unwrap().to_vec(),
            });
            gst::PadProbeReturn::Ok
        });
        Self { pipeline, seen }
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Option<Seen> {
        self.seen.lock().unwrap().last().cloned()
    }

    /// Waits until `more` buffers have come from now on.
    #[track_caller]
    pub fn wait_for_more(&self, more: usize) {
        let until = self.count() + more;
        eventually(&format!("{more} more buffers"), || self.count() >= until);
    }
}

/// What a stopwatch says of `action`.
pub fn timed<T>(action: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let value = action();
    (started.elapsed(), value)
}
