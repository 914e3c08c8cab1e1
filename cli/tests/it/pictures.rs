// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `snapshot` and `cat`: the pictures are compared with those of GStreamer.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use image::RgbImage;
use rsshm_testkit::{PATIENCE, Process, gst, need_program, wait_until};

use crate::support::{Channel, Directory, Run, Running, SIZE, files, rsshm, run};

/// Publishes test pictures of this format.
fn publish(channel: &Channel, caps: &str, encoder: &str) -> Process {
    let writer = gst::launch(&format!(
        "videotestsrc is-live=true ! {caps} ! {encoder} rsshmsink channel={}",
        channel.0
    ));
    run(&format!("wait {} --timeout 20s", channel.0)).expect(0);
    writer
}

/// What GStreamer's own converter makes of the same pictures. The last rows of the test picture are noise.
fn converted(directory: &Directory, caps: &str, width: u32, height: u32) -> RgbImage {
    let file = directory.file("gst.rgb");
    gst::run_to_end(&format!(
        "videotestsrc num-buffers=1 ! {caps} ! videoconvert ! video/x-raw,format=RGBA ! filesink location={file}"
    ));
    let pixels = fs::read(file).unwrap();
    let rgb = pixels.chunks(4).flat_map(|pixel| pixel[..3].to_vec()).collect();
    RgbImage::from_raw(width, height, rgb).unwrap()
}

fn open(file: impl AsRef<Path>) -> RgbImage {
    image::open(file).unwrap().into_rgb8()
}

/// Checks that the bars of the test picture have the same colours. Their edges differ, because chroma is interpolated. For
/// some formats GStreamer's conversion is fast, and wrong by up to four.
#[track_caller]
fn compare_bars(found: &RgbImage, expected: &RgbImage, tolerance: u8, what: &str) {
    assert_eq!(found.dimensions(), expected.dimensions(), "{what}");
    let (width, height) = found.dimensions();
    for bar in 0..7 {
        let (x, y) = (width * (2 * bar + 1) / 14, height / 3);
        let (found, expected) = (found.get_pixel(x, y), expected.get_pixel(x, y));
        let is_close = found
            .0
            .iter()
            .zip(expected.0)
            .all(|(found, expected)| found.abs_diff(expected) <= tolerance);
        assert!(is_close, "{what}, bar {bar}: {found:?} is not {expected:?}");
    }
}

#[test]
fn snapshots_have_the_colours_of_videoconvert() {
    need_program!("gst-launch-1.0");
    for (format, width, height) in [
        ("NV12", 320, 240),
        ("I420", 161, 121),
        ("YUY2", 162, 120),
        ("UYVY", 320, 240),
        ("Y444_10LE", 160, 120),
        ("RGB", 161, 120),
        ("BGRx", 160, 120),
        ("RGB16", 161, 120),
        ("GRAY8", 161, 120),
    ] {
        let channel = Channel::new();
        let directory = Directory::new(&channel);
        let caps = format!("video/x-raw,format={format},width={width},height={height},framerate=30/1");
        let _writer = publish(&channel, &caps, "");
        let file = directory.file("a.png");
        let report = run(&format!("snapshot {} -o {file}", channel.0)).expect(0).stdout;
        assert!(
            report.starts_with(&format!("{file}: {width}x{height} from {format}, frame ")),
            "{report}"
        );
        compare_bars(&open(&file), &converted(&directory, &caps, width, height), 6, format);
        // The stream of YUV4MPEG2 has the same colours, which GStreamer's reader of this form shows. Old versions of this
        // reader do not know gray streams.
        if format == "GRAY8" {
            continue;
        }
        let y4m = directory.file("a.y4m");
        let stream = rsshm(&format!("cat {} --y4m -n 2", channel.0)).output().unwrap();
        assert_eq!(stream.status.code(), Some(0), "{stream:?}");
        fs::write(&y4m, &stream.stdout).unwrap();
        let rgb = directory.file("y4m.rgb");
        gst::run_to_end(&format!(
            "filesrc location={y4m} ! y4mdec ! videoconvert ! video/x-raw,format=RGBA ! filesink location={rgb}"
        ));
        let pixels = fs::read(rgb).unwrap();
        let rgb = pixels[..width as usize * height as usize * 4]
            .chunks(4)
            .flat_map(|pixel| pixel[..3].to_vec());
        let found = RgbImage::from_raw(width, height, rgb.collect()).unwrap();
        compare_bars(&found, &open(&file), 8, &format!("{format} as YUV4MPEG2"));
    }
}

#[test]
fn jpeg_stays_as_it_is() {
    need_program!("gst-launch-1.0");
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    // JPEG has the full range, and the encoder does not convert the range.
    let caps = "video/x-raw,format=I420,width=320,height=240,framerate=30/1,colorimetry=1:4:0:0";
    let _writer = publish(&channel, caps, "jpegenc quality=95 !");
    let (jpg, png) = (directory.file("a.jpg"), directory.file("a.png"));
    run(&format!("snapshot {} -o {jpg}", channel.0)).expect(0);
    run(&format!("snapshot {} -o {png}", channel.0)).expect(0);
    let expected = converted(&directory, caps, 320, 240);
    for file in [&jpg, &png] {
        compare_bars(&open(file), &expected, 12, file);
    }
    let frames = rsshm(&format!("cat {} -n 2 --mjpeg", channel.0))
        .output()
        .unwrap()
        .stdout;
    let starts = frames.windows(3).filter(|bytes| *bytes == [0xff, 0xd8, 0xff]).count();
    assert_eq!((starts, &frames[frames.len() - 2..]), (2, &[0xff, 0xd9][..]));
}

#[test]
fn forms_are_those_of_the_name() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let _writer = channel.writer();
    for (name, first) in [
        ("a.png", &b"\x89PNG"[..]),
        ("a.JPG", b"\xff\xd8\xff"),
        ("a.webp", b"RIFF"),
        ("a.npy", b"\x93NUMPY"),
        ("a.raw", &[1, 1, 1, 1]),
    ] {
        let file = directory.file(name);
        run(&format!("snapshot {} -o {file}", channel.0)).expect(0);
        assert!(fs::read(&file).unwrap().starts_with(first), "{name}");
    }
    assert_eq!(fs::read(directory.file("a.raw")).unwrap(), [1; SIZE]);
    let python = "import numpy, sys; a = numpy.load(sys.argv[1]); print(a.shape, a.dtype, a.min(), a.max())";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", python, &directory.file("a.npy")]);
    assert_eq!(Run::of(command).expect(0).stdout, "(48, 64) uint8 1 1\n");
    let names: Vec<_> = fs::read_dir(&directory.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 5, "no staging file is left: {names:?}");
}

#[test]
fn snapshot_goes_to_stdout_and_is_numbered() {
    let channel = Channel::new();
    let directory = Directory::new(&channel);
    let _writer = channel.live_writer(10);
    let name = channel.to_string();
    let output = rsshm(&format!("snapshot {name} -o - --type raw -n 3"))
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 3 * SIZE));
    // Three different frames.
    let frames: Vec<_> = output.stdout.chunks(SIZE).map(|frame| frame[0]).collect();
    assert!(frames[0] != frames[1] && frames[1] != frames[2], "{frames:?}");
    let file = directory.file("%02d.png");
    let started = Instant::now();
    let report = run(&format!("snapshot {name} -o {file} -n 2 --every 100ms --json"))
        .expect(0)
        .stdout;
    assert_eq!(report.lines().count(), 2, "{report}");
    assert!(Path::new(&directory.file("01.png")).exists() && Path::new(&directory.file("02.png")).exists());
    let [first, second] = [0, 1].map(|index| {
        let report: serde_json::Value = serde_json::from_str(report.lines().nth(index).unwrap()).unwrap();
        report["seq"].as_u64().unwrap()
    });
    assert!(second > first, "{first} {second}");
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn snapshot_errors_say_what_to_do() {
    let channel = Channel::new();
    let name = channel.to_string();
    run(&format!("snapshot {name} -o a.png --timeout 50ms")).expect(3);
    let _writer = channel.writer();
    for (arguments, code, words) in [
        ("-o a.xyz", 2, "--type png"),
        ("-o a.png -n 2", 2, "frame-%03d.png"),
        ("-o /no/such/directory/a.png", 1, "/no/such/directory/a.png"),
        ("", 2, "--output"),
    ] {
        let run = run(&format!("snapshot {name} {arguments}")).expect(code);
        assert!(run.stderr.contains(words), "{run:?}");
    }
}

#[test]
fn cat_writes_every_frame_until_the_end() {
    let channel = Channel::new();
    let mut cat = Process::start(rsshm(&format!("cat {}", channel.0)));
    let mut writer = channel.writer();
    for frame in 2..=20 {
        wait_until("frame", PATIENCE, || cat.output().len() == (frame - 1) * SIZE);
        writer.send("");
        writer.expect(&frame.to_string());
    }
    wait_until("frame", PATIENCE, || cat.output().len() == 20 * SIZE);
    writer.kill();
    let bytes = cat.wait_ok().into_bytes();
    let found: Vec<_> = bytes.chunks(SIZE).map(|frame| (frame[0], frame[SIZE - 1])).collect();
    assert_eq!(found, (1..=20).map(|value| (value, value)).collect::<Vec<_>>());
}

#[test]
fn cat_ends_with_its_pipe_and_refuses_other_formats() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let name = channel.to_string();
    let mut command = rsshm(&format!("cat {name}"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cat = Running::start(command);
    let mut stdout = cat.0.stdout.take().unwrap();
    stdout.read_exact(&mut [0; SIZE]).unwrap();
    drop(stdout);
    writer.send("");
    writer.expect("2");
    assert_eq!(cat.wait(), Some(0));
    assert_eq!(std::io::read_to_string(cat.0.stderr.take().unwrap()).unwrap(), "");

    let mut cat = Process::start(rsshm(&format!("cat {name}")));
    wait_until("a frame", PATIENCE, || cat.output().len() >= SIZE);
    writer.send("caps");
    writer.expect("3");
    assert!(cat.wait_error().contains("its format changed from"));
    run(&format!("cat {name} --y4m --mjpeg")).expect(2);
    run("cat rsshm-cli-test-none --timeout 50ms").expect(3);
}

#[test]
fn observing_cat_and_snapshot_change_no_byte() {
    let channel = Channel::new();
    let writer = channel.writer();
    writer.stop();
    let before = files(&channel);
    for arguments in ["cat --observe -n 1", "snapshot -o -"] {
        let output = rsshm(&format!("{arguments} {}", channel.0)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert!(files(&channel) == before, "the files have changed");
}
