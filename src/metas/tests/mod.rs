// SPDX-License-Identifier: MIT OR Apache-2.0

mod analytics;
mod ancillary;
mod audio;
mod general;
mod hostile;
mod memories;
mod network;
mod serialized;
mod space;
mod table;
mod video;

use gst::prelude::*;
use gst_video::{
    ValidVideoTimeCode, VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoCropMeta, VideoFormat, VideoMeta, VideoRegionOfInterestMeta, VideoTimeCodeFlags, VideoTimeCodeMeta,
};

use gst::ReferenceTimestampMeta;
use proptest::prelude::*;

use super::*;
use crate::codec::{
    MAX_NAMES, put_text,
    samples::{self, plain_structure},
};

const CUSTOM_META: &str = "RsShmTestMeta";

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        samples::init();
        raw::custom::register(CUSTOM_META);
    });
}

fn video_format(info: Option<&VideoInfo>) -> Format<'_> {
    Format {
        video: info,
        ..Format::default()
    }
}

/// Encodes the metas of a buffer of raw video. Returns how many were left out.
fn encode(buffer: &gst::BufferRef, info: Option<&VideoInfo>, to: &mut Vec<u8>) -> u64 {
    super::encode(buffer, video_format(info), to).count()
}

/// Decodes the metas of a buffer of raw video. Returns how many were refused.
fn decode(bytes: &[u8], info: Option<&VideoInfo>, buffer: &mut gst::BufferRef) -> u64 {
    Decoder::default().decode(bytes, video_format(info), buffer).refused
}

/// Decodes one record, and says what was skipped.
fn skipped(bytes: &[u8]) -> Skipped {
    init();
    let mut skipped = Skipped::default();
    let info = info();
    buffer(|buffer| {
        buffer.append_memory(gst::Memory::from_slice(FRAME));
        skipped = Decoder::default().decode(bytes, video_format(Some(&info)), buffer);
    });
    skipped
}

/// The first meta of this name.
#[track_caller]
fn meta_of<'a>(buffer: &'a gst::BufferRef, name: &str) -> MetaRef<'a, gst::Meta> {
    let mut metas = buffer.iter_meta::<gst::Meta>();
    metas.find(|meta| meta.type_().name() == name).expect(name)
}

/// Appends the head of a record, with a size of zero.
fn begin(to: &mut Vec<u8>, kind: u16) {
    to.extend(kind.to_ne_bytes());
    to.extend([0; 2]);
}

fn put_numbers(to: &mut Vec<u8>, numbers: &[u32]) {
    to.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
}

/// A record with these bytes.
fn record(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes, kind);
    bytes.extend(content);
    record::set_size(&mut bytes);
    bytes
}

fn info() -> VideoInfo {
    VideoInfo::builder(VideoFormat::Gray8, 640, 480).build().unwrap()
}

/// A buffer with the metas that `add` adds.
fn buffer(add: impl FnOnce(&mut gst::BufferRef)) -> gst::Buffer {
    init();
    let mut buffer = gst::Buffer::new();
    add(buffer.get_mut().unwrap());
    buffer
}

fn encoded(buffer: &gst::BufferRef) -> (Vec<u8>, u64) {
    let mut bytes = vec![7; 5000];
    let left_out = encode(buffer, Some(&info()), &mut bytes);
    assert!(bytes.len() <= MAX_METADATA_SIZE, "{}", bytes.len());
    (bytes, left_out)
}

fn decoded(bytes: &[u8]) -> (gst::Buffer, u64) {
    let mut refused = 0;
    let buffer = buffer(|buffer| {
        buffer.append_memory(gst::Memory::from_slice(FRAME));
        refused = decode(bytes, Some(&info()), buffer);
    });
    check_memories(&buffer);
    (buffer, refused)
}

/// The bytes of each decoded buffer.
const FRAME: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

/// Checks that a buffer still has the bytes of its frame, in at most 16 memories. Returns the sizes of the memories.
#[track_caller]
fn check_memories(buffer: &gst::BufferRef) -> Vec<usize> {
    let maps: Vec<_> = buffer
        .iter_memories()
        .map(|memory| memory.map_readable().unwrap())
        .collect();
    assert!(maps.len() <= 16);
    assert_eq!(maps.iter().flat_map(|map| map.to_vec()).collect::<Vec<u8>>(), FRAME);
    maps.iter().map(|map| map.size()).collect()
}

/// Encodes and decodes the metas that `add` adds. None of them may be left out or refused.
#[track_caller]
fn transferred(add: impl FnOnce(&mut gst::BufferRef)) -> gst::Buffer {
    let (bytes, left_out) = encoded(&buffer(add));
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((left_out, refused), (0, 0));
    buffer
}

fn count(buffer: &gst::BufferRef) -> usize {
    let mut count = 0;
    buffer.foreach_meta(|_| {
        count += 1;
        ControlFlow::Continue(())
    });
    count
}

fn structure(text: &str) -> gst::Structure {
    init();
    text.parse().unwrap()
}

fn time_code(flags: VideoTimeCodeFlags, daily_jam: Option<&str>) -> ValidVideoTimeCode {
    init();
    let daily_jam = daily_jam.map(|text| gst::glib::DateTime::from_iso8601(text, None).unwrap());
    let rate = gst::Fraction::new(30000, 1001);
    ValidVideoTimeCode::new(rate, daily_jam.as_ref(), flags, 23, 59, 58, 29, 2).unwrap()
}

/// The record that describes memories of these sizes.
fn record_of_memories(sizes: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes, kind::MEMORIES);
    bytes[2..4].copy_from_slice(&(sizes.len() as u16 * 8).to_ne_bytes());
    bytes.extend(sizes.iter().flat_map(|size| size.to_ne_bytes()));
    bytes
}

/// A buffer of memories of these sizes.
fn buffer_of_memories(sizes: &[usize]) -> gst::Buffer {
    buffer(|buffer| {
        for size in sizes {
            buffer.append_memory(gst::Memory::from_slice(vec![1; *size]));
        }
    })
}

fn buffer_of_crops(crops: u32) -> gst::Buffer {
    buffer(|buffer| {
        for _ in 0..crops {
            VideoCropMeta::add(buffer, (0, 0, 1, 1));
        }
    })
}

/// The encoded metas of a buffer that has two memories and a meta of each kind.
fn all() -> Vec<u8> {
    let buffer = buffer(|buffer| {
        buffer.append_memory(gst::Memory::from_slice([1; 12]));
        buffer.append_memory(gst::Memory::from_slice([2; 20]));
        VideoCropMeta::add(buffer, (0, 0, 64, 48));
        VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4)).add_param(plain_structure("detection"));
        let caps = "timestamp/x-ntp, host=(string)example, port=(int)123".parse().unwrap();
        ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::SECOND, None);
        let jam = Some("2026-02-04T10:53:17.123456+02:00");
        VideoTimeCodeMeta::add(buffer, &time_code(VideoTimeCodeFlags::empty(), jam));
        let meta = raw::custom::add(buffer, CUSTOM_META).unwrap();
        meta.set("value", gst::Fraction::new(1, 3));
        VideoCaptionMeta::add(buffer, VideoCaptionType::Cea608Raw, &[0x94, 0x2c]);
        VideoAFDMeta::add(buffer, 0, VideoAFDSpec::DvbEtsi, VideoAFDValue::GreaterThan169);
        VideoBarMeta::add(buffer, 0, true, 1, 2);
        audio::add_all(buffer);
        network::add_all(buffer);
        video::add_affine_transformation(buffer);
        ancillary::add_sei_user_data(buffer);
        general::add_protection(buffer);
    });
    let mut bytes = Vec::new();
    assert_eq!(encode(&buffer, None, &mut bytes), 0);
    bytes
}
