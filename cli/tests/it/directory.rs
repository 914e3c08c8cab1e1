// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands with `RSSHM_DIR`, on the host and in a container that has only this directory.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use rsshm_testkit::{
    Container, PATIENCE, Process, SharedDirectory, container::RSSHM_DIR, need_root, privileges::NOBODY, role, skip,
    wait_until,
};
use serde_json::Value;

use crate::support::{Channel, Run, SIZE, rsshm};

/// A live writer and a reader that holds a frame.
struct Peers {
    channel: Channel,
    writer: Process,
    reader: Process,
}

impl Peers {
    /// Starts both. `place` makes the command of a process that is on the host or in a container.
    fn start(place: impl Fn(Command) -> Command) -> Self {
        let channel = Channel::new();
        let start = |role: &str, arguments: &[&str]| Process::converse(place(role::command(role, arguments)));
        let mut writer = start("live writer", &[channel.as_str(), "20"]);
        writer.expect("1");
        let mut reader = start("reader", &[channel.as_str()]);
        reader.receive();
        Self {
            channel,
            writer,
            reader,
        }
    }
}

/// The command `rsshm` in a container; `None` if the system allows none.
fn inside(directory: &SharedDirectory, container: Container, arguments: &str) -> Option<Run> {
    directory.inside(container, &rsshm(arguments)).map(Run::of)
}

/// Checks what all commands say about the peers, who have other process ids than `rsshm` sees.
#[track_caller]
fn check_commands(peers: &Peers, run: impl Fn(&str) -> Run, path: &str) {
    let name = peers.channel.as_str();
    let list = run("list --json").expect(0).json();
    assert_eq!(list[0]["channel"], name, "{list}");
    assert_eq!(run("list --quiet").expect(0).stdout, format!("{name}\n"));

    let info = run(&format!("info {name} --json")).expect(0).json();
    assert_eq!(
        (&info["state"], &info["reader_count"]),
        (&"alive".into(), &1.into()),
        "{info}"
    );
    assert_eq!(info["memory"]["path"], format!("{path}/{name}"));
    // The kernel's locks say that both are alive. Which programs they are is unknown.
    assert_eq!(
        (&info["writer"]["alive"], &info["writer"]["program"]),
        (&true.into(), &Value::Null),
        "{info}"
    );
    let reader = &info["readers"][0];
    assert_eq!(
        (&reader["alive"], &reader["program"], &reader["stopped"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    assert_eq!((&reader["holds"], &reader["state"]), (&1.into(), &"attached".into()));
    let text = run(&format!("info {name}")).expect(0).stdout;
    assert!(
        text.contains(&format!("{path}/{name}")) && text.contains(&format!("{path} has ")),
        "{text}"
    );

    let rate = run(&format!("hz {name} -n 1 --json")).expect(0).json();
    assert!(rate["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    let top = run(&format!("top -b -n 1 -d 200ms {name}")).expect(0).stdout;
    assert!(top.contains(name) && top.contains("1 channel"), "{top}");
    run(&format!("wait {name} --for frame --timeout 10s")).expect(0);
    run(&format!("wait {name} --for reader --timeout 10s")).expect(0);
    run(&format!("check {name} --min-fps 0.2 --min-readers 1")).expect(0);
    run(&format!("delay {name} -n 1")).expect(0);
    run(&format!("echo {name} -n 1")).expect(0);
    assert!(run("metrics").expect(0).stdout.contains(name));
    let file = std::env::temp_dir().join(format!("{name}.raw"));
    let taken = run(&format!("snapshot {name} -o {}", file.display()));
    let size = fs::metadata(&file).map(|file| file.len());
    let _ = fs::remove_file(file);
    assert!(
        taken.code == 0 && size.is_ok_and(|size| size == SIZE as u64),
        "{taken:?}"
    );
    let stays = run(&format!("clean {name}")).expect(1);
    assert!(stays.stderr.contains("its writer is alive"), "{stays:?}");

    let doctor = run("doctor --quick --json");
    let findings = doctor.json();
    let find = |check: &str| {
        findings
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == check)
            .unwrap()
    };
    assert!(
        find("RSSHM_DIR")["text"]
            .as_str()
            .unwrap()
            .contains(&format!("channels are in {path}")),
        "{findings}"
    );
    assert!(find("memory")["text"].as_str().unwrap().starts_with(path), "{findings}");
}

#[test]
fn commands_in_container_see_the_channels_of_the_host() {
    let directory = SharedDirectory::new();
    if inside(&directory, Container::Plain, "list").is_none() {
        skip!("no namespaces");
    }
    let mut peers = Peers::start(|command| directory.outside(command));
    check_commands(
        &peers,
        |arguments| inside(&directory, Container::Plain, arguments).unwrap(),
        "/mnt",
    );
    let run = |arguments: &str| inside(&directory, Container::Plain, arguments).unwrap();
    let name = peers.channel.as_str();
    peers.reader.kill();
    wait_until("the reader is gone", PATIENCE, || {
        run(&format!("info {name} --json")).json()["reader_count"] == 0
    });
    peers.writer.kill();
    let list = run("list --json").expect(0).json();
    assert_eq!(list[0]["state"], "no-writer", "{list}");
    run(&format!("clean {name}")).expect(0);
    assert!(directory.files().is_empty(), "{:?}", directory.files());
}

#[test]
fn commands_on_host_see_the_channels_of_a_container() {
    let directory = SharedDirectory::new();
    if inside(&directory, Container::Plain, "list").is_none() {
        skip!("no namespaces");
    }
    let peers = Peers::start(|command| directory.inside(Container::Plain, &command).unwrap());
    let path = directory.path().display().to_string();
    check_commands(&peers, |arguments| Run::of(directory.outside(rsshm(arguments))), &path);
}

/// A writer in a container has the pid 1 there. The host's process 1 is another program, whose files a user cannot see.
#[test]
fn first_process_of_the_host_is_no_peer() {
    need_root!("another user looks");
    let directory = SharedDirectory::with_mode(0o1777);
    let channel = Channel::new();
    let writer = role::command("writer", &[channel.as_str(), "0644"]);
    let writer = directory.inside(Container::Plain, &writer).expect("namespaces");
    let mut writer = Process::converse(writer);
    writer.expect("1");
    let mut command = directory.outside(rsshm(&format!("info {} --json", channel.as_str())));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let info = Run::of(command).expect(0).json();
    assert_eq!(
        (&info["writer"]["pid"], &info["writer"]["program"]),
        (&1.into(), &Value::Null),
        "{info}"
    );
}

#[test]
fn commands_work_with_a_read_only_directory() {
    let directory = SharedDirectory::new();
    if inside(&directory, Container::ReadOnly, "list").is_none() {
        skip!("no namespaces");
    }
    let peers = Peers::start(|command| directory.outside(command));
    let run = |arguments: &str| inside(&directory, Container::ReadOnly, arguments).unwrap();
    let name = peers.channel.as_str();
    run(&format!("hz {name} -n 1")).expect(0);
    run(&format!("snapshot {name} -o /dev/null --type raw")).expect(0);
    run(&format!("check {name} --min-fps 0.2")).expect(0);
    let doctor = run("doctor --quick --json").expect(0).json();
    let text = doctor.to_string();
    assert!(
        text.contains("RSSHM_DIR=/mnt is mounted read-only") && text.contains("without :ro"),
        "{text}"
    );
    let refused = run("publish other /dev/null --caps video/x-raw,format=GRAY8,width=8,height=8,framerate=1/1");
    assert!(refused.code != 0, "{refused:?}");
}

#[test]
fn commands_work_with_other_user_ids() {
    need_root!("starts a container with other user ids");
    let directory = SharedDirectory::new();
    let peers = Peers::start(|command| directory.outside(command));
    check_commands(
        &peers,
        |arguments| inside(&directory, Container::OtherIds, arguments).unwrap(),
        "/mnt",
    );
}

/// The command `rsshm` with this value of the variable.
fn with(value: &str, arguments: &str) -> Run {
    let mut command = rsshm(arguments);
    command.env(RSSHM_DIR, value);
    Run::of(command)
}

#[test]
fn wrong_directory_is_wrong_usage() {
    let directory = SharedDirectory::new();
    let missing = format!("{}/missing", directory.path().display());
    for (value, words) in [
        (missing.as_str(), "does not exist"),
        ("cams", "is not an absolute path"),
        ("/proc", "is not a tmpfs, but proc"),
    ] {
        for arguments in [
            "list",
            "info cam0",
            "hz cam0",
            "wait cam0",
            "top -b -n 1",
            "clean --all",
            "check cam0",
        ] {
            let run = with(value, arguments).expect(2);
            assert!(
                run.stdout.is_empty() && run.stderr.contains(words),
                "{arguments}: {run:?}"
            );
            assert!(run.stderr.contains(&format!("RSSHM_DIR={value}")), "{run:?}");
        }
        with(value, "completions bash").expect(0);
        let doctor = with(value, "doctor --quick --json").expect(1).json();
        let finding = doctor
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["level"] == "fail")
            .unwrap();
        assert_eq!(finding["check"], "shared memory");
        assert!(finding["text"].as_str().unwrap().contains(words), "{finding}");
        assert!(finding["remedy"].is_string(), "{finding}");
    }
}

#[test]
fn doctor_has_a_line_for_the_variable() {
    let line = |run: Run| -> Value {
        let findings = run.json();
        let found = findings
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == "RSSHM_DIR");
        found.unwrap().clone()
    };
    let mut unset = rsshm("doctor --quick --json");
    unset.env_remove(RSSHM_DIR);
    assert_eq!(line(Run::of(unset))["text"], "is not set; channels are in /dev/shm");
    let directory = SharedDirectory::new();
    let path = directory.path().display().to_string();
    let text = line(with(&path, "doctor --quick --json").expect(0))["text"].clone();
    assert!(
        text.as_str()
            .unwrap()
            .starts_with(&format!("is set; channels are in {path}")),
        "{text}"
    );
    need_root!("another user may not write the directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = rsshm("doctor --quick --json");
    command.env(RSSHM_DIR, &path);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let text = Run::of(command).json().to_string();
    assert!(
        text.contains("may not create or open files") && text.contains("mode is 0755"),
        "{text}"
    );
}

#[test]
fn completion_names_the_channels_of_the_directory() {
    let directory = SharedDirectory::new();
    let peers = Peers::start(|command| directory.outside(command));
    let listed = Run::of(directory.outside(rsshm("list --quiet"))).expect(0).stdout;
    assert_eq!(listed, format!("{}\n", peers.channel.as_str()));
    assert!(!Run::of(rsshm("list --quiet")).stdout.contains(peers.channel.as_str()));
}
