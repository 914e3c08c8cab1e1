// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of other libraries that GStreamer itself can turn into bytes.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::Once,
};

use gst::{
    ffi::{GstBuffer, GstByteArrayInterface, GstMeta, GstMetaInfo},
    glib::ffi::{GTRUE, GType, gboolean},
};

use super::*;
use crate::library;

const NAME: &str = "RsShmForeignMeta";
const C_NAME: &CStr = c"RsShmForeignMeta";

unsafe extern "C" fn init_meta(_: *mut GstMeta, _: *mut c_void, _: *mut GstBuffer) -> gboolean {
    GTRUE
}

/// The bytes of the meta are only the head that GStreamer writes.
unsafe extern "C" fn serialize(_: *const GstMeta, _: *mut GstByteArrayInterface, _: *mut u8) -> gboolean {
    GTRUE
}

unsafe extern "C" fn deserialize(
    info: *const GstMetaInfo,
    buffer: *mut GstBuffer,
    _: *const u8,
    _: usize,
    _: u8,
) -> *mut GstMeta {
    // SAFETY: GStreamer calls this function with valid arguments.
    unsafe { gst::ffi::gst_buffer_add_meta(buffer, info, ptr::null_mut()) }
}

/// Registers a meta as a library does. From GStreamer 1.24 on, the meta has functions that make bytes of it.
fn register_foreign() {
    type New = unsafe extern "C" fn(GType, *const c_char, usize) -> *mut GstMetaInfo;
    type Register = unsafe extern "C" fn(*mut GstMetaInfo) -> *const GstMetaInfo;
    static ONCE: Once = Once::new();
    init();
    // SAFETY: the types are those of the functions, and all arguments are valid.
    ONCE.call_once(|| unsafe {
        let api = gst::ffi::gst_meta_api_type_register(c"RsShmForeignMetaAPI".as_ptr(), [ptr::null()].as_mut_ptr());
        let size = size_of::<GstMeta>();
        let new = library::function::<New>(library::CORE, c"gst_meta_info_new");
        let register = library::function::<Register>(library::CORE, c"gst_meta_info_register");
        if let Some((new, register)) = new.zip(register) {
            let info = new(api, C_NAME.as_ptr(), size);
            (*info).init_func = Some(init_meta);
            (*info).serialize_func = Some(serialize);
            (*info).deserialize_func = Some(deserialize);
            register(info);
        } else {
            gst::ffi::gst_meta_register(api, C_NAME.as_ptr(), size, Some(init_meta), None, None);
        }
    });
}

fn add_foreign(buffer: &mut gst::BufferRef) {
    register_foreign();
    // SAFETY: the buffer is writable, and the meta is registered.
    let meta = unsafe {
        let info = gst::ffi::gst_meta_get_info(C_NAME.as_ptr());
        gst::ffi::gst_buffer_add_meta(buffer.as_mut_ptr(), info, ptr::null_mut())
    };
    assert!(!meta.is_null());
}

/// Before GStreamer 1.24, such metas are left out, and readers skip their records.
#[test]
fn metas_of_other_libraries_are_sent_if_gstreamer_makes_bytes_of_them() {
    let (bytes, left_out) = encoded(&buffer(add_foreign));
    let is_sent = gst::version() >= (1, 24, 0, 0);
    assert_eq!(left_out, u64::from(!is_sent));
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (usize::from(is_sent), 0));
    if is_sent {
        meta_of(&buffer, NAME);
        assert_eq!(bytes, record(kind::SERIALIZED, &serialized(NAME, NAME)));
    }
    let unknown = u64::from(!is_sent);
    assert_eq!(
        skipped(&record(kind::SERIALIZED, &serialized(NAME, NAME))),
        Skipped { refused: 0, unknown }
    );
}

/// GStreamer's own functions trust the bytes of these metas, so they must not get in as serialized metas.
#[test]
fn serialized_metas_of_gstreamer_are_refused() {
    init();
    for name in [
        "GstVideoMeta",
        "GstAudioMeta",
        "GstReferenceTimestampMeta",
        "GstVideoCaptionMeta",
        CUSTOM_META,
        "",
    ] {
        assert_eq!(
            skipped(&record(kind::SERIALIZED, &serialized(name, name))).refused,
            1,
            "{name}"
        );
    }
    assert_eq!(
        skipped(&record(kind::SERIALIZED, &serialized("Other", "GstAudioMeta"))).refused,
        1
    );
    let unknown = skipped(&record(kind::SERIALIZED, &serialized("Nobody", "Nobody")));
    assert_eq!(unknown, Skipped { refused: 0, unknown: 1 });
}

/// The content of a record that says it has a meta `name`, while the bytes for GStreamer say `inner`.
fn serialized(name: &str, inner: &str) -> Vec<u8> {
    let mut content = Vec::new();
    put_text(&mut content, name).unwrap();
    content.extend((8 + inner.len() as u32 + 2).to_le_bytes());
    content.extend((inner.len() as u32).to_le_bytes());
    content.extend(inner.as_bytes());
    content.extend([0, 0]);
    content
}
