// SPDX-License-Identifier: MIT OR Apache-2.0

//! The choice of slots for frames: how long frames stay, and which slots the writer may not claim.

use std::{sync::mpsc, time::Duration};

use rsshm_channel::{Caps, Error, FrameDescriptor, Observer, Writer, WriterOptions};
use rsshm_testkit::{Channel, frames::is_filled, wait_until};

use crate::support::{
    ChannelExt, SECOND, SIZE, Service, check, descriptor, is_in_place, next, publish, publish_sized, raw::RawPeer,
    slots,
};

/// A frame survives `history` later publishes, and the writer commits only the slots that this requires.
#[test]
fn frame_survives_history_more_publishes() {
    for (max_slots, history) in [(3, 2), (4, 2), (11, 2), (12, 4), (64, 4)] {
        let channel = Channel::new();
        let writer = channel.writer(slots(max_slots));
        let mut reader = channel.reader();
        let mut copy = Vec::new();
        assert!(publish(&writer, 1));
        check(&next(&mut reader, &mut copy), &copy, 1);
        assert_eq!(reader.history(), history);
        for round in 0..10 {
            let base = 2 + round * (u64::from(history) + 1);
            for value in base..=base + u64::from(history) {
                assert!(publish(&writer, value), "no slot for {value} of {max_slots}");
            }
            // `history` frames have been published after the oldest unread frame.
            for value in base..=base + u64::from(history) {
                let frame = next(&mut reader, &mut copy);
                assert_eq!(frame.missed, 0, "before {value} with {max_slots} slots");
                check(&frame, &copy, value);
            }
        }
        // The writer commits one slot more than `history`. Where readers may pin slots, it keeps two spare slots too.
        let spare = if max_slots > history + 2 { 2 } else { 0 };
        assert_eq!(writer.stats().slots, history + 1 + spare, "of {max_slots}");
    }
}

/// The kernel takes milliseconds to commit a large slot. Meanwhile, the writer publishes frames in the slots that are
/// already committed.
#[test]
fn publishing_goes_on_while_service_commits_slots() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let size = 8 << 20;
    writer.set_caps(Caps::fixed_size("large", size)).unwrap();
    let publish_empty = |value| {
        let slot = writer
            .claim(size)
            .unwrap()
            .unwrap_or_else(|| panic!("no slot for {value}"));
        writer.publish(&slot, FrameDescriptor::default(), &[]).unwrap();
    };
    (1..=3).for_each(publish_empty);
    // A reader attaches, so the writer needs more slots.
    let peer = RawPeer::open(&channel);
    peer.attach();
    std::thread::scope(|scope| {
        let service = scope.spawn(|| writer.service().unwrap());
        std::thread::sleep(Duration::from_micros(500));
        for value in 4.. {
            publish_empty(value);
            if service.is_finished() {
                break;
            }
        }
    });
}

#[test]
fn claims_leave_newest_frames_to_readers() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    for value in 1..=20 {
        assert!(publish(&writer, value));
    }
    let mut claimed = Vec::new();
    while let Some(slot) = writer.claim(SIZE).unwrap() {
        claimed.push(slot);
        assert!(claimed.len() < 4);
    }
    let peer = RawPeer::open(&channel);
    assert_eq!(peer.seqs(), [19, 20], "the two newest");
    let observer = Observer::open(&channel).unwrap().unwrap();
    let mut copy = Vec::new();
    assert_eq!(observer.newest(&mut copy).unwrap().0, 20);
    assert!(is_filled(&copy, 20));
    assert!(!publish(&writer, 21), "there is no slot for it");
    claimed.pop();
    assert!(publish(&writer, 21));
}

#[test]
fn slots_are_committed_when_first_needed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    let file_size = || std::fs::metadata(channel.segment()).unwrap().len();
    assert!(publish(&writer, 1));
    assert_eq!(writer.stats().slots, 4);
    assert_eq!(writer.stats().bytes, file_size());
    let mut claimed = Vec::new();
    for expected in [4, 4, 4, 5, 6] {
        claimed.push(writer.claim(SIZE).unwrap().expect("a new slot"));
        assert_eq!(writer.stats().slots, expected);
        assert_eq!(writer.stats().bytes, file_size());
    }
    assert!(writer.claim(SIZE).unwrap().is_none());
    assert_eq!(writer.stats().slots_in_use, 6);
    drop(claimed);
    assert_eq!(writer.stats().slots_in_use, 1);
    // Every byte of the slots is committed. If they had a hole, a peer could fill the hole, and the kernel could kill a
    // peer that reads it.
    let peer = RawPeer::open(&channel);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(channel.segment()).unwrap());
    assert_eq!(blocks * 512, peer.tables_memory(6) + 6 * peer.header.slot_size);
}

#[test]
fn upstream_gets_half_of_the_slots() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let mut out = Vec::new();
    while let Some(slot) = writer.upstream().claim(SIZE).unwrap() {
        out.push(slot);
    }
    assert_eq!(out.len(), 4);
    for value in 1..=50 {
        assert!(
            publish(&writer, value),
            "the other half of the slots is for copied frames"
        );
    }
    out.pop();
    assert!(writer.upstream().claim(SIZE).unwrap().is_some());
}

#[test]
fn claimed_memory_is_published_once_and_not_reused() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let mut slot = writer.claim(SIZE).unwrap().unwrap();
    slot.as_mut().fill(77);
    // The test keeps only the address of the slot's memory, as a GstMemory does.
    let (start, size) = (slot.as_mut().as_ptr(), slot.as_mut().len());
    // SAFETY: this is the slot's memory, which stays mapped and unchanged while `slot` lives.
    let memory = unsafe { std::slice::from_raw_parts(start, size) };
    let descriptor = descriptor(SIZE, 77);
    let mut too_large = descriptor;
    too_large.data_offset = 1;
    assert!(matches!(
        writer.publish(&slot, too_large, &[]),
        Err(Error::TooLarge { .. })
    ));
    writer.publish(&slot, descriptor, &[]).unwrap();
    let again = writer.publish(&slot, descriptor, &[]);
    assert!(matches!(again, Err(Error::NotPublishable { .. })), "{again:?}");
    let in_place = writer.upstream().publish(memory, descriptor, &[]);
    assert!(matches!(in_place, Err(Error::NotPublishable { .. })), "{in_place:?}");
    assert!(
        slot.is_published() && slot.as_mut().is_empty(),
        "a published frame cannot be drawn into"
    );
    for value in 1..=50 {
        assert!(publish(&writer, value % 70));
    }
    assert!(is_filled(memory, 77), "the slot was reused while it was claimed");
    assert!(writer.upstream().owns(memory));
    assert!(!writer.upstream().owns(&[0; 16]));
    let foreign = writer.upstream().publish(&[0; 16], FrameDescriptor::default(), &[]);
    assert!(matches!(foreign, Err(Error::NotPublishable { .. })));
    // This slot belongs to the older segment after the next publish, because the larger frame needs a new segment.
    let mut old = writer.claim(SIZE).unwrap().unwrap();
    assert!(publish_sized(&writer, 1, 10 * SIZE));
    let late = writer.publish(&old, descriptor, &[]);
    assert!(matches!(late, Err(Error::NotPublishable { .. })), "{late:?}");
    old.as_mut().fill(1); // the slot's memory still exists
}

#[test]
fn part_of_a_slot_is_published_in_place() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut slot = writer.claim(SIZE).unwrap().unwrap();
    slot.as_mut().fill(1);
    slot.as_mut()[100..300].fill(9);
    writer
        .upstream()
        .publish(&slot.as_mut()[100..300], descriptor(0, 9), &[])
        .unwrap();
    let mut copy = Vec::new();
    for mut reader in [channel.reader(), channel.observer()] {
        let frame = next(&mut reader, &mut copy);
        assert_eq!((frame.descriptor.size, frame.descriptor.data_offset), (200, 100));
        check(&frame, &copy, 9);
    }
}

#[test]
fn frames_may_be_empty() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer.set_caps(Caps::fixed_size("application/x-nothing", 0)).unwrap();
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), vec![1; 5]);
    for value in 1..=10 {
        assert!(publish_sized(&writer, value, 0));
        check(&next(&mut reader, &mut copy), &copy, value);
    }
}

#[test]
fn writer_needs_caps_of_legal_size_first() {
    let channel = Channel::new();
    let writer = Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    assert!(matches!(writer.claim(1), Err(Error::Option { .. })));
    let caps_of_size = |size: usize| Caps::fixed_size(format!("a/b,c={}", "x".repeat(size - 6)), 1);
    let too_large = writer.set_caps(caps_of_size(64 * 1024 + 1));
    assert!(matches!(too_large, Err(Error::TooLarge { .. })), "{too_large:?}");
    assert!(matches!(writer.claim(1), Err(Error::Option { .. })));
    writer.set_caps(caps_of_size(64 * 1024)).unwrap();
    assert!(publish(&writer, 1));
    let too_large = writer.claim(usize::MAX);
    assert!(matches!(too_large, Err(Error::TooLarge { .. })), "{too_large:?}");
    let mut reader = channel.reader();
    next(&mut reader, &mut Vec::new());
    assert_eq!(reader.caps().len(), 64 * 1024);
}

/// Upstream claims all slots that it may have, publishes them and does not release them. The writer still finds slots
/// for frames that it copies.
#[test]
fn slots_kept_by_upstream_do_not_stop_copied_frames() {
    for (max_slots, lossless) in [3, 4, 5, 12]
        .into_iter()
        .flat_map(|max_slots| [(max_slots, false), (max_slots, true)])
    {
        let channel = Channel::new();
        let writer = channel.writer(slots(max_slots).lossless(lossless));
        let mut kept = Vec::new();
        while let Some(slot) = writer.upstream().claim(SIZE).unwrap() {
            writer.publish(&slot, descriptor(SIZE, 0), &[]).unwrap();
            kept.push(slot);
        }
        assert!(!kept.is_empty());
        std::thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            let writer = &writer;
            // If the writer waited for upstream to release a slot, it would wait for ever. After five seconds, this
            // thread ends such a wait.
            scope.spawn(move || {
                if ended.recv_timeout(5 * SECOND) == Err(mpsc::RecvTimeoutError::Timeout) {
                    writer.interrupt();
                }
            });
            for value in 1..=20 {
                assert!(publish(writer, value), "no slot of {max_slots}, lossless {lossless}");
            }
            drop(done);
        });
    }
}

/// The readers hold different frames. The service needs some time to commit slots for them. Meanwhile, the publishing
/// thread still gets slots.
#[test]
fn no_frame_is_dropped_while_readers_get_slots() {
    const LARGE: usize = 8 << 20;
    const HELD: usize = 3;
    let channel = Channel::new();
    let writer = channel.writer(slots(24));
    let _service = Service::of(&writer);
    let publish = || {
        let slot = writer.claim(LARGE).unwrap().expect("a slot");
        // The frame consists of the first eight bytes of the slot.
        writer.publish(&slot, descriptor(8, 0), &[]).unwrap();
    };
    publish();
    let mut readers = [(); 5].map(|()| (channel.reader(), Vec::new()));
    let mut copy = Vec::new();
    wait_until("each holds frames of its own", 10 * SECOND, || {
        for (reader, held) in &mut readers {
            publish();
            reader.seek_newest();
            let frame = next(reader, &mut copy);
            if is_in_place(&frame) && held.len() < HELD {
                held.push(frame);
            }
        }
        readers.iter().all(|(_, held)| held.len() == HELD)
    });
    assert!(writer.stats().slots >= 5 * HELD as u32 + 2, "{:?}", writer.stats());
    assert_eq!(writer.stats().dropped, 0);
}
