// SPDX-License-Identifier: MIT OR Apache-2.0

use gst_video::VideoFormat;
use proptest::prelude::*;

use gst::prelude::*;

use super::*;
use crate::codec::{
    MAX_NAMES,
    samples::{self, plain_structure},
};

const CUSTOM_META: &str = "RsShmTestMeta";

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        samples::init();
        CustomMeta::register(CUSTOM_META, &[]);
        CustomMeta::register(NO_SLOT_META, &[]);
    });
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

fn decoded(bytes: &[u8]) -> (gst::Buffer, usize) {
    let mut refused = 0;
    let buffer = buffer(|buffer| {
        buffer.append_memory(gst::Memory::from_slice(FRAME));
        refused = Decoder::default().decode(bytes, Some(&info()), buffer);
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

#[test]
fn memories_are_sent_and_share_bytes_of_frame() {
    for sizes in [
        &[12, 20][..],
        &[2; 16],
        &[0, 32],
        &[32, 0],
        &[0, 5, 0, 27, 0],
        &[1, 30, 1],
    ] {
        let mut bytes = Vec::new();
        assert_eq!(encode(&buffer_of_memories(sizes), None, &mut bytes), 0);
        assert_eq!(
            bytes,
            record_of_memories(&sizes.iter().map(|size| *size as u64).collect::<Vec<_>>())
        );
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((check_memories(&buffer), refused), (sizes.to_vec(), 0));
        let address = |memory: &gst::MemoryRef| memory.map_readable().unwrap().as_ptr() as usize;
        let filled: Vec<_> = buffer.iter_memories().filter(|memory| memory.size() > 0).collect();
        for pair in filled.windows(2) {
            assert_eq!(address(pair[0]) + pair[0].size(), address(pair[1]));
        }
    }
}

#[test]
fn single_memory_has_no_record() {
    for sizes in [&[][..], &[0], &[32]] {
        let mut bytes = Vec::new();
        assert_eq!(encode(&buffer_of_memories(sizes), None, &mut bytes), 0);
        assert_eq!(bytes.capacity(), 0);
    }
}

#[test]
fn memories_of_raw_video_are_sent_if_they_are_copied_as_they_are() {
    let sizes = [640 * 400, 640 * 80];
    let mut bytes = Vec::new();
    encode(&buffer_of_memories(&sizes), Some(&info()), &mut bytes);
    assert_eq!(bytes, record_of_memories(&sizes.map(|size| size as u64)));
    let mut with_meta = buffer_of_memories(&sizes);
    let flags = gst_video::VideoFrameFlags::empty();
    VideoMeta::add(with_meta.get_mut().unwrap(), flags, VideoFormat::Gray8, 640, 480).unwrap();
    for buffer in [with_meta, buffer_of_memories(&[640 * 480, 1])] {
        encode(&buffer, Some(&info()), &mut bytes);
        assert_eq!(bytes, []);
    }
}

#[test]
fn invalid_memories_are_refused() {
    let half = 1 << 63;
    for sizes in [
        &[][..],
        &[32],
        &[12, 19],
        &[12, 21],
        &[u64::MAX, 33],
        &[half, half, 32],
        &[33, u64::MAX],
        &[&[2; 15][..], &[1, 1]].concat(),
    ] {
        let (buffer, refused) = decoded(&record_of_memories(sizes));
        assert_eq!((check_memories(&buffer), refused), (vec![32], 1), "{sizes:?}");
    }
    let mut odd = record_of_memories(&[12, 20]);
    odd.extend([0; 4]);
    odd[2] += 4;
    assert_eq!(decoded(&odd).1, 1);
    // The second of two records is refused.
    let (twice, refused) = decoded(&[record_of_memories(&[12, 20]), record_of_memories(&[16, 16])].concat());
    assert_eq!((check_memories(&twice), refused), (vec![12, 20], 1));
    // A record for a buffer without memory is refused.
    let mut empty = buffer(|_| {});
    let record = record_of_memories(&[0, 0]);
    assert_eq!(Decoder::default().decode(&record, None, empty.get_mut().unwrap()), 1);
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

fn add_video_meta(buffer: &mut gst::BufferRef) {
    let flags = gst_video::VideoFrameFlags::empty();
    buffer.append_memory(gst::Memory::with_size(64));
    gst_video::VideoMeta::add(buffer, flags, VideoFormat::Gray8, 8, 8).unwrap();
}

#[test]
fn buffer_without_sendable_metas_has_no_metadata() {
    let mut bytes = Vec::new();
    let buffer = buffer(|buffer| {
        CustomMeta::add(buffer, NO_SLOT_META).unwrap();
        add_video_meta(buffer);
    });
    assert_eq!(encode(&buffer, None, &mut bytes), 0);
    assert_eq!(bytes.capacity(), 0, "nothing is allocated");
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (0, 0));
}

#[test]
fn crop_is_sent() {
    let buffer = transferred(|buffer| {
        VideoCropMeta::add(buffer, (1, 2, 639, 478));
    });
    assert_eq!(buffer.meta::<VideoCropMeta>().unwrap().rect(), (1, 2, 639, 478));
}

#[test]
fn crop_outside_picture_is_left_out_and_refused() {
    for rect in [
        (1, 0, 640, 480),
        (0, 1, 640, 480),
        (u32::MAX, 0, 1, 1),
        (0, 2, 1, u32::MAX),
    ] {
        let buffer = buffer(|buffer| {
            VideoCropMeta::add(buffer, rect);
        });
        assert_eq!(encoded(&buffer), (vec![], 1), "{rect:?}");
        let mut bytes = Vec::new();
        assert_eq!(encode(&buffer, None, &mut bytes), 0);
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((count(&buffer), refused), (0, 1), "{rect:?}");
    }
}

#[test]
fn regions_are_sent_with_their_parameters() {
    let buffer = transferred(|buffer| {
        let mut face = VideoRegionOfInterestMeta::add(buffer, "face of ä", (1, 2, 3, u32::MAX));
        face.set_id(-5);
        face.set_parent_id(i32::MAX);
        face.add_param(plain_structure("detection"));
        face.add_param(structure("roi/x264, delta-qp=(double)-3.5"));
        VideoRegionOfInterestMeta::add(buffer, "car", (5, 6, 7, 8));
    });
    let regions: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().collect();
    assert_eq!(regions.len(), 2);
    let face = &regions[0];
    assert_eq!((face.roi_type(), face.rect()), ("face of ä", (1, 2, 3, u32::MAX)));
    assert_eq!((face.id(), face.parent_id()), (-5, i32::MAX));
    let params: Vec<_> = face.params().map(gst::StructureRef::to_owned).collect();
    assert_eq!(
        params,
        [
            plain_structure("detection"),
            structure("roi/x264, delta-qp=(double)-3.5")
        ]
    );
    assert_eq!((regions[1].roi_type(), regions[1].rect()), ("car", (5, 6, 7, 8)));
    assert_eq!(regions[1].params().count(), 0);
}

#[test]
fn unsupported_parameter_is_left_out_alone() {
    init();
    for value in [
        gst::Buffer::from_slice([1u8; 9]).to_send_value(),
        gst::Structure::new_empty("inner").to_send_value(),
        gst::IntRange::new(1, 5).to_send_value(),
        gst::List::new([gst::Caps::new_any()]).to_send_value(),
        gst::BufferFlags::DISCONT.to_send_value(),
        [1u8, 2].to_variant().to_send_value(),
        "x".repeat(MAX_METADATA_SIZE).to_send_value(),
    ] {
        let what = format!("{value:?}");
        let (bytes, left_out) = encoded(&buffer(|buffer| {
            let mut region = VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4));
            let mut odd = gst::Structure::new_empty("odd");
            odd.set_value("value", value);
            region.add_param(odd);
            region.add_param(structure("good, x=(int)1"));
        }));
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((left_out, refused), (1, 0), "{what}");
        let region = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
        let names: Vec<_> = region.params().map(|param| param.name().to_string()).collect();
        assert_eq!(names, ["good"], "{what}");
    }
}

#[test]
fn reference_timestamps_are_sent() {
    let ntp = "timestamp/x-ntp, host=(string)\"time of.example\", port=(int)123";
    let buffer = transferred(|buffer| {
        let caps = ntp.parse().unwrap();
        ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::from_nseconds(u64::MAX - 1), None);
        let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
        ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::ZERO, gst::ClockTime::SECOND);
    });
    let times: Vec<_> = buffer.iter_meta::<ReferenceTimestampMeta>().collect();
    assert_eq!(times.len(), 2);
    assert_eq!(*times[0].reference(), *ntp.parse::<gst::Caps>().unwrap());
    assert_eq!(
        (times[0].timestamp().nseconds(), times[0].duration()),
        (u64::MAX - 1, None)
    );
    assert_eq!(*times[1].reference(), *gst::Caps::new_empty_simple("timestamp/x-unix"));
    assert_eq!(
        (times[1].timestamp(), times[1].duration()),
        (gst::ClockTime::ZERO, Some(gst::ClockTime::SECOND))
    );
}

#[test]
fn timestamp_with_invalid_reference_is_left_out() {
    for caps in [
        "ANY",
        "EMPTY",
        "timestamp/x-ntp, port=(int)[1, 5]",
        "a/b; c/d",
        "a/b(memory:GLMemory)",
    ] {
        let (bytes, left_out) = encoded(&buffer(|buffer| {
            ReferenceTimestampMeta::add(buffer, &caps.parse().unwrap(), gst::ClockTime::ZERO, None);
        }));
        assert_eq!((bytes, left_out), (vec![], 1), "{caps}");
    }
}

/// Programs in C and Python can leave out fields that the bindings assume to be valid.
#[test]
fn incomplete_metas_do_not_panic() {
    let (bytes, left_out) = encoded(&buffer(|buffer| {
        // SAFETY: the buffer is writable, and the C function accepts a NULL type.
        unsafe {
            let pointer = buffer.as_mut_ptr();
            gst_video::ffi::gst_buffer_add_video_region_of_interest_meta(pointer, std::ptr::null(), 1, 2, 3, 4);
        }
        let caps = gst::Caps::new_empty_simple("timestamp/x-ntp");
        let meta = ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::ZERO, None);
        // SAFETY: the meta belongs to this test, and nothing else uses it.
        unsafe { (*meta.as_ptr().cast_mut()).timestamp = gst::ffi::GST_CLOCK_TIME_NONE };
    }));
    assert_eq!(left_out, 1);
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (1, 0));
    let region = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
    assert_eq!((region.roi_type(), region.rect()), ("", (1, 2, 3, 4)));
}

#[test]
fn time_codes_are_sent() {
    let drop_frame = VideoTimeCodeFlags::DROP_FRAME | VideoTimeCodeFlags::INTERLACED;
    let jam = "2026-02-04T10:53:17.123456+02:00";
    for (flags, jam) in [(drop_frame, Some(jam)), (VideoTimeCodeFlags::empty(), None)] {
        let buffer = transferred(|buffer| {
            VideoTimeCodeMeta::add(buffer, &time_code(flags, jam));
        });
        let code = buffer.meta::<VideoTimeCodeMeta>().unwrap().tc();
        assert_eq!((code.fps(), code.flags()), (gst::Fraction::new(30000, 1001), flags));
        assert_eq!((code.hours(), code.minutes(), code.seconds()), (23, 59, 58));
        assert_eq!((code.frames(), code.field_count()), (29, 2));
        let expected = time_code(flags, jam).latest_daily_jam();
        assert_eq!(code.latest_daily_jam(), expected);
        let offset = |time: Option<gst::glib::DateTime>| time.map(|time| (time.utc_offset(), time.microsecond()));
        assert_eq!(offset(code.latest_daily_jam()), offset(expected));
    }
}

#[test]
fn captions_are_sent() {
    // A field of CEA-608, and a CDP of CEA-708. Their content does not matter here.
    let captions: [(VideoCaptionType, &[u8]); 2] = [
        (VideoCaptionType::Cea608S3341a, &[0x80, 0x94, 0x2c]),
        (VideoCaptionType::Cea708Cdp, &[0x96; 256]),
    ];
    let buffer = transferred(|buffer| {
        for (kind, data) in captions {
            VideoCaptionMeta::add(buffer, kind, data);
        }
    });
    let found: Vec<_> = buffer.iter_meta::<VideoCaptionMeta>().collect();
    let found: Vec<_> = found.iter().map(|meta| (meta.caption_type(), meta.data())).collect();
    assert_eq!(found, captions);
}

#[test]
fn active_formats_and_bars_are_sent() {
    let buffer = transferred(|buffer| {
        VideoAFDMeta::add(buffer, 1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter149Center);
        VideoBarMeta::add(buffer, 0, true, u32::MAX, 1000);
        VideoBarMeta::add(buffer, 1, false, 3, 4);
    });
    let format = buffer.meta::<VideoAFDMeta>().unwrap();
    assert_eq!(
        (format.field(), format.spec(), format.afd()),
        (1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter149Center)
    );
    let bars: Vec<_> = buffer.iter_meta::<VideoBarMeta>().collect();
    let bars: Vec<_> = bars
        .iter()
        .map(|bar| (bar.field(), bar.is_letterbox(), bar.bar_data1(), bar.bar_data2()))
        .collect();
    assert_eq!(bars, [(0, true, u32::MAX, 1000), (1, false, 3, 4)]);
}

/// GStreamer returns NULL for these values, and the bindings would take the NULL for a meta.
#[test]
fn invalid_captions_formats_and_bars_are_refused() {
    for (kind, numbers) in [
        (kind::CAPTION, [0, 7, 7]),
        (kind::CAPTION, [5, 7, 7]),
        (kind::CAPTION, [u32::MAX, 7, 7]),
        (kind::ACTIVE_FORMAT, [2, 1, 4]),
        (kind::ACTIVE_FORMAT, [0, 3, 4]),
        (kind::ACTIVE_FORMAT, [0, 0, 0]),
        (kind::ACTIVE_FORMAT, [0, 1, 12]),
        (kind::ACTIVE_FORMAT, [0, 1, 0x104]),
        (kind::BARS, [0, 1, 2]),
    ] {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind);
        put_numbers(&mut bytes, &numbers);
        bytes[2..4].copy_from_slice(&12u16.to_ne_bytes());
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((count(&buffer), refused), (0, 1), "{kind} {numbers:?}");
    }
    let (buffer, refused) = decoded(&[6, 0, 4, 0, 1, 0, 0, 0]);
    assert_eq!((count(&buffer), refused), (0, 1), "an empty caption");
}

#[test]
fn crop_of_field_must_lie_in_field() {
    init();
    let whole = VideoInfo::builder(VideoFormat::Gray8, 640, 480);
    let fields = whole
        .interlace_mode(gst_video::VideoInterlaceMode::Alternate)
        .build()
        .unwrap();
    for (height, left_out) in [(240, 0), (241, 1)] {
        let buffer = buffer(|buffer| {
            VideoCropMeta::add(buffer, (0, 0, 640, height));
        });
        assert_eq!(encode(&buffer, Some(&fields), &mut Vec::new()), left_out);
    }
}

#[test]
fn registered_custom_metas_are_sent() {
    let buffer = transferred(|buffer| {
        let mut meta = CustomMeta::add(buffer, CUSTOM_META).unwrap();
        for (field, value) in plain_structure("x").iter() {
            meta.mut_structure().set_value(field, value.clone());
        }
        CustomMeta::add(buffer, NO_SLOT_META).unwrap();
    });
    assert_eq!(count(&buffer), 1);
    let meta = CustomMeta::from_buffer(&buffer, CUSTOM_META).unwrap();
    assert_eq!(*meta.structure(), *plain_structure(CUSTOM_META));
}

#[test]
fn decoder_registers_no_metas_and_adds_custom_ones_only() {
    buffer(add_video_meta);
    // The second name is that of a GStreamer meta, which is no custom meta. A meta with the last name must not come
    // from another process.
    for (name, refused) in [
        ("RsShmNobodyKnowsMe", 0),
        ("GstVideoMeta", 1),
        ("", 1),
        (NO_SLOT_META, 1),
    ] {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind::CUSTOM);
        put_text(&mut bytes, name).unwrap();
        put_text(&mut bytes, "x, y=(int)1").unwrap();
        let size = bytes.len() as u16 - 4;
        bytes[2..4].copy_from_slice(&size.to_ne_bytes());
        let (buffer, got) = decoded(&bytes);
        assert_eq!((count(&buffer), got), (0, refused), "{name}");
    }
    assert!(!CustomMeta::is_registered("RsShmNobodyKnowsMe"));
}

#[test]
fn only_meta_that_does_not_fit_is_left_out() {
    let (bytes, left_out) = encoded(&buffer(|buffer| {
        for size in [2000, 3000, 1000] {
            let mut meta = VideoRegionOfInterestMeta::add(buffer, "face", (0, 0, 1, 1));
            meta.set_id(size);
            meta.add_param(
                gst::Structure::builder("x")
                    .field("text", "x".repeat(size as usize))
                    .build(),
            );
        }
        VideoCropMeta::add(buffer, (0, 0, 640, 480));
    }));
    assert_eq!(left_out, 1);
    let (buffer, _) = decoded(&bytes);
    let regions: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().collect();
    // The second region arrives without its parameter.
    let found: Vec<_> = regions.iter().map(|meta| (meta.id(), meta.params().count())).collect();
    assert_eq!(found, [(2000, 1), (3000, 0), (1000, 1)]);
    assert!(buffer.meta::<VideoCropMeta>().is_some());

    let (bytes, left_out) = encoded(&buffer_of_crops(500));
    let (buffer, refused) = decoded(&bytes);
    assert_eq!(
        (count(&buffer), left_out, refused),
        (MAX_RECORDS, 500 - MAX_RECORDS as u64, 0)
    );
    // The decoder does not read more than `MAX_RECORDS` records either.
    let (buffer, refused) = decoded(&[&bytes[..], &bytes[..]].concat());
    assert_eq!((count(&buffer), refused), (MAX_RECORDS, 1));
}

fn buffer_of_crops(crops: u32) -> gst::Buffer {
    buffer(|buffer| {
        for _ in 0..crops {
            VideoCropMeta::add(buffer, (0, 0, 1, 1));
        }
    })
}

#[test]
fn writer_cannot_fill_memory_of_reader_with_names() {
    let mut decoder = Decoder::default();
    let mut refused = 0;
    for number in 0..MAX_NAMES + 10 {
        let (bytes, _) = encoded(&buffer(|buffer| {
            VideoRegionOfInterestMeta::add(buffer, &format!("name {number}"), (0, 0, 1, 1));
        }));
        buffer(|buffer| refused += decoder.decode(&bytes, None, buffer));
    }
    assert_eq!(refused, 10);
    assert_eq!(decoder.names.len(), MAX_NAMES);
}

#[test]
fn decoder_skips_records_of_unknown_kind() {
    let (crop, _) = encoded(&buffer_of_crops(1));
    let mut bytes = Vec::new();
    begin(&mut bytes, 999);
    bytes[2..4].copy_from_slice(&3u16.to_ne_bytes());
    bytes.extend([1, 2, 3]);
    bytes.extend(crop);
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (1, 0));
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
        let mut meta = CustomMeta::add(buffer, CUSTOM_META).unwrap();
        meta.mut_structure().set("value", gst::Fraction::new(1, 3));
        VideoCaptionMeta::add(buffer, VideoCaptionType::Cea608Raw, &[0x94, 0x2c]);
        VideoAFDMeta::add(buffer, 0, VideoAFDSpec::DvbEtsi, VideoAFDValue::GreaterThan169);
        VideoBarMeta::add(buffer, 0, true, 1, 2);
    });
    let mut bytes = Vec::new();
    assert_eq!(encode(&buffer, None, &mut bytes), 0);
    bytes
}

#[test]
fn truncated_bytes_are_decoded_up_to_their_end() {
    let bytes = all();
    let mut last = 0;
    for end in 0..=bytes.len() {
        let (buffer, refused) = decoded(&bytes[..end]);
        assert!(refused <= 1 && count(&buffer) >= last);
        last = count(&buffer);
    }
    assert_eq!(last, 8);
    assert_eq!(check_memories(&decoded(&bytes).0), [12, 20]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoder_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..MAX_METADATA_SIZE)) {
        decoded(&bytes);
    }

    /// Nearly all of the records have a known kind. Their content is random.
    #[test]
    fn decoder_survives_any_records(
        records in prop::collection::vec((0u16..10, prop::collection::vec(any::<u8>(), 0..100)), 0..20),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in records {
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((payload.len() as u16).to_ne_bytes());
            bytes.extend(payload);
        }
        decoded(&bytes);
    }

    #[test]
    fn any_memories_are_sent(cuts in prop::collection::vec(0..=32_usize, 1..16)) {
        let mut cuts = [cuts, vec![0, 32]].concat();
        cuts.sort_unstable();
        cuts.truncate(17);
        *cuts.last_mut().unwrap() = 32;
        let sizes: Vec<usize> = cuts.windows(2).map(|cuts| cuts[1] - cuts[0]).collect();
        let mut bytes = Vec::new();
        encode(&buffer_of_memories(&sizes), None, &mut bytes);
        let (buffer, refused) = decoded(&bytes);
        prop_assert_eq!((check_memories(&buffer), refused), (sizes, 0));
    }

    #[test]
    fn decoder_survives_any_memories(sizes in prop::collection::vec(prop_oneof![0..40_u64, any::<u64>()], 0..20)) {
        let (buffer, refused) = decoded(&record_of_memories(&sizes));
        let is_valid = (2..=16).contains(&sizes.len()) && sizes.iter().map(|size| u128::from(*size)).sum::<u128>() == 32;
        prop_assert_eq!(refused, usize::from(!is_valid));
        prop_assert_eq!(buffer.n_memory(), if is_valid { sizes.len() } else { 1 });
    }

    #[test]
    fn decoder_survives_mutated_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = all();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        decoded(&bytes);
    }

    /// The texts look like structures, because only such texts can reach GStreamer's own parser.
    #[test]
    fn decoder_survives_any_text(
        text in r#"[a-c/]{1,3}(, [a-c]=(\((int|uint|gint64|guint64|float|double|string|fraction|bitmask|boolean|guchar|GstCaps|structure)\))?[{<\[( ]?(-?[0-9]{1,12}(/-?[0-9]{1,11})?|0x[0-9a-f]{1,20}|[ -~]{0,12}|"[ -~]{0,12}"|min|max|NULL|nan)[}>\]) ]?){0,4};?"#,
    ) {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind::REFERENCE_TIMESTAMP);
        bytes.extend([0; 16]);
        put_text(&mut bytes, &text).unwrap();
        let size = bytes.len() as u16 - 4;
        bytes[2..4].copy_from_slice(&size.to_ne_bytes());
        decoded(&bytes);
    }

    #[test]
    fn any_region_is_sent(
        rect in any::<(u32, u32, u32, u32)>(), ids in any::<(i32, i32)>(),
        name in "[^\0]{1,30}", key in "[a-z][a-z0-9-]{0,20}", text in "[^\0]{0,100}", number in any::<f64>(),
    ) {
        let param = || gst::Structure::builder("param").field(&key, &text).field("number-", number).build();
        let buffer = transferred(|buffer| {
            let mut region = VideoRegionOfInterestMeta::add(buffer, &name, rect);
            region.set_id(ids.0);
            region.set_parent_id(ids.1);
            region.add_param(param());
        });
        let region = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
        prop_assert_eq!((region.rect(), (region.id(), region.parent_id()), region.roi_type()), (rect, ids, name.as_str()));
        let got = region.params().next().unwrap();
        prop_assert_eq!(got.get::<String>(&key).unwrap(), text);
        let got = got.get::<f64>("number-").unwrap();
        prop_assert!(got == number || (got.is_nan() && number.is_nan()));
    }
}
