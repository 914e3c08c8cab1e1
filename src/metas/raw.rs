//! Fields of metas that the bindings take for valid: they panic, or worse, where a program has left them out.

use gst::{
    MetaRef,
    glib::{EnumClass, translate::FromGlib, types::StaticType},
};
use gst_video::{VideoRegionOfInterestMeta, VideoTimeCodeMeta};

/// Whether the region has a kind. In C and Python it may be NULL.
pub(super) fn has_type(region: &MetaRef<VideoRegionOfInterestMeta>) -> bool {
    // SAFETY: the reference is to a valid meta of this type; a plain integer of it is read.
    unsafe { (*region.as_ptr()).roi_type != 0 }
}

/// The time stamp, if it has one.
pub(super) fn timestamp(reference: &MetaRef<gst::ReferenceTimestampMeta>) -> Option<u64> {
    // SAFETY: as above.
    let timestamp = unsafe { (*reference.as_ptr()).timestamp };
    (timestamp != gst::ffi::GST_CLOCK_TIME_NONE).then_some(timestamp)
}

/// Numerator and denominator of the frame rate, which may be 0/0.
pub(super) fn frame_rate(time_code: &MetaRef<VideoTimeCodeMeta>) -> (u32, u32) {
    // SAFETY: as above.
    let config = unsafe { &(*time_code.as_ptr()).tc.config };
    (config.fps_n, config.fps_d)
}

/// The value of an enumeration of GStreamer's that has a number, if one has.
pub(super) fn known<T: StaticType + FromGlib<i32>>(number: u32) -> Option<T> {
    let number = i32::try_from(number).ok()?;
    EnumClass::with_type(T::static_type())?.value(number)?;
    // SAFETY: enumerations of the bindings take any number, and this is one of those that they know.
    Some(unsafe { T::from_glib(number) })
}
