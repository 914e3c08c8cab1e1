//! The scripts in `pipelines/`, as a user runs them; a test picture stands in for the camera.

mod common;
mod display;

use std::{
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{Channel, Pipeline, Process, Tap, command, eventually, launch};
use display::Screen;
use gst::prelude::*;

/// The seven bars of the test picture, and how bright each is.
const BARS: [[u8; 3]; 7] = [
    [255, 255, 255],
    [255, 255, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [255, 0, 0],
    [0, 0, 255],
];
const LUMA: [u8; 7] = [235, 210, 170, 145, 106, 81, 41];

/// A folder of the test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(channel: &Channel) -> Self {
        let folder = std::env::temp_dir().join(&channel.0);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits for a file that is not empty.
    #[track_caller]
    fn wait_for(&self, name: &str) {
        eventually(name, || {
            std::fs::metadata(self.file(name)).is_ok_and(|meta| meta.len() > 0)
        });
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

/// A script, to be started with `prefix` before it.
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
        .env("CHANNEL", &channel.0)
        .env("OUTPUT", std::env::temp_dir().join(&channel.0))
        .env("DEVICE", "/dev/no-camera")
        .env("SIZE", "320x240")
        .env("RUN_SECONDS", "40")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        // Elements of GStreamer's that warn are not what is tested.
        .env_remove("G_DEBUG");
    script
}

fn script(words: &str, channel: &Channel) -> Command {
    script_in(&[], words, channel)
}

/// Ends a script as Ctrl-C does: nothing is left then.
#[track_caller]
fn end(mut script: Process, channel: &Channel) -> String {
    let output = script.interrupt();
    assert!(output.contains("Files of the channel left in /dev/shm: 0"), "{output}");
    channel.assert_gone();
    output
}

/// Plays a file to its end, and yields for each of its streams the kind, the first time stamp and the last.
fn streams_of(file: &Path) -> Vec<(String, gst::ClockTime, gst::ClockTime)> {
    let pipeline = Pipeline::new(&format!("filesrc location={} ! parsebin name=parse", file.display()));
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (to, bin) = (seen.clone(), pipeline.0.clone());
    pipeline.element("parse").connect_pad_added(move |_, pad| {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        let media = pad.current_caps().unwrap().structure(0).unwrap().name().to_string();
        let index = {
            let mut streams = to.lock().unwrap();
            streams.push((media, gst::ClockTime::MAX, gst::ClockTime::ZERO));
            streams.len() - 1
        };
        let to = to.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) {
                let (_, first, last) = &mut to.lock().unwrap()[index];
                (*first, *last) = (pts.min(*first), pts.max(*last));
            }
            gst::PadProbeReturn::Ok
        });
    });
    pipeline.0.set_state(gst::State::Playing).unwrap();
    pipeline.wait_eos();
    seen.lock().unwrap().clone()
}

#[test]
fn each_script_says_what_it_does_and_what_it_needs() {
    let channel = Channel::new();
    let folder = Folder::new(&channel);
    // A system on which nothing is installed but gst-inspect-1.0, which knows no element.
    let inspect = folder.file("gst-inspect-1.0");
    std::fs::write(&inspect, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&inspect, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.0.display(), std::env::var("PATH").unwrap());
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
        let said = Process::start(bare).wait_error();
        assert!(said.contains("missing: the GStreamer element"), "{name}: {said}");
        assert!(
            said.contains("sudo apt-get install") && said.contains("gstreamer1.0-plugins-"),
            "{name}: {said}"
        );
    }
}

#[test]
fn a_camera_on_the_screen() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let mut show = script("camera-to-screen.sh", &channel);
    show.env("DISPLAY", screen.display());
    let show = Process::start(show);
    eventually("the screen shows the picture", || {
        screen.picture().shows((0, 0, 320, 240), &BARS)
    });
    end(show, &channel);
}

#[test]
fn a_camera_in_four_programs() {
    let channel = Channel::new();
    let folder = Folder::new(&channel);
    let network = UdpSocket::bind("127.0.0.1:0").unwrap();
    network.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut four = script("camera-to-four-programs.sh", &channel);
    four.env("PORT", network.local_addr().unwrap().port().to_string());
    let four = Process::start(four);
    let mut packet = [0; 2000];
    let (length, _) = network.recv_from(&mut packet).unwrap();
    // RTP, version 2, of type 96.
    assert!(length > 12 && packet[0] >> 6 == 2 && packet[1] & 0x7f == 96);
    eventually("the detector tells something", || {
        four.output().contains("The detector: brightness 0.")
    });
    folder.wait_for("picture-000.png");
    folder.wait_for("part-000.mp4");
    std::thread::sleep(Duration::from_secs(1));
    end(four, &channel);
    let streams = streams_of(&folder.file("part-000.mp4"));
    assert_eq!(streams.len(), 1);
    assert!(
        streams[0].0 == "video/x-h264" && streams[0].2 > gst::ClockTime::from_mseconds(500),
        "{streams:?}"
    );
}

#[test]
fn a_file_again_and_again() {
    let channel = Channel::new();
    let folder = Folder::new(&channel);
    let film = folder.file("film.mkv");
    launch(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! jpegenc ! matroskamux \
         ! filesink location={}",
        film.display()
    ))
    .wait_ok();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} forward-eos=false ! fakesink"));
    let camera = Process::start(script(&format!("file-as-camera.sh {}", film.display()), &channel));
    reader.wait_for_more(75);
    let frames = reader.all();
    assert!(frames.iter().filter(|frame| frame.is_discont()).count() >= 3);
    // At its own speed: the first thirty take a second.
    let took = frames[29].at - frames[0].at;
    assert!(took > gst::ClockTime::from_mseconds(900), "{took}");
    end(camera, &channel);
}

#[test]
fn two_cameras_side_by_side() {
    let (screen, channel) = (Screen::start(640, 240), Channel::new());
    let mut both = script("two-cameras.sh", &channel);
    both.env("DISPLAY", screen.display())
        .env("SECOND_DEVICE", "/dev/no-camera");
    let both = Process::start(both);
    eventually("both are on the screen", || {
        let picture = screen.picture();
        // The second picture is a ball in the dark.
        let bright = (320..640).any(|x| (0..240).any(|y| picture.pixel(x, y).iter().all(|part| *part > 200)));
        picture.shows((0, 0, 320, 240), &BARS) && picture.shows((320, 230, 320, 10), &[[0; 3]; 7]) && bright
    });
    end(both, &channel);
    Channel(format!("{channel}-second")).assert_gone();
}

#[test]
fn a_still_picture() {
    let channel = Channel::new();
    let folder = Folder::new(&channel);
    let (picture, raw) = (folder.file("still.png"), folder.file("still.rgb"));
    let words = format!("still-picture.sh {}", picture.display());
    Process::start(script(&words, &channel)).wait_ok();
    channel.assert_gone();
    // Of a camera that somebody else has.
    let _writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! rsshmsink name={channel}"
    ));
    eventually("the channel is there", || channel.exists());
    let said = Process::start(script(&words, &channel)).wait_ok();
    assert!(said.contains("has a writer already"), "{said}");
    launch(&format!(
        "filesrc location={} ! pngdec ! videoconvert ! video/x-raw,format=RGB ! filesink location={}",
        picture.display(),
        raw.display()
    ))
    .wait_ok();
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
fn sound_beside_the_picture() {
    let channel = Channel::new();
    let folder = Folder::new(&channel);
    let both = Process::start(script("audio-beside-video.sh", &channel));
    folder.wait_for("talk.mkv");
    std::thread::sleep(Duration::from_secs(3));
    end(both, &channel);
    let mut streams = streams_of(&folder.file("talk.mkv"));
    streams.sort();
    let kinds: Vec<&str> = streams.iter().map(|(kind, ..)| &**kind).collect();
    assert_eq!(kinds, ["audio/x-opus", "video/x-h264"]);
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
    // Neither waits for the other, but for what an encoder keeps.
    let apart = sound_ends.absdiff(*picture_ends);
    assert!(apart < gst::ClockTime::from_mseconds(700), "{streams:?}");
}

/// Two machines with a cable between them, as far as the network is concerned; only one where that cannot be had.
struct Network {
    name: String,
    is_there: bool,
}

impl Network {
    fn new(channel: &Channel) -> Self {
        // Names of network devices are short.
        let name = format!(
            "rsshm{}",
            channel
                .0
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
        let is_there = steps.iter().all(|step| ip(step));
        if !is_there {
            eprintln!("two machines are not to be had here (that takes root): both sides are on this one");
        }
        Self { name, is_there }
    }

    /// What is put before a command to run it on machine `a` or `b`, and that machine's address.
    fn machine(&self, which: char) -> (Vec<String>, &'static str) {
        if !self.is_there {
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

/// Sends a channel of one machine to a channel of another, and looks at what arrives.
#[track_caller]
fn arrives_over(script_name: &str, port: u16, sender_is_told: bool) {
    let (near, far) = (Channel::new(), Channel::new());
    let network = Network::new(&near);
    let ((on_a, a), (on_b, b)) = (network.machine('a'), network.machine('b'));
    let (to, from) = if sender_is_told { (b, "") } else { ("", a) };
    let start = |prefix: &[String], words: String, channel: &Channel| {
        let mut script = script_in(prefix, &words, channel);
        script.env("PORT", port.to_string()).env("REMOTE", &near.0);
        Process::start(script)
    };
    let sender = start(&on_a, format!("{script_name} send {to}"), &near);
    eventually("the sender has its camera", || near.exists());
    let receiver = start(&on_b, format!("{script_name} receive {from}"), &far);
    let reader = Tap::playing(&format!("rsshmsrc channel={far} ! fakesink sync=false"));
    reader.wait_for_more(20);
    let picture = reader.last().unwrap();
    // I420 or NV12: the brightness comes first.
    assert_eq!(picture.width(), 320);
    for (bar, expected) in LUMA.iter().enumerate() {
        let seen = picture.bytes[120 * 320 + (2 * bar + 1) * 320 / 14];
        assert!(seen.abs_diff(*expected) < 24, "bar {bar} is {seen}, not {expected}");
    }
    end(receiver, &far);
    end(sender, &near);
}

#[test]
fn to_another_machine_over_rtp() {
    arrives_over("over-rtp.sh", 5204, true);
}

#[test]
fn to_another_machine_over_srt() {
    arrives_over("over-srt.sh", 7201, false);
}

#[test]
fn to_another_machine_over_rtsp() {
    arrives_over("over-rtsp.sh", 8754, false);
}
