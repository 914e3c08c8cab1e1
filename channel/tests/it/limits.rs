// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that cannot open more files, or has no address space left, gets an error. It continues when the resource
//! is available again.

use std::{
    fs::File,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    time::Duration,
};

use nix::sys::resource::Resource;
use rsshm_channel::{
    Caps, Directory, Error, FrameData, Next, Object, ObjectPart, ReadLimits, ReaderOptions, SpaceLimit, Writer,
};
use rsshm_testkit::{
    Channel, Process,
    frames::is_filled,
    need_real_machine,
    privileges::{NOBODY, become_user, is_root},
    role::{self, Role, listen, say},
};

use crate::{
    objects::{
        accepting, next_frame,
        pool::{memfd, object_writer},
    },
    support::{
        ChannelExt, SIZE, Service, check, descriptor, limit, next, next_within, open_reader, open_writer, publish,
        publish_sized, slots,
    },
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A function that runs an action while a resource is exhausted. The action receives the text that its errors must
/// contain.
type Exhaustion = fn(&mut dyn FnMut(&str));

pub const ROLES: &[(&str, Role)] = &[
    ("limits/writer without files", |arguments| {
        writer_within(arguments[0], without_files);
    }),
    ("limits/writer without addresses", |arguments| {
        writer_within(arguments[0], without_addresses);
    }),
    ("limits/writer of small files", |arguments| small_files(arguments[0])),
    ("limits/reader without files", |arguments| {
        reader_within(arguments[0], without_files);
    }),
    ("limits/reader without addresses", |arguments| {
        reader_within(arguments[0], without_addresses);
    }),
    ("limits/reader of objects without addresses", |arguments| {
        reader_of_objects(arguments[0]);
    }),
    ("limits/writer of objects without addresses", |arguments| {
        writer_of_objects(arguments[0]);
    }),
    ("limits/writer of memory that cannot be mapped", |arguments| {
        writer_of_unmappable(arguments[0]);
    }),
];

/// Runs an action while this process can open no file.
fn without_files(action: &mut dyn FnMut(&str)) {
    limit(Resource::RLIMIT_NOFILE, 40);
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    action("Too many open files");
    drop(taken);
    limit(Resource::RLIMIT_NOFILE, 1000);
}

/// Runs an action while the address space has no room for a large mapping.
fn without_addresses(action: &mut dyn FnMut(&str)) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limit(Resource::RLIMIT_AS, pages * 4096 + 4 * MIB as u64);
    action("address space");
    limit(Resource::RLIMIT_AS, u64::MAX);
}

#[track_caller]
fn assert_system_error<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
    let error = result.expect_err("an error of the system");
    assert!(matches!(error, Error::System { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(what) && text.contains("channel"), "{text}");
    say(&text);
}

/// A writer with a segment of 4 MiB. While the resource is exhausted, the writer cannot create its next segment, which
/// has 64 MiB.
fn writer_within(channel: &str, within: Exhaustion) {
    let writer = open_writer(channel, slots(64));
    writer.set_caps(Caps::fixed_size("small", 64 * KIB)).unwrap();
    assert!(publish_sized(&writer, 1, 64 * KIB));
    let service = Service::of(&writer);
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    check(&next(&mut reader, &mut copy), &copy, 1);
    within(&mut |what| {
        // While the resource is exhausted, the writer keeps using the segment that it has.
        for value in 2..20 {
            assert!(publish_sized(&writer, value, 64 * KIB));
            check(&next(&mut reader, &mut copy), &copy, value);
        }
        writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
        for _ in 0..3 {
            assert_system_error(writer.claim(MIB), what);
        }
        // The service checks the names once a second, so this sleep contains at least one check.
        std::thread::sleep(Duration::from_millis(1100));
        writer.set_caps(Caps::fixed_size("small", 64 * KIB)).unwrap();
        assert!(publish_sized(&writer, 20, 64 * KIB));
    });
    writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
    assert!(publish_sized(&writer, 21, MIB));
    check(&next(&mut reader, &mut copy), &copy, 20);
    check(&next(&mut reader, &mut copy), &copy, 21);
    drop(service);
    drop(writer);
    say("done");
}

/// A writer that may make only files of less than 4 MiB. The kernel's signal for a larger file would end it.
fn small_files(channel: &str) {
    const LIMIT: usize = 4 * MIB;
    limit(Resource::RLIMIT_FSIZE, LIMIT as u64);
    let writer = open_writer(channel, slots(64));
    writer.set_caps(Caps::fixed_size("large", 2 * MIB)).unwrap();
    match writer.claim(2 * MIB) {
        Err(
            ref error @ Error::NoSpace {
                limit: SpaceLimit::FileSize,
                total,
                ..
            },
        ) => {
            assert_eq!(total, LIMIT as u64);
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // Smaller frames fit. The segment gets as many slots as the limit allows.
    writer.set_caps(Caps::fixed_size("small", 512 * KIB)).unwrap();
    let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(512 * KIB).unwrap()).collect();
    assert!((6..8).contains(&claimed.len()), "{}", claimed.len());
    let shortage = writer.service().unwrap().shortage.expect("a shortage");
    assert!(shortage.to_string().contains("ulimit -f"), "{shortage}");
    assert_eq!(writer.service().unwrap().shortage, None);
    drop((claimed, writer));
    say("done");
}

/// A reader that can attach only when the resource is available again.
fn reader_within(channel: &str, within: Exhaustion) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    within(&mut |what| {
        for _ in 0..3 {
            let timeout = Some(Duration::from_millis(100));
            let refused = reader.next(&mut copy, ReadLimits::default(), timeout);
            assert_system_error(refused.map(|next| matches!(next, Next::Frame(_))), what);
        }
    });
    check(&next(&mut reader, &mut copy), &copy, 7);
    say("done");
    listen();
}

/// An object of 16 MiB. The frames are its last [`SIZE`] bytes, and each of their bytes is `value`.
fn large_object(writer: &Writer, value: u8) -> (File, Object) {
    let file = memfd(16 * MIB);
    file.write_all_at(&vec![value; SIZE], (16 * MIB - SIZE) as u64).unwrap();
    let object = writer.objects().register(file.as_fd()).unwrap();
    (file, object)
}

fn publish_large(writer: &Writer, object: &Object, value: u64) -> Result<Option<u64>, Error> {
    let part = ObjectPart::new(object, (16 * MIB - SIZE) as u64, SIZE as u64);
    (writer.objects()).publish(&[part], descriptor(SIZE, value), &[], Box::new(()))
}

/// A reader that cannot map the memory of a frame says so, and can copy the frame. It maps the memory later.
fn reader_of_objects(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let frame = match reader
        .next(&mut Vec::new(), accepting(), Some(Duration::from_secs(5)))
        .unwrap()
    {
        Next::Frame(frame) => frame,
        other => panic!("{other:?}"),
    };
    let FrameData::Objects(objects) = &frame.data else {
        panic!("{frame:?}");
    };
    without_addresses(&mut |what| {
        for _ in 0..3 {
            let error = objects.map(0).unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains("ulimit -v") && error.contains(channel),
                "{error}"
            );
            say(error);
        }
        let mut copy = vec![0; SIZE];
        objects.copy(&mut copy).unwrap();
        assert!(is_filled(&copy, 7));
    });
    let mapped = objects.map(0).unwrap();
    assert!(mapped.len() == SIZE && is_filled(mapped, 7));
    say("done");
    listen();
}

/// A writer that has no room for its segment or for its thread says so. It publishes later.
fn writer_of_objects(channel: &str) {
    let writer = object_writer(channel, slots(0), 4);
    let (_file, object) = large_object(&writer, 7);
    without_addresses(&mut |_| {
        // Less than 1 MiB is left. The stack of a thread has 2 MiB.
        let filling: Vec<Vec<u8>> = std::iter::from_fn(|| {
            let mut filling = Vec::new();
            filling.try_reserve_exact(MIB).ok()?;
            Some(filling)
        })
        .collect();
        assert!(!filling.is_empty());
        for _ in 0..3 {
            assert_system_error(publish_large(&writer, &object, 7), "ulimit -v");
        }
    });
    let service = Service::of(&writer);
    let mut reader = open_reader(channel, ReaderOptions::default());
    assert!(publish_large(&writer, &object, 7).unwrap().is_some());
    let first = next_frame(&mut reader, accepting());
    // Memory for which there is no room in the writer goes to readers all the same.
    let (_file, other) = large_object(&writer, 8);
    without_addresses(&mut |_| {
        for _ in 0..10 {
            assert!(publish_large(&writer, &other, 8).unwrap().is_some());
        }
        // This process has no room to map the memory, so it copies the frame.
        let frame = next_frame(&mut reader, ReadLimits::default());
        assert_eq!((frame.descriptor.offset, first.descriptor.offset), (8, 7));
    });
    drop((first, service));
    drop(writer);
    say("done");
}

/// A writer whose memory may only be written, and a reader that has to map it. A dmabuf of a driver without mmap is
/// like that for the processor.
fn writer_of_unmappable(channel: &str) {
    // Root may open any file for reading.
    if is_root() {
        become_user(NOBODY, NOBODY);
    }
    let path = format!("{}/.{channel}-memory", Directory::current());
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o200).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(SIZE as u64).unwrap();
    let writer = object_writer(channel, slots(0), 4);
    let object = writer.objects().register(file.as_fd()).unwrap();
    let part = ObjectPart::new(&object, 0, SIZE as u64);
    let published = (writer.objects()).publish(&[part], descriptor(SIZE, 0), &[], Box::new(()));
    assert!(published.unwrap().is_some());
    let mut reader = open_reader(channel, ReaderOptions::default());
    let frame = next_within(&mut reader, &mut Vec::new(), accepting());
    let FrameData::Objects(objects) = &frame.data else {
        panic!("{frame:?}");
    };
    for error in [objects.map(0).unwrap_err(), objects.bytes().unwrap_err()] {
        let text = error.to_string();
        let is_named = ["(memfd)", "EACCES", "descriptors=never"]
            .iter()
            .all(|part| text.contains(part));
        assert!(is_named && !text.contains("ulimit"), "{text}");
    }
    drop(writer);
    say("done");
}

/// Prints the lines of a role until the role says "done".
#[track_caller]
fn wait_done(mut process: Process) {
    loop {
        match process.receive() {
            line if line == "done" => return,
            line => println!("{line}"),
        }
    }
}

fn writer_reports_and_continues(role: &str) {
    let channel = Channel::new();
    wait_done(role::start(role, &[channel.as_str()]));
    channel.assert_removed();
}

#[test]
fn writer_without_files_reports_and_continues() {
    writer_reports_and_continues("limits/writer without files");
}

#[test]
fn writer_without_addresses_reports_and_continues() {
    need_real_machine!("RLIMIT_AS has no effect");
    writer_reports_and_continues("limits/writer without addresses");
}

#[test]
fn writer_that_may_make_only_small_files_reports_and_continues() {
    let channel = Channel::new();
    wait_done(role::start("limits/writer of small files", &[channel.as_str()]));
    channel.assert_removed();
}

fn reader_reports_and_attaches_later(role: &str) {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
    assert!(publish_sized(&writer, 7, MIB));
    wait_done(role::start(role, &[channel.as_str()]));
    assert!(publish(&writer, 8));
}

#[test]
fn reader_without_files_reports_and_attaches_later() {
    reader_reports_and_attaches_later("limits/reader without files");
}

#[test]
fn reader_without_addresses_reports_and_attaches_later() {
    need_real_machine!("RLIMIT_AS has no effect");
    reader_reports_and_attaches_later("limits/reader without addresses");
}

#[test]
fn writer_of_objects_without_addresses_reports_and_continues() {
    need_real_machine!("RLIMIT_AS has no effect");
    writer_reports_and_continues("limits/writer of objects without addresses");
}

#[test]
fn memory_that_cannot_be_mapped_is_an_error_with_a_remedy() {
    writer_reports_and_continues("limits/writer of memory that cannot be mapped");
}

#[test]
fn reader_of_objects_without_addresses_reports_and_maps_later() {
    need_real_machine!("RLIMIT_AS has no effect");
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 4);
    let (_file, object) = large_object(&writer, 7);
    assert!(publish_large(&writer, &object, 7).unwrap().is_some());
    wait_done(role::start(
        "limits/reader of objects without addresses",
        &[channel.as_str()],
    ));
}
