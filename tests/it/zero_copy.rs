// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of copying. Some frames are published in place and some are copied. All frames arrive unchanged.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use rsshm_testkit::{
    Channel, PATIENCE,
    gst::{
        CopyCounts, LOSSLESS, Pipeline, RecordedFrame, Roundtrip, SourceRecorder, init, layout,
        picture::{add_video_meta, assert_drawn, assert_packed, assert_picture, draw, drawn, packed, padded, padding},
    },
};

/// The result of a producer whose frames went through a channel.
struct Outcome {
    counts: CopyCounts,
    frames: Vec<RecordedFrame>,
    format: String,
}

/// Runs `producer` until its stream ends, with a channel and one reader.
#[track_caller]
fn run(producer: &str) -> Outcome {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Pipeline::new(&format!("{producer} ! rsshmsink channel={channel} {LOSSLESS}"));
    let sink_pad = writer.pad("rsshmsink", "sink");
    // The reader must be connected and have a quota before the second frame, so that it holds frames in place.
    let number = AtomicU32::new(0);
    sink_pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        // Relaxed, because only the streaming thread uses the number.
        let number = number.fetch_add(1, Ordering::Relaxed) + 1;
        let sink = pad.parent_element().unwrap();
        let started = Instant::now();
        while number == 2 && sink.property::<u32>("num-clients") == 0 && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        gst::PadProbeReturn::Ok
    });
    writer.play();
    writer.wait_eos();
    let caps = sink_pad.current_caps().unwrap();
    let format = caps.structure(0).unwrap().get::<String>("format").unwrap();
    let counts = CopyCounts::of(&writer);
    reader.pipeline.wait_eos();
    let stat = |field| reader.stat(field);
    assert_eq!(stat("frames-received"), counts.published);
    let (in_place, copied) = (stat("frames-in-place"), stat("frames-copied"));
    assert!(
        in_place + copied == counts.published && copied <= 1,
        "{in_place} in place, {copied} copied"
    );
    assert_eq!(stat("frames-missed"), 0);
    Outcome {
        counts,
        frames: reader.frames(),
        format,
    }
}

/// The frames that `producer` delivers without a channel.
fn expected(producer: &str) -> Vec<Vec<u8>> {
    let pipeline = Pipeline::new(&format!(
        "{producer} ! fakesink name=sink signal-handoffs=true sync=false"
    ));
    let (send, receive) = mpsc::channel();
    pipeline.element("sink").connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        send.send(buffer.map_readable().unwrap().to_vec()).unwrap();
        None
    });
    pipeline.play();
    pipeline.wait_eos();
    receive.try_iter().collect()
}

#[track_caller]
fn assert_exact(producer: &str, seen: &[RecordedFrame]) {
    let expected = expected(producer);
    assert_eq!(expected.len(), seen.len());
    for (number, (expected, seen)) in expected.iter().zip(seen).enumerate() {
        assert!(*expected == seen.bytes, "frame {number} differs");
    }
}

const SMALL: &str = "width=160,height=120,framerate=30/1";

#[test]
fn source_element_draws_into_segment() {
    let producer = format!("videotestsrc num-buffers=90 ! video/x-raw,format=I420,{SMALL}");
    let outcome = run(&producer);
    assert_eq!(outcome.counts, CopyCounts::new(90, 90, 0, 0));
    assert_exact(&producer, &outcome.frames);
}

#[test]
fn converter_draws_into_segment() {
    let producer = format!(
        "videotestsrc num-buffers=90 ! video/x-raw,format=BGRx,{SMALL} ! videoconvert ! video/x-raw,format=NV12"
    );
    let outcome = run(&producer);
    assert_eq!(outcome.counts, CopyCounts::new(90, 90, 0, 0));
    assert_exact(&producer, &outcome.frames);
}

#[test]
fn unconstrained_negotiation_chooses_i420() {
    for producer in [
        "videotestsrc num-buffers=3",
        "videotestsrc num-buffers=3 ! videoconvert",
        "videotestsrc num-buffers=3 ! videoconvert ! videoscale ! videorate",
    ] {
        assert_eq!(run(producer).format, "I420", "{producer}");
    }
}

#[test]
fn foreign_memory_is_copied() {
    // A tee does not forward the sink's pool to upstream.
    let producer = format!("videotestsrc num-buffers=60 ! video/x-raw,format=I420,{SMALL} ! tee");
    let outcome = run(&producer);
    assert_eq!(outcome.counts, CopyCounts::new(60, 0, 60, 0));
    assert_exact(&producer, &outcome.frames);
}

#[test]
fn repeated_frames_are_copied() {
    let producer = "videotestsrc num-buffers=10 ! video/x-raw,format=I420,width=160,height=120,framerate=10/1 \
                    ! videorate ! video/x-raw,framerate=30/1";
    let Outcome { counts, frames, .. } = run(producer);
    assert_eq!((counts.in_place, counts.foreign), (10, 0));
    assert_eq!(counts.published, counts.in_place + counts.repeated);
    assert!(counts.repeated >= 16, "{counts:?}");
    assert_exact(producer, &frames);

    let producer = format!("videotestsrc num-buffers=1 ! video/x-raw,format=I420,{SMALL} ! imagefreeze num-buffers=20");
    let Outcome { counts, frames, .. } = run(&producer);
    // imagefreeze asks for memory before the sink has caps, so it gets no slot.
    assert_eq!((counts.published, counts.in_place), (20, 0));
    assert_exact(&producer, &frames);
}

fn info(format: VideoFormat) -> VideoInfo {
    init();
    VideoInfo::builder(format, 62, 34)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap()
}

#[test]
fn foreign_memory_with_padding_arrives_packed() {
    for format in [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Bgrx] {
        let info = info(format);
        let mut roundtrip = Roundtrip::new(&info, "fakesink sync=false");
        for frame in 1..6 {
            assert_packed(&roundtrip.send(padded(&info, frame)), &info, frame);
        }
        assert_eq!(roundtrip.counts(), CopyCounts::new(5, 0, 5, 0));
    }
}

#[test]
fn buffer_of_several_memories_arrives_packed() {
    let info = info(VideoFormat::I420);
    let mut roundtrip = Roundtrip::new(&info, "fakesink sync=false");
    for frame in 1..6 {
        let bytes = packed(&info, frame);
        let mut buffer = gst::Buffer::new();
        let ends = info.offset()[1..].iter().copied().chain([info.size()]);
        for (start, end) in info.offset().iter().copied().zip(ends) {
            let memory = gst::Memory::from_slice(bytes[start..end].to_vec());
            buffer.get_mut().unwrap().append_memory(memory);
        }
        assert_packed(&roundtrip.send(buffer), &info, frame);
    }
    assert_eq!(roundtrip.counts(), CopyCounts::new(5, 0, 5, 0));
}

#[test]
fn part_of_foreign_memory_arrives_alone() {
    let info = info(VideoFormat::Nv12);
    let mut roundtrip = Roundtrip::new(&info, "fakesink sync=false");
    for frame in 1..6 {
        let mut bytes = vec![0xee; 333];
        bytes.extend(packed(&info, frame));
        bytes.extend([0xee; 77]);
        let whole = gst::Buffer::from_slice(bytes);
        let part = whole
            .copy_region(gst::BufferCopyFlags::MEMORY, 333..333 + info.size())
            .unwrap();
        assert_packed(&roundtrip.send(part), &info, frame);
    }
    assert_eq!(roundtrip.counts(), CopyCounts::new(5, 0, 5, 0));
}

#[test]
fn requested_padding_is_kept_in_place() {
    for format in [VideoFormat::I420, VideoFormat::Bgrx] {
        let info = info(format);
        let mut roundtrip = Roundtrip::started(&info, "fakevideosink sync=false");
        let pool = roundtrip.pool(Some(&padding()));
        for frame in 1..9 {
            let buffer = drawn(&pool, &info, frame);
            let (offset, stride) = layout(&buffer).expect("the buffer has a VideoMeta");
            assert_ne!(offset[0], info.offset()[0]);
            assert_ne!(stride, info.stride());
            let seen = roundtrip.send(buffer);
            assert_eq!(seen.layout, Some((offset, stride)));
            assert_picture(&seen, &info, frame);
        }
        // The first frame is in memory of the test, so it was copied.
        assert_eq!(roundtrip.counts(), CopyCounts::new(9, 8, 1, 0));
    }
}

#[test]
fn padding_is_removed_without_video_meta_support() {
    let info = info(VideoFormat::I420);
    let mut roundtrip = Roundtrip::started(&info, "fakesink sync=false");
    let pool = roundtrip.pool(Some(&padding()));
    for frame in 1..9 {
        assert_packed(&roundtrip.send(drawn(&pool, &info, frame)), &info, frame);
    }
    assert_eq!(roundtrip.counts(), CopyCounts::new(9, 8, 1, 0));
}

/// Elements copy each plane in whole strides, so the padding after the last row has to exist.
#[test]
fn incomplete_padding_of_last_row_is_removed() {
    let info = info(VideoFormat::I420);
    let mut roundtrip = Roundtrip::started(&info, "fakevideosink sync=false");
    let pool = roundtrip.pool(None);
    // The planes begin one byte later than usual, and the rows of V have one byte of padding.
    let offset: Vec<usize> = info.offset().iter().map(|offset| offset + 1).collect();
    for frame in 1..9 {
        let mut buffer = pool.acquire_buffer(None).unwrap();
        let target = buffer.get_mut().unwrap();
        draw(
            &mut target.map_writable().unwrap(),
            &info,
            &offset,
            info.stride(),
            frame,
        );
        add_video_meta(target, &info, &offset, info.stride());
        assert_packed(&roundtrip.send(buffer), &info, frame);
    }
    assert_eq!(roundtrip.counts(), CopyCounts::new(9, 8, 1, 0));
}

#[test]
fn part_of_slot_is_published_in_place() {
    let info = info(VideoFormat::Nv12);
    let mut roundtrip = Roundtrip::started(&info, "fakesink sync=false");
    let pool = roundtrip.pool(None);
    let mut config = gst::BufferPool::config(&pool);
    pool.set_active(false).unwrap();
    config.set_params(Some(&info.to_caps().unwrap()), info.size() as u32 + 512, 2, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    for frame in 1..9 {
        let mut whole = pool.acquire_buffer(None).unwrap();
        {
            let mut map = whole.get_mut().unwrap().map_writable().unwrap();
            draw(&mut map[256..], &info, info.offset(), info.stride(), frame);
        }
        let part = whole
            .copy_region(gst::BufferCopyFlags::MEMORY, 256..256 + info.size())
            .unwrap();
        drop(whole);
        assert_packed(&roundtrip.send(part), &info, frame);
    }
    assert_eq!(roundtrip.counts(), CopyCounts::new(9, 8, 1, 0));
}

/// Redraws a buffer after it was published. Meanwhile, the reader holds the frames, as a display does.
#[track_caller]
fn redraw(roundtrip: &mut Roundtrip, first: gst::Buffer) {
    let info = roundtrip.info.clone();
    let held = Arc::new(Mutex::new(Vec::new()));
    let in_probe = Arc::clone(&held);
    let source = roundtrip.reader.pipeline.by_factory("rsshmsrc");
    source
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
            in_probe.lock().unwrap().push(probe.buffer().unwrap().to_owned());
            gst::PadProbeReturn::Ok
        });
    let mut buffer = first;
    for frame in 1..4 {
        if frame > 1 {
            let target = buffer.make_mut();
            let mut map = target.map_writable().unwrap();
            draw(&mut map, &info, info.offset(), info.stride(), frame);
        }
        assert_packed(&roundtrip.send(buffer.clone()), &info, frame);
    }
    for (held, frame) in held.lock().unwrap().iter().zip(1..) {
        let map = held.map_readable().unwrap();
        assert_drawn(&map, &info, info.offset(), info.stride(), frame);
    }
}

#[test]
fn published_frame_is_not_redrawn() {
    let info = info(VideoFormat::I420);
    let mut roundtrip = Roundtrip::started(&info, "fakesink sync=false");
    let pool = roundtrip.pool(None);
    let first = drawn(&pool, &info, 1);
    redraw(&mut roundtrip, first);
    let counts = roundtrip.counts();
    assert_eq!((counts.published, counts.in_place), (4, 1));

    let mut roundtrip = Roundtrip::new(&info, "fakesink sync=false");
    redraw(&mut roundtrip, gst::Buffer::from_mut_slice(packed(&info, 1)));
    assert_eq!(roundtrip.counts(), CopyCounts::new(3, 0, 3, 0));
}
