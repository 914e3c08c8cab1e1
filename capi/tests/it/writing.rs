// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writer in C beside a reader in Rust, or beside a reader in C.

use std::time::Duration;

use rsshm_channel::{Next, ReadLimits, Reader, ReaderOptions};
use rsshm_testkit::{Channel, Process, frames};

use crate::support::Program;

const COUNT: u32 = 60;

fn reader(channel: &Channel) -> Reader {
    Reader::new(channel.0.clone(), ReaderOptions::default())
}

/// The numbers of the frames that a reader in Rust gets until the end of the stream. Each row of each plane, given by
/// `rows` as an offset and a size, has the number that the writer drew.
fn read_all(mut reader: Reader, rows: impl Fn(usize) -> Vec<(usize, usize)>) -> Vec<u32> {
    let mut copy = Vec::new();
    let mut numbers = Vec::new();
    loop {
        let next = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(20)));
        match next.unwrap() {
            Next::Frame(frame) => {
                let bytes = frame.bytes(&copy);
                let found: Vec<_> = rows(bytes.len())
                    .into_iter()
                    .map(|(offset, size)| frames::check(&bytes[offset..offset + size]))
                    .collect();
                assert!(
                    found.iter().all(|number| number.is_some() && *number == found[0]),
                    "{found:?}"
                );
                numbers.push(found[0].unwrap());
            }
            Next::EndOfStream => return numbers,
            Next::TimedOut => panic!("no frame after {numbers:?}"),
            _ => {}
        }
    }
}

fn rows(first: usize, stride: usize, size: usize, count: usize) -> Vec<(usize, usize)> {
    (0..count).map(|row| (first + row * stride, size)).collect()
}

#[track_caller]
fn writes_all(mode: &str, format: [&str; 3], rows: impl Fn(usize) -> Vec<(usize, usize)>) {
    let program = Program::new("tests/c/write.c");
    let channel = Channel::new();
    let mut arguments = vec![channel.as_str(), "60", mode];
    arguments.extend(format);
    let mut writer = program.start(&arguments);
    let numbers = read_all(reader(&channel), rows);
    // The reader in Rust was dropped, so the writer ends.
    writer.wait_ok();
    let first = numbers[0];
    assert!(first <= 1, "{numbers:?}");
    assert_eq!(numbers, (first..COUNT).collect::<Vec<_>>());
    channel.assert_removed();
}

#[test]
fn c_writer_draws_in_place() {
    writes_all("claim", ["GRAY8", "61", "47"], |_| rows(0, 64, 61, 47));
}

#[test]
fn c_writer_draws_planes_in_place() {
    writes_all("claim", ["NV12", "62", "46"], |_| {
        [rows(0, 64, 62, 46), rows(64 * 46, 64, 62, 23)].concat()
    });
}

#[test]
fn c_writer_copies_rows_with_padding() {
    writes_all("strides", ["I420", "62", "46"], |_| {
        [
            rows(0, 64, 62, 46),
            rows(64 * 46, 32, 31, 23),
            rows(64 * 46 + 32 * 23, 32, 31, 23),
        ]
        .concat()
    });
}

#[test]
fn c_writer_copies_pictures_upside_down() {
    writes_all("upside-down", ["BGR", "61", "47"], |_| rows(0, 184, 183, 47));
}

#[test]
fn c_writer_copies_large_frames() {
    writes_all("strides", ["BGRx", "1280", "720"], |_| rows(0, 5120, 5120, 720));
}

#[test]
fn c_writer_copies_bytes() {
    writes_all("bytes", ["RGB", "61", "47"], |_| rows(0, 184, 183, 47));
}

#[test]
fn c_writer_writes_other_caps() {
    let program = Program::new("tests/c/write.c");
    let channel = Channel::new();
    let mut reader = reader(&channel);
    // The reader has looked for the channel before the writer makes it, so it gets the first frame too.
    let nothing = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::ZERO));
    assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
    let mut writer = program.start(&[channel.as_str(), "60", "variable", "-", "0", "0"]);
    assert_eq!(read_all(reader, |size| vec![(0, size)]), (0..COUNT).collect::<Vec<_>>());
    writer.wait_ok();
}

#[test]
fn c_reader_gets_all_frames_of_a_c_writer() {
    let (read, write) = (Program::new("tests/c/read.c"), Program::new("tests/c/write.c"));
    for mode in ["claim", "strides"] {
        for options in [&[][..], &["fd"], &["copy"]] {
            let channel = Channel::new();
            let mut arguments = vec![channel.as_str()];
            arguments.extend(options);
            let mut reader = Process::converse(read.command(&arguments));
            reader.expect("ready");
            let mut writer = write.start(&[channel.as_str(), "60", mode, "NV12", "62", "46"]);
            for number in 0..COUNT {
                let line = reader.receive();
                assert!(
                    line.starts_with(&format!("{number} ")) && line.contains("NV12"),
                    "{line}"
                );
            }
            reader.expect("eos");
            reader.wait_ok();
            writer.wait_ok();
        }
    }
}
