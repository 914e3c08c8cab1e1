// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which memory can be an object, how a reader waits for it, and how long a writer and a reader keep it.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rsshm_channel::{Error, Next, ObjectFault, ObjectPart, ReadLimits, ReaderOptions};
use rsshm_testkit::{
    Channel, eventually,
    role::{self, Role, listen, say},
    timed,
};

use super::{
    accepting, is_object, next_frame, poll_for,
    pool::{Pool, memfd, object_writer, open_files},
};
use crate::support::{ChannelExt, SECOND, SIZE, descriptor, open_reader, poll, slots};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/reader of new memory", |arguments| {
        reader_of_new_memory(arguments[0])
    }),
    ("objects/writer of new memory", |arguments| {
        writer_of_new_memory(arguments[0])
    }),
];

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
