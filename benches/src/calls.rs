// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts the system calls of a process with strace.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::statistics::ratio;

/// The call by which [`crate::pace::Usage::now`] marks the first frame that counts, and the end of these frames. No other
/// code of a producer or consumer makes it.
const MARK: &str = "getrusage";
/// How long strace may still write after its process has ended.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of calls per frame, by the name of the call.
pub type Calls = BTreeMap<String, f64>;

/// Whether strace is installed and may trace. If not, the reason is printed once.
pub fn can_count() -> bool {
    static CAN_COUNT: OnceLock<bool> = OnceLock::new();
    *CAN_COUNT.get_or_init(|| {
        let traced = Command::new("strace")
            .args(["-D", "-f", "-q", "-o", "/dev/null", "true"])
            .status();
        let works = traced.is_ok_and(|status| status.success());
        if !works {
            eprintln!("system calls are not counted: strace is not installed, or may not trace");
        }
        works
    })
}

/// The command that runs `program` and writes its calls to `log`. The process is the program and not strace, because
/// strace traces from a process that is no parent of it (-D).
pub fn traced(program: &Path, log: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-q", "-o"].map(OsString::from))
        .arg(log)
        .arg(program);
    command
}

/// The path of the log of the process `index` of a run in the directory `dir`.
pub fn log(dir: &str, index: usize) -> PathBuf {
    Path::new(dir).join(format!("calls-{index}"))
}

/// The calls in a log for each of `frames` frames. Waits until the log of the process is complete.
pub fn per_frame(log: &Path, process: u32, frames: u64) -> Result<Calls, String> {
    let deadline = Instant::now() + WRITE_TIMEOUT;
    let end = format!("{process} +++ ");
    loop {
        let text = std::fs::read_to_string(log).map_err(|error| format!("{}: {error}", log.display()))?;
        // strace pads the number of the process with spaces.
        if text
            .lines()
            .any(|line| line.split_whitespace().take(2).eq(end.split_whitespace()))
        {
            return count(&text, frames).ok_or_else(|| format!("{}: the marks are missing", log.display()));
        }
        if Instant::now() > deadline {
            return Err(format!("{}: strace does not end", log.display()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The calls between the first two marks, for each frame.
fn count(text: &str, frames: u64) -> Option<Calls> {
    let names: Vec<&str> = text.lines().filter_map(name).collect();
    let mut marks = (0..names.len()).filter(|index| names[*index] == MARK);
    let counted = names.get(marks.next()? + 1..marks.next()?)?;
    let mut calls = Calls::new();
    for name in counted {
        *calls.entry((*name).to_owned()).or_default() += 1.0;
    }
    calls
        .into_iter()
        .map(|(name, count)| Some((name, ratio(count, frames as f64)?)))
        .collect()
}

/// The name of the call that begins in this line, which has the form `PID  name(arguments) = result`. The second line of
/// an interrupted call, and the lines of signals and of the end, have other forms.
fn name(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(' ')?;
    let (name, _) = call.trim_start().split_once('(')?;
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_the_marks_are_counted_once() {
        let text = "7  mmap(NULL, 8) = 0\n\
            7  getrusage(RUSAGE_SELF, {}) = 0\n\
            7  futex(0x1, FUTEX_WAIT, 1, NULL <unfinished ...>\n\
            8  sendmsg(3, 0x2, 0) = 1\n\
            7  <... futex resumed>) = 0\n\
            8  --- SIGCHLD {si_signo=SIGCHLD} ---\n\
            8  sendmsg(3, 0x2, 0) = 1\n\
            7  getrusage(RUSAGE_SELF, {}) = 0\n\
            7  mmap(NULL, 8) = 0\n\
            7  +++ exited with 0 +++\n";
        let expected = [("futex".to_owned(), 0.5), ("sendmsg".to_owned(), 1.0)];
        assert_eq!(count(text, 2), Some(Calls::from(expected)));
        assert_eq!(count("7  getrusage(RUSAGE_SELF, {}) = 0\n", 2), None);
    }
}
