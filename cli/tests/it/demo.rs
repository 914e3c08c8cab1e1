// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the demo, which ends in `rsshm top` where there is a terminal.

use std::{path::Path, process::Command, time::Duration};

use rsshm_testkit::{PATIENCE, Process, gst::command, on_this_machine, wait_until};

use crate::{
    line::{FAST, Line, find},
    support::Channel,
};

const PLAIN: &[(&str, &str)] = &[("\x1b[5n", "\x1b[0n"), ("\x1b[c", "\x1b[?1;2c")];

/// The demo without a camera and a display, so that it saves pictures.
fn demo(channel: &Channel) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/demo.sh");
    let mut demo = command(script.to_str().unwrap());
    demo.env("CHANNEL", channel.as_str())
        .env("OUTPUT", std::env::temp_dir().join(channel.as_str()))
        .env("DEVICE", "/dev/no-camera")
        .env("RSSHM", env!("CARGO_BIN_EXE_rsshm"))
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("G_DEBUG");
    demo
}

#[test]
fn demo_ends_in_top_where_there_is_a_terminal() {
    let channel = Channel::new();
    // The keys q and Ctrl-C, and a window that is closed.
    for key in ["q", "\x03", ""] {
        let mut line = Line::start(&demo(&channel), (110, 24), FAST, PLAIN);
        line.wait_for("1 channels, 1 with a writer, 1 readers");
        line.wait_for("gst-launch-1.0");
        line.wait_for("alive");
        if key.is_empty() {
            line.hang_up().wait();
        } else {
            line.type_keys(key);
            let (code, received) = line.finish();
            assert_eq!(code, Some(if key == "q" { 0 } else { 130 }), "{key:?}");
            let received = String::from_utf8_lossy(&received);
            let commands = received.split("\x1b[?1049h").next().unwrap();
            assert!(
                commands.contains("rsshmsink name=") && commands.contains("rsshm top"),
                "{commands}"
            );
            assert!(
                received.contains("Files of the channel left in /dev/shm: 0"),
                "{received}"
            );
        }
        wait_until("nothing is left", PATIENCE, || {
            !channel.files().iter().any(|file| file.exists())
        });
    }
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(channel.as_str()));
}

#[test]
fn demo_without_a_terminal_ends_by_itself() {
    let channel = Channel::new();
    let mut demo = demo(&channel);
    // An emulated program that has not started yet does not notice the SIGINT at the end.
    let seconds = on_this_machine(Duration::from_secs(6)).as_secs();
    demo.env("RUN_SECONDS", seconds.to_string());
    let output = Process::start(demo).wait_ok();
    assert!(
        output.contains("Files of the channel left in /dev/shm: 0") && find(output.as_bytes(), b"\x1b").is_none(),
        "{output}"
    );
    channel.assert_removed();
    let pictures = std::env::temp_dir().join(channel.as_str());
    assert!(std::fs::read_dir(&pictures).unwrap().count() > 0);
    std::fs::remove_dir_all(pictures).unwrap();
}
