// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each reader gets each event once, in order with the frames. A reader that joins later gets only those older events
//! that are sticky.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, Error, MAX_EVENT_SIZE, NewEvent, Next, ReadLimits, Reader, STICKY_EVENT_COUNT, TIME_NONE, Writer,
    WriterOptions, layout::EVENT_RING_LENGTH,
};
use rsshm_testkit::{
    Channel, Process, Random,
    role::{self, Role, listen, say},
};

use crate::support::{
    ChannelExt, SECOND, SIZE, StopOnDrop, behind, check_bytes, drain, lossless, open_writer, publish,
    publish_compressed, publish_event, publish_sized, raw::RawPeer, slots,
};

pub const ROLES: &[(&str, Role)] = &[("events/writer", |arguments| commanded_writer(arguments[0]))];

/// A writer that carries out the orders that each line from the test contains.
fn commanded_writer(channel: &str) {
    let writer = open_writer(channel, slots(12));
    loop {
        for order in listen().split(' ') {
            match order.split_once('=').unwrap() {
                ("frame", value) => assert!(publish(&writer, value.parse().unwrap())),
                ("event", text) => publish_event(&writer, text, None),
                ("sticky", text) => publish_event(&writer, text, Some(2)),
                ("end", _) => writer.end_of_stream(),
                _ => panic!("{order}"),
            }
        }
        say("done");
    }
}

/// Sends orders to the writer and waits until it has carried them out.
#[track_caller]
fn order(writer: &mut Process, orders: &str) {
    writer.send(orders);
    writer.expect("done");
}

/// All items that the reader gets without waiting, under the default limits.
#[track_caller]
fn now(reader: &mut Reader) -> Vec<String> {
    drain(reader, ReadLimits::default())
}

/// A reader and an observer that have taken frame 1.
fn attach_both(channel: &Channel, writer: &Writer) -> [Reader; 2] {
    assert!(publish(writer, 1));
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["1"]);
    }
    readers
}

/// A reader and an observer that have each taken frame 1. Each has its own channel and writer.
fn attach_each() -> [(Channel, Arc<Writer>, Reader); 2] {
    [0, 1].map(|kind| {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        let [reader, observer] = attach_both(&channel, &writer);
        (channel, writer, if kind == 0 { reader } else { observer })
    })
}

#[test]
fn events_arrive_between_their_frames() {
    for (_channel, writer, mut reader) in attach_each() {
        publish_event(&writer, "a", None);
        publish_event(&writer, "b", Some(0));
        assert!(publish(&writer, 2));
        assert!(publish(&writer, 3));
        publish_event(&writer, "c", None);
        assert!(publish(&writer, 4));
        publish_event(&writer, "d", None);
        assert_eq!(now(&mut reader), ["a", "b", "2", "3", "c", "4", "d"]);
        assert_eq!((reader.stats().missed, reader.stats().events_missed), (0, 0));
    }
}

#[test]
fn events_of_all_sizes_arrive_unchanged() {
    let bytes: Vec<u8> = (0..MAX_EVENT_SIZE).map(|byte| (byte * 7) as u8).collect();
    for (_channel, writer, mut reader) in attach_each() {
        for size in [0, 1, 7, 8, 9, MAX_EVENT_SIZE] {
            let published = NewEvent::new(u32::MAX - size as u32, &bytes[..size]).with_time(5);
            writer.publish_event(published, None).unwrap();
            let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::ZERO));
            let Ok(Next::Event(event)) = next else {
                panic!("{next:?}");
            };
            assert_eq!((event.kind, event.time, event.duration), (published.kind, 5, TIME_NONE));
            assert_eq!(event.bytes, published.bytes);
        }
    }
}

#[test]
fn events_of_illegal_size_or_place_are_refused() {
    for (_channel, writer, mut reader) in attach_each() {
        let large = NewEvent::new(0, &[0; MAX_EVENT_SIZE + 1]);
        for (event, sticky) in [
            (large, None),
            (large, Some(0)),
            (NewEvent::default(), Some(STICKY_EVENT_COUNT)),
            (NewEvent::default(), Some(usize::MAX)),
        ] {
            let refused = writer.publish_event(event, sticky);
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
        }
        publish_event(&writer, "last place", Some(STICKY_EVENT_COUNT - 1));
        assert_eq!(now(&mut reader), ["last place"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
}

/// An event wakes a waiting reader at once, as a frame does.
#[test]
fn event_without_following_frame_arrives_at_once() {
    for (_channel, writer, mut reader) in attach_each() {
        let mut fast = 0;
        for round in 0..20u32 {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let timeout = Some(5 * SECOND);
                    match reader.next(&mut Vec::new(), ReadLimits::default(), timeout) {
                        Ok(Next::Event(event)) => assert_eq!(event.bytes, round.to_string().as_bytes()),
                        other => panic!("{other:?}"),
                    }
                    Instant::now()
                });
                std::thread::sleep(Duration::from_millis(10));
                let published = Instant::now();
                publish_event(&writer, &round.to_string(), None);
                let took = waiting.join().unwrap().saturating_duration_since(published);
                fast += u32::from(took < Duration::from_millis(100));
            });
        }
        assert!(fast >= 12, "{fast} of 20 at once");
    }
}

#[test]
fn events_arrive_before_the_first_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    publish_event(&writer, "dropped", None);
    publish_event(&writer, "for later", Some(4));
    drop(writer.claim(SIZE).unwrap());
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["for later"]);
    }
    publish_event(&writer, "early", None);
    assert!(publish(&writer, 1));
    for reader in &mut readers {
        assert_eq!(now(reader), ["early", "1"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
}

#[test]
fn joining_reader_gets_only_sticky_events_in_order() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let attached = attach_both(&channel, &writer);
    publish_event(&writer, "replaced", Some(7));
    publish_event(&writer, "passing", None);
    publish_event(&writer, "a", Some(5));
    assert!(publish(&writer, 2));
    publish_event(&writer, "b", Some(7));
    publish_event(&writer, "c", Some(0));
    assert!(publish(&writer, 3));
    publish_event(&writer, "d", Some(1));
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), ["a", "b", "c", "d", "3"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
    for mut reader in attached {
        assert_eq!(now(&mut reader), ["replaced", "passing", "a", "2", "b", "c", "3", "d"]);
    }
}

/// Sticky events pass into the next segment for readers that join there. A reader that follows to the next segment does
/// not get them again.
#[test]
fn sticky_events_outlive_segment_for_joining_readers() {
    for (channel, writer, mut attached) in attach_each() {
        publish_event(&writer, "sticky", Some(1));
        publish_event(&writer, "passing", None);
        assert!(publish(&writer, 2));
        writer.set_caps(Caps::fixed_size("new", 10)).unwrap();
        // This event is published before the next segment exists.
        publish_event(&writer, "of the next", Some(2));
        assert!(publish_sized(&writer, 3, 10));
        assert_eq!(now(&mut attached), ["sticky", "passing", "2", "of the next", "3"]);
        // This frame has the same caps, but is larger, so it needs a new segment.
        assert!(publish_sized(&writer, 4, 2 * SIZE));
        publish_event(&writer, "after all", None);
        assert_eq!(now(&mut attached), ["4", "after all"]);
        assert_eq!((attached.stats().missed, attached.stats().events_missed), (0, 0));
        for mut joining in [channel.reader(), channel.observer()] {
            assert_eq!(now(&mut joining), ["sticky", "of the next", "4"]);
        }
    }
}

#[test]
fn forgotten_sticky_events_reach_no_joining_reader() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let attached = attach_both(&channel, &writer);
    publish_event(&writer, "old", Some(0));
    publish_event(&writer, "old too", Some(3));
    writer.forget_events();
    publish_event(&writer, "new", Some(0));
    assert_eq!(now(&mut channel.reader()), ["new", "1"]);
    // A new reader does not get the old events in the next segment either.
    writer.set_caps(Caps::fixed_size("new", 10)).unwrap();
    assert!(publish_sized(&writer, 2, 10));
    assert_eq!(now(&mut channel.reader()), ["new", "2"]);
    for mut reader in attached {
        // This reader was attached when the events were published, so it gets all of them in order.
        assert_eq!(now(&mut reader), ["old", "old too", "new", "2"]);
    }
}

/// A reader that was too slow for the events still receives the sticky events. It counts the other lost events as
/// missed.
#[test]
fn overrun_reader_gets_sticky_and_newest_events() {
    for (_channel, writer, mut reader) in attach_each() {
        publish_event(&writer, "a", Some(6));
        publish_event(&writer, "replaced", Some(1));
        assert!(publish(&writer, 2));
        publish_event(&writer, "b", Some(0));
        let mut wanted = ["a", "2", "b"].map(String::from).to_vec();
        for seq in 0..300 {
            publish_event(&writer, &format!("event {seq}"), (seq == 50).then_some(1));
        }
        assert!(publish(&writer, 3));
        let newest = (300 - EVENT_RING_LENGTH..300).map(|seq| format!("event {seq}"));
        wanted.push("event 50".to_owned());
        wanted.extend(newest);
        wanted.push("3".to_owned());
        assert_eq!(now(&mut reader), wanted);
        // The writer published 3 events and then 300 more. The reader got only three sticky events and the events in
        // the ring, and missed all others.
        assert_eq!(reader.stats().events_missed, 300 + 3 - EVENT_RING_LENGTH - 3);
    }
}

#[test]
fn event_ring_holds_exactly_its_length() {
    for (_channel, writer, mut reader) in attach_each() {
        for round in 0..3 {
            let more = u64::from(round == 2);
            for seq in 0..EVENT_RING_LENGTH + more {
                publish_event(&writer, &seq.to_string(), None);
            }
            let wanted: Vec<_> = (more..EVENT_RING_LENGTH + more).map(|seq| seq.to_string()).collect();
            assert_eq!(now(&mut reader), wanted);
            assert_eq!(reader.stats().events_missed, more);
        }
    }
}

#[test]
fn skipped_frames_skip_no_event() {
    for (max_behind, wanted) in [
        (1, ["a", "b", "c", "6", "d"].as_slice()),
        (2, &["a", "b", "5", "c", "6", "d"]),
        (3, &["a", "4", "b", "5", "c", "6", "d"]),
        (4, &["a", "3", "4", "b", "5", "c", "6", "d"]),
    ] {
        for (_channel, writer, mut reader) in attach_each() {
            assert!(publish(&writer, 2));
            publish_event(&writer, "a", None);
            for (value, text) in [(3, None), (4, Some("b")), (5, Some("c")), (6, Some("d"))] {
                assert!(publish(&writer, value));
                if let Some(text) = text {
                    publish_event(&writer, text, None);
                }
            }
            assert_eq!(
                drain(&mut reader, behind(max_behind)),
                wanted,
                "max_behind {max_behind}"
            );
            assert_eq!(reader.stats().missed, 5 - u64::from(max_behind));
            assert_eq!(reader.stats().events_missed, 0);
        }
    }
}

#[test]
fn seek_newest_delivers_earlier_events() {
    for (_channel, writer, mut reader) in attach_each() {
        publish_event(&writer, "a", None);
        assert!(publish(&writer, 2));
        publish_event(&writer, "b", None);
        assert!(publish(&writer, 3));
        publish_event(&writer, "c", None);
        reader.seek_newest();
        assert_eq!(now(&mut reader), ["a", "b", "3", "c"]);
    }
}

/// The last event is newer than the newest keyframe.
#[test]
fn seek_to_keyframe_delivers_only_earlier_events() {
    for (_channel, writer, mut reader) in attach_each() {
        publish_event(&writer, "a", None);
        assert!(publish_compressed(&writer, 2, true));
        publish_event(&writer, "b", None);
        assert!(publish_compressed(&writer, 3, false));
        publish_event(&writer, "c", None);
        assert!(publish_compressed(&writer, 4, true));
        reader.seek_newest();
        assert_eq!(now(&mut reader), ["a", "b", "3", "c", "4"]);
    }
}

#[test]
fn end_of_stream_keeps_its_order_among_events() {
    for (_channel, writer, mut reader) in attach_each() {
        publish_event(&writer, "a", None);
        assert!(publish(&writer, 2));
        publish_event(&writer, "b", None);
        writer.end_of_stream();
        publish_event(&writer, "c", Some(0));
        assert!(publish(&writer, 3));
        publish_event(&writer, "d", None);
        writer.end_of_stream();
        // A reader that finds two ends at once reports only one, at the place of the second end. Events stay between
        // their frames.
        assert_eq!(now(&mut reader), ["a", "2", "b", "c", "3", "d", "end"]);
        publish_event(&writer, "e", None);
        writer.end_of_stream();
        publish_event(&writer, "f", None);
        assert_eq!(now(&mut reader), ["e", "end", "f"]);
        assert!(publish(&writer, 4));
        assert_eq!(now(&mut reader), ["4"]);
    }
}

/// The end of a stream precedes an event. If a reader sees the event but an old count of ends, it does not deliver the
/// event before the end.
#[test]
fn event_after_end_never_overtakes_it() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = attach_both(&channel, &writer);
    writer.end_of_stream();
    publish_event(&writer, "b", None);
    let peer = RawPeer::open(&channel);
    for mut reader in readers {
        peer.status().eos_count.store(0, Ordering::SeqCst);
        assert_eq!(now(&mut reader), [""; 0]);
        peer.status().eos_count.store(1, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["end", "b"]);
    }
}

/// A frame precedes an event. If a reader sees the event but an old head, it does not deliver the event before the
/// frame.
#[test]
fn event_after_frame_never_overtakes_it() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = attach_both(&channel, &writer);
    publish_event(&writer, "a", None);
    assert!(publish(&writer, 2));
    publish_event(&writer, "b", None);
    let peer = RawPeer::open(&channel);
    for mut reader in readers {
        peer.status().head.store(1, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["a"]);
        peer.status().head.store(2, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["2", "b"]);
    }
}

/// The writer fills in an event's record before it raises `event_head`, so the reader misses no event.
#[test]
fn event_up_to_head_is_always_readable() {
    for (_channel, writer, mut reader) in attach_each() {
        let received = AtomicU32::new(0);
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 1..=300 {
                    while now(&mut reader).is_empty() {
                        assert_eq!(reader.stats().events_missed, 0, "before {seq}");
                        assert!(began.elapsed() < 20 * SECOND, "event {seq} does not arrive");
                    }
                    received.store(seq, Ordering::SeqCst);
                }
            });
            for seq in 1..=300 {
                publish_event(&writer, "a", None);
                while received.load(Ordering::SeqCst) < seq && began.elapsed() < 10 * SECOND {
                    std::thread::yield_now();
                }
            }
        });
    }
}

/// The head counts two frames that cannot be read. The events after these frames still arrive, and they arrive before
/// the end of the stream.
#[test]
fn events_after_lost_frame_keep_their_order() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = attach_both(&channel, &writer);
    assert!(publish(&writer, 2));
    publish_event(&writer, "a", None);
    assert!(publish(&writer, 3));
    publish_event(&writer, "b", None);
    let peer = RawPeer::open(&channel);
    let lose = |seq: u64| {
        let slot = (0..12).find(|slot| peer.slot(*slot).seq.load(Ordering::SeqCst) == seq);
        peer.slot(slot.unwrap()).seq.store(0, Ordering::SeqCst);
    };
    lose(2);
    lose(3);
    let [mut reader, mut observer] = readers;
    assert_eq!(now(&mut reader), ["a", "b"]);
    writer.end_of_stream();
    assert_eq!(now(&mut reader), ["end"]);
    assert_eq!(now(&mut observer), ["a", "b", "end"]);
    assert_eq!(observer.stats().missed, 2);
}

/// A new writer continues the dead writer's seqs of events. Readers that join later do not get the dead writer's sticky
/// events.
#[test]
fn restarted_writer_continues_event_order() {
    let channel = Channel::new();
    let mut first = role::start("events/writer", &[channel.as_str()]);
    order(&mut first, "frame=1 event=a sticky=b");
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["b", "1"]);
    }
    order(&mut first, "event=c frame=2 event=d");
    first.kill();
    let mut second = role::start("events/writer", &[channel.as_str()]);
    order(&mut second, "sticky=e event=dropped frame=3 event=f");
    for reader in &mut readers {
        assert_eq!(now(reader), ["c", "2", "d", "e", "3", "f"]);
        assert_eq!((reader.stats().missed, reader.stats().events_missed), (0, 0));
    }
    assert_eq!(now(&mut channel.reader()), ["e", "3"]);
    // This reader reads no frame of the second writer, and gets the sticky event of the third writer.
    let mut late = channel.reader();
    now(&mut late);
    order(&mut second, "event=g");
    second.kill();
    let mut third = role::start("events/writer", &[channel.as_str()]);
    order(&mut third, "sticky=h frame=4");
    assert_eq!(now(&mut late), ["g", "h", "4"]);
}

/// A dead writer's event head is out of range. The next writer does not continue from this value. Its events, frames
/// and ends of the stream still arrive in order.
#[test]
fn events_restart_after_damaged_event_head() {
    let channel = Channel::new();
    let mut first = role::start("events/writer", &[channel.as_str()]);
    order(&mut first, "frame=1 event=a");
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), ["1"]);
    first.kill();
    RawPeer::open(&channel)
        .status()
        .event_head
        .store(u64::MAX, Ordering::SeqCst);
    let mut second = role::start("events/writer", &[channel.as_str()]);
    order(&mut second, "sticky=b frame=2 end=");
    // Events may be lost because of the damaged head. The sticky event still comes before the frame, and the frame
    // before the end.
    let received = now(&mut reader);
    assert!(received.ends_with(&["b", "2", "end"].map(String::from)), "{received:?}");
    order(&mut second, "event=c");
    assert_eq!(now(&mut reader), ["c"]);
}

/// A lossless writer waits until readers have taken its frames. It does not wait until they have taken its events.
#[test]
fn lossless_writer_does_not_wait_for_events() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), ["1"]);
    for _ in 0..3 * EVENT_RING_LENGTH {
        publish_event(&writer, "a", None);
    }
    assert_eq!(now(&mut reader).len() as u64, EVENT_RING_LENGTH);
    assert_eq!(reader.stats().events_missed, 2 * EVENT_RING_LENGTH);
}

#[test]
fn closed_writer_publishes_no_event() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let [mut reader, _] = attach_both(&channel, &writer);
    publish_event(&writer, "a", None);
    writer.close();
    publish_event(&writer, "b", Some(0));
    writer.forget_events();
    let mut next = || {
        reader
            .next(&mut Vec::new(), ReadLimits::default(), Some(SECOND))
            .unwrap()
    };
    assert!(matches!(next(), Next::Event(event) if event.bytes == b"a"));
    assert!(matches!(next(), Next::Lost));
}

/// Reads frames and events until `stop` is set and nothing more comes. The values of frames and events form one
/// sequence, so each value must be higher than the value before. Returns the last value, and how many events were
/// received or missed.
fn read_in_order(reader: &mut Reader, max_behind: u32, pause: Duration, stop: &AtomicBool) -> (u64, u64) {
    let mut copy = Vec::new();
    let (mut last, mut events) = (1, 0);
    loop {
        // The flag is loaded first, because the last frame may come after a time-out and before the flag.
        let is_over = stop.load(Ordering::Relaxed);
        let timeout = Some(Duration::from_millis(50));
        let value = match reader.next(&mut copy, behind(max_behind), timeout).unwrap() {
            Next::Frame(frame) => {
                check_bytes(&frame, &copy);
                frame.descriptor.offset
            }
            Next::Event(event) => {
                events += 1;
                String::from_utf8(event.bytes).unwrap().parse().unwrap()
            }
            Next::EndOfStream => continue,
            Next::TimedOut if is_over => break,
            Next::TimedOut => continue,
            other => panic!("{other:?}"),
        };
        assert!(value > last, "{value} after {last}");
        last = value;
        std::thread::sleep(pause);
    }
    (last, events + reader.stats().events_missed)
}

/// Publishes frames, events, ends of the stream and new caps as fast as it can. The values of frames and events count
/// up from 2. Returns the last value, which is a frame's value, and the number of events.
fn publish_everything(writer: &Writer) -> (u64, u64) {
    let end = Instant::now() + Duration::from_millis(700);
    let (mut value, mut events, mut random) = (1, 0, Random::new(1));
    while Instant::now() < end {
        value += 1;
        match random.below(256) {
            0..100 => {
                let place = random.below(20) as usize;
                let sticky = (place < STICKY_EVENT_COUNT).then_some(place);
                publish_event(writer, &value.to_string(), sticky);
                events += 1;
            }
            100..104 => writer.end_of_stream(),
            104..107 => writer.set_caps(Caps::fixed_size(format!("caps{value}"), SIZE)).unwrap(),
            107..108 => writer.forget_events(),
            _ => assert!(publish(writer, value)),
        }
    }
    value += 1;
    assert!(publish(writer, value));
    (value, events)
}

/// Readers of all kinds get frames and events in order, and get none twice. They know how many events they have missed.
#[test]
fn order_of_events_and_frames_holds_under_load() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let stop = AtomicBool::new(false);
    let attached = Barrier::new(4);
    std::thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let readers = [(false, 0, 0), (false, 2, 300), (true, 0, 50)].map(|(observes, max_behind, pause)| {
            let mut reader = if observes { channel.observer() } else { channel.reader() };
            let (attached, stop) = (&attached, &stop);
            scope.spawn(move || {
                assert!(drain(&mut reader, ReadLimits::default()) == ["1"]);
                attached.wait();
                read_in_order(&mut reader, max_behind, Duration::from_micros(pause), stop)
            })
        });
        attached.wait();
        let published = publish_everything(&writer);
        drop(stopping);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), published);
        }
    });
}
