// SPDX-License-Identifier: MIT OR Apache-2.0

//! C programs that check the library by themselves.

use rsshm_testkit::{Channel, Process};

use crate::support::{Program, crate_directory, library};

#[track_caller]
fn passes(source: &str, arguments: &[&str]) {
    let output = Program::new(source).start(arguments).wait_ok();
    assert_eq!(output.trim(), "ok");
}

#[test]
fn bad_arguments_are_errors_with_a_text() {
    let channel = Channel::new();
    passes("tests/c/bad_arguments.c", &[channel.as_str()]);
    channel.assert_removed();
}

#[test]
fn writer_says_all_about_a_frame() {
    let channel = Channel::new();
    passes("tests/c/publish.c", &[channel.as_str()]);
    channel.assert_removed();
}

#[test]
fn caps_and_formats_have_parts() {
    let table = crate_directory().join("../testkit/caps-texts.tsv");
    passes("tests/c/caps.c", &[table.to_str().unwrap()]);
}

#[test]
fn frames_become_pictures() {
    let channel = Channel::new();
    passes("tests/c/convert.c", &[channel.as_str()]);
    channel.assert_removed();
}

#[test]
fn events_and_messages_arrive() {
    let channel = Channel::new();
    passes("tests/c/events.c", &[channel.as_str()]);
    channel.assert_removed();
}

/// A build with optimisation cannot be asked to panic.
#[cfg(debug_assertions)]
#[test]
fn panics_stop_at_the_border() {
    let channel = Channel::new();
    let program = Program::new("tests/c/panic.c");
    let mut command = program.command(&[channel.as_str()]);
    command.env("RUST_BACKTRACE", "0");
    let output = Process::start(command).wait_ok();
    assert!(
        output.contains("requested by RSSHM_TEST_PANIC") && output.ends_with("ok\n"),
        "{output}"
    );
    channel.assert_removed();
}

#[test]
fn threads_wake_and_close_each_other() {
    let channel = Channel::new();
    passes("tests/c/threads.c", &[channel.as_str()]);
    channel.assert_removed();
}

#[test]
fn forked_child_cannot_use_handles_of_its_parent() {
    let channel = Channel::new();
    passes("tests/c/fork.c", &[channel.as_str()]);
    channel.assert_removed();
}

#[test]
fn library_can_be_unloaded_during_a_wait() {
    let channel = Channel::new();
    let program = Program::with("tests/c/dlclose.c", &["-pthread", "-ldl", "-Wl,--as-needed"]);
    let library = library().join("librsshm.so.0");
    let output = program.start(&[library.to_str().unwrap(), channel.as_str()]).wait_ok();
    assert_eq!(output.trim(), "ok");
}

#[test]
fn wrapper_classes_own_their_handles() {
    let channel = Channel::new();
    passes("tests/cpp/wrapper.cpp", &[channel.as_str()]);
    channel.assert_removed();
}

/// The Mats of frames, with the header and the library of the real OpenCV.
#[test]
fn frames_are_opencv_pictures() {
    let channel = Channel::new();
    let program = Program::with(
        "tests/cpp/opencv.cpp",
        &["-pthread", "-isystem", "/usr/include/opencv4", "-lopencv_core"],
    );
    let output = program.start(&[channel.as_str()]).wait_ok();
    assert_eq!(output.trim(), "ok");
}

#[test]
fn descriptor_does_not_make_the_newest_frame_older() {
    let channel = Channel::new();
    passes("tests/c/newest.c", &[channel.as_str()]);
    channel.assert_removed();
}
