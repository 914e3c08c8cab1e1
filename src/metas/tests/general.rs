// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of the core library.

use super::*;

fn add_video_meta(buffer: &mut gst::BufferRef) {
    let flags = gst_video::VideoFrameFlags::empty();
    buffer.append_memory(gst::Memory::with_size(64));
    gst_video::VideoMeta::add(buffer, flags, VideoFormat::Gray8, 8, 8).unwrap();
}

#[test]
fn buffer_without_sendable_metas_has_no_metadata() {
    let mut bytes = Vec::new();
    let buffer = buffer(|buffer| {
        no_slot::add(buffer);
        add_video_meta(buffer);
    });
    assert_eq!(encode(&buffer, Some(&info()), &mut bytes), 0);
    assert_eq!(bytes.capacity(), 0, "nothing is allocated");
    // Only raw video has a layout of planes.
    assert_eq!(encode(&buffer, None, &mut bytes), 1);
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (0, 0));
}

#[test]
fn copy_of_buffer_without_slot_is_marked_too() {
    let marked = buffer(no_slot::add);
    let of_region = buffer(|buffer| {
        VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4));
    });
    assert!(no_slot::is_on(&marked) && no_slot::is_on(&marked.copy()));
    assert!(!no_slot::is_on(&of_region) && !no_slot::is_on(&of_region.copy()));
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

#[test]
fn registered_custom_metas_are_sent() {
    let buffer = transferred(|buffer| {
        let meta = raw::custom::add(buffer, CUSTOM_META).unwrap();
        for (field, value) in plain_structure("x").iter() {
            meta.set_value(field, value.clone());
        }
        no_slot::add(buffer);
    });
    assert_eq!(count(&buffer), 1);
    let meta = meta_of(&buffer, CUSTOM_META);
    assert_eq!(raw::custom::structure(&meta).unwrap(), &*plain_structure(CUSTOM_META));
}

#[test]
fn decoder_registers_no_metas_and_adds_custom_ones_only() {
    buffer(add_video_meta);
    buffer(no_slot::add);
    // The second name is that of a GStreamer meta, which is no custom meta. A meta with the last name must not come
    // from another process.
    for (name, refused) in [
        ("RsShmNobodyKnowsMe", 0),
        ("GstVideoMeta", 1),
        ("", 1),
        (no_slot::NAME, 1),
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
    assert!(!raw::is_registered("RsShmNobodyKnowsMe"));
}

fn protection_info() -> gst::Structure {
    gst::Structure::builder("application/x-cenc")
        .field("iv_size", 8_u32)
        .field("encrypted", true)
        .field("kid", gst::Buffer::from_slice([0xab_u8; 16]))
        .field("iv", gst::Buffer::from_slice([0_u8, 1, 2, 3, 4, 5, 6, 255]))
        .field("subsample_count", 2_u32)
        .field("subsamples", gst::Buffer::from_slice([9_u8; 12]))
        .field("cipher-mode", "cenc")
        .build()
}

pub(super) fn add_protection(buffer: &mut gst::BufferRef) {
    raw::add_protection(buffer, protection_info());
}

#[test]
fn protection_is_sent_with_its_buffers() {
    let buffer = transferred(add_protection);
    let meta = meta_of(&buffer, "GstProtectionMeta");
    assert_eq!(
        raw::protection(&meta).unwrap().to_string(),
        protection_info().to_string()
    );
}

#[test]
fn protection_with_other_values_is_left_out() {
    init();
    let large = gst::Buffer::from_slice(vec![0_u8; 3000]);
    for value in [large.to_send_value(), gst::Structure::new_empty("x").to_send_value()] {
        let mut info = gst::Structure::new_empty("application/x-cenc");
        info.set_value("value", value);
        let (bytes, left_out) = encoded(&buffer(|buffer| raw::add_protection(buffer, info)));
        assert_eq!((bytes, left_out), (vec![], 1));
    }
    for text in [
        "x, a=(GstCaps)x/y",
        "x, a=(buffer)0",
        "x, a=(buffer)zz",
        "x, a=(sample)00",
    ] {
        let mut content = Vec::new();
        put_text(&mut content, text).unwrap();
        assert_eq!(decoded(&record(kind::PROTECTION, &content)).1, 1, "{text}");
    }
}

/// Before GStreamer 1.28, the meta has no place for the information.
#[test]
fn information_about_timestamp_is_sent_if_gstreamer_has_it() {
    init();
    let info = || structure("clock, leap-seconds=(int)37");
    let caps = gst::Caps::new_empty_simple("timestamp/x-ptp");
    let buffer = transferred(|buffer| {
        let meta = ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::SECOND, None);
        raw::set_reference_info(meta, info());
    });
    let meta = buffer.meta::<ReferenceTimestampMeta>().unwrap();
    let found = raw::reference_info(&meta).map(gst::StructureRef::to_owned);
    assert_eq!(found, (gst::version() >= (1, 27, 0, 0)).then(info));
    // A reader without this field still takes the timestamp.
    let mut content = [1_u64.to_ne_bytes(), u64::MAX.to_ne_bytes()].concat();
    put_text(&mut content, "timestamp/x-ptp").unwrap();
    put_text(&mut content, "clock, leap-seconds=(int)37").unwrap();
    let (buffer, refused) = decoded(&record(kind::REFERENCE_TIMESTAMP, &content));
    assert_eq!((count(&buffer), refused), (1, 0));
}

#[test]
fn metas_of_one_process_are_not_counted() {
    let buffer = buffer(|buffer| {
        gst::ParentBufferMeta::add(buffer, &gst::Buffer::new());
    });
    assert_eq!(encoded(&buffer), (vec![], 0));
}

#[test]
fn meta_of_unknown_type_is_left_out_by_name() {
    let buffer = buffer(|buffer| {
        let composition = overlay();
        gst_video::VideoOverlayCompositionMeta::add(buffer, &composition);
        gst_video::VideoOverlayCompositionMeta::add(buffer, &composition);
    });
    let left_out = super::super::encode(&buffer, Format::default(), &mut Vec::new());
    let missing: Vec<_> = left_out.iter().map(|missing| (&*missing.name, missing.count)).collect();
    assert_eq!(missing, [("GstVideoOverlayCompositionMeta", 2)]);
}

fn overlay() -> gst_video::VideoOverlayComposition {
    let mut pixels = gst::Buffer::from_slice([0_u8; 16]);
    let flags = gst_video::VideoFrameFlags::empty();
    VideoMeta::add(pixels.get_mut().unwrap(), flags, VideoFormat::Bgra, 2, 2).unwrap();
    let flags = gst_video::VideoOverlayFormatFlags::empty();
    let rectangle = gst_video::VideoOverlayRectangle::new_raw(&pixels, 0, 0, 2, 2, flags);
    gst_video::VideoOverlayComposition::new(Some(&rectangle)).unwrap()
}
