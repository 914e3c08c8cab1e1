// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers that send rubbish over the socket, or nothing.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use proptest::{
    prelude::{ProptestConfig, any},
    prop_assert, proptest,
    strategy::Strategy,
};
use rsshm_channel::layout::{OBJECT_MAGIC, ObjectReply, ObjectRequest, object_kind, object_status};
use rsshm_testkit::{Channel, eventually, on_this_machine, role, timed};

use super::{send_with, try_connect};
use crate::{
    objects::{
        accepting, is_object, next_frame,
        pool::{Pool, object_writer},
    },
    support::{ChannelExt, SECOND, SIZE, StopOnDrop, slots},
};

/// Checks that the writer has no more files open than before, and that a new reader gets frames in place.
#[track_caller]
fn check_writer(writer: &mut rsshm_testkit::Process, channel: &Channel, files_before: usize) {
    eventually("the writer has closed its connections", || {
        writer.send("files");
        writer.receive().parse::<usize>().unwrap() <= files_before
    });
    let mut reader = channel.reader();
    eventually("frames in place", || is_object(&next_frame(&mut reader, accepting())));
}

#[test]
fn rubbish_costs_the_writer_nothing() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.send("files");
    let files = writer.receive().parse().unwrap();
    let null = File::open("/dev/null").unwrap();
    let many = vec![null.as_raw_fd(); 253];
    let mut answered = 0;
    for size in [0, 1, 7, 8, 31, 32, 33, 64, 4096, 60_000] {
        for files in [&many[..0], &many[..1], &many[..3], &many] {
            let socket = try_connect(&channel).unwrap();
            if send_with(&socket, &vec![0x5a; size], files).is_err() {
                continue;
            }
            let mut reply = [0; 64];
            match recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()) {
                Ok(32) => {
                    let reply: ObjectReply = bytemuck::pod_read_unaligned(&reply[..32]);
                    assert_eq!((reply.magic, reply.status), (OBJECT_MAGIC, object_status::BAD_REQUEST));
                    answered += 1;
                }
                // The end of the connection.
                Ok(0) | Err(Errno::ECONNRESET) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(answered >= 30, "{answered}");
    // A request for an object, with a byte too few or too many.
    let segment = std::fs::metadata(channel.segment()).unwrap();
    let request = ObjectRequest {
        magic: OBJECT_MAGIC,
        device: segment.dev(),
        inode: segment.ino(),
        object: 1,
    };
    let bytes = [bytemuck::bytes_of(&request), &[0]].concat();
    for (size, status) in [
        (31, object_status::BAD_REQUEST),
        (32, object_status::OK),
        (33, object_status::BAD_REQUEST),
    ] {
        let socket = try_connect(&channel).unwrap();
        send(socket.as_raw_fd(), &bytes[..size], MsgFlags::empty()).unwrap();
        let mut reply = ObjectReply::default();
        recv(
            socket.as_raw_fd(),
            bytemuck::bytes_of_mut(&mut reply),
            MsgFlags::empty(),
        )
        .unwrap();
        assert_eq!(reply.status, status, "{size} bytes");
    }
    check_writer(&mut writer, &channel, files);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 64 }))]

    /// Requests with nearly right values: each gets an answer, and the object only if all values are right.
    #[test]
    fn every_request_gets_its_answer(
        magic in proptest::prop_oneof![any::<u64>(), proptest::strategy::Just(OBJECT_MAGIC)],
        is_own_segment in any::<bool>(),
        device in any::<u64>(),
        inode in any::<u64>(),
        object in proptest::prop_oneof![any::<u64>(), (0u64..12).prop_map(|id| id)],
    ) {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), 6);
        let pool = Pool::new(&writer, 8);
        assert!(pool.publish(&writer, 1));
        let segment = std::fs::metadata(channel.segment()).unwrap();
        let (device, inode) = if is_own_segment { (segment.dev(), segment.ino()) } else { (device, inode) };
        let request = ObjectRequest { magic, device, inode, object };
        let socket = try_connect(&channel).unwrap();
        send(socket.as_raw_fd(), bytemuck::bytes_of(&request), MsgFlags::empty()).unwrap();
        let mut reply = ObjectReply::default();
        let size = recv(socket.as_raw_fd(), bytemuck::bytes_of_mut(&mut reply), MsgFlags::empty()).unwrap();
        prop_assert!(size == 32 && reply.magic == OBJECT_MAGIC);
        let expected = if magic != OBJECT_MAGIC {
            object_status::BAD_REQUEST
        } else if !is_own_segment {
            object_status::UNKNOWN_SEGMENT
        } else if !(1..=8).contains(&object) {
            object_status::UNKNOWN_OBJECT
        } else {
            object_status::OK
        };
        prop_assert!(reply.status == expected, "{request:?} {reply:?}");
        if expected == object_status::OK {
            prop_assert!((reply.object, reply.size, reply.kind) == (object, SIZE as u64, object_kind::MEMFD));
        }
    }
}

/// 300 connections that send nothing, and others that leave without reading their answers.
#[test]
fn silent_peers_are_closed() {
    // Other programs can delay the reader too, so the test repeats this.
    eventually("a reader gets its objects at once", || {
        let channel = Channel::new();
        let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
        writer.expect("published");
        writer.send("files");
        let files: usize = writer.receive().parse().unwrap();
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(try_connect(&channel).unwrap());
            let leaver = try_connect(&channel).unwrap();
            send(leaver.as_raw_fd(), &[1; 32], MsgFlags::empty()).unwrap();
        }
        writer.send("files");
        let open: usize = writer.receive().parse().unwrap();
        assert!(open <= files + 66, "{open}, {files} before");
        // A reader gets its objects at once although the silent peers are still there.
        let mut reader = channel.reader();
        let took = eventually("frames in place", || is_object(&next_frame(&mut reader, accepting())));
        // Each of them is closed after a second.
        eventually("the writer has closed its connections", || {
            writer.send("files");
            writer.receive().parse::<usize>().unwrap() <= files
        });
        eventually("each silent peer sees the end", || {
            silent.iter().all(|socket| {
                matches!(
                    recv(socket.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT),
                    Ok(0) | Err(Errno::ECONNRESET)
                )
            })
        });
        took < on_this_machine(SECOND)
    });
}

/// While peers connect all the time, a reader still gets its objects, and the writer's thread uses little of a processor.
#[test]
fn flood_of_connections_holds_no_reader() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    let is_over = AtomicBool::new(false);
    let count = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                // Relaxed: the flag and the count carry no other data.
                while !is_over.load(Ordering::Relaxed) {
                    let _ = try_connect(&channel);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let mut reader = channel.reader();
            let (duration, _) =
                timed(|| eventually("frames in place", || is_object(&next_frame(&mut reader, accepting()))));
            assert!(duration < 5 * SECOND, "{duration:?}");
        }
    });
    assert!(count.load(Ordering::Relaxed) > 10);
    check_writer(&mut writer, &channel, 200);
}
