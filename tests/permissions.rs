//! Who may do what with a channel of another user: `perms` decides, and the name belongs to who has it.

mod common;
mod numbered;

use std::{
    fs::{OpenOptions, Permissions},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{Channel, Pipeline, Process, eventually};
use gst::prelude::*;
use nix::fcntl::{FcntlArg, fcntl};
use numbered::{has_frames, reader, summary, writer};

const CAPS: &str = "format=GRAY8,width=320,height=240,framerate=10/1";
/// "nobody".
const OTHER_USER: u32 = 65534;

/// A test that starts processes of another user has to be root.
macro_rules! root_or_skip {
    () => {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: another user's process takes root");
            return;
        }
    };
}

/// This program where everybody may execute it, in a folder of its own.
struct ForAll(PathBuf);

impl ForAll {
    fn new(channel: &Channel) -> Self {
        let folder = PathBuf::from(format!("/tmp/{channel}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let this = std::env::current_exe().unwrap();
        let program = folder.join("test");
        std::fs::hard_link(&this, &program)
            .or_else(|_| std::fs::copy(&this, &program).map(drop))
            .unwrap();
        Self(folder)
    }

    /// `command`, which starts this program, for the other user.
    fn other_user(&self, command: &Command) -> Command {
        let mut other = Command::new(self.0.join("test"));
        other
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("GST_REGISTRY", self.0.join("registry.bin"))
            .env("HOME", &self.0)
            .env("TMPDIR", &self.0)
            .current_dir(&self.0)
            .uid(OTHER_USER)
            .gid(OTHER_USER);
        other
    }

    /// A reader of the other user.
    #[track_caller]
    fn reader(&self, channel: &Channel, options: &str) -> Process {
        let pipeline = format!("rsshmsrc name={channel} {options} ! fakesink name=check sync=false");
        Process::start(self.other_user(&numbered::reader_command(&pipeline, 2)))
    }

    /// A program of the other user that tries its hand at the channel's files and then sleeps.
    #[track_caller]
    fn meddler(&self, channel: &Channel) -> Process {
        let mut command = self.other_user(&numbered::entry_command("meddler"));
        command.env("RSSHM_TEST_CHANNEL", &channel.0);
        let meddler = Process::start(command);
        eventually("it has tried", || meddler.output().contains("MEDDLED"));
        meddler
    }
}

impl Drop for ForAll {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

fn num_clients(writer: &Pipeline) -> u32 {
    writer.by_factory("rsshmsink").property("num-clients")
}

#[test]
fn without_permission_the_error_says_so() {
    root_or_skip!();
    let channel = Channel::new();
    let for_all = ForAll::new(&channel);
    let writer = writer(&channel, "is-live=true", CAPS, "");
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("it is there", || channel.exists());
    for options in ["", "read-only=true"] {
        let said = for_all.reader(&channel, options).wait_error();
        assert!(said.contains("ResourceError::NotAuthorized"), "{said}");
        assert!(said.contains("perms") && said.contains("0600"), "{said}");
    }
}

#[test]
fn read_permission_lets_observe() {
    root_or_skip!();
    let channel = Channel::new();
    let for_all = ForAll::new(&channel);
    let writer = writer(&channel, "is-live=true num-buffers=50", CAPS, "perms=0644");
    let mut own = reader(&channel, "", 2);
    let mut others = [for_all.reader(&channel, ""), for_all.reader(&channel, "read-only=true")];
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("all have frames", || has_frames(&own) && others.iter().all(has_frames));
    assert_eq!(num_clients(&writer), 1, "observers take no seat");
    writer.wait_eos();
    let found = summary(&mut own);
    assert!(found.in_place > 0, "{found:?}");
    for other in &mut others {
        let found = summary(other);
        found.assert_exact();
        assert!(found.missed == 0 && found.last == 49, "{found:?}");
        assert!(found.in_place == 0 && found.copied == found.received, "{found:?}");
    }
}

/// Tries to open, write and lock what there is of the channel.
#[test]
#[ignore = "a process that another test starts"]
fn meddler() {
    let Ok(channel) = std::env::var("RSSHM_TEST_CHANNEL") else {
        return;
    };
    let mut kept = Vec::new();
    for path in [format!("/dev/shm/{channel}"), format!("/dev/shm/sem.{channel}")] {
        if OpenOptions::new().write(true).open(&path).is_ok() {
            println!("WRITABLE {path}");
        }
        let Ok(file) = OpenOptions::new().read(true).open(&path) else {
            continue;
        };
        println!("READABLE {path}");
        // All bytes there are or will be, the writer's and the seats' among them; both kinds of lock.
        let lock = nix::libc::flock {
            l_type: nix::libc::F_RDLCK as nix::libc::c_short,
            l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        for part in [(0, 4096), (4097, 0), (4096, 1)] {
            let lock = nix::libc::flock {
                l_start: part.0,
                l_len: part.1,
                ..lock
            };
            println!("LOCK {part:?} {:?}", fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)));
            println!("LOCK {part:?} {:?}", fcntl(&file, FcntlArg::F_SETLK(&lock)));
        }
        kept.push(file);
    }
    println!("MEDDLED");
    // The byte that a living writer holds is to be had when it dies.
    let lock = nix::libc::flock {
        l_type: nix::libc::F_RDLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 4096,
        l_len: 1,
        l_pid: 0,
    };
    while !kept
        .iter()
        .all(|file| fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).is_ok())
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("SUCCEEDED THE WRITER");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn who_may_read_can_neither_write_nor_block_nor_fake_a_seat() {
    root_or_skip!();
    let channel = Channel::new();
    let for_all = ForAll::new(&channel);
    let writer = writer(&channel, "is-live=true num-buffers=50", CAPS, "perms=0644");
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("it is there", || channel.exists());
    let meddler = for_all.meddler(&channel);
    let said = meddler.output();
    assert!(!said.contains("WRITABLE"), "{said}");
    let readable = said.lines().filter(|line| line.starts_with("READABLE")).count();
    assert_eq!(readable, 1, "the segment alone: {said}");
    // With all locks in place that the meddler could get, an honest reader comes and goes, and is counted.
    let mut own = reader(&channel, "", 2);
    eventually("it is counted", || num_clients(&writer) == 1);
    eventually("it has frames", || has_frames(&own));
    writer.wait_eos();
    let found = summary(&mut own);
    found.assert_exact();
    assert!(found.in_place > 0, "{found:?}");
    eventually("it has gone", || num_clients(&writer) == 0);
    drop(writer);
    channel.assert_gone();
    // Nor does it keep the next writer from starting.
    let next = numbered::writer(&channel, "is-live=true num-buffers=5", CAPS, "perms=0644");
    next.0.set_state(gst::State::Playing).unwrap();
    next.wait_eos();
    assert!(meddler.output().contains("MEDDLED"));
}

#[test]
fn locks_of_who_may_read_do_not_survive_the_writer() {
    root_or_skip!();
    let channel = Channel::new();
    let for_all = ForAll::new(&channel);
    let mut first = common::launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,framerate=10/1 ! rsshmsink name={channel} perms=0644"
    ));
    eventually("it is there", || channel.exists());
    let meddler = for_all.meddler(&channel);
    let reader = Pipeline::playing(&format!(
        "rsshmsrc name=reader channel={channel} on-disconnect=eos ! fakesink"
    ));
    eventually("it reads", || reader.element("reader").property("connected"));
    first.kill();
    eventually("the meddler has what it can have", || {
        meddler.output().contains("SUCCEEDED THE WRITER")
    });
    reader.wait_eos();
    let second = writer(&channel, "is-live=true num-buffers=10", CAPS, "perms=0644");
    second.0.set_state(gst::State::Playing).unwrap();
    second.wait_eos();
    drop(second);
    channel.assert_gone();
}

#[test]
fn the_mode_is_what_perms_says() {
    let files_mode = |umask: &str, perms: &str| {
        let channel = Channel::new();
        let mut command = common::command("sh");
        command
            .args(["-c", "umask $0; exec gst-launch-1.0 -q \"$@\"", umask])
            .args("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink".split(' '))
            .args([format!("name={channel}"), format!("perms={perms}")]);
        let mut writer = Process::start(command);
        eventually("it is there", || channel.exists());
        let modes = channel.files().map(|file| mode(&file));
        writer.interrupt();
        channel.assert_gone();
        modes
    };
    for umask in ["077", "000"] {
        // The semaphore's file: who may only read has no business there.
        for (perms, segment, semaphore) in [
            ("0600", 0o600, 0o600),
            ("0644", 0o644, 0o600),
            ("0660", 0o660, 0o660),
            ("0666", 0o666, 0o666),
            ("0664", 0o664, 0o660),
        ] {
            assert_eq!(
                files_mode(umask, perms),
                [segment, semaphore],
                "umask {umask}, perms {perms}"
            );
        }
    }
}

/// Puts a file of the other user under the name; yields what it holds.
fn plant(path: &Path) -> Vec<u8> {
    let bytes = b"rsshm\r\n\x1a, but not really".repeat(1000);
    // One that everybody may write: only whose it is says no.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)
        .unwrap();
    std::os::unix::fs::fchown(&file, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    std::io::Write::write_all(&mut &file, &bytes).unwrap();
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    bytes
}

#[test]
fn what_another_user_put_there_is_left_alone() {
    root_or_skip!();
    for which in [0, 1] {
        let channel = Channel::new();
        let path = &channel.files()[which];
        let bytes = plant(path);
        let before = std::fs::metadata(path).unwrap();
        let writer = writer(&channel, "is-live=true", CAPS, "");
        let _ = writer.0.set_state(gst::State::Playing);
        let error = writer.wait_error();
        assert_eq!(
            error.kind::<gst::ResourceError>(),
            Some(gst::ResourceError::NotAuthorized),
            "{error}"
        );
        assert!(
            error.message().contains("65534") && error.message().contains(path.to_str().unwrap()),
            "{error}"
        );
        drop(writer);
        let after = std::fs::metadata(path).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        assert_eq!(
            (before.ino(), before.mode(), before.uid()),
            (after.ino(), after.mode(), after.uid())
        );
        assert!(!channel.files()[1 - which].exists(), "nothing else is left");
    }
}

#[test]
fn a_live_channel_of_another_user_is_left_alone() {
    root_or_skip!();
    let channel = Channel::new();
    let for_all = ForAll::new(&channel);
    let owner = writer(&channel, "is-live=true num-buffers=50", CAPS, "perms=0666");
    let mut own = reader(&channel, "", 2);
    owner.0.set_state(gst::State::Playing).unwrap();
    eventually("frames flow", || has_frames(&own));
    // May write, and so may attach, but is not to take the channel over.
    let mut command = for_all.other_user(&numbered::entry_command("second_writer"));
    command.env("RSSHM_TEST_CHANNEL", &channel.0);
    let said = Process::start(command).wait_ok();
    assert!(said.contains("REFUSED") && said.contains("user 0"), "{said}");
    owner.wait_eos();
    let found = summary(&mut own);
    found.assert_exact();
    assert!(found.missed == 0 && found.last == 49, "{found:?}");
}

/// Tries to write a channel, and says what came of it.
#[test]
#[ignore = "a process that another test starts"]
fn second_writer() {
    let Ok(channel) = std::env::var("RSSHM_TEST_CHANNEL") else {
        return;
    };
    let writer = writer(channel, "is-live=true num-buffers=5", CAPS, "");
    let _ = writer.0.set_state(gst::State::Playing);
    println!("REFUSED {}", writer.wait_error());
}
