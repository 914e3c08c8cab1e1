// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads fields of metas that the bindings assume to be valid. Programs in C and Python can leave these fields out. The
//! bindings would then panic or worse.

use gst::{
    MetaRef,
    glib::{EnumClass, translate::FromGlib, types::StaticType},
};
use gst_video::{VideoRegionOfInterestMeta, VideoTimeCodeMeta};

/// Whether the region has a type. In C and Python, the type may be NULL.
pub(super) fn has_type(region: &MetaRef<VideoRegionOfInterestMeta>) -> bool {
    // SAFETY: the reference is to a valid meta of this type, and the field is a plain integer.
    unsafe { (*region.as_ptr()).roi_type != 0 }
}

/// The timestamp, if the meta has one.
pub(super) fn timestamp(reference: &MetaRef<gst::ReferenceTimestampMeta>) -> Option<u64> {
    // SAFETY: the reference is to a valid meta of this type, and the field is a plain integer.
    let timestamp = unsafe { (*reference.as_ptr()).timestamp };
    (timestamp != gst::ffi::GST_CLOCK_TIME_NONE).then_some(timestamp)
}

/// The numerator and denominator of the frame rate, which may be 0/0.
pub(super) fn frame_rate(time_code: &MetaRef<VideoTimeCodeMeta>) -> (u32, u32) {
    // SAFETY: the reference is to a valid meta of this type, which outlives this borrow; the fields are plain integers.
    let config = unsafe { &(*time_code.as_ptr()).tc.config };
    (config.fps_n, config.fps_d)
}

/// The value that has this number in a GStreamer enumeration, if there is one.
pub(super) fn known<T: StaticType + FromGlib<i32>>(number: u32) -> Option<T> {
    let number = i32::try_from(number).ok()?;
    EnumClass::with_type(T::static_type())?.value(number)?;
    // SAFETY: the enumerations of the bindings accept any number, and this number is a value of the enumeration.
    Some(unsafe { T::from_glib(number) })
}
