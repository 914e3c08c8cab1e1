// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions of the library that need no handle.

use std::ffi::{c_char, c_int};

use rsshm_channel::{Directory, Error};

use crate::{
    arguments,
    status::{self, enter},
};

/// The number of the C interface: it grows when functions or fields are added.
const ABI: u32 = 1;

/// `rsshm_abi`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_abi() -> u32 {
    ABI
}

/// `rsshm_version`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// `rsshm_error`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_error() -> *const c_char {
    status::text()
}

/// `rsshm_now`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_now() -> u64 {
    rsshm_channel::monotonic_ns()
}

/// `rsshm_status_name`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_status_name(value: c_int) -> *const c_char {
    status::name(value).as_ptr()
}

/// `rsshm_channels`.
///
/// # Safety
/// `names` is NULL, or points to `size` writable bytes. `needed` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_channels(names: *mut c_char, size: usize, needed: *mut usize) -> c_int {
    enter("rsshm_channels", || {
        Directory::current().require().map_err(Error::Directory)?;
        let list = rsshm_channel::channels();
        let list = list.iter().map(String::as_str);
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write_texts(list, "names", names, size, needed) }
    })
}
