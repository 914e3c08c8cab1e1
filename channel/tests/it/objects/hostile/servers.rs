// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs that put a socket of their own under the name of the channel's socket.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, socket,
};
use rsshm_channel::{
    Next, ObjectFault, Reader,
    layout::{OBJECT_MAGIC, ObjectReply, ObjectRequest, object_kind, object_status},
};
use rsshm_testkit::{
    Channel, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen as listen_line, say},
    timed,
};

use super::{send_with, store_inode};
use crate::{
    objects::{
        accepting, is_object,
        pool::{Pool, memfd, object_writer, open_files},
    },
    support::{ChannelExt, SECOND, SIZE, slots},
};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/hostile/impostor", |arguments| impostor(arguments[0])),
    ("objects/hostile/reader of lies", |arguments| {
        reader_of_lies(arguments[0])
    }),
];

/// What a false server does with a request.
type Answer = fn(&OwnedFd, &ObjectRequest, &File);

pub fn reply_to(request: &ObjectRequest) -> ObjectReply {
    ObjectReply {
        magic: OBJECT_MAGIC,
        object: request.object,
        size: SIZE as u64,
        kind: object_kind::MEMFD,
        status: object_status::OK,
    }
}

pub fn answer_with(socket: &OwnedFd, reply: &ObjectReply, files: &[&File]) {
    let files: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let _ = send_with(socket, bytemuck::bytes_of(reply), &files);
}

/// Puts a socket under the name of the channel's socket.
pub fn listen_at(channel: &Channel) -> OwnedFd {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&channel.socket()).unwrap()).unwrap();
    listen(&listener, Backlog::new(16).unwrap()).unwrap();
    listener
}

/// The next connection of a false server, and the request that came over it.
pub fn accept_request(listener: &OwnedFd) -> (OwnedFd, ObjectRequest) {
    let accepted = accept(listener.as_raw_fd()).unwrap();
    // SAFETY: the call has just opened the descriptor, so nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
    let mut request = ObjectRequest::default();
    let bytes = bytemuck::bytes_of_mut(&mut request);
    recv(socket.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
    (socket, request)
}

/// The lies of a false server, and a word of the fault that a reader reports.
const LIES: &[(&str, &str, Answer)] = &[
    ("end", "gone", |_, _, _| {}),
    ("rubbish", "not an answer", |socket, _, _| {
        let _ = send_with(socket, &[7; 100], &[]);
    }),
    ("rubbish with files", "not an answer", |socket, _, file| {
        let _ = send_with(socket, &[7; 3], &[file.as_raw_fd(); 100]);
    }),
    ("another object", "not an answer", |socket, request, file| {
        let object = request.object + 1;
        answer_with(
            socket,
            &ObjectReply {
                object,
                ..reply_to(request)
            },
            &[file],
        );
    }),
    ("no file", "one descriptor", |socket, request, _| {
        answer_with(socket, &reply_to(request), &[]);
    }),
    ("two files", "one descriptor", |socket, request, file| {
        answer_with(socket, &reply_to(request), &[file, file]);
    }),
    ("250 files", "one descriptor", |socket, request, file| {
        answer_with(socket, &reply_to(request), &[file; 250]);
    }),
    ("a device", "neither a memfd", |socket, request, _| {
        answer_with(socket, &reply_to(request), &[&File::open("/dev/zero").unwrap()]);
    }),
    ("a file on a disk", "neither a memfd", |socket, request, _| {
        answer_with(socket, &reply_to(request), &[&File::open("/proc/self/exe").unwrap()]);
    }),
    ("a pipe", "neither a memfd", |socket, request, _| {
        let (end, _other) = nix::unistd::pipe().unwrap();
        answer_with(socket, &reply_to(request), &[&File::from(end)]);
    }),
    ("no bytes", "no bytes", |socket, request, _| {
        answer_with(socket, &reply_to(request), &[&memfd(0)]);
    }),
    ("too small", "too small", |socket, request, _| {
        answer_with(socket, &reply_to(request), &[&memfd(SIZE - 1)]);
    }),
    ("another kind", "another kind", |socket, request, file| {
        let kind = object_kind::DMABUF;
        answer_with(
            socket,
            &ObjectReply {
                kind,
                ..reply_to(request)
            },
            &[file],
        );
    }),
    ("a larger size", "too small", |socket, request, file| {
        let size = u64::MAX;
        answer_with(
            socket,
            &ObjectReply {
                size,
                ..reply_to(request)
            },
            &[file],
        );
    }),
    ("an unknown status", "unknown", |socket, request, file| {
        answer_with(
            socket,
            &ObjectReply {
                status: 99,
                ..reply_to(request)
            },
            &[file],
        );
    }),
    ("a refusal with a file", "does not have", |socket, request, file| {
        let status = object_status::UNKNOWN_OBJECT;
        answer_with(
            socket,
            &ObjectReply {
                status,
                ..reply_to(request)
            },
            &[file],
        );
    }),
    ("silence", "did not answer", |_, _, _| {
        std::thread::sleep(Duration::from_millis(1500))
    }),
];

/// The next item, which must come within three seconds.
#[track_caller]
fn take(reader: &mut Reader) -> Next {
    let (duration, next) = timed(|| {
        reader
            .next(&mut Vec::new(), accepting(), Some(Duration::from_millis(10)))
            .unwrap()
    });
    assert!(duration < 3 * SECOND, "{duration:?}");
    next
}

/// The fault that must come next.
#[track_caller]
fn take_fault(reader: &mut Reader) -> ObjectFault {
    match take(reader) {
        Next::Fault(fault) => fault,
        other => panic!("{other:?} instead of a fault"),
    }
}

/// A program that has put its own socket under the channel's name answers the requests of this process's reader. The
/// reader misses each frame, says why, and keeps no file.
fn reader_of_lies(channel: &str) {
    let channel = Channel(rsshm_channel::ChannelName::new(channel).unwrap());
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 8);
    assert!(pool.publish(&writer, 1));
    std::fs::remove_file(channel.socket()).unwrap();
    let listener = listen_at(&channel);
    // A server that lies could be the writer itself, so the segment has the inode of its socket.
    store_inode(&channel, std::fs::metadata(channel.socket()).unwrap().ino());
    let file = memfd(SIZE);
    let mut files_before = None;
    for (what, word, lie) in LIES {
        let mut reader = channel.reader();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (socket, request) = accept_request(&listener);
                lie(&socket, &request, &file);
            });
            let fault = take_fault(&mut reader);
            assert!(fault.to_string().contains(word), "{what}: {fault}");
            let next = take(&mut reader);
            assert!(matches!(next, Next::TimedOut), "{what}: {next:?}");
        });
        assert!(pool.publish(&writer, 2));
        let files = open_files("self");
        assert!(
            files <= *files_before.get_or_insert(files),
            "{what}: {files} files are open"
        );
    }
    // The truth is accepted.
    let mut reader = channel.reader();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (socket, request) = accept_request(&listener);
            answer_with(&socket, &reply_to(&request), &[&file]);
        });
        let next = take(&mut reader);
        assert!(matches!(&next, Next::Frame(frame) if is_object(frame)), "{next:?}");
    });
    // Without a socket, and with a plain file under its name.
    std::fs::remove_file(channel.socket()).unwrap();
    for what in ["nothing", "a file"] {
        let mut late = channel.reader();
        assert!(pool.publish(&writer, 2));
        assert_eq!(take_fault(&mut late), ObjectFault::NoSocket, "{what}");
        std::fs::write(channel.socket(), "a file").unwrap();
    }
    say("survived");
}

/// Puts a socket under the channel's name as another user, and accepts connections.
fn impostor(channel: &str) {
    become_user(NOBODY, NOBODY);
    let channel = Channel(rsshm_channel::ChannelName::new(channel).unwrap());
    let _listener = listen_at(&channel);
    say("listens");
    listen_line();
}

#[test]
fn socket_of_another_user_is_not_used() {
    need_root!("another user's process");
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 8);
    assert!(pool.publish(&writer, 1));
    std::fs::remove_file(channel.socket()).unwrap();
    let mut impostor = role::start("objects/hostile/impostor", &[channel.as_str()]);
    impostor.expect("listens");
    let mut reader = channel.reader();
    assert_eq!(take_fault(&mut reader), ObjectFault::ForeignSocket);
    // The writer neither uses nor removes the file of another user. It says whose file it is.
    std::thread::sleep(Duration::from_millis(1100));
    let error = writer.service().unwrap_err();
    assert!(error.to_string().contains("belongs to user 65534"), "{error}");
    assert!(channel.socket().exists());
    impostor.kill();
    std::fs::remove_file(channel.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    writer.service().unwrap();
    assert!(pool.publish(&writer, 2));
    let next = take(&mut reader);
    assert!(matches!(&next, Next::Frame(frame) if is_object(frame)), "{next:?}");
}

#[test]
fn reader_survives_a_lying_server() {
    let channel = Channel::new();
    let mut process = role::start("objects/hostile/reader of lies", &[channel.as_str()]);
    process.expect("survived");
    process.wait_ok();
}
