// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parts of GStreamer that are newer than the version for which the bindings are built. The plugin finds them at run
//! time; the tests are linked with them.

use std::ffi::{CString, c_char, c_void};

use gst::{
    event,
    ffi::{GstBuffer, GstEvent, GstMetaInfo, GstStructure},
    glib::{self, translate::*},
};

unsafe extern "C" {
    fn gst_meta_register_custom(
        name: *const c_char,
        tags: *mut *const c_char,
        transform: *const c_void,
        data: *const c_void,
        free: *const c_void,
    ) -> *const GstMetaInfo;
    fn gst_buffer_add_custom_meta(buffer: *mut GstBuffer, name: *const c_char) -> *mut c_void;
    fn gst_buffer_get_custom_meta(buffer: *mut GstBuffer, name: *const c_char) -> *mut c_void;
    fn gst_custom_meta_get_structure(meta: *mut c_void) -> *mut GstStructure;
    fn gst_event_parse_gap_flags(event: *mut GstEvent, flags: *mut u32);
    fn gst_event_set_gap_flags(event: *mut GstEvent, flags: u32);
    fn gst_navigation_modifier_type_get_type() -> glib::ffi::GType;
}

/// Custom metas, which GStreamer has from version 1.20 on.
pub mod custom_meta {
    use super::*;

    /// Registers a custom meta.
    pub fn register(name: &str) {
        let name = CString::new(name).unwrap();
        let mut tags = [std::ptr::null()];
        let none = std::ptr::null();
        // SAFETY: the name is valid, the list of tags is empty, and there are no functions of the meta.
        let info = unsafe { gst_meta_register_custom(name.as_ptr(), tags.as_mut_ptr(), none, none, none) };
        assert!(!info.is_null());
    }

    /// Adds a registered custom meta to a buffer. Returns its structure, which is empty.
    pub fn add<'a>(buffer: &'a mut gst::BufferRef, name: &str) -> &'a mut gst::StructureRef {
        let name = CString::new(name).unwrap();
        // SAFETY: the buffer is writable, and owns the meta, which owns the structure.
        unsafe {
            let meta = gst_buffer_add_custom_meta(buffer.as_mut_ptr(), name.as_ptr());
            assert!(!meta.is_null());
            gst::StructureRef::from_glib_borrow_mut(gst_custom_meta_get_structure(meta))
        }
    }

    /// The structure of a buffer's custom meta of this name, if it has one.
    pub fn get<'a>(buffer: &'a gst::BufferRef, name: &str) -> Option<&'a gst::StructureRef> {
        let name = CString::new(name).unwrap();
        // SAFETY: the functions do not change the buffer, which owns the meta, which owns the structure.
        unsafe {
            let meta = gst_buffer_get_custom_meta(buffer.as_ptr().cast_mut(), name.as_ptr());
            (!meta.is_null()).then(|| gst::StructureRef::from_glib_borrow(gst_custom_meta_get_structure(meta)))
        }
    }
}

/// The flag of a gap that stands for lost data, GST_GAP_FLAG_MISSING_DATA. GStreamer has it from version 1.20 on.
pub const MISSING_DATA: u32 = 1;

/// The flags of a GAP event.
pub fn gap_flags(gap: &event::Gap) -> u32 {
    let mut flags = 0;
    // SAFETY: the event is a GAP event, and the function does not change it.
    unsafe { gst_event_parse_gap_flags(gap.as_ptr().cast_mut(), &raw mut flags) };
    flags
}

/// The GAP event with these flags.
pub fn with_gap_flags(mut gap: gst::Event, flags: u32) -> gst::Event {
    // SAFETY: the event is a GAP event, and it is writable.
    unsafe { gst_event_set_gap_flags(gap.make_mut().as_mut_ptr(), flags) };
    gap
}

/// The bit of the Shift key in GstNavigationModifierType, which GStreamer has from version 1.22 on.
pub const SHIFT: u32 = 1;
/// The bit of the first mouse button.
pub const BUTTON_1: u32 = 1 << 8;

/// The fields of a navigation event, with the pressed modifier keys and mouse buttons.
pub fn with_modifiers(mut navigation: gst::Structure, bits: u32) -> gst::Structure {
    // SAFETY: the type is valid, its values are flags, and flags are a plain number, which any thread may use.
    let value = unsafe {
        let mut value = glib::Value::from_type(from_glib(gst_navigation_modifier_type_get_type()));
        glib::gobject_ffi::g_value_set_flags(value.to_glib_none_mut().0, bits);
        from_glib_none::<_, glib::SendValue>(value.to_glib_none().0)
    };
    navigation.set_value("state", value);
    navigation
}
