// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of what an observer sees beside the frames: the readers, the status, the file, and channels without a writer.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, Error, FrameData, Next, ObservedReader, Observer, ReadLimits, ReaderOptions, WriterOptions, channels,
    has_writer,
    layout::{VERSION, reader_state},
    monotonic_ns, possible_channels, segment_version,
};
use rsshm_testkit::{
    Channel, Process, eventually, need_root,
    privileges::{NOBODY, ProgramForAll},
    role::{self, Role, listen, say},
};

use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, beside_full_speed, descriptor, open_reader, open_writer, publish,
    publish_event, publish_frame, publish_sized, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("inspection/holder", holder),
    ("inspection/writer", writer),
    ("inspection/spectator", spectator),
    ("inspection/reader", reader),
];

/// Takes a frame, and holds it until the test ends.
fn holder(arguments: &[&str]) {
    let mut reader = open_reader(arguments[0], ReaderOptions::default());
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap();
    let Next::Frame(frame) = next else { panic!("{next:?}") };
    assert!(matches!(frame.data, FrameData::InPlace(_)), "{frame:?}");
    say("held");
    listen();
}

/// Attaches, and waits.
fn reader(arguments: &[&str]) {
    let mut reader = open_reader(arguments[0], ReaderOptions::default());
    let next = reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap();
    assert!(matches!(next, Next::Frame(_)), "{next:?}");
    say("attached");
    listen();
}

/// Publishes a frame, and waits.
fn writer(arguments: &[&str]) {
    let writer = open_writer(arguments[0], WriterOptions::default());
    assert!(publish(&writer, 1));
    say("published");
    listen();
}

/// Prints what another user sees of a channel.
fn spectator(arguments: &[&str]) {
    let channel = rsshm_channel::ChannelName::new(arguments[0]).unwrap();
    match Observer::inspect(&channel) {
        Err(Error::Denied { .. }) => say("denied"),
        other => {
            let observer = other.unwrap().unwrap();
            let readers = observer.readers();
            say(format!(
                "{} {:?} {:?}",
                readers.len(),
                readers[0].is_alive,
                has_writer(&channel)
            ));
        }
    }
    say(possible_channels().contains(&arguments[0].to_owned()));
    say(channels().contains(&arguments[0].to_owned()));
}

fn only_reader(observer: &Observer) -> ObservedReader {
    let readers = observer.readers();
    assert_eq!(readers.len(), 1, "{readers:?}");
    readers[0]
}

fn start_holder(channel: &Channel) -> Process {
    let mut holder = role::start("inspection/holder", &[channel.as_str()]);
    holder.expect("held");
    holder
}

#[test]
fn observer_sees_reader_until_it_is_killed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let observer = Observer::open(&channel).unwrap().unwrap();
    assert_eq!(observer.readers(), []);

    let mut holder = start_holder(&channel);
    for value in 2..=4 {
        assert!(publish(&writer, value));
    }
    let reader = only_reader(&observer);
    assert_eq!((reader.entry, reader.pid), (0, holder.pid().as_raw() as u32));
    assert_eq!((reader.state, reader.is_alive), (reader_state::ATTACHED, Some(true)));
    assert_eq!((reader.cursor, reader.behind, reader.held()), (1, 3, 1), "{reader:?}");
    assert!(reader.quota.is_some_and(|quota| quota >= 1) && !reader.is_evicted);
    assert!(reader.is_present());

    // A stopped process is alive.
    holder.stop();
    assert_eq!(only_reader(&observer).is_alive, Some(true));
    holder.kill();
    let reader = only_reader(&observer);
    assert_eq!((reader.state, reader.is_alive), (reader_state::ATTACHED, Some(false)));
    assert!(!reader.is_present());
}

#[test]
fn observer_sees_what_readers_miss() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut reader = open_reader(channel.as_str(), ReaderOptions::default());
    let mut take = |limits| match reader.next(&mut Vec::new(), limits, Some(SECOND)).unwrap() {
        Next::Frame(frame) => (frame.seq, reader.stats().missed),
        next => panic!("{next:?}"),
    };
    let observer = Observer::open(&channel).unwrap().unwrap();
    let seen = |observer: &Observer| {
        let reader = only_reader(observer);
        (reader.missed, reader.wants_only_newest)
    };
    assert_eq!(take(ReadLimits::default()), (1, 0));
    assert_eq!(seen(&observer), (0, false));
    (2..=200).for_each(|value| assert!(publish(&writer, value)));
    let (seq, missed) = take(ReadLimits::default());
    assert!(missed > 50 && missed == seq - 2, "frame {seq}, {missed} missed");
    assert_eq!(seen(&observer), (missed, false));
    let (seq, missed) = take(ReadLimits::default().max_behind(1));
    assert_eq!((seq, seen(&observer)), (200, (missed, true)));

    // The reader takes its count along to the next segment, and its successor begins with none.
    let caps = rsshm_channel::Caps::fixed_size("application/x-test, other=(int)1", SIZE);
    writer.set_caps(caps).unwrap();
    assert!(publish(&writer, 201));
    assert_eq!(take(ReadLimits::default()), (201, missed));
    let observer = Observer::open(&channel).unwrap().unwrap();
    assert_eq!(seen(&observer), (missed, false));
    drop(reader);
    let mut successor = role::start("inspection/reader", &[channel.as_str()]);
    successor.expect("attached");
    assert_eq!(seen(&observer), (0, false));
    drop(service);
}

#[test]
fn observer_sees_only_locks_of_the_segment() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let _holder = start_holder(&channel);
    let observer = Observer::open(&channel).unwrap().unwrap();
    // Another file with the name of the lock file says nothing about the readers of this segment.
    fs::remove_file(channel.lock_file()).unwrap();
    fs::write(channel.lock_file(), [0; 32]).unwrap();
    let reader = only_reader(&observer);
    assert_eq!(reader.is_alive, None);
    assert!(reader.is_present(), "the state says so");
}

#[test]
fn observer_opens_segment_of_killed_writer() {
    let channel = Channel::new();
    assert!(Observer::inspect(&channel).unwrap().is_none());
    assert_eq!(has_writer(&channel), None);
    let mut writer = role::start("inspection/writer", &[channel.as_str()]);
    writer.expect("published");
    assert_eq!(has_writer(&channel), Some(true));
    let before = Observer::inspect(&channel).unwrap().unwrap();
    assert!(before.has_writer() && before.is_current());

    writer.kill();
    assert!(Observer::open(&channel).unwrap().is_none());
    let observer = Observer::inspect(&channel).unwrap().unwrap();
    assert!(!observer.has_writer() && !observer.is_current() && !before.is_current());
    assert_eq!(has_writer(&channel), Some(false));
    assert_eq!((observer.caps(), observer.head()), (CAPS, 1));
    assert!(observer.newest(&mut Vec::new()).is_some());
}

#[test]
fn observer_describes_frames_without_their_bytes() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    assert!(publish(&writer, 1));
    let observer = Observer::open(&channel).unwrap().unwrap();
    for value in 2..=9 {
        assert!(publish_frame(&writer, descriptor(SIZE, value).with_pts(monotonic_ns())));
    }
    let (seq, newest) = observer.describe(9).unwrap();
    assert_eq!((seq, newest.offset, newest.size), (9, 9, SIZE as u64));
    let (oldest, descriptor) = observer.describe(1).unwrap();
    assert!((6..=8).contains(&oldest), "three slots have three frames: {oldest}");
    assert_eq!(descriptor.offset, oldest);
    assert!(observer.describe(10).is_none());
    assert_eq!(
        observer.describe_newest().map(|(seq, newest)| (seq, newest.offset)),
        Some((9, 9))
    );
}

/// The writer overwrites a frame while an observer looks at it.
#[test]
fn observer_describes_frames_of_writer_at_full_speed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(3));
    assert!(publish(&writer, 1));
    let observer = Observer::open(&channel).unwrap().unwrap();
    beside_full_speed(&writer, || {
        let mut last = 0;
        for _ in 0..20_000 {
            let (seq, newest) = observer.describe_newest().expect("a frame was published");
            assert_eq!(newest.offset, seq);
            assert!(seq >= last, "{seq} after {last}");
            // The newest frame of the look before is most often the oldest one now.
            let (oldest, descriptor) = observer.describe(last).expect("a later frame is there");
            assert!(oldest >= last && descriptor.offset == oldest, "{oldest} after {last}");
            last = seq;
        }
    });
}

#[test]
fn wait_ends_with_frame_and_with_writer() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let observer = Observer::open(&channel).unwrap().unwrap();
    assert!(observer.wait(0, Duration::ZERO), "the frame is there");
    let started = Instant::now();
    assert!(!observer.wait(1, Duration::from_millis(50)));
    assert!(started.elapsed() >= Duration::from_millis(50));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| observer.wait(1, 20 * SECOND));
        std::thread::sleep(Duration::from_millis(20));
        assert!(publish(&writer, 2));
        assert!(waiting.join().unwrap());
        let waiting = scope.spawn(|| observer.wait(2, 20 * SECOND));
        std::thread::sleep(Duration::from_millis(20));
        drop(writer);
        assert!(!waiting.join().unwrap());
    });
    assert!(!observer.is_current() && observer.status().is_closed);
}

#[test]
fn observer_sees_file_and_status() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8).perms(0o640));
    for value in 1..=3 {
        assert!(publish(&writer, value));
    }
    writer.set_latency_ns(7_000_000);
    let observer = Observer::open(&channel).unwrap().unwrap();
    let file = observer.file().unwrap();
    let metadata = fs::metadata(channel.segment()).unwrap();
    assert_eq!((file.mode, file.size), (0o640, metadata.len()));
    assert_eq!((file.memory, file.owner), (metadata.blocks() * 512, metadata.uid()));
    assert!((3..=8).contains(&file.committed_slots), "{file:?}");
    let status = observer.status();
    assert_eq!((status.head, status.eos_count), (3, 0));
    assert_eq!(status.latency_ns, 7_000_000);
    assert!(!status.is_superseded && !status.is_closed);
    writer.end_of_stream();
    assert_eq!(observer.status().eos_count, 1);
}

#[test]
fn writer_without_format_is_possible_channel() {
    let channel = Channel::new();
    let listed = || possible_channels().contains(&channel.to_string());
    assert!(!listed());
    let writer = rsshm_channel::Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    assert!(listed() && !channels().contains(&channel.to_string()));
    assert_eq!((has_writer(&channel), segment_version(&channel)), (Some(true), None));
    drop(writer);
    assert!(!listed());
    // The file of a semaphore that has nothing to do with a channel.
    fs::write(channel.lock_file(), [0; 32]).unwrap();
    assert!(!listed());
}

#[test]
fn version_is_that_of_the_segment() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    assert_eq!(segment_version(&channel), Some(VERSION));
    let file = fs::File::options().write(true).open(channel.segment()).unwrap();
    file.write_all_at(&77_u32.to_ne_bytes(), 8).unwrap();
    assert_eq!(segment_version(&channel), Some(77));
    assert!(matches!(Observer::inspect(&channel), Err(Error::Damaged { .. })));
}

#[test]
fn another_user_sees_what_the_mode_allows() {
    need_root!("a user without permissions observes the channel");
    let channel = Channel::new();
    let writer = channel.writer(slots(8).perms(0o644));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let _holder = start_holder(&channel);
    let program = ProgramForAll::new().unwrap();
    let look = || {
        let command = program.command(&role::command("inspection/spectator", &[channel.as_str()]), NOBODY);
        Process::converse(command)
    };
    let mut other = look();
    other.expect("1 None None");
    other.expect("true");
    other.expect("true");
    fs::set_permissions(channel.segment(), fs::Permissions::from_mode(0o600)).unwrap();
    eventually("denied", || {
        let mut other = look();
        let first = other.receive();
        other.expect("true");
        first == "denied" && other.receive() == "false"
    });
}

/// The slots are so small that the tables have more memory than all of them.
#[test]
fn released_slots_do_not_count_as_committed() {
    const SMALL: usize = 4096;
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    writer.set_caps(Caps::fixed_size("small", SMALL)).unwrap();
    let all: Vec<_> = (0..8).map(|_| writer.claim(SMALL).unwrap().expect("a slot")).collect();
    drop(all);
    for number in 0..5 {
        publish_event(&writer, &number.to_string(), None);
    }
    assert!(publish_sized(&writer, 1, SMALL));
    let committed = || {
        Observer::open(&channel)
            .unwrap()
            .unwrap()
            .file()
            .unwrap()
            .committed_slots
    };
    assert_eq!((committed(), writer.stats().slots), (8, 8));
    let _service = Service::of(&writer);
    eventually("slots are released", || {
        assert!(publish_sized(&writer, 2, SMALL));
        writer.stats().slots < 8
    });
    eventually("the file shows it", || committed() == writer.stats().slots);
}
