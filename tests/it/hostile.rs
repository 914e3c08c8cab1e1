// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipelines beside a program that writes garbage into the shared memory. Each pipeline continues, or ends with an
//! error that names the cause.
//!
//! The tests of the channel crate attack the channel itself. `RSSHM_TEST_SECONDS` makes the attacks longer.

use std::{
    fs::{File, OpenOptions},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::PathBuf,
    time::{Duration, Instant},
};

use rsshm_testkit::{
    Channel, Process, Random, eventually,
    gst::{launch, run_to_end},
    process::stat_fields,
};

/// A word to write: a special value, a small value, or any value.
fn garbage(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => u64::MAX,
        2 => random.below(256),
        _ => random.number(),
    }
}

/// Opens a file of the channel for writing, if it exists.
fn open(path: PathBuf) -> Option<File> {
    OpenOptions::new().read(true).write(true).open(path).ok()
}

/// The target of an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    /// The status and the tables, except the word with the state of the segment.
    Tables,
    /// All of the channel's files. The header and the lock file are also attacked, but less often.
    Everything,
}

/// The offsets that the header of a segment contains.
#[derive(Clone, Copy)]
struct Offsets {
    evictions: u64,
    slots: u64,
}

impl Offsets {
    /// Reads the offsets; `None` if the header is not plausible.
    fn read(segment: &File) -> Option<Self> {
        let field = |offset| {
            let mut word = [0; 8];
            segment.read_exact_at(&mut word, offset).ok()?;
            Some(u64::from_ne_bytes(word))
        };
        let (evictions, slots) = (field(72)?, field(120)?);
        (evictions < slots && slots < 1 << 22).then_some(Self { evictions, slots })
    }
}

const STATUS_OFFSET: u64 = 256;
const STATE_OFFSET: u64 = STATUS_OFFSET + 24;

/// Writes garbage into the channel's files for the duration `time`.
///
/// The function takes its offsets from the header of the current segment. If that header is not plausible, the function
/// uses the last plausible offsets.
fn write_garbage(channel: &Channel, time: Duration, attack: Attack) {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut offsets = None;
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
        let Some(segment) = open(channel.segment()) else {
            continue;
        };
        offsets = Offsets::read(&segment).or(offsets);
        let Some(Offsets { evictions, slots }) = offsets else {
            continue;
        };
        for _ in 0..100 {
            let at = match random.below(8) {
                0 => STATUS_OFFSET + random.below(16) * 8,
                _ => evictions + random.below(slots - evictions) / 8 * 8,
            };
            // Garbage in the state can mark the segment as superseded. A writer then replaces the segment.
            if !(attack == Attack::Tables && at == STATE_OFFSET) {
                let _ = segment.write_all_at(&garbage(&mut random).to_ne_bytes(), at);
            }
        }
        if attack == Attack::Everything && random.below(64) == 0 {
            let at = random.below(32) * 8;
            let _ = segment.write_all_at(&garbage(&mut random).to_ne_bytes(), at);
            if let Some(lock_file) = open(channel.lock_file()) {
                let _ = lock_file.write_all_at(&garbage(&mut random).to_ne_bytes(), random.below(4) * 8);
            }
        }
    }
}

/// The processor time that a process has used.
fn cpu_time(process: &Process) -> Duration {
    let fields = stat_fields(format!("/proc/{}", process.pid())).unwrap();
    // The user time and the system time, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The properties of three readers: one that gets frames in place, one that copies frames, and one that observes.
const READERS: [&str; 3] = ["", "max-held-buffers=0", "read-only=true"];

fn reader(channel: &Channel, options: &str) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} forward-eos=false {options} ! queue max-size-buffers=3 ! fakesink sync=false"
    ))
}

/// A reader whose start needs no more processor time.
#[track_caller]
fn started_reader(channel: &Channel, options: &str) -> Process {
    let mut process = reader(channel, options);
    eventually("the reader has started", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid()));
        let before = cpu_time(&process);
        std::thread::sleep(Duration::from_millis(100));
        // The source and the queue have threads of their own.
        let is_started = threads.is_ok_and(|threads| threads.count() >= 3);
        !process.is_running() || is_started && cpu_time(&process) - before <= Duration::from_millis(30)
    });
    process
}

/// The duration of an attack.
fn attack_time() -> Duration {
    let seconds = std::env::var("RSSHM_TEST_SECONDS").ok();
    Duration::from_secs_f64(seconds.and_then(|text| text.parse().ok()).unwrap_or(2.5))
}

/// Attacks for half a second. Returns the number of readers that ended, and starts new readers in their place.
///
/// No process may use much processor time, and the writer must not end.
#[track_caller]
fn attack_once(channel: &Channel, attack: Attack, writer: &mut Process, readers: &mut [Process; 3]) -> usize {
    let began = Instant::now();
    let before: Vec<Duration> = readers.iter().chain([&*writer]).map(cpu_time).collect();
    write_garbage(channel, Duration::from_millis(500), attack);
    assert!(writer.is_running(), "{}", writer.output());
    let assert_idle = |process: &Process, before: Duration| {
        let (spent, time) = (cpu_time(process) - before, began.elapsed());
        assert!(spent < time.mul_f64(0.6), "{spent:?} in {time:?}: {}", process.output());
    };
    assert_idle(writer, before[readers.len()]);
    let mut ended = 0;
    for ((process, before), options) in readers.iter_mut().zip(before).zip(READERS) {
        if process.is_running() {
            assert_idle(process, before);
            continue;
        }
        // A reader may end if the segment is not plausible, or if downstream does not accept its caps.
        let status = process.wait();
        let output = process.output();
        assert!(
            attack == Attack::Everything
                && status.signal().is_none()
                && output.contains("ERROR")
                && output.contains("channel"),
            "{status}: {output}"
        );
        ended += 1;
        *process = started_reader(channel, options);
    }
    ended
}

#[track_caller]
fn assert_survives(attack: Attack) {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=64,framerate=200/1 \
         ! rsshmsink name={channel} max-slots=12 navigation=true"
    ));
    eventually("the channel exists", || channel.exists());
    let mut readers = READERS.map(|options| started_reader(&channel, options));
    // The last reader observes, so it has no entry.
    channel.wait_for_readers_of(writer.pid(), READERS.len() - 1);
    let until = Instant::now() + attack_time();
    let mut ended = 0;
    while Instant::now() < until {
        ended += attack_once(&channel, attack, &mut writer, &mut readers);
    }
    println!("{attack:?}: {ended} readers ended with an error");
    // The writer checks the header once a second.
    std::thread::sleep(Duration::from_millis(2500));
    for (process, options) in readers.iter_mut().zip(READERS) {
        if !process.is_running() {
            *process = reader(&channel, options);
        }
    }
    run_to_end(&format!("rsshmsrc name={channel} num-buffers=50 ! fakesink sync=false"));
    for process in &mut readers {
        assert!(process.is_running(), "{}", process.output());
        process.interrupt();
    }
    writer.interrupt();
    channel.assert_removed();
    run_to_end(&format!(
        "videotestsrc num-buffers=5 ! rsshmsink name={channel} sync=false"
    ));
    channel.assert_removed();
}

#[test]
fn garbage_in_tables_ends_no_pipeline() {
    assert_survives(Attack::Tables);
}

#[test]
fn garbage_in_header_ends_readers_only_with_error() {
    assert_survives(Attack::Everything);
}
