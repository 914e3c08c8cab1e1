// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames of objects between users and between containers that share only the directory that `RSSHM_DIR` names. Each
//! program in a container has its own mount, pid and network namespaces.

use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt, process::Command, time::Duration};

use rsshm_channel::{Next, ObjectFault, ReaderOptions};
use rsshm_testkit::{
    Channel, Container, Process, SharedDirectory, need_root,
    privileges::{NOBODY, ProgramForAll, become_user},
    role::{self, Role, say},
    skip, wait_until,
};

use super::{
    accepting, check_objects,
    hostile::servers::{accept_request, answer_with, listen_at, reply_to},
    is_object,
    pool::{Pool, memfd, object_writer},
};
use crate::support::{SECOND, SIZE, Service, open_reader, slots};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/containers/writer", writer),
    ("objects/containers/reader", reader),
    ("objects/containers/impostor", |arguments| impostor(arguments[0])),
];

/// Users who are neither root nor "nobody".
const ONE: u32 = 65_532;
const OTHER: u32 = 65_533;

/// How many buffers the camera has, and how many of them it can spare.
const BUFFERS: usize = 8;
const SPARE: u32 = 6;

/// Publishes two hundred frames a second. For each line from the test, it says how many readers are attached and how
/// many buffers the camera has. The arguments are the channel, the mode, and whether the service runs.
fn writer(arguments: &[&str]) {
    let &[channel, perms, service] = arguments else {
        panic!("{arguments:?}");
    };
    let perms = u32::from_str_radix(perms, 8).unwrap();
    let lines = role::lines();
    let writer = object_writer(channel, slots(16).perms(perms), SPARE);
    let service = (service == "service").then(|| Service::of(&writer));
    let pool = Pool::new(&writer, BUFFERS);
    assert!(pool.publish(&writer, 1));
    say("published");
    for value in 2.. {
        assert!(pool.publish(&writer, value), "the camera has no buffer");
        match lines.recv_timeout(Duration::from_millis(5)).as_deref() {
            Ok("stop") => break,
            Ok(_) => {
                let readers = service.as_ref().map_or(0, |service| service.seen().reader_count);
                say(format!("{readers} {}", pool.free()));
            }
            Err(_) => {}
        }
    }
    drop(service);
    drop(writer);
    say("stopped");
}

/// Reads all frames, checks each byte, and holds the newest. For each line from the test, it says how many frames it got
/// in place, how many it copied, how often the memory of a frame could not be got, and why. An error ends it.
fn reader(arguments: &[&str]) {
    let lines = role::lines();
    let mut reader = open_reader(arguments[0], ReaderOptions::default());
    let (mut copy, mut held) = (Vec::new(), VecDeque::new());
    let (mut in_place, mut copied, mut faults, mut last) = (0, 0, 0, None::<ObjectFault>);
    loop {
        match reader.next(&mut copy, accepting(), Some(Duration::from_millis(10))) {
            Ok(Next::Frame(frame)) => {
                check_objects(&frame, &copy);
                in_place += u32::from(is_object(&frame));
                copied += u32::from(!is_object(&frame));
                held.push_back(frame);
                if held.len() > 1 {
                    held.pop_front();
                }
            }
            Ok(Next::Fault(fault)) => (faults, last) = (faults + 1, Some(fault)),
            Ok(_) => {}
            Err(error) => return say(error),
        }
        if lines.try_recv().is_ok() {
            let last = last.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            say(format!("{in_place} {copied} {faults} {last}"));
        }
    }
}

/// What a reader or a writer has reported.
#[derive(Debug)]
struct Report {
    numbers: Vec<usize>,
    text: String,
}

#[track_caller]
fn ask(process: &mut Process) -> Report {
    process.send("report");
    let text = process.receive();
    let numbers = text.split(' ').map_while(|number| number.parse().ok()).collect();
    Report { numbers, text }
}

/// Waits until a reader has got so many frames in place.
#[track_caller]
fn wait_in_place(reader: &mut Process, more_than: usize) {
    wait_until("frames in place", 5 * SECOND, || ask(reader).numbers[0] > more_than);
}

/// Waits until a reader has copied more frames, and checks that it has none in place.
#[track_caller]
fn wait_copied(reader: &mut Process) {
    wait_until("copies", 5 * SECOND, || ask(reader).numbers[1] > 20);
    let report = ask(reader);
    assert_eq!((report.numbers[0], report.numbers[2]), (0, 0), "{report:?}");
}

fn inside(directory: &SharedDirectory, container: Container, role: &str, arguments: &[&str]) -> Option<Process> {
    let command = directory.inside(container, &role::command(role, arguments))?;
    Some(Process::converse(command))
}

fn outside(directory: &SharedDirectory, role: &str, arguments: &[&str]) -> Process {
    Process::converse(directory.outside(role::command(role, arguments)))
}

/// A writer on the host.
#[track_caller]
fn start_writer(directory: &SharedDirectory, channel: &Channel, perms: &str) -> Process {
    let arguments = [channel.as_str(), perms, "service"];
    let mut writer = outside(directory, "objects/containers/writer", &arguments);
    writer.expect("published");
    writer
}

fn stop(writer: &mut Process, directory: &SharedDirectory) {
    writer.send("stop");
    wait_until("it has stopped", 5 * SECOND, || writer.receive() == "stopped");
    assert!(directory.files().is_empty(), "{:?}", directory.files());
}

#[test]
fn objects_cross_containers_in_place() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let name = channel.as_str();
    let Some(mut reader) = inside(&directory, Container::Plain, "objects/containers/reader", &[name]) else {
        skip!("no namespaces");
    };
    let mut writer = start_writer(&directory, &channel, "600");
    wait_in_place(&mut reader, 50);
    assert_eq!(ask(&mut writer).numbers[0], 1);
    let files = [format!("fds.{name}"), name.to_owned(), format!("sem.{name}")];
    assert_eq!(directory.files(), files);
    // A killed reader's buffers come back, although the writer cannot see its process.
    reader.kill();
    wait_until("the buffers are back", 2 * SECOND, || {
        ask(&mut writer).numbers == [0, BUFFERS - 1]
    });
    // The other way round: a writer in a container takes over from the killed one.
    let mut reader = outside(&directory, "objects/containers/reader", &[name]);
    wait_in_place(&mut reader, 20);
    writer.kill();
    let before = ask(&mut reader).numbers[0];
    let arguments = [name, "600", "service"];
    let mut writer = inside(&directory, Container::Plain, "objects/containers/writer", &arguments).unwrap();
    writer.expect("published");
    wait_in_place(&mut reader, before + 50);
    stop(&mut writer, &directory);
}

#[test]
fn reader_with_other_user_ids_gets_objects_in_place() {
    need_root!("starts a container with other user ids");
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let mut writer = start_writer(&directory, &channel, "600");
    let reader = inside(
        &directory,
        Container::OtherIds,
        "objects/containers/reader",
        &[channel.as_str()],
    );
    let mut reader = reader.expect("a user namespace");
    wait_in_place(&mut reader, 50);
    assert_eq!(ask(&mut reader).numbers[2], 0);
    stop(&mut writer, &directory);
}

#[test]
fn container_with_read_only_directory_copies_objects() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let mut writer = start_writer(&directory, &channel, "600");
    let reader = inside(
        &directory,
        Container::ReadOnly,
        "objects/containers/reader",
        &[channel.as_str()],
    );
    let Some(mut reader) = reader else {
        skip!("no namespaces");
    };
    wait_copied(&mut reader);
    assert_eq!(ask(&mut writer).numbers[0], 0);
    stop(&mut writer, &directory);
}

/// The command that starts a reader in a container in which neither the writer's user nor any other user but its own has
/// an id.
fn rootless_reader(directory: &SharedDirectory, program: &ProgramForAll, channel: &Channel) -> Command {
    let command = role::command("objects/containers/reader", &[channel.as_str()]);
    let command = program.command(&command, NOBODY);
    directory
        .inside(Container::Rootless, &command)
        .expect("a user namespace")
}

#[test]
fn container_of_other_user_copies_objects() {
    need_root!("starts a container of another user");
    let program = ProgramForAll::new().unwrap();
    let directory = SharedDirectory::with_mode(0o1777);
    let channel = Channel::new();
    let mut writer = start_writer(&directory, &channel, "666");
    let mut reader = Process::converse(rootless_reader(&directory, &program, &channel));
    wait_copied(&mut reader);
    assert_eq!(ask(&mut writer).numbers[0], 0);
    stop(&mut writer, &directory);
}

/// Answers each request with memory of its own, as another user.
fn impostor(channel: &str) {
    become_user(OTHER, OTHER);
    let channel = Channel(rsshm_channel::ChannelName::new(channel).unwrap());
    let listener = listen_at(&channel);
    let lies: File = memfd(SIZE);
    lies.write_all_at(&vec![0xee; SIZE], 0).unwrap();
    say("listens");
    loop {
        let (socket, request) = accept_request(&listener);
        answer_with(&socket, &reply_to(&request), &[&lies]);
    }
}

/// In the container, the writer's user and the impostor's user look the same.
#[test]
fn socket_of_user_without_id_is_not_used() {
    need_root!("starts a container of another user");
    let program = ProgramForAll::new().unwrap();
    let directory = SharedDirectory::with_mode(0o1777);
    let channel = Channel::new();
    // Without its service, the writer does not notice that its socket has lost the name.
    let arguments = [channel.as_str(), "666", "no service"];
    let mut writer = outside(&directory, "objects/containers/writer", &arguments);
    writer.expect("published");
    std::fs::remove_file(directory.path().join(format!("fds.{channel}"))).unwrap();
    let mut impostor = outside(&directory, "objects/containers/impostor", &[channel.as_str()]);
    impostor.expect("listens");
    let mut reader = Process::converse(rootless_reader(&directory, &program, &channel));
    wait_until("a fault", 5 * SECOND, || ask(&mut reader).numbers[2] > 0);
    // Later frames are not used either. Their faults have the same reason, so it does not come again.
    std::thread::sleep(Duration::from_millis(200));
    let report = ask(&mut reader);
    assert_eq!(report.numbers, [0, 0, 1], "{report:?}");
    assert!(report.text.contains("another program"), "{report:?}");
}

/// A role as another user, in the directory.
fn as_user(directory: &SharedDirectory, program: &ProgramForAll, user: u32, role: &str, arguments: &[&str]) -> Process {
    let command = program.command(&role::command(role, arguments), user);
    Process::converse(directory.outside(command))
}

/// Two users who are not root share a directory. A reader that trusts the writer gets objects in place, another one copies,
/// and one that may only look at the channel learns why it gets nothing.
#[test]
fn permissions_decide_how_two_users_share_objects() {
    need_root!("starts processes of other users");
    let program = ProgramForAll::new().unwrap();
    let directory = SharedDirectory::with_mode(0o1777);
    for (perms, user, is_in_place) in [("666", ONE, true), ("666", OTHER, false), ("644", OTHER, false)] {
        let channel = Channel::new();
        let arguments = [channel.as_str(), perms, "service"];
        let mut writer = as_user(&directory, &program, ONE, "objects/containers/writer", &arguments);
        writer.expect("published");
        let mut reader = as_user(
            &directory,
            &program,
            user,
            "objects/containers/reader",
            &[channel.as_str()],
        );
        match (perms, is_in_place) {
            ("644", _) => {
                let error = reader.receive();
                for word in ["fds.", "0600", "65532"] {
                    assert!(error.contains(word), "{word}: {error}");
                }
            }
            (_, true) => wait_in_place(&mut reader, 20),
            (_, false) => wait_copied(&mut reader),
        }
        stop(&mut writer, &directory);
    }
}
