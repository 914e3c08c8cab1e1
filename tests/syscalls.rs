//! What a frame costs in system calls: the writer wakes once, the reader waits once, and nothing else grows with frames.

mod common;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use common::{Channel, Process, command};

/// How often each system call was made. Of futex calls, those on words shared between processes have names of their own;
/// the others are locks and clocks inside a process.
type Calls = BTreeMap<String, f64>;

/// Starts `gst-launch-1.0 PIPELINE` so that its system calls go to `log`.
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

fn count(log: &PathBuf) -> Calls {
    let text = std::fs::read_to_string(log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut calls = Calls::new();
    for line in text.lines() {
        // "PID  name(arguments) = result"; a call that goes on says so in a second line that begins otherwise.
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

/// What 200 frames more cost, by the frame.
fn growth(few: &Calls, many: &Calls) -> Calls {
    let names = few.keys().chain(many.keys());
    let of = |calls: &Calls, name: &String| calls.get(name).copied().unwrap_or_default();
    names
        .map(|name| (name.clone(), (of(many, name) - of(few, name)) / 200.0))
        .collect()
}

/// What the process itself waits with, for its clock and between its threads.
const WAITS: [&str; 6] = [
    "futex",
    "clock_nanosleep",
    "poll",
    "ppoll",
    "sched_yield",
    "restart_syscall",
];

#[track_caller]
fn assert_lean(side: &str, growth: &Calls, call: &str, least: f64) {
    println!("{side}: {growth:.3?}");
    let per_frame = |name: &str| growth.get(name).copied().unwrap_or_default();
    assert!((least..1.2).contains(&per_frame(call)), "{side}: {growth:.3?}");
    for name in [
        "mmap",
        "munmap",
        "mremap",
        "brk",
        "openat",
        "madvise",
        "fallocate",
        "clone3",
    ] {
        assert!(per_frame(name) < 0.05, "{side}: {name} in {growth:.3?}");
    }
    // Who is alive is asked a few times a second, which is a little by the frame.
    let rest: f64 = growth
        .iter()
        .filter(|(name, _)| !WAITS.contains(&name.as_str()) && *name != call)
        .map(|(_, count)| count.max(0.0))
        .sum();
    assert!(rest < 0.5, "{side}: {growth:.3?}");
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let can = traced.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !can {
        println!("skipped: strace does not work here: {traced:?}");
    }
    can
}

#[test]
fn one_wake_and_one_wait_a_frame() {
    if !can_trace() {
        return;
    }
    // So that no run differs from the others by having to write GStreamer's registry.
    let mut warm_up = command("gst-launch-1.0");
    warm_up.args(["-q", "fakesrc", "num-buffers=1", "!", "fakesink"]);
    Process::start(warm_up).wait_ok();
    let ([writer_of_few, reader_of_few], [writer_of_many, reader_of_many]) = (calls_of(200), calls_of(400));
    assert_lean("writer", &growth(&writer_of_few, &writer_of_many), "FUTEX_WAKE", 0.95);
    // A reader that comes late on a busy machine finds two frames and waits once.
    assert_lean("reader", &growth(&reader_of_few, &reader_of_many), "FUTEX_WAIT", 0.2);
}

/// No wait on a word that processes share goes by the wall clock, which somebody may set: neither those for frames and
/// readers, nor that for a semaphore which somebody has taken.
#[test]
fn no_wait_goes_by_the_wall_clock() {
    if !can_trace() {
        return;
    }
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
    common::eventually("it is there", || channel.exists());
    let semaphore = std::fs::File::options().write(true).open(&channel.files()[1]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&semaphore, &[0; 4], 0).unwrap();
    writer.wait_ok();
    reader.wait_ok();
    for log in &logs {
        let text = std::fs::read_to_string(log).unwrap();
        std::fs::remove_file(log).unwrap();
        let waits: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("FUTEX_WAIT") && !line.contains("PRIVATE"))
            .collect();
        println!("{} waits on shared words in {}", waits.len(), log.display());
        assert!(waits.len() > 5, "{waits:?}");
        for wait in waits {
            assert!(!wait.contains("FUTEX_CLOCK_REALTIME"), "{wait}");
        }
    }
}
