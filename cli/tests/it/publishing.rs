// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `publish`: what goes in comes out again.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use image::RgbImage;
use nix::sys::signal::Signal;
use rsshm_testkit::{PATIENCE, Process, gst, need_program, wait_until};

use crate::support::{CAPS, Channel, Running, SIZE, rsshm, run};

/// A file of one test, which is removed with the value.
struct TestFile(PathBuf);

impl TestFile {
    fn new(channel: &Channel, extension: &str) -> Self {
        Self(std::env::temp_dir().join(format!("{}.{extension}", channel.0)))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs a command whose stdin and stdout are files.
fn with_files(arguments: &str, input: Option<&TestFile>, output: &TestFile) -> Command {
    let mut command = rsshm(arguments);
    if let Some(input) = input {
        command.stdin(File::open(&input.0).unwrap());
    }
    command.stdout(File::create(&output.0).unwrap());
    command
}

/// Publishes `file` on another channel without a loss, and returns what `cat` with the same form reads from there.
fn round_trip(file: &TestFile, publish: &str, cat: &str) -> Vec<u8> {
    let channel = Channel::new();
    let copy = TestFile::new(&channel, "copy");
    let mut reading = Running::start(with_files(&format!("cat {} {cat}", channel.0), None, &copy));
    let nothing = TestFile::new(&channel, "out");
    let arguments = format!("publish {} - --lossless --wait --fast {publish}", channel.0);
    let mut publishing = Running::start(with_files(&arguments, Some(file), &nothing));
    assert_eq!(publishing.wait(), Some(0));
    assert_eq!(reading.wait(), Some(0), "it ends with the stream");
    channel.assert_removed();
    copy.bytes()
}

#[test]
fn streams_survive_a_round_trip() {
    need_program!("gst-launch-1.0");
    for (format, encoder, cat) in [
        ("I420", "", "--y4m"),
        ("Y42B", "", "--y4m"),
        ("GRAY8", "", "--y4m"),
        ("I420", "jpegenc !", "--mjpeg"),
    ] {
        let channel = Channel::new();
        let _writer = gst::launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,format={format},width=161,height=121,framerate=30/1 ! {encoder} \
             rsshmsink channel={}",
            channel.0
        ));
        let file = TestFile::new(&channel, "stream");
        let arguments = format!("cat {} -n 5 --timeout 20s {cat}", channel.0);
        assert!(with_files(&arguments, None, &file).status().unwrap().success());
        let bytes = file.bytes();
        assert!(bytes.len() > 1000);
        assert!(round_trip(&file, "", cat) == bytes, "{format} {cat}");
    }
}

/// Runs ffmpeg, which reads or writes `file`.
fn ffmpeg(arguments: &str) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace());
    let output = ffmpeg.output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
}

/// The hash of the decoded frames in a file, as ffmpeg sees them.
fn frame_hash(options: &str, file: &TestFile) -> String {
    let mut ffmpeg = Command::new("ffmpeg");
    let arguments = format!("{options} -i {} -f framemd5 -", file.name());
    ffmpeg
        .args(["-v", "error", "-nostdin"])
        .args(arguments.split_whitespace());
    let text = String::from_utf8(ffmpeg.output().unwrap().stdout).unwrap();
    let hashes = text.lines().filter(|line| !line.starts_with('#'));
    let hashes: Vec<_> = hashes
        .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
        .collect();
    assert!(!hashes.is_empty(), "{arguments}: {text}");
    hashes.join(" ")
}

/// What ffmpeg writes goes through a channel, and ffmpeg reads the same frames from the other end.
#[test]
fn ffmpeg_reads_what_ffmpeg_wrote() {
    need_program!("ffmpeg");
    for (pixels, options, publish, cat, read) in [
        ("yuv420p", "-f yuv4mpegpipe", "", "--y4m", "-f yuv4mpegpipe"),
        ("yuvj420p", "-f yuv4mpegpipe", "", "--y4m", "-f yuv4mpegpipe"),
        ("yuv444p", "-f yuv4mpegpipe", "", "--y4m", "-f yuv4mpegpipe"),
        ("yuvj422p", "-f mjpeg", "--fps 30", "--mjpeg", "-f mjpeg"),
        (
            "nv12",
            "-f rawvideo",
            "--caps video/x-raw,format=NV12,width=62,height=34,framerate=30/1",
            "",
            "-f rawvideo -pixel_format nv12 -video_size 62x34",
        ),
    ] {
        let channel = Channel::new();
        let (file, copy) = (TestFile::new(&channel, "in"), TestFile::new(&channel, "out"));
        ffmpeg(&format!(
            "-f lavfi -i testsrc=size=62x34:rate=30 -frames:v 5 -pix_fmt {pixels} {options} {}",
            file.name()
        ));
        let bytes = round_trip(&file, publish, cat);
        fs::write(&copy.0, &bytes).unwrap();
        assert_eq!(frame_hash(read, &copy), frame_hash(read, &file), "{pixels}");
        let is_full = |file: &TestFile| String::from_utf8_lossy(&file.bytes()[..100]).contains("XCOLORRANGE=FULL");
        assert_eq!(is_full(&copy), is_full(&file), "{pixels}");
    }
}

#[test]
fn raw_frames_survive_a_round_trip() {
    let channel = Channel::new();
    let file = TestFile::new(&channel, "raw");
    // Rows of BGR with 5 pixels have no padding here, but in GStreamer's default layout.
    let bytes: Vec<u8> = (0..5 * 3 * 3 * 7).map(|index| index as u8).collect();
    fs::write(&file.0, &bytes).unwrap();
    let caps = "--caps video/x-raw,format=BGR,width=5,height=3,framerate=30/1";
    assert_eq!(round_trip(&file, caps, ""), bytes);
    assert_eq!(
        round_trip(&file, "--caps application/x-test --frame-size 35", ""),
        bytes
    );
}

#[test]
fn picture_becomes_a_channel() {
    let channel = Channel::new();
    let (file, copy) = (TestFile::new(&channel, "png"), TestFile::new(&channel, "copy.png"));
    let picture = RgbImage::from_fn(37, 21, |x, y| image::Rgb([x as u8 * 5, y as u8 * 9, 77]));
    picture.save(&file.0).unwrap();
    let mut publishing = Process::start(rsshm(&format!(
        "publish {} {} --loop --fps 50 --perms 0644",
        channel.0,
        file.name()
    )));
    run(&format!("snapshot {} -o {} --timeout 20s", channel.0, copy.name())).expect(0);
    assert_eq!(image::open(&copy.0).unwrap().into_rgb8(), picture);
    let report = run(&format!("info {} --json", channel.0)).expect(0).json();
    assert_eq!(
        (&report["framerate"], &report["memory"]["mode"]),
        (&"50/1".into(), &"0644".into())
    );

    // Ctrl-C ends the stream for readers, and leaves no files.
    let output = TestFile::new(&channel, "out");
    let mut cat = Running::start(with_files(&format!("cat {}", channel.0), None, &output));
    wait_until("a frame", PATIENCE, || !output.bytes().is_empty());
    publishing.signal(Signal::SIGINT);
    assert_eq!(publishing.wait().code(), Some(130));
    channel.assert_removed();
    assert_eq!(cat.wait(), Some(0), "the stream ends");
}

#[test]
fn frames_leave_at_their_rate() {
    let channel = Channel::new();
    let file = TestFile::new(&channel, "raw");
    fs::write(&file.0, vec![7; SIZE]).unwrap();
    let mut command = rsshm(&format!("publish {} {} --fps 20 --loop -n 9", channel.0, file.name()));
    command.args(["--caps", CAPS]);
    let started = Instant::now();
    Process::start(command).wait_ok();
    // Eight intervals of 50 ms. A busy machine takes longer.
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[test]
fn timestamps_have_the_interval_of_the_rate() {
    let channel = Channel::new();
    let file = TestFile::new(&channel, "raw");
    fs::write(&file.0, vec![7; SIZE]).unwrap();
    let mut echo = Process::start(rsshm(&format!("echo {} -n 5 --json", channel.0)));
    let mut command = rsshm(&format!("publish {} {} --fps 100 --loop", channel.0, file.name()));
    command.args(["--caps", CAPS]);
    let _publishing = Process::start(command);
    let lines: Vec<serde_json::Value> = echo
        .wait_ok()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for pair in lines.windows(2) {
        let [seqs, times] =
            ["seq", "pts_ns"].map(|field| pair[1][field].as_u64().unwrap() - pair[0][field].as_u64().unwrap());
        // A machine that stands still for a second makes the times begin anew.
        assert!(times == seqs * 10_000_000 || times > 1_000_000_000, "{pair:?}");
        assert_eq!(pair[0]["duration_ns"], 10_000_000);
    }
}

#[test]
fn publish_errors_say_what_to_do() {
    let channel = Channel::new();
    let file = TestFile::new(&channel, "raw");
    fs::write(&file.0, b"nothing that is known").unwrap();
    let (name, text) = (channel.to_string(), file.name());
    for (arguments, code, words) in [
        (text.clone(), 2, "--caps"),
        ("/no/such/file.png".to_owned(), 1, "/no/such/file.png"),
        (
            format!("{text} --caps video/x-raw,format=GRAY8,width=64,height=48"),
            1,
            "raw: ",
        ),
        (
            format!("{text} --caps video/x-raw,format=XYZ,width=4,height=4"),
            1,
            "XYZ",
        ),
        (format!("{text} --caps audio/x-test"), 1, "--frame-size"),
        ("- --caps audio/x-test --frame-size 4 --loop".to_owned(), 2, "--loop"),
        ("- --caps audio/x-test --frame-size 4".to_owned(), 1, "no frame"),
        (format!("{text} --fps 0"), 2, "frame rate"),
        (format!("{text} --perms 0999"), 2, "mode"),
        (String::new(), 2, "FILE"),
    ] {
        let run = run(&format!("publish {name} {arguments}")).expect(code);
        assert!(run.stderr.contains(words), "{arguments}: {run:?}");
    }
    channel.assert_removed();
    let _writer = channel.writer();
    let busy = run(&format!("publish {name} {text} --caps audio/x-test --frame-size 4")).expect(1);
    assert!(busy.stderr.contains("already has a writer"), "{busy:?}");
}
