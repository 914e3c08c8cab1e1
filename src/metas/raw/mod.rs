// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures and functions of C that metas need and the bindings do not have.
//!
//! The functions here also read fields that the bindings assume to be valid. Programs in C and Python can leave these
//! fields out. The bindings would then panic or worse.

pub(super) mod analytics;
pub(super) mod audio;
pub(super) mod custom;
pub(super) mod network;
pub(super) mod serialize;
pub(super) mod video;

use std::ffi::CString;

use gst::{
    MetaRef, ReferenceTimestampMeta,
    ffi::GstMetaInfo,
    glib::{
        EnumClass,
        translate::{FromGlib, IntoGlibPtr},
        types::StaticType,
    },
    meta::Standalone,
};
use gst_video::{VideoRegionOfInterestMeta, VideoTimeCodeMeta};

/// The info of registered metas of this name.
fn info(name: &str) -> Option<*const GstMetaInfo> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is valid.
    let info = unsafe { gst::ffi::gst_meta_get_info(name.as_ptr()) };
    (!info.is_null()).then_some(info)
}

/// Whether metas of this name are registered, custom or not.
pub(super) fn is_registered(name: &str) -> bool {
    info(name).is_some()
}

/// The C structure of a meta; `None` if the meta is too small for it.
///
/// # Safety
///
/// Metas whose type has this meta's name must have the structure `T`.
unsafe fn fields<'a, T>(meta: &'a MetaRef<gst::Meta>) -> Option<&'a T> {
    let meta: *const gst::ffi::GstMeta = meta.as_ptr();
    // SAFETY: the reference is to a valid meta, and each meta has a valid info.
    let size = unsafe { (*(*meta).info).size };
    // SAFETY: the caller vouches for the type, and the meta is at least as large.
    (size >= size_of::<T>()).then(|| unsafe { &*meta.cast() })
}

/// The `count` values that `data` points to; `None` if it is NULL and values are expected.
///
/// # Safety
///
/// If `data` is not NULL, it must point to this many values, which do not change for the lifetime of the slice.
unsafe fn values<'a, T>(data: *const T, count: usize) -> Option<&'a [T]> {
    match (data.is_null(), count) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: the caller vouches for the pointer.
        (false, _) => Some(unsafe { std::slice::from_raw_parts(data, count) }),
    }
}

/// Whether the region has a type. In C and Python, the type may be NULL.
pub(super) fn has_type(region: &MetaRef<VideoRegionOfInterestMeta>) -> bool {
    // SAFETY: the reference is to a valid meta of this type, and the field is a plain integer.
    unsafe { (*region.as_ptr()).roi_type != 0 }
}

/// The timestamp, if the meta has one.
pub(super) fn timestamp(reference: &MetaRef<ReferenceTimestampMeta>) -> Option<u64> {
    // SAFETY: the reference is to a valid meta of this type, and the field is a plain integer.
    let timestamp = unsafe { (*reference.as_ptr()).timestamp };
    (timestamp != gst::ffi::GST_CLOCK_TIME_NONE).then_some(timestamp)
}

/// Whether a GstReferenceTimestampMeta has the field `info`, which is the last one. GStreamer before 1.28 does not have
/// it.
fn has_reference_info(meta: *const gst::ffi::GstReferenceTimestampMeta) -> bool {
    // SAFETY: the callers have a reference to the meta, and each meta has a valid info.
    let size = unsafe { (*(*meta).parent.info).size };
    size >= size_of::<gst::ffi::GstReferenceTimestampMeta>()
}

/// The additional information about the timestamp, if there is any.
pub(super) fn reference_info<'a>(reference: &'a MetaRef<ReferenceTimestampMeta>) -> Option<&'a gst::StructureRef> {
    if !has_reference_info(reference.as_ptr()) {
        return None;
    }
    // SAFETY: the reference is to a valid meta of this type, which has the field.
    let info = unsafe { (*reference.as_ptr()).info };
    // SAFETY: the meta owns the structure, and outlives the reference.
    (!info.is_null()).then(|| unsafe { gst::StructureRef::from_glib_borrow(info) })
}

/// Sets the additional information about the timestamp. Without the field, there is no place for it.
pub(super) fn set_reference_info(
    mut reference: gst::MetaRefMut<ReferenceTimestampMeta, Standalone>,
    info: gst::Structure,
) {
    if has_reference_info(reference.as_ptr()) {
        // SAFETY: the meta was just added, so its field is NULL, and the meta takes the structure.
        unsafe { (*reference.as_mut_ptr()).info = info.into_glib_ptr() };
    }
}

/// The numerator and denominator of the frame rate, which may be 0/0.
pub(super) fn frame_rate(time_code: &MetaRef<VideoTimeCodeMeta>) -> (u32, u32) {
    // SAFETY: the reference is to a valid meta of this type, which outlives this borrow; the fields are plain integers.
    let config = unsafe { &(*time_code.as_ptr()).tc.config };
    (config.fps_n, config.fps_d)
}

/// The structure of a GstProtectionMeta, if it has one.
pub(super) fn protection<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<&'a gst::StructureRef> {
    // SAFETY: metas of this name have this structure.
    let info = unsafe { fields::<gst::ffi::GstProtectionMeta>(meta)? }.info;
    // SAFETY: the meta owns the structure, and outlives the reference.
    (!info.is_null()).then(|| unsafe { gst::StructureRef::from_glib_borrow(info) })
}

pub(super) fn add_protection(buffer: &mut gst::BufferRef, info: gst::Structure) {
    // SAFETY: the buffer is writable, and the meta takes the structure.
    unsafe { gst::ffi::gst_buffer_add_protection_meta(buffer.as_mut_ptr(), info.into_glib_ptr()) };
}

/// The value that has this number in a GStreamer enumeration, if there is one.
pub(super) fn known<T: StaticType + FromGlib<i32>>(number: u32) -> Option<T> {
    let number = i32::try_from(number).ok().filter(|number| is_known::<T>(*number))?;
    // SAFETY: the enumerations of the bindings accept any number, and this number is a value of the enumeration.
    Some(unsafe { T::from_glib(number) })
}

/// Whether this number is a value of a GStreamer enumeration.
pub(super) fn is_known<T: StaticType>(number: i32) -> bool {
    EnumClass::with_type(T::static_type()).is_some_and(|values| values.value(number).is_some())
}
