//! A /dev/shm as small as a container's: what fits, and what happens when nothing fits any more.
//!
//! Each test runs a second time as an ignored entry, in a mount namespace whose /dev/shm has the size that is wanted.

mod common;
mod numbered;

use std::{fs::File, io::Write, process::Command};

use common::{Channel, Process, eventually, launch};
use gst::prelude::*;
use numbered::{assert_complete, assert_nothing_dropped, entry_command, reader, reader_with, summary, writer};

/// Set for the processes that run in the namespace.
const INSIDE: &str = "RSSHM_TEST_SMALL_SHM";

/// Runs the ignored test `entry` where /dev/shm has `size`.
#[track_caller]
fn with_shm_of(size: &str, entry: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a /dev/shm of the test's own takes root");
        return;
    }
    let inner = entry_command(entry);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o size=$0 tmpfs /dev/shm && exec \"$@\"")
        .arg(size)
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env(INSIDE, size);
    let output = Process::start(command).wait_ok();
    assert!(output.contains("1 passed"), "{output}");
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Nothing but `channel`'s files may be in the namespace's /dev/shm, and not these.
#[track_caller]
fn assert_empty() {
    let left: Vec<_> = std::fs::read_dir("/dev/shm").unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Far more frames than there is room for, in the queue of a reader that never shows one.
fn hoarder(channel: &Channel) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} max-held-buffers=64 ! queue max-size-buffers=12 max-size-bytes=0 max-size-time=0 \
         ! fakesink sync=true ts-offset=3600000000000"
    ))
}

#[test]
fn long_queues_at_1080p_bgrx_in_64_mib() {
    with_shm_of("64m", "inside_64m");
}

#[test]
#[ignore = "runs in a namespace that another test makes"]
fn inside_64m() {
    if !is_inside() {
        return;
    }
    let channel = Channel::new();
    let caps = "format=BGRx,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "is-live=true num-buffers=48", caps, "");
    let mut hoarders = [hoarder(&channel), hoarder(&channel)];
    let mut other = reader(&channel, "", 0);
    writer.0.set_state(gst::State::Playing).unwrap();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 48);
    assert_complete(&summary(&mut other), 47);
    assert!(hoarders.iter_mut().all(Process::is_running));
    drop(writer);
    assert_empty();
}

#[test]
fn two_displays_at_1080p_nv12_in_32_mib() {
    with_shm_of("32m", "inside_32m");
}

#[test]
#[ignore = "runs in a namespace that another test makes"]
fn inside_32m() {
    if !is_inside() {
        return;
    }
    let channel = Channel::new();
    let caps = "format=NV12,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "is-live=true num-buffers=40", caps, "");
    // As a video sink does: it waits for each frame's time, and keeps the one that it shows.
    let display = format!("rsshmsrc name={channel} ! queue max-size-buffers=2 ! fakesink name=check sync=true");
    let mut displays = [reader_with(&display, 1), reader_with(&display, 1)];
    writer.0.set_state(gst::State::Playing).unwrap();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 40);
    for display in &mut displays {
        assert_complete(&summary(display), 39);
    }
    drop(writer);
    assert_empty();
}

#[test]
fn a_frame_that_does_not_fit_is_an_error_with_numbers() {
    with_shm_of("4m", "inside_4m");
}

#[test]
#[ignore = "runs in a namespace that another test makes"]
fn inside_4m() {
    if !is_inside() {
        return;
    }
    let channel = Channel::new();
    let caps = "format=NV12,width=1920,height=1080,framerate=8/1";
    let writer = writer(&channel, "num-buffers=10", caps, "");
    let _ = writer.0.set_state(gst::State::Playing);
    let error = writer.wait_error();
    assert_eq!(
        error.kind::<gst::ResourceError>(),
        Some(gst::ResourceError::NoSpaceLeft),
        "{error}"
    );
    // Three frames and the control area; what is free of four mebibytes, but for the semaphore's page.
    let wanted: u64 = seq_before(error.message(), " bytes are needed");
    let free: u64 = seq_before(error.message(), " of 4194304 bytes are free");
    let frame = 1920 * 1080 * 3 / 2;
    assert!((3 * frame..4 * frame).contains(&wanted), "{error}");
    assert!(((4 << 20) - 16384..=4 << 20).contains(&free), "{error}");
    drop(writer);
    assert_empty();
}

/// The number that stands before `text` in a message.
#[track_caller]
fn seq_before(message: &str, text: &str) -> u64 {
    let before = message.split_once(text).unwrap_or_else(|| panic!("{message}")).0;
    let number = before.rsplit(' ').next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("{message}"))
}

#[test]
fn goes_on_when_somebody_fills_dev_shm() {
    with_shm_of("64m", "inside_filled");
}

#[test]
#[ignore = "runs in a namespace that another test makes"]
fn inside_filled() {
    if is_inside() {
        goes_on_when_filled(0);
    }
}

#[test]
fn greedy_readers_when_somebody_has_filled_dev_shm() {
    with_shm_of("64m", "inside_filled_with_hoarders");
}

#[test]
#[ignore = "runs in a namespace that another test makes"]
fn inside_filled_with_hoarders() {
    if is_inside() {
        goes_on_when_filled(2);
    }
}

#[track_caller]
fn goes_on_when_filled(hoarders: usize) {
    let channel = Channel::new();
    let caps = "format=NV12,width=1280,height=720,framerate=10/1";
    let writer = writer(&channel, "is-live=true num-buffers=70", caps, "");
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("the stream runs", || writer.stat("rsshmsink", "frames-published") > 5);
    let filler = std::path::Path::new("/dev/shm/filler");
    fill_up(filler);
    let slots = writer.stat("rsshmsink", "slots");
    // From here on those who hoard ask for more slots than there are.
    let mut hoarders: Vec<Process> = (0..hoarders).map(|_| hoarder(&channel)).collect();
    let mut other = reader(&channel, "", hoarders.len());
    eventually("all are there", || {
        writer.by_factory("rsshmsink").property::<u32>("num-clients") == 1 + hoarders.len() as u32
    });
    let before = writer.stat("rsshmsink", "frames-published");
    eventually("frames flow", || {
        writer.stat("rsshmsink", "frames-published") > before + 20
    });
    assert_eq!(writer.stat("rsshmsink", "slots"), slots);
    std::fs::remove_file(filler).unwrap();
    writer.wait_eos();
    assert_nothing_dropped(&writer, 70);
    assert_complete(&summary(&mut other), 69);
    assert!(hoarders.iter_mut().all(Process::is_running));
    drop(writer);
    assert_empty();
}

/// Takes all memory that is left.
fn fill_up(path: &std::path::Path) {
    let mut file = File::create(path).unwrap();
    let zeros = [0; 4096];
    while file.write_all(&zeros).is_ok() {}
}
