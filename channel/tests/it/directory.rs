// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `RSSHM_DIR`, which names another directory than /dev/shm for the files of channels.
//!
//! Each process reads the variable once. Therefore each test uses roles.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    time::Duration,
};

use rsshm_channel::{
    Directory, Error, Leftover, Next, Observer, ReadLimits, ReaderOptions, Space, Watch, Writer, WriterOptions,
    channels, possible_channels,
};
use rsshm_testkit::{
    Channel, Container, Process, SharedDirectory,
    container::RSSHM_DIR,
    need_root,
    privileges::{NOBODY, ProgramForAll, become_user},
    role::{self, Role, listen, say},
    shm::{OWN_MOUNTS, unshared},
    skip,
};

use crate::support::{ChannelExt, SECOND, SIZE, check, next, open_reader, open_writer, publish, slots};

const OTHER: u32 = 65533;
/// The owner of a directory. Not 65534, which in a user namespace stands for all users that have no id there.
const OWNER: u32 = 65532;

pub const ROLES: &[(&str, Role)] = &[
    ("directory/refused", |arguments| refused(arguments)),
    ("directory/refused as other user", |arguments| {
        become_user(OTHER, OTHER);
        refused(arguments);
    }),
    ("directory/path", |_| say(Directory::current())),
    ("directory/changed variable", |_| changed_variable()),
    ("directory/writer", |arguments| writer(arguments[0])),
    ("directory/reader", |arguments| reader(arguments[0])),
    ("directory/watcher", |_| watcher()),
    ("directory/too small", |arguments| too_small(arguments[0])),
];

/// The command that starts a role with this value of the variable.
fn with(value: impl AsRef<std::ffi::OsStr>, role: &str, arguments: &[&str]) -> Command {
    let mut command = role::command(role, arguments);
    command.env(RSSHM_DIR, value);
    command
}

/// Checks that each way to a channel fails, with an error that contains all words in `arguments`.
fn refused(arguments: &[&str]) {
    let channel = Channel::new();
    let written = Writer::open(channel.0.clone(), WriterOptions::default()).map(drop);
    let read = open_reader(channel.as_str(), ReaderOptions::default())
        .next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(10)))
        .map(drop);
    let observed = Observer::inspect(&channel).map(drop);
    let removed = Leftover::remove(&channel).map(drop);
    for result in [written, read, observed, removed] {
        let Err(error @ Error::Directory(_)) = result else {
            panic!("{result:?}");
        };
        let text = error.to_string();
        for word in arguments.iter().chain(&["RSSHM_DIR="]) {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    assert!(channels().is_empty() && possible_channels().is_empty());
    assert!(Directory::current().check_writable().is_err());
}

#[track_caller]
fn check_refused(value: impl AsRef<std::ffi::OsStr>, words: &[&str]) {
    Process::start(with(value, "directory/refused", words)).wait_ok();
}

#[test]
fn unsuitable_directory_is_error_that_says_what_to_do() {
    let directory = SharedDirectory::new();
    let path = |name: &str| directory.path().join(name);
    check_refused(
        "cams",
        &["RSSHM_DIR=cams is not an absolute path", "absolute path of a tmpfs"],
    );
    let missing = path("missing");
    let remedy = format!(
        "mkdir -p {0} && mount -t tmpfs -o mode=1777 tmpfs {0}",
        missing.display()
    );
    check_refused(&missing, &["does not exist", &remedy, "docker run -v"]);
    fs::write(path("file"), "").unwrap();
    check_refused(path("file"), &["is not a directory", "mount -t tmpfs", "docker run -v"]);
    check_refused("/proc", &["/proc is not a tmpfs, but proc", "mount -t tmpfs"]);
    for mode in [0o777, 0o770, 0o707] {
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), Permissions::from_mode(mode)).unwrap();
        let remedy = format!("chmod +t {}", path("open").display());
        check_refused(path("open"), &[&format!("mode {mode:04o}"), "other users", &remedy]);
        fs::set_permissions(path("open"), Permissions::from_mode(mode | 0o1000)).unwrap();
        Process::start(with(path("open"), "directory/writer", &["checked"])).wait_ok();
        fs::remove_dir(path("open")).unwrap();
    }
}

/// The command of `role` in namespaces of its own, after a script of the shell that mounts something there.
fn after_mount(wrapper: &[&str], script: &str, role: &Command) -> Command {
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .args(["sh", "-c", script, "sh"])
        .arg(role.get_program())
        .args(role.get_args())
        .envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn other_file_systems_are_refused_by_name() {
    for kind in ["ramfs", "hugetlbfs"] {
        let Some(wrapper) = unshared(&OWN_MOUNTS) else {
            skip!("no mount namespace");
        };
        let script = format!("mount -t {kind} {kind} /mnt || exit 77; exec \"$@\"");
        let role = with(
            "/mnt",
            "directory/refused",
            &[&format!("/mnt is not a tmpfs, but {kind}")],
        );
        let mut process = Process::start(after_mount(&wrapper, &script, &role));
        if process.wait().code() == Some(77) {
            skip!("{kind} cannot be mounted");
        }
        process.wait_ok();
    }
}

#[test]
fn directory_of_other_user_is_refused() {
    need_root!("starts a process of another user");
    let directory = SharedDirectory::with_mode(0o1777);
    let refused = |words: &[&str]| {
        Process::start(with(directory.path(), "directory/refused as other user", words)).wait_ok();
    };
    chown(directory.path(), Some(OWNER), Some(OWNER)).unwrap();
    refused(&["belongs to user 65532", "of user 65533", "chown root"]);
    // A directory above it that the user may not enter.
    chown(directory.path(), Some(0), Some(0)).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(directory.path().join("inner")).unwrap();
    let inner = directory.path().join("inner");
    let mut process = Process::start(with(
        inner,
        "directory/refused as other user",
        &["cannot be reached (EACCES"],
    ));
    process.wait_ok();
}

#[test]
fn empty_variable_counts_as_unset() {
    for (value, path) in [("", "/dev/shm"), ("/dev/shm/", "/dev/shm")] {
        Process::converse(with(value, "directory/path", &[])).expect(path);
    }
}

#[test]
fn set_user_id_program_ignores_the_variable() {
    need_root!("makes a program that changes its user");
    let directory = SharedDirectory::with_mode(0o1777);
    let program = ProgramForAll::new().unwrap();
    let start = || {
        let command = program.command(&with(directory.path(), "directory/path", &[]), OTHER);
        Process::converse(command)
    };
    start().expect(&directory.path().display().to_string());
    let file = program.program();
    // The copy may be a link to the program of this test, which must not change.
    let copy = program.directory().join("copy");
    fs::copy(&file, &copy).unwrap();
    fs::rename(&copy, &file).unwrap();
    chown(&file, Some(NOBODY), None).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap();
    start().expect("/dev/shm");
}

#[test]
fn variable_is_read_once() {
    let directory = SharedDirectory::new();
    let mut process = Process::converse(with(directory.path(), "directory/changed variable", &[]));
    process.expect(&directory.path().display().to_string());
}

fn changed_variable() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    // SAFETY: this process has only one thread.
    unsafe { std::env::set_var(RSSHM_DIR, "/proc") };
    assert!(publish(&writer, 1));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    say(Directory::current());
}

fn writer(channel: &str) {
    let writer = open_writer(channel, slots(4));
    assert!(publish(&writer, 1));
    if channel == "checked" {
        return;
    }
    say(Space::now().limit);
    listen();
}

fn reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let next = reader
        .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND))
        .unwrap();
    say(if matches!(next, Next::Frame(_)) {
        "frame"
    } else {
        "none"
    });
    say(channels().join(" "));
}

#[test]
fn all_files_are_in_the_directory() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let mut writer = Process::converse(with(directory.path(), "directory/writer", &[channel.as_str()]));
    writer.receive();
    assert_eq!(directory.files(), [channel.to_string(), format!("sem.{channel}")]);
    channel.assert_removed();

    let mut reader = Process::converse(with(directory.path(), "directory/reader", &[channel.as_str()]));
    reader.expect("frame");
    reader.expect(channel.as_str());
    // Without the variable, there is no such channel.
    let mut other = role::start("directory/reader", &[channel.as_str()]);
    other.expect("none");
    assert!(!other.receive().contains(channel.as_str()));
    // Another path of the same directory leads to the same channel.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let mut linked = Process::converse(with(&link, "directory/reader", &[channel.as_str()]));
    linked.expect("frame");
    fs::remove_file(link).unwrap();

    writer.send("stop");
    writer.wait_ok();
    assert!(directory.files().is_empty(), "{:?}", directory.files());
}

#[test]
fn killed_writer_leaves_files_that_the_next_one_takes() {
    let directory = SharedDirectory::new();
    let channel = Channel::new();
    let start = || {
        let mut writer = Process::converse(with(directory.path(), "directory/writer", &[channel.as_str()]));
        writer.receive();
        writer
    };
    start().kill();
    assert_eq!(directory.files().len(), 2);
    // A staging file of a dead process, which the next writer removes.
    let staging = directory.path().join(".rsshm-1-0000000000000000");
    fs::write(&staging, "").unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(11);
    fs::File::options()
        .write(true)
        .open(&staging)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let mut writer = start();
    writer.send("stop");
    writer.wait_ok();
    assert!(directory.files().is_empty(), "{:?}", directory.files());
}

fn watcher() {
    let (watch, _stop) = Watch::new().unwrap();
    assert!(watch.is_immediate());
    say("watches");
    assert!(watch.wait(10 * SECOND));
    say("changed");
}

/// The watcher is in a container whose /dev/shm is empty, because other programs change the /dev/shm of the host.
#[test]
fn watch_sees_the_directory() {
    let directory = SharedDirectory::new();
    let Some(command) = directory.inside(Container::Plain, &role::command("directory/watcher", &[])) else {
        skip!("no namespaces");
    };
    let mut watcher = Process::converse(command);
    watcher.expect("watches");
    assert_eq!(watcher.try_receive(), None);
    let started = std::time::Instant::now();
    fs::write(directory.path().join("new"), "").unwrap();
    watcher.expect("changed");
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
}

/// The size of the tmpfs in which [`too_small`] runs.
const SMALL: &str = "1m";

fn too_small(path: &str) {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    let space = Space::now();
    assert!(space.total == 1 << 20 && space.limit.to_string() == path, "{space:?}");
    let error = writer
        .set_caps(rsshm_channel::Caps::fixed_size("large", 64 * SIZE))
        .and_then(|()| writer.claim(64 * SIZE).map(drop))
        .expect_err("it does not fit");
    let text = error.to_string();
    for word in [
        format!("{path} is too small"),
        format!("mount -o remount,size=... {path}"),
    ] {
        assert!(text.contains(&word), "{word}: {text}");
    }
    assert!(!text.contains("/dev/shm"), "{text}");
}

#[test]
fn full_directory_is_error_that_names_it() {
    let Some(wrapper) = unshared(&OWN_MOUNTS) else {
        skip!("no mount namespace");
    };
    assert!(Path::new("/mnt").is_dir());
    let script = format!("mount -t tmpfs -o size={SMALL} tmpfs /mnt && exec \"$@\"");
    let role = with("/mnt", "directory/too small", &["/mnt"]);
    Process::start(after_mount(&wrapper, &script, &role)).wait_ok();
}
