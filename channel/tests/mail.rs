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
    ChannelName, Format, MAIL_ROOM, ReadLimits, Reader, ReaderHandle, ReaderOptions, Writer, WriterOptions,
    layout::MAIL_RING,
};

#[test]
fn child() {
    child::play(&[("writes letters", writes_letters)]);
}

/// A reader that sends letters as it is told, until it is killed.
fn writes_letters(channel: &str) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    common::next(&mut reader, &mut Vec::new());
    loop {
        for letter in listen().split(' ') {
            assert!(reader.handle().send_mail(letter.as_bytes()));
        }
        say("sent");
    }
}

/// A writer with a frame for who comes.
fn with_mail(channel: &Channel) -> Arc<Writer> {
    let writer = channel.writer(WriterOptions {
        takes_mail: true,
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
fn letters(writer: &Writer) -> Vec<String> {
    let mail = writer.service().unwrap().mail;
    mail.into_iter()
        .map(|letter| String::from_utf8(letter).unwrap())
        .collect()
}

#[track_caller]
fn send(handle: &ReaderHandle, letters: &[&str]) {
    for letter in letters {
        assert!(handle.send_mail(letter.as_bytes()));
    }
}

#[test]
fn letters_arrive_once_and_in_order() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (_reader, handle) = joined(&channel);
    assert_eq!(letters(&writer), [""; 0]);
    for round in 0..5 {
        let sent: Vec<_> = (0..round).map(|letter| format!("{round} {letter}")).collect();
        for letter in &sent {
            send(&handle, &[letter]);
        }
        assert_eq!(letters(&writer), sent);
        assert_eq!(letters(&writer), [""; 0]);
    }
}

#[test]
fn a_letter_is_what_the_reader_wrote() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (_reader, handle) = joined(&channel);
    let bytes: Vec<u8> = (0..=MAIL_ROOM).map(|byte| (byte * 3) as u8).collect();
    // A long one first: nothing of it is in those that follow.
    for size in [MAIL_ROOM, 0, 1, 7, 8, 9, 488, MAIL_ROOM - 1] {
        assert!(handle.send_mail(&bytes[..size]));
        assert_eq!(writer.service().unwrap().mail, [&bytes[..size]]);
    }
    assert!(!handle.send_mail(&bytes), "too large");
    assert_eq!(letters(&writer), [""; 0]);
    send(&handle, &["next"]);
    assert_eq!(letters(&writer), ["next"]);
}

#[test]
fn of_too_many_letters_the_newest_are_there() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (_reader, handle) = joined(&channel);
    for count in [MAIL_RING, MAIL_RING + 1, 50] {
        let sent: Vec<_> = (0..count).map(|letter| letter.to_string()).collect();
        for letter in &sent {
            send(&handle, &[letter]);
        }
        assert_eq!(letters(&writer), sent[sent.len() - MAIL_RING as usize..]);
    }
}

#[test]
fn each_reader_has_a_box_of_its_own() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let readers = [joined(&channel), joined(&channel), joined(&channel)];
    for (number, (_, handle)) in readers.iter().enumerate().rev() {
        for letter in 0..4 {
            send(handle, &[&format!("{number} {letter}")]);
        }
    }
    let mut arrived = letters(&writer);
    assert_eq!(arrived.len(), 12);
    // Those of each in order; among readers there is none.
    arrived.sort_by_key(|letter| letter.split(' ').next().unwrap().to_owned());
    assert!(arrived.is_sorted(), "{arrived:?}");
}

#[test]
fn a_writer_that_takes_no_letters_gets_none() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    assert_eq!(Peer::open(&channel).fixed.mail_count, 0);
    let (_reader, handle) = joined(&channel);
    assert!(!handle.send_mail(b"a"));
    assert_eq!(letters(&writer), [""; 0]);
    // What it may ask for is asked for all the same.
    assert!(handle.request_key_unit());
    assert!(writer.service().unwrap().key_unit_wanted);
}

#[test]
fn who_may_only_look_or_has_no_writer_sends_nothing() {
    let channel = Channel::new();
    let nobody = channel.reader().handle();
    assert!(!nobody.send_mail(b"a"));
    let waiting = channel.reader();
    assert!(!waiting.handle().send_mail(b"a"));
    let writer = with_mail(&channel);
    let mut observer = channel.observer();
    common::next(&mut observer, &mut Vec::new());
    assert!(!observer.handle().send_mail(b"a"));
    let (reader, handle) = joined(&channel);
    send(&handle, &["b"]);
    assert_eq!(letters(&writer), ["b"]);
    drop(reader);
    assert!(!handle.send_mail(b"c"));
    let (mut reader, handle) = joined(&channel);
    drop(writer);
    assert!(!handle.send_mail(b"d"));
    let lost = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_secs(1)));
    assert!(matches!(lost, Ok(rsshm_channel::Next::Lost)), "{lost:?}");
    assert!(!handle.send_mail(b"e"));
}

#[test]
fn letters_go_to_the_segment_that_follows() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (mut reader, handle) = joined(&channel);
    send(&handle, &["a", "b", "c"]);
    assert_eq!(letters(&writer), ["a", "b", "c"]);
    writer.set_format(Format::fixed_size("new", common::SIZE));
    assert!(publish(&writer, 2));
    assert!(!handle.send_mail(b"nobody reads this"));
    assert_eq!(all(&mut reader, ReadLimits::default()), ["2"]);
    send(&handle, &["d", "e"]);
    assert_eq!(letters(&writer), ["d", "e"]);
    assert_eq!(letters(&writer), [""; 0]);
}

/// Its seat is free for another, who begins with a letter 1 of its own.
#[test]
fn the_next_owner_of_a_seat_has_nothing_to_do_with_the_letters_of_the_last() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let mut first = Child::start("writes letters", channel.as_str());
    first.tell("a b");
    first.expect("sent");
    assert_eq!(letters(&writer), ["a", "b"]);
    first.tell("from the dead");
    first.expect("sent");
    first.kill();
    assert_eq!(letters(&writer), [""; 0], "who is dead has no wishes");
    let (second, handle) = joined(&channel);
    assert_eq!(letters(&writer), [""; 0]);
    assert_eq!(
        Peer::open(&channel).seat(0).state.load(Ordering::SeqCst),
        1,
        "the same seat"
    );
    send(&handle, &["c"]);
    assert_eq!(letters(&writer), ["c"]);
    drop(second);
    // Without a look at the empty seat between them, and as many letters as the last has sent.
    let (_third, handle) = joined(&channel);
    send(&handle, &["d"]);
    assert_eq!(letters(&writer), ["d"]);
    send(&handle, &["e"]);
    assert_eq!(letters(&writer), ["e"]);
}

#[test]
fn a_letter_wakes_the_writer() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (_reader, handle) = joined(&channel);
    writer.service().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            writer.wait_for_service(Duration::from_secs(10));
            (began.elapsed(), letters(&writer))
        });
        std::thread::sleep(Duration::from_millis(30));
        send(&handle, &["a"]);
        let (took, letters) = waiting.join().unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(letters, ["a"]);
    });
}

/// Each process writes in its own seat.
#[test]
fn a_forked_child_sends_nothing_and_asks_for_nothing() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let (_reader, handle) = joined(&channel);
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let sent = handle.send_mail(b"a") || handle.request_key_unit();
            // Leaves without running what belongs to the parent's end.
            unsafe { nix::libc::_exit(i32::from(sent)) };
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    let clients = writer.service().unwrap();
    assert!(clients.mail.is_empty() && !clients.key_unit_wanted);
    send(&handle, &["b"]);
    assert_eq!(letters(&writer), ["b"]);
}

/// From several threads of a reader, and faster than they are read: what arrives is whole, and none comes twice.
#[test]
fn letters_are_whole_under_load() {
    let channel = Channel::new();
    let writer = with_mail(&channel);
    let readers = [joined(&channel), joined(&channel)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = common::StopAtEnd(&stop);
        for (number, (_, handle)) in readers.iter().enumerate() {
            for thread in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    let mut count = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let mut letter = count.to_ne_bytes().repeat(1 + count as usize % 100);
                        letter.push(number as u8 * 2 + thread);
                        assert!(handle.send_mail(&letter));
                    }
                });
            }
        }
        let began = Instant::now();
        let (mut last, mut arrived) = ([0; 4], 0);
        while began.elapsed() < Duration::from_millis(400) || arrived < 50 {
            assert!(began.elapsed() < Duration::from_secs(20), "only {arrived} arrived");
            for letter in writer.service().unwrap().mail {
                let (sender, counts) = letter.split_last().unwrap();
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
    let writer = with_mail(&channel);
    let service = Service::of(&writer);
    let (mut reader, handle) = joined(&channel);
    for value in 2..=40 {
        assert!(publish(&writer, value));
        common::next(&mut reader, &mut Vec::new());
        send(&handle, &[&value.to_string()]);
        common::wait_until("there", Duration::from_secs(5), || {
            service
                .seen()
                .mail
                .last()
                .is_some_and(|letter| letter == value.to_string().as_bytes())
        });
    }
    assert_eq!(service.seen().mail.len(), 39);
}
