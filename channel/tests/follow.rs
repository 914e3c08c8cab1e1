//! Readers follow a channel through new formats, other writers, deaths and lost files.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use common::{
    Channel, Service, check,
    child::{self, Child, listen, say},
    next,
    peer::Peer,
    poll, publish, publish_sized, slots, wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{ForkResult, Pid, fork},
};
use rsshm_channel::{
    Caps, ChannelName, Next, ReadLimits, Writer, WriterOptions,
    layout::{reader_state, state},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn child() {
    child::play(&[("writes", writes), ("writes and forks", writes_and_forks)]);
}

fn open(channel: &str) -> Writer {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(12)).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    writer
}

/// Publishes as many frames as it is told.
fn writes(channel: &str) {
    let writer = open(channel);
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

fn writes_and_forks(channel: &str) {
    let writer = open(channel);
    assert!(publish(&writer, 1));
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        ForkResult::Parent { child } => say(child),
    }
    listen();
}

/// All frames of the old segment come, in order, then those of the new one; nothing is missed.
#[test]
fn another_format_and_larger_frames_are_followed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(24));
    let service = Service::of(&writer);
    let (mut reader, mut observer, mut copy) = (channel.reader(), channel.observer(), Vec::new());
    assert!(publish(&writer, 1));
    for reader in [&mut reader, &mut observer] {
        check(&next(reader, &mut copy), &copy, 1);
        assert_eq!((reader.caps(), reader.segment_changes()), (common::CAPS, 0));
    }
    let mut value = 1;
    for (segment_changes, (caps, size)) in [("a", 999), ("b", 999), ("b", 50_000), ("c", 10)]
        .into_iter()
        .enumerate()
    {
        let former = reader.caps().to_owned();
        // Two of the old format that nobody has taken yet, two of the new.
        let frames = [(true, common::SIZE.min(10)), (true, 10), (false, size), (false, size)];
        for (old, size) in frames {
            if !old {
                writer.set_caps(Caps::fixed_size(caps, size));
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
    let seen = service.seen();
    assert_eq!(
        (seen.connected, seen.disconnected),
        (vec![0], vec![]),
        "one reader, once"
    );
}

/// A frame in place stays as it is when its segment is superseded and given back.
#[test]
fn held_frames_outlive_their_segment() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let held = common::next_in_place(&writer, &mut reader, &mut copy);
    let (old, control) = (
        std::fs::File::open(channel.segment()).unwrap(),
        Peer::open(&channel).header.slots_offset,
    );
    let in_slots = || old.metadata().unwrap().blocks() * 512 - control;
    assert!(in_slots() >= 3 * common::SIZE as u64);
    assert!(publish_sized(&writer, 2, 2 * common::SIZE));
    check(&next(&mut reader, &mut copy), &copy, 2);
    // Time for the service to give the rest of the old segment back.
    let end = Instant::now() + Duration::from_millis(1600);
    while Instant::now() < end {
        assert!(publish(&writer, 3));
        std::thread::sleep(Duration::from_millis(20));
    }
    common::check_bytes(&held, &copy);
    assert_eq!(in_slots(), common::SIZE as u64, "only what is held is kept");
}

/// The writer is killed and another takes over: the same reader goes on, and the numbers run on.
#[test]
fn a_killed_writer_is_replaced_and_followed() {
    let channel = Channel::new();
    let mut first = Child::start("writes", channel.as_str());
    first.tell("5");
    first.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    check(&next(&mut reader, &mut copy), &copy, 5);
    assert_eq!(reader.stats().writer_pid, first.pid().as_raw() as u32);
    first.tell("2");
    first.expect("published");
    first.signal(Signal::SIGKILL);
    check(&next(&mut reader, &mut copy), &copy, 6);
    check(&next(&mut reader, &mut copy), &copy, 7);
    let mut second = Child::start("writes", channel.as_str());
    second.tell("3");
    second.expect("published");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&10) {
        // Whether it sees the death or the new segment first is a matter of luck.
        match reader.next(&mut copy, ReadLimits::default(), Some(5 * SECOND)).unwrap() {
            Next::Frame(frame) => {
                assert_eq!(frame.discontinuity, numbers.is_empty());
                numbers.push(frame.seq);
            }
            Next::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers.last(), Some(&10), "{numbers:?}");
    assert!(numbers.is_sorted() && numbers[0] >= 8);
    assert_eq!(reader.stats().writer_pid, second.pid().as_raw() as u32);
}

/// A death is noticed however short the reader's patience is.
#[test]
fn a_killed_writer_is_missed_within_a_second() {
    for patience in [None, Some(Duration::from_millis(50)), Some(Duration::ZERO)] {
        let channel = Channel::new();
        let mut writer = Child::start("writes", channel.as_str());
        writer.tell("1");
        writer.expect("published");
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        next(&mut reader, &mut copy);
        writer.kill();
        let began = Instant::now();
        while !matches!(
            reader.next(&mut copy, ReadLimits::default(), patience).unwrap(),
            Next::Lost
        ) {
            assert!(began.elapsed() < SECOND, "with the patience {patience:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!reader.is_connected());
    }
}

#[test]
fn a_forked_child_does_not_keep_a_dead_writers_channel() {
    let channel = Channel::new();
    let mut writer = Child::start("writes and forks", channel.as_str());
    let grandchild = Pid::from_raw(writer.receive().parse().unwrap());
    writer.kill();
    let began = Instant::now();
    let next = Writer::open(channel.0.clone(), WriterOptions::default());
    let lives = kill(grandchild, None).is_ok();
    kill(grandchild, Signal::SIGKILL).unwrap();
    assert!(lives && next.is_ok(), "{next:?}");
    assert!(began.elapsed() < 2 * SECOND);
}

/// A reader that has found nothing to follow yet is still in the old segment: a lossless writer waits for it, and it is
/// not counted out and in again.
#[test]
fn a_reader_leaves_the_old_segment_for_the_new_one_only() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    let old = Peer::open(&channel);
    let state = || old.entry(0).state.load(Ordering::SeqCst);
    old.status().state.store(state::SUPERSEDED, Ordering::SeqCst);
    assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    assert_eq!(state(), reader_state::ATTACHED);
    writer.set_caps(Caps::fixed_size("new", common::SIZE));
    assert!(publish(&writer, 2));
    check(&next(&mut reader, &mut copy), &copy, 2);
    assert_eq!(state(), reader_state::MOVED);
    assert_eq!(
        Peer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        reader_state::ATTACHED
    );
    drop(reader);
    assert_eq!(
        Peer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        reader_state::LEFT
    );
}

/// A stopped writer is not a dead one.
#[test]
fn a_stopped_writer_keeps_its_channel() {
    let channel = Channel::new();
    let mut writer = Child::start("writes", channel.as_str());
    writer.tell("1");
    writer.expect("published");
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    writer.signal(Signal::SIGSTOP);
    let began = Instant::now();
    while began.elapsed() < SECOND {
        assert!(matches!(poll(&mut reader, &mut copy), Next::TimedOut));
    }
    let second = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(matches!(second, Err(rsshm_channel::Error::Busy { .. })), "{second:?}");
    writer.signal(Signal::SIGCONT);
    writer.tell("1");
    check(&next(&mut reader, &mut copy), &copy, 2);
}

/// The files are removed under the writer: it makes them again, who was there goes on, who comes finds it.
#[test]
fn deleted_files_come_back() {
    for (segment, semaphore) in [(true, true), (true, false), (false, true)] {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        let service = Service::of(&writer);
        let (mut old, mut copy) = (channel.reader(), Vec::new());
        {
            // One more in the first seat, so that the other has another one than in the new files.
            assert!(publish(&writer, 1));
            let mut first = channel.reader();
            next(&mut first, &mut copy);
            next(&mut old, &mut copy);
        }
        let held = common::next_in_place(&writer, &mut old, &mut copy);
        let mut value = held.seq;
        for (remove, file) in [(segment, channel.segment()), (semaphore, channel.semaphore())] {
            if remove {
                std::fs::remove_file(file).unwrap();
            }
        }
        wait_until("restored", 4 * SECOND, || {
            value += 1;
            assert!(publish(&writer, value));
            let frame = next(&mut old, &mut copy);
            assert_eq!(frame.missed, 0);
            check(&frame, &copy, value);
            channel.segment().exists() && channel.semaphore().exists() && service.seen().names_restored
        });
        // Longer than the old segment is kept.
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            value += 1;
            assert!(publish(&writer, value));
            let frame = next(&mut old, &mut copy);
            assert_eq!(frame.missed, 0);
            check(&frame, &copy, value);
            std::thread::sleep(Duration::from_millis(10));
        }
        common::check_bytes(&held, &[]);
        let mut new = channel.reader();
        check(&next(&mut new, &mut copy), &copy, value);
        assert!(!new.is_observer() && !old.is_observer());
        wait_until("both are counted", SECOND, || service.seen().reader_count == 2);
        common::check_bytes(&held, &[]);
        drop((service, writer));
        channel.assert_nothing_left();
    }
}

/// Another program's file under the name of the deleted one is left alone, and said.
#[test]
fn a_stolen_name_is_not_taken_back() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    std::fs::remove_file(channel.segment()).unwrap();
    std::fs::write(channel.segment(), "mine").unwrap();
    std::thread::sleep(SECOND + Duration::from_millis(50));
    let said = writer.service();
    assert!(matches!(said, Err(rsshm_channel::Error::Busy { .. })), "{said:?}");
    writer.set_caps(Caps::fixed_size("other", 5));
    let said = writer.claim(5);
    assert!(matches!(said, Err(rsshm_channel::Error::Foreign { .. })), "{said:?}");
    drop(writer);
    assert_eq!(std::fs::read(channel.segment()).unwrap(), b"mine");
}

/// What a dead writer left is replaced, however damaged; what was never a channel is not touched.
#[test]
fn damaged_segments_are_replaced_if_they_were_ours() {
    type Damage = fn(&mut [u8]);
    let damage: [(&str, Damage); 5] = [
        ("magic", |bytes| bytes[0] ^= 1),
        ("version", |bytes| bytes[8] ^= 1),
        ("empty", |bytes| bytes.fill(0)),
        ("slot_size", |bytes| {
            // A whole number of pages, and more than can be mapped.
            let at = std::mem::offset_of!(rsshm_channel::layout::Header, slot_size);
            bytes[at..at + 8].copy_from_slice(&(1u64 << 55).to_ne_bytes());
        }),
        ("head", |bytes| bytes[256..264].fill(0xff)),
    ];
    for (what, damage) in damage {
        let channel = Channel::new();
        let mut dead = Child::start("writes", channel.as_str());
        dead.tell("3");
        dead.expect("published");
        dead.kill();
        let mut bytes = std::fs::read(channel.segment()).unwrap();
        damage(&mut bytes);
        std::fs::write(channel.segment(), &bytes).unwrap();
        assert!(matches!(
            channel
                .reader()
                .next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_millis(50))),
            Err(rsshm_channel::Error::Damaged { .. }) | Ok(Next::TimedOut)
        ));

        // Without the other file it may be anybody's.
        if what != "head" {
            let staging = format!("{}.aside", channel.semaphore().display());
            std::fs::rename(channel.semaphore(), &staging).unwrap();
            let refused = Writer::open(channel.0.clone(), WriterOptions::default());
            assert!(
                matches!(refused, Err(rsshm_channel::Error::Damaged { .. })),
                "{what}: {refused:?}"
            );
            assert_eq!(std::fs::read(channel.segment()).unwrap(), bytes);
            assert!(!channel.semaphore().exists());
            std::fs::rename(staging, channel.semaphore()).unwrap();
        }

        let writer = channel.writer(slots(12));
        assert!(publish(&writer, 1));
        let frame = next(&mut channel.reader(), &mut Vec::new());
        assert!(frame.seq < 1 << 48, "{what}");
        drop(writer);
        channel.assert_nothing_left();
    }
}

#[test]
fn a_damaged_semaphore_is_mended_by_the_next_writer() {
    for size in [0, 5] {
        let channel = Channel::new();
        std::fs::write(channel.semaphore(), vec![0xff; size]).unwrap();
        let writer = channel.writer(slots(12));
        for value in 1..5 {
            assert!(publish(&writer, value));
        }
        drop(writer);
        channel.assert_nothing_left();
    }
}

/// A start that fails leaves nothing, and takes nothing away.
#[test]
fn what_is_no_file_is_refused() {
    let channel = Channel::new();
    std::fs::create_dir(channel.segment()).unwrap();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    let said = format!("{:?}", refused.as_ref().err());
    let read = channel
        .reader()
        .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND));
    std::fs::remove_dir(channel.segment()).unwrap();
    assert!(matches!(refused, Err(rsshm_channel::Error::Foreign { .. })), "{said}");
    assert!(read.is_err(), "{read:?}");
    assert!(!channel.semaphore().exists());

    std::os::unix::fs::symlink("/dev/null", channel.segment()).unwrap();
    let refused = Writer::open(channel.0.clone(), WriterOptions::default());
    assert!(
        matches!(refused, Err(rsshm_channel::Error::Foreign { .. })),
        "{refused:?}"
    );
    assert!(
        channel
            .reader()
            .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND))
            .is_err()
    );
    assert!(Path::new(&channel.segment()).is_symlink());
}

/// Readers wait for a channel that is not there, and for its first frame.
#[test]
fn a_reader_may_come_first() {
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
