// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mark of a buffer for which there was no slot: a meta without content, which never leaves this process.
//!
//! A meta is kept when an element copies a buffer with its metas, so the frame is still known as one without a slot.

use std::{
    ffi::{CStr, c_void},
    sync::LazyLock,
};

use gst::{
    ffi::{GstBuffer, GstMeta, GstMetaInfo},
    glib,
};

/// The name of the meta.
pub(super) const NAME: &str = "RsShmNoSlotMeta";

const C_NAME: &CStr = c"RsShmNoSlotMeta";
const API_NAME: &CStr = c"RsShmNoSlotMetaAPI";

/// The registered meta. Infos are never freed and do not change, so threads may share them.
struct Info(*const GstMetaInfo);

// SAFETY: see `Info`.
unsafe impl Send for Info {}
// SAFETY: see `Info`.
unsafe impl Sync for Info {}

static INFO: LazyLock<Info> = LazyLock::new(|| {
    // SAFETY: the names and functions are valid and live as long as the process. Another copy of this plugin in the
    // process may have registered the meta, and GLib permits this only once.
    unsafe {
        let known = gst::ffi::gst_meta_get_info(C_NAME.as_ptr());
        if !known.is_null() {
            return Info(known);
        }
        let mut tags = [std::ptr::null()];
        let api = gst::ffi::gst_meta_api_type_register(API_NAME.as_ptr(), tags.as_mut_ptr());
        let size = size_of::<GstMeta>();
        Info(gst::ffi::gst_meta_register(
            api,
            C_NAME.as_ptr(),
            size,
            Some(init),
            None,
            Some(transform),
        ))
    }
});

unsafe extern "C" fn init(_: *mut GstMeta, _: *mut c_void, _: *mut GstBuffer) -> glib::ffi::gboolean {
    glib::ffi::GTRUE
}

/// Marks the copy of a marked buffer.
unsafe extern "C" fn transform(
    copy: *mut GstBuffer,
    _: *mut GstMeta,
    _: *mut GstBuffer,
    kind: glib::ffi::GQuark,
    _: *mut c_void,
) -> glib::ffi::gboolean {
    // SAFETY: the text is valid.
    let is_copy = kind == unsafe { glib::ffi::g_quark_try_string(c"gst-copy".as_ptr()) };
    if is_copy {
        // SAFETY: GStreamer calls this function with a buffer that is writable.
        add(unsafe { gst::BufferRef::from_mut_ptr(copy) });
    }
    is_copy.into()
}

/// Marks a buffer.
pub(crate) fn add(buffer: &mut gst::BufferRef) {
    if !INFO.0.is_null() {
        // SAFETY: the buffer is writable, and the info is valid.
        unsafe { gst::ffi::gst_buffer_add_meta(buffer.as_mut_ptr(), INFO.0, std::ptr::null_mut()) };
    }
}

/// Whether a buffer is marked: there was no slot when upstream asked for it.
pub(crate) fn is_on(buffer: &gst::BufferRef) -> bool {
    // This loop looks at all metas, because a search by name uses a global table even if the buffer has no metas.
    buffer.iter_meta::<gst::Meta>().any(|meta| {
        // SAFETY: each meta of a buffer is valid.
        let info = unsafe { (*meta.as_ptr()).info };
        std::ptr::eq(info, INFO.0)
    })
}
