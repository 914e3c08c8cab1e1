//! What goes wrong around a channel: its files vanish, its writer dies or leaves a child behind, frames outgrow it.

mod common;
mod numbered;

use std::time::Duration;

use common::{Channel, Pipeline, Process, eventually, launch, within};
use gst::prelude::*;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{ForkResult, Pid, fork},
};
use numbered::{entry_command, has_frames, reader, summary, writer};

const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=10/1";

/// Removes the files of the channel for which `remove` holds, under a running writer with a reader.
#[track_caller]
fn files_come_back(remove: [bool; 2]) {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true num-buffers=60", CAPS, "");
    let mut old = reader(&channel, "", 2);
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("frames flow", || has_frames(&old));
    for file in channel
        .files()
        .iter()
        .zip(remove)
        .filter_map(|(file, remove)| remove.then_some(file))
    {
        std::fs::remove_file(file).unwrap();
    }
    // The promise is a second or so; the machine may be busy.
    within(Duration::from_secs(3), "the files are there again", || channel.exists());
    let mut new = reader(&channel, "", 2);
    eventually("both are counted", || {
        writer.by_factory("rsshmsink").property::<u32>("num-clients") == 2
    });
    assert!(has_frames(&old));
    writer.wait_eos();
    for reader in [&mut old, &mut new] {
        let found = summary(reader);
        found.assert_exact();
        assert!(found.missed == 0 && found.last == 59, "{found:?}");
    }
    assert_eq!(writer.stat("rsshmsink", "frames-dropped"), 0);
    drop(writer);
    channel.assert_gone();
}

#[test]
fn lost_files_come_back() {
    files_come_back([true, true]);
}

#[test]
fn a_lost_segment_comes_back() {
    files_come_back([true, false]);
}

#[test]
fn a_lost_semaphore_comes_back() {
    files_come_back([false, true]);
}

#[test]
fn files_lost_before_the_first_frame_come_back() {
    let channel = Channel::new();
    let semaphore = &channel.files()[1];
    // It is there, and waits for data.
    let writer = Pipeline::new(&format!("appsrc name=source ! rsshmsink name={channel}"));
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("it has started", || semaphore.exists());
    std::fs::remove_file(semaphore).unwrap();
    within(Duration::from_secs(3), "it is there again", || semaphore.exists());
    drop(writer);
    channel.assert_gone();
}

/// A writer that forks a child, which executes nothing and lives on.
#[test]
#[ignore = "a process that another test starts"]
fn forking_writer() {
    let Ok(channel) = std::env::var("RSSHM_TEST_CHANNEL") else {
        return;
    };
    let writer = writer(channel, "is-live=true", CAPS, "");
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 5);
    // SAFETY: the child calls nothing but pause(2), which is async-signal-safe.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => {
            println!("CHILD {child}");
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

/// A process to be killed in the end, whatever comes.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn a_child_that_outlives_the_writer_does_not_keep_the_channel() {
    let channel = Channel::new();
    let mut command = entry_command("forking_writer");
    command.env("RSSHM_TEST_CHANNEL", &channel.0);
    let mut first = Process::start(command);
    let orphan = Orphan(child_of(&first));
    let reader = reader(&channel, "", 2);
    eventually("frames flow", || has_frames(&reader));
    first.kill();
    assert_eq!(kill(orphan.0, None), Ok(()), "the child lives");
    let second = writer(&channel, "is-live=true num-buffers=20", CAPS, "");
    second.0.set_state(gst::State::Playing).unwrap();
    second.wait_eos();
    assert_eq!(second.stat("rsshmsink", "frames-published"), 20);
    assert_eq!(kill(orphan.0, None), Ok(()), "the child lives");
    drop(second);
    channel.assert_gone();
}

/// A reader that forks a child, which executes nothing and lives on.
#[test]
#[ignore = "a process that another test starts"]
fn forking_reader() {
    let Ok(channel) = std::env::var("RSSHM_TEST_CHANNEL") else {
        return;
    };
    let reader = Pipeline::playing(&format!(
        "rsshmsrc name=reader channel={channel} ! queue max-size-buffers=30 ! fakesink sync=true ts-offset=3600000000000"
    ));
    eventually("it holds frames", || reader.stat("rsshmsrc", "frames-in-place") > 2);
    // SAFETY: as above.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => {
            println!("CHILD {child}");
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

#[test]
fn a_child_that_outlives_a_reader_holds_nothing() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", CAPS, "max-slots=12");
    writer.0.set_state(gst::State::Playing).unwrap();
    let mut command = entry_command("forking_reader");
    command.env("RSSHM_TEST_CHANNEL", &channel.0);
    let mut reader = Process::start(command);
    let orphan = Orphan(child_of(&reader));
    let num_clients = || writer.by_factory("rsshmsink").property::<u32>("num-clients");
    assert_eq!(num_clients(), 1);
    reader.kill();
    within(Duration::from_secs(2), "it is not counted any more", || {
        num_clients() == 0
    });
    assert_eq!(kill(orphan.0, None), Ok(()), "the child lives");
}

/// The child that a process says it has forked.
#[track_caller]
fn child_of(process: &Process) -> Pid {
    let mut child = None;
    eventually("it has forked", || {
        let output = process.output();
        child = output
            .lines()
            .find_map(|line| line.strip_prefix("CHILD ")?.parse().ok());
        child.is_some()
    });
    Pid::from_raw(child.unwrap())
}

/// Files of segments in the making of this process, which nobody looks for.
fn in_the_making(pid: Pid) -> Vec<String> {
    std::fs::read_dir("/dev/shm")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!(".rsshm-{pid}-")))
        .collect()
}

#[test]
fn a_killed_writer_is_taken_over_and_leaves_nothing() {
    let channel = Channel::new();
    let pipeline = format!("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink name={channel}");
    let mut pids = Vec::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} forward-eos=false ! fakesink"));
    for _ in 0..3 {
        let mut writer = launch(&pipeline);
        pids.push(writer.pid());
        eventually("it has started", || channel.exists());
        std::thread::sleep(Duration::from_millis(300));
        writer.kill();
        assert!(channel.exists(), "what a killed writer leaves is there for the next");
    }
    let mut writer = launch(&pipeline);
    pids.push(writer.pid());
    std::thread::sleep(Duration::from_millis(700));
    assert!(writer.is_running() && reader.is_running());
    writer.interrupt();
    channel.assert_gone();
    for pid in pids {
        assert_eq!(in_the_making(pid), [] as [String; 0]);
    }
    reader.interrupt();
    channel.assert_gone();
}

/// A buffer of `size` bytes that carries `number`.
fn numbered_buffer(number: u32, size: usize) -> gst::Buffer {
    let mut bytes = vec![0; size];
    numbered::fill(&mut bytes, number);
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let target = buffer.get_mut().unwrap();
    // Ahead of everybody's clock: what is older than a reader's pipeline has no place in it.
    target.set_pts(gst::ClockTime::from_mseconds(60_000 + u64::from(number) * 20));
    buffer
}

fn push(source: &gst::Element, buffer: &gst::Buffer) {
    let flow = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[buffer]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

#[test]
fn frames_that_outgrow_the_slot_make_a_new_segment() {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "appsrc name=source format=time caps=image/jpeg,width=640,height=480,framerate=50/1 \
         ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
    ));
    let mut readers = [reader(&channel, "", 2), reader(&channel, "read-only=true", 2)];
    writer.0.set_state(gst::State::Playing).unwrap();
    let source = writer.element("source");
    let sizes = [20_000, 60_000, 70_000, 30_000, 900_000, 40_000, 5_000_000, 10_000];
    let count = 80;
    for number in 0..count {
        let size = sizes[number as usize % sizes.len()] + number as usize * 100;
        push(&source, &numbered_buffer(number, size));
        if number == 0 {
            eventually("both have the first", || readers.iter().all(has_frames));
        }
    }
    let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    writer.wait_eos();
    let found = summary(&mut readers[0]);
    found.assert_exact();
    // The writer waits for this reader: from its first frame on it gets them all.
    assert!(
        found.first == 0 && found.missed == 0 && found.last == u64::from(count) - 1,
        "{found:?}"
    );
    // Nobody waits for an observer.
    let found = summary(&mut readers[1]);
    found.assert_exact();
    assert_eq!(found.last, u64::from(count) - 1, "{found:?}");
    assert_eq!(writer.stat("rsshmsink", "frames-dropped"), 0);
    drop(writer);
    channel.assert_gone();
}

/// What is done to the semaphore is told on the bus, each kind once, and counted each time.
#[test]
fn trouble_with_the_semaphore_is_told_once() {
    let channel = Channel::new();
    let writer = writer(&channel, "is-live=true", &CAPS.replace("10/1", "50/1"), "");
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("it is there", || channel.exists());
    let semaphore = std::fs::File::options().write(true).open(&channel.files()[1]).unwrap();
    for episode in 1..=2 {
        // Taken, by nobody.
        std::os::unix::fs::FileExt::write_all_at(&semaphore, &[0; 4], 0).unwrap();
        eventually("it is counted", || {
            writer.stat("rsshmsink", "semaphore-timeouts") == episode
        });
        std::thread::sleep(Duration::from_millis(1300));
    }
    let bus = writer.0.bus().unwrap();
    let warnings: Vec<String> = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]))
        .filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error().message().to_owned()),
            _ => None,
        })
        .collect();
    assert!(warnings.len() == 1 && warnings[0].contains("semaphore"), "{warnings:?}");
    assert!(warnings[0].contains(&channel.0), "{warnings:?}");
}
