// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the terminal after `top` and `watch`: whatever ends or stops them, it is as before.

use std::time::Duration;

use nix::{
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, Termios},
    },
    unistd::Pid,
};
use rsshm_testkit::{PATIENCE, need_program, wait_until};

use crate::{
    line::{FAST, Line, new_settings},
    support::{Channel, rsshm},
    terminal::Terminal,
};

const PLAIN: &[(&str, &str)] = &[("\x1b[5n", "\x1b[0n"), ("\x1b[c", "\x1b[?1;2c")];
/// What gives the screen back.
const END: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

fn pid(line: &Line) -> Pid {
    Pid::from_raw(line.program.0.id() as i32)
}

/// Starts the command, and waits until it has drawn something.
fn start(arguments: &str, channel: &Channel) -> Line {
    let line = Line::start(&rsshm(&format!("{arguments} {}", channel.0)), (110, 20), FAST, PLAIN);
    line.wait_for(channel.as_str());
    assert!(line.is_alternate());
    line
}

fn is_taken(settings: &Termios) -> bool {
    !settings.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
}

#[test]
fn signals_give_the_terminal_back() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    for arguments in ["top -d 50ms", "watch --as blocks"] {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut line = start(arguments, &channel);
            assert!(is_taken(&line.settings()));
            kill(pid(&line), signal).unwrap();
            assert_eq!(line.wait_for_end().0, Some(128 + signal as i32), "{arguments} {signal}");
            assert_eq!(line.settings(), new_settings(), "{arguments} {signal}");
            wait_until("the former screen", PATIENCE, || line.received().ends_with(END));
            assert_eq!(line.unread(), 0, "{arguments} {signal}");
        }
    }
}

#[test]
fn stopped_program_gives_the_terminal_back() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    for arguments in ["top -d 50ms", "watch --as blocks"] {
        let mut line = start(arguments, &channel);
        let stat = format!("/proc/{}/stat", line.program.0.id());
        let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
        for _ in 0..3 {
            // Ctrl-Z.
            line.type_keys("\x1a");
            wait_until("the program is stopped", PATIENCE, is_stopped);
            assert_eq!(line.settings(), new_settings(), "{arguments}");
            wait_until("the former screen", PATIENCE, || !line.is_alternate());
            kill(pid(&line), Signal::SIGCONT).unwrap();
            wait_until("the screen again", PATIENCE, || {
                line.is_alternate() && line.text().contains(channel.as_str())
            });
            assert!(is_taken(&line.settings()));
        }
        // A program that is stopped without notice draws everything again too.
        kill(pid(&line), Signal::SIGSTOP).unwrap();
        wait_until("the program is stopped", PATIENCE, is_stopped);
        line.resize((40, 10));
        kill(pid(&line), Signal::SIGCONT).unwrap();
        wait_until("a smaller screen", PATIENCE, || {
            let text = line.text();
            text.lines().count() <= 10 && text.contains("rsshm-cli-test-")
        });
        line.type_keys("q");
        assert_eq!(line.wait_for_end().0, Some(0), "{arguments}");
        assert_eq!(line.settings(), new_settings(), "{arguments}");
    }
}

/// A shell in the terminal works while `top` is stopped, and after it.
#[test]
fn shell_takes_and_gives_the_terminal() {
    need_program!("tmux");
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    let terminal = Terminal::new(channel.as_str(), "exec env PS1='shell> ' bash --norc --noprofile -i");
    terminal.wait_for("shell>");
    let type_line = |text: &str| {
        terminal.tmux(&["send-keys", "-l", text]);
        terminal.key("Enter");
    };
    type_line(&format!("{} top -d 100ms '{}'", env!("CARGO_BIN_EXE_rsshm"), channel.0));
    terminal.wait_for("order: name");
    terminal.key("C-z");
    terminal.wait_for("Stopped");
    type_line("echo 1$((1+1))3");
    terminal.wait_for("123");
    // The program discards what is typed before it ends.
    type_line("fg; echo 7$((4+4))9");
    terminal.wait_for("order: name");
    terminal.key("q");
    terminal.wait_for("789");
    type_line("echo 4$((2+3))6");
    terminal.wait_for("456");
    assert!(!terminal.screen().contains("[0n"), "{}", terminal.screen());
}

#[test]
fn lost_terminal_ends_the_program() {
    let channel = Channel::new();
    let _writer = channel.live_writer(10);
    for arguments in ["top -d 50ms", "watch --as blocks"] {
        let line = start(arguments, &channel);
        let mut program = line.hang_up();
        // The kernel sends SIGHUP, or the program notices the end of its input.
        let code = program.wait();
        assert!(matches!(code, Some(129 | 1)), "{arguments}: {code:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
