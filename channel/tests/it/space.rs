// SPDX-License-Identifier: MIT OR Apache-2.0

//! If /dev/shm is full, a program gets an error with a message. It does not get a signal.
//!
//! Each test runs in a role, which has its own mount namespace and a small /dev/shm.

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

use rsshm_channel::{Caps, Error, Next, Observer, ReadLimits, ReaderOptions, Writer, WriterOptions};
use rsshm_testkit::{
    Channel,
    emulation::on_this_machine,
    eventually, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, say},
    shm::{OWN_MOUNTS, fill_up, mount, names, unshared},
    skip,
};

use crate::support::{
    ChannelExt, SECOND, SIZE, Service, check, check_bytes, is_in_place, next, next_in_place, open_reader, publish,
    publish_sized, slots,
};

const KIB: usize = 1024;

/// A file that takes all memory that is left in /dev/shm, as another program's file might.
const FILLER: &str = "/dev/shm/filler";

pub const ROLES: &[(&str, Role)] = &[
    ("space/unusable directory", |arguments| unusable_directory(arguments[0])),
    ("space/too small", |arguments| too_small(arguments[0])),
    ("space/denied segment", |arguments| denied_segment(arguments[0])),
    ("space/full", |arguments| full(arguments[0])),
    ("space/no growth", |arguments| no_growth(arguments[0])),
    ("space/recovery", |arguments| recovery(arguments[0])),
    ("space/release", |arguments| release(arguments[0])),
    ("space/held frame", |arguments| held_frame(arguments[0])),
    ("space/32 MiB", |arguments| fits_32_mib(arguments[0])),
    ("space/filled up", |arguments| filled_up(arguments[0])),
    ("space/in-place reader", |arguments| reader(arguments[0], false, 3)),
    ("space/copying reader", |arguments| reader(arguments[0], false, 0)),
    ("space/observer", |arguments| reader(arguments[0], true, 0)),
];

/// Runs a role with `size` bytes of shared memory, or skips the test.
macro_rules! run {
    ($role:literal, $size:expr) => {
        let Some(wrapper) = unshared(&OWN_MOUNTS) else {
            skip!("no mount namespace");
        };
        let mut process = role::start_within(&wrapper, $role, &[&($size).to_string()]);
        print!("{}", process.wait_ok());
    };
}

#[test]
fn unusable_directory_is_error_that_says_what_to_do() {
    for fault in ["missing", "read-only", "file", "no tmpfs"] {
        run!("space/unusable directory", fault);
    }
}

#[test]
fn directory_of_another_user_is_error_that_says_what_to_do() {
    need_root!("starts a process of another user");
    run!("space/unusable directory", "denied");
}

fn unusable_directory(fault: &str) {
    const DIRECTORY: &str = "/dev/shm";
    let words = match fault {
        "missing" => {
            // A new tmpfs at /dev hides the directory /dev/shm.
            run_mount(&["-t", "tmpfs", "tmpfs", "/dev"]);
            [
                "ENOENT",
                "there is no /dev/shm",
                "mount -t tmpfs",
                "--ipc",
                "--shm-size",
            ]
            .as_slice()
        }
        "file" => {
            run_mount(&["-t", "tmpfs", "tmpfs", "/dev"]);
            std::fs::write(DIRECTORY, "").unwrap();
            &["ENOTDIR", "is not a directory", "mount -t tmpfs"]
        }
        "no tmpfs" => {
            run_mount(&["--rbind", "/proc", DIRECTORY]);
            &["is not a tmpfs", "mount -t tmpfs", "--ipc"]
        }
        "read-only" => {
            run_mount(&["-t", "tmpfs", "-o", "ro", "tmpfs", DIRECTORY]);
            &["EROFS", "is mounted read-only", "mount -o remount,rw /dev/shm"]
        }
        _ => {
            mount("1m");
            std::fs::set_permissions(DIRECTORY, std::fs::Permissions::from_mode(0o755)).unwrap();
            become_user(NOBODY, NOBODY);
            &[
                "EACCES",
                "may not create or open files",
                "mode is 0755",
                "owner user 0",
                "chmod 1777",
                "--ipc",
                "snap",
            ]
        }
    };
    let channel = Channel::new();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    let error = refused.expect_err("no file can be created");
    assert!(matches!(error, Error::NoSharedMemory { .. }), "{error:?}");
    let text = error.to_string();
    for word in words
        .iter()
        .copied()
        .chain([channel.as_str(), &format!("/dev/shm/sem.{}", channel.as_str())])
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("/.rsshm-"), "{text}");
}

/// Runs `mount`. The mount affects only this role, which has its own mount namespace.
fn run_mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

#[test]
fn segment_that_cannot_be_created_is_error_that_says_what_to_do() {
    need_root!("starts a process of another user");
    run!("space/denied segment", "1m");
}

/// After the writer has created the lock file, the directory's mode no longer lets this user create files.
fn denied_segment(size: &str) {
    mount(size);
    // The user "nobody" must own the directory, because this role changes the directory's mode after it has become
    // "nobody".
    std::os::unix::fs::chown("/dev/shm", Some(NOBODY), Some(NOBODY)).unwrap();
    become_user(NOBODY, NOBODY);
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    std::fs::set_permissions("/dev/shm", std::fs::Permissions::from_mode(0o555)).unwrap();
    let error = writer.claim(SIZE).expect_err("no segment can be created");
    assert!(matches!(error, Error::NoSharedMemory { .. }), "{error:?}");
    let text = error.to_string();
    for word in [
        &format!("creating /dev/shm/{}", channel.as_str()),
        "mode is 0555",
        "EACCES",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("/.rsshm-"), "{text}");
    std::fs::set_permissions("/dev/shm", std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn segment_that_does_not_fit_is_error_with_sizes() {
    run!("space/too small", 1024 * KIB);
}

fn too_small(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    writer.set_caps(Caps::fixed_size("large", 500 * KIB)).unwrap();
    for _ in 0..3 {
        match writer.claim(500 * KIB) {
            Err(
                error @ Error::NoSpace {
                    wanted,
                    slots: 3,
                    free,
                    total,
                    ..
                },
            ) => {
                assert!(wanted > 1500 * KIB as u64 && free < total && total == 1024 * KIB as u64);
                let text = error.to_string();
                for bytes in [wanted, free, total] {
                    assert!(text.contains(&bytes.to_string()), "{text}");
                }
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(names(), [format!("sem.{}", channel.as_str())]);
    }
    // A smaller segment fits.
    writer.set_caps(Caps::fixed_size("small", 50 * KIB)).unwrap();
    assert!(publish_sized(&writer, 1, 50 * KIB));
    drop(writer);
    assert!(names().is_empty());
}

#[test]
fn writer_in_full_memory_is_error_and_leaves_nothing() {
    run!("space/full", 256 * KIB);
}

fn full(size: &str) {
    mount(size);
    fill_up(FILLER);
    let channel = Channel::new();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(names(), ["filler"]);
}

#[test]
fn writer_continues_without_growth_and_retries() {
    run!("space/no growth", 1024 * KIB);
}

fn no_growth(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    fill_up(FILLER);
    let service = Service::of(&writer);
    let mut claimed = Vec::new();
    while let Some(slot) = writer.claim(SIZE).unwrap() {
        claimed.push(slot);
    }
    assert_eq!((writer.stats().slots, claimed.len()), (4, 3));
    claimed.clear();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    for value in 2..100 {
        assert!(publish(&writer, value), "a slot for {value}");
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value);
    }
    std::fs::remove_file(FILLER).unwrap();
    eventually("it grows again", || {
        while let Some(slot) = writer.claim(SIZE).unwrap() {
            claimed.push(slot);
        }
        writer.stats().slots > 4
    });
    // The service may be adding another slot to the file. The writer counts the slot a little later.
    drop(service);
    assert_eq!(writer.stats().slots, slots_in_file(&channel));
}

/// The number of slots for which the segment's file has space.
fn slots_in_file(channel: &Channel) -> u32 {
    let observer = Observer::open(channel).unwrap().unwrap();
    let bytes = std::fs::metadata(channel.segment()).unwrap().len() - observer.header().slots_offset;
    (bytes / observer.header().slot_size) as u32
}

#[test]
fn writer_recovers_when_memory_is_free_again() {
    run!("space/recovery", 1792 * KIB);
}

fn recovery(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    fill_up(FILLER);
    writer.set_caps(Caps::fixed_size("large", 100 * KIB)).unwrap();
    for _ in 0..2 {
        let refused = writer.claim(100 * KIB);
        assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    }
    std::fs::remove_file(FILLER).unwrap();
    assert!(publish_sized(&writer, 2, 100 * KIB));
    // The reader continues. It may first report that it lost the writer for a while.
    loop {
        match reader.next(&mut copy, ReadLimits::default(), Some(5 * SECOND)).unwrap() {
            Next::Frame(frame) => {
                check(&frame, &copy, 2);
                assert_eq!(frame.seq, 2);
                break;
            }
            Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    // A writer that could not create its next segment also removes its files when it ends.
    fill_up(FILLER);
    writer.set_caps(Caps::fixed_size("larger", 200 * KIB)).unwrap();
    assert!(writer.claim(200 * KIB).is_err());
    drop((service, writer));
    assert_eq!(names(), ["filler"]);
}

#[test]
fn old_segment_releases_memory_to_new_one() {
    run!("space/release", 2048 * KIB);
}

/// /dev/shm has no room for two segments at the same time, so the writer releases the old segment before it creates the
/// new one.
fn release(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    writer.set_caps(Caps::fixed_size("one", 150 * KIB)).unwrap();
    assert!(publish_sized(&writer, 1, 150 * KIB));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 1);
    for (value, caps) in (2..20).zip(["two", "three"].into_iter().cycle()) {
        writer.set_caps(Caps::fixed_size(caps, 150 * KIB)).unwrap();
        assert!(publish_sized(&writer, value, 150 * KIB));
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!(reader.caps(), caps);
    }
    assert_eq!(writer.stats().segments, 19);
    drop(service);
}

#[test]
fn held_frame_survives_full_memory() {
    run!("space/held frame", 1024 * KIB);
}

/// The writer does not release the memory of a held frame, even if it then has too little memory for its next segment.
fn held_frame(size: &str) {
    mount(size);
    let channel = Channel::new();
    // Of the seven slots, the reader may pin two; the writer needs the others.
    let writer = channel.writer(slots(7));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let held = next_in_place(&writer, &mut reader, &mut copy);
    fill_up(FILLER);
    writer.set_caps(Caps::fixed_size("large", 400 * KIB)).unwrap();
    assert!(matches!(writer.claim(400 * KIB), Err(Error::NoSpace { .. })));
    std::thread::sleep(Duration::from_millis(1300));
    check_bytes(&held, &[]);
    drop(service);
}

#[test]
fn channel_of_1080p_with_two_readers_fits_32_mib() {
    run!("space/32 MiB", 32 * 1024 * KIB);
}

fn fits_32_mib(size: &str) {
    mount(size);
    let frame_size = 1920 * 1080 * 3 / 2;
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer
        .set_caps(Caps::fixed_size("video/x-raw,format=NV12", frame_size))
        .unwrap();
    assert!(publish_sized(&writer, 1, frame_size));
    let _service = Service::of(&writer);
    let mut readers = [channel.reader(), channel.reader()];
    let mut copy = Vec::new();
    for value in 2..30 {
        for reader in &mut readers {
            let frame = next(reader, &mut copy);
            check(&frame, &copy, value - 1);
        }
        assert!(publish_sized(&writer, value, frame_size));
    }
    let stats = writer.stats();
    assert!(stats.bytes <= 16 << 20, "half of what was free: {stats:?}");
}

#[test]
fn stream_survives_another_program_filling_memory() {
    for mib in [8, 16, 64] {
        run!("space/filled up", mib * 1024 * KIB);
    }
}

/// Reads and checks all frames, and always holds the last `hold` frames. If the test asks for the count, the reader says
/// the number of frames. If the test sends "stop", the reader takes the frames that are left, says the last frame's value,
/// and ends.
fn reader(channel: &str, read_only: bool, hold: usize) {
    let mut reader = open_reader(channel, ReaderOptions::default().read_only(read_only));
    let (mut copy, mut held, mut frames, mut last) = (Vec::new(), Vec::new(), 0, 0);
    let limits = ReadLimits::default().max_held(hold as u32);
    say("reads");
    let lines = role::lines();
    let mut is_last = false;
    loop {
        match lines.try_recv().as_deref() {
            Ok("count") => say(frames),
            Ok("stop") => is_last = true,
            _ => {}
        }
        let timeout = if is_last { SECOND / 2 } else { SECOND / 50 };
        match reader.next(&mut copy, limits, Some(timeout)).unwrap() {
            Next::Frame(frame) => {
                check_bytes(&frame, &copy);
                (frames, last) = (frames + 1, frame.descriptor.offset);
                held.push(frame);
                if held.len() > hold {
                    let oldest = held.remove(0);
                    if is_in_place(&oldest) {
                        check_bytes(&oldest, &copy);
                    }
                }
            }
            Next::TimedOut if is_last => break,
            Next::TimedOut | Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    say(last);
}

fn filled_up(size: &str) {
    mount(size);
    let size: usize = size.parse().unwrap();
    // Each frame takes a sixth of the memory, so a segment with three slots takes half of it.
    let frame_size = size / 6 / 4096 * 4096;
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let caps = Caps::fixed_size("sixth", frame_size);
    writer.set_caps(caps.clone()).unwrap();
    assert!(publish_sized(&writer, 1, frame_size));
    let service = Service::of(&writer);
    let mut readers = ["space/in-place reader", "space/copying reader", "space/observer"].map(|role| {
        let mut reader = role::start(role, &[channel.as_str()]);
        reader.expect("reads");
        reader
    });
    let mut value = 1;
    // A reader misses some frames, because only one of the three slots can keep a frame that it has not taken yet.
    let mut stream = || {
        let mut counts = || -> Vec<u64> {
            let counts = readers.iter_mut().map(|reader| {
                reader.send("count");
                reader.receive().parse().unwrap()
            });
            counts.collect()
        };
        let before = counts();
        eventually("each reader gets frames", || {
            for _ in 0..10 {
                value += 1;
                assert!(publish_sized(&writer, value, frame_size), "a slot for {value}");
                std::thread::sleep(on_this_machine(Duration::from_millis(10)));
            }
            before.iter().zip(counts()).all(|(before, now)| now >= before + 3)
        });
    };
    stream();
    fill_up(FILLER);
    stream();
    let slots = writer.stats().slots;
    // Each attempt to create a segment that does not fit causes an error, which names the sizes.
    writer.set_caps(Caps::fixed_size("half", size / 2)).unwrap();
    for _ in 0..2 {
        let refused = writer.claim(size / 2).expect_err("there is no room");
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
        let total = format!("of {size} bytes are free");
        assert!(refused.to_string().contains(&total), "{refused}");
        println!("{size} bytes, {slots} slots: {refused}");
    }
    std::fs::remove_file(FILLER).unwrap();
    writer.set_caps(caps).unwrap();
    stream();
    readers.iter_mut().for_each(|reader| reader.send("stop"));
    for reader in &mut readers {
        assert_eq!(reader.receive(), value.to_string());
    }
    drop(service);
    drop(writer);
    assert!(names().is_empty(), "{:?}", names());
}
