// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writer in a control group with a memory limit that is usual in containers. Readers, which are outside the group,
//! cannot get the writer killed.

use std::{process::Command, time::Duration};

use gst::prelude::*;
use rsshm_testkit::{
    Cgroup, Channel, Process, eventually,
    gst::{command, launch, role_command, sequence::writer},
    role::{Role, lines, say},
    skip,
};

/// The roles of the processes that these tests start.
pub const ROLES: &[(&str, Role)] = &[("small_cgroup/writer", inside_group)];

const BGRX_1080P: &str = "format=BGRx,width=1920,height=1080,framerate=20/1";

/// A new control group with a limit of this many MiB. Skips the test if there can be none.
macro_rules! need_cgroup {
    ($mib:expr) => {
        match Cgroup::new() {
            Ok(group) => {
                group.set_limit($mib << 20);
                group
            }
            Err(reason) => skip!("{reason}"),
        }
    };
}

/// The command, run in the group.
fn within(group: &Cgroup, inner: &Command) -> Command {
    let [shell, arguments @ ..] = group.wrapper();
    let mut command = Command::new(shell);
    command
        .args(arguments)
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn slow_readers_never_get_writer_killed() {
    for options in ["", "max-slots=64", "lossless=true"] {
        let group = need_cgroup!(120);
        let channel = Channel::new();
        let arguments = [channel.as_str(), options];
        let mut writer = Process::converse(within(&group, &role_command("small_cgroup/writer", &arguments)));
        writer.expect("plays");
        let mut readers = Vec::new();
        for _ in 0..3 {
            readers.push(launch(&format!(
                "rsshmsrc name={channel} ! queue ! identity sleep-time=100000 ! fakesink"
            )));
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut report = || {
            writer.send("report");
            let line = writer.receive();
            assert!(!line.is_empty());
            line
        };
        let file = group.limit_file();
        // A lossless writer waits for its readers, so it may need fewer slots than the group allows.
        if options != "lossless=true" {
            eventually("the warning", || report().contains("WARNING"));
        }
        let published = |report: &str| report.split(' ').next().unwrap().parse::<u64>().unwrap();
        let before = published(&report());
        eventually("20 more frames", || published(&report()) > before + 20);
        let last = report();
        println!("{options}: {last}, {} MiB in use", group.usage() >> 20);
        assert!(last.matches("WARNING").count() <= 1, "{last}");
        assert!(last.contains(file.to_str().unwrap()), "{last}");
        assert!(readers.iter_mut().all(Process::is_running));
        writer.send("stop");
        assert!(writer.wait().success());
        assert_eq!(group.kills(), 0);
        channel.assert_removed();
    }
}

/// Publishes frames. For each line from the test, says how many, which limit `channel-stats` names, and the warnings.
fn inside_group(arguments: &[&str]) {
    let lines = lines();
    let writer = writer(arguments[0], "is-live=true", BGRX_1080P, arguments[1]);
    writer.play();
    eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 2);
    say("plays");
    let mut warnings = String::new();
    while lines.recv().is_ok_and(|line| line == "report") {
        for message in writer.take_messages(gst::MessageType::Warning) {
            if let gst::MessageView::Warning(warning) = message.view() {
                warnings += &format!(" WARNING {}", warning.error());
            }
        }
        let stats = writer
            .by_factory("rsshmsink")
            .property::<gst::Structure>("channel-stats");
        let limit: String = stats.get("space-limit").unwrap();
        let (total, free): (u64, u64) = (stats.get("space-total").unwrap(), stats.get("space-free").unwrap());
        assert!(free < total && total == 120 << 20, "{stats}");
        let published = writer.stat("rsshmsink", "frames-published");
        let (slots, max_slots) = (writer.stat("rsshmsink", "slots"), writer.stat("rsshmsink", "max-slots"));
        say(format!(
            "{published} {slots} of {max_slots} {limit} {free} of {total}{warnings}"
        ));
    }
}

#[test]
fn frame_too_large_for_group_is_error_that_names_limit() {
    let group = need_cgroup!(32);
    let channel = Channel::new();
    let mut inner = command("gst-launch-1.0");
    let pipeline = format!("videotestsrc ! video/x-raw,{BGRX_1080P} ! rsshmsink name={channel}");
    inner.arg("-q").args(pipeline.split_whitespace());
    let output = Process::start(within(&group, &inner)).wait_error();
    let file = group.limit_file();
    for word in [
        file.to_str().unwrap(),
        &(32 << 20).to_string(),
        "for 3 frames of 8294400 bytes",
        "raise the limit (docker run --memory",
    ] {
        assert!(output.contains(word), "{word}: {output}");
    }
    assert_eq!(group.kills(), 0);
    channel.assert_removed();
}
