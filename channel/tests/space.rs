//! A full /dev/shm is an error that says so, and no signal.
//!
//! Each test runs in a process with a mount namespace and a small /dev/shm of its own; where that is not allowed there
//! is nothing to test.

mod common;

use std::{fs::File, io::Write, process::Command, time::Duration};

use common::{
    Channel, Service,
    child::{self, Child, listen, say},
    next, publish, publish_sized, slots, wait_until,
};
use rsshm_channel::{Caps, ChannelName, Error, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions};

const KIB: usize = 1024;

#[test]
fn child() {
    child::play(&[
        ("too small", too_small),
        ("not even a semaphore", not_even_a_semaphore),
        ("no growth", no_growth),
        ("recovers", recovers),
        ("gives back", gives_back),
        ("gives up", gives_up),
        ("fits 32 MiB", fits_32_mib),
        ("is filled up", is_filled_up),
        ("reads in place", |channel| reads(channel, false, 3)),
        ("reads copies", |channel| reads(channel, false, 0)),
        ("observes", |channel| reads(channel, true, 0)),
    ]);
}

/// Runs a role with `size` bytes of shared memory. It ends with "done".
fn run(role: &str, size: usize) {
    if let Some(wrapper) = child::unshared(&["--mount", "--propagation", "private"]) {
        Child::start_with(role, &size.to_string(), &wrapper).expect("done");
    }
}

fn mount(size: &str) {
    let options = format!("size={size}");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs", "/dev/shm"])
        .status();
    assert!(mounted.unwrap().success());
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Takes all memory that is left.
fn fill(path: &str) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn a_segment_that_does_not_fit_is_an_error_that_names_the_bytes() {
    run("too small", 1024 * KIB);
}

fn too_small(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    writer.set_caps(Caps::fixed_size("large", 500 * KIB));
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
                let said = error.to_string();
                for seq in [wanted, free, total] {
                    assert!(said.contains(&seq.to_string()), "{said}");
                }
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(names(), [format!("sem.{}", channel.as_str())]);
    }
    // Smaller ones do fit.
    writer.set_caps(Caps::fixed_size("small", 50 * KIB));
    assert!(publish_sized(&writer, 1, 50 * KIB));
    drop(writer);
    assert!(names().is_empty());
    say("done");
}

#[test]
fn no_room_for_anything_is_an_error_too() {
    run("not even a semaphore", 256 * KIB);
}

fn not_even_a_semaphore(size: &str) {
    mount(size);
    fill("/dev/shm/filler");
    let channel = Channel::new();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(names(), ["filler"]);
    say("done");
}

#[test]
fn growth_that_fails_is_lived_with_and_tried_again() {
    run("no growth", 1024 * KIB);
}

fn no_growth(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 1));
    fill("/dev/shm/filler");
    let service = Service::of(&writer);
    let mut claimed = Vec::new();
    while let Some(slot) = writer.claim(common::SIZE).unwrap() {
        claimed.push(slot);
    }
    assert_eq!((writer.stats().slots, claimed.len()), (3, 2));
    claimed.clear();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    for value in 2..100 {
        assert!(publish(&writer, value), "a slot for {value}");
        let frame = next(&mut reader, &mut copy);
        common::check(&frame, &copy, value);
    }
    std::fs::remove_file("/dev/shm/filler").unwrap();
    wait_until("it grows again", Duration::from_secs(3), || writer.stats().slots > 3);
    while let Some(slot) = writer.claim(common::SIZE).unwrap() {
        claimed.push(slot);
    }
    assert_eq!(writer.stats().slots, writer_slots(&channel));
    drop(service);
    say("done");
}

fn writer_slots(channel: &Channel) -> u32 {
    let observer = rsshm_channel::Observer::open(channel).unwrap().unwrap();
    let bytes = std::fs::metadata(channel.segment()).unwrap().len() - observer.header().slots_offset;
    (bytes / observer.header().slot_size) as u32
}

#[test]
fn a_writer_that_had_no_room_goes_on_when_there_is() {
    run("recovers", 1024 * KIB);
}

fn recovers(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    common::check(&next(&mut reader, &mut copy), &copy, 1);
    fill("/dev/shm/filler");
    writer.set_caps(Caps::fixed_size("large", 100 * KIB));
    for _ in 0..2 {
        let refused = writer.claim(100 * KIB);
        assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    }
    std::fs::remove_file("/dev/shm/filler").unwrap();
    assert!(publish_sized(&writer, 2, 100 * KIB));
    // The same reader, whether it noticed the gap or not.
    loop {
        match reader
            .next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(5)))
            .unwrap()
        {
            rsshm_channel::Next::Frame(frame) => {
                common::check(&frame, &copy, 2);
                assert_eq!(frame.seq, 2);
                break;
            }
            rsshm_channel::Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    // And one that could not start again leaves nothing either.
    fill("/dev/shm/filler");
    writer.set_caps(Caps::fixed_size("larger", 200 * KIB));
    assert!(writer.claim(200 * KIB).is_err());
    drop((service, writer));
    assert_eq!(names(), ["filler"]);
    say("done");
}

#[test]
fn an_old_segment_gives_its_memory_to_the_new_one() {
    run("gives back", 1024 * KIB);
}

/// Two segments have no room beside each other; a frame that is held stays.
fn gives_back(size: &str) {
    mount(size);
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    writer.set_caps(Caps::fixed_size("one", 150 * KIB));
    assert!(publish_sized(&writer, 1, 150 * KIB));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    common::check(&next(&mut reader, &mut copy), &copy, 1);
    for (value, caps) in (2..20).zip(["two", "three"].into_iter().cycle()) {
        writer.set_caps(Caps::fixed_size(caps, 150 * KIB));
        assert!(publish_sized(&writer, value, 150 * KIB));
        let frame = next(&mut reader, &mut copy);
        common::check(&frame, &copy, value);
        assert_eq!(reader.caps(), caps);
    }
    assert_eq!(writer.stats().segments, 19);
    drop(service);
    say("done");
}

#[test]
fn a_held_frame_survives_a_full_memory() {
    run("gives up", 1024 * KIB);
}

/// What is held is not given back, even where that makes the next segment impossible.
fn gives_up(size: &str) {
    mount(size);
    let channel = Channel::new();
    // Six slots: two for the reader beside those that are kept.
    let writer = channel.writer(slots(7));
    let service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let held = common::next_in_place(&writer, &mut reader, &mut copy);
    fill("/dev/shm/filler");
    writer.set_caps(Caps::fixed_size("large", 400 * KIB));
    assert!(matches!(writer.claim(400 * KIB), Err(Error::NoSpace { .. })));
    std::thread::sleep(Duration::from_millis(1300));
    common::check_bytes(&held, &[]);
    drop(service);
    say("done");
}

#[test]
fn a_1080p_channel_with_two_readers_fits_32_mib() {
    run("fits 32 MiB", 32 * 1024 * KIB);
}

fn fits_32_mib(size: &str) {
    mount(size);
    let frame_size = 1920 * 1080 * 3 / 2;
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer.set_caps(Caps::fixed_size("video/x-raw,format=NV12", frame_size));
    assert!(publish_sized(&writer, 1, frame_size));
    let _service = Service::of(&writer);
    let mut readers = [channel.reader(), channel.reader()];
    let mut copy = Vec::new();
    for value in 2..30 {
        for reader in &mut readers {
            let frame = next(reader, &mut copy);
            common::check(&frame, &copy, value - 1);
        }
        assert!(publish_sized(&writer, value, frame_size));
    }
    let stats = writer.stats();
    assert!(stats.bytes <= 16 << 20, "half of what was free: {stats:?}");
    say("done");
}

#[test]
fn somebody_fills_a_memory_of_8_16_and_64_mib_in_mid_stream() {
    for mib in [8, 16, 64] {
        run("is filled up", mib * 1024 * KIB);
    }
}

/// Reads and checks all there is, and keeps some; says how many there were when it is told to stop.
fn reads(channel: &str, read_only: bool, hold: usize) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions { read_only });
    let (mut copy, mut held, mut frames, mut last) = (Vec::new(), Vec::new(), 0, 0);
    let limits = ReadLimits {
        max_held: hold as u32,
        ..ReadLimits::default()
    };
    say("reads");
    let stop = std::thread::spawn(listen);
    while !stop.is_finished() {
        match reader.next(&mut copy, limits, Some(Duration::from_millis(20))).unwrap() {
            Next::Frame(frame) => {
                common::check_bytes(&frame, &copy);
                (frames, last) = (frames + 1, frame.descriptor.offset);
                held.push(frame);
                if held.len() > hold {
                    let oldest = held.remove(0);
                    if common::is_in_place(&oldest) {
                        common::check_bytes(&oldest, &copy);
                    }
                }
            }
            Next::TimedOut | Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    say(format!("{frames} {last}"));
}

fn is_filled_up(size: &str) {
    mount(size);
    let size: usize = size.parse().unwrap();
    // So that a segment with its three slots takes half of it.
    let frame_size = size / 6 / 4096 * 4096;
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let format = Caps::fixed_size("a sixth", frame_size);
    writer.set_caps(format.clone());
    assert!(publish_sized(&writer, 1, frame_size));
    let service = Service::of(&writer);
    let mut readers = ["reads in place", "reads copies", "observes"].map(|role| {
        let reader = Child::start(role, channel.as_str());
        reader.expect("reads");
        reader
    });
    let stream = |values: std::ops::Range<u64>| {
        for value in values {
            assert!(publish_sized(&writer, value, frame_size), "a slot for {value}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    stream(2..20);
    fill("/dev/shm/filler");
    stream(20..60);
    let slots = writer.stats().slots;
    // What cannot be had is an error with numbers, and again.
    writer.set_caps(Caps::fixed_size("half", size / 2));
    for _ in 0..2 {
        let refused = writer.claim(size / 2).expect_err("there is no room");
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
        let total = format!("of {size} bytes are free");
        assert!(refused.to_string().contains(&total), "{refused}");
        println!("{size} bytes, {slots} slots: {refused}");
    }
    std::fs::remove_file("/dev/shm/filler").unwrap();
    writer.set_caps(format);
    stream(60..90);
    std::thread::sleep(Duration::from_millis(500));
    for reader in &mut readers {
        reader.tell("stop");
        let said = reader.receive();
        println!("{size} bytes: {said}");
        let (frames, last) = said.split_once(' ').unwrap();
        // Some are missed: of three slots there is one to wait in.
        assert!(frames.parse::<u64>().unwrap() > 5 && last == "89", "{said}");
    }
    drop(service);
    drop(writer);
    assert!(names().is_empty(), "{:?}", names());
    say("done");
}
