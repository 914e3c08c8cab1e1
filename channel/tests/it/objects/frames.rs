// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bytes of frames of objects, in place and copied, for one reader and for many.

use std::{
    collections::BTreeSet,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use rsshm_channel::{
    FrameData, Next, ObjectFault, ObjectKind, ObjectPart, Observer, ReadLimits, Reader, ReaderOptions,
};
use rsshm_testkit::{
    Channel, eventually,
    frames::is_filled,
    role::{self, Role, say},
};

use super::{
    accepting, check_objects, is_object, next_frame,
    pool::{Pool, assert_out, mappings, memfd, name_of, object_writer, open_files},
};
use crate::support::{ChannelExt, SECOND, SIZE, Service, descriptor, lossless, next_within, open_reader, slots};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/reader", |arguments| reader(arguments[0])),
    ("objects/measured writer", |arguments| measured_writer(arguments[0])),
];

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
    // A loaded machine may let the writer's short waits for held frames end too early, and then more frames are copied.
    eventually("frames in place", || {
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
        println!("{counts}");
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
        in_place > 450 && copied < 50
    });
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
