// SPDX-License-Identifier: MIT OR Apache-2.0

//! The examples run as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rsshm_testkit::{Channel, Process, need_real_machine};

use crate::support::{Program, archive, crate_directory, directory, run, unique};

/// The command of a lossless writer. As in the frames of the example writer, the first byte is the index. The writer waits
/// for a reader, so the reader gets all frames, however late it is.
pub fn lossless_writer(writer: &Program, channel: &Channel, count: u32) -> Command {
    writer.command(&[channel.as_str(), &count.to_string(), "claim", "GRAY8", "640", "360"])
}

/// Starts a reader and a lossless writer of 20 frames, and returns the output of the reader.
#[track_caller]
fn read_twenty(reader: Command, channel: &Channel) -> String {
    let writer = Program::new("tests/c/write.c");
    let mut reading = Process::start(reader);
    Process::start(lossless_writer(&writer, channel, 20)).wait_ok();
    reading.wait_ok()
}

/// What the reader in C prints of the frames of a writer.
fn frame_lines(count: u32) -> Vec<String> {
    (0..count)
        .map(|index| format!("frame {}: GRAY8 640x360, 230400 bytes from {index}", index + 1))
        .collect()
}

/// Checks the output of the reader in C, which prints each frame.
#[track_caller]
pub fn assert_all(output: &str, count: u32) {
    assert_eq!(output.lines().collect::<Vec<_>>(), frame_lines(count));
}

/// Flags for a library that pkg-config knows.
pub fn pkg_config(library: &str) -> Vec<String> {
    let output = run(Command::new("pkg-config").args(["--cflags", "--libs", library]));
    output.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn c_examples_work_together() {
    let channel = Channel::new();
    let (reader, writer) = (Program::new("examples/reader.c"), Program::new("examples/writer.c"));
    let mut reading = reader.start(&[channel.as_str()]);
    reading.wait_asleep();
    writer.start(&[channel.as_str(), "100"]).wait_ok();
    let output = reading.wait_ok();
    // This writer does not wait, so a late reader misses frames, but not the last one.
    let expected = frame_lines(100);
    let mut rest = expected.iter();
    assert!(output.lines().all(|line| rest.any(|each| each == line)), "{output}");
    assert_eq!(output.lines().last(), expected.last().map(String::as_str), "{output}");
}

#[test]
fn c_plus_plus_example_reads_until_the_end() {
    let channel = Channel::new();
    // This reader takes the newest frame, so it skips frames if it is late.
    let reader = Program::new("examples/reader.cpp");
    let output = read_twenty(reader.command(&[channel.as_str()]), &channel);
    assert_newest(&output);
    assert!(
        output
            .lines()
            .all(|line| line.contains("GRAY8 640x360") && line.ends_with(" us old"))
    );
}

#[test]
fn epoll_example_reads_several_channels() {
    let (first, second) = (Channel::new(), Channel::new());
    let writer = Program::new("tests/c/write.c");
    let reader = Program::new("examples/epoll.c");
    let mut reading = reader.start(&[first.as_str(), second.as_str()]);
    let mut writing =
        [(&first, 20), (&second, 10)].map(|(channel, count)| Process::start(lossless_writer(&writer, channel, count)));
    writing.iter_mut().for_each(|writing| drop(writing.wait_ok()));
    let output = reading.wait_ok();
    for (channel, count) in [(&first, 20), (&second, 10)] {
        let lines = output.lines().filter(|line| line.starts_with(&format!("{channel}: ")));
        let mut expected: Vec<_> = (0..count)
            .map(|index| format!("{channel}: frame {} from {index}", index + 1))
            .collect();
        expected.push(format!("{channel}: the end"));
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn glib_example_reads_in_a_main_loop() {
    let channel = Channel::new();
    let flags = pkg_config("glib-2.0");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let reader = Program::with("examples/glib.c", &flags);
    let output = read_twenty(reader.command(&[channel.as_str()]), &channel);
    let expected = (0..20).map(|index| format!("frame {} from {index}", index + 1));
    assert_eq!(output.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// A directory that is removed with the value.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = directory().join(unique(name));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Installs the library as `make install-capi` does.
pub fn install() -> Directory {
    let prefix = Directory::new("prefix");
    run(Command::new(crate_directory().join("install"))
        .arg(archive())
        .env("PREFIX", &prefix.0));
    prefix
}

/// A command that finds the library in `prefix` with pkg-config.
pub fn with_prefix(program: impl AsRef<Path>, prefix: &Directory) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env("PKG_CONFIG_PATH", prefix.path("lib/pkgconfig"));
    command.env("LD_LIBRARY_PATH", prefix.path("lib"));
    command
}

/// Runs a reader that was built with the installed library, and returns its output.
#[track_caller]
fn reads(program: PathBuf, prefix: &Directory) -> String {
    let channel = Channel::new();
    let mut command = with_prefix(program, prefix);
    command.arg(channel.as_str());
    read_twenty(command, &channel)
}

/// Checks the output of the reader in C++, which takes the newest frame. It skips frames if it is late, but not the last.
#[track_caller]
fn assert_newest(output: &str) {
    let seq = |line: &str| line.split([' ', ':']).find_map(|word| word.parse::<u64>().ok());
    let seqs: Vec<u64> = output.lines().filter_map(seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{output}");
    assert_eq!(seqs.last(), Some(&20), "{output}");
}

#[test]
fn cmake_finds_the_installed_library() {
    let (prefix, build) = (install(), Directory::new("cmake"));
    run(with_prefix("cmake", &prefix)
        .arg("-S")
        .arg(crate_directory().join("examples/cmake"))
        .arg("-B")
        .arg(&build.0));
    run(with_prefix("cmake", &prefix).arg("--build").arg(&build.0));
    let output = reads(build.path("reader"), &prefix);
    assert_all(&output, 20);
    assert_newest(&reads(build.path("reader-cpp"), &prefix));
}

#[test]
fn meson_finds_the_installed_library() {
    need_real_machine!("Meson needs the Python of this machine, and the tests for ARM64 need their own");
    let (prefix, build) = (install(), Directory::new("meson"));
    let source = crate_directory().join("examples/meson");
    run(with_prefix("meson", &prefix).arg("setup").arg(&build.0).arg(source));
    run(with_prefix("ninja", &prefix).arg("-C").arg(&build.0));
    let output = reads(build.path("reader"), &prefix);
    assert_all(&output, 20);
    assert_newest(&reads(build.path("reader-cpp"), &prefix));
}

#[test]
fn static_library_links_into_a_program() {
    let prefix = install();
    let program = prefix.path("static-reader");
    let mut flags = with_prefix("pkg-config", &prefix);
    let flags = run(flags.args(["--static", "--cflags", "--libs", "rsshm"]));
    let flags = flags
        .split_whitespace()
        .map(|flag| if flag == "-lrsshm" { "-l:librsshm.a" } else { flag });
    run(Command::new("cc")
        .arg(crate_directory().join("examples/reader.c"))
        .arg("-o")
        .arg(&program)
        .args(flags));
    let dynamic = run(Command::new("readelf").arg("-d").arg(&program));
    assert!(!dynamic.contains("librsshm"), "{dynamic}");
    let output = reads(program, &prefix);
    assert_all(&output, 20);
}

#[test]
fn installed_files_have_their_names_and_links() {
    let prefix = install();
    let library = prefix.path("lib");
    let target = |name: &str| {
        fs::read_link(library.join(name))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    assert_eq!(target("librsshm.so"), "librsshm.so.0");
    assert!(library.join(target("librsshm.so.0")).exists());
    for file in [
        "lib/librsshm.a",
        "include/rsshm.h",
        "include/rsshm.hpp",
        "lib/pkgconfig/rsshm.pc",
    ] {
        assert!(prefix.path(file).exists(), "{file}");
    }
    let version = run(with_prefix("pkg-config", &prefix).args(["--modversion", "rsshm"]));
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
}
