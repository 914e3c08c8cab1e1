// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of frames of objects: their bytes stay in memfds, whose descriptors readers get once.

pub mod containers;
pub mod deaths;
pub mod hostile;
pub mod lossless;
pub mod pool;
mod superseded;

use std::{
    collections::BTreeSet,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileExt, MetadataExt, PermissionsExt},
    },
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc};
use rsshm_channel::{
    Caps, ChannelName, Error, Frame, FrameData, Leftover, Next, ObjectFault, ObjectKind, ObjectPart, Observer,
    ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
};
use rsshm_testkit::{
    Channel, eventually,
    frames::is_filled,
    need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen, say},
    timed,
};

use self::pool::{Pool, assert_out, mappings, memfd, name_of, object_writer, open_files};
use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, bytes, check_bytes, descriptor, lossless, next_within, open_reader, poll,
    publish, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/reader", |arguments| reader(arguments[0])),
    ("objects/greedy", |arguments| greedy(arguments[0])),
    ("objects/reader as nobody", |arguments| reader_as_nobody(arguments[0])),
    ("objects/writer", |arguments| writer(arguments[0])),
    ("objects/measured writer", |arguments| measured_writer(arguments[0])),
    ("objects/reader of new memory", |arguments| {
        reader_of_new_memory(arguments[0])
    }),
    ("objects/writer of new memory", |arguments| {
        writer_of_new_memory(arguments[0])
    }),
];

/// Caps of frames of the same size as those with [`CAPS`].
const OTHER_CAPS: &str = "video/x-raw,format=GRAY8,width=256,height=64,framerate=30/1";

/// The limits of a reader that accepts objects.
pub fn accepting() -> ReadLimits {
    ReadLimits::default().accepts_objects(true)
}

/// The next frame, in place or copied. Each of its bytes has been checked.
#[track_caller]
pub fn next_frame(reader: &mut Reader, limits: ReadLimits) -> Frame {
    let mut copy = Vec::new();
    let frame = next_within(reader, &mut copy, limits);
    check_objects(&frame, &copy);
    frame
}

/// Checks each byte of a frame that [`Pool::publish`] has published.
#[track_caller]
pub fn check_objects(frame: &Frame, copy: &[u8]) {
    let value = frame.descriptor.offset as u8;
    match &frame.data {
        FrameData::Objects(objects) => {
            assert_eq!(objects.parts().len(), 1);
            let mapped = objects.map(0).unwrap();
            assert_eq!(mapped.len(), SIZE);
            assert!(is_filled(mapped, value), "frame {}", frame.seq);
        }
        FrameData::Copied => check_bytes(frame, copy),
        other => panic!("{other:?}"),
    }
}

fn is_object(frame: &Frame) -> bool {
    matches!(frame.data, FrameData::Objects(_))
}

/// Publishes frames with values from `from` on until the reader gets one in place, and returns it.
#[track_caller]
fn next_in_place(pool: &Pool, writer: &Writer, reader: &mut Reader, from: u64) -> Frame {
    for value in from.. {
        assert!(pool.publish(writer, value), "the camera has no buffer");
        let frame = next_frame(reader, accepting());
        if is_object(&frame) {
            return frame;
        }
        assert!(value < from + 1000, "no frame in place");
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable!()
}

/// Takes frames until the writer is gone. Then it says how many came in place, how many were copied and missed, how many
/// different objects and descriptors it saw, and how many files and mappings it has more than after the tenth frame.
fn reader(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    let (mut in_place, mut copied) = (0, 0);
    let (mut ids, mut descriptors) = (BTreeSet::new(), BTreeSet::new());
    let mut after_ten = (0, 0);
    say("ready");
    loop {
        match reader.next(&mut copy, accepting(), Some(5 * SECOND)).unwrap() {
            Next::Frame(frame) => {
                check_objects(&frame, &copy);
                in_place += u32::from(is_object(&frame));
                copied += u32::from(!is_object(&frame));
                ids.extend(frame.objects().iter().map(|part| part.object().id()));
                descriptors.extend(frame.objects().iter().map(|part| part.object().as_raw_fd()));
                if in_place + copied == 10 {
                    after_ten = (open_files("self"), mappings("self"));
                }
            }
            // The writer has removed its socket, and is about to close the channel.
            Next::Fault(ObjectFault::NoSocket) => {}
            Next::Lost => break,
            other => panic!("{other:?}"),
        }
    }
    say(format!(
        "{in_place} {copied} {} {} {}",
        reader.stats().missed,
        ids.len(),
        descriptors.len()
    ));
    say(format!("{after_ten:?} {:?}", (open_files("self"), mappings("self"))));
}

/// Holds every frame that it gets in place, and never lets one go before the test sends a line.
fn greedy(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut held = Vec::new();
    let mut copy = Vec::new();
    say("ready");
    let limits = accepting().max_held(64);
    let began = Instant::now();
    while began.elapsed() < SECOND {
        match reader.next(&mut copy, limits, Some(Duration::from_millis(50))).unwrap() {
            Next::Frame(frame) if is_object(&frame) => held.push(frame),
            _ => {}
        }
    }
    say(held.len());
    for frame in &held {
        check_objects(frame, &[]);
    }
    say("checked");
    listen();
    for frame in &held {
        check_objects(frame, &[]);
    }
    drop(held);
    say("released");
    listen();
}

/// Publishes frames of objects until the test ends the process.
fn writer(channel: &str) {
    let writer = object_writer(channel, slots(16), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    let mut value = 0;
    loop {
        value += 1;
        assert!(pool.publish(&writer, value), "the camera has no buffer");
        std::thread::sleep(Duration::from_millis(2));
        if value == 1 {
            say("published");
        }
        if value == u64::MAX {
            break;
        }
    }
    drop(service);
}

/// Publishes 500 frames for one reader, and checks that it opens no more files.
fn measured_writer(channel: &str) {
    // The writer is lossless, so the reader need not be fast on a busy machine.
    let writer = object_writer(channel, lossless(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    assert!(pool.publish(&writer, 1));
    say("published");
    eventually("a reader", || service.seen().reader_count == 1);
    let files_before = open_files("self");
    for value in 2..=500 {
        assert!(pool.publish(&writer, value), "the camera has no buffer for {value}");
        assert_out(&writer, 6);
    }
    // A connection may be open at this moment.
    eventually("no file is left open", || open_files("self") <= files_before);
    drop(service);
    writer.close();
    say("closed");
}

#[test]
fn frames_stay_in_memfds_byte_for_byte() {
    let channel = Channel::new();
    let mut writer = role::start("objects/measured writer", &[channel.as_str()]);
    writer.expect("published");
    let mut process = role::start("objects/reader", &[channel.as_str()]);
    process.expect("ready");
    writer.expect("closed");
    writer.wait_ok();
    let counts = process.receive();
    let [in_place, copied, missed, ids, descriptors] = counts
        .split(' ')
        .map(|count| count.parse::<u32>().unwrap())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{counts}");
    };
    // A loaded machine may let the writer's short wait for held frames end too early.
    assert!(in_place > 450 && copied < 50, "{counts}");
    assert_eq!(missed, 0, "{counts}");
    assert!(
        ids <= 8 && descriptors == ids,
        "each object has one descriptor: {counts}"
    );
    let files = process.receive();
    let (before, after) = files.split_once(") (").unwrap();
    let counts = |text: &str| -> Vec<usize> {
        text.trim_matches(['(', ')'])
            .split(", ")
            .map(|count| count.parse().unwrap())
            .collect()
    };
    let (before, after) = (counts(before), counts(after));
    assert!(after[0] <= before[0] + 8 && after[1] <= 8, "{files}");
    process.wait_ok();
    channel.assert_removed();
}

#[test]
fn parts_of_a_frame_come_in_order_with_offsets() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let files = [memfd(10_000), memfd(20_000)];
    for (index, file) in files.iter().enumerate() {
        let bytes: Vec<u8> = (0..20_000).map(|at: usize| (at * 7 + index * 31) as u8).collect();
        let size = file.metadata().unwrap().len() as usize;
        file.write_all_at(&bytes[..size], 0).unwrap();
    }
    let objects: Vec<_> = files
        .iter()
        .map(|file| writer.objects().register(file.as_fd()).unwrap())
        .collect();
    let again = writer
        .objects()
        .register(files[0].try_clone().unwrap().as_fd())
        .unwrap();
    assert_eq!(again.id(), objects[0].id(), "the same memory is the same object");
    assert_eq!((objects[1].size(), objects[1].kind()), (20_000, ObjectKind::Memfd));
    let parts = [
        ObjectPart::new(&objects[0], 0, 1000),
        ObjectPart::new(&objects[1], 4096, 5000),
        ObjectPart::new(&objects[0], 9999, 1),
        ObjectPart::new(&objects[1], 0, 20_000),
    ];
    let planes = [(0, 100), (1000, 50)];
    let mut expected = Vec::new();
    for part in &parts {
        let index = usize::from(part.object.id() == objects[1].id());
        let mut bytes = vec![0; part.size as usize];
        files[index].read_exact_at(&mut bytes, part.offset).unwrap();
        expected.extend(bytes);
    }
    let mut reader = channel.reader();
    for _ in 0..2 {
        let described = descriptor(0, 7).with_planes(&planes);
        let seq = writer
            .objects()
            .publish(&parts, described, b"meta", Box::new(()))
            .unwrap()
            .unwrap();
        let frame = next_within(&mut reader, &mut Vec::new(), accepting());
        assert_eq!((frame.seq, &frame.metadata[..]), (seq, &b"meta"[..]));
        assert_eq!((frame.descriptor.size, frame.descriptor.planes), (26_001, 2));
        let FrameData::Objects(objects) = &frame.data else {
            panic!("{frame:?}");
        };
        let mut mapped = Vec::new();
        for index in 0..4 {
            mapped.extend_from_slice(objects.map(index).unwrap());
        }
        assert!(mapped == expected);
        let mut copied = vec![0; 26_001];
        objects.copy(&mut copied).unwrap();
        assert!(copied == expected);
        assert!(objects.copy(&mut copied[1..]).is_err() && objects.map(4).is_err());
        let part = &frame.objects()[1];
        assert_eq!((part.offset(), part.size(), part.object().size()), (4096, 5000, 20_000));
        assert!(name_of(part.object()).contains("memfd:rsshm-test"));
        assert_eq!(frame.objects()[1].object(), frame.objects()[3].object());
    }
}

#[test]
fn reader_without_objects_gets_copies() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 8);
    assert!(pool.publish(&writer, 1));
    let (mut reader, mut observer) = (channel.reader(), channel.observer());
    for value in 2..50 {
        for reader in [&mut reader, &mut observer] {
            let frame = next_frame(reader, ReadLimits::default());
            assert!(matches!(frame.data, FrameData::Copied));
            assert_eq!(frame.descriptor.offset, value - 1);
        }
        assert!(pool.publish(&writer, value));
    }
    // An observer never gets objects, because it has no pin.
    assert!(!is_object(&next_frame(&mut observer, accepting())));
    let look = Observer::open(&channel).unwrap().unwrap();
    let mut copy = Vec::new();
    let (_, descriptor) = look.newest(&mut copy).unwrap();
    assert!(descriptor.size as usize == SIZE && is_filled(&copy, 49));
}

#[test]
fn camera_gets_unread_buffers_back_at_once() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 3);
    for value in 1..=300 {
        assert!(pool.publish(&writer, value));
        assert_eq!((pool.free(), writer.objects().frames_out()), (2, 1));
    }
}

#[test]
fn released_buffer_goes_back_without_another_frame() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 8);
    let service = Service::of(&writer);
    let mut reader = channel.reader();
    let held = next_in_place(&pool, &writer, &mut reader, 1);
    assert!(pool.publish(&writer, 100));
    drop(next_frame(&mut reader, accepting()));
    assert!(pool.publish(&writer, 101));
    drop(next_frame(&mut reader, accepting()));
    eventually("the held frame and the newest are out", || pool.free() == 6);
    check_objects(&held, &[]);
    drop(held);
    eventually("only the newest is out", || pool.free() == 7);
    drop(service);
}

/// Readers that hold all that they can get do not take the camera's last buffers. Another reader goes on.
#[test]
fn greedy_readers_leave_the_camera_its_buffers() {
    for spare in 2..=7 {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), spare);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, spare as usize + 1);
        let mut other = channel.reader();
        let mut value = 0;
        let mut publish_and_take = || {
            value += 1;
            assert!(
                pool.publish(&writer, value),
                "no buffer for {value}, with {spare} to spare"
            );
            assert_out(&writer, spare);
            let frame = next_frame(&mut other, accepting());
            assert_eq!(frame.descriptor.offset, value, "the other reader misses nothing");
            is_object(&frame)
        };
        publish_and_take();
        // They begin one after another, so that they hold different frames.
        let mut greedy = Vec::new();
        let mut held = 0;
        for _ in 0..3 {
            let mut reader = role::start("objects/greedy", &[channel.as_str()]);
            reader.expect("ready");
            held += loop {
                publish_and_take();
                if let Some(line) = reader.try_receive() {
                    break line.parse::<u32>().unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            reader.expect("checked");
            greedy.push(reader);
        }
        assert!(held < spare, "they hold {held} of {spare}");
        assert!(held > 0 || spare < 3, "nothing was in place, with {spare} to spare");
        for _ in 0..50 {
            publish_and_take();
        }
        // One is killed, the others release their frames.
        greedy[0].kill();
        for reader in &mut greedy[1..] {
            reader.send("release");
            reader.expect("released");
        }
        eventually("the buffers are back", || {
            publish_and_take();
            writer.objects().frames_out() <= 2
        });
        if spare >= 3 {
            eventually("frames in place", publish_and_take);
        }
        drop(service);
    }
}

#[test]
fn caps_change_between_slots_and_objects() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 4);
    let mut reader = channel.reader();
    let mut value = 0;
    for round in 0..4 {
        writer.set_caps(Caps::objects(CAPS)).unwrap();
        let error = writer.claim(SIZE).unwrap_err();
        assert!(
            matches!(&error, Error::Option { .. }) && error.to_string().contains("objects"),
            "{error}"
        );
        let error = writer.upstream().claim(SIZE).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        for _ in 0..3 {
            value += 1;
            assert!(pool.publish(&writer, value));
            let frame = next_frame(&mut reader, accepting());
            assert_eq!((frame.descriptor.offset, reader.caps()), (value, CAPS));
        }
        assert_eq!(pool.free(), 3, "round {round}");
        writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
        let error = pool.try_publish(&writer, 1).unwrap_err();
        assert!(
            matches!(&error, Error::Option { .. }) && error.to_string().contains("Caps::objects"),
            "{error}"
        );
        for _ in 0..3 {
            value += 1;
            assert!(publish(&writer, value));
            let mut copy = Vec::new();
            let frame = next_within(&mut reader, &mut copy, accepting());
            assert_eq!(frame.descriptor.offset, value);
            check_bytes(&frame, bytes(&frame, &copy));
        }
        // The buffers of the superseded segment are back although no service runs.
        assert_eq!(pool.free(), 4, "round {round}");
    }
}

#[test]
fn lossless_writer_of_objects_loses_nothing() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), lossless(0), 3);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 4);
    let mut reader = channel.reader();
    assert!(pool.publish(&writer, 1));
    assert_eq!(next_frame(&mut reader, accepting()).seq, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 2..=500 {
                assert!(pool.publish(&writer, value), "no buffer");
                assert_out(&writer, 3);
            }
        });
        for seq in 2..=500 {
            let frame = next_frame(&mut reader, accepting());
            assert_eq!((frame.seq, frame.missed), (seq, 0));
            if seq % 100 == 0 {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    });
    drop(service);
}

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

#[test]
fn files_of_other_kinds_cannot_be_objects() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let refused = |file: std::fs::File| {
        let error = writer.objects().register(file.as_fd()).unwrap_err();
        assert!(matches!(error, Error::Object { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(std::fs::File::open("/dev/null").unwrap()).contains("copy the frame"));
    assert!(refused(std::fs::File::open("/proc/self/exe").unwrap()).contains("memfd"));
    assert!(refused(memfd(0)).contains("no bytes"));
    let file = memfd(SIZE);
    let object = writer.objects().register(file.as_fd()).unwrap();
    let size = SIZE as u64;
    for parts in [
        &[][..],
        &[ObjectPart::new(&object, 0, 0)],
        &[ObjectPart::new(&object, 1, size)],
        &[ObjectPart::new(&object, u64::MAX, 2)],
        &[ObjectPart::new(&object, 2, u64::MAX)],
        &[ObjectPart::new(&object, 0, 1); 5],
    ] {
        let error = writer
            .objects()
            .publish(parts, descriptor(0, 1), &[], Box::new(()))
            .unwrap_err();
        assert!(matches!(error, Error::Object { .. }), "{error}");
    }
    let other = Channel::new();
    let other = object_writer(other.as_str(), slots(0), 6);
    let of_other = other.objects().register(file.as_fd()).unwrap();
    assert!(other.objects().owns(&of_other) && !writer.objects().owns(&of_other));
    let parts = [ObjectPart::new(&of_other, 0, 1)];
    let error = writer
        .objects()
        .publish(&parts, descriptor(0, 1), &[], Box::new(()))
        .unwrap_err();
    assert!(error.to_string().contains("another writer"), "{error}");
    assert_eq!(writer.objects().frames_out(), 0);
}

/// Publishes frames in new memory, and checks that the writer closes it when nobody uses it any more.
fn writer_of_new_memory(channel: &str) {
    let writer = object_writer(channel, slots(0), 6);
    let files_before = open_files("self");
    // A source that makes new memory for each frame.
    for value in 1..=600 {
        let pool = Pool::new(&writer, 1);
        assert!(pool.publish(&writer, value));
    }
    assert!(writer.objects().count() <= 256, "{}", writer.objects().count());
    let began = Instant::now();
    while writer.objects().count() > 1 {
        assert!(
            began.elapsed() < 20 * SECOND,
            "{} objects are left",
            writer.objects().count()
        );
        writer.service().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    // The newest frame keeps its object. The segment, its lock file and the socket are open too.
    assert!(open_files("self") <= files_before + 6);
    say("forgotten");
}

#[test]
fn unused_objects_are_forgotten() {
    let channel = Channel::new();
    let mut writer = role::start("objects/writer of new memory", &[channel.as_str()]);
    writer.expect("forgotten");
    writer.wait_ok();
}

/// Takes frames, and says after the last one how many files this process has opened.
fn reader_of_new_memory(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let files_before = open_files("self");
    next_frame(&mut reader, accepting());
    say("ready");
    for _ in 2..=400 {
        next_frame(&mut reader, accepting());
        say("taken");
    }
    say(open_files("self") - files_before);
    listen();
}

#[test]
fn reader_forgets_memory_that_is_not_used_any_more() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    assert!(Pool::new(&writer, 1).publish(&writer, 1));
    let mut reader = role::start("objects/reader of new memory", &[channel.as_str()]);
    reader.expect("ready");
    for value in 2..=400 {
        assert!(Pool::new(&writer, 1).publish(&writer, value));
        reader.expect("taken");
    }
    let kept: usize = reader.receive().parse().unwrap();
    assert!(kept <= 64 + 16, "the reader keeps {kept} files");
}

#[test]
fn sixty_four_readers_get_every_object_once() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    assert!(pool.publish(&writer, 1));
    let mut readers: Vec<Reader> = (0..64).map(|_| channel.reader()).collect();
    for value in 2..=40 {
        for reader in &mut readers {
            let frame = next_frame(reader, accepting());
            assert_eq!(frame.descriptor.offset, value - 1);
        }
        assert!(pool.publish(&writer, value), "no buffer");
    }
    eventually("64 readers", || service.seen().reader_count == 64);
    let in_place: u64 = readers.iter().map(|reader| reader.stats().in_place).sum();
    assert!(in_place > 64 * 30, "{in_place}");
    drop(service);
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
fn interrupt_ends_a_wait_for_an_object() {
    let channel = Channel::new();
    let mut writer = role::start("objects/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.stop();
    let mut reader = channel.reader();
    let handle = reader.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            handle.interrupt();
        });
        let (duration, next) = timed(|| poll_for(&mut reader, 5 * SECOND));
        assert!(matches!(next, Next::Interrupted), "{next:?}");
        assert!(duration < Duration::from_millis(900), "{duration:?}");
    });
    handle.resume();
    // The reader still wants the frame. The writer does not answer, so the reader misses it and says why, although it has
    // no time-out.
    let (duration, next) = timed(|| reader.next(&mut Vec::new(), accepting(), None).unwrap());
    assert!(
        matches!(&next, Next::Fault(fault) if fault.to_string().contains("did not answer")),
        "{next:?}"
    );
    assert!(duration < 2 * SECOND, "{duration:?}");
    writer.resume();
    eventually("frames in place", || is_object(&next_frame(&mut reader, accepting())));
}

#[track_caller]
fn poll_for(reader: &mut Reader, timeout: Duration) -> Next {
    reader.next(&mut Vec::new(), accepting(), Some(timeout)).unwrap()
}

#[test]
fn shortened_memory_is_a_missed_frame() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let file = memfd(SIZE);
    let object = writer.objects().register(file.as_fd()).unwrap();
    let part = ObjectPart::new(&object, 0, SIZE as u64);
    let mut reader = channel.reader();
    let publish = |value| {
        let published = writer
            .objects()
            .publish(&[part], descriptor(SIZE, value), &[], Box::new(()));
        assert!(published.unwrap().is_some());
    };
    publish(0);
    next_frame(&mut reader, ReadLimits::default());
    file.set_len(100).unwrap();
    publish(0);
    let next = poll(&mut reader, &mut Vec::new());
    assert!(
        matches!(next, Next::Fault(ObjectFault::Failed(Errno::ENXIO))),
        "{next:?}"
    );
    assert_eq!(reader.stats().missed, 1);
    // The same fault comes once, and again only after a frame.
    publish(0);
    assert!(matches!(poll(&mut reader, &mut Vec::new()), Next::TimedOut));
    // A reader that fetches the memory now finds that it is too small.
    let mut late = channel.reader();
    let next = poll_for(&mut late, Duration::from_millis(10));
    assert!(
        matches!(&next, Next::Fault(fault) if fault.to_string().contains("too small")),
        "{next:?}"
    );
    file.set_len(SIZE as u64).unwrap();
    publish(0);
    assert_eq!(next_frame(&mut reader, ReadLimits::default()).missed, 2);
    file.set_len(100).unwrap();
    publish(0);
    assert!(matches!(poll(&mut reader, &mut Vec::new()), Next::Fault(_)));
}

/// A lossless writer has made the next segment, while a reader still needs memory of a frame in the last one.
#[test]
fn reader_of_superseded_segment_gets_memory() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), lossless(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 4);
    let mut reader = channel.reader();
    assert!(pool.publish(&writer, 1));
    drop(next_frame(&mut reader, accepting()));
    // The second frame is in another buffer, whose memory the reader does not have yet.
    assert!(pool.publish(&writer, 2));
    let segment = || std::fs::metadata(channel.segment()).unwrap().ino();
    let former = segment();
    let publisher = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || {
            writer.set_caps(Caps::objects(OTHER_CAPS)).unwrap();
            pool.publish(&writer, 3)
        }
    });
    eventually("the next segment", || segment() != former);
    for (value, caps) in [(2, CAPS), (3, OTHER_CAPS)] {
        let frame = next_frame(&mut reader, accepting());
        assert_eq!((frame.descriptor.offset, frame.missed, reader.caps()), (value, 0, caps));
    }
    assert!(publisher.join().unwrap());
    drop(service);
}

#[test]
fn ordinary_channel_has_no_socket() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    assert!(publish(&writer, 1));
    assert!(!channel.socket().exists());
    assert_eq!(writer.objects().count(), 0);
}

/// A fault of the last frame before a change of the caps comes before the frames of the next segment.
#[test]
fn fault_before_a_change_of_the_caps_is_reported() {
    let channel = Channel::new();
    // A lossless writer keeps the last frame for the reader.
    let writer = object_writer(channel.as_str(), lossless(0), 6);
    let file = memfd(SIZE);
    let object = writer.objects().register(file.as_fd()).unwrap();
    let mut reader = channel.reader();
    let publish_object = || {
        let part = ObjectPart::new(&object, 0, SIZE as u64);
        let published = writer
            .objects()
            .publish(&[part], descriptor(SIZE, 0), &[], Box::new(()));
        assert!(published.unwrap().is_some());
    };
    publish_object();
    next_frame(&mut reader, ReadLimits::default());
    file.set_len(100).unwrap();
    publish_object();
    // The writer waits until the reader has moved. The thread is not joined if the test fails, because it could wait for
    // ever.
    let publisher = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || {
            writer.set_caps(Caps::fixed_size(CAPS, SIZE)).unwrap();
            publish(&writer, 1)
        }
    });
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(10 * SECOND));
    assert!(matches!(&next, Ok(Next::Fault(_))), "{next:?}");
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(10 * SECOND));
    assert!(matches!(&next, Ok(Next::Frame(frame)) if frame.missed == 1), "{next:?}");
    assert!(publisher.join().unwrap());
    assert_eq!((reader.stats().missed, reader.stats().reconnects), (1, 1));
}
