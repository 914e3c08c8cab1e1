// SPDX-License-Identifier: MIT OR Apache-2.0

//! GStreamer's own serialisation of metas, which it has from version 1.24 on.

use std::{ptr, sync::LazyLock};

use gst::{
    MetaRef,
    ffi::{GstBuffer, GstMeta},
    glib,
};

use super::info;
use crate::library;

/// Appends a meta to an array of bytes.
type Serialize = unsafe extern "C" fn(*const GstMeta, *mut glib::ffi::GByteArray) -> i32;
/// Adds the meta in an array of bytes to a buffer.
type Deserialize = unsafe extern "C" fn(*mut GstBuffer, *const u8, usize, *mut u32) -> *mut GstMeta;

static SERIALIZE: LazyLock<Option<Serialize>> =
    // SAFETY: this is the type of the function.
    LazyLock::new(|| unsafe { library::function(library::CORE, c"gst_meta_serialize_simple") });
static DESERIALIZE: LazyLock<Option<Deserialize>> =
    // SAFETY: this is the type of the function.
    LazyLock::new(|| unsafe { library::function(library::CORE, c"gst_meta_deserialize") });

/// Whether GStreamer can turn this meta into bytes.
pub(in crate::metas) fn is_serializable(meta: &MetaRef<gst::Meta>) -> bool {
    // The info has the field only if GStreamer has the function, so the function is looked for first.
    // SAFETY: the reference is to a valid meta, and each meta has a valid info.
    SERIALIZE.is_some() && unsafe { (*(*meta.as_ptr()).info).serialize_func.is_some() }
}

/// Whether GStreamer can add metas of this name from bytes.
pub(in crate::metas) fn is_deserializable(name: &str) -> bool {
    // SAFETY: infos are never freed, and have the field if GStreamer has the function.
    DESERIALIZE.is_some() && info(name).is_some_and(|info| unsafe { (*info).deserialize_func.is_some() })
}

/// The meta as bytes.
pub(in crate::metas) fn to_bytes(meta: &MetaRef<gst::Meta>) -> Option<Vec<u8>> {
    let serialize = (*SERIALIZE)?;
    // SAFETY: this makes an empty array, which the calls below use while it lives.
    let array = unsafe { glib::ffi::g_byte_array_new() };
    // SAFETY: both are valid.
    let done = unsafe { serialize(meta.as_ptr(), array) } != 0;
    // SAFETY: the array is valid, and its bytes are copied before it is freed.
    let bytes = unsafe { super::values((*array).data, (*array).len as usize) }.map(<[u8]>::to_vec);
    // SAFETY: this is the only reference to the array.
    unsafe { glib::ffi::g_byte_array_unref(array) };
    bytes.filter(|_| done)
}

/// The name of the meta that these bytes describe; `None` if their head is not valid.
///
/// The head has the size of the whole, the length of the name, the name with a NUL, and a version.
pub(in crate::metas) fn name_in(bytes: &[u8]) -> Option<&str> {
    let (size, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let is_valid = u32::from_le_bytes(*size) as usize == bytes.len() && matches!(rest, [0, _, ..]);
    str::from_utf8(name).ok().filter(|_| is_valid)
}

/// Adds the meta that these bytes describe. Their head must have a name of which [`is_deserializable`] is true.
pub(in crate::metas) fn add_from_bytes(buffer: &mut gst::BufferRef, bytes: &[u8]) -> Option<()> {
    let mut consumed = 0;
    // SAFETY: the buffer is writable, and the arguments are valid.
    let meta = unsafe {
        (*DESERIALIZE)?(
            buffer.as_mut_ptr(),
            bytes.as_ptr(),
            bytes.len(),
            ptr::from_mut(&mut consumed),
        )
    };
    (!meta.is_null()).then_some(())
}
