// SPDX-License-Identifier: MIT OR Apache-2.0

//! The camera gets its buffers back, and keeps the few that it needs.

use std::time::{Duration, Instant};

use rsshm_channel::{Next, ReaderOptions};
use rsshm_testkit::{
    Channel, eventually,
    role::{self, Role, listen, say},
};

use super::{
    accepting, check_objects, is_object, next_frame, next_in_place,
    pool::{Pool, assert_out, object_writer},
};
use crate::support::{ChannelExt, SECOND, Service, open_reader, slots};

pub const ROLES: &[(&str, Role)] = &[("objects/greedy", |arguments| greedy(arguments[0]))];

/// Holds every frame that it gets in place, and never lets one go before the test sends a line.
fn greedy(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut held = Vec::new();
    let mut copy = Vec::new();
    say("ready");
    let limits = accepting().max_held(64);
    let began = Instant::now();
    while began.elapsed() < SECOND {
        match reader.next(&mut copy, limits, Some(Duration::from_millis(50))).unwrap() {
            Next::Frame(frame) if is_object(&frame) => held.push(frame),
            _ => {}
        }
    }
    say(held.len());
    for frame in &held {
        check_objects(frame, &[]);
    }
    say("checked");
    listen();
    for frame in &held {
        check_objects(frame, &[]);
    }
    drop(held);
    say("released");
    listen();
}

#[test]
fn camera_gets_unread_buffers_back_at_once() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 3);
    for value in 1..=300 {
        assert!(pool.publish(&writer, value));
        assert_eq!((pool.free(), writer.objects().frames_out()), (2, 1));
    }
}

#[test]
fn released_buffer_goes_back_without_another_frame() {
    let channel = Channel::new();
    let writer = object_writer(channel.as_str(), slots(0), 6);
    let pool = Pool::new(&writer, 8);
    let service = Service::of(&writer);
    let mut reader = channel.reader();
    let held = next_in_place(&pool, &writer, &mut reader, 1);
    assert!(pool.publish(&writer, 100));
    drop(next_frame(&mut reader, accepting()));
    assert!(pool.publish(&writer, 101));
    drop(next_frame(&mut reader, accepting()));
    eventually("the held frame and the newest are out", || pool.free() == 6);
    check_objects(&held, &[]);
    drop(held);
    eventually("only the newest is out", || pool.free() == 7);
    drop(service);
}

/// Readers that hold all that they can get do not take the camera's last buffers. Another reader goes on.
#[test]
fn greedy_readers_leave_the_camera_its_buffers() {
    for spare in 2..=7 {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), spare);
        let service = Service::of(&writer);
        let pool = Pool::new(&writer, spare as usize + 1);
        let mut other = channel.reader();
        let mut value = 0;
        let mut publish_and_take = || {
            value += 1;
            assert!(
                pool.publish(&writer, value),
                "no buffer for {value}, with {spare} to spare"
            );
            assert_out(&writer, spare);
            let frame = next_frame(&mut other, accepting());
            assert_eq!(frame.descriptor.offset, value, "the other reader misses nothing");
            is_object(&frame)
        };
        publish_and_take();
        // They begin one after another, so that they hold different frames.
        let mut greedy = Vec::new();
        let mut held = 0;
        for _ in 0..3 {
            let mut reader = role::start("objects/greedy", &[channel.as_str()]);
            reader.expect("ready");
            held += loop {
                publish_and_take();
                if let Some(line) = reader.try_receive() {
                    break line.parse::<u32>().unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            reader.expect("checked");
            greedy.push(reader);
        }
        assert!(held < spare, "they hold {held} of {spare}");
        assert!(held > 0 || spare < 3, "nothing was in place, with {spare} to spare");
        for _ in 0..50 {
            publish_and_take();
        }
        // One is killed, the others release their frames.
        greedy[0].kill();
        for reader in &mut greedy[1..] {
            reader.send("release");
            reader.expect("released");
        }
        eventually("the buffers are back", || {
            publish_and_take();
            writer.objects().frames_out() <= 2
        });
        if spare >= 3 {
            eventually("frames in place", publish_and_take);
        }
        drop(service);
    }
}
