// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults around a channel. The channel's files vanish, a process dies or leaves a child, or frames outgrow the slots.

use std::{os::unix::fs::FileExt, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rsshm_testkit::{
    Channel, Process, eventually, frames,
    gst::{
        LOSSLESS, Pipeline, SinkHarness, launch, role_command,
        sequence::{has_frames, reader, summary, writer},
    },
    process::fork_sleeper,
    role::{Role, say},
    shm,
};

const FORKING_WRITER: &str = "faults/forking-writer";
const FORKING_READER: &str = "faults/forking-reader";

/// The roles of the processes that these tests start.
pub const ROLES: &[(&str, Role)] = &[(FORKING_WRITER, forking_writer), (FORKING_READER, forking_reader)];

const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=10/1";

/// Removes the segment, the lock file or both while a writer and a reader run.
#[track_caller]
fn assert_files_are_restored(remove: [bool; 2]) {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "lossless=true");
    let mut old = reader(&channel, "", 2);
    writer.play();
    eventually("frames flow", || has_frames(&old));
    for file in channel
        .files()
        .iter()
        .zip(remove)
        .filter_map(|(file, remove)| remove.then_some(file))
    {
        std::fs::remove_file(file).unwrap();
    }
    eventually("the files are restored", || channel.exists());
    let mut new = reader(&channel, "", 2);
    eventually("both readers are counted", || writer.num_clients() == 2);
    eventually("both readers have frames", || has_frames(&old) && has_frames(&new));
    writer.end();
    let last = writer.stat("rsshmsink", "frames-published") - 1;
    for reader in [&mut old, &mut new] {
        let found = summary(reader);
        found.assert_exact();
        assert!(found.missed == 0 && found.last == last, "{last} {found:?}");
    }
    assert_eq!(writer.stat("rsshmsink", "frames-dropped"), 0);
    drop(writer);
    channel.assert_removed();
}

#[test]
fn writer_restores_both_files() {
    assert_files_are_restored([true, true]);
}

#[test]
fn writer_restores_segment() {
    assert_files_are_restored([true, false]);
}

#[test]
fn writer_restores_lock_file() {
    assert_files_are_restored([false, true]);
}

#[test]
fn sink_restores_lock_file_before_first_frame() {
    let channel = Channel::new();
    let lock_file = channel.lock_file();
    // The sink has started and waits for data.
    let writer = SinkHarness::new(&channel, "");
    writer.pipeline.play();
    eventually("the sink has started", || lock_file.exists());
    std::fs::remove_file(&lock_file).unwrap();
    eventually("the lock file is restored", || lock_file.exists());
    drop(writer);
    channel.assert_removed();
}

/// A writer that forks a child. Its argument is the channel.
fn forking_writer(arguments: &[&str]) {
    let writer = writer(arguments[0], "is-live=true", CAPS, "");
    writer.play();
    eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 5);
    fork_and_sleep();
}

/// Forks a child that only waits and outlives this process.
fn fork_and_sleep() {
    say(format!("CHILD {}", fork_sleeper()));
    std::thread::sleep(Duration::from_secs(60));
}

/// A process that is not a child of the test. Dropping it kills the process.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn orphan_of_writer_does_not_hold_channel() {
    let channel = Channel::new();
    let mut first = Process::start(role_command(FORKING_WRITER, &[channel.as_str()]));
    let orphan = Orphan(child_of(&first));
    let reader = reader(&channel, "", 2);
    eventually("frames flow", || has_frames(&reader));
    first.kill();
    assert_eq!(kill(orphan.0, None), Ok(()), "the child has died");
    let second = writer(&channel, "is-live=true num-buffers=20", CAPS, "");
    second.play();
    second.wait_eos();
    assert_eq!(second.stat("rsshmsink", "frames-published"), 20);
    assert_eq!(kill(orphan.0, None), Ok(()), "the child has died");
    drop(second);
    channel.assert_removed();
}

/// A reader that forks a child. Its argument is the channel.
fn forking_reader(arguments: &[&str]) {
    let channel = arguments[0];
    let reader = Pipeline::playing(&format!(
        "rsshmsrc name=reader channel={channel} ! queue max-size-buffers=30 ! fakesink sync=true ts-offset=3600000000000"
    ));
    eventually("the reader holds frames", || {
        reader.stat("rsshmsrc", "frames-in-place") > 2
    });
    fork_and_sleep();
}

#[test]
fn orphan_of_reader_holds_no_entry() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "max-slots=12");
    writer.play();
    let mut reader = Process::start(role_command(FORKING_READER, &[channel.as_str()]));
    let orphan = Orphan(child_of(&reader));
    eventually("the reader is counted", || writer.num_clients() == 1);
    reader.kill();
    eventually("the reader is no longer counted", || writer.num_clients() == 0);
    assert_eq!(kill(orphan.0, None), Ok(()), "the child has died");
}

/// The PID of the child that a process has forked, from the output of the process.
#[track_caller]
fn child_of(process: &Process) -> Pid {
    let mut child = None;
    eventually("the process has forked", || {
        let output = process.output();
        child = output
            .lines()
            .find_map(|line| line.strip_prefix("CHILD ")?.parse().ok());
        child.is_some()
    });
    Pid::from_raw(child.unwrap())
}

/// The names of the staging files of a process.
fn staging_files(pid: Pid) -> Vec<String> {
    let mut names = shm::names();
    names.retain(|name| name.starts_with(&format!(".rsshm-{pid}-")));
    names
}

#[test]
fn writer_takes_over_and_leaves_no_staging_file() {
    let channel = Channel::new();
    let pipeline = format!("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink name={channel}");
    let mut pids = Vec::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} forward-eos=false ! fakesink"));
    for _ in 0..3 {
        let mut writer = launch(&pipeline);
        pids.push(writer.pid());
        // The writer is killed while frames flow.
        channel.wait_for_frame_of(writer.pid());
        writer.kill();
        assert!(channel.exists(), "the next writer needs the files of the killed one");
    }
    let mut writer = launch(&pipeline);
    pids.push(writer.pid());
    channel.wait_for_frame_of(writer.pid());
    assert!(writer.is_running() && reader.is_running());
    writer.interrupt();
    channel.assert_removed();
    for pid in pids {
        assert_eq!(staging_files(pid), [] as [String; 0]);
    }
    reader.interrupt();
    channel.assert_removed();
}

/// The sequenced frame `number`, of `size` bytes.
fn sequenced_buffer(number: u32, size: usize) -> gst::Buffer {
    let mut bytes = vec![0; size];
    frames::fill(&mut bytes, number);
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let target = buffer.get_mut().unwrap();
    // The time is in the future, because a source skips frames from before its base time.
    target.set_pts(gst::ClockTime::from_mseconds(60_000 + u64::from(number) * 20));
    buffer
}

#[test]
fn frames_larger_than_slots_get_new_segment() {
    let channel = Channel::new();
    let writer = SinkHarness::new(&channel, LOSSLESS);
    writer.set_caps("image/jpeg,width=640,height=480,framerate=50/1");
    let mut readers = [reader(&channel, "", 2), reader(&channel, "read-only=true", 2)];
    writer.pipeline.play();
    let sizes = [20_000, 60_000, 70_000, 30_000, 900_000, 40_000, 5_000_000, 10_000];
    let count = 80;
    for number in 0..count {
        let size = sizes[number as usize % sizes.len()] + number as usize * 100;
        writer.push(&sequenced_buffer(number, size));
        if number == 0 {
            eventually("both readers have the first frame", || readers.iter().all(has_frames));
        }
    }
    writer.end();
    writer.pipeline.wait_eos();
    let found = summary(&mut readers[0]);
    found.assert_exact();
    // The writer waits for this reader, so the reader misses no frame.
    assert!(
        found.first == 0 && found.missed == 0 && found.last == u64::from(count) - 1,
        "{found:?}"
    );
    // The writer does not wait for an observer.
    let found = summary(&mut readers[1]);
    found.assert_exact();
    assert_eq!(found.last, u64::from(count) - 1, "{found:?}");
    assert_eq!(writer.stat("frames-dropped"), 0);
    drop(writer);
    channel.assert_removed();
}

/// Each kind of semaphore fault is reported on the bus once, and counted each time.
#[test]
fn semaphore_fault_is_reported_once() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", &CAPS.replace("10/1", "50/1"), "");
    writer.play();
    eventually("the channel exists", || channel.exists());
    let semaphore = std::fs::File::options().write(true).open(channel.lock_file()).unwrap();
    for _ in 0..2 {
        let before = writer.stat("rsshmsink", "semaphore-timeouts");
        eventually("the timeout is counted", || {
            // The semaphore is taken, although no process holds it. If a thread of the writer holds it at this moment, its
            // release undoes the fault, so the fault is repeated.
            semaphore.write_all_at(&[0; 4], 0).unwrap();
            writer.stat("rsshmsink", "semaphore-timeouts") > before
        });
        // After this time, the writer counts the next fault as a new one.
        std::thread::sleep(Duration::from_millis(1300));
    }
    let warnings: Vec<String> = writer
        .take_messages(gst::MessageType::Warning)
        .iter()
        .filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error().message().to_owned()),
            _ => None,
        })
        .collect();
    assert!(warnings.len() == 1 && warnings[0].contains("semaphore"), "{warnings:?}");
    assert!(warnings[0].contains(channel.as_str()), "{warnings:?}");
}
