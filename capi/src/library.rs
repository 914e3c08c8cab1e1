// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions of the library that need no handle.

use std::ffi::{c_char, c_int};

use crate::status::{self, Failure, Status, enter};

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
        let mut list = Vec::new();
        for name in rsshm_channel::channels() {
            list.extend(name.as_bytes());
            list.push(0);
        }
        // An empty name ends the list.
        list.push(0);
        if !needed.is_null() {
            // SAFETY: `needed` is not NULL, so the caller guarantees a variable.
            unsafe { needed.write(list.len()) };
        }
        if names.is_null() {
            return if size == 0 && !needed.is_null() {
                Ok(Status::Ok)
            } else {
                Err(Failure::argument(
                    "the memory for the names is NULL; pass memory, or size 0 and the address of a variable",
                ))
            };
        }
        if list.len() > size {
            if size > 0 {
                // SAFETY: `names` is not NULL, so the caller guarantees `size` bytes.
                unsafe { names.write(0) };
            }
            return Err(Failure::argument(format!(
                "the names need {} bytes, the memory has {size}",
                list.len()
            )));
        }
        // SAFETY: `names` is not NULL, so the caller guarantees `size` bytes; the list has at most as many.
        unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), names.cast::<u8>(), list.len()) };
        Ok(Status::Ok)
    })
}
