// SPDX-License-Identifier: MIT OR Apache-2.0

//! The elements and the device provider with `RSSHM_DIR`, on the host and in a container that has only this directory.

use std::process::Command;

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Container, PATIENCE, Process, SharedDirectory,
    container::RSSHM_DIR,
    eventually,
    gst::{CAPS, Pipeline, command, error_kind, role_command},
    need_program,
    role::Role,
    skip, wait_until,
};

pub const ROLES: &[(&str, Role)] = &[("directory/refused", |arguments| refused(arguments[0]))];

/// The command `gst-launch-1.0 -q PIPELINE`.
fn launch(pipeline: &str) -> Command {
    let mut launch = command("gst-launch-1.0");
    launch.arg("-q").args(pipeline.split_whitespace());
    launch
}

/// Checks each face of the plugin. `reads` and `writes` make the command of a process that is on the host or in a
/// container.
#[track_caller]
fn check_plugin(directory: &SharedDirectory, reads: impl Fn(Command) -> Command, writes: impl Fn(Command) -> Command) {
    let channel = Channel::new();
    // One reader starts before the writer.
    let first = reads(launch(&format!("rsshmsrc name={channel} num-buffers=10 ! fakesink")));
    let mut first = Process::start(first);
    let writer = format!("videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}");
    let mut writer = Process::start(writes(launch(&writer)));
    first.wait_ok();
    let by_uri = format!("urisourcebin uri=rsshm://{channel} ! identity eos-after=10 ! fakesink");
    Process::start(reads(launch(&by_uri))).wait_ok();
    let mut monitor = command("gst-device-monitor-1.0");
    monitor.arg("Video/Source");
    let output = Process::start(reads(monitor)).wait_ok();
    assert!(output.contains(channel.as_str()), "{output}");
    channel.assert_removed();
    assert_eq!(directory.files(), [channel.to_string(), format!("sem.{channel}")]);

    // A reader notices that a writer is killed, whose process it cannot see.
    let file = std::env::temp_dir().join(channel.as_str());
    let waiting = format!(
        "rsshmsrc name={channel} on-disconnect=eos ! filesink buffer-mode=unbuffered location={}",
        file.display()
    );
    let mut waiting = Process::start(reads(launch(&waiting)));
    eventually("the reader takes a frame", || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    std::fs::remove_file(&file).unwrap();
    assert!(waiting.is_running());
    writer.kill();
    wait_until("the reader ends", PATIENCE, || !waiting.is_running());
    waiting.wait_ok();
}

#[test]
fn pipelines_work_across_containers() {
    need_program!("gst-device-monitor-1.0");
    let directory = SharedDirectory::new();
    if directory.inside(Container::Plain, &Command::new("true")).is_none() {
        skip!("no namespaces");
    }
    let inside = |command: Command| directory.inside(Container::Plain, &command).unwrap();
    let outside = |command: Command| directory.outside(command);
    check_plugin(&directory, inside, outside);
    for file in directory.files() {
        std::fs::remove_file(directory.path().join(file)).unwrap();
    }
    check_plugin(&directory, outside, inside);
}

/// Checks that both elements fail with an error about the settings, and that the provider does not start.
fn refused(words: &str) {
    for pipeline in ["videotestsrc ! rsshmsink name=cam0", "rsshmsrc name=cam0 ! fakesink"] {
        let pipeline = Pipeline::new(pipeline);
        assert!(pipeline.set_state(gst::State::Paused).is_err());
        let error = pipeline.wait_error();
        assert_eq!(error_kind(&error), "ResourceError::Settings", "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    let provider = gst::DeviceProviderFactory::by_name("rsshmdeviceprovider").expect("the provider");
    assert!(provider.start().is_err());
    assert!(provider.devices().is_empty());
}

#[test]
fn unsuitable_directory_is_error_of_settings() {
    for (value, words) in [
        ("cams", "RSSHM_DIR=cams is not an absolute path"),
        ("/nowhere", "RSSHM_DIR=/nowhere does not exist"),
        ("/proc", "RSSHM_DIR=/proc is not a tmpfs, but proc"),
    ] {
        let mut command = role_command("directory/refused", &[words]);
        command.env(RSSHM_DIR, value);
        Process::start(command).wait_ok();
    }
}
