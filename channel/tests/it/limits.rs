// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that cannot open more files, or has no address space left, gets an error. It continues when the resource
//! is available again.

use std::{fs::File, time::Duration};

use nix::libc;
use rsshm_channel::{Caps, Error, Next, ReadLimits, ReaderOptions, SpaceLimit};
use rsshm_testkit::{
    Channel, Process, need_real_machine,
    role::{self, Role, listen, say},
};

use crate::support::{ChannelExt, Service, check, next, open_reader, open_writer, publish, publish_sized, slots};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A function that runs an action while a resource is exhausted. The action receives the text that its errors must
/// contain.
type Exhaustion = fn(&mut dyn FnMut(&str));

pub const ROLES: &[(&str, Role)] = &[
    ("limits/writer without files", |arguments| {
        writer_within(arguments[0], without_files);
    }),
    ("limits/writer without addresses", |arguments| {
        writer_within(arguments[0], without_addresses);
    }),
    ("limits/writer of small files", |arguments| small_files(arguments[0])),
    ("limits/reader without files", |arguments| {
        reader_within(arguments[0], without_files);
    }),
    ("limits/reader without addresses", |arguments| {
        reader_within(arguments[0], without_addresses);
    }),
];

/// Limits a resource of this process.
fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit.rlim_cur = most.min(limit.rlim_max);
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Runs an action while this process can open no file.
fn without_files(action: &mut dyn FnMut(&str)) {
    limit(libc::RLIMIT_NOFILE, 40);
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    action("Too many open files");
    drop(taken);
    limit(libc::RLIMIT_NOFILE, 1000);
}

/// Runs an action while the address space has no room for a large mapping.
fn without_addresses(action: &mut dyn FnMut(&str)) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, pages * 4096 + 4 * MIB as u64);
    action("address space");
    limit(libc::RLIMIT_AS, u64::MAX);
}

#[track_caller]
fn assert_system_error<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
    let error = result.expect_err("an error of the system");
    assert!(matches!(error, Error::System { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(what) && text.contains("channel"), "{text}");
    say(&text);
}

/// A writer with a segment of 4 MiB. While the resource is exhausted, the writer cannot create its next segment, which
/// has 64 MiB.
fn writer_within(channel: &str, within: Exhaustion) {
    let writer = open_writer(channel, slots(64));
    writer.set_caps(Caps::fixed_size("small", 64 * KIB)).unwrap();
    assert!(publish_sized(&writer, 1, 64 * KIB));
    let service = Service::of(&writer);
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    check(&next(&mut reader, &mut copy), &copy, 1);
    within(&mut |what| {
        // While the resource is exhausted, the writer keeps using the segment that it has.
        for value in 2..20 {
            assert!(publish_sized(&writer, value, 64 * KIB));
            check(&next(&mut reader, &mut copy), &copy, value);
        }
        writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
        for _ in 0..3 {
            assert_system_error(writer.claim(MIB), what);
        }
        // The service checks the names once a second, so this sleep contains at least one check.
        std::thread::sleep(Duration::from_millis(1100));
        writer.set_caps(Caps::fixed_size("small", 64 * KIB)).unwrap();
        assert!(publish_sized(&writer, 20, 64 * KIB));
    });
    writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
    assert!(publish_sized(&writer, 21, MIB));
    check(&next(&mut reader, &mut copy), &copy, 20);
    check(&next(&mut reader, &mut copy), &copy, 21);
    drop(service);
    drop(writer);
    say("done");
}

/// A writer that may make only files of less than 4 MiB. The kernel's signal for a larger file would end it.
fn small_files(channel: &str) {
    const LIMIT: usize = 4 * MIB;
    limit(libc::RLIMIT_FSIZE, LIMIT as u64);
    let writer = open_writer(channel, slots(64));
    writer.set_caps(Caps::fixed_size("large", 2 * MIB)).unwrap();
    match writer.claim(2 * MIB) {
        Err(
            ref error @ Error::NoSpace {
                limit: SpaceLimit::FileSize,
                total,
                ..
            },
        ) => {
            assert_eq!(total, LIMIT as u64);
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // Smaller frames fit. The segment gets as many slots as the limit allows.
    writer.set_caps(Caps::fixed_size("small", 512 * KIB)).unwrap();
    let claimed: Vec<_> = std::iter::from_fn(|| writer.claim(512 * KIB).unwrap()).collect();
    assert!((6..8).contains(&claimed.len()), "{}", claimed.len());
    let shortage = writer.service().unwrap().shortage.expect("a shortage");
    assert!(shortage.to_string().contains("ulimit -f"), "{shortage}");
    assert_eq!(writer.service().unwrap().shortage, None);
    drop((claimed, writer));
    say("done");
}

/// A reader that can attach only when the resource is available again.
fn reader_within(channel: &str, within: Exhaustion) {
    let mut reader = open_reader(channel, ReaderOptions::default());
    let mut copy = Vec::new();
    within(&mut |what| {
        for _ in 0..3 {
            let timeout = Some(Duration::from_millis(100));
            let refused = reader.next(&mut copy, ReadLimits::default(), timeout);
            assert_system_error(refused.map(|next| matches!(next, Next::Frame(_))), what);
        }
    });
    check(&next(&mut reader, &mut copy), &copy, 7);
    say("done");
    listen();
}

/// Prints the lines of a role until the role says "done".
#[track_caller]
fn wait_done(mut process: Process) {
    loop {
        match process.receive() {
            line if line == "done" => return,
            line => println!("{line}"),
        }
    }
}

fn writer_reports_and_continues(role: &str) {
    let channel = Channel::new();
    wait_done(role::start(role, &[channel.as_str()]));
    channel.assert_removed();
}

#[test]
fn writer_without_files_reports_and_continues() {
    writer_reports_and_continues("limits/writer without files");
}

#[test]
fn writer_without_addresses_reports_and_continues() {
    need_real_machine!("RLIMIT_AS has no effect");
    writer_reports_and_continues("limits/writer without addresses");
}

#[test]
fn writer_that_may_make_only_small_files_reports_and_continues() {
    let channel = Channel::new();
    wait_done(role::start("limits/writer of small files", &[channel.as_str()]));
    channel.assert_removed();
}

fn reader_reports_and_attaches_later(role: &str) {
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    writer.set_caps(Caps::fixed_size("large", MIB)).unwrap();
    assert!(publish_sized(&writer, 7, MIB));
    wait_done(role::start(role, &[channel.as_str()]));
    assert!(publish(&writer, 8));
}

#[test]
fn reader_without_files_reports_and_attaches_later() {
    reader_reports_and_attaches_later("limits/reader without files");
}

#[test]
fn reader_without_addresses_reports_and_attaches_later() {
    need_real_machine!("RLIMIT_AS has no effect");
    reader_reports_and_attaches_later("limits/reader without addresses");
}
