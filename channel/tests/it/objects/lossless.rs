// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lossless writer of objects: readers that are behind, that hold frames until the next one comes, as a display does,
//! and that are stopped.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rsshm_channel::{Next, ReaderOptions};
use rsshm_testkit::{
    Channel, eventually,
    role::{self, Role, listen, say},
    timed,
};

use super::{
    accepting, check_objects, is_object, next_frame,
    pool::{Pool, object_writer},
};
use crate::support::{ChannelExt, SECOND, Service, lossless, open_reader};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/lossless writer", |arguments| {
        writer(arguments[0], arguments[1], true)
    }),
    ("objects/lossless writer without service", |arguments| {
        writer(arguments[0], arguments[1], false)
    }),
    ("objects/slow reader", |arguments| {
        slow_reader(arguments[0], arguments[1])
    }),
    ("objects/holder of one", |arguments| holder_of_one(arguments[0])),
];

/// How many frames a writer without pauses publishes.
const FAST_FRAMES: u64 = 400;
/// How long a slow reader looks at a frame.
const READING: Duration = Duration::from_millis(1);

/// Publishes [`FAST_FRAMES`] frames without a pause when the test sends a line. Its camera can spare `spare` buffers.
fn writer(channel: &str, spare: &str, has_service: bool) {
    let spare = spare.parse().unwrap();
    let writer = object_writer(channel, lossless(0), spare);
    let service = has_service.then(|| Service::of(&writer));
    // The camera needs one buffer to write into.
    let pool = Pool::new(&writer, spare as usize + 1);
    assert!(pool.publish(&writer, 1));
    say("published");
    listen();
    for value in 2..=FAST_FRAMES {
        assert!(pool.publish(&writer, value), "the camera has no buffer for {value}");
    }
    say("done");
    listen();
    drop(service);
    writer.close();
}

/// Takes [`FAST_FRAMES`] frames, looks at each for a while, keeps the last `held` of them, and says how many came in
/// place and how many were missed.
fn slow_reader(channel: &str, held: &str) {
    let held: usize = held.parse().unwrap();
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut kept = VecDeque::new();
    let mut copy = Vec::new();
    let (mut in_place, mut missed) = (0, 0);
    for seq in 1..=FAST_FRAMES {
        let frame = match reader.next(&mut copy, accepting(), Some(20 * SECOND)).unwrap() {
            Next::Frame(frame) => frame,
            other => panic!("{other:?}"),
        };
        missed += frame.missed;
        assert_eq!(frame.seq, seq + missed);
        if seq == 1 {
            say("attached");
        }
        in_place += u32::from(is_object(&frame));
        std::thread::sleep(READING);
        check_objects(&frame, &copy);
        kept.push_back(frame);
        while kept.len() > held {
            kept.pop_front();
        }
    }
    say(format!("{in_place} in place, {missed} missed"));
}

/// Takes one frame and keeps it. A lossless writer waits for this reader as soon as it is behind.
fn holder_of_one(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let frame = next_frame(&mut reader, accepting());
    assert!(is_object(&frame));
    say("holds one");
    listen();
}

/// The quota is not withdrawn because a reader is behind: the writer waits until the reader has released a buffer.
#[test]
fn reader_behind_gets_its_frames_in_place() {
    for (spare, held) in [
        (3, &["0"][..]),
        (4, &["0"]),
        (4, &["1"]),
        (8, &["0", "0"]),
        (8, &["2", "0"]),
    ] {
        // A loaded machine may let short waits end too early, and then more frames are copied.
        eventually("frames in place", || {
            let channel = Channel::new();
            let mut writer = role::start("objects/lossless writer", &[channel.as_str(), &spare.to_string()]);
            writer.expect("published");
            let mut readers: Vec<_> = held
                .iter()
                .map(|held| role::start("objects/slow reader", &[channel.as_str(), held]))
                .collect();
            for reader in &mut readers {
                reader.expect("attached");
            }
            writer.send("go");
            writer.expect("done");
            let mut is_in_place = true;
            for reader in &mut readers {
                let counts = reader.receive();
                let (in_place, missed) = counts.split_once(" in place, ").unwrap();
                assert_eq!(missed, "0 missed", "{counts}, {spare} to spare, {held:?} held");
                println!("{counts} of {FAST_FRAMES}, {spare} to spare, {held:?} held");
                is_in_place &= in_place.parse::<u64>().unwrap() >= FAST_FRAMES * 9 / 10;
                reader.wait_ok();
            }
            writer.send("close");
            writer.wait_ok();
            channel.assert_removed();
            is_in_place
        });
    }
}

/// A stopped reader stops a lossless writer, also if it holds a frame. Its death ends the wait at once, although no
/// service looks for dead readers.
#[test]
fn death_of_stopped_holder_ends_the_wait() {
    let channel = Channel::new();
    let mut writer = role::start("objects/lossless writer without service", &[channel.as_str(), "4"]);
    writer.expect("published");
    let mut holder = role::start("objects/holder of one", &[channel.as_str()]);
    holder.expect("holds one");
    let mut reader = role::start("objects/slow reader", &[channel.as_str(), "0"]);
    reader.expect("attached");
    holder.stop();
    writer.send("go");
    let mut look = channel.observer();
    let mut newest = 0;
    eventually("the writer waits", || {
        let former = newest;
        while let Ok(Next::Frame(frame)) = look.next(&mut Vec::new(), accepting(), Some(SECOND / 4)) {
            newest = frame.seq;
        }
        newest == former && newest > 1
    });
    assert!(newest <= 4, "{newest} frames with 4 buffers to spare");
    holder.kill();
    let (duration, next) = timed(|| look.next(&mut Vec::new(), accepting(), Some(5 * SECOND)));
    assert!(
        matches!(&next, Ok(Next::Frame(frame)) if frame.seq > newest),
        "{next:?} after the death"
    );
    println!("the next frame comes {duration:?} after the death");
    writer.expect("done");
    let counts = reader.receive();
    assert!(counts.ends_with(" 0 missed"), "{counts}");
    reader.wait_ok();
    writer.send("close");
    writer.wait_ok();
    channel.assert_removed();
}

/// How many frames each reader holds, and how many are published.
const HELD: usize = 2;
const FRAMES: u64 = 60;

/// The readers hold all frames that may be pinned, so the next ones are copied. The writer does not wait for the held
/// frames, because a reader releases one only when it has got another one.
#[test]
fn held_frames_do_not_stop_the_writer() {
    for spare in 2..=6 {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), lossless(0), spare);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, spare as usize + 1);
        assert!(pool.publish(&writer, 1));
        let mut readers: Vec<_> = (0..3).map(|_| (channel.reader(), VecDeque::new())).collect();
        let mut in_place = 0;
        for (reader, held) in &mut readers {
            let frame = next_frame(reader, accepting());
            in_place += u32::from(is_object(&frame));
            held.push_back(frame);
        }
        // The thread is not joined if the test fails, because it could wait for ever.
        let publisher = std::thread::spawn({
            let writer = Arc::clone(&writer);
            move || (2..=FRAMES).all(|value| pool.publish(&writer, value))
        });
        for seq in 2..=FRAMES {
            for (reader, held) in &mut readers {
                let frame = next_frame(reader, accepting());
                assert_eq!((frame.seq, frame.missed), (seq, 0), "{spare} to spare");
                if is_object(&frame) {
                    in_place += 1;
                    held.push_back(frame);
                }
                if held.len() > HELD {
                    held.pop_front();
                }
            }
        }
        assert!(
            publisher.join().unwrap(),
            "the camera has no buffer, with {spare} to spare"
        );
        // With fewer than three buffers to spare, readers copy each frame, from the first one on.
        assert_eq!(in_place > 0, spare >= 3, "{in_place} in place, {spare} to spare");
        drop(service);
    }
}

/// A camera may spare fewer buffers than before, for example after another program has got some of them. Readers that
/// hold more frames than that until they get another one do not stop the writer.
#[test]
fn fewer_spare_buffers_do_not_stop_the_writer() {
    for fewer in [2, 3, 4] {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), lossless(0), 8);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, 9);
        let mut reader = channel.reader();
        let mut held = VecDeque::new();
        let mut seq = 0;
        while held.len() < 4 {
            assert!(seq < FRAMES / 2, "{} frames in place of {seq}", held.len());
            seq += 1;
            assert!(pool.publish(&writer, seq));
            let frame = next_frame(&mut reader, accepting());
            if is_object(&frame) {
                held.push_back(frame);
            }
        }
        writer.objects().set_spare(fewer);
        // The thread is not joined if the test fails, because it could wait for ever.
        let publisher = std::thread::spawn({
            let (writer, began) = (Arc::clone(&writer), seq + 1);
            move || (began..=FRAMES).all(|value| pool.publish(&writer, value))
        });
        while seq < FRAMES {
            seq += 1;
            let frame = next_frame(&mut reader, accepting());
            assert_eq!((frame.seq, frame.missed), (seq, 0), "{fewer} to spare");
            let out = writer.objects().frames_out();
            assert!(out <= 4 + 2, "{out} frames are out, {fewer} to spare");
        }
        assert!(
            publisher.join().unwrap(),
            "the camera has no buffer, with {fewer} to spare"
        );
        assert_eq!(held.len(), 4);
        drop(service);
    }
}
