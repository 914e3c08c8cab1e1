//! Letters of readers to a writer that takes them.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, Service, all,
    child::{self, Child, listen, say},
    peer::Peer,
    publish, slots,
};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use rsshm_channel::{
    Caps, ChannelName, MAX_MESSAGE_SIZE, ReadLimits, Reader, ReaderHandle, ReaderOptions, Writer, WriterOptions,
    layout::MESSAGE_RING_LENGTH,
};

#[test]
fn child() {
    child::play(&[("writes letters", sends_messages)]);
}

/// A reader that sends letters as it is told, until it is killed.
fn sends_messages(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    common::next(&mut reader, &mut Vec::new());
    loop {
        for message in listen().split(' ') {
            assert!(reader.handle().send_message(message.as_bytes()));
        }
        say("sent");
    }
}

/// A writer with a frame for who comes.
fn with_messages(channel: &Channel) -> Arc<Writer> {
    let writer = channel.writer(WriterOptions {
        accept_messages: true,
        ..slots(8)
    });
    assert!(publish(&writer, 1));
    writer
}

/// A reader that is there, and its handle.
fn joined(channel: &Channel) -> (Reader, ReaderHandle) {
    let mut reader = channel.reader();
    common::next(&mut reader, &mut Vec::new());
    let handle = reader.handle();
    (reader, handle)
}

#[track_caller]
fn messages(writer: &Writer) -> Vec<String> {
    let messages = writer.service().unwrap().messages;
    messages
        .into_iter()
        .map(|message| String::from_utf8(message).unwrap())
        .collect()
}

#[track_caller]
fn send(handle: &ReaderHandle, messages: &[&str]) {
    for message in messages {
        assert!(handle.send_message(message.as_bytes()));
    }
}

#[test]
fn letters_arrive_once_and_in_order() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = joined(&channel);
    assert_eq!(messages(&writer), [""; 0]);
    for round in 0..5 {
        let sent: Vec<_> = (0..round).map(|message| format!("{round} {message}")).collect();
        for message in &sent {
            send(&handle, &[message]);
        }
        assert_eq!(messages(&writer), sent);
        assert_eq!(messages(&writer), [""; 0]);
    }
}

#[test]
fn a_letter_is_what_the_reader_wrote() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = joined(&channel);
    let bytes: Vec<u8> = (0..=MAX_MESSAGE_SIZE).map(|byte| (byte * 3) as u8).collect();
    // A long one first: nothing of it is in those that follow.
    for size in [MAX_MESSAGE_SIZE, 0, 1, 7, 8, 9, 488, MAX_MESSAGE_SIZE - 1] {
        assert!(handle.send_message(&bytes[..size]));
        assert_eq!(writer.service().unwrap().messages, [&bytes[..size]]);
    }
    assert!(!handle.send_message(&bytes), "too large");
    assert_eq!(messages(&writer), [""; 0]);
    send(&handle, &["next"]);
    assert_eq!(messages(&writer), ["next"]);
}

#[test]
fn of_too_many_letters_the_newest_are_there() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = joined(&channel);
    for count in [MESSAGE_RING_LENGTH, MESSAGE_RING_LENGTH + 1, 50] {
        let sent: Vec<_> = (0..count).map(|message| message.to_string()).collect();
        for message in &sent {
            send(&handle, &[message]);
        }
        assert_eq!(messages(&writer), sent[sent.len() - MESSAGE_RING_LENGTH as usize..]);
    }
}

#[test]
fn each_reader_has_a_box_of_its_own() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let readers = [joined(&channel), joined(&channel), joined(&channel)];
    for (seq, (_, handle)) in readers.iter().enumerate().rev() {
        for message in 0..4 {
            send(handle, &[&format!("{seq} {message}")]);
        }
    }
    let mut arrived = messages(&writer);
    assert_eq!(arrived.len(), 12);
    // Those of each in order; among readers there is none.
    arrived.sort_by_key(|message| message.split(' ').next().unwrap().to_owned());
    assert!(arrived.is_sorted(), "{arrived:?}");
}

#[test]
fn a_writer_that_takes_no_letters_gets_none() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    assert_eq!(Peer::open(&channel).header.message_count, 0);
    let (_reader, handle) = joined(&channel);
    assert!(!handle.send_message(b"a"));
    assert_eq!(messages(&writer), [""; 0]);
    // What it may ask for is asked for all the same.
    assert!(handle.request_keyframe());
    assert!(writer.service().unwrap().keyframe_wanted);
}

#[test]
fn who_may_only_look_or_has_no_writer_sends_nothing() {
    let channel = Channel::new();
    let nobody = channel.reader().handle();
    assert!(!nobody.send_message(b"a"));
    let waiting = channel.reader();
    assert!(!waiting.handle().send_message(b"a"));
    let writer = with_messages(&channel);
    let mut observer = channel.observer();
    common::next(&mut observer, &mut Vec::new());
    assert!(!observer.handle().send_message(b"a"));
    let (reader, handle) = joined(&channel);
    send(&handle, &["b"]);
    assert_eq!(messages(&writer), ["b"]);
    drop(reader);
    assert!(!handle.send_message(b"c"));
    let (mut reader, handle) = joined(&channel);
    drop(writer);
    assert!(!handle.send_message(b"d"));
    let lost = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_secs(1)));
    assert!(matches!(lost, Ok(rsshm_channel::Next::Lost)), "{lost:?}");
    assert!(!handle.send_message(b"e"));
}

#[test]
fn letters_go_to_the_segment_that_follows() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (mut reader, handle) = joined(&channel);
    send(&handle, &["a", "b", "c"]);
    assert_eq!(messages(&writer), ["a", "b", "c"]);
    writer.set_caps(Caps::fixed_size("new", common::SIZE));
    assert!(publish(&writer, 2));
    assert!(!handle.send_message(b"nobody reads this"));
    assert_eq!(all(&mut reader, ReadLimits::default()), ["2"]);
    send(&handle, &["d", "e"]);
    assert_eq!(messages(&writer), ["d", "e"]);
    assert_eq!(messages(&writer), [""; 0]);
}

/// Its seat is free for another, who begins with a letter 1 of its own.
#[test]
fn the_next_owner_of_a_seat_has_nothing_to_do_with_the_letters_of_the_last() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let mut first = Child::start("writes letters", channel.as_str());
    first.tell("a b");
    first.expect("sent");
    assert_eq!(messages(&writer), ["a", "b"]);
    first.tell("from the dead");
    first.expect("sent");
    first.kill();
    assert_eq!(messages(&writer), [""; 0], "who is dead has no wishes");
    let (second, handle) = joined(&channel);
    assert_eq!(messages(&writer), [""; 0]);
    assert_eq!(
        Peer::open(&channel).entry(0).state.load(Ordering::SeqCst),
        1,
        "the same seat"
    );
    send(&handle, &["c"]);
    assert_eq!(messages(&writer), ["c"]);
    drop(second);
    // Without a look at the empty seat between them, and as many letters as the last has sent.
    let (_third, handle) = joined(&channel);
    send(&handle, &["d"]);
    assert_eq!(messages(&writer), ["d"]);
    send(&handle, &["e"]);
    assert_eq!(messages(&writer), ["e"]);
}

#[test]
fn a_letter_wakes_the_writer() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = joined(&channel);
    writer.service().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            writer.wait_for_service(Duration::from_secs(10));
            (began.elapsed(), messages(&writer))
        });
        std::thread::sleep(Duration::from_millis(30));
        send(&handle, &["a"]);
        let (took, messages) = waiting.join().unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(messages, ["a"]);
    });
}

/// Each process writes in its own seat.
#[test]
fn a_forked_child_sends_nothing_and_asks_for_nothing() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let (_reader, handle) = joined(&channel);
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let sent = handle.send_message(b"a") || handle.request_keyframe();
            // Leaves without running what belongs to the parent's end.
            unsafe { nix::libc::_exit(i32::from(sent)) };
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    let clients = writer.service().unwrap();
    assert!(clients.messages.is_empty() && !clients.keyframe_wanted);
    send(&handle, &["b"]);
    assert_eq!(messages(&writer), ["b"]);
}

/// From several threads of a reader, and faster than they are read: what arrives is whole, and none comes twice.
#[test]
fn letters_are_whole_under_load() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let readers = [joined(&channel), joined(&channel)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = common::StopAtEnd(&stop);
        for (seq, (_, handle)) in readers.iter().enumerate() {
            for thread in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    let mut count = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let mut message = count.to_ne_bytes().repeat(1 + count as usize % 100);
                        message.push(seq as u8 * 2 + thread);
                        assert!(handle.send_message(&message));
                    }
                });
            }
        }
        let began = Instant::now();
        let (mut last, mut arrived) = ([0; 4], 0);
        while began.elapsed() < Duration::from_millis(400) || arrived < 50 {
            assert!(began.elapsed() < Duration::from_secs(20), "only {arrived} arrived");
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

/// The service passes on what it finds, also while readers come and go.
#[test]
fn letters_arrive_while_frames_flow() {
    let channel = Channel::new();
    let writer = with_messages(&channel);
    let service = Service::of(&writer);
    let (mut reader, handle) = joined(&channel);
    for value in 2..=40 {
        assert!(publish(&writer, value));
        common::next(&mut reader, &mut Vec::new());
        send(&handle, &[&value.to_string()]);
        common::wait_until("there", Duration::from_secs(5), || {
            service
                .seen()
                .messages
                .last()
                .is_some_and(|message| message == value.to_string().as_bytes())
        });
    }
    assert_eq!(service.seen().messages.len(), 39);
}
