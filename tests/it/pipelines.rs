// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the scripts in `pipelines/` as a user does. A test picture replaces the camera.

use std::{
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use gst::prelude::*;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rsshm_channel::ChannelName;
use rsshm_testkit::{
    Channel, PATIENCE, Process, eventually,
    gst::{BARS, Pipeline, SourceRecorder, Xvfb, command, launch, run_to_end},
};

/// The brightness of the [`BARS`].
const LUMA: [u8; 7] = [235, 210, 170, 145, 106, 81, 41];

/// A temporary directory. Dropping the value removes the directory.
struct Directory(PathBuf);

impl Directory {
    fn new(channel: &Channel) -> Self {
        let directory = std::env::temp_dir().join(channel.as_str());
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until the file exists and is not empty.
    #[track_caller]
    fn wait_for(&self, name: &str) {
        eventually(name, || {
            std::fs::metadata(self.file(name)).is_ok_and(|meta| meta.len() > 0)
        });
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

/// The command that runs a script with its arguments. `prefix` is the beginning of the command, and may be empty.
fn script_in(prefix: &[String], words: &str, channel: &Channel) -> Command {
    let mut words = words.split_whitespace();
    let script = scripts().join(words.next().unwrap());
    let mut script = match prefix {
        [] => command(script.to_str().unwrap()),
        [program, arguments @ ..] => {
            let mut program = command(program);
            program.args(arguments).arg(script);
            program
        }
    };
    script
        .args(words)
        .env("CHANNEL", channel.as_str())
        .env("OUTPUT", std::env::temp_dir().join(channel.as_str()))
        .env("DEVICE", "/dev/no-camera")
        .env("SIZE", "320x240")
        .env("RUN_SECONDS", "40")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        // These tests do not check the warnings of GStreamer's elements.
        .env_remove("G_DEBUG");
    script
}

fn script(words: &str, channel: &Channel) -> Command {
    script_in(&[], words, channel)
}

/// Ends a script as Ctrl-C does. The script must leave no file of the channel.
#[track_caller]
fn end(mut script: Process, channel: &Channel) -> String {
    let output = script.interrupt();
    assert!(output.contains("Files of the channel left in /dev/shm: 0"), "{output}");
    channel.assert_removed();
    output
}

/// Plays a file. Returns the media type, the first timestamp and the last timestamp of each of its streams.
pub(crate) fn streams_of(file: &Path) -> Vec<(String, gst::ClockTime, gst::ClockTime)> {
    let pipeline = Pipeline::new(&format!("filesrc location={} ! parsebin name=parse", file.display()));
    let streams = Arc::new(Mutex::new(Vec::new()));
    let (in_handler, bin) = (Arc::clone(&streams), pipeline.clone());
    pipeline.element("parse").connect_pad_added(move |_, pad| {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        // Not all demuxers have set their caps when they add the pad.
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let media = caps.structure(0).unwrap().name().to_string();
        let index = {
            let mut streams = in_handler.lock().unwrap();
            streams.push((media, gst::ClockTime::MAX, gst::ClockTime::ZERO));
            streams.len() - 1
        };
        let in_probe = Arc::clone(&in_handler);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) {
                let (_, first, last) = &mut in_probe.lock().unwrap()[index];
                (*first, *last) = (pts.min(*first), pts.max(*last));
            }
            gst::PadProbeReturn::Ok
        });
    });
    pipeline.play();
    pipeline.wait_eos();
    streams.lock().unwrap().clone()
}

#[test]
fn scripts_print_help_and_missing_packages() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    // This gst-inspect-1.0 finds no element, as on a system without plugins.
    let inspect = directory.file("gst-inspect-1.0");
    std::fs::write(&inspect, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&inspect, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.0.display(), std::env::var("PATH").unwrap());
    for entry in std::fs::read_dir(scripts()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "common.sh" || name.ends_with(".py") {
            continue;
        }
        let help = Process::start(script(&format!("{name} --help"), &channel)).wait_ok();
        for word in [&*name, "CHANNEL=cam0", "RUN_SECONDS"] {
            assert!(help.contains(word), "{name} --help: {help}");
        }
        let argument = match &*name {
            "over-rtp.sh" => "send 127.0.0.1",
            "over-srt.sh" | "over-rtsp.sh" => "send",
            _ => "",
        };
        let mut bare = script(&format!("{name} {argument}"), &channel);
        bare.env("PATH", &path);
        let output = Process::start(bare).wait_error();
        assert!(output.contains("missing: the GStreamer element"), "{name}: {output}");
        assert!(
            output.contains("sudo apt-get install") && output.contains("gstreamer1.0-plugins-"),
            "{name}: {output}"
        );
    }
}

/// A script with a program that ignores SIGINT, and that has started a process of its own. `functions` replaces functions
/// of the shell.
struct DeafProgram {
    script: Process,
    program: String,
    child: String,
}

impl DeafProgram {
    #[track_caller]
    fn start(channel: &Channel, functions: &str) -> Self {
        let mut script = command("bash");
        script.env("CHANNEL", channel.as_str()).env("END_SECONDS", "1").args([
            "-c",
            &format!(
                r#". "$0/common.sh"
                {functions}
                start "A deaf program" sh -c 'trap "" INT; sleep 120 & echo "child $!"; sleep 120'
                echo "program ${{processes[0]}}"
                wait_for_end"#
            ),
            scripts().to_str().unwrap(),
        ]);
        let script = Process::start(script);
        let number = |word: &str| {
            let mut number = None;
            // The last line may be incomplete.
            eventually(word, || {
                let output = script.output();
                let mut lines = output.split_inclusive('\n');
                number = lines.find_map(|line| Some(line.strip_prefix(word)?.strip_suffix('\n')?.to_owned()));
                number.is_some()
            });
            number.unwrap()
        };
        let (child, program) = (number("child "), number("program "));
        Self { script, program, child }
    }
}

impl Drop for DeafProgram {
    fn drop(&mut self) {
        // The group still exists if the script has not killed it.
        let group: i32 = self.program.parse().unwrap();
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Whether a process runs. One that has ended may still wait for its parent.
fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// A program may hang in a driver, where it does not notice SIGINT. The script ends it with its processes, and then ends.
#[test]
fn program_that_does_not_end_is_killed() {
    let channel = Channel::new();
    let mut deaf = DeafProgram::start(&channel, "");
    let (program, child) = (deaf.program.clone(), deaf.child.clone());
    assert!(runs(&program) && runs(&child));
    let output = deaf.script.interrupt();
    assert!(
        output.contains(&format!(
            "Process {program} did not end within 1 seconds, so it is killed"
        )),
        "{output}"
    );
    assert!(!output.contains("is left"), "{output}");
    assert!(!runs(&program), "{output}");
    eventually("the child of the program has ended", || !runs(&child));
}

/// SIGKILL does not end a program while it hangs in a driver. Here, the signal is not sent.
#[test]
fn script_ends_without_program_that_cannot_be_killed() {
    let channel = Channel::new();
    let mut deaf = DeafProgram::start(&channel, r#"kill() { [ "$1" = -KILL ] || builtin kill "$@"; }"#);
    let output = deaf.script.interrupt();
    assert!(
        output.contains(&format!("Process {} is left", deaf.program)),
        "{output}"
    );
    assert!(runs(&deaf.program), "{output}");
}

#[test]
fn demo_shows_picture_on_plain_screen() {
    let (screen, channel) = (Xvfb::start_plain(640, 480), Channel::new());
    let mut demo = script("demo.sh", &channel);
    demo.env("DISPLAY", screen.display());
    let demo = Process::start(demo);
    eventually("the screen shows the picture", || {
        screen.picture().shows((0, 0, 320, 240), &BARS)
    });
    let output = end(demo, &channel);
    let shown = format!("gst-launch-1.0 -q rsshmsrc name={channel} ! autovideosink");
    assert!(output.contains(&shown), "{output}");
}

#[test]
fn camera_to_screen_shows_picture() {
    let (screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let mut show = script("camera-to-screen.sh", &channel);
    show.env("DISPLAY", screen.display());
    let show = Process::start(show);
    eventually("the screen shows the picture", || {
        screen.picture().shows((0, 0, 320, 240), &BARS)
    });
    end(show, &channel);
}

#[test]
fn camera_to_four_programs_feeds_all() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let network = UdpSocket::bind("127.0.0.1:0").unwrap();
    network.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut four = script("camera-to-four-programs.sh", &channel);
    four.env("PORT", network.local_addr().unwrap().port().to_string());
    let four = Process::start(four);
    let mut packet = [0; 2000];
    let (length, _) = network.recv_from(&mut packet).unwrap();
    // The packet has RTP version 2 and payload type 96.
    assert!(length > 12 && packet[0] >> 6 == 2 && packet[1] & 0x7f == 96);
    eventually("the detector prints a result", || {
        four.output().contains("The detector: brightness 0.")
    });
    directory.wait_for("picture-000.png");
    directory.wait_for("part-000.mp4");
    // After this time, the recording is long enough for the check below.
    std::thread::sleep(Duration::from_secs(2));
    end(four, &channel);
    let streams = streams_of(&directory.file("part-000.mp4"));
    assert_eq!(streams.len(), 1);
    assert!(
        streams[0].0 == "video/x-h264" && streams[0].2 > gst::ClockTime::from_mseconds(500),
        "{streams:?}"
    );
}

#[test]
fn file_as_camera_repeats_at_file_speed() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let film = directory.file("film.mkv");
    run_to_end(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! jpegenc ! matroskamux \
         ! filesink location={}",
        film.display()
    ));
    let reader = SourceRecorder::playing(&format!("rsshmsrc channel={channel} forward-eos=false ! fakesink"));
    let camera = Process::start(script(&format!("file-as-camera.sh {}", film.display()), &channel));
    reader.wait_for_frames(75);
    let frames = reader.frames();
    assert!(frames.iter().filter(|frame| frame.is_discont()).count() >= 3);
    // The first thirty frames should take a second. If the first one was late, the others take less. Without a clock,
    // all would come within a few milliseconds.
    let took = frames[29].at - frames[0].at;
    assert!(took > gst::ClockTime::from_mseconds(500), "{took}");
    end(camera, &channel);
}

#[test]
fn two_cameras_show_both_pictures() {
    let (screen, channel) = (Xvfb::start(640, 240), Channel::new());
    let mut both = script("two-cameras.sh", &channel);
    both.env("DISPLAY", screen.display())
        .env("SECOND_DEVICE", "/dev/no-camera");
    let both = Process::start(both);
    eventually("both are on the screen", || {
        let picture = screen.picture();
        // The second picture is a white ball on black.
        let bright = (320..640).any(|x| (0..240).any(|y| picture.pixel(x, y).iter().all(|part| *part > 200)));
        picture.shows((0, 0, 320, 240), &BARS) && picture.shows((320, 230, 320, 10), &[[0; 3]; 7]) && bright
    });
    end(both, &channel);
    Channel(ChannelName::new(format!("{channel}-second")).unwrap()).assert_removed();
}

#[test]
fn still_picture_saves_png() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let (picture, raw) = (directory.file("still.png"), directory.file("still.rgb"));
    let words = format!("still-picture.sh {}", picture.display());
    Process::start(script(&words, &channel)).wait_ok();
    channel.assert_removed();
    // From here on, the channel has a writer.
    let _writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! rsshmsink name={channel}"
    ));
    eventually("the channel exists", || channel.exists());
    let output = Process::start(script(&words, &channel)).wait_ok();
    assert!(output.contains("has a writer already"), "{output}");
    run_to_end(&format!(
        "filesrc location={} ! pngdec ! videoconvert ! video/x-raw,format=RGB ! filesink location={}",
        picture.display(),
        raw.display()
    ));
    let pixels = std::fs::read(raw).unwrap();
    for (bar, expected) in BARS.iter().enumerate() {
        let at = (120 * 320 + (2 * bar + 1) * 320 / 14) * 3;
        assert!(
            pixels[at..at + 3]
                .iter()
                .zip(expected)
                .all(|(seen, bar)| seen.abs_diff(*bar) < 24)
        );
    }
}

#[test]
fn audio_beside_video_records_both() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let both = Process::start(script("audio-beside-video.sh", &channel));
    directory.wait_for("talk.mkv");
    // After this time, the recording is long enough for the checks below.
    std::thread::sleep(Duration::from_secs(3));
    end(both, &channel);
    let mut streams = streams_of(&directory.file("talk.mkv"));
    streams.sort();
    let media: Vec<&str> = streams.iter().map(|(media, ..)| &**media).collect();
    assert_eq!(media, ["audio/x-opus", "video/x-h264"]);
    let [(_, sound_begins, sound_ends), (_, picture_begins, picture_ends)] = &streams[..] else {
        unreachable!()
    };
    assert!(
        *sound_ends - *sound_begins > gst::ClockTime::from_seconds(1),
        "{streams:?}"
    );
    assert!(
        *picture_ends - *picture_begins > gst::ClockTime::from_seconds(1),
        "{streams:?}"
    );
    // The ends of the two streams may differ by the frames that were still in the encoders.
    let apart = sound_ends.absdiff(*picture_ends);
    assert!(apart < gst::ClockTime::from_mseconds(700), "{streams:?}");
}

/// Two network namespaces that a virtual cable connects. Without root, no namespaces are created, and both sides are
/// this machine.
struct Network {
    name: String,
    has_namespaces: bool,
}

impl Network {
    fn new(channel: &Channel) -> Self {
        // The name of a network device has at most 15 characters.
        let name = format!(
            "rsshm{}",
            channel
                .as_str()
                .bytes()
                .fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        );
        let (a, b) = (format!("{name}a"), format!("{name}b"));
        let steps = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {a} netns {a} type veth peer name {b} netns {b}"),
            format!("-n {a} addr add 10.77.0.1/24 dev {a}"),
            format!("-n {b} addr add 10.77.0.2/24 dev {b}"),
            format!("-n {a} link set {a} up"),
            format!("-n {b} link set {b} up"),
        ];
        let has_namespaces = steps.iter().all(|step| ip(step));
        if !has_namespaces {
            eprintln!("network namespaces are not available without root: both sides run on this machine");
        }
        Self { name, has_namespaces }
    }

    /// The prefix that runs a command on machine `a` or `b`, and the address of that machine.
    fn machine(&self, which: char) -> (Vec<String>, &'static str) {
        if !self.has_namespaces {
            return (Vec::new(), "127.0.0.1");
        }
        let prefix = format!("ip netns exec {}{which}", self.name);
        let address = if which == 'a' { "10.77.0.1" } else { "10.77.0.2" };
        (prefix.split(' ').map(str::to_owned).collect(), address)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for which in ['a', 'b'] {
            ip(&format!("netns del {}{which}", self.name));
        }
    }
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// Sends a channel of one machine to a channel of another machine, and checks the picture that arrives.
///
/// Either the sender has to know the receiver's address, or the receiver has to know the sender's address.
#[track_caller]
fn assert_arrives_over(script_name: &str, port: u16, sender_connects: bool) {
    let (near, far) = (Channel::new(), Channel::new());
    let network = Network::new(&near);
    let ((on_a, a), (on_b, b)) = (network.machine('a'), network.machine('b'));
    let (to, from) = if sender_connects { (b, "") } else { ("", a) };
    let start = |prefix: &[String], words: String, channel: &Channel| {
        let mut script = script_in(prefix, &words, channel);
        script.env("PORT", port.to_string()).env("REMOTE", near.as_str());
        Process::start(script)
    };
    let sender = start(&on_a, format!("{script_name} send {to}"), &near);
    eventually("the channel of the sender exists", || near.exists());
    let receiver = start(&on_b, format!("{script_name} receive {from}"), &far);
    let reader = SourceRecorder::of(&far);
    reader.wait_for_frames(20);
    let picture = reader.last_frame().unwrap();
    // In I420 and NV12, the first plane contains the brightness.
    assert_eq!(picture.width(), 320);
    for (bar, expected) in LUMA.iter().enumerate() {
        let seen = picture.bytes[120 * 320 + (2 * bar + 1) * 320 / 14];
        assert!(seen.abs_diff(*expected) < 24, "bar {bar} is {seen}, not {expected}");
    }
    end(receiver, &far);
    end(sender, &near);
}

#[test]
fn picture_arrives_over_rtp() {
    assert_arrives_over("over-rtp.sh", 5204, true);
}

#[test]
fn picture_arrives_over_srt() {
    assert_arrives_over("over-srt.sh", 7201, false);
}

#[test]
fn picture_arrives_over_rtsp() {
    assert_arrives_over("over-rtsp.sh", 8754, false);
}
