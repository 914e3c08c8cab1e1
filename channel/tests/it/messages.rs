// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages from readers to a writer that accepts messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, MAX_MESSAGE_SIZE, Next, ReadLimits, Reader, ReaderHandle, ReaderOptions, Writer,
    layout::{MESSAGE_RING_LENGTH, reader_state},
};
use rsshm_testkit::{
    Channel,
    process::in_forked_child,
    role::{self, Role, listen, say},
    wait_until,
};

use crate::support::{
    ChannelExt, SECOND, SIZE, Service, StopOnDrop, drain, next, open_reader, publish, raw::RawPeer, slots,
};

pub const ROLES: &[(&str, Role)] = &[
    ("messages/sender", |arguments| sender(arguments[0])),
    ("messages/fork", |_| sends_nothing_after_fork()),
];

/// A reader that sends the messages that each line from the test contains.
fn sender(channel: &str) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    next(&mut reader, &mut Vec::new());
    loop {
        for message in listen().split(' ') {
            assert!(reader.handle().send_message(message.as_bytes()));
        }
        say("sent");
    }
}

/// A writer that accepts messages. It has published a frame, so readers can attach.
fn with_messages(channel: &Channel) -> Arc<Writer> {
    let writer = channel.writer(slots(8).accept_messages(true));
    assert!(publish(&writer, 1));
    writer
}

/// An attached reader and its handle.
fn attach(channel: &Channel) -> (Reader, ReaderHandle) {
    let mut reader = channel.reader();
    next(&mut reader, &mut Vec::new());
    let handle = reader.handle();
    (reader, handle)
}

/// The messages that the service finds.
#[track_caller]
fn receive(writer: &Writer) -> Vec<String> {
    let messages = writer.service().unwrap().messages;
    messages
        .into_iter()
        .map(|message| String::from_utf8(message).unwrap())
        .collect()
}

/// Sends messages. Each call must succeed.
#[track_caller]
fn send(handle: &ReaderHandle, messages: &[&str]) {
    for message in messages {
        assert!(handle.send_message(message.as_bytes()));
    }
}

#[test]
fn messages_arrive_once_and_in_order() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = attach(&channel);
    assert_eq!(receive(&writer), [""; 0]);
    for round in 0..5 {
        let sent: Vec<_> = (0..round).map(|message| format!("{round} {message}")).collect();
        for message in &sent {
            send(&handle, &[message]);
        }
        assert_eq!(receive(&writer), sent);
        assert_eq!(receive(&writer), [""; 0]);
    }
}

#[test]
fn messages_of_all_sizes_arrive_unchanged() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = attach(&channel);
    let bytes: Vec<u8> = (0..=MAX_MESSAGE_SIZE).map(|byte| (byte * 3) as u8).collect();
    // The first message is long. The shorter messages that follow must not contain its bytes.
    for size in [MAX_MESSAGE_SIZE, 0, 1, 7, 8, 9, 488, MAX_MESSAGE_SIZE - 1] {
        assert!(handle.send_message(&bytes[..size]));
        assert_eq!(writer.service().unwrap().messages, [&bytes[..size]]);
    }
    assert!(!handle.send_message(&bytes), "too large");
    assert_eq!(receive(&writer), [""; 0]);
    send(&handle, &["next"]);
    assert_eq!(receive(&writer), ["next"]);
}

#[test]
fn newest_of_too_many_messages_arrive() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = attach(&channel);
    for count in [MESSAGE_RING_LENGTH, MESSAGE_RING_LENGTH + 1, 50] {
        let sent: Vec<_> = (0..count).map(|message| message.to_string()).collect();
        for message in &sent {
            send(&handle, &[message]);
        }
        assert_eq!(receive(&writer), sent[sent.len() - MESSAGE_RING_LENGTH as usize..]);
    }
}

#[test]
fn each_reader_has_its_own_message_queue() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let readers = [attach(&channel), attach(&channel), attach(&channel)];
    for (reader, (_, handle)) in readers.iter().enumerate().rev() {
        for message in 0..4 {
            send(handle, &[&format!("{reader} {message}")]);
        }
    }
    let mut arrived = receive(&writer);
    assert_eq!(arrived.len(), 12);
    // The messages of one reader arrive in order. Messages of different readers arrive in any order.
    arrived.sort_by_key(|message| message.split(' ').next().unwrap().to_owned());
    assert!(arrived.is_sorted(), "{arrived:?}");
}

#[test]
fn writer_that_accepts_no_messages_gets_none() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    assert_eq!(RawPeer::open(&channel).header.message_count, 0);
    let (_reader, handle) = attach(&channel);
    assert!(!handle.send_message(b"a"));
    assert_eq!(receive(&writer), [""; 0]);
    // The reader can still request a keyframe.
    assert!(handle.request_keyframe());
    assert!(writer.service().unwrap().keyframe_wanted);
}

#[test]
fn observers_and_unconnected_readers_send_no_message() {
    let channel = Channel::new();
    let dropped = channel.reader().handle();
    assert!(!dropped.send_message(b"a"));
    let waiting = channel.reader();
    assert!(!waiting.handle().send_message(b"a"));
    let writer = with_messages(&channel);
    let mut observer = channel.observer();
    next(&mut observer, &mut Vec::new());
    assert!(!observer.handle().send_message(b"a"));
    let (reader, handle) = attach(&channel);
    send(&handle, &["b"]);
    assert_eq!(receive(&writer), ["b"]);
    drop(reader);
    assert!(!handle.send_message(b"c"));
    let (mut reader, handle) = attach(&channel);
    drop(writer);
    assert!(!handle.send_message(b"d"));
    let lost = reader.next(&mut Vec::new(), ReadLimits::default(), Some(SECOND));
    assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
    assert!(!handle.send_message(b"e"));
}

#[test]
fn reader_sends_messages_in_the_next_segment() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (mut reader, handle) = attach(&channel);
    send(&handle, &["a", "b", "c"]);
    assert_eq!(receive(&writer), ["a", "b", "c"]);
    writer.set_caps(Caps::fixed_size("new", SIZE)).unwrap();
    assert!(publish(&writer, 2));
    assert!(!handle.send_message(b"never read"));
    assert_eq!(drain(&mut reader, ReadLimits::default()), ["2"]);
    send(&handle, &["d", "e"]);
    assert_eq!(receive(&writer), ["d", "e"]);
    assert_eq!(receive(&writer), [""; 0]);
}

/// A reader entry gets a new owner. The seqs of the new owner's messages begin at 1 again.
#[test]
fn new_owner_of_entry_inherits_no_message() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let mut first = role::start("messages/sender", &[channel.as_str()]);
    first.send("a b");
    first.expect("sent");
    assert_eq!(receive(&writer), ["a", "b"]);
    first.send("never delivered");
    first.expect("sent");
    first.kill();
    assert_eq!(receive(&writer), [""; 0], "a dead reader's messages are dropped");
    let (second, handle) = attach(&channel);
    assert_eq!(receive(&writer), [""; 0]);
    assert_eq!(
        RawPeer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        reader_state::ATTACHED,
        "the same entry"
    );
    send(&handle, &["c"]);
    assert_eq!(receive(&writer), ["c"]);
    drop(second);
    // The service does not run between the two owners of the entry, so it does not see the entry empty. The second and
    // the third reader send the same number of messages.
    let (_third, handle) = attach(&channel);
    send(&handle, &["d"]);
    assert_eq!(receive(&writer), ["d"]);
    send(&handle, &["e"]);
    assert_eq!(receive(&writer), ["e"]);
}

#[test]
fn message_wakes_the_writer() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = attach(&channel);
    writer.service().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            writer.wait_for_service(10 * SECOND);
            (began.elapsed(), receive(&writer))
        });
        std::thread::sleep(Duration::from_millis(30));
        send(&handle, &["a"]);
        let (took, received) = waiting.join().unwrap();
        assert!(took < 5 * SECOND, "{took:?}");
        assert_eq!(received, ["a"]);
    });
}

/// A forked child may not send messages as its parent's reader, because the reader entry belongs to the parent process.
#[test]
fn forked_child_sends_no_message_and_no_request() {
    role::start("messages/fork", &[]).wait_ok();
}

fn sends_nothing_after_fork() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = attach(&channel);
    // SAFETY: this process has no other thread.
    let sent = unsafe { in_forked_child(|| i32::from(handle.send_message(b"a") || handle.request_keyframe())) };
    assert_eq!(sent, 0);
    let report = writer.service().unwrap();
    assert!(report.messages.is_empty() && !report.keyframe_wanted);
    send(&handle, &["b"]);
    assert_eq!(receive(&writer), ["b"]);
}

/// Several threads of each reader send faster than the writer reads. Each message arrives whole, and no message arrives
/// twice.
#[test]
fn messages_are_whole_under_load() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let readers = [attach(&channel), attach(&channel)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        for (reader, (_, handle)) in readers.iter().enumerate() {
            for thread in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    let mut count = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let mut message = count.to_ne_bytes().repeat(1 + count as usize % 100);
                        message.push(reader as u8 * 2 + thread);
                        assert!(handle.send_message(&message));
                    }
                });
            }
        }
        let began = Instant::now();
        let (mut last, mut arrived) = ([0; 4], 0);
        while began.elapsed() < Duration::from_millis(400) || arrived < 50 {
            assert!(began.elapsed() < 20 * SECOND, "only {arrived} arrived");
            for message in writer.service().unwrap().messages {
                let (sender, counts) = message.split_last().unwrap();
                let count = u32::from_ne_bytes(counts[..4].try_into().unwrap());
                assert_eq!(counts, count.to_ne_bytes().repeat(1 + count as usize % 100));
                let last = &mut last[usize::from(*sender)];
                assert!(count > *last, "{count} after {last} of {sender}");
                *last = count;
                arrived += 1;
            }
        }
        drop(stopping);
    });
}

#[test]
fn messages_arrive_while_frames_flow() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let service = Service::of(&writer);
    let (mut reader, handle) = attach(&channel);
    for value in 2..=40 {
        assert!(publish(&writer, value));
        next(&mut reader, &mut Vec::new());
        send(&handle, &[&value.to_string()]);
        wait_until("the message arrives", 5 * SECOND, || {
            service
                .seen()
                .messages
                .last()
                .is_some_and(|message| message == value.to_string().as_bytes())
        });
    }
    assert_eq!(service.seen().messages.len(), 39);
}
