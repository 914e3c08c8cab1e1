// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the removal of files that a dead writer has left.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rsshm_channel::{Error, Leftover, Observer, Writer, WriterOptions};
use rsshm_testkit::{
    Channel, PATIENCE, need_root,
    privileges::{NOBODY, ProgramForAll},
    role::{self, Role, say},
};

use crate::support::{ChannelExt, StopOnDrop, publish, slots};

pub const ROLES: &[(&str, Role)] = &[("leftovers/remover", |arguments| {
    let channel = rsshm_channel::ChannelName::new(arguments[0]).unwrap();
    say(matches!(Leftover::remove(&channel), Err(Error::Denied { .. })));
})];

#[test]
fn files_of_killed_writer_are_removed() {
    let channel = Channel::new();
    assert_eq!(Leftover::of(&channel), Ok(Leftover::Nothing));
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::Nothing));
    let mut writer = role::start("inspection/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.stop();
    assert_eq!(
        Leftover::remove(&channel),
        Ok(Leftover::HasWriter),
        "a stopped writer lives"
    );
    assert!(channel.exists());
    writer.kill();
    assert_eq!(Leftover::of(&channel), Ok(Leftover::Removable));
    assert!(channel.exists(), "a look removes nothing");
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::Removable));
    channel.assert_removed();
}

#[test]
fn files_with_a_living_reader_stay() {
    let channel = Channel::new();
    let mut writer = role::start("inspection/writer", &[channel.as_str()]);
    writer.expect("published");
    let mut reader = role::start("inspection/reader", &[channel.as_str()]);
    reader.expect("attached");
    writer.kill();
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::HasReaders(1)));
    assert!(channel.exists());
    reader.kill();
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::Removable));
    channel.assert_removed();
}

#[test]
fn damaged_segment_is_removed_and_other_files_stay() {
    let channel = Channel::new();
    let mut writer = role::start("inspection/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.kill();
    // Only the beginning of the segment is left.
    let file = fs::File::options().write(true).open(channel.segment()).unwrap();
    file.set_len(100).unwrap();
    assert!(Observer::inspect(&channel).is_err());
    assert_eq!(Leftover::remove(&channel), Ok(Leftover::Removable));
    channel.assert_removed();
    // Shared memory and a semaphore of a program that has nothing to do with channels.
    for file in channel.files() {
        fs::write(file, [0; 32]).unwrap();
    }
    assert!(matches!(Leftover::remove(&channel), Err(Error::Foreign { .. })));
    assert!(channel.exists());
}

#[test]
fn another_user_removes_nothing() {
    need_root!("another user tries to remove the files");
    let channel = Channel::new();
    let mut writer = role::start("inspection/writer", &[channel.as_str()]);
    writer.expect("published");
    writer.kill();
    let program = ProgramForAll::new().unwrap();
    let command = program.command(&role::command("leftovers/remover", &[channel.as_str()]), NOBODY);
    let mut remover = rsshm_testkit::Process::converse(command);
    remover.expect("true");
    assert!(channel.exists());
}

/// A program removes leftovers all the time, while writers come and go. No writer loses its channel, and none is refused.
#[test]
fn removal_never_takes_a_living_channel() {
    let channel = Channel::new();
    let is_over = AtomicBool::new(false);
    let [removed, kept] = [0; 2].map(AtomicU32::new);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed, because the flag and the counts order nothing else.
            while !is_over.load(Ordering::Relaxed) {
                match Leftover::remove(&channel) {
                    Ok(Leftover::Removable) => removed.fetch_add(1, Ordering::Relaxed),
                    Ok(Leftover::HasWriter) => kept.fetch_add(1, Ordering::Relaxed),
                    _ => 0,
                };
            }
        });
        let _stop = StopOnDrop(&is_over);
        let began = Instant::now();
        for round in 0.. {
            let has_both = [&removed, &kept].iter().all(|count| count.load(Ordering::Relaxed) > 0);
            if has_both && began.elapsed() > Duration::from_secs(2) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{removed:?} {kept:?}");
            if round % 4 == 0 {
                let mut killed = role::start("inspection/writer", &[channel.as_str()]);
                killed.expect("published");
                assert!(channel.exists());
                killed.kill();
            } else {
                let writer = Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
                drop(writer);
                let writer = channel.writer(slots(4));
                assert!(publish(&writer, round));
                assert!(channel.exists(), "round {round}");
                assert!(Observer::open(&channel).unwrap().is_some(), "round {round}");
            }
        }
    });
}
