// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `clean` beside writers and readers that start at the same moment. `clean` stops at a failpoint, which only
//! debug builds have.

use rsshm_testkit::Process;

use crate::support::{Channel, rsshm};

/// Starts `rsshm clean`, which stops itself at this failpoint.
fn stopped_clean(channel: &Channel, failpoint: &str) -> Process {
    let counts = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), channel.0);
    let mut command = rsshm(&format!("clean {}", channel.0));
    command.env("RSSHM_FAILPOINTS", format!("1,0,1000000,{counts},{failpoint}"));
    let clean = Process::start(command);
    clean.wait_stopped();
    std::fs::remove_file(counts).unwrap();
    clean
}

/// Lets `clean` go on, which must fail with these words.
#[track_caller]
fn expect_refusal(mut clean: Process, words: &str) {
    clean.resume();
    let status = clean.wait();
    assert_eq!(status.code(), Some(1), "{}", clean.output());
    assert!(clean.output().contains(words), "{}", clean.output());
}

#[test]
fn writer_that_starts_after_the_look_keeps_its_channel() {
    let channel = Channel::new();
    channel.writer().kill();
    let clean = stopped_clean(&channel, "LeftoverFound");
    let mut writer = channel.writer();
    let mut reader = channel.reader();
    expect_refusal(clean, "stays: its writer is alive");
    assert!(channel.exists());
    // The same reader gets the next frame of the same writer.
    writer.send("");
    writer.expect("2");
    reader.send("");
    assert_eq!(reader.receive(), "3");
}

#[test]
fn reader_of_writer_that_came_and_died_keeps_its_channel() {
    let channel = Channel::new();
    channel.writer().kill();
    let clean = stopped_clean(&channel, "LeftoverFound");
    let mut writer = channel.writer_with("0660");
    let mut reader = channel.reader();
    writer.kill();
    expect_refusal(clean, "a reader is alive");
    assert!(channel.exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&channel.lock_file().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660, "the group may still attach");
    let _writer = channel.writer();
    reader.send("");
    assert_eq!(reader.receive(), "3", "the reader goes on with the next writer");
}

/// `clean` holds the writer's lock while it removes the files, so a writer that starts meanwhile waits.
#[test]
fn writer_waits_for_a_clean_that_removes() {
    let channel = Channel::new();
    channel.writer().kill();
    for failpoint in ["ChannelLocked", "FormerSuperseded", "CloseUnnamed", "CloseStored"] {
        let mut clean = stopped_clean(&channel, failpoint);
        let mut writer = rsshm_testkit::role::start("writer", &[channel.as_str(), "0600"]);
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(writer.try_receive(), None, "{failpoint}");
        clean.resume();
        clean.wait_ok();
        writer.expect("1");
        assert!(channel.exists(), "{failpoint}");
        let _reader = channel.reader();
        writer.kill();
    }
}

/// Two of them remove the same files: the second finds nothing, and says so.
#[test]
fn second_clean_finds_nothing() {
    let channel = Channel::new();
    channel.writer().kill();
    let second = stopped_clean(&channel, "LeftoverFound");
    crate::support::run(&format!("clean {}", channel.0)).expect(0);
    channel.assert_removed();
    expect_refusal(second, "there is no channel");
    channel.assert_removed();
}
