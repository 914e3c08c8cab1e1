// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of programs in containers that share only /dev/shm, or only the directory that `RSSHM_DIR` names. Each program
//! has its own mount and pid namespaces, and is process 1 in its container. The process IDs therefore cannot show which
//! peer is alive.

use std::time::Duration;

use rsshm_channel::{Error, Next, ReadLimits, ReaderOptions, WriterOptions};
use rsshm_testkit::{
    Channel, Container, Process, SharedDirectory, eventually, need_root,
    privileges::{NOBODY, ProgramForAll},
    role::{self, Role, say},
    shm::unshared,
    skip,
};

use crate::support::{
    SECOND, Service, check_bytes, is_in_place, open_reader, open_writer, publish, slots, try_open_writer,
};

/// The options with which `unshare` starts a container.
const CONTAINER: [&str; 6] = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"];

pub const ROLES: &[(&str, Role)] = &[
    ("containers/writer", |arguments| writer(arguments[0], 0o600)),
    ("containers/writer for all", |arguments| writer(arguments[0], 0o666)),
    ("containers/reader", |arguments| reader(arguments[0])),
    ("containers/refused writer", |arguments| refused_writer(arguments[0])),
];

/// Publishes a hundred frames a second. For each line from the test, it says how many readers are attached.
fn writer(channel: &str, perms: u32) {
    let lines = role::lines();
    let writer = open_writer(channel, slots(12).perms(perms));
    let service = Service::of(&writer);
    say(std::process::id());
    for value in 1.. {
        assert!(publish(&writer, value));
        match lines.recv_timeout(Duration::from_millis(10)).as_deref() {
            Ok("stop") => break,
            Ok(_) => say(service.seen().reader_count),
            Err(_) => {}
        }
    }
    drop(service);
    drop(writer);
    say("stopped");
}

/// Reads all frames. For each line from the test, it says the newest seq, how many frames were in place, how often it
/// lost the writer, and whether it holds a frame.
fn reader(channel: &str) {
    let lines = role::lines();
    let mut reader = open_reader(channel, ReaderOptions::default());
    let (mut copy, mut held) = (Vec::new(), None);
    let (mut seq, mut in_place, mut lost) = (0, 0, 0);
    say(std::process::id());
    loop {
        match reader
            .next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(10)))
            .unwrap()
        {
            Next::Frame(frame) => {
                check_bytes(&frame, &copy);
                seq = frame.seq;
                in_place += u32::from(is_in_place(&frame));
                held = Some(frame);
            }
            Next::Lost => lost += 1,
            _ => {}
        }
        if lines.try_recv().is_ok() {
            say(format!("{seq} {in_place} {lost} {}", u8::from(held.is_some())));
        }
    }
}

/// Tries to open a writer, and says why this failed.
fn refused_writer(channel: &str) {
    let refused = try_open_writer(channel, WriterOptions::default());
    say(match refused {
        Err(error @ Error::Busy { .. }) => format!("busy: {error}"),
        other => format!("{other:?}"),
    });
}

/// Asks a process for its report, and returns the numbers in it.
#[track_caller]
fn ask(process: &mut Process) -> Vec<u64> {
    process.send("report");
    let line = process.receive();
    line.split(' ').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn writer_and_readers_work_across_containers() {
    let Some(container) = unshared(&CONTAINER) else {
        skip!("no namespaces");
    };
    let channel = Channel::new();
    let start = |role: &str| {
        let mut process = role::start_within(&container, role, &[channel.as_str()]);
        process.expect("1");
        process
    };
    // The readers start first, then the writer. `start` checks that each process has the process ID 1.
    let (mut one, mut other) = (start("containers/reader"), start("containers/reader"));
    let mut writer = start("containers/writer");
    eventually("both are attached", || ask(&mut writer) == [2]);
    eventually("frames in place", || ask(&mut one)[1] > 5 && ask(&mut other)[1] > 5);

    // A second writer is refused.
    let mut refused = role::start_within(&container, "containers/refused writer", &[channel.as_str()]);
    assert!(refused.receive().starts_with("busy"));

    // A reader is killed. The writer notices this within two seconds, and another reader attaches.
    // Other programs can delay the writer too, so the test repeats this.
    eventually("a killed reader is gone within two seconds", || {
        other.kill();
        let took = eventually("one is gone", || ask(&mut writer) == [1]);
        println!("a killed reader was gone after {took:?}");
        other = start("containers/reader");
        eventually("two again", || ask(&mut writer) == [2]);
        took < 2 * SECOND
    });

    // The writer is killed, and another writer starts in another container. The new writer continues the seqs.
    for round in 1..=3 {
        let before = ask(&mut one)[0];
        writer.kill();
        eventually("the reader notices it", || ask(&mut one)[2] == round);
        writer = start("containers/writer");
        eventually("both follow", || ask(&mut writer) == [2]);
        eventually("seqs continue", || {
            ask(&mut one)[0] > before + 5 && ask(&mut other)[0] > before + 5
        });
    }
    writer.send("stop");
    eventually("it has stopped", || writer.receive() == "stopped");
    channel.assert_removed();
}

/// A program with these roles and channel in a container of the directory.
#[track_caller]
fn inside(directory: &SharedDirectory, container: Container, role: &str, channel: &Channel) -> Option<Process> {
    let command = directory.inside(container, &role::command(role, &[channel.as_str()]))?;
    Some(Process::converse(command))
}

/// Such a program on the host.
#[track_caller]
fn outside(directory: &SharedDirectory, role: &str, channel: &Channel) -> Process {
    Process::converse(directory.outside(role::command(role, &[channel.as_str()])))
}

#[test]
fn container_with_only_the_directory_has_its_channels() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let Some(mut reader) = inside(&directory, Container::Plain, "containers/reader", &channel) else {
        skip!("no namespaces");
    };
    reader.expect("1");
    let mut writer = outside(&directory, "containers/writer", &channel);
    writer.receive();
    let mut other = outside(&directory, "containers/reader", &channel);
    other.receive();
    eventually("both are attached", || ask(&mut writer) == [2]);
    eventually("frames in place", || ask(&mut reader)[1] > 5 && ask(&mut other)[1] > 5);
    assert_eq!(directory.files(), [channel.to_string(), format!("sem.{channel}")]);
    channel.assert_removed();

    // The kernel's locks say that the killed reader is gone, although the writer cannot see its process.
    reader.kill();
    eventually("one is gone", || ask(&mut writer) == [1]);

    // The other way round: the writer is in the container, and the reader on the host notices its end.
    writer.kill();
    eventually("the reader notices it", || ask(&mut other)[2] == 1);
    let before = ask(&mut other)[0];
    let mut writer = inside(&directory, Container::Plain, "containers/writer", &channel).unwrap();
    writer.expect("1");
    eventually("it follows", || ask(&mut writer) == [1]);
    eventually("seqs continue", || ask(&mut other)[0] > before + 5);
    let mut refused = outside(&directory, "containers/refused writer", &channel);
    assert!(refused.receive().starts_with("busy"));
    writer.send("stop");
    eventually("it has stopped", || writer.receive() == "stopped");
    assert!(directory.files().is_empty(), "{:?}", directory.files());
}

#[test]
fn reader_with_other_user_ids_attaches() {
    need_root!("starts a container with other user ids");
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let mut writer = outside(&directory, "containers/writer", &channel);
    writer.receive();
    let mut reader = inside(&directory, Container::OtherIds, "containers/reader", &channel).expect("a user namespace");
    reader.expect("1");
    eventually("it is attached", || ask(&mut writer) == [1]);
    eventually("frames in place", || ask(&mut reader)[1] > 5);
    reader.kill();
    eventually("it is gone", || ask(&mut writer) == [0]);
    writer.send("stop");
    eventually("it has stopped", || writer.receive() == "stopped");
    assert!(directory.files().is_empty());
}

/// A directory of the host's root, as in a container of an unprivileged user. The directory and the segment belong to a
/// user who has no id in the container, so the reader does not trust the writer, and observes.
#[test]
fn reader_in_container_of_other_user_observes() {
    need_root!("starts a container of another user");
    let program = ProgramForAll::new().unwrap();
    let directory = SharedDirectory::with_mode(0o1777);
    let channel = Channel::new();
    let mut writer = outside(&directory, "containers/writer for all", &channel);
    writer.receive();
    let command = program.command(&role::command("containers/reader", &[channel.as_str()]), NOBODY);
    let command = directory.inside(Container::Rootless, &command);
    let mut reader = Process::converse(command.expect("a user namespace"));
    reader.expect("1");
    eventually("frames", || ask(&mut reader)[0] > 5);
    let [_, in_place, _, _] = ask(&mut reader)[..] else {
        panic!("four numbers");
    };
    assert_eq!((in_place, ask(&mut writer)), (0, vec![0]));
}

#[test]
fn container_with_read_only_directory_observes() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let mut writer = outside(&directory, "containers/writer", &channel);
    writer.receive();
    let Some(mut reader) = inside(&directory, Container::ReadOnly, "containers/reader", &channel) else {
        skip!("no namespaces");
    };
    reader.expect("1");
    eventually("frames", || ask(&mut reader)[0] > 5);
    assert_eq!((ask(&mut reader)[1], ask(&mut writer)), (0, vec![0]));

    let other = Channel::new();
    let mut refused = inside(&directory, Container::ReadOnly, "containers/refused writer", &other).unwrap();
    let text = refused.receive();
    for word in ["EROFS", "RSSHM_DIR=/mnt is mounted read-only", "without :ro"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
