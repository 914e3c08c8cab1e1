// SPDX-License-Identifier: MIT OR Apache-2.0

//! The example source for OBS, in the real libobs, which draws on a display of Xvfb.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rsshm_channel::{Caps, FrameDescriptor, ServiceThread, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{Channel, PATIENCE, Process, eventually, need_program, skip, skip::succeeds};

use crate::{
    examples::{Directory, install, pkg_config, with_prefix},
    support::{Program, crate_directory, run},
};

/// A writer whose frames have one colour.
struct Camera {
    writer: Arc<Writer>,
    _service: ServiceThread,
}

impl Camera {
    fn new(channel: &Channel, format: &str, width: usize, height: usize, size: usize) -> Self {
        let writer = Arc::new(Writer::open(channel.0.clone(), WriterOptions::default()).unwrap());
        let caps = format!("video/x-raw,format={format},width={width},height={height},framerate=30/1");
        writer.set_caps(Caps::fixed_size(caps, size)).unwrap();
        let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(20), |_, _| {}).unwrap();
        Self {
            writer,
            _service: service,
        }
    }

    fn publish(&self, frame: &[u8]) {
        let mut slot = self.writer.claim(frame.len()).unwrap().expect("a slot");
        slot.as_mut().copy_from_slice(frame);
        let descriptor = FrameDescriptor::new(frame.len() as u64).with_pts(monotonic_ns());
        self.writer.publish(&slot, descriptor, &[]).unwrap();
    }

    /// Publishes the frame until OBS shows the colour.
    #[track_caller]
    fn shows(&self, obs: &mut Process, frame: &[u8], colour: [u8; 3]) {
        self.publish_until(obs, frame, &colour.map(|part| part.to_string()).join(" "));
    }

    /// Publishes the frame until the program prints the line.
    #[track_caller]
    fn publish_until(&self, obs: &mut Process, frame: &[u8], line: &str) {
        let started = Instant::now();
        let mut seen: Vec<String> = Vec::new();
        while seen.last().is_none_or(|last| last != line) {
            assert!(started.elapsed() < PATIENCE, "OBS shows {seen:?}, not {line}");
            self.publish(frame);
            std::thread::sleep(Duration::from_millis(10));
            seen.extend(obs.try_receive());
        }
    }
}

/// A frame of NV12 without colour. The luma of black is 16, and that of white is 235.
fn nv12(luma: u8, width: usize, height: usize) -> Vec<u8> {
    let mut frame = vec![luma; width * height];
    frame.resize(width * height * 3 / 2, 128);
    frame
}

/// Builds the module as docs/C.md says, and returns the directory in which cmake has put it.
fn build() -> Directory {
    let (prefix, build) = (install(), Directory::new("obs"));
    let source = crate_directory().join("examples/obs");
    let library = prefix.path("lib/librsshm.so.0");
    run(with_prefix("cmake", &prefix)
        .args(["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror"])
        .arg("-S")
        .arg(source)
        .arg("-B")
        .arg(&build.0));
    run(with_prefix("cmake", &prefix).arg("--build").arg(&build.0));
    run(with_prefix("cmake", &prefix)
        .arg("--install")
        .arg(&build.0)
        .arg("--prefix")
        .arg(build.path("installed")));
    std::fs::copy(library, build.path("librsshm.so.0")).unwrap();
    build
}

#[test]
fn obs_shows_channel_and_follows_its_writers() {
    need_program!("Xvfb");
    if !succeeds(Command::new("pkg-config").args(["--exists", "libobs"])) {
        skip!("libobs-dev is not installed");
    }
    let module = build();
    let flags = pkg_config("libobs");
    // OBS's headers have warnings.
    let flags: Vec<&str> = flags
        .iter()
        .flat_map(|flag| match flag.strip_prefix("-I") {
            Some(directory) => vec!["-isystem", directory],
            None => vec![flag.as_str()],
        })
        .chain(["-ldl"])
        .collect();
    let program = Program::with("tests/obs/show.c", &flags);

    let mut server = Command::new("Xvfb");
    server.args([
        "-displayfd",
        "1",
        "-noreset",
        "-nolisten",
        "tcp",
        "-screen",
        "0",
        "640x480x24",
    ]);
    let server = Process::start(server);
    let display = || server.output().lines().find_map(|line| line.trim().parse::<u32>().ok());
    eventually("the X server is ready", || display().is_some());

    let (channel, other) = (Channel::new(), Channel::new());
    let path = module.path("installed/bin/64bit/rsshm-channel.so");
    let mut command = program.command(&[path.to_str().unwrap(), channel.as_str()]);
    command.env("DISPLAY", format!(":{}", display().unwrap()));
    command.env("LD_LIBRARY_PATH", &module.0);
    let mut obs = Process::converse(command);

    let camera = Camera::new(&channel, "BGRx", 80, 50, 80 * 50 * 4);
    camera.shows(&mut obs, &[50, 100, 200, 0].repeat(80 * 50), [200, 100, 50]);
    camera.shows(&mut obs, &[250, 0, 1, 0].repeat(80 * 50), [1, 0, 250]);
    // The picture disappears with the writer. The next writer has another format and size.
    drop(camera);
    eventually("OBS shows nothing", || obs.try_receive().as_deref() == Some("0 0 0"));
    let camera = Camera::new(&channel, "NV12", 32, 24, 32 * 24 * 3 / 2);
    camera.shows(&mut obs, &nv12(235, 32, 24), [255, 255, 255]);
    camera.shows(&mut obs, &nv12(126, 32, 24), [128, 128, 128]);
    // Another channel has a format that OBS does not take.
    let odd = Camera::new(&other, "v308", 32, 24, 32 * 24 * 3);
    obs.send(other.as_str());
    let warning = "rsshm channel: OBS does not take v308; convert it to NV12 or BGRx before the channel";
    odd.publish_until(&mut obs, &[9; 32 * 24 * 3], warning);
    drop(odd);
    let camera_of_other = Camera::new(&other, "GRAY8", 32, 24, 32 * 24);
    camera_of_other.shows(&mut obs, &[77; 32 * 24], [77, 77, 77]);
    drop((camera, camera_of_other));
    obs.send("");
    let output = obs.wait_ok();
    assert!(output.ends_with("\n0 leaks\n"), "{output}");
}
