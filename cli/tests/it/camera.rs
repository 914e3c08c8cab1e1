// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `rsshm camera`, and of the units that run it.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rsshm_channel::Observer;
use rsshm_testkit::{PATIENCE, Process, eventually, gst, need_program, on_this_machine};

use crate::support::{Channel, Directory, Run, Running, rsshm, run};

/// The command `rsshm camera` for a channel, whose GStreamer finds the plugin.
fn camera(channel: &Channel, arguments: &[&str]) -> Command {
    let mut command = rsshm(&format!("camera {}", channel.0));
    for (name, value) in gst::command("gst-launch-1.0").get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.args(arguments);
    command
}

/// The process that writes the channel, once frames flow.
#[track_caller]
fn writer(channel: &Channel, former: i32) -> i32 {
    let mut pid = 0;
    eventually("frames flow", || {
        if let Ok(Some(observer)) = Observer::open(channel) {
            let has_frames = observer.head() >= observer.header().first_seq || observer.status().is_idle;
            pid = if has_frames {
                observer.header().writer_pid as i32
            } else {
                0
            };
        }
        pid != 0 && pid != former
    });
    pid
}

/// The `--stall` of pipelines that must not be replaced, in milliseconds. A late pipeline gets its frames within this time.
const STALL: u64 = 4000;

/// A time on this machine as the text of an option. An emulated pipeline needs longer for its first frame.
fn milliseconds(time: u64) -> String {
    format!("{}ms", on_this_machine(Duration::from_millis(time)).as_millis())
}

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(directory: &Directory) -> Self {
        let path = directory.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(on_this_machine(PATIENCE))).unwrap();
        Self { socket, path }
    }

    /// Waits for a report that begins with `words`.
    #[track_caller]
    fn expect(&self, words: &str) {
        let began = Instant::now();
        let mut bytes = [0; 4096];
        while began.elapsed() < on_this_machine(PATIENCE) {
            let count = self
                .socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{words}: {error}"));
            if bytes[..count].starts_with(words.as_bytes()) {
                return;
            }
        }
        panic!("no {words}");
    }

    /// Whether a report that begins with `words` has come.
    fn has(&self, words: &str) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let found = loop {
            match self.socket.recv(&mut bytes) {
                Ok(count) if bytes[..count].starts_with(words.as_bytes()) => break true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(error) => panic!("{error}"),
            }
        };
        self.socket.set_nonblocking(false).unwrap();
        found
    }
}

const SOURCE: &str = "videotestsrc is-live=true ! videoflip method=\"clockwise\"";
const CAPS: &str = "video/x-raw, format=GRAY8, width=64, height=48, framerate=30/1";

#[test]
fn file_and_options_say_what_runs() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let file = directory.write(
        "camera.conf",
        &format!("SOURCE={SOURCE}\nCAPS=\"{CAPS}\"\nON_DEMAND=yes\nPERMS=0640\n"),
    );
    let name = channel.to_string();
    let print = |arguments: &[&str]| {
        let mut command = camera(&channel, arguments);
        command.args(["--dry-run"]);
        Run::of(command).expect(0).stdout
    };
    let all = print(&["--config", &file, "--perms", "0600", "--idle", "7s"]);
    // A shell reads the line back as the words that gst-launch-1.0 gets.
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("printf '%s\\n' {all}")]);
    let words = Run::of(shell).expect(0).stdout;
    let expected = format!(
        "gst-launch-1.0\n-q\nvideotestsrc\nis-live=true\n!\nvideoflip\nmethod=clockwise\n!\n{CAPS}\n!\nrsshmsink\n\
         channel={name}\nperms=0600\non-demand=true\nidle-timeout=7\n"
    );
    assert_eq!(words, expected);
    let without = Run::of(camera(&channel, &["-n"])).expect(2);
    assert!(
        without.stderr.contains(&format!("/etc/rsshm/{name}.conf")),
        "{without:?}"
    );
    let missing = Run::of(camera(&channel, &["-n", "--config", "/nowhere.conf"])).expect(2);
    assert!(missing.stderr.contains("/nowhere.conf cannot be read"), "{missing:?}");
    let wrong = directory.write("wrong.conf", "\nSOURCE=a 'b\n");
    let wrong = Run::of(camera(&channel, &["-n", "--config", &wrong])).expect(2);
    assert!(wrong.stderr.contains("wrong.conf, line 2"), "{wrong:?}");
    assert!(
        run("camera video3 --dry-run")
            .expect(0)
            .stdout
            .contains("device=/dev/video3")
    );
}

#[test]
fn manager_learns_that_frames_flow() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let file = directory.write("camera.conf", &format!("SOURCE={SOURCE}\nCAPS={CAPS}\n"));
    let manager = Manager::new(&directory);
    let mut command = camera(&channel, &["--config", &file]);
    command
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "600000");
    let mut process = Process::start(command);
    manager.expect("READY=1");
    assert!(fs::exists(channel.segment()).unwrap());
    for _ in 0..5 {
        manager.expect("WATCHDOG=1");
    }
    process.signal(Signal::SIGTERM);
    manager.expect("STOPPING=1");
    assert_eq!(process.wait().code(), Some(143));
    assert_eq!(process.output(), "", "a stop is no failure");
    channel.assert_removed();
}

#[test]
fn pipeline_is_started_again() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let source = format!("{SOURCE} ! {CAPS}").replace(", ", ",");
    let mut process = Process::start(camera(&channel, &["--source", &source]));
    let first = writer(&channel, 0);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = writer(&channel, first);
    let output = process.output();
    assert!(
        output.contains("gst-launch-1.0 has ended (signal: 9") && output.contains("again in 1 s"),
        "{output}"
    );
    // The pipeline ends with the program, even if that is killed.
    process.kill();
    eventually("the pipeline ends", || kill(Pid::from_raw(second), None).is_err());
    // The kernel sends the signal of the death once for each thread of the killed program. gst-launch-1.0 dies at the
    // second SIGINT, so it may leave the channel's files. The next start takes them over.
    let mut next = Process::start(camera(&channel, &["--source", &source]));
    writer(&channel, second);
    next.interrupt();
    channel.assert_removed();
}

#[test]
fn failures_are_quoted() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let mut process = Process::start(camera(&channel, &["--source", "filesrc location=/nowhere"]));
    eventually("the second attempt", || process.output().contains("again in 2 s"));
    let output = process.output();
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| line.contains("it is started again"))
        .collect();
    for words in ["ERROR: from element", "Resource not found", "again in 1 s"] {
        assert!(lines[0].contains(words), "{words} is not in {}", lines[0]);
    }
    assert!(
        output.contains("No such file \"/nowhere\""),
        "all messages are passed on"
    );
    process.interrupt();
    let mut command = camera(&channel, &["--source", "videotestsrc"]);
    command.env("PATH", "/nowhere");
    let run = Run::of(command).expect(1);
    assert!(run.stderr.contains("gst-launch-1.0 is not installed"), "{run:?}");
}

#[test]
fn camera_outlives_the_reader_of_its_messages() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let manager = Manager::new(&directory);
    let mut command = camera(&channel, &["--source", "filesrc location=/nowhere"]);
    command.env("NOTIFY_SOCKET", &manager.path).stderr(Stdio::piped());
    let mut running = Running::start(command);
    drop(running.0.stderr.take());
    manager.expect("STATUS=starts again in 2 s");
}

#[test]
fn wrong_socket_of_the_manager_is_survived_without_stderr() {
    let channel = Channel::new();
    let mut command = camera(&channel, &["--source", "videotestsrc"]);
    command
        .env("PATH", "/nowhere")
        .env("NOTIFY_SOCKET", "/nowhere")
        .stderr(Stdio::piped());
    let mut running = Running::start(command);
    drop(running.0.stderr.take());
    assert_eq!(running.wait(), Some(1), "gst-launch-1.0 is not installed");
}

/// A program in place of gst-launch-1.0: a shell script which ends while a program that it started keeps stderr open.
struct Launcher(Directory);

impl Launcher {
    /// `begin` runs before the other program starts, and `script` after that.
    fn new(channel: &Channel, begin: &str, script: &str) -> Self {
        let directory = Directory::new(channel);
        let program = directory.write(
            "gst-launch-1.0",
            &format!(
                "#!/bin/sh\n{begin}\nsleep 1000 &\necho $! >>{}\n{script}\n",
                directory.file("pids")
            ),
        );
        fs::set_permissions(program, fs::Permissions::from_mode(0o700)).unwrap();
        Self(directory)
    }

    /// The command `rsshm camera`, which runs this program.
    fn camera(&self, channel: &Channel, arguments: &[&str]) -> Command {
        let mut command = camera(channel, arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.0.0.display()));
        command
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.0.file("pids")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn end_is_noticed_while_a_grandchild_keeps_stderr() {
    let channel = Channel::new();
    let launcher = Launcher::new(&channel, ":", "echo the last words >&2; exit 3");
    let mut process = Process::start(launcher.camera(&channel, &["--source", "x", "--stall", "0"]));
    eventually("the second attempt", || process.output().contains("again in 2 s"));
    let output = process.output();
    assert!(
        output.contains("gst-launch-1.0 has ended (exit status: 3): the last words; it is started again in 1 s"),
        "{output}"
    );
    // Nothing runs, so the command ends at once.
    process.interrupt();
}

#[test]
fn stalled_pipeline_is_killed_while_a_grandchild_keeps_stderr() {
    let channel = Channel::new();
    let launcher = Launcher::new(&channel, "trap '' INT", "while :; do sleep 0.1; done");
    let process = Process::start(launcher.camera(&channel, &["--source", "x", "--stall", "3s"]));
    eventually("the end of the first attempt", || {
        process.output().contains("again in 1 s")
    });
    let output = process.output();
    assert!(output.contains("gst-launch-1.0 has ended (signal: 9"), "{output}");
}

#[test]
fn stopped_pipeline_is_replaced() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let source = format!("{SOURCE} ! {CAPS}").replace(", ", ",");
    let process = Process::start(camera(
        &channel,
        &["--source", &source, "--stall", &milliseconds(STALL)],
    ));
    let first = writer(&channel, 0);
    kill(Pid::from_raw(first), Signal::SIGSTOP).unwrap();
    writer(&channel, first);
    assert!(process.output().contains("no frame for"), "{}", process.output());
}

/// The command for a camera that is open only while somebody reads. `stall` is in milliseconds.
fn camera_on_demand(channel: &Channel, manager: &Manager, idle: &str, stall: u64) -> Command {
    let source = format!("{SOURCE} ! {CAPS}").replace(", ", ",");
    let stall = milliseconds(stall);
    let arguments = ["--source", &source, "--on-demand", "--idle", idle, "--stall", &stall];
    let mut command = camera(channel, &arguments);
    command.env("NOTIFY_SOCKET", &manager.path);
    command
}

#[test]
fn camera_on_demand_is_healthy_while_nobody_reads() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let manager = Manager::new(&directory);
    let command = camera_on_demand(&channel, &manager, "0", STALL);
    let mut process = Process::start(command);
    manager.expect("STATUS=the camera is closed");
    let first = writer(&channel, 0);
    // Longer than a stall.
    std::thread::sleep(on_this_machine(Duration::from_millis(STALL + 500)));
    let name = channel.to_string();
    let check = run(&format!("check {name} --max-age 100ms --min-fps 5 --during 100ms")).expect(0);
    assert!(check.stdout.contains("idle until somebody reads"), "{check:?}");
    assert_eq!(run(&format!("info {name} --json")).expect(0).json()["state"], "idle");
    assert!(run(&format!("list {name} --alive -q")).expect(0).stdout.contains(&name));
    let mut reading = gst::launch(&format!("rsshmsrc channel={name} num-buffers=5 ! fakesink"));
    reading.wait_ok();
    assert_eq!(writer(&channel, 0), first, "the same pipeline");
    assert!(!manager.has("STATUS=starts again"), "{}", process.output());
    process.interrupt();
    channel.assert_removed();
}

/// The command in a process with `count` more descriptors, which its children inherit.
fn with_descriptors(command: &Command, count: usize) -> Command {
    let last = 20 + count;
    let mut shell = Command::new("bash");
    shell
        .arg("-c")
        .arg(format!(
            "for ((i = 20; i < {last}; i++)); do eval \"exec $i</dev/null\"; done; exec \"$@\""
        ))
        .arg("bash")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

#[test]
fn pipeline_with_many_descriptors_is_replaced_when_idle() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let manager = Manager::new(&directory);
    let mut reading = gst::launch(&format!("rsshmsrc channel={} ! fakesink", channel.0));
    let command = camera_on_demand(&channel, &manager, "1s", STALL);
    let mut process = Process::start(with_descriptors(&command, 300));
    manager.expect("READY=1");
    let first = writer(&channel, 0);
    // Longer than a stall.
    std::thread::sleep(on_this_machine(Duration::from_millis(STALL + 500)));
    assert_eq!(writer(&channel, 0), first, "somebody reads: {}", process.output());
    reading.kill();
    manager.expect("STATUS=starts again");
    assert!(process.output().contains("too many open files"), "{}", process.output());
    writer(&channel, first);
    process.interrupt();
}

/// The directory packaging/ of the repository.
fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// What `systemd-analyze verify` says about the units, whose texts are changed first.
fn verify(directory: &Directory, change: impl Fn(&str) -> String) -> (bool, String) {
    for unit in ["rsshm-camera@.service", "rsshm-check@.service", "rsshm-check@.timer"] {
        let text = fs::read_to_string(packaging().join("systemd").join(unit)).unwrap();
        // The program of the unit has to exist.
        directory.write(
            unit,
            &change(&text.replace("/usr/bin/rsshm", env!("CARGO_BIN_EXE_rsshm"))),
        );
    }
    let drop_in = directory.0.join("rsshm-camera@video0.service.d");
    fs::create_dir_all(&drop_in).unwrap();
    fs::copy(packaging().join("systemd/device.conf"), drop_in.join("device.conf")).unwrap();
    let mut command = Command::new("systemd-analyze");
    command
        .args([
            "verify",
            "--man=no",
            "rsshm-camera@video0.service",
            "rsshm-check@video0.timer",
        ])
        .arg("rsshm-check@video0.service")
        .env("SYSTEMD_UNIT_PATH", format!("{}:", directory.0.display()));
    let run = Run::of(command);
    (run.code == 0, run.stderr)
}

#[test]
fn units_are_valid() {
    need_program!("systemd-analyze");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let (is_valid, text) = verify(&directory, str::to_owned);
    assert!(is_valid && !text.contains("rsshm-"), "{text}");
    // The check finds what is wrong.
    let (_, text) = verify(&directory, |text| text.replace("KillMode=mixed", "KillMod=mixed"));
    assert!(text.contains("KillMod"), "{text}");
}

#[test]
fn example_has_all_keys() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let example = fs::read_to_string(packaging().join("examples/video0.conf")).unwrap();
    // Without the comments, the example is the default.
    let plain = directory.write("plain.conf", &example);
    let plain = Run::of(camera(&channel, &["-n", "--config", &plain, "--source", "x"])).expect(0);
    assert!(
        plain.stdout.contains("'perms=0660'") && !plain.stdout.contains("on-demand"),
        "{plain:?}"
    );
    // Keys begin directly behind the number sign, and sentences behind a space.
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = directory.write("all.conf", &uncommented);
    let all = Run::of(camera(&channel, &["-n", "--config", &all])).expect(0).stdout;
    for words in [
        "jpegdec",
        "width=1280",
        "'idle-timeout=5'",
        "'max-slots=8'",
        "'perms=0660'",
    ] {
        assert!(all.contains(words), "{words} is not in {all}");
    }
}
