// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers that send rubbish over the socket, or nothing, and processes that can open no more files. Nobody crashes, hangs
//! or keeps a descriptor.

use std::{
    fs::File,
    io::IoSlice,
    mem::offset_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{FileExt, MetadataExt},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        resource::Resource,
        socket::{
            AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, connect,
            listen, recv, send, sendmsg, setsockopt, socket, sockopt,
        },
    },
};
use proptest::{
    prelude::{ProptestConfig, any},
    prop_assert, proptest,
    strategy::Strategy,
};
use rsshm_channel::{
    Next, ObjectFault, Reader,
    layout::{Header, OBJECT_MAGIC, ObjectReference, ObjectReply, ObjectRequest, Status, object_kind, object_status},
};
use rsshm_testkit::{
    Channel, eventually, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen as listen_line, say},
    timed,
};

use super::{
    accepting, check_objects, is_object, next_frame,
    pool::{Pool, memfd, object_writer, open_files},
};
use crate::support::{ChannelExt, SECOND, SIZE, Service, StopOnDrop, limit, slots};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/hostile/writer", |arguments| writer(arguments[0])),
    ("objects/hostile/writer without files", |arguments| {
        writer_without_files(arguments[0]);
    }),
    ("objects/hostile/reader without files", |arguments| {
        reader_without_files(arguments[0]);
    }),
    ("objects/hostile/impostor", |arguments| impostor(arguments[0])),
    ("objects/hostile/reader of lies", |arguments| {
        reader_of_lies(arguments[0])
    }),
];

/// Publishes frames. At each line, it says how many files it has open.
fn writer(channel: &str) {
    let writer = object_writer(channel, slots(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    let is_over = AtomicBool::new(false);
    assert!(pool.publish(&writer, 1));
    say("published");
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        scope.spawn(|| {
            for value in 2.. {
                // Relaxed: the flag carries no other data.
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                assert!(pool.publish(&writer, value), "the camera has no buffer");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        while listen_line() != "end" {
            say(open_files("self"));
        }
    });
    drop(service);
}

/// A new socket that connects to the channel's socket.
fn try_connect(channel: &Channel) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(3, 0))?;
    setsockopt(&socket, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(3, 0))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&channel.socket())?)?;
    Ok(socket)
}

fn send_with(socket: &OwnedFd, bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(files)];
    let messages = if files.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        messages,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
}

/// Checks that the writer has no more files open than before, and that a new reader gets frames in place.
#[track_caller]
fn check_writer(writer: &mut rsshm_testkit::Process, channel: &Channel, files_before: usize) {
    eventually("the writer has closed its connections", || {
        writer.send("files");
        writer.receive().parse::<usize>().unwrap() <= files_before
    });
    let mut reader = channel.reader();
    eventually("frames in place", || is_object(&next_frame(&mut reader, accepting())));
}

#[test]
fn rubbish_costs_the_writer_nothing() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.send("files");
    let files = writer.receive().parse().unwrap();
    let null = File::open("/dev/null").unwrap();
    let many = vec![null.as_raw_fd(); 253];
    let mut answered = 0;
    for size in [0, 1, 7, 8, 31, 32, 33, 64, 4096, 60_000] {
        for files in [&many[..0], &many[..1], &many[..3], &many] {
            let socket = try_connect(&channel).unwrap();
            if send_with(&socket, &vec![0x5a; size], files).is_err() {
                continue;
            }
            let mut reply = [0; 64];
            match recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()) {
                Ok(32) => {
                    let reply: ObjectReply = bytemuck::pod_read_unaligned(&reply[..32]);
                    assert_eq!((reply.magic, reply.status), (OBJECT_MAGIC, object_status::BAD_REQUEST));
                    answered += 1;
                }
                // The end of the connection.
                Ok(0) | Err(Errno::ECONNRESET) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(answered >= 30, "{answered}");
    // A request for an object, with a byte too few or too many.
    let segment = std::fs::metadata(channel.segment()).unwrap();
    let request = ObjectRequest {
        magic: OBJECT_MAGIC,
        device: segment.dev(),
        inode: segment.ino(),
        object: 1,
    };
    let bytes = [bytemuck::bytes_of(&request), &[0]].concat();
    for (size, status) in [
        (31, object_status::BAD_REQUEST),
        (32, object_status::OK),
        (33, object_status::BAD_REQUEST),
    ] {
        let socket = try_connect(&channel).unwrap();
        send(socket.as_raw_fd(), &bytes[..size], MsgFlags::empty()).unwrap();
        let mut reply = ObjectReply::default();
        recv(
            socket.as_raw_fd(),
            bytemuck::bytes_of_mut(&mut reply),
            MsgFlags::empty(),
        )
        .unwrap();
        assert_eq!(reply.status, status, "{size} bytes");
    }
    check_writer(&mut writer, &channel, files);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 64 }))]

    /// Requests with nearly right values: each gets an answer, and the object only if all values are right.
    #[test]
    fn every_request_gets_its_answer(
        magic in proptest::prop_oneof![any::<u64>(), proptest::strategy::Just(OBJECT_MAGIC)],
        is_own_segment in any::<bool>(),
        device in any::<u64>(),
        inode in any::<u64>(),
        object in proptest::prop_oneof![any::<u64>(), (0u64..12).prop_map(|id| id)],
    ) {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), 6);
        let pool = Pool::new(&writer, 8);
        assert!(pool.publish(&writer, 1));
        let segment = std::fs::metadata(channel.segment()).unwrap();
        let (device, inode) = if is_own_segment { (segment.dev(), segment.ino()) } else { (device, inode) };
        let request = ObjectRequest { magic, device, inode, object };
        let socket = try_connect(&channel).unwrap();
        send(socket.as_raw_fd(), bytemuck::bytes_of(&request), MsgFlags::empty()).unwrap();
        let mut reply = ObjectReply::default();
        let size = recv(socket.as_raw_fd(), bytemuck::bytes_of_mut(&mut reply), MsgFlags::empty()).unwrap();
        prop_assert!(size == 32 && reply.magic == OBJECT_MAGIC);
        let expected = if magic != OBJECT_MAGIC {
            object_status::BAD_REQUEST
        } else if !is_own_segment {
            object_status::UNKNOWN_SEGMENT
        } else if !(1..=8).contains(&object) {
            object_status::UNKNOWN_OBJECT
        } else {
            object_status::OK
        };
        prop_assert!(reply.status == expected, "{request:?} {reply:?}");
        if expected == object_status::OK {
            prop_assert!((reply.object, reply.size, reply.kind) == (object, SIZE as u64, object_kind::MEMFD));
        }
    }
}

fn reference_to(object: u64, offset: u64, size: u64, kind: u32) -> ObjectReference {
    let mut reference = ObjectReference::default();
    (reference.object, reference.offset) = (object, offset);
    (reference.size, reference.kind) = (size, kind);
    reference
}

/// Writes a table of `count` equal references into each slot, and the size of the frame into its descriptor.
fn write_tables(channel: &Channel, count: u32, reference: &ObjectReference) {
    let (segment, header) = open_segment(channel);
    for slot in 0..4 {
        let table = header.slots_offset + slot * header.slot_size;
        segment.write_all_at(&count.to_ne_bytes(), table).unwrap();
        for index in 0..4 {
            let at = table + 8 + index * 32;
            segment.write_all_at(bytemuck::bytes_of(reference), at).unwrap();
        }
        let record = header.descriptors_offset + slot * u64::from(header.descriptor_stride);
        let total = reference.size.wrapping_mul(u64::from(count));
        segment.write_all_at(&total.to_ne_bytes(), record + 24 + 48).unwrap();
    }
}

/// Writes the inode of a socket into the status of the segment.
pub fn store_inode(channel: &Channel, inode: u64) {
    let (segment, header) = open_segment(channel);
    let at = header.status_offset + offset_of!(Status, socket) as u64;
    segment.write_all_at(&inode.to_ne_bytes(), at).unwrap();
}

/// The segment's file, and its header.
fn open_segment(channel: &Channel) -> (File, Header) {
    let segment = File::options().read(true).write(true).open(channel.segment()).unwrap();
    let mut header = Header::default();
    segment.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).unwrap();
    (segment, header)
}

/// The reader has the object already, so the writer's answer does not show that a part is not inside it.
#[test]
fn parts_of_known_memory_are_checked() {
    let size = SIZE as u64;
    let kind = object_kind::MEMFD;
    for accepts in [false, true] {
        let limits = accepting().accepts_objects(accepts);
        for (offset, size, kind) in [
            (0, size + 1, kind),
            (1, size, kind),
            (size, 1, kind),
            (i64::MAX as u64 - 1, 1, kind),
            (0, size, object_kind::DMABUF),
        ] {
            let channel = Channel::new();
            let writer = object_writer(channel.as_str(), slots(0), 6);
            let pool = Pool::new(&writer, 2);
            let mut reader = channel.reader();
            assert!(pool.publish(&writer, 1));
            drop(next_frame(&mut reader, limits));
            // The next frame is in the other buffer, until the table says that it is in the first one.
            assert!(pool.publish(&writer, 2));
            write_tables(&channel, 1, &reference_to(1, offset, size, kind));
            let next = reader.next(&mut Vec::new(), limits, Some(Duration::from_millis(10)));
            assert!(
                matches!(&next, Ok(Next::Fault(fault)) if fault.to_string().contains("not inside its memory")),
                "{offset} {size} {kind}: {next:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Another process writes any table of references into the slot. The reader misses the frame or delivers bytes that
    /// are inside the memory, and never crashes.
    #[test]
    fn any_table_in_the_slot_is_checked(
        count in proptest::prop_oneof![any::<u32>(), 0u32..6],
        object in proptest::prop_oneof![any::<u64>(), (0u64..4).prop_map(|id| id)],
        kind in 0u32..4,
        offset in proptest::prop_oneof![any::<u64>(), (0u64..2 * SIZE as u64).prop_map(|offset| offset)],
        size in proptest::prop_oneof![any::<u64>(), (0u64..2 * SIZE as u64).prop_map(|size| size)],
        accepts in any::<bool>(),
    ) {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), 6);
        let pool = Pool::new(&writer, 8);
        assert!(pool.publish(&writer, 1));
        write_tables(&channel, count, &reference_to(object, offset, size, kind));
        let mut reader = channel.reader();
        let mut copy = Vec::new();
        let limits = accepting().accepts_objects(accepts);
        let end = offset.checked_add(size);
        let is_valid = (1..=4).contains(&count)
            && (1..=8).contains(&object)
            && kind == object_kind::MEMFD
            && size > 0
            && end.is_some_and(|end| end <= SIZE as u64);
        let (duration, next) = timed(|| reader.next(&mut copy, limits, Some(Duration::from_millis(10))));
        prop_assert!(duration < 3 * SECOND);
        match next {
            Ok(Next::Frame(frame)) => {
                prop_assert!(is_valid, "{:?}", frame.descriptor);
                prop_assert!(frame.descriptor.size == size * u64::from(count));
                for part in frame.objects() {
                    prop_assert!(part.offset() + part.size() <= part.object().size());
                }
            }
            Ok(other) => prop_assert!(!is_valid && matches!(other, Next::TimedOut | Next::Fault(_)), "{other:?}"),
            Err(error) => prop_assert!(matches!(error, rsshm_channel::Error::NoMemory { .. }), "{error}"),
        }
    }
}

/// 300 connections that send nothing, and others that leave without reading their answers.
#[test]
fn silent_peers_are_closed() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.send("files");
    let files: usize = writer.receive().parse().unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(try_connect(&channel).unwrap());
        let leaver = try_connect(&channel).unwrap();
        send(leaver.as_raw_fd(), &[1; 32], MsgFlags::empty()).unwrap();
    }
    writer.send("files");
    let open: usize = writer.receive().parse().unwrap();
    assert!(open <= files + 66, "{open}, {files} before");
    // A reader gets its objects at once although the silent peers are still there.
    let mut reader = channel.reader();
    let (duration, _) = timed(|| eventually("frames in place", || is_object(&next_frame(&mut reader, accepting()))));
    assert!(duration < SECOND, "{duration:?}");
    // Each of them is closed after a second.
    eventually("the writer has closed its connections", || {
        writer.send("files");
        writer.receive().parse::<usize>().unwrap() <= files
    });
    let ends = silent.iter().filter(|socket| {
        matches!(
            recv(socket.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT),
            Ok(0) | Err(Errno::ECONNRESET)
        )
    });
    assert_eq!(ends.count(), 300);
}

/// While peers connect all the time, a reader still gets its objects, and the writer's thread uses little of a processor.
#[test]
fn flood_of_connections_holds_no_reader() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    let is_over = AtomicBool::new(false);
    let count = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                // Relaxed: the flag and the count carry no other data.
                while !is_over.load(Ordering::Relaxed) {
                    let _ = try_connect(&channel);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let mut reader = channel.reader();
            let (duration, _) =
                timed(|| eventually("frames in place", || is_object(&next_frame(&mut reader, accepting()))));
            assert!(duration < 5 * SECOND, "{duration:?}");
        }
    });
    assert!(count.load(Ordering::Relaxed) > 10);
    check_writer(&mut writer, &channel, 200);
}

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

/// Limits the number of files of this process.
fn limit_files(most: u64) {
    limit(Resource::RLIMIT_NOFILE, most);
}

/// Opens files until no more can be opened.
fn take_all_files() -> Vec<File> {
    limit_files(open_files("self") as u64 + 20);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// A writer that can open no more files publishes on with its objects. It answers readers when it has files again.
fn writer_without_files(channel: &str) {
    let writer = object_writer(channel, slots(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    for value in 1..=20 {
        assert!(pool.publish(&writer, value));
    }
    say("published");
    listen_line();
    let taken = take_all_files();
    let error = writer
        .objects()
        .register(std::os::fd::AsFd::as_fd(&taken[0]))
        .unwrap_err();
    assert!(error.to_string().contains("EMFILE"), "{error}");
    say("exhausted");
    let began = std::time::Instant::now();
    let cpu = crate::support::cpu_time();
    for value in 21.. {
        assert!(pool.publish(&writer, value));
        std::thread::sleep(Duration::from_millis(2));
        if began.elapsed() > 2 * SECOND {
            break;
        }
    }
    let cpu = crate::support::cpu_time() - cpu;
    assert!(cpu < SECOND, "the writer was busy: {cpu:?}");
    drop(taken);
    limit_files(1024);
    say("has files");
    for value in 1.. {
        assert!(pool.publish(&writer, value));
        std::thread::sleep(Duration::from_millis(2));
        if began.elapsed() > 10 * SECOND {
            break;
        }
    }
    drop(service);
}

#[test]
fn writer_without_files_answers_later() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer without files", &[channel.as_str()]);
    writer.expect("published");
    writer.send("go on");
    writer.expect("exhausted");
    let mut reader = channel.reader();
    // The writer cannot accept the connection, so the reader misses frames. It is not stuck.
    for _ in 0..2 {
        let (duration, next) = timed(|| reader.next(&mut Vec::new(), accepting(), Some(SECOND)).unwrap());
        assert!(duration < 4 * SECOND, "{duration:?}");
        assert!(!matches!(next, Next::Lost), "{next:?}");
        if let Next::Frame(_) = next {
            break;
        }
    }
    writer.expect("has files");
    eventually(
        "frames in place",
        || matches!(reader.next(&mut Vec::new(), accepting(), Some(SECOND)).unwrap(), Next::Frame(frame) if is_object(&frame)),
    );
}

/// A reader that can open no more files misses frames and says why. It goes on when it has files again.
fn reader_without_files(channel: &str) {
    let mut reader = crate::support::open_reader(channel, rsshm_channel::ReaderOptions::default());
    let mut copy = Vec::new();
    // It attaches, and needs no object yet.
    let attached = reader.next(&mut copy, accepting(), Some(Duration::ZERO)).unwrap();
    drop(attached);
    let taken = take_all_files();
    let mut faults = 0;
    for _ in 0..200 {
        match reader
            .next(&mut copy, accepting(), Some(Duration::from_millis(50)))
            .unwrap()
        {
            Next::Frame(frame) => check_objects(&frame, &copy),
            Next::Fault(fault) => {
                assert!(fault.to_string().contains("ulimit"), "{fault}");
                faults += 1;
            }
            Next::TimedOut => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(faults > 0);
    drop(taken);
    limit_files(1024);
    for _ in 0..2 {
        // With one free file, the connection can be made, but the descriptor cannot come.
        let files = open_files("self") as u64;
        limit_files(files);
        let _ = reader
            .next(&mut copy, accepting(), Some(Duration::from_millis(20)))
            .unwrap();
        limit_files(1024);
    }
    let files = open_files("self");
    eventually(
        "frames in place",
        || matches!(reader.next(&mut copy, accepting(), Some(SECOND)).unwrap(), Next::Frame(frame) if is_object(&frame)),
    );
    for _ in 0..50 {
        reader.next(&mut copy, accepting(), Some(SECOND)).unwrap();
    }
    assert!(open_files("self") <= files + 8);
    say("goes on");
}

#[test]
fn reader_without_files_says_so_and_goes_on() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    let mut reader = role::start("objects/hostile/reader without files", &[channel.as_str()]);
    reader.expect("goes on");
    reader.wait_ok();
    writer.send("end");
    writer.wait_ok();
}
