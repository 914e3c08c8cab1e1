// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `top` and `watch` with many readers and on slow lines.

use std::time::Duration;

use rsshm_testkit::{PATIENCE, Process, need_program, wait_until};

use crate::{
    line::{FAST, Line},
    support::{Channel, rsshm, run},
    terminal::Terminal,
};

/// A terminal that answers only what each terminal answers.
const PLAIN: &[(&str, &str)] = &[("\x1b[5n", "\x1b[0n"), ("\x1b[c", "\x1b[?1;2c")];
/// Bytes a second of a slow line.
const SLOW: u64 = 9600;

fn readers(channel: &Channel, count: usize) -> Vec<Process> {
    (0..count).map(|_| channel.reader()).collect()
}

#[test]
fn top_shows_64_readers_in_small_terminal() {
    need_program!("tmux");
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let readers = readers(&channel, 64);
    let command = format!("{} top -d 200ms '{}'", env!("CARGO_BIN_EXE_rsshm"), channel.0);
    let terminal = Terminal::new(
        channel.as_str(),
        &format!("{command}; echo ended with $?; exec sleep 60"),
    );
    terminal.wait_for("64 readers");
    let row = |reader: &Process| format!(" + {} it-", reader.pid());
    terminal.wait_for(&row(&readers[0]));
    assert!(!terminal.screen().contains(&row(&readers[63])), "{}", terminal.screen());
    // The end of the table is below the screen.
    terminal.key("End");
    terminal.wait_for(&row(&readers[63]));
    assert!(!terminal.screen().contains(&row(&readers[0])), "{}", terminal.screen());
    for (columns, rows) in [("60", "8"), ("20", "3"), ("2", "1"), ("200", "100")] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", rows]);
        wait_until(
            &format!("{columns} columns and {rows} rows: {}", terminal.screen()),
            PATIENCE,
            || {
                let screen = terminal.screen();
                let lines: Vec<_> = screen.lines().filter(|line| !line.is_empty()).collect();
                let count = rows.parse::<usize>().unwrap();
                match count {
                    1 => lines == ["1"],
                    3 => lines.len() == 3 && lines[2].starts_with(" + "),
                    8 => lines.len() == 8 && lines[6].contains(&format!("+ {}", readers[63].pid())),
                    _ => readers.iter().all(|reader| screen.contains(&row(reader))),
                }
            },
        );
    }
    terminal.key("q");
    terminal.wait_for("ended with 0");
}

#[test]
fn top_shows_readers_in_order_of_their_misses() {
    let channel = Channel::new();
    let _writer = channel.live_writer(2);
    let mut readers = readers(&channel, 3);
    // The other readers take frames all the time.
    let (losing, taking) = readers.split_last_mut().unwrap();
    let mut line = Line::start(&rsshm(&format!("top -d 200ms {}", channel.0)), (110, 20), FAST, PLAIN);
    line.wait_for("order: name");
    line.type_keys("m");
    line.wait_for("order: missed");
    wait_until("the losing reader is the first", PATIENCE, || {
        for reader in &mut *taking {
            reader.send("");
            reader.receive();
        }
        let text = line.text();
        let first = text.lines().find(|row| row.starts_with(" + ")).unwrap_or_default();
        first.starts_with(&format!(" + {} ", losing.pid()))
    });
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
}

#[test]
fn slow_line_gets_keys_through_and_no_backlog() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let _readers = readers(&channel, 64);
    // A screen of this size has 12 kB, so that the line needs more than a second for it.
    let mut line = Line::start(&rsshm(&format!("top -d 50ms {}", channel.0)), (160, 70), SLOW, PLAIN);
    line.wait_for("order: name");
    wait_until("a whole screen", PATIENCE, || line.text().contains("q quit"));
    let screen = line.received().len();
    // A key takes effect with the next screen. Behind a backlog, it would come after many screens.
    std::thread::sleep(Duration::from_secs(4));
    let before = line.received().len();
    line.type_keys("f");
    line.wait_for("order: fps");
    let between = line.received().len() - before;
    assert!(between <= 3 * screen, "{between} bytes, {screen} a screen");
    let before = line.received().len();
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
    let between = line.received().len() - before;
    assert!(between <= 3 * screen, "{between} bytes, {screen} a screen");
    wait_until("the former screen", PATIENCE, || !line.is_alternate());
}

#[test]
fn slow_line_skips_pictures() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    // 64 columns of pixels are 32 rows of text, which are few bytes because all pixels have the same colour.
    let command = rsshm(&format!("watch --as blocks --fps 60 {}", channel.0));
    let mut line = Line::start(&command, (80, 40), 20_000, PLAIN);
    line.wait_for("GRAY8 64x48, frame ");
    let screen = line.received().len();
    std::thread::sleep(Duration::from_secs(3));
    let shown = || {
        let text = line.text();
        let seq = text.split("frame ").nth(1)?.split(',').next()?;
        seq.parse::<u64>().ok()
    };
    // The newest picture is on the screen after one or two others.
    for _ in 0..10 {
        let head = run(&format!("info {} --json", channel.0)).json()["head"]
            .as_u64()
            .unwrap();
        let before = line.received().len();
        wait_until("the newest picture", PATIENCE, || shown() >= Some(head));
        let between = line.received().len() - before;
        assert!(between <= 3 * screen, "{between} bytes, {screen} a screen");
    }
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
}

#[test]
fn stopped_line_does_not_stop_the_program() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    for arguments in ["top -d 50ms", "watch --as kitty"] {
        let command = rsshm(&format!("{arguments} {}", channel.0));
        let mut line = Line::start(&command, (100, 30), FAST, PLAIN);
        wait_until("a screen", PATIENCE, || line.received().len() > 300);
        line.set_speed(0);
        std::thread::sleep(Duration::from_millis(1500));
        line.type_keys("q");
        assert_eq!(line.wait_for_end().0, Some(0), "{arguments}");
    }
}
