// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader converts raw video that its downstream does not take, and only such video.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gst::prelude::*;
use gst_video::{VideoBufferFlags, VideoFormat, VideoInfo, VideoInterlaceMode, prelude::*};
use rsshm_testkit::{
    Channel, eventually,
    gst::{
        Pipeline, PlaneLayout, RecordedFrame, Roundtrip, SinkHarness, SourceRecorder, init, layout,
        picture::{packed, padded, padding, plane_size},
    },
};

fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    init();
    VideoInfo::builder(format, width, height)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap()
}

/// The rows of a picture, without the padding between them.
fn pixels(bytes: &[u8], layout: Option<&PlaneLayout>, info: &VideoInfo) -> Vec<Vec<u8>> {
    let (offset, stride) = layout
        .cloned()
        .unwrap_or((info.offset().to_vec(), info.stride().to_vec()));
    let rows = (0..info.n_planes() as usize).flat_map(|plane| {
        let (columns, rows) = plane_size(info, plane);
        let (offset, stride) = (offset[plane], stride[plane] as usize);
        (0..rows).map(move |row| offset + row * stride..offset + row * stride + columns)
    });
    rows.map(|range| bytes[range].to_vec()).collect()
}

/// What `videoconvert` makes of a buffer.
struct Control {
    pipeline: Pipeline,
    seen: Arc<Mutex<Vec<(gst::Buffer, gst::Caps)>>>,
}

impl Control {
    fn new(caps: &gst::Caps, downstream: &str) -> Self {
        let pipeline = Pipeline::new(&format!(
            "appsrc name=source format=time ! videoconvert ! {downstream} name=sink"
        ));
        pipeline.element("source").set_property("caps", caps);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let in_probe = Arc::clone(&seen);
        let pad = pipeline.pad("videoconvert", "src");
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let item = (info.buffer().unwrap().clone(), pad.current_caps().unwrap());
            in_probe.lock().unwrap().push(item);
            gst::PadProbeReturn::Ok
        });
        pipeline.play();
        Self { pipeline, seen }
    }

    #[track_caller]
    fn send(&self, buffer: &gst::Buffer) -> (gst::Buffer, gst::Caps) {
        let pushed: gst::FlowReturn = self
            .pipeline
            .element("source")
            .emit_by_name("push-buffer", &[&buffer.copy_deep().unwrap()]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
        eventually("videoconvert's frame", || !self.seen.lock().unwrap().is_empty());
        self.seen.lock().unwrap().pop().unwrap()
    }
}

/// Checks that the reader has converted the frame as `videoconvert` does.
#[track_caller]
fn assert_same(seen: &RecordedFrame, control: &(gst::Buffer, gst::Caps)) {
    let (buffer, caps) = control;
    let (info, expected) = (
        VideoInfo::from_caps(seen.caps()).unwrap(),
        VideoInfo::from_caps(caps).unwrap(),
    );
    assert_eq!(
        (
            info.format(),
            info.colorimetry(),
            info.chroma_site(),
            info.interlace_mode()
        ),
        (
            expected.format(),
            expected.colorimetry(),
            expected.chroma_site(),
            expected.interlace_mode()
        ),
        "{} {caps}",
        seen.caps()
    );
    let map = buffer.map_readable().unwrap();
    let expected = pixels(&map, layout(buffer).as_ref(), &info);
    let seen = pixels(&seen.bytes, seen.layout.as_ref(), &info);
    if let Some(row) = (0..seen.len()).find(|row| seen[*row] != expected[*row]) {
        panic!("row {row}: {:?} is not {:?}: {caps}", seen[row], expected[row]);
    }
}

const FORMATS: [VideoFormat; 12] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Y42b,
    VideoFormat::V210,
    VideoFormat::P01010le,
    VideoFormat::Bgr,
    VideoFormat::Rgba,
    VideoFormat::Rgb16,
    VideoFormat::Gray16Le,
    VideoFormat::Rgb8p,
];

#[test]
fn converted_frames_equal_those_of_videoconvert() {
    init();
    for from in FORMATS {
        for to in ["BGRx", "I420", "AYUV", "P010_10LE"] {
            if from == VideoFormat::from_string(to) {
                continue;
            }
            for (width, height) in [(64, 48), (61, 33)] {
                // GStreamer's converter crashes at a few conversions of an odd width, so the reader refuses these.
                let unpacked = gst_video::VideoFormatInfo::from_format(from).unpack_format();
                if width % 2 == 1 && unpacked == VideoFormat::from_string(to) {
                    continue;
                }
                let info = info(from, width, height);
                let downstream = format!("video/x-raw,format={to} ! fakesink sync=false");
                let mut roundtrip = Roundtrip::new(&info, &downstream);
                let control = Control::new(&roundtrip.caps, &downstream);
                let mut buffers = vec![gst::Buffer::from_slice(packed(&info, 3))];
                // The planes of this layout are far apart, and its strides are odd.
                if from != VideoFormat::Rgb8p {
                    buffers.push(padded(&info, 4));
                }
                for buffer in buffers {
                    let expected = control.send(&buffer);
                    assert_same(&roundtrip.send(buffer), &expected);
                }
                let pool = roundtrip.pool(Some(&padding()));
                let buffer = rsshm_testkit::gst::picture::drawn(&pool, &info, 5);
                let expected = control.send(&buffer);
                assert_same(&roundtrip.send(buffer), &expected);
                let count = roundtrip.reader.frame_count() as u64;
                assert_eq!(roundtrip.reader.stat("frames-converted"), count);
            }
        }
    }
}

#[test]
fn interlaced_frames_and_fields_convert_as_in_videoconvert() {
    for (mode, flags) in [
        (
            VideoInterlaceMode::Interleaved,
            VideoBufferFlags::INTERLACED | VideoBufferFlags::TFF,
        ),
        (VideoInterlaceMode::Mixed, VideoBufferFlags::INTERLACED),
        (VideoInterlaceMode::Mixed, VideoBufferFlags::empty()),
        (
            VideoInterlaceMode::Alternate,
            VideoBufferFlags::INTERLACED | VideoBufferFlags::TOP_FIELD,
        ),
    ] {
        for layout in [packed as fn(&VideoInfo, u8) -> Vec<u8>, |_, _| Vec::new()] {
            init();
            let info = VideoInfo::builder(VideoFormat::I420, 64, 48)
                .interlace_mode(mode)
                .fps(gst::Fraction::new(30, 1))
                .build()
                .unwrap();
            let feature = if mode == VideoInterlaceMode::Alternate {
                "(format:Interlaced)"
            } else {
                ""
            };
            let downstream = format!("video/x-raw{feature},format=YUY2 ! fakesink sync=false");
            let bytes = layout(&info, 6);
            let mut buffer = match bytes.is_empty() {
                true => padded(&info, 6),
                false => gst::Buffer::from_slice(bytes),
            };
            buffer.make_mut().set_video_flags(flags);
            let mut roundtrip = Roundtrip::new(&info, &downstream);
            let expected = Control::new(&roundtrip.caps, &downstream).send(&buffer);
            let seen = roundtrip.send(buffer);
            assert_same(&seen, &expected);
            assert_eq!(seen.video_flags, flags, "{mode:?}");
        }
    }
}

#[test]
fn target_format_is_that_of_videoconvert() {
    init();
    for from in FORMATS {
        for to in [
            // No two formats of a list lose the same, because videoconvert then does not follow the order of the list.
            "I420,YUY2,Y444,BGRx",
            "GRAY8,RGB16,BGRA,AYUV",
            "GRAY8,Y42B,NV12",
        ] {
            let to = to
                .split(',')
                .filter(|name| *name != from.to_str().as_str())
                .collect::<Vec<_>>()
                .join(",");
            for more in ["", ",colorimetry=bt2020,chroma-site=jpeg"] {
                let caps = format!("{}{more}", info(from, 64, 48).to_caps().unwrap());
                let caps: gst::Caps = caps.parse().unwrap();
                let downstream = format!("video/x-raw,format={{{to}}} ! fakesink sync=false");
                let mut roundtrip = Roundtrip::with_caps(&caps, &downstream);
                let buffer = gst::Buffer::from_slice(packed(&roundtrip.info, 7));
                let expected = Control::new(&caps, &downstream).send(&buffer);
                assert_same(&roundtrip.send(buffer), &expected);
            }
        }
    }
}

#[test]
fn converted_frame_keeps_metas_times_and_flags() {
    let info = info(VideoFormat::I420, 64, 48);
    let mut roundtrip = Roundtrip::new(&info, "video/x-raw,format=BGRx ! fakesink sync=false");
    let mut buffer = padded(&info, 8);
    let target = buffer.make_mut();
    target.set_duration(gst::ClockTime::from_mseconds(33));
    target.set_offset(17);
    target.set_flags(gst::BufferFlags::CORRUPTED | gst::BufferFlags::MARKER);
    gst_video::VideoRegionOfInterestMeta::add(target, "face", (1, 2, 3, 4));
    let seen = roundtrip.send(buffer);
    assert_eq!(
        (seen.duration, seen.offset),
        (Some(gst::ClockTime::from_mseconds(33)), 17)
    );
    assert!(
        seen.flags
            .contains(gst::BufferFlags::CORRUPTED | gst::BufferFlags::MARKER),
        "{:?}",
        seen.flags
    );
    let region = seen.metas.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap();
    assert_eq!((region.roi_type(), region.rect()), ("face", (1, 2, 3, 4)));
    // The layout of the channel's frame is not that of the converted frame.
    assert_eq!((seen.layout, seen.bytes.len()), (None, 64 * 48 * 4));
    let structure = seen.caps.as_ref().unwrap().structure(0).unwrap();
    assert_eq!(structure.get("framerate"), Ok(gst::Fraction::new(30, 1)));
    assert_eq!(structure.get("pixel-aspect-ratio"), Ok(gst::Fraction::new(1, 1)));
}

/// A live writer of I420, and a reader whose downstream takes what the caps filter says.
struct Live {
    _writer: Pipeline,
    reader: SourceRecorder,
    _channel: Channel,
}

impl Live {
    fn new(options: &str, filter: &str) -> Self {
        let live = Self::paused(options, filter);
        live.reader.pipeline.play();
        live
    }

    /// The reader does not play yet.
    fn paused(options: &str, filter: &str) -> Self {
        let channel = Channel::new();
        let writer = Pipeline::playing(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=60/1 ! rsshmsink name={channel}"
        ));
        let reader = SourceRecorder::new(&format!(
            "rsshmsrc channel={channel} {options} ! capsfilter caps={filter} ! fakesink sync=false"
        ));
        Self {
            _writer: writer,
            reader,
            _channel: channel,
        }
    }

    fn set_filter(&self, caps: &str) {
        let filter = self.reader.pipeline.by_factory("capsfilter");
        filter.set_property("caps", caps.parse::<gst::Caps>().unwrap());
    }

    #[track_caller]
    fn wait_for_format(&self, format: &str) {
        eventually(&format!("frames of {format}"), || {
            self.reader.last_frame().is_some_and(|frame| frame.format() == format)
        });
    }
}

#[test]
fn reader_follows_downstream_and_converts_only_if_necessary() {
    let live = Live::new("", "video/x-raw,format=I420");
    live.reader.wait_for_frames(5);
    assert_eq!(live.reader.stat("frames-converted"), 0);
    live.set_filter("video/x-raw,format=BGRx");
    live.wait_for_format("BGRx");
    live.set_filter("video/x-raw,format={NV12,GRAY8}");
    live.wait_for_format("NV12");
    live.set_filter("video/x-raw");
    live.wait_for_format("I420");
    let converted = live.reader.stat("frames-converted");
    assert!(converted > 0);
    live.reader.wait_for_frames(5);
    assert_eq!(live.reader.stat("frames-converted"), converted);
    for frame in live.reader.frames() {
        let info = VideoInfo::from_caps(frame.caps()).unwrap();
        assert_eq!(frame.bytes.len(), info.size(), "{}", frame.caps());
    }
}

#[test]
fn downstream_that_changes_between_frames_gets_right_format() {
    let channel = Channel::new();
    let reader = SourceRecorder::playing(&format!(
        "rsshmsrc channel={channel} ! capsfilter caps=video/x-raw ! fakesink sync=false"
    ));
    let info = info(VideoFormat::I420, 64, 48);
    let writer = SinkHarness::live_with_caps(&channel, &info.to_caps().unwrap().to_string(), "");
    let filter = reader.pipeline.by_factory("capsfilter");
    let formats = ["I420", "BGRx", "NV12", "I420", "GRAY8"];
    for (frame, format) in (0..).zip(formats) {
        // The source waits for a frame when downstream changes.
        filter.set_property(
            "caps",
            format!("video/x-raw,format={format}").parse::<gst::Caps>().unwrap(),
        );
        writer.push(&gst::Buffer::from_slice(packed(&info, frame)));
        eventually("the frame arrives", || reader.frame_count() == usize::from(frame) + 1);
        assert_eq!(reader.last_frame().unwrap().format(), format);
    }
}

#[test]
fn conversion_follows_caps_of_channel() {
    let channel = Channel::new();
    let reader = SourceRecorder::playing(&format!(
        "rsshmsrc channel={channel} ! video/x-raw,format=BGRx ! fakesink sync=false"
    ));
    let writer = SinkHarness::lossless(&channel);
    let mut converted = 0;
    for (count, (format, width)) in (1..).zip([
        (VideoFormat::I420, 64),
        (VideoFormat::Nv12, 64),
        (VideoFormat::Bgrx, 64),
        (VideoFormat::Nv12, 32),
        (VideoFormat::Gray8, 31),
        (VideoFormat::Bgrx, 31),
    ]) {
        let info = info(format, width, 48);
        let buffer = gst::Buffer::from_slice(packed(&info, 9));
        writer.push_sample(&buffer, &info.to_caps().unwrap(), None);
        eventually("the frame arrives", || reader.frame_count() == count);
        let seen = reader.last_frame().unwrap();
        assert_eq!(
            (seen.format(), seen.width(), seen.bytes.len()),
            ("BGRx".into(), width as i32, width as usize * 48 * 4)
        );
        converted += u64::from(format != VideoFormat::Bgrx);
        assert_eq!(reader.stat("frames-converted"), converted);
    }
    let messages = reader.pipeline.take_messages(gst::MessageType::Info);
    let texts: Vec<_> = messages
        .iter()
        .filter_map(|message| match message.view() {
            gst::MessageView::Info(info) => Some(info.error().message().to_owned()),
            _ => None,
        })
        .filter(|text| text.contains("convert"))
        .collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    for part in [channel.as_str(), "I420", "BGRx", "videoconvert", "convert=false"] {
        assert!(texts[0].contains(part), "{texts:?}");
    }
}

#[test]
fn property_switches_conversion_off() {
    let live = Live::new("convert=false", "video/x-raw,format=BGRx");
    let error = live.reader.pipeline.wait_error();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    let text = error.message();
    assert!(
        text.contains("put videoconvert after this element, or set convert=true"),
        "{text}"
    );
    assert_eq!(live.reader.stat("frames-converted"), 0);
}

#[test]
fn property_acts_while_playing() {
    let live = Live::new("", "video/x-raw,format=BGRx");
    live.wait_for_format("BGRx");
    live.reader
        .pipeline
        .by_factory("rsshmsrc")
        .set_property("convert", false);
    let text = live.reader.pipeline.wait_error().message().to_owned();
    assert!(text.contains("videoconvert"), "{text}");
}

#[test]
fn other_size_is_refused_with_advice() {
    for (filter, advice) in [
        ("video/x-raw,format=BGRx,width=32", "videoscale"),
        ("video/x-raw,format=BGRx,framerate=25/1", "videorate"),
        ("image/jpeg", "video"),
    ] {
        let live = Live::new("", filter);
        let text = live.reader.pipeline.wait_error().message().to_owned();
        assert!(text.contains(advice), "{text}");
        assert!(live.reader.frames().iter().all(|frame| frame.format() == "I420"));
    }
}

#[test]
fn observer_converts_too() {
    let live = Live::new("read-only=true", "video/x-raw,format=RGB");
    live.wait_for_format("RGB");
    assert_eq!(live.reader.stat("frames-in-place"), 0);
}

#[test]
fn converted_frames_hold_no_slots() {
    let live = Live::new("max-held-buffers=1", "video/x-raw,format=BGRx");
    let held = Arc::new(Mutex::new(Vec::new()));
    let in_probe = Arc::clone(&held);
    let pad = live.reader.pipeline.pad("fakesink", "sink");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        in_probe.lock().unwrap().push(info.buffer().unwrap().clone());
        gst::PadProbeReturn::Ok
    });
    // A new stream may withdraw the quota until it has enough slots. The reader copies a frame that comes then.
    eventually("10 frames are held", || held.lock().unwrap().len() >= 10);
    let copied = live.reader.stat("frames-copied");
    assert!(copied < 5, "{copied} frames were copied");
    eventually("50 frames are held", || held.lock().unwrap().len() >= 50);
    // All these frames were read in place, although downstream holds all of the converted ones.
    assert_eq!(live.reader.stat("frames-copied"), copied);
}

#[test]
fn pool_of_downstream_is_used() {
    let live = Live::paused("", "video/x-raw,format=BGRx");
    let pipeline = &live.reader.pipeline;
    let pad = pipeline.pad("fakesink", "sink");
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        match info.query_mut().unwrap().view_mut() {
            gst::QueryViewMut::Allocation(query) => {
                let pool = gst_video::VideoBufferPool::new();
                query.add_allocation_pool(Some(&pool), 64 * 48 * 4, 2, 2);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
    let held = Arc::new(Mutex::new(Vec::new()));
    let in_probe = Arc::clone(&held);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        in_probe.lock().unwrap().push(info.buffer().unwrap().clone());
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    eventually("both buffers of the pool are in use", || {
        held.lock().unwrap().len() == 2
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(held.lock().unwrap().len(), 2);
    held.lock().unwrap().clear();
    eventually("the buffers are used again", || held.lock().unwrap().len() == 2);
    // The reader stops although it waits for a buffer.
    pipeline.set_state(gst::State::Null).unwrap();
}
