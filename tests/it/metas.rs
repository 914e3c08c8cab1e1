// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metadata of frames: regions of interest, crops, time codes, captions, reference timestamps and custom metas.

use std::{
    ffi::c_void,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use gst::{ReferenceTimestampMeta, ffi::GstBuffer, glib::translate::IntoGlibPtr, prelude::*};
use gst_audio::{AudioClippingMeta, ffi::GstAudioLevelMeta};
use gst_net::{NetAddressMeta, gio, gio::prelude::*};
use gst_video::{
    ValidVideoTimeCode, VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoCropMeta, VideoRegionOfInterestMeta, VideoTimeCodeFlags, VideoTimeCodeMeta,
};
use rsshm_testkit::{
    Channel, PATIENCE, Process, eventually,
    gst::{LOSSLESS, Pipeline, SinkHarness, SourceRecorder, caps_at, init, launch, newer::custom_meta, role_command},
    role::{Role, say},
};

const READER: &str = "metas/reader";
const IGNORANT_READER: &str = "metas/ignorant-reader";

/// The roles of the processes that these tests start.
pub const ROLES: &[(&str, Role)] = &[(READER, reader_of_metas), (IGNORANT_READER, ignorant_reader)];

/// The name of a custom meta.
const CUSTOM: &str = "RsShmTestMeta";
/// The CEA-608 command "resume caption loading".
const CAPTION: [u8; 2] = [0x94, 0x20];

// The bindings are built for a version of GStreamer that does not have these functions.
unsafe extern "C" {
    fn gst_buffer_add_audio_level_meta(
        buffer: *mut GstBuffer,
        level: u8,
        voice_activity: i32,
    ) -> *mut GstAudioLevelMeta;
    fn gst_buffer_get_audio_level_meta(buffer: *mut GstBuffer) -> *mut GstAudioLevelMeta;
    fn gst_buffer_add_video_codec_alpha_meta(buffer: *mut GstBuffer, alpha: *mut GstBuffer) -> *mut c_void;
    fn gst_buffer_add_video_sei_user_data_unregistered_meta(
        buffer: *mut GstBuffer,
        uuid: *const [u8; 16],
        data: *const u8,
        size: usize,
    ) -> *mut c_void;
}

/// Registers the custom meta.
pub fn register() {
    init();
    static ONCE: Once = Once::new();
    ONCE.call_once(|| custom_meta::register(CUSTOM));
}

fn detection() -> gst::Structure {
    gst::Structure::builder("detection")
        .field("confidence", 0.75f64)
        .field("label", "a \"person\", däne")
        .field("keypoints", gst::Array::new([1i32, 2, 3]))
        .build()
}

fn encoder_hint() -> gst::Structure {
    gst::Structure::builder("roi/x264").field("delta-qp", -3.5f64).build()
}

fn ntp() -> gst::Caps {
    gst::Caps::builder("timestamp/x-ntp")
        .field("host", "time.example")
        .build()
}

fn time_code() -> ValidVideoTimeCode {
    let jam = gst::glib::DateTime::from_iso8601("2026-02-04T10:53:17.5+02:00", None).unwrap();
    let rate = gst::Fraction::new(30000, 1001);
    let flags = VideoTimeCodeFlags::DROP_FRAME | VideoTimeCodeFlags::INTERLACED;
    ValidVideoTimeCode::new(rate, Some(&jam), flags, 1, 2, 3, 4, 1).unwrap()
}

/// Adds one meta of each kind. If a buffer can have several metas of a kind, adds two.
pub fn add_metas(buffer: &mut gst::BufferRef) {
    VideoCropMeta::add(buffer, (1, 2, 30, 40));
    let mut region = VideoRegionOfInterestMeta::add(buffer, "person", (5, 6, 7, 8));
    region.set_id(11);
    region.set_parent_id(-12);
    region.add_param(detection());
    region.add_param(encoder_hint());
    VideoRegionOfInterestMeta::add(buffer, "car", (9, 10, 11, 12));
    ReferenceTimestampMeta::add(buffer, &ntp(), gst::ClockTime::from_nseconds(123_456_789), None);
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    ReferenceTimestampMeta::add(buffer, &unix, gst::ClockTime::SECOND, gst::ClockTime::MSECOND);
    VideoTimeCodeMeta::add(buffer, &time_code());
    custom_meta::add(buffer, CUSTOM).set("exposure", gst::Fraction::new(1, 250));
    VideoCaptionMeta::add(buffer, VideoCaptionType::Cea608Raw, &CAPTION);
    VideoAFDMeta::add(buffer, 1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter169Full);
    VideoBarMeta::add(buffer, 0, true, 7, 9);
    AudioClippingMeta::add(buffer, gst::ClockTime::SECOND, gst::ClockTime::MSECOND);
    NetAddressMeta::add(buffer, &address());
    // SAFETY: the buffer is writable, and the meta copies the bytes.
    unsafe {
        let pointer = buffer.as_mut_ptr();
        let (uuid, data) = (&raw const SEI, SEI.as_ptr());
        gst_buffer_add_video_sei_user_data_unregistered_meta(pointer, uuid, data, SEI.len());
        gst_buffer_add_audio_level_meta(pointer, 20, 1);
    }
}

/// The UUID of an SEI message, and its content.
static SEI: [u8; 16] = *b"0123456789abcdef";

fn address() -> gio::InetSocketAddress {
    gio::InetSocketAddress::new(&gio::InetAddress::from_string("192.0.2.1").unwrap(), 5004)
}

/// Checks that a buffer has the metas that [`add_metas`] adds.
#[track_caller]
fn check_metas(buffer: &gst::BufferRef) {
    assert_eq!(buffer.meta::<VideoCropMeta>().unwrap().rect(), (1, 2, 30, 40));
    let regions: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().collect();
    assert_eq!(regions.len(), 2);
    let region = &regions[0];
    assert_eq!((region.roi_type(), region.rect()), ("person", (5, 6, 7, 8)));
    assert_eq!((region.id(), region.parent_id()), (11, -12));
    let params: Vec<_> = region.params().map(gst::StructureRef::to_owned).collect();
    assert_eq!(params, [detection(), encoder_hint()]);
    assert_eq!((regions[1].roi_type(), regions[1].rect()), ("car", (9, 10, 11, 12)));
    let times: Vec<_> = buffer
        .iter_meta::<ReferenceTimestampMeta>()
        .map(|meta| (meta.reference_owned(), meta.timestamp().nseconds(), meta.duration()))
        .collect();
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    let expected = [
        (ntp(), 123_456_789, None),
        (unix, 1_000_000_000, Some(gst::ClockTime::MSECOND)),
    ];
    assert_eq!(times, expected);
    let (code, expected) = (buffer.meta::<VideoTimeCodeMeta>().unwrap().tc(), time_code());
    assert_eq!((code.fps(), code.flags()), (expected.fps(), expected.flags()));
    assert_eq!((code.hours(), code.minutes(), code.seconds()), (1, 2, 3));
    assert_eq!((code.frames(), code.field_count()), (4, 1));
    assert_eq!(code.latest_daily_jam(), expected.latest_daily_jam());
    let custom = custom_meta::get(buffer, CUSTOM).unwrap();
    let exposure = custom.get::<gst::Fraction>("exposure").unwrap();
    assert_eq!(exposure, gst::Fraction::new(1, 250));
    let caption = buffer.meta::<VideoCaptionMeta>().unwrap();
    assert_eq!(
        (caption.caption_type(), caption.data()),
        (VideoCaptionType::Cea608Raw, &CAPTION[..])
    );
    let format = buffer.meta::<VideoAFDMeta>().unwrap();
    let expected = (1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter169Full);
    assert_eq!((format.field(), format.spec(), format.afd()), expected);
    let bars = buffer.meta::<VideoBarMeta>().unwrap();
    assert_eq!((bars.field(), bars.is_letterbox()), (0, true));
    assert_eq!((bars.bar_data1(), bars.bar_data2()), (7, 9));
    // SAFETY: the function does not change the buffer, which owns the meta.
    let level = unsafe { gst_buffer_get_audio_level_meta(buffer.as_ptr().cast_mut()).as_ref() }.unwrap();
    assert_eq!((level.level, level.voice_activity), (20, 1));
    let clipping = buffer.meta::<AudioClippingMeta>().unwrap();
    let time = |nanoseconds| Some(gst::ClockTime::from_nseconds(nanoseconds)).into();
    assert_eq!(
        (clipping.start(), clipping.end()),
        (time(1_000_000_000), time(1_000_000))
    );
    let found = buffer.meta::<NetAddressMeta>().unwrap().addr();
    assert_eq!(found.to_string(), address().to_string());
    let mut sei = buffer.iter_meta::<gst::Meta>();
    assert!(sei.any(|meta| meta.type_().name() == "GstVideoSEIUserDataUnregisteredMeta"));
}

/// Checks all frames that a reader has received.
#[track_caller]
fn check_all(reader: &SourceRecorder) {
    for frame in reader.frames() {
        check_metas(&frame.metas);
    }
}

/// Pushes 50 buffers a second until `is_done` holds. `add` adds the metas of each buffer.
fn push_until(writer: &SinkHarness, add: impl Fn(&mut gst::BufferRef), mut is_done: impl FnMut() -> bool) {
    eventually("enough frames arrive", || {
        let mut buffer = gst::Buffer::from_slice([9u8; 64 * 48]);
        add(buffer.get_mut().unwrap());
        writer.push(&buffer);
        std::thread::sleep(Duration::from_millis(20));
        is_done()
    });
}

fn live_writer(channel: &Channel) -> SinkHarness {
    SinkHarness::live_with_caps(channel, &caps_at(50), "")
}

#[test]
fn metas_reach_readers_in_place_and_observers() {
    register();
    let channel = Channel::new();
    let readers = [
        SourceRecorder::of(&channel),
        SourceRecorder::with_options(&channel, "read-only=true"),
    ];
    let writer = live_writer(&channel);
    push_until(&writer, add_metas, || {
        readers.iter().all(|reader| reader.frame_count() >= 10)
    });
    for reader in &readers {
        check_all(reader);
    }
    assert!(readers[0].stat("frames-in-place") > 0);
    assert_eq!(readers[1].stat("frames-in-place"), 0);
    assert_eq!(writer.stat("metas-left-out"), 0);
}

#[test]
fn metas_reach_another_process() {
    register();
    let channel = Channel::new();
    let mut reader = Process::start(role_command(READER, &[channel.as_str()]));
    let writer = live_writer(&channel);
    push_until(&writer, add_metas, || !reader.is_running());
    assert!(reader.wait_ok().contains("ALL METAS"));
    assert_eq!(writer.stat("metas-left-out"), 0);
}

/// A buffer whose memories have these sizes, and its bytes.
fn buffer_of_memories(sizes: &[usize]) -> (gst::Buffer, Vec<u8>) {
    let bytes: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
    let mut buffer = gst::Buffer::new();
    let mut rest = &bytes[..];
    for size in sizes {
        let (part, behind) = rest.split_at(*size);
        buffer
            .get_mut()
            .unwrap()
            .append_memory(gst::Memory::from_slice(part.to_vec()));
        rest = behind;
    }
    (buffer, bytes)
}

const TENSORS: &str = "other/tensors,format=(string)static,num_tensors=(int)2,dimensions=(string)\"3:4.5:4\",types=(string)\"uint8.uint8\"";

#[test]
fn memories_of_buffer_arrive_with_their_boundaries() {
    init();
    let channel = Channel::new();
    let readers = [
        SourceRecorder::of(&channel),
        SourceRecorder::with_options(&channel, "read-only=true"),
    ];
    let writer = SinkHarness::live_with_caps(&channel, TENSORS, "");
    let layouts = [&[12, 20][..], &[32], &[100_000, 1, 200_000], &[7; 16]];
    let mut number = 0;
    eventually("enough frames arrive", || {
        let mut buffer = buffer_of_memories(layouts[number % layouts.len()]).0;
        buffer.get_mut().unwrap().set_offset(number as u64);
        number += 1;
        writer.push(&buffer);
        std::thread::sleep(Duration::from_millis(20));
        readers.iter().all(|reader| reader.frame_count() >= 20)
    });
    for reader in &readers {
        for frame in reader.frames() {
            let sizes = layouts[frame.offset as usize % layouts.len()];
            assert_eq!(frame.memories, sizes);
            assert!(frame.bytes == buffer_of_memories(sizes).1);
        }
    }
    assert!(readers[0].stat("frames-in-place") > 0);
    assert_eq!(readers[1].stat("frames-in-place"), 0);
    assert_eq!(writer.stat("metas-left-out"), 0);
}

#[test]
fn memories_survive_two_channels() {
    init();
    let channels = [Channel::new(), Channel::new()];
    let reader = SourceRecorder::of(&channels[1]);
    let _relay = Pipeline::playing(&format!(
        "rsshmsrc channel={} ! rsshmsink channel={} sync=false async=false",
        channels[0], channels[1]
    ));
    let writer = SinkHarness::live_with_caps(&channels[0], TENSORS, "");
    eventually("ten frames arrive", || {
        writer.push(&buffer_of_memories(&[12, 20]).0);
        std::thread::sleep(Duration::from_millis(20));
        reader.frame_count() >= 10
    });
    for frame in reader.frames() {
        assert_eq!(frame.memories, [12, 20]);
        assert_eq!(frame.bytes, buffer_of_memories(&[12, 20]).1);
    }
}

#[test]
fn packets_of_process_keep_their_memories() {
    // A payloader puts the header and the payload into separate memories.
    let payloader = "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=64,height=48 ! jpegenc ! rtpjpegpay timestamp-offset=0 \
                     seqnum-offset=0 ssrc=1";
    let plain = Pipeline::new(&format!("{payloader} ! fakesink sync=false"));
    let (send, expected) = mpsc::channel();
    let types = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    plain.pad("fakesink", "sink").add_probe(types, move |_, info| {
        let buffers: Vec<_> = match info.buffer_list() {
            Some(list) => list.iter().collect(),
            None => info.buffer().into_iter().map(AsRef::as_ref).collect(),
        };
        for buffer in buffers {
            let sizes: Vec<_> = buffer.iter_memories().map(gst::MemoryRef::size).collect();
            send.send(sizes).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    plain.play();
    plain.wait_eos();
    let expected: Vec<_> = expected.try_iter().collect();
    assert!(
        expected.len() >= 30 && expected.iter().all(|sizes| sizes.len() >= 2),
        "{expected:?}"
    );
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut writer = launch(&format!("{payloader} ! rsshmsink name={channel} {LOSSLESS}"));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let seen: Vec<_> = reader.frames().into_iter().map(|frame| frame.memories).collect();
    assert_eq!(seen, expected);
}

/// A reader that checks the metas of ten frames. Its argument is the channel.
fn reader_of_metas(arguments: &[&str]) {
    register();
    let reader = SourceRecorder::of(arguments[0]);
    eventually("ten frames arrive", || reader.frame_count() >= 10);
    check_all(&reader);
    say("ALL METAS");
}

#[test]
fn metas_of_frames_in_place_arrive() {
    register();
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {} ! rsshmsink channel={channel}",
        caps_at(50)
    ));
    let pad = writer.pad("rsshmsink", "sink");
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        add_metas(info.buffer_mut().unwrap().make_mut());
        gst::PadProbeReturn::Ok
    });
    writer.play();
    eventually("ten frames arrive", || reader.frame_count() >= 10);
    check_all(&reader);
    assert!(writer.stat("rsshmsink", "frames-in-place") > 0);
}

#[test]
fn frame_without_metas_arrives_without_metas() {
    register();
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = live_writer(&channel);
    // Only the first ten frames have metas. When a slot is used again, no metas of its former frame may be left in it.
    let count = AtomicU32::new(0);
    let add = |buffer: &mut gst::BufferRef| {
        // Relaxed, because only this thread uses the count.
        if count.fetch_add(1, Ordering::Relaxed) < 10 {
            add_metas(buffer);
        }
    };
    push_until(&writer, add, || reader.frame_count() >= 40);
    let last = reader.last_frame().unwrap().metas;
    assert!(last.meta::<VideoCropMeta>().is_none() && last.meta::<VideoRegionOfInterestMeta>().is_none());
}

#[test]
fn oversized_metas_are_counted_and_warned_once() {
    register();
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = live_writer(&channel);
    let add = |buffer: &mut gst::BufferRef| {
        custom_meta::add(buffer, CUSTOM).set("text", "x".repeat(4000));
        VideoRegionOfInterestMeta::add(buffer, "car", (9, 10, 11, 12));
    };
    push_until(&writer, add, || reader.frame_count() >= 10);
    for frame in reader.frames() {
        assert!(custom_meta::get(&frame.metas, CUSTOM).is_none());
        assert_eq!(frame.metas.iter_meta::<VideoRegionOfInterestMeta>().count(), 1);
    }
    eventually("the metas of each frame are counted", || {
        writer.stat("metas-left-out") == writer.stat("frames-published")
    });
    assert!(writer.stat("metas-left-out") >= 10);
    assert_eq!(writer.pipeline.take_messages(gst::MessageType::Warning).len(), 1);
}

/// A field of `metas-left-out-by-name` of a sink's `channel-stats`.
fn left_out_by_name(writer: &SinkHarness, name: &str) -> Option<u64> {
    let sink = writer.pipeline.by_factory("rsshmsink");
    let stats = sink.property::<gst::Structure>("channel-stats");
    let by_name: gst::Structure = stats.get("metas-left-out-by-name").unwrap();
    by_name.get(name).ok()
}

#[test]
fn metas_that_are_not_carried_are_counted_and_named_once() {
    register();
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let writer = live_writer(&channel);
    let add = |buffer: &mut gst::BufferRef| {
        add_metas(buffer);
        gst_video::VideoOverlayCompositionMeta::add(buffer, &overlay());
        gst_video::VideoOverlayCompositionMeta::add(buffer, &overlay());
        let alpha = gst::Buffer::from_slice([1_u8; 10]);
        // SAFETY: the buffer is writable, and the meta takes the reference to the second buffer.
        unsafe {
            gst_buffer_add_video_codec_alpha_meta(buffer.as_mut_ptr(), alpha.into_glib_ptr());
        }
        // Nothing of this meta concerns other programs, so it is not counted.
        gst::ParentBufferMeta::add(buffer, &gst::Buffer::new());
        let mut region = VideoRegionOfInterestMeta::add(buffer, "odd", (1, 1, 1, 1));
        region.add_param(gst::Structure::builder("odd").field("caps", ntp()).build());
    };
    push_until(&writer, add, || reader.frame_count() >= 10);
    let metas = reader.last_frame().unwrap().metas;
    // The sink still publishes frames that were pushed, and counts the metas of a frame before it publishes the frame.
    writer.settle(&reader);
    let published = writer.stat("frames-published");
    let close_to = |count: Option<u64>, expected: u64| count.is_some_and(|count| count.abs_diff(expected) <= 2);
    for (name, each) in [
        ("GstVideoOverlayCompositionMeta", 2),
        ("GstVideoCodecAlphaMeta", 1),
        ("GstVideoRegionOfInterestMeta", 1),
    ] {
        assert!(close_to(left_out_by_name(&writer, name), published * each), "{name}");
    }
    assert_eq!(left_out_by_name(&writer, "GstParentBufferMeta"), None);
    assert!(writer.stat("metas-left-out").abs_diff(published * 4) <= 4);
    let warnings: Vec<_> = writer
        .pipeline
        .take_messages(gst::MessageType::Warning)
        .iter()
        .map(|message| match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            _ => String::new(),
        })
        .collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for name in [
        "GstVideoOverlayCompositionMeta",
        "GstVideoCodecAlphaMeta",
        "GstVideoRegionOfInterestMeta",
    ] {
        assert_eq!(
            warnings.iter().filter(|text| text.contains(name)).count(),
            1,
            "{warnings:?}"
        );
    }
    assert_eq!(metas.iter_meta::<VideoRegionOfInterestMeta>().count(), 3);
    assert_eq!(reader.stat("metas-refused") + reader.stat("metas-unknown"), 0);
}

fn overlay() -> gst_video::VideoOverlayComposition {
    let mut pixels = gst::Buffer::from_slice([0_u8; 16]);
    let flags = gst_video::VideoFrameFlags::empty();
    gst_video::VideoMeta::add(pixels.get_mut().unwrap(), flags, gst_video::VideoFormat::Bgra, 2, 2).unwrap();
    let flags = gst_video::VideoOverlayFormatFlags::empty();
    let rectangle = gst_video::VideoOverlayRectangle::new_raw(&pixels, 0, 0, 2, 2, flags);
    gst_video::VideoOverlayComposition::new(Some(&rectangle)).unwrap()
}

/// The reader's program has not registered the custom meta.
#[test]
fn custom_meta_that_reader_does_not_know_is_counted() {
    register();
    let channel = Channel::new();
    let mut reader = Process::start(role_command(IGNORANT_READER, &[channel.as_str()]));
    let writer = live_writer(&channel);
    push_until(&writer, add_metas, || !reader.is_running());
    assert!(reader.wait_ok().contains("COUNTED"));
}

/// A reader that has not registered the custom meta. Its argument is the channel.
fn ignorant_reader(arguments: &[&str]) {
    init();
    let reader = SourceRecorder::of(arguments[0]);
    eventually("ten frames arrive", || reader.frame_count() >= 10);
    assert!(reader.stat("metas-unknown") >= 10);
    assert_eq!(reader.stat("metas-refused"), 0);
    say("COUNTED");
}

#[test]
fn allocation_query_lists_supported_metas() {
    let channel = Channel::new();
    let writer = live_writer(&channel);
    let query = writer.allocation(&caps_at(50).parse().unwrap(), false);
    assert!(query.find_allocation_meta::<VideoRegionOfInterestMeta>().is_some());
    assert!(query.find_allocation_meta::<ReferenceTimestampMeta>().is_some());
    assert!(query.find_allocation_meta::<VideoTimeCodeMeta>().is_some());
}

/// If downstream claims to support crop metas, an element leaves the cropping to downstream. The sink must not claim
/// this support, because it cannot know whether the readers have it.
#[test]
fn upstream_crops_frames_itself() {
    let crop = format!(
        "videotestsrc pattern=gradient is-live=true ! {} ! videocrop left=16 top=8",
        caps_at(50)
    );
    let picture = |pipeline: &Pipeline, factory: &str, pad: &str| {
        let (send, receive) = mpsc::channel();
        let pad = pipeline.by_factory(factory).static_pad(pad).unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let bytes = info.buffer().unwrap().map_readable().unwrap().to_vec();
            let _ = send.send(bytes);
            gst::PadProbeReturn::Ok
        });
        pipeline.play();
        receive.recv_timeout(PATIENCE).unwrap()
    };
    let plain = Pipeline::new(&format!("{crop} ! fakesink"));
    let expected = picture(&plain, "fakesink", "sink");
    let channel = Channel::new();
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let _writer = Pipeline::playing(&format!("{crop} ! rsshmsink channel={channel}"));
    assert_eq!(expected.len(), 48 * 40);
    assert!(picture(&reader, "fakesink", "sink") == expected);
}
