// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fuzz target of frames of objects: what comes over the socket to a reader and to a writer, and the table of
//! references in a slot.

use std::{
    fs::File,
    io::IoSlice,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
        stat::fstat,
    },
    unistd::pipe,
};

use super::{CAPS, SLOT_COUNT, changes, name, unnamed_file};
use crate::{
    Caps, ChannelName, FrameData, FrameDescriptor, Next, Object, ObjectFrame, ObjectPart, ReadLimits, Reader, Writer,
    WriterOptions,
    protocol::{
        layout::{
            DESCRIPTOR_STRIDE, Header, OBJECT_MAGIC, ObjectReference, ObjectReply, ObjectRequest, ReferenceTable,
            Status, flags, object_kind, object_status,
        },
        run::RunPosition,
    },
    reader::{attachment::Attachment, object_fetch},
    segment::{Access, Segment},
    sys::{files, socket},
};

/// The size of most objects: three pages and a bit.
const OBJECT_SIZE: u64 = 3 * 4096 + 100;
/// How long the writer waits for a request. Then it closes the connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer of the writer's thread may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most descriptors that one message can carry (SCM_MAX_FD of the kernel).
const MAX_DESCRIPTORS: usize = 253;

/// A memfd whose bytes are known.
fn memfd(size: u64) -> Option<OwnedFd> {
    let file = File::from(memfd_create("rsshm-fuzz", MFdFlags::MFD_CLOEXEC).ok()?);
    file.write_all_at(&(0..size).map(|at| at as u8).collect::<Vec<_>>(), 0)
        .ok()?;
    Some(file.into())
}

/// The files that a peer sends. The first one is the memory of an object.
static FILES: LazyLock<Vec<OwnedFd>> = LazyLock::new(|| {
    let memory = [memfd(OBJECT_SIZE), memfd(100), memfd(0)].into_iter().flatten();
    let others = ["/dev/null", "/dev/zero", "/proc/self/exe", "/"];
    let others = others
        .into_iter()
        .filter_map(|path| File::open(path).ok().map(OwnedFd::from));
    memory.chain(others).chain(pipe().ok().map(|(end, _)| end)).collect()
});

/// The descriptor that the next file gets. It is the same again when all files that were opened meanwhile are closed.
fn next_descriptor() -> Option<RawFd> {
    FILES.first()?.try_clone().ok().map(|file| file.as_raw_fd())
}

/// Checks that all files are closed that were opened since [`next_descriptor`] returned `before`. The writer's thread
/// may close a connection a moment later, also one of an earlier call.
fn wait_closed(before: Option<RawFd>) {
    let began = Instant::now();
    while next_descriptor() > before {
        assert!(began.elapsed() < PATIENCE, "a descriptor is left open");
        std::thread::yield_now();
    }
}

/// A message that a peer could send instead of `valid`. The first three bytes of `data` select its size, how many files
/// come with it, and which; the rest encodes changes of the bytes.
fn message(valid: &[u8; 32], data: &[u8]) -> (Vec<u8>, Vec<RawFd>) {
    let (selection, rest) = data.split_at(data.len().min(3));
    let selected = |index| selection.get(index).copied().map_or(0, usize::from);
    let mut bytes = valid.to_vec();
    for (at, value) in changes(rest, 0, 32) {
        bytes[at as usize..][..8].copy_from_slice(&value);
    }
    if selected(0) < 64 {
        bytes.resize(selected(0), 0x5a);
    }
    let count = match selected(1) % 8 {
        7 => MAX_DESCRIPTORS,
        count => count,
    };
    let files = FILES.iter().cycle().skip(selected(2) % FILES.len().max(1));
    (bytes, files.take(count).map(AsRawFd::as_raw_fd).collect())
}

fn send(connection: &OwnedFd, bytes: &[u8], files: &[RawFd]) -> bool {
    let rights = [ControlMessage::ScmRights(files)];
    let messages = if files.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(bytes)], messages, flags, None).is_ok()
}

/// The first byte of `data` selects who is fuzzed: a reader that gets an answer, a writer that gets a request, or a
/// reader that finds references in a slot.
pub fn objects(data: &[u8]) {
    let Some((kind, data)) = data.split_first().filter(|_| !FILES.is_empty()) else {
        return;
    };
    match kind % 3 {
        0 => answer(data),
        1 => request(data),
        _ => references(kind / 3, data),
    }
}

/// A reader gets any answer from the socket. It takes a file only if the answer is right, and closes all others.
fn answer(data: &[u8]) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok((here, there)) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags) else {
        return;
    };
    let reference = ObjectReference::new(7, object_kind::MEMFD, 4096, 8192);
    let valid = ObjectReply {
        magic: OBJECT_MAGIC,
        object: 7,
        size: OBJECT_SIZE,
        kind: object_kind::MEMFD,
        status: object_status::OK,
    };
    let (bytes, files) = message(&bytemuck::must_cast(valid), data);
    let before = next_descriptor();
    if !send(&there, &bytes, &files) {
        return;
    }
    if let Some(object) = object_fetch::receive_for_fuzzing(&here, &reference) {
        let reply: ObjectReply = bytemuck::pod_read_unaligned(&bytes);
        assert!((reply.magic, reply.object, reply.status) == (OBJECT_MAGIC, 7, object_status::OK));
        assert!(files == [FILES[0].as_raw_fd()] && object.kind() as u32 == reply.kind);
        assert!(object.size() == OBJECT_SIZE && reply.size <= OBJECT_SIZE);
    }
    wait_closed(before);
}

/// A writer with an object, which answers requests.
struct ObjectWriter {
    writer: Writer,
    object: Object,
    segment: files::FileId,
}

/// The writer gets any request over its socket. It sends the file of its object only if the request is right.
fn request(data: &[u8]) {
    static WRITER: LazyLock<Option<ObjectWriter>> = LazyLock::new(|| {
        let name = ChannelName::new(format!("rsshm-fuzz-objects-{}", std::process::id())).ok()?;
        let writer = Writer::open(name, WriterOptions::default()).ok()?;
        writer.set_caps(Caps::objects(CAPS)).ok()?;
        let object = writer.objects().register(FILES.first()?.as_fd()).ok()?;
        let part = ObjectPart::new(&object, 0, OBJECT_SIZE);
        let descriptor = FrameDescriptor::new(OBJECT_SIZE);
        writer
            .objects()
            .publish(&[part], descriptor, &[], Box::new(()))
            .ok()??;
        let segment = files::file_id_of(&writer.name().segment_path())?;
        Some(ObjectWriter {
            writer,
            object,
            segment,
        })
    });
    let Some(ObjectWriter {
        writer,
        object,
        segment,
    }) = &*WRITER
    else {
        return;
    };
    let valid = ObjectRequest {
        magic: OBJECT_MAGIC,
        device: segment.device,
        inode: segment.inode,
        object: object.id(),
    };
    let (bytes, files) = message(&bytemuck::must_cast(valid), data);
    let before = next_descriptor();
    let began = Instant::now();
    let Ok(Some(connection)) = socket::connect_to(&writer.name().socket_path(), |_| true) else {
        return;
    };
    if send(&connection, &bytes, &files) {
        check_answer(&connection, &bytes, &valid, began);
    }
    drop(connection);
    wait_closed(before);
}

/// Receives the answer to a request, and checks that it is the right one.
fn check_answer(connection: &OwnedFd, request: &[u8], valid: &ObjectRequest, began: Instant) {
    let mut reply = ObjectReply::default();
    let deadline = Instant::now() + PATIENCE;
    let received = loop {
        match socket::receive(connection, bytemuck::bytes_of_mut(&mut reply)) {
            Ok(Some(received)) => break received,
            Ok(None) => assert!(socket::wait_for(connection, PATIENCE, deadline), "no answer"),
            // The writer has closed the connection before it has read the whole message.
            Err(_) => return,
        }
    };
    if received.size == 0 {
        // The end of the connection: the request was empty, or this process was stopped before it has sent the request.
        assert!(request.is_empty() || began.elapsed() >= REQUEST_TIMEOUT);
        return;
    }
    let request: Option<ObjectRequest> = bytemuck::try_pod_read_unaligned(request).ok();
    let request = request.filter(|request| request.magic == OBJECT_MAGIC);
    let expected = match request {
        None => object_status::BAD_REQUEST,
        Some(request) if (request.device, request.inode) != (valid.device, valid.inode) => {
            object_status::UNKNOWN_SEGMENT
        }
        Some(request) if request.object != valid.object => object_status::UNKNOWN_OBJECT,
        Some(_) => object_status::OK,
    };
    assert!(received.size == size_of::<ObjectReply>() && reply.magic == OBJECT_MAGIC);
    assert_eq!(reply.status, expected);
    assert_eq!(received.descriptors.len(), usize::from(expected == object_status::OK));
}

/// The number of bytes of a slot that change: its record, and the table of references.
const RECORD_SIZE: u64 = 256;
const CHANGED_SIZE: u64 = RECORD_SIZE + size_of::<ReferenceTable>() as u64;

/// A segment with a frame of objects in each slot but the last. It is in a file without a name.
fn valid_segment() -> Option<(File, Header)> {
    let file = unnamed_file()?;
    let mut header = Header::new(CAPS.len(), SLOT_COUNT, size_of::<ReferenceTable>() as u64, true)?;
    header.first_seq = 1;
    header.flags = flags::OBJECTS;
    file.set_len(header.total_size()?).ok()?;
    file.write_all_at(bytemuck::bytes_of(&header), 0).ok()?;
    file.write_all_at(CAPS.as_bytes(), header.caps_offset).ok()?;
    let stat = fstat(&file).ok()?;
    let segment = Segment::open(&name()?, file.as_fd().try_clone_to_owned().ok()?, &stat, Access::Write).ok()?;
    let whole = ObjectReference::new(1, object_kind::MEMFD, 0, OBJECT_SIZE);
    let first = ObjectReference::new(1, object_kind::MEMFD, 10, 4096);
    let next = ObjectReference::new(1, object_kind::MEMFD, 4106, 100);
    let other = ObjectReference::new(2, object_kind::MEMFD, 1, 99);
    for (slot, parts) in [&[whole][..], &[first, next], &[other, whole, first, next]]
        .into_iter()
        .enumerate()
    {
        let seq = slot as u64 + 1;
        let table = ReferenceTable::new(parts)?;
        let at = header.slots_offset + slot as u64 * header.slot_size;
        file.write_all_at(bytemuck::bytes_of(&table), at).ok()?;
        let mut descriptor = FrameDescriptor::new(parts.iter().map(|part| part.size).sum());
        descriptor.keyframe = 1;
        segment.write_descriptor(slot, &descriptor);
        // Relaxed, here and below: nobody else uses the segment.
        let record = segment.slot_record(slot);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        record.tail.store(RunPosition::FIRST.to_word(), relaxed);
        record.keyframe.store(RunPosition::FIRST.to_word(), relaxed);
        record.seq.store(seq, relaxed);
        segment.tables.ring(seq).store(seq << 8 | slot as u64, relaxed);
        segment.tables.status().run_head.store(seq, relaxed);
        segment.tables.status().head.store(seq, relaxed);
    }
    Some((file, header))
}

/// A reader takes frames whose records and tables of references change. It knows two objects, and gets no others.
fn references(kind: u8, data: &[u8]) {
    let (Some((file, header)), Some(name)) = (valid_segment(), name()) else {
        return;
    };
    let has_entry = kind & 1 == 1;
    let access = if has_entry { Access::Attach } else { Access::Observe };
    let opened = || {
        let stat = fstat(&file).ok()?;
        let segment = Segment::open(&name, file.as_fd().try_clone_to_owned().ok()?, &stat, access).ok()?;
        let attachment = Attachment::for_fuzzing(segment, has_entry)?;
        for (id, file) in FILES.iter().take(2).enumerate() {
            attachment.keep_for_fuzzing(id as u64 + 1, file.try_clone().ok()?)?;
        }
        Some(attachment)
    };
    let Some(attachment) = opened() else {
        return;
    };
    let quota = header.status_offset + std::mem::offset_of!(Status, quota) as u64;
    let _ = file.write_all_at(&4u32.to_ne_bytes(), quota);
    let mut reader = Reader::for_fuzzing(name.clone(), attachment);
    // All frames are wanted, not only the newest.
    let limits = ReadLimits::default()
        .accepts_objects(kind & 2 == 2)
        .needs_one_range(kind & 4 == 4)
        .max_held(u32::from(kind >> 3 & 3));
    let (mut copy, mut held) = (Vec::new(), Vec::new());
    let mut parts = data.chunks(data.len().div_ceil(4).max(6));
    for _ in 0..8 {
        let part = parts.next().unwrap_or_default();
        for (at, value) in changes(part, 0, u64::from(SLOT_COUNT) * CHANGED_SIZE) {
            let (slot, at) = (at / CHANGED_SIZE, at % CHANGED_SIZE);
            let offset = match at.checked_sub(RECORD_SIZE) {
                None => header.descriptors_offset + slot * DESCRIPTOR_STRIDE as u64 + at,
                Some(at) => header.slots_offset + slot * header.slot_size + at,
            };
            let _ = file.write_all_at(&value, offset);
        }
        let Ok(Next::Frame(frame)) = reader.next(&mut copy, limits, Some(Duration::ZERO)) else {
            continue;
        };
        assert!(frame.descriptor.size <= 4 * OBJECT_SIZE);
        match &frame.data {
            FrameData::Objects(objects) => check_frame(objects, frame.descriptor.size),
            _ => assert!(copy.len() as u64 == frame.descriptor.size),
        }
        held.push(frame);
    }
}

/// Checks that all ways to the bytes of a frame lead to the bytes of its objects.
fn check_frame(frame: &ObjectFrame, size: u64) {
    let mut all = Vec::new();
    for (index, part) in frame.parts().iter().enumerate() {
        let bytes = match frame.map(index) {
            Ok(bytes) => bytes,
            Err(error) => panic!("{error}: part {index} of {frame:?}"),
        };
        let expected = (part.offset()..part.offset() + part.size()).map(|at| at as u8);
        assert!(bytes.iter().copied().eq(expected));
        all.extend_from_slice(bytes);
    }
    assert!(all.len() as u64 == size);
    let mut copied = vec![0; all.len()];
    frame.copy(&mut copied).expect("the memory can be read");
    assert!(copied == all);
    let whole = frame.bytes().expect("the memory can be mapped");
    assert!(whole.is_none_or(|whole| whole == all));
}
