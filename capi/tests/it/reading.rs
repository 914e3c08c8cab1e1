// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader in C beside a writer in Rust.

use std::{sync::Arc, time::Duration};

use rsshm_channel::{
    Caps, FrameDescriptor, ServiceThread, Writer, WriterOptions, metadata::RegionOfInterest, monotonic_ns,
};
use rsshm_testkit::{Channel, eventually, frames};

use crate::support::Program;

const SIZE: usize = 64 * 48;
const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

fn writer(channel: &Channel, caps: &str, size: usize, lossless: bool) -> (Arc<Writer>, ServiceThread) {
    let options = WriterOptions::default().lossless(lossless);
    let writer = Arc::new(Writer::open(channel.0.clone(), options).unwrap());
    writer.set_caps(Caps::fixed_size(caps, size)).unwrap();
    let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(20), |_, _| {}).unwrap();
    (writer, service)
}

/// Publishes a frame whose rows of `row` bytes each begin the pattern of `number`.
fn publish(writer: &Writer, size: usize, row: usize, number: u32) {
    let mut slot = writer.claim(size).unwrap().expect("a slot");
    for row in slot.as_mut().chunks_mut(row) {
        frames::fill(row, number);
    }
    writer
        .publish(&slot, FrameDescriptor::new(size as u64).with_pts(monotonic_ns()), &[])
        .unwrap();
}

/// The reader gets each frame of a lossless writer.
#[track_caller]
fn reads_all(arguments: &[&str], in_place: &str) {
    let program = Program::new("tests/c/read.c");
    let channel = Channel::new();
    let mut reader = program.converse(&channel, arguments);
    let (writer, _service) = writer(&channel, CAPS, SIZE, true);
    writer.wait_for_reader(SIZE, || true).unwrap();
    for number in 0..200 {
        publish(&writer, SIZE, 64, number);
        let line = reader.receive();
        let expected = format!(
            "{number} seq={} missed=0 format=GRAY8 64x48@30/1 planes=1 size={SIZE}",
            number + 1
        );
        assert!(line.starts_with(&expected), "{line}");
        assert!(
            line.contains(in_place) && line.contains("pts=1") && line.ends_with(CAPS),
            "{line}"
        );
    }
    writer.end_of_stream();
    reader.expect("eos");
    reader.wait_ok();
}

#[test]
fn c_reader_gets_frames_in_place() {
    reads_all(&[], "in-place=1");
}

#[test]
fn c_reader_gets_copies() {
    reads_all(&["copy"], "in-place=0");
}

#[test]
fn c_reader_with_descriptor_gets_frames() {
    reads_all(&["fd"], "in-place=");
}

#[test]
fn c_observer_gets_copies() {
    let program = Program::new("tests/c/read.c");
    let channel = Channel::new();
    let (writer, _service) = writer(&channel, CAPS, SIZE, false);
    publish(&writer, SIZE, 64, 7);
    let mut reader = program.converse(&channel, &["observe"]);
    for number in 8..50 {
        let line = reader.receive();
        assert!(
            line.starts_with(&format!("{} ", number - 1)) && line.contains("in-place=0"),
            "{line}"
        );
        publish(&writer, SIZE, 64, number);
    }
    writer.end_of_stream();
    assert!(reader.receive().starts_with("49 "));
    reader.expect("eos");
    reader.wait_ok();
}

/// A burst that the reader does not take at once: `newest` gets the last frame only.
#[test]
fn newest_frame_is_delivered_also_with_descriptor() {
    let program = Program::new("tests/c/read.c");
    for arguments in [&["newest"][..], &["newest", "fd"]] {
        let channel = Channel::new();
        let mut reader = program.converse(&channel, arguments);
        let (writer, _service) = writer(&channel, CAPS, SIZE, false);
        publish(&writer, SIZE, 64, 0);
        assert!(reader.receive().starts_with("0 "));
        reader.stop();
        for number in 1..=20 {
            publish(&writer, SIZE, 64, number);
        }
        reader.resume();
        let mut last = reader.receive();
        let mut lines = 1;
        while !last.starts_with("20 ") {
            lines += 1;
            last = reader.receive();
        }
        // The stop may hit the reader before it waits, with one frame in its hands.
        assert!(lines <= 2, "{arguments:?}: {last}");
        assert!(last.contains("missed=19") || lines == 2, "{last}");
        writer.end_of_stream();
        reader.expect("eos");
        reader.wait_ok();
    }
}

#[test]
fn c_reader_follows_to_another_writer_with_other_caps() {
    let program = Program::new("tests/c/read.c");
    for arguments in [&[][..], &["fd"], &["copy"]] {
        let channel = Channel::new();
        let mut reader = program.converse(&channel, arguments);
        {
            let (writer, _service) = writer(&channel, CAPS, SIZE, false);
            publish(&writer, SIZE, 64, 1);
            assert!(reader.receive().contains("64x48"));
        }
        reader.expect("no writer");
        let caps = "video/x-raw,format=NV12,width=32,height=16,framerate=25/1";
        let (writer, _service) = writer(&channel, caps, 32 * 24, false);
        publish(&writer, 32 * 24, 32, 2);
        let line = reader.receive();
        assert!(
            line.contains("format=NV12 32x16@25/1 planes=2") && line.starts_with("2 "),
            "{line}"
        );
        // Caps that are not video, from the same writer.
        writer.set_caps(Caps::fixed_size("application/x-test", 1000)).unwrap();
        publish(&writer, 1000, 1000, 3);
        let line = reader.receive();
        assert!(
            line.contains("format= 0x0@0/1 planes=0 size=1000") && line.starts_with("3 "),
            "{line}"
        );
        writer.end_of_stream();
        reader.expect("eos");
        reader.wait_ok();
    }
}

#[test]
fn metadata_reaches_c() {
    let program = Program::new("tests/c/metadata.c");
    let channel = Channel::new();
    let mut reader = program.converse(&channel, &[]);
    let (writer, _service) = writer(&channel, CAPS, SIZE, false);
    let mut metadata = RegionOfInterest {
        x: 1,
        y: 2,
        width: 30,
        height: 40,
        id: 5,
        parent_id: -1,
        kind: "face",
    }
    .to_record();
    metadata.extend([4u16, 34].iter().flat_map(|number| number.to_ne_bytes()));
    metadata.extend(
        [25u32, 1, 0, 10, 20, 30, 4, 0]
            .iter()
            .flat_map(|number| number.to_ne_bytes()),
    );
    metadata.extend([0; 2]);
    // A kind that nobody knows, and a record that is not whole.
    metadata.extend([9999u16, 3].iter().flat_map(|number| number.to_ne_bytes()));
    metadata.extend([77, 78, 79, 1, 0, 200]);
    let slot = writer.claim(SIZE).unwrap().unwrap();
    writer
        .publish(&slot, FrameDescriptor::new(SIZE as u64), &metadata)
        .unwrap();
    reader.wait_ok();
    let output = reader.output();
    let lines: Vec<_> = output.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "record 2 of 30 bytes, the first is 1",
            "record 4 of 34 bytes, the first is 25",
            "record 9999 of 3 bytes, the first is 77",
            "region 30x40 at 1,2 id 5 in -1: face",
            "time code 10:20:30:04 at 25/1",
        ]
    );
}

/// A reader that was killed in the middle of a frame leaves nothing that disturbs the writer.
#[test]
fn killed_c_reader_is_noticed() {
    let program = Program::new("tests/c/read.c");
    let channel = Channel::new();
    let mut reader = program.converse(&channel, &["fd"]);
    let (writer, _service) = writer(&channel, CAPS, SIZE, false);
    publish(&writer, SIZE, 64, 0);
    reader.receive();
    reader.kill();
    eventually("the reader is gone", || writer.service().unwrap().reader_count == 0);
    for number in 1..100 {
        publish(&writer, SIZE, 64, number);
    }
}
