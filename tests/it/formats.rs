// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader receives every format byte for byte, with its caps and flags. Unsupported caps are refused with advice.

use gst::prelude::*;
use gst_video::{VideoBufferFlags, VideoInfo, prelude::*};
use rsshm_testkit::{
    Channel, Process,
    gst::{
        CopyCounts, LOSSLESS, Pipeline, RecordedFrame, Roundtrip, SinkHarness, SourceRecorder, init, launch,
        picture::{assert_packed, assert_picture, draw, drawn, packed, padded, padding},
    },
};

/// The hashes that `checksumsink` has printed, one for each frame.
fn hashes(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

/// Sends frames from one process to another and compares the hash of each frame.
#[track_caller]
fn assert_arrives_unchanged(producer: &str, frames: usize) {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "{producer} ! tee name=t ! queue ! checksumsink sync=false \
         t. ! queue ! rsshmsink name={channel} {LOSSLESS}"
    ));
    let mut reader: Process = launch(&format!("rsshmsrc name={channel} ! checksumsink sync=false"));
    let (sent, received) = (hashes(&writer.wait_ok()), hashes(&reader.wait_ok()));
    assert_eq!(sent.len(), frames, "{sent:?}");
    assert_eq!(sent, received);
    channel.assert_removed();
}

#[test]
fn raw_video_arrives_unchanged() {
    for format in ["I420", "NV12", "YUY2", "UYVY", "BGRx", "RGB", "GRAY8", "P010_10LE"] {
        for size in ["width=320,height=240", "width=641,height=361"] {
            assert_arrives_unchanged(
                &format!("videotestsrc num-buffers=120 pattern=snow ! video/x-raw,format={format},{size}"),
                120,
            );
        }
    }
}

#[test]
fn jpeg_arrives_unchanged() {
    let producer = "videotestsrc num-buffers=120 pattern=snow ! video/x-raw,width=640,height=360 ! jpegenc";
    assert_arrives_unchanged(producer, 120);
}

#[test]
fn audio_arrives_unchanged() {
    assert_arrives_unchanged("audiotestsrc num-buffers=200 wave=white-noise", 200);
    // The buffers have different lengths.
    let odd =
        "audiotestsrc num-buffers=100 wave=white-noise samplesperbuffer=997 ! audio/x-raw,rate=44100,format=S16LE";
    assert_arrives_unchanged(&format!("{odd} ! audiobuffersplit output-buffer-duration=1/77"), 175);
}

/// An H.264 stream that shows black and then noise. The first keyframes have a few hundred bytes; later ones are larger
/// than any slot.
const GROWING_H264: &str = "concat name=c \
    ! x264enc tune=zerolatency speed-preset=ultrafast quantizer=4 pass=quant key-int-max=15 \
    ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";
const BLACK: &str = "videotestsrc num-buffers=40 pattern=black ! video/x-raw,format=I420,width=640,height=360 ! c.";
const NOISE: &str = "videotestsrc num-buffers=40 pattern=snow ! video/x-raw,format=I420,width=640,height=360 ! c.";

#[test]
fn h264_arrives_unchanged() {
    assert_arrives_unchanged(&format!("{BLACK} {NOISE} {GROWING_H264}"), 80);
}

#[test]
fn stream_of_changing_media_arrives_unchanged() {
    let raw = "video/x-raw,format=I420,width=320,height=240";
    let video = format!("videotestsrc num-buffers=30 pattern=snow ! {raw}");
    assert_arrives_unchanged(
        &format!(
            "concat name=c {video} ! c. {video} ! jpegenc ! c. {video} ! videoconvert ! video/x-raw,format=NV12 ! c. \
             audiotestsrc num-buffers=30 ! c. {video} ! x264enc tune=zerolatency ! c. {video} ! c. c."
        ),
        180,
    );
}

#[test]
fn frames_larger_than_slots_reconnect_reader() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let [black, noise] = [BLACK, NOISE].map(|source| source.replace("width=640,height=360", "width=1280,height=720"));
    let mut writer = launch(&format!(
        "{black} {noise} {GROWING_H264} ! rsshmsink name={channel} {LOSSLESS}"
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.frames();
    assert_eq!(frames.len(), 80);
    let largest = |frames: &[RecordedFrame]| frames.iter().map(|frame| frame.bytes.len()).max().unwrap();
    // The first slots have 512 KiB.
    assert!(largest(&frames[..40]) < 512 * 1024 && largest(&frames[40..]) > 512 * 1024);
    assert!(reader.stat("reconnects") > 0);
    assert!(frames.iter().all(|frame| frame.caps() == frames[0].caps()));
    channel.assert_removed();
}

#[test]
fn reader_receives_frames_without_any_keyframe() {
    // v4l2src marks all frames that are neither raw video nor JPEG as delta units. Examples are Bayer pictures, and the
    // H.264 of some cameras.
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-bayer,format=rggb,width=64,height=48,framerate=30/1 ! rsshmsink name={channel}"
    ));
    let pad = writer.pad("rsshmsink", "sink");
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.buffer_mut()
            .unwrap()
            .make_mut()
            .set_flags(gst::BufferFlags::DELTA_UNIT);
        gst::PadProbeReturn::Ok
    });
    writer.play();
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(5);
}

#[test]
fn interlaced_video_of_element_arrives_unchanged() {
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
        assert_arrives_unchanged(
            &format!("{source} ! interlace field-pattern={pattern} ! {mode}"),
            frames,
        );
    }
}

/// The bytes of a row and the rows of each plane.
type PlaneSizes = &'static [(usize, usize)];

/// Formats, widths and heights whose default layout has padding.
const PADDED_BY_DEFAULT: [(&str, u32, u32, PlaneSizes); 10] = [
    ("BGR", 642, 480, &[(1926, 480)]),
    ("RGB", 61, 33, &[(183, 33)]),
    ("GRAY8", 61, 33, &[(61, 33)]),
    ("GRAY16_LE", 61, 33, &[(122, 33)]),
    ("I420", 61, 33, &[(61, 33), (31, 17), (31, 17)]),
    ("I420", 62, 34, &[(62, 34), (31, 17), (31, 17)]),
    ("NV12", 61, 33, &[(61, 33), (62, 17)]),
    ("Y42B", 61, 33, &[(61, 33), (31, 33), (31, 33)]),
    ("GBR", 61, 33, &[(61, 33), (61, 33), (61, 33)]),
    ("P010_10LE", 61, 33, &[(122, 33), (124, 17)]),
];

/// The format, and the offsets, strides and size of a picture whose rows have no padding.
fn unpadded(format: &str, size: (u32, u32), planes: PlaneSizes) -> (VideoInfo, Vec<usize>, Vec<i32>, usize) {
    init();
    let format = gst_video::VideoFormat::from_string(format);
    let info = VideoInfo::builder(format, size.0, size.1).build().unwrap();
    let (mut offset, mut stride, mut end) = (Vec::new(), Vec::new(), 0);
    for (bytes, rows) in planes {
        offset.push(end);
        stride.push(*bytes as i32);
        end += bytes * rows;
    }
    assert!(end < info.size());
    (info, offset, stride, end)
}

#[test]
fn unpadded_rows_arrive_pixel_by_pixel() {
    for downstream in ["fakevideosink sync=false", "fakesink sync=false"] {
        for (format, width, height, planes) in PADDED_BY_DEFAULT {
            let (info, offset, stride, size) = unpadded(format, (width, height), planes);
            let mut roundtrip = Roundtrip::started(&info, downstream);
            for frame in 1..4 {
                let mut bytes = vec![0; size];
                draw(&mut bytes, &info, &offset, &stride, frame);
                let seen = roundtrip.send(gst::Buffer::from_slice(bytes));
                // The sink copies the frame into the default layout, so that no reader needs another layout.
                assert_packed(&seen, &info, frame);
            }
            assert_eq!(roundtrip.counts(), CopyCounts::new(4, 0, 4, 0));
            let pool = roundtrip.pool(None);
            for frame in 4..7 {
                let mut buffer = pool.acquire_buffer(None).unwrap();
                let target = buffer.get_mut().unwrap();
                target.set_size(size);
                draw(&mut target.map_writable().unwrap(), &info, &offset, &stride, frame);
                let seen = roundtrip.send(buffer);
                assert_picture(&seen, &info, frame);
                let expected = downstream
                    .starts_with("fakevideosink")
                    .then(|| (offset.clone(), stride.clone()));
                assert_eq!(seen.layout, expected, "{format}");
            }
            assert_eq!(roundtrip.counts(), CopyCounts::new(7, 3, 4, 0));
        }
    }
}

#[test]
fn unpadded_rows_of_process_arrive_pixel_by_pixel() {
    let (info, offset, stride, size) = unpadded("BGR", (642, 480), &[(1926, 480)]);
    let channel = Channel::new();
    let film = std::env::temp_dir().join(format!("{channel}-film"));
    let mut bytes = vec![0; 5 * size];
    for (frame, bytes) in bytes.chunks_mut(size).enumerate() {
        draw(bytes, &info, &offset, &stride, frame as u8);
    }
    std::fs::write(&film, bytes).unwrap();
    let reader = SourceRecorder::of(&channel);
    let mut writer = launch(&format!(
        "filesrc location={} blocksize={size} ! video/x-raw,format=BGR,width=642,height=480,framerate=30/1 \
         ! rsshmsink name={channel} {LOSSLESS}",
        film.display()
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    std::fs::remove_file(&film).unwrap();
    let frames = reader.frames();
    assert_eq!(frames.len(), 5);
    for (frame, seen) in frames.iter().enumerate() {
        assert_packed(seen, &info, frame as u8);
    }
}

#[test]
fn raw_video_of_wrong_size_is_refused_with_advice() {
    init();
    let info = VideoInfo::builder(gst_video::VideoFormat::Bgr, 642, 480)
        .build()
        .unwrap();
    for size in [1926 * 480 - 1, 1926 * 480 + 1, info.size() - 1, 0] {
        let channel = Channel::new();
        let writer = SinkHarness::new(&channel, "");
        writer.source().set_property("caps", info.to_caps().unwrap());
        writer.pipeline.play();
        writer.push(&gst::Buffer::from_slice(vec![0_u8; size]));
        let text = writer.pipeline.wait_error().message().to_owned();
        for part in [
            format!("it has {size} bytes").as_str(),
            "BGR of 642x480 has 925440 in GStreamer's default layout",
            "924480 without padding",
            "add a GstVideoMeta",
            "rawvideoparse",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

/// Caps with every optional field of a picture, and with the additional `fields`.
fn caps_with(features: &str, fields: &str) -> gst::Caps {
    init();
    format!(
        "video/x-raw{features}, format=(string)P010_10LE, width=(int)62, height=(int)34, framerate=(fraction)30/1, \
         pixel-aspect-ratio=(fraction)16/11, colorimetry=(string)bt2100-pq, chroma-site=(string)top-left, \
         mastering-display-info=(string)34000:16000:13250:34500:7500:3000:15635:16450:10000000:1, \
         content-light-level=(string)1000:400, {fields}"
    )
    .parse()
    .unwrap()
}

/// Sends frames in each layout and kind of memory, with each of the `flags` in turn. All frames must arrive unchanged.
#[track_caller]
fn assert_caps_and_flags_arrive(caps: &gst::Caps, flags: &[VideoBufferFlags]) {
    for downstream in ["fakevideosink sync=false", "fakesink sync=false"] {
        let mut roundtrip = Roundtrip::with_caps(caps, downstream);
        let info = roundtrip.info.clone();
        let send = |roundtrip: &mut Roundtrip, frame: u8, mut buffer: gst::Buffer| {
            let flags = flags[usize::from(frame) % flags.len()];
            buffer.get_mut().unwrap().set_video_flags(flags);
            let seen = roundtrip.send(buffer);
            assert_eq!((seen.caps(), seen.video_flags), (caps, flags));
            assert_picture(&seen, &info, frame);
            assert!(seen.layout.is_none() || downstream.starts_with("fakevideosink"));
        };
        for frame in 0..3 {
            send(&mut roundtrip, frame, gst::Buffer::from_slice(packed(&info, frame)));
            send(&mut roundtrip, frame, padded(&info, frame));
        }
        for alignment in [None, Some(&padding())] {
            let pool = roundtrip.pool(alignment);
            for frame in 0..3 {
                send(&mut roundtrip, frame, drawn(&pool, &info, frame));
            }
        }
        assert_eq!(roundtrip.counts(), CopyCounts::new(12, 6, 6, 0));
    }
}

const TOP_FIRST: VideoBufferFlags = VideoBufferFlags::INTERLACED.union(VideoBufferFlags::TFF);

#[test]
fn interlaced_video_keeps_caps_and_flags() {
    let flags = VideoBufferFlags::INTERLACED;
    assert_caps_and_flags_arrive(
        &caps_with("", "interlace-mode=(string)progressive"),
        &[VideoBufferFlags::empty()],
    );
    assert_caps_and_flags_arrive(
        &caps_with(
            "",
            "interlace-mode=(string)interleaved, field-order=(string)top-field-first",
        ),
        &[TOP_FIRST],
    );
    assert_caps_and_flags_arrive(
        &caps_with("", "interlace-mode=(string)mixed"),
        &[
            TOP_FIRST | VideoBufferFlags::RFF,
            VideoBufferFlags::empty(),
            flags | VideoBufferFlags::ONEFIELD,
        ],
    );
    assert_caps_and_flags_arrive(&caps_with("", "interlace-mode=(string)fields"), &[TOP_FIRST, flags]);
}

#[test]
fn alternate_fields_keep_caps_and_flags() {
    let caps = caps_with("(format:Interlaced)", "interlace-mode=(string)alternate");
    // Each buffer is one field, so it has half of the rows of a picture: 17, rounded up to 18.
    assert_eq!(VideoInfo::from_caps(&caps).unwrap().size(), 62 * 2 * (18 + 9));
    let flags = VideoBufferFlags::INTERLACED;
    assert_caps_and_flags_arrive(
        &caps,
        &[
            flags | VideoBufferFlags::TOP_FIELD,
            flags | VideoBufferFlags::BOTTOM_FIELD,
        ],
    );
}

#[test]
fn multiview_video_keeps_caps_and_flags() {
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
        assert_caps_and_flags_arrive(&caps_with("", &fields), &[VideoBufferFlags::empty()]);
    }
    let one_each = "interlace-mode=(string)progressive, views=(int)2, multiview-mode=(string)frame-by-frame";
    assert_caps_and_flags_arrive(
        &caps_with("", one_each),
        &[
            VideoBufferFlags::MULTIPLE_VIEW | VideoBufferFlags::FIRST_IN_BUNDLE,
            VideoBufferFlags::MULTIPLE_VIEW,
        ],
    );
}

/// The sink's message about an upstream that it cannot serve. No other message of the pipeline may come first.
///
/// `caps` are set on the element of `upstream` whose name is `set`.
#[track_caller]
fn refusal(upstream: &str, caps: &str) -> String {
    let channel = Channel::new();
    let writer = Pipeline::new(&format!("{upstream} ! rsshmsink channel={channel}"));
    let caps: gst::Caps = caps.parse().unwrap();
    let element = writer.element("set");
    element.set_property("caps", caps);
    if upstream.starts_with("appsrc") {
        let _: gst::FlowReturn = element.emit_by_name("push-buffer", &[&gst::Buffer::new()]);
    }
    let _ = writer.set_state(gst::State::Playing);
    let message = writer.message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    assert_eq!(message.src().unwrap(), &writer.by_factory("rsshmsink"));
    writer.wait_error();
    match message.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        other => panic!("{other:?}"),
    }
}

const PLAIN_I420: &str = "format=I420,width=320,height=240,framerate=30/1";

#[test]
fn upstream_draws_overlays_itself() {
    let text = format!("videotestsrc num-buffers=20 pattern=black ! video/x-raw,{PLAIN_I420} ! textoverlay text=rsshm");
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Pipeline::playing(&format!("{text} ! rsshmsink channel={channel} {LOSSLESS}"));
    // textoverlay asks whether the sink supports overlays. This question must not cause a warning.
    let message = writer.message(&[
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Warning,
    ]);
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    reader.pipeline.wait_eos();
    assert_eq!(reader.frame_count(), 20);
    assert!(
        reader
            .frames()
            .iter()
            .all(|frame| frame.bytes[..320 * 240].iter().max() > Some(&150))
    );
}

#[test]
fn overlay_caps_are_refused_with_advice() {
    let upstream = "videotestsrc ! textoverlay ! capsfilter name=set";
    let caps = format!("video/x-raw(memory:SystemMemory,meta:GstVideoOverlayComposition),{PLAIN_I420}");
    let text = refusal(upstream, &caps);
    assert!(text.contains("out of the caps filter"), "{text}");
}

#[test]
fn unsupported_caps_are_refused_with_advice() {
    for (features, fields, remedy) in [
        ("meta:GstVideoOverlayComposition", "", "gloverlaycompositor"),
        (
            "meta:GstVideoAffineTransformation",
            "",
            "the element that makes use of it",
        ),
        ("format:Interlaced,memory:GLMemory", "", "gldownload"),
        ("format:Unheard", "", "a caps filter without it"),
        (
            "memory:SystemMemory",
            ",multiview-mode=separated,views=2",
            "side-by-side",
        ),
    ] {
        let text = refusal(
            "appsrc name=set",
            &format!("video/x-raw({features}),{PLAIN_I420}{fields}"),
        );
        assert!(text.contains(remedy), "{text}");
    }
}
