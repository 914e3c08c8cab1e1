// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls per frame. For each frame, the writer makes one wake call and the reader one wait call. The number of
//! other calls does not grow with the frames.

use std::{collections::BTreeMap, fs::File, ops::Range, os::unix::fs::FileExt, path::PathBuf, process::Command};

use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{command, run_to_end},
    skip,
    skip::succeeds,
};

/// The number of calls of each system call.
///
/// Futex calls on words that processes share are counted by their operation. Other futex calls are for locks inside a
/// process; they are counted as `futex`.
type Calls = BTreeMap<String, f64>;

/// Starts `gst-launch-1.0 PIPELINE` and writes its system calls to `log`.
#[track_caller]
fn traced(pipeline: &str, log: &PathBuf) -> Process {
    let mut command = command("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(log)
        .args(["gst-launch-1.0", "-q"])
        .args(pipeline.split_whitespace());
    Process::start(command)
}

/// Counts the calls in a log, and removes the log.
fn count(log: &PathBuf) -> Calls {
    let text = std::fs::read_to_string(log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut calls = Calls::new();
    for line in text.lines() {
        // A line has the form "PID  name(arguments) = result". The second line of an interrupted call has another form
        // and is not counted.
        let Some((_, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            continue;
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let name = match arguments.split([',', ')']).nth(1).map(str::trim) {
            Some(operation @ ("FUTEX_WAIT" | "FUTEX_WAKE")) if name == "futex" => operation,
            _ => name,
        };
        *calls.entry(name.to_owned()).or_default() += 1.0;
    }
    calls
}

/// The system calls of a writer and of a reader of `frames` frames.
#[track_caller]
fn calls_of(frames: u32) -> [Calls; 2] {
    let channel = Channel::new();
    let logs = ["writer", "reader"].map(|side| std::env::temp_dir().join(format!("{channel}-{side}.strace")));
    let mut reader = traced(&format!("rsshmsrc name={channel} ! fakesink sync=false"), &logs[1]);
    let mut writer = traced(
        &format!(
            "videotestsrc is-live=true num-buffers={frames} pattern=black \
             ! video/x-raw,format=GRAY8,width=320,height=240,framerate=80/1 ! rsshmsink name={channel}"
        ),
        &logs[0],
    );
    writer.wait_ok();
    reader.wait_ok();
    logs.each_ref().map(count)
}

/// The number of calls per frame. The run `many` has 200 more frames than the run `few`, so the difference in calls is
/// divided by 200.
fn growth(few: &Calls, many: &Calls) -> Calls {
    let names = few.keys().chain(many.keys());
    let of = |calls: &Calls, name: &String| calls.get(name).copied().unwrap_or_default();
    names
        .map(|name| (name.clone(), (of(many, name) - of(few, name)) / 200.0))
        .collect()
}

/// Calls by which the threads of a process wait for each other and for the clock.
const WAITS: [&str; 6] = [
    "futex",
    "clock_nanosleep",
    "poll",
    "ppoll",
    "sched_yield",
    "restart_syscall",
];

/// How often the calls are counted at most. On a busy machine, a second of housekeeping falls on fewer frames.
const COUNTS: u32 = 3;

/// Checks that the number of calls of `call` per frame is at least `least` and at most about one, and that other calls
/// are almost absent. The error names the calls that are too many or too few.
fn check_lean(side: &str, growth: &Calls, call: &str, least: f64) -> Result<(), String> {
    println!("{side}: {growth:.3?}");
    let per_frame = |name: &str| growth.get(name).copied().unwrap_or_default();
    let limit = |name: &str, range: Range<f64>| {
        let count = per_frame(name);
        let is_lean = range.contains(&count);
        is_lean
            .then_some(())
            .ok_or_else(|| format!("{side}: {name} {count} times a frame: {growth:.3?}"))
    };
    limit(call, least..1.2)?;
    for name in ["mmap", "munmap", "mremap", "brk", "madvise", "fallocate", "clone3"] {
        limit(name, f64::NEG_INFINITY..0.05)?;
    }
    // A writer that commits memory for one more slot reads the memory limits from about ten files.
    limit(
        "openat",
        f64::NEG_INFINITY..0.05 + 20.0 * per_frame("fallocate").max(0.0),
    )?;
    // A few times a second, the writer and the reader check which peers are alive.
    let rest: f64 = growth
        .iter()
        .filter(|(name, _)| !WAITS.contains(&name.as_str()) && *name != call)
        .map(|(_, count)| count.max(0.0))
        .sum();
    let is_lean = rest < 0.5;
    is_lean
        .then_some(())
        .ok_or_else(|| format!("{side}: {rest} other calls a frame: {growth:.3?}"))
}

/// Checks the calls of a writer and of a reader.
fn check_calls() -> Result<(), String> {
    let ([writer_of_few, reader_of_few], [writer_of_many, reader_of_many]) = (calls_of(200), calls_of(400));
    check_lean("writer", &growth(&writer_of_few, &writer_of_many), "FUTEX_WAKE", 0.95)?;
    // A reader that is late on a busy machine finds two frames after one wait.
    check_lean("reader", &growth(&reader_of_few, &reader_of_many), "FUTEX_WAIT", 0.2)
}

/// Skips the test unless strace works.
macro_rules! need_strace {
    () => {
        if !succeeds(Command::new("strace").args(["-qq", "-o", "/dev/null", "true"])) {
            skip!("strace is not installed or may not trace");
        }
    };
}

#[test]
fn frame_costs_one_wake_and_one_wait() {
    need_strace!();
    // The first program writes GStreamer's registry. Without this run, one of the runs below would write the registry,
    // and its calls would be counted.
    run_to_end("fakesrc num-buffers=1 ! fakesink");
    let mut counted = Err(String::new());
    for _ in 0..COUNTS {
        counted = check_calls();
        if counted.is_ok() {
            break;
        }
    }
    assert_eq!(counted, Ok(()));
}

/// The test covers the waits for frames, for readers, and for a semaphore that another process has taken. If a wait
/// used the wall clock, its length would change when a user sets that clock.
#[test]
fn no_shared_wait_uses_wall_clock() {
    need_strace!();
    let channel = Channel::new();
    let logs = ["writer", "reader"].map(|side| std::env::temp_dir().join(format!("{channel}-{side}-clock.strace")));
    let mut reader = traced(&format!("rsshmsrc name={channel} ! fakesink sync=false"), &logs[1]);
    let mut writer = traced(
        &format!(
            "videotestsrc is-live=true num-buffers=60 pattern=black \
             ! video/x-raw,format=GRAY8,width=320,height=240,framerate=60/1 ! rsshmsink name={channel} lossless=true"
        ),
        &logs[0],
    );
    eventually("the channel exists", || channel.exists());
    let semaphore = File::options().write(true).open(channel.lock_file()).unwrap();
    semaphore.write_all_at(&[0; 4], 0).unwrap();
    writer.wait_ok();
    reader.wait_ok();
    for log in &logs {
        let text = std::fs::read_to_string(log).unwrap();
        std::fs::remove_file(log).unwrap();
        let waits: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("FUTEX_WAIT") && !line.contains("PRIVATE"))
            // A wait without a time limit uses no clock. The C library uses untimed waits to join threads.
            .filter(|line| !line.contains(", NULL"))
            .collect();
        println!("{} waits on shared words in {}", waits.len(), log.display());
        assert!(waits.len() > 5, "{waits:?}");
        for wait in waits {
            assert!(!wait.contains("FUTEX_CLOCK_REALTIME"), "{wait}");
        }
    }
}
