// SPDX-License-Identifier: MIT OR Apache-2.0

//! Custom metas, whose content is a structure. GStreamer has them from version 1.20 on.

use std::{
    ffi::{CString, c_char},
    sync::LazyLock,
};

use gst::{
    MetaRef,
    ffi::{GstBuffer, GstCustomMeta, GstMetaInfo, GstStructure},
};

use crate::library;

/// The functions for custom metas.
#[derive(Clone, Copy)]
struct Functions {
    is_custom: unsafe extern "C" fn(*const GstMetaInfo) -> i32,
    structure: unsafe extern "C" fn(*mut GstCustomMeta) -> *mut GstStructure,
    add: unsafe extern "C" fn(*mut GstBuffer, *const c_char) -> *mut GstCustomMeta,
}

static FUNCTIONS: LazyLock<Option<Functions>> = LazyLock::new(|| {
    // SAFETY: these are the types of the functions.
    unsafe {
        Some(Functions {
            is_custom: library::function(library::CORE, c"gst_meta_info_is_custom")?,
            structure: library::function(library::CORE, c"gst_custom_meta_get_structure")?,
            add: library::function(library::CORE, c"gst_buffer_add_custom_meta")?,
        })
    }
});

/// Whether this meta is a custom meta.
pub(in crate::metas) fn is_custom(meta: &MetaRef<gst::Meta>) -> bool {
    // SAFETY: the reference is to a valid meta, and each meta has a valid info.
    FUNCTIONS.is_some_and(|functions| unsafe { (functions.is_custom)((*meta.as_ptr()).info) } != 0)
}

/// Whether a custom meta of this name is registered. No custom meta is, if this GStreamer has none (before 1.20).
pub(in crate::metas) fn is_registered(name: &str) -> bool {
    let info = super::info(name);
    // SAFETY: infos are never freed.
    let is_custom = |functions: Functions| info.is_some_and(|info| unsafe { (functions.is_custom)(info) } != 0);
    FUNCTIONS.is_some_and(is_custom)
}

/// The content of a custom meta; `None` if this meta is of another kind.
pub(in crate::metas) fn structure<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<&'a gst::StructureRef> {
    let functions = (*FUNCTIONS).filter(|_| is_custom(meta))?;
    // The C function does not change the meta, although it takes it as mutable.
    let meta = meta.as_ptr().cast_mut().cast();
    // SAFETY: the meta is valid and custom.
    let structure = unsafe { (functions.structure)(meta) };
    // SAFETY: the meta owns the structure, and outlives the reference.
    (!structure.is_null()).then(|| unsafe { gst::StructureRef::from_glib_borrow(structure) })
}

/// Adds a custom meta of this name, which must be registered. Its structure is empty.
pub(in crate::metas) fn add<'a>(buffer: &'a mut gst::BufferRef, name: &str) -> Option<&'a mut gst::StructureRef> {
    let functions = (*FUNCTIONS)?;
    let name = CString::new(name).ok()?;
    // SAFETY: the buffer is writable, and the name is valid.
    let meta = unsafe { (functions.add)(buffer.as_mut_ptr(), name.as_ptr()) };
    if meta.is_null() {
        return None;
    }
    // SAFETY: the meta was just added.
    let structure = unsafe { (functions.structure)(meta) };
    // SAFETY: the meta owns the structure. The buffer stays borrowed as long as the structure, and so cannot lose it.
    (!structure.is_null()).then(|| unsafe { gst::StructureRef::from_glib_borrow_mut(structure) })
}

/// Registers a custom meta, as programs do. The plugin itself registers none.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::metas) fn register(name: &str) {
    use std::ptr;
    type Register = unsafe extern "C" fn(
        *const c_char,
        *mut *const c_char,
        *const std::ffi::c_void,
        *const std::ffi::c_void,
        *const std::ffi::c_void,
    ) -> *const GstMetaInfo;
    // SAFETY: this is the type of the function.
    let register = unsafe { library::function::<Register>(library::CORE, c"gst_meta_register_custom") };
    if let Some((register, name)) = register.zip(CString::new(name).ok()) {
        // SAFETY: the name is valid, the list of tags is empty, and there are no functions of the meta.
        unsafe {
            register(
                name.as_ptr(),
                [ptr::null()].as_mut_ptr(),
                ptr::null(),
                ptr::null(),
                ptr::null(),
            )
        };
    }
}
