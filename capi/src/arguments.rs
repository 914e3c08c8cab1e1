// SPDX-License-Identifier: MIT OR Apache-2.0

//! The arguments of C functions: texts, memory, and structures with a size.

use std::{
    ffi::{CStr, c_char},
    slice,
};

use crate::status::{Failure, Status};

/// A structure of `include/rsshm.h` that begins with its size. All bits may be zero, and any bits are a valid value.
///
/// # Safety
/// The type is `repr(C)`, begins with a `u32` that is the size, and consists of integers and raw pointers.
pub(crate) unsafe trait Sized32: Copy {
    /// The name in C.
    const NAME: &str;
    /// The size of the first version of the structure.
    const FIRST_SIZE: usize;
}

/// The text at `text`.
///
/// # Safety
/// `text` is NULL, or points to a text that ends with NUL and does not change during `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::argument(format!("{what} is NULL; pass a text")));
    }
    // SAFETY: `text` is not NULL, so the caller guarantees a text with a NUL at its end.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes
        .to_str()
        .map_err(|_| Failure::argument(format!("{what} is not valid UTF-8: {}", bytes.to_string_lossy())))
}

/// The `size` bytes at `data`.
///
/// # Safety
/// `data` is NULL, or points to `size` bytes that can be read and do not change during `'a`.
pub(crate) unsafe fn bytes<'a>(data: *const u8, size: usize, what: &str) -> Result<&'a [u8], Failure> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::argument(format!("{what} is NULL, but its size is {size}")));
    }
    if size > isize::MAX as usize {
        return Err(Failure::argument(format!("{what} cannot have {size} bytes")));
    }
    // SAFETY: `data` is not NULL, so the caller guarantees `size` bytes; the size is one that a slice may have.
    Ok(unsafe { slice::from_raw_parts(data, size) })
}

/// The size that the structure at `pointer` says it has.
///
/// # Safety
/// `pointer` is NULL, or points to a `u32`.
unsafe fn stated_size<T: Sized32>(pointer: *const T) -> Result<usize, Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: `pointer` is not NULL, so the caller guarantees a `u32`. It need not be aligned.
    let size = unsafe { pointer.cast::<u32>().read_unaligned() } as usize;
    if size < T::FIRST_SIZE {
        return Err(Failure::argument(format!(
            "the struct_size of {} is {size}, it must be at least {}; initialise the structure with its _INIT macro",
            T::NAME,
            T::FIRST_SIZE
        )));
    }
    Ok(size)
}

/// Copies the structure at `pointer`, which may be of an older or newer version than the library's. Fields that an older
/// program does not have are those of `default`.
///
/// # Safety
/// `pointer` is NULL, or points to as many bytes as its first field says.
pub(crate) unsafe fn read<T: Sized32>(pointer: *const T, default: T) -> Result<T, Failure> {
    // SAFETY: as the caller guarantees.
    let size = unsafe { stated_size(pointer) }?;
    let own = size_of::<T>();
    if size > own {
        if size > 4096 {
            return Err(Failure::argument(format!(
                "the struct_size of {} is {size}; initialise the structure with its _INIT macro",
                T::NAME
            )));
        }
        // SAFETY: the caller guarantees `size` bytes, of which these are the last ones.
        let rest = unsafe { slice::from_raw_parts(pointer.cast::<u8>().add(own), size - own) };
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Failure::argument(format!(
                "{} uses a field that this librsshm does not have; install the version of the header or a later one",
                T::NAME
            )));
        }
    }
    let mut value = default;
    // SAFETY: the source has `size` bytes and the target `own`, and they do not overlap. Any bits are a valid `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), size.min(own));
    }
    Ok(value)
}

/// Checks that [`write`] can store a value at `pointer`.
///
/// # Safety
/// `pointer` is NULL, or points to a `u32`.
pub(crate) unsafe fn check<T: Sized32>(pointer: *const T) -> Result<(), Failure> {
    // SAFETY: as the caller guarantees.
    unsafe { stated_size(pointer) }.map(drop)
}

/// Stores `value` at `pointer`. The caller's structure keeps its size, and fields that the library does not know become
/// zero.
///
/// # Safety
/// `pointer` is NULL, or points to as many writable bytes as its first field says.
pub(crate) unsafe fn write<T: Sized32>(pointer: *mut T, value: T) -> Result<(), Failure> {
    // SAFETY: as the caller guarantees.
    let size = unsafe { stated_size(pointer) }?.min(4096);
    let (own, first) = (size_of::<T>(), size_of::<u32>());
    // SAFETY: the caller guarantees `size` bytes, which do not overlap with `value`. The first field is not touched.
    unsafe {
        let to = pointer.cast::<u8>();
        let from = (&raw const value).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.add(first), to.add(first), size.min(own) - first);
        if size > own {
            to.add(own).write_bytes(0, size - own);
        }
    }
    Ok(())
}

/// Checks a pointer to which a result is stored.
pub(crate) fn check_out<T>(out: *mut T, what: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument(format!(
            "{what} is NULL; pass the address of a variable"
        )));
    }
    Ok(())
}

/// Stores `texts`, each with a NUL at its end, and one more NUL. `needed` gets the number of these bytes. `what` names
/// the texts in an error.
///
/// # Safety
/// `memory` is NULL, or points to `size` writable bytes. `needed` is NULL or a variable.
pub(crate) unsafe fn write_texts<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    what: &str,
    memory: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> Result<Status, Failure> {
    let mut list = Vec::new();
    for text in texts {
        list.extend(text.as_bytes());
        list.push(0);
    }
    list.push(0);
    if !needed.is_null() {
        // SAFETY: `needed` is not NULL, so the caller guarantees a variable.
        unsafe { needed.write(list.len()) };
    }
    if memory.is_null() {
        return if size == 0 && !needed.is_null() {
            Ok(Status::Ok)
        } else {
            Err(Failure::argument(format!(
                "the memory for the {what} is NULL; pass memory, or size 0 and the address of a variable"
            )))
        };
    }
    if list.len() > size {
        if size > 0 {
            // SAFETY: `memory` is not NULL, so the caller guarantees `size` bytes.
            unsafe { memory.write(0) };
        }
        return Err(Failure::argument(format!(
            "the {what} need {} bytes, the memory has {size}",
            list.len()
        )));
    }
    // SAFETY: `memory` is not NULL, so the caller guarantees `size` bytes; the list has at most as many.
    unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), memory.cast::<u8>(), list.len()) };
    Ok(Status::Ok)
}
