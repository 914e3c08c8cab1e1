// SPDX-License-Identifier: MIT OR Apache-2.0

//! A real terminal, which the program tmux shows nobody.

use std::process::{Command, Stdio};

use rsshm_testkit::{PATIENCE, wait_until};

use crate::support::Run;

/// Runs `rsshm` in a terminal of 60 columns and 20 rows, which has all colours, and returns its exit code and what the
/// terminal received.
pub fn typescript(arguments: &str) -> (i32, String) {
    let command = format!("stty cols 60 rows 20; {} {arguments}", env!("CARGO_BIN_EXE_rsshm"));
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .envs([("TERM", "xterm-256color"), ("COLORTERM", "truecolor")])
        .env_remove("TMUX")
        .env_remove("TERM_PROGRAM");
    let run = Run::of(script);
    (run.code, run.stdout)
}

/// A terminal of its own, with `rsshm` in it.
#[derive(Debug)]
pub struct Terminal(String);

impl Terminal {
    /// Runs a command of a shell in a terminal of 100 columns and 20 rows.
    pub fn new(name: &str, command: &str) -> Self {
        let terminal = Self(name.to_owned());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "20", command]);
        terminal
    }

    pub fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &self.0])
            .args(arguments)
            .env_remove("TMUX")
            .env("TERM", "xterm-256color");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str) {
        wait_until(&format!("{what} on the screen:\n{}", self.screen()), PATIENCE, || {
            self.screen().contains(what)
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}
