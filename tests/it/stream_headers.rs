// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stream headers in the caps come before the first frame that a reader gets.

use std::time::Duration;

use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{LOSSLESS, SinkHarness, SourceRecorder, command, launch},
};

const HEADER: gst::BufferFlags = gst::BufferFlags::HEADER;
const NO_FLAGS: gst::BufferFlags = gst::BufferFlags::empty();

const CAPS: &str = "application/x-test, streamheader=(buffer)<0102, 030405>";

fn push(writer: &SinkHarness, bytes: &[u8], flags: gst::BufferFlags) {
    let mut buffer = gst::Buffer::from_slice(bytes.to_vec());
    buffer.get_mut().unwrap().set_flags(flags);
    writer.push(&buffer);
}

/// The bytes of all frames that the reader has got.
fn bytes(reader: &SourceRecorder) -> Vec<Vec<u8>> {
    reader.frames().iter().map(|frame| frame.bytes.clone()).collect()
}

/// Waits until the reader has got frames with exactly these bytes.
#[track_caller]
fn assert_bytes(reader: &SourceRecorder, expected: &[&[u8]]) {
    eventually("all frames arrive", || {
        let arrived = bytes(reader);
        // Two frames may have the same bytes.
        arrived.len() >= expected.len() && arrived.last().map(Vec::as_slice) == expected.last().copied()
    });
    assert_eq!(bytes(reader), expected);
}

#[test]
fn headers_come_once_at_the_beginning() {
    for headers in [
        &[][..],
        &[&[1, 2][..], &[3, 4, 5]],
        // Some muxers send the headers in other pieces.
        &[&[1], &[2, 3], &[4, 5]],
        // A frame may contain headers and more.
        &[&[1, 2, 3, 4, 5, 6]],
        &[&[1, 2], &[3, 4, 5, 6]],
    ] {
        let channel = Channel::new();
        let reader = SourceRecorder::of(&channel);
        let writer = SinkHarness::lossless(&channel);
        writer.set_caps(CAPS);
        for header in headers {
            push(&writer, header, HEADER);
        }
        push(&writer, &[6, 7], NO_FLAGS);
        push(&writer, &[1, 2], NO_FLAGS);
        push(&writer, &[8], HEADER);
        // A muxer repeats its headers in the stream. These frames are a part of the stream, and pass unchanged.
        push(&writer, &[1, 2], HEADER);
        push(&writer, &[9], NO_FLAGS);
        let first: &[&[u8]] = if headers.is_empty() {
            &[&[1, 2], &[3, 4, 5]]
        } else {
            headers
        };
        let rest: &[&[u8]] = &[&[6, 7], &[1, 2], &[8], &[1, 2], &[9]];
        assert_bytes(&reader, &[first, rest].concat());
        let frames = reader.frames();
        let flags = |index: usize| frames[index].flags;
        assert!(flags(0).contains(HEADER | gst::BufferFlags::DISCONT));
        assert!((1..first.len()).all(|index| flags(index).contains(HEADER)));
        assert!((1..first.len()).all(|index| !flags(index).contains(gst::BufferFlags::DISCONT)));
        assert!(!flags(first.len()).intersects(HEADER | gst::BufferFlags::DISCONT));
    }
}

/// A reader at the beginning of the stream gets the headers of the stream itself, with all their flags.
#[test]
fn headers_of_the_stream_keep_their_flags() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps(CAPS);
    push(&writer, &[1, 2], HEADER | gst::BufferFlags::MARKER);
    push(&writer, &[3, 4, 5], HEADER | gst::BufferFlags::DELTA_UNIT);
    push(&writer, &[6, 7], NO_FLAGS);
    assert_bytes(&reader, &[&[1, 2], &[3, 4, 5], &[6, 7]]);
    let frames = reader.frames();
    assert!(frames[0].flags.contains(HEADER | gst::BufferFlags::MARKER));
    assert!(frames[1].flags.contains(HEADER | gst::BufferFlags::DELTA_UNIT));
}

/// The source compares frames with the headers. Frames of several memories keep them all the same.
#[test]
fn memories_of_frames_beside_headers_stay_apart() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps(CAPS);
    for flags in [HEADER, NO_FLAGS] {
        let mut buffer = gst::Buffer::new();
        for bytes in [&[6][..], &[7, 8]] {
            buffer.get_mut().unwrap().append_memory(gst::Memory::from_slice(bytes));
        }
        buffer.get_mut().unwrap().set_flags(flags);
        writer.push(&buffer);
    }
    assert_bytes(&reader, &[&[1, 2], &[3, 4, 5], &[6, 7, 8], &[6, 7, 8]]);
    let frames = reader.frames();
    assert_eq!((&frames[2].memories, &frames[3].memories), (&vec![1, 2], &vec![1, 2]));
}

/// Some muxers send their headers first, and set caps with these headers afterwards.
#[test]
fn headers_before_their_caps_do_not_come_again() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps("application/x-test");
    push(&writer, &[1, 2], HEADER);
    push(&writer, &[3, 4, 5], HEADER);
    writer.set_caps(CAPS);
    push(&writer, &[6, 7], NO_FLAGS);
    assert_bytes(&reader, &[&[1, 2], &[3, 4, 5], &[6, 7]]);
    // A reader that joins now gets the headers in the caps.
    let late = SourceRecorder::of(&channel);
    assert_bytes(&late, &[&[1, 2], &[3, 4, 5], &[6, 7]]);
}

/// Some demuxers begin anew at a discontinuity. Caps that differ in their headers only do not interrupt a stream.
#[test]
fn new_headers_of_same_stream_are_no_discontinuity() {
    for (caps, is_discont) in [
        ("application/x-test, streamheader=(buffer)<0102>", false),
        ("application/x-test, kind=other, streamheader=(buffer)<0102>", true),
    ] {
        let channel = Channel::new();
        let reader = SourceRecorder::of(&channel);
        let writer = SinkHarness::lossless(&channel);
        writer.set_caps("application/x-test");
        push(&writer, &[1, 2], HEADER);
        writer.set_caps(caps);
        push(&writer, &[6], NO_FLAGS);
        assert_bytes(&reader, &[&[1, 2], &[6]]);
        let discont = |index: usize| reader.frames()[index].flags.contains(gst::BufferFlags::DISCONT);
        assert_eq!((discont(0), discont(1)), (true, is_discont), "{caps}");
    }
}

/// In the output of a muxer, an offset is that of a picture in its input. qtdemux takes it for a jump in the file.
#[test]
fn offsets_of_stream_in_bytes_are_left_out() {
    for (format, offset) in [("bytes", u64::MAX), ("time", 5)] {
        let channel = Channel::new();
        let reader = SourceRecorder::of(&channel);
        let writer = SinkHarness::with_source(&channel, &format!("format={format}"), LOSSLESS);
        writer.pipeline.play();
        writer.set_caps("application/x-test");
        let mut buffer = gst::Buffer::from_slice([1]);
        buffer.get_mut().unwrap().set_offset(5);
        writer.push(&buffer);
        assert_bytes(&reader, &[&[1]]);
        assert_eq!(reader.frames()[0].offset, offset, "{format}");
    }
}

#[test]
fn headers_without_flag_are_not_repeated_at_the_beginning() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps(CAPS);
    for frame in [&[1, 2][..], &[3, 4, 5], &[6]] {
        push(&writer, frame, NO_FLAGS);
    }
    assert_bytes(&reader, &[&[1, 2], &[3, 4, 5], &[6]]);
}

#[test]
fn late_reader_gets_headers_first() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, CAPS, "");
    for frame in 10..20 {
        push(&writer, &[frame], NO_FLAGS);
    }
    eventually("the frames are published", || writer.stat("frames-published") == 10);
    let reader = SourceRecorder::of(&channel);
    eventually("a frame arrives", || reader.frame_count() >= 3);
    assert_eq!(bytes(&reader)[..2], [vec![1, 2], vec![3, 4, 5]]);
    assert!(bytes(&reader)[2..].iter().all(|frame| frame.len() == 1));
}

#[test]
fn new_headers_come_before_frames_of_new_caps() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "forward-eos=false");
    for (first, caps) in [
        (20, "application/x-test, streamheader=(buffer)<0102>"),
        (30, "application/x-test, streamheader=(buffer)<0a, 0b>"),
    ] {
        let writer = SinkHarness::lossless(&channel);
        writer.set_caps(caps);
        push(&writer, &[first], NO_FLAGS);
        writer.set_caps("application/x-test, streamheader=(buffer)<0c>");
        push(&writer, &[12], HEADER);
        push(&writer, &[first + 1], NO_FLAGS);
        writer.end();
        writer.pipeline.wait_eos();
    }
    assert_bytes(
        &reader,
        &[&[1, 2], &[20], &[12], &[21], &[10], &[11], &[30], &[12], &[31]],
    );
}

#[test]
fn headers_that_only_ogg_contains_are_left_out() {
    for (caps, expected) in [
        (
            "audio/x-opus, channel-mapping-family=0, streamheader=(buffer)<0102>",
            &[][..],
        ),
        ("video/x-vp8, streamheader=(buffer)<0102>", &[]),
        // FLAC in Ogg begins with a mark, a version and the number of headers.
        (
            "audio/x-flac, streamheader=(buffer)<7f464c4143010000010a0b, 0c>",
            &[&[10, 11][..], &[12]],
        ),
    ] {
        let channel = Channel::new();
        let reader = SourceRecorder::of(&channel);
        let writer = SinkHarness::lossless(&channel);
        writer.set_caps(caps);
        push(&writer, &[40], NO_FLAGS);
        let expected: Vec<&[u8]> = expected.iter().copied().chain([&[40][..]]).collect();
        assert_bytes(&reader, &expected);
    }
}

#[test]
fn late_reader_decodes_any_container() {
    let video = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1 ! videoconvert";
    let audio = "audiotestsrc is-live=true samplesperbuffer=480 ! audioconvert";
    let h264 = format!("{video} ! x264enc tune=zerolatency key-int-max=10");
    let cases = [
        (
            format!("{h264} ! matroskamux streamable=true"),
            "matroskademux ! avdec_h264",
        ),
        (
            format!("{h264} ! flvmux streamable=true"),
            "flvdemux ! h264parse ! avdec_h264",
        ),
        (format!("{h264} ! mpegtsmux"), "tsdemux ! h264parse ! avdec_h264"),
        (format!("{video} ! theoraenc ! oggmux"), "oggdemux ! theoradec"),
        (format!("{audio} ! vorbisenc ! oggmux"), "oggdemux ! vorbisdec"),
        (format!("{audio} ! flacenc"), "flacparse ! flacdec"),
    ];
    let writers: Vec<_> = cases
        .iter()
        .map(|(writer, reader)| {
            let channel = Channel::new();
            let process = launch(&format!("{writer} ! rsshmsink channel={channel}"));
            (channel, process, reader)
        })
        .collect();
    for (channel, _process, _reader) in &writers {
        eventually("the channel exists", || channel.exists());
    }
    std::thread::sleep(Duration::from_secs(2));
    for (channel, _process, reader) in &writers {
        let mut command = command("gst-launch-1.0");
        // oggdemux prints a critical warning in every pipeline in which it cannot seek.
        command.env_remove("G_DEBUG");
        let pipeline = format!("-v rsshmsrc channel={channel} ! {reader} ! fakesink sync=false silent=false");
        command.args(pipeline.split_whitespace());
        let reader = Process::start(command);
        eventually("frames are decoded", || reader.output().matches("chain ").count() >= 10);
    }
}
