// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `watch` in a real terminal.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use image::RgbImage;
use rsshm_testkit::{PATIENCE, Process, need_program, wait_until};

use crate::{
    line::{FAST, Line, find},
    support::{Channel, Run, Running, rsshm, run},
    terminal::Terminal,
};

/// Publishes a picture: its left half is red, and its right half blue.
fn publish(channel: &Channel) -> Process {
    let file = std::env::temp_dir().join(format!("{}.png", channel.0));
    let picture = RgbImage::from_fn(80, 60, |x, _| {
        image::Rgb(if x < 40 { [255, 0, 0] } else { [0, 0, 255] })
    });
    picture.save(&file).unwrap();
    let publishing = Process::start(rsshm(&format!("publish {} {} --loop", channel.0, file.display())));
    run(&format!("wait {} --timeout 20s", channel.0)).expect(0);
    // The picture is read only once.
    std::fs::remove_file(file).unwrap();
    publishing
}

#[test]
fn terminal_shows_picture_in_its_colours() {
    need_program!("tmux");
    let channel = Channel::new();
    let _publishing = publish(&channel);
    let program = env!("CARGO_BIN_EXE_rsshm");
    let command = format!(
        "COLORTERM=truecolor {program} watch '{}' --as blocks; echo ended with $?; exec sleep 60",
        channel.0
    );
    let terminal = Terminal::new(channel.as_str(), &command);
    terminal.wait_for("RGB 80x60, frame ");
    let screen = terminal.screen();
    let lines: Vec<_> = screen.lines().collect();
    // The terminal has 20 rows; 19 of them have 38 rows of the picture, which is 51 pixels wide then.
    assert_eq!(lines[0].matches('▀').count(), 51, "{screen}");
    assert_eq!(lines.iter().filter(|line| line.contains('▀')).count(), 19, "{screen}");
    let colours = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(
        colours.contains("38;2;255;0;0") && colours.contains("38;2;0;0;255"),
        "{colours:?}"
    );
    terminal.key("q");
    terminal.wait_for("ended with 0");
}

/// Runs `watch` in a terminal of the program `script`, and returns what the terminal received.
fn received(channel: &Channel, style: &str) -> String {
    let command = format!(
        "stty cols 60 rows 20; {} watch {} -n 1 {style}",
        env!("CARGO_BIN_EXE_rsshm"),
        channel.0
    );
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null());
    script
        .env("TERM", "xterm-kitty")
        .env_remove("TMUX")
        .env_remove("TERM_PROGRAM");
    Run::of(script).expect(0).stdout
}

#[test]
fn protocols_carry_the_picture() {
    need_program!("script");
    let channel = Channel::new();
    let _publishing = publish(&channel);
    // The name of the terminal says that it is kitty.
    let kitty = received(&channel, "");
    assert!(
        kitty.contains("\x1b_Ga=T,f=100") && kitty.contains("iVBOR"),
        "{kitty:?}"
    );
    let iterm = received(&channel, "--as iterm");
    assert!(
        iterm.contains("\x1b]1337;File=inline=1;width=") && iterm.contains(":/9j/"),
        "{iterm:?}"
    );
    for text in [&kitty, &iterm] {
        assert!(
            text.contains("RGB 80x60, frame ") && text.ends_with("\x1b[?25h\x1b[?1049l"),
            "{text:?}"
        );
    }
}

/// The sixels that `watch` sends, drawn by the program sixel2png of the reference implementation.
#[test]
fn sixels_are_the_picture() {
    need_program!("sixel2png");
    let channel = Channel::new();
    let _publishing = publish(&channel);
    let command = rsshm(&format!("watch {} --as sixel -n 1", channel.0));
    let mut line = Line::start(&command, (60, 20), FAST, &[]);
    assert_eq!(line.wait_for_end().0, Some(0));
    let mut received = Vec::new();
    wait_until("the whole picture", PATIENCE, || {
        received = line.received();
        find(&received, b"\x1b[?1049l").is_some()
    });
    let start = find(&received, b"\x1bP0;1;0q").unwrap();
    let length = find(&received[start..], b"\x1b\\").unwrap() + 2;
    let [sixels, picture] = ["sixel", "png"].map(|kind| std::env::temp_dir().join(format!("{}.{kind}", channel.0)));
    std::fs::write(&sixels, &received[start..start + length]).unwrap();
    let drawn = Command::new("sixel2png")
        .arg("-i")
        .arg(&sixels)
        .arg("-o")
        .arg(&picture)
        .output()
        .unwrap();
    assert!(drawn.status.success(), "{drawn:?}");
    let drawn = image::open(&picture).unwrap().to_rgb8();
    // libsixel draws the whole last line of sixels.
    assert!(
        drawn.width() == 80 && (60..66).contains(&drawn.height()),
        "{:?}",
        drawn.dimensions()
    );
    for (x, y, pixel) in drawn.enumerate_pixels().filter(|(_, y, _)| *y < 60) {
        assert_eq!(pixel.0, if x < 40 { [255, 0, 0] } else { [0, 0, 255] }, "{x} {y}");
    }
    for file in [sixels, picture] {
        std::fs::remove_file(file).unwrap();
    }
}

/// Terminals, by what they answer, and what `watch` sends them.
#[test]
fn terminal_says_what_it_can_show() {
    let channel = Channel::new();
    let _publishing = publish(&channel);
    const KITTY: &[(&str, &str)] = &[
        ("a=q,t=d,f=24;AAAA\x1b\\", "\x1b_Gi=31;OK\x1b\\"),
        ("\x1b[c", "\x1b[?62;c"),
    ];
    const ITERM: &[(&str, &str)] = &[("\x1b[>0q", "\x1bP>|iTerm2 3.5.0\x1b\\"), ("\x1b[c", "\x1b[?64;4c")];
    const SIXEL: &[(&str, &str)] = &[("\x1b[16t", "\x1b[6;20;10t"), ("\x1b[c", "\x1b[?62;4;22c")];
    const PLAIN: &[(&str, &str)] = &[("\x1b[c", "\x1b[?1;2c")];
    for (answers, sent) in [
        (KITTY, &b"\x1b_Ga=T,f=100"[..]),
        (ITERM, b"\x1b]1337;File=inline=1;"),
        (SIXEL, b"\x1bP0;1;0q\"1;1;80;60"),
        (PLAIN, b"\x1b[38;5;196m"),
        (&[], b"\x1b[38;5;196m"),
    ] {
        let command = rsshm(&format!("watch {}", channel.0));
        let mut line = Line::start(&command, (60, 20), FAST, answers);
        wait_until("the picture", PATIENCE, || find(&line.received(), sent).is_some());
        line.type_keys("q");
        assert_eq!(line.wait_for_end().0, Some(0), "{answers:?}");
        // No answer reaches the shell.
        assert_eq!(line.unread(), 0, "{answers:?}");
    }
    // A key that is pressed before the answers is not lost.
    let mut line = Line::start(&rsshm(&format!("watch {}", channel.0)), (60, 20), FAST, &[]);
    wait_until("the queries", PATIENCE, || find(&line.received(), b"\x1b[c").is_some());
    line.type_keys("q\x1b[?62;4c");
    assert_eq!(line.wait_for_end().0, Some(0));
}

#[test]
fn top_shows_picture_of_selected_channel() {
    let [channel, other] = std::array::from_fn(|_| Channel::new());
    let _publishing = publish(&channel);
    let _writer = other.live_writer(20);
    let command = rsshm(&format!("top -d 200ms {} {}", other.0, channel.0));
    let mut line = Line::start(&command, (110, 20), FAST, &[("\x1b[c", "\x1b[?1;2c")]);
    line.wait_for("2 channels");
    line.type_keys("\x1b[B\r");
    line.wait_for("GRAY8 64x48, frame ");
    line.wait_for("Esc returns");
    line.type_keys("\x1b");
    line.wait_for("order: name");
    line.type_keys("k\r");
    line.wait_for("RGB 80x60, frame ");
    assert!(line.text().contains('▀'), "{}", line.text());
    line.type_keys("q");
    line.wait_for("order: name");
    assert!(!line.text().contains('▀'), "{}", line.text());
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
}

#[test]
fn top_says_why_there_is_no_picture() {
    let channel = Channel::new();
    let publishing = format!(
        "publish {} - --caps application/x-test --frame-size 3 --fast",
        channel.0
    );
    let mut publishing = rsshm(&publishing);
    publishing.stdin(Stdio::piped());
    let mut publishing = Running::start(publishing);
    publishing.0.stdin.as_mut().unwrap().write_all(b"abc").unwrap();
    run(&format!("wait {} --timeout 20s", channel.0)).expect(0);
    let command = rsshm(&format!("top -d 200ms {}", channel.0));
    let mut line = Line::start(&command, (110, 20), FAST, &[("\x1b[c", "\x1b[?1;2c")]);
    line.wait_for("1 channels");
    line.type_keys("\r");
    line.wait_for("any key returns");
    assert!(line.text().contains(channel.as_str()), "{}", line.text());
    line.type_keys("x");
    line.wait_for("order: name");
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
}

#[test]
fn watch_needs_a_terminal_and_a_picture() {
    let channel = Channel::new();
    let _writer = channel.writer();
    let run = run(&format!("watch {}", channel.0)).expect(2);
    assert!(run.stderr.contains("rsshm snapshot"), "{run:?}");
}
