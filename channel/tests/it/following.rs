// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers follow a channel through new caps, other writers, killed writers and lost files.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rsshm_channel::{
    Caps, Error, Next, ReadLimits, Writer, WriterOptions,
    layout::{Header, reader_state, state},
};
use rsshm_testkit::{
    Channel, eventually, need_real_machine,
    process::fork_sleeper,
    role::{self, Role, listen, say},
};

use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, check, check_bytes, next, next_in_place, open_writer, poll, publish,
    publish_sized, raw::RawPeer, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("following/writer", |arguments| writer(arguments[0])),
    ("following/forking writer", |arguments| forking_writer(arguments[0])),
];

/// Publishes frames. Each line that it receives from the test is the number of frames to publish.
fn writer(channel: &str) {
    let writer = open_writer(channel, slots(12));
    let mut value = 0;
    loop {
        for _ in 0..listen().parse().unwrap() {
            value += 1;
            assert!(publish(&writer, value));
            writer.service().unwrap();
        }
        say("published");
    }
}

/// Publishes a frame, forks a child process that does nothing, and waits for ever.
fn forking_writer(channel: &str) {
    let writer = open_writer(channel, slots(12));
    assert!(publish(&writer, 1));
    say(fork_sleeper());
    listen();
}

/// The reader gets all frames of the old segment in order, and then all frames of the new segment. It misses no frame.
#[test]
fn reader_follows_new_caps_and_larger_frames() {
    let channel = Channel::new();
    // No service runs while the readers read, because it releases superseded segments after a second.
    let writer = channel.writer(slots(24));
    let (mut reader, mut observer, mut copy) = (channel.reader(), channel.observer(), Vec::new());
    assert!(publish(&writer, 1));
    for reader in [&mut reader, &mut observer] {
        check(&next(reader, &mut copy), &copy, 1);
        assert_eq!((reader.caps(), reader.segment_changes()), (CAPS, 0));
    }
    let mut value = 1;
    for (segment_changes, (caps, size)) in [("a", 999), ("b", 999), ("b", 50_000), ("c", 10)]
        .into_iter()
        .enumerate()
    {
        let former = reader.caps().to_owned();
        // The first two frames have the old caps, and no reader takes them before the caps change. The other two frames
        // have the new caps.
        let frames = [(true, SIZE.min(10)), (true, 10), (false, size), (false, size)];
        for (old, size) in frames {
            if !old {
                writer.set_caps(Caps::fixed_size(caps, size)).unwrap();
            }
            value += 1;
            assert!(publish_sized(&writer, value, size));
        }
        for reader in [&mut reader, &mut observer] {
            for (back, (old, size)) in (0..4).rev().zip(frames) {
                let frame = next(reader, &mut copy);
                check(&frame, &copy, value - back);
                assert_eq!((frame.missed, frame.descriptor.size), (0, size as u64));
                assert_eq!(frame.discontinuity, back == 1);
                assert_eq!(reader.caps(), if old { &*former } else { caps });
                assert_eq!(reader.segment_changes(), segment_changes as u64 + u64::from(!old));
            }
        }
    }
    assert_eq!(writer.stats().segments, 5);
    let seen = writer.service().unwrap();
    assert_eq!(
        (seen.connected, seen.disconnected),
        (vec![0], vec![]),
        "one reader, once"
    );
}

/// A frame that a reader holds in place does not change when the frame's segment is superseded and released.
#[test]
fn held_frame_outlives_its_segment() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let held = next_in_place(&writer, &mut reader, &mut copy);
    let old = std::fs::File::open(channel.segment()).unwrap();
    let tables_size = RawPeer::open(&channel).tables_memory(writer.stats().slots);
    let in_slots = || old.metadata().unwrap().blocks() * 512 - tables_size;
    assert!(in_slots() >= 3 * SIZE as u64);
    assert!(publish_sized(&writer, 2, 2 * SIZE));
    check(&next(&mut reader, &mut copy), &copy, 2);
    eventually("only the held frame is kept", || {
        assert!(publish(&writer, 3));
        in_slots() == SIZE as u64
    });
    check_bytes(&held, &copy);
}

/// The writer is killed, and another writer takes over the channel. The reader continues, and the new writer continues
/// the seqs.
#[test]
fn reader_follows_writer_that_replaces_killed_one() {
    let channel = Channel::new();
    let mut first = role::start("following/writer", &[channel.as_str()]);
    first.send("5");
    first.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 5);
    assert_eq!(reader.stats().writer_pid, first.pid().as_raw() as u32);
    first.send("2");
    first.expect("published");
    first.signal(Signal::SIGKILL);
    check(&next(&mut reader, &mut copy), &copy, 6);
    check(&next(&mut reader, &mut copy), &copy, 7);
    let mut second = role::start("following/writer", &[channel.as_str()]);
    second.send("3");
    second.expect("published");
    let mut seqs = Vec::new();
    while seqs.last() != Some(&10) {
        // The reader may notice the killed writer first, or the new segment first.
        match reader.next(&mut copy, ReadLimits::default(), Some(5 * SECOND)).unwrap() {
            Next::Frame(frame) => {
                assert_eq!(frame.discontinuity, seqs.is_empty());
                seqs.push(frame.seq);
            }
            Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seqs.last(), Some(&10), "{seqs:?}");
    assert!(seqs.is_sorted() && seqs[0] >= 8);
    assert_eq!(reader.stats().writer_pid, second.pid().as_raw() as u32);
}

/// Within a second, the reader notices that its writer was killed, whatever the reader's timeout is.
#[test]
fn reader_notices_killed_writer_within_a_second() {
    for timeout in [None, Some(Duration::from_millis(50)), Some(Duration::ZERO)] {
        // Other programs can delay the reader too, so the test repeats this.
        eventually(&format!("within a second with the timeout {timeout:?}"), || {
            let channel = Channel::new();
            let mut writer = role::start("following/writer", &[channel.as_str()]);
            writer.send("1");
            writer.expect("published");
            let (mut reader, mut copy) = (channel.reader(), Vec::new());
            next(&mut reader, &mut copy);
            writer.kill();
            let took = eventually("the reader notices the killed writer", || {
                let next = reader.next(&mut copy, ReadLimits::default(), timeout);
                matches!(next, Ok(Next::Lost))
            });
            assert!(!reader.is_connected());
            took < SECOND
        });
    }
}

#[test]
fn forked_child_does_not_hold_dead_writers_channel() {
    need_real_machine!("a forked child keeps MADV_DONTFORK pages");
    let channel = Channel::new();
    let mut writer = role::start("following/forking writer", &[channel.as_str()]);
    let grandchild = Pid::from_raw(writer.receive().parse().unwrap());
    writer.kill();
    let next = Writer::open(channel.0.clone(), WriterOptions::default());
    let is_alive = kill(grandchild, None).is_ok();
    kill(grandchild, Signal::SIGKILL).unwrap();
    assert!(is_alive && next.is_ok(), "{next:?}");
}

/// A reader that finds no other segment stays attached to the superseded segment. A lossless writer waits for this
/// reader, and the service does not report that the reader left and came back.
#[test]
fn reader_stays_in_superseded_segment_until_another_exists() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    let old = RawPeer::open(&channel);
    let state = || old.entry(0).state.load(Ordering::SeqCst);
    old.status().state.store(state::SUPERSEDED, Ordering::SeqCst);
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    assert_eq!(state(), reader_state::ATTACHED);
    writer.set_caps(Caps::fixed_size("new", SIZE)).unwrap();
    assert!(publish(&writer, 2));
    check(&next(&mut reader, &mut copy), &copy, 2);
    assert_eq!(state(), reader_state::MOVED);
    assert_eq!(
        RawPeer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        reader_state::ATTACHED
    );
    drop(reader);
    assert_eq!(
        RawPeer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        reader_state::LEFT
    );
}

#[test]
fn stopped_writer_keeps_its_channel() {
    let channel = Channel::new();
    let mut writer = role::start("following/writer", &[channel.as_str()]);
    writer.send("1");
    writer.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    writer.signal(Signal::SIGSTOP);
    let began = Instant::now();
    while began.elapsed() < SECOND {
        assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    }
    let second = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(matches!(second, Err(Error::Busy { .. })), "{second:?}");
    writer.signal(Signal::SIGCONT);
    writer.send("1");
    check(&next(&mut reader, &mut copy), &copy, 2);
}

/// The channel's files are removed while the writer runs. The writer creates the files again. Attached readers
/// continue, and new readers find the channel.
#[test]
fn writer_restores_deleted_files() {
    for (segment, semaphore) in [(true, true), (true, false), (false, true)] {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        let service = Service::of(&writer);
        let (mut old, mut copy) = (channel.reader(), Vec::new());
        {
            // Another reader takes the first entry and leaves, so that the reader `old` gets a different entry in
            // the new files.
            assert!(publish(&writer, 1));
            let mut first = channel.reader();
            next(&mut first, &mut copy);
            next(&mut old, &mut copy);
        }
        let held = next_in_place(&writer, &mut old, &mut copy);
        let mut value = held.seq;
        for (remove, file) in [(segment, channel.segment()), (semaphore, channel.lock_file())] {
            if remove {
                std::fs::remove_file(file).unwrap();
            }
        }
        eventually("restored", || {
            value += 1;
            assert!(publish(&writer, value));
            let frame = next(&mut old, &mut copy);
            assert_eq!(frame.missed, 0);
            check(&frame, &copy, value);
            channel.segment().exists() && channel.lock_file().exists() && service.seen().names_restored
        });
        // The test reads for 1.5 seconds, which is longer than the writer keeps the old segment.
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            value += 1;
            assert!(publish(&writer, value));
            let frame = next(&mut old, &mut copy);
            assert_eq!(frame.missed, 0);
            check(&frame, &copy, value);
            std::thread::sleep(Duration::from_millis(10));
        }
        check_bytes(&held, &[]);
        let mut new = channel.reader();
        check(&next(&mut new, &mut copy), &copy, value);
        assert!(!new.is_observer() && !old.is_observer());
        eventually("both are counted", || service.seen().reader_count == 2);
        check_bytes(&held, &[]);
        drop((service, writer));
        channel.assert_removed();
    }
}

/// The segment's file was deleted, and another program created a file with its name. The writer reports the new file
/// and does not touch it.
#[test]
fn writer_does_not_take_back_a_stolen_name() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    std::fs::remove_file(channel.segment()).unwrap();
    std::fs::write(channel.segment(), "mine").unwrap();
    std::thread::sleep(SECOND + Duration::from_millis(50));
    let refused = writer.service();
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    writer.set_caps(Caps::fixed_size("other", 5)).unwrap();
    let refused = writer.claim(5);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    drop(writer);
    assert_eq!(std::fs::read(channel.segment()).unwrap(), b"mine");
}

/// A writer replaces a dead writer's segment, however the segment is damaged. It does not touch a file that never
/// belonged to a channel.
#[test]
fn writer_replaces_only_damaged_segments_with_lock_file() {
    type Damage = fn(&mut [u8]);
    let damage: [(&str, Damage); 5] = [
        ("magic", |bytes| bytes[0] ^= 1),
        ("version", |bytes| bytes[8] ^= 1),
        ("empty", |bytes| bytes.fill(0)),
        ("slot_size", |bytes| {
            // The value is a whole number of pages, but too large to be mapped.
            let at = std::mem::offset_of!(Header, slot_size);
            bytes[at..at + 8].copy_from_slice(&(1u64 << 55).to_ne_bytes());
        }),
        ("head", |bytes| bytes[256..264].fill(0xff)),
    ];
    for (what, damage) in damage {
        let channel = Channel::new();
        let mut dead = role::start("following/writer", &[channel.as_str()]);
        dead.send("3");
        dead.expect("published");
        dead.kill();
        let mut bytes = std::fs::read(channel.segment()).unwrap();
        damage(&mut bytes);
        std::fs::write(channel.segment(), &bytes).unwrap();
        assert!(matches!(
            channel
                .reader()
                .next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(50))),
            Err(Error::Damaged { .. }) | Ok(Next::TimedOut)
        ));

        // Without the lock file, the writer refuses to start, because the segment may belong to another program.
        if what != "head" {
            let moved = format!("{}.moved", channel.lock_file().display());
            std::fs::rename(channel.lock_file(), &moved).unwrap();
            let refused = Writer::open(channel.0.clone(), WriterOptions::default());
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{what}: {refused:?}");
            assert_eq!(std::fs::read(channel.segment()).unwrap(), bytes);
            assert!(!channel.lock_file().exists());
            std::fs::rename(moved, channel.lock_file()).unwrap();
        }

        let writer = channel.writer(slots(12));
        assert!(publish(&writer, 1));
        let frame = next(&mut channel.reader(), &mut Vec::new());
        assert!(frame.seq < 1 << 48, "{what}");
        drop(writer);
        channel.assert_removed();
    }
}

#[test]
fn next_writer_repairs_damaged_semaphore() {
    for size in [0, 5] {
        let channel = Channel::new();
        std::fs::write(channel.lock_file(), vec![0xff; size]).unwrap();
        let writer = channel.writer(slots(12));
        for value in 1..5 {
            assert!(publish(&writer, value));
        }
        drop(writer);
        channel.assert_removed();
    }
}

/// A writer that fails to start creates no file and removes no file.
#[test]
fn writer_refuses_names_that_are_no_files() {
    let channel = Channel::new();
    std::fs::create_dir(channel.segment()).unwrap();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    let reason = format!("{:?}", refused.as_ref().err());
    let read = channel
        .reader()
        .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND));
    std::fs::remove_dir(channel.segment()).unwrap();
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{reason}");
    assert!(read.is_err(), "{read:?}");
    assert!(!channel.lock_file().exists());

    std::os::unix::fs::symlink("/dev/null", channel.segment()).unwrap();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    assert!(
        channel
            .reader()
            .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND))
            .is_err()
    );
    assert!(Path::new(&channel.segment()).is_symlink());
}

/// A reader waits for a channel that does not exist yet, and then for the channel's first frame.
#[test]
fn reader_may_start_before_writer() {
    let channel = Channel::new();
    let mut copy = Vec::new();
    let mut reader = channel.reader();
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    let writer = channel.writer(slots(12));
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| next(&mut reader, &mut copy).seq);
        assert!(publish(&writer, 1));
        assert_eq!(thread.join().unwrap(), 1);
    });
    assert!(rsshm_channel::channels().contains(&channel.to_string()));
}
