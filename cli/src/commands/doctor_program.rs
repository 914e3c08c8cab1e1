// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other programs that `rsshm doctor` asks.

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long another program may take. GStreamer reads all its plugins when it starts for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a program printed, and whether it succeeded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes(String),
    No,
    /// The program is not installed.
    Missing,
    TimedOut,
}

/// Runs a program and waits for its answer.
pub(super) fn ask(program: &str, arguments: &[&str]) -> Answer {
    ask_within(PATIENCE, program, arguments)
}

fn ask_within(patience: Duration, program: &str, arguments: &[&str]) -> Answer {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return Answer::Missing;
    };
    let Some(mut stdout) = child.stdout.take() else {
        return Answer::No;
    };
    let deadline = Instant::now() + patience;
    let (sender, receiver) = mpsc::channel();
    // A thread reads, because a program that prints more than the pipe takes would wait for ever. A process that the
    // program started may keep the pipe open, so nobody waits for the thread without a limit.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                return receiver.recv_timeout(left).map_or(Answer::TimedOut, Answer::Yes);
            }
            Ok(Some(_)) | Err(_) => return Answer::No,
            Ok(None) if left.is_zero() => {
                let _ = child.kill();
                let _ = child.wait();
                return Answer::TimedOut;
            }
            Ok(None) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask_shell(script: &str) -> Answer {
        ask_within(Duration::from_millis(500), "sh", &["-c", script])
    }

    #[test]
    fn programs_answer_in_time_or_not_at_all() {
        assert_eq!(ask_shell("echo yes"), Answer::Yes("yes\n".to_owned()));
        assert_eq!(ask_shell("echo no; exit 3"), Answer::No);
        let began = Instant::now();
        for script in ["exec sleep 30", "sleep 30 & echo yes"] {
            assert_eq!(ask_shell(script), Answer::TimedOut, "{script}");
        }
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn absent_program_is_missing() {
        rsshm_testkit::need_real_machine!("a child cannot report that its program does not exist");
        assert_eq!(ask("/nowhere/program", &[]), Answer::Missing);
    }
}
