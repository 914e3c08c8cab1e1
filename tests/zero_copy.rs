//! Which frames are copied, and that all are exact whether they are or not.

mod common;
mod feed;

use common::{Channel, Pipeline, Seen, Tap, layout};
use feed::{Feed, LOSSLESS, begun, check, check_packed, check_seen, counts, draw, drawn, packed, padded, padding};
use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};

/// Runs `producer` into a channel with one reader, to the end.
#[track_caller]
fn run(producer: &str) -> ((u64, u64, u64, u64), Vec<Seen>, String) {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = Pipeline::new(&format!("{producer} ! rsshmsink channel={channel} {LOSSLESS}"));
    let sink_pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    // From the second frame on the writer knows its reader, and has granted it frames to hold.
    let number = std::sync::atomic::AtomicU32::new(0);
    sink_pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let sink = pad.parent_element().unwrap();
        while number == 2 && sink.property::<u32>("num-clients") == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    writer.wait_eos();
    let caps = sink_pad.current_caps().unwrap();
    let format = caps.structure(0).unwrap().get::<String>("format").unwrap();
    let counts = counts(&writer);
    reader.pipeline.wait_eos();
    let stat = |field| reader.pipeline.stat("rsshmsrc", field);
    assert_eq!(stat("frames-received"), counts.0);
    let (in_place, copied) = (stat("frames-in-place"), stat("frames-copied"));
    assert!(
        in_place + copied == counts.0 && copied <= 1,
        "{in_place} in place, {copied} copied"
    );
    assert_eq!(stat("frames-missed"), 0);
    (counts, reader.all(), format)
}

/// What `producer` makes, without a channel.
fn expected(producer: &str) -> Vec<Vec<u8>> {
    let pipeline = Pipeline::new(&format!(
        "{producer} ! fakesink name=sink signal-handoffs=true sync=false"
    ));
    let (send, receive) = std::sync::mpsc::channel();
    pipeline.element("sink").connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        send.send(buffer.map_readable().unwrap().to_vec()).unwrap();
        None
    });
    pipeline.0.set_state(gst::State::Playing).unwrap();
    pipeline.wait_eos();
    receive.try_iter().collect()
}

#[track_caller]
fn assert_exact(producer: &str, seen: &[Seen]) {
    let expected = expected(producer);
    assert_eq!(expected.len(), seen.len());
    for (number, (expected, seen)) in expected.iter().zip(seen).enumerate() {
        assert!(*expected == seen.bytes, "frame {number} differs");
    }
}

const SMALL: &str = "width=160,height=120,framerate=30/1";

#[test]
fn a_source_draws_into_shared_memory() {
    let producer = format!("videotestsrc num-buffers=90 ! video/x-raw,format=I420,{SMALL}");
    let (counts, seen, _) = run(&producer);
    assert_eq!(counts, (90, 90, 0, 0));
    assert_exact(&producer, &seen);
}

#[test]
fn a_converter_draws_into_shared_memory() {
    let producer = format!(
        "videotestsrc num-buffers=90 ! video/x-raw,format=BGRx,{SMALL} ! videoconvert ! video/x-raw,format=NV12"
    );
    let (counts, seen, _) = run(&producer);
    assert_eq!(counts, (90, 90, 0, 0));
    assert_exact(&producer, &seen);
}

#[test]
fn left_to_themselves_elements_agree_on_i420() {
    for producer in [
        "videotestsrc num-buffers=3",
        "videotestsrc num-buffers=3 ! videoconvert",
        "videotestsrc num-buffers=3 ! videoconvert ! videoscale ! videorate",
    ] {
        let (_, _, format) = run(producer);
        assert_eq!(format, "I420", "{producer}");
    }
}

#[test]
fn what_another_element_made_is_copied() {
    // A tee passes no pool on.
    let producer = format!("videotestsrc num-buffers=60 ! video/x-raw,format=I420,{SMALL} ! tee");
    let (counts, seen, _) = run(&producer);
    assert_eq!(counts, (60, 0, 60, 0));
    assert_exact(&producer, &seen);
}

#[test]
fn repeats_are_copied() {
    let producer = "videotestsrc num-buffers=10 ! video/x-raw,format=I420,width=160,height=120,framerate=10/1 \
                    ! videorate ! video/x-raw,framerate=30/1";
    let ((published, in_place, foreign, repeated), seen, _) = run(producer);
    assert_eq!((in_place, foreign), (10, 0));
    assert_eq!(published, in_place + repeated);
    assert!(repeated >= 16, "{repeated}");
    assert_exact(producer, &seen);

    let producer = format!("videotestsrc num-buffers=1 ! video/x-raw,format=I420,{SMALL} ! imagefreeze num-buffers=20");
    let ((published, in_place, ..), seen, _) = run(&producer);
    // It asks for memory before the sink knows what comes, so that is no slot.
    assert_eq!((published, in_place), (20, 0));
    assert_exact(&producer, &seen);
}

fn info(format: VideoFormat) -> VideoInfo {
    common::init();
    VideoInfo::builder(format, 62, 34)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap()
}

#[test]
fn foreign_memory_with_padded_strides_arrives_packed() {
    for format in [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Bgrx] {
        let info = info(format);
        let mut feed = Feed::new(&info, "fakesink sync=false");
        for frame in 1..6 {
            check_packed(&feed.push(padded(&info, frame)), &info, frame);
        }
        assert_eq!(feed.counts(), (5, 0, 5, 0));
    }
}

#[test]
fn a_buffer_of_several_memories_is_put_together() {
    let info = info(VideoFormat::I420);
    let mut feed = Feed::new(&info, "fakesink sync=false");
    for frame in 1..6 {
        let bytes = packed(&info, frame);
        let mut buffer = gst::Buffer::new();
        let ends = info.offset()[1..].iter().copied().chain([info.size()]);
        for (start, end) in info.offset().iter().copied().zip(ends) {
            let memory = gst::Memory::from_slice(bytes[start..end].to_vec());
            buffer.get_mut().unwrap().append_memory(memory);
        }
        check_packed(&feed.push(buffer), &info, frame);
    }
    assert_eq!(feed.counts(), (5, 0, 5, 0));
}

#[test]
fn a_part_of_a_larger_memory_is_taken_alone() {
    let info = info(VideoFormat::Nv12);
    let mut feed = Feed::new(&info, "fakesink sync=false");
    for frame in 1..6 {
        let mut bytes = vec![0xee; 333];
        bytes.extend(packed(&info, frame));
        bytes.extend([0xee; 77]);
        let whole = gst::Buffer::from_slice(bytes);
        let part = whole
            .copy_region(gst::BufferCopyFlags::MEMORY, 333..333 + info.size())
            .unwrap();
        check_packed(&feed.push(part), &info, frame);
    }
    assert_eq!(feed.counts(), (5, 0, 5, 0));
}

#[test]
fn padding_that_upstream_asks_for_is_kept_in_place() {
    for format in [VideoFormat::I420, VideoFormat::Bgrx] {
        let info = info(format);
        let mut feed = begun(&info, "fakevideosink sync=false");
        let pool = feed.pool(Some(&padding()));
        for frame in 1..9 {
            let buffer = drawn(&pool, &info, frame);
            let (offset, stride) = layout(&buffer).expect("a VideoMeta says where the planes are");
            assert_ne!(offset[0], info.offset()[0]);
            assert_ne!(stride, info.stride());
            let seen = feed.push(buffer);
            assert_eq!(seen.layout, Some((offset, stride)));
            check_seen(&seen, &info, frame);
        }
        // The first, which was the test's own, was copied.
        assert_eq!(feed.counts(), (9, 8, 1, 0));
    }
}

#[test]
fn padding_is_removed_for_who_does_not_know_it() {
    let info = info(VideoFormat::I420);
    let mut feed = begun(&info, "fakesink sync=false");
    let pool = feed.pool(Some(&padding()));
    for frame in 1..9 {
        check_packed(&feed.push(drawn(&pool, &info, frame)), &info, frame);
    }
    assert_eq!(feed.counts(), (9, 8, 1, 0));
}

/// Elements copy planes as so many whole strides: what is behind the last row must be there, too.
#[test]
fn padding_that_the_last_row_lacks_is_removed_for_everybody() {
    let info = info(VideoFormat::I420);
    let mut feed = begun(&info, "fakevideosink sync=false");
    let pool = feed.pool(None);
    // One byte later than usual, and a row of V has one byte of padding.
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
        let flags = gst_video::VideoFrameFlags::empty();
        let (format, width, height) = (info.format(), info.width(), info.height());
        gst_video::VideoMeta::add_full(target, flags, format, width, height, &offset, info.stride()).unwrap();
        check_packed(&feed.push(buffer), &info, frame);
    }
    assert_eq!(feed.counts(), (9, 8, 1, 0));
}

#[test]
fn a_part_of_a_slot_is_published_in_place() {
    let info = info(VideoFormat::Nv12);
    let mut feed = begun(&info, "fakesink sync=false");
    let pool = feed.pool(None);
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
        check_packed(&feed.push(part), &info, frame);
    }
    assert_eq!(feed.counts(), (9, 8, 1, 0));
}

/// Redraws a buffer after it was published, while a reader holds the frame.
#[track_caller]
fn redraw(feed: &mut Feed, first: gst::Buffer) {
    let info = feed.info.clone();
    // Held here as a display would.
    let held = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = held.clone();
    let source = feed.reader.pipeline.by_factory("rsshmsrc");
    source
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
            to.lock().unwrap().push(probe.buffer().unwrap().to_owned());
            gst::PadProbeReturn::Ok
        });
    let mut buffer = first;
    for frame in 1..4 {
        if frame > 1 {
            let target = buffer.make_mut();
            let mut map = target.map_writable().unwrap();
            draw(&mut map, &info, info.offset(), info.stride(), frame);
        }
        check_packed(&feed.push(buffer.clone()), &info, frame);
    }
    for (held, frame) in held.lock().unwrap().iter().zip(1..) {
        let map = held.map_readable().unwrap();
        check(&map, &info, info.offset(), info.stride(), frame);
    }
}

#[test]
fn a_published_frame_is_not_redrawn_under_its_readers() {
    let info = info(VideoFormat::I420);
    let mut feed = begun(&info, "fakesink sync=false");
    let pool = feed.pool(None);
    let first = drawn(&pool, &info, 1);
    redraw(&mut feed, first);
    let (published, in_place, ..) = feed.counts();
    assert_eq!((published, in_place), (4, 1));

    let mut feed = Feed::new(&info, "fakesink sync=false");
    redraw(&mut feed, gst::Buffer::from_mut_slice(packed(&info, 1)));
    assert_eq!(feed.counts(), (3, 0, 3, 0));
}
