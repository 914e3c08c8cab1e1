// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `wait` and `check`.

use std::{fs, time::Duration};

use rsshm_testkit::{Process, need_root, privileges::NOBODY};

use crate::support::{Channel, rsshm, run, run_as};

/// Starts `rsshm wait`, which has to wait.
fn start_waiting(arguments: &str) -> Process {
    let mut waiting = Process::start(rsshm(&format!("wait {arguments}")));
    waiting.wait_asleep();
    waiting
}

#[test]
fn wait_ends_when_it_happens() {
    let channel = Channel::new();
    let name = channel.to_string();
    let mut waiting = [
        start_waiting(&format!("{name} --timeout 1m")),
        start_waiting(&format!("{name} --for caps")),
        start_waiting(&format!("{name} --for reader")),
    ];
    let mut writer = channel.writer();
    waiting[0].wait_ok();
    waiting[1].wait_ok();
    assert!(waiting[2].is_running(), "there is no reader yet");
    let _reader = channel.reader();
    waiting[2].wait_ok();
    // All of these are so already.
    for goal in ["frame", "caps", "reader"] {
        run(&format!("wait {name} --for {goal} --timeout 0")).expect(0);
    }
    let mut waiting = start_waiting(&format!("{name} --for gone"));
    // Another format is not the end.
    writer.send("caps");
    writer.expect("2");
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.is_running());
    writer.kill();
    waiting.wait_ok();
}

#[test]
fn wait_has_code_3_after_its_time() {
    let channel = Channel::new();
    for goal in ["frame", "caps", "reader"] {
        let run = run(&format!("wait {} --for {goal} --timeout 50ms", channel.0)).expect(3);
        assert!(run.stderr.contains("after 50 ms") && run.stdout.is_empty(), "{run:?}");
    }
    let _writer = channel.writer();
    run(&format!("wait {} --for gone --timeout 50ms", channel.0)).expect(3);
    run(&format!("wait {} --for frame --timeout 1x", channel.0)).expect(2);
}

#[test]
fn check_accepts_what_is_healthy() {
    let channel = Channel::new();
    // So slow a writer does not overwrite a frame before `check` takes it.
    let _writer = channel.live_writer(200);
    let _reader = channel.reader();
    let name = channel.to_string();
    let line = run(&format!(
        "check {name} --min-fps 0.2 --max-age 1h --max-missed 0 --max-behind 1000000 --min-readers 1 --during 2s"
    ));
    let line = line.expect(0).stdout;
    assert!(
        line.starts_with(&format!("{name} OK: ")) && line.lines().count() == 1,
        "{line}"
    );
    assert!(
        line.contains(" | fps=") && line.contains(" missed=0 ") && line.contains(" readers=1"),
        "{line}"
    );
    let finding = run(&format!("check rsshm://{name} --json")).expect(0).json();
    assert_eq!((&finding["ok"], &finding["readers"]), (&true.into(), &1.into()));
}

/// A writer without a pause always has another frame, also when the time to count is over.
#[test]
fn check_ends_beside_a_writer_without_a_pause() {
    let channel = Channel::new();
    let _writer = channel.flooding_writer();
    // A command without an end fails here.
    run(&format!("check {} --min-fps 1 --during 200ms", channel.0)).expect(0);
}

#[test]
fn check_names_what_is_wrong() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let _reader = channel.reader();
    for frame in 2..=4 {
        writer.send("");
        writer.expect(&frame.to_string());
    }
    let name = channel.to_string();
    for (arguments, words) in [
        ("--min-fps 1 --during 100ms", "0.0 frames a second (at least 1)"),
        ("--max-age 0", "old (at most 0.0 ms)"),
        ("--max-behind 2", "a reader is 3 frames behind (at most 2)"),
        ("--min-readers 2", "1 readers (at least 2)"),
    ] {
        let line = run(&format!("check {name} {arguments}")).expect(1);
        assert!(line.stdout.starts_with(&format!("{name} CRITICAL: ")), "{line:?}");
        assert!(line.stdout.contains(words) && line.stderr.is_empty(), "{line:?}");
    }
    run(&format!("check {name} --max-behind 3 --min-readers 1 --max-age 1h")).expect(0);
    // A frame from the future is never too old, so it says nothing about a writer that has stopped since.
    writer.send("future");
    writer.expect("5");
    let line = run(&format!("check {name} --max-age 10s")).expect(1).stdout;
    assert!(line.contains("in the future (at most 10"), "{line}");
    run(&format!("check {name} --max-age 2h")).expect(0);
    writer.stop();
    assert!(
        run(&format!("check {name}"))
            .expect(1)
            .stdout
            .contains("its writer is stopped")
    );
    writer.kill();
    assert!(
        run(&format!("check {name} --min-fps 1"))
            .expect(1)
            .stdout
            .contains("its writer is dead")
    );
    channel.remove_files();
    assert!(
        run(&format!("check {name}"))
            .expect(1)
            .stdout
            .contains("there is no channel")
    );
    fs::write(channel.segment(), b"rsshm\r\n\x1a").unwrap();
    assert!(run(&format!("check {name}")).expect(5).stdout.contains("CRITICAL"));
}

#[test]
fn commands_say_that_they_have_no_permission() {
    need_root!("another user measures a channel");
    let channel = Channel::new();
    let _writer = channel.writer();
    for command in ["hz", "bw", "delay", "echo", "echo -v", "wait", "check"] {
        let run = run_as(NOBODY, &format!("{command} {}", channel.0)).expect(4);
        assert!(
            (run.stderr + &run.stdout).contains("no permission to read"),
            "{command}"
        );
    }
}
