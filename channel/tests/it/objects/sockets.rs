// SPDX-License-Identifier: MIT OR Apache-2.0

//! The channel's socket: its name, its permissions, and other files under its name.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use nix::libc;
use rsshm_channel::{Caps, ChannelName, Error, Leftover, Next, ObjectFault, ReaderOptions, WriterOptions};
use rsshm_testkit::{
    Channel, eventually, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen, say},
};

use super::{
    accepting, check_objects, hostile, is_object, next_frame, next_in_place, poll_for,
    pool::{Pool, object_writer},
};
use crate::support::{CAPS, ChannelExt, SECOND, SIZE, Service, open_reader, publish, slots};

pub const ROLES: &[(&str, Role)] = &[("objects/reader as nobody", |arguments| reader_as_nobody(arguments[0]))];

#[test]
fn socket_has_the_mode_of_the_lock_file_and_goes_with_the_channel() {
    for (perms, of_socket) in [(0o600, 0o600), (0o644, 0o600), (0o660, 0o660), (0o666, 0o666)] {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0).perms(perms), 4);
        assert!(!channel.socket().exists(), "nobody needs the socket yet");
        let pool = Pool::new(&writer, 4);
        assert!(pool.publish(&writer, 1));
        let metadata = std::fs::metadata(channel.socket()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, of_socket);
        assert_eq!(metadata.mode() & libc::S_IFMT, libc::S_IFSOCK);
        writer.close();
        channel.assert_removed();
        // Upstream has all buffers back.
        assert_eq!(pool.free(), 4);
    }
}

#[test]
fn name_of_any_length_has_a_socket() {
    let name = ChannelName::new(format!("{:x<250}", format!("rsshm-test-long-{}-", std::process::id()))).unwrap();
    let channel = Channel(name);
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    assert!(pool.publish(&writer, 1));
    assert!(channel.socket().exists());
    let mut reader = channel.reader();
    next_frame(&mut reader, accepting());
}

#[test]
fn removed_socket_is_made_again() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    assert!(pool.publish(&writer, 1));
    let service = Service::of(&writer);
    std::fs::remove_file(channel.socket()).unwrap();
    eventually("the socket is there again", || channel.socket().exists());
    let mut reader = channel.reader();
    drop(next_in_place(&pool, &writer, &mut reader, 2));
    drop(service);
    writer.close();
    channel.assert_removed();
}

/// Another program overwrites the inode of the socket in the segment.
#[test]
fn inode_of_the_socket_is_repaired() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    assert!(pool.publish(&writer, 1));
    hostile::store_inode(&channel, 1);
    let next = poll_for(&mut channel.reader(), Duration::from_millis(10));
    assert!(matches!(next, Next::Fault(ObjectFault::ForeignSocket)), "{next:?}");
    writer.service().unwrap();
    next_frame(&mut channel.reader(), accepting());
}

#[test]
fn other_file_under_the_name_of_the_socket_is_an_error() {
    let channel = Channel::new();
    std::fs::write(channel.socket(), "mine").unwrap();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    let error = pool.try_publish(&writer, 1).unwrap_err();
    assert!(
        matches!(&error, Error::Foreign { .. }) && error.to_string().contains("socket"),
        "{error}"
    );
    assert_eq!(std::fs::read(channel.socket()).unwrap(), b"mine");
    // Frames in slots need no socket.
    writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
    assert!(publish(&writer, 2));
    std::fs::remove_file(channel.socket()).unwrap();
    writer.set_caps(Caps::objects(CAPS)).unwrap();
    assert!(pool.publish(&writer, 3));
}

#[test]
fn leftover_socket_is_removed() {
    let channel = Channel::new();
    let mut writer = role::start("objects/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.kill();
    assert!(channel.socket().exists());
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::Removable));
    channel.assert_removed();
}

/// Reads frames as another user, and says what it gets.
fn reader_as_nobody(channel: &str) {
    become_user(NOBODY, NOBODY);
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    for _ in 0..3 {
        let next = reader.next(&mut copy, accepting(), Some(5 * SECOND));
        say(match next {
            Ok(Next::Frame(frame)) => {
                check_objects(&frame, &copy);
                format!(
                    "{} {}",
                    if is_object(&frame) { "objects" } else { "copy" },
                    reader.is_observer()
                )
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        });
        listen();
    }
}

#[test]
fn other_users_need_permission_for_objects() {
    need_root!("another user's process");
    // A user who may only observe must not get the memory itself. The error says how to permit it.
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0).perms(0o644), 6);
    let pool = Pool::new(&writer, 4);
    assert!(pool.publish(&writer, 1));
    let mut reader = role::start("objects/reader as nobody", &[channel.as_str()]);
    let answer = reader.receive();
    assert!(
        answer.contains("fds.") && answer.contains("0600") && answer.contains("perms"),
        "{answer}"
    );
    reader.kill();
    // With full permissions, another user's reader gets objects. It trusts the writer, because the writer is root.
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0).perms(0o666), 6);
    let pool = Pool::new(&writer, 4);
    assert!(pool.publish(&writer, 1));
    let mut reader = role::start("objects/reader as nobody", &[channel.as_str()]);
    reader.expect("objects false");
    reader.kill();
}

#[test]
fn ordinary_channel_has_no_socket() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    assert!(publish(&writer, 1));
    assert!(!channel.socket().exists());
    assert_eq!(writer.objects().count(), 0);
}
