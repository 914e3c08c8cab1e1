// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about the picture.

use super::*;

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

pub(super) fn add_affine_transformation(buffer: &mut gst::BufferRef) {
    let matrix = std::array::from_fn(|number| number as f32 - 0.5);
    raw::video::add_affine_transformation(buffer, matrix).unwrap();
}

#[test]
fn affine_transformation_is_sent() {
    let buffer = transferred(add_affine_transformation);
    let found = meta_of(&buffer, "GstVideoAffineTransformationMeta");
    let expected: [f32; 16] = std::array::from_fn(|number| number as f32 - 0.5);
    assert_eq!(raw::video::affine_matrix(&found), Some(&expected));
}

#[test]
fn transformation_with_infinite_number_is_left_out_and_refused() {
    for odd in [f32::NAN, f32::INFINITY] {
        let (bytes, left_out) = encoded(&buffer(|buffer| {
            raw::video::add_affine_transformation(buffer, [odd; 16]);
        }));
        assert_eq!((bytes, left_out), (vec![], 1));
        let content: Vec<u8> = [1.0, odd].repeat(8).into_iter().flat_map(f32::to_ne_bytes).collect();
        let (buffer, refused) = decoded(&record(kind::AFFINE_TRANSFORMATION, &content));
        assert_eq!((count(&buffer), refused), (0, 1));
    }
}
