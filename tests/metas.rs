//! What goes with a frame beside its picture: regions of interest, crops, time codes and reference timestamps.

mod common;
mod numbered;

use std::{
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use common::{Channel, Pipeline, Process, eventually, init};
use gst::{ReferenceTimestampMeta, meta::CustomMeta, prelude::*};
use gst_video::{
    ValidVideoTimeCode, VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoCropMeta, VideoRegionOfInterestMeta, VideoTimeCodeFlags, VideoTimeCodeMeta,
};

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=50/1";
const CUSTOM: &str = "RsShmTravelMeta";
/// "Resume caption loading".
const CAPTION: [u8; 2] = [0x94, 0x20];

fn register() {
    init();
    static ONCE: Once = Once::new();
    ONCE.call_once(|| CustomMeta::register(CUSTOM, &[]));
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

/// Gives a buffer one of each, and two of those of which there can be several.
fn add_metas(buffer: &mut gst::BufferRef) {
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
    let mut custom = CustomMeta::add(buffer, CUSTOM).unwrap();
    custom.mut_structure().set("exposure", gst::Fraction::new(1, 250));
    VideoCaptionMeta::add(buffer, VideoCaptionType::Cea608Raw, &CAPTION);
    VideoAFDMeta::add(buffer, 1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter169Full);
    VideoBarMeta::add(buffer, 0, true, 7, 9);
}

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
    let custom = CustomMeta::from_buffer(buffer, CUSTOM).unwrap();
    let exposure = custom.structure().get::<gst::Fraction>("exposure").unwrap();
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
}

/// A reader of the channel, and the buffers that leave it.
struct Reader(Pipeline, Arc<Mutex<Vec<gst::Buffer>>>);

impl Reader {
    fn playing(channel: impl std::fmt::Display, options: &str) -> Self {
        let pipeline = Pipeline::new(&format!("rsshmsrc channel={channel} {options} ! fakesink sync=false"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let pad = pipeline.by_factory("rsshmsrc").static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            // Metas alone: kept memory would be pinned.
            let mut copy = gst::Buffer::new();
            let buffer = info.buffer().unwrap();
            buffer
                .copy_into(copy.get_mut().unwrap(), gst::BufferCopyFlags::META, ..)
                .unwrap();
            to.lock().unwrap().push(copy);
            gst::PadProbeReturn::Ok
        });
        pipeline.0.set_state(gst::State::Playing).unwrap();
        Self(pipeline, seen)
    }

    fn count(&self) -> usize {
        self.1.lock().unwrap().len()
    }

    #[track_caller]
    fn check_all(&self) {
        for buffer in self.1.lock().unwrap().iter() {
            check_metas(buffer);
        }
    }
}

/// Pushes buffers with what `add` gives them, 50 a second, until `done`.
fn push_until(writer: &Pipeline, add: impl Fn(&mut gst::BufferRef), mut done: impl FnMut() -> bool) {
    let source = writer.element("source");
    eventually("enough frames", || {
        let mut buffer = gst::Buffer::from_slice([9u8; 64 * 48]);
        add(buffer.get_mut().unwrap());
        let pushed = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
        std::thread::sleep(Duration::from_millis(20));
        done()
    });
}

fn appsrc(channel: &Channel) -> Pipeline {
    Pipeline::playing(&format!(
        "appsrc name=source caps={CAPS} format=time is-live=true do-timestamp=true ! rsshmsink channel={channel}"
    ))
}

#[test]
fn metas_reach_readers_in_place_and_observers() {
    register();
    let channel = Channel::new();
    let readers = [
        Reader::playing(&channel, ""),
        Reader::playing(&channel, "read-only=true"),
    ];
    let writer = appsrc(&channel);
    push_until(&writer, add_metas, || readers.iter().all(|reader| reader.count() >= 10));
    for reader in &readers {
        reader.check_all();
    }
    assert!(readers[0].0.stat("rsshmsrc", "frames-in-place") > 0);
    assert_eq!(readers[1].0.stat("rsshmsrc", "frames-in-place"), 0);
    assert_eq!(writer.stat("rsshmsink", "metas-left-out"), 0);
}

#[test]
fn metas_reach_another_process() {
    register();
    let channel = Channel::new();
    let mut command = numbered::entry_command("reader_of_metas");
    command.env("RSSHM_TEST_CHANNEL", &channel.0);
    let mut reader = Process::start(command);
    let writer = appsrc(&channel);
    push_until(&writer, add_metas, || !reader.is_running());
    assert!(reader.wait_ok().contains("ALL METAS"));
    assert_eq!(writer.stat("rsshmsink", "metas-left-out"), 0);
}

#[test]
#[ignore = "a process that other tests start"]
fn reader_of_metas() {
    let Ok(channel) = std::env::var("RSSHM_TEST_CHANNEL") else {
        return;
    };
    register();
    let reader = Reader::playing(channel, "");
    eventually("ten frames", || reader.count() >= 10);
    reader.check_all();
    println!("ALL METAS");
}

#[test]
fn metas_of_frames_drawn_in_place_travel() {
    register();
    let channel = Channel::new();
    let reader = Reader::playing(&channel, "");
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink channel={channel}"
    ));
    let pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        add_metas(info.buffer_mut().unwrap().make_mut());
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    eventually("ten frames", || reader.count() >= 10);
    reader.check_all();
    assert!(writer.stat("rsshmsink", "frames-in-place") > 0);
}

#[test]
fn a_frame_without_them_has_none() {
    register();
    let channel = Channel::new();
    let reader = Reader::playing(&channel, "");
    let writer = appsrc(&channel);
    // One with, and then none: nothing of it is left in a slot that is used again.
    let with = std::sync::atomic::AtomicU32::new(0);
    let add = |buffer: &mut gst::BufferRef| {
        if with.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 10 {
            add_metas(buffer);
        }
    };
    push_until(&writer, add, || reader.count() >= 40);
    let last = reader.1.lock().unwrap().last().cloned().unwrap();
    assert!(last.meta::<VideoCropMeta>().is_none() && last.meta::<VideoRegionOfInterestMeta>().is_none());
}

#[test]
fn what_is_too_large_is_left_out_and_counted_and_said_once() {
    register();
    let channel = Channel::new();
    let reader = Reader::playing(&channel, "");
    let writer = appsrc(&channel);
    let add = |buffer: &mut gst::BufferRef| {
        let mut custom = CustomMeta::add(buffer, CUSTOM).unwrap();
        custom.mut_structure().set("text", "x".repeat(4000));
        VideoRegionOfInterestMeta::add(buffer, "car", (9, 10, 11, 12));
    };
    push_until(&writer, add, || reader.count() >= 10);
    for buffer in reader.1.lock().unwrap().iter() {
        assert!(CustomMeta::from_buffer(buffer, CUSTOM).is_err());
        assert_eq!(buffer.iter_meta::<VideoRegionOfInterestMeta>().count(), 1);
    }
    let left_out = writer.stat("rsshmsink", "metas-left-out");
    let published = writer.stat("rsshmsink", "frames-published");
    assert!(
        left_out >= 10 && left_out.abs_diff(published) <= 1,
        "{left_out} of {published}"
    );
    let bus = writer.0.bus().unwrap();
    let warnings = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning])).count();
    assert_eq!(warnings, 1);
}

#[test]
fn upstream_is_told_what_travels() {
    let channel = Channel::new();
    let writer = appsrc(&channel);
    let caps = CAPS.parse().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), false);
    let pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    assert!(pad.query(&mut query));
    assert!(query.find_allocation_meta::<VideoRegionOfInterestMeta>().is_some());
    assert!(query.find_allocation_meta::<ReferenceTimestampMeta>().is_some());
    assert!(query.find_allocation_meta::<VideoTimeCodeMeta>().is_some());
}

/// An element that finds that crops are understood leaves the cropping to others. Whether a reader's downstream does it,
/// the writer cannot know.
#[test]
fn who_crops_upstream_does_it_itself() {
    let crop = format!("videotestsrc pattern=gradient is-live=true ! {CAPS} ! videocrop left=16 top=8");
    let picture = |pipeline: &Pipeline, factory: &str, pad: &str| {
        let (send, receive) = std::sync::mpsc::channel();
        let pad = pipeline.by_factory(factory).static_pad(pad).unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let bytes = info.buffer().unwrap().map_readable().unwrap().to_vec();
            let _ = send.send(bytes);
            gst::PadProbeReturn::Ok
        });
        pipeline.0.set_state(gst::State::Playing).unwrap();
        receive.recv_timeout(common::PATIENCE).unwrap()
    };
    let plain = Pipeline::new(&format!("{crop} ! fakesink"));
    let expected = picture(&plain, "fakesink", "sink");
    let channel = Channel::new();
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let _writer = Pipeline::playing(&format!("{crop} ! rsshmsink channel={channel}"));
    assert_eq!(expected.len(), 48 * 40);
    assert!(picture(&reader, "fakesink", "sink") == expected);
}
