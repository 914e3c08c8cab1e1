//! Who may do what: modes, other users, files of others.
//!
//! What needs other users is done by processes that become them; without root those tests have nothing to do.

mod common;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    time::Duration,
};

use common::{
    Channel, NOBODY, become_user, check,
    child::{self, Child, listen, say},
    is_in_place, is_root, next, peer, poll, publish, slots,
};
use nix::{
    libc,
    sys::stat::{Mode, umask},
};
use rsshm_channel::{
    Caps, ChannelName, Error, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions, layout::FIRST_READER_BYTE,
};

const OTHER: u32 = 65533;
const GROUP: u32 = 65500;

#[test]
fn child() {
    child::play(&[
        ("writes under a umask", writes_under_a_umask),
        ("reads as nobody", |channel| reads_as(channel, NOBODY, NOBODY)),
        ("reads as one of the group", |channel| reads_as(channel, OTHER, GROUP)),
        ("writes as nobody for the group", |channel| writes_as(channel, 0o660)),
        ("writes as nobody for all", |channel| writes_as(channel, 0o666)),
        ("writes as nobody and fails", fails_as_nobody),
        ("plants files", plants_files),
    ]);
}

fn with_perms(perms: u32) -> WriterOptions {
    WriterOptions { perms, ..slots(12) }
}

fn mode(path: std::path::PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn writes_under_a_umask(argument: &str) {
    let [channel, mask, perms] = argument.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{argument}");
    };
    let octal = |text| u32::from_str_radix(text, 8).unwrap();
    umask(Mode::from_bits_truncate(octal(mask)));
    let writer = Writer::open(ChannelName::new(channel).unwrap(), with_perms(octal(perms))).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    assert!(publish(&writer, 1));
    say("published");
    listen();
}

/// The modes are exactly what they should be, whatever the umask. The semaphore's file has no class that may only read.
#[test]
fn modes_are_exact() {
    for (perms, of_semaphore) in [
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
            let argument = format!("{} {mask:o} {perms:o}", channel.as_str());
            let writer = Child::start("writes under a umask", &argument);
            writer.expect("published");
            assert_eq!(mode(channel.segment()), perms, "{perms:o} under {mask:o}");
            assert_eq!(mode(channel.semaphore()), of_semaphore, "{perms:o} under {mask:o}");
        }
    }
}

/// Another start with other permissions sets them, on both files.
#[test]
fn a_takeover_sets_the_new_modes() {
    let channel = Channel::new();
    let mut writer = Child::start("writes under a umask", &format!("{} 22 666", channel.as_str()));
    writer.expect("published");
    writer.kill();
    let writer = channel.writer(with_perms(0o640));
    assert!(publish(&writer, 1));
    assert_eq!((mode(channel.segment()), mode(channel.semaphore())), (0o640, 0o600));
}

#[test]
fn modes_that_make_no_sense_are_refused() {
    let channel = Channel::new();
    for perms in [0o400, 0o066, 0, 0o1600, 0o10600] {
        let refused = Writer::open(channel.0.clone(), with_perms(perms));
        assert!(matches!(refused, Err(Error::Option { .. })), "{perms:o}: {refused:?}");
    }
    for max_slots in [1, 2, 65] {
        let refused = Writer::open(channel.0.clone(), slots(max_slots));
        assert!(matches!(refused, Err(Error::Option { .. })), "{max_slots}: {refused:?}");
    }
    channel.assert_nothing_left();
}

/// Says what it can do with the channel, frame by frame.
fn reads_as(channel: &str, user: u32, group: u32) {
    become_user(user, group);
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let mut copy = Vec::new();
    for patience in [3, 3, 3] {
        match reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(patience))) {
            Ok(Next::Frame(frame)) => {
                common::check_bytes(&frame, &copy);
                say(format!("observer {}", reader.is_observer()));
            }
            Ok(other) => say(format!("{other:?}")),
            Err(error @ Error::Denied { .. }) => say(format!("denied: {error}")),
            Err(error) => say(error),
        }
        match listen().as_str() {
            "files" => {
                let path = |prefix: &str| format!("/dev/shm/{prefix}{channel}");
                let may = |options: &OpenOptions, prefix| options.open(path(prefix)).is_ok();
                say([
                    may(OpenOptions::new().read(true), ""),
                    may(OpenOptions::new().read(true).write(true), ""),
                    may(OpenOptions::new().read(true), "sem."),
                ]
                .map(|may| if may { "yes" } else { "no" })
                .join(" "));
                // All that a read-only descriptor can do to be in the way.
                let file = File::open(path("")).ok();
                if let Some(file) = &file {
                    peer::lock(file, libc::F_RDLCK, 0, 4096);
                    peer::lock(file, libc::F_RDLCK, FIRST_READER_BYTE, 0);
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
fn others_are_kept_out_by_0600_and_told_so() {
    if !is_root() {
        return;
    }
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o600));
    assert!(publish(&writer, 1));
    let reader = Child::start("reads as nobody", channel.as_str());
    let said = reader.receive();
    assert!(
        said.starts_with("denied: ") && said.contains("perms") && said.contains("0600"),
        "{said}"
    );
}

/// 0644: they see the frames, and can neither write, nor lock what others need.
#[test]
fn others_observe_with_0644() {
    if !is_root() {
        return;
    }
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o644));
    assert!(publish(&writer, 1));
    let service = common::Service::of(&writer);
    let mut reader = Child::start("reads as nobody", channel.as_str());
    reader.expect("observer true");
    assert_eq!(service.seen().reader_count, 0);
    reader.tell("files");
    reader.expect("yes no no");
    let (mut own, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut own, &mut copy), &copy, 1);
    assert!(!own.is_observer());
    common::wait_until("counted", Duration::from_secs(1), || service.seen().reader_count == 1);
    reader.tell("go on");
    assert!(publish(&writer, 2));
    reader.expect("observer true");
}

#[test]
fn the_group_attaches_with_0660() {
    if !is_root() {
        return;
    }
    let channel = Channel::new();
    let writer = Child::start("writes as nobody for the group", channel.as_str());
    writer.expect("published");
    assert_eq!(std::fs::metadata(channel.segment()).unwrap().uid(), NOBODY);
    let one_of_us = Child::start("reads as one of the group", channel.as_str());
    one_of_us.expect("observer false");
    let stranger = Child::start("reads as nobody", channel.as_str());
    stranger.expect("observer false"); // the same user
}

fn writes_as(channel: &str, perms: u32) {
    become_user(NOBODY, GROUP);
    let writer = Writer::open(ChannelName::new(channel).unwrap(), with_perms(perms)).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    assert!(publish(&writer, 1));
    say("published");
    listen();
}

/// Write permission that anybody has is no reason to trust a segment: who is of another user and group only looks.
#[test]
fn a_strangers_segment_is_only_observed() {
    if !is_root() {
        return;
    }
    let channel = Channel::new();
    let writer = Child::start("writes as nobody for all", channel.as_str());
    writer.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let frame = next(&mut reader, &mut copy);
    check(&frame, &copy, 1);
    assert!(reader.is_observer() && !is_in_place(&frame));
    assert!(reader.observer_reason().is_some());
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    // And not replaced, dead or alive, not even by root.
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
}

fn fails_as_nobody(channel: &str) {
    become_user(NOBODY, NOBODY);
    let refused = Writer::open(ChannelName::new(channel).unwrap(), WriterOptions::default());
    say(match refused {
        Err(error @ (Error::Foreign { .. } | Error::Denied { .. })) => error.to_string(),
        other => format!("{other:?}, which is not the right answer"),
    });
}

/// A file of somebody else under one of the names: refused, and left as it is.
#[test]
fn files_of_others_are_not_touched() {
    if !is_root() {
        return;
    }
    for file in [Channel::segment, Channel::semaphore] {
        for mode in [0o600, 0o666] {
            // Root meets a file of nobody's.
            let channel = Channel::new();
            std::fs::write(file(&channel), "mine").unwrap();
            std::fs::set_permissions(file(&channel), PermissionsExt::from_mode(mode)).unwrap();
            chown(file(&channel), Some(NOBODY), None).unwrap();
            let refused = Writer::open(channel.0.clone(), WriterOptions::default());
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
            assert_eq!(std::fs::read(file(&channel)).unwrap(), b"mine");
            let files = [channel.segment(), channel.semaphore()];
            assert_eq!(files.iter().filter(|path| path.exists()).count(), 1);

            // Nobody meets a file of root's.
            chown(file(&channel), Some(0), None).unwrap();
            let said = Child::start("writes as nobody and fails", channel.as_str()).receive();
            let expected = if mode == 0o600 {
                "no permission"
            } else {
                "belongs to user 0"
            };
            assert!(said.contains(expected), "{said}");
            assert_eq!(std::fs::read(file(&channel)).unwrap(), b"mine");
            assert_eq!(files.iter().filter(|path| path.exists()).count(), 1);
        }
    }
}

/// Puts files of another user's under the names, as soon as they are free.
fn plants_files(channel: &str) {
    become_user(NOBODY, NOBODY);
    for prefix in ["", "sem."] {
        let path = format!("/dev/shm/{prefix}{channel}");
        std::fs::write(&path, b"mine, for good").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    }
    say("planted");
    listen();
}

/// Somebody removes the channel's files, and another user is faster than the writer with new ones: the writer says so, leaves
/// them alone, and goes on for who is there.
#[test]
fn names_that_another_user_takes_in_mid_stream_are_left_to_him() {
    if !is_root() {
        return;
    }
    let channel = Channel::new();
    let writer = channel.writer(with_perms(0o644));
    assert!(publish(&writer, 1));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    channel.remove_files();
    let planter = Child::start("plants files", channel.as_str());
    planter.expect("planted");
    // Names are looked at once a second.
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
    for file in [channel.segment(), channel.semaphore()] {
        assert_eq!(std::fs::read(&file).unwrap(), b"mine, for good");
        assert_eq!(std::fs::metadata(file).unwrap().uid(), NOBODY);
    }
}
