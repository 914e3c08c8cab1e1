// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processes that can open no more files.

use std::{fs::File, time::Duration};

use nix::sys::resource::Resource;
use rsshm_channel::Next;
use rsshm_testkit::{
    Channel, eventually,
    role::{self, Role, listen as listen_line, say},
    timed,
};

use crate::{
    objects::{
        accepting, check_objects, is_object,
        pool::{Pool, object_writer, open_files},
    },
    support::{ChannelExt, SECOND, Service, limit, slots},
};

pub const ROLES: &[(&str, Role)] = &[
    ("objects/hostile/writer without files", |arguments| {
        writer_without_files(arguments[0]);
    }),
    ("objects/hostile/reader without files", |arguments| {
        reader_without_files(arguments[0]);
    }),
];

/// Limits the number of files of this process.
fn limit_files(most: u64) {
    limit(Resource::RLIMIT_NOFILE, most);
}

/// Opens files until no more can be opened.
fn take_all_files() -> Vec<File> {
    limit_files(open_files("self") as u64 + 20);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// A writer that can open no more files publishes on with its objects. It answers readers when it has files again.
fn writer_without_files(channel: &str) {
    let writer = object_writer(channel, slots(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    for value in 1..=20 {
        assert!(pool.publish(&writer, value));
    }
    say("published");
    listen_line();
    let taken = take_all_files();
    let error = writer
        .objects()
        .register(std::os::fd::AsFd::as_fd(&taken[0]))
        .unwrap_err();
    assert!(error.to_string().contains("EMFILE"), "{error}");
    say("exhausted");
    let began = std::time::Instant::now();
    let cpu = crate::support::cpu_time();
    for value in 21.. {
        assert!(pool.publish(&writer, value));
        std::thread::sleep(Duration::from_millis(2));
        if began.elapsed() > 2 * SECOND {
            break;
        }
    }
    let cpu = crate::support::cpu_time() - cpu;
    assert!(cpu < SECOND, "the writer was busy: {cpu:?}");
    drop(taken);
    limit_files(1024);
    say("has files");
    for value in 1.. {
        assert!(pool.publish(&writer, value));
        std::thread::sleep(Duration::from_millis(2));
        if began.elapsed() > 10 * SECOND {
            break;
        }
    }
    drop(service);
}

#[test]
fn writer_without_files_answers_later() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer without files", &[channel.as_str()]);
    writer.expect("published");
    writer.send("go on");
    writer.expect("exhausted");
    let mut reader = channel.reader();
    // The writer cannot accept the connection, so the reader misses frames. It is not stuck.
    for _ in 0..2 {
        let (duration, next) = timed(|| reader.next(&mut Vec::new(), accepting(), Some(SECOND)).unwrap());
        assert!(duration < 4 * SECOND, "{duration:?}");
        assert!(!matches!(next, Next::Lost), "{next:?}");
        if let Next::Frame(_) = next {
            break;
        }
    }
    writer.expect("has files");
    eventually(
        "frames in place",
        || matches!(reader.next(&mut Vec::new(), accepting(), Some(SECOND)).unwrap(), Next::Frame(frame) if is_object(&frame)),
    );
}

/// A reader that can open no more files misses frames and says why. It goes on when it has files again.
fn reader_without_files(channel: &str) {
    let mut reader = crate::support::open_reader(channel, rsshm_channel::ReaderOptions::default());
    let mut copy = Vec::new();
    // It attaches, and needs no object yet.
    let attached = reader.next(&mut copy, accepting(), Some(Duration::ZERO)).unwrap();
    drop(attached);
    let taken = take_all_files();
    let mut faults = 0;
    for _ in 0..200 {
        match reader
            .next(&mut copy, accepting(), Some(Duration::from_millis(50)))
            .unwrap()
        {
            Next::Frame(frame) => check_objects(&frame, &copy),
            Next::Fault(fault) => {
                assert!(fault.to_string().contains("ulimit"), "{fault}");
                faults += 1;
            }
            Next::TimedOut => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(faults > 0);
    drop(taken);
    limit_files(1024);
    for _ in 0..2 {
        // With one free file, the connection can be made, but the descriptor cannot come.
        let files = open_files("self") as u64;
        limit_files(files);
        let _ = reader
            .next(&mut copy, accepting(), Some(Duration::from_millis(20)))
            .unwrap();
        limit_files(1024);
    }
    let files = open_files("self");
    eventually(
        "frames in place",
        || matches!(reader.next(&mut copy, accepting(), Some(SECOND)).unwrap(), Next::Frame(frame) if is_object(&frame)),
    );
    for _ in 0..50 {
        reader.next(&mut copy, accepting(), Some(SECOND)).unwrap();
    }
    assert!(open_files("self") <= files + 8);
    say("goes on");
}

#[test]
fn reader_without_files_says_so_and_goes_on() {
    let channel = Channel::new();
    let mut writer = role::start("objects/hostile/writer", &[channel.as_str()]);
    writer.expect("published");
    let mut reader = role::start("objects/hostile/reader without files", &[channel.as_str()]);
    reader.expect("goes on");
    reader.wait_ok();
    writer.send("end");
    writer.wait_ok();
}
