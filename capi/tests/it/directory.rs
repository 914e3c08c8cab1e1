// SPDX-License-Identifier: MIT OR Apache-2.0

//! C programs with `RSSHM_DIR`, on the host and in a container that has only this directory.

use std::process::Command;

use rsshm_testkit::{Channel, Container, Process, SharedDirectory, container::RSSHM_DIR, skip};

use crate::{
    examples::{assert_all, lossless_writer},
    support::Program,
};

/// The example reader prints all frames of a writer. `reads` and `writes` make the command of a process that is
/// on the host or in a container.
#[track_caller]
fn check_examples(
    directory: &SharedDirectory,
    reads: impl Fn(Command) -> Command,
    writes: impl Fn(Command) -> Command,
) {
    let channel = Channel::new();
    let (reader, writer) = (Program::new("examples/reader.c"), Program::new("tests/c/write.c"));
    let mut reading = Process::start(reads(reader.command(&[channel.as_str()])));
    let mut writing = Process::start(writes(lossless_writer(&writer, &channel, 30)));
    let output = reading.wait_ok();
    assert_all(&output, 30);
    writing.wait_ok();
    assert!(directory.files().is_empty(), "{:?}", directory.files());
    channel.assert_removed();
}

#[test]
fn c_programs_work_across_containers() {
    let directory = SharedDirectory::new();
    if directory.inside(Container::Plain, &Command::new("true")).is_none() {
        skip!("no namespaces");
    }
    let inside = |command: Command| directory.inside(Container::Plain, &command).unwrap();
    let outside = |command: Command| directory.outside(command);
    check_examples(&directory, inside, outside);
    check_examples(&directory, outside, inside);
    check_examples(&directory, inside, inside);
}

#[test]
fn unsuitable_directory_is_system_error_with_text() {
    for source in ["examples/reader.c", "examples/writer.c"] {
        let program = Program::new(source);
        let mut command = program.command(&["cam0"]);
        command.env(RSSHM_DIR, "/proc");
        let output = Process::start(command).wait_error();
        assert!(output.contains("RSSHM_DIR=/proc is not a tmpfs, but proc"), "{output}");
    }
}
