// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `watch` in a real terminal.

use std::process::{Command, Stdio};

use image::RgbImage;
use rsshm_testkit::{Process, need_program};

use crate::{
    support::{Channel, Run, rsshm, run},
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

#[test]
fn watch_needs_a_terminal_and_a_picture() {
    let channel = Channel::new();
    let _writer = channel.writer();
    let run = run(&format!("watch {}", channel.0)).expect(2);
    assert!(run.stderr.contains("rsshm snapshot"), "{run:?}");
}
