// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `hz`, `bw`, `delay` and `echo`.

use nix::sys::signal::Signal;
use rsshm_testkit::{PATIENCE, Process, wait_until};
use serde_json::Value;

use crate::support::{Channel, SIZE, files, rsshm, run};

/// The numbers in a text, in order.
fn numbers(text: &str) -> Vec<f64> {
    text.split(|character: char| !character.is_ascii_digit() && character != '.')
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn measurements_have_the_lines_of_ros2() {
    let channel = Channel::new();
    let _writer = channel.live_writer(20);
    let hz = run(&format!("hz {} -n 1", channel.0)).expect(0).stdout;
    let found = numbers(&hz);
    let [rate, min, max, deviation, window] = found[..] else {
        panic!("{hz}")
    };
    assert_eq!(
        hz,
        format!(
            "average rate: {rate:.3}\n\tmin: {min:.3}s max: {max:.3}s std dev: {deviation:.5}s window: {window:.0}\n"
        )
    );
    assert!(
        (1.0..60.0).contains(&rate) && min <= max && (2.0..60.0).contains(&window),
        "{hz}"
    );

    let bw = run(&format!("bw {} -n 1", channel.0)).expect(0).stdout;
    let found = numbers(&bw);
    let [rate, count, mean, min, max] = found[..] else {
        panic!("{bw}")
    };
    assert_eq!((mean, min, max), (3.07, 3.07, 3.07), "{bw}");
    assert_eq!(
        bw,
        format!("{rate:.2} KB/s from {count:.0} messages\n\tMessage size mean: 3.07 KB min: 3.07 KB max: 3.07 KB\n")
    );

    let delay = run(&format!("delay {} -n 1", channel.0)).expect(0).stdout;
    let found = numbers(&delay);
    let [mean, min, max, deviation, window] = found[..] else {
        panic!("{delay}")
    };
    assert_eq!(
        delay,
        format!(
            "average delay: {mean:.3}\n\tmin: {min:.3}s max: {max:.3}s std dev: {deviation:.5}s window: {window:.0}\n"
        )
    );
    assert!(min <= mean && mean <= max && max < 10.0, "{delay}");
}

#[test]
fn measurements_as_json_and_csv_have_the_same_names() {
    let channel = Channel::new();
    let _writer = channel.live_writer(20);
    for command in ["hz", "bw", "delay"] {
        let json = run(&format!("{command} {} -n 1 --json", channel.0)).expect(0).json();
        let csv = run(&format!("{command} {} -n 1 --format csv", channel.0))
            .expect(0)
            .stdout;
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 2, "{csv}");
        let names: Vec<_> = lines[0].split(',').collect();
        let values: Vec<_> = lines[1].split(',').collect();
        assert_eq!((names.len(), values[0]), (values.len(), channel.as_str()), "{csv}");
        assert_eq!(names.len(), json.as_object().unwrap().len(), "{json} {csv}");
        assert!(names.iter().all(|name| !json[name].is_null()), "{json} {csv}");
    }
}

#[test]
fn rate_is_that_of_frames() {
    let channel = Channel::new();
    let _writer = channel.live_writer(50);
    let rate = run(&format!("hz {} -n 2 --json", channel.0)).expect(0).stdout;
    let last: Value = serde_json::from_str(rate.lines().last().unwrap()).unwrap();
    let rate = last["rate"].as_f64().unwrap();
    // A busy machine makes the writer slower, never faster.
    assert!(rate > 1.0 && rate < 21.0, "{last}");
    assert_eq!(last["missed"], 0);
}

#[test]
fn measurement_waits_for_writer_and_survives_it() {
    let channel = Channel::new();
    let mut command = rsshm(&format!("hz {} -n 2", channel.0));
    command.env("RUST_BACKTRACE", "0");
    let mut measuring = Process::start(command);
    wait_until("waits", PATIENCE, || {
        measuring.output().contains("waiting for a writer")
    });
    let mut writer = channel.live_writer(10);
    wait_until("measures", PATIENCE, || measuring.output().contains("average rate"));
    writer.kill();
    let mut writer = channel.live_writer(10);
    measuring.wait_ok();
    assert_eq!(measuring.output().matches("average rate").count(), 2);
    assert!(writer.is_running());
}

#[test]
fn interrupted_command_has_code_130() {
    let channel = Channel::new();
    let _writer = channel.writer();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut echo = Process::start(rsshm(&format!("echo {}", channel.0)));
        wait_until("prints", PATIENCE, || echo.output().contains("pts="));
        echo.signal(signal);
        assert_eq!(echo.wait().code(), Some(code));
    }
}

#[test]
fn echo_prints_a_line_for_each_frame() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let mut echo = Process::start(rsshm(&format!("echo {} -n 3", channel.0)));
    assert!(
        echo.receive().starts_with("# video/x-raw,format=GRAY8"),
        "{}",
        echo.output()
    );
    for seq in 1..=3 {
        if seq > 1 {
            writer.send("");
            writer.expect(&seq.to_string());
        }
        let line = echo.receive();
        assert!(line.starts_with(&format!("{seq} pts=")), "{line}");
        assert!(
            line.contains(&format!(" size={SIZE} flags=-")) && line.contains("ms "),
            "{line}"
        );
        assert!(!line.contains("missed"), "{line}");
    }
    echo.wait_ok();
}

#[test]
fn echo_follows_to_another_format() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let mut echo = Process::start(rsshm(&format!("echo {} -n 2 --json", channel.0)));
    let frame = |echo: &mut Process| -> Value { serde_json::from_str(&echo.receive()).unwrap() };
    let first = frame(&mut echo);
    assert_eq!(
        (&first["seq"], &first["size"], &first["keyframe"]),
        (&1.into(), &SIZE.into(), &true.into())
    );
    assert!(first["caps"].as_str().unwrap().contains("GRAY8") && first["dts_ns"].is_null());
    writer.send("caps");
    writer.expect("2");
    let second = frame(&mut echo);
    assert!(second["caps"].as_str().unwrap().contains("BGR"), "{second}");
    assert_eq!((&second["seq"], &second["missed"]), (&2.into(), &0.into()));
    echo.wait_ok();
}

#[test]
fn echo_shows_metadata_and_events() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    writer.send("metadata");
    writer.expect("2");
    let mut echo = Process::start(rsshm(&format!("echo {} -n 2 -v", channel.0)));
    wait_until("prints", PATIENCE, || echo.output().contains("flags=-"));
    writer.send("tags");
    writer.expect("3");
    let text = echo.wait_ok();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("# ") && lines[1].starts_with("2 pts="), "{text}");
    assert_eq!(lines[2], "    region of interest: face at 1,2 of 3x4, id 5");
    assert_eq!(lines[3], "  event tags: taglist, title=(string)test;");
    assert!(lines[4].starts_with("3 pts="), "{text}");
}

#[test]
fn following_changes_no_byte() {
    let channel = Channel::new();
    let writer = channel.writer();
    writer.stop();
    let before = files(&channel);
    run(&format!("echo {} -n 1", channel.0)).expect(0);
    run(&format!("echo {} -n 1 -v", channel.0)).expect(0);
    run(&format!("wait {}", channel.0)).expect(0);
    run(&format!("check {}", channel.0)).expect(1);
    assert!(files(&channel) == before, "the files have changed");
}
