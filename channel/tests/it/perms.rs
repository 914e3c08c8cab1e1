// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of file modes, of access by other users, and of files of other users.
//!
//! Some roles become another user, which only root can do.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    time::Duration,
};

use nix::{
    libc,
    sys::stat::{Mode, umask},
};
use rsshm_channel::{
    Directory, Error, Next, ReadLimits, ReaderOptions, Writer, WriterOptions, layout::FIRST_READER_BYTE,
};
use rsshm_testkit::{
    Channel, eventually, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, SECOND, Service, check, check_bytes, is_in_place, next, open_reader, open_writer, poll, publish, raw,
    slots, try_open_writer,
};

const OTHER: u32 = 65533;
const GROUP: u32 = 65500;

pub const ROLES: &[(&str, Role)] = &[
    ("perms/writer under umask", writer_under_umask),
    ("perms/reader as nobody", |arguments| {
        reader_as(arguments[0], NOBODY, NOBODY);
    }),
    ("perms/reader of the group", |arguments| {
        reader_as(arguments[0], OTHER, GROUP);
    }),
    ("perms/writer for the group", |arguments| {
        writer_as_nobody(arguments[0], 0o660)
    }),
    ("perms/writer for all", |arguments| {
        writer_as_nobody(arguments[0], 0o666)
    }),
    ("perms/refused writer", |arguments| refused_writer(arguments[0])),
    ("perms/planter", |arguments| planter(arguments[0])),
];

fn with_perms(perms: u32) -> WriterOptions {
    slots(12).perms(perms)
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Opens a writer under a umask. The arguments are the channel's name, the umask and `perms`; the last two are octal.
fn writer_under_umask(arguments: &[&str]) {
    let [channel, mask, perms] = arguments else {
        panic!("{arguments:?}");
    };
    let octal = |text| u32::from_str_radix(text, 8).unwrap();
    umask(Mode::from_bits_truncate(octal(mask)));
    let writer = open_writer(channel, with_perms(octal(perms)));
    assert!(publish(&writer, 1));
    say("published");
    listen();
}

/// The segment's mode is exactly `perms`. The lock file's mode gives access only to those classes of users that may
/// both read and write the segment.
#[test]
fn file_modes_ignore_the_umask() {
    for (perms, of_lock_file) in [
        (0o600, 0o600),
        (0o644, 0o600),
        (0o640, 0o600),
        (0o660, 0o660),
        (0o666, 0o666),
        (0o664, 0o660),
        (0o646, 0o606),
    ] {
        for mask in [0o077, 0o000] {
            let channel = Channel::new();
            let octal = |mode| format!("{mode:o}");
            let arguments = [channel.as_str(), &octal(mask), &octal(perms)];
            let mut writer = role::start("perms/writer under umask", &arguments);
            writer.expect("published");
            assert_eq!(mode(channel.segment()), perms, "{perms:o} under {mask:o}");
            assert_eq!(mode(channel.lock_file()), of_lock_file, "{perms:o} under {mask:o}");
        }
    }
}

/// A writer that restarts with other permissions changes the modes of both files.
#[test]
fn restarted_writer_sets_new_modes() {
    let channel = Channel::new();
    let mut writer = role::start("perms/writer under umask", &[channel.as_str(), "22", "666"]);
    writer.expect("published");
    writer.kill();
    let writer = channel.writer(with_perms(0o640));
    assert!(publish(&writer, 1));
    assert_eq!((mode(channel.segment()), mode(channel.lock_file())), (0o640, 0o600));
}

#[test]
fn illegal_modes_and_slot_counts_are_refused() {
    let channel = Channel::new();
    for perms in [0o400, 0o066, 0, 0o1600, 0o10600] {
        let refused = Writer::open(channel.0.clone(), with_perms(perms));
        assert!(matches!(refused, Err(Error::Option { .. })), "{perms:o}: {refused:?}");
    }
    for max_slots in [1, 2, 65] {
        let refused = Writer::open(channel.0.clone(), slots(max_slots));
        assert!(matches!(refused, Err(Error::Option { .. })), "{max_slots}: {refused:?}");
    }
    channel.assert_removed();
}

/// Takes three frames as another user, and says after each frame whether the reader is an observer. When the test sends
/// the line "files", it says which accesses to the channel's files succeed.
fn reader_as(channel: &str, user: u32, group: u32) {
    become_user(user, group);
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    for _ in 0..3 {
        match reader.next(&mut copy, ReadLimits::default(), Some(3 * SECOND)) {
            Ok(Next::Frame(frame)) => {
                check_bytes(&frame, &copy);
                say(format!("observer {}", reader.is_observer()));
            }
            Ok(other) => say(format!("{other:?}")),
            Err(error @ Error::Denied { .. }) => say(format!("denied: {error}")),
            Err(error) => say(error),
        }
        match listen().as_str() {
            "files" => {
                let path = |prefix: &str| format!("{}/{prefix}{channel}", Directory::current());
                let opens = |options: &OpenOptions, prefix| options.open(path(prefix)).is_ok();
                say([
                    opens(OpenOptions::new().read(true), ""),
                    opens(OpenOptions::new().read(true).write(true), ""),
                    opens(OpenOptions::new().read(true), "sem."),
                ]
                .map(|opens| if opens { "yes" } else { "no" })
                .join(" "));
                // Try to hinder other peers with the locks that a read-only descriptor can take.
                let file = File::open(path("")).ok();
                if let Some(file) = &file {
                    raw::lock(file, libc::F_RDLCK, 0, 4096);
                    raw::lock(file, libc::F_RDLCK, FIRST_READER_BYTE, 0);
                }
                listen();
                drop(file);
            }
            "stop" => return,
            _ => {}
        }
    }
}

#[test]
fn mode_0600_denies_other_users_with_reason() {
    need_root!("another user's process");
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o600));
    assert!(publish(&writer, 1));
    let mut reader = role::start("perms/reader as nobody", &[channel.as_str()]);
    let answer = reader.receive();
    assert!(
        answer.starts_with("denied: ") && answer.contains("perms") && answer.contains("0600"),
        "{answer}"
    );
}

/// Other users get the frames. They cannot write the channel's files, and cannot lock bytes that other peers need.
#[test]
fn other_users_observe_with_0644() {
    need_root!("another user's process");
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o644));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut reader = role::start("perms/reader as nobody", &[channel.as_str()]);
    reader.expect("observer true");
    assert_eq!(service.seen().reader_count, 0);
    reader.send("files");
    reader.expect("yes no no");
    let (mut own, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut own, &mut copy), &copy, 1);
    assert!(!own.is_observer());
    eventually("counted", || service.seen().reader_count == 1);
    reader.send("go on");
    assert!(publish(&writer, 2));
    reader.expect("observer true");
}

#[test]
fn group_members_attach_with_0660() {
    need_root!("another user's process");
    let channel = Channel::new();
    let mut writer = role::start("perms/writer for the group", &[channel.as_str()]);
    writer.expect("published");
    assert_eq!(std::fs::metadata(channel.segment()).unwrap().uid(), NOBODY);
    let mut member = role::start("perms/reader of the group", &[channel.as_str()]);
    member.expect("observer false");
    let mut same_user = role::start("perms/reader as nobody", &[channel.as_str()]);
    same_user.expect("observer false");
}

fn writer_as_nobody(channel: &str, perms: u32) {
    become_user(NOBODY, GROUP);
    let writer = open_writer(channel, with_perms(perms));
    assert!(publish(&writer, 1));
    say("published");
    listen();
}

/// A reader only observes a segment that belongs to another user and group, even if the mode allows every user to
/// write.
#[test]
fn reader_only_observes_foreign_segment() {
    need_root!("another user's process");
    let channel = Channel::new();
    let mut writer = role::start("perms/writer for all", &[channel.as_str()]);
    writer.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let frame = next(&mut reader, &mut copy);
    check(&frame, &copy, 1);
    assert!(reader.is_observer() && !is_in_place(&frame));
    assert!(reader.observer_reason().unwrap().contains("permissions"));
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    // Not even root replaces the segment, whether its writer is alive or dead.
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
}

/// Tries to open a writer as the user "nobody", and says why this failed.
fn refused_writer(channel: &str) {
    become_user(NOBODY, NOBODY);
    let refused = try_open_writer(channel, WriterOptions::default());
    say(match refused {
        Err(error @ (Error::Foreign { .. } | Error::Denied { .. })) => error.to_string(),
        other => format!("{other:?}, which is the wrong answer"),
    });
}

/// A file of another user has one of the channel's names. The writer refuses to start and does not change the file.
#[test]
fn writer_leaves_foreign_files_alone() {
    need_root!("another user's process");
    for file in [Channel::segment, Channel::lock_file] {
        for mode in [0o600, 0o666] {
            // Root finds a file that belongs to the user "nobody".
            let channel = Channel::new();
            std::fs::write(file(&channel), "mine").unwrap();
            std::fs::set_permissions(file(&channel), PermissionsExt::from_mode(mode)).unwrap();
            chown(file(&channel), Some(NOBODY), None).unwrap();
            let refused = Writer::open(channel.0.clone(), WriterOptions::default());
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
            assert_eq!(std::fs::read(file(&channel)).unwrap(), b"mine");
            let files = [channel.segment(), channel.lock_file()];
            assert_eq!(files.iter().filter(|path| path.exists()).count(), 1);

            // The user "nobody" finds a file that belongs to root.
            chown(file(&channel), Some(0), None).unwrap();
            let answer = role::start("perms/refused writer", &[channel.as_str()]).receive();
            let expected = if mode == 0o600 {
                "no permission"
            } else {
                "belongs to user 0"
            };
            assert!(answer.contains(expected), "{answer}");
            assert_eq!(std::fs::read(file(&channel)).unwrap(), b"mine");
            assert_eq!(files.iter().filter(|path| path.exists()).count(), 1);
        }
    }
}

/// Puts files of another user under the channel's names.
fn planter(channel: &str) {
    become_user(NOBODY, NOBODY);
    for prefix in ["", "sem."] {
        let path = format!("{}/{prefix}{channel}", Directory::current());
        std::fs::write(&path, b"mine, for good").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    }
    say("planted");
    listen();
}

/// The channel's files are removed, and another user creates new files with the same names before the writer restores
/// its files. The writer reports the new files, does not touch them, and continues to serve the attached readers.
#[test]
fn writer_leaves_names_that_another_user_took() {
    need_root!("another user's process");
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o644));
    assert!(publish(&writer, 1));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    channel.remove_files();
    let mut planter = role::start("perms/planter", &[channel.as_str()]);
    planter.expect("planted");
    // The service checks the names once a second.
    std::thread::sleep(Duration::from_millis(1100));
    let refused = writer.service();
    let Err(error @ Error::Foreign { .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("belongs to user 65534"), "{error}");
    for value in 2..10 {
        assert!(publish(&writer, value));
        check(&next(&mut reader, &mut copy), &copy, value);
    }
    drop(writer);
    for file in [channel.segment(), channel.lock_file()] {
        assert_eq!(std::fs::read(&file).unwrap(), b"mine, for good");
        assert_eq!(std::fs::metadata(file).unwrap().uid(), NOBODY);
    }
}
