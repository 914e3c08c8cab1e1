//! What happens between frames comes between them, once to each reader; what lasts also to who comes later.

mod common;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, all, behind,
    child::{self, Child, listen, say},
    lossless,
    peer::Peer,
    publish, publish_sized, publish_unit, slots, tell,
};
use rsshm_channel::{
    Caps, ChannelName, Error, MAX_EVENT_SIZE, NewEvent, Next, ReadLimits, Reader, STICKY_EVENT_COUNT, TIME_NONE,
    Writer, WriterOptions, layout::EVENT_RING_LENGTH,
};

#[test]
fn child() {
    child::play(&[("obeys", obeys)]);
}

/// A writer that does as it is told, until it is killed.
fn obeys(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(12)).unwrap();
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    loop {
        for order in listen().split(' ') {
            match order.split_once('=').unwrap() {
                ("frame", value) => assert!(publish(&writer, value.parse().unwrap())),
                ("event", text) => tell(&writer, text, None),
                ("lasts", text) => tell(&writer, text, Some(2)),
                ("end", _) => writer.end_of_stream(),
                _ => panic!("{order}"),
            }
        }
        say("done");
    }
}

#[track_caller]
fn obey(child: &mut Child, orders: &str) {
    child.tell(orders);
    child.expect("done");
}

/// What comes now, with no limits.
#[track_caller]
fn now(reader: &mut Reader) -> Vec<String> {
    all(reader, ReadLimits::default())
}

/// A reader and an observer that have had the frame 1.
fn both(channel: &Channel, writer: &Writer) -> [Reader; 2] {
    assert!(publish(writer, 1));
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["1"]);
    }
    readers
}

/// The same, each with a channel of its own.
fn each() -> [(Channel, Arc<Writer>, Reader); 2] {
    [0, 1].map(|kind| {
        let channel = Channel::new();
        let writer = channel.writer(slots(12));
        let [reader, observer] = both(&channel, &writer);
        (channel, writer, if kind == 0 { reader } else { observer })
    })
}

#[test]
fn events_come_between_the_frames_between_which_they_were_told() {
    for (_channel, writer, mut reader) in each() {
        tell(&writer, "a", None);
        tell(&writer, "b", Some(0));
        assert!(publish(&writer, 2));
        assert!(publish(&writer, 3));
        tell(&writer, "c", None);
        assert!(publish(&writer, 4));
        tell(&writer, "d", None);
        assert_eq!(now(&mut reader), ["a", "b", "2", "3", "c", "4", "d"]);
        assert_eq!((reader.stats().missed, reader.stats().events_missed), (0, 0));
    }
}

#[test]
fn an_event_is_what_the_writer_said() {
    let bytes: Vec<u8> = (0..MAX_EVENT_SIZE).map(|byte| (byte * 7) as u8).collect();
    for (_channel, writer, mut reader) in each() {
        for size in [0, 1, 7, 8, 9, MAX_EVENT_SIZE] {
            let reported = NewEvent {
                kind: u32::MAX - size as u32,
                time: 5,
                duration: TIME_NONE,
                bytes: &bytes[..size],
            };
            writer.publish_event(reported, None).unwrap();
            let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::ZERO));
            let Ok(Next::Event(event)) = next else {
                panic!("{next:?}");
            };
            assert_eq!((event.kind, event.time, event.duration), (reported.kind, 5, TIME_NONE));
            assert_eq!(event.bytes, reported.bytes);
        }
    }
}

#[test]
fn events_that_are_too_large_or_have_no_place_are_refused() {
    for (_channel, writer, mut reader) in each() {
        let large = NewEvent {
            bytes: &[0; MAX_EVENT_SIZE + 1],
            ..NewEvent::default()
        };
        for (event, sticky) in [
            (large, None),
            (large, Some(0)),
            (NewEvent::default(), Some(STICKY_EVENT_COUNT)),
            (NewEvent::default(), Some(usize::MAX)),
        ] {
            let refused = writer.publish_event(event, sticky);
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
        }
        tell(&writer, "last place", Some(STICKY_EVENT_COUNT - 1));
        assert_eq!(now(&mut reader), ["last place"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
}

/// A reader that sleeps is woken by an event as by a frame, and need not wait for the next frame.
#[test]
fn an_event_with_no_frame_after_it_comes_at_once() {
    for (_channel, writer, mut reader) in each() {
        let mut fast = 0;
        for round in 0..20u32 {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let patience = Some(Duration::from_secs(5));
                    match reader.next(&mut Vec::new(), ReadLimits::default(), patience) {
                        Ok(Next::Event(event)) => assert_eq!(event.bytes, round.to_string().as_bytes()),
                        other => panic!("{other:?}"),
                    }
                    Instant::now()
                });
                std::thread::sleep(Duration::from_millis(10));
                let reported = Instant::now();
                tell(&writer, &round.to_string(), None);
                let took = waiting.join().unwrap().saturating_duration_since(reported);
                fast += u32::from(took < Duration::from_millis(100));
            });
        }
        assert!(fast >= 12, "{fast} of 20 at once");
    }
}

#[test]
fn events_come_before_the_first_frame_of_all() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    tell(&writer, "to nobody", None);
    tell(&writer, "for later", Some(4));
    drop(writer.claim(common::SIZE).unwrap());
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["for later"]);
    }
    tell(&writer, "early", None);
    assert!(publish(&writer, 1));
    for reader in &mut readers {
        assert_eq!(now(reader), ["early", "1"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
}

#[test]
fn newcomers_get_what_lasts_in_order_and_nothing_else() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let there = both(&channel, &writer);
    tell(&writer, "replaced", Some(7));
    tell(&writer, "passes", None);
    tell(&writer, "a", Some(5));
    assert!(publish(&writer, 2));
    tell(&writer, "b", Some(7));
    tell(&writer, "c", Some(0));
    assert!(publish(&writer, 3));
    tell(&writer, "d", Some(1));
    for mut reader in [channel.reader(), channel.observer()] {
        assert_eq!(now(&mut reader), ["a", "b", "c", "d", "3"]);
        assert_eq!(reader.stats().events_missed, 0);
    }
    for mut reader in there {
        assert_eq!(now(&mut reader), ["replaced", "passes", "a", "2", "b", "c", "3", "d"]);
    }
}

/// Who follows has had it already.
#[test]
fn what_lasts_survives_another_segment_and_is_told_to_newcomers_only() {
    for (channel, writer, mut there) in each() {
        tell(&writer, "lasts", Some(1));
        tell(&writer, "passes", None);
        assert!(publish(&writer, 2));
        writer.set_caps(Caps::fixed_size("new", 10));
        // Told of before the segment that follows.
        tell(&writer, "of the next", Some(2));
        assert!(publish_sized(&writer, 3, 10));
        assert_eq!(now(&mut there), ["lasts", "passes", "2", "of the next", "3"]);
        // Larger frames of the same format.
        assert!(publish_sized(&writer, 4, 2 * common::SIZE));
        tell(&writer, "after all", None);
        assert_eq!(now(&mut there), ["4", "after all"]);
        assert_eq!((there.stats().missed, there.stats().events_missed), (0, 0));
        for mut newcomer in [channel.reader(), channel.observer()] {
            assert_eq!(now(&mut newcomer), ["lasts", "of the next", "4"]);
        }
    }
}

#[test]
fn what_lasts_goes_with_a_new_stream() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let there = both(&channel, &writer);
    tell(&writer, "old", Some(0));
    tell(&writer, "old too", Some(3));
    writer.forget_events();
    tell(&writer, "new", Some(0));
    assert_eq!(now(&mut channel.reader()), ["new", "1"]);
    // Not in the next segment either.
    writer.set_caps(Caps::fixed_size("new", 10));
    assert!(publish_sized(&writer, 2, 10));
    assert_eq!(now(&mut channel.reader()), ["new", "2"]);
    for mut reader in there {
        // It was there, and is told of all in the order in which it happened.
        assert_eq!(now(&mut reader), ["old", "old too", "new", "2"]);
    }
}

/// Of what a reader was too slow for, what lasts is still there, and the rest is counted.
#[test]
fn a_reader_that_is_overrun_gets_what_lasts_and_the_newest() {
    for (_channel, writer, mut reader) in each() {
        tell(&writer, "a", Some(6));
        tell(&writer, "replaced", Some(1));
        assert!(publish(&writer, 2));
        tell(&writer, "b", Some(0));
        let mut wanted = ["a", "2", "b"].map(String::from).to_vec();
        for seq in 0..100 {
            tell(&writer, &format!("event {seq}"), (seq == 50).then_some(1));
        }
        assert!(publish(&writer, 3));
        let newest = (100 - EVENT_RING_LENGTH..100).map(|seq| format!("event {seq}"));
        wanted.push("event 50".to_owned());
        wanted.extend(newest);
        wanted.push("3".to_owned());
        assert_eq!(now(&mut reader), wanted);
        // The 100 and those before, but for those that came.
        assert_eq!(reader.stats().events_missed, 100 + 3 - EVENT_RING_LENGTH - 3);
    }
}

/// Exactly as many as there are places for are none too many.
#[test]
fn as_many_events_as_the_ring_holds_are_all_there() {
    for (_channel, writer, mut reader) in each() {
        for round in 0..3 {
            let more = u64::from(round == 2);
            for seq in 0..EVENT_RING_LENGTH + more {
                tell(&writer, &seq.to_string(), None);
            }
            let wanted: Vec<_> = (more..EVENT_RING_LENGTH + more).map(|seq| seq.to_string()).collect();
            assert_eq!(now(&mut reader), wanted);
            assert_eq!(reader.stats().events_missed, more);
        }
    }
}

#[test]
fn frames_that_are_skipped_take_no_event_with_them() {
    for (max_behind, wanted) in [
        (1, ["a", "b", "c", "6", "d"].as_slice()),
        (2, &["a", "b", "5", "c", "6", "d"]),
        (3, &["a", "4", "b", "5", "c", "6", "d"]),
        (4, &["a", "3", "4", "b", "5", "c", "6", "d"]),
    ] {
        for (_channel, writer, mut reader) in each() {
            assert!(publish(&writer, 2));
            tell(&writer, "a", None);
            for (value, text) in [(3, None), (4, Some("b")), (5, Some("c")), (6, Some("d"))] {
                assert!(publish(&writer, value));
                if let Some(text) = text {
                    tell(&writer, text, None);
                }
            }
            assert_eq!(all(&mut reader, behind(max_behind)), wanted, "max_behind {max_behind}");
            assert_eq!(reader.stats().missed, 5 - u64::from(max_behind));
            assert_eq!(reader.stats().events_missed, 0);
        }
    }
}

#[test]
fn a_reader_that_looks_at_the_newest_has_what_happened_before() {
    for (_channel, writer, mut reader) in each() {
        tell(&writer, "a", None);
        assert!(publish(&writer, 2));
        tell(&writer, "b", None);
        assert!(publish(&writer, 3));
        tell(&writer, "c", None);
        reader.seek_newest();
        assert_eq!(now(&mut reader), ["a", "b", "3", "c"]);
    }
}

/// The newest frame that it can begin with is older than what happened last.
#[test]
fn a_reader_that_looks_at_the_newest_key_frame_has_what_happened_before_that_and_no_more() {
    for (_channel, writer, mut reader) in each() {
        tell(&writer, "a", None);
        assert!(publish_unit(&writer, 2, true));
        tell(&writer, "b", None);
        assert!(publish_unit(&writer, 3, false));
        tell(&writer, "c", None);
        assert!(publish_unit(&writer, 4, true));
        reader.seek_newest();
        assert_eq!(now(&mut reader), ["a", "b", "3", "c", "4"]);
    }
}

#[test]
fn an_end_of_the_stream_has_its_place_among_events() {
    for (_channel, writer, mut reader) in each() {
        tell(&writer, "a", None);
        assert!(publish(&writer, 2));
        tell(&writer, "b", None);
        writer.end_of_stream();
        tell(&writer, "c", Some(0));
        assert!(publish(&writer, 3));
        tell(&writer, "d", None);
        writer.end_of_stream();
        // Of two ends that come together one is told; what happened between frames stays there.
        assert_eq!(now(&mut reader), ["a", "2", "b", "c", "3", "d", "end"]);
        tell(&writer, "e", None);
        writer.end_of_stream();
        tell(&writer, "f", None);
        assert_eq!(now(&mut reader), ["e", "end", "f"]);
        assert!(publish(&writer, 4));
        assert_eq!(now(&mut reader), ["4"]);
    }
}

/// The event is there when the reader looks, and the end before it was not yet when it looked for that.
#[test]
fn an_event_from_behind_an_end_never_comes_before_it() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = both(&channel, &writer);
    writer.end_of_stream();
    tell(&writer, "b", None);
    let peer = Peer::open(&channel);
    for mut reader in readers {
        peer.status().eos_count.store(0, Ordering::SeqCst);
        assert_eq!(now(&mut reader), [""; 0]);
        peer.status().eos_count.store(1, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["end", "b"]);
    }
}

/// The same with a frame: it and the event are there when the reader looks for events, and were not when it looked for
/// frames.
#[test]
fn an_event_from_behind_a_frame_never_comes_before_it() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = both(&channel, &writer);
    tell(&writer, "a", None);
    assert!(publish(&writer, 2));
    tell(&writer, "b", None);
    let peer = Peer::open(&channel);
    for mut reader in readers {
        peer.status().head.store(1, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["a"]);
        peer.status().head.store(2, Ordering::SeqCst);
        assert_eq!(now(&mut reader), ["2", "b"]);
    }
}

/// The count of events never runs ahead of them.
#[test]
fn an_event_that_is_counted_is_there() {
    for (_channel, writer, mut reader) in each() {
        let heard = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 1..=300 {
                    while now(&mut reader).is_empty() {
                        assert_eq!(reader.stats().events_missed, 0, "before {seq}");
                    }
                    heard.store(seq, Ordering::SeqCst);
                }
            });
            let began = Instant::now();
            for seq in 1..=300 {
                tell(&writer, "a", None);
                while heard.load(Ordering::SeqCst) < seq && began.elapsed() < Duration::from_secs(10) {
                    std::thread::yield_now();
                }
            }
        });
    }
}

/// A frame that is announced and not to be had keeps no event back, and none falls behind the end.
#[test]
fn events_after_a_frame_that_is_gone_come_in_their_place() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    let readers = both(&channel, &writer);
    assert!(publish(&writer, 2));
    tell(&writer, "a", None);
    assert!(publish(&writer, 3));
    tell(&writer, "b", None);
    let peer = Peer::open(&channel);
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

/// The numbers of events run on, and what the dead writer said to last does so no longer.
#[test]
fn a_restarted_writers_events_go_on_behind_those_of_the_dead_one() {
    let channel = Channel::new();
    let mut first = Child::start("obeys", channel.as_str());
    obey(&mut first, "frame=1 event=a lasts=b");
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(now(reader), ["b", "1"]);
    }
    obey(&mut first, "event=c frame=2 event=d");
    first.kill();
    let mut second = Child::start("obeys", channel.as_str());
    obey(&mut second, "lasts=e event=nobody frame=3 event=f");
    for reader in &mut readers {
        assert_eq!(now(reader), ["c", "2", "d", "e", "3", "f"]);
        assert_eq!((reader.stats().missed, reader.stats().events_missed), (0, 0));
    }
    assert_eq!(now(&mut channel.reader()), ["e", "3"]);
    // One that never looked at the second hears of what lasts in the third.
    let mut late = channel.reader();
    now(&mut late);
    obey(&mut second, "event=g");
    second.kill();
    let mut third = Child::start("obeys", channel.as_str());
    obey(&mut third, "lasts=h frame=4");
    assert_eq!(now(&mut late), ["g", "h", "4"]);
}

/// A dead writer's count of events that makes no sense is not gone on with; frames and ends go on all the same.
#[test]
fn events_begin_anew_where_their_count_was_damaged() {
    let channel = Channel::new();
    let mut first = Child::start("obeys", channel.as_str());
    obey(&mut first, "frame=1 event=a");
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), ["1"]);
    first.kill();
    Peer::open(&channel)
        .status()
        .event_head
        .store(u64::MAX, Ordering::SeqCst);
    let mut second = Child::start("obeys", channel.as_str());
    obey(&mut second, "lasts=b frame=2 end=");
    // Whatever it makes of the damage, what lasts comes before the frame and that before the end.
    let came = now(&mut reader);
    assert!(came.ends_with(&["b", "2", "end"].map(String::from)), "{came:?}");
    obey(&mut second, "event=c");
    assert_eq!(now(&mut reader), ["c"]);
}

/// Frames are what a lossless writer waits for.
#[test]
fn a_lossless_writer_waits_for_nobody_to_hear_an_event() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    assert_eq!(now(&mut reader), ["1"]);
    for _ in 0..3 * EVENT_RING_LENGTH {
        tell(&writer, "a", None);
    }
    assert_eq!(now(&mut reader).len() as u64, EVENT_RING_LENGTH);
    assert_eq!(reader.stats().events_missed, 2 * EVENT_RING_LENGTH);
}

/// What is closed has nothing more to say, and says so.
#[test]
fn a_closed_writer_tells_nobody() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let [mut reader, _] = both(&channel, &writer);
    tell(&writer, "a", None);
    writer.close();
    tell(&writer, "b", Some(0));
    writer.forget_events();
    let mut next = || {
        reader
            .next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_secs(1)))
            .unwrap()
    };
    assert!(matches!(next(), Next::Event(event) if event.bytes == b"a"));
    assert!(matches!(next(), Next::Lost));
}

/// Frames, events, ends and other formats as fast as the writer can, to readers of all kinds: each hears in the order in
/// which it happened, nothing twice, and knows how much it has not heard.
#[test]
fn the_order_holds_under_load() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let stop = AtomicBool::new(false);
    let joined = Barrier::new(4);
    std::thread::scope(|scope| {
        let stopping = common::StopAtEnd(&stop);
        let readers = [(false, 0, 0), (false, 2, 300), (true, 0, 50)].map(|(observes, max_behind, pause)| {
            let mut reader = if observes { channel.observer() } else { channel.reader() };
            let (joined, stop) = (&joined, &stop);
            scope.spawn(move || {
                let mut copy = Vec::new();
                let (mut last, mut events) = (1, 0);
                assert!(all(&mut reader, ReadLimits::default()) == ["1"]);
                joined.wait();
                loop {
                    let patience = Some(Duration::from_millis(50));
                    let now = match reader.next(&mut copy, behind(max_behind), patience).unwrap() {
                        Next::Frame(frame) => {
                            common::check_bytes(&frame, &copy);
                            frame.descriptor.offset
                        }
                        Next::Event(event) => {
                            events += 1;
                            String::from_utf8(event.bytes).unwrap().parse().unwrap()
                        }
                        Next::EndOfStream => continue,
                        Next::TimedOut if stop.load(Ordering::Relaxed) => break,
                        Next::TimedOut => continue,
                        other => panic!("{other:?}"),
                    };
                    assert!(now > last, "{now} after {last}");
                    last = now;
                    std::thread::sleep(Duration::from_micros(pause));
                }
                (last, events + reader.stats().events_missed)
            })
        });
        joined.wait();
        let end = Instant::now() + Duration::from_millis(700);
        let (mut count, mut reported, mut random) = (1, 0, 1u32);
        while Instant::now() < end {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            count += 1;
            match random >> 24 {
                0..100 => {
                    let sticky = (random >> 8) as usize % 20;
                    tell(
                        &writer,
                        &count.to_string(),
                        Some(sticky).filter(|place| *place < STICKY_EVENT_COUNT),
                    );
                    reported += 1;
                }
                100..104 => writer.end_of_stream(),
                104..107 => writer.set_caps(Caps::fixed_size(format!("{count}"), common::SIZE)),
                107..108 => writer.forget_events(),
                _ => assert!(publish(&writer, count)),
            }
        }
        count += 1;
        assert!(publish(&writer, count));
        drop(stopping);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), (count, reported));
        }
    });
}
