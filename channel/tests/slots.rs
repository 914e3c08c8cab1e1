//! Which slots frames get: how long they stay, and what may not be taken.

mod common;

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use common::{Channel, Service, check, next, peer::Peer, publish, publish_sized, slots};
use rsshm_channel::{Caps, Error, FrameDescriptor, Observer, WriterOptions};

/// A frame published last but `history` is there, whatever the writer has claimed meanwhile.
#[test]
fn a_frame_stays_for_retain_more_publishes() {
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
            // The frame after the one read last has had `history` publishes after it.
            for value in base..=base + u64::from(history) {
                let frame = next(&mut reader, &mut copy);
                assert_eq!(frame.missed, 0, "before {value} with {max_slots} slots");
                check(&frame, &copy, value);
            }
        }
        // No more is kept than that.
        assert_eq!(writer.stats().slots, (history + 1).max(3));
    }
}

/// Memory for a large slot takes the system milliseconds. Frames go on meanwhile, in the slots that are there.
#[test]
fn no_frame_is_lost_while_another_thread_gets_memory() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let size = 8 << 20;
    writer.set_caps(Caps::fixed_size("large", size));
    let publish_empty = |value| {
        let slot = writer
            .claim(size)
            .unwrap()
            .unwrap_or_else(|| panic!("no slot for {value}"));
        writer.publish(&slot, FrameDescriptor::default(), &[]).unwrap();
    };
    (1..=3).for_each(publish_empty);
    // Somebody comes, for whom there have to be more slots.
    let peer = Peer::open(&channel);
    peer.sit_down();
    std::thread::scope(|scope| {
        let service = scope.spawn(|| writer.service().unwrap());
        std::thread::sleep(std::time::Duration::from_micros(500));
        for value in 4.. {
            publish_empty(value);
            if service.is_finished() {
                break;
            }
        }
    });
}

#[test]
fn claims_never_take_what_is_kept_for_readers() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    for value in 1..=20 {
        assert!(publish(&writer, value));
    }
    let mut claimed = Vec::new();
    while let Some(slot) = writer.claim(common::SIZE).unwrap() {
        claimed.push(slot);
        assert!(claimed.len() < 4);
    }
    let peer = Peer::open(&channel);
    assert_eq!(peer.numbers(), [19, 20], "the two newest");
    let observer = Observer::open(&channel).unwrap().unwrap();
    let mut copy = Vec::new();
    assert_eq!(observer.newest(&mut copy).unwrap().0, 20);
    assert!(common::is_filled(&copy, 20));
    assert!(!publish(&writer, 21), "there is no slot for it");
    claimed.pop();
    assert!(publish(&writer, 21));
}

#[test]
fn slots_are_backed_when_they_are_needed() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    let file_size = || std::fs::metadata(channel.segment()).unwrap().len();
    assert!(publish(&writer, 1));
    assert_eq!(writer.stats().slots, 3);
    assert_eq!(writer.stats().bytes, file_size());
    let mut claimed = Vec::new();
    for expected in [3, 3, 4, 5, 6] {
        claimed.push(writer.claim(common::SIZE).unwrap().expect("room to grow"));
        assert_eq!(writer.stats().slots, expected);
        assert_eq!(writer.stats().bytes, file_size());
    }
    assert!(writer.claim(common::SIZE).unwrap().is_none());
    assert_eq!(writer.stats().slots_in_use, 6);
    drop(claimed);
    assert_eq!(writer.stats().slots_in_use, 1);
    // Every byte of the file has memory behind it: nobody can fill a hole, or die of one.
    let meta = std::fs::metadata(channel.segment()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512, meta.len());
}

#[test]
fn upstream_gets_half_of_the_slots() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let mut out = Vec::new();
    while let Some(slot) = writer.upstream().claim(common::SIZE).unwrap() {
        out.push(slot);
    }
    assert_eq!(out.len(), 4);
    for value in 1..=50 {
        assert!(publish(&writer, value), "the other half is for frames that are copied");
    }
    out.pop();
    assert!(writer.upstream().claim(common::SIZE).unwrap().is_some());
}

#[test]
fn memory_is_published_once_and_not_taken_while_it_is_in_hand() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    let mut slot = writer.claim(common::SIZE).unwrap().unwrap();
    slot.as_mut().fill(77);
    // As a GstMemory does, which keeps the address of what it wraps.
    let (start, size) = (slot.as_mut().as_ptr(), slot.as_mut().len());
    // SAFETY: the slot's memory, which stays mapped and unchanged while `slot` lives.
    let memory = unsafe { std::slice::from_raw_parts(start, size) };
    let descriptor = FrameDescriptor {
        size: common::SIZE as u64,
        offset: 77,
        ..FrameDescriptor::default()
    };
    let too_large = FrameDescriptor {
        data_offset: 1,
        ..descriptor
    };
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
        "nobody draws into a published frame"
    );
    for value in 1..=50 {
        assert!(publish(&writer, value % 70));
    }
    assert!(common::is_filled(memory, 77), "it was taken under its holder");
    assert!(writer.upstream().owns(memory));
    assert!(!writer.upstream().owns(&[0; 16]));
    let foreign = writer.upstream().publish(&[0; 16], FrameDescriptor::default(), &[]);
    assert!(matches!(foreign, Err(Error::NotPublishable { .. })));
    // Of an older segment.
    let mut old = writer.claim(common::SIZE).unwrap().unwrap();
    assert!(publish_sized(&writer, 1, 10 * common::SIZE));
    let late = writer.publish(&old, descriptor, &[]);
    assert!(matches!(late, Err(Error::NotPublishable { .. })), "{late:?}");
    old.as_mut().fill(1); // its memory is still there
}

#[test]
fn a_part_of_a_slot_is_published_in_place() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut slot = writer.claim(common::SIZE).unwrap().unwrap();
    slot.as_mut().fill(1);
    slot.as_mut()[100..300].fill(9);
    let descriptor = FrameDescriptor {
        offset: 9,
        ..FrameDescriptor::default()
    };
    writer
        .upstream()
        .publish(&slot.as_mut()[100..300], descriptor, &[])
        .unwrap();
    let mut copy = Vec::new();
    for mut reader in [channel.reader(), channel.observer()] {
        let frame = next(&mut reader, &mut copy);
        assert_eq!((frame.descriptor.size, frame.descriptor.data_offset), (200, 100));
        check(&frame, &copy, 9);
    }
}

#[test]
fn frames_of_no_bytes_are_frames() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer.set_caps(Caps::fixed_size("application/x-nothing", 0));
    let _service = Service::of(&writer);
    let (mut reader, mut copy) = (channel.reader(), vec![1; 5]);
    for value in 1..=10 {
        assert!(publish_sized(&writer, value, 0));
        check(&next(&mut reader, &mut copy), &copy, value);
    }
}

#[test]
fn a_format_comes_first() {
    let channel = Channel::new();
    let writer = rsshm_channel::Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    assert!(matches!(writer.claim(1), Err(Error::Option { .. })));
    writer.set_caps(Caps::fixed_size("x".repeat(65 * 1024), 1));
    assert!(matches!(writer.claim(1), Err(Error::TooLarge { .. })));
    writer.set_caps(Caps::fixed_size("x".repeat(64 * 1024), 1));
    assert!(publish(&writer, 1));
    let too_large = writer.claim(usize::MAX);
    assert!(matches!(too_large, Err(Error::TooLarge { .. })), "{too_large:?}");
    let mut reader = channel.reader();
    next(&mut reader, &mut Vec::new());
    assert_eq!(reader.caps().len(), 64 * 1024);
}

/// Upstream keeps all that it may draw into, also when it has been published, and goes on only when its next frame is.
#[test]
fn what_upstream_keeps_does_not_stop_the_frames_that_are_copied() {
    for (max_slots, lossless) in [3, 4, 5, 12]
        .into_iter()
        .flat_map(|slots| [(slots, false), (slots, true)])
    {
        let channel = Channel::new();
        let writer = channel.writer(WriterOptions {
            max_slots,
            lossless,
            ..WriterOptions::default()
        });
        let mut kept = Vec::new();
        while let Some(slot) = writer.upstream().claim(common::SIZE).unwrap() {
            let descriptor = FrameDescriptor {
                size: common::SIZE as u64,
                ..FrameDescriptor::default()
            };
            writer.publish(&slot, descriptor, &[]).unwrap();
            kept.push(slot);
        }
        assert!(!kept.is_empty());
        std::thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            let writer = &writer;
            // A writer that waits for its own upstream would do so for ever.
            scope.spawn(move || {
                if ended.recv_timeout(Duration::from_secs(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
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

/// The service backs slots for readers that come, which takes a while; the thread that publishes gets its slots meanwhile.
#[test]
fn no_frame_is_dropped_while_slots_are_added_for_readers() {
    const LARGE: usize = 8 << 20;
    let channel = Channel::new();
    let writer = channel.writer(slots(24));
    let _service = Service::of(&writer);
    let publish = || {
        let slot = writer.claim(LARGE).unwrap().expect("a slot");
        // Only what readers look at.
        let descriptor = FrameDescriptor {
            size: 8,
            ..FrameDescriptor::default()
        };
        writer.publish(&slot, descriptor, &[]).unwrap();
    };
    publish();
    let mut readers = [(); 5].map(|()| channel.reader());
    std::thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(|| next(reader, &mut Vec::new()));
        }
        let has_begun = || writer.stats().slots > 3;
        common::wait_until("the service backs slots", Duration::from_secs(5), has_begun);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) {
            publish();
        }
    });
    common::wait_until("all have slots", Duration::from_secs(5), || {
        writer.stats().slots >= 5 * 3
    });
}
