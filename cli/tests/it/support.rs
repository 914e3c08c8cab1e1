// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helpers that the test modules share: channels, their peers, and runs of `rsshm`.

use std::{
    fs,
    io::Read,
    ops::Deref,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::signal::Signal;
use rsshm_channel::{
    Caps, ChannelName, FrameDescriptor, NewEvent, Next, ReadLimits, Reader, ReaderOptions, ServiceThread, Writer,
    WriterOptions, metadata::RegionOfInterest, monotonic_ns,
};
use rsshm_testkit::{
    PATIENCE, Process,
    role::{self, Role, listen, say},
    wait_until,
};
use serde_json::Value;

pub const ROLES: &[(&str, Role)] = &[
    ("writer", writer),
    ("live writer", live_writer),
    ("flooding writer", flooding_writer),
    ("evil writer", evil_writer),
    ("reader", reader),
    ("latest reader", latest_reader),
];

/// The caps of most channels of these tests.
pub const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";
/// The size of a frame in bytes.
pub const SIZE: usize = 64 * 48;
/// The metadata of the frames that have some.
const REGION: RegionOfInterest = RegionOfInterest {
    x: 1,
    y: 2,
    width: 3,
    height: 4,
    id: 5,
    parent_id: -1,
    kind: "face",
};

/// A channel of one test.
#[derive(Debug)]
pub struct Channel(rsshm_testkit::Channel);

impl Channel {
    pub fn new() -> Self {
        // Relaxed, because the values only have to differ from each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("rsshm-cli-test-{}-{count}", std::process::id()))
    }

    /// A channel with this name, which belongs to the test.
    pub fn named(name: &str) -> Self {
        Self(rsshm_testkit::Channel(ChannelName::new(name).unwrap()))
    }

    /// Starts a writer that publishes a frame when the test sends it a line. The first frame is already published.
    pub fn writer(&self) -> Process {
        self.writer_with("0600")
    }

    /// Starts such a writer with these permissions.
    pub fn writer_with(&self, perms: &str) -> Process {
        let mut writer = role::start("writer", &[self.as_str(), perms]);
        writer.expect("1");
        writer
    }

    /// Starts a writer that publishes a frame at this interval.
    pub fn live_writer(&self, interval_ms: u32) -> Process {
        let mut writer = role::start("live writer", &[self.as_str(), &interval_ms.to_string()]);
        writer.expect("1");
        writer
    }

    /// Starts a writer that publishes small frames without a pause.
    pub fn flooding_writer(&self) -> Process {
        let mut writer = role::start("flooding writer", &[self.as_str()]);
        writer.expect("1");
        writer
    }

    /// Starts a reader that takes only the newest frame, at this interval.
    pub fn latest_reader(&self, interval_ms: u32) -> Process {
        let mut reader = role::start("latest reader", &[self.as_str(), &interval_ms.to_string()]);
        reader.receive();
        reader
    }

    /// Starts a writer that publishes frames all the time whose metadata and events have this text.
    pub fn writer_of_evil(&self, text: &str) -> Process {
        let mut writer = role::start("evil writer", &[self.as_str(), text]);
        writer.expect("1");
        writer
    }

    /// Starts a reader that takes a frame when the test sends it a line. The first frame is already taken, and the
    /// reader holds it until it takes the next.
    pub fn reader(&self) -> Process {
        let mut reader = role::start("reader", &[self.as_str()]);
        reader.receive();
        reader
    }
}

impl Deref for Channel {
    type Target = rsshm_testkit::Channel;

    fn deref(&self) -> &rsshm_testkit::Channel {
        &self.0
    }
}

fn open(name: &str, perms: u32) -> (Arc<Writer>, ServiceThread) {
    let options = WriterOptions::default().perms(perms);
    let writer = Arc::new(Writer::open(ChannelName::new(name).unwrap(), options).unwrap());
    let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(50), |_, report| {
        report.unwrap();
    });
    writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
    (writer, service.unwrap())
}

fn publish(writer: &Writer, value: u64, metadata: &[u8]) {
    publish_at(writer, value, metadata, monotonic_ns());
}

fn publish_at(writer: &Writer, value: u64, metadata: &[u8], pts: u64) {
    let mut slot = writer.claim(SIZE).unwrap().expect("a slot");
    slot.as_mut().fill(value as u8);
    let descriptor = FrameDescriptor::new(SIZE as u64).with_pts(pts).with_offset(value);
    writer.publish(&slot, descriptor, metadata).unwrap();
    drop(slot);
}

fn writer(arguments: &[&str]) {
    let (writer, _service) = open(arguments[0], u32::from_str_radix(arguments[1], 8).unwrap());
    let mut metadata = Vec::new();
    let mut ahead = Duration::ZERO;
    for value in 1.. {
        publish_at(&writer, value, &metadata, monotonic_ns() + ahead.as_nanos() as u64);
        say(value);
        metadata.clear();
        match &*listen() {
            "caps" => {
                let caps = CAPS.replace("GRAY8", "BGR");
                writer.set_caps(Caps::fixed_size(caps, 3 * SIZE)).unwrap();
            }
            "metadata" => metadata = REGION.to_record(),
            "future" => ahead = Duration::from_secs(3600),
            "tags" => {
                let mut bytes = vec![0; 4];
                bytes.extend(b"taglist, title=(string)test;");
                writer.publish_event(NewEvent::new(2, &bytes), None).unwrap();
            }
            _ => {}
        }
    }
}

fn live_writer(arguments: &[&str]) {
    let (writer, _service) = open(arguments[0], 0o600);
    let lines = role::lines();
    for value in 1.. {
        publish(&writer, value, &[]);
        if value == 1 {
            say(value);
        }
        let interval = Duration::from_millis(arguments[1].parse().unwrap());
        if lines.recv_timeout(interval).is_ok_and(|line| line == "end") {
            return;
        }
    }
}

fn flooding_writer(arguments: &[&str]) {
    let (writer, _service) = open(arguments[0], 0o600);
    writer.set_caps(Caps::variable_size("application/x-flood")).unwrap();
    for value in 1_u64.. {
        let mut slot = writer.claim(8).unwrap().expect("a slot");
        slot.as_mut().copy_from_slice(&value.to_ne_bytes());
        writer
            .publish(&slot, FrameDescriptor::new(8).with_pts(monotonic_ns()), &[])
            .unwrap();
        if value == 1 {
            say(value);
        }
    }
}

fn evil_writer(arguments: &[&str]) {
    let (writer, _service) = open(arguments[0], 0o600);
    let region = RegionOfInterest {
        kind: arguments[1],
        ..REGION
    };
    for value in 1.. {
        publish(&writer, value, &region.to_record());
        let mut bytes = vec![0; 4];
        bytes.extend(format!("taglist, title=(string){};", arguments[1]).as_bytes());
        writer.publish_event(NewEvent::new(2, &bytes), None).unwrap();
        if value == 1 {
            say(value);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reader(arguments: &[&str]) {
    let mut reader = Reader::new(ChannelName::new(arguments[0]).unwrap(), ReaderOptions::default());
    let mut held = None;
    loop {
        if let Next::Frame(frame) = reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap() {
            say(frame.seq);
            drop(held.replace(frame));
            listen();
        }
    }
}

fn latest_reader(arguments: &[&str]) {
    let mut reader = Reader::new(ChannelName::new(arguments[0]).unwrap(), ReaderOptions::default());
    let limits = ReadLimits::default().max_behind(1);
    let interval = Duration::from_millis(arguments[1].parse().unwrap());
    let mut has_said = false;
    loop {
        if let Next::Frame(frame) = reader.next(&mut Vec::new(), limits, None).unwrap()
            && !std::mem::replace(&mut has_said, true)
        {
            say(frame.seq);
        }
        std::thread::sleep(interval);
    }
}

/// A directory of one test, which is removed with the value.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(channel: &Channel) -> Self {
        let path = std::env::temp_dir().join(channel.as_str());
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of a file in the directory.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The command `rsshm` with these arguments, which are separated by spaces.
pub fn rsshm(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rsshm"));
    command
        .args(arguments.split_whitespace())
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// A running program, whose streams the test has chosen. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Waits until the program ends by itself, and returns its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("the program ends", PATIENCE, || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a run of `rsshm` printed, and its exit code.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn of(mut command: Command) -> Self {
        fn read(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                // Frames may have any bytes.
                String::from_utf8_lossy(&bytes).into_owned()
            })
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command);
        // Threads read, because a full pipe would block the program.
        let stdout = read(running.0.stdout.take().unwrap());
        let stderr = read(running.0.stderr.take().unwrap());
        Self {
            code: running.wait().unwrap_or(-1),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// The JSON of the only line.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `rsshm` to its end.
pub fn run(arguments: &str) -> Run {
    Run::of(rsshm(arguments))
}

/// Runs `rsshm` as another user, who has no group of this one.
pub fn run_as(user: u32, arguments: &str) -> Run {
    let mut command = rsshm(arguments);
    command.uid(user).gid(user).current_dir("/");
    Run::of(command)
}

/// Whether a command blocks SIGINT, for a thread that waits for it. The command then ends with Ctrl-C in its own way.
pub fn waits_for_ctrl_c(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(blocked.trim(), 16).unwrap() >> (Signal::SIGINT as u64 - 1) & 1 == 1
}

/// The bytes of all files with the name of the channel, which observers must not change.
pub fn files(channel: &Channel) -> Vec<Vec<u8>> {
    channel.files().iter().map(|file| fs::read(file).unwrap()).collect()
}
