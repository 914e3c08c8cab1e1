//! A process that may open no more files, or has no more addresses, is told so, and goes on when it may again.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{fs::File, time::Duration};

use common::{
    Channel, Service, check,
    child::{self, Child, listen, say},
    next, publish, publish_sized, slots,
};
use nix::libc;
use rsshm_channel::{Caps, ChannelName, Error, Next, ReadLimits, Reader, ReaderOptions, Writer};

const MIB: usize = 1 << 20;

/// Does something while there is none of what a process needs; tells it what an error has to say.
type Within = fn(&mut dyn FnMut(&str));

#[test]
fn child() {
    child::play(&[
        ("writes without files", |channel| writes_within(channel, without_files)),
        ("writes without addresses", |channel| {
            writes_within(channel, without_addresses);
        }),
        ("reads without files", |channel| reads_within(channel, without_files)),
        ("reads without addresses", |channel| {
            reads_within(channel, without_addresses);
        }),
    ]);
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit.rlim_cur = most.min(limit.rlim_max);
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Does something while no file can be opened; yields what an error of that has to say.
fn without_files(action: &mut dyn FnMut(&str)) {
    limit(libc::RLIMIT_NOFILE, 40);
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    action("Too many open files");
    drop(taken);
    limit(libc::RLIMIT_NOFILE, 1000);
}

/// Does something while the address space has no room for a large mapping.
fn without_addresses(action: &mut dyn FnMut(&str)) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, pages * 4096 + 4 * MIB as u64);
    action("address space");
    limit(libc::RLIMIT_AS, u64::MAX);
}

#[track_caller]
fn assert_says<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
    let error = result.expect_err("this needs more than there is");
    assert!(matches!(error, Error::System { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(what) && said.contains("channel"), "{said}");
    say(&said);
}

/// A writer of 4 MiB whose next segment has 64, and which cannot be made.
fn writes_within(channel: &str, within: Within) {
    let name = ChannelName::new(channel).unwrap();
    let writer = std::sync::Arc::new(Writer::open(name, slots(64)).unwrap());
    writer.set_caps(Caps::fixed_size("small", 64 << 10));
    assert!(publish_sized(&writer, 1, 64 << 10));
    let service = Service::of(&writer);
    let mut reader = Reader::new(writer.name().clone(), ReaderOptions::default());
    let mut copy = Vec::new();
    check(&next(&mut reader, &mut copy), &copy, 1);
    within(&mut |what| {
        // What it has goes on.
        for value in 2..20 {
            assert!(publish_sized(&writer, value, 64 << 10));
            check(&next(&mut reader, &mut copy), &copy, value);
        }
        writer.set_caps(Caps::fixed_size("large", MIB));
        for _ in 0..3 {
            assert_says(writer.claim(MIB), what);
        }
        // Longer than the names are left alone.
        std::thread::sleep(Duration::from_millis(1100));
        writer.set_caps(Caps::fixed_size("small", 64 << 10));
        assert!(publish_sized(&writer, 20, 64 << 10));
    });
    writer.set_caps(Caps::fixed_size("large", MIB));
    assert!(publish_sized(&writer, 21, MIB));
    check(&next(&mut reader, &mut copy), &copy, 20);
    check(&next(&mut reader, &mut copy), &copy, 21);
    drop(service);
    drop(writer);
    say("done");
}

/// A reader that cannot attach, then can.
fn reads_within(channel: &str, within: Within) {
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let mut copy = Vec::new();
    within(&mut |what| {
        for _ in 0..3 {
            let patience = Some(Duration::from_millis(100));
            let refused = reader.next(&mut copy, ReadLimits::default(), patience);
            assert_says(refused.map(|next| matches!(next, Next::Frame(_))), what);
        }
    });
    check(&next(&mut reader, &mut copy), &copy, 7);
    say("done");
    listen();
}

#[track_caller]
fn assert_done(child: &Child) {
    loop {
        match child.receive() {
            said if said == "done" => return,
            said => println!("{said}"),
        }
    }
}

#[test]
fn a_writer_without_files_or_addresses_says_so_and_goes_on() {
    for role in ["writes without files", "writes without addresses"] {
        let channel = Channel::new();
        assert_done(&Child::start(role, channel.as_str()));
        channel.assert_nothing_left();
    }
}

#[test]
fn a_reader_without_files_or_addresses_says_so_and_comes_later() {
    for role in ["reads without files", "reads without addresses"] {
        let channel = Channel::new();
        let writer = channel.writer(slots(64));
        writer.set_caps(Caps::fixed_size("large", MIB));
        assert!(publish_sized(&writer, 7, MIB));
        assert_done(&Child::start(role, channel.as_str()));
        assert!(publish(&writer, 8));
    }
}
