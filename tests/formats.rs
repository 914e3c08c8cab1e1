//! Byte for byte: what the reader's process gets is what the writer's process had.

mod common;
mod feed;

use common::{Channel, Pipeline, Process, Tap, launch};
use feed::{Feed, LOSSLESS, check_seen, drawn, packed, padded, padding};
use gst::prelude::*;
use gst_video::{VideoBufferFlags, VideoInfo, prelude::*};

/// Hashes that `checksumsink` printed, one a frame.
fn hashes(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

/// Sends `frames` frames from one process to another and compares the hash of each.
#[track_caller]
fn same_on_both_sides(producer: &str, frames: usize) {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "{producer} ! tee name=t ! queue ! checksumsink sync=false \
         t. ! queue ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
    ));
    let mut reader: Process = launch(&format!("rsshmsrc name={channel} ! checksumsink sync=false"));
    let (sent, received) = (hashes(&writer.wait_ok()), hashes(&reader.wait_ok()));
    assert_eq!(sent.len(), frames, "{sent:?}");
    assert_eq!(sent, received);
    channel.assert_gone();
}

#[test]
fn raw_video() {
    for format in ["I420", "NV12", "YUY2", "UYVY", "BGRx", "RGB", "GRAY8", "P010_10LE"] {
        for size in ["width=320,height=240", "width=641,height=361"] {
            same_on_both_sides(
                &format!("videotestsrc num-buffers=120 pattern=snow ! video/x-raw,format={format},{size}"),
                120,
            );
        }
    }
}

#[test]
fn jpeg() {
    let producer = "videotestsrc num-buffers=120 pattern=snow ! video/x-raw,width=640,height=360 ! jpegenc";
    same_on_both_sides(producer, 120);
}

#[test]
fn audio() {
    same_on_both_sides("audiotestsrc num-buffers=200 wave=white-noise", 200);
    // Blocks of different lengths.
    let odd =
        "audiotestsrc num-buffers=100 wave=white-noise samplesperbuffer=997 ! audio/x-raw,rate=44100,format=S16LE";
    same_on_both_sides(&format!("{odd} ! audiobuffersplit output-buffer-duration=1/77"), 175);
}

/// Black first, then noise: key frames of a few hundred bytes, then some that outgrow every slot there is.
const GROWING_H264: &str = "concat name=c \
    ! x264enc tune=zerolatency speed-preset=ultrafast quantizer=4 pass=quant key-int-max=15 \
    ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";
const BLACK: &str = "videotestsrc num-buffers=40 pattern=black ! video/x-raw,format=I420,width=640,height=360 ! c.";
const NOISE: &str = "videotestsrc num-buffers=40 pattern=snow ! video/x-raw,format=I420,width=640,height=360 ! c.";

#[test]
fn h264() {
    same_on_both_sides(&format!("{BLACK} {NOISE} {GROWING_H264}"), 80);
}

#[test]
fn raw_and_encoded_video_and_audio_in_turn() {
    let raw = "video/x-raw,format=I420,width=320,height=240";
    let video = format!("videotestsrc num-buffers=30 pattern=snow ! {raw}");
    same_on_both_sides(
        &format!(
            "concat name=c {video} ! c. {video} ! jpegenc ! c. {video} ! videoconvert ! video/x-raw,format=NV12 ! c. \
             audiotestsrc num-buffers=30 ! c. {video} ! x264enc tune=zerolatency ! c. {video} ! c. c."
        ),
        180,
    );
}

#[test]
fn frames_that_outgrow_the_slots_get_new_ones_in_mid_stream() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut writer = launch(&format!(
        "{BLACK} {NOISE} {GROWING_H264} ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.all();
    assert_eq!(frames.len(), 80);
    let largest = |frames: &[common::Seen]| frames.iter().map(|frame| frame.bytes.len()).max().unwrap();
    assert!(largest(&frames[..40]) < 64 * 1024 && largest(&frames[40..]) > 64 * 1024);
    assert!(reader.pipeline.stat("rsshmsrc", "reconnects") > 0);
    assert!(frames.iter().all(|frame| frame.caps == frames[0].caps));
    channel.assert_gone();
}

#[test]
fn frames_of_which_none_can_be_decoded_alone_are_passed_on_all_the_same() {
    // As v4l2src marks all that is neither raw video nor JPEG: Bayer pictures, and H.264 of cameras that say no more of it.
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-bayer,format=rggb,width=64,height=48,framerate=30/1 ! rsshmsink name={channel}"
    ));
    let pad = writer.element(&channel.0).static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.buffer_mut()
            .unwrap()
            .make_mut()
            .set_flags(gst::BufferFlags::DELTA_UNIT);
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(5);
}

#[test]
fn interlaced_video_of_an_element_that_makes_it() {
    for (rate, pattern, mode, frames) in [
        (60, "1:1", "video/x-raw,interlace-mode=interleaved", 30),
        (24, "2:3", "video/x-raw,interlace-mode=mixed", 75),
        (
            30,
            "2:2",
            "video/x-raw(format:Interlaced),interlace-mode=alternate",
            120,
        ),
    ] {
        let caps = format!("video/x-raw,format=I420,width=320,height=242,framerate={rate}/1");
        let source = format!("videotestsrc num-buffers=60 pattern=snow ! {caps}");
        same_on_both_sides(
            &format!("{source} ! interlace field-pattern={pattern} ! {mode}"),
            frames,
        );
    }
}

/// Caps with all that can be said of a picture, and `fields`.
fn caps_with(features: &str, fields: &str) -> gst::Caps {
    common::init();
    format!(
        "video/x-raw{features}, format=(string)P010_10LE, width=(int)62, height=(int)34, framerate=(fraction)30/1, \
         pixel-aspect-ratio=(fraction)16/11, colorimetry=(string)bt2100-pq, chroma-site=(string)top-left, \
         mastering-display-info=(string)34000:16000:13250:34500:7500:3000:15635:16450:10000000:1, \
         content-light-level=(string)1000:400, {fields}"
    )
    .parse()
    .unwrap()
}

/// Sends frames of each layout and kind of memory, with `flags` in turn, and finds all as it was.
#[track_caller]
fn arrives_whole(caps: &gst::Caps, flags: &[VideoBufferFlags]) {
    for downstream in ["fakevideosink sync=false", "fakesink sync=false"] {
        let mut feed = Feed::of(caps, downstream);
        let info = feed.info.clone();
        let send = |feed: &mut Feed, frame: u8, mut buffer: gst::Buffer| {
            let flags = flags[usize::from(frame) % flags.len()];
            buffer.get_mut().unwrap().set_video_flags(flags);
            let seen = feed.push(buffer);
            assert_eq!((&seen.caps, seen.video_flags), (caps, flags));
            check_seen(&seen, &info, frame);
            assert!(seen.layout.is_none() || downstream.starts_with("fakevideosink"));
        };
        for frame in 0..3 {
            send(&mut feed, frame, gst::Buffer::from_slice(packed(&info, frame)));
            send(&mut feed, frame, padded(&info, frame));
        }
        for alignment in [None, Some(&padding())] {
            let pool = feed.pool(alignment);
            for frame in 0..3 {
                send(&mut feed, frame, drawn(&pool, &info, frame));
            }
        }
        assert_eq!(feed.counts(), (12, 6, 6, 0));
    }
}

const TOP_FIRST: VideoBufferFlags = VideoBufferFlags::INTERLACED.union(VideoBufferFlags::TFF);

#[test]
fn interlaced_video_with_all_that_caps_and_flags_say() {
    let flags = VideoBufferFlags::INTERLACED;
    arrives_whole(
        &caps_with("", "interlace-mode=(string)progressive"),
        &[VideoBufferFlags::empty()],
    );
    arrives_whole(
        &caps_with(
            "",
            "interlace-mode=(string)interleaved, field-order=(string)top-field-first",
        ),
        &[TOP_FIRST],
    );
    arrives_whole(
        &caps_with("", "interlace-mode=(string)mixed"),
        &[
            TOP_FIRST | VideoBufferFlags::RFF,
            VideoBufferFlags::empty(),
            flags | VideoBufferFlags::ONEFIELD,
        ],
    );
    arrives_whole(&caps_with("", "interlace-mode=(string)fields"), &[TOP_FIRST, flags]);
}

#[test]
fn single_fields() {
    let caps = caps_with("(format:Interlaced)", "interlace-mode=(string)alternate");
    // Each buffer is half of a picture: 17 rows, and one that makes it even.
    assert_eq!(VideoInfo::from_caps(&caps).unwrap().size(), 62 * 2 * (18 + 9));
    let flags = VideoBufferFlags::INTERLACED;
    arrives_whole(
        &caps,
        &[
            flags | VideoBufferFlags::TOP_FIELD,
            flags | VideoBufferFlags::BOTTOM_FIELD,
        ],
    );
}

#[test]
fn several_views() {
    for (mode, flags) in [
        ("mono", "0:ffffffff:"),
        ("left", "0:ffffffff:"),
        ("right", "0:ffffffff:"),
        ("side-by-side", "1:ffffffff:/right-view-first"),
        ("top-bottom", "4002:ffffffff:/half-aspect/left-flipped"),
    ] {
        let fields = format!(
            "interlace-mode=(string)progressive, multiview-mode=(string){mode}, \
             multiview-flags=(GstVideoMultiviewFlagsSet){flags}"
        );
        arrives_whole(&caps_with("", &fields), &[VideoBufferFlags::empty()]);
    }
    let one_each = "interlace-mode=(string)progressive, views=(int)2, multiview-mode=(string)frame-by-frame";
    arrives_whole(
        &caps_with("", one_each),
        &[
            VideoBufferFlags::MULTIPLE_VIEW | VideoBufferFlags::FIRST_IN_BUNDLE,
            VideoBufferFlags::MULTIPLE_VIEW,
        ],
    );
}

/// What a sink says of an upstream that it cannot serve, before anybody else says something. The element `set` in it gets
/// the caps.
#[track_caller]
fn refused(upstream: &str, caps: &str) -> String {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!("{upstream} ! rsshmsink channel={channel}"));
    let caps: gst::Caps = caps.parse().unwrap();
    let element = writer.element("set");
    element.set_property("caps", caps);
    if upstream.starts_with("appsrc") {
        let _: gst::FlowReturn = element.emit_by_name("push-buffer", &[&gst::Buffer::new()]);
    }
    let _ = writer.0.set_state(gst::State::Playing);
    let message = writer.message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    assert_eq!(message.src().unwrap(), &writer.by_factory("rsshmsink"));
    writer.wait_error();
    match message.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        other => panic!("{other:?}"),
    }
}

const PLAIN: &str = "format=I420,width=320,height=240,framerate=30/1";

#[test]
fn overlays_are_drawn_by_who_makes_them() {
    let text = format!("videotestsrc num-buffers=20 pattern=black ! video/x-raw,{PLAIN} ! textoverlay text=rsshm");
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let writer = Pipeline::playing(&format!("{text} ! rsshmsink channel={channel} {LOSSLESS}"));
    // It asks whether they could be carried, which is nothing to be warned of.
    let message = writer.message(&[
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Warning,
    ]);
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    reader.pipeline.wait_eos();
    assert_eq!(reader.count(), 20);
    assert!(
        reader
            .all()
            .iter()
            .all(|frame| frame.bytes[..320 * 240].iter().max() > Some(&150))
    );
}

#[test]
fn overlays_that_are_to_be_carried_are_refused_with_what_to_do() {
    let upstream = "videotestsrc ! textoverlay ! capsfilter name=set";
    let caps = format!("video/x-raw(memory:SystemMemory,meta:GstVideoOverlayComposition),{PLAIN}");
    let text = refused(upstream, &caps);
    assert!(text.contains("out of the caps filter"), "{text}");
}

#[test]
fn caps_that_are_not_carried_are_refused_with_what_to_do() {
    for (features, fields, remedy) in [
        ("meta:GstVideoOverlayComposition", "", "gloverlaycompositor"),
        (
            "meta:GstVideoAffineTransformation",
            "",
            "the element that makes use of it",
        ),
        ("memory:DMABuf", "", "vapostproc"),
        ("format:Interlaced,memory:GLMemory", "", "gldownload"),
        ("format:Unheard", "", "a caps filter without it"),
        (
            "memory:SystemMemory",
            ",multiview-mode=separated,views=2",
            "side-by-side",
        ),
    ] {
        let text = refused("appsrc name=set", &format!("video/x-raw({features}),{PLAIN}{fields}"));
        assert!(text.contains(remedy), "{text}");
    }
}
