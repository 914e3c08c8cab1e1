//! Pipelines beside a program that writes nonsense into all that they share: each goes on, or ends with an error that says
//! what is wrong. What the channel itself stands is tested with the channel.
//!
//! `RSSHM_TEST_SECONDS` makes the attacks longer.

mod common;

use std::{
    fs::{File, OpenOptions},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    time::{Duration, Instant},
};

use common::{Channel, Process, eventually, launch};

/// A xorshift is random enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> u64 {
        match self.next() % 4 {
            0 => 0,
            1 => u64::MAX,
            2 => self.next() % 256,
            _ => self.next(),
        }
    }
}

/// Opens a file of the channel for writing, if it is there.
fn open(channel: &Channel, which: usize) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(&channel.files()[which]).ok()
}

/// Writes words into the segment for a time: into what changes, and now and then, not `sparing`, also into what never does and
/// into the semaphore. The places are those of the present segment, or of the last one whose header made sense.
fn scribble(channel: &Channel, time: Duration, sparing: bool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut places = None;
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
        let Some(segment) = open(channel, 0) else {
            continue;
        };
        let field = |offset| {
            let mut word = [0; 8];
            segment.read_exact_at(&mut word, offset).ok()?;
            Some(u64::from_ne_bytes(word))
        };
        let (Some(quotas), Some(slots)) = (field(72), field(120)) else {
            continue;
        };
        if quotas < slots && slots < 1 << 22 {
            places = Some((quotas, slots));
        }
        let Some((quotas, slots)) = places else {
            continue;
        };
        for _ in 0..100 {
            let at = match random.next() % 8 {
                0 => 256 + random.next() % 16 * 8,
                _ => quotas + random.next() % (slots - quotas) / 8 * 8,
            };
            // Not the word that says that the segment is over: that is replaced.
            if !(sparing && at == 256 + 24) {
                let _ = segment.write_all_at(&random.value().to_ne_bytes(), at);
            }
        }
        if !sparing && random.next().is_multiple_of(64) {
            let at = random.next() % 32 * 8;
            let _ = segment.write_all_at(&random.value().to_ne_bytes(), at);
            if let Some(semaphore) = open(channel, 1) {
                let _ = semaphore.write_all_at(&random.value().to_ne_bytes(), random.next() % 4 * 8);
            }
        }
    }
}

/// Processor time that a process has had.
fn cpu_time(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    // Behind the name, which may hold anything: user and system time, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Pipelines of readers: in place, copied, and observing.
const READERS: [&str; 3] = ["", "max-held-buffers=0", "read-only=true"];

fn reader(channel: &Channel, options: &str) -> Process {
    launch(&format!(
        "rsshmsrc name={channel} forward-eos=false {options} ! queue max-size-buffers=3 ! fakesink sync=false"
    ))
}

#[track_caller]
fn nonsense_ends_nobody(sparing: bool) {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=64,framerate=200/1 \
         ! rsshmsink name={channel} max-slots=12 navigation=true"
    ));
    eventually("it is there", || channel.exists());
    let mut readers = READERS.map(|options| reader(&channel, options));
    std::thread::sleep(Duration::from_millis(500));
    let seconds = std::env::var("RSSHM_TEST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs_f64(seconds.unwrap_or(2.5));
    let mut ended = 0;
    while Instant::now() < until {
        let time = Duration::from_millis(500);
        let before: Vec<Duration> = readers.iter().chain([&writer]).map(cpu_time).collect();
        scribble(&channel, time, sparing);
        assert!(writer.is_running(), "{}", writer.output());
        for ((process, before), options) in readers
            .iter_mut()
            .chain([&mut writer])
            .zip(before)
            .zip(READERS.iter().chain([&""]))
        {
            if process.is_running() {
                let spent = cpu_time(process) - before;
                assert!(spent < time.mul_f64(0.6), "{spent:?} in {time:?}: {}", process.output());
                continue;
            }
            // A segment that makes no sense, or a format that downstream does not take.
            let status = process.wait();
            let said = process.output();
            assert!(
                !sparing && status.signal().is_none() && said.contains("ERROR") && said.contains("channel"),
                "{status}: {said}"
            );
            ended += 1;
            *process = reader(&channel, options);
        }
    }
    println!("sparing {sparing}: {ended} readers ended with an error");
    // What never changes is looked at once a second.
    std::thread::sleep(Duration::from_millis(2500));
    for (process, options) in readers.iter_mut().zip(READERS) {
        if !process.is_running() {
            *process = reader(&channel, options);
        }
    }
    launch(&format!("rsshmsrc name={channel} num-buffers=50 ! fakesink sync=false")).wait_ok();
    for process in &mut readers {
        assert!(process.is_running(), "{}", process.output());
        process.interrupt();
    }
    writer.interrupt();
    channel.assert_gone();
    let again = format!("videotestsrc num-buffers=5 ! rsshmsink name={channel} sync=false");
    launch(&again).wait_ok();
    channel.assert_gone();
}

#[test]
fn nonsense_in_all_that_changes_ends_nobody() {
    nonsense_ends_nobody(true);
}

#[test]
fn nonsense_in_the_header_too_ends_nobody_without_a_word() {
    nonsense_ends_nobody(false);
}
