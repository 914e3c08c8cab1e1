// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds functions of GStreamer's libraries at run time.
//!
//! The plugin is not linked with these functions, because older versions of GStreamer, or small installations, do not
//! have them.

use std::ffi::{CStr, c_void};

pub(crate) const CORE: &CStr = c"libgstreamer-1.0.so.0";
pub(crate) const VIDEO: &CStr = c"libgstvideo-1.0.so.0";
pub(crate) const AUDIO: &CStr = c"libgstaudio-1.0.so.0";
pub(crate) const RTP: &CStr = c"libgstrtp-1.0.so.0";
pub(crate) const SCTP: &CStr = c"libgstsctp-1.0.so.0";
pub(crate) const MPEG_TS: &CStr = c"libgstmpegts-1.0.so.0";
pub(crate) const ANALYTICS: &CStr = c"libgstanalytics-1.0.so.0";

/// The function `name` of `library`; `None` if this system does not have it.
///
/// # Safety
///
/// `F` must be the type of a pointer to this function.
pub(crate) unsafe fn function<F: Copy>(library: &CStr, name: &CStr) -> Option<F> {
    const {
        assert!(
            size_of::<F>() == size_of::<*mut c_void>(),
            "a function is found as a pointer"
        );
    };
    // SAFETY: both arguments are valid, and GStreamer's libraries run no code that could harm when they are loaded. The
    // library is never closed.
    let library = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the library is open, and the name is valid.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    // SAFETY: the caller vouches for the type of the function, and a pointer to a function is as large as an address.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}
