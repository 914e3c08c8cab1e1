// SPDX-License-Identifier: MIT OR Apache-2.0

//! One camera and readers of each kind, each in its own process. The readers are an output device that imports the
//! buffers, a converter, a program in Python and one in C. Beside them are readers that are stopped, that hold all frames
//! that they can get, and that are killed.
//!
//! Each reader prints the offset and a checksum of each frame. A frame without its line, or with another checksum than the
//! camera's, fails the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::prelude::*;
use rsshm_channel::{ChannelName, FrameData, Next, ObjectFrame, ReadLimits, ReaderOptions};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::Pipeline,
    role::{self, Role},
    wait_until,
};

use crate::device::{CAMERA, OUTPUT, control};

pub const ROLES: &[(&str, Role)] = &[("readers/pipeline", pipeline), ("readers/holder", holder)];

/// How long the test with all readers lasts, in seconds. `make camera-soak` sets it.
const SECONDS: &str = "RSSHM_SOAK_SECONDS";
/// The size and the frame rate of the camera. The emulated machine checks each byte of each frame in many programs, so this is
/// the smallest size of the driver.
const SIZE: &str = "width=320,height=180,framerate=10/1";
const FRAMES_PER_SECOND: u64 = 10;
/// The most buffers of a V4L2 device before Linux 6.8.
const MOST_BUFFERS: usize = 32;
/// The open files of the camera's process for each buffer: that of v4l2src, and that of the channel.
const FILES_OF_BUFFER: usize = 2;
/// How many of the first frames are kept to check what a converter makes of them.
const KEPT_FRAMES: usize = 10;

/// The position-dependent sum of a frame's bytes that `reader.c` and `reader.py` compute too.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let mut weight = 1u64;
    let mut sum = bytes.len() as u64;
    for word in words {
        sum = sum.wrapping_add(u64::from_ne_bytes(*word).wrapping_mul(weight));
        weight += 2;
    }
    sum
}

/// In the process of a reader: prints a line for each buffer that leaves a pad.
fn print_frames(pad: &gst::Pad, word: &'static str) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        let sum = checksum(&buffer.map_readable().unwrap());
        role::say(format!("{word} {} {sum}", buffer.offset()));
        gst::PadProbeReturn::Ok
    });
}

/// A reader with the elements `arguments[0]`. If one of them is named `converter`, its pictures are printed too.
fn pipeline(arguments: &[&str]) {
    let pipeline = Pipeline::new(arguments[0]);
    print_frames(&pipeline.pad("rsshmsrc", "src"), "frame");
    if let Some(converter) = pipeline.by_name("converter") {
        print_frames(&converter.static_pad("src").unwrap(), "picture");
    }
    pipeline.play();
    role::say("ready");
    while role::listen() == "stats" {
        let [missed, copied, skipped] =
            ["frames-missed", "frames-copied", "frames-skipped"].map(|field| pipeline.stat("rsshmsrc", field));
        role::say(format!("stats {missed} {copied} {skipped}"));
    }
}

/// A reader of the channel `arguments[0]` that keeps each frame that it gets by descriptor. Other frames are copies.
fn holder(arguments: &[&str]) {
    let limits = ReadLimits::default().accepts_objects(true).max_held(64);
    let mut reader = rsshm_channel::Reader::new(ChannelName::new(arguments[0]).unwrap(), ReaderOptions::default());
    let mut held = Vec::new();
    role::say("ready");
    for turn in 0usize.. {
        let mut copy = Vec::new();
        let Next::Frame(frame) = reader.next(&mut copy, limits, None).unwrap() else {
            continue;
        };
        let offset = frame.descriptor.offset;
        if let FrameData::Objects(objects) = frame.data {
            copy = copy_of(&objects);
            held.push((offset, checksum(&copy), objects));
            role::say(format!("held {offset}"));
        }
        role::say(format!("frame {offset} {}", checksum(&copy)));
        // The camera must not write into a frame that is held.
        if let Some((offset, sum, objects)) = held.get(turn % held.len().max(1))
            && checksum(&copy_of(objects)) != *sum
        {
            role::say(format!("changed {offset}"));
        }
    }
}

fn copy_of(objects: &ObjectFrame) -> Vec<u8> {
    let mut copy = vec![0; objects.parts().iter().map(|part| part.size() as usize).sum()];
    objects.copy(&mut copy).unwrap();
    copy
}

/// A frame as the camera delivered it.
struct Captured {
    checksum: u64,
    pts: gst::ClockTime,
    /// The bytes of the first frames.
    bytes: Option<Vec<u8>>,
}

/// The camera in this process, and what it has delivered.
struct Camera {
    pipeline: Pipeline,
    captured: Arc<Mutex<BTreeMap<u64, Captured>>>,
}

impl Camera {
    #[track_caller]
    fn playing(channel: &Channel, source: &str, sink: &str) -> Self {
        // The output device takes only this colour space. The bars move, so that each row of each frame is a new one.
        control(CAMERA, "colorspace=1");
        control(CAMERA, "horizontal_movement=6");
        let pipeline = Pipeline::new(&format!(
            "v4l2src device={CAMERA} {source} ! video/x-raw,format=YUY2,{SIZE} ! rsshmsink channel={channel} {sink}"
        ));
        let captured = Arc::new(Mutex::new(BTreeMap::new()));
        let in_probe = Arc::clone(&captured);
        pipeline
            .pad("v4l2src", "src")
            .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let buffer = info.buffer().unwrap();
                let bytes = buffer.map_readable().unwrap();
                let mut captured = in_probe.lock().unwrap();
                let frame = Captured {
                    checksum: checksum(&bytes),
                    pts: buffer.pts().unwrap(),
                    bytes: (captured.len() < KEPT_FRAMES).then(|| bytes.to_vec()),
                };
                let twice = captured.insert(buffer.offset(), frame);
                assert!(twice.is_none(), "two frames {}", buffer.offset());
                gst::PadProbeReturn::Ok
            });
        pipeline.play();
        Self { pipeline, captured }
    }

    fn count(&self) -> usize {
        self.captured.lock().unwrap().len()
    }

    /// The offset of the newest frame.
    fn newest(&self) -> u64 {
        self.captured.lock().unwrap().keys().next_back().copied().unwrap_or(0)
    }

    fn stat(&self, field: &str) -> u64 {
        self.pipeline.stat("rsshmsink", field)
    }

    /// Checks that the driver has delivered each frame from `first` to `last`, at its frame rate.
    #[track_caller]
    fn assert_no_frame_lost(&self, first: u64, last: u64) {
        let captured = self.captured.lock().unwrap();
        let frames: Vec<_> = captured.range(first..=last).collect();
        assert_eq!(frames.len() as u64, last + 1 - first, "frames from {first} to {last}");
        let gaps: Vec<_> = frames
            .windows(2)
            .filter(|pair| *pair[1].0 != pair[0].0 + 1)
            .map(|pair| (pair[0].0, pair[1].0))
            .collect();
        assert!(gaps.is_empty(), "the camera lost frames: {gaps:?}");
        let time = frames[frames.len() - 1].1.pts - frames[0].1.pts;
        let expected = gst::ClockTime::SECOND * (frames.len() as u64 - 1) / FRAMES_PER_SECOND;
        println!("camera: {} frames in {time}", frames.len());
        assert!(time.absdiff(expected) < gst::ClockTime::from_mseconds(50), "{time}");
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        // A change of the colour space would restart a camera that captures.
        if !std::thread::panicking() {
            control(CAMERA, "horizontal_movement=3");
            control(CAMERA, "colorspace=2");
        }
    }
}

/// A frame as a reader printed it: its offset and its checksum, and behind them what a program in C or Python prints.
type Seen = Vec<u64>;

/// A reader in its own process.
struct Reader {
    name: &'static str,
    process: Process,
}

impl Reader {
    #[track_caller]
    fn new(name: &'static str, command: Command) -> Self {
        let mut process = Process::converse(command);
        process.expect("ready");
        Self { name, process }
    }

    /// A pipeline that begins with rsshmsrc.
    #[track_caller]
    fn pipeline(name: &'static str, channel: &Channel, downstream: &str) -> Self {
        let description = format!("rsshmsrc channel={channel} ! {downstream}");
        Self::new(name, role::command("readers/pipeline", &[&description]))
    }

    /// A converter, whose pictures are printed too.
    #[track_caller]
    fn converter(channel: &Channel) -> Self {
        let downstream = "videoconvert name=converter ! video/x-raw,format=RGB ! fakesink sync=false";
        Self::pipeline("videoconvert", channel, downstream)
    }

    /// A program that keeps all frames that it can get.
    #[track_caller]
    fn holder(name: &'static str, channel: &Channel) -> Self {
        Self::new(name, role::command("readers/holder", &[&channel.to_string()]))
    }

    /// The program in C.
    #[track_caller]
    fn c(name: &'static str, channel: &Channel) -> Self {
        let mut command = Command::new(project().join("target/camera-vm/reader"));
        command.arg(channel.to_string());
        Self::new(name, command)
    }

    /// The program in Python.
    #[track_caller]
    fn python(name: &'static str, channel: &Channel) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(project().join("tests/camera/reader.py"))
            .arg(channel.to_string())
            .env("PYTHONPATH", project().join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::new(name, command)
    }

    /// The frames (or the converted pictures) that it has printed.
    fn seen(&self, word: &str) -> Vec<Seen> {
        let output = self.process.output();
        // The last line may be incomplete.
        let lines = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
        lines
            .split('\n')
            .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
            .map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect())
            .collect()
    }

    /// The offset of the newest frame.
    fn newest(&self) -> u64 {
        let output = self.process.output();
        // The last line may be incomplete.
        let lines = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let mut numbers = lines.rsplit('\n').filter_map(|line| line.strip_prefix("frame "));
        numbers
            .next()
            .map_or(0, |line| line.split(' ').next().unwrap().parse().unwrap())
    }

    /// Checks the bytes of each frame, and that none from `first` to `last` is missing.
    #[track_caller]
    fn assert_all_frames(&self, camera: &Camera, first: u64, last: u64) {
        let seen = self.seen("frame");
        self.assert_bytes(camera, &seen);
        let offsets: BTreeSet<u64> = seen.iter().map(|frame| frame[0]).collect();
        assert_eq!(offsets.len(), seen.len(), "{} got a frame twice", self.name);
        let missing: Vec<u64> = (first..=last).filter(|offset| !offsets.contains(offset)).collect();
        assert!(missing.is_empty(), "{} lost the frames {missing:?}", self.name);
        // A program in C or Python prints seq and the number of missed frames too.
        if let Some(frame) = seen.iter().find(|frame| frame[0] == first && frame.len() > 2) {
            let base = frame[2].wrapping_sub(frame[0]);
            let regular = seen.iter().filter(|frame| (first..=last).contains(&frame[0]));
            for frame in regular {
                assert_eq!(frame[2].wrapping_sub(frame[0]), base, "{}: seq of {frame:?}", self.name);
                assert_eq!(frame[3], 0, "{}: missed before {frame:?}", self.name);
                // The bytes of the descriptor, if the frame is in one.
                assert!(
                    [0, frame[1]].contains(&frame[5]),
                    "{}: the descriptor of {frame:?}",
                    self.name
                );
            }
        }
    }

    /// Checks the bytes of frames that the reader has printed.
    #[track_caller]
    fn assert_bytes(&self, camera: &Camera, seen: &[Seen]) {
        let captured = camera.captured.lock().unwrap();
        for frame in seen {
            let sent = captured
                .get(&frame[0])
                .unwrap_or_else(|| panic!("{}: frame {} was not captured", self.name, frame[0]));
            assert_eq!(sent.checksum, frame[1], "{}: frame {} differs", self.name, frame[0]);
        }
    }

    /// Checks that the camera has not written into a frame that the reader held.
    #[track_caller]
    fn assert_held_frames_unchanged(&self) {
        let changed = self.seen("changed");
        assert!(changed.is_empty(), "{}: the held frames {changed:?} changed", self.name);
    }

    /// How many frames a pipeline has missed, copied and skipped.
    #[track_caller]
    fn stats(&mut self) -> Vec<u64> {
        self.process.send("stats");
        loop {
            if let Some(numbers) = self.process.receive().strip_prefix("stats ") {
                return numbers.split(' ').map(|number| number.parse().unwrap()).collect();
            }
        }
    }
}

fn project() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The open files and the mappings of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Resources {
    files: usize,
    dmabuf_files: usize,
    mappings_of_files: usize,
    dmabuf_mappings: usize,
    /// Those without a file. For the process of the test, they are not counted, because its lists of frames grow.
    other_mappings: usize,
}

impl Resources {
    #[track_caller]
    fn of(pid: i32) -> Self {
        let mut resources = Self::default();
        for file in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            // The process may have closed the file meanwhile.
            let Ok(target) = fs::read_link(file.unwrap().path()) else {
                continue;
            };
            let count = match target.to_string_lossy().starts_with("/dmabuf:") {
                true => &mut resources.dmabuf_files,
                false => &mut resources.files,
            };
            *count += 1;
        }
        for mapping in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let count = match mapping.split_whitespace().nth(5) {
                Some(path) if path.starts_with("/dmabuf:") => &mut resources.dmabuf_mappings,
                Some(path) if path.starts_with('/') => &mut resources.mappings_of_files,
                _ => &mut resources.other_mappings,
            };
            *count += 1;
        }
        if pid as u32 == std::process::id() {
            resources.other_mappings = 0;
        }
        resources
    }
}

/// Checks that what a converter made of the first frames is what GStreamer makes of them without a channel.
#[track_caller]
fn assert_pictures(camera: &Camera, pictures: &[Seen]) {
    let from = format!("video/x-raw,format=YUY2,{SIZE}").parse::<gst::Caps>().unwrap();
    // The colour space of the camera is in its caps.
    let from = camera.pipeline.pad("v4l2src", "src").current_caps().unwrap_or(from);
    let to = format!("video/x-raw,format=RGB,{SIZE}").parse::<gst::Caps>().unwrap();
    let captured = camera.captured.lock().unwrap();
    let mut checked = 0;
    for picture in pictures {
        let Some(bytes) = captured.get(&picture[0]).and_then(|frame| frame.bytes.clone()) else {
            continue;
        };
        let sample = gst::Sample::builder()
            .buffer(&gst::Buffer::from_slice(bytes))
            .caps(&from)
            .build();
        let converted = gst_video::convert_sample(&sample, &to, Some(gst::ClockTime::from_seconds(60))).unwrap();
        let bytes = converted.buffer().unwrap().map_readable().unwrap();
        assert_eq!(checksum(&bytes), picture[1], "the picture of frame {}", picture[0]);
        checked += 1;
    }
    assert!(checked > 0, "no picture was checked");
}

/// The good readers of a test.
fn all_kinds(channel: &Channel) -> Vec<Reader> {
    vec![
        Reader::pipeline(
            "v4l2sink",
            channel,
            &format!("v4l2sink device={OUTPUT} io-mode=dmabuf-import sync=false"),
        ),
        Reader::converter(channel),
        Reader::python("Python", channel),
        Reader::c("C", channel),
    ]
}

#[track_caller]
fn wait_for_frames(readers: &[&Reader], camera: &Camera, count: u64) {
    let until = camera.newest() + count;
    eventually("frames arrive at all readers", || {
        readers.iter().all(|reader| reader.newest() >= until)
    });
}

/// After which times everything is checked: each minute, and at the end.
fn checks(seconds: u64) -> impl Iterator<Item = Duration> {
    let minutes = (60..seconds).step_by(60);
    minutes.chain([seconds]).map(Duration::from_secs)
}

/// Starts a reader that holds all frames that it can get, and kills it. Returns whether it has held one.
#[track_caller]
fn kill_reader(channel: &Channel, camera: &Camera) -> bool {
    let mut killed = Reader::holder("killed", channel);
    eventually("the reader to kill has frames", || killed.seen("frame").len() >= 5);
    killed.process.kill();
    killed.assert_bytes(camera, &killed.seen("frame"));
    killed.assert_held_frames_unchanged();
    !killed.seen("held").is_empty()
}

/// The files and mappings of the readers and, at the end, of the camera.
type AllResources = Vec<(&'static str, Resources)>;

/// What the readers and the camera have open.
fn all_resources(readers: &[&Reader]) -> AllResources {
    let pids = readers
        .iter()
        .map(|reader| (reader.name, reader.process.pid().as_raw()));
    pids.chain([("camera", std::process::id() as i32)])
        .map(|(name, pid)| (name, Resources::of(pid)))
        .collect()
}

/// What the camera's process has open.
fn camera_entry(resources: &AllResources) -> Resources {
    resources.last().unwrap().1
}

/// How many buffers the camera has.
fn buffers(resources: &AllResources) -> usize {
    camera_entry(resources).dmabuf_files / FILES_OF_BUFFER
}

/// Which processes have other files and mappings than before, except those of further buffers of the camera.
///
/// v4l2src allocates another buffer if the driver has few, and frees none until it stops. So its pool grows if readers hold
/// more frames at a time than ever before. A process opens and maps each buffer as often as each other one. It may have
/// fewer, because a reader forgets buffers that have not been used for long when it gets another one.
fn grown(before: &AllResources, after: &AllResources) -> Vec<(&'static str, Resources)> {
    assert!(buffers(after) <= MOST_BUFFERS, "{} buffers", buffers(after));
    let (buffers_before, buffers_after) = (buffers(before), buffers(after));
    let is_as_expected = |name, before: Resources, after: Resources| {
        // A stopped reader has what it had.
        let has_all = name != "stopped";
        let of_buffers = |count| {
            if has_all {
                count * buffers_after / buffers_before
            } else {
                count
            }
        };
        let most = Resources {
            dmabuf_files: of_buffers(before.dmabuf_files),
            dmabuf_mappings: of_buffers(before.dmabuf_mappings),
            ..before
        };
        let most_with_fewer_buffers = Resources {
            dmabuf_files: most.dmabuf_files.min(after.dmabuf_files),
            dmabuf_mappings: most.dmabuf_mappings.min(after.dmabuf_mappings),
            ..most
        };
        after == most_with_fewer_buffers
    };
    let pairs = before.iter().zip(after);
    pairs
        .filter(|(before, after)| !is_as_expected(before.0, before.1, after.1))
        .map(|(_, after)| *after)
        .collect()
}

/// Checks that the readers and the camera soon have no other files and mappings than before.
#[track_caller]
fn assert_nothing_grows(before: &AllResources, readers: &[&Reader]) {
    let mut last = Vec::new();
    // A connection of a killed reader may be open for a moment.
    wait_until("no process has more open than before", Duration::from_secs(1), || {
        let now = all_resources(readers);
        let grown = grown(before, &now);
        if grown.is_empty() {
            println!("{} buffers: {now:?}", buffers(&now));
        } else if grown != last {
            println!("grown: {grown:?}");
        }
        last = grown;
        last.is_empty()
    });
}

/// What the readers and the camera have open when killed readers, which hold all frames that they can get, change nothing
/// any more. If a buffer were lost with each of them, this would not happen.
#[track_caller]
fn settled_resources(channel: &Channel, camera: &Camera, readers: &[&Reader]) -> AllResources {
    let mut last = all_resources(readers);
    let mut unchanged = 0;
    for kills in 1..=20 {
        kill_reader(channel, camera);
        let now = all_resources(readers);
        unchanged = if now == last { unchanged + 1 } else { 0 };
        if unchanged == 3 {
            println!("settled after {kills} killed readers: {now:?}");
            return now;
        }
        last = now;
    }
    panic!("the files and mappings still change: {last:?}");
}

#[test]
#[ignore = "make test-camera"]
fn bad_readers_cost_camera_no_frame() {
    let seconds = env::var(SECONDS).map_or(3, |text| text.parse().unwrap());
    let channel = Channel::new();
    let mut good = all_kinds(&channel);
    let stopped = Reader::pipeline("stopped", &channel, "fakesink sync=false");
    let greedy = Reader::holder("greedy", &channel);
    let camera = Camera::playing(&channel, "io-mode=dmabuf", "descriptors=always");
    let everyone: Vec<&Reader> = good.iter().chain([&stopped, &greedy]).collect();
    wait_for_frames(&everyone, &camera, 10);
    stopped.process.stop();
    let observed: Vec<&Reader> = good.iter().chain([&greedy, &stopped]).collect();
    let before = settled_resources(&channel, &camera, &observed);
    let first = camera.newest() + 1;
    let started = Instant::now();
    let (mut kills, mut kills_with_frame) = (0, 0);
    for until in checks(seconds) {
        while started.elapsed() < until {
            kills_with_frame += usize::from(kill_reader(&channel, &camera));
            kills += 1;
        }
        println!("{until:?}: {kills} killed readers, {kills_with_frame} of them with a frame");
        let last = camera.newest();
        wait_for_frames(&good.iter().collect::<Vec<_>>(), &camera, 1);
        camera.assert_no_frame_lost(first, last);
        for reader in &good {
            reader.assert_all_frames(&camera, first, last);
        }
        assert_nothing_grows(&before, &observed);
        // Beside the frames of the greedy reader, only the newest frame, the next one and that of the stopped reader are out.
        let held = greedy.seen("held").len() as u64;
        eventually("the frames of killed readers are back", || {
            camera.stat("slots-in-use") <= held + 3
        });
    }
    assert_pictures(&camera, &good[1].seen("picture"));

    greedy.assert_bytes(&camera, &greedy.seen("frame"));
    greedy.assert_held_frames_unchanged();
    let held = greedy.seen("held").len();
    println!("greedy: {held} frames held");
    assert!(held > 0 && kills_with_frame > 0, "no reader has held a frame");
    stopped.process.resume();
    wait_for_frames(&[&stopped], &camera, 10);
    stopped.assert_bytes(&camera, &stopped.seen("frame"));
    for reader in &mut good[..2] {
        let stats = reader.stats();
        println!("{}: missed, copied, skipped {stats:?}", reader.name);
        assert_eq!(stats[0], 0, "{} missed frames", reader.name);
    }
    for reader in &good[2..] {
        let seen = reader.seen("frame");
        let in_place = seen.iter().filter(|frame| frame[4] == 1).count();
        let by_descriptor = seen.iter().filter(|frame| frame[5] != 0).count();
        println!("{}: {in_place} of {} frames in place", reader.name, seen.len());
        assert!(in_place > 0, "{} copies all frames", reader.name);
        assert_eq!(by_descriptor, in_place, "{}: frames with a descriptor", reader.name);
    }
    eventually("all frames are counted", || {
        camera.stat("frames-by-descriptor") == camera.stat("frames-published")
    });
    // A frame may be on its way from the camera to the channel.
    assert!(camera.stat("frames-published") + 1 >= camera.count() as u64);
    assert_eq!((camera.stat("frames-copied"), camera.stat("frames-in-place")), (0, 0));
    println!("{}", camera.pipeline.stats("rsshmsink"));
}

/// With io-mode=mmap, v4l2src does not show the descriptors of its buffers. Each frame is copied once, so that even readers
/// that hold all their frames take no buffer from the camera.
#[test]
#[ignore = "make test-camera"]
fn frames_without_descriptor_are_copied_once() {
    let channel = Channel::new();
    let good = [Reader::converter(&channel), Reader::c("C", &channel)];
    let camera = Camera::playing(&channel, "io-mode=mmap", "");
    wait_for_frames(&good.iter().collect::<Vec<_>>(), &camera, 5);
    let first = camera.newest() + 1;
    wait_for_frames(&good.iter().collect::<Vec<_>>(), &camera, 20);
    let last = first + 15;
    for reader in &good {
        reader.assert_all_frames(&camera, first, last);
    }
    for reader in &good[1..] {
        let with_descriptor = reader.seen("frame").iter().any(|frame| frame[5] != 0);
        assert!(!with_descriptor, "{} has a descriptor of a slot", reader.name);
    }
    camera.assert_no_frame_lost(first, last);
    assert_pictures(&camera, &good[0].seen("picture"));
    eventually("all frames are counted", || {
        camera.stat("copied-foreign") == camera.stat("frames-published")
    });
    for field in [
        "frames-by-descriptor",
        "frames-in-place",
        "copied-repeated",
        "copied-no-slot",
    ] {
        assert_eq!(camera.stat(field), 0, "{field}");
    }
}

/// Without io-mode, v4l2src exports its buffers if the driver can do it.
#[test]
#[ignore = "make test-camera"]
fn frames_go_by_descriptor_without_io_mode() {
    let channel = Channel::new();
    let reader = Reader::c("C", &channel);
    let camera = Camera::playing(&channel, "", "");
    wait_for_frames(&[&reader], &camera, 5);
    let first = camera.newest() + 1;
    wait_for_frames(&[&reader], &camera, 15);
    reader.assert_all_frames(&camera, first, first + 10);
    assert!(
        reader.seen("frame").iter().all(|frame| frame[5] == frame[1]),
        "a frame has no descriptor"
    );
    eventually("all frames are counted", || {
        camera.stat("frames-by-descriptor") == camera.stat("frames-published")
    });
    assert_eq!((camera.stat("frames-copied"), camera.stat("frames-in-place")), (0, 0));
}
