// SPDX-License-Identifier: MIT OR Apache-2.0

//! Users and permissions. `perms` decides who may use a channel, and other users cannot take its name.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gst::prelude::*;
use nix::fcntl::{FcntlArg, fcntl};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{
        Pipeline, command, error_kind, launch, role_command, role_registry,
        sequence::{self, has_frames, reader, summary, writer},
    },
    need_root,
    privileges::{NOBODY, ProgramForAll},
    role::{Role, say},
};

const INTRUDER: &str = "permissions/intruder";
const SECOND_WRITER: &str = "permissions/second-writer";

/// The roles of the processes that these tests start.
pub const ROLES: &[(&str, Role)] = &[(INTRUDER, intruder), (SECOND_WRITER, second_writer)];

const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=10/1";

/// This program, run by the user nobody.
pub struct OtherUser(ProgramForAll);

impl OtherUser {
    pub fn new() -> Self {
        let this = Self(ProgramForAll::new().unwrap());
        // A process without a registry reads all plugins, which takes an emulated one minutes. The first test of all has
        // no registry to copy.
        if std::fs::copy(role_registry(), this.registry()).is_ok() {
            std::fs::set_permissions(this.registry(), Permissions::from_mode(0o666)).unwrap();
        }
        this
    }

    fn registry(&self) -> PathBuf {
        self.0.directory().join("registry.bin")
    }

    #[track_caller]
    pub fn start(&self, command: &Command) -> Process {
        let mut command = self.0.command(command, NOBODY);
        command.env("GST_REGISTRY", self.registry());
        Process::start(command)
    }

    /// Starts a reader of sequenced frames.
    #[track_caller]
    fn reader(&self, channel: &Channel, options: &str) -> Process {
        let pipeline = format!("rsshmsrc name={channel} {options} ! fakesink name=check sync=false");
        self.start(&sequence::reader_command(&pipeline, 2))
    }

    /// Starts an intruder and waits until it has tried everything.
    #[track_caller]
    fn intruder(&self, channel: &Channel) -> Process {
        let intruder = self.start(&role_command(INTRUDER, &[channel.as_str()]));
        eventually("the intruder has tried everything", || {
            intruder.output().contains("TRIED ALL")
        });
        intruder
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn reader_without_permission_gets_clear_error() {
    need_root!("starts a process of another user");
    let channel = Channel::new();
    let other_user = OtherUser::new();
    let writer = writer(&channel, "is-live=true", CAPS, "");
    writer.play();
    eventually("the channel exists", || channel.exists());
    for options in ["", "read-only=true"] {
        let output = other_user.reader(&channel, options).wait_error();
        assert!(output.contains("ResourceError::NotAuthorized"), "{output}");
        assert!(output.contains("perms") && output.contains("0600"), "{output}");
    }
}

#[test]
fn read_permission_allows_observing() {
    need_root!("starts a process of another user");
    let channel = Channel::new();
    let other_user = OtherUser::new();
    let writer = writer(&channel, "is-live=true", CAPS, "perms=0644");
    let mut own = reader(&channel, "", 2);
    let mut others = [
        other_user.reader(&channel, ""),
        other_user.reader(&channel, "read-only=true"),
    ];
    writer.play();
    eventually("all have frames", || has_frames(&own) && others.iter().all(has_frames));
    assert_eq!(writer.num_clients(), 1, "an observer has a reader entry");
    writer.end();
    let last = writer.stat("rsshmsink", "frames-published") - 1;
    let found = summary(&mut own);
    assert!(found.in_place > 0, "{found:?}");
    for other in &mut others {
        let found = summary(other);
        found.assert_exact();
        assert!(found.missed == 0 && found.last == last, "{found:?}");
        assert!(found.in_place == 0 && found.copied == found.received, "{found:?}");
    }
}

/// A read lock on `length` bytes from `start` on. A length of 0 means all bytes up to the end.
fn read_lock(start: i64, length: i64) -> nix::libc::flock {
    nix::libc::flock {
        l_type: nix::libc::F_RDLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// The byte of the lock file that a running writer has locked.
const WRITER_BYTE: i64 = 4096;

/// Tries to open, write and lock the files of a channel, and prints each success. The role's argument is the channel.
///
/// At the end, the intruder waits until the writer's byte is unlocked, locks this byte, and sleeps.
fn intruder(arguments: &[&str]) {
    let channel = arguments[0];
    let mut kept: Vec<File> = Vec::new();
    for path in [format!("/dev/shm/{channel}"), format!("/dev/shm/sem.{channel}")] {
        if OpenOptions::new().write(true).open(&path).is_ok() {
            say(format!("WRITABLE {path}"));
        }
        let Ok(file) = OpenOptions::new().read(true).open(&path) else {
            continue;
        };
        say(format!("READABLE {path}"));
        // Both kinds of lock are tried on all bytes, even on bytes beyond the end of the file. The bytes that the
        // writer and the readers lock are among them.
        for (start, length) in [(0, WRITER_BYTE), (WRITER_BYTE + 1, 0), (WRITER_BYTE, 1)] {
            let lock = read_lock(start, length);
            let of_description = fcntl(&file, FcntlArg::F_OFD_SETLK(&lock));
            let of_process = fcntl(&file, FcntlArg::F_SETLK(&lock));
            say(format!("LOCK {start} {length}: {of_description:?} {of_process:?}"));
        }
        kept.push(file);
    }
    say("TRIED ALL");
    let lock = read_lock(WRITER_BYTE, 1);
    while !kept
        .iter()
        .all(|file| fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).is_ok())
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    say("LOCKED THE WRITER'S BYTE");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn user_with_read_permission_cannot_write_block_or_join() {
    need_root!("starts a process of another user");
    let channel = Channel::new();
    let other_user = OtherUser::new();
    let writer = writer(&channel, "is-live=true", CAPS, "perms=0644");
    writer.play();
    eventually("the channel exists", || channel.exists());
    let intruder = other_user.intruder(&channel);
    let output = intruder.output();
    assert!(!output.contains("WRITABLE"), "{output}");
    let readable = output.lines().filter(|line| line.starts_with("READABLE")).count();
    assert_eq!(readable, 1, "only the segment is readable: {output}");
    // While the intruder holds all locks that it could get, a reader joins, is counted, and leaves.
    let mut own = reader(&channel, "", 2);
    eventually("the reader is counted", || writer.num_clients() == 1);
    eventually("the reader has frames", || has_frames(&own));
    writer.end();
    let found = summary(&mut own);
    found.assert_exact();
    assert!(found.in_place > 0, "{found:?}");
    eventually("the reader is no longer counted", || writer.num_clients() == 0);
    drop(writer);
    channel.assert_removed();
    // The intruder does not prevent the next writer from starting.
    let next = sequence::writer(&channel, "is-live=true num-buffers=5", CAPS, "perms=0644");
    next.play();
    next.wait_eos();
    assert!(intruder.output().contains("TRIED ALL"));
}

#[test]
fn locks_of_user_with_read_permission_do_not_block_takeover() {
    need_root!("starts a process of another user");
    let channel = Channel::new();
    let other_user = OtherUser::new();
    let mut first = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,framerate=10/1 ! rsshmsink name={channel} perms=0644"
    ));
    eventually("the channel exists", || channel.exists());
    let intruder = other_user.intruder(&channel);
    let reader = Pipeline::playing(&format!(
        "rsshmsrc name=reader channel={channel} on-disconnect=eos ! fakesink"
    ));
    eventually("the reader is connected", || {
        reader.element("reader").property("connected")
    });
    first.kill();
    eventually("the intruder has locked the writer's byte", || {
        intruder.output().contains("LOCKED THE WRITER'S BYTE")
    });
    reader.wait_eos();
    let second = writer(&channel, "is-live=true num-buffers=10", CAPS, "perms=0644");
    second.play();
    second.wait_eos();
    drop(second);
    channel.assert_removed();
}

#[test]
fn perms_set_file_modes() {
    let files_mode = |umask: &str, perms: &str| {
        let channel = Channel::new();
        let mut command = command("sh");
        command
            .args(["-c", "umask $0; exec gst-launch-1.0 -q \"$@\"", umask])
            .args("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink".split(' '))
            .args([format!("name={channel}"), format!("perms={perms}")]);
        let mut writer = Process::start(command);
        eventually("the channel exists", || channel.exists());
        let modes = channel.files().map(|file| mode(&file));
        writer.interrupt();
        channel.assert_removed();
        modes
    };
    for umask in ["077", "000"] {
        // A user that has only read permission must not be able to open the lock file.
        for (perms, segment, lock_file) in [
            ("0600", 0o600, 0o600),
            ("0644", 0o644, 0o600),
            ("0660", 0o660, 0o660),
            ("0666", 0o666, 0o666),
            ("0664", 0o664, 0o660),
        ] {
            assert_eq!(
                files_mode(umask, perms),
                [segment, lock_file],
                "umask {umask}, perms {perms}"
            );
        }
    }
}

/// Creates a file that belongs to the user nobody and that every user may write. Returns its bytes.
fn plant(path: &Path) -> Vec<u8> {
    let bytes = b"rsshm\r\n\x1a, but not really".repeat(1000);
    // Every user may write the file. The owner is therefore the only reason why the sink does not touch the file.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)
        .unwrap();
    fchown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    (&file).write_all(&bytes).unwrap();
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    bytes
}

#[test]
fn files_of_other_user_are_kept() {
    need_root!("starts a process of another user");
    for which in [0, 1] {
        let channel = Channel::new();
        let path = &channel.files()[which];
        let bytes = plant(path);
        let before = std::fs::metadata(path).unwrap();
        let writer = writer(&channel, "is-live=true", CAPS, "");
        let _ = writer.set_state(gst::State::Playing);
        let error = writer.wait_error();
        assert_eq!(error_kind(&error), "ResourceError::NotAuthorized", "{error}");
        assert!(
            error.message().contains(&NOBODY.to_string()) && error.message().contains(path.to_str().unwrap()),
            "{error}"
        );
        drop(writer);
        let after = std::fs::metadata(path).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        assert_eq!(
            (before.ino(), before.mode(), before.uid()),
            (after.ino(), after.mode(), after.uid())
        );
        assert!(!channel.files()[1 - which].exists(), "the sink has left another file");
    }
}

#[test]
fn other_user_cannot_take_over_channel() {
    need_root!("starts a process of another user");
    let channel = Channel::new();
    let other_user = OtherUser::new();
    let owner = writer(&channel, "is-live=true", CAPS, "perms=0666");
    let mut own = reader(&channel, "", 2);
    owner.play();
    eventually("frames flow", || has_frames(&own));
    // The other user may write to the channel, but must not take it over.
    let output = other_user
        .start(&role_command(SECOND_WRITER, &[channel.as_str()]))
        .wait_ok();
    assert!(output.contains("REFUSED") && output.contains("user 0"), "{output}");
    owner.end();
    let last = owner.stat("rsshmsink", "frames-published") - 1;
    let found = summary(&mut own);
    found.assert_exact();
    assert!(found.missed == 0 && found.last == last, "{found:?}");
}

/// Tries to write to a channel and prints the error. The role's argument is the channel.
fn second_writer(arguments: &[&str]) {
    let writer = writer(arguments[0], "is-live=true num-buffers=5", CAPS, "");
    let _ = writer.set_state(gst::State::Playing);
    say(format!("REFUSED {}", writer.wait_error()));
}
