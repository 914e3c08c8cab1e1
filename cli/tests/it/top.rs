// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `top`, in batches and in a real terminal.

use std::time::Duration;

use rsshm_testkit::{PATIENCE, need_program, wait_until};
use serde_json::Value;

use crate::{
    support::{Channel, run},
    terminal::Terminal,
};

#[test]
fn batch_shows_rates_of_channel_and_readers() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let mut reader = channel.reader();
    reader.stop();
    let text = run(&format!("top -b -n 2 -d 300ms {}", channel.0)).expect(0).stdout;
    assert_eq!(text.matches("CHANNEL / reader").count(), 2, "{text}");
    let line = text.lines().rfind(|line| line.starts_with(channel.as_str())).unwrap();
    assert!(line.ends_with("alive"), "{line}");
    let line = text
        .lines()
        .rfind(|line| line.starts_with(&format!(" + {} it-", reader.pid())))
        .unwrap();
    assert!(line.ends_with("stopped"), "{line}");

    let sample = run(&format!("top -b -n 1 -d 500ms --json {}", channel.0))
        .expect(0)
        .json();
    let found = &sample["channels"][0];
    let fps = found["fps"].as_f64().unwrap();
    assert!(fps > 1.0 && fps < 110.0, "{found}");
    assert!(
        (found["bytes_per_second"].as_f64().unwrap() / fps - 3072.0).abs() < 1.0,
        "{found}"
    );
    let only = &found["readers"][0];
    assert_eq!(
        (&only["state"], &only["fps"], &only["holds"]),
        (&"stopped".into(), &0.0.into(), &1.into())
    );
    assert!(
        only["behind"].as_u64() > Some(5) && only["cpu_percent"] == 0.0,
        "{only}"
    );
    // The reader cannot count while it is stopped, so the overwritten frames count.
    let missed = only["missed_per_second"].as_f64().unwrap();
    assert!(missed > fps * 0.5 && missed < fps * 1.5, "{found}");
    assert!(only["missed"].as_u64() > Some(5), "{only}");
    reader.kill();

    let csv = run(&format!("top -b -n 1 -d 100ms --format csv {}", channel.0))
        .expect(0)
        .stdout;
    let lines: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(lines, [12, 12], "{csv}");
}

#[test]
fn reader_of_newest_frames_skips_on_purpose() {
    let channel = Channel::new();
    let _writer = channel.live_writer(5);
    let _reader = channel.latest_reader(100);
    let sample = run(&format!("top -b -n 1 -d 1s --json {}", channel.0)).expect(0).json();
    let found = &sample["channels"][0];
    let only = &found["readers"][0];
    assert_eq!(only["state"], "latest");
    let number = |value: &Value| value.as_f64().unwrap();
    let (taken, missed) = (number(&only["fps"]), number(&only["missed_per_second"]));
    assert!(taken > 1.0 && taken < 15.0, "{found}");
    // Whatever the reader does not take, it skips.
    assert!((taken + missed - number(&found["fps"])).abs() < 60.0, "{found}");
    let text = run(&format!("info {}", channel.0)).expect(0).stdout;
    assert!(text.contains("MISSED") && text.contains("reading the newest"), "{text}");
    let report = run(&format!("info {} --json", channel.0)).expect(0).json();
    assert_eq!(report["readers"][0]["latest"], true);
    assert!(report["readers"][0]["missed"].as_u64() > Some(10), "{report}");
    let text = run(&format!("metrics {}", channel.0)).expect(0).stdout;
    assert!(text.contains("rsshm_reader_missed_frames_total{"), "{text}");
}

#[test]
fn batch_is_sorted() {
    let [slow, fast] = std::array::from_fn(|_| Channel::new());
    let _writers = [slow.live_writer(200), fast.live_writer(5)];
    let names = |sort: &str| -> Vec<Value> {
        let sample = run(&format!(
            "top -b -n 1 -d 500ms --json --sort {sort} {} {}",
            fast.0, slow.0
        ))
        .expect(0)
        .json();
        let samples = sample["channels"].as_array().unwrap();
        samples.iter().map(|sample| sample["channel"].clone()).collect()
    };
    assert_eq!(names("name"), [slow.as_str(), fast.as_str()]);
    assert_eq!(names("fps"), [fast.as_str(), slow.as_str()]);
}

#[test]
fn terminal_shows_keys_and_sizes() {
    need_program!("tmux");
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let reader = channel.reader();
    let program = env!("CARGO_BIN_EXE_rsshm");
    let command = format!(
        "{program} top -d 200ms '{}'; echo ended with $?; exec sleep 60",
        channel.0
    );
    let terminal = Terminal::new(channel.as_str(), &command);
    terminal.wait_for(&format!("+ {} it-", reader.pid()));
    let screen = terminal.screen();
    assert!(screen.starts_with("1 channels, 1 with a writer, 1 readers"), "{screen}");
    assert!(screen.contains("order: name") && screen.contains("reading"), "{screen}");
    terminal.key("s");
    terminal.wait_for("order: fps");
    // A line that is longer than the terminal is cut, so that each row stays one line.
    terminal.tmux(&["resize-window", "-x", "40", "-y", "5"]);
    // At first the terminal shows what is left of the large screen.
    std::thread::sleep(Duration::from_millis(600));
    wait_until("a small screen", PATIENCE, || {
        let screen = terminal.screen();
        let rows: Vec<_> = screen.lines().map(str::to_owned).collect();
        rows.len() <= 5 && rows[0].starts_with("1 channels, 1 with a writer") && rows[2].starts_with("rsshm-cli-test-")
    });
    terminal.tmux(&["resize-window", "-x", "100", "-y", "20"]);
    terminal.wait_for("STATE");
    terminal.key("q");
    terminal.wait_for("ended with 0");
    assert!(
        !terminal.screen().contains("STATE"),
        "the former screen is back: {}",
        terminal.screen()
    );
}

#[test]
fn interrupted_top_gives_the_terminal_back() {
    need_program!("tmux");
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let program = env!("CARGO_BIN_EXE_rsshm");
    let command = format!(
        "{program} top '{}'; echo ended with $?; stty -a; exec sleep 60",
        channel.0
    );
    let terminal = Terminal::new(channel.as_str(), &command);
    terminal.wait_for("alive");
    terminal.key("C-c");
    terminal.wait_for("ended with 130");
    terminal.wait_for(" icanon");
    assert!(terminal.screen().contains(" echo "), "{}", terminal.screen());
}
