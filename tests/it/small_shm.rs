// SPDX-License-Identifier: MIT OR Apache-2.0

//! A /dev/shm of the small size that is usual in containers. The tests check the number of frames that fit, and that
//! programs survive when /dev/shm is full.
//!
//! Each test runs a role in a mount namespace whose /dev/shm has the wanted size.

use std::{path::Path, process::Command};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{
        command, launch, role_command,
        sequence::{assert_complete, assert_nothing_dropped, reader, reader_with, summary, writer},
    },
    need_program, need_root,
    role::{Role, say},
    shm,
};

/// The roles of the processes that these tests start. Their argument is the size of /dev/shm, in the syntax of mount.
pub const ROLES: &[(&str, Role)] = &[
    ("small_shm/long-queues", inside_64m),
    ("small_shm/two-displays", inside_32m),
    ("small_shm/frame-too-large", inside_4m),
    ("small_shm/filled", inside_filled),
    ("small_shm/filled-with-hoarders", inside_filled_with_hoarders),
];

/// The line that a role prints when all its checks have passed.
const PASSED: &str = "ALL CHECKS PASSED";

/// Skips the test unless it may mount a /dev/shm.
macro_rules! need_namespaces {
    () => {
        need_root!("mounts a /dev/shm");
        need_program!("unshare");
    };
}

/// Runs a role in a namespace whose /dev/shm has this size.
#[track_caller]
fn run_with_shm(size: &str, role: &str) {
    let inner = role_command(role, &[size]);
    let mut command = Command::new("unshare");
    command
        .args(shm::OWN_MOUNTS)
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = Process::start(command).wait_ok();
    assert!(output.contains(PASSED), "{output}");
}

/// Checks that the /dev/shm of the namespace is empty, and reports that to the test.
#[track_caller]
fn pass_if_empty() {
    assert_eq!(shm::names(), [] as [String; 0]);
    say(PASSED);
}

/// A reader that never displays a frame. Its queue can hold more frames than fit into the memory.
fn hoarder(channel: &Channel) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} max-held-buffers=64 ! queue max-size-buffers=12 max-size-bytes=0 max-size-time=0 \
         ! fakesink sync=true ts-offset=3600000000000"
    ))
}

#[test]
fn elements_without_dev_shm_say_so() {
    need_namespaces!();
    for (pipeline, words) in [
        (
            "videotestsrc num-buffers=1 ! rsshmsink channel=cam0",
            ["creating /dev/shm/sem.cam0 failed", "mount -t tmpfs"],
        ),
        (
            "rsshmsrc channel=cam0 connection-timeout=1 ! fakesink",
            ["there is no /dev/shm", "mount -t tmpfs"],
        ),
    ] {
        let mut program = command("unshare");
        let run = format!("mount -t tmpfs tmpfs /dev && exec gst-launch-1.0 {pipeline}");
        program.args(shm::OWN_MOUNTS).args(["sh", "-c", &run]);
        let output = Process::start(program).wait_error();
        for word in words {
            assert!(output.contains(word), "{output}");
        }
        assert!(!output.contains("/.rsshm-"), "{output}");
    }
}

#[test]
fn long_queues_of_1080p_bgrx_fit_64_mib() {
    need_namespaces!();
    run_with_shm("64m", "small_shm/long-queues");
}

fn inside_64m(arguments: &[&str]) {
    shm::mount(arguments[0]);
    let channel = Channel::new();
    let caps = "format=BGRx,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "is-live=true num-buffers=48", caps, "");
    let mut hoarders = [hoarder(&channel), hoarder(&channel)];
    let mut other = reader(&channel, "", 0);
    writer.play();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 48);
    assert_complete(&summary(&mut other), 47);
    assert!(hoarders.iter_mut().all(Process::is_running));
    drop(writer);
    pass_if_empty();
}

#[test]
fn two_displays_of_1080p_nv12_fit_32_mib() {
    need_namespaces!();
    run_with_shm("32m", "small_shm/two-displays");
}

fn inside_32m(arguments: &[&str]) {
    shm::mount(arguments[0]);
    let channel = Channel::new();
    let caps = "format=NV12,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "is-live=true num-buffers=40", caps, "");
    // The display waits for the time of each frame and holds the frame that it displays, like a video sink.
    let display = format!("rsshmsrc name={channel} ! queue max-size-buffers=2 ! fakesink name=check sync=true");
    let mut displays = [reader_with(&display, 1), reader_with(&display, 1)];
    writer.play();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 40);
    for display in &mut displays {
        assert_complete(&summary(display), 39);
    }
    drop(writer);
    pass_if_empty();
}

#[test]
fn frame_larger_than_memory_is_error_with_sizes() {
    need_namespaces!();
    run_with_shm("4m", "small_shm/frame-too-large");
}

fn inside_4m(arguments: &[&str]) {
    shm::mount(arguments[0]);
    let channel = Channel::new();
    let caps = "format=NV12,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "num-buffers=10", caps, "");
    let _ = writer.set_state(gst::State::Playing);
    let error = writer.wait_error();
    assert_eq!(
        error.kind::<gst::ResourceError>(),
        Some(gst::ResourceError::NoSpaceLeft),
        "{error}"
    );
    // The needed bytes are those of the tables and of three frames. The free bytes are four mebibytes minus the page of
    // the lock file.
    let wanted: u64 = number_before(error.message(), " bytes are needed");
    let free: u64 = number_before(error.message(), " of 4194304 bytes are free");
    let frame = 1920 * 1080 * 3 / 2;
    assert!((3 * frame..4 * frame).contains(&wanted), "{error}");
    assert!(((4 << 20) - 16384..=4 << 20).contains(&free), "{error}");
    drop(writer);
    pass_if_empty();
}

/// The number before `text` in a message.
#[track_caller]
fn number_before(message: &str, text: &str) -> u64 {
    let before = message.split_once(text).unwrap_or_else(|| panic!("{message}")).0;
    let number = before.rsplit(' ').next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("{message}"))
}

#[test]
fn writer_survives_full_shm() {
    need_namespaces!();
    run_with_shm("64m", "small_shm/filled");
}

fn inside_filled(arguments: &[&str]) {
    shm::mount(arguments[0]);
    assert_survives_full_shm(0);
}

#[test]
fn writer_survives_full_shm_with_greedy_readers() {
    need_namespaces!();
    run_with_shm("64m", "small_shm/filled-with-hoarders");
}

fn inside_filled_with_hoarders(arguments: &[&str]) {
    shm::mount(arguments[0]);
    assert_survives_full_shm(2);
}

/// Fills /dev/shm while frames flow. The stream must continue, even with readers that hold many frames.
#[track_caller]
fn assert_survives_full_shm(hoarders: usize) {
    let channel = Channel::new();
    let caps = "format=NV12,width=1280,height=720,framerate=10/1";
    let writer = writer(&channel, "is-live=true num-buffers=70", caps, "");
    writer.play();
    eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 5);
    let filler = Path::new("/dev/shm/filler");
    shm::fill_up(filler);
    let slots = writer.stat("rsshmsink", "slots");
    // From here on, the hoarders ask for more slots than the channel has.
    let mut hoarders: Vec<Process> = (0..hoarders).map(|_| hoarder(&channel)).collect();
    let mut other = reader(&channel, "", hoarders.len());
    eventually("all readers are connected", || {
        writer.num_clients() == 1 + hoarders.len() as u32
    });
    let before = writer.stat("rsshmsink", "frames-published");
    eventually("20 more frames", || {
        writer.stat("rsshmsink", "frames-published") > before + 20
    });
    assert_eq!(writer.stat("rsshmsink", "slots"), slots);
    std::fs::remove_file(filler).unwrap();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 70);
    assert_complete(&summary(&mut other), 69);
    assert!(hoarders.iter_mut().all(Process::is_running));
    drop(writer);
    pass_if_empty();
}
