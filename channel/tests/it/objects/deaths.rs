// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processes that are killed or stopped while they use frames of objects: at each failpoint of the protocol, and
//! between them. The camera keeps its buffers, and no peer waits for ever.

use std::{os::unix::fs::MetadataExt, process::Command, time::Duration};

use rsshm_channel::{Caps, Next, ObjectFault, Reader, ReaderOptions};
use rsshm_testkit::{
    Channel, Process, eventually,
    process::stat_fields,
    role::{self, Role, listen, say},
    timed,
};

use super::{
    OTHER_CAPS, accepting, check_objects, is_object, next_frame,
    pool::{Pool, assert_out, object_writer, open_files},
};
use crate::support::{ChannelExt, SECOND, Service, lossless, open_reader, slots};

/// The fields KILLS and STOPS of `RSSHM_FAILPOINTS`: each pass kills the process, or stops it.
const KILL: &str = "1000000,0";
const STOP: &str = "0,1000000";

/// How many buffers the camera can spare, and how many it has.
const SPARE: u32 = 6;
const BUFFERS: usize = 7;

pub const ROLES: &[(&str, Role)] = &[
    ("objects/deaths/reader", |arguments| reader(arguments[0])),
    ("objects/deaths/slow writer", |arguments| slow_writer(arguments[0])),
    ("objects/deaths/superseding writer", |arguments| {
        superseding_writer(arguments[0])
    }),
    ("objects/deaths/writer", |arguments| writer(arguments[0])),
];

/// Takes frames for ever, and holds one or two of them.
fn reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut held = std::collections::VecDeque::new();
    let mut copy = Vec::new();
    say("ready");
    loop {
        if let Next::Frame(frame) = reader.next(&mut copy, accepting(), Some(5 * SECOND)).unwrap() {
            check_objects(&frame, &copy);
            if is_object(&frame) {
                held.push_back(frame);
            }
            if held.len() > 1 {
                held.pop_front();
                say("holds");
            }
        }
    }
}

/// Publishes two frames in different memory, and a third one with other caps when the test sends a line. A failpoint
/// stops it when the first segment is superseded.
fn superseding_writer(channel: &str) {
    let writer = object_writer(channel, lossless(0), SPARE);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, BUFFERS);
    assert!(pool.publish(&writer, 1));
    say("published");
    listen();
    assert!(pool.publish(&writer, 2));
    writer.set_caps(Caps::objects(OTHER_CAPS)).unwrap();
    pool.publish(&writer, 3);
    drop(service);
}

/// Publishes frames until the test sends a line. Then it closes the channel.
fn writer(channel: &str) {
    let writer = object_writer(channel, slots(16), SPARE);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, BUFFERS);
    for value in 1..=5000 {
        assert!(pool.publish(&writer, value), "the camera has no buffer");
        std::thread::sleep(Duration::from_millis(2));
        if value == 20 {
            say("published");
        }
    }
    drop(service);
    listen();
}

/// A process that kills or stops itself when it passes a failpoint.
struct AtFailpoint {
    process: Process,
    counts: String,
}

impl AtFailpoint {
    fn start(role: &str, channel: &Channel, rates: &str, failpoint: &str, pass: u64) -> Self {
        let counts = format!("{}/{}-{failpoint}", env!("CARGO_TARGET_TMPDIR"), channel.as_str());
        let mut command: Command = role::command(role, &[channel.as_str()]);
        command.env("RSSHM_FAILPOINTS", format!("1,{rates},{counts},{failpoint},{pass}"));
        Self {
            process: Process::converse(command),
            counts,
        }
    }
}

impl Drop for AtFailpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.counts);
    }
}

/// Publishes frames while `is_due` returns `false`. The camera always has a buffer.
#[track_caller]
fn publish_until(
    what: &str,
    pool: &Pool,
    writer: &rsshm_channel::Writer,
    value: &mut u64,
    mut is_due: impl FnMut() -> bool,
) {
    eventually(what, || {
        *value += 1;
        assert!(pool.publish(writer, *value), "the camera has no buffer");
        assert_out(writer, SPARE);
        is_due()
    });
}

fn is_stopped(process: &Process) -> bool {
    stat_fields(format!("/proc/{}", process.pid())).unwrap()[0] == "T"
}

const OF_A_READER: [&str; 9] = [
    "PinSet",
    "Pinned",
    "ObjectDue",
    "RequestSent",
    "DescriptorReceived",
    "CursorDue",
    "UnpinDue",
    "Unpinned",
    "LeaveDue",
];

/// Wherever a reader dies, the camera gets back all buffers but the newest.
#[test]
fn killed_reader_costs_no_buffer() {
    // A reader that never ends does not pass the last one.
    for failpoint in &OF_A_READER[..8] {
        for pass in [1, 4] {
            let channel = Channel::new();
            let writer = object_writer(channel.as_str(), slots(16), SPARE);
            let service = Service::of(&writer);
            let pool = Pool::new(&writer, BUFFERS);
            let mut value = 0;
            let mut reader = AtFailpoint::start("objects/deaths/reader", &channel, KILL, failpoint, pass);
            publish_until(failpoint, &pool, &writer, &mut value, || !reader.process.is_running());
            reader.process.wait_killed();
            eventually("the buffers are back", || {
                value += 1;
                assert!(pool.publish(&writer, value), "{failpoint}");
                pool.free() == BUFFERS - 1
            });
            // Another reader gets frames in place.
            let mut other = channel.reader();
            eventually("frames in place", || {
                value += 1;
                assert!(pool.publish(&writer, value), "{failpoint}");
                is_object(&next_frame(&mut other, accepting()))
            });
            drop(service);
        }
    }
}

/// Wherever a reader stops, the camera keeps buffers, and other readers get frames. When it goes on, its frames are
/// unchanged.
#[test]
fn stopped_reader_leaves_the_camera_its_buffers() {
    for failpoint in &OF_A_READER[..8] {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(16), SPARE);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, BUFFERS);
        let mut value = 0;
        let mut reader = AtFailpoint::start("objects/deaths/reader", &channel, STOP, failpoint, 4);
        publish_until(failpoint, &pool, &writer, &mut value, || is_stopped(&reader.process));
        let mut other = channel.reader();
        for _ in 0..200 {
            value += 1;
            assert!(pool.publish(&writer, value), "{failpoint}");
            assert_out(&writer, SPARE);
            next_frame(&mut other, accepting());
        }
        reader.process.resume();
        while reader.process.try_receive().is_some() {}
        publish_until(&format!("on after {failpoint}"), &pool, &writer, &mut value, || {
            std::thread::sleep(Duration::from_millis(1));
            reader.process.try_receive().is_some()
        });
        reader.process.kill();
        drop(service);
    }
}

const OF_A_WRITER: [&str; 9] = [
    "SocketMade",
    "SocketNamed",
    "SegmentNamed",
    "OwnerStored",
    "SeqStored",
    "RetireDue",
    "OwnersDue",
    "RequestReceived",
    "QuotaDue",
];

/// Wherever a writer dies, the next one takes the channel over, and a reader follows to it.
#[test]
fn writer_killed_anywhere_has_a_successor() {
    for failpoint in OF_A_WRITER {
        println!("{failpoint}");
        let channel = Channel::new();
        let mut first = AtFailpoint::start("objects/deaths/writer", &channel, KILL, failpoint, 1);
        let mut reader = role::start("objects/deaths/reader", &[channel.as_str()]);
        reader.expect("ready");
        eventually("the writer is dead", || !first.process.is_running());
        first.process.wait_killed();
        let mut second = role::start("objects/deaths/writer", &[channel.as_str()]);
        second.expect("published");
        while reader.try_receive().is_some() {}
        reader.expect("holds");
        let files = open_files(reader.pid());
        for _ in 0..50 {
            reader.expect("holds");
        }
        assert!(open_files(reader.pid()) <= files + BUFFERS, "{failpoint}");
        second.kill();
        reader.kill();
        let staging = format!(".rsshm-{}-", first.process.pid());
        for entry in std::fs::read_dir(rsshm_channel::Directory::current().path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(&staging) {
                // A staging file of a dead process is removed when it is ten seconds old.
                assert_eq!(failpoint, "SocketMade", "{entry:?}");
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// The writer is about to take a slot, and a reader pins its frame at this moment. The buffer does not go back before
/// the reader releases the frame.
#[test]
fn buffer_pinned_at_the_last_moment_stays() {
    let mut pinned_late = 0;
    for pass in 13..=18 {
        let channel = Channel::new();
        let mut writer = AtFailpoint::start("objects/deaths/slow writer", &channel, STOP, "PinsSeen", pass);
        let mut reader = channel.reader();
        // The reader needs each object once, because a stopped writer does not answer.
        let mut first = None;
        for _ in 0..12 {
            writer.process.expect("published");
            first = Some(next_frame(&mut reader, accepting()));
            writer.process.send("go on");
        }
        let first = first.unwrap();
        writer.process.wait_stopped();
        let mut held = Vec::new();
        let mut newest = first.seq;
        while let Next::Frame(frame) = take(&mut reader, Duration::ZERO).1 {
            newest = frame.seq;
            if is_object(&frame) {
                check_objects(&frame, &[]);
                held.push(frame);
            }
        }
        // The writer never takes the newest frame.
        pinned_late += held.iter().filter(|frame| frame.seq < newest).count();
        writer.process.resume();
        writer.process.expect("done");
        for frame in &held {
            check_objects(frame, &[]);
        }
    }
    assert!(pinned_late > 0, "no frame was pinned at the last moment");
}

/// Publishes 12 frames, each after a line of the test. Then it publishes 60 more, so that each buffer is used many
/// times.
fn slow_writer(channel: &str) {
    let writer = object_writer(channel, slots(16), 8);
    let pool = Pool::new(&writer, 10);
    for value in 1..=12 {
        assert!(pool.publish(&writer, value));
        say("published");
        listen();
    }
    for value in 13..=72 {
        assert!(pool.publish(&writer, value));
        writer.service().unwrap();
    }
    say("done");
    listen();
}

/// The next frame or another item, and how long it took.
fn take(reader: &mut Reader, timeout: Duration) -> (Duration, Next) {
    timed(|| reader.next(&mut Vec::new(), accepting(), Some(timeout)).unwrap())
}

/// While a writer is stopped, a reader that needs an object waits for a bounded time. Then it misses the frame.
#[test]
fn stopped_writer_holds_no_reader() {
    for failpoint in ["RequestReceived", "RetireDue", "OwnersDue", "HeadStored"] {
        let channel = Channel::new();
        let mut writer = AtFailpoint::start("objects/deaths/writer", &channel, STOP, failpoint, 1);
        let mut reader = channel.reader();
        // At `RequestReceived`, the first request stops the writer.
        let (mut longest, mut frames) = (Duration::ZERO, 0);
        eventually("the writer is stopped", || {
            let (duration, next) = take(&mut reader, Duration::from_millis(50));
            longest = longest.max(duration);
            frames += u32::from(matches!(next, Next::Frame(_)));
            is_stopped(&writer.process)
        });
        for _ in 0..5 {
            let (duration, next) = take(&mut reader, Duration::from_millis(50));
            longest = longest.max(duration);
            assert!(!matches!(next, Next::Lost), "a stopped writer is alive");
        }
        // One request, and the rest of a wait for frames.
        assert!(longest < 3 * SECOND, "{failpoint}: {longest:?}");
        writer.process.resume();
        eventually(
            "frames in place",
            || matches!(take(&mut reader, SECOND).1, Next::Frame(frame) if is_object(&frame)),
        );
        drop(reader);
        writer.process.kill();
    }
}

/// The dead writer had another segment already, so its successor knows nothing of the one in which the reader still is.
/// The reader finds the successor's socket, and says that the memory is gone, not that the socket is foreign.
#[test]
fn memory_in_superseded_segment_of_dead_writer_is_gone() {
    let channel = Channel::new();
    let mut dead = AtFailpoint::start("objects/deaths/superseding writer", &channel, STOP, "Superseded", 1);
    dead.process.expect("published");
    let mut reader = channel.reader();
    drop(next_frame(&mut reader, accepting()));
    let segment = || std::fs::metadata(channel.segment()).unwrap().ino();
    let former = segment();
    dead.process.send("go on");
    dead.process.wait_stopped();
    assert_ne!(segment(), former, "the next segment has the name");
    dead.process.kill();
    let writer = object_writer(channel.as_str(), slots(0), SPARE);
    let pool = Pool::new(&writer, BUFFERS);
    assert!(pool.publish(&writer, 4));
    let next = reader.next(&mut Vec::new(), accepting(), Some(5 * SECOND)).unwrap();
    assert!(matches!(next, Next::Fault(ObjectFault::Gone)), "{next:?}");
    let frame = next_frame(&mut reader, accepting());
    assert_eq!(frame.descriptor.offset, 4);
}
